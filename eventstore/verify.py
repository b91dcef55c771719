"""The proof: every byte against its checksum, every event against the one before it, cached key states against the log.

Nothing is repaired and nothing is deleted; what is wrong is named by domain, position and kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import lt

import msgspec

from eventstore.codec import GENESIS, check_all, checksum_of, is_canonical, read_birth
from eventstore.errors import CorruptionError, EventStoreError, FormatError
from eventstore.log import PAGE, Engine, EventLog
from eventstore.model import SYSTEM_KEY, Event, Head, KeyState
from eventstore.pointers import PointerFolder
from eventstore.projections.key_states import KeyStates, read_redaction, state_of
from eventstore.values import is_json

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
    except Exception as error:  # noqa: BLE001  bytes that nobody thought of are a finding too, and no reason to stop
        report.findings.append(Finding(domain, None, "unreadable", f"{type(error).__name__}: {error}"))
    return report


def _kind(error: CorruptionError) -> str:
    return type(error).__name__.removesuffix("Error").lower()


def require_whole(log: EventLog, engine: Engine) -> None:
    """Check a log before it becomes a domain. Raises FormatError with the first finding."""
    report = DomainReport(log.domain, findings=[])
    _Chain(log, report, engine, None).run()
    for finding in report.findings:
        raise FormatError(finding.domain, finding.position, finding.message)


class _Chain:
    """One walk over a log. After a broken link it goes on from what is stored, so that each fault is named once."""

    def __init__(self, log: EventLog, report: DomainReport, engine: Engine, progress: Progress | None) -> None:
        self._log, self._report, self._engine, self._progress = log, report, engine, progress
        # The event before the one that is looked at, as it is stored; and what its checksum should have been, where it is not.
        self._head, self._recorded_us = GENESIS, 0
        self._alternative: bytes | None = None
        self._latest: dict[str, int] = {}
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
        pointers = PointerFolder(self._engine.pointers(domain), self._log, writable=False)
        positions = iter(pointers.positions())
        saved_at = next(positions, 0)
        self._head, self._recorded_us = Head(0, births[0].checksum), births[0].recorded_us
        for page in self._pages(last):
            self._links(page)
            for event in page:
                key = event.key
                before = self._latest.get(key, 0)
                # What nearly every event is, asked in one go; whatever is not is looked at rule by rule.
                if event.prev != before or before == 0 or event.op != "put" or event.data is None or key == SYSTEM_KEY:
                    self._rules(event, before)
                self._latest[key] = event.position
                if event.position == saved_at:
                    self._compare(pointers.latest(until=saved_at), event)
                    saved_at = next(positions, 0)
            report.events += len(page)
            if self._progress is not None:
                self._progress(domain, self._head.position, last)
        report.head = self._head
        self._conclude(last)

    def _links(self, page: list[Event]) -> None:
        """Check that the events of a page follow each other in position, checksum and time."""
        for event in page:
            if isinstance(event.data, str) and not is_json(event.data):
                self._find(event.position, "format", "the data is not JSON")
        times = [self._recorded_us, *(event.recorded_us for event in page)]
        try:
            self._head = check_all(self._head, page, self._report.domain)
            if not all(map(lt, times, times[1:])):
                self._times(page, times)
        except CorruptionError:
            # Once more, event by event, going on from what is stored, so that each fault is named, and once.
            for event in page:
                self._link(event)
            self._times(page, times)
        self._recorded_us = times[-1]

    def _times(self, page: list[Event], times: list[int]) -> None:
        for event, before_us in zip(page, times, strict=False):
            if event.recorded_us <= before_us:
                self._find(event.position, "time", f"recorded_us {event.recorded_us} does not rise above {before_us}")

    def _link(self, event: Event) -> None:
        domain, position, alternative = self._report.domain, event.position, self._alternative
        before, self._head, self._alternative = self._head, Head(position, event.checksum), None
        if position != before.position + 1:
            self._find(position, "gap", f"position {before.position + 1} expected here: events are missing or out of order")
        try:
            expected = checksum_of(before.checksum, event, domain)
        except FormatError as error:
            self._find(position, "format", str(error))
            return
        if expected == event.checksum:
            return
        # If the event before this one carries a wrong checksum, this one may well follow the right one.
        self._alternative = expected
        if alternative is None or checksum_of(alternative, event, domain) != event.checksum:
            self._find(position, "checksum", f"checksum {event.checksum.hex()}, expected {expected.hex()}: altered, or out of its place")

    def _conclude(self, last: int) -> None:
        if self._head.position < last:
            self._find(self._head.position + 1, "gap", f"the log ends in position {last}, but the events from here on are not there")
        for position in sorted(self._digests):
            if self._redactions.get(position, 0) <= position:
                self._find(position, "format", "a digest stands in place of the data, but no later redact event names this position")
        self._report.redacted = len(self._digests)

    def _compare(self, saved: KeyStates | None, head: Event) -> None:
        """Hold a pointer file against the log: the same keys, each where its latest event stands, each saying what that event says."""
        if saved is None or saved.position != head.position:
            return  # not believed by anybody
        entries = saved.snapshot()
        positions = {key: state.position for key, state in entries.items()}
        if saved.system:
            positions[SYSTEM_KEY] = saved.system
        true = positions == self._latest and saved.recorded_us == head.recorded_us
        items = sorted(entries.items(), key=lambda item: item[1].position)
        for start in range(0, len(items) if true else 0, PAGE):
            page = items[start : start + PAGE]
            events = self._log.get([state.position for _, state in page])
            # What was present then may have been redacted since.
            true = true and all(
                state == now or (now.status == "redacted" and state == KeyState(now.position, now.when_us, "present"))
                for now, (_, state) in zip(map(state_of, events), page, strict=True)
            )
        if not true:
            self._find(
                saved.position, "pointers", "a pointer file does not say what the log says; delete the folder `pointers`, it is rebuilt"
            )

    def _rules(self, event: Event, before: int) -> None:
        """What is no matter of hashing (FORMAT.md section 8, invariants); `before` is the key's previous position."""
        position, op = event.position, event.op
        if event.prev != before:
            self._find(position, "prev", f"prev is {event.prev}, but the key's previous event is {before}")
        if event.digest is not None:
            self._digests.add(position)
        if event.key == SYSTEM_KEY:
            self._system_rules(event)
            return
        if before == 0 and not is_canonical(event.key):
            self._find(position, "format", f"the key {event.key} is not canonical")
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
            self._report.losses += 1
        elif event.op == "redact":
            self._redact(event)
        elif event.op in ("put", "remove", "open"):
            self._find(event.position, "format", f"the op {event.op!r} is not one for the log's own key")

    def _redact(self, event: Event) -> None:
        for position in _named(event):
            if not 0 < position < event.position:
                self._find(event.position, "format", f"a redaction of position {position}; only earlier events of users can be redacted")
            self._redactions[position] = event.position

    def _pages(self, last: int) -> Iterator[list[Event]]:
        """All events up to `last`, going around those that cannot be read."""
        after = 0
        while after < last:
            stream = self._log.read(after, until=last)
            try:
                while page := list(islice(stream, PAGE)):
                    yield page
                    after = page[-1].position
                return
            except CorruptionError:
                # Somewhere in the next page there is a row that cannot be read: find out which ones can.
                for position in range(after + 1, min(after + PAGE, last) + 1):
                    if found := self._one(position):
                        yield found
                    after = position

    def _one(self, position: int) -> list[Event]:
        try:
            return self._log.get([position])
        except CorruptionError as error:
            self._find(position, "unreadable", f"this event cannot be read: {error}")
            return []

    def _find(self, position: int, kind: str, message: str) -> None:
        self._report.findings.append(Finding(self._report.domain, position, kind, message))


def _named(event: Event) -> list[int]:
    try:
        return read_redaction(event.data or "{}").positions
    except msgspec.MsgspecError:
        return []
