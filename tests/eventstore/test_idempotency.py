"""An event_id names one call for ever: whoever asks again gets the first answer to the byte, and nothing is written twice."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import eventstore
from eventstore import ABSENT, PRESENT, Domain, DomainStore, DuplicateEventError, NotFoundError, Receipt, Store, WrongExpectedError

Answer = list[Receipt]


def batch(d: DomainStore, event_id: str | None, *writes: tuple[str, Any], **options: Any) -> Answer:
    """Writes and removals (of the value None) as one call."""
    with d.batch(event_id=event_id) as b:
        for key, value in writes:
            if value is None:
                b.remove_value(key)
            else:
                b.write_value(key, value, **options)
    return b.receipts


def prepare(d: DomainStore) -> None:
    d.write_values([("k", 1), ("a", 1), (("a", "x"), 1), (("a", "y"), 1)])
    for key in ("gone", "back"):
        d.write_value(key, 0)
        d.remove_value(key)
    d.write_value("back", 1)


# Each call appends something when it is made after prepare(); some of what they ask for stands already.
CALLS: dict[str, Callable[[DomainStore], Receipt | Answer]] = {
    "write_value": lambda d: d.write_value("k", 2, event_id="e"),
    "write_value with everything": lambda d: d.write_value(
        "k", 2, when=5, expected=1, event_id="e", unchanged="skip", actor="a", reason="r", tags=["t"], schema=1
    ),
    "write_value of a new key": lambda d: d.write_value("new", 2, expected=ABSENT, event_id="e"),
    "remove_value": lambda d: d.remove_value("k", event_id="e"),
    "remove_value if present": lambda d: d.remove_value("k", expected=PRESENT, event_id="e"),
    "write_values": lambda d: d.write_values([("k", 2), ("new", 3)], event_id="e"),
    "write_values of one": lambda d: d.write_values([("k", 2)], event_id="e"),
    "the first skipped": lambda d: d.write_values([("k", 1), ("new", 3)], event_id="e", unchanged="skip"),
    "the last skipped": lambda d: d.write_values([("new", 3), ("k", 1)], event_id="e", unchanged="skip"),
    "several skipped": lambda d: d.write_values([("k", 1), ("a", 1), ("new", 3), ("k", 1), ("a", 1)], event_id="e", unchanged="skip"),
    "a key twice": lambda d: d.write_values([("k", 2), ("k", 3), ("k", 2)], event_id="e"),
    "a key twice, skipped": lambda d: d.write_values([("new", 1), ("new", 1), ("k", 1), ("new", 1)], event_id="e", unchanged="skip"),
    "skipped after skipped": lambda d: d.write_values([("new", 3), ("k", 1), ("new", 3)], event_id="e", unchanged="skip"),
    "remove_all": lambda d: d.remove_all(event_id="e"),
    "remove_all of a prefix": lambda d: d.remove_all("a", event_id="e"),
    "update_value": lambda d: d.update_value("k", lambda value: value + 1, event_id="e"),
    "update_value of a new key": lambda d: d.update_value("new", lambda value: value + 1, default=0, event_id="e"),
    "restore_value": lambda d: d.restore_value("gone", 5, event_id="e"),
    "restore_value of a removal": lambda d: d.restore_value("back", 8, event_id="e"),
    "batch": lambda d: batch(d, "e", ("k", 2), ("a", None), ("new", 1)),
    "batch that removes nothing": lambda d: batch(d, "e", ("never", None), ("k", 2), ("never", None), ("gone", None)),
    "batch, skipped and nothing": lambda d: batch(d, "e", ("new", 3), ("k", 1), ("never", None), ("k", 1), unchanged="skip"),
}


@dataclass
class Told:
    """What a domain holds, to see that a retry changed nothing."""

    head: Any
    items: dict[Any, Any] = field(default_factory=dict)


def told(d: DomainStore) -> Told:
    return Told(d.head(), dict(d.items()))


def disturb(d: DomainStore) -> None:
    """What others wrote between the call and its retry: every key is another one now."""
    d.write_values([("k", 70), ("new", 71), ("a", 72)])
    d.remove_all("a")
    d.write_values([("gone", 73), ("never", 74)])
    d.remove_value("never")


@pytest.mark.parametrize("name", CALLS)
def test_a_retry_gets_the_first_answer_at_once_and_after_everything_has_changed(any_store: Store, name: str) -> None:
    d = any_store.domain("d")
    prepare(d)
    first = CALLS[name](d)
    for change in (None, disturb):
        if change is not None:
            change(d)
        before = told(d)
        assert CALLS[name](d) == first
        assert told(d) == before


@pytest.mark.parametrize("name", CALLS)
def test_a_retry_after_a_restart_gets_the_first_answer(open_store: Callable[..., Store], name: str) -> None:
    with open_store() as store:
        prepare(store.domain("d"))
        first = CALLS[name](store.domain("d"))
    for _ in range(2):
        with open_store() as store:
            d = store.domain("d")
            before = told(d)
            assert CALLS[name](d) == first
            assert told(d) == before
            disturb(d)


@pytest.mark.parametrize("name", CALLS)
def test_a_retry_by_another_process_gets_the_first_answer(open_store: Callable[..., Store], name: str) -> None:
    """Another handle on the same files sees what another process sees."""
    one, other = open_store().domain("d"), open_store().domain("d")
    prepare(one)
    assert CALLS[name](one) == CALLS[name](other)
    assert told(one) == told(other)


Kind = Literal["replace", "first"]
writes = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, 1, 2])), max_size=6)


@pytest.mark.parametrize("rule", ["replace", "first"])
@given(before=writes, call=writes.filter(bool), after=writes, unchanged=st.sampled_from(["append", "skip"]))
@example(before=[("a", 1)], call=[("b", 1), ("a", 1), ("c", None)], after=[], unchanged="skip")
@example(before=[("a", 1)], call=[("b", 1), ("a", 1), ("b", 1)], after=[], unchanged="skip")
def test_any_batch_retried_after_any_writes_gets_the_first_answer(
    rule: Kind, before: list[tuple[str, Any]], call: list[tuple[str, Any]], after: list[tuple[str, Any]], unchanged: str
) -> None:
    def of_rule(some: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        return [(key, value or 3) for key, value in some] if rule == "first" else some

    with eventstore.open("memory:") as store:
        d = store.domain(Domain("d", write=rule))
        batch(d, None, *of_rule(before))
        first = batch(d, "e", *of_rule(call), unchanged=unchanged)
        batch(d, None, *of_rule(after))
        state = told(d)
        assert batch(d, "e", *of_rule(call), unchanged=unchanged) == first
        assert told(d) == state


# ---- what makes a request


BASE: dict[str, Any] = {"key": "k", "value": {"a": 1}, "when": 5, "unchanged": "append", "reason": "r"}
OTHERS: dict[str, dict[str, Any]] = {
    "another key": {"key": "j"},
    "another value": {"value": {"a": 2}},
    "a value Python calls equal": {"value": {"a": 1.0}},
    "another order of members": {"value": {"b": 1, "a": 1}},
    "another when": {"when": 6},
    "no when": {"when": None},
    "another expectation": {"expected": PRESENT},
    "another way with what stands": {"unchanged": "skip"},
    "another reason": {"reason": "s"},
    "an actor": {"actor": "anna"},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_the_same_id_for_another_request_is_refused(any_store: Store, other: dict[str, Any]) -> None:
    d = any_store.domain("d")
    d.write_value("k", 0)
    receipt = d.write_value(**BASE, event_id="e")
    before = told(d)
    with pytest.raises(DuplicateEventError) as caught:
        d.write_value(**{**BASE, **other}, event_id="e")
    assert (caught.value.domain, caught.value.event_id, caught.value.position) == ("d", "e", receipt.position)
    assert told(d) == before


@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("write_value", "write_values of one")])
def test_the_same_id_for_another_verb_is_refused(any_store: Store, name: str) -> None:
    d = any_store.domain("d")
    prepare(d)
    d.write_value("k", 2, event_id="e")
    with pytest.raises(DuplicateEventError):
        CALLS[name](d)


def test_a_batch_with_more_fewer_or_reordered_writes_is_another_request(any_store: Store) -> None:
    d = any_store.domain("d")
    batch(d, "e", ("a", 1), ("b", 2))
    for other in ([("a", 1)], [("b", 2), ("a", 1)], [("a", 1), ("b", 2), ("c", 3)], [("a", 1), ("b", None)]):
        with pytest.raises(DuplicateEventError):
            batch(d, "e", *other)


def test_one_moment_said_in_two_ways_is_one_request(any_store: Store) -> None:
    d = any_store.domain("d")
    first = d.write_value("k", 1, when=1_000_000, event_id="e")
    assert d.write_value("k", 1, when=datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), event_id="e") == first
    assert d.write_value(("k",), 1, when=1_000_000, event_id="e") == first


def test_an_id_belongs_to_its_domain(any_store: Store) -> None:
    one, other = any_store.domain("one"), any_store.domain("other")
    one.write_value("k", 1, event_id="e")
    assert other.write_value("k", 2, event_id="e").appended
    assert (one.read_value("k"), other.read_value("k")) == (1, 2)


@dataclass
class Tagged:
    tags: set[int]


def test_a_set_in_another_order_is_the_same_request() -> None:
    """Equal sets may run in different orders, in one process and surely in two; the call is the same."""
    one, other = {0, 8}, {8, 0}
    assert one == other
    assert list(one) != list(other)
    with eventstore.open("memory:") as store:
        d = store.domain(Domain("d", value=Tagged))
        first = d.write_value("k", Tagged(one), event_id="e")
        assert d.write_value("k", Tagged(other), event_id="e") == first
        assert not d.write_value("k", Tagged(other), unchanged="skip").appended


# ---- what is and is not remembered


@pytest.mark.parametrize("expected", [ABSENT, PRESENT, 1])
def test_a_retry_does_not_ask_again_what_was_expected(any_store: Store, expected: Any) -> None:
    d = any_store.domain("d")
    if expected is not ABSENT:
        d.write_value("k", 0)
    first = d.write_value("k", 1, expected=expected, event_id="e")
    d.remove_value("k")
    if expected is ABSENT:
        d.write_value("k", 2)
    assert d.write_value("k", 1, expected=expected, event_id="e") == first


def test_a_refused_call_leaves_its_id_free(any_store: Store) -> None:
    d = any_store.domain("d")
    with pytest.raises(WrongExpectedError):
        d.write_value("k", 1, expected=PRESENT, event_id="e")
    with pytest.raises(NotFoundError):
        d.update_value("k", lambda value: value, event_id="e")
    d.write_value("k", 0)
    assert d.write_value("k", 1, expected=PRESENT, event_id="e").appended


NOTHING: dict[str, Callable[[DomainStore], Receipt | Answer]] = {
    "a write that changes nothing": lambda d: d.write_value("k", 1, event_id="e", unchanged="skip"),
    "writes that change nothing": lambda d: d.write_values([("k", 1), ("a", 1)], event_id="e", unchanged="skip"),
    "a removal of nothing": lambda d: d.remove_value("new", event_id="e"),
    "a removal of what is gone": lambda d: d.remove_value("gone", event_id="e"),
    "a removal of all that is not there": lambda d: d.remove_all("new", event_id="e"),
    "no writes": lambda d: d.write_values([], event_id="e"),
    "a batch of nothing": lambda d: batch(d, "e", ("new", None), ("k", 1), unchanged="skip"),
}


@pytest.mark.parametrize("name", NOTHING)
def test_a_call_that_appended_nothing_is_remembered_while_the_store_is_open(any_store: Store, name: str) -> None:
    d = any_store.domain("d")
    prepare(d)
    head = d.head()
    first = NOTHING[name](d)
    assert d.head() == head
    assert not any(receipt.appended for receipt in (first if isinstance(first, list) else [first]))
    disturb(d)
    before = told(d)
    assert NOTHING[name](d) == first
    assert told(d) == before
    with pytest.raises(DuplicateEventError):
        d.write_value("k", "something else", event_id="e")


def test_a_receipt_for_nothing_names_what_stands(any_store: Store) -> None:
    d = any_store.domain("d")
    standing = d.write_value("k", 1)
    d.write_value("j", 1)
    skipped = d.write_value("k", 1, unchanged="skip")
    assert (skipped.position, skipped.checksum, skipped.appended) == (standing.position, standing.checksum, False)
    gone = d.remove_value("j")
    again = d.remove_value("j")
    assert (again.position, again.checksum, again.appended) == (gone.position, gone.checksum, False)


@pytest.mark.parametrize("appends", [True, False])
def test_a_retry_is_made_as_durable_as_it_asks(tmp_path: Path, appends: bool) -> None:
    with eventstore.open(tmp_path / "store") as store:
        d = store.domain("signal")
        if appends:
            d.write_value("k", 1)
        for asked in ("process", "power", "power+", "process"):
            receipt = d.remove_value("k", event_id="e", durability=asked)
            assert (receipt.durability, receipt.appended) == (asked, appends)


def test_change_is_not_called_again_in_a_retry(open_store: Callable[..., Store]) -> None:
    calls: list[Any] = []

    def change(value: Any) -> Any:
        calls.append(value)
        return value + 1

    with open_store() as store:
        d = store.domain("d")
        d.write_value("k", 1)
        first = d.update_value("k", change, event_id="e")
        assert d.update_value("k", change, event_id="e") == first
        d.write_value("k", 50)
    with open_store() as store:
        assert store.domain("d").update_value("k", change, event_id="e") == first
        assert store.domain("d").read_value("k") == 50
    assert calls == [1]


def test_a_change_that_failed_leaves_its_id_free(any_store: Store) -> None:
    d = any_store.domain("d")
    d.write_value("k", 0)
    with pytest.raises(ZeroDivisionError):
        d.update_value("k", lambda value: 1 / value, event_id="e")
    assert d.update_value("k", lambda value: value + 1, event_id="e").appended


def test_an_update_of_a_key_that_is_gone_by_now_gets_the_first_answer(any_store: Store) -> None:
    d = any_store.domain("d")
    d.write_value("k", 1)
    first = d.update_value("k", lambda value: value + 1, event_id="e")
    d.remove_value("k")
    assert d.update_value("k", lambda value: value + 1, event_id="e") == first


def test_threads_with_one_id_write_once(any_store: Store) -> None:
    d = any_store.domain("d")
    start = threading.Barrier(8)
    answers: list[Answer] = []

    def write() -> None:
        start.wait()
        answers.append(d.write_values([("k", 1), ("j", 2)], event_id="e"))

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert d.head().position == 2
    assert answers == [answers[0]] * 8
    assert [receipt.position for receipt in answers[0]] == [1, 2]


# ---- ids in and beyond the pointer files


def id_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("logs/d/pointers/*.ids"))


def key_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("logs/d/pointers/*.keys"))


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pointer files after every ten events instead of a hundred thousand."""
    monkeypatch.setattr("eventstore.live.SPACING", 10)
    monkeypatch.setattr("eventstore.live._TAIL", 1)
    monkeypatch.setattr("eventstore.pointers.SPACING", 10)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def each(files: Callable[[Path], list[Path]], change: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        found = files(folder)
        assert found
        for path in found:
            change(path)

    return damage


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], None]] = {
    "none": lambda folder: None,
    "no folder": lambda folder: shutil.rmtree(folder / "logs/d/pointers"),
    "no files": each(lambda folder: id_files(folder) + key_files(folder), Path.unlink),
    "no files of ids": each(id_files, Path.unlink),
    "no files of keys": each(key_files, Path.unlink),
    "files of ids flipped at the start": each(id_files, lambda path: flip(path, 0)),
    "files of ids flipped in the middle": each(id_files, lambda path: flip(path, path.stat().st_size // 2)),
    "files of ids flipped at the end": each(id_files, lambda path: flip(path, -1)),
    "files of keys flipped": each(key_files, lambda path: flip(path, -1)),
    "files of ids emptied": each(id_files, lambda path: path.write_bytes(b"")),
    "files of ids torn": each(id_files, lambda path: path.write_bytes(path.read_bytes()[:-3])),
    "files of ids foreign": each(id_files, lambda path: path.write_bytes(b"something else\n" * 9)),
    "files of ids under a wrong name": each(id_files, lambda path: path.rename(path.with_name("x.ids"))),
    "files of ids are folders": each(id_files, become_a_folder),
}


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("name", DAMAGE)
def test_ids_are_found_whatever_became_of_the_pointer_files(open_store: Callable[..., Store], tmp_path: Path, name: str) -> None:
    with open_store() as store:
        d = store.domain("d")
        first = {n: d.write_value("k", n, event_id=f"e{n}") for n in range(1, 46)}
        head = d.head()
    assert id_files(tmp_path / "data")
    DAMAGE[name](tmp_path / "data")
    for n in (1, 9, 10, 11, 30, 44, 45):
        with open_store() as store:
            assert store.domain("d").write_value("k", n, event_id=f"e{n}") == first[n]
            assert store.domain("d").head() == head


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("name", DAMAGE)
def test_another_request_under_an_old_id_is_refused_whatever_became_of_the_pointer_files(
    open_store: Callable[..., Store], tmp_path: Path, name: str
) -> None:
    with open_store() as store:
        for n in range(1, 46):
            store.domain("d").write_value("k", n, event_id=f"e{n}")
    DAMAGE[name](tmp_path / "data")
    with open_store() as store, pytest.raises(DuplicateEventError):
        store.domain("d").write_value("k", "other", event_id="e7")
    with open_store() as store:
        assert store.domain("d").write_value("k", "new", event_id="never used").position == 46


@pytest.mark.usefixtures("often")
def test_an_older_copy_of_the_pointer_files_hides_no_id(open_store: Callable[..., Store], tmp_path: Path) -> None:
    pointers = tmp_path / "data" / "logs" / "d" / "pointers"
    first: dict[int, Receipt] = {}
    for start in (1, 31):
        with open_store() as store:
            for n in range(start, start + 30):
                first[n] = store.domain("d").write_value("k", n, event_id=f"e{n}")
        if start == 1:
            shutil.copytree(pointers, tmp_path / "older")
    shutil.rmtree(pointers)
    shutil.copytree(tmp_path / "older", pointers)
    for n in (1, 30, 31, 60):
        with open_store() as store:
            assert store.domain("d").write_value("k", n, event_id=f"e{n}") == first[n]


@pytest.mark.usefixtures("often")
def test_ids_stay_exact_while_pointer_files_are_written_beneath_them(any_store: Store) -> None:
    d = any_store.domain("d")
    first = {}
    for n in range(1, 101):
        first[n] = d.write_values([("k", n), ("j", n)], event_id=f"e{n}")
        older = 1 + n * 7 % n
        assert d.write_values([("k", older), ("j", older)], event_id=f"e{older}") == first[older]
    assert d.head().position == 200


@pytest.mark.corrupts  # once the hash is the true one again, its pointer files are wrong
@pytest.mark.usefixtures("often")
def test_two_ids_whose_hashes_collide_are_told_apart(open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventstore.pointers.hash_of", lambda event_id: 7)
    with open_store() as store:
        first = {n: store.domain("d").write_value("k", n, event_id=f"e{n}") for n in range(1, 31)}
    with open_store() as store:
        d = store.domain("d")
        assert all(d.write_value("k", n, event_id=f"e{n}") == first[n] for n in first)
        assert d.write_value("k", 1, event_id="unheard of").appended
