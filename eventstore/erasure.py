"""Erasing values for good: what a redaction reaches, what it leaves, and how one that was not finished is.

The commit that appends the `redact` event erases the rows with it; that is the decision. What follows can be done again by
anybody at any time: the rows of other files at hand, the write-ahead log, the values in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import msgspec

from eventstore import claims
from eventstore.archived import Archived, latest, read_archived
from eventstore.commit import OwnEvent, append_own
from eventstore.errors import ConfigError, EventStoreError
from eventstore.files import os_errors, sha256_of, stat_or_none
from eventstore.group import GroupCommit
from eventstore.log import PAGE, EventLog, FileLog
from eventstore.meta import EventMeta
from eventstore.model import SYSTEM_KEY, Event, HeldCopy
from eventstore.projections.key_states import KeyStates, read_redaction
from eventstore.sealedfile import prove, prove_events, reading

_log = logging.getLogger("eventstore")

_encode = msgspec.json.Encoder().encode


class Erasure(msgspec.Struct, frozen=True):
    """What a redaction did, or would do."""

    domain: str
    position: int | None
    """Of the event that says so; None if nothing was left to erase, or nothing was to be done."""
    erased: list[int]
    """The positions whose values are gone now, from everywhere but where `held` says."""
    already: list[int]
    """Those whose values had been erased before."""
    held: list[HeldCopy]
    """What may still hold a copy, and what to do about it."""

    @property
    def complete(self) -> bool:
        """Whether no copy is left in the store's folder."""
        return not self.held


class Told(msgspec.Struct, frozen=True):
    """A redaction that stands in another log, and is to be carried out here as well."""

    position: int
    """Of its event, there."""
    meta: EventMeta
    """Who erased and why, and from which event that is known."""
    keys: list[str]
    """Those that were destroyed, if it was a shredding."""


class Shredding(msgspec.Struct, frozen=True):
    """What the destruction of a subject's keys did: the ids of the keys, and what was redacted in each domain that held values of it."""

    subject: str
    keys: list[str]
    erased: list[Erasure]

    @property
    def complete(self) -> bool:
        """Whether no copy is left in the store's folder; without its key none can be read, wherever it is."""
        return all(erasure.complete for erasure in self.erased)


class Selection:
    """Positions that are to be erased, and those that are erased already, as they are found."""

    def __init__(self, domain: str) -> None:
        self._domain = domain
        self.holding: set[int] = set()
        self.already: set[int] = set()
        self.cut_off = False
        """Whether older ones may stand in files that are not at hand."""
        self.unseen: dict[Path, str] = {}
        """Of these files that are at hand, those that cannot be read, with the reason."""
        self.met: EventStoreError | None = None
        """What was met where they are not, or cannot be read."""

    def add(self, events: Iterable[Event]) -> None:
        """Take note of events of users. Raises ConfigError for one of the log itself."""
        for event in events:
            if event.key == SYSTEM_KEY:
                raise ConfigError(
                    f"{self._domain}@{event.position}: an event of the log itself, which must stay readable; nothing was erased"
                )
            if event.data is not None:
                self.holding.add(event.position)
            elif event.digest is not None:
                self.already.add(event.position)

    def pass_by(self, log: EventLog, position: int, error: EventStoreError) -> int:
        """Take note of a sealed file that cannot be read where `position` stands; gives where it ends. Raises `error` for any other."""
        path, last = log.place(position) if isinstance(log, FileLog) else (None, None)
        if path is None or last is None:
            raise error
        self.cut_off, self.met = True, error
        self.unseen[path] = str(error)
        return last

    def __bool__(self) -> bool:
        return bool(self.holding or self.already)


def erase(
    group: GroupCommit,
    selection: Selection,
    find: Callable[[], None],
    meta: str | None,
    *,
    shredded: Sequence[str] = (),
    take_over: bool = False,
) -> Erasure:
    """Append the event that says what is erased and why, and erase it, in one commit; then see to it that it is gone.

    `find` adds to the selection what was written since it was made. Called under the lock. `shredded`: keys that were destroyed.
    `take_over`: also in archives that other stores put files in. Raises EngineError.
    """
    live = group.live
    _note_redacted(group, selection)
    if take_over:
        _take_over(live.log, selection)

    def own() -> OwnEvent | None:
        find()
        positions = sorted(selection.holding)
        said = {"positions": positions, "keys": shredded} if shredded else {"positions": positions}
        return OwnEvent("redact", _encode(said).decode(), meta, positions) if positions else None

    with group.alone() as head:
        event = append_own(live, head, group.clock, own, group.meter)
    if take_over:
        _erase_what_stands(group)  # what is on record as redacted, and was another store's until now
    live.log.forget_erased()
    _record_archives(group)
    position = None if event is None else event.position
    return Erasure(live.log.domain, position, sorted(selection.holding), sorted(selection.already), copies_left(live.log, selection))


