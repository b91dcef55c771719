"""persist.mjs against a real `eventstore serve`: the engine is told what it was told once, and nothing is lost or done twice.

The engine is a stand-in; where BACKTEST_KIT names the module of a real one (build/index.mjs), `-m backtestkit` asks that too.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eventstore
from eventstore.adapters import persist as in_process
from eventstore.adapters.contracts import CONTRACTS, camel
from tests.adapters.recorded import DATA, TracedCall, call_adapter, traced
from tests.tools.command import done
from tests.tools.node import STAND_IN, CallError, Engine, engine
from tests.tools.served import Server

POSITION = ("BTCUSDT", "strat", "binance")
WHEN = {"$": "Date", "at": "2024-01-01T00:05:00.000Z"}
UNDEFINED = {"$": "undefined"}


@pytest.fixture
def persist(tmp_path: Path) -> Path:
    """The module, where somebody put it."""
    path = tmp_path / "persist.mjs"
    path.write_text(done("client").out, encoding="utf-8")
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of an empty store; started again, it listens where it did."""
    with Server(tmp_path / "data") as running:
        running.command[running.command.index("--port") + 1] = str(running.port)
        yield running


# ---- what the engine was told


def recorded(name: str) -> Iterator[tuple[dict[str, Any], TracedCall]]:
    """The calls of a trace that succeeded and carry their arguments: as they stand there, for Node, and for Python."""
    raw = [call for call in json.loads((DATA / name).read_text())["trace"] if isinstance(call["args"], list)]
    return ((each, call) for each, call in zip(raw, traced(name), strict=True) if call.error is None)


def for_node(call: dict[str, Any]) -> list[Any]:
    """The arguments of an adapter's method, moments as Dates."""
    contract = CONTRACTS[call["contract"]]
    named = {camel(method.name): contract.adapter_parameters(method.parameters) for method in contract.methods}
    names = named.get(call["method"], ())
    return [{"$": "Date", "at": arg} if names[at : at + 1] == ("when",) else arg for at, arg in enumerate(call["args"])]


ENTRIES = {"k": {"value": [1, 2], "when": 1_704_067_500_000}}
DICTIONARY: list[dict[str, Any]] = [
    {"contract": "Dictionary", "method": method, "args": args, "result": result}
    for method, args, result in (
        ("waitForInit", ["s1", "d", True], UNDEFINED),
        ("readDictionaryData", ["s1", "d"], None),
        ("writeDictionaryData", [{"id": "s1_d", "data": ENTRIES, "when": 1}, "s1", "d", WHEN["at"]], UNDEFINED),
        ("dispose", ["s1", "d"], UNDEFINED),
        ("readDictionaryData", ["s1", "d"], {"id": "s1_d", "data": ENTRIES, "when": 1}),
        ("writeDictionaryData", [{"id": "s1_d", "data": {}, "when": 0}, "s1", "d", "2023-01-01T00:00:00.000Z"], UNDEFINED),
        ("readDictionaryData", ["s1", "d"], {"id": "s1_d", "data": {}, "when": 0}),
    )
]
"""No version that was recorded has it."""


def calls_of(engine_has: list[str]) -> list[tuple[dict[str, Any], TracedCall]]:
    """All calls, in order: of every method of every contract."""
    own = [(each, TracedCall(each["contract"], each["method"], each["args"])) for each in DICTIONARY if "Dictionary" in engine_has]
    return [*recorded("trace-write.json"), *own, *recorded("trace-read.json")]


async def told_in_process(calls: list[TracedCall]) -> list[Any]:
    """What the contracts in Python answer."""
    in_process.setup(live="memory:", backtest="memory:")
    answers = [await call_adapter(call) for call in calls]
    await in_process.close()
    return answers


def plain(result: Any) -> Any:
    """Without marks, as Python says it."""
    if result == UNDEFINED:
        return None
    return json.loads(re.sub(r'\{"\$": "Infinity"\}', "Infinity", json.dumps(result)))


