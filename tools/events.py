"""An event as commands show it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from eventstore.clock import format_us
from eventstore.codec import decode_key
from eventstore.errors import RedactedError
from eventstore.model import Event, Key
from eventstore.tools.terminal import Paint, escape, key_text
from eventstore.view import DomainView

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EventLine(msgspec.Struct, frozen=True, kw_only=True):
    """An event; `redacted` if its value was erased, `key` [] for the log's own events.

    `value` only where it was asked for: null if there never was one, or it was redacted. `floor` only where it is not 0: events of
    this domain up to there are in no file at hand.
    """

    domain: str
    position: int
    prev: int
    recorded_us: int
    when_us: int | None
    op: str
    checksum: str
    key: Key
    meta: msgspec.Raw | None
    redacted: bool
    value: msgspec.Raw | msgspec.UnsetType | None = msgspec.UNSET
    floor: int | msgspec.UnsetType = msgspec.UNSET


class _Meta(msgspec.Struct):
    actor: str | None = None
    reason: str | None = None
    type: str | None = None
    tags: list[str] = []


_decode_meta = msgspec.json.Decoder(_Meta).decode


def text_or_none(domain: DomainView, event: Event) -> str | None:
    """The JSON text of an event's value; None if there never was one, or it was redacted."""
    try:
        return domain.text_of(event)
    except RedactedError:
        return None


def event_line(domain: DomainView, event: Event, *, with_value: bool = False) -> EventLine:
    """An event of the log of `domain` as it is shown."""
    value: msgspec.Raw | msgspec.UnsetType | None = msgspec.UNSET
    if with_value:
        text = text_or_none(domain, event)
        value = None if text is None else msgspec.Raw(text.encode())
    return EventLine(
        domain=domain.name,
        position=event.position,
        prev=event.prev,
        recorded_us=event.recorded_us,
        when_us=event.when_us,
        op=event.op,
        checksum=event.checksum.hex(),
        key=decode_key(event.key),
        meta=None if event.meta is None else msgspec.Raw(event.meta.encode()),
        redacted=event.digest is not None,
        value=value,
        floor=domain.floor or msgspec.UNSET,
    )


def heading(line: EventLine, paint: Paint, *, position_width: int = 0, domain_width: int | None = None) -> str:
    """Position, time, what was done to which key, and what was said about it, on one line."""
    columns = [paint(f"{line.position:{position_width}}", "strong"), paint(format_us(line.recorded_us), "dim")]
    if domain_width is not None:
        columns.append(paint(f"{escape(line.domain):{domain_width}}", "name"))
    columns += [f"{'redacted' if line.redacted else line.op:6}", key_text(line.key)]
    return "  ".join([*columns, *_said(line, paint)])


def _said(line: EventLine, paint: Paint) -> list[str]:
    phrases = []
    if line.when_us is not None:
        phrases.append(paint(f"when {format_us(line.when_us)}", "dim"))
    if line.meta is not None:
        meta = _read(line.meta)
        phrases += [
            paint(f"{name} {escape(text)}", "dim")
            for name, text in (("by", meta.actor), ("type", meta.type), ("tags", ", ".join(meta.tags)), ("because", meta.reason))
            if text
        ]
    return phrases


def _read(meta: msgspec.Raw) -> _Meta:
    try:
        return _decode_meta(meta)
    except msgspec.MsgspecError:  # another program's meta may mean something else by these names
        return _Meta()


def moment_at(us: int) -> datetime:
    """Microseconds as a datetime; before the year 1 its beginning, after the year 9999 its end."""
    try:
        return _EPOCH + timedelta(microseconds=us)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC) if us < 0 else datetime.max.replace(tzinfo=UTC)
