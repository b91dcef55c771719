"""Group commit: many threads, one transaction; each its own receipt or its own error, in its own order."""

from __future__ import annotations

import os
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

import eventstore
from eventstore import (
    ABSENT,
    ClosedError,
    ConfigError,
    DomainStore,
    DuplicateEventError,
    InvalidValueError,
    Receipt,
    Store,
    UnavailableError,
    WrongExpectedError,
    group,
)
from eventstore.group import Waiting
from eventstore.model import Durability
from eventstore.witness import unpack_witness
from eventstore.writes import made
from tests import oracle
from tests.eventstore.crew import PATIENCE, Crew, Transactions


def witnessed(folder: Path, domain: str = "d") -> int:
    """The position up to which the log is on record as durable."""
    head = unpack_witness((folder / "logs" / domain / "head").read_bytes()[:48])
    assert head is not None
    return head.position


class Told:
    """Where nobody waits."""

    def put(self, item: Waiting, /) -> None:
        """Nobody needs to know."""


# Many callers


@pytest.mark.parametrize("domains", [1, 3])
@pytest.mark.parametrize("threads", [8, 64])
def test_every_thread_gets_its_own_receipts_in_its_own_order(any_store: Store, threads: int, domains: int) -> None:
    opened = [any_store.domain(f"d{number}") for number in range(domains)]
    told: dict[tuple[int, int], Receipt] = {}

    def write(thread: int) -> None:
        for number in range(10):
            told[thread, number] = opened[(thread + number) % domains].write_value((thread, number), [thread, number])

    crew = Crew()
    for thread in range(threads):
        crew.start(lambda thread=thread: write(thread))  # type: ignore[misc]
    crew.results()
    for domain in opened:
        events = list(domain.events())
        assert [event.position for event in events] == list(range(1, len(events) + 1))
        found = {eventstore.decode_key(event.key): (event.position, event.checksum) for event in events}
        mine = {key: (receipt.position, receipt.checksum) for key, receipt in told.items() if receipt.domain == domain.name}
        assert found == mine
        assert {key: domain.read_value(key) for key in mine} == {key: list(key) for key in mine}
        for thread in range(threads):
            positions = [
                receipt.position for (owner, _), receipt in sorted(told.items()) if owner == thread and receipt.domain == domain.name
            ]
            assert positions == sorted(positions)
    assert len(told) == threads * 10
    assert any_store.verify().ok


def test_those_who_wait_at_the_same_time_share_a_transaction(store: Store) -> None:
    transactions = Transactions(store.domain("d"))
    domain = transactions.domain
    calls = [lambda number=number: domain.write_value(f"k{number}", number) for number in range(64)]
    receipts: list[Receipt] = transactions.together(*calls)
    assert transactions.sizes == [64]
    assert [receipt.position for receipt in receipts] == list(range(2, 66))
    assert [domain.read_value(f"k{number}") for number in range(64)] == list(range(64))


def test_a_lone_thread_commits_by_itself(store: Store) -> None:
    transactions = Transactions(store.domain("d"))
    committed_by: list[int] = []
    append = transactions.domain.group.live.log.append

    def noted(*arguments: Any, **options: Any) -> None:
        committed_by.append(threading.get_ident())
        append(*arguments, **options)

    transactions.domain.group.live.log.append = noted  # type: ignore[method-assign]
    before = threading.active_count()
    for number in range(3):
        transactions.domain.write_value("k", number)
    assert committed_by == [threading.get_ident()] * 3
    assert transactions.sizes == [1, 1, 1]
    assert threading.active_count() == before


