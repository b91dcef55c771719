"""What eventstore does, through its public face."""

from __future__ import annotations

import gc
import shutil
import sqlite3
import threading
import time
from pathlib import Path

import eventstore
from eventstore.pointers import SPACING
from tests.bench import sample
from tests.bench.measure import Contender, Measure

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


def stored(folder: Path, events: int, keys: int, *, event_ids: bool = False) -> Path:
    """Such a store, made once a run, in a folder of its own beside the contenders': for readers; who writes takes a copy()."""
    made = folder.parent / f"log-{events}-{keys}{'-ids' * event_ids}"
    if not made.exists():
        draft = made.with_suffix(".draft")
        draft.mkdir()
        fill(draft, events, keys, event_ids=event_ids)
        draft.rename(made)
    return made / "store"


def copied(store: Path, folder: Path) -> Path:
    """A copy of a stored() one, to write to, without what its readers leave beside a file: its writer left an empty WAL."""
    return Path(shutil.copytree(store, folder / "store", ignore=shutil.ignore_patterns("*-wal", "*-shm")))


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
        copied(stored(self.folder, self.sizes.large_log, self.sizes.keys, event_ids=True), self.folder)
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


class Stored(Contender):
    """Somebody who reads a log of some length that is made once a run."""

    @property
    def events(self) -> int:
        """How long the log is."""
        return self.sizes.log

    @property
    def keys(self) -> int:
        """How many keys it has."""
        return self.sizes.keys

    def store_path(self) -> Path:
        """Where it is. Who writes to it takes a copy."""
        return stored(self.folder, self.events, self.keys)


class Logged(Stored):
    """The log, opened only to be read."""

    name = "eventstore"

    def setup(self) -> None:
        self.store = eventstore.open(self.store_path(), read_only=True)
        self.domain = self.store.domain(DOMAIN)

    def teardown(self) -> None:
        self.store.close()


class Large(Stored):
    """A million events."""

    @property
    def events(self) -> int:
        return self.sizes.large_log


class Huge(Stored):
    """Ten million."""

    @property
    def events(self) -> int:
        return self.sizes.huge_log


class Wide(Large):
    """A million events of 300,000 keys."""

    @property
    def keys(self) -> int:
        return self.sizes.wide_keys


class Verify(Logged):
    """Every checksum, every link."""

    processes = 1

    def run(self) -> float:
        report = self.store.verify(processes=self.processes)
        if not report.ok:
            raise AssertionError(f"verify found {report.findings}")
        return report.domains[0].events


class VerifyLarge(Large, Verify):
    """The same of a million."""


class VerifyHuge(Huge, Verify):
    """The same of ten million."""


class VerifyByTwo(Verify):
    """The same, shared by two processes."""

    processes = 2


class VerifyLargeByTwo(Large, VerifyByTwo):
    """The same of a million."""


class VerifyHugeByTwo(Huge, VerifyByTwo):
    """The same of ten million."""


class LeanSelect(Stored):
    """What verifying could cost at the least: keys and data of the very same file, read and dropped."""

    name = "lean select of key, data"
    note = "the same file, two columns, nothing made of them"

    def setup(self) -> None:
        self.connection = sqlite3.connect(f"{log_file(self.store_path()).as_uri()}?mode=ro", uri=True)

    def run(self) -> float:
        done = 0
        query = "SELECT key, data FROM event WHERE position >= ? AND position < ? ORDER BY position"
        while rows := self.connection.execute(query, (done, done + 1_000)).fetchall():
            done += len(rows)
        return done

    def teardown(self) -> None:
        self.connection.close()


class LeanSelectLarge(Large, LeanSelect):
    """The same of a million."""


class LeanSelectHuge(Huge, LeanSelect):
    """The same of ten million."""


class Scan(Logged):
    """Every event, one after the other, each proven against the one before it."""

    name = "eventstore, verified"

    def setup(self) -> None:
        self.store = eventstore.open(copied(self.store_path(), self.folder))
        self.domain = self.store.domain(DOMAIN)

    def run(self) -> float:
        return sum(1 for _ in self.domain.events())


class ScanLarge(Large, Scan):
    """The same of a million."""


class ScanHuge(Huge, Scan):
    """The same of ten million."""


class RawScan(Stored):
    """All columns of the very same file, page by page."""

    name = "raw sqlite3, all columns"
    note = "raw: the same file, tuples, nothing is made of them"

    def setup(self) -> None:
        self.connection = sqlite3.connect(f"{log_file(self.store_path()).as_uri()}?mode=ro", uri=True)

    def run(self) -> float:
        done, after = 0, -1
        query = "SELECT * FROM event WHERE position > ? ORDER BY position LIMIT 1000"
        while rows := self.connection.execute(query, (after,)).fetchall():
            after = rows[-1][0]
            done += len(rows)
        return done

    def teardown(self) -> None:
        self.connection.close()


class RawScanLarge(Large, RawScan):
    """The same of a million."""


class RawScanHuge(Huge, RawScan):
    """The same of ten million."""


