"""What every key is now: the fold against a plain dictionary, natural order against a plain comparison, a bounded cache."""

from __future__ import annotations

import functools
import json
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from eventstore.codec import GENESIS, encode_key, erased, seal, seal_system
from eventstore.model import Event, Head, Key, KeyState, Part
from eventstore.projections import key_states
from eventstore.projections.key_states import KeyStates, ValueCache, natural_order, state_of

# ---- natural order, said once more as plainly as possible


def compare_texts(one: str, other: str) -> int:
    """Digit runs by number, the rest by casefold; -1, 0 or 1."""
    while one or other:
        left, right = next_run(one), next_run(other)
        numbers = [run[:1] in set("0123456789") for run in (left, right)]
        if all(numbers):
            found = compare_plain(int(left), int(right))
        elif any(numbers):
            # Beside a number, the other has ended and is less, or starts with a letter and is more.
            found = -1 if numbers[0] == bool(right if numbers[0] else left) else 1
        else:
            found = compare_plain(left.casefold(), right.casefold())
        if found:
            return found
        one, other = one[len(left) :], other[len(right) :]
    return 0


def next_run(text: str) -> str:
    match = re.match(r"[0-9]+|[^0-9]*", text)
    assert match is not None
    return match[0]


def compare_plain(one: Any, other: Any) -> int:
    return int(one > other) - int(one < other)


def compare_parts(one: Part, other: Part) -> int:
    match one, other:
        case int(), int():
            return compare_plain(one, other)
        case int(), _:
            return -1
        case _, int():
            return 1
        case str(), str():
            return compare_texts(one, other) or compare_plain(one, other)
    raise AssertionError


def compare_keys(one: Key, other: Key) -> int:
    for a, b in zip(parts_of(one), parts_of(other), strict=False):
        if found := compare_parts(a, b):
            return found
    return compare_plain(len(parts_of(one)), len(parts_of(other)))


def parts_of(key: Key) -> tuple[Part, ...]:
    return (key,) if isinstance(key, str) else key


def in_order(keys: Sequence[Key]) -> list[Key]:
    return sorted(keys, key=lambda key: natural_order(encode_key(key)))


