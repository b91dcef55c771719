"""Another program, or another SQLite, at the files of an open store: what it does is survived, or noticed, and by whom."""

from __future__ import annotations

import importlib.util
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import eventstore
from eventstore import ChecksumError, EventStoreError, FencedError, FormatError, TailLostError, UnavailableError
from eventstore.tools.doctor import doctor
from tests.faults import holders, jobs
from tests.faults.ledger import DOMAIN, Ledger, acknowledgement, carry_out
from tests.faults.stores import Damaged, contents, events_of, leave
from tests.faults.workers import ROOT, Server

pytestmark = pytest.mark.corrupts


@pytest.fixture(scope="module")
def template(clean_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    """A closed store."""
    return leave(clean_server, tmp_path_factory.mktemp("beside") / "store", settled=5, loose=0)


@pytest.fixture
def closed(template: Damaged, tmp_path: Path) -> Damaged:
    """A copy of it."""
    return template.copy(tmp_path / "store")


def edit(db: Path, *statements: str) -> None:
    """Change a database as another program would, in a process of its own."""
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); [c.execute(s) for s in sys.argv[2:]]; c.close()"
    subprocess.run([sys.executable, "-c", code, str(db), *statements], check=True, timeout=60, capture_output=True, text=True)


# Checkpoints


@pytest.mark.parametrize("mode", ["PASSIVE", "TRUNCATE"])
def test_a_checkpointer_beside_two_writers_loses_nothing(server: Server, closed: Damaged, tmp_path: Path, seed: str, mode: str) -> None:
    """We forbid it, as most systems' SQLite has the WAL-reset bug; outside that race it must do no harm."""
    folder = tmp_path / "new"
    ledger = Ledger()
    writers = [server.start(jobs.write_calls, folder=str(folder), name=f"{seed}-{number}") for number in range(2)]
    for writer in writers:
        writer.told()
    (db,) = folder.glob("logs/*/*.db")
    checkpointer = server.start(holders.checkpoint_without_end, db=str(db), mode=mode)
    rounds, copied = 0, 0
    # A TRUNCATE that copied everything says that nothing is left; a PASSIVE one says how many pages it copied.
    while rounds < 100 or (copied == 0 and mode == "PASSIVE"):
        for writer in writers:
            ledger.take(writer.told())
        for said in checkpointer.heard():
            copied += said["copied"]
        rounds += 1
    for worker in (*writers, checkpointer):
        worker.kill()
    for writer in writers:
        for said in writer.rest():
            ledger.take(said)
    ledger.require_kept(folder)
    ledger.require_second_opinion(folder)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_doctor_names_who_else_has_the_files_open(server: Server, closed: Damaged) -> None:
    holder = server.start(holders.hold_transaction, db=str(closed.db), begin="BEGIN", query="SELECT max(position) FROM event")
    holder.told()
    found = {check.name: check for check in doctor(str(closed.folder)).checks}
    assert f"(pid {holder.pid})" in found["open in"].message


# Rows

APPEND = """INSERT INTO event SELECT position + 1, prev, recorded_us + 1, when_us, op, checksum, key, meta, salt, digest, data
 FROM event ORDER BY position DESC LIMIT 1"""
ALTER = ("DROP TRIGGER event_update", """UPDATE event SET data = '{"number":3000}' WHERE position = 3""")
DELETE_THE_LAST = ("DROP TRIGGER event_delete", "DELETE FROM event WHERE position = (SELECT max(position) FROM event)")


