"""LogFiles: the files of one log that are at hand, read as if they were one (FORMAT.md section 8).

A position belongs to the file that begins at or before it. Where that one is not at hand, archived or missing, what a later file
carries of it serves, and nothing else: CompactedError. Sealed files are opened when they are asked, and few of them stay open.
"""

from __future__ import annotations

import logging
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from eventstore import claims
from eventstore.archived import Archived, latest, read_archived
from eventstore.database import first_of
from eventstore.errors import CompactedError, CorruptionError, EngineError, FormatError, GapError, StoreFormatError
from eventstore.files import os_errors, sha256_each
from eventstore.log import PAGE, FileExtent
from eventstore.logfile import LogFile
from eventstore.model import Event, Head, Linked

_log = logging.getLogger("eventstore")

R = TypeVar("R")

_NOT_SEEN = (CorruptionError, StoreFormatError, EngineError)
"""What a file may meet with that nobody can look into: its bytes, or the machine."""

OPEN_FILES = 8
"""Sealed files of a log that stay open: a store may have hundreds, and each takes three descriptors."""


class _Layout(msgspec.Struct, frozen=True):
    """Which files the log has: where each begins, and the paths of those at hand."""

    paths: dict[int, Path]
    """In the order of the log."""
    starts: list[int]
    """Where the files of the log begin, those that are not at hand included."""

    def first_of(self, position: int) -> int:
        """Which file `position` belongs to."""
        return self.starts[max(bisect_right(self.starts, position) - 1, 0)]

    def after(self, first: int) -> int | None:
        """Which file comes next."""
        place = bisect_right(self.starts, first)
        return self.starts[place] if place < len(self.starts) else None

    @property
    def newest(self) -> int:
        """The last file."""
        return self.starts[-1]

    @property
    def missing(self) -> list[tuple[int, int]]:
        """First and last position of each file that is not at hand."""
        return [(first, after - 1) for first, after in pairwise(self.starts) if first not in self.paths]

    @property
    def floor(self) -> int:
        """The last position that is not at hand; 0 if all are."""
        return self.missing[-1][1] if self.missing else 0


