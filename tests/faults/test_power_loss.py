"""Power loss: at any instant, whatever the disk had not yet been told to keep may be gone, and every promise stands.

A life of the store is recorded call by call (recorder.py), then cut at random instants; each time the disk is left in a state
that the model allows (crash_states.py), opened by the library and held against what had been acknowledged (survival.py).
A failure names seed, state and trace; CONTRIBUTING.md says how to see it again.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import eventstore
from tests.faults import lives, survival
from tests.faults.crash_states import Model, Trace
from tests.faults.ledger import DOMAIN
from tests.faults.survival import Story, judge
from tests.faults.workers import Job, Server

BOTH: list[Model] = ["posix", "ext4"]
ENOUGH = 5
"""Wrong states after which a test has seen enough."""
LONG = int(os.environ.get("FAULTS_TIMES", "100"))
"""How many times as many states are drawn with `-m long`: half a million in all. A run that has less time names another number."""
EVERY = int(os.environ.get("FAULTS_EVERY", "1"))
"""Only every so many-th of the states is judged, where a canary asks whether they pass at all."""
DIFFERENT = 3_000
"""How many states differ from each other, at least, of each thing that is done to files as a whole, with `-m long`."""
STATES = "tried states drawn after a power loss"
DIFFERING = "tried different states after a power loss"


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    """Where a life is recorded."""
    trace = Trace(tmp_path)
    trace.root.mkdir()
    return trace


class Losses:
    """Runs lives, cuts their power, judges what is left."""

    def __init__(self, server: Server, trace: Trace, scratch: Path, seed: str, times: int, tried: Counter[str], least: int = 0) -> None:
        self.trace, self.seed, self.tried = trace, seed, tried
        self._server, self.scratch, self.times, self._least = server, scratch, times, least

    def prepare(self, job: Job, **arguments: Any) -> None:
        """Let a job that ends in a kill leave something behind before the recording begins."""
        worker = self._server.start(job, root=str(self.trace.root), name=f"{self.seed}.before", **arguments)
        said = worker.rest()
        assert worker.wait() < 0, said

    def run(self, job: Job, **arguments: Any) -> None:
        """Let a job do its work before the recording begins."""
        self._server.run(job, **arguments)

    def of(self, trace: Trace, seed: str) -> Losses:
        """The same for another recording."""
        return Losses(self._server, trace, self.scratch, seed, self.times, self.tried)

    def lives(self) -> Iterator[Losses]:
        """Recordings, each under a seed of its own: as many as there are to be `times` as many states, or until enough of them differed."""
        folders = [path for path in self.trace.root.rglob("*") if path.is_dir()]
        for number in itertools.count():
            if number >= self.times and self.tried[DIFFERING] >= self._least:
                return
            life = self.of(Trace(self.trace.folder), f"{self.seed}-{number}" if number else self.seed)
            life.times = 1
            yield life
            shutil.rmtree(self.trace.folder)
            for folder in [self.trace.root, *folders]:
                folder.mkdir(parents=True)

    def record(self, *jobs: Job, **arguments: Any) -> None:
        """Record lives that run side by side, to their end."""
        self.trace.begin()
        workers = [
            self._server.start(job, root=str(self.trace.root), log=str(self.trace.log), name=f"{self.seed}.{number}", **arguments)
            for number, job in enumerate(jobs)
        ]
        for worker in workers:
            said = worker.rest()
            assert worker.wait() == 0, said
        self.trace.require_complete()

    def record_killed(self, kills: Sequence[tuple[str, int]]) -> None:
        """Record writers that are killed one after the other, each at the n-th of its calls of a kind, then one that is not."""
        self.trace.begin()
        for number, (what, n) in enumerate([*kills, ("sync", 0)]):
            arguments = {"calls": [3], "domains": [DOMAIN], "fault": f"{what}:{n}:kill:once"}
            name = f"{self.seed}.{number}"
            worker = self._server.start(lives.write, root=str(self.trace.root), log=str(self.trace.log), name=name, **arguments)
            said = worker.rest()
            assert (worker.wait() < 0) == (n > 0), f"the writer to be killed at {what} {n}: {said}"
        self.trace.require_complete()

    def failures(self, count: int, models: Sequence[Model] = BOTH, *, enough: int = sys.maxsize) -> tuple[int, dict[int, str]]:
        """Judge `count` states, until `enough` are wrong: how many differed from each other, and what was wrong with which."""
        story, seen = Story(self.trace), set[int]()
        wrong: dict[int, str] = {}
        chosen = os.environ.get("FAULTS_STATE")
        numbers = range(0, count * self.times, EVERY) if chosen is None else [int(chosen)]
        for state in self.trace.states(self.seed, numbers, models):
            if len(wrong) == enough:
                break
            content = hash((state.instant, tuple(sorted(state.files.items()))))
            if content in seen:
                continue
            seen.add(content)
            folder = self.scratch / "root"
            state.write(folder)
            try:
                judge(story, state, folder)
            except (AssertionError, eventstore.EventStoreError) as error:
                wrong[state.number] = f"--state {state.number} (model {state.model}, after record {state.instant}): {error!r}"
            shutil.rmtree(folder)
        self.tried.update({STATES: len(numbers), DIFFERING: len(seen)})
        return len(seen), wrong

    def require_none(self, count: int, models: Sequence[Model] = BOTH) -> None:
        """Judge `count` states; nothing may be wrong with any."""
        tried, wrong = self.failures(count, models, enough=ENOUGH)
        again = f"python -m tests.faults.survival {self.trace.folder} --seed {self.seed} --models {' '.join(models)}"
        assert not wrong, f"FAULTS_SEED={self.seed}: {len(wrong)} of {tried} states are wrong\n{again}\n" + "\n".join(wrong.values())


@pytest.fixture(
    params=[
        pytest.param((1, 0), marks=[pytest.mark.faults, pytest.mark.timeout(600)], id="ci"),
        pytest.param((LONG, DIFFERENT), marks=[pytest.mark.long, pytest.mark.timeout(10_800)], id="long"),
    ]
)
def losses(
    request: pytest.FixtureRequest,
    recording_server: Server,
    trace: Trace,
    in_memory: Path,
    seed: str,
    record_property: Callable[[str, object], None],
) -> Iterator[Losses]:
    """See Losses."""
    log = logging.getLogger("eventstore")
    before = log.level
    log.setLevel(logging.ERROR)  # pointer files torn by the thousand, each a warning that pytest keeps with its traceback
    tried: Counter[str] = Counter()
    times, least = request.param
    yield Losses(recording_server, trace, in_memory, seed, times, tried, least)
    log.setLevel(before)
    for name, count in tried.items():
        record_property(name, count)


@pytest.mark.core
@pytest.mark.parametrize("durability", ["power", "power+", "process", None])
def test_one_writer_of_one_domain(losses: Losses, durability: str | None) -> None:
    """At power nothing acknowledged is lost, at power+ the witness knows it, at process what is left is a whole beginning."""
    losses.record(lives.write, calls=[25, 15], domains=[DOMAIN], durability=durability)
    losses.require_none(250)


@pytest.mark.parametrize("durability", ["process", None])
def test_one_writer_of_several_domains(losses: Losses, durability: str | None) -> None:
    losses.record(lives.write, calls=[6, 0, 5], durability=durability)
    losses.require_none(110)


@pytest.mark.core
def test_two_writers_at_once(losses: Losses) -> None:
    losses.record(lives.write, lives.write, calls=[12, 12], domains=[DOMAIN], durability=None)
    losses.require_none(280)


def test_threads_that_share_transactions(losses: Losses) -> None:
    """A transaction is as durable as the call in it that asks for most."""
    losses.record(lives.write_in_threads, threads=4, calls=12)
    losses.require_none(130)


@pytest.mark.parametrize("made", [False, True], ids=["by us", "by somebody else"])
def test_a_new_store_is_absent_or_complete(losses: Losses, made: bool) -> None:
    """Whoever made the folder: once the store is open it stays."""
    losses.record(lives.write, calls=[1], domains=[DOMAIN, "quotes"], durability="power", made=made)
    losses.require_none(180)


@pytest.mark.core
def test_writers_are_killed_and_then_the_power_fails(losses: Losses) -> None:
    """What a killed writer had not synced yet is synced by whoever builds on it."""
    losses.record_killed([("name", n) for n in range(1, 12)] + [("sync", n) for n in range(1, 7)] + [("write", n) for n in range(2, 20, 3)])
    losses.require_none(300)


@pytest.mark.parametrize("durability", ["process", "power", None])
def test_a_log_is_sealed_while_it_is_written(losses: Losses, durability: str | None) -> None:
    """Before the seal or after it, never between: the next file is derived from what is durable, and is there whole or made anew."""
    for life in losses.lives():
        life.record(lives.seal, rounds=3, durability=durability)
        life.require_none(350)


@pytest.mark.core
def test_one_seals_while_another_writes(losses: Losses) -> None:
    for life in losses.lives():
        life.record(lives.seal, lives.write_along, rounds=3)
        life.require_none(250)


def test_sealed_files_are_archived(losses: Losses) -> None:
    """Every event is in the store, or whole in the archive: the copy is durable before the event, the event before the removal."""
    for life in losses.lives():
        life.record(lives.archive, rounds=2)
        life.require_none(200)


def test_one_archives_while_another_writes(losses: Losses) -> None:
    for life in losses.lives():
        life.record(lives.archive, lives.write_along, rounds=2)
        life.require_none(130)


def test_a_loss_is_accepted_with_its_evidence(losses: Losses) -> None:
    losses.prepare(lives.write_and_die, calls=20)
    (wal,) = losses.trace.root.glob("store/logs/*/*.db-wal")
    content = bytearray(wal.read_bytes())
    content[len(content) // 2] ^= 1
    wal.write_bytes(content)
    losses.record(lives.accept_loss)
    losses.require_none(100)


def test_a_domain_is_adopted_whole_or_not_at_all(losses: Losses) -> None:
    losses.record(lives.adopt, calls=20)
    losses.require_none(80)


@pytest.mark.parametrize("durability", ["power", "process"])
def test_a_redaction_is_whole_or_never_was_and_once_answered_it_stays(losses: Losses, durability: str) -> None:
    """What it erased is in no file once the log was opened, and closed, again."""
    for life in losses.lives():
        life.record(lives.redact, rounds=3, durability=durability)
        life.require_none(150)


def test_a_destroyed_key_stays_destroyed_and_every_other_is_there(losses: Losses) -> None:
    """A key is durable before anything is encrypted with it, and gone for good before anybody is told."""
    losses.record(lives.shred, rounds=9)
    records, wrong = losses.trace.records, dict[int, str]()
    said = [(at, str(record.said["call"])) for at, record in enumerate(records, 1) if record.kind == "M"]
    assert sum(call.startswith("shredded") for _, call in said) == 3
    for state in losses.trace.states(losses.seed, range(100), BOTH):
        told = [call for at, call in said if at <= state.instant]
        folder = losses.scratch / "root"
        state.write(folder)
        # A disk keeps no modes in this model; whoever made the file made it private.
        for path in folder.glob("people.keys"):
            path.chmod(0o600)
        with eventstore.open(folder / "store", keys=folder / "people.keys") as store:
            for call in told:
                subject = call.removeprefix("shredded ")
                try:
                    found = store.domain(DOMAIN).read_value((subject, 1))
                except eventstore.RedactedError:
                    found = None
                begun = any(later == f"shredded {subject}" for _, later in said)
                if found != f"told by {subject}" and not (found is None and begun):
                    wrong[state.number] = f"{subject} was acknowledged and is {found!r}"
                if found is not None and f"shredded {subject}" in told:
                    wrong[state.number] = f"{subject} was shredded, and is {found!r}"
            assert store.verify().ok
        shutil.rmtree(folder)
    losses.tried[STATES] += 100
    assert not wrong, f"FAULTS_SEED={losses.seed}: {wrong}"


@pytest.mark.core
@pytest.mark.parametrize("at", [*range(8, 20), 30, 33])
def test_what_a_failed_sync_may_have_dropped_is_written_again(losses: Losses, at: int) -> None:
    """The kernel reports a failed sync once; the pages count as written from then on, and are on no disk."""
    losses.record(lives.survive_a_failed_sync, fault=f"sync:{at}:5:once", durability="power" if at % 2 else None)
    assert sum(record.kind == "F" for record in losses.trace.records) == 1, "no sync failed: this proves nothing"
    losses.require_none(30, ["gate"])


@pytest.mark.parametrize("at", [20, 25])
def test_resuming_after_a_failed_sync_is_as_good_as_opening_again(losses: Losses, at: int) -> None:
    """What was opened before the failure is not believed by resume() either."""
    losses.record(lives.resume_after_a_failed_sync, at=at)
    losses.require_none(50, ["gate"])


def test_the_power_fails_again_during_recovery(losses: Losses, tmp_path: Path) -> None:
    """What was on the disk after the first time is there after the second."""
    losses.record(lives.write, calls=[12], domains=[DOMAIN], durability="process")
    for state in list(losses.trace.states(losses.seed, range(8), BOTH)):
        trace = Trace(tmp_path / f"again-{state.number}")
        trace.folder.mkdir()
        state.write(trace.root)
        again = losses.of(trace, f"{losses.seed}.{state.number}")
        again.record(lives.write, calls=[2, 1], domains=[DOMAIN], durability=None)
        again.require_none(20)


# The tests tested


def test_a_disk_that_lies_about_syncs_is_noticed(losses: Losses) -> None:
    losses.record(lives.write, calls=[25], domains=[DOMAIN], durability="power", lie=True)
    tried, wrong = losses.failures(100)
    lost = [number for number, sentence in wrong.items() if "were acknowledged" in sentence]
    assert len(wrong) > tried // 2, wrong
    assert lost, wrong
    # What is told of a failure leads to it again.
    again = [str(losses.trace.folder), "--seed", losses.seed, "--state", str(lost[0]), "--models", *BOTH]
    with pytest.raises(AssertionError, match="were acknowledged"):
        survival.main(again)


def test_an_acknowledgement_before_the_commit_is_noticed(losses: Losses) -> None:
    losses.record(lives.promise_too_early, calls=25)
    _, wrong = losses.failures(100)
    assert any("were acknowledged" in sentence for sentence in wrong.values()), wrong
