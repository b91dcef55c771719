"""Exported events into a store: unchanged where the store is their own, else anew, with the place they came from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import msgspec

from eventstore.codec import FORMAT, check, decode_key, genesis, read_birth
from eventstore.coding import Coding
from eventstore.domain import DomainStore
from eventstore.errors import ConfigError, ContractError, CorruptionError, InvalidKeyError, InvalidValueError, MissingKeyError
from eventstore.meta import EventMeta
from eventstore.model import SYSTEM_KEY, Domain, Event, Head
from eventstore.store import Store
from eventstore.tools.imported import Imported, ImportReport
from eventstore.tools.interchange import Header, Reader, origin_of
from eventstore.tools.stores import raw_domain
from eventstore.tools.terminal import Progress
from eventstore.writes import Batch

_BATCH = 1_000
_LARGEST = 2**30
"""How far a value may be unpacked; whether the store takes it is for the store to say."""


class _Origin(msgspec.Struct, frozen=True):
    store_id: str
    domain: str
    position: int
    checksum: str


class _MetaOrigin(msgspec.Struct, frozen=True):
    origin: _Origin | None = None


_decode_origin = msgspec.json.Decoder(_MetaOrigin).decode
_decode_meta = msgspec.json.Decoder(dict[str, Any]).decode


def import_events(
    reader: Reader, store: Store, report: ImportReport, *, domain: str | None = None, progress: Progress | None = None
) -> None:
    """Bring every domain of an export, or one, into `store`. A broken one goes into the report, the others land."""
    for header, events in reader:
        if domain is not None and header.domain != domain:
            continue
        try:
            if header.format == FORMAT and header.store_id == store.store_id and header.domain not in store.domains():
                report.of(header.domain).adopted += _adopt(store, header, events, progress)
                report.of(header.domain).floor = store.domain(header.domain).floor
            else:
                _append(store, header, events, report.of(header.domain), progress)
        except (CorruptionError, ConfigError, ContractError, InvalidKeyError, InvalidValueError, MissingKeyError) as error:
            report.problem(header.domain, error)


def _adopt(store: Store, header: Header, events: Iterator[Event], progress: Progress | None) -> int:
    def reached(position: int) -> None:
        if progress is not None:
            progress(header.domain, position, 0)

    return store.adopt(header.domain, events, progress=reached).position


# ---- anew


def _append(store: Store, header: Header, events: Iterator[Event], counts: Imported, progress: Progress | None) -> None:
    """Append the events that `store` does not have yet, each proven before; a batch of them is one transaction."""
    first = next(events, None)
    birth = read_birth(first, header.domain, header.format)
    if first is None:
        return
    if header.domain not in store.domains():
        store.domain(Domain(header.domain, birth.write))
    target = raw_domain(store, header.domain)
    known = _Known(target, header, own=header.store_id == store.store_id)
    batch: list[Event] = []
    for event in _proven(first, events, header):
        if event.key == SYSTEM_KEY:
            continue
        if known.has(event):
            counts.unchanged += 1
        elif event.digest is not None:
            counts.erased += 1
        else:
            batch.append(event)
        if len(batch) == _BATCH:
            _write(target, header, batch, counts)
            batch = []
        if progress is not None and event.position % _BATCH == 0:
            progress(header.domain, event.position, 0)
    if batch:
        _write(target, header, batch, counts)


def _proven(first: Event, events: Iterator[Event], header: Header) -> Iterator[Event]:
    """The events after the birth row, each checked against the one before it."""
    head = check(genesis(header.format), first, header.domain)
    for event in events:
        head = check(head, event, header.domain)
        yield event


class _Known:
    """What of a source is in a domain already: the beginning they share, and what was imported before."""

    def __init__(self, target: DomainStore, header: Header, *, own: bool) -> None:
        self._header = header
        self._imported = _last_imported(target, header)
        self._own = target.events() if own else iter(())

    def has(self, event: Event) -> bool:
        """Ask in the order of the source. Raises CorruptionError where its history is not the one imported before."""
        own = next(self._own, None)
        if own is not None and own.checksum == event.checksum:
            return True
        self._own = iter(())
        imported = self._imported
        if imported is not None and event.position == imported.position and event.checksum != imported.checksum:
            raise CorruptionError(
                self._header.domain,
                event.position,
                f"this is not the event that was imported before from store {self._header.store_id}: its history has become another one",
            )
        return imported is not None and event.position <= imported.position


def _last_imported(target: DomainStore, header: Header) -> Head | None:
    last: Head | None = None
    for event in target.events():
        if event.meta is None or '"origin"' not in event.meta:
            continue
        origin = _origin(event.meta)
        if origin is not None and (origin.store_id, origin.domain) == (header.store_id, header.domain):
            last = Head(origin.position, bytes.fromhex(origin.checksum))
    return last


def _origin(meta: str) -> _Origin | None:
    try:
        return _decode_origin(meta).origin
    except msgspec.MsgspecError:
        return None


def _write(target: DomainStore, header: Header, events: list[Event], counts: Imported) -> None:
    """The event_id makes two imports of one source at the same time write it once."""
    coding = Coding(header.store_id, max_value_bytes=_LARGEST)
    event_id = f"import:{header.store_id}:{header.domain}:{events[0].position}"
    with target.batch(event_id=event_id) as batch:
        for event in events:
            _add(batch, header, coding, event)
    written = sum(receipt.appended for receipt in batch.receipts)
    counts.written += written
    counts.unchanged += len(events) - written


def _add(batch: Batch, header: Header, coding: Coding, event: Event) -> None:
    meta = _meta(event, header)
    key = decode_key(event.key)
    text = coding.text_of(header.domain, event)
    if text is not None:
        batch.write_value(key, msgspec.Raw(text.encode()), when=event.when_us, **meta)
    else:
        batch.remove_value(key, when=event.when_us, **meta)


def _meta(event: Event, header: Header) -> EventMeta:
    """What the event said of itself then, and where it comes from. Its event_id named a call to the other store."""
    said = _decode_meta(event.meta) if event.meta is not None else {}
    meta = {name: said[name] for name in EventMeta.__annotations__ if name in said}
    return cast("EventMeta", {**meta, "origin": origin_of(event, header)})
