"""Workers in whose main thread a Ctrl-C comes while several threads share a transaction."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import eventstore
from tests.eventstore.crew import PATIENCE, Crew, Transactions
from tests.faults.ledger import DOMAIN, acknowledgement, call_of, call_of_size, carry_out
from tests.faults.splits import interrupting, require_nothing_held
from tests.faults.workers import Tell


def told_of(tell: Tell, domain: eventstore.DomainStore, call: str) -> Callable[[], None]:
    """Makes a call, again if it was not said whether it was written, and tells of it."""

    def work() -> None:
        try:
            receipts = carry_out(domain, call, retry=True)
        except eventstore.EngineError as error:
            if (error.outcome, error.event_id) != ("unknown", f"id of {call}"):
                raise
            receipts = carry_out(domain, call, retry=True)
        tell(**acknowledgement(call, receipts))

    return work


def require_all_served(domain: eventstore.DomainStore, crew: Crew) -> None:
    """Nobody waits, nobody writes, nothing is queued."""
    crew.results()
    assert all(waiting.answer is not None for waiting in domain.group._queue), "somebody is queued"
    require_nothing_held(domain)


def interrupt_each_step(tell: Tell, folder: str, first: int, leads: bool) -> None:
    """Ctrl-C at step `first` of a call of the main thread, at the next one, and so on until a call has no more steps.

    The main thread `leads` for two others who are queued already; or it waits behind another's transaction, with a third behind it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with eventstore.open(folder) as store:
        transactions = Transactions(store.domain(DOMAIN))
        domain = transactions.domain
        for step in itertools.count(first):
            crew, call = Crew(), call_of_size(f"main-{step}", 1)
            transactions.forget_arrivals()
            (_queue_two if leads else _queue_around)(tell, transactions, crew, step)
            steps = interrupting(step)
            interrupted, receipts = False, None
            try:
                with steps:
                    receipts = carry_out(domain, call, retry=True)
            except KeyboardInterrupt:
                interrupted = True
            if leads and not transactions.queue.arrivals.acquire(blocking=False):
                domain.group._call_next()  # interrupted before it queued up: those two were told by nobody that they may lead
            transactions.queue.arrivals.release()  # whoever waits for this thread's call to arrive need wait no longer
            try:
                require_all_served(domain, crew)
            except AssertionError as error:
                tell(step=step, left=str(error), after=steps.place)
                os._exit(0)  # who goes on here may wait for ever
            again = carry_out(domain, call, retry=True)
            assert receipts in (None, again), "a retry must give the first answer"
            tell(interrupted=interrupted, **acknowledgement(call, again))
            if step > steps.count and not interrupted:
                return


def _queue_two(tell: Tell, transactions: Transactions, crew: Crew, step: int) -> None:
    with transactions.silence():  # so that they find somebody writing, who will not tell them when he stops
        for number in range(2):
            crew.start(told_of(tell, transactions.domain, call_of_size(f"queued-{step}-{number}", 1)))
            transactions.arrived()


def _queue_around(tell: Tell, transactions: Transactions, crew: Crew, step: int) -> None:
    transactions.hold()
    crew.start(told_of(tell, transactions.domain, call_of_size(f"before-{step}", 1)))
    assert transactions.entered.wait(PATIENCE)

    def behind() -> None:
        transactions.arrived()
        crew_behind = Crew()
        crew_behind.start(told_of(tell, transactions.domain, call_of_size(f"behind-{step}", 1)))
        transactions.arrived()
        transactions.let_go()
        crew_behind.results()

    crew.start(behind)


def interrupt_a_follower(tell: Tell, folder: str) -> None:
    """Another thread has the main thread's call in its transaction: the interrupt waits for the end of that, and the event is there."""
    caught, back = threading.Event(), threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        caught.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    main = threading.get_ident()
    with eventstore.open(folder) as store:
        transactions = Transactions(store.domain(DOMAIN))
        domain = transactions.domain
        crew = Crew()
        transactions.hold()
        crew.start(told_of(tell, domain, call_of_size("first", 1)))
        assert transactions.entered.wait(PATIENCE)
        crew.start(told_of(tell, domain, call_of_size("leader", 1)))
        transactions.arrived()

        def meanwhile() -> None:
            transactions.arrived()  # the main thread's call; now the second one leads, with it
            transactions.hold_next()
            assert transactions.entered.wait(PATIENCE)
            signal.pthread_kill(main, signal.SIGINT)
            assert caught.wait(PATIENCE)
            tell(waited=not back.wait(0.2))
            transactions.let_go()

        crew.start(meanwhile)
        call = call_of_size("follower", 1)
        try:
            carry_out(domain, call, retry=True)
            tell(interrupted=False)
        except KeyboardInterrupt:
            back.set()
            tell(interrupted=True, there=call in [call_of(event) for event in domain._live.log.read()])
        crew.results()
        tell(**acknowledgement(call, carry_out(domain, call, retry=True)))


def interrupt_a_transaction(tell: Tell, folder: str) -> None:
    """Ctrl-C while the main thread commits for two others: it waits for the end of the transaction, and they get their receipts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with eventstore.open(folder) as store:
        transactions = Transactions(store.domain(DOMAIN))
        domain = transactions.domain
        append = domain.group.live.log.append

        def interrupted(*arguments: Any, **options: Any) -> None:
            domain.group.live.log.append = append  # type: ignore[method-assign]
            append(*arguments, **options)
            signal.raise_signal(signal.SIGINT)

        crew = Crew()
        with transactions.silence():
            for number in range(2):
                crew.start(lambda number=number: carry_out(domain, call_of_size(f"queued-{number}", 6)))  # type: ignore[misc]
                transactions.arrived()
        domain.group.live.log.append = interrupted  # type: ignore[method-assign]
        try:
            domain.write_value("key", 1)
            tell(interrupted=False)
        except KeyboardInterrupt:
            tell(interrupted=True)
        tell(positions=[receipt.position for receipts in crew.results() for receipt in receipts], key=domain.get("key"))
