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
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import msgspec

from eventstore.database import id_files
from eventstore.errors import CompactedError, EventStoreError
from eventstore.files import make_folder, os_errors, refusal, remove_files, replace_file, stat_or_none
from eventstore.log import EventLog
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
        self._met: set[Path] = set()
        """Caches that were found to be wrong, and told of."""

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

    def runs(self, kept: Sequence[IdRun] = (), *, after: int = 0) -> list[IdRun]:
        """Runs of event ids that cover the log behind `after` without a hole, oldest first, as far as files reach: `kept`, then caches."""
        return [*kept, *self._covering(lambda: self._paths("*.ids"), max(after, _reach(kept)))]

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

    def kept(self, *, after: int = 0) -> list[IdRun]:
        """The runs in the log's own folder, as far as they cover the log behind `after` without a hole."""
        return self._covering(self._kept_paths, after)

    def kept_stamp(self) -> object:
        """What is another once a file in the log's own folder was put there, or replaced."""
        return [(path.name, status.st_mtime_ns) for path in self._kept_paths() if (status := stat_or_none(path)) is not None]

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

    @property
    def has_met_wrong_ones(self) -> bool:
        """Whether a cache was wrong when it was asked for."""
        return bool(self._met)

    def remove_wrong_ones(self) -> None:
        """Remove the caches that were wrong when they were asked for, so that nobody is told again. Call under the log's lock."""
        while self._met:
            self._remove(self._met.pop().name)

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
            is_cache = path.parent == self._folder
            if is_cache and not isinstance(error, OSError):  # what could not be read now may be right
                self._met.add(path)
            what = "pointer file ignored, the log is read instead" if is_cache else "the event ids in it are not believed"
            _log.warning("%s: %s: %s", path, what, refusal(error) if isinstance(error, OSError) else error)
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
                _log.warning("%s: a superfluous pointer file could not be removed: %s", self._folder / name, refusal(error))


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


def _reach(runs: Sequence[IdRun]) -> int:
    return runs[-1].until.position if runs else 0


def _sealed(body: _Keys | _Ids) -> bytes:
    content = msgspec.msgpack.encode(body)
    return _MAGIC + hashlib.sha256(content).digest() + content


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() else None
