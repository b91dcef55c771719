"""salvage, as a person and as a program meet it: what is told, in which words, by which code."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

import eventstore as library
from tests.tools.command import done, eventstore
from tests.tools.test_cli_pages import HOSTILE, ORDERS, on_a_terminal

DB = Path("logs", "notes", f"{0:020d}.db")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A store with two domains."""
    with library.open(tmp_path / "data") as store:
        for number in range(1, 9):
            store.domain("notes").write_value(f"key-{number}", "x" * 5_000)
        store.domain("other").write_value("x", 1)
    return tmp_path / "data"


def lose(data: Path, position: int) -> None:
    """Destroy the checksum of an event: it is lost, and the next one cannot be proven."""
    with library.open(data, read_only=True) as store:
        checksum = store.domain("notes").event(position).checksum
    content = (data / DB).read_bytes()
    (data / DB).write_bytes(content.replace(checksum, bytes(32)))


def test_a_whole_store_comes_out_the_same(data: Path, tmp_path: Path) -> None:
    shown = done("salvage", data, tmp_path / "out").out.splitlines()
    assert shown[0].split() == ["domain", "last", "kept", "unproven", "lost", "aside", "written"]
    assert shown[1].split() == ["notes", "8", "8", "0", "0", "0", "8"]
    assert shown[2].split() == ["other", "1", "1", "0", "0", "0", "1"]
    assert shown[-2] == "all kept: 9 events"
    assert shown[-1] == f"{tmp_path / 'out'}  the same store: ids, positions and checksums"
    assert done("export", tmp_path / "out").out_bytes == done("export", data).out_bytes


def test_what_is_not_kept_is_told_by_position_and_is_1(data: Path, tmp_path: Path) -> None:
    lose(data, 4)
    answer = eventstore("salvage", data, tmp_path / "out")
    assert (answer.code, answer.err) == (1, "")
    shown = answer.out.splitlines()
    assert shown[1].split() == ["notes", "8", "6", "1", "1", "0", "7"]
    assert "notes  lost: 4" in shown
    assert "notes  unproven: 5" in shown
    assert any(line.startswith('notes@5  unproven  ["key-5"]  logs/notes/') for line in shown)
    assert shown[-2] == "not all kept: 7 events"
    assert "a new store, " in shown[-1]
    assert done("verify", tmp_path / "out").code == 0
    assert len(done("log", tmp_path / "out", "notes").out.splitlines()) == 7


def test_the_report_as_json(data: Path, tmp_path: Path) -> None:
    lose(data, 4)
    answer = eventstore("salvage", data, tmp_path / "out", "notes", "--json")
    assert (answer.code, answer.err) == (1, "")
    report = answer.json()
    assert list(report) == ["store", "out", "store_id", "same", "whole", "domains", "problems"]
    assert (report["out"], report["same"], report["whole"], report["problems"]) == (str(tmp_path / "out"), False, False, [])
    (domain,) = report["domains"]
    assert domain["kept"] == {"count": 6, "spans": [{"first": 1, "last": 3}, {"first": 6, "last": 8}]}
    assert domain["unproven"] == {"count": 1, "spans": [{"first": 5, "last": 5}]}
    assert domain["lost"] == {"count": 1, "spans": [{"first": 4, "last": 4}]}
    assert [(each["position"], each["fate"], each["key"]) for each in domain["named"]] == [
        (5, "unproven", '["key-5"]'),
        (4, "damaged", '["key-4"]'),
    ]
    assert domain["files"] == [{"file": str(DB), "bytes": (data / DB).stat().st_size, "rows": 9}]
    assert report["store_id"] == done("init", tmp_path / "out", "--json").json()["store_id"]
    assert done("salvage", data, tmp_path / "other", "other", "--json").json()["same"] is True


def test_unproven_events_are_written_when_asked_for(data: Path, tmp_path: Path) -> None:
    lose(data, 4)
    answer = eventstore("salvage", data, tmp_path / "out", "--unproven", "--json")
    assert answer.code == 1
    assert answer.json()["domains"][0]["written"] == 8
    assert done("get", tmp_path / "out", "notes", "key-5").code == 0
    assert eventstore("get", tmp_path / "out", "notes", "key-4").code == 1


def test_nothing_left_is_1_and_makes_no_store(data: Path, tmp_path: Path) -> None:
    for path in data.glob("logs/*/*.db"):
        path.write_bytes(secrets.token_bytes(30_000))
    answer = eventstore("salvage", data, tmp_path / "out")
    assert answer.code == 1
    assert answer.out.splitlines()[-1] == "nothing could be kept; no store was made"
    assert "notes  lost: 1 to 8" in answer.out.splitlines()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "code", "error", "says"),
    [
        (["missing", "out"], 2, "NotAStoreError", "no folder"),
        (["data", "data"], 3, "ConfigError", "must not touch"),
        (["data", "full"], 3, "ConfigError", "not an empty folder"),
        (["data", "out", "nowhere"], 1, "NotFoundError", "there is notes, other"),
        (["data", "out", "No Name"], 3, "InvalidKeyError", "domain 'No Name'"),
        (["data"], 3, "UsageError", "OUT"),
    ],
)
def test_wrong_words_are_answered_with_the_right_code(
    data: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, error: str, says: str
) -> None:
    monkeypatch.chdir(data.parent)
    Path("full").mkdir()
    Path("full", "file").touch()
    answer = eventstore("salvage", *words, "--json")
    assert (answer.code, answer.out) == (code, "")
    assert answer.error()["error"] == error
    assert says in answer.error()["message"]
    assert eventstore("salvage", *words).err.splitlines()[-1].startswith("error: ")
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["data", "full"]


def test_the_ways_out_of_damage_name_it(data: Path) -> None:
    older = (data / DB).read_bytes()
    done("put", data, "notes", "new", "1")
    (data / DB).write_bytes(older)
    assert "eventstore salvage STORE OUT" in eventstore("get", data, "notes", "new").err
    (data / "store.json").unlink()
    assert "eventstore salvage" in eventstore("get", data, "notes", "new").err


def test_hostile_keys_and_names_give_no_orders(tmp_path: Path) -> None:
    with library.open(tmp_path / "data") as store:
        for number in range(4):
            store.domain("notes").write_value((HOSTILE, number), HOSTILE * 200)
    lose(tmp_path / "data", 2)
    answer = eventstore("salvage", tmp_path / "data", tmp_path / f"out{HOSTILE.replace('/', '')[:20]}")
    assert answer.code == 1
    assert not ORDERS.search(answer.out), answer.out


def test_a_terminal_gets_the_report_without_the_bar(data: Path, tmp_path: Path) -> None:
    shown = on_a_terminal(["salvage", str(data), str(tmp_path / "out")], colour=False)
    assert "all kept: 9 events" in shown
