"""verify: what is wrong with a store is named by domain, position and kind, once; nothing is changed, nothing is raised."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import eventstore
from eventstore import Event, Head, NotFoundError, RedactedError, Store
from eventstore.codec import SALT_BYTES, seal, seal_system
from eventstore.database import INSERT
from eventstore.database import sqlite3 as sqlite3
from eventstore.sqlite import SqliteLog

DOMAIN, OTHER, THIRD = "orders", "quotes", "notes"
LAST = 9
KEYS = ("a", "b", "a", "c", "b", "a", "d", "d", "c")
"""Keys of positions 1 to 9; position 8 removes d."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store of three domains; that in the middle of the alphabet is the one to damage."""
    folder = tmp_path_factory.mktemp("verify") / "store"
    with eventstore.open(folder) as store:
        for name in (DOMAIN, OTHER, THIRD):
            domain = store.domain(name)
            for position, key in enumerate(KEYS, 1):
                if position == 8:
                    domain.remove_value(key)
                else:
                    domain.write_value(key, {"n": position}, when=position, event_id=f"e{position}", actor="bot")
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(template, tmp_path / "store")


def db(folder: Path) -> Path:
    return folder / "logs" / DOMAIN / f"{0:020d}.db"


def edit(folder: Path, *statements: str | tuple[str, tuple[Any, ...]]) -> None:
    """Change the log as one would who knows SQLite and means no good: the guard rails are down while it is done."""
    connection: sqlite3.Connection = sqlite3.connect(db(folder), isolation_level=None)
    try:
        triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            sql, values = (statement, ()) if isinstance(statement, str) else statement
            connection.execute(sql, values)
        for _, sql in triggers:
            connection.execute(sql)
    finally:
        connection.close()


def events_of(folder: Path) -> list[Event]:
    """The stored rows, from the birth row on, unchecked."""
    connection: sqlite3.Connection = sqlite3.connect(db(folder))
    try:
        return [Event(*row) for row in connection.execute("SELECT * FROM event ORDER BY position")]
    finally:
        connection.close()


def verified(folder: Path, domain: str | None = None) -> eventstore.Report:
    with eventstore.open(folder, read_only=True) as store:
        return store.verify(domain)


def found(folder: Path) -> list[tuple[int | None, str]]:
    """Position and kind of each finding. They are all in the domain that was damaged; the others were checked to their ends."""
    report = verified(folder)
    assert [(domain.domain, domain.events) for domain in report.domains if domain.domain != DOMAIN] == [(THIRD, LAST), (OTHER, LAST)]
    assert {finding.domain for finding in report.findings} <= {DOMAIN}
    assert report.ok == (not report.findings)
    with eventstore.open(folder) as store:
        assert store.verify().findings == report.findings, "it does not matter how the store was opened"
        assert store.verify(DOMAIN).findings == report.findings
    return sorted(((finding.position, finding.kind) for finding in report.findings), key=str)


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file, but for what SQLite puts beside a database to read it and what holds no event."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith("-shm") and not (path.name.endswith("-wal") and path.stat().st_size == 0)
    }


# ---- whole stores


def test_a_whole_store_has_nothing_to_find(folder: Path) -> None:
    report = verified(folder)
    assert report.ok
    assert report.findings == []
    assert [(domain.domain, domain.events, domain.redacted, domain.losses) for domain in report.domains] == [
        (THIRD, LAST, 0, 0),
        (DOMAIN, LAST, 0, 0),
        (OTHER, LAST, 0, 0),
    ]
    assert report.domains[1].head == Head(LAST, events_of(folder)[LAST].checksum)


def test_one_domain_can_be_verified_alone(folder: Path) -> None:
    edit(folder, "UPDATE event SET data = '1' WHERE position = 3")
    assert verified(folder, OTHER).ok
    assert [domain.domain for domain in verified(folder, OTHER).domains] == [OTHER]
    assert not verified(folder, DOMAIN).ok


def test_an_unknown_domain_is_not_found(any_store: Store) -> None:
    any_store.domain(DOMAIN)
    with pytest.raises(NotFoundError, match="no domain 'typo'"):
        any_store.verify("typo")
    assert any_store.domains() == [DOMAIN], "asking for a domain does not make it"