def _note_redacted(group: GroupCommit, selection: Selection) -> None:
    """Of the values that stand in another store's archive, those whose redaction is on record need no second one."""
    log = group.live.log
    if isinstance(log, FileLog) and log.theirs(sorted(selection.holding)):
        redacted = selection.holding & set(named_by_redactions(log, group.live.fresh().system))
        selection.holding -= redacted
        selection.already |= redacted


def _take_over(log: EventLog, selection: Selection) -> None:
    """Let this store be the only one that put files where values of the selection stand, and may not be erased."""
    if not isinstance(log, FileLog):
        return
    for folder in sorted({path.parent for path, _ in log.theirs(sorted(selection.holding | selection.already))}):
        with claims.held(folder, timeout_ms=log.busy_timeout_ms), os_errors(f"taking over {folder}"):
            claims.take_over(folder, log.folder.parents[1])


def copies_left(log: EventLog, selection: Selection, *, take_over: bool = False) -> list[HeldCopy]:
    """What may still hold a copy of any of these values, and what to do about it; `take_over`: other stores' archives are no such place."""
    unseen = {str(path): why for path, why in selection.unseen.items()}
    theirs = list[tuple[Path, str]]()
    if isinstance(log, FileLog):
        positions = sorted(selection.holding | selection.already)
        unseen |= {str(path): why for path, why in log.unseen(positions)}
        theirs = [] if take_over else log.theirs(positions)
    advice = "it cannot be looked into: put a copy of it back, then redact the same again"
    copies = [HeldCopy(path, f"{advice} ({why})") for path, why in unseen.items()]
    copies += [copy for copy in log.copies() if copy.path not in unseen]
    copies += [HeldCopy(str(path), claims.advice(why, "redact")) for path, why in theirs]
    return copies + _archives_not_at_hand(log, selection)


def _record_archives(group: GroupCommit) -> None:
    """Put on record what the bytes of attached archives are by now, if a redaction that is newer than the record erased in them.

    Proven first: what is wrong with such a file is no fault of the redaction, and stays what verify says of it. Where another process
    redacts meanwhile, what it could not erase, without these archives, is erased and all of it looked at anew.
    """
    log = group.live.log
    if not isinstance(log, FileLog) or not any(path for _, path in log.archives()):
        return
    while not _archives_recorded(group, log):
        _erase_what_stands(group)


def _archives_recorded(group: GroupCommit, log: FileLog) -> bool:
    """Whether that could be done without anybody coming in between."""
    with group.live.log.writing() as head:  # whoever erases, does so in there
        known = head.position
    system = group.live.fresh().system
    redacted = _redacted_since_archived(log, system)
    for said, path in log.archives(system):
        if path is None or not redacted[said.first]:
            continue
        try:
            sha256 = _erased_bytes(log, said, path, redacted[said.first], system)
        except EventStoreError as error:
            _log.warning("%s is not put on record anew: %s", path, error)
            continue
        if sha256 is not None and not _record(group, log, said, sha256, known):
            return False
    return True


def _redacted_since_archived(log: EventLog, system: int) -> dict[int, list[int]]:
    """Of each archived file, by where it begins, the positions that were redacted since then, as far as it can hold them."""
    redacted, since = list[int](), dict[int, list[int]]()
    for event in _own_events(log, system):
        if event.op == "archive" and (said := read_archived(event, log.domain)).first not in since:
            since[said.first] = [position for position in redacted if position <= said.last]
        redacted += _positions(event)
    return since


def _erased_bytes(log: FileLog, said: Archived, path: Path, redacted: list[int], system: int) -> str | None:
    """The SHA-256 of an archived file, proven, if any of `redacted` was erased in it; None if none stands there."""
    with reading(path, log.domain, busy_timeout_ms=log.busy_timeout_ms) as file:
        wal = stat_or_none(file.wal)
        if not file.erased(redacted) or (wal is not None and wal.st_size):
            return None  # or the file is another one once its write-ahead log is in it
    (seal,) = log.linked([said.last])
    prove(path, log.domain, log.store_id, seal.event, named_by_redactions(log, system), busy_timeout_ms=log.busy_timeout_ms)
    with os_errors(f"reading {path}"):
        return sha256_of(path)


def awaits_its_record(log: FileLog, path: Path) -> bool:
    """Whether an attached archive has other bytes than those on record, and a redaction that is newer says why.

    It was carried out there, whoever did so could not record it, and nothing else is wrong: every event is proven by the seal,
    and nothing is missing but what is on record as redacted.
    """
    try:
        system = log.system()
        redacted = _redacted_since_archived(log, system)
        said = next((said for said, there in log.archives(system) if there == path), None)
        if said is None:
            return False  # it stands elsewhere than recorded
        with reading(path, log.domain, busy_timeout_ms=log.busy_timeout_ms) as file:
            if not file.erased(redacted[said.first]):
                return False
        (seal,) = log.linked([said.last])
        prove_events(path, log.domain, log.store_id, seal.event, named_by_redactions(log, system), busy_timeout_ms=log.busy_timeout_ms)
    except EventStoreError:
        return False
    return True


