"""Keys and domain names: one text for every key, one key for every text, and everything else refused by name."""

from __future__ import annotations

import enum
import json
import string
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import eventstore
from eventstore import Domain, InvalidKeyError, Store
from eventstore.codec import MAX_KEY_BYTES, MAX_KEY_INT, decode_key, encode_key, is_canonical
from eventstore.model import Key, Part

# Any character but NUL and lone surrogates; sixteen of them, eight parts, stay below 1,024 bytes even if all are escaped.
letters = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=16)
numbers = st.integers(-MAX_KEY_INT, MAX_KEY_INT)
parts: st.SearchStrategy[Part] = st.one_of(letters, numbers)
keys: st.SearchStrategy[Key] = st.one_of(
    letters.filter(bool), st.lists(parts, min_size=1, max_size=8).map(tuple).filter(lambda key: key != ("",))
)
# Few texts, so that two keys are often nearly the same.
near_parts: st.SearchStrategy[Part] = st.sampled_from(["", "1", 1, "-1", -1, "x", '"', "\\", ",", '","', "]", "[1]", "é", "e\u0301"])
near_keys: st.SearchStrategy[Key] = st.one_of(
    near_parts.filter(lambda part: isinstance(part, str) and part != "").map(str),
    st.lists(near_parts, min_size=1, max_size=3).map(tuple).filter(lambda key: key != ("",)),
)


def parts_of(key: Key) -> list[Part]:
    return [key] if isinstance(key, str) else list(key)


def as_returned(key: Key) -> Key:
    """How callers get it back: one string comes as a string."""
    match key:
        case (str(only),):
            return only
        case _:
            return key


# ---- one text


@given(key=keys)
@example(key="\x7f\u2028\u2029\ufeff\uffff")
def test_the_text_of_a_key_is_what_json_dumps_gives(key: Key) -> None:
    assert encode_key(key) == json.dumps(parts_of(key), ensure_ascii=False, separators=(",", ":"))


def every_legal_character() -> Iterator[str]:
    return (chr(code) for code in range(1, 0x110000) if not 0xD800 <= code < 0xE000)


def test_every_character_there_is_has_its_canonical_text() -> None:
    characters = list(every_legal_character())
    for start in range(0, len(characters), 150):
        key = "".join(characters[start : start + 150])
        text = encode_key(key)
        assert text == json.dumps([key], ensure_ascii=False, separators=(",", ":"))
        assert decode_key(text) == key


@pytest.mark.parametrize("code", [*range(1, 32), 0x22, 0x2F, 0x5C, 0x7F], ids=hex)
def test_control_characters_and_quotes_have_the_shortest_escape(code: int) -> None:
    shortest = {8: r"\b", 9: r"\t", 10: r"\n", 12: r"\f", 13: r"\r", 0x22: r"\"", 0x5C: r"\\", 0x2F: "/", 0x7F: "\x7f"}
    escape = shortest.get(code, rf"\u{code:04x}")
    assert encode_key(chr(code)) == f'["{escape}"]'


# ---- one key


@given(key=keys)
def test_a_key_comes_back_as_it_was(key: Key) -> None:
    back = decode_key(encode_key(key))
    assert back == as_returned(key)
    assert [type(part) for part in parts_of(back)] == [type(part) for part in parts_of(key)]


@given(key=keys)
def test_a_list_is_as_good_as_a_tuple(key: Key) -> None:
    assert encode_key(parts_of(key)) == encode_key(key)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@given(one=near_keys, other=near_keys)
@example(one=("x", 1), other=("x", "1"))
@example(one="x", other=("x", ""))
@example(one="é", other="e\u0301")
@example(one="1", other=(1,))
def test_two_keys_share_a_text_only_if_they_are_the_same(one: Key, other: Key) -> None:
    assert (encode_key(one) == encode_key(other)) is (as_returned(one) == as_returned(other))


@given(key=keys)
def test_the_text_of_a_key_is_canonical(key: Key) -> None:
    assert is_canonical(encode_key(key))


@pytest.mark.parametrize(
    "text",
    [
        '["a", 1]', ' ["a"]', '["a"] ', '["\\u0061"]', '["\\/"]', '["\\u001F"]', '["\\u000a"]', "[1.0]", "[1e0]", "[-0]", "[01]", "[true]",
        "[null]", "[[1]]", '{"a":1}', '"a"', "[]", '[""]', '["a"', '["a",]', "", '["\\ud83d"]', '["\\ud83d\\ude00"]', '["\\u0000"]',
        "[9007199254740993]", '["a"]["a"]', '["\ud800"]',
    ],
)  # fmt: skip
def test_any_other_text_is_not_canonical(text: str) -> None:
    assert not is_canonical(text)


