"""The next file of a log, derived from the one before it alone (FORMAT.md section 8, RELIABILITY.md R7 and R13).

Drafted while the log is held and before it is sealed, as the seal must name what will be carried; or made anew, wherever a log is
opened that ends in a seal without the file after it. SQLite copies from file to file: no value passes through Python.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from eventstore import database
from eventstore.carried import Beginning, CarriedDigest, prove_linked, read_seal
from eventstore.codec import GENESIS
from eventstore.database import sqlite3
from eventstore.errors import FormatError
from eventstore.files import os_errors
from eventstore.logfile import LogFile
from eventstore.model import Event

_CARRY = f"""INSERT INTO main.event({database.COLUMNS}) SELECT {database.COLUMNS} FROM sealed.event
WHERE position IN (SELECT value FROM json_each(?)) ORDER BY position"""
_LINK = """INSERT INTO main.carried(position, previous) SELECT event.position, before.checksum
FROM main.event JOIN sealed.event AS before ON before.position = event.position - 1 WHERE event.position BETWEEN ? AND ? ORDER BY 1"""
_LINK_AGAIN = """INSERT INTO main.carried(position, previous) SELECT carried.position, carried.previous
FROM main.event JOIN sealed.carried USING (position) WHERE event.position < ? ORDER BY 1"""
_LINKED = "SELECT position, previous, checksum FROM main.event LEFT JOIN main.carried USING (position) ORDER BY position"


def begin_log(path: Path, beginning: Beginning, domain: str) -> None:
    """The first file at hand of a log whose earlier ones are not, as it would be if it had been derived from the one before it.

    Raises CorruptionError where that is not what was carried over its seal, EngineError; then nothing is left of it.
    """
    connection = database.begin_file(path)
    at = -1
    try:
        connection.execute(database.CARRIED_TABLE)
        for each in prove_linked(beginning.carried, beginning.floor, domain):
            if each.event.position <= at:
                raise FormatError(domain, each.event.position, f"carried events stand in their order, and this one comes after {at}")
            at = each.event.position
            connection.execute(database.INSERT, msgspec.structs.astuple(each.event))
            connection.execute("INSERT INTO carried VALUES (?, ?)", (at, each.previous))
        database.finish_file(connection, path, (*database.TRIGGERS, *database.CARRIED_TRIGGERS))
    except BaseException as error:
        connection.close()
        database.discard_file(path)
        if isinstance(error, sqlite3.Error):
            raise database.engine_error(error, domain=domain, path=path) from error
        raise


class Latest:
    """What the file after `file` will carry, as far as it was read: the positions of the log's own events, and of each key's latest.

    An event stays where it is, under its key, so what was read is right whoever writes on: it can be read before the log is
    held, and then only what came since. No values are in it, so that a redaction has nothing to reach.
    """

    def __init__(self, file: LogFile) -> None:
        self.file = file
        self._until = -1
        self._count = 0
        self._positions: dict[str, int] = {}

    def read_on(self, until: int) -> None:
        """Take in what comes up to `until`, a page at a time: readers wait for no more than one. Raises EngineError, FormatError."""
        while (page := self.file.latest(self._until, until)) is not None:
            reached, count, positions = page
            if reached <= self._until:
                # A page of the file stands in another one's place: going on from here would never end.
                message = f"rows come out of order after position {self._until}: the database file is damaged; run `eventstore verify`"
                raise FormatError(self.file.domain, None, message)
            self._until = reached
            self._count += count
            self._positions.update(positions)

    def read_whole(self, last: int) -> None:
        """Take in all that comes up to `last`, and see that it is all: a damaged row ends SQLite's search as the last one does.

        Raises EngineError, FormatError.
        """
        self.read_on(last)
        expected = self.file.rows_until(last)
        if self._count != expected:
            raise FormatError(
                self.file.domain,
                None,
                f"{self.file.path} gives {self._count} of {expected} rows up to position {last}: it is damaged; run `eventstore verify`",
            )

    def positions(self) -> list[int]:
        """Where the events stand that are carried, rising."""
        return sorted(self._positions.values())


class Draft:
    """The file after the one that `latest` is of, begun under a name that nobody reads: what it carries over the seal at `last`.

    That seal stands, or will; what comes before it and was not read yet is taken in.
    """

    def __init__(self, latest: Latest, last: int) -> None:
        file = latest.file
        self._sealed, self._domain, self._last, self._first = file.path, file.domain, last, file.first
        self.path = database.log_file(file.path.parent, last + 1)
        latest.read_whole(last - 1)
        with self._translated():
            self._connection = database.begin_file(self.path)
            try:
                self._begin(latest.positions())
            except BaseException:
                self.discard()
                raise

    def _begin(self, positions: Sequence[int]) -> None:
        connection = self._connection
        connection.execute(database.CARRIED_TABLE)
        connection.execute("ATTACH ? AS sealed", (f"{self._sealed.as_uri()}?mode=ro",))
        self._carry(positions)
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

    def _carry(self, positions: Sequence[int]) -> None:
        self._connection.execute(_CARRY, (msgspec.json.encode(positions).decode(),))

    def finish(self) -> Path:
        """Make the draft the next file of the log, now that it is sealed; gives its path. Raises FormatError if the seal names another."""
        connection = self._connection
        with self._translated():
            self._carry([self._last])
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
