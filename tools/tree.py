"""A tree of JSON files, as plain file storage leaves it: domain = first folder (a leading `data/` skipped), key = the rest of the path."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from eventstore.codec import encode_key
from eventstore.errors import EventStoreError
from eventstore.model import Domain
from eventstore.tools.imported import Problem

SUFFIX = ".json"
TEMPORARY = ".tmp-"
_SKIPPED = "data"


class JsonFile(msgspec.Struct, frozen=True):
    """A file that names a domain and a key; what it holds was not looked at yet."""

    path: str
    domain: str
    key: tuple[str, ...]
    modified_us: int


Ignored = Literal["temporary", "foreign"]
"""A file nobody asked for: the half of an atomic write that was never finished, or one that is not called *.json."""


def walk(root: Path, *, domain: str | None = None, besides: Path | None = None) -> Iterator[JsonFile | Problem | Ignored]:
    """Everything under `root` in the order of its path. Links are followed, unless they lead back up to where we came from.

    With `domain` all of it belongs to that one, and every part of the path to the key. `besides` names a folder to
    leave out: the store that is written to may lie in the tree it is made from.
    """
    left_out = _identity(besides) if besides is not None else None
    for entry in _files(root, left_out):
        if isinstance(entry, Problem):
            yield entry
            continue
        relative, modified_us = entry
        name = relative[-1]
        if name.startswith(TEMPORARY):
            yield "temporary"
        elif not name.endswith(SUFFIX):
            yield "foreign"
        else:
            yield _named(root, relative, modified_us, domain)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _files(root: Path, left_out: tuple[int, int] | None) -> Iterator[tuple[tuple[str, ...], int] | Problem]:
    """The files below `root` as (path parts, modified); a folder's entries in order of their names."""
    pending: list[tuple[tuple[str, ...], frozenset[tuple[int, int]]]] = [((), frozenset())]
    while pending:
        parts, above = pending.pop()
        folder = root.joinpath(*parts)
        try:
            status = folder.stat()
            here = (status.st_dev, status.st_ino)
            if here == left_out:
                continue
            if not stat.S_ISDIR(status.st_mode):
                yield parts, status.st_mtime_ns // 1_000
                continue
            if here in above:
                yield Problem(os.path.join(*parts), "a link back to a folder above it; not followed")
                continue
            names = sorted(os.listdir(folder), reverse=True)
        except OSError as error:
            yield Problem(os.path.join(*parts) if parts else str(root), error.strerror or str(error))
            continue
        pending.extend(((*parts, name), above | {here}) for name in names)


def _named(root: Path, relative: tuple[str, ...], modified_us: int, domain: str | None) -> JsonFile | Problem:
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
    return JsonFile(path, domain, parts, modified_us)


def read(path: Path, *, at_most: int) -> bytes:
    """The bytes of a regular file, if there are at most `at_most`. Raises OSError; never waits for a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file")
        if status.st_size > at_most:
            raise OSError(f"{status.st_size:,} bytes, at most {at_most:,} are allowed")
        return file.read()
