"""A second process, for whoever has a store open: what is called there is called in a fork of the one that asks.

The fork has all that its parent had, handles that it has to open anew included, and ends without closing anything.
"""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")

PATIENCE_S = 60


def elsewhere(call: Callable[[], R]) -> R:
    """What `call` gives in another process. Raises AssertionError with the traceback of whatever it raises there."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer(call, theirs)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        content = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise AssertionError(f"in another process, which ended with {status}:\n{content.decode(errors='replace')}")
    answer: R = pickle.loads(content)  # noqa: S301  # of our own making
    return answer


def _answer(call: Callable[[], object], pipe: int) -> None:
    """Call it, say what came of it, and end. Does not return: what stands on the stack is the parent's."""
    content, status = b"it was interrupted", 1
    try:
        signal.alarm(PATIENCE_S)
        content, status = pickle.dumps(call()), 0
    except BaseException:  # noqa: BLE001  # whatever it is, the parent is told
        content = traceback.format_exc().encode()
    finally:
        with open(pipe, "wb") as file:
            file.write(content)
        os._exit(status)
