"""How much of the past a domain keeps at hand: by age or by count, planned, then applied by sealing and archiving, or deleting.

What every key is survives always, as the files after carry it: only the past goes, whole files of it, oldest first. Nothing goes
without an `archive` event that says so; one that names no folder says that the file was deleted.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from eventstore.archive import (
    ArchiveReport,
    FileReport,
    KeptFile,
    Progress,
    archive_files,
    drop,
    file_log,
    finish_archiving,
    moving,
    report_of,
)
from eventstore.archived import Archived, archived_file, latest
from eventstore.clock import now_us
from eventstore.erasure import named_by_redactions, roll_forward
from eventstore.errors import ConfigError, CorruptionError, EngineError
from eventstore.files import os_errors, remove_files, stat_or_none
from eventstore.group import GroupCommit
from eventstore.log import FileExtent, FileLog
from eventstore.roots import outline_of
from eventstore.sealedfile import prove

_log = logging.getLogger("eventstore")


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


class RetentionPlan(msgspec.Struct, frozen=True):
    """What a Retention would do to one domain now."""

    domain: str
    seal: bool
    """Whether the live file would be sealed first, as it begins with what need not be kept."""
    files: list[FileReport]
    """Those that would go, oldest first; of one that is archived already only a deletion takes anything."""
    floor: int
    """Events up to this position would not be in the store."""


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


def plan_retention(group: GroupCommit, policy: Retention, store_id: str) -> RetentionPlan:
    """What the policy would do to a log now; changes nothing. Raises ConfigError, CorruptionError."""
    log, at_us = file_log(group), now_us()
    live = log.file()
    seal = _Rule(policy, live.last, at_us).seals(live)
    head = live.last + seal
    rule, files = _Rule(policy, head, at_us), list[FileReport]()
    for file in _oldest_first(group, log, store_id):
        if not rule.lets_go(file.last, file.ended_us):
            break
        files.append(file)
    else:
        if seal and rule.lets_go(head, live.ended_us):
            files.append(report_of(msgspec.structs.replace(live, last=head), "store"))
    return RetentionPlan(group.live.log.domain, seal, files, max([group.live.log.floor(), *(file.last for file in files)]))


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


def apply_retention(
    group: GroupCommit, policy: Retention, store_id: str, *, to: Path | None, progress: Progress | None = None
) -> ArchiveReport:
    """Seal where that is needed, then move what need not be kept to the folder `to`; if that is None delete it, archived files included.

    Raises CorruptionError, AccessError, EngineError: what was done until then stays done.
    """
    sealed = plan_retention(group, policy, store_id).seal and group.seal().sealed
    if to is not None:
        wanted = {file.first for file in plan_retention(group, policy, store_id).files}
        report = archive_files(group, lambda log: [log.file(first) for first in log.sealed() if first in wanted], to, store_id, progress)
    else:
        report = _delete(group, policy, store_id, progress)
    return msgspec.structs.replace(report, sealed=sealed)


def _delete(group: GroupCommit, policy: Retention, store_id: str, progress: Progress | None) -> ArchiveReport:
    domain, gone = group.live.log.domain, list[FileReport]()
    with moving(group) as log:
        kept = finish_archiving(group, store_id)
        kept += _finish_deleting(group, log, store_id)
        told = {each.first for each in kept}
        files = [file for file in plan_retention(group, policy, store_id).files if file.first not in told]
        for number, file in enumerate(files):
            if progress is not None:
                progress(domain, number, len(files))
            copy = None if file.archive is None else archived_file(Path(file.archive), store_id, domain, file.first)
            if copy is not None and stat_or_none(copy) is None:
                kept.append(KeptFile(file.first, file.last, f"there is no {copy}: nothing was deleted, and nothing recorded"))
                continue
            left: list[KeptFile] = []
            group.live.keep_ids(file.last)

            def then(file: FileReport = file, copy: Path | None = copy, left: list[KeptFile] = left) -> None:
                left.extend(_delete_file(log, copy, file.first, file.last))

            said = Archived(file.first, file.last, None, None, _outline(group, log, file, store_id))
            group.record("archive", lambda _, said=said: said, then)  # type: ignore[misc]
            kept += left
            gone.append(msgspec.structs.replace(file, status="deleted", archive=None))
        if progress is not None:
            progress(domain, len(files), len(files))
    return ArchiveReport(domain, gone, kept, group.live.log.floor())


def _outline(group: GroupCommit, log: FileLog, file: FileReport, store_id: str) -> list[str] | None:
    """What stays of the tree when a file goes for good; None if it is damaged: what its checksums say is proven by nothing then."""
    live = group.live
    if file.archive is not None:
        return latest(log.archived(live.fresh().system))[file.first].tree
    try:
        roll_forward(group)  # a value that a killed redaction left would have the file refused
        (seal,) = live.log.linked([file.last])
        redacted = named_by_redactions(live.log, live.states.system)
        prove(log.file(file.first).path, live.log.domain, store_id, seal.event, redacted, busy_timeout_ms=live.log.busy_timeout_ms)
        return outline_of(live.log, file.first, file.last)
    except CorruptionError as error:
        _log.warning("a damaged file is deleted, so that there will be no roots and bundles without it: %s", error)
        return None


def _finish_deleting(group: GroupCommit, log: FileLog, store_id: str) -> list[KeptFile]:
    """Delete the archived files whose deletion was recorded by a process that died over it."""
    domain, said = group.live.log.domain, log.archived(group.live.fresh().system)
    last_word = latest(said)
    kept: list[KeptFile] = []
    for each in said:
        copy = each.path(store_id, domain)
        if copy is not None and last_word[each.first].to is None and stat_or_none(copy) is not None:
            with group.live.log.writing():
                kept += _delete_file(log, copy, each.first, each.last)
    return kept


def _delete_file(log: FileLog, copy: Path | None, first: int, last: int) -> list[KeptFile]:
    """Delete a file, now that an event says so, from the archive and from the log's folder; if that fails it is told, and tried again."""
    # The log's own folder last: then the log looks anew which files there are, those in archives included.
    return [*(_remove(copy, first, last) if copy is not None else ()), *drop(log, first, last)]


def _remove(copy: Path, first: int, last: int) -> list[KeptFile]:
    try:
        with os_errors(f"deleting {copy}"):
            remove_files([copy, *(copy.with_name(f"{copy.name}{side}") for side in ("-wal", "-shm"))])
    except EngineError as error:
        return [KeptFile(first, last, f"recorded as deleted, and still there: {error}")]
    return []
