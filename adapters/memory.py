"""MemoryLog: the same events, checksums and refusals without a file. For tests, backtests and caches; survives nothing."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from eventstore.carried import Beginning, CarriedDigest, Seal
from eventstore.clock import now_us
from eventstore.codec import FORMAT, GENESIS, SALT_BYTES, Birth, erased, read_birth, seal_birth
from eventstore.errors import (
    ClosedError,
    CompactedError,
    ConfigError,
    ConflictError,
    ContractError,
    CorruptionError,
    GapError,
    NotFoundError,
    UnavailableError,
)
from eventstore.log import PAGE, Busy, Extent, nobody_waits
from eventstore.model import SYSTEM_KEY, Domain, Durability, Event, Head, HeldCopy, Linked, WriteRule


class MemoryLog:
    """The EventLog of one domain in a list."""

    def __init__(
        self, domain: str, *, store_id: str, write: WriteRule = "replace", birth: Event | None = None, busy_timeout_ms: int = 10_000
    ) -> None:
        self.domain = domain
        self.durability: Durability = "memory"
        self.rule: WriteRule = write
        self.accepted: Head | None = None
        self.released = nobody_waits
        self.busy_timeout_ms = busy_timeout_ms
        self.commit_us = 0
        self._mutex = threading.Lock()
        self._closed = False
        birth = birth or seal_birth(Birth(FORMAT, store_id, domain, now_us(), write), secrets.token_bytes(SALT_BYTES))
        self._events = [birth]
        self._seals: list[int] = []
        """Where seals stand."""

    def head(self) -> Head:
        """See EventLog.head."""
        self._require_open()
        last = self._events[-1]
        return Head(last.position, last.checksum)

    def moved(self, position: int) -> bool:
        """See EventLog.moved."""
        if self._closed:
            self._require_open()
        return len(self._events) - 1 != position

    def read(self, after: int = 0, *, until: int | None = None, limit: int | None = None) -> Iterator[Event]:
        """See EventLog.read."""
        self._require_open()
        last = len(self._events) - 1 if until is None else min(until, len(self._events) - 1)
        position = max(after, 0) + 1
        left = last - position + 1 if limit is None else min(limit, last - position + 1)
        while left > 0:
            page = self._events[position : position + min(left, PAGE)]
            yield from page
            position, left = position + len(page), left - len(page)

    def get(self, positions: Sequence[int]) -> list[Event]:
        """See EventLog.get."""
        self._require_open()
        return [self._events[position] for position in sorted(set(positions)) if 0 <= position < len(self._events)]

    def checksums(self, after: int, until: int) -> Iterator[bytes]:
        """See EventLog.checksums."""
        self._require_open()
        for position in range(max(after, -1) + 1, until + 1):
            if position >= len(self._events):
                raise GapError(self.domain, position, position)
            yield self._events[position].checksum

    def linked(self, positions: Sequence[int]) -> list[Linked]:
        """See EventLog.linked."""
        return [self._linked(event) for event in self.get(positions)]

    def _linked(self, event: Event) -> Linked:
        return Linked(self._events[event.position - 1].checksum if event.position else GENESIS.checksum, event)

    def floor(self) -> int:
        """See EventLog.floor: a list is there whole."""
        self._require_open()
        return 0

    def start(self, until: int) -> int:
        """See EventLog.start."""
        self._require_open()
        return max((position for position in self._seals if position <= until), default=0)

    def carried(self, start: int) -> Iterator[Linked]:
        """See EventLog.carried."""
        if start not in (0, *self._seals):
            raise CompactedError(self.domain, start, 0)
        return iter(self.linked([0] if start == 0 else [*self._carried_below(start), start]))

    def _carried_below(self, last: int) -> list[int]:
        """The positions of what a seal at `last` carries over."""
        events = self._events[:last]
        latest = {event.key: event.position for event in events}
        return [event.position for event in events if event.key == SYSTEM_KEY or latest[event.key] == event.position]

    def prepare_seal(self) -> None:
        """See EventLog.prepare_seal: everything is in memory."""
        self._require_open()

    def draft_seal(self) -> Seal:
        """See EventLog.draft_seal: a list goes on as it is; the seal is an event like any other, and a place to fold from."""
        last, digest = len(self._events), CarriedDigest()
        for each in self.linked(self._carried_below(last)):
            digest.add(each.event.position, each.previous or b"", each.event.checksum)
        return digest.seal(self.extent().first, last)

    def extent(self) -> Extent:
        """See EventLog.extent."""
        self._require_open()
        first = self._seals[-1] + 1 if self._seals else 0
        return Extent(first, next((event.recorded_us for event in self._events[max(first, 1) : max(first, 1) + 1]), None), 0)

    def has_grown(self, by: int) -> bool:
        """See EventLog.has_grown: a list takes no disk."""
        self._require_open()
        return False

    def chain(self, position: int, *, limit: int) -> list[Linked]:
        """See EventLog.chain."""
        self._require_open()
        return list(map(self._linked, islice(self._links(position), limit)))

    def _links(self, position: int) -> Iterator[Event]:
        events = self.get([position])
        while events:
            yield events[0]
            position = events[0].prev
            events = [self._events[position]] if position > 0 else []

    @contextlib.contextmanager
    def writing(self, *, wait: bool = True) -> Iterator[Head]:
        """See EventLog.writing."""
        self._require_open()
        if not self._mutex.acquire(wait, self.busy_timeout_ms / 1_000 if wait else -1):
            if not wait:
                raise Busy
            raise UnavailableError(f"domain {self.domain}: another thread writes for more than {self.busy_timeout_ms} ms")
        try:
            yield self.head()
        finally:
            self._mutex.release()
            self.released()

    def append(self, events: Sequence[Event], *, after: Head, durability: Durability | None = None, erase: Sequence[int] = ()) -> None:
        """See EventLog.append. Raises ConfigError when asked for more than memory can promise."""
        if durability not in (None, "memory"):
            raise ConfigError(f"domain {self.domain}: durability {durability!r} was asked of a memory: store, which survives nothing")
        if self.head() != after:
            raise ConflictError(self.domain, after.position, len(self._events) - 1)
        # All of it is worked out before any of it is done: whatever raises leaves nothing behind.
        gone = {position: erased(self._events[position]) for position in erase if 0 <= position < len(self._events)}
        for position, event in gone.items():
            self._events[position] = event
        self._events.extend(events)
        self._seals += [event.position for event in events if event.key == SYSTEM_KEY and event.op == "seal"]

    def faults(self) -> Iterator[tuple[str, str]]:
        """See EventLog.faults: there is no storage that could be at fault."""
        return iter(())

    def wal_bytes(self) -> int:
        """See EventLog.wal_bytes."""
        return 0

    def held(self, positions: Sequence[int]) -> list[int]:
        """See EventLog.held."""
        return [event.position for event in self.get(positions) if event.data is not None and event.key != SYSTEM_KEY]

    def forget_erased(self, *, wait: bool = True) -> bool:
        """See EventLog.forget_erased: there is no file."""
        return True

    def copies(self) -> list[HeldCopy]:
        """See EventLog.copies: there are none."""
        return []

    def distrust(self, error: CorruptionError) -> None:
        """See EventLog.distrust: nothing is kept, so there is nothing to keep."""

    def resume(self) -> None:
        """See EventLog.resume: a list does not fail."""
        self._require_open()

    def close(self) -> None:
        """See EventLog.close."""
        self._closed = True

    def abandon(self) -> None:
        """In a forked child: another thread may have held the lock when the process split."""
        self._mutex = threading.Lock()

    def _require_open(self) -> None:
        if self._closed:
            raise ClosedError(f"domain {self.domain} was closed; open the store again")


class MemoryEngine:
    """The Engine of a memory: store."""

    read_only = False
    durability: Durability = "memory"

    def __init__(
        self,
        *,
        store_id: str | None = None,
        durability: Durability = "memory",
        busy_timeout_ms: int = 10_000,
        min_free_bytes: int = 0,
        owner: str | None = None,
        archives: Sequence[Path] = (),
    ) -> None:
        """Nobody else can open this store: whoever made it owns it, and it needs no disk: `owner` and `min_free_bytes` hold as they are.

        Nothing in memory is ever put in an archive.
        """
        if archives:
            raise ConfigError(
                f"archives {', '.join(map(str, archives))} were given for a memory: store, which has none; open a folder instead"
            )
        if durability != "memory":
            raise ConfigError(f"durability {durability!r} was asked of a memory: store, which survives nothing; open a folder instead")
        self.store_id = store_id or secrets.token_hex(16)
        self.created_us = now_us()
        self._busy_timeout_ms = busy_timeout_ms
        self._logs: dict[str, MemoryLog] = {}

    def domains(self) -> list[str]:
        """See Engine.domains."""
        return sorted(self._logs)

    def open_log(self, name: str, write: WriteRule | None = None, *, accept_loss: bool = False) -> MemoryLog:
        """See Engine.open_log."""
        Domain(name)
        log = self._logs.get(name)
        if log is None:
            log = MemoryLog(name, store_id=self.store_id, write=write or "replace", busy_timeout_ms=self._busy_timeout_ms)
            self._logs[name] = log
        elif write is not None and write != log.rule:
            raise ContractError(f"{name}: made with the write rule {log.rule!r}, opened with {write!r}")
        return log

    @contextlib.contextmanager
    def adopting(self, name: str, birth: Event, beginning: Beginning | None = None) -> Iterator[MemoryLog]:
        """See Engine.adopting: a list is there whole, or not at all."""
        Domain(name)
        if beginning is not None:
            raise ConfigError(
                f"{name}: events up to position {beginning.floor} are elsewhere, which a log in memory cannot be: name a folder"
            )
        rule = read_birth(birth, name).write
        log = MemoryLog(name, store_id=self.store_id, write=rule, birth=birth, busy_timeout_ms=self._busy_timeout_ms)
        yield log
        self._logs[name] = log

    @contextlib.contextmanager
    def inspect(self, name: str) -> Iterator[MemoryLog]:
        """See Engine.inspect."""
        if name not in self._logs:
            raise NotFoundError(f"no domain {name!r} in this memory: store")
        yield self._logs[name]

    def pointers(self, name: str) -> None:
        """See Engine.pointers: a log in memory needs none."""
        return

    def after_fork(self) -> None:
        """See Engine.after_fork: the child has a store of its own."""
        return

    def resume(self) -> None:
        """See Engine.resume: nothing is held."""

    def closing(self) -> contextlib.AbstractContextManager[None]:
        """See Engine.closing: nothing is kept elsewhere."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """See Engine.close: there is nothing to release."""
