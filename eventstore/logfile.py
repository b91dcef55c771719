"""LogFile: one SQLite file of a log. Rows in, rows out, durable; who may write when is decided above (sqlite.py)."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from eventstore import database
from eventstore.carried import Seal, read_seal
from eventstore.codec import GENESIS, erased
from eventstore.database import sqlite3
from eventstore.errors import AccessError, ConflictError, DiskFullError, FencedError, FormatError, NotAStoreError, Outcome
from eventstore.files import FILE_MODE, OUT_OF_SPACE, copy_files, file_size_limit, inode, lock_bytes, stat_or_none, sync_file, sync_folder
from eventstore.model import SYSTEM_KEY, Durability, Event, Head, Linked

_PAGE_BYTES = 4 * 2**20
_ROW_OVERHEAD = 120
_COPIED_PAGES = 1_000
_ERASED = 64
"""Values erased at a time: each is read once more, for its digest, and may be large."""
_INT64 = 2**63
_WAL_FRAME_HEADER = 24

_SELECT = f"SELECT {database.COLUMNS} FROM event"
_ROWS = """SELECT position, prev, recorded_us, when_us, checksum, key, meta,
 CASE WHEN op = 'put' AND typeof(data) = 'text' AND digest IS NULL AND typeof(salt) = 'blob' AND length(salt) = 16 THEN salt || data END
FROM event WHERE position > ? AND position <= ? ORDER BY position"""
_CHECKSUMS = "SELECT position, checksum FROM event WHERE position > ? AND position <= ? ORDER BY position LIMIT ?"
_CHECKSUMS_AT_A_TIME = 10_000
# By key and not by prev: of a log whose prev is wrong, no key may be lost on the way. Each of the log's own events is a key of its
# own, and no user's has such a name. One row of all: between two rows of a result another thread may take the interpreter.
_LATEST = f"""SELECT max(latest), sum(rows), json_group_object(key, latest) FROM (
 SELECT CASE WHEN key = '{SYSTEM_KEY}' THEN key || position ELSE key END AS key, max(position) AS latest, count(*) AS rows FROM (
  SELECT position, key FROM event WHERE position > ? AND position <= ? ORDER BY position LIMIT ?) GROUP BY 1)"""
_LATEST_AT_A_TIME = 10_000
_STATES = """SELECT position, when_us, op = 'remove', data IS NULL FROM event
WHERE position IN (SELECT value FROM json_each(?)) ORDER BY position"""
_HELD = "SELECT position FROM event WHERE position IN (SELECT value FROM json_each(?)) AND data IS NOT NULL AND key <> ? ORDER BY position"
_ERASED_ROWS = """SELECT position FROM event
WHERE position IN (SELECT value FROM json_each(?)) AND data IS NULL AND digest IS NOT NULL ORDER BY position"""
_LOST = """SELECT value FROM json_each(?1) WHERE NOT EXISTS (SELECT 1 FROM event WHERE event.position = value)
AND ({} OR value BETWEEN ?2 AND (SELECT max(position) FROM event)) ORDER BY value"""
_SIZES = "SELECT length(CAST(data AS BLOB)), length(key), length(meta) FROM event WHERE position >= ? ORDER BY position"
_BEFORE = "(SELECT checksum FROM event AS before WHERE before.position = event.position - 1)"
_BEFORE_CARRIED = "(SELECT previous FROM carried WHERE carried.position = event.position)"
_CHAIN = """WITH RECURSIVE link(position, prev, depth) AS (
 SELECT position, prev, 1 FROM event WHERE position = ?1
 UNION ALL
 SELECT event.position, event.prev, depth + 1 FROM link JOIN event ON event.position = link.prev
 WHERE link.prev > 0 AND link.prev < link.position AND depth < ?2)
"""
_IN_CHAIN = "position IN (SELECT position FROM link) ORDER BY position DESC"

_positions = msgspec.json.Decoder(dict[str, int]).decode


# Where SQLite keeps its locks: https://www.sqlite.org/src/file/src/os_unix.c, SHARED_FIRST and UNIX_SHM_DMS.
_SHARED_LOCK = (0x40000002, 510)
_SHM_DEAD_MAN_LOCK = (128, 1)
_held: list[int] = []
_lost: set[tuple[int, int]] = set()
"""Databases that a forked child can no longer join: their WAL was removed before it could say that it is there."""


class End(NamedTuple):
    """The last row of a file, and whether it is the file's own seal: then the log goes on in another one."""

    head: Head
    is_seal: bool


