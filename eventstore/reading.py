"""LogReader: the part of an EventLog in files that reads. Its subclasses open and close them (keeping.py), and write (sqlite.py)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from eventstore.archived import Archived
from eventstore.errors import EngineError, FormatError, GapError
from eventstore.files import stat_or_none
from eventstore.log import PAGE, Extent, FileExtent
from eventstore.logfile import LogFile
from eventstore.logfiles import LogFiles
from eventstore.model import Event, Head, Linked

R = TypeVar("R")

_FOREVER = 2**63 - 1


class LogReader(ABC):
    """Answers from the files of a log, and goes on with others where those were replaced in between. Safe between threads."""

    domain: str
    store: Path
    _files: LogFiles
    _file: LogFile
    """The live file: the last one of the log, but for the moment in which another process goes on in a new one."""
    _closed: bool

    @abstractmethod
    def _require_open(self) -> None:
        """Raise ClosedError after close(); open anew in a forked child."""

    def head(self) -> Head:
        """See EventLog.head."""
        return self._ask(LogFiles.head)

    def _ask(self, verb: Callable[[LogFiles], R]) -> R:
        """What the files say; the new ones, if resume() put them in the place of those that were asked."""
        while True:
            self._require_open()
            files = self._files
            try:
                return verb(files)
            except EngineError:
                if files is self._files and not self._closed:
                    raise

    def read(self, after: int = 0, *, until: int | None = None, limit: int | None = None) -> Iterator[Event]:
        """See EventLog.read. Pages by position: a cursor left open would pin the WAL."""
        last = _FOREVER if until is None else min(until, _FOREVER)
        left = _FOREVER if limit is None else limit
        after = max(after, 0)
        if left > 0:
            self._ask(lambda files: files.require_at_hand(after, last))
        while left > 0 and after < _FOREVER:
            page = self._page(after, last, min(left, PAGE))
            if not page:
                if after >= min(last, self._ask(LogFiles.head).position):
                    return
                page = self._page(after, last, min(left, PAGE))  # appended since
                if not page:
                    raise GapError(self.domain, after + 1, after + 1)  # a damaged row ends SQLite's search as the last one does
            yield from page
            after, left = page[-1].position, left - len(page)

    def _page(self, after: int, last: int, limit: int) -> list[Event]:
        def paged(files: LogFiles) -> list[Event]:
            page = files.page(after, last, limit)
            if any(event.op == "redact" for event in page):
                files.refresh()  # one that is open here, and was moved away, holds what is erased where it is now
            return page

        return self._ask(paged)

    def get(self, positions: Sequence[int]) -> list[Event]:
        """See EventLog.get."""
        return self._ask(lambda files: files.get(positions))

    def linked(self, positions: Sequence[int]) -> list[Linked]:
        """See EventLog.linked."""
        return self._ask(lambda files: files.linked(positions))

    def held(self, positions: Sequence[int]) -> list[int]:
        """See EventLog.held."""
        return self._ask(lambda files: files.held(positions))

    def floor(self) -> int:
        """See EventLog.floor."""
        return self._ask(LogFiles.floor)

    def start(self, until: int) -> int:
        """See EventLog.start."""
        return self._ask(lambda files: files.start(until))

    def carried(self, start: int) -> Iterator[Linked]:
        """See EventLog.carried."""
        after = -1
        while page := self._carried_page(start, after):
            yield from page
            after = page[-1].event.position

    def _carried_page(self, start: int, after: int) -> list[Linked]:
        return self._ask(lambda files: files.carried(start, after))

    def chain(self, position: int, *, limit: int) -> list[Linked]:
        """See EventLog.chain."""
        found = self._ask(lambda files: files.chain(position, limit))
        if not found and limit > 0 and 0 < position <= self._ask(LogFiles.head).position:
            raise GapError(self.domain, position, position)  # a row that is damaged is not found, and is no end of a history
        return found

    def checksums(self, after: int, until: int) -> Iterator[bytes]:
        """See EventLog.checksums."""
        after = max(after, -1)
        self._ask(lambda files: files.require_at_hand(after, until))
        while after < until:
            page = self._checksum_page(after, min(until, _FOREVER))
            for position, checksum in page:
                after += 1
                if position != after:
                    raise GapError(self.domain, position, after)
                if not isinstance(checksum, bytes):
                    raise FormatError(self.domain, position, f"the checksum is {type(checksum).__name__}; run `eventstore verify`")
                yield checksum
            if not page:
                raise GapError(self.domain, after + 1, after + 1)

    def _checksum_page(self, after: int, until: int) -> list[tuple[int, Any]]:
        return self._ask(lambda files: files.checksums(after, until))

    def rows(self, after: int, until: int) -> list[tuple[Any, ...]]:
        """See RowLog.rows."""
        return self._ask(lambda files: files.rows(after, until))

    def states(self, positions: Sequence[int]) -> list[tuple[Any, ...]]:
        """See RowLog.states."""
        return self._ask(lambda files: files.states(positions))

    def source(self) -> list[Path]:
        """See RowLog.source."""
        return self._ask(LogFiles.source)

    def extent(self) -> Extent:
        """See EventLog.extent."""
        self._require_open()
        return Extent(self._file.first, self._file.began_us(), self._file.size())

    def has_grown(self, by: int) -> bool:
        """See EventLog.has_grown."""
        self._require_open()
        return self._file.has_grown(by)

    def wal_bytes(self) -> int:
        """See EventLog.wal_bytes. A checkpoint does not shrink the file; one that cannot be made lets it grow."""
        self._require_open()
        status = stat_or_none(self._file.wal)
        return status.st_size if status is not None else 0

    # ---- which files, and where

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

    def theirs(self, positions: Sequence[int]) -> list[tuple[Path, str]]:
        """See FileLog.theirs."""
        return self._look(lambda files: files.theirs(positions, self.store))

    def place(self, position: int) -> tuple[Path | None, int | None]:
        """See FileLog.place."""
        return self._ask(lambda files: files.place(position))

    def archived(self, system: int | None = None) -> list[Archived]:
        """See FileLog.archived."""
        return self._ask(lambda files: files.archived(system))
