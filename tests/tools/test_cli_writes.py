"""put, get, rm, ls, log, history, state: what is written comes back, and every wrong word is answered with the right code."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import eventstore as library
from eventstore.clock import format_us
from tests.tools.command import done, eventstore


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Where the store is, or will be."""
    return tmp_path / "data"


def test_init_makes_a_store_once(data: Path) -> None:
    first = done("init", data, "--json").json()
    again = done("init", data, "--json").json()
    assert first == again
    assert first["store"] == str(data)
    assert first["store_id"] in done("init", data).out


@pytest.mark.parametrize(
    "text",
    ['{"a": 1}', "  [1,\n\t2 ] ", "-0.0", "1" * 4_000, "18446744073709551616", '"\\ud83d"', '"\u202e☃"', "null", '{"b":1,"a":[{}]}'],
)
def test_a_value_comes_back_byte_for_byte(data: Path, text: str) -> None:
    receipt = done("put", data, "notes", "hello", "--json", "--", text).json()
    assert receipt["op"] == "put"
    assert receipt["position"] == 1
    assert receipt["durability"] == "power"
    assert receipt["appended"] is True
    assert done("get", data, "notes", "hello").out_bytes == text.encode() + b"\n"
    found = done("get", data, "notes", "hello", "--json").json()
    assert (found["domain"], found["key"], found["position"], found["when_us"]) == ("notes", "hello", 1, None)


def test_a_value_from_a_file_and_from_standard_input(data: Path, tmp_path: Path) -> None:
    (tmp_path / "value.json").write_bytes(b'{"a": 1}\n\n')
    done("put", data, "notes", "file", f"@{tmp_path / 'value.json'}")
    assert done("get", data, "notes", "file").out_bytes == b'{"a": 1}\n\n'  # one newline was the file's, one is print's
    done("put", data, "notes", "stdin", "-", stdin=b"[1, 2]\n")
    assert done("get", data, "notes", "stdin").out_bytes == b"[1, 2]\n"
    missing = eventstore("put", data, "notes", "file", f"@{tmp_path / 'missing'}", "--json")
    assert missing.code == 3
    assert missing.error()["error"] == "InvalidValueError"


def test_everything_that_can_be_said_about_a_write(data: Path) -> None:
    done(
        "put", data, "notes", '["a",1]', "1", "--when", "2026-11-21T10:00:00.000001Z", "--actor", "me", "--reason", "why",
        "--correlation-id", "c", "--causation-id", "d", "--run-id", "r", "--type", "t", "--schema", "2", "--tag", "x", "--tag", "y",
        "--event-id", "e", "--durability", "process", "--expected", "absent",
    )  # fmt: skip
    event = done("log", data, "notes", "-p", "--json").json()
    assert event["key"] == ["a", 1]
    assert event["when_us"] == 1795255200000001
    assert event["value"] == 1
    expected = {"actor": "me", "reason": "why", "correlation_id": "c", "causation_id": "d", "run_id": "r", "type": "t", "schema": 2}
    assert event["meta"] == {**event["meta"], **expected, "event_id": "e", "tags": ["x", "y"]}
    shown = done("log", data, "notes").out
    assert "by me" in shown
    assert "because why" in shown
    assert "when 2026-11-21T10:00:00.000001Z" in shown


def test_a_retry_with_its_event_id_writes_nothing(data: Path) -> None:
    first = done("put", data, "notes", "a", "1", "--event-id", "e", "--json").json()
    assert done("put", data, "notes", "a", "1", "--event-id", "e", "--json").json() == first
    other = eventstore("put", data, "notes", "a", "2", "--event-id", "e", "--json")
    assert other.code == 1
    assert other.error()["error"] == "DuplicateEventError"
    assert other.error()["event_id"] == "e"


def test_expected_is_held(data: Path) -> None:
    done("put", data, "notes", "a", "1", "--expected", "absent")
    again = eventstore("put", data, "notes", "a", "2", "--expected", "absent", "--json")
    assert again.code == 1
    assert again.error() == {
        **again.error(),
        "error": "WrongExpectedError",
        "domain": "notes",
        "key": '["a"]',
        "expected": "absent",
        "actual": 1,
    }
    done("put", data, "notes", "a", "2", "--expected", "1")
    done("put", data, "notes", "a", "3", "--expected", "present")
    assert eventstore("rm", data, "notes", "a", "--expected", "1").code == 1
    assert done("get", data, "notes", "a").out == "3\n"
    assert eventstore("put", data, "notes", "a", "3", "--expected", "maybe").code == 3


