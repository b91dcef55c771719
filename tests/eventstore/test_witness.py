"""The file `head`: what readers see of it, who hold no lock."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from eventstore.model import Head
from eventstore.witness import HeadFile
from tests.eventstore.crew import Crew


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads that take turns after every few instructions, so that a race shows within one run."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A head file that witnesses position 3."""
    file = HeadFile(tmp_path / "head", writable=True, create=True)
    file.witness(Head(3, bytes(32)))
    file.close()
    return tmp_path / "head"


@pytest.mark.usefixtures("hasty")
def test_a_reader_may_ask_while_the_file_is_closed(path: Path) -> None:
    for number in range(600):
        file = HeadFile(path, writable=True)
        if number % 2:
            assert not file.moved(3)  # half of them have mapped it before
        crew = Crew()
        crew.start(partial(file.moved, 3))
        file.close()
        assert crew.results() == [False]


def test_a_closed_file_is_still_answered_for(path: Path) -> None:
    file = HeadFile(path, writable=True)
    file.close()
    assert (file.moved(3), file.moved(2)) == (False, True)


def test_another_file_under_the_name_says_look_at_the_log(path: Path) -> None:
    file, twin = HeadFile(path, writable=True), path.with_name("twin")
    twin.write_bytes(path.read_bytes())
    os.replace(twin, path)
    assert file.moved(3)
    path.unlink()
    assert file.moved(3)
    file.close()
