"""Redaction: what is erased is gone, from every file and from memory, in every process; what remains says so, and whose word it was."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import eventstore
from eventstore import (
    ABSENT,
    PRESENT,
    AccessError,
    ClosedError,
    ConfigError,
    DiskFullError,
    DomainStore,
    DuplicateEventError,
    EngineError,
    Erasure,
    NotFoundError,
    ReadOnlyError,
    RedactedError,
    Store,
    UnavailableError,
    WrongExpectedError,
    aio,
    erasure,
)
from eventstore.codec import erased
from eventstore.commit import OwnEvent, append_own
from eventstore.database import ERASE, sqlite3
from eventstore.erasure import named_by_redactions, still_held
from eventstore.intents import INTENTS
from eventstore.logfile import LogFile
from eventstore.model import HeldCopy, Key, Linked
from eventstore.remnants import ABANDONED, copies_of
from eventstore.restore import restore
from eventstore.tools.doctor import doctor
from tests import verifier
from tests.eventstore.crew import PATIENCE
from tests.sampled import sampled
from tests.tools.command import done
from tests.tools.command import eventstore as command

ROOT = Path(__file__).parents[2]


LOOK = """
import os, sys
needles = [bytes.fromhex(word) for word in sys.stdin.read().split()]
for folder, _, names in os.walk("."):
    for path in filter(os.path.isfile, (os.path.join(folder, name) for name in names)):
        with open(path, "rb") as file:
            content = file.read()
        if any(needle in content for needle in needles):
            print(os.path.relpath(path))
