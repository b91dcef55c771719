"""How much of the past a domain keeps at hand: by age or by count, planned, then applied by sealing and archiving, or deleting.

What every key is survives always, as the files after carry it: only the past goes, whole files of it, oldest first. Nothing goes
without an `archive` event that says so; one that names no folder says that the file was deleted.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal

import msgspec

from eventstore import claims
from eventstore.archive import (
    ArchiveReport,
    FileReport,
    KeptFile,
    Progress,
    archive_files,
    begun_in,
    drop,
    end_moves,
    file_log,
    finish_archiving,
    moving,
    outline,
    prove_file,
    report_of,
    staying,
    to_finish,
)
from eventstore.archived import Archived, archived_file, latest
from eventstore.clock import now_us
from eventstore.database import first_of
from eventstore.erasure import awaits_its_record, named_by_redactions, roll_forward
from eventstore.errors import ConfigError, EngineError, EventStoreError
from eventstore.files import os_errors, remove_files, sha256_of, stat_or_none
from eventstore.group import GroupCommit
from eventstore.log import FileExtent, FileLog
from eventstore.model import Head
from eventstore.sealedfile import prove_events, reading


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept: events recorded in the last `keep_s` seconds, or the last `keep_events`; more, as whole files go.

    One of the two. What the log says of itself counts as events, too, and is of no age.
    """

    keep_s: int | None = None
    keep_events: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.keep_s, self.keep_events) if value is not None]
        if len(given) != 1:
            raise ConfigError("a Retention is by keep_s or by keep_events, one of the two")
        if type(given[0]) is not int or not 0 <= given[0] < 2**43:
            raise ConfigError(f"what a Retention keeps is a whole number of seconds or events, not {given[0]!r}")


class Way(msgspec.Struct, frozen=True):
    """How files go: moved to the folder `to`, or deleted for good; neither where nobody said."""

    to: Path | None = None
    delete: bool = False
    take_over: bool = False
    """Whether also from archives that other stores put files in, or nobody knows who."""


class PlannedFile(FileReport, frozen=True):
    """A file that need not be kept, where it is now, and what is done with it."""

    does: Literal["archive", "delete"] | None
    """None if the plan was not told how files go: of one that is archived only a deletion takes anything."""


class RetentionPlan(msgspec.Struct, frozen=True):
    """What a Retention would do to one domain now: the steps that are taken when it is applied."""

    domain: str
    seal: bool
    """Whether the live file would be sealed first, as it begins with what need not be kept."""
    files: list[PlannedFile]
    """Those that would go, oldest first."""
    kept: list[KeptFile]
    """Those that should go, and would not, and why."""
    floor: int
    """Events up to this position would not be in the store."""
    removed: list[str]
    """The files that an earlier event said would go, and that are still there: they would be removed."""


class _Rule:
    """A policy at a moment, for one domain, whose head is to be at `head`."""

    def __init__(self, policy: Retention, head: int, at_us: int) -> None:
        self._policy, self._head = policy, head
        self._before_us = None if policy.keep_s is None else at_us - policy.keep_s * 1_000_000

    def lets_go(self, last: int, ended_us: int | None) -> bool:
        """Whether nothing need be kept of a file that ends in position `last`, with events up to `ended_us`."""
        if self._before_us is not None:
            return ended_us is None or ended_us < self._before_us
        return self._head - last >= (self._policy.keep_events or 0)

    def seals(self, live: FileExtent) -> bool:
        """Whether the live file holds events of users that need not be kept: sealed now, it can go one day."""
        if live.began_us is None:
            return False
        if self._before_us is not None:
            return live.began_us < self._before_us
        return self._head - max(live.first, 1) + 1 > (self._policy.keep_events or 0)


