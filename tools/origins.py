"""Where an event came from that was appended anew: `meta.origin`, written and read (FORMAT.md section 9)."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from eventstore.meta import EventMeta
from eventstore.model import Event
from eventstore.tools.interchange import Header


class Origin(msgspec.Struct, frozen=True):
    """The one event of all stores that another one came from; `checksum` in hexadecimal."""

    store_id: str
    domain: str
    position: int
    checksum: str

    def is_of(self, header: Header) -> bool:
        """Whether it is one of this source."""
        return (self.store_id, self.domain) == (header.store_id, header.domain)


class _MetaOrigin(msgspec.Struct, frozen=True):
    origin: Origin | None = None


_decode_origin = msgspec.json.Decoder(_MetaOrigin).decode
_decode_meta = msgspec.json.Decoder(dict[str, Any]).decode


def read_origin(event: Event) -> Origin | None:
    """Where an event says that it came from; None if it does not, or says something else than an import does."""
    if event.meta is None or '"origin"' not in event.meta:
        return None
    try:
        return _decode_origin(event.meta).origin
    except msgspec.MsgspecError:
        return None


def meta_of(event: Event, header: Header) -> EventMeta:
    """What an event said of itself in its source, and where it comes from. Its event_id named a call to the other store."""
    said = _decode_meta(event.meta) if event.meta is not None else {}
    meta = {name: said[name] for name in EventMeta.__annotations__ if name in said}
    origin = {"store_id": header.store_id, "domain": header.domain, "position": event.position, "checksum": event.checksum.hex()}
    return cast("EventMeta", {**meta, "origin": origin})
