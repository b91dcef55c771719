"""tools/recording.py: calls of every contract, in the form in which backtest-kit sends them, become writes, values verbatim."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from eventstore.adapters.contracts import CONTRACTS
from eventstore.errors import InvalidValueError
from eventstore.model import Key
from eventstore.tools.recording import Write, read_recording, writes_of

WHEN = '"2024-01-01T00:05:00.000Z"'
WHEN_US = 1_704_067_500_000_000

# A spelling that any decoding and encoding would change: white space, an exponent, -0.0, digits beyond a double, escapes.
VERBATIM = '{ "a" : -0.0,"b":1.0,"c":1e2,"d":0.30000000000000000001,"e":"\\u00e9\\/\\ud83d","id":"r\\u0031","n":12345678901234567890}'

POSITION = '{"symbol":"BTCUSDT","strategyName":"strat","exchangeName":"binance"}'
POSITION_KEY = ("BTCUSDT", "strat", "binance")


def line(contract: str, method: str, context: str, args: str) -> bytes:
    request = f'{{"rid":"L-1","ns":"","contract":"{contract}","context":{context},"method":"{method}","args":{args}}}'
    return f'{{"i":0,"t":7,"req":{request},"res":{{"ok":true,"result":null}}}}\n'.encode()


def writes(*lines: bytes) -> list[Write]:
    return list(writes_of(lines))


ONE_WRITE = [
    ("Signal", "writeSignalData", POSITION, f"[{VERBATIM}]", POSITION_KEY, None),
    ("Schedule", "writeScheduleData", POSITION, f"[{VERBATIM}]", POSITION_KEY, None),
    ("Strategy", "writeStrategyData", POSITION, f"[{VERBATIM}]", POSITION_KEY, None),
    ("Risk", "writePositionData", '{"riskName":"risk","exchangeName":"binance"}', f"[{VERBATIM},{WHEN}]", ("risk", "binance"), WHEN_US),
    ("Partial", "writePartialData", POSITION, f'[{VERBATIM},"s1",{WHEN}]', (*POSITION_KEY, "s1"), WHEN_US),
    ("Breakeven", "writeBreakevenData", POSITION, f'[{VERBATIM},"s1",{WHEN}]', (*POSITION_KEY, "s1"), WHEN_US),
    ("Measure", "writeMeasureData", '{"bucket":"b_1h_0"}', f'[{VERBATIM},"k10",{WHEN}]', ("b_1h_0", "k10"), WHEN_US),
    ("Interval", "writeIntervalData", '{"bucket":"b_1h_0"}', f'[{VERBATIM},"k10",1704067500000]', ("b_1h_0", "k10"), WHEN_US),
    ("Memory", "writeMemoryData", '{"signalId":"s1","bucketName":"b"}', f'[{VERBATIM},"a/b",{WHEN}]', ("s1", "b", "a/b"), WHEN_US),
    (
        "Recent",
        "writeRecentData",
        '{"symbol":"BTCUSDT","strategyName":"strat","exchangeName":"binance","frameName":"","backtest":false}',
        f"[{VERBATIM},{WHEN}]",
        (*POSITION_KEY, "", "live"),
        WHEN_US,
    ),
    ("State", "writeStateData", '{"signalId":"s1","bucketName":"b"}', f"[{VERBATIM},{WHEN}]", ("s1", "b"), WHEN_US),
    (
        "Session",
        "writeSessionData",
        # Not the order in which the context stands in the line makes the key, but that of the constructor.
        '{"backtest":true,"symbol":"BTCUSDT","frameName":"frame","exchangeName":"binance","strategyName":"strat"}',
        f'[{VERBATIM},"2024-01-01T00:05:00.001002+00:00"]',
        ("strat", "binance", "frame", "BTCUSDT", "backtest"),
        WHEN_US + 1_002,
    ),
    ("Dictionary", "writeDictionaryData", '{"signalId":"s1","dictionaryName":"d"}', f"[{VERBATIM},{WHEN}]", ("s1", "d"), WHEN_US),
]


@pytest.mark.parametrize(("contract", "method", "context", "args", "key", "when_us"), ONE_WRITE, ids=[each[0] for each in ONE_WRITE])
def test_a_call_is_one_write(contract: str, method: str, context: str, args: str, key: Key, when_us: int | None) -> None:
    assert writes(line(contract, method, context, args)) == [Write(contract.lower(), key, VERBATIM, when_us)]


ROWS = [
    ("Storage", "writeStorageData", '{"backtest":false}', ("live", "r1"), ("live", "id10")),
    ("Notification", "writeNotificationData", '{"backtest":true}', ("backtest", "r1"), ("backtest", "id10")),
    ("Log", "writeLogData", "{}", "r1", "id10"),
]


@pytest.mark.parametrize(("contract", "method", "context", "first", "second"), ROWS, ids=[each[0] for each in ROWS])
def test_a_list_is_one_write_a_row(contract: str, method: str, context: str, first: Key, second: Key) -> None:
    found = writes(line(contract, method, context, f'[[ {VERBATIM} , {{"x":1.50,"id":"id10"}}]]'))
    assert found == [Write(contract.lower(), first, VERBATIM, None), Write(contract.lower(), second, '{"x":1.50,"id":"id10"}', None)]


def test_an_empty_list_writes_nothing() -> None:
    context = '{"symbol":"BTCUSDT","interval":"1m","exchangeName":"binance"}'
    assert (
        writes(line("Storage", "writeStorageData", '{"backtest":false}', "[[]]"), line("Candle", "writeCandlesData", context, "[[]]")) == []
    )


def test_candles_are_one_write_a_call_named_by_their_first_moment() -> None:
    candles = '[{"timestamp":1704067200000,"open":100.0,"volume":5},{"timestamp":1704067260000,"open":1e2,"volume":-0.0}]'
    context = '{"symbol":"BTCUSDT","interval":"1m","exchangeName":"binance"}'
    found = writes(line("Candle", "writeCandlesData", context, f"[{candles}]"))
    assert found == [Write("candle", ("BTCUSDT", "1m", "binance", 1704067200000), candles, None)]


def test_writing_null_is_a_write_of_null() -> None:
    assert writes(line("Signal", "writeSignalData", POSITION, "[null]")) == [Write("signal", POSITION_KEY, "null", None)]


@pytest.mark.parametrize(
    ("contract", "method", "context", "key"),
    [
        ("Measure", "removeMeasureData", '{"bucket":"b_1h_0"}', ("b_1h_0", "k10")),
        ("Interval", "removeIntervalData", '{"bucket":"b_1h_0"}', ("b_1h_0", "k10")),
        ("Memory", "removeMemoryData", '{"signalId":"s1","bucketName":"b"}', ("s1", "b", "k10")),
    ],
)
def test_a_removal_has_no_value(contract: str, method: str, context: str, key: Key) -> None:
    assert writes(line(contract, method, context, '["k10"]')) == [Write(contract.lower(), key, None, None)]


def test_a_call_without_a_time_takes_the_latest_seen() -> None:
    context = '{"signalId":"s1","bucketName":"b"}'
    found = writes(
        line("Signal", "writeSignalData", POSITION, "[null]"),
        line("State", "writeStateData", context, f"[1,{WHEN}]"),
        # The engine may name an earlier moment again: it is that call's own, but no step back for those that name none.
        line("State", "writeStateData", context, '[2,"2024-01-01T00:04:59.000Z"]'),
        line("Signal", "writeSignalData", POSITION, "[null]"),
        line("Memory", "removeMemoryData", context, '["m1"]'),
    )
    assert [write.when_us for write in found] == [None, WHEN_US, WHEN_US - 1_000_000, WHEN_US, WHEN_US]


@pytest.mark.parametrize(
    ("contract", "method", "args"),
    [
        ("Signal", "readSignalData", "[]"),
        ("Signal", "waitForInit", "[true]"),
        ("Memory", "hasMemoryData", '["m"]'),
        ("State", "dispose", "[]"),
    ],
)
def test_a_call_that_changes_nothing_is_no_write(contract: str, method: str, args: str) -> None:
    assert writes(line(contract, method, "{}", args)) == []


@pytest.mark.parametrize(
    "bad",
    [
        b"\n",
        b"not json\n",
        b'{"i":0}\n',
        line("Nonsense", "writeNonsenseData", "{}", "[1]"),
        line("Signal", "writeSignalData", '{"symbol":"BTCUSDT"}', "[1]"),
        line("Signal", "writeSignalData", POSITION, "[]"),
        line("Signal", "writeSignalData", POSITION, "{}"),
        line("Partial", "writePartialData", POSITION, "[{}]"),
        line("Partial", "writePartialData", POSITION, "[{},7]"),
        line("State", "writeStateData", '{"signalId":"s","bucketName":"b"}', '[1,"2024-01-01T00:05:00"]'),
        line("State", "writeStateData", '{"signalId":"s","bucketName":"b"}', '[1,"yesterday"]'),
        line("Storage", "writeStorageData", '{"backtest":false}', "[[{}]]"),
        line("Candle", "writeCandlesData", '{"symbol":"B","interval":"1m","exchangeName":"x"}', '[[{"timestamp":"x"}]]'),
    ],
)
def test_a_line_that_is_no_call_is_named(bad: bytes) -> None:
    good = line("Signal", "writeSignalData", POSITION, "[null]")
    with pytest.raises(InvalidValueError, match="line 2 of the recording"):
        writes(good, bad)


def test_a_recording_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl.gz"
    path.write_bytes(gzip.compress(line("Signal", "writeSignalData", POSITION, "[1.0]") + line("Signal", "readSignalData", POSITION, "[]")))
    assert read_recording(path) == [Write("signal", POSITION_KEY, "1.0", None)]


def test_every_contract_is_known() -> None:
    tried = {each[0] for each in ONE_WRITE} | {each[0] for each in ROWS} | {"Candle"}
    assert tried == set(CONTRACTS)
    assert len(CONTRACTS) == 17
