"""Every contract on every backend: what reads and writes mean, each sentence once."""

from __future__ import annotations

import asyncio
import copy
import math
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import eventstore
from eventstore.adapters import persist
from eventstore.adapters.contracts import CONTRACTS, STEPS_MS, Contract
from eventstore.adapters.registry import backend_at
from eventstore.adapters.shelf import Backend
from eventstore.errors import ConfigError, ContractError, NaiveTimeError
from tests.adapters.conftest import LOCATIONS
from tests.adapters.recorded import answer, instance

MINUTE = STEPS_MS["1m"]
START = 1_704_067_200_000
CONTEXT = {"backtest": True, "interval": "1m"}
"""Parts of a context that are not just any text."""


class Kept:
    """An instance of a contract, its methods called by the verbs of its shape."""

    def __init__(self, contract: Contract, backend: Backend, **context: Any) -> None:
        self.contract = contract
        parts = tuple(context.get(name, CONTEXT.get(name, name)) for name in contract.context)
        self.instance = instance(contract, parts, backend)

    async def call(self, verb: str, *args: Any) -> Any:
        """A method by its verb; `when` where it belongs."""
        method = next(method for method in self.contract.methods if method.verb == verb)
        stamped = ("when" in method.parameters) and len(args) < len(method.parameters)
        return await answer(getattr(self.instance, method.name)(*args, *[1_000_000] * stamped))

    def ids(self, id_: str = "k1") -> tuple[str, ...]:
        """The id that a call takes, where it takes one."""
        return (id_,) if self.contract.shape == "keyed" else ()


def of(*shapes: str, where: Callable[[Contract], object] = bool) -> pytest.MarkDecorator:
    """The rows of these shapes, and of those the ones for which it holds."""
    rows = [row for row in CONTRACTS.values() if row.shape in shapes and where(row)]
    assert rows
    return pytest.mark.parametrize("contract", rows, ids=lambda row: row.name)


def payload(contract: Contract, mark: int = 1) -> Any:
    """Something to write, which every contract takes; lists and objects where reads of nothing give these."""
    record = {"id": "r1", "mark": mark, "note": "n ☃ 💥 \u0000", "cost": 0.1, "nested": {"": [None, True, -0.5, 12345678901234567890]}}
    return [["s_x_B", record]] if contract.empty is list else record


def repaired(contract: Contract, value: Any) -> Any:
    """What a read is to give of what was written."""
    return contract.repair(copy.deepcopy(value)) if contract.repair else value


def run(check: Callable[[], Awaitable[None]]) -> None:
    """Run a check, and close what it opened."""

    async def checked() -> None:
        try:
            await check()
        finally:
            await persist.close()

    asyncio.run(checked())


# ---- records


@of("one", "keyed")
def test_a_record_reads_as_it_was_written_last(contract: Contract, backend: Backend) -> None:
    async def check() -> None:
        kept = Kept(contract, backend)
        assert await kept.call("read", *kept.ids()) == contract.empty()
        for mark in (1, 2):
            assert await kept.call("write", payload(contract, mark), *kept.ids()) is None
            for reader in (kept, Kept(contract, backend)):
                assert await reader.call("read", *kept.ids()) == repaired(contract, payload(contract, mark))

    run(check)


@of("one", "keyed")
def test_null_is_written_and_reads_as_nothing(contract: Contract, backend: Backend) -> None:
    async def check() -> None:
        kept = Kept(contract, backend)
        await kept.call("write", payload(contract), *kept.ids())
        await kept.call("write", None, *kept.ids())
        assert await kept.call("read", *kept.ids()) == contract.empty()
        if contract.asked:
            assert await kept.call("has", *kept.ids()) is True
        await kept.call("write", payload(contract, 2), *kept.ids())
        assert await kept.call("read", *kept.ids()) == repaired(contract, payload(contract, 2))

    run(check)


@of("one", "keyed", where=lambda row: row.stamped != "never")
@pytest.mark.parametrize("when", [datetime(2024, 1, 1), "2024-01-01"])  # noqa: DTZ001
def test_a_when_that_is_no_moment_is_refused(contract: Contract, when: Any, backend: Backend) -> None:
    """The storages are one: what one of them refuses, none may take."""

    async def check() -> None:
        kept = Kept(contract, backend)
        with pytest.raises(NaiveTimeError if isinstance(when, datetime) else ConfigError):
            await kept.call("write", payload(contract), *kept.ids(), when)
        assert await kept.call("read", *kept.ids()) == contract.empty()

    run(check)


