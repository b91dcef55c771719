"""Making a bundle: what goes into one, who refuses to make one, and that nothing leaves that proves nothing."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import eventstore
from eventstore import Anchor, Bundle, ChecksumError, ConfigError, CorruptionError, NotFoundError, Store, aio, bundles
from eventstore.adapters.memory import MemoryLog
from eventstore.codec import seal, seal_system
from eventstore.tools import verify_bundle
from tests.eventstore.test_anchors import edit, rootless, rows, seal_anew, silence

DOMAIN = "orders"


def fill(store: Store, count: int = 12) -> None:
    """Events of three keys in turn, every second one of them correlated."""
    domain = store.domain(DOMAIN)
    for n in range(1, count + 1):
        meta: dict[str, Any] = {"correlation_id": f"order-{n % 2}"} if n % 2 else {"reason": "order-1"}
        domain.write_value("abc"[n % 3], {"n": n}, actor="bot", **meta)


def proven(bundle: Bundle, anchor: Anchor | None = None) -> list[int]:
    """The positions that a stranger finds proven, who has this anchor or else the bundle's own."""
    content, kept = verify_bundle.parse(bundle.text().encode(), "the bundle"), json.loads((anchor or bundle.anchor).text())
    verify_bundle.require_bundle(content)
    return [each.event["position"] for each in verify_bundle.judge(content, kept, None)[1] if each.reason is None]


CHOICES: dict[str, tuple[dict[str, Any], list[int]]] = {
    "a key": ({"key": "a"}, [3, 6, 9, 12]),
    "positions": ({"positions": [7, 2, 7]}, [2, 7]),
    "a correlation id": ({"correlation_id": "order-1"}, [1, 3, 5, 7, 9, 11]),
    "a range": ({"after": 4, "until": 7}, [5, 6, 7]),
    "an open end": ({"after": 10}, [11, 12]),
    "an open beginning": ({"until": 2}, [1, 2]),
    "beyond the end": ({"after": 11, "until": 99}, [12]),
    "everything": ({"after": 0}, list(range(1, 13))),
}


@pytest.mark.parametrize(("choice", "positions"), CHOICES.values(), ids=CHOICES)
def test_what_is_chosen_is_proven(any_store: Store, choice: dict[str, Any], positions: list[int]) -> None:
    fill(any_store)
    bundle = any_store.bundle(DOMAIN, **choice)
    assert [event.position for event in bundle.events] == positions
    assert (bundle.domain, bundle.anchor.heads) == (DOMAIN, any_store.anchor().heads)
    assert proven(bundle) == positions


def test_a_bundle_holds_the_events_byte_for_byte_and_no_checksum_that_follows_from_them(any_store: Store) -> None:
    fill(any_store, 3)
    domain = any_store.domain(DOMAIN)
    before, event = domain.event(1), domain.event(2)
    (bundled,) = any_store.bundle(DOMAIN, positions=[2]).events
    assert event.salt is not None
    assert json.loads(msgspec.json.encode(bundled)) == {
        "position": 2,
        "prev": event.prev,
        "recorded_us": event.recorded_us,
        "op": "put",
        "key": '["c"]',
        "meta": event.meta,
        "salt": event.salt.hex(),
        "data": '{"n":2}',
        "before": before.checksum.hex(),
        "path": [*bundled.path],
    }


