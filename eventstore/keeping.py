"""LogKeeper: the part of an EventLog in files that keeps it: opened, judged, on record, closed, opened anew (RELIABILITY.md R1, R2, R9)."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import weakref
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from eventstore import database, manifest, recovery
from eventstore.clock import now_us
from eventstore.codec import FORMAT, GENESIS, SALT_BYTES, Birth, seal_birth, seal_system
from eventstore.database import sqlite3
from eventstore.errors import (
    ClosedError,
    CorruptionError,
    DiskFullError,
    EngineError,
    FencedError,
    FormatError,
    HaltedError,
    NotFoundError,
    ReadOnlyError,
    TailLostError,
    UnavailableError,
)
from eventstore.files import make_folder, os_errors, sync_folder
from eventstore.log import nobody_waits
from eventstore.logfile import End, LogFile
from eventstore.logfiles import LogFiles
from eventstore.model import MIN_FREE_BYTES, Durability, Event, Head, WriteRule
from eventstore.reading import LogReader
from eventstore.unfinished import Unfinished
from eventstore.witness import HeadFile

_log = logging.getLogger("eventstore")

_open_logs: weakref.WeakSet[LogKeeper] = weakref.WeakSet()


class LogKeeper(LogReader):
    """A log from its opening to its end: which file is the live one, whether its tail is whole, what is on record of it.

    `write` is the rule a new log is made with (None: "replace") and an existing one must have (None: any);
    `birth` a sealed birth row to start a new log from; `archives` folders in which more of its sealed files may be; `heads` who
    puts its checkpoints on record, for other logs of the store as well.
    """

    def __init__(
        self,
        store: Path,
        domain: str,
        *,
        store_id: str,
        write: WriteRule | None = None,
        birth: Event | None = None,
        durability: Durability = "power",
        read_only: bool = False,
        accept_loss: bool = False,
        archives: Sequence[Path] = (),
        busy_timeout_ms: int = 10_000,
        min_free_bytes: int = MIN_FREE_BYTES,
        heads: manifest.Heads | None = None,
    ) -> None:
        self.store, self.domain, self.read_only = store, domain, read_only
        self.durability: Durability = durability
        self.folder = store / "logs" / domain
        self._what = f"domain {domain}"
        self.rule: WriteRule = "replace"
        self.accepted: Head | None = None
        self.released = nobody_waits
        self.commit_us = 0
        self.store_id, self._birth, self.busy_timeout_ms = store_id, birth, busy_timeout_ms
        self._min_free_bytes = min_free_bytes
        self._heads = heads or manifest.Heads(store)
        self._write: WriteRule | None = write
        self._known = GENESIS
        """The head when this object last looked; the hint says whether it still is."""
        self._sealed: LogFile | None = None
        """The file that was found to end in a seal. As long as it is the live one, the log has to go on in another."""
        self._archives = [Path(folder) for folder in archives]
        self._halted: BaseException | None = None
        self._closed = self._forked = self._quiet = False
        self._unfinished = Unfinished(store, domain, busy_timeout_ms)
        self._mutex, self._reopening = threading.RLock(), threading.Lock()
        self._open(accept_loss)
        _open_logs.add(self)

    @abstractmethod
    def _go_on(self) -> None:
        """The live file ends in a seal: open the one after it, and make it if nobody did. Under the lock."""

    # ---- opening

    def _open(self, accept_loss: bool, seen: Head | None = None) -> None:
        if not self.read_only:
            with os_errors(f"making {self.folder}"):
                make_folder(self.folder)
        self._head_file = HeadFile(self.folder / "head", writable=not self.read_only, create=not self.read_only)
        try:
            with self._locked("opening"), os_errors(f"opening the log of domain {self.domain}"):
                file = self._open_file(self._find_or_create())
                try:
                    files = LogFiles(self.domain, self._at_hand, live=file, lenient=self.read_only, busy_timeout_ms=self.busy_timeout_ms)
                except BaseException:
                    file.close_reader()
                    raise
                before: tuple[LogFiles, LogFile] = (self.__dict__.get("_files", files), self.__dict__.get("_file", file))
                self._files, self._file = files, file
                try:
                    self._take_charge(accept_loss, seen)
                except BaseException:
                    opened = self._file
                    self._files, self._file = before  # whoever reads meanwhile goes on there
                    files.close()
                    opened.close_reader()
                    opened.close_writer()
                    raise
        except BaseException:
            self._head_file.close()
            raise

    def _open_file(self, path: Path) -> LogFile:
        return LogFile(path, self.domain, read_only=self.read_only, busy_timeout_ms=self.busy_timeout_ms)

    def _at_hand(self) -> list[Path]:
        """The files of the log that can be read: those in archives, and over them those in its own folder."""
        own = database.log_files(self.folder)
        live = database.first_of(own[-1]) if own else 0
        # What an archive has from there on is another history: that which a store went on with after the backup that this one is.
        archived = [path for folder in self._archives for path in database.log_files(folder) if database.first_of(path) < live]
        return archived + own

    @contextlib.contextmanager
    def _locked(self, doing: str) -> Iterator[None]:
        self._head_file.lock(f"{doing} domain {self.domain}", self.busy_timeout_ms)
        try:
            yield
        finally:
            self._head_file.unlock()

    def _find_or_create(self) -> Path:
        files = database.log_files(self.folder)
        if files:
            return files[-1]
        if self.domain in manifest.load(self.store).heads:
            raise FormatError(self.domain, None, f"the log's files are gone from {self.folder}, but store.json knows them; put a copy back")
        if self.read_only:
            raise NotFoundError(f"no domain {self.domain!r} in {self.store}")
        path = database.log_file(self.folder, 0)
        birth = self._birth or seal_birth(
            Birth(FORMAT, self.store_id, self.domain, now_us(), self._write or "replace"), secrets.token_bytes(SALT_BYTES)
        )
        head = Head(0, birth.checksum)
        # Before the log appears: a witness that the power took half of beside a log is damage, without one it is nothing.
        self._head_file.witness(head, sync=True)
        try:
            database.make(path, birth)
        except sqlite3.Error as error:
            raise database.engine_error(error, domain=self.domain, path=path) from error
        manifest.raise_head(self.store, self.domain, head)
        return path

    def _take_charge(self, accept_loss: bool, seen: Head | None) -> None:
        """Judge the file through its read-only connection; only then may a writer exist, which could hide the damage."""
        births = self._file.get([0])
        self.rule = recovery.require_birth(births[0] if births else None, domain=self.domain, store_id=self.store_id, write=self._write)
        if self.read_only:
            return
        found = self._found(self._file.end())
        if seen is not None and (sentence := recovery.missing(self._files, found, seen, "this process")):
            raise FencedError(
                f"domain {self.domain}: {sentence}; put the right files back and resume(),"
                " or close the store and open it again to go on from what is there"
            )
        loss = self._judge(found)
        if loss is not None:
            # Before a loss is accepted the evidence must be safe; a refusal changes nothing, copied or not.
            if not accept_loss:
                raise self._tail_lost(loss, found)
            self._quarantine(found.position)
        if not self._head_file.read():
            _log.warning(
                "%s: the witness (file `head`) is missing or empty, and made anew: whether events after what store.json knows"
                " are missing at the end cannot be told",
                self.domain,
            )
        if self.domain not in manifest.load(self.store).heads:
            # Its maker was killed before it could say so, perhaps before the names were durable.
            sync_folder(self.folder)
            sync_folder(self.folder.parent)
            manifest.raise_head(self.store, self.domain, found)
        self._file.become_writer()
        if loss is not None:
            self._file.renew_wal()
        elif not self._is_witnessed(found):
            self._renew_witness(found)
        else:
            self._head_file.hint(found.position)
        if self._sealed is self._file:
            self._go_on()
        if loss is not None:
            self._accept(found, loss)
        for path in self._files.places():
            if path != self._file.path:
                self._unfinished.settle(self._files, path)

    # ---- what is on record of its end

    def _found(self, end: End) -> Head:
        """Take note of what the live file ends in."""
        self._known = end.head
        self._sealed = self._file if end.is_seal else None
        return end.head

    def _is_witnessed(self, head: Head) -> bool:
        witnessed = self._head_file.refresh()
        return witnessed is not None and witnessed.position >= head.position

    def _renew_witness(self, head: Head) -> None:
        """Make `head`, which another process wrote, durable and witnessed: a sync may have failed, or never have been made."""
        self._file.renew_wal()
        self._head_file.witness(head, sync=True)

    def _quarantine(self, position: int) -> str:
        damaged = self._files.path_of(position)
        files = [self._file.path, self._file.wal, self._head_file.path, *({damaged} - {self._file.path})]
        return recovery.quarantine(self.store, files, f"{self.domain}-{position}")

    def _try_quarantine(self, position: int) -> str:
        try:
            return self._quarantine(position)
        except EngineError as error:
            return f"nowhere ({error})"

    def _judge(self, found: Head) -> recovery.Loss | None:
        known = manifest.load(self.store).heads.get(self.domain)
        return recovery.judge(self._files, found, self._head_file.read(), known.head() if known else None)

    def _tail_lost(self, loss: recovery.Loss, found: Head) -> TailLostError:
        """The refusal, with the evidence kept where that is possible."""
        place = self._try_quarantine(found.position)
        return TailLostError(self.domain, loss.known.position if loss.known else None, found.position, loss.sentence, place)

    def _require_tail(self, found: Head) -> None:
        """Raise TailLostError if a log that was altered under the open store lacks what is on record as durable."""
        loss = self._judge(found)
        if loss is not None:
            raise self._tail_lost(loss, found)

    def _accept(self, found: Head, loss: recovery.Loss) -> None:
        """Append the event that says what was lost, and start a new witness from there."""
        witnessed = loss.known and {"position": loss.known.position, "checksum": loss.known.checksum.hex()}
        event = seal_system(
            found,
            prev=self._file.last_system_position(),
            recorded_us=max(now_us(), self._file.get([found.position])[0].recorded_us + 1),
            op="loss",
            data={"witnessed": witnessed, "found": {"position": found.position, "checksum": found.checksum.hex()}, "reason": loss.sentence},
            salt=secrets.token_bytes(SALT_BYTES),
        )
        self._file.append([event], after=found, durability="power+", erase=())
        self.accepted = self._known = Head(event.position, event.checksum)
        self._head_file.witness(self.accepted, sync=True)
        manifest.reset_head(self.store, self.domain, self.accepted)

    def _record(self, head: Head) -> None:
        """After a whole checkpoint everything up to `head` is durable, whatever its events were written with."""
        with os_errors(f"recording the head of domain {self.domain}"):
            self._head_file.witness(head)
            self._heads.raise_head(self.domain, head)

    # ---- looking

    def moved(self, position: int) -> bool:
        """See EventLog.moved; asks the hint in the head file, a tenth of a microsecond."""
        if self._closed or self._forked:
            self._require_open()
        return self._head_file.moved(position)

    def faults(self) -> Iterator[tuple[str, str]]:
        """See EventLog.faults: SQLite's own check of the file, and the tail against witness and manifest."""
        self._require_open()
        yield from self._files.faults()
        with self._without_threads("checking"), self._locked("checking"):
            loss = self._judge(self._files.head())
        if loss is not None:
            yield "tail", loss.sentence

    # ---- closing

    def close(self) -> None:
        """See EventLog.close. Under the lock: the last connection to close removes the WAL, whatever its pragmas say.

        Raises UnavailableError, and stays open, if another process holds the lock for too long.
        """
        if self._closed:
            return
        if self._forked:
            self._closed = True
            return
        with self._without_threads("closing"):
            self._head_file.lock(f"closing {self._what}", self.busy_timeout_ms)
            self._closed = True
            try:
                self._close_files()
            finally:
                self._files.close()
                self._head_file.close()

    @contextlib.contextmanager
    def _without_threads(self, doing: str) -> Iterator[None]:
        if not self._mutex.acquire(timeout=self.busy_timeout_ms / 1_000):
            raise UnavailableError(
                f"{doing} {self._what}: another thread writes for more than {self.busy_timeout_ms} ms", holder=os.getpid()
            )
        try:
            yield
        finally:
            self._mutex.release()
            self.released()

    def _close_files(self) -> None:
        if self.read_only or self._halted is not None or self._file.failed is not None or not self._file.is_same():
            # Nothing is vouched for, and nothing changed: the last connection to close is the reading one, which cannot checkpoint.
            self._file.close_writer()
            self._file.close_reader()
            return
        try:
            if self._file.end().is_seal and database.log_files(self.folder)[-1] != self._file.path:
                self._found(self._file.end())
                with os_errors(f"closing {self._what}"):
                    self._go_on()  # another process sealed the log: where it ends now is in another file
            # What is recorded at the end becomes the record: it must not be less than what was acknowledged.
            self._require_tail(self._file.end().head)
        except BaseException:
            self._file.close_writer()
            self._file.close_reader()
            raise
        self._file.close_reader()
        try:
            self._last_checkpoint()
        finally:
            self._file.close_writer()

    def distrust(self, error: CorruptionError) -> None:
        """See EventLog.distrust: the files are copied as they are, and closed without a checkpoint."""
        if self._halted is None and not self.read_only:
            self._halted = error
            place = self._try_quarantine(error.position or 0)
            _log.warning("%s: damage was found; the files were copied to %s", self.domain, place)

    def resume(self) -> None:
        """See EventLog.resume. The new connections stand before the old ones go, so that the log can be read all the while.

        Older files in the place of these are whole in themselves: what was acknowledged here must be in what is gone on with.
        """
        self._require_open()
        if self.read_only:
            return
        with self._without_threads("resuming"):
            self._require_space()
            files, file, head_file, known = self._files, self._file, self._head_file, self._known
            try:
                self._open(accept_loss=False, seen=known)
            except BaseException:
                self._files, self._file, self._head_file, self._known = files, file, head_file, known
                raise
            self._halted = None
            files.close()
            file.close_writer()
            file.close_reader()
            head_file.close()

    def _last_checkpoint(self) -> None:
        try:
            head = self._file.end_for_writing().head
            if self._file.checkpoint("TRUNCATE"):
                self._record(head)
        except sqlite3.Error as error:
            raise database.engine_error(error, domain=self.domain, path=self._file.path) from error

    def before_fork(self) -> None:
        """Wait until no thread writes or reads: a transaction that is copied into a child never ends there."""
        # Not for ever: the thread that forks may itself be the one that writes.
        self._quiet = not self._closed and not self._forked and self._mutex.acquire(timeout=self.busy_timeout_ms / 1_000)
        if self._quiet:
            self._files.before_fork()
            self._file.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._quiet:
            self._file.after_fork_in_parent()
            self._files.after_fork_in_parent()
            self._mutex.release()
            self.released()

    def abandon(self) -> None:
        """See EventLog.abandon: touch nothing, open anew when next used; the copy of the lock is closed by then (R9)."""
        if not self._forked and not self._closed:
            self._forked = True
            self._mutex, self._reopening = threading.RLock(), threading.Lock()
            self._file.abandon()
            self._files.abandon()

    # ---- guards

    def _require_open(self) -> None:
        if self._closed:
            raise ClosedError(f"domain {self.domain} was closed; open the store again")
        if self._forked:
            with self._reopening:
                if self._forked:
                    self._open(accept_loss=False)
                    self._forked = False

    def _require_space(self) -> None:
        if not self._min_free_bytes:
            return
        try:
            free = self._head_file.free_bytes()
        except OSError:
            with os_errors(f"asking how much space is left for domain {self.domain}"):
                raise
        if free < self._min_free_bytes:
            raise DiskFullError(
                f"domain {self.domain}: {free:,} bytes are free where the store lies, at least {self._min_free_bytes:,} must be"
                " (min_free_bytes); free some space, or archive old events"
            )

    def _require_same_files(self) -> None:
        self._head_file.require_same()
        if not self._file.is_same() and not self._was_sealed():
            raise FencedError(f"the files of domain {self.domain} were replaced or removed under the open store; close it and look at them")

    def _was_sealed(self) -> bool:
        """Whether our live file was sealed by another process and then moved away: that ends no store."""
        newest = database.log_files(self.folder)[-1:]
        return bool(newest) and database.first_of(newest[0]) > self._file.first and self._file.end().is_seal

    def _require_writable(self) -> None:
        self._require_open()
        if self.read_only:
            raise ReadOnlyError(f"domain {self.domain} was opened read-only; open the store without read_only to write")
        cause = self._halted or self._file.failed
        if cause is not None:
            raise HaltedError(
                f"domain {self.domain}: writing stopped after: {cause}; look at the disk, then call resume() on the store"
            ) from cause


_forking = threading.RLock()
"""Held from before a fork until it is done: two threads that fork would not know whose locks the other gives back."""


def _before_fork() -> None:
    _forking.acquire()
    for log in list(_open_logs):
        log.before_fork()


def _after_fork_in_parent() -> None:
    try:
        for log in list(_open_logs):
            log.after_fork_in_parent()
    finally:
        _forking.release()


def _after_fork_in_child() -> None:
    global _forking
    _forking = threading.RLock()
    for log in list(_open_logs):
        log.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
