"""Three answers to every question: a store in memory, a store in a folder, and an oracle; no two may differ.

The folder lives through what folders live through: it is opened anew, killed, written through two handles and by other
processes at once, and loses or garbles its caches. Pages, caches and checkpoints are made small, so that thirty steps cross all
of them. At the end of a life its state as of every position is a fold of what it exports.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

import eventstore
from eventstore import (
    ABSENT,
    ANY,
    PRESENT,
    Domain,
    DomainStore,
    DomainView,
    Event,
    EventStoreError,
    Expected,
    Receipt,
    RedactedError,
    Store,
    decode_key,
)
from eventstore.model import Durability
from eventstore.tools.export import export
from tests import oracle, verifier
from tests.elsewhere import elsewhere
from tests.oracle import ERASED, SYSTEM, Answer, Fact, Key, Raw, RefusedError, Write, come_back, text_of

SUBJECTS = ("p", "id2")


def whose(key: Key) -> str | None:
    """The subject of a key: some leading parts are people."""
    first = oracle.parts_of(key)[0]
    return first if isinstance(first, str) and first in SUBJECTS else None


DOMAINS = {"signal": Domain("signal"), "candle-1m": Domain("candle-1m", write="first"), "people": Domain("people", subject=whose)}
EXPECTED: dict[str, Expected] = {"ANY": ANY, "ABSENT": ABSENT, "PRESENT": PRESENT}
CURRENT = "CURRENT"
"""Expected to be where it is: replaced by the position of the key's event when the step comes."""
AGAIN = "AGAIN"
"""Written once more: replaced by what the key holds when the step comes, to be skipped."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

R = TypeVar("R")
Outcome = tuple[Literal["answered"], list[Answer]] | tuple[Literal["refused"], str]
Act = Callable[[DomainStore, Durability | None], Sequence[Receipt]]

# Few keys and few values, and most writes unconditional: what happens to one key in a long life is the question.
COMMON: list[Key] = ["id2", "id10", ("p", "a"), ("p", 10)]
RARE: list[Key] = ["ID2", "ID20", ("p", "b"), ("p", 9), ("p",), ("p", "a", ""), ("", "x"), (7,), "ключ\n\u202e"]
keys = st.sampled_from(COMMON) | st.sampled_from(RARE)
prefixes: st.SearchStrategy[Key | None] = st.sampled_from([None, "p", ("p",), ("p", "a"), "", (7,), "id2", "nothing"])
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(2**20), 2**20).map(lambda number: number / 64) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
odd = st.sampled_from([2**64, -(10**40), -0.0, "\ud83d", {"\udc00": "\ud83d"}, [[[]]], "x" * 700])
raw = st.sampled_from(["[1]", '{"b": 1, "a" : [ ] }', '"\\u0041"', "1.50", " true ", '"\\ud83d"']).map(Raw)
values: st.SearchStrategy[Any] = st.sampled_from([1, [1]]) | st.one_of(plain, odd, raw)
whens = st.none() | st.sampled_from([None, 0, -1, 2**62]) | st.integers(-(2**63), 2**63 - 1)
positions = st.integers(0, 40)
demands: st.SearchStrategy[oracle.Expected] = st.just("ANY") | st.sampled_from(["ANY", "ANY", CURRENT, "ABSENT", "PRESENT", 1, 2, 9])
writes = st.builds(Write, keys, st.just(AGAIN) | values.map(text_of), whens, demands, st.booleans())
removals = st.builds(Write, keys, st.none(), whens, demands)
event_ids = st.sampled_from([None, "e1", "e2", "e3", "e4", "e5", "e6", "e7", "e8"])
reasons = st.sampled_from([None, None, "why"])
levels: st.SearchStrategy[Durability | None] = st.sampled_from([None, "process", "power", "power+"])
ELSEWHERE = 2
"""The handle that another process has, which is another one each time."""
handles = st.integers(0, ELSEWHERE)
places = st.integers(0, 10_000)
names = st.sampled_from(["signal", "signal", "signal", "people", "candle-1m"])
IN_MEMORY = Path("/dev/shm")
"""Where fsync costs nothing: stores are opened by the thousands."""
POSITIONS = 40
"""At how many positions, at most, a life is looked at in the end."""


@pytest.fixture(scope="module", autouse=True)
def small_pages() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for page in ("live._PAGE", "view._PAGE", "reading.PAGE", "logfiles.PAGE", "carriage.PAGE", "adapters.memory.PAGE"):
            patch.setattr(f"eventstore.{page}", 3)
        for spacing in ("live._TAIL", "live.SPACING", "pointers.SPACING"):
            patch.setattr(f"eventstore.{spacing}", 4)
        patch.setattr("eventstore.sqlite.CHECKPOINT_PAGES", 20)
        yield


def stored(text: str) -> msgspec.Raw:
    """A text of the oracle as the value that a store keeps byte for byte."""
    return msgspec.Raw(text.encode("utf-8"))


def same(found: Any, text: str) -> bool:
    """Whether a value that was read is what the oracle's text says."""
    return text_of(found) == text_of(json.loads(text))


