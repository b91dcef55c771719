"""Gathering: lists that callers want written, those that wait while one write is under way being the next one, together."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from eventstore.errors import InvalidValueError

V = TypeVar("V")


class _Call(Generic[V]):
    """A list, and where its caller is told what became of it."""

    __slots__ = ("items", "told")

    def __init__(self, items: Sequence[V]) -> None:
        self.items = items
        self.told: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Gathering(Generic[V]):
    """The calls of one event loop, written in the order they came, one write at a time.

    No clock decides what is written together: a call that finds nobody writing takes along only those that are ready with it.
    A write must be one that may be made twice: it is, if somebody cancelled it whose call it was not.
    """

    def __init__(self, write: Callable[[Sequence[Sequence[V]]], Awaitable[None]], *, most: int, idle: Callable[[], object]) -> None:
        """`most`: items after which a write takes no further call. `idle` is called when nothing is left to write."""
        self._write, self._most, self._idle = write, most, idle
        self._waiting: deque[_Call[V]] = deque()
        self._taken: list[_Call[V]] = []
        self._task: asyncio.Task[list[Exception | None]] | None = None

    async def write(self, items: Sequence[V]) -> None:
        """Return when the write that took `items` along has returned. Raises what it raised.

        Cancelled, the call is taken back if it waits still; else the cancellation waits for the answer.
        """
        call = _Call(items)
        self._waiting.append(call)
        self._go_on()
        cancelled: asyncio.CancelledError | None = None
        while not call.told.done():
            try:
                await asyncio.wait([call.told])
            except asyncio.CancelledError as error:
                if call in self._waiting:
                    self._waiting.remove(call)
                    raise
                cancelled = error
        if cancelled is not None:
            raise cancelled from call.told.exception()
        call.told.result()

    def _go_on(self) -> None:
        if self._task is not None:
            return
        if not self._waiting:
            self._idle()
            return
        self._task = asyncio.get_running_loop().create_task(self._write_some())
        self._task.add_done_callback(self._ended)

    async def _write_some(self) -> list[Exception | None]:
        size = 0
        while self._waiting and (not self._taken or size + len(self._waiting[0].items) <= self._most):
            self._taken.append(self._waiting.popleft())
            size += len(self._taken[-1].items)
        return await self._outcomes(self._taken)

    async def _outcomes(self, calls: Sequence[_Call[V]]) -> list[Exception | None]:
        """What each call is to be told: None once its items are written, or an error of its own."""
        try:
            if calls:  # else those who waited were cancelled before it was their turn
                await self._write([call.items for call in calls])
        except InvalidValueError as error:
            if len(calls) == 1:
                return [error]
            # Together they may be more than a value can hold: what one call could have alone, it gets.
            half = len(calls) // 2
            return await self._outcomes(calls[:half]) + await self._outcomes(calls[half:])
        except Exception as error:  # noqa: BLE001  whatever it is, it is their answer
            return [_own(error) for _ in calls]
        return [None] * len(calls)

    def _ended(self, task: asyncio.Task[list[Exception | None]]) -> None:
        taken, self._taken, self._task = self._taken, [], None
        if task.cancelled() or task.exception() is not None:
            # Interrupted with the event loop, or by somebody who cancels every task there is: none of the callers meant that.
            self._waiting.extendleft(reversed(taken))
        else:
            for call, error in zip(taken, task.result(), strict=True):
                if error is None:
                    call.told.set_result(None)
                else:
                    call.told.set_exception(error)
        self._go_on()


def _own(error: Exception) -> Exception:
    """The error of a write for one of its callers: tasks must not share a traceback."""
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    return own
