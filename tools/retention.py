"""Keep what is recent at hand.

By age or by count: what is older is moved to DIR, or, with --delete --yes, deleted for good, those files archived earlier included.
`plan` says what `apply` with the same options would do, and changes nothing; with neither --to nor --delete it names the files that
need not be kept. A live file that begins with what need not be kept is sealed, then whole sealed files go. Each is proven first: one that
is damaged or was altered is an error, and stays. From an archive only the store deletes that put files there; for a store that was
moved or restored say --take-over, if no other counts on that archive. What every key is survives always: only the past goes, and an
event records which. Exit 1 if something had to be kept that should have gone, or would have to, and why.

Example:
  eventstore retention plan data --keep-days 30 --to archive
  eventstore retention apply data --keep-days 30 --to archive
  eventstore retention apply data notes --keep-events 1000000 --delete --yes
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from eventstore.errors import ConfigError
from eventstore.model import Domain
from eventstore.retention import Retention, RetentionPlan
from eventstore.tools.archive import DomainLine, FileLine, MovedReport, file_line, file_row, kept_line, line_of, steps
from eventstore.tools.archive import render as render
from eventstore.tools.stores import existing_store
from eventstore.tools.terminal import Paint, Progress, count_text, escape, size_text, table

_DAY_S = 86_400


class PlannedLine(FileLine, frozen=True):
    """One file, where it is now, and what is done with it: "archive", "delete", or null if nobody said."""

    does: str | None


class PlannedDomain(DomainLine, frozen=True):
    """One domain, as `apply` would report it."""

    files: Sequence[PlannedLine]


class PlanReport(msgspec.Struct, frozen=True):
    """What would be done, domain by domain; `to` and `delete` are what was asked."""

    store: str
    to: str | None
    delete: bool
    domains: list[PlannedDomain]

    @property
    def exit_code(self) -> int:
        """1 if a file would be kept that should go."""
        return int(any(line.kept for line in self.domains))


def policy_of(keep_days: int | None, keep_events: int | None) -> Retention:
    """A policy as it is typed. Raises ConfigError unless one of the two is given."""
    if (keep_days is None) == (keep_events is None):
        raise ConfigError("say what is kept: --keep-days N or --keep-events N, one of the two")
    return Retention(keep_s=None if keep_days is None else keep_days * _DAY_S, keep_events=keep_events)


def plan(
    location: str,
    domain: str | None = None,
    *,
    policy: Retention,
    to: Path | None = None,
    delete: bool = False,
    yes: bool = False,
    take_over: bool = False,
) -> PlanReport:
    """What apply() would do with the same arguments. Raises ConfigError, NotFoundError, CorruptionError."""
    _require_way(to, delete, yes, take_over)
    name = None if domain is None else Domain(domain).name
    with existing_store(location, read_only=True) as store:
        plans = store.plan_retention(policy, name, to=to, delete=delete, take_over=take_over)
    return PlanReport(location, None if to is None else str(to), delete, list(map(_planned, plans)))


def _planned(plan: RetentionPlan) -> PlannedDomain:
    files = [PlannedLine(**msgspec.structs.asdict(file_line(file)), does=file.does) for file in plan.files]
    return PlannedDomain(plan.domain, plan.seal, plan.floor, files, list(map(kept_line, plan.kept)), plan.removed)


def _require_way(to: Path | None, delete: bool, yes: bool, take_over: bool) -> None:
    """Raise ConfigError for options that do not go together."""
    if to is not None and delete:
        raise ConfigError("--to DIR moves files, and --delete deletes them for good: say one of the two")
    if (take_over or yes) and not delete:
        raise ConfigError("--take-over and --yes say more of a deletion: they go with --delete")


def apply(
    location: str,
    domain: str | None = None,
    *,
    policy: Retention,
    to: Path | None = None,
    delete: bool = False,
    yes: bool = False,
    take_over: bool = False,
    progress: Progress | None = None,
) -> MovedReport:
    """Do it. Raises ConfigError for a deletion without `yes`; NotFoundError, CorruptionError, EngineError."""
    _require_way(to, delete, yes, take_over)
    if to is None and not delete:
        raise ConfigError("say where the files go, by --to DIR, or that they are to be deleted for good, by --delete --yes: one of the two")
    if delete and not yes:
        raise ConfigError("deleting cannot be undone: look at `eventstore retention plan`, then say --delete --yes")
    name = None if domain is None else Domain(domain).name
    with existing_store(location) as store:
        reports = store.retain(policy, name, to=to, delete=delete, take_over=take_over, progress=progress)
    return MovedReport(location, False, None if to is None else str(to), list(map(line_of, reports)))


def render_plan(report: PlanReport, paint: Paint) -> Iterator[str]:
    """A line a file, where it is and what is done with it; a line for each other step, and what it comes to in each domain."""
    heading = ["domain", "positions", "events", "size", "from", "until", "floor", "now in", "step"]
    rows = [[*file_row(line, file), escape(file.archive or "the store"), file.does or ""] for line in report.domains for file in line.files]
    if rows:
        first, *lines = table([heading, *rows], right=frozenset({2, 3, 6}))
        yield paint(first, "dim")
        yield from lines
    yield from steps(report.domains, paint, "would be", "would be")
    goes = "deleted for good" if report.delete else f"archived to {escape(report.to)}" if report.to is not None else None
    for line in report.domains:
        events, size = sum(file.events for file in line.files), sum(file.bytes or 0 for file in line.files)
        would = "need not be kept" if goes is None else f"would be {goes}"
        if line.files:
            gone = f"{count_text(len(line.files), 'file')} {would}, {count_text(events, 'event')}, {size_text(size)}"
            yield f"{escape(line.domain)}: {gone}; all after position {line.floor:,} would stay"
        else:
            yield f"{escape(line.domain)}: nothing would go"
    if goes is None and any(line.files for line in report.domains):
        yield "say --to DIR, or --delete, to see what would become of them"
