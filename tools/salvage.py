"""Carve what is intact out of a damaged store.

Every event whose own bytes are intact is read out of the files under STORE, whatever else is left of them: the header may be
gone, pages torn, the database deleted, the WAL cut. Copies in STORE/quarantine count, too. STORE is only read, and
may be in use. OUT is a new store; it must be missing or empty.

If nothing is missing, OUT is the same store: ids, positions, checksums. Otherwise it has a new id, each event says in
meta.origin where it came from, and where anything of a domain is missing, a `loss` event at its end says what. Events
that were archived are missing unless --archive names the folder they are in; what was deleted on purpose stays so.

Of each position is told whether its event is kept (its checksum proves it), unproven
(it looks intact, but the checksum before it is lost) or lost; aside are events of a history that was given up, such as
a tail whose loss was accepted. Events that are unproven or aside are written with --unproven only, marked so.

A run that is killed leaves a folder .tmp-salvage-* beside OUT, which may hold values; the next run to the same OUT removes it.

Exit 1 if an event is not kept, 2 if nothing could be judged. On a failing disk copy STORE with ddrescue first.

Example:
  eventstore salvage data rescued
  eventstore salvage data rescued-notes notes --json
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from eventstore.salvage import DomainSalvage, Positions, spans_text
from eventstore.salvage import salvage as salvage_store
from eventstore.tools.terminal import Paint, Progress, count_text, escape, size_text, table

_NAMED = 20
"""Events that a person is shown one by one; JSON has more."""


class SalvageAnswer(msgspec.Struct, frozen=True):
    """What was salvaged, domain by domain; `whole` if every event was kept."""

    store: str
    out: str | None
    store_id: str | None
    same: bool
    whole: bool
    domains: list[DomainSalvage]
    problems: list[str]

    @property
    def exit_code(self) -> int:
        """1 if an event is not kept."""
        return int(not self.whole)


def salvage(
    location: str,
    out: str,
    domain: str | None = None,
    *,
    unproven: bool = False,
    archives: Sequence[Path] = (),
    progress: Progress | None = None,
) -> SalvageAnswer:
    """Salvage a store, or one domain of it, into a new one. Raises ConfigError for a place that cannot be, NotAStoreError for none."""
    found = salvage_store(location, out, domain, unproven=unproven, archives=archives, progress=progress)
    return SalvageAnswer(found.store, found.out, found.store_id, found.same, found.is_whole, found.domains, found.problems)


def render(report: SalvageAnswer, paint: Paint) -> Iterator[str]:
    """A line a domain, which positions are not kept and why, and where the rest is now."""
    rows = [["domain", "last", "kept", "unproven", "lost", "aside", "written"]]
    rows += [[escape(each.domain), *map(_number, _counts(each))] for each in report.domains]
    heading, *lines = table(rows, right=frozenset(range(1, 7)))
    yield paint(heading, "dim")
    for each, line in zip(report.domains, lines, strict=True):
        yield line if each.is_whole else paint(line, "bad")
    for each in report.domains:
        yield from _details(each, paint)
    for problem in report.problems:
        yield f"{paint('store', 'bad')}  {escape(problem)}"
    yield from _verdict(report, paint)


def _counts(each: DomainSalvage) -> tuple[int, ...]:
    return each.last, each.kept.count, each.unproven.count, each.lost.count, each.aside.count, each.written


def _number(count: int) -> str:
    return f"{count:,}"


def _details(each: DomainSalvage, paint: Paint) -> Iterator[str]:
    name = escape(each.domain)
    if each.birth == "lost":
        yield f"{paint(name, 'bad')}  lost: the birth row"
    parts: tuple[tuple[str, Positions], ...] = (("lost", each.lost), ("unproven", each.unproven), ("aside", each.aside))
    for what, positions in parts:
        if positions.count:
            yield f"{paint(name, 'bad')}  {what}: {spans_text(positions)}"
    if each.archived.count:
        folders = ", ".join(sorted({str(file.to) for file in each.elsewhere if file.to is not None}))
        yield f"{paint(name, 'warn')}  archived to {escape(folders)}, and not in the new store: {spans_text(each.archived)}"
    if each.deleted.count:
        yield f"{paint(name, 'warn')}  deleted on purpose: {spans_text(each.deleted)}"
    for event in each.named[:_NAMED]:
        place = paint(f"{escape(event.file)}, byte {event.offset}", "dim")
        yield f"{paint(f'{name}@{event.position}', 'warn')}  {event.fate}  {escape(event.key)}  {place}"
    if len(each.named) > _NAMED:
        yield f"{paint(name, 'warn')}  more such events; --json names up to 1,000 of each kind"
    if each.redacted:
        yield f"{name}  {count_text(each.redacted, 'event')} without a value: it was erased, and stays so"
    for problem in each.problems:
        yield f"{paint(name, 'warn')}  {escape(problem)}"
    for file in each.files:
        yield paint(f"{name}  {size_text(file.bytes)} of {escape(file.file)}: {count_text(file.rows, 'row')}, stale copies included", "dim")


def _verdict(report: SalvageAnswer, paint: Paint) -> Iterator[str]:
    if report.out is None:
        yield paint("nothing could be kept; no store was made", "bad")
        return
    what = (
        "the same store: ids, positions and checksums" if report.same else f"a new store, {report.store_id}; meta.origin names each event"
    )
    kept = count_text(sum(each.kept.count for each in report.domains), "event")
    archived = sum(each.archived.count for each in report.domains)
    kept += f", {archived:,} archived" if archived else ""
    yield paint(f"{'all kept' if report.whole else 'not all kept'}: {kept}", "ok" if report.whole else "bad")
    yield f"{paint(escape(report.out), 'name')}  {what}"
