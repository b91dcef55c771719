"""What `import eventstore` offers: the names, the verbs with their arguments, and what each of them promises."""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventstore
from eventstore import (
    ABSENT,
    ANY,
    PRESENT,
    ClosedError,
    ConfigError,
    ContractError,
    Domain,
    DomainStore,
    DomainView,
    Event,
    Head,
    InvalidKeyError,
    InvalidValueError,
    NaiveTimeError,
    NotFoundError,
    Receipt,
    Store,
    WrongExpectedError,
)
from eventstore.clock import Clock, now_us
from eventstore.model import Key

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


# ---- names and arguments

COMMON = "event_id=None, durability=None"
SIGNATURES: dict[str, str] = {
    "open": "(location, *, create=True, read_only=False, accept_loss=False, durability=None, actor=None, cache_bytes=None,"
    " max_value_bytes=None, busy_timeout_ms=None, min_free_bytes=None, store_id=None, owner=None, archives=(), seal_bytes=None,"
    " seal_age_s=None, on_halt=None, on_commit=None, keys=None)",
    "Store.domain": "(self, domain)",
    "Store.domains": "(self)",
    "Store.verify": "(self, domain=None, *, anchor=None, progress=None, processes=None)",
    "Store.anchor": "(self, *, roots=True, progress=None)",
    "Store.bundle": "(self, domain, *, key=None, positions=None, correlation_id=None, after=None, until=None, since=None, progress=None)",
    "Store.backup": "(self, to, *, progress=None, processes=None)",
    "Store.accept": "(self, domain)",
    "Store.seal": "(self, domain)",
    "Store.archive": "(self, domain=None, *, before=None, to, dry_run=False, progress=None)",
    "Store.plan_retention": "(self, policy, domain=None, *, to=None, delete=False, take_over=False)",
    "Store.retain": "(self, policy, domain=None, *, to=None, delete=False, take_over=False, progress=None)",
    "Store.close": "(self)",
    "Store.resume": "(self)",
    "Store.metrics": "(self)",
    "Store.shred": "(self, subject, *, reason, actor=None, take_over=False)",
    "Store.intent": "(self, event_id, effect, *, resume=False, durability=None, **meta)",
    "Store.uncertain": "(self)",
    "OpenIntent.done": "(self, result=None)",
    "OpenIntent.fail": "(self, reason)",
    "DomainStore.write_value": f"(self, key, value, *, when=None, expected=ANY, {COMMON}, unchanged='append', **meta)",
    "DomainStore.remove_value": f"(self, key, *, when=None, expected=ANY, {COMMON}, **meta)",
    "DomainStore.write_values": f"(self, items, *, when=None, expected=ANY, {COMMON}, unchanged='append', **meta)",
    "DomainStore.remove_all": f"(self, prefix=None, *, when=None, {COMMON}, **meta)",
    "DomainStore.update_value": f"(self, key, change, *, default=MISSING, when=None, {COMMON}, **meta)",
    "DomainStore.restore_value": f"(self, key, position, *, when=None, expected=ANY, {COMMON}, **meta)",
    "DomainStore.redact": "(self, key=None, *, prefix=None, positions=None, reason, actor=None, dry_run=False, take_over=False)",
    "DomainStore.batch": f"(self, *, {COMMON})",
    "DomainStore.state": "(self, as_of=None)",
    "Batch.write_value": "(self, key, value, *, when=None, expected=ANY, unchanged='append', **meta)",
    "Batch.remove_value": "(self, key, *, when=None, expected=ANY, **meta)",
    "DomainView.read_value": "(self, key)",
    "DomainView.get": "(self, key, default=None)",
    "DomainView.has_value": "(self, key)",
    "DomainView.state_of": "(self, key)",
    "DomainView.at_hand": "(self, key)",
    "DomainView.keys": "(self, prefix=None)",
    "DomainView.values": "(self, prefix=None)",
    "DomainView.items": "(self, prefix=None)",
    "DomainView.head": "(self)",
    "DomainView.events": "(self, after=0, until=None, key=None, reverse=False, limit=None, carried=False)",
    "DomainView.event": "(self, position)",
    "DomainView.history": "(self, key, limit=None)",
    "DomainView.text_of": "(self, event)",
}


def signature_of(path: str) -> str:
    """The signature with its defaults as a reader would write them."""
    value: Any = eventstore
    for name in path.split("."):
        value = getattr(value, name)
    parameters = []
    for parameter in inspect.signature(value).parameters.values():
        named = parameter.replace(annotation=inspect.Parameter.empty)
        if isinstance(parameter.default, eventstore.Expected):
            text = f"{parameter.name}={parameter.default.name}"
        elif type(parameter.default) is object:
            text = f"{parameter.name}=MISSING"
        else:
            text = str(named)
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parameters:
            parameters.append("*")
        parameters.append(text)
    return f"({', '.join(parameters)})"


@pytest.mark.parametrize("path", SIGNATURES)
def test_a_verb_takes_the_arguments_that_are_documented(path: str) -> None:
    assert signature_of(path) == SIGNATURES[path]


