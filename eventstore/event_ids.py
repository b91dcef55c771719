"""Which call an event_id belongs to: exact over the whole log, or refused where that cannot be told.

Files of ids are caches, or part of the store (pointers.py); where they do not reach, the rows say it, and a row that does not prove
itself says nothing. What is lost then is where it stood: an id that is found elsewhere is answered, any other refused.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from eventstore.codec import check, check_linked
from eventstore.errors import CompactedError, CorruptionError, EventStoreError, GapError, LostIdsError, NotAStoreError
from eventstore.log import EventLog, FileLog, proven
from eventstore.model import Event, Head
from eventstore.pointers import IdRun, PointerFolder, event_id_of, hash_of

_UNREADABLE = (CorruptionError, NotAStoreError)
"""What a file says whose bytes are not what was written: of rows, or of its header."""


class EventIds:
    """event_id -> position of the first event of the call that carried it.

    Newer ids stand in a dictionary, older ones in runs, which are read when first asked for.
    """

    def __init__(self, log: EventLog, folder: PointerFolder, *, since: int) -> None:
        self._log, self._folder = log, folder
        self._since = since
        """Events up to here were not folded: their ids are in the runs, or must be read from the log."""
        self._tail: dict[str, int] = {}
        self._lock = threading.RLock()
        self._runs: list[IdRun] | None = None
        self._lost: list[LostIdsError] = []
        """What cannot be told beside the runs and the tail, by position, as long as the kept files are those of `_stamp`."""
        self._stamp: object = None
        self.were_read = False
        """Whether ids behind the runs were read from the log, as they will be at every opening until a run holds them."""

    def add(self, events: Sequence[Event]) -> None:
        """Note the ids of folded events."""
        for event in events:
            if event.meta is not None and (event_id := event_id_of(event)) is not None:
                self._tail[event_id] = event.position

    def find(self, event_id: str) -> Event | None:
        """The event that carries `event_id`, confirmed by its row; None if no call ever did.

        Raises LostIdsError where that cannot be told, CompactedError if its event is not at hand, CorruptionError for a damaged live file.
        """
        with self._lock:
            position = self._tail.get(event_id)
            if position is not None:
                return self._confirmed(position, event_id)
            runs, lost = self._known()
            position = self._tail.get(event_id)
        if position is not None:
            return self._confirmed(position, event_id)
        for run in reversed(runs):
            for candidate in run.candidates(event_id):
                if event := self._confirmed(candidate, event_id):
                    return event
        for each in lost:
            raise each.with_traceback(None)
        return None

    def _confirmed(self, position: int, event_id: str) -> Event | None:
        """The event there, if the id is its own; None where two ids share a hash. Raises CompactedError, CorruptionError.

        A damaged row looks the same as one of another id, or as none: taken for that, a retry would be written twice. One with the id
        may be damaged elsewhere: its request or its value would be taken for another's, and whoever then takes a new id writes twice.
        """
        (event,) = self.of_call([position], event_id)
        return event if event_id_of(event) == event_id else None

    def of_call(self, positions: Sequence[int], event_id: str) -> list[Event]:
        """The events of a call by its id, each as it was written. Raises CompactedError, CorruptionError for a damaged live file."""
        try:
            return proven(self._log, positions)  # of what a later file carries, by its copy
        except _UNREADABLE as error:
            found = error.position if isinstance(error, CorruptionError) else None
            at = positions[0] if found is None else found
            if _end_of_file(self._log, at) is None:
                raise
            what = f"event_id {event_id!r} belongs to a call that was made here, and its receipt cannot be read"
            raise CompactedError(self._log.domain, at, self._log.floor(), damaged=True, what=what) from error

    def _known(self) -> tuple[list[IdRun], list[LostIdsError]]:
        """The runs that files have, beside the tail, and what neither files nor events say."""
        stamp = self._folder.kept_stamp() if self._lost else None
        if self._runs is None or stamp != self._stamp:
            self._runs, self._lost = self._read()
            self._stamp = self._folder.kept_stamp() if self._lost else None
        return self._runs, self._lost

    def _read(self) -> tuple[list[IdRun], list[LostIdsError]]:
        runs = self._folder.runs(self._folder.kept())
        lost: list[LostIdsError] = []
        reach = _reach(runs)
        while reach < self._since:
            if more := self._folder.runs(self._folder.kept(after=reach), after=reach):
                runs += more
                reach = _reach(more)
                continue
            try:
                reach = self._reread(reach, self._since, lost)
            except CompactedError as error:
                if error.position > reach + 1:
                    reach = self._reread(reach, error.position - 1, lost)
                else:
                    lost.append(self._gone(reach, error))
                    reach = lost[-1].last
        self.were_read = not lost and _reach(runs) < self._since  # where some are lost, none are written
        return runs, lost

    def _reread(self, after: int, until: int, lost: list[LostIdsError]) -> int:
        """Take the ids from the events themselves; gives `until`. Raises CompactedError, CorruptionError for a damaged live file."""
        rows = _Rows(self._log, until)
        for event in rows.proven(after):
            if (event_id := event_id_of(event)) is not None:
                # In place, and never over a newer one: another thread may be folding.
                self._tail.setdefault(event_id, event.position)
        lost += rows.lost()
        return until

    def _gone(self, reach: int, error: CompactedError) -> LostIdsError:
        """What cannot be told, as neither files of ids go on behind `reach`, nor events are at hand."""
        last = error.position
        for first, end in self._log.missing() if isinstance(self._log, FileLog) else ():
            last = max(last, end) if first <= last + 1 else last
        last = min(last, self._folder.kept_again(reach) or last)
        return LostIdsError(error.domain, error.position, last, error.floor, error.archive, deleted=error.deleted)

    def _whole(self, after: int = 0, until: int = 2**63) -> list[IdRun]:
        """The runs, if all ids behind `after`, up to `until`, are known. Raises LostIdsError."""
        runs, lost = self._known()
        for each in lost:
            if each.first <= until and each.last > after:
                raise each.with_traceback(None)
        return runs

    def keep(self, until: Head) -> None:
        """See to it that the ids up to `until`, where a file ends, are part of the store: its events may go then. As PointerFolder.keep().

        Raises LostIdsError, EngineError.
        """
        reach = _reach(self._folder.kept())
        if reach >= until.position:
            return
        self._folder.keep(self.pairs(reach, until.position), until)

    def pairs(self, after: int, until: int) -> set[tuple[int, int]]:
        """The hash of each event_id that stands behind `after`, up to `until`, and where. Raises LostIdsError."""
        with self._lock:
            return self._pairs(self._whole(after, until), after, until)

    def _pairs(self, runs: Sequence[IdRun], after: int, until: int) -> set[tuple[int, int]]:
        pairs = {pair for run in runs for pair in zip(run.hashes, run.positions, strict=True) if after < pair[1] <= until}
        return pairs | {(hash_of(event_id), position) for event_id, position in self._tail.copy().items() if after < position <= until}

    def give_up(self, lost: LostIdsError) -> None:
        """Let nothing be known of the ids that are lost: from now on they are those of no call. As PointerFolder.keep()."""
        end = _end_of_file(self._log, lost.last) or lost.last
        (seal,) = self._log.linked([end])
        with self._lock:
            pairs = self._pairs(self._known()[0], 0, end)
            self._runs = None
        self._folder.keep(pairs, Head(end, seal.event.checksum))

    def prepare(self) -> None:
        """Read the runs, or the log where there are none, before somebody waits for it. Raises LostIdsError."""
        with self._lock:
            self._whole()

    def save(self, head: Head, *, since: int = 2**63) -> None:
        """Write the ids since the last run, and those that end after `since`, as one. Call under the log's lock. Raises LostIdsError."""
        with self._lock:
            runs = self._whole()
            reach = _reach(runs)
            # Behind a hole that events filled, a run would say that they had no ids.
            whole = all(run.after <= before for before, run in zip([0, *(run.until.position for run in runs)], runs, strict=False))
            if reach < head.position and whole:
                tail = {key: at for key, at in self._tail.copy().items() if at > reach}
                self._runs = self._folder.save_run(runs, tail, head, since=since)
                self._tail = {}
            self.were_read = False

    def after_fork(self) -> None:
        """In a forked child: another thread may have held the lock when the process split."""
        self._lock = threading.RLock()


