"""What the real engine asked and was told, as calls to make again: the two traces, and recordings of whole sessions."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from eventstore.adapters import persist
from eventstore.adapters.contracts import CONTRACTS, Contract, Method, camel
from eventstore.adapters.registry import ConfiguredAdapter
from eventstore.adapters.shelf import Backend, as_json

DATA = Path(__file__).parent / "data"
WHOLE = Path(__file__).parents[3] / "shared" / "data" / "backtest-kit"
"""The whole recordings, where they stand beside the checkout; what is in DATA is a part of them."""

_MARKS = {"Infinity": math.inf, "NaN": math.nan, "undefined": None}


def adapters() -> dict[str, ConfiguredAdapter]:
    """The adapters by the names of their contracts."""
    return {name: getattr(persist, f"Persist{name}Adapter") for name in CONTRACTS}


def instance(contract: Contract, context: tuple[Any, ...], backend: Backend | None = None) -> Any:
    """An instance of a contract."""
    return getattr(persist, f"Persist{contract.name}Instance")(*context, backend=backend)


async def answer(called: Any) -> Any:
    """What a method gives, awaited or gathered."""
    if hasattr(called, "__aiter__"):
        return [item async for item in called]
    return await called if hasattr(called, "__await__") else called


# ---- traces: calls of adapters


class TracedCall(msgspec.Struct):
    """A call of an adapter, and what came of it."""

    contract: str
    method: str
    args: list[Any]
    result: Any = None
    error: str | None = None


def traced(name: str) -> list[TracedCall]:
    """The calls of a trace that carry their arguments."""
    trace = json.loads((DATA / name).read_text())["trace"]
    return [msgspec.convert(_unmarked(call), TracedCall) for call in trace if isinstance(call["args"], list)]


def _unmarked(value: Any) -> Any:
    if isinstance(value, dict):
        return _MARKS[value["$"]] if set(value) == {"$"} else {name: _unmarked(member) for name, member in value.items()}
    return [_unmarked(item) for item in value] if isinstance(value, list) else value


async def call_adapter(call: TracedCall) -> Any:
    """Make a traced call of the adapter that has it."""
    contract, adapter = CONTRACTS[call.contract], adapters()[call.contract]
    names = {camel(method.name): (method.name, contract.adapter_parameters(method.parameters)) for method in contract.methods}
    names |= {"waitForInit": ("wait_for_init", contract.adapter_parameters(("initial",)))}
    name, parameters = names.get(call.method, (call.method, contract.context if call.args else ()))
    return await answer(getattr(adapter, name)(*_arguments(parameters, call.args)))


def _arguments(parameters: tuple[str, ...], args: list[Any]) -> list[Any]:
    return [datetime.fromisoformat(arg) if name == "when" else arg for name, arg in zip(parameters, args, strict=True)]


# ---- sessions: calls of instances, as they went over the wire


def session(path: Path) -> Iterator[tuple[int, dict[str, Any], Any]]:
    """The calls of a recording, in order: index, request, result."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            if "req" in line:
                assert line["res"]["ok"]
                yield line["i"], line["req"], line["res"]["result"]


class Replay:
    """Sessions replayed on a backend: an instance for each context, as the engine keeps them."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._instances: dict[tuple[Any, ...], Any] = {}
        self.calls = 0

    async def run(self, path: Path) -> list[str]:
        """Every call in order; where the answer was another."""
        wrong: list[str] = []
        for index, request, expected in session(path):
            found = await self.call(request)
            self.calls += 1
            if not same(expected, json.loads(msgspec.json.encode(found))):
                wrong.append(f"{path.name} {index}: {request['contract']}.{request['method']}")
        return wrong

    async def call(self, request: dict[str, Any]) -> Any:
        """What a request is answered."""
        contract = CONTRACTS[request["contract"]]
        context = tuple(request["context"][camel(name)] for name in contract.context)
        kept = self._instances.get((contract.name, *context))
        if kept is None:
            kept = self._instances[contract.name, *context] = instance(contract, context, self._backend)
        if request["method"] == "waitForInit":
            return await kept.wait_for_init(*request["args"])
        method = next(method for method in contract.methods if camel(method.name) == request["method"])
        return await answer(getattr(kept, method.name)(*_arguments(method.parameters, request["args"])))


def repaired(contract: Contract, method: Method, found: Any) -> Any:
    """The answer to a call over the wire, with what a client puts back into records, which come as they were written."""
    if contract.repair is None or method.verb != "read" or found is None:
        return found
    return as_json([contract.repair(row) for row in found] if contract.shape == "rows" else contract.repair(found))


def same(expected: Any, found: Any) -> bool:
    """Whether two JSON values are one to JavaScript: 1 is 1.0, but no true."""
    if isinstance(expected, bool) or isinstance(found, bool) or expected is None or found is None:
        return expected is found
    if isinstance(expected, dict) and isinstance(found, dict):
        return expected.keys() == found.keys() and all(same(value, found[name]) for name, value in expected.items())
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(map(same, expected, found))
    return bool(expected == found)
