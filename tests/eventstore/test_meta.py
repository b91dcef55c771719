"""What an event says about itself: stored as given, shown as stored, and refused by name where it cannot be."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventstore
import eventstore.aio
from eventstore import ConfigError, DomainStore, DuplicateEventError, Event, InvalidKeyError, InvalidValueError, Store
from eventstore.meta import EventMeta, meta_text

words = st.text(max_size=10)
MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "actor": words,
    "reason": words,
    "correlation_id": words,
    "causation_id": words,
    "run_id": words,
    "type": words,
    "schema": words | st.integers(),
    "tags": st.lists(words, max_size=3),
    "origin": st.fixed_dictionaries({"store_id": words, "position": st.integers(0, 2**60)}),
}
metas = st.fixed_dictionaries({}, optional=MEMBERS)


def said(event: Event) -> dict[str, Any] | None:
    """The event's meta as any reader of JSON sees it."""
    if event.meta is None:
        return None
    members: dict[str, Any] = json.loads(event.meta)
    return members


def last(d: DomainStore) -> Event:
    return next(d.events(reverse=True))


def every_write(d: DomainStore, **meta: Any) -> dict[str, Callable[[], object]]:
    """Each verb that writes, appending one event to a domain where "k" and "j" stand."""

    def batch() -> None:
        with d.batch() as b:
            b.write_value("k", 2, **meta)

    def batched_removal() -> None:
        with d.batch() as b:
            b.remove_value("k", **meta)

    return {
        "write_value": lambda: d.write_value("k", 2, **meta),
        "remove_value": lambda: d.remove_value("k", **meta),
        "write_values": lambda: d.write_values([("k", 2)], **meta),
        "remove_all": lambda: d.remove_all("k", **meta),
        "update_value": lambda: d.update_value("k", lambda value: 2, **meta),
        "restore_value": lambda: d.restore_value("k", 1, **meta),
        "batch": batch,
        "batched removal": batched_removal,
    }


VERBS = ["write_value", "remove_value", "write_values", "remove_all", "update_value", "restore_value", "batch", "batched removal"]


def a_domain(store: Store) -> DomainStore:
    d = store.domain("d")
    d.write_values([("k", 1), ("j", 1)], actor="setup")
    return d


# ---- stored and shown


def test_these_are_all_the_members_there_are() -> None:
    assert set(EventMeta.__annotations__) == set(MEMBERS)


@pytest.mark.parametrize("verb", VERBS)
@given(meta=metas)
def test_every_member_is_stored_as_given(verb: str, meta: dict[str, Any]) -> None:
    with eventstore.open("memory:") as store:
        d = a_domain(store)
        every_write(d, **meta)[verb]()
        expected = {"reason": "restored from position 1", **meta} if verb == "restore_value" else meta
        assert said(last(d)) == (expected or None)


@pytest.mark.parametrize("verb", VERBS)
def test_an_event_that_says_nothing_has_no_meta(verb: str) -> None:
    with eventstore.open("memory:") as store:
        d = a_domain(store)
        every_write(d, reason="only this", actor=None, tags=None)[verb]()
        assert said(last(d)) == {"reason": "only this"}
        d.write_value("k", 1)
        assert last(d).meta is None


def test_every_event_of_a_call_says_the_same() -> None:
    with eventstore.open("memory:", actor="bot") as store:
        d = store.domain("d")
        d.write_values([("a", 1), ("b", 2)], reason="load", tags=["x", "y"])
        d.remove_all(reason="clear")
        load, clear = {"actor": "bot", "reason": "load", "tags": ["x", "y"]}, {"actor": "bot", "reason": "clear"}
        assert [said(event) for event in d.events()] == [load, load, clear, clear]


def test_each_write_of_a_batch_speaks_for_itself(any_store: Store) -> None:
    d = any_store.domain("d")
    with d.batch() as b:
        b.write_value("a", 1, reason="one", type="opened")
        b.write_value("b", 2)
        b.remove_value("a", actor="other")
    assert [said(event) for event in d.events()] == [{"reason": "one", "type": "opened"}, None, {"actor": "other"}]


