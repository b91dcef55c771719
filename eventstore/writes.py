"""Writes: the write verbs, once, from arguments to a Call; DomainStore waits for its answer, aio.DomainStore awaits it."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, ClassVar, Generic, TypeAlias, TypeGuard, TypeVar, Unpack

import msgspec

from eventstore.clock import moment_us
from eventstore.codec import encode_key, encode_prefix
from eventstore.coding import Blob
from eventstore.commit import Call, Standing
from eventstore.errors import ClosedError, ConfigError
from eventstore.live import Live
from eventstore.meta import EventMeta, Meta, meta_text
from eventstore.model import ANY, DURABILITIES, Domain, Durability, Expected, Key, Receipt
from eventstore.rules import Intent, Unchanged
from eventstore.values import LARGE, encode_value, require_size, take_value

MAX_EVENT_ID_BYTES = 1_024
_MANY = 1_000
"""Items up to which an event loop may do in passing what there is to do for each of them beside its value."""
_encode_json = msgspec.json.Encoder().encode

One = TypeVar("One")
"""What a verb that writes one event gives: its Receipt, or an awaitable of it."""
Many = TypeVar("Many")
"""What a verb that writes many gives: their Receipts, or an awaitable of them."""

Text: TypeAlias = str | Callable[[], str]
"""A value's text, or what is left to do for it, in any thread: it looks at nothing that the caller may change."""
Draft: TypeAlias = Intent | Callable[[], Intent]
"""An Intent, or what is left to do for it, likewise."""
Ready: TypeAlias = Call | Callable[[], Call]
"""A Call, or what is left to do for it, likewise."""


Items = Sequence[tuple[Key, Any]]
"""Keys, and what is written under them."""


