"""Restore: the store that a backup holds, in a new folder, proven before it appears. The backup is only read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from eventstore import copies, manifest
from eventstore.backup import CopiedDomain, remove_side_files
from eventstore.copies import Backup, CopiedFile
from eventstore.errors import ConfigError, CorruptionError, FormatError
from eventstore.files import FILE_MODE, FOLDER_MODE, os_errors, sync_folder, working_folder
from eventstore.local import LocalEngine
from eventstore.verify import Progress, verify_domain

_PIECE_BYTES = 2**20


class RestoreReport(msgspec.Struct, frozen=True):
    """What was restored, up to where: what came after `made_us` at the latest is not in it."""

    backup: str
    store: str
    store_id: str
    made_us: int
    domains: list[CopiedDomain]
    bytes: int


def restore(
    backup: str | os.PathLike[str], store: str | os.PathLike[str], *, progress: Progress | None = None, processes: int | None = None
) -> RestoreReport:
    """Make the store of the backup in the folder `backup` again in `store`, which must be missing or empty: ids, positions, checksums.

    Every file is held against the hash that was taken when the backup was made, every event against its checksum, before the
    store appears, whole. It is the same store: the one that was backed up must never be written again, as both would give the
    same positions to different events. Raises NotAStoreError where there is no backup, ConfigError for a place that cannot
    be, CorruptionError for a damaged backup, EngineError.
    """
    source, target = Path(os.path.realpath(backup)), Path(os.path.realpath(store))
    with os_errors(f"restoring {backup} into {store}"):
        kept = copies.load(source)
        _require_place(source, target)
        with working_folder(target, "restore") as scratch:
            place = scratch / "store"
            _copy(source / kept.copy, place, kept)
            heads = _require_whole(place, kept, progress, processes)
            place.rename(target)
            sync_folder(target.parent)
    size = sum(file.bytes for file in kept.files.values())
    return RestoreReport(str(backup), str(store), kept.store_id, kept.made_us, heads, size)


def _require_place(source: Path, target: Path) -> None:
    if source.is_relative_to(target):
        raise ConfigError(f"{target} holds the backup {source}; name a new folder elsewhere")
    copies.require_new(target)


def _copy(copy: Path, place: Path, kept: Backup) -> None:
    """Copy the files that backup.json names, durably, each held against its hash. Whatever else lies beside them is left."""
    folders = [place, place / "logs", *sorted({(place / name).parent for name in kept.files if name != manifest.NAME})]
    for folder in folders:
        folder.mkdir(mode=FOLDER_MODE)
    for name, file in kept.files.items():
        try:
            found = _copy_file(copy / name, place / name)
        except FileNotFoundError as error:
            raise _damaged(copy, name, "it is gone") from error
        if (found.bytes, found.sha256) != (file.bytes, file.sha256):
            raise _damaged(copy, name, f"{found.bytes} bytes with SHA-256 {found.sha256}, expected {file.bytes} with {file.sha256}")
    for folder in reversed(folders):
        sync_folder(folder)


def _copy_file(source: Path, target: Path) -> CopiedFile:
    digest, size = hashlib.sha256(), 0
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(reading, "rb") as original, os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
        while piece := original.read(_PIECE_BYTES):
            digest.update(piece)
            size += file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return CopiedFile(size, digest.hexdigest())


def _damaged(copy: Path, name: str, found: str) -> CorruptionError:
    return FormatError(
        "backup",
        None,
        f"{copy / name} is not what was backed up: {found}. Nothing was restored; take another backup, or carve out what is intact:"
        f" `eventstore salvage {copy} OUT`",
    )


def _require_whole(place: Path, kept: Backup, progress: Progress | None, processes: int | None) -> list[CopiedDomain]:
    """Prove what was copied. Raises CorruptionError with what is wrong with it."""
    engine = LocalEngine(place, read_only=True)
    restored: list[CopiedDomain] = []
    for domain in engine.domains():
        found = verify_domain(engine, domain, progress=progress, processes=processes)
        for finding in found.findings:
            message = f"{finding.kind}: {finding.message}; the backup is damaged, nothing was restored"
            raise CorruptionError(domain, finding.position, message)
        assert found.head is not None  # nothing was found, so there is one
        remove_side_files(place / "logs" / domain)
        restored.append(CopiedDomain(domain, found.head.position, found.head.checksum.hex(), found.floor))
    heads = {each.domain: (each.position, each.checksum) for each in restored}
    if engine.store_id != kept.store_id or heads != {domain: (head.position, head.checksum) for domain, head in kept.heads.items()}:
        message = f"{copies.NAME} names another store, or other last events, than the files beside it hold; nothing was restored"
        raise FormatError("backup", None, message)
    return restored
