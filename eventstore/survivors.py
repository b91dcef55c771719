"""What of a domain survived: every carved row judged, one history chosen, every position accounted for.

kept      Its checksum follows from its own bytes and the checksum before it, wherever that was found: in the row before it, even
          one whose other bytes are damaged, in a witness, in the manifest, in a loss event. No accident makes SHA-256 agree,
          so these are the bytes that were sealed.
unproven  It looks like an event in every way the format can tell, but the checksum before it is nowhere to be found. (The
          event after it can prove the checksum that is stored in it; not its other bytes.)
aside     It is proven, but it belongs to a history that the log did not go on from: a lost tail that was accepted.
damaged   It was found, but does not follow the event that was proven before it: altered, or of yet another history. Its position
          is kept by another copy, or lost.
lost      Neither kept nor unproven, up to the last position that anybody knows.

A redaction is not undone: where one copy of an event is erased, or a redact event names it, it is erased in all of them. Only
where neither is left of it can a value come back from older pages; where anything is lost, the report says so.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import msgspec

from eventstore.archived import Archived, latest, read_archived
from eventstore.carver import Part, Row
from eventstore.codec import GENESIS, checksum_of, erased, is_canonical, read_birth
from eventstore.database import sqlite3
from eventstore.errors import FormatError
from eventstore.evidence import Evidence, bytes_of
from eventstore.model import SYSTEM_KEY, Event, Head
from eventstore.projections.key_states import read_redaction
from eventstore.values import is_json

Fate = Literal["kept", "unproven", "aside", "damaged"]

_FOLLOWED = 32
"""How many different checksums at one position an event is tried against; more than a few is nobody's accident."""

_TABLES = """
CREATE TABLE found(position INTEGER, checksum BLOB, identity BLOB, source INTEGER, part TEXT, place INTEGER, variant INTEGER,
  PRIMARY KEY(position, checksum, identity)) WITHOUT ROWID;
CREATE TABLE judged(position INTEGER, checksum BLOB, parent BLOB, fate TEXT, op TEXT, erase INTEGER, recorded_us INTEGER,
  source INTEGER, part TEXT, place INTEGER, variant INTEGER, PRIMARY KEY(position, checksum)) WITHOUT ROWID;
CREATE INDEX judged_fate ON judged(fate, position);
CREATE TABLE history(position INTEGER, checksum BLOB, PRIMARY KEY(position, checksum)) WITHOUT ROWID;
CREATE TABLE redacted(position INTEGER PRIMARY KEY, by INTEGER);
"""
# From each head that counts back along what was proven: of two histories it says which one the log went on from.
_HISTORY = """
WITH RECURSIVE up(position, checksum) AS (
  SELECT ?1, ?2
  UNION SELECT judged.position - 1, judged.parent FROM up JOIN judged USING (position, checksum) WHERE judged.parent IS NOT NULL)
INSERT OR IGNORE INTO history SELECT position, checksum FROM up"""

Progress = Callable[[str, int, int], None]


class Survivor(msgspec.Struct, frozen=True):
    """An event that was found, where, and what it is worth."""

    fate: Fate
    event: Event
    file: str
    offset: int


class _Known(msgspec.Struct, frozen=True):
    """A row of the table `judged`."""

    position: int
    checksum: bytes
    parent: bytes | None
    recorded_us: int


