"""What doctor can learn about the machine: SQLite, file systems, and who else has a store's files open."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import msgspec

_NETWORK = {
    "9p",
    "afs",
    "ceph",
    "cifs",
    "davfs",
    "drvfs",
    "glusterfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "prl_fs",
    "smb3",
    "smbfs",
    "vboxsf",
    "virtiofs",
}
_MEMORY = {"ramfs", "tmpfs"}


_MAGIC = {
    0x01021994: "tmpfs",
    0x01021997: "9p",
    0x0BD00BD0: "lustre",
    0x00C36400: "ceph",
    0x2FC12FC1: "zfs",
    0x517B: "smbfs",
    0x5346414F: "afs",
    0x58465342: "xfs",
    0x65735546: "fuse",
    0x6969: "nfs",
    0x786F4256: "vboxsf",
    0x794C7630: "overlay",
    0x858458F6: "ramfs",
    0x9123683E: "btrfs",
    0xEF53: "ext4",
    0xFE534D42: "smb3",
    0xFF534D42: "cifs",
}
"""Linux's numbers of file systems: man 2 statfs, and magic.h of the kernel."""


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether this SQLite can lose a checkpoint's pages to a race (sqlite.org/wal.html#walresetbug).

    Present from 3.7.0 to 3.51.2; 3.44.6 and 3.50.7 are repaired versions of older lines. The code that fails runs in
    whoever checkpoints, so ours never can (RELIABILITY.md R3), but another program's may.
    """
    repaired = (3, 44, 6) <= version < (3, 45) or (3, 50, 7) <= version < (3, 51)
    return (3, 7) <= version <= (3, 51, 2) and not repaired


def is_installed(distribution: str) -> bool:
    """Whether a distribution is installed beside us."""
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


_BUNDLED = re.compile(r"/(?:apsw|cysqlite|pysqlite3|sqlcipher3|sqlean)/[^/]+\.so$")
_STANDARD = re.compile(r"/lib-dynload/_sqlite3\.[^/]+\.so$")


def sqlite_libraries(pid: int) -> list[str]:
    """The files a process has its SQLite from, as far as this user may know; none where there is no /proc."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    files = {line.split(maxsplit=5)[5].removesuffix(" (deleted)") for line in lines if line.count(" /") == 1}
    shared = {file for file in files if os.path.basename(file).startswith("libsqlite3.")}
    standard = set() if shared else {file for file in files if _STANDARD.search(file)}  # then it has SQLite inside
    return sorted(shared | standard | {file for file in files if _BUNDLED.search(file)})


def has_two_libraries(pid: int) -> bool:
    """Whether a process holds two SQLite libraries, as far as this user may know: they drop each other's locks (RELIABILITY.md R4).

    sqlite-utils itself loads the standard library's beside pysqlite3, and uses only one of them.
    """
    return len([file for file in sqlite_libraries(pid) if "/pysqlite3/" not in file]) > 1


class Mount(msgspec.Struct, frozen=True):
    """The file system a path lies on."""

    point: str
    kind: str
    read_only: bool

    @property
    def is_remote(self) -> bool:
        """Reached over a network or a user's program: locks and fsync may not mean what they say."""
        return self.kind in _NETWORK or self.kind.split(".")[0] in {"fuse", "fuseblk"}

    @property
    def is_memory(self) -> bool:
        """Gone with the power."""
        return self.kind in _MEMORY


def mount_of(path: Path, mounts: str) -> Mount | None:
    """The mount that holds `path`, by the longest mount point above it; `mounts` is the text of /proc/self/mounts."""
    found: Mount | None = None
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 4:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1])
        # Of two mounts at one place the later one covers the earlier.
        if path.is_relative_to(point) and (found is None or len(point) >= len(found.point)):
            found = Mount(point, fields[2], "ro" in fields[3].split(","))
    return found


def read_mounts() -> str | None:
    """The table of mounts, None where the system has none to read."""
    try:
        return Path("/proc/self/mounts").read_text(errors="surrogateescape")
    except OSError:
        return None


def kind_of(f_type: int) -> str:
    """The name of a file system by Linux's number for it; one that is not listed stays a number."""
    return _MAGIC.get(f_type & 0xFFFFFFFF, f"{f_type & 0xFFFFFFFF:#x}")


def statfs_kind(path: Path) -> str | None:
    """The file system that `path` lies on, by asking the kernel; None where that is not Linux, or nothing is there."""
    if sys.platform != "linux":
        return None
    answer = ctypes.create_string_buffer(512)  # struct statfs, which begins with f_type, a long
    if ctypes.CDLL(None).statfs(os.fsencode(path), answer):
        return None
    return kind_of(ctypes.c_long.from_buffer(answer).value)


class Process(msgspec.Struct, frozen=True, order=True):
    """A running program."""

    pid: int
    name: str
    program: str
    """The file that runs, where this user may know; a script is called by its own name, and runs in Python."""

    @property
    def may_be_ours(self) -> bool:
        """Python could be any program that uses this library; every other program that opens a log is foreign."""
        return self.program.startswith("python")


def processes() -> Iterator[Process]:
    """All that this user may see, but for ourselves; none where there is no /proc."""
    for entry in sorted(Path("/proc").glob("[0-9]*")):
        if int(entry.name) == os.getpid():
            continue
        try:
            name = (entry / "comm").read_text(errors="replace").strip()
        except OSError:
            continue
        try:
            program = os.path.basename(os.readlink(entry / "exe"))
        except OSError:
            program = name
        yield Process(int(entry.name), name, program)


def processes_are_visible() -> bool:
    """Whether this system shows which files a process has open."""
    return Path("/proc/self/fd").is_dir()


def holders(folder: Path) -> list[Process]:
    """Who has a file below `folder` open, as far as this user may know."""
    return [process for process in processes() if any(path.is_relative_to(folder) for path in _open_files(process.pid))]


def _open_files(pid: int) -> Iterator[Path]:
    try:
        descriptors = list(os.scandir(f"/proc/{pid}/fd"))
    except OSError:
        return
    for descriptor in descriptors:
        try:
            yield Path(os.readlink(descriptor.path))
        except OSError:
            continue


def checkpointers(folder: Path | None) -> list[str]:
    """Signs that a program other than ours checkpoints, or may: each a phrase."""
    signs = [f"{process.name} runs (pid {process.pid})" for process in processes() if process.name == "litestream"]
    if folder is not None:
        signs += [f"{path.name} lies beside a log" for path in sorted(folder.glob("logs/*/.*-litestream"))]
        signs += [
            f"{process.name} (pid {process.pid}) has files of the store open"
            for process in holders(folder)
            if not process.may_be_ours and process.name != "litestream"
        ]
    if is_installed("pysqlite3-binary"):
        signs.append("pysqlite3-binary is installed")
    if has_two_libraries(os.getpid()):
        signs.append("two SQLite libraries are loaded in this process")
    return signs
