"""Sealing: a log of several files reads as one, its live file stays small, and what is not at hand is said to be so."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import eventstore
import eventstore.codec
from eventstore import CompactedError, Event, LostIdsError, Store, database, logfile, logfiles, manifest
from eventstore.database import log_files, sqlite3
from eventstore.files import copy_files
from eventstore.logfile import LogFile
from eventstore.model import SYSTEM_KEY
from eventstore.rolling import Latest
from eventstore.salvage import salvage
from eventstore.sqlite import SqliteLog, _is_held
from eventstore.view import DomainView

DOMAIN = "orders"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def folder_of(path: Path) -> Path:
    return path / "data" / "logs" / DOMAIN


def write(store: Store, count: int, *, tag: str) -> None:
    """Some events over few keys: values, removals, times, calls with an id. Of nine, the last removes a key."""
    domain = store.domain(DOMAIN)
    for number in range(count):
        key = f"key-{number % 4}"
        if number % 5 == 3:
            domain.remove_value(f"key-{(number + 1) % 4}")
        elif number % 7 == 6:
            domain.write_values([(key, number), ("other", tag)], event_id=f"{tag}-{number}")
        else:
            domain.write_value(key, {"tag": tag, "n": number}, when=number, event_id=f"{tag}-{number}")


def sealed_store(store: Store, seals: int = 3) -> list[Event]:
    """Make files of about ten events, and one after them; all events."""
    for number in range(seals):
        write(store, 9, tag=f"t{number}")
        assert store.seal(DOMAIN).sealed
    write(store, 5, tag="last")
    return list(store.domain(DOMAIN).events())


def states_of(view: DomainView) -> dict[str, tuple[int, str]]:
    found: dict[str, tuple[int, str]] = {}
    for key in ["key-0", "key-1", "key-2", "key-3", "other"]:
        state = view.state_of(key)
        if state is not None:
            found[key] = (state.position, state.status)
    return found


def folded(events: Sequence[Event], until: int) -> dict[str, tuple[int, str]]:
    """What the events up to a position say, by going through them."""
    found = {}
    for event in events:
        if event.position <= until and event.key != SYSTEM_KEY:
            key = eventstore.decode_key(event.key)
            assert isinstance(key, str)
            found[key] = (event.position, "removed" if event.op == "remove" else "present")
    return found


def archive(path: Path, *numbers: int) -> Path:
    """Move files of the log, by their number in its row, to where an archive has them."""
    with eventstore.open(path / "data", read_only=True) as store:
        target = path / "archive" / store.store_id / DOMAIN
    target.mkdir(parents=True, exist_ok=True)
    files = log_files(folder_of(path))
    for number in numbers:
        for suffix in ("", "-wal", "-shm"):
            side = files[number].with_name(files[number].name + suffix)
            if side.exists():
                shutil.move(side, target / side.name)
    return path / "archive"


# One log


def test_events_are_read_across_files_as_if_there_were_one(any_store: Store) -> None:
    events = sealed_store(any_store)
    domain = any_store.domain(DOMAIN)
    assert [event.position for event in events] == list(range(1, domain.head().position + 1))
    assert [event.op for event in events].count("seal") == 3
    assert list(domain.events(reverse=True)) == events[::-1]
    for event in events:
        assert domain.event(event.position) == event
    for after, until, limit in [(0, 5, None), (9, 14, None), (3, None, 20), (11, 11, None), (12, 40, 3)]:
        wanted = [event for event in events if after < event.position <= (until or 10**9)][:limit]
        assert list(domain.events(after, until, limit=limit)) == wanted
    for key in ("key-0", "key-1", "key-2", "key-3", "other"):
        history = [event for event in events if event.key == f'["{key}"]']
        assert list(domain.history(key)) == history[::-1]
        assert list(domain.events(key=key)) == history
        assert list(domain.history(key, limit=2)) == history[::-1][:2]


def test_the_past_is_what_the_events_say(any_store: Store) -> None:
    events = sealed_store(any_store)
    domain = any_store.domain(DOMAIN)
    for position in range(len(events) + 2):
        assert states_of(domain.state(position)) == folded(events, position)
    for event in events:
        view = domain.state(EPOCH + timedelta(microseconds=event.recorded_us))
        assert view.head().position == event.position
        assert dict(view.items()) == dict(domain.state(event.position).items())


def test_a_seal_without_news_does_nothing_and_says_so(any_store: Store) -> None:
    any_store.domain(DOMAIN)
    empty = any_store.seal(DOMAIN)
    assert (empty.sealed, empty.position, empty.events) == (False, 0, 0)
    write(any_store, 3, tag="a")
    sealed = any_store.seal(DOMAIN)
    assert (sealed.sealed, sealed.position, sealed.events, sealed.carried) == (True, 4, 5, 5)
    again = any_store.seal(DOMAIN)
    assert (again.sealed, again.position) == (False, 4)
    assert any_store.domain(DOMAIN).head().position == 4
    with pytest.raises(eventstore.NotFoundError):
        any_store.seal("nothing")


def test_the_live_file_stays_small(tmp_path: Path, store: Store) -> None:
    domain = store.domain(DOMAIN)
    for number in range(300):
        domain.write_value("key", "x" * 2_000 + str(number))
    report = store.seal(DOMAIN)
    assert report.bytes_before > 600_000
    assert report.bytes_after < 50_000
    assert [file.name for file in log_files(folder_of(tmp_path))] == [f"{0:020d}.db", f"{302:020d}.db"]
    assert not (folder_of(tmp_path) / f"{0:020d}.db-wal").exists() or (folder_of(tmp_path) / f"{0:020d}.db-wal").stat().st_size == 0
    assert domain.read_value("key").endswith("299")


def test_a_store_opened_anew_goes_on_where_it_was(tmp_path: Path, open_store: Callable[..., Store]) -> None:
    with eventstore.open(tmp_path / "data") as first:
        events = sealed_store(first)
        states = states_of(first.domain(DOMAIN))
    shutil.rmtree(folder_of(tmp_path) / "pointers", ignore_errors=True)
    domain = open_store().domain(DOMAIN)
    assert states_of(domain) == states
    assert list(domain.events()) == events
    assert domain.group.live.states.system == max(event.position for event in events if event.key == SYSTEM_KEY)
    assert domain.write_value("key-0", "on").position == len(events) + 1


def test_a_retry_over_seals_is_answered_as_the_first_time(any_store: Store) -> None:
    sealed_store(any_store)
    domain = any_store.domain(DOMAIN)
    head = domain.head()
    receipt = domain.write_value("key-0", {"tag": "t0", "n": 0}, when=0, event_id="t0-0")
    assert (receipt.position, domain.head()) == (1, head)
    receipts = domain.write_values([("key-2", 6), ("other", "t0")], event_id="t0-6")
    assert ([each.position for each in receipts], domain.head()) == ([7, 8], head)
    with pytest.raises(eventstore.DuplicateEventError):
        domain.write_value("key-0", "other", event_id="t1-0")


def test_a_seal_is_as_durable_as_can_be(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, 3, tag="a")
    log = store.domain(DOMAIN).group.live.log
    assert isinstance(log, SqliteLog)
    levels = []
    append = log._file.append

    def noted(*arguments: Any, **options: Any) -> None:
        levels.append(options["durability"])
        append(*arguments, **options)

    monkeypatch.setattr(log._file, "append", noted)
    store.seal(DOMAIN)
    assert levels == ["power+"]
    witnessed = log._head_file.refresh()
    assert witnessed is not None
    assert witnessed.position == 4


def test_a_new_file_holds_no_more_than_it_must(tmp_path: Path, store: Store) -> None:
    events = sealed_store(store, seals=2)
    store.close()
    last = log_files(folder_of(tmp_path))[-1]
    connection = sqlite3.connect(last)
    rows = connection.execute("SELECT position, key FROM event ORDER BY position").fetchall()
    carried = connection.execute("SELECT position, previous FROM carried ORDER BY position").fetchall()
    connection.close()
    seal = int(last.stem) - 1
    latest = {event.key: event.position for event in events if event.position <= seal}
    system = [0, *(event.position for event in events if event.key == SYSTEM_KEY and event.position <= seal)]
    wanted = sorted({*system, *latest.values()})
    assert [position for position, _ in rows if position <= seal] == wanted
    checksums = {event.position + 1: event.checksum for event in events}
    assert [position for position, _ in carried] == wanted
    assert all(previous == checksums[position] for position, previous in carried if position > 1)


@settings(max_examples=15)
@given(st.data())
def test_any_life_with_seals_is_the_same_without_them(data: st.DataObject) -> None:
    """Positions aside, sealing changes nothing that can be asked."""
    with eventstore.open("memory:") as plain, eventstore.open("memory:") as other:
        one, two = plain.domain(DOMAIN), other.domain(DOMAIN)
        for step in data.draw(st.lists(st.sampled_from(["a", "b", "c", "-a", "-b", "seal"]), max_size=30)):
            if step == "seal":
                other.seal(DOMAIN)
            elif step.startswith("-"):
                one.remove_value(step[1:])
                two.remove_value(step[1:])
            else:
                one.write_value(step, len(list(one.history(step))))
                two.write_value(step, len(list(two.history(step))))
        assert dict(one.items()) == dict(two.items())
        users = [event for event in two.events() if event.key != SYSTEM_KEY]
        assert [(e.op, e.key, e.data) for e in one.events()] == [(e.op, e.key, e.data) for e in users]
        assert other.verify().ok


# What is carried


def test_a_fold_may_start_at_any_seal(any_store: Store) -> None:
    events = sealed_store(any_store)
    domain = any_store.domain(DOMAIN)
    for start in [0, *(event.position for event in events if event.op == "seal")]:
        told = list(domain.events(start, carried=True))
        before = [event for event in told if event.position <= start]
        assert before[-1].position == start
        assert [event for event in told if event.position > start] == events[start:]
        assert {event.key for event in before} == {SYSTEM_KEY, *(event.key for event in events[:start])}
        assert folded(told, 10**9) == folded(events, 10**9)
    with pytest.raises(eventstore.ConfigError, match="no seal stands there"):
        domain.events(3, carried=True)
    with pytest.raises(eventstore.ConfigError, match="without key"):
        domain.events(0, key="key-0", carried=True)


# Not at hand


def test_what_was_archived_is_missed_and_the_rest_is_there(tmp_path: Path, open_store: Callable[..., Store]) -> None:
    with eventstore.open(tmp_path / "data") as first:
        events = sealed_store(first)
    seals = [event.position for event in events if event.op == "seal"]
    there = archive(tmp_path, 0, 1)
    domain = open_store().domain(DOMAIN)
    floor = seals[1]
    assert domain.floor == floor
    assert states_of(domain) == folded(events, 10**9)
    assert dict(domain.items())
    assert list(domain.events(floor)) == events[floor:]
    for position in range(floor, len(events) + 1):
        assert states_of(domain.state(position)) == folded(events, position)
    below: list[Callable[[], object]] = [
        lambda: list(domain.events()),
        lambda: list(domain.events(floor - 2)),
        lambda: domain.state(floor - 1),
        lambda: domain.state(EPOCH + timedelta(microseconds=events[3].recorded_us)),
        lambda: domain.event(1),
        lambda: list(domain.history("key-0")),
        lambda: domain.events(seals[0], carried=True),
    ]
    for ask in below:
        with pytest.raises(CompactedError) as caught:
            ask()
        assert caught.value.floor == floor
        assert caught.value.archive is None
    assert domain.event(floor) == events[floor - 1], "the seal is carried, and proves itself"
    assert next(domain.history("key-0")).position == states_of(domain)["key-0"][0]
    whole = open_store(archives=[there], read_only=True).domain(DOMAIN)
    assert whole.floor == 0
    assert list(whole.events()) == events
    assert states_of(whole.state(5)) == folded(events, 5)
    for path in (there).rglob("*.db*"):
        shutil.move(path, folder_of(tmp_path) / path.name)


def test_only_what_a_hole_hides_is_missed(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as first:
        events = sealed_store(first)
    first_seal, second_seal, *_ = (event.position for event in events if event.op == "seal")
    archive(tmp_path, 1)
    with eventstore.open(tmp_path / "data", read_only=True) as store:
        domain = store.domain(DOMAIN)
        assert domain.floor == second_seal
        assert domain.event(2) == events[1]
        assert states_of(domain.state(first_seal)) == folded(events, first_seal)
        with pytest.raises(CompactedError):
            domain.state(second_seal - 1)
        report = store.verify()
    assert [(finding.kind, finding.position) for finding in report.findings] == [("missing", None)]


@pytest.mark.corrupts
def test_a_retry_whose_event_is_not_at_hand_is_never_done_twice(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as first:
        sealed_store(first)
    there = archive(tmp_path, 0)
    with eventstore.open(tmp_path / "data") as store:
        domain = store.domain(DOMAIN)
        head = domain.head()
        with pytest.raises(CompactedError):
            domain.write_value("key-0", {"tag": "t0", "n": 0}, when=0, event_id="t0-0")
        assert domain.head() == head
        assert domain.write_value("key-0", "new", event_id="new").position == head.position + 1
        assert domain.write_value("key-0", {"tag": "t1", "n": 0}, when=0, event_id="t1-0").position < head.position
    for kept in folder_of(tmp_path).glob("*.ids"):
        kept.unlink()
    shutil.rmtree(folder_of(tmp_path) / "pointers")
    with eventstore.open(tmp_path / "data") as store:
        domain = store.domain(DOMAIN)
        with pytest.raises(LostIdsError):  # nobody knows which ids the archived events have
            domain.write_value("key-0", "never seen", event_id="unknown")
        domain.write_value("key-0", "without an id")
    with eventstore.open(tmp_path / "data", archives=[there]) as store:
        domain = store.domain(DOMAIN)
        assert domain.write_value("key-0", {"tag": "t0", "n": 0}, when=0, event_id="t0-0").position == 1


def test_few_sealed_files_stay_open(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfiles, "OPEN_FILES", 2)
    for number in range(12):
        store.domain(DOMAIN).write_value("key", number)
        store.seal(DOMAIN)
    assert [event.data for event in store.domain(DOMAIN).history("key")] == [str(number) for number in range(11, -1, -1)]
    descriptors = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
    opened = {path for path in descriptors if path.startswith(str(folder_of(tmp_path))) and path.endswith(".db")}
    assert len(opened) <= 3


# What writers wait for


def steps_under_the_lock(store: Store, monkeypatch: pytest.MonkeyPatch) -> int:
    """How much SQLite does, in thousands of its own instructions, while a seal keeps writers out."""
    log = store.domain(DOMAIN).group.live.log
    assert isinstance(log, SqliteLog)
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += _is_held(log._mutex)

    def counted(*arguments: Any) -> sqlite3.Connection:
        connection = connect(*arguments)
        connection.set_progress_handler(count, 1_000)
        return connection

    connect = database._connect
    with monkeypatch.context() as patch:
        patch.setattr(database, "_connect", counted)
        log.resume()  # with connections that count
        assert store.seal(DOMAIN).sealed
    return steps


def test_what_writers_wait_for_does_not_grow_with_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for rounds in (1, 40):
        with eventstore.open(tmp_path / f"{rounds}", durability="process") as store:
            domain = store.domain(DOMAIN)
            for number in range(rounds):
                domain.write_values([(f"key-{key}", number) for key in range(500)])
            found.append(steps_under_the_lock(store, monkeypatch))
    few, many = found
    assert few > 10, "what is carried is copied under the lock"
    assert many < 1.5 * few


def meanwhile(monkeypatch: pytest.MonkeyPatch, *actions: Callable[[], object]) -> None:
    """Do one of these each time that a seal was prepared, and before the lock is taken for it."""
    left = list(actions)
    prepare = SqliteLog.prepare_seal

    def prepared(log: SqliteLog) -> None:
        prepare(log)
        if left:
            left.pop(0)()

    monkeypatch.setattr(SqliteLog, "prepare_seal", prepared)


def rows_of(file: Path) -> list[list[tuple[Any, ...]]]:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return [connection.execute(f"SELECT * FROM {table} ORDER BY position").fetchall() for table in ("event", "carried")]


def made_anew(path: Path) -> list[list[tuple[Any, ...]]]:
    """The rows of the newest file of a closed store, once it was removed, and made from the sealed one by an opening."""
    newest = log_files(folder_of(path))[-1]
    newest.unlink()
    with eventstore.open(path / "data") as store:
        store.domain(DOMAIN)
    return rows_of(newest)


@pytest.mark.parametrize("page", [1, 3, 10_000])
def test_what_is_written_while_a_seal_is_prepared_is_carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(logfile, "_LATEST_AT_A_TIME", page)
    with eventstore.open(tmp_path / "data") as store:
        domain = store.domain(DOMAIN)

        def write_on() -> None:
            domain.write_value("key-0", "SECRET")
            domain.remove_value("key-1")
            domain.write_value("new", 1)
            domain.redact("key-0", reason="test")
            domain.redact("key-2", reason="test")
            domain.write_value("new", 2)

        domain.write_values([(f"key-{number}", f"SECRET {number}") for number in range(4)])
        store.seal(DOMAIN)
        for _ in range(2):
            domain.write_values([(f"key-{number}", f"SECRET {number}") for number in range(4)])
            meanwhile(monkeypatch, write_on)
            store.seal(DOMAIN)
        states = {event.key: event.position for event in domain.events() if event.key != SYSTEM_KEY}
        assert store.verify().ok
    newest = log_files(folder_of(tmp_path))[-1]
    rows = rows_of(newest)
    assert {row[6]: row[0] for row in rows[0] if row[6] != SYSTEM_KEY} == states
    assert [row[4] for row in rows[0] if row[6] == SYSTEM_KEY].count("redact") == 4
    assert b"SECRET 2" not in newest.read_bytes()
    assert made_anew(tmp_path) == rows


def test_who_seals_while_a_seal_is_prepared_leaves_no_trace_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with eventstore.open(tmp_path / "data") as store, eventstore.open(tmp_path / "data") as other:
        write(store, 5, tag="a")

        def seal_and_write() -> None:
            assert other.seal(DOMAIN).sealed
            write(other, 3, tag="b")

        meanwhile(monkeypatch, seal_and_write)
        assert store.seal(DOMAIN).sealed
        assert store.verify().ok
        assert len(log_files(folder_of(tmp_path))) == 3
    rows = rows_of(log_files(folder_of(tmp_path))[-1])
    assert made_anew(tmp_path) == rows


def while_it_is_read(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do this once, in a thread of its own, before the first page is read for a seal."""
    left = [action]
    latest = LogFile.latest

    def read(file: LogFile, after: int, until: int) -> tuple[int, int, dict[str, int]] | None:
        if left:
            thread = threading.Thread(target=left.pop())
            thread.start()
            thread.join()
        return latest(file, after, until)

    monkeypatch.setattr(LogFile, "latest", read)


