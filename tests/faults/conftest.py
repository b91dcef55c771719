"""Fixtures of the fault tests."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.points import Points
from tests.faults.recorder import build
from tests.faults.workers import Server, serving


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A campaign may take ten times as long on a machine that is busy; that is no hanging, where its test names no limit itself."""
    for item in items:
        if item.get_closest_marker("faults") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1_200))


@pytest.fixture(scope="session")
def clean_server() -> Iterator[Server]:
    """One server for all tests of a process."""
    with serving() as server:
        yield server


@pytest.fixture
def server(clean_server: Server) -> Iterator[Server]:
    """Starts workers; whatever a test leaves behind is ended with it."""
    yield clean_server
    clean_server.tidy()


@pytest.fixture(scope="session")
def clean_recording_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server whose workers run under the shim."""
    with serving(LD_PRELOAD=str(build(tmp_path_factory.mktemp("shim")))) as server:
        yield server


@pytest.fixture
def recording_server(clean_recording_server: Server) -> Iterator[Server]:
    """Starts workers whose calls can be written down and refused (shim.c)."""
    yield clean_recording_server
    clean_recording_server.tidy()


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder where fsync costs nothing, if the system has one: for tests that open stores by the thousands."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="eventstore-", dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def seed() -> str:
    """What all chances of a test follow from. A test shows it when it fails; FAULTS_SEED repeats it."""
    return os.environ.get("FAULTS_SEED") or secrets.token_hex(4)


@pytest.fixture
def points(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Iterator[Points]:
    """Where lives end; DEATHS of the module says at how many steps, unless it is every one."""
    counted = Points(request.module.DEATHS, every=getattr(request, "param", False))
    yield counted
    record_property("tried kill points", counted.made)
    if counted.every:
        record_property("tried steps, each a kill point or with the files of one", counted.covered)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts something on a new folder for the time of a test; skips it where that is not allowed."""
    points: list[Path] = []

    def mount(*arguments: str) -> Path:
        point = tmp_path / f"mount-{len(points)}"
        point.mkdir()
        done = subprocess.run(["mount", *arguments, str(point)], capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            pytest.skip(f"this system does not let us mount: {done.stderr.strip()}")
        points.append(point)
        return point

    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting needs root")
    yield mount
    for point in points:
        subprocess.run(["umount", "--lazy", str(point)], check=True, timeout=60)
