"""Salvage after random damage: what is intact by its own bytes is kept, what is kept is what was written, nothing else is touched.

Which events a damage left whole is told by tests/faults/layout.py, which follows the pages' own pointers in the files as
they were before, and knows nothing of the carver.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import eventstore
from eventstore import Event
from eventstore.salvage import DomainSalvage, Positions, salvage
from eventstore.witness import unpack_witness
from tests.faults import jobs
from tests.faults.layout import FRAME_HEADER, PAGE, WAL_HEADER, Copy, layout
from tests.faults.ledger import DOMAIN
from tests.faults.stores import Damaged, contents, events_of
from tests.faults.workers import Server

TRIALS = 3
SETTLED, LOOSE = 120, 95
SECTOR = 512

pytestmark = pytest.mark.faults


class Whole:
    """An undamaged store, and where its events stand."""

    def __init__(self, store: Damaged) -> None:
        self.store = store
        with eventstore.open(store.folder, read_only=True) as opened:
            self.events = [opened.domain(DOMAIN).event(0), *store.events]
        self.files = read(store)
        self.copies: dict[int, list[Copy]] = layout(self.files, self.events)


def read(store: Damaged) -> tuple[bytes, bytes]:
    """The bytes of database and WAL, b"" for a file that is gone."""
    database, wal = (path.read_bytes() if path.exists() else b"" for path in (store.db, store.wal))
    return database, wal


@pytest.fixture(scope="module")
def in_both(clean_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Some events in the database alone, some in the WAL, some in both; frames of more than one generation."""
    return make(clean_server, tmp_path_factory.mktemp("salvage") / "store", SETTLED, LOOSE)


