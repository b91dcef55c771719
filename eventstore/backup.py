"""Backup: a live store, copied while others write it, proven before it counts, whole or not at all (eventstore/copies.py).

Each log is copied as of one moment: under its lock, held for as long as opening its files takes, a read transaction begins on
each of them, and what they show from then on stays the same however long copying takes. Nobody waits for the copying. A file
that did not change since the last backup is not copied again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from eventstore import copies, manifest
from eventstore.clock import now_us
from eventstore.codec import FORMAT
from eventstore.copies import Backup, CopiedFile, Original
from eventstore.database import id_files, log_files
from eventstore.errors import CompactedError, ConfigError, CorruptionError, FormatError
from eventstore.files import FILE_MODE, FOLDER_MODE, locked, make_folder, os_errors, replace_file, stat_or_none, sync_folder
from eventstore.local import LocalEngine
from eventstore.log import Engine
from eventstore.logfile import LogFile
from eventstore.manifest import Manifest, ManifestHead
from eventstore.model import Head
from eventstore.verify import Progress, verify_domain
from eventstore.witness import HeadFile

_OURS = b"made by `eventstore backup`: nothing but backups belongs into this folder\n"
_SETTLED_NS = 2_000_000_000
"""Times of a file are too coarse to tell two changes in one moment: younger ones prove nothing."""
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class CopiedDomain(msgspec.Struct, frozen=True):
    """Up to where a domain was backed up; `checksum` in hexadecimal."""

    domain: str
    position: int
    checksum: str
    floor: int
    """Events up to this position are in no file of the store, and so not in the backup: archived or deleted."""


class BackupReport(msgspec.Struct):
    """What was backed up. Files are those with events in them, and those that keep the event ids of what is elsewhere."""

    store: str
    to: str
    store_id: str
    made_us: int
    domains: list[CopiedDomain]
    copied: int = 0
    copied_bytes: int = 0
    kept: int = 0
    """Files that did not change since the backup before, and were not copied again."""
    kept_bytes: int = 0
    mended: list[str] = []
    """Files of the backup before that had rotted, and were copied again."""


def back_up(
    engine: Engine,
    location: str,
    to: str | os.PathLike[str],
    *,
    busy_timeout_ms: int = 10_000,
    progress: Progress | None = None,
    processes: int | None = None,
) -> BackupReport:
    """Back up the store of `engine`, which is called `location`, into the folder `to`; see Store.backup()."""
    if not isinstance(engine, LocalEngine):
        raise ConfigError(f"{location} has no files that could be backed up; write its events to a file: `eventstore export`")
    target = Path(os.path.realpath(to))
    with os_errors(f"backing up {location} into {to}"):
        _require_place(engine.folder, target)
        _require_ours(target, engine.store_id)
        make_folder(target)
        with _locked(target, busy_timeout_ms):
            before = _require_ours(target, engine.store_id)
            _tidy(target, before)
            copying = _Copying(engine, target, before, busy_timeout_ms, progress)
            try:
                report = copying.run(location, str(to), processes)
            except BaseException:
                if not copying.is_named:
                    # What cannot be removed now is no part of any backup, and is removed by the next one.
                    shutil.rmtree(copying.place, ignore_errors=True)
                raise
            with os_errors(f"the backup in {to} is made, and whole; removing the one before it"):
                _remove(_rubbish(target, copies.load(target)))
    return report


# ---- the place


def _require_place(store: Path, target: Path) -> None:
    copies.require_outside(target.parent)  # it may itself be a backup: that of before
    if store.is_relative_to(target):
        raise ConfigError(f"{target} holds the store {store}; name a folder elsewhere, best on another disk")
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is no folder; name a new or empty one, or that of an earlier backup")
    if not target.parent.is_dir():
        raise ConfigError(f"{target.parent} is no folder; make it first")


def _require_ours(target: Path, store_id: str) -> Backup | None:
    """The backup that `target` holds, None for a new one. Raises ConfigError for a folder that is something else, untouched."""
    names = sorted(os.listdir(target)) if target.exists() else []
    if copies.NAME in names:
        found = copies.load(target)
        if found.store_id != store_id:
            raise ConfigError(f"{target} is a backup of store {found.store_id}, not of this one, {store_id}; name another folder")
        return found
    if names and not _is_left_by_us(target, names):
        what = "is a store" if manifest.NAME in names else f"is not empty and no backup ({', '.join(names[:3])})"
        raise ConfigError(f"{target} {what}; name a new or empty folder, or that of an earlier backup")
    return None


def _is_left_by_us(target: Path, names: list[str]) -> bool:
    """Whether a first backup that was killed left this folder."""
    lock_file = target / copies.LOCK_NAME
    if copies.LOCK_NAME not in names or lock_file.is_symlink() or not lock_file.is_file():
        return False
    if names == [copies.LOCK_NAME] and _says_nothing(lock_file.read_bytes()):
        return True
    known = all(copies.is_copy(name) or name == copies.LOCK_NAME or _is_half_made(name) for name in names)
    return known and lock_file.read_bytes() == _OURS


def _says_nothing(lock: bytes) -> bool:
    """Whether the power went before what the lock says was on the disk: nothing of it is there, or its length alone."""
    return not any(lock)


def _is_half_made(name: str) -> bool:
    return name.startswith(".tmp-") and name.endswith(f"-{copies.NAME}")


@contextlib.contextmanager
def _locked(target: Path, busy_timeout_ms: int) -> Iterator[None]:
    """One backup at a time."""
    with locked(target / copies.LOCK_NAME, timeout_ms=busy_timeout_ms) as file:
        if _says_nothing(os.pread(file.descriptor, len(_OURS), 0)):
            # Durable before there is anything else here: it says whose the rest is.
            os.pwrite(file.descriptor, _OURS, 0)
            os.fsync(file.descriptor)
            sync_folder(target)
        yield


def _tidy(target: Path, backup: Backup | None) -> None:
    """Remove what a killed backup left."""
    rubbish = _rubbish(target, backup)
    if rubbish and backup is not None:
        # It may have been killed, or refused, before the name of the copy that counts was durable.
        replace_file(target / copies.NAME, msgspec.json.encode(backup))
    _remove(rubbish)


def _rubbish(target: Path, backup: Backup | None) -> list[Path]:
    """Every copy but the one that counts, and what was never finished."""
    counts = backup.copy if backup is not None else ""
    return [path for path in target.iterdir() if (copies.is_copy(path.name) and path.name != counts) or _is_half_made(path.name)]


def _remove(paths: list[Path]) -> None:
    for path in paths:
        shutil.rmtree(path) if copies.is_copy(path.name) else path.unlink()


# ---- the copy


class _Copying:
    """One copy on its way."""

    def __init__(self, engine: LocalEngine, target: Path, before: Backup | None, busy_timeout_ms: int, progress: Progress | None) -> None:
        self._engine, self._target, self._before = engine, target, before
        self._busy_timeout_ms, self._progress = busy_timeout_ms, progress
        self._name = copies.name_after(before)
        self.place = target / self._name
        self._files: dict[str, CopiedFile] = {}
        self.is_named = False
        """Whether backup.json may name this copy already: then the one before may be needed, or this one."""

    def run(self, location: str, to: str, processes: int | None) -> BackupReport:
        """Copy all domains, prove them, and let the copy count."""
        report = BackupReport(location, to, self._engine.store_id, now_us(), [])
        known = manifest.load(self._engine.folder)
        for folder in (self.place, self.place / "logs"):
            folder.mkdir(mode=FOLDER_MODE)
        domains = self._engine.domains()
        for domain in domains:
            self._copy_domain(domain, report)
        for domain in set(self._before.heads) - set(domains) if self._before is not None else ():
            raise self._other_history(domain, "the store has no such domain")
        # First with what the store knows of itself, so that an end that was lost before the backup began is missed.
        self._write_manifest(known, known.heads)
        report.domains = [self._proven(domain, processes) for domain in domains]
        for each in report.domains:
            self._witness(each.domain, Head(each.position, bytes.fromhex(each.checksum)))
        found = {each.domain: ManifestHead(each.position, each.checksum) for each in report.domains}
        self._write_manifest(known, found)
        for folder in (*(self.place / "logs").iterdir(), self.place / "logs", self.place, self._target):
            sync_folder(folder)
        backup = Backup(FORMAT, self._engine.store_id, report.made_us, self._name, found, dict(sorted(self._files.items())))
        self.is_named = True
        replace_file(self._target / copies.NAME, msgspec.json.encode(backup))
        return report

    def _copy_domain(self, domain: str, report: BackupReport) -> None:
        folder, copy = self._engine.folder / "logs" / domain, self.place / "logs" / domain
        copy.mkdir(mode=FOLDER_MODE)
        linked = {path.name for path in (*log_files(folder), *id_files(folder)) if self._link(domain, path, report)}
        with contextlib.ExitStack() as closing:
            held: dict[str, tuple[Callable[[Path], None], Original | None]] = {}
            with self._log_locked(domain, folder / "head") as witness:
                logs = log_files(folder)
                files = [*logs, *id_files(folder)]
                for path in files:
                    original = _original(path)
                    if path.name not in linked or original != self._files[f"logs/{domain}/{path.name}"].original:
                        held[path.name] = (self._hold(domain, path, closing) if path in logs else _held(path, closing)), original
            if not logs:
                raise FormatError(domain, None, f"the log's files are gone from {folder}: nothing was backed up; put a copy of them back")
            for name in linked - ({path.name for path in files} - held.keys()):
                (copy / name).unlink()  # written, or moved away, since
                del self._files[f"logs/{domain}/{name}"]
            report.kept += len(self._of(domain))
            report.kept_bytes += sum(file.bytes for file in self._of(domain))
            for name, (copy_to, original) in held.items():
                copy_to(copy / name)
                size, sha256 = digest_of(copy / name)
                self._files[f"logs/{domain}/{name}"] = CopiedFile(size, sha256, original)
                report.copied += 1
                report.copied_bytes += size
        if witness:
            _write(copy / "head", witness)

    def _hold(self, domain: str, path: Path, closing: contextlib.ExitStack) -> Callable[[Path], None]:
        """Begin a read transaction on a file of a log; gives what copies it as it is now."""
        file = LogFile(path, domain, read_only=True, busy_timeout_ms=self._busy_timeout_ms)
        closing.callback(file.close_reader)
        file.hold()
        return lambda copy: file.copy_to(copy, self._pages(domain))

    def _of(self, domain: str) -> list[CopiedFile]:
        return [file for name, file in self._files.items() if name.startswith(f"logs/{domain}/")]

    @contextlib.contextmanager
    def _log_locked(self, domain: str, head: Path) -> Iterator[bytes]:
        """Keep writers out; gives the witness, which says no more than the log then holds."""
        head_file = HeadFile(head, writable=False)
        try:
            head_file.lock(f"backing up domain {domain}", self._busy_timeout_ms)
            yield head_file.read()
        finally:
            head_file.close()

    def _link(self, domain: str, path: Path, report: BackupReport) -> bool:
        """Take over from the backup before what did not change since; whether that was possible."""
        name = f"logs/{domain}/{path.name}"
        known = self._before.files.get(name) if self._before is not None else None
        if self._before is None or known is None or known.original is None or known.original != _original(path):
            return False
        there = self._target / self._before.copy / name
        if stat_or_none(there) is None or digest_of(there) != (known.bytes, known.sha256):
            report.mended.append(name)
            return False
        try:
            os.link(there, self.place / name, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NO_LINKS:  # this file system has no links: everything is copied each time
                return False
            raise
        self._files[name] = known
        return True

    def _pages(self, domain: str) -> Callable[[int, int], None] | None:
        if self._progress is None:
            return None
        progress = self._progress
        return lambda done, pages: progress(f"{domain}: copying", done, pages)

    # ---- proof

    def _proven(self, domain: str, processes: int | None) -> CopiedDomain:
        """What a copied log holds. Raises CorruptionError with what is wrong with it."""
        engine = LocalEngine(self.place, read_only=True)
        found = verify_domain(engine, domain, progress=self._progress, processes=processes)
        for finding in found.findings:
            raise CorruptionError(
                domain,
                finding.position,
                f"{finding.kind}: {finding.message}. This is damage in the store, or on the way out of it: no backup was made, and the one"
                " before, if there is one, stays as it is. Run `eventstore verify STORE`; then restore, accept or salvage",
            )
        assert found.head is not None  # nothing was found, so there is one
        self._require_extended(engine, domain)
        remove_side_files(self.place / "logs" / domain)
        return CopiedDomain(domain, found.head.position, found.head.checksum.hex(), found.floor)

    def _require_extended(self, engine: LocalEngine, domain: str) -> None:
        """The backup that is about to go may be all that is left of events that the store has lost."""
        known = self._before.heads.get(domain) if self._before is not None else None
        if known is None:
            return
        with engine.inspect(domain) as log:
            try:
                events = log.get([known.position])
            except CompactedError:
                return  # the log went on beyond it, and says where its file was put
        if not events or events[0].checksum != known.head().checksum:
            raise self._other_history(domain, "the store has " + ("another event there" if events else "no event there"))

    def _other_history(self, domain: str, found: str) -> CorruptionError:
        position = self._before.heads[domain].position if self._before is not None else None
        return CorruptionError(
            domain,
            position,
            f"the backup in {self._target} knows this event as the last one, but {found}: the store is an older one, or has lost events."
            " It does not replace that backup; keep it, find out why, and back up into another folder meanwhile",
        )

    def _witness(self, domain: str, head: Head) -> None:
        path = self.place / "logs" / domain / "head"
        head_file = HeadFile(path, writable=True, create=True)
        head_file.witness(head, sync=True)
        head_file.close()
        self._files[f"logs/{domain}/head"] = CopiedFile(*digest_of(path))

    def _write_manifest(self, known: Manifest, heads: dict[str, ManifestHead]) -> None:
        replace_file(self.place / manifest.NAME, msgspec.json.encode(msgspec.structs.replace(known, heads=heads)))
        self._files[manifest.NAME] = CopiedFile(*digest_of(self.place / manifest.NAME))


def _original(path: Path) -> Original | None:
    """By what a later change of a file is seen; None where it could not be: changed just now, or a part of it is in the WAL."""
    wal = stat_or_none(path.with_name(f"{path.name}-wal"))
    if wal is not None and wal.st_size:
        return None
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or max(status.st_mtime_ns, status.st_ctime_ns) > time.time_ns() - _SETTLED_NS:
        return None
    return Original(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _held(path: Path, closing: contextlib.ExitStack) -> Callable[[Path], None]:
    """As _hold(), of a file that is only ever replaced as a whole: who has it open reads on."""
    source = closing.enter_context(os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb"))

    def copy_to(copy: Path) -> None:
        with os.fdopen(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE), "wb") as file:
            shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())

    return copy_to


def digest_of(path: Path) -> tuple[int, str]:
    """How long a file of a copy is, and its SHA-256. Nobody writes it, so no lock on it can be lost (RELIABILITY.md R4)."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return os.fstat(file.fileno()).st_size, digest


def remove_side_files(log: Path) -> None:
    """What SQLite puts beside a database to read it. The copy of a log has no WAL with anything in it."""
    for path in log_files(log):
        for suffix in ("-wal", "-shm"):
            path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE), "wb") as file:
        file.write(content)