class Survivors:
    """The judgement over one domain. However large the log is, what is at hand is one page of it: the rest is in `scratch`."""

    def __init__(self, evidence: Evidence, scratch: Path, progress: Progress | None = None) -> None:
        self.domain = evidence.domain
        self.found: dict[str, int] = {}
        """Rows found, by file."""
        self._evidence = evidence
        self._index: sqlite3.Connection = sqlite3.connect(scratch / "index.db", isolation_level=None)
        self._index.execute("PRAGMA journal_mode=OFF").fetchall()
        self._index.execute("PRAGMA synchronous=OFF").fetchall()
        for statement in filter(str.strip, _TABLES.split(";")):
            self._index.execute(statement)
        self._index.execute("BEGIN")
        self._carve(progress)
        for head in (*evidence.trusted, *evidence.witnessed):
            self._add_checksum(head)
        self._judge()
        for head in evidence.trusted:
            self._index.execute(_HISTORY, (head.position, head.checksum))
        self._choose()
        self._erase()

    # ---- what there is

    def _carve(self, progress: Progress | None) -> None:
        total, before = sum(size for _, size in bytes_of(self._evidence.sources)), 0
        for number, source in enumerate(self._evidence.sources):
            self.found.setdefault(source.name, 0)

            def reached(done: int, before: int = before) -> None:
                if progress is not None:
                    progress(f"{self.domain}: looking for events", min(before + done, total), total)

            for row in source.image.rows(reached):
                self.found[source.name] += 1
                self._add(number, row)
            for position, previous in source.image.links():
                self._add_checksum(Head(position - 1, previous))
            before += source.bytes

    def _add(self, source: int, row: Row) -> None:
        self._add_checksum(Head(row.position, row.checksum))
        for variant, event in enumerate(row.events):
            for head in _heads_in(event) if event.op == "loss" else ():
                self._add_checksum(head)
            identity = hashlib.sha256(msgspec.msgpack.encode(event)).digest()
            place = (source, row.part, row.offset, variant)
            self._index.execute("INSERT OR IGNORE INTO found VALUES (?,?,?,?,?,?,?)", (row.position, row.checksum, identity, *place))

    def _add_checksum(self, head: Head) -> None:
        if 0 <= head.position < 2**63:
            self._index.execute("INSERT OR IGNORE INTO found VALUES (?,?,x'',NULL,NULL,NULL,NULL)", (head.position, head.checksum))

    def _load(self, source: int, part: Part, place: int, variant: int) -> Event:
        row = self._evidence.sources[source].image.row_at(part, place)
        assert row is not None  # it was found in this very copy
        return row.events[variant]

    # ---- what it is worth

    def _judge(self) -> None:
        """Hold every candidate against every checksum that may stand before it, in the order of positions."""
        before = -2
        known: dict[bytes, bool] = {}
        rows = self._index.execute("SELECT * FROM found ORDER BY position, checksum, identity")
        for position, group in groupby(rows, key=lambda row: int(row[0])):
            if position == 0:
                known = {GENESIS.checksum: True}
            elif position != before + 1:
                known = {}
            checksums: dict[bytes, bool] = {}
            found = list(group)
            for checksum, copies in groupby(found, key=lambda row: bytes(row[1])):
                proven = self._judge_copies(list(copies), known)
                if len(checksums) < _FOLLOWED:
                    checksums[checksum] = proven
            for head in self._evidence.trusted:
                if head.position == position:
                    checksums[head.checksum] = True
            before, known = position, checksums

    def _judge_copies(self, copies: Sequence[Any], known: dict[bytes, bool]) -> bool:
        """What came to be stored at one position under one checksum; whether it is proven."""
        allowed = [(row, event) for row in copies if row[3] is not None and _is_allowed(event := self._load(*row[3:]))]
        if not allowed:
            return False
        erase = any(event.digest is not None for _, event in allowed)
        for row, event in allowed:
            for parent in known:
                if checksum_of(parent, event, self.domain) == event.checksum:
                    self._note(row, event, parent, "kept", erase)
                    return True
        position, checksum = int(copies[0][0]), bytes(copies[0][1])
        contradicted = any(head.position == position and head.checksum != checksum for head in self._evidence.trusted)
        fate: Fate = "damaged" if contradicted or any(known.values()) else "unproven"
        # An erased copy first, then the one found first: the live log's.
        row, event = min(allowed, key=lambda pair: (pair[1].digest is None, pair[0][3:]))
        self._note(row, event, None, fate, erase)
        return False

    def _note(self, row: Any, event: Event, parent: bytes | None, fate: Fate, erase: bool) -> None:
        place = tuple(row[3:])
        self._index.execute(
            "INSERT INTO judged VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (event.position, event.checksum, parent, fate, event.op, erase, event.recorded_us, *place),
        )

    # ---- one history

    def _choose(self) -> None:
        """Give each position to one event: that of the history the log went on from. What is proven beside it is set aside."""
        last: _Known | None = None
        recorded_us = -1
        rows = self._index.execute("SELECT position, checksum, parent, recorded_us FROM judged WHERE fate <> 'damaged' ORDER BY position")
        aside: list[tuple[int, bytes]] = []
        for _, group in groupby((_Known(*row) for row in rows), key=lambda known: known.position):
            events = list(group)
            best = max(events, key=lambda event: self._rank(event, last)) if len(events) > 1 else events[0]
            chosen = best if _continues(best, last, recorded_us) else None
            aside += [(event.position, event.checksum) for event in events if event is not chosen]
            if chosen is None:
                continue
            if last is not None and last.position == chosen.position - 1 and chosen.parent not in (None, last.checksum):
                aside.append((last.position, last.checksum))  # unproven, and what follows was not sealed on its checksum
            if chosen.parent is not None:
                recorded_us = chosen.recorded_us
            last = chosen
        # The statement above must have ended before its table changes.
        self._index.executemany(
            "UPDATE judged SET fate = iif(fate = 'kept', 'aside', 'damaged') WHERE position = ? AND checksum = ?", aside
        )

    def _rank(self, event: _Known, last: _Known | None) -> tuple[bool, bool, bool, bool, int]:
        """Which of several events at one position is the log's own: the latest history, where nobody witnessed any."""
        place = event.position, event.checksum
        of_history = self._index.execute("SELECT 1 FROM history WHERE position = ? AND checksum = ?", place).fetchone()
        followed = self._index.execute("SELECT 1 FROM judged WHERE position = ? + 1 AND parent = ?", place).fetchone()
        follows = last is not None and (event.position, event.parent) == (last.position + 1, last.checksum)
        is_proven = event.parent is not None
        of_ours = of_history is not None or (event.position == 0 and self._is_our_birth(*place))
        return of_ours, follows, is_proven, is_proven or followed is not None, event.recorded_us

    def _is_our_birth(self, position: int, checksum: bytes) -> bool:
        """Whether a birth row is this domain's own: a blob may hold the files of another log."""
        asked = "SELECT source, part, place, variant FROM judged WHERE position = ? AND checksum = ?"
        event = self._load(*self._index.execute(asked, (position, checksum)).fetchone())
        try:
            birth = read_birth(event, self.domain)
        except FormatError:
            return False
        return birth.domain == self.domain and self._evidence.store_id in (None, birth.store_id)

    def _erase(self) -> None:
        """Note what was redacted: what redact events of its own history name, and what has an erased copy, even a damaged one."""
        fork = self._index.execute("SELECT min(position) FROM judged WHERE fate = 'aside'").fetchone()[0]
        named = [
            (position, survivor.event.position)
            for survivor in self._iterate("fate <> 'damaged' AND op = 'redact'")
            for position in read_redaction(survivor.event.data or "{}").positions
            if 0 < position < survivor.event.position and (survivor.fate != "aside" or position < fork)
        ]
        self._index.executemany("INSERT OR REPLACE INTO redacted VALUES (?, ?)", named)
        for position, *place in self._index.execute(
            "SELECT position, source, part, place, variant FROM judged WHERE erase AND fate IN ('damaged', 'unproven')"
        ).fetchall():
            copy = self._load(*place)
            others = self._index.execute(
                "SELECT source, part, place, variant FROM judged WHERE position = ? AND fate IN ('kept', 'unproven')", (position,)
            ).fetchall()
            if any(_are_copies(copy, self._load(*other)) for other in others):
                self._index.execute("INSERT OR IGNORE INTO redacted VALUES (?, NULL)", (position,))

    # ---- answers

    def iterate(self, *fates: Fate) -> Iterator[Survivor]:
        """The events of these fates, by position."""
        yield from self._iterate(f"fate IN ({','.join('?' * len(fates))})", *fates)

    def erased(self, *fates: Fate) -> Iterator[Survivor]:
        """Those of them whose value was redacted."""
        yield from self._iterate(f"fate IN ({','.join('?' * len(fates))}) AND (erase OR redacted.position IS NOT NULL)", *fates)

    def _iterate(self, where: str, *values: str) -> Iterator[Survivor]:
        """A page at a time, so that the index may be asked in between."""
        last: tuple[int, bytes] = (-1, b"")
        while True:
            rows = self._index.execute(
                "SELECT judged.position, checksum, fate, erase OR redacted.position IS NOT NULL, source, part, place, variant"
                f" FROM judged LEFT JOIN redacted USING (position) WHERE (judged.position, checksum) > (?, ?) AND {where}"
                " ORDER BY judged.position, checksum LIMIT 1000",
                (*last, *values),
            ).fetchall()
            if not rows:
                return
            for position, checksum, fate, erase, source, part, place, variant in rows:
                event = self._load(source, part, place, variant)
                event = erased(event) if erase and event.key != SYSTEM_KEY else event
                yield Survivor(fate, event, self._evidence.sources[source].name + ("-wal" if part == "wal" else ""), place)
                last = (position, checksum)

    def spans(self, *fates: Fate) -> list[tuple[int, int]]:
        """The positions of these fates as first and last of each run, from 1 on."""
        marks = ",".join("?" * len(fates))
        rows = self._index.execute(f"SELECT DISTINCT position FROM judged WHERE fate IN ({marks}) AND position > 0 ORDER BY 1", fates)
        return _runs(int(row[0]) for row in rows)

    def lost(self) -> list[tuple[int, int]]:
        """The positions up to the last known one at which there is no event, kept or unproven."""
        there, gaps, expected = self.spans("kept", "unproven"), [], 1
        last = self.last()
        for first, end in there:
            if first > expected and expected <= last:
                gaps.append((expected, min(first - 1, last)))
            expected = end + 1
        return gaps if expected > last else [*gaps, (expected, last)]

    def archived(self) -> dict[int, Archived]:
        """What the history that is kept says of where its sealed files went, by where they begin."""
        said: list[Archived] = []
        for survivor in self._iterate("fate = 'kept' AND op = 'archive'"):
            with contextlib.suppress(FormatError):
                said.append(read_archived(survivor.event, self.domain))
        return latest(said)

    def last(self) -> int:
        """The last position that is known to have been written: by a witness, the manifest, or an event that is proven."""
        heads = self._evidence.trusted or self._evidence.witnessed
        kept = self._index.execute("SELECT max(position) FROM judged WHERE fate = 'kept'").fetchone()[0]
        return max([kept or 0, *(head.position for head in heads)])

    def ends_as_known(self) -> bool:
        """Whether every head that the store itself knows is one of the events that are kept."""
        asked = "SELECT 1 FROM judged WHERE position = ? AND checksum = ? AND fate = 'kept'"
        return all(self._index.execute(asked, (head.position, head.checksum)).fetchone() for head in self._evidence.trusted)

    def known_checksum(self, position: int) -> bytes | None:
        """The checksum that the store itself knows for `position`, if any."""
        return next((head.checksum for head in self._evidence.trusted if head.position == position), None)

    def are_kept(self, first: int, count: int) -> bool:
        """Whether `count` events from `first` on are all kept: a call's events are there together, or its answer is not."""
        kept = self._index.execute(
            "SELECT count(*) FROM judged WHERE fate = 'kept' AND position >= ? AND position < ?", (first, first + count)
        ).fetchone()
        return bool(kept[0] == count)

    def is_named(self, position: int) -> bool:
        """Whether a later redact event of the history that is kept names `position`."""
        row = self._index.execute(
            "SELECT 1 FROM redacted JOIN judged ON judged.position = redacted.by WHERE redacted.position = ? AND judged.fate = 'kept'",
            (position,),
        ).fetchone()
        return row is not None

    def close(self) -> None:
        """Let go of the index."""
        self._index.close()


