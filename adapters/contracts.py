"""The persistence contracts of backtest-kit as data: one row each. Four shapes serve them; one more contract is one more row.

A row says what names a record, how its methods are called, what is repaired when it is read, and where the framework's
own JSON files keep it. Nothing here does anything; shapes.py does, on whatever shelf (shelf.py) it is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from eventstore.adapters import payloads
from eventstore.errors import ContractError
from eventstore.model import Domain, Key, Part, WriteRule

ShapeName = Literal["one", "keyed", "rows", "series"]

STEPS_MS: dict[str, int] = {
    **{f"{minutes}m": minutes * 60_000 for minutes in (1, 3, 5, 15, 30)},
    **{f"{hours}h": hours * 3_600_000 for hours in (1, 2, 4, 6, 8)},
    "1d": 86_400_000,
}
"""Milliseconds from one candle to the next, by the name of the interval."""

EACH = "*"
"""In the path of a Repair, every item of a list."""

PAYLOADS = ("data", "rows", "candles")
"""What the parameter that is written is called: one record, a list of them, a list of candles."""


class Method(msgspec.Struct, frozen=True):
    """One method of a contract's instances: its name, the parameters behind self, and the verb of the shape that serves it."""

    name: str
    parameters: tuple[str, ...]
    verb: str

    @property
    def writes(self) -> bool:
        """Whether it changes anything, and so takes an event_id beside its parameters."""
        return self.verb in ("write", "remove")


class Default(msgspec.Struct, frozen=True):
    """A member of a record that is put back where it is null or missing."""

    member: str
    value: float
    beside: str = ""
    """Only in records that have this member, null or not; "" is all of them."""
    setting: str = ""
    """The engine's setting that says what the value is there; an engine that has none, or is none, has `value`."""


class Repair(msgspec.Struct, frozen=True):
    """What reading puts back: JSON has no Infinity, and older engines wrote rows without leverage."""

    defaults: tuple[Default, ...]
    paths: tuple[tuple[str | int, ...], ...] = ((),)
    """Which parts of a record, or row: names of members, places in a list, EACH of its items; () is the record itself."""

    def __call__(self, value: Any) -> Any:
        """The same value, repaired in place."""
        for path in self.paths:
            for record in _reached(value, path):
                for default in self.defaults:
                    if record.get(default.member) is None and (not default.beside or default.beside in record):
                        record[default.member] = default.value
        return value


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """One row. Names of parameters are the engine's in Python's spelling; those of the payload's members stay the engine's."""

    name: str
    shape: ShapeName
    context: tuple[str, ...]
    """What the constructor takes: the leading parts of every key."""
    path: tuple[str | tuple[str, ...], ...]
    """Where the framework's JSON files keep a record, below their root: folders, then the file; a tuple is parts joined by `_`."""
    payload: Any
    """The type that describes what is written and read."""
    noun: str = ""
    """What the methods call it: read_NOUN_data."""
    id: str = ""
    """keyed, rows, series: what the last part of the key is called."""
    stamped: Literal["never", "writes", "always"] = "never"
    """Which calls carry `when`: none, those that write, or reads as well."""
    write: WriteRule = "replace"
    empty: type[Any] = type(None)
    """What a read makes if there is nothing: None, {} or []."""
    soft: bool = False
    """Whether a record can be removed, after which it reads as nothing, is not listed, and a write brings it back."""
    listed: Literal["", "ids", "entries"] = ""
    """What list_NOUN_data yields: the ids, or {ID: id, "data": record}."""
    asked: bool = False
    """Whether there is has_NOUN_data: true for what was ever written, removed or not."""
    disposable: bool = False
    """Whether instances are disposed of, and the adapter waits for their initialisation by a method of its own."""
    order: tuple[str, ...] = ()
    """In which order the adapter's methods take context, id and when, if not in just that one."""
    repair: Repair | None = None
    """Puts back into a record, or a row, what JSON could not say or an older engine did not."""

    @property
    def domain(self) -> Domain:
        """Where the event store keeps it."""
        return Domain(self.name.lower(), self.write)

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods of an instance that are the contract's own, beside wait_for_init and dispose."""
        noun = self.noun or self.name.lower()
        if self.shape == "series":
            return (
                Method(f"read_{noun}_data", ("limit", "since_timestamp", "until_timestamp"), "read"),
                Method(f"write_{noun}_data", ("candles",), "write"),
            )
        if self.shape == "rows":
            return Method(f"read_{noun}_data", (), "read"), Method(f"write_{noun}_data", ("rows",), "write")
        named = (self.id,) if self.shape == "keyed" else ()
        at = {"never": (0, 0), "writes": (0, 1), "always": (1, 1)}[self.stamped]
        found = [
            Method(f"read_{noun}_data", named + ("when",) * at[0], "read"),
            Method(f"write_{noun}_data", ("data", *named) + ("when",) * at[1], "write"),
        ]
        if self.asked:
            found.append(Method(f"has_{noun}_data", named, "has"))
        if self.soft:
            found.append(Method(f"remove_{noun}_data", named, "remove"))
        if self.listed:
            found.append(Method(f"list_{noun}_data", (), "list"))
        return tuple(found)

    def adapter_parameters(self, parameters: tuple[str, ...]) -> tuple[str, ...]:
        """The parameters of the adapter's method of that name: what is written, what says where, and the rest."""
        order = self.order or (*self.context, *filter(None, [self.id]), "when")
        order = tuple("initial" if name == "when" and "initial" in parameters else name for name in order)
        if "initial" in parameters and "initial" not in order:
            order += ("initial",)
        written = tuple(name for name in parameters if name in PAYLOADS)
        where = tuple(name for name in order if name in self.context or name in parameters)
        return written + where + tuple(name for name in parameters if name not in PAYLOADS and name not in order)

    def parts(self, context: tuple[Any, ...]) -> tuple[Part, ...]:
        """The key parts that a context stands for. Raises ContractError for one that is none."""
        if len(context) != len(self.context):
            raise ContractError(f"{self.name}: its context is ({', '.join(self.context)}), not {context!r}")
        return tuple(_part(self.name, name, value) for name, value in zip(self.context, context, strict=True))


