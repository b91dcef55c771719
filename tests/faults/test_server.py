"""kill -9 of a server while a recorded session is replayed: a client that asks again by the same rid is told what was recorded."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import random
import select
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import eventstore
from eventstore.adapters.contracts import CONTRACTS, camel
from eventstore.adapters.event_shelf import EventBackend
from eventstore.opening import open_store
from tests.adapters.recorded import DATA, Replay, same, session
from tests.tools.served import WAIT_S, Server

KILLS = 50
SESSION = DATA / "live.jsonl.gz"
FINAL = DATA / "live.final.jsonl.gz"

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1_800)]  # fifty beginnings of a server, on a machine that may be busy


class Retrying:
    """A client whose server dies: it goes on with the next one, and asks again."""

    def __init__(self, server: Server, chance: random.Random) -> None:
        self.server = server
        self.latencies = [0.001]
        self.unanswered_but_written = 0
        self._chance = chance
        self._client = server.client()

    def ask(self, request: dict[str, Any]) -> Any:
        """The answer of a server that lives."""
        began = time.perf_counter()
        reply = self._client.post(request)
        self.latencies.append(time.perf_counter() - began)
        assert reply.status == 200, reply
        return reply.json()

    def ask_killed(self, request: dict[str, Any], moment: str) -> Any:
        """The answer after the server was killed at a moment between being asked and its answer being read."""
        connection, head = self._client.connection, self._head(request)
        connection.request("POST", "/rpc", json.dumps(request).encode(), {"Content-Type": "application/json"})
        if moment == "any":
            time.sleep(self._chance.uniform(0, 2 * sorted(self.latencies)[len(self.latencies) // 2]))
        elif moment == "committed":  # as soon as it is, if that is seen before the answer comes: a race
            while self._head(request) == head and not select.select([connection.sock], [], [], 0)[0]:
                pass
        else:  # no race: written for certain, and the answer is lost on its way
            assert select.select([connection.sock], [], [], WAIT_S)[0]
        assert self.server.process is not None
        self.server.process.kill()
        first = self._answer(connection) if moment != "answered" else None
        self.server.ended()
        self.unanswered_but_written += first is None and self._is_written(request)
        self.server.start()
        self._client = self.server.client()
        second = self.ask(request)
        assert first is None or same(first, second)
        return second

    def _head(self, request: dict[str, Any]) -> bytes:
        """The witness of the contract's log: each commit changes it."""
        file = self.server.folder / "ns" / "live" / "logs" / request["contract"].lower() / "head"
        return file.read_bytes() if file.exists() else b""

    @staticmethod
    def _answer(connection: http.client.HTTPConnection) -> Any:
        try:
            return json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException):
            return None

    def _is_written(self, request: dict[str, Any]) -> bool:
        with eventstore.open(self.server.folder / "ns" / "live", read_only=True) as store:
            name = request["contract"].lower()
            return name in store.domains() and request["rid"] in _event_ids(store, name)


def _event_ids(store: eventstore.Store, domain: str) -> Counter[str]:
    metas = (json.loads(event.meta or "{}") for event in store.domain(domain).events())
    return Counter(meta["event_id"] for meta in metas if "event_id" in meta)


def _story(store: eventstore.Store) -> dict[str, list[tuple[str, str, Any, int | None]]]:
    """What was written, domain by domain, whatever its bytes."""
    return {
        name: [(event.op, event.key, event.data and json.loads(event.data), event.when_us) for event in store.domain(name).events()]
        for name in sorted(store.domains())
        if store.domain(name).head().position
    }


async def _undisturbed() -> dict[str, list[tuple[str, str, Any, int | None]]]:
    store = open_store("memory:")
    backend = EventBackend(lambda: store)
    assert await Replay(backend).run(SESSION) == []
    found = _story(store)
    await backend.close()
    return found


def test_a_server_killed_fifty_times_loses_nothing_and_writes_nothing_twice(
    tmp_path: Path, seed: str, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(seed)
    calls = list(session(SESSION))
    writes = [index for index, request, _ in calls if _writes(request)]
    deaths = [*chance.sample(writes, KILLS - 5), *chance.sample(range(len(calls)), 5)]
    moments = dict(zip(deaths, itertools.cycle(["any", "committed", "answered", "committed"])))
    with Server(tmp_path / "data") as server:
        client = Retrying(server, chance)
        for index, (_, request, expected) in enumerate(calls):
            found = client.ask_killed(request, moments[index]) if index in moments else client.ask(request)
            assert same({"ok": True, "result": expected}, found), (seed, index, request, found)
        for _, request, expected in session(FINAL):
            assert same({"ok": True, "result": expected}, client.ask(request)), (seed, request)
        server.stop()
    record_property("tried: kills of a server", len(moments))
    with eventstore.open(tmp_path / "data" / "ns" / "live") as store:
        assert _story(store) == asyncio.run(_undisturbed()), seed
        assert all(count == 1 for name in store.domains() for count in _event_ids(store, name).values()), seed
        assert store.verify().ok, seed
    assert client.unanswered_but_written, f"seed {seed}: every killed write was answered or unwritten, so nothing was tried"


def _writes(request: dict[str, Any]) -> bool:
    return any(camel(method.name) == request["method"] and method.writes for method in CONTRACTS[request["contract"]].methods)
