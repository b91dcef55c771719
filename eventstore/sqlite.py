"""SqliteLog: one domain's log in STORE/logs/<domain>/ (FORMAT.md sections 1 to 7, RELIABILITY.md R1 to R10)."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

from eventstore import database, manifest, recovery
from eventstore.archived import Archived
from eventstore.carried import Seal
from eventstore.clock import now_us
from eventstore.codec import FORMAT, GENESIS, SALT_BYTES, Birth, seal_birth, seal_system
from eventstore.database import sqlite3
from eventstore.errors import (
    ClosedError,
    ConfigError,
    ConflictError,
    CorruptionError,
    DiskFullError,
    EngineError,
    EventStoreError,
    FencedError,
    FormatError,
    HaltedError,
    NotFoundError,
    ReadOnlyError,
    TailLostError,
    UnavailableError,
)
from eventstore.files import defer_signals, make_folder, os_errors, remove_files, restore_signals, signal_mask, stat_or_none, sync_folder
from eventstore.log import Busy, FileExtent, nobody_waits
from eventstore.logfile import End, LogFile, erase_in
from eventstore.logfiles import LogFiles
from eventstore.model import MIN_FREE_BYTES, Durability, Event, Head, HeldCopy, WriteRule
from eventstore.reading import LogReader
from eventstore.remnants import copies_of
from eventstore.rolling import Draft, Latest
from eventstore.witness import HeadFile

_log = logging.getLogger("eventstore")

R = TypeVar("R")

CHECKPOINT_PAGES = 1_000
_FOREVER = 2**63 - 1
_open_logs: weakref.WeakSet[SqliteLog] = weakref.WeakSet()


class _Unfinished(NamedTuple):
    """What is to be erased in a sealed file, and what stood in the way."""

    positions: Sequence[int]
    why: str
    passes: bool = True
    """Whether that may go away by itself, as a reader does."""


class SqliteLog(LogReader):
    """The EventLog of one domain: who may write, what is witnessed, when a log is opened, checkpointed, closed.

    `write` is the rule a new log is made with (None: "replace") and an existing one must have (None: any);
    `birth` a sealed birth row to start a new log from; `archives` folders in which more of its sealed files may be.
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
        self._write: WriteRule | None = write
        self._signals: set[int] | None = None
        self._known = GENESIS
        """The head when this object last looked; the hint says whether it still is."""
        self._sealed: LogFile | None = None
        """The file that was found to end in a seal. As long as it is the live one, the log has to go on in another."""
        self._draft: Draft | None = None
        self._latest: Latest | None = None
        """What was read ahead of the next seal; of the live file, or of one that was sealed meanwhile."""
        self._archives = [Path(folder) for folder in archives]
        self._halted: BaseException | None = None
        self._closed = self._forked = self._quiet = False
        self._erasing = False
        """Whether the WAL may hold what was erased."""
        self._unfinished: dict[Path, _Unfinished] = {}
        """Sealed files that may hold what was erased in the live one."""
        self._mutex, self._reopening = threading.RLock(), threading.Lock()
        self._open(accept_loss)
        _open_logs.add(self)

    # ---- opening

    def _open(self, accept_loss: bool) -> None:
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
                    self._take_charge(accept_loss)
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

    def _take_charge(self, accept_loss: bool) -> None:
        """Judge the file through its read-only connection; only then may a writer exist, which could hide the damage."""
        births = self._file.get([0])
        self.rule = recovery.require_birth(births[0] if births else None, domain=self.domain, store_id=self.store_id, write=self._write)
        if self.read_only:
            return
        found = self._found(self._file.end())
        loss = self._judge(found)
        if loss is not None:
            # Before a loss is accepted the evidence must be safe; a refusal changes nothing, copied or not.
            if not accept_loss:
                raise self._tail_lost(loss, found)
            self._quarantine(found.position)
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
                self._settle(path)

    def _settle(self, path: Path) -> None:
        """Checkpoint a sealed file that still has a WAL, as a reader stood in the way when it was sealed, or erased in."""
        wal = stat_or_none(path.with_name(f"{path.name}-wal"))
        if wal is not None and wal.st_size:
            self._erase_in(path, [])
            if (unfinished := self._unfinished.get(path)) is not None:
                _log.warning("%s: the sealed file %s was left with its WAL: %s", self.domain, path.name, unfinished.why)

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
                for path, unfinished in list(self._unfinished.items()):
                    self._erase_in(path, unfinished.positions)
            waits = self._erasing or any(unfinished.passes for unfinished in self._unfinished.values())
            if not (waits and wait) or time.monotonic() >= deadline:
                return not self._erasing and not self._unfinished
            time.sleep(0.01)

    def _erase_sealed(self, positions: Sequence[int]) -> None:
        """Erase in every other file at hand, wherever it stands. It is decided by now: what fails is told by copies(), and done later."""
        for path in self._files.places():
            if path != self._file.path:
                self._erase_in(path, positions)

    def _erase_in(self, path: Path, positions: Sequence[int]) -> None:
        """Erase in one sealed file, and empty its WAL: what it held stands in the database until a checkpoint. Under the lock."""
        before = self._unfinished.pop(path, None)
        if path not in self._files.places():
            return  # archived meanwhile: named as what is not at hand
        if before is not None:
            positions = sorted({*positions, *before.positions})
        try:
            # Through the reader, which refuses another log's file under this name.
            held, end = self._files.at(path, lambda file: (file.held(positions), file.end()))
            if not end.is_seal:  # of a WAL that lost its end SQLite says nothing
                raise FormatError(self.domain, end.head.position, f"{path} does not end in its seal; it is left as it is")
            wal = stat_or_none(path.with_name(f"{path.name}-wal"))
            if not held and before is None and (wal is None or wal.st_size == 0):
                return
            self._unfinished[path] = _Unfinished(positions, "a reader in another process keeps the file from being emptied of it")
            if erase_in(path, self.domain, held, busy_timeout_ms=self.busy_timeout_ms):
                del self._unfinished[path]
        except (EventStoreError, OSError, sqlite3.Error) as error:
            self._unfinished[path] = _Unfinished(positions, str(error), passes=isinstance(error, UnavailableError | sqlite3.Error))

    def copies(self) -> list[HeldCopy]:
        """See EventLog.copies."""
        advice = (
            "a reader in another process keeps the write-ahead log from being emptied: once it has ended, the next checkpoint does it,"
            " at the latest a close; redact the same again to see"
        )
        own = [HeldCopy(str(self._file.wal), advice)] if self._erasing else []
        sealed = [
            HeldCopy(str(path), f"{unfinished.why}; the next opening for writing tries again, or redact the same again")
            for path, unfinished in self._unfinished.items()
        ]
        return own + sealed + list(copies_of(self.store, self.domain, self.attached()))

    def _record(self, head: Head) -> None:
        """After a whole checkpoint everything up to `head` is durable, whatever its events were written with."""
        with os_errors(f"recording the head of domain {self.domain}"):
            self._head_file.witness(head)
            manifest.raise_head(self.store, self.domain, head)

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
                self._unfinished[sealed.path], self._erasing = _Unfinished([], "its write-ahead log was not emptied yet"), False
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

    # ---- sealed files that go elsewhere

    def _look(self, verb: Callable[[LogFiles], R]) -> R:
        """What the files say that are there now: another process may have moved some, of which who only reads on need not know."""

        def looked(files: LogFiles) -> R:
            files.refresh()
            return verb(files)

        return self._ask(looked)

    def sealed(self) -> list[int]:
        """See FileLog.sealed."""
        return self._look(LogFiles.sealed)

    def file(self, first: int | None = None) -> FileExtent:
        """See FileLog.file."""
        return self._ask(lambda files: files.extent(first))

    def leftovers(self) -> set[int]:
        """See FileLog.leftovers."""
        with os_errors(f"listing {self.folder}"):
            return database.firsts_in(self.folder) - {self._file.first}

    def archives(self, system: int | None = None) -> list[tuple[Archived, Path | None]]:
        """See FileLog.archives."""
        return self._look(lambda files: files.archives(system))

    def attached(self) -> list[Path]:
        """See FileLog.attached."""
        return self._look(LogFiles.attached)

    def missing(self) -> list[tuple[int, int]]:
        """See FileLog.missing."""
        return self._look(LogFiles.missing)

    def system(self) -> int:
        """See FileLog.system."""
        self._require_open()
        return self._file.last_system_position()

    def altered(self) -> list[tuple[Path, str]]:
        """See FileLog.altered."""
        return self._look(lambda files: list(files.altered()))

    def unseen(self, positions: Sequence[int]) -> list[tuple[Path, str]]:
        """See FileLog.unseen."""
        return self._look(lambda files: files.unseen(positions))

    def place(self, position: int) -> tuple[Path | None, int | None]:
        """See FileLog.place."""
        return self._ask(lambda files: files.place(position))

    def archived(self, system: int | None = None) -> list[Archived]:
        """See FileLog.archived."""
        return self._ask(lambda files: files.archived(system))

    def drop_sealed(self, first: int) -> None:
        """See FileLog.drop_sealed. The database first: without it nobody reads the files beside it, which it may still need."""
        path = database.log_file(self.folder, first)
        if first >= self._file.first:
            raise ConfigError(f"{self._what}: {path.name} is the live file; seal it first")
        with os_errors(f"removing {path}"):
            remove_files([path])
            remove_files(path.with_name(f"{path.name}{side}") for side in ("-wal", "-shm"))
        self._files.refresh()

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
        """See EventLog.resume. The new connections stand before the old ones go, so that the log can be read all the while."""
        self._require_open()
        if self.read_only:
            return
        with self._without_threads("resuming"):
            self._require_space()
            files, file, head_file = self._files, self._file, self._head_file
            try:
                self._open(accept_loss=False)
            except BaseException:
                self._files, self._file, self._head_file = files, file, head_file
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
            self._draft = self._latest = None

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
