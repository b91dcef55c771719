"""Where our own time goes: one row's contender of ours under cProfile. Profile before optimising."""

from __future__ import annotations

import cProfile
import io
import pstats
from pathlib import Path

from tests.bench.measure import Row, Sizes

TOP = 10


def profile(row: Row, sizes: Sizes, folder: Path, *, top: int = TOP) -> str:
    """One warm run, then one under the profiler: the functions with the most time of their own."""
    contender = row.ours(folder / row.name, sizes)
    contender.folder.mkdir(parents=True)
    try:
        contender.setup()
        contender.sample()
        contender.prepare()
        profiler = cProfile.Profile()
        work = profiler.runcall(contender.run)
        contender.after()
    finally:
        contender.teardown()
    out = io.StringIO()
    pstats.Stats(profiler, stream=out).strip_dirs().sort_stats("tottime").print_stats(top)
    table = [text for text in out.getvalue().splitlines() if text.strip()]
    return "\n".join([f"{row.name}: {row.work}, {work:,.0f} units of work", *table])
