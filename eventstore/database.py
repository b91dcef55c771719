"""The table, its guard rails, connections to it, and what SQLite's errors mean (FORMAT.md section 2)."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec
from sqlite_utils import Database

# pysqlite3 where it is installed, else the standard library's. Everybody imports it from here: two SQLite libraries in
# one process drop each other's locks, and acknowledged rows with them (RELIABILITY.md R4).
from sqlite_utils.utils import sqlite3 as sqlite3

from eventstore.codec import FORMAT, other_format
from eventstore.errors import (
    AccessError,
    DiskFullError,
    EngineError,
    EventStoreError,
    FormatError,
    NotAStoreError,
    Outcome,
    ReadOnlyError,
    StoreFormatError,
    UnavailableError,
)
from eventstore.files import (
    FILE_MODE,
    OUT_OF_DESCRIPTORS,
    OUT_OF_SPACE,
    file_size_limit,
    has_descriptors,
    lock_holder,
    stat_or_none,
    sync_folder,
)
from eventstore.model import Durability, Event

# Extended result codes (https://www.sqlite.org/rescode.html), which pysqlite3 has no names for.
IOERR_WRITE, IOERR_TRUNCATE, IOERR_SHMSIZE = 778, 1_546, 4_874

APPLICATION_ID = 0x45564B31
USER_VERSION = FORMAT + 1
PAGE_BYTES = 8_192
_SHM_BYTES = 32_768
_DESCRIPTORS = 8
"""More than the database, its WAL and its -shm take for two connections."""
_WAY_OUT = "put a copy back, or carve the events out if it was a log: `eventstore salvage STORE OUT`"
_LOG_NAME = re.compile(r"[0-9]{20}\.db")
_IDS_NAME = re.compile(r"[0-9]{20}-[0-9]{20}\.ids")
_SIDE_NAME = re.compile(r"([0-9]{20})\.db(-wal|-shm)?")

TABLE = """CREATE TABLE event(
 position    INTEGER PRIMARY KEY,
 prev        INTEGER NOT NULL,
 recorded_us INTEGER NOT NULL,
 when_us     INTEGER,
 op          TEXT NOT NULL,
 checksum    BLOB NOT NULL,
 key         TEXT NOT NULL,
 meta        TEXT,
 salt        BLOB,
 digest      BLOB,
 data        ANY
) STRICT"""

# Guard rails against tools, not security. The first stops INSERT OR REPLACE, which goes around the other two.
TRIGGERS = (
    """CREATE TRIGGER event_insert BEFORE INSERT ON event
WHEN NEW.position IS NOT (SELECT ifnull(max(position), -1) + 1 FROM event)
BEGIN SELECT RAISE(ABORT, 'events are appended: the position must be the last one plus one'); END""",
    """CREATE TRIGGER event_update BEFORE UPDATE ON event
WHEN OLD.key = '[]' OR NEW.data IS NOT NULL OR NEW.salt IS NOT NULL OR OLD.digest IS NOT NULL OR NEW.digest IS NULL
  OR length(NEW.digest) <> 32 OR NEW.position IS NOT OLD.position OR NEW.prev IS NOT OLD.prev OR NEW.recorded_us IS NOT OLD.recorded_us
  OR NEW.when_us IS NOT OLD.when_us OR NEW.op IS NOT OLD.op OR NEW.checksum IS NOT OLD.checksum OR NEW.key IS NOT OLD.key
  OR NEW.meta IS NOT OLD.meta
BEGIN SELECT RAISE(ABORT, 'events do not change: only a redaction may erase data'); END""",
    """CREATE TRIGGER event_delete BEFORE DELETE ON event
BEGIN SELECT RAISE(ABORT, 'events are not deleted'); END""",
)

CARRIED_TABLE = "CREATE TABLE carried(position INTEGER PRIMARY KEY, previous BLOB NOT NULL) STRICT"
"""Beside `event` in every file but a log's first: the checksum of the event before each carried one, by which that one is proven alone."""

CARRIED_TRIGGERS = tuple(
    f"CREATE TRIGGER carried_{verb.lower()} BEFORE {verb} ON carried BEGIN SELECT RAISE(ABORT, 'what is carried does not change'); END"
    for verb in ("INSERT", "UPDATE", "DELETE")
)

COLUMNS = "position, prev, recorded_us, when_us, op, checksum, key, meta, salt, digest, data"
INSERT = f"INSERT INTO event({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
ERASE = "UPDATE event SET data = NULL, salt = NULL, digest = ? WHERE position = ? AND data IS NOT NULL"
END = "SELECT position, checksum, op FROM event ORDER BY position DESC LIMIT 1"

