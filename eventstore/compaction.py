"""Sealing a log, which is what compaction is here: the live file ends, the next one begins with what every key is, nothing is deleted."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

import msgspec

from eventstore.carried import Seal
from eventstore.clock import Clock
from eventstore.codec import SALT_BYTES, seal_system
from eventstore.errors import CompactedError, ConflictError
from eventstore.live import Live
from eventstore.log import EventLog
from eventstore.model import Head
from eventstore.projections.key_states import KeyStates


class SealReport(msgspec.Struct, frozen=True):
    """What Store.seal() did. The bytes are those of the live file and its WAL, before and after; 0 where there is none."""

    domain: str
    sealed: bool
    """False if nothing was appended since the last seal: nothing was done."""
    position: int
    """Where the last seal stands; 0 if there is none."""
    events: int
    """How many events the file that was sealed now holds, the seal included; 0 if none was."""
    carried: int
    """How many the next file begins with, the seal included."""
    bytes_before: int
    bytes_after: int
    held_us: int
    """How long writers were kept out, in microseconds."""


class SealPolicy(msgspec.Struct, frozen=True):
    """When a log is sealed by whoever writes to it: 0 is never. Judged after each commit; who is asked to seal returns when it is done."""

    bytes: int = 0
    """Of what was appended since the last seal: if what is carried over it counted, a state of this size would seal with every write."""
    age_s: int = 0
    """Seconds since the first event of the live file was recorded."""

    def is_due(self, log: EventLog, at_us: int) -> bool:
        """Whether a log is to be sealed."""
        if self.bytes and log.has_grown(self.bytes):
            return True
        began_us = log.extent().began_us if self.age_s else None
        return began_us is not None and self.age_s * 1_000_000 <= at_us - began_us


def is_sealed(live: Live) -> bool:
    """Whether nothing was appended since the last seal, or ever. The log must be caught up."""
    extent = live.log.extent()
    return live.states.position < max(extent.first, 1)


def prepare_seal(live: Live) -> None:
    """Do ahead of writing() what seal_log() would do there, so that writers wait only for what came since. Not needed for it.

    Raises CorruptionError, EngineError.
    """
    live.catch_up()
    if is_sealed(live):
        return
    with contextlib.suppress(CompactedError):  # then nobody knows them, and sealing changes nothing about it
        live.ids.prepare()
    live.log.prepare_seal()


def seal_log(live: Live, head: Head, clock: Clock) -> Seal | None:
    """Append a seal: the commit is the decision. None if nothing was appended since the last one, or ever.

    Must be called inside writing(), with the `head` that gave. As always, the log goes on in its next file within
    this writing() or, if something stands in the way, the next one.
    """
    while True:
        live.catch_up(head)
        if is_sealed(live):
            return None
        states = live.states
        seal = live.log.draft_seal()
        (recorded_us,) = clock.stamps(1, states.recorded_us)
        event = seal_system(states.head, prev=states.system, recorded_us=recorded_us, op="seal", data=seal, salt=os.urandom(SALT_BYTES))
        try:
            live.log.append([event], after=states.head)
        except ConflictError:
            head = live.log.head()  # a writer was killed between its commit and its hint
            continue
        live.follow([event])
        live.save_ids(since=seal.first - 1)
        return seal


def record_in(live: Live, head: Head, clock: Clock, op: str, say: Callable[[KeyStates], object | None]) -> bool:
    """Append an event of the log itself with the data that `say` gives; nothing, and False, where that is None.

    Must be called inside writing(), with the `head` that gave. Durable with its witness when this returns.
    """
    while True:
        live.catch_up(head)
        states = live.states
        data = say(states)
        if data is None:
            return False
        (recorded_us,) = clock.stamps(1, states.recorded_us)
        event = seal_system(states.head, prev=states.system, recorded_us=recorded_us, op=op, data=data, salt=os.urandom(SALT_BYTES))
        try:
            live.log.append([event], after=states.head, durability=None if live.log.durability == "memory" else "power+")
        except ConflictError:
            head = live.log.head()  # a writer was killed between its commit and its hint
            continue
        live.follow([event])
        return True


def report_of(live: Live, seal: Seal | None, bytes_before: int, began_ns: int) -> SealReport:
    """What was done, once the log is in its next file."""
    extent = live.log.extent()
    if seal is None:
        return SealReport(live.log.domain, False, max(extent.first - 1, 0), 0, 0, extent.bytes, extent.bytes, 0)
    held_us = (time.perf_counter_ns() - began_ns) // 1_000
    return SealReport(live.log.domain, True, seal.last, seal.count, seal.carried + 1, bytes_before, extent.bytes, held_us)
