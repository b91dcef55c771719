"""GroupCommit: the calls of threads and tasks that wait at the same time share one transaction and one fsync."""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any, Protocol

from eventstore.clock import Clock
from eventstore.commit import Call, drain
from eventstore.errors import ConfigError, EngineError, EventStoreError
from eventstore.failstop import FailStop
from eventstore.live import Live
from eventstore.metrics import Meter
from eventstore.model import Receipt

MOST_EVENTS = 10_000
"""Events after which a transaction takes no further call: those that wait longer than it takes would only wait longer."""

Answer = list[Receipt] | BaseException


class Inbox(Protocol):
    """Where whoever waits is told: that there is an answer, or that it is his turn to commit. Called by any thread."""

    def put(self, item: Waiting, /) -> None:
        """Look at its `answer`; without one, try to lead."""
        ...


class Waiting:
    """A call in the queue, its answer once there is one, and where its caller waits."""

    __slots__ = ("answer", "call", "inbox")

    def __init__(self, call: Call, inbox: Inbox) -> None:
        self.call = call
        self.answer: Answer | None = None
        self.inbox = inbox


class GroupCommit:
    """The one queue of a domain's writes. Whoever finds nobody committing commits, for himself and for all that wait.

    So a lone thread pays no hand-over, and the more callers there are, the more of them share a transaction. Calls are
    decided in the order they came; each gets its own receipts or its own error.
    """

    def __init__(self, live: Live, clock: Clock, failstop: FailStop, meter: Meter) -> None:
        self.live, self.clock, self.failstop, self.meter = live, clock, failstop, meter
        self._queue: deque[Waiting] = deque()
        self._taken: list[Waiting] = []
        self._leading: Any = threading.RLock()

    def commit(self, call: Call) -> list[Receipt]:
        """Wait for the receipts of `call`; commits itself if nobody else does. Raises what the call is answered with."""
        self.failstop.require_running()
        if self._leading._is_owned():
            raise ConfigError(f"domain {self.live.log.domain}: a write inside another write of the same domain")
        told: SimpleQueue[Waiting] = SimpleQueue()
        waiting = Waiting(call, told)
        try:
            self._queue.append(waiting)
            while waiting.answer is None:
                if not self.lead():
                    told.get()
        except BaseException:
            # An interrupt, between any two steps: what was taken is asked, not remembered.
            if self._leading._is_owned():
                self._let_go()
            self._call_next()
            if not self.withdraw(waiting):
                while waiting.answer is None and waiting in self._taken:
                    told.get()  # another thread has it in a transaction: the interrupt waits for the end of that
            raise
        finally:
            if self.failstop.cause is not None:
                self.failstop.announce()
        return receipts_of(waiting)

    def submit(self, waiting: Waiting) -> None:
        """Queue a call for the next lead(). Raises HaltedError."""
        self.failstop.require_running()
        self._queue.append(waiting)

    def withdraw(self, waiting: Waiting) -> bool:
        """Take a call back; True if it certainly was not, and will not be, written."""
        try:
            self._queue.remove(waiting)
        except ValueError:
            return False
        return True

    def lead(self) -> bool:
        """Commit what waits, in one transaction; False if another thread does so already, and will tell the next."""
        if not self._leading.acquire(blocking=False):
            return False
        try:
            self._take()
            if self._taken:
                self._commit_taken()
        finally:
            self._let_go()
            self._call_next()
        return True

    @property
    def queued(self) -> bool:
        """Whether anybody waits for a leader."""
        return bool(self._queue)

    def lead_on(self) -> None:
        """Commit until nothing waits, or another thread leads."""
        while self._queue and self.lead():
            pass

    def _take(self) -> None:
        size = 0
        while self._queue and size < MOST_EVENTS:
            waiting = self._queue[0]
            # First into the list, then out of the queue: an interrupt in between must not lose it.
            if waiting.answer is None and waiting not in self._taken[-1:]:
                self._taken.append(waiting)
                size += len(waiting.call.intents) if isinstance(waiting.call.intents, Sequence) else 1
            self._queue.popleft()

    def _commit_taken(self) -> None:
        try:
            answers = drain(self.live, self.clock, [waiting.call for waiting in self._taken], self.meter)
        except EventStoreError as error:
            self.failstop.met(error)
            for waiting in self._taken:
                waiting.answer = _own(error, waiting.call)
        else:
            for waiting, answer in zip(self._taken, answers, strict=True):
                waiting.answer = answer

    def _let_go(self) -> None:
        """Tell everybody who was in the transaction, and let the next one lead."""
        for waiting in self._taken:
            if waiting.answer is None:
                waiting.answer = EngineError(
                    f"domain {self.live.log.domain}: the thread that committed this write with its own was interrupted;"
                    " retry with the same event_id",
                    outcome="unknown",
                    event_id=waiting.call.event_id,
                )
            waiting.inbox.put(waiting)
        self._taken.clear()
        self._leading.release()

    def _call_next(self) -> None:
        """Tell whoever waits first that it is his turn. After _let_go(): who queued up before that and failed to lead is found here."""
        try:
            first = self._queue[0]
        except IndexError:
            return
        first.inbox.put(first)

    def after_fork(self) -> None:
        """In a forked child: those who waited are threads of the parent."""
        self._leading = threading.RLock()
        self._queue.clear()
        self._taken.clear()


def receipts_of(waiting: Waiting) -> list[Receipt]:
    """The receipts that a call was answered with. Raises the error that it was answered with."""
    if isinstance(waiting.answer, BaseException):
        raise waiting.answer
    assert waiting.answer is not None
    return waiting.answer


def _own(error: EventStoreError, call: Call) -> EventStoreError:
    """`error`, which met a whole transaction, for one of its callers: threads must not share a traceback."""
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    if isinstance(own, EngineError):
        own.event_id = call.event_id
    return own
