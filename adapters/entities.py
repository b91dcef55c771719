"""PersistBase: records by an id under an entity's name, for programs that persist more than the contracts do."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from eventstore.adapters.contracts import ENTITY
from eventstore.adapters.registry import backend_at, configured
from eventstore.adapters.shapes import Keyed
from eventstore.adapters.shelf import ABSENT, Backend, Parts
from eventstore.errors import NotFoundError


class IPersistBase(Protocol):
    """What a class of somebody else's must have to stand in for PersistBase."""

    async def wait_for_init(self, initial: bool) -> Any:
        """Return when it can be used."""
        ...

    async def read_value(self, entity_id: str) -> Any:
        """The record. Raises NotFoundError."""
        ...

    async def has_value(self, entity_id: str) -> bool:
        """Whether there is a record."""
        ...

    async def write_value(self, entity_id: str, entity: Any) -> None:
        """Make `entity` the record."""
        ...

    def keys(self) -> AsyncIterator[str]:
        """The ids, id2 before id10."""
        ...


class PersistBase(Keyed):
    """Records of one entity by their ids: in the event store the domain `entity`, keys (entity_name, entity_id).

    `base_dir`: the folder of the event store, or another location that Config knows ("json:FOLDER", "memory:"); None is where
    the configuration keeps what is live. `backend`: a backend of one's own instead.
    """

    contract = ENTITY

    def __init__(self, entity_name: str, base_dir: str | os.PathLike[str] | None = None, *, backend: Backend | None = None) -> None:
        def chosen() -> Backend:
            if backend is not None:
                return backend
            return configured(ENTITY, (entity_name,)) if base_dir is None else backend_at(os.fspath(base_dir))

        super().__init__(entity_name, backend=chosen)
        self.entity_name = entity_name

    async def read_value(self, entity_id: str) -> Any:
        """The record, None if that was written. Raises NotFoundError."""
        value = await (await self._open_shelf()).read(self._key(entity_id))
        if value is ABSENT:
            raise self._missing(entity_id)
        return value

    async def has_value(self, entity_id: str) -> bool:
        """Whether there is a record: not if it was removed."""
        return await (await self._open_shelf()).read(self._key(entity_id)) is not ABSENT

    async def write_value(self, entity_id: str, entity: Any) -> None:
        """Make `entity` the record."""
        await self.write(entity, entity_id)

    async def remove_value(self, entity_id: str) -> None:
        """Remove the record; the event store keeps its history. Raises NotFoundError if there is none."""
        if not await (await self._open_shelf()).remove(self._key(entity_id)):
            raise self._missing(entity_id)

    async def remove_all(self) -> None:
        """Remove every record of the entity, one after the other."""
        shelf = await self._open_shelf()
        for key in await self._entries():
            await shelf.remove(self._key(key[0]))

    async def keys(self) -> AsyncIterator[str]:
        """The ids of the records that there are, in natural order: id2 before id10."""
        for entity_id, _ in await self._entries():
            yield entity_id

    async def values(self) -> AsyncIterator[Any]:
        """The records, in natural order of their ids."""
        for _, value in await self._entries():
            yield value

    def __aiter__(self) -> AsyncIterator[Any]:
        return self.values()

    async def filter(self, predicate: Callable[[Any], bool]) -> AsyncIterator[Any]:
        """The records for which `predicate` is true, in natural order of their ids."""
        async for value in self.values():
            if predicate(value):
                yield value

    async def take(self, total: int, predicate: Callable[[Any], bool] | None = None) -> AsyncIterator[Any]:
        """The first `total` records, of those for which `predicate` is true."""
        left = total
        if left <= 0:
            return
        async for value in self.values():
            if predicate is None or predicate(value):
                yield value
                left -= 1
                if not left:
                    return

    async def _entries(self) -> list[tuple[str, Any]]:
        parts: Parts = self._parts
        return await (await self._open_shelf()).items(parts)

    def _missing(self, entity_id: str) -> NotFoundError:
        return NotFoundError(f"Entity {self.entity_name}:{entity_id} not found")
