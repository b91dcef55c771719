"""archive and retention: what the reports, the exit codes and the reading commands say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import eventstore as library
from tests.tools.command import done, eventstore


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two domains; one of them sealed twice."""
    for part in range(2):
        for value in range(3):
            done("put", tmp_path / "data", "notes", "hello", f"{part + 1}{value}")
        done("compact", tmp_path / "data", "notes")
    done("put", tmp_path / "data", "notes", "hello", "99")
    done("put", tmp_path / "data", "other", "x", "1")
    return tmp_path / "data"


def test_files_go_and_are_read_again_from_there(data: Path, tmp_path: Path) -> None:
    before = done("log", data, "notes", "--json").lines()
    dry = done("archive", data, "--to", tmp_path / "archive", "--dry-run", "--json").json()
    assert ([line["floor"] for line in dry["domains"]], dry["dry_run"]) == ([8, 0], True)
    report = done("archive", data, "--to", tmp_path / "archive", "--json").json()
    assert [[(file["last"], file["events"], file["status"]) for file in line["files"]] for line in report["domains"]] == [
        [(4, 5, "archived"), (8, 4, "archived")],
        [],
    ]
    for command in (["log", data, "notes", "--after", 0], ["history", data, "notes", "hello"], ["state", data, "notes", "--as-of", 2]):
        refused = eventstore(*command, "--json")
        assert (refused.code, refused.error()["error"]) == (2, "CompactedError")
        assert refused.out == "" or command[0] == "history"  # which begins with the latest
        assert (refused.error()["floor"], refused.error()["archive"]) == (8, str(tmp_path / "archive"))
        assert eventstore(*command, "--json", "--archive", tmp_path / "archive").code == 0
    assert done("log", data, "notes", "--json", "--archive", tmp_path / "archive").lines()[: len(before)] == before
    (notes, other) = done("verify", data, "--json").json()["domains"]
    assert [(each["first"], each["last"], each["to"]) for each in notes["archived"]] == [
        (0, 4, str(tmp_path / "archive")),
        (5, 8, str(tmp_path / "archive")),
    ]
    assert (notes["floor"], other["archived"]) == (8, [])
    shown = done("verify", data).out
    assert f"8 before it archived to {tmp_path / 'archive'}" in shown
    assert "\nnot looked at: 8 events before them; what is archived is attached by --archive DIR, " in shown
    assert "not looked at" not in done("verify", data, "--archive", tmp_path / "archive").out
    assert done("verify", data, "--json", "--archive", tmp_path / "archive").json()["domains"][0]["floor"] == 0


@pytest.mark.parametrize("key", ["again", "once"])
def test_a_history_shows_what_is_at_hand_and_says_what_is_not(tmp_path: Path, key: str) -> None:
    """The latest version is carried, or stands behind the seal; the one before it is elsewhere."""
    data = tmp_path / "data"
    for value in range(2):
        done("put", data, "notes", key, value)
    done("compact", data)
    done("archive", data, "--to", tmp_path / "archive")
    if key == "again":
        done("put", data, "notes", key, 2)
    for limit in ([], ["--limit", 1 + (key == "again")]):
        answer = eventstore("history", data, "notes", key, "--json", *limit)
        assert (answer.code, answer.error()["error"], answer.error()["archive"]) == (2, "CompactedError", str(tmp_path / "archive"))
        lines = answer.lines()
        assert [line["position"] for line in lines] == ([5, 2] if key == "again" else [2])
        assert [line["changes"] is None for line in lines] == [False] * (len(lines) - 1) + [True]
    shown = eventstore("history", data, "notes", key)
    assert shown.out.endswith("    the version before it is not at hand\n")
    assert "--archive DIR" in shown.err
    assert "Everything after position 3 is there" in shown.err
    assert eventstore("history", data, "notes", key, "--reverse").out == ""
    assert done("history", data, "notes", key, "--archive", tmp_path / "archive").out.count(" put ") == 2 + (key == "again")


