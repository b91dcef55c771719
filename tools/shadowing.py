"""A store that follows a tree of JSON files: what differs between the two, and the events that it becomes.

What was recorded is asked of the store, and not remembered: a value that stands there is not written again, so that whoever was
killed goes on where the log ends. In memory is only which version of each file was looked at, to look at each once.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from eventstore.domain import DomainStore
from eventstore.errors import AccessError, ContractError, InvalidValueError, RedactedError
from eventstore.meta import EventMeta
from eventstore.model import Event
from eventstore.store import Store
from eventstore.tools.contract_tree import require_paths
from eventstore.tools.imported import Problem
from eventstore.tools.stores import raw_domain
from eventstore.tools.tree import LINK_OUT, SUFFIX, JsonFile, Stamp, keys_by_domain, leads_out, named, read_stamped, stamp_of, walk
from eventstore.values import encode_value

GAP = "gap"
"""The tag of an event before which others may be missing."""

_log = logging.getLogger("eventstore")


class _Origin(msgspec.Struct, frozen=True):
    tree: str | None = None


class _Said(msgspec.Struct, frozen=True):
    origin: _Origin = _Origin()


_decode_meta = msgspec.json.Decoder(_Said).decode

_FRESH_NS = 2 * 10**9
"""How coarse the clock of a file system may be."""
_BATCH = 500
_BATCH_BYTES = 4 * 2**20


class Version(msgspec.Struct, frozen=True):
    """What a document was when it was read, None: it was gone; and why versions before it may be missing, None: they cannot."""

    domain: str
    key: tuple[str, ...]
    text: msgspec.Raw | None
    modified_us: int
    gap: str | None


class Counts(msgspec.Struct):
    """What was recorded, and what could not be."""

    written: int = 0
    removed: int = 0
    gaps: int = 0
    """How many of these may have had others before them, which nobody saw."""


class Shadow:
    """A tree and the store that follows it. Raises AccessError when the tree is not there, or not the one that it was."""

    def __init__(self, root: Path, store: Store, *, domain: str | None = None) -> None:
        self._root, self._store, self._domain = root, store, domain
        self._identity = self._found()
        # No path: an event keeps it for ever, and it may name a person.
        self.tree = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
        self.counts = Counts()
        self._seen: dict[str, JsonFile] = {}
        self._broken: dict[str, tuple[Stamp, str]] = {}
        self._hidden: dict[str, str] = {}
        self._told: set[str] = set()
        self._is_ours = False
        self._fresh: set[str] = set()
        """Documents that were read so soon after their change that another change may have left the same stamp: look again."""

    # ---- the tree as a whole

    def _found(self) -> tuple[int, int]:
        try:
            status = os.stat(self._root)
            os.scandir(self._root).close()
        except OSError as error:
            raise AccessError(
                f"{self._root} is gone, or cannot be listed ({error.strerror}); nothing was recorded of that: an absent tree is no removal"
            ) from error
        return status.st_dev, status.st_ino

    def require_tree(self) -> None:
        """Raise AccessError unless the tree is there, and the same folder as at the beginning."""
        if self._found() != self._identity:
            raise AccessError(
                f"{self._root} is another folder now: moved, replaced or unmounted; nothing was recorded of that. Start again"
            )

    @property
    def problems(self) -> list[Problem]:
        """What cannot be recorded now."""
        broken = {path: message for path, (_, message) in self._broken.items()}
        return [Problem(path, message) for path, message in sorted({**self._hidden, **broken}.items())]

    # ---- looking

    def begin(self, gap: str, *, allow_empty: bool) -> None:
        """Record all that differs from the store, also what is gone since. `gap`: why versions before what is found may be missing."""
        versions, present = self._changed(gap)
        gone = list(self._gone_before(present, gap))
        self.require_tree()
        if gone and not present and not allow_empty:
            raise AccessError(
                f"{self._root} holds no document, but {self._store.location} has {len(gone):,} that came from there: is it mounted?"
                " Nothing was recorded; with --allow-empty they count as removed"
            )
        self._record(versions)
        self._record(gone)

    def scan(self, gap: str) -> int:
        """Look at everything, and record what changed since it was last looked at; how many events that was."""
        versions, present = self._changed(gap)
        gone = [self._gone(path, gap) for path in list(self._seen) if path not in present and self._is_removed(path)]
        self.require_tree()
        return self._record([*versions, *gone])

    def look(self, paths: Iterable[str]) -> dict[str, Version]:
        """What the documents of these paths, below the root, are now, if it is not what they were when they were last looked at."""
        found: dict[str, Version] = {}
        for path in sorted(paths):
            parts = tuple(path.split(os.sep))
            if leads_out(self._root, path):
                self._hide(path, LINK_OUT)
                continue
            try:
                stamp = stamp_of(os.stat(self._root / path))
            except FileNotFoundError:
                if path in self._seen and self._is_removed(path):
                    found[path] = self._gone(path, None)
                continue
            except OSError as error:
                self._hide(path, error.strerror or str(error))
                continue
            file = named(self._root, parts, stamp, self._domain)
            if isinstance(file, Problem):
                self._hide(path, file.message)
            elif (version := self._read(file, None)) is not None:
                found[path] = version  # whatever its stamp says: several versions may have one
        self.require_tree()
        return found

    def record(self, versions: Iterable[Version]) -> None:
        """Record what was found, in the order of its last changes."""
        self._record(list(versions))

    def holds(self, path: str) -> bool:
        """Whether a document below this path, a folder that is gone, was there."""
        return any(seen.startswith(path + os.sep) for seen in self._seen)

    def _changed(self, gap: str) -> tuple[list[Version], set[str]]:
        """Every document that is another than it was, and the paths of all that are there."""
        present: set[str] = set()
        versions: list[Version] = []
        self._hidden = {}
        for entry in walk(self._root, domain=self._domain, besides=Path(self._store.location)):
            if isinstance(entry, Problem):
                self._hide("" if entry.where == str(self._root) else entry.where, entry.message)
            elif isinstance(entry, JsonFile):
                present.add(entry.path)
                before = self._seen.get(entry.path)
                if before is not None and before.stamp == entry.stamp and entry.path not in self._fresh:
                    continue
                if (version := self._read(entry, gap)) is not None:
                    versions.append(version)
        for path in self._broken.keys() - present:
            del self._broken[path]
        return versions, present

    def _read(self, file: JsonFile, gap: str | None) -> Version | None:
        """The document, None if it cannot be read as JSON now."""
        at_most = self._store.max_value_bytes
        try:
            content, stamp = read_stamped(self._root / file.path, at_most=at_most)
            text = msgspec.Raw(content)
            encode_value(text, max_bytes=at_most)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):  # else it is gone already, and will be found to be
                self._hide(file.path, error.strerror or str(error))
            return None
        except InvalidValueError as error:
            self._break(file.path, file.stamp, str(error))
            return None
        self._broken.pop(file.path, None)
        self._hidden.pop(file.path, None)
        self._seen[file.path] = JsonFile(file.path, file.domain, file.key, stamp)
        self._fresh.discard(file.path)
        if time.time_ns() - stamp.changed_ns < _FRESH_NS:
            self._fresh.add(file.path)
        return Version(file.domain, file.key, text, stamp.modified_ns // 1_000, gap)

    def _hide(self, path: str, message: str) -> None:
        """Something that cannot be looked at, told when it is new."""
        if path not in self._told:
            self._told.add(path)
            _log.warning("%s: %s", self._root / path, message)
        self._hidden[path] = message

    def _break(self, path: str, stamp: Stamp, message: str) -> None:
        """A document that is none: half written, perhaps, and told when it stays so."""
        before = self._broken.get(path)
        self._broken[path] = stamp, message
        if before is not None and before[0] == stamp and path not in self._told:
            self._told.add(path)
            _log.warning("%s: %s", self._root / path, message)

    # ---- what is gone

    def _gone(self, path: str, gap: str | None) -> Version:
        file = self._seen.pop(path)
        self._fresh.discard(path)
        return Version(file.domain, file.key, None, 0, gap)

    def _is_removed(self, path: str) -> bool:
        """Whether a document that was seen was removed, and not only cannot be seen: its folder is unreadable, or its disk is away."""
        if self._is_hidden(path):
            return False
        folder = (self._root / path).parent
        while not folder.exists():
            folder = folder.parent
        if os.stat(folder).st_dev != self._seen[path].stamp.device:
            self._hide(path, "its file system is not there any more; this is no removal")
            return False
        return not os.path.lexists(self._root / path)

    def _is_hidden(self, path: str) -> bool:
        return any(where in ("", path) or path.startswith(where + os.sep) for where in self._hidden)

    def _gone_before(self, present: Iterable[str], gap: str) -> Iterator[Version]:
        """The keys of the store that came from this tree and are not there now."""
        there = {(file.domain, file.key) for file in self._seen.values()}
        named_now = set(present)
        for name in self._store.domains():
            domain = raw_domain(self._store, name)
            for key in list(domain.keys()):
                parts = (key,) if isinstance(key, str) else key
                path = os.path.join(*([] if self._domain is not None else [name]), *map(str, parts)) + SUFFIX
                paths = {path} if self._domain is not None else {path, os.path.join("data", path)}
                if (name, parts) in there or paths & named_now or any(map(self._is_hidden, paths)):
                    continue
                event = next(domain.history(key, limit=1))
                if _tree_of(event) == self.tree:
                    yield Version(name, tuple(map(str, parts)), None, 0, gap)

    # ---- recording

    def _record(self, versions: Sequence[Version]) -> int:
        before = self.counts.written + self.counts.removed
        self._is_ours = self._is_ours or require_paths(self._store, keys_by_domain(versions))
        # A file that was moved to another path of the same key is no removal.
        there = {(file.domain, file.key) for file in self._seen.values()} if any(version.text is None for version in versions) else set()
        known = [version for version in versions if version.text is not None or (version.domain, version.key) not in there]
        ordered = sorted(known, key=lambda version: (version.domain, version.modified_us, version.key))
        for name, group in groupby(ordered, key=lambda version: version.domain):
            domain = raw_domain(self._store, name)
            if domain.domain.write == "first":
                raise ContractError(
                    f"{name} in {self._store.location} keeps the first value of a key for ever; a tree needs a store of its own"
                )
            for batch in _batches(version for version in group if self._is_new(domain, version)):
                self._append(domain, batch)
        return self.counts.written + self.counts.removed - before

    def _is_new(self, domain: DomainStore, version: Version) -> bool:
        """Whether the store says something else of it."""
        try:
            standing = domain.get(version.key)
        except RedactedError:
            # The value that was erased cannot be compared any more; the file that it came from can.
            state = domain.state_of(version.key)
            return version.text is not None and (state is None or state.when_us != version.modified_us)
        if version.text is None:
            return standing is not None
        return standing is None or bytes(standing) != bytes(version.text)

    def _append(self, domain: DomainStore, versions: Sequence[Version]) -> None:
        with domain.batch() as batch:
            for version in versions:
                meta: EventMeta = {"origin": {"tree": self.tree}}
                if version.gap is not None:
                    meta |= {"reason": version.gap, "tags": [GAP]}
                if version.text is None:
                    batch.remove_value(version.key, **meta)
                else:
                    batch.write_value(version.key, version.text, when=version.modified_us, **meta)
        for version, receipt in zip(versions, batch.receipts, strict=True):
            self.counts.written += receipt.appended and version.text is not None
            self.counts.removed += receipt.appended and version.text is None
            self.counts.gaps += receipt.appended and version.gap is not None


def _tree_of(event: Event) -> str | None:
    """Which tree an event came from, as it says."""
    try:
        return _decode_meta(event.meta).origin.tree if event.meta is not None else None
    except msgspec.MsgspecError:
        return None


def _batches(versions: Iterable[Version]) -> Iterator[list[Version]]:
    batch: list[Version] = []
    size = 0
    for version in versions:
        batch.append(version)
        size += len(bytes(version.text or b""))
        if len(batch) == _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
