"""The machine refuses: full disks, limits, read-only media, permissions, descriptors; a clock that goes back; a value of 100 MB."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import eventstore
from eventstore import InvalidValueError, ReadOnlyError
from eventstore.clock import Clock, now_us
from tests.faults import limits
from tests.faults.ledger import DOMAIN
from tests.faults.stores import Damaged, events_of, leave
from tests.faults.workers import Server


def require_all_kept(folder: Path, told: list[dict[str, Any]]) -> None:
    """Every receipt that was told of names an event that is there."""
    found = {event.position: event.checksum.hex() for event in events_of(folder)}
    acknowledged = {said["position"]: said["checksum"] for said in told if "position" in said}
    assert {position: found.get(position) for position in acknowledged} == acknowledged
    with eventstore.open(folder) as store:
        assert store.verify().ok
        assert store.domain(DOMAIN).read_value("after") == 1


def require_refused_for_space(told: list[dict[str, Any]]) -> None:
    """The first refusal says what is wrong and that nothing was written, and stops the writing; once, and on_halt is told."""
    (refused,) = (said["refused"] for said in told if "refused" in said)
    assert (refused["error"], refused["outcome"]) == ("DiskFullError", "not_written"), refused
    assert "space" in refused["message"]
    assert [said["again"]["error"] for said in told if "again" in said] == ["HaltedError"] * 3
    (said,) = (said for said in told if "halts" in said)
    assert (said["halts"], said["causes"]) == (1, ["DiskFullError"])


# Space


@pytest.mark.parametrize("durability", ["power", "process"])
@pytest.mark.parametrize("file_limit", [70_000, 131_072, 200_001])
@pytest.mark.parametrize("size", [100, 20_000])
def test_a_limit_on_file_sizes_is_a_full_disk_and_no_death(
    server: Server, tmp_path: Path, durability: str, file_limit: int, size: int
) -> None:
    folder = tmp_path / "store"
    told = server.run(limits.fill, folder=str(folder), size=size, file_limit=file_limit, ballast=None, durability=durability)
    require_all_kept(folder, told)
    require_refused_for_space(told)


@pytest.mark.parametrize("durability", ["power", "process"])
@pytest.mark.parametrize("size", [100, 30_000])
def test_a_full_disk_refuses_and_works_again_once_there_is_space(
    server: Server, mounted: Callable[..., Path], size: int, durability: str
) -> None:
    disk = mounted("-t", "tmpfs", "-o", "size=1m", "tmpfs")
    (disk / "ballast").write_bytes(bytes(700_000))
    told = server.run(
        limits.fill, folder=str(disk / "store"), size=size, file_limit=None, ballast=str(disk / "ballast"), durability=durability
    )
    require_all_kept(disk / "store", told)
    require_refused_for_space(told)


@pytest.mark.parametrize("free", [0, 1, 2, 4, 6, 8, 9, 10, 12, 16, 20, 24])
def test_a_store_is_not_half_made_on_a_full_disk(mounted: Callable[..., Path], free: int) -> None:
    """With so many pages of 4 KiB left: a typed error, or a store; and a store once there is space."""
    disk = mounted("-t", "tmpfs", "-o", "size=256k", "tmpfs")
    (disk / "ballast").write_bytes(bytes(4_096 * (64 - 1 - free)))
    with contextlib.suppress(eventstore.DiskFullError), eventstore.open(disk / "store", min_free_bytes=0) as store:
        store.domain(DOMAIN).write_value("before", 1)
    (disk / "ballast").unlink()
    with eventstore.open(disk / "store", min_free_bytes=0) as store:
        store.domain(DOMAIN).write_value("after", 1)
        assert store.verify().ok


# Read-only media, and somebody who owns nothing


@pytest.fixture(scope="module")
def closed(clean_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    """A closed store."""
    return leave(clean_server, tmp_path_factory.mktemp("machine") / "closed", settled=3, loose=0)


@pytest.fixture(scope="module")
def killed(clean_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    """A store with a WAL and a -shm left behind."""
    return leave(clean_server, tmp_path_factory.mktemp("machine") / "killed", settled=3, loose=3)


def without_shm(store: Damaged) -> None:
    """As a copy or a restart leaves it."""
    store.shm.unlink(missing_ok=True)


def as_it_is(store: Damaged) -> None:
    """Nothing is changed."""


@pytest.mark.parametrize("prepare", [as_it_is, without_shm])
@pytest.mark.parametrize("which", ["closed", "killed"])
def test_read_only_media_are_read_and_not_written(
    tmp_path: Path, mounted: Callable[..., Path], which: str, prepare: Callable[[Damaged], None], request: pytest.FixtureRequest
) -> None:
    template: Damaged = request.getfixturevalue(which)
    prepare(template.copy(tmp_path / "source" / "store"))
    disk = mounted("--bind", str(tmp_path / "source"))
    subprocess.run(["mount", "-o", "remount,ro,bind", str(disk)], check=True, timeout=60)
    with eventstore.open(disk / "store", read_only=True) as store:
        domain = store.domain(DOMAIN)
        assert list(domain.events()) == template.events
        assert domain.read_value("key-1") == {"number": 1}
        assert store.verify().ok
        with pytest.raises(ReadOnlyError):
            domain.write_value("key", 1)
        with pytest.raises(eventstore.NotFoundError):
            store.domain("new")
    with pytest.raises(ReadOnlyError), eventstore.open(disk / "store") as store:
        store.domain(DOMAIN)
    with pytest.raises(ReadOnlyError):
        eventstore.open(disk / "new")


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody can reach, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="eventstore-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def set_modes(folder: Path, folders: int, files: int) -> None:
    """Change what is allowed with everything in a store."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(folders if path.is_dir() else files)


