"""What a wrong command line, or a wrong file, is told: the thing by its name, what was found, what was expected; never Python's words."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import eventstore as library
from tests.tools.command import done, eventstore

PYTHON = re.compile(
    r"Traceback|\[Errno|invalid literal|PosixPath|codec can't|NoneType|<class|<_io|object has no|unexpected keyword|line 1 column|\.tmp-"
)
HUGE = "9" * 25
BYTES = "a\udcff"
"""As Python has a byte of a name that is no UTF-8."""

MISSING, FOLDER, FILE = "No such file or directory", "a file is expected here", "a folder is expected where a file is"

WRONG: list[tuple[list[str], int, str]] = [
    # a STORE that is none
    (["get", "file", "n", "k"], 2, "file: not a folder; a store is a folder"),
    (["get", "pipe", "n", "k"], 2, "pipe: not a folder; a store is a folder"),
    (["get", "folder", "n", "k"], 2, "no store here: store.json is missing; `eventstore init`"),
    (["get", "missing", "n", "k"], 2, "no store here; `eventstore init`"),
    (["get", BYTES, "n", "k"], 2, r"a\udcff: no store here"),
    (["get", "pipes", "n", "k"], 2, "store.json: a regular file is expected, and this is a pipe"),
    (["put", "file/x", "n", "k", "1"], 2, FILE),
    (["init", "missing/a/b"], 2, "must be made first"),
    # a DOMAIN or a KEY that is none
    (["get", "data", "nope", "k"], 1, "no domain 'nope' in data; `eventstore ls data` names those there are"),
    (["get", "data", "", "k"], 3, "domain '': 1 to 64 of a-z"),
    (["put", "data", "../x", "k", "1"], 3, "domain '../x': 1 to 64 of a-z"),
    (["get", "data", BYTES, "k"], 3, "1 to 64 of a-z"),
    (["get", "data", "n", BYTES], 3, "lone surrogate, which is no character"),
    (["get", "data", "n", f'["{BYTES}"]'], 3, "is not UTF-8; keys are text"),
    (["get", "data", "n", ""], 3, "a key of one empty string is not allowed"),
    (["get", "data", "n", "[]"], 3, "the KEY [] has no part"),
    (["get", "data", "n", "[1.5]"], 3, "the KEY [1.5] holds 1.5; its parts are strings and integers"),
    (["get", "data", "n", '["a"'], 3, "begins like a JSON array but is none"),
    # a VALUE that is none
    (["put", "data", "n", "k", ""], 3, "the VALUE is empty; it is JSON"),
    (["put", "data", "n", "k", "nonsense"], 3, "a string is written with its quotes: '\"nonsense\"'"),
    (["put", "data", "n", "k", '{"a": }'], 3, "not JSON: Expecting value, found '}' at character 6"),
    (["put", "data", "n", "k", "[1"], 3, "found the end of the text"),
    (["put", "data", "n", "k", f'"{BYTES}"'], 3, "not UTF-8 at byte 2"),
    (["put", "data", "n", "k", "@"], 3, "@ names no file; write @FILE"),
    (["put", "data", "n", "k", "@missing"], 3, f"reading the VALUE @missing: {MISSING}"),
    (["put", "data", "n", "k", "@folder"], 3, FOLDER),
    (["put", "data", "n", "k", "@bytes"], 3, "not UTF-8 at byte 0"),
    # what a write says of itself
    (["put", "data", "n", "k", "1", "--when", "noon"], 3, "'noon' is no time; write it as 2026-11-21T"),
    (["put", "data", "n", "k", "1", "--expected", "-1"], 3, "'-1' is not absent, present or a position"),
    (["put", "data", "n", "k", "1", "--expected", HUGE], 3, "has 25 digits; a position has 19 at most"),
    (["put", "data", "n", "k", "1", "--actor", BYTES], 3, "lone surrogate, which is no character"),
    (["put", "data", "n", "k", "1", "--event-id", ""], 3, "event_id is a string that is not empty"),
    # numbers, positions, moments
    (
        ["state", "data", "n", "--as-of", "-5"],
        3,
        "'-5' is no time; write it as 2026-11-21T14:03:07.5+00:00; a position is written in digits",
    ),
    (["state", "data", "n", "--as-of", "2021-13-45T00:00:00Z"], 3, "'2021-13-45T00:00:00Z' is no time"),
    (["state", "data", "--as-of", "3"], 3, "name the DOMAIN, or give a time"),
    (["log", "data", "n", "--after", "-1"], 3, "'--after': '-1' is no whole number from 0 to"),
    (["log", "data", "n", "--after", "x"], 3, "'--after': 'x' is no whole number from 0 to"),
    (["log", "data", "n", "--limit", HUGE], 3, "is no whole number from 0 to 9223372036854775807"),
    (["redact", "data", "n", "--position", "77", "--reason", "r"], 1, "n@77: no such event; the head is position 1"),
    (["verify", "data", "--processes", "0"], 3, "'0' is no whole number from 1"),
    (["shadow", "folder", "data", "--once", "--rescan", "nan"], 3, "'nan' is no number of seconds from 0.1 on"),
    (["retention", "plan", "data", "--keep-days", HUGE], 3, "is no whole number from 0 to 1000000"),
    (["serve", "data", "--port", "99999"], 3, "'99999' is no whole number from 0 to 65535"),
    # paths of options, and the second path of a command
    (["backup", "data", ""], 3, "the path is empty; name one, '.' for the current folder"),
    (["import", "", "other"], 3, "the path is empty"),
    (["restore", "", "other"], 3, "the path is empty"),
    (["salvage", "", "other"], 3, "the path is empty"),
    (["import", "missing", "another"], 2, f"reading missing: {MISSING}"),
    (["import", "bytes", "other"], 3, "bytes: neither an export of an event store (JSONL) nor a folder of JSON files"),
    (["export", "data", "-o", "folder"], 2, FOLDER),
    (["export", "data", "-o", "missing/x"], 2, "must be made first"),
    (["bundle", "data", "n", "--key", "k", "-o", "missing/x"], 2, f"writing missing/x: {MISSING} (missing)"),
    (["bundle", "data", "n", "--key", "k", "--since", "folder"], 2, FOLDER),
    (["verify", "data", "--anchor", "bytes"], 3, "bytes is no anchor"),
    (["anchor", "data", "--private-key", "missing"], 2, f"reading the private key: {MISSING} (missing)"),
    (["restore", "folder", "other"], 2, "no backup here: backup.json is missing"),
    (["restore", "copies", "other"], 2, "backup.json: a regular file is expected, and this is a pipe"),
    (["shadow", "missing", "other", "--once"], 2, "is gone, or cannot be listed"),
    (["archive", "data", "--to", BYTES], 3, r"the path 'a\udcff' is not UTF-8"),
    (["serve", "data", "--token-file", "folder"], 2, FOLDER),
    # the command line itself
    (["nosuch"], 3, "No such command 'nosuch'; `eventstore --help` says what there is"),
    (["get", "data"], 3, "Missing argument 'DOMAIN'; `eventstore get --help`"),
    (["get", "data", "n", "k", "more"], 3, "unexpected extra argument (more); `eventstore get --help`"),
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of one event, and things that are none."""
    place = tmp_path_factory.mktemp("words")
    with library.open(place / "data") as store:
        store.domain("n").write_value("k", 1)
    (place / "file").write_text("text\n")
    (place / "bytes").write_bytes(b"\xff\xfe")
    (place / "folder").mkdir()
    for name in ("pipe", "pipes/store.json", "copies/backup.json"):
        (place / name).parent.mkdir(exist_ok=True)
        os.mkfifo(place / name)
    return place


