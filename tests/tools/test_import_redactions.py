"""What was redacted in a source is erased by the next import of it, in whatever store took its values in before."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import eventstore
from eventstore import DomainStore, Retention
from eventstore.errors import RedactedError
from eventstore.tools.imported import Imported, ImportReport
from tests.eventstore.test_redact import files_with, secret
from tests.tools.command import done
from tests.tools.command import eventstore as command
from tests.tools.test_floor import exported, imported

DOMAIN = "people"


@pytest.fixture
def value() -> str:
    """What alice wants to be forgotten."""
    return secret()


@pytest.fixture
def data(tmp_path: Path, value: str) -> Path:
    """A store in which alice, bob and alice again were written."""
    with eventstore.open(tmp_path / "data", durability="process") as store:
        people = store.domain(DOMAIN)
        people.write_value("alice", f"1 {value}")
        people.write_value("bob", "kept")
        people.write_value("alice", f"2 {value}")
    return tmp_path / "data"


@pytest.fixture(params=["mirror", "other"])
def taken(request: pytest.FixtureRequest, data: Path, tmp_path: Path) -> Path:
    """A store that has these events: a `mirror` of the same id, positions and checksums; or an `other` one that wrote before."""
    if request.param == "other":
        with eventstore.open(tmp_path / "other", durability="process") as store:
            store.domain(DOMAIN).write_values([("carol", 1), ("dave", 2), ("eve", 3), ("frank", 4)])
    imported(exported(data), tmp_path / request.param)
    return tmp_path / str(request.param)


def redacted(data: Path, key: str = "alice") -> bytes:
    """The export after a redaction, and one write more."""
    with eventstore.open(data) as store:
        people = store.domain(DOMAIN)
        people.redact(key, reason="request 17", actor="dpo")
        people.write_value("new", "later")
    return exported(data)


def counts(report: ImportReport) -> tuple[int, int, int]:
    """What was written, was there, was erased."""
    assert report.problems == []
    found: Imported = report.domains[DOMAIN]
    return found.written, found.unchanged, found.erased_here


def redactions(people: DomainStore) -> list[eventstore.Event]:
    return [event for event in people.events() if event.op == "redact"]


def test_what_was_redacted_in_the_source_is_in_no_file_of_who_imports_it(data: Path, taken: Path, value: str) -> None:
    content = redacted(data)
    assert files_with(taken, value) != []
    report = imported(content, taken)
    assert (counts(report), report.exit_code, files_with(taken, value)) == ((1, 3, 2), 0, [])
    with eventstore.open(taken) as store:
        people = store.domain(DOMAIN)
        with pytest.raises(RedactedError):
            people.read_value("alice")
        assert (people.read_value("bob"), people.read_value("new")) == ("kept", "later")
        found = store.verify()
        assert (found.ok, found.domains[0].redacted) == (True, 2)


def test_who_erased_and_why_is_on_record_and_where_that_is_known_from(data: Path, taken: Path) -> None:
    content = redacted(data)
    source = next(json.loads(line) for line in content.splitlines() if b'"op":"redact"' in line)
    store_id = json.loads(content.splitlines()[0])["store_id"]
    imported(content, taken)
    with eventstore.open(taken) as store:
        people = store.domain(DOMAIN)
        (event,) = redactions(people)
        named = [position for position in json.loads(str(event.data))["positions"] if people.event(position).key == '["alice"]']
        assert len(named) == 2
        assert json.loads(event.meta or "") == {
            "actor": "dpo",
            "reason": "request 17",
            "origin": {"store_id": store_id, "domain": DOMAIN, "position": source["position"], "checksum": source["checksum"]},
        }


def test_imported_again_nothing_is_erased_or_written_twice(data: Path, taken: Path) -> None:
    content = redacted(data)
    imported(content, taken)
    with eventstore.open(taken) as store:
        head = store.domain(DOMAIN).head()
    for again in (content, exported(data)):
        assert counts(imported(again, taken)) == (0, 4, 0)
    with eventstore.open(taken) as store:
        assert store.domain(DOMAIN).head() == head
        store.domain(DOMAIN).write_value("own", 1)
    assert counts(imported(redacted(data, "bob"), taken)) == (1, 4, 1)
    with eventstore.open(taken) as store:
        assert (store.domain(DOMAIN).read_value("own"), len(redactions(store.domain(DOMAIN)))) == (1, 2)


def test_an_export_from_before_brings_nothing_back(data: Path, taken: Path, value: str) -> None:
    before = exported(data)
    imported(redacted(data), taken)
    assert counts(imported(before, taken)) == (0, 3, 0)
    assert files_with(taken / "logs", value) == []


def test_a_redaction_means_the_events_of_its_own_source_alone(data: Path, tmp_path: Path) -> None:
    """The importing store, and another source, have values at the same positions."""
    with eventstore.open(tmp_path / "third", durability="process") as store:
        store.domain(DOMAIN).write_values([("alice", "theirs"), ("x", 1), ("alice", "theirs too")])
    with eventstore.open(tmp_path / "other", durability="process") as store:
        store.domain(DOMAIN).write_values([("alice", "ours"), ("y", 1), ("alice", "ours too")])
    for source in (tmp_path / "third", data):
        imported(exported(source), tmp_path / "other")
    assert counts(imported(redacted(data), tmp_path / "other")) == (1, 3, 2)
    with eventstore.open(tmp_path / "other") as store:
        texts = [event.data for event in store.domain(DOMAIN).history("alice")]
        assert texts == [None, None, '"theirs too"', '"theirs"', '"ours too"', '"ours"']


def test_stores_of_one_id_that_went_separate_ways_erase_what_they_share(data: Path, tmp_path: Path, value: str) -> None:
    """At position 4 each has its own; the redaction of one is not the other's."""
    imported(exported(data), tmp_path / "mirror")
    with eventstore.open(data) as store:
        store.domain(DOMAIN).write_value("alice", "3")
    with eventstore.open(tmp_path / "mirror") as store:
        store.domain(DOMAIN).write_value("alice", "the mirror's own")
    assert counts(imported(redacted(data), tmp_path / "mirror"))[2] == 2
    with eventstore.open(tmp_path / "mirror") as store:
        assert store.domain(DOMAIN).read_value("alice") == "the mirror's own"
        assert store.verify().ok
    assert files_with(tmp_path / "mirror", value) == []