"""


def files_with(folder: Path, *needles: bytes | str) -> list[str]:
    """The files of a store in which any of these bytes stand; asked of a subprocess, as closing a database here drops its locks."""
    words = [(needle.encode() if isinstance(needle, str) else needle).hex() for needle in needles]
    assert all(words), "nothing stands everywhere"
    bare = [sys.executable, "-I", "-S", "-c", LOOK]  # hundreds are started: without what it does not need
    asked = subprocess.run(bare, cwd=folder, input=" ".join(words), capture_output=True, text=True, check=True)
    return sorted(asked.stdout.splitlines())


def secret() -> str:
    """A value that stands nowhere else."""
    return secrets.token_hex(16)


def status_of(d: DomainStore, key: str) -> str | None:
    state = d.state_of(key)
    return None if state is None else state.status


# ---- what is erased


def test_every_value_that_a_key_ever_had_is_erased(any_store: Store) -> None:
    d = any_store.domain("people")
    for value in ("one", "two"):
        d.write_value("alice", value)
    d.remove_value("alice")
    d.write_value("alice", "three")
    d.write_value("bob", "kept")
    done = d.redact("alice", reason="asked", actor="dpo")
    assert done == Erasure("people", 6, erased=[1, 2, 4], already=[], held=[])
    assert done.complete
    assert [(event.op, event.data, event.digest is None) for event in d.history("alice")] == [
        ("put", None, False),
        ("remove", None, True),
        ("put", None, False),
        ("put", None, False),
    ]
    assert status_of(d, "alice") == "redacted"
    with pytest.raises(RedactedError) as refused:
        d.read_value("alice")
    assert (refused.value.domain, refused.value.position) == ("people", 4)
    assert d.read_value("bob") == "kept"
    report = any_store.verify()
    assert (report.ok, report.domains[0].redacted, report.domains[0].events) == (True, 3, 6)


def test_who_erased_what_and_why_is_on_record(any_store: Store) -> None:
    d = any_store.domain("people")
    d.write_value("alice", 1)
    d.redact("alice", reason="request 17", actor="dpo")
    event = d.event(2)
    assert (event.op, event.key, event.data) == ("redact", "[]", '{"positions":[1]}')
    assert json.loads(event.meta or "") == {"actor": "dpo", "reason": "request 17"}


def test_the_stores_actor_erases_where_none_is_named(open_store: Callable[..., Store]) -> None:
    d = open_store(actor="bot").domain("people")
    d.write_value("alice", 1)
    d.redact("alice", reason="asked")
    assert json.loads(d.event(2).meta or "")["actor"] == "bot"


def test_a_removed_key_is_erased_and_stays_removed(any_store: Store) -> None:
    d = any_store.domain("people")
    d.write_value("alice", 1)
    d.remove_value("alice")
    assert d.redact("alice", reason="asked").erased == [1]
    assert status_of(d, "alice") == "removed"
    assert "alice" not in d


def test_a_prefix_means_all_keys_under_it_and_itself_removed_ones_too(any_store: Store) -> None:
    d = any_store.domain("people")
    keys: list[Key] = [("c", 1), ("c", 1, "mail"), ("c", 12), ("c", "1"), "c", ("d", 1)]
    for key in keys:
        d.write_value(key, 1)
    d.remove_value(("c", 1, "mail"))
    assert d.redact(prefix=("c", 1), reason="asked").erased == [1, 2]
    assert d.redact(prefix="c", reason="asked").erased == [3, 4, 5]
    assert d.redact(prefix=(), reason="asked").erased == [6]


def test_positions_mean_these_values_alone(any_store: Store) -> None:
    d = any_store.domain("people")
    for value in range(4):
        d.write_value("alice", value)
    assert d.redact(positions=[3, 1, 3], reason="asked").erased == [1, 3]
    assert d.read_value("alice") == 3
    assert [event.data for event in d.events(until=4)] == [None, "1", None, "3"]
    d.redact(positions=[4], reason="asked")
    assert status_of(d, "alice") == "redacted", "it does not fall back to an older value"


def test_redacted_again_nothing_is_appended_and_the_report_says_so(any_store: Store) -> None:
    d = any_store.domain("people")
    d.write_value("alice", 1)
    first = d.redact("alice", reason="asked")
    assert d.redact("alice", reason="asked") == Erasure("people", None, [], [1], [])
    assert d.head().position == first.position
    d.write_value("alice", 2)
    assert d.redact("alice", reason="asked again") == Erasure("people", 4, [3], [1], [])
    assert d.event(4).data == '{"positions":[3]}'


def test_a_dry_run_says_what_would_go_and_does_nothing(any_store: Store) -> None:
    d = any_store.domain("people")
    d.write_value("alice", 1)
    assert d.redact("alice", reason="asked", dry_run=True) == Erasure("people", None, [1], [], [])
    assert (d.head().position, d.read_value("alice")) == (1, 1)


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({"key": "nobody"}, NotFoundError),
        ({"prefix": "nobody"}, NotFoundError),
        ({"positions": []}, NotFoundError),
        ({"positions": [99]}, NotFoundError),
        ({"positions": [2]}, NotFoundError),
        ({"positions": [-1]}, NotFoundError),
        ({"positions": [1, 0]}, ConfigError),
        ({"positions": [1, 4]}, ConfigError),
        ({"positions": ["1"]}, ConfigError),
        ({"positions": [True]}, ConfigError),
        ({}, ConfigError),
        ({"key": "alice", "positions": [1]}, ConfigError),
        ({"key": "alice", "reason": ""}, ConfigError),
        ({"key": "alice", "reason": 5}, ConfigError),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_and_nothing_erased(any_store: Store, asked: dict[str, Any], kind: type[Exception]) -> None:
    """Nothing to erase is an error: whoever mistypes a name must not believe that it is done."""
    d = any_store.domain("people")
    d.write_value("alice", 1)
    d.remove_value("alice")
    d.write_value("bob", 2)
    d.redact("bob", reason="asked")  # position 4, an event of the log itself
    with pytest.raises(kind):
        d.redact(**{"reason": "asked", **asked})
    assert d.head().position == 4
    assert d.event(1).data == "1"


def test_a_store_that_may_not_be_written_erases_nothing(open_store: Callable[..., Store]) -> None:
    with open_store() as store:
        store.domain("people").write_value("alice", 1)
    reading = open_store(read_only=True)
    with pytest.raises(ReadOnlyError):
        reading.domain("people").redact("alice", reason="asked")
    reading.close()
    with pytest.raises(ClosedError):
        reading.domain("people").redact("alice", reason="asked")


def test_what_is_written_until_the_lock_is_had_is_erased_too(open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = open_store().domain("people"), open_store().domain("people")
    one.write_value("alice", 1)
    alone = one.group.alone

    @contextmanager
    def slowly() -> Iterator[Any]:
        other.write_value("alice", 2)
        with alone() as head:
            yield head

    monkeypatch.setattr(one.group, "alone", slowly)
    assert one.redact("alice", reason="asked").erased == [1, 2]


def test_tasks_erase_by_the_same_verb(tmp_path: Path) -> None:
    async def main() -> None:
        async with await aio.open(tmp_path / "data") as store:
            d = await store.domain("people")
            await d.write_value("alice", secret())
            assert (await d.redact("alice", reason="asked")).erased == [1]
            with pytest.raises(RedactedError):
                await d.read_value("alice")

    asyncio.run(main())


def test_an_intent_that_was_redacted_does_not_hide_the_others(store: Store) -> None:
    for event_id in ("order-1", "order-2"):
        with pytest.raises(TimeoutError), store.intent(event_id, {"who": "alice"}):
            raise TimeoutError
    store.domain(INTENTS).redact("order-1", reason="asked")
    assert [left.event_id for left in store.uncertain()] == ["order-2"]


def test_on_commit_hears_of_it(open_store: Callable[..., Store]) -> None:
    heard: list[eventstore.Commit] = []
    d = open_store(on_commit=heard.append).domain("people")
    d.write_value("alice", 1)
    d.redact("alice", reason="asked")
    assert [(commit.position, commit.events) for commit in heard] == [(1, 1), (2, 1)]


# ---- what every verb says afterwards


def test_the_past_is_erased_as_well(any_store: Store) -> None:
    d = any_store.domain("people")
    d.write_value("alice", 1)
    d.write_value("alice", 2)
    before = d.state(1)
    assert before.read_value("alice") == 1  # now it is in the cache
    moment = datetime.fromtimestamp(d.event(1).recorded_us / 1_000_000, UTC)
    d.redact("alice", reason="asked")
    for view in (before, d.state(1), d.state(2), d.state(moment), d.state()):
        with pytest.raises(RedactedError):
            view.read_value("alice")
        with pytest.raises(RedactedError):
            view.get("alice", "nothing")
        with pytest.raises(RedactedError):
            list(view.items())
        assert list(view.keys()) == ["alice"]


def test_a_redacted_key_is_there_for_what_a_write_expects(any_store: Store) -> None:
    d = any_store.domain("people")
    d.write_value("alice", 1)
    d.redact("alice", reason="asked")
    with pytest.raises(WrongExpectedError):
        d.write_value("alice", 2, expected=ABSENT)
    with pytest.raises(RedactedError):
        d.update_value("alice", lambda value: value)
    with pytest.raises(RedactedError):
        d.restore_value("alice", 1)
    assert d.write_value("alice", 1, unchanged="skip").appended, "nobody can tell that it is unchanged"
    assert d.write_value("alice", 2, expected=3).position == 4
    assert d.write_value("alice", 3, expected=PRESENT).position == 5
    assert d.read_value("alice") == 3
    assert d.event(1).data is None


def test_a_retry_of_a_redacted_write_gets_its_first_receipt_and_writes_nothing(open_store: Callable[..., Store]) -> None:
    first = open_store().domain("people")
    receipt = first.write_value("alice", "the value", event_id="e")
    many = first.write_values([("bob", 1), ("alice", 2)], event_id="f")
    first.redact("alice", reason="asked")
    for d in (first, open_store().domain("people")):
        assert d.write_value("alice", "the value", event_id="e") == receipt
        assert d.write_values([("bob", 1), ("alice", 2)], event_id="f") == many
        with pytest.raises(DuplicateEventError):
            d.write_value("bob", "the value", event_id="e")
        with pytest.raises(DuplicateEventError):
            d.write_values([("bob", 3), ("alice", 2)], event_id="f")
        assert d.head().position == 4


def test_an_erased_domain_is_exported_and_imported_as_it_is(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "one") as store:
        d = store.domain("people")
        d.write_value("alice", "told in confidence")
        d.write_value("bob", 2)
        d.redact("alice", reason="asked")
        events = [d.event(0), *d.events()]
    file = tmp_path / "events.jsonl"
    done("export", tmp_path / "one", "-o", file)
    assert b"confidence" not in file.read_bytes()
    done("import", file, tmp_path / "two")
    with eventstore.open(tmp_path / "two") as store:
        d = store.domain("people")
        assert [d.event(0), *d.events()] == events
        assert status_of(d, "alice") == "redacted"
    done("init", tmp_path / "three")
    done("import", file, tmp_path / "three", "--domain", "people")
    done("verify", tmp_path / "three")


def test_the_second_verifier_agrees(tmp_path: Path) -> None:
    with eventstore.open(tmp_path / "data") as store:
        d = store.domain("people")
        d.write_values([("alice", 1), ("bob", 2)])
        d.redact("alice", reason="asked")
    log = tmp_path / "data" / "logs" / "people"
    assert verifier.verify(log / f"{0:020d}.db", log / "head", domain="people").findings == []


Step = tuple[str, str, int]
VERBS = ["put", "put", "put", "remove", "redact", "redact one"]
steps = st.lists(st.tuples(st.sampled_from(VERBS), st.sampled_from("abc"), st.integers(0, 30)))


def erased_state(facts: Sequence[tuple[str, str, object]], until: int) -> dict[str, object]:
    """What each key holds after the first `until` events: its value, or that it was redacted."""
    latest = {key: (op, value) for op, key, value in facts[:until] if op != "redact"}
    return {key: value for key, (op, value) in latest.items() if op == "put"}


@settings(max_examples=10)
@given(steps)
@example([("put", "a", 1), ("put", "a", 2), ("redact one", "a", 1), ("remove", "a", 0), ("redact", "a", 0), ("put", "a", 3)])
def test_every_moment_of_any_life_is_what_its_events_say(life: list[Step]) -> None:
    """Writes, removals and redactions in any order, by two handles in turn: at every position the fold of what is left."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as handles:
        memory = handles.enter_context(eventstore.open("memory:"))
        stores = [handles.enter_context(eventstore.open(folder, durability="process", min_free_bytes=0)) for _ in range(2)]
        facts: list[tuple[str, str, object]] = []
        for number, (verb, key, value) in enumerate(life):
            chosen = [index for index, (op, named, held) in enumerate(facts) if op == "put" and held != "redacted" and named == key]
            if verb == "redact one":
                chosen = chosen[value % len(chosen) :][:1] if chosen else []
            positions = [index + 1 for index in chosen]
            for store in (memory, stores[number % 2]):
                d = store.domain("d")
                if verb == "put":
                    d.write_value(key, value)
                elif verb == "remove":
                    d.remove_value(key)
                elif positions:
                    report = d.redact(key, reason="asked") if verb == "redact" else d.redact(positions=positions, reason="asked")
                    assert report.erased == positions
            there = key in erased_state(facts, len(facts))
            if verb == "put" or (verb == "remove" and there):
                facts.append((verb, key, value if verb == "put" else None))
            elif positions and verb.startswith("redact"):
                facts = [(op, named, "redacted" if index in chosen else held) for index, (op, named, held) in enumerate(facts)]
                facts.append(("redact", "", None))
        for store in (memory, *stores, handles.enter_context(eventstore.open(folder, read_only=True))) if facts else ():
            d = store.domain("d")
            for until in range(len(facts) + 1):
                view = d.state(until)
                assert dict(map(partial(read_or_redacted, view), view.keys())) == erased_state(facts, until)
            assert store.verify().ok


def read_or_redacted(view: eventstore.DomainView, key: Key) -> tuple[Key, object]:
    try:
        return key, view.read_value(key)
    except RedactedError:
        return key, "redacted"


# ---- no byte is left


SIZES = [10, 200, 3_000, 9_000, 100_000]


@pytest.mark.parametrize("size", SIZES)
def test_no_file_holds_what_was_erased(tmp_path: Path, size: int) -> None:
    """Overflow pages, free pages, the WAL, pointer files: nothing, from the moment of the answer."""
    told = [secret() for _ in range(30)]
    with eventstore.open(tmp_path / "data") as store:
        d = store.domain("people")
        for number, word in enumerate(told):
            d.write_value("alice" if number % 3 else f"other-{number}", {"word": word, "pad": "x" * size, "again": word})
        hidden = [word for number, word in enumerate(told) if number % 3]
        assert files_with(tmp_path / "data", *hidden) != []
        salts = [event.salt or b"" for event in d.history("alice")]
        assert files_with(tmp_path / "data", *salts) != []
        assert d.redact("alice", reason="asked").complete
        assert files_with(tmp_path / "data", *hidden) == []
        assert files_with(tmp_path / "data", *salts) == [], "with the salt, a digest can be guessed"
        assert d.read_value("other-0")["word"] == told[0]
    assert files_with(tmp_path / "data", *hidden) == []
    assert files_with(tmp_path / "data", told[0]) != [], "this test looks at the wrong place"


