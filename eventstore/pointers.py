"""Pointer files: caches that spare an opening the reading of the whole log. Wrong ones are ignored, never believed.

    pointers/<position:020d>.keys          the state of every key as of that head
    pointers/<after:020d>-<until:020d>.ids where each event_id of that range stands: sorted (hash, position) pairs
    <after:020d>-<until:020d>.ids          the same in the log's own folder, and no cache: of events that may not be at hand

Each file is one line of magic, a sha256, and a msgpack body that names its store, domain and head; it counts only if all
of them are right. Values are never in them, so a redaction has one place to reach. They differ from the draft of
FORMAT.md, which kept (hash of key, position) pairs: with the keys themselves an opening reads one file instead of a
row a key (20 times less for 300,000 keys), and there are no collisions to resolve.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import msgspec

from eventstore.database import id_files
from eventstore.errors import CompactedError, EventStoreError, GapError, LostIdsError
from eventstore.files import make_folder, os_errors, remove_files, replace_file
from eventstore.log import EventLog, FileLog, proven
from eventstore.model import Event, Head, KeyState, Status
from eventstore.projections.key_states import KeyStates

_log = logging.getLogger("eventstore")

_MAGIC = b"eventstore pointers 1\n"
_STATUSES: tuple[Status, ...] = ("present", "removed", "redacted")
_CODES = {status: code for code, status in enumerate(_STATUSES)}

SPACING = 100_000
"""Events after which a new file of key states is worth keeping beside the older ones."""


class _Keys(msgspec.Struct, array_like=True):
    domain: str
    birth: bytes
    position: int
    checksum: bytes
    recorded_us: int
    system: int
    keys: list[str]
    positions: bytes
    whens: list[int | None]
    statuses: bytes


class _Ids(msgspec.Struct, array_like=True):
    domain: str
    birth: bytes
    position: int
    checksum: bytes
    after: int
    hashes: bytes
    positions: bytes


_Body = TypeVar("_Body", _Keys, _Ids)
_Made = TypeVar("_Made")


class _MetaId(msgspec.Struct):
    event_id: str | None = None


_decode_meta_id = msgspec.json.Decoder(_MetaId).decode


def event_id_of(event: Event) -> str | None:
    """The event_id in an event's meta, if its call had one."""
    return None if event.meta is None else _decode_meta_id(event.meta).event_id


def hash_of(event_id: str) -> int:
    """What stands for an event_id in a file."""
    return int.from_bytes(hashlib.sha256(event_id.encode()).digest()[:8], "big")


