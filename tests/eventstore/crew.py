"""Threads that write at the same time, on purpose: their calls are made to meet in one transaction."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import eventstore
from eventstore import Event
from eventstore.group import Waiting
from eventstore.log import nobody_waits
from eventstore.model import Durability

T = TypeVar("T")
PATIENCE = 60
"""Seconds after which something that should have happened is taken never to happen."""


class _Queue(deque[Waiting]):
    """A queue that says when somebody has queued up."""

    def __init__(self) -> None:
        super().__init__()
        self.arrivals = threading.Semaphore(0)

    def append(self, waiting: Waiting, /) -> None:
        super().append(waiting)
        self.arrivals.release()


class Transactions:
    """What a domain appends, transaction by transaction, and the power to hold one until others wait for the next."""

    def __init__(self, domain: eventstore.DomainStore) -> None:
        self.domain = domain
        self.sizes: list[int] = []
        """Events in each transaction."""
        self.durabilities: list[str | None] = []
        self.queue = domain.group._queue = _Queue()
        self.entered, self._go = threading.Event(), threading.Event()
        self._go.set()
        self.durability_before: Durability | None = None
        """Of the transaction that together() makes the others wait for."""
        log = domain.group.live.log
        append = log.append

        def noted(events: Sequence[Event], **options: Any) -> None:
            self.sizes.append(len(events))
            self.durabilities.append(options.get("durability"))
            go = self._go
            self.entered.set()
            assert go.wait(PATIENCE), "nobody let this transaction go on"
            append(events, **options)

        log.append = noted  # type: ignore[method-assign]

    def hold(self) -> None:
        """Let the next transaction wait, in its append, until let_go()."""
        self.entered.clear()
        self._go = threading.Event()

    def hold_next(self) -> None:
        """Let the transaction that is held go on, and hold the one after it."""
        go = self._go
        self.hold()
        go.set()

    def let_go(self) -> None:
        """Go on."""
        self._go.set()

    def arrived(self, calls: int = 1) -> None:
        """Wait until so many calls have queued up since the last look."""
        for _ in range(calls):
            assert self.queue.arrivals.acquire(timeout=PATIENCE), "a call did not queue up"

    @contextlib.contextmanager
    def silence(self) -> Iterator[None]:
        """Keep the right to write for the length of the block; whoever finds it taken is not told when it is given back."""
        log = self.domain.group.live.log
        released, log.released = log.released, nobody_waits
        try:
            with log.writing():
                yield
        finally:
            log.released = released

    def forget_arrivals(self) -> None:
        """Whoever has queued up so far is of no interest."""
        while self.queue.arrivals.acquire(blocking=False):
            continue

    def together(self, *calls: Callable[[], object]) -> list[Any]:
        """Make `calls` in threads, in their order, so that one transaction takes them all; what each returned or raised."""
        self.hold()
        self.forget_arrivals()
        crew = Crew()
        crew.start(lambda: self.domain.write_value("the one before", 0, durability=self.durability_before))
        assert self.entered.wait(PATIENCE)
        for call in calls:
            crew.start(call)
            self.arrived()
        del self.sizes[:], self.durabilities[:]
        self.let_go()
        return crew.outcomes()[1:]


class Crew:
    """Threads, and what became of them."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._outcomes: dict[int, Any] = {}

    def start(self, call: Callable[[], object]) -> threading.Thread:
        """Call it in a thread of its own."""
        number = len(self._threads)

        def work() -> None:
            try:
                self._outcomes[number] = call()
            except BaseException as error:  # noqa: BLE001  whatever it is, the test looks at it
                self._outcomes[number] = error

        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def outcomes(self) -> list[Any]:
        """What each returned or raised, once all have ended."""
        for thread in self._threads:
            thread.join(PATIENCE)
        assert not [thread for thread in self._threads if thread.is_alive()], "a thread waits for ever"
        return [self._outcomes[number] for number in range(len(self._threads))]

    def results(self) -> list[Any]:
        """What each returned; raises what one of them raised."""
        outcomes = self.outcomes()
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return outcomes