@of("one", "keyed", where=lambda row: row.stamped != "never")
def test_a_write_of_an_earlier_moment_wins(contract: Contract, backend: Backend) -> None:
    async def check() -> None:
        kept = Kept(contract, backend)
        for mark, when in ((1, 2_000_000), (2, 1_000_000)):
            await kept.call("write", payload(contract, mark), *kept.ids(), when)
        assert await kept.call("read", *kept.ids()) == repaired(contract, payload(contract, 2))

    run(check)


@of("one", "keyed", "rows", where=lambda row: row.context)
def test_every_part_of_a_context_tells_records_apart(contract: Contract, backend: Backend) -> None:
    async def check() -> None:
        row, read = payload(contract), repaired(contract, payload(contract))
        of_rows = contract.shape == "rows"
        kept = Kept(contract, backend)
        await kept.call("write", [row] if of_rows else row, *kept.ids())
        for name in contract.context:
            other = Kept(contract, backend, **{name: False if name == "backtest" else "other"})
            assert await other.call("read", *kept.ids()) == ([] if of_rows else contract.empty())
        assert await kept.call("read", *kept.ids()) == ([read] if of_rows else read)

    run(check)


@of("one", "keyed", "rows")
def test_what_json_cannot_say_is_null_and_infinite_minutes_come_back(contract: Contract, backend: Backend) -> None:
    async def check() -> None:
        of_rows = contract.shape == "rows"
        row = {"id": "r1", "minuteEstimatedTime": math.inf, "other": math.nan}
        given: Any = [["key", row]] if contract.name == "Risk" else [row] if of_rows else row
        if contract.name == "Strategy":
            given = {"closedSignal": row, "retryOpenSignal": None}
        kept = Kept(contract, backend)
        await kept.call("write", given, *kept.ids())
        found = await kept.call("read", *kept.ids())
        record = found[0][1] if contract.name == "Risk" else found[0] if of_rows else found
        record = record["closedSignal"] if contract.name == "Strategy" else record
        assert record["other"] is None
        assert record["minuteEstimatedTime"] == (math.inf if contract.repair else None)
        assert ("multiplier" in record) == (contract.repair is not None and contract.name not in ("Risk", "Notification"))

    run(check)


@of("one", "keyed")
def test_writes_that_nobody_waited_for_happen_in_order(contract: Contract, backend: Backend) -> None:
    async def check() -> None:
        kept = Kept(contract, backend)
        await asyncio.gather(*(kept.call("write", payload(contract, mark), *kept.ids()) for mark in range(12)))
        assert await kept.call("read", *kept.ids()) == repaired(contract, payload(contract, 11))

    run(check)


# ---- records by an id


@of("keyed", where=lambda row: row.soft)
def test_a_removed_record_is_nothing_until_it_is_written_again(contract: Contract, backend: Backend) -> None:
    async def check() -> None:
        kept = Kept(contract, backend)
        await kept.call("remove", "k1")
        assert await kept.call("list") == []
        await kept.call("write", payload(contract), "k1")
        assert len(await kept.call("list")) == 1
        for _ in range(2):
            await kept.call("remove", "k1")
            assert await kept.call("read", "k1") is None
            assert await kept.call("list") == []
        if contract.asked:
            assert await kept.call("has", "k1") is True
            assert await kept.call("has", "k2") is False
        await kept.call("write", payload(contract, 2), "k1")
        assert await kept.call("read", "k1") == payload(contract, 2)

    run(check)


@of("keyed", where=lambda row: row.soft)
def test_a_list_is_in_natural_order_without_what_is_removed_or_null(contract: Contract, backend: Backend) -> None:
    async def check() -> None:
        kept = Kept(contract, backend)
        for id_ in ("id10", "id2", "ID1", "gone", "null"):
            await kept.call("write", None if id_ == "null" else {"id": id_}, id_)
        await kept.call("remove", "gone")
        await kept.call("write", {"id": "said", "removed": True}, "said")
        listed = await kept.call("list")
        assert [entry if isinstance(entry, str) else entry["memoryId"] for entry in listed] == ["ID1", "id2", "id10"]
        if contract.listed == "entries":
            assert listed[1] == {"memoryId": "id2", "data": {"id": "id2"}}

    run(check)


# ---- lists


