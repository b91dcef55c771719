"""What was redacted in a source is redacted where its events are as well: those that a store shares with it, and those imported from it.

Which they are is looked for in the store each time, not remembered: so whatever left them there, a killed import or an archive that
was not at hand, the next import finds them.
"""

from __future__ import annotations

import msgspec

from eventstore.domain import DomainStore
from eventstore.erasure import Selection, Told, copies_left, named_by_redactions
from eventstore.log import FileLog
from eventstore.model import SYSTEM_KEY, Event, HeldCopy
from eventstore.projections.key_states import read_redaction
from eventstore.tools.imported import Imported
from eventstore.tools.interchange import Header
from eventstore.tools.origins import Origin, meta_of, read_origin


class _Keys(msgspec.Struct, frozen=True):
    """What the redact event of a shredding says beside the positions."""

    keys: list[str] = []


_read_keys = msgspec.json.Decoder(_Keys).decode


class Redactions:
    """Those that one domain of an export tells of, gathered as its events are read."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._told: dict[int, Told] = {}
        """By the position in the source whose value is erased."""
        self._checksums: dict[int, bytes] = {}
        """Of the events that stand there without their values."""

    def note(self, event: Event) -> None:
        """Take note of an event of the source, which was proven."""
        if event.digest is not None:
            self._checksums[event.position] = event.checksum
        if event.key == SYSTEM_KEY and event.op == "redact" and isinstance(event.data, str):
            told = Told(event.position, meta_of(event, self._header), _read_keys(event.data).keys)
            self._told |= dict.fromkeys(read_redaction(event.data).positions, told)

    def carry_out(self, target: DomainStore, shared: int, counts: Imported) -> None:
        """Erase what they mean in `target`, which has the events up to `shared` in common with the source.

        Comes after every other event of the source: those that say where they came from are how the next import knows what is there.
        """
        if not self._told:
            return
        found: set[int] = set()

        def tell(event: Event) -> Told | None:
            position = event.position if event.position <= shared else self._imported(read_origin(event))
            told = self._told.get(position or 0)
            if told is not None and position is not None:
                found.add(position)
            return told

        met = target.redact_told(tell)
        counts.erased_here += len(met.holding)
        counts.held += self._held(target, met, self._told.keys() - found, shared)

    def _imported(self, origin: Origin | None) -> int | None:
        """Where in this source an event came from that is redacted there; None if it came from nowhere, or elsewhere."""
        if origin is None or not origin.is_of(self._header):
            return None
        checksum = self._checksums.get(origin.position)
        return origin.position if checksum is None or checksum.hex() == origin.checksum else None

    def _held(self, target: DomainStore, met: Selection, missing: set[int], shared: int) -> list[HeldCopy]:
        """What may still hold one of these values: where it was erased now, and where it could not be looked for it."""
        live = target.group.live
        here = {position for position in missing if position <= shared}.difference(named_by_redactions(live.log, live.fresh().system))
        missing = here | {position for position in missing if position > shared}
        left = Selection(target.name)
        left.holding, left.already = met.holding, here
        if isinstance(live.log, FileLog) and live.log.theirs(sorted(met.already)):
            left.already |= met.already
        if missing:
            left.cut_off, left.unseen = met.cut_off, met.unseen
        if left or left.cut_off:
            return copies_left(live.log, left)
        return list(live.log.copies()) if met.already else []
