"""`python -m eventstore.walker TASK FILE...`: one of the processes that walk a log (ranges.py).

Takes ranges from standard input until there are no more, and says on standard output what it saw.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import msgspec

from eventstore.links import Task, Walk, as_finding
from eventstore.logfiles import LogFiles
from eventstore.ranges import put_answer, taken

BUSY_TIMEOUT_MS = 10_000


def main(said: str, *source: str) -> None:
    """Walk ranges of the log in the files `source`; `said` is a Task as JSON."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us ends us
    task = msgspec.json.decode(said, type=Task)
    files = LogFiles(task.domain, lambda: list(map(Path, source)), lenient=True, busy_timeout_ms=BUSY_TIMEOUT_MS)
    try:
        for after, until in taken(sys.stdin.fileno()):
            walk = Walk(files, task, after, until)
            try:
                for _ in walk.run():
                    pass
            except Exception as error:  # noqa: BLE001  said in the place it has among the other ranges
                walk.walked.failure = as_finding(task.domain, error)
            put_answer(sys.stdout.buffer, walk.walked)
    finally:
        files.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
