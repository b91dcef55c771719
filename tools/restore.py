"""Make the store of a backup again, in a new folder.

STORE must be missing or empty; it appears whole, or not at all. Every file is held against the hash that was taken when the
backup was made, every event against its checksum. Ids, positions and checksums are those of the store that was backed up.

It IS that store: never write the old one again, as both would give the same positions to different events. What was written
after the backup is not in it, and whoever acted on it must ask the other side what happened (intents: Store.uncertain()).
`eventstore verify STORE --anchor FILE` says whether anything is missing that an anchor knows. Exit 1 for a damaged backup.

A run that is killed leaves a folder .tmp-restore-* beside STORE, which may hold values; the next run to the same STORE removes it.

Example:
  eventstore restore data-backup data-again
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from eventstore.backup import CopiedDomain
from eventstore.clock import format_us
from eventstore.restore import restore as restore_store
from eventstore.tools.backup import events_text, head_lines, not_in_it
from eventstore.tools.terminal import Paint, Progress, escape


class RestoreAnswer(msgspec.Struct, frozen=True):
    """What was restored, and up to where."""

    backup: str
    store: str
    store_id: str
    made_us: int
    domains: list[CopiedDomain]
    bytes: int

    exit_code = 0


def restore(backup: str, location: str, *, progress: Progress | None = None) -> RestoreAnswer:
    """Restore `backup` to `location`. Raises ConfigError for a place that cannot be, CorruptionError for a damaged backup."""
    return RestoreAnswer(**msgspec.structs.asdict(restore_store(backup, location, progress=progress)))


def render(report: RestoreAnswer, paint: Paint) -> Iterator[str]:
    """A line a domain, then up to when, and what that means."""
    yield from head_lines(report.domains, paint)
    events = events_text(report.domains)
    yield f"{paint('whole', 'ok')}: {events} in {paint(escape(report.store), 'name')}, as of the backup of {format_us(report.made_us)}"
    yield from not_in_it(report.domains, paint)
    yield paint("what was written since is not here: ask the other side what was done, and settle what is uncertain", "warn")
    yield paint("this is the same store: never write the one that was backed up again", "warn")