def plan_retention(group: GroupCommit, policy: Retention, store_id: str, way: Way) -> RetentionPlan:
    """What the policy would do to a log now; changes nothing. Raises ConfigError, CorruptionError."""
    log = file_log(group)
    seal, files = _dispensable(group, log, policy, store_id)
    removed, kept = to_finish(group, log, store_id)
    does: Literal["archive", "delete"] | None = None
    if way.to is not None:
        stays, does = staying(group, log, way.to, store_id), "archive"
        files = [file for file in files if file.archive is None and file.first not in stays]
    elif way.delete:
        places, does = _places(log), "delete"
        refused = {file.first: _refused(log, file, _standing(log, file.last, places.get(file.first, {}), way)) for file in files}
        kept = [each for each in kept if each.first not in refused] + [each for file in files for each in refused[file.first]]
        files = [file for file in files if not refused[file.first]]
        for said in _recorded_deletions(group, log):
            standing = _standing(log, said.last, places.get(said.first, {}), way)
            removed += [str(path) for path, why in standing.items() if why is None]
            kept += [_still_there(said.first, said.last, why) for why in standing.values() if why is not None]
    kept = [each for each in kept if each.first not in {file.first for file in files}]
    planned = [PlannedFile(**msgspec.structs.asdict(file), does=does) for file in files]
    return RetentionPlan(log.domain, seal, planned, kept, max([log.floor(), *(file.last for file in files)]), removed)


def _dispensable(group: GroupCommit, log: FileLog, policy: Retention, store_id: str) -> tuple[bool, list[FileReport]]:
    """Whether the live file is to be sealed, and the files that need not be kept then, oldest first."""
    at_us, live = now_us(), log.file()
    seal = _Rule(policy, live.last, at_us).seals(live)
    head = live.last + seal
    rule, files = _Rule(policy, head, at_us), list[FileReport]()
    for file in _oldest_first(group, log, store_id):
        if not rule.lets_go(file.last, file.ended_us):
            return seal, files
        files.append(file)
    if seal and rule.lets_go(head, live.ended_us):
        files.append(report_of(msgspec.structs.replace(live, last=head), "store"))
    return seal, files


def _oldest_first(group: GroupCommit, log: FileLog, store_id: str) -> list[FileReport]:
    """Every sealed file that was not deleted, wherever it is."""
    domain = group.live.log.domain
    archived = latest(log.archived(group.live.fresh().system))
    files = {first: report_of(log.file(first), "store") for first in log.sealed()}
    for first, said in archived.items():
        path = said.path(store_id, domain)
        if first not in files and path is not None:
            (seal,) = group.live.log.linked([said.last])
            with os_errors(f"looking for {path}"):
                status = stat_or_none(path)
            files[first] = FileReport(
                first, said.last, "archived", said.to, status and status.st_size, None, seal.event.recorded_us
            )  # fmt: skip
    return [files[first] for first in sorted(files)]


def apply_retention(group: GroupCommit, policy: Retention, store_id: str, way: Way, progress: Progress | None = None) -> ArchiveReport:
    """Take the steps of the plan: seal where that is needed, then move what need not be kept, or delete it, archived files included.

    Each file is proven before it goes. Raises CorruptionError, AccessError, EngineError: what was done until then stays done.
    """
    sealed = plan_retention(group, policy, store_id, way).seal and group.seal().sealed
    if way.to is not None:

        def choose(log: FileLog) -> list[FileExtent]:
            return [log.file(file.first) for file in plan_retention(group, policy, store_id, way).files]

        report = archive_files(group, choose, way.to, store_id, progress)
    else:
        report = _delete(group, policy, store_id, way, progress)
    return msgspec.structs.replace(report, sealed=sealed)


def _delete(group: GroupCommit, policy: Retention, store_id: str, way: Way, progress: Progress | None) -> ArchiveReport:
    domain, gone = group.live.log.domain, list[FileReport]()
    with moving(group) as log:
        removed, unfinished = finish_archiving(group, store_id)
        plan = plan_retention(group, policy, store_id, way)
        places = _places(log)
        kept = [each for each in unfinished if each.first not in {file.first for file in plan.files}] + plan.kept
        for said in _recorded_deletions(group, log):
            done, left = _finish_deleting(log, said, places.get(said.first, {}), way)
            removed, kept = removed + done, kept + left
        for number, file in enumerate(plan.files):
            if progress is not None:
                progress(domain, number, len(plan.files))
            is_gone, left = _delete_one(group, log, file, places.get(file.first, {}), way)
            kept += left
            if is_gone:
                gone.append(FileReport(file.first, file.last, "deleted", None, file.bytes, file.began_us, file.ended_us))
        if progress is not None:
            progress(domain, len(plan.files), len(plan.files))
        kept += end_moves(group, log)
    # What the plan says is kept is met once more where it is tried.
    return ArchiveReport(domain, gone, list(dict.fromkeys(kept)), group.live.log.floor(), removed=removed)