def test_a_log_whose_first_event_is_carried_begins_nowhere_else(tmp_path: Path) -> None:
    """What is carried over a seal is at hand: it must not pass for the log that it began."""
    for key, value in [("config", 0), ("k", 1), ("k", 2)]:
        done("put", tmp_path / "data", "notes", key, value)
    done("compact", tmp_path / "data")
    done("archive", tmp_path / "data", "--to", tmp_path / "archive")
    refused = eventstore("log", tmp_path / "data", "notes", "--after", 0, "--json")
    assert (refused.code, refused.out, refused.error()["error"]) == (2, "", "CompactedError")
    assert [line["position"] for line in done("log", tmp_path / "data", "notes", "--json").lines()] == [5]
    lines = done("export", tmp_path / "data").lines()
    assert (lines[0]["floor"], [line["position"] for line in lines if "position" in line]) == (4, [0, 1, 3, 4, 5])


def test_an_archive_that_is_not_there_is_never_passed_over_in_silence(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = eventstore("verify", data, "--archive", tmp_path / "mistyped")
    assert (refused.code, "mistyped" in refused.err) == (3, True)
    monkeypatch.setenv("EVENTSTORE_ARCHIVES", str(tmp_path / "unmounted"))
    with library.open(data) as store:  # a bot goes on
        assert store.domain("notes").read_value("hello") == 99
    assert str(tmp_path / "unmounted") in caplog.text


def test_nothing_to_archive_is_said(data: Path, tmp_path: Path) -> None:
    assert done("archive", data, "other", "--to", tmp_path / "archive").out == "nothing to archive\n"
    assert done("archive", data, "notes", "--before", 2, "--to", tmp_path / "archive").out == "nothing to archive\n"
    assert done("archive", data, "--before", "2001-01-01T00:00:00Z", "--to", tmp_path / "archive").out == "nothing to archive\n"
    assert done("archive", data, "notes", "--before", 5, "--to", tmp_path / "archive", "--json").json()["domains"][0]["floor"] == 4


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nothing"], 1),
        (["--before", "yesterday"], 3),
        (["--before", "3"], 3),
    ],
)
def test_what_cannot_be_archived_is_said(data: Path, tmp_path: Path, words: list[str], code: int) -> None:
    assert eventstore("archive", data, *words, "--to", tmp_path / "archive").code == code
    assert eventstore("archive", data, "--to", data / "archive").code == 3
    assert eventstore("archive", data).code == 3


def test_a_redaction_reaches_an_archive_that_is_named(data: Path, tmp_path: Path) -> None:
    done("put", data, "notes", "secret", '"do not keep"')
    done("compact", data, "notes")
    done("archive", data, "notes", "--to", tmp_path / "archive")
    words = ["redact", data, "notes", "secret", "--reason", "asked to", "--json"]
    without = eventstore(*words)
    assert (without.code, [str(tmp_path / "archive") in copy["path"] for copy in without.json()["held"]]) == (1, [True])
    assert eventstore(*words, "--archive", tmp_path / "archive").json()["held"] == []
    assert not [path for path in (tmp_path / "archive").rglob("*") if path.is_file() and b"do not keep" in path.read_bytes()]


@pytest.mark.corrupts  # what was redacted stands in an archive, and verify says so
def test_a_copy_redacts_in_its_originals_archive_once_it_takes_it_over(data: Path, tmp_path: Path) -> None:
    archive, copy = tmp_path / "archive", tmp_path / "copy"
    done("archive", data, "notes", "--to", archive)
    shutil.copytree(data, copy)
    words = ["redact", copy, "notes", "hello", "--reason", "asked to", "--archive", archive]
    refused = eventstore(*words)
    assert (refused.code, f"may still hold a copy: {archive}" in refused.out, "--take-over" in refused.out) == (1, True, True)
    assert done("verify", data, "--archive", archive, "--json").json()["ok"]
    assert eventstore("verify", copy, "--archive", archive).code == 1
    done(*words, "--take-over")
    done("verify", copy, "--archive", archive)