def test_a_log_shows_what_was_said_after_it_was_reopened(open_store: Callable[..., Store]) -> None:
    text = 'quote " \\ \n \0 é 😀 \u2028'
    with open_store() as store:
        store.domain("d").write_value("k", 1, reason=text, schema=2**70, tags=("a", text))
    with open_store() as store:
        assert said(last(store.domain("d"))) == {"reason": text, "schema": 2**70, "tags": ["a", text]}


# ---- the actor


@pytest.mark.parametrize("verb", VERBS)
def test_the_stores_actor_stands_where_none_is_given(verb: str) -> None:
    with eventstore.open("memory:", actor="bot") as store:
        d = a_domain(store)
        every_write(d, correlation_id="c")[verb]()
        members = said(last(d)) or {}
        assert (members["actor"], members["correlation_id"]) == ("bot", "c")


@pytest.mark.parametrize("verb", VERBS)
def test_the_calls_actor_comes_before_the_stores(verb: str) -> None:
    with eventstore.open("memory:", actor="bot") as store:
        d = a_domain(store)
        every_write(d, actor="anna")[verb]()
        assert (said(last(d)) or {})["actor"] == "anna"
        assert (last(d).meta or "").count("actor") == 1


@pytest.mark.parametrize("actor", [5, 0, True, [], ["bot"], b"bot", "\ud83d", "x" * 70_000])
def test_an_actor_that_no_write_may_name_is_refused_when_the_store_is_opened(actor: Any, tmp_path: Path) -> None:
    for opening in (eventstore.open, lambda *given, **named: asyncio.run(eventstore.aio.open(*given, **named))):
        with pytest.raises(ConfigError):
            opening(tmp_path / "data", actor=actor)
    assert list(tmp_path.iterdir()) == [], "refused before anything was made"


def test_an_actor_of_the_environment_that_is_no_text_is_refused_when_the_store_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_ACTOR", os.fsdecode(b"\xff"))
    with pytest.raises(ConfigError):
        eventstore.open("memory:")


def test_the_environment_may_name_the_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_ACTOR", "env")
    with eventstore.open("memory:") as store:
        store.domain("d").write_value("k", 1)
        assert said(last(store.domain("d"))) == {"actor": "env"}
    with eventstore.open("memory:", actor="argument") as store:
        store.domain("d").write_value("k", 1)
        assert said(last(store.domain("d"))) == {"actor": "argument"}


@pytest.mark.parametrize("verb", ["write_value", "remove_value", "write_values", "remove_all", "update_value", "restore_value"])
def test_a_retry_under_another_default_actor_is_the_same_request(open_store: Callable[..., Store], verb: str) -> None:
    with open_store(actor="monday") as store:
        d = a_domain(store)
        first = every_write(d, event_id="e", reason="r")[verb]()
        assert (said(last(d)) or {})["actor"] == "monday"
    with open_store(actor="tuesday") as store:
        d = store.domain("d")
        head = d.head()
        assert every_write(d, event_id="e", reason="r")[verb]() == first
        assert d.head() == head


@pytest.mark.parametrize("other", [{"actor": "anna"}, {"reason": "s"}, {}, {"reason": "r", "run_id": "1"}], ids=str)
def test_a_retry_that_says_something_else_is_another_request(other: dict[str, str]) -> None:
    with eventstore.open("memory:", actor="bot") as store:
        d = store.domain("d")
        d.write_value("k", 1, event_id="e", reason="r")
        with pytest.raises(DuplicateEventError):
            d.write_value("k", 1, event_id="e", **other)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


# ---- refused


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", ["reasons", "codec", "request", "batch_id", "user", "x" * 100])
def test_an_unknown_member_is_a_type_error_that_names_it(verb: str, name: str) -> None:
    with eventstore.open("memory:") as store:
        d = a_domain(store)
        head = d.head()
        with pytest.raises(TypeError, match=name):
            every_write(d, **{name: "x"})[verb]()
        assert d.head() == head


