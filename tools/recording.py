"""A recorded session of backtest-kit as the writes it made: pure, line by line.

A recording is gzip JSONL, one call a line: `{"i": index, "req": {"contract", "context", "method", "args"}}`, anything else in a
line is ignored. A write or remove call becomes one Write (a list of Storage, Notification or Log rows: one a row); every other call
becomes none. Values are cut out of the line as they stand, never decoded and encoded again: what the engine sent is what a store gets.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from eventstore.adapters.contracts import CONTRACTS, Contract, camel
from eventstore.clock import parse_moment
from eventstore.errors import ConfigError, InvalidValueError
from eventstore.model import Key, Part


class Write(msgspec.Struct, frozen=True):
    """One thing to write: `text` is the value's JSON text, verbatim, or None for a removal."""

    domain: str
    key: Key
    text: str | None
    when_us: int | None


class Request(msgspec.Struct, frozen=True):
    """What a call asked, decoded; its exact text is cut out of the line by whoever needs it."""

    contract: str
    method: str
    context: dict[str, str | bool]
    args: list[Any]

    @property
    def writes(self) -> bool:
        """Whether the call changes anything: it is a write or a removal."""
        return self.method.startswith(("write", "remove"))


class Call(msgspec.Struct, frozen=True):
    """One line of a recording."""

    i: int
    req: Request


class _Row(msgspec.Struct, frozen=True):
    id: str


class _Candle(msgspec.Struct, frozen=True):
    timestamp: int


# The standard library's decoder, because msgspec refuses what JSON allows and engines send: "\ud83d", an emoji cut in half.
_scan = json.JSONDecoder().raw_decode
_between = re.compile(r"[ \t\r\n,:]*").match


def read_recording(path: Path) -> list[Write]:
    """Every write of a recording, in order. Raises InvalidValueError, naming the line."""
    with gzip.open(path, "rb") as lines:
        return list(writes_of(lines))


def writes_of(lines: Iterable[bytes]) -> Iterator[Write]:
    """The writes of a recording's lines, in order.

    A call that carries no time of its own takes the latest moment (not the last one named) any write carried before it: the engine
    stamps only the calls that its look-ahead guard asks about, and some of those, such as Recent, with a moment long past.
    """
    latest: int | None = None
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode()
            request = call_of(text).req
            if not request.writes:
                continue
            contract = CONTRACTS[request.contract]
            when = _when(request, contract)
            if when is not None:
                latest = when if latest is None else max(latest, when)
            yield from _writes(request, request_texts(text)["args"], contract, latest if when is None else when)
        except (msgspec.ValidationError, ValueError, LookupError, RecursionError) as error:
            raise InvalidValueError(f"line {number} of the recording is no call that can be replayed: {error!r}") from error


def call_of(line: str) -> Call:
    """One line, decoded. Raises ValueError for text that is not JSON, msgspec.ValidationError for JSON that is no call."""
    return msgspec.convert(json.loads(line), Call)


def request_texts(line: str) -> dict[str, str]:
    """The members of a line's request, each as it stands there. The line must be a call."""
    return _members(_members(line)["req"])


def _members(text: str) -> dict[str, str]:
    parts = list(_parts(text))
    return {name: value for (name, _), (_, value) in zip(parts[::2], parts[1::2], strict=True)}


def _parts(text: str) -> Iterator[tuple[Any, str]]:
    """What stands inside a valid JSON array, or names and values in turn inside an object: decoded, and as it stands."""
    at = _skip(text, text.index(text.lstrip()[0]) + 1)
    while text[at] not in "]}":
        value, end = _scan(text, at)
        yield value, text[at:end]
        at = _skip(text, end)


def _skip(text: str, at: int) -> int:
    found = _between(text, at)
    return found.end() if found else at


def _writes(request: Request, args: str, contract: Contract, when_us: int | None) -> Iterator[Write]:
    domain, context = request.contract.lower(), [_part(request.context[camel(name)]) for name in contract.context]
    values = [text for _, text in _parts(args)]
    if request.method.startswith("remove"):
        yield Write(domain, _key(*context, _id(request.args[0])), None, when_us)
    elif contract.shape == "rows":
        for row, text in _parts(values[0]):
            yield Write(domain, _key(*context, msgspec.convert(row, _Row).id), text, when_us)
    elif contract.shape == "series":
        if request.args[0]:  # an empty list holds nothing to keep, and no timestamp to name it by
            first = msgspec.convert(request.args[0][0], _Candle).timestamp
            yield Write(domain, _key(*context, first), values[0], when_us)
    else:
        last = (_id(request.args[1]),) if contract.shape == "keyed" else ()
        yield Write(domain, _key(*context, *last), values[0], when_us)


def _part(value: str | bool) -> str:
    if isinstance(value, bool):  # the one boolean of a context is `backtest`
        return "backtest" if value else "live"
    return value


def _id(value: Any) -> str:
    return msgspec.convert(value, str)


def _key(*parts: Part) -> Key:
    """The key as reads give it back: one string alone is no tuple."""
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0]
    return parts


def _when(request: Request, contract: Contract) -> int | None:
    """The moment a call carries, in microseconds: a Date's JSON, or integer milliseconds."""
    place = {"one": 1, "keyed": 2}.get(contract.shape)
    if place is None or place >= len(request.args) or request.method.startswith("remove"):
        return None
    when: int | str = msgspec.convert(request.args[place], int | str)
    if isinstance(when, int):
        return when * 1_000
    moment, had_offset = parse_moment(when)
    if not had_offset:
        raise ConfigError(f"{when!r} has no offset")
    return moment
