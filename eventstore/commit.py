"""drain(): the calls of one or many callers become one transaction; each gets its own receipts or its own error."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from eventstore.clock import Clock
from eventstore.codec import GENESIS, SALT_BYTES, seal, seal_at
from eventstore.coding import with_codec
from eventstore.errors import ConflictError, DuplicateEventError, EventStoreError, FencedError, RedactedError
from eventstore.live import Live
from eventstore.log import proven
from eventstore.metrics import Commit, Meter
from eventstore.model import DURABILITIES, SYSTEM_KEY, Durability, Event, Head, Key, KeyState, Receipt, WriteRule
from eventstore.projections.key_states import KeyStates, natural_order
from eventstore.rules import Intent, decide

_encode = msgspec.json.Encoder().encode

REMEMBERED = 10_000
"""Calls that appended nothing and are remembered for a retry, in memory only."""


class Standing(Protocol):
    """What stands once the lock is held: the log up to `base`, and what the calls before this one will have appended to it."""

    base: Head
    events: list[Event]

    def present(self, prefix: Key | None) -> list[str]:
        """The canonical keys that are there then, in natural order."""
        ...


class Call(msgspec.Struct, frozen=True, gc=False):
    """What one caller asked for: its writes stand or fall together."""

    intents: Sequence[Intent] | Callable[[Standing], Sequence[Intent]]
    """The writes, or how to choose them by what stands once the lock is held."""
    event_id: str | None
    durability: Durability
    request: str | None = None
    """What tells this request from another where the writes themselves cannot, as they depend on what is there."""


class _CallMeta(msgspec.Struct):
    """What the first event of a call with an event_id says about the call."""

    event_id: str | None = None
    request: str | None = None
    batch: int = 1
    skipped: list[int] = []


_decode_call_meta = msgspec.json.Decoder(_CallMeta).decode


def request_of(intents: Sequence[Intent], *, values: bool = False) -> str:
    """16 hex digits that tell one request from another: the arguments as received; with `values` for this process's memory only.

    What is stored must not cover the values: a hash of one outlives its redaction, and lets it be guessed.
    """
    said = [(i.op, i.key, i.when_us, i.said, str(i.expected), i.unchanged, i.data if values else None) for i in intents]
    return hashlib.sha256(_encode(said)).hexdigest()[:16]


def drain(live: Live, head: Head, clock: Clock, calls: Sequence[Call], meter: Meter) -> list[list[Receipt] | EventStoreError]:
    """Decide, seal and append what `calls` ask for, in order, in one transaction; one answer a call.

    Catch up, decide, append, fold, answer (FORMAT.md section 6). Must be called inside writing(), with the `head` that gave.
    Errors of the log itself are raised, not answered.
    """
    durability = DURABILITIES[max(DURABILITIES.index(call.durability) for call in calls)]
    while True:
        _catch_up(live, head)
        draft = _Draft(live, clock)
        answers = [draft.answer(call) for call in calls]
        started_ns = time.perf_counter_ns()
        try:
            live.log.append(draft.events, after=draft.base, durability=durability)
            break
        except ConflictError as conflict:
            # The head that writing() gave was only the last one known: a remote engine's, or a killed writer's.
            head = live.log.head()
            if head == draft.base:
                raise FencedError(
                    f"{conflict}; but the log says that it ends there: its files are not one log; run `eventstore verify`"
                ) from None
    append_us = (time.perf_counter_ns() - started_ns) // 1_000
    live.follow(draft.events)
    if draft.events:
        size = sum(_size(event.data) for event in draft.events if event.data is not None)
        meter.count(Commit(live.log.domain, live.states.position, len(calls), len(draft.events), size, append_us, live.log.commit_us))
    live.answered.update(draft.answered)
    while len(live.answered) > REMEMBERED:
        live.answered.popitem(last=False)
    return answers


class OwnEvent(msgspec.Struct, frozen=True):
    """An event of the log itself, not sealed yet, and the positions that are erased with it."""

    op: str
    data: str
    meta: str | None
    erase: Sequence[int] = ()


def append_own(live: Live, head: Head, clock: Clock, choose: Callable[[], OwnEvent | None], meter: Meter) -> Event | None:
    """Append the event that `choose` gives once the log is caught up, as durably as the log is and no less than `power`.

    None where it gives none. Must be called inside writing(), with the `head` that gave.
    """
    log = live.log
    level = log.durability if log.durability != "process" else "power"
    while True:
        _catch_up(live, head)
        own = choose()
        if own is None:
            return None
        states = live.states
        base = states.head
        event = seal(
            base,
            prev=states.system,
            recorded_us=next(iter(clock.stamps(1, states.recorded_us))),
            when_us=None,
            op=own.op,
            key=SYSTEM_KEY,
            meta=own.meta,
            data=own.data,
            salt=os.urandom(SALT_BYTES),
        )
        started_ns = time.perf_counter_ns()
        try:
            log.append([event], after=base, durability=level, erase=own.erase)
            break
        except ConflictError:
            head = log.head()
    append_us = (time.perf_counter_ns() - started_ns) // 1_000
    live.follow([event])
    meter.count(Commit(log.domain, event.position, 1, 1, len(own.data), append_us, log.commit_us))
    return event


def _size(data: str | bytes) -> int:
    return len(data) if isinstance(data, bytes) or data.isascii() else len(data.encode())


def _catch_up(live: Live, head: Head) -> None:
    live.catch_up(head)
    # The states may be ahead of a head that was only the last one known; but then the log has what they have.
    if live.states.head != head and live.states.head != live.log.head():
        raise FencedError(
            f"domain {live.log.domain}: the log ends before events that this process has seen, the last in position"
            f" {live.states.position}; close the store and look at its files"
        )


def earlier(live: Live, clock: Clock, call: Call) -> list[Receipt] | None:
    """The receipts of a call that was made before, with the same event_id and `request`; None if it was not."""
    live.catch_up()
    return _Draft(live, clock).earlier(call, call.request or "", [])


class _Found(msgspec.Struct, frozen=True, gc=False):
    """An intent that was decided: where its key's latest event stood (0: nowhere), and whether it appends one."""

    intent: Intent
    prev: int
    appends: bool


