"""An owner's lease: one live process at a time acts under a name, and whoever comes second learns who and since when."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

import eventstore
from eventstore import ConfigError, HaltedError, OwnedError, Store, UnavailableError
from eventstore.clock import now_us

ROOT = Path(__file__).resolve().parents[2]
BOT = """
import os, sys, eventstore
try:
    with eventstore.open(sys.argv[1], owner=sys.argv[2]) as store:
        store.domain("d").write_value("k", os.getpid())
        print("holds", os.getpid(), flush=True)
        sys.stdin.readline()
except eventstore.OwnedError as error:
    print("owned", error.pid, error.since_us, flush=True)
"""
# The child has the parent's descriptors, and outlives it.
PARENT = """
import os, sys, eventstore
store = eventstore.open(sys.argv[1], owner=sys.argv[2])
store.domain("d").write_value("k", 1)
ready, told = os.pipe()
if os.fork() == 0:
    store.domain("d").read_value("k")
    os.write(told, b"x")
    sys.stdin.readline()
    os._exit(0)
os.read(ready, 1)
print("holds", os.getpid(), flush=True)
sys.stdin.readline()
"""


BAD_NAMES = ["", ".", "..", "a/b", "/etc/passwd", "-x", ".hidden", "a..b", "a\n", "a b", "é", "x" * 65, "nul\0", 5, b"bot"]


class Bot:
    """A process that opens the store under an owner's name, and stays until it is told to go."""

    def __init__(self, program: str, folder: Path, owner: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(folder), owner], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.said = self._stream(self.process.stdout).readline().split()

    def leave(self) -> None:
        """Let it close its store and end."""
        self._stream(self.process.stdin).write("\n")
        self._stream(self.process.stdin).flush()
        assert self.process.wait(60) == 0

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.process.kill()
        assert self.process.wait(60) == -signal.SIGKILL

    def close(self) -> None:
        """End it if it lives."""
        self.process.kill()
        self.process.wait(60)
        for stream in (self.process.stdin, self.process.stdout):
            self._stream(stream).close()

    def _stream(self, stream: IO[str] | None) -> IO[str]:
        assert stream is not None
        return stream


@pytest.fixture
def bot(tmp_path: Path) -> Iterator[Callable[..., Bot]]:
    """Starts bots on `tmp_path / "data"`."""
    bots: list[Bot] = []

    def start(owner: str = "bot-1", program: str = BOT) -> Bot:
        bots.append(Bot(program, tmp_path / "data", owner))
        return bots[-1]

    yield start
    for each in bots:
        each.close()


def test_a_second_process_is_told_who_and_since_when(tmp_path: Path, bot: Callable[..., Bot]) -> None:
    before = now_us()
    with eventstore.open(tmp_path / "data", owner="bot-1") as store:
        said = bot().said
        assert (said[0], int(said[1])) == ("owned", os.getpid())
        assert before <= int(said[2]) <= now_us()
        store.domain("d").write_value("k", 1)
    first = bot()
    assert first.said == ["holds", str(first.process.pid)]
    with pytest.raises(OwnedError) as owned:
        eventstore.open(tmp_path / "data", owner="bot-1")
    assert (owned.value.owner, owned.value.pid) == ("bot-1", first.process.pid)
    assert before <= (owned.value.since_us or 0) <= now_us()
    assert str(owned.value).startswith(f"{tmp_path / 'data'}: owned by process {first.process.pid} as 'bot-1' since 2")
    assert "stop that one first" in str(owned.value)


def test_another_owner_and_nobody_in_particular_may_act_meanwhile(tmp_path: Path, bot: Callable[..., Bot]) -> None:
    with eventstore.open(tmp_path / "data", owner="bot-1") as store:
        other = bot("bot-2")
        assert other.said[0] == "holds"
        with eventstore.open(tmp_path / "data") as unnamed, eventstore.open(tmp_path / "data", read_only=True) as reader:
            unnamed.domain("d").write_value("k", 3)
            assert reader.domain("d").read_value("k") == store.domain("d").read_value("k") == 3
        other.leave()


