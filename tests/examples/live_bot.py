"""A small live trader to copy from: killed at any moment and started again, it has placed every order exactly once.

    python -m tests.examples.live_bot STORE PORT

An order is an intent: recorded before it is sent, under an id made from what it was decided on, and never sent again under
another. Whatever must follow it, here the booking, stands in the same block before done(), under the same event_id: as long as
not all of it is done, the order is on the list that a restart works through first. Nothing depends on seeing a tick twice.
"""

from __future__ import annotations

import sys

import msgspec

import eventstore
from tests.examples.exchange import Exchange, Fill, Order, RejectedError, Tick

SYMBOL = "BTCUSDT"


class Position(msgspec.Struct, frozen=True):
    """What is held, and what it cost so far."""

    quantity: int = 0
    cash_cents: int = 0
    tick: int = 0
    """The last tick that was traded on: a restart goes on after it."""

    def after(self, fill: Fill) -> Position:
        """This position with a fill booked."""
        signed = fill.order.quantity if fill.order.side == "buy" else -fill.order.quantity
        return Position(self.quantity + signed, self.cash_cents - signed * fill.price_cents, fill.order.tick)


POSITIONS = eventstore.Domain("positions", value=Position)


def decide(position: Position, tick: Tick) -> Order | None:
    """The strategy: a pure function, so that it says the same again after a restart. Buy low, sell all of it high."""
    if tick.price_cents < 99_700 and position.quantity < 5:
        return Order(tick.number, "buy", 1)
    if tick.price_cents > 100_300 and position.quantity > 0:
        return Order(tick.number, "sell", position.quantity)
    return None


def place(store: eventstore.Store, exchange: Exchange, order_id: str, order: Order, *, resume: bool = False) -> None:
    """Have an order executed and booked once, whatever happened before, or refused for good."""
    try:
        with store.intent(order_id, order, resume=resume, type="order.placed") as intent:
            try:
                fill = exchange.find(order_id) if intent.uncertain else None
                # An id that the exchange does not know may still be on its way to it: the same id again, never a new one.
                fill = fill or exchange.place(order_id, order)
            except RejectedError as refusal:
                intent.fail(str(refusal))  # certain: nothing happened. An OSError is not, and leaves it uncertain.
            else:
                book(store, fill)
                intent.done(fill)
    except eventstore.SettledError:
        return  # decided on again after a restart: it was done and booked, or refused, before


def book(store: eventstore.Store, fill: Fill) -> None:
    """Count a fill, once."""
    positions = store.domain(POSITIONS)
    positions.update_value(SYMBOL, lambda held: held.after(fill), default=Position(), event_id=fill.order_id, type="position.booked")


def trade(store: eventstore.Store, exchange: Exchange) -> None:
    """Trade until the market closes for good."""
    for unsettled in store.uncertain():
        place(store, exchange, unsettled.event_id, msgspec.convert(unsettled.effect, Order), resume=True)
    positions = store.domain(POSITIONS)
    last = positions.get(SYMBOL, Position()).tick
    print(f"trading after tick {last}", flush=True)
    for tick in exchange.ticks(after=last):
        order = decide(positions.get(SYMBOL, Position()), tick)
        if order is not None:
            place(store, exchange, f"{SYMBOL}-{tick.number}", order)


def main(folder: str, port: str) -> None:
    """One bot a store, held to it by the lease: a second one would take the first one's orders for left behind. Raises OwnedError."""
    with eventstore.open(folder, owner="live-bot", actor="live-bot") as store, Exchange(int(port)) as exchange:
        trade(store, exchange)


if __name__ == "__main__":
    main(*sys.argv[1:])
