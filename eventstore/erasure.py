"""Erasing values for good: what a redaction reaches, what it leaves, and how one that was not finished is.

The commit that appends the `redact` event erases the rows with it; that is the decision. What follows can be done again by
anybody at any time: the rows of other files at hand, the write-ahead log, the values in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from eventstore.archived import Archived
from eventstore.commit import OwnEvent, append_own
from eventstore.errors import ConfigError, EngineError
from eventstore.files import sha256_each
from eventstore.group import GroupCommit
from eventstore.log import PAGE, EventLog, FileLog
from eventstore.model import SYSTEM_KEY, Event, HeldCopy
from eventstore.projections.key_states import read_redaction

_encode = msgspec.json.Encoder().encode


class Erasure(msgspec.Struct, frozen=True):
    """What a redaction did, or would do."""

    domain: str
    position: int | None
    """Of the event that says so; None if nothing was left to erase, or nothing was to be done."""
    erased: list[int]
    """The positions whose values are gone now."""
    already: list[int]
    """Those whose values had been erased before."""
    held: list[HeldCopy]
    """What may still hold a copy, and what to do about it."""

    @property
    def complete(self) -> bool:
        """Whether no copy is left in the store's folder."""
        return not self.held


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

    def __bool__(self) -> bool:
        return bool(self.holding or self.already)


def erase(group: GroupCommit, selection: Selection, find: Callable[[], None], meta: str | None, *, shredded: Sequence[str] = ()) -> Erasure:
    """Append the event that says what is erased and why, and erase it, in one commit; then see to it that it is gone.

    `find` adds to the selection what was written since it was made. Called under the lock. `shredded`: keys that were destroyed.
    """
    live = group.live

    def own() -> OwnEvent | None:
        find()
        positions = sorted(selection.holding)
        said = {"positions": positions, "keys": shredded} if shredded else {"positions": positions}
        return OwnEvent("redact", _encode(said).decode(), meta, positions) if positions else None

    whole = _whole_archives(live.log)
    with group.alone() as head:
        event = append_own(live, head, group.clock, own, group.meter)
    live.log.forget_erased()
    _record_archives(group, whole)
    position = None if event is None else event.position
    held = live.log.copies() + archives_not_at_hand(live.log, selection)
    return Erasure(live.log.domain, position, sorted(selection.holding), sorted(selection.already), held)


def _whole_archives(log: EventLog) -> list[tuple[Path, Archived]]:
    """The attached files that are, byte for byte, what was archived: of no other is the hash taken anew once it was erased in."""
    if not isinstance(log, FileLog):
        return []
    named = [(path, said) for said, path in log.archives() if path is not None]
    found = sha256_each([path for path, _ in named])
    return [each for each, sha256 in zip(named, found, strict=True) if sha256 == each[1].sha256]


def _record_archives(group: GroupCommit, whole: list[tuple[Path, Archived]]) -> None:
    """Put on record what the bytes of attached files are by now, where something was erased in them."""
    for (_, archived), sha256 in zip(whole, sha256_each([path for path, _ in whole]), strict=True):
        if isinstance(sha256, EngineError):
            raise sha256
        if sha256 != archived.sha256:
            said = msgspec.structs.replace(archived, sha256=sha256)
            group.record("archive", lambda _, said=said: said, lambda: None)  # type: ignore[misc]


def archives_not_at_hand(log: EventLog, selection: Selection) -> list[HeldCopy]:
    """The archived files that are not attached where they were put, and that are new enough to hold any of these positions, or a copy."""
    if not isinstance(log, FileLog):
        return []
    oldest = min(selection.holding | selection.already, default=0)
    advice = "an archived file that is not at hand: attach its archive, archives=[...] or --archive DIR, and redact the same again"
    return [
        HeldCopy(f"{said.to} ({log.domain}, positions {said.first} to {said.last})", advice)
        for said, path in log.archives()
        if path is None and (selection.cut_off or said.last >= oldest)
    ]


def roll_forward(group: GroupCommit) -> list[int]:
    """Finish what a redaction began: erase what stands although it was redacted, gives its positions; and empty the write-ahead log.

    Such rows come with files that were put back, or with a process that was killed; most logs have no redaction, and pay nothing.
    """
    live = group.live
    log = live.log
    if not live.states.system:
        return []
    redacted = named_by_redactions(log, live.states.system)
    held = still_held(log, redacted)
    if held:
        whole = _whole_archives(log)
        with log.writing() as head:
            live.catch_up(head)
            log.append([], after=live.states.head, erase=held)
            live.cache.drop(log.domain, held)
        log.forget_erased(wait=False)
        _record_archives(group, whole)
    if redacted and log.wal_bytes():
        log.forget_erased(wait=False)  # a reader in the way: whoever checkpoints next
    return held


def named_by_redactions(log: EventLog, system: int) -> list[int]:
    """The positions that redact events name; `system` is the position of the log's own latest event."""
    named: set[int] = set()
    for event in _own_events(log, system):
        if event.op == "redact" and isinstance(event.data, str):
            named.update(read_redaction(event.data).positions)
    return sorted(named)


def still_held(log: EventLog, positions: list[int]) -> list[int]:
    """Those of `positions`, which were redacted, whose values stand in a file at hand all the same."""
    # The log's own events stay, whoever names them: verify says what is wrong there.
    return [position for start in range(0, len(positions), PAGE) for position in log.held(positions[start : start + PAGE])]


def _own_events(log: EventLog, position: int) -> Iterator[Event]:
    while position > 0:
        page = [linked.event for linked in log.chain(position, limit=64)]
        yield from page
        position = page[-1].prev if page and page[-1].prev < position else 0
