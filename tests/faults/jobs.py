"""What workers do. Each job gets a Tell and plain arguments, and reports an acknowledgement only once it has the receipt."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import eventstore
from eventstore import archive, live, pointers, rolling, sqlite
from tests.faults.ledger import DOMAIN, acknowledgement, carry_out
from tests.faults.workers import Steps, Tell, adjust, die


def busy_settings() -> None:
    """Checkpoints and pointer files every few dozen events: a kill must be able to meet one."""
    adjust(sqlite, CHECKPOINT_PAGES=40)
    adjust(pointers, SPACING=100)
    adjust(live, SPACING=100)


def write_calls(tell: Tell, folder: str, name: str) -> None:
    """Open the store and write until killed."""
    busy_settings()
    with eventstore.open(folder) as store:
        domain = store.domain(DOMAIN)
        tell(open=domain.head().position)
        for number in itertools.count():
            call = f"{name}.{number}"
            tell(**acknowledgement(call, carry_out(domain, call)))


class Life:
    """A life in parts, their steps counted: it ends at step `at` of the part named `die_in`, if that has so many."""

    def __init__(self, die_in: str, at: int) -> None:
        self.steps: dict[str, int] = {}
        self._die_in, self._at = die_in, at

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Live through one part of it."""
        with Steps(self._at if name == self._die_in else 0, die) as steps:
            yield
        self.steps[name] = steps.count


def live_whole(tell: Tell, folder: str, name: str, calls: int, die_in: str, at: int) -> None:
    """Open, write `calls` calls, close; die at step `at` of the part named `die_in`, if it has so many."""
    busy_settings()
    life = Life(die_in, at)
    with life.part("open"):
        store = eventstore.open(folder)
        domain = store.domain(DOMAIN)
    with life.part("write"):
        for number in range(calls):
            call = f"{name}.{number}"
            tell(**acknowledgement(call, carry_out(domain, call)))
    with life.part("close"):
        store.close()
    tell(steps=life.steps)


def redact(tell: Tell, folder: str, at: int) -> None:
    """Redact everything under `subject`; die at step `at`, if there are so many, and say so once it is answered."""
    busy_settings()
    store = eventstore.open(folder)
    domain = store.domain(DOMAIN)
    with Steps(at, die) as steps:
        done = domain.redact(prefix="subject", reason="asked")
    tell(erased=done.erased, complete=done.complete, steps=steps.count)
    store.close()


def shred(tell: Tell, folder: str, keys: str, at: int) -> None:
    """Destroy the key of `alice`; die at step `at`, if there are so many."""
    with eventstore.open(folder, keys=keys) as store, Steps(at, die) as steps:
        store.shred("alice", reason="asked")
    tell(steps=steps.count)


def seal_whole(tell: Tell, folder: str, name: str, calls: int, die_in: str, at: int) -> None:
    """As live_whole, but what is written is sealed before the store is closed, and followed by one call more."""
    busy_settings()
    life = Life(die_in, at)
    with life.part("open"):
        store = eventstore.open(folder)
        domain = store.domain(DOMAIN)
    for number in range(calls):
        tell(**acknowledgement(f"{name}.{number}", carry_out(domain, f"{name}.{number}")))
    with life.part("seal"):
        store.seal(DOMAIN)
    with life.part("write"):
        tell(**acknowledgement(f"{name}.last", carry_out(domain, f"{name}.last")))
    with life.part("close"):
        store.close()
    tell(steps=life.steps)


def seal_and_die(tell: Tell, folder: str, name: str, calls: int) -> None:
    """Write and seal, and die before the next file has its name."""
    store = eventstore.open(folder)
    for number in range(calls):
        tell(**acknowledgement(f"{name}.{number}", carry_out(store.domain(DOMAIN), f"{name}.{number}")))

    def finish(self: rolling.Draft) -> Path:
        die()
        return self.path

    rolling.Draft.finish = finish  # type: ignore[method-assign]
    store.seal(DOMAIN)


