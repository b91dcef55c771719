"""anchor, and verify --anchor: the verdict, its exit code, and whose word it is."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from eventstore.anchors import Anchor
from tests.tools.command import done, eventstore


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A store with a few events in two domains."""
    for value in range(3):
        done("put", tmp_path / "data", "notes", "hello", value)
    done("put", tmp_path / "data", "other", "x", "1")
    return tmp_path / "data"


@pytest.fixture
def kept(data: Path, tmp_path: Path) -> Path:
    """Its anchor."""
    done("anchor", data, "-o", tmp_path / "anchor.json")
    return tmp_path / "anchor.json"


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private and a public key."""
    return new_keys(tmp_path, "keeper")


def new_keys(folder: Path, name: str) -> tuple[Path, Path]:
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    key = Ed25519PrivateKey.generate()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    private.chmod(0o600)
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def cut_off(data: Path) -> None:
    """Delete the last note, and every witness of it."""
    connection = sqlite3.connect(data / "logs" / "notes" / f"{0:020d}.db")
    (trigger,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'event_delete'").fetchone()
    connection.execute("DROP TRIGGER event_delete")
    connection.execute("DELETE FROM event WHERE position = 3")
    connection.execute(trigger)
    connection.commit()
    connection.close()
    (data / "logs" / "notes" / "head").write_bytes(b"")
    shutil.rmtree(data / "logs" / "notes" / "pointers", ignore_errors=True)
    manifest = json.loads((data / "store.json").read_text())
    del manifest["heads"]["notes"]
    (data / "store.json").write_text(json.dumps(manifest))


def test_an_anchor_is_one_line_the_same_on_stdout_and_in_a_file(data: Path, tmp_path: Path) -> None:
    line = done("anchor", data).out
    assert Anchor.parse(line).heads["notes"].position == 3
    assert Anchor.parse(done("anchor", data, "--json").out).heads == Anchor.parse(line).heads
    file = tmp_path / "anchor.json"
    shown = done("anchor", data, "-o", file).out
    assert Anchor.parse(file.read_bytes()).heads == Anchor.parse(line).heads
    assert file.read_text().count("\n") == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert shown.startswith(f"{file}: 2 domains of {data} at 2")
    assert shown.endswith("Z, not signed\n")
    report = done("anchor", data, "-o", tmp_path / "another.json", "--json", "--read-only").json()
    assert report["output"] == str(tmp_path / "another.json")
    assert report["anchor"]["heads"] == json.loads(line)["heads"]


def test_without_roots_an_anchor_is_for_verify_alone(data: Path, tmp_path: Path) -> None:
    done("anchor", data, "--no-roots", "-o", tmp_path / "anchor.json")
    anchor, rooted = Anchor.parse((tmp_path / "anchor.json").read_bytes()), Anchor.parse(done("anchor", data).out)
    assert [(name, head.checksum) for name, head in anchor.heads.items()] == [(name, head.checksum) for name, head in rooted.heads.items()]
    assert {head.root for head in anchor.heads.values()} == {None}
    assert None not in {head.root for head in rooted.heads.values()}
    assert "notes@3  EXTENDED" in done("verify", data, "--anchor", tmp_path / "anchor.json").out
    refused = eventstore("bundle", data, "notes", "--position", 1, "--since", tmp_path / "anchor.json")
    assert (refused.code, "made without roots" in refused.err) == (3, True)


def test_an_older_anchor_is_not_replaced(data: Path, kept: Path) -> None:
    before = kept.read_bytes()
    answer = eventstore("anchor", data, "-o", kept)
    assert answer.code == 3
    assert "exists already" in answer.err
    assert kept.read_bytes() == before


def test_an_empty_store_has_an_anchor(tmp_path: Path) -> None:
    done("init", tmp_path / "data")
    done("anchor", tmp_path / "data", "-o", tmp_path / "anchor.json")
    assert done("verify", tmp_path / "data", "--anchor", tmp_path / "anchor.json").code == 0


def test_a_store_that_went_on_is_extended(data: Path, kept: Path) -> None:
    done("put", data, "notes", "hello", "7")
    answer = done("verify", data, "--anchor", kept)
    assert "notes@3  EXTENDED  the log goes on from the anchored event: 1 event more, not covered\n" in answer.out
    assert "other@1  EXTENDED  the log goes on from the anchored event: 0 events more\n" in answer.out
    assert answer.out.splitlines()[-2] == "whole: 5 events in 2 domains"
    assert "its signature was not checked" in answer.out
    found = done("verify", data, "notes", "--anchor", kept, "--json").json()
    assert [(each["domain"], each["verdict"], each["more"]) for each in found["anchor"]["judgements"]] == [("notes", "EXTENDED", 1)]
    assert found["anchor"]["signed_by"] is None
    assert done("verify", data, "--json").json()["anchor"] is None


def test_what_an_anchor_does_not_cover_is_said_by_domain_and_at_the_end(data: Path, kept: Path, tmp_path: Path) -> None:
    unseen = "not excluded: a tail cut off or sealed anew together with its witness, after what is anchored"
    newer = "; a newer anchor, kept elsewhere, excludes it"
    assert done("verify", data, "--anchor", kept).out.splitlines()[-1] == unseen + newer, "what was cut off is behind it, too"
    done("put", data, "notes", "hello", "7")
    for value in range(2):
        done("put", data, "later", "x", value)
    told = done("verify", data, "--anchor", kept).out.splitlines()
    assert told[-1] == f"{unseen} (all 2 events of later, 1 event of notes){newer}"
    assert "later  UNNAMED  the anchor does not name this domain: its 2 events are not covered" in told
    found = done("verify", data, "--anchor", kept, "--json").json()["anchor"]["judgements"]
    assert [(each["domain"], each["verdict"], each["position"], each["more"]) for each in found] == [
        ("later", "UNNAMED", None, 2),
        ("notes", "EXTENDED", 3, 1),
        ("other", "EXTENDED", 1, 0),
    ]
    (tmp_path / "empty.json").write_text(re.sub(r'"heads":.*}}', '"heads":{}', kept.read_text()))
    told = done("verify", data, "--anchor", tmp_path / "empty.json").out.splitlines()
    assert told[-1] == f"{unseen} (all 2 events of later, all 4 events of notes, all 1 event of other){newer}"


def test_a_locked_log_is_2_with_an_anchor_too(data: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_BUSY_TIMEOUT_MS", "1")
    with (data / "logs" / "notes" / "head").open("r+b") as head:
        fcntl.flock(head, fcntl.LOCK_EX)
        answer = eventstore("verify", data, "--anchor", kept)
    assert answer.code == 2
    assert "notes@3  UNJUDGED\n" in answer.out
    assert "not judged: 2 findings\n" in answer.out


def test_a_tail_cut_off_is_1_only_with_an_anchor(data: Path, kept: Path) -> None:
    cut_off(data)
    assert "not excluded: a tail cut off" in done("verify", data).out
    answer = eventstore("verify", data, "--anchor", kept)
    assert answer.code == 1
    assert "notes@3  TRUNCATED\n" in answer.out
    assert "notes@3  anchor  TRUNCATED: the log ends at position 2" in answer.out
    assert answer.out.splitlines()[-2] == "not whole: 1 finding"
    found = eventstore("verify", data, "--anchor", kept, "--json")
    assert found.code == 1
    assert found.json()["ok"] is False
    assert [(each["domain"], each["position"], each["kind"]) for each in found.json()["findings"]] == [("notes", 3, "anchor")]


def test_a_signed_anchor_is_checked(data: Path, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    file = tmp_path / "signed.json"
    assert ", signed by " in done("anchor", data, "-o", file, "--private-key", private).out
    key = json.loads(file.read_text())["signature"]["key"]
    assert f"signed by {key}\n" in done("verify", data, "--anchor", file, "--public-key", public).out
    assert done("verify", data, "--anchor", file, "--public-key", public, "--json").json()["anchor"]["signed_by"] == key
    assert "its signature was not checked" in done("verify", data, "--anchor", file).out


def test_a_bad_signature_is_1(data: Path, kept: Path, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    forged = tmp_path / "forged.json"
    done("anchor", data, "-o", forged, "--private-key", new_keys(tmp_path, "forger")[0])
    altered = tmp_path / "altered.json"
    line = done("anchor", data, "--private-key", private).out
    altered.write_text(line.replace('"position":3', '"position":2'))
    for file in (kept, forged, altered):
        answer = eventstore("verify", data, "--anchor", file, "--public-key", public, "--json")
        assert answer.code == 1
        assert answer.out == ""
        assert answer.error()["error"] == "SignatureError"


def test_what_cannot_be_judged_says_why(data: Path, kept: Path, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    assert eventstore("verify", data, "--public-key", public).code == 3
    assert eventstore("verify", data, "--anchor", tmp_path / "missing.json").code == 2
    assert eventstore("verify", data, "typo", "--anchor", kept).code == 1
    wrong = eventstore("verify", data, "--anchor", private)
    assert wrong.code == 3
    assert f"{private} is no anchor" in wrong.err
    done("init", tmp_path / "another")
    foreign = eventstore("verify", tmp_path / "another", "--anchor", kept)
    assert foreign.code == 1, "another store in the place of this one is a finding"
    assert json.loads(kept.read_text())["store_id"] in foreign.err
    (data / "k.pem").write_bytes(private.read_bytes())
    (data / "k.pem").chmod(0o600)
    inside = eventstore("anchor", data, "--private-key", data / "k.pem", "-o", tmp_path / "never.json")
    assert (inside.code, "lies inside the store" in inside.err) == (3, True)
    private.chmod(0o644)
    open_to_all = eventstore("anchor", data, "--private-key", private, "-o", tmp_path / "never.json")
    assert open_to_all.code == 3
    assert "chmod 600" in open_to_all.err
    assert not (tmp_path / "never.json").exists()
