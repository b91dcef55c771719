"""Salvage: what is kept, unproven, aside and lost; what stays erased; what the new store says; who may be in the way."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import resource
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventstore
from eventstore import (
    ConfigError,
    DiskFullError,
    Domain,
    Event,
    FormatError,
    NewerFormatError,
    NotAStoreError,
    NotFoundError,
    Store,
    UnavailableError,
)
from eventstore.carver import Image, page_sizes
from eventstore.codec import SALT_BYTES, encode_key, erased, seal, seal_system
from eventstore.database import sqlite3
from eventstore.model import SYSTEM_KEY
from eventstore.salvage import Positions, SalvageReport, Span, salvage
from eventstore.sqlite import SqliteLog
from eventstore.tools.doctor import doctor
from tests.faults.limits import limit

DOMAIN = "orders"
LOG = Path("logs", DOMAIN)
DB = LOG / f"{0:020d}.db"
WAL = LOG / f"{0:020d}.db-wal"
PAGE = 8_192
ALL = 12


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A closed store; each event on a page of its own, so that one can be destroyed alone."""
    with eventstore.open(tmp_path / "data") as store:
        write(store, ALL)
    return tmp_path / "data"


def write(store: Store, until: int, name: str = DOMAIN) -> None:
    """Events up to position `until`, every fourth a removal."""
    domain = store.domain(name)
    while (position := domain.head().position + 1) <= until:
        if position % 4 == 0:
            domain.remove_value(f"key-{position - 1}", reason="done")
        else:
            domain.write_value(
                f"key-{position}", {"n": position, "pad": "x" * 5_000}, when=position, event_id=f"id-{position}", actor="bot"
            )


def events_of(folder: Path, name: str = DOMAIN) -> list[Event]:
    """Everything a store holds of a domain, the birth row first, so that an event stands at its position."""
    with eventstore.open(folder, read_only=True) as store:
        domain = store.domain(name)
        return [domain.event(0), *domain.events()]


def copy_living(tmp_path: Path) -> Path:
    """What a killed writer leaves: copied by another process, as this one holds SQLite's locks on the files."""
    folder = tmp_path / "left"
    assert subprocess.run(["cp", "-r", str(tmp_path / "data"), str(folder)], check=False).returncode == 0
    return folder


def destroy(folder: Path, *found: bytes, file: Path = DB) -> None:
    """Overwrite every occurrence of these bytes."""
    path = folder / file
    content = path.read_bytes()
    for each in found:
        assert each in content
        content = content.replace(each, bytes(len(each)))
    path.write_bytes(content)


def lose(folder: Path, event: Event, file: Path = DB) -> None:
    """Destroy an event whole: the checksum stored in it is gone with it."""
    destroy(folder, event.checksum, file=file)


def text(event: Event) -> bytes:
    """The bytes of a text value."""
    assert isinstance(event.data, str)
    return event.data.encode()


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mtime_ns}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def positions(*runs: int | tuple[int, int]) -> Positions:
    spans = [Span(*run) if isinstance(run, tuple) else Span(run, run) for run in runs]
    return Positions(sum(span.last - span.first + 1 for span in spans), spans)


def origins(folder: Path, name: str = DOMAIN) -> list[dict[str, Any]]:
    """Where the events of a salvaged domain say that they came from; {} for what the new log says of itself."""
    return [msgspec.json.decode(event.meta or "{}").get("origin", {}) for event in events_of(folder, name)[1:]]


def require_whole(folder: Path) -> None:
    with eventstore.open(folder, read_only=True) as store:
        report = store.verify()
        assert report.ok, report.findings


def salvaged(folder: Path, out: Path, **options: Any) -> SalvageReport:
    """Salvage, see that the originals are as they were, and that the new store is sound."""
    before = contents(folder)
    report = salvage(folder, out, **options)
    assert contents(folder) == before
    assert list(out.parent.glob(".tmp-*")) == []
    if report.out is not None:
        require_whole(out)
    return report


# ---- whole


