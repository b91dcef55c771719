"""Intents: what is done outside the store is recorded before, acknowledged after, and listed while nobody knows.

No store can make an order at an exchange part of its own transaction. What it can do: say durably what is about to be done,
so that a crash leaves a question with a name instead of a silence. The answer is the other side's, asked by the same id.

An ordinary domain, INTENTS: the key is the event id, the value an IntentRecord, the key's history every attempt, by every
verb and every command that other domains have. Three statuses, and what each of them means:

    pending    begun, or ended by an exception: whether it happened is uncertain. Never act again without asking.
    done       it happened, once; `result` is what the caller kept of the answer.
    failed     the caller is certain that it did not and never will happen. Try again under a new id.

The first settlement, done or failed, stands for ever; an id names one effect for ever, as an event_id names one call.
"""

from __future__ import annotations

import os
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from eventstore.codec import encode_key
from eventstore.domain import DomainStore
from eventstore.errors import (
    ClosedError,
    ConfigError,
    ContractError,
    DuplicateEventError,
    EventStoreError,
    InvalidValueError,
    RedactedError,
    SettledError,
    UncertainError,
    WrongExpectedError,
)
from eventstore.meta import EventMeta
from eventstore.model import ABSENT, Domain, Durability, Event, Expected, Key, Receipt
from eventstore.rules import Unchanged
from eventstore.values import decode_value, encode_value

IntentStatus = Literal["pending", "done", "failed"]

NOTE_CHARS = 300
"""How much of an exception is noted."""

NOTE_BYTES = 2_048
"""Kept free beside an effect, so that its acknowledgement, or the note of an exception, always fits: 300 characters of at most 6 bytes."""


class IntentRecord(msgspec.Struct, frozen=True):
    """What the domain INTENTS holds under an event id."""

    status: IntentStatus
    effect: Any
    result: Any = None
    """What done() was given."""
    reason: str | None = None
    """What fail() was given."""
    error: str | None = None
    """Of a pending one: the exception that ended its block, as "Type: message"."""
    pid: int | None = None
    """Of a pending one: the process that began it."""


INTENTS = Domain("intents", value=IntentRecord)
"""The domain that holds the intents of a store."""


class UncertainIntent(msgspec.Struct, frozen=True):
    """An effect that was begun and not settled: it may have happened, or not, or be under way in another process."""

    event_id: str
    effect: Any
    since_us: int
    """When it was first begun, in microseconds."""
    actor: str | None
    """Who wrote its latest record."""
    pid: int | None
    """The process that wrote its latest record."""
    error: str | None
    """The exception that ended its block, as "Type: message"; None if the process ended first, or has not yet."""


