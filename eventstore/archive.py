"""Moving sealed files to where the user says (FORMAT.md section 8): copy, prove, hash, record; only then the original goes.

The commit of the `archive` event is the decision. What was there before it stays, whatever happens; what the event names and is
still in the log's folder is removed by whoever comes next, but only beside a copy with the recorded hash.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from eventstore import database, moves
from eventstore.archived import Archived, archived_file, latest
from eventstore.clock import moment_us
from eventstore.database import sqlite3
from eventstore.erasure import named_by_redactions, redacted_since, roll_forward
from eventstore.errors import AccessError, ConfigError, EngineError, EventStoreError, UnavailableError
from eventstore.files import (
    FILE_MODE,
    FOLDER_MODE,
    locked,
    make_folder,
    os_errors,
    remove_files,
    sha256_of,
    stat_or_none,
    sync_file,
    sync_folder,
)
from eventstore.group import GroupCommit
from eventstore.log import FileExtent, FileLog
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
    """A file that should have gone and is still where it was, and why."""

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


def report_of(file: FileExtent, status: Literal["store", "archived", "deleted"], archive: str | None = None) -> FileReport:
    """A file of the log's own folder, told."""
    return FileReport(file.first, file.last, status, archive, file.bytes, file.began_us, file.ended_us)


def file_log(group: GroupCommit) -> FileLog:
    """The log as one of files. Raises ConfigError for one that has none."""
    log = group.live.log
    if not isinstance(log, FileLog):
        raise ConfigError(f"domain {log.domain} is in memory and has no files; what is in a folder can be archived")
    return log


def archive_folder(to: str | os.PathLike[str], groups: Iterable[GroupCommit]) -> Path:
    """The folder for an archive, by its one absolute path. Raises ConfigError for one inside the store, or whose name is no text."""
    given: object = to
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        raise ConfigError(f"the folder of an archive is a path, not {given!r}")
    try:
        folder = Path(os.path.realpath(to))
        str(folder).encode()
    except (UnicodeEncodeError, ValueError) as error:
        raise ConfigError(f"the path {given!r} is not UTF-8, and cannot be recorded in an event; name another folder") from error
    for group in groups:
        home = file_log(group).folder.parents[1]
        if folder == home or home in folder.parents:
            raise ConfigError(
                f"{folder} is inside the store {home}: whatever takes the store would take its archive; name a folder outside"
            )
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
    """The right to move the sealed files of a log; nobody else does meanwhile, and no copy is left that no event names.

    Raises ConfigError, UnavailableError.
    """
    log = file_log(group)
    lock, timeout_ms = log.folder / moves.LOCK_NAME, log.busy_timeout_ms if timeout_ms is None else timeout_ms
    with os_errors(f"locking {lock}"), locked(lock, timeout_ms=timeout_ms):
        try:
            _abandon(group, log)
            yield log
        finally:
            _abandon(group, log)


def _abandon(group: GroupCommit, log: FileLog) -> None:
    """Remove the copies that were begun and that no event names, this process's or a dead one's: what they are of is still there.

    One that cannot be reached stays named: a redaction tells of it, and the next one who moves files tries again.
    """
    with os_errors(f"reading {log.folder / moves.LOCK_NAME}"):
        begun = moves.begun(log.folder)
    for move in begun:
        try:
            said = latest(log.archived(group.live.fresh().system)).get(move.first)
            copy = archived_file(Path(move.to), log.store_id, log.domain, move.first)
            with os_errors(f"removing {copy}"):
                if not _is_recorded(None if said is None else said.path(log.store_id, log.domain), copy):
                    last = said.last if said is not None else log.file(move.first).last if move.first in log.sealed() else None
                    _remove_copy(log, copy, last, ours=moves.is_ours(log.folder, move))
            with os_errors(f"writing {log.folder / moves.LOCK_NAME}"):
                moves.end(log.folder, move)
        except EventStoreError as error:
            _log.warning("%s: a copy that was begun may be left in an archive: %s", log.domain, error)


