"""Exported events into a store: unchanged where the store is their own, else anew, with the place they came from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryFile
from typing import TypeVar, cast

import msgspec

from eventstore.carried import Beginning, prove_linked
from eventstore.codec import FORMAT, check, decode_key, genesis, read_birth
from eventstore.coding import Blob, Coding, codecs_of, encrypted_with
from eventstore.domain import DomainStore
from eventstore.errors import (
    CompactedError,
    ConfigError,
    ContractError,
    CorruptionError,
    FormatError,
    InvalidKeyError,
    InvalidValueError,
    MissingKeyError,
    RedactedError,
)
from eventstore.files import os_errors
from eventstore.model import SYSTEM_KEY, Domain, Event, Head, WriteRule
from eventstore.store import Store
from eventstore.tools.import_known import Known, event_id_of
from eventstore.tools.import_redactions import Redactions
from eventstore.tools.imported import Imported, ImportReport
from eventstore.tools.interchange import Exported, Header, Reader, decode_event, encode_event
from eventstore.tools.origins import meta_of
from eventstore.tools.stores import raw_domain
from eventstore.tools.terminal import Progress
from eventstore.writes import Batch

_Each = TypeVar("_Each")

_BATCH = 1_000
_LARGEST = 2**30
"""How far a value may be unpacked; whether the store takes it is for the store to say."""


def import_events(
    reader: Reader, store: Store, report: ImportReport, *, domain: str | None = None, progress: Progress | None = None
) -> None:
    """Bring every domain of an export, or one, into `store`. A broken one goes into the report, the others land."""
    for exported in reader:
        header = exported.header
        if domain is not None and header.domain != domain:
            continue
        counts = report.of(header.domain)
        try:
            if header.format == FORMAT and header.store_id == store.store_id and header.domain not in store.domains():
                _adopt(store, exported, counts, progress)
            else:
                _append(store, exported, counts, progress)
            counts.open_ended = header.head is None
        except CorruptionError as error:
            report.problem(header.domain, _placed(error, reader))
        except (CompactedError, ConfigError, ContractError, InvalidKeyError, InvalidValueError) as error:
            report.problem(header.domain, error)
    for name, before in reader.missing.items():
        if domain in (None, name):
            report.problem(name, f"not in the export, though the header of domain {before} announces it: it was cut off; export again")


def _placed(error: CorruptionError, reader: Reader) -> str:
    """What is wrong, and where in the file that was met: events are judged as they are read, or soon after."""
    said = str(error)
    return said if reader.name in said else f"{said}. Met at line {reader.line} of {reader.name}"


def _adopt(store: Store, exported: Exported, counts: Imported, progress: Progress | None) -> None:
    header, given = exported.header, 0

    def reached(position: int) -> None:
        if progress is not None:
            progress(header.domain, position, 0)

    def counted(events: Iterator[_Each]) -> Iterator[_Each]:
        nonlocal given
        for each in events:
            given += 1
            yield each

    beginning = Beginning(header.floor, counted(exported.carried), exported.ids) if header.floor else None
    store.adopt(header.domain, counted(exported.events), beginning=beginning, progress=reached)
    counts.adopted += given - 1  # the birth row is none of the events
    counts.floor = store.domain(header.domain).floor


# ---- anew


def _append(store: Store, exported: Exported, counts: Imported, progress: Progress | None) -> None:
    """Append the events that `store` does not have yet, each proven before; a batch of them is one transaction."""
    header, events = exported.header, _proven(exported)
    birth = read_birth(first := next(events, None), header.domain, header.format)
    if (birth.store_id, birth.domain) != (header.store_id, header.domain):
        raise FormatError(
            header.domain,
            0,
            f"the header says domain {header.domain!r} of store {header.store_id}, but the events are those of {birth.domain!r} of store"
            f" {birth.store_id}: the header was altered; export again",
        )
    assert first is not None  # read_birth() refuses None
    with ExitStack() as kept:
        if header.domain in store.domains():
            _require_rule(store.domain(header.domain).domain.write, birth.write, header)
        else:
            events = kept.enter_context(_whole(events, header, store))
            store.domain(Domain(header.domain, birth.write))
        _append_new(store, header, events, counts, progress)


def _require_rule(here: WriteRule, there: WriteRule, header: Header) -> None:
    if here != there:
        raise ContractError(
            f"{header.domain}: its write rule is {here!r} here, and {there!r} in the source, so that one keeps what the other does not:"
            " nothing of it was imported; import it into a store that has no such domain"
        )


@contextmanager
def _whole(events: Iterator[Event], header: Header, store: Store) -> Iterator[Iterator[Event]]:
    """The same events once all of them were proven, and can be had: a domain is not made for the half of one.

    They are kept in a file without a name meanwhile, where they will be anyway: that killed processes leave nothing.
    """
    place = store.location if os.path.isdir(store.location) else None
    doing = f"keeping the events of domain {header.domain} until all are proven"
    with ExitStack() as closing:
        with os_errors(doing):
            file = closing.enter_context(TemporaryFile(dir=place))
        for event in events:
            _require_takable(event, header, store)
            with os_errors(doing):
                file.write(encode_event(event))
        with os_errors(doing):
            file.seek(0)
        yield map(decode_event, file)


def _require_takable(event: Event, header: Header, store: Store) -> None:
    """Raise ConfigError for a value encrypted for another store, as nobody could ever open it here, InvalidValueError for a large one."""
    if isinstance(event.data, str) and event.key != SYSTEM_KEY:
        _require_size(len(event.data.encode()), event, header, store)
    key_id = encrypted_with(event)
    if key_id is not None and header.store_id != store.store_id:
        raise ConfigError(
            f"{header.domain}@{event.position}: the value is encrypted with key {key_id}, and opens in store {header.store_id} only, but"
            f" {store.location} is store {store.store_id}: nothing from this event on was imported, with or without its keys. Import into a"
            " new folder, which becomes that store, and open it with its key file; or let a program read it there, and write it here into a"
            " domain with a subject of its own, so that it stays encrypted"
        )


def _require_size(size: int, event: Event, header: Header, store: Store) -> None:
    if size > store.max_value_bytes:
        raise InvalidValueError(
            f"{header.domain}@{event.position}: the value of {event.key} takes {size} bytes, at most {store.max_value_bytes} are allowed"
            " (max_value_bytes): nothing from this event on was imported; set EVENTSTORE_MAX_VALUE_BYTES, here and for who writes there"
        )


def _append_new(store: Store, header: Header, events: Iterator[Event], counts: Imported, progress: Progress | None) -> None:
    """Append what the domain, which is there, does not have."""
    target = raw_domain(store, header.domain)
    known = Known(target, header, own=header.store_id == store.store_id)
    redactions = Redactions(header)
    counts.source_floor = header.floor
    batch: list[Event] = []
    for event in events:
        is_known = known.has(event)
        redactions.note(event)
        if event.key == SYSTEM_KEY:
            continue
        if is_known:
            counts.unchanged += 1
        elif event.digest is not None:
            counts.erased += 1
        else:
            _require_takable(event, header, store)
            batch.append(event)
        if len(batch) == _BATCH:
            _write(target, header, batch, counts)
            batch = []
        if progress is not None and event.position % _BATCH == 0:
            progress(header.domain, event.position, 0)
    known.require_told()
    if batch:
        _write(target, header, batch, counts)
    redactions.carry_out(target, known.shared, counts)


def _proven(exported: Exported) -> Iterator[Event]:
    """The events, the birth row first: those that are carried by themselves, each other against the one before it."""
    header = exported.header
    head = genesis(header.format)
    if header.floor:
        for each in prove_linked(exported.carried, header.floor, header.domain):
            yield each.event
            head = Head(each.event.position, each.event.checksum)
    for event in exported.events:
        head = check(head, event, header.domain)
        yield event


def _write(target: DomainStore, header: Header, events: list[Event], counts: Imported) -> None:
    coding = Coding(header.store_id, max_value_bytes=_LARGEST)
    with target.batch(event_id=event_id_of(header, events[0].position)) as batch:
        for event in events:
            _add(batch, header, coding, event)
    for event, receipt in zip(events, batch.receipts, strict=True):
        if receipt.appended:
            counts.written += 1
        elif event.op == "put" and _is_other(target, target.event(receipt.position), header, coding, event):
            counts.standing.append(event.key)
        else:
            counts.unchanged += 1


def _is_other(target: DomainStore, standing: Event, header: Header, coding: Coding, event: Event) -> bool:
    """Whether what stands under a key, as the first write, is for certain not what would have been written."""
    try:
        return standing.data != event.data and target.text_of(standing) != coding.text_of(header.domain, event)
    except (RedactedError, MissingKeyError):
        return False


def _add(batch: Batch, header: Header, coding: Coding, event: Event) -> None:
    meta = meta_of(event, header)
    key = decode_key(event.key)
    if encrypted_with(event) is not None:
        batch.write_blob(key, Blob("+".join(codecs_of(event)), cast("bytes", event.data)), when=event.when_us, **meta)
        return
    text = coding.text_of(header.domain, event)
    if text is not None:
        batch.write_value(key, msgspec.Raw(text.encode()), when=event.when_us, **meta)
    else:
        batch.remove_value(key, when=event.when_us, **meta)
