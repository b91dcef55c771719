"""What a process does to a folder, call by call in order: shim.c writes it down, this page builds it and reads it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

SOURCE = Path(__file__).with_name("shim.c")
_VARIABLES = ("SHIM_ROOT", "SHIM_LOG", "SHIM_FAULT", "SHIM_LIE")

Kind = Literal["C", "D", "W", "T", "S", "F", "R", "L", "U", "M"]
"""File created, folder made, bytes written, length set, synced, sync failed, renamed, linked, removed, mark (shim.c)."""


class Record(msgspec.Struct, frozen=True, array_like=True):
    """One change, as shim.c describes it. Paths are those of the recorded process."""

    kind: Kind
    inode: int
    number: int
    path: str
    second: str
    content: bytes

    @property
    def said(self) -> dict[str, Any]:
        """What a mark says."""
        said: dict[str, Any] = json.loads(self.content)
        return said


def build(folder: Path) -> Path:
    """Compile the shim into `folder`. A machine without a C compiler cannot run these tests, and is told so."""
    target = folder / "shim.so"
    command = [
        os.environ.get("CC", "cc"),
        "-shared",
        "-fPIC",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pthread",
        "-o",
        str(target),
        str(SOURCE),
    ]
    assert shutil.which(command[0]), f"no C compiler ({command[0]}): the tests of power loss and I/O errors build {SOURCE.name} with it"
    built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert built.returncode == 0, built.stderr
    return target


def read(log: Path) -> list[Record]:
    """The records of a log, in order. Raises ValueError for one that is not whole."""
    content, records, at = log.read_bytes(), [], 0
    while at < len(content):
        start = content.index(b"\n", at) + 1
        kind, *numbers = content[at:start].decode("ascii").split()
        inode, number, path, second, length = map(int, numbers)
        middle, end = start + path + second, start + path + second + length
        if end > len(content):
            raise ValueError(f"{log}: the record at byte {at} is cut off")
        names = content[start : start + path].decode(), content[start + path : middle].decode()
        records.append(msgspec.convert((kind, inode, number, *names, content[middle:end]), Record))
        at = end
    return records


def _shim() -> ctypes.CDLL:
    """The shim inside this process, which must have been started with it."""
    library = ctypes.CDLL(None)
    assert hasattr(library, "shim_mark"), "this process runs without the shim"
    return library


@contextlib.contextmanager
def recorded(root: Path, log: Path | None, *, fault: str = "", lie: bool = False) -> Iterator[None]:
    """Write down what this process, and those it starts, change under `root`; refuse what `fault` names (shim.c)."""
    values = (os.path.realpath(root), str(log or ""), fault, "yes" if lie else "")
    os.environ.update(zip(_VARIABLES, values, strict=True))
    _shim().shim_reload()
    try:
        yield
    finally:
        for name in _VARIABLES:
            del os.environ[name]
        _shim().shim_reload()


def mark(**said: Any) -> None:
    """Put a mark between the records: whatever stands before it was done when it was said."""
    content = json.dumps(said).encode()
    _shim().shim_mark(content, ctypes.c_size_t(len(content)))


def count(what: Literal["sync", "write", "name"]) -> int:
    """How many calls of a kind this process has made under the root since recorded() began."""
    shim = _shim()
    shim.shim_count.restype = ctypes.c_long
    return int(shim.shim_count(what.encode()))