class Agreement(RuleBasedStateMachine):
    """The three, and what may be done to them."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="eventstore-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        self.lives = 0
        (self.root / "archive").mkdir()
        self.memory = eventstore.open("memory:", actor="bot", keys=self.root / "memory.keys")
        self.folder = self.root / "0"
        self.cache_bytes = 2**20
        self.stores = [self.opened()]
        self.oracle = {name: oracle.Domain(first_stands=domain.write == "first") for name, domain in DOMAINS.items()}
        self.calls: dict[tuple[str, str], tuple[Act, Callable[[], Sequence[Write]], object]] = {}
        self.retired: set[tuple[str, str]] = set()

    @initialize(small=st.booleans())
    def choose_a_cache_for_later_openings(self, small: bool) -> None:
        self.cache_bytes = 600 if small else 2**20

    def opened(self) -> Store:
        return eventstore.open(
            self.folder, actor="bot", cache_bytes=self.cache_bytes, archives=[self.root / "archive"], keys=self.root / "people.keys"
        )

    def handle(self, number: int) -> Store:
        return self.stores[number % len(self.stores)]

    def by_all(self, number: int, name: str, call: Callable[[Store], R]) -> Iterator[tuple[Store, R]]:
        """What comes of a call to the store in memory, and to a handle of the one in a folder, which another process may have."""
        for store in (self.memory, self.handle(number)):

            def called(store: Store = store) -> R:
                store.domain(DOMAINS[name])
                return call(store)

            yield store, elsewhere(called) if number == ELSEWHERE and store is not self.memory else called()

    def teardown(self) -> None:
        try:
            for store in (self.memory, *self.stores):
                report = store.verify()
                assert report.ok, report.findings
            for name in DOMAINS:
                self.judge_every_position(name)
            for store in (self.memory, *self.stores):
                store.close()
            self.judge_the_files()
        finally:
            for store in (self.memory, *self.stores):
                store.close()
            shutil.rmtree(self.root)

    def judge_the_files(self) -> None:
        """The second opinion: it knows the format, and nothing of the library."""
        for log in self.folder.glob("logs/*"):
            report = verifier.verify(log, log / "head", domain=log.name, store_id=self.stores[0].store_id)
            assert report.findings == [], log.name
            assert report.head is not None
            assert report.head.position == len(self.oracle[log.name].facts)

    def judge_every_position(self, name: str) -> None:
        """State as of a position is a fold over the events up to it, as they are exported."""
        lines = io.BytesIO()
        export(str(self.folder), [name], lines, archives=[self.root / "archive"])
        events = [line for line in map(json.loads, lines.getvalue().splitlines()) if line.get("position", 0) > 0]
        assert [event["position"] for event in events] == list(range(1, len(events) + 1))
        looked_at = range(0, len(events) + 1, 1 + len(events) // POSITIONS)
        states: dict[Key, str | None] = {}
        for position in range(len(events) + 1):
            if position:
                fold(states, events[position - 1])
            if position in looked_at:
                for store in (self.memory, *self.stores):
                    assert held(store.domain(DOMAINS[name]).state(as_of=position)) == states, f"as of {position}"

    # ---- writing, all three at once

    def perform(
        self,
        name: str,
        number: int,
        level: Durability | None,
        act: Act,
        choose: Callable[[], Sequence[Write]],
        event_id: str | None = None,
        request: object = None,
    ) -> None:
        """Do one call everywhere, and compare what is answered."""
        handle, model = self.handle(number), self.oracle[name]
        if event_id is not None:
            earlier = model.calls.get(event_id)
            only_remembered = earlier is not None and not any(answer.appended for answer in earlier.answers)
            stranger = number == ELSEWHERE or (earlier is not None and earlier.handle is not handle)
            if (name, event_id) in self.retired or (only_remembered and stranger):
                return  # calls that appended nothing are remembered by the handle that made them, and by no other
        wanted = self.outcome(lambda: model.call(choose, event_id=event_id, request=request, handle=handle))
        for store, found in self.by_all(
            number, name, lambda store: self.outcome(partial(self.answered, store, name, None if store is self.memory else level, act))
        ):
            assert found == wanted, f"{store} answered {found}, the oracle {wanted}"
        if event_id is not None and wanted[0] == "answered":
            if number == ELSEWHERE and not any(answer.appended for answer in model.calls[event_id].answers):
                del model.calls[event_id]
                self.retired.add((name, event_id))  # its process is gone, and the store in memory remembers it still
            else:
                self.calls[name, event_id] = (act, choose, request)

    def resolved(self, name: str, every: Sequence[Write]) -> list[Write]:
        """The writes with what is there in place of CURRENT and AGAIN."""
        found: list[Write] = []
        for write in every:
            latest = self.oracle[name].latest(write.key)
            if write.expected == CURRENT:
                write = replace(write, expected="ABSENT" if latest is None else latest.position)
            if write.text == AGAIN:
                standing = latest is not None and latest.text not in (None, ERASED)
                write = replace(write, text=latest.text, when=latest.when, skip=True) if standing and latest else replace(write, text="1")
            found.append(write)
        return found

    @staticmethod
    def outcome(call: Callable[[], list[Answer]]) -> Outcome:
        try:
            return "answered", call()
        except RefusedError as refused:
            return "refused", refused.kind
        except EventStoreError as error:
            return "refused", type(error).__name__

    @staticmethod
    def answered(store: Store, name: str, asked: Durability | None, act: Act) -> list[Answer]:
        """Receipts as answers; each names an event that is there, and the level that was asked for."""
        domain = store.domain(DOMAINS[name])
        receipts = act(domain, asked)
        for receipt in receipts:
            assert receipt.domain == domain.name
            assert receipt.durability == (asked or receipt.durability)
            (event,) = domain.events(receipt.position - 1, receipt.position) if receipt.position else [None]
            assert event is None or event.checksum == receipt.checksum
        return [Answer(receipt.position, receipt.appended) for receipt in receipts]

    @rule(name=names, write=writes, value=values, reason=reasons, event_id=event_ids, level=levels, number=handles)
    def write_value(
        self, name: str, write: Write, value: Any, reason: str | None, event_id: str | None, level: Durability | None, number: int
    ) -> None:
        (write,) = self.resolved(name, [replace(write, text=text_of(value))])
        given = stored(value.text) if isinstance(value, Raw) else value

        def act(domain: DomainStore, asked: Durability | None) -> list[Receipt]:
            receipt = domain.write_value(
                write.key, given, **shared(write), unchanged=unchanged(write), reason=reason, event_id=event_id, durability=asked
            )  # fmt: skip
            return [receipt]

        self.perform(name, number, level, act, lambda: [write], event_id, (reason, (write,)))

    @rule(name=names, write=removals, reason=reasons, event_id=event_ids, level=levels, number=handles)
    def remove_value(
        self, name: str, write: Write, reason: str | None, event_id: str | None, level: Durability | None, number: int
    ) -> None:
        (write,) = self.resolved(name, [write])

        def act(domain: DomainStore, asked: Durability | None) -> list[Receipt]:
            return [domain.remove_value(write.key, **shared(write), reason=reason, event_id=event_id, durability=asked)]

        self.perform(name, number, level, act, lambda: [write], event_id, (reason, (write,)))

    @rule(name=names, every=st.lists(writes, max_size=5), pattern=writes, event_id=event_ids, level=levels, number=handles)
    def write_values(
        self, name: str, every: list[Write], pattern: Write, event_id: str | None, level: Durability | None, number: int
    ) -> None:
        (pattern,) = self.resolved(name, [pattern])
        every = [Write(write.key, write.text, pattern.when, pattern.expected, pattern.skip) for write in self.resolved(name, every)]
        items = [(write.key, stored(write.text or "")) for write in every]

        def act(domain: DomainStore, asked: Durability | None) -> list[Receipt]:
            return domain.write_values(items, **shared(pattern), unchanged=unchanged(pattern), event_id=event_id, durability=asked)

        self.perform(name, number, level, act, lambda: every, event_id, (None, tuple(every)))

    @rule(name=names, every=st.lists(writes | removals, max_size=6), raises=st.booleans(), event_id=event_ids, level=levels, number=handles)
    def batch(self, name: str, every: list[Write], raises: bool, event_id: str | None, level: Durability | None, number: int) -> None:
        every = self.resolved(name, every)
        for store in (self.memory, self.handle(number)) if raises else ():
            with contextlib.suppress(ZeroDivisionError), store.domain(DOMAINS[name]).batch() as batch:
                gather(batch, every)
                raise ZeroDivisionError
            # That nothing of it was written, the next comparison says.

        def act(domain: DomainStore, asked: Durability | None) -> list[Receipt]:
            with domain.batch(event_id=event_id, durability=asked) as batch:
                gather(batch, every)
            return batch.receipts

        self.perform(name, number, level, act, lambda: every, event_id, (None, tuple(every)))

    @rule(name=names, key=keys, when=whens, default=st.booleans(), event_id=event_ids, level=levels, number=handles)
    def update_value(
        self, name: str, key: Key, when: int | None, default: bool, event_id: str | None, level: Durability | None, number: int
    ) -> None:
        def change(old: Any) -> Any:
            return {"size": len(text_of(old))}

        def act(domain: DomainStore, asked: Durability | None) -> list[Receipt]:
            options: dict[str, Any] = {"default": "none yet"} if default else {}
            return [domain.update_value(key, change, when=when, event_id=event_id, durability=asked, **options)]

        def choose() -> list[Write]:
            standing = self.oracle[name].text(key)
            if standing is None and not default:
                raise RefusedError("NotFoundError")
            if standing == ERASED:
                raise RefusedError("RedactedError")
            old = "none yet" if standing is None else json.loads(standing)
            return [Write(key, text_of(change(old)), when)]

        self.perform(name, number, level, act, choose, event_id, ("update_value", key, when))

    @rule(name=names, key=keys, back=st.integers(0, 3), wrong=st.none() | positions, event_id=event_ids, level=levels, number=handles)
    def restore_value(
        self, name: str, key: Key, back: int, wrong: int | None, event_id: str | None, level: Durability | None, number: int
    ) -> None:
        model = self.oracle[name]
        position = (wrong or 0) if back >= len(model.history(key)) else model.history(key)[back].position
        fact = next((fact for fact in model.history(key) if fact.position == position), None)

        def act(domain: DomainStore, asked: Durability | None) -> list[Receipt]:
            return [domain.restore_value(key, position, event_id=event_id, durability=asked)]

        if fact is None or fact.text == ERASED:
            kind = "NotFoundError" if fact is None else "RedactedError"
            for _, found in self.by_all(number, name, lambda store: self.outcome(partial(self.answered, store, name, None, act))):
                assert found == ("refused", kind)
            return
        write = Write(key, fact.text)
        self.perform(name, number, level, act, lambda: [write], event_id, (f"restored from position {position}", (write,)))

    @rule(name=names, prefix=prefixes, when=whens, event_id=event_ids, level=levels, number=handles)
    def remove_all(
        self, name: str, prefix: Key | None, when: int | None, event_id: str | None, level: Durability | None, number: int
    ) -> None:
        def act(domain: DomainStore, asked: Durability | None) -> list[Receipt]:
            return domain.remove_all(prefix, when=when, event_id=event_id, durability=asked)

        def choose() -> list[Write]:
            return [Write(key, None, when) for key, _ in self.oracle[name].items(prefix)]

        named = None if prefix is None else oracle.parts_of(prefix)
        self.perform(name, number, level, act, choose, event_id, ("remove_all", named, when))

    @rule(name=names, number=handles)
    def seal(self, name: str, number: int) -> None:
        """End a file of the log: all of it can be asked as before."""
        sealed = self.oracle[name].seal()
        for _, found in self.by_all(number, name, lambda store: store.seal(name).sealed):
            assert found == sealed

    @rule(name=names, number=handles, key=keys, prefix=prefixes, how=st.sampled_from(["key", "prefix", "positions"]), place=places)
    def redact(self, name: str, number: int, key: Key, prefix: Key | None, how: str, place: int) -> None:
        """Erase values, in every file and in memory; what is left of them is told by every verb."""
        model, start = self.oracle[name], oracle.parts_of(prefix or ())
        meant = {
            "key": [fact for fact in model.facts if fact.key == come_back(key)],
            "prefix": [fact for fact in model.facts if fact.key != SYSTEM and oracle.parts_of(fact.key)[: len(start)] == start],
            "positions": model.facts[place % max(len(model.facts), 1) :][:1],
        }[how]
        values = [fact.position for fact in meant if fact.key != SYSTEM and fact.text is not None]
        if not values:
            return
        asked: dict[str, Any] = {"key": key} if how == "key" else {"prefix": prefix or ()} if how == "prefix" else {"positions": values}
        before = len(model.facts)
        erased = model.redact(values)

        def redacted(store: Store) -> tuple[list[int], bool, int | None]:
            report = store.domain(DOMAINS[name]).redact(**asked, reason="asked")
            return report.erased, report.complete, report.position

        for _, found in self.by_all(number, name, redacted):
            assert found == (erased, True, before + 1 if erased else None)
        self.repeat_archived(name, self.handle(number).domain(DOMAINS[name]).events(len(model.facts)), self.memory.domain(DOMAINS[name]))

    @rule(number=handles, subject=st.sampled_from(SUBJECTS))
    def shred(self, number: int, subject: str) -> None:
        """Destroy a key: with all at hand, that is a redaction of what was encrypted with it, and a new key from then on."""
        model = self.oracle["people"]
        erased = model.redact(
            fact.position for fact in list(model.facts) if fact.key != SYSTEM and whose(fact.key) == subject and fact.text is not None
        )

        def shredded(store: Store) -> list[int] | str:
            try:
                return [position for each in store.shred(subject, reason="asked").erased for position in each.erased]
            except eventstore.NotFoundError:
                return "never had a key"

        (_, there), (_, found) = self.by_all(number, "people", shredded)
        assert there == found
        assert found == erased or (found == "never had a key" and not erased)
        self.repeat_archived(
            "people", self.handle(number).domain(DOMAINS["people"]).events(len(model.facts)), self.memory.domain(DOMAINS["people"])
        )

    def repeat_archived(self, name: str, events: Iterable[Event], memory: DomainStore) -> None:
        """Let the store in memory say of the archive what the one in a folder said."""
        for event in events:
            assert event.op == "archive"
            said = msgspec.Raw(str(event.data).encode())
            memory.group.record(event.op, lambda _, said=said: said, lambda: None)  # type: ignore[misc]
            self.oracle[name].archive()

    @rule(name=names, number=handles, position=positions)
    def archive(self, name: str, number: int, position: int) -> None:
        """Move sealed files away, where every handle finds them."""
        domain, memory = self.handle(number).domain(DOMAINS[name]), self.memory.domain(DOMAINS[name])
        head = domain.head().position

        def archived() -> tuple[int, int]:
            (report,) = self.handle(number).archive(name, before=position, to=self.root / "archive")
            return len(report.files), len(report.kept)

        files, kept = elsewhere(archived) if number == ELSEWHERE else archived()
        assert kept == 0
        self.repeat_archived(name, domain.events(head), memory)
        assert domain.head().position == head + files == memory.head().position

    @rule(name=names, position=positions)
    def ask_without_the_archive(self, name: str, position: int) -> None:
        """From the floor on everything is as it was; below it nothing is said."""
        with eventstore.open(self.folder, read_only=True, keys=self.root / "people.keys") as store:
            if name not in store.domains():
                return
            domain, model = store.domain(DOMAINS[name]), self.oracle[name]
            self.compare(domain, model, None)
            if position >= domain.floor:
                self.compare(domain.state(position), model.as_of(position), None)
                found = [event.position for event in domain.events(max(position, domain.floor))]
                assert found == list(range(position + 1, len(model.facts) + 1))
            else:
                with pytest.raises(eventstore.CompactedError) as caught:
                    domain.state(position)
                assert caught.value.floor == domain.floor

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), number=handles)
    def retry(self, data: st.DataObject, number: int) -> None:
        """The same call once more, through whichever handle: the first answer, and nothing written."""
        name, event_id = data.draw(st.sampled_from(sorted(self.calls)))
        act, choose, request = self.calls[name, event_id]
        self.perform(name, number, None, act, choose, event_id, request)

    # ---- what happens to the folder

    @rule(damage=st.sampled_from(["none", "deleted", "garbled", "cut"]), pattern=st.sampled_from(["*", "*.keys", "*.ids"]), place=places)
    def close_and_open(self, damage: str, pattern: str, place: int) -> None:
        self.let_go(self.stores)
        for pointer in sorted(self.folder.glob(f"logs/*/pointers/{pattern}")):
            content = pointer.read_bytes()
            if damage == "deleted":
                pointer.unlink()
            elif damage == "garbled" and content:  # it may have been cut to nothing before
                at = place % len(content)
                pointer.write_bytes(content[:at] + bytes([content[at] ^ 1 + place % 255]) + content[at + 1 :])
            elif damage == "cut":
                pointer.write_bytes(content[: place % max(len(content), 1)])
        self.stores = [self.opened()]

    @rule()
    def kill_and_open(self) -> None:
        """What kill -9 leaves: the files as they are while every handle is open. The life goes on in the copy."""
        self.lives += 1
        copy = self.root / str(self.lives)
        shutil.copytree(self.folder, copy)
        self.let_go(self.stores)
        self.folder = copy
        self.stores = [self.opened()]

    @rule(number=st.integers(0, 1))
    def a_second_handle_comes_or_goes(self, number: int) -> None:
        if len(self.stores) == 1:
            self.stores.append(self.opened())
        else:
            self.let_go([self.stores.pop(number)])

    def let_go(self, stores: Sequence[Store]) -> None:
        for store in stores:
            store.close()
            for name, domain in self.oracle.items():
                before = set(domain.calls)
                domain.forget(store)
                # The store in memory was not closed, and remembers them still.
                self.retired |= {(name, event_id) for event_id in before - set(domain.calls)}

    # ---- reading, all three at once

    @invariant()
    def they_agree(self) -> None:
        for name, model in self.oracle.items():
            for store in (self.memory, *self.stores):
                domain = store.domain(DOMAINS[name])
                self.compare(domain, model, None)
                assert domain.head().position == len(model.facts)

    def compare(self, view: DomainView, model: oracle.Domain, prefix: Key | None) -> None:
        wanted = model.items(prefix)
        if any(text == ERASED for _, text in wanted):
            with pytest.raises(RedactedError):
                list(view.items(prefix))
            assert list(view.keys(prefix)) == [key for key, _ in wanted]
            wanted = [(key, text) for key, text in wanted if text != ERASED]
            found = [(key, view.read_value(key)) for key, _ in wanted]
        else:
            found = list(view.items(prefix))
        assert [key for key, _ in found] == [key for key, _ in wanted]
        assert all(same(value, text) for (_, value), (_, text) in zip(found, wanted, strict=True)), (found, wanted)
        if prefix is None:
            assert len(view) == len(model.items())

    @rule(
        name=names,
        key=keys,
        prefix=prefixes,
        position=positions,
        after_us=st.integers(-1, 1),
        after=st.integers(-1, 20),
        until=st.none() | positions,
        limit=st.none() | st.integers(0, 9),
        number=handles,
    )
    def ask(
        self,
        name: str,
        key: Key,
        prefix: Key | None,
        position: int,
        after_us: int,
        after: int,
        until: int | None,
        limit: int | None,
        number: int,
    ) -> None:
        """Everything that can be asked, of every store, or by another process; what is told of events is the same to the byte."""
        model = self.oracle[name]

        def told_by(store: Store) -> list[list[Any]]:
            domain = store.domain(DOMAINS[name])
            self.ask_a_view(domain, model, key, prefix)
            self.ask_a_view(domain.state(as_of=position), model.as_of(position), key, prefix)
            self.ask_a_moment(domain, model, position, after_us)
            assert [event.position for event in domain.history(key, limit)] == [fact.position for fact in model.history(key)][:limit]
            return [self.ask_for_events(domain, chosen, after, until, limit) for chosen in (None, key)]

        told = [found for _, found in self.by_all(number, name, told_by)] + [told_by(store) for store in self.stores]
        assert all(other == told[0] for other in told)

    def ask_a_view(self, view: DomainView, model: oracle.Domain, key: Key, prefix: Key | None) -> None:
        self.compare(view, model, prefix)
        assert view.head().position == len(model.facts)
        assert list(view.keys(prefix)) == [key for key, _ in model.items(prefix)]
        if not any(text == ERASED for _, text in model.items(prefix)):
            assert list(map(text_of, view.values(prefix))) == [text_of(json.loads(text)) for _, text in model.items(prefix)]
        wanted, latest, state = model.text(key), model.latest(key), view.state_of(key)
        assert view.has_value(key) == (key in view) == (wanted is not None)
        assert (state and (state.position, state.when_us)) == (latest and (latest.position, latest.when))
        if wanted == ERASED:
            for read in (view.read_value, view.get):
                with pytest.raises(RedactedError):
                    read(key)
        elif wanted is not None:
            assert same(view.read_value(key), wanted)
            assert same(view.get(key), wanted)
        else:
            assert view.get(key, "missing") == "missing"
            with pytest.raises(eventstore.NotFoundError):
                view.read_value(key)

    def ask_a_moment(self, domain: DomainStore, model: oracle.Domain, position: int, after_us: int) -> None:
        recorded = [event.recorded_us for event in domain.events()]
        if recorded:
            moment = recorded[position % len(recorded)] + after_us
            reached = sum(time <= moment for time in recorded)
            view = domain.state(as_of=EPOCH + timedelta(microseconds=moment))
            assert view.head().position == reached
            self.compare(view, model.as_of(reached), None)

    def ask_for_events(self, domain: DomainStore, key: Key | None, after: int, until: int | None, limit: int | None) -> list[Any]:
        facts = [
            fact
            for fact in self.oracle[domain.name].facts
            if after < fact.position and (until is None or fact.position <= until) and (key is None or fact.key == come_back(key))
        ]
        told = []
        for reverse in (False, True):
            wanted = (facts[::-1] if reverse else facts)[:limit]
            found = list(domain.events(after, until, key, reverse, limit))
            assert [Fact(event.position, decode_key(event.key), as_text(domain, event), event.when_us) for event in found] == wanted
            assert all((event.op == "remove") == (event.data is None and event.digest is None) for event in found)
            # Which key a value is encrypted with is told by a name of that very key.
            told += [(event.prev, event.meta if isinstance(event.data, str | None) else None) for event in found]
        return told


def as_text(domain: DomainStore, event: Event) -> str | None:
    if event.digest is not None and event.data is None:
        return ERASED
    said = {"seal": oracle.SEALED, "archive": oracle.ARCHIVED, "redact": oracle.REDACTED}.get(event.op)
    return said if said is not None else domain.text_of(event)


def fold(states: dict[Key, str | None], event: dict[str, Any]) -> None:
    """What a key is after an event of an export; None for a value that nobody can read, or that only its key opens."""
    key = decode_key(event["key"])
    if event["op"] == "put":
        states[key] = event["data"] if isinstance(event["data"], str) else None
    elif event["op"] == "remove":
        states.pop(key, None)


def held(view: DomainView) -> dict[Key, str | None]:
    """What a view has, put as fold() does."""
    found: dict[Key, str | None] = {}
    for key in list(view.keys()):
        state = view.state_of(key)
        assert state is not None
        (event,) = view.events(state.position - 1, state.position)
        found[key] = event.data if isinstance(event.data, str) else None
    return found


def shared(write: Write) -> dict[str, Any]:
    """The arguments that every write takes."""
    return {"when": write.when, "expected": EXPECTED.get(str(write.expected), write.expected)}


def unchanged(write: Write) -> Literal["append", "skip"]:
    return "skip" if write.skip else "append"


def gather(batch: eventstore.Batch, every: Sequence[Write]) -> None:
    for write in every:
        if write.text is None:
            batch.remove_value(write.key, **shared(write))
        else:
            batch.write_value(write.key, stored(write.text), **shared(write), unchanged=unchanged(write))


@pytest.mark.timeout(600)
def test_two_engines_and_an_oracle_agree() -> None:
    """A failure is told as it was found, with the blob that replays it: making it small takes minutes, and is for who looks into it."""
    profile = os.environ.get("HYPOTHESIS_PROFILE")
    examples = settings().max_examples if profile else 10  # each is thirty steps and several openings
    phases = [phase for phase in settings().phases if phase != Phase.shrink or profile == "shrink"]
    run_state_machine_as_test(Agreement, settings=settings(max_examples=examples, phases=phases))


@pytest.mark.long
@pytest.mark.timeout(0)
def test_two_engines_and_an_oracle_agree_for_long() -> None:
    run_state_machine_as_test(Agreement, settings=settings.get_profile("long"))
