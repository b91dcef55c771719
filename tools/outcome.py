"""How a command ends: its report on stdout, its errors on stderr, and an exit code that says which of four things happened."""

from __future__ import annotations

import ast
import contextlib
import io
import keyword
import logging
import os
import pkgutil
import sys
import tokenize
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any, NoReturn, Protocol

import click

from eventstore.errors import (
    ConfigError,
    ContractError,
    CorruptionError,
    DuplicateEventError,
    EventStoreError,
    InvalidKeyError,
    InvalidValueError,
    NaiveTimeError,
    NotFoundError,
    RedactedError,
    SignatureError,
    WrongExpectedError,
)
from eventstore.files import refusal
from eventstore.tools.terminal import Paint, escape, paint_for, to_json

OK, FINDINGS, UNJUDGED, USAGE = 0, 1, 2, 3
"""All is well; no, or damage; it could not be judged; the command line is wrong."""
INTERRUPTED, PIPE_CLOSED = 130, 141
"""As shells count: 128 and the signal's number."""

_FALSE = (NotFoundError, RedactedError, WrongExpectedError, DuplicateEventError, ContractError, CorruptionError, SignatureError)
_WRONG = (InvalidValueError, InvalidKeyError, NaiveTimeError, ConfigError)


class Report(Protocol):
    """What a command gives back."""

    @property
    def exit_code(self) -> int:
        """OK or FINDINGS."""
        ...


def exit_code_of(error: EventStoreError) -> int:
    """The exit code that an error of the library means."""
    if isinstance(error, _FALSE):
        return FINDINGS
    return USAGE if isinstance(error, _WRONG) else UNJUDGED


def show(report: Report, render: Callable[[Any, Paint], Iterable[str]], as_json: bool) -> int:
    """Print a report and give its exit code."""
    if as_json:
        _print([to_json(report)])
    else:
        _print(render(report, paint_for(sys.stdout)))
    return report.exit_code


def show_each(lines: Iterable[Any], render: Callable[[Iterator[Any], Paint], Iterable[str]], as_json: bool) -> int:
    """Print any number of lines as they come, as JSON one object a line."""
    stream = iter(lines)
    _print(map(to_json, stream) if as_json else render(stream, paint_for(sys.stdout)))
    return OK


def _print(lines: Iterable[str]) -> None:
    write = sys.stdout.write
    for line in lines:
        write(line + "\n")
    sys.stdout.flush()


def page(command: str) -> str:
    """A command's help: the docstring of its file, of which click must not wrap the example.

    Read, as importing all of them for the list of commands would take longer than anything else.
    """
    name = f"{command}_" if keyword.iskeyword(command) else command
    source = io.BytesIO(pkgutil.get_data("eventstore.tools", f"{name}.py") or b"")
    docstring = next(token.string for token in tokenize.tokenize(source.readline) if token.type == tokenize.STRING)
    return str(ast.literal_eval(docstring)).replace("\n\nExample:\n", "\n\n\b\nExample:\n")


class Commands(click.Group):
    """The group of all commands: whatever happens in one of them ends as one of the exit codes, and never as a traceback."""

    def main(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run a command line and exit."""
        _stand_in_for_closed_streams()
        words = list(sys.argv[1:] if args is None else args)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a terminal whose encoding lacks a character still gets the rest
                stream.reconfigure(errors="backslashreplace")
        as_json = "--json" in words
        _say_warnings(as_json)
        extra["standalone_mode"] = False
        sys.exit(_guarded(lambda: super(Commands, self).main(words, prog_name or "eventstore", **extra), as_json=as_json))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, with its page."""
        command = super().get_command(ctx, cmd_name)
        if command is not None and command.help is None:
            command.help = page(cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; here, because click itself would answer a closed pipe with 1, which means that something was found."""
        if sys.stdout is None:
            raise click.UsageError(
                "standard output is closed, so nothing was done: no receipt could be given; send it to /dev/null instead"
            )
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _let_go_of(sys.stdout)
            return PIPE_CLOSED


class _Closed(io.RawIOBase):
    """Standard input where there is none: whoever reads it is told, and does not take it for an empty one."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        raise OSError("standard input is closed")


def _stand_in_for_closed_streams() -> None:
    """Where a descriptor was closed before the command began, Python has None for the stream, and the next file opened takes its number."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_Closed()))
    if sys.stderr is None:
        sys.stderr = io.TextIOWrapper(io.FileIO(os.devnull, "w"))


def _guarded(run: Callable[[], Any], *, as_json: bool) -> int:
    try:
        code = run()
        return code if isinstance(code, int) else OK
    except (EventStoreError, OSError) as error:
        told = refusal(error) if isinstance(error, OSError) else error
        _complain({"error": type(told).__name__, "message": str(told), **_attributes(told)}, as_json)
        return exit_code_of(told)
    except click.ClickException as error:
        message = error.format_message()
        if isinstance(error, click.UsageError) and error.ctx is not None:
            if not as_json:
                click.echo(error.ctx.get_usage(), err=True)
            message = f"{message.removesuffix('.')}; `{error.ctx.command_path} --help` says what there is"
        _complain({"error": "UsageError", "message": message}, as_json)
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception:  # noqa: BLE001
        # A bug of ours. Python would exit 1, which here means that something was found.
        click.echo("\n".join(map(escape, traceback.format_exc().splitlines())), err=True)
        return UNJUDGED


def _attributes(error: EventStoreError) -> dict[str, Any]:
    """What the error knows beside its sentence, as JSON can say it."""
    return {name: value.hex() if isinstance(value, bytes) else _plain(value) for name, value in vars(error).items()}


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, str | int) else str(value)


def _complain(report: dict[str, Any], as_json: bool) -> None:
    """Say on stderr what went wrong: a sentence, or one JSON object."""
    click.echo(to_json(report) if as_json else f"{paint_for(sys.stderr)('error', 'bad')}: {escape(report['message'])}", err=True)


def _let_go_of(stream: IO[str]) -> None:
    """Nobody reads on: `| head` has seen enough. What is still buffered must not complain at exit."""
    with contextlib.suppress(OSError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)


class _Escaping(logging.Formatter):
    """One line a warning: JSON beside --json, so that every line of stderr is."""

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        level, message = record.levelname.lower(), record.getMessage()
        return to_json({level: message}) if self._as_json else escape(f"{level}: {message}")


class _ToStderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # a full disk, or nobody reads: what a warning tells of must not fail for its sake
            click.echo(self.format(record), err=True)


def _say_warnings(as_json: bool) -> None:
    """The library's warnings belong on stderr, and their text is as untrusted as any other."""
    log = logging.getLogger("eventstore")
    handler = next((handler for handler in log.handlers if isinstance(handler, _ToStderr)), None)
    if handler is None:
        handler = _ToStderr(logging.WARNING)
        log.addHandler(handler)
        log.propagate = False
    handler.setFormatter(_Escaping(as_json))
