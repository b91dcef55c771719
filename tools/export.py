"""Write events as JSONL.

For each domain there is a header line, which says where the log ends, then one event a line, complete with checksums;
`eventstore import` takes it back, and notices if anything was cut off. A FILE appears whole or not at all; one named *.gz is
packed. The chain is checked on the way: a damaged log is not exported.

Where the first events were archived, and the archive is not attached, or were deleted, what is there is exported: what every key
was then, the log's own events, the event ids, and every event since. An import of that ends, and begins, where the store does.
stderr says up to where events are in no file at hand.

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
from pathlib import Path
from typing import IO, Protocol, cast

import msgspec

from eventstore.codec import FORMAT
from eventstore.copies import require_outside
from eventstore.domain import DomainStore
from eventstore.files import FILE_MODE, half_made, os_errors, sync_folder
from eventstore.tools.floor import chained, say_floor
from eventstore.tools.interchange import End, Header, encode_event, encode_header, encode_ids, ids_of
from eventstore.tools.stores import chosen_domains, existing_domain, existing_store
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
    """How many events of which domain were written, the log's own included.

    `floors`: of which domains events up to a position are in no file at hand, and up to which.
    """

    store: str
    output: str
    domains: dict[str, int]
    floors: dict[str, int]

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

    Raises CorruptionError where the chain breaks; with nothing written, CompactedError where a file is missing that was neither
    archived nor deleted, LostIdsError where event ids are lost and nobody accepted that.
    """
    written: dict[str, int] = {}
    with existing_store(location, read_only=read_only, archives=archives) as store:
        chosen = [existing_domain(store, name) for name in domains] or chosen_domains(store, None)
        beginnings = {domain.name: _begin(domain) for domain in chosen}
        for number, domain in enumerate(chosen):
            following = [each.name for each in chosen[number + 1 :]]
            written[domain.name] = _export_domain(store.store_id, domain, beginnings[domain.name], following, output, progress)
        floors = {name: begun.floor for name, begun in beginnings.items() if begun.floor}
        return ExportReport(store.location, name, written, floors)


class _Begun(msgspec.Struct, frozen=True):
    """Where the export of a domain begins, and the event ids of what comes before: hash and position, by hash."""

    floor: int
    ids: list[tuple[int, int]]


def _begin(domain: DomainStore) -> _Begun:
    """Look before the first byte is written whether there is a whole to be exported."""
    domain.head()  # catches up with others, who may have sealed and archived meanwhile
    floor = say_floor(domain)
    return _Begun(floor, sorted(domain.group.live.ids.pairs(0, floor)) if floor else [])


def _export_domain(
    store_id: str, domain: DomainStore, begun: _Begun, following: list[str], output: Output, progress: Progress | None
) -> int:
    floor, end = begun.floor, domain.head()
    head = End(end.position, end.checksum.hex())
    output.write(encode_header(Header(FORMAT, store_id, domain.name, floor, head, ids_of(begun.ids) if floor else None, following)))
    written = 0
    for each in chained(domain, floor, end.position):
        output.write(encode_event(each.event, each.previous))
        written += 1
        if each.event.position == floor:
            for line in encode_ids(begun.ids):
                output.write(line)
        if progress is not None and each.event.position % 1_000 == 0:
            progress(domain.name, each.event.position, end.position)
    return written


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the name `path` when the block ends without an error, and then is durable; else it leaves no trace.

    Raises ConfigError for a place in a store's folder.
    """
    require_outside(path)
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