def camel(name: str) -> str:
    """A name in the engine's own spelling: read_signal_data is readSignalData."""
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def key_of(parts: tuple[Part, ...]) -> Key:
    """The key of a record as reads give it back: one string alone is no tuple."""
    return parts[0] if len(parts) == 1 and isinstance(parts[0], str) else parts


def require_text(contract: str, name: str, value: object) -> str:
    """An id or a part of a context. Raises ContractError for what is no string."""
    if not isinstance(value, str):
        raise ContractError(f"{contract}: {name} is a string, not {value!r}")
    return value


def _reached(value: Any, path: tuple[str | int, ...]) -> Iterator[dict[str, Any]]:
    """The records that a path leads to."""
    if not path:
        if isinstance(value, dict):
            yield value
        return
    step, rest = path[0], path[1:]
    inside: Sequence[Any] = ()
    if isinstance(value, list):
        inside = value if step == EACH else value[step : step + 1] if isinstance(step, int) else ()
    elif isinstance(value, dict):
        inside = (value.get(step),)
    for each in inside:
        yield from _reached(each, rest)


def _part(contract: str, name: str, value: object) -> Part:
    if name != "backtest":
        return require_text(contract, name, value)
    if not isinstance(value, bool):
        raise ContractError(f"{contract}: backtest is True or False, not {value!r}")
    return "backtest" if value else "live"


# ---- repairs

_MINUTES = Default("minuteEstimatedTime", math.inf)
_LEVERAGE = (
    Default("multiplier", 1, setting="CC_SIGNAL_LEVERAGE_MULTIPLIER"),
    Default("isolated", True, setting="CC_SIGNAL_ISOLATED_MARGIN"),
)
_DEFERRED = ("closedSignal", "cancelledSignal", "activatedSignal", "takeProfitSignal", "stopLossSignal", "retryOpenSignal")

_SIGNAL = Repair((_MINUTES, *_LEVERAGE))
_STRATEGY = Repair(_SIGNAL.defaults, paths=tuple((name,) for name in _DEFERRED))
_POSITIONS = Repair((_MINUTES,), paths=((EACH, 1),))
_NOTIFICATION = Repair(
    (replace(_MINUTES, beside="minuteEstimatedTime"), *(replace(each, beside="cost") for each in _LEVERAGE)),
)


# ---- the rows

_POSITION = ("symbol", "strategy_name", "exchange_name")
_BUCKET = ("signal_id", "bucket_name")
_LEVELS = ("symbol", "strategy_name", "signal_id", "exchange_name", "when")

