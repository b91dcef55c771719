"""Several writers on one store: nothing lost, nothing doubled, one order, everybody sees everybody's writes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import eventstore
from eventstore import Receipt

ROOT = Path(__file__).resolve().parents[2]

# Each worker says `ready`, waits for a line, works, and prints what it was told.
APPENDER = """
import sys, eventstore
folder, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with eventstore.open(folder, busy_timeout_ms=60_000) as store:
    domain = store.domain("shared")
    print("ready", flush=True); sys.stdin.readline()
    for number in range(count):
        receipt = domain.write_value((name, number), [name, number])
        print(receipt.position, receipt.checksum.hex(), number, flush=True)
"""
COUNTER = """
import sys, eventstore
with eventstore.open(sys.argv[1], busy_timeout_ms=60_000) as store:
    domain = store.domain("shared")
    print("ready", flush=True); sys.stdin.readline()
    for _ in range(int(sys.argv[2])):
        domain.update_value("counter", lambda value: value + 1, default=0)
"""
BUSY = """
import sys, threading, eventstore
with eventstore.open(sys.argv[1], busy_timeout_ms=60_000) as store:
    domain = store.domain("shared")
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
    number = 0
    while not stop.is_set():
        domain.write_value("busy", number)
        number += 1
        if number == 20:
            print("ready", flush=True)
    print(number, flush=True)
"""
# Waits before it opens anything: the first to come makes the store, and the domain.
FOUNDER = """
import sys, eventstore
print("ready", flush=True); sys.stdin.readline()
with eventstore.open(sys.argv[1], busy_timeout_ms=60_000) as store:
    domain = store.domain("shared")
    for number in range(20):
        try:
            receipt = domain.write_value(("seat", number), sys.argv[2], expected=eventstore.ABSENT)
            print(receipt.position, receipt.checksum.hex(), number, flush=True)
        except eventstore.WrongExpectedError:
            pass
"""
# Opens and closes for every write: each closing checkpoints, and may be the last one for a moment.
VISITOR = """
import sys, eventstore
print("ready", flush=True); sys.stdin.readline()
for number in range(int(sys.argv[3])):
    with eventstore.open(sys.argv[1], busy_timeout_ms=60_000) as store:
        receipt = store.domain("shared").write_value((sys.argv[2], number), [sys.argv[2], number])
        print(receipt.position, receipt.checksum.hex(), number, flush=True)
"""
READER = """
import sys, eventstore
with eventstore.open(sys.argv[1], read_only=sys.argv[2] == "read-only") as store:
    domain = store.domain("shared")
    print("ready", flush=True)
    for line in sys.stdin:
        print(domain.get(line.strip()), domain.head().position, flush=True)
