"""An engine in Node with the client installed, driven from here call by call: the stand-in of client/engine.mjs, or the real one."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

STAND_IN = Path(__file__).parent / "client" / "engine.mjs"
DRIVE = Path(__file__).parent / "client" / "drive.mjs"
ANSWERED_S = 100
"""Within a test's own time; a call has a shorter one of its own."""


class CallError(Exception):
    """What a call in Node threw."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.name: str = error["name"]
        self.outcome: str | None = error.get("outcome")


class Installed(NamedTuple):
    """What install() gave, and the engine that it was given."""

    engine: Engine
    registered: list[str]
    missing: list[str]
    unknown: list[str]


class Engine:
    """A process of Node. Calls begin in the order in which they are asked for, and do not wait for each other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._answers: dict[int, dict[str, Any]] = {}
        self._calls = 0
        self.warnings: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put(None)

    def line(self) -> dict[str, Any]:
        """The next that Node says. Raises AssertionError with its complaint if it says nothing more."""
        line = self._lines.get(timeout=ANSWERED_S)
        if line is None:
            assert self._process.stderr is not None
            raise AssertionError(self._process.stderr.read())
        return line

    def begin(self, adapter: str, method: str, *args: object) -> int:
        """Make a call, and do not wait for it."""
        self._calls += 1
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": self._calls, "adapter": adapter, "method": method, "args": args}) + "\n")
        self._process.stdin.flush()
        return self._calls

    def end(self, call: int) -> Any:
        """What a call gave, with marks as in the recorded traces. Raises CallError."""
        while call not in self._answers:
            line = self.line()
            if "warning" in line:
                self.warnings.append(line["warning"])
            else:
                self._answers[line["id"]] = line
        answer = self._answers.pop(call)
        if "error" in answer:
            raise CallError(answer["error"])
        return answer["result"]

    def call(self, adapter: str, method: str, *args: object) -> Any:
        """Make a call, and wait for it."""
        return self.end(self.begin(adapter, method, *args))


def node() -> str:
    """The program. Without it the test is skipped, as README's commands need Python alone; `.ci/run` does not begin without it."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("the client for Node is tried in Node 20 or newer, and there is no `node` on the PATH")
    return found


@contextmanager
def engine(
    persist: Path, options: dict[str, Any], *, module: Path = STAND_IN, without: tuple[str, ...] = (), more: dict[str, Any] | None = None
) -> Iterator[Installed]:
    """A process of Node in which the module `persist` is installed into an engine. Raises CallError if install() threw."""
    setup = json.dumps({"options": options, "without": without, "more": more or {}})
    command = [node(), str(DRIVE), str(module), str(persist), setup]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, encoding="utf-8") as process:
        try:
            driven = Engine(process)
            first = driven.line()
            if "error" in first:
                raise CallError(first["error"])
            yield Installed(driven, **first)
        finally:
            process.kill()
