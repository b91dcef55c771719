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
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from eventstore.adapters.namespaces import Namespaces, descriptor_limit
from eventstore.errors import ConfigError
from eventstore.model import Durability
from eventstore.opening import open_store
from eventstore.store import Store
from eventstore.tools.terminal import Paint, count_text

if TYPE_CHECKING:
    import socket

    from starlette.types import ASGIApp

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
    try:
        from eventstore.tools import admission, listening, server
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise ConfigError(f"a server needs {error.name}: pip install 'eventstore-kit[server]'") from error
    token = admission.read_token(options.token_file)
    _require_safe(options, token, is_loopback=listening.is_loopback)
    limit = min(descriptor_limit(), _MOST_DESCRIPTORS)
    connections = limit // 4

    def opened(folder: Path, own: bool) -> Store:
        return open_store(
            folder,
            owner=OWNER if own else None,
            durability=options.durability,
            actor=options.actor,
            cache_bytes=None if own else CACHE_BYTES,
        )

    namespaces = Namespaces(Path(os.path.realpath(location)), opened, descriptors=limit - connections - _SPARE)
    service = server.Service(namespaces)
    app = admission.Admission(service.application(), token=token, hosts=[options.host, *options.allow_hosts])
    asyncio.run(_run(namespaces, app, options, connections, ready))
    return ServeReport(location, sum(service.answered.values()))


async def _run(namespaces: Namespaces, app: ASGIApp, options: ServeOptions, connections: int, ready: Callable[[Listening], None]) -> None:
    from eventstore.tools.listening import HttpServer

    with contextlib.ExitStack() as held:
        await namespaces.start()
        try:
            sockets = dict(_sockets(options, held))
            where = Listening(list(sockets), os.getpid())
            await HttpServer(app, connections=connections, ready=lambda: ready(where)).serve(list(sockets.values()))
        finally:
            await namespaces.close()


def _sockets(options: ServeOptions, held: contextlib.ExitStack) -> Iterator[tuple[str, socket.socket]]:
    from eventstore.tools.listening import listen_tcp, listening_unix, url_of

    if options.unix is not None:
        yield f"unix:{options.unix}", held.enter_context(listening_unix(options.unix))
    if options.port is not None or options.unix is None:
        listening = held.enter_context(listen_tcp(options.host, PORT if options.port is None else options.port))
        yield url_of(listening), listening


def _require_safe(options: ServeOptions, token: str | None, *, is_loopback: Callable[[str], bool]) -> None:
    """Refuse to send everything in the clear to everybody. Raises ConfigError."""
    if is_loopback(options.host):
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