def _is_recorded(recorded: Path | None, copy: Path) -> bool:
    """Whether an event names this copy, by whatever path. Raises AccessError if nobody can tell: it may be all that is left."""
    if recorded is None or recorded == copy:
        return recorded is not None
    if not recorded.exists():
        raise AccessError(f"{recorded}, which is on record, is not there, and {copy} may be all that is left of its file")
    return copy.exists() and recorded.samefile(copy)


def _remove_copy(log: FileLog, copy: Path, last: int | None, *, ours: bool) -> None:
    """Remove what there is of a copy of the file that ends in `last`; None if that is neither in the log's folder nor on record.

    Raises EventStoreError if nobody can tell, or it is no such copy.
    """
    if not copy.parents[2].is_dir():
        raise AccessError(f"{copy.parents[2]} is not there")
    scratch = _scratch(copy)
    if not ours and (scratch.exists() or copy.exists()):
        raise AccessError(f"this store is a copy, and {copy} may be its original's")
    if scratch.exists():
        shutil.rmtree(scratch)
    if stat_or_none(copy) is None:
        return
    if last is None:
        raise AccessError(f"{copy} may be all that is left of its file")
    (seal,) = log.linked([last])
    with reading(copy, log.domain, busy_timeout_ms=log.busy_timeout_ms) as file:
        end = file.end().head
    if end != Head(seal.event.position, seal.event.checksum):
        raise AccessError(f"{copy} is no copy of this log's file")
    remove_files([copy, *(copy.with_name(f"{copy.name}{side}") for side in ("-wal", "-shm"))])


def _scratch(copy: Path) -> Path:
    """Where a copy is made, beside its place."""
    return copy.parent / f".tmp-{copy.name}"


def plan_archive(group: GroupCommit, before: datetime | int | None) -> ArchiveReport:
    """What archive_files() would move; changes nothing."""
    log = file_log(group)
    files = [report_of(file, "store") for file in chosen_files(log, before)]
    return ArchiveReport(group.live.log.domain, files, [], max([group.live.log.floor(), *(file.last for file in files)]))


def archive_files(
    group: GroupCommit, choose: Callable[[FileLog], list[FileExtent]], to: Path, store_id: str, progress: Progress | None = None
) -> ArchiveReport:
    """Move the sealed files that `choose` names to the folder `to`, one after the other; whatever raises leaves the rest as it was.

    Raises CorruptionError for a file that is not whole, AccessError for one that is in the way, EngineError.
    """
    domain, moved = group.live.log.domain, list[FileReport]()
    with moving(group) as log:
        kept = finish_archiving(group, store_id)
        told = {each.first for each in kept}
        chosen = [file for file in choose(log) if file.first not in told]
        for number, file in enumerate(chosen):
            if progress is not None:
                progress(domain, number, len(chosen))
            kept += _archive(group, log, file, to, store_id)
            moved.append(report_of(file, "archived", str(to)))
        if progress is not None:
            progress(domain, len(chosen), len(chosen))
    return ArchiveReport(domain, moved, kept, group.live.log.floor())


def _archive(group: GroupCommit, log: FileLog, file: FileExtent, to: Path, store_id: str) -> list[KeptFile]:
    """Move one file; gives what is left of it in the store, if that could not be removed."""
    live = group.live
    live.keep_ids(file.last)
    while True:
        known = live.head().position
        roll_forward(group)  # a redaction that was cut short since this process opened the log
        with os_errors(f"archiving {file.path.name} of domain {live.log.domain} to {to}"):
            _require_free(archived_file(to, store_id, log.domain, file.first))
            with os_errors(f"writing {log.folder / moves.LOCK_NAME}"):
                moves.begin(log.folder, file.first, to)
            sha256 = _copy(group, file, to, store_id)
            said = Archived(file.first, file.last, sha256, str(to), outline_of(live.log, file.first, file.last))

        def say(states: KeyStates, known: int = known, said: Archived = said) -> Archived | None:
            # A redaction since then erased the value in the original, and not in the copy.
            return None if redacted_since(live.log, states.system, known) else said

        kept: list[KeptFile] = []
        recorded = group.record("archive", say, lambda kept=kept: kept.extend(drop(log, file.first, file.last)))  # type: ignore[misc]
        _abandon(group, log)
        if recorded:
            return kept


