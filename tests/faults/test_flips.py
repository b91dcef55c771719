"""Every byte of a store, flipped: it is found, or it changes nothing that the store says. None is silent."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults import jobs
from tests.faults.stores import DB, HEAD, MANIFEST, WAL, Damaged, leave
from tests.faults.workers import Server

PARTS = 4
SAMPLE = 150
NOTHING_IS_NEUTRAL = {str(WAL)}
"""Files of which every byte says something."""


@pytest.fixture
def small(server: Server, in_memory: Path) -> Damaged:
    """Some events in the database file, some in the WAL, and every kind of file a store has."""
    return leave(server, in_memory / "small", settled=4, loose=2, pointers=True)


def places(store: Damaged) -> list[tuple[str, int]]:
    """Every byte there is, but for the -shm, which SQLite builds anew."""
    files = [path for path in sorted(store.folder.rglob("*")) if path.is_file() and path != store.shm]
    names = {str(path.relative_to(store.folder)) for path in files}
    assert {str(file) for file in (DB, WAL, HEAD, MANIFEST)} <= names
    assert {Path(name).suffix for name in names} >= {".keys", ".ids"}
    return [(str(path.relative_to(store.folder)), offset) for path in files for offset in range(path.stat().st_size)]


def require_none_silent(server: Server, store: Damaged, chosen: Sequence[tuple[str, int]], seed: str, scratch: Path) -> Counter[str]:
    """Flip each of `chosen` in a fresh copy; how many were found and how many neutral, by file."""
    (scratch / "places").write_text("\n".join(f"{name} {offset}" for name, offset in chosen))
    told = server.run(jobs.flip_bytes, template=str(store.folder), scratch=str(scratch), seed=seed)
    counts = Counter({said["file"] + " " + said["verdict"]: said["count"] for said in told if "count" in said})
    silent = [said for said in told if "place" in said]
    assert not silent, f"FAULTS_SEED={seed}: {len(silent)} silent or untyped of {dict(counts)}: {silent[:5]}"
    assert counts.total() == len(chosen)
    for file in NOTHING_IS_NEUTRAL:
        assert not counts[f"{file} neutral"], f"FAULTS_SEED={seed}: {dict(counts)}"
    return counts


def test_a_sample_of_flipped_bytes_is_found_or_neutral(server: Server, small: Damaged, in_memory: Path, seed: str) -> None:
    everywhere = places(small)
    chance = random.Random(seed)
    chosen = [place for place in everywhere if place[0] == str(HEAD)] + chance.sample(everywhere, SAMPLE)
    counts = require_none_silent(server, small, chosen, seed, in_memory)
    assert counts[f"{HEAD} found"] >= 48, f"every byte of the witness says something: {dict(counts)}"


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_flipped_byte_is_found_or_neutral(server: Server, small: Damaged, in_memory: Path, seed: str, part: int) -> None:
    counts = require_none_silent(server, small, places(small)[part::PARTS], f"{seed}-{part}", in_memory)
    assert counts[f"{DB} found"], f"{dict(counts)}"
    assert counts[f"{WAL} found"], f"{dict(counts)}"
