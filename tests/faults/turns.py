"""Two processes at one store, in turns: whoever has the turn carries out one order, and says what came of it.

An order and its answer are JSON, so that a process that was forked to be killed carries out the same orders as the test's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import eventstore
from eventstore import CompactedError, Domain, DomainView, EventStoreError, RedactedError, Retention, Store
from eventstore.codec import decode_key
from eventstore.database import sqlite3
from eventstore.model import Key
from eventstore.tools.export_tables import export_tables
from tests.faults.workers import Tell, adjust
from tests.oracle import text_of

Order = dict[str, Any]
Answer = dict[str, Any]

SMALL = {
    "live": {"_PAGE": 3, "_TAIL": 4, "SPACING": 4},
    "view": {"_PAGE": 3},
    "reading": {"PAGE": 3},
    "logfiles": {"PAGE": 3},
    "carriage": {"PAGE": 3},
    "pointers": {"SPACING": 4},
    "sqlite": {"CHECKPOINT_PAGES": 20},
}
"""Pages, caches and checkpoints so small that a short life crosses all of them."""


def subject_of(key: Key) -> str | None:
    """Keys of people begin with their pseudonym; what stands under a plain string is nobody's."""
    return str(key[0]) if isinstance(key, tuple) else None


DOMAINS = {"notes": Domain("notes"), "people": Domain("people", subject=subject_of)}


def as_key(given: str | list[str | int]) -> Key:
    """A key out of JSON, which knows no tuples."""
    return given if isinstance(given, str) else tuple(given)


