"""The error tree is what the docstring draws, and every error tells its reader what, where and what to do next."""

from __future__ import annotations

import builtins
import inspect
import re
import resource
from pathlib import Path
from typing import Any

import pytest

import eventstore
from eventstore import errors
from eventstore.database import engine_error, sqlite3
from eventstore.errors import DiskFullError, EngineError, EventStoreError
from eventstore.files import os_errors, replace_file
from tests.faults.limits import limit

LINE = re.compile(r"^(?P<indent>[ │]*)(?:├── |└── )?(?P<name>[A-Z]\w+Error)\b(?: \((?P<builtin>\w+)\))?(?P<rest>.*)$")


def drawn_tree() -> dict[str, tuple[str | None, str | None, str]]:
    """name -> (parent, the built-in beside it, what the drawing says of it), as the module's docstring draws it."""
    tree: dict[str, tuple[str | None, str | None, str]] = {}
    above: list[str] = []
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines():
        match = LINE.match(line.removeprefix("    "))
        if match is None:
            continue
        level = line.index(match["name"]) // 4 - 1
        del above[level:]
        tree[match["name"]] = (above[-1] if above else None, match["builtin"], match["rest"].strip())
        above.append(match["name"])
    return tree


def classes() -> dict[str, type[EventStoreError]]:
    return {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, EventStoreError)}


def test_the_drawing_holds_every_error_and_no_other() -> None:
    assert len(drawn_tree()) > 20
    assert set(drawn_tree()) == set(classes())


@pytest.mark.parametrize("name", classes())
def test_an_error_stands_where_the_drawing_says(name: str) -> None:
    parent, builtin, _ = drawn_tree()[name]
    bases = {base.__name__ for base in classes()[name].__bases__}
    assert bases == {parent or "Exception", *([builtin] if builtin else [])}
    if builtin:
        assert issubclass(classes()[name], getattr(builtins, builtin))


@pytest.mark.parametrize("name", classes())
def test_only_what_the_drawing_calls_retryable_is(name: str) -> None:
    assert classes()[name].retryable is ("(retryable)" in drawn_tree()[name][2])


@pytest.mark.parametrize("name", classes())
def test_every_error_is_public_and_says_what_it_means(name: str) -> None:
    kind = classes()[name]
    assert getattr(eventstore, name) is kind
    assert name in eventstore.__all__
    assert kind.__doc__


@pytest.mark.parametrize("kind", [errors.NotFoundError, errors.RedactedError])
def test_a_key_error_of_ours_reads_as_a_sentence(kind: type[KeyError]) -> None:
    """KeyError itself shows the repr of its argument, quotes and all."""
    error = errors.RedactedError("orders", 7) if kind is errors.RedactedError else kind('no "such" key')
    assert str(error) == error.args[0]


