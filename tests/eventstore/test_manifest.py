"""store.json: what it says of the logs, and how often it is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import eventstore
from eventstore.files import replace_file
from tests.tools.command import done

NAMES = [f"domain-{number}" for number in range(5)]


def heads(folder: Path) -> dict[str, int]:
    """The positions in store.json."""
    return {name: head["position"] for name, head in json.loads((folder / "store.json").read_text())["heads"].items()}


@pytest.mark.parametrize("fails", [False, True], ids=["all", "all but one"])
def test_closing_writes_store_json_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    written: list[dict[str, int]] = []

    def noted(path: Path, content: bytes) -> None:
        replace_file(path, content)
        written.append(heads(path.parent))

    folder = tmp_path / "data"
    store = eventstore.open(folder, busy_timeout_ms=0)
    for name in NAMES:
        store.domain(name).write_value("k", 1)
    assert heads(folder) == dict.fromkeys(NAMES, 0)
    monkeypatch.setattr("eventstore.manifest.replace_file", noted)
    expected = dict.fromkeys(NAMES, 1)
    if fails:
        with subprocess.Popen(
            [sys.executable, "-c", "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, 2); print(flush=True); input()",
             str(folder / "logs" / NAMES[2] / "head")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as holder:  # fmt: skip
            assert holder.stdout is not None
            holder.stdout.readline()
            with pytest.raises(eventstore.UnavailableError):
                store.close()
            holder.communicate(b"\n")
        assert written == [expected | {NAMES[2]: 0}], "what could be closed is on record"
        written.clear()
    store.close()
    assert written == [expected]
    store.close()
    with eventstore.open(folder) as again:
        for name in NAMES:
            assert again.domain(name).read_value("k") == 1
    assert written == [expected], "what nobody wrote to is as it is on record"


def test_a_process_that_is_killed_while_it_closes_costs_nothing(tmp_path: Path) -> None:
    """Every log is closed, and store.json knows none of that: the witnesses do."""
    script = """import os, sys, eventstore
from eventstore import manifest
store = eventstore.open(sys.argv[1])
for name in sys.argv[2:]:
    store.domain(name).write_value("k", 1)
manifest._raise_heads = lambda *_: os._exit(9)
store.close()
"""
    folder = tmp_path / "data"
    assert subprocess.run([sys.executable, "-c", script, str(folder), *NAMES], check=False).returncode == 9
    assert heads(folder) == dict.fromkeys(NAMES, 0)
    done("verify", folder)
    with eventstore.open(folder) as store:
        for name in NAMES:
            assert store.domain(name).read_value("k") == 1
    assert heads(folder) == dict.fromkeys(NAMES, 1)