@pytest.mark.parametrize("prepare", [as_it_is, without_shm])
@pytest.mark.parametrize("which", ["closed", "killed"])
def test_a_store_that_may_only_be_read_is_read(
    server: Server, public: Path, which: str, prepare: Callable[[Damaged], None], request: pytest.FixtureRequest
) -> None:
    template: Damaged = request.getfixturevalue(which)
    store = template.copy(public / "store")
    prepare(store)
    set_modes(store.folder, 0o555, 0o444)
    try:
        read, written = server.run(limits.open_as_nobody, folder=str(store.folder))
    finally:
        set_modes(store.folder, 0o755, 0o644)
    assert read == {
        "events": [event.checksum.hex() for event in template.events],
        "values": [1, 2, 3] if which == "closed" else [1, 2, 5, 6],  # key-3 is removed at position 4
        "findings": 0,
    }
    assert written["error"] in ("AccessError", "ReadOnlyError"), written
    assert str(store.folder) in written["message"]


@pytest.mark.parametrize("name", ["folder", "manifest", "log", "head", "db"])
def test_what_must_not_be_read_is_named(server: Server, public: Path, closed: Damaged, name: str) -> None:
    store = closed.copy(public / "store")
    set_modes(store.folder, 0o755, 0o644)
    denied: Path = store.db.parent if name == "log" else getattr(store, name)
    denied.chmod(0)
    try:
        read, written = server.run(limits.open_as_nobody, folder=str(store.folder))
    finally:
        denied.chmod(0o700)
    assert (read["error"], written["error"]) == ("AccessError", "AccessError"), (read, written)
    assert str(denied) in read["message"]
    assert str(store.folder) in written["message"]


def test_a_log_that_must_not_be_listed_is_no_empty_one(server: Server, public: Path, closed: Damaged) -> None:
    """Its files may be opened by who knows their names, but not found: that is not to be taken for a new domain."""
    store = closed.copy(public / "store")
    set_modes(store.folder, 0o757, 0o646)
    store.db.parent.chmod(0o753)
    before = sorted(store.db.parent.iterdir())
    read, written = server.run(limits.open_as_nobody, folder=str(store.folder))
    assert (read["error"], written["error"]) == ("AccessError", "AccessError"), (read, written)
    assert str(store.db.parent) in read["message"]
    assert sorted(store.db.parent.iterdir()) == before


def test_a_folder_that_must_not_be_written_gets_no_store(server: Server, public: Path) -> None:
    public.chmod(0o555)
    try:
        (said,) = server.run(limits.make_as_nobody, folder=str(public / "store"))
    finally:
        public.chmod(0o755)
    assert said["error"] == "AccessError", said
    assert str(public / "store") in said["message"]
    assert list(public.iterdir()) == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_everything_is_private_whatever_the_umask(server: Server, tmp_path: Path, umask: int) -> None:
    (said,) = server.run(limits.live_under_umask, folder=str(tmp_path / "store"), umask=umask)
    modes: dict[str, int] = said["modes"]
    kinds = {"store.json", "store.lock", "head", ".db", ".db-wal", ".db-shm", ".keys", ".ids"}
    assert all(any(name.endswith(kind) for name in modes) for kind in kinds), modes
    assert any(name.startswith("quarantine/") and name.endswith(".db") for name in modes), modes
    assert {name: oct(mode) for name, mode in modes.items() if mode != (0o700 if name.endswith("/") else 0o600)} == {}


# Descriptors

SPARE = 8
"""As many descriptors a store needs to open, about: each number of them left is tried."""


