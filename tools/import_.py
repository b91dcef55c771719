"""Take in an export, or a tree of JSON files.

SOURCE is a file that `eventstore export` wrote (packed with gzip or not), - for standard input, or a folder. STORE is
made if it is not there.

An export into an empty or missing folder makes the same store again: ids, positions, checksums. Into a store that is
there the events are appended anew, each with the place it came from in meta.origin. With --domain only that one is
taken. An export that was cut off is named as that, and no new domain is made of what is there. Of a store whose first events
were archived or deleted the import has what the store has, and begins where it does.

What was redacted in the source since an earlier import is erased in STORE, too, as `eventstore redact` does it: with who asked and why, in
the archives that --archive names as well. What may still hold a copy is named: exit 1.

Values that are encrypted for their subjects are taken as they are by a store of the same id, such as a folder that was empty, and read with
its key file. No other store could open them: it is named, and of that domain nothing from there on is imported.

In a folder, the first folder of a path is the domain (a leading data/ is skipped), the rest without .json the key,
the bytes are the value, and the time of the last change is its `when`. With --domain all files belong to that domain.

With --contracts the folder is a tree of the framework's own JSON files, and its records become those of its contracts, as
eventstore.adapters.persist keeps them: for a bot that goes on with this store. Where a path can be read as several contexts, and
the record does not say which, it is named and left out, until a file .context beside it holds the context as a list: what is named
says which lists can be.

A link in a folder is followed to what is below that folder only; any other is named and left out.

Importing the same again changes nothing; where STORE has archived what tells that it is the same, --archive DIR attaches it.
What is broken is named and left out, and the rest lands: exit 1.

Example:
  eventstore import backup.jsonl copy
  eventstore import dump data
  eventstore import dump/memory data --domain memory
  eventstore import dump bot --contracts
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from eventstore import copies, manifest
from eventstore.codec import FORMAT
from eventstore.errors import ConfigError, CorruptionError
from eventstore.files import os_errors
from eventstore.model import Domain
from eventstore.opening import open_store
from eventstore.tools.import_contracts import import_contracts
from eventstore.tools.import_events import import_events
from eventstore.tools.import_tree import import_tree
from eventstore.tools.imported import ImportReport, render
from eventstore.tools.interchange import Reader, open_lines
from eventstore.tools.terminal import Progress

__all__ = ["import_", "render"]


def import_(
    source: str,
    location: str,
    *,
    domain: str | None = None,
    archives: Sequence[Path] = (),
    contracts: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Import `source` into the store at `location`, as records of contracts if asked.

    Raises ConfigError for a source that is none, ContractError for a store that holds other keys, and what opening raises.
    """
    if domain is not None:
        Domain(domain)
    report = ImportReport(source, location)
    path = Path(source)
    if source != "-" and path.is_dir():
        if (path / copies.NAME).is_file():
            raise ConfigError(f"{source} is a backup; make a store of it with `eventstore restore {source} {location}`")
        if (path / manifest.NAME).is_file() and (path / "logs").is_dir():
            raise ConfigError(
                f"{source} is a store itself; bring its events over with `eventstore export {source} | eventstore import - {location}`"
            )
        with open_store(location, archives=archives) as store:
            report.store_id = store.store_id
            if contracts:
                import_contracts(path, store, report, progress=progress)
            else:
                import_tree(path, store, report, domain=domain, progress=progress)
        return report
    if contracts:
        raise ConfigError(f"{source} is no folder: --contracts takes a tree of the framework's JSON files")
    name = "standard input" if source == "-" else source
    with os_errors(f"reading {name}"), ExitStack() as stack:
        stream = sys.stdin.buffer if source == "-" else stack.enter_context(path.open("rb"))
        reader = Reader(open_lines(stream, name), name)
        # A new store becomes the one whose events come first in the file; not a draft's, whose history it cannot have.
        becomes = not Path(location, manifest.NAME).exists() and reader.first.format == FORMAT
        with open_store(location, store_id=reader.first.store_id if becomes else None, archives=archives) as store:
            report.store_id = store.store_id
            try:
                import_events(reader, store, report, domain=domain, progress=progress)
            except CorruptionError as error:
                report.problem(source, error)
    return report
