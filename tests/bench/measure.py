"""Contenders, rows, rounds: A B A B within one run, and the ratio of every round."""

from __future__ import annotations

import gc
import importlib.util
import shutil
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

import msgspec

_T = TypeVar("_T")

Unit = Literal["/s", "ms", "B", "MB", "%"]
"""What a contender's figure is: units of work per second, milliseconds per unit, or the number it returns."""


class Sizes(msgspec.Struct, frozen=True):
    """How much work one run of a contender is."""

    singles: int = 2_000
    batch: int = 1_000
    batches: int = 10
    reads: int = 50_000
    keys: int = 10_000
    log: int = 100_000
    large_log: int = 1_000_000
    huge_log: int = 10_000_000
    shared_batch: int = 100
    shared_calls: int = 200
    large_batch: int = 10_000
    aggregates: int = 1_000
    wide_keys: int = 300_000
    wide_bytes: int = 5_000
    candles: int = 1_000
    candle_calls: int = 10
    recorded: int = 5_000
    recording: int = 1_000_000


QUICK = Sizes(
    singles=5,
    batch=20,
    batches=2,
    reads=50,
    keys=20,
    log=200,
    large_log=400,
    huge_log=600,
    shared_batch=5,
    shared_calls=4,
    large_batch=40,
    aggregates=5,
    wide_keys=100,
    wide_bytes=500,
    candles=20,
    candle_calls=2,
    recorded=100,
    recording=250,
)
"""Enough to see that every row runs; the figures mean nothing."""


class Measure(msgspec.Struct, frozen=True):
    """What one run did: units of work, seconds on the wall, seconds of processor time (of every process that worked)."""

    work: float
    wall: float
    cpu: float

    def figure(self, unit: Unit) -> float:
        """The figure by the wall clock, in the row's unit."""
        return self._per(unit, self.wall)

    def by_cpu(self, unit: Unit) -> float | None:
        """The same by processor time; None for what is counted or took none."""
        return self._per(unit, self.cpu) if unit in ("/s", "ms") and self.cpu > 0 else None

    def _per(self, unit: Unit, seconds: float) -> float:
        if unit == "/s":
            return self.work / seconds
        return seconds * 1_000 / self.work if unit == "ms" else self.work


class Contender(ABC):
    """One way to do a row's work, in a folder of its own. Only `run` is timed."""

    name: ClassVar[str]
    requires: ClassVar[str | None] = None
    """The module this contender cannot do without."""
    note: str = ""
    """What is not like for like, once set up."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder, self.sizes = folder, sizes

    def setup(self) -> None:
        """Once, before the first round."""

    def prepare(self) -> None:
        """Before every run."""

    @abstractmethod
    def run(self) -> float:
        """The work; returns how many units of it were done, or the figure itself where something is counted."""

    def after(self) -> None:
        """After every run."""

    def teardown(self) -> None:
        """Once, after the last round, also when something failed."""

    def sample(self) -> Measure:
        """Prepare, run under both clocks, clean up."""
        self.prepare()
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        work = self.run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self.after()
        return Measure(work, wall, cpu)


class Goal(msgspec.Struct, frozen=True):
    """The bound a median is held against."""

    op: Literal[">=", "<="]
    bound: float

    def met(self, median: float) -> bool:
        """Whether `median` is on the right side."""
        return median >= self.bound if self.op == ">=" else median <= self.bound


class Against(msgspec.Struct, frozen=True):
    """One comparison of a row. Without a contender our own figure is held against the goal."""

    contender: type[Contender] | None
    goal: Goal | None = None
    stage: Goal | None = None
    """What is asked of this release already, where that is less than the goal."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Work, our way to do it, and what it is compared with."""

    name: str
    work: str
    unit: Unit
    ours: type[Contender]
    against: Sequence[Against]
    compare: Literal["ratio", "difference"] = "ratio"
    from_memory: bool = False
    """We answer from memory what others read from their files: told apart, never a headline."""
    long: bool = False
    """Takes minutes: run when named or asked for with --long, without a warm-up."""
    rounds: int | None = None
    """At most so many, where one takes seconds."""
    counted: bool = False
    """Nothing is timed: one round tells."""


class Spread(msgspec.Struct, frozen=True):
    """Median, lowest and highest of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """The spread of at least one figure."""
        return cls(statistics.median(figures), min(figures), max(figures))


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What came out. `status` is "ok", or says what is missing or went wrong; then there are no figures."""

    row: str
    work: str
    unit: Unit
    compare: Literal["ratio", "difference"]
    from_memory: bool
    against: str | None
    status: str = "ok"
    rounds: int = 0
    ours: Spread | None = None
    theirs: Spread | None = None
    result: Spread | None = None
    """Ours over theirs, or ours less theirs, round by round; our own figure where there are no others."""
    by_cpu: Spread | None = None
    """The ratio by processor time instead of the wall clock."""
    goal: Goal | None = None
    stage: Goal | None = None
    note: str = ""
    date: str = ""
    load: float = 0.0
    """Work that others did just before the run, in cores."""


