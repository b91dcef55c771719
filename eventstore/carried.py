"""What a file of a log takes over from the one before it, and the seal that vouches for it (FORMAT.md section 8). Pure.

Carried are all events of the log itself and the latest of every key, with the positions and checksums they have: what every key
is as of the seal can be told without the sealed file, and proven, as each comes with the checksum of the event before it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec

from eventstore.codec import check_linked
from eventstore.errors import CorruptionError, FormatError
from eventstore.model import SYSTEM_KEY, Event, Linked

_log = logging.getLogger("eventstore")


class Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a seal event says. It is the last event of its file."""

    first: int
    """The position that the sealed file begins with and is named by: 0, or the one after the seal before."""
    last: int
    """The seal's own position."""
    count: int
    """How many events were appended to the sealed file, the seal included: last - first + 1."""
    carried: int
    """How many events are carried over this seal, itself not counted."""
    carried_digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    """SHA-256 in hexadecimal over position, previous checksum and checksum of each of them, in order of position."""


class CarriedDigest:
    """What a seal says of the events that are carried over it, as they are counted in, in order of position."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.count = 0

    def add(self, position: int, previous: bytes, checksum: bytes) -> None:
        """Count in an event, by its checksum and that of the event before it."""
        self._digest.update(position.to_bytes(8, "big") + previous + checksum)
        self.count += 1

    def seal(self, first: int, last: int) -> Seal:
        """The data of a seal at `last` that ends a file which begins at `first`."""
        return Seal(first, last, last - first + 1, self.count, self._digest.hexdigest())


class Beginning(msgspec.Struct, frozen=True):
    """What a log begins with whose first files are not at hand: all that is left of what came before."""

    floor: int
    """Where the last file ends that is not there."""
    carried: Iterable[Linked]
    """What is carried over the seal at `floor`, by position, that seal last: as EventLog.carried() gives it."""
    ids: Iterable[tuple[int, int]]
    """The hash of each event_id up to `floor`, and the position of the event that carries it: as EventIds.pairs() gives them."""


def prove_carried(carried: Iterable[Linked], start: int, domain: str, *, lenient: bool = False) -> Iterator[Event]:
    """The events that prove_linked() gives."""
    return (each.event for each in prove_linked(carried, start, domain, lenient=lenient))


def prove_linked(carried: Iterable[Linked], start: int, domain: str, *, lenient: bool = False) -> Iterator[Linked]:
    """The events carried over the seal at `start`, each checked by itself, and at the end all of them against the seal, the last one.

    `start` 0 is the birth row alone. Raises CorruptionError: what was given until then is not all there should be. `lenient`
    warns of it instead, so that what is intact can be read; of the birth row that is not enough.
    """
    digest, last = CarriedDigest(), None
    for each in carried:
        if last is not None:
            digest.add(last.event.position, last.previous or b"", last.event.checksum)
        try:
            check_linked(each, domain)
        except CorruptionError as error:
            if not lenient or start == 0:
                raise
            _log.warning("%s", error)
        last = each
        yield each
    try:
        _require_as_sealed(last, digest, start, domain)
    except CorruptionError as error:
        if not lenient or last is None:
            raise
        _log.warning("%s", error)


def _require_as_sealed(last: Linked | None, digest: CarriedDigest, start: int, domain: str) -> None:
    if last is None or last.event.position != start:
        raise FormatError(domain, start, "the seal that should stand here is missing" if start else "the birth row is missing")
    if start and digest.seal((seal := read_seal(last.event, domain)).first, start) != seal:
        raise FormatError(domain, start, _not_as_sealed(seal, digest.count))


def _not_as_sealed(seal: Seal, found: int) -> str:
    return (
        f"{found:,} events are carried over this seal, and they are not the {seal.carried:,} that it names: the file was altered;"
        " run `eventstore verify`, then put the file back from a backup"
    )


def read_seal(event: Event, domain: str) -> Seal:
    """What a seal event says. Raises FormatError for an event that is none, or says nothing that can be true."""
    try:
        if event.key != SYSTEM_KEY or event.op != "seal" or not isinstance(event.data, str):
            raise FormatError(domain, event.position, "a seal should stand here; the file after it has lost what vouches for it")
        seal = msgspec.json.decode(event.data, type=Seal)
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise FormatError(domain, event.position, f"the seal says nothing readable: {error}") from error
    if seal.last != event.position or not 0 <= seal.first <= seal.last or seal.count != seal.last - seal.first + 1:
        raise FormatError(domain, event.position, f"the seal says that it ends positions {seal.first} to {seal.last}, {seal.count} events")
    return seal
