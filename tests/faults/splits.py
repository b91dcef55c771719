"""Workers that are interrupted or that fork: the same life is cut off, or goes on twice."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import itertools
import os
import signal
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import eventstore
from eventstore import keeping
from eventstore.files import locked
from eventstore.salvage import salvage
from eventstore.sqlite import SqliteLog
from tests.faults.jobs import busy_settings
from tests.faults.ledger import DOMAIN, acknowledgement, call_of_size, carry_out
from tests.faults.stores import HEAD
from tests.faults.workers import PATIENCE, Steps, Tell, adjust

# Interrupts


def log_of(domain: eventstore.DomainStore) -> SqliteLog:
    """The log under a domain, to look at what no caller can see."""
    log = domain._live.log
    assert isinstance(log, SqliteLog)
    return log


def free_for_another_thread(log: SqliteLog) -> bool:
    """Whether a thread that wants to write could: the one that asks may hold the lock and not notice."""
    free = []

    def ask() -> None:
        if log._mutex.acquire(blocking=False):
            log._mutex.release()
            free.append(True)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return bool(free)


def require_nothing_held(domain: eventstore.DomainStore) -> None:
    """No transaction, no lock between threads, none between processes, no signal held back."""
    log = log_of(domain)
    assert not log._file.writer.in_transaction, "the connection was left in a transaction"
    assert free_for_another_thread(log), "the lock between threads was left behind"
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []), "signals are still held back"
    descriptor = os.open(log.folder / HEAD.name, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AssertionError("the lock between processes was left behind") from None
    finally:
        os.close(descriptor)


def interrupting(step: int) -> Steps:
    """Ctrl-C at this step. Python looks for signals where a function of its own begins and where any function has returned, and
    never between the decision to call a built-in one and the call: so a `with` on a lock is safe, and is taken to be."""
    return Steps(step, lambda: signal.raise_signal(signal.SIGINT), without="c_call")


class InterruptedCall:
    """A call with a Ctrl-C at one of its steps."""

    def __init__(self, domain: eventstore.DomainStore, name: str, step: int) -> None:
        self._domain, self._name, self._step = domain, name, step
        self._steps, self._interrupted = interrupting(step), False
        self._receipts: list[eventstore.Receipt] | None = None
        try:
            with self._steps:
                self._receipts = carry_out(domain, name, retry=True)
        except KeyboardInterrupt:
            self._interrupted = True

    def require(self, nothing_left: Callable[[], None], tell: Tell) -> None:
        """Where `nothing_left` raises AssertionError, tell of it and end the process: who went on might wait for ever."""
        try:
            nothing_left()
        except AssertionError as error:
            tell(step=self._step, left=str(error), after=self._steps.place)
            os._exit(0)

    def is_over(self, tell: Tell) -> bool:
        """Make it again, and tell of it; whether it had come to its end before the step."""
        again = carry_out(self._domain, self._name, retry=True)
        assert self._receipts in (None, again), "a retry must give the first answer"
        tell(interrupted=self._interrupted, **acknowledgement(self._name, again))
        return self._step > self._steps.count and not self._interrupted


def interrupt_each_step(tell: Tell, folder: str, first: int, writes: int) -> None:
    """Ctrl-C at step `first` of a call, at the next one, and so on until a call has no more steps, or something is left behind."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with eventstore.open(folder) as store:
        domain = store.domain(DOMAIN)
        for step in itertools.count(first):
            call = InterruptedCall(domain, call_of_size(f"step-{step}", writes), step)
            call.require(lambda: require_nothing_held(domain), tell)
            if call.is_over(tell):
                return


