"""Erase the values of a key, for good.

Every value that KEY ever had is erased, in every file of the domain's log, those in archives included where --archive names
them; or with --prefix those of all keys that begin with it; or with --position only the named ones. That values were there,
when, and who erased them and why stays on record; keys and metadata stay as well. What may still hold a copy is named, with
what to do about it.

In an archive where another store put files, of which this one may be a copy, nothing is erased, and it is named: a store that was
moved or restored says --take-over, if no other counts on that archive.

Exit 1 if such a place was named, or if there never was such a value. Run it again afterwards: it erases nothing twice,
and looks anew. Backups and exports outside the store are yours to find.

Example:
  eventstore redact data people alice --reason "erasure request 17" --actor dpo
  eventstore redact data people '["customer", 42]' --prefix --reason "erasure request 18" --dry-run
  eventstore redact data notes --position 1 --reason "a password, by mistake"
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from eventstore.model import HeldCopy, Key
from eventstore.tools.stores import existing_domain, existing_store
from eventstore.tools.terminal import Paint, escape


class RedactReport(msgspec.Struct, frozen=True):
    """What was erased; `position` is that of the event that says so, None if nothing was appended."""

    domain: str
    dry_run: bool
    position: int | None
    erased: list[int]
    already: list[int]
    held: list[HeldCopy]

    @property
    def exit_code(self) -> int:
        """1 if anything may still hold a copy."""
        return int(bool(self.held))


def redact(
    location: str,
    domain: str,
    key: Key | None = None,
    *,
    prefix: Key | None = None,
    positions: Sequence[int] | None = None,
    reason: str,
    actor: str | None = None,
    dry_run: bool = False,
    take_over: bool = False,
    archives: Sequence[Path] = (),
) -> RedactReport:
    """Erase values of a domain that exists. Raises NotFoundError if there never were any."""
    with existing_store(location, archives=archives) as store:
        done = existing_domain(store, domain).redact(
            key, prefix=prefix, positions=positions, reason=reason, actor=actor, dry_run=dry_run, take_over=take_over
        )
    return RedactReport(done.domain, dry_run, done.position, done.erased, done.already, done.held)


def render(report: RedactReport, paint: Paint) -> Iterator[str]:
    """What is gone, by position; then what may still hold it."""
    name = paint(escape(report.domain), "name")
    if report.erased:
        said = "would be erased" if report.dry_run else f"erased, on record at position {report.position}"
        yield f"{name}: {_count(report.erased)} {said}"
        yield paint(f"    {_ranges(report.erased)}", "dim")
    if report.already:
        yield f"{name}: {_count(report.already)} erased before"
    for copy in report.held:
        yield f"{paint('may still hold a copy', 'bad')}: {escape(copy.path)}"
        yield f"    {copy.advice}"
    if not report.held and not report.dry_run:
        yield "no other copy is in the store's folder"


def _count(positions: list[int]) -> str:
    return "1 value" if len(positions) == 1 else f"{len(positions)} values"


def _ranges(positions: list[int]) -> str:
    """Rising positions as people write them: 1-3, 7."""
    runs: list[list[int]] = []
    for position in positions:
        if runs and runs[-1][1] == position - 1:
            runs[-1][1] = position
        else:
            runs.append([position, position])
    return "positions " + ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
