"""persist.mjs, as `eventstore client` prints it: what it makes of calls and answers, and what it does when there are none.

A stand-in for the engine calls it in Node; the servers are played (played.py). test_client_server.py has the real one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from eventstore.adapters import contracts
from eventstore.adapters.contracts import CONTRACTS, Contract
from eventstore.tools.client import client
from tests.tools.command import done
from tests.tools.node import CallError, Installed, engine, node
from tests.tools.played import Act, Played, played

POSITION = ("BTCUSDT", "strat", "binance")
WHEN = {"$": "Date", "at": "2024-01-01T00:05:00.000Z"}
INFINITY = {"$": "Infinity"}


@pytest.fixture
def persist(tmp_path: Path) -> Path:
    """The module, where somebody put it."""
    path = tmp_path / "persist.mjs"
    path.write_text(done("client").out, encoding="utf-8")
    return path


@pytest.fixture
def server() -> Iterator[Played]:
    """A server that plays."""
    with played() as found:
        yield found


def on(server: Played, persist: Path, **options: Any) -> AbstractContextManager[Installed]:
    """The stand-in with the client installed, on a server that plays."""
    return engine(persist, {"url": server.url, **options})


# ---- the module


def test_the_module_has_the_rows_and_nothing_else_is_changed() -> None:
    pattern = (Path(contracts.__file__).parents[1] / "tools" / "persist.mjs").read_text(encoding="utf-8")
    before, rows, after = re.split(r"^(const CONTRACTS = \[\n.*?^\];\n)", client(), flags=re.MULTILINE | re.DOTALL)
    assert before + "const CONTRACTS = [];\n" + after == pattern
    assert [json.loads(row.rstrip(",")) for row in rows.splitlines()[1:-1]] == done("client", "--json").lines()
    assert len(rows.splitlines()) == len(CONTRACTS) + 2


TYPED = """
import { install, UnreachableError, type Installed, type Options } from "./persist.mjs";

