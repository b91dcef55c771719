"""Nothing that came out of an event reaches a terminal as a command to it."""

from __future__ import annotations

import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.codec import encode_key
from eventstore.errors import EventStoreError
from eventstore.tools.arguments import key_of
from eventstore.tools.terminal import (
    clip,
    count_text,
    escape,
    json_safe,
    key_text,
    paint_for,
    plain,
    progress_on,
    size_text,
    table,
    to_json,
    width_of,
)

HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\n\t\x00\x7f\x85\x9b31m\u202eevil\u2066\u2028\u200b\ufeff\U000e0041\ud83d"
texts = st.text(st.characters(codec=None, exclude_categories=[]))


def is_safe(text: str) -> bool:
    """No control, nothing that reorders, hides or ends a line; judged by Unicode's own categories."""
    return not any(unicodedata.category(each) in {"Cc", "Cs", "Zl", "Zp"} or unicodedata.bidirectional(each) in BIDI for each in text)


BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(texts)
def test_escape_leaves_nothing_a_terminal_would_obey(text: str) -> None:
    assert is_safe(escape(text))
    escape(text).encode()


def test_escape_shows_what_it_took_and_keeps_ordinary_text() -> None:
    assert escape("\x1b[31m") == "\\x1b[31m"
    assert escape("a\nb\u202e\U000e0041\ud83d") == "a\\x0ab\\u202e\\U000e0041\\ud83d"
    ordinary = 'ключ 鍵 ☃ 💥 👩‍💻 é\\n "quoted" [x]'
    assert escape(ordinary) == ordinary


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=9,
    )
)
def test_json_safe_says_the_same_json(value: object) -> None:
    for raw in (json.dumps(value, ensure_ascii=False), json.dumps(value, ensure_ascii=False, indent="\t")):
        shown = json_safe(raw)
        assert is_safe(shown)
        assert json.loads(shown) == value


def test_to_json_can_say_what_is_no_unicode() -> None:
    assert json.loads(to_json({"name": "\udcff\x1b"})) == {"name": "\udcff\x1b"}


@given(texts.filter(bool) | st.lists(st.text() | st.integers(-(2**53), 2**53), min_size=1).map(tuple))
def test_a_key_that_is_shown_can_be_typed_again(key: str | tuple[str | int, ...]) -> None:
    try:
        canonical = encode_key(key)
    except EventStoreError:
        assert is_safe(key_text(key))
        return
    shown = key_text(key)
    assert is_safe(shown)
    assert encode_key(key_of(shown)) == canonical


@pytest.mark.parametrize(
    ("key", "shown"), [("hello", "hello"), ("a b", '["a b"]'), ("[x", '["[x"]'), ("-1", '["-1"]'), (("a", 1), '["a",1]')]
)
def test_a_plain_key_is_shown_plain(key: str | tuple[str | int, ...], shown: str) -> None:
    assert key_text(key) == shown


def test_key_text_of_the_logs_own_key() -> None:
    assert key_text(()) == "[]"


def test_table_aligns_cells_and_lets_any_number_pass() -> None:
    assert list(table([["a", "1", "x"], ["long", "100", "yy"]], right=frozenset({1}))) == ["a       1  x", "long  100  yy"]
    assert list(table([])) == []
    assert list(table([["日本", "x"], ["abcd", "y"]])) == ["日本  x", "abcd  y"]
    rows = ([str(number), "x"] for number in range(100_000))
    assert sum(1 for _ in table(rows)) == 100_000


def test_clip_cuts_to_a_width_only_where_there_is_one() -> None:
    assert clip("abcdef", None) == "abcdef"
    assert clip("abcdef", 6) == "abcdef"
    assert clip("abcdef", 4) == "abc…"
    assert clip("日本語", 4) == "日…"


def test_amounts() -> None:
    assert [size_text(size) for size in (0, 999, 1_000, 1_500_000, 2 * 10**9, 3 * 10**12, 10**16)] == [
        "0 B", "999 B", "1.0 kB", "1.5 MB", "2.0 GB", "3.0 TB", "10000.0 TB",
    ]  # fmt: skip
    assert count_text(1, "event") == "1 event"
    assert count_text(2_000, "loss", "losses") == "2,000 losses"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert paint_for(io.StringIO()) is plain
    assert "\x1b[" in paint_for(Terminal())("bad", "bad")
    monkeypatch.setenv("TERM", "dumb")
    assert paint_for(Terminal()) is plain
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint_for(Terminal()) is plain


def test_a_pipe_has_no_width_and_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    assert width_of(io.StringIO()) is None
    assert width_of(Terminal()) == 70
    with progress_on(io.StringIO()) as progress:
        assert progress is None
    with progress_on(Terminal(), wanted=False) as progress:
        assert progress is None


def test_progress_is_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    with progress_on(screen) as progress:
        assert progress is not None
        progress("files\x1b]0;owned\x07", 1, 2)
        progress("files\x1b]0;owned\x07", 2, 2)
        progress("unknown", 1, 0)
    shown = screen.getvalue()
    assert "files\\x1b" in shown
    assert "\x1b]0;owned" not in shown
