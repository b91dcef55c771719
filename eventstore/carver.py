"""Rows out of the bytes of a SQLite database file and its WAL, whatever is left of them. Pure: nothing is opened, nothing believed.

A row is found by the header of its own record, which in the table `event` can only have few forms, never by what points to
it: so it is found in a page whose header is gone, in a file whose header is gone, in frames of every generation of a
WAL, and in space that was freed. What is found is a candidate; only its checksum can prove it (eventstore/survivors.py).
The layout of pages, cells, records and frames: https://www.sqlite.org/fileformat2.html, sections 1.5, 1.6, 2.1 and 4.1.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Literal

import msgspec

from eventstore.codec import OPS
from eventstore.model import Event

Content = bytes | mmap.mmap
Part = Literal["database", "wal"]
Reached = Callable[[int], None]
"""Called with the bytes looked through so far."""

PAGE_BYTES = 8_192
"""What our files have (FORMAT.md section 2); another size is believed where a header says so, beside this one."""

_WINDOW = 4 * 2**20
_WAL_HEADER, _FRAME_HEADER = 32, 24
_VARIANTS = 8
"""Ways to assemble one row's overflow pages, where their versions differ. The checksum says which one is right."""

# Serial types of the first six columns. The position is the row's id, so its own column is NULL; integers but no float,
# `when_us` may be NULL; `op` is a text as long as one of the known ones; a checksum is a blob of 32 bytes.
_INTEGER = rb"\x01-\x06\x08\x09"
_OP = re.escape(bytes(sorted({13 + 2 * len(op) for op in OPS})))
_HEADER = re.compile(rb"\x00[%b]{2}[\x00%b][%b]\x4c" % (_INTEGER, _INTEGER, _OP), re.DOTALL)
_HEADER_BYTES = 6
_INTEGER_BYTES = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}
_COLUMNS = 11
_MAGIC = b"SQLite format 3\x00"


class Row(msgspec.Struct, frozen=True):
    """What stands at one place: `checksum` as it is stored there, and the event in every way its pages can be put together.

    No event where the rest of the row is damaged; its checksum may still prove the event that follows.
    """

    part: Part
    offset: int
    position: int
    checksum: bytes
    events: list[Event]


class _Record(msgspec.Struct, frozen=True):
    """The shape of a record: where it begins, the sizes and types of its columns, how much of it is outside the page."""

    begin: int
    types: list[int]
    sizes: list[int]
    header: int
    local: int
    payload: int


