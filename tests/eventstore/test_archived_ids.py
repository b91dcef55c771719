"""Event ids of events that are elsewhere: part of the store, in its backups, and never lost in silence."""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import eventstore
from eventstore import CompactedError, DomainStore, LostIdsError, Retention, Store
from eventstore.restore import restore
from eventstore.tools.fixes import fix

DOMAIN = "orders"
SEALS = 3


def fill(store: Store, seals: int = SEALS) -> None:
    """Files of five events with ids `<file>-<number>` and a seal; then two events more."""
    domain = store.domain(DOMAIN)
    for part in range(seals):
        for number in range(5):
            domain.write_value(f"key-{number}", {"part": part}, event_id=f"{part}-{number}")
        store.seal(DOMAIN)
    domain.write_value("key-0", "last", event_id="live-0")
    domain.write_value("key-1", "last")


def shrink(store: Store, tmp_path: Path, how: str) -> None:
    if how == "archived":
        store.archive(DOMAIN, to=tmp_path / "archive")
    else:
        store.retain(Retention(keep_events=0), DOMAIN, delete=True)


def log_folder(path: Path) -> Path:
    return path / "logs" / DOMAIN


def kept(path: Path) -> list[Path]:
    """The files of event ids that are part of the store."""
    return sorted(log_folder(path).glob("*.ids"))


def forget_pointers(path: Path) -> None:
    shutil.rmtree(log_folder(path) / "pointers", ignore_errors=True)


def made(tmp_path: Path, how: str) -> Path:
    """A closed store, its past archived or deleted, without its caches."""
    with eventstore.open(tmp_path / "data") as store:
        fill(store)
        shrink(store, tmp_path, how)
    forget_pointers(tmp_path / "data")
    return tmp_path / "data"


def position_of(domain: DomainStore, part: int, number: int) -> int:
    """Where the first call stands, as its retry is told: by its receipt where the event is carried, else by what is not at hand."""
    try:
        return domain.write_value(f"key-{number}", {"part": part}, event_id=f"{part}-{number}").position
    except LostIdsError:
        raise
    except CompactedError as error:
        return error.position


def require_exact(store: Store) -> None:
    """A new id is written, one at hand gives its receipt, one that is elsewhere is known to be there: nothing is written twice."""
    domain = store.domain(DOMAIN)
    events = domain.head().position
    new = domain.write_value("key-9", "new", event_id="new")
    assert new.appended
    assert domain.write_value("key-9", "new", event_id="new") == new
    for part in range(SEALS):
        for number in range(5):
            assert position_of(domain, part, number) == 1 + part * 6 + number
    assert domain.head().position == events + 1


@pytest.mark.parametrize("how", ["archived", "deleted"])
def test_without_its_caches_a_store_knows_every_id(tmp_path: Path, how: str) -> None:
    place = made(tmp_path, how)
    with eventstore.open(place) as store:
        require_exact(store)
        assert store.verify().ok


@pytest.mark.parametrize("how", ["archived", "deleted"])
def test_a_restored_backup_knows_every_id(tmp_path: Path, how: str) -> None:
    place = made(tmp_path, how)
    with eventstore.open(place) as store:
        first = store.backup(tmp_path / "backup")
        again = store.backup(tmp_path / "backup")
    named = json.loads((tmp_path / "backup" / "backup.json").read_text())["files"]
    assert {name for name in named if name.endswith(".ids")} == {f"logs/{DOMAIN}/{path.name}" for path in kept(place)} != set()
    assert first.copied + first.kept == again.copied + again.kept == len(named) - 2  # store.json and head are made anew
    restore(tmp_path / "backup", tmp_path / "restored")
    assert [path.read_bytes() for path in kept(tmp_path / "restored")] == [path.read_bytes() for path in kept(place)]
    with eventstore.open(tmp_path / "restored") as store:
        require_exact(store)


def test_a_backup_without_its_ids_is_none(tmp_path: Path) -> None:
    place = made(tmp_path, "deleted")
    with eventstore.open(place) as store:
        store.backup(tmp_path / "backup")
    (ids,) = (tmp_path / "backup").glob(f"copy-*/logs/{DOMAIN}/*.ids")
    ids.write_bytes(ids.read_bytes()[:-1])
    with pytest.raises(eventstore.CorruptionError, match=r"\.ids is not what was backed up"):
        restore(tmp_path / "backup", tmp_path / "restored")
    (lost,) = kept(place)
    lost.unlink()
    with eventstore.open(place) as store, pytest.raises(eventstore.CorruptionError, match="ids: the event ids of positions 1 to"):
        store.backup(tmp_path / "other")


