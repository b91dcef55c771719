"""Show what happened to a key.

Each version is shown as its differences from the one before, newest first. A place is written like in jq:
.entries[0].price. With --json one version a line. Exit 1 if the key was never written.

Where its older versions are in no file at hand, as they were archived and the archive is not attached, or were deleted, those at hand
are shown, what the oldest of them changed is left open, and it ends with 2: stderr says up to where, and what to attach.

Example:
  eventstore history data notes hello
  eventstore history data notes hello --reverse --json
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from eventstore.errors import CompactedError, NotFoundError
from eventstore.model import Event, Key
from eventstore.tools.difference import Change, differences
from eventstore.tools.events import EventLine, event_line, heading, text_or_none
from eventstore.tools.stores import existing_domain, existing_store
from eventstore.tools.terminal import Paint, clip, escape, json_safe, key_text
from eventstore.view import DomainView


class Version(EventLine, frozen=True, kw_only=True):
    """One event of the key, and what it changed."""

    changes: list[Change] | None
    """None: the version before it is not at hand."""


def history(
    location: str,
    domain: str,
    key: Key,
    *,
    limit: int | None = None,
    reverse: bool = False,
    read_only: bool = False,
    archives: Sequence[Path] = (),
) -> Iterator[Version]:
    """The versions of `key`, newest first, or oldest first with `reverse`; `limit` counts from there.

    Raises NotFoundError; CompactedError where some are not at hand, newest first once all that are were given.
    """
    with existing_store(location, read_only=read_only, archives=archives) as store:
        view = existing_domain(store, domain)
        if view.state_of(key) is None:
            raise NotFoundError(f"{domain} {key_text(key)}: never written")
        if reverse:
            yield from oldest_first(view, view.events(key=key, limit=limit))
        else:
            # One event more than versions: the oldest one shown differs from something, too.
            events = view.history(key, None if limit is None else limit + 1)
            for shown, version in enumerate(newest_first(view, events)):
                if shown == limit:  # not before the next one is there, or is not at hand
                    return
                yield version


def newest_first(domain: DomainView, events: Iterable[Event]) -> Iterator[Version]:
    """A key's events, newest first, as versions. Raises CompactedError behind the last of those that are at hand."""
    newer: Event | None = None
    try:
        for event in events:
            if newer is not None:
                yield _version(domain, event, newer)
            newer = event
    except CompactedError:
        if newer is not None:
            yield Version(**msgspec.structs.asdict(event_line(domain, newer)), changes=None)
        raise
    if newer is not None:
        yield _version(domain, None, newer)


def oldest_first(domain: DomainView, events: Iterable[Event]) -> Iterator[Version]:
    """A key's events, oldest first, as versions."""
    older: Event | None = None
    for event in events:
        yield _version(domain, older, event)
        older = event


def _version(domain: DomainView, older: Event | None, event: Event) -> Version:
    changes = differences(_text(domain, older), _text(domain, event)) if event.digest is None else []
    return Version(**msgspec.structs.asdict(event_line(domain, event)), changes=changes)


def _text(domain: DomainView, event: Event | None) -> str | None:
    return None if event is None else text_or_none(domain, event)


def render(version: Version, paint: Paint, width: int | None) -> Iterator[str]:
    """A heading, then one line a difference."""
    yield heading(version, paint)
    if version.changes is None:
        yield paint("    the version before it is not at hand", "dim")
    elif not version.changes and version.op == "put" and not version.redacted:
        yield paint("    the same value", "dim")
    for change in version.changes or ():
        yield from _lines(change, paint, width)


def _lines(change: Change, paint: Paint, width: int | None) -> Iterator[str]:
    path = escape(change.path)
    old, new = (None if raw is None else json_safe(bytes(raw).decode()) for raw in (change.old, change.new))
    if old is None:
        yield paint(clip(f"    + {path}: {new}", width), "new")
    elif new is None:
        yield paint(clip(f"    - {path}: {old}", width), "old")
    elif width is None or len(path) + len(old) + len(new) + 12 <= width:
        yield f"    ~ {path}: {paint(old, 'old')} -> {paint(new, 'new')}"
    else:
        yield paint(clip(f"    - {path}: {old}", width), "old")
        yield paint(clip(f"    + {path}: {new}", width), "new")
