"""The house rules that a machine can hold: floors, names, sizes, words, and documentation that exists.

Each test lists every offender, so that one run shows all there is to do. A rule that stands in the way of a better
design is changed here and in ARCHITECTURE.md, in the same commit.
"""

from __future__ import annotations

import ast
import enum
import fnmatch
import graphlib
import inspect
import itertools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import eventstore

ROOT = Path(__file__).parents[1]
HOUSE = ("eventstore", "projections", "adapters", "tools")
GUARDED = ("projections", "adapters", "tools")
FOLDERS = {*HOUSE, "tests", ".ci"}

# Bottom first. A module may import its own floor and those below, and nothing imports in circles. A module that is on
# no floor fails the test: where a new page belongs is decided on purpose, here.
FLOORS = [
    ["errors", *GUARDED],  # the three packages themselves: their __init__ imports nothing
    ["model", "metrics"],
    ["clock", "codec", "merkle", "meta", "values"],
    ["coding"],
    ["archived", "carried", "carver"],
    ["rules", "log"],
    ["roots"],
    [
        "files",
        "manifest",
        "copies",
        "witness",
        "lease",
        "database",
        "logfile",
        "logfiles",
        "reading",
        "rolling",
        "recovery",
        "claims",
        "moves",
        "remnants",
        "unfinished",
        "keeping",
        "sqlite",
        "local",
    ],
    ["projections.key_states", "projections.series", "projections.history"],
    ["evidence", "survivors", "reseal"],
    ["pointers"],
    ["event_ids"],
    ["links", "sealedfile"],
    ["live"],
    ["commit", "compaction", "view", "follow", "failstop"],
    ["group", "writes"],
    ["erasure"],
    ["domain"],
    ["intents"],
    ["ranges"],
    ["walker"],
    ["anchors", "archive", "bundles", "carriage", "gone", "retention", "verify", "backup", "store"],
    ["awaited", "salvage", "restore", "projections.projection"],
    ["adapters.*"],
    ["opening"],
    ["aio"],
    ["adapters.registry", "adapters.entities", "adapters.persist"],  # they open stores
    ["tools.*"],
    ["", "__main__"],  # the roof
]
ENGINES = {f"eventstore.adapters.{name}" for name in ("memory", "postgres", "mongo", "redis", "jetstream", "portal")}
NAMELESS = {"utils", "util", "helpers", "helper", "common", "base", "misc"}
FUNCTION_LINES = 70
WORKSHOP_EXTRAS = {"test", "lint", "bench", "all"}

# Taken apart, so that this file does not hold what it looks for.
LEFT_OPEN = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
PRIVATE_PATH = re.compile(r"(?<![\w.~])/(?:work|root|home/\w+|Users/\w+|tmp/ven" + r"v)/")


def python_files(*folders: str) -> list[Path]:
    """The sources of these folders, each once: links are not followed."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def text_files() -> Iterator[Path]:
    """Everything a person wrote and another will read."""
    yield from python_files(*HOUSE, "tests")
    yield from sorted(path for pattern in ("*.md", "*.toml", "*.in") for path in ROOT.glob(pattern))
    yield from sorted(path for pattern in ("*.md", "*.mjs") for folder in (*HOUSE, "tests") for path in (ROOT / folder).rglob(pattern))
    yield ROOT / ".ci" / "run"
    yield ROOT / ".gitignore"


@cache
def tree(path: Path) -> ast.Module:
    """The parsed source."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def nodes(path: Path) -> list[ast.AST]:
    """Everything in it: walked through by most rules."""
    return list(ast.walk(tree(path)))


def place(path: Path, node: ast.AST) -> str:
    """Where an offender stands."""
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def module_name(path: Path) -> str:
    """The one name a source is imported by."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] in GUARDED:
        parts.insert(0, "eventstore")
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


@cache
def modules() -> dict[str, Path]:
    """The house, by name."""
    return {module_name(path): path for path in python_files(*HOUSE)}


def imported_names(path: Path) -> Iterator[tuple[ast.stmt, str]]:
    """What a source imports, at whatever depth, for type checking or not; in `from a import b`, b if it is a module."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield node, full if full in modules() else str(node.module)