def test_a_whole_store_is_the_same_again(data: Path, tmp_path: Path) -> None:
    report = salvaged(data, tmp_path / "out")
    assert (report.is_whole, report.same) == (True, True)
    (domain,) = report.domains
    assert (domain.kept, domain.lost, domain.unproven, domain.aside) == (positions((1, ALL)), *[positions()] * 3)
    assert (domain.birth, domain.last, domain.written, domain.problems, report.problems) == ("kept", ALL, ALL, [], [])
    assert events_of(tmp_path / "out") == events_of(data)
    with eventstore.open(data) as old, eventstore.open(tmp_path / "out") as new:
        assert new.store_id == old.store_id == report.store_id
        receipt = new.domain(DOMAIN).write_value("key-1", {"n": 1, "pad": "x" * 5_000}, when=1, event_id="id-1", actor="bot")
        assert receipt.position == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / DB).unlink(),
        lambda folder: (folder / "store.json").unlink(),
        lambda folder: (folder / LOG / "head").unlink(),
        lambda folder: [(folder / name).unlink() for name in (DB, "store.json", LOG / "head")],
        lambda folder: (folder / "store.json").write_bytes(b"\x00" * 99),
    ],
    ids=["no database", "no manifest", "no witness", "none of the three", "a torn manifest"],
)
def test_what_stands_in_the_wal_is_enough(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    living = tmp_path / "living"
    with eventstore.open(living) as store:
        write(store, ALL)
        copied = subprocess.run(["cp", "-r", str(living), str(tmp_path / "data")], check=False)
        assert copied.returncode == 0
    damage(tmp_path / "data")
    report = salvaged(tmp_path / "data", tmp_path / "out")
    assert (report.is_whole, report.same) == (True, True)
    assert (tmp_path / "data" / LOG / "head").exists() or "there is no witness" in report.domains[0].problems[0]
    assert events_of(tmp_path / "out") == events_of(living)


def test_a_database_of_another_page_size_is_read(data: Path, tmp_path: Path) -> None:
    connection: sqlite3.Connection = sqlite3.connect(data / DB, isolation_level=None)
    for statement in ("PRAGMA journal_mode=DELETE", "PRAGMA page_size=1024", "VACUUM", "PRAGMA journal_mode=WAL"):
        connection.execute(statement).fetchall()
    connection.close()
    assert page_sizes((data / DB).read_bytes(), b"") == [PAGE, 1_024]
    report = salvaged(data, tmp_path / "out")
    assert (report.is_whole, report.same) == (True, True)
    assert events_of(tmp_path / "out") == events_of(data)


LARGE = "".join(f"{number:08}" for number in range(5_000))
"""A value on overflow pages, each of which holds something else."""


def test_a_row_in_the_wal_may_have_its_overflow_pages_in_the_database(tmp_path: Path) -> None:
    living = tmp_path / "data"
    with eventstore.open(living) as store:
        store.domain(DOMAIN).write_value("large", LARGE)
    with eventstore.open(living) as store:
        store.domain(DOMAIN).write_value("small", 1)  # on the same leaf, which is now in the WAL, too
        folder = copy_living(tmp_path)
    large = events_of(living)[1]
    assert large.checksum in (folder / WAL).read_bytes()
    assert LARGE[-3_000:].encode() not in (folder / WAL).read_bytes()
    lose(folder, large)
    assert salvaged(folder, tmp_path / "out").same
    assert events_of(tmp_path / "out") == events_of(living)


def test_a_row_in_the_database_may_have_its_overflow_pages_in_the_wal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a checkpoint the WAL still holds what was copied, until it is written over."""
    living = tmp_path / "data"
    monkeypatch.setattr("eventstore.sqlite.CHECKPOINT_PAGES", 1)
    with eventstore.open(living) as store:
        store.domain(DOMAIN).write_value("large", LARGE)
        folder = copy_living(tmp_path)
    large = events_of(living)[1]
    lose(folder, large, WAL)
    destroy(folder, LARGE[-3_000:].encode())
    assert salvaged(folder, tmp_path / "out").same
    assert events_of(tmp_path / "out") == events_of(living)


def test_the_rule_of_a_domain_survives(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as store:
        first = store.domain(Domain(DOMAIN, "first"))
        for number in range(5):
            first.write_value(f"key-{number}", number)
    lose(tmp_path / "data", events_of(tmp_path / "data")[2])
    assert not salvaged(tmp_path / "data", tmp_path / "out").is_whole
    with eventstore.open(tmp_path / "out") as store:
        assert store.domain(DOMAIN).domain.write == "first"


# ---- not whole


def test_what_is_lost_unproven_and_kept_is_told_by_position(data: Path, tmp_path: Path) -> None:
    before = events_of(data)
    lose(data, before[5])
    report = salvaged(data, tmp_path / "out")
    (domain,) = report.domains
    assert (report.is_whole, report.same) == (False, False)
    assert domain.kept == positions((1, 4), (7, ALL))
    assert domain.unproven == positions(6)
    assert domain.lost == positions(5)
    named = {each.position: each for each in domain.named}
    assert any("may have been a redaction" in problem for problem in domain.problems)
    assert named[6].fate == "unproven"
    assert named[6].checksum == before[6].checksum.hex()
    assert (data / named[6].file).read_bytes().find(before[6].checksum) - named[6].offset in range(100)
    assert named[5].fate == "damaged", "found, but its checksum is not that of its bytes"
    assert report.store_id != domain.store_id
    *places, loss = origins(tmp_path / "out")
    assert [place["position"] for place in places] == [1, 2, 3, 4, 7, 8, 9, 10, 11, 12]
    for place, event in zip(places, events_of(tmp_path / "out")[1:], strict=False):
        was = before[place["position"]]
        assert (event.key, event.op, event.when_us, event.data, event.salt) == (was.key, was.op, was.when_us, was.data, was.salt)
        assert place == {
            "store_id": domain.store_id,
            "domain": DOMAIN,
            "position": was.position,
            "checksum": was.checksum.hex(),
            "recorded_us": was.recorded_us,
        }
    assert loss == {}
    said = msgspec.json.decode(events_of(tmp_path / "out")[-1].data or "")
    assert said["reason"] == f"salvaged from domain orders of store {domain.store_id}; lost: 5; unproven and left out: 6"
    assert said["witnessed"] == {"position": ALL, "checksum": before[ALL].checksum.hex()}


def test_unproven_events_are_written_when_asked_for_and_say_so(data: Path, tmp_path: Path) -> None:
    before = events_of(data)
    lose(data, before[5])
    report = salvaged(data, tmp_path / "out", unproven=True)
    assert report.domains[0].unproven == positions(6)
    *places, _ = origins(tmp_path / "out")
    assert [(place["position"], place.get("unproven", False)) for place in places] == [(p, p == 6) for p in range(1, 13) if p != 5]
    (event,) = [each for each, place in zip(events_of(tmp_path / "out")[1:], places, strict=False) if place["position"] == 6]
    assert event.data == before[6].data
    assert "event_id" not in msgspec.json.decode(event.meta or ""), "a retry may not be answered by what is not proven"


def test_a_checksum_in_a_row_that_is_otherwise_damaged_proves_the_next_one(data: Path, tmp_path: Path) -> None:
    before = events_of(data)
    destroy(data, text(before[5])[:8])
    report = salvaged(data, tmp_path / "out")
    assert report.domains[0].kept == positions((1, 4), (6, ALL))
    assert report.domains[0].lost == positions(5)


def test_a_witness_proves_the_event_after_it(data: Path, tmp_path: Path) -> None:
    """The manifest, too, knows a checksum that stands in no row any more."""
    before = events_of(data)
    lose(data, before[5])
    manifest = data / "store.json"
    content = msgspec.json.decode(manifest.read_bytes())
    content["heads"][DOMAIN] = {"position": 5, "checksum": before[5].checksum.hex()}
    manifest.write_bytes(msgspec.json.encode(content))
    assert salvaged(data, tmp_path / "out").domains[0].kept == positions((1, 4), (6, ALL))


@pytest.mark.parametrize("position", [-1, 2**63, 2**64, 10**40])
def test_a_head_that_no_log_can_have_is_a_damaged_manifest_and_salvage_goes_on_with_the_logs(
    position: int, data: Path, tmp_path: Path
) -> None:
    manifest = data / "store.json"
    # As text: msgspec writes no number of more than 64 bits.
    manifest.write_text(re.sub(r'"position":\d+', f'"position":{position}', manifest.read_text()))
    assert f'"position":{position}' in manifest.read_text()
    told = f"{manifest} is damaged"
    with pytest.raises(FormatError, match=re.escape(told)):
        eventstore.open(data)
    with pytest.raises(FormatError, match=re.escape(told)):
        doctor(str(data))
    report = salvaged(data, tmp_path / "out")
    assert report.domains[0].kept == positions((1, ALL))
    assert any(told in problem for problem in report.problems)


def test_a_disk_too_full_for_the_copies_is_told_as_full_and_leaves_nothing(data: Path, tmp_path: Path) -> None:
    before = contents(data)
    with limit(resource.RLIMIT_FSIZE, PAGE), pytest.raises(DiskFullError, match="free some space, or raise the limit of file sizes"):
        salvage(data, tmp_path / "out")
    assert (contents(data), [path.name for path in tmp_path.iterdir()]) == (before, ["data"])


def test_a_disk_too_full_for_the_evidence_is_told_as_full(data: Path) -> None:
    (data / LOG / "head").write_bytes(b"\xff" * 48)
    full = pytest.raises(DiskFullError, match=r"copying into .*free some space, or raise the limit of file sizes")
    with limit(resource.RLIMIT_FSIZE, 5 * PAGE), eventstore.open(data, accept_loss=True) as store, full:
        store.domain(DOMAIN)


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("eventstore.salvage", "salvage('data', 'out', progress=die)"),
        ("eventstore.restore", "restore('backup', 'out', progress=die)"),
        pytest.param("eventstore.tools.export_tables", "export_tables('data', (), Path('out'), progress=die)", marks=pytest.mark.slow),
        ("eventstore.tools.export", "hook=die\nwith whole_file(Path('out')): hook and hook()"),
    ],
    ids=["salvage", "restore", "export --sqlite", "export"],
)
def test_what_a_killed_run_left_is_removed_by_the_next_one_to_the_same_place(data: Path, tmp_path: Path, module: str, call: str) -> None:
    with eventstore.open(data) as store:
        store.backup(tmp_path / "backup")

    def run(call: str) -> int:
        code = f"import os; from pathlib import Path; from {module} import *; die = lambda *_: os.kill(os.getpid(), 9); {call}"
        return subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60, check=False).returncode

    assert run(call) == -signal.SIGKILL
    (left,) = tmp_path.glob(".tmp-*")
    other = left.with_name(re.sub(r"-\d+(?=-[^-]+(-out)?$)", f"-{os.getpid()}", left.name))
    assert other != left
    other.touch()
    assert run(call.replace("'out'", "'elsewhere'")) == -signal.SIGKILL
    assert left.exists(), "what another place was to become is left alone"
    assert run(call.replace("=die", "=None")) == 0
    assert not left.exists()
    assert other.exists(), "its maker lives"


def test_what_a_whole_page_held_is_lost_without_a_trace(data: Path, tmp_path: Path) -> None:
    before = events_of(data)
    content = (data / DB).read_bytes()
    page = content.find(before[5].checksum) // PAGE * PAGE
    gone = [event.position for event in before if page <= content.find(event.checksum) < page + PAGE]
    (data / DB).write_bytes(content[:page] + bytes(PAGE) + content[page + PAGE :])
    (domain,) = salvaged(data, tmp_path / "out").domains
    assert domain.lost == positions((gone[0], gone[-1]))
    assert domain.unproven == positions(gone[-1] + 1)
    assert [(each.position, each.fate) for each in domain.named] == [(gone[-1] + 1, "unproven")]


def test_a_witness_disproves_the_event_after_it(data: Path, tmp_path: Path) -> None:
    before = events_of(data)
    lose(data, before[5])
    destroy(data, before[6].salt or b"")
    manifest = data / "store.json"
    content = msgspec.json.decode(manifest.read_bytes())
    content["heads"][DOMAIN] = {"position": 5, "checksum": before[5].checksum.hex()}
    manifest.write_bytes(msgspec.json.encode(content))
    (domain,) = salvaged(data, tmp_path / "out").domains
    assert (domain.kept, domain.lost, domain.unproven) == (positions((1, 4), (7, ALL)), positions((5, 6)), positions())


def test_the_end_is_known_to_the_witness(data: Path, tmp_path: Path) -> None:
    tail = events_of(data)[9:]
    destroy(data, *{event.key.encode() for event in tail}, *{event.checksum for event in tail})
    report = salvaged(data, tmp_path / "out")
    assert (report.domains[0].last, report.domains[0].lost) == (ALL, positions((9, ALL)))


def test_an_event_that_the_witness_contradicts_is_not_even_unproven(data: Path, tmp_path: Path) -> None:
    """Both rows look like events; of the last one it is known which checksum it must have."""
    for event in events_of(data)[ALL - 1 :]:
        lose(data, event)
    report = salvaged(data, tmp_path / "out")
    assert report.domains[0].lost == positions((ALL - 1, ALL))


def test_an_unproven_event_gives_way_to_one_that_was_sealed_on_another_checksum(data: Path, tmp_path: Path) -> None:
    """Of position 6 one copy has lost its checksum, the other its value; the one's checksum proves position 7, so not the other."""
    before = events_of(data)
    evidence = data / "quarantine" / f"{DOMAIN}-12-0123456789ab"
    evidence.mkdir(parents=True)
    lose(data, before[5])
    shutil.copyfile(data / DB, evidence / DB.name)
    lose(data, before[6])
    destroy(data, text(before[6])[:8], file=(evidence / DB.name).relative_to(data))
    (domain,) = salvaged(data, tmp_path / "out").domains
    assert (domain.kept, domain.lost, domain.unproven) == (positions((1, 4), (7, ALL)), positions((5, 6)), positions())


def test_a_lost_birth_row_costs_the_rule_and_the_first_proof(data: Path, tmp_path: Path) -> None:
    lose(data, events_of(data)[0])
    report = salvaged(data, tmp_path / "out")
    (domain,) = report.domains
    assert (domain.birth, domain.unproven, domain.kept) == ("lost", positions(1), positions((2, ALL)))
    assert not any("redaction" in problem for problem in domain.problems), "nothing is lost but the birth row"
    with eventstore.open(data.with_name("out")) as store:
        assert origins(tmp_path / "out")[0]["store_id"] == domain.store_id
        assert store.domain(DOMAIN).domain.write == "replace"
    assert any("birth row is lost" in problem for problem in domain.problems)


def test_one_damaged_domain_gives_all_a_new_id_but_each_can_be_had_alone(data: Path, tmp_path: Path) -> None:
    with eventstore.open(data) as store:
        write(store, 3, "quotes")
    lose(data, events_of(data)[5])
    both = salvaged(data, tmp_path / "both")
    assert (both.same, [domain.is_whole for domain in both.domains]) == (False, [False, True])
    assert [place["position"] for place in origins(tmp_path / "both", "quotes")] == [1, 2, 3]
    alone = salvaged(data, tmp_path / "alone", domain="quotes")
    assert alone.same
    assert events_of(tmp_path / "alone", "quotes") == events_of(data, "quotes")


def test_nothing_left_makes_no_store(data: Path, tmp_path: Path) -> None:
    (data / DB).write_bytes(secrets.token_bytes(10 * PAGE))
    report = salvage(data, tmp_path / "out")
    assert (report.out, report.is_whole, report.domains[0].lost) == (None, False, positions((1, ALL)))
    assert not (tmp_path / "out").exists()


def test_events_that_were_imported_keep_their_first_origin(data: Path, tmp_path: Path) -> None:
    lose(data, events_of(data)[5])
    salvaged(data, tmp_path / "once")
    lose(tmp_path / "once", events_of(tmp_path / "once")[3])
    salvaged(tmp_path / "once", tmp_path / "twice")
    first = origins(tmp_path / "twice")[0]
    assert (first["position"], first["origin"]["position"]) == (1, 1)
    with eventstore.open(data) as old:
        assert first["origin"]["store_id"] == old.store_id


# ---- calls


def test_a_call_that_survived_whole_is_answered_again_and_one_in_part_is_not(tmp_path: Path) -> None:
    folder, items, others = tmp_path / "data", [("a", 1), ("b", 2), ("c", 3)], [("d", 1), ("e", 2), ("f", 3)]
    with eventstore.open(folder) as store:
        store.domain(DOMAIN).write_value("first", 0)
        store.domain(DOMAIN).write_values(items, event_id="whole")
        store.domain(DOMAIN).write_values(others, event_id="torn")
        store.domain(DOMAIN).write_value("last", 0)
    lose(folder, events_of(folder)[6])
    report = salvaged(folder, tmp_path / "out")
    assert report.domains[0].lost == positions(6)
    assert report.domains[0].unproven == positions(7)
    with eventstore.open(tmp_path / "out") as store:
        domain = store.domain(DOMAIN)
        last = domain.head().position
        assert [receipt.position for receipt in domain.write_values(items, event_id="whole")] == [2, 3, 4]
        assert domain.head().position == last
        assert [receipt.position for receipt in domain.write_values(others, event_id="torn")] == [last + 1, last + 2, last + 3]
    assert [place.get("event_id") for place in origins(tmp_path / "out")[:5]] == [None, None, None, None, "torn"]


# ---- values of every kind, and erased ones


class Log:
    """A log below its domain: what no verb of this version writes."""

    def __init__(self, folder: Path) -> None:
        with eventstore.open(folder) as store:
            store.domain(DOMAIN)
            self.log = SqliteLog(folder, DOMAIN, store_id=store.store_id)
        self.recorded_us = 2 * 10**15

    def append(self, key: str, op: str = "put", erase: tuple[int, ...] = (), *, system: Any = None, **said: Any) -> Event:
        with self.log.writing() as head:
            latest = [event.position for event in self.log.read() if event.key == (SYSTEM_KEY if system else key)]
            self.recorded_us += 1
            common: dict[str, Any] = {"prev": latest[-1] if latest else 0, "recorded_us": self.recorded_us, "op": op}
            if system is not None:
                event = seal_system(head, data=system, salt=secrets.token_bytes(SALT_BYTES), **common)
            else:
                salt = secrets.token_bytes(SALT_BYTES) if said.get("data") is not None else None
                event = seal(head, key=key, salt=salt, **{"when_us": None, "meta": None, "data": None, **common, **said})
            self.log.append([event], after=head, erase=erase)
            return event

    def redact(self, *positions: int) -> Event:
        return self.append(SYSTEM_KEY, "redact", erase=positions, system={"positions": list(positions), "reason": "asked for"})


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """An open log in tmp_path / "data", its events still in the WAL."""
    log = Log(tmp_path / "data")
    yield log
    log.log.close()


def test_every_kind_of_event_survives_a_move(log: Log, tmp_path: Path) -> None:
    values: list[dict[str, Any]] = [
        {"data": '"\\ud83d"'},  # half an emoji: JSON allows it, msgspec does not
        {"data": "9" * 4_000, "when_us": -(2**63)},
        {"data": "-0.0", "when_us": 2**63 - 1, "meta": '{"actor":"\\u0000","tags":["a","b"],"schema":3}'},
        {"data": secrets.token_bytes(30_000), "meta": '{"codec":"aes-gcm:1","reason":"packed"}'},
        {"data": b"", "meta": '{"codec":"aes-gcm:2"}'},
        {"data": '{"a" : 1,  "a":2}'},
        {"op": "remove", "meta": '{"reason":"x"}'},
    ]
    was = [log.append(encode_key(("ключ\n", number, "")), **value) for number, value in enumerate(values)]
    gone = log.append('["gone"]', data="1")
    last = log.append('["last"]', data="1")
    folder = copy_living(tmp_path)
    for path in (DB, WAL):
        if gone.checksum in (folder / path).read_bytes():
            lose(folder, gone, path)
    report = salvaged(folder, tmp_path / "out")
    assert report.domains[0].kept == positions((1, len(was)))
    assert report.domains[0].unproven == positions(last.position)
    for event, before in zip(events_of(tmp_path / "out")[1:], was, strict=False):
        for field in ("key", "op", "when_us", "data", "salt", "digest"):
            assert getattr(event, field) == getattr(before, field), field
        meta = msgspec.json.decode(event.meta or "{}")
        del meta["origin"]
        assert meta == msgspec.json.decode(before.meta or "{}")


SECRET = '"the secret"'


@pytest.mark.parametrize("broken", [False, True], ids=["whole", "broken"])
def test_a_redaction_is_not_undone_by_older_pages(log: Log, tmp_path: Path, broken: bool) -> None:
    """The WAL still holds the pages of before, with the value and a checksum that proves it."""
    lost = log.append('["first"]', data="1")
    log.append('["b"]', data="1")
    secret = log.append('["a"]', data=SECRET)
    log.append('["c"]', data="1")
    redact = log.redact(secret.position)
    folder = copy_living(tmp_path)
    assert SECRET.encode() in (folder / WAL).read_bytes()
    if broken:
        lose(folder, lost, WAL)
    report = salvaged(folder, tmp_path / "out")
    assert report.same is not broken
    assert report.domains[0].redacted == 1
    found = {event.key: event for event in events_of(tmp_path / "out")[1:]}
    assert found['["a"]'].data is None
    assert found['["a"]'].digest == erased(secret).digest
    assert not any(SECRET.encode() in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    if broken:
        (said,) = [event for event in events_of(tmp_path / "out")[1:] if event.op == "redact"]
        assert msgspec.json.decode(said.data or "") == {"positions": [found['["a"]'].position], "reason": "asked for"}
        assert redact.position == 5


def test_a_redaction_outlives_the_event_that_said_so(log: Log, tmp_path: Path) -> None:
    secret = log.append('["a"]', data=SECRET)
    log.append('["c"]', data="1")
    redact = log.redact(secret.position)
    folder = copy_living(tmp_path)
    lose(folder, redact, WAL)
    report = salvaged(folder, tmp_path / "out")
    assert report.domains[0].kept == positions((1, 2))
    events = events_of(tmp_path / "out")
    assert (events[1].data, events[1].digest) == (None, erased(secret).digest)
    assert (events[3].op, msgspec.json.decode(events[3].data or "")["positions"]) == ("redact", [1])


def test_a_redaction_outlives_the_erased_copies(log: Log, tmp_path: Path) -> None:
    """Only the older pages are left, and the event that names the position."""
    secret = log.append('["a"]', data=SECRET)
    log.append('["c"]', data="1")
    log.redact(secret.position)
    folder = copy_living(tmp_path)
    digest = erased(secret).digest
    assert digest is not None
    destroy(folder, digest, file=WAL)
    report = salvaged(folder, tmp_path / "out")
    assert report.same
    assert (events_of(tmp_path / "out")[1].data, events_of(tmp_path / "out")[1].digest) == (None, digest)


def test_a_damaged_erased_copy_alone_shows_that_the_value_is_to_stay_erased(log: Log, tmp_path: Path) -> None:
    secret = log.append('["a"]', data=SECRET)
    log.append('["c"]', data="1")
    redact = log.redact(secret.position)
    folder = copy_living(tmp_path)
    digest = erased(secret).digest
    assert digest is not None
    destroy(folder, redact.checksum, file=WAL)
    content = (folder / WAL).read_bytes()
    at = content.rfind(secret.checksum, 0, content.find(digest))  # in the one copy that is erased
    (folder / WAL).write_bytes(content[:at] + bytes(32) + content[at + 32 :])
    salvaged(folder, tmp_path / "out")
    assert (events_of(tmp_path / "out")[1].data, events_of(tmp_path / "out")[1].digest) == (None, digest)


def test_what_the_log_says_of_itself_and_is_not_true_elsewhere_is_left_out(log: Log, tmp_path: Path) -> None:
    gone = log.append('["a"]', data="1")
    log.append('["b"]', data="1")
    log.append(SYSTEM_KEY, "archive", system={"first": 1, "last": 1, "sha256": "", "to": "elsewhere"})
    log.append('["c"]', data="1")
    folder = copy_living(tmp_path)
    lose(folder, gone, WAL)
    report = salvaged(folder, tmp_path / "out")
    assert report.domains[0].left_out == [3]
    assert [event.op for event in events_of(tmp_path / "out")[1:]] == ["put", "loss"]


def test_the_pages_of_another_log_inside_a_value_are_not_taken_for_this_one(log: Log, tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "other") as store:
        write(store, 30, "quotes")
    log.append('["a"]', data="1")
    log.append('["blob"]', data=(tmp_path / "other" / "logs" / "quotes" / DB.name).read_bytes(), meta='{"codec":"aes-gcm:3"}')
    log.append('["b"]', data="1")
    folder = copy_living(tmp_path)
    before = events_of(folder)
    for path in (LOG / "head", Path("store.json")):  # what would tell the two histories apart
        (folder / path).unlink()
    report = salvaged(folder, tmp_path / "out", domain=DOMAIN)
    assert report.domains[0].kept == positions((1, 3))
    assert report.domains[0].aside.count > 0
    assert events_of(tmp_path / "out") == before


# ---- histories


def lose_a_tail(folder: Path) -> list[Event]:
    """Accept that the last three events are lost, and go on; they are still in quarantine. Gives them."""
    old = folder.parent / "old.db"
    shutil.copyfile(folder / DB, old)
    with eventstore.open(folder) as store:
        write(store, ALL + 3)
    tail = events_of(folder)[ALL + 1 :]
    shutil.copyfile(folder / DB, folder.parent / "new.db")
    shutil.copyfile(old, folder / DB)
    with eventstore.open(folder) as store:
        assert store.accept(DOMAIN) is not None
        store.domain(DOMAIN).write_value("after", 1)
    (evidence,) = (folder / "quarantine").iterdir()
    shutil.copyfile(folder.parent / "new.db", evidence / DB.name)  # as if the newer file had been the damaged one
    return tail


def test_a_tail_whose_loss_was_accepted_is_set_aside(data: Path, tmp_path: Path) -> None:
    lose_a_tail(data)
    before = events_of(data)
    report = salvaged(data, tmp_path / "out")
    assert (report.same, report.is_whole) == (True, False)
    assert report.domains[0].kept == positions((1, ALL + 2))
    assert report.domains[0].aside == positions((ALL + 1, ALL + 3))
    assert report.domains[0].lost == positions()
    assert events_of(tmp_path / "out") == before
    assert {each.file.split("/")[0] for each in report.domains[0].named} == {"quarantine"}


def test_a_tail_set_aside_is_written_when_asked_for_where_it_was_lost(data: Path, tmp_path: Path) -> None:
    tail = lose_a_tail(data)
    report = salvaged(data, tmp_path / "out", unproven=True)
    assert not report.same
    events, places = events_of(tmp_path / "out")[1:], origins(tmp_path / "out")
    assert [event.op for event in events[ALL:]] == ["put", "put", "put", "loss", "put", "loss"]
    assert [event.data for event in events[ALL : ALL + 3]] == [event.data for event in tail]
    assert [place.get("aside", False) for place in places[ALL:-1]] == [True, True, True, False, False]
    assert not any('"event_id":' in (event.meta or "").split('"origin"')[0] for event in events[ALL:]), "no retry is answered by these"


def test_a_tail_that_was_lost_and_never_accepted_is_kept_from_quarantine(data: Path, tmp_path: Path) -> None:
    with eventstore.open(data) as store:
        old = (data / DB).read_bytes()
        write(store, ALL + 3)
        copied = subprocess.run(["cp", "-r", str(data), str(tmp_path / "whole")], check=False)
        assert copied.returncode == 0
    before = events_of(data)
    evidence = data / "quarantine" / f"{DOMAIN}-12-0123456789ab"
    evidence.mkdir(parents=True)
    shutil.copyfile(data / DB, evidence / DB.name)
    (data / DB).write_bytes(old)
    report = salvaged(data, tmp_path / "out")
    assert (report.same, report.is_whole) == (True, True)
    assert events_of(tmp_path / "out") == before


def test_an_end_that_is_not_the_witnessed_one_is_told(data: Path, tmp_path: Path) -> None:
    """Two copies of a store, written apart: the database of one, the witness of the other."""
    other = shutil.copytree(data, tmp_path / "other")
    for folder in (data, other):
        with eventstore.open(folder) as store:
            store.domain(DOMAIN).write_value("apart", folder.name)
    shutil.copyfile(other / DB, data / DB)
    report = salvaged(data, tmp_path / "out")
    (domain,) = report.domains
    assert (domain.kept, domain.ends_as_known, report.is_whole, report.same) == (positions((1, ALL + 1)), False, False, False)
    assert "another event" in domain.problems[0]


def test_a_log_under_another_name_says_whose_it_is(data: Path, tmp_path: Path) -> None:
    (data / LOG).rename(data / "logs" / "elsewhere")
    (data / "store.json").unlink()
    report = salvaged(data, tmp_path / "out")
    assert not report.same
    assert report.domains[0].kept == positions((1, ALL))
    assert "domain 'orders'" in report.domains[0].problems[0]


# ---- who is in the way, and what cannot be


def test_a_link_is_not_followed_and_told(data: Path, tmp_path: Path) -> None:
    (data / DB).rename(tmp_path / "elsewhere.db")
    (data / DB).symlink_to(tmp_path / "elsewhere.db")
    report = salvage(data, tmp_path / "out")
    assert report.domains[0].lost == positions((1, ALL))
    assert any("is no file but a link" in problem for problem in report.domains[0].problems)


def test_an_open_store_is_salvaged_and_keeps_its_locks(data: Path, tmp_path: Path) -> None:
    """Were the database opened and closed in this process, SQLite's locks on it would be gone (R4)."""
    with eventstore.open(data) as store:
        domain = store.domain(DOMAIN)
        domain.write_value("before", 1)
        held = locks_on(data / DB)
        assert held
        report = salvage(data, tmp_path / "out")
        assert locks_on(data / DB) == held
        assert report.domains[0].kept == positions((1, ALL + 1))
        assert domain.write_value("after", 1).position == ALL + 2


def locks_on(path: Path) -> list[str]:
    """The locks that this system knows on a file, without their numbers."""
    if not Path("/proc/locks").exists():
        pytest.skip("needs /proc/locks")
    inode = f":{path.stat().st_ino} "
    return sorted(line.split(":", 1)[1] for line in Path("/proc/locks").read_text().splitlines() if inode in line)


def test_a_writer_that_keeps_the_lock_is_named(data: Path, tmp_path: Path) -> None:
    program = "import fcntl, sys; file = open(sys.argv[1], 'rb'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", program, str(data / LOG / "head")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(UnavailableError) as caught:
            salvage(data, tmp_path / "out", busy_timeout_ms=10)
        writer.communicate()
    assert caught.value.holder in (writer.pid, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    with (data / LOG / "head").open("rb") as head:
        fcntl.flock(head, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_an_interrupted_salvage_leaves_nothing_behind(data: Path, tmp_path: Path) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        salvage(data, tmp_path / "out", progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_progress_is_told(data: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    salvage(data, tmp_path / "out", progress=lambda *said: told.append(said))
    size = (data / DB).stat().st_size
    assert told[-1] == ("orders: looking for events", size, size)


@pytest.mark.parametrize(
    ("prepare", "error", "match"),
    [
        (lambda data, out: shutil.rmtree(data), NotAStoreError, "no folder"),
        (
            lambda data, out: [path.unlink() for path in sorted(data.rglob("*")) if path.is_file()],
            NotAStoreError,
            "nothing can be salvaged",
        ),
        (lambda data, out: out.write_text("x"), ConfigError, "not an empty folder"),
        (lambda data, out: [out.mkdir(), (out / "x").write_text("")], ConfigError, "not an empty folder"),
        (lambda data, out: out.symlink_to(data), ConfigError, "must not touch"),
        (lambda data, out: out.symlink_to(data / "new"), ConfigError, "must not touch"),
        (lambda data, out: out.symlink_to(data.parent / "no" / "where"), ConfigError, "make it first"),
        (
            lambda data, out: (data / "store.json").write_text((data / "store.json").read_text().replace('"format":1', '"format":9')),
            NewerFormatError,
            "upgrade",
        ),
    ],
    ids=["no store", "empty", "a file", "not empty", "itself", "inside", "no parent", "newer"],
)
def test_places_that_cannot_be(
    data: Path, tmp_path: Path, prepare: Callable[[Path, Path], object], error: type[Exception], match: str
) -> None:
    prepare(data, tmp_path / "out")
    with pytest.raises(error, match=match):
        salvage(data, tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp")]


def test_an_unknown_domain_is_named_with_those_there_are(data: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is orders"):
        salvage(data, tmp_path / "out", "quotes")


def test_an_empty_folder_is_taken(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert salvaged(data, tmp_path / "out").same


# ---- the carver


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A database and a WAL that belong together."""
    folder = tmp_path_factory.mktemp("carver") / "data"
    with eventstore.open(folder) as store:
        write(store, 3)
        store.domain(DOMAIN).write_value("large", "x" * 40_000)
        copied = subprocess.run(["cp", "-r", str(folder), str(folder.with_name("copy"))], check=False)
        assert copied.returncode == 0
    return (folder / DB).read_bytes(), (folder.with_name("copy") / WAL).read_bytes()


@given(place=st.integers(0, 10**9), garbage=st.binary(min_size=1, max_size=300), cut=st.integers(0, 10**9), part=st.integers(0, 1))
def test_the_carver_reads_anything(sample: tuple[bytes, bytes], place: int, garbage: bytes, cut: int, part: int) -> None:
    """Whatever the bytes are it gives rows or none, and no row that is proven is anything but what was written."""
    contents = list(sample)
    content = contents[part]
    at = place % len(content)
    contents[part] = (content[:at] + garbage + content[at + len(garbage) :])[: cut % (2 * len(content))]
    for size in page_sizes(*contents):
        image = Image(contents[0], contents[1], size)
        for row in image.rows():
            assert 0 <= row.position < 2**63
            assert len(row.checksum) == 32
            assert image.row_at(row.part, row.offset) == row


@given(st.binary(max_size=3_000))
def test_the_carver_finds_nothing_in_noise(noise: bytes) -> None:
    assert list(Image(noise, noise, 512).rows()) == []


def test_a_chain_of_overflow_pages_that_leads_in_a_circle_ends(sample: tuple[bytes, bytes]) -> None:
    database, _ = sample
    pages = [database[at : at + PAGE] for at in range(0, len(database), PAGE)]
    looping = b"".join((4).to_bytes(4, "big") + page[4:] if page[4:100] == b"x" * 96 else page for page in pages)
    assert looping != database
    rows = list(Image(looping, b"").rows())
    assert {row.position for row in rows} == {0, 1, 2, 3, 4}
    assert [row.events for row in rows if row.position == 4] == [[]]
