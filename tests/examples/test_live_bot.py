"""The live bot is killed at random and at the worst of moments; in the end every order was executed exactly once.

The kills follow from a seed, which a failure names: EXAMPLES_SEED=<seed> repeats them, as far as a machine's own timing allows.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import secrets
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import eventstore
from tests.examples.exchange import PATIENCE, Exchange, Fill, Order, Tick, price_cents, read_ledger, rejects
from tests.examples.live_bot import POSITIONS, SYMBOL, Position, decide

ROOT = Path(__file__).parents[2]
LIVE, NAIVE = "tests.examples.live_bot", "tests.examples.naive_bot"
WORST = {"recorded, not executed", "executed, not booked", "booked, not acknowledged"}


@pytest.fixture
def seed() -> str:
    """What all kills of a test follow from."""
    return os.environ.get("EXAMPLES_SEED") or secrets.token_hex(4)


class Process:
    """A program of this folder that runs, and says lines."""

    def __init__(self, module: str, *arguments: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EVENTSTORE_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._said = self._process.stdout

    def line(self) -> str:
        """The next line it says."""
        assert select.select([self._said], [], [], PATIENCE)[0], "it says nothing"
        line = self._said.readline()
        assert line, f"it ended: {self.end()}"
        return line

    def live_on(self, seconds: float) -> None:
        """Let it run for so long, or to its end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.communicate(timeout=PATIENCE)

    def end(self) -> tuple[int, str]:
        """Its exit code and what it said to stderr, once it ends by itself."""
        _, complaint = self._process.communicate(timeout=PATIENCE)
        return self._process.returncode, complaint


class Ordeal:
    """One store, one exchange, and a bot that is killed again and again."""

    def __init__(self, folder: Path, bot: str, seed: str) -> None:
        self.chance, self.seed = random.Random(seed), seed
        self.phases: Counter[str] = Counter()
        """Where the kills found the bot."""
        self.kills = 0
        self._bot, self.store, self.ledger = bot, folder / "store", folder / "ledger"
        eventstore.open(self.store).close()
        self._open_exchange()

    def _open_exchange(self) -> None:
        self._exchange = Process("tests.examples.exchange", str(self.ledger))
        self.port = int(self._exchange.line())
        self.control = Exchange(self.port)

    def start(self) -> Process:
        """The bot, from where it was."""
        return Process(self._bot, str(self.store), str(self.port))

    def kill(self, bot: Process) -> None:
        """End it, and look where it was."""
        bot.kill()
        self.note_kill()

    def note_kill(self) -> None:
        """Look where it was."""
        self.kills += 1
        self.phases[self._phase()] += 1

    def _phase(self) -> str:
        executed = {fill.order_id for fill in read_ledger(self.ledger)}
        with eventstore.open(self.store, read_only=True) as store:
            uncertain = [intent.event_id for intent in store.uncertain()]
            position = store.domain(POSITIONS).get(SYMBOL, Position()) if "positions" in store.domains() else Position()
        if not uncertain:
            return "nothing open"
        (order_id,) = uncertain
        if order_id not in executed:
            return "recorded, not executed"
        return "executed, not booked" if position.tick < int(order_id.rpartition("-")[2]) else "booked, not acknowledged"

    # Ways to die.

    def at_random(self) -> None:
        """Anywhere: while it starts, or in the middle of its work."""
        bot = self.start()
        if self.chance.random() < 0.25:
            bot.live_on(self.chance.uniform(0, 0.4))
        else:
            bot.line()
            bot.live_on(self.chance.uniform(0, 0.08))
        self.kill(bot)

    def before_it_is_executed(self) -> None:
        """The order is on its way; it arrives after its sender died, at times after the next one asked for it."""
        self.control.ask(verb="fault", what="hold before")
        bot = self.start()
        assert self.control.ask(verb="held")
        self.kill(bot)
        if self.chance.random() < 0.5:
            self.start_and_kill()
        self.control.ask(verb="release")

    def before_it_is_answered(self) -> None:
        """The order is executed, and its sender never hears of it."""
        self.control.ask(verb="fault", what="hold after")
        bot = self.start()
        assert self.control.ask(verb="held")
        self.kill(bot)
        self.control.ask(verb="release")

    def before_it_is_acknowledged(self) -> None:
        """The order is executed and booked, and still uncertain: somebody holds the lock of the intents."""
        self.control.ask(verb="fault", what="hold after")
        bot = self.start()
        assert self.control.ask(verb="held")
        newest = read_ledger(self.ledger)[-1].order.tick
        with (self.store / "logs" / "intents" / "head").open("r+b") as lock, eventstore.open(self.store, read_only=True) as store:
            positions = store.domain(POSITIONS)
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.control.ask(verb="release")
            wait_until(lambda: positions.get(SYMBOL, Position()).tick == newest)
            bot.kill()  # the lock is given back after it
        self.note_kill()

    def after_the_line_was_dropped(self) -> None:
        """The order is executed, the connection breaks: the bot ends by itself, and has noted why."""
        self.control.ask(verb="fault", what="drop after")
        code, complaint = self.start().end()
        assert (code, "hung up" in complaint) == (1, True), complaint
        with eventstore.open(self.store, read_only=True) as store:
            assert [str(intent.error).split(":")[0] for intent in store.uncertain()] == ["ConnectionResetError"]

    def after_the_exchange_died(self) -> None:
        """The exchange is killed with an executed order, and comes back with its ledger."""
        self.control.ask(verb="fault", what="hold after")
        bot = self.start()
        assert self.control.ask(verb="held")
        self.close()
        assert bot.end()[0] == 1
        self._open_exchange()

    def start_and_kill(self) -> None:
        """A life that gets as far as trading."""
        bot = self.start()
        bot.line()
        self.kill(bot)

    # The end.

    def finish(self) -> int:
        """Let the bot trade to the close of the market; gives the last tick."""
        last: int = self.control.ask(verb="close", more=30)
        code, complaint = self.start().end()
        assert code == 0, complaint
        return last

    def close(self) -> None:
        """End the exchange."""
        self._exchange.kill()
        self.control.__exit__()