def interrupt_opening(tell: Tell, folder: str, first: int, stride: int) -> None:
    """Ctrl-C at every `stride`-th step of opening, writing once and closing; then the same process does all of it again."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for step in itertools.count(first, stride):
        call = call_of_size(f"opening-{step}", 1)
        interrupted, receipts = False, None
        steps = interrupting(step)
        try:
            with steps, eventstore.open(folder, busy_timeout_ms=1_000) as store:
                receipts = carry_out(store.domain(DOMAIN), call, retry=True)
        except KeyboardInterrupt:
            interrupted = True
        try:
            with eventstore.open(folder, busy_timeout_ms=1_000) as store:
                again = carry_out(store.domain(DOMAIN), call, retry=True)
        except eventstore.EventStoreError as error:
            tell(step=step, left=repr(error), after=steps.place)
            os._exit(0)
        assert receipts in (None, again), "a retry must give the first answer"
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, []), "signals are still held back"
        tell(interrupted=interrupted, **acknowledgement(call, again))
        if step > steps.count and not interrupted:
            return


def write_under_fire(tell: Tell, folder: str, name: str) -> None:
    """Write until killed; a signal interrupts the call that is under way, which is then made again."""
    armed = [False]

    def interrupt(number: int, frame: object) -> None:
        if armed[0]:
            armed[0] = False
            raise KeyboardInterrupt

    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, interrupt)
    busy_settings()
    with eventstore.open(folder) as store:
        domain = store.domain(DOMAIN)
        tell(open=True)
        for number in itertools.count():
            call, interrupts = f"{name}.{number}", 0
            receipts: list[eventstore.Receipt] | None = None
            while receipts is None:
                try:
                    armed[0] = True
                    receipts = carry_out(domain, call, retry=True)
                    armed[0] = False
                except KeyboardInterrupt:
                    interrupts += 1
                    assert not log_of(domain)._file.writer.in_transaction, "the connection was left in a transaction"
            tell(interrupts=interrupts, **acknowledgement(call, receipts))


# Forks

LIFETIME_S = 1_200
"""After which a child whose parent was killed ends, should its test not have come to end it."""


def forked(tell: Tell, life: Callable[[], None]) -> int:
    """Fork; the child lives `life` and ends at once, without any of the parent's business. The child's pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        life()
    except BaseException:  # noqa: BLE001  # whatever it is, the test is told
        tell(failed=traceback.format_exc())
        os._exit(1)
    os._exit(0)


def write_named(tell: Tell, domain: eventstore.DomainStore, name: str, calls: int) -> None:
    """Some calls, each told of."""
    for number in range(calls):
        call = f"{name}.{number}"
        tell(**acknowledgement(call, carry_out(domain, call)))


def fork_from_two_threads(tell: Tell, folder: str) -> None:
    """A thread that forks waits for a writer; the next one must not give up for it what it has taken."""
    with eventstore.open(folder) as store:
        logs = {id(domain.group.live.log): domain for domain in (store.domain("one"), store.domain("two"))}
        # In the order in which a fork asks them to be still.
        taken, awaited = (logs[id(log)] for log in list(keeping._open_logs) if id(log) in logs)
        log: Any = taken.group.live.log
        log.busy_timeout_ms, before_fork = 1, log.before_fork
        passed = threading.Semaphore(0)

        def noted() -> None:
            before_fork()
            passed.release()

        def fork() -> None:
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)

        log.before_fork = noted
        threads = [threading.Thread(target=fork, daemon=True) for _ in range(2)]
        with awaited.group.live.log.writing():
            threads[0].start()
            assert passed.acquire(timeout=PATIENCE)
            threads[1].start()
            passed.acquire(timeout=0.5)  # it should not come so far
        for thread in threads:
            thread.join(PATIENCE)
        tell(stuck=sum(thread.is_alive() for thread in threads))
        tell(positions=[domain.write_value("k", 1).position for domain in (taken, awaited)], ok=store.verify().ok)


def write_on_both_sides(tell: Tell, folder: str) -> None:
    """Open, fork, write in both processes at once; then the parent alone."""
    with eventstore.open(folder) as store:
        domain = store.domain(DOMAIN)
        write_named(tell, domain, "before", 5)
        children = [forked(tell, partial(write_named, tell, domain, name, 20)) for name in ("child", "other")]
        write_named(tell, domain, "parent", 20)
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        write_named(tell, domain, "after", 5)
        tell(ok=store.verify().ok)


