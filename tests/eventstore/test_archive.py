"""Archives and retention: every event is in the store, or in a whole archive that the log names; only what was asked for goes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import resource
import shutil
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import eventstore
from eventstore import (
    AccessError,
    ArchiveReport,
    CompactedError,
    ConfigError,
    CorruptionError,
    DiskFullError,
    DomainStore,
    Event,
    NotFoundError,
    ReadOnlyError,
    Retention,
    RetentionPlan,
    Store,
    UnavailableError,
    archive,
)
from eventstore.database import log_files, sqlite3
from eventstore.files import locked
from eventstore.log import FileLog
from eventstore.merkle import outline_ranges
from eventstore.restore import restore
from eventstore.salvage import Positions, salvage
from eventstore.tools.doctor import doctor
from tests.eventstore import rfc9162
from tests.tools.command import done
from tests.tools.command import eventstore as eventstore_command

DOMAIN = "orders"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
KEYS = ["key-0", "key-1", "key-2"]


def moment(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def fill(store: Store, seals: int = 3, name: str = DOMAIN) -> list[Event]:
    """Files of seven events, then two events more; all events."""
    domain = store.domain(name)
    for part in range(seals):
        for number in range(5):
            domain.write_value(KEYS[number % 3], {"part": part, "n": number}, event_id=f"{part}-{number}")
        domain.remove_value("key-2")
        store.seal(name)
    domain.write_value("key-0", "last")
    domain.write_value("key-1", "last")
    return list(domain.events())


def folded(events: list[Event], until: int) -> dict[str, Any]:
    """What every key held at a position, by going through the events."""
    held: dict[str, Any] = {}
    for event in events[:until]:
        if event.op in ("put", "remove"):
            key = str(eventstore.decode_key(event.key))
            held.pop(key, None)
            if event.op == "put":
                held[key] = json.loads(str(event.data))
    return held


def log_folder(path: Path) -> Path:
    return path / "data" / "logs" / DOMAIN


def archived_files(path: Path, store: Store) -> list[Path]:
    return log_files(path / "archive" / store.store_id / DOMAIN)


def file_log(domain: DomainStore) -> FileLog:
    log = domain.group.live.log
    assert isinstance(log, FileLog)
    return log


# ---- archive


def test_what_is_archived_is_elsewhere_whole_and_named(tmp_path: Path, open_store: Callable[..., Store]) -> None:
    store = open_store()
    events = fill(store)
    domain = store.domain(DOMAIN)
    checksums = [domain.event(0).checksum, *(event.checksum for event in events)]
    seals = [event.position for event in events if event.op == "seal"]
    (report,) = store.archive(DOMAIN, before=seals[1] + 1, to=tmp_path / "archive")
    assert [(file.first, file.last, file.status) for file in report.files] == [
        (0, seals[0], "archived"),
        (seals[0] + 1, seals[1], "archived"),
    ]
    assert (report.kept, report.floor) == ([], seals[1])
    assert [path.stem for path in log_files(log_folder(tmp_path))] == [f"{first + 1:020d}" for first in seals[1:]]
    assert not list(log_folder(tmp_path).glob(".tmp*"))
    copies = archived_files(tmp_path, store)
    said = [json.loads(str(event.data)) for event in domain.events(len(events)) if event.op == "archive"]
    assert said == [
        {
            "first": first,
            "last": last,
            "sha256": hashlib.sha256(copy.read_bytes()).hexdigest(),
            "to": str(tmp_path / "archive"),
            "tree": [rfc9162.root(tuple(checksums[at:end])).hex() for at, end in outline_ranges(last + 1)],
        }
        for (first, last), copy in zip([(0, seals[0]), (seals[0] + 1, seals[1])], copies, strict=True)
    ]
    assert all((copy.stat().st_mode & 0o777, copy.stat().st_nlink) == (0o600, 1) for copy in copies)
    assert dict(domain.items()) == folded(events, len(events))
    for position in range(seals[1], len(events) + 1):
        assert dict(domain.state(position).items()) == folded(events, position)
    verified = store.verify()
    assert verified.ok
    assert [(each.first, each.last) for each in verified.domains[0].archived] == [(0, seals[0]), (seals[0] + 1, seals[1])]


def test_below_the_floor_it_is_said_where_it_went(tmp_path: Path, store: Store) -> None:
    events = fill(store)
    (report,) = store.archive(to=tmp_path / "archive")
    domain, floor = store.domain(DOMAIN), report.floor
    assert domain.floor == floor
    told = list(domain.events(floor, carried=True))
    assert [event for event in told if floor < event.position <= len(events)] == events[floor:]
    below: list[Callable[[], object]] = [
        lambda: list(domain.events()),
        lambda: domain.state(floor - 1),
        lambda: domain.state(moment(events[2].recorded_us)),
        lambda: list(domain.history("key-0")),
        lambda: domain.events(0, carried=True),
        lambda: domain.write_value("key-0", {"part": 0, "n": 0}, event_id="0-0"),
    ]
    head = domain.head()
    for ask in below:
        with pytest.raises(CompactedError) as caught:
            ask()
        assert (caught.value.floor, caught.value.archive, caught.value.deleted) == (floor, str(tmp_path / "archive"), False)
    assert domain.head() == head
    assert domain.write_value("key-0", "new", event_id="new").appended


def test_what_an_archive_has_of_another_history_is_not_read(tmp_path: Path, store: Store) -> None:
    """A store that was restored is shorter than the one it was backed up from, and that one's archive goes on where it ends."""
    archive, backup, again = tmp_path / "archive", tmp_path / "backup", tmp_path / "again"
    d = store.domain("people")
    d.write_value("k", 1)
    store.backup(backup)
    for value in (2, 3):
        d.write_value("k", value)
        store.seal("people")
    store.archive("people", to=archive)
    restore(backup, again)
    with eventstore.open(backup, read_only=True, archives=[archive]) as kept:
        assert (kept.domain("people").head().position, kept.verify().ok) == (1, True)
    with eventstore.open(again, archives=[archive]) as restored:
        assert restored.domain("people").read_value("k") == 1
        assert restored.domain("people").write_value("k", 4).position == 2
        assert restored.verify().ok


def test_what_was_redacted_before_it_was_archived_is_no_damage(tmp_path: Path, store: Store) -> None:
    d = store.domain("people")
    for value in range(3):
        d.write_value("k", value)
    d.redact("k", reason="asked")
    store.seal("people")
    d.write_value("other", 1)
    store.archive("people", to=tmp_path / "archive")
    assert store.verify().findings == []
    assert store.backup(tmp_path / "backup").copied == 2  # the live file, and the event ids of what is archived


def test_the_newest_events_are_read_although_older_ones_are_elsewhere(tmp_path: Path, store: Store) -> None:
    """`log --reverse --limit`, and the doctor, ask for the end of a log alone."""
    d = store.domain("people")
    d.write_value("k", 1)
    store.seal("people")
    d.write_value("k", 2)
    store.archive("people", to=tmp_path / "archive")
    newest = list(d.events(d.floor))[::-1]
    events = d.events(reverse=True)
    assert [next(events) for _ in newest] == newest
    with pytest.raises(CompactedError):
        next(events)
    assert list(d.events(reverse=True, limit=1)) == newest[:1]
    assert [check for check in doctor(store.location).checks if check.name == "domain"] == []


