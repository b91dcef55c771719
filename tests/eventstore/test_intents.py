"""Store.intent(): recorded before, acknowledged after, listed while nobody knows, never run twice."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import eventstore
from eventstore import (
    ClosedError,
    ConfigError,
    ContractError,
    DuplicateEventError,
    EngineError,
    HaltedError,
    InvalidKeyError,
    InvalidValueError,
    OpenIntent,
    ReadOnlyError,
    SettledError,
    Store,
    UnavailableError,
    UncertainError,
)
from eventstore.intents import INTENTS, NOTE_BYTES, NOTE_CHARS, IntentRecord
from eventstore.log import EventLog

ROOT = Path(__file__).resolve().parents[2]
ORDER: dict[str, Any] = {"side": "buy", "quantity": 2}


@pytest.fixture
def memory() -> Iterator[Store]:
    """A store for what no disk has a part in."""
    with eventstore.open("memory:", max_value_bytes=10_000) as store:
        yield store


def record(store: Store, event_id: str) -> IntentRecord:
    """What stands in the log."""
    found: IntentRecord = store.domain(INTENTS).read_value(event_id)
    return found


def must_not_run() -> None:
    pytest.fail("the block ran")


def begin(store: Store, event_id: str, effect: Any = ORDER) -> None:
    """Leave an effect behind as a crash does."""
    store.intent(event_id, effect).__enter__()


def act(intent: OpenIntent, *steps: Callable[[OpenIntent], object]) -> None:
    """Enter it and take the steps, each of which may raise."""
    with intent:
        for step in steps:
            step(intent)


def fails(error: BaseException) -> Callable[[OpenIntent], object]:
    """A step that raises."""

    def step(_: OpenIntent) -> object:
        raise error

    return step


# ---- one effect, from beginning to end


def test_an_effect_is_recorded_before_and_acknowledged_after(any_store: Store) -> None:
    with any_store.intent("order-1", ORDER, reason="breakout") as intent:
        assert (intent.event_id, intent.effect, intent.uncertain, intent.status) == ("order-1", ORDER, False, "pending")
        assert record(any_store, "order-1") == IntentRecord("pending", ORDER, pid=os.getpid())
        receipt = intent.done({"fill": 3})
        assert record(any_store, "order-1") == IntentRecord("done", ORDER, {"fill": 3})
        assert (receipt.appended, receipt.domain, receipt.durability) == (True, "intents", any_store.domain("d")._live.log.durability)
    assert (intent.status, intent.result) == ("done", {"fill": 3})
    assert any_store.uncertain() == []
    events = list(any_store.domain("intents").history("order-1"))
    assert [json.loads(event.data or "")["status"] for event in events] == ["done", "pending"]
    assert all("breakout" in str(event.meta) for event in events)


def test_leaving_the_block_without_a_word_is_done(any_store: Store) -> None:
    with any_store.intent("order-1", ORDER) as intent:
        pass
    assert (intent.status, record(any_store, "order-1")) == ("done", IntentRecord("done", ORDER))


def test_done_is_durable_when_it_returns_whatever_comes_after(any_store: Store) -> None:
    with pytest.raises(KeyError):
        act(any_store.intent("order-1", ORDER), lambda intent: intent.done("filled"), fails(KeyError("later")))
    assert record(any_store, "order-1") == IntentRecord("done", ORDER, "filled")


@pytest.mark.parametrize("result", [None, 0, -0.0, "", [], {}, 10**2_000, "\ud83d", {"deep": [[[1.5]]]}, msgspec.Raw(b'{"a": 1e2}')])
def test_a_result_comes_back_exactly(memory: Store, result: Any) -> None:
    with memory.intent("order-1", ORDER) as intent:
        intent.done(result)
    with pytest.raises(SettledError) as caught, memory.intent("order-1", ORDER):
        must_not_run()
    expected = {"a": 100.0} if isinstance(result, msgspec.Raw) else result
    assert repr(caught.value.result) == repr(expected)


class Order(msgspec.Struct, frozen=True):
    """An effect with a type."""

    side: str
    quantity: int


@pytest.mark.parametrize(
    "effect",
    [None, False, 0, -0.0, "", "\ud83d \0 \u202e", [], {}, [[]], 10**2_000, 1e308, {"": {"status": "done"}}, Order("buy", 1), (1, 2),
     msgspec.Raw(b' {"a" : 1e2, "b":-0} '), "x" * 7_900],
    ids=lambda effect: repr(effect)[:20],
)  # fmt: skip
def test_any_json_is_an_effect(memory: Store, effect: Any) -> None:
    begin(memory, "order-1", effect)
    (left,) = memory.uncertain()
    plain = json.loads(bytes(effect)) if isinstance(effect, msgspec.Raw) else msgspec.to_builtins(effect)
    assert left.effect == (list(plain) if isinstance(plain, tuple) else plain)
    # As listed, and as given at first, it is the same effect.
    with memory.intent("order-1", left.effect, resume=True) as intent:
        assert intent.uncertain
    with pytest.raises(SettledError), memory.intent("order-1", effect):
        must_not_run()


@pytest.mark.parametrize(
    "event_id", ["a", " ", "[]", '["a"]', "a/../b", "заказ-1", "注文", "é", "e\u0301", "🚀", "\u202eabc", "\n", "x" * 1_000]
)
def test_ids_in_any_script_name_their_own_effect(memory: Store, event_id: str) -> None:
    begin(memory, event_id)
    begin(memory, event_id + "2")
    assert [left.event_id for left in memory.uncertain()] == [event_id, event_id + "2"]


# ---- refused before anything happens


@pytest.mark.parametrize(
    ("event_id", "effect", "error"),
    [
        ("order-1", math.nan, InvalidValueError),
        ("order-1", {"price": [1, math.inf]}, InvalidValueError),
        ("order-1", {1: 2}, InvalidValueError),
        ("order-1", b"bytes", InvalidValueError),
        ("order-1", {"set"}, InvalidValueError),
        ("order-1", object(), InvalidValueError),
        ("order-1", msgspec.Raw(b'{"a":1,"a":2}'), InvalidValueError),
        ("order-1", "x" * 10_000, InvalidValueError),
        ("", ORDER, InvalidKeyError),
        ("\0", ORDER, InvalidKeyError),
        ("\ud83d", ORDER, InvalidKeyError),
        ("x" * 1_100, ORDER, InvalidKeyError),
        (7, ORDER, ConfigError),
        (("a", "b"), ORDER, ConfigError),
        (None, ORDER, ConfigError),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_anything_happens(memory: Store, event_id: Any, effect: Any, error: type) -> None:
    with pytest.raises(error):
        memory.intent(event_id, effect)
    assert memory.domains() == []


@pytest.mark.parametrize("wrong", [{"durability": "for ever"}, {"actor": 7}])
def test_a_wrong_argument_does_not_let_the_block_run(memory: Store, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError), memory.intent("order-1", ORDER, **wrong):
        must_not_run()
    assert memory.uncertain() == []


def test_an_effect_nested_too_deep_for_its_record_does_not_let_the_block_run(any_store: Store) -> None:
    deep: Any = []
    for _ in range(63):
        deep = [deep]
    with pytest.raises(InvalidValueError), any_store.intent("order-1", deep):
        must_not_run()
    assert any_store.uncertain() == []


def test_a_read_only_store_lists_and_refuses(open_store: Callable[..., Store]) -> None:
    with open_store() as store:
        assert store.uncertain() == []
        assert store.domains() == []  # who only looks makes nothing
        assert open_store(read_only=True).uncertain() == []
        begin(store, "order-1")
    with open_store(read_only=True) as store:
        assert [left.event_id for left in store.uncertain()] == ["order-1"]
        with pytest.raises(ReadOnlyError):
            store.intent("order-2", ORDER)


def test_values_of_others_in_the_domain_are_named(any_store: Store) -> None:
    any_store.domain("intents").write_value("order-1", {"mine": 1})
    with pytest.raises(ContractError, match="order-1"), any_store.intent("order-1", ORDER):
        must_not_run()
    with pytest.raises(ContractError, match=r"only Store\.intent"):
        any_store.uncertain()


def test_a_domain_of_another_rule_is_refused(any_store: Store) -> None:
    any_store.domain(eventstore.Domain("intents", "first"))
    with pytest.raises(ContractError):
        any_store.intent("order-1", ORDER)


# ---- entered again


def test_what_is_done_is_not_done_again(any_store: Store) -> None:
    with any_store.intent("order-1", ORDER) as intent:
        intent.done({"fill": 3})
    for resume in (False, True):
        with pytest.raises(SettledError) as caught, any_store.intent("order-1", ORDER, resume=resume):
            must_not_run()
        assert (caught.value.status, caught.value.result, caught.value.event_id) == ("done", {"fill": 3}, "order-1")


def test_what_has_failed_for_certain_is_tried_again_under_another_id_only(any_store: Store) -> None:
    with any_store.intent("order-1", ORDER) as intent:
        intent.fail("margin")
    assert record(any_store, "order-1") == IntentRecord("failed", ORDER, reason="margin")
    for resume in (False, True):
        with pytest.raises(SettledError, match="new event_id") as caught, any_store.intent("order-1", ORDER, resume=resume):
            must_not_run()
        assert (caught.value.status, caught.value.reason) == ("failed", "margin")
    with any_store.intent("order-2", ORDER):
        pass
    assert any_store.uncertain() == []


def test_what_was_begun_before_runs_for_those_who_ask_first_only(any_store: Store) -> None:
    begin(any_store, "order-1")
    with pytest.raises(UncertainError, match="resume=True") as caught, any_store.intent("order-1", ORDER):
        must_not_run()
    assert (caught.value.event_id, caught.value.pid, caught.value.error) == ("order-1", os.getpid(), None)
    with any_store.intent("order-1", ORDER, resume=True) as intent:
        assert intent.uncertain
        intent.done("found")
    assert record(any_store, "order-1").result == "found"
    with any_store.intent("order-2", ORDER, resume=True) as intent:
        assert not intent.uncertain


@pytest.mark.parametrize("other", [{"quantity": 2, "side": "buy"}, {**ORDER, "quantity": 2.0}, {**ORDER, "quantity": True}, None])
@pytest.mark.parametrize("status", ["pending", "done", "failed"])
def test_an_id_names_one_effect_for_ever(memory: Store, other: Any, status: str) -> None:
    intent = memory.intent("order-1", ORDER)
    intent.__enter__()
    if status != "pending":
        (intent.done if status == "done" else intent.fail)("so it was")
    with pytest.raises(DuplicateEventError), memory.intent("order-1", other, resume=True):
        must_not_run()


def test_a_record_that_was_removed_is_forgotten(any_store: Store) -> None:
    begin(any_store, "order-1")
    begin(any_store, "order-2")
    any_store.domain("intents").remove_value("order-1", reason="a mistake")
    assert [left.event_id for left in any_store.uncertain()] == ["order-2"]
    with any_store.intent("order-1", {"another": "effect"}) as intent:
        assert not intent.uncertain
        assert [left.event_id for left in any_store.uncertain()] == ["order-2", "order-1"]  # its life began anew


# ---- exceptions


def test_an_exception_leaves_it_uncertain_and_says_why(any_store: Store) -> None:
    with pytest.raises(TimeoutError), any_store.intent("order-1", ORDER):
        raise TimeoutError("no answer")
    assert record(any_store, "order-1") == IntentRecord("pending", ORDER, error="TimeoutError: no answer", pid=os.getpid())
    assert [left.error for left in any_store.uncertain()] == ["TimeoutError: no answer"]
    with pytest.raises(UncertainError, match="no answer"), any_store.intent("order-1", ORDER):
        must_not_run()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_leaves_it_as_a_crash_would(any_store: Store, error: type[BaseException]) -> None:
    with pytest.raises(error), any_store.intent("order-1", ORDER):
        raise error
    assert [(left.event_id, left.error) for left in any_store.uncertain()] == [("order-1", None)]


def test_who_says_that_nothing_happened_is_believed_whatever_is_raised_then(any_store: Store) -> None:
    with pytest.raises(ValueError, match="too little"):
        act(any_store.intent("order-1", ORDER), lambda intent: intent.fail("margin"), fails(ValueError("too little")))
    assert record(any_store, "order-1") == IntentRecord("failed", ORDER, reason="margin")


class Unspeakable(Exception):  # noqa: N818
    """An exception whose message cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("error", [Unspeakable(), ValueError("\0" * 100_000), ValueError("\ud83d" * 1_000), ValueError("🚀" * 1_000)])
