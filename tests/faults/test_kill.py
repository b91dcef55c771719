"""kill -9: whatever was acknowledged is there, the chain is whole, every batch is whole or absent, and writing goes on.

Random instants meet what SQLite does inside a call; counted steps of the library meet everything else, and meet it again
tomorrow. A failure names the seed: FAULTS_SEED=<seed> repeats what is written and when it is killed, as far as a machine's
own timing allows.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import eventstore
from tests.faults import jobs
from tests.faults.ledger import DOMAIN, Ledger, acknowledgement, carry_out
from tests.faults.points import Points, step_by_step
from tests.faults.stores import Damaged, leave
from tests.faults.workers import ROOT, Job, Server, Worker

pytestmark = pytest.mark.timeout(600)  # a hundred lives each, on a machine that may be busy

LONGEST = 0.04
"""Seconds a writer lives at most once it is open: some dozens of commits."""
ENOUGH = 20
"""Acknowledged calls, on whatever machine, without which the kills of a test prove nothing."""
DEATHS = 30
"""At how many steps of a part of a life it ends, evenly spaced from a random one on: every run tries others."""
POINTS = {
    "test_one_writer_is_killed_fifty_times": (4, 50),
    "test_three_writers_at_once_are_killed_fifty_times": (2, 51),
    "test_the_survivors_of_a_killed_writer_write_on": (1, 20),
    "test_killed_while_a_store_and_a_domain_are_made": (1, DEATHS),
    "test_killed_while_the_store_of_a_killed_writer_is_opened": (1, DEATHS),
    "test_killed_while_writing_step_by_step": (1, DEATHS),
    "test_killed_while_the_last_checkpoint_and_the_pointer_files_are_written": (1, DEATHS),
    "test_killed_while_a_loss_is_accepted": (1, DEATHS),
    "test_killed_while_values_are_redacted": (1, DEATHS),
    "test_killed_while_a_key_is_destroyed": (1, DEATHS),
    "test_killed_while_a_log_is_sealed": (2, DEATHS),
    "test_killed_while_a_log_is_rolled_forward": (1, DEATHS),
    "test_killed_while_files_are_archived": (2, DEATHS),
    "test_killed_while_what_is_archived_is_redacted": (2, DEATHS),
    "test_killed_while_the_past_is_deleted": (1, DEATHS),
}
"""How often each test runs with `-m faults`, and how many kill points it makes: RELIABILITY.md states the sum."""


def parts(test: str, nightly: int) -> list[Any]:
    """The lots of kills that `test` makes with the other fault tests, and the rest of `nightly` with the long ones."""
    often, _ = POINTS[test]
    return [pytest.param(part, marks=pytest.mark.faults if part < often else pytest.mark.long) for part in range(nightly)]


@pytest.fixture
def points(request: pytest.FixtureRequest, points: Points) -> Iterator[Points]:
    """A count, which must come to what the test is said to make, unless it fails."""
    before = request.session.testsfailed
    yield points
    if request.session.testsfailed == before and not points.every:
        assert points.made == POINTS[request.function.__name__][1]


def test_the_stated_number_of_kill_points_is_the_counted_one() -> None:
    marked = {
        name: [mark for mark in getattr(test, "pytestmark", []) if mark.name in ("faults", "parametrize")]
        for name, test in globals().items()
        if name.startswith("test_") and "kill" in name
    }
    assert POINTS.keys() == {name for name, marks in marked.items() if marks}
    stated = (ROOT / "RELIABILITY.md").read_text(encoding="utf-8")
    assert f"{sum(runs * each for runs, each in POINTS.values())} kill points" in stated


def take_all(ledger: Ledger, worker: Worker) -> int:
    """Note what a dead writer had said; gives the number of acknowledged calls."""
    said = worker.rest()
    for one in said:
        ledger.take(one)
    return len(said)


def lived(writer: Worker, ledger: Ledger, chance: random.Random, kill: int) -> int:
    """Let a writer live a while: every other one until a call of it was acknowledged, whatever the machine does. How many calls were."""
    if kill % 2 == 0:
        assert "open" in writer.told()
        ledger.take(writer.told())
        return 1
    if chance.random() < 0.7:
        writer.told()
    return 0


def require_writable(ledger: Ledger, folder: Path, name: str) -> None:
    """Opening for writing works, and so does what it is for; then everything is proven once more."""
    with eventstore.open(folder) as store:
        domain = store.domain(DOMAIN)
        ledger.require(list(domain.events()))
        ledger.take(acknowledgement(name, carry_out(domain, name)))
    ledger.require_kept(folder)


@pytest.mark.core
@pytest.mark.parametrize("part", parts("test_one_writer_is_killed_fifty_times", 160))
def test_one_writer_is_killed_fifty_times(server: Server, tmp_path: Path, seed: str, points: Points, part: int) -> None:
    folder, chance, ledger, calls = tmp_path / "store", random.Random(f"{seed}-{part}"), Ledger(), 0
    for kill in range(50):
        name = f"{seed}-{part}-{kill}"
        writer = server.start(jobs.write_calls, folder=str(folder), name=name)
        calls += lived(writer, ledger, chance, kill)
        writer.listen(chance.uniform(0, LONGEST))
        writer.kill()
        points.made += 1
        calls += take_all(ledger, writer)
        try:
            # Half of the time the next writer opens what the killed one left, WAL and all.
            if chance.random() < 0.5:
                require_writable(ledger, folder, f"{name}-after")
            elif ledger.acknowledged:
                ledger.require_kept(folder, read_only=True)
        except (AssertionError, eventstore.EventStoreError) as error:
            raise AssertionError(f"FAULTS_SEED={seed}: after kill {kill} of part {part}") from error
    require_writable(ledger, folder, f"{seed}-{part}-end")
    ledger.require_second_opinion(folder)
    assert calls > ENOUGH, "the writers hardly wrote: these kills prove nothing"


@pytest.mark.core
@pytest.mark.parametrize("part", parts("test_three_writers_at_once_are_killed_fifty_times", 40))
def test_three_writers_at_once_are_killed_fifty_times(server: Server, tmp_path: Path, seed: str, points: Points, part: int) -> None:
    folder, chance, ledger = tmp_path / "store", random.Random(f"{seed}-three-{part}"), Ledger()
    calls = 0
    for kill in range(0, 51, 3):
        writers = [server.start(jobs.write_calls, folder=str(folder), name=f"{seed}-{part}-{kill + number}") for number in range(3)]
        calls += sum(lived(writer, ledger, chance, kill) for writer in writers)
        try:
            chance.shuffle(writers)
            for writer in writers:
                # Those that are still alive must get on with it: a dead process holds nothing up.
                writer.listen(chance.uniform(0, LONGEST))
                writer.kill()
                points.made += 1
            calls += sum(take_all(ledger, writer) for writer in writers)
            if chance.random() < 0.7:
                require_writable(ledger, folder, f"{seed}-{part}-{kill}-after")
        except (AssertionError, eventstore.EventStoreError) as error:
            raise AssertionError(f"FAULTS_SEED={seed}: after kill {kill} of part {part}") from error
    require_writable(ledger, folder, f"{seed}-{part}-end")
    ledger.require_second_opinion(folder)
    assert calls > ENOUGH, "the writers hardly wrote: these kills prove nothing"


@pytest.mark.faults
def test_the_survivors_of_a_killed_writer_write_on(server: Server, tmp_path: Path, seed: str, points: Points) -> None:
    folder, chance, ledger = tmp_path / "store", random.Random(seed), Ledger()
    survivor = server.start(jobs.write_calls, folder=str(folder), name=f"{seed}-survivor")
    for kill in range(20):
        writer = server.start(jobs.write_calls, folder=str(folder), name=f"{seed}-{kill}")
        writer.told()
        writer.listen(chance.uniform(0, LONGEST))
        writer.kill()
        points.made += 1
        take_all(ledger, writer)
        # What it had said before the kill may still be in the pipe; so much cannot.
        after = max(ledger.acknowledged, default=0)
        while not survivor_is_beyond(after, ledger, survivor):
            pass
        ledger.require_kept(folder, read_only=True, busy=True)
    survivor.kill()
    take_all(ledger, survivor)
    require_writable(ledger, folder, f"{seed}-end")


def survivor_is_beyond(position: int, ledger: Ledger, survivor: Worker) -> bool:
    """Take its next word; whether it has written an event after `position`."""
    said = survivor.told()
    ledger.take(said)
    return any(found > position for found, _ in said.get("appended", []))


def steps_of(server: Server, folder: Path, seed: str, calls: int, life: Job = jobs.live_whole) -> dict[str, int]:
    """How many steps each part of a whole life has."""
    *_, last = server.run(life, folder=str(folder), name=f"{seed}-stepped", calls=calls, die_in="", at=0)
    steps: dict[str, int] = last["steps"]
    return steps


def die_everywhere(
    server: Server,
    template: Path | None,
    ledger: Ledger,
    place: Path,
    seed: str,
    points: Points,
    part: str,
    calls: int,
    life: Job = jobs.live_whole,
    prove: Callable[[Ledger, Path, str], None] = require_writable,
) -> None:
    """From a copy of `template` (None: from nothing), die at steps of `part`, and prove each time what is left."""
    folder = place / "store"

    def renew() -> Ledger:
        shutil.rmtree(folder, ignore_errors=True)
        if template is not None:
            shutil.copytree(template, folder)
        copy = Ledger()
        copy.acknowledged.update(ledger.acknowledged)
        return copy

    renew()
    last, deaths = steps_of(server, folder, seed, calls, life)[part], 0

    def changes() -> list[int]:
        renew()
        return server.changes(life, place, folder=str(folder), name=f"{seed}-stepped", calls=calls, die_in=part)

    for step in points.steps(seed, last, changes):
        known = renew()
        worker = server.start(life, folder=str(folder), name=f"{seed}-stepped", calls=calls, die_in=part, at=step)
        deaths += worker.wait() < 0
        try:
            take_all(known, worker)
            prove(known, folder, f"{seed}-{step}-after")
        except (AssertionError, eventstore.EventStoreError) as error:
            raise AssertionError(f"FAULTS_SEED={seed}: died at step {step} of {last} of {part}") from error
    # A worker that waited for a lock a moment longer or shorter has some steps more or less.
    assert deaths >= points.made * 0.9, f"FAULTS_SEED={seed}: hardly a worker died where it should: the steps were counted wrongly"


def leave_behind(server: Server, folder: Path, seed: str, events: int) -> Ledger:
    """Make a store of at least so many events whose writer was killed, WAL and all."""
    ledger = Ledger()
    writer = server.start(jobs.write_calls, folder=str(folder), name=f"{seed}-template")
    while max(ledger.acknowledged, default=0) < events:
        ledger.take(writer.told())
    writer.kill()
    take_all(ledger, writer)
    return ledger


@step_by_step
def test_killed_while_a_store_and_a_domain_are_made(server: Server, in_memory: Path, seed: str, points: Points) -> None:
    die_everywhere(server, None, Ledger(), in_memory, seed, points, "open", 1)


@step_by_step
def test_killed_while_the_store_of_a_killed_writer_is_opened(server: Server, in_memory: Path, seed: str, points: Points) -> None:
    ledger = leave_behind(server, in_memory / "template", seed, 20)
    die_everywhere(server, in_memory / "template", ledger, in_memory, seed, points, "open", 1)


@pytest.mark.core
@step_by_step
def test_killed_while_writing_step_by_step(server: Server, in_memory: Path, seed: str, points: Points) -> None:
    ledger = leave_behind(server, in_memory / "template", seed, 20)
    die_everywhere(server, in_memory / "template", ledger, in_memory, seed, points, "write", 2)


@step_by_step
def test_killed_while_the_last_checkpoint_and_the_pointer_files_are_written(
    server: Server, in_memory: Path, seed: str, points: Points
) -> None:
    ledger = leave_behind(server, in_memory / "template", seed, 300)  # enough for new pointer files at the next close
    shutil.rmtree(in_memory / "template" / "logs" / DOMAIN / "pointers", ignore_errors=True)
    die_everywhere(server, in_memory / "template", ledger, in_memory, seed, points, "close", 1)
    shutil.rmtree(in_memory / "store")
    shutil.copytree(in_memory / "template", in_memory / "store")
    steps_of(server, in_memory / "store", seed, 1)
    assert list((in_memory / "store" / "logs" / DOMAIN / "pointers").glob("*.keys")), "no pointer file is written by a whole life"


@step_by_step
def test_killed_while_values_are_redacted(server: Server, in_memory: Path, seed: str, points: Points) -> None:
    """All of them or none, and none only if nobody was answered; the next opening leaves nothing of them in any file."""
    template, folder, words = in_memory / "template", in_memory / "store", [f"told in confidence {seed}.{number}" for number in range(6)]
    with eventstore.open(template) as store:
        for number, word in enumerate(words):
            store.domain(DOMAIN).write_value(("subject", number % 4), {"word": word, "pad": "x" * 5_000 * (number % 2)})
            store.domain(DOMAIN).write_value("other", number)
    subjects = list(range(1, 12, 2))
    shutil.copytree(template, folder)
    (said,) = server.run(jobs.redact, folder=str(folder), at=0)
    assert (said["erased"], said["complete"]) == (subjects, True)
    erased: list[bool] = []

    def renew() -> None:
        shutil.rmtree(folder)
        shutil.copytree(template, folder)

    def changes() -> list[int]:
        renew()
        return server.changes(jobs.redact, folder, folder=str(folder))

    for step in points.steps(seed, said["steps"], changes):
        renew()
        assert server.start(jobs.redact, folder=str(folder), at=step).wait() < 0
        where = f"FAULTS_SEED={seed}: died at step {step} of {said['steps']}"
        with eventstore.open(folder) as store:
            events = list(store.domain(DOMAIN).events())
            erased.append(events[-1].op == "redact")
            assert [event.position for event in events[:12] if event.data is None] == (subjects if erased[-1] else []), where
            assert store.verify().ok, where
            store.domain(DOMAIN).write_value("after", 1)
        if erased[-1]:
            held = [path for path in folder.rglob("*") if path.is_file() and any(word.encode() in path.read_bytes() for word in words)]
            assert not held, where
    assert sorted(erased) == erased, "once it is decided, it stays so"
    assert set(erased) == {False, True}


@step_by_step
def test_killed_while_a_key_is_destroyed(server: Server, in_memory: Path, seed: str, points: Points) -> None:
    """Before the decision everything can be read, after it nothing; shredded again, the record is whole."""
    template, folder, keys = in_memory / "template", in_memory / "store", in_memory / "people.keys"
    subjects = eventstore.Domain(DOMAIN, subject=lambda key: str(key[0]))
    with eventstore.open(template, keys=keys) as store:
        for number in range(3):
            store.domain(subjects).write_value(("alice", number), "in confidence")
        store.domain(subjects).write_value(("bob", 1), "kept")
    shutil.copytree(template, folder)
    content = keys.read_bytes()
    last = server.run(jobs.shred, folder=str(folder), keys=str(keys), at=0)[-1]["steps"]
    decided = list[bool]()

    def renew() -> None:
        shutil.rmtree(folder)
        shutil.copytree(template, folder)
        keys.write_bytes(content)

    def changes() -> list[int]:
        renew()
        return server.changes(jobs.shred, in_memory, folder=str(folder), keys=str(keys))

    for step in points.steps(seed, last, changes):
        renew()
        assert server.start(jobs.shred, folder=str(folder), keys=str(keys), at=step).wait() < 0
        decided.append(b'"shredded_us"' in keys.read_bytes())
        with eventstore.open(folder, keys=keys) as store:
            domain = store.domain(DOMAIN)
            for number in range(3):
                if decided[-1]:
                    with pytest.raises(eventstore.RedactedError):
                        domain.read_value(("alice", number))
                else:
                    assert domain.read_value(("alice", number)) == "in confidence"
            assert domain.read_value(("bob", 1)) == "kept"
            report = store.shred("alice", reason="asked")
            assert sorted(report.erased[0].erased + report.erased[0].already) == [1, 2, 3], f"FAULTS_SEED={seed}: died at step {step}"
            assert store.verify().ok
    assert sorted(decided) == decided
    assert set(decided) == {False, True}


@step_by_step
@pytest.mark.parametrize("part", ["seal", "write"])
def test_killed_while_a_log_is_sealed(server: Server, in_memory: Path, seed: str, points: Points, part: str) -> None:
    """The seal stands or does not; where it does, whoever comes next makes the file after it."""
    ledger = leave_behind(server, in_memory / "template", seed, 20)
    die_everywhere(server, in_memory / "template", ledger, in_memory, seed, points, part, 2, jobs.seal_whole)


@step_by_step
def test_killed_while_a_log_is_rolled_forward(server: Server, in_memory: Path, seed: str, points: Points) -> None:
    """Whoever opens a log that ends in a seal may die over the next file, too."""
    ledger = leave_behind(server, in_memory / "template", seed, 20)
    sealer = server.start(jobs.seal_and_die, folder=str(in_memory / "template"), name=f"{seed}-sealer", calls=2)
    assert sealer.wait() < 0
    take_all(ledger, sealer)
    assert len(list((in_memory / "template" / "logs" / DOMAIN).glob("[0-9]*.db"))) == 1, "the next file is there: this proves nothing"
    die_everywhere(server, in_memory / "template", ledger, in_memory, seed, points, "open", 1, jobs.seal_whole)


def sealed_template(server: Server, folder: Path, seed: str) -> Ledger:
    """A store with three sealed files."""
    ledger = Ledger()
    sealer = server.start(jobs.seal_again_and_again, folder=str(folder), name=f"{seed}-sealer", calls=3)
    take_all(ledger, sealer)
    assert sealer.wait() == 0
    return ledger


@step_by_step
@pytest.mark.parametrize("part", ["archive", "open"])
def test_killed_while_files_are_archived(
    server: Server, in_memory: Path, seed: str, points: Points, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every event is in the store, or in a whole file of the archive that an event names; whoever comes next carries it on."""
    ledger = sealed_template(server, in_memory / "template", seed)

    def prove(known: Ledger, folder: Path, name: str) -> None:
        with eventstore.open(folder) as store:
            assert store.verify().ok, "a file is missing, and no event says where it is"
        monkeypatch.setenv("EVENTSTORE_ARCHIVES", str(folder.with_name("archive")))
        require_writable(known, folder, name)
        with eventstore.open(folder) as store:
            (report,) = store.archive(DOMAIN, to=folder.with_name("archive"))
            assert report.kept == []
            assert len(list((folder / "logs" / DOMAIN).glob("[0-9]*.db"))) == 1
        known.require_kept(folder)
        monkeypatch.delenv("EVENTSTORE_ARCHIVES")
        assert not [path for path in folder.with_name("archive").rglob("*") if path.name.startswith(".tmp")]

    die_everywhere(server, in_memory / "template", ledger, in_memory, seed, points, part, 1, jobs.archive_whole, prove)


