"""Pointer files spare an opening the reading of the log. Whatever becomes of them, every answer is the log's."""

from __future__ import annotations

import hashlib
import logging
import shutil
from array import array
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

import eventstore
from eventstore import DuplicateEventError, Event, Head, KeyState, Receipt
from eventstore.codec import encode_key
from eventstore.domain import DomainStore
from eventstore.model import Key
from eventstore.pointers import IdRun, hash_of
from eventstore.sqlite import SqliteLog
from tests.sampled import sampled

DOMAIN, OTHER = "signal", "quotes"
KEYS = ("BTCUSDT", ("ETHUSDT", 7), "ключ", ("", "x"), "id10")
EVENTS, CYCLES = 160, 4
SPACING = 20
MAGIC = b"eventstore pointers 1\n"
SECRET = "a value of which no pointer file may know"


# ---- a store that wrote the same into two domains, and what each of its keys must be


def wanted_at(position: int) -> dict[Key, KeyState]:
    """What every key is once the events up to `position` were written: the schedule, told a second time."""
    return {KEYS[n % 5]: KeyState(n, when_of(n), "removed" if removes(n) else "present") for n in range(1, position + 1)}


def when_of(n: int) -> int | None:
    return None if n % 3 == 0 else 1_700_000_000_000_000 - n


def removes(n: int) -> bool:
    return n % 7 == 0


def write(domain: DomainStore, n: int) -> Receipt:
    """Event n; the same call again is its retry."""
    key, when, event_id = KEYS[n % 5], when_of(n), f"call-{n}"
    if removes(n):
        return domain.remove_value(key, when=when, event_id=event_id)
    return domain.write_value(key, {"n": n, "text": SECRET}, when=when, event_id=event_id, actor="nobody's business")


class Written:
    """A closed store, and the receipts it gave."""

    def __init__(self, folder: Path, first: dict[int, Receipt]) -> None:
        self.folder, self.first = folder, first
        self.pointers = folder / "logs" / DOMAIN / "pointers"

    @property
    def last(self) -> int:
        return len(self.first)

    def copy(self, folder: Path) -> Written:
        shutil.copytree(self.folder, folder)
        return Written(folder, dict(self.first))

    def files(self, pattern: str) -> list[Path]:
        return sorted(self.pointers.glob(pattern))

    def go_on(self, events: int) -> None:
        """Open, write some more, close."""
        with eventstore.open(self.folder, durability="process") as store:
            for n in range(self.last + 1, self.last + 1 + events):
                write(store.domain(OTHER), n)
                self.first[n] = write(store.domain(DOMAIN), n)

    def require_right(self) -> None:
        """Every read verb and every retry, each as a fresh opening answers it; nothing is written."""
        with eventstore.open(self.folder, read_only=True) as store:
            require_reads(store.domain(DOMAIN), self.last)
            assert store.verify().ok
        with eventstore.open(self.folder, durability="process") as store:
            require_retries(store.domain(DOMAIN), self.first)
        with eventstore.open(self.folder, durability="process") as store:
            require_reads(store.domain(DOMAIN), self.last)


def require_reads(domain: DomainStore, last: int) -> None:
    wanted = wanted_at(last)
    assert domain.head().position == last
    require_cut(domain, last)
    assert domain.state_of("never written") is None
    for key in wanted:
        assert [event.position for event in domain.history(key)] == [n for n in range(last, 0, -1) if KEYS[n % 5] == key]
    recorded = {event.position: event.recorded_us for event in domain.events()}
    for cut in {0, 1, 6, last // 3, last // 2, last - 1, last}:
        require_cut(domain.state(as_of=cut), cut)
        if cut:
            moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=recorded[cut])
            require_cut(domain.state(as_of=moment), cut)


def require_cut(view: eventstore.DomainView, position: int) -> None:
    wanted = wanted_at(position)
    present = {key: state for key, state in wanted.items() if state.status == "present"}
    assert {key: view.state_of(key) for key in KEYS} == {key: wanted.get(key) for key in KEYS}
    assert set(view.keys()) == present.keys()
    assert len(view) == len(present)
    assert dict(view.items()) == {key: {"n": state.position, "text": SECRET} for key, state in present.items()}