def test_a_row_appended_by_another_program_stops_the_next_write(closed: Damaged) -> None:
    store = eventstore.open(closed.folder)
    domain = store.domain(DOMAIN)
    edit(closed.db, APPEND)
    with pytest.raises(ChecksumError, match=f"{DOMAIN}@6"):
        domain.write_value("key", 1)
    with pytest.raises(EventStoreError, match=f"{DOMAIN}@6"):
        domain.write_value("key", 1)
    assert list((closed.folder / "quarantine").iterdir()), "no evidence was kept"
    store.close()
    with eventstore.open(closed.folder) as store, pytest.raises(ChecksumError, match=f"{DOMAIN}@6"):
        store.domain(DOMAIN)
    with eventstore.open(closed.folder, read_only=True) as store:
        assert {finding.position for finding in store.verify().findings} == {6}


def test_a_row_altered_under_an_open_store_is_named_by_verify_and_by_the_next_opening(closed: Damaged) -> None:
    """A write asserts the last event, not those before it: reading all of them for each would take for ever."""
    with eventstore.open(closed.folder) as store:
        domain = store.domain(DOMAIN)
        edit(closed.db, *ALTER)
        assert domain.write_value("key", 1).position == 6
        assert [(finding.position, finding.kind) for finding in store.verify().findings] == [(3, "checksum")]
        with pytest.raises(ChecksumError, match=f"{DOMAIN}@3"):
            list(domain.events())
    with eventstore.open(closed.folder) as store, pytest.raises(ChecksumError, match=f"{DOMAIN}@3"):
        store.domain(DOMAIN)


def test_a_value_altered_under_an_open_store_is_never_handed_out(closed: Damaged) -> None:
    with eventstore.open(closed.folder, cache_bytes=0) as store:
        domain = store.domain(DOMAIN)
        edit(closed.db, "DROP TRIGGER event_update", """UPDATE event SET data = '{"number":5000}' WHERE position = 5""")
        with pytest.raises(ChecksumError, match=f"{DOMAIN}@5"):
            domain.read_value("key-5")
        assert domain.read_value("key-2") == {"number": 2}


def test_an_event_deleted_under_an_open_store_is_missed_and_closing_makes_no_new_truth_of_it(closed: Damaged) -> None:
    store = eventstore.open(closed.folder)
    domain = store.domain(DOMAIN)
    domain.write_value("key", 1)
    edit(closed.db, *DELETE_THE_LAST)
    with pytest.raises(FencedError, match="the last in position 6"):
        domain.write_value("key", 2)
    witness = closed.head.read_bytes()[:48]
    with pytest.raises(TailLostError, match="positions 6 to 6 are missing") as caught:
        store.close()
    store.close()
    assert (caught.value.witnessed, caught.value.found) == (6, 5)
    assert closed.head.read_bytes()[:48] == witness, "the record of what was acknowledged was taken back"
    with eventstore.open(closed.folder) as store, pytest.raises(TailLostError, match="positions 6 to 6 are missing"):
        store.domain(DOMAIN)
    with eventstore.open(closed.folder, accept_loss=True) as store:
        assert [event.op for event in store.domain(DOMAIN).events()][5:] == ["loss"]
        assert store.verify().ok


def test_a_lost_position_is_not_given_away_again_by_who_had_not_yet_seen_it(closed: Damaged) -> None:
    """Two handles: one acknowledged position 6, it was deleted, the other one knows only 5."""
    one, other = eventstore.open(closed.folder), eventstore.open(closed.folder)
    mine, theirs = one.domain(DOMAIN), other.domain(DOMAIN)
    mine.write_value("key", 1)
    edit(closed.db, *DELETE_THE_LAST)
    with pytest.raises(TailLostError, match="positions 6 to 6 are missing"):
        theirs.write_value("key", 2)
    for store in (other, one):
        with pytest.raises(TailLostError):
            store.close()
    assert [event.position for event in events_of(closed.folder)] == [1, 2, 3, 4, 5]


