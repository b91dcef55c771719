"""The framework's own JSON files: its layout, its stale halves, damaged documents, and paths that would be two records'."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eventstore.adapters import persist
from eventstore.adapters.contracts import CONTRACTS, Contract
from eventstore.adapters.json_files import STALE_S
from eventstore.adapters.json_layout import Layout
from eventstore.adapters.registry import backend_at
from eventstore.errors import AccessError, ConfigError, ContractError, InvalidValueError
from tests.adapters.recorded import instance
from tests.eventstore.crew import PATIENCE

DUMP = Path("dump")


def kept(name: str, *context: Any) -> Any:
    """An instance on files."""
    return instance(CONTRACTS[name], context, backend_at("json:dump"))


PATHS = [
    ("Signal", ("BTC", "st", "bin"), (), "data/signal/BTC_st_bin/BTC.json"),
    ("Schedule", ("BTC", "st", "bin"), (), "data/schedule/BTC_st_bin/BTC.json"),
    ("Strategy", ("BTC", "st", "bin"), (), "data/strategy/BTC_st_bin/strategy.json"),
    ("Risk", ("r", "bin"), (), "data/risk/r_bin/positions.json"),
    ("Partial", ("BTC", "st", "bin"), ("s1",), "data/partial/BTC_st_bin/s1.json"),
    ("Breakeven", ("BTC", "st", "bin"), ("s1",), "data/breakeven/BTC_st_bin/s1.json"),
    ("Measure", ("b",), ("k",), "data/measure/b/k.json"),
    ("Interval", ("b",), ("k",), "data/interval/b/k.json"),
    ("Memory", ("s1", "b"), ("m",), "memory/s1/b/m.json"),
    ("Recent", ("BTC", "st", "bin", "frame", True), (), "data/recent/BTC_st_bin_frame_backtest/BTC.json"),
    ("Recent", ("BTC", "st", "bin", "", False), (), "data/recent/BTC_st_bin_live/BTC.json"),
    ("State", ("s1", "b"), (), "state/s1/b/b.json"),
    ("Session", ("st", "bin", "frame", "BTC", True), (), "session/st/bin/frame/BTC_backtest.json"),
    ("Session", ("st", "bin", "", "BTC", False), (), "session/st/bin/BTC_live.json"),
    ("Dictionary", ("s1", "d"), (), "dictionary/s1/d/d.json"),
]


@pytest.mark.parametrize(("name", "context", "ids", "path"), PATHS, ids=[each[3] for each in PATHS])
def test_a_record_is_where_the_framework_keeps_it(name: str, context: tuple[Any, ...], ids: tuple[str, ...], path: str) -> None:
    asyncio.run(write(CONTRACTS[name], context, ids, {"n": 1}))
    assert [str(found.relative_to(DUMP)) for found in DUMP.rglob("*") if found.is_file()] == [path]
    assert (DUMP / path).read_bytes() == b'{"n":1}'


@pytest.mark.parametrize(("name", "context", "ids", "path"), PATHS, ids=[each[3] for each in PATHS])
def test_a_path_is_read_as_the_key_that_has_it(name: str, context: tuple[Any, ...], ids: tuple[str, ...], path: str) -> None:
    contract = CONTRACTS[name]
    usual, *odd = Layout(DUMP, contract).keys(Path(path).with_suffix("").parts)
    assert usual == (*contract.parts(context), *ids)
    assert all(Layout(DUMP, contract).is_odd(key) for key in odd)


async def write(contract: Contract, context: tuple[Any, ...], ids: tuple[str, ...], value: Any) -> None:
    """Write a record of any contract that has one at a time."""
    method = next(method for method in contract.methods if method.verb == "write")
    await getattr(kept(contract.name, *context), method.name)(value, *ids, *[1] * ("when" in method.parameters))


async def read(contract: Contract, context: tuple[Any, ...], ids: tuple[str, ...]) -> Any:
    """Read one."""
    method = next(method for method in contract.methods if method.verb == "read")
    return await getattr(kept(contract.name, *context), method.name)(*ids, *[1] * ("when" in method.parameters))


MEETING = [
    ("Strategy", ("A", "b_c", "x"), ("A_b", "c", "x"), ()),
    ("Strategy", ("A", "b", "x_y"), ("A", "b_x", "y"), ()),
    ("Risk", ("r_a", "x"), ("r", "a_x"), ()),
    ("Partial", ("A", "b_c", "x"), ("A_b", "c", "x"), ("s1",)),
    ("Recent", ("A", "b", "x", "y", True), ("A", "b_x", "y", "", True), ()),
    ("Recent", ("A", "b_x", "y", "", True), ("A", "b", "x", "y", True), ()),
    ("Recent", ("A", "b", "x", "y", False), ("A", "b_x", "y", "", False), ()),
    ("Recent", ("A", "b_x", "y", "", False), ("A", "b", "x", "y", False), ()),
    ("Strategy", ("_", "", ""), ("", "_", ""), ()),
]


@pytest.mark.parametrize(("name", "first", "second", "ids"), MEETING)
def test_of_two_contexts_with_one_path_the_first_keeps_it(
    name: str, first: tuple[Any, ...], second: tuple[Any, ...], ids: tuple[str, ...]
) -> None:
    async def check() -> None:
        contract = CONTRACTS[name]
        await write(contract, first, ids, {"whose": "first"})
        await persist.close()  # what one process found out, the next one must as well
        for attempt in (write(contract, second, ids, {"whose": "second"}), read(contract, second, ids)):
            with pytest.raises(ContractError, match="the event store keeps such keys apart"):
                await attempt
        assert (await read(contract, first, ids))["whose"] == "first"

    asyncio.run(check())


def test_a_symbol_with_a_line_under_it_is_no_two_sessions() -> None:
    """`{symbol}_{live|backtest}`: what stands last is one of two words, so nothing needs a claim."""
    asyncio.run(write(CONTRACTS["Session"], ("st", "x", "f", "A_live", True), (), {"n": 1}))
    assert not list(DUMP.rglob(".context"))


@pytest.mark.parametrize("part", ["/", "a/b", "..", ".", "", "\0", "\ud83d", "x" * 250, "é" * 110, ".quarantine"])
def test_what_is_no_name_of_a_folder_is_refused(part: str) -> None:
    async def check() -> None:
        for attempt in (write(CONTRACTS["State"], (part, "b"), (), {}), read(CONTRACTS["State"], (part, "b"), ())):
            with pytest.raises(ContractError, match="State"):
                await attempt

    asyncio.run(check())
    assert not list(Path().iterdir())


@pytest.mark.parametrize("id_", ["/", "../../x", "a/b:c", "\0", "\ud83d", "x" * 250, ".tmp-1"])
def test_what_is_no_name_of_a_file_is_refused(id_: str) -> None:
    async def check() -> None:
        with pytest.raises(ContractError):
            await kept("Memory", "s", "b").write_memory_data({}, id_, 1)

    asyncio.run(check())
    assert not list(Path().rglob("*.json"))


@pytest.mark.parametrize("id_", ["..", ".", "a.json", "-", " ", "ключ", "a:b*?"])
def test_odd_ids_that_are_names_are_kept(id_: str) -> None:
    async def check() -> list[str]:
        await kept("Measure", "b").write_measure_data({"id": id_}, id_, 1)
        return [key async for key in kept("Measure", "b").list_measure_data()]

    assert asyncio.run(check()) == [id_]
    assert [path.parent for path in DUMP.rglob("*.json")] == [DUMP / "data" / "measure" / "b"]


# ---- damage


class Reports:
    """A logger that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, msg: str, /, *args: Any) -> None:
        self.said.append("info " + msg % args)

    def warning(self, msg: str, /, *args: Any) -> None:
        self.said.append("warning " + msg % args)


