"""DomainStore: a domain's log, what it says now, and the writes."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Unpack

import msgspec

from eventstore.clock import Clock, moment_us
from eventstore.codec import encode_key, encode_prefix
from eventstore.commit import Call, Present, drain, earlier
from eventstore.errors import ClosedError, ConfigError, EventStoreError, NotFoundError, RedactedError, WrongExpectedError
from eventstore.live import Live
from eventstore.meta import EventMeta, Meta, meta_text
from eventstore.model import ABSENT, ANY, DURABILITIES, Domain, Durability, Expected, Key, Receipt
from eventstore.rules import Intent, Unchanged
from eventstore.values import encode_value
from eventstore.view import DomainView, cut_at

MAX_EVENT_ID_BYTES = 1_024
_MISSING: Any = object()
_encode_json = msgspec.json.Encoder().encode


class DomainStore(DomainView):
    """One domain, live: every read verb of DomainView, and the writes. Made by Store.domain(); safe to share between threads.

    Arguments that all writes share: `when`, the caller's own time (aware datetime or microseconds); `expected`, what the
    key must be for the write to happen (ANY, ABSENT, PRESENT or the position of its current event); `event_id`, which
    names this call for ever, so that a retry gets the first answer and writes nothing; `durability`, for this call;
    and the EventMeta members. All raise InvalidKeyError, InvalidValueError, NaiveTimeError, ConfigError before anything is
    written, WrongExpectedError, ContractError, DuplicateEventError when the answer is no, EngineError when the machine refuses.
    """

    def __init__(self, domain: Domain, live: Live, clock: Clock, *, actor: str | None, max_value_bytes: int) -> None:
        super().__init__(domain, live, None)
        self._clock, self._actor, self._max_value_bytes = clock, actor, max_value_bytes

    # ---- writes

    def write_value(
        self,
        key: Key,
        value: Any,
        *,
        when: datetime | int | None = None,
        expected: Expected | int = ANY,
        event_id: str | None = None,
        durability: Durability | None = None,
        unchanged: Unchanged = "append",
        **meta: Unpack[EventMeta],
    ) -> Receipt:
        """Append `value` as what `key` is now. `unchanged="skip"` appends nothing if value and `when` are those that stand."""
        intent = self._put(key, value, when, expected, unchanged, meta_text(meta, self._actor))
        return self._commit([intent], event_id, durability)[0]

    def remove_value(
        self,
        key: Key,
        *,
        when: datetime | int | None = None,
        expected: Expected | int = ANY,
        event_id: str | None = None,
        durability: Durability | None = None,
        **meta: Unpack[EventMeta],
    ) -> Receipt:
        """Append that `key` is gone. Its history stays; `appended` is False if there was nothing to remove."""
        return self._commit([self._remove(key, when, expected, meta_text(meta, self._actor))], event_id, durability)[0]

    def write_values(
        self,
        items: Iterable[tuple[Key, Any]],
        *,
        when: datetime | int | None = None,
        expected: Expected | int = ANY,
        event_id: str | None = None,
        durability: Durability | None = None,
        unchanged: Unchanged = "append",
        **meta: Unpack[EventMeta],
    ) -> list[Receipt]:
        """Append all of `items` or none of them; one receipt each, in order. `expected` holds for every key."""
        _require_unchanged(unchanged)
        if isinstance(items, Mapping):
            raise ConfigError("items are (key, value) pairs: pass mapping.items()")
        when_us, demand, (text, said) = _when_us(when), _demand(expected), meta_text(meta, self._actor)
        declared, max_bytes = self.domain.value, self._max_value_bytes
        intents = [
            Intent("put", encode_key(key), encode_value(value, declared, max_bytes=max_bytes), when_us, text, said, demand, unchanged)
            for key, value in items
        ]
        return self._commit(intents, event_id, durability)

    def remove_all(
        self,
        prefix: Key | None = None,
        *,
        when: datetime | int | None = None,
        event_id: str | None = None,
        durability: Durability | None = None,
        **meta: Unpack[EventMeta],
    ) -> list[Receipt]:
        """Append that every key under `prefix` (None: every key) is gone, all or none; a receipt for each that was there."""
        texts, when_us = meta_text(meta, self._actor), _when_us(when)
        named = encode_prefix(prefix)

        def chosen(present: Present) -> list[Intent]:
            return [Intent("remove", key, None, when_us, *texts) for key in present(prefix)]

        request = _request("remove_all", named, when_us, texts[1])
        return self._commit(chosen, event_id, durability, request)

    def update_value(
        self,
        key: Key,
        change: Callable[[Any], Any],
        *,
        default: Any = _MISSING,
        when: datetime | int | None = None,
        event_id: str | None = None,
        durability: Durability | None = None,
        **meta: Unpack[EventMeta],
    ) -> Receipt:
        """Append `change(value)`, made from the value that stands when it is written: read, change, write, again if another was first.

        An absent key starts from `default`; without one NotFoundError. `change` may run more than once and must not
        write to this domain. Retried with the same `event_id`, it is not called again.
        """
        texts, when_us, canonical = meta_text(meta, self._actor), _when_us(when), encode_key(key)
        request = _request("update_value", canonical, when_us, texts[1])
        if event_id is not None:
            _require_event_id(event_id)
            answer = earlier(self._live, self._clock, Call([], event_id, self._level(durability), request))
            if answer is not None:
                return self._commit([], event_id, durability, request)[0]
        while True:
            state = self.state_of(key)
            standing = state is not None and state.status != "removed"
            value = self._value_of(canonical, state) if standing and state is not None else default
            if value is _MISSING:
                raise self._missing(canonical, state)
            expected: Expected | int = state.position if standing and state is not None else ABSENT
            intent = Intent("put", canonical, self._text_of(change(value)), when_us, *texts, expected)
            try:
                return self._commit([intent], event_id, durability, request)[0]
            except WrongExpectedError:
                continue

    @contextlib.contextmanager
    def batch(self, *, event_id: str | None = None, durability: Durability | None = None) -> Iterator[Batch]:
        """Gather writes and removals, and append all of them or none when the block ends; nothing if it raises."""
        batch = Batch(self)
        try:
            yield batch
        finally:
            batch.ended = True
        batch.receipts = self._commit(batch.intents, event_id, durability)

    def restore_value(
        self,
        key: Key,
        position: int,
        *,
        when: datetime | int | None = None,
        expected: Expected | int = ANY,
        event_id: str | None = None,
        durability: Durability | None = None,
        **meta: Unpack[EventMeta],
    ) -> Receipt:
        """Append what the event of `key` at `position` said: its value, byte for byte, or its removal.

        Raises NotFoundError if that is no event of `key`, RedactedError if its value was erased.
        """
        canonical = encode_key(key)
        event = self.event(position)
        if event.key != canonical:
            raise NotFoundError(f"{self.name}@{position}: not an event of {canonical}; `history` lists its events")
        meta.setdefault("reason", f"restored from position {position}")
        texts = meta_text(meta, self._actor)
        if event.op == "remove":
            return self._commit([Intent("remove", canonical, None, _when_us(when), *texts, _demand(expected))], event_id, durability)[0]
        if not isinstance(event.data, str):
            raise RedactedError(self.name, position)
        return self._commit([Intent("put", canonical, event.data, _when_us(when), *texts, _demand(expected))], event_id, durability)[0]

    # ---- reading the past

    def state(self, as_of: datetime | int | None = None) -> DomainView:
        """The domain as of a position (inclusive) or a recorded time (aware datetime); None and the future pin to the head."""
        return DomainView(self.domain, self._live, cut_at(self._live.log, self._live.pointers, as_of))

    # ---- from calls to intents

    def _put(self, key: Key, value: Any, when: datetime | int | None, expected: Expected | int, unchanged: Unchanged, meta: Meta) -> Intent:
        _require_unchanged(unchanged)
        return Intent("put", encode_key(key), self._text_of(value), _when_us(when), *meta, _demand(expected), unchanged)

    def _remove(self, key: Key, when: datetime | int | None, expected: Expected | int, meta: Meta) -> Intent:
        return Intent("remove", encode_key(key), None, _when_us(when), *meta, _demand(expected))

    def _text_of(self, value: Any) -> str:
        return encode_value(value, self.domain.value, max_bytes=self._max_value_bytes)

    def _level(self, durability: Durability | None) -> Durability:
        if durability is None:
            return self._live.log.durability
        if durability not in DURABILITIES or (durability == "memory") != (self._live.log.durability == "memory"):
            offers = (
                "a memory: store survives nothing" if self._live.log.durability == "memory" else "a folder has process, power or power+"
            )
            raise ConfigError(f"durability {durability!r} cannot be had here; {offers}")
        return durability

    def _commit(
        self,
        intents: Sequence[Intent] | Callable[[Present], Sequence[Intent]],
        event_id: str | None,
        durability: Durability | None,
        request: str | None = None,
    ) -> list[Receipt]:
        if event_id is not None:
            _require_event_id(event_id)
        answer = drain(self._live, self._clock, [Call(intents, event_id, self._level(durability), request)])[0]
        if isinstance(answer, EventStoreError):
            raise answer
        return answer


class Batch:
    """Writes gathered by `with domain.batch() as b:`; arguments as for the DomainStore methods of the same names."""

    def __init__(self, domain: DomainStore) -> None:
        self._domain = domain
        self.intents: list[Intent] = []
        self.ended = False
        self.receipts: list[Receipt] = []
        """One receipt a write, in order, once the block has ended."""

    def write_value(
        self,
        key: Key,
        value: Any,
        *,
        when: datetime | int | None = None,
        expected: Expected | int = ANY,
        unchanged: Unchanged = "append",
        **meta: Unpack[EventMeta],
    ) -> None:
        """Add a write. Raises ClosedError after the block."""
        self._require_open()
        self.intents.append(self._domain._put(key, value, when, expected, unchanged, meta_text(meta, self._domain._actor)))

    def remove_value(
        self, key: Key, *, when: datetime | int | None = None, expected: Expected | int = ANY, **meta: Unpack[EventMeta]
    ) -> None:
        """Add a removal. Raises ClosedError after the block."""
        self._require_open()
        self.intents.append(self._domain._remove(key, when, expected, meta_text(meta, self._domain._actor)))

    def _require_open(self) -> None:
        if self.ended:
            raise ClosedError("the batch has ended; what is added to it now would never be written")


def _when_us(when: datetime | int | None) -> int | None:
    return None if when is None else moment_us(when)


def _require_unchanged(unchanged: object) -> None:
    if unchanged != "append" and unchanged != "skip":
        raise ConfigError(f"unchanged is 'append' or 'skip', not {unchanged!r}")


def _require_event_id(event_id: object) -> None:
    if not isinstance(event_id, str) or not event_id:
        raise ConfigError(f"event_id is a string that is not empty, not {event_id!r}")
    try:
        size = len(event_id.encode())
    except UnicodeEncodeError:
        raise ConfigError(f"event_id {event_id!r} holds a lone surrogate, which is no character") from None
    if size > MAX_EVENT_ID_BYTES:
        raise ConfigError(f"an event_id of {size} bytes; at most {MAX_EVENT_ID_BYTES} are allowed")


def _demand(expected: object) -> Expected | int:
    if isinstance(expected, Expected):
        return expected
    if isinstance(expected, int) and not isinstance(expected, bool) and expected > 0:
        return expected
    raise ConfigError(f"expected is ANY, ABSENT, PRESENT or the position of the key's current event, not {expected!r}")


def _request(*parts: str | int | None) -> str:
    return hashlib.sha256(_encode_json(parts)).hexdigest()[:16]
