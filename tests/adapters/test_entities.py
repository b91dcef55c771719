"""PersistBase on every backend."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import eventstore
from eventstore.adapters.persist import PersistBase, close
from eventstore.adapters.shelf import Backend
from eventstore.errors import ContractError, NotFoundError


async def ids(base: PersistBase) -> list[str]:
    """The ids, in the order in which they come."""
    keys = base.keys()
    return [key async for key in keys]


def test_records_are_kept_by_their_ids(backend: Backend) -> None:
    async def check() -> None:
        notes, others = PersistBase("notes", backend=backend), PersistBase("others", backend=backend)
        await asyncio.gather(*(notes.wait_for_init(first) for first in (True, False)))
        assert [value async for value in notes] == []
        for id_ in ("id10", "id2", "id1"):
            await notes.write_value(id_, {"id": id_, "n": len(id_)})
        await notes.write_value("null", None)
        assert await notes.read_value("id2") == {"id": "id2", "n": 3}
        assert await notes.read_value("null") is None
        assert (await notes.has_value("id2"), await notes.has_value("null"), await notes.has_value("id3")) == (True, True, False)
        assert await ids(notes) == ["id1", "id2", "id10", "null"]
        await notes.remove_value("null")
        assert [value["id"] async for value in notes] == ["id1", "id2", "id10"]
        assert [value["id"] async for value in notes.values()] == ["id1", "id2", "id10"]
        assert [value["id"] async for value in notes.filter(lambda value: value["n"] == 3)] == ["id1", "id2"]
        assert [value["id"] async for value in notes.take(2)] == ["id1", "id2"]
        assert [value["id"] async for value in notes.take(2, lambda value: value["id"] != "id1")] == ["id2", "id10"]
        assert [value async for value in notes.take(0)] == []
        assert not await others.has_value("id1")
        for attempt in (notes.read_value("null"), notes.remove_value("null"), others.read_value("id1")):
            with pytest.raises(NotFoundError, match=r"Entity (notes:null|others:id1) not found"):
                await attempt
        await notes.remove_all()
        assert await ids(notes) == []

    asyncio.run(check())


def test_a_record_says_nothing_of_itself(backend: Backend) -> None:
    """`removed` is a member like any other: it is the contracts' payloads that mean something by it."""

    async def check() -> None:
        notes = PersistBase("notes", backend=backend)
        await notes.write_value("a", {"removed": True})
        assert await notes.read_value("a") == {"removed": True}
        assert await ids(notes) == ["a"]

    asyncio.run(check())


def test_an_entity_is_a_domain_of_the_store_that_is_configured() -> None:
    async def check() -> None:
        await PersistBase("notes").write_value("a", {"n": 1})
        await PersistBase("notes", "elsewhere").write_value("a", {"n": 2})
        assert await PersistBase("notes").read_value("a") == {"n": 1}
        await close()

    asyncio.run(check())
    for folder, number in (("data", 1), ("elsewhere", 2)):
        with eventstore.open(folder) as store:
            assert store.domain("entity").read_value(("notes", "a")) == {"n": number}


def test_on_files_an_entity_is_a_folder() -> None:
    async def check() -> None:
        notes = PersistBase("notes", "json:logs/data")
        await notes.write_value("a", {"n": 1})
        with pytest.raises(ContractError):
            await notes.write_value("../a", {"n": 1})
        with pytest.raises(ContractError):
            await PersistBase("../notes", "json:logs/data").write_value("a", {"n": 1})

    asyncio.run(check())
    assert [str(path) for path in Path().rglob("*") if path.is_file()] == ["logs/data/notes/a.json"]