const options: Options = { socketPath: "eventstore.sock", timeoutMs: 5_000 };
const installed: Installed = install({}, options);
export const names: string[] = installed.registered;
export const outcome = (error: UnreachableError): "not_written" | "unknown" => error.outcome;
// @ts-expect-error  an option that there is not
install({}, { uri: "http://localhost" });
// @ts-expect-error  a port is no url
install({}, { url: 7410 });
"""


@pytest.mark.typescript
def test_types_are_right_and_seen_by_typescript(persist: Path) -> None:
    compiler = os.environ.get("TSC")
    assert compiler, "TSC names the compiler to ask: .../node_modules/.bin/tsc, beside @types/node"
    (persist.parent / "user.ts").write_text(TYPED)
    words = ["--noEmit", "--allowJs", "--strict", "--target", "es2022", "--module", "nodenext", "--types", "node"]
    types = ["--typeRoots", str(Path(compiler).parents[1] / "@types")]
    ran = subprocess.run(
        [compiler, *words, *types, "user.ts"], cwd=persist.parent, capture_output=True, text=True, timeout=100, check=False
    )
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")


def test_the_pattern_says_that_it_is_one(tmp_path: Path) -> None:
    pattern = Path(contracts.__file__).parents[1] / "tools" / "persist.mjs"
    with pytest.raises(CallError, match="`eventstore client` prints the module"), engine(pattern, {"url": "http://127.0.0.1:1"}):
        pass


def test_every_contract_is_registered(server: Played, persist: Path) -> None:
    with on(server, persist) as installed:
        assert installed.registered == list(CONTRACTS)
        assert installed.missing == installed.unknown == []
    assert server.arrived == []


def test_an_older_engine_has_fewer_contracts(server: Played, persist: Path) -> None:
    lacking = ("PersistStrategyAdapter", "PersistDictionaryAdapter", "getConfig")
    server.results["readSignalData"] = {"id": "s1", "minuteEstimatedTime": None}
    with engine(persist, {"url": server.url}, without=lacking) as installed:
        assert installed.missing == ["Strategy", "Dictionary"]
        assert installed.registered == [name for name in CONTRACTS if name not in ("Strategy", "Dictionary")]
        read = installed.engine.call("Signal", "readSignalData", *POSITION)
        assert read == {"id": "s1", "minuteEstimatedTime": INFINITY, "multiplier": 1, "isolated": True}


def test_a_contract_that_the_module_does_not_know_is_told(server: Played, persist: Path) -> None:
    with engine(persist, {"url": server.url}, more={"PersistNovelAdapter": "usePersistNovelAdapter"}) as installed:
        assert installed.unknown == ["Novel"]
        installed.engine.call("Log", "readLogData")
        assert ["PersistNovelAdapter" in warning and "engine's own files" in warning for warning in installed.engine.warnings] == [True]


def test_an_eighteenth_row_needs_nothing_but_the_row(server: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONTRACTS, "Novel", Contract(name="Novel", shape="one", context=("symbol",), path=("novel",), payload=Any))
    path = tmp_path / "persist.mjs"
    path.write_text(client(), encoding="utf-8")
    with engine(path, {"url": server.url}, more={"PersistNovelAdapter": "usePersistNovelAdapter"}) as installed:
        assert installed.registered[-1] == "Novel"


def test_what_is_no_engine_is_refused(persist: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.mjs"
    nothing.write_text("export const something = 1;")
    with (
        pytest.raises(CallError, match=r"no Persist\*Adapter to register with"),
        engine(persist, {"url": "http://localhost"}, module=nothing),
    ):
        pass
    with (
        pytest.raises(CallError, match=r"PersistSignalAdapter of this engine has no usePersistSignalAdapter\(\)"),
        engine(persist, {"url": "http://localhost"}, more={"PersistSignalAdapter": "useJson"}),
    ):
        pass


def answers(persist: Path, options: list[Any]) -> list[list[str]]:
    """What install() throws for each of some options: the name and the message of the error, or nothing."""
    script = """
        const [persist, all] = process.argv.slice(1);
        const { install } = await import(persist);
        const engine = { PersistLogAdapter: { usePersistLogAdapter() {} } };
        const tried = (options) => { try { install(engine, options); return []; } catch (error) { return [error.name, error.message]; } };
        console.log(JSON.stringify(JSON.parse(all).map(tried)));
    """
    command = [node(), "--input-type=module", "-e", script, "--", str(persist), json.dumps(options)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found: list[list[str]] = json.loads(ran.stdout)
    return found


def test_wrong_options_are_refused(persist: Path) -> None:
    wrong: list[tuple[Any, str]] = [
        ({}, "either url or socketPath"),
        ({"url": "http://localhost:1", "socketPath": "a.sock"}, "either url or socketPath"),
        (
            {"url": "http://localhost:1", "timeout": 5, "ns": "a"},
            "no option timeout, ns; there are url, socketPath, namespace, token, timeoutMs",
        ),
        ({"url": "localhost:1"}, 'url is http://HOST:PORT and nothing behind it, not "localhost:1"'),
        ({"url": "https://localhost:1"}, "url is http://HOST:PORT"),
        ({"url": "http://localhost:1/rpc"}, "nothing behind it"),
        ({"url": "http://me:secret@localhost:1"}, "nothing behind it"),
        ({"url": 8080}, "url is http://HOST:PORT and nothing behind it, not 8080"),
        ({"url": "http://10.0.0.7:1"}, "http://10.0.0.7:1 is on another machine"),
        ({"url": "http://127.0.0.1.example.org:1"}, "is on another machine"),
        ({"url": "http://localhost.example.org:1"}, "is on another machine"),
        ({"url": "http://[::2]:1"}, "is on another machine"),
        ({"socketPath": ""}, "socketPath is the path of a unix socket"),
        ({"url": "http://localhost:1", "namespace": 7}, "namespace is a string, not 7"),
        ({"url": "http://localhost:1", "token": "se cret\n"}, "token is a string of visible ASCII"),
        ({"url": "http://localhost:1", "token": ""}, "token is a string of visible ASCII"),
        ({"url": "http://localhost:1", "timeoutMs": 0}, "timeoutMs is a number of milliseconds"),
        ({"url": "http://localhost:1", "timeoutMs": "5s"}, 'timeoutMs is a number of milliseconds above 0 and below 2^31, not "5s"'),
        ({"url": "http://localhost:1", "timeoutMs": 2**31}, "timeoutMs is a number of milliseconds"),
        (None, "install() takes the engine and {url} or {socketPath}"),
    ]
    found = answers(persist, [options for options, _ in wrong])
    assert [name for name, _ in found] == ["TypeError"] * len(wrong)
    for (_, said), (_, message) in zip(wrong, found, strict=True):
        assert message.startswith("eventstore: ")
        assert said in message
        assert "se cret" not in message


def test_right_options_are_taken(persist: Path) -> None:
    urls = ["http://localhost:1", "http://127.0.0.1:1/", "http://127.9.8.7:1", "http://[::1]:1"]
    more = {"url": "http://10.0.0.7:1", "token": "t", "namespace": "bot-1", "timeoutMs": 5.5}
    assert answers(persist, [{"url": url} for url in urls] + [{"socketPath": "a.sock"}, more]) == [[]] * 6


# ---- a call


def test_a_request_says_what_the_protocol_asks_for(server: Played, persist: Path) -> None:
    server.results["readCandlesData"] = [{"timestamp": 0}]
    with on(server, persist, namespace="bot-1", token="s3cret") as installed:
        calls = installed.engine
        assert calls.call("Partial", "writePartialData", {"s1": {"x": INFINITY}}, *POSITION[:2], "s1", "binance", WHEN) == {
            "$": "undefined"
        }
        assert calls.call("Candle", "readCandlesData", "BTCUSDT", "1m", "binance", 1, 0, 60_000) == [{"timestamp": 0}]
    context = dict(zip(("symbol", "strategyName", "exchangeName"), POSITION, strict=True))
    assert [{name: value for name, value in request.items() if name != "rid"} for request in server.arrived] == [
        {"ns": "bot-1", "contract": "Partial", "context": context, "method": "waitForInit", "args": [True]},
        {
            "ns": "bot-1",
            "contract": "Partial",
            "context": context,
            "method": "writePartialData",
            "args": [{"s1": {"x": None}}, "s1", "2024-01-01T00:05:00.000Z"],
        },
        {
            "ns": "bot-1",
            "contract": "Candle",
            "context": {"symbol": "BTCUSDT", "interval": "1m", "exchangeName": "binance"},
            "method": "waitForInit",
            "args": [True],
        },
        {
            "ns": "bot-1",
            "contract": "Candle",
            "context": {"symbol": "BTCUSDT", "interval": "1m", "exchangeName": "binance"},
            "method": "readCandlesData",
            "args": [1, 0, 60_000],
        },
    ]
    assert {(found["authorization"], found["content-type"]) for found in server.headers} == {("Bearer s3cret", "application/json")}
    assert len(server.connections) == 1  # kept alive


def test_a_call_says_what_its_arguments_are_when_it_is_made(server: Played, persist: Path, tmp_path: Path) -> None:
    """The engine goes on with its objects; and what is missing is null, so that there are as many as the method takes."""
    script = tmp_path / "script.mjs"
    script.write_text(
        f"""
        import {{ install }} from "./persist.mjs";
        let Made;
        install({{ PersistMeasureAdapter: {{ usePersistMeasureAdapter: (Ctor) => (Made = Ctor) }} }}, {{ url: "{server.url}" }});
        const bucket = Reflect.construct(Made, ["b"]);
        const data = {{ v: 1 }};
        const first = bucket.writeMeasureData(data, "k", new Date(0));
        data.v = 2;
        const second = bucket.writeMeasureData(data, "k", undefined, "more than it takes");
        await Promise.all([first, second]);
        console.log(Made.name, typeof bucket.listMeasureData()[Symbol.asyncIterator]);
        """
    )
    ran = subprocess.run([node(), str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("PersistMeasureInstance function\n", "")
    assert [request["args"] for request in server.done] == [[{"v": 1}, "k", "1970-01-01T00:00:00.000Z"], [{"v": 2}, "k", None]]


def test_no_rid_is_ever_given_twice(server: Played, persist: Path) -> None:
    with on(server, persist) as one, on(server, persist) as other:
        for each in (one, other):
            for key in "abc":
                each.engine.call("Measure", "writeMeasureData", {"id": key}, "bucket", key, WHEN)
    rids = [request["rid"] for request in server.arrived]
    assert len(rids) == len(set(rids)) == 8
    assert len({rid.partition("-")[0] for rid in rids}) == 2


def test_calls_of_one_context_go_one_after_the_other(server: Played, persist: Path) -> None:
    """Those that nobody waited for, too, and whatever becomes of single ones; also where the engine makes a new instance meanwhile."""
    server.acts.extend(["answer", "lose", 503, "answer", "drop", "half"] * 2)
    with on(server, persist) as installed:
        begun = []
        for number in range(40):
            begun.append(installed.engine.begin("State", "writeStateData", {"n": number}, "s1", "b", WHEN))
            if number % 20 == 19:
                installed.engine.begin("State", "dispose", "s1", "b")
        for call in begun:
            assert installed.engine.end(call) == {"$": "undefined"}
    assert [request["args"][0]["n"] for request in server.done if request["method"] == "writeStateData"] == list(range(40))


def test_calls_of_different_contexts_do_not_wait_for_each_other(server: Played, persist: Path) -> None:
    with on(server, persist) as installed:
        installed.engine.call("State", "readStateData", "slow", "b")
        server.acts.append("swallow")
        installed.engine.begin("State", "writeStateData", {}, "slow", "b", WHEN)
        while server.acts:  # until it has come
            time.sleep(0.01)
        installed.engine.call("State", "readStateData", "fast", "b")
    assert server.methods() == ["readStateData", "readStateData"]


def test_one_initialisation_serves_all_callers(server: Played, persist: Path) -> None:
    with on(server, persist) as installed:
        for call in [installed.engine.begin("Signal", "readSignalData", *POSITION) for _ in range(20)]:
            installed.engine.end(call)
        installed.engine.call("Signal", "readSignalData", *POSITION)
        installed.engine.call("Signal", "readSignalData", "ETHUSDT", *POSITION[1:])
    inits = [request["context"]["symbol"] for request in server.arrived if request["method"] == "waitForInit"]
    assert inits == ["BTCUSDT", "ETHUSDT"]
    assert server.methods() == ["readSignalData"] * 22


def test_an_initialisation_that_failed_is_tried_again(server: Played, persist: Path) -> None:
    server.refuse = lambda request: {"name": "NotAStoreError", "message": "no store there"} if request["method"] == "waitForInit" else None
    with on(server, persist) as installed:
        calls = [installed.engine.begin("Signal", "readSignalData", *POSITION) for _ in range(3)]
        for call in calls:
            with pytest.raises(CallError, match=r"^no store there$"):
                installed.engine.end(call)
        assert len(server.arrived) == 1
        server.refuse = lambda request: None
        assert installed.engine.call("Signal", "readSignalData", *POSITION) is None
        installed.engine.call("Signal", "readSignalData", *POSITION)
    assert [request["method"] for request in server.arrived] == ["waitForInit", "waitForInit", "readSignalData", "readSignalData"]


# ---- repairs

ROW = {"id": "s1", "cost": 10}
WHOLE = {**ROW, "minuteEstimatedTime": INFINITY, "multiplier": 3, "isolated": False}
OWN = {**ROW, "minuteEstimatedTime": 30, "multiplier": 7, "isolated": True}
SNAPSHOT_ROWS = ("closedSignal", "cancelledSignal", "activatedSignal", "takeProfitSignal", "stopLossSignal", "retryOpenSignal")


REPAIRS: list[tuple[str, str, tuple[Any, ...], Any, Any]] = [
    *(
        (adapter, f"read{adapter}Data", args, stored, read)
        for adapter, args in (("Signal", POSITION), ("Schedule", POSITION), ("Recent", (*POSITION, "", False)))
        for stored, read in (({**ROW, "minuteEstimatedTime": None, "isolated": None}, WHOLE), (ROW, WHOLE), (OWN, OWN), (None, None))
    ),
    ("Storage", "readStorageData", (False,), [ROW, OWN], [WHOLE, OWN]),
    ("Storage", "readStorageData", (False,), [], []),
    (
        "Strategy",
        "readStrategyData",
        POSITION,
        {"createdSignal": ROW, "isPaused": False, **dict.fromkeys(SNAPSHOT_ROWS, ROW)},
        {"createdSignal": ROW, "isPaused": False, **dict.fromkeys(SNAPSHOT_ROWS, WHOLE)},
    ),
    ("Strategy", "readStrategyData", POSITION, {"closedSignal": None}, {"closedSignal": None}),
    (
        "Risk",
        "readPositionData",
        ("risk", "binance", WHEN),
        [["a", {"minuteEstimatedTime": None}], ["b", {"minuteEstimatedTime": 5}], ["c", {}]],
        [["a", {"minuteEstimatedTime": INFINITY}], ["b", {"minuteEstimatedTime": 5}], ["c", {"minuteEstimatedTime": INFINITY}]],
    ),
    (
        "Notification",
        "readNotificationData",
        (True,),
        [{"id": "n1"}, {"id": "n2", "minuteEstimatedTime": None}, ROW, {"id": "n3", "cost": None, "multiplier": 2}],
        [
            {"id": "n1"},
            {"id": "n2", "minuteEstimatedTime": INFINITY},
            {**ROW, "multiplier": 3, "isolated": False},
            {"id": "n3", "cost": None, "multiplier": 2, "isolated": False},
        ],
    ),
    ("Interval", "readIntervalData", ("b", "k"), ROW, ROW),
    ("State", "readStateData", ("s1", "b"), {"data": ROW}, {"data": ROW}),
]


def test_what_json_could_not_say_is_put_back(server: Played, persist: Path) -> None:
    """As the engine's own classes do, by its settings at that time."""
    settings = {"CC_SIGNAL_LEVERAGE_MULTIPLIER": 3, "CC_SIGNAL_ISOLATED_MARGIN": False}
    with engine(persist, {"url": server.url}, more={"getConfig": settings}) as installed:
        for adapter, method, args, stored, read in REPAIRS:
            server.results[method] = stored
            assert installed.engine.call(adapter, method, *args) == read, (method, stored)