@pytest.fixture(autouse=True)
def inside(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workshop)


@pytest.mark.parametrize(("words", "code", "says"), WRONG, ids=[" ".join(words).encode(errors="replace").decode() for words, _, _ in WRONG])
def test_what_is_wrong_is_named_in_words(words: list[str], code: int, says: str) -> None:
    answer = eventstore(*words)
    last = answer.err.splitlines()[-1]
    assert last.startswith("error: "), answer.err
    assert says in last
    assert not PYTHON.search(answer.err), answer.err
    assert (answer.code, answer.out) == (code, "")


def test_in_json_it_is_the_same_sentence() -> None:
    for words in (["get", "missing", "n", "k"], ["export", "data", "-o", "folder"], ["log", "data", "n", "--after", "x"]):
        sentence = eventstore(*words).err.splitlines()[-1].removeprefix("error: ")
        assert eventstore(*words, "--json").error()["message"] == sentence


@pytest.fixture
def nobody(workshop: Path) -> Iterator[None]:
    """This process acts as a user to whom nothing here belongs."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as nobody")
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    "words",
    [
        ["get", "data", "n", "k"],
        ["put", "data", "n", "k", "1"],
        ["put", "new", "n", "k", "1"],
        ["ls", "data"],
        ["verify", "data"],
        ["put", "data", "n", "k", "@file"],
        ["doctor", "data"],
    ],
    ids=" ".join,
)
def test_who_may_not_is_told_of_which_path(words: list[str], nobody: None) -> None:
    answer = eventstore(*words)
    assert (answer.code, answer.out) == (3 if "@file" in words else 2, "")
    assert "Permission denied (" in answer.err
    assert "check owner, permissions and links of that path" in answer.err
    assert not PYTHON.search(answer.err)


def test_an_error_of_the_system_that_nobody_expected_is_said_in_words_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def read(self) -> bytes:
            raise OSError(5, "Input/output error", "/dev/stdin")

    class Input:
        buffer = Broken()

    monkeypatch.setattr("eventstore.tools.arguments.sys", type("system", (), {"stdin": Input()}))
    answer = eventstore("put", "data", "n", "k", "-")
    assert (answer.code, answer.err) == (2, "error: Input/output error (/dev/stdin)\n")
    assert json.loads(eventstore("put", "data", "n", "k", "-", "--json").err)["error"] == "EngineError"


def test_nothing_of_it_was_written() -> None:
    assert done("log", "data", "--json").out.count("\n") == 1
    assert set(os.listdir()) - {"other"} == {"bytes", "copies", "data", "file", "folder", "pipe", "pipes"}
