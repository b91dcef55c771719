"""What changed between two JSON values, place by place."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.tools.difference import Change, differences


def shown(old: str | None, new: str | None) -> list[tuple[str, str | None, str | None]]:
    """The changes with their values as text."""

    def text(change: Change, old: bool) -> str | None:
        raw = change.old if old else change.new
        return None if raw is None else bytes(raw).decode()

    return [(change.path, text(change, True), text(change, False)) for change in differences(old, new)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('{"a":1}', '{"a":2}', [(".a", "1", "2")]),
        ('{"a":1,"b":2}', '{"b":2,"c":null}', [(".a", "1", None), (".c", None, "null")]),
        ('{"a":{"b":[1,{"c":2}]}}', '{"a":{"b":[1,{"c":3}]}}', [(".a.b[1].c", "2", "3")]),
        ('{"we ird":1,"":2}', "{}", [('."we ird"', "1", None), ('.""', "2", None)]),
        ("1", "2", [(".", "1", "2")]),
        ("1", '"1"', [(".", "1", '"1"')]),
        ("[1]", "{}", [(".", "[1]", "{}")]),
        ("[]", "[1]", [(".[0]", None, "1")]),
        (None, '{"a":1}', [(".", None, '{"a":1}')]),
        ('{"a":1}', None, [(".", '{"a":1}', None)]),
        (None, None, []),
        ("true", "1", [(".", "true", "1")]),
        ("null", "false", [(".", "null", "false")]),
    ],
)
def test_a_change_is_named_by_its_place(old: str | None, new: str | None, expected: list[tuple[str, str | None, str | None]]) -> None:
    assert shown(old, new) == expected


@pytest.mark.parametrize(
    ("old", "new"), [("1", "1.0"), ("0.0", "-0.0"), ("1" * 4_000, "1" * 3_999 + "2"), ("1e2", "100"), (str(2**63), str(2**63 + 1))]
)
def test_numbers_are_compared_digit_by_digit(old: str, new: str) -> None:
    assert shown(old, new) == [(".", old, new)]


@pytest.mark.parametrize(("old", "new"), [('{"a":1,"b":[2]}', ' { "b" : [2],\n"a":1 }'), ('"é"', '"\\u00e9"'), ('"\\ud83d"', '"\\uD83D"')])
def test_spelling_is_no_difference(old: str, new: str) -> None:
    assert differences(old, new) == []


def test_an_item_taken_out_of_a_list_is_one_change() -> None:
    assert shown("[1,2,3,4]", "[1,3,4]") == [(".[1]", "2", None)]
    assert shown("[1,2,3]", "[9,1,2,3]") == [(".[0]", None, "9")]
    assert shown("[1,2,3]", "[2,3,4]") == [(".[0]", "1", None), (".[2]", None, "4")]  # a list with a cap
    assert shown('[{"id":1,"x":1},{"id":2,"x":1}]', '[{"id":1,"x":1},{"id":2,"x":5}]') == [(".[1].x", "1", "5")]


def test_long_lists_are_compared_item_by_item() -> None:
    old = list(range(3_000))
    assert shown(json.dumps(old), json.dumps([*old[:-1], 7, 8])) == [(".[2999]", "2999", "7"), (".[3000]", None, "8")]


def test_half_an_emoji_is_shown_as_its_escape() -> None:
    assert shown('{"\\ud83d":"\\ud83d"}', "{}") == [('."\\ud83d"', '"\\ud83d"', None)]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(values, values)
def test_there_is_a_difference_exactly_where_the_values_differ(old: object, new: object) -> None:
    one, other = json.dumps(old), json.dumps(new)
    same = json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)
    assert (differences(one, other) == []) == same
    assert differences(one, one) == []
