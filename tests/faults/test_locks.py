"""Somebody else holds the lock: the answer is typed, names the holder, and costs nothing but time."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils.utils import sqlite3

import eventstore
from eventstore import UnavailableError, sqlite
from tests.faults import holders, jobs
from tests.faults.ledger import DOMAIN, Ledger
from tests.faults.stores import Damaged, events_of, leave
from tests.faults.workers import Server, Worker

SOON = 100
"""Milliseconds to wait for a lock that nobody will give back."""


@pytest.fixture(scope="module")
def template(clean_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    """A closed store."""
    return leave(clean_server, tmp_path_factory.mktemp("locks") / "store", settled=5, loose=0)


@pytest.fixture
def closed(template: Damaged, tmp_path: Path) -> Damaged:
    """A copy of it."""
    return template.copy(tmp_path / "store")


def a_transaction(server: Server, closed: Damaged) -> Worker:
    """Another program has begun to write. Others only read: they hold locks too, but not the one that is in the way."""

    def start(begin: str) -> Worker:
        return server.start(holders.hold_transaction, db=str(closed.db), begin=begin, query="SELECT max(position) FROM event")

    start("BEGIN").told()
    writer = start("BEGIN IMMEDIATE")
    start("BEGIN").told()
    return writer


def the_lock(server: Server, closed: Damaged) -> Worker:
    """One of us writes, and does not come to an end."""
    return server.start(holders.hold_lock, head=str(closed.head))


def holds(worker: Worker) -> int:
    """Wait until it holds what it is to hold; the pid that the error should name: there is no table of locks on every system."""
    worker.told()
    return worker.pid if Path("/proc/locks").exists() else 0


@pytest.mark.parametrize("held", [a_transaction, the_lock])
def test_a_write_names_who_holds_the_lock(server: Server, closed: Damaged, held: Callable[[Server, Damaged], Worker]) -> None:
    with eventstore.open(closed.folder, busy_timeout_ms=SOON) as store:
        domain = store.domain(DOMAIN)
        domain.write_value("before", 1, event_id="before")
        holder = held(server, closed)
        pid = holds(holder)
        for _ in range(2):
            with pytest.raises(UnavailableError) as caught:
                domain.write_value("while", 1, event_id="while")
            assert (caught.value.holder or 0, caught.value.outcome, caught.value.retryable) == (pid, "not_written", True)
            assert not pid or f"process {pid}" in str(caught.value)
        assert domain.read_value("before") == 1, "who waits to write can read"
        holder.kill()
        assert domain.write_value("while", 1, event_id="while").position == 7
        assert store.verify().ok


@pytest.mark.parametrize("read_only", [False, True])
def test_opening_names_who_holds_the_lock(server: Server, closed: Damaged, read_only: bool) -> None:
    holder = the_lock(server, closed)
    pid = holds(holder)
    with eventstore.open(closed.folder, busy_timeout_ms=SOON, read_only=read_only) as store:
        with pytest.raises(UnavailableError) as caught:
            store.domain(DOMAIN)
        assert (caught.value.holder or 0) == pid
        holder.kill()
        assert list(store.domain(DOMAIN).events()) == closed.events


def test_a_new_domain_needs_no_lock_but_its_own(server: Server, closed: Damaged) -> None:
    holds(the_lock(server, closed))
    with eventstore.open(closed.folder, busy_timeout_ms=SOON) as store:
        assert store.domain("quotes").write_value("key", 1).position == 1


def test_closing_waits_for_the_lock_and_can_be_tried_again(server: Server, closed: Damaged) -> None:
    store = eventstore.open(closed.folder, busy_timeout_ms=SOON)
    domain = store.domain(DOMAIN)
    domain.write_value("before", 1)
    holder = the_lock(server, closed)
    holds(holder)
    with pytest.raises(UnavailableError):
        store.close()
    holder.kill()
    store.close()
    assert not closed.wal.exists(), "the second attempt closed nothing"
    assert [event.key for event in events_of(closed.folder)][-1] == '["before"]'


def test_another_thread_that_does_not_come_to_an_end_is_named_too(closed: Damaged) -> None:
    with eventstore.open(closed.folder, busy_timeout_ms=SOON) as store:
        domain = store.domain(DOMAIN)
        held, enough = threading.Event(), threading.Event()

        def hold() -> None:
            with domain._live.log.writing():
                held.set()
                enough.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        with pytest.raises(UnavailableError) as caught:
            domain.write_value("while", 1)
        assert caught.value.holder == os.getpid()
        enough.set()
        thread.join()
        assert domain.write_value("after", 1).position == 6


def test_a_read_that_is_not_finished_never_stops_a_write(server: Server, closed: Damaged) -> None:
    """SQLite would answer SQLITE_BUSY_SNAPSHOT to a read transaction that others have overtaken and that wants to write."""
    with eventstore.open(closed.folder) as store:
        domain = store.domain(DOMAIN)
        events, items = domain.events(), domain.items()
        assert (next(events).position, next(items)[0]) == (1, "key-1")
        ledger = Ledger()
        writer = server.start(jobs.write_calls, folder=str(closed.folder), name="other")
        writer.told()
        for number in range(20):
            ledger.take(writer.told())
            domain.write_value(f"own-{number}", number)
        writer.kill()
        assert [event.position for event in events] == [2, 3, 4, 5]
        assert store.verify().ok


def test_nobody_writes_between_the_head_that_a_write_asks_for_and_its_first_row(closed: Damaged) -> None:
    """In a transaction that began as a reader's another program could, and the write would end in SQLITE_BUSY_SNAPSHOT (R10)."""
    met: list[str] = []

    def come_between(statement: str) -> None:
        if statement.startswith("INSERT"):
            try:
                other.execute("PRAGMA user_version=7")
                met.append("nobody")
            except sqlite3.OperationalError as error:
                met.append(str(error))

    with eventstore.open(closed.folder) as store, closing(sqlite3.connect(closed.db, timeout=0, isolation_level=None)) as other:
        domain = store.domain(DOMAIN)
        writer_of(domain).set_trace_callback(come_between)
        assert domain.write_value("key", 1).position == 6
        assert set(met) == {"database is locked"}
        assert store.verify().ok