def test_skip_unchanged_appends_nothing(data: Path) -> None:
    done("put", data, "notes", "a", "1")
    answer = done("put", data, "notes", "a", "1", "--unchanged", "skip")
    assert answer.out.startswith("unchanged")
    assert len(done("log", data, "notes").out.splitlines()) == 1
    assert done("put", data, "notes", "a", "1", "--unchanged", "append").out.startswith("put")
    assert eventstore("put", data, "notes", "a", "1", "--unchanged", "maybe").code == 3


def test_rm_removes_once(data: Path) -> None:
    done("put", data, "notes", "a", "1")
    assert done("rm", data, "notes", "a", "--reason", "done", "--json").json()["appended"] is True
    nothing = eventstore("rm", data, "notes", "a")
    assert nothing.code == 1
    assert "nothing to remove" in nothing.out
    assert eventstore("get", data, "notes", "a").code == 1
    assert eventstore("rm", data, "typo", "a").code == 1
    assert done("ls", data, "--json").json()["domain"] == "notes"  # nothing was made by asking


def fill(data: Path) -> None:
    """Two domains, three keys."""
    done("put", data, "positions", '["binance","id10"]', '{"size":1}')
    done("put", data, "positions", '["binance","id2"]', '{"size":2}', "--when", "2026-11-21T10:00:00Z")
    done("put", data, "positions", '["kraken","id1"]', '{"size":3}')
    done("put", data, "notes", "hello", '{"a":1}')
    done("put", data, "notes", "hello", '{"a":2,"b":[1,2]}')
    done("put", data, "notes", "bye", "1")
    done("rm", data, "notes", "bye")


def test_ls(data: Path) -> None:
    fill(data)
    domains = done("ls", data, "--json").lines()
    assert [(line["domain"], line["keys"], line["events"]) for line in domains] == [("notes", 1, 4), ("positions", 3, 3)]
    assert all(line["size_bytes"] > 8_000 and len(line["checksum"]) == 64 for line in domains)
    heading, *rows = done("ls", data).out.splitlines()
    assert heading.split() == ["domain", "keys", "events", "size", "head"]
    assert [row.split()[:3] for row in rows] == [["notes", "1", "4"], ["positions", "3", "3"]]
    assert done("ls", data, "positions").out.splitlines() == ['["binance","id2"]', '["binance","id10"]', '["kraken","id1"]']
    assert done("ls", data, "positions", "binance").out.splitlines() == ['["binance","id2"]', '["binance","id10"]']
    assert done("ls", data, "positions", '["kraken","id1"]').out.splitlines() == ['["kraken","id1"]']
    assert done("ls", data, "positions", "[]").out == done("ls", data, "positions").out
    assert done("ls", data, "positions", '[""]').out == ""
    assert done("ls", data, "positions", "-l").out.splitlines()[0].split() == ["2", "2026-11-21T10:00:00.000000Z", '["binance","id2"]']
    assert done("ls", data, "positions", "kraken", "--json").json() == {
        "key": ["kraken", "id1"],
        "position": 3,
        "when_us": None,
        "redacted": False,
    }


def test_log(data: Path) -> None:
    fill(data)
    notes = done("log", data, "notes", "--json").lines()
    assert [(line["position"], line["prev"], line["op"], line["key"]) for line in notes] == [
        (1, 0, "put", "hello"), (2, 1, "put", "hello"), (3, 0, "put", "bye"), (4, 3, "remove", "bye"),
    ]  # fmt: skip
    assert all("value" not in line for line in notes)
    assert [line["value"] for line in done("log", data, "notes", "-p", "--json").lines()] == [{"a": 1}, {"a": 2, "b": [1, 2]}, 1, None]

    def positions(*words: object) -> list[int]:
        return [line["position"] for line in done("log", data, "notes", "--json", *words).lines()]

    assert positions("--reverse") == [4, 3, 2, 1]
    assert positions("--after", 2) == [3, 4]
    assert positions("--limit", 2) == [1, 2]
    assert positions("--limit", 0) == []
    assert positions("--reverse", "--limit", 1) == [4]
    assert positions("--key", "hello") == [1, 2]
    assert positions("--key", "hello", "--reverse", "--limit", 1) == [2]
    assert positions("--key", "nobody") == []
    with library.open(data, read_only=True) as store:
        moment = next(store.domain("notes").events(2)).recorded_us
    assert positions("--since", format_us(moment + 1)) == [4]
    assert positions("--since", format_us(moment)) == [3, 4]
    assert positions("--since", "9999-12-31T23:59:59Z") == []
    assert positions("--since", "0001-01-01T00:00:00Z") == [1, 2, 3, 4]