class LogFiles:
    """Reads the files that `find` lists. Safe between threads; a RowLog, so that another process can walk the same files.

    `live` is the file that a writer holds: it is asked through his reading connection, and closed by him.
    """

    def __init__(
        self, domain: str, find: Callable[[], Sequence[Path]], *, busy_timeout_ms: int, live: LogFile | None = None, lenient: bool = False
    ) -> None:
        self.domain = domain
        self._find, self._busy_timeout_ms, self._lenient = find, busy_timeout_ms, lenient
        self.live = live
        self._open: OrderedDict[Path, LogFile] = OrderedDict()
        self._lock = threading.RLock()
        """Held while a file that is ours to close is used."""
        self._found: list[Path] = []
        self._layout = _Layout({}, [0])
        self.refresh()

    # ---- which files there are

    def refresh(self) -> bool:
        """Look which files are at hand; whether they are others than before."""
        with os_errors(f"listing the files of domain {self.domain}"):
            found = list(self._find())
        if not found or found == self._found:
            return False
        listed = {first_of(path): path for path in found}
        newest = max(listed)
        starts = sorted({newest, *self._starts_before(newest, listed)})
        self._layout = _Layout({first: listed[first] for first in starts if first in listed}, starts)
        with self._lock:
            self._found = found
            for path in self._open.keys() - set(found):
                self._open.pop(path).close_reader()
        return True

    def _starts_before(self, newest: int, listed: dict[int, Path]) -> list[int]:
        """Where the files before the newest one begin, as their seals say, all of which it carries."""
        try:
            return [seal.first for seal in self._with(newest, listed[newest], LogFile.seals)]
        except CorruptionError as error:
            if not self._lenient:
                raise
            _log.warning("%s; the files that are there are taken for all there are", error)
            return list(listed)

    def _advance(self) -> bool:
        """At the end of the newest file: whether the log goes on in another one by now."""
        return self.ask(self._layout.newest, LogFile.end).is_seal and self.refresh()

    def floor(self) -> int:
        """See EventLog.floor."""
        return self._layout.floor

    def paths(self) -> list[Path]:
        """The files at hand, in the order of the log."""
        return list(self._layout.paths.values())

    def places(self) -> list[Path]:
        """Wherever files of the log stand: the same one may be in its own folder and in archives. Of those the last one is read."""
        starts = set(self._layout.starts)
        return [path for path in self._found if first_of(path) in starts]

    def missing(self) -> list[tuple[int, int]]:
        """First and last position of each file that is not at hand."""
        return self._layout.missing

    def starts(self) -> list[int]:
        """Where a fold can begin, rising: at the seals before files at hand, and 0 for the birth row, if the first one is."""
        return [max(first - 1, 0) for first in self._layout.paths]

    def start(self, until: int) -> int:
        """See EventLog.start."""
        found = [start for start in self.starts() if start <= until]
        if not found:
            raise self._compacted(until)
        return found[-1]

    def path_of(self, position: int) -> Path:
        """The file that `position` belongs to, or the newest, where that one is not at hand."""
        layout = self._layout
        return layout.paths.get(layout.first_of(position)) or layout.paths[layout.newest]

    def archived(self, system: int | None = None) -> list[Archived]:
        """What the log says of where its sealed files were put, in order; `system` as LogFile.archives() takes it."""
        events = self.ask(self._layout.newest, lambda file: file.archives(system))
        return [read_archived(event, self.domain) for event in events]

    def attached(self) -> list[Path]:
        """See FileLog.attached."""
        return [path for path in self.places() if not self.is_own(path)]

    def is_own(self, path: Path) -> bool:
        """Whether a file stands in the log's own folder, and in no archive."""
        return path.parent == self._layout.paths[self._layout.newest].parent

    def archives(self, system: int | None = None) -> list[tuple[Archived, Path | None]]:
        """See FileLog.archives."""
        standing = {(first_of(path), path.parents[2]): path for path in self.attached()}
        said = [each for each in latest(self.archived(system)).values() if each.to is not None]
        return [(each, standing.get((each.first, Path(os.path.realpath(each.to or ""))))) for each in said]

    def sealed(self) -> list[int]:
        """Where the sealed files in the log's own folder begin, rising."""
        return [first for first, path in self._layout.paths.items() if self.is_own(path) and first != self._layout.newest]

    def extent(self, first: int | None) -> FileExtent:
        """See FileLog.file."""
        layout = self._layout
        first = layout.newest if first is None else first
        after = layout.after(first)
        last = self.ask(first, LogFile.end).head.position if after is None else after - 1
        began_us, ended_us = self.ask(first, LogFile.span_us) or (None, None)
        return FileExtent(first, last, layout.paths[first], self.ask(first, LogFile.size), began_us, ended_us)

    def _compacted(self, position: int) -> CompactedError:
        said = latest(self.archived()).get(self._layout.first_of(position))
        return CompactedError(self.domain, position, self.floor(), said.to if said else None, deleted=said is not None and said.to is None)

    # ---- one of them

    def ask(self, first: int, verb: Callable[[LogFile], R]) -> R:
        """What the file that begins at `first` says; it may change hands meanwhile. Raises CompactedError if it is not at hand."""
        while True:
            live, layout = self.live, self._layout
            path = layout.paths.get(first)
            if path is None:
                raise self._compacted(first)
            try:
                return self._with(first, path, verb)
            except EngineError:
                # The live one was closed, as it was sealed or resume() opened it anew; another one was moved away.
                if self.live is live and not self.refresh():
                    raise

    def _with(self, first: int, path: Path, verb: Callable[[LogFile], R]) -> R:
        live = self.live
        if live is not None and live.first == first:
            return verb(live)
        return self.at(path, verb)

    def at(self, path: Path, verb: Callable[[LogFile], R]) -> R:
        """What the sealed file at one of places() says. Raises CorruptionError for another log's file in an archive."""
        with self._lock:
            return verb(self._opened(path))

    def _opened(self, path: Path) -> LogFile:
        file = self._open.get(path)
        if file is None:
            while len(self._open) >= OPEN_FILES:
                self._open.popitem(last=False)[1].close_reader()
            with os_errors(f"opening {path}"):
                file = LogFile(path, self.domain, read_only=True, busy_timeout_ms=self._busy_timeout_ms)
            try:
                self._require_in_place(file)
            except BaseException:
                file.close_reader()
                raise
            self._open[path] = file
        self._open.move_to_end(path)
        return file

    def _require_in_place(self, file: LogFile) -> None:
        """Refuse a file in an archive that does not end in this log's own seal: another store's, or altered, under the right name."""
        layout = self._layout
        after = layout.after(file.first)
        if after is None or self.is_own(file.path):
            return
        (seal,) = self._with(layout.newest, layout.paths[layout.newest], lambda newest: newest.get([after - 1]))
        end = file.end().head
        if end != Head(seal.position, seal.checksum):
            message = f"{file.path} does not end in the seal at position {seal.position}: another log's file, or an altered one; detach it"
            raise FormatError(self.domain, end.position, message)

    def _steady(self, verb: Callable[[], R]) -> R:
        """What `verb` finds; anew, if a file that it asked was moved away meanwhile: of what it held a later file may have a copy."""
        while True:
            layout = self._layout
            try:
                return verb()
            except CompactedError:
                if self._layout is layout:
                    raise

    # ---- reading

    def head(self) -> Head:
        """The last event of the newest file."""
        while True:
            end = self.ask(self._layout.newest, LogFile.end)
            if not end.is_seal or not self.refresh():
                return end.head

    def require_at_hand(self, after: int, until: int) -> None:
        """Raise CompactedError if any event with after < position <= until is not at hand."""
        for first, last in self._layout.missing:
            if first <= until and last > after:
                raise self._compacted(max(first, after + 1))

    def page(self, after: int, until: int, limit: int) -> list[Event]:
        """The next events, at most `limit`; of one file, so that there may be fewer. None at the end of the log."""
        return self._next(after, until, lambda file, after, until: file.page(after, until, limit), attrgetter("position"))

    def checksums(self, after: int, until: int) -> list[tuple[int, Any]]:
        """The next positions with their checksums, each from the file that it was appended to."""
        return self._next(after, until, LogFile.checksums, itemgetter(0))

    def rows(self, after: int, until: int) -> list[tuple[Any, ...]]:
        """See RowLog.rows."""
        return self._next(after, until, LogFile.rows, itemgetter(0))

    def _next(self, after: int, until: int, verb: Callable[[LogFile, int, int], list[R]], place: Callable[[R], int]) -> list[R]:
        """The next rows of the log: of the file that the position after `after` belongs to, or of those that follow it."""
        while after < until:
            first = self._layout.first_of(after + 1)
            following = self._layout.after(first)
            # What the file carries stands before its first position, and nothing of it behind its seal.
            bounds = max(after, first - 1), until if following is None else min(until, following - 1)
            found = self.ask(first, lambda file, bounds=bounds: verb(file, *bounds))  # type: ignore[misc]
            if found:
                self._require_progress(after, found, place)
                return found
            if following is not None:
                after = max(after, following - 1)
            elif not self._advance():
                break
        return []

    def _require_progress(self, after: int, found: Sequence[R], place: Callable[[R], int]) -> None:
        if found and (place(found[0]) <= after or place(found[-1]) <= after):
            # A page of the file stands in another one's place: going on from here would never end.
            message = f"rows come out of order after position {after}: the database file is damaged; run `eventstore verify`"
            raise FormatError(self.domain, None, message)

    def get(self, positions: Sequence[int]) -> list[Event]:
        """See EventLog.get: each from the file that it was appended to, a copy only where that one is not at hand."""
        return self._gather(positions, LogFile.get, attrgetter("position"))

    def linked(self, positions: Sequence[int]) -> list[Linked]:
        """See EventLog.linked: from the newest file where it carries them, as what keys are now stands there together."""
        return self._gather(positions, LogFile.linked, attrgetter("event.position"), copies_first=True)

    def states(self, positions: Sequence[int]) -> list[tuple[Any, ...]]:
        """See RowLog.states."""
        return self._gather(positions, LogFile.states, itemgetter(0))

    def _gather(
        self,
        positions: Sequence[int],
        verb: Callable[[LogFile, Sequence[int]], list[R]],
        place: Callable[[R], int],
        *,
        copies_first: bool = False,
    ) -> list[R]:
        """What the files say of `positions`, in ascending order of position."""
        while True:
            found = self._steady(lambda: self._gather_now(positions, verb, place, copies_first=copies_first))
            if len(found) >= len(positions) or not self._advance():
                return found

    def _gather_now(
        self, positions: Sequence[int], verb: Callable[[LogFile, Sequence[int]], list[R]], place: Callable[[R], int], *, copies_first: bool
    ) -> list[R]:
        layout = self._layout
        if len(layout.starts) == 1:
            return self.ask(layout.newest, lambda file: verb(file, positions))
        there: dict[int, R] = {}

        def take(first: int, some: Sequence[int]) -> None:
            there.update((place(each), each) for each in self.ask(first, lambda file: verb(file, some)))

        if copies_first:
            take(layout.newest, positions)
        wanted: dict[int, list[int]] = {}
        for position in set(positions) - there.keys():
            wanted.setdefault(layout.first_of(position), []).append(position)
        for first, some in wanted.items():
            if first in layout.paths:
                take(first, some)
                continue
            for later in [later for later in layout.paths if later > first]:
                take(later, some)
            if absent := set(some) - there.keys():
                raise self._compacted(min(absent))
        return [there[position] for position in sorted(there)]

    def held(self, positions: Sequence[int]) -> list[int]:
        """See EventLog.held: whichever file it is, wherever it stands, and also where it is a copy."""
        held, unseen = self._looked_for(positions)
        for path, why in unseen.items():
            _log.warning("%s cannot be looked into, and may hold what was redacted: %s", path, why)
        return held

    def unseen(self, positions: Sequence[int]) -> list[tuple[Path, str]]:
        """See FileLog.unseen."""
        return list(self._looked_for(positions)[1].items())

    def _looked_for(self, positions: Sequence[int]) -> tuple[list[int], dict[Path, str]]:
        """Those of `positions` that are held; and the files that cannot be looked into, or not for all of them, each with the reason."""
        newest = self._layout.paths[self._layout.newest]
        found, unseen = set[int](), dict[Path, str]()

        def look(file: LogFile) -> None:
            found.update(file.held(positions))
            for position in file.lost(positions)[:1]:
                unseen[file.path] = f"{self.domain}@{position}: no such row is found there, and one belongs there: the file is damaged"

        self.ask(self._layout.newest, look)
        for path in self.places():
            if path != newest:
                try:
                    self.at(path, look)
                except _NOT_SEEN as error:
                    unseen[path] = str(error)
        if unseen and self.refresh():
            return self._looked_for(positions)  # moved away meanwhile
        return sorted(found), unseen

    def theirs(self, positions: Sequence[int], store: Path) -> list[tuple[Path, str]]:
        """See FileLog.theirs; `store` is the folder of the store that asks."""
        found: list[tuple[Path, str]] = []
        for path in self.attached():
            try:
                why = claims.not_to_erase(path.parent, store)
            except OSError as error:
                why = f"who put files into {path.parent} nobody can tell: {error}"
            if why is not None and self._holds_any(path, positions):
                found.append((path, why))
        return found

    def _holds_any(self, path: Path, positions: Sequence[int]) -> bool:
        try:
            return bool(self.at(path, lambda file: file.held(positions)))
        except _NOT_SEEN:
            return False  # unseen() tells of it

    def place(self, position: int) -> tuple[Path | None, int | None]:
        """See FileLog.place."""
        layout = self._layout
        first = layout.first_of(position)
        after = layout.after(first)
        return layout.paths.get(first), None if after is None else after - 1

    def chain(self, position: int, limit: int) -> list[Linked]:
        """See EventLog.chain: file by file, as far back as they are at hand, and as they can be read.

        First what the newest file has of it: all events of the log itself, which so are known whatever became of other files.
        """
        return self._steady(lambda: self._chain_now(position, limit))

    def _chain_now(self, position: int, limit: int) -> list[Linked]:
        chain = self.ask(self._layout.newest, lambda file: file.chain(position, limit))
        while len(chain) < limit:
            if chain:
                last = chain[-1].event
                if not 0 < last.prev < last.position:
                    break
                position = last.prev
            try:
                found = self._links(position, limit - len(chain))
            except (CompactedError, CorruptionError, StoreFormatError):
                if chain:
                    break  # whoever goes on from here is told
                raise
            if not found and (chain or not self._advance()):
                break
            chain += found
        return chain

    def _links(self, position: int, limit: int) -> list[Linked]:
        """The chain from `position` back, as far as its file has it; of one that cannot be read the one event, or a later file's copy."""
        layout = self._layout
        first = layout.first_of(position)
        if first not in layout.paths:
            return self.linked([position])

        def asked(file_first: int, most: int) -> list[Linked]:
            return self.ask(file_first, lambda file: file.chain(position, most))

        failure: CorruptionError | StoreFormatError | None = None
        for each, most in [(first, limit), (first, 1), *((later, 1) for later in layout.paths if later > first)]:
            try:
                found = asked(each, most)
            except (CorruptionError, StoreFormatError) as error:
                failure = failure or error
            else:
                if found or first == layout.newest:
                    return found
        raise failure or GapError(self.domain, position, position)  # a sealed file has every row up to its seal

    def carried(self, start: int, after: int) -> list[Linked]:
        """A page of what EventLog.carried() gives, behind position `after`."""
        found = self.ask(start + 1 if start else 0, lambda file: file.carried(after, PAGE))
        self._require_progress(after, found, attrgetter("event.position"))
        return found

    def checksum_at(self, position: int) -> bytes | None:
        """The checksum at `position`, as the newest file has it where that carries it; None if there is no such event.

        Raises CompactedError.
        """

        def now() -> bytes | None:
            first = self._layout.first_of(position)
            carried = self.ask(self._layout.newest, lambda file: file.checksum_at(position))
            if carried is None and first in self._layout.paths:
                return self.ask(first, lambda file: file.checksum_at(position))
            return carried or self.linked([position])[0].event.checksum

        return self._steady(now)

    def source(self) -> list[Path]:
        """See RowLog.source."""
        live = self.live
        return [live.source() if live is not None and live.path == path else path for path in self.paths()]

    def faults(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the files, as EventLog.faults tells it: each by SQLite's own check, and how they follow each other."""
        several = len(self._layout.starts) > 1
        archived = latest(self.archived()) if several else {}
        for first, path in self._layout.paths.items():
            for sentence in self.ask(first, LogFile.integrity):
                yield "structure", f"{path.name}: {sentence}" if several else sentence
            following = self._layout.after(first)
            if following is not None:
                yield from self._end_faults(first, path, following - 1)
        for first, last in self.missing():
            if first not in archived:
                yield "missing", f"the file of positions {first} to {last} is not there, and no archive event says where it was put"
        for path in self._found:
            if (first := first_of(path)) not in self._layout.starts:
                yield "structure", f"{path.name} is no file of this log: no seal ends before position {first}"

    def altered(self) -> Iterator[tuple[Path, str]]:
        """Hold files in archives against what the log says of their bytes: flips that no event sees are seen here (RELIABILITY.md R12)."""
        archived = latest(self.archived()) if len(self._layout.starts) > 1 else {}
        # A file that somebody else put there has nothing to be held against: its events prove themselves. So do those of a copy in
        # another place than the recorded one, once something was erased: only of the one that is on record the hash is taken anew.
        redacted = bool(archived) and self.ask(self._layout.newest, LogFile.has_redactions)
        known: dict[int, set[str]] = {}
        for said in self.archived() if archived and not redacted else ():  # of one that was archived anew an earlier copy may be attached
            known.setdefault(said.first, set()).add(said.sha256 or "")
        named = {path: known[first] for path in self.attached() if (first := first_of(path)) in known and archived[first].sha256}
        named |= {path: {said.sha256 or ""} for said, path in self.archives() if path is not None}
        for (path, wanted), found in zip(named.items(), sha256_each(list(named)), strict=True):
            if isinstance(found, EngineError):
                yield path, str(found)
            elif found not in wanted:
                yield path, f"{path}: SHA-256 {found}, and the log says that it was {max(wanted)}: the file in the archive was altered"

    def _end_faults(self, first: int, path: Path, last: int) -> Iterator[tuple[str, str]]:
        try:
            end = self.ask(first, LogFile.end)
        except CorruptionError:
            return  # told by the walk
        if not end.is_seal or end.head.position != last:
            ends = f"ends in position {end.head.position}, which is {'a seal' if end.is_seal else 'no seal'}"
            yield "structure", f"{path.name}: {ends}; it should end in the seal at position {last}"

    # ---- letting go

    def close(self) -> None:
        """Close what was opened here; the live file is not."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close_reader()

    def before_fork(self) -> None:
        """Let what is under way end; see LogFile.before_fork."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def abandon(self) -> None:
        """In a forked child: see LogFile.abandon."""
        self._lock = threading.RLock()
        for file in self._open.values():
            file.abandon()
        self._open = OrderedDict()
