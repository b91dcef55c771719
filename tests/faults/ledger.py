"""What writers were told, and the proof that a store holds it: every acknowledged event, every call whole or absent.

What a call writes follows from its name alone, so that each event found can be compared with what it must be, byte by byte,
whether its writer lived to say so or not.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import msgspec

import eventstore
from eventstore import aio
from eventstore.model import Durability
from eventstore.values import encode_value
from tests import verifier

DOMAIN = "orders"
OWN = ("seal", "archive")
"""What a log says of itself while it is written and moved."""


class Write(msgspec.Struct, frozen=True):
    """One of the writes of a call."""

    op: Literal["put", "remove"]
    key: str
    value: Any = None

    @property
    def stored(self) -> tuple[str, str, str | None]:
        """What its event holds."""
        return self.op, eventstore.encode_key(self.key), encode_value(self.value) if self.op == "put" else None


class Plan(msgspec.Struct, frozen=True):
    """What a call writes, and how."""

    writes: list[Write]
    durability: Durability
    event_id: str | None

    def gather(self, batch: eventstore.Batch, call: str) -> None:
        """Put the writes into a batch."""
        for write in self.writes:
            if write.op == "put":
                batch.write_value(write.key, write.value, run_id=call)
            else:
                batch.remove_value(write.key, run_id=call)


def plan(call: str) -> Plan:
    """The writes of the call of this name: mostly one, sometimes a batch, now and then a large value or a removal."""
    chance = random.Random(call)
    if chance.random() < 0.1:
        writes = [Write("remove", f"key-{chance.randrange(12)}")]
    else:
        count = chance.choice([1, 1, 1, 2, 5, 20])
        size = 9_000 if chance.random() < 0.1 else 60
        keys = [f"key-{chance.randrange(12)}" for _ in range(count)]
        writes = [Write("put", key, {"call": call, "index": index, "pad": "x" * size}) for index, key in enumerate(keys)]
        if count > 2:
            writes.append(Write("remove", keys[0]))
    return Plan(writes, chance.choice(["power", "power", "process", "power+"]), f"id of {call}" if chance.random() < 0.5 else None)


def call_of_size(name: str, writes: int) -> str:
    """The name of a call that begins with `name` and has so many writes."""
    return next(call for number in itertools.count() if len(plan(call := f"{name}-{number}").writes) == writes)


def carry_out(
    domain: eventstore.DomainStore, call: str, *, retry: bool = False, durability: Durability | None = None
) -> list[eventstore.Receipt]:
    """Make a call, with another durability than planned if one is given; a receipt for each of its writes.

    With `retry` it has an event_id, and may be made again.
    """
    planned = plan(call)
    level = durability or planned.durability
    event_id = f"id of {call}" if retry else planned.event_id
    if len(planned.writes) == 1 and planned.writes[0].op == "put":
        write = planned.writes[0]
        return [domain.write_value(write.key, write.value, event_id=event_id, durability=level, run_id=call)]
    with domain.batch(event_id=event_id, durability=level) as batch:
        planned.gather(batch, call)
    return batch.receipts


async def carry_out_awaited(domain: aio.DomainStore, call: str) -> list[eventstore.Receipt]:
    """The same, awaited; with an event_id, so that it may be made again."""
    planned = plan(call)
    async with domain.batch(event_id=f"id of {call}", durability=planned.durability) as batch:
        planned.gather(batch, call)
    return batch.receipts


def acknowledgement(call: str, receipts: Sequence[eventstore.Receipt]) -> dict[str, Any]:
    """What a writer says once it has the receipts, and not before."""
    return {"call": call, "appended": [[receipt.position, receipt.checksum.hex()] for receipt in receipts if receipt.appended]}


class _Meta(msgspec.Struct):
    run_id: str


_meta = msgspec.json.Decoder(_Meta)


def call_of(event: eventstore.Event) -> str:
    """The call that wrote an event. What the log says of itself was written by none, and never stands within one."""
    if event.op in OWN:
        return f"{event.op} at {event.position}"
    assert event.meta is not None, f"position {event.position} says nothing of itself"
    return _meta.decode(event.meta).run_id


class Ledger:
    """The acknowledgements of all writers of one domain."""

    def __init__(self) -> None:
        self.acknowledged: dict[int, tuple[str, str]] = {}

    def take(self, said: dict[str, Any]) -> None:
        """Note what a writer said. No position may be given to two calls."""
        for position, checksum in said.get("appended", []):
            earlier = self.acknowledged.setdefault(position, (checksum, said["call"]))
            assert earlier == (checksum, said["call"]), f"position {position} was acknowledged to two calls: {earlier} and {said}"

    def require(self, events: Sequence[eventstore.Event]) -> None:
        """Hold the whole log against what was acknowledged, and every call against its plan."""
        assert [event.position for event in events] == list(range(1, len(events) + 1)), "the positions have gaps"
        found = {event.position: (event.checksum.hex(), call_of(event)) for event in events}
        lost = {position: said for position, said in self.acknowledged.items() if found.get(position) != said}
        assert not lost, f"acknowledged, but not there: {lost}; the log ends at {len(events)}"
        seen: set[str] = set()
        for call, group in groupby([event for event in events if event.op not in OWN], call_of):
            assert call not in seen, f"{call} was torn apart, or written twice"
            seen.add(call)
            written = [(event.op, event.key, event.data) for event in group]
            assert written == [write.stored for write in plan(call).writes], f"{call} is not whole: {len(written)} events"

    def require_kept(self, folder: Path, *, read_only: bool = False, busy: bool = False) -> None:
        """Open the store and prove all of it: events, chain, what `verify` says; current values, unless others are `busy` writing."""
        with eventstore.open(folder, read_only=read_only) as store:
            domain = store.domain(DOMAIN)
            events = list(domain.events())
            self.require(events)
            if busy:
                report = store.verify()
                assert report.ok, report.findings
                return
            values = {event.key: event.data for event in events if event.op not in OWN}
            stored = {eventstore.encode_key(key): encode_value(value) for key, value in domain.items()}
            assert stored == {key: data for key, data in values.items() if data is not None}
            report = store.verify()
            assert report.ok, report.findings
            assert report.domains[0].events == len(events)

    def require_second_opinion(self, folder: Path) -> None:
        """Let the verifier that shares no code with the library judge the file. The store must be closed."""
        log = folder / "logs" / DOMAIN
        if any(log.glob("[0-9]*.db")):
            found = verifier.verify(log, log / "head", domain=DOMAIN)
            assert found.findings == []