def test_the_text_is_canonical(any_store: Store) -> None:
    any_store.domain(DOMAIN).write_value("ключ\x7f\x1f/\\", msgspec.Raw(b'"\\ud83d \xe2\x80\xae</script>"'), reason='"\n\u2028')
    text = any_store.bundle(DOMAIN, after=0).text()
    assert text == json.dumps(json.loads(text), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def test_events_of_every_kind_are_proven(store: Store) -> None:
    fill(store, 3)
    domain = store.domain(DOMAIN)
    domain.remove_value("a", when=-1)
    log = domain.group.live.log
    with log.writing() as head:
        fields: dict[str, Any] = {"prev": 0, "recorded_us": 2**62, "when_us": None, "salt": secrets.token_bytes(16)}
        blob = seal(head, op="put", key='["blob"]', meta='{"codec":"aes-gcm:1"}', data=b"\x00\xff", **fields)
        log.append([blob], after=head)
    with log.writing() as head:
        said = {"positions": [2, 5], "reason": "a wish"}
        redact = seal_system(head, prev=0, recorded_us=2**62 + 1, op="redact", data=said, salt=secrets.token_bytes(16))
        log.append([redact], after=head, erase=[2, 5])
    bundle = store.bundle(DOMAIN, after=0)
    assert proven(bundle) == [1, 2, 3, 4, 5, 6]
    _, redacted, _, removed, erased_blob, _ = bundle.events
    assert (redacted.data, redacted.salt, len(redacted.digest or "")) == (None, None, 64)
    assert (erased_blob.data, len(erased_blob.digest or "")) == (None, 64)
    assert (removed.op, removed.data, removed.digest, removed.when_us) == ("remove", None, None, -1)
    with log.writing() as head:
        fields |= {"recorded_us": 2**62 + 2, "prev": 5}
        whole = seal(head, op="put", key='["blob"]', meta='{"codec":"aes-gcm:2"}', data=b"\xfb\xff", **fields)
        log.append([whole], after=head)
    bundle = store.bundle(DOMAIN, positions=[7])
    assert bundle.events[0].data == bundles.Base64("+/8=")
    assert proven(bundle) == [7]


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"key": "a", "after": 1},
        {"positions": [1], "correlation_id": "x"},
        {"positions": [0]},
        {"positions": [-1]},
        {"positions": [True]},
        {"positions": ["1"]},
    ],
    ids=str,
)
def test_a_choice_that_is_none_is_refused(any_store: Store, choice: dict[str, Any]) -> None:
    fill(any_store, 2)
    with pytest.raises(ConfigError):
        any_store.bundle(DOMAIN, **choice)


@pytest.mark.parametrize("choice", [{"key": "never"}, {"positions": []}, {"positions": [99]}, {"after": 2}, {"correlation_id": "never"}])
def test_a_choice_of_nothing_is_not_found(any_store: Store, choice: dict[str, Any]) -> None:
    fill(any_store, 2)
    with pytest.raises(NotFoundError):
        any_store.bundle(DOMAIN, **choice)


def test_a_domain_mistyped_is_not_found_and_not_made(any_store: Store) -> None:
    fill(any_store, 2)
    with pytest.raises(NotFoundError):
        any_store.bundle("typo", after=0)
    assert any_store.domains() == [DOMAIN]


def test_more_than_a_stranger_can_look_through_is_refused(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(any_store)
    size = len(any_store.bundle(DOMAIN, after=0).text())
    monkeypatch.setattr(bundles, "MAX_BUNDLE_BYTES", size)
    any_store.bundle(DOMAIN, after=0)
    for limit in (size - 1, 12 * (160 + 3 * 67), 1_000):
        monkeypatch.setattr(bundles, "MAX_BUNDLE_BYTES", limit)
        with pytest.raises(ConfigError, match="choose fewer events"):
            any_store.bundle(DOMAIN, after=0)
    assert verify_bundle.MAX_BYTES == 64 * 2**20


# ---- since


def test_a_bundle_shows_that_the_log_only_grew_since_any_anchor(any_store: Store) -> None:
    domain = any_store.domain(DOMAIN)
    anchors = [any_store.anchor()]
    for n in range(9):
        domain.write_value("a", n)
        anchors.append(any_store.anchor())
    for position, anchor in enumerate(anchors):
        bundle = any_store.bundle(DOMAIN, after=0, since=anchor)
        assert proven(bundle, anchor) == list(range(1, position + 1))
        assert proven(any_store.bundle(DOMAIN, after=0), anchor) == (list(range(1, 10)) if position == 9 else [])


def test_an_anchor_that_no_proof_can_begin_at_is_refused(any_store: Store) -> None:
    fill(any_store, 3)
    anchor = any_store.anchor()
    refused = {
        "nothing of domain": msgspec.structs.replace(anchor, heads={"other": anchor.heads[DOMAIN]}),
        "without roots": rootless(anchor),
    }
    for words, spoiled in refused.items():
        with pytest.raises(ConfigError, match=words):
            any_store.bundle(DOMAIN, after=0, since=spoiled)
    with pytest.raises(NotFoundError, match="another store"):
        any_store.bundle(DOMAIN, after=0, since=msgspec.structs.replace(anchor, store_id="0" * 32))
    longer = msgspec.structs.replace(anchor.heads[DOMAIN], position=4)
    with pytest.raises(CorruptionError, match="cut off"):
        any_store.bundle(DOMAIN, after=0, since=msgspec.structs.replace(anchor, heads={DOMAIN: longer}))


def test_a_tail_sealed_anew_is_no_continuation_of_what_was_anchored(tmp_path: Path) -> None:
    """Whoever writes the files can make a log that is whole and witnessed; he cannot make it continue the anchored one."""
    with eventstore.open(tmp_path / "store") as store:
        fill(store, 6)
        anchor = store.anchor()
        fill(store, 6)
    events = rows(tmp_path / "store")[1:]
    events[3] = msgspec.structs.replace(events[3], data='{"n":1000}')
    seal_anew(tmp_path / "store", events)
    silence(tmp_path / "store")
    with eventstore.open(tmp_path / "store") as store:
        assert store.verify().ok
        with pytest.raises(CorruptionError, match="not the anchored one continued"):
            store.bundle(DOMAIN, positions=[4], since=anchor)
        forged = store.bundle(DOMAIN, after=0)
        assert proven(forged) == list(range(1, 13)), "against an anchor that came with it, anything holds"
        assert proven(forged, anchor) == []
        # The best he can do: a proof that his log continues what he takes for the anchored one.
        since = store.bundle(DOMAIN, after=0, since=own_anchor(store, 6)).since
        assert since is not None
        assert proven(msgspec.structs.replace(forged, since=since), anchor) == []


def own_anchor(store: Store, position: int) -> Anchor:
    """The anchor that this log would have had at a position."""
    with eventstore.open("memory:", store_id=store.store_id) as other:
        other.adopt(DOMAIN, [store.domain(DOMAIN).event(0), *store.domain(DOMAIN).events(until=position)])
        return other.anchor()


# ---- damage


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event SET data = '9' WHERE position = 4",
        "UPDATE event SET checksum = zeroblob(32) WHERE position = 3",
        "UPDATE event SET checksum = zeroblob(32) WHERE position = 4",
        "UPDATE event SET checksum = zeroblob(3) WHERE position = 8",
        "UPDATE event SET data = '{}' WHERE position = 0",
        "DELETE FROM event WHERE position = 7",
    ],
)
def test_what_is_damaged_is_not_bundled(tmp_path: Path, statement: str, read_only: bool) -> None:
    with eventstore.open(tmp_path / "store") as store:
        fill(store)
    edit(tmp_path / "store", (statement, ()))
    with pytest.raises(CorruptionError), eventstore.open(tmp_path / "store", read_only=read_only) as store:
        store.bundle(DOMAIN, positions=[4])