def test_files_that_go_one_by_one_leave_few_files_of_ids(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as store:
        fill(store, 5)
        for _ in range(5):
            first = store.domain(DOMAIN).group.live.log.floor()
            store.archive(DOMAIN, before=first + 8, to=tmp_path / "archive")
        floor = store.domain(DOMAIN).group.live.log.floor()
    assert [path.name for path in kept(tmp_path / "data")] == [f"{0:020d}-{floor:020d}.ids"]
    forget_pointers(tmp_path / "data")
    with eventstore.open(tmp_path / "data") as store:
        assert store.domain(DOMAIN).write_value("a", 1, event_id="new").appended
        with pytest.raises(CompactedError):
            store.domain(DOMAIN).write_value("key-3", {"part": 3}, event_id="3-3")


@pytest.mark.parametrize("how", ["archived", "deleted"])
@pytest.mark.parametrize("damage", ["gone", "flipped"])
def test_lost_ids_are_said_and_nothing_is_written_twice(tmp_path: Path, how: str, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    place = made(tmp_path, how)
    spoil(place, damage)
    with eventstore.open(place) as store:
        floor = store.domain(DOMAIN).group.live.log.floor()
        head = store.domain(DOMAIN).head()
        for event_id in ("0-1", "new"):
            with pytest.raises(LostIdsError) as raised:
                store.domain(DOMAIN).write_value("key-1", {"part": 0}, event_id=event_id)
            error = raised.value
            assert (error.first, error.last, error.deleted) == (1, floor, how == "deleted")
            assert error.archive == (str(tmp_path / "archive") if how == "archived" else None)
            assert ("attached" in str(error)) is (how == "archived")
            assert f"eventstore accept STORE {DOMAIN}" in str(error)
        assert store.domain(DOMAIN).head() == head
        assert store.halted is None
        assert store.domain(DOMAIN).write_value("key-1", "without an id").appended
        findings = store.verify().findings
        assert {(each.kind, each.position) for each in findings} == {("ids", floor)}
        assert sum("are lost" in each.message for each in findings) == 1
        assert len(findings) == (2 if damage == "flipped" else 1)
    assert any(damage == "flipped" or "are lost" in record.message for record in caplog.records if record.levelno == logging.WARNING)


def spoil(place: Path, damage: str) -> None:
    (ids,) = kept(place)
    if damage == "gone":
        ids.unlink()
    else:
        content = bytearray(ids.read_bytes())
        content[-3] ^= 1
        ids.write_bytes(content)


@pytest.mark.parametrize("damage", ["gone", "flipped"])
def test_an_attached_archive_gives_lost_ids_back(tmp_path: Path, damage: str) -> None:
    place = made(tmp_path, "archived")
    (ids,) = kept(place)
    before = ids.read_bytes()
    spoil(place, damage)
    with eventstore.open(place, archives=[tmp_path / "archive"]) as store:
        assert store.domain(DOMAIN).write_value("key-1", {"part": 0}, event_id="0-1").position == 2
    assert ids.read_bytes() == before
    forget_pointers(place)
    with eventstore.open(place) as store:
        require_exact(store)


@pytest.mark.parametrize("opened", [False, True], ids=["before it is opened", "when it is open"])
@pytest.mark.parametrize("damage", ["gone", "flipped"])
def test_a_loss_of_ids_that_is_accepted_is_on_record(
    tmp_path: Path, damage: str, open_store: Callable[..., Store], *, opened: bool
) -> None:
    place = made(tmp_path, "deleted")
    spoil(place, damage)
    with eventstore.open(place) as store:
        floor = store.domain(DOMAIN).group.live.log.floor()
    with eventstore.open(place) as store:
        if opened:
            with pytest.raises(LostIdsError):
                store.domain(DOMAIN).write_value("key-1", {"part": 0}, event_id="0-1")
        head = store.accept(DOMAIN)
        assert head is not None
        (event,) = store.domain(DOMAIN).events(head.position - 1, head.position)
        assert (event.op, event.checksum) == ("loss", head.checksum)
        assert f"event ids of positions 1 to {floor}" in json.loads(str(event.data))["reason"]
        assert store.domain(DOMAIN).write_value("key-1", {"part": 0}, event_id="0-1").appended
    forget_pointers(place)
    for _ in range(2):
        store = open_store()
        assert store.domain(DOMAIN).write_value("key-1", 2, event_id="afterwards").position == head.position + 2
        (report,) = store.verify().domains
        assert (report.findings, report.losses) == ([], 1)
        assert store.accept(DOMAIN) is None
        store.close()
    with eventstore.open(place, accept_loss=True) as store:
        assert store.domain(DOMAIN).head().position == head.position + 2  # nothing is lost any more: no second event


def test_an_opening_waits_for_nobody_who_moves_files(tmp_path: Path) -> None:
    """A copy of a large file may take long; whoever makes it has seen to the ids."""
    place = made(tmp_path, "archived")
    with (log_folder(place) / "archive.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with eventstore.open(place, busy_timeout_ms=3_600_000) as store:
            assert store.domain(DOMAIN).write_value("key-1", 1, event_id="new").appended


def test_what_older_files_keep_outlives_the_loss_of_newer_ones_and_the_other_way_round(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as store:
        fill(store, 1)
        shrink(store, tmp_path, "deleted")
    place = tmp_path / "data"
    (older,) = kept(place)
    content = older.read_bytes()
    with eventstore.open(place) as store:
        for number in range(5):
            store.domain(DOMAIN).write_value("key-1", number, event_id=f"1-{number}")
        shrink(store, tmp_path, "deleted")
    (both,) = kept(place)
    both.unlink()
    older.write_bytes(content)
    forget_pointers(place)
    with eventstore.open(place, accept_loss=True) as store:
        with pytest.raises(CompactedError):
            store.domain(DOMAIN).write_value("key-1", {"part": 0}, event_id="0-1")
        assert store.domain(DOMAIN).write_value("key-1", 1, event_id="1-1").appended


def test_doctor_does_not_rebuild_caches_out_of_what_is_lost(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as store:
        fill(store)
        shrink(store, tmp_path, "deleted")
    place = tmp_path / "data"
    for path in (log_folder(place) / "pointers").iterdir():
        path.write_bytes(b"wrong")
    before = [path.read_bytes() for path in kept(place)]
    assert all(each.fixed for each in fix(place))
    assert [path.read_bytes() for path in kept(place)] == before != []
    with eventstore.open(place) as store:
        require_exact(store)


def test_what_is_put_back_or_adopted_keeps_its_ids_before_it_goes(tmp_path: Path) -> None:
    """A log whose files are all at hand, and whose events say that they are archived, as an import of a whole export is."""
    with eventstore.open(tmp_path / "data") as store:
        fill(store)
        shrink(store, tmp_path, "archived")
    place = tmp_path / "data"
    for path in (tmp_path / "archive" / store.store_id / DOMAIN).iterdir():
        shutil.copy(path, log_folder(place) / path.name)
    for path in kept(place):
        path.unlink()
    forget_pointers(place)
    with eventstore.open(place) as store:
        assert store.domain(DOMAIN).group.live.log.floor() > 0
        require_exact(store)


@pytest.mark.parametrize("how", ["archived", "deleted"])
def test_nothing_goes_before_its_ids_are_kept(tmp_path: Path, store: Store, how: str) -> None:
    fill(store)
    head = store.domain(DOMAIN).head()
    in_the_way = log_folder(tmp_path / "data") / f"{0:020d}-{6:020d}.ids"
    in_the_way.mkdir()
    to = tmp_path / "archive" if how == "archived" else None
    with pytest.raises(eventstore.AccessError, match="keeping event ids"):
        store.retain(Retention(keep_events=3), DOMAIN, to=to, delete=to is None)
    assert store.domain(DOMAIN).group.live.log.floor() == 0
    assert not [event for event in store.domain(DOMAIN).events(head.position) if event.op == "archive"]
    in_the_way.rmdir()
    shrink(store, tmp_path, "archived")
    require_exact(store)


@pytest.mark.corrupts
def test_ids_that_say_what_the_log_does_not_are_found(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as store:
        fill(store)
        shrink(store, tmp_path, "archived")
    place = tmp_path / "data"
    forget_pointers(place)
    (ids,) = kept(place)
    true = ids.read_bytes()
    ids.unlink()
    with eventstore.open(place, accept_loss=True) as store:
        assert store.domain(DOMAIN).head().position > 0
    assert ids.read_bytes() != true  # it says that nobody knows, and is whole
    with eventstore.open(place, archives=[tmp_path / "archive"]) as store:
        (finding,) = store.verify().findings
        assert (finding.kind, "remove it" in finding.message) == ("ids", True)
    ids.unlink()
    with eventstore.open(place, archives=[tmp_path / "archive"]) as store:
        assert store.domain(DOMAIN).head().position > 0
        assert store.verify().ok
    assert ids.read_bytes() == true
