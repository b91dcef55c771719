"""Write events as JSONL.

For each domain there is a header line, then one event a line, complete with checksums; `eventstore import` takes it
back. A FILE appears whole or not at all; one named *.gz is packed. The chain is checked on the way: a damaged log is
not exported.

With --sqlite, FILE becomes a plain database for reading with any tool (datasette, pandas, sqlite3): table `event` with every
event, table `state` with what each key holds now, times as text, members of keys and metadata in columns of their own. It is a
copy for looking at; it cannot be imported.

With --contracts, FILE becomes a folder, new or empty, with a tree of the framework's own JSON files, of each domain as of one moment; it
appears whole or not at all. What no file can hold is named and left out: exit 1. `eventstore import --contracts` takes it back.

Example:
  eventstore export data -o events.jsonl
  eventstore export data notes | head -2
  eventstore export data --sqlite data.db
  eventstore export data --contracts -o dump-again
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Protocol, cast

import msgspec

from eventstore.codec import GENESIS, check
from eventstore.domain import DomainStore
from eventstore.files import FILE_MODE, half_made, os_errors, sync_folder
from eventstore.tools.interchange import encode_event, encode_header
from eventstore.tools.stores import chosen_domains, existing_domain, existing_store, require_outside_stores
from eventstore.tools.terminal import Paint, Progress, count_text, escape, json_safe


class Output(Protocol):
    """Where the lines go."""

    def write(self, content: bytes, /) -> object:
        """Take one line."""
        ...


class Shown:
    """A terminal as an Output: the same JSON, but nothing in it that the terminal would obey."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, content: bytes, /) -> None:
        """Show one line."""
        self._stream.write(json_safe(content.decode().rstrip()) + "\n")


class ExportReport(msgspec.Struct, frozen=True):
    """How many events of which domain were written, the log's own included."""

    store: str
    output: str
    domains: dict[str, int]

    exit_code = 0


def export(
    location: str,
    domains: Iterable[str],
    output: Output,
    name: str = "-",
    *,
    read_only: bool = False,
    archives: Sequence[Path] = (),
    progress: Progress | None = None,
) -> ExportReport:
    """Write `domains`, or all there are, to `output`, which is called `name`.

    Raises CorruptionError where the chain breaks, CompactedError, with nothing written, where a part is archived and not attached.
    """
    written: dict[str, int] = {}
    with existing_store(location, read_only=read_only, archives=archives) as store:
        chosen = [existing_domain(store, name) for name in domains] or chosen_domains(store, None)
        for domain in chosen:
            # Before the first byte: the beginning of a log, on its own, would pass for all of it.
            next(domain.events(limit=1), None)
        for domain in chosen:
            written[domain.name] = _export_domain(store.store_id, domain, output, progress)
        return ExportReport(store.location, name, written)


def _export_domain(store_id: str, domain: DomainStore, output: Output, progress: Progress | None) -> int:
    last = domain.head().position
    # The birth row goes along: without it nobody could take over the checksums.
    output.write(encode_header(store_id, domain.name))
    head = GENESIS
    for event in chain([domain.event(0)], domain.events(until=last)):
        head = check(head, event, domain.name)
        output.write(encode_event(event))
        if progress is not None and event.position % 1_000 == 0:
            progress(domain.name, event.position, last)
    return last + 1


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the name `path` when the block ends without an error, and then is durable; else it leaves no trace.

    Raises ConfigError for a place in a store's folder.
    """
    require_outside_stores(path)
    if path.exists() and not path.is_file():
        with os_errors(f"writing {path}"), path.open("wb") as device:
            yield device
        return
    with os_errors(f"writing {path}"), ExitStack() as undo:
        temporary = half_made(path)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
        undo.callback(temporary.unlink, missing_ok=True)
        with os.fdopen(descriptor, "wb") as file:
            if path.suffix == ".gz":
                # No name and no time inside: the same events make the same bytes.
                with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                    yield cast("IO[bytes]", packed)
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        undo.pop_all()
        sync_folder(path.parent)


def render(report: ExportReport, paint: Paint) -> Iterator[str]:
    """One line: how much, and where to."""
    events = count_text(sum(report.domains.values()), "event")
    yield f"{events} of {count_text(len(report.domains), 'domain')} written to {paint(escape(report.output), 'name')}"