@pytest.mark.corrupts
def test_an_altered_archive_is_a_finding(data: Path, tmp_path: Path) -> None:
    done("archive", data, "--to", tmp_path / "archive")
    copy = next((tmp_path / "archive").rglob("*.db"))
    copy.write_bytes(copy.read_bytes()[:-1] + b"?")
    found = eventstore("verify", data, "--archive", tmp_path / "archive", "--json")
    assert (found.code, found.json()["findings"][0]["kind"]) == (1, "archive")


def test_what_was_kept_is_told_and_is_exit_1(data: Path, tmp_path: Path) -> None:
    done("archive", data, "notes", "--before", 5, "--to", tmp_path / "archive")
    (tmp_path / "archive").rename(tmp_path / "elsewhere")
    answer = eventstore("retention", "apply", data, "notes", "--keep-events", 5, "--delete", "--yes")
    assert answer.code == 1
    assert "positions 0 to 4 were kept" in answer.out


def test_retention_is_planned_and_applied(data: Path, tmp_path: Path) -> None:
    plan = done("retention", "plan", data, "notes", "--keep-events", 4, "--json").json()
    assert [(line["floor"], line["sealed"], [file["last"] for file in line["files"]]) for line in plan["domains"]] == [(4, False, [4])]
    assert "notes: 1 file need not be kept, 5 events" in done("retention", "plan", data, "--keep-events", 4).out
    assert "notes: nothing would go" in done("retention", "plan", data, "--keep-days", 1).out
    done("retention", "apply", data, "notes", "--keep-events", 4, "--to", tmp_path / "archive")
    assert done("verify", data, "notes", "--json").json()["domains"][0]["floor"] == 4
    refused = eventstore("retention", "apply", data, "--keep-days", 0, "--delete")
    assert (refused.code, "--delete --yes" in refused.err) == (3, True)
    report = done("retention", "apply", data, "--keep-days", 0, "--delete", "--yes", "--json").json()
    assert [line["sealed"] for line in report["domains"]] == [True, True]
    assert {file["status"] for line in report["domains"] for file in line["files"]} == {"deleted"}
    assert done("get", data, "notes", "hello").out == "99\n"
    assert not list((tmp_path / "archive").rglob("*.db"))
    gone = eventstore("state", data, "notes", "--as-of", 2, "--json").error()
    assert (gone["error"], gone["deleted"], gone["archive"]) == ("CompactedError", True, None)
    assert "before it deleted" in done("verify", data, "notes").out


@pytest.mark.parametrize(
    "words",
    [
        ["plan"],
        ["plan", "--keep-days", 1, "--keep-events", 1],
        ["plan", "--keep-days", 1, "--to", "x", "--delete"],
        ["plan", "--keep-days", 1, "--take-over"],
        ["plan", "--keep-days", 1, "--to", "x", "--yes"],
        ["apply", "--keep-days", 1, "--to", "x", "--take-over"],
        ["apply", "--keep-days", 1],
        ["apply", "--keep-days", 1, "--to", "x", "--delete", "--yes"],
        ["look", "--keep-days", 1],
    ],
)
def test_half_a_policy_is_refused(data: Path, words: list[object]) -> None:
    action, *options = words
    refused = eventstore("retention", action, data, *options)
    assert refused.code == 3
    assert not [name for name in ("to=", "delete=", "take_over", "keep_s") if name in refused.err], "Python's names"


@pytest.mark.parametrize("delete", [False, True], ids=["to an archive", "for good"])
def test_apply_does_what_was_planned(data: Path, tmp_path: Path, delete: bool) -> None:
    way: list[object] = ["--delete"] if delete else ["--to", tmp_path / "archive"]
    yes = ["--yes"] if delete else []
    for keep in (4, 1, 0, 0):
        words = [data, "notes", "--keep-events", keep, *way]
        (planned,) = done("retention", "plan", *words, "--json").json()["domains"]
        (applied,) = done("retention", "apply", *words, *yes, "--json").json()["domains"]
        told = [[(file["first"], file["last"]) for file in line["files"]] for line in (planned, applied)]
        assert told[0] == told[1]
        assert {file["does"] for file in planned["files"]} <= {"delete" if delete else "archive"}
        assert {**planned, "files": []} == {**applied, "files": []}


