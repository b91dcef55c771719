"""backup and restore on the command line: what is told, exit codes, and where each refusal leads."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

import eventstore as library
from eventstore import copies
from tests.raw_log import append_blob, erase
from tests.tools.command import done, eventstore


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A store with a few events in two domains."""
    for value in range(3):
        done("put", tmp_path / "data", "notes", "hello", value)
    done("put", tmp_path / "data", "other", "x", "1")
    return tmp_path / "data"


def test_there_and_back_as_a_person_reads_it(data: Path, tmp_path: Path) -> None:
    backup, again = tmp_path / "backup", tmp_path / "again"
    shown = done("backup", data, backup).out.splitlines()
    assert shown[0].split() == ["domain", "events", "head"]
    assert [line.split()[:2] for line in shown[1:3]] == [["notes", "3"], ["other", "1"]]
    assert shown[3].startswith("2 files copied (")
    assert shown[4].startswith(f"whole: 4 events of {data} at 2")
    shown = done("restore", backup, again).out.splitlines()
    assert shown[3].startswith(f"whole: 4 events in {again}, as of the backup of 2")
    assert "ask the other side" in shown[4]
    assert "never write the one that was backed up" in shown[5]
    assert done("get", again, "notes", "hello").out == "2\n"
    assert done("verify", again, "--json").json()["domains"] == done("verify", data, "--json").json()["domains"]


def test_the_reports_as_json(data: Path, tmp_path: Path) -> None:
    made = done("backup", data, tmp_path / "backup", "--json").json()
    heads = {each["domain"]: each["head"] for each in done("verify", data, "--json").json()["domains"]}
    assert {each["domain"]: each["checksum"] for each in made["domains"]} == heads
    assert (made["copied"], made["kept"], made["mended"]) == (2, 0, [])
    restored = done("restore", tmp_path / "backup", tmp_path / "again", "--json").json()
    assert restored["domains"] == made["domains"]
    assert (restored["store_id"], restored["made_us"]) == (made["store_id"], made["made_us"])
    assert restored["store"] == str(tmp_path / "again")


def test_a_backup_answers_whoever_only_reads_and_nobody_who_would_write(data: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    done("backup", data, backup)
    assert done("verify", backup).out.splitlines()[3] == "whole: 4 events in 2 domains"
    assert done("get", backup, "notes", "hello", "--read-only").out == "2\n"
    assert [line["size_bytes"] > 1_000 for line in done("ls", backup, "--read-only", "--json").lines()] == [True, True]
    before = {path: path.read_bytes() for path in backup.rglob("*") if path.is_file() and not path.name.endswith("-shm")}
    for verb, *words in (["put", "notes", "x", "1"], ["rm", "notes", "hello"], ["get", "notes", "hello"], ["doctor"]):
        answer = eventstore(verb, backup, *words, "--json")
        assert answer.code == 2, answer
        assert answer.error()["error"] == "BackupError"
        assert "eventstore restore" in answer.error()["message"]
    answer = eventstore("import", backup, tmp_path / "imported")
    assert answer.code == 3
    assert f"eventstore restore {backup}" in answer.err
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("words", [["backup", "nowhere", "backup"], ["restore", "nowhere", "again"]])
def test_what_is_not_there_cannot_be_judged(tmp_path: Path, words: list[str]) -> None:
    answer = eventstore(words[0], tmp_path / words[1], tmp_path / words[2], "--json")
    assert (answer.code, answer.error()["error"]) == (2, "NotAStoreError")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_is_a_wrong_command_line(data: Path, tmp_path: Path) -> None:
    done("backup", data, tmp_path / "backup")
    assert eventstore("backup", data, data / "backup").code == 3
    assert eventstore("restore", tmp_path / "backup", data).code == 3


def test_damage_is_a_finding_and_its_file_is_named(data: Path, tmp_path: Path) -> None:
    done("backup", data, tmp_path / "backup")
    copy = tmp_path / "backup" / copies.load(tmp_path / "backup").copy
    file = copy / "logs" / "notes" / f"{0:020d}.db"
    content = bytearray(file.read_bytes())
    content[5_000] ^= 1
    file.write_bytes(content)
    answer = eventstore("restore", tmp_path / "backup", tmp_path / "again")
    assert answer.code == 1
    assert str(file) in answer.err
    assert f"eventstore salvage {copy} OUT" in answer.err
    assert done("salvage", copy, tmp_path / "salvaged").out.splitlines()[-1].startswith(str(tmp_path / "salvaged"))


def test_an_export_of_everything_makes_the_same_store_in_an_empty_folder(data: Path, tmp_path: Path) -> None:
    """Several domains, one of them empty, values in every script, removals, what was erased, what is no text."""
    with library.open(data) as store:
        store.domain("empty")
        words = store.domain(library.Domain("words", write="first"))
        words.write_value(("ключ", 7), "\ud83d é \x00 \\", when=-5, actor="bot", tags=["a"], event_id="id")
        words.write_value("large", "x" * 100_000)
        store.domain("notes").remove_value("hello", reason="done")
    erase(data, "other", 1)
    append_blob(data, "empty", '["blob"]', zlib.compress(b'"packed"'), codec="zlib")
    packed = tmp_path / "events.jsonl.gz"
    done("export", data, "-o", packed)
    for source, target in ((packed, "again"), ("-", "from standard input")):
        (tmp_path / target).mkdir()
        done("import", source, tmp_path / target, stdin=done("export", data).out_bytes if source == "-" else b"")
        assert done("verify", tmp_path / target, "--json").json()["domains"] == done("verify", data, "--json").json()["domains"]
        assert done("export", tmp_path / target).out_bytes == done("export", data).out_bytes
        ids = {json.loads((folder / "store.json").read_bytes())["store_id"] for folder in (data, tmp_path / target)}
        assert len(ids) == 1


def test_what_is_archived_is_told_as_not_in_the_backup(tmp_path: Path) -> None:
    for value in range(3):
        done("put", tmp_path / "data", "notes", "hello", value)
    done("compact", tmp_path / "data")
    done("archive", tmp_path / "data", "--to", tmp_path / "archive")
    backed, again = tmp_path / "backup", tmp_path / "again"
    for shown, place in [(done("backup", tmp_path / "data", backed).out, backed), (done("restore", backed, again).out, again)]:
        assert "4 before it archived or deleted: not in the backup" in shown
        assert "whole: 1 event " in shown, place
        assert "\nnot in it: 4 events before them, archived or deleted, but for what every key was there" in shown
    assert [(line["position"], line["floor"]) for line in done("backup", tmp_path / "data", backed, "--json").json()["domains"]] == [(5, 4)]
