"""Roots, anchors and bundles of a log whose beginning is elsewhere, or gone: what can be said, what cannot, and no forgery."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

import eventstore
from eventstore import Anchor, CompactedError, CorruptionError, Event, Head, Retention, Store
from eventstore.codec import seal_system
from eventstore.database import log_files
from tests import verifier
from tests.eventstore import rfc9162
from tests.eventstore.test_anchors import DOMAIN, rootless, silence
from tests.eventstore.test_bundles import proven

SEALS = [6, 11, 18]


def write(store: Store, until: int, anchors: list[Anchor]) -> None:
    """Write up to a position, sealing on the way; an anchor at every position."""
    domain = store.domain(DOMAIN)
    anchors += [] if anchors else [store.anchor()]
    while (head := domain.head().position) < until:
        if head + 1 in SEALS:
            store.seal(DOMAIN)
        else:
            domain.write_value("abc"[head % 3], {"n": head})
        anchors.append(store.anchor())


def archive_all(store: Store, to: Path) -> None:
    store.archive(DOMAIN, to=to)


def archive_one_by_one(store: Store, to: Path) -> None:
    for last in SEALS:
        store.archive(DOMAIN, before=last + 1, to=to)


def delete(store: Store, _: Path) -> None:
    store.retain(Retention(keep_events=1), delete=True)


def archive_then_delete(store: Store, to: Path) -> None:
    store.archive(DOMAIN, before=SEALS[1] + 1, to=to)
    store.retain(Retention(keep_events=1), delete=True)


WAYS = [archive_all, archive_one_by_one, delete, archive_then_delete]
Way = Callable[[Store, Path], None]


def checksums_of(store: Store, until: int) -> list[bytes]:
    """The leaves of the tree, while all of them are there."""
    domain = store.domain(DOMAIN)
    return [domain.event(0).checksum, *(event.checksum for event in domain.events(until=until))]


# ---- what is at hand


@pytest.mark.parametrize("until", [pytest.param(19, marks=pytest.mark.slow), 20, pytest.param(24, marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_at_hand_is_anchored_judged_and_proven_as_if_all_were(tmp_path: Path, store: Store, way: Way, until: int) -> None:
    anchors: list[Anchor] = []
    write(store, until, anchors)
    leaves, domain = checksums_of(store, until), store.domain(DOMAIN)
    way(store, tmp_path / "archive")
    assert domain.floor == SEALS[-1]
    leaves += [event.checksum for event in domain.events(until)]
    made = store.anchor()
    assert made.heads[DOMAIN].root == rfc9162.root(tuple(leaves)).hex()
    for anchor in anchors[domain.floor :]:
        report = store.verify(anchor=anchor)
        assert (report.ok, report.anchored[0].verdict) == (True, "EXTENDED")
        position = anchor.heads[DOMAIN].position
        bundle = store.bundle(DOMAIN, after=domain.floor, since=anchor)
        assert bundle.anchor.heads == made.heads
        assert proven(bundle, anchor) == list(range(domain.floor + 1, position + 1))
    assert proven(store.bundle(DOMAIN, positions=[until]), made) == [until]


@pytest.mark.parametrize("way", [archive_all, pytest.param(archive_one_by_one, marks=pytest.mark.slow)])
def test_with_the_archive_attached_everything_is_as_it_was(tmp_path: Path, store: Store, way: Way) -> None:
    anchors: list[Anchor] = []
    write(store, 21, anchors)
    way(store, tmp_path / "archive")
    with eventstore.open(tmp_path / "data", archives=[tmp_path / "archive"]) as whole:
        for anchor in anchors[1:]:
            assert whole.verify(anchor=anchor).ok
            assert proven(whole.bundle(DOMAIN, after=0, since=anchor), anchor)[-1] == anchor.heads[DOMAIN].position
        assert whole.anchor().heads == store.anchor().heads
        whole.domain(DOMAIN).redact("a", reason="asked")
        assert whole.verify().ok, "a redaction changes no checksum"
        assert whole.anchor().heads[DOMAIN] != anchors[-1].heads[DOMAIN]
    assert store.verify(anchor=anchors[-1]).anchored[0].verdict == "EXTENDED"


def test_each_file_goes_on_from_what_the_one_before_it_left(tmp_path: Path, store: Store) -> None:
    """Also when those before are attached, and when another one goes much later."""
    anchors: list[Anchor] = []
    write(store, 9, anchors)
    store.archive(DOMAIN, before=7, to=tmp_path / "archive")
    store.close()
    with eventstore.open(tmp_path / "data", archives=[tmp_path / "archive"]) as attached:
        attached.seal(DOMAIN)
        attached.archive(DOMAIN, to=tmp_path / "archive")
        leaves = checksums_of(attached, attached.domain(DOMAIN).head().position)
        assert attached.verify().ok
    with eventstore.open(tmp_path / "data") as alone:
        assert alone.domain(DOMAIN).floor == 11
        assert alone.anchor().heads[DOMAIN].root == rfc9162.root(tuple(leaves)).hex()


def test_the_independent_verifier_computes_the_same_trees(tmp_path: Path, store: Store) -> None:
    write(store, 21, [])
    archive_one_by_one(store, tmp_path / "archive")
    store.close()
    whole = shutil.copytree(tmp_path / "data" / "logs" / DOMAIN, tmp_path / "whole")
    for file in log_files(tmp_path / "archive" / store.store_id / DOMAIN):
        shutil.copy(file, whole)
    assert verifier.verify(whole, whole / "head").findings == []
    assert len(log_files(whole)) == 4
    forge(whole, lambda said: said | {"tree": [said["tree"][-1], *said["tree"][1:]]})
    assert [(found.position, found.kind) for found in verifier.verify(whole).findings] == [(24, "data")]


# ---- what is not


@pytest.mark.parametrize("way", WAYS)
def test_below_the_floor_there_is_no_verdict_and_no_proof_and_it_is_said_where_they_are(tmp_path: Path, store: Store, way: Way) -> None:
    anchors: list[Anchor] = []
    write(store, 20, anchors)
    way(store, tmp_path / "archive")
    gone = way in (delete, archive_then_delete)
    expected = (SEALS[-1], None if gone else str(tmp_path / "archive"), gone)
    for anchor in anchors[1 : SEALS[-1]]:
        asked: list[Callable[[], object]] = [
            partial(store.verify, anchor=anchor),
            partial(store.verify, anchor=rootless(anchor)),
            partial(store.bundle, DOMAIN, positions=[20], since=anchor),
        ]
        for ask in asked:
            with pytest.raises(
                CompactedError, match=f"{DOMAIN}@{anchor.heads[DOMAIN].position}: the anchor ends below position 18"
            ) as caught:
                ask()
            assert (caught.value.floor, caught.value.archive, caught.value.deleted) == expected
    for carried in (15, 16, 17, 18):
        with pytest.raises(CompactedError, match="what is carried of this event stands there, the hashes that prove it do not") as caught:
            store.bundle(DOMAIN, positions=[carried])
        assert (caught.value.floor, caught.value.archive, caught.value.deleted) == expected


def test_a_verify_that_can_have_no_verdict_says_so_before_it_reads_the_log(tmp_path: Path, store: Store) -> None:
    anchors: list[Anchor] = []
    write(store, 20, anchors)
    archive_all(store, tmp_path / "archive")
    told: list[tuple[str, int, int]] = []
    with pytest.raises(CompactedError):
        store.verify(anchor=anchors[3], progress=lambda *call: told.append(call))
    assert told == []


def test_an_anchor_below_the_floor_that_contradicts_what_is_carried_is_altered(tmp_path: Path, store: Store) -> None:
    anchors: list[Anchor] = []
    write(store, 20, anchors)
    archive_all(store, tmp_path / "archive")
    seal = anchors[SEALS[0]]
    other = msgspec.structs.replace(seal.heads[DOMAIN], checksum="00" * 32)
    (found,) = store.verify(anchor=msgspec.structs.replace(seal, heads={DOMAIN: other})).anchored
    assert (found.verdict, found.position) == ("ALTERED", SEALS[0])


def test_an_old_anchor_is_carried_over_a_deletion_by_a_bundle_that_was_made_before(store: Store) -> None:
    """What README says to do: the bundle's own anchor is not below the floor, and is proven to continue the old one."""
    anchors: list[Anchor] = []
    write(store, 20, anchors)
    bridge = store.bundle(DOMAIN, positions=[3], since=anchors[3])
    store.retain(Retention(keep_events=2), delete=True)
    assert proven(bridge, anchors[3]) == [3]
    assert store.verify(anchor=bridge.anchor).anchored[0].verdict == "EXTENDED"
    later = store.bundle(DOMAIN, positions=[19, 20], since=bridge.anchor)
    assert proven(later, bridge.anchor) == [19, 20]


