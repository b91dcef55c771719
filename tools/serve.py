"""Serve a store to clients in other languages.

Over HTTP on 127.0.0.1, on a unix socket that nobody else may open, or both. POST /rpc carries every persistence contract;
GET /history, /state, /log and /verify are for people and tools, /health and /metrics for machines. Namespaces
are stores of their own in STORE/ns, made when they are first asked for. One server at a time has a store.

A line on stdout says when it listens, and where. SIGTERM or Ctrl-C ends it: what is under way is answered, and all is
closed. The token of a server that asks for one is in a file that only its owner can read, or in EVENTSTORE_TOKEN. There is
no TLS here: beyond this machine, put a proxy before it, or say --insecure where the network is your own.

Example:
  eventstore serve data
  eventstore serve data --unix data.sock
  eventstore serve data --port 0 --token-file token --json
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from eventstore.errors import ConfigError
from eventstore.model import Durability
from eventstore.opening import open_store
from eventstore.store import Store
from eventstore.tools.terminal import Paint, count_text

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from eventstore.adapters.namespaces import Namespaces
    from eventstore.tools.server import Service

PORT = 7410
OWNER = "server"
"""The name under which a store is served: a second server is refused."""

CACHE_BYTES = 16 * 2**20
"""Of values that are kept at hand, for each namespace: there may be hundreds open."""

_MOST_DESCRIPTORS = 4_096
"""More than that are not used, whatever the limit: with each open store come threads, and memory."""
_SPARE = 64
"""Descriptors that belong to neither stores nor connections."""


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where to listen, and who may call; `port` None: none beside a socket, else PORT."""

    host: str = "127.0.0.1"
    port: int | None = None
    unix: Path | None = None
    token_file: Path | None = None
    allow_hosts: Sequence[str] = ()
    insecure: bool = False
    durability: Durability | None = None
    actor: str | None = None


class Listening(msgspec.Struct, frozen=True):
    """Where a server listens: URLs, and unix:PATH."""

    listening: list[str]
    pid: int


class ServeReport(msgspec.Struct, frozen=True):
    """What was done by the time it was told to stop."""

    store: str
    requests: int

    exit_code = 0


def serve(location: str, options: ServeOptions, ready: Callable[[Listening], None]) -> ServeReport:
    """Serve the store in a folder, made if it is missing, until a SIGTERM or SIGINT; `ready` is called once it listens.

    Raises ConfigError for options that would not be safe, OwnedError if another server has the store, UnavailableError for an address
    in use, and what opening a store raises.
    """
    if sys.platform == "win32":
        raise ConfigError(f"{location}: logs need POSIX locks, and so does a server of them; on Windows run it in WSL")
    try:
        from eventstore.tools import admission, listening, server
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise ConfigError(f"a server needs {error.name}: pip install 'eventstore-kit[server]'") from error
    token = admission.read_token(options.token_file)
    _require_safe(options, token, beyond=not listening.is_loopback(options.host))
    service = server.Service(_namespaces(location, options))
    app = admission.Admission(service.application(), token=token, hosts=[options.host, *options.allow_hosts])
    asyncio.run(_run(service, app, options, ready))
    return ServeReport(location, sum(service.answered.values()))


def _namespaces(location: str, options: ServeOptions) -> Namespaces:
    from eventstore.adapters.namespaces import Namespaces

    def opened(folder: Path, own: bool) -> Store:
        owner, cache_bytes = (OWNER, None) if own else (None, CACHE_BYTES)
        return open_store(folder, owner=owner, durability=options.durability, actor=options.actor, cache_bytes=cache_bytes)

    limit = _descriptors()
    return Namespaces(Path(os.path.realpath(location)), opened, descriptors=limit - _connections(limit) - _SPARE)


def _descriptors() -> int:
    from eventstore.adapters.namespaces import descriptor_limit

    return min(descriptor_limit(), _MOST_DESCRIPTORS)


def _connections(descriptors: int) -> int:
    """How many of them are for connections."""
    return descriptors // 4


async def _run(service: Service, app: ASGIApp, options: ServeOptions, ready: Callable[[Listening], None]) -> None:
    from eventstore.tools.listening import HttpServer, listening_on

    port = options.port if options.port is not None or options.unix is not None else PORT
    await service.namespaces.start()
    try:
        with listening_on(options.host, port, options.unix) as sockets:
            where = Listening(list(sockets), os.getpid())
            http = HttpServer(app, connections=_connections(_descriptors()), ready=lambda: ready(where))
            await http.serve(list(sockets.values()))
    finally:
        await service.namespaces.close()


def _require_safe(options: ServeOptions, token: str | None, *, beyond: bool) -> None:
    """Refuse to send everything in the clear to everybody. `beyond`: others than this machine reach the host. Raises ConfigError."""
    if not beyond:
        return
    if token is None:
        raise ConfigError(f"--host {options.host} is reached from other machines: name a token, by --token-file or EVENTSTORE_TOKEN")
    if not options.insecure:
        raise ConfigError(
            f"--host {options.host}: what is sent there, the token too, can be read on the way: listen on 127.0.0.1 behind a proxy"
            " that speaks TLS, or say --insecure if the network is your own"
        )


def render(report: ServeReport, paint: Paint) -> Iterator[str]:
    """A sentence."""
    yield f"stopped after {count_text(report.requests, 'request')}"