def test_log_of_all_domains_is_in_order_of_time(data: Path) -> None:
    fill(data)
    lines = done("log", data, "--json").lines()
    assert len(lines) == 7
    assert [line["recorded_us"] for line in lines] == sorted(line["recorded_us"] for line in lines)
    assert [line["position"] for line in done("log", data, "--json", "--reverse", "--limit", 2).lines()] == [4, 3]
    assert "positions" in done("log", data).out
    for words in (["--key", "hello"], ["--after", "1"]):
        assert eventstore("log", data, *words).code == 3


def test_history_is_shown_as_differences(data: Path) -> None:
    fill(data)
    newest, oldest = done("history", data, "notes", "hello", "--json").lines()
    assert newest["position"] == 2
    assert newest["changes"] == [{"path": ".a", "old": 1, "new": 2}, {"path": ".b", "new": [1, 2]}]
    assert oldest["changes"] == [{"path": ".", "new": {"a": 1}}]
    shown = done("history", data, "notes", "hello").out.splitlines()
    assert shown[1:3] == ["    ~ .a: 1 -> 2", "    + .b: [1,2]"]
    assert shown[4] == '    + .: {"a":1}'
    assert [line["position"] for line in done("history", data, "notes", "hello", "--reverse", "--json").lines()] == [1, 2]
    assert done("history", data, "notes", "hello", "--limit", 1, "--json").lines() == [newest]
    assert done("history", data, "notes", "hello", "--limit", 1, "--reverse", "--json").lines() == [oldest]
    removed, _ = done("history", data, "notes", "bye", "--json").lines()
    assert removed["op"] == "remove"
    assert removed["changes"] == [{"path": ".", "old": 1}]
    done("put", data, "notes", "hello", '{ "a": 2, "b": [1, 2] }')
    assert "the same value" in done("history", data, "notes", "hello", "--limit", 1).out
    assert eventstore("history", data, "notes", "nobody").code == 1


def test_state_now_and_then(data: Path) -> None:
    fill(data)
    assert [(line["key"], line["value"]) for line in done("state", data, "notes", "--json").lines()] == [("hello", {"a": 2, "b": [1, 2]})]
    then = done("state", data, "notes", "--as-of", 3, "--json").lines()
    assert [(line["key"], line["position"], line["value"]) for line in then] == [("bye", 3, 1), ("hello", 2, {"a": 2, "b": [1, 2]})]
    assert done("state", data, "notes", "--as-of", 0).out == ""
    assert done("state", data, "notes", "--as-of", 10**6).out == done("state", data, "notes").out
    assert done("state", data, "positions", "binance", "--json").lines()[0]["when_us"] == 1795255200000000
    everything = done("state", data, "--as-of", "9999-01-01T00:00:00Z").out.splitlines()
    assert [line.split()[0] for line in everything] == ["notes", "positions", "positions", "positions"]
    assert done("state", data, "--as-of", "2020-01-01T00:00:00Z").out == ""
    assert done("state", data, "--as-of", "0001-01-01T00:00:00+14:00").out == ""
    recorded = [line["recorded_us"] for line in done("log", data, "notes", "--json").lines()]
    assert done("state", data, "notes", "--as-of", format_us(recorded[0]), "--json").json()["value"] == {"a": 1}


def test_a_position_needs_a_domain(data: Path) -> None:
    fill(data)
    answer = eventstore("state", data, "--as-of", 3)
    assert answer.code == 3
    assert "DOMAIN" in answer.err