@pytest.mark.corrupts
def test_a_file_that_is_deleted_behind_a_missing_one_leaves_no_tree_and_anchors_without_roots_go_on(tmp_path: Path, store: Store) -> None:
    write(store, 13, [])
    store.close()
    first = log_files(tmp_path / "data" / "logs" / DOMAIN)[0]
    first.rename(tmp_path / first.name)
    with eventstore.open(tmp_path / "data") as again:
        again.retain(Retention(keep_events=2), delete=True)
    (tmp_path / first.name).rename(first)
    with eventstore.open(tmp_path / "data") as again:
        assert [each.tree for each in again.verify().domains[0].archived] == [None]
        for ask in (again.anchor, lambda: again.bundle(DOMAIN, positions=[13])):
            with pytest.raises(CompactedError, match="no event has the tree up to here"):
                ask()
        assert again.verify(anchor=again.anchor(roots=False)).anchored[0].verdict == "EXTENDED"


# ---- forgeries


def change(file: Path, statement: str, values: tuple[Any, ...]) -> None:
    """Change a log by the standard library alone, its guard rails taken down and put up again."""
    connection = sqlite3.connect(file, isolation_level=None)
    try:
        triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'event'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(statement, values)
        for _, sql in triggers:
            connection.execute(sql)
    finally:
        connection.close()


