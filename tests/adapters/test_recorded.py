"""What the real engine asked and was told is what it would be told here, on every backend that ships."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from eventstore.adapters import persist
from eventstore.adapters.registry import backend_at
from eventstore.adapters.shelf import Backend
from eventstore.errors import ContractError
from tests.adapters.conftest import LOCATIONS
from tests.adapters.recorded import DATA, WHOLE, Replay, TracedCall, adapters, call_adapter, same, traced
from tests.sampled import sampled

RECORDED = traced("trace-write.json") + traced("trace-read.json")
FAILED = [call for call in RECORDED if call.error is not None]
"""Two writes under a key with a slash, which is no file's name."""


def use(location: str) -> None:
    """Have every adapter keep its records there."""
    persist.setup(live=location, backtest=location)


def test_the_traces_answer_as_recorded(location: str) -> None:
    use(location)

    async def replay() -> list[TracedCall]:
        succeeded = [call for call in RECORDED if call.error is None]
        assert len(succeeded) == 158
        return [call for call in succeeded if (await call_adapter(call)) != call.result]

    assert asyncio.run(replay()) == []


def test_a_second_process_is_told_the_same(location: str) -> None:
    """The second trace was recorded by a process of its own; here everything is opened anew."""
    if location == LOCATIONS["memory"]:
        pytest.skip("memory ends with its process")

    async def replay(name: str) -> list[TracedCall]:
        wrong = [call for call in traced(name) if call.error is None and (await call_adapter(call)) != call.result]
        await persist.close()
        return wrong

    use(location)
    assert asyncio.run(replay("trace-write.json")) == []
    use(location)
    assert asyncio.run(replay("trace-read.json")) == []


@pytest.mark.parametrize("call", FAILED, ids=lambda call: call.contract)
def test_a_slash_in_a_key_fails_on_files_alone(call: TracedCall, location: str) -> None:
    use(location)
    noun = call.contract.lower()

    async def write_and_list() -> list[str]:
        adapter = adapters()[call.contract]
        try:
            await call_adapter(call)
        finally:
            listed = [key async for key in getattr(adapter, f"list_{noun}_data")("bucket_1h_0")]
        return listed

    if location == LOCATIONS["JSON files"]:
        with pytest.raises(ContractError, match="the event store keeps such keys apart"):
            asyncio.run(write_and_list())
        assert not list(Path().rglob("*.json"))
    else:
        assert asyncio.run(write_and_list()) == ["a/b:c"]


def test_the_files_are_those_that_the_engine_wrote(tmp_path: Path) -> None:
    """Byte for byte, what it wrote being in the traces as it was read back."""
    use(LOCATIONS["JSON files"])
    asyncio.run(_all([call for call in RECORDED if call.error is None]))
    measure = tmp_path / "dump" / "data" / "measure" / "bucket_1h_0"
    assert (measure / "k10.json").read_bytes() == b'{"id":"k10","data":{"v":"k10"},"removed":true}'
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == _written_by_the_engine()


async def _all(calls: list[TracedCall]) -> None:
    for call in calls:
        await call_adapter(call)


def _written_by_the_engine() -> list[str]:
    return sorted((DATA / "files.txt").read_text().split("\n")[:-1])


async def _replayed(backend: Backend, folder: Path, name: str) -> tuple[int, list[str]]:
    replay = Replay(backend)
    wrong = await replay.run(folder / f"{name}.jsonl.gz") + await replay.run(folder / f"{name}.final.jsonl.gz")
    return replay.calls, wrong


@pytest.mark.parametrize("location", sampled(LOCATIONS, "event store"), indirect=True)
@pytest.mark.timeout(600)  # JSON files: each write is two waits for the disk
def test_a_part_of_a_session_answers_as_recorded(backend: Backend) -> None:
    calls, wrong = asyncio.run(_replayed(backend, DATA, "live"))
    assert wrong == []
    assert calls > 3_000


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.skipif(not WHOLE.is_dir(), reason="the whole recordings do not stand beside this checkout")
@pytest.mark.parametrize(("name", "calls"), [("caps", 3_131), ("live", 64_456)])
def test_whole_sessions_answer_as_recorded(name: str, calls: int, location: str) -> None:
    assert asyncio.run(_replayed(backend_at(location), WHOLE, name)) == (calls, [])


@pytest.mark.parametrize(("one", "other", "expected"), [(1, 1.0, True), (1, True, False), ([], {}, False), ({"a": 1}, {"a": 2}, False)])
def test_the_comparison_sees_a_difference(one: object, other: object, expected: bool) -> None:
    assert same(one, other) is expected