def test_without_descriptors_nothing_opens_and_what_is_open_goes_on(server: Server, tmp_path: Path) -> None:
    told = server.run(limits.run_out_of_descriptors, folder=str(tmp_path / "store"), other=str(tmp_path / "other"), spares=SPARE)
    attempts = [said for said in told if "what" in said]
    refused = [said for said in attempts if said["error"] is not None]
    assert {said["what"] for said in refused if said["spare"] == 0} == {"another store", "a new store", "another domain"}
    assert {said["error"] for said in refused} == {"EngineError"}, refused
    for said in refused:
        assert "ulimit -n" in said["message"], said
        assert str(tmp_path / ("store" if said["what"] == "another domain" else "other")) in said["message"], said
    assert {said["what"] for said in attempts if said["error"] is None} >= {"another store"}, "none ever opened: something else was wrong"
    with eventstore.open(tmp_path / "store") as store:
        assert store.domains() == [DOMAIN, "quotes"]
        assert store.verify().ok
        assert len(store.domain(DOMAIN)) == 2 + SPARE * 10


# Time


def test_a_clock_that_goes_back_changes_no_order(tmp_path: Path) -> None:
    later, hours = now_us(), 10_000 * 1_000_000
    for now in (later, later - hours, later - 2 * hours):
        with eventstore.open(tmp_path / "store") as store:
            store.clock = Clock(lambda now=now: now)  # type: ignore[misc]
            one, other = store.domain("one"), store.domain("other")
            one.write_value("key", now)
            other.write_value("key", now)
            one.write_values([("a", 1), ("b", 2)])
            stamps = [event.recorded_us for event in one.events()]
            assert stamps == sorted(set(stamps))
            assert stamps[0] >= later - 2 * hours
            assert one.head().position == len(stamps)
            assert one.read_value("key") == now, "what was written last counts, whatever the clock says"
            assert store.verify().ok


def test_a_clock_that_goes_back_while_a_store_is_open(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "store") as store:
        times = iter([now_us(), 5, now_us() - 10_000 * 1_000_000, 6, -7])
        store.clock = Clock(lambda: next(times))
        domain = store.domain(DOMAIN)
        for number in range(5):
            domain.write_value("key", number)
        stamps = [event.recorded_us for event in domain.events()]
        assert stamps == [stamps[0] + number for number in range(5)]
        assert store.verify().ok


def test_processes_whose_clocks_are_hours_apart_keep_one_order(server: Server, tmp_path: Path) -> None:
    folder, hours = tmp_path / "store", 10_000 * 1_000_000
    eventstore.open(folder).close()
    clocks = (0, hours, -hours)
    processes = [
        server.start(limits.write_by_a_wrong_clock, folder=str(folder), name=str(ahead), ahead_us=ahead, calls=40) for ahead in clocks
    ]
    told = [list(iter(process.told, {"half": True})) for process in processes]
    for process in processes:  # none writes its other half before all have written one: whatever the machine does, they take turns
        process.signal(signal.SIGUSR1)
    acknowledged: dict[int, str] = {}
    for process, half in zip(processes, told, strict=True):
        last = 0
        for said in (*half, *process.rest()):
            assert said["position"] not in acknowledged
            assert said["position"] > last, "a process's own writes are in the order it made them"
            last = said["position"]
            acknowledged[last] = said["checksum"]
        assert process.wait() == 0
    events = events_of(folder)
    assert {event.position: event.checksum.hex() for event in events} == acknowledged
    stamps = [event.recorded_us for event in events]
    assert stamps == sorted(set(stamps))
    assert stamps[-1] > now_us() + hours // 2, "nobody's clock was ahead"
    with eventstore.open(folder) as store:
        assert store.domain(DOMAIN).write_value("key", 1).position == len(events) + 1
        assert store.verify().ok


# Size


def test_a_value_beyond_the_limit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "store") as store:
        domain = store.domain(DOMAIN)
        with pytest.raises(InvalidValueError, match="max_value_bytes"):
            domain.write_values([("small", 1), ("huge", "x" * 2**24)])
        assert domain.head().position == 0
        domain.write_value("fits", "x" * (2**24 - 2))
        assert store.verify().ok


@pytest.mark.parametrize("location", ["memory:", "folder"])
def test_no_limit_goes_beyond_what_a_row_can_hold(tmp_path: Path, location: str) -> None:
    """SQLite refuses a row of more than 10^9 bytes; that is said when the store is opened, not when such a value comes."""
    where = location if location == "memory:" else tmp_path / "store"
    with pytest.raises(eventstore.ConfigError, match="at most 999,000,000, not 1,000,000,001"):
        eventstore.open(where, max_value_bytes=1_000_000_001)
    assert list(tmp_path.iterdir()) == []
    eventstore.open(where, max_value_bytes=999_000_000).close()


@pytest.mark.faults
def test_a_value_of_100_megabytes_is_stored_where_the_limit_is_raised(server: Server, tmp_path: Path) -> None:
    written, read = server.run(limits.write_huge, folder=str(tmp_path / "store"), size=100_000_000)
    assert written == {"position": 1}
    assert read == {"same": True, "ok": True}
