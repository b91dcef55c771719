"""The read verbs, once, over a log and a cut. The live domain is the view whose cut is open (see store.py)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any

from eventstore.carried import prove_carried
from eventstore.clock import moment_us
from eventstore.codec import check, check_all, check_linked, decode_key, encode_key
from eventstore.errors import (
    ChecksumError,
    ConfigError,
    CorruptionError,
    FormatError,
    GapError,
    InvalidValueError,
    NotFoundError,
    RedactedError,
)
from eventstore.live import Live, newest_start
from eventstore.log import EventLog, proven
from eventstore.model import Domain, Event, Head, Key, KeyState, Linked
from eventstore.pointers import PointerFolder
from eventstore.projections.key_states import KeyStates
from eventstore.values import decode_value, is_json

_log = logging.getLogger("eventstore")

_PAGE = 64

_PROVEN = 16
"""Events proven at a time; as many as may be large together without being a burden."""


class DomainView:
    """What one domain held at a cut: every read verb there is.

    Keys are a string or a tuple of strings and integers; values come back as the domain's declared type.
    """

    def __init__(self, domain: Domain, live: Live, cut: KeyStates | None) -> None:
        self.domain = domain
        self._live = live
        self._cut = cut
        """The key states at the cut; None is the open cut: what is known now."""

    @property
    def name(self) -> str:
        """The domain's name."""
        return self.domain.name

    def _states(self) -> KeyStates:
        if self._cut is None:
            return self._live.fresh()
        self._live.fresh()  # what was redacted since must not be handed out of memory
        return self._cut

    # ---- values

    def read_value(self, key: Key) -> Any:
        """The value of `key`. Raises NotFoundError (a KeyError) if it is absent or removed, RedactedError, InvalidKeyError."""
        text = encode_key(key)
        return self._value_of(text, self._states().get(text))

    def _value_of(self, text: str, state: KeyState | None) -> Any:
        if state is None or state.status != "present":
            raise self._missing(text, state)
        position = state.position
        return self._decoded(position, self._live.cache.get(self.domain.name, position) or self._live.text(text, state))

    def _decoded(self, position: int, text: str) -> Any:
        try:
            return decode_value(text, self.domain.value)
        except InvalidValueError as error:
            if is_json(text):
                raise
            raise FormatError(self.name, position, f"the stored value is not JSON ({error}); run `eventstore verify`") from error

    def get(self, key: Key, default: Any = None) -> Any:
        """The value of `key`, `default` if it is absent or removed. Raises RedactedError, InvalidKeyError."""
        try:
            return self.read_value(key)
        except NotFoundError:
            return default

    def has_value(self, key: Key) -> bool:
        """Whether `key` has a value now; false once it was removed, true when its value was redacted."""
        state = self.state_of(key)
        return state is not None and state.status != "removed"

    def __contains__(self, key: Key) -> bool:
        return self.has_value(key)

    def __bool__(self) -> bool:
        return True  # a domain without keys is still a domain

    def __len__(self) -> int:
        return self._states().present

    def state_of(self, key: Key) -> KeyState | None:
        """Where the latest event of `key` stands, and whether it is present, removed or redacted; None if never written."""
        return self._states().get(encode_key(key))

    def at_hand(self, key: Key) -> bool:
        """Whether read_value(key) would answer from memory, without a look at the disk."""
        if self._live.log.moved(self._live.states.position):
            return False
        state = (self._live.states if self._cut is None else self._cut).get(encode_key(key))
        return state is None or state.status != "present" or self._live.at_hand(state.position)

    def keys(self, prefix: Key | None = None) -> Iterator[Key]:
        """The keys that have a value, in natural order (id2 before id10); `prefix` names their leading parts."""
        return (decode_key(text) for text, _ in self._states().keys(prefix))

    def items(self, prefix: Key | None = None) -> Iterator[tuple[Key, Any]]:
        """Keys and values in natural order. Raises RedactedError at a redacted one: keys() and get() go around it."""
        selected = self._states().keys(prefix)
        while page := list(islice(selected, _PAGE)):
            for _, state in page:
                if state.status == "redacted":
                    raise RedactedError(self.name, state.position)
            for (_, state), (text, value) in zip(page, self._live.texts(page), strict=True):
                yield decode_key(text), self._decoded(state.position, value)

    def values(self, prefix: Key | None = None) -> Iterator[Any]:
        """The values in natural order of their keys. Raises RedactedError at a redacted one."""
        return (value for _, value in self.items(prefix))

    def _missing(self, text: str, state: KeyState | None) -> NotFoundError | RedactedError:
        if state is not None and state.status == "redacted":
            return RedactedError(self.name, state.position)
        when = "was removed" if state is not None else "was never written"
        if self._cut is not None:
            when += f" as of position {self._cut.position}"
        return NotFoundError(f"{self.name} {text}: no value: the key {when}")

    # ---- events

    def head(self) -> Head:
        """Position and checksum of the last event of this cut: what a durable cursor keeps."""
        return self._cut.head if self._cut is not None else self._live.head()

    @property
    def floor(self) -> int:
        """Events up to this position may be missing, as their files are in an archive that is not attached; 0 if all are there."""
        return self._live.log.floor()

    def events(
        self,
        after: int = 0,
        until: int | None = None,
        key: Key | None = None,
        reverse: bool = False,
        limit: int | None = None,
        carried: bool = False,
    ) -> Iterator[Event]:
        """The events with after < position <= until, oldest first, or newest first with `reverse`; `limit` counts from there.

        With `key`, only that key's. As stored: `event.data` is JSON text. Each is checked against the one before it, and a
        damaged one raises CorruptionError; where the store was opened read_only, to look at what is there, a warning in the log says of
        each that it is shown all the same, or passed over. Raises CompactedError where they are not at hand.

        `carried=True`, with `after` the position of a seal (as `floor` is), or 0: first what is carried over that seal, the log's
        own events and the latest of every key, by position, which says what every key is there; for a fold that starts late.
        """
        _require_whole(after=after, until=0 if until is None else until, limit=0 if limit is None else limit)
        if limit is not None and limit < 0:
            raise ConfigError(f"limit {limit} is negative")
        last = self.head().position if until is None else min(until, self.head().position)
        limit = None if limit is None else min(limit, sys.maxsize)  # more than islice takes
        after = max(after, 0)  # the birth row is not one of the events
        if carried:
            if key is not None or reverse:
                raise ConfigError("carried=True gives all keys, oldest event first: without key and reverse")
            self._require_start(after)
            return islice(self._carried(after, last), limit)
        if key is not None:
            return islice(self._events_of(encode_key(key), after, last, reverse, _PAGE if limit is None else min(limit, _PAGE)), limit)
        if reverse:
            return islice(self._reversed(after, last), limit)
        return islice(self._proven(after, last), limit)

    def event(self, position: int) -> Event:
        """The event at `position`, checked against the one before it; 0 is the birth row, which says whose log this is.

        Raises NotFoundError, ConfigError for what is no position, CorruptionError.
        """
        _require_whole(position=position)
        head = self.head()  # before it is read: only who knows of a redaction looks where nothing is left of it
        found = self._live.log.linked([position])
        if not found and 0 <= position <= head.position:
            raise GapError(self.name, position, position)  # a row that is damaged is not found, and was written all the same
        if not found or position > head.position:
            raise NotFoundError(f"{self.name}@{position}: no such event; the head is position {head.position}")
        check_linked(found[0], self.name)
        return found[0].event

    def text_of(self, event: Event) -> str | None:
        """The JSON text of the value of one of this domain's events, however it is stored; None for a removal.

        `event.data` is that text itself, unless `meta` names a codec. Raises RedactedError, FormatError.
        """
        if not isinstance(event, Event):
            raise ConfigError(f"event is one of this domain's events, not {event!r}")
        return self._live.text_of(event)

    def history(self, key: Key, limit: int | None = None) -> Iterator[Event]:
        """Every event of `key`, removals included, newest first. Nothing if it was never written."""
        encode_key(key)  # None would be every key's
        return self.events(key=key, reverse=True, limit=limit)

    def _proven(self, after: int, last: int) -> Iterator[Event]:
        """Events that follow each other, each checked against the one before it."""
        # Refuses the whole where a part is not at hand. The first one by itself may be: carried, where the rest of its file is gone.
        next(self._live.log.read(after, until=last, limit=1), None)
        first = self._live.log.linked([after + 1]) if after < last else []
        yield from self._apart(first)
        head = Head(after + 1, first[0].event.checksum) if first else Head(after, b"")
        stream = self._live.log.read(head.position, until=last)
        while some := list(islice(stream, _PROVEN)):
            try:
                head = check_all(head, some, self.name)
            except CorruptionError:
                for event in some:  # those before the damaged one are good
                    if self._is_shown(event, partial(check, head, event, self.name)):
                        yield event
                        head = Head(event.position, event.checksum)
            else:
                yield from some

    def _apart(self, found: Sequence[Linked]) -> Iterator[Event]:
        """Events that stand anywhere, each checked against the one before it."""
        for each in found:
            if self._is_shown(each.event, partial(check_linked, each, self.name)):
                yield each.event

    def _is_shown(self, event: Event, proof: Callable[[], object]) -> bool:
        """Whether it is: an event that is proven. Of a store that was opened read_only, one that was altered as well, with a warning."""
        try:
            proof()
        except CorruptionError as error:
            if not self._live.lenient:
                raise
            # What a damaged page gives may be no event at all.
            shown = isinstance(error, ChecksumError | GapError) and event.position > 0 and bool(event.op and event.checksum)
            _log.warning("%s; %s", error, "it is shown as it is stored" if shown else "it is passed over")
            return shown
        return True

    def _require_start(self, position: int) -> None:
        newest = self._live.log.start(position)
        if newest != position:
            raise ConfigError(f"{self.name}@{position}: no seal stands there, over which anything is carried; the one before is {newest}")

    def _carried(self, start: int, last: int) -> Iterator[Event]:
        yield from prove_carried(self._live.log.carried(start), start, self.name, lenient=self._live.lenient)
        yield from self._proven(start, last)

    def _reversed(self, after: int, last: int) -> Iterator[Event]:
        while last > after:
            start, floor = max(after, last - _PAGE), self._live.log.floor()
            if start < floor < last:
                start = floor  # what is at hand comes first; who goes on from there is told what is not
            yield from reversed(list(self._proven(start, last)))
            last = start

    def _chain(self, text: str, after: int, last: int, page_size: int) -> Iterator[list[Linked]]:
        state = self._states().get(text)
        position = state.position if state is not None else 0
        while position > after:
            page = self._live.log.chain(position, limit=max(page_size, 1))
            yield [each for each in page if after < each.event.position <= last]
            prev = page[-1].event.prev if page else 0
            position = prev if prev < position else 0

    def _events_of(self, text: str, after: int, last: int, reverse: bool, page_size: int) -> Iterator[Event]:
        if reverse:
            for page in self._chain(text, after, last, page_size):
                yield from self._apart(page)
            return
        # Positions first, so that a long history is not held in memory.
        positions = [each.event.position for page in self._chain(text, after, last, _PAGE) for each in page]
        positions.reverse()
        for start in range(0, len(positions), _PAGE):
            yield from self._apart(self._live.log.linked(positions[start : start + _PAGE]))


