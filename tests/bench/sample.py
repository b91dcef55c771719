"""The same keys and values for everybody: 231 bytes of JSON, shaped like a trading signal."""

from __future__ import annotations

from typing import Any

import msgspec

VALUE_BYTES = 231
WHEN_US = 1_700_000_000_000_000
"""The `when` of the first event; each call that has one is a second later."""

POOL = 1_000
"""Distinct values; longer runs go round."""

Value = dict[str, Any]


def value(number: int, size: int = VALUE_BYTES) -> Value:
    """One value whose compact JSON is exactly `size` bytes long."""
    plain: Value = {
        "id": f"{number:012d}",
        "position": "short" if number % 2 else "long",
        "priceOpen": 42_150.25 + number % 997,
        "priceTakeProfit": 43_000.5 + number % 997,
        "minuteEstimatedTime": 60 + number % 7,
        "open": number % 3 == 0,
        "note": "",
    }
    plain["note"] = "x" * (size - len(msgspec.json.encode(plain)))
    return plain


def values(count: int) -> list[Value]:
    """`count` values, from a pool that repeats."""
    pool = [value(number) for number in range(min(count, POOL))]
    return [pool[number % POOL] for number in range(count)]


def key(number: int) -> tuple[str, str]:
    """A key of two parts."""
    return ("binance", f"SYM{number:06d}")


def key_text(number: int) -> str:
    """The same key as JSON text, for stores whose keys are strings."""
    return f'["binance","SYM{number:06d}"]'


def spread(count: int, keys: int) -> list[int]:
    """`count` key numbers that visit all of `keys`, not in order."""
    return [number * 7_919 % keys for number in range(count)]
