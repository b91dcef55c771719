"""Crypto-shredding: what was encrypted with a subject's key is read by nobody once the key is gone, wherever the copy lies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import eventstore
from eventstore import (
    AccessError,
    ConfigError,
    Domain,
    DomainStore,
    DuplicateEventError,
    FormatError,
    MissingKeyError,
    NewerFormatError,
    NotFoundError,
    ReadOnlyError,
    RedactedError,
    Store,
    UnavailableError,
    aio,
)
from eventstore.adapters.keyring import Keyring
from eventstore.codec import encode_key, seal
from eventstore.group import GroupCommit
from eventstore.model import Event, Head, Key
from tests import verifier
from tests.eventstore.test_redact import files_with, secret
from tests.tools.command import done
from tests.tools.command import eventstore as command

ROOT = Path(__file__).parents[2]


def subject_of(key: Key) -> str | None:
    """Keys of people begin with their pseudonym; what stands under a plain string is nobody's."""
    return str(key[0]) if isinstance(key, tuple) else None


PEOPLE = Domain("people", subject=subject_of)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Where the keys are: beside the store, not in it."""
    return tmp_path / "people.keys"


def people(store: Store) -> DomainStore:
    return store.domain(PEOPLE)


def test_values_of_a_subject_are_stored_encrypted(open_store: Callable[..., Store], keys: Path, tmp_path: Path) -> None:
    word = secret()
    with open_store(keys=keys) as store:
        d = people(store)
        d.write_value(("alice", "mail"), word, actor="bot")
        d.write_value("public", 1)
        event = d.event(1)
        meta = json.loads(event.meta or "")
        assert isinstance(event.data, bytes)
        assert word.encode() not in event.data
        assert meta["actor"] == "bot"
        assert meta["codec"].startswith("aes-gcm:")
        assert d.event(2).data == "1"
        assert (d.read_value(("alice", "mail")), d.text_of(event)) == (word, json.dumps(word))
        assert files_with(tmp_path, word) == []
        assert "alice" in keys.read_text()
        assert keys.stat().st_mode & 0o777 == 0o600
    with open_store(keys=keys) as store:
        assert dict(store.domain("people").items()) == {("alice", "mail"): word, "public": 1}
        assert store.verify().ok
    log = tmp_path / "data" / "logs" / "people"
    assert verifier.verify(log / f"{0:020d}.db", log / "head", domain="people").findings == []


def test_one_key_a_subject_and_another_ciphertext_each_time(open_store: Callable[..., Store], keys: Path) -> None:
    d = people(open_store(keys=keys))
    for name in ("alice", "alice", "bob"):
        d.write_value((name, 1), "the same")
    events = list(d.events())
    codecs = [json.loads(event.meta or "")["codec"] for event in events]
    assert codecs[0] == codecs[1] != codecs[2]
    assert len({event.data for event in events}) == 3


def test_compressed_first_then_encrypted(open_store: Callable[..., Store], keys: Path) -> None:
    store, value = open_store(keys=keys), {"text": "again and again " * 500}
    d = store.domain(Domain("people", subject=subject_of, codec="zlib"))
    d.write_value(("alice", 1), value)
    event = d.event(1)
    assert json.loads(event.meta or "")["codec"].startswith("zlib+aes-gcm:")
    assert len(event.data or "") < 1_000
    assert store.domain("people").read_value(("alice", 1)) == value


def test_every_write_verb_encrypts(open_store: Callable[..., Store], keys: Path) -> None:
    d = people(open_store(keys=keys))
    key = ("alice", 1)
    d.write_value(key, 1)
    d.update_value(key, lambda value: value + 1)
    d.restore_value(key, 1)
    d.write_values([(key, 3)])
    with d.batch() as batch:
        batch.write_value(key, 4)
    assert [type(event.data) for event in d.events()] == [bytes] * 5
    assert d.read_value(key) == 4
    assert not d.write_value(key, 4, unchanged="skip").appended


def test_a_retry_compares_what_is_said_and_not_its_ciphertext(open_store: Callable[..., Store], keys: Path) -> None:
    first = people(open_store(keys=keys))
    receipt = first.write_value(("alice", 1), "a guess", event_id="e")
    again = people(open_store(keys=keys))
    assert again.write_value(("alice", 1), "a guess", event_id="e") == receipt
    with pytest.raises(DuplicateEventError):
        again.write_value(("alice", 1), "another", event_id="e")
    other = people(open_store(keys=keys))
    other.write_value(("bob", 1), "b", event_id="f")
    requests = [json.loads(event.meta or "")["request"] for event in again.events()]
    assert len(requests) == 2
    assert files_with(keys.parent, "a guess") == []


# ---- destroyed


def test_a_destroyed_key_takes_every_value_with_it_and_says_who_and_why(open_store: Callable[..., Store], keys: Path) -> None:
    store = open_store(keys=keys)
    d, notes = people(store), store.domain(Domain("notes", subject=subject_of))
    for number in range(3):
        d.write_value(("alice", 1), number)
    d.write_value(("bob", 1), "kept")
    notes.write_value(("alice", "note"), 1)
    before = d.state(2)
    assert before.read_value(("alice", 1)) == 1
    (key_id,) = {line["id"] for line in entries(keys) if line["subject"] == "alice"}
    report = store.shred("alice", reason="request 17", actor="dpo")
    assert (report.subject, report.keys, report.complete) == ("alice", [key_id], True)
    assert [(each.domain, each.erased) for each in report.erased] == [("notes", [1]), ("people", [1, 2, 3])]
    for view in (d, before, d.state(1)):
        with pytest.raises(RedactedError):
            view.read_value(("alice", 1))
    assert d.read_value(("bob", 1)) == "kept"
    event = d.event(5)
    assert (event.op, json.loads(str(event.data))) == ("redact", {"positions": [1, 2, 3], "keys": [key_id]})
    assert json.loads(event.meta or "") == {"actor": "dpo", "reason": "request 17"}
    (left,) = [line for line in entries(keys) if line["subject"] == "alice"]
    assert (left["reason"], left["actor"], "key" in left) == ("request 17", "dpo", False)
    assert store.verify().ok


def entries(keys: Path) -> list[dict[str, Any]]:
    """The lines of a key file but for the first."""
    return [json.loads(line) for line in keys.read_text().splitlines()[1:]]


def test_a_backup_is_unreadable_once_the_key_is_gone(open_store: Callable[..., Store], keys: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    with open_store(keys=keys) as store:
        people(store).write_value(("alice", 1), "in confidence")
        people(store).write_value(("bob", 1), "kept")
    shutil.copytree(tmp_path / "data", backup)
    with eventstore.open(backup, keys=keys) as store:
        assert store.domain("people").read_value(("alice", 1)) == "in confidence"
    with open_store(keys=keys) as store:
        store.shred("alice", reason="asked")
    with eventstore.open(backup, keys=keys) as store:
        d = people(store)
        with pytest.raises(RedactedError):
            d.read_value(("alice", 1))
        with pytest.raises(RedactedError):
            list(d.items())
        with pytest.raises(RedactedError):
            d.restore_value(("alice", 1), 1)
        assert d.read_value(("bob", 1)) == "kept"
        assert store.verify().ok
        assert d.write_value(("alice", 1), "new", unchanged="skip").appended


def test_a_store_open_elsewhere_forgets_too(open_store: Callable[..., Store], keys: Path) -> None:
    """Another handle on the same files sees what another process sees."""
    one, other = open_store(keys=keys), open_store(keys=keys)
    people(one).write_value(("alice", 1), 1)
    assert people(other).read_value(("alice", 1)) == 1
    one.shred("alice", reason="asked")
    with pytest.raises(RedactedError):
        people(other).read_value(("alice", 1))
    receipt = people(other).write_value(("alice", 1), 2)
    assert receipt.appended
    assert people(one).read_value(("alice", 1)) == 2, "a subject that comes back has a new key"
    assert len([line for line in entries(keys) if line["subject"] == "alice"]) == 2


def test_shredded_again_nothing_is_done_twice(open_store: Callable[..., Store], keys: Path) -> None:
    store = open_store(keys=keys)
    people(store).write_value(("alice", 1), 1)
    first = store.shred("alice", reason="asked")
    written = keys.read_bytes()
    again = store.shred("alice", reason="asked again")
    assert again.keys == first.keys
    assert [(each.position, each.erased, each.already) for each in again.erased] == [(None, [], [1])]
    assert keys.read_bytes() == written


def test_shredded_by_whoever_has_a_file_open_that_another_moved_away(
    open_store: Callable[..., Store], keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is at hand is erased, and the archive named: the floor that counts is the one of this moment."""
    monkeypatch.setattr("eventstore.reading.PAGE", 3)
    with open_store(keys=keys) as store:
        people(store).write_values([(("alice", 1), "told"), ("public", 1)])
        store.shred("alice", reason="asked")
        people(store).write_value(("alice", 2), "told again")
        store.seal("people")
    here, there = open_store(keys=keys), open_store(keys=keys)
    assert len(list(people(there).events())) == people(here).head().position
    here.archive("people", to=tmp_path / "archive")
    (erased,) = there.shred("alice", reason="asked again").erased
    assert (erased.erased, erased.complete) == ([4], False)
    assert [copy.path.partition(" ")[0] for copy in erased.held] == [str(tmp_path / "archive")]
    assert there.verify().ok


