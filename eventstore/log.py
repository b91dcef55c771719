"""What an engine owes us; proven() is asked of it. The docstrings are the specification; conformance.py holds engines to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec

from eventstore.archived import Archived
from eventstore.carried import Beginning, Seal
from eventstore.codec import check_linked
from eventstore.errors import CorruptionError, EventStoreError, GapError
from eventstore.model import Durability, Event, Head, HeldCopy, Linked, WriteRule

PAGE = 1_000
"""Events read at a time where nothing else bounds a page."""


class Extent(msgspec.Struct, frozen=True):
    """The part of a log that is not sealed yet."""

    first: int
    """The position it begins with: 0, or the one after the last seal."""
    began_us: int | None
    """When its first event was recorded, in microseconds; None if there is none."""
    bytes: int
    """What it takes on the disk; 0 where there is none."""


class FileExtent(msgspec.Struct, frozen=True):
    """One file of a log, in the log's own folder."""

    first: int
    last: int
    """Where the seal stands that ends it; of the live file, the head."""
    path: Path
    bytes: int
    began_us: int | None
    """When the first event of a user that was appended to it was recorded, in microseconds; None if there is none."""
    ended_us: int | None
    """The last one, likewise."""


class Busy(Exception):  # noqa: N818  no error: it says whose turn it is not
    """Another thread of this process writes to the log; see EventLog.writing."""


class EventLog(Protocol):
    """An ordered list of sealed events. It stores and refuses; what events mean is decided above it.

    A log is created with its birth row at position 0, so `head()` is never empty. Any method may raise
    ClosedError after `close()`, and EngineError when the machine below refuses.
    """

    domain: str
    durability: Durability
    """What an append promises when the call names nothing stronger or weaker."""
    rule: WriteRule
    """By which rule the domain may be written, as its birth row says."""
    accepted: Head | None
    """The `loss` event that opening appended because a lost tail was accepted; None if nothing was lost."""
    busy_timeout_ms: int
    """How long to wait for another writer."""
    commit_us: int
    """How long the last append waited for its COMMIT and the fsync in it; 0 where there is none."""
    released: Callable[[], None]
    """Called whenever the right to append was given back, or was not had after all: somebody else may try. Does nothing unless set."""

    def head(self) -> Head:
        """The last event's position and checksum, as of now, other processes' appends included."""
        ...

    def moved(self, position: int) -> bool:
        """False only if nothing was acknowledged after `position`. Costs next to nothing: asked before every read."""
        ...

    def read(self, after: int = 0, *, until: int | None = None, limit: int | None = None) -> Iterator[Event]:
        """The events with after < position <= until, in order, at most `limit`, as stored and unchecked; as far as the head goes.

        Where damage makes them end before it raises GapError: what reads on from here must never take the part for the whole.

        Later appends may or may not be seen by an iteration under way. Holds no lock and no snapshot between
        two events, so a slow reader never blocks a writer. The birth row is not part of it: `get([0])`.
        """
        ...

    def get(self, positions: Sequence[int]) -> list[Event]:
        """The events at `positions`, in ascending order of position; those that do not exist are left out."""
        ...

    def linked(self, positions: Sequence[int]) -> list[Linked]:
        """The events that get() gives, each with the checksum of the event before it: what proves it alone.

        The event before it is not read but for that checksum, however large its value is.
        """
        ...

    def floor(self) -> int:
        """The last position that is not at hand, because its file was archived or is missing; 0 if everything is there.

        What comes after it is there whole. Reading what is not at hand raises CompactedError, by every method that reads; but get(),
        linked(), states() and chain() still give an event that a later file carries.
        """
        ...

    def start(self, until: int) -> int:
        """The newest position, at or before `until`, from which the log can be folded: that of a seal, or 0. Raises CompactedError."""
        ...

    def carried(self, start: int) -> Iterator[Linked]:
        """What is carried over the seal at `start`: the log's own events and the latest of each key, by position, the seal last.

        carried(0) is the birth row alone. Raises CompactedError where it is not at hand, or no seal stands there.
        """
        ...

    def chain(self, position: int, *, limit: int) -> list[Linked]:
        """The event at `position`, then its prev, its prev's prev ...: one key's history, newest first, at most `limit`; as linked()."""
        ...

    def checksums(self, after: int, until: int) -> Iterator[bytes]:
        """The checksums alone of the events with after < position <= until, in order, as stored; after -1 the birth row comes first.

        One for each position, so that counting them gives it: raises GapError where there is none. Holds no lock between two.
        """
        ...

    def writing(self, *, wait: bool = True) -> AbstractContextManager[Head]:
        """Take the right to append, give the head, release on exit.

        Local engines lock out every other writer of this log, threads and processes; remote ones only this process's
        threads. The head is the last one known: if it is not the true one, append() says so. `wait=False` raises Busy at
        once while another thread of this process has the right; `released` will be called after that.
        Raises UnavailableError when the lock is not had in time, ReadOnlyError, HaltedError, FencedError.
        """
        ...

    def prepare_seal(self) -> None:
        """Read what draft_seal() would read, ahead of it, so that writers wait only for what comes after. Not inside `writing()`.

        Changes nothing that can be asked; what draft_seal() says is the same without it. Raises EngineError.
        """
        ...

    def draft_seal(self) -> Seal:
        """What a `seal` event must say that is appended next. Must be called inside `writing()`. Raises EngineError.

        Reads no values. Appended, such an event is the last of its file: the log goes on in another one, which carries over what
        carried() gives, in the same or the next writing().
        """
        ...

    def extent(self) -> Extent:
        """The part of the log that is not sealed yet: how it began, and how much it takes."""
        ...

    def has_grown(self, by: int) -> bool:
        """Whether the events that were appended since the last seal, without what is carried over it, take about `by` bytes on the disk.

        Asked after every write where a policy seals by size, so it costs next to nothing; False where there is no disk.
        """
        ...

    def append(self, events: Sequence[Event], *, after: Head, durability: Durability | None = None, erase: Sequence[int] = ()) -> None:
        """Store all of `events` directly after `after`, or none of them, as durably as asked.

        Raises ConflictError when the head is not `after`, EngineError with its outcome when the machine refuses.
        Returns only once the fault that `durability` names would leave the events readable; None is the log's own level.
        No events at all makes what stands, up to `after`, as durable as asked. Must be called inside `writing()`.
        `erase` names positions whose data is erased in the same commit, wherever the log has them at hand; also without events. But
        not in files that are another store's: FileLog.theirs().
        A `seal` event must be the last of `events`.
        """
        ...

    def faults(self) -> Iterator[tuple[str, str]]:
        """What the engine itself finds wrong with its storage, as (kind, sentence): structure, a lost tail. Changes nothing."""
        ...

    def wal_bytes(self) -> int:
        """What the write-ahead log takes on the disk; 0 where there is none."""
        ...

    def held(self, positions: Sequence[int]) -> list[int]:
        """Those of `positions` whose data stands in any file at hand, as an event of a user or a copy of one; in ascending order.

        A sealed file that cannot be looked into is gone around, with a warning: FileLog.unseen() tells which.
        """
        ...

    def forget_erased(self, *, wait: bool = True) -> bool:
        """See to it that what append() erased stands in no file of the log any more; False if a reader is in the way for too long.

        It is then done as soon as that reader is gone, at a checkpoint or a close. `wait=False` tries once. Not inside `writing()`.
        """
        ...

    def copies(self) -> list[HeldCopy]:
        """The places that may still hold what was erased, as far as the engine can tell."""
        ...

    def distrust(self, error: CorruptionError) -> None:
        """Damage was found above: keep the evidence, write nothing more, vouch for nothing at close."""
        ...

    def resume(self) -> None:
        """Open anew after a failure: nothing that was opened before it is used again. Raises what still stands in the way.

        Raises FencedError if what was appended or found before is not in it any more; it is then read on as it was.
        """
        ...

    def close(self) -> None:
        """Release everything; a second call does nothing."""
        ...

    def abandon(self) -> None:
        """In a forked child: let go of what belongs to the parent without touching it; the next call opens anew."""
        ...


