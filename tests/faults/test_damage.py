"""Lost and damaged tails: noticed before SQLite can hide them, kept as evidence, reported, and only ever accepted on purpose."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import eventstore
from eventstore import CompactedError, CorruptionError, EngineError, FormatError, TailLostError, database, live
from eventstore.live import Live
from eventstore.pointers import PointerFolder
from eventstore.projections.key_states import ValueCache
from tests.faults import jobs
from tests.faults.ledger import DOMAIN
from tests.faults.stores import DB, HEAD, WAL, Damaged, contents, events_of, leave
from tests.faults.workers import Server

SETTLED, LOOSE = 5, 6
FRAME = 24 + 8_192
WAL_HEADER = 32


@pytest.fixture(scope="module")
def template(clean_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    """Positions 1 to 5 in the database file, 6 to 11 in the WAL, a frame each."""
    store = leave(clean_server, tmp_path_factory.mktemp("damage") / "store", settled=SETTLED, loose=LOOSE)
    assert store.last == SETTLED + LOOSE
    assert store.wal.stat().st_size == WAL_HEADER + LOOSE * FRAME
    return store


@pytest.fixture
def left(template: Damaged, tmp_path: Path) -> Damaged:
    """A copy to damage."""
    return template.copy(tmp_path / "store")


# What happens to a tail, and how many of its events are left. SQLite drops a frame it cannot trust and all that follow.


def cut_in_the_middle_of_a_frame(left: Damaged) -> int:
    with left.wal.open("r+b") as file:
        file.truncate(WAL_HEADER + 4 * FRAME - 100)
    return 3


def cut_at_a_frame(left: Damaged) -> int:
    with left.wal.open("r+b") as file:
        file.truncate(WAL_HEADER + 5 * FRAME)
    return 5


def cut_to_nothing(left: Damaged) -> int:
    with left.wal.open("r+b") as file:
        file.truncate(0)
    return 0


def deleted(left: Damaged) -> int:
    left.wal.unlink()
    left.shm.unlink()
    return 0


def deleted_but_for_the_shm(left: Damaged) -> int:
    left.wal.unlink()
    return 0


def a_bit_flipped_in_the_first_frame(left: Damaged) -> int:
    left.flip(left.wal, WAL_HEADER + 24 + 5_000, 0x10)
    return 0


def a_bit_flipped_in_the_last_frame(left: Damaged) -> int:
    left.flip(left.wal, WAL_HEADER + 5 * FRAME + 24 + 8_191, 0x01)
    return 5


def a_bit_flipped_in_a_frames_header(left: Damaged) -> int:
    left.flip(left.wal, WAL_HEADER + 2 * FRAME + 9, 0x80)
    return 2


def a_bit_flipped_in_the_header_of_the_wal(left: Damaged) -> int:
    left.flip(left.wal, 17)
    return 0


def a_sector_of_zeros(left: Damaged) -> int:
    with left.wal.open("r+b") as file:
        file.seek(WAL_HEADER + 4 * FRAME - 512)  # rows stand at the end of a page
        file.write(bytes(512))
    return 3


def evidence_of(left: Damaged) -> dict[str, bytes]:
    """What must be kept. An empty -wal is what SQLite puts where none is: it says as little."""
    return {path.name: content for path in (left.db, left.wal, left.head) if path.exists() and (content := path.read_bytes())}


def evidence_in(folder: Path) -> dict[str, bytes]:
    """What was kept."""
    return {path.name: content for path in folder.iterdir() if (content := path.read_bytes())}


TAILS = [
    cut_in_the_middle_of_a_frame,
    cut_at_a_frame,
    cut_to_nothing,
    deleted,
    deleted_but_for_the_shm,
    a_bit_flipped_in_the_first_frame,
    a_bit_flipped_in_the_last_frame,
    a_bit_flipped_in_a_frames_header,
    a_bit_flipped_in_the_header_of_the_wal,
    a_sector_of_zeros,
]


@pytest.mark.parametrize("damage", TAILS)
def test_a_lost_tail_is_refused_with_what_is_missing_and_the_evidence_kept(left: Damaged, damage: Callable[[Damaged], int]) -> None:
    found = SETTLED + damage(left)
    before = contents(left.folder)
    with eventstore.open(left.folder) as store, pytest.raises(TailLostError) as caught:
        store.domain(DOMAIN)
    error = caught.value
    assert (error.domain, error.witnessed, error.found) == (DOMAIN, left.last, found)
    assert f"positions {found + 1} to {left.last} are missing" in str(error)
    assert f"eventstore accept STORE {DOMAIN}" in str(error)
    after = contents(left.folder)
    assert {name: after.get(name) for name in before} == before, "a refusal leaves every byte as it was"
    assert error.quarantine is not None
    assert evidence_in(Path(error.quarantine)) == evidence_of(left)
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"quarantine"}


@pytest.mark.parametrize("damage", TAILS)
def test_a_store_with_a_lost_tail_reads_what_is_there_and_verify_names_the_loss(left: Damaged, damage: Callable[[Damaged], int]) -> None:
    found = SETTLED + damage(left)
    before = contents(left.folder)
    with eventstore.open(left.folder, read_only=True) as store:
        domain = store.domain(DOMAIN)
        assert list(domain.events()) == left.events[:found]
        assert domain.read_value("key-1") == {"number": 1}
        report = store.verify()
        assert [finding.kind for finding in report.findings] == ["tail"]
        assert f"positions {found + 1} to {left.last} are missing" in report.findings[0].message
    assert contents(left.folder) == before


def accept_by_option(folder: Path) -> None:
    with eventstore.open(folder, accept_loss=True) as store:
        store.domain(DOMAIN)


def accept_by_verb(folder: Path) -> None:
    with eventstore.open(folder) as store:
        accepted = store.accept(DOMAIN)
        assert accepted is not None
        assert accepted == store.domain(DOMAIN).head()


@pytest.mark.parametrize("accept", [accept_by_option, accept_by_verb])
@pytest.mark.parametrize("damage", TAILS)
def test_an_accepted_loss_is_an_event_and_writing_goes_on(
    left: Damaged, damage: Callable[[Damaged], int], accept: Callable[[Path], None]
) -> None:
    found = SETTLED + damage(left)
    evidence = evidence_of(left)
    accept(left.folder)
    (kept,) = (left.folder / "quarantine").iterdir()
    assert evidence_in(kept) == evidence
    with eventstore.open(left.folder) as store:
        domain = store.domain(DOMAIN)
        *events, loss = domain.events()
        assert events == left.events[:found]
        assert (loss.op, loss.key, loss.position) == ("loss", "[]", found + 1)
        assert isinstance(loss.data, str)
        said = json.loads(loss.data)
        witnessed = left.events[-1]
        assert said["witnessed"] == {"position": witnessed.position, "checksum": witnessed.checksum.hex()}
        assert said["found"] == {"position": found, "checksum": left.events[found - 1].checksum.hex()}
        assert domain.write_value("key-after", 1).position == found + 2
        report = store.verify()
        assert (report.ok, report.domains[0].losses) == (True, 1)
    with eventstore.open(left.folder) as store:
        assert store.domain(DOMAIN).read_value("key-after") == 1
        assert store.accept(DOMAIN) is None
        assert store.verify().domains[0].losses == 1


def test_the_evidence_is_copied_once_for_each_state_of_the_files(left: Damaged) -> None:
    a_bit_flipped_in_a_frames_header(left)
    places = set()
    for _ in range(3):
        with eventstore.open(left.folder) as store, pytest.raises(TailLostError) as caught:
            store.domain(DOMAIN)
        places.add(caught.value.quarantine)
    assert len(places) == len(list((left.folder / "quarantine").iterdir())) == 1
    # Further damage is further evidence; what was kept before stays.
    a_sector_of_zeros(left)
    cut_to_nothing(left)
    with eventstore.open(left.folder) as store, pytest.raises(TailLostError) as caught:
        store.domain(DOMAIN)
    assert caught.value.quarantine not in places
    assert len(list((left.folder / "quarantine").iterdir())) == 2


def test_without_room_for_the_evidence_the_loss_is_still_named_and_never_accepted(left: Damaged) -> None:
    cut_at_a_frame(left)
    (left.folder / "quarantine").write_bytes(b"a file where a folder should be")
    before = contents(left.folder)
    with eventstore.open(left.folder) as store, pytest.raises(TailLostError, match="nowhere") as caught:
        store.domain(DOMAIN)
    assert "positions 11 to 11 are missing" in str(caught.value)
    with eventstore.open(left.folder, accept_loss=True) as store, pytest.raises(EngineError, match="evidence"):
        store.domain(DOMAIN)
    assert contents(left.folder) == before
    (left.folder / "quarantine").unlink()
    accept_by_option(left.folder)


def test_unacknowledged_frames_beyond_the_witness_are_no_loss(left: Damaged) -> None:
    """A torn tail after the last acknowledged event is what a power cut leaves: nobody was told that it is there."""
    with left.wal.open("ab") as file:
        file.write(left.wal.read_bytes()[-FRAME:][:5_000])
    with eventstore.open(left.folder) as store:
        domain = store.domain(DOMAIN)
        assert list(domain.events()) == left.events
        domain.write_value("key-after", 1)
        assert store.verify().ok


# A checkpoint that was cut off: the database file alone is a mixture, and whole only together with its WAL


@pytest.fixture(scope="module")
def grown(clean_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    """A store whose WAL makes its database several pages longer."""
    folder = tmp_path_factory.mktemp("grown") / "store"
    leave(clean_server, folder, settled=SETTLED, loose=0)
    writer = clean_server.start(jobs.grow_and_die, folder=str(folder), events=3)
    assert len(writer.rest()) == 3
    assert writer.wait() < 0
    return Damaged(folder, events_of(folder), SETTLED)


def latest_pages(wal: bytes) -> dict[int, bytes]:
    """What a checkpoint of this WAL would write, in its order: by page number."""
    pages = {}
    for start in range(WAL_HEADER, len(wal), FRAME):
        pages[int.from_bytes(wal[start : start + 4], "big")] = wal[start + 24 : start + FRAME]
    return dict(sorted(pages.items()))


@pytest.mark.parametrize("written", [8_192, 4_096, 512], ids=["at a page", "in half a page", "in a sector"])
def test_a_checkpoint_that_was_cut_off_anywhere_is_made_up_for(grown: Damaged, tmp_path: Path, written: int) -> None:
    pages = latest_pages(grown.wal.read_bytes())
    assert min(pages) == 1, "the first page tells how long the database is, and must be among those written"
    for count in range(1, len(pages) + 1):
        store = grown.copy(tmp_path / f"store-{count}")
        with store.db.open("r+b") as file:
            for number, page in list(pages.items())[:count]:
                file.seek((number - 1) * 8_192)
                file.write(page if number != list(pages)[count - 1] else page[:written])
        assert events_of(store.folder) == grown.events, f"after {count} of {len(pages)} pages"
        with eventstore.open(store.folder) as opened:
            domain = opened.domain(DOMAIN)
            assert list(domain.events()) == grown.events, f"after {count} of {len(pages)} pages"
            domain.write_value("key-after", 1)
            assert opened.verify().ok


# The witness itself


@pytest.mark.parametrize("offset", [0, 7, 8, 39, 40, 47])
def test_a_damaged_witness_is_refused_not_believed(left: Damaged, offset: int) -> None:
    left.flip(left.head, offset)
    before = contents(left.folder)
    with eventstore.open(left.folder) as store, pytest.raises(TailLostError, match=r"witness .* is damaged") as caught:
        store.domain(DOMAIN)
    assert (caught.value.witnessed, caught.value.found) == (None, left.last)
    after = contents(left.folder)
    assert {name: after.get(name) for name in before} == before
    assert events_of(left.folder) == left.events
    with eventstore.open(left.folder, accept_loss=True) as store:
        domain = store.domain(DOMAIN)
        *events, loss = domain.events()
        assert events == left.events
        assert isinstance(loss.data, str)
        assert json.loads(loss.data)["witnessed"] is None
        report = store.verify()
        assert (report.ok, report.domains[0].losses) == (True, 1)


@pytest.mark.parametrize("length", [1, 40, 47])
def test_a_cut_witness_is_refused(left: Damaged, length: int) -> None:
    left.head.write_bytes(left.head.read_bytes()[:length])
    with eventstore.open(left.folder) as store, pytest.raises(TailLostError, match=r"witness .* is damaged"):
        store.domain(DOMAIN)


@pytest.mark.parametrize("gone", [Path.unlink, lambda head: head.write_bytes(b"")], ids=["deleted", "empty"])
def test_without_a_witness_but_with_its_wal_nothing_is_lost(
    left: Damaged, gone: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    gone(left.head)
    with eventstore.open(left.folder) as store:
        assert list(store.domain(DOMAIN).events()) == left.events
    assert caplog.text.count("the witness (file `head`) is missing or empty") == 1
    with eventstore.open(left.folder) as store:
        assert store.verify().ok
    assert caplog.text.count("the witness (file `head`) is missing or empty") == 1


def test_wal_and_witness_deleted_together_are_missed_by_the_manifest(left: Damaged) -> None:
    """The manifest knows the head of the last checkpoint; what lies behind that was in the two files that are gone."""
    with eventstore.open(left.folder):
        pass
    with eventstore.open(left.folder) as store:
        store.domain(DOMAIN).write_value("settled", 1)
    older = left.folder.with_name("older")
    shutil.copytree(left.folder, older)
    with eventstore.open(left.folder) as store:
        store.domain(DOMAIN).write_value("settled too", 1)
    # The database file of before, and nothing that could tell but store.json.
    shutil.copy2(older / DB, left.db)
    left.head.unlink()
    with eventstore.open(left.folder) as store, pytest.raises(TailLostError, match=r"store\.json knows 13") as caught:
        store.domain(DOMAIN)
    assert (caught.value.witnessed, caught.value.found) == (13, 12)
    with eventstore.open(left.folder, read_only=True) as store:
        assert [finding.kind for finding in store.verify().findings] == ["tail"]


# Files of different times and places


def test_an_old_copy_of_the_database_restored_over_the_new_one_is_refused(left: Damaged, tmp_path: Path) -> None:
    with eventstore.open(left.folder) as store:
        store.domain(DOMAIN).write_value("old", 1)
    old = tmp_path / "old.db"
    shutil.copy2(left.db, old)
    with eventstore.open(left.folder) as store:
        store.domain(DOMAIN).write_value("new", 1)
    shutil.copy2(old, left.db)
    with eventstore.open(left.folder) as store, pytest.raises(TailLostError) as caught:
        store.domain(DOMAIN)
    assert (caught.value.witnessed, caught.value.found) == (13, 12)


def test_a_log_of_another_history_is_refused(left: Damaged, template: Damaged, tmp_path: Path) -> None:
    """As long as ours and of the same store, but not what was acknowledged: two copies of a store written apart."""
    other = template.copy(tmp_path / "other")
    for folder, value in ((left.folder, 1), (other.folder, 2)):
        with eventstore.open(folder) as store:
            store.domain(DOMAIN).write_value("apart", value)
    shutil.copy2(other.db, left.db)
    with eventstore.open(left.folder) as store, pytest.raises(TailLostError, match="position 12 is not the event that"):
        store.domain(DOMAIN)


def test_a_database_copied_without_its_wal_is_no_new_store(server: Server, tmp_path: Path) -> None:
    original = leave(server, tmp_path / "original", settled=0, loose=3)
    copy = tmp_path / "copy"
    shutil.copytree(original.folder, copy, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    with eventstore.open(copy) as store, pytest.raises(TailLostError, match="positions 1 to 3 are missing"):
        store.domain(DOMAIN)


def test_a_database_copied_alone_still_knows_whose_it_is(left: Damaged, tmp_path: Path) -> None:
    """Without witness and manifest nobody can know of a lost tail, but the birth row tells that this is no new store."""
    eventstore.open(tmp_path / "new").close()
    target = tmp_path / "new" / DB
    target.parent.mkdir(parents=True)
    shutil.copy2(left.db, target)
    with eventstore.open(tmp_path / "new") as store, pytest.raises(FormatError, match="this is the log of domain"):
        store.domain(DOMAIN)


def test_the_log_of_another_domain_is_refused(left: Damaged) -> None:
    with eventstore.open(left.folder) as store:
        store.domain(DOMAIN)
        store.domain("quotes").write_value("key", 1)
    before = left.db.read_bytes()
    shutil.copy2(left.folder / "logs" / "quotes" / DB.name, left.db)
    with eventstore.open(left.folder) as store, pytest.raises(FormatError, match="this is the log of domain 'quotes'"):
        store.domain(DOMAIN)
    left.db.write_bytes(before)
    assert events_of(left.folder) == left.events


def test_a_log_that_was_left_half_made_is_never_taken_for_one(left: Damaged) -> None:
    """Whatever stands in it, and however old it is: the log is found by its whole name."""
    folder = left.db.parent
    for name in (f".tmp-{DB.name}.new", f".tmp-{DB.name}", f"{DB.name}.new", f"{1:020d}.db.tmp", "9.db", f".tmp-1-00000000-{99:020d}.db"):
        shutil.copy2(left.db, folder / name)
    shutil.copytree(folder, left.folder / ".tmp-adopt-x" / "logs" / DOMAIN)
    (left.folder / "logs" / "quotes").mkdir()
    shutil.copy2(left.db, left.folder / "logs" / "quotes" / f".tmp-{DB.name}.new")
    with eventstore.open(left.folder) as store:
        assert store.domains() == [DOMAIN]
        assert list(store.domain(DOMAIN).events()) == left.events
        assert store.domain("quotes").write_value("key", 1).position == 1
        assert store.verify().ok
        assert store.domains() == [DOMAIN, "quotes"]


def test_a_whole_folder_of_a_log_put_back_from_an_old_backup_is_refused(left: Damaged, tmp_path: Path) -> None:
    """Database, WAL and witness agree with each other; store.json was not put back with them."""
    backup = tmp_path / "backup"
    with eventstore.open(left.folder) as store:
        store.domain(DOMAIN).write_value("old", 1)
    shutil.copytree(left.db.parent, backup)
    with eventstore.open(left.folder) as store:
        store.domain(DOMAIN).write_value("new", 1)
    shutil.rmtree(left.db.parent)
    shutil.copytree(backup, left.db.parent)
    with eventstore.open(left.folder) as store, pytest.raises(TailLostError, match=r"store\.json knows 13") as caught:
        store.domain(DOMAIN)
    assert (caught.value.witnessed, caught.value.found) == (13, 12)


def test_a_log_file_that_is_gone_is_missed(left: Damaged) -> None:
    with eventstore.open(left.folder) as store:
        store.domain(DOMAIN)
    left.db.unlink()
    before = contents(left.folder)
    with eventstore.open(left.folder) as store:
        assert store.domains() == [DOMAIN]
        with pytest.raises(FormatError, match="files are gone"):
            store.domain(DOMAIN)
        assert [finding.kind for finding in store.verify().findings] == ["format"]
    assert contents(left.folder) == before


# The -shm holds nothing that is not in the WAL


@pytest.mark.parametrize("damage", [Path.unlink, lambda shm: shm.write_bytes(b"\xa5" * 32_768), lambda shm: shm.write_bytes(b"\x00" * 7)])
def test_the_shm_can_be_lost_without_loss(left: Damaged, damage: Callable[[Path], object]) -> None:
    damage(left.shm)
    with eventstore.open(left.folder) as store:
        domain = store.domain(DOMAIN)
        assert list(domain.events()) == left.events
        assert domain.write_value("key-after", 1).position == left.last + 1
        assert store.verify().ok


# ---- a row that says it stands far beyond the head: SQLite's search for what comes before the head ends there, as if it were the end


def number_of_row(content: bytes, position: int) -> int:
    """Where the number of a row stands, which is its position, in the page of a table that begins `content` (fileformat2, section 1.6)."""
    for index in range(int.from_bytes(content[3:5], "big")):
        cell = int.from_bytes(content[8 + 2 * index :][:2], "big")
        while content[cell] & 0x80:  # the length of the row
            cell += 1
        if content[cell + 1] == position:
            return cell + 1
    raise AssertionError(f"no row {position} in this page")


def hide_what_follows(log_file: Path, position: int) -> None:
    """Have one bit make a number of two bytes of the row's."""
    content = bytearray(log_file.read_bytes())
    pages = [at for at in range(database.PAGE_BYTES, len(content), database.PAGE_BYTES) if content[at] == 13]
    at = next(at for at in pages if any(content[at + 3 : at + 5]))
    content[at + number_of_row(bytes(content[at : at + database.PAGE_BYTES]), position)] ^= 0x80
    log_file.write_bytes(content)


