"""import and export of contracts: a tree of the framework's files becomes records and files again, and nothing is guessed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventstore as library
from eventstore.adapters import persist
from eventstore.adapters.contracts import CONTRACTS, STEPS_MS, Contract, key_of
from eventstore.adapters.event_shelf import EventBackend
from eventstore.adapters.registry import backend_at
from eventstore.codec import encode_key
from eventstore.errors import ContractError
from eventstore.projections.series import FIELDS, Candles
from eventstore.store import Store
from eventstore.tools.contract_tree import fold_candles
from eventstore.tools.export_contracts import number_text
from eventstore.tools.import_contracts import import_contracts
from eventstore.tools.imported import ImportReport
from tests.adapters.recorded import DATA, WHOLE, Replay
from tests.tools.command import done, eventstore
from tests.tools.test_cli_import import DUMP, report, tree
from tests.tools.test_cli_pages import on_a_terminal


def contents(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def problems(*words: object) -> dict[str, str]:
    """What a command that ends with 1 left out."""
    answer = eventstore(*words, "--json")
    assert answer.code == 1, answer
    return {problem["where"]: problem["message"] for problem in answer.json()["problems"]}


# ---- the real tree


@pytest.mark.skipif(not DUMP.is_dir(), reason="the recorded tree is not part of the distribution")
def test_the_real_tree_becomes_records_and_the_same_tree_again(tmp_path: Path) -> None:
    before = contents(DUMP)
    answer = done("import", DUMP, tmp_path / "data", "--contracts", "--json")
    assert sum(found["written"] for found in answer.json()["domains"].values()) == 40
    assert done("get", tmp_path / "data", "signal", '["ETHUSDT","strat","binance"]').out == "null\n"
    assert done("get", tmp_path / "data", "recent", '["BTCUSDT","strat","binance","","live"]', "--json").json()["when_us"] is None
    again = report(done("import", DUMP, tmp_path / "data", "--contracts", "--json"))
    assert {counts[:2] for counts in again.values()} == {(0, 0)}
    assert sum(unchanged for *_, unchanged in again.values()) == 40
    done("export", tmp_path / "data", "--contracts", "-o", tmp_path / "tree")
    assert contents(tmp_path / "tree") == before == contents(DUMP)


@pytest.mark.skipif(not DUMP.is_dir(), reason="the recorded tree is not part of the distribution")
@pytest.mark.parametrize("words", [("import", DUMP, "data", "--contracts"), ("export", "data", "--contracts", "-o", "tree")])
def test_a_store_of_paths_is_refused_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    done("import", DUMP, "data")
    before = done("log", "data").out
    answer = eventstore(*words)
    assert answer.code == 1
    assert "breakeven in data has keys that are paths of files" in answer.err
    assert done("log", "data").out == before
    assert not Path("tree").exists()


@pytest.mark.parametrize("words", [("import", "dump", "data"), ("shadow", "dump", "data", "--once")])
def test_a_store_of_records_takes_no_paths_of_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    """They would be there twice, and the bot that keeps its records there could neither export nor import any."""
    monkeypatch.chdir(tmp_path)
    tree(tmp_path / "dump", {"data/signal/A_b_c/A.json": b"1", "memory/s/b/m.json": b"{}"})
    done("import", "dump", "data", "--contracts")
    before = done("log", "data").out
    tree(tmp_path / "dump", {"data/candle/x/A/1m/60000.json": b"{}"})
    answer = eventstore(*words)
    assert (answer.code, 'data keeps records of contracts, such as signal ["A","b","c"]' in answer.err) == (1, True)
    assert done("log", "data").out == before
    tree(tmp_path / "other", {"notes/A_b_c/A.json": b"1", "memory/s/b/n.json": b"{}"})
    done("import", "other", "data")


@pytest.mark.parametrize("words", [("import", "dump", "data"), ("shadow", "dump", "data", "--once")])
def test_a_store_of_paths_takes_them_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    tree(tmp_path / "dump", {f"{name}.json": b"1" for name in ("data/signal/A_b_c/A", "memory/s/b/m", "state/s/b/b", "state/s/b")})
    done(*words)
    done(*words)


def test_contracts_on_a_store_of_paths_are_refused_and_not_found_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree(tmp_path / "dump", {"data/signal/A_b_c/A.json": b"1", "data/log/log/x.json": b"{}", "memory/s/b/m.json": b"{}"})
    done("import", "dump", "data")

    async def check() -> None:
        persist.setup(live="data")
        with pytest.raises(ContractError, match=r"signal in .*data has keys that are paths of files"):
            await persist.PersistSignalAdapter.read_signal_data("A", "b", "c")
        with pytest.raises(ContractError, match=r"log in .*data has keys that are paths of files"):
            await persist.PersistLogAdapter.read_log_data()
        assert await persist.PersistMemoryAdapter.read_memory_data("s", "b", "m") == {}
        await persist.close()

    asyncio.run(check())


@pytest.mark.parametrize(
    ("name", "context", "ids"),
    [
        ("risk", ("risk_binance", "positions"), ()),
        ("log", ("log",), ("l1",)),
        ("candle", ("binance", "BTC", "1m"), ("60000",)),
        ("state", ("s1", "b"), ("b",)),
    ],
)
def test_a_path_among_keys_is_told_by_each_contract(tmp_path: Path, name: str, context: tuple[str, ...], ids: tuple[str, ...]) -> None:
    with library.open(tmp_path / "data") as store:
        store.domain(library.Domain(name, CONTRACTS[name.capitalize()].write)).write_value((*context, *ids), 1)
    assert eventstore("export", tmp_path / "data", "--contracts", "-o", tmp_path / "tree").code == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_session_of_the_engine_answers_the_same_from_an_imported_tree(tmp_path: Path) -> None:
    """What it wrote to files, imported, answers what the files answered."""

    async def replay(backend: Any, *names: str) -> list[str]:
        replayed = Replay(backend)
        return [line for name in names for line in await replayed.run(DATA / name)]

    try:
        assert asyncio.run(replay(backend_at(f"json:{tmp_path / 'dump'}"), "live.jsonl.gz")) == []
        before = contents(tmp_path / "dump")
        done("import", tmp_path / "dump", tmp_path / "data", "--contracts")
        assert asyncio.run(replay(backend_at(str(tmp_path / "data")), "live.final.jsonl.gz")) == []
    finally:
        asyncio.run(persist.close())
    done("export", tmp_path / "data", "--contracts", "-o", tmp_path / "again")
    assert contents(tmp_path / "again") == before


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.skipif(not WHOLE.is_dir(), reason="the whole recordings do not stand beside this checkout")
def test_a_whole_session_answers_the_same_through_files_and_back(tmp_path: Path) -> None:
    async def replay(backend: Any, name: str) -> list[str]:
        return await Replay(backend).run(WHOLE / name)

    try:
        assert asyncio.run(replay(backend_at(str(tmp_path / "first")), "live.jsonl.gz")) == []
        asyncio.run(persist.close())
        done("export", tmp_path / "first", "--contracts", "-o", tmp_path / "dump")
        done("import", tmp_path / "dump", tmp_path / "second", "--contracts")
        assert asyncio.run(replay(backend_at(str(tmp_path / "second")), "live.final.jsonl.gz")) == []
    finally:
        asyncio.run(persist.close())


# ---- there and back, whatever is in the store

_TEXT = st.sampled_from(["A", "b", "c", "A_b", "b_c", "_", "x_live", "backtest", "a/b", "..", "é", "0", "Ω_1"])
_VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [
        {"n": 1},
        None,
        {"symbol": "A", "strategyName": "b", "exchangeName": "c", "x": 1.50},
        [],
        {"removed": True},
        {"id": "é", "v": "\ud83d"},
    ]
)


@st.composite
def _writes(draw: st.DrawFn) -> list[tuple[Contract, tuple[Any, ...], Any]]:
    """Keys of any contract and what is written there; a third of the keys of those that can be are removed."""
    found: list[tuple[Contract, tuple[Any, ...], Any]] = []
    for _ in range(draw(st.integers(1, 12))):
        contract = draw(st.sampled_from(list(CONTRACTS.values())))
        context = [draw(st.sampled_from(["live", "backtest"])) if name == "backtest" else draw(_TEXT) for name in contract.context]
        if "frame_name" in contract.context and draw(st.booleans()):
            context[contract.context.index("frame_name")] = ""
        if contract.shape == "series":
            context[contract.context.index("interval")] = draw(st.sampled_from(list(STEPS_MS)))
            first, values = draw(st.integers(-2, 50)), draw(st.lists(st.floats(-1e22, 1e22), min_size=1, max_size=4))
            candles: list[dict[str, float]] = [{"timestamp": first + at, **dict.fromkeys(FIELDS, v)} for at, v in enumerate(values)]
            found.append((contract, (*context,), candles))
        else:
            found.append((contract, (*context, draw(_TEXT)) if contract.id else (*context,), draw(_VALUES)))
    return found


async def _write(store: Store, writes: list[tuple[Contract, tuple[Any, ...], Any]]) -> None:
    backend = EventBackend(lambda: store)
    for number, (contract, parts, value) in enumerate(writes):
        shelf = await backend.shelf(contract)
        if contract.shape == "series":
            await shelf.add_candles(parts, value)
        else:
            await shelf.write(parts, value, number)
            if contract.soft and number % 3 == 0:
                await shelf.remove(parts)


def _held(store: Store, left_out: set[str]) -> dict[str, Any]:
    """What every contract says: of each record its value, of one that was removed that it was; candles as numbers."""
    held: dict[str, Any] = {}
    for contract in CONTRACTS.values():
        name = contract.domain.name
        if name not in store.domains():
            continue
        domain, records = store.domain(name), dict[tuple[Any, ...], Any]()
        if contract.shape == "series":
            candles = fold_candles(domain, Candles(), domain.head().position)
            records = {(*context, each["timestamp"]): each for context in candles.contexts() for each in candles.of(context)}
        else:
            keys = {event.key: event for event in domain.events()}
            for key, event in keys.items():
                value = None if event.op == "remove" else domain.text_of(event)
                gone = value is None or (contract.soft and isinstance(json.loads(value), dict) and json.loads(value).get("removed") is True)
                records[tuple(json.loads(key)) if key[0] == "[" else (json.loads(key),)] = "gone" if gone else value
        held |= {f"{name} {encode_key(key_of(parts))}": value for parts, value in records.items()}
    return {where: value for where, value in held.items() if where not in left_out}


@settings(max_examples=settings().max_examples // 4)  # each is two exports and two imports
@given(_writes())
def test_an_export_imported_is_the_store_again(writes: list[tuple[Contract, tuple[Any, ...], Any]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with library.open(folder / "data", durability="process") as store:
            asyncio.run(_write(store, writes))
        answer = eventstore("export", folder / "data", "--contracts", "-o", folder / "tree", "--json")
        left_out = {problem["where"] for problem in answer.json()["problems"]}
        assert answer.code == bool(left_out)
        with library.open(folder / "data", read_only=True) as before, library.open(folder / "again", durability="process") as after:
            for once in (True, False):
                said = ImportReport("tree", "again")
                import_contracts(folder / "tree", after, said)
                assert said.problems == []
                assert once or sum(counts.written for counts in said.domains.values()) == 0
            assert _held(after, set()) == _held(before, left_out)
        answer = eventstore("export", folder / "again", "--contracts", "-o", folder / "tree-again", "--json")
        assert answer.code == 0
        assert contents(folder / "tree-again") == contents(folder / "tree")


# ---- whose a record is

AMBIGUOUS = {
    "data/signal/BTC_my_strategy_binance/BTC.json": b'{"symbol":"BTC","strategyName":"my_strategy","exchangeName":"binance","x":1}',
    "data/strategy/BTC_my_strategy_binance/strategy.json": b'{"a":{"symbol":"BTC","strategyName":"my_strategy","exchangeName":"binance"}}',
    "data/risk/a_b_x/positions.json": b'[["k",{"exchangeName":"b_x"}]]',
    "data/recent/A_b_c_x_live/A.json": b'{"strategyName":"b_c","exchangeName":"x","frameName":"f"}',
    "data/partial/BTC_my_strategy_binance/s1.json": b'{"s1":{}}',
    "data/breakeven/A_b_c_x/s1.json": b'{"s1":{}}',
    "data/schedule/A_b_c_x/A.json": b"null",
}


def test_a_record_says_whose_it_is_or_is_listed(tmp_path: Path) -> None:
    dump, data = tree(tmp_path / "dump", AMBIGUOUS), tmp_path / "data"
    found = problems("import", dump, data, "--contracts")
    assert set(found) == {name for name in AMBIGUOUS if name.split("/")[1] in ("partial", "breakeven", "schedule")}
    assert found["data/schedule/A_b_c_x/A.json"] == (
        "this is the path of several contexts, and the record does not say which; write into the file data/schedule/A_b_c_x/.context whose"
        ' it is, just so: ["A", "b", "c_x"] or ["A", "b_c", "x"] (symbol, strategy_name, exchange_name); that counts for all documents of'
        " its folder"
    )
    assert done("ls", data, "signal").out == '["BTC","my_strategy","binance"]\n'
    assert done("ls", data, "strategy").out == '["BTC","my_strategy","binance"]\n'
    assert done("ls", data, "risk").out == '["a","b_x"]\n'
    assert done("ls", data, "recent").out == '["A","b_c","x","","live"]\n'
    assert contents(dump) == AMBIGUOUS


def test_a_file_beside_it_says_whose_a_record_is(tmp_path: Path) -> None:
    dump, data = tree(tmp_path / "dump", AMBIGUOUS), tmp_path / "data"
    tree(dump, {"data/partial/BTC_my_strategy_binance/.context": b'["BTC","my","strategy_binance"]'})
    tree(dump, {"data/breakeven/A_b_c_x/.context": b'["A","b"]', "data/schedule/A_b_c_x/.context": b"{"})
    found = problems("import", dump, data, "--contracts")
    assert set(found) == {"data/breakeven/A_b_c_x/s1.json", "data/schedule/A_b_c_x/A.json"}
    assert done("ls", data, "partial").out == '["BTC","my","strategy_binance","s1"]\n'
    assert eventstore("import", dump, data, "--contracts", "--json").json()["other_files"] == 0


@pytest.mark.parametrize("wrong", [None, b'["A","b"]', b"{", b"\xff", b'["A", "b", "x"]'])
def test_what_an_error_says_to_write_makes_the_import_go_through(tmp_path: Path, wrong: bytes | None) -> None:
    """Taken from the message as a person would; `wrong` is what the file holds before."""
    folder = "data/partial/BTC_my_strategy_binance"
    dump = tree(tmp_path / "dump", {f"{folder}/s1.json": AMBIGUOUS[f"{folder}/s1.json"]})
    if wrong is not None:
        tree(dump, {f"{folder}/.context": wrong})
    ((where, message),) = problems("import", dump, tmp_path / "data", "--contracts").items()
    assert where == f"{folder}/s1.json"
    assert wrong is None or f"{folder}/.context holds {wrong.decode(errors='backslashreplace')!r}" in message
    file, _, contents = message.partition("write into the file ")[2].partition(" whose it is, just so: ")
    lists = re.findall(r"\[[^]]*\]", contents)
    assert (file, len(lists), "(symbol, strategy_name, exchange_name)" in contents) == (f"{folder}/.context", 3, True)
    tree(dump, {file: lists[1].encode()})
    done("import", dump, tmp_path / "data", "--contracts")
    assert json.loads(done("ls", tmp_path / "data", "partial").out) == [*json.loads(lists[1]), "s1"]


def test_a_record_that_says_what_its_path_cannot_is_told_what_it_says(tmp_path: Path) -> None:
    dump = tree(tmp_path / "dump", {"data/signal/A_b_c_x/A.json": b'{"symbol":"A","strategyName":"other","exchangeName":"x"}'})
    (message,) = problems("import", dump, tmp_path / "data", "--contracts").values()
    assert 'the record says {"symbol": "A", "strategy_name": "other", "exchange_name": "x"}, which is none of these' in message
    assert 'data/signal/A_b_c_x/.context whose it is, just so: ["A", "b", "c_x"] or ["A", "b_c", "x"]' in message


def test_a_record_of_contexts_that_share_a_folder_goes_to_its_own(tmp_path: Path) -> None:
    """The engine itself puts both there: the file's name is the symbol."""
    row = b'{"strategyName":"%s","exchangeName":"x"}'
    dump = tree(tmp_path / "dump", {"data/signal/A_b_c_x/A.json": row % b"b_c", "data/signal/A_b_c_x/A_b.json": row % b"c"})
    done("import", dump, tmp_path / "data", "--contracts")
    assert done("ls", tmp_path / "data", "signal").out.split() == ['["A","b_c","x"]', '["A_b","c","x"]']
    assert list(problems("export", tmp_path / "data", "--contracts", "-o", tmp_path / "tree")) == ['signal ["A_b","c","x"]']


