"""Survivors of a broken chain as the events of a new log: in their order, each saying in meta.origin where it came from.

Key, op, when, salt, data and digest stay as they are, byte for byte; position, prev, recorded_us and checksum are the new
log's, the old ones stand in the origin. An event_id stays where all events of its call survived, so that a retry still
gets an answer and writes nothing; of a call that survived in part it moves into the origin: a retry writes the call
again, which is better than to be told that all of it is there. What the log says of itself is said anew: redactions name
the new positions, and a loss event at the end tells what is missing.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import msgspec

from eventstore.clock import Clock
from eventstore.codec import FORMAT, GENESIS, SALT_BYTES, Birth, checksum_of, seal_birth, seal_system
from eventstore.model import SYSTEM_KEY, Event, Head, WriteRule
from eventstore.projections.key_states import read_redaction
from eventstore.survivors import Fate, Survivor, Survivors

_CALL = ("event_id", "request", "batch", "skipped")

_encode = msgspec.json.Encoder().encode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Call(msgspec.Struct, frozen=True):
    event_id: str | None = None
    batch: int = 1


class Resealing:
    """One domain on its way into the new store `store_id`; `rule` and `old_store_id` are what its birth row said, if it is there."""

    def __init__(
        self,
        survivors: Survivors,
        clock: Clock,
        *,
        store_id: str,
        old_store_id: str | None,
        rule: WriteRule,
        unproven: bool,
        loss: str | None,
    ) -> None:
        self.left_out: list[int] = []
        """Positions of the log's own events that say nothing true about another log: they are not written."""
        self._survivors, self._clock = survivors, clock
        self._store_id, self._old_store_id = store_id, old_store_id
        self._rule: WriteRule = rule
        self._unproven, self._loss = unproven, loss
        self._head = GENESIS
        self._recorded_us = 0
        self._latest: dict[str, int] = {}
        self._erased: dict[int, int] = {}
        """Old to new positions of what was erased; a redact event names them."""
        self._unexplained: set[int] = set()

    def events(self) -> Iterator[Event]:
        """The birth row, the survivors, and what is to be said at the end."""
        self._recorded_us = self._clock.stamps(1, 0)[0]
        birth = Birth(FORMAT, self._store_id, self._survivors.domain, self._recorded_us, self._rule)
        yield self._follows(seal_birth(birth, secrets.token_bytes(SALT_BYTES)))
        found: Survivor | None = None
        for survivor in self._in_order():
            if survivor.event.op == "open":
                continue
            found = survivor if survivor.fate == "kept" else found
            event = self._event(survivor)
            if event is None:
                self.left_out.append(survivor.event.position)
            else:
                yield self._follows(event)
        if self._unexplained:
            reason = "salvage: erased copies of these events survived, the event that erased them did not"
            yield self._follows(self._said("redact", {"positions": sorted(self._unexplained), "reason": reason}))
        if self._loss is not None:
            last = self._survivors.last()
            checksum = self._survivors.known_checksum(last)
            data = {"witnessed": _head(last, checksum), "found": found and _head(found.event.position, found.event.checksum)}
            yield self._follows(self._said("loss", {**data, "reason": self._loss}))

    def _in_order(self) -> Iterator[Survivor]:
        """By position; what belongs to an abandoned history where it was abandoned."""
        main: tuple[Fate, ...] = ("kept", "unproven") if self._unproven else ("kept",)
        aside = self._survivors.iterate("aside") if self._unproven else iter(())
        first = next(aside, None)
        for survivor in self._survivors.iterate(*main):
            if first is not None and survivor.event.position >= first.event.position:
                yield first
                yield from aside
                first = None
            yield survivor
        if first is not None:
            yield first
            yield from aside

    def _follows(self, event: Event) -> Event:
        self._head, self._recorded_us = Head(event.position, event.checksum), event.recorded_us
        self._latest[event.key] = event.position
        if event.digest is not None:
            self._unexplained.add(event.position)
        return event

    def _said(self, op: str, data: dict[str, Any]) -> Event:
        return seal_system(
            self._head,
            prev=self._latest[SYSTEM_KEY],
            recorded_us=self._stamp(),
            op=op,
            data=data,
            salt=secrets.token_bytes(SALT_BYTES),
        )

    def _stamp(self) -> int:
        return self._clock.stamps(1, self._recorded_us)[0]

    def _event(self, survivor: Survivor) -> Event | None:
        """The survivor as the next event of the new log; None if it cannot be one."""
        old, data, salt = survivor.event, survivor.event.data, survivor.event.salt
        if old.op == "redact":
            data, salt = self._redaction(old), secrets.token_bytes(SALT_BYTES)
        elif old.key == SYSTEM_KEY and old.op != "loss":
            return None
        event = msgspec.structs.replace(
            old,
            position=self._head.position + 1,
            prev=self._latest.get(old.key, 0),
            recorded_us=self._stamp(),
            meta=self._meta(survivor),
            data=data,
            salt=salt,
        )
        if old.digest is not None:
            self._erased[old.position] = event.position
        return msgspec.structs.replace(event, checksum=checksum_of(self._head.checksum, event, self._survivors.domain))

    def _redaction(self, old: Event) -> str:
        said = _decode_members(old.data or "{}")
        named = [self._erased[position] for position in read_redaction(old.data or "{}").positions if position in self._erased]
        self._unexplained.difference_update(named)
        return _encode({**said, "positions": named}).decode()

    def _meta(self, survivor: Survivor) -> str:
        old = survivor.event
        said = _decode_members(old.meta) if old.meta is not None else {}
        origin: dict[str, Any] = {
            "store_id": self._old_store_id,
            "domain": self._survivors.domain,
            "position": old.position,
            "checksum": old.checksum.hex(),
            "recorded_us": old.recorded_us,
        }
        if survivor.fate != "kept":
            origin[survivor.fate] = True
        if "event_id" in said and not self._is_whole_call(survivor):
            origin["event_id"] = said["event_id"]
            said = {name: value for name, value in said.items() if name not in _CALL}
        if "origin" in said:  # it had come from somewhere else before
            origin["origin"] = said.pop("origin")
        return _encode({**said, "origin": origin}).decode()

    def _is_whole_call(self, survivor: Survivor) -> bool:
        if survivor.fate != "kept" or survivor.event.meta is None:
            return False
        try:
            call = msgspec.json.decode(survivor.event.meta, type=_Call)
        except msgspec.ValidationError:
            return False
        return call.event_id is not None and self._survivors.are_kept(survivor.event.position, max(call.batch, 1))


def _head(position: int, checksum: bytes | None) -> dict[str, Any]:
    return {"position": position, "checksum": None if checksum is None else checksum.hex()}
