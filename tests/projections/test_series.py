"""Candles as columns: whatever order they come in, the first at a moment stands, and a read gives all or nothing."""

from __future__ import annotations

import sys
import tracemalloc
from array import array
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.projections.series import FIELDS, Columns, Series, columns_of, read_columns

if TYPE_CHECKING:
    _Integers = array[int]
else:
    _Integers = array  # no array is subscripted before Python 3.12

STEP = 60_000


def candles(times: list[int], price: float) -> list[dict[str, Any]]:
    """A candle each, in order."""
    return [{"timestamp": time, **dict.fromkeys(FIELDS, price)} for time in sorted(set(times))]


def kept(times: list[int], price: float) -> Columns:
    """What an event of these candles says, as it is read back."""
    columns = read_columns(msgspec.json.encode(columns_of(candles(times, price))))
    assert columns is not None
    return columns


calls = st.lists(st.lists(st.integers(-5, 40).map(lambda place: place * STEP // 2), min_size=1, max_size=12), max_size=12)


@given(calls, st.integers(-6, 20), st.integers(0, 12), st.sampled_from((STEP, STEP // 2, 2 * STEP)))
def test_a_series_is_what_was_written_first(given_calls: list[list[int]], first: int, limit: int, step: int) -> None:
    series, said = Series(), dict[int, float]()
    for price, times in enumerate(given_calls):
        series.add(kept(times, price))
        for time in times:
            said.setdefault(time, price)
    assert len(series) == len(said)
    assert all(time in series for time in said)
    wanted = [first * STEP + place * step for place in range(limit)]
    there = all(time in said for time in wanted)
    expected = [{"timestamp": time, **dict.fromkeys(FIELDS, said[time])} for time in wanted] if there else None
    assert series.read(first * STEP, step, limit) == expected


def test_candles_that_follow_each_other_name_their_times_once() -> None:
    assert columns_of(candles([0, STEP, 2 * STEP], 1)).keys() == {"start", "step", *FIELDS}
    assert columns_of(candles([0, STEP, 3 * STEP], 1))["timestamp"] == [0, STEP, 3 * STEP]
    assert columns_of(candles([STEP], 1))["timestamp"] == [STEP]
    for times in ([0, STEP, 2 * STEP], [0, STEP, 3 * STEP], [STEP], [-STEP, 0]):
        assert list(kept(times, 1).timestamps) == times


def size_of(series: Series) -> int:
    """The bytes of its arrays, with what they keep in reserve."""
    return sum(sys.getsizeof(column) for column in (series._times, *series._columns))


@pytest.mark.slow
def test_a_million_candles_take_64_bytes_each_at_most() -> None:
    """By the arrays' own sizes and by what Python has allocated for them; in calls of a thousand, every other one before the one before."""
    count, calls = 1_000_000, 1_000
    each = count // calls
    tracemalloc.start()
    try:
        series = Series()
        for call in range(calls):
            first = (call ^ 1) * each
            prices = [1.0] * each
            series.add(Columns(prices, prices, prices, prices, prices, start=first * STEP, step=STEP))
        allocated, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(series) == count
    assert size_of(series) / count <= 64
    assert allocated / count <= 64


def test_a_candle_that_comes_alone_takes_64_bytes_at_most() -> None:
    series, count = Series(), 20_000
    for place in range(count):
        series.add(Columns([1], [1], [1], [1], [1], timestamp=[place * STEP]))
    assert size_of(series) / count <= 64


class Counted(_Integers):
    """Timestamps that count who looks at them: one by one, and in slices."""

    looks = 0
    copied = 0

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            Counted.copied += len(range(*index.indices(len(self))))
        else:
            Counted.looks += 1
        return super().__getitem__(index)


def looks_of(count: int, first: int, step: int) -> tuple[int, int]:
    """How many timestamps a read of a thousand candles looks at in a series of `count`, and how many it copies."""
    series = Series()
    prices = [1.0] * count
    series.add(Columns(prices, prices, prices, prices, prices, step=STEP))
    series._times = Counted("q", series._times)
    Counted.looks = Counted.copied = 0
    found = series.read(first * STEP, step, 1_000)
    assert found is not None
    assert [candle["timestamp"] for candle in found] == [first * STEP + place * step for place in range(1_000)]
    return Counted.looks, Counted.copied


@pytest.mark.parametrize("count", [10_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_read_looks_at_what_it_gives_and_at_the_steps_to_it(count: int) -> None:
    """Not at what lies before or behind, however much that is: by bisection, then by where the next one must be."""
    steps = count.bit_length()
    for first in (0, count // 2, count - 1_000):
        looks, copied = looks_of(count, first, STEP)
        assert looks <= steps
        assert copied <= 1_000
    # Others stand between those that are asked for: a bisection each.
    looks, copied = looks_of(count, count // 2, 2 * STEP)
    assert looks <= 1_000 * (steps + 1) + steps
    assert copied <= 1_000
