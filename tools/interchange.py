"""JSONL, the form in which events travel (FORMAT.md section 9): a header line, then one event a line, domain after domain."""

from __future__ import annotations

import base64
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any, cast

import msgspec

from eventstore.codec import FORMAT, other_format
from eventstore.errors import ConfigError, FormatError, InvalidKeyError
from eventstore.model import Domain, Event

DRAFT = 0
"""What the drafts before format 1 said: their events are hashed by the same rules, but for what stands before the first."""


class Header(msgspec.Struct, frozen=True):
    """Whose events follow."""

    format: int
    store_id: str
    domain: str


class _Blob(msgspec.Struct, frozen=True):
    base64: str


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """An Event, field by field and in its order; bytes in hexadecimal, a blob in base64."""

    position: int
    prev: int
    recorded_us: int
    when_us: int | None
    op: str
    checksum: str
    key: str
    meta: str | None
    salt: str | None
    digest: str | None
    data: str | _Blob | None


_encode = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(_Line).decode
_decode_header = msgspec.json.Decoder(Header).decode


def encode_header(store_id: str, domain: str) -> bytes:
    """The line that stands before the events of a domain."""
    return _encode(Header(FORMAT, store_id, domain)) + b"\n"


def encode_event(event: Event) -> bytes:
    """One event as one line."""
    data = _Blob(base64.b64encode(event.data).decode()) if isinstance(event.data, bytes) else event.data
    line = _Line(
        position=event.position,
        prev=event.prev,
        recorded_us=event.recorded_us,
        when_us=event.when_us,
        op=event.op,
        checksum=event.checksum.hex(),
        key=event.key,
        meta=event.meta,
        salt=_hex(event.salt),
        digest=_hex(event.digest),
        data=data,
    )
    return _encode(line) + b"\n"


def _hex(content: bytes | None) -> str | None:
    return None if content is None else content.hex()


def _unhex(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def _event(line: _Line) -> Event:
    data = base64.b64decode(line.data.base64, validate=True) if isinstance(line.data, _Blob) else line.data
    return Event(
        position=line.position,
        prev=line.prev,
        recorded_us=line.recorded_us,
        when_us=line.when_us,
        op=line.op,
        checksum=bytes.fromhex(line.checksum),
        key=line.key,
        meta=line.meta,
        salt=_unhex(line.salt),
        digest=_unhex(line.digest),
        data=data,
    )


def open_lines(stream: IO[bytes], name: str) -> Iterator[bytes]:
    """The lines of a file, unpacked if it is gzip whatever its name. Raises FormatError where the packing is broken."""
    peekable = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast("io.RawIOBase", stream))
    packed = peekable.peek(2)[:2] == b"\x1f\x8b"
    try:
        yield from gzip.GzipFile(fileobj=peekable) if packed else peekable
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FormatError(name, None, f"the gzip file is damaged or cut off: {error}") from error


class Reader:
    """Exported events, domain by domain, read as they are asked for.

    `for header, events in reader:` gives each domain once; events that were not taken are passed over. A line that is
    neither event nor header raises FormatError out of `events`, and the domain ends there. A file that does not even
    begin with a header is not ours: ConfigError.
    """

    def __init__(self, lines: Iterable[bytes], name: str) -> None:
        self._lines = enumerate(lines, 1)
        self._name = name
        self._domain = name
        self.first = self._begin()
        """Whose events come first."""
        self._next: Header | None = self.first

    def __iter__(self) -> Iterator[tuple[Header, Iterator[Event]]]:
        while self._next is not None:
            header, self._next = self._next, None
            self._domain = header.domain
            events = self._events()
            yield header, events
            self._pass_over(events)

    def _begin(self) -> Header:
        for _, line in self._lines:
            try:
                return self._header(line)
            except (msgspec.MsgspecError, FormatError) as error:
                raise ConfigError(
                    f"{self._name}: neither an export of an event store (JSONL) nor a folder of JSON files: {error}"
                ) from error
        raise ConfigError(f"{self._name}: empty, so it says nothing about any domain")

    def _events(self) -> Iterator[Event]:
        for number, line in self._lines:
            try:
                yield _event(_decode_line(line))
            except (msgspec.MsgspecError, ValueError) as error:
                try:
                    self._next = self._header(line)
                except msgspec.MsgspecError:
                    raise FormatError(self._domain, None, f"line {number} of {self._name} is no event: {error}") from error
                return

    def _pass_over(self, events: Iterator[Event]) -> None:
        """Go to the next header, over whatever is left of this domain."""
        for _ in events:
            pass
        if self._next is None:
            for _, line in self._lines:
                try:
                    self._next = self._header(line)
                except (msgspec.MsgspecError, FormatError):
                    continue
                return

    def _header(self, line: bytes) -> Header:
        header = _decode_header(line)
        if header.format not in (DRAFT, FORMAT):
            raise other_format(self._name, header.format)
        try:
            Domain(header.domain)
        except InvalidKeyError as error:
            raise FormatError(self._name, None, str(error)) from error
        return header


def origin_of(event: Event, header: Header) -> dict[str, Any]:
    """What stands as `meta.origin` where an event is appended anew: the one event of all stores that it came from."""
    return {"store_id": header.store_id, "domain": header.domain, "position": event.position, "checksum": event.checksum.hex()}
