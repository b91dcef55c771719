"""Backup and restore: all that was acknowledged before, nothing that is not whole, and never over anything else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eventstore
from eventstore import (
    AccessError,
    BackupError,
    ConfigError,
    CorruptionError,
    EventStoreError,
    FormatError,
    NewerFormatError,
    NotAStoreError,
    Store,
    UnavailableError,
    backup,
    copies,
)
from eventstore.files import lock
from eventstore.restore import restore
from eventstore.salvage import salvage
from tests import verifier
from tests.raw_log import erase

DB = Path("logs", "notes", f"{0:020d}.db")


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The times of files tell every change, also in a test that lasts less than two seconds."""
    monkeypatch.setattr(backup, "_SETTLED_NS", -1)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the backup goes."""
    return tmp_path / "backup"


def fill(store: Store, *domains: str, count: int = 5) -> None:
    """Some events in each of these domains."""
    for name in domains:
        domain = store.domain(name)
        for number in range(count):
            domain.write_value(f"key-{number % 3}", {"number": number})
        domain.remove_value("key-0")


def everything(location: str | Path) -> dict[str, list[Any]]:
    """Every event of every domain, read as whoever only looks."""
    with eventstore.open(location, read_only=True) as store:
        assert store.verify().ok
        return {name: [store.domain(name).event(0), *store.domain(name).events()] for name in store.domains()}


def current(target: Path) -> Path:
    """The copy that counts."""
    return target / copies.load(target).copy


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file and what it holds, but for what SQLite puts beside a database to read it."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if not path.name.endswith(("-shm", "-wal"))
    }


def rot(path: Path) -> None:
    """Invert a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# ---- there and back


def test_a_restored_store_is_the_store_event_by_event(store: Store, target: Path, tmp_path: Path) -> None:
    fill(store, "notes", "orders")
    report = store.backup(target)
    restored = restore(target, tmp_path / "again")
    assert {path.name for path in (tmp_path / "again").rglob("*") if path.is_file()} == {"store.json", "head", DB.name}
    log = tmp_path / "again" / DB.parent
    assert verifier.verify(log / DB.name, log / "head", domain="notes").findings == []
    assert restored.domains == report.domains
    assert (restored.store_id, restored.made_us) == (store.store_id, report.made_us)
    assert everything(tmp_path / "again") == everything(target) == everything(tmp_path / "data")
    with eventstore.open(tmp_path / "again") as again:
        assert again.store_id == store.store_id
        assert again.created_us == store.created_us
        assert again.domain("notes").write_value("key-0", "on").position == 7
        assert again.verify(anchor=store.anchor()).ok


def test_what_is_written_after_a_backup_is_in_the_next_one(store: Store, target: Path) -> None:
    fill(store, "notes")
    store.backup(target)
    kept = everything(target)
    fill(store, "notes", "later")
    assert everything(target) == kept
    report = store.backup(target)
    assert [(each.domain, each.position) for each in report.domains] == [("later", 6), ("notes", 12)]
    assert sorted(path.name for path in target.iterdir()) == ["backup.json", "backup.lock", "copy-000002"]


def test_what_is_not_synced_yet_and_in_the_wal_alone_is_in(store: Store, target: Path) -> None:
    store.domain("notes").write_value("loose", 1, durability="process")
    assert store.backup(target).domains[0].position == 1


def test_a_store_without_domains_can_be_backed_up(store: Store, target: Path, tmp_path: Path) -> None:
    assert store.backup(target).domains == []
    assert restore(target, tmp_path / "again").domains == []
    assert everything(tmp_path / "again") == {}


def test_pointer_files_and_quarantine_are_no_part_of_a_backup(store: Store, target: Path) -> None:
    fill(store, "notes")
    for folder in (Path(store.location, "quarantine", "notes-1-abc"), Path(store.location, "logs", "notes", "pointers")):
        folder.mkdir(parents=True)
        (folder / "something").write_text("x")
    store.backup(target)
    assert sorted(str(path.relative_to(current(target))) for path in current(target).rglob("*") if path.is_file()) == [
        str(DB), "logs/notes/head", "store.json",
    ]  # fmt: skip


