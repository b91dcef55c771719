"""What the system tells of changes in a tree: a hint where to look, and how certain it is that nothing came in between.

A notification names a path, and not a version. watchfiles gives those of some milliseconds together, each once, and says nothing
where the system lost some. So whoever listens looks for himself now and then; what is certain here is only what can be counted.
"""

from __future__ import annotations

import inspect
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Collection, Generator, Iterable
from pathlib import Path

from watchfiles import Change, watch
from watchfiles.main import FileChange

from eventstore.tools.tree import ignored

Changes = set[FileChange]

_STEP_MS = 10
"""How long notifications are gathered."""
_TURN_MS = 200
"""How long watchfiles waits before it lets us look at the clock."""
_PATIENCE_S = 10
"""How long a notification of our own file may take."""
_NAMES_KEPT = 10_000


class Watch:
    """Notifications of everything below `root`, until `stop` is set. A context manager. Raises OSError where there can be none."""

    def __init__(self, root: Path, stop: threading.Event) -> None:
        self._root, self._stop, self._number = root, stop, 0
        self._folder = tempfile.TemporaryDirectory(prefix="eventstore-shadow-")
        self._lost = False
        self._told = self._begun()
        try:
            self._early = self._next()  # only now it watches
        except BaseException:
            self.close()
            raise

    def _begun(self) -> Generator[Changes, None, None]:
        return watch(
            self._root,
            self._folder.name,
            watch_filter=None,
            debounce=_STEP_MS,
            step=_STEP_MS,
            rust_timeout=_TURN_MS,
            yield_on_timeout=True,
            stop_event=self._stop,
            raise_interrupt=False,
            ignore_permission_denied=True,
        )

    def _next(self) -> Changes:
        """What was told in the next moments; nothing if it is to stop. Raises OSError where it cannot begin again."""
        try:
            return next(self._told, set())
        except RuntimeError:  # it broke, and begins anew
            self._lost = True
            self._told = self._begun()
            self._stop.wait(_TURN_MS / 1_000)
            return set()

    def lost_track(self) -> bool:
        """Whether what happened since the last time this was asked may not have been told."""
        lost, self._lost = self._lost, False
        return lost

    def wait(self, deadline: float) -> Changes:
        """What is told first; nothing once that monotonic moment has come, it lost track, or it is to stop."""
        changes, self._early = self._others(self._early), set()
        while not changes and not self._lost and not self._stop.is_set() and time.monotonic() < deadline:
            changes = self._others(self._next())
        return changes

    def settle(self) -> Changes | None:
        """What was told until now. They come in order, that of a file we make now last. None if that does not come, or it is lost."""
        changes: Changes = set()
        if inspect.getgeneratorstate(self._told) == inspect.GEN_CREATED:  # it broke: only now it watches again
            changes |= self._next()
        self._number += 1
        own = os.path.join(self._folder.name, str(self._number))
        Path(own).touch()
        deadline = time.monotonic() + _PATIENCE_S
        while not any(path == own for _, path in changes):
            if self._lost or self._stop.is_set() or time.monotonic() > deadline:
                return None
            changes |= self._next()
        os.unlink(own)
        return self._others(changes)

    def _others(self, changes: Changes) -> Changes:
        return {(change, path) for change, path in changes if os.path.dirname(path) != self._folder.name}

    def close(self) -> None:
        """Listen no more."""
        self._told.close()
        self._folder.cleanup()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Certainty:
    """Which documents were put in place just once, as far as notifications can be counted.

    They can be where a writer renames a temporary file of a name of its own for each version: each is gone once. What is written
    in place, or renamed from elsewhere, is told in the same words however often it happens.
    """

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def of(self, changes: Iterable[FileChange]) -> set[str]:
        """The paths of the documents that these changes put in place once, or removed, and touched in no other way."""
        told: dict[str, set[Change]] = {}
        for change, path in changes:
            told.setdefault(path, set()).add(change)
        put = {path for path, what in told.items() if what == {Change.added} and ignored(os.path.basename(path)) is None}
        renamed = [path for path, what in told.items() if Change.deleted in what and ignored(os.path.basename(path)) is not None]
        again = {path for path in renamed if path in self._names}
        self._keep(renamed)
        removed = {path for path, what in told.items() if what == {Change.deleted} and path not in renamed}
        return removed | self._once(put, renamed, again)

    def _once(self, put: set[str], renamed: Collection[str], again: Collection[str]) -> set[str]:
        certain: set[str] = set()
        for folder in {os.path.dirname(path) for path in put}:
            documents = {path for path in put if os.path.dirname(path) == folder}
            sources = [path for path in renamed if os.path.dirname(path) == folder]
            if any(path in again for path in sources):
                continue  # a name that comes again is told once for many times
            own = Counter(document for document in documents for path in sources if os.path.basename(document) in os.path.basename(path))
            if own:
                certain |= {document for document in documents if own[document] == 1}
            elif len(sources) == len(documents):
                certain |= documents
        return certain

    def _keep(self, names: Iterable[str]) -> None:
        self._names.update(dict.fromkeys(names))
        while len(self._names) > _NAMES_KEPT:
            del self._names[next(iter(self._names))]
