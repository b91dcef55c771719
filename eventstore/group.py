"""GroupCommit: the calls of threads and tasks that wait at the same time share one transaction and one fsync."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Protocol

from eventstore.clock import Clock, now_us
from eventstore.commit import Call, drain
from eventstore.compaction import SealPolicy, SealReport, prepare_seal, record_in, report_of, seal_log
from eventstore.errors import ConfigError, CorruptionError, EngineError, EventStoreError, UnavailableError
from eventstore.failstop import FailStop
from eventstore.live import Live
from eventstore.log import Busy
from eventstore.metrics import Meter
from eventstore.model import Head, Receipt
from eventstore.projections.key_states import KeyStates

_log = logging.getLogger("eventstore")

MOST_EVENTS = 10_000
"""Events after which a transaction takes no further call: those that wait longer than it takes would only wait longer."""

_SEAL_AGAIN_S = 60
"""After a seal that the policy asked for and that could not be made, seconds until the next attempt."""

_NEVER = SealPolicy()

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

    def __init__(self, live: Live, clock: Clock, failstop: FailStop, meter: Meter, policy: SealPolicy = _NEVER) -> None:
        self.live, self.clock, self.failstop, self.meter, self.policy = live, clock, failstop, meter, policy
        self._seals = policy != _NEVER
        self._no_seal_before_s = 0.0
        self._to_seal = False
        """Whether the policy asks for a seal that nobody has begun to make."""
        self._queue: deque[Waiting] = deque()
        self._moving = threading.Lock()
        """Held while calls go from the queue to a transaction: whoever takes one back finds it in the one or in the other."""
        self._changing: set[int] = set()
        """The threads in which a function that update_value() was given makes the new value."""
        live.log.released = self._call_next
        live.on_damage = self._damaged

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """While a new value is made from the one that stands: what this thread wrote would make it start again, for ever."""
        self.require_no_change()
        thread = threading.get_ident()
        self._changing.add(thread)
        try:
            yield
        finally:
            self._changing.discard(thread)

    def require_no_change(self) -> None:
        """Raise ConfigError for a write inside changing()."""
        if self._changing and threading.get_ident() in self._changing:
            raise ConfigError(
                f"domain {self.live.log.domain}: the function given to update_value writes to the domain that it is asked for a value of;"
                " give back the new value, and write what else is to be written before or after"
            )

    def commit(self, call: Call) -> list[Receipt]:
        """Wait for the receipts of `call`; commits itself if nobody else does. Raises what the call is answered with."""
        self.require_no_change()
        self.failstop.require_running(call.event_id)
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
                self.failstop.require_running(call.event_id)
                (answer,) = self._drain(head, [call])
                self._save_pointers()
                if self._seals:
                    self._judge_seal()
        except EventStoreError as error:
            self._met(error)
            if isinstance(error, EngineError):
                error.event_id = call.event_id
            raise
        return _receipts(answer, call)

    @contextlib.contextmanager
    def alone(self) -> Iterator[Head]:
        """The right to append, for a transaction shared with nobody; gives the head. A failure stops the store, as any write's does."""
        self.require_no_change()
        self.failstop.require_running()
        try:
            with self.live.log.writing() as head:
                self.failstop.require_running()
                yield head
        except EventStoreError as error:
            self._met(error)
            raise
        finally:
            self.tell()

    def _commit_with_others(self, call: Call) -> list[Receipt]:
        told: SimpleQueue[Waiting] = SimpleQueue()
        waiting = Waiting(call, told)
        try:
            self._queue.append(waiting)
            while waiting.answer is None:
                if not self.lead(wait=False):
                    self._wait(waiting, told)
        except BaseException:
            withdrawn = self.withdraw(waiting)
            self._call_next()  # only now: it might have been this one's turn, and whoever is next must learn of it
            while not withdrawn and waiting.taken and waiting.answer is None:
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

    def seal(self) -> SealReport:
        """Seal the log, and go on in its next file. Raises what stands in the way of either."""
        self.failstop.require_running()
        live = self.live
        try:
            prepare_seal(live)
            with live.log.writing() as head:
                began_ns, bytes_before = time.perf_counter_ns(), live.log.extent().bytes
                seal = seal_log(live, head, self.clock)
            with live.log.writing():
                # The log is in its next file now, or its maker is told what stands in the way.
                return report_of(live, seal, bytes_before, began_ns)
        except EventStoreError as error:
            self._met(error)
            raise
        finally:
            self.tell()

    def record(self, op: str, say: Callable[[KeyStates], object | None], then: Callable[[], None]) -> bool:
        """Append an event of the log itself, as durably as can be, and do what follows from it, before anybody else writes.

        `say` gives the event's data, from the states it follows on, or None: then nothing is done, and this is False. Raises
        what stands in the way; of `then`, with the event written.
        """
        self.failstop.require_running()
        live = self.live
        try:
            with live.log.writing() as head:
                if not record_in(live, head, self.clock, op, say):
                    return False
                then()
                return True
        except EventStoreError as error:
            self._met(error)
            raise
        finally:
            self.tell()

    def _judge_seal(self) -> None:
        """Note whether the policy asks for a seal. Under the lock: it is asked for once, and again if it could not be made."""
        if time.monotonic() < self._no_seal_before_s:
            return
        try:
            self._to_seal = self._is_due()
        except EventStoreError as error:  # what is committed by now must be answered as that
            _log.warning("whether %s is to be sealed cannot be told: %s", self.live.log.domain, error)
            self._no_seal_before_s = time.monotonic() + _SEAL_AGAIN_S
        if self._to_seal:
            self._no_seal_before_s = time.monotonic() + _SEAL_AGAIN_S

    def _is_due(self) -> bool:
        return self.policy.is_due(self.live.log, now_us())

    def _seal_as_told(self) -> None:
        """What the policy asks for. Others write on until the seal is prepared; what was written stays written if it cannot be made."""
        self._to_seal = False
        try:
            prepare_seal(self.live)
            with self.live.log.writing() as head:
                self.failstop.require_running()
                if self._is_due():  # no other process was faster
                    seal_log(self.live, head, self.clock)
            self._no_seal_before_s = 0.0
        except (EventStoreError, OSError) as error:
            _log.warning("%s could not be sealed, and is written on: %s", self.live.log.domain, error)

    def tell(self) -> None:
        """With no lock held, and nobody waiting for this thread to commit: call the hooks, and seal if the policy asks for it."""
        if self.meter.untold:
            self.meter.tell()
        if self.failstop.cause is not None:
            self.failstop.announce()
        if self._to_seal:
            self._seal_as_told()

    # ---- the queue

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
        return not waiting.taken

    @property
    def queued(self) -> bool:
        """Whether anybody waits for a leader."""
        return bool(self._queue)

    def queued_in(self, inbox: Inbox) -> list[Waiting]:
        """Who waits there."""
        with self._moving:
            return [waiting for waiting in self._queue if waiting.inbox is inbox]

    def lead(self, *, wait: bool) -> bool:
        """Commit what waits, in one transaction. False if another thread writes and it is not to `wait`: that one tells the next."""
        taken: list[Waiting] = []
        try:
            with self.live.log.writing(wait=wait) as head, self._answering(taken):
                self._take(taken)
                if taken:
                    self.failstop.require_running()  # somebody may have met a failure since they queued up
                    _answer(taken, self._drain(head, [waiting.call for waiting in taken]))
                    self._save_pointers()
                    if self._seals:
                        self._judge_seal()
        except Busy:
            return False
        except EventStoreError as error:
            # The right to write was not given: nobody who waits now would fare better.
            self._met(error)
            self._take(taken)
            _refuse(taken, error)
            if not taken:  # who waited was taken back: a log is all that is left to tell
                _log.warning("%s", error)
        return True

    @contextlib.contextmanager
    def _answering(self, taken: list[Waiting]) -> Iterator[None]:
        """Whatever happens, everybody who was taken gets an answer, and is told while the signals are held back."""
        try:
            yield
        except EventStoreError as error:
            self._met(error)
            _refuse(taken, error)
        except BaseException as error:
            _refuse(taken, self._unknown(error))
            raise

    def _take(self, taken: list[Waiting]) -> None:
        size = 0
        with self._moving:
            while self._queue and size < MOST_EVENTS:
                waiting = self._queue[0]
                if not waiting.taken:  # else an interrupted leader's, answered by it
                    taken.append(waiting)
                    waiting.taken = True
                    size += len(waiting.call.intents) if isinstance(waiting.call.intents, Sequence) else 1
                self._queue.popleft()

    def _drain(self, head: Head, calls: Sequence[Call]) -> Sequence[Answer]:
        try:
            answers = drain(self.live, head, self.clock, calls, self.meter)
        except OSError as error:
            if error.errno is None:
                raise  # not the system's: a TimeoutError, say, that somebody's signal handler raised
            raise EngineError(
                f"domain {self.live.log.domain}: {error}; look at the disk, then retry with the same event_id", outcome="unknown"
            ) from error
        for answer in answers:
            if isinstance(answer, EventStoreError):  # damage met while one call was decided: the others stand, the next may not
                self._met(answer)
        return answers

    def _save_pointers(self) -> None:
        try:
            self.live.save_pointers()
        except (EventStoreError, OSError) as error:
            # The events are in the log, and their callers must learn of it; a cache that is not written costs an opening some time.
            _log.warning("%s: no pointer files were written: %s", self.live.log.domain, error)

    def _met(self, error: EventStoreError) -> None:
        if not self.live.lenient:  # a store that was opened read-only never wrote, and has nothing to stop
            self.failstop.met(error)

    def _damaged(self, error: CorruptionError) -> None:
        """A reader found that nothing can be appended here any more."""
        self._met(error)
        self.failstop.announce()

    def _unknown(self, cause: BaseException) -> EngineError:
        error = EngineError(
            f"domain {self.live.log.domain}: the thread that wrote this with its own was interrupted; retry with the same event_id",
            outcome="unknown",
        )
        error.__cause__ = cause
        return error

    def _call_next(self) -> None:
        """Tell whoever waits first that it is his turn. After each release: whoever found the log busy before it is in the queue."""
        if not self._queue:
            return
        with self._moving:
            while self._queue and self._queue[0].taken:
                self._queue.popleft()  # an interrupted leader's: it has its answer, and would tell nobody
            first = self._queue[0] if self._queue else None
        if first is not None:
            first.inbox.put(first)

    def after_fork(self) -> None:
        """In a forked child: those who waited are threads of the parent."""
        self._moving = threading.Lock()
        self._queue.clear()


def _answer(taken: list[Waiting], answers: Sequence[Answer]) -> None:
    for waiting, answer in zip(taken, answers, strict=True):
        waiting.answer = answer
        waiting.inbox.put(waiting)


def _refuse(taken: list[Waiting], error: EventStoreError) -> None:
    """Answer with `error` whoever has no answer yet: after the commit, all have. Everybody is told, once more if need be."""
    _answer(taken, [waiting.answer or _own(error, waiting.call) for waiting in taken])


def receipts_of(waiting: Waiting) -> list[Receipt]:
    """The receipts that a call was answered with. Raises the error that it was answered with."""
    assert waiting.answer is not None
    return _receipts(waiting.answer, waiting.call)


def _receipts(answer: Answer, call: Call) -> list[Receipt]:
    if not isinstance(answer, BaseException):
        return answer
    if isinstance(answer, EngineError):
        answer.event_id = call.event_id
    raise answer


def _own(error: EventStoreError, call: Call) -> EventStoreError:
    """`error`, which met a whole transaction, for one of its callers: threads must not share a traceback."""
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    if isinstance(own, EngineError):
        own.event_id = call.event_id
    return own
