"""Processes to be killed. A clean server that has imported everything forks them, in a millisecond, from a single thread.

The tests' own process may have threads and open stores; a fork of it would carry both along. A worker reports through a
pipe, one JSON line at a time; what was written into a pipe survives the writer, so a line that is there was said.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, ClassVar, Self

import eventstore

ROOT = Path(__file__).parents[2]
LIBRARY = str(Path(eventstore.__file__).parent) + os.sep
PATIENCE = 60.0
"""Seconds without a word after which a worker is taken to hang, and its test fails."""


class WorkerError(AssertionError):
    """A job raised; the message is its traceback."""


class Tell:
    """The worker's end of the pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self, **said: Any) -> None:
        """Say something; it is in the pipe, whole, when this returns."""
        line = memoryview(json.dumps(said).encode() + b"\n")
        while line:
            line = line[os.write(self._descriptor, line) :]


Job = Callable[..., None]
"""Called in the worker with its Tell and the arguments that were ordered."""


WATCHED = -1
"""The step at which a life that is watched ends: none; told is where the files change."""


class Steps:
    """Counts what the library does, call by call and return by return, and acts at one of these moments.

    A kill at step 217 is a kill at step 217 again tomorrow: what random instants find can be replayed here. What SQLite does
    inside one call is one step; that is what the random instants are for.
    """

    watched: ClassVar[tuple[Path, Tell] | None] = None
    """Where the files are that a kill would leave, and who is told at the end of a life that is to be WATCHED when they changed."""

    def __init__(self, at: int, act: Callable[[], None], *, without: str = "") -> None:
        self.count = 0
        self.place = ""
        """Where it acted."""
        self._at, self._act, self._without = at, act, without
        self._found = dict[str, bytes]()
        self._changes: list[int] = []

    def _step(self, frame: FrameType, event: str, argument: object) -> None:
        if event != self._without and frame.f_code.co_filename.startswith(LIBRARY):
            self.count += 1
            if self.count == self._at:
                self.place = f"{frame.f_code.co_qualname}, line {frame.f_lineno}, {event} {getattr(argument, '__name__', '')}"
                self._act()
            elif self._at == WATCHED:
                self._look()

    def _look(self) -> None:
        assert self.watched is not None
        found = files_in(self.watched[0])
        if found != self._found:
            self._found = found
            self._changes.append(self.count)

    def __enter__(self) -> Self:
        sys.setprofile(self._step)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.setprofile(None)
        if self._at == WATCHED and self.watched is not None:
            self.watched[1](changes=self._changes)


def die() -> None:
    """End this process as a power switch would."""
    os.kill(os.getpid(), signal.SIGKILL)


def adjust(module: ModuleType, **names: object) -> None:
    """In a worker, which has its own copy of everything: give names of a module other values. They must be there."""
    for name, value in names.items():
        assert hasattr(module, name), f"{module.__name__} has no {name} any more"
        setattr(module, name, value)


class Worker:
    """A process under test: what it told, and how it ends."""

    def __init__(self, server: Server, pid: int, pipe: int) -> None:
        self.pid = pid
        self._server, self._pipe = server, pipe
        self._said = b""
        self._status: int | None = None

    def told(self, timeout: float = PATIENCE) -> dict[str, Any]:
        """The next thing it says. Raises WorkerError if it failed, ended without a word, or hangs."""
        said = self.next(timeout)
        if said is None:
            raise WorkerError(f"worker {self.pid} ended (status {self.wait()}) when it should have said something")
        return said

    def next(self, timeout: float = PATIENCE) -> dict[str, Any] | None:
        """The next thing it says, None at its end. Raises WorkerError."""
        while b"\n" not in self._said:
            if not self._ready(timeout):
                self.kill()
                raise WorkerError(f"worker {self.pid} said nothing for {timeout} seconds")
            if not self._receive():
                return None
        line, _, self._said = self._said.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        if "failed" in said:
            raise WorkerError(f"in worker {self.pid}:\n{said['failed']}")
        return said

    def rest(self) -> list[dict[str, Any]]:
        """Everything else it says until its end."""
        found = []
        while (said := self.next()) is not None:
            found.append(said)
        return found

    def heard(self) -> Iterator[dict[str, Any]]:
        """What it has said by now; whether it says more is not waited for. Raises WorkerError."""
        while b"\n" in self._said or (self._ready(0) and self._receive()):
            if b"\n" in self._said:
                yield self.told()

    def listen(self, seconds: float) -> None:
        """Take what it says for so long, so that a full pipe does not stop it. What was said stays to be read."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and self._ready(left):
            if not self._receive():
                return

    def _ready(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        return bool(poll.poll(seconds * 1_000))

    def _receive(self) -> bool:
        chunk = os.read(self._pipe, 65_536)
        self._said += chunk
        return bool(chunk)

    def signal(self, number: int) -> None:
        """Send it a signal. Its pid is its own until wait(), so nobody else can be hit."""
        if self._status is None:
            os.kill(self.pid, number)

    def kill(self) -> int:
        """End it, now, and wait until it is gone with its locks."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def wait(self) -> int:
        """Its exit code, or the negative number of the signal that ended it."""
        if self._status is None:
            self._status = self._server.wait(self.pid)
        return self._status

    def close(self) -> None:
        """End it if it lives."""
        self.kill()
        os.close(self._pipe)