def test_an_empty_store_and_an_empty_domain_are_whole(any_store: Store) -> None:
    report = any_store.verify()
    assert (report.ok, report.domains) == (True, [])
    head = any_store.domain(DOMAIN).head()
    report = any_store.verify()
    assert report.ok
    assert [(domain.domain, domain.events, domain.head) for domain in report.domains] == [(DOMAIN, 0, head)]


def test_progress_is_told_and_ends_at_the_head(any_store: Store) -> None:
    told: list[tuple[str, int, int]] = []
    for name, events in ((DOMAIN, 2_500), (OTHER, 3)):
        any_store.domain(name).write_values([(f"key-{n}", n) for n in range(events)])
    any_store.verify(progress=lambda *args: told.append(args))
    assert [args for args in told if args[0] == DOMAIN] == [(DOMAIN, reached, 2_500) for reached in (1_000, 2_000, 2_500)]
    assert told[-1] == (OTHER, 3, 3)


@pytest.mark.parametrize("processes", [1, 2])
def test_what_progress_raises_is_the_callers_and_no_finding(store: Store, processes: int) -> None:
    store.domain(DOMAIN).write_values([(f"key-{n}", n) for n in range(2_500)])

    def stop(*_: object) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        store.verify(progress=stop, processes=processes)
    assert store.verify(processes=processes).ok


def test_an_open_store_is_verified_with_what_was_just_written(any_store: Store) -> None:
    domain = any_store.domain(DOMAIN)
    for n in range(1, 4):
        domain.write_value("key", n)
        report = any_store.verify()
        assert (report.ok, report.domains[0].events, report.domains[0].head) == (True, n, domain.head())


# ---- one edit


EDITS: dict[str, tuple[str, list[tuple[int | None, str]]]] = {
    "value": ("UPDATE event SET data = '{\"n\":4}' WHERE position = 3", [(3, "checksum")]),
    "value, of the last event": (f"UPDATE event SET data = '1' WHERE position = {LAST}", [(LAST, "checksum")]),
    "value, by white space": ("UPDATE event SET data = data || ' ' WHERE position = 3", [(3, "checksum")]),
    "value that is no JSON": ("UPDATE event SET data = '{' WHERE position = 3", [(3, "checksum"), (3, "format")]),
    "when": ("UPDATE event SET when_us = 4 WHERE position = 3", [(3, "checksum")]),
    "when taken away": ("UPDATE event SET when_us = NULL WHERE position = 3", [(3, "checksum")]),
    "key": ("UPDATE event SET key = '[\"e\"]' WHERE position = 7", [(7, "checksum"), (8, "prev")]),
    "key with no event before or after": ("UPDATE event SET key = '[\"e\"]', prev = 0 WHERE position = 9", [(9, "checksum")]),
    "meta": ("UPDATE event SET meta = replace(meta, 'bot', 'cat') WHERE position = 3", [(3, "checksum")]),
    "meta taken away": ("UPDATE event SET meta = NULL WHERE position = 3", [(3, "checksum")]),
    "meta that is no object": ("UPDATE event SET meta = '[]' WHERE position = 3", [(3, "format")]),
    "meta that says nothing": ("UPDATE event SET meta = '{}' WHERE position = 3", [(3, "format")]),
    "checksum": ("UPDATE event SET checksum = zeroblob(32) WHERE position = 3", [(3, "checksum")]),
    "checksum of another event": (
        "UPDATE event SET checksum = (SELECT checksum FROM event WHERE position = 5) WHERE position = 3",
        [(3, "checksum")],
    ),
    "salt": ("UPDATE event SET salt = zeroblob(16) WHERE position = 3", [(3, "checksum")]),
    "salt of another length": ("UPDATE event SET salt = zeroblob(15) WHERE position = 3", [(3, "format")]),
    "salt taken away": ("UPDATE event SET salt = NULL WHERE position = 3", [(3, "format")]),
    "prev": ("UPDATE event SET prev = 2 WHERE position = 3", [(3, "checksum"), (3, "prev")]),
    "recorded": ("UPDATE event SET recorded_us = recorded_us + 1 WHERE position = 9", [(9, "checksum")]),
    "recorded before the one before": ("UPDATE event SET recorded_us = 5 WHERE position = 3", [(3, "checksum"), (3, "time")]),
    "op": ("UPDATE event SET op = 'remove' WHERE position = 9", [(9, "checksum"), (9, "format")]),
    "op unknown": ("UPDATE event SET op = 'delete' WHERE position = 3", [(3, "format"), (3, "format")]),
    "op of the log itself": ("UPDATE event SET op = 'redact' WHERE position = 3", [(3, "checksum"), (3, "format")]),
    "data erased": ("UPDATE event SET data = NULL, salt = NULL WHERE position = 3", [(3, "checksum"), (3, "format")]),
    "a removal given data": (
        "UPDATE event SET data = '1', salt = zeroblob(16) WHERE position = 8",
        [(8, "checksum"), (8, "format")],
    ),
    "a digest beside data": ("UPDATE event SET digest = zeroblob(32) WHERE position = 3", [(3, "format")]),
    "a digest of another length": (
        "UPDATE event SET digest = zeroblob(31), data = NULL, salt = NULL WHERE position = 3",
        [(3, "format"), (3, "format")],
    ),
    "text made a blob": ("UPDATE event SET data = CAST(data AS BLOB) WHERE position = 3", [(3, "format")]),
}


