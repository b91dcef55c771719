"""What is not ours to open is refused, with a sentence that helps, and without touching a byte, a time, or the folder around it."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import eventstore
from eventstore import AccessError, FormatError, NewerFormatError, NotAStoreError, StoreFormatError, database, manifest
from eventstore.salvage import salvage
from tests.faults.ledger import DOMAIN
from tests.faults.stores import DB, HEAD, MANIFEST, Damaged, events_of, leave
from tests.faults.workers import ROOT, Server


@pytest.fixture(scope="module")
def template(clean_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    """A closed store: nothing is in a WAL."""
    return leave(clean_server, tmp_path_factory.mktemp("foreign") / "store", settled=5, loose=0)


@pytest.fixture
def closed(template: Damaged, tmp_path: Path) -> Damaged:
    """A copy of it."""
    return template.copy(tmp_path / "store")


def tree(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Everything in a folder, links and folders too: what it is, what it holds, when it was changed."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        held = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_mtime_ns, held)
    return found


def edit(path: Path, *statements: str) -> None:
    """Change a database as another program would, in another process: two SQLite libraries in one drop each other's locks."""
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); [c.execute(s) for s in sys.argv[2:]]; c.close()"
    subprocess.run([sys.executable, "-c", code, str(path), *statements], check=True, timeout=60)


# In place of the log file


def random_bytes(db: Path) -> None:
    db.write_bytes(random.Random(1).randbytes(20_000))


def a_text(db: Path) -> None:
    db.write_text("Dear diary, today nothing was appended.\n" * 300)


def one_byte(db: Path) -> None:
    db.write_bytes(b"S")


def a_destroyed_header(db: Path) -> None:
    db.write_bytes(bytes(100) + db.read_bytes()[100:])


def a_destroyed_application_id(db: Path) -> None:
    content = db.read_bytes()
    db.write_bytes(content[:68] + bytes(4) + content[72:])


def another_programs_database(db: Path) -> None:
    db.unlink()
    edit(db, "PRAGMA application_id=1196444487", "CREATE TABLE event(id INTEGER PRIMARY KEY)", "INSERT INTO event VALUES (1)")


def another_programs_database_in_wal_mode(db: Path) -> None:
    another_programs_database(db)
    edit(db, "PRAGMA journal_mode=WAL")


def a_database_with_nothing_in_it(db: Path) -> None:
    db.unlink()
    edit(db, "PRAGMA user_version=0", "CREATE TABLE t(a)", "DROP TABLE t")


def a_folder(db: Path) -> None:
    db.unlink()
    db.mkdir()


def a_folder_with_files(db: Path) -> None:
    a_folder(db)
    (db / "notes.txt").write_text("x")


def a_newer_log(db: Path) -> None:
    edit(db, "PRAGMA user_version=99")


def an_older_draft(db: Path) -> None:
    edit(db, "PRAGMA user_version=0")


def a_log_without_its_table(db: Path) -> None:
    edit(db, "DROP TABLE event")


def a_log_with_another_table(db: Path) -> None:
    edit(db, "ALTER TABLE event ADD COLUMN mood TEXT")


def a_log_with_a_table_renamed(db: Path) -> None:
    edit(db, "ALTER TABLE event RENAME TO events")


FOREIGN = [
    (random_bytes, NotAStoreError),
    (a_text, NotAStoreError),
    (one_byte, NotAStoreError),
    (a_destroyed_header, NotAStoreError),
    (a_destroyed_application_id, NotAStoreError),
    (another_programs_database, NotAStoreError),
    (another_programs_database_in_wal_mode, NotAStoreError),
    (a_database_with_nothing_in_it, NotAStoreError),
    (a_folder, NotAStoreError),
    (a_folder_with_files, NotAStoreError),
    (a_newer_log, NewerFormatError),
    (an_older_draft, StoreFormatError),
    (a_log_without_its_table, StoreFormatError),
    (a_log_with_another_table, StoreFormatError),
    (a_log_with_a_table_renamed, StoreFormatError),
]


@pytest.mark.parametrize("read_only", [False, True], ids=["to write", "to read"])
@pytest.mark.parametrize(("put", "error"), FOREIGN)
def test_a_log_file_that_is_none_of_ours_is_refused_untouched(
    closed: Damaged, put: Callable[[Path], None], error: type[Exception], read_only: bool
) -> None:
    put(closed.db)
    before = tree(closed.folder)
    with eventstore.open(closed.folder, read_only=read_only) as store, pytest.raises(error, match=closed.db.name):
        store.domain(DOMAIN)
    assert tree(closed.folder) == before