@pytest.fixture(params=[2, 4, 5, 7, 9, 12, 14, 17])
def ending_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A closed store of 19 events, id and key by number, one of which may hide those behind it; pointer files stand as of the last."""
    monkeypatch.setattr(live, "_TAIL", 1)
    with eventstore.open(tmp_path / "store") as store:
        domain = store.domain(DOMAIN)
        for number in range(1, 20):
            domain.write_value(f"key-{number}", number, event_id=f"id-{number}")
    hide_what_follows(tmp_path / "store" / DB, request.param)
    return tmp_path / "store"


def test_a_part_of_the_events_is_never_given_for_all_of_them(ending_early: Path) -> None:
    with pytest.raises(CorruptionError), eventstore.open(ending_early) as store:
        assert list(store.domain(DOMAIN).events()) == []


def test_who_only_reads_is_told_where_the_events_end_too_early(ending_early: Path, caplog: pytest.LogCaptureFixture) -> None:
    with eventstore.open(ending_early, read_only=True) as store:
        assert not store.verify().ok
        try:
            found = list(store.domain(DOMAIN).events())
        except CorruptionError:
            return
    assert len(found) < 19
    assert "nothing beyond it can be read" in caplog.text


def test_a_retry_of_a_call_whose_event_is_hidden_is_never_written(ending_early: Path) -> None:
    for file in (ending_early / DB).parent.glob("pointers/*.ids"):
        file.unlink()
    with pytest.raises(CorruptionError), eventstore.open(ending_early) as store:
        store.domain(DOMAIN).write_value("key-18", 18, event_id="id-18")


@pytest.mark.parametrize("carried", [True, False], ids=["and the next file has a copy of", "and nobody finds"])
def test_a_retry_is_not_written_whose_event_the_pointer_files_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, carried: bool) -> None:
    monkeypatch.setattr(live, "_TAIL", 1)
    with eventstore.open(tmp_path / "store") as store:
        domain = store.domain(DOMAIN)
        receipts = [domain.write_value(f"key-{number}", number, event_id=f"id-{number}") for number in range(1, 5)]
        if not carried:
            domain.write_value("key-2", "another")
        store.seal(DOMAIN)
    hide_what_follows(tmp_path / "store" / DB, 2)
    with eventstore.open(tmp_path / "store") as store:
        head = store.domain(DOMAIN).head()
        with contextlib.nullcontext() if carried else pytest.raises(CompactedError, match="belongs to a call that was made here"):
            assert store.domain(DOMAIN).write_value("key-2", 2, event_id="id-2") == receipts[1]
        assert store.domain(DOMAIN).head() == head
        assert store.domain(DOMAIN).write_value("key-2", "goes on", event_id="new").appended


@pytest.mark.corrupts
def test_a_retry_is_not_written_whose_event_has_another_id_by_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_TAIL", 1)
    with eventstore.open(tmp_path / "store") as store:
        store.domain(DOMAIN).write_values([("a", 1), ("b", 2)])
        store.domain(DOMAIN).write_value("c", 3, event_id="id-of-c")
        store.domain(DOMAIN).write_value("c", 4)
        store.seal(DOMAIN)
    path = tmp_path / "store" / DB
    content = path.read_bytes()
    assert content.count(b"id-of-c") == 1
    path.write_bytes(content.replace(b"id-of-c", b"id-of-d"))
    with eventstore.open(tmp_path / "store") as store, pytest.raises(CompactedError, match="belongs to a call that was made here"):
        store.domain(DOMAIN).write_value("c", 3, event_id="id-of-c")


@pytest.mark.corrupts
@pytest.mark.parametrize(
    "damaged", [b"value-of-c", b'"request":"', b""], ids=["in its value", "in what tells its request from another", "in its checksum"]
)
def test_a_retry_whose_event_is_damaged_is_not_told_to_take_another_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bytes
) -> None:
    monkeypatch.setattr(live, "_TAIL", 1)
    with eventstore.open(tmp_path / "store") as store:
        domain = store.domain(DOMAIN)
        domain.write_values([("a", 1), ("b", 2)])
        first = domain.write_value("c", "value-of-c", event_id="id-of-c")
        domain.write_values([("c", 4), ("d", 5)])
    path = tmp_path / "store" / DB
    content = bytearray(path.read_bytes())
    needle = damaged or first.checksum
    assert content.count(needle) == 1
    content[content.index(needle) + len(needle) - (damaged != b'"request":"')] ^= 0x01
    path.write_bytes(content)
    with eventstore.open(tmp_path / "store") as store:
        with pytest.raises(CorruptionError):
            store.domain(DOMAIN).write_value("c", "value-of-c", event_id="id-of-c")
        assert len(list(store.domain(DOMAIN).keys())) == 4


@pytest.mark.corrupts
def test_no_bit_in_a_time_leads_to_another_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_TAIL", 1)  # pointer files, so that an opening need not read the rows
    with eventstore.open(tmp_path / "store") as store:
        domain = store.domain(DOMAIN)
        for number in range(1, 17):
            domain.write_value("key", number)
        times = {event.position: event.recorded_us for event in domain.events()}
    path = tmp_path / "store" / DB
    whole, refused = path.read_bytes(), 0
    for altered in range(1, 16):
        raw = times[altered].to_bytes(8, "big")
        assert whole.count(raw) == 1
        for mask in (0x20, 0x01):
            content = bytearray(whole)
            content[whole.index(raw) + (1 if mask == 0x20 else 6)] ^= mask
            path.write_bytes(content)
            with eventstore.open(tmp_path / "store", read_only=True) as store:
                for asked, recorded_us in times.items():
                    try:
                        past = store.domain(DOMAIN).state(datetime.fromtimestamp(0, UTC) + timedelta(microseconds=recorded_us))
                        assert past.head().position == asked, (altered, mask)
                    except CorruptionError:
                        refused += 1
    assert refused


@pytest.mark.corrupts
@pytest.mark.parametrize("key", [None, "key"])
@pytest.mark.parametrize("reverse", [True, False])
def test_who_only_reads_is_warned_of_each_event_that_was_altered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, key: str | None, reverse: bool
) -> None:
    monkeypatch.setattr(live, "_TAIL", 1)
    with eventstore.open(tmp_path / "store") as store:
        for number in range(1, 40):
            store.domain(DOMAIN).write_value("key", f"amount-{number:04d}")
    path = tmp_path / "store" / DB
    path.write_bytes(path.read_bytes().replace(b"amount-0020", b"amount-9999"))
    with eventstore.open(tmp_path / "store", read_only=True) as store:
        shown = [event.data for event in store.domain(DOMAIN).events(key=key, reverse=reverse)]
    assert len(shown) == 39
    assert '"amount-9999"' in shown
    assert caplog.text.count(f"{DOMAIN}@") == caplog.text.count("it is shown as it is stored") == 1
    assert f"{DOMAIN}@20" in caplog.text


@pytest.fixture
def null_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Path]:
    """A store of 19 events, of which the row at one position is its header, and every column of it NULL."""
    monkeypatch.setattr(live, "_TAIL", 1)
    with eventstore.open(tmp_path / "store") as store:
        for number in range(1, 20):
            store.domain(DOMAIN).write_value("key", number)

    def damage(position: int) -> Path:
        path = tmp_path / "store" / DB
        content = bytearray(path.read_bytes())
        pages = [at for at in range(database.PAGE_BYTES, len(content), database.PAGE_BYTES) if content[at] == 13]
        at = next(at for at in pages if any(content[at + 3 : at + 5]))
        header = at + number_of_row(bytes(content[at : at + database.PAGE_BYTES]), position) + 1
        content[header - 2] = content[header]
        content[header + 1 : header + content[header]] = bytes(content[header] - 1)
        path.write_bytes(content)
        return tmp_path / "store"

    return damage


@pytest.mark.corrupts
def test_what_a_damaged_page_gives_is_not_shown_for_an_event(null_row: Callable[[int], Path], caplog: pytest.LogCaptureFixture) -> None:
    with eventstore.open(null_row(10), read_only=True) as store:
        shown = [event.position for event in store.domain(DOMAIN).events()]
    assert shown == [position for position in range(1, 20) if position != 10]
    assert "it is passed over" in caplog.text


@pytest.mark.corrupts
def test_a_last_row_that_is_no_event_is_told_as_that_and_no_loss_to_accept(null_row: Callable[[int], Path]) -> None:
    folder = null_row(19)
    openings: list[dict[str, Any]] = [{}, {"accept_loss": True}, {"read_only": True}]
    for opening in openings:
        with pytest.raises(FormatError, match="salvage"), eventstore.open(folder, **opening) as store:
            store.domain(DOMAIN)
    with eventstore.open(folder) as store, pytest.raises(FormatError, match="salvage"):
        store.accept(DOMAIN)
    with eventstore.open(folder, read_only=True) as store:
        assert "salvage" in str(store.verify().findings)


def test_a_history_is_never_given_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_TAIL", 1)  # pointer files, so that an opening need not read the rows
    with eventstore.open(tmp_path / "store") as store:
        for number in range(1, 20):
            store.domain(DOMAIN).write_value(f"key-{number % 6}", number)
    opened = 0
    for number in range(2, 19):
        copy = Path(shutil.copytree(tmp_path / "store", tmp_path / f"copy-{number}"))
        hide_what_follows(copy / DB, number)
        for reverse in (True, False):
            with contextlib.suppress(CorruptionError), eventstore.open(copy) as damaged:
                domain = damaged.domain(DOMAIN)
                opened += 1
                for key in range(6):
                    assert len(list(domain.events(key=f"key-{key}", reverse=reverse))) == (4 if key == 1 else 3)
    assert opened, "none of them was asked for a history"


def test_keys_whose_events_are_hidden_are_not_sealed_away(ending_early: Path) -> None:
    with pytest.raises(CorruptionError), eventstore.open(ending_early) as store:
        store.seal(DOMAIN)
    assert [path.name for path in (ending_early / DB).parent.glob("*.db")] == [DB.name]


@pytest.fixture
def losing_a_row(tmp_path: Path) -> Callable[[int], Path]:
    """A store of two sealed files and a live one, which all have the row at position 1; the one at that place does not find it."""
    with eventstore.open(tmp_path / "store") as store:
        domain = store.domain(DOMAIN)
        for number in range(1, 4):
            domain.write_value(f"key-{number}", f"value-{number}")
            store.seal(DOMAIN)

    def lose(place: int) -> Path:
        path = sorted((tmp_path / "store" / DB).parent.glob("*.db"))[place]
        hide_what_follows(path, 1)
        return path

    return lose


@pytest.mark.corrupts
@pytest.mark.parametrize("place", [0, 1], ids=["its own file", "carried"])
def test_no_value_is_called_erased_whose_row_is_not_found(tmp_path: Path, losing_a_row: Callable[[int], Path], place: int) -> None:
    path = losing_a_row(place)
    with eventstore.open(tmp_path / "store") as store:
        report = store.domain(DOMAIN).redact("key-1", reason="asked")
    assert b"value-1" in path.read_bytes()
    assert (report.erased, report.complete, [held.path for held in report.held]) == ([1], False, [str(path)])


@pytest.mark.corrupts
def test_a_row_that_is_not_found_keeps_no_later_value_from_being_erased(tmp_path: Path, losing_a_row: Callable[[int], Path]) -> None:
    with eventstore.open(tmp_path / "store") as store:
        later = store.domain(DOMAIN).write_value("key-1", "later").position
    path = losing_a_row(0)
    with eventstore.open(tmp_path / "store") as store:
        report = store.domain(DOMAIN).redact("key-1", reason="asked")
        assert ([1, later], [str(path)]) == (report.erased, [held.path for held in report.held]), "of 1 a later file has a copy"
        store.seal(DOMAIN)
        store.domain(DOMAIN).write_value("key-1", "last")


@pytest.mark.corrupts
def test_an_event_whose_row_is_not_found_is_not_said_to_have_never_been(tmp_path: Path, losing_a_row: Callable[[int], Path]) -> None:
    with eventstore.open(tmp_path / "store") as store:
        store.domain(DOMAIN).write_value("key-1", "later")
        store.seal(DOMAIN)
    losing_a_row(0)
    with eventstore.open(tmp_path / "store", read_only=True) as store, pytest.raises(CorruptionError):
        store.domain(DOMAIN).event(1)


def test_names_of_the_files_are_those_of_the_format() -> None:
    assert [str(path) for path in (DB, WAL, HEAD)] == [
        "logs/orders/00000000000000000000.db",
        "logs/orders/00000000000000000000.db-wal",
        "logs/orders/head",
    ]


@pytest.mark.corrupts
def test_a_key_that_damage_made_a_blob_is_refused_and_passed_over_by_who_only_reads() -> None:
    """As one byte of a row's header does it; no SQL gets a blob into that column."""
    with eventstore.open("memory:") as store:
        domain = store.domain(DOMAIN)
        domain.write_values([("a", 1), ("b", 2), ("c", 3)])
        log: Any = domain._live.log
        log._events[2] = msgspec.structs.replace(log._events[2], key=b'["b"]')
        pointers = PointerFolder(None, log, writable=False)
        with pytest.raises(FormatError):
            Live(log, pointers, ValueCache(1_000))
        live = Live(log, pointers, ValueCache(1_000), lenient=True)
        assert list(live.states.snapshot()) == ['["a"]', '["c"]']
        assert live.states.position == 3