def sealed_twice(folder: Path, words: Sequence[str]) -> None:
    """A log of three files: the words in each of them, written by `alice`, and something of `bob` beside them."""
    with eventstore.open(folder) as store:
        d = store.domain("people")
        for number, word in enumerate(words):
            d.write_value("alice", word)
            d.write_value(f"bob-{number}", number)
            if number < 2:
                store.seal("people")


def test_no_sealed_file_holds_what_was_erased(tmp_path: Path) -> None:
    """Each version in the file that it was appended to, and in those that carry it."""
    words, folder = [secret() for _ in range(3)], tmp_path / "data"
    sealed_twice(folder, words)
    assert files_with(folder, words[0]) == [f"logs/people/{0:020d}.db", f"logs/people/{4:020d}.db"]
    with eventstore.open(folder) as store:
        d = store.domain("people")
        positions = [event.position for event in d.history("alice")][::-1]
        report = d.redact("alice", reason="asked")
        assert (report.erased, report.held) == (positions, [])
        assert files_with(folder, *words) == []
        assert store.verify().ok
        assert [event.data for event in d.history("alice")] == [None] * 3
        for position in positions:
            with pytest.raises(RedactedError):
                d.state(as_of=position).read_value("alice")
        assert store.seal("people").sealed
        assert store.verify().ok
    assert files_with(folder, *words) == []
    log = folder / "logs" / "people"
    assert verifier.verify(log, log / "head").findings == []


def test_a_sealed_file_that_is_put_back_is_erased_at_the_next_opening(tmp_path: Path) -> None:
    """As is one that its redaction did not reach before the process was killed."""
    words, folder = [secret() for _ in range(3)], tmp_path / "data"
    sealed_twice(folder, words)
    first = folder / "logs" / "people" / f"{0:020d}.db"
    before = first.read_bytes()
    with eventstore.open(folder) as store:
        store.domain("people").redact("alice", reason="asked")
    first.write_bytes(before)
    assert files_with(folder, words[0]) == [f"logs/people/{first.name}"]
    with eventstore.open(folder, read_only=True) as store:
        assert not store.verify().ok
    with eventstore.open(folder) as store:
        store.domain("people")
        assert files_with(folder, words[0]) == []
        assert store.verify().ok


def test_an_archive_that_is_attached_is_erased_in_and_stays_on_record(tmp_path: Path) -> None:
    words, folder, archive = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive"
    sealed_twice(folder, words)
    with eventstore.open(folder) as store:
        (moved,) = store.archive("people", before=store.domain("people").head().position, to=archive)
        assert len(moved.files) == 2
        assert files_with(archive, *words[:2]) != []
    with eventstore.open(folder, archives=[archive]) as store:
        report = store.domain("people").redact("alice", reason="asked")
        assert (len(report.erased), report.held) == (3, [])
        assert files_with(tmp_path, *words) == []
        assert store.verify().ok, "the archived bytes are others by now, and that is on record"
    with eventstore.open(folder, archives=[archive]) as store:
        assert store.verify().ok


def test_an_archive_that_is_not_attached_is_named_and_done_once_it_is(tmp_path: Path) -> None:
    words, folder, archive = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive"
    sealed_twice(folder, words)
    with eventstore.open(folder) as store:
        store.archive("people", before=store.domain("people").head().position, to=archive)
    with eventstore.open(folder) as store:
        d = store.domain("people")
        wanted = [str(archive)] * 2
        assert [held.path.split(" ")[0] for held in d.redact("alice", reason="asked", dry_run=True).held] == wanted
        report = d.redact("alice", reason="asked")
        assert not report.complete
        assert [held.path.split(" ")[0] for held in report.held] == wanted
        assert files_with(folder, *words) == []
        assert files_with(archive, words[0]) != []
    with eventstore.open(folder, archives=[archive]) as store:
        again = store.domain("people").redact("alice", reason="asked")
        assert (again.complete, files_with(tmp_path, *words)) == (True, [])
        assert store.verify().ok


@pytest.mark.parametrize("chosen", [{"key": "alice"}, {"prefix": ()}], ids=["key", "prefix"])
def test_what_only_an_archive_may_have_is_no_value_that_never_was(tmp_path: Path, chosen: dict[str, Any]) -> None:
    word, folder, archive = secret(), tmp_path / "data", tmp_path / "archive"
    with eventstore.open(folder) as store:
        people = store.domain("people")
        people.write_value("alice", word)
        people.remove_value("alice")
        store.seal("people")
        store.archive("people", to=archive)
    with eventstore.open(folder) as store:
        with pytest.raises(eventstore.CompactedError) as raised:
            store.domain("people").redact(**chosen, reason="asked")
        assert raised.value.archive == str(archive)
    with eventstore.open(folder, archives=[archive]) as store:
        report = store.domain("people").redact(**chosen, reason="asked")
        assert (report.erased, report.complete, files_with(tmp_path, word)) == ([1], True, [])


def test_a_deletion_that_was_cut_short_is_told(tmp_path: Path) -> None:
    """The log says that the file is gone, and it stands in the archive with what is redacted now."""
    word, folder, archive = secret(), tmp_path / "data", tmp_path / "archive"
    with eventstore.open(folder) as store:
        store.domain("people").write_value("alice", word)
        store.seal("people")
        store.archive("people", to=archive)
    die = "retention._delete_file = lambda *_: os._exit(9); store.retain(eventstore.Retention(keep_events=0), delete=True)"
    killed = f"import os, sys, eventstore; from eventstore import retention; store = eventstore.open(sys.argv[1]); {die}"
    assert subprocess.run([sys.executable, "-c", killed, str(folder)], check=False).returncode == 9
    with eventstore.open(folder) as store:
        people = store.domain("people")
        (held,) = people.redact("alice", reason="asked").held
        assert [str(archive / name) for name in files_with(archive, word)] == [held.path]
        store.retain(eventstore.Retention(keep_events=0), delete=True)
        report = people.redact("alice", reason="asked")
        assert (report.complete, files_with(tmp_path, word)) == (True, [])


def archived_twice(folder: Path, archive: Path, words: Sequence[str]) -> None:
    """As sealed_twice(), with both files in an archive."""
    sealed_twice(folder, words)
    with eventstore.open(folder) as store:
        store.archive("people", before=store.domain("people").head().position, to=archive)


def in_archive(archive: Path) -> Path:
    """The first file that was archived there."""
    return min(archive.glob("*/people/*.db"))


def rotten(path: Path, how: str) -> bytes:
    """Damage a sealed file as a disk does; gives what it held."""
    content = path.read_bytes()
    pages = {"header": (0, 100), "first page": (8192, 8192), "empty": (0, len(content))}
    start, size = pages[how]
    path.write_bytes(b"" if how == "empty" else content[:start] + bytes(size) + content[start + size :])
    return content


