"""Move sealed files to another folder.

They are read again from there, with --archive DIR. Of each domain, or of DOMAIN, those files go whose events were all recorded
before TIME, or, of one domain, stand before a POSITION; without --before all that are sealed (see `eventstore compact`). Each is
copied to DIR, the copy is proven and hashed, and an event records where it is; only then the original is removed. Nobody waits,
and what every key is stays. --dry-run changes nothing and says what would be moved. Exit 1 if something had to be kept that
should have gone, and why.

Example:
  eventstore archive data --to archive
  eventstore archive data notes --before 2026-11-01T00:00:00Z --to archive --dry-run
  eventstore history data notes hello --archive archive
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from eventstore.archive import ArchiveReport, FileReport, KeptFile
from eventstore.clock import format_us
from eventstore.model import Domain
from eventstore.tools.stores import existing_store
from eventstore.tools.terminal import Paint, Progress, count_text, escape, size_text, table


class FileLine(msgspec.Struct, frozen=True):
    """One file: as FileReport says, and how many events it holds, its seal included."""

    first: int
    last: int
    events: int
    status: str
    archive: str | None
    bytes: int | None
    began_us: int | None
    ended_us: int | None


class KeptLine(msgspec.Struct, frozen=True):
    """A file that should have gone, and why it did not."""

    first: int
    last: int
    why: str


class DomainLine(msgspec.Struct, frozen=True):
    """One domain: the files that went, or would, and those that should have. Events up to `floor` are not in the store then.

    `sealed`: whether the live file was sealed first. `removed`: files that an earlier run left, and that went now.
    """

    domain: str
    sealed: bool
    floor: int
    files: Sequence[FileLine]
    kept: list[KeptLine]
    removed: list[str]


class MovedReport(msgspec.Struct, frozen=True):
    """What was done to a store, or would be in a dry run. `to` is None where files are deleted."""

    store: str
    dry_run: bool
    to: str | None
    domains: list[DomainLine]

    @property
    def exit_code(self) -> int:
        """1 if a file was kept that should have gone."""
        return int(any(line.kept for line in self.domains))


def archive(
    location: str,
    domain: str | None = None,
    *,
    to: Path,
    before: datetime | int | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> MovedReport:
    """Archive the sealed files of a store, or of one domain of it. Raises NotFoundError, ConfigError, CorruptionError, EngineError."""
    name = None if domain is None else Domain(domain).name
    with existing_store(location, read_only=dry_run) as store:
        reports = store.archive(name, before=before, to=to, dry_run=dry_run, progress=progress)
    return MovedReport(location, dry_run, str(to), list(map(line_of, reports)))


def line_of(report: ArchiveReport) -> DomainLine:
    """A domain's report as the commands tell it."""
    return DomainLine(
        report.domain, report.sealed, report.floor, list(map(file_line, report.files)), list(map(kept_line, report.kept)), report.removed
    )


def kept_line(file: KeptFile) -> KeptLine:
    """A file that stays, as the commands tell it."""
    return KeptLine(file.first, file.last, file.why)


def file_line(file: FileReport) -> FileLine:
    """A file as the commands tell it."""
    return FileLine(file.first, file.last, file.events, file.status, file.archive, file.bytes, file.began_us, file.ended_us)


def render(report: MovedReport, paint: Paint) -> Iterator[str]:
    """A line a file, a line for each that was kept, and what it comes to."""
    yield from file_table(report.domains, paint)
    yield from steps(report.domains, paint, "would be" if report.dry_run else "was", "would be" if report.dry_run else "were")
    files = [file for line in report.domains for file in line.files]
    count, events = count_text(len(files), "file"), count_text(sum(file.events for file in files), "event")
    if not files:
        yield paint("nothing to archive" if report.to is not None else "nothing to delete", "ok")
        return
    done = ("would archive" if report.dry_run else "archived") if report.to is not None else "deleted"
    yield paint(f"{done} {count}, {events}" + (f", to {escape(report.to)}" if report.to is not None else ""), "ok")


def steps(domains: Sequence[DomainLine], paint: Paint, one: str, several: str) -> Iterator[str]:
    """What else is done, a line each, and what is not: `one` and `several` say whether it was, or would be."""
    for line in domains:
        if line.sealed:
            yield f"{escape(line.domain)}: its live file {one} sealed"
        for path in line.removed:
            yield f"{escape(line.domain)}: {escape(path)}, which an earlier run left, {one} removed"
        for each in line.kept:
            yield f"{paint(escape(line.domain), 'bad')}  positions {each.first:,} to {each.last:,} {several} kept: {escape(each.why)}"


def file_table(domains: list[DomainLine], paint: Paint) -> Iterator[str]:
    """The files of some domains, one a line, with the time between its first and its last event."""
    rows = [["domain", "positions", "events", "size", "from", "until", "floor"]]
    rows += [file_row(line, file) for line in domains for file in line.files]
    heading, *lines = table(rows, right=frozenset({2, 3, 6}))
    if lines:
        yield paint(heading, "dim")
    yield from lines


def file_row(line: DomainLine, file: FileLine) -> list[str]:
    """A file's cells in a table."""
    began, ended = ("" if at is None else format_us(at) for at in (file.began_us, file.ended_us))
    size = "" if file.bytes is None else size_text(file.bytes)
    return [escape(line.domain), f"{file.first:,}-{file.last:,}", f"{file.events:,}", size, began, ended, f"{file.last:,}"]