class LogFile:
    """A read-only connection for everything, and a writing one once become_writer() was called.

    Threads may read at any time; the methods that write must be called by one at a time, under the domain's lock.
    """

    def __init__(self, path: Path, domain: str, *, read_only: bool, busy_timeout_ms: int) -> None:
        self.path, self.domain = path, domain
        self.first = database.first_of(path)
        """The position that the file begins with, behind what it carries."""
        before = f"CASE WHEN position < {self.first} THEN {_BEFORE_CARRIED} ELSE {_BEFORE} END" if self.first else _BEFORE
        self._linked = f"SELECT {database.COLUMNS}, {before} FROM event"
        self.wal = path.with_name(f"{path.name}-wal")
        self._source = path
        """The file that is read: `path`, or a copy where nobody may write beside it."""
        self.failed: BaseException | None = None
        """What made the writing connection unbelievable; nothing may be written through it any more."""
        self.commit_us = 0
        """How long the last COMMIT took, and with it the fsync."""
        self.wal_pages = 0
        """About how many pages the WAL holds since the last whole checkpoint."""
        self._not_appended: int | None = None if self.first else 0
        """How many bytes of the file are no event that was appended to it: a constant, found out when it is asked for."""
        self._busy_timeout_ms = busy_timeout_ms
        self._reading = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._synchronous = ""
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        if inode(str(path)) in _lost:
            raise FencedError(
                f"domain {domain}: the process that forked this one closed the log in the same moment; open it in a fresh process"
            )
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            raise AccessError(f"{path} is a link: the WAL beside it would be another store's; put the file itself here")
        if not stat.S_ISREG(status.st_mode):
            raise NotAStoreError(str(path), "not a file; a log is a SQLite database")
        if status.st_nlink > 1 and not read_only:
            raise AccessError(
                f"{path} has {status.st_nlink} hard links: two processes could write it under two locks; remove the other names"
            )
        if status.st_size == 0:
            raise FormatError(domain, None, f"{path} is empty: its content was lost; put a copy back, with the files beside it")
        try:
            wal = stat_or_none(self.wal)
            if wal is None or wal.st_size == 0:
                # A first look without locks and side files. Not while a WAL holds pages: then the database alone may be
                # half a checkpoint, and only both together say what it is.
                with contextlib.closing(database.connect_reader(path, busy_timeout_ms=0, immutable=True)) as glance:
                    database.require_ours(glance, path, domain)
            self._reader = self._connect_reader(read_only)
        except sqlite3.DatabaseError as error:
            raise database.not_ours(error, path, domain) from error
        except UnicodeDecodeError as error:  # from the binding, when SQLite quotes a damaged schema
            raise FormatError(domain, None, f"the schema of {path} is damaged ({error}); put a copy back") from error
        try:
            database.require_ours(self._reader, path, domain)
        except BaseException:
            self._reader.close()
            raise
        self._name, self._wal_name = str(path), str(self.wal)
        self._inodes = (inode(self._name), inode(self._wal_name))

    def _connect_reader(self, read_only: bool) -> sqlite3.Connection:
        reader = database.connect_reader(self.path, busy_timeout_ms=self._busy_timeout_ms)
        try:
            reader.execute("SELECT count(*) FROM sqlite_master").fetchall()
            return reader
        except sqlite3.OperationalError:
            reader.close()
            if not read_only:
                raise
        # Media or a folder that nobody may write: SQLite cannot make the -shm it needs to read a WAL.
        status = stat_or_none(self.wal)
        if status is None or status.st_size == 0:
            return database.connect_reader(self.path, busy_timeout_ms=self._busy_timeout_ms, immutable=True)
        self._scratch = tempfile.TemporaryDirectory(prefix="eventstore-")
        copy = Path(self._scratch.name, self.path.name)
        copy_files([self.path, self.wal], copy.parent)
        self._source = copy
        return database.connect_reader(copy, busy_timeout_ms=self._busy_timeout_ms)

    def become_writer(self) -> None:
        """Open the writing connection. Only after the tail was judged: from here on SQLite may hide damage."""
        with self._translated():
            self._writer = database.connect_writer(self.path, busy_timeout_ms=self._busy_timeout_ms)
            mode = self._writer.execute("PRAGMA journal_mode").fetchone()[0]
        if mode != "wal":
            raise FormatError(self.domain, None, f"{self.path} is in journal mode {mode!r} instead of WAL: a tool changed it")
        status = stat_or_none(self.wal)
        self.wal_pages = status.st_size // database.PAGE_BYTES if status is not None else 0
        if not self.wal_pages:
            # The WAL is new. SQLite syncs its name with the first commit, and does not look whether that worked.
            sync_folder(self.path.parent)

    @property
    def writer(self) -> sqlite3.Connection:
        """The writing connection; become_writer() has been called."""
        assert self._writer is not None
        return self._writer

    # ---- reading

    def end(self) -> End:
        """The last row."""
        with self._reading, self._translated():
            return self._end_of(self._reader)

    def end_for_writing(self) -> End:
        """The last row as the writing connection sees it; under the lock that is the truth."""
        with self._translated():
            return self._end_of(self.writer)

    def _end_of(self, connection: sqlite3.Connection) -> End:
        position, checksum, op = self._end_row(connection)
        if not (isinstance(checksum, bytes) and isinstance(op, str)):
            raise FormatError(
                self.domain, position, f"the last row of {self.path} is no event; what is whole is carved out by `eventstore salvage`"
            )
        return End(Head(position, checksum), op == "seal" and position >= self.first)

    def _end_row(self, connection: sqlite3.Connection) -> tuple[int, Any, Any]:
        row: tuple[int, Any, Any] | None = connection.execute(database.END).fetchone()
        if row is None:
            raise FormatError(self.domain, None, f"{self.path} holds no events, not even the birth row; put a copy back")
        return row

    def page(self, after: int, until: int, limit: int) -> list[Event]:
        """The next events, at most `limit`, and not many more bytes than fit comfortably in memory."""
        with self._reading, self._translated():
            cursor = self._reader.execute(
                f"{_SELECT} WHERE position > ? AND position <= ? ORDER BY position LIMIT ?", (after, until, limit)
            )
            rows: list[Any] = []
            size = 0
            while size < _PAGE_BYTES and (some := cursor.fetchmany(16)):
                rows += some
                size += sum(len(row[10]) for row in some if isinstance(row[10], str | bytes))
            cursor.close()
        return _events(rows)

    def get(self, positions: Sequence[int]) -> list[Event]:
        """The rows at `positions`, ascending."""
        with self._reading, self._translated():
            return self._get(positions, self._reader)

    def _get(self, positions: Sequence[int], connection: sqlite3.Connection) -> list[Event]:
        return _events(connection.execute(*_at(_SELECT, positions)).fetchall())

    def linked(self, positions: Sequence[int]) -> list[Linked]:
        """See EventLog.linked."""
        with self._reading, self._translated():
            return _linked(self._reader.execute(*_at(self._linked, positions)).fetchall())

    def chain(self, position: int, limit: int) -> list[Linked]:
        """A key's events from `position` back, in one recursive query."""
        if limit <= 0 or not 0 <= position < _INT64:
            return []
        with self._reading, self._translated():
            return _linked(self._reader.execute(f"{_CHAIN}{self._linked} WHERE {_IN_CHAIN}", (position, limit)).fetchall())

    def carried(self, after: int, limit: int) -> list[Linked]:
        """The next rows that were carried over the seal before this file; of a log's first file the birth row."""
        query = f"{self._linked} WHERE position > ? AND position < ? ORDER BY position LIMIT ?"
        with self._reading, self._translated():
            return _linked(self._reader.execute(query, (after, max(self.first, 1), limit)).fetchall())

    def seals(self) -> list[Seal]:
        """The seals of all files before this one, the latest first. Raises FormatError where one is missing or says what cannot be."""
        if self.first == 0:
            return []
        with self._reading, self._translated():
            rows = self._reader.execute(f"{_CHAIN}{_SELECT} WHERE op = 'seal' AND {_IN_CHAIN}", (self.first - 1, _INT64 - 1)).fetchall()
        seals = [read_seal(event, self.domain) for event in _events(rows)]
        expected = self.first - 1
        for seal in seals:
            if seal.last != expected:
                break
            expected = seal.first - 1
        if expected != -1:
            raise FormatError(self.domain, expected, f"the seal that should stand here is not carried in {self.path}; put a copy back")
        return seals

    def archives(self, system: int | None = None) -> list[Event]:
        """The log's own events that say where sealed files were put, in order.

        `system` is where the log's own latest event stands, if that is known; else the whole file is read: there is no index.
        """
        with self._reading, self._translated():
            if system is not None:
                chain = self._reader.execute(f"{_CHAIN}{_SELECT} WHERE op = 'archive' AND {_IN_CHAIN}", (system, _INT64 - 1)).fetchall()
                return _events(chain[::-1])
            query = f"{_SELECT} WHERE key = ? AND op = 'archive' ORDER BY position"
            return _events(self._reader.execute(query, (SYSTEM_KEY,)).fetchall())

    def has_redactions(self) -> bool:
        """Whether a redact event stands here. Reads the whole file: there is no index; for verifying only."""
        with self._reading, self._translated():
            found = self._reader.execute("SELECT 1 FROM event WHERE key = ? AND op = 'redact' LIMIT 1", (SYSTEM_KEY,)).fetchone()
        return found is not None

    def span_us(self) -> tuple[int, int] | None:
        """When the first and the last event of a user that was appended to this file were recorded; None if there is none."""
        query = "SELECT recorded_us FROM event WHERE position >= ? AND key <> ? ORDER BY position {} LIMIT 1"
        with self._reading, self._translated():
            found = [self._reader.execute(query.format(order), (self.first, SYSTEM_KEY)).fetchone() for order in ("ASC", "DESC")]
        return None if found[0] is None else (int(found[0][0]), int(found[1][0]))

    def began_us(self) -> int | None:
        """When the first event behind what is carried was recorded; None if there is none."""
        with self._reading, self._translated():
            row = self._reader.execute("SELECT recorded_us FROM event WHERE position = ?", (max(self.first, 1),)).fetchone()
            return None if row is None else int(row[0])

    def size(self) -> int:
        """What the file and its WAL take on the disk."""
        return sum(status.st_size for path in (self.path, self.wal) if (status := stat_or_none(path)) is not None)

    def has_grown(self, by: int) -> bool:
        """See EventLog.has_grown. Pages, which others' writes make, too, and no values once it is known what was there at the beginning."""
        with self._reading, self._translated():
            (pages,) = self._reader.execute("PRAGMA page_count").fetchone()
            size = int(pages) * database.PAGE_BYTES
            if self._not_appended is None:
                if size < by:
                    return False
                appended = self._appended(by)
                if appended >= by:
                    return True
                self._not_appended = size - appended
        return size - self._not_appended >= by

    def _appended(self, enough: int) -> int:
        """About how many bytes the rows take that were appended to this file; counted no further than `enough`."""
        appended = 0
        cursor = self._reader.execute(_SIZES, (self.first,))
        while appended < enough and (some := cursor.fetchmany(64)):
            appended += sum(_ROW_OVERHEAD + sum(size or 0 for size in sizes) for sizes in some)
        cursor.close()
        return appended

    def checksums(self, after: int, until: int) -> list[tuple[int, Any]]:
        """The next positions with their checksums: those columns stand first, so large values cost nothing."""
        with self._reading, self._translated():
            return self._reader.execute(_CHECKSUMS, (after, until, _CHECKSUMS_AT_A_TIME)).fetchall()

    def latest(self, after: int, until: int) -> tuple[int, int, dict[str, int]] | None:
        """Of the next rows the last position, how many they are, and the latest of each key, the log's own events each by a key of its own.

        None if no more rows are there. No value is read.
        """
        with self._reading, self._translated():
            last, count, positions = self._reader.execute(_LATEST, (after, until, _LATEST_AT_A_TIME)).fetchone()
        return None if last is None else (last, count, _positions(positions))

    def rows_until(self, position: int) -> int:
        """How many rows up to `position`, which is no carried one's, a whole file has: what is carried, and no gap behind it."""
        if self.first == 0:
            return position + 1
        with self._reading, self._translated():
            (carried,) = self._reader.execute("SELECT count(*) FROM carried").fetchone()
        return int(carried) + position - self.first + 1

    def rows(self, after: int, until: int) -> list[tuple[Any, ...]]:
        """See RowLog.rows. Texts as bytes: what is hashed and looked at as bytes need not become text, and bytes again."""
        rows: list[tuple[Any, ...]] = []
        size = 0
        with self._reading, self._translated():
            self._reader.text_factory = bytes
            try:
                cursor = self._reader.execute(_ROWS, (after, until))
                while size < _PAGE_BYTES and (some := cursor.fetchmany(64)):
                    rows += some
                    size += sum([len(row[7] or b"") for row in some])
                cursor.close()
            finally:
                self._reader.text_factory = str
        return rows

    def states(self, positions: Sequence[int]) -> list[tuple[Any, ...]]:
        """See RowLog.states."""
        with self._reading, self._translated():
            return self._reader.execute(_STATES, (json.dumps(list(positions)),)).fetchall()

    def source(self) -> Path:
        """See RowLog.source."""
        return self._source

    def last_system_position(self) -> int:
        """Where the log's own latest event stands. Reads the whole file: there is no index; for recovery only."""
        with self._reading, self._translated():
            row = self._reader.execute("SELECT max(position) FROM event WHERE key = ?", (SYSTEM_KEY,)).fetchone()
            return int(row[0] or 0)

    def checksum_at(self, position: int) -> bytes | None:
        """The stored checksum at `position`, None if there is no such row."""
        with self._reading, self._translated():
            row = self._reader.execute("SELECT checksum FROM event WHERE position = ?", (position,)).fetchone()
            return None if row is None else bytes(row[0])

    def held(self, positions: Sequence[int]) -> list[int]:
        """Those of `positions` whose data stands here, in events of users."""
        with self._reading, self._translated():
            rows = self._reader.execute(_HELD, (json.dumps(list(positions)), SYSTEM_KEY)).fetchall()
        return [int(position) for (position,) in rows]

    def erased(self, positions: Sequence[int]) -> list[int]:
        """Those of `positions` that stand here without the data that they had."""
        with self._reading, self._translated():
            rows = self._reader.execute(_ERASED_ROWS, (json.dumps(list(positions)),)).fetchall()
        return [int(position) for (position,) in rows]

    def lost(self, positions: Sequence[int]) -> list[int]:
        """Those of `positions` that belong here, or are carried here, and are not found: the rows are damaged, and may hold anything."""
        carried = "EXISTS (SELECT 1 FROM carried WHERE carried.position = value)" if self.first else "FALSE"
        with self._reading, self._translated():
            rows = self._reader.execute(_LOST.format(carried), (json.dumps(list(positions)), self.first)).fetchall()
        return [int(position) for (position,) in rows]

    def integrity(self) -> list[str]:
        """What SQLite's own check of the file finds wrong."""
        with self._reading:
            try:
                found = [str(row[0]) for row in self._reader.execute("PRAGMA integrity_check(20)")]
                first = self._reader.execute("SELECT min(position) FROM event").fetchone()[0]
                if first != 0:
                    found.append(f"the first row is position {first}, not the birth row")
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                found = [str(error)]
        return [sentence for sentence in found if sentence != "ok"]

    # ---- copying

    def hold(self) -> Head:
        """Begin a read transaction: all that is read from now on is the file as it is now, whoever writes on. Ends with the connection."""
        with self._reading, self._translated():
            self._reader.execute("BEGIN")
            return self._end_of(self._reader).head

    def copy_to(self, target: Path, progress: Callable[[int, int], None] | None = None) -> None:
        """Copy the file that is held, page by page, to `target`, which must not exist; durable but for its name.

        `progress` is called with the pages done and all of them. Raises EngineError, DiskFullError, FormatError.
        """
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE))

        def told(_: int, left: int, pages: int) -> None:
            if progress is not None:
                progress(pages - left, pages)

        try:
            with self._reading, contextlib.closing(database.connect_copy(target)) as copy:
                self._reader.backup(copy, pages=_COPIED_PAGES, progress=told, sleep=0)
        except sqlite3.Error as error:
            raise database.engine_error(error, domain=self.domain, path=target) from error
        sync_file(target)

    # ---- writing

    def append(self, events: Sequence[Event], *, after: Head, durability: Durability, erase: Sequence[int]) -> None:
        """One transaction: all of it, or none. Raises ConflictError, EngineError with its outcome."""
        writer = self.writer
        rows = [msgspec.structs.astuple(event) for event in events]
        committing = False
        try:
            if writer.in_transaction:  # an interrupt came while an earlier one was rolled back
                writer.execute("ROLLBACK")
            self._set_synchronous(durability)
            # IMMEDIATE: a deferred transaction that has read cannot become a writer once anyone else has written;
            # SQLite answers SQLITE_BUSY_SNAPSHOT at once and busy_timeout is not asked (R10). The connection is ours alone
            # while we hold the lock, so rolling back whatever is open cannot end somebody else's transaction (R5).
            writer.execute("BEGIN IMMEDIATE")
            position, checksum, op = self._end_row(writer)
            if position != after.position or checksum != after.checksum:
                raise ConflictError(self.domain, after.position, position)
            if events and op == "seal" and position >= self.first:
                raise FencedError(
                    f"domain {self.domain}: {self.path} is sealed, and nothing is appended to it; close the store and open it again"
                )
            writer.executemany(database.INSERT, rows)
            for start in range(0, len(erase), _ERASED):  # never all of a large domain in memory
                for event in self._get(erase[start : start + _ERASED], writer):
                    writer.execute(database.ERASE, (erased(event).digest, event.position))
            committing = True
            began_ns = time.perf_counter_ns()
            writer.execute("COMMIT")
            self.commit_us = (time.perf_counter_ns() - began_ns) // 1_000
        except BaseException as error:
            self._give_up(error, committing)
            raise
        self.wal_pages += 1 + len(erase) + (sum(len(row[10] or "") for row in rows) + len(rows) * _ROW_OVERHEAD) // database.PAGE_BYTES

    def erase(self, positions: Sequence[int]) -> None:
        """Erase data in a sealed file, durably: the event that says so was appended to the live one. Raises EngineError."""
        self.append([], after=self.end_for_writing().head, durability="power", erase=positions)

    def _give_up(self, error: BaseException, committing: bool) -> None:
        """Roll back what failed, and raise the error that says whether it may have been written all the same."""
        try:
            if self.writer.in_transaction:
                self.writer.execute("ROLLBACK")
        except sqlite3.Error as rollback_error:
            self.failed = rollback_error
        if isinstance(error, UnicodeDecodeError):  # from the binding, when SQLite quotes a damaged trigger
            raise FormatError(self.domain, None, f"the database file is damaged ({error}); nothing was written; put a copy back") from error
        if not isinstance(error, sqlite3.Error):
            return
        full = database.primary_code(error) == sqlite3.SQLITE_FULL or self._at_size_limit(error)
        if full:
            raise DiskFullError(f"domain {self.domain}: SQLite says: {error}; {OUT_OF_SPACE}") from error
        unknown = committing
        if unknown:
            # After a failed fsync the kernel may have dropped the pages it could not write: nothing on this
            # connection can be believed again (fsyncgate); only opening anew, which reads the file, can.
            self.failed = error
        outcome: Outcome = "unknown" if unknown else "not_written"
        raise database.engine_error(error, domain=self.domain, path=self.path, outcome=outcome) from error

    def _at_size_limit(self, error: sqlite3.Error) -> bool:
        """Whether a write failed because a file may not grow further (RLIMIT_FSIZE), which SQLite calls an I/O error.

        The frame that did not fit is incomplete, so the transaction was not written.
        """
        if getattr(error, "sqlite_errorcode", 0) not in (database.IOERR_WRITE, sqlite3.SQLITE_IOERR):  # pysqlite3 says no more
            return False
        limit = file_size_limit()
        sizes = [status.st_size for path in (self.path, self.wal) if (status := stat_or_none(path)) is not None]
        return limit is not None and max(sizes) + database.PAGE_BYTES + _WAL_FRAME_HEADER > limit

    def _set_synchronous(self, durability: Durability) -> None:
        wanted = database.SYNCHRONOUS[durability]
        if wanted != self._synchronous:
            self.writer.execute(f"PRAGMA synchronous={wanted}")
            self._synchronous = wanted

    def sync_wal(self) -> None:
        """Make what stands durable. The WAL carries no POSIX locks, so opening it beside SQLite is safe; the database is not (R4)."""
        if not self.wal.exists():
            return
        descriptor = os.open(self.wal, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(self.path.parent)

    def renew_wal(self) -> None:
        """Write every byte of the WAL again, where it stands, and make it durable. Under the domain's lock.

        After a failed sync the kernel takes the pages for written and never tries again (fsyncgate): they are read back
        from its memory, and are on no disk. No later sync says so. What is written again is as good as new, and as the
        bytes are the same, nothing can be half done.
        """
        if not self.wal.exists():
            return
        descriptor = os.open(self.wal, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            at = 0
            while content := os.pread(descriptor, _PAGE_BYTES, at):
                at += os.pwrite(descriptor, content, at)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(self.path.parent)

    def checkpoint(self, mode: str) -> bool:
        """Copy the WAL into the database, RESTART or TRUNCATE, never PASSIVE (R3); whether all of it was copied.

        RESTART keeps the WAL's blocks; TRUNCATE would make every later fsync pay for a growing file.
        Raises sqlite3.Error; what was appended is safe whether this works or not.
        """
        writer = self.writer
        writer.execute("PRAGMA busy_timeout=10")
        try:
            busy, frames, copied = writer.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            if database.primary_code(error) == sqlite3.SQLITE_IOERR:
                self.failed = error
            raise
        finally:
            writer.execute(f"PRAGMA busy_timeout={self._busy_timeout_ms}")
        whole = not busy and frames == copied
        if whole:
            self.wal_pages = 0
        return whole

    # ---- whose file it is, and letting go of it

    def is_same(self) -> bool:
        """Whether the paths still lead to the files that were opened."""
        # The WAL appears with the first write of a new file and stays until the last connection closes.
        wal = inode(self._wal_name)
        if self._inodes[1] is None:
            self._inodes = (self._inodes[0], wal)
        return (inode(self._name), wal) == self._inodes

    def close_reader(self) -> None:
        """Close the reading connection, first: the writing one must be the last to close."""
        with self._reading:
            self._reader.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    def close_writer(self) -> None:
        """Close the writing connection. Under the domain's lock: the last one to close removes the WAL."""
        if self._writer is not None:
            self._writer.close()

    def before_fork(self) -> None:
        """Let the statement under way end: a copy of it would hold its locks for ever in the child."""
        self._reading.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._reading.release()

    def abandon(self) -> None:
        """In a forked child: keep the parent's handles, untouched, and hold for real the locks that SQLite believes to hold (R9).

        SQLite knows files by inode: a connection that the child opens joins the inherited state, in which the database is
        locked already, though fcntl locks do not survive a fork. Without them the parent, or anybody else, would take
        itself for the last one and remove the WAL under the child.
        """
        self._reading = threading.Lock()
        for connection in (self._reader, self._writer):
            if connection is not None:  # never closed, not even by the collector: it shares its file offsets with the parent's
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        shm = self.path.with_name(f"{self.path.name}-shm")
        try:
            for path, start, length in ((self.path, *_SHARED_LOCK), (shm, *_SHM_DEAD_MAN_LOCK)):
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                _held.append(descriptor)  # for the life of the process: closing it would drop the lock
                lock_bytes(descriptor, start, length)
            joined = self.is_same()
        except OSError:
            joined = False
        if not joined and self._inodes[0] is not None:
            _lost.add(self._inodes[0])

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise database.engine_error(error, domain=self.domain, path=self.path) from error
        except UnicodeDecodeError as error:  # from the binding, when SQLite quotes a damaged schema
            raise FormatError(self.domain, None, f"the database file is damaged ({error})") from error


def erase_in(path: Path, domain: str, positions: Sequence[int], *, busy_timeout_ms: int) -> bool:
    """Erase in a sealed file, wherever it stands, and empty its WAL, which holds it until then; False while a reader keeps that from being
    done. Raises CorruptionError, EngineError, OSError, sqlite3.Error.
    """
    file = LogFile(path, domain, read_only=False, busy_timeout_ms=busy_timeout_ms)
    try:
        file.become_writer()
        if positions:
            file.erase(positions)
        if whole := file.checkpoint("TRUNCATE"):
            file.sync_wal()
        return whole
    finally:
        file.close_reader()
        file.close_writer()


def _at(select: str, positions: Sequence[int]) -> tuple[str, tuple[Any, ...]]:
    """The query for the rows at `positions`, ascending, and what it is asked with."""
    positions = [position for position in positions if 0 <= position < _INT64]
    if len(positions) <= 2:
        return f"{select} WHERE position IN (?, ?) ORDER BY position", (positions[0], positions[-1]) if positions else (-1, -1)
    return f"{select} WHERE position IN (SELECT value FROM json_each(?)) ORDER BY position", (json.dumps(positions),)


def _events(rows: list[Any]) -> list[Event]:
    return list(starmap(Event, rows))


def _linked(rows: list[Any]) -> list[Linked]:
    return [Linked(GENESIS.checksum if row[0] == 0 else row[-1], Event(*row[:-1])) for row in rows]