def test_an_end_that_is_exchanged_while_it_is_read_is_neither_anchored_nor_bundled() -> None:
    with eventstore.open("memory:") as store:
        fill(store)
        log = store.domain(DOMAIN).group.live.log
        assert isinstance(log, MemoryLog)
        whole, read = list(log._events), log.checksums

        def exchanging(after: int, until: int) -> Iterator[bytes]:
            log._events[12] = msgspec.structs.replace(log._events[12], checksum=bytes(32))
            return read(after, until)

        log.checksums = exchanging  # type: ignore[method-assign]
        for make in (store.anchor, lambda: store.bundle(DOMAIN, positions=[4])):
            log._events[:] = whole
            with pytest.raises(ChecksumError, match=f"{DOMAIN}@12"):
                make()


def test_an_event_that_is_altered_while_it_is_bundled_does_not_leave() -> None:
    with eventstore.open("memory:") as store:
        fill(store)
        log = store.domain(DOMAIN).group.live.log
        assert isinstance(log, MemoryLog)
        read: Callable[[int, int], Iterator[bytes]] = log.checksums

        def altering(after: int, until: int) -> Iterator[bytes]:
            log._events[4] = msgspec.structs.replace(log._events[4], checksum=bytes(32))
            return read(after, until)

        log.checksums = altering  # type: ignore[method-assign]
        with pytest.raises(CorruptionError, match=f"{DOMAIN}@4: the event is not the one that its log's checksums name"):
            store.bundle(DOMAIN, positions=[4])


def test_a_bundle_is_made_beside_a_writer(store: Store) -> None:
    fill(store)
    domain = store.domain(DOMAIN)

    def write(*_: object) -> None:
        domain.write_value("late", 1)

    bundle = store.bundle(DOMAIN, after=0, progress=write)
    assert proven(bundle) == list(range(1, 13))
    assert domain.head().position == 13


def test_an_event_loop_has_it_too(tmp_path: Path) -> None:
    async def work() -> None:
        async with await aio.open(tmp_path / "data") as store:
            domain = await store.domain(DOMAIN)
            await domain.write_value("a", 1)
            anchor = await store.anchor()
            assert proven(await store.bundle(DOMAIN, key="a", since=anchor), anchor) == [1]

    asyncio.run(work())
