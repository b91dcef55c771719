"""The contracts on the event store: a domain each, a key each record, and for candles an event each call, folded into columns."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from eventstore import awaited
from eventstore.adapters.contracts import Contract, key_of
from eventstore.adapters.gathering import Gathering
from eventstore.adapters.json_layout import Layout, of_paths
from eventstore.adapters.shelf import ABSENT, Once, Parts, Shelf, When, as_json, aside
from eventstore.codec import encode_key, encode_prefix
from eventstore.commit import Standing
from eventstore.domain import DomainStore
from eventstore.errors import InvalidValueError, RedactedError
from eventstore.model import Domain, Event, Key
from eventstore.projections.series import Candles, Series, columns_of, read_columns
from eventstore.store import Store
from eventstore.writes import Items

V = TypeVar("V")
R = TypeVar("R")

MOST_CANDLES = 10_000
"""Candles after which an event takes in no further call's: it is as cheap by then as it will be."""


class EventBackend:
    """Shelves that are the domains of a store, in a folder or in memory, which is opened when the first of them is asked for.

    `raw`: records are read as the JSON text that they are stored as (msgspec.Raw), but for candles, which are stored as columns.
    """

    def __init__(self, opening: Callable[[], Store], *, raw: bool = False) -> None:
        self._opening, self._raw = opening, raw
        self._choosing = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._ready = Once(self._open)
        self._store: tuple[Store, awaited.Store] | None = None
        self._shelves: dict[str, Shelf] = {}

    async def _open(self) -> None:
        store = await asyncio.to_thread(self._opening)
        with self._choosing:  # each event loop opens by itself: of several at one moment the first one's store is everybody's
            if self._store is None:
                self._store = store, awaited.Store(store)
            kept = self._store[0]
        if kept is not store:
            await asyncio.to_thread(store.close)

    async def shelf(self, contract: Contract) -> Shelf:
        """See Backend.shelf.

        Raises ContractError for a domain that was made under another rule, or holds files under their paths; what opening a store raises.
        """
        store, waiting = await self._opened()
        if contract.name not in self._shelves:
            await asyncio.to_thread(_require_records, store, contract)
            domain = contract.domain
            if self._raw and contract.shape != "series":
                domain = Domain(domain.name, domain.write, msgspec.Raw)
            written = await waiting.domain(domain)
            self._shelves.setdefault(contract.name, EventShelf(store.domain(domain), written))
        return self._shelves[contract.name]

    async def store(self) -> Store:
        """The store, opened if it is not."""
        return (await self._opened())[0]

    async def _opened(self) -> tuple[Store, awaited.Store]:
        await self._ready()
        assert self._store is not None  # _open() has put it there, or raised
        return self._store

    async def close(self) -> None:
        """Close the store, if it was opened, once the writes under way are done; whoever asks for a shelf after that opens it again."""
        opened = self._store
        self._begin()
        if opened is not None:
            await opened[1].close()


