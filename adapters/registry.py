"""Which backend serves whom: the configuration, the backends that it names, and adapters that can be told otherwise."""

from __future__ import annotations

import functools
import os
import re
import weakref
from pathlib import Path
from typing import Any

import msgspec

from eventstore.adapters.contracts import Contract
from eventstore.adapters.event_shelf import EventBackend
from eventstore.adapters.instances import Adapter, MakeInstance, adapter_class
from eventstore.adapters.json_files import ROOT, JsonBackend
from eventstore.adapters.shelf import Backend, DummyBackend
from eventstore.errors import ConfigError
from eventstore.model import DURABILITIES, Durability
from eventstore.opening import open_store
from eventstore.store import Store

MEMORY, DUMMY, JSON = "memory:", "dummy:", "json:"
"""How a location is spelled that is no folder of an event store: in memory, nowhere, or a tree of JSON files."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

_DEFAULTS = {"live": "data", "backtest": MEMORY}


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Where records are kept: a folder for the event store, "memory:", "json:FOLDER" for JSON files, or "dummy:" for nowhere.

    `backtest` is for contexts that say they are of a backtest, `live` for all others. `durability` and `actor` are those of
    eventstore.open().
    """

    live: str
    backtest: str
    durability: Durability | None = None
    actor: str | None = None


_given: dict[str, str] = {}
_backends: dict[tuple[str, ...], Backend] = {}
_opening: weakref.WeakSet[EventBackend] = weakref.WeakSet()
"""Those that open a store of their own, also where only one adapter has it."""


def set_config(
    *, live: str | None = None, backtest: str | None = None, durability: Durability | None = None, actor: str | None = None
) -> None:
    """Say where records are kept, for instances that are made from now on; what is None or empty counts as not said.

    Then the environment counts, EVENTSTORE_LIVE and EVENTSTORE_BACKTEST, then the defaults: live in the folder `data`, durable, and
    backtests in memory. Raises ConfigError.
    """
    if durability and durability not in DURABILITIES:
        raise ConfigError(f"durability {durability!r} is none of {', '.join(DURABILITIES)}")
    said = {"live": live, "backtest": backtest, "durability": durability, "actor": actor}
    for name, value in said.items():
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{name} is a string, not {value!r}")
    for place in filter(None, (live, backtest)):
        _require_place(place)
    _given.clear()
    _given.update({name: value for name, value in said.items() if value})


def get_config() -> Config:
    """What counts now: what was set, else the environment, else the defaults."""
    places = {name: _given.get(name) or os.environ.get(f"EVENTSTORE_{name.upper()}") or default for name, default in _DEFAULTS.items()}
    return msgspec.convert({**_given, **places}, Config)


def configured(contract: Contract, context: tuple[Any, ...]) -> Backend:
    """The backend that the configuration has for a context."""
    config = get_config()
    of_backtest = "backtest" in contract.context and context[contract.context.index("backtest")]
    return backend_at(config.backtest if of_backtest else config.live, durability=config.durability, actor=config.actor)


def backend_at(location: str, *, durability: Durability | None = None, actor: str | None = None) -> Backend:
    """The backend at a location (see Config), one in a process for each. A store is opened when it is first needed.

    Raises ConfigError for a name that is no place: an empty one, or one that begins like a URL.
    """
    _require_place(location)
    if location == DUMMY:
        return DummyBackend()
    place = location if location == MEMORY else str(Path(location.removeprefix(JSON)).absolute())
    named = (JSON, place) if location.startswith(JSON) else (place, durability or "", actor or "")
    if named not in _backends:
        _backends[named] = JsonBackend(place) if location.startswith(JSON) else _event_backend(place, durability, actor)
    return _backends[named]


def _require_place(location: str) -> None:
    path = location.removeprefix(JSON)
    if location not in (MEMORY, DUMMY) and (not path or _SCHEME.match(path)):
        raise ConfigError(
            f"{location!r} is no place for records: a folder, {MEMORY}, {JSON}FOLDER or {DUMMY} is; write ./ before a folder's name"
        )


def _event_backend(location: str, durability: Durability | None = None, actor: str | None = None) -> EventBackend:
    # A store in memory has one durability, whatever was asked of the one on disk.
    level = None if location == MEMORY else durability
    backend = EventBackend(functools.partial(open_store, location, durability=level, actor=actor))
    _opening.add(backend)
    return backend


async def close() -> None:
    """Close the stores that were opened here, once the writes under way are done; the next call opens them again.

    What was kept in memory is gone, whoever asked for it; a store that was given open stays so.
    """
    for adapter in _adapters:
        adapter.clear()
    # They stay: adapters and instances that were given one go on with it, and it is still the only one of its place.
    for backend in list(_opening):
        await backend.close()


class ConfiguredAdapter(Adapter):
    """An adapter whose instances are where the configuration says, until one of these verbs says otherwise."""

    def __init__(self, contract: Contract, instances: MakeInstance) -> None:
        super().__init__(contract, instances)
        self._instances = instances

    def use_event_store(self, store: Store | str | os.PathLike[str] | None = None) -> None:
        """Keep records in an open store, or one in a folder; None: where the configuration says."""
        if store is None:
            self._use(None)
        elif isinstance(store, Store):
            self._use(EventBackend(lambda: store))
        else:
            self._use(backend_at(os.fspath(store)))

    def use_json(self, base_dir: str | os.PathLike[str] = ROOT) -> None:
        """Keep records in the framework's own JSON files below a folder."""
        self._use(backend_at(JSON + os.fspath(base_dir)))

    def use_memory(self) -> None:
        """Keep records in the memory of this process, until close(); none is there yet."""
        self._use(_event_backend(MEMORY))

    def use_dummy(self) -> None:
        """Keep nothing: reads find nothing."""
        self._use(DummyBackend())

    def _use(self, backend: Backend | None) -> None:
        self.use(self._instances if backend is None else functools.partial(self._instances, backend=backend))


_adapters: list[ConfiguredAdapter] = []


def adapter(contract: Contract, instances: MakeInstance) -> ConfiguredAdapter:
    """The one adapter of a contract."""
    made = adapter_class(contract, ConfiguredAdapter)(contract, instances)
    _adapters.append(made)
    return made


def install() -> None:
    """Have every adapter keep its records where the configuration says."""
    for each in _adapters:
        each.use_event_store()


def setup(*, live: str | None = None, backtest: str | None = None, durability: Durability | None = None, actor: str | None = None) -> None:
    """Set the configuration, if any of it is given, and install(): `setup(live="data", backtest="memory:")` is all there is to say."""
    if live or backtest or durability or actor:
        set_config(live=live, backtest=backtest, durability=durability, actor=actor)
    install()
