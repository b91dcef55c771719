"""Values in and out: exactly what was written comes back, or nothing is written and the error names the place."""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
import re
import struct
import sys
import uuid
from collections import OrderedDict, deque, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import eventstore
from eventstore import Domain, DomainStore, InvalidValueError, Store
from eventstore.values import MAX_DEPTH, MAX_INT_DIGITS, MAX_VALUE_BYTES, decode_value, encode_value, is_json


def same(one: Any, other: Any) -> bool:
    """Equal in type and to the bit: True is not 1, 1.0 is not 1, -0.0 is not 0.0, the order of members counts."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack(">d", one) == struct.pack(">d", other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(same, one.values(), other.values()))
    return bool(one == other)


# Halves of emojis too, as JSON.stringify writes them; but not a high one before a low one, which is a test of its own.
some_text = st.text(st.characters(exclude_categories=[])).filter(lambda text: not has_split_emoji(text))
some_integers = st.integers() | st.sampled_from([2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**40, -(10**40), 10**400])
scalars = st.none() | st.booleans() | some_integers | st.floats(allow_nan=False, allow_infinity=False) | some_text
plain_data = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(some_text, inner, max_size=4), max_leaves=12)


def has_split_emoji(text: str) -> bool:
    return re.search("[\ud800-\udbff][\udc00-\udfff]", text) is not None


def nested(depth: int, kind: str) -> Any:
    """A value of so many levels: "[" of lists, "{" of objects, "[{" of both in turn."""
    value: Any = [] if kind[-1] == "[" else {}
    for level in range(1, depth):
        value = [value] if kind[level % len(kind) - 1] == "[" else {"a": value}
    return value


# ---- exactly what was written


@given(value=plain_data)
@example(value=[True, 1, 1.0, False, 0, 0.0, -0.0, None, ""])
@example(value={"": {"\ud83d": ["\udfff\ud800", "\0\x1f\x7f\u2028"]}})
@example(value=[5e-324, 1.7976931348623157e308, 0.1, 1e22, 1e16, 123456789012345680.0])
def test_plain_data_comes_back_exactly(value: Any) -> None:
    text = encode_value(value)
    assert same(decode_value(text), value)
    assert same(json.loads(text), value)
    assert is_json(text)


@given(value=plain_data)
def test_plain_data_comes_back_exactly_from_a_store(value: Any) -> None:
    with eventstore.open("memory:", cache_bytes=0) as store:
        d = store.domain("d")
        d.write_value("k", value)
        assert same(d.read_value("k"), value)


VALUES: list[Any] = [
    None,
    True,
    1,
    1.0,
    -0.0,
    0,
    "",
    [],
    {},
    2**63,
    -(2**70),
    10**3_999,
    10**4_299,
    5e-324,
    "😀é",
    "\0\x1f\u2028",
    "\ud83d",
    {"\udfff": ["\ud800"]},
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_every_kind_of_value_stands_in_a_log_and_outlives_it(open_store: Callable[..., Store], value: Any) -> None:
    with open_store() as store:
        store.domain("d").write_value("k", value)
    with open_store() as store:
        assert same(store.domain("d").read_value("k"), value)
        assert same(list(store.domain("d").values()), [value])


@pytest.mark.parametrize("text", ["\ud83d\ude00", "a\ud83d\ude00b", "\ud83d\ud83d\ude00"], ids=["alone", "amid", "after another"])
def test_an_emoji_in_two_halves_comes_back_in_two_or_is_refused(text: str) -> None:
    """Escaped side by side the halves are one character for every reader: len() would change, and the string be another."""
    for value in (text, [text], {text: 1}):
        try:
            stored = encode_value(value)
        except InvalidValueError:
            continue
        assert same(decode_value(stored), value)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("digits", [19, 20, 3_999, 4_000, MAX_INT_DIGITS])
@pytest.mark.parametrize("beside", [[], ["\ud83d"]], ids=["alone", "beside half an emoji"])
def test_integers_of_up_to_4300_digits_come_back_exactly(sign: int, digits: int, beside: list[Any]) -> None:
    for number in (sign * 10 ** (digits - 1), sign * (10**digits - 1)):
        assert same(decode_value(encode_value([*beside, number])), [*beside, number])


@pytest.mark.parametrize("number", [10**4_300, -(10**4_300), 10**5_000], ids=["4301", "-4301", "5001"])
@pytest.mark.parametrize("beside", [[], ["\ud83d"]], ids=["alone", "beside half an emoji"])
def test_integers_of_more_than_4300_digits_are_refused(number: int, beside: list[Any]) -> None:
    with pytest.raises(InvalidValueError):
        encode_value([*beside, number])


@pytest.fixture
def no_digit_limit() -> Iterator[None]:
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(limit)


@pytest.mark.usefixtures("no_digit_limit")
@pytest.mark.parametrize("beside", [[], ["\ud83d"]], ids=["alone", "beside half an emoji"])
def test_the_limit_of_digits_is_the_stores_and_not_the_interpreters(beside: list[Any]) -> None:
    """What one process could write, every other must be able to read."""
    with pytest.raises(InvalidValueError):
        encode_value([*beside, 10**4_300])


class Side(enum.StrEnum):
    LONG = "long"


class Level(enum.IntEnum):
    HIGH = 3


Pair = namedtuple("Pair", "one other")


@pytest.mark.parametrize(
    ("value", "back"),
    [
        ((1, (2, ())), [1, [2, []]]), (Pair(1, "x"), [1, "x"]), (OrderedDict(a=1), {"a": 1}), (Side.LONG, "long"), (Level.HIGH, 3),
        ({Side.LONG: 1}, {"long": 1}), ({"a": (1.0,)}, {"a": [1.0]}),
    ],
)  # fmt: skip
def test_what_is_plainly_the_same_is_taken_for_it(value: Any, back: Any) -> None:
    assert same(decode_value(encode_value(value)), back)


# ---- raw text


@st.composite
def raw_texts(draw: st.DrawFn) -> str:
    """JSON text as any writer might lay it out."""
    comma, colon = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "\r\n:  ")]))
    indent = draw(st.sampled_from([None, 0, 2]))
    text = json.dumps(draw(plain_data), ensure_ascii=True, indent=indent, separators=(comma, colon))
    return draw(st.sampled_from(["", " ", "\n"])) + text + draw(st.sampled_from(["", "\t", "\r\n "]))


@given(text=raw_texts())
@example(text='{"b": 1,  "a": [1.50, 1E2, -0.0, -0, 1e-400, 100000000000000000000000]}\n')
@example(text=r'["\ud83d", "\u0061\/", "\uDFFF", "\ud83d\ude00", "\u0000"]')
def test_raw_text_is_kept_byte_for_byte(text: str) -> None:
    assert encode_value(msgspec.Raw(text.encode())) == text
    assert same(decode_value(text), json.loads(text))
    assert bytes(decode_value(text, msgspec.Raw)) == text.encode()


def test_raw_text_reaches_the_log_and_the_reader_as_it_is(open_store: Callable[..., Store]) -> None:
    text = ' {"b":\t1.0, "a": "\\ud83d", "é": 1e5 }\n'
    with open_store() as store:
        store.domain("d").write_value("k", msgspec.Raw(text.encode()))
    with open_store() as store:
        assert [event.data for event in store.domain("d").events()] == [text]
        assert bytes(store.domain(Domain("d", value=msgspec.Raw)).read_value("k")) == text.encode()
        assert same(store.domain("d").read_value("k"), {"b": 1.0, "a": "\ud83d", "é": 1e5})


NOT_JSON: dict[str, bytes] = {
    "nothing": b"",
    "white space": b" \n",
    "two values": b"1 2",
    "an open object": b'{"a":1',
    "an open string": b'"a',
    "a trailing comma": b"[1,]",
    "a missing comma": b"[1 2]",
    "single quotes": b"{'a':1}",
    "a number as a name": b"{1:2}",
    "a bare word": b"nul",
    "a leading zero": b"01",
    "a plus": b"+1",
    "no digit before the point": b".5",
    "no digit after the point": b"1.",
    "hexadecimal": b"0x1",
    "an underscore": b"1_0",
    "a comment": b"1 // one",
    "a line break in a string": b'"a\nb"',
    "NUL in a string": b'"\0"',
    "an unknown escape": rb'"\x41"',
    "a broken escape": rb'"\u12"',
    "other white space": "\u00a01".encode(),
    "other digits": "١".encode(),
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-32": '{"a":1}'.encode("utf-32-le"),
    "a byte order mark": b"\xef\xbb\xbf1",
    "invalid UTF-8": b'"\xff"',
    "an overlong slash": b'"\xc0\xaf"',
    "a surrogate in UTF-8": b'"\xed\xa0\xbd"',
    "half a character": '"é"'.encode()[:2] + b'"',
}


@pytest.mark.parametrize("text", NOT_JSON.values(), ids=NOT_JSON)
def test_raw_text_that_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidValueError, match=r"^\$: "):
        encode_value(msgspec.Raw(text))


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" + "0" * 310 + ".0"])
@pytest.mark.parametrize("around", ["%s", '{"a":[1,%s]}', '["\\ud83d",%s]'])
def test_raw_numbers_that_no_double_holds_are_refused_by_name(token: str, around: str) -> None:
    with pytest.raises(InvalidValueError, match=token[:40]):
        encode_value(msgspec.Raw((around % token).encode()))


@pytest.mark.parametrize(
    "text",
    ['{"a":1,"a":1}', '{"a":1,"b":2,"a":3}', '[{"x":{"a":1,"a":2}}]', '{"a":1,"\\u0061":2}', '{"":1,"":2}', '{"\\ud83d":1,"\\ud83d":2}'],
)
def test_raw_text_with_a_member_twice_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidValueError, match="stands twice"):
        encode_value(msgspec.Raw(text.encode()))


def test_the_same_member_in_two_objects_is_fine() -> None:
    text = '[{"a":1},{"a":{"a":2}}]'
    assert encode_value(msgspec.Raw(text.encode())) == text


@pytest.mark.parametrize("sign", ["", "-"])
def test_raw_integers_may_have_4300_digits_and_not_one_more(sign: str) -> None:
    longest = sign + "9" * 4_300
    assert encode_value(msgspec.Raw(longest.encode())) == longest
    assert decode_value(longest) == int(longest)
    with pytest.raises(InvalidValueError, match="4300"):
        encode_value(msgspec.Raw(f"[{longest}9]".encode()))


# ---- what is not JSON


@dataclass
class Fill:
    price: float
    at: dt.datetime | None = None


class Order(msgspec.Struct):
    size: float | None = None
    at: dt.datetime | None = None
    tags: set[str] = set()


NAN, AT = math.nan, dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
REFUSED: dict[str, tuple[Any, str, str]] = {
    "NaN": (NAN, "$", "nan is not JSON"),
    "NaN in a list": ([1, NAN], "$[1]", "nan is not JSON"),
    "NaN in a tuple": ((1, (2, NAN)), "$[1][1]", "nan is not JSON"),
    "infinity": ({"a": {"b": [math.inf]}}, "$.a.b[0]", "inf is not JSON"),
    "minus infinity": ({"a": -math.inf}, "$.a", "-inf is not JSON"),
    "1e400": ([1e400], "$[0]", "inf is not JSON"),
    "NaN beside half an emoji": (["\ud83d", NAN], "$[1]", "nan is not JSON"),
    "an integer as a name": ({"a": {1: 2}}, "$.a", "the key 1 is int"),
    "the same name twice": ({"1": "a", 1: "b"}, "$", "the key 1 is int"),
    "a float as a name": ({1.5: 2}, "$", "the key 1.5 is float"),
    "true as a name": ({True: 2}, "$", "the key True is bool"),
    "None as a name": ({None: 2}, "$", "the key None is NoneType"),
    "a tuple as a name": ({("a", "b"): 2}, "$", "is tuple"),
    "bytes as a name": ({b"a": 2}, "$", "the key b'a' is bytes"),
    "bytes": ({"a": b"x"}, "$.a", "bytes is not JSON"),
    "no bytes": ([b""], "$[0]", "bytes is not JSON"),
    "bytearray": (bytearray(b"x"), "$", "bytearray is not JSON"),
    "memoryview": ([memoryview(b"x")], "$[0]", "memoryview is not JSON"),
    "Decimal": ({"price": Decimal("1.10")}, "$.price", "Decimal is not JSON"),
    "Fraction": ([Fraction(1, 3)], "$[0]", "Fraction is not JSON"),
    "complex": ([1j], "$[0]", "complex is not JSON"),
    "a set": ({"a": {1}}, "$.a", "set is not JSON"),
    "an empty set": ([set()], "$[0]", "set is not JSON"),
    "a frozenset": ([frozenset("a")], "$[0]", "frozenset is not JSON"),
    "datetime": ({"at": AT}, "$.at", "datetime is not JSON"),
    "date": ([AT.date()], "$[0]", "date is not JSON"),
    "time": ([dt.time(1)], "$[0]", "time is not JSON"),
    "timedelta": ([dt.timedelta(1)], "$[0]", "timedelta is not JSON"),
    "UUID": ([uuid.UUID(int=1)], "$[0]", "UUID is not JSON"),
    "an enumeration": ([enum.Enum("Plain", {"RED": "red"}).RED], "$[0]", "Plain is not JSON"),  # type: ignore[attr-defined]
    "an object": ({"a": [object()]}, "$.a[0]", "object is not JSON"),
    "a class": ([int], "$[0]", "type is not JSON"),
    "a function": ([len], "$[0]", "is not JSON"),
    "a generator": ((n for n in (1, 2)), "$", "generator is not JSON"),
    "a range": ([range(3)], "$[0]", "range is not JSON"),
    "a deque": (deque([1]), "$", "deque is not JSON"),
    "Raw inside plain data": ({"a": msgspec.Raw(b"1")}, "$.a", "Raw is not JSON"),
    "UNSET": ({"a": msgspec.UNSET}, "$.a", "UnsetType is not JSON"),
    "NaN in a Struct": ([Order(size=NAN)], "$[0].size", "nan is not JSON"),
    "NaN in a dataclass": ({"fill": Fill(math.inf)}, "$.fill.price", "inf is not JSON"),
    "a datetime in a Struct": (Order(at=AT), "$.at", "datetime is not JSON"),
    "a datetime in a dataclass": (Fill(1.0, AT), "$.at", "datetime is not JSON"),
    "a dataclass itself": (Fill, "$", "type is not JSON"),
}


@pytest.mark.parametrize(("value", "path", "message"), REFUSED.values(), ids=REFUSED)
def test_plain_data_that_is_not_json_is_refused_where_it_stands(value: Any, path: str, message: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        encode_value(value)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("number", [NAN, math.inf, -math.inf])
@given(inner=plain_data, steps=st.lists(st.integers(0, 3) | st.text("abc", min_size=1, max_size=2), max_size=6))
def test_what_no_double_is_in_json_is_found_wherever_it_hides(number: float, inner: Any, steps: list[int | str]) -> None:
    value: Any = number
    for step in reversed(steps):
        value = [inner] * step + [value, inner] if isinstance(step, int) else {"": inner, step: value}
    path = "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    with pytest.raises(InvalidValueError) as caught:
        encode_value(value)
    assert str(caught.value).startswith(f"{path}: {number} is not JSON")


# ---- depth


KINDS = ["[", "{", "[{"]


@pytest.mark.parametrize("kind", KINDS)
def test_64_levels_are_stored_and_65_are_refused(kind: str) -> None:
    deepest, deeper = nested(MAX_DEPTH, kind), nested(MAX_DEPTH + 1, kind)
    assert MAX_DEPTH == 64
    assert decode_value(encode_value(deepest)) == deepest
    raw = json.dumps(deepest)
    assert encode_value(msgspec.Raw(raw.encode())) == raw
    for value in (deeper, msgspec.Raw(json.dumps(deeper).encode()), {"a": [1, deeper]}):
        with pytest.raises(InvalidValueError, match="64 levels"):
            encode_value(value)


@given(value=scalars, depth=st.integers(60, 70), kind=st.sampled_from(KINDS))
def test_what_stands_beside_the_deepest_place_does_not_matter(value: Any, depth: int, kind: str) -> None:
    text = json.dumps([value, "[{" * 40, nested(depth - 1, kind), [[]] * 40])
    for given_value in (json.loads(text), msgspec.Raw(text.encode())):
        if depth <= MAX_DEPTH:
            assert same(decode_value(encode_value(given_value)), json.loads(text))
        else:
            with pytest.raises(InvalidValueError, match="64 levels"):
                encode_value(given_value)


def test_many_brackets_are_not_depth() -> None:
    flat: list[Any] = ["[" * 1_000, {"{" * 100: "[{" * 100}, [[]] * 1_000, [{}] * 1_000]
    for value in flat:
        assert decode_value(encode_value(value)) == value


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_raw_text_100_000_levels_deep_is_refused(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    for text in (opening * 100_000 + "1" + closing * 100_000, opening * 100_000):
        with pytest.raises(InvalidValueError):
            encode_value(msgspec.Raw(text.encode()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "leaf",
    [
        pytest.param(1, id="plain"),
        pytest.param(NAN, id="NaN", marks=pytest.mark.slow),
        pytest.param("\ud83d", id="half an emoji", marks=pytest.mark.slow),
        pytest.param(object(), id="an object", marks=pytest.mark.slow),
    ],
)
def test_plain_data_100_000_levels_deep_is_refused(kind: str, leaf: Any) -> None:
    value: Any = leaf
    for level in range(100_000):
        value = [value] if kind[level % len(kind)] == "[" else {"a": value}
    with pytest.raises(InvalidValueError, match="64 levels"):
        encode_value(value)
    while isinstance(value, list | dict):  # taken apart by hand: the interpreter's own way recurses
        value = value[0] if isinstance(value, list) else value["a"]


class Node(msgspec.Struct):
    name: str = ""
    below: Node | None = None


@dataclass
class Twin:
    name: str = ""
    below: Twin | None = None


def cycles() -> dict[str, Any]:
    around: list[Any] = ["\ud83d"]
    around.append({"again": around})
    inside: dict[str, Any] = {"a": [1]}
    inside["b"] = {"c": inside}
    node, twin = Node(), Twin()
    node.below, twin.below = node, twin
    return {"a list": around, "an object": inside, "a Struct": node, "a dataclass": twin}


@pytest.mark.parametrize("kind", cycles())
def test_a_value_that_holds_itself_is_refused(kind: str) -> None:
    with pytest.raises(InvalidValueError, match="in itself"):
        encode_value(cycles()[kind])


@pytest.mark.parametrize(("kind", "declared"), [("a Struct", Node), ("a dataclass", Twin)])
def test_a_typed_value_that_holds_itself_is_refused(kind: str, declared: type) -> None:
    with pytest.raises(InvalidValueError, match="in itself"):
        encode_value(cycles()[kind], declared)


# ---- size


@pytest.mark.parametrize("value", ["x" * 98, "é" * 49, "\n" * 49, [1] * 48 + [10], {"a": "x" * 92}], ids=range(5))
def test_the_limit_of_size_is_exact_in_bytes(value: Any) -> None:
    text = encode_value(value, max_bytes=100)
    assert len(text.encode()) == 100
    assert encode_value(msgspec.Raw(text.encode()), max_bytes=100) == text
    for refused in (value, msgspec.Raw(text.encode())):
        with pytest.raises(InvalidValueError, match="100 bytes, at most 99"):
            encode_value(refused, max_bytes=99)


def test_white_space_of_raw_text_counts() -> None:
    with pytest.raises(InvalidValueError, match="11 bytes, at most 10"):
        encode_value(msgspec.Raw(b" " * 10 + b"1"), max_bytes=10)


def test_escaped_half_emojis_count_as_they_are_stored() -> None:
    assert encode_value("\ud83d" * 2, max_bytes=14) == r'"\ud83d\ud83d"'
    with pytest.raises(InvalidValueError, match="14 bytes, at most 13"):
        encode_value("\ud83d" * 2, max_bytes=13)


def test_16_mib_are_the_limit_unless_the_store_says_otherwise(any_store: Store) -> None:
    d = any_store.domain("d")
    largest = "x" * (MAX_VALUE_BYTES - 2)
    assert MAX_VALUE_BYTES == 16 * 2**20
    d.write_value("k", largest)
    assert d.read_value("k") == largest
    with pytest.raises(InvalidValueError, match="at most 16777216"):
        d.write_value("k", largest + "x")
    assert d.head().position == 1


def test_the_limit_is_an_option_of_the_store() -> None:
    with eventstore.open("memory:", max_value_bytes=10) as store:
        d = store.domain("d")
        d.write_value("k", "x" * 8)
        with pytest.raises(InvalidValueError, match="max_value_bytes"):
            d.write_value("k", "x" * 9)
    with eventstore.open("memory:", max_value_bytes=2**25) as store:
        store.domain("d").write_value("k", "x" * 2**24)


# ---- typed values


class Leg(msgspec.Struct):
    symbol: str
    size: int


class Trade(msgspec.Struct, kw_only=True):
    """One of everything that JSON itself has no word for."""

    name: str
    at: dt.datetime
    on: dt.date
    price: Decimal
    raw: bytes
    ident: uuid.UUID
    tags: frozenset[str]
    side: Side
    by_level: dict[int, float]
    legs: list[Leg]
    best: tuple[Leg, ...] | None = None


legs = st.builds(Leg, symbol=st.text(max_size=5), size=st.integers(-(2**60), 2**60))
moments = st.datetimes(timezones=st.just(dt.UTC))
trades = st.builds(
    Trade,
    name=st.text(max_size=8),
    at=moments,
    on=st.dates(),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    raw=st.binary(max_size=8),
    ident=st.uuids(),
    tags=st.frozensets(st.text(max_size=3), max_size=3),
    side=st.sampled_from(Side),
    by_level=st.dictionaries(st.integers(), st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    legs=st.lists(legs, max_size=3),
    best=st.none() | st.lists(legs, max_size=2).map(tuple),
)


@given(trade=trades)
def test_a_typed_value_comes_back_as_its_type(trade: Trade) -> None:
    with eventstore.open("memory:", cache_bytes=0) as store:
        d = store.domain(Domain("d", value=Trade))
        d.write_value("k", trade)
        assert d.read_value("k") == trade
        assert isinstance(store.domain("d").read_value("k"), dict)


@dataclass
class Basket:
    fills: list[Fill] = field(default_factory=list)
    names: set[str] = field(default_factory=set)


@given(
    fills=st.lists(st.builds(Fill, price=st.floats(allow_nan=False, allow_infinity=False), at=st.none() | moments), max_size=3),
    names=st.sets(st.text(max_size=3), max_size=3),
)
def test_a_dataclass_comes_back_as_itself(fills: list[Fill], names: set[str]) -> None:
    basket = Basket(fills, names)
    assert decode_value(encode_value(basket, Basket), Basket) == basket


def test_a_struct_in_an_untyped_domain_is_stored_as_its_object(any_store: Store) -> None:
    d = any_store.domain("d")
    d.write_value("struct", Leg("BTC", 2))
    d.write_value("dataclass", [Fill(1.5)])
    assert d.read_value("struct") == {"symbol": "BTC", "size": 2}
    assert d.read_value("dataclass") == [{"price": 1.5, "at": None}]


TYPED_REFUSED: dict[str, tuple[Any, Any]] = {
    "text for an integer": (int, "1"),
    "true for an integer": (int, True),
    "an integer for text": (str, 1),
    "a float with a fraction for an integer": (int, 1.5),
    "null": (Leg, None),
    "a list for a Struct": (Leg, [1]),
    "a member that is missing": (Leg, {"symbol": "x"}),
    "a member of another type": (Leg, Leg("x", "2")),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    "another Struct": (Leg, Order()),
    "an item of another type": (list[int], [1, "2"]),
    "a name that is no integer": (dict[int, str], {"x": "a"}),
    "half an emoji for an integer": (int, "\ud83d"),
    "half an emoji for a Struct": (Leg, ["\ud83d"]),
    "half an emoji in a member of another type": (Leg, {"symbol": "\ud83d", "size": "2"}),
    "NaN in a float": (float, NAN),
    "infinity in a float": (float, math.inf),
    "NaN in an optional float": (float | None, NAN),
    "NaN in a member": (Order, Order(size=NAN)),
    "NaN in a dataclass": (Fill, Fill(NAN)),
    "NaN in an item": (list[Order], [Order(size=1.0), Order(size=NAN)]),
    "NaN in a dict's item": (dict[str, Order], {"a": Order(size=math.inf)}),
    "NaN in one of two types": (Order | Fill | None, Order(size=NAN)),
    "NaN in plain items": (list[float | None], [1.0, NAN]),
    "infinity in a Decimal": (Decimal, math.inf),
    "an object": (Any, object()),
    "an object in a plain member": (Any, Fill(object())),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    "an object in a plain set": (Any, [Order(tags={object()})]),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    "an object in a member": (Order, Order(tags={object()})),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
}


@pytest.mark.parametrize(("declared", "value"), TYPED_REFUSED.values(), ids=TYPED_REFUSED)
def test_what_is_not_of_the_declared_type_is_refused(declared: Any, value: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"^\$"):
        encode_value(value, declared)


class ById(msgspec.Struct):
    """Equal to whatever has its id."""

    id: int
    said: Any = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ById) and other.id == self.id

    def __hash__(self) -> int:
        return self.id


@dataclass
class Quiet:
    """Its equality leaves a field out."""

    said: Any = field(default=None, compare=False)


class Open(msgspec.Struct):
    """Leaves open what stands in it."""

    said: Any = None


CHANGED: dict[str, tuple[Any, Any, str]] = {
    "a number as the name of a member": (Open, Open({1: 2}), "$.said"),
    "a Decimal in an open member": (Open, Open(Decimal("1.50")), "$.said"),
    "the same where the equality asks for the id alone": (ById, ById(1, {1: 2}), "$.said"),
    "NaN there": (ById, ById(1, NAN), "$.said"),
    "and in an item of it": (list[ById], [ById(1), ById(1, [0, math.inf])], "$[1].said[1]"),
    "a number as a name where the equality leaves the field out": (Quiet, Quiet({1: 2}), "$.said"),
    "NaN where it does": (Quiet, Quiet(NAN), "$.said"),
    "a Decimal in a list where it does": (dict[str, Quiet], {"a": Quiet(["x", Decimal("1.50")])}, "$.a.said[1]"),
}


@pytest.mark.parametrize(("declared", "value", "place"), CHANGED.values(), ids=CHANGED)
def test_what_would_read_back_as_something_else_is_refused_however_the_class_compares(declared: Any, value: Any, place: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^{re.escape(place)}:"):
        encode_value(value, declared)


@pytest.mark.parametrize("value", [ById(1, {"a": [1, None]}), Quiet([1.5, "x"]), Open(Open(1)), Quiet(Quiet({"a": ()}))])
def test_values_are_taken_however_their_class_compares(value: Any) -> None:
    text = encode_value(value, type(value))
    assert encode_value(decode_value(text, type(value)), type(value)) == text


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        (int, '"1"'),
        (int, "1.5"),
        (Leg, "{}"),
        (Leg, '{"symbol":"x","size":"2"}'),
        (Leg, '{"symbol":"\\ud83d","size":"2"}'),
        (int, '"\\ud83d"'),
    ],
)
def test_raw_text_and_stored_text_of_another_type_are_refused(declared: Any, text: str) -> None:
    with pytest.raises(InvalidValueError):
        encode_value(msgspec.Raw(text.encode()), declared)
    with pytest.raises(InvalidValueError):
        decode_value(text, declared)


@pytest.mark.parametrize(
    ("declared", "value", "back"),
    [
        (list[Leg], (Leg("a", 1),), [Leg("a", 1)]),
        (list[Order], (Order(at=AT),), [Order(at=AT)]),
        (dict[str, list[Leg]], {"a": (Leg("a", 1),)}, {"a": [Leg("a", 1)]}),
        (Leg | None, {"symbol": "a", "size": 1}, Leg("a", 1)),
        (float, 1, 1.0),
    ],
    ids=["a tuple for a list", "a tuple with times", "a tuple inside", "an object for a Struct", "an integer for a float"],
)
def test_what_plainly_stands_for_the_declared_type_is_taken(declared: Any, value: Any, back: Any) -> None:
    assert same(decode_value(encode_value(value, declared), declared), back)


@dataclass
class Note:
    text: str
    at: dt.datetime | None = None


@pytest.mark.parametrize("note", [Note("cut \ud83d"), Note("\udfff", AT)], ids=["alone", "beside a time"])
def test_half_an_emoji_in_a_typed_value_comes_back(note: Note) -> None:
    assert decode_value(encode_value(note, Note), Note) == note


def test_members_that_a_type_does_not_know_survive_in_the_log(any_store: Store) -> None:
    plain, typed = any_store.domain("d"), any_store.domain(Domain("d", value=Leg))
    text = '{"symbol":"BTC","later":{"x":[1.0]},"size":2}'
    plain.write_value("k", msgspec.Raw(text.encode()))
    assert typed.read_value("k") == Leg("BTC", 2)
    typed.write_value("k", Leg("ETH", 1))
    typed.restore_value("k", 1)
    assert [event.data for event in plain.history("k")] == [text, '{"symbol":"ETH","size":1}', text]
    assert plain.read_value("k")["later"] == {"x": [1.0]}


def test_raw_text_written_through_a_type_keeps_members_it_does_not_know(any_store: Store) -> None:
    typed = any_store.domain(Domain("d", value=Leg))
    text = '{ "size":2, "later":null, "symbol":"BTC" }'
    typed.write_value("k", msgspec.Raw(text.encode()))
    assert typed.read_value("k") == Leg("BTC", 2)
    assert next(typed.history("k")).data == text


def test_a_stored_value_of_another_type_is_named_when_read(any_store: Store) -> None:
    any_store.domain("d").write_value("k", {"symbol": 1})
    typed = any_store.domain(Domain("d", value=Leg))
    for read in (lambda: typed.read_value("k"), lambda: typed.get("k"), lambda: list(typed.values())):
        with pytest.raises(InvalidValueError, match="Leg"):
            read()
    assert typed.has_value("k")


# ---- nothing is written


def refused_writes(d: DomainStore, bad: Any) -> dict[str, Callable[[], object]]:
    def in_a_batch() -> None:
        with d.batch() as batch:
            batch.write_value("fine", 1)
            batch.remove_value("good")
            batch.write_value("bad", bad)

    return {
        "write_value": lambda: d.write_value("good", bad),
        "write_values": lambda: d.write_values([("fine", 1), ("bad", bad), ("fine too", 2)]),
        "update_value": lambda: d.update_value("good", lambda value: bad),
        "update_value of an absent key": lambda: d.update_value("new", lambda value: bad, default=1),
        "batch": in_a_batch,
    }


@pytest.mark.parametrize("kind", REFUSED)
def test_nothing_of_a_refused_call_is_written(any_store: Store, kind: str) -> None:
    d = any_store.domain("d")
    d.write_value("good", 1)
    head = d.head()
    for write in refused_writes(d, REFUSED[kind][0]).values():
        with pytest.raises(InvalidValueError):
            write()
    assert d.head() == head
    assert dict(d.items()) == {"good": 1}


@pytest.mark.parametrize("verb", ["write_value", "write_values", "update_value", "update_value of an absent key", "batch"])
@pytest.mark.parametrize(
    "bad", [b"1 2", b'{"a":1,"a":2}', b"[1e400]", b"9" * 4_301, b"[" * 65 + b"]" * 65, b"\xff", b'"' + b"x" * 999 + b'"']
)
def test_nothing_of_refused_raw_text_is_written(tmp_path: Any, verb: str, bad: bytes) -> None:
    with eventstore.open(tmp_path / "data", max_value_bytes=10_000 if bad[:1] != b'"' else 1_000) as store:
        d = store.domain("d")
        d.write_value("good", 1)
        head = d.head()
        with pytest.raises(InvalidValueError):
            refused_writes(d, msgspec.Raw(bad))[verb]()
        assert d.head() == head
        assert [event.position for event in d.events()] == [1]


@pytest.fixture
def short_integers() -> Iterator[None]:
    """An interpreter that may not convert more than 640 digits, as `-X int_max_str_digits=640` has it."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    yield
    sys.set_int_max_str_digits(before)


@pytest.mark.usefixtures("short_integers")
def test_an_interpreter_that_converts_no_long_integers_says_so_and_finds_no_damage(any_store: Store) -> None:
    """What is stored is JSON all the same, also beside half an emoji, which is read by another way."""
    text = rb'["\ud83d",' + b"9" * 4_000 + b"]"
    d, raw = any_store.domain("d"), any_store.domain(Domain("raw", value=msgspec.Raw))
    for domain in (d, raw):
        domain.write_value("k", msgspec.Raw(text))
    with pytest.raises(InvalidValueError, match=r"4000 digits, and this process converts at most 640 \(sys.set_int_max_str_digits\)"):
        d.read_value("k")
    assert bytes(raw.read_value("k")) == text
    assert any_store.verify().ok
