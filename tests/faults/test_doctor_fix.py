"""`doctor --fix` puts right what cannot cost an event or a proof, names it, and touches nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

import eventstore
from eventstore.tools import fixes
from eventstore.tools.cli import cli
from eventstore.tools.doctor import doctor
from eventstore.tools.fixes import Fix
from tests.faults import holders, jobs
from tests.faults.ledger import DOMAIN, Ledger
from tests.faults.stores import DB, HEAD, LOG, MANIFEST, Damaged, contents, events_of, leave
from tests.faults.workers import Server

POINTERS = f"{LOG}/pointers"
OLD = 3_600


@pytest.fixture(scope="module")
def template(clean_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    """A closed store with pointer files."""
    return leave(clean_server, tmp_path_factory.mktemp("fix") / "store", settled=300, loose=0, pointers=True)


@pytest.fixture
def closed(template: Damaged, tmp_path: Path) -> Damaged:
    """A copy of it."""
    return template.copy(tmp_path / "store")


@pytest.fixture(scope="module")
def killed_template(clean_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    """A store whose writer was killed: pointer files, and a WAL."""
    return leave(clean_server, tmp_path_factory.mktemp("fix") / "killed", settled=20, loose=6, pointers=True)


@pytest.fixture
def killed(killed_template: Damaged, tmp_path: Path) -> Damaged:
    """A copy of it."""
    return killed_template.copy(tmp_path / "killed")


def fixed(folder: Path) -> list[Fix]:
    """What `--fix` says it did."""
    done = doctor(str(folder), fixing=True).fixes
    assert done is not None
    return done


def old(path: Path) -> Path:
    """Let a path have been written an hour ago, with everything in it."""
    for each in [*path.rglob("*"), path]:
        os.utime(each, (time.time() - OLD, time.time() - OLD))
    return path


def hashes(folder: Path) -> dict[str, str]:
    """What the files say that nothing but a write may change."""
    return {str(name): hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (DB, HEAD, MANIFEST)}


# Modes


def test_modes_that_let_others_look_in_are_closed_and_nothing_else_changes(closed: Damaged) -> None:
    wrong = {".": 0o755, "store.json": 0o644, str(HEAD): 0o666, str(DB): 0o755, POINTERS: 0o777}
    for name, mode in wrong.items():
        (closed.folder / name).chmod(mode)
    before = contents(closed.folder)
    done = {each.path: each for each in fixed(closed.folder)}
    assert {name: (each.before, each.after, each.fixed) for name, each in done.items()} == {
        name: (f"{mode:04o}", "0700" if name in (".", POINTERS) else "0600", True) for name, mode in wrong.items()
    }
    assert {name: stat.S_IMODE((closed.folder / name).stat().st_mode) for name in wrong} == {
        name: 0o700 if name in (".", POINTERS) else 0o600 for name in wrong
    }
    assert contents(closed.folder) == before
    assert fixed(closed.folder) == []
    assert events_of(closed.folder) == closed.events


def test_a_living_writers_temporary_file_is_closed_too_and_keeps_that_mode_when_it_is_renamed(closed: Damaged) -> None:
    temporary = closed.folder / f".tmp-{os.getpid()}-0a1b2c3d-store.json"
    temporary.write_bytes(closed.manifest.read_bytes())
    temporary.chmod(0o644)
    assert [(each.path, each.after, each.fixed) for each in fixed(closed.folder)] == [(temporary.name, "0600", True)]
    temporary.rename(closed.manifest)
    assert stat.S_IMODE(closed.manifest.stat().st_mode) == 0o600
    assert fixed(closed.folder) == []


def test_a_file_that_is_renamed_before_it_can_be_closed_is_closed_under_its_new_name(
    closed: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, chmod = closed.folder / f".tmp-{os.getpid()}-0a1b2c3d-store.json", Path.chmod
    temporary.write_bytes(closed.manifest.read_bytes())
    temporary.chmod(0o644)

    def late(path: Path, mode: int) -> None:
        if path == temporary:
            temporary.rename(closed.manifest)
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", late)
    assert [(each.path, each.after, each.fixed) for each in fixed(closed.folder)] == [("store.json", "0600", True)]


def test_what_the_owner_may_not_do_stays_so(closed: Damaged) -> None:
    """A store closed to its own writers was closed on purpose."""
    closed.manifest.chmod(0o444)
    closed.db.chmod(0o400)
    assert [(each.path, each.after) for each in fixed(closed.folder)] == [("store.json", "0400")]
    assert stat.S_IMODE(closed.db.stat().st_mode) == 0o400


def test_modes_of_evidence_of_links_and_of_other_names_stay(closed: Damaged, tmp_path: Path) -> None:
    evidence = closed.folder / "quarantine" / "orders-5-0123456789ab" / "head"
    evidence.parent.mkdir(parents=True, mode=0o700)
    evidence.write_bytes(b"as it was found")
    (closed.folder / "quarantine").chmod(0o700)
    outside = tmp_path / "outside"
    outside.write_text("x")
    two_names = closed.folder / "two names"
    os.link(outside, two_names)
    (closed.folder / "a link").symlink_to(outside)
    for path in (evidence, outside):
        path.chmod(0o644)
    done = fixed(closed.folder)
    assert {(each.path, each.fixed) for each in done} == {(str(evidence.relative_to(closed.folder)), False), ("two names", False)}
    assert [stat.S_IMODE(path.stat().st_mode) for path in (evidence, outside)] == [0o644, 0o644]
    assert doctor(str(closed.folder), fixing=True).exit_code == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_what_another_user_owns_is_left(server: Server, template: Damaged) -> None:
    with tempfile.TemporaryDirectory(prefix="eventstore-") as public:
        Path(public).chmod(0o755)
        store = template.copy(Path(public, "store"))
        old_one = store.folder / ".tmp-4194304-0a1b2c3d-store.json"
        old_one.write_bytes(b"{")
        for path in [store.folder, *store.folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        old(old_one)
        before = contents(store.folder)
        (said,) = server.run(holders.doctor_as_nobody, folder=str(store.folder))
        assert contents(store.folder) == before
        found = msgspec.convert(said["fixes"], list[Fix])
        assert {each.path for each in found} >= {".", "store.json", str(HEAD), str(DB), old_one.name}
        assert not any(each.fixed for each in found)
        assert all("user 0 owns it" in str(each.message) for each in found), found


# Leftovers


@pytest.mark.parametrize(
    ("what", "pattern"), [("manifest", ".tmp-*-store.json"), ("log", "logs/quotes/.tmp-*.db.new*"), ("adopting", ".tmp-adopt-*")]
)
def test_what_a_killed_process_left_half_made_goes_once_it_is_old(server: Server, closed: Damaged, what: str, pattern: str) -> None:
    assert server.start(holders.die_half_way, folder=str(closed.folder), what=what, pattern=pattern).wait() < 0
    (left,) = closed.folder.glob(pattern)
    assert [each for each in fixed(closed.folder) if each.name == "leftover"] == [], "it may be somebody's work"
    assert left.exists()
    old(left)
    before = hashes(closed.folder)
    (done,) = [each for each in fixed(closed.folder) if each.name == "leftover"]
    assert (done.path, done.after, done.fixed) == (str(left.relative_to(closed.folder)), "removed", True)
    assert "60 minutes old" in done.before
    assert not left.exists()
    assert hashes(closed.folder) == before
    assert events_of(closed.folder) == closed.events


def test_what_may_be_somebodys_work_or_evidence_stays(server: Server, closed: Damaged) -> None:
    holder = server.start(holders.hold_lock, head=str(closed.head))
    holder.told()
    log, evidence = closed.db.parent, closed.folder / "quarantine" / ".tmp-orders-5-0123456789ab"
    evidence.mkdir(parents=True)
    (evidence / "head").write_bytes(b"half a copy")
    old(evidence)
    stay = {
        f".tmp-{os.getpid()}-0a1b2c3d-store.json": f"process {os.getpid()} runs",
        ".tmp-notes": "no name that this library gives",
        f"{LOG}/.tmp-{0:020d}.db.new": "locked by",
    }
    for name in stay:
        (closed.folder / name).write_bytes(b"x")
        old(closed.folder / name)
    done = list(fixes._leftovers(closed.folder))
    assert {each.path: each.fixed for each in done} == dict.fromkeys(stay, False)
    for each in done:
        assert stay[each.path] in str(each.message)
    assert all((closed.folder / name).exists() for name in stay)
    assert (evidence / "head").exists()
    holder.kill()
    assert [each.fixed for each in fixes._leftovers(closed.folder) if each.path.startswith(str(LOG))] == [True]
    assert log.exists()


# Pointer files


def flip(path: Path) -> None:
    """It is noticed by the file's own checksum."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def lie(path: Path) -> None:
    """Whole in itself, and wrong: one key less."""
    content = path.read_bytes()
    magic = content[: content.index(b"\n") + 1]
    body = msgspec.msgpack.decode(content[len(magic) + 32 :])
    body[6], body[7], body[8], body[9] = body[6][1:], body[7][8:], body[8][1:], body[9][1:]
    packed = msgspec.msgpack.encode(body)
    path.write_bytes(magic + hashlib.sha256(packed).digest() + packed)