def require_retries(domain: DomainStore, first: dict[int, Receipt]) -> None:
    for n, receipt in first.items():
        assert write(domain, n) == receipt
    with pytest.raises(DuplicateEventError):
        domain.write_value("BTCUSDT", "something else", event_id="call-1")
    assert domain.head().position == len(first), "a retry writes nothing"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pointer files every 20 events instead of every hundred thousand, and at every close."""
    make_often(monkeypatch)


def make_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventstore.pointers.SPACING", SPACING)
    monkeypatch.setattr("eventstore.live.SPACING", SPACING)
    monkeypatch.setattr("eventstore.live._TAIL", 1)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Several openings, each long enough for pointer files."""
    return make(tmp_path_factory.mktemp("pointers") / "store")


def make(folder: Path) -> Written:
    written = Written(folder, {})
    with pytest.MonkeyPatch.context() as patch:
        make_often(patch)
        for _ in range(CYCLES):
            written.go_on(EVENTS // CYCLES)
    return written


@pytest.fixture
def written(template: Written, tmp_path: Path) -> Written:
    """A copy to spoil."""
    return template.copy(tmp_path / "store")


# ---- what is in a pointer file: a magic line, a sha256, a msgpack array


def body_of(path: Path) -> list[Any]:
    content = path.read_bytes()
    start = len(MAGIC) + 32
    assert content[: len(MAGIC)] == MAGIC
    assert content[len(MAGIC) : start] == hashlib.sha256(content[start:]).digest()
    body: list[Any] = msgspec.msgpack.decode(content[start:])
    return body


def put_body(path: Path, body: list[Any]) -> None:
    content = msgspec.msgpack.encode(body)
    path.write_bytes(MAGIC + hashlib.sha256(content).digest() + content)


def split_ids(written: Written, *cuts: int) -> list[Path]:
    """The same ids in several runs, as a log has them whose calls were too many to be merged into one file."""
    (whole,) = written.files("*.ids")
    name, birth, last, checksum, after, hashes, positions = body_of(whole)
    assert (name, last, after) == (DOMAIN, written.last, 0)
    pairs = list(zip(array("Q", hashes), array("Q", positions), strict=True))
    whole.unlink()
    runs = []
    for start, end in zip((0, *cuts), (*cuts, last), strict=True):
        chosen = [(hashed, position) for hashed, position in pairs if start < position <= end]
        head = checksum if end == last else written.first[end].checksum
        columns = [array("Q", column).tobytes() for column in zip(*chosen, strict=True)]
        runs.append(written.pointers / f"{start:020d}-{end:020d}.ids")
        put_body(runs[-1], [DOMAIN, birth, end, head, start, *columns])
    return runs


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "eventstore" and record.levelno == logging.WARNING]


def test_the_files_are_those_of_the_format(template: Written) -> None:
    (ids,) = template.files("*.ids")
    assert ids.name == f"{0:020d}-{EVENTS:020d}.ids"
    keys = template.files("*.keys")
    assert keys[-1].name == f"{EVENTS:020d}.keys"
    birth = body_of(ids)[1]
    for path in keys:
        position = int(path.stem)
        domain, born, head, checksum, _recorded, system, texts, positions, whens, statuses = body_of(path)
        wanted = {encode_key(key): state for key, state in wanted_at(position).items()}
        assert (domain, born, head, checksum, system) == (DOMAIN, birth, position, template.first[position].checksum, 0)
        assert dict(zip(texts, array("Q", positions), strict=True)) == {key: state.position for key, state in wanted.items()}
        assert dict(zip(texts, whens, strict=True)) == {key: state.when_us for key, state in wanted.items()}
        assert dict(zip(texts, statuses, strict=True)) == {key: int(state.status == "removed") for key, state in wanted.items()}
    assert {path.stat().st_mode & 0o777 for path in [*keys, ids]} == {0o600}
    assert template.pointers.stat().st_mode & 0o777 == 0o700


def test_values_and_meta_never_stand_in_a_pointer_file(template: Written) -> None:
    log = (template.folder / "logs" / DOMAIN / f"{0:020d}.db").read_bytes()
    files = [path for path in template.pointers.iterdir() if path.is_file()]
    assert len(files) > 2
    for told in (SECRET, "nobody's business", "call-"):
        assert told.encode() in log
        assert not [path.name for path in files if told.encode() in path.read_bytes()]


