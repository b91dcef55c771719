"""The names that persist.py makes of the rows: as many as rows, with the engine's methods, and told to editors as they are."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from eventstore.adapters import persist
from eventstore.adapters.contracts import CONTRACTS, Contract, camel
from eventstore.adapters.persist import PersistMemoryInstance, PersistSessionAdapter, PersistSignalInstance
from eventstore.adapters.shapes import SHAPES
from tests.adapters import stub

ROWS = pytest.mark.parametrize("contract", CONTRACTS.values(), ids=lambda contract: contract.name)


def test_there_are_seventeen_rows_of_four_shapes() -> None:
    assert len(CONTRACTS) == 17
    assert {contract.shape for contract in CONTRACTS.values()} == set(SHAPES)


def test_editors_are_told_what_the_rows_say() -> None:
    told = (Path(persist.__file__).parent / "persist.pyi").read_text(encoding="utf-8")
    made = "run `python -m tests.adapters.stub > adapters/persist.pyi`, then ruff format"
    assert ast.dump(ast.parse(told)) == ast.dump(ast.parse(stub.text())), made


def test_what_editors_are_told_is_there() -> None:
    names = {name for name in stub_names() if not hasattr(persist, name)}
    assert names == set()


def stub_names() -> set[str]:
    body = ast.parse(stub.text()).body
    classes = {node.name for node in body if isinstance(node, ast.ClassDef)}
    return classes | {node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}


@ROWS
def test_signatures_are_those_that_editors_are_told(contract: Contract) -> None:
    body = ast.parse(stub.text()).body
    names = {f"Persist{contract.name}Instance", f"IPersist{contract.name}Instance", f"Persist{contract.name}Utils"}
    classes = [node for node in body if isinstance(node, ast.ClassDef) and node.name in names]
    assert len(classes) == 3
    for node in classes:
        made = getattr(persist, node.name)
        for method in (step for step in node.body if isinstance(step, ast.FunctionDef | ast.AsyncFunctionDef)):
            told = [argument.arg for argument in (*method.args.args, *method.args.kwonlyargs)]
            assert list(inspect.signature(getattr(made, method.name)).parameters) == told, f"{node.name}.{method.name}"


@ROWS
def test_methods_are_documented_and_of_the_right_kind(contract: Contract) -> None:
    instances, adapters = (getattr(persist, f"Persist{contract.name}{kind}") for kind in ("Instance", "Utils"))
    for method in contract.methods:
        for kind in (instances, adapters):
            made = getattr(kind, method.name)
            assert inspect.getdoc(made)
            assert inspect.isasyncgenfunction(made) if method.verb == "list" else inspect.iscoroutinefunction(made)


def test_names_are_the_engines() -> None:
    assert [camel(method.name) for method in PersistMemoryInstance.contract.methods] == [
        "readMemoryData",
        "writeMemoryData",
        "hasMemoryData",
        "removeMemoryData",
        "listMemoryData",
    ]
    waiting = inspect.signature(PersistSessionAdapter.wait_for_init)
    assert list(waiting.parameters) == ["strategy_name", "exchange_name", "frame_name", "initial", "symbol", "backtest"]


def test_a_call_that_does_not_fit_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="exchange_name"):
        PersistSignalInstance("BTCUSDT", "strat")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


@ROWS
def test_readme_says_what_the_row_says(contract: Contract) -> None:
    key = ", ".join([*contract.context, *filter(None, [contract.id])])
    methods = ", ".join(f"`{method.name}`" for method in contract.methods)
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert f"| {contract.name} | {contract.shape} | {key} | {methods} |\n" in readme