def fork_and_hold(tell: Tell, folder: str, locked: bool) -> None:
    """Fork a child that stays, and take the lock for good: before the fork (`locked`), or once the child has a handle of its own."""
    store = eventstore.open(folder)
    domain = store.domain(DOMAIN)
    write_named(tell, domain, "before", 3)
    ours, theirs = os.pipe()

    def stay() -> None:
        if not locked:
            write_named(tell, domain, "child", 3)
        signal.alarm(LIFETIME_S)
        os.write(theirs, b"x")
        signal.pause()

    def fork() -> None:
        child = forked(tell, stay)
        os.read(ours, 1)
        tell(child=child)

    if not locked:
        fork()
    with domain._live.log.writing():
        if locked:
            fork()
        tell(holding=True)
        signal.pause()


WRITTEN = 2
"""How many values a store has that splits share."""


def acts(folder: Path, beside: Path) -> dict[str, tuple[Path, Callable[[eventstore.Store], object]]]:
    """What is done under a lock, each with the lock: a store's own, and those of what lies `beside` it."""
    log = folder / "logs"
    return {
        "archives": (log / DOMAIN / "archive.lock", lambda store: store.archive(DOMAIN, to=beside / "archive")),
        "backs up": (beside / "backup" / "backup.lock", lambda store: store.backup(beside / "backup")),
        "shreds": (beside / "people.keys.lock", lambda store: store.shred("alice", reason="asked")),
        "makes a domain": (log / "quotes" / "head", lambda store: store.domain("quotes")),
        "writes the manifest": (folder / "store.lock", lambda store: store.domain("quotes")),
        "salvages": (log / DOMAIN / "head", lambda store: salvage(folder, beside / "salvaged")),
    }


def open_shared(folder: Path, beside: Path) -> eventstore.Store:
    """The store that splits share, with something to be archived, backed up and shredded when it is new."""
    store = eventstore.open(folder, keys=beside / "people.keys", busy_timeout_ms=2_000, min_free_bytes=0)
    domain = store.domain(eventstore.Domain(DOMAIN, subject=lambda key: str(key[0])))
    if domain.head().position == 0:
        for number in range(WRITTEN):
            domain.write_value(("alice", number), "in confidence")
        store.seal(DOMAIN)
    return store


def is_locked(path: Path) -> bool:
    """Whether anybody holds a lock file."""
    if not path.exists():
        return False
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def fork_beside_an_act(tell: Tell, folder: str, beside: str, act: str) -> None:
    """Fork a child that stays, while another thread holds the lock of what it does: at its first fsync under it, it stops for good."""
    lock, do = acts(Path(folder), Path(beside))[act]
    store = open_shared(Path(folder), Path(beside))
    inside, sync = threading.Event(), os.fsync

    def stop_under_the_lock(descriptor: int) -> None:
        if is_locked(lock):
            inside.set()
            threading.Event().wait()
        sync(descriptor)

    adjust(os, fsync=stop_under_the_lock)
    threading.Thread(target=do, args=[store], daemon=True).start()
    assert inside.wait(PATIENCE), f"nobody holds {lock}"
    ours, theirs = os.pipe()

    def stay() -> None:
        signal.alarm(LIFETIME_S)
        os.write(theirs, b"x")
        signal.pause()

    child = forked(tell, stay)
    os.read(ours, 1)
    tell(child=child)
    signal.pause()


