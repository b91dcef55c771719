"""What happens before a log is opened for writing: judge the tail, keep the evidence (RELIABILITY.md R1, R2)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from eventstore.codec import read_birth
from eventstore.errors import ContractError, FormatError
from eventstore.files import FOLDER_MODE, copy_files, make_folder, os_errors, sync_folder
from eventstore.logfiles import LogFiles
from eventstore.model import Event, Head, WriteRule
from eventstore.witness import unpack_witness

_QUARANTINED = re.compile(r"(.+)-[0-9]+-[0-9a-f]{12}")


def require_birth(event: Event | None, *, domain: str, store_id: str, write: WriteRule | None) -> WriteRule:
    """Hold the birth row against the store and the caller; gives the rule by which the log may be written.

    Raises FormatError for another store's or domain's log, ContractError for another rule than `write` (None: any).
    """
    birth = read_birth(event, domain)
    if birth.store_id != store_id or birth.domain != domain:
        raise FormatError(
            domain,
            0,
            f"this is the log of domain {birth.domain!r} of store {birth.store_id}, not of {domain!r} of {store_id}; put its own file back",
        )
    if write is not None and write != birth.write:
        raise ContractError(
            f"{domain}: made with the write rule {birth.write!r}, opened with {write!r}; open it by name alone, or by its own rule"
        )
    return birth.write


class Loss(msgspec.Struct, frozen=True):
    """Damage at the end of a log: the head that should be there (None if its record is unreadable too), and a sentence."""

    known: Head | None
    sentence: str


def judge(files: LogFiles, found: Head, witness: bytes, manifest: Head | None) -> Loss | None:
    """What speaks against the tail of a log that ends in `found`; None if all is well.

    `witness` is the content of the head file, `manifest` the head that store.json names. Call under the lock:
    between a commit and its witness another process's log looks like this too.
    """
    if witness:
        witnessed = unpack_witness(witness)
        if witnessed is None:
            return Loss(None, "the witness (file `head`) is damaged: whether events are missing at the end cannot be told")
        if sentence := missing(files, found, witnessed, "the witness"):
            return Loss(witnessed, sentence)
    if manifest is not None and (sentence := missing(files, found, manifest, "store.json")):
        return Loss(manifest, sentence)
    return None


def missing(files: LogFiles, found: Head, known: Head, source: str) -> str | None:
    """What is wrong with a log that ends in `found` and should have `known`, as `source` says; None if it has it."""
    if known.position > found.position:
        first, last = found.position + 1, known.position
        return f"positions {first} to {last} are missing: {source} knows {last} as durable, the log ends at {found.position}"
    if known.position >= files.floor() and files.checksum_at(known.position) != known.checksum:
        return (
            f"position {known.position} is not the event that {source} knows as durable: the files are of different times, or were altered"
        )
    return None


def domain_in_quarantine(name: str) -> str | None:
    """Whose files the folder of this name in STORE/quarantine/ holds, as quarantine() names it; None for any other."""
    named = _QUARANTINED.fullmatch(name)
    return named[1] if named is not None else None


def quarantine(store: Path, files: Sequence[Path], name: str) -> str:
    """Copy the files of a damaged log aside, once for each state they are in; says where. Raises EngineError."""
    with os_errors(f"keeping the evidence in {store / 'quarantine'}"):
        present = [path for path in files if path.exists()]
        state = hashlib.sha256("".join(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns};" for path in present).encode())
        target = store / "quarantine" / f"{name}-{state.hexdigest()[:12]}"
        if target.exists():
            return str(target)
        partial = target.with_name(f".tmp-{target.name}")
        make_folder(target.parent)
        partial.mkdir(mode=FOLDER_MODE, exist_ok=True)
        copy_files(present, partial)
        partial.rename(target)
        sync_folder(target.parent)
    return str(target)
