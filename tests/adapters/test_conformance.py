"""Both engines do what EventLog's docstrings say, and the suite that says so notices an engine that does not."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest

from eventstore.adapters.conformance import CHECKS, LOCAL_CHECKS, Check, OpenLog
from eventstore.adapters.memory import MemoryEngine
from eventstore.local import LocalEngine
from eventstore.log import EventLog
from eventstore.model import Event, WriteRule


@pytest.fixture(params=["MemoryLog", "SqliteLog"])
def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenLog]:
    """Opens logs of one new store; they give up waiting for a lock after a second."""
    memory = request.param == "MemoryLog"
    engine = MemoryEngine(busy_timeout_ms=1_000) if memory else LocalEngine(tmp_path / "data", busy_timeout_ms=1_000)
    opened: list[EventLog] = []

    def open_one(name: str, write: WriteRule | None = None, *, birth: Event | None = None) -> EventLog:
        if birth is not None:
            with engine.adopting(name, birth):
                pass
        opened.append(engine.open_log(name, write))
        return opened[-1]

    yield open_one
    for log in opened:
        log.close()


@pytest.mark.parametrize("check", CHECKS + LOCAL_CHECKS, ids=attrgetter("__name__"))
def test_an_engine_does_what_its_specification_says(check: Check, open_log: OpenLog) -> None:
    check(open_log)