@cache
def import_edges() -> list[tuple[str, str]]:
    """(module, what it imports) inside the house."""
    edges = {(name, imported) for name, path in modules().items() for _, imported in imported_names(path)}
    return sorted(edge for edge in edges if edge[1].split(".")[0] == "eventstore")


def floor(module: str) -> int | None:
    """How high a module stands; None if nobody gave it a place."""
    short = module.removeprefix("eventstore").removeprefix(".")
    named = [level for level, patterns in enumerate(FLOORS) if short in patterns]
    fitting = [level for level, patterns in enumerate(FLOORS) if any(fnmatch.fnmatchcase(short, pattern) for pattern in patterns)]
    return next(iter(named + fitting), None)


def require_none(offenders: list[str]) -> None:
    """Fail with every offender on a line of its own; the rewriting of asserts would show the first and a number."""
    if offenders:
        pytest.fail("\n".join(offenders), pytrace=False)


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    """Every call, with the dotted name of what is called as far as it has one."""
    for node in nodes(path):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


# Layout


def test_top_level_folders_are_fixed() -> None:
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines() if line.endswith("/")] + [".git"]
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert {name for name in folders if not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignored)} == FOLDERS


@pytest.mark.parametrize("name", GUARDED)
def test_links_lead_to_the_folder_of_their_name(name: str) -> None:
    """Without the link, an uninstalled checkout and the type checkers do not see the folder as part of the package."""
    assert (ROOT / "eventstore" / name).resolve() == ROOT / name


@pytest.mark.parametrize("name", GUARDED)
def test_a_folder_refuses_a_second_name(name: str) -> None:
    """Twice imported would be two of every class; it must fail at the first line, and say how to do it."""
    done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"ImportError: import this package as eventstore.{name}" in done.stderr


def test_module_names_say_what_they_hold() -> None:
    require_none([str(path.relative_to(ROOT)) for path in python_files(*HOUSE, "tests") if path.stem.strip("_") in NAMELESS])


# Floors


def test_every_module_has_a_floor() -> None:
    require_none([f"{name}: give it a place in FLOORS, and in ARCHITECTURE.md" for name in modules() if floor(name) is None])


def test_architecture_lists_every_page_and_no_other() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    listed, folder = set(), ""
    for line in text.split("```")[1].splitlines():
        if found := re.match(r"(\w+)/ ", line):
            folder = found[1]
        elif found := re.match(r"  (\w+\.py) ", line):
            listed.add(f"{folder}/{found[1]}")
    pages = {str(path.relative_to(ROOT)) for path in python_files(*HOUSE) if path.parent.name != "tools"}
    without = {f"{folder}/__init__.py" for folder in GUARDED}
    assert listed == pages - without


def test_architecture_draws_the_floors_as_they_are() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    drawn = re.search(r"`errors` <(?:\s*`[\w., ]+`(?: <)?)+", text)
    assert drawn is not None
    floors = [sorted(re.findall(r"[\w.]+", group)) for group in re.findall(r"`([^`]+)`", drawn[0])]
    there: dict[int, set[str]] = {}
    for module, path in modules().items():
        level = floor(module)
        if path.name != "__init__.py" and level is not None:
            short = module.removeprefix("eventstore.")
            named = any(short in patterns for patterns in FLOORS)
            there.setdefault(level, set()).add(short if named else re.sub(r"^(adapters|tools)\..*", r"\1", short))
    assert floors == [sorted(names) for _, names in sorted(there.items())]


def test_every_extra_is_named_where_people_look_for_it() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md")}
    missing = [f"ARCHITECTURE.md: {extra}" for extra in extras if f"`{extra}`" not in texts["ARCHITECTURE.md"]]
    for extra in extras:
        page = "CONTRIBUTING.md" if extra in WORKSHOP_EXTRAS - {"all"} else "README.md"
        if not re.search(rf"\[[\w,]*\b{extra}\b[\w,]*\]", texts[page]):
            missing.append(f"{page}: {extra}")
    require_none(missing)


def test_imports_point_down() -> None:
    def level(module: str) -> int:
        found = floor(module)
        return len(FLOORS) if found is None else found

    require_none([f"{module} imports {imported}" for module, imported in import_edges() if level(imported) > level(module)])


