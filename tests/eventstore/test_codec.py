"""The hash chain: FORMAT.md's vectors to the byte, everything it forbids, and that nothing can be altered unseen."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from eventstore.codec import FORMAT, GENESIS, OPS, Birth, check, check_all, erased, read_birth, seal, seal_birth, seal_system
from eventstore.errors import ChecksumError, CorruptionError, FormatError, GapError
from eventstore.model import Event, Head
from eventstore.witness import pack_witness, unpack_witness

FORMAT_PAGE = Path(__file__).parents[2] / "FORMAT.md"
CODED = '{"codec":"aes-gcm:k1"}'
BIRTH = Birth(format=1, store_id="00112233445566778899aabbccddeeff", domain="signal", created_us=1763000000000000, write="replace")


# ---- the vectors of FORMAT.md section 4


@dataclass(frozen=True)
class Vector:
    """One row of the test vector; `header`, `digest` (D) and `checksum` (c) in hexadecimal as FORMAT.md prints them."""

    op: str
    key: str
    header: str
    digest: str
    checksum: str
    prev: int = 0
    when_us: int | None = None
    meta: str | None = None
    data: str | None = None
    salt: bytes | None = None


VECTORS = [
    Vector(
        op="open",
        key="[]",
        data='{"format":1,"store_id":"00112233445566778899aabbccddeeff","domain":"signal","created_us":1763000000000000,"write":"replace"}',
        salt=b"\xa0" * 16,
        header="00000000000000000000000000000000000643706cbd300000000000000000000204000200000000",
        digest="dae6e379de8ec464edd66ea72589d7f8508bb63edd297fd5aaad47c83496a1af",
        checksum="13b8b3db9dadfefef6d408a2154d22271116035d6ea096b6465229e8931e71b8",
    ),
    Vector(
        op="put",
        key='["BTCUSDT","my-strat","binance"]',
        when_us=1700000000000000,
        meta='{"event_id":"e1","actor":"bot"}',
        data='{"position":"long","priceOpen":42.5}',
        salt=b"\xa1" * 16,
        header="00000000000000010000000000000000000643706cbd300100060a24181e4000070300200000001f",
        digest="a2c3217e1db9625da305411c41252f5e00b51430f39ea5d59202bdb2f2889908",
        checksum="8dfda669aac572055d827669cfe297d2d0c22c477ded8dc821b9026e0b74b249",
    ),
    Vector(
        op="put",
        key='["ключ\\"\\\\",7,""]',
        data="[]",
        salt=b"\xa2" * 16,
        header="00000000000000020000000000000000000643706cbd300200000000000000000203001500000000",
        digest="d9d622b4b028fcfb1bbbe97a95dcbfa831fcc7629037244bc0ee41b0e242ae5d",
        checksum="593d7cfe512dde6598f12bbe92a84303dc377a3f557b89bf585d9ca54084a2af",
    ),
    Vector(
        op="remove",
        key='["BTCUSDT","my-strat","binance"]',
        prev=1,
        when_us=-1,
        header="00000000000000030000000000000001000643706cbd3003ffffffffffffffff0106002000000000",
        digest="00" * 32,
        checksum="c2f3d7cfe24e0d138824df84e5cb421ba5ca7083c583c88f5dee0e7705230961",
    ),
]
WITNESS = "0000000000000003c2f3d7cfe24e0d138824df84e5cb421ba5ca7083c583c88f5dee0e770523096125ff89eb354132f3"


def sealed_vectors() -> list[Event]:
    head, events = GENESIS, []
    for position, vector in enumerate(VECTORS):
        event = seal(
            head,
            prev=vector.prev,
            recorded_us=1763000000000000 + position,
            when_us=vector.when_us,
            op=vector.op,
            key=vector.key,
            meta=vector.meta,
            data=vector.data,
            salt=vector.salt,
        )
        head = Head(event.position, event.checksum)
        events.append(event)
    return events


@pytest.mark.parametrize("position", range(len(VECTORS)))
def test_seal_gives_the_checksum_of_the_vector(position: int) -> None:
    event = sealed_vectors()[position]
    assert event.position == position
    assert event.checksum.hex() == VECTORS[position].checksum


@pytest.mark.parametrize("position", range(len(VECTORS)))
def test_the_vector_is_what_its_own_header_and_digest_hash_to(position: int) -> None:
    """With the header and D as printed, section 4's two lines alone give the checksum: the vector explains itself."""
    vector = VECTORS[position]
    before = b"eventstore/1\0" if position == 0 else bytes.fromhex(VECTORS[position - 1].checksum)
    message = bytes.fromhex(vector.header) + f"{vector.op}{vector.key}{vector.meta or ''}".encode() + bytes.fromhex(vector.digest)
    assert sha256(before + message).hexdigest() == vector.checksum
    if vector.data is not None and vector.salt is not None:
        assert sha256(vector.salt + vector.data.encode()).hexdigest() == vector.digest