SYNCHRONOUS: dict[Durability, str] = {"process": "NORMAL", "power": "FULL", "power+": "FULL"}


def connect_writer(path: Path, *, busy_timeout_ms: int) -> sqlite3.Connection:
    """A read-write connection. Never let it be closed outside the domain's lock: the last one to close checkpoints."""
    connection = _connect(path, "mode=rw", busy_timeout_ms)
    # fullfsync only matters on macOS, where fsync alone does not reach the disk.
    # temp_store: what a statement would restore if it failed is written down first, and must not go to a file outside the store.
    for pragma in ("secure_delete=ON", "temp_store=MEMORY", "fullfsync=ON", "checkpoint_fullfsync=ON", "wal_autocheckpoint=0"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def connect_reader(path: Path, *, busy_timeout_ms: int, immutable: bool = False) -> sqlite3.Connection:
    """A read-only connection: it neither checkpoints nor removes the WAL, however it is closed.

    `immutable` reads the database file alone, without locks, WAL or side files: only for a look at its header.
    """
    return _connect(path, "mode=ro&immutable=1" if immutable else "mode=ro", busy_timeout_ms)


def connect_copy(path: Path) -> sqlite3.Connection:
    """A connection to fill an empty file that nobody knows yet, and that is synced whole afterwards: a journal would only cost fsyncs."""
    connection = _connect(path, "mode=rw", 0)
    connection.execute("PRAGMA journal_mode=OFF").fetchall()
    connection.execute("PRAGMA synchronous=OFF")
    return connection


def _connect(path: Path, mode: str, busy_timeout_ms: int) -> sqlite3.Connection:
    connection: sqlite3.Connection = sqlite3.connect(
        f"{path.as_uri()}?{mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=busy_timeout_ms / 1_000
    )
    # cell_size_check and trusted_schema: a file may have been edited by somebody who wishes us ill.
    for pragma in ("cell_size_check=ON", "trusted_schema=OFF"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def make(path: Path, birth: Event) -> None:
    """A new log file with its birth row: it appears whole, or not at all (R7)."""
    with contextlib.closing(begin_file(path)) as connection:
        connection.execute(INSERT, msgspec.structs.astuple(birth))
        finish_file(connection, path)


def begin_file(path: Path) -> sqlite3.Connection:
    """A connection to a file with an empty table, under a name that nobody reads: what finish_file() gives the name `path`."""
    new = _unfinished(path)
    discard_file(path)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE))
    connection = connect_writer(new, busy_timeout_ms=0)
    # Nobody knows this file yet, and it is synced whole below: a journal would only cost a dozen fsyncs.
    connection.execute("PRAGMA journal_mode=OFF").fetchall()
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
    connection.execute("PRAGMA encoding='UTF-8'")
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={USER_VERSION}")
    connection.execute(TABLE)
    return connection


