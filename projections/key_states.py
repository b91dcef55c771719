"""What every key is now: the fold of a log, and beside it a bounded cache of values."""

from __future__ import annotations

import re
import threading
from bisect import insort
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from eventstore.codec import decode_key, encode_prefix
from eventstore.model import SYSTEM_KEY, Event, Head, Key, KeyState, Status

_FEW = 40
"""One new key among so many is cheaper put in its place than sorted in with all of them."""

_digit_runs = re.compile(r"(\d+)", re.ASCII)


class Redaction(msgspec.Struct):
    """What a redact event says: the positions whose values it erased."""

    positions: list[int] = []


read_redaction = msgspec.json.Decoder(Redaction).decode


def state_of(event: Event) -> KeyState:
    """What a key is once this event of it was appended."""
    status: Status = "removed" if event.op == "remove" else "present" if event.data is not None else "redacted"
    return KeyState(event.position, event.when_us, status)


class KeyStates:
    """key -> KeyState as of `head`; the keys are canonical text. A fold: apply() is all that changes it."""

    __slots__ = ("_ordered", "_states", "checksum", "position", "present", "recorded_us", "system")

    def __init__(self, head: Head, recorded_us: int, system: int = 0, states: dict[str, KeyState] | None = None) -> None:
        self.position = head.position
        self.checksum = head.checksum
        self.recorded_us = recorded_us
        """When the head was recorded: the next event's stamp lies above it."""
        self.system = system
        """Position of the log's own latest event, what the next one names as its prev."""
        self._states: dict[str, KeyState] = states if states is not None else {}
        self.present = sum(state.status != "removed" for state in self._states.values())
        """How many keys are there, redacted ones included."""
        self._ordered: list[str] = []

    def apply(self, *events: Event) -> None:
        """Take the next events. The caller has checked them."""
        states, present = self._states, self.present
        for event in events:
            key = event.key
            if key == SYSTEM_KEY:
                self.system = event.position
                if event.op == "redact":
                    self._redact(event)
                continue
            before = states.get(key)
            states[key] = state = state_of(event)
            present += (state.status != "removed") - (before is not None and before.status != "removed")
        self.present = present
        if events:
            # Last of all: whoever finds the states at a head finds everything up to that head.
            last = events[-1]
            self.checksum, self.recorded_us, self.position = last.checksum, last.recorded_us, last.position

    def pass_over(self, event: Event) -> None:
        """Go on behind an event that says nothing of any key."""
        self.checksum, self.recorded_us, self.position = event.checksum, event.recorded_us, event.position

    @property
    def head(self) -> Head:
        """The last event folded."""
        return Head(self.position, self.checksum)

    def _redact(self, event: Event) -> None:
        positions = set(read_redaction(event.data or "{}").positions)
        for key, state in self._states.items():
            if state.position in positions and state.status == "present":
                self._states[key] = KeyState(state.position, state.when_us, "redacted")

    def get(self, key: str) -> KeyState | None:
        """The state of a canonical key, None if it was never written."""
        return self._states.get(key)

    def __len__(self) -> int:
        return len(self._states)

    def snapshot(self) -> dict[str, KeyState]:
        """A copy of all states, removed keys included."""
        return dict(self._states)

    def keys(self, prefix: Key | None = None) -> Iterator[tuple[str, KeyState]]:
        """The keys that are there, with their states, in natural order; `prefix` names their leading parts."""
        opening = encode_prefix(prefix)
        whole = opening[:-1] + "]"  # the key that is the prefix itself
        # The list is replaced, never changed: a loop over it survives writes that come in between.
        for key in self._in_order():
            if key.startswith(opening) or key == whole:
                state = self._states[key]
                if state.status != "removed":
                    yield key, state

    def written(self, prefix: Key | None = None) -> list[str]:
        """The keys under `prefix` that were ever written, removed ones included, in no order."""
        opening = encode_prefix(prefix)
        whole = opening[:-1] + "]"
        return [key for key in list(self._states) if key.startswith(opening) or key == whole]

    def _in_order(self) -> list[str]:
        """All keys, sorted. Keys never leave, and new ones stand last in the dictionary: the length says whether it is all of them."""
        ordered = self._ordered
        if len(ordered) < len(self._states):
            keys = list(self._states)
            new = keys[len(ordered) :]
            if len(new) * _FEW < len(keys):
                ordered = ordered.copy()
                for key in new:
                    insort(ordered, key, key=natural_order)
            else:
                ordered = sorted(keys, key=natural_order)
            self._ordered = ordered
        return ordered