def test_a_copy_shreds_in_its_originals_archive_once_it_takes_it_over(keys: Path, tmp_path: Path) -> None:
    archive, copy = tmp_path / "archive", tmp_path / "copy"
    with eventstore.open(tmp_path / "data", keys=keys) as store:
        people(store).write_value(("alice", 1), "told")
        store.seal("people")
        store.archive("people", to=archive)
    shutil.copytree(tmp_path / "data", copy)
    (file,) = archive.rglob("*.db")
    before = file.read_bytes()
    with eventstore.open(copy, keys=keys, archives=[archive]) as store:
        left = store.shred("alice", reason="asked")
        assert (left.complete, [held.path for held in left.erased[0].held]) == (False, [str(file)])
        assert file.read_bytes() == before
        done = store.shred("alice", reason="asked", take_over=True)
        assert (done.complete, done.erased[0].position, done.erased[0].already) == (True, None, [1])
        assert store.verify().ok


def test_what_cannot_be_destroyed_is_refused(open_store: Callable[..., Store], keys: Path) -> None:
    store = open_store(keys=keys)
    people(store).write_value(("alice", 1), 1)
    with pytest.raises(NotFoundError):
        store.shred("nobody", reason="asked")
    with pytest.raises(ConfigError):
        store.shred("alice", reason="")
    with pytest.raises(ConfigError, match="keys=FILE"):
        open_store().shred("alice", reason="asked")
    with pytest.raises(ReadOnlyError):
        open_store(keys=keys, read_only=True).shred("alice", reason="asked")
    assert people(store).read_value(("alice", 1)) == 1


