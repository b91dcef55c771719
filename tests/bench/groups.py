"""Many callers of one domain at the same time: threads, tasks, and one thread alone."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import ClassVar

import eventstore.aio
from eventstore.commit import drain
from eventstore.writes import made
from tests.bench import sample
from tests.bench.ours import DOMAIN, Ours


class OneByOne(Ours):
    """A transaction a write: what one thread does without anybody beside it."""

    name = "one thread, one transaction a write"

    def prepare(self) -> None:
        self.todo = self.items(self.sizes.singles)

    def run(self) -> float:
        for key, value in self.todo:
            self.domain.write_value(key, value, when=sample.WHEN_US)
        return len(self.todo)


class Drain(OneByOne):
    """The same without the queue: the limit for a lone thread, who should pay no hand-over."""

    name = "the same writes without the queue of group commit"

    def run(self) -> float:
        group, put = self.domain.group, self.domain._put
        for key, value in self.todo:
            draft = put(key, value, sample.WHEN_US, eventstore.ANY, "append", (None, None))
            with group.live.log.writing() as head:
                drain(group.live, head, group.clock, [made(self.domain._ready([draft], None, None))], group.meter)
                group.live.save_pointers()
        return len(self.todo)


class Threads(Ours):
    """Several threads, each waiting for its own receipt before its next write."""

    threads: ClassVar[int]

    def prepare(self) -> None:
        self.todo = self.items(max(self.sizes.singles * 4, self.threads))

    def run(self) -> float:
        each = len(self.todo) // self.threads
        workers = [threading.Thread(target=self._work, args=(number * each, (number + 1) * each)) for number in range(self.threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return each * self.threads

    def _work(self, start: int, stop: int) -> None:
        for key, value in self.todo[start:stop]:
            self.domain.write_value(key, value, when=sample.WHEN_US)


class Threads8(Threads):
    """Eight of them."""

    name, threads = "8 threads", 8


class Threads64(Threads):
    """Sixty-four."""

    name, threads = "64 threads", 64


class Tasks(Ours):
    """Several tasks of one event loop, each awaiting its own receipt before its next write."""

    tasks: ClassVar[int]

    def setup(self) -> None:
        self.waits: list[float] = []

    def prepare(self) -> None:
        self.todo = self.items(max(self.sizes.singles * 16, self.tasks))
        self.loop = asyncio.new_event_loop()
        self.store_awaited = self.loop.run_until_complete(eventstore.aio.open(self.folder / "store"))
        self.domain_awaited = self.loop.run_until_complete(self.store_awaited.domain(DOMAIN))

    def run(self) -> float:
        return self.loop.run_until_complete(self._all())

    async def _all(self) -> float:
        each = len(self.todo) // self.tasks
        await asyncio.gather(*(self._work(number * each, (number + 1) * each) for number in range(self.tasks)))
        return each * self.tasks

    async def _work(self, start: int, stop: int) -> None:
        for key, value in self.todo[start:stop]:
            before = time.perf_counter()
            await self.domain_awaited.write_value(key, value, when=sample.WHEN_US)
            self.waits.append(time.perf_counter() - before)

    def after(self) -> None:
        self.loop.run_until_complete(self.store_awaited.close())
        self.loop.close()
        self.waits.sort()
        self.note = f"99 of 100 writes were answered within {self.waits[len(self.waits) * 99 // 100] * 1_000:.1f} ms (goal: 10 ms)"

    def teardown(self) -> None:
        """The store was closed after each run."""


class Tasks64(Tasks):
    """Sixty-four of them."""

    name, tasks = "64 tasks", 64


class Tasks512(Tasks):
    """Five hundred and twelve."""

    name, tasks = "512 tasks", 512
