"""What a store does, counted: for a hook after each transaction, and as text that Prometheus reads.

The text follows https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import msgspec

_log = logging.getLogger("eventstore")

BUCKETS_US = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000)
"""Upper bounds of the histogram of append times: from a disk that only pretends, to one that is failing."""


class Commit(msgspec.Struct, frozen=True, gc=False):
    """One transaction that was appended: how many calls shared it, what they wrote, how long it took to be durable."""

    domain: str
    position: int
    """Of its last event."""
    calls: int
    events: int
    data_bytes: int
    """Of the values, as they are stored."""
    append_us: int
    """From BEGIN to the acknowledgement, fsync included."""
    commit_us: int = 0
    """Of that, the COMMIT, which waits for the fsync of the log; 0 where there is none."""


OnCommit = Callable[[Commit], None]
"""Called after each transaction, in a thread that wrote, with no lock held."""


class Meter:
    """The counts of one domain since the store was opened. Written by one thread at a time, under the log's lock."""

    def __init__(self, domain: str, on_commit: OnCommit | None) -> None:
        self.domain = domain
        self.transactions = self.calls = self.events = self.data_bytes = self.append_us = self.commit_us = 0
        self.buckets = [0] * (len(BUCKETS_US) + 1)
        self.untold: deque[Commit] = deque()
        """What on_commit was not called with yet."""
        self._on_commit = on_commit
        self._telling: set[int] = set()
        """Threads that are in tell(): a hook that writes is told of that once it has returned, not from within itself."""

    def count(self, commit: Commit) -> None:
        """Count a transaction; tell() tells of it, once no lock is held."""
        self.transactions += 1
        self.calls += commit.calls
        self.events += commit.events
        self.data_bytes += commit.data_bytes
        self.append_us += commit.append_us
        self.commit_us += commit.commit_us
        self.buckets[bisect_left(BUCKETS_US, commit.append_us)] += 1
        if self._on_commit is not None:
            self.untold.append(commit)

    def tell(self) -> None:
        """Call on_commit for what it was not told of."""
        thread = threading.get_ident()
        if thread in self._telling:
            return
        self._telling.add(thread)
        try:
            while self._on_commit is not None and self.untold:
                self._tell_one(self._on_commit)
        finally:
            self._telling.discard(thread)

    def _tell_one(self, on_commit: OnCommit) -> None:
        try:
            commit = self.untold.popleft()
        except IndexError:  # another thread tells
            return
        try:
            on_commit(commit)
        except Exception:  # noqa: BLE001  the write is done; somebody's gauge must not make it look otherwise
            _log.exception("on_commit raised")


class Gauges(msgspec.Struct, frozen=True):
    """What one domain is at the moment of asking."""

    head: int
    """Position of the last event in the log."""
    folded: int
    """Position up to which this process has folded; the difference is what other processes wrote since."""
    wal_bytes: int


def text(meters: Iterable[tuple[Meter, Gauges]], *, halted: bool, halts: int) -> str:
    """All of it, in Prometheus's text format."""
    found = list(meters)
    return "".join(_lines(found, halted=halted, halts=halts))


def _lines(found: list[tuple[Meter, Gauges]], *, halted: bool, halts: int) -> Iterator[str]:
    counters: list[tuple[str, str, Callable[[Meter], int]]] = [
        ("transactions", "Transactions appended since the store was opened.", lambda meter: meter.transactions),
        ("calls", "Calls that those transactions answered.", lambda meter: meter.calls),
        ("events", "Events appended.", lambda meter: meter.events),
        ("data_bytes", "Bytes of the values appended, as they are stored.", lambda meter: meter.data_bytes),
    ]
    for name, said, value in counters:
        yield from _header(f"eventstore_{name}_total", "counter", said)
        yield from (f'eventstore_{name}_total{{domain="{meter.domain}"}} {value(meter)}\n' for meter, _ in found)
    yield from _header("eventstore_append_seconds", "histogram", "From BEGIN to the acknowledgement of a transaction, fsync included.")
    for meter, _ in found:
        yield from _histogram(meter)
    yield from _header("eventstore_commit_seconds", "summary", "Of that, the COMMIT, which waits for the fsync of the log.")
    for meter, _ in found:
        yield f'eventstore_commit_seconds_sum{{domain="{meter.domain}"}} {meter.commit_us / 1_000_000:g}\n'
        yield f'eventstore_commit_seconds_count{{domain="{meter.domain}"}} {meter.transactions}\n'
    gauges: list[tuple[str, str, Callable[[Gauges], int]]] = [
        ("head_position", "Position of the last event in the log.", lambda gauge: gauge.head),
        ("lag_events", "Events of other processes that this one has not folded yet.", lambda gauge: gauge.head - gauge.folded),
        ("wal_bytes", "Size of the write-ahead log.", lambda gauge: gauge.wal_bytes),
    ]
    for name, said, level in gauges:
        yield from _header(f"eventstore_{name}", "gauge", said)
        yield from (f'eventstore_{name}{{domain="{meter.domain}"}} {level(gauge)}\n' for meter, gauge in found)
    yield from _header("eventstore_halted", "gauge", "1 while the store refuses writes because it could not record.")
    yield f"eventstore_halted {int(halted)}\n"
    yield from _header("eventstore_halts_total", "counter", "How often writing was stopped since the store was opened.")
    yield f"eventstore_halts_total {halts}\n"


def _header(name: str, kind: str, said: str) -> Iterator[str]:
    yield f"# HELP {name} {said}\n# TYPE {name} {kind}\n"


def _histogram(meter: Meter) -> Iterator[str]:
    below = 0
    for bound_us, count in zip(BUCKETS_US, meter.buckets, strict=False):
        below += count
        yield f'eventstore_append_seconds_bucket{{domain="{meter.domain}",le="{bound_us / 1_000_000:g}"}} {below}\n'
    yield f'eventstore_append_seconds_bucket{{domain="{meter.domain}",le="+Inf"}} {meter.transactions}\n'
    yield f'eventstore_append_seconds_sum{{domain="{meter.domain}"}} {meter.append_us / 1_000_000:g}\n'
    yield f'eventstore_append_seconds_count{{domain="{meter.domain}"}} {meter.transactions}\n'
