"""compact: what was sealed, what was not, and what the report and the exit code say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.tools.command import done, eventstore


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two domains with some events."""
    for value in range(5):
        done("put", tmp_path / "data", "notes", "hello", value)
    done("put", tmp_path / "data", "other", "x", "1")
    return tmp_path / "data"


def files(data: Path, domain: str) -> list[str]:
    return sorted(path.name for path in (data / "logs" / domain).glob("[0-9]*.db"))


def test_all_domains_are_sealed_and_the_report_says_so(data: Path) -> None:
    report = done("compact", data, "--json").json()
    assert [(line["domain"], line["sealed"], line["events"], line["carried"]) for line in report["domains"]] == [
        ("notes", True, 7, 3),
        ("other", True, 3, 3),
    ]
    assert all(line["bytes_after"] > 0 and line["held_us"] > 0 and line["why"] is None for line in report["domains"])
    assert files(data, "notes") == [f"{0:020d}.db", f"{7:020d}.db"]
    assert done("compact", data).out.endswith("\nnothing to seal\n")
    again = done("compact", data, "--json").json()
    assert [(line["sealed"], line["why"]) for line in again["domains"]] == [(False, "nothing came since the last seal")] * 2
    assert done("get", data, "notes", "hello").out == "4\n"
    assert [line["op"] for line in done("log", data, "notes", "--json").lines()] == ["put"] * 5 + ["seal"]


def test_what_is_printed_says_what_became_smaller_and_that_nothing_is_gone(data: Path) -> None:
    heading, notes, other, verdict = done("compact", data).out.splitlines()
    assert heading.split("  ")[0] == "domain"
    assert (notes.split()[:3], other.split()[:3]) == (["notes", "7", "3"], ["other", "3", "3"])
    assert "writers waited " in notes
    assert verdict.startswith("sealed 2 domains: nothing was deleted, all of it is read as before; `eventstore archive` moves")


def test_a_dry_run_changes_nothing(data: Path) -> None:
    report = done("compact", data, "notes", "--dry-run", "--json").json()
    assert [(line["domain"], line["sealed"], line["events"]) for line in report["domains"]] == [("notes", True, 7)]
    assert report["dry_run"] is True
    assert files(data, "notes") == [f"{0:020d}.db"]
    assert "would seal 1 domain" in done("compact", data, "notes", "--dry-run").out


def test_only_what_begins_before_a_time_is_sealed(data: Path) -> None:
    early = done("compact", data, "--before", "2001-01-01T00:00:00Z", "--json").json()
    assert {line["why"] for line in early["domains"]} == {"its live file begins later"}
    late = done("compact", data, "--before", "2999-01-01T00:00:00Z", "--json").json()
    assert all(line["sealed"] for line in late["domains"])


def test_what_was_moved_away_is_asked_for_by_name(data: Path, tmp_path: Path) -> None:
    before = done("log", data, "notes", "--json").lines()
    done("compact", data, "notes")
    done("put", data, "notes", "hello", 5)
    identity = json.loads((data / "store.json").read_text())["store_id"]
    place = tmp_path / "archive" / identity / "notes"
    place.mkdir(parents=True)
    shutil.move(data / "logs" / "notes" / f"{0:020d}.db", place)
    for command in (["log", data, "notes"], ["history", data, "notes", "hello"], ["state", data, "notes", "--as-of", 2], ["export", data]):
        refused = eventstore(*command, "--read-only", "--json")
        assert (refused.code, refused.error()["error"], refused.error()["floor"]) == (2, "CompactedError", 6)
        assert eventstore(*command, "--read-only", "--json", "--archive", tmp_path / "archive").code == 0
    assert done("log", data, "notes", "--json", "--archive", tmp_path / "archive").lines()[:5] == before
    assert eventstore("verify", data, "--json").json()["findings"][0]["kind"] == "missing"
    whole = done("verify", data, "--json", "--archive", tmp_path / "archive").json()
    assert [line["floor"] for line in whole["domains"]] == [0, 0]


def test_a_domain_that_is_not_there_is_not_made(data: Path) -> None:
    assert eventstore("compact", data, "nothing").code == 1
    assert eventstore("compact", data, "--before", "yesterday").code == 3
    assert not (data / "logs" / "nothing").exists()
