"""JSONL, the form in which events travel (FORMAT.md section 9): a header line, then one event a line, domain after domain.

A log whose first files are not at hand begins with what is left of them: event ids, and what is carried over its floor.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Annotated, TypeVar, cast

import msgspec

from eventstore.codec import FORMAT, other_format
from eventstore.errors import ConfigError, FormatError, InvalidKeyError
from eventstore.model import Domain, Event, Linked

_Read = TypeVar("_Read")

_ALIEN = (
    (b"\xef\xbb\xbf", "a byte order mark stands in front, which an editor put there: export again, or remove these three bytes"),
    (b"\xff\xfe", "it is UTF-16, as a shell or an editor makes of it: export again, with -o FILE"),
    (b"\xfe\xff", "it is UTF-16, as a shell or an editor makes of it: export again, with -o FILE"),
    (b"\x1f\x8b", "it was packed twice: unpack it once"),
    (b"SQLite format 3\0", "it is a database, and a copy for looking at cannot be imported: export without --sqlite"),
)
"""How the first line begins of what people take for an export, and what became of it."""

DRAFT = 0
"""What the drafts before format 1 said: their events are hashed by the same rules, but for what stands before the first."""


_Hex32 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class End(msgspec.Struct, frozen=True):
    """The last event of a domain that is exported."""

    position: int
    checksum: _Hex32


class Ids(msgspec.Struct, frozen=True):
    """The event ids up to a floor: how many, and SHA-256 over hash and position of each, in the order of their lines."""

    count: int
    sha256: _Hex32


class Header(msgspec.Struct, frozen=True):
    """Whose events follow, and how many of them: that a file was cut off can be told from its first lines."""

    format: int
    store_id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    domain: str
    floor: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Events up to here are in no file at hand: what is carried over the seal there stands before those behind it."""
    head: End | None = None
    """None in the exports of drafts, which did not say it."""
    ids: Ids | None = None
    """None where the floor is 0: there the events say theirs."""
    following: list[str] = []
    """The domains that come after this one, in order."""


class _Blob(msgspec.Struct, frozen=True):
    base64: str


