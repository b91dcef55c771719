"""The recorded session over HTTP: a server in a process of its own, on one connection and on sixty-four.

`python -m tests.bench.served ARGUMENTS` is `eventstore serve ARGUMENTS` with every store in memory: what is asked of HTTP,
without what is asked of the disk.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgspec

from tests.bench.contracts import session
from tests.bench.measure import Contender, Measure

_HEAD = "POST /rpc HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"


class Connection:
    """A connection that is kept: one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, request: bytes) -> bytes:
        """The body of the answer. Raises AssertionError for one that is no success."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        body = await self._reader.readexactly(int(fields[b"content-length"]))
        if not body.startswith(b'{"ok":true'):
            raise AssertionError(f"{head.decode()}{body[:300].decode()}")
        return body

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


class Served(Contender):
    """One connection: a call, its answer, the next call."""

    name = "eventstore serve"
    requires = "uvicorn"
    program: ClassVar[tuple[str, ...]] = ("eventstore", "serve")
    connections: ClassVar[int] = 1

    def setup(self) -> None:
        self.session = session("live", self.sizes.recorded)
        bodies = map(msgspec.json.encode, self.session.requests)
        self.todo = [_HEAD.format(len(body)).encode() + body for body in bodies]
        self.loop = asyncio.new_event_loop()
        self.waits: list[float] = []
        self.server: subprocess.Popen[str] | None = None

    def prepare(self) -> None:
        (self.folder / "kept").mkdir()
        module, *verb = self.program
        command = [sys.executable, "-m", module, *verb, str(self.folder / "kept"), "--port", "0", "--json"]
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.server.stdout is not None
        where = urlsplit(msgspec.json.decode(self.server.stdout.readline())["listening"][0])
        self.at: tuple[str, int] = (where.hostname or "", where.port or 0)
        self.open = self.loop.run_until_complete(self._connected())

    async def _connected(self) -> list[Connection]:
        return [Connection(*await asyncio.open_connection(*self.at, limit=2**24)) for _ in range(self.connections)]

    def sample(self) -> Measure:
        """By the wall clock alone: the server's processor time is another process's."""
        measured = super().sample()
        return msgspec.structs.replace(measured, cpu=0.0)

    def run(self) -> float:
        self.loop.run_until_complete(self._all())
        return len(self.todo)

    async def _all(self) -> None:
        await asyncio.gather(*(self._ask(each, self.todo[number :: self.connections]) for number, each in enumerate(self.open)))

    async def _ask(self, connection: Connection, requests: list[bytes]) -> None:
        for request in requests:
            before = time.perf_counter()
            await connection.ask(request)
            self.waits.append(time.perf_counter() - before)

    def after(self) -> None:
        for each in self.open:
            each.close()
        self._stop()
        shutil.rmtree(self.folder / "kept", ignore_errors=True)
        self.waits.sort()
        half, most = (self.waits[len(self.waits) * part // 100] * 1_000 for part in (50, 99))
        self.note = f"{self.name}: half of the calls were answered within {half:.2g} ms, 99 of 100 within {most:.2g} ms"

    def _stop(self) -> None:
        """End the server, if there is one."""
        if self.server is not None:
            self.server.terminate()
            self.server.communicate()
            self.server = None

    def teardown(self) -> None:
        self._stop()
        self.loop.close()


class ServedFromMemory(Served):
    """The same of stores in memory."""

    name = "the same server over `memory:`"
    program = ("tests.bench.served",)


class Served64(Served):
    """Sixty-four connections: each asks its own part of the session, the next call when the last was answered."""

    connections = 64


class Served64FromMemory(Served64):
    """The same of stores in memory."""

    name = "the same server over `memory:`"
    program = ("tests.bench.served",)


def main() -> None:
    """Serve from memory."""
    from eventstore.opening import open_store
    from eventstore.tools import cli, serve

    def in_memory(*_: Any, **__: Any) -> Any:
        return open_store("memory:")

    opening = "open_store"
    setattr(serve, opening, in_memory)
    sys.argv[1:1] = ["serve"]
    cli.main()


if __name__ == "__main__":
    main()
