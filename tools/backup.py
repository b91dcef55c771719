"""Back up a store, while others write to it.

TO is a new or empty folder, or that of an earlier backup of the same store, which is replaced once the new one is whole and
proven; a backup that is killed leaves the one before. Files that did not change since are not copied again. Every write that
was acknowledged before the backup began is in it; each domain is copied as of one moment, one domain after the other.

TO can be verified, and read with --read-only, but never written; `eventstore restore` makes a store of it. Pointer files
(caches) and quarantine are not part of it. A damaged store is not backed up: the backup before stays, and exit is 1.

Example:
  eventstore backup data data-backup
  eventstore verify data-backup
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from eventstore.backup import CopiedDomain
from eventstore.clock import format_us
from eventstore.tools.stores import existing_store
from eventstore.tools.terminal import Paint, Progress, count_text, escape, size_text, table


class BackupAnswer(msgspec.Struct, frozen=True):
    """What was backed up, and up to where. Files are those with events in them."""

    store: str
    to: str
    store_id: str
    made_us: int
    domains: list[CopiedDomain]
    copied: int
    copied_bytes: int
    kept: int
    kept_bytes: int
    mended: list[str]

    exit_code = 0


def backup(location: str, to: str, *, progress: Progress | None = None) -> BackupAnswer:
    """Back up the store at `location` into `to`. Raises ConfigError for a place that cannot be, CorruptionError for a damaged store."""
    with existing_store(location, read_only=True) as store:
        made = store.backup(to, progress=progress)
    return BackupAnswer(**msgspec.structs.asdict(made))


def render(report: BackupAnswer, paint: Paint) -> Iterator[str]:
    """A line a domain, then what it cost and that it is whole."""
    yield from head_lines(report.domains, paint)
    for name in report.mended:
        yield f"{paint(escape(name), 'warn')}  had rotted in the backup before, and was copied again"
    files = f"{count_text(report.copied, 'file')} copied ({size_text(report.copied_bytes)})"
    kept = f", {report.kept:,} unchanged ({size_text(report.kept_bytes)})" if report.kept else ""
    events = events_text(report.domains)
    yield f"{files}{kept}"
    yield f"{paint('whole', 'ok')}: {events} of {escape(report.store)} at {format_us(report.made_us)} in {paint(escape(report.to), 'name')}"
    yield from not_in_it(report.domains, paint)


def head_lines(domains: list[CopiedDomain], paint: Paint) -> Iterator[str]:
    """Up to where each domain is there."""
    rows = [
        ["domain", "events", "head", ""],
        *([escape(each.domain), f"{each.position - each.floor:,}", each.checksum[:12], _elsewhere(each)] for each in domains),
    ]
    heading, *lines = table(rows, right=frozenset({1}))
    if lines:
        yield paint(heading.rstrip(), "dim")
        yield from (line.rstrip() for line in lines)


def events_text(domains: list[CopiedDomain]) -> str:
    """How many events are in it."""
    return count_text(sum(each.position - each.floor for each in domains), "event")


def not_in_it(domains: list[CopiedDomain], paint: Paint) -> Iterator[str]:
    """What a backup never had; nothing where it has everything."""
    gone = sum(each.floor for each in domains)
    if gone:
        told = f"not in it: {count_text(gone, 'event')} before them, archived or deleted, but for what every key was there"
        yield paint(f"{told}; keep the archives, too", "warn")


def _elsewhere(domain: CopiedDomain) -> str:
    return f"{domain.floor:,} before it archived or deleted: not in the backup" if domain.floor else ""
