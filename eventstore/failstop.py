"""FailStop: a store that cannot record stops writing, says so once, and writes again only when told to."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from eventstore.errors import CorruptionError, EngineError, EventStoreError, HaltedError, UnavailableError

_log = logging.getLogger("eventstore")

OnHalt = Callable[[HaltedError], None]
"""Called once for each halt, in the thread that met the failure, with no lock held."""


class FailStop:
    """Whether the domains of one store may be written. The first failure to record stops all of them.

    A bot that goes on trading while its record has a hole is worse than one that stops: after a failure nothing is
    believed to work until resume() has tried it (PostgreSQL panics on a failed fsync for the same reason:
    https://wiki.postgresql.org/wiki/Fsync_Errors).
    """

    def __init__(self, on_halt: OnHalt | None = None) -> None:
        self.cause: EventStoreError | None = None
        """What stopped the writing; None while all is well."""
        self.halts = 0
        """How often writing was stopped since the store was opened."""
        self._on_halt = on_halt
        self._unsaid: EventStoreError | None = None
        self._lock = threading.Lock()

    def require_running(self) -> None:
        """Raise HaltedError if writing was stopped."""
        if self.cause is not None:
            raise self.halted(self.cause)

    def halted(self, cause: EventStoreError) -> HaltedError:
        """The error that a refused write raises."""
        error = HaltedError(
            f"writing was stopped by an earlier failure: {cause} Reading goes on; remove the cause, then call resume() on the store"
        )
        error.__cause__ = cause
        return error

    def met(self, error: EventStoreError) -> None:
        """Stop if `error` means that the store cannot record. Who is told is told by announce(), outside all locks."""
        # Somebody else's lock goes away by itself; a store that was opened read-only never wrote.
        if isinstance(error, UnavailableError | HaltedError) or not isinstance(error, EngineError | CorruptionError):
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
        _log.error("writing was stopped: %s", cause)
        if self._on_halt is not None:
            try:
                self._on_halt(self.halted(cause))
            except Exception:  # noqa: BLE001  the write's own error matters more to its caller than a failing alarm
                _log.exception("on_halt raised")

    def clear(self) -> None:
        """The cause is gone: writing goes on."""
        with self._lock:
            self.cause = self._unsaid = None

    def after_fork(self) -> None:
        """In a forked child: another thread may have held the lock when the process split."""
        self._lock = threading.Lock()
