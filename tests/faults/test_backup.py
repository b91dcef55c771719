"""Backups beside writers, killed, without power, refused by the disk: the old one or the new one, whole, and never a mix."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eventstore
from eventstore import Event, copies
from eventstore.restore import restore
from tests.faults import backups
from tests.faults.crash_states import Model, Trace
from tests.faults.ledger import DOMAIN, Ledger
from tests.faults.points import Points, step_by_step
from tests.faults.workers import Server

DEATHS = 20
"""At how many steps of a backup and of a restore their process ends, evenly spaced from a random one on."""
REFUSED = 10
BOTH: list[Model] = ["posix", "ext4"]

History = dict[str, list[Event]]


def history(folder: Path) -> History:
    """Every event of a store that is whole."""
    with eventstore.open(folder, read_only=True) as store:
        report = store.verify(processes=1)
        assert report.ok, report.findings
        return {name: [store.domain(name).event(0), *store.domain(name).events()] for name in store.domains()}


def restored(backup: Path, scratch: Path) -> History:
    """What a backup gives back."""
    folder = scratch / "restored"
    restore(backup, folder, processes=1)
    found = history(folder)
    assert found == history(backup)
    shutil.rmtree(folder)
    return found


class Place:
    """A store with a backup of it, both left as they are while the tests work on copies; and the store written on since."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.store, self.backup = folder / "store", folder / "backup"
        server.run(backups.make, folder=str(self.store), name="first", calls=8)
        server.run(backups.back_up, folder=str(self.store), to=str(self.backup))
        self.old = history(self.backup)
        worker = server.start(backups.write_more, folder=str(self.store), name="more", calls=5)
        assert worker.rest() == []
        assert worker.wait() < 0
        self.new = history(self.store)
        assert len(self.new[DOMAIN]) > len(self.old[DOMAIN])


@pytest.fixture(scope="module")
def place(clean_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """See Place."""
    return Place(clean_server, tmp_path_factory.mktemp("backups"))


@pytest.fixture(
    params=[
        pytest.param(200, marks=pytest.mark.faults, id="ci"),
        pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(3_600)], id="long"),
    ]
)
def states(request: pytest.FixtureRequest) -> int:
    """How many crash states are judged, repeats among them."""
    found: int = request.param
    return found