def test_values_are_kept_byte_for_byte_and_lists_become_rows(tmp_path: Path) -> None:
    files = {
        "state/s/b/b.json": b'{ "n": 1.50,\n "big": 12345678901234567890123, "u": "\\u00e9" }\n',
        "data/storage/live.json": b'[{"id":"a","x":1.0}, {"id":"b", "x" : -0}]',
        "data/log/log.json": b'[{"id":"l1"}]',
        "data/notification/live/n1.json": b"[1]",
    }
    dump, data = tree(tmp_path / "dump", files), tmp_path / "data"
    done("import", dump, data, "--contracts")
    assert done("get", data, "state", '["s","b"]').out_bytes == files["state/s/b/b.json"] + b"\n"
    assert done("get", data, "storage", '["live","b"]').out == '{"id":"b", "x" : -0}\n'
    assert done("ls", data, "log").out == "l1\n"
    done("export", data, "--contracts", "-o", tmp_path / "tree")
    assert sorted(contents(tmp_path / "tree")) == [
        "data/log/log/l1.json", "data/notification/live/n1.json", "data/storage/live/a.json",
        "data/storage/live/b.json", "state/s/b/b.json",
    ]  # fmt: skip


BROKEN = {
    "data/signal/A_b_x/A.json": b'{"a":',
    "data/candle/x/A/1m/60000.json": b'{"timestamp":60000,"open":1,"high":1,"low":1,"close":1}',
    "data/candle/x/A/1m/120000.json": b'{"timestamp":60000,"open":1,"high":1,"low":1,"close":1,"volume":1}',
    "data/candle/x/A/1m/007.json": b'{"timestamp":7,"open":1,"high":1,"low":1,"close":1,"volume":1}',
    "data/storage/backtest.json": b'[{"id":"a"},{"id":"a"}]',
    "data/storage/live.json": b'{"id":"a"}',
    "data/notification/live.json": b'[{"id":1}]',
    "data/other/x.json": b"1",
    "loose.json": b"1",
    "data/strategy/A_b/strategy.json": b"null",
    "data/recent/A_b_x_paper/A.json": b"null",
}


