"""The wire protocol without a wire: which call a request is, and that its outcome is what an instance in this process gives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tracemalloc
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.adapters import rpc
from eventstore.adapters.contracts import CONTRACTS, Contract, Method, camel
from eventstore.adapters.event_shelf import EventBackend
from eventstore.adapters.namespaces import MAX_NAME_BYTES, NamespaceError, folder_name
from eventstore.adapters.rpc import MAX_ITEMS, MAX_MESSAGE, METHODS, RequestError, answer, read_call, refusal_of, result_of
from eventstore.adapters.shelf import as_json
from eventstore.errors import DuplicateEventError
from eventstore.opening import open_store
from eventstore.values import MAX_DEPTH
from tests.adapters.recorded import answer as answered
from tests.adapters.recorded import instance, repaired, same

NOON = "2024-03-04T12:00:00.000Z"
START = 1_709_510_400_000


def context_of(contract: Contract) -> dict[str, Any]:
    """A context, in the engine's spelling."""
    known = {"backtest": False, "interval": "1m"}
    return {camel(name): known.get(name, f"a {name}") for name in contract.context}


def body_of(contract: Contract, method: Method, args: list[Any], rid: str = "r") -> bytes:
    """A request."""
    request = {"ns": "", "rid": rid, "contract": contract.name, "context": context_of(contract), "method": camel(method.name), "args": args}
    return json.dumps(request).encode()


def argument(contract: Contract, name: str, turn: int) -> Any:
    """What a method is called with, another thing each turn, as JSON."""
    row = {"id": f"n{turn % 2}", "minuteEstimatedTime": None, "turn": turn, "text": "cut \ud83d", "n": 1.50, "removed": False}
    candle = {"timestamp": START + turn * 60_000, "open": 1, "high": 2.5, "low": 0, "close": 1, "volume": 3}
    known: dict[str, Any] = {
        "when": NOON,
        "data": [["key", row]] if contract.name == "Risk" else row if turn % 3 else None,
        "rows": [row, {"id": "n7", "cost": 1}],
        "candles": [candle],
        "limit": 1,
        "since_timestamp": START,
        "until_timestamp": 0,
    }
    return known.get(name, f"k{turn % 2}")


async def over_the_wire(backend: EventBackend, body: bytes) -> Any:
    """The result that a client reads."""
    return json.loads(result_of(await answer(read_call(body), backend)))["result"]


def in_process(contract: Contract, method: Method, args: list[Any]) -> list[Any]:
    """The same arguments as a Python program has them."""
    return [datetime.fromisoformat(arg) if name == "when" else arg for name, arg in zip(method.parameters, args, strict=True)]


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_method_of_every_contract_gives_what_an_instance_in_this_process_gives(name: str) -> None:
    """The rows say what there is: an eighteenth would be called here without another word."""
    contract = CONTRACTS[name]

    async def check() -> None:
        wire = EventBackend(lambda: open_store("memory:"), raw=True)
        plain = EventBackend(lambda: open_store("memory:"))
        kept = instance(contract, tuple(context_of(contract).values()), plain)
        for turn in range(6):
            for method in (*contract.methods, *contract.methods[:1]):
                args = [argument(contract, each, turn) for each in method.parameters]
                found = await over_the_wire(wire, body_of(contract, method, args, f"{turn}-{method.name}"))
                expected = as_json(await answered(getattr(kept, method.name)(*in_process(contract, method, args))))
                assert same(expected, repaired(contract, method, found)), (method.name, turn)
        await wire.close()
        await plain.close()

    asyncio.run(check())
    assert set(METHODS[name]) == {"waitForInit", *(camel(method.name) for method in contract.methods)} | (
        {"dispose"} if contract.disposable else set()
    )


KEPT = [
    b'{"b":1,"a":2}',
    b'{"n":1e5,"m":1.50,"z":-0,"big":123456789012345678901234567890}',
    b'"\\ud83d"',
    b"[ 1 ,\t2 ]",
    b'{"a":{"\\u0000":"\xe2\x82\xac"}}',
]


