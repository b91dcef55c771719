"""Compressed values: the same text back byte for byte, whatever asks for it; nothing that is stored can unpack beyond what is allowed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventstore
from eventstore import ConfigError, Domain, DomainStore, DuplicateEventError, FormatError, InvalidValueError, RedactedError, Store
from eventstore.codec import seal
from eventstore.coding import SMALLEST, Coding
from eventstore.model import Event, Head
from tests import verifier
from tests.tools.command import done

PACKED = Domain("pages", codec="zlib")
LONG = {"text": "the same words again and again " * 200, "ключ": [1.0, -0.0, 10**30]}
TEXT = json.dumps(LONG, indent=1)


def packed(store: Store) -> DomainStore:
    return store.domain(PACKED)


def raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def test_a_large_value_is_stored_compressed_and_read_as_it_was_given(any_store: Store) -> None:
    d = packed(any_store)
    d.write_value("k", raw(TEXT), actor="bot")
    event = d.event(1)
    assert isinstance(event.data, bytes)
    assert len(event.data) < len(TEXT) / 10
    assert json.loads(event.meta or "") == {"actor": "bot", "codec": "zlib"}
    assert d.text_of(event) == TEXT
    assert d.read_value("k") == LONG
    for view in (d, d.state(1), any_store.domain("pages")):
        assert list(view.items()) == [("k", LONG)]
    assert any_store.domain(Domain("pages", value=msgspec.Raw)).read_value("k") == raw(TEXT)
    report = any_store.verify()
    assert (report.ok, report.domains[0].redacted) == (True, 0)


def test_other_handles_and_openings_read_it_and_need_not_be_told(open_store: Callable[..., Store]) -> None:
    with open_store() as store:
        packed(store).write_values([("k", LONG), ("small", 1)])
    with open_store() as store:
        assert dict(store.domain("pages").items()) == {"k": LONG, "small": 1}


@pytest.mark.parametrize("text", ['"x"', json.dumps("x" * (SMALLEST - 3)), json.dumps(zlib.compress(bytes(range(256)) * 8).hex()[:40])])
def test_what_is_small_is_stored_as_it_is(any_store: Store, text: str) -> None:
    d = packed(any_store)
    d.write_value("k", raw(text))
    assert (d.event(1).data, d.event(1).meta) == (text, None)


def test_what_would_not_get_smaller_is_stored_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventstore.coding.zlib.compress", lambda content: content + b"!")
    assert Coding().encode(PACKED, '["k"]', json.dumps("x" * 5_000)) is None


@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)),
    st.integers(0, 40),
)
def test_any_text_comes_back_byte_for_byte(value: Any, pad: int) -> None:
    text = json.dumps([value, "pad " * 30 * pad], ensure_ascii=False, indent=pad % 3 or None)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps([value, "pad " * 30 * pad])
    coding = Coding()
    coded = coding.encode(PACKED, '["k"]', text)
    if coded is not None:
        assert len(coded.content) < len(text.encode())
        assert coding.text_of("pages", blob_event(Head(0, bytes(32)), coded.content, coded.codec)) == text


def test_every_write_verb_compresses(any_store: Store) -> None:
    d = packed(any_store)
    d.write_value("k", LONG)
    d.update_value("k", lambda value: {**value, "more": 1})
    d.restore_value("k", 1)
    d.write_values([("a", LONG)])
    with d.batch() as batch:
        batch.write_value("b", LONG)
    assert [type(event.data) for event in d.events()] == [bytes] * 5
    assert d.read_value("k") == LONG
    assert d.read_value("b") == LONG


def test_unchanged_and_retries_compare_the_text(open_store: Callable[..., Store]) -> None:
    d = packed(open_store())
    first = d.write_value("k", raw(TEXT), event_id="e")
    plain = open_store().domain("pages")
    for each in (d, plain):
        assert not each.write_value("k", raw(TEXT), unchanged="skip").appended
        assert each.write_value("k", raw(TEXT), event_id="e") == first
        with pytest.raises(DuplicateEventError):
            each.write_value("k", raw(TEXT + " "), event_id="e")
    assert d.write_value("k", raw(TEXT + " "), unchanged="skip").appended
    both = d.write_values([("a", raw(TEXT)), ("a", raw(TEXT))], unchanged="skip", event_id="f")
    assert [receipt.appended for receipt in both] == [True, False]
    assert d.write_values([("a", raw(TEXT)), ("a", raw(TEXT))], unchanged="skip", event_id="f") == both


def test_a_compressed_value_is_redacted_like_any(any_store: Store) -> None:
    d = packed(any_store)
    d.write_value("k", LONG)
    d.redact("k", reason="asked")
    with pytest.raises(RedactedError):
        d.text_of(d.event(1))
    assert any_store.verify().domains[0].redacted == 1


def test_the_largest_value_is_measured_as_it_was_given(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data", max_value_bytes=2_000) as store:
        with pytest.raises(InvalidValueError):
            packed(store).write_value("k", "x" * 3_000)
        packed(store).write_value("k", "x" * 1_900)
        assert store.domain("pages").read_value("k") == "x" * 1_900


def test_a_codec_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="lzma"):
        Domain("pages", codec=cast("Any", "lzma"))


# ---- blobs that are not what they say


def blob_event(head: Head, blob: bytes, codec: str) -> Event:
    return seal(
        head, prev=0, recorded_us=2**52, when_us=None, op="put", key='["k"]', meta=json.dumps({"codec": codec}), data=blob, salt=bytes(16)
    )


def compressed(text: str | bytes) -> bytes:
    return zlib.compress(text if isinstance(text, bytes) else text.encode())


BOMB = compressed(b" " * 20_000_000 + b"1")

WRONG = {
    "a bomb": (BOMB, "zlib", "inflates to more than"),
    "a bomb in a bomb": (compressed(BOMB * 2), "zlib+zlib", "does not end|inflates to more than"),
    "no stream": (b"\x00\x01", "zlib", "no zlib stream"),
    "half a stream": (compressed(TEXT)[:-3], "zlib", "does not end"),
    "more than a stream": (compressed(TEXT) + b"!", "zlib", "does not end"),
    "an altered stream": (compressed(TEXT)[:-1] + b"\0", "zlib", "no zlib stream"),
    "no UTF-8": (compressed(b'"\xff"'), "zlib", "no UTF-8"),
    "an unknown codec": (compressed(TEXT), "lzma", "'lzma', which this version does not know"),
    "an unknown codec inside": (compressed(TEXT), "brotli+zlib", "'brotli', which this version does not know"),
}


@pytest.mark.corrupts
@pytest.mark.parametrize("name", WRONG)
def test_a_blob_that_is_not_what_it_says_is_a_format_error_and_a_finding(any_store: Store, name: str) -> None:
    """Its checksum is true: whoever can write the file can seal, too."""
    blob, codec, says = WRONG[name]
    d = packed(any_store)
    log = d._live.log
    with log.writing() as head:
        log.append([blob_event(head, blob, codec)], after=head)
    with pytest.raises(FormatError, match=says):
        d.read_value("k")
    assert [(finding.position, finding.kind) for finding in any_store.verify().findings] == [(1, "codec")]


@pytest.mark.corrupts
def test_a_blob_that_holds_no_json_is_a_finding(any_store: Store) -> None:
    d = packed(any_store)
    with d._live.log.writing() as head:
        d._live.log.append([blob_event(head, compressed("no json"), "zlib")], after=head)
    (finding,) = any_store.verify().findings
    assert (finding.kind, finding.message) == ("codec", "the blob holds no JSON")
    with pytest.raises(FormatError):
        d.read_value("k")


@pytest.mark.corrupts
def test_a_log_with_a_codec_of_a_later_version_is_moved_and_salvaged_as_it_is(tmp_path: Path) -> None:
    """Its bytes are what was written; who reads the value is told, and nobody else is stopped."""
    with eventstore.open(tmp_path / "data") as store:
        d = packed(store)
        with d._live.log.writing() as head:
            d._live.log.append([blob_event(head, b"\0", "lzma")], after=head)
        d.write_value("other", 1)
        events = list(d.events())
    done("export", tmp_path / "data", "-o", tmp_path / "events.jsonl")
    done("import", tmp_path / "events.jsonl", tmp_path / "moved")
    done("salvage", tmp_path / "data", tmp_path / "saved")
    for name in ("moved", "saved"):
        with eventstore.open(tmp_path / name) as store:
            assert list(store.domain("pages").events()) == events
            assert [finding.kind for finding in store.verify().findings] == ["codec"]


# ---- tools


def test_commands_show_the_text_and_exports_carry_the_blob(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with eventstore.open(data) as store:
        d = packed(store)
        d.write_value("k", raw(TEXT.replace("\n", "")))
        d.write_value("k", LONG | {"more": 1})
        events = [d.event(0), *d.events()]
    assert json.loads(done("get", data, "pages", "k").out) == LONG | {"more": 1}
    assert [line["value"] for line in done("log", data, "pages", "-p", "--json").lines()] == [LONG, LONG | {"more": 1}]
    assert "+ .more: 1" in done("history", data, "pages", "k").out
    file = tmp_path / "events.jsonl"
    done("export", data, "-o", file)
    done("import", file, tmp_path / "same")
    with eventstore.open(tmp_path / "same") as store:
        d = store.domain("pages")
        assert [d.event(0), *d.events()] == events
    done("init", tmp_path / "other")
    done("import", file, tmp_path / "other")
    with eventstore.open(tmp_path / "other") as store:
        assert store.domain("pages").read_value("k") == LONG | {"more": 1}
    log = data / "logs" / "pages"
    assert verifier.verify(log / f"{0:020d}.db", log / "head", domain="pages").findings == []


def test_a_compressed_value_that_was_salvaged_is_read_as_before(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as store:
        packed(store).write_value("k", LONG)
    done("salvage", tmp_path / "data", tmp_path / "out")
    with eventstore.open(tmp_path / "out") as store:
        assert store.domain("pages").read_value("k") == LONG
