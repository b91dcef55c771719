"""A second opinion on a log: this file knows the format of the bytes, and not one line of the library that wrote them.

    python tests/verifier.py LOG [HEAD]

LOG is the log of a domain: a `.db` file (its store is not needed), or the folder that holds all its files; HEAD is its
witness, if there is one. Each finding is one line on standard output: position, kind, message. Exit codes: 0 nothing
found, 1 findings, 2 the file could not be judged, 3 wrong usage.

It stands on the standard library alone, so it can be carried next to the file to a machine that has nothing else, and
it shares no code with `eventstore`: where both agree, the agreement means something. Every row is judged for itself
against the checksum stored in the row before it, so one altered event is one finding and not a finding for everything
that follows.

The file is opened read-only and never changed. Run it in a process of its own while somebody writes to the log: a
second SQLite library in one process would drop the first one's locks.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

Kind = Literal[
    "file",  # no database, not one of ours, or unreadable from some point on
    "schema",  # the table is not the table of the format
    "birth",  # row 0 does not say whose log this is
    "position",  # missing, doubled, or not a position at all
    "order",  # recorded_us does not rise
    "prev",  # not the latest earlier event of the same key
    "op",  # unknown, or not for this key
    "key",  # not canonical
    "meta",  # neither NULL nor a non-empty JSON object, or its codec does not fit the data
    "salt",  # not exactly where data is, or not 16 bytes
    "data",  # of the wrong type for its row, or not JSON
    "digest",  # not 32 bytes, beside data, or without the redaction that explains it
    "checksum",  # the bytes are not those that were sealed, or do not follow the row before
    "witness",  # the witness is damaged, or knows another history
    "tail",  # the witness knows events that are not in the log
    "carried",  # what a file takes over from the one before it is not what was sealed there
]

FORMAT = 1
APPLICATION_ID = 0x45564B31
USER_VERSION = FORMAT + 1
PAGE_SIZE = 8192
HEADER = struct.Struct(">QQQqBBHI")
SYSTEM_KEY = "[]"
USER_OPS = {"put", "remove"}
SYSTEM_OPS = {"open", "rules", "redact", "seal", "archive", "loss"}
MAX_KEY_BYTES = 1024
MAX_KEY_NUMBER = 2**53
SALT_BYTES = 16
HASH_BYTES = 32

COLUMNS = [
    ("position", "INTEGER"),
    ("prev", "INTEGER"),
    ("recorded_us", "INTEGER"),
    ("when_us", "INTEGER"),
    ("op", "TEXT"),
    ("checksum", "BLOB"),
    ("key", "TEXT"),
    ("meta", "TEXT"),
    ("salt", "BLOB"),
    ("digest", "BLOB"),
    ("data", "ANY"),
]
NOT_NULL = {"prev", "recorded_us", "op", "checksum", "key"}
TRIGGERS = {"event_insert", "event_update", "event_delete"}
CARRIED = "CREATE TABLE carried(position INTEGER PRIMARY KEY, previous BLOB NOT NULL) STRICT"

SHAPE: set[Kind] = {"op", "meta", "salt", "data", "digest"}
"""Rules that are checked before anything is hashed."""

NO_VERDICT = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}
"""What keeps SQLite from reading without anything being wrong with the log."""

_DOMAIN = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_STORE_ID = re.compile(r"[0-9a-f]{32}")


class Finding(NamedTuple):
    """One broken rule. `position` is None where no single event is meant."""

    position: int | None
    kind: Kind
    message: str


class Head(NamedTuple):
    """The last position of a log, or of a witness, and the checksum there."""

    position: int
    checksum: bytes


class Row(NamedTuple):
    """An event as it lies in the table: TEXT as the bytes that are stored, so that even broken UTF-8 can be judged."""

    position: int
    prev: int
    recorded_us: int
    when_us: int | None
    op: bytes
    checksum: bytes
    key: bytes
    meta: bytes | None
    salt: bytes | None
    digest: bytes | None
    data: bytes | None
    is_blob: bool


@dataclass
class Log:
    """What is known after some rows: what the next row is judged against, and what was found so far."""

    findings: list[Finding] = field(default_factory=list)
    head: Head | None = None
    recorded_us: int = -1
    latest: dict[bytes, int] = field(default_factory=dict)
    redacted: set[int] = field(default_factory=set)
    explained: set[int] = field(default_factory=set)
    witness: Head | None = None
    witnessed: bytes | None = None
    rows: dict[int, tuple[bytes, bool]] = field(default_factory=dict)
    """Checksum of every row seen in the file it was appended to, and whether it holds its data."""

    def found(self, position: int | None, kind: Kind, message: str) -> None:
        self.findings.append(Finding(position, kind, message))


class Report(NamedTuple):
    """The head that was reached, and every finding."""

    head: Head | None
    findings: list[Finding]


def verify(path: Path, witness: Path | None = None, *, domain: str | None = None, store_id: str | None = None) -> Report:
    """Judge the log at `path`, a file or a folder of them, by every rule of the format that it and its witness can break.

    A file that does not begin the log is judged behind what it carries, where the one before it is not there.

    `domain` and `store_id` say whose log this should be, where the caller knows: a log that somebody sealed anew from
    its birth on is without fault in itself, and only what is known outside of it can tell it from the real one.
    Raises OSError if a file cannot be read, so that nothing can be said about it.
    """
    log = Log()
    if witness is not None:
        _read_witness(log, witness)
    for file in sorted(path.glob("[0-9]*.db")) if path.is_dir() and any(path.glob("[0-9]*.db")) else [path]:
        # Not opened to find out: closing a second descriptor would drop the locks of a SQLite in this process.
        if not file.is_file() or not os.access(file, os.R_OK):
            raise FileNotFoundError(f"{file} is not a file that can be read")
        try:
            with closing(_connect(file)) as connection:
                _judge_file(log, connection, int(file.stem) if file.stem.isdecimal() else 0, domain, store_id)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in NO_VERDICT:
                raise OSError(f"{file}: {error}") from error
            after = "" if log.head is None else f" after position {log.head.position}"
            log.found(None, "file", f"cannot be read{after}: {error}")
    for position in sorted(log.redacted - log.explained):
        log.found(position, "digest", "no later redact event names this position")
    _judge_witness(log)
    return Report(log.head, sorted(log.findings, key=lambda found: (found.position is not None, found.position or 0)))


def _judge_file(log: Log, connection: sqlite3.Connection, first: int, domain: str | None, store_id: str | None) -> None:
    """One file: what it carries over from the one before it, and the events that were appended to it."""
    if not _judge_schema(log, connection):
        return
    rows = _rows(connection)
    if first:
        found = connection.execute("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = 'carried'").fetchall()
        if found != [(CARRIED,)]:
            log.found(None, "schema", "there is no table `carried` as the format has it")
            return
        previous = dict(connection.execute("SELECT position, previous FROM carried").fetchall())
        carried = [row for row in _rows(connection) if row.position < first]
        _judge_carried(log, carried, previous, first, domain, store_id)
    for row in rows:
        if row.position >= first or not first:
            _judge_row(log, row, domain, store_id)


def _judge_carried(log: Log, carried: list[Row], previous: dict[int, bytes], first: int, domain: str | None, store_id: str | None) -> None:
    """Section 8: the rows before position `first`, against themselves, the seal, and the file before."""
    digest = sha256()
    latest: dict[bytes, int] = {}
    for row in carried:
        at, before = row.position, previous.pop(row.position, b"")
        apart = Log(head=Head(at - 1, before) if at else None, recorded_us=-1, latest={row.key: row.prev})
        _judge_row(apart, row, domain, store_id)
        for finding in apart.findings:
            log.found(at, "carried", f"as it is carried over position {first - 1}: {finding.message}")
        known = log.rows.get(at)
        if known is not None and known != (row.checksum, row.data is not None):
            log.found(at, "carried", "what is carried is not what the file before holds")
        if row.key == SYSTEM_KEY.encode() and row.prev != latest.get(row.key, 0):
            log.found(at, "carried", f"position {row.prev}, the log's own event before this one, is not carried")
        latest[row.key] = at
        log.explained |= apart.explained
        log.redacted |= apart.redacted
        if at < first - 1:
            digest.update(at.to_bytes(8) + before + row.checksum)
    if previous:
        log.found(min(previous), "carried", "a checksum is carried without its event")
    if not carried or carried[-1].position != first - 1 or carried[-1].op != b"seal":
        log.found(first - 1, "carried", "the file does not begin behind a seal")
        return
    seal = carried[-1]
    said = _json(seal.data or b"")
    start = int(said.get("first", "0")) if isinstance(said, dict) else 0
    wanted = {
        "first": str(start),
        "last": str(first - 1),
        "count": str(first - start),
        "carried": str(len(carried) - 1),
        "carried_digest": digest.hexdigest(),
    }
    if said != wanted:
        log.found(seal.position, "carried", f"the seal says {said}, and not {wanted}")
    if log.head is None:
        log.head, log.recorded_us, log.latest = Head(seal.position, seal.checksum), seal.recorded_us, latest
        if log.witness is not None and log.witness.position == seal.position:
            log.witnessed = seal.checksum
    elif log.head.position != seal.position:
        log.found(seal.position, "position", f"the file before ends in position {log.head.position}, not in the seal")
    elif log.latest != latest:
        log.found(seal.position, "carried", "other events are carried than the latest of every key")


def _connect(path: Path) -> sqlite3.Connection:
    """Read-only, and without leaving a file beside the evidence.

    Without a WAL everything is in the one file, and `immutable` reads it without locks or side files. With one, events
    may be in the WAL alone, and only an ordinary reader sees them.
    """
    mode = "mode=ro" if Path(f"{path}-wal").exists() else "mode=ro&immutable=1"
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None)
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    return connection


def _judge_schema(log: Log, connection: sqlite3.Connection) -> bool:
    """Section 2: the file and the table; False if there is no table to read rows from."""
    wanted = {"application_id": APPLICATION_ID, "user_version": USER_VERSION, "page_size": PAGE_SIZE, "encoding": "UTF-8"}
    for name, value in wanted.items():
        found = connection.execute(f"PRAGMA {name}").fetchone()[0]
        if found != value:
            log.found(None, "schema", f"{name} is {found!r}, not {value!r}")
    tables = connection.execute("SELECT type, wr, strict FROM pragma_table_list WHERE schema = 'main' AND name = 'event'").fetchall()
    if not tables:
        log.found(None, "schema", "there is no table `event`")
        return False
    if tables != [("table", 0, 1)]:
        log.found(None, "schema", "`event` is not a STRICT table with row ids")
    described = connection.execute("SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo('event')").fetchall()
    columns = [(name, kind) for name, kind, _, _, _ in described]
    if columns != COLUMNS:
        log.found(None, "schema", f"the columns are {columns}, not {COLUMNS}")
        return False
    for name, _, not_null, primary, hidden in described:
        # A primary key of integers is never NULL, whether the table says so or not.
        if primary != (name == "position") or hidden or (name != "position" and bool(not_null) != (name in NOT_NULL)):
            log.found(None, "schema", f"the column {name} is not declared as the format has it")
    for kind, name in connection.execute("SELECT type, name FROM sqlite_schema WHERE tbl_name = 'event' AND type <> 'table' ORDER BY name"):
        if kind != "trigger" or name not in TRIGGERS:
            log.found(None, "schema", f"the {kind} {name} does not belong to the table")
    return True


def _rows(connection: sqlite3.Connection) -> Iterator[Row]:
    """Every row in order of position, as bytes; a row whose columns have types the table forbids ends the reading."""
    # STRICT was checked, but a table can be made strict after rows came in; typeof() tells what is really there.
    allowed = {"op": "text", "checksum": "blob", "key": "text", "meta": "text null", "salt": "blob null", "digest": "blob null"}
    allowed |= {"prev": "integer", "recorded_us": "integer", "when_us": "integer null", "data": "text blob null"}
    select = ", ".join(f"CAST({name} AS BLOB)" if kind in ("TEXT", "ANY") else name for name, kind in COLUMNS)
    types = ", ".join(f"typeof({name})" for name in allowed)
    for values in connection.execute(f"SELECT {select}, {types} FROM event ORDER BY position"):
        found = dict(zip(allowed, values[len(COLUMNS) :], strict=True))
        for name, kinds in allowed.items():
            if found[name] not in kinds.split():
                raise sqlite3.DatabaseError(f"{name} of position {values[0]} is of type {found[name]}")
        yield Row._make([*values[: len(COLUMNS)], found["data"] == "blob"])


def _judge_row(log: Log, row: Row, domain: str | None, store_id: str | None) -> None:
    """One event, against what came before it."""
    before = len(log.findings)
    if row.position == 0:
        _judge_birth(log, row, domain, store_id)
    follows = _judge_place(log, row)
    _judge_op_and_key(log, row)
    meta = _judge_meta(log, row)
    _judge_data(log, row, meta)
    # Behind a gap there is nothing to compare with, and a row of broken shape has no defined bytes to hash; either is a
    # finding already.
    judgeable = follows and not any(found.kind in SHAPE for found in log.findings[before:])
    if judgeable and row.checksum != _checksum(row, "codec" in meta, None if log.head is None else log.head.checksum):
        log.found(row.position, "checksum", "this event, or its place in the log, is not what was sealed")
    log.head = Head(row.position, row.checksum)
    log.rows[row.position] = row.checksum, row.data is not None
    if log.witness is not None and log.witness.position == row.position:
        log.witnessed = row.checksum


def _judge_birth(log: Log, row: Row, domain: str | None, store_id: str | None) -> None:
    """Row 0 says whose log this is and by which rule it may be written."""
    birth = _json(row.data) if row.data is not None and not row.is_blob else None
    if row.op != b"open" or row.key != SYSTEM_KEY.encode() or row.when_us is not None:
        log.found(0, "birth", "row 0 is not the birth of a log")
    elif not isinstance(birth, dict) or set(birth) != {"format", "store_id", "domain", "created_us", "write"}:
        log.found(0, "birth", "the birth row does not hold format, store_id, domain, created_us and write")
    else:
        name, owner, created = birth["domain"], birth["store_id"], birth["created_us"]
        if not isinstance(birth["format"], Number) or birth["format"] != str(FORMAT):
            log.found(0, "birth", f"format {birth['format']!r}, not {FORMAT}")
        if type(owner) is not str or not _STORE_ID.fullmatch(owner):
            log.found(0, "birth", f"store_id {owner!r} is not 32 hex digits")
        if type(name) is not str or not _DOMAIN.fullmatch(name) or ".." in name:
            log.found(0, "birth", f"domain {name!r} is not a domain's name")
        if not isinstance(created, Number) or not created.isdigit():
            log.found(0, "birth", f"created_us {created!r} is not a time")
        if birth["write"] not in ("replace", "first"):
            log.found(0, "birth", f"write rule {birth['write']!r} is not 'replace' or 'first'")
        if domain is not None and name != domain:
            log.found(0, "birth", f"this is the log of domain {name!r}, not of {domain!r}")
        if store_id is not None and owner != store_id:
            log.found(0, "birth", f"this log belongs to store {owner!r}, not to {store_id!r}")


def _judge_place(log: Log, row: Row) -> bool:
    """Position, time and prev; False if the row does not directly follow the last one seen."""
    wanted = 0 if log.head is None else log.head.position + 1
    follows = row.position == wanted
    if row.position < 0:
        log.found(row.position, "position", "positions start at 0")
    elif not follows:
        missing = f"position {wanted}" if row.position == wanted + 1 else f"positions {wanted} to {row.position - 1}"
        log.found(row.position, "position", f"{missing} missing before this event")
    if row.recorded_us <= log.recorded_us:
        log.found(row.position, "order", f"recorded_us {row.recorded_us} does not rise: before it came {log.recorded_us}")
    log.recorded_us = max(log.recorded_us, row.recorded_us)
    latest = log.latest.get(row.key, 0)
    if row.prev != latest:
        log.found(row.position, "prev", f"prev is {row.prev}, but the key's latest earlier event is at {latest}")
    log.latest[row.key] = row.position
    return follows


def _judge_op_and_key(log: Log, row: Row) -> None:
    """Section 3, and which ops belong to which key."""
    op, key = row.op.decode(errors="replace"), row.key.decode(errors="replace")
    if op not in USER_OPS | SYSTEM_OPS:
        log.found(row.position, "op", f"unknown op {op!r}")
    elif (op in SYSTEM_OPS) != (key == SYSTEM_KEY) or (op == "open") != (row.position == 0):
        log.found(row.position, "op", f"{op!r} cannot stand here, under the key {key[:80]!r}")
    if key != SYSTEM_KEY and (broken := broken_key(row.key)) is not None:
        log.found(row.position, "key", broken)


def broken_key(stored: bytes) -> str | None:
    """What is wrong with a user's key, or None."""
    if len(stored) > MAX_KEY_BYTES:
        return f"the key takes {len(stored)} bytes, more than {MAX_KEY_BYTES}"
    try:
        text = stored.decode()
        parts = json.loads(text)
    except (ValueError, RecursionError):
        return f"the key {stored[:80]!r} is not JSON"
    if not isinstance(parts, list) or not parts:
        return f"the key {text!r} is not an array of one or more parts"
    for part in parts:
        # In Python True is an int, and equal to 1: exactly what the format keeps out.
        if type(part) is str:
            if "\0" in part or any("\ud800" <= character <= "\udfff" for character in part):
                return f"the key {text!r} holds a NUL or half a surrogate pair"
        elif type(part) is not int or abs(part) > MAX_KEY_NUMBER:
            return f"the key {text!r} holds a part that is neither a string nor an integer within 2^53"
    if parts == [""]:
        return "the key is one empty string"
    if json.dumps(parts, ensure_ascii=False, separators=(",", ":")) != text:
        return f"the key {text!r} is not written canonically"
    return None


