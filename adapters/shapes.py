"""The four shapes that serve all contracts: One record a context, Keyed, Rows of a list, Series of candles.

A shape turns a method's arguments into a key and a value, and what a shelf (shelf.py) gives into what the engine expects.
It is the same on every shelf. instances.py gives its verbs the names that a contract's row says.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from eventstore.adapters.contracts import STEPS_MS, Contract, camel, require_text
from eventstore.adapters.shelf import ABSENT, Backend, Once, Parts, Shelf, When, aside
from eventstore.errors import ContractError
from eventstore.projections.series import MAX_MOMENT, MEMBERS, candles_of
from eventstore.values import decode_value
from eventstore.writes import when_us

_members = operator.itemgetter(*MEMBERS)


class Shape:
    """What all instances have: their contract, their context, and the shelf that their records are on.

    Records are plain data, or JSON text (msgspec.Raw) on a shelf that reads such. The verbs that write take an `event_id`: see Shelf.
    """

    contract: Contract

    def __init__(self, *context: Any, backend: Callable[[], Backend]) -> None:
        self.context = context
        self._parts = self.contract.parts(context)
        self._choose = backend
        self._backend: Backend | None = None
        self._ready = Once(self._open)

    async def _open(self) -> None:
        backend = self._choose()
        await (await backend.shelf(self.contract)).prepare(self._parts)
        self._backend = backend

    async def wait_for_init(self, initial: bool = True) -> None:
        """Return when the instance can be used. Whoever calls at one moment waits for the same opening; `initial` is only told."""
        await self._ready()

    async def _open_shelf(self) -> Shelf:
        if self._backend is None:
            await self._ready()
            assert self._backend is not None  # _open() has put it there, or raised
        return await self._backend.shelf(self.contract)  # each time: the backend may have been closed, and opens again

    def _found(self, value: Any) -> Any:
        """A record as the engine expects it: what is null, absent or removed is the contract's empty value.

        JSON text stays as it came: who reads it repairs it, as JSON has no Infinity, and only the engine knows its own settings.
        """
        if not self._is_there(value):
            return self.contract.empty()
        return value if self.contract.repair is None or isinstance(value, msgspec.Raw) else self.contract.repair(value)

    def _is_there(self, value: Any) -> bool:
        """Whether it is a record: not null, absent, or by its own word removed, as one in a file of the framework's may be."""
        return not (value is ABSENT or _is_null(value) or (self.contract.soft and _member(value, "removed") is True))

    async def _read(self, key: Parts) -> Any:
        value = await (await self._open_shelf()).read(key)
        return await aside(lambda: self._found(value), [value])

    async def _records(self) -> list[tuple[str, Any]]:
        """The ids and records of the context that are there, as the engine expects them."""
        items = await (await self._open_shelf()).items(self._parts)
        found = lambda: [(id_, self._found(value)) for id_, value in items if self._is_there(value)]  # noqa: E731
        return await aside(found, (value for _, value in items))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.context!r}>"


class One(Shape):
    """One record a context."""

    async def read(self, when: When | None = None) -> Any:
        """The record. `when` is not asked: the engine's own classes hide what lies in the future."""
        return await self._read(self._parts)

    async def write(self, data: Any, when: When | None = None, *, event_id: str | None = None) -> None:
        """Make `data` the record, null included. Raises NaiveTimeError, wherever records are kept."""
        when_us(when)
        await (await self._open_shelf()).write(self._parts, data, when, event_id)


class Keyed(Shape):
    """Records by an id within a context."""

    def _key(self, id_: str) -> tuple[str | int, ...]:
        return (*self._parts, require_text(self.contract.name, self.contract.id, id_))

    async def read(self, id_: str, when: When | None = None) -> Any:
        """The record. `when` is not asked."""
        return await self._read(self._key(id_))

    async def write(self, data: Any, id_: str, when: When | None = None, *, event_id: str | None = None) -> None:
        """Make `data` the record, null included; one that was removed is back. Raises NaiveTimeError, wherever records are kept."""
        when_us(when)
        await (await self._open_shelf()).write(self._key(id_), data, when, event_id)

    async def has(self, id_: str) -> bool:
        """Whether the record was ever written, removed or not."""
        return await (await self._open_shelf()).has(self._key(id_))

    async def remove(self, id_: str, *, event_id: str | None = None) -> None:
        """Make the record read as nothing; nothing happens if there is none."""
        await (await self._open_shelf()).remove(self._key(id_), event_id)

    async def list(self) -> AsyncIterator[Any]:
        """The records that are there, in natural order of their ids: the ids alone, or with what stands under them."""
        for id_, record in await self._records():
            yield id_ if self.contract.listed == "ids" else {camel(self.contract.id): id_, "data": record}


class Rows(Shape):
    """A list, kept row by row: a write of a thousand rows of which one is new is one record."""

    async def read(self) -> list[Any]:
        """Every row that was ever written, in natural order of the ids. How many the engine wants is its own business."""
        return [row for _, row in await self._records()]

    async def write(self, rows: Iterable[Any], *, event_id: str | None = None) -> None:
        """Write the rows that are new or changed; none is ever removed. Raises ContractError for a row without an id."""
        listed = _listed(self.contract, rows)
        keyed = await aside(lambda: [((*self._parts, self._id(row)), row) for row in listed], listed)
        await (await self._open_shelf()).write_rows(keyed, event_id)

    def _id(self, row: Any) -> str:
        return require_text(self.contract.name, "the id of a row", _member(row, "id"))