class _Draft:
    """The events that a transaction will append, as they are decided: later calls see what earlier ones will have written."""

    def __init__(self, live: Live, clock: Clock) -> None:
        self.events: list[Event] = []
        self.answered: dict[str, tuple[str, list[Receipt]]] = {}
        self._live, self._clock = live, clock
        self._domain = live.log.domain
        self._rule: WriteRule = live.log.rule
        # What the events are sealed on; readers may fold on while this is drafted.
        self.base = live.states.head
        self._head = self.base
        self._recorded_us = live.states.recorded_us
        # What the events above make of their keys, and which of them carry an event_id.
        self._states: dict[str, KeyState] = {}
        self._ids: dict[str, Event] = {}

    def answer(self, call: Call) -> list[Receipt] | EventStoreError:
        """The receipts of one call, or the error it must be answered with."""
        try:
            return self.add(call)
        except EventStoreError as error:
            return error

    def add(self, call: Call) -> list[Receipt]:
        """Decide one call whole; raises what it must be answered with, and then leaves no trace."""
        intents = call.intents if isinstance(call.intents, Sequence) else call.intents(self)
        request = ""
        if call.event_id is not None:
            request = call.request or request_of(intents)
            earlier = self.earlier(call, request, intents)
            if earlier is not None:
                return earlier
        found, states = self._decide(intents)
        events = self._seal(found, self._call_meta(call, request, found))
        receipts = self._receipts(found, events, call.durability)
        self._states.update(states)
        self.events += events
        if call.event_id is not None:
            if events:
                self._ids[call.event_id] = events[0]
            else:
                # The caller's list is the caller's. No event holds these values, so the request must.
                self.answered[call.event_id] = (call.request or request_of(intents, values=True), list(receipts))
        return receipts

    def present(self, prefix: Key | None) -> list[str]:
        """The canonical keys that will be there once the events so far are appended, in natural order."""
        keys = {key for key, _ in self._live.states.keys(prefix)}
        if self._states:
            drafted = KeyStates(GENESIS, 0, states=self._states)
            keys = (keys - self._states.keys()) | {key for key, _ in drafted.keys(prefix)}
        return sorted(keys, key=natural_order)

    def _decide(self, intents: Sequence[Intent]) -> tuple[list[_Found], dict[str, KeyState]]:
        """What each intent finds, whether it appends, and what the call makes of its keys: later intents see earlier ones."""
        domain, rule, known, drafted = self._domain, self._rule, self._live.states, self._states
        found: list[_Found] = []
        states: dict[str, KeyState] = {}
        texts: dict[int, str | None] = {}
        position = self._head.position

        def standing(state: KeyState) -> str | None:
            if state.position in texts:
                return texts[state.position]
            if state.position > self.base.position:
                return self._live.text_of(self.events[state.position - self.base.position - 1])
            try:
                return self._live.text(intent.key, state)
            except RedactedError:
                return None  # its key was destroyed, and no event says so: a log put back from a backup

        for intent in intents:
            key = intent.key
            state = states.get(key) or drafted.get(key) or known.get(key)
            appends = decide(domain, rule, state, standing, intent)
            if appends:
                position += 1
                states[key] = KeyState(position, intent.when_us, "present" if intent.op == "put" else "removed")
                texts[position] = intent.data
            found.append(_Found(intent, 0 if state is None else state.position, appends))
        return found, states

    def _call_meta(self, call: Call, request: str, found: list[_Found]) -> str | None:
        """What the call's first event carries beside its own meta, so that a retry finds its answer."""
        if call.event_id is None:
            return None
        metas: dict[str, Any] = {"event_id": call.event_id, "request": request}
        if len(found) > 1:
            skipped = [index for index, one in enumerate(found) if not one.appends]
            metas["batch"] = len(found) - len(skipped)
            if skipped:
                metas["skipped"] = skipped
        return _encode(metas).decode()

    def _seal(self, found: list[_Found], call_meta: str | None) -> list[Event]:
        appending = [one for one in found if one.appends]
        if not appending:
            return []
        position, checksum = self._head.position, self._head.checksum
        salts = os.urandom(SALT_BYTES * len(appending))
        events: list[Event] = []
        for one, recorded_us, at in zip(
            appending, self._clock.stamps(len(appending), self._recorded_us), range(0, len(salts), SALT_BYTES), strict=True
        ):
            intent = one.intent
            data: str | bytes | None = intent.data
            meta = intent.meta
            if intent.blob is not None:
                blob = self._live.coding.living(intent.blob)
                data, meta = blob.content, with_codec(meta, blob.codec)
            if call_meta is not None and not events:
                meta = call_meta if meta is None else f"{call_meta[:-1]},{meta[1:]}"
            salt = None if data is None else salts[at : at + SALT_BYTES]
            position += 1
            event = seal_at(position, checksum, one.prev, recorded_us, intent.when_us, intent.op, intent.key, meta, data, salt)
            checksum = event.checksum
            events.append(event)
        self._head, self._recorded_us = Head(position, checksum), events[-1].recorded_us
        return events

    def _receipts(self, found: list[_Found], events: list[Event], durability: Durability) -> list[Receipt]:
        domain = self._domain
        if len(events) == len(found):
            return [Receipt(domain, event.position, event.checksum, durability, True) for event in events]
        following = iter(events)
        # What a call that finds nothing answers with: the head as of then.
        last = events[0].position - 1 if events else self._head.position
        receipts: list[Receipt] = []
        for one in found:
            if one.appends:
                event = next(following)
                last = event.position
                receipts.append(Receipt(domain, last, event.checksum, durability, True))
            else:
                position = one.prev or last
                receipts.append(Receipt(domain, position, self._checksum_at(position, events), durability, False))
        return receipts

    def _checksum_at(self, position: int, events: list[Event]) -> bytes:
        for own in (events, self.events):
            if own and own[0].position <= position <= own[-1].position:
                return own[position - own[0].position].checksum
        head = self._live.states.head
        return head.checksum if position == head.position else proven(self._live.log, [position])[0].checksum

    # ---- retries

    def earlier(self, call: Call, request: str, intents: Sequence[Intent]) -> list[Receipt] | None:
        """The receipts of an earlier call with the same event_id. Raises DuplicateEventError if it asked for something else."""
        event_id = call.event_id or ""
        answer = self.answered.get(event_id) or self._live.answered.get(event_id)
        if answer is not None:
            if answer[0] != (call.request or request_of(intents, values=True)):
                raise DuplicateEventError(self._domain, event_id, answer[1][0].position if answer[1] else self._head.position)
            # What stands is made as durable as this call asks, whatever the first one asked.
            return [msgspec.structs.replace(receipt, durability=call.durability) for receipt in answer[1]]
        event = self._ids.get(event_id) or self._live.ids.find(event_id)
        if event is None:
            return None
        meta = _decode_call_meta(event.meta or "{}")
        if meta.request != request:
            raise DuplicateEventError(self._domain, event_id, event.position)
        return self._first_receipts(call, event, meta, intents)

    def _first_receipts(self, call: Call, first: Event, meta: _CallMeta, intents: Sequence[Intent]) -> list[Receipt]:
        """The receipts as they were given then: the call's events follow each other, what it skipped is in its meta."""
        events = [first, *self._call_at(range(first.position + 1, first.position + meta.batch), call.event_id or "")]
        receipts = [Receipt(self._domain, event.position, event.checksum, call.durability, True) for event in events]
        for index in meta.skipped:
            # What a skipped write found stood at or before the last event that the call had appended by then.
            before = next((receipt.position for receipt in reversed(receipts[:index]) if receipt.appended), first.position - 1)
            (standing,) = self._events_at([self._standing_at(intents[index].key, before)])
            events.insert(index, standing)
            receipts.insert(index, Receipt(self._domain, standing.position, standing.checksum, call.durability, False))
        if call.request is None:
            self._require_same_values(call, intents, events, receipts)
        return receipts

    def _require_same_values(self, call: Call, intents: Sequence[Intent], events: list[Event], receipts: list[Receipt]) -> None:
        """Hold the values against what was written then, or stood; of one that was redacted since nobody can tell any more."""
        for intent, event, receipt in zip(intents, events, receipts, strict=True):
            # Under the rule "first" a write that is skipped may say anything: it changes nothing.
            compared = intent.op == "put" and (receipt.appended or self._rule != "first")
            if compared and self._holds_another(event, intent):
                raise DuplicateEventError(self._domain, call.event_id or "", receipts[0].position)

    def _holds_another(self, event: Event, intent: Intent) -> bool:
        if intent.data is None and intent.blob is not None:  # encrypted elsewhere, and taken as it is
            return event.data is not None and event.data != intent.blob.content
        try:
            return self._live.text_of(event) != intent.data
        except RedactedError:
            return False

    def _call_at(self, positions: Sequence[int], event_id: str) -> list[Event]:
        """The other events of a call that was made before, drafted or proven. Raises CompactedError, CorruptionError."""
        base = self.base.position
        drafted = [self.events[position - base - 1] for position in positions if position > base]
        return self._live.ids.of_call([position for position in positions if position <= base], event_id) + drafted

    def _events_at(self, positions: Sequence[int]) -> list[Event]:
        """Events that are appended, and proven, or drafted: ascending positions, none of them missing. Raises CorruptionError."""
        base = self.base.position
        drafted = [self.events[position - base - 1] for position in positions if position > base]
        return proven(self._live.log, [position for position in positions if position <= base]) + drafted

    def _standing_at(self, key: str, position: int) -> int:
        """The position of the latest event of `key` at or before `position`; `position` itself if the key had none."""
        state = self._live.states.get(key)
        at = state.position if state is not None else 0
        while at > position:
            page = self._live.log.chain(at, limit=64)
            at = next((each.event.position for each in page if each.event.position <= position), page[-1].event.prev)
        return at or position
