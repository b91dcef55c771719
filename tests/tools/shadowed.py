"""A shadow in a process of its own beside a writer in another one, and what may be said of what it recorded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import eventstore as library
from eventstore.codec import decode_key

ROOT = Path(__file__).parents[2]
PATIENCE_S = 90
"""How long something may take on a machine that is busy with other things."""

WRITER = """
import json, os, secrets, sys, time
folder, first, last, files, pause = sys.argv[1], *map(int, sys.argv[2:5]), float(sys.argv[5])
for number in range(first, last + 1):
    name = f"{number % files}.json"
    half = os.path.join(folder, f".tmp-{secrets.token_hex(6)}-{name}")
    with open(half, "w") as file:
        json.dump({"n": number, "fill": "x" * (number % 50)}, file)
    os.rename(half, os.path.join(folder, name))
    time.sleep(pause)
"""
"""Writes versions `first` to `last`, in turn to so many files, as the framework does: a new temporary file each, renamed."""


class Written(NamedTuple):
    """An event of a shadow."""

    number: int
    gap: bool


def environment() -> dict[str, str]:
    """With the checkout to import from."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def start_writer(folder: Path, first: int, last: int, *, files: int = 4, pause: float = 0) -> subprocess.Popen[bytes]:
    """A writer in a process of its own."""
    words = [str(folder), *map(str, (first, last, files, pause))]
    return subprocess.Popen([sys.executable, "-c", WRITER, *words], env=environment())


def write(folder: Path, first: int, last: int, *, files: int = 4) -> None:
    """The same, and wait for its end."""
    assert start_writer(folder, first, last, files=files).wait(PATIENCE_S) == 0


def put(path: Path, text: str) -> None:
    """One version of a document, renamed into place."""
    half = path.with_name(f".tmp-{time.monotonic_ns():x}-{path.name}")
    half.write_text(text)
    half.rename(path)


def until(condition: Callable[[], object], what: str) -> None:
    """Return when `condition` holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.02)


class Follower:
    """`eventstore shadow`, following."""

    def __init__(self, tree: Path, store: Path, *words: str) -> None:
        command = [sys.executable, "-m", "eventstore", "shadow", str(tree), str(store), *words]
        self._said = store.with_name(f"{store.name}.err").open("w+b")
        self.process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=self._said)

    def ready(self) -> None:
        """Wait until it has looked at everything once."""
        until(lambda: "following" in self.err or self.process.poll() is not None, "the shadow follows")
        assert self.process.poll() is None, self.err

    @property
    def err(self) -> str:
        """What it said so far."""
        return os.pread(self._said.fileno(), 10**6, 0).decode()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Its exit code and its report, once it was told to end, or ended by itself."""
        if self.process.poll() is None and number:
            self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        self._said.close()
        return self.process.returncode, out.decode()


@contextmanager
def following(tree: Path, store: Path, *words: str) -> Iterator[Follower]:
    """A shadow that follows while the block runs."""
    follower = Follower(tree, store, *words)
    try:
        follower.ready()
        yield follower
    finally:
        if follower.process.poll() is None:
            follower.process.kill()
        if follower.process.returncode is None:
            follower.process.communicate()


def values(store: Path, domain: str = "a") -> dict[object, object]:
    """What a store holds now; nothing if it is not made yet."""
    if not (store / "store.json").exists():
        return {}
    with library.open(store, read_only=True) as opened:
        return dict(opened.domain(domain).items()) if domain in opened.domains() else {}


def story(store: Path) -> dict[str, list[Written]]:
    """The versions that were recorded of each file of a writer, in order; each one that existed, each once."""
    found: dict[str, list[Written]] = {}
    with library.open(store, read_only=True) as opened:
        for event in opened.domain("a").events():
            if event.op == "put":
                value, meta = json.loads(event.data or ""), json.loads(event.meta or "{}")
                assert value == {"n": value["n"], "fill": "x" * (value["n"] % 50)}
                found.setdefault(str(decode_key(event.key)), []).append(Written(value["n"], "gap" in meta.get("tags", ())))
        assert opened.verify().ok
    return found


def require_honest(store: Path, first: int, last: int, *, files: int = 4) -> tuple[int, int]:
    """The versions rise, the last ones are there, and none is missing untold. Gives how many were recorded, and how many untagged."""
    found = story(store)
    final = {str(number % files): number for number in range(last - files + 1, last + 1)}
    assert {key: told[-1].number for key, told in found.items()} == final
    for key, told in found.items():
        before = first + (int(key) - first) % files - files
        for number, gap in told:
            assert number > before, (key, told)
            assert gap or number == before + files, f"{key}: {before} is followed by {number}, and nothing says that versions are missing"
            before = number
    every = [each for told in found.values() for each in told]
    return len(every), sum(not each.gap for each in every)
