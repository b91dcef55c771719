"""Copies of sealed files that are made elsewhere, each named in the log's folder before its first byte is written (FORMAT.md section 8).

So none is forgotten whose maker was killed before an event could say where it is: it may hold what is redacted later. It stays
where it is, as it may be all that another store has of which this one is a copy: nobody can tell.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from eventstore.files import append_lines, lines_of

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
    found: dict[tuple[int, str], Move] = {}
    for line in lines_of(folder / LOCK_NAME):
        try:
            move = _decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue  # the power took half of it: then its copy was never begun
        found[move.first, move.to] = move
    return [move for move in found.values() if not move.ended]


def begin(folder: Path, first: int, to: Path) -> None:
    """Name a move, durably. Under the lock. Raises OSError."""
    append_lines(folder / LOCK_NAME, [msgspec.json.encode(Move(first, str(to)))])


def end(folder: Path, move: Move) -> None:
    """Nothing is left of a move that no event names; of no other either, if it was the last one. Under the lock. Raises OSError."""
    append_lines(folder / LOCK_NAME, [msgspec.json.encode(msgspec.structs.replace(move, ended=True))])
    if not begun(folder):
        append_lines(folder / LOCK_NAME, [], anew=True)