class _Rows:
    """The events of a range that prove themselves, by their checksum and the one before, or a copy that a later file carries.

    Those that do not are damage: of a sealed file it is noted and gone around, as nothing of it is ever written again; of the live
    one it is raised.
    """

    def __init__(self, log: EventLog, until: int) -> None:
        self._log, self._until = log, until
        self._damaged: dict[int, tuple[int, int]] = {}
        """By the end of their file, the first and the last position of the rows that say nothing."""

    def proven(self, after: int) -> Iterator[Event]:
        """The events behind `after`. Raises CompactedError, CorruptionError, EngineError."""
        head = self._head(after)
        while head.position < self._until:
            try:
                for event in self._log.read(head.position, until=self._until):
                    proof = self._prove(head, event)
                    if proof is not None:
                        yield proof
                    head = Head(event.position, event.checksum if proof is None else proof.checksum)
                if head.position < self._until:
                    raise GapError(self._log.domain, head.position + 1, head.position + 1)
            except _UNREADABLE as error:  # nor anything behind it
                end = self._note(head.position + 1, None, error)
                head = self._head(end) if end < self._until else Head(end, b"")

    def _head(self, position: int) -> Head:
        linked = self._log.linked([position])  # of a seal the newest file has it, whatever became of the one that ends in it
        if not linked:
            raise GapError(self._log.domain, position, position)
        return Head(position, linked[0].event.checksum)

    def _prove(self, head: Head, event: Event) -> Event | None:
        """The event as it was written; None if neither its row nor a copy proves that."""
        try:
            check(head, event, self._log.domain)
        except CorruptionError as error:
            for linked in self._log.linked([event.position]):
                try:
                    check_linked(linked, self._log.domain)
                except CorruptionError:
                    break
                if event.position > head.position + 1:
                    self._note(head.position + 1, event.position - 1, error)
                return linked.event
            self._note(head.position + 1, event.position, error)
            return None
        return event

    def _note(self, first: int, last: int | None, error: EventStoreError) -> int:
        """Note rows of one file; `last` None: up to its end, which is given. Raises `error` for the live file."""
        end = _end_of_file(self._log, first)
        if end is None:
            raise error
        last = min(end if last is None else last, self._until)
        before = self._damaged.get(end, (first, last))
        self._damaged[end] = min(before[0], first), max(before[1], last)
        return last

    def lost(self) -> list[LostIdsError]:
        """What they do not say."""
        floor = self._log.floor()
        return [LostIdsError(self._log.domain, *self._damaged[end], floor, damaged=True) for end in sorted(self._damaged)]


def _end_of_file(log: EventLog, position: int) -> int | None:
    """The last position of the sealed file that a position belongs to; None for the live one."""
    return log.place(position)[1] if isinstance(log, FileLog) else None


def _reach(runs: Sequence[IdRun]) -> int:
    return runs[-1].until.position if runs else 0