@pytest.mark.parametrize("text", KEPT)
@pytest.mark.parametrize("name", ["State", "Session", "Dictionary", "Partial", "Memory", "Schedule"])
def test_what_is_kept_is_kept_byte_for_byte(name: str, text: bytes) -> None:
    contract = CONTRACTS[name]
    write = next(method for method in contract.methods if method.verb == "write")
    read = next(method for method in contract.methods if method.verb == "read")
    args = [argument(contract, each, 0) for each in write.parameters]
    body = body_of(contract, write, ["@", *args[1:]]).replace(b'"@"', text)

    async def check() -> bytes:
        backend = EventBackend(lambda: open_store("memory:"), raw=True)
        assert await answer(read_call(body), backend) is None
        asked = body_of(contract, read, [argument(contract, each, 0) for each in read.parameters])
        found = result_of(await answer(read_call(asked), backend))
        await backend.close()
        return found

    assert asyncio.run(check()) == b'{"ok":true,"result":' + text + b"}"


@pytest.mark.parametrize("name", [name for name, contract in CONTRACTS.items() if contract.write == "replace"])
def test_a_write_made_again_is_one_event_and_another_one_is_refused(name: str) -> None:
    """Where the first write stands, Candle and Log, nothing of the kind is needed."""
    contract = CONTRACTS[name]
    write = next(method for method in contract.methods if method.verb == "write")

    async def check() -> int:
        store = open_store("memory:")
        backend = EventBackend(lambda: store, raw=True)
        first = body_of(contract, write, [argument(contract, each, 1) for each in write.parameters], "rid-1")
        other = body_of(contract, write, [argument(contract, each, 2) for each in write.parameters], "rid-1")
        for _ in range(3):
            await answer(read_call(first), backend)
        with pytest.raises(DuplicateEventError, match="rid-1"):
            await answer(read_call(other), backend)
        position = store.domain(contract.domain).head().position
        await backend.close()
        return position

    assert asyncio.run(check()) == (2 if contract.shape == "rows" else 1)


@pytest.mark.parametrize("name", [name for name, contract in CONTRACTS.items() if contract.write == "first"])
def test_what_stands_once_written_is_idempotent_by_nature(name: str) -> None:
    contract = CONTRACTS[name]
    write = next(method for method in contract.methods if method.verb == "write")

    async def check() -> list[int]:
        store = open_store("memory:")
        backend = EventBackend(lambda: store, raw=True)
        positions = []
        for turn in (1, 1, 1, 2):
            args = [argument(contract, each, turn) for each in write.parameters]
            await answer(read_call(body_of(contract, write, args, "rid-1")), backend)
            positions.append(store.domain(contract.domain).head().position)
        await backend.close()
        return positions

    first, *again, later = asyncio.run(check())
    assert (again, later) == ([first, first], first + 1)


def test_levels_of_nesting_are_counted_outside_of_strings() -> None:
    state = CONTRACTS["State"]
    body = b""
    for levels in (MAX_DEPTH, MAX_DEPTH + 1):
        text = "[" * levels + '"[[[[{{{{ \\"]]' + '"' + "]" * levels
        body = body_of(state, state.methods[1], ["@", NOON]).replace(b'"@"', text.encode())
        if levels == MAX_DEPTH:
            assert bytes(read_call(body).args[0]) == text.encode()
    deep = body.replace(b"[[[[", b"[[[[[[", 1).replace(b"]]]]", b"]]]]]]", 1)
    with pytest.raises(RequestError, match="too deep"):
        read_call(deep)


@pytest.mark.parametrize("text", [b"\\n" * 2**20, b'\\"' * 2**20], ids=["closed", "open"])
def test_a_long_text_takes_no_more_memory_than_a_few_copies_of_it(text: bytes) -> None:
    state = CONTRACTS["State"]
    whole = body_of(state, state.methods[1], ["@", NOON]).replace(b"@", text)
    for body in (whole, whole[: len(text)]):  # the second one ends within the text, and is no JSON
        tracemalloc.start()
        with contextlib.suppress(RequestError):
            read_call(body)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 20 * len(body)


def test_how_much_a_request_holds_is_bounded_before_it_is_decoded() -> None:
    for item in (b"{},", b"1,", b'"a",'):
        body = b'{"args":[' + item * MAX_ITEMS + b'"'
        with pytest.raises(RequestError, match=f"at most {MAX_ITEMS} are allowed") as caught:
            read_call(body)
        assert caught.value.status == 413
    with pytest.raises(RequestError, match="is no JSON"):
        read_call(b'"' + b"{}," * MAX_ITEMS)  # within a text they are none