def test_everything_is_right_with_whole_files_and_nothing_is_warned_of(written: Written, caplog: pytest.LogCaptureFixture) -> None:
    written.require_right()
    assert warnings_of(caplog) == []


# ---- what may become of a file


def flipped(at: int | float) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[at if isinstance(at, int) else int(at * len(content))] ^= 0x20
        path.write_bytes(content)

    return spoil


def cut_to(length: int | float) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: length if isinstance(length, int) else int(len(content) * length)])

    return spoil


def changed(index: int, value: Any) -> Callable[[Path], object]:
    """One field of the body is another's; the file's own checksum is right."""

    def spoil(path: Path) -> None:
        body = body_of(path)
        body[index] = value
        put_body(path, body)

    return spoil


def other_kind(path: Path) -> None:
    """The content of the other kind of file."""
    (other, *_) = sorted(path.parent.glob("*.keys" if path.suffix == ".ids" else "*.ids"))
    path.write_bytes(other.read_bytes())


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


SPOILED: dict[str, Callable[[Path], object]] = {
    "emptied": cut_to(0),
    "cut in the magic": cut_to(7),
    "cut after the magic": cut_to(len(MAGIC)),
    "cut in the checksum": cut_to(len(MAGIC) + 31),
    "cut after the checksum": cut_to(len(MAGIC) + 32),
    "cut in the middle": cut_to(0.5),
    "cut by one byte": cut_to(-1),
    "one byte longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a bit flipped at the start": flipped(0),
    "a bit flipped in the version": flipped(len(MAGIC) - 2),
    "a bit flipped in the checksum": flipped(len(MAGIC) + 5),
    "a bit flipped in the middle": flipped(0.5),
    "a bit flipped at the end": flipped(-1),
    "another version": lambda path: path.write_bytes(path.read_bytes().replace(b"pointers 1", b"pointers 2", 1)),
    "another magic": lambda path: path.write_bytes(path.read_bytes().replace(b"eventstore", b"someothers", 1)),
    "not msgpack": lambda path: path.write_bytes(MAGIC + hashlib.sha256(b"\xc1").digest() + b"\xc1"),
    "no array": lambda path: path.write_bytes(MAGIC + hashlib.sha256(b"\x01").digest() + b"\x01"),
    "too short an array": lambda path: put_body(path, body_of(path)[:-1]),
    "a field of another type": changed(2, "160"),
    "of another kind": other_kind,
    "of another domain": changed(0, OTHER),
    "of another birth": changed(1, bytes(32)),
    "with another head's checksum": changed(3, bytes(32)),
    "with a head that is not there": changed(2, EVENTS + 1),
}


@pytest.mark.parametrize("kind", ["keys", "ids"])
@pytest.mark.parametrize("name", sampled(SPOILED, "emptied", "cut in the middle", "a bit flipped in the middle", "of another birth"))
def test_a_wrong_file_is_ignored_with_a_warning(written: Written, caplog: pytest.LogCaptureFixture, name: str, kind: str) -> None:
    files = written.files(f"*.{kind}")
    for path in files:
        SPOILED[name](path)
    with eventstore.open(written.folder, read_only=True) as store:
        require_reads(store.domain(DOMAIN), written.last)
    with eventstore.open(written.folder, durability="process") as store:
        require_retries(store.domain(DOMAIN), written.first)
    told = warnings_of(caplog)
    for path in files:
        assert [line for line in told if line.startswith(f"{path}: pointer file ignored, the log is read instead: ")], told
    assert {line.split(":")[0] for line in told} == {str(path) for path in files}, "the whole ones are not complained of"
    # As many events again as make new files worth while: these are right, whatever stands beside them.
    written.go_on(2 * SPACING)
    written.require_right()