def seal_again_and_again(tell: Tell, folder: str, name: str, calls: int) -> None:
    """Seal after each call, in a process of its own, as long as others write beside it."""
    with eventstore.open(folder) as store:
        for number in range(calls):
            call = f"{name}.{number}"
            tell(**acknowledgement(call, carry_out(store.domain(DOMAIN), call)))
            tell(sealed=store.seal(DOMAIN).sealed)


def write_and_read(tell: Tell, folder: str, name: str, calls: int) -> None:
    """Write, and read everything after each call."""
    with eventstore.open(folder) as store:
        domain = store.domain(DOMAIN)
        for number in range(calls):
            call = f"{name}.{number}"
            tell(**acknowledgement(call, carry_out(domain, call)))
            positions = [event.position for event in domain.events()]
            assert positions == list(range(1, len(positions) + 1)), "a reader met a gap"


def archive_whole(tell: Tell, folder: str, name: str, calls: int, die_in: str, at: int) -> None:
    """Open a store with sealed files and archive them beside it; die at step `at` of a part."""
    to, life = _fresh_archive(folder), Life(die_in, at)
    if die_in == "open":  # of a process that finds what one before it left: recorded, and not removed
        with eventstore.open(folder) as store:
            adjust(archive, drop=lambda *_: [])
            store.archive(to=to)
            adjust(archive, drop=_DROP)
    with life.part("open"):
        store = eventstore.open(folder)
        domain = store.domain(DOMAIN)
    with life.part("archive"):
        store.archive(to=to)
    tell(**acknowledgement(f"{name}.last", carry_out(domain, f"{name}.last")))
    store.close()
    tell(steps=life.steps)


def archive_and_redact(tell: Tell, folder: str, name: str, calls: int, die_in: str, at: int) -> None:
    """Archive all that is sealed, then redact what is under `subject` with the archive attached; die at step `at` of a part."""
    to = _fresh_archive(folder)

    def part(name: str) -> Steps:
        return Steps(at if name == die_in else 0, die)

    with eventstore.open(folder) as store:
        store.domain(DOMAIN)
        with part("archive") as archiving:
            store.archive(DOMAIN, to=to)
    with eventstore.open(folder, archives=[to]) as store:
        domain = store.domain(DOMAIN)
        with part("redact") as redacting:
            domain.redact(prefix="subject", reason="asked")
    tell(steps={"archive": archiving.count, "redact": redacting.count})


_DROP = archive.drop


def _fresh_archive(folder: str) -> Path:
    to = Path(folder).with_name("archive")
    shutil.rmtree(to, ignore_errors=True)
    return to


def retain_whole(tell: Tell, folder: str, name: str, calls: int, die_in: str, at: int) -> None:
    """Open a store with sealed files, archive the first, and delete all of the past; die at step `at` of that."""
    to, life = _fresh_archive(folder), Life(die_in, at)
    with eventstore.open(folder) as store:
        (first, *_) = store.archive(DOMAIN, to=to, dry_run=True)[0].files
        store.archive(DOMAIN, before=first.last + 1, to=to)
        with life.part("retain"):
            store.retain(eventstore.Retention(keep_events=0), delete=True)
    tell(steps=life.steps)


def archive_again_and_again(tell: Tell, folder: str, name: str, calls: int) -> None:
    """Seal and archive after each call, in a process of its own, as long as others write beside it."""
    with eventstore.open(folder) as store:
        for number in range(calls):
            call = f"{name}.{number}"
            tell(**acknowledgement(call, carry_out(store.domain(DOMAIN), call)))
            tell(sealed=store.seal(DOMAIN).sealed)
            store.archive(DOMAIN, to=Path(folder).with_name("archive"))


