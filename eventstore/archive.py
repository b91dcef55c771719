"""Moving sealed files to where the user says (FORMAT.md section 8): copy, prove, hash, record; only then the original goes.

The commit of the `archive` event is the decision. What was there before it stays, whatever happens; what the event names and is
still in the log's folder is removed by whoever comes next, but only beside a copy with the recorded hash. In an archive nothing
is overwritten, and nothing whole removed but by a deletion: a copy that no event of ours names may be one that another store's does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from eventstore import claims, database, moves
from eventstore.archived import Archived, archived_file, latest
from eventstore.clock import moment_us
from eventstore.copies import require_outside
from eventstore.database import sqlite3
from eventstore.erasure import named_by_redactions, redacted_since, roll_forward
from eventstore.errors import AccessError, ConfigError, CorruptionError, EngineError, EventStoreError, UnavailableError
from eventstore.files import (
    FILE_MODE,
    FOLDER_MODE,
    locked,
    make_folder,
    os_errors,
    sha256_of,
    stat_or_none,
    sync_file,
    sync_folder,
)
from eventstore.group import GroupCommit
from eventstore.log import FileExtent, FileLog
from eventstore.logfile import erase_in
from eventstore.model import Head
from eventstore.projections.key_states import KeyStates
from eventstore.roots import outline_of
from eventstore.sealedfile import prove, reading

_log = logging.getLogger("eventstore")

_PAGES = 2_000
"""Database pages copied at a time."""

Progress = Callable[[str, int, int], None]
"""Called with domain, files done, files to do."""


class FileReport(msgspec.Struct, frozen=True):
    """One sealed file: what is in it, and where it is, or is by now."""

    first: int
    last: int
    """Where the seal stands that ends it."""
    status: Literal["store", "archived", "deleted"]
    archive: str | None
    """The folder that open(archives=[...]) takes; None unless it is archived."""
    bytes: int | None
    """None where the file cannot be seen from here."""
    began_us: int | None
    """When its first event was recorded that is not the log's own, in microseconds; None where there is none, or nobody can look."""
    ended_us: int | None
    """The last one; of an archived file its seal."""

    @property
    def events(self) -> int:
        """How many events were appended to it, the seal included."""
        return self.last - self.first + 1


class KeptFile(msgspec.Struct, frozen=True):
    """A file, or a copy of it in an archive, that should have gone and is still where it was, and why."""

    first: int
    last: int
    why: str


class ArchiveReport(msgspec.Struct, frozen=True):
    """What was done to the sealed files of one domain, or, in a dry run, would be."""

    domain: str
    files: list[FileReport]
    """Those that were moved or deleted."""
    kept: list[KeptFile]
    floor: int
    """Events up to this position are not in the store by then."""
    sealed: bool = False
    """Whether the live file was sealed first."""
    removed: list[str] = []
    """The files that were removed as an earlier event said that they would be, and whoever wrote it did not come to that."""


def report_of(file: FileExtent, status: Literal["store", "archived", "deleted"], archive: str | None = None) -> FileReport:
    """A file of the log's own folder, told."""
    return FileReport(file.first, file.last, status, archive, file.bytes, file.began_us, file.ended_us)


def file_log(group: GroupCommit) -> FileLog:
    """The log as one of files. Raises ConfigError for one that has none."""
    log = group.live.log
    if not isinstance(log, FileLog):
        raise ConfigError(f"domain {log.domain} is in memory and has no files; what is in a folder can be archived")
    return log


def archive_folder(to: str | os.PathLike[str]) -> Path:
    """The folder of an archive, by its one absolute path. Raises ConfigError for one in a store or a backup, or whose name is no text."""
    given: object = to
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        raise ConfigError(f"the folder of an archive is a path, not {given!r}")
    try:
        folder = Path(os.path.realpath(to))
        str(folder).encode()
    except (UnicodeEncodeError, ValueError) as error:
        raise ConfigError(f"the path {os.fspath(given)!r} is not UTF-8, and cannot be recorded in an event; name another folder") from error
    require_outside(folder)
    return folder


