"""`python -m tests.adapters.stub > adapters/persist.pyi`: what editors are told of the names that persist.py makes of the rows."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator

from eventstore.adapters.contracts import CONTRACTS, PAYLOADS, Contract, Method
from eventstore.adapters.instances import instance_class
from eventstore.adapters.registry import configured

HEAD = '''"""What persist.py makes of the rows of contracts.py, with types. Made by tests/adapters/stub.py; a test compares."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from eventstore.adapters import payloads as payloads
from eventstore.adapters.entities import IPersistBase as IPersistBase
from eventstore.adapters.entities import PersistBase as PersistBase
from eventstore.adapters.json_files import set_logger as set_logger
from eventstore.adapters.registry import Config as Config
from eventstore.adapters.registry import ConfiguredAdapter
from eventstore.adapters.registry import close as close
from eventstore.adapters.registry import get_config as get_config
from eventstore.adapters.registry import install as install
from eventstore.adapters.registry import set_config as set_config
from eventstore.adapters.registry import setup as setup
from eventstore.adapters.shapes import Shape
from eventstore.adapters.shelf import Backend as Backend
from eventstore.adapters.shelf import Shelf as Shelf
'''

TYPES = {
    "backtest": "bool",
    "initial": "bool",
    "when": "datetime | int",
    "limit": "int",
    "since_timestamp": "int",
    "until_timestamp": "int",
}


def payload_type(contract: Contract) -> str:
    """The name of a contract's payload, as the stub imports it."""
    payload = contract.payload
    name = payload.__name__ if inspect.isclass(payload) and not getattr(payload, "__args__", None) else str(payload)
    return name.replace("eventstore.adapters.payloads.", "payloads.") if "." in name else f"payloads.{name}"


def written_type(contract: Contract) -> str:
    """What may be given to a write."""
    payload = payload_type(contract)
    if contract.shape in ("rows", "series"):
        return f"Iterable[{payload} | Mapping[str, Any]]"
    plain = "Sequence[Any]" if contract.empty is list else "Mapping[str, Any]"
    return f"{payload} | {plain} | None"


def read_type(contract: Contract) -> str:
    """What a read gives."""
    if contract.shape == "rows":
        return "list[dict[str, Any]]"
    if contract.shape == "series":
        return "list[dict[str, Any]] | None"
    return {"list": "list[Any]", "dict": "dict[str, Any]"}.get(contract.empty.__name__, "dict[str, Any] | None")


def parameters(contract: Contract, names: Iterable[str]) -> str:
    """Parameters with their types."""
    types = TYPES | dict.fromkeys(PAYLOADS, written_type(contract))
    return "".join(f", {name}: {types.get(name, 'str')}" for name in names)


def signature(contract: Contract, method: Method, names: Iterable[str]) -> str:
    """One method."""
    answers = {"read": read_type(contract), "has": "bool", "write": "None", "remove": "None"}
    if method.verb == "list":
        item = "str" if contract.listed == "ids" else "dict[str, Any]"
        return f"    def {method.name}(self{parameters(contract, names)}) -> AsyncIterator[{item}]: ..."
    return f"    async def {method.name}(self{parameters(contract, names)}) -> {answers[method.verb]}: ..."


def classes(contract: Contract) -> Iterator[str]:
    """The names of one contract."""
    name, own = contract.name, [signature(contract, method, method.parameters) for method in contract.methods]
    doc = inspect.getdoc(instance_class(contract, configured))
    yield f"class Persist{name}Instance(Shape):"
    yield f'    """{doc}"""'
    yield f"    def __init__(self{parameters(contract, contract.context)}, *, backend: Backend | None = None) -> None: ..."
    yield from own
    if contract.disposable:
        yield "    def dispose(self) -> None: ..."
    yield f"\nclass IPersist{name}Instance(Protocol):"
    yield "    async def wait_for_init(self, initial: bool) -> Any: ..."
    yield from own
    yield f"\nclass Persist{name}Utils(ConfiguredAdapter):"
    made = ", ".join(TYPES.get(part, "str") for part in contract.context)
    yield f"    def use_persist_{name.lower()}_adapter(self, make: Callable[[{made}], IPersist{name}Instance]) -> None: ..."
    for method in contract.methods:
        yield signature(contract, method, contract.adapter_parameters(method.parameters))
    if contract.disposable:
        yield f"    async def wait_for_init(self{parameters(contract, contract.adapter_parameters(('initial',)))}) -> None: ..."
        yield f"    def dispose(self{parameters(contract, contract.context)}) -> None: ..."
    yield f"\nPersist{name}Adapter: Persist{name}Utils"


def text() -> str:
    """The whole stub."""
    return "\n".join([HEAD, *("\n".join(classes(contract)) + "\n" for contract in CONTRACTS.values())]).rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
