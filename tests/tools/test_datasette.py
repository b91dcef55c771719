"""datasette, in a virtual environment of its own, beside a store: it reads what was exported, and a live log, and harms neither.

DATASETTE names its command; .ci/run installs it. `--get` answers one request without a server.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import eventstore as library
from tests.tools.command import done

pytestmark = pytest.mark.datasette

LOG = f"{0:020d}"


def asked(*words: object) -> Any:
    """What datasette answers, as JSON."""
    ran = subprocess.run([os.environ["DATASETTE"], *map(str, words)], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(ran.stdout)


def test_it_shows_and_searches_an_export_and_changes_nothing(tmp_path: Path) -> None:
    with library.open(tmp_path / "data") as store:
        for number in range(30):
            store.domain("notes").write_value(("note", number), {"text": f"<script>alert({number})</script> fox{number}"})
    path = tmp_path / "out.db"
    done("export", tmp_path / "data", "--sqlite", path, "--search")
    before = path.read_bytes()
    assert [row["position"] for row in asked(path, "--get", "/out/event.json?_shape=array&_search=fox7")] == [8]
    assert asked("-i", path, "--get", "/out/state.json?_shape=array&_size=1&key_2=3")[0]["value"].endswith('fox3"}')
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.glob("out.db-*")] == []


def test_it_follows_a_live_log_unless_it_is_told_that_nothing_changes(tmp_path: Path) -> None:
    with library.open(tmp_path / "data") as store:
        store.domain("notes").write_value("a", 1)
    with library.open(tmp_path / "data") as store:
        notes = store.domain("notes")
        notes.write_value("b", 2)
        log, query = tmp_path / "data" / "logs" / "notes" / f"{LOG}.db", f"/{LOG}/event.json?_shape=array&_col=position"
        assert [row["position"] for row in asked(log, "--get", query)] == [0, 1, 2]
        assert [row["position"] for row in asked("-i", log, "--get", query)] == [0, 1], "immutable would do: say so in README"
        assert notes.write_value("c", 3).position == 3
        assert [row["position"] for row in asked(log, "--get", query)] == [0, 1, 2, 3]
        assert store.verify().ok
    assert done("verify", tmp_path / "data", "--json").json()["domains"][0]["events"] == 3
