"""import and export: what goes out comes back with every checksum, what is broken is named, and again changes nothing."""

from __future__ import annotations

import gzip
import json
import os
import re
import stat
from pathlib import Path

import pytest

import eventstore as library
from tests.tools.command import Answer, done, eventstore
from tests.tools.test_cli_pages import each_on_a_terminal

ROOT = Path(__file__).parents[2]
DUMP = ROOT.parent / "shared" / "data" / "backtest-kit" / "dump"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A store with two domains."""
    store = tmp_path / "data"
    with library.open(store) as opened:
        notes = opened.domain("notes")
        notes.write_value("hello", {"a": 1}, when=5, actor="me", reason="why", type="t", schema=2, tags=["x"], event_id="e1")
        notes.write_value(("a", 1), [1, 2], correlation_id="c", causation_id="d", run_id="r")
        notes.remove_value("hello", when=7, reason="done")
        opened.domain(library.Domain("candle", write="first")).write_value("x", 1)
    return store


def checksums(store: Path) -> dict[str, list[str]]:
    """Every checksum of a store."""
    lines = done("log", store, "--json").lines()
    return {name: [line["checksum"] for line in lines if line["domain"] == name] for name in {line["domain"] for line in lines}}


def report(answer: Answer) -> dict[str, tuple[int, int, int]]:
    """What an import says of each domain: adopted, written, unchanged."""
    return {name: (found["adopted"], found["written"], found["unchanged"]) for name, found in answer.json()["domains"].items()}


# ---- export


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_an_export_into_nothing_is_the_same_store(data: Path, tmp_path: Path, name: str) -> None:
    out, copy = tmp_path / name, tmp_path / "copy"
    written = done("export", data, "-o", out, "--json").json()
    assert written["domains"] == {"candle": 2, "notes": 4}
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    answer = done("import", out, copy, "--json")
    assert report(answer) == {"candle": (1, 0, 0), "notes": (3, 0, 0)}
    assert answer.json()["store_id"] == done("init", data, "--json").json()["store_id"]
    assert checksums(copy) == checksums(data)
    assert done("export", copy).out_bytes == done("export", data).out_bytes
    assert done("verify", copy, "--json").json()["ok"] is True
    again = done("import", out, copy, "--json")
    assert report(again) == {"candle": (0, 0, 1), "notes": (0, 0, 3)}
    assert checksums(copy) == checksums(data)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp-")] == []


def test_an_export_is_format_9_line_by_line(data: Path) -> None:
    lines = done("export", data).lines()
    store_id = done("init", data, "--json").json()["store_id"]
    assert lines[0] == {
        "format": 1, "store_id": store_id, "domain": "candle", "floor": 0,
        "head": {"position": 1, "checksum": lines[2]["checksum"]}, "ids": None, "following": ["notes"],
    }  # fmt: skip
    assert [line.get("position") for line in lines] == [None, 0, 1, None, 0, 1, 2, 3]
    assert list(lines[1]) == list(library.Event.__struct_fields__)
    assert lines[5]["data"] == '{"a":1}'
    assert json.loads(lines[5]["meta"])["actor"] == "me"
    assert done("export", data, "notes").lines() == lines[3:]


def test_an_export_replaces_its_file_whole_or_not_at_all(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("precious")
    assert eventstore("export", data, "typo", "-o", out).code == 1
    assert out.read_text() == "precious"
    assert eventstore("export", data, "-o", tmp_path / "no" / "folder").code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out.jsonl"]
    done("export", data, "-o", out)
    assert out.read_bytes() == done("export", data, "-o", "-").out_bytes


def test_an_export_into_a_pipe_of_the_shell_is_no_rename(data: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        done("export", data, "-o", pipe)
        assert os.read(reader, 10**6) == done("export", data).out_bytes
        assert stat.S_ISFIFO(pipe.stat().st_mode)
    finally:
        os.close(reader)


def test_import_reads_standard_input(data: Path, tmp_path: Path) -> None:
    lines = done("export", data).out_bytes
    done("import", "-", tmp_path / "one", stdin=lines)
    done("import", "-", tmp_path / "two", stdin=gzip.compress(lines))
    assert checksums(tmp_path / "one") == checksums(tmp_path / "two") == checksums(data)


# ---- into a store that is there


def test_into_another_store_events_are_appended_with_their_origin(data: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out.jsonl", tmp_path / "other"
    done("export", data, "-o", out)
    done("put", other, "notes", "mine", "1")
    answer = done("import", out, other, "--json")
    assert report(answer) == {"candle": (0, 1, 0), "notes": (0, 3, 0)}
    source = done("log", data, "notes", "--json").lines()
    store_id = done("init", data, "--json").json()["store_id"]
    mine, first, second, removal = done("log", other, "notes", "-p", "--json").lines()
    assert mine["key"] == "mine"
    for event, was in ((first, source[0]), (second, source[1]), (removal, source[2])):
        assert event["meta"]["origin"] == {
            "store_id": store_id,
            "domain": "notes",
            "position": was["position"],
            "checksum": was["checksum"],
        }
        assert (event["key"], event["op"], event["when_us"]) == (was["key"], was["op"], was["when_us"])
    assert {name: first["meta"][name] for name in ("actor", "reason", "type", "schema", "tags")} == {
        "actor": "me", "reason": "why", "type": "t", "schema": 2, "tags": ["x"],
    }  # fmt: skip
    assert first["meta"].get("event_id") != "e1"
    assert second["value"] == [1, 2]
    assert (second["meta"]["correlation_id"], second["meta"]["causation_id"], second["meta"]["run_id"]) == ("c", "d", "r")
    with library.open(other, read_only=True) as store:
        assert store.domain("candle").domain.write == "first"  # the rule came along
    assert done("verify", other).code == 0


def test_the_same_export_twice_and_a_longer_one_after_it(data: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out.jsonl", tmp_path / "other"
    done("init", other)
    done("export", data, "-o", out)
    assert report(done("import", out, other, "--json")) == {"candle": (0, 1, 0), "notes": (0, 3, 0)}
    assert report(done("import", out, other, "--json")) == {"candle": (0, 0, 1), "notes": (0, 0, 3)}
    done("put", other, "notes", "between", "0")
    done("put", data, "notes", "new", "2")
    longer = tmp_path / "longer.jsonl"
    done("export", data, "-o", longer)
    assert report(done("import", longer, other, "--json"))["notes"] == (0, 1, 3)
    assert report(done("import", out, other, "--json"))["notes"] == (0, 0, 3)
    assert [line["key"] for line in done("log", other, "notes", "--json").lines()] == ["hello", ["a", 1], "hello", "between", "new"]


def test_a_store_takes_back_only_what_it_lacks(data: Path, tmp_path: Path) -> None:
    early, late, copy = tmp_path / "early.jsonl", tmp_path / "late.jsonl", tmp_path / "copy"
    done("export", data, "-o", early)
    done("put", data, "notes", "new", "2")
    done("export", data, "-o", late)
    done("import", early, copy)
    assert report(done("import", late, copy, "--json"))["notes"] == (0, 1, 3)
    assert report(done("import", late, copy, "--json"))["notes"] == (0, 0, 4)
    assert report(done("import", late, data, "--json"))["notes"] == (0, 0, 4)


def test_a_source_whose_history_has_changed_is_refused(data: Path, tmp_path: Path) -> None:
    early, copy, other, late = tmp_path / "early.jsonl", tmp_path / "copy", tmp_path / "other", tmp_path / "late.jsonl"
    done("export", data, "-o", early)
    done("import", early, copy)
    done("put", data, "notes", "a", "1")
    done("put", copy, "notes", "a", "2")  # two stores of one id go separate ways
    done("init", other)
    done("export", data, "-o", late)
    done("import", late, other)
    done("export", copy, "-o", late)
    answer = eventstore("import", late, other, "--json")
    assert answer.code == 1
    assert [problem["where"] for problem in answer.json()["problems"]] == ["notes"]
    assert "another one" in answer.json()["problems"][0]["message"]
    assert len(done("log", other, "notes", "--json").lines()) == 4


def test_many_events_cross_the_borders_of_batches(tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    with library.open(data, durability="process") as store:
        store.domain("x").write_values([(f"k{number % 7}", number) for number in range(2_345)])
        store.domain("x").remove_all()
    done("export", data, "-o", tmp_path / "out")
    done("init", other)
    assert report(done("import", tmp_path / "out", other, "--json")) == {"x": (0, 2_352, 0)}
    assert report(done("import", tmp_path / "out", other, "--json")) == {"x": (0, 0, 2_352)}
    done("import", tmp_path / "out", tmp_path / "copy")
    assert checksums(tmp_path / "copy") == checksums(data)
    assert done("state", other).out == ""


@pytest.mark.parametrize("into", ["nothing", "another store"])
def test_only_one_domain(data: Path, tmp_path: Path, into: str) -> None:
    done("export", data, "-o", tmp_path / "out")
    if into == "another store":
        done("init", tmp_path / "copy")
    assert set(report(done("import", tmp_path / "out", tmp_path / "copy", "--domain", "notes", "--json"))) == {"notes"}
    assert [line["domain"] for line in done("ls", tmp_path / "copy", "--json").lines()] == ["notes"]


def forged(data: Path, out: Path, old: bytes, new: bytes) -> None:
    """An export with something changed in it."""
    content = done("export", data).out_bytes
    assert old in content
    out.write_bytes(content.replace(old, new, 1))


@pytest.mark.parametrize("into", ["nothing", "another store"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'[1,2]"', b'[1,3]"'),
        (b'\n{"position":2', b'\n{"position":3'),
        (b'\n{"position":2', b"\nhello\n"),
        (b'"op":"remove"', b'"op":"put"'),
    ],
)
def test_a_broken_domain_is_named_and_the_others_land(data: Path, tmp_path: Path, into: str, old: bytes, new: bytes) -> None:
    out, copy = tmp_path / "out.jsonl", tmp_path / "copy"
    if into == "another store":
        done("init", copy)
    forged(data, out, old, new)
    answer = eventstore("import", out, copy, "--json")
    assert answer.code == 1
    assert [problem["where"] for problem in answer.json()["problems"]] == ["notes"]
    assert done("get", copy, "candle", "x").out == "1\n"
    assert done("verify", copy).code == 0
    assert "left out" in eventstore("import", out, copy).out


def test_a_broken_domain_is_not_adopted_in_part(data: Path, tmp_path: Path) -> None:
    out, copy = tmp_path / "out.jsonl", tmp_path / "copy"
    forged(data, out, b'"op":"remove"', b'"op":"put"')
    assert eventstore("import", out, copy).code == 1
    done("export", data, "-o", out)
    done("import", out, copy)
    assert checksums(copy) == checksums(data)


def test_a_packed_file_that_is_cut_off_is_a_problem(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gz"
    out.write_bytes(gzip.compress(done("export", data).out_bytes)[:-20])
    answer = eventstore("import", out, tmp_path / "copy", "--json")
    assert answer.code == 1
    assert "cut off" in answer.json()["problems"][0]["message"]


@pytest.mark.parametrize("content", [b"", b"hello\n", b'{"a":1}\n', b"\x1f\x8b\x08garbage", b"\x00" * 99])
def test_a_file_that_is_no_export_is_refused_and_makes_no_store(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    answer = eventstore("import", tmp_path / "x", tmp_path / "data", "--json")
    assert answer.code == (1 if content.startswith(b"\x1f\x8b") else 3)
    assert answer.error()["error"] in {"ConfigError", "FormatError"}
    assert not (tmp_path / "data").exists()


def test_sources_that_cannot_be(data: Path, tmp_path: Path) -> None:
    assert eventstore("import", tmp_path / "missing", tmp_path / "new").code == 2
    assert eventstore("import", data, tmp_path / "new").code == 3  # a store is exported first
    assert "eventstore export" in eventstore("import", data, tmp_path / "new").err
    assert eventstore("import", data, tmp_path / "new", "--domain", "NO").code == 3
    assert not (tmp_path / "new").exists()


# ---- a tree of JSON files


def tree(root: Path, files: dict[str, bytes]) -> Path:
    """Files below `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def test_a_tree_names_domains_and_keys(tmp_path: Path) -> None:
    dump = tree(
        tmp_path / "dump",
        {
            "data/signal/a_b/BTC.json": b'{"x": 1}\n',
            "data/log/log/l2.json": b"[1,\n 2]",
            "memory/s1/b/m1.json": b"null",
            "flat/one.json": b'"\\ud83d"',
            "flat/.hidden.json": b"1",
        },
    )
    os.utime(dump / "flat/one.json", ns=(0, 1_700_000_000_123_456_789))
    answer = done("import", dump, tmp_path / "data", "--json")
    assert report(answer) == {"flat": (0, 2, 0), "log": (0, 1, 0), "memory": (0, 1, 0), "signal": (0, 1, 0)}
    assert done("get", tmp_path / "data", "signal", '["a_b","BTC"]').out_bytes == b'{"x": 1}\n\n'
    assert done("get", tmp_path / "data", "memory", '["s1","b","m1"]').out_bytes == b"null\n"
    one = done("get", tmp_path / "data", "flat", "one", "--json").json()
    assert one["when_us"] == 1_700_000_000_123_456
    assert one["position"] == 1  # the oldest file comes first


def test_a_tree_imported_again_changes_nothing_but_what_changed(tmp_path: Path) -> None:
    dump = tree(tmp_path / "dump", {"a/x.json": b"1", "a/y.json": b"2"})
    data = tmp_path / "data"
    done("import", dump, data)
    assert report(done("import", dump, data, "--json")) == {"a": (0, 0, 2)}
    (dump / "a/x.json").write_bytes(b"3")
    os.utime(dump / "a/y.json", ns=(0, 0))  # the same bytes at another time are another fact
    assert report(done("import", dump, data, "--json")) == {"a": (0, 2, 0)}
    assert done("get", data, "a", "x").out == "3\n"


BROKEN = {
    "a/cut.json": b'{"a": 1',
    "a/empty.json": b"",
    "a/latin.json": b'"\xe9"',
    "a/bom.json": b"\xef\xbb\xbf1",
    "a/nan.json": b"NaN",
    "a/twice.json": b'{"a":1,"a":2}',
    "A/upper.json": b"1",
    "a/.json": b"1",
    "root.json": b"1",
    "data/loose.json": b"1",
    "data/both/x.json": b"1",
    "a/" + "k" * 240 + "/" + "k" * 240 + "/" + "k" * 240 + "/" + "k" * 240 + "/" + "k" * 240 + ".json": b"1",
}


def test_a_broken_file_is_named_and_the_rest_lands(tmp_path: Path) -> None:
    dump = tree(tmp_path / "dump", {**BROKEN, "a/good.json": b"1", "both/x.json": b"2", "a/.tmp-0f-good.json": b"{", "a/notes.txt": b"x"})
    os.symlink("loop.json", dump / "a/loop.json")
    os.symlink("gone", dump / "a/dangling.json")
    os.symlink("..", dump / "a/up")
    os.mkfifo(dump / "a/pipe.json")
    (dump / os.fsdecode(b"a/\xff\x1b.json")).write_bytes(b"1")
    answer = eventstore("import", dump, tmp_path / "data", "--json")
    assert answer.code == 1
    found = answer.json()
    expected = {*BROKEN, "a/loop.json", "a/dangling.json", "a/up", "a/pipe.json", os.fsdecode(b"a/\xff\x1b.json")}
    assert {problem["where"] for problem in found["problems"]} == expected
    assert len(found["problems"]) == len(expected)
    assert all(problem["message"] for problem in found["problems"])
    assert (found["temporary_files"], found["other_files"]) == (1, 1)
    assert report(answer) == {"a": (0, 1, 0), "both": (0, 1, 0)}
    shown = eventstore("import", dump, tmp_path / "data")
    assert shown.code == 1
    assert "\x1b" not in shown.out
    assert "a/\\udcff\\x1b.json" in shown.out
    assert "passed over 1 temporary file" in shown.out
    assert "problems, named above" in shown.out
    assert done("get", tmp_path / "data", "both", "x").out == "2\n"


def test_a_file_larger_than_a_value_is_not_even_read(tmp_path: Path) -> None:
    dump = tree(tmp_path / "dump", {"a/x.json": b"1"})
    os.truncate(dump / "a/x.json", 10**12)
    answer = eventstore("import", dump, tmp_path / "data", "--json")
    assert answer.code == 1
    assert "1,000,000,000,000 bytes" in answer.json()["problems"][0]["message"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_a_problem(tmp_path: Path) -> None:
    dump = tree(tmp_path / "dump", {"a/x.json": b"1", "b/y.json": b"1", "c/z.json": b"1"})
    (dump / "a/x.json").chmod(0)
    (dump / "b").chmod(0)
    try:
        answer = eventstore("import", dump, tmp_path / "data", "--json")
    finally:
        (dump / "b").chmod(0o700)
    assert answer.code == 1
    assert {problem["where"] for problem in answer.json()["problems"]} == {"a/x.json", "b"}


def test_links_are_followed_but_never_in_circles(tmp_path: Path) -> None:
    tree(tmp_path / "dump", {"a/deep/x.json": b"1", "kept/y.json": b"2"})
    os.symlink("dump", dump := tmp_path / "link")
    os.symlink("kept", dump / "b")
    os.symlink("../../kept/y.json", dump / "a/deep/y.json")
    os.symlink("../../a", dump / "a/deep/again")
    answer = eventstore("import", dump, tmp_path / "data", "--json")
    assert answer.code == 1
    assert [problem["where"] for problem in answer.json()["problems"]] == ["a/deep/again"]
    assert report(answer) == {"a": (0, 2, 0), "b": (0, 1, 0), "kept": (0, 1, 0)}


@pytest.mark.parametrize("words", [("import",), ("import", "--contracts"), ("shadow", "--once")])
def test_a_link_out_of_the_tree_is_named_and_not_followed(words: tuple[str, ...], tmp_path: Path) -> None:
    tree(tmp_path / "dumps", {"k.json": b'"private"', "b/k.json": b'"private"'})
    dump, data = tree(tmp_path / "dump", {"data/measure/b/k.json": b"1", "data/signal/A_b_c_x/A.json": b"1"}), tmp_path / "data"
    links = {"data/measure/b/file.json": "k.json", "data/measure/folder": ".", "data/measure/below": "b"}
    links["data/signal/A_b_c_x/.context"] = "k.json"
    for name, leads in links.items():
        os.symlink(os.path.relpath(tmp_path / "dumps" / leads, (dump / name).parent), dump / name)
    answer = eventstore(words[0], dump, data, *words[1:], "--json")
    shown = eventstore(words[0], dump, data, *words[1:])
    assert (answer.code, shown.code) == (1, 1)
    assert {problem["where"] for problem in answer.json()["problems"] if "leads out of the tree" in problem["message"]} >= set(links)
    assert all(f"{name}: a link that leads out of the tree" in shown.out for name in links)
    assert all("private" not in told.out for told in (answer, shown))
    assert done("ls", data, "measure").out == '["b","k"]\n'


def test_a_folder_is_one_domain_if_asked(tmp_path: Path) -> None:
    dump = tree(tmp_path / "dump", {"data/x.json": b"1", "y.json": b"2"})
    assert report(done("import", dump, tmp_path / "data", "--domain", "all", "--json")) == {"all": (0, 2, 0)}
    assert done("ls", tmp_path / "data", "all").out.split() == ['["data","x"]', "y"]


def test_a_store_inside_its_own_source_is_passed_over(tmp_path: Path) -> None:
    dump = tree(tmp_path / "dump", {"a/x.json": b"1"})
    assert report(done("import", dump, dump / "store", "--json")) == {"a": (0, 1, 0)}
    assert report(done("import", dump, dump / "store", "--json")) == {"a": (0, 0, 1)}


def test_a_domain_with_nothing_good_is_not_made(tmp_path: Path) -> None:
    dump = tree(tmp_path / "dump", {"bad/x.json": b"{"})
    assert eventstore("import", dump, tmp_path / "data").code == 1
    assert done("ls", tmp_path / "data").out == ""
    (tmp_path / "empty").mkdir()
    assert "0 events" in done("import", tmp_path / "empty", tmp_path / "data").out


def test_many_files_cross_the_borders_of_batches(tmp_path: Path) -> None:
    dump = tree(tmp_path / "dump", {f"a/{number % 13}/{number}.json": str(number).encode() for number in range(1_234)})
    (dump / "a/5/5.json").write_bytes(b"{")
    answer = eventstore("import", dump, tmp_path / "data", "--json")
    assert answer.code == 1
    assert report(answer) == {"a": (0, 1_233, 0)}


def test_an_import_shows_on_a_terminal_how_far_it_is(data: Path, tmp_path: Path) -> None:
    """A whole log taken over, events appended anew, and a folder of files."""
    with library.open(data) as store:
        store.domain("many").write_values([(("key", number), number) for number in range(1_500)])
    done("export", data, "-o", tmp_path / "out.jsonl")
    copy, another, tree = tmp_path / "copy", tmp_path / "another", tmp_path / "tree"
    (tree / "notes").mkdir(parents=True)
    (tree / "notes" / "hello.json").write_text("1")
    done("init", another)
    told = (
        (tmp_path / "out.jsonl", copy, "many", "1000/?"),
        (tmp_path / "out.jsonl", another, "many", "1000/?"),
        (tree, another, "files", "1/1"),
    )
    commands = [["import", str(source), str(store_of)] for source, store_of, *_ in told]
    for shown, (*_, what, reached) in zip(each_on_a_terminal(commands, colour=False, columns=100), told, strict=True):
        assert re.search(rf"{what} .*{re.escape(reached)}", shown), shown


@pytest.mark.skipif(not DUMP.is_dir(), reason="the recorded tree is not part of the distribution")
def test_the_real_tree_lands_byte_for_byte(tmp_path: Path) -> None:
    data = tmp_path / "data"
    files = sorted(DUMP.rglob("*.json"))
    assert len(files) == 40
    answer = done("import", DUMP, data, "--json")
    assert sum(found["written"] for found in answer.json()["domains"].values()) == 40
    for path in files:
        parts = path.relative_to(DUMP).with_suffix("").parts
        domain, *key = parts[1:] if parts[0] == "data" else parts
        assert done("get", data, domain, json.dumps(key)).out_bytes == path.read_bytes() + b"\n"
        found = done("get", data, domain, json.dumps(key), "--json").json()
        assert found["when_us"] == path.stat().st_mtime_ns // 1_000
    assert len(done("log", data, "signal").out.splitlines()) == 2
    assert done("verify", data).out.splitlines()[-2] == "whole: 40 events in 16 domains"
    assert {name: counts for name, counts in report(done("import", DUMP, data, "--json")).items() if counts[1]} == {}
