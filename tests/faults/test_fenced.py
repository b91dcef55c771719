"""Files replaced or removed under an open store: the next write is refused, and nothing is acknowledged that would be lost."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import eventstore
from eventstore import EventStoreError, FencedError, HaltedError, TailLostError
from tests.faults.ledger import DOMAIN
from tests.faults.stores import Damaged, leave
from tests.faults.workers import Server


@pytest.fixture(scope="module")
def template(clean_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    """A closed store."""
    return leave(clean_server, tmp_path_factory.mktemp("fenced") / "store", settled=5, loose=0)


@pytest.fixture
def closed(template: Damaged, tmp_path: Path) -> Damaged:
    """A copy of it."""
    return template.copy(tmp_path / "store")


def copy_outside(source: Path, target: Path) -> None:
    """Copy in another process: a database that is opened and closed here loses the locks that SQLite holds on it."""
    subprocess.run(["cp", "-R", str(source), str(target)], check=True, timeout=60)


def unlinked(file: Path) -> None:
    file.unlink()


def renamed(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))


def replaced_by_a_copy(file: Path) -> None:
    copy = file.with_name("copy")
    copy_outside(file, copy)
    copy.rename(file)


def replaced_by_a_link_to_it(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def replaced_by_an_empty_file(file: Path) -> None:
    file.unlink()
    file.touch()


REPLACEMENTS = [unlinked, renamed, replaced_by_a_copy, replaced_by_a_link_to_it, replaced_by_an_empty_file]


@pytest.mark.parametrize("name", ["db", "wal", "head"])
@pytest.mark.parametrize("replace", REPLACEMENTS)
def test_a_file_replaced_under_an_open_store_fences_it(closed: Damaged, name: str, replace: Callable[[Path], None]) -> None:
    store = eventstore.open(closed.folder)
    domain = store.domain(DOMAIN)
    domain.write_value("before", 1)
    replace(getattr(closed, name))
    with pytest.raises(FencedError) as caught:
        domain.write_value("after", 2)
    assert caught.value.outcome == "not_written"
    with pytest.raises(HaltedError) as halted:
        domain.write_values([("after", 2), ("after that", 3)], durability="process")
    assert isinstance(halted.value.__cause__, FencedError)
    close(store)
    assert kept_or_missed(closed), "what was acknowledged before is neither there nor missed"


def close(store: eventstore.Store) -> None:
    """Close; a store whose files are gone may complain, but in our words, and only once."""
    with contextlib.suppress(EventStoreError):
        store.close()
    store.close()


def kept_or_missed(store: Damaged) -> bool:
    """Whether the store, opened anew, holds what was acknowledged, or refuses to go on without it."""
    try:
        with eventstore.open(store.folder) as opened:
            domain = opened.domain(DOMAIN)
            return domain.get("before") == 1 and opened.verify().ok
    except EventStoreError:
        return True


@pytest.mark.parametrize("replace", REPLACEMENTS)
def test_a_wal_replaced_before_the_first_write_fences_it(closed: Damaged, replace: Callable[[Path], None]) -> None:
    """Another store handle wrote: the WAL is there, though this one has not written yet."""
    with eventstore.open(closed.folder) as other:
        other.domain(DOMAIN).write_value("before", 1)
        store = eventstore.open(closed.folder)
        domain = store.domain(DOMAIN)
        assert domain.read_value("before") == 1
        replace(closed.wal)
        with pytest.raises(FencedError):
            domain.write_value("after", 2)
        close(store)
        close(other)


def test_a_store_moved_as_a_whole_is_fenced(closed: Damaged, tmp_path: Path) -> None:
    """And another one put where it was: its next write must not land half here, half there."""
    other = closed.copy(tmp_path / "other")
    store = eventstore.open(closed.folder)
    domain = store.domain(DOMAIN)
    domain.write_value("before", 1)
    closed.folder.rename(tmp_path / "moved")
    other.folder.rename(closed.folder)
    with pytest.raises(FencedError):
        domain.write_value("after", 2)
    close(store)
    with eventstore.open(closed.folder) as store:
        assert "before" not in store.domain(DOMAIN)
        assert store.verify().ok
    with eventstore.open(tmp_path / "moved") as store:
        assert store.domain(DOMAIN).read_value("before") == 1
        assert store.verify().ok


def test_what_was_acknowledged_before_the_wal_was_unlinked_is_missed(closed: Damaged, tmp_path: Path) -> None:
    store = eventstore.open(closed.folder)
    domain = store.domain(DOMAIN)
    domain.write_value("before", 1)
    closed.wal.unlink()
    with pytest.raises(FencedError):
        domain.write_value("after", 2)
    copy_outside(closed.folder, tmp_path / "as it lies")
    with eventstore.open(tmp_path / "as it lies") as other, pytest.raises(TailLostError, match="positions 6 to 6 are missing"):
        other.domain(DOMAIN)
    # SQLite still holds the unlinked file, and saves what is in it when it lets go.
    close(store)
    assert kept_or_missed(closed)


def test_a_removed_folder_is_not_made_anew(closed: Damaged) -> None:
    store = eventstore.open(closed.folder)
    domain = store.domain(DOMAIN)
    domain.write_value("before", 1)
    shutil.rmtree(closed.folder)
    with pytest.raises(FencedError):
        domain.write_value("after", 2)
    with pytest.raises(EventStoreError):
        store.domain("new")
    close(store)
    assert not closed.folder.exists()


@pytest.mark.parametrize("written", [0, 3], ids=["as it was", "written on"])
def test_an_older_copy_in_the_place_of_the_store_is_not_resumed_from(closed: Damaged, tmp_path: Path, written: int) -> None:
    older = closed.copy(tmp_path / "older")
    if written:
        with eventstore.open(older.folder) as other:
            other.domain(DOMAIN).write_values([(f"other-{number}", number) for number in range(written)])
    store = eventstore.open(closed.folder)
    domain = store.domain(DOMAIN)
    domain.write_values([("before", 1), ("and", 2)])
    closed.folder.rename(tmp_path / "newer")
    older.folder.rename(closed.folder)
    for attempt in (lambda: domain.write_value("after", 3), store.resume, store.resume):
        with pytest.raises(FencedError):
            attempt()
    assert store.halted is not None
    assert domain.read_value("before") == 1
    closed.folder.rename(tmp_path / "older")
    (tmp_path / "newer").rename(closed.folder)
    store.resume()
    domain.write_value("after", 3)
    store.close()
    with eventstore.open(closed.folder) as store:
        assert {key: store.domain(DOMAIN).read_value(key) for key in ("before", "and", "after")} == {"before": 1, "and": 2, "after": 3}
        assert store.verify().ok


def test_nothing_is_made_or_listed_in_another_store_that_stands_in_the_place_now(closed: Damaged, tmp_path: Path) -> None:
    store = eventstore.open(closed.folder)
    store.domain(DOMAIN)
    closed.folder.rename(tmp_path / "elsewhere")
    with eventstore.open(closed.folder) as other:
        other.domain("others").write_value("k", 1)
        for verb in (store.domains, lambda: store.domain("new").write_value("k", 2), lambda: store.domain("others"), store.verify):
            with pytest.raises(FencedError, match=other.store_id):
                verb()
        store.close()
        assert [path.name for path in (closed.folder / "logs").iterdir()] == ["others"]
        assert other.domains() == ["others"]
        assert other.verify().ok
