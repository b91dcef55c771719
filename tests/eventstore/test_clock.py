"""Times in and out without losing a microsecond, and a clock whose stamps rise whatever the wall clock does."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import eventstore
from eventstore import ConfigError, NaiveTimeError, Store
from eventstore.clock import Clock, format_us, moment_us, now_us, parse_moment

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
NAIVE = EPOCH.replace(tzinfo=None)
YEAR_1, YEAR_9999 = -62_135_596_800_000_000, 253_402_300_799_999_999
zones = st.builds(dt.timezone, st.builds(dt.timedelta, seconds=st.integers(-86_340, 86_340)))


# ---- moments


@given(moment=st.datetimes(timezones=zones))
@example(moment=dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=14))))
@example(moment=dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-12))))
def test_an_aware_datetime_is_its_microseconds_since_1970_utc(moment: dt.datetime) -> None:
    since = moment - EPOCH
    assert moment_us(moment) == (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


@given(us=st.integers(-(2**63), 2**63 - 1))
def test_integers_are_microseconds_as_they_are(us: int) -> None:
    assert moment_us(us) == us


@pytest.mark.parametrize("us", [2**63, -(2**63) - 1, 10**30])
def test_an_integer_beyond_64_bits_is_refused(us: int) -> None:
    with pytest.raises(ConfigError, match=str(us)):
        moment_us(us)


class Shrug(dt.tzinfo):
    """A zone that does not know its offset: no better than none."""

    def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta | None:
        return None

    def dst(self, moment: dt.datetime | None) -> dt.timedelta | None:
        return None

    def tzname(self, moment: dt.datetime | None) -> str | None:
        return None


@pytest.mark.parametrize("naive", [NAIVE, NAIVE.replace(fold=1), NAIVE.replace(tzinfo=Shrug())], ids=["naive", "folded", "no offset"])
def test_a_datetime_without_a_zone_is_refused(naive: dt.datetime) -> None:
    with pytest.raises(NaiveTimeError, match="has no zone"):
        moment_us(naive)


@pytest.mark.parametrize(
    "moment", [True, False, 1.5, 1e15, "2026-01-01T00:00:00Z", b"1", None, dt.date(2026, 1, 1), dt.time(1), [1]], ids=repr
)
def test_what_is_no_moment_is_refused_by_name(moment: Any) -> None:
    with pytest.raises(ConfigError, match=type(moment).__name__):
        moment_us(moment)


@pytest.mark.parametrize(
    "verb", ["write_value", "remove_value", "write_values", "remove_all", "update_value", "restore_value", "batch", "state"]
)
@pytest.mark.parametrize(("when", "error"), [(NAIVE, NaiveTimeError), (1.5, ConfigError), (2**63, ConfigError), (True, ConfigError)])
def test_no_verb_takes_what_is_no_moment(verb: str, when: Any, error: type[Exception]) -> None:
    with eventstore.open("memory:") as store:
        d = store.domain("d")
        d.write_value("k", 1)

        def batch() -> None:
            with d.batch() as b:
                b.write_value("fine", 1)
                b.remove_value("k", when=when)

        calls: dict[str, Callable[[], object]] = {
            "write_value": lambda: d.write_value("k", 2, when=when),
            "remove_value": lambda: d.remove_value("k", when=when),
            "write_values": lambda: d.write_values([("k", 2)], when=when),
            "remove_all": lambda: d.remove_all(when=when),
            "update_value": lambda: d.update_value("k", lambda value: 2, when=when),
            "restore_value": lambda: d.restore_value("k", 1, when=when),
            "batch": batch,
            "state": lambda: d.state(as_of=-1 if when == 2**63 else when),
        }
        with pytest.raises(error):
            calls[verb]()
        assert d.head().position == 1


# ---- text


@given(us=st.integers(YEAR_1, YEAR_9999))
@example(us=YEAR_1)
@example(us=YEAR_9999)
@example(us=-1)
def test_text_and_microseconds_are_each_others_inverse(us: int) -> None:
    text = format_us(us)
    assert parse_moment(text) == (us, True)
    assert text.endswith("Z")
    assert len(text) == len("2026-11-21T14:03:07.500000Z")


@given(one=st.integers(YEAR_1, YEAR_9999), other=st.integers(YEAR_1, YEAR_9999))
def test_texts_sort_as_their_times_do(one: int, other: int) -> None:
    assert (format_us(one) < format_us(other)) is (one < other)


@pytest.mark.parametrize("us", [YEAR_1 - 1, YEAR_9999 + 1, 2**63 - 1, -(2**63)])
def test_a_time_outside_the_calendar_stays_a_number(us: int) -> None:
    assert format_us(us) == f"{us}us"


@given(moment=st.datetimes(timezones=zones))
def test_every_offset_is_understood(moment: dt.datetime) -> None:
    assert parse_moment(moment.isoformat()) == (moment_us(moment), True)


@pytest.mark.parametrize("offset", ["+00:00:00.000001", "-00:00:00.5", "+01:00:00.000001"])
def test_an_offset_that_would_be_dropped_is_refused(offset: str) -> None:
    with pytest.raises(eventstore.ConfigError, match="offset"):
        parse_moment(f"2026-11-21T14:03:07{offset}")


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1970-01-01T00:00:00,5+00:00", 500_000),
        ("1970-01-01 02:00:00.5+02:00", 500_000),
        ("1969-12-31T23:59:59.999999-00:00", -1),
        ("2026-11-21T14:03:07.5+00:00", 1_795_269_787_500_000),
    ],
)
def test_a_time_with_an_offset_needs_no_zone(text: str, us: int) -> None:
    assert parse_moment(text) == (us, True)


@pytest.fixture
def two_hours_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XYZ-2")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("two_hours_east")
@pytest.mark.parametrize("text", ["1970-01-01T02:00:00.25", "1970-01-01 02:00:00.250000", "19700101T020000.25"])
def test_a_bare_local_time_takes_the_zone_of_the_machine_and_says_so(text: str) -> None:
    assert parse_moment(text) == (250_000, False)


@pytest.mark.parametrize("fraction", ["1234567", "0000000", "123456789"])
@pytest.mark.parametrize("mark", [".", ","])
def test_digits_finer_than_a_microsecond_are_refused_not_dropped(fraction: str, mark: str) -> None:
    with pytest.raises(ConfigError, match="microsecond"):
        parse_moment(f"2026-11-21T14:03:07{mark}{fraction}Z")
    parse_moment(f"2026-11-21T14:03:07{mark}{fraction[:6]}Z")


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "yesterday", "now", "12345", "2026", "2026-13-01", "2026-02-30", "2026-11-21T25:00:00Z", "2026-11-21T14:03:61Z", "14:03",
        "2026-11-21T14:03:07+25:00", "2026-11-21T14:03:07 CET", "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "2026-11-21\0", "\ud800",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match="is no time"):
        parse_moment(text)


@given(text=st.text(st.sampled_from("0123456789-+:.,TZW ") | st.characters(exclude_categories=[]), max_size=30))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        us, _ = parse_moment(text)
    except ConfigError:
        return
    assert moment_us(us) == us


# ---- the clock


def clock_reading(readings: Sequence[int]) -> Clock:
    """A clock over a wall clock that shows these readings, then the last one for ever."""
    shown = itertools.chain(readings, itertools.repeat(readings[-1]))
    return Clock(lambda: next(shown))


seconds_10_000 = 10_000 * 1_000_000


@given(
    steps=st.lists(
        st.tuples(st.integers(-seconds_10_000, seconds_10_000), st.integers(1, 5), st.integers(-1, 2 * seconds_10_000)),
        min_size=1,
        max_size=20,
    )
)
def test_stamps_rise_above_all_before_and_above_their_floor(steps: list[tuple[int, int, int]]) -> None:
    clock = clock_reading([reading for reading, _, _ in steps])
    last = 0
    for reading, count, floor in steps:
        stamps = list(clock.stamps(count, floor))
        assert all(stamp > max(last, floor) for stamp in stamps)
        assert stamps == list(range(stamps[0], stamps[0] + count))
        assert stamps[0] == max(reading, last + 1, floor + 1)
        last = stamps[-1]


def test_no_stamps_are_no_stamps() -> None:
    clock = Clock(lambda: 5)
    assert list(clock.stamps(0, 0)) == []
    assert list(clock.stamps(1, 0)) == [5]


@given(readings=st.lists(st.integers(1, 100), min_size=1, max_size=10), seen=st.integers(0, 200))
def test_nothing_is_stamped_at_or_before_what_was_observed(readings: list[int], seen: int) -> None:
    clock = clock_reading(readings)
    clock.observe(seen)
    clock.observe(seen - 50)
    assert next(iter(clock.stamps(1, 0))) == max(readings[0], seen + 1)


def test_the_clock_is_the_wall_clock_when_that_goes_forward() -> None:
    before = now_us()
    (stamp,) = Clock().stamps(1, 0)
    assert before <= stamp <= now_us()


def test_threads_never_share_a_stamp() -> None:
    clock = Clock(lambda: 5)
    found: list[list[int]] = []
    start = threading.Barrier(8)

    def stamp() -> None:
        start.wait()
        mine = [at for _ in range(300) for at in clock.stamps(3, 0)]
        found.append(mine)

    threads = [threading.Thread(target=stamp) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == sorted(mine) for mine in found)
    assert sorted(itertools.chain(*found)) == list(range(5, 5 + 8 * 300 * 3))


# ---- the clock of a store


def test_order_holds_over_a_clock_that_steps_back_10_000_seconds(any_store: Store) -> None:
    now = now_us() + 60_000_000  # beyond the birth rows, which are stamped before the test can take the clock
    any_store.clock = clock_reading([now, now - seconds_10_000, now - seconds_10_000, now + 5, now - 1])
    one, other = any_store.domain("one"), any_store.domain("other")
    receipts = [(d, d.write_value("k", n)) for n, d in enumerate([one, other, one, other, one, other])]
    stamps = [next(d.events(after=receipt.position - 1)).recorded_us for d, receipt in receipts]
    assert stamps == sorted(set(stamps))
    assert stamps[0] == now
    assert stamps[1] == now + 1


def test_order_holds_over_a_clock_that_was_set_back_while_the_store_was_closed(open_store: Callable[..., Store]) -> None:
    with open_store() as store:
        store.clock = clock_reading([now_us() + seconds_10_000])
        store.domain("one").write_value("k", 1)
    with open_store() as store:
        ahead = next(store.domain("one").history("k")).recorded_us
        store.domain("one").write_value("k", 2)
        store.domain("other").write_value("k", 1)
        assert next(store.domain("one").history("k")).recorded_us > ahead
        assert next(store.domain("other").history("k")).recorded_us > ahead


def test_a_cut_at_a_recorded_time_stays_the_same_however_the_clock_goes_on() -> None:
    with eventstore.open("memory:") as store:
        now = now_us() + 60_000_000
        store.clock = clock_reading([now, now, now - seconds_10_000])
        d = store.domain("d")
        for n in range(5):
            d.write_value(f"k{n}", n)
        at = EPOCH + dt.timedelta(microseconds=next(d.events(after=2)).recorded_us)
        assert list(d.state(as_of=at).keys()) == ["k0", "k1", "k2"]
        d.write_value("late", 1)
        assert list(d.state(as_of=at).keys()) == ["k0", "k1", "k2"]


def test_a_clock_that_stands_before_1970_was_never_set_and_stands_at_1970(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: -3_600 * 10**9)
    assert now_us() == 0
    with eventstore.open(tmp_path / "data") as store:
        domain = store.domain("d")
        domain.write_values([("k", number) for number in range(3)])
        assert [event.recorded_us for event in domain.events()] == [1, 2, 3]
        assert store.verify(anchor=store.anchor()).ok