@pytest.mark.parametrize("kind", ["keys", "ids"])
def test_a_wrong_file_is_told_of_until_a_writer_has_closed_the_log(written: Written, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    (path,) = written.files(f"*.{kind}")[-1:]
    flipped(-1)(path)
    for read_only in (True, False):
        with eventstore.open(written.folder, read_only=read_only, durability="process") as store:
            if not read_only:
                require_retries(store.domain(DOMAIN), written.first)
            require_reads(store.domain(DOMAIN), written.last)
        assert {line.split(":")[0] for line in warnings_of(caplog)} <= {str(path)}
        caplog.clear()
    written.require_right()
    assert warnings_of(caplog) == []
    assert written.files("*.ids"), "what was read from the log is kept again"


@pytest.mark.parametrize("name", SPOILED)
def test_the_next_older_file_serves_where_the_newest_is_wrong(
    written: Written, caplog: pytest.LogCaptureFixture, reads: Reads, name: str
) -> None:
    *_, older, newest = written.files("*.keys")
    SPOILED[name](newest)
    with eventstore.open(written.folder, durability="process") as store:
        domain = store.domain(DOMAIN)
        assert reads.of(DOMAIN) == written.last - int(older.stem)
        require_cut(domain, written.last)
    assert [line.split(":")[0] for line in warnings_of(caplog)] == [str(newest)]


MISSING: dict[str, tuple[str, slice]] = {
    "every file": ("*", slice(None)),
    "the newest keys": ("*.keys", slice(-1, None)),
    "the oldest keys": ("*.keys", slice(1)),
    "all keys": ("*.keys", slice(None)),
    "all ids": ("*.ids", slice(None)),
    "the folder": ("*", slice(None)),
}


@pytest.mark.parametrize("name", sampled(MISSING, "every file", "the newest keys", "all ids"))
def test_missing_files_are_missed_by_nobody_and_come_back(written: Written, caplog: pytest.LogCaptureFixture, name: str) -> None:
    pattern, chosen = MISSING[name]
    for path in written.files(pattern)[chosen]:
        path.unlink()
    if name == "the folder":
        written.pointers.rmdir()
    written.require_right()
    assert warnings_of(caplog) == [], "nothing is wrong about a cache that is not there"
    written.go_on(SPACING)
    assert written.files("*.keys")[-1].name == f"{written.last:020d}.keys"
    assert [path.name for path in written.files("*.ids")] == [f"{0:020d}-{written.last:020d}.ids"]
    written.require_right()


# ---- files of other places and times


def put_in_place(written: Written, others: Path) -> None:
    shutil.rmtree(written.pointers)
    shutil.copytree(others, written.pointers)


def test_the_files_of_another_store_are_ignored(written: Written, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It wrote the same, under the same names, at the same positions."""
    other = make(tmp_path / "other")
    assert [path.name for path in other.files("*")] == [path.name for path in written.files("*")]
    put_in_place(written, other.pointers)
    written.require_right()
    assert {line.rpartition(": ")[2] for line in warnings_of(caplog)} == {"it belongs to another log"}


def test_the_files_of_another_domain_are_ignored(written: Written, caplog: pytest.LogCaptureFixture) -> None:
    put_in_place(written, written.folder / "logs" / OTHER / "pointers")
    written.require_right()
    assert {line.rpartition(": ")[2] for line in warnings_of(caplog)} == {"it belongs to another log"}


def test_files_from_the_future_are_ignored(written: Written, template: Written, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log was put back from a copy, its pointer files were not."""
    future = template.copy(tmp_path / "future")
    future.go_on(3 * SPACING)
    put_in_place(written, future.pointers)
    assert written.files("*.keys")[-1].name == f"{future.last:020d}.keys"
    written.require_right()
    assert f"its head {future.last} is not in the log" in {line.rpartition(": ")[2] for line in warnings_of(caplog)}


def test_files_of_another_future_are_ignored(template: Written, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two copies of a store were written apart: same birth, same positions, another history."""
    written, apart = template.copy(tmp_path / "store"), template.copy(tmp_path / "apart")
    with eventstore.open(apart.folder, durability="process") as store:
        for n in range(3 * SPACING):
            store.domain(DOMAIN).write_value("BTCUSDT", {"n": n, "text": "another"}, event_id=f"another-{n}")
    written.go_on(3 * SPACING)
    assert [path.name for path in written.files("*")] == [path.name for path in apart.files("*")]
    put_in_place(written, apart.pointers)
    written.require_right()
    assert f"its head {written.last} is not in the log" in {line.rpartition(": ")[2] for line in warnings_of(caplog)}


@pytest.mark.parametrize("which", ["both", "keys", "ids"])
def test_older_files_put_back_are_only_older(
    written: Written, template: Written, reads: Reads, caplog: pytest.LogCaptureFixture, which: str
) -> None:
    """They are right as far as they go: the rest comes from the log."""
    written.go_on(3 * SPACING)
    for suffix in ("keys", "ids") if which == "both" else (which,):
        for path in written.files(f"*.{suffix}"):
            path.unlink()
        for path in template.files(f"*.{suffix}"):
            shutil.copy2(path, written.pointers)
    with eventstore.open(written.folder, durability="process") as store:
        store.domain(DOMAIN)
        assert reads.of(DOMAIN) == (0 if which == "ids" else 3 * SPACING)
    written.require_right()
    assert warnings_of(caplog) == []


def test_files_with_other_names_and_unfinished_ones_are_no_pointer_files(written: Written, caplog: pytest.LogCaptureFixture) -> None:
    for path in written.files("*"):
        shutil.copy2(path, written.pointers / f".tmp-7-0a1b2c3d-{path.name}")
        shutil.copy2(path, written.pointers / f"copy of {path.name}")
    (written.pointers / "notes.txt").write_text("mine")
    written.require_right()
    assert warnings_of(caplog) == []
    assert (written.pointers / "notes.txt").read_text() == "mine"


def test_a_file_of_keys_under_the_name_of_another_position_is_not_used(written: Written, reads: Reads) -> None:
    oldest, *_, newest = written.files("*.keys")
    newest.write_bytes(oldest.read_bytes())
    with eventstore.open(written.folder, durability="process") as store:
        require_cut(store.domain(DOMAIN), written.last)
        assert reads.of(DOMAIN) > 0
    written.require_right()


# ---- runs of event ids


GAPS: dict[str, tuple[int, ...]] = {
    "the first": (0,),
    "the second": (1,),
    "the last": (3,),
    "two in the middle": (1, 2),
    "all but one": (0, 1, 3),
}


@pytest.mark.parametrize(
    "spoil", sampled(["deleted", "a bit flipped in the middle", "emptied", "of another birth"], "deleted", "of another birth")
)
@pytest.mark.parametrize("name", sampled(GAPS, "the last", "two in the middle"))
def test_ids_are_exact_though_runs_are_missing_or_wrong(written: Written, name: str, spoil: str) -> None:
    runs = split_ids(written, 40, 80, 120)
    for index in GAPS[name]:
        if spoil == "deleted":
            runs[index].unlink()
        else:
            SPOILED[spoil](runs[index])
    written.require_right()
    for _ in range(3):
        written.go_on(SPACING)
        written.require_right()


def test_runs_are_searched_before_the_log(written: Written, reads: Reads) -> None:
    split_ids(written, 40, 80, 120)
    with eventstore.open(written.folder, durability="process") as store:
        require_retries(store.domain(DOMAIN), written.first)
        assert reads.of(DOMAIN) == 0


def test_only_what_no_run_covers_is_read_for_an_id(written: Written, reads: Reads) -> None:
    split_ids(written, 40, 80, 120)[2].unlink()
    with eventstore.open(written.folder, durability="process") as store:
        require_retries(store.domain(DOMAIN), written.first)
        assert reads.of(DOMAIN) == written.last - 80, "read once, from where the runs end"


def test_overlapping_runs_of_two_processes_are_no_harm(written: Written, caplog: pytest.LogCaptureFixture) -> None:
    """One merged while the other added to what it had loaded."""
    (whole,) = written.files("*.ids")
    content = whole.read_bytes()
    split_ids(written, 40, 80, 120)[3].unlink()
    whole.write_bytes(content)
    written.require_right()
    assert warnings_of(caplog) == []
    written.go_on(SPACING)
    written.require_right()


def test_runs_merge_over_openings_and_stay_exact(tmp_path: Path) -> None:
    written = Written(tmp_path / "store", {})
    for _ in range(9):
        written.go_on(SPACING + 1)
        assert [path.name for path in written.files("*.ids")] == [f"{0:020d}-{written.last:020d}.ids"]
        assert len(written.files("*.keys")) <= 1 + written.last // SPACING
    written.require_right()


def test_a_long_run_is_left_as_it_is_and_later_ones_stand_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = 4_200  # more than are ever merged for the sake of a few
    first: dict[int, Receipt] = {}
    monkeypatch.setattr("eventstore.live.SPACING", 100_000)
    for start, end in ((0, long), (long, long + 30), (long + 30, long + 60)):
        with eventstore.open(tmp_path / "store", durability="process") as store:
            for n in range(start + 1, end + 1):
                first[n] = write(store.domain(DOMAIN), n)
    pointers = tmp_path / "store" / "logs" / DOMAIN / "pointers"
    assert sorted(path.name for path in pointers.glob("*.ids")) == [
        f"{0:020d}-{long:020d}.ids",
        f"{long:020d}-{long + 60:020d}.ids",
    ]
    for spoil in (None, pointers / f"{0:020d}-{long:020d}.ids", pointers / f"{long:020d}-{long + 60:020d}.ids"):
        if spoil is not None:
            spoil.unlink()
        with eventstore.open(tmp_path / "store", durability="process") as store:
            for n in (1, 2, long // 2, long, long + 1, long + 30, long + 31, long + 60):
                assert write(store.domain(DOMAIN), n) == first[n]
            assert store.domain(DOMAIN).head().position == long + 60


@pytest.mark.parametrize("oldest", [10, 4_200], ids=["merged", "left as it is"])
def test_runs_that_overlap_are_merged_without_a_trace(tmp_path: Path, oldest: int) -> None:
    """Two processes merged the same run; what both hold stands once, and what an older run holds is left to that."""
    with eventstore.open(tmp_path / "store", durability="process") as store:
        domain = store.domain(DOMAIN)
        for n in range(1, 21):
            write(domain, n)
        folder = domain.group.live.pointers
        head = {n: Head(n, domain.event(n).checksum) for n in (10, 20)}
        ids = [(hash_of(f"id-{n}"), n) for n in range(1, 21)]
        first = sorted(ids[:10] * (oldest // 10))
        runs = [
            IdRun(0, head[10], array("Q", (one[0] for one in first)), array("Q", (one[1] for one in first))),
            IdRun(8, head[20], array("Q", (one[0] for one in sorted(ids[8:]))), array("Q", (one[1] for one in sorted(ids[8:])))),
        ]
        *_, run = folder.save_run(runs, {}, head[20], since=20)
        after = 10 if oldest > 4_096 else 0
        assert run.after == after
        assert sorted(run.positions) == list(range(after + 1, 21))


# ---- what an opening reads


class Reads:
    """Events that EventLog.read gave, by domain."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def of(self, domain: str) -> int:
        """How many since the last call."""
        return self._counts.pop(domain, 0)

    def watched(self, log: SqliteLog, events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            self._counts[log.domain] = self._counts.get(log.domain, 0) + 1
            yield event


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    counted, read = Reads(), SqliteLog.read

    def watched(self: SqliteLog, after: int = 0, *, until: int | None = None, limit: int | None = None) -> Iterator[Event]:
        return counted.watched(self, read(self, after, until=until, limit=limit))

    monkeypatch.setattr(SqliteLog, "read", watched)
    return counted


@pytest.mark.parametrize("tail", [0, 1, 13])
@pytest.mark.parametrize("read_only", [False, True])
def test_an_opening_reads_the_tail_and_no_more(
    written: Written, reads: Reads, monkeypatch: pytest.MonkeyPatch, tail: int, read_only: bool
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("eventstore.live._TAIL", 256)
        written.go_on(tail)
    assert written.files("*.keys")[-1].name == f"{EVENTS:020d}.keys", "so short a tail is not worth a file"
    reads.of(DOMAIN)
    with eventstore.open(written.folder, read_only=read_only) as store:
        domain = store.domain(DOMAIN)
        assert reads.of(DOMAIN) == tail
        require_cut(domain, written.last)
        assert reads.of(DOMAIN) == 0
    shutil.rmtree(written.pointers)
    with eventstore.open(written.folder, read_only=True) as store:
        store.domain(DOMAIN)
    assert reads.of(DOMAIN) == written.last


def test_the_past_is_read_from_the_newest_file_before_it(written: Written, reads: Reads) -> None:
    steps = [0, *(int(path.stem) for path in written.files("*.keys"))]
    assert len(steps) > 3, "a ladder"
    assert max(step - before for before, step in pairwise(steps)) <= 2 * SPACING
    with eventstore.open(written.folder, read_only=True) as store:
        domain = store.domain(DOMAIN)
        recorded = {event.position: event.recorded_us for event in domain.events()}
        reads.of(DOMAIN)
        for cut in range(written.last + 1):
            require_cut(domain.state(as_of=cut), cut)
            assert reads.of(DOMAIN) == cut - max(step for step in steps if step <= cut)
        for step in steps[1:]:
            moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=recorded[step])
            require_cut(domain.state(as_of=moment), step)
            assert reads.of(DOMAIN) == 0
            require_cut(domain.state(as_of=moment - timedelta(microseconds=1)), step - 1)
            assert reads.of(DOMAIN) == step - 1 - max(other for other in steps if other < step)


def test_the_past_is_right_where_a_step_of_the_ladder_is_wrong(written: Written, caplog: pytest.LogCaptureFixture) -> None:
    middle = written.files("*.keys")[1]
    flipped(0.5)(middle)
    with eventstore.open(written.folder, read_only=True) as store:
        domain = store.domain(DOMAIN)
        for cut in (int(middle.stem) - 1, int(middle.stem), int(middle.stem) + 1):
            require_cut(domain.state(as_of=cut), cut)
    assert {line.split(":")[0] for line in warnings_of(caplog)} == {str(middle)}


def test_a_cut_taken_from_a_file_is_nobody_elses(written: Written) -> None:
    """Later writes must not show in a view of the past, though both began with the same file."""
    with eventstore.open(written.folder, durability="process") as store:
        domain = store.domain(DOMAIN)
        view = domain.state()
        domain.write_value("BTCUSDT", "later")
        domain.write_value("a new key", "later")
        require_cut(view, written.last)


# ---- files that cannot be written


@pytest.mark.parametrize("obstacle", ["a file", "a dangling link"])
def test_files_that_cannot_be_written_cost_a_warning_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, obstacle: str
) -> None:
    written = Written(tmp_path / "store", {})
    with eventstore.open(written.folder, durability="process") as store:
        store.domain(DOMAIN)
    if obstacle == "a file":
        written.pointers.write_bytes(b"a file where a folder should be")
    else:
        written.pointers.symlink_to(tmp_path / "nowhere")
    written.go_on(3 * SPACING)
    told = warnings_of(caplog)
    assert [line for line in told if line.startswith("writing pointer file ") and ".keys: " in line]
    assert [line for line in told if line.startswith("writing pointer file ") and ".ids: " in line]
    assert all(line.startswith("writing pointer file ") for line in told)
    for _ in range(2):
        with eventstore.open(written.folder, durability="process") as store:
            require_reads(store.domain(DOMAIN), written.last)
            require_retries(store.domain(DOMAIN), written.first)
    assert not written.pointers.is_dir()
    written.pointers.unlink()
    written.go_on(SPACING)
    written.require_right()
    assert written.files("*.keys")


def test_a_read_only_store_writes_no_pointer_files(written: Written) -> None:
    shutil.rmtree(written.pointers)
    with eventstore.open(written.folder, read_only=True) as store:
        require_reads(store.domain(DOMAIN), written.last)
    assert not written.pointers.exists()


# ---- files that lie


def move(body: list[Any], index: int, position: int) -> None:
    positions = array("Q", body[7])
    positions[index] = position
    body[7] = positions.tobytes()


def lie_about_the_position(body: list[Any]) -> None:
    move(body, 0, array("Q", body[7])[0] - 5)


def lie_about_two_positions(body: list[Any]) -> None:
    positions = array("Q", body[7])
    positions[0], positions[1] = positions[1], positions[0]
    body[7] = positions.tobytes()


def lie_about_the_status(body: list[Any]) -> None:
    body[9] = bytes([body[9][0] ^ 1, *body[9][1:]])


def lie_about_a_redaction(body: list[Any]) -> None:
    body[9] = bytes([*body[9][:-1], 2])


def lie_about_the_when(body: list[Any]) -> None:
    body[8][2] = (body[8][2] or 0) + 1


def lie_about_the_lack_of_a_when(body: list[Any]) -> None:
    index = next(index for index, when in enumerate(body[8]) if when is not None)
    body[8][index] = None


def hide_a_key(body: list[Any]) -> None:
    body[6], body[7], body[8], body[9] = body[6][1:], body[7][8:], body[8][1:], body[9][1:]


def invent_a_key(body: list[Any]) -> None:
    body[6], body[7], body[8], body[9] = [*body[6], '["invented"]'], body[7] + body[7][:8], [*body[8], body[8][0]], body[9] + body[9][:1]


def rename_a_key(body: list[Any]) -> None:
    body[6][0] = '["renamed"]'


def invent_an_event_of_the_log(body: list[Any]) -> None:
    body[5] = 3


LIES = [
    lie_about_the_position,
    lie_about_two_positions,
    lie_about_the_status,
    lie_about_a_redaction,
    lie_about_the_when,
    lie_about_the_lack_of_a_when,
    hide_a_key,
    invent_a_key,
    rename_a_key,
    invent_an_event_of_the_log,
]


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_in_all_consistency_is_found_by_verify(written: Written, lie: Callable[[list[Any]], None]) -> None:
    newest = written.files("*.keys")[-1]
    body = body_of(newest)
    lie(body)
    put_body(newest, body)
    with eventstore.open(written.folder, read_only=True) as store:
        report = store.verify()
    assert [(finding.domain, finding.position, finding.kind) for finding in report.findings] == [(DOMAIN, EVENTS, "pointers")]
    assert "delete the folder `pointers`" in report.findings[0].message
    shutil.rmtree(written.pointers)
    written.require_right()


def test_a_file_of_ids_that_hides_one_is_found_by_verify(written: Written) -> None:
    """Believed, it would let a retry be written twice."""
    (ids,) = written.files("*.ids")
    body = body_of(ids)
    body[5], body[6] = body[5][8:], body[6][8:]
    put_body(ids, body)
    with eventstore.open(written.folder, read_only=True) as store:
        report = store.verify()
    assert [(finding.domain, finding.position, finding.kind) for finding in report.findings] == [(DOMAIN, EVENTS, "pointers")]


def test_verify_holds_a_file_against_the_log_as_of_its_own_head(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("eventstore.live._TAIL", 256)
        written.go_on(13)
    newest = written.files("*.keys")[-1]
    assert newest.name == f"{EVENTS:020d}.keys"
    with eventstore.open(written.folder, read_only=True) as store:
        assert store.verify().ok
    body = body_of(newest)
    lie_about_the_position(body)
    put_body(newest, body)
    with eventstore.open(written.folder, read_only=True) as store:
        assert [(finding.position, finding.kind) for finding in store.verify().findings] == [(EVENTS, "pointers")]


def test_a_file_that_lies_about_a_position_never_gives_a_key_anothers_value(written: Written) -> None:
    """The event at that position says whose it is, and is asked."""
    newest = written.files("*.keys")[-1]
    body = body_of(newest)
    lie_about_two_positions(body)
    put_body(newest, body)
    with eventstore.open(written.folder, read_only=True) as store, pytest.raises(eventstore.FormatError, match="run `eventstore verify`"):
        dict(store.domain(DOMAIN).items())


def test_a_file_that_lies_about_an_id_answers_no_retry_with_anothers_receipt(written: Written) -> None:
    (ids,) = written.files("*.ids")
    body = body_of(ids)
    positions = array("Q", body[6])
    positions.reverse()
    body[6] = positions.tobytes()
    put_body(ids, body)
    with eventstore.open(written.folder, durability="process") as store:
        # The row decides: it does not carry this id, so nothing is answered from it.
        receipt = store.domain(DOMAIN).write_value("BTCUSDT", "a new call", event_id="a new call")
        assert receipt.position == written.last + 1


def test_stores_in_memory_need_no_files() -> None:
    with eventstore.open("memory:") as store:
        domain = store.domain(DOMAIN)
        require_retries(domain, {n: write(domain, n) for n in range(1, 3 * SPACING + 1)})
        require_reads(domain, 3 * SPACING)
