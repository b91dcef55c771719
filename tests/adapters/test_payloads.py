"""The payload types describe what the real engine wrote, and may be written as they are."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from eventstore.adapters.contracts import CONTRACTS
from eventstore.adapters.payloads import PnL, SignalRow, StorageRow
from eventstore.adapters.persist import PersistSignalInstance, PersistStorageInstance
from eventstore.adapters.shelf import Backend, as_json
from eventstore.errors import InvalidValueError, NaiveTimeError
from tests.adapters.recorded import DATA, TracedCall, same, session, traced

WRITTEN = [call for call in traced("trace-write.json") if call.method.startswith("write") and call.args[0]]


@pytest.mark.parametrize("call", WRITTEN, ids=lambda call: call.contract)
def test_a_type_says_what_was_written(call: TracedCall) -> None:
    """Every member that the type knows comes back as it was; the engine's own rows convert without a word."""
    contract = CONTRACTS[call.contract]
    kind: Any = list[contract.payload] if contract.shape in ("rows", "series") else contract.payload  # type: ignore[name-defined]
    given = call.args[0]
    if call.contract == "Storage":
        given = [{**row, **STORY} for row in given]
    said = json.loads(msgspec.json.encode(msgspec.convert(given, kind)))
    assert known(as_json(given), said)


STORY = {"status": "opened", "priority": 1, "createdAt": 1, "updatedAt": 1}
"""What the rows of the trace, which was made by hand, lack of a real one."""


def known(given: Any, said: Any) -> bool:
    """Whether what is said of a value is what was given; members that nobody here knows may be missing, defaults may be said."""
    if isinstance(given, dict) and isinstance(said, dict):
        return all(known(value, said[name]) for name, value in given.items() if name in said) and bool(
            given.keys() & said.keys() or not given
        )
    if isinstance(given, list) and isinstance(said, list):
        return len(given) == len(said) and all(map(known, given, said))
    return same(given, said)


def test_rows_of_a_real_session_convert() -> None:
    kinds: dict[str, int] = {}
    for _, request, _ in session(DATA / "live.jsonl.gz"):
        contract = CONTRACTS[request["contract"]]
        if not request["method"].startswith("write") or not request["args"][0]:
            continue
        given = request["args"][0]
        for value in given if contract.shape in ("rows", "series") else [given]:
            row = contract.repair(value) if contract.repair else value
            assert known(as_json(row), json.loads(msgspec.json.encode(msgspec.convert(row, contract.payload))))
            kinds[contract.name] = kinds.get(contract.name, 0) + 1
    assert kinds.keys() == CONTRACTS.keys() - {"Dictionary"}


def test_structs_are_written_as_they_are(backend: Backend) -> None:
    row = SignalRow(
        id="s1",
        symbol="B",
        position="long",
        price_open=1,
        price_take_profit=2,
        price_stop_loss=0.5,
        minute_estimated_time=float("inf"),
        exchange_name="x",
        strategy_name="st",
        frame_name="",
        scheduled_at=1,
        pending_at=1,
        timestamp=1,
        peak=PnL(pnl_percentage=0, price_open=1, price_close=1, pnl_cost=0),
    )
    story = StorageRow(**msgspec.structs.asdict(row), status="opened", priority=1, created_at=1, updated_at=1)

    async def check() -> None:
        signals = PersistSignalInstance("B", "st", "x", backend=backend)
        await signals.write_signal_data(row)
        found = await signals.read_signal_data()
        assert found is not None
        assert found["_peak"] == {"pnlPercentage": 0, "priceOpen": 1, "priceClose": 1, "pnlCost": 0}
        assert msgspec.convert(found, SignalRow) == row
        rows = PersistStorageInstance(False, backend=backend)
        await rows.write_storage_data([story])
        assert msgspec.convert(await rows.read_storage_data(), list[StorageRow]) == [story]

    asyncio.run(check())


@pytest.mark.parametrize(
    ("value", "error"),
    [({1: "a"}, InvalidValueError), ({"at": datetime(2024, 1, 1)}, NaiveTimeError), ({"a": b"x"}, InvalidValueError)],  # noqa: DTZ001
)
def test_what_json_has_no_word_for_is_refused(backend: Backend, value: Any, error: type[Exception]) -> None:
    async def check() -> None:
        signals = PersistSignalInstance("B", "st", "x", backend=backend)
        with pytest.raises(error):
            await signals.write_signal_data(value)
        assert await signals.read_signal_data() is None

    asyncio.run(check())


def test_a_moment_is_written_as_its_text_in_utc() -> None:
    at = datetime(2024, 1, 1, 2, 5, tzinfo=timezone(timedelta(hours=2)))
    assert as_json({"at": [at, at.replace(microsecond=1)]}) == {"at": ["2024-01-01T00:05:00.000Z", "2024-01-01T00:05:00.000001Z"]}