@pytest.mark.parametrize("by", ["argument", "relative", "environment"])
def test_an_attached_archive_reads_as_if_there_were_one_file(
    tmp_path: Path, open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    events = fill(first := open_store())
    first.archive(to=tmp_path / "archive")
    first.close()
    if by == "environment":
        monkeypatch.setenv("EVENTSTORE_ARCHIVES", f"{tmp_path / 'nothing'}{os.pathsep}{tmp_path / 'archive'}")
        with eventstore.open("memory:") as memory:
            assert memory.domains() == []
    monkeypatch.chdir(tmp_path)
    given = {"argument": [tmp_path / "archive"], "relative": ["archive"], "environment": []}
    store = open_store(archives=given[by])
    domain = store.domain(DOMAIN)
    assert domain.floor == 0
    assert list(domain.events())[: len(events)] == events
    for position in range(len(events) + 1):
        assert dict(domain.state(position).items()) == folded(events, position)
    assert [event.position for event in domain.history("key-1")] == [e.position for e in events[::-1] if e.key == '["key-1"]']
    assert domain.write_value("key-0", {"part": 0, "n": 0}, event_id="0-0").position == 1
    verified = store.verify()
    assert verified.ok
    assert (verified.domains[0].floor, verified.domains[0].archived) == (0, [])
    assert [(said.first, path) for said, path in file_log(domain).archives()] == list(
        zip([0, 8, 15], archived_files(tmp_path, store), strict=True)
    )
    store.seal(DOMAIN)
    (report,) = store.archive(to=tmp_path / "archive")
    assert (len(report.files), domain.floor) == (1, 0)


def test_a_file_goes_by_what_users_wrote_in_it_and_not_by_its_seal(tmp_path: Path, store: Store) -> None:
    events = fill(store, seals=2)
    seals = [event.position for event in events if event.op == "seal"]
    last_us = events[seals[0] - 2].recorded_us
    assert [f.last for f in store.archive(before=moment(last_us), to=tmp_path / "archive", dry_run=True)[0].files] == []
    assert [f.last for f in store.archive(before=moment(last_us + 1), to=tmp_path / "archive", dry_run=True)[0].files] == [seals[0]]
    assert [f.last for f in store.archive(DOMAIN, before=seals[0], to=tmp_path / "archive", dry_run=True)[0].files] == []
    assert [f.status for f in store.archive(to=tmp_path / "archive", dry_run=True)[0].files] == ["store", "store"]
    assert not (tmp_path / "archive").exists()
    assert store.domain(DOMAIN).floor == 0
    with pytest.raises(eventstore.NaiveTimeError):
        store.archive(before=datetime(2026, 1, 1), to=tmp_path / "archive")  # noqa: DTZ001  that is the point


def test_nothing_sealed_is_nothing_to_archive(tmp_path: Path, store: Store) -> None:
    store.domain(DOMAIN).write_value("a", 1)
    (report,) = store.archive(to=tmp_path / "archive")
    assert (report.files, report.kept, report.floor) == ([], [], 0)
    assert store.domain(DOMAIN).head().position == 1


def test_what_cannot_be_archived_is_refused_by_name(tmp_path: Path, store: Store, open_store: Callable[..., Store]) -> None:
    events = fill(store)
    with pytest.raises(NotFoundError):
        store.archive("nothing", to=tmp_path / "archive")
    for inside in (tmp_path / "data", tmp_path / "data" / "archive", tmp_path / "data" / "logs" / ".." / "x"):
        with pytest.raises(ConfigError, match="inside the store"):
            store.archive(to=inside)
    with pytest.raises(ConfigError, match="positions are a domain's own"):
        store.archive(before=3, to=tmp_path / "archive")
    with pytest.raises(ConfigError, match="not UTF-8"):
        store.archive(to=os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(AccessError):
        store.archive(to=tmp_path / "file")
    with pytest.raises(eventstore.EngineError):
        store.archive(to=tmp_path / "missing" / "too" / "far")
    before = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
    reader = open_store(read_only=True)
    with pytest.raises(ReadOnlyError):
        reader.archive(to=tmp_path / "archive")
    with pytest.raises(ReadOnlyError):
        reader.retain(Retention(keep_events=1), to=tmp_path / "archive")
    with pytest.raises(ReadOnlyError):
        reader.retain(Retention(keep_events=1), delete=True)
    assert {path: path.read_bytes() for path in before} == before
    with eventstore.open("memory:") as memory:
        memory.domain(DOMAIN)
        with pytest.raises(ConfigError, match="in memory"):
            memory.archive(to=tmp_path / "archive")
    assert list(store.domain(DOMAIN).events()) == events
    assert store.halted is None
    store.domain(DOMAIN).write_value("key-0", "on")


def test_a_file_of_the_same_name_is_never_overwritten(tmp_path: Path, store: Store) -> None:
    events = fill(store)
    target = tmp_path / "archive" / store.store_id / DOMAIN / f"{0:020d}.db"
    target.parent.mkdir(parents=True)
    target.write_text("somebody else's")
    with pytest.raises(AccessError, match="is there already"):
        store.archive(to=tmp_path / "archive")
    assert target.read_text() == "somebody else's"
    assert list(store.domain(DOMAIN).events()) == events
    assert {path.name for path in target.parent.iterdir()} == {target.name, "claims"}, "nothing is left behind"
    assert (target.parent / "claims").read_bytes() == b""
    assert store.domain(DOMAIN).redact("key-0", reason="asked", dry_run=True).held == []
    target.unlink()
    assert len(store.archive(to=tmp_path / "archive")[0].files) == 3


def test_a_full_disk_where_the_archive_lies_stops_nothing(tmp_path: Path, store: Store) -> None:
    for number in range(40):
        store.domain(DOMAIN).write_value("key", "x" * 10_000 + str(number))
    store.seal(DOMAIN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(DiskFullError):
            store.archive(to=tmp_path / "archive")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in (tmp_path / "archive").rglob("*") if path.is_file()] == ["claims"]
    assert (store.halted, store.domain(DOMAIN).floor) == (None, 0)
    store.domain(DOMAIN).write_value("key", "on")
    assert len(store.archive(to=tmp_path / "archive")[0].files) == 1


def test_two_stores_share_an_archive(tmp_path: Path, store: Store) -> None:
    events = fill(store)
    store.archive(to=tmp_path / "archive")
    with eventstore.open(tmp_path / "other") as other:
        fill(other)
        other.archive(to=tmp_path / "archive")
        with eventstore.open(tmp_path / "other", archives=[tmp_path / "archive"]) as again:
            assert again.verify().ok
            assert again.domain(DOMAIN).floor == 0
    with eventstore.open(tmp_path / "data", archives=[tmp_path / "archive"]) as again:
        assert list(again.domain(DOMAIN).events())[: len(events)] == events


@pytest.mark.corrupts
def test_a_damaged_file_is_not_archived(tmp_path: Path, store: Store) -> None:
    fill(store)
    store.close()
    file = log_files(log_folder(tmp_path))[1]
    connection = sqlite3.connect(file)
    connection.execute("DROP TRIGGER event_update")
    connection.execute("UPDATE event SET data = '{}' WHERE position = 9")
    connection.commit()
    connection.close()
    with eventstore.open(tmp_path / "data") as store:
        with pytest.raises(CorruptionError) as caught:
            store.archive(to=tmp_path / "archive")
        assert caught.value.position == 9
        assert log_files(log_folder(tmp_path))[0].stem == f"{8:020d}"
        assert store.domain(DOMAIN).floor == 7
        assert len(archived_files(tmp_path, store)) == 1
        assert not list((tmp_path / "archive").rglob(".tmp*"))


def test_who_has_a_file_open_reads_on_and_is_then_told(tmp_path: Path, store: Store, open_store: Callable[..., Store]) -> None:
    events = fill(store)
    reader = open_store(read_only=True).domain(DOMAIN)
    assert list(reader.events()) == events
    store.archive(to=tmp_path / "archive")
    assert list(reader.events())[: len(events)] == events, "the files that it has open are still there for it"
    fresh = open_store(read_only=True).domain(DOMAIN)
    with pytest.raises(CompactedError):
        list(fresh.events())


def test_threads_read_and_write_while_files_go(tmp_path: Path, store: Store) -> None:
    domain, failures, ended = store.domain(DOMAIN), list[BaseException](), threading.Event()
    moved, written = list[object](), 0

    def writing() -> None:
        nonlocal written
        try:
            while not ended.is_set():
                domain.write_value("key", written)
                written += 1
        except BaseException as error:  # noqa: BLE001  told below
            failures.append(error)

    def reading() -> None:
        try:
            while not ended.is_set():
                floor = domain.floor
                try:
                    positions = [event.position for event in domain.events(floor)]
                except CompactedError:
                    assert domain.floor > floor
                    continue
                assert positions == list(range(floor + 1, floor + 1 + len(positions)))
        except BaseException as error:  # noqa: BLE001  told below
            failures.append(error)

    threads = [threading.Thread(target=writing), threading.Thread(target=reading)]
    for thread in threads:
        thread.start()
    try:
        while len(moved) < 4:
            store.seal(DOMAIN)
            moved += store.archive(to=tmp_path / "archive")[0].files
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert failures == []
    with eventstore.open(tmp_path / "data", archives=[tmp_path / "archive"]) as whole:
        assert [event.data for event in whole.domain(DOMAIN).events(key="key")] == [str(number) for number in range(written)]
        assert whole.verify().ok


@pytest.mark.parametrize("reads", [True, False], ids=["open", "not open"])
def test_who_archives_next_looks_what_another_has_moved(
    tmp_path: Path, store: Store, open_store: Callable[..., Store], *, reads: bool
) -> None:
    """The files of the one that went on reading are still there for it, and no more than that."""
    events = fill(store)
    other = open_store()
    assert other.domain(DOMAIN).floor == 0
    if reads:
        assert list(other.domain(DOMAIN).events()) == events
    store.archive(DOMAIN, before=8, to=tmp_path / "archive")
    (plan,) = other.archive(DOMAIN, before=15, to=tmp_path / "archive", dry_run=True)
    (done,) = other.archive(DOMAIN, before=15, to=tmp_path / "archive")
    assert [file.first for file in plan.files] == [file.first for file in done.files] == [8]
    assert (done.kept, done.floor) == ([], 14)
    assert [file.first for file in store.retain(Retention(keep_events=0), delete=True)[0].files] == [0, 8, 15, 22]


@pytest.mark.parametrize("reads", [True, False], ids=["open", "not open"])
def test_what_another_has_moved_is_erased_where_it_is_carried_and_named_where_it_went(
    tmp_path: Path, store: Store, open_store: Callable[..., Store], *, reads: bool
) -> None:
    domain = store.domain(DOMAIN)
    domain.write_value("alice", 1)
    store.seal(DOMAIN)
    domain.write_value("bob", 1)
    other = open_store().domain(DOMAIN)
    if reads:
        assert other.event(1).data == "1"
    store.archive(DOMAIN, to=tmp_path / "archive")
    report = other.redact("alice", reason="asked", dry_run=True)
    assert (report.erased, [held.path.split(" ")[0] for held in report.held]) == ([1], [str(tmp_path / "archive")])
    assert (report.erased, report.held) == (other.redact("alice", reason="asked").erased, report.held)


@pytest.mark.parametrize("reads", [True, False], ids=["open", "not open"])
def test_what_a_later_file_carries_serves_where_a_file_goes_while_it_is_asked_for(
    tmp_path: Path, store: Store, open_store: Callable[..., Store], *, reads: bool
) -> None:
    events = fill(store)
    log = open_store().domain(DOMAIN).group.live.log
    kept = [5, 6, 7]  # the latest of key-1 and key-2 when the file ended, and the seal
    before = [store.domain(DOMAIN).group.live.log.chain(position, limit=1) for position in kept], log.linked(kept)
    if reads:
        assert list(log.read()) == events
    store.archive(DOMAIN, before=8, to=tmp_path / "archive")
    assert ([log.chain(position, limit=1) for position in kept], log.linked(kept)) == before


def test_who_reads_on_in_a_file_that_was_moved_does_not_see_what_was_erased_since(
    tmp_path: Path, store: Store, open_store: Callable[..., Store]
) -> None:
    domain = store.domain(DOMAIN)
    domain.write_value("alice", "secret")
    domain.write_value("alice", "newer")
    store.seal(DOMAIN)
    domain.write_value("bob", 1)
    other = open_store().domain(DOMAIN)
    assert other.event(1).data == '"secret"'
    store.archive(DOMAIN, to=tmp_path / "archive")
    with eventstore.open(tmp_path / "data", archives=[tmp_path / "archive"]) as whole:
        assert whole.domain(DOMAIN).redact("alice", reason="asked").complete
    with pytest.raises(CompactedError):
        other.event(1)


def test_a_file_that_cannot_be_read_is_named_and_not_the_copy_of_it(tmp_path: Path) -> None:
    """As it is what its owner must look at."""
    with pytest.raises(AccessError, match=re.escape(str(tmp_path / "sealed.db"))):
        archive._backup(tmp_path / "sealed.db", tmp_path / "copy.db", DOMAIN, 0)


# ---- left half done


def put_back(path: Path, store: Store) -> Path:
    """Let the first archived file be in the log's folder again, as if its archiver had died before it removed it."""
    copy = archived_files(path, store)[0]
    return Path(shutil.copy(copy, log_folder(path)))


@pytest.mark.parametrize("how", ["opening", "archiving"])
def test_what_was_left_in_the_store_goes_if_its_copy_is_there(tmp_path: Path, store: Store, how: str) -> None:
    fill(store)
    store.archive(to=tmp_path / "archive")
    left = put_back(tmp_path, store)
    left.with_name(f"{left.name}-shm").touch()
    if how == "opening":
        with eventstore.open(tmp_path / "data") as again:
            again.domain(DOMAIN)
    else:
        assert store.archive(to=tmp_path / "archive")[0].kept == []
    assert not list(left.parent.glob(f"{left.name}*"))


@pytest.mark.parametrize("copy", ["missing", "altered"])
def test_what_was_left_in_the_store_stays_if_its_copy_is_not_whole(
    tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture, copy: str
) -> None:
    """It is archived anew to where nothing is in its way."""
    events = fill(store)
    store.archive(to=tmp_path / "archive")
    left = put_back(tmp_path, store)
    archived = archived_files(tmp_path, store)[0]
    content = archived.read_bytes()
    if copy == "missing":
        archived.unlink()
    else:
        archived.write_bytes(content[:-1] + b"?")
    with eventstore.open(tmp_path / "data") as again:
        assert next(again.domain(DOMAIN).events(until=1)) == events[0]
        assert "it is kept" in caplog.text
        (report,) = again.archive(to=tmp_path / "archive")
        assert [(each.first, each.last) for each in report.files] == ([(0, 7)] if copy == "missing" else [])
        assert [(each.first, each.last) for each in report.kept] == ([] if copy == "missing" else [(0, 7)])
        assert left.exists() == (copy == "altered")
        if copy == "altered":
            assert archived.read_bytes() == content[:-1] + b"?"
            assert [file.first for file in again.archive(to=tmp_path / "other")[0].files] == [0]
    with eventstore.open(tmp_path / "data", archives=[tmp_path / "archive", tmp_path / "other"]) as whole:
        assert list(whole.domain(DOMAIN).events(until=len(events))) == events


# ---- archived anew


def dead_archive(path: Path, store: Store) -> None:
    """All that is sealed is archived, then the archive dies, and its first file is put back from somewhere else."""
    first = log_files(log_folder(path))[0]
    content = first.read_bytes()
    store.archive(DOMAIN, to=path / "archive")
    shutil.rmtree(path / "archive")
    first.write_bytes(content)


def test_a_file_that_was_put_back_is_archived_anew_and_the_last_word_counts(tmp_path: Path, store: Store) -> None:
    events = fill(store, seals=2)
    anchor = store.anchor()
    dead_archive(tmp_path, store)
    domain = store.domain(DOMAIN)
    assert [(file.first, file.status) for file in store.plan_retention(Retention(keep_events=9))[0].files] == [(0, "store")]
    (report,) = store.archive(DOMAIN, to=tmp_path / "new")
    assert ([(file.first, file.archive) for file in report.files], report.kept) == ([(0, str(tmp_path / "new"))], [])
    assert [path.stem for path in log_files(log_folder(tmp_path))] == [f"{15:020d}"]
    with pytest.raises(CompactedError) as caught:
        domain.event(1)
    assert caught.value.archive == str(tmp_path / "new")
    said = [json.loads(str(event.data)) for event in domain.events(len(events)) if event.op == "archive"]
    assert [(each["first"], Path(each["to"]).name) for each in said] == [(0, "archive"), (8, "archive"), (0, "new")]
    assert said[0]["tree"] == said[2]["tree"]
    verified = store.verify(anchor=anchor)
    assert verified.ok
    assert [(each.first, Path(str(each.to)).name) for each in verified.domains[0].archived] == [(0, "new"), (8, "archive")]
    assert [(file.first, Path(str(file.archive)).name) for file in store.plan_retention(Retention(keep_events=2))[0].files] == [
        (0, "new"),
        (8, "archive"),
    ]
    assert "and no " + str(tmp_path / "archive") in archives_in(tmp_path / "data")[0][1]
    with eventstore.open(tmp_path / "data", archives=[tmp_path / "new"]) as again:
        assert again.domain(DOMAIN).event(1) == events[0]


def test_a_file_that_was_put_back_is_deleted(tmp_path: Path, store: Store) -> None:
    fill(store, seals=2)
    anchor = store.anchor()
    dead_archive(tmp_path, store)
    (report,) = store.retain(Retention(keep_events=9), DOMAIN, delete=True)
    assert ([(file.first, file.status) for file in report.files], report.kept) == ([(0, "deleted")], [])
    assert not (log_folder(tmp_path) / f"{0:020d}.db").exists()
    with pytest.raises(CompactedError) as caught:
        store.domain(DOMAIN).event(1)
    assert caught.value.deleted
    assert store.verify(anchor=anchor).ok
    assert store.anchor().heads[DOMAIN].root is not None


def test_an_earlier_archive_that_comes_back_is_told_reached_and_deleted_from(tmp_path: Path, store: Store) -> None:
    """After its file was archived anew: no event counts on it any more, and it may hold what is redacted now."""
    domain = store.domain(DOMAIN)
    domain.write_value("alice", "told in confidence")
    store.seal(DOMAIN)
    domain.write_value("bob", 1)
    own = log_files(log_folder(tmp_path))[0]
    content = own.read_bytes()
    store.archive(DOMAIN, to=tmp_path / "archive")
    (tmp_path / "archive").rename(tmp_path / "drawer")
    own.write_bytes(content)
    store.archive(DOMAIN, to=tmp_path / "new")
    (tmp_path / "drawer").rename(tmp_path / "archive")
    (earlier,) = archived_files(tmp_path, store)
    with eventstore.open(tmp_path / "data", archives=[tmp_path / "archive", tmp_path / "new"]) as whole:
        assert whole.verify().ok
    with eventstore.open(tmp_path / "data", archives=[tmp_path / "new"]) as again:
        (held,) = again.domain(DOMAIN).redact("alice", reason="asked").held
        assert (held.path, "archived to " + str(tmp_path / "new") in held.advice) == (str(earlier), True)
    with eventstore.open(tmp_path / "data", archives=[tmp_path / "archive", tmp_path / "new"]) as whole:
        assert whole.domain(DOMAIN).redact("alice", reason="asked").held == []
        assert b"told in confidence" not in earlier.read_bytes()
        assert whole.verify().ok
    (report,) = store.retain(Retention(keep_events=2), DOMAIN, delete=True)
    assert (len(report.files), report.kept) == (1, [])
    assert not [*(tmp_path / "archive").rglob("*.db"), *(tmp_path / "new").rglob("*.db")]


# ---- what stands where a file is to go


def test_a_copy_that_stands_there_already_is_taken(tmp_path: Path, store: Store) -> None:
    """Made by a copy of this store, which counts on it."""
    events = fill(store)
    store.close()
    shutil.copytree(tmp_path / "data", tmp_path / "other")
    with eventstore.open(tmp_path / "other") as other:
        assert len(other.archive(to=tmp_path / "archive")[0].files) == 3
    before = {path: path.read_bytes() for path in archived_files(tmp_path, store)}
    with eventstore.open(tmp_path / "data") as store:
        assert (len((done := store.archive(to=tmp_path / "archive")[0]).files), done.kept) == (3, [])
        assert {path: path.read_bytes() for path in archived_files(tmp_path, store)} == before
    for place in ("data", "other"):
        with eventstore.open(tmp_path / place, archives=[tmp_path / "archive"]) as whole:
            assert list(whole.domain(DOMAIN).events(until=len(events))) == events
            assert whole.verify().ok
            (report,) = whole.retain(Retention(keep_events=0), DOMAIN, delete=True)
            assert {each.first for each in report.kept} == {0, 8, 15}, "the other one counts on them"
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("what", ["of another history", "altered", "cut off"])
def test_what_is_no_whole_copy_is_not_taken(tmp_path: Path, store: Store, what: str) -> None:
    store.domain(DOMAIN).write_value("k", 1)
    store.close()
    shutil.copytree(tmp_path / "data", tmp_path / "other")
    with eventstore.open(tmp_path / "data") as store:
        store.domain(DOMAIN).write_value("k", "this")
        store.seal(DOMAIN)
        target = tmp_path / "archive" / store.store_id / DOMAIN / f"{0:020d}.db"
        content = log_files(log_folder(tmp_path))[0].read_bytes()
        if what == "of another history":
            with eventstore.open(tmp_path / "other") as other:
                other.domain(DOMAIN).write_value("k", "that")
                other.seal(DOMAIN)
                other.archive(to=tmp_path / "archive")
        else:
            target.parent.mkdir(parents=True)
            target.write_bytes(content.replace(b"this", b"that") if what == "altered" else content[: len(content) // 2])
        before = target.read_bytes()
        with pytest.raises(AccessError, match="is there already, and is not used"):
            store.archive(to=tmp_path / "archive")
        assert (target.read_bytes(), store.domain(DOMAIN).floor) == (before, 0)
        assert len(store.archive(to=tmp_path / "elsewhere")[0].files) == 1


@pytest.mark.parametrize("place", ["other", "other/logs/new", "backup", "backup/copy-000001", "backup/new"])
def test_no_archive_is_made_inside_a_store_or_a_backup(tmp_path: Path, store: Store, place: str) -> None:
    fill(store)
    with eventstore.open(tmp_path / "other") as other:
        other.domain("x").write_value("k", 1)
        other.backup(tmp_path / "backup")
    for dry_run in (True, False):
        with pytest.raises(ConfigError, match=f"inside the (store|backup) {tmp_path / place.partition('/')[0]}"):
            store.archive(to=tmp_path / place, dry_run=dry_run)
    with pytest.raises(ConfigError, match="inside the"):
        store.retain(Retention(keep_events=0), to=tmp_path / place)
    assert store.domain(DOMAIN).floor == 0
    assert not list((tmp_path / place.partition("/")[0]).rglob("claims"))


# ---- altered archives


@pytest.mark.corrupts
def test_every_alteration_of_an_archived_file_is_found(tmp_path: Path, store: Store) -> None:
    fill(store, seals=2)
    store.archive(to=tmp_path / "archive")
    copy = archived_files(tmp_path, store)[0]
    content = copy.read_bytes()
    for at in [*range(0, len(content), len(content) // 12), len(content) - 1]:
        copy.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with eventstore.open(tmp_path / "data", archives=[tmp_path / "archive"], read_only=True) as again:
            assert not again.verify().ok, f"byte {at}"
    copy.write_bytes(content[: len(content) // 2])
    with eventstore.open(tmp_path / "data", archives=[tmp_path / "archive"], read_only=True) as again:
        assert "archive" in {finding.kind for finding in again.verify().findings}
    copy.write_bytes(content)
    with eventstore.open(tmp_path / "data", archives=[tmp_path / "archive"], read_only=True) as again:
        assert again.verify().ok


@pytest.mark.corrupts
def test_a_flip_that_no_event_sees_is_found_by_the_hash(tmp_path: Path, store: Store) -> None:
    """Free space within a page belongs to no event."""
    fill(store, seals=1)
    store.archive(to=tmp_path / "archive")
    copy = archived_files(tmp_path, store)[0]
    content = bytearray(copy.read_bytes())
    at = content.index(bytes(200), 8_192) + 100
    content[at] = 1
    copy.write_bytes(content)
    with eventstore.open(tmp_path / "data", archives=[tmp_path / "archive"], read_only=True) as again:
        assert [finding.kind for finding in again.verify().findings] == ["archive"]


@pytest.mark.corrupts
def test_another_stores_file_is_refused_when_it_is_read(tmp_path: Path, store: Store) -> None:
    fill(store, seals=1)
    store.archive(to=tmp_path / "archive")
    with eventstore.open(tmp_path / "other") as other:
        fill(other, seals=1)
        other.archive(to=tmp_path / "foreign")
        foreign = tmp_path / "foreign" / other.store_id / DOMAIN
    # As it is, it holds nothing of this store.
    with eventstore.open(tmp_path / "data", archives=[tmp_path / "foreign"]) as again, pytest.raises(CompactedError):
        list(again.domain(DOMAIN).events())
    shutil.copytree(foreign, tmp_path / "foreign" / store.store_id / DOMAIN)
    with eventstore.open(tmp_path / "data", archives=[tmp_path / "foreign"]) as again:
        with pytest.raises(CorruptionError, match="another log's file"):
            list(again.domain(DOMAIN).events())
        assert "archive" in {finding.kind for finding in again.verify().findings}


# ---- retention


def test_a_plan_is_what_is_done(tmp_path: Path, store: Store) -> None:
    events = fill(store)
    head = len(events)
    (plan,) = store.plan_retention(Retention(keep_events=9))
    assert (plan.seal, [file.last for file in plan.files], plan.floor) == (False, [7, 14], 14)
    assert all(file.bytes and file.began_us and file.ended_us and file.events == 7 + (file.first == 0) for file in plan.files)
    assert store.domain(DOMAIN).head().position == head
    (done,) = store.retain(Retention(keep_events=9), to=tmp_path / "archive")
    assert ([file.last for file in done.files], done.floor, done.sealed) == ([7, 14], 14, False)
    assert dict(store.domain(DOMAIN).items()) == folded(events, head)
    assert list(store.domain(DOMAIN).events(14, head)) == events[14:]
    with eventstore.open(tmp_path / "data", archives=[tmp_path / "archive"]) as whole:
        assert list(whole.domain(DOMAIN).events(until=head)) == events


@pytest.mark.parametrize("policy", [Retention(keep_events=0), Retention(keep_s=0)], ids=["count", "age"])
def test_all_of_the_past_may_go_and_what_every_key_is_stays(tmp_path: Path, store: Store, policy: Retention) -> None:
    events = fill(store)
    (plan,) = store.plan_retention(policy)
    assert (plan.seal, plan.floor) == (True, len(events) + 1)
    (done,) = store.retain(policy, delete=True)
    assert (done.sealed, done.floor, {file.status for file in done.files}) == (True, plan.floor, {"deleted"})
    assert [file.last for file in done.files] == [file.last for file in plan.files]
    domain = store.domain(DOMAIN)
    assert dict(domain.items()) == folded(events, len(events))
    with pytest.raises(CompactedError, match="deleted for good") as caught:
        domain.event(2)
    assert (caught.value.deleted, caught.value.archive) == (True, None)
    assert store.verify().ok
    # What the log says of itself is no past that would have to go.
    assert [(plan.seal, plan.files) for plan in store.plan_retention(policy)] == [(False, [])]


def test_recent_events_stay(tmp_path: Path, store: Store) -> None:
    fill(store)
    (plan,) = store.plan_retention(Retention(keep_s=3_600))
    assert (plan.seal, plan.files) == (False, [])
    (done,) = store.retain(Retention(keep_s=3_600), to=tmp_path / "archive")
    assert (done.files, store.domain(DOMAIN).floor) == ([], 0)


def planned_and_done(store: Store, keep: int, **way: Any) -> tuple[RetentionPlan, ArchiveReport]:
    """A plan and what was done, which are the same."""
    policy = Retention(keep_events=keep)
    (plan,) = store.plan_retention(policy, DOMAIN, **way)
    (done,) = store.retain(policy, DOMAIN, **way)
    assert [(file.first, file.last) for file in plan.files] == [(file.first, file.last) for file in done.files]
    assert {file.does for file in plan.files} <= {"delete" if "delete" in way else "archive"}
    assert {file.status for file in done.files} <= {"deleted" if "delete" in way else "archived"}
    assert (plan.seal, plan.floor, plan.kept, plan.removed) == (done.sealed, done.floor, done.kept, done.removed)
    return plan, done


@pytest.mark.parametrize("way", ["to", "delete"])
def test_every_step_is_planned_and_told(tmp_path: Path, archived: Path, way: str) -> None:
    """Of a store whose archive is moved away, put back, another store's, and attached only after its files were deleted."""
    how: dict[str, Any] = {"delete": True} if way == "delete" else {"to": tmp_path / "other"}
    with eventstore.open(archived) as store:
        own = log_folder(tmp_path) / f"{8:020d}.db"
        (copy,) = (tmp_path / "archive").rglob(own.name)
        shutil.copy(copy, own)
    (tmp_path / "archive").rename(tmp_path / "moved")
    with eventstore.open(archived) as store:
        plan, _ = planned_and_done(store, 3, **how)
        assert (plan.seal, [file.first for file in plan.files]) == (True, [8])
        assert [each.first for each in plan.kept] == ([0] if way == "delete" else [])
    (tmp_path / "moved").rename(tmp_path / "archive")
    (claims,) = (tmp_path / "archive").rglob("claims")
    content = claims.read_bytes()
    claims.write_bytes(b'\n{"store":"/elsewhere","inode":1}\n')
    with eventstore.open(archived) as store:
        plan, _ = planned_and_done(store, 3, **how)
        assert [each.first for each in plan.kept] == ([0, 8] if way == "delete" else [])
    claims.write_bytes(content)
    with eventstore.open(archived) as store:
        plan, _ = planned_and_done(store, 3, **how)
        assert plan.removed == ([str(copy)] if way == "delete" else [])
        planned_and_done(store, 0, **how)


def test_a_plan_that_is_not_told_how_files_go_says_where_they_are(tmp_path: Path, store: Store) -> None:
    fill(store)
    store.archive(DOMAIN, before=8, to=tmp_path / "archive")
    (plan,) = store.plan_retention(Retention(keep_events=9))
    assert [(file.last, file.status, file.does) for file in plan.files] == [(7, "archived", None), (14, "store", None)]
    (plan,) = store.plan_retention(Retention(keep_events=9), to=tmp_path / "archive")
    assert [(file.last, file.does) for file in plan.files] == [(14, "archive")]
    with pytest.raises(ConfigError, match="one of the two"):
        store.plan_retention(Retention(keep_s=1), to=tmp_path / "archive", delete=True)
    with pytest.raises(ConfigError, match="take_over"):
        store.plan_retention(Retention(keep_s=1), take_over=True)


def test_archived_files_are_deleted_on_demand_and_never_in_silence(tmp_path: Path, store: Store) -> None:
    fill(store)
    store.archive(DOMAIN, before=8, to=tmp_path / "archive")
    (plan,) = store.plan_retention(Retention(keep_events=9))
    assert [(file.last, file.status) for file in plan.files] == [(7, "archived"), (14, "store")]
    (done,) = store.retain(Retention(keep_events=9), delete=True)
    assert [(file.last, file.status, file.archive) for file in done.files] == [(7, "deleted", None), (14, "deleted", None)]
    assert archived_files(tmp_path, store) == []
    assert [(each.first, each.to) for each in store.verify().domains[0].archived] == [(0, None), (8, None)]


def test_an_archive_that_cannot_be_reached_is_not_deleted(tmp_path: Path, store: Store) -> None:
    fill(store)
    store.archive(DOMAIN, before=8, to=tmp_path / "archive")
    (tmp_path / "archive").rename(tmp_path / "elsewhere")
    (done,) = store.retain(Retention(keep_events=12), delete=True)
    assert (done.files, [(each.first, each.last) for each in done.kept]) == ([], [(0, 7)])
    (tmp_path / "elsewhere").rename(tmp_path / "archive")
    (done,) = store.retain(Retention(keep_events=12), delete=True)
    assert ([file.first for file in done.files], done.kept) == ([0], [])


@pytest.mark.corrupts
def test_a_damaged_file_is_not_deleted_and_stays_a_finding(tmp_path: Path, store: Store) -> None:
    """It is all that shows what was altered."""
    fill(store)
    store.close()
    file = log_files(log_folder(tmp_path))[1]
    content = file.read_bytes()
    assert content.count(b'{"part":1,"n":1}') == 1
    altered = content.replace(b'{"part":1,"n":1}', b'{"part":1,"n":7}')
    file.write_bytes(altered)
    with eventstore.open(tmp_path / "data") as store:
        with pytest.raises(CorruptionError) as moved:
            store.retain(Retention(keep_events=3), to=tmp_path / "archive")
        with pytest.raises(CorruptionError) as deleted:
            store.retain(Retention(keep_events=3), delete=True)
        assert (str(deleted.value), deleted.value.position) == (str(moved.value), 9)
        assert file.read_bytes() == altered
        assert not store.verify().ok
        assert [each.first for each in store.verify().domains[0].archived] == [0]
        file.write_bytes(content)
        (done,) = store.retain(Retention(keep_events=3), delete=True)
        assert [each.first for each in done.files] == [8, 15]


@pytest.mark.corrupts
@pytest.mark.parametrize("place", ["archive", "second"])
def test_an_archived_copy_that_was_altered_is_not_deleted(tmp_path: Path, archived: Path, place: str) -> None:
    """Neither the recorded one nor another that is attached."""
    shutil.copytree(tmp_path / "archive", tmp_path / "second")
    (copy,) = (tmp_path / place).rglob(f"{8:020d}.db")
    content = copy.read_bytes()
    copy.write_bytes(content.replace(b'{"part":1,"n":1}', b'{"part":1,"n":7}'))
    archives = [tmp_path / "archive", tmp_path / "second"]
    with eventstore.open(archived, archives=archives) as store:
        (report,) = store.retain(Retention(keep_events=3), DOMAIN, delete=True)
        assert ([each.first for each in report.files], [each.first for each in report.kept]) == ([0], [8])
        assert str(copy) in report.kept[0].why
        assert "nothing is deleted, and nothing recorded" in report.kept[0].why
    assert [path.stem for archive in archives for path in archive.rglob("*.db")] == [f"{8:020d}"] * 2
    copy.write_bytes(content)
    assert deleted(archived, archives=archives) == ([8], [])


def test_a_deletion_that_was_recorded_is_carried_out_by_the_next_one(tmp_path: Path, store: Store) -> None:
    fill(store)
    store.archive(DOMAIN, before=8, to=tmp_path / "archive")
    copy = archived_files(tmp_path, store)[0]
    content = copy.read_bytes()
    store.retain(Retention(keep_events=12), delete=True)
    copy.write_bytes(content)
    store.retain(Retention(keep_events=12), delete=True)
    assert not copy.exists()


# ---- whose an archive is


@pytest.fixture
def archived(tmp_path: Path) -> Path:
    """The folder of a store, closed; two of its files are in an archive."""
    with eventstore.open(tmp_path / "data") as store:
        fill(store, seals=2)
        store.archive(DOMAIN, to=tmp_path / "archive")
    return tmp_path / "data"


def deleted(place: Path, *, archives: Sequence[Path] = (), take_over: bool = False) -> tuple[list[int], list[str]]:
    """Delete all of the past but two events: which files went, and why others did not."""
    with eventstore.open(place, archives=archives) as store:
        (report,) = store.retain(Retention(keep_events=3), DOMAIN, delete=True, take_over=take_over)
        assert store.verify().ok
        return [file.first for file in report.files], [each.why for each in report.kept]


@pytest.mark.parametrize("how", ["copied", "restored", "restored in its place", "moved"])
def test_only_the_store_that_put_files_there_deletes_them(tmp_path: Path, archived: Path, how: str) -> None:
    """A copy does not; it looks like a store that was moved, or restored, whose owner has to say that it is none."""
    place = tmp_path / "other"
    if how == "copied":
        shutil.copytree(archived, place)
    elif how == "moved":
        archived.rename(place)
    else:
        with eventstore.open(archived) as store:
            store.backup(tmp_path / "backup")
        if how == "restored in its place":
            archived.rename(tmp_path / "before")  # or the new folder could get its inode
            place = archived
        restore(tmp_path / "backup", place)
    files = sorted((tmp_path / "archive").rglob("*.db"))
    gone, why = deleted(place)
    assert (gone, len(why), sorted((tmp_path / "archive").rglob("*.db"))) == ([], 2, files)
    for sentence in why:
        assert f"files that the store {archived} " in sentence
        assert ("another folder, that had the path of this one" in sentence) == (how == "restored in its place")
        assert "take_over=True" in sentence
        assert "nothing is deleted, and nothing recorded" in sentence
    if how == "copied":
        assert deleted(archived) == ([0, 8], [])
    else:
        assert deleted(place, take_over=True) == ([0, 8], [])
    assert not list((tmp_path / "archive").rglob("*.db"))


def test_who_took_an_archive_over_is_the_one_who_deletes_there(tmp_path: Path, archived: Path) -> None:
    shutil.copytree(archived, tmp_path / "other")
    with eventstore.open(tmp_path / "other") as other:
        (report,) = other.retain(Retention(keep_events=10), DOMAIN, delete=True, take_over=True)
        assert ([file.first for file in report.files], report.kept) == ([0], [])
        (report,) = other.retain(Retention(keep_events=3), DOMAIN, delete=True)
        assert ([file.first for file in report.files], report.kept) == ([8], [])
    gone, why = deleted(archived)
    assert gone == []
    assert "there is no" in why[0]


@pytest.mark.parametrize("claims", ["none", "torn", "of two"])
def test_where_nobody_can_tell_nothing_is_deleted(tmp_path: Path, archived: Path, claims: str) -> None:
    (path,) = (tmp_path / "archive").rglob("claims")
    own = path.read_bytes()
    path.write_bytes({"none": b"", "torn": own[: len(own) // 2], "of two": own + b'\n{"store":"/elsewhere","inode":1}\n'}[claims])
    gone, why = deleted(archived)
    assert (gone, len(why)) == ([], 2)
    assert ("the store /elsewhere put there" if claims == "of two" else "does not say which store") in why[0]
    if claims == "torn":  # behind it the next one is whole
        with eventstore.open(archived) as store:
            store.seal(DOMAIN)
            store.archive(DOMAIN, to=tmp_path / "archive")
            assert [file.first for file in store.retain(Retention(keep_events=0), DOMAIN, delete=True)[0].files][:2] == [0, 8]
    else:
        assert deleted(archived, take_over=True) == ([0, 8], [])


def test_two_stores_put_and_remove_one_after_the_other(tmp_path: Path, archived: Path) -> None:
    """The original and its copy, in one folder of an archive."""
    (claims,) = (tmp_path / "archive").rglob("claims")
    with eventstore.open(archived, busy_timeout_ms=20) as store:
        store.seal(DOMAIN)
        with locked(claims, timeout_ms=0):
            with pytest.raises(UnavailableError, match="claims"):
                store.archive(DOMAIN, to=tmp_path / "archive")
            (report,) = store.retain(Retention(keep_events=12), DOMAIN, delete=True)
            assert ([file.first for file in report.files], [each.first for each in report.kept]) == ([], [0])
            assert "locked by" in report.kept[0].why
        assert len(store.archive(DOMAIN, to=tmp_path / "archive")[0].files) == 1
        assert [file.first for file in store.retain(Retention(keep_events=12), DOMAIN, delete=True)[0].files] == [0]


def test_what_somebody_makes_there_at_this_moment_is_left(tmp_path: Path, archived: Path) -> None:
    """The folder was copied while its original archived: what is half made is that one's."""
    (claims,) = (tmp_path / "archive").rglob("claims")
    half = claims.with_name(f".tmp-{15:020d}.db")
    half.mkdir()
    (archived / "logs" / DOMAIN / "archive.lock").write_text(f'{{"first":15,"to":"{tmp_path / "archive"}"}}\n')
    for there in (True, False):
        with locked(claims, timeout_ms=0) if there else contextlib.nullcontext(), eventstore.open(archived) as store:
            held = store.domain(DOMAIN).redact("key-0", reason="asked", dry_run=True).held
        assert (half.exists(), f"{tmp_path / 'archive'} ({DOMAIN}, from position 15)" in [each.path for each in held]) == (there, there)


def test_every_archive_that_is_attached_is_deleted_from(tmp_path: Path, archived: Path) -> None:
    shutil.copytree(tmp_path / "archive", tmp_path / "second")
    archives = [tmp_path / "archive", tmp_path / "second"]
    with eventstore.open(archived, archives=archives) as store:
        domain = store.domain(DOMAIN)
        (report,) = store.retain(Retention(keep_events=10), DOMAIN, delete=True)
        assert ([file.first for file in report.files], report.kept, report.floor, domain.floor) == ([0], [], 7, 7)
        with pytest.raises(CompactedError, match="deleted"):
            domain.event(1)
    assert [path.stem for archive in archives for path in archive.rglob("*.db")] == [f"{8:020d}"] * 2


def test_nothing_is_called_deleted_that_is_still_read(tmp_path: Path, archived: Path) -> None:
    """A second copy of the archive that another store put files into, too, is attached."""
    shutil.copytree(tmp_path / "archive", tmp_path / "second")
    (path,) = (tmp_path / "second").rglob("claims")
    path.write_bytes(b'\n{"store":"/elsewhere","inode":1}\n')
    gone, why = deleted(archived, archives=[tmp_path / "archive", tmp_path / "second"])
    assert gone == []
    assert all(str(tmp_path / "second") in sentence for sentence in why)
    assert len(list((tmp_path / "archive").rglob("*.db"))) == 2
    assert deleted(archived, archives=[tmp_path / "archive", tmp_path / "second"], take_over=True) == ([0, 8], [])
    assert not [*(tmp_path / "archive").rglob("*.db"), *(tmp_path / "second").rglob("*.db")]


def test_a_copy_that_was_not_attached_then_is_deleted_once_it_is(tmp_path: Path, archived: Path) -> None:
    shutil.copytree(tmp_path / "archive", tmp_path / "second")
    assert deleted(archived) == ([0, 8], [])
    assert deleted(archived, archives=[tmp_path / "second"]) == ([], [])
    assert not list((tmp_path / "second").rglob("*.db"))


def test_another_files_namesake_is_not_deleted(tmp_path: Path, archived: Path) -> None:
    (copy,) = (path for path in (tmp_path / "archive").rglob(f"{8:020d}.db"))
    namesake = tmp_path / "second" / copy.relative_to(tmp_path / "archive")
    namesake.parent.mkdir(parents=True)
    with eventstore.open(tmp_path / "other", store_id=copy.parents[1].name) as other:
        fill(other, seals=2)
        other.archive(to=tmp_path / "theirs")
    shutil.copy(tmp_path / "theirs" / copy.relative_to(tmp_path / "archive"), namesake)
    before = namesake.read_bytes()
    with eventstore.open(archived, archives=[tmp_path / "second", tmp_path / "archive"]) as store:
        (report,) = store.retain(Retention(keep_events=3), DOMAIN, delete=True)
    assert ([file.first for file in report.files], [each.first for each in report.kept]) == ([0], [8])
    assert "no copy of this log's file" in report.kept[0].why
    assert namesake.read_bytes() == before


def test_a_policy_is_one_or_the_other(tmp_path: Path, store: Store) -> None:
    for wrong in list[dict[str, Any]]([{}, {"keep_s": 1, "keep_events": 1}, {"keep_s": -1}, {"keep_events": 1.5}, {"keep_events": True}]):
        with pytest.raises(ConfigError):
            Retention(**wrong)
    with pytest.raises(ConfigError, match="one of the two"):
        store.retain(Retention(keep_s=1))
    with pytest.raises(ConfigError, match="one of the two"):
        store.retain(Retention(keep_s=1), to=tmp_path / "archive", delete=True)
    with pytest.raises(ConfigError, match="take_over"):
        store.retain(Retention(keep_s=1), to=tmp_path / "archive", take_over=True)


def test_what_is_deleted_from_an_attached_archive_is_below_the_floor_at_once(tmp_path: Path, open_store: Callable[..., Store]) -> None:
    store = open_store()
    events = fill(store)
    last = [event.position for event in events if event.op == "seal"][-1]
    store.archive(DOMAIN, to=tmp_path / "archive")
    store.close()
    store = open_store(archives=[tmp_path / "archive"])
    domain = store.domain(DOMAIN)
    assert (domain.floor, len(list(domain.events(until=last)))) == (0, last)
    (report,) = store.retain(Retention(keep_events=3), DOMAIN, delete=True)
    assert (report.floor, domain.floor, report.kept) == (last, last, [])
    with pytest.raises(CompactedError) as raised:
        next(domain.events())
    assert raised.value.deleted
    assert archived_files(tmp_path, store) == []


# ---- what doctor says


def archives_in(folder: Path) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = [(check.status, check.message) for check in doctor(str(folder)).checks if check.name == "archives"]
    assert all(
        check["status"] in ("ok", "warn", "bad") for check in json.loads(eventstore_command("doctor", folder, "--json").out)["checks"]
    )
    return found


def test_doctor_says_what_is_elsewhere_and_whether_it_is_there(tmp_path: Path) -> None:
    place = tmp_path / "data"
    with eventstore.open(place) as store:
        fill(store)
        assert archives_in(place) == []
        content = log_files(log_folder(tmp_path))[0].read_bytes()
        store.archive(DOMAIN, before=8, to=tmp_path / "archive")
        store.retain(Retention(keep_events=14), DOMAIN, delete=True)
        store.archive(DOMAIN, before=15, to=tmp_path / "archive")
        (copy,) = archived_files(tmp_path, store)
    whole = ("ok", f"{DOMAIN}: 2 sealed files archived to {tmp_path / 'archive'}, deleted")
    assert archives_in(place) == [whole]
    (tmp_path / "archive").rename(tmp_path / "moved")
    ((status, message), last) = archives_in(place)
    assert (status, last) == ("warn", whole)
    assert message.startswith(f"{DOMAIN}: positions 8 to 14 were archived to {tmp_path / 'archive'}, and no {copy} is there now")
    (tmp_path / "moved").rename(tmp_path / "archive")
    (log_folder(tmp_path) / f"{0:020d}.db").write_bytes(content)
    ((status, message), last) = archives_in(place)
    assert (status, last) == ("warn", whole)
    assert "positions 0 to 7 were deleted, and their file is still in the store, or here again; the next opening" in message
    with eventstore.open(place) as store:
        assert store.domain(DOMAIN).floor == 14
    assert archives_in(place) == [whole]


@pytest.mark.corrupts
def test_doctor_says_what_nobody_moved_and_what_nobody_knows(tmp_path: Path) -> None:
    place = tmp_path / "data"
    with eventstore.open(place) as store:
        fill(store)
    first = log_files(log_folder(tmp_path))[0]
    first.rename(tmp_path / first.name)
    assert [status for status, _ in archives_in(place)] == ["bad", "bad"]
    assert "the file of positions 0 to 7 is gone, and no event says where" in archives_in(place)[0][1]
    assert "event ids" in archives_in(place)[1][1]
    (tmp_path / first.name).rename(first)
    assert archives_in(place) == []


# ---- what is left of a store whose past is elsewhere


def carried(events: list[Event], until: int) -> set[int]:
    """The positions that stand in the file behind the seal at `until`, too."""
    latest = {event.key: event.position for event in events[:until]}
    return {*latest.values(), *(event.position for event in events[:until] if event.key == "[]")}


def positions_in(found: Positions) -> set[int]:
    return {position for span in found.spans for position in range(span.first, span.last + 1)}


def test_what_is_archived_is_not_told_as_lost(tmp_path: Path, store: Store) -> None:
    events = fill(store)
    store.archive(DOMAIN, before=8, to=tmp_path / "archive")
    absent = set(range(1, 8)) - carried(events, 7)
    report = salvage(tmp_path / "data", tmp_path / "out")
    (found,) = report.domains
    assert (positions_in(found.archived), found.lost.count, found.deleted.count) == (absent, 0, 0)
    assert [(each.first, each.last, each.to) for each in found.elsewhere] == [(0, 7, str(tmp_path / "archive"))]
    assert any(f"--archive {tmp_path / 'archive'}" in problem for problem in found.problems)
    assert (report.same, report.is_whole) == (False, False)
    with eventstore.open(tmp_path / "out", read_only=True) as out:
        said = [json.loads(str(event.data))["reason"] for event in out.domain(DOMAIN).events() if event.op == "loss"]
    assert len(said) == 1
    assert "archived, and not at hand: " in said[0]


@pytest.mark.parametrize("manifest", ["there", "gone"])
def test_with_its_archive_a_store_is_salvaged_as_it_was(tmp_path: Path, store: Store, manifest: str) -> None:
    events = fill(store)
    store.archive(DOMAIN, before=15, to=tmp_path / "archive")
    all_of_them = events + list(store.domain(DOMAIN).events(len(events)))
    store.close()
    if manifest == "gone":
        shutil.copytree(tmp_path / "data", tmp_path / "left")
        (tmp_path / "left" / "store.json").unlink()
    report = salvage(tmp_path / ("left" if manifest == "gone" else "data"), tmp_path / "out", archives=[tmp_path / "archive"])
    (found,) = report.domains
    assert (report.same, report.is_whole, found.lost.count) == (True, True, 0)
    with eventstore.open(tmp_path / "out") as out:
        assert out.domain(DOMAIN).floor == 14, "what the log says is archived is left there, as in any store"
        there = {event.position for event in out.domain(DOMAIN).events(carried=True, after=14)}
        assert positions_in(found.kept) == there - {0}
        assert positions_in(found.archived) == set(range(1, 15)) - there
        assert out.verify().ok
    with eventstore.open(tmp_path / "out", archives=[tmp_path / "archive"]) as out:
        assert list(out.domain(DOMAIN).events()) == all_of_them


def test_salvage_undoes_no_deletion(tmp_path: Path, store: Store) -> None:
    events = fill(store)
    first = log_files(log_folder(tmp_path))[0]
    content = first.read_bytes()
    store.retain(Retention(keep_events=14), DOMAIN, delete=True)
    assert not first.exists()
    store.close()
    shutil.copytree(tmp_path / "data", tmp_path / "left")
    (tmp_path / "left" / "logs" / DOMAIN / first.name).write_bytes(content)
    report = salvage(tmp_path / "left", tmp_path / "out")
    (found,) = report.domains
    assert (positions_in(found.deleted), found.lost.count) == (set(range(1, 8)) - carried(events, 7), 0)
    assert (report.is_whole, report.same) == (True, False)
    assert any(first.name in problem and "deleted on purpose" in problem for problem in found.problems)
    with eventstore.open(tmp_path / "out", read_only=True) as out:
        origins = [json.loads(event.meta or "{}").get("origin", {}).get("position") for event in out.domain(DOMAIN).events()]
        assert not {*origins} & positions_in(found.deleted)
        said = [json.loads(str(event.data))["reason"] for event in out.domain(DOMAIN).events() if event.op == "loss"]
    assert len(said) == 1
    assert "deleted on purpose: " in said[0]


def test_an_import_says_what_it_left_in_the_archive(tmp_path: Path, store: Store) -> None:
    fill(store)
    store.archive(DOMAIN, before=8, to=tmp_path / "archive")
    store.close()
    exported = tmp_path / "all.jsonl"
    exported.write_bytes(done("export", tmp_path / "data", "--archive", tmp_path / "archive").out_bytes)
    answer = done("import", exported, tmp_path / "new")
    assert "up to position 7 left where the log says: archived, or deleted" in answer.out
    with eventstore.open(tmp_path / "new") as new:
        assert new.domain(DOMAIN).floor == 7
        assert new.verify().ok
    with eventstore.open(tmp_path / "new", archives=[tmp_path / "archive"]) as new:
        assert new.domain(DOMAIN).write_value("key-1", {"part": 0, "n": 1}, event_id="0-1").position == 2


def test_an_archive_that_may_not_be_looked_into_is_an_error_of_ours(tmp_path: Path) -> None:
    """By a link that leads nowhere and a name that is too long: root may look into everything else."""
    with eventstore.open(tmp_path / "data") as store:
        fill(store, 1)
        store.archive(to=tmp_path / "archive")
    (tmp_path / "archive").rename(tmp_path / "elsewhere")
    (tmp_path / "archive").symlink_to("archive")
    found = [check.message for check in doctor(str(tmp_path / "data")).checks if check.status == "bad"]
    assert any(f"looking for {tmp_path / 'archive'}" in message for message in found), found
    for denied in (tmp_path / "archive", tmp_path / ("x" * 256)):
        with eventstore.open(tmp_path / "data", read_only=True, archives=[denied]) as store, pytest.raises(AccessError):
            store.domain(DOMAIN)
