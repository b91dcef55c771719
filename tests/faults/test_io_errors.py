"""The disk refuses a call, once or from then on: typed errors, nothing acknowledged lost, nothing refused that is there all the same.

Each of the syncs, writes and changes of names of a run is refused in turn (shim.c); a sample of them in every run, all with
`-m long`. FAULTS_SEED repeats a sample.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import refusals
from tests.faults.ledger import Ledger
from tests.faults.workers import Server

SAMPLE = 8
"""How many of the calls of a kind are refused in one test, evenly spaced from a random one on."""
EIO, ENOSPC = "5", "28"


@pytest.fixture(
    params=[
        pytest.param(SAMPLE, marks=pytest.mark.faults, id="ci"),
        pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(3_600)], id="long"),
    ]
)
def sample(request: pytest.FixtureRequest) -> int:
    """How many calls of a kind are refused at most."""
    found: int = request.param
    return found


@pytest.mark.core
@pytest.mark.parametrize("span", ["once", "always"])
@pytest.mark.parametrize(
    ("what", "how"),
    [("sync", EIO), ("sync", ENOSPC), ("write", EIO), ("write", ENOSPC), ("write", "short"), ("name", EIO), ("name", ENOSPC)],
)
def test_a_refused_call(
    recording_server: Server, in_memory: Path, seed: str, sample: int, what: str, how: str, span: str, record_property: Callable[..., None]
) -> None:
    def run(fault: str) -> list[dict[str, object]]:
        folder = in_memory / "root"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return recording_server.run(refusals.write_against, root=str(folder), name=seed, fault=fault)

    calls = run("")[-1][what]
    assert isinstance(calls, int)
    stride = 1 + calls // sample
    met: Counter[str] = Counter()
    chosen = range(random.Random(f"{seed}{what}{how}{span}").randint(1, stride), calls + 1, stride)
    record_property("tried refused calls", len(chosen))
    for n in chosen:
        fault = f"{what}:{n}:{how}:{span}"
        ledger = Ledger()
        try:
            for said in run(fault):
                ledger.take(said)
                refused = said.get("refused")
                if isinstance(refused, dict):
                    met[f"{said['during']}: {refused['error']}, {refused['outcome']}"] += 1
                    if said["during"] == "write" and (what, how) == ("write", ENOSPC):
                        assert refused["error"] in ("DiskFullError", "HaltedError"), refused
            ledger.require_kept(in_memory / "root" / "store")
            ledger.require_second_opinion(in_memory / "root" / "store")
        except Exception as error:
            raise AssertionError(f"FAULTS_SEED={seed}: {fault}, of {calls} such calls") from error
    # A short write is none of the caller's business: what is missing is written next.
    assert bool(met) == (how != "short"), f"FAULTS_SEED={seed}: what the faults led to: {met}"


@pytest.mark.faults
@pytest.mark.parametrize("n", range(28, 38))
def test_a_disk_that_stays_full_from_a_seal_to_the_closing_is_a_typed_error(recording_server: Server, in_memory: Path, n: int) -> None:
    """The seal stands, the file after it cannot be made: the next write says so, and so does who closes the store."""
    (in_memory / "root").mkdir()
    ledger = Ledger()
    for said in recording_server.run(refusals.write_against, root=str(in_memory / "root"), name="full", fault=f"sync:{n}:{ENOSPC}:always"):
        ledger.take(said)
    ledger.require_kept(in_memory / "root" / "store")