class Writes(Generic[One, Many]):
    """The verbs that write to one domain, whoever waits for them.

    Arguments that all writes share: `when`, the caller's own time (aware datetime or microseconds); `expected`, what the
    key must be for the write to happen (ANY, ABSENT, PRESENT or the position of its current event); `event_id`, which
    names this call for ever, so that a retry gets the first answer and writes nothing; `durability`, for this call;
    and the EventMeta members. All raise InvalidKeyError, InvalidValueError, NaiveTimeError, ConfigError before anything is
    written, WrongExpectedError, ContractError, DuplicateEventError when the answer is no, EngineError when the machine refuses.
    """

    domain: Domain
    _live: Live
    _actor: str | None
    _max_value_bytes: int
    _hurried: ClassVar[bool] = False
    """Whether others wait for the caller's thread: what takes long is then left to be done in another."""

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
    ) -> One:
        """Append `value` as what `key` is now. `unchanged="skip"` appends nothing if value and `when` are those that stand."""
        draft = self._put(key, value, when, expected, unchanged, meta_text(meta, self._actor))
        return self._one(
            self._call([draft], event_id, durability) if isinstance(draft, Intent) else self._ready([draft], event_id, durability)
        )

    def remove_value(
        self,
        key: Key,
        *,
        when: datetime | int | None = None,
        expected: Expected | int = ANY,
        event_id: str | None = None,
        durability: Durability | None = None,
        **meta: Unpack[EventMeta],
    ) -> One:
        """Append that `key` is gone. Its history stays; `appended` is False if there was nothing to remove."""
        return self._one(self._call([self._remove(key, when, expected, meta_text(meta, self._actor))], event_id, durability))

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
    ) -> Many:
        """Append all of `items` or none of them; one receipt each, in order. `expected` holds for every key."""
        _require_unchanged(unchanged)
        keys, values = _apart(items)
        at_us, demand, (meta_json, said) = when_us(when), demanded(expected), meta_text(meta, self._actor)
        call, texts = self._call((), event_id, durability), self._texts(values)

        def finished() -> Call:
            intents = [
                Intent("put", encode_key(key), text if isinstance(text, str) else text(), at_us, meta_json, said, demand, unchanged)
                for key, text in zip(keys, texts, strict=True)
            ]
            if self.domain.codec is not None or self.domain.subject is not None:
                intents = list(map(self._coded, intents))
            return msgspec.structs.replace(call, intents=intents)

        at_once = not self._hurried or (len(keys) <= _MANY and all(map(self._is_quick, texts)))
        return self._many(finished() if at_once else finished)

    def remove_all(
        self,
        prefix: Key | None = None,
        *,
        when: datetime | int | None = None,
        event_id: str | None = None,
        durability: Durability | None = None,
        **meta: Unpack[EventMeta],
    ) -> Many:
        """Append that every key under `prefix` (None: every key) is gone, all or none; a receipt for each that was there."""
        texts, at_us = meta_text(meta, self._actor), when_us(when)
        named = encode_prefix(prefix)

        def chosen(standing: Standing) -> list[Intent]:
            return [Intent("remove", key, None, at_us, *texts) for key in standing.present(prefix)]

        return self._many(self._call(chosen, event_id, durability, request_of("remove_all", named, at_us, texts[1])))

    def write_chosen(self, items: Items, choose: Callable[[Standing], Items]) -> Many:
        """write_values(items), or what `choose` gives in their place once nobody else writes; it gives `items` itself if it is right still.

        It is called with the lock held: it may read this domain, and must not write.
        """
        drafts = self._puts(items)

        def call() -> Call:
            known = _intents(drafts)

            def chosen(standing: Standing) -> list[Intent]:
                anew = choose(standing)
                return known if anew is items else _intents(self._puts(anew))

            return self._call(chosen, None, None)

        return self._many(call() if _are_made(drafts) else call)

    def _puts(self, items: Items) -> list[Draft]:
        return [self._put(key, value, None, ANY, "append", meta_text({}, self._actor)) for key, value in items]

    # ---- from arguments to a call

    @abstractmethod
    def _one(self, call: Ready) -> One:
        """The answer to a call of one write."""

    @abstractmethod
    def _many(self, call: Ready) -> Many:
        """The answers to a call of many."""

    def _ready(self, drafts: Sequence[Draft], event_id: str | None, durability: Durability | None) -> Ready:
        if _are_made(drafts):
            return self._call(drafts, event_id, durability)
        return partial(_finished, self._call((), event_id, durability), drafts)

    def _call(
        self,
        intents: Sequence[Intent] | Callable[[Standing], Sequence[Intent]],
        event_id: str | None,
        durability: Durability | None,
        request: str | None = None,
    ) -> Call:
        if event_id is not None:
            _require_event_id(event_id)
        return Call(intents, event_id, self._level(durability), request)

    def _put(self, key: Key, value: Any, when: datetime | int | None, expected: Expected | int, unchanged: Unchanged, meta: Meta) -> Draft:
        _require_unchanged(unchanged)
        take = take_value if self._hurried else encode_value
        text = take(value, self.domain.value, max_bytes=self._max_value_bytes)
        said = text if isinstance(text, str) else None
        intent = Intent("put", encode_key(key), said, when_us(when), *meta, demanded(expected), unchanged)
        if said is None or (self._hurried and not self._live.coding.is_quick(self.domain, said)):
            return partial(self._finished, intent, text)
        return self._coded(intent)

    def _finished(self, intent: Intent, text: Text) -> Intent:
        return self._coded(intent if isinstance(text, str) else msgspec.structs.replace(intent, data=text()))

    def _texts(self, values: Sequence[Any]) -> Sequence[Text]:
        """What is stored for `values`; where they are large all together, what is left to do for it."""
        declared, max_bytes = self.domain.value, self._max_value_bytes
        if not self._hurried:
            return [encode_value(value, declared, max_bytes=max_bytes) for value in values]
        limit = LARGE // max(len(values), 1)
        return [take_value(value, declared, max_bytes=max_bytes, limit=limit) for value in values]

    def _is_quick(self, text: Text) -> bool:
        """Whether what is left to do for a value may be done here and now."""
        return not self._hurried or (isinstance(text, str) and self._live.coding.is_quick(self.domain, text))

    def _coded(self, intent: Intent) -> Intent:
        """The intent as the domain stores its values."""
        domain = self.domain
        if (domain.codec is None and domain.subject is None) or intent.data is None:
            return intent
        blob = self._live.coding.encode(domain, intent.key, intent.data)
        return intent if blob is None else msgspec.structs.replace(intent, blob=blob)

    def _remove(self, key: Key, when: datetime | int | None, expected: Expected | int, meta: Meta) -> Intent:
        return Intent("remove", encode_key(key), None, when_us(when), *meta, demanded(expected))

    def _level(self, durability: Durability | None) -> Durability:
        if durability is None:
            return self._live.log.durability
        if durability not in DURABILITIES or (durability == "memory") != (self._live.log.durability == "memory"):
            offers = (
                "a memory: store survives nothing" if self._live.log.durability == "memory" else "a folder has process, power or power+"
            )
            raise ConfigError(f"durability {durability!r} cannot be had here; {offers}")
        return durability