class EventShelf:
    """The records of one contract, as one domain. A record's `when` is its event's; what was redacted reads as never written."""

    def __init__(self, domain: DomainStore, written: awaited.DomainStore) -> None:
        self._domain, self._awaited = domain, written
        self._begin_folding()
        self._gatherings: dict[tuple[asyncio.AbstractEventLoop, Parts], Gathering[dict[str, Any]]] = {}
        """The contexts whose candles are being written, by event loop: a call of another loop, or process, is seen under the lock."""

    def _begin_folding(self) -> None:
        self._pid = os.getpid()
        self._candles = Candles()
        self._folding = threading.Lock()

    async def prepare(self, context: Parts) -> None:
        """See Shelf.prepare: the domain is open."""

    async def read(self, key: Parts) -> Any:
        """See Shelf.read."""
        try:
            return await self._awaited.get(key_of(key), ABSENT)
        except RedactedError:
            return ABSENT

    async def has(self, key: Parts) -> bool:
        """See Shelf.has."""
        return await self._awaited.state_of(key_of(key)) is not None

    async def write(self, key: Parts, value: Any, when: When | None, event_id: str | None = None) -> None:
        """See Shelf.write."""
        if isinstance(value, msgspec.Raw):
            await self._write_texts([(key, value)], event_id, when=when)
        else:
            await _said(lambda said: self._awaited.write_value(key_of(key), said, when=when, event_id=event_id), value)

    async def write_rows(self, rows: Sequence[tuple[Parts, Any]], event_id: str | None = None) -> None:
        """See Shelf.write_rows. All of them, or none."""
        if self._domain.domain.write == "first":
            # Idempotent by nature: what was written stands. With an id, a retry would have to bring the same list, of which nothing is new.
            rows, event_id = await self._new_rows(rows), None
        if any(isinstance(value, msgspec.Raw) for _, value in rows):
            await self._write_texts(rows, event_id, unchanged="skip")
        else:
            await _said(
                lambda said: self._awaited.write_values([(key_of(key), value) for key, value in said], unchanged="skip", event_id=event_id),
                rows,
            )

    async def _write_texts(self, rows: Sequence[tuple[Parts, Any]], event_id: str | None, **said: Any) -> None:
        """Write records that are JSON text. That they are is found out by decoding them: aside, if they are large, and never twice."""
        async with self._awaited.batch(event_id=event_id) as batch:

            def add() -> None:
                for key, text in rows:
                    batch.write_value(key_of(key), text, **said)

            await aside(add, (text for _, text in rows))

    async def _new_rows(self, rows: Sequence[tuple[Parts, Any]]) -> Sequence[tuple[Parts, Any]]:
        """Only those whose key is new: to encode a thousand lines for the sake of one costs more than to ask."""
        return [row for row in rows if await self._awaited.state_of(key_of(row[0])) is None]

    async def remove(self, key: Parts, event_id: str | None = None) -> bool:
        """See Shelf.remove."""
        return (await self._awaited.remove_value(key_of(key), event_id=event_id)).appended

    async def items(self, context: Parts) -> list[tuple[str, Any]]:
        """See Shelf.items."""
        return await asyncio.to_thread(self._items, context)

    def _items(self, context: Parts) -> list[tuple[str, Any]]:
        try:
            found = list(self._domain.items(context or None))
        except RedactedError:
            found = [(key, value) for key in self._domain.keys(context or None) if (value := self._intact(key)) is not ABSENT]
        # A key that has more parts, or fewer, is nobody's here: somebody wrote to the domain by himself.
        rows = [((key,) if isinstance(key, str) else key, value) for key, value in found]
        return [(str(parts[-1]), value) for parts, value in rows if len(parts) == len(context) + 1]

    def _intact(self, key: Key) -> Any:
        try:
            return self._domain.get(key, ABSENT)
        except RedactedError:
            return ABSENT

    # ---- candles

    async def read_candles(self, context: Parts, since: int, step: int, limit: int) -> list[dict[str, Any]] | None:
        """See Shelf.read_candles. Numbers come back as the doubles that the engine's are: 100 as 100.0."""
        return await asyncio.to_thread(self._with_series, context, lambda series: series.read(since, step, limit))

    async def add_candles(self, context: Parts, candles: Sequence[dict[str, Any]]) -> None:
        """See Shelf.add_candles: one event with those that are new, shared with the calls that wait while another is written."""
        place = asyncio.get_running_loop(), context
        if place not in self._gatherings:

            async def add(calls: Sequence[Sequence[dict[str, Any]]]) -> None:
                await self._add(context, calls[0] if len(calls) == 1 else _in_order(chain.from_iterable(calls)))

            self._gatherings[place] = Gathering(add, most=MOST_CANDLES, idle=lambda: self._gatherings.pop(place))
        await self._gatherings[place].write(candles)

    async def _add(self, context: Parts, candles: Sequence[dict[str, Any]]) -> None:
        """Append an event with those candles that are new, under the timestamp of the first; nothing, durably, if none is.

        They are looked for before it is this call's turn, and looked through once more if others wrote until then.
        """
        new, seen = await asyncio.to_thread(self._new, context, candles)
        items, opening = _event(context, new), encode_prefix(key_of(context))

        def choose(standing: Standing) -> Items:
            drafted = [event for event in standing.events if event.key.startswith(opening)]
            if standing.base.position == seen and not drafted:
                return items
            left, _ = self._new(context, new, drafted)
            return items if len(left) == len(new) else _event(context, left)

        await self._awaited.write_chosen(items, choose)

    def _new(self, context: Parts, candles: Sequence[dict[str, Any]], drafted: Sequence[Event] = ()) -> tuple[list[dict[str, Any]], int]:
        """The candles that no event of the log has, nor one of those that are `drafted` to follow it; and where the log ended."""
        times = [candle["timestamp"] for candle in candles]
        runs, seen = self._with_series(context, lambda series: (series.missing(times), self._candles.position))
        new = list(chain.from_iterable(candles[first:last] for first, last in runs))
        for event in drafted:
            if (columns := read_columns(_text(self._domain, event) or "")) is not None:
                taken = set(columns.timestamps)
                new = [candle for candle in new if candle["timestamp"] not in taken]
        while new and self._domain.state_of(key_of((*context, new[0]["timestamp"]))) is not None:
            del new[0]  # its key's event was redacted, and what was erased is not written again
        return new, seen

    def _with_series(self, context: Parts, look: Callable[[Series], R]) -> R:
        """What `look` finds in the series of a context, with everything written so far; nobody else changes it meanwhile."""
        if self._pid != os.getpid():
            self._begin_folding()  # in a forked child: a thread of the parent may have been in the midst of it
        with self._folding:
            self._fold()
            return look(self._candles.of(context))

    def _fold(self) -> None:
        domain, head = self._domain, self._domain.head().position
        if 0 < self._candles.position < domain.floor:
            self._candles = Candles()  # events that it has not seen were archived: what is carried over the seal says it all
        while self._candles.position < head:
            candles, anew = self._candles, not self._candles.position
            for event in domain.events(domain.floor if anew else candles.position, head, carried=anew):
                erases = candles.apply(event, _text(domain, event))
                if erases and not anew:  # what was folded before may hold what it erased; what is read from now on does not
                    self._candles = Candles()
                    break