def test_the_journal_cannot_be_changed_under_an_open_store_and_is_missed_in_a_closed_one(closed: Damaged) -> None:
    change = "PRAGMA journal_mode=DELETE"
    with eventstore.open(closed.folder) as store:
        domain = store.domain(DOMAIN)
        with pytest.raises(subprocess.CalledProcessError) as caught:
            edit(closed.db, change)
        assert "locked" in caught.value.stderr
        assert domain.write_value("key", 1).position == 6
    edit(closed.db, change)
    before = contents(closed.folder)
    with eventstore.open(closed.folder) as store, pytest.raises(FormatError, match="journal mode 'delete' instead of WAL"):
        store.domain(DOMAIN)
    assert contents(closed.folder) == before
    edit(closed.db, "PRAGMA journal_mode=WAL")
    with eventstore.open(closed.folder) as store:
        assert store.domain(DOMAIN).head().position == 6


# Two SQLite libraries in one process. Where the one closes a file, the other's POSIX locks are gone (RELIABILITY.md R4)

needs_maps = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc to find the system's SQLite")


@needs_maps
def test_locks_dropped_by_a_second_library_lose_nothing_that_was_acknowledged(server: Server, closed: Damaged, tmp_path: Path) -> None:
    (folder := tmp_path / "new").mkdir()
    db = folder / closed.db.relative_to(closed.folder)
    ledger = Ledger()
    victim = server.start(holders.lose_locks, folder=str(folder), db=str(db), scratch=str(tmp_path), inside_a_write=False)
    while "dropped" not in (said := victim.told()):
        ledger.take(said)
    with eventstore.open(folder) as store:
        ledger.take(acknowledgement("other", carry_out(store.domain(DOMAIN), "other")))
    assert not db.with_name(db.name + "-wal").exists(), "its locks still hold: nothing was tried"
    found = {check.name: check for check in doctor(str(folder)).checks}
    assert found["open in"].status == "warn"
    assert re.search(rf"\(pid {victim.pid}\) holds [23] SQLite libraries .*{tmp_path}", found["open in"].message)
    victim.signal(signal.SIGUSR1)
    told = victim.rest()
    assert told[-1] == {"over": True}
    errors = [said["error"] for said in told if "error" in said]
    assert (errors[0], set(errors[1:])) == ("FencedError", {"HaltedError"}), "it wrote on into a file that is gone"
    for said in told:
        ledger.take(said)
    ledger.require_kept(folder)


@needs_maps
def test_locks_dropped_in_the_middle_of_a_write_let_no_second_writer_in(server: Server, closed: Damaged, tmp_path: Path) -> None:
    (folder := tmp_path / "new").mkdir()
    db = folder / closed.db.relative_to(closed.folder)
    ledger = Ledger()
    victim = server.start(holders.lose_locks, folder=str(folder), db=str(db), scratch=str(tmp_path), inside_a_write=True)
    while "dropped" not in (said := victim.told()):
        ledger.take(said)
    with eventstore.open(folder, busy_timeout_ms=100) as store:
        with pytest.raises(UnavailableError) as caught:
            store.domain(DOMAIN)
        assert caught.value.holder == victim.pid
    victim.signal(signal.SIGUSR1)
    for said in victim.rest():
        ledger.take(said)
    ledger.require_kept(folder)


BOTH = """
import os
import eventstore  # takes pysqlite3, where it is installed
from eventstore.tools import machine
from eventstore.tools.doctor import doctor
from sqlite_utils.utils import sqlite3 as ours
import pysqlite3, sqlite3
sqlite3.connect(":memory:").execute("SELECT 1")
assert ours.__name__.startswith("pysqlite3") and pysqlite3.sqlite_version != sqlite3.sqlite_version, ours
print(machine.has_two_libraries(os.getpid()), [check.status for check in doctor(None).checks if check.name == "bindings"])
"""


@pytest.mark.skipif(importlib.util.find_spec("pysqlite3") is None, reason="needs the extra `sqlite`; .ci/run installs it for this file")
def test_the_two_bindings_that_the_extra_loads_are_nothing_to_warn_of() -> None:
    done = subprocess.run([sys.executable, "-c", BOTH], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False []"