def test_a_backup_can_be_backed_up_and_an_empty_folder_is_as_good_as_none(store: Store, target: Path, tmp_path: Path) -> None:
    fill(store, "notes")
    target.mkdir()
    store.backup(target)
    with eventstore.open(target, read_only=True) as kept:
        kept.backup(tmp_path / "second")
    (tmp_path / "again").mkdir()
    restore(tmp_path / "second", tmp_path / "again")
    assert everything(tmp_path / "again") == everything(target)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_nobody_else_may_read_a_backup(store: Store, target: Path, tmp_path: Path, umask: int) -> None:
    fill(store, "notes")
    before = os.umask(umask)
    try:
        store.backup(target)
        restore(target, tmp_path / "again")
    finally:
        os.umask(before)
    for top in (target, tmp_path / "again"):
        for path in (top, *top.rglob("*")):
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


# ---- incremental by file


@pytest.mark.usefixtures("settled")
def test_a_file_that_did_not_change_is_not_copied_again(store: Store, target: Path) -> None:
    fill(store, "notes", "idle")
    store.close()
    with eventstore.open(store.location) as store:
        first = store.backup(target)
        inode = (current(target) / "logs" / "idle" / DB.name).stat().st_ino
        store.domain("notes").write_value("more", 1)
        second = store.backup(target)
    assert (first.copied, first.kept) == (2, 0)
    assert (second.copied, second.kept) == (1, 1)
    assert second.kept_bytes + second.copied_bytes == first.copied_bytes
    kept = current(target) / "logs" / "idle" / DB.name
    assert kept.stat().st_ino == inode
    assert kept.stat().st_nlink == 1
    assert len(everything(target)["notes"]) == 8


def test_a_file_that_changed_just_now_is_copied_whatever_its_times_say(store: Store, target: Path) -> None:
    """Two changes within one tick of the clock leave the same times."""
    fill(store, "notes")
    store.close()
    with eventstore.open(store.location, read_only=True) as store:
        store.backup(target)
        assert store.backup(target).kept == 0


@pytest.mark.usefixtures("settled")
def test_a_file_that_rotted_in_the_backup_is_copied_again_and_named(store: Store, target: Path, tmp_path: Path) -> None:
    fill(store, "notes", "idle")
    store.close()
    with eventstore.open(store.location, read_only=True) as store:
        store.backup(target)
        rot(current(target) / "logs" / "idle" / DB.name)
        report = store.backup(target)
    assert report.mended == [f"logs/idle/{DB.name}"]
    assert (report.copied, report.kept) == (1, 1)
    restore(target, tmp_path / "again")


