"""A store that cannot record: says so once, writes nothing more, can be read, and writes again when the cause is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

import eventstore
from eventstore import (
    AccessError,
    ConfigError,
    CorruptionError,
    DiskFullError,
    DomainStore,
    EngineError,
    Event,
    FencedError,
    HaltedError,
    ReadOnlyError,
    Receipt,
    Store,
    WrongExpectedError,
    sqlite,
)
from eventstore.codec import encode_key
from eventstore.commit import Call
from eventstore.rules import Intent
from tests.eventstore.crew import PATIENCE, Crew, Transactions
from tests.faults.workers import ROOT

NEVER = 2**52
"""More bytes than any disk of these tests has left."""


class Alarm:
    """An on_halt that notes what it was told."""

    def __init__(self) -> None:
        self.told: list[HaltedError] = []

    def __call__(self, error: HaltedError) -> None:
        self.told.append(error)

    @property
    def causes(self) -> list[type]:
        """Why, each time."""
        return [type(error.__cause__) for error in self.told]


@pytest.fixture
def alarm() -> Alarm:
    return Alarm()


def outside(program: str, *arguments: object) -> None:
    """Run a program in another process, which knows nothing of our open files."""
    subprocess.run([sys.executable, "-c", program, *map(str, arguments)], cwd=ROOT, check=True, timeout=60)


# No space


def test_below_min_free_bytes_nothing_is_written_and_everything_can_be_read(tmp_path: Path, alarm: Alarm) -> None:
    with eventstore.open(tmp_path / "data") as store:
        store.domain("d").write_value("k", 1)
        store.domain("other").write_value("k", 2)
    with eventstore.open(tmp_path / "data", min_free_bytes=NEVER, on_halt=alarm) as store:
        domain, other = store.domain("d"), store.domain("other")
        with pytest.raises(DiskFullError, match="min_free_bytes") as full:
            domain.write_value("k", 3, event_id="first")
        assert (full.value.outcome, full.value.event_id) == ("not_written", "first")
        attempts: list[Callable[[], Receipt]] = [
            lambda: domain.write_value("k", 3, event_id="next"),
            lambda: other.write_value("k", 3, event_id="next"),
            lambda: other.update_value("k", lambda value: value + 1, event_id="next"),
        ]
        for refused in attempts:
            with pytest.raises(HaltedError, match="resume") as halted:
                refused()
            assert (halted.value.outcome, halted.value.event_id) == ("not_written", "next")
            assert isinstance(halted.value.__cause__, DiskFullError)
        with pytest.raises(HaltedError):
            store.domain("new")
        assert store.domains() == ["d", "other"]
        assert alarm.causes == [DiskFullError]
        assert isinstance(store.halted, DiskFullError)
        assert (domain.read_value("k"), other.read_value("k")) == (1, 2)
        assert [event.position for event in domain.events()] == [1]
        with pytest.raises(DiskFullError):
            store.resume()
        with pytest.raises(HaltedError):
            domain.write_value("k", 3)
        assert alarm.causes == [DiskFullError], "it is the same halt"
        assert domain.read_value("k") == 1
        assert store.verify().ok


def test_once_there_is_space_resume_writes_on(mounted: Callable[..., Path], alarm: Alarm) -> None:
    disk = mounted("-t", "tmpfs", "-o", "size=8m", "tmpfs")
    with eventstore.open(disk / "store", min_free_bytes=4 * 2**20, on_halt=alarm) as store:
        domain = store.domain("d")
        domain.write_value("k", 0)
        for halts in (1, 2):
            (disk / "ballast").write_bytes(bytes(5 * 2**20))
            with pytest.raises(DiskFullError):
                domain.write_value("k", halts, event_id=f"id-{halts}")
            with pytest.raises(DiskFullError):
                store.resume()
            (disk / "ballast").unlink()
            with pytest.raises(HaltedError):
                domain.write_value("k", halts)  # not before somebody has looked
            store.resume()
            assert store.halted is None
            assert domain.write_value("k", halts, event_id=f"id-{halts}").position == 1 + halts
            assert len(alarm.told) == halts
        assert store.verify().ok


def test_who_waited_behind_the_failure_is_refused_too(store: Store) -> None:
    """What they write might fit; but nobody looked yet whether the cause is gone."""
    transactions = Transactions(store.domain("d"))
    domain = transactions.domain
    outcomes: list[Any] = []
    log: Any = domain.group.live.log
    free = log._head_file.free_bytes
    answers = iter([0])
    log._head_file.free_bytes = lambda: next(answers, free())  # full for a moment
    outcomes = transactions.together(lambda: domain.write_value("a", 1, event_id="a"), lambda: domain.write_value("b", 2))
    assert [type(outcome) for outcome in outcomes] == [HaltedError, HaltedError]
    assert outcomes[0].event_id == "a"
    assert transactions.sizes == []
    assert domain.head().position == 0


# on_halt


def test_an_alarm_that_fails_does_not_hide_why(tmp_path: Path) -> None:
    def fail(error: HaltedError) -> None:
        raise OSError("no mail today")

    with eventstore.open(tmp_path / "data", min_free_bytes=NEVER, on_halt=fail) as store:
        domain = store.domain("d")
        with pytest.raises(DiskFullError):
            domain.write_value("k", 1)
        with pytest.raises(HaltedError):
            domain.write_value("k", 1)


def test_an_alarm_that_ends_the_program_ends_it(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data", min_free_bytes=NEVER, on_halt=lambda error: sys.exit(3)) as store:
        domain = store.domain("d")
        with pytest.raises(SystemExit):
            domain.write_value("k", 1)
        with pytest.raises(HaltedError):
            domain.write_value("k", 1)


def test_what_a_caller_is_told_is_not_logged_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with eventstore.open(tmp_path / "data", min_free_bytes=NEVER) as store:
        with pytest.raises(DiskFullError):
            store.domain("d").write_value("k", 1)
        with pytest.raises(HaltedError):
            store.domain("d").write_value("k", 1)
    assert caplog.records == []


def test_a_failure_that_meets_nobody_who_waits_is_logged(tmp_path: Path, alarm: Alarm, caplog: pytest.LogCaptureFixture) -> None:
    """A thread of an event loop's store leads for tasks that may have been cancelled by then."""
    with eventstore.open(tmp_path / "data", on_halt=alarm) as store:
        group = store.domain("d").group
        head = tmp_path / "data" / "logs" / "d" / "head"
        head.rename(tmp_path / "elsewhere")
        assert group.lead(wait=True)
        group.tell()
        assert alarm.causes == [FencedError]
        assert [record.getMessage() for record in caplog.records] == [str(store.halted)]
        (tmp_path / "elsewhere").rename(head)


