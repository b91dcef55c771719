"""Backends for tests of the contracts: each of those that ship, fresh, and closed when the test ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from eventstore.adapters import persist
from eventstore.adapters.registry import backend_at
from eventstore.adapters.shelf import Backend

LOCATIONS = {"event store": "store", "memory": "memory:", "JSON files": "json:dump"}
"""Where each backend is, from the folder of the test."""

Run = Callable[[Awaitable[None]], None]


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of the test's own to work in, and nothing configured; adapters are as they were at first when it ends."""
    monkeypatch.chdir(tmp_path)
    for name in ("EVENTSTORE_LIVE", "EVENTSTORE_BACKTEST"):
        monkeypatch.delenv(name, raising=False)
    yield
    asyncio.run(persist.close())
    persist.set_config()
    persist.install()


@pytest.fixture(params=LOCATIONS)
def location(request: pytest.FixtureRequest) -> str:
    """Where a backend is, of each kind in turn."""
    return LOCATIONS[request.param]


@pytest.fixture
def backend(location: str, configuration: None) -> Backend:
    """A backend of each kind in turn, empty."""
    return backend_at(location)
