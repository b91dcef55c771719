"""A backup's folder: backup.json, which names the copy that counts and the hash of every file in it (FORMAT.md section 12).

    TO/backup.json         replaced as a whole, last: the copy that it names is the backup, everything else is rubbish
    TO/backup.lock         flocked by whoever makes a copy
    TO/copy-<number>/      a store: store.json, logs/<domain>/<first>.db, logs/<domain>/<after>-<until>.ids, logs/<domain>/head

A copy never changes once it is named. It is a store with the id of another one, so it is read, and never written: two of one
id that both go on would give the same positions to different events.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import msgspec

from eventstore.codec import FORMAT, other_format
from eventstore.errors import BackupError, ConfigError, FormatError, NotAStoreError
from eventstore.files import os_errors, read_file
from eventstore.manifest import NAME as STORE_NAME
from eventstore.manifest import ManifestHead
from eventstore.model import is_domain_name

NAME = "backup.json"
LOCK_NAME = "backup.lock"

_COPY = re.compile(r"copy-[0-9]{6}")
_IN_A_LOG = re.compile(r"logs/([^/]+)/(?:head|[0-9]{20}\.db|[0-9]{20}-[0-9]{20}\.ids)")

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Original(msgspec.Struct, frozen=True):
    """What the system said of a file of the store when it was copied. Every write to it, whoever made it, makes that another one."""

    inode: int
    bytes: int
    modified_ns: int
    changed_ns: int


class CopiedFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file of a copy; `original` is missing where it cannot tell a later change."""

    bytes: _Count
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    original: Original | None = None


class Backup(msgspec.Struct, frozen=True):
    """The content of backup.json."""

    format: int
    store_id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    made_us: _Count
    copy: Annotated[str, msgspec.Meta(pattern="^copy-[0-9]{6}$")]
    heads: dict[str, ManifestHead]
    files: dict[str, CopiedFile]
    """By path inside the copy, with slashes."""


class _Versioned(msgspec.Struct):
    format: int


def load(folder: Path) -> Backup:
    """Read backup.json. Raises NotAStoreError, StoreFormatError, FormatError; touches nothing."""
    path = folder / NAME
    with os_errors(f"reading {path}"):
        try:
            content = read_file(path)
        except (FileNotFoundError, NotADirectoryError):
            raise NotAStoreError(str(folder), f"no backup here: {NAME} is missing; `eventstore backup` makes one") from None
    try:
        found = msgspec.json.decode(content, type=_Versioned).format
        if found != FORMAT:
            raise other_format(str(path), found)
        backup = msgspec.json.decode(content, type=Backup)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        by_hand = "`eventstore salvage COPY OUT` takes the events out of a copy beside it"
        raise FormatError("backup", None, f"{path} is damaged: {error}; {by_hand}") from error
    for name in backup.files:
        if not _is_ours(name):
            raise FormatError("backup", None, f"{path} is damaged: it names {name!r}, which is no file of a store")
    if STORE_NAME not in backup.files:
        raise FormatError("backup", None, f"{path} is damaged: it names no {STORE_NAME}")
    return backup


def _is_ours(name: str) -> bool:
    """Whether a path leads to where a store has its files, and not, by `..` or a slash, anywhere else."""
    found = _IN_A_LOG.fullmatch(name)
    return name == STORE_NAME or (found is not None and is_domain_name(found[1]))


def is_copy(name: str) -> bool:
    """Whether a folder of this name in a backup's folder is a copy."""
    return _COPY.fullmatch(name) is not None


def name_after(backup: Backup | None) -> str:
    """The name of the next copy."""
    return f"copy-{(int(backup.copy[5:]) if backup else 0) % 999_999 + 1:06d}"


def holder_of(path: Path) -> tuple[str, Path] | None:
    """Whether `path`, there or not, is or lies in a "store" or a "backup", and its folder."""
    target = Path(os.path.realpath(path))
    for folder in (target, *target.parents):
        for name, what in ((STORE_NAME, "store"), (NAME, "backup")):
            if os.path.lexists(folder / name):
                return what, folder
    return None


def require_outside(path: Path) -> None:
    """Refuse to put anything into a store's folder or a backup's, this one's or another's. Raises ConfigError."""
    holder = holder_of(path)
    if holder is not None:
        what, folder = holder
        raise ConfigError(
            f"{path} is inside the {what} {folder}, where nothing but its own files may be: what is put there goes where it goes;"
            " name a place elsewhere"
        )


def require_new(target: Path) -> None:
    """Refuse a folder in which no store can be made: it must be missing or empty, and outside of any other's. Raises ConfigError."""
    require_outside(target.parent)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is there already and not an empty folder: a store is made in a new one, never over another; name one")
    if target.is_mount():
        raise ConfigError(f"{target} is where a file system is mounted; name a folder in it")
    if not target.parent.is_dir():
        raise ConfigError(f"{target.parent} is no folder; make it first")


def opened(folder: Path, *, read_only: bool) -> Path:
    """Where the store lies that is opened as `folder`: in a backup it is the copy that counts, else `folder` itself.

    Raises BackupError for whoever would write a backup, and what load() raises.
    """
    backup = folder.parent if is_copy(folder.name) else folder
    if not os.path.lexists(backup / NAME):
        return folder
    if not read_only:
        raise BackupError(
            str(backup),
            "a backup, which is never written; `eventstore restore` makes a store of it in a new folder,"
            " and read_only (--read-only) looks at it as it is",
        )
    return folder / load(folder).copy if backup == folder else folder