def instants(steps: int, deaths: int, seed: str) -> range:
    """Evenly spaced, from a random one on."""
    stride = max(1, steps // deaths)
    return range(random.Random(seed).randint(1, stride), steps + 1, stride)


# ---- beside writers


def test_all_that_was_acknowledged_before_is_in_a_backup_made_beside_three_writers(server: Server, tmp_path: Path, seed: str) -> None:
    folder, to = tmp_path / "store", tmp_path / "backup"
    ledger, made = Ledger(), 0
    writers = [server.start(backups.write_on, folder=str(folder), name=f"{seed}.{number}") for number in range(3)]
    for writer in writers:
        assert writer.told() == {"open": True}
    with eventstore.open(folder, read_only=True) as store:
        for _ in range(4):
            for writer in writers:  # what was said is acknowledged
                for _ in range(20):
                    ledger.take(writer.told())
            before = ledger.acknowledged.copy()
            report = store.backup(to)
            made += len(before)
            with eventstore.open(to, read_only=True) as copy:
                events = list(copy.domain(DOMAIN).events())
                assert copy.verify().ok
            found = {event.position: event.checksum.hex() for event in events}
            lost = [position for position, (checksum, _) in before.items() if found.get(position) != checksum]
            assert not lost, f"FAULTS_SEED={seed}: acknowledged before the backup began, and not in it: {lost}"
            assert report.domains[0].position == len(events)
    for writer in writers:
        writer.kill()
        for said in writer.rest():
            ledger.take(said)
    assert made >= 4 * 3 * 20
    restore(to, tmp_path / "again")
    whole = history(folder)[DOMAIN]
    kept = history(tmp_path / "again")[DOMAIN]
    assert kept == whole[: len(kept)], "a backup is a beginning of what the store became"
    ledger.require_kept(folder)


def test_a_writer_is_not_kept_waiting_for_the_copying(server: Server, tmp_path: Path) -> None:
    """Writes go on between two pages of it, and are not in the copy."""
    with eventstore.open(tmp_path / "store") as store:
        domain = store.domain(DOMAIN)
        domain.write_values([(str(number), "x" * 9_000) for number in range(1_100)])
        written: list[int] = []

        def write(what: str, done: int, total: int) -> None:
            if "copying" in what and len(written) < 3:
                written.append(domain.write_value("meanwhile", done).position)

        report = store.backup(tmp_path / "backup", progress=write)
    assert len(written) >= 2
    assert report.domains[0].position == 1_100
    assert len(history(tmp_path / "backup")[DOMAIN]) == 1_101


# ---- killed


@step_by_step
@pytest.mark.parametrize("first", [False, True], ids=["over an older one", "the first one"])
def test_a_backup_is_killed_at_any_step(server: Server, place: Place, in_memory: Path, seed: str, first: bool, points: Points) -> None:
    def prepared() -> Path:
        folder = in_memory / "backup"
        shutil.rmtree(folder, ignore_errors=True)
        if not first:
            shutil.copytree(place.backup, folder)
        return folder

    steps = server.run(backups.back_up, folder=str(place.store), to=str(prepared()))[-1]["steps"]
    seen: set[str] = set()

    def changes() -> list[int]:
        to = prepared()
        return server.changes(backups.back_up, to, folder=str(place.store), to=str(to))

    for at in points.steps(seed, steps, changes):
        to = prepared()
        worker = server.start(backups.back_up, folder=str(place.store), to=str(to), at=at)
        assert worker.rest() == []
        assert worker.wait() < 0
        try:
            if (to / copies.NAME).exists():
                found = restored(to, in_memory)
                assert found in (place.new, *([] if first else [place.old])), "neither the old backup nor the new one"
                seen.add("new" if found == place.new else "old")
            else:
                assert first, "the backup before is gone"
            server.run(backups.back_up, folder=str(place.store), to=str(to))
            assert restored(to, in_memory) == place.new
            assert len(list(to.glob("copy-*"))) == 1, "the rubbish of a killed backup stays"
            assert {path.stat().st_nlink for path in to.rglob("*.db")} == {1}
        except (AssertionError, eventstore.EventStoreError) as error:
            raise AssertionError(f"FAULTS_SEED={seed}: killed at step {at} of {steps}") from error
    assert first or "old" in seen


@step_by_step
def test_a_restore_is_killed_at_any_step(server: Server, place: Place, in_memory: Path, seed: str, points: Points) -> None:
    target = in_memory / "again"
    steps = server.run(backups.restore_into, source=str(place.backup), folder=str(target))[-1]["steps"]

    def changes() -> list[int]:
        shutil.rmtree(target)
        return server.changes(backups.restore_into, in_memory, source=str(place.backup), folder=str(target))

    for at in points.steps(seed, steps, changes):
        shutil.rmtree(target, ignore_errors=True)
        worker = server.start(backups.restore_into, source=str(place.backup), folder=str(target), at=at)
        assert worker.rest() == []
        assert worker.wait() < 0
        try:
            if not target.exists():
                server.run(backups.restore_into, source=str(place.backup), folder=str(target))
            assert history(target) == place.old
        except (AssertionError, eventstore.EventStoreError) as error:
            raise AssertionError(f"FAULTS_SEED={seed}: killed at step {at} of {steps}") from error


# ---- without power


def record(server: Server, trace: Trace, job: Callable[..., None], **arguments: Any) -> list[tuple[int, dict[str, Any]]]:
    """Record a job; gives what it marked, and after how many records."""
    trace.begin()
    server.run(job, root=str(trace.root), log=str(trace.log), **arguments)
    trace.require_complete()
    return [(at, record.said) for at, record in enumerate(trace.records, 1) if record.kind == "M"]


def require_backed_up(trace: Trace, scratch: Path, seed: str, states: int) -> None:
    """After a power loss at any instant there is the backup that was said to be made last, or a later one, whole."""
    said = [(at, record.said) for at, record in enumerate(trace.records, 1) if record.kind == "M"]
    whole = history(trace.root / "store")
    for state in trace.states(seed, range(states), BOTH):
        folder = scratch / "root"
        state.write(folder)
        made = max((mark["made"] for at, mark in said if "made" in mark and at <= state.instant), default=None)
        begun = {mark["begun"] for at, mark in said if "begun" in mark and at <= state.instant}
        try:
            if (folder / "backup" / copies.NAME).exists():
                found = restored(folder / "backup", scratch)
                last = found[DOMAIN][-1].position
                assert found == {name: events[: last + 1] if name == DOMAIN else events for name, events in whole.items()}
                assert last in begun, "a backup of what was there at no moment"
                assert made is None or last >= made, f"up to {made} was backed up, what is left ends at {last}"
            else:
                assert made is None, "the backup is gone"
            if state.number % 10 == 0:
                with eventstore.open(folder / "store") as store:
                    store.backup(folder / "backup", processes=1)
                assert restored(folder / "backup", scratch) == history(folder / "store")
        except (AssertionError, eventstore.EventStoreError) as error:
            raise AssertionError(f"FAULTS_SEED={seed}: state {state.number}, {state.model}, after record {state.instant}") from error
        shutil.rmtree(folder)


def test_the_power_fails_during_backups(recording_server: Server, tmp_path: Path, in_memory: Path, seed: str, states: int) -> None:
    trace = Trace(tmp_path)
    trace.root.mkdir()
    recording_server.run(backups.make, folder=str(trace.root / "store"), name="first", calls=3)
    record(recording_server, trace, backups.back_up_recorded, name=seed, times=3)
    require_backed_up(trace, in_memory, seed, states)


def test_backups_are_killed_and_then_the_power_fails(
    recording_server: Server, tmp_path: Path, in_memory: Path, seed: str, states: int
) -> None:
    """Nothing is removed for a copy whose name a killed process had not made durable."""
    trace = Trace(tmp_path)
    trace.root.mkdir()
    recording_server.run(backups.make, folder=str(trace.root / "store"), name="first", calls=3)
    trace.begin()
    kills = [("sync", n) for n in range(10, 17)] + [("name", n) for n in range(9, 45, 6)]
    for number, (what, n) in enumerate([("sync", 0), *kills, ("sync", 0)]):
        worker = recording_server.start(
            backups.back_up_recorded,
            root=str(trace.root),
            log=str(trace.log),
            name=f"{seed}.{number}",
            times=1,
            fault=f"{what}:{n}:kill:once" if n else "",
        )
        said = worker.rest()
        assert worker.wait() <= 0, said
    trace.require_complete()
    require_backed_up(trace, in_memory, seed, states)


def test_the_power_fails_during_a_restore(
    recording_server: Server, place: Place, tmp_path: Path, in_memory: Path, seed: str, states: int
) -> None:
    trace = Trace(tmp_path)
    trace.root.mkdir()
    shutil.copytree(place.backup, trace.root / "backup")
    ((done, _),) = record(recording_server, trace, backups.restore_recorded, name=seed)
    there = 0
    for state in trace.states(seed, range(states), BOTH):
        folder = in_memory / "root"
        state.write(folder)
        try:
            if (folder / "again").exists():
                assert history(folder / "again") == place.old
                there += 1
            else:
                assert state.instant < done, "what was restored is gone"
        except (AssertionError, eventstore.EventStoreError) as error:
            raise AssertionError(f"FAULTS_SEED={seed}: state {state.number}, {state.model}, after record {state.instant}") from error
        shutil.rmtree(folder)
    assert there


# ---- refused


@pytest.mark.faults
@pytest.mark.parametrize("span", ["once", "always"])
@pytest.mark.parametrize(("what", "how"), [("sync", "5"), ("write", "28"), ("name", "5"), ("name", "28")])
def test_the_disk_of_the_backup_refuses_a_call(
    recording_server: Server, place: Place, in_memory: Path, seed: str, what: str, how: str, span: str
) -> None:
    """A typed error and the old backup, or the new one."""

    def run(fault: str) -> list[dict[str, Any]]:
        shutil.rmtree(in_memory / "root", ignore_errors=True)
        (in_memory / "root").mkdir()
        shutil.copytree(place.backup, in_memory / "root" / "backup")
        return recording_server.run(backups.back_up_refused, root=str(in_memory / "root"), folder=str(place.store), fault=fault)

    calls = run("")[-1][what]
    met: set[str] = set()
    for n in instants(calls, REFUSED, f"{seed}{what}{how}{span}"):
        said = run(f"{what}:{n}:{how}:{span}")
        met |= {one["refused"]["error"] for one in said if "refused" in one}
        try:
            assert restored(in_memory / "root" / "backup", in_memory) in (place.old, place.new)
        except (AssertionError, eventstore.EventStoreError) as error:
            raise AssertionError(f"FAULTS_SEED={seed}: {what}:{n}:{how}:{span} of {calls}: {said}") from error
    assert met, "no refusal was met: this proves nothing"
    if (what, how) == ("write", "28"):
        assert met == {"DiskFullError"}


@pytest.mark.faults
@pytest.mark.parametrize(("what", "how"), [("sync", "5"), ("write", "28"), ("name", "5")])
def test_the_disk_of_the_new_store_refuses_a_call(
    recording_server: Server, place: Place, in_memory: Path, seed: str, what: str, how: str
) -> None:
    """A typed error and nothing, or all of it."""

    def run(fault: str) -> list[dict[str, Any]]:
        shutil.rmtree(in_memory / "root", ignore_errors=True)
        (in_memory / "root").mkdir()
        return recording_server.run(backups.restore_refused, root=str(in_memory / "root"), source=str(place.backup), fault=fault)

    calls = run("")[-1][what]
    refused = 0
    for n in instants(calls, REFUSED, f"{seed}{what}{how}"):
        said = run(f"{what}:{n}:{how}:once")
        there = (in_memory / "root" / "again").exists()
        refused += len(said) - 1
        assert there or len(said) == 2, f"FAULTS_SEED={seed}: {what}:{n}: neither an error nor a store"
        if there:
            assert history(in_memory / "root" / "again") == place.old
    assert refused


def test_a_full_disk_leaves_the_backup_before(mounted: Callable[..., Path], tmp_path: Path) -> None:
    disk = mounted("-t", "tmpfs", "-o", "size=256k", "tmpfs")
    with eventstore.open(tmp_path / "store") as store:
        domain = store.domain(DOMAIN)
        domain.write_value("small", 1)
        store.backup(disk / "backup")
        before = history(disk / "backup")
        domain.write_values([(str(number), "x" * 9_000) for number in range(60)])
        with pytest.raises(eventstore.DiskFullError, match="free some space"):
            store.backup(disk / "backup")
        assert history(disk / "backup") == before
        assert len(list((disk / "backup").glob("copy-*"))) == 1, "what did not fit is still there"
        store.backup(tmp_path / "elsewhere")
        with pytest.raises(eventstore.DiskFullError, match="free some space"):
            restore(tmp_path / "elsewhere", disk / "again")
        assert sorted(path.name for path in disk.iterdir()) == ["backup"]
        assert domain.write_value("on", 1).position == 62


def test_a_folder_that_may_not_be_written_or_read_is_named(server: Server) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        said = server.run(backups.back_up_as_nobody, folder=folder)
    assert [one["refused"]["error"] for one in said] == ["AccessError", "AccessError", "AccessError"]
    assert all(folder in one["refused"]["message"] for one in said)


@pytest.mark.faults
def test_a_hundred_thousand_events(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "store") as store:
        for part in range(100):
            store.domain(DOMAIN).write_values([((part, number), {"number": number}) for number in range(1_000)])
        assert store.backup(tmp_path / "backup").domains[0].position == 100_000
        assert restore(tmp_path / "backup", tmp_path / "again").domains[0].position == 100_000
        anchor = store.anchor()
    with eventstore.open(tmp_path / "again") as again:
        assert again.verify(anchor=anchor).ok
        assert len(again.domain(DOMAIN)) == 100_000