def test_nfc_and_nfd_are_two_keys(any_store: Store) -> None:
    d = any_store.domain("d")
    d.write_value("é", "composed")
    d.write_value("e\u0301", "decomposed")
    assert (d.read_value("é"), d.read_value("e\u0301"), len(d)) == ("composed", "decomposed", 2)


# ---- limits


@pytest.mark.parametrize(
    ("unit", "size"), [("x", 1), ("é", 2), ("€", 3), ("😀", 4), ("\n", 2), ("\x01", 6)], ids=["1", "2", "3", "4", "escape", "long escape"]
)
def test_a_key_may_take_1024_bytes_and_not_one_more(unit: str, size: int) -> None:
    body = MAX_KEY_BYTES - len('[""]')
    longest = unit * (body // size) + "x" * (body % size)
    assert len(encode_key(longest).encode()) == MAX_KEY_BYTES == 1_024
    with pytest.raises(InvalidKeyError, match="1025 bytes"):
        encode_key(longest + "x")
    with pytest.raises(InvalidKeyError, match="at most 1024"):
        encode_key((longest, 0))


def test_a_huge_key_is_refused_in_a_message_a_person_can_read() -> None:
    with pytest.raises(InvalidKeyError, match="100004 bytes") as caught:
        encode_key("x" * 100_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("number", [2**53, -(2**53), 0, -1])
def test_integers_to_two_to_the_53_are_legal(number: int) -> None:
    assert decode_key(encode_key(("k", number))) == ("k", number)


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**63, 2**64, 10**30])
def test_integers_beyond_are_refused_by_name(number: int) -> None:
    with pytest.raises(InvalidKeyError, match=str(number)):
        encode_key(("k", number))


def test_only_a_lone_empty_string_is_refused() -> None:
    for key in ("", ("",)):
        with pytest.raises(InvalidKeyError, match="one empty string"):
            encode_key(key)
    for fine in (("", ""), ("a", ""), ("", "a"), ("", 1)):
        assert decode_key(encode_key(fine)) == fine


# ---- what is no key


class Side(enum.StrEnum):
    LONG = "long"


NO_KEYS: dict[str, tuple[Any, str]] = {
    "None": (None, "NoneType"),
    "a boolean": (True, "bool"),
    "a number alone": (7, "int"),
    "a float alone": (1.5, "float"),
    "bytes alone": (b"k", "bytes"),
    "no parts": ((), "tuple"),
    "an empty list": ([], "list"),
    "a set": ({"k"}, "set"),
    "a dict": ({"k": 1}, "dict"),
    "a generator": ((part for part in ("a", "b")), "generator"),
    "true as a part": (("x", True), "bool"),
    "false as a part": ((False,), "bool"),
    "a float as a part": (("x", 1.0), "float"),
    "NaN as a part": (("x", float("nan")), "float"),
    "null as a part": (("x", None), "NoneType"),
    "a tuple as a part": (("x", ("y",)), "tuple"),
    "a list as a part": (("x", ["y"]), "list"),
    "bytes as a part": (("x", b"y"), "bytes"),
    "a Decimal as a part": (("x", Decimal(1)), "Decimal"),
    "NUL": ("a\0b", "NUL"),
    "NUL in a part": (("a", "\0"), "NUL"),
    "a high surrogate": ("\ud83d", "surrogate"),
    "a low surrogate": (("a", "\udfff"), "surrogate"),
    "two surrogates": ("\ud83d\ude00", "surrogate"),
}


@pytest.mark.parametrize(("key", "named"), NO_KEYS.values(), ids=NO_KEYS)
def test_what_is_no_key_is_refused_by_name(key: Any, named: str) -> None:
    with pytest.raises(InvalidKeyError, match=named) as caught:
        encode_key(key)
    str(caught.value).encode("utf-8")  # a message that cannot be printed helps nobody


@pytest.mark.parametrize("illegal", [("x", True), ("x", 1.0), ("x", Decimal(1))])
def test_what_is_no_key_stays_refused_though_python_calls_it_equal_to_one(any_store: Store, illegal: Any) -> None:
    d = any_store.domain("d")
    d.write_value(("x", 1), "an integer")
    assert illegal == ("x", 1)
    with pytest.raises(InvalidKeyError):
        d.read_value(illegal)