def test_whatever_an_exception_says_it_can_be_noted_beside_the_largest_effect(memory: Store, error: Exception) -> None:
    with pytest.raises(type(error)), memory.intent("order-1", "x" * (10_000 - NOTE_BYTES - 2)):
        raise error
    assert not hasattr(error, "__notes__")
    (left,) = memory.uncertain()
    assert left.error is not None
    assert left.error.encode()[:8] in (b"Unspeaka", b"ValueErr")
    assert len(left.error) <= NOTE_CHARS


def test_a_result_that_cannot_be_kept_can_be_said_otherwise(memory: Store) -> None:
    with memory.intent("order-1", ORDER) as intent:
        for result in (math.nan, "x" * 10_000):
            with pytest.raises(InvalidValueError):
                intent.done(result)
        assert (intent.status, record(memory, "order-1").status) == ("pending", "pending")
        intent.done("filled")
    assert record(memory, "order-1").result == "filled"


@pytest.mark.parametrize("reason", ["", None, 7])
def test_a_failure_needs_a_reason(memory: Store, reason: Any) -> None:
    with memory.intent("order-1", ORDER) as intent:
        with pytest.raises(ConfigError):
            intent.fail(reason)
        intent.fail("margin")


# ---- the machine refuses: somebody else holds the lock of the intents, or a write says that its outcome is unknown


