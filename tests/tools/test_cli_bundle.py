"""bundle: what is chosen, who signs, where it goes, and the program that goes with it."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from eventstore.tools import verify_bundle
from tests.tools.command import done, eventstore
from tests.tools.test_cli_anchor import new_keys


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A store with notes of two keys."""
    for value, key in enumerate(("hello", "world", "hello")):
        done("put", tmp_path / "data", "notes", key, value, "--correlation-id", f"talk-{key}", "--actor", "bot")
    return tmp_path / "data"


@pytest.fixture
def kept(data: Path, tmp_path: Path) -> Path:
    """Its anchor."""
    done("anchor", data, "-o", tmp_path / "anchor.json")
    return tmp_path / "anchor.json"


def positions(line: str) -> list[int]:
    return [event["position"] for event in json.loads(line)["events"]]


def test_a_bundle_is_one_line_the_same_on_stdout_and_in_a_file(data: Path, kept: Path, tmp_path: Path) -> None:
    line, file = done("bundle", data, "notes", "--position", 1, "--position", 3).out, tmp_path / "bundle.json"
    shown = done("bundle", data, "notes", "--position", 3, "--position", 1, "-o", file).out
    assert positions(line) == positions(file.read_text()) == [1, 3]
    assert json.loads(line)["events"] == json.loads(file.read_text())["events"]
    assert line.count("\n") == file.read_text().count("\n") == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert shown.startswith(f"{file}: 2 events of notes@3 of {data} at 2")
    assert shown.endswith("Z, not signed\n")
    assert positions(done("bundle", data, "notes", "--position", 1, "--json").out) == [1]
    report = done("bundle", data, "notes", "--after", 0, "--json", "--read-only", "-o", tmp_path / "other.json").json()
    assert (report["output"], report["positions"], report["head"], report["bundle"]) == (str(tmp_path / "other.json"), [1, 2, 3], 3, None)
    assert verify_bundle.main([str(file), "--anchor", str(kept)]) == 0


def test_events_are_chosen_in_one_way(data: Path) -> None:
    for words, expected in (
        (["--key", "hello"], [1, 3]),
        (["--key", '["hello"]'], [1, 3]),
        (["--correlation-id", "talk-world"], [2]),
        (["--after", 1], [2, 3]),
        (["--until", 2], [1, 2]),
        (["--after", 1, "--until", 2], [2]),
    ):
        assert positions(done("bundle", data, "notes", *words).out) == expected
    for wrong in ([], ["--key", "hello", "--position", 1], ["--position", 0], ["--position", "x"], ["--key", "["]):
        assert eventstore("bundle", data, "notes", *wrong).code == 3
    for missing in (["--key", "never"], ["--position", 9], ["--correlation-id", "never"], ["--after", 3]):
        answer = eventstore("bundle", data, "notes", *missing)
        assert (answer.code, answer.out) == (1, "")
    assert eventstore("bundle", data, "typo", "--after", 0).code == 1
    assert eventstore("bundle", data.parent / "nowhere", "notes", "--after", 0).code == 2
    assert eventstore("bundle", data).code == 3
    assert eventstore("bundle").code == 3


def test_a_file_that_was_handed_out_is_not_replaced(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "bundle.json"
    done("bundle", data, "notes", "--position", 1, "-o", file)
    before = file.read_bytes()
    answer = eventstore("bundle", data, "notes", "--position", 2, "-o", file)
    assert (answer.code, "exists already" in answer.err, file.read_bytes()) == (3, True, before)


def test_a_signed_bundle_is_proven_by_the_key(data: Path, tmp_path: Path) -> None:
    private, public = new_keys(tmp_path, "keeper")
    file = tmp_path / "bundle.json"
    assert ", signed by " in done("bundle", data, "notes", "--key", "hello", "--private-key", private, "-o", file).out
    assert verify_bundle.main([str(file), "--public-key", str(public)]) == 0
    assert verify_bundle.main([str(file), "--public-key", str(new_keys(tmp_path, "other")[1])]) == 1
    (data / "k.pem").write_bytes(private.read_bytes())
    (data / "k.pem").chmod(0o600)
    private.chmod(0o644)
    for refused in (private, data / "k.pem"):
        answer = eventstore("bundle", data, "notes", "--key", "hello", "--private-key", refused, "-o", tmp_path / "never.json")
        assert (answer.code, (tmp_path / "never.json").exists()) == (3, False)


def test_since_leads_from_the_anchor_that_the_other_side_holds(data: Path, kept: Path, tmp_path: Path) -> None:
    done("put", data, "notes", "hello", 7)
    without, since = tmp_path / "without.json", tmp_path / "since.json"
    done("bundle", data, "notes", "--position", 3, "-o", without)
    done("bundle", data, "notes", "--position", 3, "--since", kept, "-o", since)
    assert verify_bundle.main([str(without), "--anchor", str(kept)]) == 1
    assert verify_bundle.main([str(since), "--anchor", str(kept)]) == 0
    done("init", tmp_path / "another")
    done("put", tmp_path / "another", "notes", "hello", 1)
    foreign = eventstore("bundle", tmp_path / "another", "notes", "--position", 1, "--since", kept)
    assert (foreign.code, "another store in the place of yours" in foreign.err) == (1, True)
    assert eventstore("bundle", data, "notes", "--position", 1, "--since", data).code == 2
    assert eventstore("bundle", data, "notes", "--position", 1, "--since", since).code == 3


def test_the_verifier_that_is_printed_is_the_one_that_was_tested(data: Path, kept: Path, tmp_path: Path) -> None:
    assert eventstore("bundle", "--verifier", "--json").code == 3
    program = done("bundle", "--verifier").out
    assert program == Path(verify_bundle.__file__).read_text(encoding="utf-8")
    done("bundle", data, "notes", "--key", "hello", "-o", tmp_path / "bundle.json")
    command = [sys.executable, "-I", "-S", "-", "bundle.json", "--anchor", kept.name]
    ran = subprocess.run(command, input=program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.count("PROVEN  position") == 2
