"""The past of a store, where it is erased in archives, deleted, backed up and restored: killed at every step, without power.

As in test_kill.py and test_power_loss.py: old or new and never a mix, nothing that was acknowledged lost, and nothing that was
redacted comes back once that was answered.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import eventstore
from eventstore import Event, Retention
from eventstore.projections.key_states import read_redaction
from tests.faults import pasts
from tests.faults.crash_states import Model, State, Trace
from tests.faults.ledger import DOMAIN
from tests.faults.points import Points, step_by_step
from tests.faults.survival import ARCHIVE, STORE, move_claims
from tests.faults.test_power_loss import DIFFERENT, DIFFERING, LONG, STATES, Losses
from tests.faults.workers import Server

BOTH: list[Model] = ["posix", "ext4"]
DEATHS = 20
"""At how many steps of a part of a life it ends, evenly spaced from a random one on."""

TIMES = [
    pytest.param((1, 0), marks=[pytest.mark.faults, pytest.mark.timeout(600)], id="ci"),
    pytest.param((min(LONG, 20), DIFFERENT), marks=[pytest.mark.long, pytest.mark.timeout(10_800)], id="long"),
]


@pytest.fixture(params=TIMES)
def losses(
    request: pytest.FixtureRequest,
    recording_server: Server,
    in_memory: Path,
    tmp_path: Path,
    seed: str,
    record_property: Callable[[str, object], None],
) -> Iterator[Losses]:
    """See Losses; what is recorded has an empty archive beside it."""
    log = logging.getLogger("eventstore")
    before = log.level
    log.setLevel(logging.ERROR)
    trace = Trace(tmp_path)
    (trace.root / ARCHIVE).mkdir(parents=True)
    tried: Counter[str] = Counter()
    times, least = request.param
    yield Losses(recording_server, trace, in_memory, seed, times, tried, least)
    log.setLevel(before)
    for name, count in tried.items():
        record_property(name, count)


# ---- erased in archives


def test_what_is_erased_in_an_archive_stays_erased(losses: Losses) -> None:
    """On record, it is in no file, neither of the store nor of its archive, once both were opened again; and `verify` knows the bytes."""
    for life in losses.lives():
        life.record(pasts.redact_in_archive, rounds=3)
        life.require_none(130)


@step_by_step
@pytest.mark.parametrize("part", ["redact", "open"])
def test_killed_while_an_archive_is_erased_in(server: Server, in_memory: Path, seed: str, part: str, points: Points) -> None:
    """All of it or none; whoever opens the store with its archive finishes it, and records what the archive's bytes are by then."""
    words, subjects = [pasts.told(seed, number) for number in range(4)], list[int]()
    template, place = in_memory / "template", in_memory / "place"
    template.mkdir()
    place.mkdir()
    with eventstore.open(template / STORE) as store:
        domain = store.domain(DOMAIN)
        for number, word in enumerate(words):
            value = {"word": word, "pad": "x" * pasts.PAD * (number % 2), "again": word}
            subjects.append(domain.write_value(pasts.SUBJECT, value).position)
            domain.write_value("other", number)
            if number < 3:
                store.seal(DOMAIN)
        # In its final place: that is what the events name.
        store.archive(DOMAIN, to=place / ARCHIVE)
    shutil.copytree(place / ARCHIVE, template / ARCHIVE)

    def renew() -> dict[str, str]:
        shutil.rmtree(place)
        shutil.copytree(template, place)
        move_claims(place / ARCHIVE, place / STORE)
        return {"folder": str(place / STORE), "archive": str(place / ARCHIVE)}

    def run(at: int) -> list[dict[str, Any]]:
        worker = server.start(pasts.redact_attached, **renew(), die_in=part, at=at)
        said = worker.rest()
        assert (worker.wait() < 0) == (at > 0), said
        return said

    (whole,) = run(0)
    assert whole["complete"]
    steps, decided = whole["steps"][part], list[int]()
    for at in points.steps(seed, steps, lambda: server.changes(pasts.redact_attached, place, **renew(), die_in=part)):
        run(at)
        with eventstore.open(place / STORE, archives=[place / ARCHIVE]) as store:
            domain = store.domain(DOMAIN)
            events = list(domain.events())
            where = f"FAULTS_SEED={seed}: died at step {at} of {steps} of {part}"
            named = {position for event in events if event.op == "redact" for position in read_redaction(str(event.data)).positions}
            assert {event.position for event in events if event.op == "put" and event.data is None} == named, where
            report = store.verify()
            assert report.ok, f"{where}: {report.findings}"
            decided.append(len(named))
            domain.write_value("after", 1)
        gone = [word for position, word in zip(subjects, words, strict=True) if position in named]
        held = [path for path in place.rglob("*") if path.is_file() and any(word.encode() in path.read_bytes() for word in gone)]
        assert not held, f"{where}: {held}"
    assert sorted(decided) == decided, "once it is decided, it stays so"
    # Without the archive only what is carried is seen, and erased.
    assert set(decided) == ({2} if part == "open" else {0, 4})


# ---- deleted


def test_the_past_is_deleted_for_good_and_nothing_else_with_it(losses: Losses, in_memory: Path) -> None:
    """A file is there or was recorded as deleted; what every key is stays; what was said to be deleted does not come back."""
    # Judged where it was recorded, as events name the archive by its path.
    losses.trace = Trace(in_memory / "trace")
    (losses.trace.root / ARCHIVE).mkdir(parents=True)
    for life in losses.lives():
        keep = random.Random(life.seed).choice([0, 0, 2, 8])
        life.record(pasts.delete_recorded, rounds=4, keep=keep)
        said = [(at, record.said) for at, record in enumerate(life.trace.records, 1) if record.kind == "M"]
        shutil.rmtree(life.trace.root)
        judge(life, 130, life.trace.root, partial(require_deleted, said))