def _judge_meta(log: Log, row: Row) -> Mapping[str, Any]:
    """Meta as an object: empty if there is none, or if it is not what it should be."""
    if row.meta is None:
        return {}
    meta = _json(row.meta)
    if not isinstance(meta, dict) or not meta:
        log.found(row.position, "meta", f"meta {row.meta[:80]!r} is not a JSON object with something in it")
        return {}
    if "codec" in meta and (type(meta["codec"]) is not str or not meta["codec"]):
        log.found(row.position, "meta", f"codec {meta['codec']!r} is not the name of one")
    return meta


def _judge_data(log: Log, row: Row, meta: Mapping[str, Any]) -> None:
    """Salt, digest and data: which may stand beside which, and what a redaction leaves behind."""
    at, op = row.position, row.op.decode(errors="replace")
    if row.data is not None and row.salt is None:
        log.found(at, "salt", "data without a salt")
    elif row.data is None and row.salt is not None:
        log.found(at, "salt", "a salt without data")
    elif row.salt is not None and len(row.salt) != SALT_BYTES:
        log.found(at, "salt", f"a salt of {len(row.salt)} bytes, not {SALT_BYTES}")
    if row.digest is not None:
        if row.data is not None:
            log.found(at, "digest", "a digest beside the data it should stand for")
        elif len(row.digest) != HASH_BYTES:
            log.found(at, "digest", f"a digest of {len(row.digest)} bytes, not {HASH_BYTES}")
        elif op != "put":
            log.found(at, "digest", f"{op!r} has no data that could have been redacted")
        else:
            log.redacted.add(at)  # whether a later event says so is known at the end
    if op == "remove" and row.data is not None:
        log.found(at, "data", "a removal that holds data")
    if op != "remove" and row.data is None and row.digest is None:
        log.found(at, "data", f"{op!r} without data")
    if row.data is None:
        if "codec" in meta and row.digest is None:
            log.found(at, "meta", "a codec without data")
    elif row.is_blob:
        if "codec" not in meta:
            log.found(at, "meta", "a blob without meta.codec")
        if op != "put":
            log.found(at, "data", f"{op!r} holds a blob")
    else:
        if "codec" in meta:
            log.found(at, "meta", "text with meta.codec")
        value = _json(row.data)
        if value is BROKEN:
            log.found(at, "data", "the text is not JSON")
        elif op in SYSTEM_OPS and not isinstance(value, dict):
            log.found(at, "data", f"the data of {op!r} is not a JSON object")
        elif op == "redact":
            _judge_redact(log, row, value)
        elif op == "archive":
            _judge_archive(log, row, value)


