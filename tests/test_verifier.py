"""The verifier sees what it must see, and nothing else.

The logs here are made by hand, with an independent sealer written from the format's page and a table without the guard
rails, so that everything a forger could do to a file can be done. Neither `eventstore` nor the verifier lends a line to
the sealer: a rule that one of them misread is a red test.
"""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest

import eventstore
from tests import verifier

VERIFIER = Path(verifier.__file__)
T0 = 1_763_000_000_000_000
STORE_ID = "00112233445566778899aabbccddeeff"
FIRST_FILE = f"{0:020d}.db"

SCHEMA = """
    PRAGMA page_size = 8192;
    PRAGMA encoding = 'UTF-8';
    PRAGMA application_id = 0x45564B31;
    PRAGMA user_version = 2;
    CREATE TABLE event(
        position INTEGER PRIMARY KEY, prev INTEGER NOT NULL, recorded_us INTEGER NOT NULL, when_us INTEGER, op TEXT NOT NULL,
        checksum BLOB NOT NULL, key TEXT NOT NULL, meta TEXT, salt BLOB, digest BLOB, data ANY
    ) STRICT;
    PRAGMA journal_mode = WAL;
"""


@dataclass
class Row:
    """One row of the table, column by column; not sealed before `seal` has been over it."""

    position: int
    prev: int
    recorded_us: int
    when_us: int | None
    op: str
    key: str
    meta: str | None
    salt: bytes | None
    digest: bytes | None
    data: str | bytes | None
    checksum: bytes = b""


def content_of(row: Row) -> bytes:
    """The row's data as bytes."""
    return row.data.encode() if isinstance(row.data, str) else row.data or b""


def header_of(row: Row) -> bytes:
    """The 40 bytes that stand before everything that is hashed."""
    there_was_data = row.data is not None or row.digest is not None
    blob = there_was_data and "codec" in (row.meta or "")
    flags = (row.when_us is not None) + 2 * there_was_data + 4 * (row.meta is not None) + 8 * blob
    sizes = (len(row.op.encode()), len(row.key.encode()), len((row.meta or "").encode()))
    return struct.pack(">QQQqBBHI", row.position, row.prev, row.recorded_us, row.when_us or 0, flags, *sizes)


def digest_of(row: Row) -> bytes:
    """D: what stands for the data in the checksum. Whatever a forger may leave out is taken as empty."""
    if row.data is None:
        return row.digest or bytes(32)
    return hashlib.sha256((row.salt or b"") + content_of(row)).digest()


def seal(rows: list[Row], start: int = 0) -> None:
    """Compute the checksums of every row from `start` on, as the owner does, or a forger who knows the format."""
    for at in range(start, len(rows)):
        row = rows[at]
        before = rows[at - 1].checksum if at else b"eventstore/1\0"
        text = (row.op + row.key + (row.meta or "")).encode()
        row.checksum = hashlib.sha256(before + header_of(row) + text + digest_of(row)).digest()


def witness_of(rows: list[Row]) -> bytes:
    """The 48 bytes of a witness that knows the last of these rows."""
    content = struct.pack(">Q", rows[-1].position) + rows[-1].checksum
    return content + hashlib.sha256(content).digest()[:8]


def insert(connection: sqlite3.Connection, rows: list[Row]) -> None:
    """Rows into a table without guard rails."""
    columns = ", ".join(field.name for field in fields(Row))
    marks = ", ".join("?" for _ in fields(Row))
    connection.executemany(f"INSERT INTO event({columns}) VALUES ({marks})", [astuple(row) for row in rows])
    connection.commit()


def build(path: Path, rows: list[Row], *, schema: str = SCHEMA) -> Path:
    """A log file with these rows and no guard rails."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(schema)
        insert(connection, rows)
    return path


def birth(**changes: Any) -> Row:
    """Row 0 of the format's test vector; `changes` are to what it says."""
    says = {"format": 1, "store_id": STORE_ID, "domain": "signal", "created_us": T0, "write": "replace"} | changes
    return Row(0, 0, T0, None, "open", "[]", None, b"\xa0" * 16, None, json.dumps(says, separators=(",", ":")))


def put(position: int, key: str, data: str | bytes, *, prev: int = 0, when_us: int | None = None, meta: str | None = None) -> Row:
    """A put with a salt of its own."""
    return Row(position, prev, T0 + position, when_us, "put", key, meta, bytes([0xA0 + position]) * 16, None, data)


