"""open(): from a path or a URL to a Store. The only floor of the library that may import adapters, when asked for one."""

from __future__ import annotations

import inspect
import logging
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from eventstore.coding import Cipher
from eventstore.compaction import SealPolicy
from eventstore.errors import ConfigError
from eventstore.failstop import OnHalt
from eventstore.lease import require_owner_name
from eventstore.log import Engine
from eventstore.meta import meta_text
from eventstore.metrics import OnCommit
from eventstore.model import DURABILITIES, MIN_FREE_BYTES, Durability
from eventstore.store import CACHE_BYTES, Store
from eventstore.values import MAX_VALUE_BYTES

_ROW_BYTES = 999_000_000
"""SQLite holds 10^9 bytes in a row (https://www.sqlite.org/limits.html): so many for the value, the rest for what stands beside it."""

_log = logging.getLogger("eventstore")

_SCHEME = re.compile(r"([a-z][a-z0-9+]*):(.*)", re.DOTALL)


def open_store(
    location: str | os.PathLike[str],
    *,
    create: bool = True,
    read_only: bool = False,
    accept_loss: bool = False,
    durability: Durability | None = None,
    actor: str | None = None,
    cache_bytes: int | None = None,
    max_value_bytes: int | None = None,
    busy_timeout_ms: int | None = None,
    min_free_bytes: int | None = None,
    store_id: str | None = None,
    owner: str | None = None,
    archives: Sequence[str | os.PathLike[str]] = (),
    seal_bytes: int | None = None,
    seal_age_s: int | None = None,
    on_halt: OnHalt | None = None,
    on_commit: OnCommit | None = None,
    keys: str | os.PathLike[str] | None = None,
) -> Store:
    """Open the store in a folder, or a new one in memory (`memory:`).

    create: make the store if the folder is missing or empty. read_only: refuse writes; damaged stores and read-only
    media open too. accept_loss: record a lost tail, or lost event ids, by an event instead of refusing what needs them. durability: what an
    acknowledgement promises unless a call says otherwise: "process" survives a killed process, "power" (the default)
    the machine, "power+" also the loss of its record of the head; "memory" for memory:. actor: who writes, in every
    event's meta. cache_bytes: values kept at hand. max_value_bytes: the largest value. busy_timeout_ms:
    how long to wait for another writer. min_free_bytes: free space below which nothing is appended. store_id: 32
    hexadecimal digits for a new store, to restore one. owner: a name that one live process at a time may open the store
    under, so that a forgotten second bot is refused. on_halt: called once with a HaltedError when the store stops writing
    because it cannot record; see Store.resume(). on_commit: called with a Commit after each transaction; see Store.metrics().
    keys: the file of the keys of subjects, outside the store and its backups; made with the first key; see Domain.subject, Store.shred().
    archives: folders in which sealed files of this store were put, to read what came before. seal_bytes, seal_age_s: seal a domain,
    as Store.seal() does, once so many bytes were appended since the last seal, or the first of them so many seconds ago; 0 is never.

    Where durability, actor, keys, cache_bytes (256 MiB), max_value_bytes (16 MiB), busy_timeout_ms (10,000), min_free_bytes (64 MiB),
    seal_bytes (0) or seal_age_s (0) is None, the environment's EVENTSTORE_DURABILITY and so on counts, then the default; if archives is
    empty, EVENTSTORE_ARCHIVES, separated as in PATH. Raises NotAStoreError, NewerFormatError, OwnedError, ConfigError, AccessError.
    """
    location = _path(location, "the location of a store is a folder's path or memory:")
    _require_names(store_id, owner)
    _require_functions(on_halt=on_halt, on_commit=on_commit)
    who, keyring = _actor(actor), _key_file(keys)
    # All options before the engine: it takes the owner's lease, and nobody would release it.
    cache_bytes, largest = _count("cache_bytes", cache_bytes, CACHE_BYTES), _largest(max_value_bytes)
    policy = SealPolicy(_count("seal_bytes", seal_bytes, 0), _count("seal_age_s", seal_age_s, 0))
    engine = _engine(
        location,
        create=create,
        read_only=read_only,
        durability=_durability(durability or os.environ.get("EVENTSTORE_DURABILITY")),
        busy_timeout_ms=_count("busy_timeout_ms", busy_timeout_ms, 10_000),
        min_free_bytes=_count("min_free_bytes", min_free_bytes, MIN_FREE_BYTES),
        store_id=store_id,
        owner=owner,
        archives=_folders(archives, location),
    )
    return Store(
        engine,
        location,
        actor=who,
        accept_loss=accept_loss,
        cache_bytes=cache_bytes,
        max_value_bytes=largest,
        on_halt=on_halt,
        on_commit=on_commit,
        cipher=_keyring(engine, keyring),
        seal_policy=policy,
    )