@pytest.fixture
def impatient(open_store: Callable[..., Store]) -> Store:
    """A store that does not wait for other writers."""
    opened = open_store(busy_timeout_ms=20)
    opened.domain(INTENTS)
    return opened


@contextlib.contextmanager
def locked(store: Store) -> Iterator[None]:
    """While another holds the lock."""
    with Path(store.location, "logs", "intents", "head").open("r+b") as head:
        fcntl.flock(head, fcntl.LOCK_EX)
        yield


def test_what_could_not_be_recorded_is_not_done(impatient: Store) -> None:
    with locked(impatient), pytest.raises(UnavailableError), impatient.intent("order-1", ORDER):
        must_not_run()
    assert impatient.uncertain() == []


def test_an_acknowledgement_that_was_not_written_is_raised_and_can_be_said_again(impatient: Store) -> None:
    with impatient.intent("order-1", ORDER) as intent:
        with locked(impatient), pytest.raises(UnavailableError):
            intent.done("filled")
        assert (intent.status, intent.result, record(impatient, "order-1").status) == ("pending", None, "pending")
        assert intent.done("filled").appended
    assert record(impatient, "order-1") == IntentRecord("done", ORDER, "filled")


def test_an_acknowledgement_that_fails_on_leaving_is_raised_and_leaves_it_uncertain(impatient: Store) -> None:
    with contextlib.ExitStack() as until_later:
        with pytest.raises(UnavailableError):
            act(impatient.intent("order-1", ORDER), lambda _: until_later.enter_context(locked(impatient)))
        assert [(left.event_id, left.error) for left in impatient.uncertain()] == [("order-1", None)]


