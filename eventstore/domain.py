"""DomainStore: what one domain says now, and the writes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Unpack

from eventstore.codec import encode_key
from eventstore.commit import Call, earlier
from eventstore.errors import ConfigError, NotFoundError, RedactedError, WrongExpectedError
from eventstore.group import GroupCommit
from eventstore.meta import EventMeta, meta_text
from eventstore.model import ABSENT, ANY, Domain, Durability, Expected, Key, Receipt
from eventstore.rules import Intent
from eventstore.values import encode_value
from eventstore.view import DomainView, cut_at
from eventstore.writes import Batch, Writes, demanded, request_of, when_us

_MISSING: Any = object()


class DomainStore(Writes[Receipt, list[Receipt]], DomainView):
    """One domain, live: every read verb of DomainView, and the writes. Made by Store.domain(); safe to share between threads.

    What all writes share is described at Writes. Threads that write at the same time share a transaction.
    """

    def __init__(self, domain: Domain, group: GroupCommit, *, store: object, actor: str | None, max_value_bytes: int) -> None:
        super().__init__(domain, group.live, None)
        self._store = store
        """Only kept: the owner's lease ends with the store, and must not end while this can be written."""
        self.group, self._actor, self._max_value_bytes = group, actor, max_value_bytes

    def _one(self, call: Call) -> Receipt:
        return self.group.commit(call)[0]

    def _many(self, call: Call) -> list[Receipt]:
        return self.group.commit(call)

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
        if not callable(change):
            raise ConfigError(f"change is a function that makes the new value from the one that stands, not {change!r}")
        texts, at_us, canonical = meta_text(meta, self._actor), when_us(when), encode_key(key)
        request = request_of("update_value", canonical, at_us, texts[1])
        if event_id is not None:
            call = self._call([], event_id, durability, request)
            if earlier(self._live, self.group.clock, call) is not None:
                return self._one(call)
        while True:
            state = self.state_of(key)
            standing = state is not None and state.status != "removed"
            value = self._value_of(canonical, state) if standing and state is not None else default
            if value is _MISSING:
                raise self._missing(canonical, state)
            expected: Expected | int = state.position if standing and state is not None else ABSENT
            text = encode_value(change(value), self.domain.value, max_bytes=self._max_value_bytes)
            try:
                return self._one(self._call([Intent("put", canonical, text, at_us, *texts, expected)], event_id, durability, request))
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
        batch.receipts = self._many(self._call(batch.intents, event_id, durability))

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
        if event.op != "remove" and not isinstance(event.data, str):
            raise RedactedError(self.name, position)
        meta.setdefault("reason", f"restored from position {position}")
        data = event.data if isinstance(event.data, str) else None
        intent = Intent(event.op, canonical, data, when_us(when), *meta_text(meta, self._actor), demanded(expected))
        return self._one(self._call([intent], event_id, durability))

    # ---- reading the past

    def state(self, as_of: datetime | int | None = None) -> DomainView:
        """The domain as of a position (inclusive) or a recorded time (aware datetime); None and the future pin to the head."""
        return DomainView(self.domain, self._live, cut_at(self._live.log, self._live.pointers, as_of))