Say = Callable[[str], None]


def measure(row: Row, sizes: Sizes, *, rounds: int, folder: Path, date: str, say: Say, warm_up: bool = True) -> list[Comparison]:
    """Run one row: every contender in turn, `rounds` times, after one round that is thrown away (unless nothing is timed)."""
    kinds = [row.ours, *dict.fromkeys(against.contender for against in row.against if against.contender)]
    field = Field(row, sizes, folder)
    try:
        for kind in kinds:
            field.enter(kind, say)
        if warm_up and not row.counted and not row.long:
            say("  warm-up")
            field.round(keep=False)
        rounds = 1 if row.counted else min(rounds, row.rounds or rounds)
        for number in range(rounds):
            say(f"  round {number + 1} of {rounds}")
            field.round(keep=True)
    finally:
        field.leave()
    return [field.comparison(against, date) for against in row.against]


class Field:
    """The contenders of one row while they run. Whoever fails is out, with the reason; the others go on."""

    def __init__(self, row: Row, sizes: Sizes, folder: Path) -> None:
        self.row, self.sizes, self.folder = row, sizes, folder
        self.running: dict[type[Contender], Contender] = {}
        self.out: dict[type[Contender], str] = {}
        self.kept: dict[type[Contender], list[Measure]] = {}

    def enter(self, kind: type[Contender], say: Say) -> None:
        """Set one contender up."""
        if kind.requires and importlib.util.find_spec(kind.requires) is None:
            self.out[kind] = f"absent: {kind.requires} is not installed"
            return
        say(f"  setting up {kind.name}")
        contender = kind(self.folder / f"{self.row.name}-{len(self.running)}", self.sizes)
        contender.folder.mkdir(parents=True)
        self.running[kind] = contender
        self.kept[kind] = []
        self._guarded(kind, contender.setup)

    def round(self, *, keep: bool) -> None:
        """Every contender once, ours first."""
        for kind, contender in self.running.items():
            if kind not in self.out and (measured := self._guarded(kind, contender.sample)) and keep:
                self.kept[kind].append(measured)

    def comparison(self, against: Against, date: str) -> Comparison:
        """What the rounds say about ours and one other."""
        row, other = self.row, against.contender
        blank = Comparison(
            row=row.name,
            work=row.work,
            unit=row.unit,
            compare=row.compare,
            from_memory=row.from_memory,
            against=other.name if other else None,
            goal=against.goal,
            stage=against.stage,
            date=date,
        )
        reasons = [self.out[kind] for kind in (row.ours, other) if kind in self.out]
        if reasons:
            return msgspec.structs.replace(blank, status=reasons[0])
        ours = self.kept[row.ours]
        theirs = self.kept[other] if other else None
        notes = [self.running[kind].note for kind in (row.ours, other) if kind]
        return msgspec.structs.replace(
            blank,
            rounds=len(ours),
            ours=Spread.of([one.figure(row.unit) for one in ours]),
            theirs=Spread.of([one.figure(row.unit) for one in theirs]) if theirs else None,
            result=self._result(ours, theirs),
            by_cpu=self._by_cpu(ours, theirs),
            note="; ".join(dict.fromkeys(note for note in notes if note)),
        )

    def leave(self) -> None:
        """Tear everybody down and remove the folders."""
        for kind, contender in self.running.items():
            self._guarded(kind, contender.teardown)
            shutil.rmtree(contender.folder, ignore_errors=True)

    def _result(self, ours: list[Measure], theirs: list[Measure] | None) -> Spread:
        unit = self.row.unit
        if theirs is None:
            return Spread.of([one.figure(unit) for one in ours])
        pairs = [(a.figure(unit), b.figure(unit)) for a, b in zip(ours, theirs, strict=True)]
        return Spread.of([a / b if self.row.compare == "ratio" else a - b for a, b in pairs])

    def _by_cpu(self, ours: list[Measure], theirs: list[Measure] | None) -> Spread | None:
        if theirs is None or self.row.compare != "ratio":
            return None
        pairs = [(a.by_cpu(self.row.unit), b.by_cpu(self.row.unit)) for a, b in zip(ours, theirs, strict=True)]
        ratios = [a / b for a, b in pairs if a is not None and b is not None]
        return Spread.of(ratios) if ratios else None

    def _guarded(self, kind: type[Contender], step: Callable[[], _T]) -> _T | None:
        try:
            return step()
        except Exception as error:  # noqa: BLE001 -- whatever a contender dies of is its result
            reason = str(error).replace(str(self.folder), "").replace("\n", " ")
            self.out.setdefault(kind, f"failed: {type(error).__name__}: {reason}")
            return None