@contextlib.contextmanager
def ordeal(folder: Path, bot: str, seed: str) -> Iterator[Ordeal]:
    """An ordeal that names its seed if it fails."""
    trial = Ordeal(folder, bot, seed)
    try:
        yield trial
    except BaseException as error:
        error.add_note(f"EXAMPLES_SEED={seed}, after {trial.kills} kills: {dict(trial.phases)}")
        raise
    finally:
        trial.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.002)


def intended(last: int) -> tuple[list[tuple[int, str, int]], Position]:
    """What the strategy wants of all ticks up to `last`, as (tick, side, quantity), and what it holds then, without any crash."""
    orders: list[tuple[int, str, int]] = []
    position = Position()
    for number in range(1, last + 1):
        order = decide(position, Tick(number, price_cents(number)))
        if order is not None and not rejects(order):
            orders.append((order.tick, order.side, order.quantity))
            position = position.after(Fill("", order, price_cents(number)))
    return orders, position


def require_exactly_once(trial: Ordeal, last: int) -> None:
    """The exchange's ledger against what was intended, the positions against the ledger, and the store against itself."""
    fills = read_ledger(trial.ledger)
    executed = [(fill.order.tick, fill.order.side, fill.order.quantity) for fill in fills]
    twice = [order for order, times in Counter(executed).items() if times > 1]
    assert twice == [], "executed more than once"
    orders, position = intended(last)
    assert sorted(executed) == orders
    booked = Position()
    for fill in fills:
        booked = booked.after(fill)
    with eventstore.open(trial.store, read_only=True) as store:
        assert store.domain(POSITIONS).read_value(SYMBOL) == booked == position
        assert store.uncertain() == []
        statuses = Counter(record["status"] for record in store.domain("intents").values())
        assert (statuses["done"], statuses["pending"]) == (len(orders), 0)
        assert statuses["failed"] > 0, "no order was rejected: that part of the bot was not tried"
        assert store.verify().ok


def test_a_fault_is_for_the_next_order_and_not_for_one_of_a_dead_client(tmp_path: Path, seed: str) -> None:
    """Else a kill would be noted for a bot that was never held."""
    with ordeal(tmp_path, LIVE, seed) as trial:
        for number in range(1, 7):
            trial.control.ask(verb="fault", what="hold before")
            with Exchange(trial.port) as client:
                client.send(verb="place", order_id=str(number), order={"tick": number, "side": "buy", "quantity": 1})
                assert trial.control.ask(verb="held")
            trial.control.ask(verb="release")
            trial.control.ask(verb="fault", what="drop after")
            assert read_ledger(trial.ledger)[-1].order_id == str(number)
            with Exchange(trial.port) as client, pytest.raises(ConnectionResetError):
                client.place(f"next-{number}", Order(number, "buy", 1))


def test_killed_at_each_of_the_worst_moments_every_order_is_executed_exactly_once(tmp_path: Path, seed: str) -> None:
    with ordeal(tmp_path, LIVE, seed) as trial:
        trial.before_it_is_executed()
        trial.before_it_is_answered()
        trial.before_it_is_acknowledged()
        trial.after_the_line_was_dropped()
        trial.at_random()
        require_exactly_once(trial, trial.finish())
        assert trial.phases.keys() >= WORST


def test_a_second_bot_is_not_let_in_and_the_first_trades_on(tmp_path: Path, seed: str) -> None:
    """It would take the orders of the first for left behind, and settle them beside it."""
    with ordeal(tmp_path, LIVE, seed) as trial:
        trial.control.ask(verb="fault", what="hold before")
        first = trial.start()
        assert trial.control.ask(verb="held")
        code, complaint = trial.start().end()
        assert (code, "OwnedError" in complaint) == (1, True), complaint
        trial.control.ask(verb="release")
        last: int = trial.control.ask(verb="close", more=30)
        assert first.end() == (0, "")
        require_exactly_once(trial, last)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_killed_fifty_times_every_order_is_executed_exactly_once(tmp_path: Path, seed: str) -> None:
    with ordeal(tmp_path, LIVE, seed) as trial:
        ways = [trial.before_it_is_executed, trial.before_it_is_answered, trial.before_it_is_acknowledged] * 6
        ways += [trial.after_the_line_was_dropped, trial.after_the_exchange_died] * 2
        ways += [trial.at_random] * 32
        trial.chance.shuffle(ways)
        for way in ways:
            way()
        assert trial.kills >= 50
        require_exactly_once(trial, trial.finish())
        assert trial.phases.keys() >= WORST


def test_a_bot_without_intents_is_caught(tmp_path: Path, seed: str) -> None:
    """The canary: a test that this one passes proves nothing about the other."""
    with ordeal(tmp_path, NAIVE, seed) as trial:
        trial.before_it_is_answered()
        with pytest.raises(AssertionError, match="executed more than once"):
            require_exactly_once(trial, trial.finish())
