"""Workers that run into a limit: no space, no descriptors, no permission, another umask, values of 100 MB."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import eventstore
from eventstore import EngineError, EventStoreError, HaltedError, live
from eventstore.clock import Clock, now_us
from tests.faults.ledger import DOMAIN
from tests.faults.workers import Tell, adjust


def described(error: EventStoreError) -> dict[str, Any]:
    """An error as a worker can report it."""
    outcome = error.outcome if isinstance(error, EngineError) else None
    return {"error": type(error).__name__, "outcome": outcome, "message": str(error)}


@contextlib.contextmanager
def limit(which: int, soft: int) -> Any:
    """Lower a limit of this process for a while."""
    before = resource.getrlimit(which)
    resource.setrlimit(which, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(which, before)


def write_until_refused(tell: Tell, domain: eventstore.DomainStore, size: int) -> int:
    """Write values of `size` bytes until the machine refuses; tell how; the number of those acknowledged."""
    for number in itertools.count():
        try:
            receipt = domain.write_value(f"key-{number}", {"number": number, "pad": "x" * size}, event_id=f"id-{number}")
        except EngineError as error:
            tell(refused=described(error), event_id=error.event_id)
            return number
        tell(position=receipt.position, checksum=receipt.checksum.hex())
    raise AssertionError("endless")


def fill(tell: Tell, folder: str, size: int, file_limit: int | None, ballast: str | None, durability: Any) -> None:
    """Write until there is no more space, look around, get space, write on.

    Space ends at `file_limit` bytes a file, or where the disk does: then `ballast` is the file that can go.
    """
    halts: list[HaltedError] = []
    store = eventstore.open(folder, durability=durability, min_free_bytes=0, on_halt=halts.append)
    domain = store.domain(DOMAIN)
    with limit(resource.RLIMIT_FSIZE, file_limit) if file_limit else contextlib.nullcontext():
        acknowledged = write_until_refused(tell, domain, size)
        for number in range(acknowledged):
            assert domain.read_value(f"key-{number}")["number"] == number
        assert len(list(domain.events())) == domain.head().position
        for _ in range(3):
            try:
                domain.write_value("too-much", "x" * 2 * size)
            except EngineError as error:
                tell(again=described(error))
    if ballast is not None:
        Path(ballast).unlink()
    tell(halts=len(halts), causes=[type(halt.__cause__).__name__ for halt in halts])
    store.resume()
    domain.write_value("after", 1)
    # What was refused is retried: once in the log, whether it had got there or not.
    receipt = domain.write_value(f"key-{acknowledged}", {"number": acknowledged, "pad": "x" * size}, event_id=f"id-{acknowledged}")
    tell(position=receipt.position, checksum=receipt.checksum.hex())
    store.close()


def run_out_of_descriptors(tell: Tell, folder: str, other: str, spares: int) -> None:
    """With no descriptor left: try to open, and go on writing to what is open."""
    eventstore.open(other).close()
    with eventstore.open(folder) as store:
        domain = store.domain(DOMAIN)
        domain.write_value("before", 1)

        def attempts() -> list[tuple[str, Callable[[], object]]]:
            return [
                ("another store", lambda: eventstore.open(other).domain(DOMAIN)),
                ("a new store", lambda: eventstore.open(other + "-new")),
                ("another domain", lambda: store.domain("quotes")),
            ]

        free = len(os.listdir("/dev/fd")) - 1
        for spare in range(spares):
            with limit(resource.RLIMIT_NOFILE, free + spare):
                for what, attempt in attempts():
                    try:
                        attempt()
                        tell(what=what, spare=spare, error=None)
                    except EventStoreError as error:
                        tell(what=what, spare=spare, **described(error))
                for number in range(10):
                    domain.write_value(f"while-{spare}-{number}", number)
                assert len(list(domain.events())) == domain.head().position
        for _, attempt in attempts():
            attempt()
        store.domain("quotes").write_value("after", 1)
        tell(position=domain.write_value("after", 1).position, leaked=len(os.listdir("/dev/fd")))


def live_under_umask(tell: Tell, folder: str, umask: int) -> None:
    """Make every kind of file a store can have, with nobody's help but ours against a careless umask."""
    os.umask(umask)
    adjust(live, _TAIL=1)
    root = Path(folder)
    modes: dict[str, int] = {}

    def look() -> None:
        for path in [root, *root.rglob("*")]:
            modes[str(path.relative_to(root)) + ("/" if path.is_dir() else "")] = path.stat().st_mode & 0o7777

    with eventstore.open(root) as store:
        store.domain(DOMAIN).write_value("key", 1, event_id="id")
        look()
    look()
    with eventstore.open(root) as store:
        store.domain(DOMAIN).write_value("key", 2)
    (log,) = root.glob("logs/*/head")
    log.write_bytes(b"\xff" * 48)
    with eventstore.open(root, accept_loss=True) as store:
        store.domain(DOMAIN).write_value("key", 3)
        look()
    look()
    tell(modes=modes)


def be_nobody() -> None:
    """Give up root for good, if we have it: its access is denied nothing."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65_534)
        os.setuid(65_534)


def open_as_nobody(tell: Tell, folder: str) -> None:
    """Read a store, then try to write it, as somebody who owns nothing of it."""
    be_nobody()
    try:
        with eventstore.open(folder, read_only=True) as store:
            domain = store.domain(DOMAIN)
            events = [event.checksum.hex() for event in domain.events()]
            tell(events=events, values=[value["number"] for value in domain.values()], findings=len(store.verify().findings))
    except EventStoreError as error:
        tell(**described(error))
    try:
        with eventstore.open(folder) as store:
            store.domain(DOMAIN).write_value("key", 1)
        tell(error=None)
    except EventStoreError as error:
        tell(**described(error))


def make_as_nobody(tell: Tell, folder: str) -> None:
    """Make a store where that is not allowed."""
    be_nobody()
    try:
        eventstore.open(folder)
        tell(error=None)
    except EventStoreError as error:
        tell(**described(error))


def write_huge(tell: Tell, folder: str, size: int) -> None:
    """A value far beyond the usual limit, there and back."""
    value = "x" * size
    with eventstore.open(folder, max_value_bytes=2 * size) as store:
        tell(position=store.domain(DOMAIN).write_value("huge", value).position)
    with eventstore.open(folder) as store:
        tell(same=store.domain(DOMAIN).read_value("huge") == value, ok=store.verify().ok)


def write_by_a_wrong_clock(tell: Tell, folder: str, name: str, ahead_us: int, calls: int) -> None:
    """A process whose clock is wrong by so much, in steps back and forth, beside others; half way it waits until it is signalled."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    with eventstore.open(folder, busy_timeout_ms=60_000) as store:
        steps = itertools.cycle((ahead_us, 0, -ahead_us))
        store.clock = Clock(lambda: now_us() + next(steps))
        domain = store.domain(DOMAIN)
        for number in range(calls):
            if number == calls // 2:
                tell(half=True)
                signal.sigwait([signal.SIGUSR1])
            receipt = domain.write_value(f"{name}-{number}", number)
            tell(position=receipt.position, checksum=receipt.checksum.hex())
