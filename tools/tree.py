"""A tree of JSON files, as plain file storage leaves it: domain = first folder (a leading `data/` skipped), key = the rest of the path."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from eventstore.codec import encode_key
from eventstore.errors import EventStoreError
from eventstore.files import open_regular
from eventstore.model import Domain
from eventstore.tools.imported import Problem

SUFFIX = ".json"
TEMPORARY = ".tmp-"
_SKIPPED = "data"


Parts = tuple[str, ...]
"""A path below the root: its folders, then the file."""


class Stamp(msgspec.Struct, frozen=True):
    """What tells one version of a file from another without reading it."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


class JsonFile(msgspec.Struct, frozen=True):
    """A file that names a domain and a key; what it holds was not looked at yet."""

    path: str
    domain: str
    key: tuple[str, ...]
    stamp: Stamp

    @property
    def modified_us(self) -> int:
        """When it was last changed, as the system says."""
        return self.stamp.modified_ns // 1_000


Ignored = Literal["temporary", "foreign"]
"""A file nobody asked for: the half of an atomic write that was never finished, or one that is not called *.json."""


def walk(root: Path, *, domain: str | None = None, besides: Path | None = None) -> Iterator[JsonFile | Problem | Ignored]:
    """Everything under `root` in the order of its path. Links are followed, unless they lead out of it, or back up to where we came from.

    With `domain` all of it belongs to that one, and every part of the path to the key. `besides` names a folder to
    leave out: the store that is written to may lie in the tree it is made from.
    """
    for entry in files(root, besides=besides):
        if isinstance(entry, Problem):
            yield entry
            continue
        relative, stamp = entry
        yield ignored(relative[-1]) or named(root, relative, stamp, domain)


def ignored(name: str) -> Ignored | None:
    """Why nobody asks for a file of this name; None if it is a document."""
    if name.startswith(TEMPORARY):
        return "temporary"
    return None if name.endswith(SUFFIX) else "foreign"


def stamp_of(status: os.stat_result) -> Stamp:
    """The stamp of a file that was looked at."""
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


LINK_OUT = "a link that leads out of the tree; not followed: what is there may be anybody's"
"""Why a file or a folder was left out."""


def leads_out(root: Path, path: str) -> bool:
    """Whether `path` below `root`, or a folder above it, is a link to what is not below `root`."""
    return not Path(os.path.realpath(root / path)).is_relative_to(os.path.realpath(root))


def files(root: Path, *, besides: Path | None = None) -> Iterator[tuple[Parts, Stamp] | Problem]:
    """The files below `root`; a folder's entries in order of their names. See walk()."""
    left_out = _identity(besides) if besides is not None else None
    pending: list[tuple[Parts, frozenset[tuple[int, int]]]] = [((), frozenset())]
    while pending:
        parts, above = pending.pop()
        folder = root.joinpath(*parts)
        try:
            status = os.stat(folder, follow_symlinks=not parts)
            if stat.S_ISLNK(status.st_mode):
                if leads_out(root, os.path.join(*parts)):
                    yield Problem(os.path.join(*parts), LINK_OUT)
                    continue
                status = folder.stat()
            here = (status.st_dev, status.st_ino)
            if here == left_out:
                continue
            if not stat.S_ISDIR(status.st_mode):
                yield parts, stamp_of(status)
                continue
            if here in above:
                yield Problem(os.path.join(*parts), "a link back to a folder above it; not followed")
                continue
            names = sorted(os.listdir(folder), reverse=True)
        except OSError as error:
            yield Problem(os.path.join(*parts) if parts else str(root), error.strerror or str(error))
            continue
        pending.extend(((*parts, name), above | {here}) for name in names)


def named(root: Path, relative: Parts, stamp: Stamp, domain: str | None = None) -> JsonFile | Problem:
    """The domain and key that a path names, or what is wrong with it."""
    path = os.path.join(*relative)
    parts = (*relative[:-1], relative[-1].removesuffix(SUFFIX))
    if domain is None:
        if parts[0] == _SKIPPED and len(parts) > 1:
            if len(parts) > 2 and root.joinpath(*relative[1:]).exists():
                return Problem(path, f"{os.path.join(*relative[1:])} names the same key; that one was taken")
            parts = parts[1:]
        if len(parts) == 1:
            return Problem(path, "no folder names its domain; import the folder it is in with --domain")
        domain, parts = parts[0], parts[1:]
    try:
        Domain(domain)
        encode_key(parts)
    except EventStoreError as error:
        return Problem(path, str(error))
    return JsonFile(path, domain, parts, stamp)


class Keyed(Protocol):
    """A file that names a domain and a key, or a version of one."""

    @property
    def domain(self) -> str:
        """The domain."""
        ...

    @property
    def key(self) -> Parts:
        """The key."""
        ...


def keys_by_domain(files: Iterable[Keyed]) -> dict[str, set[Parts]]:
    """The keys that files name."""
    keys: dict[str, set[Parts]] = {}
    for file in files:
        keys.setdefault(file.domain, set()).add(file.key)
    return keys


def read(path: Path, *, at_most: int) -> bytes:
    """The bytes of a regular file, if there are at most `at_most`. Raises OSError; never waits for a pipe."""
    return read_stamped(path, at_most=at_most)[0]


def read_stamped(path: Path, *, at_most: int) -> tuple[bytes, Stamp]:
    """The same, and the stamp of the very file that was read, as it was when the reading began."""
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
        if status.st_size > at_most:
            raise OSError(f"{status.st_size:,} bytes, at most {at_most:,} are allowed")
        return file.read(at_most + 1), stamp_of(status)