def vector() -> list[Row]:
    """The four events of the format's test vector."""
    key = '["BTCUSDT","my-strat","binance"]'
    rows = [
        birth(),
        put(1, key, '{"position":"long","priceOpen":42.5}', when_us=1_700_000_000_000_000, meta='{"event_id":"e1","actor":"bot"}'),
        put(2, '["ключ\\"\\\\",7,""]', "[]"),
        Row(3, 1, T0 + 3, -1, "remove", key, None, None, None, None),
    ]
    seal(rows)
    return rows


def sample() -> list[Row]:
    """A log with every shape an event may have: a blob, a removal, a redaction (of position 2), a loss, negative times."""
    rows = [
        birth(),
        put(1, '["a"]', '{"size":1}', when_us=-5, meta='{"actor":"bot"}'),
        put(2, '["b"]', '"secret"', when_us=7),
        put(3, '["a"]', '{"size":2}', prev=1),
        put(4, '["c",9007199254740992,"\\u0001\U0001f600"]', b"\x00\xff", meta='{"codec":"aes-gcm:k1"}'),
        replace(put(5, "[]", '{"positions":[2],"reason":"asked"}'), op="redact"),
        Row(6, 2, T0 + 6, None, "remove", '["b"]', '{"reason":"closed"}', None, None, None),
        replace(put(7, "[]", '{"witnessed":[9,"00"],"found":[6,"00"]}', prev=5), op="loss"),
        put(8, '["a"]', "-0.0", prev=3),
    ]
    seal(rows)
    rows[2].digest, rows[2].salt, rows[2].data = digest_of(rows[2]), None, None
    return rows


def findings(folder: Path, rows: list[Row], witness: bytes | None = None) -> list[tuple[int | None, str]]:
    """Position and kind of whatever is found in a log of these rows."""
    head = folder / "head"
    if witness is not None:
        head.write_bytes(witness)
    report = verifier.verify(build(folder / FIRST_FILE, rows), head if witness is not None else None)
    return [(found.position, found.kind) for found in report.findings]


# The format's own figures


def test_vectors_of_the_format(tmp_path: Path) -> None:
    rows = vector()
    assert [header_of(row).hex() for row in rows] == [
        "00000000000000000000000000000000000643706cbd300000000000000000000204000200000000",
        "00000000000000010000000000000000000643706cbd300100060a24181e4000070300200000001f",
        "00000000000000020000000000000000000643706cbd300200000000000000000203001500000000",
        "00000000000000030000000000000001000643706cbd3003ffffffffffffffff0106002000000000",
    ]
    assert [digest_of(row).hex() for row in rows] == [
        "dae6e379de8ec464edd66ea72589d7f8508bb63edd297fd5aaad47c83496a1af",
        "a2c3217e1db9625da305411c41252f5e00b51430f39ea5d59202bdb2f2889908",
        "d9d622b4b028fcfb1bbbe97a95dcbfa831fcc7629037244bc0ee41b0e242ae5d",
        "00" * 32,
    ]
    assert [row.checksum.hex() for row in rows] == [
        "13b8b3db9dadfefef6d408a2154d22271116035d6ea096b6465229e8931e71b8",
        "8dfda669aac572055d827669cfe297d2d0c22c477ded8dc821b9026e0b74b249",
        "593d7cfe512dde6598f12bbe92a84303dc377a3f557b89bf585d9ca54084a2af",
        "c2f3d7cfe24e0d138824df84e5cb421ba5ca7083c583c88f5dee0e7705230961",
    ]
    witness = witness_of(rows)
    assert witness.hex() == "0000000000000003c2f3d7cfe24e0d138824df84e5cb421ba5ca7083c583c88f5dee0e770523096125ff89eb354132f3"
    assert findings(tmp_path, rows, witness) == []


def test_a_log_of_every_shape_is_clean(tmp_path: Path) -> None:
    rows = sample()
    assert findings(tmp_path, rows, witness_of(rows)) == []


# Forgeries


def edit(position: int, **changes: Any) -> Callable[[list[Row]], None]:
    """Other values in the columns of one row."""

    def forge(rows: list[Row]) -> None:
        rows[position] = replace(rows[position], **changes)

    forge.__doc__ = f"{position}: {changes}"
    return forge


