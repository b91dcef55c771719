"""A folder as processes see it, and what of it would outlast a power loss: changes of files and of names, call by call."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

from tests.faults.recorder import Record


class Change(msgspec.Struct, frozen=True):
    """Bytes written at an offset; or, without bytes, a length that was set."""

    offset: int
    content: bytes | None

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + len(self.content or b"")


class Node(msgspec.Struct, eq=False):
    """A file or a folder. `unsynced` came after the last sync; `doubtful` was lost by one that failed, perhaps."""

    durable: bytearray = msgspec.field(default_factory=bytearray)
    unsynced: list[Change] = msgspec.field(default_factory=list)
    doubtful: list[Change] = msgspec.field(default_factory=list)
    is_folder: bool = False

    def sync(self) -> None:
        """What was written so far is there; but what a failed sync lost is only there where it was written again."""
        for change in self.unsynced:
            apply_change(self.durable, change)
            self.doubtful = [rest for doubted in self.doubtful for rest in _without(doubted, change)]
        self.unsynced = []

    def fail(self) -> None:
        """A sync failed: the kernel takes the pages for written, and will not try again."""
        self.doubtful += [change for change in self.unsynced if change.content is not None]
        self.unsynced = [change for change in self.unsynced if change.content is None]


def apply_change(content: bytearray, change: Change) -> None:
    """Let a change happen to a file's content."""
    if change.content is None:
        if change.offset < len(content):
            del content[change.offset :]
        else:
            content.extend(bytes(change.offset - len(content)))
        return
    if change.offset > len(content):
        content.extend(bytes(change.offset - len(content)))
    content[change.offset : change.end] = change.content


def _without(change: Change, other: Change) -> Iterator[Change]:
    """What of `change` lies outside of what `other` wrote later."""
    assert change.content is not None
    if other.content is None:
        start, end = other.offset, max(change.end, other.offset)
    else:
        start, end = other.offset, other.end
    if change.offset < start:
        yield Change(change.offset, change.content[: max(0, start - change.offset)])
    if change.end > end:
        yield Change(max(change.offset, end), change.content[max(0, end - change.offset) :])


class NameChange(msgspec.Struct, eq=False):
    """Entries of folders that change together; durable by the sync of the last one's folder."""

    entries: list[tuple[Node, str, Node | None]]
    durable: bool = False


class Disk:
    """A folder as its processes saw it, and what of it would outlast the power."""

    def __init__(self, before: Path, root: str) -> None:
        """`before` is what the folder `root` held when the recording began, all of it durable."""
        self._root = PurePosixPath(root)
        self.top = Node(is_folder=True)
        self._inodes: dict[int, Node] = {}
        self._paths: dict[PurePosixPath, Node] = {self._root: self.top}
        self.names: list[NameChange] = []
        self.settled = 0
        """How many changes of names the ext4 model takes for durable."""
        for path in sorted(before.rglob("*")):
            node = Node(is_folder=True) if path.is_dir() else Node(durable=bytearray(path.read_bytes()))
            self._add(self._root / path.relative_to(before).as_posix(), node)
        for change in self.names:
            change.durable = True
        self.settled = len(self.names)

    def know(self, inodes: dict[str, int]) -> None:
        """Which inode the recorded process found under each path that stood before it."""
        for path, inode in inodes.items():
            self._inodes[inode] = self._paths[PurePosixPath(path)]

    def apply(self, record: Record) -> None:
        """Let one recorded call happen."""
        path, second = PurePosixPath(record.path), PurePosixPath(record.second)
        match record.kind:
            case "C" | "D":
                self._inodes[record.inode] = node = Node(is_folder=record.kind == "D")
                self._add(path, node)
            case "W":
                self._inodes[record.inode].unsynced.append(Change(record.number, record.content))
            case "T":
                self._inodes[record.inode].unsynced.append(Change(record.number, None))
            case "S":
                self._sync(self._inodes[record.inode])
            case "F":
                self._inodes[record.inode].fail()
            case "R":
                self._rename(path, second)
            case "L":
                self._add(second, self._paths[path])
            case "U":
                del self._paths[path]
                self.names.append(NameChange([(self._paths[path.parent], path.name, None)]))
            case "M":
                pass

    def _add(self, path: PurePosixPath, node: Node) -> None:
        self._paths[path] = node
        self.names.append(NameChange([(self._paths[path.parent], path.name, node)]))

    def _rename(self, old: PurePosixPath, new: PurePosixPath) -> None:
        node = self._paths[old]
        self.names.append(NameChange([(self._paths[old.parent], old.name, None), (self._paths[new.parent], new.name, node)]))
        for path in [path for path in self._paths if path == old or old in path.parents]:
            self._paths[new / path.relative_to(old)] = self._paths.pop(path)

    def _sync(self, node: Node) -> None:
        node.sync()
        self.settled = len(self.names)
        for change in self.names if node.is_folder else ():
            change.durable = change.durable or change.entries[-1][0] is node

    def seen(self) -> dict[str, bytes | None]:
        """What everybody could read, by path below the root: None for a folder."""
        found: dict[str, bytes | None] = {}
        for path, node in self._paths.items():
            content = bytearray(node.durable)
            for change in (*node.doubtful, *node.unsynced):
                apply_change(content, change)
            found[str(path.relative_to(self._root))] = None if node.is_folder else bytes(content)
        return found