def natural_order(key: str) -> list[Any]:
    """Sort key of a canonical key: part by part; digit runs by number, the rest by casefold, ties by code point.

    So "id2" stands before "id10", as people expect, and as backtest-kit lists its keys. Integers come before strings.
    """
    whole = decode_key(key)
    order: list[Any] = []
    for part in whole if isinstance(whole, tuple) else (whole,):
        if isinstance(part, int):
            order.append((0, part))
        else:
            # re.split alternates text and digits, so texts meet texts and numbers numbers in every comparison.
            runs = _digit_runs.split(part)
            order.append((1, [int(run) if index % 2 else run.casefold() for index, run in enumerate(runs)], part))
    return order


class ValueCache:
    """Texts of values by domain and position, the least recently used forgotten first; bounded by bytes, not by count.

    One serves all domains of a store. Safe between threads.
    """

    __slots__ = ("_bytes", "_lock", "_texts", "capacity", "erasures")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.erasures = 0
        """How often values were erased: what was read before the last time may be one of them."""
        self._bytes = 0
        self._texts: OrderedDict[tuple[str, int], str] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, domain: str, position: int) -> str | None:
        """The text of the value written at `position`, if it is still here."""
        place = (domain, position)
        text = self._texts.get(place)
        if text is not None:
            try:
                self._texts.move_to_end(place)
            except KeyError:  # another thread made room in between; the text is good all the same
                return text
        return text

    def put(self, domain: str, position: int, text: str, *, erasures: int) -> None:
        """Keep a text, making room for it; not if anything was erased since there were so many `erasures`: it may have been this."""
        size = _cost(text)
        place = (domain, position)
        with self._lock:
            if size > self.capacity or place in self._texts or erasures != self.erasures:
                return
            self._texts[place] = text
            self._bytes += size
            self._make_room()

    def follow(self, domain: str, events: Sequence[Event]) -> None:
        """Keep what the next events of a domain say, forget what they replace."""
        texts = self._texts
        with self._lock:
            size = self._bytes
            for event in events:
                data = event.data
                if event.prev and (replaced := texts.pop((domain, event.prev), None)) is not None:
                    size -= _cost(replaced)
                if event.op == "put" and isinstance(data, str) and (cost := _cost(data)) <= self.capacity:
                    texts[domain, event.position] = data
                    size += cost
                elif event.op == "redact" and isinstance(data, str):
                    size -= self._erase(domain, read_redaction(data).positions)
            self._bytes = size
            self._make_room()

    def drop(self, domain: str, positions: Iterable[int]) -> None:
        """Forget the values at `positions`: they were erased."""
        with self._lock:
            self._bytes -= self._erase(domain, positions)

    def _erase(self, domain: str, positions: Iterable[int]) -> int:
        """Forget values for good; gives the bytes that they took."""
        self.erasures += 1
        return sum(_cost(text) for position in positions if (text := self._texts.pop((domain, position), None)) is not None)

    def _make_room(self) -> None:
        while self._bytes > self.capacity:
            _, oldest = self._texts.popitem(last=False)
            self._bytes -= _cost(oldest)

    def after_fork(self) -> None:
        """In a forked child: another thread may have held the lock when the process split."""
        self._lock = threading.Lock()


def _cost(text: str) -> int:
    """Bytes an entry takes: the characters, and about 200 for the objects and links around them."""
    return 200 + (len(text) if text.isascii() else 4 * len(text))