@pytest.mark.usefixtures("settled")
def test_a_log_of_several_files_is_backed_up_file_by_file(store: Store, target: Path, tmp_path: Path) -> None:
    """Sealed files stay as they are in the next backup, but for those that a redaction reached; restored, all of the past is there."""
    domain = store.domain("notes")
    for number in range(3):
        domain.write_value("person", f"Erika Mustermann {number}")
        domain.write_value("other", number)
        if number < 2:
            assert store.seal("notes").sealed
    store.backup(target)
    assert store.backup(target).kept == 2, "the sealed files did not change"
    positions = domain.redact("person", reason="asked").erased
    store.backup(target)
    assert not any(b"Mustermann" in path.read_bytes() for path in target.rglob("*") if path.is_file())
    restore(target, tmp_path / "again")
    with eventstore.open(tmp_path / "again") as again:
        assert again.verify().ok
        assert again.domain("notes").state(as_of=2).read_value("other") == 0
        assert [event.position for event in again.domain("notes").history("person")] == positions[::-1]


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("links", [True, False], ids=["with links", "without links"])
def test_what_was_erased_in_the_store_is_gone_from_the_next_backup(
    store: Store, target: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from a file that was there already."""
    if not links:
        monkeypatch.setattr(os, "link", _no_link)
    domain = store.domain("notes")
    domain.write_value("person", "Erika Mustermann")
    fill(store, "idle")
    store.close()
    with eventstore.open(store.location, read_only=True) as reader:
        reader.backup(target)
        assert reader.backup(target).kept == (2 if links else 0)
    assert any(b"Mustermann" in content for content in tree(target).values() if content)
    erase(Path(store.location), "notes", 1)
    with eventstore.open(store.location) as store:
        report = store.backup(target)
    assert (report.kept, report.copied) == ((1, 1) if links else (0, 2))
    assert not any(b"Mustermann" in path.read_bytes() for path in target.rglob("*") if path.is_file())
    with eventstore.open(target, read_only=True) as kept:
        assert kept.verify().domains[1].redacted == 1


def _no_link(*_: object, **__: object) -> None:
    raise OSError(1, "Operation not permitted")


# ---- a backup is not a store to write


@pytest.mark.parametrize("place", ["", "copy-000001", "link"])
def test_a_backup_is_read_and_never_written(store: Store, target: Path, place: str) -> None:
    fill(store, "notes")
    store.backup(target)
    (target.parent / "link").symlink_to(target)
    opened = target.parent / "link" if place == "link" else target / place
    before = tree(target)
    given: list[dict[str, Any]] = [{}, {"create": False}, {"owner": "bot-1"}, {"accept_loss": True}]
    for options in given:
        with pytest.raises(BackupError, match="eventstore restore") as refused:
            eventstore.open(opened, **options)
        assert refused.value.path == str(target)
    with eventstore.open(opened, read_only=True) as reader:
        assert reader.domain("notes").read_value("key-1") == {"number": 4}
        with pytest.raises(eventstore.ReadOnlyError):
            reader.domain("notes").write_value("key", 1)
        assert reader.verify(anchor=store.anchor()).ok
    assert tree(target) == before


def test_an_older_backup_put_back_over_a_newer_store_is_told_by_an_anchor(store: Store, target: Path, tmp_path: Path) -> None:
    fill(store, "notes")
    store.backup(target)
    fill(store, "notes")
    anchor = store.anchor()
    restore(target, tmp_path / "again")
    with eventstore.open(tmp_path / "again") as again:
        found = again.verify(anchor=anchor)
    assert not found.ok
    assert [judged.verdict for judged in found.anchored] == ["TRUNCATED"]


# ---- what is refused


def test_an_older_store_does_not_replace_the_backup_of_a_newer_one(store: Store, target: Path, tmp_path: Path) -> None:
    """The backup may be all that is left of what the store lost."""
    fill(store, "notes")
    store.backup(target)
    restore(target, tmp_path / "older")
    fill(store, "notes", "later")
    store.backup(target)
    before = tree(target)
    with eventstore.open(tmp_path / "older") as older:
        with pytest.raises(CorruptionError, match="the store has no such domain"):
            older.backup(target)
        older.domain("later").write_value("key", 1)
        with pytest.raises(CorruptionError, match="another folder") as refused:
            older.backup(target)
        assert (refused.value.domain, refused.value.position) == ("later", 6)
        older.domain("notes").write_values([(str(number), number) for number in range(20)])
        fill(older, "later", count=20)
        with pytest.raises(CorruptionError, match="the store has another event there"):
            older.backup(target)
        assert tree(target) == before
        older.backup(tmp_path / "elsewhere")


def foreign_folder(target: Path) -> None:
    target.mkdir()
    (target / "photo.jpg").write_bytes(b"me")


def foreign_file(target: Path) -> None:
    target.write_bytes(b"me")


def folder_of_copies(target: Path) -> None:
    (target / "copy-000001").mkdir(parents=True)
    (target / "copy-000001" / "photo.jpg").write_bytes(b"me")


def folder_with_a_lock(target: Path) -> None:
    folder_of_copies(target)
    (target / "backup.lock").write_bytes(b"")


def another_store(target: Path) -> None:
    with eventstore.open(target) as other:
        other.domain("notes").write_value("key", 1)


def backup_of_another_store(target: Path) -> None:
    with eventstore.open(target.with_name("other")) as other:
        other.backup(target)


def damaged_backup(target: Path) -> None:
    backup_of_another_store(target)
    (target / "backup.json").write_bytes(b'{"format":1,"store_id":7}')


def newer_backup(target: Path) -> None:
    backup_of_another_store(target)
    (target / "backup.json").write_bytes(b'{"format":99}')


def missing_parent(target: Path) -> None:
    shutil.rmtree(target.parent / "nowhere", ignore_errors=True)


@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        (foreign_folder, ConfigError),
        (foreign_file, ConfigError),
        (folder_of_copies, ConfigError),
        (folder_with_a_lock, ConfigError),
        (another_store, ConfigError),
        (backup_of_another_store, ConfigError),
        (damaged_backup, FormatError),
        (newer_backup, NewerFormatError),
    ],
)
@pytest.mark.parametrize("link", [False, True], ids=["itself", "a link to it"])
def test_nothing_else_is_ever_overwritten(
    store: Store, target: Path, prepare: Callable[[Path], None], error: type[EventStoreError], link: bool
) -> None:
    fill(store, "notes")
    prepare(target)
    before = target.read_bytes() if target.is_file() else tree(target)
    named = target
    if link:
        named = target.with_name("link")
        named.symlink_to(target)
    with pytest.raises(error):
        store.backup(named)
    assert before == (target.read_bytes() if target.is_file() else tree(target))


@pytest.mark.parametrize("inside", ["", "logs/notes", "its backup", "its backup/copy-000001/logs"])
def test_no_copy_goes_into_another_stores_folder_or_backup(store: Store, target: Path, tmp_path: Path, inside: str) -> None:
    """What lies there goes where that goes: with the store, or with the next backup of it."""
    fill(store, "notes")
    store.backup(target)
    another_store(tmp_path / "another")
    with eventstore.open(tmp_path / "another") as other:
        other.backup(tmp_path / "its backup")
    (tmp_path / "another" / "logs" / "notes").mkdir(exist_ok=True)
    place = tmp_path / inside if inside.startswith("its backup") else tmp_path / "another" / inside
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match=r"is inside the (store|backup)"):
        store.backup(place / "new")
    with pytest.raises(ConfigError, match=r"is inside the (store|backup)"):
        restore(target, place / "new")
    with pytest.raises(ConfigError, match=r"is inside the (store|backup)"):
        salvage(tmp_path / "data", place / "new")
    assert tree(tmp_path) == before


def test_a_place_that_would_be_lost_with_the_store_is_refused(store: Store, tmp_path: Path) -> None:
    fill(store, "notes")
    before = tree(tmp_path)
    data = tmp_path / "data"
    (tmp_path / "link").symlink_to(data)
    for place in (data, data / "backup", tmp_path / "link", tmp_path / "link" / "x", tmp_path, tmp_path / "no" / "where"):
        with pytest.raises(ConfigError):
            store.backup(place)
    (tmp_path / "link").unlink()
    assert tree(tmp_path) == before


def test_a_store_in_memory_has_nothing_to_back_up(target: Path) -> None:
    with eventstore.open("memory:") as store, pytest.raises(ConfigError, match="eventstore export"):
        store.backup(target)
    assert not target.exists()


def test_one_backup_at_a_time(store: Store, target: Path) -> None:
    fill(store, "notes")
    store.backup(target)
    descriptor = os.open(target / "backup.lock", os.O_RDWR)
    lock(descriptor, "the test", timeout_ms=0)
    with pytest.raises(UnavailableError, match=r"backup\.lock: locked"):
        backup.back_up(store._engine, store.location, target, busy_timeout_ms=20)
    os.close(descriptor)
    store.backup(target)


@pytest.mark.corrupts
@pytest.mark.parametrize("damage", ["a value", "the end", "the file", "all files"])
def test_a_damaged_store_is_not_backed_up_and_the_backup_before_stays(store: Store, target: Path, damage: str, tmp_path: Path) -> None:
    fill(store, "notes", "other")
    store.backup(target)
    before = tree(target)
    fill(store, "notes", count=60)
    store.close()
    db, data = tmp_path / "data" / DB, tmp_path / "data"
    if damage == "a value":
        db.write_bytes(db.read_bytes().replace(b'{"number":4}', b'{"number":5}'))
    elif damage == "the end":
        shutil.copy(current(target) / DB, db)
    elif damage == "the file":
        rot(db)
        db.write_bytes(b"x" * 100 + db.read_bytes()[100:])
    else:
        db.unlink()
    held = tree(data)
    with eventstore.open(data, read_only=True) as damaged, pytest.raises((CorruptionError, NotAStoreError), match="notes") as refused:
        damaged.backup(target)
    if isinstance(refused.value, CorruptionError):
        assert refused.value.domain == "notes"
    assert tree(target) == before
    assert tree(data) == held
    restore(target, tmp_path / "again")


@pytest.mark.corrupts
def test_a_link_in_the_place_of_a_log_is_not_followed(store: Store, target: Path, tmp_path: Path) -> None:
    fill(store, "notes")
    store.close()
    (tmp_path / "data" / DB).rename(tmp_path / "elsewhere.db")
    (tmp_path / "data" / DB).symlink_to(tmp_path / "elsewhere.db")
    with eventstore.open(tmp_path / "data", read_only=True) as linked, pytest.raises(AccessError, match="is a link"):
        linked.backup(target)
    assert [path.name for path in target.iterdir()] == ["backup.lock"]


@pytest.mark.parametrize("left", [b"", bytes(74)], ids=["empty", "a length without its bytes"])
def test_a_first_backup_cut_off_by_a_power_loss_is_begun_anew(store: Store, target: Path, left: bytes) -> None:
    """Nothing but the lock was there yet, and what it says was on no disk."""
    fill(store, "notes")
    target.mkdir()
    (target / "backup.lock").write_bytes(left)
    store.backup(target)
    store.backup(target)
    with eventstore.open(target, read_only=True) as backup:
        assert backup.verify().ok


# ---- restore


@pytest.mark.parametrize("name", [str(DB), "logs/notes/head", "store.json"])
@pytest.mark.parametrize("how", ["rotten", "gone", "longer", "a link"])
def test_a_damaged_backup_is_not_restored_and_the_file_is_named(store: Store, target: Path, tmp_path: Path, name: str, how: str) -> None:
    fill(store, "notes")
    store.backup(target)
    path = current(target) / name
    if how == "rotten":
        rot(path)
    elif how == "longer":
        path.write_bytes(path.read_bytes() + b"x")
    else:
        path.rename(tmp_path / "moved")
        if how == "a link":
            path.symlink_to(tmp_path / "moved")
    before = set(tmp_path.iterdir())
    with pytest.raises((CorruptionError, AccessError), match=name.replace(".", r"\.")):
        restore(target, tmp_path / "again")
    assert set(tmp_path.iterdir()) == before


def test_a_path_that_leads_out_of_the_new_store_is_refused(store: Store, target: Path, tmp_path: Path) -> None:
    """Whoever can write the backup must not be able to write elsewhere by it."""
    fill(store, "notes")
    store.backup(target)
    text = (target / "backup.json").read_text()
    for name in ("../../evil", "/tmp/evil", "logs/../evil/head", "logs/notes/../../evil", "logs/.../head", "logs/notes/x.db"):
        (target / "backup.json").write_text(text.replace("logs/notes/head", name))
        with pytest.raises(FormatError, match=r"is no file of a store"):
            restore(target, tmp_path / "again")
    (target / "backup.json").write_text(text.replace("copy-000001", "../copy-000001"))
    with pytest.raises(FormatError, match=r"backup\.json is damaged"):
        restore(target, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_store_is_restored_into_a_new_place_only(store: Store, target: Path, tmp_path: Path) -> None:
    fill(store, "notes")
    store.backup(target)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").write_bytes(b"me")
    before = tree(tmp_path)
    for place in (tmp_path / "data", target, target / "x", tmp_path / "full", tmp_path / "full" / "photo.jpg", tmp_path / "no" / "where"):
        with pytest.raises(ConfigError):
            restore(target, place)
    for none in (tmp_path / "nowhere", tmp_path / "data", tmp_path / "full", tmp_path / "full" / "photo.jpg"):
        with pytest.raises(NotAStoreError, match="no backup here"):
            restore(none, tmp_path / "again")
    assert tree(tmp_path) == before


def test_an_interrupted_backup_leaves_the_one_before_and_no_rubbish(store: Store, target: Path, tmp_path: Path) -> None:
    fill(store, "notes")
    store.backup(target)
    before = tree(target)
    fill(store, "notes")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.backup(target, progress=interrupt)
    assert tree(target) == before
    store.domain("notes").write_value("goes", "on")
    restore(target, tmp_path / "again")


def test_progress_is_told_of_every_domain(store: Store, target: Path, tmp_path: Path) -> None:
    fill(store, "notes", "orders")
    told: list[tuple[str, int, int]] = []
    store.backup(target, progress=lambda *said: told.append(said))
    assert {what for what, _, _ in told} >= {"notes: copying", "orders: copying"}
    assert all(0 <= done <= total for _, done, total in told)