@step_by_step
@pytest.mark.parametrize("part", ["archive", "redact"])
def test_killed_while_what_is_archived_is_redacted(server: Server, in_memory: Path, seed: str, points: Points, part: str) -> None:
    """No copy is left that holds the values and that nobody names, and with the archive attached none at all."""
    template, words = in_memory / "template", [f"told in confidence {seed}.{number}" for number in range(3)]
    with eventstore.open(template) as store:
        for word in words:
            store.domain(DOMAIN).write_value("subject", {"word": word, "pad": "x" * 5_000})
            store.domain(DOMAIN).write_value("other", word)
            store.domain(DOMAIN).redact("other", reason="asked")
            store.seal(DOMAIN)

    def told_or_gone(place: Path, **options: Any) -> bool:
        with eventstore.open(place, **options) as store:
            held = store.domain(DOMAIN).redact(prefix="subject", reason="asked").held
            assert store.verify().ok
        left = [path for path in in_memory.rglob("*") if path.is_file() and template not in path.parents and holds(path, words)]
        assert held or not left
        return not left

    def prove(known: Ledger, folder: Path, name: str) -> None:
        told_or_gone(folder)
        assert told_or_gone(folder, archives=[folder.with_name("archive")])

    die_everywhere(server, template, Ledger(), in_memory, seed, points, part, 1, jobs.archive_and_redact, prove)