def _record(group: GroupCommit, log: FileLog, said: Archived, sha256: str, known: int) -> bool:
    """Record the hash of an archived file as it was at position `known`; False if somebody redacted or recorded since."""

    def say(states: KeyStates) -> Archived | None:
        if redacted_since(group.live.log, states.system, known) or latest(log.archived(states.system))[said.first] != said:
            return None
        return msgspec.structs.replace(said, sha256=sha256)

    return group.record("archive", say, lambda: None)


def redacted_since(log: EventLog, system: int, known: int) -> bool:
    """Whether a redact event stands after position `known`; `system` is the position of the log's own latest event."""
    return any(event.op == "redact" for event in takewhile(lambda event: event.position > known, _own_events(log, system)))


def _archives_not_at_hand(log: EventLog, selection: Selection) -> list[HeldCopy]:
    """The archived files that are not attached where they were put, and that are new enough to hold any of these positions, or a copy.

    Those as well that were deleted, or archived anew to another place, where they still can be seen.
    """
    if not isinstance(log, FileLog):
        return []
    oldest = min(selection.holding | selection.already, default=0)
    advice = "an archived file that is not at hand: attach its archive, archives=[...] or --archive DIR, and redact the same again"
    elsewhere = [
        HeldCopy(f"{said.to} ({log.domain}, positions {said.first} to {said.last})", advice)
        for said, path in log.archives()
        if path is None and (selection.cut_off or said.last >= oldest)
    ]
    attached = set(log.attached())
    left = [
        HeldCopy(str(path), why)
        for last, path, why in _left_behind(log)
        if (selection.cut_off or last >= oldest) and path not in attached and stat_or_none(path) is not None
    ]
    return elsewhere + left


def _left_behind(log: FileLog) -> set[tuple[int, Path, str]]:
    """Where files stood that were archived, and then deleted or archived anew: up to which position, the path, and why one may be there."""
    said = log.archived()
    counts = latest(said)
    found: set[tuple[int, Path, str]] = set()
    for each in said:
        path, now = each.path(log.store_id, log.domain), counts[each.first].to
        if path is not None and now != each.to:
            deleted = "its deletion is on record, and was not done: delete it, or apply the retention again"
            anew = f"the file was archived to {now} after that: attach this folder, too, and redact the same again, or delete this file"
            found.add((each.last, path, deleted if now is None else anew))
    return found


def roll_forward(group: GroupCommit) -> list[int]:
    """Finish what a redaction began: erase what stands although it was redacted, gives its positions; empty the write-ahead log; record
    the hashes of archives anew.

    Such rows come with files that were put back, or with a process that was killed; most logs have no redaction, and pay nothing.
    """
    log = group.live.log
    system = group.live.fresh().system
    if not system or not named_by_redactions(log, system):
        return []
    held = _erase_what_stands(group)
    if log.wal_bytes():
        log.forget_erased(wait=False)  # a reader in the way: whoever checkpoints next
    _record_archives(group)
    return held


def _erase_what_stands(group: GroupCommit) -> list[int]:
    """Erase what stands in any file at hand although it was redacted; gives its positions."""
    live = group.live
    log = live.log
    held = still_held(log, named_by_redactions(log, live.fresh().system))
    if held:
        with log.writing() as head:
            live.catch_up(head)
            log.append([], after=live.states.head, erase=held)
            live.cache.drop(log.domain, held)
        log.forget_erased(wait=False)
    return held


def named_by_redactions(log: EventLog, system: int) -> list[int]:
    """The positions that redact events name; `system` is the position of the log's own latest event."""
    named: set[int] = set()
    for event in _own_events(log, system):
        named.update(_positions(event))
    return sorted(named)


def _positions(event: Event) -> list[int]:
    """The positions that an event of the log itself names as redacted."""
    return read_redaction(event.data).positions if event.op == "redact" and isinstance(event.data, str) else []


def still_held(log: EventLog, positions: list[int]) -> list[int]:
    """Those of `positions`, which were redacted, whose values stand in a file at hand all the same."""
    # The log's own events stay, whoever names them: verify says what is wrong there.
    return [position for start in range(0, len(positions), PAGE) for position in log.held(positions[start : start + PAGE])]


def _own_events(log: EventLog, position: int) -> Iterator[Event]:
    while position > 0:
        page = [linked.event for linked in log.chain(position, limit=64)]
        yield from page
        position = page[-1].prev if page and page[-1].prev < position else 0