@given(key=st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(), st.lists, max_leaves=6))
def test_whatever_is_given_is_a_key_or_refused(key: Any) -> None:
    try:
        text = encode_key(tuple(key) if isinstance(key, list) else key)
    except InvalidKeyError:
        return
    assert is_canonical(text)


def test_a_named_constant_is_the_key_it_stands_for() -> None:
    assert encode_key(Side.LONG) == '["long"]'
    assert encode_key(("a", Side.LONG)) == '["a","long"]'


class Symbol(str):
    """Libraries hand out such strings (numpy does); equal to the plain one, it must be the same key."""

    __slots__ = ()


class Index(int):
    """The same for integers."""


@pytest.mark.parametrize("key", [Symbol("btc"), ("a", Symbol("btc")), ("a", Index(7))], ids=["alone", "a part", "an integer"])
def test_a_part_of_a_subclass_is_the_plain_part(key: Key) -> None:
    assert encode_key(key) == json.dumps(parts_of(key), separators=(",", ":"))


@pytest.mark.parametrize("key", [key for key, _ in NO_KEYS.values()], ids=list(NO_KEYS))
def test_no_verb_takes_what_is_no_key(any_store: Store, key: Any) -> None:
    d = any_store.domain("d")
    d.write_value("good", 1)
    head = d.head()

    def in_a_batch() -> None:
        with d.batch() as batch:
            batch.write_value("fine", 1)
            batch.write_value(key, 1)

    calls: list[Callable[[], object]] = [
        lambda: d.write_value(key, 1),
        lambda: d.write_values([("fine", 1), (key, 1)]),
        lambda: d.remove_value(key),
        lambda: d.update_value(key, lambda value: value, default=1),
        lambda: d.restore_value(key, 1),
        lambda: d.read_value(key),
        lambda: d.get(key),
        lambda: d.has_value(key),
        lambda: key in d,
        in_a_batch,
    ]
    for call in calls:
        with pytest.raises(InvalidKeyError):
            call()
    assert d.head() == head


def test_keys_of_every_kind_stand_in_a_store_and_come_back(any_store: Store) -> None:
    d = any_store.domain("d")
    several: list[Key] = ["a", "\x01\x1f\x7f", "\u202e\u2066bidi", ("", ""), ("binance", "BTCUSDT", 1), (2**53,), (-(2**53),), '","', "😀"]
    for key in several:
        d.write_value(key, {"key": parts_of(key)})
    assert set(d.keys()) == set(several)
    assert all(d.read_value(key) == {"key": parts_of(key)} for key in several)


# ---- domain names

LEGAL = set(string.ascii_lowercase + string.digits + "_.-")


@given(name=st.text(max_size=70) | st.text(st.sampled_from("aZ0._-/\\ \n\0é"), max_size=70))
@example("a..b")
def test_a_domain_is_1_to_64_characters_of_a_small_alphabet(name: str) -> None:
    legal = 1 <= len(name) <= 64 and set(name) <= LEGAL and name[0] not in "_.-" and ".." not in name
    try:
        assert Domain(name).name == name
        assert legal
    except InvalidKeyError:
        assert not legal


@pytest.mark.parametrize(
    "name",
    [
        "", "..", ".", "../x", "x/../y", "x/y", "/etc/passwd", "C:x", "con\\x", "CON", "Signal", "a..b", ".hidden", "-x", "_x", "é", "ﬁ",
        "١", "a\n", "a\0", "a b", "a%2fb", "x" * 65, "~", "K",
    ],
)  # fmt: skip
def test_a_name_that_could_be_a_path_makes_no_domain_and_no_file(tmp_path: Path, name: str) -> None:
    with eventstore.open(tmp_path / "data") as store:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(InvalidKeyError) as caught:
            store.domain(name)
        assert repr(name) in str(caught.value)
        assert store.domains() == []
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["a", "0", "x" * 64, "a.b", "a-b_c.9", "con", "a.", "a--", "nul.txt"])
def test_a_legal_name_is_a_folder_of_that_name(store: Store, tmp_path: Path, name: str) -> None:
    store.domain(name).write_value("k", 1)
    assert store.domains() == [name]
    assert [path.name for path in (tmp_path / "data" / "logs").iterdir()] == [name]
