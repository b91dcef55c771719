"""Anchors: what somebody with SQLite and bad intentions does to a log is told by one line that was kept elsewhere."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

import eventstore
from eventstore import (
    Anchor,
    ConfigError,
    Event,
    GapError,
    Head,
    Judgement,
    NewerFormatError,
    NotFoundError,
    SignatureError,
    Store,
    TailLostError,
)
from eventstore.adapters.signing import require_signature, sign
from eventstore.anchors import judge
from eventstore.codec import seal
from eventstore.links import Finding
from eventstore.local import LocalEngine
from tests.eventstore import rfc9162

DOMAIN, OTHER = "orders", "quotes"
LAST = 6
PEM, RAW = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
CLEAR = serialization.NoEncryption()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Anchor]:
    """A closed store of two domains, and its anchor."""
    folder = tmp_path_factory.mktemp("anchors") / "store"
    with eventstore.open(folder) as store:
        for name in (DOMAIN, OTHER):
            for n in range(1, LAST + 1):
                store.domain(name).write_value("abc"[n % 3], {"n": n})
        return folder, store.anchor()


@pytest.fixture
def folder(template: tuple[Path, Anchor], tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return shutil.copytree(template[0], tmp_path / "store")


@pytest.fixture
def anchor(template: tuple[Path, Anchor]) -> Anchor:
    """What was kept of it."""
    return template[1]


def edit(folder: Path, *statements: tuple[str, tuple[Any, ...]]) -> None:
    """Change the log by the standard library alone, its guard rails taken down and put up again; the store is closed."""
    connection = sqlite3.connect(folder / "logs" / DOMAIN / f"{0:020d}.db", isolation_level=None)
    try:
        triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for statement, values in statements:
            connection.execute(statement, values)
        for _, sql in triggers:
            connection.execute(sql)
    finally:
        connection.close()


def rows(folder: Path) -> list[Event]:
    connection = sqlite3.connect(folder / "logs" / DOMAIN / f"{0:020d}.db")
    try:
        return [Event(*row) for row in connection.execute("SELECT * FROM event ORDER BY position")]
    finally:
        connection.close()


def silence(folder: Path) -> None:
    """Whoever covers up removes the witness, too, and what the manifest and the pointer files know."""
    (folder / "logs" / DOMAIN / "head").write_bytes(b"")
    shutil.rmtree(folder / "logs" / DOMAIN / "pointers", ignore_errors=True)
    manifest = json.loads((folder / "store.json").read_text())
    manifest["heads"].pop(DOMAIN, None)
    (folder / "store.json").write_text(json.dumps(manifest, separators=(",", ":")))


def seal_anew(folder: Path, events: list[Event]) -> None:
    """Put `events` in the place of all that follow the birth row, every prev and checksum computed anew."""
    birth = rows(folder)[0]
    head, latest = Head(0, birth.checksum), dict[str, int]()
    sealed: list[Event] = []
    for event, recorded_us in zip(events, sorted(event.recorded_us for event in events), strict=True):
        made = seal(
            head,
            prev=latest.get(event.key, 0),
            recorded_us=recorded_us,
            when_us=event.when_us,
            op=event.op,
            key=event.key,
            meta=event.meta,
            data=event.data,
            salt=event.salt,
        )
        sealed.append(made)
        latest[made.key] = made.position
        head = Head(made.position, made.checksum)
    inserts = [("INSERT INTO event VALUES (?,?,?,?,?,?,?,?,?,?,?)", msgspec.structs.astuple(event)) for event in sealed]
    edit(folder, ("DELETE FROM event WHERE position > 0", ()), *inserts)


def judged(folder: Path, anchor: Anchor, *, whole: bool) -> Judgement:
    """What the anchor says of the domain that was tampered with; `whole`: whether the proof alone would have noticed nothing."""
    found: Judgement | None = None
    for read_only in (True, False) if whole else (True,):
        with eventstore.open(folder, read_only=read_only) as store:
            assert store.verify().ok is whole
            report = store.verify(anchor=anchor)
            judgements = {each.domain: each for each in report.anchored}
            assert judgements[OTHER].verdict == "EXTENDED", "the other domain was not touched"
            found = judgements[DOMAIN]
            assert report.ok is (found.verdict == "EXTENDED" and whole)
            anchored = [finding for finding in report.findings if finding.kind == "anchor"]
            assert [(f.domain, f.position) for f in anchored] == ([] if found.ok else [(DOMAIN, found.position)])
            assert store.verify(DOMAIN, anchor=anchor).anchored == [found]
    assert found is not None
    return found


# ---- verdicts


def test_a_store_is_what_it_was_and_goes_on(folder: Path, anchor: Anchor) -> None:
    assert judged(folder, anchor, whole=True).more == 0
    with eventstore.open(folder) as store:
        store.domain(DOMAIN).write_value("z", 1)
        store.domain(DOMAIN).write_value("z", 2)
        store.domain("later").write_value("z", 1)
    found = judged(folder, anchor, whole=True)
    assert (found.verdict, found.position, found.head, found.more) == ("EXTENDED", LAST, LAST + 2, 2)


def test_a_tail_cut_off_with_its_witness_is_truncated(folder: Path, anchor: Anchor) -> None:
    edit(folder, ("DELETE FROM event WHERE position > 4", ()))
    silence(folder)
    found = judged(folder, anchor, whole=True)
    assert (found.verdict, found.position, found.head) == ("TRUNCATED", LAST, 4)
    assert "ends at position 4: 2 or more" in found.message


def test_a_tail_cut_off_and_written_again_is_altered(folder: Path, anchor: Anchor) -> None:
    edit(folder, ("DELETE FROM event WHERE position > 4", ()))
    silence(folder)
    with eventstore.open(folder) as store:
        for n in range(5):
            store.domain(DOMAIN).write_value("b", n)
    assert judged(folder, anchor, whole=True).verdict == "ALTERED"


@pytest.mark.parametrize("position", range(1, LAST + 1))
def test_a_tail_sealed_anew_is_altered_wherever_it_begins(folder: Path, anchor: Anchor, position: int) -> None:
    events = rows(folder)[1:]
    events[position - 1] = msgspec.structs.replace(events[position - 1], data='{"n":1000}')
    seal_anew(folder, events)
    silence(folder)
    found = judged(folder, anchor, whole=True)
    assert (found.verdict, found.position, found.head) == ("ALTERED", LAST, LAST)
    assert anchor.heads[DOMAIN].checksum in found.message
    assert rows(folder)[LAST].checksum.hex() in found.message


def test_an_altered_event_under_its_old_checksum_is_altered_although_the_anchored_checksum_stands(folder: Path, anchor: Anchor) -> None:
    edit(folder, ("UPDATE event SET data = '{\"n\":1000}' WHERE position = 3", ()))
    found = judged(folder, anchor, whole=False)
    assert rows(folder)[LAST].checksum.hex() == anchor.heads[DOMAIN].checksum
    assert found.verdict == "ALTERED"
    assert "not on the events it was made of: checksum" in found.message


def test_damage_after_the_anchor_leaves_the_anchored_part_what_it_was(folder: Path, anchor: Anchor) -> None:
    with eventstore.open(folder) as store:
        store.domain(DOMAIN).write_value("a", 7)
    edit(folder, ("UPDATE event SET data = '8' WHERE position = 7", ()))
    with eventstore.open(folder, read_only=True) as store:
        report = store.verify(anchor=anchor)
    assert [(f.position, f.kind) for f in report.findings] == [(7, "checksum")]
    assert {each.verdict for each in report.anchored} == {"EXTENDED"}


def test_a_loss_after_the_anchor_is_a_finding_of_the_witness_and_not_of_the_anchor(folder: Path, anchor: Anchor) -> None:
    with eventstore.open(folder) as store:
        store.domain(DOMAIN).write_value("a", 7)
    edit(folder, ("DELETE FROM event WHERE position = 7", ()))
    with eventstore.open(folder, read_only=True) as store:
        report = store.verify(anchor=anchor)
    assert [(f.position, f.kind) for f in report.findings] == [(None, "tail")]
    assert {each.verdict for each in report.anchored} == {"EXTENDED"}


def swap(folder: Path, one: int, other: int) -> None:
    move = "UPDATE event SET position = ? WHERE position = ?"
    edit(folder, (move, (-1, one)), (move, (one, other)), (move, (other, -1)))


def test_rows_that_changed_places_are_reordered(folder: Path, anchor: Anchor) -> None:
    swap(folder, LAST, LAST - 1)
    found = judged(folder, anchor, whole=False)
    assert (found.verdict, found.position) == ("REORDERED", LAST)
    assert f"stands at position {LAST - 1}" in found.message


def test_rows_that_moved_up_into_a_gap_are_reordered_and_not_only_truncated(folder: Path, anchor: Anchor) -> None:
    edit(
        folder,
        ("DELETE FROM event WHERE position = 3", ()),
        *(("UPDATE event SET position = position - 1 WHERE position = ?", (n,)) for n in (4, 5, 6)),
    )
    assert judged(folder, anchor, whole=False).verdict == "REORDERED"


def test_events_that_changed_places_and_were_sealed_anew_are_altered_as_a_position_is_part_of_its_checksum(
    folder: Path, anchor: Anchor
) -> None:
    *before, one, other = rows(folder)[1:]
    seal_anew(folder, [*before, other, one])
    silence(folder)
    assert judged(folder, anchor, whole=True).verdict == "ALTERED"


def test_an_anchored_event_that_is_missing_in_the_middle_is_altered(folder: Path, anchor: Anchor) -> None:
    with eventstore.open(folder) as store:
        store.domain(DOMAIN).write_value("a", 7)
    edit(folder, (f"DELETE FROM event WHERE position = {LAST}", ()))
    found = judged(folder, anchor, whole=False)
    assert found.verdict == "ALTERED"
    assert "no event stands there" in found.message


def test_a_domain_that_is_gone_is_truncated(folder: Path, anchor: Anchor) -> None:
    silence(folder)
    shutil.rmtree(folder / "logs" / DOMAIN)
    with eventstore.open(folder, read_only=True) as store:
        assert store.verify().ok
        for report in (store.verify(anchor=anchor), store.verify(DOMAIN, anchor=anchor)):
            assert not report.ok
            assert (report.anchored[0].verdict, report.anchored[0].head) == ("TRUNCATED", None)
            assert "gone" in report.anchored[0].message


def test_a_domain_sealed_anew_from_its_birth_row_is_altered_although_it_was_empty(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "store") as store:
        assert store.anchor().heads == {}
        store.domain(DOMAIN)
        anchor = store.anchor()
        assert anchor.heads[DOMAIN].position == 0
        assert store.verify(anchor=anchor).anchored[0].verdict == "EXTENDED"
    shutil.rmtree(tmp_path / "store" / "logs" / DOMAIN)
    silenced = json.loads((tmp_path / "store" / "store.json").read_text()) | {"heads": {}}
    (tmp_path / "store" / "store.json").write_text(json.dumps(silenced))
    with eventstore.open(tmp_path / "store") as store:
        store.domain(DOMAIN).write_value("a", 1)
        assert store.verify().ok
        assert store.verify(anchor=anchor).anchored[0].verdict == "ALTERED"


def test_a_log_that_cannot_be_read_is_never_extended(folder: Path, anchor: Anchor) -> None:
    (folder / "logs" / DOMAIN / f"{0:020d}.db").write_bytes(b"not a database" * 1_000)
    assert judged(folder, anchor, whole=False).verdict == "ALTERED"


def test_a_log_that_could_not_be_looked_at_is_unjudged_and_never_altered(folder: Path, anchor: Anchor) -> None:
    with (folder / "logs" / DOMAIN / "head").open("r+b") as head, eventstore.open(folder, read_only=True, busy_timeout_ms=1) as store:
        fcntl.flock(head, fcntl.LOCK_EX)  # as another process that writes for long
        report = store.verify(anchor=anchor)
    assert [(each.domain, each.verdict) for each in report.anchored] == [(DOMAIN, "UNJUDGED"), (OTHER, "EXTENDED")]
    assert not report.ok
    assert [(f.domain, f.position, f.kind) for f in report.findings] == [(DOMAIN, None, "unjudged"), (DOMAIN, LAST, "unjudged")]
    assert "locked by" in report.anchored[0].message


def test_a_proof_that_was_kept_from_looking_proves_no_anchored_event_and_damage_says_more(folder: Path, anchor: Anchor) -> None:
    kept_out, damage = Finding(DOMAIN, None, "unjudged", "a disk failed"), Finding(DOMAIN, 3, "checksum", "altered")
    engine = LocalEngine(folder, read_only=True)
    assert judge(engine, anchor, DOMAIN, [kept_out], exists=True).verdict == "UNJUDGED"
    assert judge(engine, anchor, DOMAIN, [kept_out, damage], exists=True).verdict == "ALTERED"


def test_what_an_anchor_does_not_cover_is_told_of_every_domain(folder: Path, anchor: Anchor) -> None:
    with eventstore.open(folder) as store:
        for n in range(3):
            store.domain("later").write_value("z", n)
        store.domain(DOMAIN).write_value("z", 1)
        report = store.verify(anchor=anchor)
        assert report.ok, "a new domain and new events are no finding"
        told = [(each.domain, each.verdict, each.position, each.head, each.more) for each in report.anchored]
        assert told == [
            ("later", "UNNAMED", None, 3, 3),
            (DOMAIN, "EXTENDED", LAST, LAST + 1, 1),
            (OTHER, "EXTENDED", LAST, LAST, 0),
        ]
        nothing = store.verify(anchor=msgspec.structs.replace(anchor, heads={})).anchored
        assert {each.domain: (each.verdict, each.more) for each in nothing} == {
            "later": ("UNNAMED", 3),
            DOMAIN: ("UNNAMED", LAST + 1),
            OTHER: ("UNNAMED", LAST),
        }


def test_another_store_is_named_with_this_one(folder: Path, anchor: Anchor, tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "impostor") as store:
        with pytest.raises(NotFoundError) as caught:
            store.verify(anchor=anchor)
        assert anchor.store_id in str(caught.value)
        assert store.store_id in str(caught.value)


def test_a_domain_that_the_anchor_does_not_name_is_not_found(folder: Path, anchor: Anchor) -> None:
    with eventstore.open(folder) as store:
        store.domain("later")
        with pytest.raises(NotFoundError, match="says nothing of domain 'later'; it names orders, quotes"):
            store.verify("later", anchor=anchor)
        with pytest.raises(NotFoundError, match="typo"):
            store.verify("typo", anchor=anchor)


# ---- making one


def test_an_anchor_holds_the_heads_of_any_store(any_store: Store) -> None:
    for n in range(3):
        any_store.domain(DOMAIN).write_value("a", n)
    anchor = any_store.anchor()
    head = any_store.domain(DOMAIN).head()
    assert (anchor.store_id, anchor.signature) == (any_store.store_id, None)
    assert {name: (each.position, each.checksum) for name, each in anchor.heads.items()} == {DOMAIN: (3, head.checksum.hex())}
    any_store.domain(DOMAIN).write_value("a", 3)
    assert [(each.verdict, each.more) for each in any_store.verify(anchor=anchor).anchored] == [("EXTENDED", 1)]


def test_a_read_only_store_is_anchored_and_left_as_it_is(folder: Path, anchor: Anchor) -> None:
    with eventstore.open(folder, read_only=True) as store:
        assert store.anchor().heads == anchor.heads


def test_a_lost_tail_is_not_anchored(folder: Path) -> None:
    edit(folder, (f"DELETE FROM event WHERE position = {LAST}", ()))
    with eventstore.open(folder) as store, pytest.raises(TailLostError):
        store.anchor()


def test_a_last_event_that_is_not_what_was_written_is_not_anchored(folder: Path) -> None:
    edit(folder, (f"UPDATE event SET data = '1' WHERE position = {LAST}", ()))
    for read_only in (True, False):
        with eventstore.open(folder, read_only=read_only) as store, pytest.raises(eventstore.CorruptionError):
            store.anchor()


# ---- roots


def rootless(anchor: Anchor) -> Anchor:
    """The anchor as one is made without roots."""
    heads = {name: msgspec.structs.replace(head, root=None) for name, head in anchor.heads.items()}
    return msgspec.structs.replace(anchor, heads=heads)


def test_a_root_is_that_of_the_tree_over_all_checksums_the_birth_row_included(any_store: Store) -> None:
    for count in range(5):
        domain = any_store.domain(DOMAIN)
        checksums = tuple(event.checksum for event in (domain.event(0), *domain.events()))
        assert len(checksums) == count + 1
        assert any_store.anchor().heads[DOMAIN].root == rfc9162.root(checksums).hex()
        domain.write_value("a", count)


def test_a_root_is_read_in_pieces_and_tells_how_far_it_is(store: Store) -> None:
    domain = store.domain(DOMAIN)
    domain.write_values((("row", n), n) for n in range(10_050))
    calls: list[tuple[str, int, int]] = []
    anchor = store.anchor(progress=lambda *call: calls.append(call))
    checksums = tuple(event.checksum for event in (domain.event(0), *domain.events()))
    assert anchor.heads[DOMAIN].root == rfc9162.root(checksums).hex()
    assert calls == [(DOMAIN, 9_999, 10_050), (DOMAIN, 10_050, 10_050)]


def test_without_roots_only_the_heads_are_read_and_verify_has_the_same_verdicts(folder: Path, anchor: Anchor) -> None:
    edit(folder, ("DELETE FROM event WHERE position = 3", ()))
    with eventstore.open(folder, read_only=True) as store:
        assert store.anchor(roots=False).heads == rootless(anchor).heads
        with pytest.raises(GapError, match=f"{DOMAIN}@4: position 3 expected"):
            store.anchor()
    assert judged(folder, rootless(anchor), whole=False).verdict == "ALTERED"


def test_a_checksum_that_cannot_be_one_has_no_root(folder: Path) -> None:
    edit(folder, ("UPDATE event SET checksum = x'00' WHERE position = 3", ()))
    with eventstore.open(folder, read_only=True) as store, pytest.raises(eventstore.FormatError, match=f"{DOMAIN}@3: the checksum"):
        store.anchor()


def test_a_root_that_is_not_the_logs_is_altered_although_the_checksum_stands(folder: Path, anchor: Anchor) -> None:
    other = msgspec.structs.replace(anchor.heads[DOMAIN], root=anchor.heads[OTHER].root)
    found = judged(folder, msgspec.structs.replace(anchor, heads={**anchor.heads, DOMAIN: other}), whole=True)
    assert (found.verdict, found.position) == ("ALTERED", LAST)
    assert "the anchor's root is another" in found.message


# ---- the text


def test_the_text_is_canonical_and_comes_back(anchor: Anchor) -> None:
    text = anchor.text()
    plain: dict[str, Any] = {
        "format": 1,
        "store_id": anchor.store_id,
        "made_us": anchor.made_us,
        "heads": {name: {"position": LAST, "checksum": each.checksum, "root": each.root} for name, each in anchor.heads.items()},
    }
    assert text == json.dumps(plain, sort_keys=True, separators=(",", ":"))
    assert Anchor.parse(text) == Anchor.parse(text.encode() + b"\n") == anchor
    for head in plain["heads"].values():
        del head["root"]
    assert rootless(anchor).text() == json.dumps(plain, sort_keys=True, separators=(",", ":"))
    assert Anchor.parse(rootless(anchor).text()) == rootless(anchor)


MALFORMED: dict[str, Callable[[str], str | bytes]] = {
    "empty": lambda _: "",
    "no JSON": lambda text: text[:-1],
    "no object": lambda text: f"[{text}]",
    "no UTF-8": lambda text: text.encode().replace(b"orders", b"\xff\xfe"),
    "half an emoji": lambda text: text.replace("orders", "\ud83d"),
    "two lines": lambda text: f"{text}\n{text}",
    "white space": lambda text: text.replace(":", ": "),
    "two newlines": lambda text: text + "\n\n",
    "another order": lambda text: json.dumps(dict(reversed(json.loads(text).items())), separators=(",", ":")),
    "a member twice": lambda text: text.replace('"format":1', '"format":1,"format":1'),
    "a member more": lambda text: text.replace('"format":1', '"format":1,"good":true'),
    "no heads": lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "heads"}),
    "a short checksum": lambda text: text.replace('"checksum":"', '"checksum":"0', 1),
    "a short root": lambda text: text.replace('"root":"', '"root":"0', 1),
    "a root of null": lambda text: re.sub('"root":"[0-9a-f]{64}"', '"root":null', text, count=1),
    "a negative position": lambda text: text.replace('"position":6', '"position":-6', 1),
    "a position beyond SQLite": lambda text: text.replace('"position":6', f'"position":{2**63}', 1),
    "a path for a domain": lambda text: text.replace("orders", "../orders"),
    "a store_id that is none": lambda text: text.replace('"store_id":"', '"store_id":"x'),
    "an older format": lambda text: text.replace('"format":1', '"format":0'),
    "a signature that is none": lambda text: text.replace('"store_id"', '"signature":{"key":"00","signature":"00"},"store_id"'),
    "too deep": lambda _: "[" * 100_000,
}


@pytest.mark.parametrize("spoil", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_anchor_is_refused_by_name(anchor: Anchor, spoil: Callable[[str], str | bytes]) -> None:
    with pytest.raises(ConfigError, match=r"^kept\.json is n") as caught:
        Anchor.parse(spoil(anchor.text()), "kept.json")
    assert type(caught.value) is ConfigError


def test_an_anchor_of_a_later_format_asks_for_a_newer_version(anchor: Anchor) -> None:
    with pytest.raises(NewerFormatError, match="format 9"):
        Anchor.parse(anchor.text().replace('"format":1', '"format":9,"roots":[]'))


# ---- signatures


class Keys(msgspec.Struct):
    """A private key, in memory and in a file, and the file of its public key."""

    private: ed25519.Ed25519PrivateKey
    file: Path
    public: Path


def keys_in(folder: Path, name: str) -> Keys:
    private = ed25519.Ed25519PrivateKey.generate()
    file, public = folder / f"{name}.pem", folder / f"{name}.pub"
    file.write_bytes(private.private_bytes(PEM, RAW, CLEAR))
    file.chmod(0o600)
    public.write_bytes(private.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return Keys(private, file, public)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """The keys of whoever keeps the record."""
    return keys_in(tmp_path, "keeper")


def resigned(anchor: Anchor, **changes: str) -> Anchor:
    """The anchor with another signature written into it."""
    assert anchor.signature is not None
    return msgspec.structs.replace(anchor, signature=msgspec.structs.replace(anchor.signature, **changes))


def test_a_signed_anchor_is_believed_and_covers_the_bytes_that_the_format_names(anchor: Anchor, keys: Keys) -> None:
    signed = Anchor.parse(sign(anchor, keys.file).text())
    require_signature(signed, keys.public)
    assert signed.signature is not None
    assert signed.signature.key == keys.private.public_key().public_bytes_raw().hex()
    without = {name: value for name, value in json.loads(signed.text()).items() if name != "signature"}
    covered = b"eventstore-anchor/1\x00" + json.dumps(without, sort_keys=True, separators=(",", ":")).encode()
    keys.private.public_key().verify(bytes.fromhex(signed.signature.signature), covered)
    assert sign(signed, keys.file) == signed, "Ed25519 gives the same signature for the same bytes"


def test_whatever_is_changed_in_a_signed_anchor_it_is_not_believed(anchor: Anchor, keys: Keys) -> None:
    signed = sign(anchor, keys.file)
    head = anchor.heads[DOMAIN]
    forgeries: list[dict[str, Any]] = [
        {"store_id": "0" * 32},
        {"made_us": anchor.made_us + 1},
        {"heads": {}},
        {"heads": {**anchor.heads, DOMAIN: msgspec.structs.replace(head, position=4)}},
        {"heads": {**anchor.heads, DOMAIN: msgspec.structs.replace(head, checksum=hashlib.sha256().hexdigest())}},
        {"heads": {OTHER: anchor.heads[DOMAIN], DOMAIN: anchor.heads[DOMAIN]}},
        {"signature": resigned(signed, signature="0" * 128).signature},
    ]
    for forgery in forgeries:
        with pytest.raises(SignatureError, match="altered or forged"):
            require_signature(msgspec.structs.replace(signed, **forgery), keys.public)


def test_a_stripped_signature_is_missed(anchor: Anchor, keys: Keys) -> None:
    with pytest.raises(SignatureError, match="not signed"):
        require_signature(anchor, keys.public)


def test_a_forger_with_a_key_of_his_own_is_not_believed_whichever_key_he_writes_down(anchor: Anchor, keys: Keys, tmp_path: Path) -> None:
    forged = sign(anchor, keys_in(tmp_path, "forger").file)
    require_signature(forged, tmp_path / "forger.pub")
    with pytest.raises(SignatureError, match="who gave you this anchor"):
        require_signature(forged, keys.public)
    renamed = resigned(forged, key=keys.private.public_key().public_bytes_raw().hex())
    with pytest.raises(SignatureError, match="altered or forged"):
        require_signature(renamed, keys.public)


def test_a_signature_for_something_else_is_none_for_an_anchor(anchor: Anchor, keys: Keys) -> None:
    line = keys.private.sign(anchor.text().encode()).hex()
    signed = sign(anchor, keys.file)
    with pytest.raises(SignatureError):
        require_signature(resigned(signed, signature=line), keys.public)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_private_key_that_others_may_use_is_refused(anchor: Anchor, keys: Keys, mode: int) -> None:
    keys.file.chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:04o}, expected 0600"):
        sign(anchor, keys.file)


@pytest.mark.parametrize("where", ["data", "data/logs/notes", "backup", "other"])
def test_a_private_key_in_the_folder_of_a_store_or_a_backup_is_refused(tmp_path: Path, keys: Keys, where: str) -> None:
    """Of any store: whoever copies one copies what lies there. Nor does a link help that leads there."""
    with eventstore.open(tmp_path / "data") as store, eventstore.open(tmp_path / "other") as other:
        for each in (store, other):
            each.domain("notes").write_value("k", 1)
        store.backup(tmp_path / "backup")
        anchor = store.anchor()
    inside = tmp_path / where / "k.pem"
    shutil.copy(keys.file, inside)
    (tmp_path / "link.pem").symlink_to(inside)
    for named in (inside, tmp_path / "link.pem"):
        with pytest.raises(ConfigError, match="lies inside the "):
            sign(anchor, named)
    assert sign(anchor, keys.file).signature is not None


def test_a_key_that_is_none_is_refused_by_name(anchor: Anchor, keys: Keys) -> None:
    signed = sign(anchor, keys.file)
    elliptic = ec.generate_private_key(ec.SECP256R1())
    locked = serialization.BestAvailableEncryption(b"secret")
    public = elliptic.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    contents = (b"", keys.public.read_bytes(), elliptic.private_bytes(PEM, RAW, CLEAR), keys.private.private_bytes(PEM, RAW, locked))
    for content in contents:
        keys.file.write_bytes(content)
        with pytest.raises(ConfigError, match=r"keeper\.pem is no Ed25519 private key"):
            sign(anchor, keys.file)
    for content in (b"", keys.private.private_bytes(PEM, RAW, CLEAR), public):
        keys.public.write_bytes(content)
        with pytest.raises(ConfigError, match=r"keeper\.pub is no Ed25519 public key"):
            require_signature(signed, keys.public)
    for use in (sign, require_signature):
        with pytest.raises(eventstore.EngineError, match="nowhere"):
            use(anchor, keys.file.parent / "nowhere.pem")


def test_without_the_extra_the_error_names_it(anchor: Anchor, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    for use, file in ((sign, keys.file), (require_signature, keys.public)):
        with pytest.raises(ConfigError, match=r"eventstore-kit\[crypto\]"):
            use(anchor, file)


def test_nothing_but_a_key_loads_the_package(folder: Path) -> None:
    program = (
        "import sys, eventstore\nfrom eventstore.tools import anchor, bundle, cli, shred, verify\n"
        f"with eventstore.open({str(folder)!r}) as store: assert store.verify(anchor=store.anchor()).ok\n"
        "assert 'cryptography' not in sys.modules"
    )
    assert os.spawnve(os.P_WAIT, sys.executable, [sys.executable, "-c", program], os.environ) == 0