def test_tasks_shred_by_the_same_verb(tmp_path: Path, keys: Path) -> None:
    async def main() -> None:
        async with await aio.open(tmp_path / "data", keys=keys) as store:
            d = await store.domain(PEOPLE)
            await d.write_value(("alice", 1), 1)
            assert (await store.shred("alice", reason="asked")).erased[0].erased == [1]
            with pytest.raises(RedactedError):
                await d.read_value(("alice", 1))

    asyncio.run(main())


# ---- beside writes


def test_a_batch_that_outlives_its_subjects_key_is_encrypted_with_the_next_one(open_store: Callable[..., Store], keys: Path) -> None:
    """Its values are encrypted as they are added; the key goes before the block ends. Those of others stay as they are."""
    store, other = open_store(keys=keys), open_store(keys=keys)
    d = people(store)
    d.write_value(("alice", 0), "old")
    with d.batch(event_id="e") as batch:
        batch.write_value(("alice", 1), "new", actor="bot")
        batch.write_value(("bob", 1), "bob's")
        batch.write_value("public", 1)
        (bobs,) = {line["id"] for line in entries(keys) if line["subject"] == "bob"}
        report = other.shred("alice", reason="asked")
    assert [(each.domain, each.erased) for each in report.erased] == [("people", [1])]
    with open_store(keys=keys) as third:
        for reader in (d, people(third)):
            found = {key: reader.get(key) for key in (("alice", 1), ("bob", 1), "public")}
            assert found == {("alice", 1): "new", ("bob", 1): "bob's", "public": 1}
            with pytest.raises(RedactedError):
                reader.read_value(("alice", 0))
    (_, alices) = [line["id"] for line in entries(keys) if line["subject"] == "alice"]
    said = [json.loads(d.event(receipt.position).meta or "{}") for receipt in batch.receipts]
    assert [meta.get("codec") for meta in said] == [f"aes-gcm:{alices}", f"aes-gcm:{bobs}", None]
    assert (said[0]["event_id"], said[0]["actor"]) == ("e", "bot")
    assert store.verify().ok


