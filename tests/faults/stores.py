"""Stores to damage, and what their files held before and after."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import eventstore
from tests.faults import jobs
from tests.faults.ledger import DOMAIN
from tests.faults.workers import Server

LOG = Path("logs", DOMAIN)
DB = LOG / f"{0:020d}.db"
WAL = LOG / f"{0:020d}.db-wal"
SHM = LOG / f"{0:020d}.db-shm"
HEAD = LOG / "head"
MANIFEST = Path("store.json")


class Damaged:
    """A store whose writer was killed: `settled` events in the database file, then `loose` ones in its WAL. No file is open."""

    def __init__(self, folder: Path, events: list[eventstore.Event], settled: int) -> None:
        self.folder, self.events, self.settled = folder, events, settled
        self.db, self.wal, self.shm, self.head = folder / DB, folder / WAL, folder / SHM, folder / HEAD
        self.manifest = folder / MANIFEST

    @property
    def last(self) -> int:
        """The last position."""
        return len(self.events)

    def copy(self, folder: Path) -> Damaged:
        """The same store in another place."""
        shutil.copytree(self.folder, folder)
        return Damaged(folder, self.events, self.settled)

    def flip(self, file: Path, offset: int, mask: int = 0xFF) -> None:
        """Invert the bits of `mask` in one byte."""
        content = bytearray(file.read_bytes())
        content[offset] ^= mask
        file.write_bytes(content)


def leave(server: Server, folder: Path, *, settled: int, loose: int, pointers: bool = False) -> Damaged:
    """Make a store and leave it as a killed writer does."""
    server.run(jobs.settle, folder=str(folder), events=settled, pointers=pointers)
    assert pointers == (folder / LOG / "pointers").is_dir()
    if loose:
        worker = server.start(jobs.write_and_die, folder=str(folder), events=loose)
        said = worker.rest()
        assert worker.wait() < 0, said
    return Damaged(folder, events_of(folder), settled)


def events_of(folder: Path) -> list[eventstore.Event]:
    """What a store holds, read without changing it."""
    with eventstore.open(folder, read_only=True) as store:
        domain = store.domain(DOMAIN)
        return list(domain.events(until=domain.head().position))


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file under `folder` by name: hash of its bytes, and when it was written.

    Without what SQLite puts beside a database to read it and what holds no event: a -shm, an empty -wal.
    """
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("-shm") and not (path.name.endswith("-wal") and path.stat().st_size == 0)
    }
