"""Print the value of a key.

That is its JSON text as it was stored, byte for byte, and a newline. On a terminal, characters that it would obey are
shown as \\uNNNN, which is the same JSON. Exit 1 if the key has no value, or the store is damaged; --read-only reads
what is left.

Example:
  eventstore get data notes hello
  eventstore get data positions '["binance", "BTCUSDT"]' --json
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from eventstore.model import Key
from eventstore.tools.stores import existing_domain, existing_store
from eventstore.tools.terminal import Paint, json_safe


class GetReport(msgspec.Struct, frozen=True):
    """A value and the event that wrote it."""

    domain: str
    key: Key
    position: int
    when_us: int | None
    value: msgspec.Raw

    exit_code = 0


def get(location: str, domain: str, key: Key, *, read_only: bool = False) -> GetReport:
    """The current value of `key`. Raises NotFoundError, RedactedError."""
    with existing_store(location, read_only=read_only) as store:
        view = existing_domain(store, domain)
        while True:
            state, value = view.state_of(key), view.read_value(key)
            # Another process may have written in between: position and value must be of one event.
            if state is not None and state == view.state_of(key):
                return GetReport(domain, key, state.position, state.when_us, value)


def render(report: GetReport, paint: Paint) -> Iterator[str]:
    """The value alone, for a terminal."""
    yield json_safe(bytes(report.value).decode())
