"""List a store's domains, or the keys of one.

STORE alone: each domain with its keys, events, head, and bytes on disk. STORE DOMAIN: the keys that have a value, in
natural order (id2 before id10); PREFIX, written like a KEY, selects those that begin with these parts. With --json
one domain or key a line.

Example:
  eventstore ls data
  eventstore ls data notes -l
  eventstore ls data positions binance
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from eventstore import copies
from eventstore.clock import format_us
from eventstore.files import stat_or_none
from eventstore.model import Key
from eventstore.store import Store
from eventstore.tools.stores import existing_domain, existing_store, raw_domain
from eventstore.tools.terminal import Paint, escape, key_text, size_text, table


class DomainLine(msgspec.Struct, frozen=True):
    """A domain as it is now; `size_bytes` counts all its files."""

    domain: str
    keys: int
    events: int
    checksum: str
    size_bytes: int


class KeyLine(msgspec.Struct, frozen=True):
    """A key that has a value."""

    key: Key
    position: int
    when_us: int | None
    redacted: bool


def ls(location: str, *, read_only: bool = False) -> Iterator[DomainLine]:
    """The domains by name."""
    with existing_store(location, read_only=read_only) as store:
        for name in store.domains():
            domain = raw_domain(store, name)
            head = domain.head()
            keys = len(domain)
            yield DomainLine(name, keys, head.position, head.checksum.hex(), _size(store, name))


def _size(store: Store, domain: str) -> int:
    """The bytes of its files; one that a living writer has renamed or removed meanwhile counts nothing."""
    folder = copies.opened(Path(store.location), read_only=True) / "logs" / domain
    found = [status for path in folder.rglob("*") if (status := stat_or_none(path)) is not None]
    return sum(status.st_size for status in found if stat.S_ISREG(status.st_mode))


def ls_keys(location: str, domain: str, prefix: Key | None = None, *, read_only: bool = False) -> Iterator[KeyLine]:
    """The keys of a domain in natural order."""
    with existing_store(location, read_only=read_only) as store:
        view = existing_domain(store, domain)
        for key in view.keys(prefix):
            state = view.state_of(key)
            if state is not None:
                yield KeyLine(key, state.position, state.when_us, state.status == "redacted")


def render(lines: Iterable[DomainLine], paint: Paint) -> Iterator[str]:
    """A table with a heading."""
    rows = [["domain", "keys", "events", "size", "head"]]
    rows += [[escape(line.domain), f"{line.keys:,}", f"{line.events:,}", size_text(line.size_bytes), line.checksum[:12]] for line in lines]
    heading, *rest = table(rows, right=frozenset({1, 2, 3}))
    if rest:
        yield paint(heading, "dim")
        yield from rest


def render_keys(lines: Iterable[KeyLine], *, long: bool) -> Iterator[str]:
    """A key a line; `long` with the position and time of its value."""
    if not long:
        yield from (key_text(line.key) for line in lines)
        return
    yield from table(
        [
            str(line.position),
            "" if line.when_us is None else format_us(line.when_us),
            key_text(line.key) + (" (redacted)" if line.redacted else ""),
        ]
        for line in lines
    )