def test_what_cannot_be_taken_is_listed_and_nothing_is_touched(tmp_path: Path) -> None:
    good = {"state/s/b/b.json": b"1", "state/s/b/.tmp-0f-b.json": b"{", ".quarantine/state/s/b/b.json.0f": b"{", "notes.txt": b"x"}
    dump, data = tree(tmp_path / "dump", {**BROKEN, **good}), tmp_path / "data"
    assert set(problems("import", dump, data, "--contracts")) == set(BROKEN)
    answer = eventstore("import", dump, data, "--contracts", "--json").json()
    assert (answer["temporary_files"], answer["other_files"]) == (1, 2)
    assert contents(dump) == {**BROKEN, **good}
    assert done("ls", data, "--json").json()["domain"] == "state"


def test_what_stands_first_or_was_erased_is_listed(tmp_path: Path) -> None:
    dump, data = tree(tmp_path / "dump", {"data/log/log/a.json": b'{"id":"a"}', "state/s/b/b.json": b"1"}), tmp_path / "data"
    done("import", dump, data, "--contracts")
    done("redact", data, "state", '["s","b"]', "--reason", "asked")
    tree(dump, {"data/log/log/a.json": b'{"id":"a","n":2}'})
    found = problems("import", dump, data, "--contracts")
    assert set(found) == {"data/log/log/a.json", "state/s/b/b.json"}
    assert done("get", data, "log", "a").out == '{"id":"a"}\n'
    done("export", data, "--contracts", "-o", tmp_path / "tree")
    assert sorted(contents(tmp_path / "tree")) == ["data/log/log/a.json"]