def salt_into_data(rows: list[Row]) -> None:
    """The salt's last byte becomes the data's first: the hash of both together stays what it was."""
    row = rows[3]
    assert row.salt is not None
    row.salt, row.data = row.salt[:-1] + b"{", '"size":2}'
    row.salt = row.salt[:-1]


def data_into_salt(rows: list[Row]) -> None:
    """The data's first byte becomes the salt's last."""
    row = rows[3]
    assert row.salt is not None
    assert isinstance(row.data, str)
    row.salt, row.data = row.salt + row.data[:1].encode(), row.data[1:]


def digest_beside_data(rows: list[Row]) -> None:
    """The right digest, without erasing what it stands for."""
    rows[3].digest = digest_of(rows[3])


def erased_in_silence(rows: list[Row]) -> None:
    """A redaction that nobody recorded: the checksum holds, as it must."""
    row = rows[3]
    row.digest, row.salt, row.data = digest_of(row), None, None


def redaction_before_its_row(rows: list[Row]) -> None:
    """The erased row is one that came after the redact event which names it."""
    row = rows[8]
    row.digest, row.salt, row.data = digest_of(row), None, None
    rows[5].data = '{"positions":[2,8],"reason":"asked"}'


def swapped(rows: list[Row]) -> None:
    """Two events change places; each keeps all of its content but its position."""
    rows[3], rows[4] = rows[4], rows[3]
    rows[3].position, rows[4].position = 3, 4


def swapped_with_times(rows: list[Row]) -> None:
    """The same, with times and prev put right again."""
    swapped(rows)
    rows[3].recorded_us, rows[4].recorded_us = rows[4].recorded_us, rows[3].recorded_us
    rows[8].prev = 4


def inserted(rows: list[Row]) -> None:
    """One more event in the middle; everything after it moves up."""
    for row in rows[4:]:
        row.position += 1
        row.recorded_us += 1
        row.prev += row.prev >= 4
    rows.insert(4, put(4, '["new"]', "1"))


def taken_out(rows: list[Row]) -> None:
    """One event of the middle is gone; everything after it moves down."""
    del rows[4]
    for row in rows[4:]:
        row.position -= 1
        row.prev -= row.prev > 4


def hole(rows: list[Row]) -> None:
    """One event of the middle is gone, and nobody hides it."""
    del rows[4]


def before_birth(rows: list[Row]) -> None:
    """One more event, below the first position."""
    rows.insert(0, replace(rows[1], position=-1, recorded_us=0))


def foreign_birth(rows: list[Row]) -> None:
    """The birth row of another store's log, sound in itself."""
    rows[0] = birth(store_id="ff" * 16)
    seal(rows[:1])


Forge = Callable[[list[Row]], None]

# What the owner of the checksums would notice by the checksum alone: nothing is sealed again.
EDITED: dict[str, tuple[Forge, list[tuple[int | None, str]]]] = {
    "value": (edit(3, data='{"size":9}'), [(3, "checksum")]),
    "prev that no header can hold": (edit(8, prev=-1), [(8, "prev"), (8, "checksum")]),
    "value of a blob": (edit(4, data=b"\x00\xfe"), [(4, "checksum")]),
    "blob turned into text": (edit(4, data="1"), [(4, "meta")]),
    "text turned into a blob": (edit(3, data=b'{"size":2}'), [(3, "meta")]),
    "when": (edit(3, when_us=1), [(3, "checksum")]),
    "when removed": (edit(1, when_us=None), [(1, "checksum")]),
    "when of zero for none": (edit(3, when_us=0), [(3, "checksum")]),
    "recorded": (edit(8, recorded_us=T0 + 99), [(8, "checksum")]),
    "key": (edit(8, key='["d"]', prev=0), [(8, "checksum")]),
    "op": (edit(6, op="put"), [(6, "data")]),
    "meta": (edit(1, meta='{"actor":"cat"}'), [(1, "checksum")]),
    "meta removed": (edit(1, meta=None), [(1, "checksum")]),
    "meta for none": (edit(3, meta='{"actor":"bot"}'), [(3, "checksum")]),
    "salt": (edit(3, salt=b"\x00" * 16), [(3, "checksum")]),
    "digest": (edit(2, digest=b"\x00" * 32), [(2, "checksum")]),
    "checksum": (edit(3, checksum=b"\x00" * 32), [(3, "checksum"), (4, "checksum")]),
    "checksum cut short": (edit(3, checksum=b"\x00"), [(3, "checksum"), (4, "checksum")]),
    "salt moved into data": (salt_into_data, [(3, "salt"), (3, "data")]),
    "data moved into salt": (data_into_salt, [(3, "salt"), (3, "data")]),
    "data beside a digest": (digest_beside_data, [(3, "digest")]),
    "erased in silence": (erased_in_silence, [(3, "digest")]),
    "swapped pair": (swapped, [(3, "checksum"), (4, "order"), (4, "checksum"), (5, "checksum"), (8, "prev")]),
    "swapped pair, times put right": (swapped_with_times, [(3, "checksum"), (4, "checksum"), (5, "checksum"), (8, "checksum")]),
    "foreign birth": (foreign_birth, [(1, "checksum")]),
    "a hole": (hole, [(5, "position")]),
    "an event before the birth": (before_birth, [(-1, "position"), (0, "checksum"), (1, "prev")]),
}