@pytest.mark.parametrize("kind", [Store, DomainStore, DomainView, eventstore.Batch, eventstore.OpenIntent])
def test_there_is_no_verb_that_nobody_decided_on(kind: type) -> None:
    decided = {path.split(".")[1] for path in SIGNATURES if path.startswith(f"{kind.__name__}.")}
    internal = {"adopt", "after_fork", "redact_encrypted", "redact_told", "write_blob", "write_chosen"}
    inherited = set(dir(DomainView)) if kind is DomainStore else set()
    own = {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")} - inherited
    assert own - internal == decided


def test_what_is_public_can_be_imported_by_star() -> None:
    names: dict[str, Any] = {}
    exec("from eventstore import *", names)  # noqa: S102 - a star is allowed at module level only
    assert set(eventstore.__all__) <= set(names)
    assert {"open", "ABSENT", "ANY", "PRESENT", "Domain", "Event", "Head", "KeyState", "Receipt", "Store"} <= set(eventstore.__all__)


def test_the_nouns_have_the_fields_that_are_documented() -> None:
    assert Event.__struct_fields__ == (
        "position", "prev", "recorded_us", "when_us", "op", "checksum", "key", "meta", "salt", "digest", "data",
    )  # fmt: skip
    assert Head.__struct_fields__ == ("position", "checksum")
    assert eventstore.KeyState.__struct_fields__ == ("position", "when_us", "status")
    assert Receipt.__struct_fields__ == ("domain", "position", "checksum", "durability", "appended")
    assert Domain.__struct_fields__ == ("name", "write", "value", "codec", "subject")


@pytest.mark.parametrize("noun", [Head(1, b""), eventstore.KeyState(1, None, "present"), Domain("d"), Receipt("d", 1, b"", "power", True)])
def test_a_noun_cannot_be_changed(noun: Any) -> None:
    for name in noun.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(noun, name, 0)


# ---- values, keys, presence


def test_a_removed_key_has_no_value_but_a_history(any_store: Store) -> None:
    d = any_store.domain("d")
    assert not d.has_value("k")
    d.write_value("k", 1)
    assert d.has_value("k")
    d.remove_value("k")
    assert not d.has_value("k")
    assert "k" not in d
    assert (d.get("k"), d.get("k", 7), list(d.keys()), list(d.items()), len(d)) == (None, 7, [], [], 0)
    with pytest.raises(NotFoundError, match="was removed"):
        d.read_value("k")
    assert [event.op for event in d.history("k")] == ["remove", "put"]
    d.write_value("k", 2)
    assert (d.has_value("k"), d.read_value("k"), len(d)) == (True, 2, 1)


def test_null_is_a_value(any_store: Store) -> None:
    d = any_store.domain("d")
    d.write_value("k", None)
    assert (d.has_value("k"), d.read_value("k"), d.get("k", "default"), list(d.items())) == (True, None, None, [("k", None)])
    assert not d.write_value("k", None, unchanged="skip").appended
    assert d.write_value("k", None, expected=PRESENT).appended
    assert d.update_value("k", lambda value: [value]).appended
    assert d.read_value("k") == [None]


def test_a_key_that_was_never_written_is_a_key_error(any_store: Store) -> None:
    d = any_store.domain("d")
    with pytest.raises(KeyError, match="never written") as caught:
        d.read_value(("a", 1))
    assert isinstance(caught.value, NotFoundError)
    assert '["a",1]' in str(caught.value)
    assert d.state_of("k") is None


def test_what_a_reader_does_to_a_value_stays_with_the_reader(any_store: Store) -> None:
    d = any_store.domain("d")
    value = {"a": [1]}
    d.write_value("k", value)
    value["a"].append(2)
    d.read_value("k")["a"].append(3)
    next(d.values())["a"].append(4)
    assert d.read_value("k") == {"a": [1]}


def test_listings_are_in_natural_order(any_store: Store) -> None:
    d = any_store.domain("d")
    ordered: list[Key] = [(2,), (10,), ("", "x"), "1", "A", "a", "a2", "A10", "id2", ("id2", 1), ("id2", "1"), "id10", "z"]
    for n, key in enumerate(reversed(ordered)):
        d.write_value(key, n)
    assert list(d.keys()) == ordered
    assert list(d.values()) == list(range(len(ordered)))[::-1]
    assert [key for key, _ in d.items()] == ordered
    assert [receipt.position for receipt in d.remove_all()] == [len(ordered) + n + 1 for n in range(len(ordered))]
    assert [event.key for event in d.events(after=len(ordered))] == [eventstore.encode_key(key) for key in ordered]


PREFIXES: list[Any] = [None, (), "a", ("a",), ("a", "b"), ("a", 1), "", ("",), (1,), "ab", "nothing", ("a", "b", "c", "d"), "é"]


@pytest.mark.parametrize("prefix", PREFIXES, ids=str)
def test_what_a_prefix_lists_is_what_it_removes(any_store: Store, prefix: Key | None) -> None:
    d = any_store.domain("d")
    several: list[Key] = ["a", ("a", "b"), ("a", "b", "c"), ("a", 1), ("a", 10), ("a", "1"), ("", "x"), (1,), (1, 2), "ab", "a,b", "é"]
    d.write_values([(key, str(key)) for key in several])
    leading = () if prefix is None else (prefix,) if isinstance(prefix, str) else prefix
    wanted = [key for key in d.keys() if ((key,) if isinstance(key, str) else key)[: len(leading)] == leading]  # noqa: SIM118 - not a dict
    rest = [key for key in d.keys() if key not in wanted]  # noqa: SIM118 - not a dict
    assert list(d.keys(prefix)) == wanted
    assert list(d.values(prefix)) == [str(key) for key in wanted]
    assert list(d.items(prefix)) == [(key, str(key)) for key in wanted]
    assert len(d.remove_all(prefix)) == len(wanted)
    assert list(d.keys()) == rest


def test_the_longest_key_may_be_removed_by_its_prefix(any_store: Store) -> None:
    d = any_store.domain("d")
    for longest in ("x" * 1_020, ("a", "x" * 1_016)):
        d.write_value(longest, 1)
        assert list(d.keys(longest)) == [longest]
        assert len(d.remove_all(longest)) == 1


@pytest.mark.parametrize(
    "prefix", [True, 1, ("a", True), ("a", 1.0), b"a", "\0", ("a", None), "x" * 2_000], ids=lambda value: str(value)[:20]
)
def test_a_prefix_that_is_no_part_of_a_key_is_refused(any_store: Store, prefix: Any) -> None:
    d = any_store.domain("d")
    d.write_value("a", 1)
    for select in (d.keys, d.values, d.items, d.remove_all):
        with pytest.raises(InvalidKeyError):
            list(select(prefix))
    assert d.head().position == 1


def test_a_listing_goes_on_over_writes_in_between(any_store: Store) -> None:
    d = any_store.domain("d")
    for n in range(10):
        d.write_value(f"k{n}", n)
    seen = []
    for key in d.keys():  # noqa: SIM118 - not a dict
        seen.append(key)
        d.write_value(f"later {key}", 1)
    assert seen == [f"k{n}" for n in range(10)]


# ---- receipts


def test_a_receipt_names_the_event_it_is_for(any_store: Store) -> None:
    d = any_store.domain("d")
    with d.batch() as b:
        b.write_value("b", 1)
        b.remove_value("a")
    receipts = [d.write_value("a", 1), *d.write_values([("a", 2), ("b", 2)]), d.remove_value("a"), *b.receipts[:1], *d.remove_all()]
    for receipt in receipts:
        event = d.event(receipt.position)
        assert receipt == Receipt("d", event.position, event.checksum, "power" if any_store.location != "memory:" else "memory", True)
    assert sorted(receipt.position for receipt in receipts) == list(range(1, d.head().position + 1))


def test_a_removal_of_nothing_appends_nothing(any_store: Store) -> None:
    d = any_store.domain("d")
    head = d.head()
    assert not d.remove_value("k").appended
    assert d.remove_all() == []
    assert d.write_values([]) == []
    assert d.head() == head


# ---- writing many, and under a condition


def test_a_batch_is_written_whole_when_its_block_ends(any_store: Store) -> None:
    d = any_store.domain("d")
    d.write_value("old", 1)
    with d.batch() as b:
        b.write_value("a", 1)
        b.remove_value("old")
        b.write_value("a", 2, expected=PRESENT)
        assert d.head().position == 1
        assert b.receipts == []
    assert dict(d.items()) == {"a": 2}
    assert [receipt.position for receipt in b.receipts] == [2, 3, 4]


def test_a_block_that_fails_writes_nothing(any_store: Store) -> None:
    d = any_store.domain("d")
    with pytest.raises(ZeroDivisionError), d.batch() as b:
        b.write_value("a", 1 / 0)
    with pytest.raises(RuntimeError):
        fail_in_a_batch(d)
    assert d.head().position == 0


def fail_in_a_batch(d: DomainStore) -> None:
    with d.batch() as b:
        b.write_value("a", 1)
        raise RuntimeError


def batch_under_conditions(d: DomainStore, writes: list[tuple[str, Any]]) -> None:
    with d.batch() as b:
        for key, expected in writes:
            b.write_value(key, 2, expected=expected)


@pytest.mark.parametrize("at", range(3))
def test_one_wrong_expectation_stops_the_whole_call(any_store: Store, at: int) -> None:
    d = any_store.domain("d")
    standing = d.write_value("k", 1)
    writes: list[tuple[str, Any]] = [("a", ABSENT), ("b", ANY), ("c", ABSENT)]
    writes[at] = ("k", ABSENT)
    with pytest.raises(WrongExpectedError) as caught:
        batch_under_conditions(d, writes)
    assert (caught.value.domain, caught.value.key, caught.value.expected, caught.value.actual) == ("d", '["k"]', ABSENT, standing.position)
    with pytest.raises(WrongExpectedError):
        d.write_values([(key, 2) for key, _ in writes], expected=ABSENT)
    assert dict(d.items()) == {"k": 1}
    assert d.head().position == 1


def test_an_expected_position_is_that_of_the_keys_current_event(any_store: Store) -> None:
    d = any_store.domain("d")
    first = d.write_value("k", 1)
    d.write_value("other", 1)
    second = d.write_value("k", 2, expected=first.position)
    with pytest.raises(WrongExpectedError):
        d.write_value("k", 3, expected=first.position)
    d.remove_value("k", expected=second.position)
    with pytest.raises(WrongExpectedError):
        d.write_value("k", 3, expected=second.position)
    assert d.write_value("k", 3, expected=ABSENT).appended


def test_skip_appends_only_what_changes(any_store: Store) -> None:
    d = any_store.domain("d")
    first = d.write_value("k", {"a": 1}, when=5)
    skipped = d.write_value("k", {"a": 1}, when=5, unchanged="skip")
    assert (skipped.position, skipped.checksum, skipped.appended) == (first.position, first.checksum, False)
    for value, when in [
        ({"a": 1.0}, 5),
        ({"a": True}, 5),
        ({"a": 1}, 6),
        ({"a": 1}, None),
        ({"a": 1, "b": 2}, None),
        ({"b": 2, "a": 1}, None),
    ]:
        assert d.write_value("k", value, when=when, unchanged="skip").appended, (value, when)
    assert d.write_value("k", {"b": 2, "a": 1}, unchanged="append").appended


def test_first_write_wins_where_the_domain_says_so(any_store: Store) -> None:
    d = any_store.domain(Domain("d", write="first"))
    first = d.write_value("k", 1)
    again = d.write_value("k", 2)
    assert (again.position, again.checksum, again.appended) == (first.position, first.checksum, False)
    assert d.read_value("k") == 1
    removals: list[Callable[[], object]] = [lambda: d.remove_value("k"), d.remove_all]
    for removal in removals:
        with pytest.raises(ContractError):
            removal()
    assert d.head().position == 1


def test_a_domain_keeps_the_rule_it_was_made_with(open_store: Callable[..., Store]) -> None:
    with open_store() as store:
        store.domain(Domain("once", write="first"))
        with pytest.raises(ContractError, match="first"):
            store.domain(Domain("once"))
    with open_store() as store:
        with pytest.raises(ContractError):
            store.domain(Domain("once", write="replace"))
        assert store.domain("once").domain.write == "first"
        assert store.domain(Domain("once", write="first")).name == "once"


# ---- update


def test_an_update_is_made_from_what_stands(any_store: Store) -> None:
    d = any_store.domain("d")
    assert d.update_value("n", lambda value: value + 1, default=10).appended
    d.update_value("n", lambda value: value + 1, default=10, reason="count", when=3)
    assert d.read_value("n") == 12
    assert next(d.history("n")).when_us == 3
    d.remove_value("n")
    with pytest.raises(NotFoundError):
        d.update_value("n", lambda value: value + 1)
    d.update_value("n", lambda value: value, default=None)
    assert d.read_value("n") is None


def test_an_update_starts_again_when_another_writer_was_first(open_store: Callable[..., Store]) -> None:
    one, other = open_store().domain("d"), open_store().domain("d")
    one.write_value("n", 1)
    seen = []

    def change(value: int) -> int:
        seen.append(value)
        if len(seen) < 3:
            other.write_value("n", value * 10)
        return value + 1

    one.update_value("n", change)
    assert seen == [1, 10, 100]
    assert one.read_value("n") == other.read_value("n") == 101


def test_a_change_that_writes_to_its_own_domain_is_refused_instead_of_starting_again_for_ever(any_store: Store) -> None:
    d, other = any_store.domain("d"), any_store.domain("other")
    d.write_value("n", 1)
    calls: list[Any] = []

    def batched() -> None:
        with d.batch() as batch:
            batch.write_value("n", 5)

    writes: dict[str, Callable[[], object]] = {
        "write_value": lambda: d.write_value("n", 5),
        "another key": lambda: d.write_value("m", 5),
        "another handle": lambda: any_store.domain("d").write_value("n", 5),
        "remove_value": lambda: d.remove_value("n"),
        "update_value": lambda: d.update_value("n", lambda value: value),
        "batch": batched,
        "redact": lambda: d.redact("n", reason="asked"),
    }
    for name, write in writes.items():

        def change(value: int, write: Callable[[], object] = write) -> int:
            calls.append(value)
            assert len(calls) <= len(writes), "it was started again"
            write()
            return value + 1

        with pytest.raises(ConfigError, match="the function given to update_value writes to the domain"):
            d.update_value("n", change)
        assert d.head().position == 1, name
    d.update_value("n", lambda value: other.write_value("n", value).position + value)
    assert d.write_value("n", d.read_value("n") + 1).position == 3, "afterwards all is as before"
    assert d.read_value("n") == 3


def test_no_update_is_lost_between_threads(any_store: Store) -> None:
    d = any_store.domain("d")

    def count() -> None:
        for _ in range(20):
            d.update_value("n", lambda value: value + 1, default=0)

    threads = [threading.Thread(target=count) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert d.read_value("n") == 100
    assert d.head().position == 100


# ---- restore


def test_what_is_restored_is_the_text_byte_for_byte(any_store: Store) -> None:
    d = any_store.domain("d")
    text = ' {"b": 1.0, "a": "\\ud83d"}'
    d.write_value("k", msgspec.Raw(text.encode()), when=5)
    d.write_value("k", 2)
    receipt = d.restore_value("k", 1, when=9, actor="anna")
    event = d.event(receipt.position)
    assert (event.data, event.when_us, event.op, event.prev) == (text, 9, "put", 2)
    assert msgspec.json.decode(event.meta or "") == {"reason": "restored from position 1", "actor": "anna"}
    d.restore_value("k", 2, reason="mine")
    assert msgspec.json.decode(next(d.history("k")).meta or "") == {"reason": "mine"}
    assert d.read_value("k") == 2


def test_what_is_too_large_by_now_is_not_restored_either(tmp_path: Path) -> None:
    large = "ä" * 60
    with eventstore.open(tmp_path / "data") as store:
        for value in (large, "small"):
            store.domain("d").write_value("k", value)
    with eventstore.open(tmp_path / "data", max_value_bytes=100) as store:
        d = store.domain("d")
        refused: list[Callable[[], object]] = [
            lambda: d.write_value("k", large),
            lambda: d.update_value("k", lambda _: large),
            lambda: d.restore_value("k", 1),
        ]
        for write in refused:
            with pytest.raises(InvalidValueError, match=r"takes 122 bytes, at most 100 are allowed \(max_value_bytes\)"):
                write()
        assert d.restore_value("k", 2).position == 3
    with eventstore.open(tmp_path / "data") as store:
        assert store.domain("d").restore_value("k", 1).position == 4


def test_a_removal_can_be_restored_too(any_store: Store) -> None:
    d = any_store.domain("d")
    d.write_value("k", 1)
    d.remove_value("k")
    d.restore_value("k", 1)
    assert d.read_value("k") == 1
    assert d.restore_value("k", 2).appended
    assert not d.has_value("k")
    assert not d.restore_value("k", 2).appended


@pytest.mark.parametrize("position", [0, 2, 3, 4, 99, -1, 2**70])
def test_only_an_event_of_the_key_can_be_restored(any_store: Store, position: int) -> None:
    d = any_store.domain("d")
    d.write_value("k", 1)
    d.write_values([("other", 1), (("k", ""), 1)])
    with pytest.raises(NotFoundError, match=str(position)):
        d.restore_value("k", position)
    assert d.head().position == 3


def test_a_restore_can_be_under_a_condition(any_store: Store) -> None:
    d = any_store.domain("d")
    d.write_values([("k", 1), ("k", 2)])
    with pytest.raises(WrongExpectedError):
        d.restore_value("k", 1, expected=1)
    assert d.restore_value("k", 1, expected=2).appended


# ---- events


steps = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, 1, 2])), max_size=14)