def nobody_waits() -> None:
    """What EventLog.released is until somebody waits."""


@runtime_checkable
class RowLog(Protocol):
    """What an EventLog in a file of this machine can do besides, for a proof that is faster: no engine has to."""

    def rows(self, after: int, until: int) -> list[tuple[Any, ...]]:
        """Stored rows with after < position <= until, in order: all, or at least the first, as many as fit comfortably in memory.

        Position, prev, recorded_us, when_us, checksum, key, meta, and salt and data in one; texts as UTF-8 bytes. The last is
        None for whatever is not a put of text with a salt of 16 bytes and without a digest: get() tells.
        """
        ...

    def get(self, positions: Sequence[int]) -> list[Event]:
        """See EventLog.get."""
        ...

    def linked(self, positions: Sequence[int]) -> list[Linked]:
        """See EventLog.linked."""
        ...

    def states(self, positions: Sequence[int]) -> list[tuple[Any, ...]]:
        """Position, when_us, whether it is a removal, whether it has no data, of the events at `positions`, as get() orders them."""
        ...

    def source(self) -> list[Path]:
        """The files that this log reads, for another process of this user to read them too, for as long as the log is open."""
        ...


@runtime_checkable
class FileLog(EventLog, Protocol):
    """What an EventLog in files of this machine can do, so that sealed ones can be moved away: no engine has to."""

    folder: Path
    """The log's own folder."""
    store_id: str
    """Of the store that the log belongs to: archives have a folder for each."""

    def sealed(self) -> list[int]:
        """Where the sealed files in the log's own folder begin, rising."""
        ...

    def file(self, first: int | None = None) -> FileExtent:
        """The file in the log's own folder that begins at `first`; None is the live one. Raises CompactedError."""
        ...

    def leftovers(self) -> set[int]:
        """Where the files begin that left anything in the log's own folder; without the live one."""
        ...

    def archives(self, system: int | None = None) -> list[tuple[Archived, Path | None]]:
        """What the last word is about each file that was archived, and the attached file that stands where it says.

        None: that archive is not attached, whatever else is, so that nobody sees what its copy holds. `system` as in archived().
        """
        ...

    def attached(self) -> list[Path]:
        """The files that stand in archives that are attached, also those that are not read, as they are at hand elsewhere, too."""
        ...

    def missing(self) -> list[tuple[int, int]]:
        """First and last position of each file that is not at hand."""
        ...

    def unseen(self, positions: Sequence[int]) -> list[tuple[Path, str]]:
        """The files, wherever they stand, that cannot be looked into for data of `positions`, or lost a row of them, and why."""
        ...

    def theirs(self, positions: Sequence[int]) -> list[tuple[Path, str]]:
        """The attached files in which data of `positions` stands, and which append() does not erase in, as another store put files there
        (claims.py); and why.
        """
        ...

    def place(self, position: int) -> tuple[Path | None, int | None]:
        """The file that `position` belongs to, None if it is not at hand, and where it ends, None for the live one."""
        ...

    def archived(self, system: int | None = None) -> list[Archived]:
        """What the `archive` events say, in order. `system`: where the log's own latest event stands, if known; else all is read.

        Raises FormatError.
        """
        ...

    def system(self) -> int:
        """Where the log's own latest event stands. Reads all of the live file: for verifying only."""
        ...

    def altered(self) -> list[tuple[Path, str]]:
        """The attached files whose bytes are not those that the log says, each with the sentence that says so."""
        ...

    def drop_sealed(self, first: int) -> None:
        """Remove what there is of a sealed file from the log's own folder, durably. Must be called inside `writing()`.

        Whoever has it open reads on. Only after an `archive` event says so durably.
        """
        ...