class Hand:
    """A process's handle on the store, and what it can be told to do with it."""

    def __init__(self) -> None:
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The store, which is open."""
        assert self._store is not None
        return self._store

    def obey(self, order: Order) -> Answer:
        """Carry out an order, the verb of that name with what else it says; a refusal is an answer."""
        given = dict(order)
        try:
            return {"done": getattr(self, given.pop("do"))(**given)}
        except EventStoreError as error:
            told = {name: getattr(error, name, None) for name in ("floor", "position")}
            return {"refused": type(error).__name__, **told, "message": str(error)}

    def open(self, folder: str, archives: list[str], keys: str) -> None:
        """Open the store, and both of its domains."""
        self._store = eventstore.open(folder, archives=archives, keys=keys, actor="bot", durability="process", min_free_bytes=0)
        for domain in DOMAINS.values():
            self._store.domain(domain)

    def close(self) -> None:
        """Close the store, if it is open."""
        if self._store is not None:
            self._store.close()

    def write(self, domain: str, writes: list[tuple[Any, Any]], event_id: str | None) -> list[tuple[int, bool]]:
        """Write values, remove what has none, in one call; position of each, and whether it is new."""
        with self.store.domain(DOMAINS[domain]).batch(event_id=event_id) as batch:
            for key, value in writes:
                if value is None:
                    batch.remove_value(as_key(key))
                else:
                    batch.write_value(as_key(key), value)
        return [(receipt.position, receipt.appended) for receipt in batch.receipts]

    def seal(self, domain: str) -> bool:
        """Seal the live file."""
        return self.store.seal(domain).sealed

    def archive(self, domain: str, before: int | None, to: str) -> list[int]:
        """Archive sealed files; where each of them ended."""
        (report,) = self.store.archive(domain, before=before, to=to)
        assert report.kept == []
        return [file.last for file in report.files]

    def retain(self, domain: str, keep: int, to: str | None) -> dict[str, Any]:
        """Archive, or delete, all but so many events; in an archive, too, that was put there before this store was copied or restored."""
        (report,) = self.store.retain(Retention(keep_events=keep), domain, to=to, delete=to is None, take_over=to is None)
        assert report.kept == []
        return {"sealed": report.sealed, "files": [file.last for file in report.files]}

    def redact(self, domain: str, key: Any = None, prefix: Any = None, positions: list[int] | None = None) -> dict[str, Any]:
        """Erase values."""
        named: dict[str, Any] = {"positions": positions} if positions is not None else {}
        named |= {name: as_key(given) for name, given in (("key", key), ("prefix", prefix)) if given is not None}
        report = self.store.domain(DOMAINS[domain]).redact(**named, reason="asked")
        return {"position": report.position, "erased": report.erased, "already": report.already, "complete": report.complete}

    def shred(self, subject: str) -> dict[str, list[int]]:
        """Destroy a key; what was erased in each domain."""
        return {erasure.domain: erasure.erased for erasure in self.store.shred(subject, reason="asked").erased}

    def backup(self, to: str) -> dict[str, int]:
        """Back up; up to where each domain was."""
        return {each.domain: each.position for each in self.store.backup(to, processes=1).domains}

    def look(self, domain: str, positions: list[int | None]) -> dict[str, Any]:
        """What the domain is, now (None) and as of positions."""
        live = self.store.domain(DOMAINS[domain])
        views = [_view(live, position) for position in positions]
        return {"head": live.head().position, "floor": live.floor, "views": views}

    def events(self, domain: str, after: int) -> list[dict[str, Any]]:
        """The events after a position, each with what stands in the file only as long as its value does."""
        return [
            {
                "position": event.position,
                "op": event.op,
                "key": decode_key(event.key),
                "checksum": event.checksum.hex(),
                "erased": event.data is None and event.digest is not None,
                "trace": _trace(event.data),
            }
            for event in self.store.domain(DOMAINS[domain]).events(after)
        ]

    def tables(self, domain: str, folder: str, archives: list[str], path: str) -> dict[str, Any]:
        """Export a domain as plain tables: position and key of each event, and whether its value was erased; the keys that are there."""
        export_tables(folder, [domain], Path(path), archives=[Path(archive) for archive in archives])
        with closing(sqlite3.connect(path)) as connection:
            events = connection.execute("SELECT position, key, redacted FROM event WHERE position > 0 ORDER BY position").fetchall()
            keys = connection.execute("SELECT key FROM state").fetchall()
        return {
            "events": [(position, decode_key(key), bool(redacted)) for position, key, redacted in events],
            "keys": [decode_key(key) for (key,) in keys],
        }

    def verify(self) -> dict[str, dict[str, Any]]:
        """What the proof of each domain says."""
        return {
            each.domain: {
                "findings": [f"{finding.kind}: {finding.message}" for finding in each.findings],
                "head": each.head and each.head.position,
                "floor": each.floor,
                "events": each.events,
                "redacted": each.redacted,
            }
            for each in self.store.verify(processes=1).domains
        }


def _view(live: eventstore.DomainStore, position: int | None) -> dict[str, Any]:
    try:
        view: DomainView = live if position is None else live.state(position)
    except CompactedError as error:
        return {"floor": error.floor}
    return {"items": [(key, _text(view, key)) for key in list(view.keys())], "length": len(view)}


def _text(view: DomainView, key: Key) -> str | None:
    try:
        return text_of(view.read_value(key))
    except RedactedError:
        return None


def _trace(data: str | bytes | None) -> str | None:
    """Bytes that no other value has: the beginning of a ciphertext, or of a text, which is a word of its own."""
    if data is None:
        return None
    return (data[:28] if isinstance(data, bytes) else data.encode()[:28]).hex()


def take_turns(tell: Tell, orders: str) -> None:
    """A process that carries out what comes through the named pipe, until it is killed."""
    for module, names in SMALL.items():
        adjust(import_module(f"eventstore.{module}"), **names)
    hand = Hand()
    with Path(orders).open(encoding="utf-8") as lines:
        for line in lines:
            tell(**hand.obey(json.loads(line)))


def find(tell: Tell, folders: Sequence[str], traces: Sequence[str]) -> None:
    """Which files hold any of these bytes. In a process without a store: closing a file drops a process's locks on it."""
    needles = [bytes.fromhex(trace) for trace in traces]
    tell(files=[str(path) for path in _files(folders) if any(needle in content for content in [path.read_bytes()] for needle in needles)])


def _files(folders: Sequence[str]) -> Iterator[Path]:
    return (path for folder in folders for path in sorted(Path(folder).rglob("*")) if path.is_file())