def write_all(d: DomainStore, some: list[tuple[str, Any]]) -> None:
    for key, value in some:
        if value is None:
            d.remove_value(key)
        else:
            d.write_value(key, value)


@pytest.mark.parametrize("page", [1, 3, 256])
@given(
    some=steps,
    after=st.integers(-3, 16),
    until=st.none() | st.integers(-3, 16),
    key=st.sampled_from([None, "a", "b", "never"]),
    reverse=st.booleans(),
    limit=st.none() | st.integers(0, 16),
)
def test_events_are_selected_by_place_key_and_number(
    page: int, some: list[tuple[str, Any]], after: int, until: int | None, key: str | None, reverse: bool, limit: int | None
) -> None:
    with pytest.MonkeyPatch.context() as patch, eventstore.open("memory:") as store:
        patch.setattr("eventstore.view._PAGE", page)
        d = store.domain("d")
        write_all(d, some)
        whole = [d.event(position) for position in range(1, d.head().position + 1)]
        wanted = [event for event in whole if event.position > after and (until is None or event.position <= until)]
        if key is not None:
            wanted = [event for event in wanted if event.key == f'["{key}"]']
        if reverse:
            wanted.reverse()
        assert list(d.events(after, until, key, reverse, limit)) == wanted[:limit]


def test_the_events_of_a_folder_are_those_of_memory(store: Store) -> None:
    d = store.domain("d")
    d.write_values([(f"k{n % 3}", n) for n in range(600)])
    assert [event.position for event in d.events()] == list(range(1, 601))
    assert [event.position for event in d.events(after=250, until=520, reverse=True)] == list(range(520, 250, -1))
    assert [event.position for event in d.events(key="k1", after=299)] == list(range(302, 601, 3))
    assert [event.position for event in d.events(key="k1", reverse=True, limit=150)] == list(range(599, 149, -3))
    assert [event.position for event in islice(d.events(), 3)] == [1, 2, 3]