def test_a_candle_that_another_stands_for_or_is_none_yet_is_listed(tmp_path: Path) -> None:
    def candle(at: int, price: int) -> bytes:
        return b'{"timestamp":%d,"open":%d,"high":1,"low":1,"close":1,"volume":1}' % (at, price)

    folder, data = "data/candle/x/A/1m", tmp_path / "data"
    dump = tree(tmp_path / "dump", {f"{folder}/{at}.json": candle(at, 1) for at in (0, 60_000)})
    done("import", dump, data, "--contracts")
    unclosed, other = 2**50, "data/candle/x/A/7m/0.json"
    tree(dump, {f"{folder}/0.json": candle(0, 2), f"{folder}/{unclosed}.json": candle(unclosed, 1), other: candle(0, 1)})
    found = problems("import", dump, data, "--contracts")
    assert set(found) == {f"{folder}/0.json", f"{folder}/{unclosed}.json", other}
    done("redact", data, "candle", '["A","1m","x",0]', "--reason", "asked")
    answer = eventstore("import", dump, data, "--contracts", "--json").json()
    assert {problem["where"] for problem in answer["problems"]} == set(found)
    assert answer["domains"]["candle"]["written"] == 1


def test_a_name_that_is_no_text_is_listed_and_the_rest_lands(tmp_path: Path) -> None:
    dump, data = tree(tmp_path / "dump", {"data/measure/b/k.json": b"1", "state/s/b/b.json": b"1"}), tmp_path / "data"
    os.mkdir(os.fsencode(dump) + b"/data/measure/\xff")
    Path(os.fsdecode(os.fsencode(dump) + b"/data/measure/\xff/k.json")).write_bytes(b"1")
    answer = eventstore("import", dump, data, "--contracts", "--json")
    assert (answer.code, len(answer.json()["problems"]), sorted(answer.json()["domains"])) == (1, 1, ["measure", "state"])


