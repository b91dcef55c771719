"""What a person wants to know of a trading session: what was held at a moment, and how one position lived. Read from a store."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import msgspec

from eventstore.model import Event, Key
from eventstore.store import Store
from eventstore.tools.difference import Change, differences
from eventstore.tools.stores import raw_domain
from eventstore.view import DomainView

POSITIONS = "signal"
"""The domain that holds the open position of each context; a closed one is `null`."""

_TICKING = frozenset({"._peak", "._fall"})
"""The best and the worst price so far: they move at almost every tick, so a run of such steps is told as one."""

_AT_OPENING = (".position", ".cost", ".priceOpen", ".priceTakeProfit", ".priceStopLoss")


class Held(msgspec.Struct, frozen=True):
    """One open position, as the store held it at the moment asked about."""

    key: Key
    side: str
    entries: int
    price_open: float
    stop_loss: float
    take_profit: float
    since_us: int


class Step(msgspec.Struct, frozen=True):
    """One or several events of a position's history: what they changed, and when in the session."""

    what: str
    first_position: int
    events: int
    from_us: int | None
    until_us: int | None
    changes: list[Change]


class Story(msgspec.Struct, frozen=True):
    """A position's life, from its opening to its close."""

    key: Key
    steps: list[Step]


class _Row(msgspec.Struct, frozen=True):
    """The fields of a position's row that are told here; the engine's own names in quotes."""

    id: str
    side: str = msgspec.field(name="position")
    price_open: float = msgspec.field(name="priceOpen")
    stop_loss: float = msgspec.field(name="priceStopLoss")
    take_profit: float = msgspec.field(name="priceTakeProfit")
    pending_at: int = msgspec.field(name="pendingAt")
    entries: list[msgspec.Raw] = msgspec.field(name="_entry")
    trailing_stop: float | None = msgspec.field(name="_trailingPriceStopLoss", default=None)
    trailing_take: float | None = msgspec.field(name="_trailingPriceTakeProfit", default=None)


class _Identity(msgspec.Struct, frozen=True):
    id: str


class _Profit(msgspec.Struct, frozen=True):
    percentage: msgspec.Raw = msgspec.field(name="pnlPercentage")


class _Closing(msgspec.Struct, frozen=True):
    reason: msgspec.Raw = msgspec.field(name="closeReason")
    profit: _Profit = msgspec.field(name="pnl")


_decode_row = msgspec.json.Decoder(_Row | None).decode
_decode_identity = msgspec.json.Decoder(_Identity | None).decode
_decode_closing = msgspec.json.Decoder(_Closing).decode


def held(view: DomainView) -> list[Held]:
    """The open positions of a view whose values are raw JSON text."""
    return list(_held(view))


def _held(view: DomainView) -> Iterator[Held]:
    for key, value in view.items():
        row = _decode_row(value)
        if row is not None:
            stop = row.stop_loss if row.trailing_stop is None else row.trailing_stop
            take = row.take_profit if row.trailing_take is None else row.trailing_take
            yield Held(key, row.side, len(row.entries), row.price_open, stop, take, row.pending_at * 1_000)


def tell(store: Store) -> Story | None:
    """The richest story the store holds: of the positions opened and closed in it, the one to which most kinds of things happened."""
    domain = raw_domain(store, POSITIONS)
    lives = [(key, life) for key in list(domain.keys()) for life in _lives(domain.events(key=key))]
    if not lives:
        return None
    key, life = max(lives, key=lambda each: _richness(each[1]))
    return Story(key, list(_steps(life, _closing(store, life))))


def _lives(events: Iterable[Event]) -> Iterator[list[Event]]:
    """The lives of one key's positions that were seen whole: from a new id, with something else before it, to `null`."""
    life: list[Event] = []
    for before, event in pairwise(events):
        known, identity = _identity(before), _identity(event)
        if identity is None:
            if life:
                yield [*life, event]
            life = []
        elif identity != known:
            life = [event]
        elif life:
            life.append(event)


def _identity(event: Event) -> str | None:
    identity = _decode_identity(event.data or "null")
    return None if identity is None else identity.id


def _richness(life: Sequence[Event]) -> tuple[int, int]:
    fields = {field for before, event in pairwise(life[:-1]) for field in _fields(_changes(before, event))}
    return len(fields), len(life)


def _closing(store: Store, life: Sequence[Event]) -> list[Change]:
    """Why the position was closed and with what result, as the domain of finished signals says; nothing if it does not."""
    row = raw_domain(store, "storage").get(("live", str(_identity(life[0]))))
    try:
        closing = _decode_closing(row if row is not None else b"null")
    except msgspec.ValidationError:
        return []
    return [Change(".closeReason", new=closing.reason), Change(".pnl.pnlPercentage", new=closing.profit.percentage)]


def _steps(life: Sequence[Event], closing: list[Change]) -> Iterator[Step]:
    before, run = life[0], list[Event]()
    yield _step("opened", [before], [Change(path, new=_at(before, path)) for path in _AT_OPENING])
    for event in life[1:-1]:
        if run and not _goes_on(before, run[-1], event):
            yield _step("changed", run, _changes(before, run[-1]))
            before, run = run[-1], []
        run.append(event)
    if run:
        yield _step("changed", run, _changes(before, run[-1]))
    yield _step("closed", [life[-1]], closing)


def _goes_on(before: Event, last: Event, event: Event) -> bool:
    """Whether `event` only moves the price that `last` moved."""
    fields = _fields(_changes(last, event))
    return fields <= _TICKING and fields == _fields(_changes(before, last))


def _step(what: str, events: Sequence[Event], changes: list[Change]) -> Step:
    return Step(what, events[0].position, len(events), events[0].when_us, events[-1].when_us, changes)


def _at(event: Event, path: str) -> msgspec.Raw:
    row = msgspec.json.decode(event.data or "{}", type=dict[str, msgspec.Raw])
    return row.get(path.removeprefix("."), msgspec.Raw(b"null"))


def _changes(before: Event, event: Event) -> list[Change]:
    return differences(_text(before), _text(event))


def _text(event: Event) -> str | None:
    return event.data if isinstance(event.data, str) else None


def _fields(changes: Iterable[Change]) -> set[str]:
    """The row's own fields in which the changes lie."""
    return {"." + re.split(r"[.\[]", change.path)[1] for change in changes}
