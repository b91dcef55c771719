"""Where and with what a run was made: figures from two machines, or two versions, are not compared."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

import msgspec
from sqlite_utils.utils import sqlite3 as our_sqlite3

PACKAGES = ("eventstore-kit", "msgspec", "sqlite-utils", "eventsourcing", "aett", "eventsource-py", "diskcache", "lmdb")
IN_MEMORY = ("tmpfs", "ramfs")


class Environment(msgspec.Struct, frozen=True):
    """Machine and versions; `date`, `load` and `sync_us` may differ between runs that belong together."""

    date: str
    cpu: str
    cores: int
    system: str
    file_system: str
    python: str
    sqlite: str
    versions: dict[str, str]
    load: float
    """Work that others did just before the run, in cores."""
    sync_us: float
    """The median of an appended page and its fdatasync, the floor under every durable write."""

    def same_place(self, other: Environment) -> bool:
        """Whether rows of both may stand in one table."""
        return msgspec.structs.replace(other, date=self.date, load=self.load, sync_us=self.sync_us) == self


def environment(folder: Path) -> Environment:
    """Look around; `folder` is where the stores will be."""
    return Environment(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        system=f"{platform.system()} {platform.release()}",
        file_system=file_system(folder),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        sqlite=_sqlite(),
        versions={name: _version(name) for name in PACKAGES},
        load=os.getloadavg()[0],
        sync_us=_sync_us(folder),
    )


def scratch() -> Path:
    """A folder for stores that is not in memory: the temporary one if it is on a disk, else the current one."""
    here = [Path(tempfile.gettempdir()), Path.cwd()]
    return next((folder for folder in here if file_system(folder) not in IN_MEMORY), here[0])


def file_system(folder: Path) -> str:
    """The type of the file system a folder is on, "unknown" where the system does not tell."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    path = folder.resolve()
    holding = [(len(point), kind) for point, kind in mounts if path.is_relative_to(point)]
    return max(holding, default=(0, "unknown"))[1]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor() or "unknown")


def _sqlite() -> str:
    ours, peers = our_sqlite3.sqlite_version, sqlite3.sqlite_version
    return ours if ours == peers else f"{ours} (the peers: {peers})"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "source" if package == "eventstore-kit" else "absent"


def _sync_us(folder: Path, count: int = 100) -> float:
    page, times = os.urandom(8192), []
    sync = getattr(os, "fdatasync", os.fsync)
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(count):
            start = time.perf_counter()
            os.write(file.fileno(), page)
            sync(file.fileno())
            times.append(time.perf_counter() - start)
    return round(statistics.median(times) * 1e6, 1)
