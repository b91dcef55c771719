"""The persistence layer of backtest-kit, in Python: a class of instances and an adapter for each contract (contracts.py).

`persist.pyi` beside this file says the same with types, for editors; a test holds it to the rows.
"""

from __future__ import annotations

from typing import Any

from eventstore.adapters import payloads as payloads
from eventstore.adapters.contracts import CONTRACTS
from eventstore.adapters.entities import IPersistBase as IPersistBase
from eventstore.adapters.entities import PersistBase as PersistBase
from eventstore.adapters.instances import instance_class, instance_protocol
from eventstore.adapters.json_files import set_logger as set_logger
from eventstore.adapters.registry import Config as Config
from eventstore.adapters.registry import adapter, configured
from eventstore.adapters.registry import close as close
from eventstore.adapters.registry import get_config as get_config
from eventstore.adapters.registry import install as install
from eventstore.adapters.registry import set_config as set_config
from eventstore.adapters.registry import setup as setup
from eventstore.adapters.shelf import Backend as Backend
from eventstore.adapters.shelf import Shelf as Shelf


def _made() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for contract in CONTRACTS.values():
        instances = instance_class(contract, configured)
        made = adapter(contract, instances)
        for each in (instances, type(made), instance_protocol(contract)):
            each.__module__ = __name__
            names[each.__name__] = each
        names[f"Persist{contract.name}Adapter"] = made
    return names


globals().update(_made())