def test_each_error_goes_to_the_caller_who_earned_it(store: Store) -> None:
    transactions = Transactions(store.domain("d"))
    domain = transactions.domain
    domain.write_value("there", 1, event_id="used")
    outcomes = transactions.together(
        lambda: domain.write_value("a", 1),
        lambda: domain.write_value("there", 2, expected=ABSENT),
        lambda: domain.write_value("other", 3, event_id="used"),
        lambda: domain.write_values([("b", 1), ("a", 2), ("a", 3)]),
        lambda: domain.write_values([("half", 1), ("a", 9)], expected=ABSENT),
        lambda: domain.remove_value("never there"),
        lambda: domain.remove_all("b"),
    )
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Receipt, WrongExpectedError, DuplicateEventError, list, WrongExpectedError, Receipt, list]
    assert (outcomes[1].key, outcomes[1].actual) == ('["there"]', 1)
    assert (outcomes[2].event_id, outcomes[2].position) == ("used", 1)
    assert [receipt.position for receipt in outcomes[3]] == [4, 5, 6]
    assert (outcomes[4].key, outcomes[4].actual) == ('["a"]', 6)
    assert (outcomes[5].appended, outcomes[5].position) == (False, 6)
    assert [receipt.position for receipt in outcomes[6]] == [7]
    assert transactions.sizes == [5]
    assert "half" not in domain
    with pytest.raises(InvalidValueError):  # said before anybody is bothered
        domain.write_value("a", float("nan"))


def submitted(domain: DomainStore, key: str, event_id: str | None = None) -> Waiting:
    """A call that is queued, and for which nobody waits."""
    draft = domain._put(key, 1, None, eventstore.ANY, "append", (None, None))
    waiting = Waiting(made(domain._ready([draft], event_id, None)), Told())
    domain.group.submit(waiting)
    return waiting


def test_errors_of_one_cause_are_one_for_each_caller(tmp_path: Path) -> None:
    """Threads must not share a traceback, nor an event_id."""
    with eventstore.open(tmp_path / "data", busy_timeout_ms=1) as store, eventstore.open(tmp_path / "data") as other:
        domain = store.domain("d")
        with other.domain("d")._live.log.writing():
            calls = [submitted(domain, "k", f"id-{number}") for number in range(3)]
            domain.group.lead(wait=True)
        refused = [call.answer for call in calls]
        assert [error.event_id for error in refused if isinstance(error, UnavailableError)] == ["id-0", "id-1", "id-2"]
        assert len({id(error) for error in refused}) == 3
        assert [error.outcome for error in refused if isinstance(error, UnavailableError)] == ["not_written"] * 3
        assert store.halted is None, "somebody else's lock goes away by itself"
        assert domain.write_value("k", 1).position == 1


def test_retries_in_one_transaction_get_the_first_answer(store: Store) -> None:
    transactions = Transactions(store.domain("d"))
    domain = transactions.domain
    outcomes = transactions.together(
        lambda: domain.write_values([("a", 1), ("b", 2)], event_id="one"),
        lambda: domain.write_values([("a", 1), ("b", 2)], event_id="one"),
        lambda: domain.write_value("a", 3, event_id="one"),
        lambda: domain.remove_value("never there", event_id="nothing"),
        lambda: domain.remove_value("never there", event_id="nothing"),
        lambda: domain.remove_value("b", event_id="nothing"),
    )
    assert outcomes[0] == outcomes[1]
    assert [receipt.position for receipt in outcomes[0]] == [2, 3]
    assert outcomes[3] == outcomes[4]
    assert not outcomes[3].appended
    assert [type(outcome) for outcome in (outcomes[2], outcomes[5])] == [DuplicateEventError] * 2
    assert transactions.sizes == [2]


def test_receipts_are_their_callers_own(store: Store) -> None:
    """What a caller does to his list must not change what a retry is told."""
    domain = store.domain("d")
    domain.write_value("a", 1)
    first = domain.write_values([("a", 1)], unchanged="skip", event_id="nothing")
    first.clear()
    again = domain.write_values([("a", 1)], unchanged="skip", event_id="nothing")
    again.clear()
    assert len(domain.write_values([("a", 1)], unchanged="skip", event_id="nothing")) == 1


# How durable


@pytest.mark.parametrize("strongest", ["process", "power", "power+"])
def test_the_strongest_durability_of_a_transaction_counts_for_all_of_it(tmp_path: Path, strongest: Durability) -> None:
    with eventstore.open(tmp_path / "data", durability="process") as store:
        transactions = Transactions(store.domain("d"))
        domain = transactions.domain
        asked: list[Durability] = ["process", strongest, "process"]
        receipts = transactions.together(
            *[lambda number=number: domain.write_value("k", number, durability=asked[number]) for number in range(3)]
        )
        assert transactions.durabilities == [strongest]
        assert [receipt.durability for receipt in receipts] == asked
        assert witnessed(tmp_path / "data") == (0 if strongest == "process" else 4)


