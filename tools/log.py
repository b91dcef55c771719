"""List events.

Those of one domain, or of all of them in the order of their times, the oldest first. Every event is on one line, its
value below it with -p. On a terminal long values are cut to its width, into a pipe they are whole. With --json one
event a line.

Where the first events were archived, and the archive is not attached, or were deleted, the list begins behind them, and stderr
says so, with --json every line, too. An --after before that is refused.

Example:
  eventstore log data notes
  eventstore log data notes -p --reverse --limit 10
  eventstore log data --since 2024-01-01T00:00:00Z --json
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from eventstore.domain import DomainStore
from eventstore.errors import CompactedError
from eventstore.model import Event, Key
from eventstore.tools.events import EventLine, event_line, heading, moment_at
from eventstore.tools.floor import say_floor
from eventstore.tools.stores import chosen_domains, existing_store
from eventstore.tools.terminal import Paint, clip, json_safe


def log(
    location: str,
    domain: str | None = None,
    *,
    key: Key | None = None,
    since_us: int | None = None,
    after: int | None = None,
    limit: int | None = None,
    reverse: bool = False,
    values: bool = False,
    read_only: bool = False,
    archives: Sequence[Path] = (),
) -> Iterator[EventLine]:
    """The events after position `after` and recorded at or after `since_us`; `limit` counts from where the list begins.

    `after` None: from the first that is at hand; that it is not the first of all is said as a warning. Raises CompactedError for
    another `after` before that, and where the first ones were lost.
    """
    with existing_store(location, read_only=read_only, archives=archives) as store:
        lists = [_events(each, key, since_us, after, limit, reverse) for each in chosen_domains(store, domain)]
        merged = heapq.merge(*lists, key=lambda entry: entry[1].recorded_us, reverse=reverse)
        for shown, (each, event) in enumerate(merged):
            if limit is not None and shown >= limit:
                return
            yield event_line(each, event, with_value=values)


def _events(
    domain: DomainStore, key: Key | None, since_us: int | None, after: int | None, limit: int | None, reverse: bool
) -> Iterator[tuple[DomainStore, Event]]:
    begins = domain.floor if after is None else after
    if since_us is not None:
        try:
            begins = max(begins, domain.state(moment_at(since_us - 1)).head().position)
        except CompactedError:
            if after is not None and after < domain.floor:
                raise
    cut = after is None and begins == domain.floor
    if cut and not reverse:
        say_floor(domain)
    given = 0
    for event in domain.events(begins, key=key, limit=limit, reverse=reverse):
        yield domain, event
        given += 1
    if cut and reverse and given != limit:
        say_floor(domain)


def render(line: EventLine, paint: Paint, width: int | None, *, with_domain: bool) -> Iterator[str]:
    """The event, and below it its value."""
    yield heading(line, paint, position_width=6, domain_width=12 if with_domain else None)
    if isinstance(line.value, msgspec.Raw):
        yield clip("        " + json_safe(bytes(line.value).decode()), width)
