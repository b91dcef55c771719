"""`python -m tests.bench [ROW ...]`: run, print, keep."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.bench import report
from tests.bench.machine import IN_MEMORY, environment, file_system, scratch
from tests.bench.measure import QUICK, Comparison, Row, Sizes, measure
from tests.bench.profile import profile
from tests.bench.rows import ROWS

ROUNDS = 7
LEAST_ROUNDS = 5
README = report.HERE.parents[1] / "README.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. 0 ok (whatever the figures), 1 a contender failed, 2 usage."""
    parser = _parser()
    options = parser.parse_args(arguments)
    known = {row.name: row for row in ROWS}
    if unknown := [name for name in options.rows if name not in known]:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(known)}")
    if not options.quick and options.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds {options.rounds}: a spread of fewer than {LEAST_ROUNDS} rounds says nothing")
    if options.list:
        for row in ROWS:
            print(f"{row.name:<16}{'(long) ' if row.long else ''}{row.work}")
        return 0
    if options.render:
        return _render(options)
    chosen = [known[name] for name in options.rows] or [row for row in ROWS if options.long or not row.long]
    folder = Path(options.folder) if options.folder else scratch()
    if file_system(folder) in IN_MEMORY:
        print(f"warning: {folder} is in memory; durable writes cost nothing there. Name a folder on a disk with --folder", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as working:
        if options.profile:
            for row in chosen:
                print(profile(row, QUICK if options.quick else Sizes(), Path(working)), end="\n\n")
            return 0
        return _run(chosen, options, Path(working))


def _run(chosen: Sequence[Row], options: argparse.Namespace, working: Path) -> int:
    place = environment(working)
    sizes, rounds = (QUICK, 1) if options.quick else (Sizes(), options.rounds)
    found: list[Comparison] = []
    start = time.monotonic()
    for number, row in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}, {_passed(start)}] {row.name}: {row.work}", flush=True)
        say = _progress if sys.stderr.isatty() else _silent
        measured = measure(row, sizes, rounds=rounds, folder=working, date=place.date, say=say, warm_up=not options.quick)
        found += [msgspec.structs.replace(comparison, load=place.load) for comparison in measured]
        for comparison in found:
            if comparison.row == row.name:
                print(report.line(comparison), flush=True)
    print(f"{len(chosen)} rows in {_passed(start)}")
    results = report.Results(place, found)
    if options.quick and not options.out:
        print("a quick run: nothing written")
    else:
        folder = Path(options.out) if options.out else report.HERE
        report.save(report.merged(report.load(folder), results, [row.name for row in ROWS]), folder)
        print(f"wrote results.json and results.md to {folder}")
        if options.readme:
            return _render(options)
    return 1 if any(comparison.status.startswith("failed") for comparison in found) else 0


def _render(options: argparse.Namespace) -> int:
    folder = Path(options.out) if options.out else report.HERE
    results = report.load(folder)
    if results is None:
        print(f"no results in {folder}: run the benchmark first", file=sys.stderr)
        return 2
    report.save(results, folder)
    if options.readme:
        README.write_text(report.with_table(README.read_text(encoding="utf-8"), report.markdown(results)), encoding="utf-8")
        print(f"wrote the table of {README.name}")
    return 0


def _passed(start: float) -> str:
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    return f"{minutes}:{seconds:02d}"


def _progress(text: str) -> None:
    sys.stderr.write(f"\r\033[K{text}\r")
    sys.stderr.flush()


def _silent(text: str) -> None:
    pass


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Our verbs beside other stores', in one interleaved run.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="rows to run (default: all but the long ones; see --list)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds that count, at least {LEAST_ROUNDS} (default {ROUNDS})")
    parser.add_argument("--long", action="store_true", help="the long rows too: ten million events")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, one round, no warm-up: shows that everything runs; written only with --out"
    )
    parser.add_argument("--profile", action="store_true", help="instead: our side of each row under cProfile, its ten hottest functions")
    parser.add_argument("--list", action="store_true", help="instead: name the rows")
    parser.add_argument("--render", action="store_true", help="instead: write results.md anew from results.json")
    parser.add_argument("--readme", action="store_true", help="write the table between the markers of README.md, too")
    parser.add_argument("--out", help="folder for results.json and results.md (default: beside this program)")
    parser.add_argument("--folder", help="folder for the stores while they are measured (default: temporary, if that is on a disk)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