class PointerFolder:
    """The pointer files of one log, and beside their folder, in the log's own, the event ids that are part of the store.

    `folder` None: an engine without a place for them; nothing is kept or found.
    """

    def __init__(self, folder: Path | None, log: EventLog, *, writable: bool) -> None:
        self._folder, self._log = folder, log
        self._home = None if folder is None else folder.parent
        self.writable = writable and folder is not None
        # The birth checksum names the log: domain, store id and a random salt are in it.
        # As the newest file has it, which was judged when the log was opened.
        self._birth = log.linked([0])[0].event.checksum

    # ---- key states

    def positions(self) -> list[int]:
        """The heads that files of key states are named by, rising."""
        return [position for path in self._paths("*.keys") if (position := _number(path.stem)) is not None]

    def latest(self, *, since: int = 0, until: int | None = None) -> KeyStates | None:
        """The newest file of key states whose head is in the log, after `since`, and at or before `until`."""
        for position in reversed(self.positions()):
            if position > since and (until is None or position <= until):
                states = None if self._folder is None else self._load(self._folder / _keys_name(position), _Keys, _states)
                if states is not None and states.position == position:
                    return states
        return None

    def save(self, states: KeyStates) -> None:
        """Keep `states`. Call under the log's lock. Files that later ones make superfluous go."""
        entries = states.snapshot()
        body = _Keys(
            domain=self._log.domain,
            birth=self._birth,
            position=states.position,
            checksum=states.checksum,
            recorded_us=states.recorded_us,
            system=states.system,
            keys=list(entries),
            positions=_packed(state.position for state in entries.values()),
            whens=[state.when_us for state in entries.values()],
            statuses=bytes(_CODES[state.status] for state in entries.values()),
        )
        older = [position for position in self.positions() if position < states.position]
        stored = self._store(_keys_name(states.position), body)
        spacing = max(SPACING, 4 * len(entries))
        if stored and older and states.position - (older[-2] if len(older) > 1 else 0) < 2 * spacing:
            self._remove(_keys_name(older[-1]))

    # ---- event ids

    def runs(self, kept: Sequence[IdRun] = ()) -> list[IdRun]:
        """Runs of event ids that cover the log from its start without a hole, oldest first, as far as files reach: `kept`, then caches."""
        return [*kept, *self._covering(lambda: self._paths("*.ids"), _reach(kept))]

    def _covering(self, paths: Callable[[], list[Path]], reach: int) -> list[IdRun]:
        """Runs out of files that cover the log from `reach` on without a hole."""
        while True:
            found: list[IdRun] = []
            end, listed = reach, paths()
            for path in listed:
                after, until = _range(path)
                if until > end >= after and (run := self._load_ids(path)) is not None:
                    found.append(run)
                    end = until
            if paths() == listed:  # else another process has replaced some of them by one
                return found

    def _load_ids(self, path: Path) -> IdRun | None:
        run = self._load(path, _Ids, _run)
        return run if run is not None and path.name == _ids_name(run.after, run.until.position) else None

    # ---- event ids that are part of the store

    def kept(self) -> list[IdRun]:
        """The runs in the log's own folder, as far as they cover the log from its start without a hole."""
        return self._covering(self._kept_paths, 0)

    def kept_again(self, reach: int) -> int | None:
        """Behind which position the next run begins that is kept beyond a hole at `reach`."""
        return next((run.after for path in self._kept_paths() if _range(path)[0] > reach and (run := self._load_ids(path))), None)

    def unkept(self) -> list[Path]:
        """Files in the log's own folder that say nothing: damaged, or of another log."""
        return [path for path in self._kept_paths() if self._load_ids(path) is None]

    def keep(self, pairs: Iterable[tuple[int, int]], until: Head) -> None:
        """Put the (hash, position) pairs behind what is kept, up to `until`, in the log's own folder, durably. One caller at a time.

        Must not be called inside `writing()`. Raises EngineError.
        """
        if self._home is None:
            return
        run, body, _ = self._merged(self.kept(), list(pairs), until, since=until.position)
        path = self._home / _ids_name(run.after, until.position)
        with os_errors(f"keeping event ids in {path}"):
            replace_file(path, _sealed(body))
            superfluous = [
                old for old in self._kept_paths() if old != path and run.after <= _range(old)[0] <= _range(old)[1] <= until.position
            ]
        with self._log.writing(), os_errors(f"removing what {path} took over"):  # whoever copies the files holds this lock
            remove_files(superfluous)

    def _kept_paths(self) -> list[Path]:
        return [] if self._home is None else id_files(self._home)

    def save_run(self, runs: Sequence[IdRun], tail: dict[str, int], head: Head, *, since: int) -> list[IdRun]:
        """Add the ids since the last run, merging runs that are not much larger than what follows them, or end after `since`.

        So there are few runs to search, and each id is rewritten a logarithmic number of times. Call under the log's lock.
        """
        run, body, merged = self._merged(runs, [(hash_of(event_id), position) for event_id, position in tail.items()], head, since=since)
        if self._store(_ids_name(run.after, head.position), body):
            for old in merged:
                self._remove(_ids_name(old.after, old.until.position))
        return [*runs[: len(runs) - len(merged)], run]

    def _merged(self, runs: Sequence[IdRun], pairs: list[tuple[int, int]], head: Head, *, since: int) -> tuple[IdRun, _Ids, list[IdRun]]:
        """One run for `pairs` and the last of `runs`, as a file has it, and which those were."""
        kept = list(runs)
        merged: list[IdRun] = []
        while kept and (len(kept[-1].hashes) <= max(4_096, 2 * len(pairs)) or kept[-1].until.position > since):
            merged.append(kept.pop())
            pairs.extend(zip(merged[-1].hashes, merged[-1].positions, strict=True))
        after = kept[-1].until.position if kept else 0
        # Runs overlap where two processes have merged the same one: each pair once, and none that an older run holds.
        pairs = [pair for pair, _ in groupby(sorted(pair for pair in pairs if pair[1] > after))]
        run = IdRun(after, head, array("Q", (pair[0] for pair in pairs)), array("Q", (pair[1] for pair in pairs)))
        body = _Ids(self._log.domain, self._birth, head.position, head.checksum, after, run.hashes.tobytes(), run.positions.tobytes())
        return run, body, merged

    # ---- files

    def torn(self) -> list[Path]:
        """Files that are ignored when a store is opened: cut off, altered, of another version, or of another log."""
        keys = [path for path in self._judgeable("*.keys") if self._load(path, _Keys, _states) is None]
        return keys + [path for path in self._judgeable("*.ids") if self._load(path, _Ids, _run) is None]

    def clear(self) -> None:
        """Remove them; what they spare is read from the log until they are written again. Call under the log's lock.

        Those stay that tell of events which are not at hand: nothing could write them again.
        """
        for path in [*self._judgeable("*.keys"), *self._judgeable("*.ids")]:
            self._remove(path.name)

    def _judgeable(self, pattern: str) -> list[Path]:
        floor = self._log.floor()
        return [
            path for path in self._paths(pattern) if (until := _number(path.stem.rpartition("-")[2])) is None or until > floor or not floor
        ]

    def _paths(self, pattern: str) -> list[Path]:
        return sorted(self._folder.glob(pattern)) if self._folder is not None and self._folder.is_dir() else []

    def _load(self, path: Path, kind: type[_Body], make: Callable[[_Body], _Made]) -> _Made | None:
        """What a file says that is whole, of this log, and whose head the log still has; else None, with a warning."""
        try:
            body = _opened(path.read_bytes(), kind)
            if body.domain != self._log.domain or body.birth != self._birth:
                raise ValueError("it belongs to another log")
            found = self._log.linked([body.position])  # of a seal the newest file has it, whatever became of the one that ends in it
            if not found or found[0].event.checksum != body.checksum:
                raise ValueError(f"its head {body.position} is not in the log")
            return make(body)
        except FileNotFoundError:
            return None  # another process has just replaced it by a newer one
        except CompactedError:
            return None  # of a time before what is at hand: whether it is true cannot be told
        except (OSError, ValueError, IndexError, OverflowError, msgspec.MsgspecError) as error:
            what = (
                "pointer file ignored, the log is read instead" if path.parent == self._folder else "the event ids in it are not believed"
            )
            _log.warning("%s: %s: %s", path, what, error)
            return None

    def _store(self, name: str, body: _Keys | _Ids) -> bool:
        """Write a cache file. That it could not be written costs time at the next opening, and nothing else."""
        if self._folder is None or not self.writable:
            return False
        try:
            with os_errors(f"writing pointer file {name}"):
                make_folder(self._folder)
                replace_file(self._folder / name, _sealed(body))
        except EventStoreError as error:
            _log.warning("%s", error)
            return False
        return True

    def _remove(self, name: str) -> None:
        if self._folder is not None:
            try:
                (self._folder / name).unlink(missing_ok=True)
            except OSError as error:
                _log.warning("%s: a superfluous pointer file could not be removed: %s", self._folder / name, error)


