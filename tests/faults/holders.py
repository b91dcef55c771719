"""Workers that hold what others wait for, until they are killed."""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
from contextlib import closing

from tests.faults.workers import Tell


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
