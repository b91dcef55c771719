"""Candles as columns: whatever order they come in, the first at a moment stands, and a read gives all or nothing."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from eventstore.projections.series import FIELDS, Columns, Series, columns_of, read_columns

STEP = 60_000


def candles(times: list[int], price: float) -> list[dict[str, Any]]:
    """A candle each, in order."""
    return [{"timestamp": time, **dict.fromkeys(FIELDS, price)} for time in sorted(set(times))]


def kept(times: list[int], price: float) -> Columns:
    """What an event of these candles says, as it is read back."""
    return read_columns(msgspec.json.encode(columns_of(candles(times, price))))


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


def test_a_candle_takes_64_bytes_at_most() -> None:
    """However they come: at once, or one by one."""
    at_once, one_by_one = Series(), Series()
    count = 20_000
    at_once.add(kept([place * STEP for place in range(count)], 1))
    for place in range(count):
        one_by_one.add(Columns([1], [1], [1], [1], [1], timestamp=[place * STEP]))
    for series in (at_once, one_by_one):
        size = sum(sys.getsizeof(column) for column in (series._times, *series._columns))
        assert size / count <= 64
