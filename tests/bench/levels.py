"""The same events below the verbs and above them: a log, a recorder, a store of commits; and applications, from objects.

Below, everybody is handed what its own layer takes, made before the clock starts: ours sealed events, the others their
stored events, commits or event objects. What is timed is what that layer itself does with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import os
import sqlite3
import uuid
from typing import Any

import msgspec

from eventstore.codec import SALT_BYTES, seal
from eventstore.model import Event, Head
from tests.bench import sample
from tests.bench.measure import Contender
from tests.bench.ours import Ours
from tests.bench.peers import LEVELS, EventSourcing, load

_encode = msgspec.json.Encoder().encode


# ---- the log


class SealedAppend(Ours):
    """What the verbs hand to the engine: sealed events, a batch at a time."""

    name = "eventstore, append of sealed events"

    def setup(self) -> None:
        super().setup()
        self.log = self.domain.group.live.log
        self.latest: dict[str, int] = {}

    def prepare(self) -> None:
        head, size, stamp = self.log.head(), self.sizes.batch, self.log.get([self.log.head().position])[0].recorded_us
        events: list[Event] = []
        for at, (number, value) in enumerate(self._picks()):
            key, text = sample.key_text(number), _encode(value).decode()
            event = seal(
                head,
                prev=self.latest.get(key, 0),
                recorded_us=stamp + at + 1,
                when_us=sample.WHEN_US,
                op="put",
                key=key,
                meta=None,
                data=text,
                salt=os.urandom(SALT_BYTES),
            )
            events.append(event)
            head = Head(event.position, event.checksum)
            self.latest[key] = event.position
        self.batches = [events[start : start + size] for start in range(0, len(events), size)]

    def _picks(self) -> list[tuple[int, sample.Value]]:
        count = self.sizes.batch * self.sizes.batches
        return list(zip(sample.spread(count, self.sizes.keys), sample.values(count), strict=True))

    def run(self) -> float:
        for batch in self.batches:
            with self.log.writing() as head:
                self.log.append(batch, after=head)
        return sum(map(len, self.batches))


class RecorderAppend(EventSourcing):
    """Stored events, a batch at a time."""

    name = "eventsourcing recorder, stored events"

    def prepare(self) -> None:
        made = [self.stored(who, version, "bench:Put", _encode(value)) for who, version, value in self._picks()]
        self.batches = [made[start : start + self.sizes.batch] for start in range(0, len(made), self.sizes.batch)]

    def _picks(self) -> list[tuple[uuid.UUID, int, sample.Value]]:
        return self.items(self.sizes.batch * self.sizes.batches)

    def run(self) -> float:
        for batch in self.batches:
            self.recorder.insert_events(batch)
        return sum(map(len, self.batches))


class AettAppend(Contender):
    """A commit of many events to one stream: one row with all of them as one text."""

    name = "aett, a commit of many events"
    requires = "aett"

    def setup(self) -> None:
        storage, self.eventstore = load("aett.storage.synchronous.sqlite"), load("aett.eventstore")
        path, topics = str(self.folder / "aett.db"), self.eventstore.TopicMap()
        storage.PersistenceManagement(path, topics).initialize()
        self.store = storage.CommitStore(path, topics)
        self.commits = 0
        with contextlib.closing(sqlite3.connect(path)) as connection:  # as it makes one for every commit
            journal, level = (connection.execute(f"PRAGMA {pragma}").fetchone()[0] for pragma in ("journal_mode", "synchronous"))
        self.note = (
            f"as it comes: a connection a commit, journal_mode={journal}, synchronous={LEVELS[level]};"
            " a commit is one row in one stream; encodes by pydantic"
        )

    def prepare(self) -> None:
        self.todo = [self._commit(sample.values(self.sizes.batch)) for _ in range(self.sizes.batches)]

    def _commit(self, values: list[sample.Value]) -> Any:
        self.commits += 1
        now, revision = datetime.datetime.now(datetime.UTC), self.commits * len(values)
        return self.eventstore.Commit(
            tenant_id="bench",
            stream_id="bench",
            stream_revision=revision,
            commit_id=uuid.uuid4(),
            commit_sequence=self.commits,
            commit_stamp=now,
            headers={},
            events=[
                self.eventstore.EventMessage(body=_aett_event()(source="bench", timestamp=now, version=revision + at, value=value))
                for at, value in enumerate(values)
            ],
            checkpoint_token=0,
        )

    def run(self) -> float:
        for commit in self.todo:
            self.store.commit(commit)
        return self.sizes.batch * len(self.todo)


@functools.cache
def _aett_event() -> Any:
    return load("pydantic").create_model("BenchPut", __base__=load("aett.eventstore").DomainEvent, value=(dict[str, Any], ...))


class EventSourcePyAppend(Contender):
    """Event objects appended to one stream, a row each."""

    name = "eventsource-py, append"
    requires = "eventsource"

    def setup(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.store = load("eventsource.adapters.sqlite").SQLiteEventStore(str(self.folder / "eventsource.db"))
        self.stream = load("eventsource.domain").StreamId(uuid.uuid5(uuid.NAMESPACE_OID, "bench"), "Bench")
        self.expected = load("eventsource.ports").ExpectedVersion.any_()
        self.note = f"as it comes: WAL, synchronous={self.loop.run_until_complete(self._synchronous())}; encodes by pydantic and orjson"

    async def _synchronous(self) -> str:
        connection = await self.store._conn()
        async with connection.execute("PRAGMA synchronous") as cursor:
            return LEVELS[(await cursor.fetchone())[0]]

    def prepare(self) -> None:
        made = [
            _eventsource_event()(aggregate_id=self.stream.aggregate_id, aggregate_type="Bench", value=value)
            for value in sample.values(self.sizes.batch * self.sizes.batches)
        ]
        self.batches = [made[start : start + self.sizes.batch] for start in range(0, len(made), self.sizes.batch)]

    def run(self) -> float:
        return self.loop.run_until_complete(self._all())

    async def _all(self) -> float:
        for batch in self.batches:
            await self.store.append(self.stream, batch, self.expected)
        return sum(map(len, self.batches))

    def teardown(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.loop.close()


@functools.cache
def _eventsource_event() -> Any:
    return load("pydantic").create_model("BenchPut", __base__=load("eventsource.domain.event").DomainEvent, value=(dict[str, Any], ...))


# ---- the application


class Signal(msgspec.Struct):
    """The sample's value as an object."""

    id: str
    position: str
    priceOpen: float  # noqa: N815  the sample's names
    priceTakeProfit: float  # noqa: N815
    minuteEstimatedTime: int  # noqa: N815
    open: bool
    note: str


