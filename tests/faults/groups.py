"""Workers in whose main thread a Ctrl-C comes while several threads share a transaction, or while tasks of an event loop do."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import threading
import traceback
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import eventstore
from eventstore import aio
from tests.eventstore.crew import PATIENCE, Crew, Transactions
from tests.faults.jobs import busy_settings
from tests.faults.ledger import DOMAIN, acknowledgement, call_of, call_of_size, carry_out, carry_out_awaited
from tests.faults.splits import InterruptedCall, require_nothing_held
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
            crew = Crew()
            transactions.forget_arrivals()
            (_queue_two if leads else _queue_around)(tell, transactions, crew, step)
            call = InterruptedCall(domain, call_of_size(f"main-{step}", 1), step)
            if leads and not transactions.queue.arrivals.acquire(blocking=False):
                domain.group._call_next()  # interrupted before it queued up: those two were told by nobody that they may lead
            transactions.queue.arrivals.release()  # whoever waits for this thread's call to arrive need wait no longer
            call.require(partial(require_all_served, domain, crew), tell)
            if call.is_over(tell):
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


TASKS = 100
"""Calls that are under way at once."""


def write_among_cancellations(tell: Tell, folder: str, name: str) -> None:
    """Tasks write until killed, hundreds at once; each signal cancels some of them, whatever they are at."""
    busy_settings()
    asyncio.run(_write_in_waves(tell, folder, name))


async def _write_in_waves(tell: Tell, folder: str, name: str) -> None:
    chance, tasks, cancelled = random.Random(name), list[asyncio.Task[bool]](), set[asyncio.Task[bool]]()

    def interrupt() -> None:
        living = [task for task in tasks if not task.done() and task not in cancelled]
        for task in chance.sample(living, min(len(living), 3)):
            cancelled.add(task)  # a second time, it would not come to say what became of it
            task.cancel()

    for which in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(which, interrupt)
    async with await aio.open(folder) as store:
        domain = await store.domain(DOMAIN)
        tell(open=True)
        for wave in itertools.count():
            calls = [f"{name}.{wave}.{number}" for number in range(TASKS)]
            tasks[:] = [asyncio.create_task(_write(tell, domain, call)) for call in calls]
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            try:
                for call, answer in zip(calls, answers, strict=True):
                    assert isinstance(answer, bool | asyncio.CancelledError), f"{call}: {answer!r}"  # the latter before it began
                    assert _is_there(domain, call) == (answer is True), f"{call} was answered with {answer}, and that changed"
            except AssertionError:
                tell(failed=traceback.format_exc())  # here, as the next signal ends this process once the loop is closed
                raise
            # Nobody is left in the queue, and whoever was cancelled asks again: the store serves him, once.
            for call in [call for call, answer in zip(calls, answers, strict=True) if answer is not True]:
                tell(**acknowledgement(call, await carry_out_awaited(domain, call)))
            tell(interrupts=len(cancelled))
            cancelled.clear()


async def _write(tell: Tell, domain: aio.DomainStore, call: str) -> bool:
    """Make a call, and tell of it; whether it is in the log, which is settled once it is cancelled, too."""
    try:
        receipts = await carry_out_awaited(domain, call)
    except asyncio.CancelledError:
        return _is_there(domain, call)
    tell(**acknowledgement(call, receipts))
    return any(receipt.appended for receipt in receipts)  # a key that is not there needs no removal


def _is_there(domain: aio.DomainStore, call: str) -> bool:
    """Now, and not once a thread had the time to look: what is under way would be there by then."""
    return domain._live.ids.find(f"id of {call}") is not None
