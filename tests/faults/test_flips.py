"""Damaged bytes: each damage is found, or it changes nothing that the store says or will say. None is silent.

A failure names the damage and its seed, and FAULTS_SEED=<seed> makes it again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

import eventstore
from tests.faults import damages, jobs
from tests.faults.damages import KINDS, Damage
from tests.faults.ledger import DOMAIN
from tests.faults.stores import DB, HEAD, LOG, MANIFEST, WAL, Damaged, events_of, leave
from tests.faults.workers import Server

PARTS = 4
SAMPLE = 60
NOTHING_IS_NEUTRAL = {str(WAL)}
"""Files of which every byte says something."""
RANDOM, RANDOM_FOR_LONG = 2_000, 20_000
SHARES = {"db": 0.4, "wal": 0.3, "head": 0.1, "store.json": 0.1, "pointers": 0.1}
"""Which part of all damages meets which kind of file: by size alone the small ones would hardly be met."""


@pytest.fixture
def small(server: Server, in_memory: Path) -> Damaged:
    """Some events in the database file, some in the WAL, and every kind of file a store has."""
    return leave(server, in_memory / "small", settled=4, loose=2, pointers=True)


@pytest.fixture
def sealed(server: Server, in_memory: Path) -> Damaged:
    """A log of three files: two that are sealed, and a live one with events in its WAL."""
    folder = in_memory / "sealed"
    worker = server.start(jobs.write_sealed_and_die, folder=str(folder), events=5)
    said = worker.rest()
    assert worker.wait() < 0, said
    assert len(list((folder / LOG).glob("[0-9]*.db"))) == 3
    return Damaged(folder, events_of(folder), 0)


@pytest.fixture
def larger(server: Server, in_memory: Path) -> Damaged:
    """About 100 KB: several pages of a table in the database, and frames that replace them in the WAL."""
    store = leave(server, in_memory / "larger", settled=160, loose=6, pointers=True)
    assert store.db.stat().st_size + store.wal.stat().st_size > 64 * 1_024
    return store


def files_of(store: Damaged) -> list[str]:
    """Every file there is, but for the -shm, which SQLite builds anew."""
    names = [str(path.relative_to(store.folder)) for path in sorted(store.folder.rglob("*")) if path.is_file() and path != store.shm]
    assert {str(file) for file in (DB, WAL, HEAD, MANIFEST)} <= set(names)
    assert {Path(name).suffix for name in names} >= {".keys", ".ids"}
    return [name for name in names if (store.folder / name).stat().st_size]


def every_byte(store: Damaged, seed: str) -> list[Damage]:
    """Each byte there is becomes another."""
    return [Damage(name, "byte", at, seed) for name in files_of(store) for at in range((store.folder / name).stat().st_size)]


def random_damages(store: Damaged, seed: str, count: int) -> list[Damage]:
    """So many damages of all kinds, to all files."""
    chance = random.Random(seed)
    names = files_of(store)
    groups = {
        "db": [str(DB)], "wal": [str(WAL)], "head": [str(HEAD)], "store.json": [str(MANIFEST)],
        "pointers": [name for name in names if "/pointers/" in name],
    }  # fmt: skip
    found = []
    for number in range(count):
        (group,) = chance.choices(list(SHARES), list(SHARES.values()))
        name = chance.choice(groups[group])
        found.append(Damage(name, chance.choice(list(KINDS)), chance.randrange((store.folder / name).stat().st_size), f"{seed}-{number}"))
    return found


def require_none_silent(
    server: Server, store: Damaged, chosen: Sequence[Damage], seed: str, scratch: Path, *, with_write: bool = True
) -> Counter[str]:
    """Inflict each of `chosen` on a fresh copy; how many were found and how many neutral, by file and by kind."""
    (scratch / "damages").write_bytes(msgspec.json.encode(chosen))
    told = server.run(damages.inflict_each, template=str(store.folder), scratch=str(scratch), with_write=with_write)
    silent = [said for said in told if "damage" in said]
    counts: Counter[str] = Counter()
    for said in told:
        if "count" in said:
            counts[f"{said['file']} {said['verdict']}"] += said["count"]
            counts[f"{said['kind']} {said['verdict']}"] += said["count"]
    assert not silent, f"FAULTS_SEED={seed}: {len(silent)} silent or untyped of {len(chosen)}, {dict(counts)}: {silent[:5]}"
    assert counts.total() == 2 * len(chosen)
    for file in NOTHING_IS_NEUTRAL:
        assert not counts[f"{file} neutral"], f"FAULTS_SEED={seed}: {dict(counts)}"
    return counts


def test_a_sample_of_flipped_bytes_is_found_or_neutral(server: Server, small: Damaged, in_memory: Path, seed: str) -> None:
    everywhere = every_byte(small, seed)
    chosen = [place for place in everywhere if place.file == str(HEAD)] + random.Random(seed).sample(everywhere, SAMPLE)
    counts = require_none_silent(server, small, chosen, seed, in_memory)
    assert counts[f"{HEAD} found"] >= 48, f"every byte of the witness says something: {dict(counts)}"


def sealed_bytes(store: Damaged, seed: str) -> list[Damage]:
    """Each byte of each file of a sealed store becomes another."""
    names = [path for path in sorted(store.folder.rglob("*")) if path.is_file() and not path.name.endswith("-shm")]
    return [Damage(str(path.relative_to(store.folder)), "byte", at, seed) for path in names for at in range(path.stat().st_size)]


def test_a_sample_of_flipped_bytes_of_a_sealed_store_is_found_or_neutral(
    server: Server, sealed: Damaged, in_memory: Path, seed: str
) -> None:
    chosen = random.Random(seed).sample(sealed_bytes(sealed, seed), SAMPLE)
    require_none_silent(server, sealed, chosen, seed, in_memory)


@pytest.mark.parametrize("page", range(8))
def test_a_table_that_begins_on_another_page_is_found(sealed: Damaged, tmp_path: Path, page: int) -> None:
    """One byte of the schema says where `carried` begins: anywhere else there are rows of other columns, or none."""
    newest = max((sealed.folder / LOG).glob("[0-9]*.db"))
    content = bytearray(newest.read_bytes())
    at = content.index(b"tablecarriedcarried") + len(b"tablecarriedcarried")
    if page == content[at]:
        return
    content[at] = page
    newest.write_bytes(content)
    with pytest.raises(eventstore.EventStoreError), eventstore.open(sealed.folder) as store:
        dict(store.domain(DOMAIN).items())


class Share(msgspec.Struct, frozen=True):
    """Every how many-th byte becomes another: of those in use, and of those around which there is nothing."""

    used: int
    empty: int

    def of(self, store: Damaged, places: Sequence[Damage], seed: str) -> list[Damage]:
        """Some of `places`, from random ones on."""
        contents = {name: (store.folder / name).read_bytes() for name in {place.file for place in places}}
        used, empty = list[Damage](), list[Damage]()
        for place in places:
            near = contents[place.file][max(place.offset - 8, 0) : place.offset + 8]
            (used if any(near) else empty).append(place)
        chance = random.Random(seed)
        return used[chance.randrange(self.used) :: self.used] + empty[chance.randrange(self.empty) :: self.empty]


FOR_LONG = pytest.param(Share(1, 1), marks=[pytest.mark.long, pytest.mark.timeout(7_200)], id="long")


@pytest.mark.parametrize("share", [pytest.param(Share(40, 1_200), marks=[pytest.mark.faults, pytest.mark.timeout(600)], id="ci"), FOR_LONG])
def test_flipped_bytes_of_a_sealed_store_are_found_or_neutral(
    server: Server, sealed: Damaged, in_memory: Path, seed: str, share: Share
) -> None:
    counts = require_none_silent(server, sealed, share.of(sealed, sealed_bytes(sealed, seed), seed), seed, in_memory)
    for path in (sealed.folder / LOG).glob("[0-9]*.db"):
        assert counts[f"{path.relative_to(sealed.folder)} found"], f"{dict(counts)}"


def test_pages_in_each_others_places_are_found_and_nothing_that_reads_them_runs_for_ever(
    server: Server, larger: Damaged, in_memory: Path, seed: str
) -> None:
    pages = range(0, larger.db.stat().st_size, damages.PAGE)
    chosen = [Damage(str(DB), "page_of_another_place", page, f"{seed}-{number}") for page in pages for number in range(12)]
    counts = require_none_silent(server, larger, chosen, seed, in_memory)
    assert counts[f"{DB} found"] > len(chosen) // 4, f"FAULTS_SEED={seed}: {dict(counts)}"


@pytest.mark.parametrize("share", [pytest.param(Share(6, 60), marks=[pytest.mark.faults, pytest.mark.timeout(600)], id="ci"), FOR_LONG])
@pytest.mark.parametrize("part", range(PARTS))
def test_flipped_bytes_are_found_or_neutral(server: Server, small: Damaged, in_memory: Path, seed: str, part: int, share: Share) -> None:
    chosen = share.of(small, every_byte(small, seed), seed)[part::PARTS]
    counts = require_none_silent(server, small, chosen, seed, in_memory, with_write=False)
    assert counts[f"{DB} found"], f"{dict(counts)}"
    assert counts[f"{WAL} found"], f"{dict(counts)}"


def require_random_damages_found(server: Server, store: Damaged, seed: str, scratch: Path, count: int) -> None:
    """Every kind of damage was tried, and found where there was something to find."""
    counts = require_none_silent(server, store, random_damages(store, seed, count), seed, scratch)
    for name in (*KINDS, str(DB), str(WAL), str(HEAD), str(MANIFEST)):
        assert counts[f"{name} found"], f"FAULTS_SEED={seed}: {name} was never found: {dict(counts)}"


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", [pytest.param(0, marks=pytest.mark.core), *range(1, PARTS)])
def test_bits_bytes_sectors_pages_and_cuts_are_found_or_neutral(
    server: Server, larger: Damaged, in_memory: Path, seed: str, part: int
) -> None:
    require_random_damages_found(server, larger, f"{seed}-{part}", in_memory, RANDOM // PARTS)


@pytest.mark.long
@pytest.mark.timeout(7_200)
def test_twenty_thousand_damages_are_found_or_neutral(server: Server, larger: Damaged, in_memory: Path, seed: str) -> None:
    require_random_damages_found(server, larger, seed, in_memory, RANDOM_FOR_LONG)


@pytest.mark.long
@pytest.mark.timeout(7_200)
def test_every_byte_of_a_larger_store_is_found_or_neutral(server: Server, larger: Damaged, in_memory: Path, seed: str) -> None:
    require_none_silent(server, larger, every_byte(larger, seed), seed, in_memory)
