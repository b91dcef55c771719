"""Namespaces in process: what no request over HTTP can be made to meet for certain."""

from __future__ import annotations

import asyncio
from pathlib import Path

from eventstore.adapters.namespaces import Namespaces
from eventstore.opening import open_store
from eventstore.store import Store


def opened(folder: Path, own: bool) -> Store:
    return open_store(folder)


def in_memory(folder: Path, own: bool) -> Store:
    return open_store("memory:")


def test_nobody_finds_a_closing_that_is_done_and_still_noted(tmp_path: Path) -> None:
    """Whoever did would wait for it again and again, and the loop, which has yet to forget it, would have no turn."""

    async def scenario() -> int:
        namespaces = Namespaces(tmp_path, opened, descriptors=1_000)
        await namespaces.start()
        turns = 0
        for _ in range(5):
            async with namespaces.using("live", "signal") as namespace:
                await namespace.backend.store()
            closing = asyncio.create_task(namespaces._close(namespace))
            while not closing.done():
                await asyncio.sleep(0)
                turns += bool(namespaces._closing)
                assert not any(task.done() for task in namespaces._closing.values())
        await namespaces.close()
        return turns

    assert asyncio.run(scenario()) > 0


def test_a_store_in_memory_is_not_missed_in_its_folder(tmp_path: Path) -> None:
    async def scenario() -> list[object]:
        namespaces = Namespaces(tmp_path, in_memory, descriptors=1_000)
        await namespaces.start()
        stores = []
        for _ in range(3):
            async with namespaces.using("live", "signal") as namespace:
                stores.append(await namespace.backend.store())
        await namespaces.close()
        return list(map(id, stores))

    assert len(set(asyncio.run(scenario()))) == 1