def test_the_same_process_is_a_second_one_too(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data", owner="bot-1"):
        with pytest.raises(OwnedError) as owned:
            eventstore.open(tmp_path / "data", owner="bot-1")
        assert owned.value.pid == os.getpid()
        (tmp_path / "link").symlink_to(tmp_path / "data")
        with pytest.raises(OwnedError):
            eventstore.open(tmp_path / "link", owner="bot-1")
    eventstore.open(tmp_path / "data", owner="bot-1").close()


def test_the_lease_ends_with_its_holder_however_that_ends(tmp_path: Path, bot: Callable[..., Bot]) -> None:
    killed = bot()
    assert killed.said[0] == "holds"
    killed.kill()
    left = bot()
    assert left.said[0] == "holds"
    left.leave()
    eventstore.open(tmp_path / "data", owner="bot-1").close()
    assert bot().said[0] == "holds"


def test_a_store_that_was_forgotten_holds_nothing(tmp_path: Path) -> None:
    forgotten = eventstore.open(tmp_path / "data", owner="bot-1")
    assert not forgotten.read_only
    del forgotten
    eventstore.open(tmp_path / "data", owner="bot-1").close()


def test_a_forked_child_does_not_hold_it_on(tmp_path: Path, bot: Callable[..., Bot]) -> None:
    parent = bot(program=PARENT)
    assert parent.said[0] == "holds"
    with pytest.raises(OwnedError):
        eventstore.open(tmp_path / "data", owner="bot-1")
    parent.kill()  # its child lives until its input ends
    with eventstore.open(tmp_path / "data", owner="bot-1") as store:
        store.domain("d").write_value("k", 2)


@pytest.mark.parametrize("domain", ["d", "new"])
def test_a_forked_child_writes_under_the_owners_name_once_it_has_the_lease_itself(tmp_path: Path, domain: str) -> None:
    from_parent, to_child = os.pipe()
    from_child, to_parent = os.pipe()
    store = eventstore.open(tmp_path / "data", owner="bot-1")
    store.domain("d").write_value("k", 1)
    child = os.fork()
    if not child:
        with ending(to_parent):
            with pytest.raises(HaltedError) as halted:
                store.domain(domain).write_value("k", 2)
            assert isinstance(halted.value.__cause__, OwnedError)
            assert halted.value.__cause__.pid == os.getppid()
            assert store.domain("d").read_value("k") == 1
            with pytest.raises(OwnedError):
                store.resume()
            os.write(to_parent, b"refused")
            assert os.read(from_parent, 1)
            store.resume()
            store.domain(domain).write_value("k", 3)
            with pytest.raises(OwnedError) as owned:
                eventstore.open(tmp_path / "data", owner="bot-1")
            assert owned.value.pid == os.getpid()
            store.close()
            os.write(to_parent, b"written")
    os.close(to_parent)
    assert os.read(from_child, 10_000).decode() == "refused"
    store.domain("d").write_value("k", 2)
    store.close()
    os.write(to_child, b"x")
    said = os.read(from_child, 10_000).decode()
    os.waitpid(child, 0)
    assert said == "written"
    with eventstore.open(tmp_path / "data", owner="bot-1") as after:
        assert after.domain(domain).read_value("k") == 3


@contextlib.contextmanager
def ending(to_parent: int) -> Iterator[None]:
    """The life of a forked child, which must not become a second run of the tests; what it fails of is told."""
    try:
        yield
    except BaseException:  # noqa: BLE001  an assertion, too
        os.write(to_parent, traceback.format_exc().encode())
    finally:
        os._exit(0)


def test_the_end_of_a_child_does_not_end_the_parents_lease(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data", owner="bot-1") as store:
        pid = os.fork()
        if not pid:
            store.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        with pytest.raises(OwnedError):
            eventstore.open(tmp_path / "data", owner="bot-1")


@pytest.mark.parametrize("owner", BAD_NAMES)
@pytest.mark.parametrize("place", ["folder", "memory:"])
def test_a_name_that_is_no_file_name_everywhere_is_refused(tmp_path: Path, owner: object, place: str) -> None:
    with pytest.raises(ConfigError, match="owner"):
        eventstore.open("memory:" if place == "memory:" else tmp_path / "data", owner=owner)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert list(tmp_path.iterdir()) == [], "nothing was made"


@pytest.mark.parametrize("owner", ["a", "Bot.7_x-y", "0", "x" * 64])
def test_names_that_are_allowed(tmp_path: Path, owner: str) -> None:
    with eventstore.open(tmp_path / "data", owner=owner), pytest.raises(OwnedError):
        eventstore.open(tmp_path / "data", owner=owner)
    assert [path.name for path in (tmp_path / "data" / "owners").iterdir()] == [owner]


def test_who_only_reads_owns_nothing(tmp_path: Path) -> None:
    eventstore.open(tmp_path / "data").close()
    with pytest.raises(ConfigError, match="read_only"):
        eventstore.open(tmp_path / "data", owner="bot-1", read_only=True)


@pytest.mark.parametrize("wrong", [{"cache_bytes": -1}, {"max_value_bytes": -1}, {"busy_timeout_ms": -1}, {"durability": "none"}])
def test_an_opening_that_fails_holds_nothing(tmp_path: Path, wrong: dict[str, object]) -> None:
    try:
        eventstore.open(tmp_path / "data", owner="bot-1", **wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    except ConfigError as error:  # kept: with it live the frames of the failed opening, and what they refer to
        kept = error
        eventstore.open(tmp_path / "data", owner="bot-1").close()
        assert kept.__traceback__ is not None
    else:
        pytest.fail("the option was taken")


def test_what_stands_in_the_file_of_a_lease_never_grants_or_hides_it(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data", owner="bot-1"):
        lease = tmp_path / "data" / "owners" / "bot-1"
        for content in (b"", b"nonsense", b'{"owner":"bot-1","pid":1,"since_us":1}'):
            lease.write_bytes(content)
            with pytest.raises(OwnedError) as owned:
                eventstore.open(tmp_path / "data", owner="bot-1")
            assert owned.value.pid in (None, os.getpid()), "the lock says who holds it, not what an earlier holder wrote"
            assert owned.value.since_us is None
    assert lease.stat().st_mode & 0o777 == 0o600


def test_the_command_is_not_kept_out(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data", owner="bot-1") as store:
        store.domain("d").write_value("k", 1)
        done = subprocess.run(
            [sys.executable, "-m", "eventstore", "put", str(tmp_path / "data"), "d", "k", "2"],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert store.domain("d").read_value("k") == 2
        assert store.domains() == ["d"]
        assert store.verify().ok


def test_closing_gives_it_back_even_twice(tmp_path: Path) -> None:
    store: Store = eventstore.open(tmp_path / "data", owner="bot-1")
    store.close()
    with eventstore.open(tmp_path / "data", owner="bot-1"):
        store.close()  # must not take it from its new holder
        with pytest.raises(OwnedError):
            eventstore.open(tmp_path / "data", owner="bot-1")


def test_a_store_that_could_not_be_closed_still_acts_under_its_owners_name(tmp_path: Path) -> None:
    store = eventstore.open(tmp_path / "data", owner="bot-1", busy_timeout_ms=50)
    domain = store.domain("d")
    head = os.open(tmp_path / "data" / "logs" / "d" / "head", os.O_RDWR)
    try:
        fcntl.flock(head, fcntl.LOCK_EX)
        with pytest.raises(UnavailableError):
            store.close()
    finally:
        os.close(head)
    domain.write_value("k", 1)
    with pytest.raises(OwnedError):
        eventstore.open(tmp_path / "data", owner="bot-1")
    store.close()
    eventstore.open(tmp_path / "data", owner="bot-1").close()


def test_whoever_keeps_only_a_domain_keeps_the_lease(tmp_path: Path) -> None:
    domain = eventstore.open(tmp_path / "data", owner="bot-1").domain("d")
    gc.collect()
    domain.write_value("k", 1)
    with pytest.raises(OwnedError):
        eventstore.open(tmp_path / "data", owner="bot-1")
    del domain
    gc.collect()
    eventstore.open(tmp_path / "data", owner="bot-1").close()
