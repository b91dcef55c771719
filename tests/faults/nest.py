"""Runs pytest in processes forked from one that has imported what all tests need of others: most of a short test is importing.

A script, not to be imported: nothing of `eventstore` or `tests` may be there before a process knows whose. Each line of standard input
is an order; the answers are the pid of a process, and its exit code once it has ended.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any

import pytest

for name in ("asyncio", "click", "cryptography", "hypothesis.stateful", "msgspec", "rich", "sqlite_utils", "starlette", "uvicorn"):
    import_module(name)


def hatch(order: dict[str, Any]) -> int:
    """Be the process that `python -m pytest` would be in that folder and environment."""
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.path.insert(0, order["folder"])
    sys.dont_write_bytecode = True
    said = os.open(order["output"], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, like in ((0, nothing), (1, said), (2, said)):
        os.dup2(like, descriptor)
    # What was imported here was not rewritten for its assertions: nobody looks at those of others.
    code = pytest.main(["-W", "ignore::pytest.PytestAssertRewriteWarning", *order["arguments"]])
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code)


def main() -> None:
    """See the module."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(hatch(json.loads(line)))
            finally:
                os._exit(255)
        os.write(1, b"%d\n" % pid)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
