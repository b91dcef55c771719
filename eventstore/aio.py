"""The way in for event loops: `async with await eventstore.aio.open("data") as store:`, then the same names with await and async for."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from eventstore import store
from eventstore.awaited import DomainStore as DomainStore
from eventstore.awaited import DomainView as DomainView
from eventstore.awaited import OpenIntent as OpenIntent
from eventstore.awaited import Store as Store
from eventstore.opening import open_store

__all__ = ["DomainStore", "DomainView", "OpenIntent", "Store", "open"]

P = ParamSpec("P")


def _awaited(opening: Callable[P, store.Store]) -> Callable[P, Coroutine[Any, Any, Store]]:
    @functools.wraps(opening)
    async def awaited(*args: P.args, **kwargs: P.kwargs) -> Store:
        return Store(await asyncio.to_thread(opening, *args, **kwargs))

    return awaited


open = _awaited(open_store)
