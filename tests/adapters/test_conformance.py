"""Both engines do what the docstrings of log.py say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from operator import attrgetter
from pathlib import Path

import pytest

from eventstore.adapters.conformance import CHECKS, LOCAL_CHECKS, Check
from eventstore.adapters.memory import MemoryEngine
from eventstore.local import LocalEngine
from eventstore.log import Engine
from eventstore.model import WriteRule
from eventstore.sqlite import SqliteLog


class TidyEngine(LocalEngine):
    """A LocalEngine that knows which logs it opened, so that they can be closed."""

    def __init__(self, folder: Path, handles: ExitStack) -> None:
        super().__init__(folder, busy_timeout_ms=1_000)
        self._handles = handles

    def open_log(self, name: str, write: WriteRule | None = None, *, accept_loss: bool = False) -> SqliteLog:
        return self._handles.enter_context(closing(super().open_log(name, write, accept_loss=accept_loss)))


@pytest.fixture(params=["MemoryEngine", "LocalEngine"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An engine of an empty store; its logs give up waiting for a lock after a second."""
    with ExitStack() as handles:
        yield MemoryEngine(busy_timeout_ms=1_000) if request.param == "MemoryEngine" else TidyEngine(tmp_path / "data", handles)


@pytest.mark.parametrize("check", CHECKS + LOCAL_CHECKS, ids=attrgetter("__name__"))
def test_an_engine_does_what_its_specification_says(check: Check, engine: Engine) -> None:
    check(engine)
