"""Ranges of a log walked by several processes of this machine: who takes what, and that nobody is missed.

The processes are programs of their own (`python -m eventstore.walker`): a fork would copy the locks of other threads, and
multiprocessing's spawn runs a user's script again that does not expect it.
"""

from __future__ import annotations

import os
import queue
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec

from eventstore.errors import CorruptionError, EngineError
from eventstore.links import Task, Walked
from eventstore.log import PAGE, EventLog, RowLog

PROCESS_EVENTS = 50_000
"""Events that are worth a process: to start one takes the time in which one core checks about 25,000 of them."""

_RANGES_PER_PROCESS = 4
_MOST_RANGES = 255
"""All of them are written into a pipe before anybody reads: a pipe holds 4,096 bytes at the least."""

_token = struct.Struct(">QQ")
_length = struct.Struct(">Q")


def processes_for(wanted: int | None, last: int) -> int:
    """How many processes walk a log of `last` events: as many as wanted; None: one a core, as far as that pays."""
    if getattr(sys, "frozen", False) or not sys.executable:
        return 1  # there is no interpreter to start: sys.executable is the program itself
    if wanted is not None:
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, last // PROCESS_EVENTS))


def ranges_of(log: EventLog | RowLog, last: int, processes: int, *, floor: int = 0) -> list[tuple[int, int]]:
    """(after, until) of the ranges to walk, from `floor` on. Each starts where a page does, behind an event that can be read."""
    if processes == 1:
        return [(floor, last)]
    size = max(-(-(last - floor) // (processes * _RANGES_PER_PROCESS)), -(-(last - floor) // _MOST_RANGES))
    size += -size % PAGE
    borders = [border for border in range(floor - floor % PAGE + size, last, size) if _is_firm(log, border)] if size else []
    return list(zip([floor, *borders], [*borders, last], strict=True))


def _is_firm(log: EventLog | RowLog, border: int) -> bool:
    try:
        return [each.previous is not None for each in log.linked([border])] == [True]
    except CorruptionError:
        return False  # named by the walk over the range that these events are then in the middle of


class Tickets:
    """Ranges to take, in a pipe that all processes read from: whoever is free takes the next."""

    def __init__(self, ranges: list[tuple[int, int]]) -> None:
        self.descriptor, end = os.pipe()
        os.write(end, b"".join(_token.pack(*each) for each in ranges))
        os.close(end)

    def close(self) -> None:
        """Nobody takes any more through this descriptor."""
        os.close(self.descriptor)


def taken(descriptor: int) -> Iterator[tuple[int, int]]:
    """Take ranges until there are no more."""
    while ticket := os.read(descriptor, _token.size):
        after, until = _token.unpack(ticket)
        yield after, until


def put_answer(stream: IO[bytes], walked: Walked) -> None:
    """Say what a range said."""
    answer = msgspec.msgpack.encode(walked)
    stream.write(_length.pack(len(answer)) + answer)
    stream.flush()


class Crew:
    """Processes that walk ranges of one log. A context manager: whatever happens, none of them is left behind."""

    def __init__(self, source: Sequence[Path], task: Task, tickets: Tickets, processes: int) -> None:
        self._answers: queue.SimpleQueue[Walked | str] = queue.SimpleQueue()
        self._members: list[_Member] = []
        self._working = processes
        try:
            for _ in range(processes):
                self._members.append(_Member(source, task, tickets, self._answers))
        except OSError as error:
            self.end()
            raise EngineError(f"verify could not start a process: {error}; run it with one process, which needs no other") from error
        except BaseException:
            self.end()
            raise

    def finished(self) -> Iterator[Walked]:
        """The ranges that were finished since the last call, without waiting. Raises EngineError if a process died."""
        while not self._answers.empty():
            yield from self._next()

    def rest(self) -> Iterator[Walked]:
        """The ranges that are still to come, as they are finished. Raises EngineError if a process died."""
        while self._working:
            yield from self._next()

    def _next(self) -> list[Walked]:
        answer = self._answers.get()
        if isinstance(answer, Walked):
            return [answer]
        if answer:
            raise EngineError(f"verify: a process that read a part of the log {answer}; run it again, or with one process")
        self._working -= 1
        return []

    def end(self) -> None:
        """Kill whoever still works."""
        for member in self._members:
            member.end()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()


class _Member:
    """One process, and the thread that hears its answers and its end."""

    def __init__(self, source: Sequence[Path], task: Task, tickets: Tickets, answers: queue.SimpleQueue[Walked | str]) -> None:
        self._answers = answers
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  a pipe that nobody empties would stop it; end() closes
        # -P and the path: the same modules as here, whatever lies in the folder we happen to be in.
        command = [sys.executable, "-P", "-m", "eventstore.walker", msgspec.json.encode(task).decode(), *map(str, source)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)}
        try:
            self._process = subprocess.Popen(command, stdin=tickets.descriptor, stdout=subprocess.PIPE, stderr=self._said, env=environment)
        except BaseException:
            self._said.close()
            raise
        self._thread = threading.Thread(target=self._listen, name="eventstore-verify", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            assert self._process.stdout is not None  # a pipe was asked for
            for walked in _answers_of(self._process.stdout):
                self._answers.put(walked)
            end = "" if self._process.wait() == 0 else self._how_it_ended()
        except Exception as error:  # noqa: BLE001  nobody hears a thread: what ends it is said where it is waited for
            end = f"answered what cannot be read: {type(error).__name__}: {error}"
        self._answers.put(end)

    def _how_it_ended(self) -> str:
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip()
        code = self._process.returncode
        how = f"ended with code {code}" if code > 0 else f"was killed by signal {-code}"
        return f"{how}: {said[-2_000:]}" if said else how

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        assert self._process.stdout is not None  # a pipe was asked for
        self._process.stdout.close()
        self._said.close()


def _answers_of(stream: IO[bytes]) -> Iterator[Walked]:
    while head := stream.read(_length.size):
        (length,) = _length.unpack(head)
        yield msgspec.msgpack.decode(stream.read(length), type=Walked)
