"""What the real engine asked in recorded sessions, asked again: of contracts in process, on our store and on JSON files.

The whole recordings stand beside the checkout or not at all; without them a part of one is asked, and the note says so.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import json
import shutil
from typing import Any

import msgspec

import eventstore
from eventstore.adapters.contracts import CONTRACTS
from eventstore.adapters.event_shelf import EventBackend
from eventstore.adapters.json_files import JsonBackend
from tests.adapters.recorded import DATA, WHOLE, Replay
from tests.bench.measure import Contender

Request = dict[str, Any]

MINUTE_MS = 100
"""How long a minute of the engine's time lasts in a recording."""
DAY = 24 * 60


class Session(msgspec.Struct, frozen=True):
    """Calls of a recording in their order, how long it took the engine, and what to say of it."""

    requests: list[Request]
    minutes: float
    said: str


@functools.cache
def session(name: str, most: int) -> Session:
    """The first calls of a recording, `most` of them."""
    whole = WHOLE / f"{name}.jsonl.gz"
    path = whole if whole.is_file() else DATA / "live.jsonl.gz"
    requests: list[Request] = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        recorded = (record for record in map(json.loads, lines) if "req" in record)
        began = last = 0
        for record in recorded:
            began = began or record["t"]
            last = record["t"]
            requests.append(record["req"])
            if len(requests) == most:
                break
    part = "" if whole.is_file() else " picked"
    return Session(requests, (last - began) / MINUTE_MS or 1, f"{len(requests):,} calls{part} of a recorded session of the engine")


class InProcess(Contender):
    """A session asked of the contracts in this process, one call after the other, each answered before the next."""

    name = "eventstore"

    def setup(self) -> None:
        self.session = session("live", self.sizes.recorded)
        self.note = self.session.said
        self.loop = asyncio.new_event_loop()

    def prepare(self) -> None:
        self.backend = self.open_backend()
        self.replay = Replay(self.backend)

    def open_backend(self) -> EventBackend | JsonBackend:
        """A new place."""
        return EventBackend(lambda: eventstore.open(self.folder / "kept"))

    def run(self) -> float:
        self.loop.run_until_complete(self._all())
        return len(self.session.requests)

    async def _all(self) -> None:
        for request in self.session.requests:
            await self.replay.call(request)

    def after(self) -> None:
        if isinstance(self.backend, EventBackend):
            self.loop.run_until_complete(self.backend.close())
        shutil.rmtree(self.folder / "kept", ignore_errors=True)

    def teardown(self) -> None:
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


class OnFiles(InProcess):
    """The same on the framework's own files."""

    name = "our own JSON files"

    def open_backend(self) -> JsonBackend:
        return JsonBackend(self.folder / "kept")


class NotKept(InProcess):
    """The same in memory: what the contracts cost without a disk."""

    name = "eventstore, `memory:`"

    def open_backend(self) -> EventBackend:
        return EventBackend(lambda: eventstore.open("memory:"))


def rows_of(request: Request) -> list[Any]:
    """The items of a list that a call rewrites."""
    contract = CONTRACTS[request["contract"]]
    return request["args"][0] if contract.shape == "rows" and request["method"].startswith("write") else []


class Rewritten(NotKept):
    """Events appended, in percent of the list items that the engine rewrote."""

    name = "events appended"

    def setup(self) -> None:
        super().setup()
        self.session = session("caps", self.sizes.recording)

    def run(self) -> float:
        super().run()
        items = sum(len(rows_of(request)) for request in self.session.requests)
        events = self.loop.run_until_complete(self._events())
        self.note = f"{items:,} items became {events:,} events; {self.session.said}"
        return 100 * events / items

    async def _events(self) -> int:
        shelves: list[Any] = [await self.backend.shelf(contract) for contract in CONTRACTS.values() if contract.shape == "rows"]
        return sum(shelf._domain.head().position for shelf in shelves)


class ADay(InProcess):
    """Megabytes that a day of the session would leave, with its whole history."""

    name = "eventstore, with its history"

    def setup(self) -> None:
        super().setup()
        self.session = session("live", self.sizes.recording)

    def open_backend(self) -> EventBackend:
        return EventBackend(lambda: eventstore.open(self.folder / "kept", durability="process"))

    def run(self) -> float:
        super().run()
        assert isinstance(self.backend, EventBackend)
        self.loop.run_until_complete(self.backend.close())
        return self.a_day(sum(path.stat().st_size for path in (self.folder / "kept").rglob("*") if path.is_file()))

    def a_day(self, size: int) -> float:
        """Megabytes a day of what all of the session took."""
        self.note = f"{self.session.said}, {self.session.minutes:,.0f} minutes"
        return size / 1e6 * DAY / self.session.minutes


class Rewriting(ADay):
    """Megabytes that the engine's own files would have written in that time: each record anew, whole lists again and again."""

    name = "JSON documents written by the engine"

    def run(self) -> float:
        ids: set[str] = set()
        return self.a_day(sum(sum(map(len, written(request, ids))) for request in self.session.requests))

    def after(self) -> None:
        """Nothing was kept."""


def written(request: Request, ids: set[str]) -> list[bytes]:
    """The documents that the engine writes for a call; `ids` are the lines of its log that it has written already."""
    contract = CONTRACTS[request["contract"]]
    if not request["method"].startswith("write"):
        return []
    given = request["args"][0]
    if contract.shape == "series":
        return list(map(msgspec.json.encode, given))
    if contract.shape != "rows":
        return [msgspec.json.encode(given)]
    fresh = [row for row in given if contract.write != "first" or row["id"] not in ids]
    if contract.write == "first":
        ids.update(row["id"] for row in fresh)
    return list(map(msgspec.json.encode, fresh))