@pytest.mark.parametrize("limit", [-1, -100])
def test_a_negative_limit_is_refused(any_store: Store, limit: int) -> None:
    with pytest.raises(ConfigError, match=str(limit)):
        any_store.domain("d").events(limit=limit)
    with pytest.raises(ConfigError, match=str(limit)):
        any_store.domain("d").history("k", limit=limit)


def test_history_is_newest_first_with_removals(any_store: Store) -> None:
    d = any_store.domain("d")
    write_all(d, [("k", 1), ("other", 1), ("k", None), ("k", 2)])
    assert [(event.op, event.data, event.prev) for event in d.history("k")] == [("put", "2", 3), ("remove", None, 1), ("put", "1", 0)]
    assert [event.position for event in d.history("k", limit=2)] == [4, 3]
    assert list(d.history("never")) == []


def test_a_long_history_is_whole(any_store: Store) -> None:
    d = any_store.domain("d")
    d.write_values([("k", n) for n in range(1_000)])
    assert [event.data for event in d.history("k")] == [str(n) for n in reversed(range(1_000))]


def test_an_event_is_found_by_its_position(any_store: Store) -> None:
    d = any_store.domain("d")
    d.write_values([("k", 1), ("k", 2)])
    assert [d.event(position) for position in (1, 2)] == list(d.events())
    assert (d.event(0).op, d.event(0).key) == ("open", "[]")
    for position in (-1, 3, 2**70):
        with pytest.raises(NotFoundError, match=str(position)):
            d.event(position)