@pytest.mark.slow
def test_candles_become_columns_and_only_new_ones_are_written(tmp_path: Path) -> None:
    def candle(at: int) -> bytes:
        return b'{"timestamp":%d,"open":1,"high":2.5,"low":1e-7,"close":0.000001,"volume":100000000000000000000}' % at

    names = {at: f"data/candle/x/A/1m/{at}.json" for at in range(0, 1_100 * 60_000, 60_000)}
    dump, data = tree(tmp_path / "dump", {name: candle(at) for at, name in names.items() if at != 120_000}), tmp_path / "data"
    done("import", dump, data, "--contracts")
    tree(dump, {names[120_000]: candle(120_000)})
    assert report(done("import", dump, data, "--contracts", "--json"))["candle"] == (0, 1, 1_099)
    assert len(done("log", data, "candle").out.splitlines()) == 3
    assert report(done("import", dump, data, "--contracts", "--json"))["candle"] == (0, 0, 1_100)
    done("export", data, "--contracts", "-o", tmp_path / "tree")
    assert contents(tmp_path / "tree") == contents(dump)


@pytest.mark.parametrize(
    ("number", "text"),
    [(100.0, "100"), (-0.0, "0"), (1e21, "1e+21"), (123456789012345680000.0, "123456789012345680000"), (0.00001, "0.00001"),
     (0.000001, "0.000001"), (1.5e-7, "1.5e-7"), (-2.5, "-2.5"), (1.7976931348623157e308, "1.7976931348623157e+308"), (5e-324, "5e-324")],
)  # fmt: skip
def test_numbers_are_spelled_as_the_framework_does(number: float, text: str) -> None:
    assert number_text(number) == text
    assert float(text) == number