def test_a_redaction_goes_on_from_store_to_store(data: Path, taken: Path, tmp_path: Path, value: str) -> None:
    """The next one knows the positions of the store between them only."""
    with eventstore.open(tmp_path / "last", durability="process") as store:
        store.domain(DOMAIN).write_value("own", 1)
    imported(exported(taken), tmp_path / "last")
    assert files_with(tmp_path / "last", value) != []
    imported(redacted(data), taken)
    assert counts(imported(exported(taken), tmp_path / "last"))[2] == 2
    assert files_with(tmp_path / "last", value) == []
    with eventstore.open(tmp_path / "last") as store:
        assert (store.domain(DOMAIN).read_value("own"), store.domain(DOMAIN).read_value("bob")) == (1, "kept")
        assert store.verify().ok


@pytest.mark.parametrize("sealed", ["", "source", "mirror", "both"])
def test_seals_on_either_side_hide_no_value(data: Path, taken: Path, value: str, sealed: str) -> None:
    if sealed in ("mirror", "both"):
        with eventstore.open(taken) as store:
            store.seal(DOMAIN)
    if sealed in ("source", "both"):
        with eventstore.open(data) as store:
            store.seal(DOMAIN)
            store.domain(DOMAIN).write_value("bob", "again")
            store.retain(Retention(keep_events=1), DOMAIN, delete=True)
    report = imported(redacted(data), taken)
    # Of what the source deleted it names only what was still there: the later value of alice.
    expected = {"": 2, "mirror": 2}.get(sealed, 1)
    assert (counts(report)[2], report.exit_code) == (expected, 0)
    assert files_with(taken, f"2 {value}") == []
    with eventstore.open(taken) as store:
        assert store.verify().ok