@pytest.mark.corrupts
@pytest.mark.parametrize("archived", [False, True], ids=["own", "archived"])
@pytest.mark.parametrize("how", sampled(["header", "empty", "first page"], "header"))
def test_a_file_that_rotted_keeps_nobody_from_writing_and_is_named_as_what_may_hold_a_copy(
    tmp_path: Path, how: str, archived: bool, caplog: pytest.LogCaptureFixture
) -> None:
    older, words, folder, archive = secret(), [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive"
    with eventstore.open(folder) as store:
        store.domain("people").write_value("alice", older)
    (archived_twice if archived else lambda folder, _, words: sealed_twice(folder, words))(folder, archive, words)
    path = in_archive(archive) if archived else folder / "logs" / "people" / f"{0:020d}.db"
    before = rotten(path, how)
    reopened = partial(eventstore.open, folder, archives=[archive] if archived else [])
    with reopened() as store:
        d = store.domain("people")
        receipt = d.write_value("bob", secret())
        assert [held.path for held in d.redact("alice", reason="asked", dry_run=True).held] == [str(path)]
        report = d.redact("alice", reason="asked")
        assert (len(report.erased), report.erased[0]) == (3, 2), "of the rotten file only what a later one has a copy of"
        assert files_with(tmp_path, *words) == ([str(path.relative_to(tmp_path))] if how == "header" else [])
        ((held,), complete) = report.held, report.complete
        assert (held.path, complete) == (str(path), False)
        assert "redact the same again" in held.advice
        d.redact("bob", reason="asked")
    caplog.clear()
    with reopened() as store:
        d = store.domain("people")
        assert any(str(path) in record.getMessage() and "may hold what was redacted" in record.getMessage() for record in caplog.records)
        assert d.write_value("carol", 1, event_id="e").position > receipt.position
        assert store.seal("people").sealed
        again = d.redact("alice", reason="asked")
        assert (again.erased, [held.path for held in again.held]) == ([], [str(path)])
        assert not store.verify().ok
    path.write_bytes(before)
    with reopened() as store:
        d = store.domain("people")
        report = d.redact("alice", reason="asked")
        assert (report.erased, len(report.already), report.held) == ([1], 3, [])
        assert (files_with(tmp_path, older, *words), store.verify().ok) == ([], True)


@pytest.mark.corrupts
def test_what_was_redacted_while_its_file_was_rotten_is_erased_once_a_copy_is_put_back(tmp_path: Path) -> None:
    """What later files carry of it says that it was there, so the redaction names it."""
    word, folder = secret(), tmp_path / "data"
    with eventstore.open(folder) as store:
        store.domain("people").write_value("alice", word)
        store.seal("people")
    path = folder / "logs" / "people" / f"{0:020d}.db"
    before = rotten(path, "header")
    with eventstore.open(folder) as store:
        report = store.domain("people").redact("alice", reason="asked")
        assert (report.erased, [held.path for held in report.held]) == ([1], [str(path)])
    path.write_bytes(before)
    with eventstore.open(folder) as store:
        store.domain("people")
        assert (files_with(folder, word), store.verify().ok) == ([], True)


@pytest.mark.corrupts
def test_a_history_is_read_up_to_a_damaged_page(tmp_path: Path) -> None:
    """And what is read so is erased; what is behind the page is left, and its file named."""
    folder = tmp_path / "data"
    with eventstore.open(folder) as store:
        store.domain("people").write_values([("alice", f"{number} {'x' * 500}") for number in range(300)])
        store.seal("people")
    path = folder / "logs" / "people" / f"{0:020d}.db"
    content = bytearray(path.read_bytes())
    content[8192 * 9 : 8192 * 10] = bytes(8192)
    path.write_bytes(content)
    with eventstore.open(folder) as store:
        d = store.domain("people")
        with pytest.raises(eventstore.FormatError):
            list(d.history("alice"))
        report = d.redact("alice", reason="asked")
        assert (report.erased[-1], [held.path for held in report.held]) == (300, [str(path)])
        assert report.erased == list(range(report.erased[0], 301))
        assert 1 < report.erased[0] < 250


def test_a_file_that_is_there_twice_is_erased_in_both_places(tmp_path: Path) -> None:
    """The one in the log's own folder is read; who archived it died before it could be removed, or somebody put it back."""
    words, folder, archive = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive"
    archived_twice(folder, archive, words)
    with eventstore.open(folder, archives=[archive]) as store:
        d = store.domain("people")
        back = Path(shutil.copy(in_archive(archive), folder / "logs" / "people"))
        report = d.redact("alice", reason="asked")
        assert (len(report.erased), report.held, files_with(tmp_path, *words)) == (3, [], [])
    with eventstore.open(folder, archives=[archive]) as store:
        assert store.domain("people").floor == 0
        assert not back.exists(), "what is on record is the copy without the value"
        assert store.verify().ok


def test_of_two_archives_the_one_on_record_is_recorded_anew_and_both_are_erased_in(tmp_path: Path) -> None:
    words, folder, archive, other = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive", tmp_path / "second"
    archived_twice(folder, archive, words)
    shutil.copytree(archive, other)
    for archives in ([archive, other], [other, archive]):
        with eventstore.open(folder, archives=archives) as store:
            d = store.domain("people")
            d.write_value("alice", words[2])
            report = d.redact("alice", reason="asked")
            assert (report.held, files_with(tmp_path, *words)) == ([], [])
            said = [json.loads(str(event.data))["to"] for event in d.events() if event.op == "archive"]
            assert set(said) == {str(archive)}
            assert store.verify().ok


@pytest.mark.corrupts  # what was redacted stands in an archive, and verify says so
@pytest.mark.parametrize("how", ["copied", "restored"])
def test_a_copy_of_a_store_leaves_its_originals_archive_alone_and_names_it(tmp_path: Path, how: str) -> None:
    words, folder, archive, copy = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive", tmp_path / "copy"
    archived_twice(folder, archive, words)
    if how == "copied":
        shutil.copytree(folder, copy)
    else:
        with eventstore.open(folder) as store:
            store.backup(tmp_path / "backup")
        restore(tmp_path / "backup", copy)
        shutil.rmtree(tmp_path / "backup")
    before = {path: path.read_bytes() for path in sorted(archive.rglob("*.db"))}
    with eventstore.open(copy, archives=[archive]) as store:
        d = store.domain("people")
        planned = d.redact("alice", reason="asked", dry_run=True)
        report = d.redact("alice", reason="asked")
        assert (report.erased, report.held, report.complete) == (planned.erased, planned.held, False)
        assert [held.path for held in report.held] == list(map(str, before))
        assert f"files that the store {folder} put there" in report.held[0].advice
        assert "redact(..., take_over=True)" in report.held[0].advice
        assert files_with(copy, *words) == []
        again = d.redact("alice", reason="asked")
        assert (again.position, again.erased, again.already, again.held) == (None, [], report.erased, report.held)
        assert {finding.kind for finding in store.verify().findings} == {"redacted", "carried"}, "it is in the sealed file, and not here"
    with eventstore.open(copy, archives=[archive]) as store:  # what an opening finishes is not finished there
        assert store.domain("people").redact("alice", reason="asked").held == report.held
    assert {path: path.read_bytes() for path in sorted(archive.rglob("*.db"))} == before
    with eventstore.open(folder, archives=[archive]) as store:
        assert store.verify().ok
        d = store.domain("people")
        assert [event.data for event in d.history("alice")] == [json.dumps(word) for word in reversed(words)]
        assert d.redact("alice", reason="asked").complete, "whose archive it is, erases there"
    assert files_with(tmp_path, *words) == []


def test_a_store_that_takes_over_erases_in_an_archive_that_was_anothers(tmp_path: Path) -> None:
    words, folder, archive, moved = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive", tmp_path / "moved"
    archived_twice(folder, archive, words)
    folder.rename(moved)
    with eventstore.open(moved, archives=[archive]) as store:
        d = store.domain("people")
        assert not d.redact("alice", reason="asked").complete
        assert d.redact("alice", reason="asked", dry_run=True, take_over=True).complete
        assert files_with(archive, *words) != []
        done = d.redact("alice", reason="asked", take_over=True)
        assert (done.position, done.erased, len(done.already), done.held) == (None, [], 3, [])
        assert files_with(tmp_path, *words) == []
        assert d.redact("bob-0", reason="asked").complete, "from now on it is the one that erases there"
        assert store.verify().ok


def test_an_archive_that_was_recorded_elsewhere_than_it_is_attached_is_told(tmp_path: Path) -> None:
    words, folder, archive, moved = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive", tmp_path / "moved"
    archived_twice(folder, archive, words)
    shutil.copytree(archive, moved)
    with eventstore.open(folder, archives=[moved]) as store:
        d = store.domain("people")
        recorded = sum(event.op == "archive" for event in d.events())
        report = d.redact("alice", reason="asked")
        assert [held.path.split(" ")[0] for held in report.held] == [str(archive)] * 2
        assert "attach its archive" in report.held[0].advice
        assert (files_with(moved, *words), files_with(archive, words[0]) != []) == ([], True)
        assert sum(event.op == "archive" for event in d.events()) == recorded, "of a file elsewhere nothing is on record"
        assert store.verify().ok
    with eventstore.open(folder, archives=[archive]) as store:
        assert store.domain("people").redact("alice", reason="asked").complete
        assert files_with(tmp_path, *words) == []
        assert store.verify().ok


def test_a_file_that_was_erased_in_does_not_go_for_a_copy_that_was_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, folder, archive = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive"
    with monkeypatch.context() as patched:
        patched.setattr("eventstore.archive.drop", lambda *_: [])  # as if whoever records it were killed before the original goes
        archived_twice(folder, archive, words)
        back = folder / "logs" / "people" / in_archive(archive).name
        with eventstore.open(folder) as store:
            report = store.domain("people").redact("alice", reason="asked")
            assert (len(report.erased), len(report.held), files_with(folder, *words)) == (3, 2, [])
    with eventstore.open(folder) as store:
        store.domain("people")
        assert back.exists()
        assert "still holds what was redacted" in caplog.text
    with eventstore.open(folder, archives=[archive]) as store:
        store.domain("people")
        assert not back.exists()
        assert files_with(tmp_path, *words) == []
        assert store.verify().ok


def test_an_archive_that_somebody_reads_is_told_and_emptied_by_the_next_opening(tmp_path: Path) -> None:
    """What was erased stands in the database until its write-ahead log is emptied, and the hash is that of the database."""
    words, folder, archive = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive"
    archived_twice(folder, archive, words)
    read = in_archive(archive)
    with slow_reader(read) as end_read:
        with eventstore.open(folder, archives=[archive], busy_timeout_ms=50) as store:
            report = store.domain("people").redact("alice", reason="asked")
            assert [held.path for held in report.held] == [str(read)]
            assert "reader" in report.held[0].advice
        assert files_with(read.parent, words[0]) == [read.name]
        with eventstore.open(folder, archives=[archive], busy_timeout_ms=50) as store:
            assert [held.path for held in store.domain("people").redact("alice", reason="asked").held] == [str(read)]
        end_read()
    with eventstore.open(folder, archives=[archive]) as store:
        assert store.domain("people").redact("alice", reason="asked", dry_run=True).held == []
        assert files_with(tmp_path, *words) == []
        assert [path.stat().st_size for path in archive.rglob("*-wal")] in ([], [0], [0, 0])
        assert store.verify().ok, "of the bytes that are there now the hash is on record"


KILLED_BEFORE_THE_RECORD = """
import os, sys, eventstore
from eventstore import erasure
store = eventstore.open(sys.argv[1], archives=[sys.argv[2]])
d = store.domain("people")
erasure._record = lambda *_: os._exit(9)
d.redact("alice", reason="asked")
"""


def test_an_archive_that_was_erased_in_and_not_recorded_is_recorded_by_the_next_opening(tmp_path: Path) -> None:
    words, folder, archive = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive"
    archived_twice(folder, archive, words)
    killed = subprocess.run([sys.executable, "-c", KILLED_BEFORE_THE_RECORD, str(folder), str(archive)], cwd=ROOT, check=False)
    assert (killed.returncode, files_with(tmp_path, *words)) == (9, [])
    with eventstore.open(folder, archives=[archive], read_only=True) as store:
        report = store.verify()
        assert (report.ok, [str(archive) in note for note in report.domains[0].notes]) == (True, [True, True])
    told = command("verify", folder, "--archive", archive)
    assert (told.code, sum("people  note  " in line for line in told.out.splitlines())) == (0, 2)
    with eventstore.open(folder, archives=[archive]) as store:
        d = store.domain("people")
        head = d.head()
        assert (store.verify().ok, store.verify().domains[0].notes) == (True, [])
    with eventstore.open(folder, archives=[archive]) as store:
        assert store.domain("people").head() == head, "once"


@pytest.mark.corrupts
@pytest.mark.parametrize("what", ["an event", "a value that nobody redacted", "free space, and nothing is redacted"])
def test_an_archive_that_was_altered_is_told_so_though_a_redaction_awaits_its_record(tmp_path: Path, what: str) -> None:
    words, folder, archive = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive"
    archived_twice(folder, archive, words)
    path = in_archive(archive)
    with eventstore.open(folder, archives=[archive], read_only=True) as store:
        other = store.domain("people").event(2)
    if what.startswith("free"):
        with path.open("r+b") as file:
            file.seek(92)  # the version-valid-for number of SQLite's header: no event is there
            file.write(b"\xff\xff")
    else:
        subprocess.run([sys.executable, "-c", KILLED_BEFORE_THE_RECORD, str(folder), str(archive)], cwd=ROOT, check=False)
        database = sqlite3.connect(path)
        if what == "an event":
            database.execute("DROP TRIGGER event_update")
            database.execute("UPDATE event SET recorded_us = recorded_us + 1 WHERE position = 2")
        else:
            database.execute(ERASE, (erased(other).digest, 2))
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        database.close()
    with eventstore.open(folder, archives=[archive], read_only=True) as store:
        report = store.verify()
        told = [finding.message for finding in report.findings if finding.kind == "archive"]
        assert [message.startswith(f"{path}: SHA-256") and message.endswith("was altered") for message in told] == [True]


def test_who_redacts_beside_another_without_the_archive_records_it_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one redacts what the archive holds, too, between the erasing and the record; who has the archive does both."""
    words, folder, archive = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive"
    archived_twice(folder, archive, words)
    with eventstore.open(folder, archives=[archive]) as store, eventstore.open(folder) as other:
        d, beside, record = store.domain("people"), other.domain("people"), erasure._record
        d.write_value("zoe", secret())
        redacted: list[Erasure] = []

        def late(*args: Any) -> bool:
            if not redacted:
                redacted.append(beside.redact("bob-0", reason="asked, too"))
                with eventstore.open(folder, archives=[archive], read_only=True) as reader:
                    report = reader.verify()
                    assert ("archive" in {finding.kind for finding in report.findings}, len(report.domains[0].notes)) == (False, 2)
            return record(*args)

        monkeypatch.setattr(erasure, "_record", late)
        assert d.redact("alice", reason="asked").complete
        assert (redacted[0].complete, len(redacted[0].erased)) == (False, 1)
        assert (store.verify().ok, store.verify().domains[0].notes) == (True, [])
    with eventstore.open(folder, archives=[archive], read_only=True) as store:
        assert (store.verify().ok, store.verify().domains[0].notes) == (True, [])


@pytest.mark.corrupts
def test_an_archive_that_was_altered_is_not_put_on_record_by_a_redaction(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A digest where nobody redacted anything has a true checksum: that it is no redaction's only the log can say."""
    words, folder, archive = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive"
    archived_twice(folder, archive, words)
    with eventstore.open(folder, archives=[archive], read_only=True) as store:
        other = store.domain("people").event(2)
    database = sqlite3.connect(in_archive(archive))
    database.execute(ERASE, (erased(other).digest, 2))
    database.commit()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    database.close()
    with eventstore.open(folder, archives=[archive]) as store:
        assert store.domain("people").redact("alice", reason="asked").complete
        assert "not put on record anew: people@2: a digest stands" in caplog.text
        assert "archive" in {finding.kind for finding in store.verify().findings}


KILLED_AFTER_THE_COMMIT = """
import os, sys, eventstore
from eventstore import sqlite
store = eventstore.open(sys.argv[1])
d = store.domain("people")
sqlite.SqliteLog._erase_sealed = lambda *_: os._exit(9)
d.redact("alice", reason="asked")
"""


def test_a_redaction_that_was_killed_is_finished_before_a_process_that_was_open_archives(tmp_path: Path) -> None:
    words, folder, archive = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive"
    sealed_twice(folder, words)
    with eventstore.open(folder) as store:
        d = store.domain("people")
        killed = subprocess.run([sys.executable, "-c", KILLED_AFTER_THE_COMMIT, str(folder)], cwd=ROOT, check=False)
        assert (killed.returncode, files_with(folder, *words) != []) == (9, True)
        assert len(store.archive("people", before=d.head().position, to=archive)[0].files) == 2
        assert files_with(tmp_path, *words) == []
    with eventstore.open(folder, archives=[archive], read_only=True) as store:
        assert store.verify().ok


KILLED_WHILE_ARCHIVING = """
import os, sys, eventstore
from eventstore import archive, group
store = eventstore.open(sys.argv[1])
d = store.domain("people")
where, name = {"copying": (archive, "prove"), "recording": (group.GroupCommit, "record")}[sys.argv[3]]
setattr(where, name, lambda *_, **__: os._exit(9))
store.archive("people", before=d.head().position, to=sys.argv[2])
"""


def killed_while_archiving(folder: Path, archive: Path, at: str) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_ARCHIVING, str(folder), str(archive), at], cwd=ROOT, check=False)
    assert killed.returncode == 9