def test_a_seal_is_told_where_nothing_is_moved(data: Path, tmp_path: Path) -> None:
    done("archive", data, "notes", "--to", tmp_path / "archive")
    words = [data, "notes", "--keep-events", 1]
    assert "nothing would go" not in (general := done("retention", "plan", *words).out)
    assert f"  {tmp_path / 'archive'}" in general, "where the files are"
    shown = done("retention", "plan", *words, "--to", tmp_path / "archive").out
    assert shown == "notes: its live file would be sealed\nnotes: nothing would go\n"
    assert done("retention", "apply", *words, "--to", tmp_path / "archive").out == "notes: its live file was sealed\nnothing to archive\n"
    assert "  delete\n" in done("retention", "plan", *words, "--delete").out


def test_a_copy_deletes_from_its_originals_archive_only_if_it_is_told_to_take_it_over(data: Path, tmp_path: Path) -> None:
    done("archive", data, "notes", "--to", tmp_path / "archive")
    shutil.copytree(data, tmp_path / "copy")
    words = ["retention", "apply", tmp_path / "copy", "notes", "--keep-events", 3, "--delete", "--yes"]
    refused = eventstore(*words)
    assert (refused.code, f"the store {data} put there" in refused.out, "--take-over" in refused.out) == (1, True, True)
    assert "nothing to delete" in refused.out
    assert done("verify", data, "--archive", tmp_path / "archive", "--json").json()["domains"][0]["floor"] == 0
    assert "deleted 2 files" in done(*words, "--take-over").out
    assert not list((tmp_path / "archive").rglob("*.db"))


def test_what_was_imported_without_its_archive_is_archived_and_deleted_there(data: Path, tmp_path: Path) -> None:
    """As on another machine: the log names an archive that is not there."""
    done("archive", data, "--to", tmp_path / "archive")
    anchored = done("anchor", data, "--json").json()
    exported = tmp_path / "all.jsonl"
    exported.write_bytes(done("export", data, "--archive", tmp_path / "archive").out_bytes)
    shutil.rmtree(tmp_path / "archive")
    new = tmp_path / "new"
    done("import", exported, new)
    assert "until it is archived anew" in eventstore("doctor", new).out
    assert "archived 2 files" in done("archive", new, "notes", "--to", tmp_path / "other").out
    assert done("verify", new, "--archive", tmp_path / "other").code == 0
    assert "deleted 2 files" in done("retention", "apply", new, "notes", "--keep-events", 3, "--delete", "--yes").out
    assert not list((tmp_path / "other").rglob("*.db"))
    (notes,) = done("verify", new, "notes", "--json").json()["domains"]
    assert (notes["floor"], [each["to"] for each in notes["archived"]]) == (8, [None, None])
    assert done("anchor", new, "--json").json()["heads"].keys() == anchored["heads"].keys()


@pytest.mark.parametrize("place", ["other", "other/within", "backup", "backup/within"])
def test_no_file_is_put_into_a_store_or_a_backup(data: Path, tmp_path: Path, place: str) -> None:
    done("put", tmp_path / "other", "x", "k", 1)
    done("backup", tmp_path / "other", tmp_path / "backup")
    for words in (["archive", data, "--to"], ["retention", "apply", data, "--keep-days", 0, "--to"]):
        refused = eventstore(*words, tmp_path / place)
        assert (refused.code, f"{tmp_path / place.split('/')[0]}, where nothing but its own files may be" in refused.err) == (3, True)
    for words in (["export", data, "-o"], ["anchor", data, "-o"]):
        refused = eventstore(*words, tmp_path / place / "file")
        assert (refused.code, f"{tmp_path / place.split('/')[0]}, where nothing but its own files may be" in refused.err) == (3, True)


@pytest.mark.parametrize("words", [("archive",), ("retention", "apply")], ids=["archive", "retention"])
def test_an_empty_path_is_not_the_current_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    refused = eventstore(*words, data, "--to", "", *(["--keep-events", 0] if words[0] == "retention" else []))
    assert (refused.code, list((tmp_path / "here").iterdir())) == (3, [])
    assert "the path is empty" in refused.err
