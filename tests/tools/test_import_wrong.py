"""What an export may have become on its way, and stores that cannot take it: named by line and thing, and nothing half written."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import eventstore
from eventstore.coding import Blob
from eventstore.errors import ConfigError, DiskFullError, DuplicateEventError, MissingKeyError, RedactedError
from eventstore.tools.import_ import import_
from tests.faults.limits import limit
from tests.tools.command import done
from tests.tools.command import eventstore as command
from tests.tools.test_floor import exported, imported

PEOPLE = eventstore.Domain("people", subject=str)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A store of two domains; its export has 9 lines, `notes` those from 1 to 6."""
    with eventstore.open(tmp_path / "data", durability="process") as store:
        notes = store.domain("notes")
        notes.write_values([("a", 1), ("b", 2)])
        notes.remove_value("a")
        notes.write_value("c", 3)
        store.domain("zeta").write_value("z", 1)
    return tmp_path / "data"


@pytest.fixture(params=["nothing", "another store", "its domain"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where it is to go: nowhere yet, a store without these domains, one that has `notes`."""
    if request.param != "nothing":
        with eventstore.open(tmp_path / "target", durability="process") as store:
            if request.param == "its domain":
                store.domain("notes").write_value("own", 1)
    return tmp_path / "target"


def held(place: Path) -> dict[str, int]:
    """The domains of a store, and how far they go."""
    if not place.exists():
        return {}
    with eventstore.open(place, read_only=True) as store:
        assert store.verify().ok
        return {name: store.domain(name).head().position for name in store.domains()}


def lines(data: Path) -> list[bytes]:
    return exported(data).splitlines(keepends=True)


def problems(content: bytes, into: Path) -> dict[str, str]:
    return {problem.where: problem.message for problem in imported(content, into).problems}


def with_lines(data: Path, *order: int) -> bytes:
    """The export, with these lines of its own, counted from 1, in this order."""
    own = lines(data)
    return b"".join(own[number - 1] for number in order)


@pytest.mark.parametrize(
    ("order", "line"),
    [
        ((1, 3, 2, 4, 5, 6, 7, 8, 9), 2),
        ((1, 2, 4, 3, 5, 6, 7, 8, 9), 3),
        ((1, 2, 3, 4, 4, 5, 6, 7, 8, 9), 5),
        ((1, 2, 3, 4, 6, 7, 8, 9), 5),
    ],
)
def test_lines_in_another_order_are_named_and_make_no_domain(data: Path, target: Path, order: tuple[int, ...], line: int) -> None:
    before = held(target)
    found = problems(with_lines(data, *order), target)
    assert (list(found), f"Met at line {line} of {target.parent / 'in.jsonl'}" in found["notes"]) == (["notes"], True)
    assert held(target) == before | {"zeta": 1}


def test_a_fault_in_standard_input_is_named_by_its_line_as_well(data: Path, target: Path) -> None:
    answer = command("import", "-", target, "--json", stdin=with_lines(data, 1, 2, 4, 3, 5, 6, 7, 8, 9))
    assert (answer.code, [problem["where"] for problem in answer.json()["problems"]]) == (1, ["notes"])
    assert "Met at line 3 of standard input" in answer.json()["problems"][0]["message"]
    assert "standard input: empty" in command("import", "-", target).err


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 6, 7, 8])
def test_an_export_that_was_cut_off_makes_no_domain_wherever_it_goes(data: Path, target: Path, cut: int) -> None:
    before = held(target)
    found = problems(with_lines(data, *range(1, cut + 1)), target)
    assert all("cut off" in message and ("in.jsonl" in message or "announces it" in message) for message in found.values())
    whole = {"notes": before.get("notes", 0) + 4} if cut >= 6 else {}
    assert (set(found), held(target)) == ({"notes", "zeta"} - whole.keys(), before | whole)


def test_a_broken_value_far_behind_makes_no_domain(data: Path, tmp_path: Path) -> None:
    """Behind more than a transaction has."""
    with eventstore.open(data, durability="process") as store:
        store.domain("many").write_values([("k", number) for number in range(1_200)])
    eventstore.open(tmp_path / "other").close()
    content = exported(data, "many").replace(b'"data":"1199"', b'"data":"1198"')
    found = problems(content, tmp_path / "other")
    assert (held(tmp_path / "other"), "many@1200: checksum" in found["many"], "line 1202" in found["many"]) == ({}, True, True)
    assert [path.name for path in (tmp_path / "other").iterdir() if path.name.startswith(".tmp")] == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: b"\xef\xbb\xbf" + content, "byte order mark"),
        (lambda content: content.decode().encode("utf-16"), "UTF-16"),
        (lambda content: gzip.compress(gzip.compress(content)), "packed twice"),
        (lambda content: b"SQLite format 3\0" + content, "--sqlite"),
        (lambda content: b"\n" + content, "line 1 is no header"),
        (lambda content: content.replace(content[24:56], b"../.."), "line 1 is no header"),
    ],
    ids=["bom", "utf-16", "packed twice", "database", "empty line", "store_id"],
)
def test_what_became_of_an_export_is_told_and_nothing_made(data: Path, target: Path, change: Any, told: str) -> None:
    before, there = held(target), target.exists()
    with pytest.raises(ConfigError, match=told) as refused:
        imported(change(exported(data)), target)
    assert str(target.parent / "in.jsonl") in str(refused.value)
    assert (held(target), target.exists()) == (before, there)


def test_lines_that_windows_ended_are_the_same_export(data: Path, target: Path) -> None:
    before = held(target)
    assert problems(exported(data).replace(b"\n", b"\r\n"), target) == {}
    assert held(target) == before | {"notes": before.get("notes", 0) + 4, "zeta": 1}


def test_an_empty_line_is_named_as_that(data: Path, target: Path) -> None:
    assert "line 10 of" in problems(exported(data) + b"\n", target)["zeta"]
    assert "it is empty" in problems(exported(data) + b"\n", target)["zeta"]


@pytest.mark.parametrize("what", ["domain", "store"])
def test_a_header_over_the_events_of_another_domain_is_refused(data: Path, target: Path, what: str) -> None:
    """Else what is appended anew would say that it came from where it did not."""
    store_id = json.loads(lines(data)[0])["store_id"].encode()
    old, new = {"domain": (b'"domain":"notes"', b'"domain":"other"'), "store": (store_id, b"ab" * 16)}[what]
    before = held(target)
    found = problems(exported(data).replace(old, new, 1), target)
    ((name, message),) = found.items() if what == "domain" else [item for item in found.items() if item[0] == "notes"]
    assert name == ("other" if what == "domain" else "notes")
    assert "'notes' of store" in message
    assert {each: head for each, head in held(target).items() if each != "zeta"} == before


KILLED = """
import os, signal, sys
from eventstore.sqlite import SqliteLog
from eventstore.tools.import_ import import_

whole, left = SqliteLog.append, [int(sys.argv[3])]

def killed(log, events, **more):
    whole(log, events, **more)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

SqliteLog.append = killed
import_(sys.argv[1], sys.argv[2])
"""


@pytest.mark.parametrize("at", [1, 2])
def test_a_killed_import_done_again_is_the_whole_and_nothing_twice(data: Path, target: Path, at: int) -> None:
    with eventstore.open(data, durability="process") as store:
        store.domain("many").write_values([(f"k{number}", number) for number in range(2_500)])
    (target.parent / "in.jsonl").write_bytes(content := exported(data, "many"))
    died = subprocess.run([sys.executable, "-c", KILLED, target.parent / "in.jsonl", target, str(at)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert problems(content, target) == {}
    assert held(target)["many"] == 2_500
    with eventstore.open(target) as store:
        assert dict(store.domain("many").items()) == {f"k{number}": number for number in range(2_500)}


@pytest.mark.parametrize("first", ["here", "there"])
def test_a_domain_of_another_rule_is_refused(tmp_path: Path, first: str) -> None:
    for place in ("here", "there"):
        with eventstore.open(tmp_path / place, durability="process") as store:
            store.domain(eventstore.Domain("x", write="first" if place == first else "replace")).write_value(place, 1)
    (message,) = problems(exported(tmp_path / "there"), tmp_path / "here").values()
    assert re.search(r"x: its write rule is '\w+' here, and '\w+' in the source.*no such domain", message)
    assert held(tmp_path / "here") == {"x": 1}


def test_where_the_first_write_stands_another_value_is_left_out_and_told(tmp_path: Path) -> None:
    for place in ("here", "there"):
        with eventstore.open(tmp_path / place, durability="process") as store:
            x = store.domain(eventstore.Domain("x", write="first"))
            x.write_values([("same", 1), (("k", place), 1), ("other", place)])
    (tmp_path / "in.jsonl").write_bytes(exported(tmp_path / "there"))
    for written, unchanged in ((1, 1), (0, 2)):
        answer = command("import", tmp_path / "in.jsonl", tmp_path / "here", "--json")
        found = answer.json()["domains"]["x"]
        assert (answer.code, found["written"], found["unchanged"], found["standing"]) == (1, written, unchanged, ['["other"]'])
    assert 'left out  x ["other"]: the store has another value' in command("import", tmp_path / "in.jsonl", tmp_path / "here").out
    with eventstore.open(tmp_path / "here") as store:
        assert store.domain("x").read_value("other") == "here"


def test_a_value_too_large_for_the_store_is_named_and_makes_no_domain(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data", durability="process", max_value_bytes=2**25) as store:
        store.domain("x").write_values([("small", 1), ("large", "x" * 2**24)])
    eventstore.open(tmp_path / "other").close()
    (message,) = problems(exported(tmp_path / "data"), tmp_path / "other").values()
    assert re.search(r'x@2: the value of \["large"\] takes 16777218 bytes, .* set EVENTSTORE_MAX_VALUE_BYTES', message)
    assert held(tmp_path / "other") == {}


@pytest.mark.parametrize("how", [["-o"], ["--sqlite"]])
def test_an_export_that_finds_no_room_names_its_file_and_leaves_none(data: Path, tmp_path: Path, how: list[str]) -> None:
    with eventstore.open(data, durability="process") as store:
        store.domain("notes").write_value("large", "x" * 200_000)
    with limit(resource.RLIMIT_FSIZE, 100_000):
        answer = command("export", data, *how, tmp_path / "out", "--json")
    assert (answer.code, answer.error()["error"]) == (2, "DiskFullError")
    assert str(tmp_path / "out") in answer.error()["message"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_an_import_that_finds_no_room_goes_on_once_there_is(data: Path, target: Path) -> None:
    with eventstore.open(data, durability="process") as store:
        store.domain("notes").write_values([(f"k{number}", "x" * 900) for number in range(1_100)])
    content, before = exported(data, "notes"), held(target)
    (source := target.parent / "in.jsonl").write_bytes(content)
    with limit(resource.RLIMIT_FSIZE, len(content) // 2), pytest.raises(DiskFullError, match="free some space"):
        import_(str(source), str(target))
    held(target)  # and whole
    assert problems(content, target) == {}
    assert held(target) == before | {"notes": before.get("notes", 0) + 1_104}


# ---- encrypted values


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A store with an encrypted value, behind one that is not; its keys are in `secrets.keys`."""
    with eventstore.open(tmp_path / "secrets", keys=tmp_path / "secrets.keys", durability="process") as store:
        store.domain("people").write_value("note", "open")
        store.domain(PEOPLE).write_value("alice", "encrypted")
    return tmp_path / "secrets"


@pytest.mark.parametrize("there", [False, True], ids=["no such domain", "its domain"])
def test_values_encrypted_for_another_store_are_refused_with_why_and_what_to_do(secrets: Path, tmp_path: Path, there: bool) -> None:
    with eventstore.open(tmp_path / "target", durability="process") as store:
        target_id = store.store_id
        if there:
            store.domain("people").write_value("own", 1)
    before = held(tmp_path / "target")
    header = json.loads(lines(secrets)[0])
    (message,) = problems(exported(secrets), tmp_path / "target").values()
    for said in ("people@2: ", f"opens in store {header['store_id']} only", f"is store {target_id}", "Import into a new folder", "subject"):
        assert said in message
    assert held(tmp_path / "target") == before


def test_the_store_of_the_same_id_takes_them_as_they_are_without_a_key(secrets: Path, tmp_path: Path) -> None:
    """A mirror follows; who has the key file reads it."""
    mirror = tmp_path / "mirror"
    imported(exported(secrets), mirror)
    with eventstore.open(secrets, keys=tmp_path / "secrets.keys") as store:
        store.domain(PEOPLE).write_value("alice", "later")
        store.domain(eventstore.Domain("people", subject=str, codec="zlib")).write_value("bob", "long" * 1_000)
    report = imported(exported(secrets), mirror)
    assert (report.problems, report.domains["people"].written) == ([], 2)
    with eventstore.open(mirror) as store, pytest.raises(MissingKeyError):
        store.domain("people").read_value("alice")
    with eventstore.open(mirror, keys=tmp_path / "secrets.keys") as store:
        people = store.domain("people")
        assert (people.read_value("alice"), people.read_value("bob")) == ("later", "long" * 1_000)
        assert store.verify().ok
    assert imported(exported(secrets), mirror).domains["people"].unchanged == 4


def test_two_imports_at_once_take_encrypted_values_once(secrets: Path) -> None:
    """The second finds its call made: the same receipts, and another ciphertext under that id is refused."""
    with eventstore.open(secrets) as store:
        ours, other = store.domain("people").event(2), Blob("aes-gcm:00", b"another")
        assert isinstance(ours.data, bytes)
        positions = []
        for blob in (Blob("aes-gcm:00", ours.data), Blob("aes-gcm:00", ours.data), other):
            with contextlib.suppress(DuplicateEventError), store.domain("people").batch(event_id="import:1") as batch:
                batch.write_blob("alice", blob)
            positions.append([receipt.position for receipt in batch.receipts])
        assert positions == [[3], [3], []]


def test_what_a_destroyed_key_encrypted_stays_unreadable_in_a_mirror(secrets: Path, tmp_path: Path) -> None:
    """Whether the export was made before it was destroyed or after."""
    before, mirror = exported(secrets), tmp_path / "mirror"
    with eventstore.open(secrets, keys=tmp_path / "secrets.keys") as store:
        store.shred("alice", reason="asked")
    imported(before, mirror)
    for content, erased in ((exported(secrets), 1), (before, 0)):
        report = imported(content, mirror)
        assert (report.problems, report.domains["people"].erased_here) == ([], erased)
        with eventstore.open(mirror, keys=tmp_path / "secrets.keys") as store, pytest.raises(RedactedError):
            store.domain("people").read_value("alice")


def test_the_key_file_of_another_store_is_refused_before_anything_is_imported(
    secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.jsonl").write_bytes(exported(secrets))
    done("init", tmp_path / "other")
    with eventstore.open(tmp_path / "other", keys=tmp_path / "other.keys") as store:
        store.domain(PEOPLE).write_value("carol", 1)
    for keys, into in (("other.keys", "new"), ("secrets.keys", "other")):
        monkeypatch.setenv("EVENTSTORE_KEYS", str(tmp_path / keys))
        answer = command("import", tmp_path / "in.jsonl", tmp_path / into)
        assert (answer.code, f"{tmp_path / keys} holds the keys of store" in answer.err) == (3, True)
    monkeypatch.delenv("EVENTSTORE_KEYS")
    assert (held(tmp_path / "new"), held(tmp_path / "other")) == ({}, {"people": 1})