def _delete_one(group: GroupCommit, log: FileLog, file: FileReport, places: _Places, way: Way) -> tuple[bool, list[KeptFile]]:
    """Delete a file wherever it is read, or nowhere; whether it is on record as deleted by then, and what is left, and why."""
    with contextlib.ExitStack() as rights:
        standing = _standing(log, file.last, places, way, rights)
        if refused := _refused(log, file, standing):
            return False, refused
        said = Archived(file.first, file.last, None, None, _whole_outline(group, log, file))
        group.live.keep_ids(file.last)
        left = list[KeptFile]()
        group.record("archive", lambda _: said, lambda: left.extend(_delete_file(log, standing, file.first, file.last)))
    return True, left


def _refused(log: FileLog, file: FileReport, standing: dict[Path, str | None]) -> list[KeptFile]:
    """Why a file is not deleted: where it is recorded, or read, it is not, or must stay."""
    recorded = None if file.archive is None else _real(archived_file(Path(file.archive), log.store_id, log.domain, file.first))
    counted = {recorded, *log.attached()}
    found = [why for path, why in standing.items() if why and path in counted]
    if recorded is not None and recorded not in standing:
        found = [f"there is no {recorded}"]
    return [KeptFile(file.first, file.last, f"{why}: nothing is deleted, and nothing recorded") for why in found]


class _Place(msgspec.Struct, frozen=True):
    """Somewhere outside the log's own folder where a file may stand."""

    is_recorded: bool = False
    """Whether an event ever said so."""
    sha256: str | None = None
    """Of the file, if the last event about it says that it stands here."""


_Places = dict[Path, _Place]


def _places(log: FileLog) -> dict[int, _Places]:
    """Where each file may stand, as far as anybody knows: in an archive that is attached or was recorded, or where a copy was begun."""
    found: dict[int, _Places] = {}
    for path in log.attached():
        found.setdefault(first_of(path), {})[path] = _Place()
    for move in begun_in(log):
        found.setdefault(move.first, {})[_real(archived_file(Path(move.to), log.store_id, log.domain, move.first))] = _Place()
    recorded = log.archived()
    last = latest(recorded)
    for said in recorded:
        if (copy := said.path(log.store_id, log.domain)) is not None:
            found.setdefault(said.first, {})[_real(copy)] = _Place(True, said.sha256 if said == last[said.first] else None)
    return found


def _standing(log: FileLog, last: int, places: _Places, way: Way, rights: contextlib.ExitStack | None = None) -> dict[Path, str | None]:
    """In which of its `places` the file that ends in `last` stands, and why it must not be deleted there; None if it may.

    Until `rights` end nobody else puts or removes files there, and what may be deleted was proven. Without them it is only looked at.
    """
    standing: dict[Path, str | None] = {}
    for path, place in sorted(places.items()):
        with os_errors(f"looking for {path}"):
            there = stat_or_none(path) is not None
        if there:
            foreign = None if place.is_recorded else _other_than(log, path, last)
            refusal = foreign or _refusal(log, path.parent, rights, take_over=way.take_over)
            standing[path] = refusal or (None if rights is None else _not_whole(log, path, last, place.sha256))
    return standing


def _real(copy: Path) -> Path:
    """The path of a file in an archive that it has by whatever way: attached ones have no other."""
    return Path(os.path.realpath(copy.parent)) / copy.name


