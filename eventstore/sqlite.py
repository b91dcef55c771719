"""SqliteLog: one domain's log in STORE/logs/<domain>/; the part of it that writes is here (FORMAT.md sections 1 to 8, RELIABILITY.md)."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from eventstore import database, manifest
from eventstore.carried import Seal
from eventstore.database import sqlite3
from eventstore.errors import ConfigError, ConflictError, EngineError, EventStoreError, UnavailableError
from eventstore.files import defer_signals, os_errors, remove_files, restore_signals, signal_mask
from eventstore.keeping import LogKeeper
from eventstore.log import Busy
from eventstore.model import Durability, Event, Head, HeldCopy
from eventstore.remnants import MAYBE_MADE, copies_of
from eventstore.rolling import Draft, Latest

_log = logging.getLogger("eventstore")

CHECKPOINT_PAGES = 1_000


class SqliteLog(LogKeeper):
    """The EventLog of one domain: who may write, when the WAL is emptied, and how the log goes on from file to file."""

    _signals: set[int] | None = None
    _erasing = False
    """Whether the WAL may hold what was erased."""
    _draft: Draft | None = None
    _latest: Latest | None = None
    """What was read ahead of the next seal; of the live file, or of one that was sealed meanwhile."""

    # ---- writing

    def writing(self, *, wait: bool = True) -> _Writing:
        """See EventLog.writing. The lock comes first: deciding before it starves large writers (FORMAT.md section 6)."""
        return _Writing(self, wait)

    def begin(self, wait: bool) -> Head:
        """Enter writing(): threads, then processes, then signals; and only then is the head the head."""
        self._require_open()
        mutex = self._mutex
        if _is_held(mutex):
            raise ConfigError(f"{self._what}: a write inside another write of the same domain")
        signals: set[int] | None = None
        try:
            if not mutex.acquire(wait, self.busy_timeout_ms / 1_000 if wait else -1):
                if not wait:
                    raise Busy
                raise UnavailableError(f"{self._what}: another thread writes for more than {self.busy_timeout_ms} ms", holder=os.getpid())
            self._require_writable()
            self._head_file.lock(self._what, self.busy_timeout_ms)
            signals = self._signals = signal_mask()
            defer_signals(signals)
            self._require_same_files()
            moved = self._head_file.moved(self._known.position)
            if moved:
                self._found(self._file.end_for_writing())
            if self._sealed is self._file:
                self._go_on()
            if moved:
                witnessed = self._head_file.refresh()
                if witnessed is not None and witnessed.position > self._known.position:
                    self._require_tail(self._known)  # writing on would give lost positions to other events
            return self._known
        except BaseException as error:
            # An interrupt may come between any two steps, so what was taken is asked, not remembered.
            if _is_held(mutex):
                self._head_file.unlock()
                mutex.release()
                self.released()
                restore_signals(signals)
            if isinstance(error, OSError):
                with os_errors(f"writing to {self._what}"):
                    raise
            raise

    def end(self) -> None:
        """Leave writing()."""
        signals = self._signals
        try:
            if self._draft is not None:
                self._discard_draft()
            self._head_file.unlock()
        finally:
            self._mutex.release()
            # Still with the signals held back: whoever waits must be told.
            self.released()
            restore_signals(signals)

    def append(self, events: Sequence[Event], *, after: Head, durability: Durability | None = None, erase: Sequence[int] = ()) -> None:
        """See EventLog.append."""
        level = durability or self.durability
        if not events and not erase:
            self._make_durable(after, level)
            return
        seals = bool(events) and events[-1].op == "seal"
        if seals:
            level = "power+"  # what is carried over it must never be found without it
        head = Head(events[-1].position, events[-1].checksum) if events else after
        self._erasing = self._erasing or bool(erase)
        self._require_space()
        if erase:
            self._files.refresh()
        if self._sealed is self._file:
            self._go_on()
        try:
            self._file.append(events, after=after, durability=level, erase=erase)
            self.commit_us = self._file.commit_us
        except ConflictError:
            # A writer was killed between its commit and its hint.
            self._found(self._file.end_for_writing())
            self._head_file.hint(self._known.position)
            raise
        self._known = head
        if seals:
            self._sealed = self._file
        try:
            if level == "process":
                self._head_file.hint(head.position)
            else:
                self._head_file.witness(head, sync=level == "power+")
        except OSError as error:
            self._halt(error)
        if erase:
            self._erase_sealed(erase)
        if seals:
            self._try_to_go_on()
        elif self._file.wal_pages >= CHECKPOINT_PAGES:
            self._checkpoint(head)

    def _make_durable(self, head: Head, level: Durability) -> None:
        """Nothing to append, but what stands must last: sync the WAL unless the witness says that was done."""
        found = self._file.end_for_writing()
        if found.head != head:
            self._found(found)
            raise ConflictError(self.domain, head.position, found.head.position)
        if level == "process":
            return
        witnessed = self._head_file.refresh()
        behind = witnessed is None or witnessed.position < head.position
        try:
            if behind:
                self._file.sync_wal()
            if behind or level == "power+":
                self._head_file.witness(head, sync=level == "power+")
        except OSError as error:
            self._halt(error)

    def _halt(self, error: OSError) -> NoReturn:
        """The events are in the log, but not on record as durable: the caller cannot know, and must retry with its event_id."""
        try:
            with os_errors(f"recording the head of domain {self.domain}"):
                raise error
        except EngineError as ours:
            ours.outcome = "unknown"
            self._halted = ours
            raise

    def _checkpoint(self, head: Head) -> None:
        """Bound the WAL. The append is acknowledged either way, so a failure is logged and tried again later."""
        try:
            if not self._checkpointed():  # a reader stands in the way: after some more pages
                self._file.wal_pages = CHECKPOINT_PAGES - CHECKPOINT_PAGES // 10
                return
            self._record(head)
        except sqlite3.Error as error:
            self._file.wal_pages = CHECKPOINT_PAGES // 2
            _log.warning("%s: the checkpoint failed, the log is whole: %s", self.domain, error)
        except EventStoreError as error:
            _log.warning("%s: the checkpoint could not be recorded, the log is whole: %s", self.domain, error)

    def _checkpointed(self) -> bool:
        """One checkpoint, whole or not. RESTART leaves old frames behind, so after an erasure it is TRUNCATE, and durable."""
        whole = self._file.checkpoint("TRUNCATE" if self._erasing else "RESTART")
        if whole and self._erasing:
            with os_errors(f"emptying the write-ahead log of domain {self.domain}"):
                self._file.sync_wal()
            self._erasing = False
        return whole

    def forget_erased(self, *, wait: bool = True) -> bool:
        """See EventLog.forget_erased: what the WAL still holds goes with a whole TRUNCATE. Readers are waited for without the lock."""
        deadline = time.monotonic() + self.busy_timeout_ms / 1_000
        self._erasing = True
        while True:
            with self.writing():
                head = self._file.end_for_writing().head
                try:
                    if self._checkpointed():
                        self._record(head)
                except sqlite3.Error as error:
                    raise database.engine_error(error, domain=self.domain, path=self._file.path, outcome="unknown") from error
                self._unfinished.retry(self._files)
            waits = self._erasing or self._unfinished.passes()
            if not (waits and wait) or time.monotonic() >= deadline:
                return not self._erasing and not self._unfinished
            time.sleep(0.01)

    def _erase_sealed(self, positions: Sequence[int]) -> None:
        """Erase in every other file at hand, wherever it stands. It is decided by now: what fails is told by copies(), and done later."""
        for path in self._files.places():
            if path != self._file.path:
                self._unfinished.erase(self._files, path, positions)

    def copies(self) -> list[HeldCopy]:
        """See EventLog.copies."""
        advice = (
            "a reader in another process keeps the write-ahead log from being emptied: once it has ended, the next checkpoint does it,"
            " at the latest a close; redact the same again to see"
        )
        own = [HeldCopy(str(self._file.wal), advice)] if self._erasing else []
        return [*own, *self._unfinished.copies(), *self._remnants()]

    def _remnants(self) -> list[HeldCopy]:
        """What else may hold values. Who seals makes the next file while he has the log: without it nobody knows whose a half-made one is.

        One that is begun after an erasure holds nothing of it, and none that was begun before outlives the right to write but by a kill.
        """
        found = list(copies_of(self.store, self.domain, self.attached(), alone=False))
        if all(copy.advice != MAYBE_MADE for copy in found):
            return found
        try:
            with self.writing():
                return list(copies_of(self.store, self.domain, self.attached(), alone=True))
        except EngineError as error:
            _log.warning("%s: whose the files are that are half made in %s cannot be told: %s", self.domain, self.folder, error)
            return found

    def abandon(self) -> None:
        """See EventLog.abandon; what was drafted is the parent's."""
        super().abandon()
        self._draft = self._latest = None

    # ---- from file to file

    def prepare_seal(self) -> None:
        """See EventLog.prepare_seal: all rows of the live file but their values, and once more what came meanwhile."""
        self._require_open()
        latest = Latest(self._file)
        try:
            for _ in range(2):
                latest.read_on(latest.file.end().head.position)
        except EngineError:
            self._require_open()
            if latest.file is self._file:
                raise
            return  # sealed by others meanwhile, or opened anew by resume(): there is another file to be read
        self._latest = latest

    def draft_seal(self) -> Seal:
        """See EventLog.draft_seal: the file after the seal is begun, for only what is in it can be named."""
        self._require_space()
        self._discard_draft()
        self._draft = Draft(self._take_latest(), self._known.position + 1)
        return self._draft.seal

    def _take_latest(self) -> Latest:
        latest, self._latest = self._latest, None
        return latest if latest is not None and latest.file is self._file else Latest(self._file)

    def _discard_draft(self) -> None:
        if self._draft is not None:
            self._draft.discard()
            self._draft = None

    def _try_to_go_on(self) -> None:
        """The seal is written either way: what stands in the way of the next file is met again, and raised, by the next write."""
        try:
            self._go_on()
        except (EventStoreError, OSError, sqlite3.Error) as error:
            _log.warning("%s is sealed; the file after it could not be made yet: %s", self.domain, error)

    def _go_on(self) -> None:
        """The live file ends in a seal: open the one after it, and make it if nobody did. Under the lock.

        The seal is the decision, so it must be durable before anything follows from it: whoever wrote it may have died over that.
        """
        while (sealed := self._file) is self._sealed:
            seal = self._known
            path = database.log_files(self.folder)[-1]
            if database.first_of(path) <= sealed.first:
                if not self._is_witnessed(self._known):
                    self._renew_witness(self._known)
                path = self._make_next()
            file = self._open_file(path)
            try:
                file.become_writer()
                end = file.end_for_writing()
            except BaseException:
                file.close_reader()
                file.close_writer()
                raise
            self._files.live = file
            self._file = file
            self._files.refresh()
            self._found(end)
            if self._erasing:
                self._unfinished.left_wal(sealed.path)
                self._erasing = False
            if sealed.failed is None:
                sealed.close_reader()
                sealed.close_writer()
            else:  # the last one to close must not checkpoint what a sync may have failed for
                sealed.close_writer()
                sealed.close_reader()
            with os_errors(f"recording the head of domain {self.domain}"):
                # Not what stands behind it by now: that may have been written at `process`, and be on no disk.
                manifest.raise_head(self.store, self.domain, seal)

    def _make_next(self) -> Path:
        """The file after the live one, which is checkpointed first where no reader stands in the way: nobody else will do it."""
        try:
            self._file.checkpoint("TRUNCATE")
        except sqlite3.Error as error:
            _log.warning("%s: the checkpoint of the sealed file failed, it is whole with its WAL: %s", self.domain, error)
        draft, self._draft = self._draft, None
        if draft is None or draft.seal.last != self._known.position:
            draft = Draft(Latest(self._file), self._known.position)
        try:
            return draft.finish()
        except BaseException:
            draft.discard()
            raise

    def leftovers(self) -> set[int]:
        """See FileLog.leftovers."""
        with os_errors(f"listing {self.folder}"):
            return database.firsts_in(self.folder) - {self._file.first}

    def drop_sealed(self, first: int) -> None:
        """See FileLog.drop_sealed. The database first: without it nobody reads the files beside it, which it may still need."""
        path = database.log_file(self.folder, first)
        if first >= self._file.first:
            raise ConfigError(f"{self._what}: {path.name} is the live file; seal it first")
        with os_errors(f"removing {path}"):
            remove_files([path])
            remove_files(path.with_name(f"{path.name}{side}") for side in ("-wal", "-shm"))
        self._files.refresh()


def _is_held(mutex: Any) -> bool:
    """Whether this thread holds an RLock; the one question it has no public method for."""
    return bool(mutex._is_owned())


class _Writing:
    """The context of SqliteLog.writing(); a class, as entering a generator costs several times as much, and every write pays it."""

    __slots__ = ("_log", "_wait")

    def __init__(self, log: SqliteLog, wait: bool) -> None:
        self._log, self._wait = log, wait

    def __enter__(self) -> Head:
        return self._log.begin(self._wait)

    def __exit__(self, *error: object) -> None:
        self._log.end()
