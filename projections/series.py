"""Series: the candles of one context, as sorted columns; Candles: those of a whole domain, folded from its events."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any

import msgspec

from eventstore.codec import decode_key
from eventstore.model import SYSTEM_KEY, Event, Part

FIELDS = ("open", "high", "low", "close", "volume")
"""What a candle says, beside its timestamp."""
MEMBERS = ("timestamp", *FIELDS)
"""All that it says."""

_members = itemgetter(*MEMBERS)

MAX_MOMENT = 2**53
"""Moments, in milliseconds, are numbers of JavaScript: integers that a double holds."""

Context = tuple[Part, ...]


class Columns(msgspec.Struct, omit_defaults=True):
    """The candles of one event: their timestamps as a list, or as where they start and how they go on; and a list a field."""

    open: list[float]
    high: list[float]
    low: list[float]
    close: list[float]
    volume: list[float]
    timestamp: list[int] = []
    start: int = 0
    step: int = 0

    @property
    def timestamps(self) -> Sequence[int]:
        """When each candle opens, in milliseconds, rising."""
        return self.timestamp or range(self.start, self.start + self.step * len(self.open), self.step or 1)

    @property
    def is_sound(self) -> bool:
        """Whether there is one number of each kind at every moment, and the moments rise."""
        times = self.timestamps
        if any(len(getattr(self, field)) != len(times) for field in FIELDS):
            return False
        rises = all(one < next_ for one, next_ in pairwise(times)) if self.timestamp else self.step > 0
        return rises and all(abs(time) <= MAX_MOMENT for time in (*times[:1], *times[-1:]))


_decode = msgspec.json.Decoder(Columns).decode


def read_columns(text: str | bytes) -> Columns | None:
    """The candles of an event; None for a value that is none: what cannot be read counts as missing, as the contract has it."""
    try:
        columns = _decode(text)
    except msgspec.DecodeError:
        return None
    return columns if columns.is_sound else None


def columns_of(candles: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The value of the event that keeps these candles, which are in order."""
    times, *columns = map(list, zip(*map(_members, candles), strict=True))
    step = times[1] - times[0] if len(times) > 1 else 0
    regular = step and times == list(range(times[0], times[-1] + 1, step))
    moments: dict[str, Any] = {"start": times[0], "step": step} if regular else {"timestamp": times}
    return {**moments, **dict(zip(FIELDS, columns, strict=True))}


def candles_of(members: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    """Candles of what each says, in order of MEMBERS."""
    return [
        {"timestamp": timestamp, "open": opened, "high": high, "low": low, "close": close, "volume": volume}
        for timestamp, opened, high, low, close, volume in members
    ]


class Series:
    """Candles by their timestamps: 48 bytes each, and what the arrays keep in reserve. The first candle at a moment stands."""

    __slots__ = ("_columns", "_times")

    def __init__(self) -> None:
        self._times = array("q")
        self._columns = tuple(array("d") for _ in FIELDS)

    def __len__(self) -> int:
        return len(self._times)

    def __contains__(self, timestamp: int) -> bool:
        place = bisect_left(self._times, timestamp)
        return place < len(self._times) and self._times[place] == timestamp

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(zip(MEMBERS, members, strict=True)) for members in zip(self._times, *self._columns, strict=True))

    def add(self, columns: Columns) -> None:
        """Take in candles, in order of their timestamps, where there are none yet."""
        times = columns.timestamps
        given = [getattr(columns, field) for field in FIELDS]
        for first, last, place in list(self._gaps(times)):
            self._times[place:place] = array("q", times[first:last])
            for column, values in zip(self._columns, given, strict=True):
                column[place:place] = array("d", values[first:last])

    def missing(self, times: Sequence[int]) -> list[tuple[int, int]]:
        """Which of these rising timestamps are not there: where runs of them begin in `times`, and end."""
        return [(first, last) for first, last, _ in self._gaps(times)][::-1]

    def _gaps(self, times: Sequence[int]) -> Iterator[tuple[int, int, int]]:
        """Runs of new timestamps that go between the same two that are there: first, last, and where; from the end, so that places hold."""
        last = len(times)
        while last:
            place = bisect_left(self._times, times[last - 1])
            if place < len(self._times) and self._times[place] == times[last - 1]:
                last -= 1
                continue
            first = bisect_left(times, self._times[place - 1] + 1, 0, last) if place else 0
            yield first, last, place
            last = first

    def read(self, since: int, step: int, limit: int) -> list[dict[str, Any]] | None:
        """The candles at since, since + step, ..., `limit` of them; None if any is missing."""
        if limit > len(self._times):
            return None
        wanted = range(since, since + step * limit, step)
        first = bisect_left(self._times, since)
        if self._times[first : first + limit] == array("q", wanted):
            return candles_of(zip(wanted, *(column[first : first + limit] for column in self._columns), strict=True))
        # Others may stand between them.
        places = [bisect_left(self._times, timestamp, first) for timestamp in wanted]
        if any(place == len(self._times) or self._times[place] != timestamp for place, timestamp in zip(places, wanted, strict=True)):
            return None
        return candles_of(zip(wanted, *([column[place] for place in places] for column in self._columns), strict=True))


class Candles:
    """context -> Series as of `position`: a fold over the events of a domain whose keys are a context and a timestamp."""

    __slots__ = ("_series", "position")

    def __init__(self) -> None:
        self.position = 0
        self._series: dict[Context, Series] = {}

    def of(self, context: Context) -> Series:
        """The series of a context, empty if it has none."""
        return self._series.get(context) or Series()

    def contexts(self) -> list[Context]:
        """The contexts that have candles."""
        return list(self._series)

    def apply(self, event: Event, text: str | None) -> bool:
        """Take the next event and its text, None if that was erased; whether it erased others, which may have been taken before."""
        self.position = event.position
        if event.key == SYSTEM_KEY:
            return event.op == "redact"
        key = decode_key(event.key)
        # A key that ends in no moment is nobody's here: somebody wrote to the domain by himself.
        if text is not None and isinstance(key, tuple) and isinstance(key[-1], int) and (columns := read_columns(text)) is not None:
            self._series.setdefault(key[:-1], Series()).add(columns)
        return False
