"""What opens a store and reads it takes memory for one small state a key and for what the cache may hold, however large the store.

300,000 keys of 5 kB in less than 500 MB with `-m long`; a smaller one in every run of `-m faults`, with the cache as much
smaller: without bounds it would take half as much again as the limit. Then the memory is what ends: a store that is larger than all the
addresses that its process may have is opened, read and written.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import eventstore
from tests.faults.ledger import DOMAIN
from tests.faults.workers import ROOT

VALUE_BYTES, BATCH = 5_000, 500


class Size(msgspec.Struct, frozen=True):
    """A store, and what a process may take for it."""

    keys: int
    cache_bytes: int
    reads: int
    limit: int
    space: int


SMALLER = Size(60_000, 16 * 2**20, 30_000, 100_000_000, 1_600_000_000)
LARGE = Size(300_000, 256 * 2**20, 100_000, 500_000_000, 8_000_000_000)

# A process of its own: the peak of a forked one would begin with its parent's.
OPEN = """
import json, random, resource, sys
from pathlib import Path
import eventstore

def peak():
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss survives an exec, and would tell of pytest
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1_024)

if sys.argv[4]:
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[4]),) * 2)
with eventstore.open(sys.argv[1], read_only=sys.argv[2] == "read-only", cache_bytes=int(sys.argv[3])) as store:
    domain = store.domain("orders")
    keys, opened = len(domain), peak()
    chance = random.Random(7)
    for number in (chance.randrange(keys) for _ in range(int(sys.argv[5]))):
        value = domain.read_value(("key", number))
        assert value["number"] == number, (number, value)
    read = peak()
    if sys.argv[4]:
        domain.write_value("after", 1)
    last = domain.head().position
print(json.dumps({"keys": keys, "opened": opened, "read": read, "last": last}))
"""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(SMALLER, marks=[pytest.mark.faults, pytest.mark.timeout(600)], id="60 thousand keys"),
        pytest.param(LARGE, marks=[pytest.mark.long, pytest.mark.timeout(1_800)], id="300 thousand keys"),
    ],
)
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Size]]:
    """The store, with pointer files, closed."""
    size: Size = request.param
    folder = tmp_path_factory.mktemp("large") / "store"
    if shutil.disk_usage(folder.parent).free < size.space:
        pytest.skip(f"needs {size.space:,} bytes of free space")
    pad = "x" * (VALUE_BYTES - 40)
    with eventstore.open(folder, durability="process") as store:
        domain = store.domain(DOMAIN)
        for start in range(0, size.keys, BATCH):
            domain.write_values([(("key", number), {"number": number, "pad": pad}) for number in range(start, start + BATCH)])
    assert list(folder.glob("logs/*/pointers/*.keys"))
    yield folder, size
    shutil.rmtree(folder)  # pytest keeps the folders of three runs


def opened(folder: Path, size: Size, *, read_only: bool = False, addresses: int | None = None) -> dict[str, Any]:
    """What a fresh process tells of opening the store."""
    arguments = [str(folder), "read-only" if read_only else "", str(size.cache_bytes), str(addresses or ""), str(size.reads)]
    done = subprocess.run(
        [sys.executable, "-c", OPEN, *arguments],
        capture_output=True, text=True, check=False, timeout=900, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


# In this order: the first has the pointer files, the second takes them away, and closes read-only so that they stay away.
@pytest.mark.parametrize("pointers", [True, False], ids=["with pointer files", "without"])
def test_memory_goes_by_the_keys_and_the_cache_and_not_by_the_values(large: tuple[Path, Size], pointers: bool) -> None:
    folder, size = large
    if not pointers:
        shutil.rmtree(folder / "logs" / DOMAIN / "pointers")
    told = opened(folder, size, read_only=not pointers)
    assert (told["keys"], told["last"]) == (size.keys, size.keys)
    assert told["opened"] < size.limit, f"{told['opened']:,} bytes to open"
    assert told["read"] < size.limit, f"{told['read']:,} bytes to open and read"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hold a process to RLIMIT_AS")
def test_a_store_larger_than_the_memory_there_is_opens_and_is_written(large: tuple[Path, Size]) -> None:
    folder, size = large
    stored = size.keys * VALUE_BYTES
    assert sum(path.stat().st_size for path in folder.rglob("*.db")) > stored
    told = opened(folder, size, addresses=stored * 2 // 3)
    assert (told["keys"], told["last"]) == (size.keys, size.keys + 1)