def chosen_files(log: FileLog, before: datetime | int | None) -> list[FileExtent]:
    """The sealed files whose events were all recorded before a time, or stand before a position; None: all that are sealed.

    What the log says of itself does not count: sealing an old file does not make it new. Raises ConfigError, NaiveTimeError.
    """
    if isinstance(before, bool) or not isinstance(before, datetime | int | None):
        raise ConfigError(f"before is an aware datetime or a position, not {before!r}")
    before_us = moment_us(before) if isinstance(before, datetime) else None
    chosen: list[FileExtent] = []
    for first in log.sealed():
        file = log.file(first)
        if before_us is not None:
            falls = file.ended_us is None or file.ended_us < before_us
        else:
            falls = not isinstance(before, int) or file.last < before
        if not falls:
            break
        chosen.append(file)
    return chosen


@contextlib.contextmanager
def moving(group: GroupCommit, *, timeout_ms: int | None = None) -> Iterator[FileLog]:
    """The right to move the sealed files of a log; nobody else does meanwhile. Raises ConfigError, UnavailableError."""
    log = file_log(group)
    lock, timeout_ms = log.folder / moves.LOCK_NAME, log.busy_timeout_ms if timeout_ms is None else timeout_ms
    with os_errors(f"locking {lock}"), locked(lock, timeout_ms=timeout_ms):
        yield log


def end_moves(group: GroupCommit, log: FileLog) -> list[KeptFile]:
    """Take note which of the copies that were begun an event names by now, or are not there; gives the others, which stay named.

    What a killed process left half made is removed. Under moving().
    """
    left: list[KeptFile] = []
    for move in begun_in(log):
        said = latest(log.archived(group.live.fresh().system)).get(move.first)
        try:
            _remove_half_made(log, move)
            why = why_left(log, move, said)
        except EventStoreError as error:
            why = str(error)
        if why is not None:
            last = said.last if said is not None else log.file(move.first).last if move.first in log.sealed() else move.first
            left.append(KeptFile(move.first, last, f"{log.domain}: {why}"))
            continue
        with os_errors(f"writing {log.folder / moves.LOCK_NAME}"):
            moves.end(log.folder, move)
    return left


def begun_in(log: FileLog) -> list[moves.Move]:
    """The copies that were begun, and that no event may name. Raises EngineError."""
    with os_errors(f"reading {log.folder / moves.LOCK_NAME}"):
        return moves.begun(log.folder)


def why_left(log: FileLog, move: moves.Move, said: Archived | None) -> str | None:
    """What is left of a move, and what to do about it; None if nothing is, or `said`, the last word about its file, names it.

    Raises EngineError if nobody can tell.
    """
    copy = archived_file(Path(move.to), log.store_id, log.domain, move.first)
    if said is not None and said.path(log.store_id, log.domain) == copy:
        return None
    with os_errors(f"looking for {copy}"):
        if not Path(move.to).is_dir():
            return f"a copy was begun in {move.to}, which is not there: find it, or mount what it is on; it may hold one"
        if stat_or_none(moves.scratch_of(copy)) is not None:
            return f"a copy is made in {moves.scratch_of(copy)}, or was left there by a process that was killed: archive again"
        if stat_or_none(copy) is None:
            return None
    return (
        f"no event names the copy {copy}: archive to {move.to}, and it is taken; attach that folder, and redactions reach it; or, once"
        " its file is archived elsewhere, delete it, unless a store that this one is a copy of counts on it"
    )


def _remove_half_made(log: FileLog, move: moves.Move) -> None:
    """Remove what a killed process left of a copy, unless somebody makes one there: of this store or of one that this is a copy of."""
    scratch = moves.scratch_of(archived_file(Path(move.to), log.store_id, log.domain, move.first))
    with os_errors(f"removing {scratch}"):
        if stat_or_none(scratch) is not None:
            with claims.held(scratch.parent, timeout_ms=0):
                if stat_or_none(scratch) is not None:
                    shutil.rmtree(scratch)


def plan_archive(group: GroupCommit, before: datetime | int | None, to: Path, store_id: str) -> ArchiveReport:
    """What archive_files() would move to the folder `to`; changes nothing."""
    log = file_log(group)
    removed, unfinished = to_finish(group, log, store_id)
    stays = staying(group, log, to, store_id)
    files = [report_of(file, "store") for file in chosen_files(log, before) if file.first not in stays]
    kept = [each for each in unfinished if each.first not in {file.first for file in files}]
    return ArchiveReport(log.domain, files, kept, max([log.floor(), *(file.last for file in files)]), removed=removed)