@pytest.mark.parametrize("nothing", ["remove", "skip", "retry"])
def test_what_changes_nothing_still_makes_what_stands_as_durable_as_asked(tmp_path: Path, nothing: str) -> None:
    with eventstore.open(tmp_path / "data", durability="process") as store:
        domain = store.domain("d")
        domain.write_value("k", 1, event_id="id")
        assert witnessed(tmp_path / "data") == 0
        calls: dict[str, Callable[[Durability], Receipt]] = {
            "remove": lambda level: domain.remove_value("never there", durability=level),
            "skip": lambda level: domain.write_value("k", 1, unchanged="skip", durability=level),
            "retry": lambda level: domain.write_value("k", 1, event_id="id", durability=level),
        }
        assert calls[nothing]("process").durability == "process"
        assert witnessed(tmp_path / "data") == 0
        assert calls[nothing]("power").durability == "power"
        assert (witnessed(tmp_path / "data"), domain.head().position) == (1, 1)


def test_a_call_that_changes_nothing_is_as_durable_as_asked_when_others_write(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data", durability="process") as store:
        transactions = Transactions(store.domain("d"))
        domain = transactions.domain
        transactions.together(lambda: domain.write_value("a", 1), lambda: domain.remove_value("never there", durability="power"))
        assert transactions.sizes == [1]
        assert witnessed(tmp_path / "data") == 2


# How much


def test_a_transaction_ends_where_waiting_would_take_too_long(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "MOST_EVENTS", 10)
    transactions = Transactions(store.domain("d"))
    domain = transactions.domain

    def batch(first: int, size: int) -> list[Receipt]:
        return domain.write_values([((first, number), number) for number in range(size)])

    sizes = [4, 4, 4, 25, 1, 9, 1]
    receipts = transactions.together(*[lambda number=number: batch(number, sizes[number]) for number in range(7)])
    assert transactions.sizes == [12, 25, 10, 1]
    assert [receipt.position for told in receipts for receipt in told] == list(range(2, 2 + sum(sizes)))


# The end of things


def test_a_store_closed_beside_64_writers_keeps_every_receipt(tmp_path: Path) -> None:
    store = eventstore.open(tmp_path / "data")
    domains = [store.domain(f"d{number}") for number in range(4)]
    told: list[Receipt] = []
    enough = threading.Semaphore(0)

    def write(thread: int) -> None:
        for number in range(1_000_000):
            told.append(domains[thread % 4].write_value((thread, number), number))
            enough.release()

    crew = Crew()
    for thread in range(64):
        crew.start(lambda thread=thread: write(thread))  # type: ignore[misc]
    for _ in range(200):
        assert enough.acquire(timeout=PATIENCE)
    store.close()
    assert {type(outcome) for outcome in crew.outcomes()} == {ClosedError}
    with eventstore.open(tmp_path / "data") as again:
        for name in again.domains():
            found = {event.position: event.checksum for event in again.domain(name).events()}
            kept = {receipt.position: receipt.checksum for receipt in told if receipt.domain == name}
            assert found == kept
        assert again.verify().ok


def test_a_child_forked_while_threads_write_can_write(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as store:
        transactions = Transactions(store.domain("d"))
        domain = transactions.domain
        stop = threading.Event()

        def write(thread: int) -> None:
            number = 0
            while not stop.is_set():
                domain.write_value((thread, number), number)
                number += 1

        crew = Crew()
        for thread in range(8):
            crew.start(lambda thread=thread: write(thread))  # type: ignore[misc]
        transactions.arrived(20)
        for child in range(5):
            pid = os.fork()
            if not pid:
                os._exit(0 if domain.write_value(("child", child), child).appended else 1)
            assert os.waitpid(pid, 0)[1] == 0
        stop.set()
        crew.results()
        assert [domain.read_value(("child", child)) for child in range(5)] == list(range(5))
        assert store.verify().ok


def test_a_write_inside_a_write_is_refused_and_spoils_nothing(store: Store) -> None:
    domain = store.domain("d")
    append = domain.group.live.log.append
    refusals: list[ConfigError] = []

    def writes_again(*arguments: Any, **options: Any) -> None:
        try:
            domain.write_value("inner", 1)
        except ConfigError as error:
            refusals.append(error)
        append(*arguments, **options)

    domain.group.live.log.append = writes_again  # type: ignore[method-assign]
    assert domain.write_value("outer", 1).position == 1
    assert len(refusals) == 1
    assert "inner" not in domain


# Taking a call back


class _Pausing(deque[Waiting]):
    """A queue that lets somebody in while a call is on its way from it into a transaction."""

    def __init__(self, calls: Iterable[Waiting], meanwhile: Callable[[], None]) -> None:
        super().__init__(calls)
        self._meanwhile = meanwhile

    def popleft(self) -> Waiting:
        self._meanwhile()
        return super().popleft()


def test_a_call_on_its_way_into_a_transaction_cannot_be_taken_back(store: Store) -> None:
    """Found in the queue by one and in the transaction by the other, it would be written, and its neighbour lost."""
    domain = store.domain("d")
    commits = domain.group
    calls = [submitted(domain, f"k{number}") for number in range(2)]
    crew, asked = Crew(), threading.Event()

    def withdraw() -> bool:
        asked.set()
        return commits.withdraw(calls[0])

    def meanwhile() -> None:
        if not asked.is_set():
            thread = crew.start(withdraw)
            asked.wait(PATIENCE)
            thread.join(0.2)  # it ends now if nothing keeps it from meddling

    commits._queue = _Pausing(commits._queue, meanwhile)
    commits.lead(wait=True)
    withdrawn = crew.results()[0]
    assert withdrawn == ("k0" not in domain)
    assert all(isinstance(call.answer, list) for call in calls)
    assert domain.read_value("k1") == 1


# Against the oracle


@pytest.mark.parametrize("seed", range(3))
def test_whatever_meets_whatever_the_oracle_agrees(any_store: Store, seed: int) -> None:
    """Every round a handful of random calls meets in one transaction; the oracle makes them one after the other."""
    chance = random.Random(seed)
    transactions = Transactions(any_store.domain("d"))
    plain = oracle.Domain()
    for _ in range(25):
        plans = [_plan(chance) for _ in range(chance.randrange(2, 9))]
        plain.call(lambda: [oracle.Write("the one before", "0")])
        expected = [_asked(plain, writes, event_id) for writes, event_id in plans]
        found = transactions.together(*[lambda plan=plan: _answers(transactions.domain, *plan) for plan in plans])
        assert [type(answer).__name__ if isinstance(answer, Exception) else answer for answer in found] == expected
        assert len(transactions.sizes) == 1
    assert [(event.position, eventstore.decode_key(event.key), event.data) for event in transactions.domain.events()] == [
        (fact.position, fact.key, fact.text) for fact in plain.facts
    ]


def _plan(chance: random.Random) -> tuple[list[oracle.Write], str | None]:
    """Some writes to three keys, now and then under a name that was used before."""
    writes = [
        oracle.Write(
            chance.choice("abc"),
            chance.choice([None, "0", "1"]),
            expected=chance.choice(["ANY", "ANY", "ABSENT", "PRESENT"]),
            skip=chance.random() < 0.5,
        )
        for _ in range(chance.choice([1, 1, 1, 2, 3]))
    ]
    return writes, chance.choice([None, None, f"id-{chance.randrange(12)}"])


def _asked(plain: oracle.Domain, writes: Sequence[oracle.Write], event_id: str | None) -> Any:
    try:
        return [(answer.position, answer.appended) for answer in plain.call(lambda: writes, event_id=event_id, request=writes)]
    except oracle.RefusedError as error:
        return error.kind


def _answers(domain: DomainStore, writes: Sequence[oracle.Write], event_id: str | None) -> list[tuple[int, bool]]:
    with domain.batch(event_id=event_id) as batch:
        for write in writes:
            expected = eventstore.Expected[str(write.expected)]
            if write.text is None:
                batch.remove_value(write.key, expected=expected)
            else:
                batch.write_value(write.key, int(write.text), expected=expected, unchanged="skip" if write.skip else "append")
    return [(receipt.position, receipt.appended) for receipt in batch.receipts]
