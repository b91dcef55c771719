"""The awaited face: the same names, one body, a loop that is never blocked, and cancellations that leave nothing under way."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import inspect
import os
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

import eventstore
from eventstore import (
    ClosedError,
    DiskFullError,
    Domain,
    Event,
    HaltedError,
    InvalidValueError,
    KeyState,
    Receipt,
    WrongExpectedError,
    aio,
    awaited,
)
from eventstore.logfile import LogFile
from eventstore.model import Key
from eventstore.values import LARGE
from tests.eventstore.crew import PATIENCE, Crew, Transactions

T = TypeVar("T")
OWN = {"group", "clock", "actor", "max_value_bytes", "after_fork", "at_hand"}
"""What only the inside of the house asks a synchronous object for."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """In a loop of its own, but not for ever."""
    return asyncio.run(asyncio.wait_for(work, PATIENCE))


async def soon(question: Callable[[], bool]) -> None:
    """Let the loop go on until it is so; the test's own patience is the limit."""
    while not question():  # noqa: ASYNC110  what is asked happens in other threads, which know no asyncio.Event
        await asyncio.sleep(0)


async def collected(items: AsyncIterator[T]) -> list[T]:
    return [item async for item in items]


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[tuple[aio.Store, aio.DomainStore]]:
    """A store and its domain `d`."""
    async with await aio.open(folder, **options) as store:
        yield store, await store.domain("d")


def transactions_of(domain: aio.DomainStore) -> Transactions:
    """The power to hold what the domain commits."""
    return Transactions(domain._domain)


def test_tasks_write_while_a_thread_seals_for_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with opened(tmp_path, seal_bytes=1) as (_, domain):
            loop, latest, written = asyncio.get_running_loop(), LogFile.latest, threading.Event()

            def read(file: LogFile, after: int, until: int) -> tuple[int, int, dict[str, int]] | None:
                if not written.is_set():
                    written.set()
                    asyncio.run_coroutine_threadsafe(domain.write_value("other", 1), loop).result(PATIENCE)
                return latest(file, after, until)

            monkeypatch.setattr(LogFile, "latest", read)
            await domain.write_value("key", 1)
            await soon(lambda: len(list((tmp_path / "logs" / "d").glob("[0-9]*.db"))) > 1)

    run(work())
    assert [event.op for event in require_whole(tmp_path)] == ["put", "put", "seal"]


def require_whole(folder: Path) -> list[Event]:
    """Every event, once the chain is proven."""
    with eventstore.open(folder, read_only=True) as store:
        assert store.verify().ok
        return list(store.domain("d").events())


# One body


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")} - OWN


@pytest.mark.parametrize(
    ("sync", "ours"),
    [(eventstore.Store, aio.Store), (eventstore.DomainStore, aio.DomainStore), (eventstore.DomainView, aio.DomainView)],
    ids=["Store", "DomainStore", "DomainView"],
)
def test_every_name_is_there_with_the_same_arguments(sync: type, ours: type) -> None:
    assert public(sync) - public(ours) == set()
    for name in sorted(public(sync)):
        one, other = inspect.getattr_static(sync, name), inspect.getattr_static(ours, name)
        assert isinstance(one, property) == isinstance(other, property), name
        if callable(one) and callable(other):
            assert list(inspect.signature(one).parameters.values()) == list(inspect.signature(other).parameters.values()), name
            assert inspect.getdoc(other), name


def test_an_intent_is_entered_and_settled_without_blocking(tmp_path: Path) -> None:
    async def work() -> None:
        async with await aio.open(tmp_path / "data") as store:
            async with store.intent("order-1", {"side": "buy"}, actor="bot") as intent:
                assert (intent.status, intent.uncertain, intent.effect) == ("pending", False, {"side": "buy"})
                assert [left.event_id for left in await store.uncertain()] == ["order-1"]
                assert (await intent.done("filled")).appended
            with pytest.raises(eventstore.SettledError):
                async with store.intent("order-1", {"side": "buy"}):
                    raise AssertionError("a second order")
            with pytest.raises(ZeroDivisionError):
                async with store.intent("order-2", 2):
                    raise ZeroDivisionError
            async with store.intent("order-2", 2, resume=True) as intent:
                assert intent.uncertain
                await intent.fail("refused")
            assert (intent.status, await store.uncertain()) == ("failed", [])

    run(work())