# ---- when there is no answer


@pytest.mark.parametrize("act", ["lose", "drop", "half", "garble", 500, 503])
def test_a_call_without_an_answer_is_sent_again_and_done_once(act: Act, server: Played, persist: Path) -> None:
    with on(server, persist) as installed:
        installed.engine.call("Log", "readLogData")
        server.acts.extend([act, act])
        installed.engine.call("Log", "writeLogData", [{"id": "a"}])
        installed.engine.call("Log", "readLogData")
    assert server.methods() == ["readLogData", "writeLogData", "readLogData"]
    writes = [request["rid"] for request in server.arrived if request["method"] == "writeLogData"]
    assert len(writes) == 3
    assert len(set(writes)) == 1


@pytest.mark.slow  # the same
def test_an_answer_that_does_not_come_is_not_waited_for_all_the_time(server: Played, persist: Path) -> None:
    with on(server, persist, timeoutMs=6_000) as installed:
        installed.engine.call("Log", "readLogData")
        server.acts.append("swallow")
        installed.engine.call("Log", "writeLogData", [{"id": "a"}])
    assert server.methods() == ["readLogData", "writeLogData"]


def test_a_refusal_is_final(server: Played, persist: Path) -> None:
    statuses: list[Act] = [400, 401, 403, 404, 413, 302]
    with on(server, persist) as installed:
        installed.engine.call("Log", "readLogData")
        for status in statuses:
            server.acts.append(status)
            with pytest.raises(CallError, match=rf"^eventstore: {server.url} refused Log.writeLogData with HTTP {status}: ") as caught:
                installed.engine.call("Log", "writeLogData", [{"id": "a"}])
            assert ("a token is asked for; install() takes the server's token" in str(caught.value)) == (status == 401)
        installed.engine.call("Log", "readLogData")
    assert server.methods() == ["readLogData", "readLogData"]
    assert [request["method"] for request in server.arrived].count("writeLogData") == len(statuses)