def _continues(event: _Known, last: _Known | None, recorded_us: int) -> bool:
    """Whether `event` may come after `last` in one history; `recorded_us` is that of the last event proven before."""
    if last is None or event.parent == last.checksum:
        return True
    # After a gap anything may follow that was recorded later; the tail of an abandoned history was not. Without a gap only a child
    # may, unless it shows that the checksum stored in an unproven event is not the one that was sealed.
    if event.position == last.position + 1 and event.parent is not None and last.parent is not None:
        return False
    return event.recorded_us > recorded_us


def _are_copies(one: Event, other: Event) -> bool:
    """Whether two rows of one position, one of them damaged, were one event: recorded_us names it, or key and predecessor do."""
    return one.recorded_us == other.recorded_us or (one.key, one.prev) == (other.key, other.prev)


def _runs(positions: Iterable[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for position in positions:
        if runs and runs[-1][1] == position - 1:
            runs[-1] = (runs[-1][0], position)
        else:
            runs.append((position, position))
    return runs


def _is_allowed(event: Event) -> bool:
    """Whether the format allows such an event at all, whatever its checksum."""
    try:
        checksum_of(GENESIS.checksum, event, "")
        if isinstance(event.data, str) and not is_json(event.data):
            return False
    except (FormatError, RecursionError):
        return False
    if not 0 <= event.prev < max(event.position, 1):
        return False
    if event.key == SYSTEM_KEY:
        return event.op not in ("put", "remove") and (event.op == "open") == (event.position == 0) and _says_an_object(event)
    if event.op == "put":
        return is_canonical(event.key) and (event.data is not None or event.digest is not None)
    return is_canonical(event.key) and event.op == "remove" and event.data is None and event.digest is None


def _says_an_object(event: Event) -> bool:
    """What an event of the log itself must say; a redaction also which positions it is about."""
    if not isinstance(event.data, str):
        return False
    try:
        msgspec.json.decode(event.data, type=dict[str, msgspec.Raw])
        if event.op == "redact":
            read_redaction(event.data)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return False
    return True


class _LossHead(msgspec.Struct, frozen=True):
    position: int
    checksum: str | None


class _Loss(msgspec.Struct, frozen=True):
    witnessed: _LossHead | None = None
    found: _LossHead | None = None


def _heads_in(event: Event) -> list[Head]:
    """The heads that a loss event remembers."""
    try:
        loss = msgspec.json.decode(event.data or "{}", type=_Loss)
        said = [head for head in (loss.witnessed, loss.found) if head is not None]
        heads = [Head(head.position, bytes.fromhex(head.checksum)) for head in said if head.checksum is not None]
        return [head for head in heads if len(head.checksum) == 32]
    except (msgspec.MsgspecError, ValueError):
        return []
