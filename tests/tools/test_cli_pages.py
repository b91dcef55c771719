"""The command as a whole: every page has an example that runs, every end has its code, no terminal is ever given orders."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import eventstore as library
from eventstore.tools import get as get_file
from eventstore.tools import import_ as import_file
from eventstore.tools.cli import cli
from eventstore.tools.outcome import page
from tests.tools.command import done, eventstore

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(cli.commands)
PROGRAM = [sys.executable, "-m", "eventstore"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def test_these_are_the_commands() -> None:
    assert set(COMMANDS) == {
        "init", "put", "get", "rm", "ls", "log", "history", "state", "verify", "anchor", "bundle", "accept", "salvage", "import", "export",
        "demo", "doctor", "backup", "restore", "redact", "shred", "compact", "archive", "retention", "shadow", "serve", "client",
    }  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_page_has_an_example(name: str) -> None:
    page = done(name, "--help").out
    assert page.startswith(f"Usage: eventstore {name} ")
    assert examples(name), page
    assert all(f"\n    eventstore {name} " in page or "|" in example for example in examples(name))
    assert "--json" in page


def test_the_first_page_names_every_command() -> None:
    page = done("--help").out
    assert all(f"\n  {name} " in page for name in COMMANDS)
    assert "Exit codes: 0" in page
    assert "..." not in page.split("Commands:")[1].replace(next(line for line in page.splitlines() if line.startswith("  demo ")), "")


def test_no_command_at_all_is_answered_with_the_first_page() -> None:
    answer = eventstore()
    assert answer.code == 3
    assert "Usage: eventstore" in answer.err
    assert answer.out == ""


def test_a_command_imports_what_it_needs_and_no_more(tmp_path: Path) -> None:
    """What starts a hundred times a day, from scripts and prompts, must not wait for what serves, follows or proves."""
    with library.open(tmp_path / "data") as store:
        store.domain("notes").write_value("hello", {"a": 0})
    program = (
        "import contextlib, json, sys\n"
        "from eventstore.tools.cli import cli\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        cli(words)\n"
        "print('imported', *sorted(sys.modules))"
    )
    runs = [["--help"], ["get", "data", "notes", "hello"], ["log", "data", "notes"]]
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(runs)],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    said, _, imported = done.stdout.partition("imported ")
    assert all(part in said for part in ("Usage: eventstore", '{"a":0}', "put     hello")), said + done.stderr
    modules = set(imported.split())
    heavy = {"asyncio", "watchfiles", "starlette", "uvicorn", "cryptography", "socket", "email", "rich.console", "eventstore.salvage"}
    assert not heavy & modules
    assert {name for name in COMMANDS if modules & {f"eventstore.tools.{name}", f"eventstore.tools.{name}_"}} == {"get", "log"}


def test_the_version_is_told() -> None:
    assert done("--version").out.startswith("eventstore-kit")


def examples(name: str) -> list[str]:
    """The example lines of a command's page."""
    text = page(name).split("\n\b\nExample:\n")[1]
    return [line.strip() for line in text.splitlines() if line.strip()]


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the examples speak of."""
    monkeypatch.chdir(tmp_path)
    with library.open("data") as store:
        store.domain("notes").write_value("hello", {"a": 0})
        store.domain("positions").write_value(("binance", "BTCUSDT"), {"size": 1})
    done("export", "data", "-o", "backup.jsonl")
    for path in ("dump/memory/s1/b/m1.json", "dump/data/signal/BTC_x_binance/BTC.json"):
        Path(path).parent.mkdir(parents=True)
        Path(path).write_text("1")
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    Path("private.pem").touch(0o600)
    Path("private.pem").write_bytes(private)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    Path("public.pem").write_bytes(public)
    binaries = tmp_path / "bin"
    binaries.mkdir()
    program = binaries / "eventstore"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(PROGRAM)} "$@"\n')
    program.chmod(0o700)
    return binaries


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("demo", "serve")])  # see test_demo.py, test_server.py
def test_every_example_runs(name: str, workshop: Path) -> None:
    if name == "put":
        done("rm", "data", "notes", "hello")  # the page begins with position 1
        for path in sorted(Path("data").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        Path("data").rmdir()
    if name == "shred":
        with library.open("data", keys="people.keys") as store:
            store.domain(library.Domain("people", subject=str)).write_value("customer-42", 1)
    if name == "redact":
        done("put", "data", "people", "alice", "1")
        done("put", "data", "people", '["customer", 42, "mail"]', "1")
    if name in ("verify", "bundle"):
        done("anchor", "data", "-o", "anchor.json", "--private-key", "private.pem")
    if name == "archive":
        done("compact", "data")
    if name == "restore":
        done("backup", "data", "data-backup")
    for example in examples(name):
        out = run_example(example, workshop)
        written = example.partition(" > ")[2]
        assert out or (written and Path(written).read_text()) or "--as-of 20" in example, example  # that time may be before the store's


def run_example(example: str, workshop: Path) -> str:
    """What it prints: a line that needs a shell in one, and any other in this process."""
    if not re.search(r" [|>] ", example):
        program, *words = shlex.split(example)
        assert program == "eventstore"
        return done(*words).out
    environment = {**ENVIRONMENT, "PATH": f"{workshop}{os.pathsep}{os.environ['PATH']}"}
    ran = subprocess.run(["bash", "-c", f"set -o pipefail; {example}"], env=environment, capture_output=True, text=True, check=False)
    # `| head` may end a writer early, which is no failure of either.
    assert ran.returncode in ((0, 141) if "| head" in example else (0,)), (example, ran)
    assert "Traceback" not in ran.stderr
    return ran.stdout


def test_examples_of_the_first_page_run(workshop: Path) -> None:
    text = (cli.help or "").split("Example:")[1]
    for line in filter(None, map(str.strip, text.splitlines())):
        done(*shlex.split(line)[1:])


# ---- ends


def test_ctrl_c_is_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*words: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(get_file, "get", interrupted)
    answer = eventstore("get", tmp_path, "notes", "hello")
    assert answer.code == 130
    assert "Traceback" not in answer.err


def test_a_bug_of_ours_is_2_and_its_traceback_is_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*words: object, **options: object) -> None:
        raise RuntimeError("\x1b]0;owned\x07\nsecond line")

    monkeypatch.setattr(get_file, "get", broken)
    answer = eventstore("get", tmp_path, "notes", "hello")
    assert answer.code == 2
    assert "RuntimeError" in answer.err
    assert "\x1b" not in answer.err


def test_an_error_of_the_system_is_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*words: object, **options: object) -> None:
        raise OSError(5, "Input/output error", "some/path")

    monkeypatch.setattr(import_file, "import_", failing)
    answer = eventstore("import", "x", tmp_path, "--json")
    assert answer.code == 2
    assert (answer.error()["error"], "some/path" in answer.error()["message"]) == ("EngineError", True)


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log that fills any pipe, to read."""
    folder = tmp_path_factory.mktemp("long") / "data"
    with library.open(folder, durability="process") as store:
        store.domain("notes").write_values([(f"key {number}", "x" * 100) for number in range(5_000)])
    return folder


