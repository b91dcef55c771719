"""Stores for tests, each verified when its test ends, and how hard hypothesis tries.

Profiles: `default` for every run, `ci` and `long` for more, `shrink` to make a failure of the state machine small; chosen by
`--hypothesis-profile` or the environment variable HYPOTHESIS_PROFILE. None is derandomized: a failure prints a blob that replays it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import eventstore
from eventstore import ClosedError, Store

# No deadline: the machine may be busy, and a slow or a large example is no wrong answer.
_everywhere: dict[str, Any] = {
    "deadline": None,
    "derandomize": False,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
}
settings.register_profile("default", max_examples=25, stateful_step_count=30, **_everywhere)
settings.register_profile("shrink", settings.get_profile("default"))
settings.register_profile("ci", max_examples=300, stateful_step_count=30, **_everywhere)
settings.register_profile("long", max_examples=20_000, stateful_step_count=50, **_everywhere)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell starts what runs in its background, and every process that a test interrupts would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Tests start hundreds of processes: where the environment forbids bytecode beside the sources, they share it in a folder that goes.

    The workers of pytest-xdist, and whatever they start, inherit it.
    """
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        folder = tempfile.TemporaryDirectory(prefix="bytecode-")
        os.environ["PYTHONPYCACHEPREFIX"] = folder.name
        config.add_cleanup(folder.cleanup)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many tests wait, for the disk, for a process, for a time to pass."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (cores or 1) + 1


def pytest_collection_finish() -> None:
    """What thousands of collected tests consist of stays to the end: no collection of garbage has to walk through it again."""
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much the campaigns tried: what a test recorded as a property that begins with `tried`, summed up over all of them."""
    tried: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "teardown":
                tried.update({name: count for name, count in report.user_properties if name.startswith("tried")})
    for name, count in sorted(tried.items()):
        terminalreporter.write_line(f"{name}: {count:,}")


def _corrupts(request: pytest.FixtureRequest) -> bool:
    return request.node.get_closest_marker("corrupts") is not None


def _require_whole(location: str | Path) -> None:
    """Read a folder anew, whatever the test did with its own handles."""
    with eventstore.open(location, read_only=True) as store:
        report = store.verify()
    assert report.ok, report.findings


@pytest.fixture
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store in a folder of a real disk: `tmp_path / "data"`."""
    with eventstore.open(tmp_path / "data") as store:
        yield store
    if not _corrupts(request):
        _require_whole(tmp_path / "data")


@pytest.fixture(params=["memory:", "folder"])
def any_store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store of each engine in turn."""
    if request.param == "folder":
        with eventstore.open(tmp_path / "data") as store:
            yield store
        if not _corrupts(request):
            _require_whole(tmp_path / "data")
        return
    with eventstore.open("memory:") as store:
        yield store
        with contextlib.suppress(ClosedError):  # the test closed it: nothing is left that could be judged
            report = store.verify()
            assert report.ok or _corrupts(request), report.findings


@pytest.fixture
def open_store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Store]]:
    """Opens the same folder, `tmp_path / "data"`, as often as it is called, with the options of eventstore.open()."""
    with contextlib.ExitStack() as handles:

        def opened(**options: Any) -> Store:
            return handles.enter_context(eventstore.open(tmp_path / "data", **options))

        yield opened
    if (tmp_path / "data").exists() and not _corrupts(request):
        _require_whole(tmp_path / "data")
