"""JSONL, the form in which events travel (FORMAT.md section 9)."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.errors import ConfigError, FormatError, NewerFormatError
from eventstore.model import Event
from eventstore.tools.interchange import End, Header, Ids, Reader, encode_event, encode_header, encode_ids, ids_of, open_lines

STORE = "00112233445566778899aabbccddeeff"
HEADER = encode_header(Header(1, STORE, "notes"))
"""As drafts wrote it: it does not say where the events end."""

texts = st.text()
hashes = st.binary(min_size=32, max_size=32)
events = st.builds(
    Event,
    position=st.integers(0, 2**63 - 1),
    prev=st.integers(0, 2**63 - 1),
    recorded_us=st.integers(0, 2**63 - 1),
    when_us=st.none() | st.integers(-(2**63), 2**63 - 1),
    op=st.sampled_from(["put", "remove", "open", "loss"]),
    checksum=hashes,
    key=texts,
    meta=st.none() | texts,
    salt=st.none() | st.binary(min_size=16, max_size=16),
    digest=st.none() | hashes,
    data=st.none() | texts | st.binary(),
)


def read(*lines: bytes) -> list[tuple[str, list[Event]]]:
    """Everything in an export."""
    return [(exported.header.domain, list(exported.events)) for exported in Reader(lines, "x.jsonl")]


@given(st.lists(events))
def test_every_event_survives(written: list[Event]) -> None:
    assert read(HEADER, *map(encode_event, written)) == [("notes", written)]


def test_a_line_is_an_event_field_by_field() -> None:
    event = Event(
        position=1, prev=0, recorded_us=2, when_us=-3, op="put", checksum=b"\x0f" * 32,
        key='["a"]', meta='{"actor":"b"}', salt=b"\xa0" * 16, digest=None, data=' {"x": -0.0, "y": "\\ud83d"}\n',
    )  # fmt: skip
    line = encode_event(event)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    said = json.loads(line)
    assert list(said) == list(Event.__struct_fields__)
    assert said["checksum"] == "0f" * 32
    assert said["salt"] == "a0" * 16
    assert said["meta"] == event.meta
    assert said["data"] == event.data
    assert said["digest"] is None
    blob = msgspec.structs.replace(event, data=b"\x00\xff")
    assert json.loads(encode_event(blob))["data"] == {"base64": "AP8="}
    assert json.loads(encode_event(event, b"\x0e" * 32)) == {**said, "previous": "0e" * 32}
    header = Header(1, STORE, "notes", 7, End(9, "0f" * 32), Ids(2, "0e" * 32), ["other"])
    assert json.loads(encode_header(header)) == {
        "format": 1, "store_id": STORE, "domain": "notes", "floor": 7, "head": {"position": 9, "checksum": "0f" * 32},
        "ids": {"count": 2, "sha256": "0e" * 32}, "following": ["other"],
    }  # fmt: skip
    assert json.loads(HEADER) == {"format": 1, "store_id": STORE, "domain": "notes", "floor": 0, "head": None, "ids": None, "following": []}
    pairs = [(1, 3), (2**64 - 1, 2)]
    assert [json.loads(line) for line in encode_ids(pairs)] == [{"ids": [["0000000000000001", 3], ["ffffffffffffffff", 2]]}]
    content = b"".join(number.to_bytes(8, "big") for pair in pairs for number in pair)
    assert ids_of(pairs) == Ids(2, hashlib.sha256(content).hexdigest())


def some_event(position: int, previous: bytes | None = None) -> bytes:
    """A line."""
    return encode_event(
        Event(
            position=position,
            prev=0,
            recorded_us=position,
            when_us=None,
            op="remove",
            checksum=bytes(32),
            key='["k"]',
            meta=None,
            salt=None,
            digest=None,
            data=None,
        ),
        previous,
    )


def test_domains_follow_each_other() -> None:
    other, third = (encode_header(Header(1, "ff" * 16, name)) for name in ("other", "third"))
    lines = [HEADER, some_event(0), some_event(1), other, third, some_event(0)]
    assert [(domain, len(found)) for domain, found in read(*lines)] == [("notes", 2), ("other", 0), ("third", 1)]
    passed_over = [exported.header for exported in Reader(lines, "x.jsonl")]
    assert passed_over[1] == Header(1, "ff" * 16, "other")
    assert len(passed_over) == 3


@pytest.mark.parametrize(
    "broken", [b"", b"{", b"[1]\n", b'{"position":1}\n', some_event(1)[:-10], some_event(1).replace(b"00000000", b"zz000000"), b"\xff\n"]
)
def test_a_broken_line_ends_its_domain_and_no_other(broken: bytes) -> None:
    lines = [HEADER, some_event(0), broken + b"\n", some_event(2), encode_header(Header(1, "ff" * 16, "other")), some_event(0)]
    seen: list[str] = []
    for exported in Reader(lines, "x.jsonl"):
        if exported.header.domain == "notes":
            with pytest.raises(FormatError, match=r"line 3 of x\.jsonl"):
                list(exported.events)
        else:
            assert len(list(exported.events)) == 1
        seen.append(exported.header.domain)
    assert seen == ["notes", "other"]


def floored(count: int = 3) -> list[bytes]:
    """The lines of a domain that begins behind position 5 and ends with position 7, and of another one."""
    pairs = [(number, number + 1) for number in range(count)]
    head = End(7, "00" * 32)
    return [
        encode_header(Header(1, STORE, "notes", 5, head, ids_of(pairs), ["other"])),
        *(some_event(position, b"p" * 32) for position in (0, 2, 5)),
        *encode_ids(pairs),
        *(some_event(position) for position in (6, 7)),
        encode_header(Header(1, STORE, "other", 0, End(0, "00" * 32))),
        some_event(0),
    ]


def test_what_is_left_of_a_beginning_comes_before_the_events() -> None:
    reader = Reader(floored(2_500), "x.jsonl")
    notes, other = [
        ([each.event.position for each in exported.carried], list(exported.ids), [event.position for event in exported.events])
        for exported in reader
    ]
    assert notes == ([0, 2, 5], [(number, number + 1) for number in range(2_500)], [6, 7])
    assert other == ([], [], [0])
    assert reader.missing == {}
    assert [domain for domain, _ in read(*floored())] == ["notes", "other"]  # what was not taken is passed over


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_file_that_was_cut_off_at_the_end_of_a_line_is_not_taken_for_whole(cut: int) -> None:
    lines = floored()
    assert len(lines) == 9
    reader = Reader(lines[:cut], "x.jsonl")
    for exported in reader:
        assert exported.header.domain == "notes"
        if cut == 7:
            assert len(list(exported.events)) == 2
        else:
            with pytest.raises(FormatError, match=r"the events from position \d to 7 are missing from x\.jsonl, .*: it was cut off"):
                list(exported.events)
    assert reader.missing == {"other": "notes"}


def test_a_domain_that_lost_its_birth_row_alone_was_cut_off() -> None:
    (exported,) = Reader(floored()[7:8], "x.jsonl")
    with pytest.raises(FormatError, match="from position 0 to 0 are missing"):
        list(exported.events)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"floor":5', b'"floor":4', "stands among those that are carried over the floor, 4"),
        (b'"ids":{"count":3', b'"ids":{"count":2', "not those that the header of the export names"),
        (b'"ids":[["0000000000000000",1]', b'"ids":[["0000000000000009",1]', "not those that the header of the export names"),
        (b'"head":{"position":7', b'"head":{"position":6', "names position 6 as its last event"),
        (b'"checksum":"' + b"00" * 32, b'"checksum":"' + b"11" * 32, "names another last event"),
        (b'"ids":{"count":3,', b'"ids":null,"was":{', "names its head and its ids"),
        (b'{"ids":[[', b'{"idx":[[', "line 5 of"),
    ],
)
def test_what_the_header_says_must_be_so(old: bytes, new: bytes, message: str) -> None:
    content = b"".join(floored())
    assert old in content
    exported = next(iter(Reader(content.replace(old, new, 1).splitlines(keepends=True), "x.jsonl")))
    with pytest.raises(FormatError, match=message):
        list(exported.events)


@pytest.mark.parametrize("lines", [[], [b"hello\n"], [b'{"a":1}\n'], [some_event(0)], [b"\x00\x01"]])
def test_what_does_not_begin_with_a_header_is_no_export(lines: Iterable[bytes]) -> None:
    with pytest.raises(ConfigError, match=r"x\.jsonl"):
        Reader(lines, "x.jsonl")


def test_a_newer_format_is_refused() -> None:
    with pytest.raises(NewerFormatError):
        Reader([HEADER.replace(b'"format":1', b'"format":9')], "x.jsonl")


def test_a_domain_of_no_name_is_refused() -> None:
    with pytest.raises(ConfigError):
        Reader([HEADER.replace(b"notes", b"../../x")], "x.jsonl")


def test_gzip_is_known_by_its_content() -> None:
    packed = gzip.compress(HEADER + some_event(0))
    assert list(open_lines(io.BytesIO(packed), "x")) == [HEADER, some_event(0)]
    with pytest.raises(FormatError, match="cut off"):
        list(open_lines(io.BytesIO(packed[:-9]), "x"))
    with pytest.raises(FormatError, match="damaged"):
        list(open_lines(io.BytesIO(packed[:12] + b"\xff" * 9 + packed[21:]), "x"))
