"""The contracts on the event store: what a record's history says, and candles over seals, archives, redactions and other writers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

import eventstore
from eventstore import aio
from eventstore.adapters import persist
from eventstore.adapters.contracts import CONTRACTS
from eventstore.adapters.event_shelf import EventShelf
from eventstore.adapters.persist import PersistCandleInstance, PersistNotificationInstance, PersistSignalInstance, PersistStateInstance
from eventstore.adapters.registry import backend_at
from eventstore.adapters.shelf import Parts
from eventstore.domain import DomainStore
from eventstore.projections.series import FIELDS, columns_of
from eventstore.retention import Retention

START, MINUTE = 1_704_067_200_000, 60_000
CONTEXT = ("BTCUSDT", "1m", "binance")
CANDLE = CONTRACTS["Candle"]


def candles(*places: int, price: float = 1.0) -> list[dict[str, Any]]:
    """Candles of these minutes."""
    return [{"timestamp": START + place * MINUTE, **dict.fromkeys(FIELDS, price)} for place in places]


def series() -> PersistCandleInstance:
    """An instance on the store `data`."""
    return PersistCandleInstance(*CONTEXT, backend=backend_at("data"))


async def read(kept: PersistCandleInstance, first: int, limit: int) -> list[float] | None:
    """Prices."""
    found = await kept.read_candles_data(limit, START + first * MINUTE, 0)
    return None if found is None else [candle["open"] for candle in found]


def test_a_record_is_a_key_with_its_history() -> None:
    async def check() -> None:
        state = PersistStateInstance("s1", "b", backend=backend_at("data"))
        await state.write_state_data({"n": 1}, 2_000_000)
        await state.write_state_data({"n": 2}, 1_000_000)
        await PersistSignalInstance("B", "st", "x", backend=backend_at("data")).write_signal_data(None)

    asyncio.run(check())
    asyncio.run(persist.close())
    with eventstore.open("data") as store:
        story = [(event.data, event.when_us) for event in store.domain("state").history(("s1", "b"))]
        assert story == [('{"n":2}', 1_000_000), ('{"n":1}', 2_000_000)]
        assert store.domain("signal").read_value(("B", "st", "x")) is None


def test_candles_of_a_call_are_one_event_with_those_that_are_new() -> None:
    async def check() -> None:
        await series().write_candles_data(candles(0, 1, 2))
        await series().write_candles_data(candles(1, 2, 3, 5))
        await series().write_candles_data(candles(0, 5))

    asyncio.run(check())
    asyncio.run(persist.close())
    with eventstore.open("data") as store:
        domain = store.domain("candle")
        assert list(domain.keys()) == [(*CONTEXT, START), (*CONTEXT, START + 3 * MINUTE)]
        ones = [1.0, 1.0, 1.0]
        assert domain.read_value((*CONTEXT, START)) == {"start": START, "step": MINUTE, **dict.fromkeys(FIELDS, ones)}
        assert domain.read_value((*CONTEXT, START + 3 * MINUTE))["start"] == START + 3 * MINUTE
        assert domain.head().position == 2


def test_candles_are_there_after_seals_and_archives() -> None:
    """One instance sees all of it happen, another begins when the past is gone."""

    async def check(store: eventstore.Store) -> None:
        kept = series()
        await kept.write_candles_data(candles(0, 1))
        assert await read(kept, 0, 2) == [1, 1]
        store.seal("candle")
        await kept.write_candles_data(candles(2, price=2))
        store.seal("candle")
        store.retain(Retention(keep_events=0), "candle", to="archived")
        assert await read(kept, 0, 3) == [1, 1, 2]
        await kept.write_candles_data(candles(0, 3, price=3))
        assert await read(kept, 0, 4) == [1, 1, 2, 3]
        await persist.close()
        assert await read(series(), 0, 4) == [1, 1, 2, 3]

    with eventstore.open("data") as store:
        asyncio.run(check(store))
        assert store.domain("candle").floor > 0


@pytest.mark.parametrize("warm", [True, False])
def test_redacted_candles_are_gone_and_stay_so(warm: bool) -> None:
    async def check(store: eventstore.Store) -> None:
        kept = series()
        await kept.write_candles_data(candles(0, 1))
        await kept.write_candles_data(candles(2, 3, price=2))
        if warm:
            assert await read(kept, 0, 4) == [1, 1, 2, 2]
        store.domain("candle").redact((*CONTEXT, START), reason="wrong feed")
        assert await read(kept, 0, 1) is None
        assert await read(kept, 2, 2) == [2, 2]
        # The event's own key is taken for ever; what else it held can be written again.
        await kept.write_candles_data(candles(0, 1, price=3))
        assert (await read(kept, 0, 1), await read(kept, 1, 3)) == (None, [3, 2, 2])

    with eventstore.open("data") as store:
        asyncio.run(check(store))


def test_of_two_stores_that_write_the_same_moments_the_first_counts() -> None:
    """Handles of two programs: neither knows what the other is about to write, and nothing of either is lost."""

    async def check() -> None:
        ours, theirs = series(), PersistCandleInstance(*CONTEXT, backend=backend_at("data", actor="other"))
        for first in range(0, 30, 3):
            spans = candles(*range(first, first + 5), price=1), candles(*range(first, first + 9), price=2)
            await asyncio.gather(ours.write_candles_data(spans[0]), theirs.write_candles_data(spans[1]))
        assert None is not await read(ours, 0, 36) == await read(theirs, 0, 36)
        await persist.close()
        assert await read(series(), 0, 36) is not None

    asyncio.run(check())


class Overtaken(EventShelf):
    """Another program writes what this one has just found to be new."""

    other: DomainStore | None = None

    def _new(self, context: Parts, candles: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        found = super()._new(context, candles)
        if self.other is not None and found:
            first, self.other = self.other, None
            first.write_value((*context, found[0]["timestamp"]), columns_of([{**found[0], "open": 7}]))
        return found


def test_candles_of_a_call_that_was_overtaken_are_not_lost() -> None:
    """Both would write under one key: the second looks again for what is still missing."""

    async def check(store: eventstore.Store, other: eventstore.Store) -> None:
        async with aio.Store(store) as awaited:
            shelf = Overtaken(store.domain(CANDLE.domain), await awaited.domain(CANDLE.domain))
            shelf.other = other.domain(CANDLE.domain)
            await shelf.add_candles(CONTEXT, candles(0, 1, 2))
            found = await shelf.read_candles(CONTEXT, START, MINUTE, 3)
            assert [candle["open"] for candle in found or []] == [7, 1, 1]

    with eventstore.open("data") as store, eventstore.open("data") as other:
        asyncio.run(check(store, other))


def test_redacted_rows_are_passed_over() -> None:
    async def check(store: eventstore.Store) -> None:
        rows = PersistNotificationInstance(False, backend=backend_at("data"))
        await rows.write_notification_data([{"id": f"n{number}"} for number in range(3)])
        store.domain("notification").redact(("live", "n1"), reason="a name")
        assert [row["id"] for row in await rows.read_notification_data()] == ["n0", "n2"]

    with eventstore.open("data") as store:
        asyncio.run(check(store))


def test_keys_of_others_in_a_domain_are_not_listed() -> None:
    async def check() -> None:
        rows = PersistNotificationInstance(False, backend=backend_at("data"))
        await rows.write_notification_data([{"id": "n1"}])
        assert [row["id"] for row in await rows.read_notification_data()] == ["n1"]

    with eventstore.open("data") as store:
        store.domain("notification").write_value(("live", "n1", "deeper"), {"id": "deeper"})
        store.domain("notification").write_value("live", {"id": "alone"})
    asyncio.run(check())
