"""A real file system that goes down in the middle of it, and one without a free block. Needs root and loop devices; skipped without."""

from __future__ import annotations

import array
import fcntl
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import eventstore
from tests.faults import limits, lives
from tests.faults.ledger import DOMAIN, Ledger
from tests.faults.stores import events_of
from tests.faults.workers import Server

SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN: https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/include/uapi/linux/ext4.h"""
WITHOUT_ITS_JOURNAL = 2
"""EXT4_GOING_FLAGS_NOLOGFLUSH: nothing more reaches the disk, as when the power fails."""


class Ext4:
    """An ext4 of so many MiB in a file."""

    def __init__(self, folder: Path, mebibytes: int) -> None:
        self.image, self.point = folder / "disk.img", folder / "disk"
        self.point.mkdir()
        with self.image.open("wb") as file:
            file.truncate(mebibytes * 2**20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(self.image)], check=True, timeout=60)
        self.mounted = False

    def mount(self) -> None:
        """Skips the test where that is not allowed."""
        done = subprocess.run(
            ["mount", "-o", "loop", str(self.image), str(self.point)], capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode:
            pytest.skip(f"this system does not let us mount: {done.stderr.strip()}")
        self.mounted = True

    def unmount(self) -> None:
        """Nobody may use it any more."""
        if self.mounted:
            subprocess.run(["umount", str(self.point)], check=True, timeout=60)
            self.mounted = False

    def fail(self) -> None:
        """Cut its power."""
        descriptor = os.open(self.point, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, array.array("I", [WITHOUT_ITS_JOURNAL]))
        finally:
            os.close(descriptor)


@pytest.fixture
def ext4(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Ext4]:
    """A mounted ext4."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("a file system of our own needs root and mkfs.ext4")
    disk = Ext4(tmp_path, request.param)
    disk.mount()
    yield disk
    disk.unmount()


@pytest.mark.parametrize("ext4", [32], indirect=True)
@pytest.mark.parametrize(
    "crashes",
    [pytest.param(12, marks=pytest.mark.faults), pytest.param(1_000, marks=[pytest.mark.long, pytest.mark.timeout(3_600)])],
)
def test_the_file_system_goes_down_while_two_write(server: Server, ext4: Ext4, seed: str, crashes: int) -> None:
    """Only what was acknowledged before the power was cut counts."""
    chance, ledger = random.Random(seed), Ledger()
    for crash in range(crashes):
        folder = ext4.point / "store"
        if crash % 20 == 0:  # it must fit
            shutil.rmtree(folder, ignore_errors=True)
            ledger = Ledger()
        before = len(ledger.acknowledged)
        writers = [server.start(lives.write_until_refused, folder=str(folder), name=f"{seed}.{crash}.{number}") for number in range(2)]
        rounds = chance.randint(1, 30)
        while rounds > 0 or len(ledger.acknowledged) == before:  # a call may find nothing to write
            for writer in writers:
                ledger.take(writer.told())
            rounds -= 1
        ext4.fail()
        for writer in writers:
            writer.kill()
        ext4.unmount()
        ext4.mount()
        try:
            ledger.require_kept(folder)
        except Exception as error:
            raise AssertionError(f"FAULTS_SEED={seed}: crash {crash}") from error
        ledger.require_second_opinion(folder)


@pytest.mark.faults
@pytest.mark.parametrize("ext4", [8], indirect=True)
@pytest.mark.parametrize("size", [100, 5_000])
def test_a_disk_without_a_free_block(server: Server, ext4: Ext4, size: int) -> None:
    """Refused, or killed by SIGBUS where SQLite maps a -shm that has no block: as a kill, nothing acknowledged is lost."""
    folder, ballast = ext4.point / "store", ext4.point / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(ext4.image.stat().st_size // 2))
    worker = server.start(limits.fill, folder=str(folder), size=size, file_limit=None, ballast=str(ballast), durability="power")
    said = worker.rest()
    assert worker.wait() in (0, -signal.SIGBUS), said
    ballast.unlink(missing_ok=True)
    found = {event.position: event.checksum.hex() for event in events_of(folder)}
    acknowledged = {one["position"]: one["checksum"] for one in said if "position" in one}
    assert acknowledged.items() <= found.items()
    assert len(acknowledged) > 10
    with eventstore.open(folder, min_free_bytes=0) as store:
        store.domain(DOMAIN).write_value("after", 1)
        assert store.verify().ok
