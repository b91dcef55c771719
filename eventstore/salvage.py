"""Salvage: every event whose own bytes are intact, out of whatever is left of a store, into a new one. The originals are only read.

If the chain of every domain is whole from its birth to the last position anybody knows, the new store is the old one: its id, all
positions and checksums. Otherwise it has an id of its own, and each event says in meta.origin where it came from.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import msgspec

from eventstore import evidence, manifest
from eventstore.archived import Archived, latest
from eventstore.clock import Clock
from eventstore.codec import Birth, read_birth
from eventstore.copies import require_new
from eventstore.database import engine_error, sqlite3
from eventstore.errors import ConfigError, CorruptionError, NewerFormatError, NotAStoreError, NotFoundError, StoreFormatError
from eventstore.evidence import Evidence
from eventstore.files import os_errors, sync_folder, working_folder
from eventstore.local import LocalEngine
from eventstore.log import FileLog
from eventstore.manifest import Manifest
from eventstore.model import Domain, Event, WriteRule
from eventstore.reseal import Resealing
from eventstore.store import Store
from eventstore.survivors import Progress, Survivor, Survivors

LISTED = 1_000
"""Events that a report names one by one, of each kind and domain; the spans and counts know all of them."""


Doubt = Literal["unproven", "aside", "damaged"]
_NOT_KEPT: tuple[Doubt, ...] = ("unproven", "aside", "damaged")
_SHOWN = 20


class Span(msgspec.Struct, frozen=True):
    """Positions, both ends included."""

    first: int
    last: int


class Positions(msgspec.Struct, frozen=True):
    """How many, and which."""

    count: int = 0
    spans: list[Span] = []


class Named(msgspec.Struct, frozen=True):
    """One event that is not simply kept: what is stored there, and where it was found."""

    position: int
    fate: Doubt
    key: str
    checksum: str
    file: str
    offset: int


class File(msgspec.Struct, frozen=True):
    """A database file with its WAL: how much was looked through, how many rows were found, stale copies included."""

    file: str
    bytes: int
    rows: int


class DomainSalvage(msgspec.Struct):
    """What survived of one domain; what the words mean is said in eventstore/survivors.py. The birth row is not counted."""

    domain: str
    store_id: str | None = None
    """Of the store it belonged to, as its birth row or the manifest says."""
    last: int = 0
    """The last position that is known to have been written."""
    birth: Literal["kept", "lost"] = "lost"
    kept: Positions = Positions()
    unproven: Positions = Positions()
    lost: Positions = Positions()
    archived: Positions = Positions()
    """In an archive, as the log says (`elsewhere`), and not in the new store; the same store can read them there."""
    deleted: Positions = Positions()
    """Deleted on purpose, as the log says. What was put back of it was not looked at."""
    elsewhere: list[Archived] = []
    """What the log says of the files that these positions were in."""
    aside: Positions = Positions()
    """Proven, but of a history that the log did not go on from. These positions are also those of other events."""
    named: list[Named] = []
    ends_as_known: bool = True
    """Whether the last events that witness and manifest know are among those kept; else another history took their place."""
    redacted: int = 0
    """Events without their value, because it was erased; counted among the others, too."""
    written: int = 0
    """Events in the new store, with those that it says of itself."""
    left_out: list[int] = []
    """Positions of kept events that say nothing true about another log, and were not written."""
    problems: list[str] = []
    files: list[File] = []

    @property
    def is_whole(self) -> bool:
        """Whether every event is kept, or where the log says."""
        return self.birth == "kept" and self.ends_as_known and not (self.unproven.count or self.lost.count or self.aside.count)


class SalvageReport(msgspec.Struct):
    """What was salvaged of a store."""

    store: str
    out: str | None
    """The new store; None if there was nothing to write."""
    store_id: str | None
    """The new store's."""
    same: bool
    """Whether the new store is the old one: the same id, positions and checksums."""
    domains: list[DomainSalvage]
    problems: list[str]

    @property
    def is_whole(self) -> bool:
        """Whether every event is kept, or where the log of the new store says: another store knows of no archive."""
        return all(domain.is_whole and (self.same or not domain.archived.count) for domain in self.domains)


