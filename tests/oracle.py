"""What a store must answer, said as plainly as possible: every fact in a list, every answer by going through it.

It shares no code with the library and has no files, checksums, caches or locks. Where it and a store disagree, one of the
two is wrong. Errors are the names of the library's, so that a test can compare them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Key = str | tuple[str | int, ...]
SYSTEM: Key = ()
"""The key of what a log says of itself, as it comes back; nobody can write it."""
SEALED = "sealed"
"""What a seal says, in place of its figures."""
ARCHIVED = "archived"
"""What an archive event says, likewise."""
REDACTED = "redacted"
"""What a redaction says, likewise."""
ERASED = "erased"
"""What a fact holds whose value was redacted: no JSON text, so nothing that is written is the same."""
Expected = str | int
"""ANY, ABSENT, PRESENT, or a position."""


class RefusedError(Exception):
    """The write was refused; `kind` is the name of the error that says so."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True)
class Raw:
    """JSON text that is stored as it is."""

    text: str


@dataclass(frozen=True)
class Write:
    """One thing a caller wants: a value under a key, or (without one) that the key is gone."""

    key: Key
    text: str | None
    when: int | None = None
    expected: Expected = "ANY"
    skip: bool = False


@dataclass(frozen=True)
class Fact:
    """One event; its key as it comes back. `text` None: the key was removed."""

    position: int
    key: Key
    text: str | None
    when: int | None


@dataclass(frozen=True)
class Answer:
    """What a write was told: where it stands, and whether it is new."""

    position: int
    appended: bool


@dataclass(frozen=True)
class Earlier:
    """A call that was made with an event_id. `handle` is who would remember it if nothing was appended."""

    request: object
    answers: list[Answer]
    handle: object


def text_of(value: Any) -> str:
    """The JSON text of a value; half an emoji, which is no character, stands escaped."""
    if isinstance(value, Raw):
        return value.text
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    whole = not any("\ud800" <= character <= "\udfff" for character in text)
    return text if whole else json.dumps(value, separators=(",", ":"))


def parts_of(key: Key) -> tuple[str | int, ...]:
    """A key as its parts."""
    return (key,) if isinstance(key, str) else key


def come_back(key: Key) -> Key:
    """A key as a store gives it: one string alone is a string, however it was written."""
    parts = parts_of(key)
    return parts[0] if len(parts) == 1 and isinstance(parts[0], str) else parts


def natural(key: Key) -> list[tuple[Any, ...]]:
    """Integers first; then text, runs of digits by their number, the rest without case, and at last by code point."""
    order: list[tuple[Any, ...]] = []
    for part in parts_of(key):
        if isinstance(part, int):
            order.append((0, part))
        else:
            runs = re.findall(r"[0-9]+|[^0-9]+", part)
            order.append((1, [(0, int(run)) if run[0] in "0123456789" else (1, run.casefold()) for run in runs], part))
    return order


@dataclass
class Domain:
    """One domain: the facts, in order, and the calls that had a name."""

    first_stands: bool = False
    facts: list[Fact] = field(default_factory=list)
    calls: dict[str, Earlier] = field(default_factory=dict)

    # ---- reading

    def history(self, key: Key) -> list[Fact]:
        """Every fact of a key, newest first."""
        return [fact for fact in reversed(self.facts) if fact.key == come_back(key)]

    def latest(self, key: Key) -> Fact | None:
        """The last fact of a key."""
        return next(iter(self.history(key)), None)

    def text(self, key: Key) -> str | None:
        """What a key holds, None if nothing."""
        latest = self.latest(key)
        return None if latest is None else latest.text

    def items(self, prefix: Key | None = None) -> list[tuple[Key, str]]:
        """Keys and what they hold, in natural order; a prefix names the leading parts."""
        start = () if prefix is None else parts_of(prefix)
        chosen = [key for key in {fact.key for fact in self.facts} - {SYSTEM} if parts_of(key)[: len(start)] == start]
        return [(key, text) for key in sorted(chosen, key=natural) if (text := self.text(key)) is not None]

    def as_of(self, position: int) -> Domain:
        """The domain when this position was its last; a later one pins to the end."""
        return Domain(self.first_stands, self.facts[:position])

    # ---- writing

    def call(
        self, choose: Callable[[], Sequence[Write]], *, event_id: str | None = None, request: object = None, handle: object = None
    ) -> list[Answer]:
        """All of the writes or none; with a known event_id the answer that was given the first time. Raises RefusedError."""
        if event_id is not None and event_id in self.calls:
            earlier = self.calls[event_id]
            if earlier.request != request:
                raise RefusedError("DuplicateEventError")
            return earlier.answers
        before = len(self.facts)
        try:
            answers = [self._write(write) for write in choose()]
        except RefusedError:
            del self.facts[before:]
            raise
        if event_id is not None:
            self.calls[event_id] = Earlier(request, answers, handle)
        return answers

    def seal(self) -> bool:
        """End a file of the log; False if nothing was written since the last time. It changes nothing but the positions after it."""
        if not self.facts or (self.facts[-1].key, self.facts[-1].text) == (SYSTEM, SEALED):
            return False
        self.facts.append(Fact(len(self.facts) + 1, SYSTEM, SEALED, None))
        return True

    def archive(self) -> None:
        """A sealed file was moved away. It changes nothing but the positions after it."""
        self.facts.append(Fact(len(self.facts) + 1, SYSTEM, ARCHIVED, None))

    def redact(self, positions: Iterable[int]) -> list[int]:
        """Erase the values at these positions; gives those that still stood there. Where none did, nothing is said."""
        standing = sorted({position for position in positions if self.facts[position - 1].text not in (None, ERASED)})
        for position in standing:
            self.facts[position - 1] = replace(self.facts[position - 1], text=ERASED)
        if standing:
            self.facts.append(Fact(len(self.facts) + 1, SYSTEM, REDACTED, None))
        return standing

    def forget(self, handle: object) -> None:
        """A handle was closed: calls that appended nothing were remembered by it alone."""
        self.calls = {
            name: call for name, call in self.calls.items() if call.handle is not handle or any(answer.appended for answer in call.answers)
        }

    def _write(self, write: Write) -> Answer:
        standing = self.latest(write.key)
        present = standing is not None and standing.text is not None
        actual = standing.position if present and standing is not None else None
        met = {"ANY": True, "ABSENT": actual is None, "PRESENT": actual is not None}.get(str(write.expected), write.expected == actual)
        if not met:
            raise RefusedError("WrongExpectedError")
        if write.text is None and self.first_stands:
            raise RefusedError("ContractError")
        nothing_new = (
            not present
            if write.text is None
            else standing is not None
            and (self.first_stands or (write.skip and present and (standing.text, standing.when) == (write.text, write.when)))
        )
        if nothing_new:
            return Answer(len(self.facts) if standing is None else standing.position, False)
        self.facts.append(Fact(len(self.facts) + 1, come_back(write.key), write.text, write.when))
        return Answer(len(self.facts), True)
