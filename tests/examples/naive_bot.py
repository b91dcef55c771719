"""The live bot as many are written: it sends an order, keeps the answer, and hopes. The test of the other one must catch it.

python -m tests.examples.naive_bot STORE PORT
"""

from __future__ import annotations

import sys
import uuid

import eventstore
from tests.examples import live_bot
from tests.examples.exchange import Exchange, Order, RejectedError


def place(store: eventstore.Store, exchange: Exchange, order_id: str, order: Order, *, resume: bool = False) -> None:
    """What was asked for before a crash is forgotten, its id too."""
    try:
        live_bot.book(store, exchange.place(uuid.uuid4().hex, order))
    except RejectedError:
        return


if __name__ == "__main__":
    live_bot.place = place
    live_bot.main(*sys.argv[1:])