class _Rescued(msgspec.Struct):
    report: DomainSalvage
    survivors: Survivors
    birth: Birth | None


def salvage(
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    domain: str | None = None,
    *,
    unproven: bool = False,
    archives: Sequence[str | os.PathLike[str]] = (),
    busy_timeout_ms: int = 10_000,
    progress: Progress | None = None,
) -> SalvageReport:
    """Carve what is intact out of the files of `store`, its quarantine and `archives`, into a new store at `out`: all domains, or one.

    `out` must be missing or empty; it appears whole, or not at all. `unproven` writes those too that are not proven or belong to an
    abandoned history, marked in meta.origin. `busy_timeout_ms` is how long a living writer may keep its lock. Takes as much
    space beside `out` as the files have. Raises NotAStoreError, NewerFormatError, NotFoundError, ConfigError, EngineError.
    """
    source, target = Path(os.path.realpath(store)), Path(os.path.realpath(out))
    with os_errors(f"salvaging {store} into {out}"):
        _require_places(source, target)
        found, problems = _manifest(source)
        names = _names(source, domain, found)
        with working_folder(target, "salvage") as scratch, _index_errors(domain, scratch), contextlib.ExitStack() as stack:
            rescued = []
            for number, name in enumerate(names):
                place = scratch / str(number)
                place.mkdir()
                left = evidence.gather(
                    source, name, place, known=found, archives=[Path(os.path.realpath(each)) for each in archives],
                    busy_timeout_ms=busy_timeout_ms,
                )  # fmt: skip
                each = _rescue(left, place, found, progress)
                stack.callback(each.survivors.close)
                rescued.append(each)
            report = SalvageReport(str(store), None, None, False, [each.report for each in rescued], problems)
            _write(report, rescued, scratch, target, found, unproven, progress)
            if report.store_id is not None:
                (scratch / "store").rename(target)
                sync_folder(target.parent)
                report.out = str(out)
        return report