def test_an_exception_that_cannot_be_noted_is_raised_with_the_reason(impatient: Store) -> None:
    with contextlib.ExitStack() as until_later:
        with pytest.raises(TimeoutError) as caught:
            act(
                impatient.intent("order-1", ORDER), lambda _: until_later.enter_context(locked(impatient)), fails(TimeoutError("no answer"))
            )
        assert "locked by" in caught.value.__notes__[0]
    assert [(left.event_id, left.error) for left in impatient.uncertain()] == [("order-1", None)]


def test_an_acknowledgement_of_unknown_outcome_that_was_written_is_found(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    log = any_store.domain(INTENTS)._live.log
    append: Any = log.append

    def unheard(*arguments: Any, **options: Any) -> None:
        append(*arguments, **options)
        raise EngineError("no answer", outcome="unknown")

    with any_store.intent("order-1", ORDER) as intent:
        with monkeypatch.context() as broken:
            broken.setattr(log, "append", unheard)
            with pytest.raises(EngineError):
                intent.done("filled")
        assert intent.status == "pending"
        with pytest.raises(HaltedError):
            intent.done("filled")
        any_store.resume()
        assert not intent.done("filled").appended
    assert record(any_store, "order-1") == IntentRecord("done", ORDER, "filled")


# ---- blocks


def test_an_intent_is_entered_once_and_speaks_inside_its_block(any_store: Store) -> None:
    intent = any_store.intent("order-1", ORDER)
    with pytest.raises(ClosedError):
        intent.done()
    with intent:
        pass
    with pytest.raises(ClosedError):
        intent.done()
    with pytest.raises(ClosedError):
        intent.fail("no")
    with pytest.raises(ConfigError), intent:
        must_not_run()


def test_the_first_settlement_stands(any_store: Store) -> None:
    with any_store.intent("order-1", ORDER) as intent:
        first = intent.done("filled")
        assert intent.done("filled") == first
        with pytest.raises(SettledError) as caught:
            intent.done("otherwise")
        assert (caught.value.status, caught.value.result) == ("done", "filled")
        with pytest.raises(SettledError):
            intent.fail("no")
    assert record(any_store, "order-1").result == "filled"


def test_two_that_settle_one_effect_must_agree(any_store: Store) -> None:
    with any_store.intent("order-1", ORDER) as slow:
        with any_store.intent("order-1", ORDER, resume=True) as other:
            other.done("filled")
        assert not slow.done("filled").appended
    with any_store.intent("order-2", ORDER) as slow:
        with any_store.intent("order-2", ORDER, resume=True) as other:
            other.fail("unknown there")
        with pytest.raises(SettledError, match="unknown there") as caught:
            slow.done("filled after all")
        assert '"result":"filled after all"' in caught.value.__notes__[0]
        with pytest.raises(SettledError):
            slow.done("filled after all")
        slow.fail("unknown there")
    with any_store.intent("order-3", ORDER) as slow:
        any_store.intent("order-3", ORDER, resume=True).__enter__()
        slow.done("filled")  # the other one only began
    assert record(any_store, "order-3").result == "filled"
    with any_store.intent("order-4", ORDER) as slow:
        any_store.domain("intents").remove_value("order-4")
        slow.done("filled")
    assert record(any_store, "order-4").result == "filled"


def test_a_settlement_elsewhere_outlives_whatever_the_slower_block_does(any_store: Store) -> None:
    def refuse_elsewhere(intent: OpenIntent) -> None:
        act(any_store.intent(intent.event_id, ORDER, resume=True), lambda other: other.fail("unknown there"))

    # The conflict leaves the block, the block leaves in silence, the block is left by another exception.
    with pytest.raises(SettledError):
        act(any_store.intent("order-1", ORDER), refuse_elsewhere, lambda intent: intent.done("filled"))
    with pytest.raises(SettledError):
        act(any_store.intent("order-2", ORDER), refuse_elsewhere)
    with pytest.raises(TimeoutError):
        act(any_store.intent("order-3", ORDER), refuse_elsewhere, fails(TimeoutError()))
    with any_store.intent("order-4", ORDER) as slow:
        refuse_elsewhere(slow)
        with pytest.raises(SettledError):
            slow.done("filled")
        assert slow.status == "failed"
    for event_id in ("order-1", "order-2", "order-3", "order-4"):
        assert record(any_store, event_id) == IntentRecord("failed", ORDER, reason="unknown there")


def test_the_error_of_one_that_was_resumed_elsewhere_is_not_lost(any_store: Store) -> None:
    def elsewhere(_: OpenIntent) -> None:
        act(any_store.intent("order-1", ORDER, resume=True), lambda other: other.done("filled"))

    with pytest.raises(TimeoutError) as caught:
        act(any_store.intent("order-1", ORDER), elsewhere, fails(TimeoutError("no answer")))
    assert "more was recorded there since" in caught.value.__notes__[0]
    assert record(any_store, "order-1").status == "done"


def test_nested_intents_are_settled_each_by_its_own_block(any_store: Store) -> None:
    def nested(_: OpenIntent) -> None:
        with any_store.intent("inner", "deposit") as inner:
            inner.done()
            with pytest.raises(UncertainError), any_store.intent("outer", "withdraw"):
                must_not_run()

    with pytest.raises(TimeoutError):
        act(any_store.intent("outer", "withdraw"), nested, fails(TimeoutError()))
    assert [left.event_id for left in any_store.uncertain()] == ["outer"]


def test_what_is_uncertain_is_listed_from_its_first_beginning(any_store: Store) -> None:
    for event_id in ("z", "a", "m"):
        begin(any_store, event_id)
    with any_store.intent("done", ORDER):
        pass
    any_store.intent("z", ORDER, resume=True).__enter__()
    first = [event.recorded_us for event in any_store.domain("intents").events()][:3]
    assert [(left.event_id, left.since_us) for left in any_store.uncertain()] == list(zip("zam", first, strict=True))


def test_the_list_says_who(open_store: Callable[..., Store]) -> None:
    with open_store(actor="live-bot") as store:
        begin(store, "order-1")
        store.intent("order-2", ORDER, actor="by hand").__enter__()
        assert [(left.actor, left.pid) for left in store.uncertain()] == [("live-bot", os.getpid()), ("by hand", os.getpid())]


def test_the_ordinary_verbs_list_tell_and_settle(open_store: Callable[..., Store], tmp_path: Path) -> None:
    """What README tells a person at 3 a.m. to type."""

    def command(verb: str, *arguments: str) -> list[str]:
        line = [sys.executable, "-m", "eventstore", verb, str(tmp_path / "data"), "intents", *arguments]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()

    with open_store() as store:
        with store.intent("order-17", ORDER):
            pass
        begin(store, "order-18")
    listed = command("state")
    assert ['{"status":"pending"' in line for line in listed] == [False, True]
    assert "order-18" in listed[1]
    command(
        "put", "order-18", '{"status": "done", "effect": {"side": "buy", "quantity": 2}, "result": "found"}', "--reason", "I asked them"
    )
    assert any("I asked them" in line for line in command("history", "order-18"))
    with open_store() as store:
        assert store.uncertain() == []
        with pytest.raises(SettledError) as caught, store.intent("order-18", ORDER):
            must_not_run()
        assert caught.value.result == "found"


# ---- threads and processes


def test_of_many_threads_one_acts(any_store: Store) -> None:
    start, acted, told = threading.Barrier(8), [], []

    def enter() -> None:
        start.wait()
        try:
            with any_store.intent("order-1", ORDER) as intent:
                acted.append(threading.get_ident())
                intent.done("filled")
        except (SettledError, UncertainError) as answer:
            told.append(answer)

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(acted), len(told)) == (1, 7)


