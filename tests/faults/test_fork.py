"""os.fork() with an open store: both sides go on, the child inherits no lock, and its end is none of the parent's business."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import eventstore
from tests.faults import splits
from tests.faults.ledger import DOMAIN, Ledger, acknowledgement, carry_out
from tests.faults.workers import ROOT, Server, Worker


def take(told: list[dict[str, object]]) -> Ledger:
    """The acknowledgements among what was told."""
    ledger = Ledger()
    for said in told:
        ledger.take(said)
    return ledger


def test_parent_and_children_write_on(server: Server, in_memory: Path) -> None:
    told = server.run(splits.write_on_both_sides, folder=str(in_memory / "store"))
    assert told[-1] == {"ok": True}
    ledger = take(told)
    assert {call.split(".")[0] for _, call in ledger.acknowledged.values()} == {"before", "child", "other", "parent", "after"}
    ledger.require_kept(in_memory / "store")


def test_threads_that_fork_at_the_same_moment_leave_no_lock_behind(in_memory: Path) -> None:
    program = "import sys; from tests.faults import splits; splits.fork_from_two_threads(lambda **said: print(said), sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", program, str(in_memory / "store")], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == ["{'stuck': 0}", "{'positions': [1, 1], 'ok': True}"], done.stderr


@pytest.mark.parametrize("locked", [True, False], ids=["forked while locked", "locked after the fork"])
def test_a_killed_parents_lock_does_not_live_on_in_its_child(server: Server, in_memory: Path, locked: bool) -> None:
    parent = server.start(splits.fork_and_hold, folder=str(in_memory / "store"), locked=locked)
    ledger = Ledger()
    child = 0
    while "holding" not in (said := parent.told()):
        ledger.take(said)
        child = said.get("child", child)
    assert child
    try:
        parent.kill()
        os.kill(child, 0)  # it lives
        with eventstore.open(in_memory / "store", busy_timeout_ms=2_000) as store:
            store.domain(DOMAIN).write_value("key-after", {"call": "x"}, run_id="after")
            ledger.require([event for event in store.domain(DOMAIN).events() if "after" not in str(event.meta)])
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("act", ["archives", "backs up", "shreds", "makes a domain", "writes the manifest", "salvages"])
def test_no_lock_of_a_killed_parents_thread_lives_on_in_its_child(server: Server, in_memory: Path, act: str) -> None:
    """Whoever comes next gets the lock at once, and does the same; the child lives."""
    folder, beside = in_memory / "store", in_memory / "beside"
    beside.mkdir()
    (beside / "archive").mkdir()
    parent = server.start(splits.fork_beside_an_act, folder=str(folder), beside=str(beside), act=act)
    child = parent.told()["child"]
    lock, do = splits.acts(folder, beside)[act]
    try:
        assert splits.is_locked(lock)
        parent.kill()
        os.kill(child, 0)
        assert not splits.is_locked(lock), f"{lock} is still held"
        with splits.open_shared(folder, beside) as store:
            do(store)
            assert store.verify().ok
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="what a process has open stands nowhere")
def test_no_fork_falls_between_a_lock_and_the_note_of_it(server: Server, in_memory: Path) -> None:
    told = server.run(splits.fork_beside_locking_threads, path=str(in_memory / "lock"), forks=100)
    assert [said["copies"] for said in told] == [0] * 100


@pytest.mark.parametrize("how", ["exits", "closes", "reads", "writes and closes", "collects"])
def test_the_end_of_a_child_leaves_the_parents_files_alone(server: Server, in_memory: Path, how: str) -> None:
    parent = server.start(splits.let_children_end, folder=str(in_memory / "store"), how=how)
    told = parent.rest()
    assert (told[-1], parent.wait()) == ({"before_death": True}, -signal.SIGKILL)
    take(told).require_kept(in_memory / "store")


ENDING = """
import os, sys, eventstore
store = eventstore.open(sys.argv[1])
domain = store.domain("orders")
domain.write_value("key", 0)
wait, go = os.pipe()
if os.fork() == 0:
    os.close(go)  # so that the end of the parent is the end of waiting
    os.read(wait, 1)
    if sys.argv[2] == "used":
        domain.write_value("child", 1)
    sys.exit()  # the interpreter takes itself apart, and with it whatever it finds
domain.write_value("key", 1)
wal = os.path.join(sys.argv[1], "logs", "orders", f"{0:020d}.db-wal")
before = os.stat(wal)
os.write(go, b"x")
assert os.wait()[1] == 0
after = os.stat(wal)
assert (after.st_ino, after.st_size >= before.st_size) == (before.st_ino, True)
domain.write_value("key", 2)
os._exit(7)  # and this is a death: nothing may depend on a close
"""


@pytest.mark.parametrize("use", ["untouched", "used"])
def test_a_child_that_ends_as_python_ends_leaves_the_parents_files_alone(in_memory: Path, use: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDING, str(in_memory / "store"), use],
        capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (7, "")
    with eventstore.open(in_memory / "store") as store:
        domain = store.domain(DOMAIN)
        assert domain.read_value("key") == 2
        assert domain.get("child") == (1 if use == "used" else None)
        assert store.verify().ok


def test_a_parent_may_close_while_its_child_writes(server: Server, in_memory: Path) -> None:
    """The child's handle is a handle like any other: the parent's is not the last one, and must not remove the WAL."""
    told = server.run(splits.close_beside_a_child, folder=str(in_memory / "store"), closes=20)
    assert told[-1] == {"ok": True}
    take(told).require_kept(in_memory / "store")


def test_forks_beside_a_writing_thread_write_on(server: Server, in_memory: Path) -> None:
    told = server.run(splits.fork_beside_a_writing_thread, folder=str(in_memory / "store"), forks=30)
    assert told[-1] == {"ok": True}
    take(told).require_kept(in_memory / "store")


def test_a_child_that_outlives_its_killed_parent_writes_on_beside_others(server: Server, in_memory: Path, seed: str) -> None:
    """Three generations on one store; each parent is killed in the middle of its writing, each orphan writes beside the next family."""
    ledger, orphans, chance = Ledger(), [], random.Random(seed)
    try:
        for generation in range(3):
            parent = server.start(splits.be_outlived, folder=str(in_memory / "store"), name=f"{seed}-{generation}")
            names: list[str] = []

            def take_until(enough: Callable[[list[str]], bool], parent: Worker = parent, names: list[str] = names) -> None:
                while not enough(names):
                    said = parent.told()
                    if "child" in said:
                        orphans.append((said["child"], parent))
                    else:
                        names.append(said["call"])
                        ledger.take(said)

            take_until(lambda names: all(any(f"-{who}-" in name for name in names) for who in ("parent", "child")))
            parent.listen(chance.uniform(0, 0.02))
            parent.kill()
            # More than the pipe can hold of what was said before the kill.
            said_before = len(names)
            take_until(lambda names, before=said_before: sum("-child-" in name for name in names[before:]) >= 600)  # type: ignore[misc]
            with eventstore.open(in_memory / "store") as store:
                ledger.take(acknowledgement(f"{seed}-{generation}-other", carry_out(store.domain(DOMAIN), f"{seed}-{generation}-other")))
    finally:
        for orphan, _ in orphans:
            os.kill(orphan, signal.SIGKILL)
    for _, parent in orphans:
        for said in parent.rest():
            ledger.take(said)
    ledger.require_kept(in_memory / "store")