class OpenIntent:
    """What `with store.intent(event_id, effect) as intent:` gives. Acts for one block; `done` or `fail` say how it went.

    The block runs only where acting is right, because a `with` cannot skip its body, and a flag can be forgotten: for the
    second order it would be the flag that nobody looked at. Whatever speaks against acting is raised on entering.
    """

    def __init__(
        self,
        domain: DomainStore,
        event_id: str,
        effect: str,
        *,
        resume: bool,
        durability: Durability | None,
        max_bytes: int,
        meta: EventMeta,
    ) -> None:
        self.event_id = event_id
        self.uncertain = False
        """Whether it was begun before (only with resume=True): ask the other side before acting, or act under the same id."""
        self.status: IntentStatus = "pending"
        """What this block has said of it so far, or has been told."""
        self.result: Any = None
        """What done() was given."""
        self._domain, self._effect, self._resume = domain, effect, resume
        self._durability: Durability | None = durability
        self._max_bytes, self._meta = max_bytes, meta
        self._state: Literal["new", "inside", "ended"] = "new"
        self._expected: Expected | int = ABSENT
        """What the record must be for the next write: ours."""
        self._settled: tuple[str, Receipt] | None = None

    @property
    def effect(self) -> Any:
        """What is to be done, as plain data."""
        return decode_value(self._effect)

    def __enter__(self) -> Self:
        if self._state != "new":
            raise ConfigError(f"intent {self.event_id!r} was entered already: call store.intent() for each block")
        while True:
            standing = self._standing()
            if standing is None:
                self._expected = ABSENT
            else:
                self._require_resumable(*standing)
                self._expected = standing[0].position
            try:
                self._write(_pending(self._effect))
            except WrongExpectedError:
                continue  # another was first: its record is the answer
            self._state, self.uncertain = "inside", standing is not None
            return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self.status == "pending" and error is None:
                self.done()
            elif self.status == "pending" and isinstance(error, Exception):
                self._note(error)
        finally:
            self._state = "ended"

    def done(self, result: Any = None) -> Receipt:
        """It happened: record it, with what is to be kept of the answer (any JSON), durable when this returns.

        Leaving the block without a word says done(None). Raises InvalidValueError (say it again with another result),
        SettledError if another process has settled it otherwise meanwhile, EngineError: the effect stays uncertain then.
        """
        self._require_inside()
        receipt = self._settle("done", f'"result":{encode_value(result, max_bytes=self._max_bytes)}')
        self.result = result
        return receipt

    def fail(self, reason: str) -> Receipt:
        """The caller is certain that it did not happen and never will: the other side refused it, or was never asked.

        "I had no answer" and "it does not know the id yet" are not that: the request may still be on its way. Raises as done().
        """
        self._require_inside()
        _require_reason(reason)
        return self._settle("failed", f'"reason":{encode_value(reason, max_bytes=self._max_bytes)}')

    # ---- what stands, and what may follow it

    def _standing(self) -> tuple[Event, IntentRecord] | None:
        """The latest record of this id; None if there is none."""
        event = next(self._domain.history(self.event_id, limit=1), None)
        return None if event is None or event.op == "remove" else (event, _record_of(event))

    def _require_resumable(self, event: Event, record: IntentRecord) -> None:
        # Of what came as msgspec.Raw the text may differ from the one that plain data gets.
        if encode_value(record.effect, max_bytes=self._max_bytes) != encode_value(self.effect, max_bytes=self._max_bytes):
            raise DuplicateEventError(INTENTS.name, self.event_id, event.position)
        if record.status != "pending":
            raise _settled(self.event_id, event.position, record)
        if not self._resume:
            raise UncertainError(INTENTS.name, self.event_id, event.position, pid=record.pid, error=record.error)

    def _require_inside(self) -> None:
        if self._state != "inside":
            raise ClosedError(f"intent {self.event_id!r}: done() and fail() belong inside its `with` block")

    def _settle(self, status: IntentStatus, said: str) -> Receipt:
        text = f'{{"status":"{status}","effect":{self._effect},{said}}}'
        while self._settled is None:
            try:
                self._settled = text, self._write(text, unchanged="skip")
                self.status = status
            except WrongExpectedError:
                self._expected = self._followed(text)
        if self._settled[0] != text:
            raise _settled(self.event_id, self._settled[1].position, decode_value(self._settled[0], IntentRecord))
        return self._settled[1]

    def _followed(self, text: str) -> Expected | int:
        """What `text` may follow, where the record is not ours any more. Raises SettledError if it was settled otherwise.

        Another process resumed it, noted an error, or settled it. The same words again are the same settlement, which an
        acknowledgement that failed half way needs; a record that somebody removed is written anew.
        """
        standing = self._standing()
        if standing is None:
            return ABSENT
        event, record = standing
        if record.status == "pending" or event.data == text:
            return event.position
        # Whoever is told need not be told again on leaving. What is expected stays what it was: nothing written here may follow.
        self.status = record.status
        error = _settled(self.event_id, event.position, record)
        error.add_note(f"here it was to be {text}: nothing was written; ask the other side which of the two is true")
        raise error from None

    def _note(self, error: Exception) -> None:
        """Keep the exception with the record, which stays pending. It is raised whatever becomes of the note."""
        try:
            self._write(_pending(self._effect, error=_described(error)))
        except WrongExpectedError:
            error.add_note(f"intent {self.event_id!r}: more was recorded there since, so that this exception was not noted")
        except EventStoreError as failure:
            error.add_note(f"intent {self.event_id!r} stays uncertain, and this exception could not be noted there: {failure}")

    def _write(self, text: str, *, unchanged: Unchanged = "append") -> Receipt:
        value = msgspec.Raw(text.encode())
        receipt = self._domain.write_value(
            self.event_id, value, expected=self._expected, durability=self._durability, unchanged=unchanged, **self._meta
        )
        self._expected = receipt.position
        return receipt


