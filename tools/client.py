"""Print the client for backtest-kit, one file.

The engine runs in Node, 20 or newer. With this file its own Persist*Adapter objects keep their records in the store that
`eventstore serve` serves:

\b
  import * as backtestKit from "backtest-kit";
  import { install } from "./persist.mjs";
  install(backtestKit, { url: "http://127.0.0.1:7410" });

install() takes url or socketPath, and namespace, token, timeoutMs; it says which contracts it registered. A call that nobody
answers is sent again under one id, so that a write is done once, and throws when its time is over: nothing goes elsewhere.

With --json only the contracts are printed, one a line, for whoever writes a client in another language.

Example:
  eventstore client > persist.mjs
  eventstore client --json
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from importlib import resources
from typing import Any

from eventstore.adapters.contracts import CONTRACTS, EACH, Contract, Default, Method, camel

_ROWS = "const CONTRACTS = [];\n"
"""Where persist.mjs has room for the contracts."""


def client() -> str:
    """The module, as text: persist.mjs with the contracts in it."""
    text = resources.files("eventstore.tools").joinpath("persist.mjs").read_text(encoding="utf-8")
    rows = "".join(f"  {json.dumps(row)},\n" for row in contracts())
    return text.replace(_ROWS, f"const CONTRACTS = [\n{rows}];\n", 1)


def contracts() -> Iterator[dict[str, Any]]:
    """The contracts as a client needs them: a row each, names in the engine's spelling."""
    for contract in CONTRACTS.values():
        yield {
            "name": contract.name,
            "context": [camel(name) for name in contract.context],
            "methods": [_method(contract, method) for method in contract.methods],
            "disposable": contract.disposable,
            "defaults": [_default(default) for default in contract.repair.defaults] if contract.repair else [],
        }


def _method(contract: Contract, method: Method) -> dict[str, Any]:
    return {
        "name": camel(method.name),
        "parameters": [camel(name) for name in method.parameters],
        "verb": method.verb,
        "repaired": [[*where, *path] for where in _records(contract, method) for path in contract.repair.paths] if contract.repair else [],
    }


def _records(contract: Contract, method: Method) -> list[list[str]]:
    """Where whole records are in what a method gives."""
    if method.verb == "read":
        return [[EACH]] if contract.shape == "rows" else [[]]
    return [[EACH, "data"]] if method.verb == "list" and contract.listed == "entries" else []


def _default(default: Default) -> dict[str, Any]:
    value = "Infinity" if default.value == math.inf else default.value
    return {"member": default.member, "value": value, "beside": default.beside, "setting": default.setting}