def test_the_head_is_the_last_event(any_store: Store) -> None:
    d = any_store.domain("d")
    assert d.head() == Head(0, d.event(0).checksum)
    receipt = d.write_value("k", 1)
    assert d.head() == Head(receipt.position, receipt.checksum)


# ---- the past


class Past:
    """What a domain held after each of its events, kept by hand."""

    def __init__(self, some: list[tuple[str, Any]]) -> None:
        self.states: list[dict[Key, Any]] = [{}]
        for key, value in some:
            state = dict(self.states[-1])
            if value is not None:
                state[key] = value
            elif key in state:
                del state[key]
            else:
                continue
            self.states.append(state)

    def check(self, view: DomainView, position: int) -> None:
        state = self.states[min(position, len(self.states) - 1)]
        assert dict(view.items()) == state
        assert list(view.keys()) == sorted(map(str, state))
        assert list(view.values()) == [state[key] for key in sorted(map(str, state))]
        assert len(view) == len(state)
        assert view.head().position == min(position, len(self.states) - 1)
        for key in ("a", "b", "c"):
            assert view.has_value(key) is (key in view) is (key in state)
            assert view.get(key, "none") == state.get(key, "none")
            found = view.state_of(key)
            assert next(view.history(key), None) == (view.event(found.position) if found else None)


