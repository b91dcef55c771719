"""A stand-in for an exchange, in a process of its own: it remembers client order ids, and can be told to behave badly.

    python -m tests.examples.exchange LEDGER        prints its port on 127.0.0.1; LEDGER outlives it

One JSON line asks, one answers. An order is executed when its line is durable in the ledger; an id that it has seen gets the
answer it got then. Real exchanges do so, some for a day only: ask yours how long (`newClientOrderId`, `clOrdID`).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import socketserver
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

PATIENCE = 60.0
"""Seconds after which whoever waits here takes the other side to be gone."""


class Tick(msgspec.Struct, frozen=True):
    """A price at a moment."""

    number: int
    price_cents: int


class Order(msgspec.Struct, frozen=True):
    """What a trader wants; `tick` is the one it was decided on."""

    tick: int
    side: Literal["buy", "sell"]
    quantity: int


class Fill(msgspec.Struct, frozen=True):
    """What the exchange did for an order."""

    order_id: str
    order: Order
    price_cents: int


class RejectedError(Exception):
    """The exchange refuses this order for good; an order of this id was not executed and never will be."""


class Exchange:
    """A trader's connection. What it raises as OSError leaves open whether the exchange did what it was asked."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._file = self._socket.makefile("rwb")

    def ticks(self, after: int) -> Iterator[Tick]:
        """Every tick after the number `after`, until the market closes for good."""
        while (answer := self.ask(verb="tick", number=after + 1)) is not None:
            tick = msgspec.convert(answer, Tick)
            after = tick.number
            yield tick

    def place(self, order_id: str, order: Order) -> Fill:
        """Execute an order, once under each id. Raises RejectedError, OSError."""
        return msgspec.convert(self.ask(verb="place", order_id=order_id, order=msgspec.to_builtins(order)), Fill)

    def find(self, order_id: str) -> Fill | None:
        """What was done under an id; None if it is not known (yet: a request may be under way). Raises RejectedError, OSError."""
        answer = self.ask(verb="find", order_id=order_id)
        return None if answer is None else msgspec.convert(answer, Fill)

    def ask(self, **question: Any) -> Any:
        """One question, one answer."""
        self.send(**question)
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the exchange hung up before it answered")
        answer = json.loads(line)
        if "rejected" in answer:
            raise RejectedError(answer["rejected"])
        return answer["is"]

    def send(self, **question: Any) -> None:
        """A question alone."""
        self._file.write(json.dumps(question).encode() + b"\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()
        self._socket.close()


# ---- the other side


class Market:
    """The ledger, the prices, and the bad manners."""

    def __init__(self, ledger: Path) -> None:
        self.fills = {fill.order_id: fill for fill in read_ledger(ledger)}
        # A line that was torn by a crash was answered to nobody.
        whole = ledger.read_bytes() if ledger.exists() else b""
        self._file = ledger.open("r+b" if ledger.exists() else "wb")
        self._file.truncate(self._file.seek(whole.rfind(b"\n") + 1))
        self._changed = threading.Condition()
        self._fault, self._held, self._clients = "", False, 0
        self._newest, self._last = 0, sys.maxsize

    def tick(self, number: int) -> dict[str, int] | None:
        """A tick by its number; None after the last."""
        with self._changed:
            self._newest = max(self._newest, number)
            return {"number": number, "price_cents": price_cents(number)} if number <= self._last else None

    def place(self, order_id: str, order: dict[str, Any]) -> Any:
        """Execute, or answer as the first time."""
        wanted = msgspec.convert(order, Order)
        self._stumble("before")
        with self._changed:
            fill = self.fills.get(order_id)
            if rejects(wanted):
                raise RejectedError("the market is closed in every seventh minute")
            if fill is None:
                fill = self.fills[order_id] = Fill(order_id, wanted, price_cents(wanted.tick))
                self._file.write(msgspec.json.encode(fill) + b"\n")
                self._file.flush()
                os.fsync(self._file.fileno())
            elif fill.order != wanted:
                raise RejectedError(f"{order_id} is another order already")
        self._stumble("after")
        return msgspec.to_builtins(fill)

    def find(self, order_id: str) -> Any:
        """What was done under an id."""
        with self._changed:
            return msgspec.to_builtins(self.fills.get(order_id))

    def _stumble(self, moment: str) -> None:
        with self._changed:
            if self._fault == f"drop {moment}":
                self._fault = ""
                raise ConnectionAbortedError
            if self._fault == f"hold {moment}":
                self._fault, self._held = "", True
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._held, PATIENCE)

    @contextlib.contextmanager
    def client(self) -> Iterator[None]:
        """Know of one, until its last order is dealt with."""
        with self._changed:
            self._clients += 1
        try:
            yield
        finally:
            with self._changed:
                self._clients -= 1
                self._changed.notify_all()

    # What tests say.

    def fault(self, what: str) -> None:
        """Treat the next order badly: hold or drop, before or after it is executed. An order of a client that died comes first."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._clients == 1, PATIENCE), "somebody else trades"
            self._fault = what

    def held(self) -> bool:
        """Wait until an order is held; whether it came to that."""
        with self._changed:
            return self._changed.wait_for(lambda: self._held, PATIENCE)

    def release(self) -> None:
        """Go on with the order that is held."""
        with self._changed:
            self._fault, self._held = "", False
            self._changed.notify_all()

    def close(self, more: int) -> int:
        """Close the market so many ticks from now; the number of the last."""
        with self._changed:
            self._last = self._newest + more
            return self._last


VERBS = {"tick", "place", "find", "fault", "held", "release", "close"}


def price_cents(number: int) -> int:
    """The price at a tick: any, but always the same."""
    return 100_000 + zlib.crc32(b"%d" % number) % 2_000 - 1_000


def rejects(order: Order) -> bool:
    """Whether the exchange will never execute it."""
    return order.tick % 7 == 0


def read_ledger(path: Path) -> list[Fill]:
    """Everything that was executed, in order."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [msgspec.json.decode(line, type=Fill) for line in lines]


class Connection(socketserver.StreamRequestHandler):
    """One client."""

    def handle(self) -> None:
        """Answer until it hangs up, or is hung up on."""
        assert isinstance(self.server, Server)
        market = self.server.market
        # A client that was killed, or the fault that was ordered, ends it.
        with market.client(), contextlib.suppress(ConnectionError):
            while line := self.rfile.readline():
                self.wfile.write(json.dumps(self._answer(market, json.loads(line))).encode() + b"\n")

    def _answer(self, market: Market, question: dict[str, Any]) -> dict[str, Any]:
        verb = question.pop("verb")
        assert verb in VERBS
        try:
            return {"is": getattr(market, verb)(**question)}
        except RejectedError as refusal:
            return {"rejected": str(refusal)}


class Server(socketserver.ThreadingTCPServer):
    """A thread a client."""

    daemon_threads = True

    def __init__(self, market: Market) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.market = market


def main(ledger: str) -> None:
    """Serve until killed."""
    with Server(Market(Path(ledger))) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