def drop(log: FileLog, first: int, last: int) -> list[KeptFile]:
    """Remove a file from the log's folder, now that an event says so; if that fails it is kept, told, and tried again by the next one."""
    try:
        log.drop_sealed(first)
    except EngineError as error:
        return [KeptFile(first, last, str(error))]
    return []


# ---- the copy


def _copy(group: GroupCommit, file: FileExtent, to: Path, store_id: str) -> str:
    """Make the copy, prove it, and put it in its place, durably; gives its SHA-256."""
    domain = group.live.log.domain
    target = archived_file(to, store_id, domain, file.first)
    folders = [to, to / store_id, target.parent]
    for folder in folders:
        make_folder(folder)
    scratch = _scratch(target)
    if scratch.exists():
        shutil.rmtree(scratch)  # of a process that was killed: we hold the lock
    scratch.mkdir(mode=FOLDER_MODE)
    try:
        copy = scratch / target.name
        _backup(file.path, copy, domain, group.live.log.busy_timeout_ms)
        sync_file(copy)
        (seal,) = group.live.log.linked([file.last])  # as the newest file carries it
        redacted = named_by_redactions(group.live.log, group.live.fresh().system)
        prove(copy, domain, store_id, seal.event, redacted, busy_timeout_ms=group.live.log.busy_timeout_ms)
        sha256 = sha256_of(copy)
        _require_free(target)
        copy.rename(target)
    finally:
        shutil.rmtree(scratch)
    for folder in reversed(folders):
        sync_folder(folder)
    with contextlib.suppress(PermissionError):  # a parent that must not be read is not ours to sync
        sync_folder(to.parent)
    return sha256


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


def _require_free(target: Path) -> None:
    """Refuse to overwrite anything: what a killed process left is not there any more."""
    if stat_or_none(target) is not None:
        raise AccessError(
            f"{target} is there already, and no event says so; nothing was overwritten or moved: look what it is, then"
            " move it away, or archive to another folder"
        )


# ---- rolling forward


def finish_archiving(group: GroupCommit, store_id: str) -> list[KeptFile]:
    """Remove from the log's folder what `archive` events say is elsewhere, if the copy there has the recorded hash; gives the rest.

    Whoever was to do that may have died over it, or somebody put the file back.
    """
    log = group.live.log
    if not isinstance(log, FileLog) or not log.leftovers():
        return []
    archived = latest(log.archived(group.live.fresh().system))
    domain, kept = group.live.log.domain, list[KeptFile]()
    for first in sorted(log.leftovers() & archived.keys()):
        said = archived[first]
        why = (_not_there(said, store_id, domain) or _keeps(group, said, store_id)) if first in log.sealed() else None
        if why is None:
            with group.live.log.writing():
                kept += drop(log, first, said.last)
        else:
            kept.append(KeptFile(first, said.last, f"{domain}: the log says that this file was archived, and it is kept: {why}"))
    return kept


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
        _try_to_abandon(group)
        kept = [f"positions {each.first} to {each.last}: {each.why}" for each in finish_archiving(group, store_id)]
    except EventStoreError as error:
        kept = [str(error)]
    for sentence in kept:
        _log.warning("%s", sentence)


def _try_to_abandon(group: GroupCommit) -> None:
    """Remove what a killed process left in an archive, unless somebody moves files at this moment, who has seen to it."""
    log = group.live.log
    if not isinstance(log, FileLog):
        return
    with os_errors(f"reading {log.folder / moves.LOCK_NAME}"):
        begun = moves.begun(log.folder)
    if begun:
        with contextlib.suppress(UnavailableError), moving(group, timeout_ms=0):
            pass
