"""One walk over a range of a log: every link, and every rule that an event alone or with those before it can break.

What an event must be follows from the event before it, but for `prev`: a range says what it saw of each key first and last,
and whoever puts ranges together (verify.py) compares. So ranges can be walked by several processes at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from eventstore.archived import read_archived
from eventstore.codec import GENESIS, RowChain, check_rows, checksum_of, is_canonical
from eventstore.coding import Coding, is_readable
from eventstore.errors import CorruptionError, EngineError, EventStoreError, FormatError
from eventstore.log import PAGE, EventLog, RowLog
from eventstore.model import SYSTEM_KEY, Event, Head
from eventstore.pointers import event_id_of
from eventstore.projections.key_states import read_redaction
from eventstore.values import MAX_VALUE_BYTES, is_json

UNJUDGED = "unjudged"
"""The kind of a finding that says nothing about the log: a lock, a right or the disk stood in the way of looking."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong, or could not be looked at. `position` is None where no single event is meant."""

    domain: str
    position: int | None
    kind: str
    message: str


class Task(msgspec.Struct, frozen=True):
    """What to look at besides the links: where the state of the keys will be asked for, up to where event ids will."""

    domain: str
    last: int
    cuts: list[int]
    """Positions, rising: a segment ends at each."""
    ids_until: int
    max_value_bytes: int = MAX_VALUE_BYTES
    """How far a blob may be unpacked."""


class Segment(msgspec.Struct):
    """The keys of a stretch of a range: where each was seen first and last, and what it said came before the first."""

    until: int
    recorded_us: int
    """The event at `until`, or the last one before it."""
    keys: list[bytes]
    firsts: list[int]
    prevs: list[int]
    lasts: list[int]
    strange: list[int]
    """The firsts that name no previous event and whose key is not canonical."""


class Walked(msgspec.Struct):
    """What one range said."""

    after: int
    until: int
    before: Head
    """The event before the range, as it is stored."""
    head: Head
    """The last event of the range, likewise."""
    events: int = 0
    losses: int = 0
    findings: list[Finding] = []
    segments: list[Segment] = []
    digests: list[int] = []
    redactions: dict[int, int] = {}
    ids: dict[int, str] = {}
    failure: Finding | None = None
    """What ended the walk before its time."""


def as_finding(domain: str, error: Exception) -> Finding:
    """What it means for the proof of a domain that reading it raised `error`."""
    if isinstance(error, CorruptionError):
        return Finding(domain, error.position, type(error).__name__.removesuffix("Error").lower(), str(error))
    if isinstance(error, EngineError):  # a lock, a right, a disk: it says nothing about the log
        return Finding(domain, None, UNJUDGED, str(error))
    if isinstance(error, EventStoreError):
        return Finding(domain, None, "unreadable", str(error))
    # Bytes that nobody thought of are a finding too, and no reason to stop.
    return Finding(domain, None, "unreadable", f"{type(error).__name__}: {error}")


