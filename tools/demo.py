"""Try it: a recorded trading session is written, the writer is killed half way, and nothing it was promised is missing.

A child process writes 3,536 real writes of a trading engine, each made durable before the next, and is killed with SIGKILL at a
random moment in the middle. The store is reopened and every claim about it is checked against a plain dict. The store is kept, in
a temporary folder or in --folder, and commands are named that explore it.
Exit 1 if anything it claims does not hold, 2 if the disk is full or the machine refuses otherwise.

Example:
  eventstore demo
  eventstore demo --folder demo-store --json
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import msgspec

from eventstore.clock import format_us
from eventstore.codec import encode_key
from eventstore.errors import ConfigError, EngineError, EventStoreError
from eventstore.opening import open_store
from eventstore.store import Store
from eventstore.tools import demo_claims as claims
from eventstore.tools.demo_claims import BrokenError, Claim, judge
from eventstore.tools.demo_report import DemoReport, Moment, render
from eventstore.tools.demo_story import POSITIONS, held, tell
from eventstore.tools.demo_writer import REFUSED, SESSION, Ack, write_from
from eventstore.tools.recording import Write, read_recording
from eventstore.tools.stores import raw_domain
from eventstore.tools.terminal import Progress

__all__ = ["DemoReport", "demo", "render"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_decode_ack = msgspec.json.Decoder(Ack).decode


class Killed(msgspec.Struct, frozen=True):
    """What came of the writer: the acknowledgements its parent read, how it ended, and what it said on its way."""

    acks: list[Ack]
    returncode: int
    stderr: str


def demo(folder: Path | None = None, *, progress: Progress | None = None, after_kill: Callable[[Path], None] | None = None) -> DemoReport:
    """Run the demo into `folder`, which must be missing or empty; by default a new temporary one. The store is kept, to be explored.

    `after_kill` is called with the folder between the kill and the reopening: there tests damage what the demo must then notice.
    Raises ConfigError for a folder that holds something, EngineError where the machine refuses: that says nothing about the store.
    """
    started = time.perf_counter()
    place = _fresh(folder)
    writes = read_recording(SESSION)
    report = _blank(place, writes)
    killed = write_and_kill(place, len(writes) // 2, len(writes), progress)
    report.acknowledged = len(killed.acks)
    report.claims = [judge("the writer was killed with SIGKILL in the middle of its work", lambda: was_killed(killed, len(writes)))]
    if after_kill is not None:
        after_kill(place)
    if report.claims[0].holds:
        try:
            _continue(report, place, killed.acks, writes, progress)
        except EngineError:
            raise
        except (BrokenError, EventStoreError) as error:
            report.claims.append(Claim("the store opens again, and takes writes", False, str(error)))
    report.ok = all(claim.holds for claim in report.claims)
    report.bytes = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    report.seconds = time.perf_counter() - started
    return report


def _fresh(folder: Path | None) -> Path:
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="eventstore-demo-"))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not an empty folder; the demo starts with a fresh store: name another")
    return folder.absolute()


def _blank(folder: Path, writes: Sequence[Write]) -> DemoReport:
    times = [write.when_us for write in writes if write.when_us is not None]
    return DemoReport(
        folder=str(folder),
        writes=len(writes),
        # The first call's own: later ones name earlier moments again.
        session_from_us=times[0] if times else None,
        session_until_us=max(times, default=None),
    )


# ---- the writer and its end


def write_and_kill(folder: Path, middle: int, total: int, progress: Progress | None = None) -> Killed:
    """Start the writer, kill it at some moment after write number `middle` was acknowledged, and read every word it said before."""
    acks: list[Ack] = []
    with tempfile.TemporaryFile() as said:
        writer = subprocess.Popen(
            # -P and the path: the child finds this very package, and nothing that happens to lie in the current folder.
            [sys.executable, "-P", "-m", "eventstore.tools.demo_writer", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        )
        try:
            assert writer.stdout is not None
            with writer.stdout as answers:
                for line in answers:
                    if not line.endswith(b"\n"):  # cut off in the middle: never said
                        break
                    acks.append(_decode_ack(line))
                    if len(acks) == middle:
                        _kill_soon(writer)
                    _tell(progress, "writing, until it is killed", len(acks), total)
        finally:
            writer.kill()
            writer.wait()
        return Killed(acks, writer.returncode, _last_line(said))


def _kill_soon(writer: subprocess.Popen[bytes]) -> None:
    """The writer goes on meanwhile: the kill may hit anything it does, between two writes or in the middle of one."""
    time.sleep(random.uniform(0, 0.005))
    os.kill(writer.pid, signal.SIGKILL)


def _last_line(said: IO[bytes]) -> str:
    """Of a traceback, what went wrong."""
    said.seek(0)
    return said.read()[-4_000:].decode(errors="replace").strip().rpartition("\n")[2]


def _tell(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress is not None and (done % 16 == 0 or done == total):
        progress(what, done, total)


def was_killed(killed: Killed, total: int) -> str:
    """The writer died of SIGKILL, at work: some writes were acknowledged, in order, and some were still to come."""
    if killed.returncode == REFUSED:
        raise EngineError(killed.stderr)
    if killed.returncode != -signal.SIGKILL:
        raise BrokenError(
            f"it ended with exit code {killed.returncode} after {len(killed.acks):,} writes: {killed.stderr or 'it said nothing'}"
        )
    if [ack.index for ack in killed.acks] != list(range(len(killed.acks))):
        raise BrokenError("its acknowledgements are not in order")
    if not 0 < len(killed.acks) < total:
        raise BrokenError(f"{len(killed.acks):,} of {total:,} writes were acknowledged by then: that is not in the middle")
    return f"after {len(killed.acks):,} of {total:,} writes"


# ---- after the kill


def _continue(report: DemoReport, folder: Path, acks: Sequence[Ack], writes: Sequence[Write], progress: Progress | None) -> None:
    """Reopen, judge what is there, go on to the end, judge the whole. Stops at the first claim that does not hold."""
    with open_store(folder, create=False, durability="power") as store:
        report.claims += survived(store, acks, writes)
        if not all(claim.holds for claim in report.claims):
            return
        report.landed = claims.landed(claims.events_of(store), len(acks), writes)
        recorded_us = _last_recorded(store)
        for ack in write_from(store, writes, len(acks)):
            _tell(progress, "reopened, going on to the end", ack.index + 1, len(writes))
        report.claims += finished(store, writes)
        report.moment, claim = _look_back(store, recorded_us, writes[: report.landed])
        report.claims.append(claim)
        _tell_story(report, store, writes)
        _measure(report, store, writes)
    report.explore = _explore(report)


def survived(store: Store, acks: Sequence[Ack], writes: Sequence[Write]) -> list[Claim]:
    """The claims about a store whose writer was killed."""
    return [
        judge("every acknowledged write is there", lambda: claims.acknowledged_are_there(claims.events_of(store), acks, writes)),
        judge("nothing else is there", lambda: claims.nothing_else_is_there(claims.events_of(store), len(acks), writes)),
        judge("the chain is whole after the kill", lambda: claims.chain_is_whole(store)),
    ]


def finished(store: Store, writes: Sequence[Write]) -> list[Claim]:
    """The claims about a store that went on to the end, its first writes retried with the ids they had."""
    expected = claims.replay(writes)
    return [
        judge("it went on to the end, and nothing was written twice", lambda: claims.same_events(claims.events_of(store), expected)),
        judge("the state is what a plain dict says", lambda: claims.same_states(lambda name: raw_domain(store, name), expected)),
    ]


def _last_recorded(store: Store) -> int:
    return max(event.recorded_us for name in store.domains() for event in store.domain(name).events(reverse=True, limit=1))


def _look_back(store: Store, recorded_us: int, writes: Sequence[Write]) -> tuple[Moment, Claim]:
    """What was held when the writer was killed, asked after everything that came later; judged against the writes up to there."""
    as_of = _EPOCH + timedelta(microseconds=recorded_us)
    session_us = max((write.when_us for write in writes if write.when_us is not None), default=None)
    claim = judge(
        "the state at the moment of the kill is still known",
        lambda: claims.same_states(lambda name: raw_domain(store, name).state(as_of=as_of), claims.replay(writes)),
    )
    return Moment(recorded_us, session_us, held(raw_domain(store, POSITIONS).state(as_of=as_of)) if claim.holds else []), claim


def _tell_story(report: DemoReport, store: Store, writes: Sequence[Write]) -> None:
    story = tell(store)
    if story is None:
        report.claims.append(Claim("a position's history is told", False, "no position was opened and closed in the session"))
        return
    claim = judge("a position's history is what was sent", lambda: claims.same_history(store, POSITIONS, story.key, writes))
    report.claims.append(claim)
    report.story = story if claim.holds else None


def _measure(report: DemoReport, store: Store, writes: Sequence[Write]) -> None:
    expected = claims.replay(writes)
    report.domains, report.keys, report.events = len(expected.states), expected.keys, expected.count
    started = time.perf_counter()
    report.claims.append(judge("the chain is whole at the end", lambda: claims.chain_is_whole(store)))
    report.verify_seconds = time.perf_counter() - started


# ---- what to do next


def _explore(report: DemoReport) -> list[str]:
    """Commands that work as they stand, in the folder and with the program that this one was started from."""
    command, folder = _command(), shlex.quote(report.folder)
    lines = [f"{command} log {folder} {POSITIONS}"]
    if report.story is not None:
        lines.append(f"{command} history {folder} {POSITIONS} {shlex.quote(encode_key(report.story.key))}")
    if report.moment is not None:
        lines.append(f"{command} state {folder} {POSITIONS} --as-of {format_us(report.moment.recorded_us)}")
    return [*lines, f"{command} verify {folder}", f"{command} doctor {folder}"]


def _command() -> str:
    """How the user can call the program again: by its name if that finds it, else by the path it was called with."""
    program = Path(sys.argv[0])
    if program.name != "eventstore" or not program.exists():
        return f"{shlex.quote(sys.executable)} -m eventstore"
    found = shutil.which("eventstore")
    return "eventstore" if found and os.path.samefile(found, program) else shlex.quote(sys.argv[0])
