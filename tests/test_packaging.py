"""Four folders become one package: in the wheel, in the sdist and in an editable install, each file once.

Everything is built with setuptools itself, in a copy of the sources, so that nothing needs the network and no earlier
build lends a file.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = ("eventstore", "projections", "adapters", "tools")
LINKED = HOUSE[1:]
ALONGSIDE = ("pyproject.toml", "MANIFEST.in", "LICENSE", *(page.name for page in ROOT.glob("*.md")))
DEMO_DATA = "eventstore/tools/demo_data/session.jsonl.gz"
CLIENT = "eventstore/tools/persist.mjs"

BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""


class Built(NamedTuple):
    """The sources that were built, and what came of them."""

    source: Path
    wheel: Path
    sdist: Path
    editable: Path


def build(source: Path, what: str, into: Path) -> Path:
    """Call one of the build backend's hooks, as an installer does."""
    into.mkdir()
    command = [sys.executable, "-c", BUILD, what, str(into)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return into / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    source.mkdir()
    for name in HOUSE:
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ALONGSIDE:
        shutil.copy(ROOT / name, source / name)
    return Built(
        source,
        build(source, "build_wheel", folder / "wheel"),
        build(source, "build_sdist", folder / "sdist"),
        build(source, "build_editable", folder / "editable"),
    )


def sources() -> list[PurePosixPath]:
    """Every file of the house, by its place in the repository."""
    return [
        PurePosixPath(path.relative_to(ROOT))
        for folder in HOUSE
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]


def contents(wheel: Path) -> dict[str, str]:
    """A wheel's own files and their digests; its metadata is the build backend's affair."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist() if ".dist-info/" not in name}


def test_a_wheel_holds_every_file_once(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = archive.namelist()
    expected = [str(path) if path.parts[0] == "eventstore" else f"eventstore/{path}" for path in sources()]
    assert sorted(name for name in names if ".dist-info/" not in name) == sorted(expected)
    assert {"eventstore/py.typed", DEMO_DATA, CLIENT} <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_a_wheel_has_one_root(built: Built) -> None:
    """`tools` and `adapters` are names of other distributions: installing either must not touch ours, nor ours them."""
    roots = {name.split("/")[0] for name in contents(built.wheel)}
    assert roots == {"eventstore"}


def test_an_sdist_holds_every_file_once_and_nothing_through_the_links(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        members = [member for member in archive.getmembers() if not member.isdir()]
    names = [name for member in members if ".egg-info/" not in (name := member.name.split("/", 1)[1])]
    assert all(member.isfile() for member in members)
    assert sorted(names) == sorted([*map(str, sources()), *ALONGSIDE, "PKG-INFO", "setup.cfg"])
    assert CLIENT.removeprefix("eventstore/") in names


def test_an_sdist_builds_the_same_wheel(built: Built, tmp_path: Path) -> None:
    """Without the links, which no sdist carries."""
    # Not with tarfile: it warns without a filter from 3.12 on, and knows none before 3.11.4.
    subprocess.run(["tar", "-xzf", str(built.sdist)], cwd=tmp_path, timeout=60, check=True)
    (unpacked,) = tmp_path.iterdir()
    assert not any((unpacked / "eventstore" / name).exists() for name in LINKED)
    assert contents(build(unpacked, "build_wheel", tmp_path / "wheel")) == contents(built.wheel)


@pytest.mark.parametrize("how", ["wheel", "editable"])
def test_an_install_has_one_name_for_everything(how: str, built: Built, tmp_path: Path) -> None:
    wheel = built.wheel if how == "wheel" else built.editable
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    home = site / "eventstore" if how == "wheel" else built.source
    probe = f"""
import importlib, importlib.util, site, sys
site.addsitedir({str(site)!r})
sys.path.append({str(_dependencies(tmp_path / "dependencies"))!r})
for name in {LINKED}:
    print(importlib.import_module("eventstore." + name).__file__)
    assert importlib.util.find_spec(name) is None, name
"""
    # -I and -S: neither this checkout nor what is installed in this environment may answer for the build.
    done = subprocess.run([sys.executable, "-I", "-S", "-c", probe], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for name, line in zip(LINKED, done.stdout.splitlines(), strict=True):
        assert Path(line).resolve() == home / name / "__init__.py"


def _dependencies(folder: Path) -> Path:
    """The installed packages but ours, as a folder of links."""
    folder.mkdir()
    for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(site).iterdir():
            # find_spec must not find a stranger's package of one of our folders' names.
            if "eventstore" not in entry.name and entry.stem not in LINKED and not entry.name.endswith(".pth"):
                (folder / entry.name).symlink_to(entry)
    return folder


def test_the_command_is_installed(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        (entry,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        assert archive.read(entry).decode() == "[console_scripts]\neventstore = eventstore.tools.cli:main\n"