def test_an_archive_of_the_importing_store_is_named_until_it_is_attached(data: Path, taken: Path, tmp_path: Path, value: str) -> None:
    with eventstore.open(taken) as store:
        store.domain(DOMAIN).write_value("own", 1)
        store.seal(DOMAIN)
        store.archive(DOMAIN, to=tmp_path / "archive")
    with eventstore.open(data) as store:
        store.domain(DOMAIN).write_value("more", 1)
    imported(exported(data), taken, archives=[tmp_path / "archive"])  # so that the store itself says how far imports came
    content = redacted(data)
    (tmp_path / "in.jsonl").write_bytes(content)
    for _ in range(2):
        answer = command("import", tmp_path / "in.jsonl", taken, "--json")
        assert (answer.code, answer.json()["problems"], len(answer.json()["domains"][DOMAIN]["held"])) == (1, [], 1)
        assert str(tmp_path / "archive") in answer.json()["domains"][DOMAIN]["held"][0]["path"]
    shown = command("import", tmp_path / "in.jsonl", taken)
    assert (shown.code, "may still hold a copy of what was redacted in the source" in shown.out) == (1, True)
    assert files_with(tmp_path / "archive", value) != []
    done("import", tmp_path / "in.jsonl", taken, "--archive", tmp_path / "archive")
    assert files_with(tmp_path / "archive", value) == files_with(taken, value) == []
    with eventstore.open(taken, archives=[tmp_path / "archive"]) as store:
        assert store.verify().ok


def test_an_archive_that_another_store_counts_on_is_named_each_time_and_left(data: Path, tmp_path: Path, value: str) -> None:
    mirror, copy, archive = tmp_path / "mirror", tmp_path / "copy", tmp_path / "archive"
    imported(exported(data), mirror)
    with eventstore.open(mirror) as store:
        store.seal(DOMAIN)
        store.archive(DOMAIN, to=archive)
    shutil.copytree(mirror, copy)
    content = redacted(data)
    for erased, recorded in ((2, 1), (0, 1)):
        report = imported(content, copy, archives=[archive])
        assert (report.domains[DOMAIN].erased_here, report.exit_code) == (erased, 1)
        assert any(str(archive) in held.path for held in report.domains[DOMAIN].held)
        with eventstore.open(copy) as store:
            assert len([event for event in store.domain(DOMAIN).events(4) if event.op == "redact"]) == recorded
    assert files_with(archive, value) != []
    assert (imported(content, mirror, archives=[archive]).exit_code, files_with(archive, value)) == (0, [])


KILLED = """
import os, signal, sys
from eventstore.sqlite import SqliteLog
from eventstore.tools.import_ import import_

whole, source, into, at = getattr(SqliteLog, sys.argv[3]), *sys.argv[1:]

def killed(log, *said, **more):
    if at == "forget_erased" or more.get("erase"):
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(log, *said, **more)

setattr(SqliteLog, at, killed)
import_(source, into)
"""


@pytest.mark.parametrize("at", ["append", "forget_erased"])
def test_an_import_that_was_killed_is_made_good(data: Path, taken: Path, value: str, at: str) -> None:
    """Before it erases, by the next import; once the redaction is committed, by the next opening."""
    with eventstore.open(taken) as store:
        store.seal(DOMAIN)
    content = redacted(data)
    (taken.parent / "in.jsonl").write_bytes(content)
    died = subprocess.run([sys.executable, "-c", KILLED, taken.parent / "in.jsonl", taken, at], check=False)
    assert (died.returncode, files_with(taken, value) != []) == (-signal.SIGKILL, True)
    if at == "append":
        assert counts(imported(content, taken)) == (0, 4, 2)
    with eventstore.open(taken) as store:
        assert len(redactions(store.domain(DOMAIN))) == 1
    assert files_with(taken, value) == []
    assert counts(imported(content, taken)) == (0, 4, 0)


def test_a_shredded_subject_is_erased_where_the_export_is_imported(tmp_path: Path) -> None:
    data, mirror = tmp_path / "data", tmp_path / "mirror"
    people = eventstore.Domain(DOMAIN, subject=str)
    with eventstore.open(data, keys=tmp_path / "data.keys") as store:
        store.domain(people).write_values([("alice", 1), ("bob", 2)])
    imported(exported(data), mirror)
    with eventstore.open(mirror) as store:
        blob = store.domain(DOMAIN).event(1).data
    assert isinstance(blob, bytes)
    with eventstore.open(data, keys=tmp_path / "data.keys") as store:
        shredding = store.shred("alice", reason="request 18")
    report = imported(exported(data), mirror)
    assert (counts(report), report.exit_code, files_with(mirror, blob)) == ((0, 2, 1), 0, [])
    with eventstore.open(mirror, keys=tmp_path / "data.keys") as store:
        (event,) = redactions(store.domain(DOMAIN))
        assert json.loads(str(event.data)) == {"positions": [1], "keys": shredding.keys}
        assert store.domain(DOMAIN).read_value("bob") == 2
        assert store.verify().ok
