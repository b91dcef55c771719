"""What is typed on a command line, turned into what the library takes."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from eventstore.clock import parse_moment
from eventstore.codec import encode_key
from eventstore.errors import InvalidKeyError, InvalidValueError
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


def key_of(text: str) -> Key:
    """A KEY: a plain string, or a JSON array of strings and integers. Raises InvalidKeyError."""
    key: Key = text
    if text.startswith("["):
        try:
            parts = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            quoted = json.dumps([text], ensure_ascii=False)
            raise InvalidKeyError(
                f"key {text!r} begins like a JSON array but is none: {error}; as plain text it is written '{quoted}'"
            ) from error
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
        try:
            content = _without_newline(Path(text[1:]).read_bytes())
        except OSError as error:
            raise InvalidValueError(f"{text[1:]}: {error.strerror or error}") from error
    else:
        content = os.fsencode(text)
    value = msgspec.Raw(content)
    try:
        encode_value(value)
    except InvalidValueError as error:
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
    return moment_at(moment_of(text)) if position is None else position


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
