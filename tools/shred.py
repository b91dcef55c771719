"""Destroy a subject's key, and all that it encrypted.

No copy can be read any more, backups of the store included; what still holds the key is a backup of the key file. Then
the values in this store, and in the archives that --archive names, are redacted, and every domain's log says who did it and why.

Exit 1 if there never was such a subject, or something may still hold a copy. Run it again if it was interrupted: nothing is done
twice.

Example:
  eventstore shred data customer-42 --keys people.keys --reason "erasure request 17" --actor dpo
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from eventstore.tools import redact
from eventstore.tools.stores import existing_store
from eventstore.tools.terminal import Paint, escape


class ShredReport(msgspec.Struct, frozen=True):
    """The ids of the keys that are destroyed, and what was redacted in each domain."""

    subject: str
    keys: list[str]
    erased: list[redact.RedactReport]

    @property
    def exit_code(self) -> int:
        """1 if anything may still hold a copy."""
        return max((report.exit_code for report in self.erased), default=0)


def shred(
    location: str,
    subject: str,
    *,
    keys: Path | None = None,
    reason: str,
    actor: str | None = None,
    take_over: bool = False,
    archives: Sequence[Path] = (),
) -> ShredReport:
    """Destroy the keys of `subject` and redact its values. Raises NotFoundError, ConfigError without a key file."""
    with existing_store(location, keys=keys, archives=archives) as store:
        done = store.shred(subject, reason=reason, actor=actor, take_over=take_over)
    erased = [redact.RedactReport(each.domain, False, each.position, each.erased, each.already, each.held) for each in done.erased]
    return ShredReport(done.subject, done.keys, erased)


def render(report: ShredReport, paint: Paint) -> Iterator[str]:
    """What is gone."""
    keys = "1 key" if len(report.keys) == 1 else f"{len(report.keys)} keys"
    yield f"{paint(escape(report.subject), 'name')}: {keys} destroyed"
    for each in report.erased:
        yield from redact.render(each, paint)
