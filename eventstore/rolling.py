"""The next file of a log, derived from the one before it alone (FORMAT.md section 8, RELIABILITY.md R7 and R13).

Drafted while the log is held and before it is sealed, as the seal must name what will be carried; or made anew, wherever a log is
opened that ends in a seal without the file after it. SQLite copies from file to file: no value passes through Python.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from eventstore import database
from eventstore.carried import CarriedDigest, read_seal
from eventstore.codec import GENESIS
from eventstore.database import sqlite3
from eventstore.errors import FormatError
from eventstore.files import os_errors
from eventstore.model import SYSTEM_KEY, Event

# By key and not by prev: of a log whose prev is wrong, no key may be lost on the way. Each of the log's own events is a group
# of its own, so that all of them are found in the same pass: writers wait while it reads the whole file.
_CARRY = f"""INSERT INTO main.event({database.COLUMNS}) SELECT {database.COLUMNS} FROM sealed.event WHERE position IN (
 SELECT max(position) FROM sealed.event WHERE position < ? GROUP BY key, CASE WHEN key = '{SYSTEM_KEY}' THEN position END)
ORDER BY position"""
_CARRY_ONE = f"INSERT INTO main.event({database.COLUMNS}) SELECT {database.COLUMNS} FROM sealed.event WHERE position = ?"
_LINK = """INSERT INTO main.carried(position, previous) SELECT event.position, before.checksum
FROM main.event JOIN sealed.event AS before ON before.position = event.position - 1 WHERE event.position BETWEEN ? AND ? ORDER BY 1"""
_LINK_AGAIN = """INSERT INTO main.carried(position, previous) SELECT carried.position, carried.previous
FROM main.event JOIN sealed.carried USING (position) WHERE event.position < ? ORDER BY 1"""
_LINKED = "SELECT position, previous, checksum FROM main.event LEFT JOIN main.carried USING (position) ORDER BY position"


class Draft:
    """The file after `sealed`, begun under a name that nobody reads: what it carries over the seal that stands, or will, at `last`."""

    def __init__(self, sealed: Path, domain: str, last: int) -> None:
        self._sealed, self._domain, self._last = sealed, domain, last
        self._first = database.first_of(sealed)
        self.path = database.log_file(sealed.parent, last + 1)
        with self._translated():
            self._connection = database.begin_file(self.path)
            try:
                self._carry()
            except BaseException:
                self.discard()
                raise

    def _carry(self) -> None:
        connection = self._connection
        connection.execute(database.CARRIED_TABLE)
        connection.execute("ATTACH ? AS sealed", (f"{self._sealed.as_uri()}?mode=ro",))
        connection.execute(_CARRY, (self._last,))
        if self._first == 0:
            connection.execute("INSERT INTO main.carried VALUES (0, ?)", (GENESIS.checksum,))
        else:
            connection.execute(_LINK_AGAIN, (self._first,))
        connection.execute(_LINK, (max(self._first, 1), self._last - 1))
        digest = CarriedDigest()
        for position, previous, checksum in connection.execute(_LINKED):
            if previous is None:
                raise FormatError(self._domain, position, "the event before this one is missing from its file; run `eventstore verify`")
            digest.add(position, previous, checksum)
        self.seal = digest.seal(self._first, self._last)
        """What the seal must say."""

    def finish(self) -> Path:
        """Make the draft the next file of the log, now that it is sealed; gives its path. Raises FormatError if the seal names another."""
        connection = self._connection
        with self._translated():
            connection.execute(_CARRY_ONE, (self._last,))
            connection.execute(_LINK, (self._last, self._last))
            row = connection.execute(f"SELECT {database.COLUMNS} FROM main.event WHERE position = ?", (self._last,)).fetchone()
            if row is None or read_seal(Event(*row), self._domain) != self.seal:
                raise FormatError(
                    self._domain, self._last, f"{self._sealed} does not hold what its seal names: it was altered; run `eventstore verify`"
                )
            connection.execute("DETACH sealed")
            database.finish_file(connection, self.path, (*database.TRIGGERS, *database.CARRIED_TRIGGERS))
        return self.path

    def discard(self) -> None:
        """Leave nothing behind of a draft that was not finished."""
        self._connection.close()
        database.discard_file(self.path)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with os_errors(f"making {self.path}"):
                yield
        except sqlite3.Error as error:
            raise database.engine_error(error, domain=self._domain, path=self.path) from error
