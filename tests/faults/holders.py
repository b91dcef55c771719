"""Workers that hold what others wait for, until they are killed."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import fcntl
import itertools
import os
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import msgspec

import eventstore
from eventstore import EventStoreError, manifest
from eventstore.local import LocalEngine
from eventstore.tools.doctor import doctor
from tests.faults.ledger import DOMAIN, acknowledgement, carry_out
from tests.faults.limits import be_nobody
from tests.faults.workers import Tell, adjust, die


def hold_until_killed(tell: Tell) -> None:
    """Say that it is held, and do nothing more."""
    tell(holding=os.getpid())
    while True:
        signal.pause()


def hold_transaction(tell: Tell, db: str, begin: str, query: str) -> None:
    """Another program's connection, with a transaction left open."""
    with closing(sqlite3.connect(db, isolation_level=None)) as connection:
        connection.execute(begin)
        connection.execute(query).fetchall()
        hold_until_killed(tell)


def hold_lock(tell: Tell, head: str) -> None:
    """A writer that is busy for ever."""
    descriptor = os.open(head, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    hold_until_killed(tell)


def checkpoint_without_end(tell: Tell, db: str, mode: str) -> None:
    """Another program that checkpoints, as replication tools and browsers of databases do, until killed."""
    with closing(sqlite3.connect(db, isolation_level=None, timeout=0)) as connection:
        for number in itertools.count():
            # Busy is an answer too: it comes again in a moment.
            with contextlib.suppress(sqlite3.OperationalError):
                _, frames, copied = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
                tell(number=number, frames=frames, copied=copied)
            time.sleep(0.002)


def second_library(scratch: Path) -> ctypes.CDLL:
    """A second SQLite in this process: the system's, loaded once more from a copy, as another binding brings its own."""
    name = next((line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libsqlite3.so" in line), None)
    copy = scratch / "libsqlite3.so.0"
    shutil.copyfile(name or ctypes.util.find_library("sqlite3") or "no libsqlite3 on this system", copy)
    return ctypes.CDLL(str(copy))


def look_through(library: ctypes.CDLL, db: str) -> None:
    """Read something through that library, and close: with that, the first library's POSIX locks are gone."""
    handle = ctypes.c_void_p()
    assert library.sqlite3_open_v2(os.fsencode(db), ctypes.byref(handle), 1, None) == 0
    assert library.sqlite3_exec(handle, b"SELECT count(*) FROM event", None, None, None) == 0
    assert library.sqlite3_close(handle) == 0


def lose_locks(tell: Tell, folder: str, db: str, scratch: str, inside_a_write: bool) -> None:
    """Write; let a second library drop the locks, inside a write or between two; when signalled, write on, as far as that goes."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    domain = eventstore.open(folder).domain(DOMAIN)
    for number in range(3):
        tell(**acknowledgement(f"first-{number}", carry_out(domain, f"first-{number}")))
    library = second_library(Path(scratch))
    with domain._live.log.writing() if inside_a_write else contextlib.nullcontext():
        look_through(library, db)
        tell(dropped=True)
        signal.sigwait([signal.SIGUSR1])
    for number in range(5):
        try:
            tell(**acknowledgement(f"then-{number}", carry_out(domain, f"then-{number}")))
        except EventStoreError as error:
            tell(error=type(error).__name__)
    tell(over=True)
    os._exit(0)


def die_half_way(tell: Tell, folder: str, what: str, pattern: str) -> None:
    """Be killed while something is half made, at the fsync of what `pattern` matches: store.json, a new log, or one that is adopted."""
    store = eventstore.open(folder)
    head = store.domain(DOMAIN).head()
    adjust(os, fsync=lambda descriptor: die() if any(Path(folder).glob(pattern)) else None)
    if what == "manifest":
        manifest.raise_head(Path(folder), DOMAIN, eventstore.Head(head.position + 1, bytes(32)))
    elif what == "log":
        store.domain("quotes")
    else:
        birth = next(iter(LocalEngine(Path(folder)).open_log(DOMAIN).get([0])))
        with LocalEngine(Path(folder)).adopting("adopted", birth):
            raise AssertionError("it lives")


def doctor_as_nobody(tell: Tell, folder: str) -> None:
    """`doctor --fix` by somebody who owns nothing of the store."""
    be_nobody()
    tell(fixes=msgspec.to_builtins(doctor(folder, fixing=True).fixes))
