"""Run the command as a person would, and hold what it answered."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from click.testing import CliRunner

from eventstore.tools.cli import cli


class Answer(NamedTuple):
    """Exit code, standard output, standard error."""

    code: int
    out: str
    err: str
    out_bytes: bytes

    def json(self) -> Any:
        """Standard output as one JSON value."""
        return json.loads(self.out)

    def lines(self) -> list[Any]:
        """Standard output as one JSON value a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    def error(self) -> Any:
        """The last line of standard error as a JSON value; warnings may come before it."""
        return json.loads(self.err.splitlines()[-1])


def eventstore(*words: object, stdin: bytes | str = b"") -> Answer:
    """`eventstore WORDS`, in this process, with no terminal."""
    result = CliRunner().invoke(cli, [str(word) for word in words], input=stdin)
    return Answer(result.exit_code, result.stdout, result.stderr, result.stdout_bytes)


def done(*words: object, stdin: bytes | str = b"") -> Answer:
    """The same, where nothing may go wrong."""
    answer = eventstore(*words, stdin=stdin)
    assert answer.code == 0, answer
    return answer
