"""Whose an archive is: the stores that put files of a log there, each named by its place (FORMAT.md section 8).

A copy of a store knows the archives of its original, and may read them; what it deleted there would be the original's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from eventstore.files import append_lines, lines_of, locked, os_errors

NAME = "claims"
"""Beside the archived files of a log: who put them there; and the lock of whoever puts or removes some."""


class Claim(msgspec.Struct, frozen=True):
    """The place of a store: a copy has another path or another inode, but for one that takes its original's place, path and all."""

    store: str
    """The store's folder."""
    inode: int
    """Of that folder."""


_decoder = msgspec.json.Decoder(Claim)


@contextlib.contextmanager
def held(folder: Path, *, timeout_ms: int) -> Iterator[None]:
    """The right to put files into this folder of an archive, and to remove some: no other store has it. Raises EngineError."""
    with contextlib.ExitStack() as stack:
        with os_errors(f"locking {folder / NAME}"):
            stack.enter_context(locked(folder / NAME, timeout_ms=timeout_ms))
        yield


def add(folder: Path, store: Path) -> None:
    """Say, durably, that the store in `store` puts files there. Under the lock. Raises OSError."""
    claim = _claim_of(store)
    if claim not in _claims(folder):
        append_lines(folder / NAME, [msgspec.json.encode(claim)])


def take_over(folder: Path, store: Path) -> None:
    """Let the store in `store` be the only one that put files there. Under the lock. Raises OSError."""
    claim = _claim_of(store)
    if _claims(folder) != [claim]:
        append_lines(folder / NAME, [msgspec.json.encode(claim)], anew=True)


def others(folder: Path, store: Path) -> list[str]:
    """The other stores that put files there, each by its folder. Raises OSError."""
    ours = _claim_of(store)
    return [
        claim.store + (" (another folder, that had the path of this one)" if claim.store == ours.store else "")
        for claim in _claims(folder)
        if claim != ours
    ]


def not_to_erase(folder: Path, store: Path) -> str | None:
    """Why the store in `store` may not erase there, as a sentence; None if no other store put files there, or it does not say. Without
    the lock: an erasure holds locks that come after it. Raises OSError.
    """
    theirs = others(folder, store)
    if theirs:
        return f"{folder} has files that the store {' and '.join(theirs)} put there: this one may be a copy of it, or have one"
    return None


def not_to_delete(folder: Path, store: Path) -> str | None:
    """Why the store in `store` may not delete there, as a sentence; None if it alone put files there. Raises OSError."""
    if (theirs := not_to_erase(folder, store)) is not None:
        return theirs
    if not _claims(folder):
        return f"{folder} does not say which store put its files there"
    return None


def advice(why: str, verb: str) -> str:
    """What to do about it: `verb` is the one that takes over."""
    return f"{why}; if no other store counts on them, take them over by {verb}(..., take_over=True), or --take-over"


def _claim_of(store: Path) -> Claim:
    return Claim(os.fsencode(store).decode(errors="backslashreplace"), store.stat().st_ino)


def _claims(folder: Path) -> list[Claim]:
    found: list[Claim] = []
    for line in lines_of(folder / NAME):
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):  # the power took half of it: nothing was put there yet
            found.append(_decoder.decode(line))
    return found