def holds(path: Path, words: list[str]) -> bool:
    """Whether one of these stands in a file that nobody has open."""
    content = path.read_bytes()
    return any(word.encode() in content for word in words)


@step_by_step
def test_killed_while_the_past_is_deleted(server: Server, in_memory: Path, seed: str, points: Points) -> None:
    """What is gone was recorded before; what every key is stays; what was recorded and is still there goes next time."""
    ledger = sealed_template(server, in_memory / "template", seed)
    with eventstore.open(in_memory / "template", read_only=True) as store:
        values = dict(store.domain(DOMAIN).items())

    def prove(known: Ledger, folder: Path, name: str) -> None:
        with eventstore.open(folder) as store:
            domain = store.domain(DOMAIN)
            assert dict(domain.items()) == values
            assert store.verify().ok, "a file is missing, and no event says so"
            events = {event.position: event.checksum.hex() for event in domain.events(domain.floor)}
            kept = {position: checksum for position, (checksum, _) in known.acknowledged.items() if position > domain.floor}
            assert {position: events.get(position) for position in kept} == kept
            carry_out(domain, name)
            store.retain(eventstore.Retention(keep_events=0), delete=True)
            assert len(list((folder / "logs" / DOMAIN).glob("[0-9]*.db"))) == 1
            assert not list(folder.with_name("archive").rglob("*.db"))
            assert store.verify().ok

    die_everywhere(server, in_memory / "template", ledger, in_memory, seed, points, "retain", 1, jobs.retain_whole, prove)