@contextlib.contextmanager
def _index_errors(domain: str | None, scratch: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:  # the index in `scratch`: no store is open here
        raise engine_error(error, domain=domain or "(all)", path=scratch) from error


def _require_places(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise NotAStoreError(str(source), "no folder; a store is a folder, and salvage reads what is left of one")
    if target == source or target.is_relative_to(source):
        raise ConfigError(f"{target} is inside {source}, which salvage must not touch; name a folder elsewhere, best on another disk")
    require_new(target)


def _manifest(store: Path) -> tuple[Manifest | None, list[str]]:
    try:
        return manifest.load(store), []
    except NewerFormatError:
        raise
    except (StoreFormatError, CorruptionError) as error:
        return None, [str(error)]


def _names(store: Path, domain: str | None, found: Manifest | None) -> list[str]:
    names = evidence.domains(store, found.heads if found is not None else ())
    if domain is not None and Domain(domain).name not in names:
        raise NotFoundError(f"nothing is left of a domain {domain!r} in {store}; there is {', '.join(names) or 'nothing at all'}")
    if not names:
        raise NotAStoreError(str(store), "neither logs nor quarantine, and no store.json that knows of any: nothing can be salvaged here")
    return names if domain is None else [domain]


def _survivors(left: Evidence, scratch: Path, progress: Progress | None) -> Survivors:
    """Carve and judge one domain. What its log says was deleted is not undone by a file that was put back."""
    survivors = Survivors(left, scratch, progress)
    deleted = {first for first, said in survivors.archived().items() if said.to is None}
    put_back = {source.name for source in left.sources if int(Path(source.name).stem) in deleted}
    if not put_back:
        return survivors
    survivors.close()
    (scratch / "index.db").unlink()
    left.sources = [source for source in left.sources if source.name not in put_back]
    left.problems.append(
        f"deleted on purpose, as the log says, and there again, so that it was not looked at: {', '.join(sorted(put_back))}"
    )
    return Survivors(left, scratch, progress)


def _rescue(left: Evidence, scratch: Path, found: Manifest | None, progress: Progress | None) -> _Rescued:
    """Carve and judge one domain."""
    name, survivors = left.domain, _survivors(left, scratch, progress)
    birth = _birth(survivors)
    said = survivors.archived().values()
    archived, absent = _split(survivors.lost(), [each for each in said if each.to is not None])
    deleted, lost = _split(absent, [each for each in said if each.to is None])
    report = DomainSalvage(
        name,
        store_id=birth.store_id if birth is not None else found.store_id if found is not None else None,
        last=survivors.last(),
        birth="kept" if birth is not None else "lost",
        kept=_positions(survivors.spans("kept")),
        unproven=_positions(survivors.spans("unproven")),
        lost=_positions(lost),
        archived=_positions(archived),
        deleted=_positions(deleted),
        elsewhere=[each for each in said if _split([*archived, *deleted], [each])[0]],
        aside=_positions(survivors.spans("aside")),
        named=[],
        ends_as_known=survivors.ends_as_known(),
        redacted=sum(1 for _ in survivors.erased("kept", "unproven")),
        left_out=[],
        problems=left.problems,
        files=[File(file, size, survivors.found[file]) for file, size in evidence.bytes_of(left.sources)],
    )
    report.named = [_named(each) for fate in _NOT_KEPT for each in islice(survivors.iterate(fate), LISTED)]
    if birth is None:
        report.problems.append("the birth row is lost: by which rule the domain may be written is not known, 'replace' is taken")
    elif birth.domain != name or (found is not None and birth.store_id != found.store_id):
        report.problems.append(f"these are the files of domain {birth.domain!r} of store {birth.store_id}")
    if not (report.ends_as_known or report.lost.count or report.unproven.count):
        report.problems.append(
            "witness or manifest know another event than the one that is here: an older copy was put back, or it was altered"
        )
    if report.archived.count:
        folders = " ".join(f"--archive {folder}" for folder in sorted({str(each.to) for each in report.elsewhere if each.to is not None}))
        report.problems.append(
            f"what is archived was not at hand, and the new store knows of no archive: with {folders} it is salvaged, too"
        )
    if report.lost.count:
        report.problems.append(
            "an event that is lost may have been a redaction, and older pages may still hold what it erased: look before you hand this on"
        )
    return _Rescued(report, survivors, birth)


def _birth(survivors: Survivors) -> Birth | None:
    for each in survivors.iterate("kept"):
        try:
            return read_birth(each.event, survivors.domain)
        except CorruptionError:
            return None
    return None


def _split(runs: Iterable[tuple[int, int]], files: Iterable[Archived]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The runs of positions inside those files, and those outside."""
    inside: list[tuple[int, int]] = []
    outside: list[tuple[int, int]] = []
    ranges = sorted((file.first, file.last) for file in files)
    for first, last in runs:
        for low, high in ((max(first, low), min(last, high)) for low, high in ranges if low <= last and high >= first):
            inside.append((low, high))
            outside += [(first, low - 1)] if low > first else []
            first = high + 1
        outside += [(first, last)] if first <= last else []
    return inside, outside


def _positions(runs: list[tuple[int, int]]) -> Positions:
    return Positions(sum(last - first + 1 for first, last in runs), [Span(first, last) for first, last in runs])


def _named(survivor: Survivor) -> Named:
    event, fate = survivor.event, survivor.fate
    assert fate != "kept"
    return Named(event.position, fate, event.key, event.checksum.hex(), survivor.file, survivor.offset)


# ---- the new store


def _write(
    report: SalvageReport,
    rescued: list[_Rescued],
    scratch: Path,
    target: Path,
    found: Manifest | None,
    unproven: bool,
    progress: Progress | None,
) -> None:
    """Make the new store in `scratch`/store: the old one if it can be, else one of its own."""
    place = scratch / "store"
    births = {each.birth.store_id for each in rescued if each.birth is not None}
    whole = all(_can_be_adopted(each, found, unproven) for each in rescued) and len(births) == 1
    if whole:
        try:
            with Store(LocalEngine(place, store_id=births.pop()), str(target)) as store:
                for each in rescued:
                    events = (survivor.event for survivor in each.survivors.iterate("kept"))
                    each.report.written = _adopt(store, each, events, progress)
                    _count_again(store, each.report)
                report.store_id, report.same = store.store_id, True
            return
        except CorruptionError as error:
            # Every link holds, but not every rule of the format: whoever wrote this was not this library.
            report.problems.append(f"the chain is whole, but the log cannot be taken over as it is: {error}")
            shutil.rmtree(place)
    present = [each for each in rescued if _has_something(each, unproven)]
    if not present:
        return
    with Store(LocalEngine(place), str(target)) as store:
        for each in present:
            _reseal(store, each, unproven, progress)
        report.store_id = store.store_id


def _has_something(each: _Rescued, unproven: bool) -> bool:
    report = each.report
    return each.birth is not None or report.kept.count > 0 or (unproven and report.unproven.count + report.aside.count > 0)


def _can_be_adopted(each: _Rescued, found: Manifest | None, unproven: bool) -> bool:
    """Whether a domain's events can stay as they are: none is missing, and they are this store's."""
    report, birth = each.report, each.birth
    absent = report.lost.count + report.archived.count + report.deleted.count
    if birth is None or birth.domain != report.domain or report.unproven.count or absent or (unproven and report.aside.count):
        return False
    if found is not None and birth.store_id != found.store_id:
        return False
    return report.ends_as_known and all(each.survivors.is_named(survivor.event.position) for survivor in each.survivors.erased("kept"))


def _adopt(store: Store, each: _Rescued, events: Iterator[Event], progress: Progress | None) -> int:
    def reached(position: int) -> None:
        if progress is not None:
            progress(f"{each.report.domain}: writing", position, each.report.last)

    return store.adopt(each.report.domain, events, progress=reached).position


def _count_again(store: Store, report: DomainSalvage) -> None:
    """An opening leaves to an archive what the log says is there, if it is: that is not in the new store."""
    domain = store.domain(report.domain)
    floor, log = domain.floor, domain.group.live.log
    if not floor:
        return
    carried = sorted(each.event.position for each in log.carried(floor) if each.event.position > 0)
    between = zip([0, *carried], [*carried, floor + 1], strict=True)
    absent = [(before + 1, after - 1) for before, after in between if after - before > 1]
    said = latest(log.archived()) if isinstance(log, FileLog) else {}
    report.elsewhere = [each for each in said.values() if _split(absent, [each])[0]]
    report.archived = _positions(absent)
    report.kept = _positions([*((position, position) for position in carried), (floor + 1, report.last)])


def _reseal(store: Store, each: _Rescued, unproven: bool, progress: Progress | None) -> None:
    rule: WriteRule = each.birth.write if each.birth is not None else "replace"
    resealing = Resealing(
        each.survivors,
        Clock(),
        store_id=store.store_id,
        old_store_id=each.report.store_id,
        rule=rule,
        unproven=unproven,
        loss=None if each.report.is_whole and not each.report.elsewhere else _loss(each.report, unproven),
    )
    each.report.written = _adopt(store, each, resealing.events(), progress)
    each.report.left_out = resealing.left_out


def _loss(report: DomainSalvage, unproven: bool) -> str:
    """What the new log says about itself, for whoever reads it later."""
    done = "written" if unproven else "left out"
    said = [f"salvaged from domain {report.domain} of store {report.store_id or 'unknown'}"]
    parts = [("lost", report.lost), ("archived, and not at hand", report.archived), ("deleted on purpose", report.deleted)]
    parts += [(f"unproven and {done}", report.unproven), (f"of an abandoned history and {done}", report.aside)]
    said += [f"{what}: {spans_text(positions)}" for what, positions in parts if positions.count]
    said += [] if report.birth == "kept" else ["the birth row is lost"]
    return "; ".join(said if report.ends_as_known else [*said, "the last event is not the one that was witnessed"])


def spans_text(positions: Positions) -> str:
    """`5, 7 to 9` for a sentence; of very many only the first."""
    spans = positions.spans
    shown = [str(span.first) if span.first == span.last else f"{span.first} to {span.last}" for span in spans[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(spans) - _SHOWN} runs more" if len(spans) > _SHOWN else "")