def _require_records(store: Store, contract: Contract) -> None:
    """Refuse a domain of files under their paths, of which a contract would find none. Raises ContractError."""
    name = contract.domain.name
    if name in store.domains() and (domain := store.domain(name)).domain.write == "replace":  # as an import makes them
        layout, keys = Layout(Path(), contract), domain.keys()
        first = next(keys, None)
        if first is not None and all(layout.is_path((key,) if isinstance(key, str) else key) for key in chain([first], keys)):
            raise of_paths(name, store.location, encode_key(first))


def _event(context: Parts, candles: Sequence[dict[str, Any]]) -> Items:
    """The key and the value of an event with these candles; none of none."""
    return [(key_of((*context, candles[0]["timestamp"])), columns_of(candles))] if candles else []


def _in_order(candles: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Candles by their timestamps, of each the first that was given."""
    found: dict[int, dict[str, Any]] = {}
    for candle in candles:
        found.setdefault(candle["timestamp"], candle)
    return [found[timestamp] for timestamp in sorted(found)]


def _text(domain: DomainStore, event: Event) -> str | None:
    try:
        return domain.text_of(event)
    except RedactedError:
        return None


async def _said(write: Callable[[V], Awaitable[R]], value: V) -> R:
    """`write(value)`; once more with the JSON that the engine makes of it, if it holds what JSON has no word for."""
    try:
        return await write(value)
    except InvalidValueError:
        return await write(as_json(value))
