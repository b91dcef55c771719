"""What `eventstore demo` claims, one function a claim, each judged against a plain dict: no claim is printed that was not checked.

A proof returns what it found, in words, or raises BrokenError; judge() makes a Claim of either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from eventstore.codec import encode_key
from eventstore.errors import EngineError, EventStoreError
from eventstore.model import Event, Key
from eventstore.store import Store
from eventstore.tools.demo_writer import Ack, event_id
from eventstore.tools.recording import Write
from eventstore.tools.terminal import count_text
from eventstore.view import DomainView

States = dict[str, dict[Key, str]]
"""Domain, key, JSON text: what a store should hold, as plain dicts."""


class BrokenError(Exception):
    """A claim does not hold; the message says what was found instead."""


class Claim(msgspec.Struct, frozen=True):
    """A sentence the demo says about the store, whether it is true, and what was found."""

    claim: str
    holds: bool
    detail: str


def judge(claim: str, proof: Callable[[], str]) -> Claim:
    """Try a proof. An error of the store is an answer too: what cannot be read was not kept. Raises EngineError: the machine refused."""
    try:
        return Claim(claim, True, proof())
    except EngineError:
        raise
    except (BrokenError, EventStoreError) as error:
        return Claim(claim, False, str(error))


class Expected(msgspec.Struct, frozen=True):
    """What some writes come to: the events they leave in each domain, each with its write's number, and the values that stand then."""

    events: dict[str, list[tuple[int, Write]]]
    states: States

    @property
    def count(self) -> int:
        """How many events there are."""
        return sum(map(len, self.events.values()))

    @property
    def keys(self) -> int:
        """How many keys have a value."""
        return sum(map(len, self.states.values()))


def replay(writes: Sequence[Write]) -> Expected:
    """Apply writes to plain dicts. Removing what is not there leaves no event."""
    expected = Expected({}, {})
    for index, write in enumerate(writes):
        state = expected.states.setdefault(write.domain, {})
        if write.text is not None:
            state[write.key] = write.text
        elif state.pop(write.key, None) is None:
            continue
        expected.events.setdefault(write.domain, []).append((index, write))
    return expected


def events_of(store: Store) -> dict[str, list[Event]]:
    """Every event of every domain, read from the log."""
    return {name: list(store.domain(name).events()) for name in store.domains()}


def acknowledged_are_there(found: Mapping[str, Sequence[Event]], acks: Sequence[Ack], writes: Sequence[Write]) -> str:
    """Each acknowledged write stands where its receipt said, with the checksum it said, holding what was sent."""
    weak = [ack for ack in acks if ack.durability != "power"]
    if weak:
        raise BrokenError(f"{len(weak):,} of {len(acks):,} were promised less than to survive a power cut: {weak[0].durability}")
    lost = [ack for ack in acks if ack.appended and not _stands(found.get(ack.domain, ()), ack, writes[ack.index])]
    if lost:
        first = lost[0]
        where = f"{first.domain}@{first.position} {encode_key(writes[first.index].key)}"
        raise BrokenError(f"{len(lost):,} of {len(acks):,} are lost or altered; the first is write {first.index:,}, {where}")
    return f"{len(acks):,} acknowledged as durable, 0 lost"


def _stands(events: Sequence[Event], ack: Ack, write: Write) -> bool:
    # Users' events are 1, 2, 3 ... without a gap, so a position is a place in the list.
    if not 0 < ack.position <= len(events):
        return False
    event = events[ack.position - 1]
    return event.checksum.hex() == ack.checksum and _difference(event, ack.position, ack.index, write) is None


def nothing_else_is_there(found: Mapping[str, Sequence[Event]], acknowledged: int, writes: Sequence[Write]) -> str:
    """Beyond the acknowledged writes there is at most the next one, which landed but whose answer the kill cut off."""
    extra = _count(found) - replay(writes[:acknowledged]).count
    if extra > 0 and acknowledged < len(writes):
        same_events(found, replay(writes[: acknowledged + 1]))
        return "1 more write had landed, whole, when the kill cut off its answer"
    same_events(found, replay(writes[:acknowledged]))
    return "the kill came between two writes"


def landed(found: Mapping[str, Sequence[Event]], acknowledged: int, writes: Sequence[Write]) -> int:
    """How many writes the store holds after the kill: the acknowledged ones, and one more if it landed unanswered."""
    return acknowledged + (_count(found) > replay(writes[:acknowledged]).count)


def same_events(found: Mapping[str, Sequence[Event]], expected: Expected) -> str:
    """The log is exactly the expected writes: in order, each once, key, operation, text, time and id."""
    for domain in sorted({*found, *expected.events}):
        events, writes = found.get(domain, ()), expected.events.get(domain, [])
        for place, (event, (index, write)) in enumerate(zip(events, writes, strict=False), 1):
            difference = _difference(event, place, index, write)
            if difference:
                raise BrokenError(f"{domain}@{event.position}: {difference}, but write {index:,} was to stand here")
        if len(events) != len(writes):
            raise BrokenError(f"{domain}: {count_text(len(events), 'event')}, but {count_text(len(writes), 'write')} were sent")
    return f"{count_text(expected.count, 'event')}, in order, each write once"


def _difference(event: Event, position: int, index: int, write: Write) -> str | None:
    if event.position != position:
        return f"position {event.position} stands at place {position}"
    op = "remove" if write.text is None else "put"
    if (event.op, event.key, event.data) != (op, encode_key(write.key), write.text):
        return f"{event.op} {event.key} holds something else"
    if event.when_us != write.when_us:
        return f"its time is {event.when_us}, not {write.when_us}"
    if event.meta is None or msgspec.json.decode(event.meta).get("event_id") != event_id(index):
        return f"its event_id is not {event_id(index)}"
    return None


def same_states(view: Callable[[str], DomainView], expected: Expected) -> str:
    """Every domain holds the expected keys and no others, and every value is the text that was sent, byte for byte."""
    for domain, state in expected.states.items():
        found = {key: bytes(value).decode() for key, value in view(domain).items()}
        wrong = [key for key in (state.keys() | found.keys()) if state.get(key) != found.get(key)]
        if wrong:
            example = min(map(encode_key, wrong))
            raise BrokenError(f"{domain}: {count_text(len(wrong), 'key')} differ from the recording, among them {example}")
    return f"{count_text(expected.keys, 'key')} in {count_text(len(expected.states), 'domain')}, byte for byte"


def same_history(store: Store, domain: str, key: Key, writes: Sequence[Write]) -> str:
    """The key's history, walked from its newest event back, is what the recording wrote to it."""
    told = [event.data for event in store.domain(domain).history(key)][::-1]
    sent = [write.text for _, write in replay(writes).events.get(domain, []) if write.key == key]
    if told != sent:
        raise BrokenError(
            f"{domain} {encode_key(key)}: its history tells {len(told):,} events, which are not the {len(sent):,} that were sent"
        )
    return f"{count_text(len(told), 'event')}, as they were sent"


def chain_is_whole(store: Store) -> str:
    """Every checksum of every domain follows from the one before it, and the log reaches its witness."""
    report = store.verify()
    if not report.ok or report.findings:
        raise BrokenError("; ".join(finding.message for finding in report.findings[:3]) or "the verification failed")
    return f"{count_text(sum(domain.events for domain in report.domains), 'event')}, each checked against the one before it"


def _count(found: Mapping[str, Sequence[Event]]) -> int:
    return sum(map(len, found.values()))