@of("rows")
def test_rows_are_kept_for_ever_in_natural_order(contract: Contract, backend: Backend) -> None:
    async def check() -> None:
        kept = Kept(contract, backend)
        assert await kept.call("read") == []
        for ids in (["id10", "id2"], ["id1"], []):
            await kept.call("write", [{"id": id_, "n": 1} for id_ in ids])
        assert [row["id"] for row in await kept.call("read")] == ["id1", "id2", "id10"]

    run(check)


@of("rows")
def test_a_row_that_is_written_again_is_replaced_unless_the_first_stands(contract: Contract, backend: Backend) -> None:
    async def check() -> None:
        kept = Kept(contract, backend)
        await kept.call("write", [{"id": "a", "n": 1}])
        await kept.call("write", [{"id": "a", "n": 2}, {"id": "b", "n": 3}])
        assert [row["n"] for row in await kept.call("read")] == ([1, 3] if contract.write == "first" else [2, 3])

    run(check)


@of("rows")
def test_of_rows_with_one_id_the_last_counts_unless_the_first_stands(contract: Contract, backend: Backend) -> None:
    """In one call as in two, and whatever was there before."""

    async def check() -> None:
        kept = Kept(contract, backend)
        twice = [{"id": "a", "n": 1}, {"id": "a", "n": 2}]
        for _ in range(2):
            await kept.call("write", twice)
            assert await kept.call("read") == [repaired(contract, twice[0 if contract.write == "first" else 1])]

    run(check)


@of("rows", "keyed", where=lambda row: row.shape == "rows" or row.listed)
@pytest.mark.parametrize("location", ["store", "memory:"])
def test_nothing_is_cut_off(contract: Contract, location: str) -> None:
    """The engine has caps, and asks for what it wants; what was written is there, a thousand and one as well."""

    async def check() -> None:
        kept, count = Kept(contract, backend_at(location)), 1_001
        if contract.shape == "rows":
            await kept.call("write", [{"id": f"r{number}"} for number in range(count)])
        else:
            await asyncio.gather(*(kept.call("write", {"id": number}, f"r{number}") for number in range(count)))
        assert len(await kept.call("read" if contract.shape == "rows" else "list")) == count

    run(check)


@of("rows")
@pytest.mark.parametrize("rows", [{"id": "a"}, "rows", None, [{"name": "a"}], [{"id": 7}], [None]])
def test_what_is_no_list_of_rows_is_refused_whole(contract: Contract, backend: Backend, rows: Any) -> None:
    async def check() -> None:
        kept = Kept(contract, backend)
        given = [{"id": "first"}, *rows] if isinstance(rows, list) else rows
        with pytest.raises(ContractError):
            await kept.call("write", given)
        assert await kept.call("read") == []

    run(check)


@of("rows")
def test_rows_that_are_unchanged_append_nothing(contract: Contract) -> None:
    rows = [{"id": f"r{number}", "n": number} for number in range(50)]

    async def check() -> None:
        kept = Kept(contract, backend_at("store"))
        await kept.call("write", rows)
        await kept.call("write", rows)
        await kept.call("write", [*rows, {"id": "new", "n": 0}])

    run(check)
    with eventstore.open("store") as store:
        assert store.domain(contract.name.lower()).head().position == 51


# ---- candles


def candles(*timestamps: int, price: float = 1.5) -> list[dict[str, Any]]:
    """A candle for each timestamp."""
    return [{"timestamp": timestamp, "open": price, "high": price, "low": price, "close": price, "volume": 5} for timestamp in timestamps]


CANDLE = CONTRACTS["Candle"]


def test_candles_are_all_there_or_none(backend: Backend) -> None:
    async def check() -> None:
        kept = Kept(CANDLE, backend)
        assert await kept.call("read", 1, START, 0) is None
        assert await kept.call("read", 0, START, 0) == []
        first, gap = [START, START + MINUTE], [START + 3 * MINUTE]
        await kept.call("write", candles(*first, *gap))
        assert await kept.call("read", 2, START, 0) == candles(*first)
        assert await kept.call("read", 1, gap[0], 0) == candles(*gap)
        assert await kept.call("read", 3, START, 0) is None
        assert await kept.call("read", 1, START - MINUTE, 0) is None
        await kept.call("write", candles(START + 2 * MINUTE))
        assert await kept.call("read", 4, START, 0) == candles(*(START + n * MINUTE for n in range(4)))
        assert await kept.call("read", 5, START, 0) is None
        assert await kept.call("read", 10**15, START, 0) is None

    run(check)


