"""verify by several processes: the same report to the byte, whatever is wrong and wherever; a process that fails is never a pass."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

import eventstore
from eventstore.errors import ConfigError, EngineError
from eventstore.links import Task, Walk, Walked
from eventstore.logfiles import LogFiles
from eventstore.ranges import PROCESS_EVENTS, Crew, Tickets, processes_for, ranges_of
from tests.eventstore.test_verify import DOMAIN, db, edit, redact
from tests.sampled import sampled

LAST = 3_500
"""Two processes share a log of this length at 1,000, 2,000 and 3,000."""


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store of one domain: keys that return in every range, some removed, some ids."""
    folder = tmp_path_factory.mktemp("ranges") / "store"
    with eventstore.open(folder, durability="process") as store:
        domain = store.domain(DOMAIN)
        for start in range(0, LAST, 500):
            domain.write_values([(f"key-{n % 700}", {"n": n}) for n in range(start, start + 499)], event_id=f"call-{start}", actor="bot")
            domain.remove_value(f"key-{start % 700}")
    return folder


@pytest.fixture
def folder(long: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(long, tmp_path / "store")


def swap(one: int, other: int) -> list[str]:
    return [
        f"UPDATE event SET position = -1 WHERE position = {one}",
        f"UPDATE event SET position = {one} WHERE position = {other}",
        f"UPDATE event SET position = {other} WHERE position = -1",
    ]


DAMAGES: dict[str, list[str]] = {
    "values at borders": ["UPDATE event SET data = '0' WHERE position IN (1, 999, 1000, 1001, 2000, 3001, 3500)"],
    "checksums before a border": ["UPDATE event SET checksum = zeroblob(32) WHERE position IN (999, 1000)"],
    "checksums behind a border": ["UPDATE event SET checksum = zeroblob(32) WHERE position IN (1001, 1002)"],
    "a checksum at a border": ["UPDATE event SET checksum = zeroblob(32) WHERE position = 2000"],
    "a gap at a border": ["DELETE FROM event WHERE position = 1000"],
    "a gap before a border": ["DELETE FROM event WHERE position = 999"],
    "a gap behind a border": ["DELETE FROM event WHERE position BETWEEN 1001 AND 1003"],
    "a gap of more than a range": ["DELETE FROM event WHERE position BETWEEN 900 AND 2100"],
    "a cut tail": ["DELETE FROM event WHERE position > 2300"],
    "a swapped pair over a border": swap(1_000, 1_001),
    "swapped ranges apart": swap(20, 3_010),
    "a prev at a border": ["UPDATE event SET prev = 5 WHERE position IN (1000, 1001)"],
    "a key that is not canonical": ["""UPDATE event SET key = '[ "key-1"]' WHERE position IN (500, 1001)"""],
    "a key that is no text": ["UPDATE event SET key = CAST(x'ff' AS TEXT) WHERE position IN (1000, 2500)"],
    "a value that is no text": ["UPDATE event SET data = CAST(x'22ff22' AS TEXT) WHERE position IN (1001, 2500)"],
    "a value that is a number": ["UPDATE event SET data = 7 WHERE position = 1500"],
    "a time at a border": ["UPDATE event SET recorded_us = 5 WHERE position IN (1000, 1001, 2000)"],
    "a meta that is none": ["UPDATE event SET meta = '[]' WHERE position = 2001", "UPDATE event SET meta = '{' WHERE position = 2000"],
    "a forged row far away": [f"UPDATE event SET position = {2**40} WHERE position = {LAST}"],
    "digests nobody explains": ["UPDATE event SET data = NULL, salt = NULL, digest = zeroblob(32) WHERE position IN (10, 1000, 2001)"],
    "several": ["DELETE FROM event WHERE position = 2000", "UPDATE event SET data = '0' WHERE position = 1000", *swap(3_000, 3_001)],
}


def report_of(folder: Path, processes: int) -> eventstore.Report:
    with eventstore.open(folder, read_only=True) as store:
        return store.verify(processes=processes)


def require_same(folder: Path) -> eventstore.Report:
    """The report, which several processes give to the byte, and ranges walked elsewhere as here."""
    alone = report_of(folder, 1)
    assert msgspec.json.encode(report_of(folder, 2)) == msgspec.json.encode(alone)
    files = LogFiles(DOMAIN, lambda: [db(folder)], busy_timeout_ms=1_000)
    try:
        task = Task(DOMAIN, files.head().position, [1_200, 3_500], 3_500)
        ranges = ranges_of(files, task.last, 2)
        parts = [walked_here(files, task, *each) for each in ranges]
        assert by_others(files.source(), task, ranges) == parts
        assert [part.head for part in parts[:-1]] == [part.before for part in parts[1:]], "they fit: nothing is walked twice"
        whole = walked_here(files, task, 0, task.last)
        assert links_of(parts) == links_of([whole]), "what a range says does not depend on where it starts"
    finally:
        files.close()
    return alone


def links_of(parts: list[Walked]) -> list[eventstore.Finding]:
    """What was found but for prev, which takes the whole log."""
    return [finding for part in parts for finding in part.findings if finding.kind != "prev"]


def walked_here(files: LogFiles, task: Task, after: int, until: int) -> Walked:
    walk = Walk(files, task, after, until)
    assert list(walk.run())
    return walk.walked


def by_others(source: list[Path], task: Task, ranges: list[tuple[int, int]], processes: int = 1) -> list[Walked]:
    tickets = Tickets(ranges)
    try:
        with Crew(source, task, tickets, processes) as crew:
            return sorted(crew.rest(), key=lambda walked: walked.after)
    finally:
        tickets.close()


@pytest.mark.parametrize("name", sampled(DAMAGES, "values at borders", "a gap at a border", "a swapped pair over a border", "several"))
def test_what_is_wrong_is_named_the_same_by_any_number_of_processes(folder: Path, name: str) -> None:
    edit(folder, *DAMAGES[name])
    assert require_same(folder).findings


def test_a_whole_log_is_whole_for_any_number_of_processes(folder: Path) -> None:
    report = require_same(folder)
    assert (report.ok, report.domains[0].events) == (True, LAST)
    assert report_of(folder, 3) == report


def test_a_redaction_is_explained_in_another_range(folder: Path) -> None:
    redact(folder, 1, 999, 1_001, 3_400)
    report = require_same(folder)
    assert [finding for finding in report.findings if finding.kind == "format"] == []
    assert report.domains[0].redacted == 4
    edit(folder, "UPDATE event SET data = NULL, salt = NULL, digest = zeroblob(32) WHERE position = 2")
    assert [finding.position for finding in require_same(folder).findings if "no later redact event" in finding.message] == [2]


@pytest.mark.parametrize("part", [1, 2, 3])
def test_a_destroyed_page_is_named_the_same(folder: Path, part: int) -> None:
    content = bytearray(db(folder).read_bytes())
    start = len(content) // 8_192 * part // 4 * 8_192
    content[start : start + 8_192] = bytes(8_192)
    db(folder).write_bytes(content)
    alone = report_of(folder, 1)
    assert not alone.ok
    assert msgspec.json.encode(report_of(folder, 3)) == msgspec.json.encode(alone)


def test_a_pointer_file_that_lies_is_named_the_same(folder: Path) -> None:
    assert [path.suffix for path in sorted((folder / "logs" / DOMAIN / "pointers").iterdir())] == [".ids", ".keys"]
    edit(folder, "UPDATE event SET key = '[\"other\"]' WHERE position = 3", "UPDATE event SET meta = NULL WHERE position = 1001")
    report = require_same(folder)
    assert [finding.position for finding in report.findings if finding.kind == "pointers"] == [LAST, LAST]


def test_progress_rises_and_ends_at_the_head(folder: Path) -> None:
    told: list[tuple[str, int, int]] = []
    with eventstore.open(folder, read_only=True) as store:
        assert store.verify(processes=2, progress=lambda *args: told.append(args)).ok
    assert told == sorted(set(told))
    assert told[-1] == (DOMAIN, LAST, LAST)


# ---- processes that fail


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o700)
    return str(path)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo no luck >&2; exit 3", "ended with code 3: no luck"),
        ("kill -9 $$", "was killed by signal 9"),
        ("printf abc", "answered what cannot be read"),
        (None, "could not start a process"),
    ],
)
def test_a_process_that_fails_is_a_finding(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str | None, said: str
) -> None:
    monkeypatch.setattr(sys, "executable", script(tmp_path / "python", body) if body else str(tmp_path / "nothing"))
    (finding,) = report_of(folder, 2).findings
    assert (finding.kind, finding.position) == ("unjudged", None)
    assert said in finding.message
    require_nobody_left()