def require_the_same(module: Path, server: Server, persist: Path) -> None:
    """Call an engine as it was called when it was recorded. Fails at the first answer that is another."""
    with engine(persist, {"url": server.url}, module=module) as installed:
        calls = calls_of(installed.registered)
        expected = asyncio.run(told_in_process([call for _, call in calls]))
        methods = {(name, camel(method.name)) for name in installed.registered for method in CONTRACTS[name].methods}
        assert methods <= {(call["contract"], call["method"]) for call, _ in calls}
        for (call, _), answer in zip(calls, expected, strict=True):
            told = installed.engine.call(call["contract"], call["method"], *for_node(call))
            assert told == call["result"], (call["contract"], call["method"], call["args"])
            assert plain(told) == answer, (call["contract"], call["method"], call["args"])


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Adapters in Python are as they were at first when a test ends."""
    monkeypatch.chdir(tmp_path)
    yield
    asyncio.run(in_process.close())
    in_process.set_config()
    in_process.install()


def test_the_engine_is_told_what_it_was_told(server: Server, persist: Path) -> None:
    require_the_same(STAND_IN, server, persist)


@pytest.mark.backtestkit
def test_the_real_engine_is_told_what_it_was_told(server: Server, persist: Path) -> None:
    module = os.environ.get("BACKTEST_KIT")
    assert module, "BACKTEST_KIT names the engine to ask: .../node_modules/backtest-kit/build/index.mjs"
    require_the_same(Path(module), server, persist)


def test_the_engines_own_settings_say_what_an_older_row_lacks(server: Server, persist: Path) -> None:
    """And not the server, which does not know them."""
    settings = {"CC_SIGNAL_LEVERAGE_MULTIPLIER": 3, "CC_SIGNAL_ISOLATED_MARGIN": False}
    deferred = {name: {"id": name} for name in ("closedSignal", "retryOpenSignal")}
    with engine(persist, {"url": server.url}, more={"getConfig": settings}) as installed:
        calls = installed.engine
        calls.call("Signal", "writeSignalData", {"id": "s1"}, *POSITION)
        calls.call("Signal", "writeSignalData", {"id": "s2", "multiplier": 1, "isolated": True}, "ETHUSDT", *POSITION[1:])
        calls.call("Strategy", "writeStrategyData", deferred, *POSITION)
        calls.call("Notification", "writeNotificationData", [{"id": "n1", "cost": 1}, {"id": "n2"}], False)
        older = {"minuteEstimatedTime": {"$": "Infinity"}, "multiplier": 3, "isolated": False}
        assert calls.call("Signal", "readSignalData", *POSITION) == {"id": "s1", **older}
        newer = calls.call("Signal", "readSignalData", "ETHUSDT", *POSITION[1:])
        assert (newer["multiplier"], newer["isolated"]) == (1, True)
        assert calls.call("Strategy", "readStrategyData", *POSITION) == {name: {"id": name, **older} for name in deferred}
        assert calls.call("Notification", "readNotificationData", False) == [
            {"id": "n1", "cost": 1, "multiplier": 3, "isolated": False},
            {"id": "n2"},
        ]


# ---- where it is told


def test_a_namespace_is_a_store_of_its_own(server: Server, persist: Path) -> None:
    stores: list[dict[str, Any]] = [{}, {"namespace": "bot-1"}, {"namespace": "Bot 1/ü"}]
    for number, options in enumerate(stores):
        with engine(persist, {"url": server.url, **options}) as installed:
            assert installed.engine.call("Signal", "readSignalData", *POSITION) is None
            installed.engine.call("Signal", "writeSignalData", {"id": f"s{number}"}, *POSITION)
    for number, options in enumerate(stores):
        with engine(persist, {"url": server.url, **options}) as installed:
            assert installed.engine.call("Signal", "readSignalData", *POSITION)["id"] == f"s{number}"


def test_a_unix_socket_serves_as_well(tmp_path: Path, persist: Path) -> None:
    path = tmp_path / "s"
    with Server(tmp_path / "data", "--unix", path) as server, engine(persist, {"socketPath": str(path)}) as installed:
        write(installed.engine, 0)
        server.kill()
        begun = begin(installed.engine, 1)
        server.start()
        assert installed.engine.end(begun) == UNDEFINED
        assert installed.engine.call("State", "readStateData", "s1", "b") == {"n": 1}


def test_a_token_is_asked_for(tmp_path: Path, persist: Path) -> None:
    token = "0123456789abcdefghij"
    with Server(tmp_path / "data", token=token) as server:
        for given in ({}, {"token": token[::-1]}):
            with engine(persist, {"url": server.url, **given}) as installed, pytest.raises(CallError, match="the server's token") as caught:
                write(installed.engine, 0)
            assert "HTTP 401" in str(caught.value)
        with engine(persist, {"url": server.url, "token": token}) as installed:
            write(installed.engine, 0)


# ---- once, and in order


def begin(calls: Engine, number: int, signal_id: str = "s1", text: str = "") -> int:
    """Begin to write a number into a state."""
    data = {"n": number, "text": text} if text else {"n": number}
    return calls.begin("State", "writeStateData", data, signal_id, "b", WHEN)


def write(calls: Engine, number: int, signal_id: str = "s1") -> None:
    """Write it, and wait."""
    assert calls.end(begin(calls, number, signal_id)) == UNDEFINED


def numbers(server: Server, signal_id: str = "s1") -> list[int]:
    """Those that were ever written, in order, as the log has them."""
    with eventstore.open(server.folder, read_only=True) as store:
        assert store.verify().ok
        state = store.domain("state")
        texts = [state.text_of(event) for event in state.events(key=(signal_id, "b"))]
        return [json.loads(text)["n"] for text in texts if text is not None]


def test_writes_that_nobody_waits_for_are_written_in_order(server: Server, persist: Path) -> None:
    """Large ones among them, which any small one would overtake."""
    with engine(persist, {"url": server.url}) as installed:
        for call in [begin(installed.engine, number, text="x" * 500_000 if number % 4 == 0 else "") for number in range(60)]:
            assert installed.engine.end(call) == UNDEFINED
    assert numbers(server) == list(range(60))


def test_a_server_that_is_killed_again_and_again_loses_nothing_and_does_nothing_twice(server: Server, persist: Path) -> None:
    states, each = [f"s{number}" for number in range(4)], 60
    with engine(persist, {"url": server.url, "timeoutMs": 90_000}) as installed:
        calls = [begin(installed.engine, number, state) for number in range(each) for state in states]
        for at, call in enumerate(calls):
            if at in (20, 90, 170):
                server.kill()  # with writes on their way to it, in it, and answers on their way back
                server.start()
            assert installed.engine.end(call) == UNDEFINED
        for state in states:
            assert installed.engine.call("State", "readStateData", state, "b") == {"n": each - 1}
    assert {state: numbers(server, state) for state in states} == {state: list(range(each)) for state in states}


@pytest.mark.slow  # a shorter time would be too short for what must arrive, on a busy machine
def test_a_write_that_was_given_up_does_not_overtake_the_next(server: Server, persist: Path) -> None:
    """The server sleeps over it. Awake, it finds it in several sockets, and does it once, before the next one."""
    with engine(persist, {"url": server.url, "timeoutMs": 6_000}) as installed:
        write(installed.engine, 0)
        os.kill(server.pid, signal.SIGSTOP)
        with pytest.raises(CallError) as caught:
            write(installed.engine, 1)
        assert caught.value.outcome == "unknown"
        os.kill(server.pid, signal.SIGCONT)
        write(installed.engine, 2)
    assert numbers(server) == [0, 1, 2]


@pytest.mark.slow  # the same
def test_a_server_that_went_away_is_told_and_comes_back(server: Server, persist: Path) -> None:
    with engine(persist, {"url": server.url, "timeoutMs": 3_000}) as installed:
        write(installed.engine, 0)
        server.stop()
        with pytest.raises(CallError, match=f"from {server.url}.*Is `eventstore serve` running"):
            write(installed.engine, 1)
        server.start()
        write(installed.engine, 2)
    assert numbers(server) in ([0, 2], [0, 1, 2])