def test_a_reader_that_stays_only_puts_the_checkpoint_off(server: Server, closed: Damaged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "CHECKPOINT_PAGES", 10)
    reader = server.start(holders.hold_transaction, db=str(closed.db), begin="BEGIN", query="SELECT max(position) FROM event")
    with eventstore.open(closed.folder) as store:
        domain = store.domain(DOMAIN)
        domain.write_value("before", 1)
        holds(reader)
        for number in range(30):
            domain.write_value(f"key-{number}", number, durability="process")
        held = closed.wal.stat().st_size
        reader.kill()
        for number in range(30):
            domain.write_value(f"key-{number}", number, durability="process")
        assert closed.wal.stat().st_size <= held + 2 * 8_216, "the checkpoint was not made up for"
        assert store.verify().ok
    assert not closed.wal.exists()


def test_checkpoints_are_never_passive_and_always_under_the_lock(closed: Damaged, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own, and any that does not wait for writers, may meet the WAL-reset bug of the versions most systems have."""
    monkeypatch.setattr(sqlite, "CHECKPOINT_PAGES", 10)
    seen: list[tuple[str, bool]] = []

    def note(statement: str) -> None:
        if "checkpoint" in statement:
            seen.append((statement, is_locked(closed.head)))

    with eventstore.open(closed.folder) as store:
        domain = store.domain(DOMAIN)
        writer_of(domain).set_trace_callback(note)
        (automatic,) = writer_of(domain).execute("PRAGMA wal_autocheckpoint").fetchone()
        for number in range(30):
            domain.write_value(f"key-{number}", number, durability="process")
    seen = [one for one in seen if "autocheckpoint" not in one[0]]
    assert automatic == 0
    assert len(seen) >= 3
    assert set(seen) == {("PRAGMA wal_checkpoint(RESTART)", True), ("PRAGMA wal_checkpoint(TRUNCATE)", True)}


def writer_of(domain: eventstore.DomainStore) -> sqlite3.Connection:
    """The connection that a domain is written through."""
    log = domain._live.log
    assert isinstance(log, sqlite.SqliteLog)
    return log._file.writer


def is_locked(head: Path) -> bool:
    """Whether somebody holds the lock of the domain."""
    descriptor = os.open(head, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
