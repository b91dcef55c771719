"""What `doctor --fix` puts right: only what cannot cost an event, a proof, or a piece of evidence.

Modes lose what they allow to others; leftovers of dead processes and wrong pointer files go; a long WAL is checkpointed
the way the library does it. The content of logs, witnesses, store.json and quarantine is never touched.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from eventstore.database import log_files
from eventstore.errors import EventStoreError
from eventstore.files import os_errors, process_lives, stat_or_none
from eventstore.links import Finding
from eventstore.local import LocalEngine
from eventstore.opening import open_store
from eventstore.pointers import PointerFolder
from eventstore.sqlite import SqliteLog
from eventstore.tools.machine import holders, processes_are_visible
from eventstore.tools.terminal import size_text
from eventstore.verify import verify_domain
from eventstore.witness import HeadFile

WAL_LIMIT = 64 * 2**20
"""A WAL beyond this many bytes is checkpointed."""
OLD_S = 300
"""Seconds after which a leftover is nobody's work in progress."""
_PATIENCE_MS = 1_000

_BY_PROCESS = re.compile(r"\.tmp-(\d+)-[0-9a-f]{8}-.+")
_HALF_MADE_LOG = re.compile(r"\.tmp-\d{20}\.db\.new.*")
_HALF_ADOPTED = re.compile(r"\.tmp-adopt-.+")


class Fix(msgspec.Struct, frozen=True):
    """One thing that was not as it should be; `path` is relative to the store, `message` says why it was left as it is."""

    name: str
    path: str
    before: str
    after: str
    fixed: bool
    message: str | None = None


class _LeftError(Exception):
    """Why something was left as it is."""


def fix(folder: Path) -> list[Fix]:
    """Put right what can safely be. Raises NotAStoreError and the like if `folder` is no store."""
    engine = LocalEngine(folder, create=False, busy_timeout_ms=_PATIENCE_MS)
    fixes = [*_modes(folder), *_leftovers(folder)]
    for domain in engine.domains():
        fixes += _domain(engine, domain)
    return fixes


def _done(name: str, path: str, before: str, after: str) -> Fix:
    return Fix(name, path, before, after, True)


def _left(name: str, path: str, before: str, why: object) -> Fix:
    return Fix(name, path, before, before, False, str(why))


# ---- modes


def _modes(folder: Path) -> Iterator[Fix]:
    """Nobody but the owner; what the owner may do stays, as a store may have been closed to its own writers on purpose.

    Temporary files too: a living writer's takes its mode along when it is renamed, a dead one's holds what its target
    would. Nobody is hindered by it, and a name that is gone by then left nothing to put right.
    """
    for place, folders, files in os.walk(folder):
        for path in [Path(place), *(Path(place, name) for name in sorted(files))]:
            status = stat_or_none(path)
            if status is None or not stat.S_IMODE(status.st_mode) & 0o077 or stat.S_ISLNK(status.st_mode):
                continue
            relative, before = str(path.relative_to(folder)), f"{stat.S_IMODE(status.st_mode):04o}"
            after = stat.S_IMODE(status.st_mode) & (0o700 if stat.S_ISDIR(status.st_mode) else 0o600)
            try:
                _require_ours(path, status, folder)
                with os_errors(f"changing the mode of {path}"), contextlib.suppress(FileNotFoundError):
                    path.chmod(after)
                    yield _done("permissions", relative, before, f"{after:04o}")
            except (_LeftError, EventStoreError) as error:
                yield _left("permissions", relative, before, error)
        folders.sort()


def _require_ours(path: Path, status: os.stat_result, folder: Path) -> None:
    if status.st_uid != os.geteuid():
        raise _LeftError(f"user {status.st_uid} owns it; run as that user")
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        raise _LeftError(f"it has {status.st_nlink} hard links: the other names would be closed too")
    if _in_quarantine(path, folder):
        raise _LeftError("evidence stays as it was found; `chmod -R go= STORE/quarantine` shuts others out")


def _in_quarantine(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder / "quarantine")


# ---- leftovers


def _leftovers(folder: Path) -> Iterator[Fix]:
    """Files and folders named .tmp- that a killed process left half made. Nobody ever reads one."""
    found = [path for pattern in (".tmp-*", "logs/*/.tmp-*", "logs/*/pointers/.tmp-*") for path in sorted(folder.glob(pattern))]
    for path in found:
        status = stat_or_none(path)
        if status is None or (age_s := time.time() - _newest(path, status)) < OLD_S:
            continue  # it may be somebody's work
        size = f"{size_text(status.st_size)}, " if stat.S_ISREG(status.st_mode) else ""
        before = f"{size}{age_s / 60:,.0f} minutes old"
        relative = str(path.relative_to(folder))
        try:
            _require_abandoned(path, status, folder)
            with os_errors(f"removing {path}"):
                shutil.rmtree(path) if stat.S_ISDIR(status.st_mode) else path.unlink()
        except (_LeftError, EventStoreError) as error:
            yield _left("leftover", relative, before, error)
        else:
            yield _done("leftover", relative, before, "removed")