MADE: dict[str, tuple[EventStoreError, dict[str, Any], list[str]]] = {
    "redacted": (errors.RedactedError("orders", 7), {"domain": "orders", "position": 7}, ["orders@7", "eventstore log"]),
    "wrong expected": (
        errors.WrongExpectedError("orders", '["k"]', 4, 9),
        {"domain": "orders", "key": '["k"]', "expected": 4, "actual": 9},
        ["orders", '["k"]', "expected 4", "found at position 9", "nothing was written", "read the key again"],
    ),
    "wrong expected, absent": (
        errors.WrongExpectedError("orders", '["k"]', eventstore.PRESENT, None),
        {"expected": eventstore.PRESENT, "actual": None},
        ["expected present", "found absent"],
    ),
    "duplicate": (
        errors.DuplicateEventError("orders", "e1", 3),
        {"domain": "orders", "event_id": "e1", "position": 3},
        ["orders@3", "'e1'", "another request", "use a new one"],
    ),
    "settled, done": (
        errors.SettledError("intents", "o1", 3, "done", result={"fill": 1}),
        {"domain": "intents", "event_id": "o1", "position": 3, "status": "done", "result": {"fill": 1}, "reason": None},
        ["intents@3", "'o1' is done", "do not do it again"],
    ),
    "settled, failed": (
        errors.SettledError("intents", "o1", 3, "failed", reason="margin"),
        {"status": "failed", "result": None, "reason": "margin"},
        ["intents@3", "'o1' has failed for certain (margin)", "new event_id"],
    ),
    "uncertain": (
        errors.UncertainError("intents", "o1", 3, pid=12, error="TimeoutError: 5 s"),
        {"domain": "intents", "event_id": "o1", "position": 3, "pid": 12, "error": "TimeoutError: 5 s"},
        ["intents@3", "'o1' was begun by process 12", "TimeoutError: 5 s", "resume=True", "same id"],
    ),
    "conflict": (
        errors.ConflictError("orders", 5, 6),
        {"domain": "orders", "expected": 5, "found": 6},
        ["orders", "5", "6", "try again"],
    ),
    "corruption": (errors.CorruptionError("orders", None, "gone"), {"domain": "orders", "position": None}, ["orders: gone"]),
    "checksum": (
        errors.ChecksumError("orders", 3, b"\x01" * 32, b"\x02" * 32),
        {"domain": "orders", "position": 3, "expected": b"\x01" * 32, "found": b"\x02" * 32},
        ["orders@3", "01" * 32, "02" * 32, "eventstore verify", "backup", "read_only"],
    ),
    "gap": (
        errors.GapError("orders", 9, 4),
        {"domain": "orders", "position": 9, "expected": 4},
        ["orders@9", "position 4 expected", "eventstore verify"],
    ),
    "format": (errors.FormatError("orders", 3, "unknown op"), {"domain": "orders", "position": 3}, ["orders@3: unknown op"]),
    "tail lost": (
        errors.TailLostError("orders", 9, 4, "5 events are missing", "quarantine/x"),
        {"domain": "orders", "position": 4, "witnessed": 9, "found": 4, "quarantine": "quarantine/x"},
        ["orders@4", "5 events are missing", "copied to quarantine/x", "read_only=True", "eventstore accept STORE orders"],
    ),
    "tail lost, read only": (errors.TailLostError("orders", None, 4, "torn"), {"witnessed": None, "quarantine": None}, ["orders@4: torn"]),
    "newer format": (errors.NewerFormatError("data", "format 7"), {"path": "data"}, ["data: format 7"]),
    "engine": (EngineError("disk"), {"outcome": "not_written", "event_id": None}, ["disk"]),
    "engine, unknown": (EngineError("disk", outcome="unknown", event_id="e"), {"outcome": "unknown", "event_id": "e"}, ["disk"]),
    "unavailable": (errors.UnavailableError("busy", holder=12), {"holder": 12, "outcome": "not_written", "event_id": None}, ["busy"]),
}


@pytest.mark.parametrize(("error", "attributes", "words"), MADE.values(), ids=MADE)
def test_what_happened_can_be_read_by_a_program_and_by_a_person(
    error: EventStoreError, attributes: dict[str, Any], words: list[str]
) -> None:
    assert {name: getattr(error, name) for name in attributes} == attributes
    assert [word for word in words if word not in str(error)] == []


def test_an_evidence_that_was_not_kept_is_not_promised() -> None:
    assert "copied" not in str(errors.TailLostError("orders", 9, 4, "torn"))


def test_one_except_clause_catches_everything_of_ours() -> None:
    assert all(issubclass(kind, EventStoreError) for kind in classes().values())
    assert EventStoreError.__bases__ == (Exception,)


def test_what_does_not_fit_is_said_in_one_way_whoever_met_it(tmp_path: Path) -> None:
    told = [str(engine_error(sqlite3.OperationalError("database or disk is full"), domain="d", path=tmp_path / "d.db"))]
    with eventstore.open(tmp_path / "data", min_free_bytes=0) as store:
        domain = store.domain("d")
        with limit(resource.RLIMIT_FSIZE, 65_536):
            with pytest.raises(DiskFullError) as grown:
                domain.write_value("k", "x" * 100_000)
            with pytest.raises(DiskFullError) as copied, os_errors("writing"):
                replace_file(tmp_path / "file", bytes(100_000))
    told += [str(grown.value), str(copied.value)]
    assert {message.rpartition("; ")[2] for message in told} == {
        "free some space, or raise the limit of file sizes (`ulimit -f`), and try again"
    }