def test_too_much_at_this_moment_is_asked_again_when_the_server_says(server: Played, persist: Path) -> None:
    server.acts.extend([429, 429])
    with on(server, persist) as installed:
        installed.engine.call("Log", "writeLogData", [{"id": "a"}])
    assert server.methods() == ["writeLogData"]
    server.retry_after, server.otherwise = 60, 429
    before = len(server.arrived)
    with on(server, persist, timeoutMs=700) as installed, pytest.raises(CallError, match=r"\(tries: 1; the last: HTTP 429: no\)"):
        installed.engine.call("Log", "readLogData")
    assert len(server.arrived) == before + 1  # the pauses of its own would have ended within its time


def test_a_no_of_the_store_is_thrown_as_it_is_and_final(server: Played, persist: Path) -> None:
    said = {"name": "ContractError", "message": "Log: the id of a row is a string, not 7"}
    server.refuse = lambda request: said if request["method"] == "writeLogData" else None
    with on(server, persist) as installed:
        with pytest.raises(CallError) as caught:
            installed.engine.call("Log", "writeLogData", [{"id": 7}])
        assert (caught.value.name, str(caught.value)) == (said["name"], said["message"])
    assert [request["method"] for request in server.arrived] == ["waitForInit", "writeLogData"]


def test_a_server_that_is_gone_is_told_loudly(persist: Path) -> None:
    with played() as server:
        url = server.url
    with engine(persist, {"url": url, "timeoutMs": 400}) as installed:
        with pytest.raises(CallError) as caught:
            installed.engine.call("Signal", "writeSignalData", None, *POSITION)
        assert (caught.value.name, caught.value.outcome) == ("UnreachableError", "not_written")
        assert f"no answer to Signal.waitForInit from {url} in 400 ms" in str(caught.value)
        assert "ECONNREFUSED" in str(caught.value)
        assert "Is `eventstore serve` running" in str(caught.value)


