"""The steps that the format's promises consist of, bare: a straight loop over the standard library and msgspec.

It has no verbs, keys, states, cache, other writers, retries or errors of its own, so it is no store; it is the floor. What
lies between raw sqlite3 and this is the price of the promises, what lies between this and ours is the price of our code.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import struct
import time
from collections.abc import Sequence
from hashlib import sha256

import msgspec

from eventstore import database
from tests.bench import sample
from tests.bench.measure import Contender

_HEADER = struct.Struct(">QQQqBBHI")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_SIGNALS = {signal.SIGINT, signal.SIGTERM}


class Steps(Contender):
    """Lock, prove the JSON, chain, insert behind the guard rail, commit durably, witness; by hand."""

    note = "bare: no verbs, key states, cache, retries, errors; the floor, not a store"

    def setup(self) -> None:
        self.paths = [str(self.folder / name) for name in ("bare.db", "bare.db-wal", "head")]
        self.head = os.open(self.paths[2], os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(self.head, bytes(56), 0)
        self.connection = sqlite3.connect(self.paths[0], isolation_level=None)
        for pragma in (f"page_size={database.PAGE_BYTES}", "journal_mode=WAL", "synchronous=FULL"):
            self.connection.execute(f"PRAGMA {pragma}")
        for statement in (database.TABLE, *database.TRIGGERS):
            self.connection.execute(statement)
        self.position, self.checksum = -1, bytes(32)
        self.write([("[]", {})])

    def write(self, items: Sequence[tuple[str, sample.Value]]) -> None:
        """One durable transaction that keeps every promise about these events."""
        texts: list[bytes] = []
        for _, value in items:
            text = _encode(value)
            if _decode(text) != value:
                raise ValueError("the text is not what was given")
            texts.append(text)
        fcntl.flock(self.head, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        for path in self.paths:
            os.stat(path)
        os.fstatvfs(self.head)
        salts, now_us = os.urandom(16 * len(items)), time.time_ns() // 1_000
        rows = [self.seal(at, key, text, salts, now_us) for at, ((key, _), text) in enumerate(zip(items, texts, strict=True))]
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        execute(database.END).fetchone()
        self.connection.executemany(database.INSERT, rows)
        execute("COMMIT")
        witness = self.position.to_bytes(8, "big") + self.checksum
        os.pwrite(self.head, witness + sha256(witness).digest()[:8] + witness[:8], 0)
        fcntl.flock(self.head, fcntl.LOCK_UN)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def seal(self, at: int, key: str, text: bytes, salts: bytes, now_us: int) -> tuple[object, ...]:
        """The next row, chained to the one before."""
        salt, when_us = salts[16 * at : 16 * at + 16], sample.WHEN_US
        self.position += 1
        digest, key_bytes = sha256(salt + text).digest(), key.encode()
        header = _HEADER.pack(self.position, 0, now_us + at, when_us, 3, 3, len(key_bytes), 0)
        self.checksum = sha256(b"".join((self.checksum, header, b"put", key_bytes, digest))).digest()
        return (self.position, 0, now_us + at, when_us, "put", self.checksum, key, None, salt, None, text.decode())

    def items(self, count: int) -> list[tuple[str, sample.Value]]:
        """Keys and values for `count` writes."""
        keys = [sample.key_text(number) for number in sample.spread(count, self.sizes.keys)]
        return list(zip(keys, sample.values(count), strict=True))

    def teardown(self) -> None:
        self.connection.close()
        os.close(self.head)


class Single(Steps):
    """One event a transaction."""

    name = "the bare steps, one event a transaction"

    def prepare(self) -> None:
        self.todo = [[item] for item in self.items(self.sizes.singles)]

    def run(self) -> float:
        for items in self.todo:
            self.write(items)
        return len(self.todo)


class Batch(Steps):
    """Many events a transaction."""

    name = "the bare steps, one transaction a batch"

    def prepare(self) -> None:
        self.todo = self.items(self.sizes.batch * self.sizes.batches)

    def run(self) -> float:
        for start in range(0, len(self.todo), self.sizes.batch):
            self.write(self.todo[start : start + self.sizes.batch])
        return len(self.todo)
