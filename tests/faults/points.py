"""At which steps of a part of a life it ends: some, or all that leave different files; and how many there were."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest


class Points:
    """The kill points of one test, counted as they are made."""

    def __init__(self, deaths: int, *, every: bool) -> None:
        self.deaths = deaths
        """How many, if not every one."""
        self.every = every
        """Whether all that a kill at any step may leave is tried."""
        self.made = 0
        self.covered = 0
        """How many steps those that were made stand for."""

    def steps(self, seed: str, last: int, changes: Callable[[], list[int]]) -> Iterator[int]:
        """Some of the steps from 1 to `last`, evenly spaced, or each that finds other files, as `changes` says; counted once asked for."""
        assert last >= self.deaths, f"a part of a life has {last} steps: some would be tried twice"
        start = random.Random(seed).random()
        some = [1 + int((number + start) * last / self.deaths) for number in range(self.deaths)]
        self.covered += last if self.every else self.deaths
        for step in changes() if self.every else some:
            self.made += 1
            yield step


step_by_step = pytest.mark.parametrize(
    "points",
    [
        pytest.param(False, marks=[pytest.mark.faults, pytest.mark.timeout(1_200)], id="some"),
        pytest.param(True, marks=[pytest.mark.long, pytest.mark.timeout(0)], id="every"),
    ],
    indirect=True,
)
"""A part of a life is cut off at some of its steps, and with `-m long` at every one: once for each that finds other files."""
