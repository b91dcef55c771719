"""What people and tools may read of a served store, a page at a time: a key's history, a state, the log; and whether all of it is whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from eventstore.adapters.rpc import RequestError
from eventstore.clock import parse_moment
from eventstore.codec import encode_key
from eventstore.errors import ConfigError, EventStoreError, NotFoundError
from eventstore.model import Domain, Key
from eventstore.projections.key_states import natural_order
from eventstore.store import Store
from eventstore.tools.arguments import key_of, prefix_of
from eventstore.tools.events import EventLine, event_line, moment_at
from eventstore.tools.state import StateLine, line_of
from eventstore.tools.stores import existing_domain
from eventstore.view import DomainView

MAX_LIMIT = 1_000
LIMIT = 100
PAGE_BYTES = 8 * 2**20
"""After which a page ends, however few it has: a value alone may be larger, and then is one."""

VERIFY_S = 60.0
"""How long a proof may take; a longer one belongs on the machine, as `eventstore verify`."""
VERIFY_BYTES = 16 * 2**20

L = TypeVar("L", EventLine, StateLine)


class Page(msgspec.Struct, Generic[L], frozen=True):
    """Some of what there is, and where the next page begins: the parameter that said where this one did takes it; None at the end."""

    items: list[L]
    next: int | Key | None


Parameters = dict[str, Callable[[str], Any]]
"""What a page may be asked, and how each is read."""


def asked(given: Iterable[tuple[str, str]], known: Parameters, *, needed: Iterable[str] = ()) -> dict[str, Any]:
    """The parameters of a request. Raises RequestError for one that is unknown, given twice, missing, or wrong."""
    found: dict[str, Any] = {}
    for name, text in given:
        if name not in known:
            raise RequestError(400, f"no parameter {name!r}; there are {', '.join(known)}")
        if name in found:
            raise RequestError(400, f"{name} is given twice")
        try:
            found[name] = known[name](text)
        except EventStoreError as error:
            raise RequestError(400, f"{name}: {error}") from None
    for name in needed:
        if name not in found:
            raise RequestError(400, f"{name} is missing")
    return found


def number(least: int, most: int = 2**63 - 1) -> Callable[[str], int]:
    """Reads digits."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) <= 19 and least <= int(text) <= most):
            raise RequestError(400, f"{text[:40]!r} is no whole number from {least} to {most}")
        return int(text)

    return read


def domain_name(text: str) -> str:
    """Reads a domain's name. Raises InvalidKeyError."""
    return Domain(text).name


def cut(text: str) -> int | datetime:
    """Reads a position, or a time in RFC 3339 with an offset. Raises ConfigError."""
    if text.isascii() and text.isdecimal():
        return number(0)(text)
    us, had_offset = parse_moment(text)
    if not had_offset:
        raise ConfigError(f"{text!r} names no offset; a time ends in Z or +01:00, with the + as %2B")
    return moment_at(us)


_PLACE: Parameters = {"ns": str, "domain": domain_name, "limit": number(1, MAX_LIMIT)}
HISTORY: Parameters = {**_PLACE, "key": key_of, "before": number(1)}
STATE: Parameters = {**_PLACE, "as_of": cut, "prefix": prefix_of, "after": key_of}
LOG: Parameters = {**_PLACE, "after": number(0)}
VERIFY: Parameters = {"ns": str, "domain": domain_name}
METRICS: Parameters = {"ns": str}


def history(store: Store, domain: str, *, key: Key, before: int | None = None, limit: int = LIMIT) -> Page[EventLine]:
    """What happened to a key, newest first, from before a position on. Raises NotFoundError for an unknown domain, CompactedError."""
    view = existing_domain(store, domain)
    events = view.events(key=key, reverse=True, until=None if before is None else before - 1, limit=limit + 1)
    return _page((event_line(view, event, with_value=True) for event in events), limit, lambda last: last.position)


def log(store: Store, domain: str, *, after: int = 0, limit: int = LIMIT) -> Page[EventLine]:
    """The events of a domain, oldest first, after a position. Raises NotFoundError for an unknown domain, CompactedError."""
    view = existing_domain(store, domain)
    events = view.events(after, limit=limit + 1)
    return _page((event_line(view, event, with_value=True) for event in events), limit, lambda last: last.position)


def state(
    store: Store,
    domain: str,
    *,
    as_of: int | datetime | None = None,
    prefix: Key | None = None,
    after: Key | None = None,
    limit: int = LIMIT,
) -> Page[StateLine]:
    """What the keys of a domain were at a position or a time, now if none is named, in natural order, after a key.

    Raises NotFoundError for an unknown domain, CompactedError.
    """
    live = existing_domain(store, domain)
    view = live if as_of is None else live.state(as_of)
    return _page(_held(view, prefix, after), limit, lambda last: last.key)


def _held(view: DomainView, prefix: Key | None, after: Key | None) -> Iterator[StateLine]:
    floor = None if after is None else natural_order(encode_key(after))
    keys = (key for key in view.keys(prefix) if floor is None or natural_order(encode_key(key)) > floor)
    yield from filter(None, (line_of(view.name, view, key) for key in keys))


def _page(lines: Iterator[L], limit: int, cursor: Callable[[L], int | Key]) -> Page[L]:
    items: list[L] = []
    size = 0
    for line in lines:
        if len(items) == limit or size > PAGE_BYTES:
            return Page(items, cursor(items[-1]))
        items.append(line)
        size += len(bytes(line.value)) if isinstance(line.value, msgspec.Raw) else 0
    return Page(items, None)


async def verify(folder: Path, domain: str | None) -> bytes:
    """The report of `eventstore verify` on a store, as JSON, without its place.

    By a process of its own, which is ended if it takes too long: a proof reads everything there is, and must not take the server with it.
    Raises NotFoundError for an unknown domain, RequestError.
    """
    words = ["verify", str(folder), *filter(None, [domain]), "--json", "--processes", "1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)}
    environment.pop("EVENTSTORE_TOKEN", None)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "eventstore", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment
    )
    assert process.stdout is not None  # it was asked for
    assert process.stderr is not None
    try:
        async with asyncio.timeout(VERIFY_S):
            said, complaint = await asyncio.gather(_all_of(process.stdout), _all_of(process.stderr))
            code = await process.wait()
    except TimeoutError:
        raise RequestError(503, f"the proof takes more than {VERIFY_S:.0f} s: run `eventstore verify` on the machine") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if complaint is not None and complaint.startswith(b'{"error":"NotFoundError"'):
        raise NotFoundError(f"no domain {domain!r}")
    if code not in (0, 1) or not said:
        raise RequestError(503, "the store could not be verified: run `eventstore verify` on the machine, which says why")
    report = msgspec.json.decode(said.replace(str(folder).encode(), b"STORE"))
    del report["store"]
    return msgspec.json.encode(report)


async def _all_of(stream: asyncio.StreamReader) -> bytes | None:
    """What a process says until its end; None if that is more than anybody reads."""
    try:
        await stream.readexactly(VERIFY_BYTES)
    except asyncio.IncompleteReadError as ended:
        return ended.partial
    return None