# ---- where to, and beside whom


def test_a_tree_is_made_in_an_empty_place_only(tmp_path: Path) -> None:
    done("put", tmp_path / "data", "state", '["s","b"]', "1")
    taken = tree(tmp_path / "taken", {"x": b"1"})
    for place in (taken, taken / "x", tmp_path / "data" / "tree"):
        assert eventstore("export", tmp_path / "data", "--contracts", "-o", place).code == 3
    (tmp_path / "empty").mkdir()
    done("export", tmp_path / "data", "--contracts", "-o", tmp_path / "empty")
    assert contents(tmp_path / "empty") == {"state/s/b/b.json": b"1"}
    assert sorted(os.listdir(tmp_path)) == ["data", "empty", "taken"]


def test_words_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    done("put", tmp_path / "data", "notes", "a", "1")
    done("put", tmp_path / "data", "state", '["s","b"]', "1")
    assert eventstore("export", tmp_path / "data", "--contracts").code == 3
    assert eventstore("export", tmp_path / "data", "notes", "--contracts", "-o", tmp_path / "tree").code == 3
    assert eventstore("import", tmp_path, tmp_path / "other", "--contracts", "--domain", "x").code == 3
    done("export", tmp_path / "data", "-o", tmp_path / "out")
    assert eventstore("import", tmp_path / "out", tmp_path / "other", "--contracts").code == 3
    assert "passed over notes" in done("export", tmp_path / "data", "--contracts", "-o", tmp_path / "tree").out


