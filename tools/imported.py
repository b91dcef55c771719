"""What an import did, filled in as it goes on."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from eventstore.model import HeldCopy
from eventstore.tools.terminal import Paint, count_text, escape, table


class Problem(msgspec.Struct, frozen=True):
    """Something that was left out, and why."""

    where: str
    message: str


class Imported(msgspec.Struct):
    """What came of the events or files of one domain."""

    adopted: int = 0
    """Events taken over as they are, with their positions and checksums."""
    written: int = 0
    """Events appended anew; of the candles of contracts, which an event holds many of, candles."""
    unchanged: int = 0
    """Those that were there already."""
    floor: int = 0
    """Up to this position what was adopted is in archives or was deleted, as the log itself says, and not in the store."""
    erased: int = 0
    """Those whose value was redacted in the source: there is nothing to write."""
    standing: list[str] = []
    """Keys of events that were left out: the store has another value there, and by its rule the first one stands."""
    erased_here: int = 0
    """Values of the store that were erased now, as redactions in the source mean them."""
    held: list[HeldCopy] = []
    """What in the store may still hold a copy of a value that was redacted in the source, and what to do about it."""
    source_floor: int = 0
    """Of the events up to this position the source had only the latest of each key: the others were in no file at hand there."""
    open_ended: bool = False
    """The export does not say where its events end, as those of drafts did not: whether it was cut off cannot be told."""


class ImportReport(msgspec.Struct):
    """What came of a whole source."""

    source: str
    store: str
    store_id: str = ""
    domains: dict[str, Imported] = {}
    temporary_files: int = 0
    """Halves of atomic writes, named .tmp-*."""
    other_files: int = 0
    """Files that are not named *.json."""
    problems: list[Problem] = []

    @property
    def exit_code(self) -> int:
        """1 if anything was broken or left out, or may still hold what was redacted in the source."""
        return int(bool(self.problems) or any(found.held or found.standing for found in self.domains.values()))

    def of(self, domain: str) -> Imported:
        """The counts of a domain."""
        return self.domains.setdefault(domain, Imported())

    def problem(self, where: str, error: Exception | str) -> None:
        """Remember what was left out."""
        self.problems.append(Problem(where, str(error)))


def render(report: ImportReport, paint: Paint) -> Iterator[str]:
    """What was left out, a line a domain, and the sum."""
    for problem in report.problems:
        yield f"{paint('left out', 'bad')}  {escape(problem.where)}: {escape(problem.message)}"
    for name, key in ((name, key) for name, found in sorted(report.domains.items()) for key in found.standing):
        yield f"{paint('left out', 'bad')}  {escape(name)} {escape(key)}: the store has another value, and there the first one stands"
    if report.temporary_files:
        yield paint(f"passed over {count_text(report.temporary_files, 'temporary file')} (.tmp-*)", "dim")
    if report.other_files:
        yield paint(f"passed over {count_text(report.other_files, 'file')} not named *.json", "dim")
    yield from table([escape(name), _counts(found)] for name, found in sorted(report.domains.items()))
    for copy in (copy for found in report.domains.values() for copy in found.held):
        yield f"{paint('may still hold a copy of what was redacted in the source', 'bad')}: {escape(copy.path)}"
        yield f"    {copy.advice}; then import again"
    total = sum(found.adopted + found.written for found in report.domains.values())
    verdict = f"{count_text(total, 'event')} imported into {escape(report.store)}"
    if report.problems:
        yield paint(f"{verdict}; {count_text(len(report.problems), 'problem')}, named above", "warn")
    else:
        yield paint(verdict, "ok")


def _counts(found: Imported) -> str:
    counts = (
        ("adopted", found.adopted),
        ("written", found.written),
        ("there already", found.unchanged),
        ("redacted", found.erased),
        ("erased here, as the source did", found.erased_here),
    )
    told = [f"{count:,} {what}" for what, count in counts if count]
    told += [f"{found.erased_here:,} erased, as it was in the source"] if found.erased_here else []
    told += [f"up to position {found.floor:,} left where the log says: archived, or deleted"] if found.floor else []
    told += [f"up to position {found.source_floor:,} only the latest of each key was there"] if found.source_floor else []
    told += ["where it ends is not said, so that nobody knows whether it was cut off"] if found.open_ended else []
    return ", ".join(told) or "nothing"