ENTER = """
import sys, eventstore
with eventstore.open(sys.argv[1]) as store:
    store.domain("intents")
    print("ready", flush=True); sys.stdin.readline()
    for number in range(20):
        try:
            with store.intent(f"order-{number}", number) as intent:
                print(number, flush=True)
                intent.done()
        except (eventstore.SettledError, eventstore.UncertainError):
            pass
"""


def test_of_several_processes_one_acts(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENTER, str(tmp_path / "data")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    racing = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(3)]
    for process in racing:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in racing:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    acted = [line for process in racing for line in process.communicate(timeout=60)[0].split()]
    assert sorted(map(int, acted)) == list(range(20))
    with eventstore.open(tmp_path / "data", read_only=True) as store:
        assert store.uncertain() == []


# ---- durability


@pytest.mark.parametrize("level", ["process", "power", "power+"])
def test_an_intent_is_as_durable_as_its_store_or_as_asked(
    open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, level: Any
) -> None:
    store = open_store(durability="process")
    log: EventLog = store.domain(INTENTS)._live.log
    append: Any = log.append
    asked = []

    def listening(events: Any, *, durability: Any = None, **options: Any) -> None:
        asked.append(durability)
        append(events, durability=durability, **options)

    monkeypatch.setattr(log, "append", listening)
    with store.intent("order-1", ORDER):
        assert asked == ["process"]
    with store.intent("order-2", ORDER, durability=level) as intent:
        assert asked == ["process", "process", level]
        assert intent.done().durability == level