class Batch:
    """Writes gathered by `with domain.batch() as b:`; arguments as for the verbs of the same names."""

    def __init__(self, writes: Writes[Any, Any]) -> None:
        self._writes = writes
        self.drafts: list[Draft] = []
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
        self.drafts.append(self._writes._put(key, value, when, expected, unchanged, meta_text(meta, self._writes._actor)))

    def write_blob(self, key: Key, blob: Blob, *, when: datetime | int | None = None, **meta: Unpack[EventMeta]) -> None:
        """Add a write of what is encrypted already, for this very store, domain and key. Raises ClosedError, InvalidValueError."""
        self._require_open()
        require_size(len(blob.content), self._writes._max_value_bytes)
        said = meta_text(meta, self._writes._actor)
        self.drafts.append(Intent("put", encode_key(key), None, when_us(when), *said, blob=blob))

    def remove_value(
        self, key: Key, *, when: datetime | int | None = None, expected: Expected | int = ANY, **meta: Unpack[EventMeta]
    ) -> None:
        """Add a removal. Raises ClosedError after the block."""
        self._require_open()
        self.drafts.append(self._writes._remove(key, when, expected, meta_text(meta, self._writes._actor)))

    def _require_open(self) -> None:
        if self.ended:
            raise ClosedError("the batch has ended; what is added to it now would never be written")


def made(call: Ready) -> Call:
    """The Call, once what was left to do for it is done."""
    return call if isinstance(call, Call) else call()


def when_us(when: datetime | int | None) -> int | None:
    """The caller's time in microseconds, None if he named none. Raises NaiveTimeError, ConfigError."""
    return None if when is None else moment_us(when)


def demanded(expected: object) -> Expected | int:
    """`expected` as it was meant. Raises ConfigError for what is no demand."""
    if isinstance(expected, Expected):
        return expected
    if isinstance(expected, int) and not isinstance(expected, bool) and expected > 0:
        return expected
    raise ConfigError(f"expected is ANY, ABSENT, PRESENT or the position of the key's current event, not {expected!r}")


def request_of(*parts: str | int | None) -> str:
    """16 hex digits that tell one request from another where the writes themselves cannot."""
    return hashlib.sha256(_encode_json(parts)).hexdigest()[:16]


def _finished(call: Call, drafts: Sequence[Draft]) -> Call:
    return msgspec.structs.replace(call, intents=_intents(drafts))


def _intents(drafts: Sequence[Draft]) -> list[Intent]:
    return [draft if isinstance(draft, Intent) else draft() for draft in drafts]


def _are_made(drafts: Sequence[Draft]) -> TypeGuard[Sequence[Intent]]:
    return not any(map(callable, drafts))


def _apart(items: object) -> tuple[list[Any], list[Any]]:
    """The keys of `items` and their values, before anything else may raise. Raises ConfigError for what are no pairs."""
    if isinstance(items, Mapping):
        raise ConfigError("items are (key, value) pairs: pass mapping.items()")
    if not isinstance(items, Iterable):
        raise ConfigError(f"items are (key, value) pairs, not {items!r}")
    given, keys, values = list(items), [], []
    try:
        for key, value in given:
            keys.append(key)
            values.append(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"items are (key, value) pairs: {error}") from error
    return keys, values


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
