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
from eventstore.errors import ConfigError, CorruptionError, EngineError, EventStoreError
from eventstore.failstop import FailStop
from eventstore.live import Live
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

    def __init__(self, live: Live, clock: Clock, failstop: FailStop) -> None:
        self.live, self.clock, self.failstop = live, clock, failstop
        self._queue: deque[Waiting] = deque()
        self._taken: list[Waiting] = []
        self._leading: Any = threading.RLock()
        self._moving = threading.Lock()
        """Held while calls go from the queue to the transaction: who takes one back finds it in the one or in the other."""
        live.on_damage = self._damaged

    def commit(self, call: Call) -> list[Receipt]:
        """Wait for the receipts of `call`; commits itself if nobody else does. Raises what the call is answered with."""
        self.failstop.require_running(call.event_id)
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
            self._give_up(waiting, told)
            raise
        finally:
            if self.failstop.cause is not None:
                self.failstop.announce()
        return receipts_of(waiting)

    def _give_up(self, waiting: Waiting, told: SimpleQueue[Waiting]) -> None:
        """An interrupt, between any two steps of commit(): what was taken is asked, not remembered."""
        if self._leading._is_owned():
            self._let_go()
        withdrawn = self.withdraw(waiting)
        self._call_next()  # only now: it might have been this one's turn, and whoever is next must learn of it
        while not withdrawn and waiting.answer is None and waiting in self._taken:
            told.get()  # another thread has it in a transaction: the interrupt waits for the end of that

    def submit(self, waiting: Waiting) -> None:
        """Queue a call for the next lead(). Raises HaltedError."""
        self.failstop.require_running(waiting.call.event_id)
        self._queue.append(waiting)

    def withdraw(self, waiting: Waiting) -> bool:
        """Take a call back; True if it certainly was not, and will not be, written."""
        with self._moving:
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
        with self._moving:
            while self._queue and size < MOST_EVENTS:
                waiting = self._queue[0]
                # First into the list, then out of the queue: an interrupt in between must not lose it.
                if waiting.answer is None:
                    self._taken.append(waiting)
                    size += len(waiting.call.intents) if isinstance(waiting.call.intents, Sequence) else 1
                self._queue.popleft()

    def _commit_taken(self) -> None:
        halted = self.failstop.refusal()
        if halted is not None:  # since they queued up
            self._refuse(halted)
            return
        try:
            self._drain()
        except EventStoreError as error:
            if not self.live.lenient:  # a store that was opened read-only never wrote, and has nothing to stop
                self.failstop.met(error)
            self._refuse(error)

    def _drain(self) -> None:
        try:
            drain(self.live, self.clock, [waiting.call for waiting in self._taken], self._tell)
        except OSError as error:
            if error.errno is None:
                raise  # not the system's: a TimeoutError, say, that somebody's signal handler raised
            raise EngineError(
                f"domain {self.live.log.domain}: {error}; look at the disk, then retry with the same event_id", outcome="unknown"
            ) from error

    def _damaged(self, error: CorruptionError) -> None:
        """A reader found that nothing can be appended here any more."""
        self.failstop.met(error)
        self.failstop.announce()

    def _tell(self, answers: Sequence[Answer]) -> None:
        for waiting, answer in zip(self._taken, answers, strict=True):
            if isinstance(answer, EngineError):
                answer.event_id = waiting.call.event_id
            waiting.answer = answer

    def _refuse(self, error: EventStoreError) -> None:
        """Answer with `error` whoever has no answer yet: after the commit, all have."""
        for waiting in self._taken:
            if waiting.answer is None:
                waiting.answer = _own(error, waiting.call)

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
        if not self._queue:
            return
        with self._moving:
            while self._queue and self._queue[0].answer is not None:
                self._queue.popleft()  # an interrupted leader's: whoever waited for it is gone, and would tell nobody
            first = self._queue[0] if self._queue else None
        if first is not None:
            first.inbox.put(first)

    def after_fork(self) -> None:
        """In a forked child: those who waited are threads of the parent."""
        self._leading, self._moving = threading.RLock(), threading.Lock()
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