class Application(Ours):
    """An object a call, written by a verb, durable."""

    name = "eventstore, `write_value` of an object"

    def prepare(self) -> None:
        self.todo = [(key, Signal(**value)) for key, value in self.items(self.sizes.singles)]

    def run(self) -> float:
        for key, value in self.todo:
            self.domain.write_value(key, value, when=sample.WHEN_US)
        return len(self.todo)


class EventSourcingApplication(Contender):
    """An event triggered on an aggregate that is at hand, then saved, durable."""

    name = "eventsourcing, `Application.save`"
    requires = "eventsourcing"
    note = "aggregates are at hand, not read from the file; default settings, its own transcoder; the event's value is the dict"

    def setup(self) -> None:
        environment = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(self.folder / "application.db")}
        self.application = load("eventsourcing.application").Application(env=environment)
        self.aggregates = [_aggregate()() for _ in range(self.sizes.aggregates)]
        self.application.save(*self.aggregates)

    def prepare(self) -> None:
        picks = sample.spread(self.sizes.singles, len(self.aggregates))
        self.todo = [(self.aggregates[pick], value) for pick, value in zip(picks, sample.values(self.sizes.singles), strict=True)]

    def run(self) -> float:
        save = self.application.save
        for aggregate, value in self.todo:
            aggregate.put(value)
            save(aggregate)
        return len(self.todo)

    def teardown(self) -> None:
        self.application.close()


@functools.cache
def _aggregate() -> Any:
    """Made when asked for: the module can be loaded without eventsourcing."""
    domain = load("eventsourcing.domain")

    def put(self: Any, value: sample.Value) -> None:
        self.value = value

    names = {"__module__": __name__, "__qualname__": "BenchAggregate", "put": domain.event("Put")(put)}
    return type(domain.Aggregate)("BenchAggregate", (domain.Aggregate,), names)
