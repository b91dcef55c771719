"""Windows, as far as it goes: everything can be imported, a store in memory works, and a folder is refused with the way out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# What others import is theirs, so it comes first; then whatever a POSIX system has and Windows has not is taken away.
WINDOWS = """
import asyncio, os, signal, subprocess, sys, tempfile, click, msgspec, rich.console, sqlite_utils, watchfiles
sys.modules["fcntl"] = sys.modules["resource"] = None
for name in ("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "fork", "getuid", "register_at_fork", "statvfs"):
    delattr(os, name)
for module in (signal, sys.modules["_signal"]):
    delattr(module, "pthread_sigmask")
sys.platform = "win32"
"""
LIBRARY = """
import eventstore, eventstore.aio
with eventstore.open("memory:") as store:
    store.domain("d").write_value("k", 1)
    assert store.domain("d").read_value("k") == 1
try:
    eventstore.open("data")
except eventstore.ConfigError as error:
    print(error)
"""
COMMAND = """
from importlib import import_module
from keyword import iskeyword
from eventstore.tools.cli import cli
for name in [*cli.commands, "export_contracts", "export_tables"]:
    import_module(f"eventstore.tools.{name}_" if iskeyword(name) else f"eventstore.tools.{name}")
cli(["put", "data", "d", "k", "1"])
"""


def on_windows(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WINDOWS + program], cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_the_library_is_imported_and_a_folder_is_refused_by_a_word_about_wsl(tmp_path: Path) -> None:
    done = on_windows(LIBRARY, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("data: ")
    assert "WSL" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_the_same(tmp_path: Path) -> None:
    done = on_windows(COMMAND, tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: data: ")
    assert "WSL" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
