"""A store whose first files are archived or were deleted: exported, imported, listed, with what is there, and never without a word."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

import eventstore
from eventstore import Retention, Store
from eventstore.errors import CompactedError, LostIdsError, NotFoundError
from eventstore.tools.export import export
from eventstore.tools.export_tables import export_tables
from eventstore.tools.import_ import import_
from eventstore.tools.imported import ImportReport
from tests.tools.command import done
from tests.tools.command import eventstore as command

DOMAIN = "notes"


def filled(place: Path, *, until: int = 6) -> Store:
    """An open store: `once` is written once and carried, `often` again and again, each under an event_id."""
    store = eventstore.open(place, durability="process")
    notes = store.domain(DOMAIN)
    notes.write_value("once", {"n": 0}, event_id="e0")
    for n in range(1, until):
        notes.write_value("often", {"n": n}, event_id=f"e{n}", when=n)
    return store


def gone(place: Path, how: str) -> Store:
    """The same, sealed at position 7, and written to once more; the sealed file is `archived` or `deleted`."""
    store = filled(place)
    store.seal(DOMAIN)
    store.domain(DOMAIN).write_value("often", {"n": 9}, event_id="e9")
    if how == "archived":
        store.archive(DOMAIN, to=place.parent / "archive")
    else:
        store.retain(Retention(keep_events=1), DOMAIN, delete=True)
    return store


FLOOR = 7


@pytest.fixture(params=["archived", "deleted"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A store with a floor."""
    gone(tmp_path / "data", request.param).close()
    return tmp_path / "data"


def exported(place: Path, *domains: str, **options: Any) -> bytes:
    """A store as JSONL."""
    lines = io.BytesIO()
    export(str(place), domains, lines, **options)
    return lines.getvalue()


def imported(content: bytes, into: Path, **options: Any) -> ImportReport:
    """JSONL into a store."""
    file = into.parent / "in.jsonl"
    file.write_bytes(content)
    return import_(str(file), str(into), **options)


def files(place: Path) -> list[str]:
    """The files of the log, event ids among them."""
    return sorted(path.name for path in (place / "logs" / DOMAIN).iterdir() if path.suffix in (".db", ".ids"))


def rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What stands in a file of a log."""
    with closing(sqlite3.connect(path)) as connection:
        return {
            "schema": connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall(),
            "event": connection.execute("SELECT * FROM event ORDER BY position").fetchall(),
            "carried": connection.execute("SELECT * FROM carried ORDER BY position").fetchall(),
        }


def test_an_import_is_the_store_that_was_exported(data: Path, tmp_path: Path) -> None:
    """Not like it: its live file holds the same rows, and what proves, answers and refuses is the same."""
    content = exported(data)
    report = imported(content, tmp_path / "copy")
    assert (report.problems, report.domains[DOMAIN].adopted, report.domains[DOMAIN].floor) == ([], 6 - 1, FLOOR)
    assert files(tmp_path / "copy") == files(data) == [f"{0:020d}-{FLOOR:020d}.ids", f"{FLOOR + 1:020d}.db"]
    for name in files(data)[1:]:
        assert rows(tmp_path / "copy" / "logs" / DOMAIN / name) == rows(data / "logs" / DOMAIN / name)
    assert exported(tmp_path / "copy") == content
    with eventstore.open(data) as store, eventstore.open(tmp_path / "copy") as copy:
        one, other = store.domain(DOMAIN), copy.domain(DOMAIN)
        assert (copy.store_id, other.floor, other.head()) == (store.store_id, FLOOR, one.head())
        assert dict(other.items()) == dict(one.items()) == {"once": {"n": 0}, "often": {"n": 9}}
        assert list(other.events(FLOOR, carried=True)) == list(one.events(FLOOR, carried=True))
        assert [event.position for event in other.events(FLOOR)] == [8, 9]
        assert copy.anchor().heads == store.anchor().heads
        assert copy.verify().domains == store.verify().domains
        assert copy.verify().ok
        for each in (one, other):  # exact about every call that was ever made
            assert each.write_value("once", {"n": 0}, event_id="e0").position == 1
            assert each.write_value("often", {"n": 9}, event_id="e9", when=None).position == 8
            with pytest.raises(CompactedError):
                each.write_value("often", {"n": 1}, event_id="e1", when=1)
            assert each.write_value("often", {"n": 10}, event_id="e10").position == 10


def test_an_import_reads_the_past_where_the_archive_is(tmp_path: Path) -> None:
    gone(tmp_path / "data", "archived").close()
    imported(exported(tmp_path / "data"), tmp_path / "copy")
    with eventstore.open(tmp_path / "copy", archives=[tmp_path / "archive"]) as copy:
        assert copy.domain(DOMAIN).floor == 0
        assert [event.data for event in copy.domain(DOMAIN).history("often")][-1] == '{"n":1}'
        assert copy.verify().ok
        assert copy.domain(DOMAIN).write_value("often", {"n": 1}, event_id="e1", when=1).position == 2


def test_nobody_is_left_to_believe_that_it_is_all(data: Path, tmp_path: Path) -> None:
    where = "archived to" if (tmp_path / "archive").exists() else "deleted"
    answer = command("export", data)
    assert (answer.code, answer.out_bytes) == (0, exported(data))
    assert f"warning: notes: events up to position {FLOOR} are in no file at hand: {where}" in answer.err
    answer = done("export", data, "-o", tmp_path / "out.jsonl", "--json")
    assert (answer.json()["domains"], answer.json()["floors"]) == ({DOMAIN: 6}, {DOMAIN: FLOOR})
    answer = done("export", data, "--sqlite", tmp_path / "out.db", "--json")
    assert (answer.json()["domains"], answer.json()["keys"], answer.json()["floors"]) == ({DOMAIN: 6}, 2, {DOMAIN: FLOOR})
    with closing(sqlite3.connect(tmp_path / "out.db")) as tables:
        assert tables.execute("SELECT domain, floor, head FROM domain").fetchall() == [(DOMAIN, FLOOR, 9)]
        assert [row[0] for row in tables.execute("SELECT position FROM event ORDER BY 1")] == [0, 1, 6, 7, 8, 9]
        assert tables.execute("SELECT key_1, value FROM state ORDER BY 1").fetchall() == [("often", '{"n":9}'), ("once", '{"n":0}')]
    shown = done("import", tmp_path / "out.jsonl", tmp_path / "copy").out
    assert f"5 adopted, up to position {FLOOR} left where the log says: archived, or deleted" in shown


# ---- log


def test_a_list_begins_where_the_events_do_and_says_so(data: Path) -> None:
    answer = command("log", data, DOMAIN, "--json")
    assert [(line["position"], line["floor"]) for line in answer.lines()] == [(8, FLOOR), (9, FLOOR)]
    assert f"notes: events up to position {FLOOR} are in no file at hand" in json.loads(answer.err)["warning"]
    answer = command("log", data, "--reverse")
    assert [line.split()[0] for line in answer.out.splitlines()] == ["9", "8"]
    assert f"up to position {FLOOR}" in answer.err
    assert command("log", data, DOMAIN, "--reverse", "--limit", "2").err == ""  # the latest were asked for, and are all there
    assert command("log", data, DOMAIN, "--after", FLOOR).err == ""
    assert f"up to position {FLOOR}" in command("log", data, "--since", "2001-01-01T00:00:00Z").err
    for after in (0, FLOOR - 1):
        answer = command("log", data, DOMAIN, "--after", after, "--json")
        assert (answer.code, answer.error()["error"], answer.error()["floor"]) == (2, "CompactedError", FLOOR)


def test_a_list_of_a_whole_domain_says_nothing_of_floors(tmp_path: Path) -> None:
    filled(tmp_path / "data", until=2).close()
    answer = command("log", tmp_path / "data", "--json")
    assert ([line.get("floor") for line in answer.lines()], answer.err) == ([None, None], "")


# ---- what cannot be exported


def test_a_file_that_was_lost_is_not_passed_over(tmp_path: Path) -> None:
    with filled(tmp_path / "data") as store:
        store.seal(DOMAIN)
        store.domain(DOMAIN).write_value("often", 9)
    (lost,) = (tmp_path / "data" / "logs" / DOMAIN).glob(f"{0:020d}.db")
    lost.rename(tmp_path / "aside")
    for how in (lambda: exported(tmp_path / "data"), lambda: export_tables(str(tmp_path / "data"), [], tmp_path / "out.db")):
        with pytest.raises(CompactedError, match="its file is missing"):
            how()
    assert not (tmp_path / "out.db").exists()
    (tmp_path / "aside").rename(lost)


@pytest.mark.corrupts
def test_lost_ids_are_accepted_before_an_export(data: Path, tmp_path: Path) -> None:
    for path in (data / "logs" / DOMAIN).glob("*.ids"):
        path.unlink()
    for path in (data / "logs" / DOMAIN / "pointers").glob("*"):
        path.unlink()
    with pytest.raises(LostIdsError, match="eventstore accept"):
        exported(data)
    done("accept", data, DOMAIN)
    content = exported(data)
    assert json.loads(content.splitlines()[0])["ids"]["count"] == 0
    assert imported(content, tmp_path / "copy").problems == []
    assert exported(tmp_path / "copy") == content
    with eventstore.open(tmp_path / "copy") as copy:
        assert copy.domain(DOMAIN).write_value("often", 1, event_id="e1").position == 11  # nobody knows, and that was accepted
        assert copy.verify().ok


@pytest.mark.parametrize("line", range(1, 7))
def test_what_was_cut_off_is_named_and_nothing_of_it_becomes_a_domain(data: Path, tmp_path: Path, line: int) -> None:
    lines = exported(data).splitlines(keepends=True)
    assert len(lines) == 8  # a header, four events carried, their ids, two events
    (problem,) = imported(b"".join(lines[:line]), tmp_path / "copy").problems
    assert "it was cut off" in problem.message
    with eventstore.open(tmp_path / "copy") as copy:
        assert copy.domains() == []


@pytest.mark.parametrize("line", range(1, 7))
def test_a_line_that_is_missing_is_missed(data: Path, tmp_path: Path, line: int) -> None:
    lines = exported(data).splitlines(keepends=True)
    del lines[line]
    assert len(imported(b"".join(lines), tmp_path / "copy").problems) == 1
    with eventstore.open(tmp_path / "copy") as copy:
        assert copy.domains() == []


def test_a_domain_that_was_cut_off_whole_is_missed(tmp_path: Path) -> None:
    with filled(tmp_path / "data", until=2) as store:
        store.domain("other").write_value("a", 1)
    lines = exported(tmp_path / "data").splitlines(keepends=True)
    report = imported(b"".join(lines[:4]), tmp_path / "copy")
    assert report.domains[DOMAIN].adopted == 2
    assert [(problem.where, "announces it" in problem.message) for problem in report.problems] == [("other", True)]
    assert report.exit_code == 1
    assert imported(b"".join(lines[:4]), tmp_path / "copy", domain=DOMAIN).problems == []


# ---- into a store that is there


def others(place: Path, count: int = 3) -> Store:
    """Another store, with a domain of the same name."""
    store = eventstore.open(place, durability="process")
    for n in range(count):
        store.domain(DOMAIN).write_value(f"theirs-{n}", n)
    return store


def positions(report: ImportReport) -> tuple[int, int, list[str]]:
    """What came of the one domain, and what was wrong."""
    found = report.domains[DOMAIN]
    return found.written, found.unchanged, [problem.message for problem in report.problems]


def test_memory_has_no_files_that_could_be_elsewhere(data: Path) -> None:
    """Into a log in memory goes what begins with its birth row, and nothing that would pass for it."""
    whole = data.with_name("whole")
    filled(whole, until=2).close()
    for place, told in (whole, []), (data, ["events up to position 7 are elsewhere"]):
        (data.parent / "in.jsonl").write_bytes(exported(place))
        problems = [problem.message for problem in import_(str(data.parent / "in.jsonl"), "memory:").problems]
        assert [message[len(DOMAIN) + 2 :][: len(told[0])] for message in problems] == told


def test_into_another_store_comes_what_there_is(data: Path, tmp_path: Path) -> None:
    others(tmp_path / "other").close()
    content = exported(data)
    report = imported(content, tmp_path / "other")
    assert (positions(report), report.domains[DOMAIN].source_floor) == ((3, 0, []), FLOOR)
    assert positions(imported(content, tmp_path / "other")) == (0, 3, [])
    with eventstore.open(tmp_path / "other") as other:
        notes = other.domain(DOMAIN)
        assert dict(notes.items()) == {"theirs-0": 0, "theirs-1": 1, "theirs-2": 2, "once": {"n": 0}, "often": {"n": 9}}
        origins = [json.loads(event.meta or "{}").get("origin", {}).get("position") for event in notes.events()]
        assert origins == [None, None, None, 1, 6, 8]
        assert other.verify().ok
    with eventstore.open(data) as store:
        store.domain(DOMAIN).write_value("new", 1)
    assert positions(imported(exported(data), tmp_path / "other")) == (1, 3, [])


def test_a_store_with_a_floor_takes_in_what_is_anothers(data: Path, tmp_path: Path) -> None:
    others(tmp_path / "other").close()
    content = exported(tmp_path / "other")
    assert positions(imported(content, data)) == (3, 0, [])
    assert positions(imported(content, data)) == (0, 3, [])
    with eventstore.open(data) as store:
        assert store.verify().ok
        assert store.domain(DOMAIN).read_value("theirs-2") == 2


@pytest.mark.parametrize("overwritten", [False, True])
def test_how_far_an_import_came_that_is_gone_is_not_guessed(tmp_path: Path, overwritten: bool) -> None:
    with others(tmp_path / "other") as other:
        content = exported(tmp_path / "other")
        other.domain(DOMAIN).write_value("theirs-9", 9)
    longer = exported(tmp_path / "other")
    filled(tmp_path / "data").close()
    imported(content, tmp_path / "data")
    with eventstore.open(tmp_path / "data") as store:
        if overwritten:
            store.domain(DOMAIN).write_values([(f"theirs-{n}", "ours") for n in range(3)])
        store.seal(DOMAIN)
        store.archive(DOMAIN, to=tmp_path / "archive")
        head = store.domain(DOMAIN).head()
    written, unchanged, (problem,) = positions(imported(longer, tmp_path / "data"))
    assert (written, unchanged, "how far an earlier import" in problem, "--archive DIR" in problem) == (0, 0, True, True)
    with eventstore.open(tmp_path / "data") as store:
        assert store.domain(DOMAIN).head() == head
    answer = done("import", tmp_path / "in.jsonl", tmp_path / "data", "--archive", tmp_path / "archive", "--json")
    assert (answer.json()["domains"][DOMAIN]["written"], answer.json()["domains"][DOMAIN]["unchanged"]) == (1, 3)
    assert positions(imported(longer, tmp_path / "data")) == (0, 4, [])  # the last of them is above the floor now


@pytest.mark.parametrize("how", ["archived", "deleted"])
def test_a_store_with_a_floor_takes_back_only_what_it_lacks(tmp_path: Path, how: str) -> None:
    with filled(tmp_path / "data") as store:
        before = exported(tmp_path / "data")
        store.seal(DOMAIN)
    sealed = exported(tmp_path / "data")
    with eventstore.open(tmp_path / "data") as store:
        store.domain(DOMAIN).write_value("new", 1)
    imported(exported(tmp_path / "data"), tmp_path / "copy")
    with eventstore.open(tmp_path / "data") as store:
        store.domain(DOMAIN).write_value("newer", 2)
    later = exported(tmp_path / "data")
    with eventstore.open(tmp_path / "copy") as copy:
        if how == "archived":
            copy.archive(DOMAIN, to=tmp_path / "archive")
        else:
            copy.retain(Retention(keep_events=1), DOMAIN, delete=True)
    assert positions(imported(later, tmp_path / "copy")) == (1, 7, [])  # as the seal at the floor is the same
    assert positions(imported(sealed, tmp_path / "copy")) == (0, 6, [])
    # One that ends before the floor shows nothing that is still there to compare its end with, but for what is carried.
    assert positions(imported(before, tmp_path / "copy")) == (0, 6, [])
    shorter = [json.loads(line) for line in before.splitlines()][:4]
    shorter[0]["head"] = {name: shorter[-1][name] for name in ("position", "checksum")}
    (problem,) = imported(b"".join(json.dumps(line).encode() + b"\n" for line in shorter), tmp_path / "copy").problems
    assert "whether this event of the export is the one that stood here cannot be told" in problem.message


def test_a_seal_does_not_hide_what_a_store_has_in_common_with_its_export(tmp_path: Path) -> None:
    with filled(tmp_path / "data") as store:
        store.seal(DOMAIN)
        store.domain(DOMAIN).write_value("new", 1)
    assert positions(imported(exported(tmp_path / "data"), tmp_path / "data")) == (0, 7, [])


# ---- any store


KEYS = ["a", "b", "c"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(KEYS), st.booleans()),
        st.tuples(st.just("remove"), st.sampled_from(KEYS)),
        st.tuples(st.just("redact"), st.sampled_from(KEYS)),
        st.tuples(st.sampled_from(["seal", "archive", "delete"])),
    ),
    min_size=4,
    max_size=25,
)


def live(store: Store, steps: Iterable[tuple[Any, ...]], archive: Path) -> None:
    """Do what the steps say."""
    notes = store.domain(DOMAIN)
    for number, (verb, *said) in enumerate(steps):
        if verb == "write":
            notes.write_value(said[0], {"n": number}, event_id=f"e{number}" if said[1] else None)
        elif verb == "remove":
            notes.remove_value(said[0])
        elif verb == "redact":
            with contextlib.suppress(CompactedError, NotFoundError):  # a history that is not at hand, or that never was
                notes.redact(said[0], reason="asked")
        else:
            store.seal(DOMAIN)
        if verb == "archive":
            store.archive(DOMAIN, to=archive)
        elif verb == "delete":
            store.retain(Retention(keep_events=0), DOMAIN, delete=True)


@settings(max_examples=settings().max_examples // 2)  # each is a life, an export and an import
@given(steps=STEPS)
def test_an_export_of_an_import_is_the_export(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]) -> None:
    folder = tmp_path_factory.mktemp("floor")
    with eventstore.open(folder / "data", durability="process") as store:
        live(store, steps, folder / "archive")
        content = exported(folder / "data")
        floor, heads, whole = store.domain(DOMAIN).floor, store.anchor().heads, store.verify()
    report = imported(content, folder / "copy")
    event(f"floor {min(floor, 1)}")
    assert (report.problems, report.domains[DOMAIN].floor) == ([], floor)
    assert exported(folder / "copy") == content
    with eventstore.open(folder / "copy") as copy:
        assert copy.anchor().heads == heads
        assert copy.verify().domains == whole.domains
        assert whole.ok
