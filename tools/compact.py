"""Seal what has grown; delete nothing.

A domain's live file ends with a `seal` event, and the next one begins with what every key is now, so that it is small again.
Sealed files stay beside it, are read as before, and can be moved to an archive. Where nothing came since the last seal,
nothing is done. Writers wait while that is copied; the report says how long. With --before only those domains are sealed whose live
file begins with an event recorded before TIME; --dry-run changes nothing and says what would be sealed.

Example:
  eventstore compact data
  eventstore compact data notes
  eventstore compact data --before 2026-11-01T00:00:00Z --dry-run
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from eventstore.domain import DomainStore
from eventstore.store import Store
from eventstore.tools.stores import chosen_domains, existing_store
from eventstore.tools.terminal import Paint, Progress, count_text, escape, size_text, table


class DomainLine(msgspec.Struct, frozen=True):
    """One domain: what was sealed, or would be. `why` says why not, `held_us` how long writers waited, in microseconds."""

    domain: str
    sealed: bool
    why: str | None
    events: int
    carried: int | None
    bytes_before: int
    bytes_after: int | None
    held_us: int | None


class CompactReport(msgspec.Struct, frozen=True):
    """What was done to a store, or would be in a dry run, domain by domain."""

    store: str
    dry_run: bool
    domains: list[DomainLine]

    exit_code = 0


def compact(
    location: str, domain: str | None = None, *, before_us: int | None = None, dry_run: bool = False, progress: Progress | None = None
) -> CompactReport:
    """Seal the domains of a store, or one of them. Raises NotFoundError for a domain that is not there, EngineError."""
    lines: list[DomainLine] = []
    with existing_store(location, read_only=dry_run) as store:
        chosen = chosen_domains(store, domain)
        for number, each in enumerate(chosen):
            if progress is not None:
                progress("sealing", number, len(chosen))
            lines.append(_seal(store, each, before_us, dry_run))
    return CompactReport(location, dry_run, lines)


def _seal(store: Store, domain: DomainStore, before_us: int | None, dry_run: bool) -> DomainLine:
    extent, last = domain.group.live.log.extent(), domain.head().position
    why = None
    if extent.began_us is None or last < max(extent.first, 1):
        why = "nothing came since the last seal"
    elif before_us is not None and extent.began_us >= before_us:
        why = "its live file begins later"
    if why is not None:
        return DomainLine(domain.name, False, why, 0, None, extent.bytes, None, None)
    if dry_run:
        return DomainLine(domain.name, True, None, last - extent.first + 2, None, extent.bytes, None, None)
    done = store.seal(domain.name)
    return DomainLine(domain.name, done.sealed, None, done.events, done.carried, done.bytes_before, done.bytes_after, done.held_us)


def render(report: CompactReport, paint: Paint) -> Iterator[str]:
    """A line a domain: how many events were sealed and carried over, what the live file took and takes now; and what it comes to."""
    rows = [["domain", "sealed", "carried", "live file", "now", ""]]
    rows += [_row(line) for line in report.domains]
    heading, *lines = table(rows, right=frozenset({1, 2, 3, 4}))
    if lines:
        yield paint(heading, "dim")
    yield from lines
    sealed = sum(line.sealed for line in report.domains)
    if not sealed:
        yield paint("nothing to seal", "ok")
    elif report.dry_run:
        yield paint(f"would seal {count_text(sealed, 'domain')}", "ok")
    else:
        yield paint(f"sealed {count_text(sealed, 'domain')}", "ok") + paint(_NOTHING_LOST, "dim")


_NOTHING_LOST = ": nothing was deleted, all of it is read as before; `eventstore archive` moves what is sealed elsewhere"


def _row(line: DomainLine) -> list[str]:
    carried = "" if line.carried is None else f"{line.carried:,}"
    after = "" if line.bytes_after is None else size_text(line.bytes_after)
    waited = "" if line.held_us is None else f"writers waited {line.held_us / 1_000:,.0f} ms"
    events = f"{line.events:,}" if line.sealed else ""
    return [escape(line.domain), events, carried, size_text(line.bytes_before), after, line.why or waited]
