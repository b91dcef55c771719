"""Prove that a store is what was written.

Every event, every link and every witness is checked. Each finding is named by domain, position and kind. Nothing is
changed, and damaged stores are read as far as they go. Exit 1 if there are findings, 2 if the store cannot be read.

Example:
  eventstore verify data
  eventstore verify data notes --json
  eventstore verify data --processes 1
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from eventstore.links import Finding
from eventstore.model import Domain
from eventstore.tools.stores import existing_store
from eventstore.tools.terminal import Paint, Progress, count_text, escape, table
from eventstore.verify import DomainReport


class VerifyReport(msgspec.Struct, frozen=True):
    """What was proven, domain by domain, and what speaks against it."""

    store: str
    ok: bool
    domains: list[DomainLine]
    findings: list[Finding]

    @property
    def exit_code(self) -> int:
        """1 if there are findings."""
        return int(not self.ok)


class DomainLine(msgspec.Struct, frozen=True):
    """One domain: `head` is the checksum of its last event, None where none can be read."""

    domain: str
    events: int
    head: str | None
    redacted: int
    losses: int
    findings: int


def verify(location: str, domain: str | None = None, *, progress: Progress | None = None, processes: int | None = None) -> VerifyReport:
    """Verify a store, or one domain of it, by so many processes. Raises NotFoundError for a domain that is not there."""
    with existing_store(location, read_only=True) as store:
        found = store.verify(None if domain is None else Domain(domain).name, progress=progress, processes=processes)
    return VerifyReport(found.store, found.ok, [_line(each) for each in found.domains], found.findings)


def _line(report: DomainReport) -> DomainLine:
    head = None if report.head is None else report.head.checksum.hex()
    return DomainLine(report.domain, report.events, head, report.redacted, report.losses, len(report.findings))


def render(report: VerifyReport, paint: Paint) -> Iterator[str]:
    """A line a domain, a line a finding, and the verdict."""
    rows = [["domain", "events", "head", ""]]
    rows += [[escape(line.domain), f"{line.events:,}", (line.head or "unreadable")[:12], _verdict(line)] for line in report.domains]
    heading, *lines = table(rows, right=frozenset({1}))
    if lines:
        yield paint(heading, "dim")
    for line, text in zip(report.domains, lines, strict=True):
        yield paint(text, "bad") if line.findings else text
    for finding in report.findings:
        where = finding.domain if finding.position is None else f"{finding.domain}@{finding.position}"
        yield f"{paint(escape(where), 'bad')}  {finding.kind}  {escape(finding.message)}"
    if report.ok:
        total = count_text(sum(line.events for line in report.domains), "event")
        yield paint(f"whole: {total} in {count_text(len(report.domains), 'domain')}", "ok")
    else:
        yield paint(f"not whole: {count_text(len(report.findings), 'finding')}", "bad")


def _verdict(line: DomainLine) -> str:
    remarks = [count_text(line.findings, "finding") if line.findings else "ok"]
    remarks += [f"{line.redacted:,} redacted"] if line.redacted else []
    remarks += [f"{count_text(line.losses, 'loss', 'losses')} accepted"] if line.losses else []
    return ", ".join(remarks)
