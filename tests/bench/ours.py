"""What eventstore does, through its public face."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import eventstore
from tests.bench import sample
from tests.bench.measure import Contender

DOMAIN = "bench"


def fill(folder: Path, events: int, keys: int, *, event_ids: bool = False) -> Path:
    """A closed store of `events` events over `keys` keys."""
    path = folder / "store"
    with eventstore.open(path, durability="process") as store:
        log = store.domain(DOMAIN)
        for start in range(0, events, 1_000):
            count = min(1_000, events - start)
            items = [(sample.key((start + at) % keys), value) for at, value in enumerate(sample.values(count))]
            log.write_values(items, when=sample.WHEN_US + start, event_id=f"fill-{start}" if event_ids else None)
    return path


class Ours(Contender):
    """A store that stays open, with one domain."""

    name = "eventstore"

    def setup(self) -> None:
        self.store = eventstore.open(self.folder / "store")
        self.domain = self.store.domain(DOMAIN)
        self.calls = 0

    def items(self, count: int) -> list[tuple[tuple[str, str], sample.Value]]:
        """Keys and values for `count` writes."""
        keys = [sample.key(number) for number in sample.spread(count, self.sizes.keys)]
        return list(zip(keys, sample.values(count), strict=True))

    def teardown(self) -> None:
        self.store.close()


class Single(Ours):
    """One durable event a call."""

    def prepare(self) -> None:
        self.todo = self.items(self.sizes.singles)

    def run(self) -> float:
        write_value, when = self.domain.write_value, sample.WHEN_US
        for key, value in self.todo:
            write_value(key, value, when=when)
        return len(self.todo)


class Batch(Ours):
    """Many events a call, from dicts."""

    def prepare(self) -> None:
        self.todo = self.items(self.sizes.batch * self.sizes.batches)

    def run(self) -> float:
        for start in range(0, len(self.todo), self.sizes.batch):
            self.domain.write_values(self.todo[start : start + self.sizes.batch], when=sample.WHEN_US, event_id=self.event_id())
        return len(self.todo)

    def event_id(self) -> str | None:
        """The id of the next call, if it has one."""
        return None


class BatchLate(Batch):
    """The same with event ids, behind a long log of them."""

    def setup(self) -> None:
        fill(self.folder, self.sizes.large_log, self.sizes.keys, event_ids=True)
        super().setup()

    def event_id(self) -> str:
        self.calls += 1
        return f"call-{self.calls}"


class Read(Ours):
    """The current value of one key after the other, as plain data."""

    def setup(self) -> None:
        fill(self.folder, self.sizes.keys, self.sizes.keys)
        super().setup()
        self.wanted = [sample.key(number) for number in sample.spread(self.sizes.reads, self.sizes.keys)]

    def run(self) -> float:
        read_value = self.domain.read_value
        for key in self.wanted:
            read_value(key)
        return len(self.wanted)


class Logged(Ours):
    """A log of some length, opened."""

    def setup(self) -> None:
        fill(self.folder, self.sizes.log, self.sizes.keys)
        super().setup()


class Verify(Logged):
    """Every checksum, every link."""

    processes = 1

    def run(self) -> float:
        report = self.store.verify(processes=self.processes)
        if not report.ok:
            raise AssertionError(f"verify found {report.findings}")
        return report.domains[0].events


class VerifyByTwo(Verify):
    """The same, shared by two processes."""

    processes = 2


class Scan(Logged):
    """Every event, one after the other."""

    def run(self) -> float:
        return sum(1 for _ in self.domain.events())


class LeanSelect(Contender):
    """What verifying could cost at the least: keys and data of the very same file, read and dropped."""

    name = "lean select of key, data"
    note = "the same file, two columns, nothing made of them"

    def setup(self) -> None:
        self.connection = sqlite3.connect(log_file(fill(self.folder, self.sizes.log, self.sizes.keys)))

    def run(self) -> float:
        done = 0
        query = "SELECT key, data FROM event WHERE position >= ? AND position < ? ORDER BY position"
        while rows := self.connection.execute(query, (done, done + 1_000)).fetchall():
            done += len(rows)
        return done

    def teardown(self) -> None:
        self.connection.close()


class Open(Contender):
    """Open a store, its domain, and read one value."""

    name = "eventstore, with pointer files"

    def setup(self) -> None:
        self.path = fill(self.folder, self.events, self.sizes.keys)
        self.pointers = self.path / "logs" / DOMAIN / "pointers"
        if not any(self.pointers.glob("*")):
            self.note = "no pointer file was there"

    @property
    def events(self) -> int:
        """How long the log is."""
        return self.sizes.log

    def run(self) -> float:
        self.store = eventstore.open(self.path)
        self.store.domain(DOMAIN).read_value(sample.key(self.sizes.keys // 2))
        return 1

    def after(self) -> None:
        self.store.close()


class OpenWithout(Open):
    """The same after the pointer files were removed."""

    name = "eventstore, pointer files removed"

    def prepare(self) -> None:
        shutil.rmtree(self.pointers, ignore_errors=True)


class OpenLarge(Open):
    """The same with a log ten times as long."""

    name = "eventstore, ten times the events"

    @property
    def events(self) -> int:
        return self.sizes.large_log


class Seal(Ours):
    """Seal a log that has grown since the last time: how long writers wait, the next file included."""

    @property
    def keys(self) -> int:
        """How many keys the log has."""
        return self.sizes.keys

    def prepare(self) -> None:
        for start in range(0, max(self.sizes.log, self.keys), 1_000):
            items = [(sample.key((start + at) % self.keys), value) for at, value in enumerate(sample.values(1_000))]
            self.domain.write_values(items, durability="process")

    def run(self) -> float:
        if not self.store.seal(DOMAIN).sealed:
            raise AssertionError("nothing was sealed")
        return 1


class SealWide(Seal):
    """The same of many keys."""

    name = "eventstore, 300,000 keys"

    @property
    def keys(self) -> int:
        return self.sizes.wide_keys


class SealedBytes(Seal):
    """What the live file takes after a seal, by key."""

    name = "eventstore, the live file after a seal"

    def run(self) -> float:
        return self.store.seal(DOMAIN).bytes_after / self.sizes.keys


class AsOf(Logged):
    """All keys as of the middle of a log, without pointer files."""

    name = "eventstore, one file"

    def prepare(self) -> None:
        shutil.rmtree(self.folder / "store" / "logs" / DOMAIN / "pointers", ignore_errors=True)

    def run(self) -> float:
        return len(self.domain.state(self.domain.head().position // 2)) / self.sizes.keys


class AsOfSealed(AsOf):
    """The same in a log of five files."""

    name = "eventstore, five files"

    def setup(self) -> None:
        for _ in range(4):
            fill(self.folder, self.sizes.log // 5, self.sizes.keys)
            with eventstore.open(self.folder / "store") as store:
                store.domain(DOMAIN)
                store.seal(DOMAIN)
        fill(self.folder, self.sizes.log // 5, self.sizes.keys)
        Ours.setup(self)


class Bytes(Contender):
    """The size of a closed log, by event."""

    name = "eventstore"

    def setup(self) -> None:
        self.path = fill(self.folder, self.sizes.log, self.sizes.keys)

    def run(self) -> float:
        return log_file(self.path).stat().st_size / self.sizes.log


class BytesLean(Bytes):
    """The very same rows in a table without what makes ours verifiable."""

    name = "the same columns without prev, checksum, salt"

    def run(self) -> float:
        lean = self.folder / "lean.db"
        connection = sqlite3.connect(lean, isolation_level=None)
        connection.execute("PRAGMA page_size=8192")
        connection.execute(
            "CREATE TABLE event(position INTEGER PRIMARY KEY, recorded_us INTEGER NOT NULL, when_us INTEGER, op TEXT NOT NULL,"
            " key TEXT NOT NULL, meta TEXT, digest BLOB, data ANY) STRICT"
        )
        connection.execute("ATTACH ? AS ours", (str(log_file(self.path)),))
        connection.execute(
            "INSERT INTO main.event SELECT position, recorded_us, when_us, op, key, meta, digest, data FROM ours.event ORDER BY position"
        )
        connection.close()
        return lean.stat().st_size / self.sizes.log


def log_file(store: Path) -> Path:
    """The one file that holds the domain's rows."""
    (file,) = (store / "logs" / DOMAIN).glob("*.db")
    return file