class _IdsLine(msgspec.Struct, frozen=True):
    ids: list[tuple[Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")], Annotated[int, msgspec.Meta(ge=1)]]]


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """An Event, field by field and in its order; bytes in hexadecimal, a blob in base64.

    `previous`, the checksum of the event before it, stands with those that are carried alone.
    """

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
    previous: str | msgspec.UnsetType = msgspec.UNSET


_IDS_A_LINE = 1_000

_encode = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(_Line).decode
_decode_ids = msgspec.json.Decoder(_IdsLine).decode
_decode_header = msgspec.json.Decoder(Header).decode


def encode_header(header: Header) -> bytes:
    """The line that stands before the events of a domain."""
    return _encode(header) + b"\n"


class IdsSum:
    """What a header says of event ids, as they are counted in."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.count = 0

    def add(self, hashed: int, position: int) -> None:
        """Count in one, by its hash and where it stands."""
        self._digest.update(hashed.to_bytes(8, "big") + position.to_bytes(8, "big"))
        self.count += 1

    def ids(self) -> Ids:
        """The sum so far."""
        return Ids(self.count, self._digest.hexdigest())


def ids_of(pairs: Iterable[tuple[int, int]]) -> Ids:
    """What the header says of event ids, each given as hash and position."""
    summed = IdsSum()
    for hashed, position in pairs:
        summed.add(hashed, position)
    return summed.ids()


def encode_ids(pairs: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """The lines of event ids, as many as it takes."""
    for start in range(0, len(pairs), _IDS_A_LINE):
        yield _encode(_IdsLine([(f"{hashed:016x}", position) for hashed, position in pairs[start : start + _IDS_A_LINE]])) + b"\n"


def encode_event(event: Event, previous: bytes | None = None) -> bytes:
    """One event as one line; with the checksum of the event before it, if it is carried."""
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
        previous=msgspec.UNSET if previous is None else previous.hex(),
    )
    return _encode(line) + b"\n"


def _hex(content: bytes | None) -> str | None:
    return None if content is None else content.hex()


def _unhex(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def decode_event(content: bytes) -> Event:
    """The event that encode_event() made this line of."""
    return _event(_decode_line(content))


def _read_linked(content: bytes) -> Linked:
    line = _decode_line(content)
    return Linked(None if line.previous is msgspec.UNSET else bytes.fromhex(line.previous), _event(line))


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


class Exported(msgspec.Struct, frozen=True):
    """One domain of an export. Its parts stand in this order, and are read in it."""

    header: Header
    carried: Iterator[Linked]
    """What is carried over the floor, the birth row first; nothing where the floor is 0."""
    ids: Iterator[tuple[int, int]]
    """The hash of each event_id up to the floor, and the position of the event that carries it."""
    events: Iterator[Event]
    """Those behind the floor; from the birth row on, where that is 0."""


class Reader:
    """Exported events, domain by domain, read as they are asked for.

    `for exported in reader:` gives each domain once; what was not taken of it is passed over. A line that does not belong where it
    stands raises FormatError out of what is being taken, and so does an end that is not the one which the header names: the
    export was cut off. The domain ends there. A file that does not even begin with a header is not ours: ConfigError.
    """

    def __init__(self, lines: Iterable[bytes], name: str) -> None:
        self._lines = self._counted(lines)
        self.name = name
        self._domain = name
        self.line = 0
        """The number of the line that was read last."""
        self.missing: dict[str, str] = {}
        """After the last domain: those that never came, and the one whose header announced them."""
        self.first = self._begin()
        """Whose events come first."""
        self._next: Header | None = self.first

    def __iter__(self) -> Iterator[Exported]:
        while self._next is not None:
            header, self._next = self._next, None
            self._domain = header.domain
            self.missing |= dict.fromkeys(header.following, header.domain)
            self.missing.pop(header.domain, None)
            carried, ids = self._carried(header), self._ids(header)
            yield Exported(header, carried, ids, self._events(header, carried, ids))
            self._pass_over()

    def _counted(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        for line in lines:
            self.line += 1
            yield line

    def _begin(self) -> Header:
        for line in self._lines:
            try:
                return self._header(line)
            except (msgspec.MsgspecError, FormatError) as error:
                why = next((why for sign, why in _ALIEN if line.startswith(sign)), f"line 1 is no header: {error}")
                raise ConfigError(f"{self.name}: neither an export of an event store (JSONL) nor a folder of JSON files: {why}") from error
        raise ConfigError(f"{self.name}: empty, so it says nothing about any domain")

    def _take(self, read: Callable[[bytes], _Read]) -> _Read | None:
        """What the next line of this domain says; None where it ends."""
        if self._next is not None:
            return None
        for line in self._lines:
            try:
                return read(line)
            except (msgspec.MsgspecError, ValueError) as error:
                try:
                    self._next = self._header(line)
                except msgspec.MsgspecError:
                    found = error if line.strip() else "it is empty"
                    raise FormatError(
                        self._domain, None, f"line {self.line} of {self.name} is not what should stand there: {found}"
                    ) from error
                return None
        return None

    def _carried(self, header: Header) -> Iterator[Linked]:
        if header.floor and (header.head is None or header.ids is None):
            raise FormatError(header.domain, header.floor, "the header of an export that begins behind a floor names its head and its ids")
        at = -1 if header.floor else 0
        while at < header.floor:
            each = self._take(_read_linked)
            if each is None:
                raise self._cut_off(header, at)
            at = each.event.position
            if at > header.floor:
                raise FormatError(header.domain, at, f"this event stands among those that are carried over the floor, {header.floor}")
            yield each

    def _ids(self, header: Header) -> Iterator[tuple[int, int]]:
        if header.ids is None:
            return
        summed = IdsSum()
        while summed.count < header.ids.count:
            line = self._take(_decode_ids)
            if line is None:
                raise self._cut_off(header, header.floor)
            for text, position in line.ids:
                pair = (int(text, 16), position)
                summed.add(*pair)
                yield pair
        if summed.ids() != header.ids:
            raise FormatError(header.domain, header.floor, "the event ids are not those that the header of the export names: altered")

    def _events(self, header: Header, *before: Iterator[object]) -> Iterator[Event]:
        for part in before:
            for _ in part:
                pass
        head, last = header.head, header.floor or -1
        checksum: bytes | None = None
        while (each := self._take(_read_linked)) is not None:
            last, checksum = each.event.position, each.event.checksum
            if head is not None and last > head.position:
                raise FormatError(header.domain, last, f"the header of the export names position {head.position} as its last event")
            yield each.event
        if head is not None and last < head.position:
            raise self._cut_off(header, last)
        if head is not None and checksum is not None and checksum.hex() != head.checksum:
            raise FormatError(header.domain, last, "the header of the export names another last event: it was altered")

    def _cut_off(self, header: Header, last: int) -> FormatError:
        """The error for a domain of which nothing comes behind position `last`, -1 being nothing at all."""
        assert header.head is not None  # else nobody could know
        missing = f"the events from position {last + 1} to {header.head.position} are missing from {self.name}"
        return FormatError(header.domain, max(last, 0), f"{missing}, though its header names them: it was cut off; export again")

    def _pass_over(self) -> None:
        """Go to the next header, over whatever is left of this domain."""
        while self._next is None:
            line = next(self._lines, None)
            if line is None:
                return
            try:
                self._next = self._header(line)
            except (msgspec.MsgspecError, FormatError):
                continue

    def _header(self, line: bytes) -> Header:
        header = _decode_header(line)
        if header.format not in (DRAFT, FORMAT):
            raise other_format(self.name, header.format)
        try:
            Domain(header.domain)
        except InvalidKeyError as error:
            raise FormatError(self.name, None, str(error)) from error
        return header