@pytest.fixture
def reports() -> Any:
    """What is reported, as long as the test runs."""
    found = Reports()
    persist.set_logger(found)
    yield found
    persist.set_logger(None)


@pytest.mark.parametrize("damage", [b"", b'{"a":', b"\xff\xfe", b"NaN", b'{"a":1}trailing'])
def test_a_corrupt_document_is_put_aside_reported_and_never_deleted(damage: bytes, reports: Reports) -> None:
    folder = DUMP / "data" / "measure" / "b"
    folder.mkdir(parents=True)
    (folder / "k1.json").write_bytes(damage)
    (folder / "k2.json").write_bytes(b'{"id":"k2"}')

    async def check() -> list[str]:
        measure = kept("Measure", "b")
        assert await measure.read_measure_data("k1") is None
        await measure.write_measure_data({"id": "again"}, "k1", 1)
        return [key async for key in measure.list_measure_data()]

    assert asyncio.run(check()) == ["k1", "k2"]
    (aside,) = (path for path in (DUMP / ".quarantine").rglob("*") if path.is_file())
    assert aside.read_bytes() == damage
    assert aside.parent == DUMP / ".quarantine" / "data" / "measure" / "b"
    assert len(reports.said) == 1
    assert "k1.json is no JSON document" in reports.said[0]


@pytest.mark.parametrize("document", [b'{"id":' + b"9" * 5_000 + b"}", b"[" * 100_000 + b"]" * 100_000], ids=["digits", "depth"])
def test_a_document_that_is_beyond_us_is_refused_and_left_in_place(document: bytes, reports: Reports) -> None:
    """The framework reads it: it is somebody's record, and not damage."""
    path = DUMP / "data/measure/b/k1.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(document)

    async def check() -> None:
        measure = kept("Measure", "b")
        for read in (measure.read_measure_data("k1"), anext(measure.list_measure_data()), measure.remove_measure_data("k1")):
            with pytest.raises(InvalidValueError, match=f"{path} cannot be read here, and stays as it is: "):
                await read
        assert path.read_bytes() == document
        await measure.write_measure_data({"id": "again"}, "k1", 1)
        assert await measure.read_measure_data("k1") == {"id": "again"}

    asyncio.run(check())
    assert (reports.said, os.listdir(DUMP)) == ([], ["data"])