texts = st.text(st.sampled_from("aAbBzßéÉ0129 _-") | st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
some_keys: st.SearchStrategy[Key] = (
    st.lists(texts | st.integers(-20, 20), min_size=1, max_size=3).filter(lambda key: key != [""]).map(tuple)
)


@given(one=some_keys, other=some_keys)
@example(one=("a1b",), other=("a1",))
@example(one=("a",), other=("A1",))
@example(one=("", 1), other=("0", 1))
@example(one=("id02",), other=("id2",))
@example(one=("aß",), other=("ass",))
def test_two_keys_stand_as_the_plain_comparison_says(one: Key, other: Key) -> None:
    left, right = natural_order(encode_key(one)), natural_order(encode_key(other))
    assert compare_plain(left, right) == compare_keys(one, other)
    assert (left == right) is (one == other)


@given(keys=st.lists(some_keys, max_size=12, unique=True), seed=st.randoms())
def test_the_order_does_not_depend_on_the_order_before(keys: list[Key], seed: Any) -> None:
    shuffled = list(keys)
    seed.shuffle(shuffled)
    assert in_order(shuffled) == in_order(keys) == sorted(keys, key=functools.cmp_to_key(compare_keys))


@pytest.mark.parametrize(
    "keys",
    [
        ["id1", "id2", "id10", "id11", "id100"],
        ["1", "2", "10", "a"],
        ["A", "a", "AA", "aa", "B", "b"],
        ["id002", "id02", "id2", "id3"],
        ["file9.txt", "file10.txt", "file10a.txt"],
        ["a", "a1", "a1b", "a1b2", "ab"],
        [(-5,), (0,), (3,), (20,), "0", "3", "20", "-5"],
        ["x", ("x", ""), ("x", "1"), ("x", "2"), ("x", "10"), "x1"],
        [("", "a"), ("", "b"), "a"],
        [("a", 2), ("a", 10), ("a", "2"), ("a", "10")],
        ["strasse", "straße", "strassf"],
        ["٢", "١٠"][::-1],
        ["Binance", "binance", "BINANCE2", "binance10"],
    ],
    ids=str,
)  # fmt: skip
def test_keys_stand_as_people_expect(keys: list[Key]) -> None:
    assert in_order(keys[::-1]) == keys


# ---- the fold


class Log:
    """Sealed events, one after another."""

    def __init__(self) -> None:
        self.head = GENESIS
        self.events: list[Event] = []
        self.latest: dict[str, int] = {}
        self.append(seal_system(GENESIS, prev=0, recorded_us=1, op="open", data={}, salt=b"s" * 16))

    def append(self, event: Event) -> Event:
        self.head = Head(event.position, event.checksum)
        self.events.append(event)
        self.latest[event.key] = event.position
        return event

    def put(self, key: Key, data: str = "1", when_us: int | None = None) -> Event:
        return self._user("put", key, data, when_us)

    def remove(self, key: Key, when_us: int | None = None) -> Event:
        return self._user("remove", key, None, when_us)

    def _user(self, op: str, key: Key, data: str | None, when_us: int | None) -> Event:
        salt = None if data is None else b"s" * 16
        recorded_us = self.head.position + 2
        text = encode_key(key)
        prev = self.latest.get(text, 0)
        return self.append(
            seal(self.head, prev=prev, recorded_us=recorded_us, when_us=when_us, op=op, key=text, meta=None, data=data, salt=salt)
        )

    def system(self, op: str, data: Any) -> Event:
        return self.append(seal_system(self.head, prev=0, recorded_us=self.head.position + 2, op=op, data=data, salt=b"s" * 16))


def listed(states: KeyStates, prefix: Key | None = None) -> list[str]:
    return [text for text, _ in states.keys(prefix)]


def fold(events: Sequence[Event]) -> KeyStates:
    birth = events[0]
    states = KeyStates(Head(birth.position, birth.checksum), birth.recorded_us)
    for event in events[1:]:
        states.apply(event)
    return states


writes = st.lists(st.tuples(st.sampled_from(["put", "put", "remove"]), some_keys, st.none() | st.integers(-5, 5)), max_size=20)


@given(steps=writes)
def test_a_fold_is_a_dictionary_of_the_latest_events(steps: list[tuple[str, Key, int | None]]) -> None:
    log, plain = Log(), dict[str, KeyState]()
    states = fold(log.events)
    for op, key, when_us in steps:
        event = log.put(key, when_us=when_us) if op == "put" else log.remove(key, when_us)
        plain[event.key] = KeyState(event.position, when_us, "present" if op == "put" else "removed")
        states.apply(event)
        assert states.get(event.key) == plain[event.key] == state_of(event)
        present = {text for text, state in plain.items() if state.status == "present"}
        assert states.present == len(present)
        assert listed(states) == sorted(present, key=natural_order)
    assert states.snapshot() == plain
    assert len(states) == len(plain)
    assert states.head == log.head
    assert states.recorded_us == log.events[-1].recorded_us


@given(steps=writes, cut=st.integers(0, 20))
def test_a_fold_can_go_on_from_a_copy_of_an_earlier_one(steps: list[tuple[str, Key, int | None]], cut: int) -> None:
    """This is what an opening from a pointer file does."""
    log = Log()
    for op, key, _ in steps:
        (log.put if op == "put" else log.remove)(key)
    earlier, whole = fold(log.events[: cut + 1]), fold(log.events)
    resumed = KeyStates(earlier.head, earlier.recorded_us, earlier.system, earlier.snapshot())
    resumed.apply(*log.events[cut + 1 :])
    assert list(resumed.keys()) == list(whole.keys())
    assert (resumed.snapshot(), resumed.head, resumed.present, resumed.recorded_us) == (
        whole.snapshot(),
        whole.head,
        whole.present,
        whole.recorded_us,
    )


def test_a_snapshot_does_not_follow() -> None:
    log = Log()
    log.put("k")
    states = fold(log.events)
    before = states.snapshot()
    states.apply(log.remove("k"))
    assert before == {'["k"]': KeyState(1, None, "present")}


def test_the_logs_own_events_are_no_keys_and_are_remembered_as_the_latest() -> None:
    log = Log()
    log.put("k")
    states = fold(log.events)
    assert states.system == 0
    states.apply(log.system("loss", {"witnessed": 9, "found": 1}))
    assert (states.system, states.position) == (2, 2)
    assert listed(states) == ['["k"]']
    assert len(states) == 1


def test_a_redaction_marks_the_value_that_stands_and_no_other() -> None:
    log = Log()
    for key in ("k", "k", "j", "gone"):
        log.put(key)
    log.remove("gone")
    states = fold(log.events)
    states.apply(log.system("redact", {"positions": [1, 3, 4], "reason": "asked to"}))
    assert states.snapshot() == {
        '["k"]': KeyState(2, None, "present"),  # position 1 was erased, but 2 stands
        '["j"]': KeyState(3, None, "redacted"),
        '["gone"]': KeyState(5, None, "removed"),
    }
    assert states.present == 2
    states.apply(log.put("j"))
    assert states.get('["j"]') == KeyState(7, None, "present")


def test_a_fold_over_erased_events_comes_to_the_same() -> None:
    """The rows that a redaction erased hold no data any more when the log is read anew."""
    log = Log()
    log.put("k")
    log.put("j")
    log.put("j")
    log.system("redact", {"positions": [1, 2], "reason": "asked to"})
    anew = [erased(event) if event.position in (1, 2) else event for event in log.events]
    assert fold(anew).snapshot() == fold(log.events).snapshot()
    assert fold(anew).present == fold(log.events).present == 2


# ---- selection by leading parts


@given(keys=st.lists(some_keys, max_size=12, unique=True), prefix=st.none() | some_keys | st.just(("",)) | texts)
def test_a_prefix_selects_keys_by_their_leading_parts(keys: list[Key], prefix: Key | None) -> None:
    log = Log()
    for key in keys:
        log.put(key)
    leading = () if prefix is None else parts_of(prefix)
    wanted = [encode_key(key) for key in in_order(keys) if parts_of(key)[: len(leading)] == leading]
    # As ("x", 1) == ("x", True) never comes up here, equal in Python is equal in the log.
    assert listed(fold(log.events), prefix) == wanted


SEVERAL: list[Key] = [
    (1,),
    (1, "b"),
    (10,),
    ("", "x"),
    "1",
    "a",
    ("a", 1),
    ("a", 10),
    ("a", "b"),
    ("a", "b", "c"),
    "a,b",
    "ab",
    'a"',
    'a","b',
]


@pytest.mark.parametrize(
    ("prefix", "selected"),
    [
        (None, SEVERAL),
        ((), SEVERAL),
        ("a", ["a", ("a", 1), ("a", 10), ("a", "b"), ("a", "b", "c")]),
        (("a", "b"), [("a", "b"), ("a", "b", "c")]),
        (("a", 1), [("a", 1)]),
        (("a", "b", "c"), [("a", "b", "c")]),
        ((1,), [(1,), (1, "b")]),
        ("1", ["1"]),
        ("", [("", "x")]),
        (("",), [("", "x")]),
        ("ab", ["ab"]),
        ("a,", []),
        ("b", []),
    ],
    ids=str,
)
def test_a_prefix_is_whole_parts_and_not_letters(prefix: Key | None, selected: list[Key]) -> None:
    log = Log()
    for key in SEVERAL:
        log.put(key)
    found = listed(fold(log.events), prefix)
    assert found == [encode_key(key) for key in in_order(selected)]


# ---- listing while others write


def test_a_loop_over_keys_survives_writes_in_between() -> None:
    log = Log()
    for n in range(5):
        log.put(f"k{n}")
    states = fold(log.events)
    seen = []
    for n, (text, _) in enumerate(states.keys()):
        seen.append(text)
        states.apply(log.put(f"a{n}"))
        states.apply(log.remove(f"k{n}"))
    assert seen == [f'["k{n}"]' for n in range(5)]
    assert listed(states) == [f'["a{n}"]' for n in range(5)]


def test_a_key_written_while_another_thread_sorts_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The write lands, as it does between threads, in the middle of the sorting."""
    log = Log()
    log.put("b")
    states = fold(log.events)
    late = [log.put("a")]

    def interrupted(text: str) -> Any:
        while late:
            states.apply(late.pop())
        return natural_order(text)

    monkeypatch.setattr(key_states, "natural_order", interrupted)
    listed(states)
    assert listed(states) == ['["a"]', '["b"]']


@pytest.mark.parametrize("many", [0, 1, 39, 41, 300])
def test_a_few_new_keys_among_many_take_their_places(many: int) -> None:
    log = Log()
    for n in range(many):
        log.put(f"k{n * 7919 % 1000}")
    states = fold(log.events)
    for n in range(30):
        assert listed(states) == sorted({event.key for event in log.events[1:]}, key=natural_order)
        states.apply(log.put(f"k{n * 31 % 50}.{n % 3}"))


def test_threads_may_list_while_one_writes() -> None:
    log = Log()
    states = fold(log.events)
    events = [log.put(f"k{n}") for n in range(600)]
    failures: list[BaseException] = []
    done = threading.Event()

    def listing() -> None:
        try:
            while not done.is_set():
                found = listed(states)
                assert found == sorted(found, key=natural_order)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test must show it
            failures.append(error)

    threads = [threading.Thread(target=listing) for _ in range(3)]
    for thread in threads:
        thread.start()
    for event in events:
        states.apply(event)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert listed(states) == [event.key for event in events]


# ---- the cache


def cost(text: str) -> int:
    """What an entry is reckoned at: about 200 bytes, and one or four for each character."""
    return 200 + len(text) * (1 if text.isascii() else 4)


class Caching(RuleBasedStateMachine):
    """A cache never answers wrongly, never takes more than it may, and forgets the least recently used first."""

    places = Bundle("places")

    def __init__(self) -> None:
        super().__init__()
        self.cache = ValueCache(1_000)
        self.kept: dict[tuple[str, int], str] = {}
        self.position = 0

    def used(self) -> int:
        return sum(map(cost, self.kept.values()))

    @rule(target=places, domain=st.sampled_from(["a", "b"]), text=st.text(st.sampled_from("xé"), max_size=250))
    def put(self, domain: str, text: str) -> tuple[str, int]:
        self.position += 1
        place = (domain, self.position)
        self.cache.put(domain, self.position, text, erasures=self.cache.erasures)
        if cost(text) <= 1_000:
            self.kept[place] = text
            while self.used() > 1_000:
                del self.kept[next(iter(self.kept))]
        return place

    @rule(place=places)
    def put_again(self, place: tuple[str, int]) -> None:
        if place in self.kept:
            self.cache.put(*place, self.kept[place], erasures=self.cache.erasures)

    @rule(domain=st.sampled_from("ab"), texts=st.lists(st.none() | st.integers(0, 400), min_size=1, max_size=4))
    def follow(self, domain: str, texts: list[int | None]) -> None:
        """Events of one key: each says something new, or None removes it; all but the last are replaced at once."""
        log = Log()
        events = [log.remove("k") if size is None else log.put("k", "x" * size) for size in texts]
        self.cache.follow(f"{domain}{self.position}", events)
        place = (f"{domain}{self.position}", events[-1].position)
        self.position += 1
        if texts[-1] is not None and isinstance(events[-1].data, str):
            self.kept[place] = events[-1].data
            while self.used() > 1_000:
                del self.kept[next(iter(self.kept))]
        assert self.cache.get(*place) == self.kept.get(place)

    @rule(place=places)
    def get(self, place: tuple[str, int]) -> None:
        assert self.cache.get(*place) == self.kept.get(place)
        if place in self.kept:
            self.kept[place] = self.kept.pop(place)

    @rule(place=consumes(places))
    def drop(self, place: tuple[str, int]) -> None:
        self.cache.drop(place[0], [place[1]])
        self.kept.pop(place, None)

    @invariant()
    def nothing_unknown(self) -> None:
        assert self.cache.get("a", self.position + 1) is None


TestCaching = Caching.TestCase


def test_domains_do_not_share_places() -> None:
    cache = ValueCache(10_000)
    cache.put("a", 1, "one", erasures=cache.erasures)
    cache.put("b", 1, "other", erasures=cache.erasures)
    assert (cache.get("a", 1), cache.get("b", 1), cache.get("c", 1)) == ("one", "other", None)


@pytest.mark.parametrize("capacity", [0, 100, 203])
def test_a_cache_too_small_for_a_value_does_without(capacity: int) -> None:
    cache = ValueCache(capacity)
    cache.put("a", 1, "text", erasures=cache.erasures)
    assert cache.get("a", 1) is None


def run_in_threads(works: Sequence[Callable[[], None]]) -> list[BaseException]:
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test must show it
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_a_cache_is_safe_between_threads() -> None:
    cache = ValueCache(5_000)

    def work(domain: str) -> None:
        for n in range(2_000):
            cache.put(domain, n % 50, json.dumps([domain, n % 50]), erasures=cache.erasures)
            text = cache.get(domain, (n * 7) % 50)
            assert text in (None, json.dumps([domain, (n * 7) % 50]))
            if n % 5 == 0:
                cache.drop(domain, [n % 50])

    assert run_in_threads([functools.partial(work, domain) for domain in "aabb"]) == []
    for n in range(50):
        for domain in "ab":
            cache.drop(domain, [n])
    cache.put("c", 1, "x" * 4_800, erasures=cache.erasures)
    assert cache.get("c", 1) is not None
