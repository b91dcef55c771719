"""Show what was held at a moment.

That is every key with its value as of a position or a recorded time; without --as-of, now.

Digits after --as-of are a position and need a DOMAIN. A time is RFC 3339 with an offset; one without is taken as
local, and said so on stderr. On a terminal long values are cut to its width. With --json one key a line.

Example:
  eventstore state data notes --as-of 1
  eventstore state data --as-of 2026-11-21T10:00:00+00:00
  eventstore state data notes --json
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from eventstore.errors import ConfigError, NotFoundError, RedactedError
from eventstore.model import Key
from eventstore.tools.stores import chosen_domains, existing_store
from eventstore.tools.terminal import clip, escape, json_safe, key_text, table
from eventstore.view import DomainView


class StateLine(msgspec.Struct, frozen=True):
    """A key, what it held, and the position of the event that says so; `value` is None if it was redacted."""

    domain: str
    key: Key
    position: int
    when_us: int | None
    redacted: bool
    value: msgspec.Raw | None


def state(
    location: str,
    domain: str | None = None,
    *,
    as_of: datetime | int | None = None,
    prefix: Key | None = None,
    read_only: bool = False,
    archives: Sequence[Path] = (),
) -> Iterator[StateLine]:
    """The keys that had a value at the cut, domain by domain, in natural order. Raises ConfigError for a position without a domain."""
    if isinstance(as_of, int) and domain is None:
        raise ConfigError(f"--as-of {as_of} is a position, and every domain counts its own: name the DOMAIN, or give a time")
    with existing_store(location, read_only=read_only, archives=archives) as store:
        for each in chosen_domains(store, domain):
            yield from held(each.name, each if as_of is None else each.state(as_of), prefix)


def held(domain: str, view: DomainView, prefix: Key | None = None) -> Iterator[StateLine]:
    """Every key of a view and its value; around a redacted one, which items() would stop at."""
    yield from filter(None, (line_of(domain, view, key) for key in view.keys(prefix)))


def line_of(domain: str, view: DomainView, key: Key) -> StateLine | None:
    """A key of a view and its value; None if it was removed since its name was read: a live view moves."""
    found = view.state_of(key)
    if found is None or found.status == "removed":
        return None
    try:
        value: msgspec.Raw | None = view.read_value(key)
    except RedactedError:
        value = None
    except NotFoundError:
        return None
    return StateLine(domain, key, found.position, found.when_us, value is None, value)


def render(lines: Iterable[StateLine], width: int | None, *, with_domain: bool) -> Iterator[str]:
    """One line a key."""
    for row in table(_row(line, with_domain) for line in lines):
        yield clip(row, width)


def _row(line: StateLine, with_domain: bool) -> list[str]:
    value = "(redacted)" if line.value is None else json_safe(bytes(line.value).decode())
    return [*([escape(line.domain)] if with_domain else []), key_text(line.key), value]
