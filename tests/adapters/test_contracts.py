"""The rows by themselves: what is repaired when a record is read, and what is left as it is."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from eventstore.adapters.contracts import CONTRACTS

ENDLESS = {"minuteEstimatedTime": math.inf}
LEVERAGE = {"multiplier": 1, "isolated": True}
SIGNALS = ("Signal", "Schedule", "Recent", "Storage")
DEFERRED = ("closedSignal", "cancelledSignal", "activatedSignal", "takeProfitSignal", "stopLossSignal", "retryOpenSignal")

REPAIRS: list[tuple[str, Any, Any]] = [
    *((name, {"id": "s"}, {"id": "s", **ENDLESS, **LEVERAGE}) for name in SIGNALS),
    *((name, {"minuteEstimatedTime": None, "multiplier": None, "isolated": None}, {**ENDLESS, **LEVERAGE}) for name in SIGNALS),
    *((name, kept, kept) for name in SIGNALS for kept in [{"minuteEstimatedTime": 0, "multiplier": 0, "isolated": False}]),
    *(("Strategy", {name: {}}, {name: {**ENDLESS, **LEVERAGE}}) for name in DEFERRED),
    ("Strategy", {**dict.fromkeys(DEFERRED), "createdSignal": {}}, {**dict.fromkeys(DEFERRED), "createdSignal": {}}),
    ("Risk", [["k", {"minuteEstimatedTime": None}], ["l", {}]], [["k", ENDLESS], ["l", ENDLESS]]),
    ("Risk", [["k", {"minuteEstimatedTime": 5}], "odd", ["odd"]], [["k", {"minuteEstimatedTime": 5}], "odd", ["odd"]]),
    ("Notification", {"id": "n"}, {"id": "n"}),
    ("Notification", {"minuteEstimatedTime": None}, ENDLESS),
    ("Notification", {"cost": 1}, {"cost": 1, **LEVERAGE}),
    ("Notification", {"cost": 1, "multiplier": 3, "isolated": False}, {"cost": 1, "multiplier": 3, "isolated": False}),
]


@pytest.mark.parametrize(("name", "stored", "read"), REPAIRS)
def test_what_json_could_not_say_is_put_back(name: str, stored: Any, read: Any) -> None:
    repair = CONTRACTS[name].repair
    assert repair is not None
    assert repair(copy.deepcopy(stored)) == read


def test_the_others_are_read_as_they_stand() -> None:
    repaired = {name for name, contract in CONTRACTS.items() if contract.repair is not None}
    assert repaired == {*SIGNALS, "Strategy", "Risk", "Notification"}


@pytest.mark.parametrize("name", [*SIGNALS, "Strategy", "Risk", "Notification"])
@pytest.mark.parametrize("odd", [[], 7, "text", {}, [7], [[]]])
def test_what_is_no_record_of_the_engines_is_no_error(name: str, odd: Any) -> None:
    repair = CONTRACTS[name].repair
    assert repair is not None
    repair(copy.deepcopy(odd))
