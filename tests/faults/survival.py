"""What must have survived a power loss, and the proof that it has: every promise given before, nothing but what was written.

`python -m tests.faults.survival TRACE --seed SEED --state NUMBER --models MODEL...` makes a crash state of a recorded life
again, beside the recording, and judges it; a failing test says these words.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

import eventstore
from eventstore import claims
from eventstore.codec import erased
from eventstore.model import SYSTEM_KEY, Durability, Event
from eventstore.projections.key_states import read_redaction
from eventstore.witness import WITNESS_BYTES, unpack_witness
from tests.faults.crash_states import Model, State, Trace
from tests.faults.ledger import Ledger, call_of

STORE = "store"
"""The store's folder below the recorded root."""
ARCHIVE = "archive"
"""Where sealed files of it are moved, beside it."""
ARCHIVE_AS_NAMED = f"/proc/self/cwd/{ARCHIVE}"
"""As its events name it, whichever copy of both is looked at: by where it lies from the root, which is the working directory."""


class Said(msgspec.Struct):
    """A mark of a recorded life."""

    domain: str = ""
    call: str = ""
    durability: Durability = "process"
    appended: list[tuple[int, str]] = []
    open: bool = False
    """Whether it says that the store was opened, and so made."""
    adopted: int = 0
    """How many events the domain was made of at once."""
    loss_of: str = ""
    """The domain whose lost tail was accepted."""
    erased: str = ""
    """What the events erased by the event that is said to be `appended` had held, and no file may hold any more."""


class Story:
    """A recorded life: what it wrote, all in all, and what it was promised when."""

    def __init__(self, trace: Trace) -> None:
        records = trace.records
        self.said = [(at, msgspec.convert(record.said, Said)) for at, record in enumerate(records, 1) if record.kind == "M"]
        self.events: dict[str, list[Event]] = {}
        self.ends: dict[str, set[int]] = {}
        with contextlib.chdir(trace.root), eventstore.open(trace.root / STORE, read_only=True, archives=[ARCHIVE_AS_NAMED]) as store:
            for name in store.domains():
                events = list(store.domain(name).events())
                self._require_sound(name, events)
                self.events[name] = events
                calls = [call_of(event) if event.key != SYSTEM_KEY else event.op for event in events]
                self.ends[name] = {0} | {at for at in range(1, len(calls) + 1) if calls[at - 1 : at] != calls[at : at + 1]}
        for _, said in self.said:
            if said.adopted:
                self.ends[said.domain] -= set(range(1, said.adopted))
        self.refused = any(record.kind == "F" for record in records)
        """Whether a sync failed, and with it a call of unknown outcome."""
        self.kept = self._standing_before(trace)
        """How many events each domain had before the recording: they were on the disk."""
        self.loss = next(((at, said.loss_of) for at, said in self.said if said.loss_of), None)
        self.evidence: dict[str, bytes] = {}
        if self.loss is not None:
            logs = (trace.before / STORE / "logs" / self.loss[1]).iterdir()
            self.evidence = {path.name: path.read_bytes() for path in logs if path.is_file() and not path.name.endswith("-shm")}

    def _require_sound(self, domain: str, events: list[Event]) -> None:
        """Without a power loss everything is there: else what follows would measure against the wrong thing."""
        if any(event.key == SYSTEM_KEY for event in events):
            return
        ledger = Ledger()
        for _, said in self.said:
            if said.domain == domain and said.call:
                ledger.take({"call": said.call, "appended": said.appended})
        ledger.require(events)

    def _standing_before(self, trace: Trace) -> dict[str, int]:
        if not (trace.before / STORE / "store.json").exists():
            return {}
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copytree(trace.before / STORE, Path(folder, STORE))
            with eventstore.open(copy, read_only=True) as store:
                return {name: store.domain(name).head().position for name in store.domains()}

    def promised(self, domain: str, instant: int, *levels: Durability) -> int:
        """The last position that was acknowledged at one of `levels` before the power failed."""
        given = (
            said.appended[-1][0]
            for at, said in self.said
            if at <= instant and said.domain == domain and said.durability in levels and said.appended
        )
        return max(given, default=self.kept.get(domain, 0))


def move_claims(archive: Path, store: Path) -> None:
    """Let an archive that was copied with its store be that one's, as if both stood where they stood: else it is another store's."""
    for file in archive.rglob(claims.NAME):
        if claims.others(file.parent, store):
            claims.take_over(file.parent, store)


def judge(story: Story, state: State, folder: Path) -> dict[str, int]:
    """Open what is left in `folder` after `state` and prove it, write on, prove it again; how many events each domain had."""
    place = folder / STORE
    made = any(said.open and at <= state.instant for at, said in story.said)
    assert not made or (place / "store.json").is_file(), "the store was made, and is gone"
    if story.loss is not None and not _is_accepted(story, state, place):
        return {}
    if made and (folder / ARCHIVE).exists():
        _require_named(place)
    found: dict[str, int] = {}
    if place.exists():
        move_claims(folder / ARCHIVE, place)
    # An archive is named by where it lies from the root, so that its copies can be found wherever they are judged.
    gone: list[str] = []
    with contextlib.chdir(folder), eventstore.open(place, archives=[ARCHIVE_AS_NAMED]) as store:
        for name in sorted(story.events.keys() | set(store.domains())):
            domain = store.domain(name)
            events = list(domain.events())
            _require_kept(story, state, name, _found(story, name, events))
            _require_erased(name, events)
            gone += [said.erased for _, said in story.said if said.erased and said.domain == name and said.appended[-1][0] <= len(events)]
            found[name] = len(events)
            domain.write_value("after the power loss", state.number, event_id="after")
        report = store.verify()
        assert report.ok, report.findings
    for word in gone:
        held = [path for path in folder.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]
        assert not held, f"redacted on record, and still in {held}"
    if random.Random(state.number).random() < 0.1:
        # What was written after it lasts, and another opening finds nothing to say against it.
        with eventstore.open(place, read_only=True) as store:
            assert {name: len(store.domain(name)) > 0 for name in found} == dict.fromkeys(found, True)
            assert {name: store.domain(name).head().position for name in found} == {name: count + 1 for name, count in found.items()}
    return found


