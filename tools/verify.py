"""Prove that a store is what was written.

Every event, every link and every witness is checked. Each finding is named by domain, position and kind. Nothing is
changed, and damaged stores are read as far as they go. Exit 1 if there are findings, 2 if the store cannot be read.

The chain cannot show that its end was cut off together with the witness, or sealed anew. With an anchor (see
`eventstore anchor`) each domain is held against it, beside the whole proof: EXTENDED, every event up to the anchor is what
it was; ALTERED, REORDERED, TRUNCATED are findings, and so is another store's anchor; UNJUDGED, the log could not be looked
at. What came after the anchor, and an UNNAMED domain, it does not cover: the last line says what is left to the chain alone.
KEY is the Ed25519 public key in PEM of whoever made the anchor.

Example:
  eventstore verify data
  eventstore verify data notes --json
  eventstore verify data --processes 1
  eventstore verify data --anchor anchor.json --public-key public.pem
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from eventstore.adapters.signing import require_signature
from eventstore.anchors import Anchor, Judgement
from eventstore.archived import Archived
from eventstore.clock import format_us
from eventstore.errors import ConfigError
from eventstore.links import UNJUDGED, Finding
from eventstore.model import Domain
from eventstore.tools.anchor import kept_anchor
from eventstore.tools.stores import existing_store
from eventstore.tools.terminal import Paint, Progress, count_text, escape, table
from eventstore.verify import DomainReport


class VerifyReport(msgspec.Struct, frozen=True):
    """What was proven, domain by domain, and what speaks against it."""

    store: str
    ok: bool
    domains: list[DomainLine]
    findings: list[Finding]
    anchor: AnchorLine | None = None

    @property
    def exit_code(self) -> int:
        """1 if anything is wrong, 2 if nothing is as far as could be looked, and that was not everywhere."""
        if self.ok:
            return 0
        return 2 if self.is_unjudged else 1

    @property
    def is_unjudged(self) -> bool:
        """Whether all that was found is that something stood in the way of looking."""
        return bool(self.findings) and all(finding.kind == UNJUDGED for finding in self.findings)


class AnchorLine(msgspec.Struct, frozen=True):
    """What the anchor says: `signed_by` is the key its signature was checked against, None if nobody asked."""

    made_us: int
    signed_by: str | None
    judgements: list[Judgement]


class DomainLine(msgspec.Struct, frozen=True):
    """One domain: `head` is the checksum of its last event, None where none can be read.

    Events up to `floor` are in an archive that was not attached, and were not looked at: `archived` is where.
    """

    domain: str
    events: int
    floor: int
    head: str | None
    redacted: int
    losses: int
    findings: int
    archived: list[Archived]
    notes: list[str]
    """What is no damage, and is put right by the next opening for writing."""


def verify(
    location: str,
    domain: str | None = None,
    *,
    anchor: Path | None = None,
    public_key: Path | None = None,
    archives: Sequence[Path] = (),
    progress: Progress | None = None,
    processes: int | None = None,
) -> VerifyReport:
    """Verify a store, or one domain of it, by so many processes, against the anchor in a file if there is one.

    Raises NotFoundError for a domain that is not there or another store's anchor, ConfigError for an anchor that is none, SignatureError.
    """
    kept = _kept(anchor, public_key)
    name = None if domain is None else Domain(domain).name
    with existing_store(location, read_only=True, archives=archives) as store:
        found = store.verify(name, anchor=kept, progress=progress, processes=processes)
    line: AnchorLine | None = None
    if kept is not None:
        signed_by = kept.signature.key if public_key is not None and kept.signature is not None else None
        line = AnchorLine(kept.made_us, signed_by, found.anchored)
    return VerifyReport(found.store, found.ok, [_line(each) for each in found.domains], found.findings, line)


def _kept(file: Path | None, public_key: Path | None) -> Anchor | None:
    """The anchor in a file, its signature checked if there is a key to check it by."""
    if file is None:
        if public_key is not None:
            raise ConfigError("--public-key checks the signature of an anchor: give its file by --anchor, too")
        return None
    kept = kept_anchor(file)
    if public_key is not None:
        require_signature(kept, public_key)
    return kept


def _line(report: DomainReport) -> DomainLine:
    head = None if report.head is None else report.head.checksum.hex()
    return DomainLine(
        report.domain,
        report.events,
        report.floor,
        head,
        report.redacted,
        report.losses,
        len(report.findings),
        report.archived,
        report.notes,
    )


def render(report: VerifyReport, paint: Paint) -> Iterator[str]:
    """A line a domain, a line a finding, and the verdict."""
    rows = [["domain", "events", "head", ""]]
    rows += [[escape(line.domain), f"{line.events:,}", (line.head or "unreadable")[:12], _verdict(line)] for line in report.domains]
    heading, *lines = table(rows, right=frozenset({1}))
    if lines:
        yield paint(heading, "dim")
    for line, text in zip(report.domains, lines, strict=True):
        yield paint(text, "bad") if line.findings else text
    if report.anchor is not None:
        yield from _anchor_lines(report.anchor, paint)
    for finding in report.findings:
        where = finding.domain if finding.position is None else f"{finding.domain}@{finding.position}"
        yield f"{paint(escape(where), 'bad')}  {finding.kind}  {escape(finding.message)}"
    for line in report.domains:
        for note in line.notes:
            yield f"{escape(line.domain)}  note  {escape(note)}"
    if report.ok:
        total = count_text(sum(line.events for line in report.domains), "event")
        yield paint(f"whole: {total} in {count_text(len(report.domains), 'domain')}", "ok")
        gone = sum(line.floor for line in report.domains)
        if gone:
            yield paint(f"not looked at: {count_text(gone, 'event')} before them; {_ELSEWHERE}", "warn")
    elif report.is_unjudged:
        yield paint(f"not judged: {count_text(len(report.findings), 'finding')}", "bad")
    else:
        yield paint(f"not whole: {count_text(len(report.findings), 'finding')}", "bad")
    yield paint(_not_excluded(report.anchor), "dim")


_ELSEWHERE = "what is archived is attached by --archive DIR, what was deleted can be proven by nobody"


def _not_excluded(line: AnchorLine | None) -> str:
    """What the proof cannot tell: a chain proves no end, and an anchor nothing that came after it."""
    unseen = "a tail cut off or sealed anew together with its witness"
    if line is None:
        return f"not excluded: {unseen}; `eventstore anchor`, kept elsewhere, excludes it"
    beyond = [_beyond(each) for each in line.judgements if each.more or each.verdict == "UNNAMED"]
    which = f" ({', '.join(beyond)})" if beyond else ""
    return f"not excluded: {unseen}, after what is anchored{which}; a newer anchor, kept elsewhere, excludes it"


def _beyond(judgement: Judgement) -> str:
    """How much of a domain stands where the anchor does not reach."""
    events = f"{count_text(judgement.more, 'event')} of " if judgement.more else ""
    return f"{'all ' if judgement.verdict == 'UNNAMED' else ''}{events}{escape(judgement.domain)}"


def _anchor_lines(line: AnchorLine, paint: Paint) -> Iterator[str]:
    signed = "its signature was not checked" if line.signed_by is None else f"signed by {line.signed_by}"
    yield f"anchor of {format_us(line.made_us)}, {signed}"
    for each in line.judgements:
        # What is wrong is told among the findings.
        verdict = f"{each.verdict}  {escape(each.message)}" if each.ok else paint(each.verdict, "bad")
        where = each.domain if each.position is None else f"{each.domain}@{each.position}"
        yield f"{escape(where)}  {verdict}"


def _verdict(line: DomainLine) -> str:
    remarks = [count_text(line.findings, "finding") if line.findings else "ok"]
    remarks += [f"from position {line.floor + 1:,} on"] if line.floor else []
    for place in sorted({each.to for each in line.archived}, key=str):
        events = sum(each.last - max(each.first, 1) + 1 for each in line.archived if each.to == place)  # the birth row is none of them
        remarks.append(f"{events:,} before it " + ("deleted" if place is None else f"archived to {escape(place)}"))
    remarks += [f"{line.redacted:,} redacted"] if line.redacted else []
    remarks += [f"{count_text(line.losses, 'loss', 'losses')} accepted"] if line.losses else []
    return ", ".join(remarks)
