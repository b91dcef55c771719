"""Anchors: where every log of a store ended, kept where whoever can write the store cannot write (FORMAT.md section 10).

A chain proves each event by the one before it, and nothing proves the last one: an end that was cut off leaves a shorter chain,
and a tail that was sealed anew another one. An anchor is a head that was taken away in time. It vouches for all events up to
it, as far as the chain from the birth row to it is whole, so a judgement is made beside the proof, never alone. The chain needs
the whole log for that. The root that stands beside the checksum needs none of it: a bundle (bundles.py) proves a few events by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from eventstore.clock import now_us
from eventstore.codec import FORMAT
from eventstore.errors import CompactedError, ConfigError, EngineError, EventStoreError, NewerFormatError
from eventstore.links import UNJUDGED, Finding
from eventstore.log import Engine, EventLog
from eventstore.model import Head, is_domain_name
from eventstore.roots import Progress, below_floor, grow, started

Verdict = Literal["EXTENDED", "ALTERED", "REORDERED", "TRUNCATED", "UNNAMED", "UNJUDGED"]

_PREFIX = b"eventstore-anchor/%d\x00" % FORMAT
"""What the signed bytes begin with: a signature made for anything else is none for an anchor."""

_BESIDE_THE_CHAIN = {"tail", "pointers", "prev", "time", "tree"}
"""Findings of the proof that leave every byte up to an anchored event what its checksum says."""

_encode = msgspec.json.Encoder(order="sorted").encode


Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
"""32 bytes in hexadecimal."""

Position = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class AnchoredHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A Head with its checksum in hexadecimal, and the root of the tree over all checksums up to it; None where nobody asked for it."""

    position: Position
    checksum: Hash
    root: Hash | None = None


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An Ed25519 signature and the public key it is for, both in hexadecimal; made and checked by adapters/signing.py."""

    key: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    signature: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{128}$")]


class Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where every log of a store ended at one moment. Made by Store.anchor(), judged by Store.verify(anchor=...)."""

    format: int
    store_id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    made_us: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    heads: dict[str, AnchoredHead]
    signature: Signature | None = None

    def text(self) -> str:
        """The one line to keep: canonical JSON, members sorted, no white space."""
        return _encode(self).decode()

    def signed_bytes(self) -> bytes:
        """What a signature covers: everything but itself."""
        return _PREFIX + _encode(msgspec.structs.replace(self, signature=None))

    @classmethod
    def parse(cls, text: str | bytes, name: str = "the anchor") -> Anchor:
        """The anchor that `text` is, one newline at its end allowed; `name` says in errors where it came from.

        Raises ConfigError for anything but the exact text of an anchor, NewerFormatError for one of a later format.
        """
        try:
            # The surrogates of a text that is no UTF-8 become bytes that are none either, and are refused as such.
            content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
            content = content.removesuffix(b"\n")
            found = msgspec.json.decode(content, type=_Format).format
            if found > FORMAT:
                raise NewerFormatError(name, f"an anchor of format {found}; this version knows format {FORMAT}: use a newer one")
            anchor = msgspec.json.decode(content, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(f"{name} is no anchor: {error}; expected the line that `eventstore anchor` gave") from error
        if anchor.format != FORMAT:
            raise ConfigError(
                f"{name} is no anchor of format {FORMAT} but a draft's ({anchor.format}): only the version that made it can judge by it"
            )
        wrong = next((domain for domain in anchor.heads if not is_domain_name(domain)), None)
        if wrong is not None:
            raise ConfigError(f"{name} is no anchor: {wrong!r} is no name of a domain")
        if _encode(anchor) != content:
            raise ConfigError(f"{name} is not as an anchor is written (one line, members sorted, no white space); keep the file as it was")
        return anchor


class _Format(msgspec.Struct):
    format: int


class Judgement(msgspec.Struct, frozen=True):
    """What an anchor says of one domain.

    EXTENDED: the anchored event stands at its position, and every event up to it is what it was.
    ALTERED: another event stands there, or one before it was changed. REORDERED: the anchored checksum stands elsewhere.
    TRUNCATED: the log ends before it, or is gone. UNNAMED: the anchor says nothing of the domain, `position` is None.
    UNJUDGED: a lock, a right or the disk stood in the way of looking.

    `more` events are not covered: those after the anchored one where the log is EXTENDED, all where it is UNNAMED. For them,
    as for whatever stood after the anchored event and does not any more, there is the chain alone. `head` is the last
    position found, None where there is no log to read.
    """

    domain: str
    verdict: Verdict
    position: int | None
    head: int | None
    more: int
    message: str

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the domain, as far as the anchor covers it: see `more`."""
        return self.verdict in ("EXTENDED", "UNNAMED")


def make_anchor(store_id: str, heads: dict[str, AnchoredHead]) -> Anchor:
    """An anchor of these heads, made now, not signed."""
    return Anchor(FORMAT, store_id, now_us(), dict(sorted(heads.items())))


def anchored_head(log: EventLog, head: Head, *, root: bool, progress: Progress | None = None) -> AnchoredHead:
    """A head as it is anchored; with its root, all checksums at hand are read. Raises CorruptionError, CompactedError."""
    return AnchoredHead(head.position, head.checksum.hex(), grow(started(log), log, head, progress).root().hex() if root else None)


# ---- judging


def judge(
    engine: Engine, anchor: Anchor, domain: str, findings: Iterable[Finding], *, exists: bool, progress: Progress | None = None
) -> Judgement:
    """Hold one log against an anchor; `findings` is all that the proof of this log found, without which no verdict counts.

    Raises CompactedError for an anchor that ends below the floor.
    """
    anchored = anchor.heads[domain]
    if not exists:
        return Judgement(domain, "TRUNCATED", anchored.position, None, 0, "the domain is gone: the store has no log of this name")
    try:
        with engine.inspect(domain) as log:
            return _judged(log, anchored, findings, progress)
    except CompactedError:
        raise  # without the archive there is no verdict
    except (EngineError, NewerFormatError) as error:  # nothing is known of its bytes
        return Judgement(domain, "UNJUDGED", anchored.position, None, 0, f"the log could not be looked at: {error}")
    except EventStoreError as error:
        return Judgement(domain, "ALTERED", anchored.position, None, 0, f"the log cannot be read: {error}")


def unnamed(domain: str, head: int | None) -> Judgement:
    """What an anchor says of a domain that it does not name; `head` is the last position found, if any."""
    more = head or 0
    covered = "nothing of it is covered" if more == 0 else f"its {more:,} event{' is' if more == 1 else 's are'} not covered"
    return Judgement(domain, "UNNAMED", None, head, more, f"the anchor does not name this domain: {covered}")


def _judged(log: EventLog, anchored: AnchoredHead, findings: Iterable[Finding], progress: Progress | None) -> Judgement:
    position, head = anchored.position, log.head().position
    checksum = bytes.fromhex(anchored.checksum)
    _require_at_hand(log, anchored)
    events = log.get([position])
    if events and events[0].checksum == checksum:
        broken = breaks_chain(findings, position)
        if broken is not None:
            if broken.kind == UNJUDGED:
                message = f"the anchored checksum stands there, but what it was made of could not all be looked at: {broken.message}"
                return Judgement(log.domain, "UNJUDGED", position, head, 0, message)
            message = f"the anchored checksum stands there, but not on the events it was made of: {broken.kind}, {broken.message}"
            return Judgement(log.domain, "ALTERED", position, head, 0, message)
        if anchored.root is not None and grow(started(log), log, Head(position, checksum), progress).root().hex() != anchored.root:
            message = (
                "the chain up to the anchored checksum is whole, but the anchor's root is another: either the anchor was altered,"
                " or the log was damaged when it was made and mended since"
            )
            if floor := log.floor():
                message += f", or what the log says of the tree up to position {floor}, which is not at hand, is false"
            return Judgement(log.domain, "ALTERED", position, head, 0, message)
        more = head - position
        message = f"the log goes on from the anchored event: {more:,} event{'' if more == 1 else 's'} more"
        message += ", not covered" if more else ""
        return Judgement(log.domain, "EXTENDED", position, head, more, message)
    elsewhere = _place_of(log, checksum)
    if elsewhere is not None:
        message = f"the anchored checksum stands at position {elsewhere}, not at {position}: events were moved"
        return Judgement(log.domain, "REORDERED", position, head, 0, message)
    if head < position:
        message = f"the log ends at position {head}: {position - head:,} or more events were cut off since the anchor was made"
        return Judgement(log.domain, "TRUNCATED", position, head, 0, message)
    found = f"the checksum there is {events[0].checksum.hex()}" if events else "no event stands there"
    message = f"{found}, the anchor says {anchored.checksum}: events up to there are not what they were"
    return Judgement(log.domain, "ALTERED", position, head, 0, message)


def require_judgeable(engine: Engine, anchor: Anchor, domain: str) -> None:
    """Refuse an anchor that no verdict is possible on, before the log is read for it. Raises CompactedError."""
    try:
        with engine.inspect(domain) as log:
            _require_at_hand(log, anchor.heads[domain])
    except CompactedError:
        raise
    except EventStoreError:
        return  # judge() tells


def _require_at_hand(log: EventLog, anchored: AnchoredHead) -> None:
    """Refuse an anchor that ends below the floor: what is carried of its event does not prove what came before it, nor give the root.

    One that contradicts what is carried is none to refuse: that it is another history is certain.
    """
    position, floor = anchored.position, log.floor()
    if position >= floor:
        return
    try:
        carried = log.get([position])
    except CompactedError:
        carried = []
    if all(event.checksum.hex() == anchored.checksum for event in carried):
        raise below_floor(log, position, f"the anchor ends below position {floor}, from which on events are at hand: they do not prove it")


def breaks_chain(findings: Iterable[Finding], position: int) -> Finding | None:
    """The first finding that leaves the events up to `position` unproven; that some of it could not be looked at says least."""
    breaking = [each for each in findings if each.kind not in _BESIDE_THE_CHAIN and (each.position is None or each.position <= position)]
    return min(breaking, key=lambda each: each.kind == UNJUDGED, default=None)


def _place_of(log: EventLog, checksum: bytes) -> int | None:
    """Where a checksum is stored, whether it belongs there or not, as far as the log is at hand."""
    for event in log.get([0]):
        if event.checksum == checksum:
            return 0
    return next((event.position for event in log.read(log.floor()) if event.checksum == checksum), None)
