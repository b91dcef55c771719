"""Which backend serves whom: what was given, the environment, the defaults; adapters told otherwise; classes of others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import eventstore
from eventstore.adapters import persist
from eventstore.adapters.persist import (
    PersistMemoryAdapter,
    PersistRecentAdapter,
    PersistSignalAdapter,
    PersistSignalInstance,
    PersistStateAdapter,
    PersistStorageAdapter,
)
from eventstore.adapters.registry import backend_at
from eventstore.errors import ConfigError, ContractError

SIGNAL = ("BTCUSDT", "strat", "binance")


async def recent(backtest: bool) -> Any:
    """The last signal of a session, and of a backtest."""
    return await PersistRecentAdapter.read_recent_data(*SIGNAL, "", backtest)


async def write_both() -> None:
    """A record of each kind."""
    for backtest in (False, True):
        await PersistRecentAdapter.write_recent_data({"id": "backtest" if backtest else "live"}, *SIGNAL, "", backtest, 1)
    await PersistSignalAdapter.write_signal_data({"id": "s1"}, *SIGNAL)


def test_live_is_durable_and_backtests_are_in_memory_by_one_call() -> None:
    async def check() -> None:
        persist.setup(live="store", backtest="memory:")
        await write_both()
        assert ((await recent(False))["id"], (await recent(True))["id"]) == ("live", "backtest")
        await persist.close()
        assert (await recent(False))["id"] == "live"
        assert await recent(True) is None

    asyncio.run(check())
    with eventstore.open("store") as store:
        assert list(store.domain("recent").keys()) == [(*SIGNAL, "", "live")]
        assert list(store.domain("signal").keys()) == [SIGNAL]


def test_after_closing_the_next_call_opens_the_store_again_whoever_named_it() -> None:
    async def check() -> None:
        PersistSignalAdapter.use_event_store("store")
        records = persist.PersistBase("notes", "store")
        await PersistSignalAdapter.write_signal_data({"id": "s1"}, *SIGNAL)
        await records.write_value("n1", 1)
        for _ in range(2):
            await persist.close()
            assert (await PersistSignalAdapter.read_signal_data(*SIGNAL) or {})["id"] == "s1"
            assert await records.read_value("n1") == 1
        await persist.close()

    asyncio.run(check())


def test_what_an_adapter_kept_in_memory_is_gone_after_closing_and_a_store_that_was_given_is_not() -> None:
    async def check(given: eventstore.Store) -> None:
        PersistSignalAdapter.use_memory()
        PersistStateAdapter.use_event_store(given)
        for _ in range(2):
            await PersistSignalAdapter.write_signal_data({"id": "s1"}, *SIGNAL)
            await PersistStateAdapter.write_state_data({"n": 1}, "s1", "b", 1)
            await persist.close()
            assert await PersistSignalAdapter.read_signal_data(*SIGNAL) is None
            assert await PersistStateAdapter.read_state_data("s1", "b") == {"n": 1}

    with eventstore.open("memory:") as given:
        asyncio.run(check(given))


def test_backtests_in_files_by_one_call() -> None:
    async def check() -> None:
        persist.setup(live="store", backtest="json:dump")
        await write_both()

    asyncio.run(check())
    assert [str(path) for path in Path("dump").rglob("*.json")] == ["dump/data/recent/BTCUSDT_strat_binance_backtest/BTCUSDT.json"]


def test_what_is_given_counts_before_the_environment_and_that_before_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert persist.get_config() == persist.Config(live="data", backtest="memory:")
    monkeypatch.setenv("EVENTSTORE_LIVE", "from-environment")
    monkeypatch.setenv("EVENTSTORE_BACKTEST", "")
    assert persist.get_config() == persist.Config(live="from-environment", backtest="memory:")
    persist.set_config(live="given", durability="process", actor="bot")
    assert persist.get_config() == persist.Config(live="given", backtest="memory:", durability="process", actor="bot")
    persist.set_config(live="")
    assert persist.get_config() == persist.Config(live="from-environment", backtest="memory:")


def test_durability_and_actor_are_the_stores() -> None:
    async def check() -> None:
        persist.setup(live="store", durability="process", actor="bot")
        await PersistSignalAdapter.write_signal_data({"id": "s1"}, *SIGNAL)

    asyncio.run(check())
    with eventstore.open("store") as store:
        assert [event.meta for event in store.domain("signal").events()] == ['{"actor":"bot"}']


@pytest.mark.parametrize(
    "wrong", [{"live": 7}, {"durability": "for ever"}, {"live": "postgres://x"}, {"backtest": "jsn:x"}, {"live": "json:"}]
)
def test_what_cannot_be_configured_is_refused_at_once_and_changes_nothing(wrong: dict[str, Any]) -> None:
    persist.set_config(live="given")
    for configure in (persist.set_config, persist.setup):
        with pytest.raises(ConfigError):
            configure(**wrong)
    assert persist.get_config().live == "given"


def test_an_adapter_is_told_where_to_keep_its_records() -> None:
    async def check(store: eventstore.Store) -> None:
        PersistSignalAdapter.use_event_store(store)
        await PersistSignalAdapter.write_signal_data({"id": "in a store"}, *SIGNAL)
        for use in (PersistSignalAdapter.use_json, PersistSignalAdapter.use_memory):
            use()
            assert await PersistSignalAdapter.read_signal_data(*SIGNAL) is None
            await PersistSignalAdapter.write_signal_data({"id": use.__name__}, *SIGNAL)
            PersistSignalAdapter.clear()
            assert (await PersistSignalAdapter.read_signal_data(*SIGNAL) or {})["id"] == use.__name__
        PersistSignalAdapter.use_event_store("elsewhere")
        assert await PersistSignalAdapter.read_signal_data(*SIGNAL) is None
        PersistSignalAdapter.use_event_store(store)
        assert (await PersistSignalAdapter.read_signal_data(*SIGNAL) or {})["id"] == "in a store"

    with eventstore.open("store") as store:
        asyncio.run(check(store))
    assert Path("elsewhere").is_dir()
    assert Path("dump/data/signal").is_dir()


def test_install_sends_every_adapter_back_to_the_configuration_and_setup_keeps_what_was_set() -> None:
    async def check() -> None:
        persist.set_config(live="store")
        persist.setup()
        await PersistSignalAdapter.write_signal_data({"id": "configured"}, *SIGNAL)
        PersistSignalAdapter.use_memory()
        assert await PersistSignalAdapter.read_signal_data(*SIGNAL) is None
        persist.install()
        assert (await PersistSignalAdapter.read_signal_data(*SIGNAL) or {})["id"] == "configured"
        assert persist.get_config().live == "store"
        persist.setup(live="other")
        assert await PersistSignalAdapter.read_signal_data(*SIGNAL) is None

    asyncio.run(check())
    assert sorted(path.name for path in Path().iterdir()) == ["other", "store"]


def test_a_dummy_keeps_nothing() -> None:
    async def check() -> None:
        for adapter in (
            PersistSignalAdapter,
            PersistMemoryAdapter,
            PersistStorageAdapter,
            persist.PersistCandleAdapter,
            persist.PersistRiskAdapter,
        ):
            adapter.use_dummy()
        await PersistSignalAdapter.write_signal_data({"id": "s1"}, *SIGNAL)
        assert await PersistSignalAdapter.read_signal_data(*SIGNAL) is None
        await PersistMemoryAdapter.write_memory_data({}, "s", "b", "m", 1)
        await PersistMemoryAdapter.remove_memory_data("s", "b", "m")
        assert await PersistMemoryAdapter.has_memory_data("s", "b", "m") is False
        assert [entry async for entry in PersistMemoryAdapter.list_memory_data("s", "b")] == []
        await PersistStorageAdapter.write_storage_data([{"id": "r1"}], True)
        assert await PersistStorageAdapter.read_storage_data(True) == []
        candle = {"timestamp": 0, "open": 1, "high": 1, "low": 1, "close": 1, "volume": 1}
        await persist.PersistCandleAdapter.write_candles_data([candle], "B", "1m", "x")
        assert await persist.PersistCandleAdapter.read_candles_data("B", "1m", "x", 1, 0, 0) is None
        assert await persist.PersistCandleAdapter.read_candles_data("B", "1m", "x", 0, 0, 0) == []
        assert await persist.PersistRiskAdapter.read_position_data("r", "x", 1) == []

    asyncio.run(check())
    assert not list(Path().iterdir())


def test_a_domain_of_another_rule_is_refused_by_name() -> None:
    with eventstore.open("data") as store:
        store.domain("log").write_value("l1", {"id": "l1"})
    with pytest.raises(ContractError, match="log: made with the write rule 'replace', opened with 'first'"):
        asyncio.run(persist.PersistLogAdapter.read_log_data())


def test_a_context_is_held_to_what_it_is() -> None:
    with pytest.raises(ContractError, match="Storage: backtest is True or False, not 1"):
        asyncio.run(PersistStorageAdapter.read_storage_data(1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ContractError, match="Signal: symbol is a string, not None"):
        PersistSignalInstance(None, "strat", "binance")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ContractError, match="Memory: memory_id is a string, not 7"):
        asyncio.run(PersistMemoryAdapter.read_memory_data("s", "b", 7))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# ---- classes of others


class Foreign:
    """A back end of somebody else's, which initialises itself only when it is told that it is the first time."""

    made: list[tuple[Any, ...]]
    told: list[bool]

    def __init__(self, *context: Any) -> None:
        self.made.append(context)
        self.data: Any = None
        self.open = False

    async def wait_for_init(self, initial: bool) -> None:
        self.told.append(initial)
        if initial:
            await asyncio.sleep(0)
            self.open = True

    async def read_state_data(self) -> Any:
        assert self.open
        return self.data

    async def write_state_data(self, data: Any, when: Any) -> None:
        assert self.open
        self.data = data


