"""Ctrl-C at any moment: nothing is held or half done afterwards, and a retry with the event_id is exact."""

from __future__ import annotations

import random
import signal
from pathlib import Path

from tests.faults import splits
from tests.faults.ledger import Ledger
from tests.faults.workers import Server

SIGNALS = 250
MOST = 20
"""Left-behinds to report at most."""


def test_an_interrupt_at_every_step_of_a_write_leaves_nothing_behind(server: Server, tmp_path: Path) -> None:
    ledger = Ledger()
    left: list[dict[str, object]] = []
    first, interrupted = 1, 0
    while len(left) < MOST:
        told = server.run(splits.interrupt_each_step, folder=str(tmp_path / "store"), first=first)
        for said in told:
            ledger.take(said)
        interrupted += sum(said.get("interrupted", False) for said in told)
        if "left" not in told[-1]:
            break
        left.append(told[-1])
        first = told[-1]["step"] + 1
    ledger.require_kept(tmp_path / "store")
    assert interrupted > 100, "hardly a call was interrupted"
    assert left == []


def test_a_storm_of_interrupts_loses_and_doubles_nothing(server: Server, tmp_path: Path, seed: str) -> None:
    ledger, chance = Ledger(), random.Random(seed)
    writer = server.start(splits.write_under_fire, folder=str(tmp_path / "store"), name=seed)
    writer.told()
    for _ in range(SIGNALS):
        writer.listen(chance.uniform(0, 0.004))
        writer.signal(chance.choice([signal.SIGINT, signal.SIGTERM]))
    writer.listen(0.01)
    writer.kill()
    told = writer.rest()
    for said in told:
        ledger.take(said)
    ledger.require_kept(tmp_path / "store")
    assert sum(said["interrupts"] for said in told) > SIGNALS // 10, f"FAULTS_SEED={seed}: hardly a call was interrupted"