def proven(log: EventLog, positions: Sequence[int]) -> list[Event]:
    """The events at `positions`, ascending, each checked against the one before it: for whoever acts on what single events say.

    Raises GapError for one that is not there, CorruptionError.
    """
    found = log.linked(positions)
    for position, linked in zip_longest(positions, found):
        if linked is None or linked.event.position != position:
            raise GapError(log.domain, position, position)
        check_linked(linked, log.domain)
    return [linked.event for linked in found]


class Engine(Protocol):
    """Where a store's logs live: it lists, makes and opens them."""

    store_id: str
    created_us: int
    read_only: bool
    durability: Durability

    def domains(self) -> list[str]:
        """The names of the logs that exist, sorted."""
        ...

    def open_log(self, name: str, write: WriteRule | None = None, *, accept_loss: bool = False) -> EventLog:
        """Open the log of a domain; made with its birth row if there is none and the engine may write.

        `write` is the rule for a new log (None: "replace") and what an existing one must have (None: any).
        Raises NotFoundError if there is none and the engine may not write, CorruptionError for damage,
        ContractError for another rule. `accept_loss`: a lost tail is recorded by a `loss` event instead.
        """
        ...

    def adopting(self, name: str, birth: Event, beginning: Beginning | None = None) -> AbstractContextManager[EventLog]:
        """A new log that starts from a sealed birth row, to be filled with events; a domain once the block ends well, gone if it raises.

        With a `beginning`, which holds that row too, it starts there: floor() is its floor. Raises CorruptionError where that is not
        as it was sealed, ConfigError where the engine has no files that could be missing.
        """
        ...

    def inspect(self, name: str) -> AbstractContextManager[EventLog]:
        """The log of a domain for reading alone, however damaged its tail is. Raises NotFoundError, CorruptionError."""
        ...

    def pointers(self, name: str) -> Path | None:
        """The folder for this domain's pointer files, or None where the engine needs or allows none."""
        ...

    def after_fork(self) -> EventStoreError | None:
        """In a forked child: leave the parent what is the parent's. What every write is refused for until resume(), if anything."""
        ...

    def resume(self) -> None:
        """Hold again what whoever writes must hold. Raises OwnedError."""
        ...

    def closing(self) -> AbstractContextManager[None]:
        """While several logs of the store are closed: what is kept of all of them in one place is written once, as it ends.

        Raises EngineError then; the logs are closed all the same.
        """
        ...

    def close(self) -> None:
        """Release what the store as a whole holds, such as an owner's lease; a second call does nothing."""
        ...