def _require_reason(reason: object) -> None:
    if not isinstance(reason, str) or not reason:
        raise ConfigError(f"reason is a string that says why nothing happened, not {reason!r}")


def effect_text(event_id: str, effect: Any, *, max_bytes: int) -> str:
    """The JSON text of an effect that may be recorded under `event_id`. Raises ConfigError, InvalidKeyError, InvalidValueError."""
    if not isinstance(event_id, str):
        raise ConfigError(f"the event_id of an intent is a string, not {event_id!r}")
    encode_key(event_id)
    if max_bytes <= NOTE_BYTES:
        raise ConfigError(f"max_value_bytes is {max_bytes}; intents need more than {NOTE_BYTES}, which they keep free for what follows")
    return encode_value(effect, max_bytes=max_bytes - NOTE_BYTES)


def uncertain_intents(domain: DomainStore) -> list[UncertainIntent]:
    """Every pending intent of the domain, the one begun first at the head of the list."""
    try:
        pending = list(filter(partial(_is_pending, domain), domain.keys()))
    except InvalidValueError as error:
        raise _foreign(str(error)) from error
    found = [_uncertain(domain, key) for key in pending if isinstance(key, str)]
    return sorted((intent for intent in found if intent is not None), key=lambda intent: intent.since_us)


def _is_pending(domain: DomainStore, key: Key) -> bool:
    """Whether it waits to be settled; one whose record was redacted can be settled by nobody any more."""
    try:
        record = domain.get(key)
    except RedactedError:
        return False
    return record is not None and record.status == "pending"


def _uncertain(domain: DomainStore, event_id: str) -> UncertainIntent | None:
    """What the log says of one; None if it was settled or removed while the list was made."""
    latest: Event | None = None
    first: Event | None = None
    for event in domain.history(event_id):
        if event.op == "remove":
            break  # what was before is another life of the id
        latest, first = latest or event, event
    if latest is None or first is None:
        return None
    record = _record_of(latest)
    if record.status != "pending":
        return None
    meta = decode_value(latest.meta or "{}")
    return UncertainIntent(event_id, record.effect, first.recorded_us, meta.get("actor"), record.pid, record.error)


def _record_of(event: Event) -> IntentRecord:
    if not isinstance(event.data, str):
        raise RedactedError(INTENTS.name, event.position)
    try:
        record: IntentRecord = decode_value(event.data, IntentRecord)
    except InvalidValueError as error:
        raise _foreign(f"{event.key}@{event.position}: {error}") from error
    return record


def _foreign(found: str) -> ContractError:
    return ContractError(
        f"{INTENTS.name}: not the record of an intent: {found}; only Store.intent() writes here, keep other values elsewhere"
    )


def _settled(event_id: str, position: int, record: IntentRecord) -> SettledError:
    return SettledError(INTENTS.name, event_id, position, record.status, result=record.result, reason=record.reason)


def _pending(effect: str, *, error: str | None = None) -> str:
    noted = "" if error is None else f',"error":{encode_value(error)}'
    return f'{{"status":"pending","effect":{effect}{noted},"pid":{os.getpid()}}}'


def _described(error: Exception) -> str:
    try:
        message = str(error)
    except Exception as failure:  # noqa: BLE001  whatever a foreign __str__ does, the first exception is the one that counts
        message = f"(its message could not be made: {type(failure).__name__})"
    # Half an emoji could be kept, but not be shown on a terminal by whoever reads the note.
    return f"{type(error).__name__}: {message}".encode(errors="backslashreplace").decode()[:NOTE_CHARS]
