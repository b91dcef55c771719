"""A real server: `eventstore serve` in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Served:
    """A store that is served: started, killed, and started again at the same place."""

    def __init__(self, folder: Path, *words: object, token: str | None = None) -> None:
        self.folder = folder
        self._words = [str(word) for word in words]
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), **({"EVENTSTORE_TOKEN": token} if token else {})}
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> None:
        """Begin, and listen; where it listened before, if it did."""
        port = self.url.rpartition(":")[2] or "0"
        place = self._words if "--unix" in self._words else ["--port", port, *self._words]
        command = [sys.executable, "-m", "eventstore", "serve", str(self.folder), "--json", *place]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self._environment)
        assert self._process.stdout is not None
        self.url = json.loads(self._process.stdout.readline())["listening"][0]

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """As the kernel would."""
        self.send(signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        """Politely, and it must be over without a complaint."""
        self.send(signal.SIGTERM)
        assert self._wait() == 0

    def _wait(self) -> int:
        assert self._process is not None
        code = self._process.wait(timeout=60)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        return code

    def end(self) -> None:
        """Whatever state it is in."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.send(signal.SIGCONT)
            self.kill()


@contextmanager
def served(folder: Path, *words: object, token: str | None = None) -> Iterator[Served]:
    """A server, listening on a port of its own, or where the words say."""
    server = Served(folder, *words, token=token)
    try:
        server.start()
        yield server
    finally:
        server.end()