def write_and_read_on(tell: Tell, folder: str, name: str, calls: int) -> None:
    """Write, and read all that is at hand after each call."""
    with eventstore.open(folder) as store:
        domain = store.domain(DOMAIN)
        for number in range(calls):
            call = f"{name}.{number}"
            tell(**acknowledgement(call, carry_out(domain, call)))
            while True:
                floor = domain.floor
                try:
                    positions = [event.position for event in domain.events(floor)]
                except eventstore.CompactedError:
                    assert domain.floor > floor, "what is at hand was refused"
                    continue
                assert positions == list(range(floor + 1, floor + 1 + len(positions))), "a reader met a gap"
                break


def accept_loss(tell: Tell, folder: str, at: int) -> None:
    """Open a store with a lost tail by accepting the loss; die at step `at`, if there are so many."""
    with Steps(at, die) as steps:
        store = eventstore.open(folder, accept_loss=True)
        store.domain(DOMAIN)
    tell(steps=steps.count)
    store.close()


def write_some(tell: Tell, store: eventstore.Store, events: int) -> None:
    """One event a call, a bit of everything: ids, times, removals."""
    domain = store.domain(DOMAIN)
    for _ in range(events):
        position = domain.head().position + 1
        if position % 4 == 0:
            receipt = domain.remove_value(f"key-{position - 1}", reason="done")
        else:
            receipt = domain.write_value(f"key-{position}", {"number": position}, when=position * 1_000, event_id=f"id-{position}")
        tell(**acknowledgement(str(position), [receipt]))


def settle(tell: Tell, folder: str, events: int, pointers: bool) -> None:
    """Write some events and close the store: all of them are in the database file."""
    if pointers:
        adjust(live, _TAIL=1)  # pointer files however few events there are
    with eventstore.open(folder) as store:
        write_some(tell, store, events)


def write_and_die(tell: Tell, folder: str, events: int) -> None:
    """Write some events and leave them in the WAL."""
    write_some(tell, eventstore.open(folder), events)
    die()


def write_sealed_and_die(tell: Tell, folder: str, events: int) -> None:
    """Write some events, seal, twice; then some more that stay in the WAL of the live file."""
    adjust(live, _TAIL=1)
    with eventstore.open(folder) as store:
        for _ in range(2):
            write_some(tell, store, events)
            store.seal(DOMAIN)
    write_and_die(tell, folder, events)


def grow_and_die(tell: Tell, folder: str, events: int) -> None:
    """Write events that make the database longer, and leave them in the WAL."""
    domain = eventstore.open(folder).domain(DOMAIN)
    for number in range(events):
        tell(**acknowledgement(str(number), [domain.write_value(f"large-{number}", {"number": number, "pad": "x" * 20_000})]))
    die()


def write_sizes_and_die(tell: Tell, folder: str, seed: str, settled: int, loose: int) -> None:
    """Write values of every size, removals and calls of several writes; `loose` events or some more stay in the WAL."""
    adjust(sqlite, CHECKPOINT_PAGES=120)  # generations of frames, not only the first
    chance = random.Random(seed)
    with eventstore.open(folder) as store:
        _write_sizes(store.domain(DOMAIN), chance, settled)
    domain = eventstore.open(folder).domain(DOMAIN)
    _write_sizes(domain, chance, domain.head().position + loose)
    tell(last=domain.head().position)
    die()


def _write_sizes(domain: eventstore.DomainStore, chance: random.Random, until: int) -> None:
    while (position := domain.head().position) < until:
        key, when = f"key-{chance.randrange(30)}", chance.choice([None, position * 1_000, -1])
        size = chance.choice([0, 5, 60, 60, 300, 300, 2_000, 9_000, 30_000])
        kind = chance.randrange(10)
        if kind == 0:
            domain.remove_value(key, when=when, reason="done")
        elif kind == 1:
            domain.write_values([(key, position), ("other", "x" * size)], event_id=f"id-{position}")
        else:
            domain.write_value((key, "ключ"), {"n": position, "pad": "é" * size}, when=when, event_id=f"id-{position}", actor="bot")
