"""Ctrl-C at any moment: nothing is held or half done afterwards, and a retry with the event_id is exact."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults import groups, splits
from tests.faults.ledger import Ledger
from tests.faults.workers import Job, Server

SIGNALS = 250
ENOUGH = 20
"""Interrupted calls, on whatever machine, without which a test proves nothing."""
MOST = 20
"""Left-behinds to report at most."""


def require_nothing_left(server: Server, job: Job, folder: Path, **arguments: Any) -> None:
    """Interrupt `job` at every step; where something is left behind, note it and go on with the next step in a new process."""
    ledger = Ledger()
    left: list[str] = []
    first, interrupted = 1, 0
    while len(left) < MOST:
        told = server.run(job, folder=str(folder), first=first, **arguments)
        for said in told:
            ledger.take(said)
        interrupted += sum(said.get("interrupted", False) for said in told)
        if "left" not in told[-1]:
            break
        left.append(f"step {told[-1]['step']}, after {told[-1]['after']}: {told[-1]['left']}")
        first = told[-1]["step"] + 1
    ledger.require_kept(folder)
    assert interrupted > ENOUGH, "hardly a call was interrupted"
    assert not left, "\n".join(left)


@pytest.mark.parametrize("writes", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_an_interrupt_at_every_step_of_a_write_leaves_nothing_behind(server: Server, tmp_path: Path, writes: int) -> None:
    require_nothing_left(server, splits.interrupt_each_step, tmp_path / "store", writes=writes)


@pytest.mark.parametrize("stride", [pytest.param(9, marks=pytest.mark.faults), pytest.param(3, marks=pytest.mark.long)])
def test_an_interrupt_while_a_store_is_opened_or_closed_leaves_nothing_behind(server: Server, tmp_path: Path, stride: int) -> None:
    require_nothing_left(server, splits.interrupt_opening, tmp_path / "store", stride=stride)


@pytest.mark.faults
@pytest.mark.parametrize("leads", [True, False], ids=["a leader", "one that waits"])
def test_an_interrupt_at_every_step_of_a_shared_write_leaves_nobody_waiting(server: Server, tmp_path: Path, leads: bool) -> None:
    require_nothing_left(server, groups.interrupt_each_step, tmp_path / "store", leads=leads)


def test_an_interrupt_waits_for_the_transaction_that_another_thread_makes(server: Server, tmp_path: Path) -> None:
    told = server.run(groups.interrupt_a_follower, folder=str(tmp_path / "store"))
    ledger = Ledger()
    for said in told:
        ledger.take(said)
    ledger.require_kept(tmp_path / "store")
    assert {"waited": True} in told
    assert {"interrupted": True, "there": True} in told


def test_an_interrupt_of_the_leader_costs_nobody_else_his_receipts(server: Server, tmp_path: Path) -> None:
    interrupted, told = server.run(groups.interrupt_a_transaction, folder=str(tmp_path / "store"))
    assert interrupted == {"interrupted": True}
    assert told == {"positions": list(range(1, 13)), "key": 1}


def require_a_storm_survived(server: Server, folder: Path, seed: str, seconds: float, job: Job = splits.write_under_fire) -> None:
    """Signals at random moments for so long, and until they interrupted enough; then death; every acknowledged call is there, once."""
    ledger, chance, interrupts = Ledger(), random.Random(seed), 0
    writer = server.start(job, folder=str(folder), name=seed)
    writer.told()
    end = time.monotonic() + seconds
    while time.monotonic() < end or interrupts <= ENOUGH:
        for _ in range(SIGNALS):
            writer.listen(chance.uniform(0, 0.004))
            writer.signal(chance.choice([signal.SIGINT, signal.SIGTERM]))
        # One that is slow comes to say what the signals did once there are no more for a while.
        for said in (writer.told(), *writer.heard()):
            ledger.take(said)
            interrupts += said.get("interrupts", 0)
    writer.kill()
    for said in writer.rest():
        ledger.take(said)
    ledger.require_kept(folder)


def test_a_storm_of_interrupts_loses_and_doubles_nothing(server: Server, tmp_path: Path, seed: str) -> None:
    require_a_storm_survived(server, tmp_path / "store", seed, 0)


@pytest.mark.faults
def test_a_storm_of_five_seconds_loses_and_doubles_nothing(server: Server, tmp_path: Path, seed: str) -> None:
    require_a_storm_survived(server, tmp_path / "store", seed, 5)


@pytest.mark.parametrize("seconds", [0, pytest.param(5, marks=pytest.mark.faults)])
def test_a_storm_of_cancellations_loses_and_doubles_nothing(server: Server, tmp_path: Path, seed: str, seconds: float) -> None:
    """Each signal cancels tasks that share transactions; whoever was not cancelled has his receipts, whoever was asks again."""
    require_a_storm_survived(server, tmp_path / "store", seed, seconds, groups.write_among_cancellations)
