"""Time in and out: aware datetimes and integer microseconds since 1970 UTC, and the clock that stamps events."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from eventstore.errors import ConfigError, NaiveTimeError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT64 = 2**63


def now_us() -> int:
    """The wall clock in microseconds. One that stands before 1970, before which the format has no time, was never set: it is at 1970."""
    return max(time.time_ns() // 1_000, 0)


def moment_us(moment: datetime | int) -> int:
    """An aware datetime, or microseconds as they are, as integer microseconds.

    Raises NaiveTimeError for a datetime without a zone, ConfigError for anything else that is no moment.
    """
    if isinstance(moment, datetime):
        if moment.tzinfo is None or moment.utcoffset() is None:
            raise NaiveTimeError(f"{moment.isoformat()} has no zone: pass an aware datetime, or integer microseconds since 1970 UTC")
        return (moment - _EPOCH) // _MICROSECOND
    if isinstance(moment, bool) or not isinstance(moment, int):
        raise ConfigError(f"a moment is an aware datetime or integer microseconds, not {type(moment).__name__} {moment!r}")
    if not -_INT64 <= moment < _INT64:
        raise ConfigError(f"{moment} microseconds do not fit in 64 bits")
    return moment


def parse_moment(text: str) -> tuple[int, bool]:
    """RFC 3339 text as microseconds, and whether it named its offset; a bare local time takes the machine's zone.

    Raises ConfigError.
    """
    # fromisoformat drops digits beyond the microsecond without a word; a log must not.
    if re.search(r"[.,]\d{7,}", text):
        raise ConfigError(f"{text!r}: finer than a microsecond; the log keeps microseconds")
    if re.search(r"[+-]\d\d:\d\d:\d\d[.,]", text):  # dropped as well where nothing else is left of it
        raise ConfigError(f"{text!r}: an offset finer than a second is none; write it as 2026-11-21T14:03:07.5+00:00")
    try:
        moment = datetime.fromisoformat(text)
        had_offset = moment.tzinfo is not None
        return moment_us(moment if had_offset else moment.astimezone()), had_offset
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{text!r} is no time; write it as 2026-11-21T14:03:07.5+00:00") from error


def format_us(us: int) -> str:
    """Microseconds as RFC 3339 text in UTC; a number outside the years 1 to 9999 stays a number."""
    try:
        moment = _EPOCH + timedelta(microseconds=us)
    except OverflowError:
        return f"{us}us"
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


class Clock:
    """Stamps events: never twice the same microsecond, never backwards, whatever the wall clock does.

    One clock serves all domains of a store in a process, so that a cut at a time is repeatable (FORMAT.md section 6).
    """

    def __init__(self, now: Callable[[], int] = now_us) -> None:
        self._now = now
        self._last = 0
        self._lock = threading.Lock()

    def stamps(self, count: int, floor: int) -> range:
        """`count` rising stamps, each above `floor` (the head's recorded_us) and above every stamp given before."""
        with self._lock:
            first = max(self._now(), self._last + 1, floor + 1)
            self._last = first + count - 1
            return range(first, first + count)

    def observe(self, recorded_us: int) -> None:
        """Never stamp at or before `recorded_us` again."""
        with self._lock:
            self._last = max(self._last, recorded_us)

    def after_fork(self) -> None:
        """In a forked child: another thread may have held the lock when the process split."""
        self._lock = threading.Lock()