@pytest.fixture
def foreign() -> type[Foreign]:
    """A class that has made nothing yet."""
    return type("Foreign", (Foreign,), {"made": [], "told": []})


def test_a_class_of_others_serves_an_adapter(foreign: type[Foreign]) -> None:
    async def check() -> None:
        PersistStateAdapter.use_persist_state_adapter(foreign)
        await asyncio.gather(*(PersistStateAdapter.write_state_data({"n": n}, "s", "b", 1) for n in range(3)))
        assert await PersistStateAdapter.read_state_data("s", "b") == {"n": 2}
        assert (foreign.made, foreign.told) == ([("s", "b")], [True, False, False, False])
        PersistStateAdapter.dispose("s", "b")
        await PersistStateAdapter.wait_for_init("s", "b", True)
        assert await PersistStateAdapter.read_state_data("s", "b") is None
        assert len(foreign.made) == 2

    asyncio.run(check())


def test_an_initialisation_that_fails_is_told_to_all_and_tried_again(foreign: type[Foreign]) -> None:
    async def failing(self: Foreign, initial: bool) -> None:
        foreign.told.append(initial)
        await asyncio.sleep(0)
        if len(foreign.told) == 1:
            raise OSError("the server is not up yet")
        self.open = True

    async def check() -> None:
        PersistStateAdapter.use_persist_state_adapter(type("Failing", (foreign,), {"wait_for_init": failing}))
        tasks = [PersistStateAdapter.read_state_data("s", "b") for _ in range(2)]
        assert [type(answer) for answer in await asyncio.gather(*tasks, return_exceptions=True)] == [OSError, OSError]
        assert await PersistStateAdapter.read_state_data("s", "b") is None

    asyncio.run(check())