@pytest.mark.parametrize(("forge", "expected"), EDITED.values(), ids=EDITED)
def test_an_edit_is_seen(forge: Forge, expected: list[tuple[int | None, str]], tmp_path: Path) -> None:
    rows = sample()
    forge(rows)
    assert findings(tmp_path, rows) == expected


# A forger who knows the format seals everything again from the forged row on: only the rules can tell.
RESEALED: dict[str, tuple[Forge, list[tuple[int | None, str]]]] = {
    "salt missing": (edit(3, salt=None), [(3, "salt")]),
    "salt of 15 bytes": (edit(3, salt=b"s" * 15), [(3, "salt")]),
    "salt of 17 bytes": (edit(3, salt=b"s" * 17), [(3, "salt")]),
    "empty salt": (edit(3, salt=b""), [(3, "salt")]),
    "salt without data": (edit(6, salt=b"s" * 16), [(6, "salt")]),
    "salt moved into data": (salt_into_data, [(3, "salt"), (3, "data")]),
    "data beside a digest": (digest_beside_data, [(3, "digest")]),
    "digest without a redact event": (erased_in_silence, [(3, "digest")]),
    "redact event before its row": (redaction_before_its_row, [(5, "data"), (8, "digest")]),
    "redact event that names itself": (edit(5, data='{"positions":[2,5],"reason":""}'), [(5, "data")]),
    "redact event that names the birth": (edit(5, data='{"positions":[0,2],"reason":""}'), [(5, "data")]),
    "redact event that names nothing": (edit(5, data='{"reason":""}'), [(2, "digest"), (5, "data")]),
    "redact event that names text": (edit(5, data='{"positions":["2"]}'), [(2, "digest"), (5, "data")]),
    "short digest": (edit(2, digest=b"d" * 31), [(2, "digest")]),
    "redacted removal": (edit(6, digest=b"d" * 32), [(6, "digest")]),
    "redacted system event": (edit(7, digest=b"d" * 32, data=None, salt=None), [(7, "digest")]),
    "unknown op": (edit(8, op="patch"), [(8, "op")]),
    "op in capitals": (edit(8, op="PUT"), [(8, "op")]),
    "no op": (edit(8, op=""), [(8, "op")]),
    "a second birth": (edit(7, op="open"), [(7, "op")]),
    "system op on a user's key": (edit(8, op="loss", data="{}"), [(8, "op")]),
    "put on the system's key": (edit(7, op="put"), [(7, "op")]),
    "empty meta": (edit(1, meta=""), [(1, "meta")]),
    "meta of an array": (edit(1, meta="[]"), [(1, "meta")]),
    "meta of an empty object": (edit(1, meta="{}"), [(1, "meta")]),
    "meta of null": (edit(1, meta="null"), [(1, "meta")]),
    "meta of no JSON": (edit(1, meta='{"actor":bot}'), [(1, "meta")]),
    "blob without codec": (edit(4, meta='{"actor":"bot"}'), [(4, "meta")]),
    "blob without meta": (edit(4, meta=None), [(4, "meta")]),
    "text with codec": (edit(3, meta='{"codec":"aes-gcm:k1"}'), [(3, "meta")]),
    "removal with codec": (edit(6, meta='{"codec":"aes-gcm:k1"}'), [(6, "meta")]),
    "codec without a name": (edit(4, meta='{"codec":""}'), [(4, "meta")]),
    "codec that is a number": (edit(4, meta='{"codec":1}'), [(4, "meta")]),
    "system event of a blob": (edit(7, data=b"{}", meta='{"codec":"aes-gcm:k1"}'), [(7, "data")]),
    "put without data": (edit(8, data=None, salt=None), [(8, "data")]),
    "removal with data": (edit(6, data="1", salt=b"s" * 16), [(6, "data")]),
    "text that is no JSON": (edit(8, data="{size:1}"), [(8, "data")]),
    "text of NaN": (edit(8, data="NaN"), [(8, "data")]),
    "empty text": (edit(8, data=""), [(8, "data")]),
    "system event of an array": (edit(7, data="[]"), [(7, "data")]),
    "wrong prev": (edit(8, prev=1), [(8, "prev")]),
    "no prev": (edit(8, prev=0), [(8, "prev")]),
    "prev of another key": (edit(8, prev=6), [(8, "prev")]),
    "prev of the future": (edit(8, prev=9), [(8, "prev")]),
    "prev of a first event": (edit(4, prev=3), [(4, "prev")]),
    "time that stands still": (edit(8, recorded_us=T0 + 7), [(8, "order")]),
    "time that falls": (edit(8, recorded_us=T0), [(8, "order")]),
    "white space in a key": (edit(4, key='["c", 1]'), [(4, "key")]),
    "escaped letter in a key": (edit(4, key='["\\u043a"]'), [(4, "key")]),
    "long escape in a key": (edit(4, key='["\\u000a"]'), [(4, "key")]),
    "escaped slash in a key": (edit(4, key='["a\\/b"]'), [(4, "key")]),
    "key that is a string": (edit(4, key='"c"'), [(4, "key")]),
    "key that is no JSON": (edit(4, key="c"), [(4, "key")]),
    "key without text": (edit(4, key=""), [(4, "key")]),
    "key of one empty string": (edit(4, key='[""]'), [(4, "key")]),
    "key with a truth value": (edit(4, key='["c",true]'), [(4, "key")]),
    "key with a fraction": (edit(4, key='["c",1.0]'), [(4, "key")]),
    "key with null": (edit(4, key="[null]"), [(4, "key")]),
    "key with a nested array": (edit(4, key='[["c"]]'), [(4, "key")]),
    "key with too large a number": (edit(4, key="[9007199254740993]"), [(4, "key")]),
    "key with minus zero": (edit(4, key="[-0]"), [(4, "key")]),
    "key with NUL": (edit(4, key='["\\u0000"]'), [(4, "key")]),
    "key with half a surrogate pair": (edit(4, key='["\\ud83d"]'), [(4, "key")]),
    "key of 1025 bytes": (edit(4, key=f'["{"k" * 1021}"]'), [(4, "key")]),
    "a hole": (hole, [(5, "position")]),
    "a birth of another kind": (edit(0, op="loss"), [(0, "birth"), (0, "op")]),
    "a birth without a domain": (edit(0, data='{"format":1}'), [(0, "birth")]),
    "a birth that is no JSON": (edit(0, data="signal"), [(0, "birth"), (0, "data")]),
    "a birth of a newer format": (edit(0, data=birth(format=2).data), [(0, "birth")]),
    "a birth with a format in quotes": (edit(0, data=birth(format="1").data), [(0, "birth")]),
    "a birth with a bad store id": (edit(0, data=birth(store_id="ABC").data), [(0, "birth")]),
    "a birth with a path for a domain": (edit(0, data=birth(domain="../x").data), [(0, "birth")]),
    "a birth with a number for a domain": (edit(0, data=birth(domain=12).data), [(0, "birth")]),
    "a birth with an unknown rule": (edit(0, data=birth(write="last").data), [(0, "birth")]),
    "a birth with no time": (edit(0, data=birth(created_us=None).data), [(0, "birth")]),
    "a birth with one thing more": (edit(0, data=birth(owner="me").data), [(0, "birth")]),
}


