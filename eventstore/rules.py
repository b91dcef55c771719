"""What a write becomes. One page, pure: no clock, no file, no await."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from eventstore.coding import Blob
from eventstore.errors import ContractError, WrongExpectedError
from eventstore.model import Expected, KeyState, WriteRule

Unchanged = Literal["append", "skip"]


class Intent(msgspec.Struct, frozen=True, gc=False):
    """One write as the caller meant it, ready for the log: canonical key, validated text.

    `op` is "put" or "remove"; `data` the JSON text of a put. `meta` is the JSON object the event will carry, without
    what the log adds; `said` the part of it that the caller gave, without the store's defaults, so that a retry after
    a change of these is still the same request. `blob` is what is stored instead of the text, None if that is; the text of one that
    was encrypted elsewhere is not known.
    """

    op: str
    key: str
    data: str | None
    when_us: int | None
    meta: str | None = None
    said: str | None = None
    expected: Expected | int = Expected.ANY
    unchanged: Unchanged = "append"
    blob: Blob | None = None


def decide(domain: str, rule: WriteRule, state: KeyState | None, standing: Callable[[KeyState], str | None], intent: Intent) -> bool:
    """Whether `intent` appends an event; False where what stands already says it.

    `state` is what the key is now, `standing` gives the text it holds, and is only asked when the answer depends on it.
    Raises WrongExpectedError, ContractError.
    """
    if intent.expected is not Expected.ANY:
        demand(domain, state, intent)
    if intent.op == "remove":
        if rule == "first":
            raise ContractError(f"{domain} {intent.key}: the first write stands for ever in this domain; nothing can be removed")
        return state is not None and state.status != "removed"
    if state is None:
        return True
    if rule == "first":
        return False
    if intent.unchanged == "skip" and state.status == "present":
        return state.when_us != intent.when_us or standing(state) != intent.data
    return True


def demand(domain: str, state: KeyState | None, intent: Intent) -> None:
    """Hold the key's state against what the write expected. Raises WrongExpectedError."""
    expected = intent.expected
    actual = None if state is None or state.status == "removed" else state.position
    met = expected == actual if isinstance(expected, int) else (actual is None) == (expected is Expected.ABSENT)
    if not met:
        raise WrongExpectedError(domain, intent.key, expected, actual)