@given(st.lists(st.sampled_from(["[", "]", "{", "}", ",", '"', "\\", '\\"', "ab", '"a,b"', '"[\\\\"']), max_size=60), st.integers(1, 9))
def test_brackets_and_commas_are_found_a_piece_at_a_time(parts: list[str], piece: int) -> None:
    text, expected, within, escaped = "".join(parts), "", False, False
    for letter in text:
        if within:
            within, escaped = escaped or letter != '"', letter == "\\" and not escaped
        elif letter == '"':
            within = True
        elif letter in "[]{},":
            expected += letter
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rpc, "_PIECE", piece)
        assert rpc._outside_of_texts(text.encode()) == expected.encode()


def large(contract: Contract, text: str) -> Any:
    """What a method that writes is called with, a megabyte."""
    rows = [{"id": f"n{number}", "text": text * 4_096, "n": [1.5, {}]} for number in range(256)]
    return rows if contract.shape == "rows" else {"id": "x", "removed": False, "rows": rows}


@pytest.mark.parametrize("text", ["x", "\ud83d"], ids=["plain", "half an emoji"])
@pytest.mark.parametrize("name", ["State", "Memory", "Signal", "Notification", "Log"])
def test_the_event_loop_never_decodes_what_is_large(name: str, text: str) -> None:
    """Whoever else is served would wait for it. What its thread calls is watched, not how long it takes."""
    contract, found = CONTRACTS[name], []
    decoding = {"_checked_text", "_check_depth", "raw_decode", "_unique", "_marks"}

    def watch(frame: FrameType, event: str, arg: Any) -> None:
        decodes = frame.f_code.co_name in decoding if event == "call" else event == "c_call" and arg.__name__ in ("decode", "loads")
        if decodes and not isinstance(getattr(arg, "__self__", None), bytes):
            found.append((frame.f_code.co_name, event))

    async def check() -> None:
        backend = EventBackend(lambda: open_store("memory:"), raw=True)
        small = body_of(contract, contract.methods[1], [argument(contract, each, 1) for each in contract.methods[1].parameters])
        await answer(read_call(small), backend)
        wanted = sorted((each for each in contract.methods if each.verb in ("read", "write", "list")), key=lambda each: not each.writes)
        for method in wanted:
            args = [large(contract, text) if each in ("data", "rows") else argument(contract, each, 1) for each in method.parameters]
            call = await asyncio.to_thread(read_call, body_of(contract, method, args, f"large {method.name}"))
            sys.setprofile(watch)
            try:
                result = await answer(call, backend)
            finally:
                sys.setprofile(None)
            assert method.writes or len(result_of(result)) > 2**20
        await backend.close()

    asyncio.run(check())
    assert found == []


def test_members_in_any_order_with_any_space_are_read() -> None:
    place = b'"context":{"bucketName":"b","signalId":"s"},"contract":"State","rid":"r","ns":"n"'
    call = read_call(b' { "args" : [ {"args":[1]} , "2024-03-04T12:00:00.000Z" ] ,\n"method":"writeStateData",' + place + b"} ")
    assert (call.namespace, call.rid, call.context, bytes(call.args[0])) == ("n", "r", ("s", "b"), b'{"args":[1]}')


def test_a_refusal_does_not_send_back_all_that_was_sent() -> None:
    assert len(refusal_of("ContractError", "x" * 2**20)) < 2 * MAX_MESSAGE


def test_a_refusal_can_quote_half_an_emoji() -> None:
    assert json.loads(refusal_of("ContractError", "\ud83d")) == {"ok": False, "error": {"name": "ContractError", "message": "\ud83d"}}


@given(st.text())
def test_a_namespace_is_one_folder_and_another_one_is_another(name: str) -> None:
    try:
        folder = folder_name(name)
    except NamespaceError:
        assert not name or len(name.encode()) * 3 > MAX_NAME_BYTES
        return
    assert Path(folder).name == folder not in (".", "..")
    assert folder.isascii()
    assert unquote(folder) == name