def require_deleted(said: list[tuple[int, dict[str, Any]]], state: State, folder: Path) -> None:
    """Open what is left, and hold it against what was written and said before."""
    written = {mark["position"]: mark for _, mark in said if "position" in mark}
    before = [mark for at, mark in said if at <= state.instant]
    made = any(mark.get("open") for mark in before)
    assert not made or (folder / STORE / "store.json").is_file(), "the store was made, and is gone"
    with eventstore.open(folder / STORE, archives=[folder / ARCHIVE]) as store:
        domain = store.domain(DOMAIN)
        head, floor = domain.head().position, domain.floor
        report = store.verify()
        assert report.ok, report.findings
        assert head >= max((mark.get("position", mark.get("head", 0)) for mark in before), default=0), "an acknowledged event is gone"
        deleted = max((mark["deleted"] for mark in before if "deleted" in mark), default=0)
        assert floor >= deleted, f"up to {deleted} was deleted, and events from {floor + 1} on are there again"
        events = list(domain.events(floor))
        assert [event.position for event in events] == list(range(floor + 1, head + 1))
        found = {event.position: event.checksum.hex() for event in events if event.op == "put"}
        wanted = {position: mark for position, mark in written.items() if position <= head}
        assert found == {position: mark["checksum"] for position, mark in wanted.items() if position > floor}
        assert dict(domain.items()) == {mark["key"]: mark["value"] for mark in wanted.values()}
        for position, mark in wanted.items():
            assert retried(domain, mark) == position
        assert domain.head().position == head, "a retry was written a second time"
        domain.write_value("after", state.number)
        # What is left was written to a new folder: for all that anybody can tell, it is a copy of the store that archived.
        (done,) = store.retain(Retention(keep_events=0), DOMAIN, delete=True, take_over=True)
        assert (done.kept, store.verify().ok) == ([], True), done.kept
    left = list((folder / ARCHIVE).rglob("*.db"))
    assert not left, f"deleted, and in the archive: {left}"


def retried(domain: eventstore.DomainStore, mark: dict[str, Any]) -> int | None:
    """Make a call again; where it stands, as its receipt says, or whoever says that it is not at hand."""
    try:
        return domain.write_value(mark["key"], mark["value"], event_id=mark["value"]).position
    except eventstore.CompactedError as error:
        return error.position


def judge(losses: Losses, count: int, folder: Path, require: Callable[[State, Path], None]) -> None:
    """Judge so many crash states, each made in `folder`, by `require`; says how many differed from each other."""
    seen, wrong, drawn = set[int](), dict[int, str](), count * losses.times
    chosen = os.environ.get("FAULTS_STATE")
    for state in losses.trace.states(losses.seed, range(drawn) if chosen is None else [int(chosen)], BOTH):
        content = hash((state.instant, tuple(sorted(state.files.items()))))
        if content in seen:
            continue
        seen.add(content)
        state.write(folder)
        try:
            require(state, folder)
        except (AssertionError, eventstore.EventStoreError) as error:
            wrong[state.number] = f"state {state.number} ({state.model}, after record {state.instant}): {error!r}"
        shutil.rmtree(folder)
    losses.tried.update({STATES: drawn, DIFFERING: len(seen)})
    assert not wrong, f"FAULTS_SEED={losses.seed}: {len(wrong)} of {len(seen)} states are wrong\n" + "\n".join([*wrong.values()][:20])


# ---- backed up and restored

History = dict[str, list[Event]]


def history(folder: Path) -> History:
    """All that is at hand of a store that is whole."""
    with eventstore.open(folder, read_only=True) as store:
        report = store.verify(processes=1)
        assert report.ok, report.findings
        return {name: list(store.domain(name).events(store.domain(name).floor, carried=True)) for name in store.domains()}


def test_a_store_without_its_past_is_restored_whole_or_not_at_all(losses: Losses) -> None:
    """Sealed files, those that keep event ids, and what is elsewhere: no half of it opens as a store."""
    for life in losses.lives():
        require_restored(life)


def require_restored(losses: Losses) -> None:
    """Make such a store, back it up, restore it; judge what is left wherever the power fails over that."""
    root = losses.trace.root
    losses.run(pasts.make_past, folder=str(root / STORE), archive=str(root / ARCHIVE), name=losses.seed)
    losses.run(pasts.back_up_past, folder=str(root / STORE), to=str(root / "backup"))
    whole = history(root / STORE)
    assert [event.op for event in whole[DOMAIN]].count("archive") == 3
    for folder in (STORE, ARCHIVE):
        shutil.rmtree(root / folder)
    losses.record(pasts.restore_past)
    ((done, _),) = [(at, record.said) for at, record in enumerate(losses.trace.records, 1) if record.kind == "M"]
    there = list[bool]()

    def require(state: State, folder: Path) -> None:
        there.append((folder / "again").exists())
        if there[-1]:
            assert history(folder / "again") == whole
            if state.number % 10 == 0:
                with eventstore.open(folder / "again") as store, pytest.raises(eventstore.CompactedError):
                    store.domain(DOMAIN).write_value("key-0", [losses.seed, 0, 0], event_id="0-0")
        else:
            assert state.instant < done, "what was restored is gone"

    judge(losses, 1_000, losses.scratch / "root", require)
    assert set(there) == {False, True}