def test_a_process_that_takes_a_range_and_says_nothing_is_an_error(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", script(tmp_path / "python", "head -c 16 >/dev/null; exit 0"))
    tickets = Tickets([(0, 1_000)])
    task = Task(DOMAIN, LAST, [], 0)
    with Crew([db(folder)], task, tickets, 1) as crew:
        assert list(crew.rest()) == []
    assert os.read(tickets.descriptor, 16) == b"", "the range was taken: verify misses it among the answers"
    tickets.close()


def test_a_log_that_cannot_be_opened_elsewhere_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="No such file or directory"):
        by_others([db(tmp_path)], Task(DOMAIN, LAST, [], 0), [(0, LAST)], processes=2)
    require_nobody_left()


def test_an_interrupt_leaves_no_process_behind(folder: Path) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with eventstore.open(folder, read_only=True) as store, pytest.raises(KeyboardInterrupt):
        store.verify(processes=3, progress=interrupt)
    require_nobody_left()


def require_nobody_left() -> None:
    assert [thread for thread in threading.enumerate() if thread.name == "eventstore-verify"] == []
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# ---- where it runs


def test_a_script_without_a_main_guard_among_modules_of_our_name(folder: Path, tmp_path: Path) -> None:
    """The other processes import what this one does, whatever lies in the current folder, and do not run the script again."""
    (tmp_path / "eventstore").mkdir()
    (tmp_path / "eventstore" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "scripts").mkdir()
    program = tmp_path / "scripts" / "program.py"
    program.write_text(
        f"import eventstore\nstore = eventstore.open({str(folder)!r}, read_only=True)\nprint(store.verify(processes=3).ok)\n"
    )
    done = subprocess.run([sys.executable, program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_memory_is_verified_by_one_process() -> None:
    with eventstore.open("memory:") as store:
        store.domain(DOMAIN).write_values([(f"key-{n}", n) for n in range(2_500)])
        assert store.verify(processes=4) == store.verify(processes=1)
        assert store.verify().ok


@pytest.mark.parametrize("processes", [0, -1, True, 1.5, "2"])
def test_a_number_of_processes_that_is_none_is_refused(folder: Path, processes: Any) -> None:
    with eventstore.open(folder, read_only=True) as store, pytest.raises(ConfigError, match="processes is a whole number"):
        store.verify(processes=processes)


def test_short_logs_are_not_shared_unless_asked() -> None:
    assert processes_for(None, PROCESS_EVENTS) == 1
    assert processes_for(3, 10) == 3


def test_a_range_starts_behind_two_events_that_can_be_read(folder: Path) -> None:
    edit(folder, "DELETE FROM event WHERE position = 1999", "UPDATE event SET position = 4000 WHERE position = 3000")
    files = LogFiles(DOMAIN, lambda: [db(folder)], busy_timeout_ms=1_000)
    try:
        assert ranges_of(files, LAST, 2) == [(0, 1_000), (1_000, LAST)]
        assert ranges_of(files, LAST, 1) == [(0, LAST)]
    finally:
        files.close()