@pytest.mark.parametrize(("forge", "expected"), RESEALED.values(), ids=RESEALED)
def test_a_broken_rule_is_seen_under_a_valid_checksum(forge: Forge, expected: list[tuple[int | None, str]], tmp_path: Path) -> None:
    rows = sample()
    forge(rows)
    seal(rows)
    assert findings(tmp_path, rows) == expected


PERFECT: dict[str, Forge] = {
    "value": edit(3, data='{"size":9}'),
    "when": edit(3, when_us=1),
    "inserted": inserted,
    "taken out": taken_out,
    "swapped": swapped_with_times,
}


@pytest.mark.parametrize("forge", PERFECT.values(), ids=PERFECT)
def test_a_perfect_forgery_is_seen_by_its_witness(forge: Forge, tmp_path: Path) -> None:
    """History sealed anew by every rule is without fault in itself; the witness knows the one that was written."""
    rows = sample()
    genuine = witness_of(rows)
    forge(rows)
    seal(rows)
    assert findings(tmp_path, rows) == []
    found = verifier.verify(tmp_path / FIRST_FILE, _file(tmp_path / "kept", genuine)).findings
    assert [each.kind for each in found] == ["tail" if forge is taken_out else "witness"]


def test_a_log_of_somebody_else_is_seen_by_who_knows_whose_it_is(tmp_path: Path) -> None:
    rows = sample()
    rows[0] = birth(store_id="ff" * 16, domain="risk")
    seal(rows)
    path = build(tmp_path / FIRST_FILE, rows)
    assert verifier.verify(path).findings == []
    found = verifier.verify(path, domain="signal", store_id=STORE_ID).findings
    assert [(each.position, each.kind) for each in found] == [(0, "birth"), (0, "birth")]


