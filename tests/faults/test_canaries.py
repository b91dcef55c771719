"""Canaries: the library with one promise broken, and the test that must notice. The tests are tested.

Each mutant (mutants.py) is a copy of the source with a few lines altered; a test is run against it in a process of its own and
must fail, in its own words. The same test must pass against a copy that was not altered: asked once for each, of a file's in one
process, however many mutants it has to notice.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from tests.faults.mutants import MUTANTS, Mutant
from tests.faults.workers import ROOT

SOURCE = ["eventstore", "projections", "adapters", "tools"]
PATIENCE = 400
"""Seconds for one test, on a machine that may be busy; one that takes longer has not noticed anything."""
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


NAMED: dict[str, list[str]] = defaultdict(list)
"""The tests that must notice a mutant, each once, by their file."""
for _test in sorted({mutant.test for mutant in MUTANTS}):
    NAMED[_test.partition("::")[0]].append(_test)


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source, of its tests, and of what pytest reads. The links inside it lead to the copy.

    It is compiled: a process that reads a copy of it has nothing to compile but what was altered, which it knows by the content.
    """
    folder = tmp_path_factory.mktemp("healthy")
    for name in [*SOURCE, "tests"]:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    compiled = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", *SOURCE, "tests"]
    subprocess.run(compiled, cwd=folder, check=True, timeout=PATIENCE)
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


class Nest:
    """Where the processes come from that run the tests (nest.py)."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", str(Path(__file__).with_name("nest.py"))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def run(self, seconds: float, **order: Any) -> int:
        """The exit code of a process that carries out an order; it is killed after so many seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        pid = self._answer()
        try:
            assert self._process.stdout is not None
            if not select.select([self._process.stdout], [], [], seconds)[0]:
                os.kill(pid, signal.SIGKILL)
        except BaseException:  # the test's own time is over
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            code = self._answer()
        return code

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """No more orders."""
        self._process.communicate()


@pytest.fixture(scope="session")
def nest() -> Iterator[Nest]:
    """See Nest."""
    nest = Nest()
    yield nest
    nest.close()


def run(nest: Nest, copy: Path, *tests: str, **environment: str) -> Run:
    """Run tests, each with all its parameters unless it names them, against the source that lies beside them."""
    report, output = copy / "report.xml", copy / "output"
    arguments = ["-q", "-n", "0", "-x", "-m", "not long", "-p", "no:cacheprovider", f"--timeout={PATIENCE}"]
    arguments += ["-o", "junit_family=xunit1"]  # the other one knows no properties, and some tests record how much they tried
    arguments += [f"--basetemp={copy / 'scratch'}", f"--junitxml={report}", *tests]
    around = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "EVENTSTORE_", "FAULTS_"))}
    around |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "yes", "FAULTS_SEED": SEED, "HYPOTHESIS_PROFILE": "ci"} | environment
    code = nest.run(len(tests) * PATIENCE + 30, folder=str(copy), environment=around, output=str(output), arguments=arguments)
    found = Run(code, [], {}, output.read_text())
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():
        name, failure = case.attrib["name"], case.find("failure")
        if failure is not None:
            found.failed[name] = f"{failure.attrib['message']}\n{failure.text}"
        elif all(child.tag == "properties" for child in case):
            found.passed.append(name)
    return found


def is_meant(name: str, test: str) -> bool:
    """Whether a test that ran is the named one, or that with one of its parameters."""
    return test.rpartition("::")[2] in (name, name.partition("[")[0])


@pytest.mark.faults
@pytest.mark.timeout(3 * PATIENCE)
@pytest.mark.parametrize("mutant", MUTANTS, ids=attrgetter("name"))
def test_a_mutant_is_caught(mutant: Mutant, tmp_path: Path, healthy: Path, nest: Nest) -> None:
    copy = shutil.copytree(healthy, tmp_path / "copy", symlinks=True)
    mutate(mutant, copy)
    found = run(nest, copy, mutant.test)
    assert found.code == FAILED, f"{mutant.test} does not notice that {mutant.name}:\n{found.output}"
    said = [text for name, text in found.failed.items() if is_meant(name, mutant.test)]
    assert said, f"{mutant.test} did not fail by itself:\n{found.output}"
    assert re.search(mutant.says, said[0]), f"{mutant.test} failed, but not as it does when {mutant.name}:\n{said[0]}"


@pytest.mark.faults
@pytest.mark.timeout(0)  # each test has its own, and the process one for all
@pytest.mark.parametrize("tests", NAMED.values(), ids=NAMED.keys())
def test_no_canary_sings_where_nothing_was_altered(tests: Sequence[str], tmp_path: Path, healthy: Path, nest: Nest) -> None:
    """What fails on a mutant must pass on a whole copy, else it is the copying that it notices.

    A fifth of the crash states tells: all of them are judged by the same tests elsewhere, against this very source.
    """
    found = run(nest, shutil.copytree(healthy, tmp_path / "copy", symlinks=True), *tests, FAULTS_EVERY="5")
    assert (found.code, found.failed) == (0, {}), found.output
    assert [test for test in tests if not any(is_meant(name, test) for name in found.passed)] == [], found.output


def test_the_stated_number_of_canaries_is_the_counted_one() -> None:
    stated = (ROOT / "RELIABILITY.md").read_text(encoding="utf-8")
    assert f"breaks the library itself in {len(MUTANTS)} places" in stated
    assert f"a run of one test each, {len(MUTANTS)} times" in stated
