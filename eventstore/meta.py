"""What an event says about itself, as the caller gives it and as it is stored: a JSON object, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import msgspec

from eventstore.errors import ConfigError
from eventstore.values import encode_value

_encode = msgspec.json.Encoder().encode

MAX_META_BYTES = 65_536

Meta = tuple[str | None, str | None]
"""The JSON text an event will carry, and the part of it that the caller gave."""


class EventMeta(TypedDict, total=False):
    """What a write may say about itself; kept with the event for ever, so no personal data here. None says nothing."""

    actor: str | None
    """Who wrote; the store's `actor` if not given."""
    reason: str | None
    """Why."""
    correlation_id: str | None
    """What it belongs to: a conversation, an order, a session."""
    causation_id: str | None
    """What caused it: another event's id."""
    run_id: str | None
    """The run of the program or backtest that wrote."""
    type: str | None
    """The event's own name, such as "position.opened"."""
    schema: str | int | None
    """The version of the value's shape."""
    tags: Sequence[str] | None
    """Words to find it by."""
    origin: Mapping[str, Any] | None
    """Where an imported event came from: store_id, domain, position, checksum; of a file that is followed, tree."""


_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(EventMeta.__annotations__, (str,)),
    "schema": (str, int),
    "tags": (list, tuple),
    "origin": (dict,),
}


def meta_text(meta: EventMeta, actor: str | None) -> Meta:
    """`meta` as JSON, with the store's `actor` where none is given. Raises TypeError for an unknown member, ConfigError."""
    said: dict[str, Any] = {name: value for name, value in meta.items() if value is not None}
    for name, value in said.items():
        _require(name, value)
    given = _text(said) if said else None
    if actor is None or "actor" in said:
        return given, given
    return _text({"actor": actor, **said}), given


def _text(said: dict[str, Any]) -> str:
    try:
        text = encode_value(said, max_bytes=sys.maxsize)
        _encode(said)  # a lone surrogate, which a value may hold, cannot be read back as meta
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"what the event says of itself cannot be kept: {error.object!r} holds a lone surrogate, which is no character"
        ) from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"what the event says of itself cannot be kept: {error}") from error
    size = len(text.encode())
    if size > MAX_META_BYTES:
        raise ConfigError(f"what the event says of itself takes {size:,} bytes, at most {MAX_META_BYTES:,} are kept: put it into the value")
    return text


def _require(name: str, value: Any) -> None:
    types = _TYPES.get(name)
    if types is None:
        raise TypeError(f"unexpected keyword argument {name!r}; an event may say {', '.join(_TYPES)}")
    if not isinstance(value, types) or isinstance(value, bool):
        raise ConfigError(f"{name} is {' or '.join(kind.__name__ for kind in types)}, not {type(value).__name__} {value!r}")
    if isinstance(value, list | tuple) and not all(isinstance(tag, str) for tag in value):
        raise ConfigError(f"tags are strings, not {value!r}")