# The library and the verifier argue


def library_finds(folder: Path, rows: list[Row]) -> bool:
    """Whether a store that holds these rows as its log, with a witness and a manifest to match, fails its own verify."""
    with eventstore.open(folder / "data") as store:
        store.domain("signal")
    log = folder / "data" / "logs" / "signal"
    with closing(sqlite3.connect(log / FIRST_FILE)) as connection:
        rails = [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema WHERE type = 'trigger'")]
        connection.executescript("DROP TRIGGER event_insert; DROP TRIGGER event_update; DROP TRIGGER event_delete; DELETE FROM event")
        insert(connection, rows)
        for sql in rails:
            connection.execute(sql)
    (log / "head").write_bytes(witness_of(rows) + (log / "head").read_bytes()[48:])
    shutil.rmtree(log / "pointers", ignore_errors=True)
    manifest = folder / "data" / "store.json"
    head = {"position": rows[-1].position, "checksum": rows[-1].checksum.hex()}
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"store_id": STORE_ID, "heads": {"signal": head}}))
    try:
        with eventstore.open(folder / "data", create=False, read_only=True) as store:
            return not store.verify().ok
    except eventstore.CorruptionError:
        return True


@pytest.mark.parametrize("rows", [vector(), sample()], ids=["vector", "sample"])
def test_the_library_accepts_what_the_format_allows(rows: list[Row], tmp_path: Path) -> None:
    assert not library_finds(tmp_path, rows)


# The library judges an event by its columns: what is inside a value is judged by who reads it, what a system event says
# by who acts on it, and a row below the birth is read by nobody.


@pytest.mark.parametrize("name", EDITED)
def test_the_library_sees_an_edit_too(name: str, tmp_path: Path) -> None:
    rows = sample()
    EDITED[name][0](rows)
    assert library_finds(tmp_path, rows)


@pytest.mark.parametrize("name", RESEALED)
def test_the_library_sees_a_broken_rule_too(name: str, tmp_path: Path) -> None:
    rows = sample()
    RESEALED[name][0](rows)
    seal(rows)
    assert library_finds(tmp_path, rows)


# Tail and witness


@pytest.mark.parametrize("lost", [1, 3, 8, 9])
def test_a_cut_tail_is_seen_by_its_witness(lost: int, tmp_path: Path) -> None:
    rows = sample()
    assert findings(tmp_path, rows[:-lost], witness_of(rows)) == [(None, "tail")] + [(2, "digest")] * (4 <= lost < 7)


def test_a_witness_of_an_event_that_is_gone_is_seen(tmp_path: Path) -> None:
    rows = sample()
    assert findings(tmp_path, [*rows[:4], *rows[5:]], witness_of(rows[:5])) == [(4, "witness"), (5, "position")]


