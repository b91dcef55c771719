"""What workers do. Each job gets a Tell and plain arguments, and reports an acknowledgement only once it has the receipt."""

from __future__ import annotations

import itertools

import eventstore
from eventstore import live, pointers, sqlite
from tests.faults.ledger import DOMAIN, acknowledgement, carry_out
from tests.faults.workers import Steps, Tell, die


def busy_settings() -> None:
    """Checkpoints and pointer files every few dozen events: a kill must be able to meet one."""
    sqlite.CHECKPOINT_PAGES = 40
    pointers.SPACING = live.SPACING = 100


def write_calls(tell: Tell, folder: str, name: str) -> None:
    """Open the store and write until killed."""
    busy_settings()
    with eventstore.open(folder) as store:
        domain = store.domain(DOMAIN)
        tell(open=domain.head().position)
        for number in itertools.count():
            call = f"{name}.{number}"
            tell(**acknowledgement(call, carry_out(domain, call)))


def live_whole(tell: Tell, folder: str, name: str, calls: int, die_in: str, at: int) -> None:
    """Open, write `calls` calls, close; die at step `at` of the part named `die_in`, if it has so many."""
    busy_settings()

    def part(name: str) -> Steps:
        return Steps(at if name == die_in else 0, die)

    with part("open") as opening:
        store = eventstore.open(folder)
        domain = store.domain(DOMAIN)
    with part("write") as writing:
        for number in range(calls):
            call = f"{name}.{number}"
            tell(**acknowledgement(call, carry_out(domain, call)))
    with part("close") as closing:
        store.close()
    tell(steps={"open": opening.count, "write": writing.count, "close": closing.count})