def finish_file(connection: sqlite3.Connection, path: Path, triggers: Iterable[str] = TRIGGERS) -> None:
    """Give the file that begin_file() began its guard rails and its name, both durable, and close it.

    The triggers come last, so that rows carried over from a sealed file can stand before them.
    """
    new = _unfinished(path)
    for trigger in triggers:
        connection.execute(trigger)
    # From here on a WAL file; closing the only connection leaves the database file alone, complete and synced.
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    descriptor = os.open(new, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    new.rename(path)
    sync_folder(path.parent)
    sync_folder(path.parent.parent)  # whoever made the folder may have died before its name was durable


def discard_file(path: Path) -> None:
    """Remove what begin_file() began for `path` and nobody finished."""
    for stale in path.parent.glob(f"{_unfinished(path).name}*"):
        stale.unlink()


def _unfinished(path: Path) -> Path:
    return path.with_name(f".tmp-{path.name}.new")


def log_file(folder: Path, first: int) -> Path:
    """The path of the file of a log that begins with position `first`."""
    return folder / f"{first:020d}.db"


def first_of(path: Path) -> int:
    """The position that a file of a log begins with: its name says it."""
    return int(path.stem)


def log_files(folder: Path) -> list[Path]:
    """The files of a log, in order; none where there is no folder. Raises OSError: a folder that cannot be listed is not empty.

    By their whole name: one that a killed process left half made is none of them.
    """
    return _listed(folder, _LOG_NAME)


def id_files(folder: Path) -> list[Path]:
    """The files that keep the event ids of what is not in the log's folder any more (pointers.py), sorted; as log_files() lists."""
    return _listed(folder, _IDS_NAME)


def _listed(folder: Path, name: re.Pattern[str]) -> list[Path]:
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(folder / each for each in names if name.fullmatch(each))


def firsts_in(folder: Path) -> set[int]:
    """Where the files of a log begin that stand here, or whose WAL or -shm still does. Raises OSError."""
    return {int(found[1]) for name in os.listdir(folder) if (found := _SIDE_NAME.fullmatch(name))}


def require_ours(connection: sqlite3.Connection, path: Path, domain: str) -> None:
    """Refuse a file that is not a log of this format.

    Raises NotAStoreError, NewerFormatError, StoreFormatError; FormatError where the damage shows that it is ours.
    """
    try:
        application_id = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if application_id != APPLICATION_ID:
            found = f"application id {application_id:#x}, expected {APPLICATION_ID:#x}"
            raise NotAStoreError(str(path), f"{found}: another program's database, or its header is damaged; {_WAY_OUT}")
        if version != USER_VERSION:
            raise other_format(str(path), version - 1)
        database = Database(connection, execute_plugins=False)
        names = database.table_names()
        for name, schema in {"event": TABLE, **({"carried": CARRIED_TABLE} if first_of(path) else {})}.items():
            if name not in names or database.table(name).schema != schema:
                raise StoreFormatError(str(path), f"the table `{name}` is not that of format {FORMAT}: altered by a tool")
    except sqlite3.DatabaseError as error:
        raise not_ours(error, path, domain) from error
    except UnicodeDecodeError as error:  # from the binding, when SQLite quotes a damaged schema
        raise FormatError(domain, None, f"the schema of {path} is damaged ({error}); put a copy back") from error


def not_ours(error: sqlite3.Error, path: Path, domain: str) -> EventStoreError:
    """What it means that SQLite cannot read a file: damage and a foreign file look alike, anything else is the machine's."""
    if primary_code(error) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return NotAStoreError(str(path), f"not a log of an event store, or its header is destroyed ({error}); {_WAY_OUT}")
    return engine_error(error, domain=domain, path=path)


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's result code without its extension; 0 for what the binding itself raised."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _no_space(error: sqlite3.Error, path: Path) -> bool:
    """Whether a file could not grow: what SQLite calls an I/O error where it is the -shm, or a limit of this process.

    A -shm that cannot grow because the disk is broken is told as full, too: SQLite's code for it, IOERR_SHMSIZE, is one for
    ENOSPC and EIO, and the errno behind it has no way out of the binding. pysqlite3 gives the primary code alone, and for
    backup() none, so there a broken disk that is nearly full is told as full. What the error says of its outcome does not
    depend on it.
    """
    extended = getattr(error, "sqlite_errorcode", 0)
    limited = file_size_limit() is not None
    if extended == sqlite3.SQLITE_IOERR or (not extended and str(error) == "disk I/O error"):  # pysqlite3 does not say which: the disk does
        disk = os.statvfs(path.parent)
        return limited or disk.f_bavail * disk.f_frsize < _SHM_BYTES
    return extended == IOERR_SHMSIZE or (limited and extended in (IOERR_WRITE, IOERR_TRUNCATE))


def engine_error(
    error: sqlite3.Error, *, domain: str, path: Path, outcome: Outcome = "not_written", doing: str | None = None
) -> EventStoreError:
    """The error of ours that says what SQLite's means, and what to do; `doing` what, if it is not the domain's log."""
    code = primary_code(error)
    what = f"{doing or f'domain {domain}'}: SQLite says: {error}"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "decode to UTF-8" in str(error):
        return FormatError(domain, None, f"the database file is damaged ({error}); run `eventstore verify`")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        status = stat_or_none(path.with_name(f"{path.name}-shm"))
        holder = lock_holder(status) if status else None
        by = f"process {holder}" if holder else "another program"
        return UnavailableError(f"{what}; {by} holds the database; wait for it, then try again", holder=holder)
    # By its words, too: pysqlite3's backup() tells no code.
    if code == sqlite3.SQLITE_FULL or str(error) == "database or disk is full" or _no_space(error, path):
        return DiskFullError(f"{what}; {OUT_OF_SPACE}", outcome=outcome)
    if code == sqlite3.SQLITE_READONLY:
        return ReadOnlyError(f"{what}; check the permissions of {path} and its folder", outcome=outcome)
    if code == sqlite3.SQLITE_CANTOPEN and not has_descriptors(_DESCRIPTORS):  # SQLite says of every open() that fails the same
        return EngineError(f"{what} ({path}); {OUT_OF_DESCRIPTORS}", outcome=outcome)
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return AccessError(f"{what} ({path}); check owner and permissions of the folder", outcome=outcome)
    return EngineError(what, outcome=outcome)