def seals_of(workers: Sequence[Worker], ledger: Ledger) -> int:
    """Let everybody live to the end, and note what they said; how many seals there were."""
    sealed = 0  # not as often as it was tried: a call may append nothing to an empty log
    for worker in workers:
        said = worker.rest()
        assert worker.wait() == 0, said
        for one in said:
            sealed += bool(one.get("sealed"))
            ledger.take(one)
    assert sealed
    return sealed


def test_others_write_and_read_while_one_archives(server: Server, tmp_path: Path, seed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing lost, no reader of what is at hand stopped, in three processes."""
    folder, ledger = tmp_path / "store", Ledger()
    with eventstore.open(folder) as store:
        store.domain(DOMAIN)
    workers = [server.start(jobs.write_and_read_on, folder=str(folder), name=f"{seed}-{number}", calls=15) for number in range(2)]
    workers.append(server.start(jobs.archive_again_and_again, folder=str(folder), name=f"{seed}-archiver", calls=6))
    sealed = seals_of(workers, ledger)
    with eventstore.open(folder) as store:
        assert store.verify().ok
    monkeypatch.setenv("EVENTSTORE_ARCHIVES", str(tmp_path / "archive"))
    ledger.require_kept(folder)
    assert len(list((tmp_path / "archive").rglob("*.db"))) == sealed
    assert len(list((folder / "logs" / DOMAIN).glob("[0-9]*.db"))) == 1


def test_others_write_and_read_while_one_seals(server: Server, tmp_path: Path, seed: str) -> None:
    """Nothing lost, positions without a gap, no reader stopped, in three processes."""
    folder, ledger = tmp_path / "store", Ledger()
    with eventstore.open(folder) as store:
        store.domain(DOMAIN)
    workers = [server.start(jobs.write_and_read, folder=str(folder), name=f"{seed}-{number}", calls=15) for number in range(2)]
    workers.append(server.start(jobs.seal_again_and_again, folder=str(folder), name=f"{seed}-sealer", calls=10))
    sealed = seals_of(workers, ledger)
    ledger.require_kept(folder)
    ledger.require_second_opinion(folder)
    assert len(list((folder / "logs" / DOMAIN).glob("[0-9]*.db"))) == 1 + sealed


@step_by_step
def test_killed_while_a_loss_is_accepted(server: Server, in_memory: Path, seed: str, points: Points) -> None:
    """Before or after, never between: the loss is refused again or recorded, and the evidence is there either way."""
    template = leave(server, in_memory / "template", settled=5, loose=6)
    template.wal.unlink()
    folder = in_memory / "store"
    last = server.run(jobs.accept_loss, folder=str(template.copy(folder).folder), at=0)[-1]["steps"]

    def renew() -> Damaged:
        shutil.rmtree(folder)
        return template.copy(folder)

    for step in points.steps(seed, last, lambda: server.changes(jobs.accept_loss, folder, folder=str(renew().folder))):
        store = renew()
        assert server.start(jobs.accept_loss, folder=str(folder), at=step).wait() < 0
        where = f"FAULTS_SEED={seed}: died at step {step} of {last}"
        with eventstore.open(folder, accept_loss=True) as opened:
            domain = opened.domain(DOMAIN)
            events = list(domain.events())
            assert events[:5] == store.events[:5], where
            assert {event.op for event in events[5:]} == {"loss"}, where
            domain.write_value("after", 1)
            report = opened.verify()
            assert (report.ok, report.domains[0].losses) == (True, len(events) - 5), where
        assert list((folder / "quarantine").glob("[!.]*")), where
