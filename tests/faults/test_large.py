"""A store of 1.5 GB opens in less than 500 MB: one small state for each key, and only as many values as the cache may hold."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eventstore
from tests.faults.ledger import DOMAIN
from tests.faults.workers import ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(1_800)]

KEYS, VALUE_BYTES, BATCH = 300_000, 5_000, 500
LIMIT = 500_000_000
SPACE = 8_000_000_000

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

with eventstore.open(sys.argv[1], read_only=sys.argv[2] == "read-only") as store:
    domain = store.domain("orders")
    keys, opened = len(domain), peak()
    chance = random.Random(7)
    for number in (chance.randrange(keys) for _ in range(100_000)):
        value = domain.read_value(("key", number))
        assert value["number"] == number, (number, value)
    read = peak()
    last = domain.head().position
print(json.dumps({"keys": keys, "opened": opened, "read": read, "last": last}))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The store, with pointer files, closed."""
    folder = tmp_path_factory.mktemp("large") / "store"
    if shutil.disk_usage(folder.parent).free < SPACE:
        pytest.skip(f"needs {SPACE:,} bytes of free space")
    pad = "x" * (VALUE_BYTES - 40)
    with eventstore.open(folder, durability="process") as store:
        domain = store.domain(DOMAIN)
        for start in range(0, KEYS, BATCH):
            domain.write_values([(("key", number), {"number": number, "pad": pad}) for number in range(start, start + BATCH)])
    assert list(folder.glob("logs/*/pointers/*.keys"))
    yield folder
    shutil.rmtree(folder)  # pytest keeps the folders of three runs


def opened(folder: Path, *, read_only: bool) -> dict[str, Any]:
    """What a fresh process tells of opening the store."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(folder), "read-only" if read_only else ""],
        capture_output=True, text=True, check=False, timeout=900, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


# In this order: the first has the pointer files, the second takes them away, and closes read-only so that they stay away.
@pytest.mark.parametrize("pointers", [True, False], ids=["with pointer files", "without"])
def test_three_hundred_thousand_keys_open_in_half_a_gigabyte(large: Path, pointers: bool) -> None:
    if not pointers:
        shutil.rmtree(large / "logs" / DOMAIN / "pointers")
    told = opened(large, read_only=not pointers)
    assert (told["keys"], told["last"]) == (KEYS, KEYS)
    assert told["opened"] < LIMIT, f"{told['opened']:,} bytes to open"
    assert told["read"] < LIMIT, f"{told['read']:,} bytes to open and read"