CONTRACTS: dict[str, Contract] = {
    row.name: row
    for row in (
        Contract(
            name="Signal",
            shape="one",
            context=_POSITION,
            path=("data", "signal", _POSITION, ("symbol",)),
            payload=payloads.SignalRow,
            repair=_SIGNAL,
        ),
        Contract(
            name="Schedule",
            shape="one",
            context=_POSITION,
            path=("data", "schedule", _POSITION, ("symbol",)),
            payload=payloads.SignalRow,
            repair=_SIGNAL,
        ),
        Contract(
            name="Strategy",
            shape="one",
            context=_POSITION,
            path=("data", "strategy", _POSITION, "strategy"),
            payload=payloads.StrategyData,
            repair=_STRATEGY,
        ),
        Contract(
            name="Risk",
            shape="one",
            noun="position",
            context=("risk_name", "exchange_name"),
            path=("data", "risk", ("risk_name", "exchange_name"), "positions"),
            payload=list[tuple[str, payloads.RiskPosition]],
            stamped="always",
            empty=list,
            repair=_POSITIONS,
        ),
        Contract(
            name="Partial",
            shape="keyed",
            context=_POSITION,
            id="signal_id",
            path=("data", "partial", _POSITION, ("signal_id",)),
            payload=dict[str, payloads.PartialLevels],
            stamped="always",
            empty=dict,
            order=_LEVELS,
        ),
        Contract(
            name="Breakeven",
            shape="keyed",
            context=_POSITION,
            id="signal_id",
            path=("data", "breakeven", _POSITION, ("signal_id",)),
            payload=dict[str, payloads.BreakevenMark],
            stamped="always",
            empty=dict,
            order=_LEVELS,
        ),
        Contract(
            name="Candle",
            shape="series",
            noun="candles",
            context=("symbol", "interval", "exchange_name"),
            id="timestamp",
            path=("data", "candle", ("exchange_name",), ("symbol",), ("interval",), ("timestamp",)),
            payload=payloads.CandleData,
            write="first",
        ),
        Contract(
            name="Storage",
            shape="rows",
            context=("backtest",),
            id="id",
            path=("data", "storage", ("backtest",), ("id",)),
            payload=payloads.StorageRow,
            repair=_SIGNAL,
        ),
        Contract(
            name="Notification",
            shape="rows",
            context=("backtest",),
            id="id",
            path=("data", "notification", ("backtest",), ("id",)),
            payload=payloads.NotificationRow,
            repair=_NOTIFICATION,
        ),
        Contract(
            name="Log",
            shape="rows",
            context=(),
            id="id",
            path=("data", "log", "log", ("id",)),
            payload=payloads.LogEntry,
            write="first",
        ),
        Contract(
            name="Measure",
            shape="keyed",
            context=("bucket",),
            id="key",
            path=("data", "measure", ("bucket",), ("key",)),
            payload=payloads.MeasureData,
            stamped="writes",
            soft=True,
            listed="ids",
        ),
        Contract(
            name="Interval",
            shape="keyed",
            context=("bucket",),
            id="key",
            path=("data", "interval", ("bucket",), ("key",)),
            payload=payloads.IntervalData,
            stamped="writes",
            soft=True,
            listed="ids",
        ),
        Contract(
            name="Memory",
            shape="keyed",
            context=_BUCKET,
            id="memory_id",
            path=("memory", ("signal_id",), ("bucket_name",), ("memory_id",)),
            payload=payloads.MemoryData,
            stamped="writes",
            soft=True,
            asked=True,
            listed="entries",
            disposable=True,
        ),
        Contract(
            name="Recent",
            shape="one",
            context=(*_POSITION, "frame_name", "backtest"),
            path=("data", "recent", (*_POSITION, "frame_name", "backtest"), ("symbol",)),
            payload=payloads.SignalRow,
            stamped="writes",
            repair=_SIGNAL,
        ),
        Contract(
            name="State",
            shape="one",
            context=_BUCKET,
            path=("state", ("signal_id",), ("bucket_name",), ("bucket_name",)),
            payload=payloads.StateData,
            stamped="writes",
            disposable=True,
        ),
        Contract(
            name="Session",
            shape="one",
            context=("strategy_name", "exchange_name", "frame_name", "symbol", "backtest"),
            path=("session", ("strategy_name",), ("exchange_name",), ("frame_name",), ("symbol", "backtest")),
            payload=payloads.SessionData,
            stamped="writes",
            disposable=True,
            order=("strategy_name", "exchange_name", "frame_name", "when", "symbol", "backtest"),
        ),
        Contract(
            name="Dictionary",
            shape="one",
            context=("signal_id", "dictionary_name"),
            path=("dictionary", ("signal_id",), ("dictionary_name",), ("dictionary_name",)),
            payload=payloads.DictionaryData,
            stamped="writes",
            disposable=True,
        ),
    )
}
"""The seventeen, by name."""

ENTITY = Contract(
    name="Entity",
    shape="keyed",
    context=("entity_name",),
    id="entity_id",
    path=(("entity_name",), ("entity_id",)),
    payload=Any,
    listed="ids",
)
"""Where PersistBase keeps what it is given: no contract of the engine, but kept on the same shelves."""

OPTIONAL = "frame_name"
"""The part of a context that may be empty in a path of files, and is then left out of it: a live session has no frame."""
