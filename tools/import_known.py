"""What a domain has of a source already: the beginning that they share, and what earlier imports brought."""

from __future__ import annotations

from eventstore.domain import DomainStore
from eventstore.errors import CompactedError, CorruptionError, LostIdsError
from eventstore.model import SYSTEM_KEY, Event, Head
from eventstore.roots import below_floor
from eventstore.tools.interchange import Header
from eventstore.tools.origins import read_origin


class Known:
    """What of a source is in a domain already: the beginning they share, and what was imported before."""

    def __init__(self, target: DomainStore, header: Header, *, own: bool) -> None:
        self._header = header
        self._shared = _Shared(target) if own else None
        self._imported = _last_imported(target, header)
        self.shared = 0
        """Up to here the events of the source are those of the domain itself."""

    def has(self, event: Event) -> bool:
        """Ask in the order of the source. Raises CorruptionError where its history is not the one imported before, CompactedError."""
        if self._shared is not None:
            if self._shared.has(event):
                self.shared = event.position
                return True
            self._shared = None
        if event.key == SYSTEM_KEY:
            return False
        imported = self._imported
        if imported is not None and event.position == imported.position and event.checksum != imported.checksum:
            raise CorruptionError(
                self._header.domain,
                event.position,
                f"this is not the event that was imported before from store {self._header.store_id}: its history has become another one",
            )
        return imported is not None and event.position <= imported.position

    def require_told(self) -> None:
        """After the last event of the source: raise CompactedError if what is below the floor was taken for known, and may be not."""
        if self._shared is not None:
            self._shared.require_told()


class _Shared:
    """The beginning that an export has in common with the domain of the very same store: the same event at the same position.

    Below the domain's floor there is little to compare: then it is the next event at hand that tells, as its checksum covers all
    before it.
    """

    def __init__(self, target: DomainStore) -> None:
        self._log, self._floor = target.group.live.log, target.floor
        self._events = target.events(self._floor, carried=True)
        self._next = next(self._events, None)
        self._untold: int | None = None

    def has(self, event: Event) -> bool:
        """Whether the beginning goes on with this event. Raises CompactedError as require_told() does, where it does not."""
        while self._next is not None and self._next.position < event.position:
            self._next = next(self._events, None)
        own = self._next
        if own is None or (own.position > event.position and event.position > self._floor):
            self.require_told()
            return False
        if own.position > event.position:
            self._untold = event.position
            return True
        if own.checksum == event.checksum:
            self._untold = None
            return True
        self.require_told()
        return False

    def require_told(self) -> None:
        """Raise CompactedError if the last that was taken for known was not at hand."""
        if self._untold is not None:
            raise below_floor(self._log, self._untold, "whether this event of the export is the one that stood here cannot be told")


def _last_imported(target: DomainStore, header: Header) -> Head | None:
    """How far imports from this source came. Raises CompactedError where that is below the floor, and cannot be told."""
    last: Head | None = None
    floor, found = target.floor, 0
    for event in target.events(floor, carried=True):
        origin = read_origin(event)
        if origin is None or not origin.is_of(header):
            continue
        found = event.position
        if last is None or origin.position > last.position:  # a redaction may be carried out long after what stands behind it there
            last = Head(origin.position, bytes.fromhex(origin.checksum))
    if floor and found <= floor and (last is not None or _was_imported(target, header)):
        message = f"how far an earlier import of {header.domain} from store {header.store_id} came cannot be told"
        raise below_floor(target.group.live.log, floor, message)
    return last


def _was_imported(target: DomainStore, header: Header) -> bool:
    """Whether an import from this source began at any position: the event ids of what is not at hand tell. Raises LostIdsError."""
    if header.head is None:
        return True  # a draft does not say how many positions there are
    try:
        return any(target.group.live.ids.find(event_id_of(header, position)) for position in range(1, header.head.position + 1))
    except LostIdsError:
        raise
    except CompactedError:
        return True


def event_id_of(header: Header, position: int) -> str:
    """Of the call that imports a batch which begins with this event of the source: two imports at the same time write it once."""
    return f"import:{header.store_id}:{header.domain}:{position}"