class Series(Shape):
    """Candles: the first one written stands; a read gives all that it asks for, or None."""

    async def read(self, limit: int, since_timestamp: int, until_timestamp: int) -> list[dict[str, Any]] | None:
        """The `limit` candles from `since_timestamp` on (milliseconds); None if any is missing. `until_timestamp` is not asked."""
        step = step_of(self.contract, self.context)
        for name, given in (("limit", limit), ("since_timestamp", since_timestamp)):
            _require_moment(self.contract, name, given)
        if limit < 0:
            raise ContractError(f"{self.contract.name}: limit {limit} is negative")
        return await (await self._open_shelf()).read_candles(self._parts, since_timestamp, step, limit)

    async def write(self, candles: Iterable[Any], *, event_id: str | None = None) -> None:
        """Keep the candles that are new; one that is not closed yet by the wall clock is passed over: it may still change.

        Idempotent by nature, as the first one stands: no `event_id` is kept.
        """
        step, now_ms = step_of(self.contract, self.context), time.time_ns() // 1_000_000
        found: dict[int, Sequence[Any]] = {}
        for members in members_of(self.contract, _listed(self.contract, candles)):
            if members[0] + step <= now_ms:
                found.setdefault(members[0], members)
        if found:
            kept = candles_of(found[timestamp] for timestamp in sorted(found))
            await (await self._open_shelf()).add_candles(self._parts, kept)


def step_of(contract: Contract, context: Sequence[Any]) -> int:
    """Milliseconds from one candle of a context to the next. Raises ContractError for an interval that is none."""
    interval = context[1]
    if interval not in STEPS_MS:
        raise ContractError(f"{contract.name}: interval {interval!r} is none of {', '.join(STEPS_MS)}")
    return STEPS_MS[interval]


def members_of(contract: Contract, given: Sequence[Any]) -> list[Sequence[Any]]:
    """What each candle says, in order of MEMBERS. Raises ContractError."""
    plain = [msgspec.to_builtins(each) if isinstance(each, msgspec.Struct) else each for each in given]
    try:
        members = list(map(_members, plain))
    except (KeyError, TypeError):
        odd = [each for each in plain if not isinstance(each, Mapping) or any(name not in each for name in MEMBERS)]
        raise ContractError(f"{contract.name}: a candle has {', '.join(MEMBERS)}; {odd[0]!r} has not") from None
    # Column by column: a thousand candles are six thousand numbers, and nearly all are at once seen to be what they should.
    for name, column in zip(MEMBERS, zip(*members, strict=True), strict=False):
        are_right, require = (_are_moments, _require_moment) if name == "timestamp" else (_are_doubles, _require_double)
        if not are_right(column):
            for number in column:
                require(contract, name, number)
    return members


SHAPES: dict[str, type[Shape]] = {"one": One, "keyed": Keyed, "rows": Rows, "series": Series}
"""By the name that a row has for them."""


class _Marks(msgspec.Struct):
    """What a shape asks of a record. The rest of its text is passed over: nothing is made of it."""

    id: Any = None
    removed: Any = None


_marks = msgspec.json.Decoder(_Marks).decode


def _member(record: Any, name: str) -> Any:
    """What a record, or the one that a JSON text is, has under a name of _Marks; None if it has nothing there."""
    if isinstance(record, msgspec.Raw):
        try:
            return getattr(_marks(record), name)
        except (msgspec.MsgspecError, UnicodeEncodeError):  # no object, or half an emoji, which is JSON all the same
            record = decode_value(bytes(record).decode())
    return record.get(name) if isinstance(record, Mapping) else getattr(record, name, None)


def _is_null(value: Any) -> bool:
    return bytes(value).strip() == b"null" if isinstance(value, msgspec.Raw) else value is None


def _listed(contract: Contract, given: object) -> Sequence[Any]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise ContractError(f"{contract.name}: a list is written, not {given!r}")
    return list(given)


def _are_moments(column: Sequence[Any]) -> bool:
    """Whether these are plain integers, none too large."""
    return set(map(type, column)) == {int} and min(column) >= -MAX_MOMENT and max(column) <= MAX_MOMENT


def _are_doubles(column: Sequence[Any]) -> bool:
    """Whether these are plain floats, all finite: if one is not, neither is their sum."""
    return set(map(type, column)) == {float} and math.isfinite(sum(column))


def _require_moment(contract: Contract, name: str, given: object) -> None:
    if isinstance(given, bool) or not isinstance(given, int) or abs(given) > MAX_MOMENT:
        raise ContractError(f"{contract.name}: {name} is a whole number within 2^53, not {given!r}")


def _require_double(contract: Contract, name: str, given: Any) -> None:
    """The engine's numbers are doubles; one that no double holds would come back as another."""
    try:
        exact = isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given) and float(given) == given
    except OverflowError:  # an integer beyond all doubles
        exact = False
    if not exact:
        raise ContractError(f"{contract.name}: {name} is a finite number that a double holds, not {given!r}")
