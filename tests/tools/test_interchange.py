"""JSONL, the form in which events travel (FORMAT.md section 9)."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.errors import ConfigError, FormatError, NewerFormatError
from eventstore.model import Event
from eventstore.tools.interchange import Header, Reader, encode_event, encode_header, open_lines

HEADER = encode_header("00112233445566778899aabbccddeeff", "notes")

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
    return [(header.domain, list(found)) for header, found in Reader(lines, "x.jsonl")]


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
    assert json.loads(HEADER) == {"format": 1, "store_id": "00112233445566778899aabbccddeeff", "domain": "notes"}


def some_event(position: int) -> bytes:
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
        )
    )


def test_domains_follow_each_other() -> None:
    lines = [HEADER, some_event(0), some_event(1), encode_header("ff" * 16, "other"), encode_header("ff" * 16, "third"), some_event(0)]
    assert [(domain, len(found)) for domain, found in read(*lines)] == [("notes", 2), ("other", 0), ("third", 1)]
    passed_over = [header for header, _ in Reader(lines, "x.jsonl")]
    assert passed_over[1] == Header(1, "ff" * 16, "other")
    assert len(passed_over) == 3


@pytest.mark.parametrize(
    "broken", [b"", b"{", b"[1]\n", b'{"position":1}\n', some_event(1)[:-10], some_event(1).replace(b"00000000", b"zz000000"), b"\xff\n"]
)
def test_a_broken_line_ends_its_domain_and_no_other(broken: bytes) -> None:
    lines = [HEADER, some_event(0), broken + b"\n", some_event(2), encode_header("ff" * 16, "other"), some_event(0)]
    seen: list[str] = []
    for header, found in Reader(lines, "x.jsonl"):
        if header.domain == "notes":
            with pytest.raises(FormatError, match=r"line 3 of x\.jsonl"):
                list(found)
        else:
            assert len(list(found)) == 1
        seen.append(header.domain)
    assert seen == ["notes", "other"]


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