def test_writes_that_wait_while_a_key_goes_are_read_afterwards(
    open_store: Callable[..., Store], keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that waits for another store's lock, and those that queue behind it for the same transaction."""
    store, other = open_store(keys=keys), open_store(keys=keys)
    d, elsewhere = people(store), people(other)
    d.write_value(("alice", 0), "old")
    encrypted, encrypt = threading.Semaphore(0), Keyring.encrypt

    def told(ring: Keyring, *args: Any) -> tuple[str, bytes]:
        try:
            return encrypt(ring, *args)
        finally:
            encrypted.release()

    monkeypatch.setattr(Keyring, "encrypt", told)
    waiting = [threading.Thread(target=d.write_value, args=(("alice", number), number)) for number in (1, 2, 3)]
    with elsewhere.group.live.log.writing():
        for thread in waiting:
            thread.start()
        assert all(encrypted.acquire(timeout=60) for _ in waiting)
        Keyring(keys, store.store_id).shred("alice", reason="asked", actor=None)
    for thread in waiting:
        thread.join()
    assert [d.read_value(("alice", number)) for number in (1, 2, 3)] == [1, 2, 3]
    assert other.shred("alice", reason="asked").erased[0].erased == [1, 2, 3, 4], "a shredding after them takes them all"


def test_a_shredding_takes_what_is_being_committed_when_the_key_goes(
    open_store: Callable[..., Store], keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write has seen its key alive and is not in the log yet, which holds nothing else of the subject."""
    store, other = open_store(keys=keys), open_store(keys=keys)
    d = people(store)
    people(other)
    seen, gone = threading.Event(), threading.Event()
    lives, alone = Keyring.lives, GroupCommit.alone

    def slowly(ring: Keyring, key_id: str) -> bool:
        found = lives(ring, key_id)
        seen.set()
        assert gone.wait(60)
        return found

    def asks(group: GroupCommit) -> contextlib.AbstractContextManager[Head]:
        gone.set()
        return alone(group)

    monkeypatch.setattr(Keyring, "lives", slowly)
    monkeypatch.setattr(GroupCommit, "alone", asks)
    writing = threading.Thread(target=d.write_value, args=(("alice", 1), "in between"))
    writing.start()
    assert seen.wait(60)
    report = other.shred("alice", reason="asked")
    gone.set()
    writing.join()
    assert [(each.domain, each.erased) for each in report.erased] == [("people", [1])]
    assert (d.state_of(("alice", 1)) or pytest.fail("not written")).status == "redacted"
    assert store.verify().ok


def test_a_task_that_waits_while_a_key_goes_is_read_afterwards(tmp_path: Path, keys: Path) -> None:
    async def main() -> None:
        async with await aio.open(tmp_path / "data", keys=keys) as store:
            d = await store.domain(PEOPLE)
            await d.write_value(("alice", 0), "old")
            async with d.batch() as batch:
                batch.write_value(("alice", 1), "new")
                await store.shred("alice", reason="asked")
            assert await d.read_value(("alice", 1)) == "new"

    asyncio.run(main())


def test_a_key_file_that_cannot_be_read_under_the_lock_refuses_the_write_and_stops_nothing(
    open_store: Callable[..., Store], keys: Path
) -> None:
    store = open_store(keys=keys)
    d = people(store)
    d.write_value(("alice", 0), "old")
    content = keys.read_bytes()

    def write() -> None:
        with d.batch() as batch:
            batch.write_value(("alice", 1), "new")
            keys.write_bytes(b"rot\n")

    with pytest.raises(UnavailableError, match=r"people\.keys"):
        write()
    keys.write_bytes(content)
    assert store.halted is None
    assert d.write_value(("alice", 1), "new").appended


@pytest.mark.corrupts
def test_a_file_that_rotted_keeps_no_key_from_being_destroyed_and_is_named(
    open_store: Callable[..., Store], keys: Path, tmp_path: Path
) -> None:
    with open_store(keys=keys) as store:
        d = people(store)
        d.write_value(("alice", 1), "first")
        d.remove_value(("alice", 1))
        d.write_value(("alice", 2), "carried")
        store.seal("people")
        d.write_value(("alice", 3), "last")
    path = tmp_path / "data" / "logs" / "people" / f"{0:020d}.db"
    content = path.read_bytes()
    path.write_bytes(bytes(100) + content[100:])
    with open_store(keys=keys) as store:
        (report,) = store.shred("alice", reason="asked").erased
        assert (report.erased, [held.path for held in report.held]) == ([3, 5], [str(path)])
    path.write_bytes(content)
    with open_store(keys=keys) as store:
        (report,) = store.shred("alice", reason="asked").erased
        assert (report.erased, report.already, report.held) == ([1], [3, 5], [])
        assert store.verify().ok


# ---- the key file


def test_without_the_key_file_a_value_misses_its_key(open_store: Callable[..., Store], keys: Path, tmp_path: Path) -> None:
    with open_store(keys=keys) as store:
        people(store).write_value(("alice", 1), 1)
        people(store).write_value("public", 2)
    (key_id,) = [line["id"] for line in entries(keys)]
    for options, says in (({}, "without a key file"), ({"keys": tmp_path / "empty.keys"}, "empty.keys does not hold it")):
        with open_store(**options) as store:
            d = people(store)
            with pytest.raises(MissingKeyError, match=says) as missing:
                d.read_value(("alice", 1))
            assert (missing.value.domain, missing.value.position, missing.value.key_id) == ("people", 1, key_id)
            assert d.read_value("public") == 2
            assert (d.has_value(("alice", 1)), store.verify().ok) == (True, True)
    with open_store() as store:
        with pytest.raises(ConfigError, match="keys=FILE"):
            people(store).write_value(("alice", 1), 2)
        assert people(store).head().position == 2


def test_the_key_file_of_another_store_is_refused(tmp_path: Path, open_store: Callable[..., Store], keys: Path) -> None:
    people(open_store(keys=keys)).write_value(("alice", 1), 1)
    with pytest.raises(ConfigError, match="holds the keys of store"):
        eventstore.open(tmp_path / "other", keys=keys)
    for _ in range(2):
        with pytest.raises(ConfigError):
            eventstore.open(tmp_path / "other", keys=keys, owner="me")  # and the owner's lease is given back


@pytest.mark.parametrize("content", [b"{}\n", b"no keys at all\n", b'{"format":1,"store_id":"x"}\n{"id":1}\n', b""])
def test_a_key_file_that_is_none_is_refused(tmp_path: Path, keys: Path, content: bytes) -> None:
    keys.touch(0o600)
    keys.write_bytes(content)
    with pytest.raises(FormatError, match=r"people\.keys"):
        eventstore.open(tmp_path / "data", keys=keys)


def test_keys_that_others_can_read_or_that_lie_in_the_store_are_refused(
    open_store: Callable[..., Store], keys: Path, tmp_path: Path
) -> None:
    with open_store(keys=keys) as store:
        people(store).write_value(("alice", 1), 1)
    keys.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        open_store(keys=keys)
    with open_store() as store:
        store.backup(tmp_path / "backup")
    for folder in ("data", "data/logs/people", "backup"):
        for location in (tmp_path / "other", tmp_path / "data", "memory:"):
            with pytest.raises(ConfigError, match="lies inside the "):
                eventstore.open(location, keys=tmp_path / folder / "keys")


@pytest.mark.parametrize(
    ("owner", "entry"),
    [({}, {}), ({"kdf": "x"}, {}), ({}, {"wrapped": True}), ({"store_id": None}, {"key": 7})],
    ids=["nothing else new", "a member of the first line", "a member of a key", "other types"],
)
def test_the_key_file_of_a_newer_version_is_refused_as_that_and_left_alone(
    open_store: Callable[..., Store], keys: Path, owner: dict[str, Any], entry: dict[str, Any]
) -> None:
    with open_store(keys=keys) as store:
        people(store).write_value(("alice", 1), 1)
    first, line = map(json.loads, keys.read_text().splitlines())
    newer = json.dumps({**first, "format": 2, **owner}) + "\n" + json.dumps({**line, **entry}) + "\n"
    keys.write_text(newer)
    with pytest.raises(NewerFormatError, match=r"people\.keys: format 2, this version knows 1; upgrade"):
        open_store(keys=keys)
    assert keys.read_text() == newer
    assert sorted(path.name for path in keys.parent.glob("*people.keys*")) == ["people.keys", "people.keys.lock"]


def test_a_key_file_that_vanishes_under_the_store_is_not_begun_anew(open_store: Callable[..., Store], keys: Path) -> None:
    """It may lie on another disk, which comes back: what was encrypted with keys of a second file nobody could read then."""
    store = open_store(keys=keys)
    d = people(store)
    d.write_value(("alice", 1), 1)
    away = keys.rename(keys.with_name("away"))
    for name in ("alice", "bob"):
        with pytest.raises(AccessError, match=r"people\.keys is gone"):
            d.write_value((name, 1), 2)
    assert not keys.exists()
    assert store.halted is None
    away.rename(keys)
    assert d.write_value(("alice", 1), 2).position == 2
    assert d.read_value(("alice", 1)) == 2


def test_the_environment_names_the_key_file(open_store: Callable[..., Store], keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_KEYS", str(keys))
    people(open_store()).write_value(("alice", 1), 1)
    assert keys.exists()


def test_a_key_that_was_half_written_is_none(keys: Path) -> None:
    """Whoever was killed in the midst of a line had encrypted nothing with it."""
    ring = Keyring(keys, "ab")
    first, _ = ring.encrypt("alice", b"x", b"")
    with keys.open("ab") as file:
        file.write(b'{"id":"half')
    other = Keyring(keys, "ab")
    assert other.encrypt("alice", b"x", b"")[0] == first
    second, blob = other.encrypt("bob", b"y", b"")
    assert ring.decrypt(second, blob, b"") == b"y"
    assert [line["subject"] for line in entries(keys)] == ["alice", "bob"]


def test_threads_and_processes_make_one_key_a_subject(keys: Path) -> None:
    script = "import sys; from pathlib import Path; from eventstore.adapters.keyring import Keyring\n"
    script += "ring = Keyring(Path(sys.argv[1]), 'ab')\nprint(','.join(ring.encrypt(f's{n % 5}', b'x', b'')[0] for n in range(50)))"
    running = [subprocess.Popen([sys.executable, "-c", script, str(keys)], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({process.communicate()[0] for process in running}) == 1
    assert len(entries(keys)) == 5


def test_a_reader_never_meets_a_file_that_is_written_over(keys: Path) -> None:
    """Keys are destroyed beside processes that read them, again and again."""
    script = "import sys; from pathlib import Path; from eventstore.adapters.keyring import Keyring\n"
    script += "ring = Keyring(Path(sys.argv[1]), 'ab'); print('reading', flush=True)\n"
    script += "while not Path(sys.argv[2]).exists(): ring._seen = None; ring._refresh()"
    ring, end = Keyring(keys, "ab"), keys.with_name("end")
    ring.encrypt("alice", b"x", b"")
    with subprocess.Popen([sys.executable, "-c", script, str(keys), str(end)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
        for number in range(40):
            ring.encrypt(f"subject-{number}", b"x", b"")
            ring.shred(f"subject-{number}", reason="asked", actor=None)
        end.touch()
    assert reader.returncode == 0


def test_no_old_copy_of_the_file_keeps_a_destroyed_key(keys: Path) -> None:
    """The bytes of the file that was replaced are written over, and what a killed process left half made goes as well."""
    ring = Keyring(keys, "ab")
    ring.encrypt("alice", b"x", b"")
    (key,) = [line["key"] for line in entries(keys)]
    left = keys.with_name(f".tmp-{keys.name}")
    shutil.copy(keys, left)
    with keys.open("rb") as old, left.open("rb") as half:
        ring.shred("alice", reason="asked", actor=None)
        assert set(old.read()) == {0}
        assert set(half.read()) == {0}
    assert files_with(keys.parent, key) == []


# ---- ciphertexts that are not what they should be


def moved(d: DomainStore, event: Event, key: Key, *, data: bytes | None = None, codec: str | None = None) -> None:
    """Append an event's ciphertext under another key, sealed well: whoever can write the file can do that."""
    log = d._live.log
    meta = event.meta if codec is None else json.dumps({"codec": codec})
    with log.writing() as head:
        stamp = log.get([head.position])[0].recorded_us + 1
        after = Head(head.position, head.checksum)
        log.append(
            [
                seal(
                    after,
                    prev=0,
                    recorded_us=stamp,
                    when_us=None,
                    op="put",
                    key=encode_key(key),
                    meta=meta,
                    data=data or event.data,
                    salt=bytes(16),
                )
            ],
            after=head,
        )


@pytest.mark.corrupts
def test_a_ciphertext_cannot_be_altered_swapped_or_moved(open_store: Callable[..., Store], keys: Path) -> None:
    store = open_store(keys=keys)
    d, other = people(store), store.domain(Domain("other", subject=subject_of))
    d.write_value(("alice", "balance"), 1)
    event = d.event(1)
    assert isinstance(event.data, bytes)
    codec = json.loads(event.meta or "")["codec"]
    moved(d, event, ("alice", "limit"))
    moved(d, event, ("alice", "flipped"), data=event.data[:-1] + bytes([event.data[-1] ^ 1]))
    moved(d, event, ("alice", "cut"), data=event.data[:10])
    moved(d, event, ("alice", "relabelled"), codec=f"zlib+{codec}")
    moved(other, event, ("alice", "balance"))
    for name in ("limit", "flipped", "cut", "relabelled"):
        with pytest.raises(FormatError, match="does not open with key"):
            d.read_value(("alice", name))
    with pytest.raises(FormatError, match="does not open with key"):
        other.read_value(("alice", "balance"))
    assert d.read_value(("alice", "balance")) == 1


@pytest.mark.corrupts
@pytest.mark.parametrize("codec", ["aes-gcm", "aes-gcm:", "AES-GCM:1"])
def test_a_codec_without_a_key_is_unknown(open_store: Callable[..., Store], keys: Path, codec: str) -> None:
    d = people(open_store(keys=keys))
    d.write_value(("alice", 1), 1)
    moved(d, d.event(1), ("alice", 2), codec=codec)
    with pytest.raises(FormatError, match="does not know"):
        d.read_value(("alice", 2))


def test_the_cipher_is_the_one_that_is_documented(open_store: Callable[..., Store], keys: Path) -> None:
    """By hand, from FORMAT.md alone."""
    store = open_store(keys=keys)
    people(store).write_value(("alice", 1), "x")
    event = people(store).event(1)
    (line,) = entries(keys)
    bound = json.dumps(["eventstore", "aes-gcm", store.store_id, "people", event.key, []], separators=(",", ":")).encode()
    assert isinstance(event.data, bytes)
    assert AESGCM(bytes.fromhex(line["key"])).decrypt(event.data[:12], event.data[12:], bound) == b'"x"'


# ---- the command


def test_the_command_destroys_a_key_and_says_so(tmp_path: Path, keys: Path) -> None:
    data = tmp_path / "data"
    with eventstore.open(data, keys=keys) as store:
        people(store).write_value(("alice", 1), 1)
        people(store).write_value(("alice", 2), 2)
    assert command("get", data, "people", '["alice", 1]').code == 2
    assert command("shred", data, "alice", "--reason", "asked").code == 3
    assert command("shred", data, "nobody", "--keys", keys, "--reason", "asked").code == 1
    assert done("shred", data, "alice", "--keys", keys, "--reason", "asked", "--actor", "dpo").out.splitlines() == [
        "alice: 1 key destroyed",
        "people: 2 values erased, on record at position 3",
        "    positions 1-2",
        "no other copy is in the store's folder",
    ]
    assert command("get", data, "people", '["alice", 1]').code == 1
    again = done("shred", data, "alice", "--keys", keys, "--reason", "asked", "--json").json()
    assert (again["subject"], again["erased"][0]["already"]) == ("alice", [1, 2])


def test_an_import_without_the_keys_names_what_it_could_not_bring(tmp_path: Path, keys: Path) -> None:
    data = tmp_path / "data"
    with eventstore.open(data, keys=keys) as store:
        people(store).write_value(("alice", 1), 1)
    file = tmp_path / "events.jsonl"
    done("export", data, "-o", file)
    done("import", file, tmp_path / "same")
    with eventstore.open(tmp_path / "same", keys=keys) as store:
        assert store.domain("people").read_value(("alice", 1)) == 1
    done("init", tmp_path / "other")
    found = command("import", file, tmp_path / "other")
    assert found.code == 1
    assert "key" in found.out
