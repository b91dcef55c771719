"""What the real engine asked and was told, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventstore.adapters.contracts import CONTRACTS, camel
from eventstore.adapters.rpc import METHODS
from eventstore.adapters.shelf import as_json
from tests.adapters.recorded import DATA, WHOLE, TracedCall, repaired, same, session, traced
from tests.tools.served import Client, Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data") as running:
        yield running


def request_of(call: TracedCall, rid: str) -> dict[str, Any] | None:
    """A traced call of an adapter as the call of an instance that it becomes; None for what no instance is told."""
    contract = CONTRACTS[call.contract]
    methods = {camel(method.name): method.parameters for method in contract.methods} | {"waitForInit": ("initial",), "dispose": ()}
    if call.method not in methods:
        return None
    parameters = methods[call.method]
    given = dict(zip(contract.adapter_parameters(parameters), as_json(call.args), strict=True))
    context = {camel(name): given[name] for name in contract.context}
    args = [given[name] for name in parameters]
    return {"ns": "trace", "rid": rid, "contract": call.contract, "context": context, "method": call.method, "args": args}


def replayed(client: Client, name: str) -> tuple[int, list[str]]:
    """How many calls of a trace succeeded when they were recorded, and which of them are answered otherwise."""
    succeeded = [call for call in traced(name) if call.error is None]
    wrong: list[str] = []
    for number, call in enumerate(succeeded):
        request = request_of(call, f"{name}-{number}")
        if request is None:
            continue
        found = client.post(request).json()
        method = METHODS[call.contract][call.method]
        if not (found["ok"] and same(as_json(call.result), repaired(CONTRACTS[call.contract], method, found["result"]))):
            wrong.append(f"{name} {number}: {call.contract}.{call.method}: {found}")
    return len(succeeded), wrong


def test_the_traces_answer_as_recorded_by_another_server_too(server: Server) -> None:
    written, wrong = replayed(server.client(), "trace-write.json")
    server.stop()
    with server:
        read, wrong_after = replayed(server.client(), "trace-read.json")
        assert (written + read, wrong + wrong_after) == (158, [])


def replayed_session(client: Client, folder: Path, name: str) -> tuple[int, list[str]]:
    """How many calls of a recorded session were made, and which were answered otherwise."""
    wrong: list[str] = []
    calls = 0
    for path in (folder / f"{name}.jsonl.gz", folder / f"{name}.final.jsonl.gz"):
        for index, request, expected in session(path):
            found = client.post(request)
            calls += 1
            if found.status != 200 or not same({"ok": True, "result": expected}, found.json()):
                wrong.append(f"{path.name} {index}: {request['contract']}.{request['method']}")
    return calls, wrong


@pytest.mark.slow
@pytest.mark.timeout(600)  # each write waits for the disk
def test_a_part_of_a_session_answers_as_recorded(server: Server) -> None:
    calls, wrong = replayed_session(server.client(), DATA, "live")
    assert wrong == []
    assert calls > 3_000


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.skipif(not WHOLE.is_dir(), reason="the whole recordings do not stand beside this checkout")
@pytest.mark.parametrize(("name", "calls"), [("caps", 3_131), ("live", 64_456)])
def test_whole_sessions_answer_as_recorded(server: Server, name: str, calls: int) -> None:
    assert replayed_session(server.client(), WHOLE, name) == (calls, [])