def test_check_accepts_the_vectors_one_by_one_and_together() -> None:
    head, events = GENESIS, sealed_vectors()
    for event, vector in zip(events, VECTORS, strict=True):
        head = check(head, event, "signal")
        assert head == Head(event.position, bytes.fromhex(vector.checksum))
    assert check_all(GENESIS, events, "signal") == head


def test_seal_birth_is_the_first_vector() -> None:
    assert seal_birth(BIRTH, b"\xa0" * 16) == sealed_vectors()[0]


def test_the_witness_is_the_vector() -> None:
    last = Head(3, bytes.fromhex(VECTORS[3].checksum))
    assert pack_witness(last).hex() == WITNESS
    assert unpack_witness(bytes.fromhex(WITNESS)) == last


def test_the_format_page_prints_these_vectors() -> None:
    page = FORMAT_PAGE.read_text(encoding="utf-8")
    printed = [WITNESS, *(text for vector in VECTORS for text in (vector.header, vector.checksum, vector.digest)), VECTORS[0].data]
    assert [text for text in printed if text is not None and text not in page and text != "00" * 32] == []


# ---- events for the properties


heads = st.builds(Head, st.integers(-1, 2**63), st.binary(min_size=32, max_size=32))
salts = st.binary(min_size=16, max_size=16)
uint64 = st.integers(0, 2**64 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
metas = st.dictionaries(st.text(max_size=5).filter(lambda name: name != "codec"), st.text(max_size=5), min_size=1, max_size=3)


def json_of(value: Any) -> str:
    return msgspec.json.encode(value).decode()


@st.composite
def links(draw: st.DrawFn) -> tuple[Head, Event]:
    """Any event that seal() can make, with the head it follows: text, blob or nothing as its data."""
    previous = draw(heads)
    data = draw(st.one_of(st.none(), st.text(max_size=40), st.binary(max_size=40)))
    meta = draw(st.none() | metas)
    if isinstance(data, bytes):
        meta = {**(meta or {}), "codec": draw(st.text(min_size=1, max_size=5))}
    return previous, seal(
        previous,
        prev=draw(uint64),
        recorded_us=draw(uint64),
        when_us=draw(st.none() | int64),
        op=draw(st.sampled_from(OPS)),
        key=draw(st.text(max_size=20)),
        meta=None if meta is None else json_of(meta),
        data=data,
        salt=None if data is None else draw(salts),
    )


beyond = st.integers(-(2**70), 2**70)
texts = st.text(max_size=20) | st.sampled_from(["\ud800", "", "[]", "{}", "null"])
blobs = st.binary(max_size=40) | st.binary(min_size=16, max_size=16) | st.binary(min_size=32, max_size=32)
ALTERATIONS: dict[str, st.SearchStrategy[Any]] = {
    "position": beyond,
    "prev": beyond,
    "recorded_us": beyond,
    "when_us": st.none() | st.just(0) | beyond,
    "op": st.sampled_from(OPS) | texts,
    "checksum": blobs,
    "key": texts,
    "meta": st.none() | texts | metas.map(json_of),
    "salt": st.none() | blobs,
    "digest": st.none() | blobs,
    "data": st.none() | texts | blobs,
}


# ---- what the format promises about them


@given(link=links())
def test_what_was_sealed_passes_the_check(link: tuple[Head, Event]) -> None:
    previous, event = link
    assert check(previous, event, "d") == Head(previous.position + 1, event.checksum)


@pytest.mark.parametrize("field", Event.__struct_fields__)
@given(link=links(), data=st.data())
def test_an_alteration_of_any_one_field_is_noticed(field: str, link: tuple[Head, Event], data: st.DataObject) -> None:
    previous, event = link
    altered = msgspec.structs.replace(event, **{field: data.draw(ALTERATIONS[field])})
    assume(altered != event)
    with pytest.raises(CorruptionError) as caught:
        check(previous, altered, "d")
    assert (caught.value.domain, caught.value.position) == ("d", altered.position)
    if field == "position":
        assert isinstance(caught.value, GapError)
    if field == "checksum":
        assert isinstance(caught.value, ChecksumError)


@given(link=links(), other=heads)
def test_an_event_follows_one_head_only(link: tuple[Head, Event], other: Head) -> None:
    previous, event = link
    assume(other != previous)
    with pytest.raises((GapError, ChecksumError)):
        check(other, event, "d")


@given(link=links(), bit=st.integers(0, 255))
def test_a_checksum_error_says_what_was_expected_and_found(link: tuple[Head, Event], bit: int) -> None:
    previous, event = link
    flipped = (int.from_bytes(event.checksum, "big") ^ (1 << bit)).to_bytes(32, "big")
    with pytest.raises(ChecksumError) as caught:
        check(previous, msgspec.structs.replace(event, checksum=flipped), "d")
    assert (caught.value.expected, caught.value.found) == (event.checksum, flipped)


def one_event(**changes: Any) -> Event:
    fields: dict[str, Any] = {"prev": 0, "recorded_us": 1, "when_us": None, "op": "put", "key": '["k"]', "meta": None}
    fields |= {"data": "1", "salt": b"s" * 16} | changes
    return seal(GENESIS, **fields)


near_events = st.fixed_dictionaries(
    {
        "prev": st.integers(0, 1),
        "recorded_us": st.integers(0, 1),
        "when_us": st.sampled_from([None, 0, 1]),
        "op": st.sampled_from(["put", "remove"]),
        "key": st.sampled_from(["", "a", "ab", '{"a":1}', "put"]),
        "meta": st.sampled_from([None, '{"a":1}', ' {"a":1}', '{"codec":"c"}']),
        "data": st.sampled_from([None, "", "a", "ab", b"", b"a"]),
    }
)


@given(one=near_events, other=near_events)
def test_two_different_events_never_share_a_checksum(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Few values in every field, so that the two are often nearly alike; text and blob differ though their bytes may not."""
    salt_of = {True: None, False: b"s" * 16}
    first, second = (one_event(**fields, salt=salt_of[fields["data"] is None]) for fields in (one, other))
    assert (first.checksum == second.checksum) is (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"when_us": None}, {"when_us": 0}),
        ({"data": None, "salt": None}, {"data": ""}),
        ({"key": '["k"]', "meta": ' {"a":1}'}, {"key": '["k"] ', "meta": '{"a":1}'}),
        ({"key": '["k"]', "meta": '{"a":1}'}, {"key": '["k"]{"a":1}', "meta": None}),
        ({"data": "x", "meta": '{"codec":"c"}'}, {"data": b"x", "meta": '{"codec":"c"}'}),
        ({"op": "put", "data": None, "salt": None}, {"op": "remove", "data": None, "salt": None}),
        ({"prev": 1, "recorded_us": 0}, {"prev": 0, "recorded_us": 1}),
        ({"recorded_us": 1, "when_us": 2}, {"recorded_us": 2, "when_us": 1}),
    ],
    ids=["no when or zero", "no data or empty", "key to meta", "meta into key", "text or blob", "op alone", "prev or time", "time or when"],
)
def test_neighbours_that_a_careless_message_would_confuse_differ(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one_event(**one).checksum != one_event(**other).checksum


@given(
    salt=st.binary(min_size=16, max_size=16).map(lambda salt: bytes(byte & 0x7F for byte in salt)),
    data=st.text(st.characters(codec="ascii"), max_size=40),
    cut=st.integers(0, 56).filter(lambda cut: cut != 16),
    blob=st.booleans(),
)
def test_bytes_cannot_move_between_salt_and_data(salt: bytes, data: str, cut: int, blob: bool) -> None:
    event = one_event(salt=salt, data=data.encode() if blob else data, meta=CODED if blob else None)
    joined = salt + data.encode()
    assume(cut <= len(joined))
    moved = msgspec.structs.replace(event, salt=joined[:cut], data=joined[cut:] if blob else joined[cut:].decode())
    with pytest.raises(FormatError, match="without a salt of 16 bytes"):
        check(GENESIS, moved, "d")


@example(op="put", key='["k"]', meta='{"a":1}', cuts=(3, 12))
@given(
    op=st.sampled_from(OPS),
    key=st.text(max_size=8),
    meta=metas.map(json_of),
    cuts=st.tuples(st.integers(0, 30), st.integers(0, 30)),
)
def test_bytes_cannot_move_between_op_key_and_meta(op: str, key: str, meta: str, cuts: tuple[int, int]) -> None:
    event = one_event(op=op, key=key, meta=meta)
    text, (start, end) = op + key + meta, sorted(cuts)
    moved = msgspec.structs.replace(event, op=text[:start], key=text[start:end], meta=text[end:] or None)
    assume(moved != event)
    with pytest.raises(CorruptionError):
        check(GENESIS, moved, "d")


# ---- positions


@pytest.mark.parametrize(
    "order", [(0, 2, 3), (1, 2), (0, 1, 1), (0, 1, 3, 2), (1, 0, 2)], ids=["missing", "no birth", "doubled", "swapped", "birth late"]
)
def test_a_missing_doubled_or_misplaced_event_is_a_gap(order: tuple[int, ...]) -> None:
    events = sealed_vectors()
    with pytest.raises(GapError):
        check_all(GENESIS, [events[position] for position in order], "signal")


def test_events_swapped_together_with_their_positions_are_noticed() -> None:
    birth, one, two, _ = sealed_vectors()
    swapped = [birth, msgspec.structs.replace(two, position=1), msgspec.structs.replace(one, position=2)]
    with pytest.raises(ChecksumError) as caught:
        check_all(GENESIS, swapped, "signal")
    assert caught.value.position == 1


# ---- what the format forbids, whatever the checksum says


NO_OBJECTS = ("", " ", "{}", "{ }", "[]", "[1]", '["codec"]', "null", "1", '"x"', "true", "{", '{"a":1', '{"a":1}}', "{'a':1}")
FORBIDDEN: dict[str, tuple[dict[str, Any], str]] = {
    "text without a salt": ({"salt": None}, "data without a salt of 16 bytes"),
    "text with an empty salt": ({"salt": b""}, "data without a salt of 16 bytes"),
    "text with a short salt": ({"salt": b"s" * 15}, "data without a salt of 16 bytes"),
    "text with a long salt": ({"salt": b"s" * 17}, "data without a salt of 16 bytes"),
    "a blob with a short salt": ({"salt": b"s" * 15, "data": b"x", "meta": CODED}, "data without a salt of 16 bytes"),
    "a salt without data": ({"data": None}, "a salt without data"),
    "a salt beside a digest": ({"data": None, "digest": b"d" * 32}, "a salt without data"),
    "data beside a digest": ({"digest": b"d" * 32}, "data beside a digest"),
    "empty data beside a digest": ({"data": "", "digest": b"d" * 32}, "data beside a digest"),
    "an empty digest": ({"data": None, "salt": None, "digest": b""}, "a digest of 0 bytes"),
    "a short digest": ({"data": None, "salt": None, "digest": b"d" * 31}, "a digest of 31 bytes"),
    "a long digest": ({"data": None, "salt": None, "digest": b"d" * 33}, "a digest of 33 bytes"),
    "a blob without meta": ({"data": b"x"}, "a blob without meta.codec"),
    "a blob without codec": ({"data": b"x", "meta": '{"actor":"a"}'}, "a blob without meta.codec"),
    "a blob whose codec is deeper": ({"data": b"x", "meta": '{"origin":{"codec":"c"}}'}, "a blob without meta.codec"),
    "text with codec": ({"meta": CODED}, "text with meta.codec"),
    "an empty codec": ({"data": b"x", "meta": '{"codec":""}'}, "meta.codec is empty"),
    "a codec that is no text": ({"data": b"x", "meta": '{"codec":1}'}, "meta is not a JSON object"),
    "an unknown op": ({"op": "patch"}, "unknown op 'patch'"),
    "an empty op": ({"op": ""}, "unknown op ''"),
    "an op in upper case": ({"op": "PUT"}, "unknown op 'PUT'"),
    "a negative time": ({"recorded_us": -1}, "outside what the format can hold"),
    "a when beyond 64 bits": ({"when_us": 2**63}, "outside what the format can hold"),
    "a key beyond 65,535 bytes": ({"key": "k" * 65_536}, "outside what the format can hold"),
    "a key that is a blob": ({"key": b'["k"]'}, "outside what the format can hold"),
    "meta that is a blob": ({"meta": b'{"actor":"a"}'}, "outside what the format can hold"),
    "a prev that is nothing": ({"prev": None}, "outside what the format can hold"),
    "a key that is not UTF-8": ({"key": "\ud800"}, "outside what the format can hold"),
    "meta that is not UTF-8": ({"meta": "\ud800"}, "outside what the format can hold"),
    "data that is not UTF-8": ({"data": '"\ud800"'}, "outside what the format can hold"),
    **{f"meta {meta!r}": ({"meta": meta}, "meta is") for meta in NO_OBJECTS},
}


@pytest.mark.parametrize(("changes", "message"), FORBIDDEN.values(), ids=FORBIDDEN)
def test_the_format_forbids(changes: dict[str, Any], message: str) -> None:
    forbidden = msgspec.structs.replace(one_event(), **changes)
    with pytest.raises(FormatError, match=message) as caught:
        check(GENESIS, forbidden, "signal")
    assert (caught.value.domain, caught.value.position) == ("signal", 0)


# ---- erasure


@given(link=links())
def test_an_erased_event_keeps_its_checksum_and_nothing_of_its_value(link: tuple[Head, Event]) -> None:
    previous, event = link
    left = erased(event)
    assert check(previous, left, "d") == check(previous, event, "d")
    assert (left.data, left.salt) == (None, None)
    assert (left.digest is None) is (event.data is None)
    kept = ("position", "prev", "recorded_us", "when_us", "op", "checksum", "key", "meta")
    assert [getattr(left, name) for name in kept] == [getattr(event, name) for name in kept]
    assert erased(left) == left


@given(link=links(), bit=st.integers(0, 255))
def test_an_altered_digest_is_noticed(link: tuple[Head, Event], bit: int) -> None:
    previous, event = link
    left = erased(event)
    assume(left.digest is not None)
    flipped = (int.from_bytes(left.digest or b"", "big") ^ (1 << bit)).to_bytes(32, "big")
    with pytest.raises(ChecksumError):
        check(previous, msgspec.structs.replace(left, digest=flipped), "d")


def test_an_event_that_never_had_data_cannot_be_given_a_digest() -> None:
    removal = one_event(op="remove", data=None, salt=None)
    with pytest.raises(ChecksumError):
        check(GENESIS, msgspec.structs.replace(removal, digest=bytes(32)), "d")


def test_a_redaction_cannot_be_denied() -> None:
    left = erased(one_event())
    with pytest.raises(ChecksumError):
        check(GENESIS, msgspec.structs.replace(left, digest=None), "d")


# ---- birth


@given(
    birth=st.builds(
        Birth,
        format=st.just(FORMAT),
        store_id=st.text(max_size=32),
        domain=st.text(max_size=64),
        created_us=uint64,
        write=st.sampled_from(["replace", "first"]),
    ),
    salt=salts,
)
def test_a_birth_row_reads_back(birth: Birth, salt: bytes) -> None:
    row = seal_birth(birth, salt)
    assert (row.position, row.prev, row.op, row.key, row.recorded_us) == (0, 0, "open", "[]", birth.created_us)
    assert read_birth(row, birth.domain) == birth


def test_a_log_without_a_birth_row_is_refused() -> None:
    with pytest.raises(FormatError, match="birth row is missing"):
        read_birth(None, "signal")


def test_a_birth_row_is_proven_before_it_is_believed() -> None:
    row = seal_birth(BIRTH, b"s" * 16)
    with pytest.raises(ChecksumError):
        read_birth(msgspec.structs.replace(row, data=str(row.data).replace("signal", "orders")), "signal")


@pytest.mark.parametrize(
    "first",
    [
        one_event(),
        one_event(op="open"),
        one_event(op="put", key="[]"),
        one_event(op="open", key="[]", data=b"{}", meta=CODED),
        one_event(op="open", key="[]", data=None, salt=None),
        one_event(op="open", key="[]", data="{}"),
        one_event(op="open", key="[]", data="no JSON"),
        *(
            seal_system(GENESIS, prev=0, recorded_us=1, op="open", data={**msgspec.structs.asdict(BIRTH), **wrong}, salt=b"s" * 16)
            for wrong in ({"format": "1"}, {"format": 0}, {"format": 2}, {"write": "sometimes"}, {"more": 1})
        ),
    ],
    ids=[
        "a put",
        "a user's key",
        "a system put",
        "a blob",
        "no data",
        "empty",
        "no JSON",
        "text",
        "a draft",
        "newer",
        "unknown rule",
        "more",
    ],
)
def test_a_first_row_that_is_no_birth_row_is_refused(first: Event) -> None:
    with pytest.raises(FormatError):
        read_birth(first, "signal")