WRONG: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(
        ("actor", "reason", "correlation_id", "causation_id", "run_id", "type"), (1, 1.5, True, b"x", ["x"], {"x": 1}, object())
    ),
    "schema": (True, 1.5, b"x", [1], {}),
    "tags": ("urgent", 1, {"x"}, {"x": 1}, [1], ["a", None], ("a", b"b"), [["a"]]),
    "origin": ("x", 1, ["x"], [("a", 1)]),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values], ids=lambda v: str(v)[:20]
)
def test_a_member_of_another_type_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        meta_text({name: value}, None)  # type: ignore[misc] # pyright: ignore[reportArgumentType]


NO_JSON: dict[str, dict[str, Any]] = {
    "half an emoji": {"actor": "\ud83d"},
    "half an emoji in a tag": {"tags": ["\ud83d"]},
    "half an emoji in an origin": {"origin": {"a": "\ud83d"}},
    "an integer without end": {"schema": 10**5_000},
    "an object in an origin": {"origin": {"a": object()}},
    "a number without end in an origin": {"origin": {"a": 10**5_000}},
}


@pytest.mark.parametrize("meta", NO_JSON.values(), ids=NO_JSON)
def test_what_cannot_be_written_as_json_is_refused(any_store: Store, meta: dict[str, Any]) -> None:
    d = any_store.domain("d")
    with pytest.raises(ConfigError):
        d.write_value("k", 1, **meta)
    assert d.head().position == 0


def test_an_actor_of_the_store_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(ConfigError), eventstore.open("memory:", actor="\ud83d") as store:
        store.domain("d").write_value("k", 1)


@pytest.mark.parametrize("event_id", ["", 1, True, b"e", ["e"], "\ud83d", "a\udfff"], ids=repr)
@pytest.mark.parametrize("verb", ["write_value", "remove_value", "write_values", "remove_all", "update_value", "restore_value"])
def test_an_event_id_is_a_text_that_says_something(verb: str, event_id: Any) -> None:
    with eventstore.open("memory:") as store:
        d = a_domain(store)
        head = d.head()
        with pytest.raises(ConfigError):
            every_write(d, event_id=event_id)[verb]()
        assert d.head() == head


OPTIONS: dict[str, tuple[Any, ...]] = {
    "expected": (None, 0, -1, True, 1.5, "absent", "ANY"),
    "durability": ("none", "power", "process", 1, ""),
    "unchanged": ("keep", "", True, None),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OPTIONS.items() for value in values])
def test_an_option_that_cannot_be_is_refused_before_anything_is_written(name: str, value: Any) -> None:
    with eventstore.open("memory:") as store:
        d = a_domain(store)
        head = d.head()
        with pytest.raises(ConfigError, match=name):
            d.write_value("k", 2, **{name: value})
        assert d.head() == head


def test_the_first_thing_wrong_is_named_and_nothing_is_written(any_store: Store) -> None:
    d = any_store.domain("d")
    wrong: list[tuple[Any, Any, dict[str, Any], type[Exception]]] = [
        ("", 1, {}, InvalidKeyError),
        ("k", float("nan"), {}, InvalidValueError),
        ("k", 1, {"when": "now"}, ConfigError),
        ("k", 1, {"typo": 1}, TypeError),
    ]
    for key, value, options, error in wrong:
        with pytest.raises(error):
            d.write_value(key, value, **options)
    assert d.head().position == 0


def test_what_is_too_much_is_told_without_an_option_that_does_not_govern_it() -> None:
    assert meta_text({"reason": "x" * (65_536 - 13)}, None)[0] is not None
    for size in (65_536 - 12, 2**24):
        with pytest.raises(ConfigError, match=r"what the event says of itself takes [\d,]+ bytes, at most 65,536 are kept") as caught:
            meta_text({"reason": "x" * size}, None)
        assert "max_value_bytes" not in str(caught.value)