def archive_files(
    group: GroupCommit, choose: Callable[[FileLog], list[FileExtent]], to: Path, store_id: str, progress: Progress | None = None
) -> ArchiveReport:
    """Move the sealed files that `choose` names to the folder `to`, one after the other; whatever raises leaves the rest as it was.

    Raises CorruptionError for a file that is not whole, AccessError for one that is in the way, EngineError.
    """
    domain, moved = group.live.log.domain, list[FileReport]()
    with moving(group) as log:
        removed, unfinished = finish_archiving(group, store_id)
        stays = staying(group, log, to, store_id)
        chosen = [file for file in choose(log) if file.first not in stays]
        kept = [each for each in unfinished if each.first not in {file.first for file in chosen}]
        for number, file in enumerate(chosen):
            if progress is not None:
                progress(domain, number, len(chosen))
            kept += _archive(group, log, file, to, store_id)
            moved.append(report_of(file, "archived", str(to)))
        if progress is not None:
            progress(domain, len(chosen), len(chosen))
        kept += end_moves(group, log)
    return ArchiveReport(domain, moved, kept, group.live.log.floor(), removed=removed)


def staying(group: GroupCommit, log: FileLog, to: Path, store_id: str) -> set[int]:
    """Where the files in the log's own folder begin that are not moved to the folder `to`, as an event says that they are elsewhere."""
    unfinished = _unfinished(group, log, store_id)
    return {said.first for said, why in unfinished if why is None or not _goes_anew(group, said.first, to, store_id)}


def _goes_anew(group: GroupCommit, first: int, to: Path, store_id: str) -> bool:
    """Whether a file whose archiving is on record, and that is here again, can be archived to the folder `to` once more.

    As what is on record cannot stand for it. An altered file at `to` is in the way: it is left for whoever looks into that.
    """
    log = group.live.log
    said = latest(file_log(group).archived(group.live.fresh().system))[first]
    copy = said.path(store_id, log.domain)
    if copy is None:
        return False
    altered, behind = _not_there(said, store_id, log.domain), _keeps(group, said, store_id)
    if copy == archived_file(to, store_id, log.domain, first) and stat_or_none(copy) is not None:
        return altered is None and behind is not None
    return altered is not None or behind is not None


def _archive(group: GroupCommit, log: FileLog, file: FileExtent, to: Path, store_id: str) -> list[KeptFile]:
    """Move one file; gives what is left of it in the store, if that could not be removed."""
    live = group.live
    live.keep_ids(file.last)
    target = archived_file(to, store_id, log.domain, file.first)
    folders = [to, to / store_id, target.parent]
    with os_errors(f"making {target.parent}"):
        for folder in folders:
            make_folder(folder)
    with claims.held(target.parent, timeout_ms=log.busy_timeout_ms):
        while True:
            known = live.head().position
            roll_forward(group)  # a redaction that was cut short since this process opened the log
            with os_errors(f"archiving {file.path.name} of domain {live.log.domain} to {to}"):
                sha256 = _copy(group, log, file, to, target)
                _sync(folders)
            said = Archived(file.first, file.last, sha256, str(to), outline(group, log, file))

            def say(states: KeyStates, known: int = known, said: Archived = said) -> Archived | None:
                # A redaction since then erased the value in the original, and maybe not in the copy.
                return None if redacted_since(live.log, states.system, known) else said

            kept: list[KeptFile] = []
            if group.record("archive", say, lambda kept=kept: kept.extend(drop(log, file.first, file.last))):  # type: ignore[misc]
                return kept


def outline(group: GroupCommit, log: FileLog, file: FileExtent | FileReport) -> list[str] | None:
    """What an archive event says of the tree; of a file that is archived anew it stays, though what came before may be gone by now."""
    said = latest(log.archived(group.live.fresh().system)).get(file.first)
    return outline_of(group.live.log, file.first, file.last) or (said.tree if said is not None else None)


def drop(log: FileLog, first: int, last: int) -> list[KeptFile]:
    """Remove a file from the log's folder, now that an event says so; if that fails it is kept, told, and tried again by the next one."""
    try:
        log.drop_sealed(first)
    except EngineError as error:
        return [KeptFile(first, last, str(error))]
    return []


# ---- the copy


