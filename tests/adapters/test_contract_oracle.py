"""An oracle drives event store, JSON files and memory together: whatever was done, all four say the same."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import eventstore
from eventstore.adapters import persist
from eventstore.adapters.contracts import CONTRACTS, STEPS_MS, Contract
from eventstore.adapters.event_shelf import EventBackend
from eventstore.adapters.registry import backend_at
from eventstore.adapters.shelf import Backend
from eventstore.errors import ContractError, InvalidKeyError
from eventstore.projections.series import FIELDS
from tests.adapters.recorded import answer, instance

MINUTE = STEPS_MS["1m"]
START = 1_704_067_200_000
IDS = ("a", "id2", "id10", "ID3", "a_b", "é☃", "..a")

names = st.sampled_from(("A", "b_c", "é", "x.y"))
ids = st.sampled_from(IDS)
values = st.none() | st.dictionaries(
    st.sampled_from(("n", "note", "deep")),
    st.none() | st.integers(-(2**70), 2**70) | st.text(max_size=8) | st.lists(st.booleans(), max_size=2),
)
times = st.lists(st.integers(0, 12), min_size=1, max_size=8)


def method_of(contract: Contract, verb: str) -> Any:
    """The method that has this verb."""
    return next(method for method in contract.methods if method.verb == verb)


class Agreement(RuleBasedStateMachine):
    """One record, records by an id, rows that are replaced, rows of which the first stands, and candles."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.memory = EventBackend(lambda: eventstore.open("memory:"))
        self.backends = self.opened()
        self.said: dict[tuple[str, ...], Any] = {}
        self.removed: set[tuple[str, ...]] = set()
        self.candles: dict[int, float] = {}

    def opened(self) -> list[Backend]:
        return [backend_at(str(self.folder / "store")), backend_at(f"json:{self.folder / 'dump'}"), self.memory]

    def teardown(self) -> None:
        self.runner.run(persist.close())
        self.runner.run(self.memory.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    def everywhere(self, name: str, context: tuple[Any, ...], verb: str, *args: Any) -> list[Any]:
        """What each backend answers."""
        contract = CONTRACTS[name]
        method = method_of(contract, verb)
        stamped = [1] * ("when" in method.parameters)

        async def call(backend: Backend) -> Any:
            return await answer(getattr(instance(contract, context, backend), method.name)(*copy.deepcopy(args), *stamped))

        return [self.runner.run(call(backend)) for backend in self.backends]

    def agree(self, answers: list[Any], expected: Any) -> None:
        assert answers == [expected] * len(self.backends)

    # ---- one

    @rule(a=names, b=names, value=values)
    def write_state(self, a: str, b: str, value: Any) -> None:
        self.everywhere("State", (a, b), "write", value)
        self.said["State", a, b] = value

    @rule(a=names, b=names)
    def read_state(self, a: str, b: str) -> None:
        self.agree(self.everywhere("State", (a, b), "read"), self.said.get(("State", a, b)))

    # ---- keyed

    @rule(a=names, id_=ids, value=values)
    def write_memory(self, a: str, id_: str, value: Any) -> None:
        self.everywhere("Memory", (a, "b"), "write", value, id_)
        self.said["Memory", a, id_] = value
        self.removed.discard(("Memory", a, id_))

    @rule(a=names, id_=ids)
    def remove_memory(self, a: str, id_: str) -> None:
        self.agree(self.everywhere("Memory", (a, "b"), "remove", id_), None)
        if ("Memory", a, id_) in self.said:
            self.removed.add(("Memory", a, id_))

    @rule(a=names, id_=ids)
    def look_for_memory(self, a: str, id_: str) -> None:
        key = ("Memory", a, id_)
        self.agree(self.everywhere("Memory", (a, "b"), "has", id_), key in self.said)
        self.agree(self.everywhere("Memory", (a, "b"), "read", id_), None if key in self.removed else self.said.get(key))

    @rule(a=names)
    def list_memories(self, a: str) -> None:
        there = {key[2]: value for key, value in self.said.items() if key[:2] == ("Memory", a) and key not in self.removed}
        found = self.everywhere("Memory", (a, "b"), "list")
        expected = {id_: value for id_, value in there.items() if value is not None}
        for listed in found:
            assert {entry["memoryId"]: entry["data"] for entry in listed} == expected
            assert [entry["memoryId"] for entry in listed] == [entry["memoryId"] for entry in found[0]]

    # ---- rows

    @rule(some=st.lists(st.tuples(ids, values.filter(bool)), max_size=4))
    def write_rows(self, some: list[tuple[str, Any]]) -> None:
        rows = [{**value, "id": id_} for id_, value in some]
        for name in ("Notification", "Log"):
            context = (False,) if name == "Notification" else ()
            self.everywhere(name, context, "write", rows)
            for row in rows:
                if name == "Notification" or (name, row["id"]) not in self.said:
                    self.said[name, row["id"]] = row

    @rule()
    def read_rows(self) -> None:
        for name in ("Notification", "Log"):
            found = self.everywhere(name, (False,) if name == "Notification" else (), "read")
            expected = {key[1]: row for key, row in self.said.items() if key[0] == name}
            for rows in found:
                assert {row["id"]: row for row in rows} == expected
                assert [row["id"] for row in rows] == [row["id"] for row in found[0]]

    # ---- candles

    @rule(places=times, price=st.floats(0.1, 1e6))
    def write_candles(self, places: list[int], price: float) -> None:
        given = [{"timestamp": START + place * MINUTE, **dict.fromkeys(FIELDS, price)} for place in places]
        self.everywhere("Candle", ("B", "1m", "x"), "write", given)
        for place in places:
            self.candles.setdefault(place, price)

    @rule(first=st.integers(-1, 12), limit=st.integers(0, 8))
    def read_candles(self, first: int, limit: int) -> None:
        wanted = range(first, first + limit)
        expected = [
            {"timestamp": START + place * MINUTE, **dict.fromkeys(FIELDS, self.candles[place])} for place in wanted if place in self.candles
        ]
        found = self.everywhere("Candle", ("B", "1m", "x"), "read", limit, START + first * MINUTE, 0)
        self.agree(found, expected if len(expected) == limit else None)

    # ---- a new process

    @rule()
    def reopen(self) -> None:
        """All but the memory is opened anew."""
        self.runner.run(persist.close())
        self.backends = self.opened()

    @invariant()
    def nothing_half_written_lies_about(self) -> None:
        assert not list(self.folder.rglob(".tmp-*"))


TestAgreement = Agreement.TestCase
TestAgreement.settings = settings(max_examples=settings().max_examples // 5, stateful_step_count=25)

hostile = st.sampled_from(
    (
        "/",
        "..",
        "../..",
        "../../x",
        "a/../../b",
        ".",
        "",
        "/etc/passwd",
        "_",
        "a_b",
        "\0",
        "\\..\\x",
        "~",
        "\ud83d",
        "é",
        "e\u0301",
        "x" * 300,
        ".tmp-x",
    )
) | st.text(max_size=6)
"""What would lead out of a folder, end a name, or make two of one."""


_PATHS = {"open": (0,), "os.mkdir": (0,), "os.rename": (0, 1), "os.link": (0, 1), "os.symlink": (1,), "os.remove": (0,), "os.rmdir": (0,)}
"""What changes folders, and which of its arguments are paths that it changes, by the name of the audit event that comes before it."""
_allowed: list[str] = []
"""The folder that alone may be changed now."""


def _stop_outside(event: str, args: tuple[Any, ...]) -> None:
    if not _allowed or event not in _PATHS or (event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        return
    for path in (args[place] for place in _PATHS[event]):
        if isinstance(path, str | bytes | os.PathLike) and not Path(os.path.realpath(os.fsdecode(path))).is_relative_to(_allowed[0]):
            raise PermissionError(f"{event} outside of the test's own folder: {path!r}")


sys.addaudithook(_stop_outside)


@contextlib.contextmanager
def confined(folder: str) -> Iterator[None]:
    """Nothing outside of a folder is written: who tries is stopped before it is done, whatever is wrong with the source, even as root."""
    _allowed.append(os.path.realpath(folder))
    try:
        yield
    finally:
        _allowed.clear()


def test_who_would_write_elsewhere_is_stopped_before(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    (inside / "kept").touch()
    with confined(str(inside)):
        (inside / "made").mkdir()
        for wrong in (
            outside.mkdir,
            outside.touch,
            lambda: outside.write_text("x"),
            lambda: (inside / "kept").rename(outside),
            lambda: os.link(inside / "kept", inside / "made/../../outside"),
        ):
            with pytest.raises(PermissionError, match="outside of the test's own folder"):
                wrong()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inside", "kept", "made"]


def splits(text: str, count: int) -> st.SearchStrategy[tuple[str, ...]]:
    """The ways to make so many parts of a text that was joined by `_`."""
    joints = [place for place, character in enumerate(text) if character == "_"]
    if len(joints) < count - 1:
        return st.just((text,) * count)
    places = st.lists(st.sampled_from(joints), min_size=count - 1, max_size=count - 1, unique=True).map(sorted)
    return places.map(lambda ends: tuple(text[first + 1 : last] for first, last in zip([-1, *ends], [*ends, len(text)], strict=True)))


@given(kind=st.sampled_from(sorted({"Signal", "Strategy", "Partial", "Memory", "Session", "Recent", "Dictionary"})), data=st.data())
def test_hostile_keys_neither_escape_nor_meet(kind: str, data: st.DataObject) -> None:
    """Two different contexts: each is kept apart from the other, or refused; and nothing stands where it should not."""
    contract = CONTRACTS[kind]
    free = [name for name in contract.context if name != "backtest"]
    contexts = data.draw(
        st.lists(st.tuples(*[hostile] * (len(free) + bool(contract.shape == "keyed"))), min_size=2, max_size=3, unique=True)
    )
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        outside = Path(folder)
        try:
            for location in (str(outside / "in" / "store"), f"json:{outside / 'in' / 'dump'}", "memory:"):
                (outside / "in").mkdir(exist_ok=True)
                with confined(folder):
                    runner.run(_kept_apart(contract, contexts, backend_at(location)))
        finally:
            runner.run(persist.close())
        assert {path.name for path in outside.iterdir()} == {"in"}
        assert {path.name for path in (outside / "in").iterdir()} <= {"store", "dump"}


async def _kept_apart(contract: Contract, contexts: list[tuple[str, ...]], backend: Backend) -> None:
    kept: dict[tuple[str, ...], dict[str, int]] = {}
    for number, parts in enumerate(contexts):
        try:
            await _call(contract, parts, backend, "write", {"n": number})
            kept[parts] = {"n": number}
        except (ContractError, InvalidKeyError):
            continue
    for parts, value in kept.items():
        found = await _call(contract, parts, backend, "read")
        assert found["n"] == value["n"], (contexts, parts)


async def _call(contract: Contract, parts: tuple[str, ...], backend: Backend, verb: str, *args: Any) -> Any:
    names = iter(parts)
    context = tuple(True if name == "backtest" else next(names) for name in contract.context)
    method = method_of(contract, verb)
    return await getattr(instance(contract, context, backend), method.name)(*args, *names, *[1] * ("when" in method.parameters))
