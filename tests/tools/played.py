"""A server that plays what no real one does on cue: it loses answers, or half of them, says nothing, or that it cannot."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any, ClassVar, Literal

Act = Literal["answer", "lose", "drop", "swallow", "half", "garble"] | int
"""answer; do it and reset the connection; reset it without doing anything; say nothing, and do nothing; do it and answer half, or
something else; or answer with an HTTP status and do nothing."""


class Played(ThreadingTCPServer):
    """Answers null to everything, or what `results` has for a method, and does each rid once; unless it acts otherwise.

    `acts` are for the next requests, one each; `otherwise` is for all that come after them.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.acts: deque[Act] = deque()
        self.otherwise: Act = "answer"
        self.retry_after: int | None = None
        """Seconds, which every answer of a status other than 200 asks for."""
        self.results: dict[str, Any] = {}
        self.refuse: Callable[[dict[str, Any]], dict[str, str] | None] = lambda request: None
        self.arrived: list[dict[str, Any]] = []
        """Every request, as often as it came."""
        self.done: list[dict[str, Any]] = []
        """Those that were carried out, each once."""
        self.headers: list[dict[str, str]] = []
        self.connections: set[object] = set()
        self.lock = threading.Lock()
        self.over = threading.Event()

    def shutdown_request(self, request: Any) -> None:
        """Close it, without a polite end: whoever set it to be reset must be obeyed."""
        self.close_request(request)

    def methods(self) -> list[str]:
        """The methods of what was carried out, without waitForInit."""
        return [request["method"] for request in self.done if request["method"] != "waitForInit"]

    def do(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry a request out, unless it was before."""
        with self.lock:
            error = self.refuse(request)
            if error is not None:
                return {"ok": False, "error": error}
            if all(before["rid"] != request["rid"] for before in self.done):
                self.done.append(request)
            return {"ok": True, "result": self.results.get(request["method"])}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    statuses: ClassVar[dict[int, str]] = {503: "come again", 401: "a token is asked for"}

    @property
    def played(self) -> Played:
        """The server."""
        assert isinstance(self.server, Played)
        return self.server

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.played.lock:
            self.played.arrived.append(request)
            self.played.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.played.connections.add(self.client_address)
            act = self.played.acts.popleft() if self.played.acts else self.played.otherwise
        if isinstance(act, int):
            message = self.statuses.get(act, "no")
            self._send(act, json.dumps({"ok": False, "error": {"name": "RequestError", "message": message}}).encode())
        elif act == "swallow":
            self.close_connection = True
            self.played.over.wait()
        elif act in ("drop", "lose"):
            if act == "lose":
                self.played.do(request)
            self._reset()
        else:
            reply = json.dumps(self.played.do(request)).encode()
            if act == "garble":
                reply = b"<html>a proxy's own page</html>"
            self._send(200, reply, cut=act == "half")

    def _send(self, status: int, body: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        if status != 200 and self.played.retry_after is not None:
            self.send_header("retry-after", str(self.played.retry_after))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self._reset()

    def _reset(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a test says what matters."""


@contextmanager
def played() -> Iterator[Played]:
    """A server on a port of its own."""
    with Played() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()
