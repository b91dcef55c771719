"""Copies of sealed files that are made elsewhere, each named in the log's folder before its first byte is written (FORMAT.md section 8).

So none is forgotten whose maker was killed before an event could say where it is: it may hold what is redacted later. It stays
where it is, as it may be all that another store has of which this one is a copy: nobody can tell.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from eventstore.files import FILE_MODE, sync_folder

LOCK_NAME = "archive.lock"
"""In a log's folder: held while its files are moved, so that one process at a time does; and where it says which."""


class Move(msgspec.Struct, frozen=True, omit_defaults=True):
    """A sealed file that is on its way."""

    first: int
    """The position that the file begins with and is named by."""
    to: str
    """The archive's folder."""
    ended: bool = False
    """Whether nothing is left there that no event names."""


_decoder = msgspec.json.Decoder(Move)


def scratch_of(copy: Path) -> Path:
    """Where a copy is made, beside its place: a folder."""
    return copy.parent / f".tmp-{copy.name}"


def begun(folder: Path) -> list[Move]:
    """The moves that may have left a copy that no event names. Raises OSError."""
    try:
        lines = (folder / LOCK_NAME).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    found: dict[tuple[int, str], Move] = {}
    for line in lines:
        try:
            move = _decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue  # the power took half of it: then its copy was never begun
        found[move.first, move.to] = move
    return [move for move in found.values() if not move.ended]


def begin(folder: Path, first: int, to: Path) -> None:
    """Name a move, durably. Under the lock. Raises OSError."""
    _append(folder, Move(first, str(to)))


def end(folder: Path, move: Move) -> None:
    """Nothing is left of a move that no event names; of no other either, if it was the last one. Under the lock. Raises OSError."""
    _append(folder, msgspec.structs.replace(move, ended=True))
    if not begun(folder):
        _write(folder, os.O_TRUNC, b"")


def _append(folder: Path, move: Move) -> None:
    _write(folder, os.O_APPEND, b"\n" + msgspec.json.encode(move) + b"\n")  # behind whatever the power took half of


def _write(folder: Path, flag: int, content: bytes) -> None:
    descriptor = os.open(folder / LOCK_NAME, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | flag, FILE_MODE)
    try:
        while content:
            content = content[os.write(descriptor, content) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(folder)