def test_nothing_imports_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    for module, imported in import_edges():
        graph.setdefault(module, set()).add(imported)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_engines_do_not_know_each_other() -> None:
    require_none([f"{module} imports {other}" for module, other in import_edges() if {module, other} <= ENGINES and module != other])


def test_no_relative_imports() -> None:
    found = [
        place(path, node)
        for path in python_files(*HOUSE, "tests")
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    require_none(found)


def test_foreign_imports_are_declared_and_stay_where_they_belong() -> None:
    """What is imported must be installed with us; what only a terminal needs stays with the tools."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def importable(requirements: list[str]) -> set[str]:
        return {re.split(r"[^\w-]", requirement)[0].replace("-", "_") for requirement in requirements}

    core = importable(project["dependencies"])
    terminal = {"click", "rich"}
    extras = project["optional-dependencies"]
    optional = {name for extra in extras.keys() - WORKSHOP_EXTRAS for name in importable(extras[extra])}
    allowed = {
        "eventstore": core - terminal,
        "projections": core - terminal,
        "adapters": core - terminal | optional,
        "tools": core | optional,
    }
    found = [
        f"{place(path, node)} {imported}"
        for folder in HOUSE
        for path in python_files(folder)
        for node, imported in imported_names(path)
        if imported.split(".")[0] not in {"eventstore", *sys.stdlib_module_names, *allowed[folder]}
    ]
    require_none(found)


def test_a_process_holds_one_sqlite() -> None:
    """Two SQLite libraries on one file drop each other's locks: everybody takes the one that sqlite-utils found."""
    found = [
        place(path, node)
        for path in python_files(*HOUSE)
        for node, imported in imported_names(path)
        if imported.split(".")[0] in {"sqlite3", "pysqlite3"}
    ]
    require_none(found)


def test_the_library_asks_for_no_name_that_one_sqlite_lacks() -> None:
    """pysqlite3 names only SQLite's primary result codes: an extended one would be an AttributeError there, in the midst of a fault."""
    asked = [(place(path, node), node.attr) for path in python_files(*HOUSE) for node in nodes(path) if isinstance(node, ast.Attribute)]
    require_none([f"{where}: {name}" for where, name in asked if re.fullmatch(r"SQLITE_[A-Z]+_[A-Z_]+", name)])


# Code


def test_functions_fit_a_screen() -> None:
    found = [
        f"{place(path, node)} {node.name}: {lines} lines"
        for path in python_files(*HOUSE, "tests")
        for node in nodes(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    ]
    require_none(found)


def test_only_tools_print() -> None:
    found = [
        place(path, node) for path in python_files("eventstore", "projections", "adapters") for node, name in calls(path) if name == "print"
    ]
    require_none(found)


def test_nothing_stored_is_ever_executed() -> None:
    """Bytes of a store are data, whoever wrote them."""
    executing = {"eval", "exec", "compile", "yaml.load", "yaml.unsafe_load", "os.system"}
    loading = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "jsonpickle"}
    found = [place(path, node) for path in python_files(*HOUSE) for node, name in calls(path) if name in executing]
    found += [place(path, node) for path in python_files(*HOUSE) for node, name in imported_names(path) if name.split(".")[0] in loading]
    require_none(found)


def test_only_the_server_listens_and_nothing_connects() -> None:
    """But to its own socket, to learn whether somebody lives there: RELIABILITY.md says what is promised where something listens."""
    network = {"asyncore", "ftplib", "http", "imaplib", "poplib", "smtplib", "socket", "socketserver", "ssl", "urllib", "xmlrpc"}
    found = [f"{place(path, node)} {name}" for path in python_files(*HOUSE) for node, name in imported_names(path)]
    opened = [f"{place(path, node)} {name}" for path in python_files(*HOUSE) for node, name in calls(path)]
    server = "tools/listening.py:"
    require_none([each for each in found if each.split()[-1].split(".")[0] in network and not each.startswith(server)])
    require_none([each for each in opened if each.split()[-1] in {"asyncio.open_connection", "asyncio.start_server"}])
    connecting = {each.split()[-1] for each in opened if each.split()[-1].endswith((".connect", ".connect_ex"))}
    assert connecting == {"sqlite3.connect", "asking.connect_ex"}


def test_no_error_is_swallowed() -> None:
    """Catching everything is for those who hand it on or record it."""
    everything = {"Exception", "BaseException"}
    found = []
    for path in python_files(*HOUSE, "tests"):
        for node in nodes(path):
            if isinstance(node, ast.ExceptHandler):
                caught = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} if node.type else everything
                silent = all(isinstance(step, ast.Pass | ast.Continue) or _is_ellipsis(step) for step in node.body)
                if node.type is None or (caught & everything and silent):
                    found.append(place(path, node))
        for call, name in calls(path):
            if name.endswith("suppress") and any(isinstance(what, ast.Name) and what.id in everything for what in call.args):
                found.append(place(path, call))
    require_none(found)