def test_a_witness_may_lag_behind_and_may_be_empty(tmp_path: Path) -> None:
    rows = sample()
    assert findings(tmp_path, rows, witness_of(rows[:4])) == []
    assert verifier.verify(tmp_path / FIRST_FILE, _file(tmp_path / "empty", b"")).findings == []


def test_every_byte_of_a_witness_counts(tmp_path: Path) -> None:
    rows = vector()
    path = build(tmp_path / FIRST_FILE, rows)
    genuine = witness_of(rows)
    for at in range(len(genuine)):
        damaged = bytearray(genuine)
        damaged[at] ^= 1
        found = verifier.verify(path, _file(tmp_path / "head", bytes(damaged))).findings
        assert [each.kind for each in found] == ["witness"], at
    for length in range(1, len(genuine)):
        assert verifier.verify(path, _file(tmp_path / "head", genuine[:length])).findings, length


# The file and its table


@pytest.mark.parametrize(
    "change",
    [
        "PRAGMA application_id = 1",
        "PRAGMA user_version = 1",
        "DROP TABLE event",
        "ALTER TABLE event RENAME COLUMN meta TO notes",
        "ALTER TABLE event ADD COLUMN notes TEXT",
        "CREATE INDEX by_key ON event(key)",
        "CREATE TRIGGER quiet AFTER INSERT ON event BEGIN SELECT 1; END",
        "CREATE TABLE other AS SELECT * FROM event; DROP TABLE event; ALTER TABLE other RENAME TO event",
        "ALTER TABLE event RENAME TO other; CREATE VIEW event AS SELECT * FROM other",
    ],
)
def test_another_table_is_seen(change: str, tmp_path: Path) -> None:
    path = build(tmp_path / FIRST_FILE, vector())
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(change)
    assert "schema" in {found.kind for found in verifier.verify(path).findings}


@pytest.mark.parametrize(
    ("ours", "other"),
    [
        ("page_size = 8192", "page_size = 4096"),
        ("encoding = 'UTF-8'", "encoding = 'UTF-16le'"),
        (") STRICT", ")"),
        (") STRICT", ") STRICT, WITHOUT ROWID"),
        ("key TEXT NOT NULL", "key TEXT"),
        ("meta TEXT", "meta TEXT NOT NULL DEFAULT ''"),
    ],
)
def test_another_layout_is_seen(ours: str, other: str, tmp_path: Path) -> None:
    assert ours in SCHEMA
    rows = vector() if "NOT NULL DEFAULT" not in other else []
    path = build(tmp_path / FIRST_FILE, rows, schema=SCHEMA.replace(ours, other))
    assert (None, "schema") in [(found.position, found.kind) for found in verifier.verify(path).findings]


def test_the_guard_rails_belong_to_the_table(tmp_path: Path) -> None:
    path = build(tmp_path / FIRST_FILE, vector())
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TRIGGER event_delete BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'events stay'); END")
    assert verifier.verify(path).findings == []


def test_text_that_is_not_utf_8_is_seen(tmp_path: Path) -> None:
    path = build(tmp_path / FIRST_FILE, vector())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE event SET data = CAST(x'22ff22' AS TEXT) WHERE position = 2")
        connection.commit()
    assert [(found.position, found.kind) for found in verifier.verify(path).findings] == [(2, "data")]


def test_a_damaged_page_is_a_finding_and_not_a_crash(tmp_path: Path) -> None:
    rows = [birth(), *(put(1, f'["{at}"]', json.dumps("x" * 500)) for at in range(200))]
    for at, row in enumerate(rows):
        row.position, row.recorded_us = at, T0 + at
    seal(rows)
    path = build(tmp_path / FIRST_FILE, rows)
    assert verifier.verify(path).findings == []
    content = bytearray(path.read_bytes())
    content[3 * 8192 : 4 * 8192] = b"\xff" * 8192
    path.write_bytes(content)
    assert verifier.verify(path).findings


@pytest.mark.parametrize("content", [b"", b"no database at all " * 600], ids=["empty", "text"])
def test_a_file_that_is_no_log_is_seen(content: bytes, tmp_path: Path) -> None:
    assert verifier.verify(_file(tmp_path / FIRST_FILE, content)).findings