class IdRun(msgspec.Struct, frozen=True):
    """Where the event ids of a range of the log stand, sorted by hash."""

    after: int
    until: Head
    hashes: array[int]
    positions: array[int]

    def candidates(self, event_id: str) -> Iterator[int]:
        """Positions whose event may carry `event_id`: the row itself decides."""
        wanted = hash_of(event_id)
        index = bisect_left(self.hashes, wanted)
        while index < len(self.hashes) and self.hashes[index] == wanted:
            yield self.positions[index]
            index += 1


class EventIds:
    """event_id -> position of the first event of the call that carried it, exact over the whole log.

    Newer ids stand in a dictionary, older ones in runs, which are read when first asked for.
    """

    def __init__(self, log: EventLog, folder: PointerFolder, *, since: int) -> None:
        self._log, self._folder = log, folder
        self._since = since
        """Events up to here were not folded: their ids are in the runs, or must be read from the log."""
        self._tail: dict[str, int] = {}
        self._lock = threading.RLock()
        self._runs: list[IdRun] | None = None

    def add(self, events: Sequence[Event]) -> None:
        """Note the ids of folded events."""
        for event in events:
            if event.meta is not None and (event_id := event_id_of(event)) is not None:
                self._tail[event_id] = event.position

    def find(self, event_id: str) -> Event | None:
        """The event that carries `event_id`, confirmed by its row; None if no call ever did."""
        with self._lock:
            position = self._tail.get(event_id)
            if position is not None:
                return self._confirmed(position, event_id)
            runs = self._loaded()
            position = self._tail.get(event_id)
        if position is not None:
            return self._confirmed(position, event_id)
        for run in reversed(runs):
            for candidate in run.candidates(event_id):
                if event := self._confirmed(candidate, event_id):
                    return event
        return None

    def _confirmed(self, position: int, event_id: str) -> Event | None:
        """The event there, if the id is its own; None where two ids share a hash. Raises CorruptionError.

        A damaged row looks the same as one of another id, or as none: taken for that, a retry would be written twice. One with the id
        may be damaged elsewhere: its request or its value would be taken for another's, and whoever then takes a new id writes twice.
        """
        (event,) = proven(self._log, [position])
        return event if event_id_of(event) == event_id else None

    def _loaded(self) -> list[IdRun]:
        if self._runs is None:
            runs = self._folder.runs(self._folder.kept())
            reach = _reach(runs)
            if reach < self._since:
                try:
                    for event in _gapless(self._log, reach, self._since):
                        if (event_id := event_id_of(event)) is not None:
                            # In place, and never over a newer one: another thread may be folding.
                            self._tail.setdefault(event_id, event.position)
                except CompactedError as error:
                    raise self._lost(reach, error) from error
            self._runs = runs
        return self._runs

    def _lost(self, reach: int, error: CompactedError) -> LostIdsError:
        """What cannot be told, as neither files of ids go on behind `reach`, nor events are at hand."""
        last = error.position
        for first, end in self._log.missing() if isinstance(self._log, FileLog) else ():
            last = max(last, end) if first <= last + 1 else last
        last = min(last, self._folder.kept_again(reach) or last)
        return LostIdsError(error.domain, error.position, last, error.floor, error.archive, deleted=error.deleted)

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
            runs, tail = self._loaded(), self._tail.copy()
        pairs = {pair for run in runs for pair in zip(run.hashes, run.positions, strict=True) if after < pair[1] <= until}
        return pairs | {(hash_of(event_id), position) for event_id, position in tail.items() if after < position <= until}

    def give_up(self, lost: LostIdsError) -> None:
        """Let nothing be known of the ids that are lost: from now on they are those of no call. As PointerFolder.keep()."""
        (seal,) = self._log.linked([lost.last])
        runs = self._folder.runs(self._folder.kept())
        pairs = [pair for run in runs for pair in zip(run.hashes, run.positions, strict=True)]
        if _reach(runs) < lost.first - 1:
            for event in _gapless(self._log, _reach(runs), lost.first - 1):
                if (event_id := event_id_of(event)) is not None:
                    pairs.append((hash_of(event_id), event.position))
        self._folder.keep(pairs, Head(lost.last, seal.event.checksum))

    def prepare(self) -> None:
        """Read the runs, or the log where there are none, before somebody waits for it."""
        with self._lock:
            self._loaded()

    def save(self, head: Head, *, since: int = 2**63) -> None:
        """Write the ids since the last run, and those that end after `since`, as one. Call under the log's lock."""
        with self._lock:
            runs = self._loaded()
            reach = _reach(runs)
            if reach < head.position:
                tail = {key: at for key, at in self._tail.copy().items() if at > reach}
                self._runs = self._folder.save_run(runs, tail, head, since=since)
                self._tail = {}

    def after_fork(self) -> None:
        """In a forked child: another thread may have held the lock when the process split."""
        self._lock = threading.RLock()


