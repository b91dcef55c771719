"""The proof: every byte against its checksum, every event against the one before it, pointer files against the log.

Nothing is repaired and nothing is deleted; what is wrong is named by domain, position and kind. The log is walked in
ranges (links.py), by this process or by several (ranges.py); here is what only the whole can say.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Callable, Iterable
from itertools import repeat

import msgspec

from eventstore.anchors import Judgement, breaks_chain
from eventstore.archived import Archived, latest
from eventstore.carriage import CarriedProof
from eventstore.codec import GENESIS, read_birth
from eventstore.erasure import awaits_its_record
from eventstore.errors import FormatError
from eventstore.links import UNJUDGED, Finding, Segment, Task, Walk, Walked, as_finding, is_allowed, wrong_key, wrong_prev
from eventstore.log import PAGE, Engine, EventLog, FileLog, RowLog
from eventstore.model import SYSTEM_KEY, Head, KeyState
from eventstore.pointers import IdRun, PointerFolder, hash_of
from eventstore.projections.key_states import KeyStates, state_of
from eventstore.ranges import Crew, Tickets, processes_for, ranges_of, taken
from eventstore.roots import wrong_outlines
from eventstore.values import MAX_VALUE_BYTES

Progress = Callable[[str, int, int], None]
"""Called with domain, position reached, last position."""


class DomainReport(msgspec.Struct):
    """What the check of one domain found."""

    domain: str
    events: int = 0
    floor: int = 0
    """What came up to this position was not looked at: its files are not at hand. What is carried over the seal there was."""
    head: Head | None = None
    redacted: int = 0
    losses: int = 0
    archived: list[Archived] = []
    """Where the files are that are not at hand, as the log says."""
    findings: list[Finding] = []
    notes: list[str] = []
    """What is not as it should be, and no damage, and what will put it right."""


class Report(msgspec.Struct, frozen=True):
    """What the check of a store found; `ok` if that is nothing. `anchored` is what the anchor said of each domain, if one was given."""

    store: str
    domains: list[DomainReport]
    anchored: list[Judgement] = []

    @property
    def findings(self) -> list[Finding]:
        """All findings, domain by domain; then what the anchor says against a domain."""
        told = [_against(each) for each in self.anchored if not each.ok]
        return [*(finding for domain in self.domains for finding in domain.findings), *told]

    @property
    def ok(self) -> bool:
        """Whether nothing was found. What an anchor does not cover is none: see Judgement.more."""
        return not self.findings


def _against(judgement: Judgement) -> Finding:
    """What an anchor says against a domain, as a finding."""
    if judgement.verdict == "UNJUDGED":
        return Finding(judgement.domain, judgement.position, UNJUDGED, judgement.message)
    return Finding(judgement.domain, judgement.position, "anchor", f"{judgement.verdict}: {judgement.message}")


def verify_store(
    engine: Engine,
    domains: Iterable[str],
    *,
    progress: Progress | None = None,
    processes: int | None = None,
    max_value_bytes: int = MAX_VALUE_BYTES,
) -> list[DomainReport]:
    """Check the logs of `domains`, each read anew from its storage. No value is unpacked beyond `max_value_bytes`."""
    return [verify_domain(engine, domain, progress, processes, max_value_bytes) for domain in domains]


def verify_domain(
    engine: Engine,
    domain: str,
    progress: Progress | None = None,
    processes: int | None = None,
    max_value_bytes: int = MAX_VALUE_BYTES,
) -> DomainReport:
    """Check one log: storage, chain, rules of the format, tail, pointer files. Raises what `progress` raises, and nothing else."""
    report = DomainReport(domain, findings=[], notes=[])
    proof: _Proof | None = None
    try:
        with engine.inspect(domain) as log:
            proof = _Proof(log, report, engine, progress, processes, max_value_bytes)
            proof.run()
    except Exception as error:
        if proof is not None and error is proof.theirs:
            raise
        report.findings.append(as_finding(domain, error))  # whatever it was, it is a finding, and no reason to stop
    return report


def require_whole(log: EventLog, engine: Engine) -> None:
    """Check a log before it becomes a domain. Raises FormatError with the first finding.

    What a blob unpacks to is no reason to refuse: its bytes are those that were written, and whoever reads it is told.
    """
    report = DomainReport(log.domain, findings=[])
    _Proof(log, report, engine, None, 1).prove()
    for finding in report.findings:
        if finding.kind == "codec":
            continue
        raise FormatError(finding.domain, finding.position, finding.message)


class _Proof:
    """One log: what its ranges say, put together in order, so that it does not matter how many there were."""

    def __init__(
        self,
        log: EventLog,
        report: DomainReport,
        engine: Engine,
        progress: Progress | None,
        processes: int | None,
        max_value_bytes: int = MAX_VALUE_BYTES,
    ) -> None:
        self._max_value_bytes = max_value_bytes
        self._log, self._report, self._engine, self._progress = log, report, engine, progress
        self._wanted = processes
        self.theirs: Exception | None = None
        """What the caller's own `progress` raised: no finding, and nobody's but his."""
        self._domain, self._before = report.domain, GENESIS
        """The event that the walk starts behind: the birth row, or the seal before what is at hand."""
        self._last = 0
        self._found: list[Finding] = []

    def run(self) -> None:
        """Check what the engine stores in, then what is stored."""
        self.prove(check_storage=True)

    def prove(self, *, check_storage: bool = False) -> None:
        """Check what is stored, and before it, if asked, what it is stored in; other processes begin in the meantime."""
        plan: _Plan | None = None
        failure: Exception | None = None
        with contextlib.ExitStack() as exit_stack:
            try:
                plan = self._plan()
            except Exception as error:  # noqa: BLE001  raised below: what the storage has to say comes first
                failure = error
            crew = self._crew(plan, exit_stack) if plan else None
            if check_storage:
                self._judge_archives()
            for kind, sentence in self._log.faults() if check_storage else ():
                self._report.findings.append(Finding(self._domain, None, kind, sentence))
            if plan is None:
                assert failure is not None  # one of them there is
                raise failure
            walked = self._walked_by(crew, plan) if crew else None
        self._put_together(walked or self._walked_alone(plan), plan)

    def _plan(self) -> _Plan:
        births = self._log.get([0])
        birth = read_birth(births[0] if births else None, self._domain)
        if birth.store_id != self._engine.store_id or birth.domain != self._domain:
            found = f"the log of domain {birth.domain!r} of store {birth.store_id}, not of this store"
            self._found.append(Finding(self._domain, 0, "birth", found))
        floor, self._last = self._log.floor(), self._log.head().position
        for each in self._log.linked([floor]):
            self._before = Head(floor, each.event.checksum)
        self._report.floor = floor
        if isinstance(self._log, FileLog) and floor:
            said = latest(self._log.archived())
            self._report.archived = [said[first] for first, _ in self._log.missing() if first in said]
        starts = self._starts(floor)
        # Beside the very files that are looked at: a log that is being made does not stand where the engine will have it.
        folder = self._log.folder / "pointers" if isinstance(self._log, FileLog) else self._engine.pointers(self._domain)
        pointers = PointerFolder(folder, self._log, writable=False)
        cuts = sorted({*starts, *(position for position in pointers.positions() if floor < position <= self._last)})
        kept = pointers.kept()
        runs = pointers.runs(kept)
        task = Task(self._domain, self._last, cuts, _end(runs), self._max_value_bytes)
        return _Plan(task, pointers, runs, kept, starts)

    def _starts(self, floor: int) -> list[int]:
        """The seals at hand, rising: over each of them events are carried."""
        starts: list[int] = []
        at = self._last
        while at > floor and (start := self._log.start(at)) > floor:
            starts.append(start)
            at = start - 1
        return starts[::-1]

    def _judge_archives(self) -> None:
        """Tell of attached files that are not those on record: altered, unless redactions are all that happened to them."""
        if not isinstance(self._log, FileLog):
            return
        for path, sentence in self._log.altered():
            if awaits_its_record(self._log, path):
                self._report.notes.append(f"{path} {_UNRECORDED}")
            else:
                self._report.findings.append(Finding(self._domain, None, "archive", sentence))

    # ---- walking

    def _crew(self, plan: _Plan, exit_stack: contextlib.ExitStack) -> _Shared | None:
        processes = processes_for(self._wanted, self._last)
        if processes == 1 or not isinstance(self._log, RowLog):
            return None
        ranges = ranges_of(self._log, self._last, processes, floor=self._before.position)
        if len(ranges) == 1:
            return None
        tickets = Tickets(ranges)
        exit_stack.callback(tickets.close)
        crew = exit_stack.enter_context(Crew(self._log.source(), plan.task, tickets, min(processes, len(ranges)) - 1))
        return _Shared(crew, tickets, ranges)

    def _walked_by(self, shared: _Shared, plan: _Plan) -> list[Walked] | None:
        """What all ranges say, in order; None if they do not fit together, and one walk has to tell."""
        found: list[Walked] = []
        for after, until in taken(shared.tickets.descriptor):
            found.append(self._walk(plan, after, until, tell=False))
            found += shared.crew.finished()
            self._tell(sum(walked.until - walked.after for walked in found))
        for walked in shared.crew.rest():
            found.append(walked)
            self._tell(sum(walked.until - walked.after for walked in found))
        found.sort(key=lambda walked: walked.after)
        if [(walked.after, walked.until) for walked in found] != shared.ranges:
            raise RuntimeError("a range of the log was walked by nobody")
        head = self._before
        for walked in found:
            if walked.before != head:
                return None  # one range reads an event that another does not: structural damage, or a file that was replaced
            head = walked.head
            if walked.failure:
                break
        return found

    def _walked_alone(self, plan: _Plan) -> list[Walked]:
        return [self._walk(plan, self._before.position, self._last, tell=True)]

    def _walk(self, plan: _Plan, after: int, until: int, *, tell: bool) -> Walked:
        walk = Walk(self._log, plan.task, after, until)
        try:
            for position in walk.run():
                if tell:
                    self._tell(position)
        except Exception as error:
            if error is self.theirs:
                raise
            walk.walked.failure = as_finding(self._domain, error)  # said in the place it has among the other ranges
        return walk.walked

    def _tell(self, position: int) -> None:
        if self._progress is None:
            return
        try:
            self._progress(self._domain, position, self._last)
        except Exception as error:
            self.theirs = error
            raise

    # ---- putting together

    def _put_together(self, ranges: list[Walked], plan: _Plan) -> None:
        report, found = self._report, self._found
        carried = CarriedProof(self._log, self._before.position)
        latest = carried.latest
        found += carried.findings
        failure: Finding | None = None
        ids: dict[int, str] = {}
        for walked in ranges:
            report.events += walked.events
            report.losses += walked.losses
            found += walked.findings
            ids |= walked.ids
            for segment in walked.segments:
                self._join(latest, segment)
                if segment.until in plan.starts and segment.until <= walked.head.position:
                    found += CarriedProof(self._log, segment.until).against(latest)
                if segment.until in plan.task.cuts and segment.until <= walked.head.position:
                    self._compare_states(plan.pointers.latest(until=segment.until), segment, latest)
            failure = walked.failure
            if failure is not None:
                break
        if failure is None:
            report.head = ranges[-1].head
            self._conclude(ranges, carried)
            for run in plan.kept:
                self._compare_ids(run, ids, "ids", _WRONG_IDS)
            for run in plan.runs[len(plan.kept) :]:
                self._compare_ids(run, ids, "pointers", _WRONG_FILE)
            self._judge_kept(plan)
        # By position, kind and words: by what it is, not by when it was noticed.
        found.sort(key=lambda finding: (finding.position or 0, finding.kind, finding.message))
        report.findings += found if failure is None else [*found, failure]

    def _join(self, latest: dict[bytes, int], segment: Segment) -> None:
        """What a segment saw of each key first must follow what stands before it."""
        before = list(map(latest.get, segment.keys, repeat(0)))
        if before != segment.prevs or segment.strange:
            for key, first, prev, known in zip(segment.keys, segment.firsts, segment.prevs, before, strict=True):
                if prev != known:
                    self._find(first, "prev", wrong_prev(prev, known))
                if known == 0 and (first in segment.strange or (prev != 0 and not is_allowed(key))):
                    self._find(first, "format", wrong_key(key))
        latest.update(zip(segment.keys, segment.lasts, strict=True))

    def _conclude(self, ranges: list[Walked], carried: CarriedProof) -> None:
        reached = ranges[-1].head.position
        if reached < self._last:
            self._find(reached + 1, "gap", f"the log ends in position {self._last}, but the events from here on are not there")
        redactions = dict(carried.redactions)
        for walked in ranges:
            redactions |= walked.redactions
        for digests in (carried.digests, *(walked.digests for walked in ranges)):
            self._report.redacted += len(digests)
            for position in digests:
                if redactions.get(position, 0) <= position:
                    self._find(position, "format", "a digest stands in place of the data, but no later redact event names this position")

        self._require_erased(sorted(position for position, by in redactions.items() if 0 < position < by))
        if breaks_chain(self._found, self._last) is None:  # else the leaves are not proven, and that was said
            for position, message in wrong_outlines(self._log):
                self._find(position, "tree", message)

    def _require_erased(self, positions: list[int]) -> None:
        """Nothing stands any more that was redacted: such a row came back with a file that somebody put there."""
        for start in range(0, len(positions), PAGE):
            for position in self._log.held(positions[start : start + PAGE]):
                self._find(position, "redacted", _STILL_THERE)

    def _compare_states(self, saved: KeyStates | None, segment: Segment, latest: dict[bytes, int]) -> None:
        """Hold a pointer file against the log: the same keys, each where its latest event stands, each saying what that event says."""
        if saved is None or saved.position != segment.until:
            return  # not believed by anybody
        entries = saved.snapshot()
        positions = {key.encode(): state.position for key, state in entries.items()}
        if saved.system:
            positions[SYSTEM_KEY.encode()] = saved.system
        true = positions == latest and saved.recorded_us == segment.recorded_us
        items = sorted(entries.items(), key=lambda item: item[1].position)
        for start in range(0, len(items) if true else 0, PAGE):
            page = items[start : start + PAGE]
            states = self._states_at([state.position for _, state in page])
            # What was present then may have been redacted since.
            true = true and all(
                state == now or (now.status == "redacted" and state == KeyState(now.position, now.when_us, "present"))
                for now, (_, state) in zip(states, page, strict=True)
            )
        if not true:
            self._find(saved.position, "pointers", _WRONG_FILE)

    def _states_at(self, positions: list[int]) -> list[KeyState]:
        if not isinstance(self._log, RowLog):
            return list(map(state_of, self._log.get(positions)))
        return [
            KeyState(position, when_us, "removed" if removed else "redacted" if empty else "present")
            for position, when_us, removed, empty in self._log.states(positions)
        ]

    def _compare_ids(self, run: IdRun, ids: dict[int, str], kind: str, wrong: str) -> None:
        """Hold a file of event ids against the log: all of its range, nothing else, in an order in which they are found."""
        # Two processes may have merged the same run: then a pair stands there twice, and does no harm.
        known = max(run.after, self._before.position)
        stored = sorted({(position, hashed) for position, hashed in zip(run.positions, run.hashes, strict=True) if position > known})
        true = [(position, hash_of(event_id)) for position, event_id in ids.items() if known < position <= run.until.position]
        if stored != true or run.hashes != array("Q", sorted(run.hashes)):
            self._find(run.until.position, kind, wrong)

    def _judge_kept(self, plan: _Plan) -> None:
        """Event ids of what is elsewhere are no cache: each file of them must be whole, and all must be there."""
        for path in plan.pointers.unkept():
            self._find(self._before.position, "ids", f"{path.name} is damaged, or not of this log: {_KEEP_AGAIN}")
        reach = _end(plan.runs)
        if reach < self._before.position:
            told = (
                f"the event ids of positions {reach + 1} to {self._before.position} are lost, so that a write with an event_id is refused"
            )
            self._find(self._before.position, "ids", f"{told}: {_KEEP_AGAIN}, or accept the loss (`eventstore accept`)")

    def _find(self, position: int, kind: str, message: str) -> None:
        self._found.append(Finding(self._domain, position, kind, message))


_UNRECORDED = (
    "was redacted in after its hash was recorded: it is proven event by event, and the next opening for writing with this archive"
    " attached records its new hash"
)
_STILL_THERE = "redacted, but the value is there; opened for writing, it is erased, unless an archive of another store has it (redact says)"
_WRONG_FILE = "a pointer file does not say what the log says; delete the folder `pointers`, it is rebuilt"


_KEEP_AGAIN = "open the store once for writing with its archives attached, which writes them again, or put the file back from a backup"
_WRONG_IDS = f"a file of event ids in the log's folder does not say what the log says; remove it, then {_KEEP_AGAIN}"


def _end(runs: list[IdRun]) -> int:
    return runs[-1].until.position if runs else 0


class _Plan(msgspec.Struct):
    """What is to be looked at."""

    task: Task
    pointers: PointerFolder
    runs: list[IdRun]
    kept: list[IdRun]
    """Those of the runs, the first ones, that are part of the store."""
    starts: list[int]


class _Shared(msgspec.Struct):
    """The work when others share it."""

    crew: Crew
    tickets: Tickets
    ranges: list[tuple[int, int]]
