"""A log and everything folded from it so far: key states, values at hand, event ids. Follows the log, never leads it."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from eventstore.carried import prove_carried
from eventstore.codec import GENESIS, check, check_all, check_linked
from eventstore.coding import Coding
from eventstore.errors import CompactedError, CorruptionError, EventStoreError, FormatError
from eventstore.event_ids import EventIds
from eventstore.log import EventLog
from eventstore.metrics import Gauges
from eventstore.model import Event, Head, KeyState, Receipt
from eventstore.pointers import SPACING, PointerFolder
from eventstore.projections.key_states import KeyStates, ValueCache
from eventstore.values import LARGE

_log = logging.getLogger("eventstore")

_PAGE = 64
"""Values read at a time: each may be large."""

_FOLDED = 16
"""Events folded at a time; as many as may be large together without being a burden."""

_TAIL = 256
"""Events that an opening may as well read from the log."""


class Live:
    """What the read verbs and the writers of one domain share. Threads may read while one of them folds."""

    def __init__(
        self, log: EventLog, pointers: PointerFolder, cache: ValueCache, *, lenient: bool = False, coding: Coding | None = None
    ) -> None:
        self.log = log
        self.coding = coding or Coding()
        self.lenient = lenient
        """Whether damage is gone around with a warning, so that what is intact can be read; nothing may be written then."""
        self.cache = cache
        self.pointers = pointers
        self.answered: OrderedDict[str, tuple[str, list[Receipt]]] = OrderedDict()
        """Calls with an event_id that appended nothing, so that no event carries it: request and receipts, for a retry."""
        self.damage: CorruptionError | None = None
        """What was found beyond the states: whoever finds it is told, and what was folded before it can still be read."""
        self.on_damage: Callable[[CorruptionError], None] | None = None
        """Told of damage that a reader finds, with no lock held."""
        self._folding = threading.RLock()
        self._stale = False
        self._load()

    def _load(self) -> None:
        self.states = newest_start(self.log, self.pointers, self.log.head().position, lenient=self.lenient)
        self._saved = self.states.position
        self.ids = EventIds(self.log, self.pointers, since=self._saved)
        self.catch_up()

    def fresh(self) -> KeyStates:
        """The key states, with everything that other processes have written so far."""
        if self.log.moved(self.states.position):
            self._catch_up_to_read()
        return self.states

    def head(self) -> Head:
        """The last event there is, folded."""
        self._catch_up_to_read()
        with self._folding:
            return self.states.head

    def _catch_up_to_read(self) -> None:
        if self.damage is not None:
            return
        try:
            self.catch_up()
        except CorruptionError as error:
            if self.on_damage is not None:
                self.on_damage(error)
            raise

    def catch_up(self, head: Head | None = None) -> None:
        """Fold what the log has beyond the states, checking every link; nothing if they stand at `head`. Raises CorruptionError."""
        with self._folding:
            if self._stale:
                self._stale = False
                self._load()
            if self.states.head != head:
                try:
                    self._fold()
                except CompactedError:
                    # Sealed by others, and archived before we had seen all of it: what is carried over the seal is all there is to know.
                    self._load()
                except CorruptionError as error:
                    if not self.lenient:
                        self.damage = error
                        self.log.distrust(error)
                        raise
                    _log.warning("%s; nothing beyond it can be read", error)

    def _fold(self) -> None:
        events = self.log.read(self.states.position)
        while some := list(islice(events, _FOLDED)):
            try:
                check_all(self.states.head, some, self.log.domain)
            except CorruptionError:
                for event in some:
                    self._fold_one(event)
            else:
                self._apply(some)

    def _fold_one(self, event: Event) -> None:
        try:
            check(self.states.head, event, self.log.domain)
            self._apply((event,))
        except CorruptionError as error:
            if not self.lenient:
                raise
            # Not into the cache: whoever asks for this value reads it from the log, and is told.
            _log.warning("%s", error)
            key: object = event.key
            if isinstance(key, str):
                self.states.apply(event)
            else:  # damage can make a blob of a text; nobody can ask for such a key
                self.states.pass_over(event)

    def follow(self, events: Sequence[Event]) -> None:
        """Fold events that this process has just appended; another thread may have folded them already."""
        with self._folding:
            self._apply([event for event in events if event.position > self.states.position])

    def _apply(self, events: Sequence[Event]) -> None:
        # The ids first: whoever finds the states up to date relies on the ids being so.
        self.ids.add(events)
        self.states.apply(*events)
        self.cache.follow(self.log.domain, events)

    # ---- values

    def at_hand(self, position: int) -> bool:
        """Whether the value written at `position` is in memory, and small enough to be decoded in passing."""
        text = self.cache.get(self.log.domain, position)
        return text is not None and len(text) <= LARGE

    def text(self, key: str, state: KeyState) -> str:
        """The JSON text that `key` holds in `state`. Raises RedactedError, CorruptionError."""
        text = self.cache.get(self.log.domain, state.position)
        return text if text is not None else next(self.texts([(key, state)]))[1]

    def texts(self, items: Sequence[tuple[str, KeyState]]) -> Iterator[tuple[str, str]]:
        """The JSON texts of many keys, in their order; those not at hand are read by position, a page at a time."""
        for start in range(0, len(items), _PAGE):
            page = items[start : start + _PAGE]
            found = {state.position: text for _, state in page if (text := self.cache.get(self.log.domain, state.position)) is not None}
            missing = [(key, state) for key, state in page if state.position not in found]
            found.update(self._read(missing))
            for key, state in page:
                yield key, found[state.position]

    def _read(self, items: Sequence[tuple[str, KeyState]]) -> dict[int, str]:
        """Values from the log, each checked against the event before it: rot is never handed out as a value."""
        erasures = self.cache.erasures
        wanted = [state.position for _, state in items]
        events = {each.event.position: each for each in self.log.linked(wanted)} if wanted else {}
        found: dict[int, str] = {}
        for key, state in items:
            position = state.position
            linked = events.get(position)
            if linked is None or linked.previous is None or linked.event.key != key:
                raise FormatError(self.log.domain, position, f"the event that should hold {key} is not there; run `eventstore verify`")
            check_linked(linked, self.log.domain)
            text = self.text_of(linked.event)
            if text is None:
                raise FormatError(self.log.domain, position, f"the event that should hold {key} holds no value; run `eventstore verify`")
            found[position] = text
            self.cache.put(self.log.domain, position, text, erasures=erasures)
        return found

    def text_of(self, event: Event) -> str | None:
        """The JSON text of an event's value, None for a removal. Raises RedactedError, FormatError."""
        return self.coding.text_of(self.log.domain, event)

    def gauges(self) -> Gauges:
        """How the domain is at this moment."""
        return Gauges(self.log.head().position, self.states.position, self.log.wal_bytes())

    # ---- pointer files

    def save_pointers(self, *, closing: bool = False) -> None:
        """Write pointer files if reading the tail at the next opening would cost more than that. Call under the log's lock."""
        if self._worth_saving(closing=closing):
            self.pointers.save(self.states)
            self.ids.save(self.states.head)
            self._saved = self.states.position

    def save_ids(self, *, since: int) -> None:
        """Write the event ids up to the head, in a file for all after `since`. Call under the log's lock, once it was sealed there.

        So they are known when the events are not at hand any more, and a file that ends in a seal can be held against the log even then.
        """
        try:
            self.ids.save(self.states.head, since=since)
        except CompactedError as error:
            _log.warning("%s: the event ids of older files are not known: %s", self.log.domain, error)

    def keep_ids(self, until: int) -> None:
        """See to it that the event ids up to `until`, where a file of the log ends, are part of the store: see EventIds.keep()."""
        self.catch_up()
        (seal,) = self.log.linked([until])
        self.ids.keep(Head(until, seal.event.checksum))

    def _worth_saving(self, *, closing: bool) -> bool:
        tail = self.states.position - self._saved
        return tail >= max(SPACING, 4 * len(self.states)) or (closing and (self.ids.were_read or tail >= max(_TAIL, len(self.states) // 8)))

    def close(self) -> None:
        """Save the pointer files where that pays, then close the log."""
        try:
            if self.pointers.writable and (self.pointers.has_met_wrong_ones or self._worth_saving(closing=True)):
                with self.log.writing():
                    self.pointers.remove_wrong_ones()
                    self.catch_up()
                    self.save_pointers(closing=True)
        except EventStoreError as error:
            # A cache that is not written costs the next opening some time; the log is what must be closed well.
            _log.warning("%s: no pointer files were written: %s", self.log.domain, error)
        finally:
            self.log.close()

    def resume(self) -> None:
        """Open the log anew after a failure, and fold again: what was seen through the old connections is not believed.

        Folded aside, and put in place whole and under the log's lock: a write that is being decided, and a read, must
        never meet states that are half folded. They would miss keys and event ids that are there.
        """
        self.log.resume()
        try:
            loaded = Live(self.log, self.pointers, self.cache, lenient=self.lenient, coding=self.coding)
        except CorruptionError as error:
            self.damage = error  # what could be read still can be
            raise
        if self.lenient:
            self._replace(loaded)  # nobody writes, and nobody may lock
        else:
            with self.log.writing() as head:
                loaded.catch_up(head)
                self._replace(loaded)

    def _replace(self, loaded: Live) -> None:
        with self._folding:
            self.ids, self.states, self._saved = loaded.ids, loaded.states, loaded._saved
            self.damage = loaded.damage

    def after_fork(self) -> None:
        """In a forked child: if another thread was folding when the process split, fold anew at the next use."""
        self.ids.after_fork()
        if not self._folding.acquire(blocking=False):
            self._folding = threading.RLock()
            self._stale = True
            self.states = KeyStates(GENESIS, 0)
            self.damage = None  # met again by whoever folds; as long as it is known, nobody would
        else:
            self._folding.release()


def newest_start(log: EventLog, pointers: PointerFolder, until: int, *, lenient: bool = False) -> KeyStates:
    """The newest states at or before `until` that need no folding of all that came before: of a pointer file, or at a seal.

    Of what is carried over a seal every event is proven, and that it is all there is. Raises CorruptionError, or warns
    if `lenient`; CompactedError.
    """
    start = log.start(until)
    states = pointers.latest(since=start, until=until)
    if states is None:
        states = KeyStates(GENESIS, 0)
        for event in prove_carried(log.carried(start), start, log.domain, lenient=lenient):
            states.apply(event)
    return states