def test_the_first_candle_at_a_moment_stands(backend: Backend) -> None:
    async def check() -> None:
        kept = Kept(CANDLE, backend)
        await kept.call("write", candles(START + MINUTE))
        await kept.call("write", candles(START + 2 * MINUTE, START, START + MINUTE, price=9) + candles(START, price=7))
        assert [candle["open"] for candle in await kept.call("read", 3, START, 0)] == [9, 1.5, 9]

    run(check)


def test_a_candle_that_is_not_closed_is_passed_over(backend: Backend) -> None:
    """By the wall clock, whatever moment a backtest is at."""

    async def check() -> None:
        kept = Kept(CANDLE, backend)
        closed = time.time_ns() // 1_000_000 // MINUTE * MINUTE - MINUTE
        still_open = closed + 60 * MINUTE
        await kept.call("write", candles(closed, still_open))
        assert await kept.call("read", 1, closed, 0) == candles(closed)
        assert await kept.call("read", 1, still_open, 0) is None

    run(check)


@pytest.mark.parametrize(
    "bad",
    [
        {"timestamp": START},
        {**candles(START)[0], "open": math.nan},
        {**candles(START)[0], "close": math.inf},
        {**candles(START)[0], "low": "1"},
        {**candles(START)[0], "high": True},
        {**candles(START)[0], "volume": 2**53 + 1},
        {**candles(START)[0], "volume": 10**400},
        {**candles(START)[0], "timestamp": 1.5},
        {**candles(START)[0], "timestamp": 2**60},
        7,
    ],
)
def test_what_is_no_candle_is_refused_whole(backend: Backend, bad: Any) -> None:
    async def check() -> None:
        kept = Kept(CANDLE, backend)
        with pytest.raises(ContractError):
            await kept.call("write", [*candles(START + MINUTE), bad])
        assert await kept.call("read", 1, START + MINUTE, 0) is None

    run(check)


def test_an_interval_that_is_none_is_refused(backend: Backend) -> None:
    async def check() -> None:
        with pytest.raises(ContractError, match="'7m' is none of 1m, 3m"):
            await Kept(CANDLE, backend, interval="7m").call("write", candles(START))

    run(check)


def test_tasks_that_write_the_same_candles_lose_none(backend: Backend) -> None:
    """Overlaps, in any order, at one moment: the union is there, each candle once."""

    async def check() -> None:
        kept = Kept(CANDLE, backend)
        spans = [range(first, first + 7) for first in range(0, 30, 3)]
        await asyncio.gather(*(kept.call("write", candles(*(START + n * MINUTE for n in span))) for span in reversed(spans)))
        assert len(await kept.call("read", 34, START, 0)) == 34

    run(check)


# ---- other processes

WRITER = """
import asyncio, sys
from eventstore.adapters import persist
from eventstore.adapters.registry import backend_at

async def main():
    candle = {"open": 1, "high": 1, "low": 1, "close": 1, "volume": 1}
    candles = [{"timestamp": 1704067200000 + n * 60000, **candle} for n in (0, 1)]
    await persist.PersistStateInstance("s", "b", backend=backend_at(sys.argv[1])).write_state_data({"by": "other"}, 1)
    await persist.PersistLogInstance(backend=backend_at(sys.argv[1])).write_log_data([{"id": "other"}])
    await persist.PersistCandleInstance("B", "1m", "x", backend=backend_at(sys.argv[1])).write_candles_data(candles)
    await persist.close()

asyncio.run(main())
"""


def write_in_another_process(location: str) -> None:
    command, path = [sys.executable, "-c", WRITER, location], {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_reads_see_what_another_process_wrote(location: str) -> None:
    if location == LOCATIONS["memory"]:
        pytest.skip("memory is this process's own")

    async def check() -> None:
        backend = backend_at(location)
        state = persist.PersistStateInstance("s", "b", backend=backend)
        log = persist.PersistLogInstance(backend=backend)
        series = persist.PersistCandleInstance("B", "1m", "x", backend=backend)
        await state.write_state_data({"by": "us"}, 2)
        await log.write_log_data([{"id": "us"}])
        await series.write_candles_data(candles(START))
        assert await series.read_candles_data(2, START, 0) is None
        await asyncio.to_thread(write_in_another_process, location)
        assert await state.read_state_data() == {"by": "other"}
        assert [row["id"] for row in await log.read_log_data()] == ["other", "us"]
        assert [candle["open"] for candle in await series.read_candles_data(2, START, 0) or []] == [1.5, 1]

    run(check)
