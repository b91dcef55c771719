"""Bundles: a few events with what it takes to prove them to somebody who has neither the store nor this library (FORMAT.md section 11).

A bundle says where its log ended, in an anchor of that one domain, and shows of each event that it is a leaf of the tree with the
anchor's root. It is read by tools/verify_bundle.py alone, which knows FORMAT.md and nothing of this file.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Annotated

import msgspec

from eventstore.anchors import Anchor, AnchoredHead, Hash, Position, make_anchor
from eventstore.codec import FORMAT, GENESIS, check
from eventstore.errors import ConfigError, CorruptionError, FormatError, NotFoundError
from eventstore.log import EventLog
from eventstore.merkle import Range, consistency_ranges, inclusion_ranges, proves_inclusion
from eventstore.model import Event, Head, Key
from eventstore.roots import Progress, below_floor, grow, started
from eventstore.view import DomainView

MAX_BUNDLE_BYTES = 64 * 2**20
"""More than that is a copy of a log, and nothing that a stranger can look through."""

_LEAST_BYTES, _HASH_BYTES = 160, 67
"""No bundled event takes fewer, without its data and path, and each hash of that takes so many."""

_encode = msgspec.json.Encoder(order="sorted").encode


class Base64(msgspec.Struct, frozen=True):
    """The bytes of a blob."""

    base64: str


class BundledEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event, bytes in hexadecimal, without what it has not; its checksum follows from it and `before`."""

    position: Position
    prev: int
    recorded_us: int
    when_us: int | None = None
    op: str
    key: str
    meta: str | None = None
    salt: str | None = None
    digest: Hash | None = None
    data: str | Base64 | None = None
    before: Hash | None = None
    """The checksum of the event before; the birth row has none."""
    path: list[Hash]
    """The hashes that lead from its leaf to the root, the leaf's sibling first."""


class Since(msgspec.Struct, frozen=True):
    """The hashes that show the log to have only grown since an anchor at `position`."""

    position: Position
    path: list[Hash]


