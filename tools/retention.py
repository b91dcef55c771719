"""Keep what is recent at hand.

By age or by count: what is older is moved, or deleted. `plan` says which files would go, and changes nothing. `apply` does it: a
live file that begins with what need not be kept is sealed, and whole sealed files are moved to DIR, or, with --delete --yes,
deleted for good, those archived earlier included. From an archive only the store deletes that put files there; for a store that was
moved or restored say --take-over, if no other counts on that archive. What every key is survives always: only the past goes, and an
event records which. Exit 1 if something had to be kept that should have gone, and why.

Example:
  eventstore retention plan data --keep-days 30
  eventstore retention apply data --keep-days 30 --to archive
  eventstore retention apply data notes --keep-events 1000000 --delete --yes
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from eventstore.errors import ConfigError
from eventstore.model import Domain
from eventstore.retention import Retention
from eventstore.tools.archive import DomainLine, MovedReport, file_line, file_table, line_of
from eventstore.tools.archive import render as render
from eventstore.tools.stores import existing_store
from eventstore.tools.terminal import Paint, Progress, count_text, escape, size_text

_DAY_S = 86_400


class PlanReport(msgspec.Struct, frozen=True):
    """What would go, domain by domain; `sealed` says whether the live file would be sealed first."""

    store: str
    domains: list[DomainLine]

    exit_code = 0


def policy_of(keep_days: int | None, keep_events: int | None) -> Retention:
    """A policy as it is typed. Raises ConfigError unless one of the two is given."""
    if (keep_days is None) == (keep_events is None):
        raise ConfigError("say what is kept: --keep-days N or --keep-events N, one of the two")
    return Retention(keep_s=None if keep_days is None else keep_days * _DAY_S, keep_events=keep_events)


def plan(location: str, domain: str | None = None, *, policy: Retention) -> PlanReport:
    """What the policy would do to a store, or to one domain of it. Raises NotFoundError, CorruptionError."""
    name = None if domain is None else Domain(domain).name
    with existing_store(location, read_only=True) as store:
        plans = store.plan_retention(policy, name)
    return PlanReport(location, [DomainLine(each.domain, each.seal, each.floor, list(map(file_line, each.files)), []) for each in plans])


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
    if delete and not yes:
        raise ConfigError("deleting cannot be undone: look at `eventstore retention plan`, then say --delete --yes")
    name = None if domain is None else Domain(domain).name
    with existing_store(location) as store:
        reports = store.retain(policy, name, to=to, delete=delete, take_over=take_over, progress=progress)
    return MovedReport(location, False, None if to is None else str(to), list(map(line_of, reports)))


def render_plan(report: PlanReport, paint: Paint) -> Iterator[str]:
    """A line a file, and what it comes to in each domain."""
    yield from file_table(report.domains, paint)
    for line in report.domains:
        events, size = sum(file.events for file in line.files), sum(file.bytes or 0 for file in line.files)
        seal = "its live file would be sealed; " if line.sealed else ""
        if line.files:
            gone = f"{count_text(len(line.files), 'file')} would go, {count_text(events, 'event')}, {size_text(size)}"
            yield f"{escape(line.domain)}: {seal}{gone}; all after position {line.floor:,} would stay"
        else:
            yield f"{escape(line.domain)}: {seal}nothing would go"
