"""Candles: through the contract on our store, on a file for each, and in a plain table that somebody would make for them.

All are handed the dicts that the engine hands over, a list a call, and give back such a list.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import eventstore
from eventstore.adapters.event_shelf import EventBackend
from eventstore.adapters.json_files import JsonBackend
from eventstore.adapters.persist import PersistCandleInstance
from eventstore.projections.series import FIELDS, Series, columns_of, read_columns
from eventstore.values import encode_value
from tests.bench.measure import Contender

T = TypeVar("T")
Candle = dict[str, Any]

MINUTE = 60_000
START = 1_577_836_800_000
"""2020-01-01: every candle is closed."""
CONTEXT = ("BTCUSDT", "1m", "binance")


def candle(number: int) -> Candle:
    """A candle with prices of two decimals, as exchanges give them."""
    price = 42_150.25 + number % 997 / 4
    return {
        "timestamp": START + number * MINUTE,
        "open": price,
        "high": round(price + 12.34, 2),
        "low": round(price - 9.87, 2),
        "close": round(price + 1.01, 2),
        "volume": round(3.14159 * (1 + number % 89), 5),
    }


def calls(first: int, count: int, each: int) -> list[list[Candle]]:
    """`count` lists of candles that follow one another."""
    return [[candle(first + call * each + place) for place in range(each)] for call in range(count)]


class Contract(Contender):
    """The contract of candles on a backend."""

    def setup(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.backend = self.open_backend()
        self.candles = PersistCandleInstance(*CONTEXT, backend=self.backend)
        self.written = 0

    def open_backend(self) -> EventBackend | JsonBackend:
        """Where they are kept."""
        return EventBackend(lambda: eventstore.open(self.folder / "store"))

    def wait(self, answer: Awaitable[T]) -> T:
        """The answer, in the contender's own event loop."""

        async def waited() -> T:
            return await answer

        return self.loop.run_until_complete(waited())

    def next_calls(self, count: int, each: int) -> list[list[Candle]]:
        """Lists of candles that are not there yet."""
        self.written += count * each
        return calls(self.written - count * each, count, each)

    async def write(self, todo: list[list[Candle]]) -> None:
        """One call after the other."""
        for each in todo:
            await self.candles.write_candles_data(each)

    def teardown(self) -> None:
        if isinstance(self.backend, EventBackend):
            self.wait(self.backend.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


class Written(Contract):
    """Calls of a thousand."""

    name = "eventstore"

    def prepare(self) -> None:
        self.todo = self.next_calls(self.sizes.candle_calls, self.sizes.candles)

    def run(self) -> float:
        self.wait(self.write(self.todo))
        return sum(map(len, self.todo))


class FilesWritten(Written):
    """The same, a file a candle."""

    name = "JSON file per candle"
    note = "our own JSON files: each is synced, then their folder; one call a round"

    def open_backend(self) -> JsonBackend:
        return JsonBackend(self.folder / "dump")

    def prepare(self) -> None:
        self.todo = self.next_calls(1, self.sizes.candles)


class Table(Contender):
    """A table for candles, one transaction a call."""

    name = "a plain SQLite table"
    note = "sqlite3, WAL, synchronous=FULL, WITHOUT ROWID, no context in its key, no history, no checksums"

    def setup(self) -> None:
        self.path = self.folder / "table.db"
        self.connection = sqlite3.connect(self.path, isolation_level=None)
        for pragma in ("page_size=8192", "journal_mode=WAL", "synchronous=FULL"):
            self.connection.execute(f"PRAGMA {pragma}")
        columns = ", ".join(f"{field} REAL NOT NULL" for field in FIELDS)
        self.connection.execute(f"CREATE TABLE candle(timestamp INTEGER PRIMARY KEY, {columns}) STRICT, WITHOUT ROWID")
        self.written = 0

    def prepare(self) -> None:
        self.todo = calls(self.written, self.sizes.candle_calls, self.sizes.candles)
        self.written += self.sizes.candle_calls * self.sizes.candles

    def write(self, candles: list[Candle]) -> None:
        """One call."""
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(
            "INSERT OR IGNORE INTO candle VALUES (?, ?, ?, ?, ?, ?)",
            [(each["timestamp"], *[each[field] for field in FIELDS]) for each in candles],
        )
        self.connection.execute("COMMIT")

    def run(self) -> float:
        for each in self.todo:
            self.write(each)
        return sum(map(len, self.todo))

    def teardown(self) -> None:
        self.connection.close()


# ---- reading a thousand


class Reads(Contract):
    """A thousand at a time, anywhere in what is there."""

    name = "eventstore"

    def how_many(self) -> int:
        """Calls of candles that are there, and calls that read in a round."""
        return self.sizes.candle_calls * 10

    def setup(self) -> None:
        super().setup()
        self.wait(self.write(self.next_calls(self.how_many(), self.sizes.candles)))

    def run(self) -> float:
        return self.wait(self._read())

    async def _read(self) -> float:
        count = self.sizes.candles
        for number in range(self.how_many()):
            first = number * 7_919 % (self.written - count + 1)
            found = await self.candles.read_candles_data(count, START + first * MINUTE, 0)
            if found is None or len(found) != count:
                raise AssertionError(f"no {count} candles from {first} on")
        return self.how_many() * count


class FilesRead(Reads):
    """The same of files."""

    name = "JSON file per candle"
    note = "our own JSON files; two calls' candles are there"

    def how_many(self) -> int:
        return 2

    def open_backend(self) -> JsonBackend:
        return JsonBackend(self.folder / "dump")


class TableRead(Table):
    """The same of the table."""

    note = "sqlite3, one SELECT a call, rows made to dicts"

    def setup(self) -> None:
        super().setup()
        self.there = self.sizes.candle_calls * 10
        for each in calls(0, self.there, self.sizes.candles):
            self.write(each)

    def prepare(self) -> None:
        """Nothing is written any more."""

    def run(self) -> float:
        count, names = self.sizes.candles, ("timestamp", *FIELDS)
        last = self.there * count - count + 1
        for number in range(self.there):
            since = START + number * 7_919 % last * MINUTE
            rows = self.connection.execute(
                "SELECT * FROM candle WHERE timestamp >= ? AND timestamp < ? ORDER BY timestamp", (since, since + count * MINUTE)
            ).fetchall()
            found = [dict(zip(names, row, strict=True)) for row in rows]
            if len(found) != count:
                raise AssertionError(f"no {count} candles from {since} on")
        return self.there * count


# ---- what they take


def bytes_of(folder: Path) -> int:
    """What the files of a folder take on the disk, by blocks."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


class OnDisk(Contract):
    """Bytes a candle, of a log that was closed."""

    name = "eventstore"
    each: ClassVar[int] = 0
    """Candles a call; 0: as many as a call has here."""

    def run(self) -> float:
        each = self.each or self.sizes.candles
        count = self.sizes.candle_calls * self.sizes.candles // each
        self.wait(self.write(self.next_calls(count, each)))
        if isinstance(self.backend, EventBackend):
            self.wait(self.backend.close())
        return bytes_of(self.kept()) / (count * each)

    def kept(self) -> Path:
        """The folder of the log alone: what a store itself takes is there once."""
        return self.folder / "store" / "logs" / "candle"


class FilesOnDisk(OnDisk):
    """The same of files, by the blocks that they take."""

    name = "JSON file per candle"
    note = "a file takes a block of the file system, at least"

    def open_backend(self) -> JsonBackend:
        return JsonBackend(self.folder / "dump")

    def run(self) -> float:
        self.wait(self.write(self.next_calls(1, self.sizes.candles)))
        return bytes_of(self.folder / "dump") / self.sizes.candles


class TableOnDisk(Table):
    """The same of the table."""

    def run(self) -> float:
        count = super().run()
        self.connection.close()
        return self.path.stat().st_blocks * 512 / count


class InMemory(Contender):
    """Bytes a candle of the columns that reads are answered from."""

    name = "eventstore, the arrays of a series"

    def run(self) -> float:
        series, count = Series(), self.sizes.candle_calls * 10
        for each in calls(0, count, self.sizes.candles):
            columns = read_columns(text_of(each))
            assert columns is not None
            series.add(columns)
        return sum(sys.getsizeof(column) for column in (series._times, *series._columns)) / len(series)


def text_of(candles: list[Candle]) -> str:
    """The value of the event that keeps them."""
    return encode_value(columns_of(candles))


# ---- one at a time


class Whole(Contract):
    """What a call of a thousand takes."""

    name = "a call of 1,000 candles"

    def prepare(self) -> None:
        self.todo = self.next_calls(self.sizes.candle_calls, self.sizes.candles)

    def run(self) -> float:
        self.wait(self.write(self.todo))
        return len(self.todo)


class Lone(Whole):
    """What a call of one candle takes, none waiting beside it."""

    name = "eventstore, a call of one candle"

    def prepare(self) -> None:
        self.todo = self.next_calls(max(self.sizes.singles // 4, 1), 1)


class LoneOnDisk(OnDisk):
    """An event a candle."""

    name = "eventstore, an event of one candle"
    each = 1


class WholeOnDisk(OnDisk):
    """An event a thousand."""

    name = "an event of 1,000 candles"


class Tasks(Lone):
    """Sixty-four tasks, each awaiting its own answer before its next candle: those that wait share an event."""

    name = "64 tasks"
    tasks = 64

    def prepare(self) -> None:
        self.todo = self.next_calls(max(self.sizes.singles, self.tasks), 1)

    def run(self) -> float:
        return self.wait(self._all())

    async def _all(self) -> float:
        before = await self._events()
        await asyncio.gather(*(self.write(self.todo[number :: self.tasks]) for number in range(self.tasks)))
        events = await self._events() - before
        self.note = f"{len(self.todo):,} candles became {events:,} events"
        return len(self.todo)

    async def _events(self) -> int:
        shelf: Any = await self.backend.shelf(self.candles.contract)
        return int(shelf._domain.head().position)


class OneTask(Lone):
    """One task, likewise."""

    name = "one task, an event a candle"

    def run(self) -> float:
        self.wait(self.write(self.todo))
        return len(self.todo)