def _newest(path: Path, status: os.stat_result) -> float:
    """When anything in it was last written."""
    below = [found.st_mtime for each in path.rglob("*") if (found := stat_or_none(each))] if stat.S_ISDIR(status.st_mode) else []
    return max([status.st_mtime, *below])


def _require_abandoned(path: Path, status: os.stat_result, folder: Path) -> None:
    if status.st_uid != os.geteuid():
        raise _LeftError(f"user {status.st_uid} owns it; run as that user")
    if stat.S_ISDIR(status.st_mode):
        if path.parent != folder or not _HALF_ADOPTED.fullmatch(path.name):
            raise _LeftError("no name that this library gives")
        if not processes_are_visible():
            raise _LeftError("whether an import still works in it cannot be seen here")
        if users := holders(path):
            raise _LeftError(f"process {users[0].pid} works in it")
        return
    if not stat.S_ISREG(status.st_mode):
        raise _LeftError("neither a file nor a folder")
    if match := _BY_PROCESS.fullmatch(path.name):
        if process_lives(int(match[1])):
            raise _LeftError(f"process {match[1]} runs, and may be the one that writes it")
    elif _HALF_MADE_LOG.fullmatch(path.name):
        _require_unlocked(path.parent / "head")
    else:
        raise _LeftError("no name that this library gives")


def _require_unlocked(head: Path) -> None:
    """Whoever makes a log holds the lock of its domain."""
    file = HeadFile(head, writable=False)
    try:
        file.lock(str(head), 0)
    finally:
        file.close()


# ---- pointer files and WALs


def _domain(engine: LocalEngine, domain: str) -> Iterator[Fix]:
    """What of a domain can be put right, if its log is whole: a damaged one is left as it is, to the last byte."""
    try:
        torn = _torn(engine, domain)
        long = [(str(wal.relative_to(engine.folder)), size) for wal, size in _wals(engine, domain) if size > WAL_LIMIT]
        report = verify_domain(engine, domain)
    except (OSError, EventStoreError) as error:
        yield _left("pointers", domain, "not looked at", error)
        return
    untrue = [f"pointers as of {finding.position} are not what the log says" for finding in report.findings if finding.kind == "pointers"]
    wrong = [f"{name} is damaged, or not of this log" for name in torn] + untrue
    damage = [finding for finding in report.findings if finding.kind not in ("pointers", "ids")]
    if wrong:
        place, before = f"logs/{domain}/pointers", "; ".join(wrong)
        try:
            _require_sound(damage)
            after = _rebuild_pointers(engine, domain)
        except (_LeftError, EventStoreError) as error:
            yield _left("pointers", place, before, error)
        else:
            yield _done("pointers", place, before, after)
    for place, size in long:
        try:
            _require_sound(damage)
            after_size = _checkpoint(engine, domain, engine.folder / place)
        except (_LeftError, EventStoreError) as error:
            yield _left("wal", place, size_text(size), error)
        else:
            yield _done("wal", place, size_text(size), size_text(after_size))


def _require_sound(damage: Sequence[Finding]) -> None:
    if damage:
        raise _LeftError("the log is damaged; `eventstore verify` says how; nothing is changed before that is settled")


def _torn(engine: LocalEngine, domain: str) -> list[str]:
    with engine.inspect(domain) as log:
        return [path.name for path in PointerFolder(engine.pointers(domain), log, writable=False).torn()]


def _wals(engine: LocalEngine, domain: str) -> Iterator[tuple[Path, int]]:
    for path in log_files(engine.folder / "logs" / domain):
        wal = path.with_name(f"{path.name}-wal")
        status = stat_or_none(wal)
        if status is not None:
            yield wal, status.st_size


def _rebuild_pointers(engine: LocalEngine, domain: str) -> str:
    """Remove them under the lock, and let an opening and a closing write new ones, if there are enough events to make it pay."""
    log: SqliteLog = engine.open_log(domain)
    try:
        with log.writing():
            PointerFolder(engine.pointers(domain), log, writable=True).clear()
    finally:
        log.close()
    _open_and_close(engine, domain)
    if wrong := _torn(engine, domain):
        raise _LeftError(f"{wrong[0]} could not be removed")
    count = len(list(engine.pointers(domain).glob("[0-9]*")))
    return f"rebuilt: {count} files" if count else "removed; so few events are read from the log"


def _checkpoint(engine: LocalEngine, domain: str, wal: Path) -> int:
    """Opening judges the log, closing checkpoints it under the lock; the bytes that are left."""
    before = wal.stat().st_size
    _open_and_close(engine, domain)
    status = stat_or_none(wal)
    after = status.st_size if status is not None else 0
    if after >= before:
        raise _LeftError("another program reads it, and never ends; `eventstore doctor` names who has the store open")
    return after


def _open_and_close(engine: LocalEngine, domain: str) -> None:
    with open_store(engine.folder, create=False, busy_timeout_ms=_PATIENCE_MS) as store:
        store.domain(domain)