def page_sizes(database: Content, wal: Content) -> list[int]:
    """The sizes that a page may have here: ours, and what the headers say, in case a tool changed it."""
    sizes = [PAGE_BYTES]
    if database[:16] == _MAGIC:
        declared = int.from_bytes(database[16:18], "big")
        sizes.append(65_536 if declared == 1 else declared)
    if wal[:4] in (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"):
        sizes.append(int.from_bytes(wal[8:12], "big"))
    return [size for size in dict.fromkeys(sizes) if 512 <= size <= 65_536 and size & (size - 1) == 0]


def user_version(database: Content) -> int | None:
    """The format's number plus one as the database's header says it; None where there is no header."""
    return int.from_bytes(database[60:64], "big") if len(database) >= 100 and database[:16] == _MAGIC else None


# A cell of the table `carried`: length of the payload, row id, header (its own length, NULL for the row id, a blob of 32 bytes), blob.
_CARRIED = re.compile(rb"\x23([\x80-\xff]{0,8}[\x00-\x7f])\x03\x00\x4c(.{32})", re.DOTALL)


class Image:
    """A database file and its WAL, cut into pages of one size. Either may be empty, cut off, or full of anything."""

    def __init__(self, database: Content, wal: Content, page_bytes: int = PAGE_BYTES) -> None:
        self._contents: dict[Part, Content] = {"database": database, "wal": wal}
        self._page = page_bytes
        self._frame = _FRAME_HEADER + page_bytes
        self._frames: dict[int, list[int]] = {}
        """Page number: where its versions stand in the WAL, of every generation."""
        for at in range(_WAL_HEADER, len(wal) - _FRAME_HEADER, self._frame):
            self._frames.setdefault(int.from_bytes(wal[at : at + 4], "big"), []).append(at + _FRAME_HEADER)
        # Of a payload beyond the first, the second is the least that stays in the page (section 1.6).
        self._local_most = page_bytes - 35
        self._local_least = (page_bytes - 12) * 32 // 255 - 23

    def rows(self, reached: Reached | None = None) -> Iterator[Row]:
        """Every row that can be read, in the order of the bytes: the database's, then the WAL's."""
        before = 0
        for part, content in self._contents.items():
            for start in range(0, len(content), _WINDOW):
                end = start + _WINDOW
                for found in _HEADER.finditer(content, start, min(end + _HEADER_BYTES - 1, len(content))):
                    if found.start() < end and (row := self.row_at(part, found.start() - 1)) is not None:
                        yield row
                if reached is not None:
                    reached(before + min(end, len(content)))
            before += len(content)

    def links(self) -> Iterator[tuple[int, bytes]]:
        """What may be rows of the table `carried`: position, and checksum of the event before it. Candidates, as all that is carved."""
        for content in self._contents.values():
            for found in _CARRIED.finditer(content):
                position, _ = _varint(found[1], 0, len(found[1]))
                yield position, found[2]

    def row_at(self, part: Part, offset: int) -> Row | None:
        """The row whose record begins at `offset`; None if there is none."""
        block = self._block(part, offset)
        if block is None:
            return None
        content = self._contents[part]
        record = self._record(content, offset, block[1])
        position = None if record is None else _position(content, record, block[0])
        if record is None or position is None:
            return None
        values = offset + record.header
        narrow = sum(record.sizes[:5])
        checksum = content[values + narrow : values + narrow + 32]
        events = []
        for payload in islice(self._payloads(part, record, block[0]), _VARIANTS):
            event = _event(position, payload, record)
            if event is not None and event not in events:
                events.append(event)
        return Row(part, offset, position, bytes(checksum), events)

    def _block(self, part: Part, offset: int) -> tuple[int, int] | None:
        """Begin and end of the page around `offset`; None between pages."""
        length = len(self._contents[part])
        if part == "database":
            begin = offset - offset % self._page
        else:
            begin = offset - (offset - _WAL_HEADER) % self._frame + _FRAME_HEADER
            if offset < begin or begin < _WAL_HEADER + _FRAME_HEADER:
                return None
        return begin, min(begin + self._page, length)

    def _record(self, content: Content, begin: int, end: int) -> _Record | None:
        """The record that begins at `begin`, if it has the columns of an event, ends before `end` and is all there."""
        if begin < 0:
            return None
        header = content[begin]
        said = content[begin : min(begin + header, end)]
        types: list[int] = []
        at = 1
        while len(types) < _COLUMNS and at < len(said):
            number, at = (said[at], at + 1) if said[at] < 0x80 else _varint(said, at, len(said))
            types.append(number)
        if len(types) < _COLUMNS or at != header or not _are_types_of_an_event(types):
            return None
        sizes = [_size(number) for number in types]
        payload = header + sum(sizes)
        local = payload
        if payload > self._local_most:
            local = self._local_least + (payload - self._local_least) % (self._page - 4)
            if local > self._local_most:
                local = self._local_least
        if begin + local + (4 if local < payload else 0) > end or header + sum(sizes[:6]) > local:
            return None
        return _Record(begin, types, sizes, header, local, payload)

    # ---- overflow pages

    def _payloads(self, part: Part, record: _Record, page: int) -> Iterator[bytes]:
        """The record's bytes: one way if they are all in the page, else every way its overflow pages allow."""
        content = self._contents[part]
        end = record.begin + record.local
        here = bytes(content[record.begin : end])
        if record.local == record.payload:
            yield here
            return
        first = int.from_bytes(content[end : end + 4], "big")
        for rest in self._overflow(first, record.payload - record.local, page if part == "wal" else None):
            yield here + rest

    def _overflow(self, first: int, length: int, near: int | None) -> Iterator[bytes]:
        """What a chain of overflow pages holds: each page says which one follows, the last one says 0."""
        step = self._page - 4
        count = -(-length // step)
        if count > sum(map(len, self._contents.values())) // step + 2:
            return
        visits = 4 * count + 64
        chosen: list[bytes] = []
        waiting = [iter(self._versions(first, near))]
        while waiting and visits:
            page = next(waiting[-1], None)
            if page is None:
                waiting.pop()
                if chosen:
                    chosen.pop()
                continue
            visits -= 1
            needed = min(step, length - step * len(chosen))
            following, body = int.from_bytes(page[:4], "big"), page[4 : 4 + needed]
            if len(body) < needed or (following == 0) != (len(chosen) + 1 == count):
                continue
            if following == 0:
                yield b"".join((*chosen, body))
            else:
                chosen.append(body)
                waiting.append(iter(self._versions(following, near)))

    def _versions(self, number: int, near: int | None) -> list[bytes]:
        """The different contents that a page has: for a row in the WAL those next to it first, else the database's."""
        frames = self._frames.get(number, [])
        wal, database = self._contents["wal"], self._contents["database"]
        begin = (number - 1) * self._page
        settled = [database[begin : begin + self._page]] if number > 0 and begin < len(database) else []
        if near is None:
            order = [*settled, *(wal[at : at + self._page] for at in reversed(frames[-_VARIANTS:]))]
        else:
            closest = sorted(frames, key=lambda at: (at > near, abs(at - near)))[:_VARIANTS]
            order = [*(wal[at : at + self._page] for at in closest), *settled]
        return list(dict.fromkeys(order))


def _varint(content: Content, at: int, end: int) -> tuple[int, int]:
    """SQLite's integer of one to nine bytes, and where it ends; a cut-off one ends nowhere that fits."""
    value = 0
    for taken in range(9):
        if at + taken >= end:
            break
        byte = content[at + taken]
        if taken == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + taken + 1
    return 0, end + 1


def _packed(value: int) -> bytes:
    """`value`, below 2^56, as SQLite writes it."""
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | 0x80)
    return bytes(reversed(groups))


def _position(content: Content, record: _Record, page: int) -> int | None:
    """The row's id, which stands before the record, after the payload's length, which is known: read backwards."""
    length = _packed(record.payload)
    for size in range(1, 10):
        at = record.begin - size
        start = at - len(length)
        if start < page or (size > 1 and content[at] < 0x80):
            return None
        if content[start:at] == length:
            position, end = _varint(content, at, record.begin)
            if end == record.begin and position < 2**63:
                return position
    return None


def _are_types_of_an_event(types: list[int]) -> bool:
    key, meta, salt, digest, data = types[6:]
    return _is_text(key) and (meta == 0 or _is_text(meta)) and salt in (0, 44) and digest in (0, 76) and (data == 0 or data >= 12)


def _is_text(number: int) -> bool:
    return number >= 13 and number % 2 == 1


def _size(number: int) -> int:
    return (number - 12) // 2 if number >= 12 else _INTEGER_BYTES[number]


def _event(position: int, payload: bytes, record: _Record) -> Event | None:
    """The columns as the binding would give them; None if a text is none."""
    values: list[Any] = []
    at = record.header
    for number, size in zip(record.types, record.sizes, strict=True):
        field = payload[at : at + size]
        at += size
        if number >= 12:
            try:
                values.append(field if number % 2 == 0 else field.decode())
            except UnicodeDecodeError:
                return None
        elif number == 0:
            values.append(None)
        else:
            values.append({8: 0, 9: 1}.get(number, int.from_bytes(field, "big", signed=True)))
    return Event(position, *values[1:])  # the header said of which type each is