@pytest.mark.parametrize(("statement", "expected"), EDITS.values(), ids=EDITS)
def test_one_edit_is_named_by_its_position_and_is_no_cascade(folder: Path, statement: str, expected: list[tuple[int | None, str]]) -> None:
    edit(folder, statement)
    assert found(folder) == expected


def test_an_edited_last_checksum_contradicts_the_witness_too(folder: Path) -> None:
    edit(folder, f"UPDATE event SET checksum = zeroblob(32) WHERE position = {LAST}")
    assert [(f.position, f.kind) for f in verified(folder).findings] == [(None, "tail"), (LAST, "checksum")]


def test_several_edits_are_several_findings(folder: Path) -> None:
    edit(folder, "UPDATE event SET data = '0' WHERE position IN (2, 3, 7)")
    assert found(folder) == [(2, "checksum"), (3, "checksum"), (7, "checksum")]


@pytest.mark.parametrize("position", range(1, LAST + 1))
def test_an_edit_anywhere_is_one_finding_there(folder: Path, position: int) -> None:
    edit(folder, f"UPDATE event SET when_us = 99 WHERE position = {position}")
    assert found(folder) == [(position, "checksum")]


def test_one_edit_far_into_a_long_log_is_one_finding(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "store") as store:
        store.domain(DOMAIN).write_values([(f"key-{n}", n) for n in range(3_000)])
    edit(tmp_path / "store", "UPDATE event SET data = '0' WHERE position IN (1000, 1001, 2500)")
    report = verified(tmp_path / "store")
    assert [(f.domain, f.position, f.kind) for f in report.findings] == [(DOMAIN, n, "checksum") for n in (1_000, 1_001, 2_500)]
    assert report.domains[0].events == 3_000


# ---- rows moved, gone, added, made anew


def test_a_row_deleted_in_the_middle_is_a_gap_after_it(folder: Path) -> None:
    edit(folder, "DELETE FROM event WHERE position = 4")
    # The event after it does not follow what is left; the key's next event names the one that is gone.
    assert found(folder) == [(5, "checksum"), (5, "gap"), (9, "prev")]


def test_a_deleted_last_row_is_a_lost_tail(folder: Path) -> None:
    edit(folder, f"DELETE FROM event WHERE position = {LAST}")
    report = verified(folder)
    assert [(f.position, f.kind) for f in report.findings] == [(None, "tail")]
    assert f"positions {LAST} to {LAST} are missing" in report.findings[0].message
    assert report.domains[1].events == LAST - 1


def test_a_swapped_pair_is_named_at_its_place(folder: Path) -> None:
    """Each keeps all of its content but its position."""
    edit(
        folder,
        "UPDATE event SET position = -1 WHERE position = 3",
        "UPDATE event SET position = 3 WHERE position = 4",
        "UPDATE event SET position = 4 WHERE position = -1",
    )
    assert found(folder) == [(3, "checksum"), (4, "checksum"), (4, "time"), (5, "checksum"), (6, "prev"), (9, "prev")]


