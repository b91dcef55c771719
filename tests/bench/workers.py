"""Other processes that write to a store on command. They stay between rounds: only the work is timed, by their own clocks."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

import eventstore
from tests.bench import sample
from tests.bench.measure import Contender, Measure, Sizes

PATIENCE = 120.0
"""Seconds a worker may stay silent before its row fails."""


class Order(msgspec.Struct, frozen=True):
    """`calls` writes of `batch` events each; one event is a `write_value`. Without `calls`: until told to stop."""

    calls: int | None
    batch: int


class Done(msgspec.Struct, frozen=True):
    """What a worker did, on the clock that all processes of a machine share."""

    events: int
    started: float
    ended: float
    cpu: float


def work(orders: Connection, path: str, domain: str, number: int, keys: int) -> None:
    """A worker's life: open, say so, carry out orders until there are no more."""
    with eventstore.open(path) as store:
        log = store.domain(domain)
        orders.send(None)
        while (order := orders.recv()) is not None:
            # keys of its own, so that no two workers differ in what they find
            picks = [number * keys + pick for pick in sample.spread(1_000, keys)]
            items = [(sample.key(pick), value) for pick, value in zip(picks, sample.values(1_000), strict=True)]
            cpu, started, events, calls = time.process_time(), time.perf_counter(), 0, 0
            while not (orders.poll() if order.calls is None else calls == order.calls):
                if order.batch == 1:
                    log.write_value(*items[calls % 1_000])
                else:
                    start = calls * order.batch % (1_001 - order.batch)
                    log.write_values(items[start : start + order.batch])
                calls += 1
                events += order.batch
            orders.send(Done(events, started, time.perf_counter(), time.process_time() - cpu))
            if order.calls is None:
                orders.recv()


class Crew:
    """Several workers, one order at a time."""

    def __init__(self, path: Path, domains: Sequence[str], keys: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.lines: list[Connection] = []
        self.processes = []
        for number, domain in enumerate(domains):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, str(path), domain, number, keys), daemon=True)
            process.start()
            theirs.close()
            self.lines.append(ours)
            self.processes.append(process)
        for line in self.lines:
            self._answer(line)

    def order(self, order: Order) -> None:
        """Send everybody to work."""
        for line in self.lines:
            line.send(order)

    def stop(self) -> None:
        """End an order without a number of calls."""
        for line in self.lines:
            line.send(None)

    def done(self) -> list[Done]:
        """Wait for everybody."""
        answers = [self._answer(line) for line in self.lines]
        return [answer for answer in answers if answer is not None]

    def close(self) -> None:
        """Send everybody home."""
        for line, process in zip(self.lines, self.processes, strict=True):
            with contextlib.suppress(OSError):  # a worker that failed has already gone
                line.send(None)
            process.join(5)
            process.kill()
            line.close()

    def _answer(self, line: Connection) -> Done | None:
        if not line.poll(PATIENCE):
            raise TimeoutError(f"a worker said nothing for {PATIENCE:.0f} seconds")
        answer: Done | None = line.recv()
        return answer


class CrewContender(Contender):
    """A fixed order for a fixed set of workers; the figure is theirs together, from first start to last end."""

    domains: tuple[str, ...] = ("d0",)

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        super().__init__(folder, sizes)
        self.calls = sizes.shared_calls
        self.batch = sizes.shared_batch

    def setup(self) -> None:
        path = self.folder / "store"
        eventstore.open(path).close()
        self.crew = Crew(path, self.domains, self.sizes.keys)

    def run(self) -> float:
        raise NotImplementedError("workers measure themselves: see sample()")

    def sample(self) -> Measure:
        self.crew.order(Order(self.calls, self.batch))
        done = self.crew.done()
        wall = max(one.ended for one in done) - min(one.started for one in done)
        return Measure(sum(one.events for one in done), wall, sum(one.cpu for one in done))

    def teardown(self) -> None:
        self.crew.close()


class OneDomainOneProcess(CrewContender):
    """The measure of the next one."""

    name = "1 domain, 1 process"


class FourDomainsFourProcesses(CrewContender):
    """Nothing shared but the disk."""

    name = "4 domains, 4 processes"
    domains = ("d0", "d1", "d2", "d3")


class OneDomainOneSingle(CrewContender):
    """The measure of the next one."""

    name = "1 process"

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        super().__init__(folder, sizes)
        self.calls, self.batch = sizes.singles, 1


class OneDomainFourSingles(CrewContender):
    """Four writers queue for one log."""

    name = "4 processes on one domain"
    domains = ("d0",) * 4

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        super().__init__(folder, sizes)
        self.calls, self.batch = max(1, sizes.singles // 4), 1


class LargeBatch(Contender):
    """One large batch with the domain to itself."""

    name = "the same batch alone"

    def setup(self) -> None:
        self.store = eventstore.open(self.folder / "store")
        self.domain = self.store.domain("d0")
        picks = sample.spread(self.sizes.large_batch, self.sizes.keys)
        values = sample.values(self.sizes.large_batch)
        self.items = [(sample.key(pick), value) for pick, value in zip(picks, values, strict=True)]

    def run(self) -> float:
        self.domain.write_values(self.items)
        return 1

    def teardown(self) -> None:
        self.store.close()


class LargeBatchBeside(LargeBatch):
    """The same while another process writes one event after the other to the same domain."""

    name = "a large batch beside a busy writer"

    def setup(self) -> None:
        super().setup()
        self.crew = Crew(self.folder / "store", ("d0",), self.sizes.keys)

    def prepare(self) -> None:
        self.crew.order(Order(None, 1))
        time.sleep(0.05)

    def after(self) -> None:
        self.crew.stop()
        self.crew.done()

    def teardown(self) -> None:
        self.crew.close()
        super().teardown()


def open_and_tell(answers: Connection, path: str, domain: str, reads: int, keys: int) -> None:
    """Open a store, read some values, tell the most memory this process ever held, in MB."""
    with eventstore.open(path) as store:
        log = store.domain(domain)
        for pick in sample.spread(reads, keys):
            log.read_value(sample.key(pick))
        answers.send(peak_memory())


def peak_memory() -> float:
    """The peak resident memory of this process in MB; by /proc, for the counter of getrusage is inherited from the parent."""
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(fields["VmHWM"].split()[0]) / 1_000
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000_000


class OpenWide(Contender):
    """Memory of a fresh process that opens a store of many keys with large values."""

    name = "open, then read"

    def setup(self) -> None:
        path, size = self.folder / "store", 500
        with eventstore.open(path, durability="process") as store:
            log = store.domain("d0")
            for start in range(0, self.sizes.wide_keys, size):
                numbers = range(start, min(start + size, self.sizes.wide_keys))
                log.write_values([(sample.key(number), sample.value(number, self.sizes.wide_bytes)) for number in numbers])
        self.note = f"peak of a fresh process: open, then {self.reads:,} values read"

    @property
    def reads(self) -> int:
        """More values than the cache holds."""
        return min(100_000, self.sizes.wide_keys)

    def run(self) -> float:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (theirs, str(self.folder / "store"), "d0", self.reads, self.sizes.wide_keys)
        process = context.Process(target=open_and_tell, args=arguments, daemon=True)
        process.start()
        theirs.close()
        peak: float = ours.recv()
        process.join()
        return peak
