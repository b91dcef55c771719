"""A domain whose first files are not at hand: what commands say of it, and how they read on from there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import chain

from eventstore.archived import latest
from eventstore.carried import prove_linked
from eventstore.codec import GENESIS, check
from eventstore.domain import DomainStore
from eventstore.errors import CompactedError
from eventstore.log import FileLog
from eventstore.model import Event, Head, Linked
from eventstore.tools.terminal import count_text

_log = logging.getLogger("eventstore")


def say_floor(domain: DomainStore) -> int:
    """Up to which position events are in no file at hand, 0 if all are there: said as a warning, that nobody takes the rest for all."""
    floor = domain.floor
    if floor:
        _log.warning("%s: events up to position %d are in no file at hand: %s", domain.name, floor, _where(domain, floor))
    return floor


def elsewhere_text(floors: list[int]) -> str:
    """What a verdict over so many events adds for those before the floors; nothing where all floors are 0."""
    gone = sum(floors)
    return f"; {count_text(gone, 'event')} before them, archived or deleted, {'is' if gone == 1 else 'are'} not in it" if gone else ""


def _where(domain: DomainStore, floor: int) -> str:
    log = domain.group.live.log
    said = [each for each in latest(log.archived()).values() if each.first <= floor] if isinstance(log, FileLog) else []
    places = [f"archived to {place}" for place in sorted({each.to for each in said if each.to is not None})]
    return ", ".join([*places, *(["deleted"] if any(each.to is None for each in said) else [])]) or "missing"


def require_accounted(domain: DomainStore) -> None:
    """Raise CompactedError for a file below the floor of which the log does not say where it went: it was lost."""
    log = domain.group.live.log
    if not isinstance(log, FileLog) or not (floor := log.floor()):
        return
    below = {first for first, _ in log.missing()} | {first for first in log.sealed() if first <= floor}
    for first in sorted(below - latest(log.archived()).keys()):
        raise CompactedError(domain.name, first, floor)


def chained(domain: DomainStore, floor: int, last: int) -> Iterator[Linked]:
    """What is carried over `floor` and the events behind it up to `last`, proven whoever opened the store; the birth row first.

    Only those that are carried come with the checksum before them: of the others the one before was given just now.
    """
    head = GENESIS
    events: Iterator[Event] = domain.events(floor, until=last)
    if floor:
        for each in prove_linked(domain.group.live.log.carried(floor), floor, domain.name):
            yield each
            head = Head(each.event.position, each.event.checksum)
    else:
        events = chain([domain.event(0)], events)
    for event in events:
        head = check(head, event, domain.name)
        yield Linked(None, event)
