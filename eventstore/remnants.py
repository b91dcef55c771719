"""Where else the values of a domain may stand: whatever lies in the store's folder and is not the log's own file.

Nothing here is opened: what a redaction did not reach is named, and who keeps it decides. What lies outside the folder,
backups and exports above all, nobody can name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from eventstore import moves
from eventstore.database import first_of
from eventstore.files import os_errors
from eventstore.model import HeldCopy
from eventstore.recovery import domain_in_quarantine

_OWN = re.compile(r"[0-9]{20}\.db(-wal|-shm)?|(\.tmp-[0-9]+-[0-9a-f]{8}-)?([0-9]{20}-[0-9]{20}\.ids|head|archive\.lock)")

ABANDONED = "left by a process that was killed: `eventstore doctor STORE --fix` removes it once it is old"
MAYBE_MADE = "made by a process that seals the log at this moment, or left by one that was killed: redact the same again to see which"


def copies_of(store: Path, domain: str, attached: Collection[Path], *, alone: bool) -> Iterator[HeldCopy]:
    """Every such place in the folder of a store, but for the log's own files; and copies on their way that are no `attached` file.

    `alone`: nobody else writes to the log meanwhile, so that what is half made there is made by nobody.
    """
    folder = store / "logs" / domain
    with os_errors(f"looking for copies of domain {domain}"):
        for path in sorted(store.glob("quarantine/*")):
            if domain in (path.name, domain_in_quarantine(path.name.removeprefix(".tmp-"))):
                yield HeldCopy(str(path), "files of this domain, kept as evidence of damage: delete them once nobody needs them")
        for path in sorted(store.glob(".tmp-adopt-*")):
            if (path / "logs" / domain).exists():
                yield HeldCopy(str(path), "left by an import that was killed: `eventstore doctor STORE --fix` removes it once it is old")
        for path in sorted(folder.iterdir()) if folder.exists() else ():
            if path.name == "pointers" or _OWN.fullmatch(path.name):
                continue  # pointer files and event ids hold no values, whole or half made
            if path.name.startswith(".tmp-"):
                yield HeldCopy(str(path), ABANDONED if alone else MAYBE_MADE)
            else:
                yield HeldCopy(str(path), "no file of the log: if it is a copy of one, delete it")
        whole = {(path.parents[2], first_of(path)) for path in attached if not moves.scratch_of(path).exists()}
        for move in moves.begun(folder):
            if (Path(move.to), move.first) not in whole:
                yield HeldCopy(
                    f"{move.to} ({domain}, from position {move.first})",
                    "a copy that is made there, or whose maker was killed: attach that folder, archives=[...] or --archive DIR, and redact"
                    " the same again; `eventstore doctor` says what stands there",
                )