def test_a_local_time_is_echoed_with_its_offset(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Etc/GMT-3")
    time.tzset()
    try:
        answer = done("put", data, "notes", "a", "1", "--when", "2026-11-21T10:00:00")
        assert "2026-11-21T10:00:00+03:00" in answer.err
        assert done("log", data, "notes", "--json").json()["when_us"] == 1795244400000000
        assert "+03:00" in done("state", data, "--as-of", "2026-11-21T10:00:00").err
        assert done("state", data, "--as-of", "2026-11-21T10:00:00Z").err == ""
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["put", "STORE", "notes", "a", "{"], "InvalidValueError"),
        (["put", "STORE", "notes", "a", "hello"], "InvalidValueError"),
        (["put", "STORE", "notes", "a", "NaN"], "InvalidValueError"),
        (["put", "STORE", "notes", "a", "1e400"], "InvalidValueError"),
        (["put", "STORE", "notes", "a", '{"a":1,"a":2}'], "InvalidValueError"),
        (["put", "STORE", "notes", "a", '"\udcff"'], "InvalidValueError"),
        (["put", "STORE", "notes", "a", "[" * 100 + "]" * 100], "InvalidValueError"),
        (["put", "STORE", "notes", "", "1"], "InvalidKeyError"),
        (["put", "STORE", "notes", "[1", "1"], "InvalidKeyError"),
        (["put", "STORE", "notes", "[]", "1"], "InvalidKeyError"),
        (["put", "STORE", "notes", "[1.5]", "1"], "InvalidKeyError"),
        (["put", "STORE", "notes", "[true]", "1"], "InvalidKeyError"),
        (["put", "STORE", "notes", "[\udcff", "1"], "InvalidKeyError"),
        (["put", "STORE", "notes", "\udcff", "1"], "InvalidKeyError"),
        (["put", "STORE", "notes", "k" * 2_000, "1"], "InvalidKeyError"),
        (["put", "STORE", "../notes", "a", "1"], "InvalidKeyError"),
        (["get", "STORE", "NOTES", "a"], "InvalidKeyError"),
        (["put", "STORE", "notes", "a", "1", "--when", "yesterday"], "ConfigError"),
        (["put", "STORE", "notes", "a", "1", "--when", "2026-11-21T10:00:00.1234567Z"], "ConfigError"),
        (["put", "STORE", "notes", "a", "1", "--durability", "memory"], "UsageError"),
        (["put", "STORE", "notes", "a"], "UsageError"),
        (["put", "STORE", "notes", "a", "1", "2"], "UsageError"),
        (["log", "STORE", "--limit", "-1"], "UsageError"),
        (["log", "STORE", "--since", "now"], "ConfigError"),
        (["nonsense"], "UsageError"),
        (["get", "STORE", "notes", "a", "--nonsense"], "UsageError"),
        (["put", "mysql://x/y", "notes", "a", "1"], "ConfigError"),
        (["put", "", "notes", "a", "1"], "UsageError"),
    ],
)
def test_a_wrong_command_line_is_3(data: Path, words: list[str], error: str) -> None:
    done("init", data)
    words = [str(data) if word == "STORE" else word for word in words]
    answer = eventstore(*words, "--json")
    assert answer.code == 3
    assert answer.out == ""
    assert answer.error()["error"] == error
    assert answer.error()["message"]
    human = eventstore(*words)
    assert human.code == 3
    assert "error: " in human.err
    assert done("ls", data).out == ""  # nothing was written


def test_a_string_without_quotes_is_explained(data: Path) -> None:
    assert "'\"hello\"'" in eventstore("put", data, "notes", "a", "hello").err


READING = [
    ["get", "STORE", "notes", "a"], ["rm", "STORE", "notes", "a"], ["ls", "STORE"], ["ls", "STORE", "notes"], ["log", "STORE"],
    ["history", "STORE", "notes", "a"], ["state", "STORE"], ["verify", "STORE"], ["anchor", "STORE"], ["accept", "STORE", "notes"],
    ["export", "STORE"], ["doctor", "STORE"],
]  # fmt: skip


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_a_missing_store_is_2_and_stays_missing(tmp_path: Path, words: list[str]) -> None:
    missing = tmp_path / "missing"
    answer = eventstore(*[str(missing) if word == "STORE" else word for word in words], "--json")
    assert answer.code == 2
    assert answer.out == ""
    assert answer.error()["error"] == "NotAStoreError"
    assert "eventstore init" in answer.error()["message"]
    assert not missing.exists()