def test_who_is_overtaken_finds_nothing_left_to_seal(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, 5, tag="a")
    sealed = []
    while_it_is_read(monkeypatch, lambda: sealed.append(store.seal(DOMAIN).sealed))
    assert not store.seal(DOMAIN).sealed
    assert sealed == [True]
    store.domain(DOMAIN).write_value("key-0", "on")
    assert store.seal(DOMAIN).sealed


def test_a_store_that_is_closed_while_a_seal_is_prepared_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = eventstore.open(tmp_path / "data")
    write(store, 5, tag="a")
    while_it_is_read(monkeypatch, store.close)
    with pytest.raises(eventstore.ClosedError):
        store.seal(DOMAIN)


def test_others_write_while_a_seal_is_prepared(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    domain = store.domain(DOMAIN)
    domain.write_value("key", 1)
    while_it_is_read(monkeypatch, lambda: domain.write_value("other", 1))
    store.seal(DOMAIN)
    assert [event.op for event in domain.events()] == ["put", "put", "seal"]


def test_who_is_asked_to_seal_by_the_policy_keeps_nobody_from_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody else is asked."""
    with eventstore.open(tmp_path / "data", seal_bytes=1) as store:
        domain = store.domain(DOMAIN)
        while_it_is_read(monkeypatch, lambda: domain.write_value("other", 1))
        domain.write_value("key", 1)
        assert [event.op for event in domain.events()] == ["put", "put", "seal"]


# Others


def test_whoever_has_the_log_open_walks_through(tmp_path: Path, open_store: Callable[..., Store]) -> None:
    one, other, reader = open_store(), open_store(), open_store(read_only=True)
    write(one, 4, tag="a")
    before = other.domain(DOMAIN).state()
    assert len(list(reader.domain(DOMAIN).events())) == 4
    following = reader.domain(DOMAIN).events()
    next(following)
    for number, (sealer, writer) in enumerate([(one, other), (other, one), (one, one), (other, one)]):
        assert sealer.seal(DOMAIN).sealed
        assert writer.domain(DOMAIN).write_value("key-0", f"round-{number}").appended
        for store in (one, other, reader):
            domain = store.domain(DOMAIN)
            assert domain.read_value("key-0") == f"round-{number}"
            assert [event.position for event in domain.events()] == list(range(1, domain.head().position + 1))
    assert [event.position for event in following] == [2, 3, 4]
    assert before.head().position == 4
    assert list(before.events()) == list(one.domain(DOMAIN).events(until=4))
    for _ in range(3):  # several files further than the other has seen
        one.domain(DOMAIN).write_value("key-1", 1)
        one.seal(DOMAIN)
    assert other.domain(DOMAIN).write_value("key-2", "far").position == one.domain(DOMAIN).head().position


@pytest.mark.corrupts
def test_a_file_that_another_process_archived_is_let_go(tmp_path: Path) -> None:
    """Whoever had it open as the live file goes on in the new one; what it held is not at hand any more."""
    with eventstore.open(tmp_path / "data") as one, eventstore.open(tmp_path / "data") as other:
        write(one, 4, tag="a")
        assert other.domain(DOMAIN).head().position == 4
        one.seal(DOMAIN)
        write(one, 4, tag="b")
        archive(tmp_path, 0)
        other.domain(DOMAIN).write_value("key-0", "on")
        assert one.domain(DOMAIN).read_value("key-0") == "on"
        one.seal(DOMAIN)
        assert other.domain(DOMAIN).write_value("key-1", "on").appended
    with eventstore.open(tmp_path / "data") as store:
        assert store.domain(DOMAIN).floor == 5
        assert store.domain(DOMAIN).read_value("key-1") == "on"


def test_threads_read_and_write_while_it_is_sealed(store: Store) -> None:
    domain = store.domain(DOMAIN)
    failures: list[BaseException] = []
    ended, written = threading.Event(), dict[str, int]()

    def writing(name: str) -> None:
        try:
            for number in itertools.count():
                domain.write_value(name, number, event_id=f"{name}-{number}")
                written[name] = number + 1
                if ended.is_set():
                    break
        except BaseException as error:  # noqa: BLE001  told below
            failures.append(error)

    def reading() -> None:
        try:
            while not ended.is_set():
                positions = [event.position for event in domain.events()]
                assert positions == list(range(1, len(positions) + 1))
                dict(domain.state(len(positions) // 2).items())
        except BaseException as error:  # noqa: BLE001  told below
            failures.append(error)

    writers = [threading.Thread(target=writing, args=(name,)) for name in "ab"]
    readers = [threading.Thread(target=reading) for _ in range(2)]
    for thread in (*writers, *readers):
        thread.start()
    seals = 0
    try:
        while seals < 5 and failures == []:
            seals += store.seal(DOMAIN).sealed
    finally:
        ended.set()
        for thread in (*writers, *readers):
            thread.join()
    assert failures == []
    for name in "ab":
        assert [event.data for event in domain.events(key=name)] == [str(number) for number in range(written[name])]


def test_a_child_reads_and_writes_sealed_files_of_its_own(tmp_path: Path, store: Store) -> None:
    events = sealed_store(store)
    domain = store.domain(DOMAIN)
    list(domain.events())  # some sealed files are open
    child = os.fork()
    if child == 0:
        try:
            assert list(domain.events()) == events
            domain.write_value("child", 1)
            store.seal(DOMAIN)
            domain.write_value("child", 2)
            store.close()
            os._exit(0)
        except BaseException:  # noqa: BLE001  the exit code tells
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert domain.read_value("child") == 2
    domain.write_value("parent", 3)
    assert [event.position for event in domain.events()] == list(range(1, len(events) + 5))
    assert (tmp_path / "data").exists()


# Half way


def without_the_next_file(path: Path) -> int:
    """A store whose sealer died before the next file was there; the position of the seal."""
    with eventstore.open(path / "data") as store:
        sealed_store(store, seals=1)
        store.seal(DOMAIN)
        position = store.domain(DOMAIN).head().position
    newest = log_files(folder_of(path))[-1]
    for suffix in ("", "-wal", "-shm"):
        newest.with_name(newest.name + suffix).unlink(missing_ok=True)
    (folder_of(path) / f".tmp-{newest.name}.new").write_bytes(b"half a file")
    return position


def test_a_log_that_ends_in_a_seal_is_read_and_rolled_forward(tmp_path: Path, open_store: Callable[..., Store]) -> None:
    position = without_the_next_file(tmp_path)
    names = sorted(path.name for path in log_files(folder_of(tmp_path)))
    with eventstore.open(tmp_path / "data", read_only=True) as reader:
        domain = reader.domain(DOMAIN)
        assert domain.head().position == position
        states = states_of(domain)
        assert reader.verify().ok
    assert sorted(path.name for path in log_files(folder_of(tmp_path))) == names, "who only reads changes nothing"
    domain = open_store().domain(DOMAIN)
    assert states_of(domain) == states
    assert domain.write_value("key-0", "on").position == position + 1
    assert log_files(folder_of(tmp_path))[-1].name == f"{position + 1:020d}.db"
    assert not list(folder_of(tmp_path).glob(".tmp-*"))


def test_a_sealed_file_that_a_reader_kept_its_wal_is_settled_at_the_next_opening(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as store:
        write(store, 5, tag="a")
        (file,) = log_files(folder_of(tmp_path))
        reader = sqlite3.connect(file, isolation_level=None)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM event").fetchone() == (6,)
        write(store, 5, tag="b")
        store.seal(DOMAIN)
        write(store, 5, tag="c")
        events = list(store.domain(DOMAIN).events())
        wal = file.with_name(f"{file.name}-wal")
        assert wal.stat().st_size > 0
        copy_files([file, wal], tmp_path)  # as they are while all of this is open: whoever closes last may checkpoint
        reader.execute("ROLLBACK")
        reader.close()
    for path in (file, wal):
        shutil.copy2(tmp_path / path.name, path)
    with eventstore.open(tmp_path / "data") as store:
        assert list(store.domain(DOMAIN).events()) == events
        assert wal.stat().st_size == 0


@pytest.mark.corrupts
def test_a_next_file_that_is_lost_with_its_events_is_a_lost_tail(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as store:
        sealed_store(store, seals=2)
    newest = log_files(folder_of(tmp_path))[-1]
    newest.unlink()
    with eventstore.open(tmp_path / "data") as store, pytest.raises(eventstore.TailLostError):
        store.domain(DOMAIN)
    with eventstore.open(tmp_path / "data", accept_loss=True) as store:
        domain = store.domain(DOMAIN)
        ops = [event.op for event in domain.events()]
        assert ops[-2:] == ["seal", "loss"]
        domain.write_value("key-0", "on")
    assert log_files(folder_of(tmp_path))[-1].name == newest.name
    with eventstore.open(tmp_path / "data", read_only=True) as store:
        assert store.verify().ok


# The policy


def test_a_store_seals_by_itself_when_it_is_told_to(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data", seal_bytes=100_000) as store:
        domain = store.domain(DOMAIN)
        for number in range(60):
            domain.write_value(f"key-{number % 3}", "x" * 5_000, event_id=f"e{number}")
        assert domain.write_value("key-0", "x" * 5_000, event_id="e0").position == 1
        sealed = [event for event in domain.events() if event.op == "seal"]
    assert len(log_files(folder_of(tmp_path))) == len(sealed) + 1
    assert len(sealed) >= 2
    with eventstore.open(tmp_path / "data") as store:
        assert store.verify().ok
        assert len(store.domain(DOMAIN)) == 3


@settings(max_examples=3, deadline=None)
@given(
    state=st.integers(0, 400_000),
    is_sealed=st.booleans(),
    seal_bytes=st.integers(30_000, 200_000),
    size=st.integers(10, 2_000),
    reopened=st.sampled_from([11, 19, 40]),
)
@example(state=400_000, is_sealed=True, seal_bytes=30_000, size=10, reopened=40)
@example(state=400_000, is_sealed=True, seal_bytes=30_000, size=2_000, reopened=11)
def test_a_log_is_sealed_by_what_is_appended_whatever_it_carries(
    tmp_path_factory: pytest.TempPathFactory, state: int, is_sealed: bool, seal_bytes: int, size: int, reopened: int
) -> None:
    """Also where every write is another opening's: the seals of others count, and so do the writes."""
    path, writes = tmp_path_factory.mktemp("seals"), 40
    with eventstore.open(path / "data", durability="process") as store:
        store.domain(DOMAIN).write_values([(f"key-{number}", "x" * (state // 20)) for number in range(20)])
        if is_sealed:
            store.seal(DOMAIN)
    with contextlib.ExitStack() as opened:
        stores = [opened.enter_context(eventstore.open(path / "data", durability="process", seal_bytes=seal_bytes)) for _ in range(2)]
        for number in range(writes):
            if number % reopened == reopened - 1:
                stores[number % 2].close()
                stores[number % 2] = opened.enter_context(eventstore.open(path / "data", durability="process", seal_bytes=seal_bytes))
            stores[number % 2].domain(DOMAIN).write_value("hot", "y" * size)
    seals = len(log_files(folder_of(path))) - 1 - is_sealed
    event_bytes, page = size + 200, database.PAGE_BYTES
    assert seals <= writes * event_bytes * 1.4 // seal_bytes + 1  # as few as three rows fit into a page
    assert seals >= writes * size // (seal_bytes + 2 * page)


@pytest.mark.corrupts
def test_a_write_is_answered_although_nobody_can_tell_how_much_was_appended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with eventstore.open(tmp_path / "data") as store:
        store.domain(DOMAIN).write_value("key", 1)
        store.seal(DOMAIN)
        store.domain(DOMAIN).write_values([(f"key-{number}", "x" * 3_000) for number in range(100)])
    path = log_files(folder_of(tmp_path))[-1]
    content, size = bytearray(path.read_bytes()), database.PAGE_BYTES
    rows = [start for start in range(size, len(content), size) if content[start] == 0x0D and b"x" * 3_000 in content[start : start + size]]
    content[rows[1]] = 0xFF  # no page of a table
    with eventstore.open(tmp_path / "data", seal_bytes=250_000) as store:
        domain = store.domain(DOMAIN)
        path.write_bytes(content)
        assert domain.write_value("key", 2).appended
        assert "cannot be told" in caplog.text


def test_a_log_is_sealed_when_it_is_old_enough(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data", seal_age_s=3_600) as store:
        domain = store.domain(DOMAIN)
        now_us = store.clock.stamps(1, 0)[0]
        domain.write_value("a", 1)
        assert [event.op for event in domain.events()] == ["put"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("eventstore.group.now_us", lambda: now_us + 3_601 * 10**6)
            domain.write_value("a", 2)
            assert [event.op for event in domain.events()] == ["put", "put", "seal"]
            domain.write_value("a", 3)
        assert [event.op for event in domain.events()][-1] == "seal", "judged by the first event of the live file"


def test_a_policy_is_a_number() -> None:
    with pytest.raises(eventstore.ConfigError, match="seal_bytes"):
        eventstore.open("memory:", seal_bytes=-1)
    with pytest.raises(eventstore.ConfigError, match="seal_age_s"):
        eventstore.open("memory:", seal_age_s=-1)
    with pytest.raises(eventstore.ConfigError, match="archives"):
        eventstore.open("memory:", archives="archive")


# The proof


def test_a_page_in_another_ones_place_does_not_keep_a_seal_from_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "_LATEST_AT_A_TIME", 10)
    with eventstore.open(tmp_path / "data") as store:
        store.domain(DOMAIN).write_values([(f"key-{number}", "x" * 500) for number in range(100)])
    (path,) = log_files(folder_of(tmp_path))
    content, size = bytearray(path.read_bytes()), database.PAGE_BYTES
    full = [start for start in range(size, len(content), size) if content[start] == 0x0D and b"x" * 500 in content[start : start + size]]
    content[full[4] : full[4] + size] = content[full[1] : full[1] + size]
    path.write_bytes(content)
    file = LogFile(path, DOMAIN, read_only=True, busy_timeout_ms=0)
    with contextlib.closing(file._reader), pytest.raises(eventstore.FormatError, match="out of order"):
        Latest(file).read_on(100)


def damaged(path: Path, number: int, *statements: str) -> list[tuple[str, int | None]]:
    """Alter file `number` of the row, guard rails or not; what verify finds, as kind and position."""
    connection = sqlite3.connect(log_files(folder_of(path))[number], isolation_level=None)
    triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    for _, sql in triggers:
        connection.execute(sql)
    connection.close()
    with eventstore.open(path / "data", read_only=True) as store:
        alone = store.verify(processes=1).findings
        assert store.verify(processes=2).findings == alone
        return [(finding.kind, finding.position) for finding in alone]


def erase(position: int) -> str:
    return f"UPDATE event SET data = NULL, salt = NULL, digest = zeroblob(32) WHERE position = {position}"


@pytest.mark.corrupts
@pytest.mark.parametrize(
    ("number", "statements", "wanted"),
    [
        (1, ["UPDATE event SET data = '{}' WHERE position = {copy}"], ("carried", "copy")),
        (1, [erase(-1)], None),
        (1, ["DELETE FROM event WHERE position = {copy}"], ("carried", "seal")),
        (1, ["DELETE FROM carried WHERE position = {copy}"], ("carried", "copy")),
        (1, ["UPDATE carried SET previous = zeroblob(32) WHERE position = {copy}"], ("carried", "copy")),
        (1, ["INSERT INTO event SELECT {copy} - 1, prev, recorded_us, when_us, op, checksum, key, meta, salt, digest, data FROM event"
             " WHERE position = {copy}"], ("carried", "seal")),
        (0, ["UPDATE event SET data = '{}' WHERE position = {copy}"], ("checksum", "copy")),
        (0, ["DELETE FROM event WHERE position = {seal}"], ("structure", None)),
        (0, ["INSERT INTO event SELECT {seal} + 1, prev, recorded_us, when_us, op, checksum, key, meta, salt, digest, data FROM event"
             " WHERE position = {seal}"], ("structure", None)),
    ],
)  # fmt: skip
def test_what_is_wrong_with_files_is_found(
    tmp_path: Path, number: int, statements: list[str], wanted: tuple[str, str | None] | None
) -> None:
    with eventstore.open(tmp_path / "data") as store:
        events = sealed_store(store, seals=2)
    seal = next(event.position for event in events if event.op == "seal")
    copy = folded(events, seal)["key-2"][0]
    found = damaged(tmp_path, number, *(each.replace("{copy}", str(copy)).replace("{seal}", str(seal)) for each in statements))
    if wanted is None:
        assert found == []
    else:
        assert (wanted[0], {"copy": copy, "seal": seal, None: None}[wanted[1]]) in found


@pytest.mark.corrupts
def test_a_log_that_lost_a_key_over_a_seal_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with eventstore.open(tmp_path / "data") as store:
        events = sealed_store(store, seals=1)
    seal = next(event.position for event in events if event.op == "seal")
    copy = folded(events, seal)["other"][0]
    statements = [f"DELETE FROM event WHERE position = {copy}", f"DELETE FROM carried WHERE position = {copy}"]
    assert ("carried", seal) in damaged(tmp_path, 1, *statements)
    shutil.rmtree(folder_of(tmp_path) / "pointers", ignore_errors=True)
    with eventstore.open(tmp_path / "data", read_only=True) as store:
        assert "other" not in store.domain(DOMAIN)
        assert "the file was altered" in caplog.text
    with eventstore.open(tmp_path / "data") as store, pytest.raises(eventstore.FormatError, match="the file was altered"):
        store.domain(DOMAIN)


@pytest.mark.corrupts
@pytest.mark.parametrize("number", [0, 1])
def test_a_copy_erased_beside_what_is_not_is_found(tmp_path: Path, number: int) -> None:
    with eventstore.open(tmp_path / "data") as store:
        events = sealed_store(store, seals=1)
    seal = next(event.position for event in events if event.op == "seal")
    copy = folded(events, seal)["other"][0]
    digest = eventstore.codec.erased(events[copy - 1]).digest or b""
    statement = f"UPDATE event SET data = NULL, salt = NULL, digest = x'{digest.hex()}' WHERE position = {copy}"
    assert ("carried", copy) in damaged(tmp_path, number, statement)


@pytest.mark.corrupts
def test_a_sealed_file_that_says_nothing_any_more_is_found_and_the_rest_goes_on(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as store:
        events = sealed_store(store, seals=2)
    assert damaged(tmp_path, 0, "DELETE FROM event")
    with eventstore.open(tmp_path / "data") as store:
        domain = store.domain(DOMAIN)
        assert states_of(domain) == folded(events, 10**9)
        with pytest.raises(eventstore.CorruptionError):
            list(domain.events())
        domain.write_value("key-0", "on")


@pytest.mark.corrupts
def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as store:
        sealed_store(store, seals=2)
    log_files(folder_of(tmp_path))[0].unlink()
    with eventstore.open(tmp_path / "data") as store:
        (finding,) = store.verify().findings
        assert finding.kind == "missing"
        assert store.verify().domains[0].floor == store.domain(DOMAIN).floor > 0


@pytest.mark.corrupts
def test_a_file_that_belongs_nowhere_is_named(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as store:
        sealed_store(store, seals=1)
    files = log_files(folder_of(tmp_path))
    shutil.copy2(files[1], files[1].with_name(f"{3:020d}.db"))
    with eventstore.open(tmp_path / "data", read_only=True) as store:
        assert [finding.kind for finding in store.verify().findings] == ["structure"]


def test_a_sealed_log_is_adopted_file_by_file(tmp_path: Path, open_store: Callable[..., Store]) -> None:
    with eventstore.open(tmp_path / "source") as source:
        events = sealed_store(source)
        birth = source.domain(DOMAIN).event(0)
        names = [path.name for path in log_files(tmp_path / "source" / "logs" / DOMAIN)]
        store_id = source.store_id
    store = open_store(store_id=store_id)
    store.adopt(DOMAIN, [birth, *events])
    assert list(store.domain(DOMAIN).events()) == events
    assert [path.name for path in log_files(folder_of(tmp_path))] == names


# What is left of it


@pytest.mark.parametrize("number", [0, 1, 2])
def test_files_without_their_headers_are_salvaged_as_they_were(tmp_path: Path, number: int) -> None:
    with eventstore.open(tmp_path / "data") as store:
        events = sealed_store(store, seals=2)
    file = log_files(folder_of(tmp_path))[number]
    file.write_bytes(b"x" * 100 + file.read_bytes()[100:])
    report = salvage(tmp_path / "data", tmp_path / "out")
    assert (report.is_whole, report.same) == (True, True)
    with eventstore.open(tmp_path / "out", read_only=True) as store:
        assert list(store.domain(DOMAIN).events()) == events
        assert store.verify().ok
    assert len(log_files(tmp_path / "out" / "logs" / DOMAIN)) == 3, "sealed where it was sealed"


@pytest.mark.corrupts
@pytest.mark.parametrize("number", [0, 1])
def test_what_a_lost_file_left_in_later_ones_is_proven_and_kept(tmp_path: Path, number: int) -> None:
    """Copies of one event are no fork, and the checksum before a carried one is carried, too."""
    with eventstore.open(tmp_path / "data") as store:
        events = sealed_store(store, seals=2)
        values = dict(store.domain(DOMAIN).items())
    files = log_files(folder_of(tmp_path))
    first, last = int(files[number].stem), int(files[number + 1].stem) - 1
    files[number].unlink()
    carried = {event.position for event in events if event.key == SYSTEM_KEY} | {
        max(event.position for event in events if event.key == key and event.position <= last) for key in {event.key for event in events}
    }
    (found,) = salvage(tmp_path / "data", tmp_path / "out").domains
    lost = [position for position in range(max(first, 1), last + 1) if position not in carried]
    assert (found.unproven.count, found.aside.count, found.birth) == (0, 0, "kept")
    assert (found.kept.count, found.lost.count) == (len(events) - len(lost), len(lost))
    with eventstore.open(tmp_path / "out") as store:
        assert dict(store.domain(DOMAIN).items()) == values
        store.seal(DOMAIN)
        assert store.verify().ok


# By several processes


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store of three files, each longer than a page of the walk."""
    path = tmp_path_factory.mktemp("long")
    with eventstore.open(path / "data", durability="process") as store:
        for number in range(3):
            domain = store.domain(DOMAIN)
            domain.write_values([(f"key-{at % 400}", {"n": at}) for at in range(1_299)], event_id=f"call-{number}")
            if number < 2:
                store.seal(DOMAIN)
    return path


def reports(path: Path, *processes: int) -> list[eventstore.Report]:
    with eventstore.open(path / "data", read_only=True) as store:
        return [store.verify(processes=each) for each in processes]


def test_several_processes_prove_several_files(long: Path, tmp_path: Path) -> None:
    alone, *shared = reports(long, 1, 2, 3)
    assert (alone.ok, alone.domains[0].events) == (True, 3 * 1_299 + 2)
    assert shared == [alone, alone]
    shutil.copytree(long / "data", tmp_path / "data")
    archive(tmp_path, 0)
    alone, several = reports(tmp_path, 1, 3)
    assert [finding.kind for finding in alone.findings] == ["missing"]
    assert (alone.domains[0].floor, alone.domains[0].events) == (1_300, 2 * 1_299 + 1)
    assert several == alone


@pytest.mark.parametrize(
    ("number", "statement", "wanted"),
    [
        (0, "UPDATE event SET data = '0' WHERE position = 1000", [("carried", 1_000), ("checksum", 1_000)]),
        pytest.param(0, "DELETE FROM event WHERE position > 1290", None, marks=pytest.mark.slow),
        pytest.param(1, "UPDATE event SET checksum = zeroblob(32) WHERE position = 1301", None, marks=pytest.mark.slow),
        pytest.param(2, "UPDATE event SET data = '0' WHERE position = 2601", None, marks=pytest.mark.slow),
        (2, "UPDATE event SET data = '0' WHERE position = 2602", [("checksum", 2_602)]),
    ],
)
def test_they_find_the_same(long: Path, tmp_path: Path, number: int, statement: str, wanted: list[tuple[str, int]] | None) -> None:
    shutil.copytree(long / "data", tmp_path / "data")
    found = damaged(tmp_path, number, statement)
    alone, shared = reports(tmp_path, 1, 2)
    assert found
    assert shared == alone
    if wanted is not None:
        assert found == wanted


def test_what_another_process_wrote_behind_its_seal_is_not_put_on_record_as_durable(tmp_path: Path) -> None:
    """It may have been written at `process`, and be on no disk: only the seal is known to be."""
    with eventstore.open(tmp_path / "data") as one, eventstore.open(tmp_path / "data") as other:
        one.domain("d").write_value("k", 1)
        other.domain("d")
        one.seal("d")
        one.domain("d").write_value("k", 2, durability="process")
        assert other.domain("d").write_value("k", 3, durability="process").position == 4
        assert manifest.load(tmp_path / "data").heads["d"].position == 2


def test_who_did_not_notice_a_seal_closes_the_log_where_it_ends_now(tmp_path: Path) -> None:
    """Neither a lost tail, nor a witness that says less than it said."""
    with eventstore.open(tmp_path / "data") as one:
        one.domain("d").write_value("k", 1)
        with eventstore.open(tmp_path / "data") as other:
            other.domain("d").write_value("k", 2)
            one.seal("d")
            head = one.domain("d").write_value("k", 3).position
        witness = (tmp_path / "data" / "logs" / "d" / "head").read_bytes()
        assert int.from_bytes(witness[:8], "big") == head
        assert manifest.load(tmp_path / "data").heads["d"].position == head