def test_an_alarm_may_use_the_store(tmp_path: Path) -> None:
    seen: list[Any] = []

    def look(error: HaltedError) -> None:
        seen.append(domain.get("k", "nothing"))
        try:
            domain.write_value("k", "from the alarm")
        except HaltedError as refused:
            seen.append(type(refused.__cause__))
        try:
            store.resume()
        except DiskFullError as full:
            seen.append(type(full))
        store.close()

    with eventstore.open(tmp_path / "data", min_free_bytes=NEVER, on_halt=look) as store:
        domain = store.domain("d")
        with pytest.raises(DiskFullError):
            domain.write_value("k", 1)
        assert seen == ["nothing", DiskFullError, DiskFullError]
        with pytest.raises((eventstore.ClosedError, HaltedError)):
            domain.write_value("k", 1)


def test_a_store_opened_to_be_read_has_nothing_to_stop(tmp_path: Path, alarm: Alarm) -> None:
    with eventstore.open(tmp_path / "data") as store:
        store.domain("d").write_value("k", 1)
    with eventstore.open(tmp_path / "data", read_only=True, on_halt=alarm) as store:
        for number in range(2):
            with pytest.raises(ReadOnlyError) as refused:
                store.domain("d").write_value("k", number, event_id="id")
            assert (refused.value.outcome, refused.value.event_id) == ("not_written", "id")
        assert (store.halted, alarm.told) == (None, [])


