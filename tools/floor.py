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

_log = logging.getLogger("eventstore")


def say_floor(domain: DomainStore) -> int:
    """Up to which position events are in no file at hand, 0 if all are there: said as a warning, so that nobody takes the rest for all.

    Raises CompactedError for a file of which the log does not say where it went: that one was lost.
    """
    log = domain.group.live.log
    floor = log.floor()
    if not floor or not isinstance(log, FileLog):
        return floor
    said = {first: each for first, each in latest(log.archived()).items() if first <= floor}
    below = {first for first, _ in log.missing()} | {first for first in log.sealed() if first <= floor}
    for first in sorted(below - said.keys()):
        raise CompactedError(domain.name, first, floor)
    places = [f"archived to {place}" for place in sorted({each.to for each in said.values() if each.to is not None})]
    deleted = ["deleted"] if any(each.to is None for each in said.values()) else []
    _log.warning("%s: events up to position %d are in no file at hand: %s", domain.name, floor, ", ".join([*places, *deleted]))
    return floor


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
