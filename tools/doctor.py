"""Examine this machine and a store on it.

Python, SQLite, disk, permissions, clock, and whether sealed files are where the log says: every line is ok, warn or bad.
Without STORE only the machine is looked at.
Nothing is changed without --fix, which puts right what cannot cost an event or a proof, and names it: modes that let
others look in, leftovers of killed processes, wrong pointer files, a long WAL. A damaged log it leaves alone.
Exit 1 if anything is bad or could not be put right, 2 if the store cannot be read.

Example:
  eventstore doctor
  eventstore doctor data
  eventstore doctor data --fix
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from sqlite_utils.utils import sqlite3

from eventstore import copies, manifest
from eventstore.archive import begun_in, why_left
from eventstore.archived import latest
from eventstore.clock import format_us, now_us
from eventstore.errors import ConfigError, EventStoreError
from eventstore.files import os_errors, stat_or_none
from eventstore.log import FileLog
from eventstore.opening import open_store
from eventstore.store import Store
from eventstore.tools.fixes import WAL_LIMIT as _WAL_WARN
from eventstore.tools.fixes import Fix, fix
from eventstore.tools.machine import (
    Mount,
    checkpointers,
    has_two_libraries,
    has_wal_reset_bug,
    holders,
    is_installed,
    mount_of,
    read_mounts,
    sqlite_libraries,
    statfs_kind,
)
from eventstore.tools.terminal import Paint, count_text, escape, size_text

Status = Literal["ok", "warn", "bad"]

_FREE_BAD, _FREE_WARN = 64 * 2**20, 2**30
_AHEAD_WARN_US, _AHEAD_BAD_US = 2_000_000, 60_000_000
_NO_CLOCK_US = 1_704_067_200_000_000
"""2024-01-01: a clock before it was never set."""


class Check(msgspec.Struct, frozen=True):
    """One thing looked at."""

    name: str
    status: Status
    message: str


class DoctorReport(msgspec.Struct, frozen=True):
    """Everything looked at."""

    store: str | None
    checks: list[Check]
    fixes: list[Fix] | None = None
    """What was put right or left before the checks, None if nobody asked for it."""

    @property
    def exit_code(self) -> int:
        """1 if anything is bad, or was to be put right and could not be."""
        return int(any(check.status == "bad" for check in self.checks) or any(not each.fixed for each in self.fixes or []))


def doctor(store: str | None, *, fixing: bool = False) -> DoctorReport:
    """Look at the machine, and at the store in the folder `store`; `fixing` puts right first what safely can be.

    Raises NotAStoreError and the like if the store cannot be read, ConfigError for `fixing` without a store.
    """
    folder = None if store is None else copies.opened(Path(os.path.realpath(store)), read_only=False)
    if fixing and folder is None:
        raise ConfigError("--fix puts a store right: name it, `eventstore doctor STORE --fix`")
    with os_errors(f"looking at {store}"):
        return _examined(store, folder, fix(folder) if fixing and folder is not None else None)


def _examined(store: str | None, folder: Path | None, fixes: list[Fix] | None) -> DoctorReport:
    checks = [_python(), _sqlite(folder), *_bindings()]
    if folder is None:
        return DoctorReport(store, [*checks, _clock(None)])
    domains, elsewhere = _domains(folder)
    checks += [_store(folder), *_file_system(folder, read_mounts()), *_permissions(folder), _open_elsewhere(folder)]
    checks += [check for _, check in domains if check is not None] + elsewhere
    checks += [_clock(max((latest for latest, _ in domains if latest is not None), default=None)), *_wal(folder), _space(folder)]
    return DoctorReport(store, checks, fixes)


def render(report: DoctorReport, paint: Paint) -> Iterator[str]:
    """One line a fix, then one line a check."""
    for each in report.fixes or []:
        word, status, end = ("fixed", "ok", f"; now {each.after}") if each.fixed else ("left", "warn", f"; {each.message}")
        yield f"{paint(f'{word:5}', status)} {each.name}  {escape(f'{each.path}: {each.before}{end}')}"
    if report.fixes is not None:
        yield f"{count_text(sum(each.fixed for each in report.fixes), 'thing')} put right"
    width = max(len(check.name) for check in report.checks)
    for check in report.checks:
        yield f"{paint(f'{check.status:4}', check.status)}  {check.name:{width}}  {escape(check.message)}"


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check("python", "ok", f"{platform.python_implementation()} {version} on {platform.system()} {platform.machine()}")


def _sqlite(folder: Path | None) -> Check:
    """Affected alone is no danger to us: our checkpoints hold the lock that closes the race."""
    library = f"{sqlite3.sqlite_version}, through {sqlite3.__name__.split('.')[0]}"
    if not has_wal_reset_bug(sqlite3.sqlite_version_info):
        return Check("sqlite", "ok", f"{library}; free of the WAL-reset bug")
    message = f"{library}; has the WAL-reset bug: harmless between our own processes, not beside another program that checkpoints"
    signs = checkpointers(folder)
    if signs:
        return Check("sqlite", "bad", f"{message}: {'; '.join(signs)}. Stop that, and install eventstore-kit[sqlite] for a newer SQLite")
    return Check("sqlite", "warn", f"{message}. eventstore-kit[sqlite] brings a newer SQLite")


def _bindings() -> Iterator[Check]:
    if is_installed("pysqlite3-binary"):
        yield Check(
            "bindings", "bad", "pysqlite3-binary takes the name of pysqlite3 with an affected SQLite: uninstall it, install pysqlite3"
        )
    if has_two_libraries(os.getpid()):
        libraries = ", ".join(sqlite_libraries(os.getpid()))
        yield Check(
            "bindings",
            "warn",
            f"two SQLite libraries are loaded ({libraries}): open a store's files through one of them only, or locks are lost",
        )


def _store(folder: Path) -> Check:
    found = manifest.load(folder)
    return Check("store", "ok", f"{found.store_id}, format {found.format}, made {format_us(found.created_us)}")


def _domains(folder: Path) -> tuple[list[tuple[int | None, Check | None]], list[Check]]:
    """For each domain its latest recorded time, or the check that says why it cannot be read; and what is said of their sealed files."""
    found: list[tuple[int | None, Check | None]] = []
    elsewhere: list[Check] = []
    with open_store(folder, read_only=True) as store:
        for name in store.domains():
            try:
                event = next(store.domain(name).events(reverse=True, limit=1), None)
                elsewhere += _elsewhere(store, name)
            except EventStoreError as error:
                found.append((None, Check("domain", "bad", str(error))))
            else:
                found.append((event.recorded_us if event else None, None))
    return found, elsewhere


def _elsewhere(store: Store, name: str) -> Iterator[Check]:
    """Where sealed files are, as the log says, against what is there, and can be opened. Their bytes are verify's to prove."""
    live = store.domain(name).group.live
    log = live.log
    if not isinstance(log, FileLog):
        return
    for path, why in log.unseen([]):
        yield Check("files", "bad", f"{name}: {path} cannot be read: {why}")
    begun = begun_in(log)
    if not (log.missing() or log.leftovers() or begun):
        return
    said = latest(log.archived(live.states.system))
    for move in begun:
        if (left := why_left(log, move, said.get(move.first))) is not None:
            yield Check("archives", "warn", f"{name}: {left}")
    for file in said.values():
        copy, where = file.path(store.store_id, name), f"{name}: positions {file.first} to {file.last}"
        with os_errors(f"looking for {copy}"):
            there = copy is None or stat_or_none(copy) is not None
        if file.first in log.leftovers():
            went = f"were archived to {file.to}" if copy is not None else "were deleted"
            now = "the next opening for writing removes it" if there else f"it stays, as there is no {copy}, until it is archived anew"
            yield Check("archives", "warn", f"{where} {went}, and their file is still in the store, or here again; {now}")
        elif not there:
            told = f"{where} were archived to {file.to}, and no {copy} is there now: find it, or mount what it is on"
            yield Check("archives", "warn", f"{told}; only what every key was after them can be read")
    for first, last in log.missing():
        if first not in said:
            yield Check("archives", "bad", f"{name}: the file of positions {first} to {last} is gone, and no event says where: put it back")
    kept = live.pointers.kept()
    if log.floor() and (not kept or kept[-1].until.position < log.floor()):
        yield Check(
            "archives", "bad", f"{name}: event ids of what is elsewhere are not kept; `eventstore verify` says which, and what to do"
        )
    places = sorted({"deleted" if file.to is None else f"archived to {file.to}" for file in said.values()})
    if places:
        yield Check("archives", "ok", f"{name}: {count_text(len(said), 'sealed file')} {', '.join(places)}")


