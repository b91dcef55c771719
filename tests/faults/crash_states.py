"""What a disk may hold after the power failed: rebuilt from a recording, state by state.

What was synced is there. Of what was done to a file since its last sync, anything may be: nothing, all, a beginning, any
part, torn sectors, only the end, in another order, or a length without its bytes. Names are kept by one of two models:

    posix   a name is durable once its folder was synced; of the other changes any may be missing
    ext4    any sync makes all earlier changes of names durable; of those after it there is a beginning
    gate    as posix; and what a sync that failed should have written may be missing for ever, whatever later syncs say

A -shm may hold anything. survival.py judges the states, and makes one of them again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from tests.faults.disk import Change, Disk, NameChange, Node, apply_change
from tests.faults.recorder import Record, read

SECTOR = 512
Model = Literal["posix", "ext4", "gate"]


# What the disk kept of a file's unsynced changes

Kept = Callable[[Sequence[Change], random.Random], Sequence[Change]]


def _none(changes: Sequence[Change], chance: random.Random) -> Sequence[Change]:
    return []


def _all(changes: Sequence[Change], chance: random.Random) -> Sequence[Change]:
    return changes


def _beginning(changes: Sequence[Change], chance: random.Random) -> Sequence[Change]:
    return changes[: chance.randint(0, len(changes))]


def _end(changes: Sequence[Change], chance: random.Random) -> Sequence[Change]:
    return changes[-chance.randint(1, 3) :]


def _part(changes: Sequence[Change], chance: random.Random) -> Sequence[Change]:
    share = chance.choice([0.1, 0.5, 0.9])
    return [change for change in changes if chance.random() < share]


def _sectors(changes: Sequence[Change], chance: random.Random) -> Sequence[Change]:
    share, kept = chance.choice([0.5, 0.9, 0.98]), []
    for change in changes:
        if change.content is None:
            kept.append(change)
            continue
        at = change.offset
        while at < change.end:
            end = min(change.end, at - at % SECTOR + SECTOR)
            if chance.random() < share:
                kept.append(Change(at, change.content[at - change.offset : end - change.offset]))
            at = end
    return kept


def _last_torn(changes: Sequence[Change], chance: random.Random) -> Sequence[Change]:
    some = _beginning(changes, chance)
    return [*some[:-1], *_sectors(some[-1:], chance)]


def _shuffled(changes: Sequence[Change], chance: random.Random) -> Sequence[Change]:
    some = list(_part(changes, chance))
    chance.shuffle(some)
    return some


def _lengths(changes: Sequence[Change], chance: random.Random) -> Sequence[Change]:
    """Every length is kept, of the bytes only some: the rest of what the file grew by reads as zeros."""
    size, kept = 0, []
    for change in changes:
        if change.content is None or chance.random() < 0.5:
            kept.append(change)
        else:
            size = max(size, change.end)
    return [*kept, Change(size, b"")] if size else kept


STRATEGIES: list[Kept] = [_none, _all, _beginning, _end, _part, _sectors, _last_torn, _shuffled, _lengths]


# Crash states


def after_power_loss(disk: Disk, model: Model, chance: random.Random) -> dict[str, bytes | None]:
    """One state that may be found: the content of each file, None for a folder, by path below the root."""
    folders: dict[Node, dict[str, Node]] = {}
    for change in _surviving_names(disk, model, chance):
        for folder, name, node in change.entries:
            entries = folders.setdefault(folder, {})
            entries.pop(name, None)
            if node is not None:
                entries[name] = node
    # Often all files fare alike; else each for itself.
    alike = chance.choice(STRATEGIES) if chance.random() < 0.5 else None
    contents: dict[Node, bytes] = {}
    found: dict[str, bytes | None] = {}
    waiting = [("", disk.top)]
    while waiting:
        prefix, folder = waiting.pop()
        for name, node in sorted(folders.get(folder, {}).items()):
            if node.is_folder:
                found[prefix + name] = None
                waiting.append((f"{prefix}{name}/", node))
            else:
                if node not in contents:
                    contents[node] = _content(node, alike or chance.choice(STRATEGIES), model, chance)
                found[prefix + name] = contents[node]
                if name.endswith(".db") and chance.random() < 0.1:
                    found[f"{prefix}{name}-shm"] = chance.randbytes(chance.choice([0, 100, 32_768]))
    return found


def _surviving_names(disk: Disk, model: Model, chance: random.Random) -> list[NameChange]:
    if model == "ext4":
        return disk.names[: chance.randint(disk.settled, len(disk.names))]
    share = chance.choice([0.0, 0.5, 1.0])
    return [change for change in disk.names if change.durable or chance.random() < share]


def _content(node: Node, strategy: Kept, model: Model, chance: random.Random) -> bytes:
    content = bytearray(node.durable)
    for change in node.doubtful if model != "gate" else _part(node.doubtful, chance):
        apply_change(content, change)
    for change in strategy(node.unsynced, chance) if node.unsynced else ():
        apply_change(content, change)
    return bytes(content)


class State(msgspec.Struct, frozen=True):
    """A crash state: after how many records the power failed, and what was there then."""

    number: int
    instant: int
    model: Model
    files: dict[str, bytes | None]

    def write(self, folder: Path) -> None:
        """Put it on a disk, into a new folder."""
        folder.mkdir()
        for name, content in sorted(self.files.items()):
            if content is None:
                (folder / name).mkdir()
            else:
                (folder / name).write_bytes(content)


class _Start(msgspec.Struct):
    """Where the recorded processes saw `root` (a trace may be moved), and the inodes that stood in it."""

    root: str
    inodes: dict[str, int]


class Trace:
    """A recording in a folder: `before`, a copy of what stood, `start.json`, `log`, and `root`, what came of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root, self.before, self.log = folder / "root", folder / "before", folder / "log"
        self._start = folder / "start.json"
        self._records: list[Record] = []

    @property
    def records(self) -> list[Record]:
        """What happened, in order."""
        self._records = self._records or read(self.log)
        return self._records

    def begin(self) -> None:
        """Note what stands in `root` before the recording."""
        paths = [self.root, *sorted(self.root.rglob("*"))]
        known = {str(path.relative_to(self.root)): path.stat().st_ino for path in paths}
        self._start.write_bytes(msgspec.json.encode(_Start(os.path.realpath(self.root), known)))
        for path in paths:
            copy = self.before / path.relative_to(self.root)
            copy.mkdir() if path.is_dir() else copy.write_bytes(path.read_bytes())

    def require_complete(self) -> None:
        """Hold the record against what came of it: a call that the shim does not know would make every state a wrong one."""
        disk = self.disk()
        for record in self.records:
            disk.apply(record)
        there = {str(path.relative_to(self.root)): None if path.is_dir() else path.read_bytes() for path in self.root.rglob("*")}
        recorded, found = (
            {name: content for name, content in names.items() if not name.endswith("-shm")} for names in (disk.seen(), there)
        )
        found["."] = None
        wrong = sorted(name for name in recorded.keys() | found.keys() if recorded.get(name, b"-") != found.get(name, b"-"))
        assert not wrong, f"the record leads to something else than what is in {self.root}: {wrong}"

    def disk(self) -> Disk:
        """The disk as the recording found it."""
        start = msgspec.json.decode(self._start.read_bytes(), type=_Start)
        disk = Disk(self.before, start.root)
        disk.know({str(PurePosixPath(start.root) / path): inode for path, inode in start.inodes.items()})
        return disk

    def states(self, seed: str, numbers: Sequence[int], models: Sequence[Model]) -> Iterator[State]:
        """The crash states of these numbers, in the order of their instants. Each follows from seed and number alone."""
        chances = {number: random.Random(f"{seed}/{number}") for number in numbers}
        instants = sorted((chance.randint(0, len(self.records)), number) for number, chance in chances.items())
        disk, done = self.disk(), 0
        for instant, number in instants:
            for record in self.records[done:instant]:
                disk.apply(record)
            done = instant
            model = chances[number].choice(models)
            yield State(number, instant, model, after_power_loss(disk, model, chances[number]))
