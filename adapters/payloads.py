"""What the contracts keep, as types for those who want them: `msgspec.convert(row, SignalRow)` of what a read gave.

Instances themselves give and take plain data, so that members nobody here has heard of come back as they went. Members
are spelled as the engine spells them when written, as Python does here.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Side = Literal["long", "short"]


class _Row(msgspec.Struct, rename="camel"):
    """A JSON object of the engine's: what may be missing is UNSET, and not written."""


class PnL(_Row, kw_only=True):
    """Profit or loss at a moment, or the best and worst of a position."""

    pnl_percentage: float
    price_open: float
    price_close: float
    pnl_cost: float | msgspec.UnsetType = msgspec.UNSET
    pnl_entries: float | msgspec.UnsetType = msgspec.UNSET
    price: float | msgspec.UnsetType = msgspec.UNSET
    timestamp: int | msgspec.UnsetType = msgspec.UNSET


class PartialClose(_Row, kw_only=True):
    """A part of a position that was closed."""

    type: Literal["profit", "loss"]
    percent: float
    current_price: float
    cost_basis_at_close: float
    entry_count_at_close: int
    timestamp: int


class Entry(_Row, kw_only=True):
    """One purchase of a position."""

    price: float
    cost: float
    timestamp: int


class SignalRow(_Row, kw_only=True):
    """An open position, a resting order, or the last signal of a context. Times are milliseconds; minutes may be infinite."""

    id: str
    symbol: str
    position: Side
    price_open: float
    price_take_profit: float
    price_stop_loss: float
    minute_estimated_time: float
    exchange_name: str
    strategy_name: str
    frame_name: str
    scheduled_at: int
    pending_at: int
    timestamp: int
    cost: float | msgspec.UnsetType = msgspec.UNSET
    multiplier: float = 1
    isolated: bool = True
    note: str | msgspec.UnsetType = msgspec.UNSET
    is_scheduled: bool = msgspec.field(name="_isScheduled", default=False)
    partial: list[PartialClose] = msgspec.field(name="_partial", default_factory=list)
    entry: list[Entry] = msgspec.field(name="_entry", default_factory=list)
    trailing_price_stop_loss: float | msgspec.UnsetType = msgspec.field(name="_trailingPriceStopLoss", default=msgspec.UNSET)
    trailing_price_take_profit: float | msgspec.UnsetType = msgspec.field(name="_trailingPriceTakeProfit", default=msgspec.UNSET)
    peak: PnL | msgspec.UnsetType = msgspec.field(name="_peak", default=msgspec.UNSET)
    fall: PnL | msgspec.UnsetType = msgspec.field(name="_fall", default=msgspec.UNSET)


class StorageRow(SignalRow, kw_only=True):
    """A signal with its story, for a user interface."""

    status: Literal["opened", "scheduled", "closed", "cancelled"]
    priority: int
    created_at: int
    updated_at: int
    current_price: float | msgspec.UnsetType = msgspec.UNSET
    close_reason: str | msgspec.UnsetType = msgspec.UNSET
    close_timestamp: int | msgspec.UnsetType = msgspec.UNSET
    pnl: PnL | msgspec.UnsetType = msgspec.UNSET


class StrategyData(_Row, kw_only=True):
    """What a strategy has put off: commits, closes and retries that are still to be done."""

    pending_signal_id: str | None = None
    last_pending_id: str | None = None
    created_signal: dict[str, Any] | None = None
    commit_queue: list[dict[str, Any]] = []
    closed_signal: dict[str, Any] | None = None
    cancelled_signal: dict[str, Any] | None = None
    activated_signal: dict[str, Any] | None = None
    take_profit_signal: dict[str, Any] | None = None
    stop_loss_signal: dict[str, Any] | None = None
    retry_open_signal: dict[str, Any] | None = None
    retry_open_count: int = 0
    retry_close_count: int = 0
    is_paused: bool = False


class RiskPosition(_Row, kw_only=True):
    """A position as a risk profile counts it."""

    strategy_name: str
    exchange_name: str
    frame_name: str
    symbol: str
    position: Side
    price_open: float
    price_stop_loss: float
    price_take_profit: float
    minute_estimated_time: float
    open_timestamp: int


class PartialLevels(_Row, kw_only=True):
    """The levels, in percent, that a position has reached."""

    profit_levels: list[int]
    loss_levels: list[int]


class BreakevenMark(_Row, kw_only=True):
    """Whether a position's stop stands at its own price."""

    reached: bool


class CandleData(_Row, kw_only=True):
    """One candle; `timestamp` is its opening, in milliseconds."""

    timestamp: int
    open: float
    high: float
    low: float
    close: float
    volume: float


class NotificationRow(_Row, kw_only=True):
    """One of many kinds of notification; what else it holds depends on `type`."""

    id: str
    type: str
    created_at: int | msgspec.UnsetType = msgspec.UNSET


class LogEntry(_Row, kw_only=True):
    """A line of the engine's log."""

    id: str
    type: Literal["log", "debug", "info", "warn", "agent"]
    priority: int
    created_at: str
    timestamp: int
    topic: str
    args: list[Any]
    method_context: dict[str, Any] | None = None
    execution_context: dict[str, Any] | None = None


class MeasureData(_Row, kw_only=True):
    """A cached result."""

    id: str
    data: Any
    removed: bool


class IntervalData(_Row, kw_only=True):
    """A mark that something was done in an interval; `when` is a time as text."""

    id: str
    data: Any
    removed: bool
    when: str


class MemoryData(_Row, kw_only=True):
    """One memory of a language model; `when` is milliseconds."""

    priority: int
    data: dict[str, Any]
    removed: bool
    index: str
    when: int


class StateData(_Row, kw_only=True):
    """The state of a signal in a bucket."""

    id: str
    data: dict[str, Any]
    when: int


class SessionData(_Row, kw_only=True):
    """What a strategy keeps for a session; None once it is cleared."""

    id: str
    data: dict[str, Any] | None
    when: int


class DictionaryEntry(_Row, kw_only=True):
    """A value of a dictionary, and since when."""

    value: Any
    when: int


class DictionaryData(_Row, kw_only=True):
    """A whole dictionary."""

    id: str
    data: dict[str, DictionaryEntry]
    when: int
