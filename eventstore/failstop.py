"""FailStop: a store that cannot record stops writing, says so once, and writes again only when told to."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from eventstore.errors import CorruptionError, EngineError, EventStoreError, HaltedError, UnavailableError

_log = logging.getLogger("eventstore")

OnHalt = Callable[[HaltedError], None]
"""Called once for each halt, in a thread whose write was refused for it, with no lock held."""


class FailStop:
    """Whether the domains of one store may be written. The first failure to record stops all of them.

    A bot that goes on trading while its record has a hole is worse than one that stops: after a failure nothing is
    believed to work until resume() has tried it (PostgreSQL panics on a failed fsync for the same reason:
    https://wiki.postgresql.org/wiki/Fsync_Errors).

    Below it each floor knows why it stopped by itself: a LogFile whose connection failed, a SqliteLog that could not
    record or was told of damage, a Live that met damage while it folded. They are set where that happens, `cause` is what
    the callers are told, and resume() makes all of them anew.
    """

    def __init__(self, on_halt: OnHalt | None = None) -> None:
        self.cause: EventStoreError | None = None
        """What stopped the writing; None while all is well."""
        self.halts = 0
        """How often writing was stopped since the store was opened."""
        self._on_halt = on_halt
        self._unsaid: EventStoreError | None = None
        self._lock = threading.Lock()

    def require_running(self, event_id: str | None = None) -> None:
        """Raise HaltedError, about the write of this event_id, if writing was stopped."""
        refusal = self.refusal(event_id)
        if refusal is not None:
            raise refusal

    def refusal(self, event_id: str | None = None) -> HaltedError | None:
        """The error that a refused write raises, None while all is well."""
        cause = self.cause
        return None if cause is None else self.halted(cause, event_id)

    def halted(self, cause: EventStoreError, event_id: str | None = None) -> HaltedError:
        """The error that says that `cause` stopped the writing."""
        error = HaltedError(
            f"writing was stopped by an earlier failure: {str(cause).rstrip('.')}. Reading goes on; remove the cause, then call resume()"
            " on the store",
            event_id=event_id,
        )
        error.__cause__ = cause
        return error

    def met(self, error: EventStoreError) -> None:
        """Stop if `error` means that the store cannot record. Who is told is told by announce(), outside all locks."""
        if isinstance(error, HaltedError) and isinstance(error.__cause__, EventStoreError):
            error = error.__cause__  # a log had stopped by itself, at a checkpoint or when it was read; nobody was told yet
        # Somebody else's lock goes away by itself.
        if isinstance(error, UnavailableError) or not isinstance(error, EngineError | CorruptionError):
            return
        with self._lock:
            if self.cause is None:
                self.cause = self._unsaid = error
                self.halts += 1

    def announce(self) -> None:
        """Call on_halt if a halt has not been told yet."""
        with self._lock:
            cause, self._unsaid = self._unsaid, None
        if cause is None:
            return
        if self._on_halt is not None:
            try:
                self._on_halt(self.halted(cause))
            except Exception:  # noqa: BLE001  the write's own error matters more to its caller than a failing alarm
                _log.exception("on_halt raised")

    def clear(self) -> None:
        """The cause is gone: writing goes on."""
        with self._lock:
            self.cause = self._unsaid = None

    def after_fork(self, cause: EventStoreError | None) -> None:
        """In a forked child, which may not write for this `cause`, if any: nobody is called, as the child knows that it was forked.

        Another thread may have held the lock when the process split. What the parent met, the parent says.
        """
        self._lock = threading.Lock()
        self._unsaid = None
        self.cause = self.cause or cause
