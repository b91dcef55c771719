"""What is kept of a run: results.json, and the Markdown table that README copies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.bench.machine import Environment
from tests.bench.measure import Comparison, Goal, Spread, Unit

HERE = Path(__file__).parent
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
HEADINGS = ("work", "ours", "against", "theirs", "ours / theirs (lowest to highest round)", "by CPU time", "goal", "not like for like")


class Results(msgspec.Struct, frozen=True):
    """A run, or several of the same place."""

    environment: Environment
    comparisons: list[Comparison]


def merged(old: Results | None, new: Results, order: Sequence[str]) -> Results:
    """`new`, and those rows of `old` that it did not run, if both are of the same machine and versions."""
    if old is None or not old.environment.same_place(new.environment):
        return new
    fresh = {comparison.row for comparison in new.comparisons}
    kept = [comparison for comparison in old.comparisons if comparison.row not in fresh and comparison.row in order]
    return Results(new.environment, sorted([*kept, *new.comparisons], key=lambda comparison: order.index(comparison.row)))


def load(folder: Path = HERE) -> Results | None:
    """The results in `folder`; None if there are none, or none that this version understands."""
    try:
        return msgspec.json.decode((folder / "results.json").read_bytes(), type=Results)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def save(results: Results, folder: Path = HERE) -> None:
    """Write results.json and results.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
    (folder / "results.md").write_text(markdown(results), encoding="utf-8")


def table_of(readme: str) -> str:
    """What stands between the markers of a README. ValueError if they are not there, once and in order."""
    before, begin, rest = readme.partition(BEGIN)
    table, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before + after:
        raise ValueError(f"README needs one {BEGIN} and, after it, one {END}")
    return table.strip("\n") + "\n"


def with_table(readme: str, table: str) -> str:
    """The README with another table between its markers."""
    table_of(readme)
    return readme.partition(BEGIN)[0] + f"{BEGIN}\n{table}{END}" + readme.partition(END)[2]


def markdown(results: Results) -> str:
    """Everything a reader needs to judge the figures, as Markdown."""
    place = results.environment
    found = [comparison for comparison in results.comparisons if not comparison.from_memory]
    told_apart = [comparison for comparison in results.comparisons if comparison.from_memory]
    versions = ", ".join(f"{name} {version}" for name, version in place.versions.items())
    parts = [
        f"Measured on {_dates(results)}: {place.cpu}, {place.cores} cores, {place.system}, {place.file_system}; {place.python},"
        f" SQLite {place.sqlite}; {versions}."
        f" One appended page with its fdatasync, before the last run: {place.sync_us / 1_000:.2f} ms; load before: {_loads(results)}.",
        "Only the ratios mean anything: everybody runs in turn, round by round; a ratio is the median over the rounds of one run. "
        'For times (ms) less is better. "by CPU time" is the same ratio by processor time, which leaves the waiting for the disk out.',
    ]
    if found:
        parts.append(_table(found))
    if told_apart:
        parts += ["Told apart, for ours answers from memory and the others read their files:", _table(told_apart)]
    return "\n\n".join(parts) + "\n"


def line(comparison: Comparison) -> str:
    """One comparison as a line for the terminal."""
    _, ours, against, theirs, ratio, by_cpu, goal, note = _cells(comparison)
    if comparison.status != "ok":
        return f"  {against}: {comparison.status}"
    versus = f"{against} {theirs}: " if comparison.against else ""
    extras = [f"by CPU time {by_cpu}" if by_cpu else "", f"goal {goal}" if goal else "", note]
    return f"  ours {ours}  {versus}{ratio}  " + "; ".join(extra for extra in extras if extra)


def _table(comparisons: Sequence[Comparison]) -> str:
    lines = [HEADINGS, ("---",) * len(HEADINGS)]
    previous = ""
    for comparison in comparisons:
        cells = _cells(comparison)
        if comparison.row == previous and comparison.status == "ok":
            cells = ("", *cells[1:])
        previous = comparison.row
        lines.append(cells)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cells(found: Comparison) -> tuple[str, ...]:
    against = found.against or "–"
    if found.status != "ok" or found.ours is None or found.result is None:
        return (found.work, "", against, "", found.status, "", _goals(found, None), "")
    theirs = figure(found.theirs.median, found.unit) if found.theirs else ""
    result = "" if found.theirs is None and found.rounds == 1 else _spread(found.result, found)
    by_cpu = f"{found.by_cpu.median:.2f}x" if found.by_cpu else ""
    goals = _goals(found, found.result.median)
    return (found.work, figure(found.ours.median, found.unit), against, theirs, result, by_cpu, goals, found.note)


def figure(number: float, unit: Unit) -> str:
    """A figure with three digits and its unit."""
    if unit == "/s":
        for size, letter in ((1e6, "M"), (1e3, "k")):
            if number >= size:
                return f"{_three(number / size)}{letter}/s"
    return f"{_three(number)}{unit}" if unit == "/s" else f"{_three(number)} {unit}"


def _three(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _spread(spread: Spread, found: Comparison) -> str:
    if found.compare == "ratio" and found.theirs is not None:
        return f"{_times(spread.median)} ({_times(spread.low)} to {_times(spread.high)})"
    sign = "+" if found.compare == "difference" and spread.median >= 0 else ""
    middle = sign + figure(spread.median, found.unit)
    return middle if found.rounds == 1 else f"{middle} ({_three(spread.low)} to {_three(spread.high)})"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"


def _goals(found: Comparison, median: float | None) -> str:
    """The goal, and what is asked of this release where that is less; and whether each is met."""
    told = [("", found.goal), ("this release: ", found.stage)]
    return "; ".join(f"{name}{_bound(goal, found)}{_verdict(goal, median)}" for name, goal in told if goal)


def _verdict(goal: Goal, median: float | None) -> str:
    if median is None:
        return ""
    return ": met" if goal.met(median) else ": not met"


def _bound(goal: Goal, found: Comparison) -> str:
    sign = "≥" if goal.op == ">=" else "≤"
    if found.against is None:
        return f"{sign} {figure(goal.bound, found.unit)}"
    return f"{sign} {_times(goal.bound)}" if found.compare == "ratio" else f"{sign} +{figure(goal.bound, found.unit)}"


def _loads(results: Results) -> str:
    """What others did before the runs that the rows are of."""
    loads = sorted({f"{comparison.load:.1f}" for comparison in results.comparisons} or {f"{results.environment.load:.1f}"}, key=float)
    return loads[0] if len(loads) == 1 else f"{loads[0]} to {loads[-1]}, {_loaded(results)}"


def _loaded(results: Results) -> str:
    """Which rows are of the busiest run."""
    most = max(comparison.load for comparison in results.comparisons)
    rows = dict.fromkeys(comparison.row for comparison in results.comparisons if comparison.load == most)
    return f"the most before {', '.join(rows)}"


def _dates(results: Results) -> str:
    dates = sorted({comparison.date for comparison in results.comparisons} or {results.environment.date})
    return dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