@pytest.mark.parametrize(("damage", "pattern"), [(flip, "*.keys"), (flip, "*.ids"), (lie, "*.keys")])
def test_wrong_pointer_files_are_rebuilt(closed: Damaged, damage: Callable[[Path], None], pattern: str) -> None:
    (wrong,) = closed.folder.glob(f"{POINTERS}/{pattern}")
    right = wrong.read_bytes()
    damage(wrong)
    before = hashes(closed.folder)
    (done,) = fixed(closed.folder)
    assert (done.name, done.path, done.after, done.fixed) == ("pointers", POINTERS, "rebuilt: 2 files", True)
    assert wrong.read_bytes() == right
    assert hashes(closed.folder) == before
    with eventstore.open(closed.folder) as store:
        assert store.verify().ok
        assert list(store.domain(DOMAIN).events()) == closed.events


# A long WAL


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small WAL is a long one."""
    monkeypatch.setattr(fixes, "WAL_LIMIT", 10_000)


@pytest.mark.usefixtures("low_limit")
def test_a_long_wal_is_checkpointed(killed: Damaged) -> None:
    size = killed.wal.stat().st_size
    (done,) = fixed(killed.folder)
    assert (done.name, done.path, done.fixed) == ("wal", str(killed.wal.relative_to(killed.folder)), True)
    assert size > 10_000
    assert not killed.wal.exists() or not killed.wal.stat().st_size
    assert events_of(killed.folder) == killed.events


@pytest.mark.usefixtures("low_limit")
def test_a_wal_that_somebody_reads_is_left_and_named(server: Server, killed: Damaged) -> None:
    reader = server.start(holders.hold_transaction, db=str(killed.db), begin="BEGIN", query="SELECT max(position) FROM event")
    reader.told()
    (done,) = fixed(killed.folder)
    assert (done.name, done.fixed) == ("wal", False)
    assert "another program reads it" in str(done.message)
    reader.kill()
    assert [each.fixed for each in fixed(killed.folder)] == [True]
    assert events_of(killed.folder) == killed.events


# What must not be touched


def cut_the_wal(store: Damaged) -> None:
    with store.wal.open("r+b") as file:
        file.truncate(store.wal.stat().st_size - 100)


def flip_the_witness(store: Damaged) -> None:
    store.flip(store.head, 3)


def alter_an_event(store: Damaged) -> None:
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('DROP TRIGGER event_update')"
    code += """; c.execute("UPDATE event SET data = '{}' WHERE position = 3"); c.close()"""
    subprocess.run([sys.executable, "-c", code, str(store.db)], check=True, timeout=60)


@pytest.mark.corrupts
@pytest.mark.usefixtures("low_limit")
@pytest.mark.parametrize("damage", [cut_the_wal, flip_the_witness, alter_an_event])
def test_a_damaged_log_is_left_as_it_is_to_the_last_byte(killed: Damaged, damage: Callable[[Damaged], None]) -> None:
    damage(killed)
    (wrong,) = killed.folder.glob(f"{POINTERS}/*.keys")
    flip(wrong)
    before, size = contents(killed.folder), killed.wal.stat().st_size if killed.wal.exists() else 0
    report = doctor(str(killed.folder), fixing=True)
    assert report.fixes is not None
    assert {each.name for each in report.fixes} == {"pointers"} | ({"wal"} if size else set())
    assert not any(each.fixed for each in report.fixes)
    assert all("damaged" in str(each.message) for each in report.fixes)
    assert report.exit_code == 1
    assert contents(killed.folder) == before


def test_a_sound_store_is_not_touched(closed: Damaged) -> None:
    before = contents(closed.folder)
    report = doctor(str(closed.folder), fixing=True)
    assert report.fixes == []
    assert contents(closed.folder) == before


def test_a_store_that_others_write_loses_nothing(server: Server, tmp_path: Path, seed: str) -> None:
    folder, ledger = tmp_path / "store", Ledger()
    writer = server.start(jobs.write_calls, folder=str(folder), name=seed)
    writer.told()
    for _ in range(5):
        for _ in range(20):
            ledger.take(writer.told())
        for name in (DB, HEAD):  # the writer replaces store.json now and then, these never
            (folder / name).chmod(0o644)
        assert [each.path for each in fixed(folder) if each.name == "permissions"] == [str(DB), str(HEAD)]
    writer.kill()
    for said in writer.rest():
        ledger.take(said)
    ledger.require_kept(folder)


def test_a_domain_that_is_locked_is_left(server: Server, closed: Damaged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixes, "_PATIENCE_MS", 100)
    holder = server.start(holders.hold_lock, head=str(closed.head))
    holder.told()
    (done,) = list(fixes.fix(closed.folder))
    assert (done.fixed, done.path) == (False, DOMAIN)
    assert "locked by" in str(done.message)


# The command


@pytest.fixture
def command() -> Callable[..., tuple[int, str, str]]:
    """`eventstore doctor`: exit code, output, complaints."""

    def run(*words: object) -> tuple[int, str, str]:
        result = CliRunner().invoke(cli, ["doctor", *map(str, words)])
        return result.exit_code, result.stdout, result.stderr

    return run


def test_the_command_names_what_it_fixed(closed: Damaged, command: Callable[..., tuple[int, str, str]]) -> None:
    closed.manifest.chmod(0o644)
    code, out, _ = command(closed.folder, "--fix", "--json")
    (done,) = json.loads(out)["fixes"]
    assert done == {"name": "permissions", "path": "store.json", "before": "0644", "after": "0600", "fixed": True, "message": None}
    assert code == doctor(str(closed.folder)).exit_code
    closed.manifest.chmod(0o644)
    assert "fixed permissions  store.json: 0644; now 0600\n1 thing put right\n" in command(closed.folder, "--fix")[1]
    closed.manifest.chmod(0o644)
    assert json.loads(command(closed.folder, "--json")[1])["fixes"] is None
    assert stat.S_IMODE(closed.manifest.stat().st_mode) == 0o644, "without --fix nothing is changed"


def test_without_a_store_there_is_nothing_to_fix(tmp_path: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    assert command("--fix")[0] == 3
    assert command(tmp_path / "nowhere", "--fix")[0] == 2
    assert list(tmp_path.iterdir()) == []