@given(some=steps)
def test_the_state_as_of_every_position_is_the_fold_up_to_it(some: list[tuple[str, Any]]) -> None:
    with eventstore.open("memory:", cache_bytes=0) as store:
        d, past = store.domain("d"), Past(some)
        write_all(d, some)
        assert d.head().position == len(past.states) - 1
        for position in range(len(past.states) + 2):
            past.check(d.state(as_of=position), position)
        past.check(d.state(), len(past.states))


@given(some=steps, gaps=st.lists(st.integers(1, 20), min_size=14, max_size=14))
def test_the_state_as_of_every_recorded_time_is_the_fold_up_to_it(some: list[tuple[str, Any]], gaps: list[int]) -> None:
    with eventstore.open("memory:") as store:
        start = now_us() + 60_000_000
        times = iter([start + sum(gaps[:n]) for n in range(len(gaps))])
        store.clock = Clock(lambda: next(times))
        d, past = store.domain("d"), Past(some)
        for step in some:
            write_all(d, [step])
        recorded = [event.recorded_us for event in d.events()]
        for us in {at + shift for at in recorded for shift in (-1, 0, 1)}:
            past.check(d.state(as_of=moment(us)), sum(at <= us for at in recorded))
        past.check(d.state(as_of=moment(0)), 0)
        past.check(d.state(as_of=datetime.max.replace(tzinfo=UTC)), len(past.states))


@pytest.mark.parametrize("spacing", [5, 100_000], ids=["beside pointer files", "without pointer files"])
def test_the_past_of_a_folder_is_the_fold_up_to_every_position(
    open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spacing: int
) -> None:
    monkeypatch.setattr("eventstore.live.SPACING", spacing)
    monkeypatch.setattr("eventstore.pointers.SPACING", spacing)
    some = [("abc"[n * n % 3], None if n % 5 == 4 else n) for n in range(60)]
    past = Past(some)
    with open_store() as store:
        write_all(store.domain("d"), some)
    assert bool(list((tmp_path / "data").glob("logs/d/pointers/*.keys"))) is (spacing == 5)
    with open_store() as store:
        d = store.domain("d")
        for position in range(len(past.states) + 2):
            past.check(d.state(as_of=position), position)
        for event in d.events():
            past.check(d.state(as_of=moment(event.recorded_us)), event.position)