def _judge_archive(log: Log, row: Row, value: Mapping[str, Any]) -> None:
    """Section 8: which file it speaks of, and what stays of the tree; held against the leaves, where the file itself was judged, too."""
    first, last, tree = value.get("first"), value.get("last"), value.get("tree")
    if set(value) != {"first", "last", "sha256", "to", "tree"} or not all(isinstance(n, Number) and n.isdigit() for n in (first, last)):
        log.found(row.position, "data", "an archive event does not hold first, last, sha256, to and tree")
        return
    if not int(str(first)) <= int(str(last)) < row.position:
        log.found(row.position, "data", f"an archive event of positions {first} to {last}")
        return
    leaves = [log.rows[position][0] for position in range(int(str(last)) + 1) if position in log.rows]
    if tree is not None and len(leaves) == int(str(last)) + 1:
        wanted, at = [], 1
        while at < len(leaves):
            size = at & -at
            while size > len(leaves) - at:
                size //= 2
            wanted.append(_subtree(leaves[at : at + size]).hex())
            at += size
        if tree != wanted:
            log.found(row.position, "data", f"the tree up to position {last} is not that of its leaves")


def _subtree(leaves: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.1, of as many leaves as are a power of two."""
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    half = len(leaves) // 2
    return sha256(b"\x01" + _subtree(leaves[:half]) + _subtree(leaves[half:])).digest()


def _judge_redact(log: Log, row: Row, value: Mapping[str, Any]) -> None:
    """A redaction names positions before its own; what it names may have no data any more."""
    positions = value.get("positions")
    if not isinstance(positions, list) or not all(isinstance(named, Number) and named.isdigit() for named in positions):
        log.found(row.position, "data", "a redact event that names no positions")
        return
    named = {int(text) for text in positions}
    if any(not 0 < position < row.position for position in named):
        log.found(row.position, "data", "a redact event that names its own position, a later one, or the birth")
    log.explained.update(position for position in named if position < row.position)


class Number(str):
    """A JSON number as it is written: Python's own integers stop at 4,300 digits, the format's do not."""

    __slots__ = ()


BROKEN = object()
"""What `_json` gives for bytes that are no JSON."""


def _json(stored: bytes) -> Any:
    try:
        return json.loads(stored.decode(), parse_int=Number, parse_float=Number, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return BROKEN


def _no_json(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _checksum(row: Row, codec: bool, previous: bytes | None) -> bytes | None:
    """Section 4: what the row hashes to, after the checksum before it; None if it has numbers no header can hold."""
    was_data = row.data is not None or row.digest is not None
    flags = (row.when_us is not None) | was_data << 1 | (row.meta is not None) << 2 | (was_data and codec) << 3
    meta = row.meta or b""
    try:
        header = HEADER.pack(row.position, row.prev, row.recorded_us, row.when_us or 0, flags, len(row.op), len(row.key), len(meta))
    except struct.error:
        return None
    if row.data is not None and row.salt is not None:
        digest = sha256(row.salt + row.data).digest()
    else:
        digest = row.digest or bytes(HASH_BYTES)
    start = f"eventstore/{FORMAT}".encode() + b"\0" if previous is None else previous
    return sha256(start + header + row.op + row.key + meta + digest).digest()


def _read_witness(log: Log, path: Path) -> None:
    """Section 5: the last head that was known to be durable. An empty file knows of none."""
    with path.open("rb") as file:
        content = file.read(48)
    if len(content) == 48 and sha256(content[:40]).digest()[:8] == content[40:]:
        log.witness = Head(int.from_bytes(content[:8]), content[8:40])
    elif content:
        log.found(None, "witness", "the witness is damaged")


def _judge_witness(log: Log) -> None:
    """The log must reach the witnessed event, and find it as it was."""
    if log.witness is None:
        return
    known, last = log.witness.position, -1 if log.head is None else log.head.position
    if known > last:
        log.found(None, "tail", f"the log ends at position {last}, the witness knows {known}: the events between are lost")
    elif log.witnessed is None:
        log.found(known, "witness", "the event that the witness knows is missing")
    elif log.witnessed != log.witness.checksum:
        log.found(known, "witness", "the witness knows another event at this position: not the history that was written")


def main(arguments: list[str]) -> int:
    """The command; see the top of this file."""
    if len(arguments) not in (1, 2) or arguments[0].startswith("-"):
        sys.stderr.write("usage: python tests/verifier.py LOG [HEAD]\n")
        return 3
    paths = [Path(argument) for argument in arguments]
    try:
        report = verify(*paths)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for position, kind, message in report.findings:
        sys.stdout.write(f"{'-' if position is None else position}\t{kind}\t{message}\n")
    head = "no events" if report.head is None else f"head {report.head.position} {report.head.checksum.hex()}"
    sys.stdout.write(f"{paths[0]}: {head}; {'nothing found' if not report.findings else f'{len(report.findings)} found'}\n")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
