"""Event ids that are read from the events again: only rows that prove themselves say one, and the others refuse what they might answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import eventstore
from eventstore import ChecksumError, CompactedError, DomainStore, LostIdsError, Retention, Store, live
from eventstore.database import PAGE_BYTES

DOMAIN = "orders"
pytestmark = pytest.mark.corrupts


@pytest.fixture(autouse=True)
def pointers_at_every_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that an opening folds nothing, and the ids must come from files, or from the rows."""
    monkeypatch.setattr(live, "_TAIL", 1)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A closed store of two sealed files and a live one. No row of the first file is carried: each key is written again."""
    with eventstore.open(tmp_path / "data") as store:
        domain = store.domain(DOMAIN)
        for part in ("one", "two", "live"):
            for number in range(4):
                domain.write_value(f"key-{number}", part, event_id=f"{part}-{number}")
            if part != "live":
                store.seal(DOMAIN)
    return tmp_path / "data"


def files(place: Path) -> list[Path]:
    return sorted((place / "logs" / DOMAIN).glob("*.db"))


def forget_ids(place: Path) -> None:
    for path in (place / "logs" / DOMAIN / "pointers").glob("*.ids"):
        path.unlink()


def rot(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


def tear(path: Path) -> None:
    """Have the rows of a file lie in no page that SQLite can read."""
    content = bytearray(path.read_bytes())
    for at in range(PAGE_BYTES, len(content), PAGE_BYTES):
        content[at] = 0xFF
    path.write_bytes(content)


def behead(path: Path) -> None:
    """Have a file be none of SQLite's any more."""
    path.write_bytes(bytes(100) + path.read_bytes()[100:])


def answered(domain: DomainStore, event_id: str) -> int:
    part, _, number = event_id.partition("-")
    receipt = domain.write_value(f"key-{number}", part, event_id=event_id)
    assert receipt.position <= 14
    return receipt.position


@pytest.fixture
def opened(place: Path) -> Iterator[Store]:
    """The store with a row that says another id, and no file that knows the true one."""
    rot(files(place)[0], b'"one-1"', b'"one-9"')
    forget_ids(place)
    with eventstore.open(place) as store:
        yield store


@pytest.mark.parametrize("event_id", ["one-1", "one-9", "new"])
def test_a_row_that_does_not_prove_itself_says_no_id(opened: Store, event_id: str) -> None:
    domain = opened.domain(DOMAIN)
    with pytest.raises(LostIdsError, match="event ids at position 2 cannot be told") as raised:
        domain.write_value("key-1", "one", event_id=event_id)
    assert (raised.value.first, raised.value.last, raised.value.damaged) == (2, 2, True)
    assert domain.head().position == 14
    assert opened.halted is None


def test_what_does_not_depend_on_it_goes_on(opened: Store) -> None:
    domain = opened.domain(DOMAIN)
    assert [answered(domain, event_id) for event_id in ("one-0", "one-2", "one-3", "two-1", "live-1")] == [1, 3, 4, 7, 12]
    assert domain.write_value("key-1", "without an id").position == 15
    assert opened.seal(DOMAIN).sealed
    with pytest.raises(LostIdsError):
        domain.write_value("key-1", "one", event_id="one-1")


def test_that_it_is_lost_can_be_accepted_and_no_more_than_it(place: Path, opened: Store) -> None:
    head = opened.accept(DOMAIN)
    assert head is not None
    domain = opened.domain(DOMAIN)
    (loss,) = domain.events(head.position - 1, head.position)
    assert "event ids of positions 2 to 2 were lost as rows there are damaged" in json.loads(str(loss.data))["reason"]
    assert opened.accept(DOMAIN) is None
    assert domain.write_value("key-1", "again", event_id="one-1").position == 16
    opened.close()
    forget_ids(place)
    with eventstore.open(place) as store:
        assert [answered(store.domain(DOMAIN), event_id) for event_id in ("one-0", "two-1", "live-1")] == [1, 7, 12]
        assert store.domain(DOMAIN).write_value("key-1", "again", event_id="one-1").position == 16


