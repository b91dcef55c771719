"""GroupCommit: the calls of threads and tasks that wait at the same time share one transaction and one fsync."""

from __future__ import annotations

import copy
import os
from collections import deque
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Protocol

from eventstore.clock import Clock
from eventstore.commit import Call, drain
from eventstore.errors import EngineError, EventStoreError, UnavailableError
from eventstore.failstop import FailStop
from eventstore.live import Live
from eventstore.log import Busy
from eventstore.metrics import Meter
from eventstore.model import Head, Receipt

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

    __slots__ = ("answer", "call", "inbox", "taken")

    def __init__(self, call: Call, inbox: Inbox) -> None:
        self.call = call
        self.answer: Answer | None = None
        self.inbox = inbox
        self.taken = False
        """Whether a transaction has it: from then on it cannot be taken back."""


class GroupCommit:
    """The one queue of a domain's writes. Whoever finds nobody writing commits, for himself and for all that wait.

    So a lone thread pays no hand-over, and the more callers there are, the more of them share a transaction. Calls are
    decided in the order they came; each gets its own receipts or its own error. Whoever has the right to write leads:
    everything that must not be interrupted half way happens while the log holds the signals back (RELIABILITY.md R6).
    """

    def __init__(self, live: Live, clock: Clock, failstop: FailStop, meter: Meter) -> None:
        self.live, self.clock, self.failstop, self.meter = live, clock, failstop, meter
        self._queue: deque[Waiting] = deque()
        live.log.released = self._call_next

    def commit(self, call: Call) -> list[Receipt]:
        """Wait for the receipts of `call`; commits itself if nobody else does. Raises what the call is answered with."""
        self.failstop.require_running()
        try:
            if not self._queue:
                try:
                    return self._commit_alone(call)
                except Busy:
                    pass
            return self._commit_with_others(call)
        finally:
            self.tell()

    def _commit_alone(self, call: Call) -> list[Receipt]:
        try:
            with self.live.log.writing(wait=False) as head:
                (answer,) = drain(self.live, head, self.clock, [call], self.meter)
        except EventStoreError as error:
            self.failstop.met(error)
            if isinstance(error, EngineError):
                error.event_id = call.event_id
            raise
        if isinstance(answer, EventStoreError):
            raise answer
        return answer

    def _commit_with_others(self, call: Call) -> list[Receipt]:
        told: SimpleQueue[Waiting] = SimpleQueue()
        waiting = Waiting(call, told)
        try:
            self._queue.append(waiting)
            while waiting.answer is None:
                if not self.lead(wait=False):
                    self._wait(waiting, told)
        except BaseException:
            if not self.withdraw(waiting):
                while waiting.taken and waiting.answer is None:
                    told.get()  # another thread has it in a transaction: the interrupt waits for the end of that
            raise
        return receipts_of(waiting)

    def _wait(self, waiting: Waiting, told: SimpleQueue[Waiting]) -> None:
        busy_timeout_ms = self.live.log.busy_timeout_ms
        try:
            told.get(timeout=busy_timeout_ms / 1_000)
        except Empty:
            if self.withdraw(waiting):
                raise UnavailableError(
                    f"domain {self.live.log.domain}: another thread writes for more than {busy_timeout_ms} ms",
                    holder=os.getpid(),
                    event_id=waiting.call.event_id,
                ) from None

    def tell(self) -> None:
        """Call the hooks, with no lock held."""
        if self.meter.untold:
            self.meter.tell()
        if self.failstop.cause is not None:
            self.failstop.announce()

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
        return not waiting.taken

    @property
    def queued(self) -> bool:
        """Whether anybody waits for a leader."""
        return bool(self._queue)

    def lead(self, *, wait: bool) -> bool:
        """Commit what waits, in one transaction. False if another thread writes and it is not to `wait`: that one tells the next."""
        taken: list[Waiting] = []
        try:
            with self.live.log.writing(wait=wait) as head:
                self._take(taken)
                if taken:
                    self._commit_taken(taken, head)
        except Busy:
            return False
        except EventStoreError as error:
            # The right to write was not given: nobody who waits now would fare better.
            self.failstop.met(error)
            self._take(taken)
            _answer(taken, [_own(error, waiting.call) for waiting in taken])
        return True

    def lead_on(self) -> None:
        """Commit until nothing waits."""
        while self._queue:
            self.lead(wait=True)

    def _take(self, taken: list[Waiting]) -> None:
        size = 0
        while self._queue and size < MOST_EVENTS:
            waiting = self._queue[0]
            taken.append(waiting)
            waiting.taken = True
            self._queue.popleft()
            size += len(waiting.call.intents) if isinstance(waiting.call.intents, Sequence) else 1

    def _commit_taken(self, taken: list[Waiting], head: Head) -> None:
        try:
            _answer(taken, drain(self.live, head, self.clock, [waiting.call for waiting in taken], self.meter))
        except EventStoreError as error:
            self.failstop.met(error)
            _answer(taken, [_own(error, waiting.call) for waiting in taken])
        except BaseException as error:
            _answer(taken, [waiting.answer or self._unknown(waiting.call, error) for waiting in taken])
            raise

    def _unknown(self, call: Call, cause: BaseException) -> EngineError:
        error = EngineError(
            f"domain {self.live.log.domain}: the thread that wrote this with its own was interrupted; retry with the same event_id",
            outcome="unknown",
            event_id=call.event_id,
        )
        error.__cause__ = cause
        return error

    def _call_next(self) -> None:
        """Tell whoever waits first that it is his turn. After each release: whoever found the log busy before it is in the queue."""
        try:
            first = self._queue[0]
        except IndexError:
            return
        first.inbox.put(first)

    def after_fork(self) -> None:
        """In a forked child: those who waited are threads of the parent."""
        self._queue.clear()


def _answer(taken: list[Waiting], answers: Sequence[Answer]) -> None:
    for waiting, answer in zip(taken, answers, strict=True):
        waiting.answer = answer
        waiting.inbox.put(waiting)


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