# The files


@pytest.mark.parametrize("name", ["head", "00000000000000000000.db", "00000000000000000000.db-wal", "the folder"])
def test_files_taken_away_stop_the_writing_until_they_are_back(tmp_path: Path, alarm: Alarm, name: str) -> None:
    with eventstore.open(tmp_path / "data", on_halt=alarm) as store:
        domain = store.domain("d")
        domain.write_value("k", 1)
        folder = tmp_path / "data" / "logs" / "d"
        file = folder if name == "the folder" else folder / name
        file.rename(tmp_path / "elsewhere")
        file.write_bytes(b"")
        with pytest.raises(FencedError) as fenced:
            domain.write_value("k", 2, event_id="id")
        assert (fenced.value.outcome, fenced.value.event_id) == ("not_written", "id")
        assert domain.read_value("k") == 1
        file.unlink()
        (tmp_path / "elsewhere").rename(file)
        with pytest.raises(HaltedError):
            domain.write_value("k", 2, event_id="id")
        store.resume()
        assert domain.write_value("k", 2, event_id="id").position == 2
        assert alarm.causes == [FencedError]
        assert store.verify().ok


def test_what_nobody_foresaw_is_an_engine_error_and_stops_the_writing(tmp_path: Path, alarm: Alarm) -> None:
    with eventstore.open(tmp_path / "data", on_halt=alarm) as store:
        domain = store.domain("d")
        domain.write_value("k", 1)
        folder = tmp_path / "data" / "logs" / "d"
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(folder)  # no path leads anywhere: ELOOP
        with pytest.raises(EngineError) as failed:
            domain.write_value("k", 2, event_id="id")
        assert (failed.value.event_id, isinstance(failed.value.__cause__, OSError)) == ("id", True)
        with pytest.raises(HaltedError):
            domain.write_value("k", 2, event_id="id")
        with pytest.raises(EngineError):
            store.resume()
        folder.unlink()
        (tmp_path / "elsewhere").rename(folder)
        store.resume()
        assert domain.write_value("k", 2, event_id="id").position == 2
        assert alarm.causes == [AccessError]


# A disk that fails


def descriptors(file: Path) -> list[int]:
    """The numbers under which this process has a file open, rising."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            if Path(os.readlink(f"/proc/self/fd/{number}")) == file:
                found.append(int(number))
        except FileNotFoundError:
            continue
    return sorted(found)


def replace_descriptor(number: int, path: str, flags: int) -> None:
    """Let an open descriptor lead somewhere else."""
    other = os.open(path, flags)
    os.dup2(other, number, inheritable=False)
    os.close(other)


def lose_what_is_written(folder: Path) -> int:
    """A disk that takes every write of the log's writer, loses it, and says so at the fsync, as /dev/null does (EINVAL)."""
    writer = descriptors(folder / f"{0:020d}.db-wal")[-1]
    replace_descriptor(writer, os.devnull, os.O_RDWR)
    return writer