@pytest.mark.parametrize("names", ["wait_for_init read_value has_value write_value", "waitForInit readValue hasValue writeValue keys"])
def test_a_class_of_the_old_kind_is_told_what_changed(names: str) -> None:
    """How a back end was written once: one for all entities."""
    old: Any = type("OldKind", (), dict.fromkeys(names.split(), lambda *given: None))
    kinds: list[Any] = [old, type("OldKind", (persist.PersistBase,), {})]
    for kind in kinds:
        with pytest.raises(
            ConfigError,
            match=r"OldKind has (read_value, has_value, write_value|readValue, hasValue, writeValue): .* before version 9 of"
            r" backtest-kit, .* a class for each contract, called as PersistSignalInstance\(symbol, .*write_signal_data",
        ):
            PersistSignalAdapter.use_persist_signal_adapter(kind)


def test_a_class_that_lacks_a_method_is_refused(foreign: type[Foreign]) -> None:
    with pytest.raises(ConfigError, match="Foreign lacks read_signal_data, write_signal_data"):
        PersistSignalAdapter.use_persist_signal_adapter(foreign)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="is expected, not None"):
        PersistSignalAdapter.use_persist_signal_adapter(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_first_callers_share_one_opening() -> None:
    async def check() -> None:
        signals = PersistSignalInstance(*SIGNAL)
        await asyncio.gather(*(signals.wait_for_init(first) for first in (True, False, False)))
        signals = PersistSignalInstance(*SIGNAL, backend=backend_at("another"))
        first, second = (asyncio.create_task(signals.wait_for_init(initial)) for initial in (True, False))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()  # the one that began it
        await second
        assert first.cancelled()
        assert await signals.read_signal_data() is None

    asyncio.run(check())


@pytest.mark.parametrize("location", ["memory://", "JSON:dump", "json:", "http://host/x", "postgres://host", ""])
def test_a_misspelled_place_is_no_folder(location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="is no place for records"):
        backend_at(location)
    backend_at("./memory:x")
    assert list(tmp_path.iterdir()) == []
