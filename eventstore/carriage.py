"""The proof of what is carried over a seal: against its own checksums, the seal, the sealed events where they are at hand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import msgspec

from eventstore.carried import CarriedDigest, read_seal
from eventstore.codec import check_linked, is_canonical
from eventstore.errors import CorruptionError, FormatError
from eventstore.links import Finding, as_finding
from eventstore.log import PAGE, EventLog
from eventstore.model import SYSTEM_KEY, Event, Linked
from eventstore.projections.key_states import read_redaction
from eventstore.values import is_json


class CarriedProof:
    """What is carried over the seal at `start`, looked at; of start 0 there is nothing to say, as nothing is carried over the birth."""

    def __init__(self, log: EventLog, start: int) -> None:
        self._log, self._start = log, start
        self.findings: list[Finding] = []
        self.latest: dict[bytes, int] = {}
        """Where the latest event of every key stands, as is carried."""
        self.digests: list[int] = []
        """Which of them were redacted."""
        self.redactions: dict[int, int] = {}
        """Which positions the redact events among them name, and where the naming one stands."""
        if start:
            self._prove()

    def against(self, latest: dict[bytes, int]) -> list[Finding]:
        """The findings, and what else there is to say if `latest` is where the walked log has the latest event of every key."""
        if self.latest != latest:
            self._find(self._start, "over this seal other events are carried than the latest of every key")
        return self.findings

    def _prove(self) -> None:
        digest, last = CarriedDigest(), None
        try:
            for page in self._pages():
                for each in page:
                    if last is not None:
                        digest.add(last.event.position, last.previous or b"", last.event.checksum)
                    last = each
                    self._judge(each)
                self._compare([each.event for each in page])
            if last is None or last.event.position != self._start:
                raise FormatError(self._log.domain, self._start, "the seal that should stand here is missing")
            seal = read_seal(last.event, self._log.domain)
            if digest.seal(seal.first, self._start) != seal:
                self._find(
                    self._start, f"{digest.count:,} events are carried over this seal, and they are not the {seal.carried:,} it names"
                )
        except CorruptionError as error:
            self.findings.append(as_finding(self._log.domain, error))

    def _pages(self) -> Iterator[list[Linked]]:
        stream = self._log.carried(self._start)
        while page := list(islice(stream, PAGE)):
            yield page

    def _judge(self, each: Linked) -> None:
        event = each.event
        try:
            check_linked(each, self._log.domain)
            key = event.key.encode("utf-8", "surrogatepass")
        except (CorruptionError, AttributeError) as error:
            self._find(event.position, f"what is carried of this event is not what was sealed: {error}")
            return
        if isinstance(event.data, str) and not is_json(event.data):
            self._find(event.position, "what is carried of this event is not JSON")
        if event.key == SYSTEM_KEY:
            if event.prev != self.latest.get(key, 0):
                self._find(event.position, f"an event of the log itself is not carried: {event.prev}, the one before this")
            if event.op == "redact":
                self._redact(event)
        elif key in self.latest or not is_canonical(event.key):
            self._find(event.position, "an event is carried that is not the latest of a key")
        if event.digest is not None and event.data is None:
            self.digests.append(event.position)
        self.latest[key] = event.position

    def _redact(self, event: Event) -> None:
        try:
            self.redactions |= dict.fromkeys(read_redaction(event.data or "{}").positions, event.position)
        except msgspec.MsgspecError as error:
            self._find(event.position, f"a redact event that cannot be read: {error}")

    def _compare(self, carried: list[Event]) -> None:
        """Hold copies against what they are copies of. Where that is not at hand, they are compared with themselves."""
        originals = {event.position: event for event in self._log.get([event.position for event in carried])}
        for copy in carried:
            original = originals.get(copy.position)
            if original is None or copy == original:
                continue
            if copy.checksum == original.checksum and (copy.data is None) != (original.data is None):
                where = "the sealed file, and is erased here" if copy.data is None else "this copy, and is erased in the sealed file"
                self._find(copy.position, f"carried over the seal at {self._start}: the value stands in {where}")
            else:
                self._find(copy.position, f"what is carried of this event over the seal at {self._start} is not what the sealed file holds")

    def _find(self, position: int, message: str) -> None:
        self.findings.append(Finding(self._log.domain, position, "carried", message))
