"""What a write becomes: the whole truth table of decide(), written down by hand and compared cell by cell."""

from __future__ import annotations

import itertools
from typing import NoReturn

import pytest

from eventstore.errors import ContractError, WrongExpectedError
from eventstore.model import ABSENT, ANY, PRESENT, Expected, KeyState, WriteRule
from eventstore.rules import Intent, Unchanged, decide

AT = 7
"""Position of the key's current event in every state."""

STANDING = '{"a":1}'
SAME_WHEN = 1_000

# What the key is, and what the write says, as far as that matters. The standing text is always '{"a":1}'.
STATES: dict[str, KeyState | None] = {
    "absent": None,
    "present": KeyState(AT, SAME_WHEN, "present"),
    "removed": KeyState(AT, SAME_WHEN, "removed"),
    "redacted": KeyState(AT, SAME_WHEN, "redacted"),
}

# "+" an event is appended, "." nothing is, "!" ContractError.
#                                      absent present removed redacted
BECOMES: dict[tuple[str, WriteRule, Unchanged], str] = {
    ("put other", "replace", "append"): "+     +       +       +",
    ("put other", "replace", "skip"):   "+     +       +       +",
    ("put same", "replace", "append"):  "+     +       +       +",
    ("put same", "replace", "skip"):    "+     .       +       +",
    ("put later", "replace", "append"): "+     +       +       +",
    ("put later", "replace", "skip"):   "+     +       +       +",
    ("put other", "first", "append"):   "+     .       .       .",
    ("put other", "first", "skip"):     "+     .       .       .",
    ("put same", "first", "append"):    "+     .       .       .",
    ("put same", "first", "skip"):      "+     .       .       .",
    ("put later", "first", "append"):   "+     .       .       .",
    ("put later", "first", "skip"):     "+     .       .       .",
    ("remove", "replace", "append"):    ".     +       .       +",
    ("remove", "replace", "skip"):      ".     +       .       +",
    ("remove", "first", "append"):      "!     !       !       !",
    ("remove", "first", "skip"):        "!     !       !       !",
}  # fmt: skip

# Whether the expectation is met.      absent present removed redacted
MEETS: dict[Expected | int, str] = {
    ANY:     "yes   yes     yes     yes",
    ABSENT:  "yes   no      yes     no",
    PRESENT: "no    yes     no      yes",
    AT:      "no    yes     no      yes",
    AT - 1:  "no    no      no      no",
    AT + 1:  "no    no      no      no",
}  # fmt: skip

WRITES = {
    "put same": ("put", STANDING, SAME_WHEN),
    "put later": ("put", STANDING, SAME_WHEN + 1),
    "put other": ("put", '{"a":2}', SAME_WHEN),
    "remove": ("remove", None, SAME_WHEN),
}


def intent_of(write: str, expected: Expected | int = ANY, unchanged: Unchanged = "append") -> Intent:
    op, data, when_us = WRITES[write]
    return Intent(op, '["k"]', data, when_us, expected=expected, unchanged=unchanged)


def outcome(rule: WriteRule, state: KeyState | None, intent: Intent) -> str:
    try:
        return "+" if decide("d", rule, state, lambda _: STANDING, intent) else "."
    except ContractError:
        return "!"
    except WrongExpectedError:
        return "?"


def test_the_table_is_whole() -> None:
    rules: tuple[WriteRule, ...] = ("replace", "first")
    unchanged: tuple[Unchanged, ...] = ("append", "skip")
    assert set(BECOMES) == set(itertools.product(WRITES, rules, unchanged))
    assert {len(row.split()) for row in (*BECOMES.values(), *MEETS.values())} == {len(STATES)}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("expected", MEETS, ids=str)
@pytest.mark.parametrize(("write", "rule", "unchanged"), BECOMES)
def test_a_write_becomes_what_the_table_says(
    write: str, rule: WriteRule, unchanged: Unchanged, expected: Expected | int, state: str
) -> None:
    column = list(STATES).index(state)
    becomes = BECOMES[write, rule, unchanged].split()[column] if MEETS[expected].split()[column] == "yes" else "?"
    assert outcome(rule, STATES[state], intent_of(write, expected, unchanged)) == becomes


@pytest.mark.parametrize(
    ("state", "actual"),
    [("absent", None), ("present", AT), ("removed", None), ("redacted", AT)],
    ids=["absent", "present", "removed", "redacted"],
)
def test_a_wrong_expectation_says_what_is_there(state: str, actual: int | None) -> None:
    with pytest.raises(WrongExpectedError) as caught:
        decide("d", "replace", STATES[state], lambda _: None, intent_of("put other", AT + 1))
    error = caught.value
    assert (error.domain, error.key, error.expected, error.actual) == ("d", '["k"]', AT + 1, actual)


@pytest.mark.parametrize("standing", ['{"a":1.0}', '{ "a":1}', '{"a":1} ', '{"A":1}', "null"])
def test_skip_compares_bytes_and_not_meaning(standing: str) -> None:
    assert decide("d", "replace", STATES["present"], lambda _: standing, intent_of("put same", unchanged="skip"))


@pytest.mark.parametrize(("before", "now"), [(None, 0), (0, None), (1, 2)])
def test_skip_takes_another_when_for_a_change(before: int | None, now: int | None) -> None:
    state = KeyState(AT, before, "present")
    assert decide("d", "replace", state, lambda _: "1", Intent("put", '["k"]', "1", now, unchanged="skip"))
    assert not decide("d", "replace", state, lambda _: "1", Intent("put", '["k"]', "1", before, unchanged="skip"))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("write", "rule", "unchanged"), BECOMES)
def test_the_standing_text_is_only_read_where_the_answer_depends_on_it(
    write: str, rule: WriteRule, unchanged: Unchanged, state: str
) -> None:
    """Reading it may cost a page of the log: it is for skip alone, and only where `when` is the same."""

    def must_not_be_asked(_: KeyState) -> NoReturn:
        raise AssertionError("asked for the standing text")

    if (rule, unchanged, state) != ("replace", "skip", "present") or write not in ("put same", "put other"):
        try:
            decide("d", rule, STATES[state], must_not_be_asked, intent_of(write, unchanged=unchanged))
        except ContractError:
            assert rule == "first"