def forge(folder: Path, lie: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Let the last event, of an archive, say something else under a checksum that is right."""
    file = log_files(folder)[-1]
    connection = sqlite3.connect(file)
    before, event = [Event(*row) for row in connection.execute("SELECT * FROM event ORDER BY position DESC LIMIT 2")][::-1]
    connection.close()
    assert (event.op, event.salt is None) == ("archive", False)
    forged = seal_system(
        Head(before.position, before.checksum),
        prev=event.prev,
        recorded_us=event.recorded_us,
        op="archive",
        data=lie(json.loads(str(event.data))),
        salt=event.salt or b"",
    )
    change(file, "UPDATE event SET data = ?, checksum = ? WHERE position = ?", (forged.data, forged.checksum, forged.position))


def flipped(said: dict[str, Any]) -> dict[str, Any]:
    """Another hash in the place of the last one."""
    return said | {"tree": [*said["tree"][:-1], "ab" * 32]}


@pytest.fixture
def forged(tmp_path: Path) -> tuple[Path, list[Anchor]]:
    """A store whose archive event says another tree, its end sealed anew and all witnesses silenced; and honest anchors."""
    anchors: list[Anchor] = []
    with eventstore.open(tmp_path / "data") as store:
        write(store, 20, anchors)
        archive_all(store, tmp_path / "archive")
    forge(tmp_path / "data" / "logs" / DOMAIN, flipped)
    silence(tmp_path / "data")
    return tmp_path / "data", anchors


def test_a_forged_tree_is_a_finding_as_soon_as_the_archive_is_attached(tmp_path: Path, forged: tuple[Path, list[Anchor]]) -> None:
    folder, anchors = forged
    with eventstore.open(folder, read_only=True) as store:
        assert store.verify().ok, "nothing at hand contradicts it"
    with eventstore.open(folder, read_only=True, archives=[tmp_path / "archive"]) as store:
        assert [(found.position, found.kind) for found in store.verify().findings] == [(SEALS[-1], "tree")]
        (judged,) = store.verify(anchor=anchors[20]).anchored
        assert judged.verdict == "EXTENDED", "the leaves themselves are what they were"


def test_a_forged_tree_proves_nothing_to_whoever_kept_an_anchor(forged: tuple[Path, list[Anchor]]) -> None:
    folder, anchors = forged
    with eventstore.open(folder) as store:
        for anchor in anchors[SEALS[-1] :]:
            (judged,) = store.verify(anchor=anchor).anchored
            assert (judged.verdict, "what the log says of the tree up to position 18" in judged.message) == ("ALTERED", True)
            with pytest.raises(CorruptionError, match="not the anchored one continued"):
                store.bundle(DOMAIN, positions=[20], since=anchor)
        bundle = store.bundle(DOMAIN, positions=[20])
        assert proven(bundle) == [20], "against an anchor that came with it, anything holds"
        assert [proven(bundle, anchor) for anchor in anchors] == [[]] * len(anchors)


@pytest.mark.parametrize(
    "lie",
    [
        lambda said: said | {"tree": said["tree"][:-1]},
        lambda said: said | {"tree": [*said["tree"], "ab" * 32]},
        lambda said: said | {"tree": [each.upper() for each in said["tree"]]},
        lambda said: {name: value for name, value in said.items() if name != "tree"},
    ],
    ids=["a hash less", "a hash more", "capitals", "none"],
)
def test_a_tree_that_cannot_be_one_is_a_finding(tmp_path: Path, lie: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    with eventstore.open(tmp_path / "data") as store:
        write(store, 20, [])
        archive_all(store, tmp_path / "archive")
        last = store.domain(DOMAIN).head().position
    forge(tmp_path / "data" / "logs" / DOMAIN, lie)
    silence(tmp_path / "data")
    with eventstore.open(tmp_path / "data", read_only=True) as store:
        assert (last, "format") in [(found.position, found.kind) for found in store.verify().findings]
        with pytest.raises(CorruptionError):
            store.anchor()