"""


class Worker:
    """A process that runs one of the programs above."""

    def __init__(self, program: str, *arguments: object) -> None:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def rest(self) -> list[str]:
        out, _ = self.process.communicate()
        assert self.process.returncode == 0
        return out.splitlines()


@contextmanager
def working(workers: Sequence[Worker]) -> Iterator[None]:
    try:
        yield
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
            for stream in (worker.process.stdin, worker.process.stdout):
                if stream is not None:
                    stream.close()


def require_whole(folder: Path, acknowledged: Mapping[int, tuple[str, object, object]]) -> None:
    """Every acknowledged (checksum, key, value) stands at its position, positions have no gap, the chain is whole."""
    with eventstore.open(folder) as store:
        events = list(store.domain("shared").events())
        assert [event.position for event in events] == list(range(1, len(events) + 1))
        found = {e.position: (e.checksum.hex(), eventstore.decode_key(e.key), eventstore.decode_value(str(e.data))) for e in events}
        assert acknowledged.items() <= found.items()
        times = [event.recorded_us for event in events]
        assert times == sorted(set(times))
        assert store.verify().ok


@pytest.mark.slow
def test_eight_processes_append_a_hundred_events_each(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    eventstore.open(folder).close()
    workers = [Worker(APPENDER, folder, f"w{number}", 100) for number in range(8)]
    with working(workers):
        for worker in workers:
            worker.say("go")
        acknowledged: dict[int, tuple[str, object, object]] = {}
        for name, worker in enumerate(workers):
            lines = [line.split() for line in worker.rest()]
            assert len(lines) == 100
            for position, checksum, number in lines:
                assert int(position) not in acknowledged
                acknowledged[int(position)] = (checksum, (f"w{name}", int(number)), [f"w{name}", int(number)])
    assert sorted(acknowledged) == list(range(1, 801))
    require_whole(folder, acknowledged)


def test_threads_of_one_store_append_side_by_side(tmp_path: Path) -> None:
    acknowledged: dict[int, tuple[str, object, object]] = {}
    with eventstore.open(tmp_path / "data") as store:
        domain = store.domain("shared")

        def work(name: int) -> None:
            for number in range(50):
                receipt = domain.write_value((str(name), number), number)
                assert domain.read_value((str(name), number)) == number
                acknowledged[receipt.position] = (receipt.checksum.hex(), (str(name), number), number)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(domain) == 400
        assert len(list(domain.keys())) == 400
    assert sorted(acknowledged) == list(range(1, 401))
    require_whole(tmp_path / "data", acknowledged)


def test_threads_that_list_beside_threads_that_write_miss_no_key(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data", durability="process") as store:
        domain = store.domain("shared")
        done = threading.Event()

        def write() -> None:
            for number in range(150):
                domain.write_value(f"k{number}", number)
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        while not done.is_set():
            written = len(domain)
            assert len(list(domain.keys())) >= written
        writer.join()
        assert list(domain.keys()) == [f"k{number}" for number in range(150)]


def test_processes_that_make_a_store_at_once_share_it_and_every_key_has_one_first_writer(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    workers = [Worker(FOUNDER, folder, f"w{number}") for number in range(4)]
    with working(workers):
        for worker in workers:
            worker.say("go")
        told = [(f"w{name}", line.split()) for name, worker in enumerate(workers) for line in worker.rest()]
    acknowledged = {int(position): (checksum, ("seat", int(number)), name) for name, (position, checksum, number) in told}
    assert len(told) == len(acknowledged) == 20
    require_whole(folder, acknowledged)


def test_processes_that_come_and_go_lose_nothing_of_each_others(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    eventstore.open(folder).close()
    workers = [Worker(program, folder, f"w{number}", 20) for number, program in enumerate((VISITOR, VISITOR, APPENDER))]
    with working(workers):
        for worker in workers:
            worker.say("go")
        told = [(f"w{name}", line.split()) for name, worker in enumerate(workers) for line in worker.rest()]
    acknowledged = {int(position): (checksum, (name, int(number)), [name, int(number)]) for name, (position, checksum, number) in told}
    assert len(told) == len(acknowledged) == 60
    require_whole(folder, acknowledged)


def test_no_update_is_lost_between_processes(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    eventstore.open(folder).close()
    workers = [Worker(COUNTER, folder, 50) for _ in range(3)]
    with working(workers):
        for worker in workers:
            worker.say("go")
        for worker in workers:
            worker.rest()
    with eventstore.open(folder) as store:
        assert store.domain("shared").read_value("counter") == 150
        assert store.domain("shared").head().position == 150
        assert store.verify().ok


def test_a_large_batch_lands_at_its_first_try_beside_a_busy_writer(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    eventstore.open(folder).close()
    busy = Worker(BUSY, folder)
    with working([busy]), eventstore.open(folder) as store:
        domain = store.domain("shared")
        entered = 0
        log = domain._live.log
        append = log.append

        def counted(*args: Any, **options: Any) -> None:
            nonlocal entered
            entered += 1
            append(*args, **options)

        log.append = counted  # type: ignore[method-assign]
        receipts = domain.write_values([(f"k{number}", {"number": number}) for number in range(10_000)])
        assert entered == 1
        first = receipts[0].position
        assert [receipt.position for receipt in receipts] == list(range(first, first + 10_000))
        busy.say("stop")
        (written,) = busy.rest()
        assert domain.get("busy") == int(written) - 1
        assert domain.head().position == 10_000 + int(written)
        assert store.verify().ok


def test_other_processes_see_a_write_as_soon_as_it_is_acknowledged(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with eventstore.open(folder) as store:
        domain = store.domain("shared")
        domain.write_value("a", 0)
        readers = [Worker(READER, folder, "read-only"), Worker(READER, folder, "writable")]
        with working(readers):
            for number in range(1, 40):
                level = ("power", "process", "power+")[number % 3]
                receipt: Receipt = domain.write_value("a", number, durability=level)  # type: ignore[arg-type]
                for reader in readers:
                    reader.say("a")
                    assert reader.line() == f"{number} {receipt.position}"


def test_two_stores_of_one_process_share_a_folder(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as one, eventstore.open(tmp_path / "data") as other:
        for number in range(50):
            writer, reader = (one, other) if number % 2 else (other, one)
            receipt = writer.domain("shared").write_value("k", number)
            assert receipt.position == number + 1
            assert reader.domain("shared").read_value("k") == number
        one.close()
        other.domain("shared").write_value("k", "still open")
        assert other.verify().ok
