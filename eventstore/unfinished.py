"""Unfinished: the sealed files that may hold what was erased, why, and how it is tried again (FORMAT.md section 8)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from eventstore import claims
from eventstore.database import sqlite3
from eventstore.errors import EventStoreError, FormatError, UnavailableError
from eventstore.files import stat_or_none
from eventstore.logfile import erase_in
from eventstore.logfiles import LogFiles
from eventstore.model import HeldCopy

_log = logging.getLogger("eventstore")


class _Pending(NamedTuple):
    """What is to be erased in a sealed file, and what stood in the way."""

    positions: Sequence[int]
    why: str
    passes: bool = True
    """Whether that may go away by itself, as a reader does."""


class Unfinished:
    """Erases in the sealed files of `domain`, wherever they stand, and knows those in which it is not done. Under the log's lock.

    An erasure is decided before it comes here: what fails is told by copies(), and done later. A file in an archive where another
    store than the one in `store` put some is left as it is: FileLog.theirs() tells of those.
    """

    def __init__(self, store: Path, domain: str, busy_timeout_ms: int) -> None:
        self._store, self._domain, self._busy_timeout_ms = store, domain, busy_timeout_ms
        self._pending: dict[Path, _Pending] = {}

    def __bool__(self) -> bool:
        return bool(self._pending)

    def passes(self) -> bool:
        """Whether waiting may help in one of them."""
        return any(pending.passes for pending in self._pending.values())

    def left_wal(self, path: Path) -> None:
        """Take note of a file that was sealed over a WAL that may hold what was erased."""
        self._pending[path] = _Pending([], "its write-ahead log was not emptied yet")

    def settle(self, files: LogFiles, path: Path) -> None:
        """Checkpoint a sealed file that still has a WAL, as a reader stood in the way when it was sealed, or erased in."""
        wal = stat_or_none(path.with_name(f"{path.name}-wal"))
        if wal is not None and wal.st_size:
            self.erase(files, path, [])
            if (pending := self._pending.get(path)) is not None:
                _log.warning("%s: the sealed file %s was left with its WAL: %s", self._domain, path.name, pending.why)

    def retry(self, files: LogFiles) -> None:
        """Erase once more what is not erased yet."""
        for path, pending in list(self._pending.items()):
            self.erase(files, path, pending.positions)

    def erase(self, files: LogFiles, path: Path, positions: Sequence[int]) -> None:
        """Erase in one sealed file, and empty its WAL: what it held stands in the database until a checkpoint."""
        before = self._pending.pop(path, None)
        if path not in files.places():
            return  # archived meanwhile: named as what is not at hand
        if before is not None:
            positions = sorted({*positions, *before.positions})
        try:
            # Through the reader, which refuses another log's file under this name.
            held, end = files.at(path, lambda file: (file.held(positions), file.end()))
            if not end.is_seal:  # of a WAL that lost its end SQLite says nothing
                raise FormatError(self._domain, end.head.position, f"{path} does not end in its seal; it is left as it is")
            wal = stat_or_none(path.with_name(f"{path.name}-wal"))
            if not held and before is None and (wal is None or wal.st_size == 0):
                return
            if not files.is_own(path) and claims.not_to_erase(path.parent, self._store) is not None:
                return
            self._pending[path] = _Pending(positions, "a reader in another process keeps the file from being emptied of it")
            if erase_in(path, self._domain, held, busy_timeout_ms=self._busy_timeout_ms):
                del self._pending[path]
        except (EventStoreError, OSError, sqlite3.Error) as error:
            self._pending[path] = _Pending(positions, str(error), passes=isinstance(error, UnavailableError | sqlite3.Error))

    def copies(self) -> Iterator[HeldCopy]:
        """Each such file, and what will help."""
        for path, pending in self._pending.items():
            yield HeldCopy(str(path), f"{pending.why}; the next opening for writing tries again, or redact the same again")