def test_a_cancelled_block_leaves_its_intent_uncertain(tmp_path: Path) -> None:
    async def work() -> None:
        async with await aio.open(tmp_path / "data") as store:
            inside = asyncio.Event()

            async def act() -> None:
                async with store.intent("order-1", 1):
                    inside.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(act())
            await inside.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [left.event_id for left in await store.uncertain()] == ["order-1"]

    run(work())


def test_open_takes_the_same_arguments() -> None:
    assert inspect.signature(aio.open).parameters == inspect.signature(eventstore.open).parameters


def test_checkers_see_the_types(tmp_path: Path) -> None:
    """Both of them run over this file: a verb that lost its types would be one they complain of."""

    async def work() -> None:
        async with opened(tmp_path / "data") as (store, domain):
            written: Receipt = await domain.write_value("k", 1, when=5, expected=eventstore.ABSENT)
            many: list[Receipt] = await domain.write_values([("a", 1)])
            updated: Receipt = await domain.update_value("k", lambda value: value + 1)
            restored: Receipt = await domain.restore_value("k", written.position)
            state: KeyState | None = await domain.state_of("k")
            there: bool = await domain.has_value("k")
            names: list[str] = await store.domains()
            view: aio.DomainView = await domain.state(as_of=1)
            async for event in domain.events(after=1, limit=1):
                found: Event = event
                assert found.position == 2
            assert (written.position, many[0].position, updated.position, restored.position) == (1, 2, 3, 4)
            assert (state is not None, there, names, await view.read_value("k")) == (True, True, ["d"], 1)

    run(work())


# Reading and writing