def _opened(content: bytes, kind: type[_Body]) -> _Body:
    start = len(_MAGIC)
    if content[:start] != _MAGIC:
        raise ValueError("unknown kind or version")
    body = memoryview(content)[start + 32 :]
    if hashlib.sha256(body).digest() != content[start : start + 32]:
        raise ValueError("its own checksum does not hold")
    return msgspec.msgpack.decode(body, type=kind)


def _states(body: _Keys) -> KeyStates:
    statuses: list[Status] = [_STATUSES[code] for code in body.statuses]
    states = map(KeyState, array("Q", body.positions), body.whens, statuses)
    return KeyStates(Head(body.position, body.checksum), body.recorded_us, body.system, dict(zip(body.keys, states, strict=True)))


def _run(body: _Ids) -> IdRun:
    hashes, positions = array("Q", body.hashes), array("Q", body.positions)
    if len(hashes) != len(positions):
        raise ValueError("its columns differ in length")
    return IdRun(body.after, Head(body.position, body.checksum), hashes, positions)


def _packed(positions: Iterator[int]) -> bytes:
    return array("Q", positions).tobytes()


def _keys_name(position: int) -> str:
    return f"{position:020d}.keys"


def _ids_name(after: int, until: int) -> str:
    return f"{after:020d}-{until:020d}.ids"


def _range(path: Path) -> tuple[int, int]:
    """Behind which position a file of ids begins, and where it ends; (0, 0), which covers nothing, under a name that is none."""
    after, until = map(_number, path.stem.partition("-")[::2])
    return (after, until) if after is not None and until is not None else (0, 0)


def _gapless(log: EventLog, after: int, until: int) -> Iterator[Event]:
    """The events of a range, none passed over: the id of one that is would be taken for new. Raises GapError."""
    for expected, event in enumerate(log.read(after, until=until), after + 1):
        if event.position != expected:
            raise GapError(log.domain, event.position, expected)
        yield event


def _reach(runs: Sequence[IdRun]) -> int:
    return runs[-1].until.position if runs else 0


def _sealed(body: _Keys | _Ids) -> bytes:
    content = msgspec.msgpack.encode(body)
    return _MAGIC + hashlib.sha256(content).digest() + content


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() else None