def test_a_view_of_the_past_stands_still(any_store: Store) -> None:
    d = any_store.domain("d")
    d.write_values([("a", 1), ("b", 1)])
    views = [d.state(as_of=2), d.state(as_of=99), d.state(as_of=2**70), d.state(), d.state(as_of=datetime.max.replace(tzinfo=UTC))]
    d.write_value("a", 2)
    d.remove_value("b")
    d.write_value("c", 1)
    for view in views:
        assert dict(view.items()) == {"a": 1, "b": 1}
        assert view.head().position == 2
        assert [event.position for event in view.events()] == [1, 2]
        assert [event.position for event in view.events(until=4, reverse=True)] == [2, 1]
        assert [event.position for event in view.history("a")] == [1]
        with pytest.raises(NotFoundError):
            view.event(3)
        with pytest.raises(NotFoundError, match="as of position 2"):
            view.read_value("c")
        assert not hasattr(view, "write_value")


@pytest.mark.parametrize(
    ("as_of", "error"),
    [
        (-1, ConfigError),
        (True, ConfigError),
        (1.5, ConfigError),
        ("2026-01-01T00:00:00Z", ConfigError),
        (b"1", ConfigError),
        (Head(1, b""), ConfigError),
        (EPOCH.replace(tzinfo=None), NaiveTimeError),
    ],
    ids=["negative", "a boolean", "a float", "text", "bytes", "a head", "naive"],
)
def test_a_past_that_is_no_place_or_time_is_refused(any_store: Store, as_of: Any, error: type[Exception]) -> None:
    d = any_store.domain("d")
    d.write_value("k", 1)
    with pytest.raises(error):
        d.state(as_of=as_of)


# ---- opening and closing


def test_a_store_closes_when_its_block_ends_and_also_when_it_fails(tmp_path: Path) -> None:
    for location in ("memory:", tmp_path / "data"):
        with eventstore.open(location) as store:
            assert isinstance(store, Store)
            store.domain("d").write_value("k", 1)
        with pytest.raises(ClosedError):
            store.domains()
        failing = eventstore.open(location)
        with pytest.raises(ZeroDivisionError), failing:
            failing.domain("d").write_value("k", 1 / 0)
        with pytest.raises(ClosedError):
            failing.domains()


def verbs_of_a_store(store: Store) -> dict[str, Callable[[], object]]:
    return {
        "domain": lambda: store.domain("d"),
        "domain, new": lambda: store.domain("new"),
        "domains": store.domains,
        "verify": store.verify,
        "accept": lambda: store.accept("d"),
    }


def writes_of_a_domain(d: DomainStore) -> dict[str, Callable[[], object]]:
    def batch() -> None:
        with d.batch() as b:
            b.write_value("k", 1)

    return {
        "write_value": lambda: d.write_value("k", 1),
        "write_value, skipped": lambda: d.write_value("k", 1, unchanged="skip"),
        "write_value, again": lambda: d.write_value("e", 1, event_id="e"),
        "remove_value": lambda: d.remove_value("k"),
        "remove_value, absent": lambda: d.remove_value("never"),
        "write_values": lambda: d.write_values([("k", 1)]),
        "write_values, none": lambda: d.write_values([]),
        "remove_all": d.remove_all,
        "update_value": lambda: d.update_value("k", lambda value: value),
        "restore_value": lambda: d.restore_value("k", 1),
        "batch": batch,
        "state": d.state,
        "state, as of": lambda: d.state(as_of=1),
        "get": lambda: d.get("k"),
        "has_value": lambda: d.has_value("k"),
        "keys": lambda: list(d.keys()),
        "head": d.head,
        "len": lambda: len(d),
        "in": lambda: "k" in d,
        "state_of": lambda: d.state_of("k"),
    }


def reads_of_a_view(view: DomainView) -> dict[str, Callable[[], object]]:
    """Those that need the log, whatever is at hand."""
    return {
        "read_value": lambda: view.read_value("k"),
        "values": lambda: list(view.values()),
        "items": lambda: list(view.items()),
        "events": lambda: list(view.events()),
        "events, newest first": lambda: list(view.events(reverse=True)),
        "events of a key": lambda: list(view.events(key="k")),
        "history": lambda: list(view.history("k")),
        "event": lambda: view.event(1),
    }


def silent_after_closing(calls: dict[str, Callable[[], object]]) -> list[str]:
    """Those of the calls that do not say that the store was closed, and what to do."""
    silent = []
    for name, call in calls.items():
        try:
            call()
        except ClosedError as error:
            if "open it again" in str(error) or "open the store again" in str(error):
                continue
        silent.append(name)
    return silent


@pytest.mark.parametrize("cached", [True, False], ids=["values at hand", "no value at hand"])
@pytest.mark.parametrize("location", ["memory:", "folder"])
def test_after_closing_every_verb_says_so(tmp_path: Path, location: str, cached: bool) -> None:
    store = eventstore.open(location if location == "memory:" else tmp_path / "data", cache_bytes=10_000 if cached else 0)
    d = store.domain("d")
    d.write_value("k", 1)
    d.write_value("e", 1, event_id="e")
    view = d.state(as_of=1)
    store.close()
    store.close()
    assert silent_after_closing(verbs_of_a_store(store)) == []
    assert silent_after_closing(writes_of_a_domain(d)) == []
    assert silent_after_closing(reads_of_a_view(d)) == []
    assert silent_after_closing(reads_of_a_view(view)) == []
    assert "closed" in repr(store)