def _copy(group: GroupCommit, log: FileLog, file: FileExtent, to: Path, target: Path) -> str:
    """See to it that a copy stands in its place, whole, proven, and named in the log's folder; gives its SHA-256."""
    store = log.folder.parents[1]
    if stat_or_none(target) is not None:
        _bring_up_to_date(group, log, file, target)
        try:
            prove_file(group, log, file, target)
        except CorruptionError as error:  # its own, not that of the file that is to go
            raise _in_the_way(target, str(error)) from error
        moves.begin(log.folder, file.first, to)
        claims.add(target.parent, store)
        return sha256_of(target, durable=True)  # whoever put it there may not have made it so
    moves.begin(log.folder, file.first, to)
    claims.add(target.parent, store)
    scratch = moves.scratch_of(target)
    if scratch.exists():
        shutil.rmtree(scratch)  # of a process that was killed: we hold the lock
    scratch.mkdir(mode=FOLDER_MODE)
    try:
        copy = scratch / target.name
        _backup(file.path, copy, log.domain, log.busy_timeout_ms)
        sync_file(copy)
        prove_file(group, log, file, copy)
        sha256 = sha256_of(copy)
        copy.rename(target)
    finally:
        shutil.rmtree(scratch)
    return sha256


def prove_file(group: GroupCommit, log: FileLog, file: FileExtent | FileReport, path: Path) -> None:
    """Prove that a file, or a copy of it, is whole, and holds nothing that was redacted. Raises CorruptionError, EngineError."""
    (seal,) = log.linked([file.last])  # as the newest file carries it
    redacted = named_by_redactions(log, group.live.fresh().system)
    prove(path, log.domain, log.store_id, seal.event, redacted, busy_timeout_ms=log.busy_timeout_ms)


def _bring_up_to_date(group: GroupCommit, log: FileLog, file: FileExtent, target: Path) -> None:
    """Erase in a copy that stands there already, left by a process that was killed or put there by a copy of this store, what was redacted
    since. Raises AccessError for anything else that is in the way, UnavailableError.
    """
    redacted = named_by_redactions(log, group.live.fresh().system)
    (seal,) = log.linked([file.last])
    try:
        with reading(target, log.domain, busy_timeout_ms=log.busy_timeout_ms) as there:
            end, held, wal = there.end().head, there.held(redacted), stat_or_none(there.wal)
    except EventStoreError as error:
        raise _in_the_way(target, str(error)) from error
    if end != Head(seal.event.position, seal.event.checksum):
        raise _in_the_way(target, "it is no copy of this log's file")
    if not held and not (wal is not None and wal.st_size):
        return
    if held and (theirs := claims.others(target.parent, log.folder.parents[1])):
        raise _in_the_way(target, f"it holds what was redacted here, and the store {' and '.join(theirs)} put files there")
    try:
        emptied = erase_in(target, log.domain, held, busy_timeout_ms=log.busy_timeout_ms)
    except sqlite3.Error as error:
        raise database.engine_error(error, domain=log.domain, path=target) from error
    if not emptied:
        raise UnavailableError(f"{target} is read by another process, which keeps what was erased in it in its write-ahead log; try again")


def _in_the_way(target: Path, why: str) -> AccessError:
    return AccessError(
        f"{target} is there already, and is not used: {why}; nothing was overwritten or moved: look what it is, then move it away, or"
        " archive to another folder"
    )


def _sync(folders: list[Path]) -> None:
    """Make the names in the folders durable, and that of the first."""
    for folder in reversed(folders):
        sync_folder(folder)
    with contextlib.suppress(PermissionError):  # a parent that must not be read is not ours to sync
        sync_folder(folders[0].parent)


def _backup(source: Path, copy: Path, domain: str, busy_timeout_ms: int) -> None:
    """Copy a sealed file with what its WAL still holds, by SQLite: others may have it open (RELIABILITY.md R4)."""
    os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE))
    try:
        opened = database.connect_reader(source, busy_timeout_ms=busy_timeout_ms)
    except sqlite3.Error as error:
        raise database.engine_error(error, domain=domain, path=source) from error
    try:
        with (
            contextlib.closing(opened) as reader,
            contextlib.closing(database.connect_writer(copy, busy_timeout_ms=busy_timeout_ms)) as writer,
        ):
            # Nobody knows the copy yet, and it is synced whole.
            writer.execute("PRAGMA journal_mode=OFF").fetchall()
            writer.execute("PRAGMA synchronous=OFF")
            reader.backup(writer, pages=_PAGES)
    except sqlite3.Error as error:
        raise database.engine_error(error, domain=domain, path=copy) from error


