"""One sealed file by itself, wherever it stands: read, and proven whole by nothing but the seal that the log carries of it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

from eventstore import database
from eventstore.carried import prove_carried
from eventstore.codec import read_birth
from eventstore.errors import EngineError, FormatError
from eventstore.files import os_errors
from eventstore.links import Task, Walk
from eventstore.logfile import LogFile
from eventstore.logfiles import LogFiles
from eventstore.model import Event, Linked


@contextlib.contextmanager
def reading(path: Path, domain: str, *, busy_timeout_ms: int) -> Iterator[LogFile]:
    """A sealed file, for reading alone. Raises CorruptionError, EngineError."""
    with os_errors(f"opening {path}"):
        file = LogFile(path, domain, read_only=True, busy_timeout_ms=busy_timeout_ms)
    try:
        yield file
    finally:
        file.close_reader()


def prove(path: Path, domain: str, store_id: str, seal: Event, redacted: Collection[int], *, busy_timeout_ms: int) -> None:
    """prove_events(), and that nothing of what was redacted is left. Raises EngineError for a redaction that was not finished."""
    prove_events(path, domain, store_id, seal, redacted, busy_timeout_ms=busy_timeout_ms)
    with reading(path, domain, busy_timeout_ms=busy_timeout_ms) as file:
        for position in file.held(sorted(redacted)):
            raise EngineError(f"{domain}@{position}: redacted, and still in {path}: redact the same again, to see what is in the way")


def prove_events(path: Path, domain: str, store_id: str, seal: Event, redacted: Collection[int], *, busy_timeout_ms: int) -> None:
    """Prove a sealed file by itself: what it carries, every event that was appended to it, and that it ends in `seal`.

    What is erased in it is among the positions `redacted`. Raises CorruptionError with the first thing that is wrong.
    """
    files = LogFiles(domain, lambda: [path], busy_timeout_ms=busy_timeout_ms)
    try:
        start = max(database.first_of(path) - 1, 0)
        birth = read_birth(next(iter(files.get([0])), None), domain)
        if (birth.store_id, birth.domain) != (store_id, domain):
            raise FormatError(domain, 0, f"{path.name} is of domain {birth.domain!r} of store {birth.store_id}, not of this store")
        carried = list(prove_carried(_carried(files, start), start, domain))
        before = {event.key.encode(): event.position for event in carried}
        walk = Walk(files, Task(domain, seal.position, [seal.position], 0), start, seal.position)
        for _ in walk.run():
            pass
        walked = walk.walked
        for finding in walked.findings:
            raise FormatError(domain, finding.position, finding.message)
        for segment in walked.segments:
            for key, first, prev in zip(segment.keys, segment.firsts, segment.prevs, strict=True):
                if prev != before.get(key, 0):
                    raise FormatError(domain, first, f"prev is {prev}, but the key's previous event is {before.get(key, 0)}")
        end = files.head()
        if (end.position, end.checksum) != (seal.position, seal.checksum):
            raise FormatError(domain, end.position, f"{path.name} does not end in the seal at position {seal.position}")
        erased = [event.position for event in carried if event.data is None and event.digest is not None] + walked.digests
        for position in set(erased) - set(redacted):
            raise FormatError(domain, position, "a digest stands in place of the data, but no redact event names this position")
    finally:
        files.close()


def _carried(files: LogFiles, start: int) -> Iterator[Linked]:
    after = -1
    while page := files.carried(start, after):
        yield from page
        after = page[-1].event.position
