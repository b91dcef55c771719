"""The whole life of a store's folder, in random order, by two processes in turns, against an oracle that forgets nothing.

The test's own process and one that was forked to be killed write, seal, archive, redact, shred, delete, back up, restore and
open anew, each with or without the archive attached. The oracle keeps every fact since the first, so that what is at hand can
be held against a fold of all of them, and what is not must be refused, with the floor.
"""

from __future__ import annotations

import copy
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import currently_in_test_context, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from eventstore.restore import restore
from tests import oracle
from tests.faults.turns import DOMAINS, SMALL, Answer, Hand, find, subject_of, take_turns
from tests.faults.workers import Server, Worker
from tests.oracle import ARCHIVED, ERASED, REDACTED, SEALED, SYSTEM, Fact, Key, Write, come_back, parts_of, text_of

SAYS = {"seal": SEALED, "archive": ARCHIVED, "redact": REDACTED}
EVENTS = 60
"""A life with more of them is long enough: each is folded again for every position that is looked at."""

names = st.sampled_from(["people", "people", "notes"])
parties = st.sampled_from(["here", "there"])
keys: st.SearchStrategy[Key] = st.sampled_from([("alice", 1), ("alice", 2), ("bob", 1), "public", "id2", "id10"])
prefixes: st.SearchStrategy[Key] = st.sampled_from([("alice",), ("bob",), "public", "nothing", ()])
sizes = st.sampled_from([None, None, 0, 0, 0, 40, 40, 3_000])
positions = st.integers(0, EVENTS)


@pytest.fixture(autouse=True)
def small_settings() -> Iterator[None]:
    """The same as the other process has."""
    with pytest.MonkeyPatch.context() as patch:
        for module, adjusted in SMALL.items():
            for name, value in adjusted.items():
                patch.setattr(f"eventstore.{module}.{name}", value)
        yield


