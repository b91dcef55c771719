"""DomainStore: what one domain says now, and the writes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Unpack

from eventstore.codec import decode_key, encode_key
from eventstore.coding import AES_GCM, codecs_of
from eventstore.commit import earlier
from eventstore.erasure import Erasure, Selection, Told, copies_left, erase
from eventstore.errors import (
    CompactedError,
    ConfigError,
    CorruptionError,
    FormatError,
    GapError,
    NotFoundError,
    StoreFormatError,
    WrongExpectedError,
)
from eventstore.group import GroupCommit
from eventstore.log import FileLog
from eventstore.meta import EventMeta, meta_text
from eventstore.model import ABSENT, ANY, Domain, Durability, Event, Expected, Key, Receipt
from eventstore.rules import Intent
from eventstore.values import encode_value, require_size
from eventstore.view import DomainView, cut_at
from eventstore.writes import Batch, Ready, Writes, demanded, made, request_of, when_us

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

    def _one(self, call: Ready) -> Receipt:
        return self.group.commit(made(call))[0]

    def _many(self, call: Ready) -> list[Receipt]:
        return self.group.commit(made(call))

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

        An absent key starts from `default`; without one NotFoundError. `change` may run more than once; where it writes
        to this domain itself, that is a ConfigError. Retried with the same `event_id`, it is not called again.
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
            with self.group.changing():
                changed = change(value)
            text = encode_value(changed, self.domain.value, max_bytes=self._max_value_bytes)
            try:
                intent = self._coded(Intent("put", canonical, text, at_us, *texts, expected))
                return self._one(self._call([intent], event_id, durability, request))
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
        batch.receipts = self._many(self._ready(batch.drafts, event_id, durability))

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

        Raises NotFoundError if that is no event of `key`, RedactedError if its value was erased, InvalidValueError if it is
        larger than the store's max_value_bytes are by now: a new event is held to them, whatever it repeats.
        """
        canonical = encode_key(key)
        event = self.event(position)
        if event.key != canonical:
            raise NotFoundError(f"{self.name}@{position}: not an event of {canonical}; `history` lists its events")
        text = self.text_of(event)
        if text is not None:
            require_size(len(text.encode()), self._max_value_bytes)
        meta.setdefault("reason", f"restored from position {position}")
        intent = Intent(event.op, canonical, text, when_us(when), *meta_text(meta, self._actor), demanded(expected))
        return self._one(self._call([self._coded(intent)], event_id, durability))

    # ---- erasing

    def redact(
        self,
        key: Key | None = None,
        *,
        prefix: Key | None = None,
        positions: Iterable[int] | None = None,
        reason: str,
        actor: str | None = None,
        dry_run: bool = False,
        take_over: bool = False,
    ) -> Erasure:
        """Erase values for good: every one that `key` ever had, those of all keys under `prefix`, or those written at `positions`.

        That a value was there, when, and its digest remain, and an event says who erased it and why; keys and metadata
        remain too. Gone are the values in every file of the log, the write-ahead log included, and in memory. What else may
        hold a copy is in the report, as far as it lies in the store's folder. Redacted again, the same is found erased
        `already`, and looked for anew. A sealed file that cannot be read is passed by, and named in the report: what only it has
        is not erased. Nor is what an attached archive has, if another store put files there, of which this one may be a copy: it is
        named in the report; `take_over` erases there, too, and lets this store be the one that does from now on: say so of one that
        was moved or restored. `dry_run` says what would be erased.

        The answer is durable, at `power` or better. Raises NotFoundError if nothing was ever written there, CompactedError if that
        may be, but only in files that are not at hand; CorruptionError for what is read and does not prove; ConfigError for a
        position of the log's own events; EngineError, after which it can be called again.
        """
        said = self._said(reason, actor)
        if (key is not None) + (prefix is not None) + (positions is not None) != 1:
            raise ConfigError("name one of these: a key, a prefix (() is the whole domain), or positions")
        chosen = None if positions is None else _positions(positions)
        found = _Found(self, lambda selection, after, until: self._selected(selection, key, prefix, chosen, after, until))
        if not found.selection:
            if found.selection.met is not None:
                raise found.selection.met  # a value there never was, or one that only the archive has
            what = f"the key {encode_key(key)}" if key is not None else "any key there" if prefix is not None else "those positions"
            raise NotFoundError(f"{self.name}: {what} never had a value; nothing was erased")
        if dry_run:
            holding, already = found.selection.holding, found.selection.already
            return Erasure(
                self.name, None, sorted(holding), sorted(already), copies_left(self._live.log, found.selection, take_over=take_over)
            )
        return erase(self.group, found.selection, found.more, said, take_over=take_over)

    def redact_encrypted(self, keys: Sequence[str], *, reason: str, actor: str | None = None, take_over: bool = False) -> Erasure | None:
        """Erase every value that was encrypted with one of `keys`, which were destroyed; None if there never was any. As redact().

        A write that found its key alive, under the lock, may still be under way: so the lock is taken before that is said.
        """
        codecs = {f"{AES_GCM}:{key}" for key in keys}

        def encrypted(selection: Selection, after: int, until: int) -> Iterator[Event]:
            for event in self._readable(selection, after, until):
                if event.meta is not None and AES_GCM in event.meta and not codecs.isdisjoint(codecs_of(event)):
                    yield event

        said = self._said(reason, actor)
        if isinstance(log := self._live.log, FileLog):
            log.missing()  # looks which files there are now: the floor is where reading begins, and another process may have archived
        found = _Found(self, encrypted)
        if not found.selection:
            with self.group.alone():
                found.more()
        if not found.selection:
            return None
        return erase(self.group, found.selection, found.more, said, shredded=keys, take_over=take_over)

    def redact_told(self, tell: Callable[[Event], Told | None]) -> Selection:
        """Erase every value that redactions of another log mean, each with its own event here, as who was asked there said it.

        `tell` gives the redaction that an event is meant by, None for any other. Gives all that are meant: those that are erased
        by now, those that were before, and whether more of them may stand where it could not be looked. Raises as redact() does.
        """
        if isinstance(log := self._live.log, FileLog):
            log.missing()  # as in redact_encrypted
        met = Selection(self.name)
        chosen: dict[int, tuple[Told, Selection]] = {}
        for event in self._readable(met, 0, self.head().position):
            if (told := tell(event)) is not None:
                met.add([event])
                if event.data is not None:
                    chosen.setdefault(told.position, (told, Selection(self.name)))[1].add([event])
        for _, (told, selection) in sorted(chosen.items()):
            erase(self.group, selection, lambda: None, meta_text(told.meta, self._actor)[0], shredded=told.keys)
            met.holding -= selection.already  # on record before, and in another store's archive all the same
            met.already |= selection.already
        return met

    def _readable(self, selection: Selection, after: int, until: int) -> Iterator[Event]:
        """What is at hand of the events with after < position <= until, and can be read; of the rest what later files carry."""
        floor = self.floor
        carried, reached = after < floor, max(after, floor)
        selection.cut_off |= carried
        while True:
            try:
                for event in self.events(reached, until, carried=carried):
                    reached = max(reached, event.position)
                    yield event
            except (CorruptionError, StoreFormatError) as error:
                reached, carried = selection.pass_by(self._live.log, reached + 1, error), True
            else:
                return

    def _said(self, reason: str, actor: str | None) -> str | None:
        said = meta_text({"actor": actor, "reason": reason}, self._actor)[0]
        if not reason:
            raise ConfigError("a redaction says why: reason is a string that is not empty")
        return said

    def _selected(
        self, selection: Selection, key: Key | None, prefix: Key | None, positions: list[int] | None, after: int, until: int
    ) -> Iterator[Event]:
        """What a redaction means, of the events with after < position <= until, each proven: what is erased cannot be put back."""
        if positions is not None:
            for position in positions if after == 0 else ():
                yield self._holder(position)
            return
        for text in [encode_key(key)] if key is not None else self._states().written(prefix):
            yield from self._of_key(text, selection, after, until)

    def _of_key(self, text: str, selection: Selection, after: int, until: int) -> Iterator[Event]:
        """The events of a key, newest first, until one is not at hand, or its file cannot be read: the report names that one."""
        state = self._states().get(text)
        events, position = self.events(after, until, decode_key(text), reverse=True), 0 if state is None else state.position
        while True:
            try:
                event = next(events, None)
            except CompactedError as error:
                selection.cut_off, selection.met = True, error
                return
            except (FormatError, GapError, StoreFormatError) as error:
                selection.pass_by(self._live.log, position, error)
                return
            if event is None:
                return
            yield event
            position = event.prev

    def _holder(self, position: int) -> Event:
        event = self.event(position)
        if event.op == "remove":
            raise NotFoundError(f"{self.name}@{position}: a removal, which holds no value; nothing was erased")
        return event

    # ---- reading the past

    def state(self, as_of: datetime | int | None = None) -> DomainView:
        """The domain as of a position (inclusive) or a recorded time (aware datetime); None and the future pin to the head."""
        return DomainView(self.domain, self._live, cut_at(self._live.log, self._live.pointers, as_of))


def _positions(given: Any) -> list[int]:
    positions = list(given) if isinstance(given, Iterable) else [given]
    if not all(isinstance(position, int) and not isinstance(position, bool) for position in positions):
        raise ConfigError(f"positions are whole numbers, not {given!r}")
    return sorted(set(positions))


class _Found:
    """What a redaction means, found once without the lock, and what was written since found once more with it."""

    def __init__(self, domain: DomainStore, select: Callable[[Selection, int, int], Iterable[Event]]) -> None:
        self.selection = Selection(domain.name)
        self._domain, self._select, self._reached = domain, select, 0
        self.more()

    def more(self) -> None:
        """Look at what came since the last time."""
        until = self._domain.head().position
        self.selection.add(self._select(self.selection, self._reached, until))
        self._reached = until
