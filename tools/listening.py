"""Where a server listens, and what it allows a connection: addresses, sockets in folders, clients that are slow or many."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import secrets
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from eventstore.adapters.rpc import refusal_of
from eventstore.errors import ConfigError, UnavailableError
from eventstore.files import FILE_MODE, os_errors

HEAD_S = 10.0
"""How long the head of a request may take to arrive."""
WRITE_S = 30.0
"""How long a client may leave unread what was sent to it."""
IDLE_S = 75
"""How long a connection may wait for its next request."""
STOP_S = 30
"""How long requests under way may go on once the server was told to stop."""
MAX_HEAD_BYTES = 16_384
_WAITING = 128
"""Connections that the system keeps until they are taken."""
_AT_ONCE = 16
"""How many are taken before those that are too many are closed: each has a descriptor until then, which a store may need."""


# ---- sockets


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen_tcp(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise ConfigError(f"--host {host}: {error.strerror}") from error
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_WAITING)
    except OSError as error:
        listening.close()
        raise UnavailableError(f"{host}:{port} cannot be listened on: {error.strerror}; name another --port, or 0 for any") from error
    return listening


def _url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def listening_on(host: str, port: int | None, unix: Path | None) -> Iterator[dict[str, socket.socket]]:
    """Sockets that listen at an address, at a path, or at both, by how a client names each. Raises UnavailableError, ConfigError."""
    with contextlib.ExitStack() as held:
        found: dict[str, socket.socket] = {}
        if unix is not None:
            found[f"unix:{unix.absolute()}"] = held.enter_context(_listening_unix(unix))
        if port is not None:
            listening = held.enter_context(_listen_tcp(host, port))
            found[_url_of(listening)] = listening
        yield found


@contextlib.contextmanager
def _listening_unix(path: Path) -> Iterator[socket.socket]:
    """A socket at a path, of mode 0600 from its first moment on; gone when the block ends. One that a dead server left is replaced.

    Raises UnavailableError where somebody listens, ConfigError where something else is, or nobody could connect.
    """
    _require_reachable(path)
    _require_free(path)
    beside = path.with_name(f".{secrets.token_hex(3)}")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with os_errors(f"listening on {path}"), _mask(0o777 - FILE_MODE):
            listening.bind(str(beside))
        listening.listen(_WAITING)
        beside.rename(path)  # at once, so that nobody finds it missing, and nobody connects to a name that goes away
        own = path.stat().st_ino
    except BaseException:
        listening.close()
        beside.unlink(missing_ok=True)
        raise
    try:
        yield listening
    finally:
        listening.close()
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == own:
                path.unlink()


@contextlib.contextmanager
def _mask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _require_reachable(path: Path) -> None:
    """A name can be longer than what a client can ask for: it is bound by a short one, and renamed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect_ex(str(path))
        except OSError as error:  # connect_ex() raises nothing else
            size = len(os.fsencode(path))
            raise ConfigError(
                f"--unix {path}: {size} bytes are too long for a socket's path, by which clients connect; name a shorter one"
            ) from error


def _require_free(path: Path) -> None:
    with os_errors(f"looking at {path}"):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"--unix {path}: there is something that is no socket; name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        found = asking.connect_ex(str(path))
    if found != errno.ECONNREFUSED:
        raise UnavailableError(f"--unix {path}: somebody listens there; stop that server first, or name another path")


# ---- connections


class _Deadline:
    """When a connection is cut off, unless what it is waited for comes first."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, transport: asyncio.Transport) -> None:
        """Count from now on; if it counts already, it goes on."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, transport.abort)

    def end(self) -> None:
        """It came."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Connection(H11Protocol):
    """A connection, which is closed when it keeps the server waiting, or is one too many."""

    most = 256
    """How many there may be at a time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head, self._reading = _Deadline(HEAD_S), _Deadline(WRITE_S)
        self._said_all = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.write(_TOO_MANY)
            transport.close()
        else:
            self._head.begin(transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        cycle: Any = self.cycle  # None before the first request
        if cycle is not None and not cycle.response_complete:
            self._head.end()
        else:  # some of a head, or what is left of a body that was answered without: neither for long
            self._head.begin(self.transport)

    def eof_received(self) -> bool:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """See asyncio.Protocol. Who says that he sends no more is answered still: what he asked for may be done by now."""
        self._said_all = True
        return self._owes()

    def on_response_complete(self) -> None:
        """See H11Protocol: after it the next request that was sent ahead is under way, if there is one."""
        super().on_response_complete()
        if self._said_all and not self._owes():
            self.transport.close()

    def _owes(self) -> bool:
        """Whether a whole request waits for its answer."""
        cycle: Any = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()
        self._reading.begin(self.transport)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        self._reading.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._head.end()
        self._reading.end()
        super().connection_lost(exc)


def _reply(status: str, body: bytes) -> bytes:
    headers = ["content-type: application/json", f"content-length: {len(body)}", "retry-after: 1", "connection: close"]
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode() + body


_TOO_MANY = _reply("503 Service Unavailable", refusal_of("Refused", "too many connections; try again"))


# ---- the server


class HttpServer(uvicorn.Server):
    """Serves an application until a SIGTERM or a SIGINT, answers what is under way, and returns."""

    def __init__(self, app: Any, *, connections: int, ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=type("Connection", (Connection,), {"most": connections}),
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                log_level="error",  # what strangers send wrong is theirs to read, in their answer
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=IDLE_S,
                timeout_graceful_shutdown=STOP_S,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                backlog=_AT_ONCE,  # which asyncio takes for both
            )
        )
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn's own dies of the signal in the end; a server that was told to stop and did has done well."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        yield  # the handlers stay: a second signal must not cut off the closing of the stores

    def stop(self) -> None:
        """Take no more requests, and return from serve() once those under way are answered."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn.Server: called once, when everything listens."""
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(_WAITING)
        self._ready()