def _found(story: Story, domain: str, events: list[Event]) -> list[Event]:
    """The events but for those by which this opening put on record what it erased in an archive, after a redaction that was cut short."""
    written, count = story.events.get(domain, []), len(events)
    redacted = any(event.op == "redact" for event in events)
    while redacted and events[count - 1].op == "archive" and erased(events[count - 1]) not in map(erased, written[count - 1 : count]):
        count -= 1
    return events[:count]


def _require_named(place: Path) -> None:
    """A file that is not in the store must be named by an event, whatever stands in the archive."""
    with eventstore.open(place, read_only=True) as store:
        missing = [finding.message for finding in store.verify().findings if finding.kind == "missing"]
    assert not missing, f"the original went before that was on record: {missing}"


def _require_kept(story: Story, state: State, domain: str, events: list[Event]) -> None:
    written = story.events.get(domain, [])
    least = story.promised(domain, state.instant, "power", "power+")
    # A call that was answered with "unknown" and made again: until the retry is durable, either attempt may be what is left.
    sure = least if story.refused else len(events)
    assert list(map(erased, events[:sure])) == list(map(erased, written[: len(events)][:sure])), (
        f"{domain}: other events than were written, of {len(events)}"
    )
    attempted = list(map(_attempt, events, written)) == list(map(_attempt, written[: len(events)], events))
    assert attempted, f"{domain}: other events than were attempted, of {len(events)}"
    assert len(events) >= least, f"{domain}: {least} events were acknowledged, {len(events)} are there"
    assert len(events) in story.ends.get(domain, {0}), f"{domain}: ends within a call, after {len(events)} events"
    witnessed = story.promised(domain, state.instant, "power+")
    if witnessed > story.kept.get(domain, 0):
        head = unpack_witness((state.files[f"{STORE}/logs/{domain}/head"] or b"")[:WITNESS_BYTES])
        assert head is not None, f"{domain}: the witness of power+ is not whole"
        assert head.position >= witnessed, f"{domain}: position {witnessed} was acknowledged with power+, the witness knows {head.position}"


def _require_erased(domain: str, events: list[Event]) -> None:
    """A redaction is there wholly or not at all."""
    named = {position for event in events if event.op == "redact" for position in read_redaction(str(event.data)).positions}
    wrong = [event.position for event in events if event.op == "put" and (event.data is None) != (event.position in named)]
    assert not wrong, f"{domain}: {wrong} are erased without a record of it, or not erased although it is on record"


def _attempt(event: Event, other: Event) -> tuple[object, ...]:
    """What two attempts at one call have in common; of data only if neither is erased by now."""
    data = event.data if event.digest is None and other.digest is None else None
    return event.position, event.prev, event.when_us, event.op, event.key, event.meta, data


def _is_accepted(story: Story, state: State, place: Path) -> bool:
    """Whether the loss is on record; until it was acknowledged the refusal may stand, and after it the evidence must."""
    assert story.loss is not None
    instant, domain = story.loss
    accepted = state.instant >= instant
    with contextlib.ExitStack() as handles:
        store = handles.enter_context(eventstore.open(place))
        try:
            head = store.domain(domain).head()
            ops = [event.op for event in store.domain(domain).events()]
        except eventstore.TailLostError:
            assert not accepted, "the loss was accepted, and is refused again"
            with eventstore.open(place, accept_loss=True) as again:
                again.domain(domain).write_value("after", 1)
                assert again.verify().ok
            return False
    if "loss" not in ops:
        # Sectors of the new event may have mended the old one: most of what they hold is the same.
        assert not accepted, "the loss was accepted, and is not on record"
        assert head == unpack_witness(story.evidence["head"][:WITNESS_BYTES]), "a lost tail was forgotten: neither refused nor on record"
        return False
    evidence = {path.name: path.read_bytes() for path in place.glob(f"quarantine/{domain}-*/*")}
    missing = [name for name, content in story.evidence.items() if evidence.get(name) != content]
    assert not missing, f"the loss is on record, its evidence is not: {missing}"
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.survival", description="Make a crash state again, and judge it.")
    parser.add_argument("trace", type=Path)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--state", required=True, type=int)
    parser.add_argument("--models", required=True, nargs="+", choices=["posix", "ext4", "gate"])
    asked = parser.parse_args(arguments)
    models: list[Model] = asked.models
    trace = Trace(asked.trace)
    (state,) = trace.states(asked.seed, [asked.state], models)
    left, judged = asked.trace / f"state-{state.number}", asked.trace / f"judged-{state.number}"
    for folder in (left, judged):
        shutil.rmtree(folder, ignore_errors=True)
        state.write(folder)
    sys.stdout.write(f"the power failed after record {state.instant} of {len(trace.records)}, model {state.model}; what was left: {left}\n")
    judge(Story(trace), state, judged)
    sys.stdout.write("all that was promised is there\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