def test_events_that_are_only_in_the_wal_are_read_and_nothing_is_touched(tmp_path: Path) -> None:
    rows = sample()
    path = build(tmp_path / FIRST_FILE, rows[:4])
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        insert(writer, rows[4:])
        crashed = tmp_path / "crashed"
        crashed.mkdir()
        for name in (FIRST_FILE, f"{FIRST_FILE}-wal"):
            shutil.copy(tmp_path / name, crashed / name)
    before = {file.name: file.read_bytes() for file in crashed.iterdir()}
    report = verifier.verify(crashed / FIRST_FILE, _file(tmp_path / "head", witness_of(rows)))
    assert (report.head, report.findings) == ((8, rows[8].checksum), [])
    assert before.items() <= {file.name: file.read_bytes() for file in crashed.iterdir()}.items()


# As a command


def run(*arguments: Path) -> subprocess.CompletedProcess[str]:
    """The verifier as a newcomer's machine would run it: no site-packages, nothing from the environment."""
    command = [sys.executable, "-I", "-S", str(VERIFIER), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_says_what_it_found(tmp_path: Path) -> None:
    rows = sample()
    path, head = build(tmp_path / "lone.db", rows), _file(tmp_path / "head", witness_of(rows))
    clean = run(path, head)
    assert (clean.returncode, clean.stderr) == (0, "")
    assert clean.stdout == f"{path}: head 8 {rows[8].checksum.hex()}; nothing found\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["head", "lone.db"], "nothing may be left beside the evidence"

    head.write_bytes(witness_of([replace(rows[8], position=9)]))
    cut = run(path, head)
    assert (cut.returncode, cut.stdout.splitlines()[0].split("\t")[:2]) == (1, ["-", "tail"])


def test_the_command_tells_findings_from_no_verdict(tmp_path: Path) -> None:
    assert run().returncode == 3
    assert run(tmp_path / "missing.db").returncode == 2
    assert run(tmp_path).returncode == 2
    assert run(_file(tmp_path / "text.db", b"text" * 300)).returncode == 1


def test_the_verifier_stands_alone() -> None:
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(VERIFIER.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    assert imported <= sys.stdlib_module_names


# What the library writes


def test_a_store_s_own_log_is_clean_without_its_store(tmp_path: Path) -> None:
    """Everything the public face can write, then the log alone, carried away from its store."""
    with eventstore.open(tmp_path / "data", actor="tester") as store:
        domain = store.domain("signal")
        domain.write_value(("binance", "BTCUSDT"), {"size": 1, "note": 'ключ "\\ \U0001f600'}, when=-1, reason="opened")
        domain.write_value(("ключ", 7, ""), [None, True, -0.0, 10**400], when=1_700_000_000_000_000, event_id="e1", tags=["a"])
        domain.write_value("line\nbreak\x7f\x01", "plain")
        domain.write_value("line\nbreak\x7f\x01", "again", expected=eventstore.PRESENT)
        domain.write_values([(f"many/{at}", {"at": at}) for at in range(500)])
        with domain.batch() as batch:
            batch.write_value("many/1", "in a batch")
            batch.remove_value("many/2", when=0)
            batch.write_value("many/1", "twice in it")
        domain.remove_value(("ключ", 7, ""), reason="done")
        domain.write_value(("ключ", 7, ""), "back")
        domain.remove_all(("binance",))
        head, store_id = domain.head(), store.store_id
    log = tmp_path / "data" / "logs" / "signal"
    report = verifier.verify(log / FIRST_FILE, log / "head", domain="signal", store_id=store_id)
    assert report.findings == []
    assert report.head == (head.position, head.checksum)

    alone = tmp_path / "alone.db"
    shutil.copy(log / FIRST_FILE, alone)
    shutil.rmtree(tmp_path / "data")
    told = run(alone)
    assert (told.returncode, told.stderr) == (0, "")
    assert f"head {head.position} {head.checksum.hex()}" in told.stdout


def test_a_forged_value_in_a_store_s_own_log_is_seen(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as store:
        store.domain("signal").write_values([("a", 1), ("b", 2), ("c", 3)])
    path = tmp_path / "data" / "logs" / "signal" / FIRST_FILE
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("DROP TRIGGER event_update; UPDATE event SET data = '7' WHERE position = 2")
    assert [(found.position, found.kind) for found in verifier.verify(path).findings] == [(2, "checksum")]


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
