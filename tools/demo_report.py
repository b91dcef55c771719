"""What the demo found, and how a person reads it. Text that came out of events is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from eventstore.clock import format_us
from eventstore.model import Key
from eventstore.tools.demo_claims import Claim
from eventstore.tools.demo_story import Held, Step, Story
from eventstore.tools.difference import Change
from eventstore.tools.terminal import Paint, clip, count_text, escape, size_text, table

_WIDEST = 72
"""Cells that a value may take: the story is for the eye, `eventstore history` has every digit."""

_MEMBERS = 3
"""Of an object, this many of its members are told."""

_NAMES = {"position": "side", "priceOpen": "price", "priceTakeProfit": "take profit", "priceStopLoss": "stop loss"}
"""How the opening's fields are called when they stand in a row; elsewhere fields keep the engine's names."""


class Moment(msgspec.Struct, frozen=True):
    """The moment of the kill: when its last event was recorded, how far the session had come, and what was held."""

    recorded_us: int
    session_us: int | None
    held: list[Held]


class DemoReport(msgspec.Struct, kw_only=True):
    """What the demo did and what it found. Every sentence of it was checked; `ok` is False if one claim does not hold."""

    folder: str
    ok: bool = False
    claims: list[Claim] = []
    writes: int
    session_from_us: int | None
    session_until_us: int | None
    acknowledged: int = 0
    landed: int = 0
    moment: Moment | None = None
    story: Story | None = None
    domains: int = 0
    keys: int = 0
    events: int = 0
    bytes: int = 0
    verify_seconds: float = 0.0
    seconds: float = 0.0
    explore: list[str] = []

    @property
    def exit_code(self) -> int:
        """0, or 1 if anything it claims does not hold."""
        return 0 if self.ok else 1


def render(report: DemoReport, paint: Paint) -> Iterator[str]:
    """What was claimed and found, what was held, one position's life, and where to go from here."""
    yield (
        f"{paint('A recorded trading session', 'strong')}, {_clock(report.session_from_us)} to {_clock(report.session_until_us)}"
        f" on {_day(report.session_from_us)}: {count_text(report.writes, 'write')} of backtest-kit, each made durable before the next."
    )
    yield ""
    for claim in report.claims:
        yield _claim(claim, paint)
    if report.moment is not None:
        yield from _moment(report.moment, paint)
    if report.story is not None:
        yield from _story(report.story, paint)
    yield ""
    yield from _end(report, paint)


def _claim(claim: Claim, paint: Paint) -> str:
    if claim.holds:
        return f"  {paint('✓', 'ok')} {claim.claim}{paint(': ' + escape(claim.detail), 'dim')}"
    return f"  {paint('✗ ' + claim.claim, 'bad')}: {escape(claim.detail)}"


def _moment(moment: Moment, paint: Paint) -> Iterator[str]:
    yield ""
    yield (
        f"{paint('Held when the writer was killed', 'strong')}, at {_clock(moment.session_us)} in the session"
        f" (recorded {format_us(moment.recorded_us)}):"
    )
    if not moment.held:
        yield "  nothing"
        return
    for line in table([_held(position) for position in moment.held], right=frozenset({3, 5, 7})):
        yield f"  {line}"


def _held(position: Held) -> Sequence[str]:
    return (
        _key(position.key),
        escape(position.side),
        "1 entry" if position.entries == 1 else f"{position.entries} entries",
        _number(position.price_open),
        "stop",
        _number(position.stop_loss),
        "target",
        _number(position.take_profit),
        f"since {_clock(position.since_us)}",
    )


def _story(story: Story, paint: Paint) -> Iterator[str]:
    yield ""
    yield f"{paint('One position', 'strong')}, {_key(story.key)}, as its history tells it:"
    width = max(len(_when(step)) for step in story.steps)
    for step in story.steps:
        said = _said(step)
        yield f"  {paint(_when(step).ljust(width), 'dim')}  {said if step.what == 'changed' else paint(said, 'name')}"


def _when(step: Step) -> str:
    first, last = _clock(step.from_us), _clock(step.until_us)
    return first if first == last else f"{first} to {last}"


def _said(step: Step) -> str:
    if step.what == "opened":
        return "opened  " + ", ".join(f"{_NAMES.get(_field(change), _field(change))} {_short(change.new)}" for change in step.changes)
    if step.what == "closed":
        return "closed  " + ", ".join(f"{_field(change)} {_short(change.new)}" for change in step.changes)
    said = "; ".join(_change(change) for change in _telling(step.changes))
    return said if step.events == 1 else f"{said}  ({count_text(step.events, 'event')})"


def _telling(changes: Sequence[Change]) -> Sequence[Change]:
    """The one field that tells most of a price that moved; all of them elsewhere."""
    return [change for change in changes if change.path.endswith(".pnlPercentage")] or changes


def _change(change: Change) -> str:
    name = _field(change)
    if change.old is None:
        return f"{name}  + {_short(change.new)}"
    if change.new is None:
        return f"{name}  - {_short(change.old)}"
    return f"{name}  {_short(change.old)} -> {_short(change.new)}"


def _field(change: Change) -> str:
    return escape(change.path.removeprefix("."))


def _short(value: msgspec.Raw | None) -> str:
    """A value in a few cells: numbers rounded, of a list of one its item, of an object its plain members."""
    return clip(escape(_briefly(msgspec.json.decode(value if value is not None else b"null"))), _WIDEST)


def _briefly(value: Any) -> str:
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict):
        plain = {name: item for name, item in value.items() if not isinstance(item, dict | list) and name != "timestamp"}
        told = [f"{name} {_briefly(item)}" for name, item in plain.items()]
        return ", ".join(told if len(told) <= _MEMBERS else [*told[:_MEMBERS], "…"])
    if isinstance(value, list):
        return _briefly(value[0]) if len(value) == 1 else count_text(len(value), "item")
    return str(value)


def _number(value: float) -> str:
    return f"{value:,.2f}" if abs(value) >= 100 else f"{value:.4g}"


def _end(report: DemoReport, paint: Paint) -> Iterator[str]:
    if not report.ok:
        broken = sum(not claim.holds for claim in report.claims)
        yield paint(f"{count_text(broken, 'claim')} did not hold. The store is in {escape(report.folder)}; please report it.", "bad")
        return
    said = f"{count_text(report.writes, 'write')}, {report.acknowledged:,} of them acknowledged before the kill, 0 lost."
    if report.events < report.writes:
        said += f" {count_text(report.writes - report.events, 'removal')} found nothing to remove, and left no event."
    yield f"{paint('Nothing was lost.', 'ok')} {said}"
    yield (
        f"{count_text(report.events, 'event')}, {count_text(report.keys, 'key')} in {count_text(report.domains, 'domain')},"
        f" {size_text(report.bytes)}; verified in {report.verify_seconds:.2f} s, all of this in {report.seconds:.1f} s."
    )
    yield ""
    yield f"The store is yours, in {escape(report.folder)}. Look around:"
    for command in report.explore:
        yield f"  {paint(escape(command), 'name')}"


def _key(key: Key) -> str:
    return escape(" ".join(map(str, key)) if isinstance(key, tuple) else str(key))


def _clock(us: int | None) -> str:
    """The time of day, in UTC, to the minute: the session was recorded in simulated minutes."""
    return "?" if us is None else format_us(us)[11:16]


def _day(us: int | None) -> str:
    return "?" if us is None else format_us(us)[:10]