def test_a_socket_that_is_gone_is_told_loudly(persist: Path, tmp_path: Path) -> None:
    path = tmp_path / "gone.sock"
    with engine(persist, {"socketPath": str(path), "timeoutMs": 400}) as installed, pytest.raises(CallError, match="ENOENT") as caught:
        installed.engine.call("Memory", "listMemoryData", "s1", "b")
    assert f"from {path} in 400 ms" in str(caught.value)


def test_every_call_that_waits_ends_in_its_own_time(persist: Path) -> None:
    """Not each only after all before it have had theirs."""
    with played() as server:
        url = server.url
    with engine(persist, {"url": url, "timeoutMs": 1_000}) as installed:
        calls = [installed.engine.begin("Signal", "readSignalData", *POSITION) for _ in range(200)]
        for call in calls:
            with pytest.raises(CallError, match="no answer to Signal"):
                installed.engine.end(call)  # one after the other they would take longer than a test may


@pytest.mark.slow  # a shorter time would be too short for what must arrive, on a busy machine
def test_a_write_that_may_yet_arrive_goes_before_what_follows_it(server: Played, persist: Path) -> None:
    """Its sender was told that nobody knows; were the next one sent without it, the older could overwrite the newer."""
    with on(server, persist, timeoutMs=3_000) as installed:
        calls = installed.engine
        calls.call("Signal", "readSignalData", *POSITION)
        server.otherwise = "swallow"
        with pytest.raises(CallError, match="Whether it was written is not known") as caught:
            calls.call("Signal", "writeSignalData", {"id": "old"}, *POSITION)
        assert (caught.value.name, caught.value.outcome) == ("UnreachableError", "unknown")
        server.otherwise = 503
        with pytest.raises(CallError, match=r"503: come again.*It came before Signal.readSignalData, which was not sent") as caught:
            calls.call("Signal", "readSignalData", *POSITION)
        assert caught.value.outcome == "not_written"
        server.otherwise = "answer"
        calls.call("Signal", "writeSignalData", {"id": "new"}, *POSITION)
        calls.call("Signal", "writeSignalData", {"id": "newer"}, *POSITION)
    written = [request["args"][0]["id"] for request in server.done if request["method"] == "writeSignalData"]
    assert written == ["old", "new", "newer"]


def test_a_write_that_nobody_heard_is_not_sent_later(persist: Path, tmp_path: Path) -> None:
    """Whoever was told that it was not written may rely on it."""
    script = persist.parent / "script.mjs"
    script.write_text(
        f"""
        import {{ install }} from "./persist.mjs";
        let Made;
        const engine = {{ PersistLogAdapter: {{ usePersistLogAdapter: (Ctor) => (Made = Ctor) }} }};
        install(engine, {{ socketPath: "{tmp_path}/later.sock", timeoutMs: 400 }});
        const log = new Made();
        for (const id of ["first", "second"]) {{
          await log.writeLogData([{{ id }}]).catch((error) => console.log(error.outcome, error.message.includes("It came before")));
        }}
        """
    )
    ran = subprocess.run([node(), str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("not_written false\n" * 2, "")
