"""Where each event stands in the bytes of a database and its WAL: by the pages' own pointers, and not one line of the carver.

So a test can say which events a damage left whole. Only for files that are whole, of logs that nobody redacted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from eventstore import Event

PAGE = 8_192
LEAF = 0x0D
WAL_HEADER, FRAME_HEADER = 32, 24
COLUMNS = 11


class Extent(NamedTuple):
    """Bytes of a file: 0 is the database, 1 the WAL."""

    file: int
    begin: int
    end: int

    def is_whole(self, before: Sequence[bytes], after: Sequence[bytes]) -> bool:
        """Whether a damage changed nothing here."""
        return before[self.file][self.begin : self.end] == after[self.file][self.begin : self.end]


class Copy(NamedTuple):
    """One copy of an event: its cell, and for each of its overflow pages the places that hold it, each of one or two extents."""

    cell: Extent
    overflow: list[list[tuple[Extent, ...]]]

    def is_whole(self, before: Sequence[bytes], after: Sequence[bytes]) -> bool:
        """Whether cell and overflow pages can still be read."""
        return self.cell.is_whole(before, after) and all(
            any(all(extent.is_whole(before, after) for extent in place) for place in places) for places in self.overflow
        )


def layout(files: Sequence[bytes], events: Sequence[Event]) -> dict[int, list[Copy]]:
    """Every copy of every event in `files`: database and WAL."""
    pages = list(_pages(files))
    known = {event.position: event for event in events}
    found: dict[int, list[Copy]] = {event.position: [] for event in events}
    for number, file, begin in pages:
        content = files[file]
        top = begin + (100 if number == 1 else 0)
        if content[top] != LEAF:
            continue
        for index in range(int.from_bytes(content[top + 3 : top + 5], "big")):
            at = top + 8 + 2 * index
            cell = begin + int.from_bytes(content[at : at + 2], "big")
            payload, at = varint(content, cell)
            position, at = varint(content, at)
            if columns(content, at) != COLUMNS or position not in known:
                continue
            local = local_bytes(payload)
            end = at + local + (4 if local < payload else 0)
            data = known[position].data
            rest = (data if isinstance(data, bytes) else (data or "").encode())[local - payload :] if local < payload else b""
            first = int.from_bytes(content[end - 4 : end], "big")
            found[position].append(Copy(Extent(file, cell, end), list(_overflow(files, pages, first, rest))))
    return found


def _pages(files: Sequence[bytes]) -> Iterator[tuple[int, int, int]]:
    """(number, file, where it begins) of every page, and of every version of it in the WAL."""
    database, wal = files
    for begin in range(0, len(database), PAGE):
        yield begin // PAGE + 1, 0, begin
    for frame in range(WAL_HEADER, len(wal), FRAME_HEADER + PAGE):
        yield int.from_bytes(wal[frame : frame + 4], "big"), 1, frame + FRAME_HEADER


def _overflow(files: Sequence[bytes], pages: Sequence[tuple[int, int, int]], first: int, rest: bytes) -> Iterator[list[tuple[Extent, ...]]]:
    number = first
    while rest:
        body, rest = rest[: PAGE - 4], rest[PAGE - 4 :]
        places: list[tuple[Extent, ...]] = []
        following = 0
        for named, file, begin in pages:
            content = files[file]
            if named != number or content[begin + 4 : begin + 4 + len(body)] != body:
                continue
            following = int.from_bytes(content[begin : begin + 4], "big")
            here = Extent(file, begin, begin + 4 + len(body))
            # What a frame holds is only known by the number in its header.
            places.append((here,) if file == 0 else (Extent(file, begin - FRAME_HEADER, begin - FRAME_HEADER + 4), here))
        assert places, f"page {number} holds nothing of this event"
        yield places
        number = following


def varint(content: bytes, at: int) -> tuple[int, int]:
    """The integer that begins at `at`, and where it ends; none here takes nine bytes."""
    value = 0
    while True:
        value = value << 7 | content[at] & 0x7F
        at += 1
        if content[at - 1] < 0x80:
            return value, at


def columns(content: bytes, record: int) -> int:
    """How many columns a record has."""
    length, at = varint(content, record)
    count = 0
    while at < record + length:
        _, at = varint(content, at)
        count += 1
    return count


def local_bytes(payload: int) -> int:
    """How much of a payload stands in the leaf (https://www.sqlite.org/fileformat2.html, section 1.6)."""
    most, least = PAGE - 35, (PAGE - 12) * 32 // 255 - 23
    if payload <= most:
        return payload
    local = least + (payload - least) % (PAGE - 4)
    return local if local <= most else least