def _other_than(log: FileLog, path: Path, last: int) -> str | None:
    """Why a file under the right name is not the log's file that ends in `last`, as far as anybody can see."""
    (seal,) = log.linked([last])
    try:
        with reading(path, log.domain, busy_timeout_ms=log.busy_timeout_ms) as file:
            end = file.end().head
    except EventStoreError as error:
        return f"whether {path} is a copy of this log's file nobody can tell: {error}"
    return None if end == Head(seal.event.position, seal.event.checksum) else f"{path} is no copy of this log's file, and is left as it is"


def _not_whole(log: FileLog, path: Path, last: int, sha256: str | None) -> str | None:
    """Why a copy is not what was put there; None if it is: by its hash if that is on record, else by the events in it."""
    try:
        if sha256 is None:
            (seal,) = log.linked([last])
            redacted = named_by_redactions(log, log.system())
            prove_events(path, log.domain, log.store_id, seal.event, redacted, busy_timeout_ms=log.busy_timeout_ms)
            return None
        with os_errors(f"reading {path}"):
            found = sha256_of(path)
        if found == sha256 or awaits_its_record(log, path):
            return None
    except EventStoreError as error:
        return f"{path} is not whole: {error}"
    return f"{path} has SHA-256 {found}, not {sha256}"


def _refusal(log: FileLog, folder: Path, rights: contextlib.ExitStack | None, *, take_over: bool) -> str | None:
    """Why nothing may be deleted from a folder of an archive by this store; None if something may, and the right to do so is held."""
    store = log.folder.parents[1]
    try:
        if rights is not None:
            rights.enter_context(claims.held(folder, timeout_ms=log.busy_timeout_ms))
        with os_errors(f"looking who put files into {folder}"):
            theirs = claims.not_to_delete(folder, store)
            if theirs is not None and take_over and rights is not None:
                claims.take_over(folder, store)
    except EngineError as error:
        return str(error)
    if theirs is None or take_over:
        return None
    return claims.advice(theirs, "retain")


def _whole_outline(group: GroupCommit, log: FileLog, file: FileReport) -> list[str] | None:
    """What stays of the tree when a file goes for good. Raises CorruptionError for one that is not whole, as archiving it does.

    With it would go what shows that it was altered, and verify would find nothing.
    """
    if file.archive is not None:
        return latest(log.archived(group.live.fresh().system))[file.first].tree  # its copy has the recorded hash
    roll_forward(group)  # a value that a killed redaction left would have the file refused
    prove_file(group, log, file, log.file(file.first).path)
    return outline(group, log, file)


def _recorded_deletions(group: GroupCommit, log: FileLog) -> list[Archived]:
    """The last words that say of a file that it was deleted: whoever said so may have died over it, or an archive was not at hand."""
    return [said for said in latest(log.archived(group.live.fresh().system)).values() if said.to is None]


def _finish_deleting(log: FileLog, said: Archived, places: _Places, way: Way) -> tuple[list[str], list[KeptFile]]:
    """Delete what is left of a file whose deletion was recorded; gives that, and what stays all the same."""
    with contextlib.ExitStack() as rights:
        standing = _standing(log, said.last, places, way, rights)
        if not standing:
            return [], []
        with log.writing():
            left = _delete_file(log, standing, said.first, said.last)
        return [str(path) for path, why in standing.items() if why is None and stat_or_none(path) is None], left


def _still_there(first: int, last: int, why: str) -> KeptFile:
    return KeptFile(first, last, f"recorded as deleted, and still there: {why}")


def _delete_file(log: FileLog, standing: dict[Path, str | None], first: int, last: int) -> list[KeptFile]:
    """Delete a file, now that an event says so, from archives and from the log's folder; what fails is told, and tried again."""
    left = [_still_there(first, last, why) for path in standing if (why := standing[path] or _remove(path))]
    # The log's own folder last: then the log looks anew which files there are, those in archives included.
    return left + drop(log, first, last)


def _remove(copy: Path) -> str | None:
    """Remove a copy from an archive; why not, if that fails."""
    try:
        with os_errors(f"deleting {copy}"):
            remove_files([copy, *(copy.with_name(f"{copy.name}{side}") for side in ("-wal", "-shm"))])
    except EngineError as error:
        return str(error)
    return None
