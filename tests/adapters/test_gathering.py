"""Calls that wait while one is written are the next write: in order, bounded, each with its own answer, whoever is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from eventstore.adapters.gathering import Gathering
from eventstore.errors import EngineError, InvalidValueError


class Writer:
    """What is asked to write: each write waits until it is let go."""

    def __init__(self, *, most: int = 100, fits: int = 100) -> None:
        self.made: list[list[list[int]]] = []
        self.fails: Exception | None = None
        self.idled = 0
        self.go = asyncio.Event()
        self.go.set()
        self._fits = fits
        self.gathering = Gathering(self._write, most=most, idle=self._idle)

    async def _write(self, calls: Sequence[Sequence[int]]) -> None:
        self.made.append([list(items) for items in calls])
        await self.go.wait()
        if sum(map(len, calls)) > self._fits:
            raise InvalidValueError("too large")
        if self.fails is not None:
            raise self.fails

    def _idle(self) -> None:
        self.idled += 1

    def start(self, *items: int) -> asyncio.Task[None]:
        return asyncio.create_task(self.gathering.write(items))


async def turn() -> None:
    """Everybody who is ready does his next step, and what follows from it."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_those_that_wait_are_written_together_in_their_order() -> None:
    async def check() -> None:
        writer = Writer()
        writer.go.clear()
        first = writer.start(1)
        await turn()
        rest = [writer.start(number, number) for number in (3, 2, 4)]
        await turn()
        assert writer.made == [[[1]]]
        assert not any(task.done() for task in (first, *rest))
        writer.go.set()
        await asyncio.gather(first, *rest)
        assert writer.made == [[[1]], [[3, 3], [2, 2], [4, 4]]]
        await turn()
        assert writer.idled == 1

    asyncio.run(check())


def test_a_lone_call_is_written_at_once() -> None:
    """Two steps of the event loop, whatever its clock says."""

    async def check() -> None:
        writer = Writer()
        task = writer.start(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert writer.made == [[[1]]]
        await task

    asyncio.run(check())


def test_a_write_takes_no_more_than_it_may_but_one_call_at_least() -> None:
    async def check() -> None:
        writer = Writer(most=3)
        await asyncio.gather(*(writer.gathering.write([1] * count) for count in (2, 1, 1, 9, 3)))
        assert [[len(items) for items in calls] for calls in writer.made] == [[2, 1], [1], [9], [3]]

    asyncio.run(check())


def test_each_of_a_write_that_fails_gets_an_error_of_its_own() -> None:
    async def check() -> None:
        writer = Writer()
        writer.fails = EngineError("the disk is gone", outcome="unknown")
        told = await asyncio.gather(*(writer.gathering.write([number]) for number in range(3)), return_exceptions=True)
        assert [(type(error), getattr(error, "outcome", None)) for error in told] == [(EngineError, "unknown")] * 3
        assert len({id(error) for error in told}) == 3
        writer.fails = None
        await writer.gathering.write([4])

    asyncio.run(check())


def test_what_does_not_fit_together_is_written_apart() -> None:
    """Only who cannot be written alone is refused."""

    async def check() -> None:
        writer = Writer(fits=3)
        told = await asyncio.gather(*(writer.gathering.write([1] * count) for count in (1, 4, 3, 2)), return_exceptions=True)
        assert [type(answer) for answer in told] == [type(None), InvalidValueError, type(None), type(None)]

    asyncio.run(check())


def test_one_who_waits_and_is_cancelled_is_taken_back_and_harms_nobody() -> None:
    async def check() -> None:
        writer = Writer()
        writer.go.clear()
        first = writer.start(1)
        await turn()
        second, third = writer.start(2), writer.start(3)
        await turn()
        second.cancel()
        await turn()
        assert second.cancelled()
        writer.go.set()
        await asyncio.gather(first, third)
        assert writer.made == [[[1]], [[3]]]

    asyncio.run(check())


@pytest.mark.parametrize("fails", [None, EngineError("the disk is gone")])
def test_one_who_is_being_written_is_cancelled_when_that_is_over(fails: Exception | None) -> None:
    async def check() -> None:
        writer = Writer()
        writer.fails = fails
        writer.go.clear()
        task = writer.start(1)
        await turn()
        for _ in range(2):
            task.cancel()
            await turn()
            assert not task.done()
        writer.go.set()
        await asyncio.wait([task])
        assert task.cancelled()
        assert writer.made == [[[1]]]

    asyncio.run(check())


@pytest.mark.parametrize("begun", [False, True])
def test_a_write_that_was_cancelled_without_its_callers_is_made_again(begun: bool) -> None:
    """By somebody who cancels what he knows nothing of: every task there is."""

    async def check() -> None:
        writer = Writer()
        writer.go.clear()
        callers = [writer.start(1), writer.start(2)]
        await asyncio.sleep(0)
        if begun:
            await turn()
        (of_the_write,) = asyncio.all_tasks() - {asyncio.current_task(), *callers}
        of_the_write.cancel()
        await turn()
        writer.go.set()
        await asyncio.gather(*callers)
        assert writer.made == [[[1], [2]]] * (1 + begun)

    asyncio.run(check())


@pytest.mark.parametrize("steps", range(12))
def test_whenever_one_is_cancelled_it_was_written_or_was_not(steps: int) -> None:
    """Also between the end of one write and the beginning of the next, which is then left with nobody."""

    async def check() -> None:
        writer = Writer()
        writer.go.clear()
        first = writer.start(1)
        await turn()
        second = writer.start(2)
        await turn()
        writer.go.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([first, second])
        await turn()
        assert writer.made in ([[[1]]], [[[1]], [[2]]])
        assert second.cancelled() or writer.made == [[[1]], [[2]]]
        assert writer.idled == 1
        await writer.gathering.write([3])

    asyncio.run(check())