@pytest.mark.parametrize("words", [*READING, ["put", "STORE", "notes", "a", "1"], ["init", "STORE"]], ids=" ".join)
def test_a_folder_that_is_no_store_is_2_and_stays_untouched(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "letter.txt").write_text("dear reader")
    for place in (tmp_path, tmp_path / "letter.txt"):
        answer = eventstore(*[str(place) if word == "STORE" else word for word in words], "--json")
        assert answer.code == 2
        assert answer.error()["error"] == "NotAStoreError"
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    "words",
    [
        ["get", "STORE", "typo", "a"],
        ["ls", "STORE", "typo"],
        ["log", "STORE", "typo"],
        ["state", "STORE", "typo"],
        ["verify", "STORE", "typo"],
        ["history", "STORE", "typo", "a"],
        ["accept", "STORE", "typo"],
        ["export", "STORE", "typo"],
        ["get", "STORE", "notes", "typo"],
    ],
    ids=" ".join,
)
def test_an_unknown_domain_or_key_is_1_and_is_not_made(data: Path, words: list[str]) -> None:
    done("put", data, "notes", "a", "1")
    answer = eventstore(*[str(data) if word == "STORE" else word for word in words], "--json")
    assert answer.code == 1
    assert answer.out == ""
    assert answer.error()["error"] == "NotFoundError"
    assert [line["domain"] for line in done("ls", data, "--json").lines()] == ["notes"]


def test_a_domain_under_another_rule_can_be_read_and_written(data: Path) -> None:
    with library.open(data) as store:
        store.domain(library.Domain("candle", write="first")).write_value("a", 1)
    assert done("get", data, "candle", "a").out == "1\n"
    assert done("put", data, "candle", "a", "2", "--json").json()["appended"] is False
    assert eventstore("rm", data, "candle", "a").code == 1
    assert done("state", data, "candle").out.split() == ["a", "1"]


def test_json_output_is_ascii_safe_for_terminals(data: Path) -> None:
    done("put", data, "notes", "a\u202e", '"\u202e\x7f"')
    out = done("log", data, "notes", "-p", "--json").out
    assert "\u202e" not in out
    assert "\x7f" not in out
    assert json.loads(out)["value"] == "\u202e\x7f"


def test_a_disk_that_is_full_is_said_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done("put", data, "notes", "hello", "1")
    monkeypatch.setenv("EVENTSTORE_MIN_FREE_BYTES", str(2**52))
    full = eventstore("put", data, "notes", "hello", "2")
    assert (full.code, full.out) == (2, "")
    assert full.err.count("bytes are free") == 1
    assert full.err.count("\n") == 1
    assert eventstore("put", data, "notes", "hello", "2", "--json").error()["error"] == "DiskFullError"
    assert len(eventstore("put", data, "notes", "hello", "2", "--json").err.splitlines()) == 1
    assert done("get", data, "notes", "hello").out == "1\n"


def closed(redirection: str, *words: object) -> subprocess.CompletedProcess[str]:
    """The command, begun by a shell that closes a stream of its own."""
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "eventstore", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_nothing_is_written_where_standard_output_was_closed(data: Path) -> None:
    for redirection in (">&-", ">&- <&-", ">&- 2>&-"):
        answer = closed(redirection, "put", data, "d", "k", "1")
        assert (answer.returncode, "Traceback" in answer.stderr, data.exists()) == (3, False, False)
        assert "2>&-" in redirection or answer.stderr.startswith("error: standard output is closed")


def test_a_closed_standard_input_is_no_empty_one(data: Path, tmp_path: Path) -> None:
    for words in (("put", data, "d", "k", "-"), ("import", "-", data)):
        answer = closed("<&-", *words)
        assert (answer.returncode, answer.stdout) == (2, "")
        assert "standard input is closed" in answer.stderr
        assert "Traceback" not in answer.stderr
    assert closed("<&-", "put", data, "d", "k", "1").returncode == 0, "nobody read it"


def test_a_closed_standard_error_changes_no_exit_code(data: Path) -> None:
    assert closed("2>&-", "put", data, "d", "k", "1").returncode == 0
    assert closed("2>&-", "get", data, "d", "other").returncode == 1
