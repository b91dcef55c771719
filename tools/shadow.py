"""Follow a tree of JSON files that another program writes.

DIR is a tree as `import` takes it, written by any program, of which not a line is changed; domains, keys and `when` are as `import` makes
them. What is there is recorded first, then every change, until SIGINT or SIGTERM; a removed file is a removal. With --once, what
differs from the store is recorded, and that is all. Done again, or killed and started again, nothing is recorded twice.

A file that changes again before it could be read had a version that nobody saw. Where that may be so, the event after it has the tag
`gap`, and a reason: what is found when it begins, what no notification told of, what changed several times or was written in place. Let the
other program write a new temporary file for each version and rename it: then versions are counted.

A link is followed to what is below DIR only; any other is named on stderr and not recorded.

What is no JSON, or cannot be read, is named on stderr, and recorded once it can be. If DIR itself is gone, moved or unmounted, it ends
with 2, and nothing counts as removed.

Example:
  eventstore shadow dump data --once
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import msgspec

from eventstore.files import os_errors
from eventstore.model import Domain
from eventstore.opening import open_store
from eventstore.tools.imported import Problem
from eventstore.tools.shadowing import Shadow, Version
from eventstore.tools.terminal import Paint, count_text, escape
from eventstore.tools.tree import ignored
from eventstore.tools.watching import Certainty, Changes, Watch

OWNER = "shadow"
"""Under this name the store is opened: a second shadow of it is refused."""

BEGAN = "found when the shadow began; what it was in between was not seen"
RESCAN = "found by a rescan; no notification told of it"
OFTEN = "changed several times, or in place, while it was read"

Tell = Callable[[str], None]


class ShadowReport(msgspec.Struct, frozen=True):
    """What was recorded until the end."""

    tree: str
    store: str
    written: int
    removed: int
    gaps: int
    """Events before which others may be missing."""
    problems: list[Problem]

    @property
    def exit_code(self) -> int:
        """1 if something could not be recorded."""
        return int(bool(self.problems))


def shadow(
    folder: Path,
    location: str,
    *,
    once: bool = False,
    domain: str | None = None,
    rescan_s: float = 60,
    allow_empty: bool = False,
    tell: Tell | None = None,
) -> ShadowReport:
    """Record what the tree in `folder` is, and unless `once`, what it becomes, until SIGINT or SIGTERM.

    rescan_s: seconds between two looks at everything. `tell` is told when everything was looked at for the first time. Raises AccessError
    when the tree is gone, OwnedError if another shadow follows into this store, ContractError for one that keeps records of
    contracts whose files these are, EngineError.
    """
    if domain is not None:
        Domain(domain)
    folder = folder.absolute()
    with os_errors(f"following {folder}"), open_store(location, owner=OWNER) as store:
        followed = Shadow(folder, store, domain=domain)
        if once:
            followed.begin(BEGAN, allow_empty=allow_empty)
        else:
            _follow(followed, folder, Path(location), rescan_s, allow_empty, tell)
        counts = followed.counts
        return ShadowReport(str(folder), location, counts.written, counts.removed, counts.gaps, followed.problems)


def _follow(followed: Shadow, folder: Path, store: Path, rescan_s: float, allow_empty: bool, tell: Tell | None) -> None:
    stop = threading.Event()
    with _stopped_by_signals(stop), Watch(folder, stop) as watch:
        followed.begin(BEGAN, allow_empty=allow_empty)
        if tell is not None:
            tell(f"following {folder}: {count_text(followed.counts.written + followed.counts.removed, 'event')} recorded at the beginning")
        _Rounds(followed, folder, store, watch, rescan_s).run(stop)


class _Rounds:
    """Notifications, what they lead to, and now and then a look at everything."""

    def __init__(self, followed: Shadow, folder: Path, store: Path, watch: Watch, rescan_s: float) -> None:
        self._followed, self._folder, self._watch, self._rescan_s = followed, folder, watch, rescan_s
        self._own = os.path.realpath(store)
        self._certainty = Certainty()

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; then once more, so that what was there then is recorded."""
        due = time.monotonic() + self._rescan_s
        changes: Changes = set()
        while not stop.is_set():
            self._followed.require_tree()
            changes = changes or self._watch.wait(due)
            settled = self._round(changes) if changes else set()
            if self._watch.lost_track() or settled is None or time.monotonic() >= due:
                self._followed.scan(RESCAN)
                due = time.monotonic() + self._rescan_s
            changes = settled or set()
        self._followed.scan(RESCAN)

    def _round(self, changes: Changes) -> Changes | None:
        """Record what was told of; what was told since, None where that was lost."""
        documents, folders = self._told(changes)
        found = self._followed.look(documents)
        settled = self._watch.settle()
        certain = self._certainty.of(changes)
        since = {path for _, path in settled or ()}
        self._followed.record(self._judged(path, version, certain, since, lost=settled is None) for path, version in found.items())
        if folders:
            self._followed.scan(RESCAN)
        return settled

    def _judged(self, path: str, version: Version, certain: set[str], since: set[str], *, lost: bool) -> Version:
        full = str(self._folder / path)
        return version if full in certain and full not in since and not lost else msgspec.structs.replace(version, gap=OFTEN)

    def _told(self, changes: Changes) -> tuple[set[str], bool]:
        """The documents that may have changed, by their paths below the root, and whether folders did."""
        documents: set[str] = set()
        folders = False
        for _, path in changes:
            if path == self._own or path.startswith(self._own + os.sep) or not path.startswith(str(self._folder) + os.sep):
                continue
            relative = os.path.relpath(path, self._folder)
            if os.path.isdir(path) or self._followed.holds(relative):
                folders = True
            elif ignored(os.path.basename(path)) is None:
                documents.add(relative)
        return documents, folders


class _stopped_by_signals:  # noqa: N801  a context manager, named as it reads
    """Has SIGINT and SIGTERM set an event while the block runs."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._stop.set()

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def render(report: ShadowReport, paint: Paint) -> Iterator[str]:
    """What could not be recorded, and the sum."""
    for problem in report.problems:
        yield f"{paint('not recorded', 'bad')}  {escape(problem.where)}: {escape(problem.message)}"
    if report.gaps:
        yield paint(f"before {count_text(report.gaps, 'event')} others may be missing, which nobody saw: tag `gap`", "dim")
    verdict = f"{count_text(report.written, 'version')} and {count_text(report.removed, 'removal')} recorded in {escape(report.store)}"
    yield paint(verdict, "warn" if report.problems else "ok")