class Walk:
    """One walk over the events with after < position <= until; `after` is 0 or, as `until`, a multiple of PAGE, or the log's last.

    After a broken link it goes on from what is stored, so that each fault is named once.
    """

    def __init__(self, log: EventLog | RowLog, task: Task, after: int, until: int) -> None:
        self._log, self._task, self._domain = log, task, task.domain
        self.walked = Walked(after, until, GENESIS, GENESIS)
        self._cuts = [cut for cut in task.cuts if after < cut < until] + [until]
        self._alternative: bytes | None = None
        """What the checksum of the event before should have been, where it is another."""
        self._chain = RowChain(GENESIS, 0, task.ids_until)
        self._coding = Coding(max_value_bytes=task.max_value_bytes)

    def run(self) -> Iterator[int]:
        """Walk; gives the position reached after every page. What was seen is in `walked`, also when something raises."""
        walked, chain = self.walked, self._chain
        self._start(walked.after)
        walked.before = Head(chain.position, chain.checksum)
        walked.head, walked.ids = walked.before, chain.ids
        after = walked.after
        try:
            while after < walked.until:
                until = min(after - after % PAGE + PAGE, walked.until)
                seen = walked.events
                for page in self._pages(after, until):
                    self._events(page)
                if walked.events == seen and until < walked.until:
                    until = self._next_after(until)
                after = until
                walked.head = Head(chain.position, chain.checksum)
                yield chain.position
        finally:
            self._end_segments(walked.until)

    def _start(self, after: int) -> None:
        """Take the event before the range as given; what is wrong with it is for the range that it is in."""
        (before,) = self._log.linked([after])
        self._chain.position, self._chain.checksum = after - 1, before.previous or b""
        self._link(before.event)
        self._chain.recorded_us = before.event.recorded_us
        self.walked.findings.clear()

    def _pages(self, after: int, until: int) -> Iterator[list[Event] | list[tuple[Any, ...]]]:
        """The events of a page, going around those that cannot be read. Pages stand at the same places whatever the range."""
        try:
            if isinstance(self._log, RowLog):
                while after < until and (rows := self._log.rows(after, until)):
                    yield rows
                    after = rows[-1][0]
                return
            stream = self._log.read(after, until=until)
            while page := list(islice(stream, PAGE)):
                yield page
                after = page[-1].position
        except CorruptionError:
            # Somewhere in this page there is a row that cannot be read: find out which ones can.
            for position in range(after + 1, until + 1):
                yield self._one(position)

    def _next_after(self, position: int) -> int:
        """Where the page before the next event ends: a forged row may stand beyond a hole of any size."""
        if not isinstance(self._log, RowLog):
            return position
        try:
            rows = self._log.rows(position, self.walked.until)
        except CorruptionError:
            return position
        return int(rows[0][0] - 1) // PAGE * PAGE if rows else self.walked.until

    def _one(self, position: int) -> list[Event]:
        try:
            return self._log.get([position])
        except CorruptionError as error:
            self._find(position, "unreadable", f"this event cannot be read: {error}")
            return []

    # ---- event by event

    def _events(self, page: list[Event] | list[tuple[Any, ...]]) -> None:
        """Walk what was read: as rows as far as they are what nearly all are, else event by event."""
        count = len(page)
        while self._cuts and page and _position(page[-1]) > self._cuts[0]:
            part = [each for each in page if _position(each) <= self._cuts[0]]
            self._part(part)
            page = page[len(part) :]
            self._end_segments(self._cuts[0])
        self._part(page)
        self.walked.events += count

    def _part(self, page: list[Any]) -> None:
        if not page or isinstance(page[0], Event):
            for event in page:
                self._event(event)
            return
        chain, rows = self._chain, iter(page)
        while True:
            reached = chain.position
            row = check_rows(chain, rows)
            if chain.position != reached:
                self._alternative = None
            if row is None:
                return
            found = self._one(row[0])
            if not found:
                self.walked.events -= 1
            for event in found:
                self._event(event)

    def _event(self, event: Event) -> None:
        """The rules of the format, one by one (FORMAT.md section 8, invariants)."""
        chain, walked, position = self._chain, self.walked, event.position
        self._text_rules(event)
        self._link(event)
        if event.recorded_us <= chain.recorded_us:
            self._find(position, "time", f"recorded_us {event.recorded_us} does not rise above {chain.recorded_us}")
        chain.recorded_us = event.recorded_us
        key = event.key.encode("utf-8", "surrogatepass")
        before = chain.latest.get(key)
        if before is None:
            chain.firsts.append(position)
            chain.prevs.append(event.prev)
        elif event.prev != before:
            self._find(position, "prev", wrong_prev(event.prev, before))
        chain.latest[key] = position
        if event.digest is not None and event.data is None:
            walked.digests.append(position)
        if event.key == SYSTEM_KEY:
            self._system_rules(event)
        else:
            self._rules(event)
        self._note_id(event)

    def _text_rules(self, event: Event) -> None:
        """The text of a value is JSON, also once it is unpacked; what is encrypted only its key can tell."""
        if isinstance(event.data, str):
            if not is_json(event.data):
                self._find(event.position, "format", "the data is not JSON")
        elif event.data is not None and is_readable(event):
            try:
                text = self._coding.text_of(self._domain, event)
            except FormatError as error:
                self._find(event.position, "codec", str(error))
            else:
                if text is not None and not is_json(text):
                    self._find(event.position, "codec", "the blob holds no JSON")

    def _link(self, event: Event) -> None:
        chain, domain, position, alternative = self._chain, self._domain, event.position, self._alternative
        before, expected_position = chain.checksum, chain.position + 1
        chain.position, chain.checksum, self._alternative = position, event.checksum, None
        if position != expected_position:
            self._find(position, "gap", f"position {expected_position} expected here: events are missing or out of order")
        try:
            expected = checksum_of(before, event, domain)
        except FormatError as error:
            self._find(position, "format", str(error))
            return
        if expected == event.checksum:
            return
        # If the event before this one carries a wrong checksum, this one may well follow the right one.
        self._alternative = expected
        if alternative is None or checksum_of(alternative, event, domain) != event.checksum:
            self._find(position, "checksum", f"checksum {event.checksum.hex()}, expected {expected.hex()}: altered, or out of its place")

    def _rules(self, event: Event) -> None:
        position, op = event.position, event.op
        if op not in ("put", "remove"):
            self._find(position, "format", f"the op {op!r} is not one for a user's key")
        elif op == "put" and event.data is None and event.digest is None:
            self._find(position, "format", "a put without data")
        elif op == "remove" and (event.data is not None or event.digest is not None):
            self._find(position, "format", "a remove with data")

    def _system_rules(self, event: Event) -> None:
        if not isinstance(event.data, str) or not event.data.startswith("{") or not is_json(event.data):
            self._find(event.position, "format", "an event of the log itself says a JSON object")
        if event.op == "loss":
            self.walked.losses += 1
        elif event.op == "redact":
            self._redact(event)
        elif event.op == "archive":
            self._archive(event)
        elif event.op in ("put", "remove", "open"):
            self._find(event.position, "format", f"the op {event.op!r} is not one for the log's own key")

    def _archive(self, event: Event) -> None:
        try:
            read_archived(event, self._domain)
        except FormatError as error:
            self._find(event.position, "format", str(error))

    def _redact(self, event: Event) -> None:
        try:
            positions = read_redaction(event.data or "{}").positions
        except msgspec.MsgspecError:
            return
        for position in positions:
            if not 0 < position < event.position:
                self._find(event.position, "format", f"a redaction of position {position}; only earlier events of users can be redacted")
            self.walked.redactions[position] = event.position

    def _note_id(self, event: Event) -> None:
        if event.position > self._task.ids_until:
            return
        try:
            event_id = event_id_of(event)
        except (msgspec.MsgspecError, UnicodeEncodeError):
            return  # named already: such a meta is not of the format
        if event_id is not None:
            self._chain.ids[event.position] = event_id

    def _end_segments(self, until: int) -> None:
        """Close every segment that ends at or before `until`."""
        chain = self._chain
        while self._cuts and self._cuts[0] <= until:
            keys = list(chain.latest)
            pairs = zip(keys, chain.firsts, chain.prevs, strict=True)
            strange = [first for key, first, prev in pairs if prev == 0 and not is_allowed(key)]
            self.walked.segments.append(
                Segment(self._cuts.pop(0), chain.recorded_us, keys, chain.firsts, chain.prevs, list(chain.latest.values()), strange)
            )
            chain.latest, chain.firsts, chain.prevs = {}, [], []

    def _find(self, position: int, kind: str, message: str) -> None:
        self.walked.findings.append(Finding(self._domain, position, kind, message))


def _position(each: Event | tuple[Any, ...]) -> int:
    return each.position if isinstance(each, Event) else int(each[0])


def is_allowed(key: bytes) -> bool:
    """Whether a stored key is canonical, or that of the log itself."""
    text = key.decode("utf-8", "surrogatepass")
    return text == SYSTEM_KEY or is_canonical(text)


def wrong_prev(prev: int, before: int) -> str:
    """The sentence for an event that names another previous event than its key's."""
    return f"prev is {prev}, but the key's previous event is {before}"


def wrong_key(key: bytes) -> str:
    """The sentence for a key that is not in the one form that keys have."""
    return f"the key {key.decode('utf-8', 'surrogatepass')} is not canonical"