class Server:
    """The clean process that forks workers."""

    def __init__(self, **environment: str) -> None:
        self._control, theirs = socket.socketpair()
        code = f"from tests.faults.workers import serve; serve({theirs.fileno()})"
        around = {name: value for name, value in os.environ.items() if not name.startswith("EVENTSTORE_")}
        around |= {"PYTHONPATH": str(ROOT), **environment}
        self._process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[theirs.fileno()], cwd=ROOT, env=around)
        theirs.close()
        self._control.settimeout(PATIENCE)
        self._workers: list[Worker] = []

    def start(self, job: Job, **arguments: Any) -> Worker:
        """Fork a worker that runs `job`, a function at the top of a module of this package."""
        ours, theirs = os.pipe()
        order = json.dumps({"module": job.__module__, "job": job.__name__, "arguments": arguments}).encode()
        socket.send_fds(self._control, [order], [theirs])
        os.close(theirs)
        worker = Worker(self, self._answer(), ours)
        self._workers.append(worker)
        return worker

    def run(self, job: Job, **arguments: Any) -> list[dict[str, Any]]:
        """Run `job` to its end; what it told. Raises WorkerError if it did not end well."""
        worker = self.start(job, **arguments)
        said = worker.rest()
        if status := worker.wait():
            raise WorkerError(f"{job.__name__} ended with status {status} after {said}")
        return said

    def changes(self, job: Job, watched: Path, **arguments: Any) -> list[int]:
        """The steps, of a part of a life, before which a file under `watched` changed: what a kill leaves at those between is the same."""
        told = self.run(job, watched=str(watched), at=WATCHED, **arguments)
        (changes,) = [said["changes"] for said in told if "changes" in said]
        found: list[int] = changes
        return found

    def wait(self, pid: int) -> int:
        """See Worker.wait."""
        self._control.sendall(json.dumps({"wait": pid}).encode())
        return self._answer()

    def _answer(self) -> int:
        answer = self._control.recv(64)
        if not answer:
            raise WorkerError("the server of workers is gone")
        return int(answer)

    def forget(self, worker: Worker) -> None:
        """A worker that was closed by its test, which has many of them."""
        self._workers.remove(worker)

    def tidy(self) -> None:
        """End all workers of a test."""
        while self._workers:
            self._workers.pop().close()

    def close(self) -> None:
        """End the server."""
        self._control.close()
        self._process.wait(PATIENCE)


def serve(control: int) -> None:
    """The server's life: fork and wait as told, end when the tests do. No thread, no store, nothing open but the line."""
    import_module("eventstore.adapters.memory")
    import_module("eventstore.local")
    for name in ("backups", "damages", "groups", "holders", "jobs", "limits", "lives", "pasts", "refusals", "splits", "turns"):
        import_module(f"tests.faults.{name}")
    line = socket.socket(fileno=control)
    living: set[int] = set()
    while True:
        order, descriptors, _, _ = socket.recv_fds(line, 65_536, 1)
        if not order:
            break
        asked = json.loads(order)
        if "wait" in asked:
            living.discard(asked["wait"])
            line.sendall(b"%d" % _ended(asked["wait"]))
            continue
        pid = os.fork()
        if pid == 0:
            line.close()
            _live(descriptors[0], asked)
        for descriptor in descriptors:
            os.close(descriptor)
        living.add(pid)
        line.sendall(b"%d" % pid)
    for pid in living:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _ended(pid: int) -> int:
    """Wait for a worker, but not for ever."""
    deadline = time.monotonic() + PATIENCE / 2
    while True:
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.0002)


def _live(pipe: int, asked: dict[str, Any]) -> None:
    """A worker's life. Does not return: what stands on the server's stack is the server's."""
    tell = Tell(pipe)
    status = 1
    if (watched := asked["arguments"].pop("watched", None)) is not None:
        # Closing a file drops this process's locks on it (RELIABILITY.md R4): a life that is watched has the files to itself.
        Steps.watched = Path(watched), tell
    try:
        job: Job = getattr(import_module(asked["module"]), asked["job"])
        job(tell, **asked["arguments"])
        status = 0
    except BaseException:  # noqa: BLE001  # whatever it is, the test is told
        tell(failed=traceback.format_exc())
    finally:
        os._exit(status)


def files_in(folder: Path) -> dict[str, bytes]:
    """All files under a folder but what SQLite rebuilds."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            if not name.endswith("-shm"):
                with contextlib.suppress(FileNotFoundError), open(path := os.path.join(place, name), "rb") as file:
                    found[path] = hashlib.blake2b(file.read(), digest_size=16).digest()
    return found


@contextlib.contextmanager
def serving(**environment: str) -> Iterator[Server]:
    """A server for as long as tests run, its environment changed by `environment`."""
    server = Server(**environment)
    try:
        yield server
    finally:
        server.tidy()
        server.close()
