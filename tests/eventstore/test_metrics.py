"""What a store says about itself: the hook after each transaction, and the text for Prometheus."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import eventstore
from eventstore import Commit
from eventstore.metrics import BUCKETS_US, Meter

SAMPLE = re.compile(r'^(eventstore_[a-z_]+)(?:\{domain="([a-z0-9_.-]+)"(?:,le="([^"]+)")?\})? ([0-9.e+-]+)$')

MANY = 2 * sys.getrecursionlimit()


def samples(text: str) -> dict[tuple[str, str, str], float]:
    """(name, domain, le) -> value of every line that is no comment; each must have the form, and stand once."""
    found: dict[tuple[str, str, str], float] = {}
    for line in text.splitlines():
        if not line.startswith("# "):
            match = SAMPLE.match(line)
            assert match, line
            place = (match[1], match[2] or "", match[3] or "")
            assert place not in found, line
            found[place] = float(match[4])
    return found


def test_every_transaction_is_told_of_and_counted(tmp_path: Path) -> None:
    told: list[Commit] = []
    with eventstore.open(tmp_path / "data", on_commit=told.append) as store:
        domain = store.domain("orders")
        domain.write_value("a", "é")
        domain.write_values([("a", 1), ("b", 2)])
        domain.remove_value("absent")  # appends nothing
        domain.remove_value("a")
        found = samples(store.metrics())
    assert [(one.domain, one.position, one.calls, one.events, one.data_bytes) for one in told] == [
        ("orders", 1, 1, 1, 4), ("orders", 3, 1, 2, 2), ("orders", 4, 1, 1, 0),
    ]  # fmt: skip
    assert found["eventstore_transactions_total", "orders", ""] == found["eventstore_append_seconds_count", "orders", ""] == 3
    assert found["eventstore_events_total", "orders", ""] == 4
    assert found["eventstore_append_seconds_bucket", "orders", "+Inf"] == 3
    assert found["eventstore_append_seconds_sum", "orders", ""] == pytest.approx(sum(one.append_us for one in told) / 1e6, rel=1e-4)
    assert all(0 < one.commit_us <= one.append_us for one in told), "an fsync takes its time, and is part of the whole"
    assert found["eventstore_commit_seconds_sum", "orders", ""] == pytest.approx(sum(one.commit_us for one in told) / 1e6, rel=1e-4)
    assert found["eventstore_commit_seconds_count", "orders", ""] == 3
    assert found["eventstore_head_position", "orders", ""] == 4
    assert found["eventstore_wal_bytes", "orders", ""] >= 8_192
    assert (found["eventstore_halted", "", ""], found["eventstore_halts_total", "", ""]) == (0, 0)


def test_what_others_wrote_and_nobody_asked_for_yet_is_the_lag(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as store, eventstore.open(tmp_path / "data") as other:
        domain = store.domain("orders")
        other.domain("orders").write_values([(f"k{number}", number) for number in range(7)])
        assert samples(store.metrics())["eventstore_lag_events", "orders", ""] == 7
        domain.get("k1")
        assert samples(store.metrics())["eventstore_lag_events", "orders", ""] == 0


def test_a_halt_is_seen(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as store:
        store.domain("orders").write_value("a", 1)
    with eventstore.open(tmp_path / "data", min_free_bytes=2**52) as store:
        with pytest.raises(eventstore.DiskFullError):
            store.domain("orders").write_value("a", 2)
        found = samples(store.metrics())
    assert (found["eventstore_halted", "", ""], found["eventstore_halts_total", "", ""]) == (1, 1)


def test_the_buckets_of_a_histogram_add_up() -> None:
    meter = Meter("d", None)
    for append_us in (1, 100, 101, 999_999, 1_000_000, 5_000_000):
        meter.count(Commit("d", 1, 1, 1, 0, append_us))
    assert meter.buckets[0] == 2  # a bound belongs to its bucket
    assert meter.buckets[1] == 1
    assert meter.buckets[len(BUCKETS_US) - 1 :] == [2, 1]
    assert sum(meter.buckets) == meter.transactions == 6


def test_a_hook_that_fails_does_not_fail_the_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken(commit: Commit) -> None:
        raise ZeroDivisionError(commit.domain)

    with eventstore.open(tmp_path / "data", on_commit=broken) as store:
        assert store.domain("orders").write_value("a", 1).position == 1
        assert store.domain("orders").read_value("a") == 1
    assert "on_commit raised" in caplog.text


def test_a_hook_that_writes_is_told_of_that_as_well_and_not_from_within_itself(tmp_path: Path) -> None:
    told: list[int] = []
    depths: list[int] = []
    inside = 0

    def copying(commit: Commit) -> None:
        nonlocal inside
        inside += 1
        told.append(commit.position)
        depths.append(inside)
        if commit.position < MANY:
            domain.write_value("copy", commit.position, durability="process")
        inside -= 1

    with eventstore.open(tmp_path / "data", on_commit=copying) as store:
        domain = store.domain("orders")
        domain.write_value("k", 1)
        assert domain.head().position == MANY
    assert told == list(range(1, MANY + 1))
    assert set(depths) == {1}
