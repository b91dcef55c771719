"""A server as a person starts it, in a process of its own, and a client that knows only HTTP."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pytest

from tests.tools.command import Answer, eventstore

ROOT = Path(__file__).parents[2]
WAIT_S = 60
"""How long a test waits for what is to come at once: a busy machine may take its time."""


class Reply(NamedTuple):
    """Status, headers by their names in lower case, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=WAIT_S)
        self._path = path

    def connect(self) -> None:
        """See HTTPConnection."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(self._path)


class Client:
    """One connection, on which requests are answered in order."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self._url = url
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.connection = self._connected()

    def _connected(self) -> http.client.HTTPConnection:
        if self._url.startswith("unix:"):
            return UnixConnection(self._url.removeprefix("unix:"))
        return http.client.HTTPConnection(self._url.removeprefix("http://"), timeout=WAIT_S)

    def send(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Reply:
        """Any request."""
        kind = {} if body is None else {"Content-Type": "application/json"}
        self.connection.request(method, path, body, {**kind, **self._headers, **(headers or {})})
        reply = self.connection.getresponse()
        return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())

    def get(self, path: str) -> Reply:
        """GET."""
        return self.send("GET", path)

    def post(self, request: Any) -> Reply:
        """POST /rpc: bytes as they are, or what JSON makes of anything else."""
        return self.send("POST", "/rpc", request if isinstance(request, bytes) else json.dumps(request).encode())

    def call(self, contract: str, method: str, *args: Any, context: dict[str, Any], ns: str = "", rid: str = "r") -> Any:
        """The result of a call that is done."""
        reply = self.post({"ns": ns, "rid": rid, "contract": contract, "context": context, "method": method, "args": args})
        assert reply.status == 200, reply
        found = reply.json()
        assert found["ok"], found
        return found["result"]

    def close(self) -> None:
        """Hang up."""
        self.connection.close()


class Server:
    """`eventstore serve FOLDER --json OPTIONS`; ends when the block ends, and must then have ended well."""

    def __init__(
        self,
        folder: Path,
        *options: object,
        token: str | None = None,
        descriptors: int | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.folder, self.token = folder, token
        port = () if {"--port", "--unix"} & set(options) else ("--port", 0)
        self.command = [sys.executable, "-m", "eventstore", "serve", str(folder), "--json", *map(str, (*port, *options))]
        if descriptors is not None:
            self.command = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *self.command]
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        if token is not None:
            self.environment["EVENTSTORE_TOKEN"] = token
        self._said = folder.parent / f"{folder.name}.stderr"
        self._clients: list[Client] = []
        self.process: subprocess.Popen[str] | None = None
        self.listening: list[str] = []

    def sooner(self, **limits: float) -> Self:
        """Have it wait less long, by the names in listening.py: what ends when a limit is reached does so at any."""
        limited = "".join(f"listening.{name} = {seconds}; " for name, seconds in limits.items())
        self.command = [sys.executable, "-c", f"from eventstore.tools import cli, listening; {limited}cli.cli()", *self.command[3:]]
        return self

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.listening[0]

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.url.rpartition(":")[2])

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    @property
    def stderr(self) -> str:
        """What it complained of so far."""
        return self._said.read_text()

    def start(self) -> Self:
        """Start it; returns when it listens."""
        with self._said.open("a") as said:
            self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=said, text=True, env=self.environment)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.stderr
        self.listening = json.loads(line)["listening"]
        return self

    def client(self, *, token: str | None = None) -> Client:
        """A new connection, with the server's own token unless another is named."""
        client = Client(self.url, token or self.token)
        self._clients.append(client)
        return client

    def kill(self) -> None:
        """End it as a power cut ends a process."""
        assert self.process is not None
        self.process.kill()
        self.ended()

    def stop(self, number: int = signal.SIGTERM) -> Any:
        """Tell it to end; what it said at last."""
        assert self.process is not None
        self.process.send_signal(number)
        last, code = self.ended()
        assert code == 0, self.stderr
        return json.loads(last)

    def ended(self) -> tuple[str, int]:
        """Wait for its end: what it said at last, and its exit code."""
        process, self.process = self.process, None
        assert process is not None
        with process:
            last, _ = process.communicate(timeout=WAIT_S)
        while self._clients:
            self._clients.pop().close()
        return last, process.returncode

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process is None:
            return
        if kind is None:
            self.stop()
        else:
            self.kill()


def refused(folder: Path, *options: object, token: str | None = None) -> Answer:
    """A server that is expected not to start; in this process, as nothing of it stays."""
    with pytest.MonkeyPatch.context() as environment:
        if token is not None:
            environment.setenv("EVENTSTORE_TOKEN", token)
        return eventstore(*Server(folder, *options).command[3:])
