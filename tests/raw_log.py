"""Events that no verb of a store writes, appended to its log as the format says: for whoever has to keep them all the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from eventstore import Event
from eventstore.codec import seal, seal_system
from eventstore.local import LocalEngine
from eventstore.model import Head


def erase(store: Path, domain: str, position: int) -> None:
    """Redact an event."""
    said = {"positions": [position], "reason": "asked to"}

    def redaction(head: Head, recorded_us: int) -> Event:
        return seal_system(head, prev=0, recorded_us=recorded_us, op="redact", data=said, salt=bytes(16))

    _append(store, domain, redaction, [position])


def append_blob(store: Path, domain: str, key: str, content: bytes, *, codec: str = "x") -> None:
    """Append a value that is no text."""

    def blob(head: Head, recorded_us: int) -> Event:
        return seal(
            head,
            prev=0,
            recorded_us=recorded_us,
            when_us=None,
            op="put",
            key=key,
            meta=f'{{"codec":"{codec}"}}',
            data=content,
            salt=bytes(16),
        )

    _append(store, domain, blob, [])


def _append(store: Path, domain: str, make: Callable[[Head, int], Event], positions: Sequence[int]) -> None:
    log = LocalEngine(store).open_log(domain)
    with log.writing() as head:
        (latest,) = log.get([head.position])
        log.append([make(head, latest.recorded_us + 1)], after=head, erase=positions)
    log.close()