class Bundle(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Some events of a domain, proven. Made by Store.bundle(); its anchor is what adapters.signing.sign() signs."""

    format: Annotated[int, msgspec.Meta(ge=0)]
    anchor: Anchor
    """Where this one domain ended when the bundle was made."""
    birth: BundledEvent
    """Whose log it is."""
    events: list[BundledEvent]
    since: Since | None = None

    @property
    def domain(self) -> str:
        """The name of the domain."""
        return next(iter(self.anchor.heads))

    def text(self) -> str:
        """The one line to hand over: canonical JSON, members sorted, no white space."""
        return _encode(self).decode()


def chosen_events(
    view: DomainView,
    *,
    key: Key | None = None,
    positions: Iterable[int] | None = None,
    correlation_id: str | None = None,
    after: int | None = None,
    until: int | None = None,
) -> list[Event]:
    """The events that one of these ways to choose names, by position.

    Raises ConfigError for a choice that is none, or of more than a bundle holds, NotFoundError for no event, CorruptionError.
    """
    in_range = after is not None or until is not None
    if [key is not None, positions is not None, correlation_id is not None, in_range].count(True) != 1:
        raise ConfigError("which events? name a key, positions, a correlation id, or a range: one of these")
    found: Iterable[Event]
    if positions is not None:
        if not isinstance(positions, Iterable):
            raise ConfigError(f"positions are whole numbers, one after the other, not {positions!r}")
        found = map(view.event, _distinct(positions))
    elif in_range:
        found = view.events(after or 0, until)
    elif key is not None:
        found = view.events(key=key)
    else:
        found = (event for event in view.events() if event.meta is not None and _correlation_of(event.meta) == correlation_id)
    chosen, size, end = [], 0, view.head().position + 1
    for event in found:
        chosen.append(event)
        # A path only grows while others write.
        path = inclusion_ranges(event.position, max(end, event.position + 1))
        size += _LEAST_BYTES + _HASH_BYTES * len(path) + len(event.data or "")
        if size > MAX_BUNDLE_BYTES:
            raise _too_large(size)
    if not chosen:
        raise NotFoundError(f"{view.name}: no event is what you named; `eventstore log` lists those there are")
    return chosen


def _distinct(positions: Iterable[int]) -> list[int]:
    wanted = set(positions)
    wrong = next((each for each in wanted if type(each) is not int or each < 1), None)
    if wrong is not None:
        raise ConfigError(f"{wrong!r} is no position of an event; they begin at 1, and the birth row is in every bundle")
    return sorted(wanted)


class _Meta(msgspec.Struct):
    correlation_id: str | None = None


_decode_meta = msgspec.json.Decoder(_Meta).decode


def _correlation_of(meta: str) -> str | None:
    try:
        return _decode_meta(meta).correlation_id
    except msgspec.MsgspecError:  # another program's meta may mean something else by this name
        return None


def make_bundle(
    log: EventLog, head: Head, store_id: str, events: list[Event], *, since: Anchor | None = None, progress: Progress | None = None
) -> Bundle:
    """A bundle of these events, in order of position, at a head; nothing leaves this function that does not prove what it says.

    Raises ConfigError for more than a bundle holds or an anchor that proves nothing here, CorruptionError for events that are
    not what was sealed, or a log that is not the anchored one continued, CompactedError for what is not at hand.
    """
    old = None if since is None else _anchored(log.domain, head, since)
    _require_at_hand(log, events, old)
    births = log.get([0])
    if not births:
        raise FormatError(log.domain, 0, "the birth row is missing")
    proof = _Proof(log, head, [births[0], *events], old, progress)
    anchor = make_anchor(store_id, {log.domain: AnchoredHead(head.position, head.checksum.hex(), proof.root.hex())})
    grown = None if old is None else Since(old.position, proof.consistency(old))
    bundle = Bundle(
        format=FORMAT, anchor=anchor, birth=proof.bundled(births[0]), events=[proof.bundled(each) for each in events], since=grown
    )
    size = len(_encode(bundle))
    if size > MAX_BUNDLE_BYTES:
        raise _too_large(size)
    return bundle


class _Proof:
    """One pass over the checksums of a log, and what it takes to prove some of its events."""

    def __init__(self, log: EventLog, head: Head, events: list[Event], old: AnchoredHead | None, progress: Progress | None) -> None:
        self._domain, self._size = log.domain, head.position + 1
        before = [event.position - 1 for event in events if event.position > 0]
        self._before = {event.position: event.checksum for event in log.get(before)}
        ranges: list[Range] = [each for event in events for each in inclusion_ranges(event.position, self._size)]
        if old is not None:
            ranges += [(0, old.position + 1), *consistency_ranges(old.position + 1, self._size)]
        self._tree = grow(started(log, keep=ranges), log, head, progress)
        self.root = self._tree.root()

    def bundled(self, event: Event) -> BundledEvent:
        """An event with its proof. Raises CorruptionError if it proves nothing: the event, or the log around it, was altered."""
        position = event.position
        previous = GENESIS if position == 0 else Head(position - 1, self._before.get(position - 1, b""))
        check(previous, event, self._domain)
        path = self._tree.hashes(inclusion_ranges(position, self._size))
        if not proves_inclusion(event.checksum, position, self._size, path, self.root):
            raise FormatError(self._domain, position, "the event is not the one that its log's checksums name; run `eventstore verify`")
        data = event.data
        return BundledEvent(
            position=position,
            prev=event.prev,
            recorded_us=event.recorded_us,
            when_us=event.when_us,
            op=event.op,
            key=event.key,
            meta=event.meta,
            salt=None if event.salt is None else event.salt.hex(),
            digest=None if event.digest is None else event.digest.hex(),
            data=Base64(base64.b64encode(data).decode()) if isinstance(data, bytes) else data,
            before=None if position == 0 else previous.checksum.hex(),
            path=[node.hex() for node in path],
        )

    def consistency(self, old: AnchoredHead) -> list[str]:
        """Proof that the log continues the anchored one. Raises CorruptionError if it does not."""
        (root,) = self._tree.hashes([(0, old.position + 1)])
        if root.hex() != old.root:
            raise CorruptionError(
                self._domain,
                old.position,
                f"the root up to here is {root.hex()}, the anchor says {old.root}: this log is not the anchored one continued;"
                " `eventstore verify --anchor` tells more",
            )
        return [node.hex() for node in self._tree.hashes(consistency_ranges(old.position + 1, self._size))]


def _anchored(domain: str, head: Head, since: Anchor) -> AnchoredHead:
    """What an older anchor says of a domain, where a proof can begin at it."""
    old = since.heads.get(domain)
    if old is None:
        raise ConfigError(f"the anchor says nothing of domain {domain!r}; it names {', '.join(sorted(since.heads)) or 'none'}")
    if old.root is None:
        raise ConfigError("the anchor was made without roots, so nothing short can be proven by it; use one that has them")
    if old.position > head.position:
        raise CorruptionError(
            domain, head.position, f"the log ends here, but the anchor names position {old.position}: its end was cut off since"
        )
    return old


def _require_at_hand(log: EventLog, events: list[Event], old: AnchoredHead | None) -> None:
    """Refuse what no proof can be made of: its hashes are of the tree below the floor. The birth row's are kept. Raises CompactedError."""
    floor = log.floor()
    carried = next((event.position for event in events if 0 < event.position <= floor), None)
    if carried is not None:
        raise below_floor(log, carried, "what is carried of this event stands there, the hashes that prove it do not")
    if old is not None and old.position < floor:
        what = f"the anchor ends below position {floor}: that the log only grew since is proven by hashes that are not at hand"
        raise below_floor(log, old.position, what)


def _too_large(size: int) -> ConfigError:
    return ConfigError(
        f"a bundle of {size:,} bytes or more; at most {MAX_BUNDLE_BYTES:,} are allowed: choose fewer events, or make several bundles"
    )