def test_a_candle_that_cannot_be_read_is_missing_and_reported(reports: Reports) -> None:
    folder = DUMP / "data" / "candle" / "x" / "B" / "1m"
    folder.mkdir(parents=True)
    for timestamp, content in ((0, b'{"timestamp":0}'), (60_000, b"{"), (120_000, b"7")):
        (folder / f"{timestamp}.json").write_bytes(content)

    async def check() -> list[Any]:
        candles = kept("Candle", "B", "1m", "x")
        return [await candles.read_candles_data(limit, since, 0) for since, limit in ((0, 1), (0, 2), (120_000, 1))]

    assert asyncio.run(check()) == [[{"timestamp": 0}], None, None]
    assert ["60000.json" in said for said in reports.said] == [True]


def test_halves_of_writes_are_swept_once_they_are_stale(reports: Reports) -> None:
    folder = DUMP / "state" / "s1" / "b"
    folder.mkdir(parents=True)
    old, young = folder / ".tmp-0123456789ab-b.json", folder / ".tmp-ba9876543210-b.json"
    for half in (old, young):
        half.write_bytes(b'{"n"')
    long_ago = time.time() - STALE_S - 5
    os.utime(old, (long_ago, long_ago))
    asyncio.run(kept("State", "s1", "b").wait_for_init(True))
    assert [path.name for path in folder.iterdir()] == [young.name]
    assert reports.said == [f"info {old.absolute()}: removed, the half of a write that was cut short"]


def test_what_another_program_wrote_is_read() -> None:
    """The framework itself, or a person with an editor: white space and all."""
    path = DUMP / "state" / "s1" / "b" / "b.json"
    path.parent.mkdir(parents=True)
    path.write_text('{ "id" : "s1_b",\n  "data": {"n": 1.50} }\n')
    assert asyncio.run(kept("State", "s1", "b").read_state_data()) == {"id": "s1_b", "data": {"n": 1.5}}


def test_rows_that_are_unchanged_are_not_written() -> None:
    rows = [{"id": f"r{number}", "n": number} for number in range(5)]

    def inodes() -> dict[str, int]:
        return {path.stem: path.stat().st_ino for path in DUMP.rglob("*.json")}

    asyncio.run(kept("Storage", False).write_storage_data(rows))
    before = inodes()
    asyncio.run(kept("Storage", False).write_storage_data([*rows[:4], {"id": "r4", "n": 9}]))
    assert [id_ for id_, inode in inodes().items() if inode != before[id_]] == ["r4"]


def test_a_document_and_its_name_are_durable_before_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is synced, in order: the bytes under another name, and, once they have their own, the folder that says so."""
    asyncio.run(kept("State", "s1", "b").write_state_data({"n": 1}, 1))
    folder, synced, fsync = DUMP / "state" / "s1" / "b", list[tuple[bool, str]](), os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        (named,) = folder.glob("b.json")
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), named.read_text()))

    monkeypatch.setattr(os, "fsync", watched)
    asyncio.run(kept("State", "s1", "b").write_state_data({"n": 2}, 1))
    assert synced == [(False, '{"n":1}'), (True, '{"n":2}')]


def test_a_folder_that_cannot_be_written_is_said() -> None:
    DUMP.mkdir()
    (DUMP / "state").write_text("a file")
    with pytest.raises(AccessError, match="state"):
        asyncio.run(kept("State", "s1", "b").write_state_data({}, 1))


def test_what_is_no_logger_is_refused() -> None:
    with pytest.raises(ConfigError, match="lacks info and warning"):
        persist.set_logger(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("make", "kind"), [(os.mkfifo, "a pipe"), (os.mkdir, "a folder")])
def test_what_says_whose_a_folder_is_must_be_a_file(make: Callable[[Path], None], kind: str) -> None:
    """A pipe would be waited for for ever, by the one thread that serves all records."""
    said = DUMP / "data/signal/A_b_c/.context"
    said.parent.mkdir(parents=True)
    make(said)

    async def check() -> None:
        for call in (kept("Signal", "A", "b", "c").read_signal_data, lambda: kept("Signal", "A", "b", "c").write_signal_data({"id": "s1"})):
            with pytest.raises(AccessError, match=rf"a regular file is expected, and this is {kind} \(.*/\.context\)"):
                await asyncio.wait_for(call(), PATIENCE)

    with contextlib.ExitStack() as held:
        if kind == "a pipe":
            held.enter_context(open(os.open(said, os.O_RDWR), "rb"))  # so that whoever waits for it is let go in the end
        asyncio.run(check())


def test_a_pipe_is_no_document_and_holds_up_nobody() -> None:
    path = DUMP / "data/signal/A_b_c/A.json"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)

    async def check() -> None:
        assert await asyncio.wait_for(kept("Signal", "A", "b", "c").read_signal_data(), PATIENCE) is None
        await kept("Signal", "A", "b", "c").write_signal_data({"id": "s1"})

    with open(os.open(path, os.O_RDWR), "rb"):  # so that whoever waits for it is let go in the end
        asyncio.run(check())
    assert path.is_file()