@pytest.mark.parametrize("words", [["log", "-p"], ["log", "--json"], ["state"], ["export"], ["ls", "notes"]])
def test_a_reader_that_has_seen_enough_is_no_error(long_log: Path, words: list[str]) -> None:
    command = [*PROGRAM, words[0], str(long_log), *words[1:]]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 141
    assert done("verify", long_log).code == 0


def test_ctrl_c_in_the_middle_of_a_list(long_log: Path) -> None:
    with subprocess.Popen([*PROGRAM, "log", str(long_log)], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)  # the list is stuck in a full pipe; the signal finds it there
        process.stdout.read()
        assert process.wait(30) == 130
        assert b"Traceback" not in process.stderr.read()


# ---- terminals

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202e\u2066\u2028\r\nfake: line"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A store in which everything that can hold text holds orders for a terminal."""
    store = tmp_path / "data"
    with library.open(store) as opened:
        notes = opened.domain("notes")
        for value in ({HOSTILE: HOSTILE}, {HOSTILE: [HOSTILE]}, {HOSTILE: [HOSTILE, 1], "x": HOSTILE}):
            notes.write_value(HOSTILE, value, actor=HOSTILE, reason=HOSTILE, type=HOSTILE, tags=[HOSTILE])
        notes.write_value(("a", HOSTILE), "\x7f\u202e")
        notes.remove_value(HOSTILE, reason=HOSTILE)
        notes.write_value(HOSTILE, HOSTILE)
    return store


SHOWING = [
    ["get", "STORE", "notes", HOSTILE],
    ["get", "STORE", "notes", HOSTILE, "--json"],
    ["get", "STORE", "notes", "absent" + HOSTILE],
    ["get", "STORE", HOSTILE, "x"],
    ["ls", "STORE"],
    ["ls", "STORE", "notes"],
    ["ls", "STORE", "notes", "-l"],
    ["ls", "STORE", "notes", "--json"],
    ["log", "STORE"],
    ["log", "STORE", "notes", "-p"],
    ["log", "STORE", "notes", "-p", "--json"],
    ["history", "STORE", "notes", HOSTILE],
    ["history", "STORE", "notes", HOSTILE, "--json"],
    ["state", "STORE"],
    ["state", "STORE", "notes", "--as-of", "3"],
    ["state", "STORE", "--as-of", HOSTILE],
    ["verify", "STORE"],
    ["anchor", "STORE"],
    ["anchor", "STORE", "--private-key", "missing" + HOSTILE],
    ["verify", "STORE", "--anchor", "missing" + HOSTILE],
    ["export", "STORE"],
    ["put", "STORE", "notes", HOSTILE, "1"],
    ["put", "STORE", "notes", "x", HOSTILE],
    ["put", "STORE", "notes", HOSTILE, "1", "--expected", "absent"],
    ["put", "STORE", "notes", "x", "1", "--expected", HOSTILE],
    ["rm", "STORE", "notes", HOSTILE],
    ["doctor", "STORE"],
    ["ls", "missing" + HOSTILE],
    ["import", "missing" + HOSTILE, "STORE"],
    [HOSTILE],
    ["ls", "--" + HOSTILE],
]

