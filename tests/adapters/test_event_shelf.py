"""The contracts on the event store: what a record's history says, and candles over seals, archives, redactions and other writers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

import eventstore
from eventstore import aio
from eventstore.adapters import persist
from eventstore.adapters.contracts import CONTRACTS
from eventstore.adapters.event_shelf import EventBackend, EventShelf
from eventstore.adapters.persist import PersistCandleInstance, PersistNotificationInstance, PersistSignalInstance, PersistStateInstance
from eventstore.adapters.registry import backend_at
from eventstore.adapters.shelf import Parts
from eventstore.domain import DomainStore
from eventstore.errors import ClosedError, EngineError, InvalidValueError
from eventstore.model import Event, Key
from eventstore.projections.series import FIELDS, columns_of, read_columns
from eventstore.retention import Retention
from tests.eventstore.crew import PATIENCE, Crew, Transactions

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


def times_of(domain: DomainStore) -> list[list[int]]:
    """The minutes of which each event holds the candles."""
    columns = [read_columns(event.data or "") for event in domain.events()]
    return [[(time - START) // MINUTE for time in each.timestamps] for each in columns if each is not None]


class Overtaken(EventShelf):
    """Another program writes when this one has just found what is new."""

    other: DomainStore | None = None
    theirs: Sequence[dict[str, Any]] = candles(0, price=7)

    def _new(self, context: Parts, candles: Sequence[dict[str, Any]], drafted: Sequence[Event] = ()) -> tuple[list[dict[str, Any]], int]:
        found = super()._new(context, candles, drafted)
        if self.other is not None:
            first, self.other = self.other, None
            first.write_value((*context, self.theirs[0]["timestamp"]), columns_of(self.theirs))
        return found


@pytest.mark.parametrize(
    ("theirs", "written"),
    [
        ([0], [[0], [1, 2, 3]]),
        ([1, 2], [[1, 2], [0, 3]]),
        ([2, 9], [[2, 9], [0, 1, 3]]),
        ([0, 1, 2, 3], [[0, 1, 2, 3]]),
        ([8], [[8], [0, 1, 2, 3]]),
    ],
)
def test_candles_of_a_call_that_was_overtaken_are_not_lost(theirs: list[int], written: list[list[int]]) -> None:
    """The second looks again, once it is its turn, for what is still missing; each candle is in one event."""

    async def check(store: eventstore.Store, other: eventstore.Store) -> None:
        async with aio.Store(store) as awaited:
            shelf = Overtaken(store.domain(CANDLE.domain), await awaited.domain(CANDLE.domain))
            shelf.other, shelf.theirs = other.domain(CANDLE.domain), candles(*theirs, price=7)
            await shelf.add_candles(CONTEXT, candles(0, 1, 2, 3))
            found = await shelf.read_candles(CONTEXT, START, MINUTE, 4)
            assert [candle["open"] for candle in found or []] == [7 if place in theirs else 1 for place in range(4)]
        assert times_of(other.domain(CANDLE.domain)) == written

    with eventstore.open("data") as store, eventstore.open("data") as other:
        asyncio.run(check(store, other))


# ---- calls that wait at the same time


@contextlib.asynccontextmanager
async def held(location: str = "data", **options: Any) -> AsyncIterator[tuple[EventShelf, Transactions]]:
    """A shelf, and the power to hold what it commits."""
    backend = EventBackend(lambda: eventstore.open(location, **options))
    shelf = await backend.shelf(CANDLE)
    assert isinstance(shelf, EventShelf)
    try:
        yield shelf, Transactions(shelf._domain)
    finally:
        await backend.close()


async def begun(shelf: EventShelf, transactions: Transactions, *places: int) -> asyncio.Task[None]:
    """A call whose event is being committed, and does not go on."""
    transactions.hold()
    task = asyncio.create_task(shelf.add_candles(CONTEXT, candles(*places)))
    assert await asyncio.to_thread(transactions.entered.wait, PATIENCE)
    return task


async def waiting(shelf: EventShelf, *calls: Sequence[dict[str, Any]]) -> list[asyncio.Task[None]]:
    """Calls that wait."""
    tasks = [asyncio.create_task(shelf.add_candles(CONTEXT, call)) for call in calls]
    await asyncio.sleep(0)
    return tasks


async def prices(shelf: EventShelf, first: int, limit: int) -> list[float] | None:
    found = await shelf.read_candles(CONTEXT, START + first * MINUTE, MINUTE, limit)
    return None if found is None else [candle["open"] for candle in found]


def test_calls_that_wait_while_a_commit_is_under_way_become_one_event() -> None:
    """Sixty-five candles, two events; nobody is answered before his own is durable."""

    async def check() -> None:
        async with held() as (shelf, transactions):
            first = await begun(shelf, transactions, 0)
            rest = await waiting(shelf, *(candles(place, price=place) for place in range(64, 0, -1)))
            await asyncio.sleep(0)
            assert not any(task.done() for task in (first, *rest))
            transactions.hold_next()
            await first
            assert await asyncio.to_thread(transactions.entered.wait, PATIENCE)
            assert not any(task.done() for task in rest)
            transactions.let_go()
            await asyncio.gather(*rest)
            assert (transactions.sizes, transactions.durabilities) == ([1, 1], ["power", "power"])
            assert await prices(shelf, 0, 65) == [1, *range(1, 65)]
            assert shelf._gatherings == {}

    asyncio.run(check())
    with eventstore.open("data", read_only=True) as store:
        assert list(store.domain("candle").keys()) == [(*CONTEXT, START), (*CONTEXT, START + MINUTE)]
        assert store.domain("candle").read_value((*CONTEXT, START + MINUTE))["open"] == [*range(1, 65)]


def test_a_redaction_of_an_event_takes_every_calls_candles_of_it_and_the_first_written_after_that_stand() -> None:
    async def check() -> None:
        async with held() as (shelf, transactions):
            rest = [await begun(shelf, transactions, 0), *await waiting(shelf, candles(1, 2), candles(3, price=2))]
            transactions.let_go()
            await asyncio.gather(*rest)
            shelf._domain.redact((*CONTEXT, START + MINUTE), reason="wrong feed")
            assert [await prices(shelf, place, 1) for place in range(4)] == [[1], None, None, None]
            for price in (5, 6):
                await shelf.add_candles(CONTEXT, candles(0, 1, 2, 3, price=price))
            # The moment of the event's own key stays taken; of the others, as of any that nobody reads, the first one counts.
            assert [await prices(shelf, place, 1) for place in range(4)] == [[1], None, [5], [5]]

    asyncio.run(check())


def test_of_calls_that_share_a_transaction_each_candle_is_in_one_event() -> None:
    """As two event loops of one program have it: the second call cannot read what the first has only drafted."""

    async def check() -> None:
        async with held() as (shelf, transactions):
            assert shelf._awaited is not None
            first = await begun(shelf, transactions, 9)
            shelves = [EventShelf(shelf._domain, shelf._awaited) for _ in range(3)]
            calls = [candles(0, 1, price=2), candles(1, 2, price=3), candles(0, 2, price=4)]
            tasks = [asyncio.create_task(each.add_candles(CONTEXT, call)) for each, call in zip(shelves, calls, strict=True)]
            transactions.forget_arrivals()
            await asyncio.to_thread(transactions.arrived, len(tasks))
            transactions.let_go()
            await asyncio.gather(first, *tasks)
            assert transactions.sizes == [1, 2]
            written = times_of(shelf._domain)
            assert sorted(place for places in written for place in places) == [0, 1, 2, 9]
            assert await prices(shelf, 0, 3) is not None

    asyncio.run(check())


def test_each_context_has_its_own_events_and_they_share_a_transaction() -> None:
    async def check() -> None:
        async with held() as (shelf, transactions):
            first = await begun(shelf, transactions, 0)
            others = [(f"S{number}", "1m", "binance") for number in range(5)]
            tasks = [asyncio.create_task(shelf.add_candles(context, candles(place))) for context in others for place in range(4)]
            transactions.forget_arrivals()
            await asyncio.to_thread(transactions.arrived, len(others))
            transactions.let_go()
            await asyncio.gather(first, *tasks)
            assert transactions.sizes == [1, len(others)]

    asyncio.run(check())


def test_of_calls_that_were_made_one_after_the_other_the_first_counts() -> None:
    async def check() -> None:
        async with held() as (shelf, transactions):
            first = await begun(shelf, transactions, 0)
            rest = await waiting(shelf, candles(2, 3, price=2), candles(0, 1, 2, price=3), candles(3, 4, price=4))
            transactions.let_go()
            await asyncio.gather(first, *rest)
            assert await prices(shelf, 0, 5) == [1, 3, 2, 2, 4]

    asyncio.run(check())


def test_all_whose_candles_were_in_an_event_that_failed_are_told_so() -> None:
    async def check() -> None:
        async with held() as (shelf, transactions):
            first = await begun(shelf, transactions, 0)
            rest = await waiting(shelf, candles(1), candles(2), candles(3))
            log = shelf._domain.group.live.log
            append = log.append

            def fail(*arguments: Any, **options: Any) -> None:
                log.append = append  # type: ignore[method-assign]
                raise EngineError("the disk is gone", outcome="unknown")

            log.append = fail  # type: ignore[method-assign]
            transactions.let_go()
            await first
            told = await asyncio.gather(*rest, return_exceptions=True)
            assert [type(error) for error in told] == [EngineError] * 3
            assert len({id(error) for error in told}) == 3
            assert await prices(shelf, 0, 1) == [1]
            assert await prices(shelf, 1, 1) is None

    asyncio.run(check())


def test_a_call_that_was_cancelled_while_it_waited_harms_no_other() -> None:
    async def check() -> None:
        async with held() as (shelf, transactions):
            first = await begun(shelf, transactions, 0)
            rest = await waiting(shelf, candles(1), candles(2), candles(3))
            first.cancel()
            rest[1].cancel()
            await asyncio.sleep(0)
            assert (first.done(), rest[1].done()) == (False, True)
            transactions.let_go()
            await asyncio.wait([first, *rest])
            assert [task.cancelled() for task in (first, *rest)] == [True, False, True, False]
            assert await prices(shelf, 0, 2) == [1, 1]
            assert await prices(shelf, 2, 1) is None
            assert await prices(shelf, 3, 1) == [1]

    asyncio.run(check())


def test_candles_that_fit_into_a_value_only_apart_are_written_apart() -> None:
    async def check() -> None:
        async with held(max_value_bytes=400) as (shelf, transactions):
            first = await begun(shelf, transactions, 0)
            rest = await waiting(shelf, candles(1, 2, 3), candles(*range(100, 200)), candles(4, 5, 6), candles(*range(7, 17)))
            transactions.let_go()
            told = await asyncio.gather(first, *rest, return_exceptions=True)
            assert [type(answer) for answer in told] == [type(None), type(None), InvalidValueError, type(None), type(None)]
            assert await prices(shelf, 0, 17) == [1] * 17

    asyncio.run(check())


def test_candles_of_another_process_count_though_those_of_many_waited() -> None:
    """It is first with the key of the event that is about to be written: none of those who share that loses a candle."""

    async def check(other: eventstore.Store) -> None:
        backend = EventBackend(lambda: eventstore.open("data"))
        await backend.shelf(CANDLE)
        assert backend._store is not None
        store, waited = backend._store
        shelf = Overtaken(store.domain(CANDLE.domain), await waited.domain(CANDLE.domain))
        shelf.other = other.domain(CANDLE.domain)
        await asyncio.gather(*(shelf.add_candles(CONTEXT, candles(place)) for place in range(5)))
        assert await prices(shelf, 0, 5) == [7, 1, 1, 1, 1]
        assert shelf._domain.head().position == 2
        await backend.close()

    with eventstore.open("data") as other:
        asyncio.run(check(other))


def test_event_loops_of_several_threads_lose_no_candle() -> None:
    backend = EventBackend(lambda: eventstore.open("data"))
    asyncio.run(_opened(backend))
    barrier = threading.Barrier(3)

    async def write(first: int) -> None:
        shelf = await backend.shelf(CANDLE)
        barrier.wait(PATIENCE)
        await asyncio.gather(*(shelf.add_candles(CONTEXT, candles(place, place + 1, price=first)) for place in range(first, 40)))

    crew = Crew()
    for first in range(3):
        crew.start(functools.partial(asyncio.run, write(first)))
    crew.results()

    async def check() -> None:
        shelf = await backend.shelf(CANDLE)
        assert isinstance(shelf, EventShelf)
        assert await prices(shelf, 0, 41) is not None
        assert shelf._gatherings == {}
        await backend.close()

    asyncio.run(check())


def test_event_loops_that_ask_at_one_moment_have_one_store() -> None:
    barrier, opened = threading.Barrier(3), [eventstore.open("memory:") for _ in range(3)]
    left = list(opened)

    def opening() -> eventstore.Store:
        barrier.wait(PATIENCE)
        return left.pop()

    backend = EventBackend(opening)
    crew = Crew()
    for _ in range(3):
        crew.start(functools.partial(asyncio.run, backend.store()))
    assert len({id(store) for store in crew.results()}) == 1
    asyncio.run(backend.close())
    for store in opened:
        with pytest.raises(ClosedError):
            store.domains()


async def _opened(backend: EventBackend) -> None:
    await backend.shelf(CANDLE)


def test_a_child_forked_while_a_thread_folds_candles_reads_and_writes_them() -> None:
    backend = EventBackend(lambda: eventstore.open("data"))

    async def write(place: int) -> None:
        shelf = await backend.shelf(CANDLE)
        assert isinstance(shelf, EventShelf)
        await shelf.add_candles(CONTEXT, candles(place))
        assert await prices(shelf, 0, place + 1) == [1] * (place + 1)

    asyncio.run(write(0))
    shelf = backend._shelves["Candle"]
    assert isinstance(shelf, EventShelf)
    with shelf._folding:
        pid = os.fork()
        if not pid:
            status = 1
            signal.alarm(PATIENCE)  # a thread that waits for ever would not let the event loop end
            try:
                asyncio.run(write(1))
                status = 0
            finally:
                os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    asyncio.run(write(2))
    asyncio.run(backend.close())


def test_candles_that_are_there_already_are_made_as_durable_as_promised() -> None:
    """Another program may have asked for less."""

    async def check() -> None:
        async with held() as (shelf, transactions):
            await shelf.add_candles(CONTEXT, candles(0))
            assert (transactions.sizes, transactions.durabilities) == ([0], ["power"])

    with eventstore.open("data", durability="process") as store:
        store.domain(CANDLE.domain).write_value((*CONTEXT, START), columns_of(candles(0)))
        asyncio.run(check())


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


ODD = [
    (CONTEXT, columns_of(candles(0, price=9))),
    ((*CONTEXT, str(START)), columns_of(candles(0, price=9))),
    ("BTCUSDT", columns_of(candles(0, price=9))),
    ((*CONTEXT, START + MINUTE), None),
    ((*CONTEXT, START + MINUTE), {"open": [9]}),
    ((*CONTEXT, START + MINUTE), "1m"),
    ((*CONTEXT, START + MINUTE), {**columns_of(candles(1)), "volume": []}),
    ((*CONTEXT, START + MINUTE), {**columns_of(candles(1)), "timestamp": [START, START + MINUTE]}),
    ((*CONTEXT, START + MINUTE), {**columns_of(candles(1, 3)), "timestamp": [START + MINUTE, START]}),
    ((*CONTEXT, START + MINUTE), {**columns_of(candles(1, 2)), "step": -MINUTE}),
    ((*CONTEXT, START + MINUTE), {**columns_of(candles(1)), "timestamp": [2**70]}),
]


@pytest.mark.parametrize(("key", "value"), ODD)
def test_what_others_put_beside_the_candles_is_none(key: Key, value: Any) -> None:
    """It reads as missing, as a file that cannot be read does, and takes nothing of what is there along."""

    async def check() -> None:
        await series().write_candles_data(candles(0))
        assert await read(series(), 0, 1) == [1]
        assert await read(series(), 1, 1) is None
        await series().write_candles_data(candles(2))
        assert await read(series(), 2, 1) == [1]

    with eventstore.open("data") as store:
        store.domain(CANDLE.domain).write_value(key, value)
    asyncio.run(check())
