"""shadow: another program writes a tree of files, and every version that can be seen is an event; what may be missing is told."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from watchfiles import Change

import eventstore as library
from eventstore.tools.shadowing import Shadow
from eventstore.tools.watching import Certainty, Watch
from tests.tools.command import done, eventstore
from tests.tools.shadowed import environment, following, put, require_honest, story, until, values, write
from tests.tools.test_cli_import import DUMP, tree

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tree with one document."""
    return tree(tmp_path / "dump", {"a/x.json": b'{"v": 1}'})


def recorded(data: Path, domain: str = "a") -> list[tuple[object, str, bool]]:
    """The events of a domain: key, what was done, whether others may be missing before it."""
    lines = done("log", data, domain, "--json").lines()
    return [(line["key"], line["op"], "gap" in ((line["meta"] or {}).get("tags") or ())) for line in lines]


# ---- once


def test_once_records_what_differs_and_again_nothing(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    tree(folder, {"data/b/deep/y.json": b"[1]", "a/z.json": b"0"})
    assert done("shadow", folder, data, "--once", "--json").json()["written"] == 3
    assert done("get", data, "b", '["deep","y"]').out == "[1]\n"
    assert done("get", data, "a", "x", "--json").json()["when_us"] == (folder / "a/x.json").stat().st_mtime_ns // 1_000
    put(folder / "a/x.json", '{"v": 2}')
    (folder / "a/z.json").unlink()
    report = done("shadow", folder, data, "--once", "--json").json()
    assert (report["written"], report["removed"], report["gaps"]) == (1, 1, 2)
    assert recorded(data)[2:] == [("x", "put", True), ("z", "remove", True)]
    os.utime(folder / "a/x.json")  # the same bytes at another time are no other version
    report = done("shadow", folder, data, "--once", "--json").json()
    assert (report["written"], report["removed"], report["problems"]) == (0, 0, [])


@pytest.mark.skipif(not DUMP.is_dir(), reason="the recorded tree is not part of the distribution")
def test_what_an_import_made_is_not_recorded_again(tmp_path: Path) -> None:
    done("import", DUMP, tmp_path / "data")
    assert done("shadow", DUMP, tmp_path / "data", "--once", "--json").json()["written"] == 0


def test_keys_of_others_and_of_other_trees_stay(folder: Path, tmp_path: Path) -> None:
    data, other = tmp_path / "data", tree(tmp_path / "other", {"a/y.json": b"2"})
    done("shadow", folder, data, "--once")
    done("put", data, "a", "mine", "1")
    done("put", data, "notes", "mine", "1")
    done("shadow", other, data, "--once")
    assert values(data) == {"x": {"v": 1}, "y": 2, "mine": 1}
    (other / "a/y.json").unlink()
    tree(other, {"a/z.json": b"3"})
    done("shadow", other, data, "--once")
    assert values(data) == {"x": {"v": 1}, "z": 3, "mine": 1}


def test_a_tree_may_be_one_domain(folder: Path, tmp_path: Path) -> None:
    done("shadow", folder, tmp_path / "data", "--once", "--domain", "all")
    (folder / "a/x.json").rename(folder / "a/y.json")
    done("shadow", folder, tmp_path / "data", "--once", "--domain", "all")
    assert values(tmp_path / "data", "all") == {("a", "y"): {"v": 1}}


def test_an_erased_value_does_not_come_back_and_a_new_one_does(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    done("shadow", folder, data, "--once")
    done("redact", data, "a", "x", "--reason", "asked")
    assert done("shadow", folder, data, "--once", "--json").json()["written"] == 0
    put(folder / "a/x.json", '{"v": 2}')
    done("shadow", folder, data, "--once")
    assert values(data) == {"x": {"v": 2}}


def test_what_cannot_be_recorded_is_named_and_is_no_removal(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    tree(folder, {f"a/{name}.json": b"1" for name in ("half", "loop", "pipe", "large", "gone")})
    done("shadow", folder, data, "--once")
    (folder / "a/half.json").write_text('{"v":')
    for name in ("loop", "pipe", "large", "gone"):
        (folder / f"a/{name}.json").unlink()
    os.symlink("loop.json", folder / "a/loop.json")
    os.mkfifo(folder / "a/pipe.json")
    (folder / "a/large.json").touch()
    os.truncate(folder / "a/large.json", 10**12)
    answer = eventstore("shadow", folder, data, "--once", "--json")
    assert answer.code == 1
    assert [problem["where"] for problem in answer.json()["problems"]] == [f"a/{name}.json" for name in ("half", "large", "loop", "pipe")]
    assert recorded(data)[6:] == [("gone", "remove", True)]
    assert "not recorded" in eventstore("shadow", folder, data, "--once").out


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_no_removal(folder: Path, tmp_path: Path) -> None:
    done("shadow", folder, tmp_path / "data", "--once")
    (folder / "a").chmod(0)
    try:
        assert eventstore("shadow", folder, tmp_path / "data", "--once").code == 1
    finally:
        (folder / "a").chmod(0o700)
    assert values(tmp_path / "data") == {"x": {"v": 1}}


def test_a_tree_that_is_away_is_no_removal(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    done("shadow", folder, data, "--once")
    folder.rename(tmp_path / "away")
    answer = eventstore("shadow", folder, data, "--once")
    assert (answer.code, "an absent tree is no removal" in answer.err) == (2, True)
    folder.mkdir()  # where something is mounted otherwise
    answer = eventstore("shadow", folder, data, "--once")
    assert (answer.code, "is it mounted?" in answer.err) == (2, True)
    assert values(data) == {"x": {"v": 1}}
    done("shadow", folder, data, "--once", "--allow-empty")
    assert values(data) == {}


def test_a_domain_that_keeps_first_values_is_refused(folder: Path, tmp_path: Path) -> None:
    with library.open(tmp_path / "data") as store:
        store.domain(library.Domain("a", write="first")).write_value("x", 0)
    answer = eventstore("shadow", folder, tmp_path / "data", "--once")
    assert (answer.code, "a tree needs a store of its own" in answer.err) == (1, True)


def test_a_link_out_of_the_tree_that_comes_later_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "private.json").write_text('"private"')
    with library.open(tmp_path / "data") as store:
        shadow = Shadow(folder, store)
        shadow.begin("began", allow_empty=False)
        os.symlink(tmp_path, folder / "a/folder")
        os.symlink(tmp_path / "private.json", folder / "a/file.json")
        assert shadow.look(["a/folder/private.json", "a/file.json"]) == {}
        assert [problem.where for problem in shadow.problems] == ["a/file.json", "a/folder/private.json"]
        assert all("leads out of the tree" in problem.message for problem in shadow.problems)


def test_a_document_that_was_just_changed_is_looked_at_again(folder: Path) -> None:
    """Its stamp may be that of the change after it; that it is read shows by what somebody else made of the key meanwhile."""
    put(folder / "a/x.json", "1")
    with library.open("memory:") as store:
        shadow = Shadow(folder, store)
        shadow.begin("began", allow_empty=False)
        store.domain("a").write_value("x", 2)
        assert shadow.scan("again") == 1


# ---- following


def test_every_version_is_there_where_the_writer_waits(folder: Path, tmp_path: Path) -> None:
    data, document = tmp_path / "data", folder / "a/x.json"
    with following(folder, data) as follower:
        number, certain = 0, 0
        while certain <= 15:  # told twice, or in two parts, it may be said of one that others are missing; not of all
            number += 1
            put(document, str(number))
            until(lambda number=number: values(data) == {"x": number}, f"version {number}")  # type: ignore[misc]
            certain = sum(not gap for *_, gap in recorded(data))
        code, out = follower.end()
    assert code == 0
    assert f"{number + 1} versions and 0 removals" in out
    assert len(recorded(data)) == number + 1


@pytest.mark.slow
def test_thousands_of_versions_end_in_the_last_and_none_is_missing_untold(tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "dump"
    (folder / "a").mkdir(parents=True)
    with following(folder, data) as follower:
        last = 3_000
        write(folder / "a", 1, last)
        until(lambda: len(values(data)) == 4, "four keys")
        while sum(not each.gap for told in story(data).values() for each in told) <= 10:  # a writer that waits is told version by version
            last += 1
            write(folder / "a", last, last)
            until(lambda last=last: {"n": last, "fill": "x" * (last % 50)} in values(data).values(), f"version {last}")  # type: ignore[misc]
        code, _ = follower.end(signal.SIGINT)  # what is there then is recorded
    assert code == 0
    require_honest(data, 1, last)


@pytest.mark.slow
def test_what_the_system_lost_is_found_and_told(tmp_path: Path) -> None:
    """While the shadow is stopped more happens than the system keeps notifications of."""
    data, folder = tmp_path / "data", tmp_path / "dump"
    (folder / "a").mkdir(parents=True)
    kept = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if kept > 10**5:
        pytest.skip("the system keeps more notifications than a test can make")
    last = kept // 3 + 100  # a file made, written and renamed: at least three each
    with following(folder, data, "--rescan", "1") as follower:
        os.kill(follower.process.pid, signal.SIGSTOP)
        write(folder / "a", 1, last)
        tree(folder, {"b/late.json": b"1"})
        os.kill(follower.process.pid, signal.SIGCONT)
        until(lambda: values(data, "b"), "what no notification told of")
        put(folder / "b/late.json", "2")
        until(lambda: values(data, "b") == {"late": 2}, "what came after it")
        code, _ = follower.end()
    assert code == 0
    require_honest(data, 1, last)
    assert recorded(data, "b")[0] == ("late", "put", True)


def test_removed_moved_and_new_folders_are_followed(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    tree(folder, {"a/old/y.json": b"1", "a/gone/z.json": b"2"})
    with following(folder, data) as follower:
        (folder / "a/old").rename(folder / "a/new")
        (folder / "a/gone/z.json").unlink()
        (folder / "a/gone").rmdir()
        (folder / "a/x.json").unlink()
        until(lambda: values(data) == {("new", "y"): 1}, "what was moved and removed")
        tree(folder, {"a/p/q/r.json": b"3"})
        until(lambda: values(data) == {("new", "y"): 1, ("p", "q", "r"): 3}, "a new folder")
        assert follower.end()[0] == 0


def test_half_a_document_is_waited_for(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with following(folder, data, "--rescan", "0.2") as follower, (folder / "a/x.json").open("w") as file:
        file.write('{"v": ')
        file.flush()
        until(lambda: "a/x.json" in follower.err, "a warning")
        assert values(data) == {"x": {"v": 1}}
        file.write("2}")
        file.flush()
        until(lambda: values(data) == {"x": {"v": 2}}, "the whole of it")
        assert follower.end()[0] == 0
    assert [op for _, op, _ in recorded(data)] == ["put", "put"]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_tree_that_vanishes_ends_it_and_removes_nothing(folder: Path, tmp_path: Path, replaced: bool) -> None:
    data = tmp_path / "data"
    with following(folder, data, "--rescan", "0.2") as follower:
        folder.rename(tmp_path / "away")
        if replaced:
            tree(folder, {"a/other.json": b"1"})
        until(lambda: follower.process.poll() is not None, "the end")
        said = follower.err
        assert follower.end(0)[0] == 2
    assert "nothing was recorded of that" in said
    assert values(data) == {"x": {"v": 1}}


def test_a_second_shadow_of_a_store_is_refused(folder: Path, tmp_path: Path) -> None:
    with following(folder, tmp_path / "data") as follower:
        answer = eventstore("shadow", folder, tmp_path / "data", "--once")
        assert (answer.code, "'shadow'" in answer.err) == (2, True)
        assert follower.end()[0] == 0


def test_a_store_inside_the_tree_is_passed_over(folder: Path) -> None:
    with following(folder, folder / "store") as follower:
        put(folder / "a/x.json", "2")
        until(lambda: values(folder / "store") == {"x": 2}, "a version")
        assert follower.end()[0] == 0
    assert [line["domain"] for line in done("ls", folder / "store", "--json").lines()] == ["a"]


def test_json_is_one_report_and_stderr_holds_nothing_else(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "eventstore", "shadow", str(folder), str(tmp_path / "data"), "--json"]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: values(tmp_path / "data"), "the first version")
    process.terminate()
    out, err = process.communicate(timeout=90)
    assert (process.returncode, err) == (0, b"")
    assert out.startswith(b'{"tree":')


# ---- notifications


def changes(*told: str) -> set[tuple[Change, str]]:
    """`+x` was added, `-x` deleted, `~x` modified, in the folder d."""
    return {({"+": Change.added, "-": Change.deleted, "~": Change.modified}[each[0]], f"d/{each[1:]}") for each in told}


@pytest.mark.parametrize(
    ("told", "certain"),
    [
        (["+.tmp-1-x.json", "~.tmp-1-x.json", "-.tmp-1-x.json", "+x.json"], {"x.json"}),
        (["-.tmp-1-x.json", "-.tmp-2-x.json", "+x.json"], set()),
        (["-.tmp-1-x.json", "-.tmp-2-x.json", "-.tmp-3-y.json", "+x.json", "+y.json"], {"y.json"}),
        (["-tmpabc", "+x.json"], {"x.json"}),
        (["-tmpabc", "-tmpdef", "+x.json"], set()),
        (["-tmpabc", "-tmpdef", "+x.json", "+y.json"], {"x.json", "y.json"}),
        (["-tmpabc", "+x.json", "+y.json"], set()),
        (["+x.json"], set()),
        (["+x.json", "~x.json"], set()),
        (["~x.json"], set()),
        (["-.tmp-1-x.json", "-x.json", "+x.json"], set()),
        (["-x.json"], {"x.json"}),
    ],
)
def test_a_version_is_certain_where_it_can_be_counted(told: list[str], certain: set[str]) -> None:
    assert Certainty().of(changes(*told)) == {f"d/{name}" for name in certain}


def test_a_temporary_name_that_comes_again_counts_for_nothing() -> None:
    certainty = Certainty()
    assert certainty.of(changes("-x.tmp", "+x.json")) == {"d/x.json"}
    assert certainty.of(changes("-x.tmp", "+x.json")) == set()


def test_all_that_happened_before_is_told_once_it_is_settled(tmp_path: Path) -> None:
    (tmp_path / "dump").mkdir()
    with Watch(tmp_path / "dump", threading.Event()) as watch:
        for number in range(20):
            put(tmp_path / "dump" / "x.json", str(number))
            told = watch.settle()
            assert told is not None
            assert (Change.added, str(tmp_path / "dump" / "x.json")) in told


def test_a_watch_that_broke_begins_anew_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "dump").mkdir()
    with Watch(tmp_path / "dump", threading.Event()) as watch:
        assert not watch.lost_track()
        inspect.getgeneratorlocals(watch._told)["watcher"].close()  # from now on it raises what it raises when it fails inside
        assert watch.settle() is None
        assert watch.lost_track()
        assert watch.settle() is not None
        put(tmp_path / "dump" / "x.json", "1")
        assert (Change.added, str(tmp_path / "dump" / "x.json")) in (watch.settle() or set())


def test_a_removed_document_is_looked_for_once(folder: Path) -> None:
    with library.open("memory:") as store:
        shadow = Shadow(folder, store)
        shadow.begin("began", allow_empty=False)
        (folder / "a/x.json").unlink()
        assert shadow.scan("gone") == 1
        store.domain("a").write_value("x", 2)  # somebody else's now
        assert shadow.scan("again") == 0


def test_a_file_that_moves_to_another_path_of_its_key_is_no_removal(folder: Path) -> None:
    with library.open("memory:") as store:
        shadow = Shadow(folder, store)
        shadow.begin("began", allow_empty=False)
        (folder / "data").mkdir()
        (folder / "a").rename(folder / "data" / "a")
        assert shadow.scan("moved") == 0
        assert store.domain("a").read_value("x") == {"v": 1}