def test_a_key_that_is_no_records_is_listed(tmp_path: Path) -> None:
    done("put", tmp_path / "data", "signal", '["a","b"]', "1")
    done("put", tmp_path / "data", "signal", '["a/b","b","c"]', "1")
    found = problems("export", tmp_path / "data", "--contracts", "-o", tmp_path / "tree")
    assert set(found) == {'signal ["a","b"]', 'signal ["a/b","b","c"]'}
    assert "the event store keeps such keys apart" in found['signal ["a/b","b","c"]']


def test_candles_of_no_context_are_listed(tmp_path: Path) -> None:
    with library.open(tmp_path / "data") as store:
        domain = store.domain(CONTRACTS["Candle"].domain)
        for key in (("A", 60_000), ("A", "1m", "x", 60_000)):
            domain.write_value(key, {"start": 60_000, "step": 60_000, **{name: [1] for name in FIELDS}})
    assert set(problems("export", tmp_path / "data", "--contracts", "-o", tmp_path / "tree")) == {'candle ["A",60000]'}
    assert sorted(contents(tmp_path / "tree")) == ["data/candle/x/A/1m/60000.json"]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Path]:
    """A store to which a thread writes rounds of a hundred keys, each round one transaction."""
    stop = threading.Event()

    def write() -> None:
        with library.open(tmp_path / "data", durability="process") as store:
            number = 0
            while not stop.is_set():
                number += 1
                store.domain("state").write_values([((f"s{place}", "b"), number) for place in range(100)])

    with library.open(tmp_path / "data") as store:
        store.domain("state").write_values([((f"s{place}", "b"), 0) for place in range(100)])
    thread = threading.Thread(target=write)
    thread.start()
    yield tmp_path / "data"
    stop.set()
    thread.join()


@pytest.mark.slow
def test_a_domain_is_exported_as_of_one_moment_while_others_write(writer: Path, tmp_path: Path) -> None:
    for number in range(5):
        answer = done("export", writer, "--contracts", "-o", tmp_path / f"tree{number}", "--json").json()["domains"]["state"]
        assert (answer["files"], answer["position"] % 100) == (100, 0)
        assert len(set(contents(tmp_path / f"tree{number}").values())) == 1


@pytest.mark.slow
def test_a_terminal_shows_how_far_it_is(tmp_path: Path) -> None:
    tree(tmp_path / "dump", {f"state/s{number}/b/b.json": b"1" for number in range(1_100)})
    shown = on_a_terminal(["import", str(tmp_path / "dump"), str(tmp_path / "data"), "--contracts"], colour=False, columns=100)
    assert re.search(r"1[01]00/1100", shown), shown
    shown = on_a_terminal(["export", str(tmp_path / "data"), "--contracts", "-o", str(tmp_path / "tree")], colour=False, columns=100)
    assert re.search(r"1[01]00/1100", shown), shown
