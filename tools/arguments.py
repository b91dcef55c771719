"""What is typed on a command line, turned into what the library takes."""

from __future__ import annotations

import json
import math
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from eventstore.clock import parse_moment
from eventstore.codec import encode_key
from eventstore.errors import ConfigError, InvalidKeyError, InvalidValueError
from eventstore.files import refusal
from eventstore.model import ABSENT, PRESENT, Expected, Key
from eventstore.tools.events import moment_at
from eventstore.tools.terminal import escape
from eventstore.values import encode_value

_EXPECTED = {"absent": ABSENT, "present": PRESENT}
_DIGITS = 19
"""Of 2^63 - 1."""


class NamedPath(click.Path):
    """A path that names something: an empty one, as of a variable that is not set, would be the current folder."""

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path. Raises BadParameter."""
        if not os.fspath(value):
            self.fail("the path is empty; name one, '.' for the current folder", param, ctx)
        return super().convert(value, param, ctx)


class Count(click.IntRange):
    """A whole number that a log can hold."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number. Raises BadParameter."""
        text = str(value)
        least, most = int(self.min or 0), int(self.max or 2**63 - 1)
        if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS and least <= int(text) <= most):
            shown = text if len(text) <= _DIGITS else f"{text[:_DIGITS]}…"
            self.fail(f"{shown!r} is no whole number from {least} to {most}", param, ctx)
        return int(text)


class Seconds(click.FloatRange):
    """A time span that ends."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The seconds. Raises BadParameter."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not (self.min or 0) <= seconds < math.inf:
            self.fail(f"{str(value)!r} is no number of seconds from {self.min or 0:g} on", param, ctx)
        return seconds


def key_of(text: str) -> Key:
    """A KEY: a plain string, or a JSON array of strings and integers. Raises InvalidKeyError."""
    key: Key = text
    if text.startswith("["):
        try:
            parts = msgspec.json.decode(text)
        except UnicodeEncodeError as error:
            raise InvalidKeyError(f"key {text!r} is not UTF-8; keys are text") from error
        except (msgspec.DecodeError, RecursionError) as error:
            quoted = json.dumps([text], ensure_ascii=False)
            raise InvalidKeyError(
                f"key {text!r} begins like a JSON array but is none: {error}; as plain text it is written '{quoted}'"
            ) from error
        if not parts:
            raise InvalidKeyError("the KEY [] has no part; a key is a plain string, or a JSON array of at least one string or integer")
        for part in parts:
            if isinstance(part, bool) or not isinstance(part, str | int):
                found = msgspec.json.encode(part).decode()
                raise InvalidKeyError(
                    f"the KEY {text} holds {found}; its parts are strings and integers: a string is written with its quotes"
                )
        key = parts[0] if len(parts) == 1 and isinstance(parts[0], str) else tuple(parts)
    encode_key(key)
    return key


def prefix_of(text: str | None) -> Key | None:
    """A PREFIX: the leading parts of keys, written like a KEY; `[]` and nothing at all select everything."""
    if text is None or text == "[]":
        return None
    # A part may be empty, so this names a beginning, though it is no key.
    return ("",) if text == '[""]' else key_of(text)


def value_of(text: str) -> msgspec.Raw:
    """A VALUE: JSON text, `@file` or `-` for standard input. Raises InvalidValueError.

    The text is stored as it is, byte for byte, but for one newline at the end of a file or of standard input.
    """
    if text == "-":
        content = _without_newline(sys.stdin.buffer.read())
    elif text.startswith("@"):
        if text == "@":
            raise InvalidValueError("@ names no file; write @FILE, or - for standard input")
        try:
            content = _without_newline(Path(text[1:]).read_bytes())
        except OSError as error:
            raise InvalidValueError(str(refusal(error, f"reading the VALUE {text}"))) from error
    else:
        content = os.fsencode(text)
    value = msgspec.Raw(content)
    try:
        encode_value(value)
    except InvalidValueError as error:
        if not content.strip():
            raise InvalidValueError("the VALUE is empty; it is JSON: an empty string is written '\"\"', nothing is null") from error
        if text[:1].isalpha():
            raise InvalidValueError(f"{error}; a string is written with its quotes: '\"{text[:20]}\"'") from error
        raise
    return value


def _number(text: str) -> int | None:
    """What digits mean; None for anything else. Raises BadParameter for more of them than any number in a log has."""
    if not (text.isascii() and text.isdigit()):
        return None
    if len(text) > _DIGITS:
        raise click.BadParameter(f"{text[:_DIGITS]}… has {len(text)} digits; a position has {_DIGITS} at most")
    return int(text)


def _without_newline(content: bytes) -> bytes:
    return content[:-1] if content.endswith(b"\n") else content


def moment_of(text: str) -> int:
    """A time in RFC 3339 as microseconds; one without an offset is taken as local and said so on stderr. Raises ConfigError."""
    us, had_offset = parse_moment(text)
    if not had_offset:
        click.echo(f"{escape(text)} names no offset: taken as {moment_at(us).astimezone().isoformat()}", err=True)
    return us


def as_of(text: str | None) -> datetime | int | None:
    """An --as-of: digits are a position, everything else a time."""
    if text is None:
        return None
    position = _number(text)
    if position is not None:
        return position
    try:
        return moment_at(moment_of(text))
    except ConfigError as error:
        raise ConfigError(f"{error}; a position is written in digits alone") from error


def expected_of(text: str) -> Expected | int:
    """An --expected: absent, present or a position."""
    if text in _EXPECTED:
        return _EXPECTED[text]
    position = _number(text)
    if position is None:
        raise click.BadParameter(f"{text!r} is not absent, present or a position", param_hint="--expected")
    return position


def schema_of(text: str) -> str | int:
    """A --schema: digits are a number, everything else a name."""
    number = _number(text)
    return text if number is None else number
