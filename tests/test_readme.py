"""README.md tells the truth: its commands run, their output is what it shows, its Python runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import eventstore
from eventstore.adapters.contracts import CONTRACTS
from eventstore.tools.client import client
from eventstore.tools.serve import PORT
from tests.tools.command import done as answered
from tests.tools.node import STAND_IN, node
from tests.tools.served import Server

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)

# What differs from run to run stands for itself: times, checksums.
_VARIES = [
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"), "TIME"),
    (re.compile(r"\b[0-9a-f]{12,64}\b"), "CHECKSUM"),
    (re.compile(r"waited [\d,]+ ms"), "waited MS"),
]


def _settled(text: str) -> list[str]:
    for pattern, name in _VARIES:
        text = pattern.sub(name, text)
    return [line.rstrip() for line in text.strip().splitlines()]


def _blocks(language: str) -> list[str]:
    return [body for found, body in BLOCKS if found == language]


@pytest.fixture
def command(tmp_path: Path) -> dict[str, str]:
    """An environment in which `eventstore` is this checkout's command."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "eventstore"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m eventstore "$@"\n')
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def _printed(line: str, folder: Path, command: dict[str, str]) -> str:
    """What a command prints: one that needs a shell in a shell, and any other in this process, where none has to start."""
    program, *words = shlex.split(line, comments=True)
    if program == "eventstore" and not {"|", ">", ">>", "&&", ";"} & set(words):
        return answered(*words).out
    done = subprocess.run(line, shell=True, cwd=folder, env=command, capture_output=True, text=True, check=False)  # noqa: S602
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(600)  # dozens of processes, one after the other: beside others that takes minutes
def test_the_commands_give_what_readme_shows_and_its_python_runs(
    tmp_path: Path, command: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As somebody who follows it from the first line on, in one folder."""
    monkeypatch.chdir(tmp_path)
    steps = 0
    for language, body in BLOCKS:
        if language == "python":
            done = subprocess.run([sys.executable, "-c", body], cwd=tmp_path, env=command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        for step in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:] if language == "console" else ():
            steps += 1
            line, _, shown = step.partition("\n")
            assert _settled(_printed(line, tmp_path, command)) == _settled(shown), line
    assert steps >= 8


def test_the_typescript_example_runs(tmp_path: Path) -> None:
    """As JavaScript, which it is too, with a stand-in for the engine; on the server that it asks for, but for the port."""
    (example,) = _blocks("ts")
    package = tmp_path / "node_modules" / "backtest-kit"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"name": "backtest-kit", "exports": "./engine.mjs"}')
    shutil.copy(STAND_IN, package / "engine.mjs")
    (tmp_path / "persist.mjs").write_text(client(), encoding="utf-8")
    with Server(tmp_path / "live-data") as server:
        assert f'"http://127.0.0.1:{PORT}"' in example
        (tmp_path / "example.mjs").write_text(example.replace(f"http://127.0.0.1:{PORT}", server.url))
        done = subprocess.run([node(), "example.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"on the server: {', '.join(CONTRACTS)}\n"
    with eventstore.open(tmp_path / "live-data" / "ns" / "bot-1", read_only=True) as store:
        assert list(store.domain("signal").keys()) == [("BTCUSDT", "my_strategy", "binance")]


def test_the_two_commands_are_the_ones_that_ci_runs() -> None:
    run, test = (body.strip() for body in _blocks("sh"))
    assert run == "python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/eventstore demo"
    assert test == "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/pytest"
    ci = (ROOT / ".ci" / "run").read_text()
    assert "README.md" in ci or (run in ci and test in ci)


def test_every_command_is_named() -> None:
    listed = subprocess.run([sys.executable, "-m", "eventstore", "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"^  (\w+)  ", listed.partition("Commands:")[2], re.MULTILINE)
    assert len(commands) == 27
    assert [name for name in commands if f"`eventstore {name}`" not in README] == []


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