def _is_ellipsis(step: ast.stmt) -> bool:
    return isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant) and step.value.value is ...


# Words


def test_every_module_says_what_it_is_for() -> None:
    require_none([place(path, tree(path)) for path in python_files(*HOUSE, "tests") if not (ast.get_docstring(tree(path)) or "").strip()])


@pytest.mark.parametrize("pattern", [LEFT_OPEN, PRIVATE_PATH], ids=["left open", "a private path"])
def test_nothing_is_left_lying_about(pattern: re.Pattern[str]) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    require_none(found)


def test_public_names_are_sorted_and_exist() -> None:
    """Constants, classes, functions, each by the alphabet: the order ruff holds elsewhere."""
    names = eventstore.__all__
    assert list(names) == sorted(set(names), key=lambda name: (not name.isupper(), name[0].islower(), name))
    require_none([name for name in names if not hasattr(eventstore, name)])


def test_public_names_are_documented() -> None:
    """A class or function by its docstring; a plain value by the string under its assignment; a method may inherit."""
    silent = []
    for name in eventstore.__all__:
        value: Any = getattr(eventstore, name)
        if inspect.ismodule(value):
            continue  # held by test_every_module_says_what_it_is_for
        if not inspect.isclass(value) and not inspect.isroutine(value):
            if name not in _documented_values() and not (isinstance(value, enum.Enum) and type(value).__doc__):
                silent.append(name)
        elif not (vars(value) if inspect.isclass(value) else {"__doc__": value.__doc__}).get("__doc__"):
            silent.append(name)
        if inspect.isclass(value):
            silent += [f"{name}.{method}" for method in _public_methods(value) if not inspect.getdoc(getattr(value, method))]
    require_none(silent)


def _public_methods(kind: type) -> Iterator[str]:
    for name, member in vars(kind).items():
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod)):
            yield name


@cache
def _documented_values() -> frozenset[str]:
    """Module-level names with a string of their own right below."""
    found = set()
    for path in modules().values():
        body = tree(path).body
        for step, below in itertools.pairwise(body):
            if isinstance(step, ast.Assign | ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                targets = step.targets if isinstance(step, ast.Assign) else [step.target]
                found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return frozenset(found)


def test_what_reliability_names_as_a_test_is_one() -> None:
    """A promise that names its test is worth something only while there is that test."""
    text = (ROOT / "RELIABILITY.md").read_text(encoding="utf-8")
    files = python_files("tests")
    defined = {node.name for path in files for node in nodes(path) if isinstance(node, ast.FunctionDef)}
    named = set(re.findall(r"`(test_\w+)`", text))
    assert len(named) > 20
    known = {str(path.relative_to(ROOT)) for path in files} | {path.name for path in files if path.parent.name == "faults"}
    require_none(
        sorted(named - defined) + sorted(set(re.findall(r"`(?:tests/\S+/)?test_\w+\.py`", text)) - {f"`{name}`" for name in known})
    )


def test_the_changelog_knows_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


def test_what_the_default_run_leaves_out_is_run_elsewhere() -> None:
    """A marker keeps a test out of `pytest` for its length, and not out of sight: `.ci/run` names it, or its own line says who runs it."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    (chosen,) = (option for option in options["addopts"] if option.startswith("-m="))
    said = dict(line.split(": ", 1) for line in options["markers"])
    asked = " ".join(re.findall(r"/pytest.* -m (\"[^\"]+\"|\w+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8")))
    asked = re.sub(r"\bnot \w+", "", asked)
    left_out = re.findall(r"\bnot (\w+)", chosen)
    assert {"slow", "faults", "long"} <= set(left_out)
    require_none([name for name in left_out if name not in re.findall(r"\w+", asked) and "by hand" not in said[name]])