def test_a_store_that_another_process_is_making_is_no_foreign_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was half made when the folder was listed, and has its first domain when that is judged."""
    folder, half_made = tmp_path / "store", manifest._ours_half_made
    (folder / "logs").mkdir(parents=True)
    code = "import eventstore, sys; eventstore.open(sys.argv[1]).domain('d').write_value('k', 1)"

    def late(entry: Path) -> bool:
        if not (folder / MANIFEST).exists():
            subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, check=True, timeout=60)
        return half_made(entry)

    monkeypatch.setattr(manifest, "_ours_half_made", late)
    with eventstore.open(folder) as store:
        assert store.domain("d").read_value("k") == 1


@pytest.mark.parametrize("put", [a_destroyed_header, a_destroyed_application_id])
def test_a_log_whose_header_is_destroyed_names_the_way_out_and_it_is_one(
    closed: Damaged, put: Callable[[Path], None], tmp_path: Path
) -> None:
    put(closed.db)
    with eventstore.open(closed.folder) as store, pytest.raises(NotAStoreError, match="eventstore salvage STORE OUT"):
        store.domain(DOMAIN)
    assert salvage(closed.folder, tmp_path / "out").same
    assert events_of(tmp_path / "out") == closed.events


@pytest.mark.parametrize("put", [put for put, _ in FOREIGN])
def test_verify_names_a_log_file_that_is_none_of_ours(closed: Damaged, put: Callable[[Path], None]) -> None:
    put(closed.db)
    before = tree(closed.folder)
    with eventstore.open(closed.folder) as store:
        report = store.verify()
    assert not report.ok
    assert tree(closed.folder) == before


@pytest.mark.parametrize(("put", "error"), FOREIGN)
def test_a_loss_that_is_accepted_is_never_somebody_elses_file(closed: Damaged, put: Callable[[Path], None], error: type[Exception]) -> None:
    put(closed.db)
    before = tree(closed.folder)
    with eventstore.open(closed.folder, accept_loss=True) as store, pytest.raises(error):
        store.domain(DOMAIN)
    assert tree(closed.folder) == before


@pytest.mark.parametrize("read_only", [False, True], ids=["to write", "to read"])
def test_an_empty_log_file_is_damage_not_a_new_log(closed: Damaged, read_only: bool) -> None:
    closed.db.write_bytes(b"")
    before = tree(closed.folder)
    with eventstore.open(closed.folder, read_only=read_only) as store, pytest.raises(FormatError, match="its content was lost"):
        store.domain(DOMAIN)
    with eventstore.open(closed.folder, accept_loss=True) as store, pytest.raises(FormatError, match="its content was lost"):
        store.domain(DOMAIN)
    assert tree(closed.folder) == before


def test_a_log_whose_rows_are_gone_is_damage_not_a_new_log(closed: Damaged) -> None:
    edit(closed.db, "DROP TRIGGER event_delete", "DELETE FROM event")
    with eventstore.open(closed.folder) as store, pytest.raises(FormatError):
        store.domain(DOMAIN)
    with eventstore.open(closed.folder, accept_loss=True) as store, pytest.raises(FormatError):
        store.domain(DOMAIN)


def test_rows_edited_by_another_program_are_named_by_verify(closed: Damaged) -> None:
    edit(closed.db, "DROP TRIGGER event_update", """UPDATE event SET data = '{"number":3000}' WHERE position = 3""")
    with eventstore.open(closed.folder, read_only=True) as store:
        report = store.verify()
    assert [(finding.position, finding.kind) for finding in report.findings] == [(3, "checksum")]
    with eventstore.open(closed.folder) as store, pytest.raises(eventstore.ChecksumError, match=f"{DOMAIN}@3"):
        store.domain(DOMAIN)


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("INSERT OR REPLACE INTO event SELECT position, prev, recorded_us, when_us, op, checksum, key, meta, salt, digest, '1' FROM event"
         " WHERE position = 2", "appended"),
        ("UPDATE event SET data = '1' WHERE position = 2", "do not change"),
        ("DELETE FROM event WHERE position = 5", "not deleted"),
    ],
)  # fmt: skip
def test_another_program_stumbles_over_the_guard_rails(closed: Damaged, statement: str, complaint: str) -> None:
    with closing(sqlite3.connect(closed.db)) as connection, pytest.raises(sqlite3.IntegrityError, match=complaint):
        connection.execute(statement)
    assert events_of(closed.folder) == closed.events


def test_a_guard_rail_whose_text_is_damaged_refuses_in_our_words_and_writes_nothing(closed: Damaged) -> None:
    """SQLite quotes the bytes of its schema, and they are no UTF-8: the binding fails over its own error message."""
    at = closed.db.read_bytes().index(b"WHEN NEW.position IS NOT (SELECT") + len(b"WHEN NEW.po")
    closed.flip(closed.db, at, 0x80)
    with eventstore.open(closed.folder) as store, pytest.raises(FormatError, match="nothing was written"):
        store.domain(DOMAIN).write_value("key", 1)
    closed.flip(closed.db, at, 0x80)
    assert events_of(closed.folder) == closed.events
    with eventstore.open(closed.folder) as store:
        assert store.domain(DOMAIN).write_value("key", 1).position == 6
        assert store.verify().ok


# In place of store.json


def manifest_with(folder: Path, **changes: Any) -> None:
    """Change members of store.json; None removes one."""
    path = folder / MANIFEST
    content = {**json.loads(path.read_bytes()), **changes}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


@pytest.mark.parametrize("read_only", [False, True], ids=["to write", "to read"])
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"format": 2}, NewerFormatError),
        ({"format": 99, "heads": None, "planets": ["earth"]}, NewerFormatError),
        ({"format": 0}, StoreFormatError),
        ({"format": "1"}, NotAStoreError),
        ({"format": None}, NotAStoreError),
        ({"heads": None}, FormatError),
        ({"heads": {DOMAIN: {"position": 5}}}, FormatError),
        ({"heads": {DOMAIN: {"position": 5, "checksum": "no hexadecimal number"}}}, FormatError),
        ({"heads": {DOMAIN: {"position": 5, "checksum": "00"}}}, FormatError),
    ],
)
def test_a_store_of_another_format_or_a_damaged_one_is_refused_untouched(
    closed: Damaged, changes: dict[str, Any], error: type[Exception], read_only: bool
) -> None:
    manifest_with(closed.folder, **changes)
    before = tree(closed.folder)
    with pytest.raises(error, match=r"store\.json"):
        eventstore.open(closed.folder, read_only=read_only)
    assert tree(closed.folder) == before


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b'{"format":', b'{"format":1,"store_id":"\xff"}', b'{"name":"an app"}'])
def test_a_manifest_that_is_none_is_refused_untouched(closed: Damaged, content: bytes) -> None:
    closed.manifest.write_bytes(content)
    before = tree(closed.folder)
    with pytest.raises(NotAStoreError, match=r"store\.json"):
        eventstore.open(closed.folder)
    assert tree(closed.folder) == before


def test_a_missing_manifest_is_missed_not_made_anew(closed: Damaged) -> None:
    closed.manifest.unlink()
    before = tree(closed.folder)
    with pytest.raises(NotAStoreError, match="do not start over"):
        eventstore.open(closed.folder)
    with pytest.raises(NotAStoreError, match="do not start over"):
        eventstore.open(closed.folder, read_only=True)
    assert {name: tree(closed.folder).get(name) for name in before} == before


def test_a_folder_of_other_things_is_no_store_and_becomes_none(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"\xff\xd8")
    before = tree(tmp_path)
    with pytest.raises(NotAStoreError, match="not empty"):
        eventstore.open(tmp_path)
    with pytest.raises(NotAStoreError):
        eventstore.open(tmp_path, read_only=True)
    with pytest.raises(NotAStoreError):
        eventstore.open(tmp_path, create=False)
    assert tree(tmp_path) == before


def test_a_file_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("x")
    for read_only, create in ((False, True), (True, True), (False, False)):
        with pytest.raises(NotAStoreError, match="a store is a folder"):
            eventstore.open(path, read_only=read_only, create=create)
    assert path.read_text() == "x"


def test_what_is_not_there_is_not_made_unless_asked_for(tmp_path: Path) -> None:
    for read_only, create in ((True, True), (False, False)):
        with pytest.raises(NotAStoreError, match="no store here"):
            eventstore.open(tmp_path / "nowhere", read_only=read_only, create=create)
    assert list(tmp_path.iterdir()) == []


# Readers that are not ours


def test_a_strangers_read_only_connection_sees_every_event_and_harms_nothing(tmp_path: Path) -> None:
    """Beside a writer and its checkpoints, which an open read transaction may only delay; without the WAL it would miss the newest."""
    look = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], uri=True); print(c.execute('SELECT max(position) FROM event').fetchone()[0])"
    )
    held = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], uri=True, isolation_level=None); c.execute('BEGIN');"
        "print(c.execute('SELECT max(position) FROM event').fetchone()[0], flush=True); sys.stdin.read();"
        "print(c.execute('SELECT max(position) FROM event').fetchone()[0])"
    )

    def seen(mode: str) -> int:
        return int(
            subprocess.run([sys.executable, "-c", look, f"{db.as_uri()}?{mode}"], capture_output=True, check=True, timeout=60).stdout
        )

    db = tmp_path / "store" / DB
    with eventstore.open(tmp_path / "store") as store:
        domain = store.domain(DOMAIN)
        domain.write_value("settled", 0)
    with eventstore.open(tmp_path / "store") as store:
        domain = store.domain(DOMAIN)
        domain.write_value("loose", 1)
        assert (seen("mode=ro"), seen("immutable=1")) == (2, 1)
        command = [sys.executable, "-c", held, f"{db.as_uri()}?mode=ro"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "2\n"
            for number in range(40):  # some megabytes: the WAL is full again and again
                domain.write_values([(f"large-{number}-{part}", "x" * 9_000) for part in range(30)], durability="process")
            assert seen("mode=ro") == 1_202
            assert reader.communicate(timeout=60)[0] == "2\n"
        assert reader.returncode == 0
        assert domain.write_value("after", 1).position == 1_203
    with eventstore.open(tmp_path / "store") as store:
        assert store.verify().ok
        assert seen("mode=ro") == 1_203
    assert not db.with_name(f"{db.name}-wal").exists() or db.with_name(f"{db.name}-wal").stat().st_size == 0


# Links


@pytest.mark.parametrize("connect", [database.connect_reader, database.connect_writer])
def test_a_schema_that_somebody_edited_is_not_trusted_and_loads_nothing(closed: Damaged, connect: Callable[..., Any]) -> None:
    """Functions with effects are refused to triggers and views, pages that lie of their cells are an error, no library is loaded."""
    with closing(connect(closed.db, busy_timeout_ms=0)) as connection:
        asked = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("trusted_schema", "cell_size_check")]
        assert asked == [0, 1]
        with pytest.raises(database.sqlite3.OperationalError, match=r"not authorized|no such function"):
            connection.execute("SELECT load_extension('libm.so.6')")


def test_no_line_of_the_log_of_the_process_holds_a_value(closed: Damaged, caplog: pytest.LogCaptureFixture) -> None:
    """Damage is told by domain, position and path; what the events hold may be anybody's secret."""
    caplog.set_level("DEBUG")
    with eventstore.open(closed.folder) as store:
        store.domain(DOMAIN).write_values([(f"key-{number}", "told in confidence") for number in range(300)])
    assert list(closed.folder.glob("logs/*/pointers/*"))
    for path in closed.folder.glob("logs/*/pointers/*"):
        closed.flip(path, path.stat().st_size // 2)
    content = bytearray(closed.db.read_bytes())
    content[content.index(b"told in confidence")] ^= 1
    closed.db.write_bytes(content)
    with eventstore.open(closed.folder, read_only=True) as store:
        assert not store.verify().ok
    assert len(caplog.records) >= 2, "nothing was logged: this proves nothing"
    assert "confidence" not in caplog.text


@pytest.mark.parametrize("file", [DB, HEAD], ids=["database", "head"])
def test_a_file_with_two_names_is_refused(closed: Damaged, tmp_path: Path, file: Path) -> None:
    """Two processes by two names would write one file under two locks."""
    other = tmp_path / "second name"
    os.link(closed.folder / file, other)
    before = tree(closed.folder)
    with eventstore.open(closed.folder) as store, pytest.raises(AccessError, match="2 hard links"):
        store.domain(DOMAIN)
    assert tree(closed.folder) == before
    other.unlink()
    with eventstore.open(closed.folder) as store:
        assert store.domain(DOMAIN).write_value("key", 1).position == 6


def test_a_link_to_a_store_is_the_same_store(closed: Damaged, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(closed.folder)
    with eventstore.open(closed.folder) as one, eventstore.open(link) as other:
        assert one.store_id == other.store_id
        assert one.domain(DOMAIN).write_value("key", 1).position == 6
        assert other.domain(DOMAIN).write_value("key", 2).position == 7
        assert one.domain(DOMAIN).read_value("key") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "store"]


@pytest.mark.parametrize("file", [DB, HEAD], ids=["database", "head"])
def test_a_link_inside_a_store_is_not_followed(closed: Damaged, tmp_path: Path, file: Path) -> None:
    """Whoever can put one there could lead the next write, and its lock, anywhere."""
    path, elsewhere = closed.folder / file, tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    before = tree(tmp_path)
    with eventstore.open(closed.folder) as store, pytest.raises(AccessError):
        store.domain(DOMAIN)
    assert tree(tmp_path) == before


def test_two_stores_in_one_process_share_a_folder_and_its_locks(tmp_path: Path) -> None:
    """By two relative spellings of its path."""
    code = (
        "import eventstore, os, sys\n"
        "os.chdir(sys.argv[1])\n"
        "with eventstore.open('store') as one, eventstore.open('./x/../store') as other:\n"
        "    for n in range(20):\n"
        "        (one if n % 2 else other).domain('d').write_value('k', n)\n"
        "    assert one.domain('d').read_value('k') == 19 and one.verify().ok\n"
    )
    (tmp_path / "x").mkdir()
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)})