def _largest(max_value_bytes: int | None) -> int:
    largest = _count("max_value_bytes", max_value_bytes, MAX_VALUE_BYTES)
    if largest > _ROW_BYTES:
        raise ConfigError(f"max_value_bytes is at most {_ROW_BYTES:,}, not {largest:,}: a row of the log holds no more")
    return largest


def _require_names(store_id: str | None, owner: str | None) -> None:
    if store_id is not None and not _is_store_id(store_id):
        raise ConfigError(f"store_id is 32 hexadecimal digits, not {store_id!r}")
    if owner is not None:
        require_owner_name(owner)


def _actor(actor: str | None) -> str | None:
    """Who writes, held to what a write may say of itself: said now, not at the first write, and never stored."""
    who = os.environ.get("EVENTSTORE_ACTOR") or None if actor is None or actor == "" else actor
    meta_text({"actor": who}, None)
    return who


def _require_functions(**hooks: object) -> None:
    for hook, given in hooks.items():
        if given is not None and (not callable(given) or inspect.iscoroutinefunction(given)):
            raise ConfigError(f"{hook} is a function that is called in a thread that wrote, and no coroutine's, not {given!r}")


def _key_file(keys: str | os.PathLike[str] | None) -> str | None:
    given = os.environ.get("EVENTSTORE_KEYS") or None if keys is None else keys
    return None if given is None else _path(given, "keys is the path of a file")


def _keyring(engine: Engine, keys: str | None) -> Cipher | None:
    """The key file of a store; where it cannot be used, whatever the engine has taken is given back."""
    if keys is None:
        return None
    try:
        return import_module("eventstore.adapters.keyring").Keyring(Path(os.path.realpath(keys)), engine.store_id)  # type: ignore[no-any-return]
    except BaseException:
        engine.close()
        raise


def _path(given: object, what: str) -> str:
    path = os.fspath(given) if isinstance(given, str | os.PathLike) else given
    if not isinstance(path, str) or not path or "\0" in path:
        raise ConfigError(f"{what}, not {given!r}")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise ConfigError(f"{what}, and {path!r} can be no path") from None
    return path


def _is_store_id(given: object) -> bool:
    return isinstance(given, str) and re.fullmatch(r"[0-9a-f]{32}", given) is not None


def _folders(given: object, location: str) -> list[Path]:
    named = os.environ.get("EVENTSTORE_ARCHIVES")
    if not given and named and _SCHEME.fullmatch(location) is None:
        given = [folder for folder in named.split(os.pathsep) if folder]
    if isinstance(given, str | os.PathLike) or not isinstance(given, Sequence):
        raise ConfigError(f"archives is a list of folders, not {given!r}")
    folders = [Path(_path(folder, "archives is a list of folders")) for folder in given]
    for folder in folders:
        if not os.path.isdir(folder):  # no reason to stop a bot: what is in it can wait
            _log.warning("archives names %s, and no folder is there: nothing is read from it until the store is opened anew", folder)
    return folders


def _durability(wanted: str | None) -> Durability | None:
    for durability in DURABILITIES:
        if durability == wanted:
            return durability
    if wanted:
        raise ConfigError(f"durability is one of {', '.join(DURABILITIES)}, not {wanted!r}")
    return None


def _count(option: str, given: int | None, default: int) -> int:
    variable = f"EVENTSTORE_{option.upper()}"
    text = os.environ.get(variable)
    if given is None and text:
        if not text.isdecimal():
            raise ConfigError(f"{variable} is a whole number, not {text!r}")
        given = int(text)
    if given is None:
        return default
    if not _is_count(given):
        raise ConfigError(f"{option} is a whole number below 2^53, not {given!r}")
    return given


def _is_count(given: object) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 2**53


def _engine(location: str, *, create: bool, read_only: bool, durability: Durability | None, **options: Any) -> Engine:
    scheme = _SCHEME.fullmatch(location)
    if scheme is not None and scheme[1] == "memory":
        if scheme[2]:
            raise ConfigError(f"{location}: a store in memory has no name: memory: is each time a new one; a folder is ./{location}")
        if read_only:
            raise ConfigError("memory: is empty when it is opened; read_only would leave it so")
        return import_module("eventstore.adapters.memory").MemoryEngine(durability=durability or "memory", **options)  # type: ignore[no-any-return]
    if scheme is not None and "//" in scheme[2][:2]:
        raise ConfigError(f"{location}: no engine for {scheme[1]}://; known are a folder's path and memory:")
    if sys.platform == "win32":
        raise ConfigError(f"{location}: logs need POSIX locks; on Windows run this in WSL, or talk to a server on another machine")
    return import_module("eventstore.local").LocalEngine(  # type: ignore[no-any-return]
        Path(location), create=create, read_only=read_only, durability=durability or "power", **options
    )
