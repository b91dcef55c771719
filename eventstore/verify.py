"""The proof: every byte against its checksum, every event against the one before it, every cache against the log.

Nothing is repaired and nothing is deleted; what is wrong is named by domain, position and kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from eventstore.codec import checksum_of, is_canonical, read_birth
from eventstore.errors import CorruptionError, EventStoreError, FormatError
from eventstore.log import PAGE, Engine, EventLog
from eventstore.model import SYSTEM_KEY, Event, Head, KeyState
from eventstore.pointers import PointerFolder
from eventstore.projections.key_states import KeyStates, read_redaction

Progress = Callable[[str, int, int], None]
"""Called with domain, position reached, last position."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong. `position` is None where no single event is meant."""

    domain: str
    position: int | None
    kind: str
    message: str


class DomainReport(msgspec.Struct):
    """What the check of one domain found."""

    domain: str
    events: int = 0
    head: Head | None = None
    redacted: int = 0
    losses: int = 0
    findings: list[Finding] = []


class Report(msgspec.Struct, frozen=True):
    """What the check of a store found; `ok` if that is nothing."""

    store: str
    domains: list[DomainReport]

    @property
    def findings(self) -> list[Finding]:
        """All findings, domain by domain."""
        return [finding for domain in self.domains for finding in domain.findings]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def verify_store(engine: Engine, domains: Iterable[str], *, progress: Progress | None = None) -> list[DomainReport]:
    """Check the logs of `domains`, each read anew from its storage."""
    return [verify_domain(engine, domain, progress=progress) for domain in domains]


def verify_domain(engine: Engine, domain: str, *, progress: Progress | None = None) -> DomainReport:
    """Check one log: storage, chain, rules of the format, tail, pointer files."""
    report = DomainReport(domain, findings=[])
    try:
        with engine.inspect(domain) as log:
            for kind, sentence in log.faults():
                report.findings.append(Finding(domain, None, kind, sentence))
            _Chain(log, report, engine, progress).run()
    except CorruptionError as error:
        report.findings.append(Finding(domain, error.position, _kind(error), str(error)))
    except EventStoreError as error:
        report.findings.append(Finding(domain, None, "unreadable", str(error)))
    return report


def _kind(error: CorruptionError) -> str:
    return type(error).__name__.removesuffix("Error").lower()


class _Chain:
    """One walk over a log. After a broken link it goes on from what is stored, so that each fault is named once."""

    def __init__(self, log: EventLog, report: DomainReport, engine: Engine, progress: Progress | None) -> None:
        self._log, self._report, self._engine, self._progress = log, report, engine, progress
        self._seen = 0
        self._digests: set[int] = set()
        self._redactions: dict[int, int] = {}

    def run(self) -> None:
        """Walk, then judge what can only be judged at the end."""
        domain, report = self._log.domain, self._report
        births = self._log.get([0])
        birth = read_birth(births[0] if births else None, domain)
        if birth.store_id != self._engine.store_id or birth.domain != domain:
            self._find(0, "birth", f"the log of domain {birth.domain!r} of store {birth.store_id}, not of this store")
        last = self._log.head().position
        states = KeyStates(Head(0, births[0].checksum), births[0].recorded_us)
        pointers = PointerFolder(self._engine.pointers(domain), self._log, writable=False)
        saved = pointers.latest()
        alternative: bytes | None = None
        saved_at = saved.head.position if saved is not None else -1
        for event in self._events(last):
            alternative = self._link(states.head, event, alternative)
            self._rules(states.recorded_us, states.system, states.apply(event), event)
            if event.position == saved_at and saved is not None and states.snapshot() != saved.snapshot():
                self._find(
                    saved_at, "pointers", "a pointer file does not say what the log says; delete the folder `pointers`, it is rebuilt"
                )
            if self._progress is not None and event.position % PAGE == 0:
                self._progress(domain, event.position, last)
        report.events = self._seen
        if states.head.position < last:
            self._find(states.head.position + 1, "gap", f"the log ends in position {last}, but the events from here on are not there")
        for position in sorted(self._digests):
            if self._redactions.get(position, 0) <= position:
                self._find(position, "format", "a digest stands in place of the data, but no later redact event names this position")
        report.head = states.head
        report.redacted = len(self._digests)
        if self._progress is not None:
            self._progress(domain, last, last)

    def _link(self, before: Head, event: Event, alternative: bytes | None) -> bytes | None:
        """Check one event against the one before it; gives its own checksum if what is stored is another."""
        domain, position = self._report.domain, event.position
        self._seen += 1
        if position != before.position + 1:
            self._find(position, "gap", f"position {before.position + 1} expected here: events are missing or out of order")
        try:
            expected = checksum_of(before.checksum, event, domain)
            if expected == event.checksum:
                return None
            if alternative is None or checksum_of(alternative, event, domain) != event.checksum:
                self._find(
                    position, "checksum", f"checksum {event.checksum.hex()}, expected {expected.hex()}: altered, or out of its place"
                )
            return expected
        except FormatError as error:
            self._find(position, "format", str(error))
            return None

    def _rules(self, recorded_us: int, system: int, before: KeyState | None, event: Event) -> None:
        """What holds between events and is no matter of hashing (FORMAT.md section 8, invariants)."""
        position, op = event.position, event.op
        if event.recorded_us <= recorded_us:
            self._find(position, "time", f"recorded_us {event.recorded_us} does not rise above {recorded_us}")
        if event.key == SYSTEM_KEY:
            self._system_rules(event)
            prev = system
        else:
            prev = 0 if before is None else before.position
            if before is None and not is_canonical(event.key):
                self._find(position, "format", f"the key {event.key} is not canonical")
            if op != "put" and op != "remove":
                self._find(position, "format", f"the op {op!r} is not one for a user's key")
            elif op == "put" and event.data is None and event.digest is None:
                self._find(position, "format", "a put without data")
        if event.prev != prev:
            self._find(position, "prev", f"prev is {event.prev}, but the key's previous event is {prev}")
        if event.digest is not None:
            self._digests.add(position)

    def _system_rules(self, event: Event) -> None:
        if event.op == "loss":
            self._report.losses += 1
        elif event.op == "redact":
            self._redactions.update(dict.fromkeys(_named(event), event.position))
        elif event.op in ("put", "remove", "open"):
            self._find(event.position, "format", f"the op {event.op!r} is not one for the log's own key")

    def _events(self, last: int) -> Iterator[Event]:
        """All events up to `last`, going around those that cannot be read."""
        after = 0
        while after < last:
            try:
                for event in self._log.read(after, until=last):
                    yield event
                    after = event.position
                return
            except CorruptionError:
                # Somewhere in the next page there is a row that cannot be read: find out which ones can.
                for position in range(after + 1, min(after + PAGE, last) + 1):
                    yield from self._one(position)
                    after = position

    def _one(self, position: int) -> list[Event]:
        try:
            events = self._log.get([position])
        except CorruptionError as error:
            self._find(position, "unreadable", f"this event cannot be read: {error}")
            return []
        return events

    def _find(self, position: int, kind: str, message: str) -> None:
        self._report.findings.append(Finding(self._report.domain, position, kind, message))


def _named(event: Event) -> list[int]:
    try:
        return read_redaction(event.data or "{}").positions
    except msgspec.MsgspecError:
        return []
