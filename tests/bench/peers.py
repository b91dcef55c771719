"""What the others do for the same work. Each needs an optional package, loaded only when it takes part.

Fair means: dicts are encoded by the same encoder inside the timed run (except raw, whose rows are prebuilt: it is the limit,
not a rival), keys and values are the same, and what a peer does not promise stands in its `note`.
"""

from __future__ import annotations

import importlib
import os
import sqlite3
import uuid
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from tests.bench import sample
from tests.bench.measure import Contender, Sizes

COLUMNS = """position INTEGER PRIMARY KEY, prev INTEGER NOT NULL, recorded_us INTEGER NOT NULL, when_us INTEGER, op TEXT NOT NULL,
    checksum BLOB NOT NULL, key TEXT NOT NULL, meta TEXT, salt BLOB, digest BLOB, data ANY"""
INSERT = "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
PAGE = 1_000
POOL_OF_FILES = 1_000
LEVELS = ("OFF", "NORMAL", "FULL", "EXTRA")
"""What `PRAGMA synchronous` says, by number."""

Raw = tuple[int, int, int, int, str, bytes, str, None, bytes, None, str]
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def load(module: str) -> Any:
    """An optional package; untyped, for none of them ships stubs."""
    return importlib.import_module(module)


def connect(path: Path) -> sqlite3.Connection:
    """A raw table as the standard library gives it: our columns, page size and durability, nothing else of ours."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("page_size=8192", "journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(f"CREATE TABLE IF NOT EXISTS event({COLUMNS}) STRICT")
    return connection


class RawTable(Contender):
    """Rows built before the clock starts."""

    note = "raw: prebuilt rows, no encoding, validation, chain or key states"

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        super().__init__(folder, sizes)
        self.position = 0

    def setup(self) -> None:
        self.connection = connect(self.folder / "raw.db")

    def build(self, count: int) -> list[Raw]:
        """The next `count` rows."""
        rows: list[Raw] = []
        for value in sample.values(count):
            self.position += 1
            at, key = self.position, sample.key_text(self.position % self.sizes.keys)
            when = sample.WHEN_US + at
            rows.append((at, at - 1, when, when, "put", os.urandom(32), key, None, os.urandom(16), None, _encode(value).decode()))
        return rows

    def insert_batches(self, rows: list[Raw], size: int) -> None:
        """All rows, `size` to a transaction."""
        execute, executemany = self.connection.execute, self.connection.executemany
        for start in range(0, len(rows), size):
            execute("BEGIN IMMEDIATE")
            executemany(INSERT, rows[start : start + size])
            execute("COMMIT")

    def teardown(self) -> None:
        self.connection.close()


class RawSingle(RawTable):
    """One transaction an event."""

    name = "raw sqlite3, one transaction an event"

    def prepare(self) -> None:
        self.rows = self.build(self.sizes.singles)

    def run(self) -> float:
        execute = self.connection.execute
        for row in self.rows:
            execute(INSERT, row)
        return len(self.rows)


class RawBatch(RawTable):
    """executemany, one transaction a batch."""

    name = "raw sqlite3, executemany"

    def prepare(self) -> None:
        self.rows = self.build(self.sizes.batch * self.sizes.batches)

    def run(self) -> float:
        self.insert_batches(self.rows, self.sizes.batch)
        return len(self.rows)


class RawBatchLate(RawBatch):
    """The same behind a long log."""

    name = "raw sqlite3, executemany, in as long a table"

    def setup(self) -> None:
        super().setup()
        while self.position < self.sizes.large_log:
            self.insert_batches(self.build(min(10_000, self.sizes.large_log - self.position)), 10_000)


class JsonFileSingle(Contender):
    """The classic: a temporary file, fsync, rename, fsync of the folder."""

    name = "atomic JSON file"
    note = "a file a key: last value only, no history, no order"

    def prepare(self) -> None:
        count = max(1, self.sizes.singles // 4)  # two syncs each: as many as the others would take most of the row's time
        self.items = list(zip(sample.spread(count, POOL_OF_FILES), sample.values(count), strict=True))

    def run(self) -> float:
        directory = os.open(self.folder, os.O_RDONLY)
        for number, value in self.items:
            target = self.folder / f"{number}.json"
            temporary = target.with_suffix(".tmp")
            with temporary.open("wb") as file:
                file.write(_encode(value))
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(target)
            os.fsync(directory)
        os.close(directory)
        return len(self.items)


class EventSourcing(Contender):
    """The SQLite recorder of `eventsourcing`, as its factory makes it."""

    requires = "eventsourcing"

    def setup(self) -> None:
        environment = load("eventsourcing.utils").Environment("bench", {"SQLITE_DBNAME": str(self.folder / "recorder.db")})
        self.factory = load("eventsourcing.sqlite").SQLiteFactory(environment)
        self.recorder = self.factory.application_recorder()
        self.stored: Any = load("eventsourcing.persistence").StoredEvent
        self.versions = [0] * self.sizes.keys
        self.ids = [uuid.uuid5(uuid.NAMESPACE_OID, sample.key_text(number)) for number in range(self.sizes.keys)]
        with self.recorder.datastore.transaction(commit=False) as cursor:
            cursor.execute("PRAGMA synchronous")
            level = LEVELS[cursor.fetchone()[0]]
        self.note = f"recorder, default settings: synchronous={level}, an index on id and version, no checksums"

    def items(self, count: int) -> list[tuple[uuid.UUID, int, sample.Value]]:
        """The next events: who, which version, what."""
        items = []
        for number, value in zip(sample.spread(count, self.sizes.keys), sample.values(count), strict=True):
            self.versions[number] += 1
            items.append((self.ids[number], self.versions[number], value))
        return items

    def insert(self, items: list[tuple[uuid.UUID, int, sample.Value]], size: int) -> None:
        """All events, `size` to a transaction."""
        stored, insert_events = self.stored, self.recorder.insert_events
        for start in range(0, len(items), size):
            insert_events([stored(who, version, "bench:Put", _encode(value)) for who, version, value in items[start : start + size]])

    def teardown(self) -> None:
        self.factory.close()


class EventSourcingSingle(EventSourcing):
    """One event a call."""

    name = "eventsourcing recorder"

    def prepare(self) -> None:
        self.todo = self.items(self.sizes.singles)

    def run(self) -> float:
        self.insert(self.todo, 1)
        return len(self.todo)


class EventSourcingBatch(EventSourcing):
    """Many events a call."""

    name = "eventsourcing recorder, insert_events"

    def prepare(self) -> None:
        self.todo = self.items(self.sizes.batch * self.sizes.batches)

    def run(self) -> float:
        self.insert(self.todo, self.sizes.batch)
        return len(self.todo)


class EventSourcingRead(EventSourcing):
    """The latest event of one originator."""

    name = "eventsourcing recorder, latest event"

    def setup(self) -> None:
        super().setup()
        self.insert(self.items(self.sizes.keys), PAGE)
        self.wanted = [self.ids[number] for number in sample.spread(self.sizes.reads // 5, self.sizes.keys)]
        self.note = "reads its file; the latest event, decoded, no aggregate built"

    def run(self) -> float:
        select = self.recorder.select_events
        for who in self.wanted:
            _decode(select(who, desc=True, limit=1)[0].state)
        return len(self.wanted)


class EventSourcingScan(EventSourcing):
    """All notifications, page by page."""

    name = "eventsourcing recorder, select_notifications"

    def setup(self) -> None:
        super().setup()
        self.insert(self.items(self.sizes.log), PAGE)
        self.note = "no checksums to check"

    def run(self) -> float:
        done, after = 0, 0
        while found := self.recorder.select_notifications(after, PAGE, inclusive_of_start=False):
            after = found[-1].id
            done += len(found)
        return done


class DiskCache(Contender):
    """A persistent dict on SQLite."""

    requires = "diskcache"
    note = "default synchronous=NORMAL: a power cut may take the last writes; last value only"
    settings: ClassVar[dict[str, int]] = {}

    def setup(self) -> None:
        self.cache = load("diskcache").Cache(str(self.folder), **self.settings)

    def items(self, count: int) -> list[tuple[str, sample.Value]]:
        """Keys and values for `count` writes."""
        keys = [sample.key_text(number) for number in sample.spread(count, self.sizes.keys)]
        return list(zip(keys, sample.values(count), strict=True))

    def teardown(self) -> None:
        self.cache.close()


class DiskCacheSingle(DiskCache):
    """One set a transaction."""

    name = "diskcache"

    def prepare(self) -> None:
        self.todo = self.items(self.sizes.singles)

    def run(self) -> float:
        for key, value in self.todo:
            self.cache.set(key, _encode(value))
        return len(self.todo)


class DiskCacheSingleFull(DiskCacheSingle):
    """The same, told to sync."""

    name = "diskcache, sqlite_synchronous=2"
    note = "FULL by request, not its default; last value only"
    settings: ClassVar[dict[str, int]] = {"sqlite_synchronous": 2}


class DiskCacheBatch(DiskCache):
    """Many sets in one `transact`."""

    name = "diskcache, transact"

    def prepare(self) -> None:
        self.todo = self.items(self.sizes.batch * self.sizes.batches)

    def run(self) -> float:
        for start in range(0, len(self.todo), self.sizes.batch):
            with self.cache.transact():
                for key, value in self.todo[start : start + self.sizes.batch]:
                    self.cache.set(key, _encode(value))
        return len(self.todo)


class DiskCacheRead(DiskCache):
    """One get a read."""

    name = "diskcache, get"
    note = "reads its file"

    def setup(self) -> None:
        super().setup()
        with self.cache.transact():
            for number, value in enumerate(sample.values(self.sizes.keys)):
                self.cache.set(sample.key_text(number), _encode(value))
        self.wanted = [sample.key_text(number) for number in sample.spread(self.sizes.reads // 2, self.sizes.keys)]

    def run(self) -> float:
        get = self.cache.get
        for key in self.wanted:
            _decode(get(key))
        return len(self.wanted)


class Lmdb(Contender):
    """A memory-mapped B-tree."""

    requires = "lmdb"
    note = "sync=True; last value only, no history"

    def setup(self) -> None:
        self.environment = load("lmdb").open(str(self.folder), map_size=1 << 30, sync=True, metasync=True)

    def items(self, count: int) -> list[tuple[bytes, sample.Value]]:
        """Keys and values for `count` writes."""
        keys = [sample.key_text(number).encode() for number in sample.spread(count, self.sizes.keys)]
        return list(zip(keys, sample.values(count), strict=True))

    def put(self, items: list[tuple[bytes, sample.Value]], size: int) -> None:
        """All items, `size` to a transaction."""
        begin = self.environment.begin
        for start in range(0, len(items), size):
            with begin(write=True) as transaction:
                for key, value in items[start : start + size]:
                    transaction.put(key, _encode(value))

    def teardown(self) -> None:
        self.environment.close()


class LmdbSingle(Lmdb):
    """One put a transaction."""

    name = "lmdb"

    def prepare(self) -> None:
        self.todo = self.items(self.sizes.singles)

    def run(self) -> float:
        self.put(self.todo, 1)
        return len(self.todo)


class LmdbBatch(Lmdb):
    """Many puts a transaction."""

    name = "lmdb, one transaction a batch"

    def prepare(self) -> None:
        self.todo = self.items(self.sizes.batch * self.sizes.batches)

    def run(self) -> float:
        self.put(self.todo, self.sizes.batch)
        return len(self.todo)


class LmdbReadFresh(Lmdb):
    """A transaction a read, which sees what others wrote since, as ours does."""

    name = "lmdb, one transaction a read"
    note = "maps its file; sees other processes' writes, as ours does"

    def setup(self) -> None:
        super().setup()
        self.put([(sample.key_text(at).encode(), value) for at, value in enumerate(sample.values(self.sizes.keys))], self.sizes.keys)
        self.wanted = [sample.key_text(number).encode() for number in sample.spread(self.sizes.reads, self.sizes.keys)]

    def run(self) -> float:
        begin = self.environment.begin
        for key in self.wanted:
            with begin() as transaction:
                _decode(transaction.get(key))
        return len(self.wanted)


class LmdbRead(LmdbReadFresh):
    """All reads in one transaction: its fastest."""

    name = "lmdb, one transaction for all"
    note = "maps its file; sees nothing written since the run began"

    def run(self) -> float:
        with self.environment.begin() as transaction:
            get = transaction.get
            for key in self.wanted:
                _decode(get(key))
        return len(self.wanted)