def test_after_a_failed_fsync_the_connection_is_never_used_again(tmp_path: Path, alarm: Alarm) -> None:
    with eventstore.open(tmp_path / "data", on_halt=alarm) as store:
        domain = store.domain("d")
        domain.write_value("k", 1)
        folder = (tmp_path / "data" / "logs" / "d").resolve()
        opened = {name: len(descriptors(folder / name)) for name in ("head", f"{0:020d}.db-wal")}
        failing = lose_what_is_written(folder)
        with pytest.raises(EngineError) as failed:
            domain.write_value("k", 2, event_id="id")
        assert (failed.value.outcome, failed.value.event_id) == ("unknown", "id")
        assert domain.read_value("k") == 1
        for _ in range(2):
            with pytest.raises(HaltedError):
                domain.write_value("k", 3)
        assert failing in descriptors(Path(os.devnull)), "it is open until resume()"
        store.resume()
        assert failing not in descriptors(Path(os.devnull))
        receipt = domain.write_value("k", 2, event_id="id")
        assert domain.read_value("k") == 2
        # Not the database: SQLite keeps what it closed, as POSIX locks would go with it, until its last connection is closed.
        assert {name: len(descriptors(folder / name)) for name in opened} == opened, "the old ones are closed, all of them"
        assert domain.write_value("k", 2, event_id="id") == receipt
        assert [event.data for event in domain.events()] == ["1", "2"]
        assert alarm.causes == [EngineError]
    with eventstore.open(tmp_path / "data") as store:
        assert store.domain("d").read_value("k") == 2
        assert store.verify().ok


def test_an_event_whose_record_failed_is_found_by_its_event_id(tmp_path: Path, alarm: Alarm) -> None:
    """Committed, but not on record as durable: nobody may be told that it is, and nothing may be written twice."""
    with eventstore.open(tmp_path / "data", on_halt=alarm) as store:
        domain = store.domain("d")
        domain.write_value("k", 1)
        head = (tmp_path / "data" / "logs" / "d" / "head").resolve()
        replace_descriptor(descriptors(head)[0], str(head), os.O_RDONLY)  # the other one belongs to the mapping
        with pytest.raises(EngineError) as failed:
            domain.write_values([("k", 2), ("l", 2)], event_id="id")
        assert (failed.value.outcome, failed.value.event_id) == ("unknown", "id")
        with pytest.raises(HaltedError):
            domain.write_values([("k", 2), ("l", 2)], event_id="id")
        store.resume()
        receipts: list[Receipt] = domain.write_values([("k", 2), ("l", 2)], event_id="id")
        assert [receipt.position for receipt in receipts] == [2, 3]
        assert domain.head().position == 3
        assert alarm.causes == [EngineError]
        assert store.verify().ok


