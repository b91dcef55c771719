"""Shelf and Backend: where records are kept, as the shapes of the contracts ask for it. Their docstrings are what a backend owes.

Two of them ship: the event store, in a folder or in memory (event_shelf.py), and the framework's own JSON files (json_files.py);
and one that keeps nothing. Whatever else has these methods serves every contract as well.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

import msgspec

from eventstore.adapters.contracts import Contract
from eventstore.clock import moment_us
from eventstore.errors import InvalidValueError
from eventstore.model import Part

Parts = tuple[Part, ...]
"""A key, or the leading parts of one: strings and integers."""

When = datetime | int
"""An aware datetime, or integer microseconds since 1970 UTC."""


LARGE_BYTES = 2**18
"""Of JSON text that nobody else waits for while it is looked at."""

R = TypeVar("R")


class Absent:
    """There is no such record, or it was removed."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent()


class Shelf(Protocol):
    """The records of one contract. What a read gives, another process wrote a moment ago; what a write acknowledged is durable.

    A key is the context's parts and, for contracts that have one, an id. Keys that differ are never one record, and none leads
    out of the shelf: a shelf that cannot keep a key apart raises ContractError and has done nothing.

    `event_id` names a write for ever: one that is made again writes nothing, and is refused with a DuplicateEventError if it asks
    for something else. Where what is written first stands, a write is such by nature, and needs none. A shelf without a log
    takes it and does what it would do without. A value may be JSON text (msgspec.Raw); a shelf that reads such text gives it as it came.
    """

    async def prepare(self, context: Parts) -> None:
        """Be ready for records of this context: called before the first of them, once or more often, and cheap."""
        ...

    async def read(self, key: Parts) -> Any:
        """The record as plain data, None if null was written; ABSENT if it never was, or was removed."""
        ...

    async def has(self, key: Parts) -> bool:
        """Whether the record was ever written, removed or not."""
        ...

    async def write(self, key: Parts, value: Any, when: When | None, event_id: str | None = None) -> None:
        """Make `value` what the record is now, whatever it was, and whatever `when` it had."""
        ...

    async def write_rows(self, rows: Sequence[tuple[Parts, Any]], event_id: str | None = None) -> None:
        """Write each row that is not just as it stands already; under the rule "first", each that there is none of."""
        ...

    async def remove(self, key: Parts, event_id: str | None = None) -> bool:
        """Make the record read as ABSENT; False if it did so already."""
        ...

    async def items(self, context: Parts) -> list[tuple[str, Any]]:
        """The ids and records of a context that are there, in natural order of the ids: id2 before id10."""
        ...

    async def read_candles(self, context: Parts, since: int, step: int, limit: int) -> list[dict[str, Any]] | None:
        """The candles at since, since + step, ..., `limit` of them; None if any is missing."""
        ...

    async def add_candles(self, context: Parts, candles: Sequence[dict[str, Any]]) -> None:
        """Keep the candles, in order of their timestamps, each different, where there is none yet."""
        ...


class Backend(Protocol):
    """Shelves for contracts."""

    async def shelf(self, contract: Contract) -> Shelf:
        """The shelf of a contract; asked twice, the same one or one just like it."""
        ...


class DummyBackend:
    """Keeps nothing: every read finds nothing."""

    async def shelf(self, contract: Contract) -> Shelf:
        """See Backend.shelf."""
        return _DummyShelf()


class _DummyShelf:
    async def prepare(self, context: Parts) -> None:
        """See Shelf.prepare."""

    async def read(self, key: Parts) -> Any:
        """See Shelf.read."""
        return ABSENT

    async def has(self, key: Parts) -> bool:
        """See Shelf.has."""
        return False

    async def write(self, key: Parts, value: Any, when: When | None, event_id: str | None = None) -> None:
        """See Shelf.write."""

    async def write_rows(self, rows: Sequence[tuple[Parts, Any]], event_id: str | None = None) -> None:
        """See Shelf.write_rows."""

    async def remove(self, key: Parts, event_id: str | None = None) -> bool:
        """See Shelf.remove."""
        return False

    async def items(self, context: Parts) -> list[tuple[str, Any]]:
        """See Shelf.items."""
        return []

    async def read_candles(self, context: Parts, since: int, step: int, limit: int) -> list[dict[str, Any]] | None:
        """See Shelf.read_candles."""
        return None if limit else []

    async def add_candles(self, context: Parts, candles: Sequence[dict[str, Any]]) -> None:
        """See Shelf.add_candles."""


class Once:
    """Work that is done once, however many ask for it at one moment; if it failed, the next who asks starts it again."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._done = False

    async def __call__(self) -> None:
        if self._done:
            return
        task = self._task
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            task = self._task = asyncio.ensure_future(self._run())  # each event loop its own: another thread's may stand here at once
        await asyncio.shield(task)  # whoever is cancelled does not cancel it for the others

    async def _run(self) -> None:
        await self._work()
        self._done = True


async def aside(work: Callable[[], R], looked_at: Iterable[Any]) -> R:
    """`work()`; in a thread, if what it looks at is so much JSON text that the event loop would be held up."""
    size = sum(memoryview(each).nbytes for each in looked_at if isinstance(each, msgspec.Raw))
    return work() if size < LARGE_BYTES else await asyncio.to_thread(work)


def as_json(value: Any) -> Any:
    """`value` as the engine's JSON.stringify would have it: Infinity and NaN are null, a moment is its text in UTC, a Struct an object.

    Raises InvalidValueError for a dict whose keys are no strings; NaiveTimeError.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        moment_us(value)
        at = value.astimezone(UTC).replace(tzinfo=None)
        return at.isoformat(timespec="microseconds" if at.microsecond % 1_000 else "milliseconds") + "Z"
    if isinstance(value, msgspec.Struct) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return as_json(msgspec.to_builtins(value, builtin_types=(datetime,)))
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise InvalidValueError(f"$: the key {name!r} is {type(name).__name__}; JSON objects have string keys")
        return {name: as_json(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value