@dataclass
class Book:
    """What the oracle knows of one domain."""

    model: oracle.Domain = field(default_factory=oracle.Domain)
    exported: dict[int, str] = field(default_factory=dict)
    """The checksum of every event, as it was read when it was new."""
    traces: dict[int, str] = field(default_factory=dict)
    """Bytes that stand in a file only as long as a value does, by position."""
    keyed: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Whose key a value is encrypted with, and the how-manieth of his it is."""
    gone: dict[int, str] = field(default_factory=dict)
    """Sealed files by where they end: `archived` or `deleted`."""
    erased: dict[str, set[int]] = field(default_factory=lambda: {"store": set(), "archive": set()})
    """The positions whose bytes must be in no file of the store any more, in none of its archive."""
    calls: dict[str, tuple[list[tuple[Key, Any]], list[tuple[int, bool]]]] = field(default_factory=dict)

    @property
    def facts(self) -> list[Fact]:
        return self.model.facts

    @property
    def seals(self) -> list[int]:
        return [fact.position for fact in self.facts if fact.text == SEALED]

    def floor(self, attached: bool) -> int:
        """The last position that is not at hand."""
        return max((last for last, where in self.gone.items() if where == "deleted" or not attached), default=0)

    def held(self) -> set[int]:
        """The positions whose values were not erased."""
        return {fact.position for fact in self.facts if fact.key != SYSTEM and fact.text not in (None, ERASED)}


class Lives(RuleBasedStateMachine):
    """A store, its archive, its backup and its key file, and two processes that take turns at them."""

    server: Server
    scratch: Path

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir=self.scratch))
        self.archive, self.backup, self.keys = (self.root / name for name in ("archive", "backup", "people.keys"))
        self.archive.mkdir()
        self.lives, self.values, self.token = 0, 0, secrets.token_hex(6)
        self.folder = self.root / "store-0"
        self.books = {name: Book() for name in DOMAINS}
        self.backed_up: dict[str, Book] | None = None
        self.generation: dict[str, int] = {}
        self.destroyed: set[tuple[str, int]] = set()
        self.attached = {"here": True, "there": True}
        self.hand = Hand()
        self.worker: Worker | None = None
        self.pipe = -1

    @initialize()
    def open_both(self) -> None:
        for party in self.attached:
            self.open(party, attached=True)

    # ---- orders

    def tell(self, party: str, do: str, **given: Any) -> Answer:
        """Let one of the two carry out an order."""
        order = {"do": do, **given}
        if currently_in_test_context():
            note(f"{party}: {order}"[:300])
        if party == "here":
            return json.loads(json.dumps(self.hand.obey(order)))  # type: ignore[no-any-return]
        if self.worker is None:
            fifo = self.root / f"orders-{secrets.token_hex(4)}"
            os.mkfifo(fifo)
            self.worker = self.server.start(take_turns, orders=str(fifo))
            self.pipe = os.open(fifo, os.O_WRONLY)
        os.write(self.pipe, json.dumps(order).encode() + b"\n")
        return self.worker.told()

    def done(self, party: str, do: str, **given: Any) -> Any:
        """The same, where nothing can be refused."""
        answer = self.tell(party, do, **given)
        assert "done" in answer, answer
        return answer["done"]

    def open(self, party: str, *, attached: bool) -> None:
        self.attached[party] = attached
        archives = [str(self.archive)] if attached else []
        self.done(party, "open", folder=str(self.folder), archives=archives, keys=str(self.keys))
        for name, book in self.books.items():
            self.take_over(party, name, {"archive"})
            if attached:  # whoever opens a log finishes what others could not
                book.erased["archive"] |= book.erased["store"]
        self.require_gone()

    def kill(self) -> None:
        """End the other process, now."""
        if self.worker is not None:
            os.close(self.pipe)
            self.worker.close()
            self.server.forget(self.worker)
            self.worker = None

    def take_over(self, party: str, name: str, allowed: set[str]) -> None:
        """Export what is new. What the log says of itself was not known before, but may only be of these kinds."""
        book = self.books[name]
        for event in self.done(party, "events", domain=name, after=max([self.books[name].floor(self.attached[party]), *book.exported])):
            position = event["position"]
            if position == len(book.facts) + 1:
                assert event["op"] in allowed, event
                book.facts.append(Fact(position, SYSTEM, SAYS[event["op"]], None))
            fact = book.facts[position - 1]
            key = event["key"] if isinstance(event["key"], str) else tuple(event["key"])
            assert key == fact.key, event
            assert event["op"] == (
                {text: op for op, text in SAYS.items()}[str(fact.text)] if fact.key == SYSTEM else "put" if fact.text else "remove"
            )
            book.exported[position] = event["checksum"]
            if event["trace"] is not None and fact.key != SYSTEM:
                book.traces[position] = event["trace"]

    # ---- writing

    def current(self, subject: str) -> tuple[str, int]:
        """The key of a subject, a new one if the last was destroyed."""
        key = subject, self.generation.setdefault(subject, 1)
        if key in self.destroyed:
            key = subject, key[1] + 1
            self.generation[subject] = key[1]
        return key

    @precondition(lambda self: len(self.books["people"].facts) + len(self.books["notes"].facts) < 2 * EVENTS)
    @rule(party=parties, name=names, every=st.lists(st.tuples(keys, sizes), min_size=1, max_size=4), named=st.booleans())
    def write(self, party: str, name: str, every: list[tuple[Key, int | None]], named: bool) -> None:
        """Values, each a word of its own, and (without a size) removals, in one call."""
        writes: list[tuple[Key, Any]] = []
        for key, size in every:
            self.values += 1
            writes.append((key, None if size is None else {"word": f"{self.values:06}-{self.token}", "pad": "x" * size}))
        event_id = f"id-{self.values}" if named else None
        book = self.books[name]
        before = len(book.facts)
        wanted = book.model.call(lambda: [Write(key, None if value is None else text_of(value)) for key, value in writes])
        for position, fact in enumerate(book.facts[before:], before + 1):
            if name == "people" and fact.text is not None and (subject := subject_of(fact.key)) is not None:
                book.keyed[position] = self.current(subject)
        found = self.done(party, "write", domain=name, writes=writes, event_id=event_id)
        assert found == [[answer.position, answer.appended] for answer in wanted]
        self.take_over(party, name, set())
        if event_id is not None and any(answer.appended for answer in wanted):
            book.calls[event_id] = writes, found

    @precondition(lambda self: any(book.calls for book in self.books.values()))
    @rule(party=parties, data=st.data())
    def retry(self, party: str, data: st.DataObject) -> None:
        """The first receipts, or, where the event is not at hand, that it is there; never a second time."""
        self.require_retried(
            party, *data.draw(st.sampled_from([(name, call) for name, book in sorted(self.books.items()) for call in sorted(book.calls)]))
        )

    def require_retried(self, party: str, name: str, event_id: str) -> None:
        book = self.books[name]
        writes, receipts = book.calls[event_id]
        for key, value in writes if name == "people" else ():
            if value is not None and (subject := subject_of(key)) is not None:
                self.current(subject)  # encoded before it is known that nothing is appended
        answer = self.tell(party, "write", domain=name, writes=writes, event_id=event_id)
        if "done" in answer:
            assert answer["done"] == receipts
        else:
            assert answer["refused"] == "CompactedError", answer
            assert min(position for position, _ in receipts) <= book.floor(self.attached[party]), answer
            assert answer["position"] in [position for position, appended in receipts if appended]

    # ---- moving

    @rule(party=parties, name=names)
    def seal(self, party: str, name: str) -> None:
        assert self.done(party, "seal", domain=name) == self.books[name].model.seal()
        self.take_over(party, name, set())

    @rule(party=parties, name=names, before=st.none() | positions)
    def archive_some(self, party: str, name: str, before: int | None) -> None:
        book = self.books[name]
        wanted = [last for last in book.seals if last not in book.gone and (before is None or last < before)]
        assert self.done(party, "archive", domain=name, before=before, to=str(self.archive)) == wanted
        for last in wanted:
            book.model.archive()
            book.gone[last] = "archived"
        self.take_over(party, name, {"archive"})

    @rule(party=parties, name=names, keep=st.sampled_from([0, 3, 10, 20]), delete=st.booleans())
    def retain(self, party: str, name: str, keep: int, delete: bool) -> None:
        """All but so many events go, into the archive, or for good and from the archive, too."""
        book = self.books[name]
        done = self.done(party, "retain", domain=name, keep=keep, to=None if delete else str(self.archive))
        first = max([0, *book.seals]) + 1
        live = any(fact.key != SYSTEM for fact in book.facts[first - 1 :])
        assert done["sealed"] == (live and len(book.facts) - first + 1 > keep)
        if done["sealed"]:
            book.model.seal()
        head = len(book.facts)
        old = [last for last in book.seals if head - last >= keep and book.gone.get(last) != "deleted"]
        assert done["files"] == [last for last in old if delete or last not in book.gone]
        for last in done["files"]:
            book.model.archive()
            book.gone[last] = "deleted" if delete else "archived"
        self.take_over(party, name, {"archive"})
        if delete:
            there = {path.stem for path in self.archive.rglob(f"{name}/*.db")}
            assert len(there) == list(book.gone.values()).count("archived"), "what was deleted is in the archive"

    # ---- erasing

    @rule(party=parties, name=names, key=keys, how=st.sampled_from(["key", "key", "prefix"]), prefix=prefixes)
    def redact(self, party: str, name: str, key: Key, how: str, prefix: Key) -> None:
        """Everything that one key, or all under a prefix, ever had, as far as it is at hand; what is not is named."""
        book, start = self.books[name], parts_of(prefix)
        meant = [
            fact
            for fact in book.facts
            if fact.key != SYSTEM and (fact.key == come_back(key) if how == "key" else parts_of(fact.key)[: len(start)] == start)
        ]
        answer = self.tell(party, "redact", domain=name, **{how: key if how == "key" else prefix})
        floor = book.floor(self.attached[party])
        standing = {fact.position for fact in meant} & book.held()
        if "refused" in answer:
            assert answer["refused"] == "NotFoundError", answer
            assert not any(fact.position > floor and fact.text is not None for fact in meant), answer
            return
        self.erased(party, name, answer["done"], standing)

    @precondition(lambda self: any(book.held() for book in self.books.values()))
    @rule(party=parties, data=st.data())
    def redact_positions(self, party: str, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([name for name, book in sorted(self.books.items()) if book.held()]))
        book = self.books[name]
        chosen = data.draw(st.lists(st.sampled_from(sorted(book.held())), min_size=1, max_size=3, unique=True))
        answer = self.tell(party, "redact", domain=name, positions=chosen)
        if "refused" in answer:
            assert answer["refused"] == "CompactedError", answer
            assert min(chosen) <= book.floor(self.attached[party])
            return
        assert answer["done"]["erased"] == sorted(chosen)
        self.erased(party, name, answer["done"], set(chosen))

    def erased(self, party: str, name: str, report: dict[str, Any], meant: set[int]) -> None:
        """Take note of what was erased, of what was meant: all that is at hand, and no other."""
        book, floor = self.books[name], self.books[name].floor(self.attached[party])
        assert set(report["erased"]) <= meant
        left = meant - set(report["erased"])
        assert all(position <= floor for position in left), f"{left} could have been erased"
        archived = "archived" in book.gone.values()
        assert report["complete"] or (archived and not self.attached[party]), report
        if any(where == "archived" and last >= min(left, default=last + 1) for last, where in book.gone.items()):
            assert not report["complete"], f"{left} stands in the archive, and nobody was told"
        before = len(book.facts)
        assert book.model.redact(report["erased"]) == report["erased"]
        assert report["position"] == (before + 1 if report["erased"] else None)
        self.take_over(party, name, {"archive"})
        book.erased["store"] |= set(report["erased"])
        if self.attached[party]:
            book.erased["archive"] |= book.erased["store"]
        self.require_gone()

    @rule(party=parties, subject=st.sampled_from(["alice", "bob"]))
    def shred(self, party: str, subject: str) -> None:
        """What was written with the key is read by nobody any more, in whatever copy; what is at hand is erased."""
        answer = self.tell(party, "shred", subject=subject)
        if subject not in self.generation:
            assert answer["refused"] == "NotFoundError", answer
            return
        assert "done" in answer, answer
        self.destroyed |= {(subject, number) for number in range(1, self.generation[subject] + 1)}
        book = self.books["people"]
        erased = answer["done"].pop("people", [])
        assert answer["done"] == {}
        meant = {position for position, (whose, _) in book.keyed.items() if whose == subject} & book.held()
        report = {"erased": erased, "position": len(book.facts) + 1 if erased else None, "complete": not (meant - set(erased))}
        self.erased(party, "people", report, meant)

    def require_gone(self) -> None:
        """No file holds the bytes of what was erased."""
        for folder, where in ((self.folder, "store"), (self.archive, "archive")):
            traces = [book.traces[position] for book in self.books.values() for position in book.erased[where]]
            if traces:
                (said,) = self.server.run(find, folders=[str(folder)], traces=traces)
                assert said["files"] == [], f"erased, and still in the {where}"

    # ---- coming and going

    @rule(party=parties, attached=st.booleans())
    def open_anew(self, party: str, attached: bool) -> None:
        self.done(party, "close")
        self.open(party, attached=attached)

    @rule(attached=st.booleans())
    def kill_and_open(self, attached: bool) -> None:
        """kill -9 of one; the other still has everything open."""
        self.kill()
        self.open("there", attached=attached)

    @rule(attached=st.booleans())
    def kill_both(self, attached: bool) -> None:
        """What is left of both is opened elsewhere."""
        self.kill()
        self.lives += 1
        place = self.root / f"store-{self.lives}"
        shutil.copytree(self.folder, place)
        self.done("here", "close")
        self.folder = place
        for party in self.attached:
            self.open(party, attached=attached)

    @rule(party=parties)
    def back_up(self, party: str) -> None:
        assert self.done(party, "backup", to=str(self.backup)) == {name: len(book.facts) for name, book in self.books.items()}
        self.backed_up = copy.deepcopy(self.books)
        shutil.rmtree(self.root / "archive-then", ignore_errors=True)
        shutil.copytree(self.archive, self.root / "archive-then")
        traces = [book.traces[position] for book in self.books.values() for position in book.erased["store"]]
        if traces:
            (said,) = self.server.run(find, folders=[str(self.backup)], traces=traces)
            assert said["files"] == [], "erased before, and in the backup"

    @precondition(lambda self: self.backed_up is not None)
    @rule(attached=st.booleans())
    def restore(self, attached: bool) -> None:
        """All goes on from where it was backed up; what was destroyed since stays so."""
        assert self.backed_up is not None
        self.kill()
        self.done("here", "close")
        self.lives += 1
        self.folder = self.root / f"store-{self.lives}"
        restore(self.backup, self.folder, processes=1)
        self.books = copy.deepcopy(self.backed_up)
        shutil.rmtree(self.archive)
        shutil.copytree(self.root / "archive-then", self.archive)
        for party in self.attached:
            self.open(party, attached=attached)

    # ---- reading

    def wanted(self, name: str, position: int | None) -> list[list[Any]]:
        """Keys and values as of a position, None for what nobody can read: a fold over every fact there ever was."""
        book = self.books[name]
        at = book.model if position is None else book.model.as_of(position)
        found: list[list[Any]] = []
        for key, text in at.items():
            latest = at.latest(key)
            assert latest is not None
            locked = text == ERASED or book.keyed.get(latest.position) in self.destroyed
            found.append([key if isinstance(key, str) else list(key), None if locked else text])
        return found

    def require_same(self, party: str, name: str, every: list[int | None]) -> None:
        book = self.books[name]
        floor = book.floor(self.attached[party])
        found = self.done(party, "look", domain=name, positions=every)
        # Who has a file open that another process moved away may read on in it.
        assert found["head"] == len(book.facts)
        assert found["floor"] <= floor
        for position, view in zip(every, found["views"], strict=True):
            if "floor" in view:
                assert position is not None
                assert position < view["floor"]
                assert found["floor"] <= view["floor"] <= floor
            else:
                assert position is None or position >= found["floor"]
                wanted = self.wanted(name, position)
                assert view == {"items": wanted, "length": len(wanted)}, f"as of {position}"

    @invariant()
    def they_agree(self) -> None:
        for party in self.attached if self.worker is not None else ():
            for name in self.books:
                self.require_same(party, name, [None])

    @rule(party=parties, name=names, every=st.lists(positions, min_size=1, max_size=4))
    def look_back(self, party: str, name: str, every: list[int]) -> None:
        self.require_same(party, name, list(every))

    def teardown(self) -> None:
        try:
            if self.worker is not None:
                self.judge_without_caches()
                self.open("there", attached=True)
                for party in self.attached:
                    self.judge(party)
        finally:
            self.kill()
            self.hand.close()
            shutil.rmtree(self.root)

    def judge(self, party: str) -> None:
        """The end of a life: every position, every event, and the proof."""
        reports = self.done(party, "verify")
        assert sorted(reports) == sorted(self.books)
        for name, book in self.books.items():
            floor = book.floor(self.attached[party])
            self.require_same(party, name, [None, *range(len(book.facts) + 1)])
            events = self.done(party, "events", domain=name, after=floor)
            assert [event["position"] for event in events] == list(range(floor + 1, len(book.facts) + 1))
            self.require_exported(party, name)
            for event in events:
                assert event["checksum"] == book.exported.get(event["position"], event["checksum"])
                assert event["erased"] == (book.facts[event["position"] - 1].text == ERASED)
            carried = {fact.key: fact for fact in book.facts[:floor]}
            redacted = sum(fact.text == ERASED for fact in (*carried.values(), *book.facts[floor:]))
            assert reports[name] == {
                "findings": [],
                "head": len(book.facts),
                "floor": floor,
                "events": len(book.facts) - floor,
                "redacted": redacted,
            }

    def require_exported(self, party: str, name: str) -> None:
        """A database of plain tables has every event there ever was; where some are not at hand all since, and what is carried of them."""
        book, path = self.books[name], self.root / f"{secrets.token_hex(4)}.sqlite"
        archives = [str(self.archive)] if self.attached[party] else []
        answer = self.tell(party, "tables", domain=name, folder=str(self.folder), archives=archives, path=str(path))
        floor = book.floor(self.attached[party])
        keys = [list(parts_of(fact.key)) if isinstance(fact.key, tuple) else fact.key for fact in book.facts]
        wanted = [[position, key, fact.text == ERASED] for position, (fact, key) in enumerate(zip(book.facts, keys, strict=True), 1)]
        events = answer["done"]["events"]
        assert [event for event in events if event[0] > floor] == wanted[floor:]
        assert [event for event in events if event[0] <= floor and event not in wanted] == []
        assert sorted(answer["done"]["keys"], key=str) == sorted(
            (list(key) if isinstance(key, tuple) else key for key, _ in book.model.items()), key=str
        )

    def judge_without_caches(self) -> None:
        """What may be deleted at any time is: of each call that was ever made it is known that it was, whatever went with its file.

        Before anything else is asked: an opening that still finds the caches makes good what was forgotten.
        """
        self.kill()
        self.done("here", "close")
        for caches in self.folder.glob("logs/*/pointers"):
            shutil.rmtree(caches)
        self.open("here", attached=False)
        for name, book in self.books.items():
            for event_id in book.calls:
                self.require_retried("here", name, event_id)


def live(server: Server, scratch: Path, tried: settings) -> None:
    """Live as many lives as `tried` says, in folders of `scratch`."""

    class Here(Lives):
        """These very lives."""

    Here.server, Here.scratch = server, scratch
    run_state_machine_as_test(Here, settings=tried)


def test_a_life_that_is_told_step_by_step(server: Server, in_memory: Path) -> None:
    """What lives in random orders may miss for long: a past that is sealed, archived and deleted, each time by the other one."""

    class Told(Lives):
        """This very life."""

    Told.server, Told.scratch = server, in_memory
    life = Told()
    try:
        life.open_both()
        for number in range(3):
            for party, name in (("here", "notes"), ("there", "people")):
                life.write(party, name, [("public", 0), (("alice", 1), 40), ("id2", 0 if number else None)], named=True)
            life.seal("there", "notes")
            life.they_agree()
        for party in life.attached:
            life.judge(party)
        life.archive_some("here", "notes", 8)
        life.redact("there", "notes", "public", "key", ())
        life.retain("there", "notes", 0, delete=True)
        life.retain("here", "people", 0, delete=False)
        life.write("there", "people", [("id10", 0)], named=True)
        life.they_agree()
    finally:
        life.teardown()


@pytest.mark.timeout(600)  # a failure is made small before it is told
def test_two_processes_live_as_the_oracle_says(server: Server, in_memory: Path) -> None:
    live(server, in_memory, settings(max_examples=3))


@pytest.mark.faults
@pytest.mark.timeout(1_200)
def test_two_processes_live_many_lives_as_the_oracle_says(server: Server, in_memory: Path) -> None:
    live(server, in_memory, settings(max_examples=settings().max_examples if "HYPOTHESIS_PROFILE" in os.environ else 20))


@pytest.mark.long
@pytest.mark.timeout(0)
def test_two_processes_live_as_the_oracle_says_for_long(server: Server, in_memory: Path) -> None:
    live(server, in_memory, settings.get_profile("long"))
