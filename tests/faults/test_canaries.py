"""Canaries: the library with one promise broken, and the test that must notice. The tests are tested.

Each mutant (mutants.py) is a copy of the source with a few lines altered; a test is run against it in a process of its own and
must fail, in its own words. The same test must pass against a copy that was not altered.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from tests.faults.mutants import MUTANTS, Mutant
from tests.faults.workers import ROOT

SOURCE = ["eventstore", "projections", "adapters", "tools"]
PATIENCE = 100
"""Seconds for one test; one that takes longer has not noticed anything."""
SEED = "canary"
"""Always the same, whatever FAULTS_SEED says: whether a canary is noticed must not be a matter of chance."""
FAILED = 1
"""pytest's exit code where tests ran and failed; what could not be collected or was interrupted gives another."""


class Run(msgspec.Struct):
    """What one test said of one copy."""

    code: int
    passed: list[str]
    failed: dict[str, str]
    """Each failed test with its traceback."""
    output: str


def copied(folder: Path) -> Path:
    """A copy of the source, of its tests, and of what pytest reads. The links inside it lead to the copy."""
    folder.mkdir()
    for name in [*SOURCE, "tests"]:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def mutate(mutant: Mutant, copy: Path) -> None:
    """Alter the copy. Raises AssertionError if the mutant no longer fits the source."""
    path = copy / mutant.file
    content = path.read_text()
    for text, other in mutant.changes:
        found = content.count(text)
        assert found == 1, f"{mutant.file} has {found} times what the canary replaces; mend it in tests/faults/mutants.py:\n{text}"
        content = content.replace(text, other)
    path.write_text(content)


def run(copy: Path, test: str) -> Run:
    """Run one test, with all its parameters unless it names them, against the source that lies beside it."""
    report = copy / "report.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-x",
        "-m",
        "not long",
        "-p",
        "no:cacheprovider",
        "--timeout",
        str(PATIENCE),
    ]
    around = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "EVENTSTORE_", "FAULTS_"))}
    around |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "yes", "FAULTS_SEED": SEED}
    done = subprocess.run(
        [*command, f"--basetemp={copy / 'scratch'}", f"--junitxml={report}", test],
        cwd=copy, env=around, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=PATIENCE + 30,
    )  # fmt: skip
    found = Run(done.returncode, [], {}, done.stdout)
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():
        name, failure = case.attrib["name"], case.find("failure")
        if failure is not None:
            found.failed[name] = f"{failure.attrib['message']}\n{failure.text}"
        elif len(case) == 0:
            found.passed.append(name)
    return found


@pytest.fixture(scope="session")
def require_healthy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """Raises AssertionError unless a test passes against a copy that was not altered; asked once for each test."""
    copy = copied(tmp_path_factory.mktemp("healthy") / "copy")
    healthy: set[str] = set()

    def require(test: str) -> None:
        if test not in healthy:
            found = run(copy, test)
            assert (found.code, found.failed) == (0, {}), found.output
            assert found.passed, found.output
            healthy.add(test)

    return require


@pytest.mark.faults
@pytest.mark.timeout(3 * PATIENCE)
@pytest.mark.parametrize("mutant", MUTANTS, ids=attrgetter("name"))
def test_a_mutant_is_caught(mutant: Mutant, tmp_path: Path, require_healthy: Callable[[str], None]) -> None:
    copy = copied(tmp_path / "copy")
    mutate(mutant, copy)
    found = run(copy, mutant.test)
    assert found.code == FAILED, f"{mutant.test} does not notice that {mutant.name}:\n{found.output}"
    wanted = mutant.test.rpartition("::")[2]
    said = [text for name, text in found.failed.items() if wanted in (name, name.partition("[")[0])]
    assert said, f"{mutant.test} did not fail by itself:\n{found.output}"
    assert re.search(mutant.says, said[0]), f"{mutant.test} failed, but not as it does when {mutant.name}:\n{said[0]}"
    require_healthy(mutant.test)