def test_every_verb_does_what_its_namesake_does(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data", actor="bot") as (store, domain):
            await domain.write_values([(("row", number), {"n": number}) for number in range(200)])
            assert await collected(domain.keys()) == [("row", number) for number in range(200)]
            assert await collected(domain.values("row")) == [{"n": number} for number in range(200)]
            assert await collected(domain.items(("row", 150))) == [(("row", 150), {"n": 150})]
            assert [event.position async for event in domain.events(reverse=True)] == list(range(200, 0, -1))
            await domain.remove_value(("row", 7))
            assert [event.op async for event in domain.history(("row", 7))] == ["remove", "put"]
            assert await domain.get(("row", 7), "gone") == "gone"
            assert not await domain.has_value(("row", 7))
            assert (await domain.update_value(("row", 1), lambda value: value["n"] + 1)).appended
            assert await domain.read_value(("row", 1)) == 2
            await domain.restore_value(("row", 1), 2)
            assert await domain.read_value(("row", 1)) == {"n": 1}
            async with domain.batch(event_id="both") as batch:
                batch.write_value("a", 1)
                batch.remove_value(("row", 2))
            assert [receipt.position for receipt in batch.receipts] == [204, 205]
            with pytest.raises(ClosedError):
                batch.write_value("late", 1)
            with pytest.raises(ZeroDivisionError):
                async with domain.batch() as torn:
                    torn.write_value("torn", 1 // 0)
            past = await domain.state(as_of=200)
            assert len(await collected(past.keys())) == 200
            assert await past.read_value(("row", 7)) == {"n": 7}
            assert (await past.head()).checksum == (await domain.event(200)).checksum
            assert len(await domain.remove_all("row")) == 198
            assert (await domain.event(204)).key == '["a"]'
            assert (await domain.head()).position == 205 + 198
            assert (await store.verify()).ok
            assert (domain.name, domain.domain.name, store.read_only, store.halted) == ("d", "d", False, None)
            assert len(store.store_id) == 32
            assert store.created_us > 0

    run(work())


def test_an_iteration_that_is_left_holds_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data") as (_, domain):
            await domain.write_values([(("k", number), number) for number in range(300)])
            keys = domain.keys()
            async for _key in keys:
                break
            assert (await domain.write_value("after", 1)).position == 301

    run(work())


def test_errors_say_which_call_they_are_about(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data", min_free_bytes=2**52) as (store, domain):
            with pytest.raises(DiskFullError) as full:
                await domain.write_value("k", 1, event_id="first")
            with pytest.raises(HaltedError) as halted:
                await domain.write_value("k", 1, event_id="second")
            assert (full.value.event_id, halted.value.event_id) == ("first", "second")
            assert f"{full.value}. Reading goes on; remove the cause" in str(halted.value)
            assert isinstance(store.halted, DiskFullError)
            assert await domain.get("k") is None
            with pytest.raises(DiskFullError):
                await store.resume()

    run(work())


def test_tasks_share_a_transaction_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data") as (_, domain):
            transactions = transactions_of(domain)
            transactions.hold()
            first = asyncio.create_task(domain.write_value("first", 0))
            await soon(transactions.entered.is_set)
            tasks = [asyncio.create_task(domain.write_value("k", number, expected=eventstore.ABSENT)) for number in range(64)]
            await soon(lambda: len(transactions.queue) == 64)
            transactions.let_go()
            told = await asyncio.gather(first, *tasks, return_exceptions=True)
            assert transactions.sizes == [1, 1]
            assert [type(answer) for answer in told] == [Receipt, Receipt] + [WrongExpectedError] * 63

    run(work())


def test_many_tasks_many_domains_few_threads() -> None:
    async def work() -> None:
        before = threading.active_count()
        most = 0
        async with await aio.open("memory:") as store:
            domains = [await store.domain(f"d{number}") for number in range(100)]

            async def write(domain: aio.DomainStore, number: int) -> int:
                nonlocal most
                receipt = await domain.write_value("k", number)
                most = max(most, threading.active_count())
                return receipt.position

            positions = await asyncio.gather(*[write(domain, number) for number in range(5) for domain in domains])
            assert sorted(positions) == sorted([1, 2, 3, 4, 5] * 100)
            assert [await domain.read_value("k") for domain in domains] == [4] * 100
        # Those that read, those that write, those in which a loop does what asyncio asks it to.
        assert most - before <= 2 * awaited._THREADS + 2
        assert threading.active_count() <= before + 2

    run(work())


def test_busy_domains_leave_a_thread_to_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many domains as there are threads always have something to write; another one must have its turn all the same."""
    monkeypatch.setattr(awaited, "_THREADS", 1)

    async def work() -> None:
        async with opened(tmp_path / "data") as (store, busy):
            quiet = await store.domain("quiet")
            transactions = transactions_of(busy)
            append = transactions.domain.group.live.log.append
            done = threading.Event()

            def always_one_more(*arguments: Any, **options: Any) -> None:
                append(*arguments, **options)
                if not done.is_set():
                    asyncio.run_coroutine_threadsafe(queue_up(), loop).result(PATIENCE)

            async def queue_up() -> None:
                before = len(transactions.queue)
                tasks.append(asyncio.create_task(busy.write_value("k", len(tasks))))
                await soon(lambda: len(transactions.queue) > before)

            loop = asyncio.get_running_loop()
            tasks: list[asyncio.Task[Receipt]] = []
            transactions.domain.group.live.log.append = always_one_more  # type: ignore[method-assign]
            await queue_up()
            await soon(transactions.entered.is_set)
            assert (await quiet.write_value("k", 1)).position == 1
            done.set()
            await asyncio.gather(*tasks)

    run(work())


# Cancelled


def test_a_queued_write_is_taken_back(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data") as (_, domain):
            transactions = transactions_of(domain)
            transactions.hold()
            first = asyncio.create_task(domain.write_value("first", 0))
            await soon(transactions.entered.is_set)
            queued = asyncio.create_task(domain.write_value("queued", 0))
            behind = asyncio.create_task(domain.write_value("behind", 0))
            await soon(lambda: len(transactions.queue) == 2)
            queued.cancel()
            with pytest.raises(asyncio.CancelledError):
                await queued  # at once: the transaction is still held
            assert not first.done()
            transactions.let_go()
            assert [(await task).position for task in (first, behind)] == [1, 2]
            assert not await domain.has_value("queued")

    run(work())


def test_a_write_under_way_is_waited_for(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data") as (_, domain):
            transactions = transactions_of(domain)
            attempts: list[Callable[[], Coroutine[Any, Any, Receipt]]] = [
                lambda: domain.write_value("k", 1),
                lambda: domain.update_value("k", lambda value: value + 1),
                lambda: domain.restore_value("k", 1),
            ]
            for attempt in attempts:
                written = len(await collected(domain.history("k")))
                transactions.hold()
                under_way: asyncio.Task[Receipt] = asyncio.create_task(attempt())
                await soon(transactions.entered.is_set)
                for _ in range(3):
                    under_way.cancel()
                    for _ in range(20):
                        await asyncio.sleep(0)
                    assert not under_way.done()
                transactions.let_go()
                with pytest.raises(asyncio.CancelledError):
                    await under_way
                assert len(list(domain._domain.history("k"))) == written + 1

    run(work())


def test_a_timeout_of_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data") as (_, domain):
            transactions = transactions_of(domain)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(domain.write_value("k", 1), 0)
            assert not await domain.has_value("k")
            transactions.hold()

            def release() -> None:
                transactions.entered.wait(PATIENCE)
                transactions.let_go()

            releasing = threading.Thread(target=release)
            releasing.start()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await domain.write_value("l", 1)
            transactions.let_go()
            # Whole or absent, and the next one stands behind it.
            there = await domain.has_value("l")
            assert (await domain.write_value("m", 1)).position == (2 if there else 1)
            transactions.entered.set()
            releasing.join()

    run(work())


def test_what_only_reads_is_left_at_once(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data") as (store, domain):
            await domain.write_value("k", 1)
            begun, end = threading.Event(), threading.Event()

            def wait(*progress: object) -> None:
                begun.set()
                assert end.wait(PATIENCE)

            verifying = asyncio.create_task(store.verify(progress=wait))
            await soon(begun.is_set)
            verifying.cancel()
            with pytest.raises(asyncio.CancelledError):
                await verifying
            assert not end.is_set()
            end.set()

    run(work())


@pytest.mark.parametrize("seed", range(2))
def test_a_storm_of_cancellations_leaves_every_write_whole_or_absent(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)

    async def work() -> dict[int, str]:
        async with opened(tmp_path / "data") as (_, domain):
            fates: dict[int, str] = {}

            async def write(number: int) -> None:
                await asyncio.sleep(0)
                try:
                    if number % 3:
                        await domain.write_values([((number, part), part) for part in range(3)], event_id=f"id-{number}")
                    else:
                        await domain.update_value("counter", lambda value: value + 1, default=0, event_id=f"id-{number}")
                    fates[number] = "written"
                except asyncio.CancelledError:
                    # Nothing is under way: what is there now is there for good.
                    fates[number] = "there" if await asyncio.to_thread(domain._live.ids.find, f"id-{number}") else "absent"
                    raise

            tasks = [asyncio.create_task(write(number)) for number in range(300)]
            while not all(task.done() for task in tasks):
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(chance.choice([0, 0, 0.001]))
                task = chance.choice(tasks)
                if not task.cancelling():  # a second time, it would not come to say what became of it
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return fates

    fates = run(work())
    events = require_whole(tmp_path / "data")
    found = dict.fromkeys(range(300), 0)
    for event in events:
        key = eventstore.decode_key(event.key)
        if isinstance(key, tuple):
            found[int(key[0])] += 1
        else:
            found[int(str(event.meta).split("id-")[1].split('"')[0])] += 1
    wanted = {number: (3 if number % 3 else 1) for number in range(300)}
    for number, fate in fates.items():
        assert found[number] == (0 if fate == "absent" else wanted[number]), (number, fate)
    assert all(found[number] == 0 for number in range(300) if number not in fates), "cancelled before it began"
    assert len(set(fates.values())) >= 2, "hardly anything was cancelled"


# The loop goes on


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """As another process that writes: it has the lock between processes."""
    descriptor = os.open(folder / "logs" / "d" / "head", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def test_the_loop_turns_while_another_process_holds_the_lock(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data", busy_timeout_ms=60_000) as (store, domain):
            await domain.write_value("k", 1)
            with locked(tmp_path / "data"):
                pending: list[asyncio.Future[Any]] = [
                    asyncio.ensure_future(work)
                    for work in (
                        domain.write_value("k", 2),
                        domain.update_value("l", lambda value: value + 1, default=1),
                        collect_batch(domain),
                        domain.remove_all("m"),
                    )
                ]
                beats = 0
                while beats < 1_000:
                    await asyncio.sleep(0)
                    beats += 1
                    if beats % 100 == 0:
                        assert await domain.read_value("k") == 1
                        assert len(await collected(domain.events())) == 1
                        assert await store.domains() == ["d"]
                assert not any(task.done() for task in pending)
            await asyncio.gather(*pending)
            assert await domain.read_value("k") == 2

    run(work())


async def collect_batch(domain: aio.DomainStore, *values: object) -> list[Receipt]:
    async with domain.batch() as batch:
        for value in (1, *values):
            batch.write_value("m", value)
    return batch.receipts


# What is large


LONG = "x" * LARGE


def nest(levels: int) -> list[Any]:
    return [] if levels == 1 else [nest(levels - 1)]


@dataclasses.dataclass
class Noted:
    """Remembers which threads make one: the proof of a value, and whoever reads it."""

    text: str

    def __post_init__(self) -> None:
        MADE_IN.add(threading.get_ident())


MADE_IN: set[int] = set()


def made_elsewhere() -> bool:
    """Whether a Noted was made since the last look, and all of them in other threads than this one."""
    there = bool(MADE_IN) and threading.get_ident() not in MADE_IN
    MADE_IN.clear()
    return there


def test_large_values_are_proven_and_decoded_in_a_thread_and_small_ones_here(tmp_path: Path) -> None:
    async def work() -> None:
        async with await aio.open(tmp_path / "data") as store:
            domain = await store.domain(Domain("d", value=Noted))
            for text, elsewhere in [("x", False), (LONG, True)]:
                raw = msgspec.Raw(msgspec.json.encode({"text": text}))
                MADE_IN.clear()
                await domain.write_value("k", raw)
                assert made_elsewhere() == elsewhere
                assert (await domain.read_value("k")).text == text
                assert made_elsewhere() == elsewhere

    run(work())


def test_a_view_whose_domain_was_written_by_others_reads_in_a_thread(tmp_path: Path) -> None:
    async def work() -> None:
        async with await aio.open(tmp_path / "data") as store:
            domain = await store.domain(Domain("d", value=Noted))
            await domain.write_value("k", Noted("then"))
            past = await domain.state(as_of=1)
            MADE_IN.clear()
            await past.read_value("k")
            assert not made_elsewhere()
            with eventstore.open(tmp_path / "data") as other:
                other.domain(Domain("d", value=Noted)).write_value("other", Noted("now"))
            MADE_IN.clear()
            await past.read_value("k")
            assert made_elsewhere()

    run(work())


def nested(domain: aio.DomainStore) -> Coroutine[Any, Any, object]:
    return domain.write_value("k", [[number] for number in range(20_000)])


def tuples(domain: aio.DomainStore) -> Coroutine[Any, Any, object]:
    return domain.write_value("k", [(number, 0.5) for number in range(10_000)])


def raw(domain: aio.DomainStore) -> Coroutine[Any, Any, object]:
    return domain.write_value("k", msgspec.Raw(f'"{LONG}"'.encode()))


def many(domain: aio.DomainStore) -> Coroutine[Any, Any, object]:
    return domain.write_values([(("k", number), number) for number in range(2_000)])


def some(domain: aio.DomainStore) -> Coroutine[Any, Any, object]:
    return domain.write_values([(("k", number), LONG[:10_000]) for number in range(10)])


def few(domain: aio.DomainStore) -> Coroutine[Any, Any, object]:
    return domain.write_values([(("k", number), {"n": number, "pair": (1, 2)}) for number in range(10)])


def none(domain: aio.DomainStore) -> Coroutine[Any, Any, object]:
    return domain.write_values([])


def small(domain: aio.DomainStore) -> Coroutine[Any, Any, object]:
    return domain.write_value("k", {"n": 1})


def small_raw(domain: aio.DomainStore) -> Coroutine[Any, Any, object]:
    return domain.write_value("k", msgspec.Raw(b'{"n":1}'))


def middling(domain: aio.DomainStore) -> Coroutine[Any, Any, object]:
    return domain.write_value("k", LONG[:10_000])


def gathered(domain: aio.DomainStore) -> Coroutine[Any, Any, object]:
    async def block() -> None:
        async with domain.batch() as batch:
            batch.write_value("k", LONG[:10_000])
            batch.remove_value("l")

    return block()


PLAIN, ZLIB, SECRET = Domain("d"), Domain("d", codec="zlib"), Domain("d", subject=lambda key: "alice")


@pytest.mark.parametrize(
    ("domain", "write", "at_once"),
    [
        *[(PLAIN, write, True) for write in (small, small_raw, middling, few, none, gathered)],
        *[(PLAIN, write, False) for write in (nested, tuples, raw, many, some)],
        *[(ZLIB, write, True) for write in (small, few)],
        *[(ZLIB, write, False) for write in (middling, some, gathered)],
        *[(SECRET, write, False) for write in (small, few, gathered)],
    ],
)
def test_only_what_takes_long_is_made_before_it_is_queued(
    tmp_path: Path, domain: Domain, write: Callable[[aio.DomainStore], Coroutine[Any, Any, object]], *, at_once: bool
) -> None:
    async def work() -> None:
        async with await aio.open(tmp_path / "data", keys=tmp_path / "keys") as store:
            d = await store.domain(domain)
            writing = asyncio.create_task(write(d))
            await asyncio.sleep(0)  # its first step; the next one, in which a thread may have answered, is still to come
            assert d._domain.group.queued == at_once
            await writing
            assert (await store.verify()).ok

    run(work())


@pytest.mark.parametrize("apart", [False, True], ids=["one object", "two objects"])
def test_calls_are_written_in_the_order_they_came_whatever_their_size(tmp_path: Path, *, apart: bool) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data") as (store, domain):
            second = await store.domain("d") if apart else domain
            receipts = await asyncio.gather(
                domain.write_value("k", [LONG]),
                second.write_value("k", 1),
                domain.write_value("k", [LONG, 2]),
                second.remove_value("k"),
                second.write_value("k", 3),
            )
            assert [receipt.position for receipt in receipts] == [1, 2, 3, 4, 5]
            assert [event.op async for event in domain.events()] == ["put", "put", "put", "remove", "put"]

    run(work())


def test_a_value_is_written_as_it_was_when_it_was_handed_over(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data") as (_, domain):
            plain: list[Any] = [LONG, {"n": 1}]
            tupled: list[Any] = [LONG, {"n": (1, 2)}]
            items = [("many", plain), ("others", tupled)]
            calls = [domain.write_value("plain", plain), domain.write_value("tupled", tupled), domain.write_values(items)]
            for value in (plain, tupled):
                value[1]["n"] = "changed"
                value.append("more")
            items.clear()
            await asyncio.gather(*calls)
            assert await domain.read_value("plain") == await domain.read_value("many") == [LONG, {"n": 1}]
            assert await domain.read_value("tupled") == await domain.read_value("others") == [LONG, {"n": [1, 2]}]

    run(work())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (msgspec.Raw(f'{{"a":"{LONG}","a":1}}'.encode()), "twice"),
        ([LONG, b"bytes"], r"\$\[1\]: bytes is not JSON"),
        ([LONG, {1, 2}], r"\$\[1\]: set is not JSON"),
        ([LONG, (float("nan"),)], r"\$\[1\]\[0\]: nan is not JSON"),
        ([LONG, eventstore], "module"),
        ([LONG, *[[]] * 65, nest(65)], "nested deeper than 64"),
        (["x" * 200_000], "max_value_bytes"),
    ],
    ids=["Raw", "bytes", "a set", "NaN", "an object", "depth", "size"],
)
def test_what_is_wrong_with_a_large_value_is_said_and_written_nowhere(tmp_path: Path, wrong: object, says: str) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data", max_value_bytes=150_000) as (store, domain):
            with pytest.raises(InvalidValueError, match=says):
                await domain.write_value("k", wrong)
            with pytest.raises(InvalidValueError, match=says):
                await collect_batch(domain, wrong)
            assert store.halted is None
            assert (await domain.write_value("k", 1)).position == 1

    run(work())


def test_large_plain_data_is_walked_after_the_call_and_small_data_in_it(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data") as (_, domain):
            nan = (float("nan"),)
            with pytest.raises(InvalidValueError, match="nan is not JSON"):
                domain.write_value("k", [nan]).close()
            walking = domain.write_value("k", [LONG, nan])  # nobody has found it yet
            with pytest.raises(InvalidValueError, match="nan is not JSON"):
                await walking

    run(work())


class Gate:
    """The subject of a value, told only when the gate is open: the value cannot be encrypted before."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def subject_of(self, key: Key) -> str | None:
        if key != "held":
            return None
        self.reached.set()
        assert self.opened.wait(PATIENCE)
        return "alice"


def test_a_write_cancelled_while_it_is_made_is_not_written_and_lets_the_next_one_go(tmp_path: Path) -> None:
    gate = Gate()

    async def work() -> None:
        async with await aio.open(tmp_path / "data", keys=tmp_path / "keys") as store:
            domain = await store.domain(Domain("d", subject=gate.subject_of))
            held = asyncio.create_task(domain.write_value("held", 1))
            behind = [asyncio.create_task(domain.write_value("behind", number)) for number in range(3)]
            await soon(gate.reached.is_set)
            for _ in range(100):  # the loop turns
                assert await domain.get("held") is None
            assert not any(task.done() for task in (held, *behind))
            behind[1].cancel()
            held.cancel()
            with pytest.raises(asyncio.CancelledError):
                await held  # at once: the gate is closed
            assert [(await behind[number]).position for number in (0, 2)] == [1, 2]
            with pytest.raises(asyncio.CancelledError):
                await behind[1]
            gate.opened.set()

    run(work())
    with eventstore.open(tmp_path / "data", read_only=True) as store:
        assert [event.key for event in store.domain("d").events()] == ['["behind"]'] * 2


def test_a_write_that_is_made_while_the_store_is_closed_is_told(tmp_path: Path) -> None:
    gate = Gate()

    async def work() -> None:
        store = await aio.open(tmp_path / "data", keys=tmp_path / "keys")
        domain = await store.domain(Domain("d", subject=gate.subject_of))
        held = asyncio.create_task(domain.write_value("held", 1))
        await soon(gate.reached.is_set)
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
        gate.opened.set()
        with pytest.raises(ClosedError):
            await held
        await closing

    run(work())
    assert require_whole(tmp_path / "data") == []


# Several loops, threads, ends


def test_two_loops_and_threads_share_a_store(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as store:
        shared = aio.Store(store)
        told: list[int] = []

        async def tasks(name: str) -> None:
            domain = await shared.domain("d")
            receipts = await asyncio.gather(*[domain.write_value((name, number), number) for number in range(100)])
            told.extend(receipt.position for receipt in receipts)

        def threads(name: str) -> None:
            domain = store.domain("d")
            for number in range(50):
                told.append(domain.write_value((name, number), number).position)

        crew = Crew()
        for number in range(2):
            crew.start(lambda number=number: run(tasks(f"loop {number}")))  # type: ignore[misc]
            crew.start(lambda number=number: threads(f"thread {number}"))  # type: ignore[misc]
        crew.results()
        assert sorted(told) == list(range(1, 301))
        run(shared.close())
        with pytest.raises(ClosedError):
            store.domains()
    assert len(require_whole(tmp_path / "data")) == 300


def test_a_domain_serves_whatever_loop_uses_it(tmp_path: Path) -> None:
    async def begin() -> tuple[aio.Store, aio.DomainStore]:
        store = await aio.open(tmp_path / "data")
        domain = await store.domain("d")
        await domain.write_value("k", 1)
        return store, domain

    async def go_on() -> int:
        receipts = await asyncio.gather(*[domain.write_value("k", number) for number in range(10)])
        assert await domain.read_value("k") == 9
        return receipts[-1].position

    store, domain = run(begin())
    assert [run(go_on()), run(go_on())] == [11, 21]
    run(store.close())


def test_a_loop_that_ends_with_writes_pending_breaks_nobody_elses(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as store:
        shared = aio.Store(store)
        sync = store.domain("d")
        transactions = Transactions(sync)
        transactions.hold()
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *told: None)  # it would complain of the tasks that are pending
        tasks: list[asyncio.Task[Receipt]] = []

        async def begin() -> None:
            domain = await shared.domain("d")
            tasks.extend(asyncio.create_task(domain.write_value("abandoned", number)) for number in range(3))
            await soon(lambda: transactions.entered.is_set() and len(transactions.queue) + transactions.sizes[0] == 3)

        loop.run_until_complete(begin())
        loop.close()
        assert transactions.entered.wait(PATIENCE)
        crew = Crew()
        for number in range(3):
            crew.start(lambda number=number: sync.write_value("k", number))  # type: ignore[misc]
        transactions.arrived(6)
        transactions.let_go()
        crew.results()
        assert sync.read_value("k") in range(3)
        assert not any(task.done() for task in tasks)
        del tasks[:]
        run(shared.close())
    assert len(require_whole(tmp_path / "data")) == 6


def test_closing_answers_everybody(tmp_path: Path) -> None:
    async def work() -> list[Receipt | BaseException]:
        store = await aio.open(tmp_path / "data")
        domain = await store.domain("d")

        async def write(number: int) -> Receipt:
            await asyncio.sleep(0)
            if number % 4 == 0:
                return await domain.update_value("k", lambda value: value + 1, default=0)
            return await domain.write_value("k", number)

        tasks = [asyncio.create_task(write(number)) for number in range(100)]
        await tasks[0]
        late = [asyncio.create_task(write(number)) for number in range(100)]
        await asyncio.gather(store.close(), store.close())
        told = await asyncio.gather(*tasks, *late, return_exceptions=True)
        for attempt in uses(store, domain):
            with pytest.raises(ClosedError):
                await attempt()
        await store.close()
        return told

    told = run(work())
    assert {type(answer) for answer in told} <= {Receipt, ClosedError}
    found = {event.position: event.checksum for event in require_whole(tmp_path / "data")}
    assert found == {answer.position: answer.checksum for answer in told if isinstance(answer, Receipt)}


def uses(store: aio.Store, domain: aio.DomainStore) -> list[Callable[[], Awaitable[object]]]:
    """One of each kind."""
    return [
        lambda: domain.write_value("k", 1),
        lambda: domain.write_values([("k", 1)]),
        lambda: domain.update_value("k", str),
        lambda: domain.read_value("k"),
        domain.head,
        lambda: collected(domain.keys()),
        domain.state,
        lambda: store.domain("d"),
        store.domains,
        store.verify,
    ]


def test_closing_waits_for_a_write_that_waits_for_a_thread(tmp_path: Path) -> None:
    """A task queues up behind a thread's transaction; before its turn comes the pool is closed: it is answered all the same."""
    with eventstore.open(tmp_path / "data") as store:
        shared = aio.Store(store)
        sync = store.domain("d")
        transactions = Transactions(sync)

        async def work() -> None:
            domain = await shared.domain("d")
            transactions.hold()
            crew = Crew()
            crew.start(lambda: sync.write_value("k", 1))
            await soon(transactions.entered.is_set)
            queued = asyncio.create_task(domain.write_value("k", 2))
            await soon(lambda: len(transactions.queue) == 1)
            ending = asyncio.create_task(asyncio.to_thread(shared._pool._end, lambda: None))
            await asyncio.sleep(0)
            transactions.let_go()
            assert (await queued).position == 2
            await ending
            crew.results()

        run(work())


def test_a_forked_child_has_threads_of_its_own(tmp_path: Path) -> None:
    async def write(value: int) -> None:
        await domain.write_value("k", value)
        await domain.update_value("k", lambda number: number + 1)

    async def begin() -> tuple[aio.Store, aio.DomainStore]:
        store = await aio.open(tmp_path / "data")
        return store, await store.domain("d")

    store, domain = run(begin())
    run(write(1))
    pid = os.fork()
    if not pid:
        status = 1
        try:
            run(write(5))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    run(write(10))
    run(store.close())
    assert [event.data for event in require_whole(tmp_path / "data")] == ["1", "2", "5", "6", "10", "11"]


# What nobody foresaw


def test_a_thread_that_fails_in_an_unforeseen_way_leaves_no_queue_stuck(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with opened(tmp_path / "data") as (_, domain):
            log = domain._live.log
            append = log.append

            def fail(*arguments: Any, **options: Any) -> None:
                log.append = append  # type: ignore[method-assign]
                raise MemoryError("no memory")

            log.append = fail  # type: ignore[method-assign]
            with pytest.raises(eventstore.EngineError) as failed:
                await domain.write_value("k", 1, event_id="id")
            assert (failed.value.outcome, failed.value.event_id) == ("unknown", "id")
            assert (await domain.write_value("k", 1, event_id="id")).position == 1

    run(work())
    assert "no memory" in caplog.text