@pytest.mark.parametrize("damage", [tear, behead])
@pytest.mark.parametrize("damaged", [0, 1])
def test_of_a_file_that_cannot_be_read_no_id_is_told_and_of_the_others_each(
    place: Path, damaged: int, damage: Callable[[Path], None]
) -> None:
    names = ["one-0", "two-1", "live-1"]
    damage(files(place)[damaged])
    forget_ids(place)
    with eventstore.open(place) as store:
        domain = store.domain(DOMAIN)
        for event_id in (names.pop(damaged), "new"):
            with pytest.raises(LostIdsError) as raised:
                domain.write_value("key-0", "one", event_id=event_id)
            assert (raised.value.first, raised.value.last) == (1 + damaged * 5, 5 + damaged * 5)
        assert all(answered(domain, event_id) for event_id in names)
        assert domain.write_value("key-1", "without an id").appended
        assert store.halted is None
        assert store.accept(DOMAIN) is not None
        assert store.accept(DOMAIN) is None
        assert domain.write_value("key-1", "new", event_id="new").appended


def swap(path: Path) -> None:
    """Have a row say another id."""
    rot(path, b'"one-1"', b'"one-9"')


@pytest.mark.parametrize("damage", [swap, tear, behead])
def test_a_retry_whose_own_row_is_damaged_is_known_and_halts_nobody(place: Path, damage: Callable[[Path], None]) -> None:
    """A file of ids knows that the call was made; what it wrote cannot be said."""
    damage(files(place)[0])
    with eventstore.open(place) as store:
        domain = store.domain(DOMAIN)
        with pytest.raises(CompactedError, match="event_id 'one-1' belongs to a call that was made here") as raised:
            domain.write_value("key-1", "one", event_id="one-1")
        assert (raised.value.position, raised.value.damaged, isinstance(raised.value, LostIdsError)) == (2, True, False)
        assert answered(domain, "two-2") == 8
        if damage is swap:
            assert answered(domain, "one-2") == 3
        assert domain.write_value("key-1", "new", event_id="new").position == 15


def test_a_damaged_row_of_the_live_file_stops_all_writing_as_ever(place: Path) -> None:
    rot(files(place)[-1], b'"live-1"', b'"live-9"')
    forget_ids(place)
    with eventstore.open(place) as store:
        with pytest.raises(ChecksumError):
            store.domain(DOMAIN).write_value("key-1", "live", event_id="live-1")
        with pytest.raises(eventstore.EventStoreError):
            store.domain(DOMAIN).write_value("key-1", "without an id")


def test_ids_behind_those_that_are_gone_are_found(place: Path) -> None:
    with eventstore.open(place) as store:
        store.retain(Retention(keep_events=8), DOMAIN, delete=True)
    (kept,) = (place / "logs" / DOMAIN).glob("*.ids")
    kept.unlink()
    forget_ids(place)
    with eventstore.open(place) as store:
        domain = store.domain(DOMAIN)
        assert [answered(domain, event_id) for event_id in ("two-1", "live-1")] == [7, 12]
        with pytest.raises(LostIdsError):
            domain.write_value("key-1", "one", event_id="one-1")


def test_a_file_that_is_put_back_answers_again(place: Path) -> None:
    sealed = files(place)[0]
    whole = sealed.read_bytes()
    rot(sealed, b'"one-1"', b'"one-9"')
    forget_ids(place)
    with eventstore.open(place) as store, pytest.raises(LostIdsError):
        store.domain(DOMAIN).write_value("key-1", "one", event_id="one-1")
    sealed.write_bytes(whole)
    with eventstore.open(place) as store:
        assert answered(store.domain(DOMAIN), "one-1") == 2
        assert store.verify().ok