ORDERS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]|^fake: ", re.MULTILINE)


@pytest.mark.parametrize("words", SHOWING, ids=lambda words: " ".join(words).replace("STORE", "").encode("ascii", "ignore").hex()[:24])
def test_hostile_text_reaches_no_pipe_that_a_person_reads(hostile: Path, words: list[str]) -> None:
    if words[0] in {"get", "export"} and "--json" not in words:
        return  # these give bytes to a pipe as they are; the next test gives them a terminal
    answer = eventstore(*[str(hostile) if word == "STORE" else word for word in words])
    assert not ORDERS.search(answer.out), answer.out
    assert not ORDERS.search(answer.err), answer.err


@pytest.mark.parametrize("colour", [True, False])
def test_hostile_text_reaches_no_terminal(hostile: Path, colour: bool) -> None:
    commands = [words for words in SHOWING if words[0] in {"get", "export", "log", "history", "state", "put"}][:14:2]
    places = [[str(hostile) if word == "STORE" else word for word in words] for words in commands]
    for words, shown in zip(commands, each_on_a_terminal(places, colour=colour), strict=True):
        assert shown, words
        without_colours = re.sub(r"\x1b\[[0-9;]*m", "", shown)
        assert not ORDERS.search(without_colours), shown
        assert colour or "\x1b" not in shown


def on_a_terminal(words: list[str], *, colour: bool, columns: int = 60) -> str:
    """Everything the command writes to a terminal, its line ends as they were meant."""
    (shown,) = each_on_a_terminal([words], colour=colour, columns=columns)
    return shown


EACH = """
import json, sys
from eventstore.tools.cli import cli
for words in json.loads(sys.argv[1]):
    try:
        cli.main(words, "eventstore")
    except SystemExit:
        print("\\0", end="", flush=True)
"""
"""A process for several commands: to start one takes far longer than most of them."""


def each_on_a_terminal(commands: list[list[str]], *, colour: bool, columns: int = 60) -> list[str]:
    """The same of each of several commands, one after the other."""
    controller, terminal = pty.openpty()
    environment = {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": str(columns), "LC_ALL": "C.UTF-8"}
    environment.pop("NO_COLOR", None)
    if not colour:
        environment["NO_COLOR"] = "1"
    program = [sys.executable, "-c", EACH, json.dumps(commands)]
    with subprocess.Popen(program, env=environment, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                read = os.read(controller, 65_536)
            except OSError:  # the other end is closed
                break
            if not read:
                break
            shown += read
        process.wait()
    os.close(controller)
    *each, rest = shown.decode().replace("\r\n", "\n").split("\0")
    assert (len(each), rest) == (len(commands), ""), shown
    return each


def test_a_terminal_gets_colours_and_no_line_longer_than_itself(tmp_path: Path) -> None:
    store = str(tmp_path / "data")
    done("put", store, "notes", "hello", '{"a": "' + "x" * 500 + '"}')
    assert "\x1b[" in on_a_terminal(["log", store, "-p"], colour=True)
    listing = [["state", store], ["history", store, "notes", "hello"], ["log", store, "notes", "-p"]]
    *lists, value = each_on_a_terminal([*listing, ["get", store, "notes", "hello"]], colour=False)
    for shown in lists:
        assert any(line.endswith("…") and len(line) == 60 for line in shown.splitlines()), shown
    assert "x" * 500 in done("state", store).out
    assert "x" * 500 in value


def test_what_is_piped_out_of_get_is_exact(hostile: Path) -> None:
    assert done("get", hostile, "notes", '["a",' + library.encode_key(HOSTILE)[1:-1] + "]").out_bytes == '"\x7f\u202e"\n'.encode()


def test_a_terminal_that_knows_no_unicode_still_gets_the_rest(tmp_path: Path) -> None:
    store = str(tmp_path / "data")
    done("put", store, "notes", "ключ", '"☃"')
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    ran = subprocess.run([*PROGRAM, "state", store], env=environment, capture_output=True, check=False)
    assert ran.returncode == 0
    assert ran.stdout == b'notes  \\u043a\\u043b\\u044e\\u0447  "\\u2603"\n'


def test_warnings_of_the_library_are_escaped_and_on_stderr(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import logging

    done("put", tmp_path / "data", "notes", "hello", "1")
    answer = eventstore("--help")
    assert answer.err == ""
    (handler,) = [each for each in logging.getLogger("eventstore").handlers if type(each).__name__ == "_ToStderr"]
    record = logging.LogRecord("eventstore", logging.WARNING, "", 1, "%s is wrong", ("a\x1b[31m",), None)
    assert handler.format(record) == "warning: a\\x1b[31m is wrong"