def _file_system(folder: Path, mounts: str | None) -> Iterator[Check]:
    mount = mount_of(folder, mounts) if mounts is not None else None
    if mount is None and (kind := statfs_kind(folder)) is not None:
        mount = Mount(str(folder), kind, False)  # a system without /proc still knows
    if mount is None:
        yield Check("file system", "ok", "this system does not tell which one it is; it must be a local disk")
        return
    yield _durable(mount)
    if mount.read_only:
        yield Check("file system", "warn", f"{mount.point} is mounted read-only: the store can be read, with --read-only")


def _durable(mount: Mount) -> Check:
    where = f"{mount.kind} at {mount.point}"
    if mount.is_memory:
        return Check("file system", "warn", f"{where}: not durable, its content is gone with the power")
    if mount.is_remote:
        return Check("file system", "warn", f"{where}: locks and fsync may not mean there what they say; put the store on a local disk")
    return Check("file system", "ok", where)


def _permissions(folder: Path) -> Iterator[Check]:
    """Folders 0700, files 0600, all of it ours (FORMAT.md section 1)."""
    open_to_others: list[str] = []
    foreign: list[str] = []
    closed: list[str] = []
    for place, _, names in os.walk(folder):
        for path in [place, *(os.path.join(place, name) for name in names)]:
            try:
                status = os.stat(path, follow_symlinks=False)
            except FileNotFoundError:
                continue
            relative = os.path.relpath(path, folder)
            if status.st_mode & 0o077:
                open_to_others.append(f"{relative} {status.st_mode & 0o777:04o}")
            if status.st_uid != os.geteuid():
                foreign.append(relative)
            if not os.access(path, os.R_OK | os.W_OK):
                closed.append(relative)
    if open_to_others:
        yield Check("permissions", "warn", f"others may look in: {_few(open_to_others)}; `eventstore doctor STORE --fix` shuts them out")
    if foreign:
        yield Check("permissions", "warn", f"another user owns {_few(foreign)}; run as that user, or change the owner")
    if closed:
        yield Check("permissions", "bad", f"this user may not read and write {_few(closed)}")
    if not (open_to_others or foreign or closed):
        yield Check("permissions", "ok", "folders 0700, files 0600, all of them this user's")


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def _open_elsewhere(folder: Path) -> Check:
    found = holders(folder)
    for process in found:
        if has_two_libraries(process.pid):
            libraries = sqlite_libraries(process.pid)
            return Check(
                "open in",
                "warn",
                f"{process.name} (pid {process.pid}) holds {len(libraries)} SQLite libraries ({', '.join(libraries)}): where one of them"
                " closes a file of the store, the other's locks on it are gone; open its files through one of them only",
            )
    others = [f"{process.name} (pid {process.pid})" for process in found]
    return Check("open in", "ok", _few(others) if others else "no other process that this user can see")