# ---- rolling forward


def _unfinished(group: GroupCommit, log: FileLog, store_id: str) -> list[tuple[Archived, str | None]]:
    """What `archive` events say of files that left anything in the log's own folder, and why each must stay; None of one that may go.

    Whoever was to remove it may have died over it, or somebody put the file back.
    """
    leftovers = log.leftovers()
    archived = latest(log.archived(group.live.fresh().system)) if leftovers else {}
    said = [archived[first] for first in sorted(leftovers & archived.keys())]
    whole = set(log.sealed()) if said else set()
    return [
        (each, (_not_there(each, store_id, log.domain) or _keeps(group, each, store_id)) if each.first in whole else None) for each in said
    ]


def to_finish(group: GroupCommit, log: FileLog, store_id: str) -> tuple[list[str], list[KeptFile]]:
    """What finish_archiving() would remove, and what it would keep; changes nothing."""
    unfinished = _unfinished(group, log, store_id)
    removed = [str(database.log_file(log.folder, said.first)) for said, why in unfinished if why is None]
    return removed, [_kept(log.domain, said, why) for said, why in unfinished if why is not None]


def finish_archiving(group: GroupCommit, store_id: str) -> tuple[list[str], list[KeptFile]]:
    """Remove from the log's folder what `archive` events say is elsewhere, if the copy there has the recorded hash.

    Gives what was removed, and what is kept.
    """
    log = group.live.log
    removed, kept = list[str](), list[KeptFile]()
    for said, why in _unfinished(group, log, store_id) if isinstance(log, FileLog) else ():
        assert isinstance(log, FileLog)
        if why is None:
            with group.live.log.writing():
                left = drop(log, said.first, said.last)
            kept += left
            removed += [] if left else [str(database.log_file(log.folder, said.first))]
        else:
            kept.append(_kept(log.domain, said, why))
    return removed, kept


def _kept(domain: str, said: Archived, why: str) -> KeptFile:
    return KeptFile(said.first, said.last, f"{domain}: the log says that this file was archived, and it is kept: {why}")


def _not_there(said: Archived, store_id: str, domain: str) -> str | None:
    """Why the copy that an archive event names cannot stand for the file; None if it can, or if the file was to be deleted."""
    copy = said.path(store_id, domain)
    if copy is None:
        return None
    try:
        with os_errors(f"looking for {copy}"):
            if not copy.is_file():
                return f"there is no {copy}"
            found = sha256_of(copy)
    except EngineError as error:
        return str(error)
    return None if found == said.sha256 else f"{copy} has SHA-256 {found}, not {said.sha256}"


def _keeps(group: GroupCommit, said: Archived, store_id: str) -> str | None:
    """Why the copy, whole as it is, is less than the file: a redaction since then reached that one alone; None if none did."""
    log = group.live.log
    copy = said.path(store_id, log.domain)
    redacted = named_by_redactions(log, group.live.fresh().system)
    if copy is None or not redacted:
        return None
    try:
        with reading(copy, log.domain, busy_timeout_ms=log.busy_timeout_ms) as file:
            held = file.held(redacted)
    except EventStoreError as error:
        return str(error)
    return f"{copy} still holds what was redacted since: attach its archive, archives=[...] or --archive DIR" if held else None


def try_to_finish(group: GroupCommit, store_id: str) -> None:
    """finish_archiving() for an opening, which must not fail over it: what could not be done is logged, and the next one tries again."""
    try:
        left = [*_try_to_end_moves(group), *finish_archiving(group, store_id)[1]]
        kept = [f"positions {each.first} to {each.last}: {each.why}" for each in left]
    except EventStoreError as error:
        kept = [str(error)]
    for sentence in kept:
        _log.warning("%s", sentence)


def _try_to_end_moves(group: GroupCommit) -> list[KeptFile]:
    """end_moves(), unless somebody moves files at this moment, who sees to it."""
    log = group.live.log
    if not isinstance(log, FileLog) or not begun_in(log):
        return []
    try:
        with moving(group, timeout_ms=0):
            return end_moves(group, log)
    except UnavailableError:
        return []