def test_a_forged_row_at_the_end_is_named(folder: Path) -> None:
    event = events_of(folder)[LAST]
    forged = msgspec.structs.replace(event, position=LAST + 1, prev=LAST, recorded_us=event.recorded_us + 1, data='{"n":10}')
    edit(folder, (INSERT, msgspec.structs.astuple(forged)))
    assert found(folder) == [(LAST + 1, "checksum")]


def test_a_tail_sealed_anew_agrees_with_itself_but_not_with_the_witness(folder: Path) -> None:
    """Whoever recomputes every checksum leaves no broken link; that is what the witness outside the file is for."""
    rows = events_of(folder)
    head = Head(3, rows[3].checksum)
    for event in rows[4:]:
        data = '{"n":1000}' if event.position == 4 else event.data
        forged = seal(
            head,
            prev=event.prev,
            recorded_us=event.recorded_us,
            when_us=event.when_us,
            op=event.op,
            key=event.key,
            meta=event.meta,
            data=data,
            salt=event.salt,
        )
        head = Head(forged.position, forged.checksum)
        edit(folder, ("UPDATE event SET data = ?, checksum = ? WHERE position = ?", (data, forged.checksum, forged.position)))
    report = verified(folder)
    assert [(f.domain, f.position, f.kind) for f in report.findings] == [(DOMAIN, None, "tail")]
    assert f"position {LAST} is not the event that the witness knows as durable" in report.findings[0].message
    # Without the witness, store.json knows.
    (folder / "logs" / DOMAIN / "head").write_bytes(b"")
    report = verified(folder)
    assert [(f.position, f.kind) for f in report.findings] == [(None, "tail")]
    assert "store.json knows" in report.findings[0].message


def test_a_digest_without_a_redaction_is_named(folder: Path) -> None:
    """The checksum holds, as it must after every erasure; but no event says that there was one."""
    event = events_of(folder)[3]
    assert event.salt is not None
    assert isinstance(event.data, str)
    digest = hashlib.sha256(event.salt + event.data.encode()).digest()
    edit(folder, ("UPDATE event SET data = NULL, salt = NULL, digest = ? WHERE position = 3", (digest,)))
    assert found(folder) == [(3, "format")]
    report = verified(folder, DOMAIN)
    assert "no later redact event names this position" in report.findings[0].message
    assert report.domains[0].redacted == 1


def test_an_edited_birth_row_is_named(folder: Path) -> None:
    edit(folder, "UPDATE event SET data = replace(data, 'replace', 'first') WHERE position = 0")
    assert [(f.domain, f.position, f.kind) for f in verified(folder).findings] == [(DOMAIN, 0, "checksum")]


# ---- domains that refuse to open


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_another_program(path: Path) -> None:
    path.unlink()
    connection: sqlite3.Connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE event(id INTEGER)")
    connection.commit()
    connection.close()


def of_another_domain(path: Path) -> None:
    shutil.copy2(path.parents[1] / OTHER / path.name, path)


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


REFUSING: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "cut in half": (cut_in_half, {"format", "structure", "unreadable"}),
    "cut in its header": (lambda path: path.write_bytes(path.read_bytes()[:50]), {"unreadable"}),
    "empty": (lambda path: path.write_bytes(b""), {"format"}),
    "garbage": (lambda path: path.write_bytes(secrets.token_bytes(20_000)), {"unreadable"}),
    "garbage after its header": (lambda path: path.write_bytes(path.read_bytes()[:100] + b"\xa5" * 20_000), {"unreadable"}),
    "gone": (Path.unlink, {"format"}),
    "of another program": (of_another_program, {"unreadable"}),
    "of another domain": (of_another_domain, {"birth", "format", "tail"}),
    "a folder": (become_a_folder, {"unreadable"}),
    "a text": (lambda path: path.write_text("SQLite format 3, they said"), {"unreadable"}),
}


@pytest.mark.parametrize(("damage", "kinds"), REFUSING.values(), ids=REFUSING)
def test_a_domain_that_refuses_to_open_is_a_finding_and_the_others_are_verified(
    folder: Path, damage: Callable[[Path], object], kinds: set[str]
) -> None:
    damage(db(folder))
    with eventstore.open(folder) as store, pytest.raises(eventstore.EventStoreError):
        store.domain(DOMAIN)
    before = contents(folder)
    assert {kind for _, kind in found(folder)} <= kinds
    assert not verified(folder).ok
    assert contents(folder) == before


