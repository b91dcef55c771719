"""Recorded lives of a store: what workers do while the shim writes it down, each promise marked once it was given."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import eventstore
from eventstore import archive as archiving
from eventstore import live, pointers, sqlite
from eventstore.archived import Archived
from eventstore.model import Durability, Event
from tests.eventstore.crew import Crew, Transactions
from tests.faults.ledger import DOMAIN, acknowledgement, carry_out
from tests.faults.recorder import mark, recorded
from tests.faults.survival import ARCHIVE_AS_NAMED
from tests.faults.workers import Tell, adjust, die

DOMAINS = [DOMAIN, "quotes", "signals"]


def small_settings() -> None:
    """Checkpoints every dozen pages, pointer files every few dozen events: the power must be able to fail within one."""
    adjust(sqlite, CHECKPOINT_PAGES=12)
    adjust(pointers, SPACING=40)
    adjust(live, SPACING=40, _TAIL=1)


def promise(domain: eventstore.DomainStore, call: str, durability: Durability | None) -> None:
    """Make a call; mark what its receipts say."""
    receipts = carry_out(domain, call, durability=durability)
    mark(domain=domain.name, durability=receipts[0].durability, **acknowledgement(call, receipts))


def sessions(place: Path, name: str, calls: Sequence[int], domains: Sequence[str], durability: Durability | None) -> None:
    """Open the store as often as there are numbers in `calls`, make so many calls in each domain, close it."""
    for session, count in enumerate(calls):
        with eventstore.open(place) as store:
            mark(open=True)
            for number in range(count):
                for domain in domains:
                    promise(store.domain(domain), f"{name}.{domain}.{session}.{number}", durability)


def write(
    tell: Tell,
    root: str,
    log: str | None,
    name: str,
    calls: Sequence[int],
    domains: Sequence[str] = DOMAINS,
    durability: Durability | None = None,
    fault: str = "",
    lie: bool = False,
    made: bool = False,
) -> None:
    """Sessions under the recorder. `made`: the folder is made before us, by somebody who did not sync it."""
    small_settings()
    with recorded(Path(root), Path(log) if log else None, fault=fault, lie=lie):
        place = Path(root, "store")
        if made:
            place.mkdir()
        sessions(place, name, calls, domains, durability)


def write_in_threads(tell: Tell, root: str, log: str, name: str, threads: int, calls: int) -> None:
    """Threads of one store, each with calls of every durability: every other time all of them share a transaction."""
    small_settings()
    commits: list[eventstore.Commit] = []
    with recorded(Path(root), Path(log)), eventstore.open(Path(root, "store"), on_commit=commits.append) as store:
        transactions = Transactions(store.domain(DOMAIN))
        mark(open=True)
        for number in range(calls):
            crew, share = Crew(), number % 2 == 1
            transactions.forget_arrivals()
            with transactions.silence() if share else contextlib.nullcontext():
                for thread in range(1, threads):
                    crew.start(partial(promise, transactions.domain, f"{name}.{thread}.{number}", None))
                if share:
                    transactions.arrived(threads - 1)
            promise(transactions.domain, f"{name}.0.{number}", None)  # which leads for those that are queued
            crew.results()
    assert sum(commit.calls == threads for commit in commits) >= calls // 3, "hardly a transaction was shared: this proves nothing"


def write_until_refused(tell: Tell, folder: str, name: str) -> None:
    """Not recorded: write durably, say so, until the disk is gone."""
    small_settings()
    with contextlib.suppress(eventstore.EngineError), eventstore.open(folder, min_free_bytes=0) as store:
        for number in itertools.count():
            call = f"{name}.{number}"
            tell(**acknowledgement(call, carry_out(store.domain(DOMAIN), call, durability="power")))


def promise_too_early(tell: Tell, root: str, log: str, name: str, calls: int) -> None:
    """A canary: says that events are durable before they are committed."""
    small_settings()
    append = sqlite.SqliteLog.append

    def hasty(
        self: sqlite.SqliteLog,
        events: Sequence[Event],
        *,
        after: eventstore.Head,
        durability: Durability | None = None,
        erase: Sequence[int] = (),
    ) -> None:
        appended = [[event.position, event.checksum.hex()] for event in events]
        mark(domain=self.domain, durability="power", call="", appended=appended)
        append(self, events, after=after, durability=durability, erase=erase)

    sqlite.SqliteLog.append = hasty  # type: ignore[method-assign]
    with recorded(Path(root), Path(log)):
        sessions(Path(root, "store"), name, [calls], [DOMAIN], "power")


def write_and_die(tell: Tell, root: str, name: str, calls: int) -> None:
    """Write, and leave all of it in the WAL."""
    with eventstore.open(Path(root, "store")) as store:
        for number in range(calls):
            carry_out(store.domain(DOMAIN), f"{name}.{number}")
        die()


def rounds_of(place: Path, name: str, rounds: int, calls: int, durability: Durability | None) -> Iterator[eventstore.Store]:
    """In two sessions, again and again: so many calls, then what is done with the store that is given."""
    for session in range(2):
        with eventstore.open(place) as store:
            domain = store.domain(DOMAIN)
            mark(open=True)
            for number in range(rounds):
                for call in range(calls):
                    promise(domain, f"{name}.{session}.{number}.{call}", durability)
                yield store


def seal(tell: Tell, root: str, log: str, name: str, rounds: int, durability: Durability | None = None) -> None:
    """Some calls, then a seal, again and again; then the store is opened anew and written on."""
    small_settings()
    with recorded(Path(root), Path(log)):
        for store in rounds_of(Path(root, "store"), name, rounds, 3, durability):
            event = store.domain(DOMAIN).event(store.seal(DOMAIN).position)
            mark(domain=DOMAIN, durability="power+", appended=[[event.position, event.checksum.hex()]])


def archive(tell: Tell, root: str, log: str, name: str, rounds: int) -> None:
    """Some calls, a seal, and the sealed file is archived, again and again, in two sessions."""
    small_settings()
    archive_where_it_is()
    with recorded(Path(root), Path(log)):
        for store in rounds_of(Path(root, "store"), name, rounds, 2, None):
            store.seal(DOMAIN)
            (report,) = store.archive(DOMAIN, to=Path(root, "archive"))
            assert len(report.files) == 1, report
            head = store.domain(DOMAIN).head()
            mark(domain=DOMAIN, durability="power+", appended=[[head.position, head.checksum.hex()]])


def archive_where_it_is() -> None:
    """The events name the archive by where it lies from the root: what is left of both is judged at another place."""

    def named(first: int, last: int, sha256: str, _: str, tree: list[str]) -> Archived:
        return Archived(first, last, sha256, ARCHIVE_AS_NAMED, tree)

    adjust(archiving, Archived=named)


def write_along(tell: Tell, root: str, log: str, name: str, rounds: int) -> None:
    """The calls of a process that somebody else seals the log under."""
    write(tell, root, log, name, [3 * rounds, rounds], [DOMAIN])


def accept_loss(tell: Tell, root: str, log: str, name: str) -> None:
    """Open a store with a lost tail by accepting the loss; write on."""
    with recorded(Path(root), Path(log)), eventstore.open(Path(root, "store"), accept_loss=True) as store:
        store.domain(DOMAIN)
        mark(open=True, loss_of=DOMAIN)
        for number in range(5):
            promise(store.domain(DOMAIN), f"{name}.{number}", None)


def adopt(tell: Tell, root: str, log: str, name: str, calls: int) -> None:
    """Take over a domain of another store, whole or not at all."""
    with eventstore.open(Path(log).with_name("source")) as source:
        for number in range(calls):
            carry_out(source.domain(DOMAIN), f"{name}.{number}")
        with source._engine.inspect(DOMAIN) as log_of_source:
            events = [*log_of_source.get([0]), *log_of_source.read()]
        store_id = source.store_id
    with recorded(Path(root), Path(log)), eventstore.open(Path(root, "store"), store_id=store_id) as store:
        mark(open=True)
        store.adopt(DOMAIN, events)
        appended = [[event.position, event.checksum.hex()] for event in events[1:]]
        mark(domain=DOMAIN, durability="power", adopted=len(appended), appended=appended)


def redact(tell: Tell, root: str, log: str, name: str, rounds: int, durability: Durability | None) -> None:
    """Write what is to be erased among other things, and erase it; again, with what was written since."""
    small_settings()
    with recorded(Path(root), Path(log)), eventstore.open(Path(root, "store")) as store:
        mark(open=True)
        domain = store.domain(DOMAIN)
        for number in range(rounds):
            word = f"told in confidence {name}.{number}"
            for part, size in enumerate((10, 12_000)):
                call = f"{name}.{number}.{part}"
                receipt = domain.write_value(
                    "subject", {"word": word, "pad": "x" * size, "again": word}, run_id=call, durability=durability
                )
                mark(domain=domain.name, durability=receipt.durability, **acknowledgement("", [receipt]))
                promise(domain, f"{call}.other", durability)
            position = domain.redact("subject", reason="asked").position
            assert position is not None
            appended = [[position, domain.event(position).checksum.hex()]]
            mark(domain=domain.name, durability="power", appended=appended, erased=word)
            promise(domain, f"{name}.{number}.after", durability)


def shred(tell: Tell, root: str, log: str, name: str, rounds: int) -> None:
    """Write values of subjects, each a new one, and destroy the keys of some; the key file lies beside the store."""
    small_settings()
    people = eventstore.Domain(DOMAIN, subject=lambda key: str(key[0]))
    with recorded(Path(root), Path(log)), eventstore.open(Path(root, "store"), keys=Path(root, "people.keys")) as store:
        domain = store.domain(people)
        for number in range(rounds):
            subject = f"subject-{number}"
            domain.write_value((subject, 1), f"told by {subject}")
            mark(call=subject)
            if number % 3 == 2:
                store.shred(f"subject-{number - 1}", reason="asked")
                mark(call=f"shredded subject-{number - 1}")


def survive_a_failed_sync(tell: Tell, root: str, log: str, name: str, fault: str, durability: Durability | None) -> None:
    """Write through a sync that fails; open again as whoever reads the error is told to, retry, go on."""
    small_settings()
    with recorded(Path(root), Path(log), fault=fault):
        place, store = Path(root, "store"), None
        for number in range(40):
            call = f"{name}.{number}"
            for _ in range(3):
                try:
                    if store is None:
                        store = eventstore.open(place)
                        mark(open=True)
                    receipts = carry_out(store.domain(DOMAIN), call, retry=True, durability=durability)
                    mark(domain=DOMAIN, durability=receipts[0].durability, **acknowledgement(call, receipts))
                    break
                except eventstore.EngineError:
                    if store is not None:
                        with contextlib.suppress(eventstore.EngineError):
                            store.close()
                    store = None
            else:
                raise AssertionError(f"{call} could not be written, not even after opening again")
        if store is not None:
            store.close()


def resume_after_a_failed_sync(tell: Tell, root: str, log: str, name: str, at: int) -> None:
    """Three calls that nobody syncs, then one that must last, again and again; where sync `at` fails: resume, make it again, go on."""
    with recorded(Path(root), Path(log), fault=f"sync:{at}:5:once"), eventstore.open(Path(root, "store")) as store:
        mark(open=True)
        domain = store.domain(DOMAIN)
        failed = 0
        for number in range(20):
            for part in range(3):
                promise(domain, f"{name}.{number}.{part}", "process")
            call = f"{name}.{number}"
            try:
                carry_out(domain, call, retry=True, durability="power")
            except eventstore.EngineError:
                failed += 1
                store.resume()
            receipts = carry_out(domain, call, retry=True, durability="power")
            mark(domain=DOMAIN, durability="power", **acknowledgement(call, receipts))
        assert failed == 1, f"{failed} calls failed: this proves nothing"