def _clock(latest_us: int | None) -> Check:
    now = now_us()
    if now < _NO_CLOCK_US:
        return Check("clock", "bad", f"{format_us(now)}: it was never set; events would carry this time for ever")
    ahead = 0 if latest_us is None else latest_us - now
    if ahead > _AHEAD_WARN_US and latest_us is not None:
        status: Status = "bad" if ahead > _AHEAD_BAD_US else "warn"
        message = f"{format_us(now)}, but the last event was recorded at {format_us(latest_us)}, {ahead / 1e6:,.0f} s ahead"
        return Check(
            "clock",
            status,
            f"{message}: this clock is behind, or that one was; until then new events are stamped after it, not with the time",
        )
    return Check("clock", "ok", format_us(now) + ("" if latest_us is None else f"; last event {format_us(latest_us)}"))


def _wal(folder: Path) -> Iterator[Check]:
    found = {path.parent.name: stat_or_none(path) for path in folder.glob("logs/*/*-wal")}
    sizes = {domain: status.st_size for domain, status in found.items() if status is not None}  # else its writer closed it
    for domain, size in sorted(sizes.items()):
        if size > _WAL_WARN:
            yield Check("wal", "warn", f"{domain}: {size_text(size)} wait for a checkpoint; a reader that never finishes holds it back")
    if not any(size > _WAL_WARN for size in sizes.values()):
        yield Check("wal", "ok", f"{size_text(sum(sizes.values()))} in {count_text(len(sizes), 'file')}")


def _space(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    status: Status = "bad" if free < _FREE_BAD else "warn" if free < _FREE_WARN else "ok"
    return Check("free space", status, size_text(free))