def test_a_checkpoint_that_fails_costs_no_receipt_and_stops_the_next_write(
    tmp_path: Path, alarm: Alarm, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log stops by itself, beneath the store: it must be said all the same, and to the other domains."""
    with eventstore.open(tmp_path / "data", on_halt=alarm) as store:
        domain, other = store.domain("d"), store.domain("other")
        domain.write_value("k", 1)
        database = (tmp_path / "data" / "logs" / "d" / f"{0:020d}.db").resolve()
        replace_descriptor(descriptors(database)[-1], os.devnull, os.O_RDWR)
        monkeypatch.setattr(sqlite, "CHECKPOINT_PAGES", 1)
        assert domain.write_value("k", 2).position == 2
        assert "the checkpoint failed" in caplog.text
        for each in (domain, other):
            with pytest.raises(HaltedError) as halted:
                each.write_value("k", 3, event_id="id")
            assert (halted.value.outcome, halted.value.event_id) == ("not_written", "id")
        assert len(alarm.told) == 1
        assert domain.read_value("k") == 2
        monkeypatch.undo()
        store.resume()
        assert domain.write_value("k", 3, event_id="id").position == 3
        assert store.verify().ok


def test_readers_go_on_while_a_store_resumes(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data", cache_bytes=0) as store:
        domain = store.domain("d")
        domain.write_values([(f"k{number}", number) for number in range(100)])
        enough, rounds = threading.Event(), threading.Semaphore(0)

        def read() -> None:
            while not enough.is_set():
                assert len(list(domain.events())) == 100
                assert domain.read_value("k7") == 7
                assert len(list(domain.items())) == 100
                rounds.release()

        crew = Crew()
        for _ in range(3):
            crew.start(read)
        for _ in range(20):
            store.resume()
            assert rounds.acquire(timeout=PATIENCE), "nobody reads"
        enough.set()
        crew.results()


async def coroutine(_: object) -> None:
    """A hook that nobody would await."""


@pytest.mark.parametrize("hook", ["on_halt", "on_commit"])
@pytest.mark.parametrize("wrong", [5, "alarm", coroutine])
def test_a_hook_that_could_never_be_called_is_refused_at_once(tmp_path: Path, hook: str, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=hook):
        eventstore.open(tmp_path / "data", **{hook: wrong})
    assert not (tmp_path / "data").exists()


def meeting_a_resume(store: Store, domain: DomainStore, call: Call) -> Any:
    """What `call` is answered with, if it is decided while resume() folds the log anew."""
    live, crew = domain.group.live, Crew()
    resume, read, append = live.log.resume, live.log.read, live.log.append
    deciding, folding, decided = threading.Event(), threading.Event(), threading.Event()
    resuming = threading.current_thread()

    def decide(_: object) -> Sequence[Intent]:
        deciding.set()
        assert folding.wait(PATIENCE), "nobody folds"
        assert isinstance(call.intents, Sequence)
        return call.intents

    def resumed() -> None:
        resume()
        crew.start(lambda: domain.group.commit(msgspec.structs.replace(call, intents=decide)))
        assert deciding.wait(PATIENCE), "nobody decides"

    def noted_read(*args: Any, **options: Any) -> Iterator[Event]:
        if threading.current_thread() is resuming and not folding.is_set():
            folding.set()
            assert decided.wait(PATIENCE), "the write waits for the folding"
        return read(*args, **options)

    def noted_append(*args: Any, **options: Any) -> None:
        decided.set()
        append(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        for name, verb in (("resume", resumed), ("read", noted_read), ("append", noted_append)):
            patch.setattr(live.log, name, verb)
        store.resume()
        return crew.outcomes()[0]


def test_a_write_that_is_decided_while_a_store_resumes_sees_every_key_and_event_id(tmp_path: Path) -> None:
    intent = Intent("put", encode_key("k"), "1", None)
    with eventstore.open(tmp_path / "data") as store:
        domain = store.domain("d")
        once = Call([intent], "id", "power", request="the one")
        (first,) = domain.group.commit(once)
        assert meeting_a_resume(store, domain, once) == [first]
        fresh = msgspec.structs.replace(intent, expected=eventstore.ABSENT)
        assert isinstance(meeting_a_resume(store, domain, Call([fresh], None, "power")), WrongExpectedError)
        (second,) = meeting_a_resume(store, domain, Call([intent], None, "power"))
        assert [event.position for event in domain.history("k")] == [second.position, first.position]
        assert store.verify().ok


# Another writer's damage

WRITE = """
import sys, eventstore
with eventstore.open(sys.argv[1]) as store:
    for number in range(3):
        store.domain("d").write_value("k", number)
"""
EDIT = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1], isolation_level=None) as connection:
    trigger = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'event_update'").fetchone()[0]
    connection.execute("DROP TRIGGER event_update")
    connection.execute("UPDATE event SET data = ? WHERE position = ?", (sys.argv[2], int(sys.argv[3])))
    connection.execute(trigger)
"""


def damaged_by_another(folder: Path, position: int) -> str:
    """Another process writes three events, and a tool alters one; what it was."""
    outside(WRITE, folder)
    outside(EDIT, folder / "logs" / "d" / f"{0:020d}.db", '"forged"', position)
    return "012"[position - 3]


@pytest.mark.corrupts
@pytest.mark.parametrize("first", ["a write", "a read"])
def test_another_writers_damage_stops_the_writing_until_it_is_mended(tmp_path: Path, alarm: Alarm, first: str) -> None:
    with eventstore.open(tmp_path / "data", on_halt=alarm) as store:
        domain, other = store.domain("d"), store.domain("other")
        domain.write_value("mine", 1)
        domain.write_value("mine", 2)
        was = damaged_by_another(tmp_path / "data", 4)
        with pytest.raises(CorruptionError) as damage:
            domain.head() if first == "a read" else domain.write_value("k", 9, event_id="id")
        assert damage.value.position == 4
        for each in (domain, other):
            with pytest.raises(HaltedError):
                each.write_value("k", 9, event_id="id")
        assert [issubclass(cause, CorruptionError) for cause in alarm.causes] == [True]
        require_readable(domain)
        for _ in range(2):
            with pytest.raises(CorruptionError):
                store.resume()
            with pytest.raises(HaltedError):
                domain.write_value("k", 9, event_id="id")
            require_readable(domain)
        assert len(alarm.told) == 1
        outside(EDIT, tmp_path / "data" / "logs" / "d" / f"{0:020d}.db", was, 4)
        store.resume()
        assert domain.read_value("k") == 2
        assert domain.write_value("k", 9, event_id="id").position == 6
        assert store.verify().ok


@pytest.mark.corrupts
@pytest.mark.parametrize("callers", ["one", "many"])
def test_damage_met_while_one_call_is_decided_stops_the_writing(tmp_path: Path, alarm: Alarm, callers: str) -> None:
    """The value that stands is read back, as it may be what is to be written; it is not what was written."""
    with eventstore.open(tmp_path / "data", cache_bytes=0, on_halt=alarm) as store:
        domain, other = store.domain("d"), store.domain("other")
        for number in range(3):
            domain.write_value(f"k{number}", number)
        outside(EDIT, tmp_path / "data" / "logs" / "d" / f"{0:020d}.db", '"forged"', 2)

        def meet() -> Receipt:
            return domain.write_value("k1", 1, unchanged="skip")

        if callers == "one":
            with pytest.raises(CorruptionError) as damage:
                meet()
            met: Any = damage.value
        else:
            before, met, after = Transactions(domain).together(
                lambda: domain.write_value("before", 1), meet, lambda: domain.write_value("after", 1)
            )
            assert [before.position, after.position] == [5, 6], "they share its transaction, not its error"
        assert (type(met), met.position) == (eventstore.ChecksumError, 2)
        assert alarm.causes == [eventstore.ChecksumError]
        for each in (domain, other):
            with pytest.raises(HaltedError):
                each.write_value("k", 9)
        assert domain.read_value("k0") == 0


def require_readable(domain: DomainStore) -> None:
    """What was known before the damage still is."""
    assert domain.read_value("mine") == 2
    assert dict(domain.items())["mine"] == 2
    assert domain.state(as_of=2).read_value("mine") == 2
    assert [event.data for event in domain.events(until=2)] == ["1", "2"]
    assert [event.data for event in domain.history("mine")] == ["2", "1"]


@pytest.mark.corrupts
def test_a_child_forked_while_another_thread_folds_reads_what_stands_before_the_damage(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as store:
        domain = store.domain("d")
        domain.write_value("mine", 1)
        domain.write_value("mine", 2)
        damaged_by_another(tmp_path / "data", 4)
        with pytest.raises(CorruptionError):
            domain.head()
        folding, forked, crew = threading.Event(), threading.Event(), Crew()

        def fold() -> None:
            with domain.group.live._folding:
                folding.set()
                assert forked.wait(PATIENCE)

        crew.start(fold)
        assert folding.wait(PATIENCE)
        child = os.fork()
        if child == 0:
            try:
                with pytest.raises(CorruptionError):
                    domain.read_value("mine")
                require_readable(domain)
            except BaseException:  # noqa: BLE001  the parent looks at the status
                os._exit(1)
            os._exit(0)
        forked.set()
        crew.results()
        assert os.waitpid(child, 0)[1] == 0