def fork_beside_locking_threads(tell: Tell, path: str, forks: int) -> None:
    """Threads take and release a lock all the time; which copies of it forked children have open, of so many."""
    enough = threading.Event()

    def take_and_release() -> None:
        while not enough.is_set():
            with locked(Path(path), timeout_ms=60_000):
                pass

    threads = [threading.Thread(target=take_and_release) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(forks):
        child = forked(tell, lambda: os._exit(sum(os.path.realpath(link) == path for link in Path("/proc/self/fd").iterdir())))
        tell(copies=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    enough.set()
    for thread in threads:
        thread.join()


def let_children_end(tell: Tell, folder: str, how: str) -> None:
    """Children end in every way a child can; the parent's files must not notice."""
    store = eventstore.open(folder)
    domain = store.domain(DOMAIN)
    write_named(tell, domain, "before", 5)
    wait, go = os.pipe()
    number = 0

    def end() -> None:
        nonlocal store, domain
        os.close(go)  # so that the end of the parent is the end of waiting
        os.read(wait, 1)
        if how == "closes":
            store.close()
        elif how == "reads":
            assert domain.head().position > 0
        elif how == "writes and closes":
            write_named(tell, domain, f"child-{number}", 3)
            store.close()
        elif how == "collects":
            del store, domain
            gc.collect()

    for number in range(3):
        child = forked(tell, end)
        write_named(tell, domain, f"parent-{number}", 3)
        (wal,) = Path(folder).glob("logs/*/*-wal")
        before = wal.stat()
        os.write(go, b"x")
        assert os.waitpid(child, 0)[1] == 0
        after = wal.stat()
        assert after.st_ino == before.st_ino, "the child's end removed the parent's WAL"
        # A close after a write is a checkpoint, the child's too: that alone may empty the file.
        assert after.st_size >= before.st_size or how == "writes and closes"
    write_named(tell, domain, "at the end", 3)
    tell(before_death=True)
    os.kill(os.getpid(), signal.SIGKILL)


def close_beside_a_child(tell: Tell, folder: str, closes: int) -> None:
    """A child writes all the time; its parent closes the store, opens it, and closes it again."""
    store = eventstore.open(folder)
    write_named(tell, store.domain(DOMAIN), "before", 5)
    enough, stop = os.pipe()
    os.set_blocking(enough, False)
    begun, begin = os.pipe()

    def write() -> None:
        os.close(stop)  # so that the end of the parent is the end of writing
        domain = store.domain(DOMAIN)
        for number in itertools.count():
            with contextlib.suppress(BlockingIOError):
                os.read(enough, 1)
                return
            write_named(tell, domain, f"child-{number}", 1)
            if number == 0:
                os.write(begin, b"x")
            positions = [event.position for event in domain.events()]
            assert positions == list(range(1, len(positions) + 1))

    child = forked(tell, write)
    os.close(begin)
    assert os.read(begun, 1) == b"x"  # who closes in the moment of the fork has his child refused
    for number in range(closes):
        store.close()
        store = eventstore.open(folder)
        write_named(tell, store.domain(DOMAIN), f"parent-{number}", 5)
    os.write(stop, b"x")
    assert os.waitpid(child, 0)[1] == 0, "the child failed"
    store.close()
    tell(ok=True)


def be_outlived(tell: Tell, folder: str, name: str) -> None:
    """Fork a child, and write in both, without end: the parent is killed, the child goes on."""
    busy_settings()
    domain = eventstore.open(folder).domain(DOMAIN)
    write_named(tell, domain, f"{name}-before", 3)

    def live_on() -> None:
        signal.alarm(LIFETIME_S)
        for number in itertools.count():
            write_named(tell, domain, f"{name}-child-{number}", 1)

    tell(child=forked(tell, live_on))
    for number in itertools.count():
        write_named(tell, domain, f"{name}-parent-{number}", 1)


def fork_beside_a_writing_thread(tell: Tell, folder: str, forks: int) -> None:
    """Another thread writes all the time; children are forked in the middle of it, and write too."""
    with eventstore.open(folder) as store:
        domain = store.domain(DOMAIN)
        enough = threading.Event()
        failures: list[BaseException] = []

        def write() -> None:
            try:
                for number in itertools.count():
                    if enough.is_set():
                        return
                    write_named(tell, domain, f"thread-{number}", 1)
            except BaseException as error:  # noqa: BLE001  # raised below, in the thread that is waited for
                failures.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        for fork in range(forks):
            child = forked(tell, partial(write_named, tell, domain, f"child-{fork}", 2))
            assert os.waitpid(child, 0)[1] == 0
        enough.set()
        thread.join()
        assert failures == []
        tell(ok=store.verify().ok)