@pytest.fixture(scope="module")
def in_wal(clean_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Everything in the WAL, the database holds the birth row."""
    return make(clean_server, tmp_path_factory.mktemp("salvage") / "store", 0, 30)


@pytest.fixture(scope="module")
def in_database(clean_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Everything in the database, no WAL."""
    folder = tmp_path_factory.mktemp("salvage") / "store"
    make(clean_server, folder, SETTLED, LOOSE)
    with eventstore.open(folder) as store:
        store.domain(DOMAIN)
    return Whole(Damaged(folder, events_of(folder), 0))


def make(server: Server, folder: Path, settled: int, loose: int) -> Whole:
    """A store whose writer was killed."""
    worker = server.start(jobs.write_sizes_and_die, folder=str(folder), seed="salvage", settled=settled, loose=loose)
    said = worker.rest()
    assert worker.wait() < 0, said
    return Whole(Damaged(folder, events_of(folder), settled))


# Damage: each takes the chance it follows from and the store, and says what it did.

Damage = Callable[[random.Random, Damaged], str]


def overwrite(path: Path, begin: int, content: bytes) -> None:
    """Put `content` there; the file keeps its length."""
    before = path.read_bytes()
    path.write_bytes((before[:begin] + content + before[begin + len(content) :])[: len(before)])


def a_page(chance: random.Random, store: Damaged) -> str:
    page = chance.randrange(store.db.stat().st_size // PAGE)
    overwrite(store.db, page * PAGE, chance.choice([bytes(PAGE), chance.randbytes(PAGE)]))
    return f"page {page + 1}"


def a_tenth_of_the_pages(chance: random.Random, store: Damaged) -> str:
    return ", ".join(a_page(chance, store) for _ in range(store.db.stat().st_size // PAGE // 10 + 1))


def a_sector(chance: random.Random, store: Damaged) -> str:
    begin = chance.randrange(store.db.stat().st_size // SECTOR) * SECTOR
    overwrite(store.db, begin, chance.choice([bytes(SECTOR), chance.randbytes(SECTOR)]))
    return f"sector at {begin}"


def bits(chance: random.Random, store: Damaged) -> str:
    places = [(chance.randrange(store.db.stat().st_size), 1 << chance.randrange(8)) for _ in range(20)]
    for offset, mask in places:
        store.flip(store.db, offset, mask)
    return f"bits {places}"


def the_header(chance: random.Random, store: Damaged) -> str:
    length = chance.choice([16, 100, 108, PAGE])
    overwrite(store.db, 0, chance.choice([bytes(length), chance.randbytes(length)]))
    return f"the first {length} bytes"


def cut_off(chance: random.Random, store: Damaged) -> str:
    length = chance.randrange(store.db.stat().st_size)
    store.db.write_bytes(store.db.read_bytes()[:length])
    return f"cut to {length}"


def sectors_of_the_wal(chance: random.Random, store: Damaged) -> str:
    places = [chance.randrange(store.wal.stat().st_size // SECTOR) * SECTOR for _ in range(5)]
    for begin in places:
        overwrite(store.wal, begin, chance.choice([bytes(SECTOR), chance.randbytes(SECTOR)]))
    return f"sectors of the WAL at {places}"


def bits_of_the_wal(chance: random.Random, store: Damaged) -> str:
    places = [(chance.randrange(store.wal.stat().st_size), 1 << chance.randrange(8)) for _ in range(20)]
    for offset, mask in places:
        store.flip(store.wal, offset, mask)
    return f"bits of the WAL {places}"


def the_header_of_the_wal(chance: random.Random, store: Damaged) -> str:
    overwrite(store.wal, 0, chance.choice([bytes(WAL_HEADER), chance.randbytes(WAL_HEADER)]))
    return "the header of the WAL"


def headers_of_frames(chance: random.Random, store: Damaged) -> str:
    frames = [chance.randrange((store.wal.stat().st_size - WAL_HEADER) // (FRAME_HEADER + PAGE)) for _ in range(8)]
    for frame in frames:
        overwrite(store.wal, WAL_HEADER + frame * (FRAME_HEADER + PAGE), chance.randbytes(FRAME_HEADER))
    return f"headers of frames {frames}"


def both_headers(chance: random.Random, store: Damaged) -> str:
    return f"{the_header(chance, store)}, {the_header_of_the_wal(chance, store)}"


def the_database_is_gone(chance: random.Random, store: Damaged) -> str:
    store.db.unlink()
    return "no database"


def the_wal_is_cut_off(chance: random.Random, store: Damaged) -> str:
    length = chance.randrange(store.wal.stat().st_size)
    store.wal.write_bytes(store.wal.read_bytes()[:length])
    return f"the WAL cut to {length}"


def no_database_and_no_header(chance: random.Random, store: Damaged) -> str:
    return f"{the_database_is_gone(chance, store)}, {the_header_of_the_wal(chance, store)}"


def witness_and_manifest_are_gone(chance: random.Random, store: Damaged) -> str:
    store.head.unlink()
    store.manifest.unlink()
    return f"no witness, no manifest, {a_tenth_of_the_pages(chance, store)}"


def a_bit_of_everything(chance: random.Random, store: Damaged) -> str:
    chosen = chance.sample([a_page, a_sector, bits, the_header, sectors_of_the_wal, bits_of_the_wal, headers_of_frames], 4)
    return ", ".join(damage(chance, store) for damage in chosen)


OF_THE_DATABASE: list[Damage] = [a_page, a_tenth_of_the_pages, a_sector, bits, the_header, cut_off, witness_and_manifest_are_gone]
OF_THE_WAL: list[Damage] = [
    sectors_of_the_wal,
    bits_of_the_wal,
    the_header_of_the_wal,
    headers_of_frames,
    the_database_is_gone,
    the_wal_is_cut_off,
    no_database_and_no_header,
]
OF_BOTH: list[Damage] = [*OF_THE_DATABASE, *OF_THE_WAL, both_headers, a_bit_of_everything]


@pytest.mark.parametrize("damage", OF_THE_DATABASE)
def test_what_is_intact_in_a_damaged_database_is_kept(in_database: Whole, tmp_path: Path, seed: str, damage: Damage) -> None:
    try_it(in_database, tmp_path, seed, damage)


@pytest.mark.parametrize("damage", OF_THE_WAL)
def test_what_is_intact_in_a_damaged_wal_is_kept(in_wal: Whole, tmp_path: Path, seed: str, damage: Damage) -> None:
    try_it(in_wal, tmp_path, seed, damage)


@pytest.mark.parametrize("damage", OF_BOTH)
def test_what_is_intact_in_either_of_both_is_kept(in_both: Whole, tmp_path: Path, seed: str, damage: Damage) -> None:
    try_it(in_both, tmp_path, seed, damage)


@pytest.mark.parametrize("damage", [the_header, the_header_of_the_wal, both_headers])
def test_a_destroyed_header_costs_nothing(in_both: Whole, tmp_path: Path, seed: str, damage: Damage) -> None:
    chance = random.Random(f"{seed} {damage.__name__} costs nothing")
    store = in_both.store.copy(tmp_path / "store")
    did = damage(chance, store)
    report = salvage(store.folder, tmp_path / "out")
    birth = in_both.copies[0][0].cell
    whole = birth.is_whole(in_both.files, read(store)) or len(in_both.copies[0]) > 1
    assert report.domains[0].kept == Positions(store.last, report.domains[0].kept.spans), f"FAULTS_SEED={seed}: {did}"
    assert report.is_whole or not whole, f"FAULTS_SEED={seed}: {did}"


def try_it(whole: Whole, folder: Path, seed: str, damage: Damage) -> None:
    """Damage copies of a store, each in its own way, and hold what salvage says and makes against what was left."""
    for trial in range(TRIALS):
        chance = random.Random(f"{seed} {damage.__name__} {trial}")
        store = whole.store.copy(folder / f"{trial}")
        did = damage(chance, store)
        told = f"FAULTS_SEED={seed}, trial {trial}: {did}"
        before = contents(store.folder)
        report = salvage(store.folder, folder / f"out-{trial}")
        assert contents(store.folder) == before, f"{told}: the originals were touched"
        (domain,) = report.domains
        left = require_accounted(whole, store, domain, told)
        if report.out is None:
            assert not left, f"{told}: {left} are intact, but nothing was written"
            continue
        require_true(whole, folder / f"out-{trial}", domain, same=report.same, told=told)
        assert report.same == (len(left) == len(whole.events)), told


def positions(found: Positions) -> set[int]:
    """The positions one by one."""
    said = {position for span in found.spans for position in range(span.first, span.last + 1)}
    assert len(said) == found.count
    return said


def require_accounted(whole: Whole, store: Damaged, domain: DomainSalvage, told: str) -> list[int]:
    """Every position is kept, unproven or lost, and rightly so; gives those that the damage left whole."""
    after = read(store)
    kept, unproven, lost = positions(domain.kept), positions(domain.unproven), positions(domain.lost)
    intact = [p for p, copies in whole.copies.items() if any(copy.is_whole(whole.files, after) for copy in copies)]
    witnessed = unpack_witness(store.head.read_bytes()[:48]) if store.head.exists() else None
    known = {witnessed.position} if witnessed else set()
    # A checksum stands in the cell itself, whatever became of the overflow pages.
    known |= {p for p, copies in whole.copies.items() if any(copy.cell.is_whole(whole.files, after) for copy in copies)}
    for position in intact:
        if position == 0:
            assert domain.birth == "kept", f"{told}: the birth row is intact"
        elif position - 1 in known:
            assert position in kept, f"{told}: {position} is intact, and so is the checksum before it"
        else:
            assert position in kept | unproven, f"{told}: {position} is intact"
    assert kept <= set(intact), f"{told}: {sorted(kept - set(intact))} are kept, but no copy is whole"
    assert not kept & unproven, told
    assert not (kept | unproven) & lost, told
    assert kept | {p for p in unproven if p <= domain.last} | lost == set(range(1, domain.last + 1)), told
    if witnessed is not None:
        assert domain.last == whole.store.last, told
    return intact


def require_true(whole: Whole, out: Path, domain: DomainSalvage, *, same: bool, told: str) -> None:
    """The new store is sound, and holds the kept events and no other, each as it was, byte for byte."""
    kept = positions(domain.kept)
    with eventstore.open(out) as store:
        report = store.verify()
        assert report.ok, f"{told}: {report.findings}"
        found = list(store.domain(DOMAIN).events())
        if same:
            assert found == whole.events[1:], told
            assert store.store_id == domain.store_id, told
            return
        assert store.store_id != domain.store_id, told
    *carried, last = found
    assert last.op == "loss", told
    places = [msgspec.json.decode(event.meta or "{}")["origin"] for event in carried]
    assert [place["position"] for place in places] == sorted(kept), told
    for event, place in zip(carried, places, strict=True):
        was = whole.events[place["position"]]
        assert said(event) == said(was), f"{told}: {place['position']}"
        assert (place["checksum"], place["recorded_us"], place["domain"]) == (was.checksum.hex(), was.recorded_us, DOMAIN), told


def said(event: Event) -> tuple[object, ...]:
    """What of an event stays when it moves to another log."""
    meta = {name: value for name, value in msgspec.json.decode(event.meta or "{}").items() if name in {"actor", "reason"}}
    return event.key, event.op, event.when_us, event.data, event.salt, event.digest, meta


def test_the_stores_to_damage_are_what_they_should_be(in_database: Whole, in_wal: Whole, in_both: Whole) -> None:
    """Else these tests would prove less than they say."""
    lengths = {len(copy.overflow) for copies in in_both.copies.values() for copy in copies}
    assert lengths >= {0, 1, 2}
    assert max(lengths) > 2
    files = {
        name: [{copy.cell.file for copy in copies} for copies in whole.copies.values()]
        for name, whole in (("database", in_database), ("wal", in_wal), ("both", in_both))
    }
    assert {0} in files["both"]
    assert {1} in files["both"]
    assert {0, 1} in files["both"]
    assert all(place == {0} for place in files["database"])
    assert all(1 in place for place in files["wal"][1:])
    wal = in_both.files[1]
    salts = {wal[at + 8 : at + 16] for at in range(WAL_HEADER, len(wal), FRAME_HEADER + PAGE)}
    assert len(salts) > 1, "frames of more than one generation"