# ---- nothing is changed


@pytest.mark.parametrize("name", ["nothing", "an edit", "a lost tail", "garbage", "a wrong pointer file"])
def test_verify_changes_no_byte(folder: Path, name: str) -> None:
    if name == "an edit":
        edit(folder, "UPDATE event SET data = '1' WHERE position = 3")
    elif name == "a lost tail":
        edit(folder, f"DELETE FROM event WHERE position = {LAST}")
    elif name == "garbage":
        db(folder).write_bytes(b"garbage" * 4_000)
    elif name == "a wrong pointer file":
        pointers = folder / "logs" / DOMAIN / "pointers"
        pointers.mkdir()
        (pointers / f"{5:020d}.keys").write_bytes(b"garbage")
    before = contents(folder)
    for read_only in (True, False):
        with eventstore.open(folder, read_only=read_only) as store:
            assert store.verify().ok == (name in ("nothing", "a wrong pointer file"))
        assert contents(folder) == before


# ---- redaction


def redact(folder: Path, *positions: int, named: list[int] | None = None) -> Event:
    """Erase values in the transaction of the event that says so."""
    with eventstore.open(folder, read_only=True) as store:
        store_id = store.store_id
    log = SqliteLog(folder, DOMAIN, store_id=store_id)
    try:
        with log.writing() as head:
            event = seal_system(
                head,
                prev=0,
                recorded_us=log.get([head.position])[0].recorded_us + 1,
                op="redact",
                data={"positions": list(positions) if named is None else named, "reason": "asked"},
                salt=secrets.token_bytes(SALT_BYTES),
            )
            log.append([event], after=head, erase=positions)
    finally:
        log.close()
    return event


def test_a_redacted_event_is_counted_verifies_and_reads_as_redacted(folder: Path) -> None:
    heads = [event.checksum for event in events_of(folder)]
    redact(folder, 3, 6)
    report = verified(folder)
    assert report.ok, report.findings
    assert [domain.redacted for domain in report.domains] == [0, 2, 0]
    assert report.domains[1].events == LAST + 1
    assert [event.checksum for event in events_of(folder)[: LAST + 1]] == heads, "an erasure changes no checksum"
    with eventstore.open(folder) as store:
        domain = store.domain(DOMAIN)
        with pytest.raises(RedactedError) as caught:
            domain.read_value("a")
        assert (caught.value.domain, caught.value.position) == (DOMAIN, 6)
        state = domain.state_of("a")
        assert state is not None
        assert (state.position, state.status) == (6, "redacted")
        assert "a" in domain
        assert [event.data for event in domain.history("a")] == [None, None, '{"n":1}']
        assert domain.read_value("b") == {"n": 5}
        with pytest.raises(RedactedError):
            domain.restore_value("a", 3)
        domain.write_value("a", "new")
        assert domain.read_value("a") == "new"
    assert verified(folder).ok
    assert b'{"n":6}' not in db(folder).read_bytes()


def test_a_redaction_that_names_other_positions_explains_nothing(folder: Path) -> None:
    redact(folder, 3, named=[4])
    findings = [(f.domain, f.position, f.kind) for f in verified(folder).findings]
    assert findings == [(DOMAIN, 3, "format"), (DOMAIN, 4, "redacted")], "and what it names is there all the same"


@pytest.mark.parametrize("position", [0, LAST + 1, LAST + 5])
def test_a_redaction_of_what_cannot_be_redacted_is_named(folder: Path, position: int) -> None:
    redact(folder, named=[position])
    assert [(f.position, f.kind) for f in verified(folder).findings] == [(LAST + 1, "format")]


def test_an_edited_digest_is_named_by_its_checksum(folder: Path) -> None:
    redact(folder, 3)
    edit(folder, "UPDATE event SET digest = zeroblob(32) WHERE position = 3")
    assert found(folder) == [(3, "checksum")]


def test_a_finding_can_be_told_as_json(folder: Path) -> None:
    edit(folder, "UPDATE event SET data = '1' WHERE position = 3")
    told = json.loads(msgspec.json.encode(verified(folder, DOMAIN)))
    (finding,) = told["domains"][0]["findings"]
    assert (finding["domain"], finding["position"], finding["kind"]) == (DOMAIN, 3, "checksum")