@pytest.mark.parametrize("by", ["opening", "archiving"])
def test_a_copy_that_was_left_half_made_is_told_and_removed(tmp_path: Path, by: str) -> None:
    """No event names it; it stands in a folder that the next one who archives need not know."""
    words, folder, archive = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive"
    sealed_twice(folder, words)
    with eventstore.open(folder) as store:
        d = store.domain("people")
        killed_while_archiving(folder, archive, "copying")
        assert files_with(archive, words[0]) != []
        (held,) = d.redact("alice", reason="asked").held
        assert held.path == f"{archive} (people, from position 0)"
        if by == "archiving":
            (report,) = store.archive("people", before=d.head().position, to=tmp_path / "other")
            assert (len(report.files), report.kept) == (2, [])
        else:
            with eventstore.open(folder) as again:
                again.domain("people")
        assert files_with(tmp_path, *words) == []
        wanted = [str(tmp_path / "other")] * 2 if by == "archiving" else []
        assert [held.path.split(" ")[0] for held in d.redact("alice", reason="asked", dry_run=True).held] == wanted
        assert store.verify().ok


def test_a_copy_that_no_event_names_is_told_until_a_redaction_reaches_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It may be all that another store has, which this one is a copy of: nobody removes it, and nobody forgets it."""
    words, folder, archive = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive"
    sealed_twice(folder, words)
    killed_while_archiving(folder, archive, "recording")
    copy = in_archive(archive)
    with eventstore.open(folder) as store:
        d = store.domain("people")
        assert f"no event names the copy {copy}" in caplog.text
        assert any(str(copy) in check.message for check in doctor(str(folder)).checks if check.name == "archives")
        assert [held.path for held in d.redact("alice", reason="asked").held] == [f"{archive} (people, from position 0)"]
        assert files_with(tmp_path, *words) == [str(copy.relative_to(tmp_path))]
        (report,) = store.archive("people", before=d.head().position, to=tmp_path / "other")
        assert [(len(report.files), each.first, each.last) for each in report.kept] == [(2, 0, 3)]
        assert str(copy) in report.kept[0].why
    archives = [archive, tmp_path / "other"]
    with eventstore.open(folder, archives=archives) as store:
        d = store.domain("people")
        assert d.redact("alice", reason="asked").held == []
        assert files_with(tmp_path, *words) == []
        assert store.verify().ok
    copy.unlink()
    with eventstore.open(folder, archives=archives) as store:
        assert store.domain("people").redact("alice", reason="asked").held == []
    assert (folder / "logs" / "people" / "archive.lock").read_bytes() == b""


def test_a_copy_that_no_event_names_is_taken_by_who_archives_there_again(tmp_path: Path) -> None:
    """With what was redacted since then erased in it; it stays the file that it was, as another store may count on it."""
    words, folder, archive = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive"
    sealed_twice(folder, words)
    killed_while_archiving(folder, archive, "recording")
    inode = in_archive(archive).stat().st_ino
    with eventstore.open(folder) as store:
        d = store.domain("people")
        assert len(d.redact("alice", reason="asked").held) == 1
        (report,) = store.archive("people", before=d.head().position, to=archive)
        assert (len(report.files), report.kept) == (2, [])
    assert (in_archive(archive).stat().st_ino, files_with(tmp_path, *words)) == (inode, [])
    with eventstore.open(folder, archives=[archive]) as store:
        assert store.verify().ok
        assert store.domain("people").redact("alice", reason="asked").held == []


def test_a_copy_that_somebody_reads_is_taken_once_it_can_be_erased_in(tmp_path: Path) -> None:
    words, folder, archive = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive"
    sealed_twice(folder, words)
    killed_while_archiving(folder, archive, "recording")
    with eventstore.open(folder, busy_timeout_ms=50) as store:
        d = store.domain("people")
        d.redact("alice", reason="asked")
        reader = sqlite3.connect(in_archive(archive))
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM event").fetchall()
        with pytest.raises(UnavailableError, match="read by another process"):
            store.archive("people", before=d.head().position, to=archive)
        assert d.floor == 0
        reader.close()
        assert store.archive("people", before=d.head().position, to=archive)[0].kept == []
    assert files_with(tmp_path, *words) == []


def test_a_copy_that_is_on_its_way_from_another_store_is_left_to_that_one(tmp_path: Path) -> None:
    """The folder was copied while its files were moved: what stands in the archive is soon all that the original has."""
    words, folder, archive, copy = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive", tmp_path / "copy"
    sealed_twice(folder, words)
    killed_while_archiving(folder, archive, "recording")
    shutil.copytree(folder, copy)
    with eventstore.open(folder) as store:
        assert store.archive("people", before=5, to=archive)[0].kept == []
    with eventstore.open(copy) as store:
        d = store.domain("people")
        assert [held.path for held in d.redact("alice", reason="asked").held] == [f"{archive} (people, from position 0)"]
        with pytest.raises(AccessError, match=f"redacted here, and the store {folder} put files there"):
            store.archive("people", before=5, to=archive)
        assert d.floor == 0
    assert in_archive(archive).exists()
    with eventstore.open(folder, archives=[archive]) as store:
        assert store.domain("people").event(1).data == json.dumps(words[0])
        assert store.verify().ok
    in_archive(archive).unlink()
    with eventstore.open(copy) as store:
        assert store.domain("people").redact("alice", reason="asked").held == []


def test_a_copy_that_cannot_be_reached_stays_named(tmp_path: Path) -> None:
    """As on a disk that is not there at the moment."""
    words, folder, archive = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive"
    sealed_twice(folder, words)
    killed_while_archiving(folder, archive, "recording")
    archive.rename(tmp_path / "unplugged")
    with eventstore.open(folder) as store:
        d = store.domain("people")
        assert len(d.redact("alice", reason="asked").erased) == 3
        (report,) = store.archive("people", before=d.head().position, to=tmp_path / "other")
        assert ([file.first for file in report.files], [each.first for each in report.kept]) == ([0, 4], [0])
        with eventstore.open(folder, archives=[tmp_path / "other"]) as whole:
            again = whole.domain("people").redact("alice", reason="asked")
            assert [held.path for held in again.held] == [f"{archive} (people, from position 0)"]
        (tmp_path / "unplugged").rename(archive)
        with eventstore.open(folder, archives=[tmp_path / "other", archive]) as whole:
            assert whole.domain("people").redact("alice", reason="asked").held == []
        assert files_with(tmp_path, *words) == []


def test_a_file_that_a_redaction_could_not_reach_is_not_archived(tmp_path: Path) -> None:
    words, folder, archive = [secret() for _ in range(3)], tmp_path / "data", tmp_path / "archive"
    sealed_twice(folder, words)
    first = folder / "logs" / "people" / f"{0:020d}.db"
    os.link(first, tmp_path / "other")  # a file with two names is written by nobody
    with eventstore.open(folder, busy_timeout_ms=100) as store:
        d = store.domain("people")
        assert not d.redact("alice", reason="asked").complete
        with pytest.raises(EngineError, match="redacted, and still in"):
            store.archive("people", before=d.head().position, to=archive)
        assert (first.exists(), files_with(archive, *words)) == (True, [])
        (tmp_path / "other").unlink()
        assert len(store.archive("people", before=d.head().position, to=archive)[0].files) == 2
        assert files_with(tmp_path, *words) == []


def test_an_archive_of_another_history_is_not_erased_in(tmp_path: Path) -> None:
    """After a restore two stores have one id, and the positions of the one say nothing of the other."""
    folder, again, backup = tmp_path / "data", tmp_path / "again", tmp_path / "backup"
    with eventstore.open(folder) as store:
        d = store.domain("people")
        d.write_value("k", 0)
        store.backup(backup)
        word = secret()
        for number in range(10):
            d.write_value(f"k{number}", word)
        store.seal("people")
        d.write_value("k", 1)
        store.archive("people", to=tmp_path / "archive")
    restore(backup, again)
    with eventstore.open(again) as store:
        d = store.domain("people")
        d.write_value("k", 2)
        store.seal("people")
        d.write_values([("n", number) for number in range(10)])
        store.archive("people", to=tmp_path / "archive of the other")
    before = files_with(tmp_path / "archive", word)
    with eventstore.open(again, archives=[tmp_path / "archive"]) as store:
        report = store.domain("people").redact(positions=[6, 7], reason="asked")
        assert report.erased == [6, 7]
        assert "does not end in the seal" in report.held[0].advice
    with eventstore.open(folder, archives=[tmp_path / "archive"]) as store:
        assert [event.data for event in store.domain("people").events(5, 7)] == [f'"{word}"'] * 2
        assert store.verify().ok
    assert files_with(tmp_path / "archive", word) == before != []


def test_a_second_redaction_does_what_the_first_could_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, folder = [secret(), secret()], tmp_path / "data"
    with eventstore.open(folder, busy_timeout_ms=100) as store:
        d = store.domain("people")
        for key, word in zip(("alice", "bob"), words, strict=True):
            d.write_value(key, word)
            d.write_value(key, 1)
        store.seal("people")
        d.write_value("other", 1)

        def refuse(*_: object) -> None:
            raise DiskFullError("full")

        with monkeypatch.context() as patched:
            patched.setattr(LogFile, "erase", refuse)
            assert d.redact("alice", reason="asked").held[0].advice.startswith("full")
        assert files_with(folder, words[0]) != []
        assert d.redact("bob", reason="asked").held == []
        assert files_with(folder, *words) == []


def test_a_sealed_file_that_cannot_be_written_is_reported_and_done_later(tmp_path: Path) -> None:
    words, folder = [secret() for _ in range(3)], tmp_path / "data"
    sealed_twice(folder, words)
    first = folder / "logs" / "people" / f"{0:020d}.db"
    other = first.with_name("another name")
    os.link(first, other)  # a file with two names is written by nobody
    with eventstore.open(folder) as store:
        d = store.domain("people")
        report = d.redact("alice", reason="asked")
        assert len(report.erased) == 3
        assert [Path(held.path).name for held in report.held] == [first.name, other.name]
        assert "hard link" in report.held[0].advice
        other.unlink()
        assert d.redact("alice", reason="asked").held == []
        assert files_with(folder, *words) == []


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_no_page_keeps_a_copy_when_rows_are_erased_in_any_order(tmp_path: Path, seed: int) -> None:
    """Erased rows shrink, and SQLite moves their neighbours to other pages: what it leaves where they were must be nothing."""
    chance, told, gone = random.Random(seed), dict[int, str](), list[str]()
    with eventstore.open(tmp_path / "data", durability="process") as store:
        d = store.domain("people")
        for _ in range(150):
            word = secret()
            receipt = d.write_value("k", {"word": word, "pad": "x" * chance.choice([0, 100, 1_000, 3_000, 9_000])})
            told[receipt.position] = word
        left = list(told)
        chance.shuffle(left)
        while left:
            count = chance.randint(1, 40)
            some, left = left[:count], left[count:]
            d.redact(positions=some, reason="asked")
            gone += [told[position][start : start + 12] for position in some for start in (0, 20)]
            assert files_with(tmp_path / "data", *gone) == []
        assert store.verify().ok


def test_sqlite_writes_what_it_erases_to_no_file_outside_the_store(tmp_path: Path) -> None:
    """Pages that a statement overwrites are kept until it has ended: in /var/tmp, if nobody says otherwise."""
    written: set[str] = set()

    def look() -> int:
        written.update(
            os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{name}")
        )
        return 0

    with eventstore.open(tmp_path / "data") as store:
        d = store.domain("people")
        d.write_value("alice", "x" * 1_000_000)
        log: Any = d._live.log
        log._file.writer.set_progress_handler(look, 1)
        d.redact("alice", reason="asked")
    assert any(name.endswith(".db-wal") for name in written)
    assert not [name for name in written if "etilqs" in name]


READER = """
import sys, pathlib
from eventstore.logfile import LogFile
reader = LogFile(pathlib.Path(sys.argv[1]), "people", read_only=True, busy_timeout_ms=0)._reader
reader.execute("BEGIN")
reader.execute("SELECT count(*) FROM event").fetchall()
print("reading", flush=True)
sys.stdin.readline()
reader.execute("COMMIT")
print("read", flush=True)
sys.stdin.readline()
"""


@contextmanager
def slow_reader(file: Path) -> Iterator[Callable[[], None]]:
    """Another process in the midst of a read; gives how to end the read."""
    reader = subprocess.Popen([sys.executable, "-c", READER, str(file)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert reader.stdin is not None
    assert reader.stdout is not None
    stdin, stdout = reader.stdin, reader.stdout
    assert stdout.readline() == "reading\n"

    def end() -> None:
        stdin.write("\n")
        stdin.flush()
        assert stdout.readline() == "read\n"

    yield end
    stdin.close()
    stdout.close()
    assert reader.wait(timeout=60) == 0


def test_a_reader_in_the_way_is_reported_and_the_next_checkpoint_does_it(tmp_path: Path) -> None:
    word, folder = secret(), tmp_path / "data"
    with eventstore.open(folder, busy_timeout_ms=50) as store:
        d = store.domain("people")
        d.write_value("alice", word)
        with slow_reader(folder / "logs" / "people" / f"{0:020d}.db") as end_read:
            report = d.redact("alice", reason="asked")
            assert report.erased == [1]
            assert [Path(copy.path).name for copy in report.held] == [f"{0:020d}.db-wal"]
            assert "reader" in report.held[0].advice
            assert files_with(folder, word) == [f"logs/people/{0:020d}.db-wal"]
            end_read()
            again = d.redact("alice", reason="asked")
            assert (again.erased, again.already, again.held) == ([], [1], [])
            assert files_with(folder, word) == []


def test_an_ordinary_checkpoint_finishes_it_once_the_reader_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    word, folder = secret(), tmp_path / "data"
    with eventstore.open(folder, busy_timeout_ms=50) as store:
        d = store.domain("people")
        d.write_value("alice", word)
        with slow_reader(folder / "logs" / "people" / f"{0:020d}.db") as end_read:
            assert not d.redact("alice", reason="asked").complete
            end_read()
            monkeypatch.setattr("eventstore.sqlite.CHECKPOINT_PAGES", 1)
            d.write_value("bob", 1)
            assert files_with(folder, word) == []


KILLED = """
import os, sys, eventstore
from eventstore import sqlite
store = eventstore.open(sys.argv[1])
d = store.domain("people")
d.write_value("alice", sys.argv[2])
sqlite.SqliteLog.forget_erased = lambda self, wait=True: os._exit(9)
d.redact("alice", reason="asked")
"""


def test_a_redaction_whose_process_was_killed_is_finished_by_the_next_opening(tmp_path: Path) -> None:
    word, folder = secret(), tmp_path / "data"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder), word], cwd=ROOT, check=False)
    assert killed.returncode == 9
    assert files_with(folder, word) == [f"logs/people/{0:020d}.db-wal"]
    with eventstore.open(folder) as store:
        assert status_of(store.domain("people"), "alice") == "redacted"
        assert files_with(folder, word) == []


@pytest.mark.corrupts
def test_a_row_that_comes_back_is_found_and_erased_again(tmp_path: Path) -> None:
    """As a file put back would bring it: its checksum is true, and only the redaction speaks against it."""
    folder = tmp_path / "data"
    with eventstore.open(folder) as store:
        d = store.domain("people")
        d.write_value("alice", "once")
        salted = d.event(1).salt
        d.redact("alice", reason="asked")
    database = sqlite3.connect(folder / "logs" / "people" / f"{0:020d}.db")
    (guard,) = database.execute("SELECT sql FROM sqlite_master WHERE name = 'event_update'").fetchone()
    database.execute("DROP TRIGGER event_update")
    database.execute("UPDATE event SET data = '\"once\"', salt = ?, digest = NULL WHERE position = 1", (salted,))
    database.execute(guard)
    database.commit()
    database.close()
    with eventstore.open(folder, read_only=True) as store:
        (finding,) = store.verify().findings
        assert (finding.position, finding.kind) == (1, "redacted")
        live = store.domain("people")._live
        assert still_held(live.log, named_by_redactions(live.log, live.states.system)) == [1]
    with eventstore.open(folder) as store:
        d = store.domain("people")
        assert (d.event(1).data, status_of(d, "alice")) == (None, "redacted")
        assert store.verify().ok
        assert files_with(folder, salted or b"") == []


@pytest.mark.corrupts
def test_a_redact_event_that_names_the_logs_own_events_erases_none_of_them(tmp_path: Path) -> None:
    """It is against the format, and a finding; but no reason why the store could not be opened."""
    with eventstore.open(tmp_path / "data") as store:
        group = store.domain("people").group
        for positions in ([], [0, 1]):
            with group.alone() as head:
                data = json.dumps({"positions": positions})
                append_own(group.live, head, group.clock, partial(OwnEvent, "redact", data, None), group.meter)
    with eventstore.open(tmp_path / "data") as store:
        d = store.domain("people")
        assert [event.data is None for event in (d.event(0), d.event(1))] == [False, False]
        assert not store.verify().ok


# ---- memory


def test_no_cache_of_any_process_answers_any_more(open_store: Callable[..., Store]) -> None:
    """Another handle on the same files sees what another process sees."""
    one, other = open_store().domain("people"), open_store().domain("people")
    one.write_value("alice", 1)
    before = other.state(1)
    for d in (one, other, before):
        assert d.read_value("alice") == 1
    one.redact("alice", reason="asked")
    assert one._live.cache.get("people", 1) is None
    with pytest.raises(RedactedError):
        before.read_value("alice")
    assert other._live.cache.get("people", 1) is None
    with pytest.raises(RedactedError):
        other.read_value("alice")


def test_what_was_read_before_a_redaction_does_not_come_into_the_cache_after_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    d = store.domain("people")
    d.write_value("alice", 1)
    view, cache = d.state(1), d._live.cache
    cache.drop("people", [1])
    linked = d._live.log.linked

    def slowly(positions: Any) -> list[Linked]:
        events = linked(positions)
        monkeypatch.setattr(d._live.log, "linked", linked)
        d.redact("alice", reason="asked")
        return events

    monkeypatch.setattr(d._live.log, "linked", slowly)
    view.get("alice")
    assert cache.get("people", 1) is None
    with pytest.raises(RedactedError):
        view.read_value("alice")


# ---- what remains cannot be guessed


def test_a_dictionary_finds_no_redacted_value(tmp_path: Path) -> None:
    """Everything that any file still says, against every plausible value: as text, hashed, with what stands beside it."""
    folder, pins = tmp_path / "data", [f"{number:04d}" for number in range(0, 10_000, 7)]
    with eventstore.open(folder) as store:
        d = store.domain("people")
        d.write_value("alice", pins[300], event_id="e")
        d.write_values([("bob", "public"), ("alice", pins[301])], event_id="f")
        d.write_value("carol", pins[302], event_id="g")
        d.write_value("carol", pins[302], event_id="h", unchanged="skip")
        kept = list(d.events())
        for key in ("alice", "carol"):
            d.redact(key, reason="asked")
        left = list(d.events())
    salts = [event.salt for event in kept if event.data is not None and event.key != '["bob"]']
    assert files_with(folder, *[salt or b"" for salt in salts]) == []
    known = {event.digest for event in left} | {event.checksum for event in left}
    metas = "".join(event.meta or "" for event in left)
    # Salts that are left, as somebody might have salted with another event's; and none.
    prefixes = [b"", *[event.salt for event in left if event.salt]]
    for pin in pins:
        text = json.dumps(pin).encode()
        for prefix in prefixes:
            digest = hashlib.sha256(prefix + text).digest()
            assert digest not in known
            assert digest.hex()[:16] not in metas
        for key in ("alice", "carol"):
            row = [("put", json.dumps([key]), pin_, None, None, "anything", "append") for pin_ in (pin, text.decode())]
            for one in row:
                assert hashlib.sha256(json.dumps([one], separators=(",", ":")).encode()).hexdigest()[:16] not in metas


def test_the_same_request_is_stored_for_every_value(any_store: Store) -> None:
    """What is stored of a call must not depend on its values at all; else it is a hash to guess them by."""
    requests = set()
    for number in range(5):
        d = any_store.domain(f"d{number}")
        d.write_values([("alice", number), ("bob", "x" * number)], event_id="e")
        requests.add(json.loads(d.event(1).meta or "")["request"])
    assert len(requests) == 1


# ---- what else holds a copy


@pytest.mark.parametrize("ends", [True, False], ids=["seen to the end", "that goes on"])
def test_the_next_file_that_somebody_makes_at_this_moment_is_no_copy_that_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ends: bool
) -> None:
    drafted, seen = threading.Event(), threading.Event()
    with eventstore.open(tmp_path / "data", busy_timeout_ms=10_000 if ends else 20) as store, eventstore.open(tmp_path / "data") as other:
        people, log = store.domain("people"), other.domain("people").group.live.log
        people.write_value("ann", "told in confidence")

        def draft() -> None:
            with log.writing():
                log.draft_seal()
                drafted.set()
                seen.wait(PATIENCE)

        sealer = threading.Thread(target=draft)

        def look(*args: Any, alone: bool) -> Iterator[HeldCopy]:
            if not sealer.ident:
                sealer.start()
                assert drafted.wait(PATIENCE)
            found = list(copies_of(*args, alone=alone))
            if ends:
                seen.set()
            return iter(found)

        monkeypatch.setattr("eventstore.sqlite.copies_of", look)
        done = people.redact("ann", reason="asked")
        seen.set()
        sealer.join()
        assert [Path(copy.path).name for copy in done.held] == ([] if ends else [f".tmp-{4:020d}.db.new"])
        assert all("seals the log at this moment, or left" in copy.advice for copy in done.held)
        assert people.redact("ann", reason="asked").complete


def test_places_that_may_hold_a_copy_are_named_with_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with eventstore.open(folder) as store:
        for name in ("people", "people-2"):
            store.domain(name).write_value("alice", secret())
    log = folder / "logs" / "people"
    state = "0123456789ab"
    kept = [
        folder / "quarantine" / f"people-7-{state}",
        folder / ".tmp-adopt-1" / "logs" / "people",
        folder / "quarantine" / f".tmp-people-8-{state}",
    ]
    for place in [*kept, folder / "quarantine" / f"people-2-7-{state}"]:
        place.mkdir(parents=True)
    shutil.copy(log / f"{0:020d}.db", log / "backup.db")
    (log / ".tmp-00000000000000000000.db.new").write_bytes(b"")
    with eventstore.open(folder) as store:
        report = store.domain("people").redact("alice", reason="asked")
    assert not report.complete
    named = {str(Path(copy.path).relative_to(folder)) for copy in report.held}
    assert named == {
        f"quarantine/people-7-{state}",
        f"quarantine/.tmp-people-8-{state}",
        ".tmp-adopt-1",
        "logs/people/backup.db",
        "logs/people/.tmp-00000000000000000000.db.new",
    }
    assert [copy.advice for copy in report.held if copy.path.endswith(".new")] == [ABANDONED]
    assert all(copy.advice for copy in report.held)


# ---- the command


def test_the_command_erases_and_says_what_and_every_command_says_redacted(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for value in ('{"mail": "a@example.org"}', '{"mail": "b@example.org"}'):
        done("put", data, "people", "alice", value)
    done("put", data, "people", '["c", 1]', "3")
    planned = done("redact", data, "people", "alice", "--reason", "asked", "--dry-run", "--json").json()
    assert planned == {"domain": "people", "dry_run": True, "position": None, "erased": [1, 2], "already": [], "held": []}
    shown = done("redact", data, "people", "alice", "--reason", "asked", "--actor", "dpo").out
    assert shown.splitlines() == [
        "people: 2 values erased, on record at position 4",
        "    positions 1-2",
        "no other copy is in the store's folder",
    ]
    assert files_with(data, "example.org") == []
    assert command("get", data, "people", "alice").code == 1
    assert "redacted" in done("state", data, "people").out
    assert [line["redacted"] for line in done("state", data, "people", "--as-of", "1", "--json").lines()] == [True]
    assert done("history", data, "people", "alice").out.count("redacted") == 2
    log = done("log", data, "people", "-p").out
    assert log.count("redacted  ") == 2
    assert "by dpo" in log
    assert "because asked" in log
    assert "(redacted)" in done("ls", data, "people", "-l").out
    assert "2 redacted" in done("verify", data).out
    again = done("redact", data, "people", "alice", "--reason", "asked")
    assert again.out.splitlines()[0] == "people: 2 values erased before"
    assert done("redact", data, "people", "c", "--prefix", "--reason", "asked", "--json").json()["erased"] == [3]


def test_the_command_by_positions_and_its_exit_codes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for value in "123":
        done("put", data, "people", "alice", value)
    assert done("redact", data, "people", "--position", 3, "--position", 1, "--reason", "x", "--json").json()["erased"] == [1, 3]
    assert command("redact", data, "people", "bob", "--reason", "x").code == 1
    assert command("redact", data, "nothing", "alice", "--reason", "x").code == 1
    for words in (["alice"], ["--reason", "x"], ["alice", "--position", "1", "--reason", "x"], ["--prefix", "--reason", "x"]):
        assert command("redact", data, "people", *words).code == 3
    (data / "logs" / "people" / "copy").write_bytes(b"")
    found = command("redact", data, "people", "alice", "--reason", "x")
    assert found.code == 1
    assert "may still hold a copy" in found.out
