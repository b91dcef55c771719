"""export --sqlite: every event and every current value, in a file that any tool may open and nothing else was lost for."""

from __future__ import annotations

import json
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventstore as library
from eventstore.tools.export_tables import export_tables
from tests.raw_log import erase
from tests.tools.command import done, eventstore

HOSTILE = ["'; DROP TABLE event; --", '"', "\x1b[31m", "%s", "<script>", "[]", "ключ", "\U0001f642", "a" * 300]


@contextmanager
def tables(path: Path) -> Iterator[sqlite3.Connection]:
    """The database as a stranger opens it: with the SQLite of the standard library, read-only."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


def test_an_analyst_finds_events_and_states(tmp_path: Path) -> None:
    with library.open(tmp_path / "data", actor="bot") as store:
        orders = store.domain("orders")
        orders.write_value(("binance", "BTC", 7), {"price": 1.5}, when=1_700_000_000_000_000, tags=["x", "y"], schema=2, reason="because")
        orders.write_value("gone", 1)
        orders.remove_value("gone")
        orders.write_value(("binance", "BTC", 7), {"price": 2.5}, type="moved")
        store.domain("empty")
    report = done("export", tmp_path / "data", "--sqlite", tmp_path / "out.db", "--json").json()
    assert report == {
        "store": str(tmp_path / "data"),
        "database": str(tmp_path / "out.db"),
        "domains": {"empty": 1, "orders": 5},
        "keys": 1,
        "floors": {},
    }
    with tables(tmp_path / "out.db") as found:
        first = dict(found.execute("SELECT * FROM event WHERE domain = 'orders' AND position = 1").fetchone())
        assert {name: first[name] for name in ("key", "key_1", "key_2", "key_3", "actor", "reason", "tags", "schema", "redacted")} == {
            "key": '["binance","BTC",7]', "key_1": "binance", "key_2": "BTC", "key_3": "7",
            "actor": "bot", "reason": "because", "tags": '["x","y"]', "schema": "2", "redacted": 0,
        }  # fmt: skip
        assert first["when_at"] == "2023-11-14T22:13:20.000000Z"
        assert first["recorded_at"].endswith("Z")
        assert json.loads(first["meta"])["tags"] == ["x", "y"]
        assert found.execute("SELECT json_extract(value, '$.price') FROM event WHERE type = 'moved'").fetchone()[0] == 2.5
        states = [dict(row) for row in found.execute("SELECT domain, key_2, value, position FROM state")]
        assert states == [{"domain": "orders", "key_2": "BTC", "value": '{"price":2.5}', "position": 4}]
        assert [row[0] for row in found.execute("SELECT op FROM event WHERE domain = 'orders' ORDER BY position")] == [
            "open", "put", "put", "remove", "put",
        ]  # fmt: skip
        plan = " ".join(row[3] for row in found.execute("EXPLAIN QUERY PLAN SELECT * FROM event WHERE domain = 'orders' AND key = 'x'"))
        assert "USING INDEX" in plan
    assert stat.S_IMODE((tmp_path / "out.db").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".tmp", "out.db-"))] == []


_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20), st.lists, max_leaves=4
)


@settings(max_examples=15)
@given(writes=st.lists(st.tuples(st.sampled_from(HOSTILE), _values | st.sampled_from(HOSTILE), st.booleans()), max_size=12))
def test_the_tables_say_what_the_store_says_whatever_is_in_it(tmp_path_factory: pytest.TempPathFactory, writes: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("tables")
    with library.open(folder / "data", durability="process") as store:
        domain = store.domain("notes")
        for key, value, removed in writes:
            if removed:
                domain.remove_value((key, 1))
            else:
                domain.write_value((key, 1), value, reason=key)
        export_tables(str(folder / "data"), [], folder / "out.db", search=True)
        with tables(folder / "out.db") as found:
            rows = found.execute("SELECT position, key, value, checksum, meta FROM event ORDER BY position").fetchall()
            events = [domain.event(0), *domain.events()]
            assert [tuple(row) for row in rows] == [
                (event.position, event.key, event.data, event.checksum.hex(), event.meta) for event in events
            ]
            states = {row["key"]: json.loads(row["value"]) for row in found.execute("SELECT key, value FROM state")}
            assert states == {library.encode_key(key): value for key, value in domain.items()}
            assert found.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_words_are_found_where_an_index_was_asked_for(tmp_path: Path) -> None:
    done("put", tmp_path / "data", "notes", "a", '{"text": "the quick brown fox"}')
    done("put", tmp_path / "data", "notes", "b", '{"text": "a lazy dog"}', "--reason", "quick nap")
    done("export", tmp_path / "data", "--sqlite", tmp_path / "out.db", "--search")
    with tables(tmp_path / "out.db") as found:
        query = "SELECT event.key_1 FROM event JOIN event_fts ON event_fts.rowid = event.rowid WHERE event_fts MATCH ? ORDER BY position"
        assert [row[0] for row in found.execute(query, ("quick",))] == ["a", "b"]
        assert [row[0] for row in found.execute(query, ("lazy",))] == ["b"]


def test_what_was_erased_is_shown_as_erased(tmp_path: Path) -> None:
    done("put", tmp_path / "data", "notes", "person", '"Erika Mustermann"')
    erase(tmp_path / "data", "notes", 1)
    done("export", tmp_path / "data", "--sqlite", tmp_path / "out.db")
    with tables(tmp_path / "out.db") as found:
        assert tuple(found.execute("SELECT value, redacted FROM event WHERE position = 1").fetchone()) == (None, 1)
        assert tuple(found.execute("SELECT value, redacted FROM state").fetchone()) == (None, 1)
    assert b"Mustermann" not in (tmp_path / "out.db").read_bytes()


def test_only_an_earlier_export_is_ever_replaced(tmp_path: Path) -> None:
    done("put", tmp_path / "data", "notes", "a", "1")
    done("export", tmp_path / "data", "--sqlite", tmp_path / "out.db")
    done("put", tmp_path / "data", "notes", "a", "2")
    done("export", tmp_path / "data", "notes", "--sqlite", tmp_path / "out.db")
    with tables(tmp_path / "out.db") as found:
        assert found.execute("SELECT value FROM state").fetchone()[0] == "2"
    (tmp_path / "photo.jpg").write_bytes(b"me")
    (tmp_path / "folder").mkdir()
    with closing(sqlite3.connect(tmp_path / "mine.db")) as mine:
        mine.execute("CREATE TABLE mine(a)")
    (tmp_path / "link").symlink_to(tmp_path / "mine.db")
    live = tmp_path / "data" / "logs" / "notes" / f"{0:020d}.db"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith("-shm")}
    for name in ("photo.jpg", "folder", "mine.db", "link", live, tmp_path / "data" / "new.db", "no/where.db"):
        answer = eventstore("export", tmp_path / "data", "--sqlite", tmp_path / name)
        assert answer.code in (2, 3), (name, answer)
        assert "Traceback" not in answer.err
    assert {path: path.read_bytes() for path in before} == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp")]


def test_options_that_contradict_each_other_are_a_wrong_command_line(tmp_path: Path) -> None:
    done("put", tmp_path / "data", "notes", "a", "1")
    assert eventstore("export", tmp_path / "data", "--search").code == 3
    assert eventstore("export", tmp_path / "data", "--sqlite", tmp_path / "a", "-o", tmp_path / "b").code == 3


@pytest.mark.corrupts
def test_a_damaged_log_is_not_exported(tmp_path: Path) -> None:
    for number in range(20):
        done("put", tmp_path / "data", "notes", f"k{number}", number)
    path = tmp_path / "data" / "logs" / "notes" / f"{0:020d}.db"
    content = path.read_bytes()
    path.write_bytes(content.replace(b'["k7"]', b'["k8"]'))
    answer = eventstore("export", tmp_path / "data", "--sqlite", tmp_path / "out.db", "--read-only")
    assert answer.code == 1, answer
    assert sorted(found.name for found in tmp_path.iterdir()) == ["data"]