def test_a_domain_is_one_however_often_it_is_asked_for(any_store: Store) -> None:
    one, other = any_store.domain("d"), any_store.domain(Domain("d"))
    one.write_value("k", 1)
    assert other.read_value("k") == 1
    assert any_store.domains() == ["d"]


def test_domains_are_listed_by_name(any_store: Store) -> None:
    for name in ("b", "a10", "a2", "c.d"):
        any_store.domain(name).write_value("k", name)
    assert any_store.domains() == ["a10", "a2", "b", "c.d"]
    assert [any_store.domain(name).read_value("k") for name in any_store.domains()] == any_store.domains()


def test_two_stores_in_memory_have_nothing_in_common() -> None:
    with eventstore.open("memory:") as one, eventstore.open("memory:") as other:
        one.domain("d").write_value("k", 1)
        assert other.domains() == []
        assert one.store_id != other.store_id


def test_when_is_kept_to_the_microsecond(any_store: Store) -> None:
    d = any_store.domain("d")
    at = datetime(2026, 11, 21, 14, 3, 7, 123_457, tzinfo=UTC)
    d.write_value("a", 1, when=at)
    d.write_value("b", 1, when=-(2**63))
    d.write_value("c", 1, when=2**63 - 1)
    d.write_value("d", 1, when=0)
    d.write_value("e", 1)
    assert [event.when_us for event in d.events()] == [(at - EPOCH) // timedelta(microseconds=1), -(2**63), 2**63 - 1, 0, None]
    state = d.state_of("a")
    assert state is not None
    assert (state.when_us, state.status, state.position) == (d.event(1).when_us, "present", 1)


# ---- arguments of a wrong type

WRONG: list[Any] = [
    None, 5, -1, 2**70, True, 1.5, float("nan"), "x", "", "\ud800", b"x", [], [1], {}, {1: 2}, (), object(), callable,
    EPOCH.replace(tzinfo=None), 3j, ANY, int,
]  # fmt: skip
RIGHT: dict[str, Any] = {
    "key": "k", "value": 1, "position": 1, "event_id": "id", "effect": 1, "items": [("a", 1)], "change": lambda value: value, "domain": "d",
    "events": [], "text": "1", "location": "memory:", "reason": "none", "name": "d", "to": "backup", "subject": "s",
    "policy": eventstore.Retention(keep_events=1),
}  # fmt: skip
VERBS = [*SIGNATURES, "Store.adopt", "Domain", "decode_key", "decode_value", "encode_key"]


def spoiled(verb: Callable[..., Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every call of `verb` with one argument that is not, or may not be, what belongs there."""
    # `progress` is the caller's own function: what comes of calling it is his.
    parameters = [each for each in inspect.signature(verb).parameters.values() if each.name != "progress"]
    right = {each.name: RIGHT[each.name] for each in parameters if each.default is each.empty and each.name in RIGHT}
    for each in parameters:
        names = ["actor", "reason", "type", "tags"] if each.kind is each.VAR_KEYWORD else [each.name]
        for name in names:
            for wrong in WRONG:
                yield f"{name}={wrong!r}", {**right, name: wrong}


@pytest.mark.parametrize("path", [path for path in VERBS if path not in ("Store.close", "Store.resume")])
def test_an_argument_of_a_wrong_type_is_an_error_of_ours(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never AttributeError, TypeError or SQLite's, from somewhere within."""
    monkeypatch.chdir(tmp_path)
    with eventstore.open("memory:") as store, contextlib.ExitStack() as blocks:
        domain = store.domain("d")
        domain.write_value("k", 1)
        made: dict[str, Any] = {"Store": store, "DomainStore": domain, "DomainView": domain.state()}
        owner, _, name = path.rpartition(".")
        if owner == "Batch":
            made["Batch"] = blocks.enter_context(domain.batch())
        if owner == "OpenIntent":
            made["OpenIntent"] = blocks.enter_context(store.intent("open", 1))
        escaped = []
        for said, arguments in spoiled(getattr(made.get(owner, eventstore), name)):
            try:
                use(getattr(made.get(owner, eventstore), name)(**arguments))
            except eventstore.EventStoreError:
                continue
            except Exception as error:  # noqa: BLE001  what it is, is the question
                escaped.append(f"{said}: {error!r}")
        if owner == "Batch":
            made["Batch"].drafts.clear()
        assert escaped == []


def use(answer: object) -> None:
    """What is lazy is wrong only when it is used."""
    if isinstance(answer, Iterator):
        list(answer)
    elif isinstance(answer, contextlib.AbstractContextManager):
        with answer:
            pass


@pytest.mark.parametrize("location", ["memory:x", "memory://", "memory:./x"])
def test_a_store_in_memory_has_no_name_and_makes_no_folder(location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="a store in memory has no name"):
        eventstore.open(location)
    assert list(tmp_path.iterdir()) == []
    eventstore.open("./memory:x").close()
    assert [path.name for path in tmp_path.iterdir()] == ["memory:x"], "a path is one"