def cut_at(log: EventLog, pointers: PointerFolder, as_of: datetime | int | None) -> KeyStates:
    """The key states as of a position (inclusive) or a recorded time; None and anything in the future pin to the head.

    Raises ConfigError, NaiveTimeError, CompactedError.
    """
    head = log.head().position
    if isinstance(as_of, datetime):
        position = position_at(log, moment_us(as_of), head)
    elif as_of is None:
        position = head
    elif not _is_position(as_of):
        raise ConfigError(f"as_of is a position (0 is the empty log) or an aware datetime, not {as_of!r}")
    else:
        position = min(as_of, head)
    states = newest_start(log, pointers, position)
    last = states.head
    for event in log.read(last.position, until=position):
        last = check(last, event, log.domain)
        states.apply(event)
    return states


def _require_whole(**numbers: object) -> None:
    """Refuse what is no whole number, by its name. Raises ConfigError."""
    for name, given in numbers.items():
        if not isinstance(given, int) or isinstance(given, bool):
            raise ConfigError(f"{name} is a whole number, not {given!r}")


def _is_position(as_of: object) -> bool:
    return isinstance(as_of, int) and not isinstance(as_of, bool) and as_of >= 0


def position_at(log: EventLog, recorded_us: int, head: int) -> int:
    """The last position recorded at or before a time. recorded_us rises with position, so a bisection over what is at hand finds it.

    Each event that it looks at is proven: one bit in a time would lead it to another moment, which a later proof takes for the one
    asked for. Raises CompactedError for a time before what is at hand, CorruptionError.
    """
    low, high = log.floor(), head
    if low and proven(log, [low])[0].recorded_us > recorded_us:
        next(log.read(low - 1, until=low))  # raises CompactedError
    while low < high:
        middle = (low + high + 1) // 2
        if proven(log, [middle])[0].recorded_us <= recorded_us:
            low = middle
        else:
            high = middle - 1
    return low