class Open(Stored):
    """Open a store, its domain, and read one value."""

    name = "eventstore, with pointer files"

    def setup(self) -> None:
        self.path = copied(self.store_path(), self.folder)
        self.pointers = self.path / "logs" / DOMAIN / "pointers"
        if not any(self.pointers.glob("*")):
            self.note = "no pointer file was there"

    def run(self) -> float:
        self.store = eventstore.open(self.path)
        self.store.domain(DOMAIN).read_value(sample.key(self.keys // 2))
        return 1

    def after(self) -> None:
        self.store.close()


class OpenWithout(Open):
    """The same after the pointer files were removed."""

    name = "eventstore, pointer files removed"

    def prepare(self) -> None:
        shutil.rmtree(self.pointers, ignore_errors=True)


class OpenSmall(Open):
    """The same of a log with no more events than keys: what a longer one is held against."""

    name = "eventstore, an event a key"

    @property
    def events(self) -> int:
        return self.keys


class OpenLarge(Large, Open):
    """The same of a million."""


class OpenHuge(Huge, Open):
    """The same of ten million."""


class SealedBytes(Stored):
    """What the live file takes after a seal, by key."""

    name = "eventstore, the live file after a seal"

    def prepare(self) -> None:
        self.store = eventstore.open(copied(self.store_path(), self.folder))
        self.domain = self.store.domain(DOMAIN)
        self.domain.write_value(sample.key(0), sample.value(0))

    def run(self) -> float:
        report = self.store.seal(DOMAIN)
        if not report.sealed:
            raise AssertionError("nothing was sealed")
        self.note = f"{report.bytes_before:,} bytes before, {report.bytes_after:,} after"
        return report.bytes_after / self.keys

    def after(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder / "store")


class SealedBytesLarge(Large, SealedBytes):
    """The same of a million."""


class SealedBytesHuge(Huge, SealedBytes):
    """The same of ten million."""


class Seal(SealedBytes):
    """Seal a log while a thread writes one event after the other: the longest that one of its writes took."""

    name = "eventstore"

    def sample(self) -> Measure:
        self.prepare()
        gc.collect()
        began, cpu = threading.Event(), time.process_time()
        writer = threading.Thread(target=self._write, args=(began, over := threading.Event()))
        self.longest = 0.0
        writer.start()
        try:
            began.wait()
            self.run()
        finally:
            over.set()
            writer.join()
        cpu = time.process_time() - cpu
        self.after()
        return Measure(1, self.longest, cpu)

    def _write(self, began: threading.Event, over: threading.Event) -> None:
        value, picks = sample.value(0), sample.spread(1_000, self.keys)
        writes = 0
        while not over.is_set():
            start = time.perf_counter()
            self.domain.write_value(sample.key(picks[writes % 1_000]), value)
            self.longest = max(self.longest, time.perf_counter() - start)
            writes += 1
            began.set()


class SealLarge(Large, Seal):
    """The same of a million."""


class SealWide(Wide, Seal):
    """The same of a million of many keys."""


class SealHuge(Huge, Seal):
    """The same of ten million."""


class AsOfNear(Logged):
    """All keys as of half-way between the two last pointer files that a writer left: nowhere in the log is it further to one."""

    name = "eventstore, with pointer files"

    def run(self) -> float:
        return len(self.domain.state(self.moment(self.domain.head().position))) / self.keys

    def moment(self, head: int) -> int:
        """Which position is asked for."""
        return max(head - SPACING // 2, head // 2)


class AsOfNearLarge(Large, AsOfNear):
    """The same of a million."""


class AsOfNearHuge(Huge, AsOfNear):
    """The same of ten million."""


class AsOf(AsOfNear):
    """The same without pointer files."""

    name = "eventstore, one file"

    def setup(self) -> None:
        self._begin(copied(self.store_path(), self.folder))

    def _begin(self, path: Path) -> None:
        self.store = eventstore.open(path)
        self.domain = self.store.domain(DOMAIN)

    def prepare(self) -> None:
        shutil.rmtree(self.folder / "store" / "logs" / DOMAIN / "pointers", ignore_errors=True)


class AsOfMiddle(AsOf):
    """As of the middle, without pointer files."""

    def moment(self, head: int) -> int:
        return head // 2


class AsOfMiddleLarge(Large, AsOfMiddle):
    """The same of a million."""


class AsOfMiddleHuge(Huge, AsOfMiddle):
    """The same of ten million."""


class AsOfSealed(AsOfMiddle):
    """The same in a log of five files: the middle is in the third."""

    name = "eventstore, five files"

    def setup(self) -> None:
        for _ in range(4):
            fill(self.folder, self.events // 5, self.keys)
            with eventstore.open(self.folder / "store") as store:
                store.domain(DOMAIN)
                store.seal(DOMAIN)
        self._begin(fill(self.folder, self.events // 5, self.keys))


class AsOfSealedLarge(Large, AsOfSealed):
    """The same of a million."""


class AsOfSealedHuge(Huge, AsOfSealed):
    """The same of ten million."""


class Bytes(Stored):
    """The size of a closed log, by event."""

    name = "eventstore"

    def setup(self) -> None:
        self.path = self.store_path()

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
