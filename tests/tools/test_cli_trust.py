"""verify, accept, doctor: damage is named, judged by the right code, and never passed over in silence."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from eventstore import open as opened
from eventstore.clock import now_us
from eventstore.files import locked
from eventstore.tools import doctor as doctor_file
from eventstore.tools import machine
from eventstore.tools.doctor import doctor
from eventstore.tools.machine import Process, has_wal_reset_bug, mount_of
from tests.tools.command import done, eventstore


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A store with two domains."""
    store = tmp_path / "data"
    for number in range(3):
        done("put", store, "notes", "hello", f'{{"a":{number}}}')
    done("put", store, "other", "x", "1")
    return store


def log_of(store: Path, domain: str) -> Path:
    """The one file of a domain's log."""
    (path,) = (store / "logs" / domain).glob("*.db")
    return path


def alter(store: Path, statement: str) -> None:
    """What a tool may do to a log of domain notes."""
    connection = sqlite3.connect(log_of(store, "notes"))
    connection.execute("DROP TRIGGER event_update")
    connection.execute("DROP TRIGGER event_delete")
    connection.execute(statement)
    connection.commit()
    connection.close()


def lose_the_tail(store: Path) -> None:
    """An older copy of the database file comes back over a newer one."""
    old = store.parent / "old.db"
    shutil.copyfile(log_of(store, "notes"), old)
    done("put", store, "notes", "hello", '{"a":"lost"}')
    shutil.copyfile(old, log_of(store, "notes"))


# ---- verify


def test_a_whole_store_is_whole(data: Path) -> None:
    found = done("verify", data, "--json").json()
    assert found["ok"] is True
    assert found["findings"] == []
    assert [(line["domain"], line["events"], line["findings"]) for line in found["domains"]] == [("notes", 3, 0), ("other", 1, 0)]
    assert done("verify", data, "notes", "--json").json()["domains"] == found["domains"][:1]
    shown = done("verify", data).out.splitlines()
    assert shown[-2] == "whole: 4 events in 2 domains"
    assert shown[-1].startswith("not excluded: a tail cut off")
    assert "eventstore anchor" in shown[-1]
    assert shown[1].split() == ["notes", "3", found["domains"][0]["head"][:12], "ok"]


@pytest.mark.parametrize(
    ("statement", "position", "kind"),
    [
        ("UPDATE event SET data = '{\"a\":7}' WHERE position = 2", 2, "checksum"),
        ("UPDATE event SET recorded_us = recorded_us + 1 WHERE position = 1", 1, "checksum"),
        ("DELETE FROM event WHERE position = 2", 3, "gap"),
        ("UPDATE event SET op = 'forget' WHERE position = 3", 3, "format"),
    ],
)
def test_what_was_altered_is_named_by_domain_position_and_kind(data: Path, statement: str, position: int, kind: str) -> None:
    alter(data, statement)
    answer = eventstore("verify", data, "--json")
    assert answer.code == 1
    assert answer.err == ""
    found = answer.json()
    assert found["ok"] is False
    assert ("notes", position, kind) in [(each["domain"], each["position"], each["kind"]) for each in found["findings"]]
    assert {each["domain"] for each in found["findings"]} == {"notes"}
    shown = eventstore("verify", data)
    assert shown.code == 1
    assert f"notes@{position}  {kind}  " in shown.out
    assert shown.out.splitlines()[-2].startswith("not whole: ")
    assert eventstore("verify", data, "other").code == 0


def test_damage_is_1_for_every_command_that_meets_it(data: Path) -> None:
    alter(data, "UPDATE event SET data = '{\"a\":7}' WHERE position = 3")
    for words in (["get", data, "notes", "hello"], ["export", data], ["put", data, "notes", "a", "1"], ["state", data], ["log", data]):
        answer = eventstore(*words, "--json")
        assert answer.code == 1, words
        assert answer.error()["error"] in {"ChecksumError", "FormatError"}
        assert (answer.error()["domain"], answer.error()["position"]) == ("notes", 3)


def test_a_store_without_its_manifest_is_2(data: Path) -> None:
    (data / "store.json").unlink()
    answer = eventstore("verify", data, "--json")
    assert answer.code == 2
    assert answer.error()["error"] == "NotAStoreError"


def test_a_newer_store_is_2(data: Path) -> None:
    manifest = data / "store.json"
    manifest.write_text(manifest.read_text().replace('"format":1', '"format":9'))
    assert eventstore("get", data, "notes", "hello", "--json").error()["error"] == "NewerFormatError"
    assert eventstore("get", data, "notes", "hello").code == 2


# ---- accept


def test_a_lost_tail_is_refused_read_and_accepted(data: Path) -> None:
    lose_the_tail(data)
    refused = eventstore("get", data, "notes", "hello", "--json")
    assert refused.code == 1
    assert refused.out == ""
    assert refused.error()["error"] == "TailLostError"
    assert (refused.error()["witnessed"], refused.error()["found"]) == (4, 3)
    assert "eventstore accept" in refused.error()["message"]
    assert done("get", data, "notes", "hello", "--read-only").out == '{"a":2}\n'
    assert done("log", data, "notes", "--read-only").code == 0
    found = eventstore("verify", data, "--json")
    assert found.code == 1
    assert [(each["domain"], each["kind"]) for each in found.json()["findings"]] == [("notes", "tail")]
    accepted = done("accept", data, "notes", "--json").json()
    assert accepted["accepted"] is True
    assert accepted["position"] == 4
    assert accepted["loss"]["witnessed"]["position"] == 4
    assert done("get", data, "notes", "hello").out == '{"a":2}\n'
    assert done("verify", data, "notes", "--json").json()["domains"][0]["losses"] == 1
    assert "1 loss accepted" in done("verify", data).out
    assert done("log", data, "notes", "--json").lines()[-1]["op"] == "loss"
    assert "  []" in done("log", data, "notes").out


def test_accept_shows_what_it_did(data: Path) -> None:
    lose_the_tail(data)
    assert "recorded at position 4" in done("accept", data, "notes").out
    assert "nothing was lost" in done("accept", data, "notes").out


def test_accept_where_nothing_was_lost_does_nothing(data: Path) -> None:
    before = done("export", data).out_bytes
    answer = done("accept", data, "notes", "--json").json()
    assert answer == {"domain": "notes", "accepted": False, "position": None, "loss": None}
    assert done("export", data).out_bytes == before


def test_accept_does_not_cover_an_altered_event(data: Path) -> None:
    alter(data, "UPDATE event SET data = '{\"a\":7}' WHERE position = 2")
    assert eventstore("accept", data, "notes").code == 1
    assert eventstore("verify", data).code == 1


def test_a_log_that_is_locked_is_2_and_not_judged(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_BUSY_TIMEOUT_MS", "20")
    with locked(data / "logs" / "notes" / "head", timeout_ms=0):
        read = eventstore("get", data, "notes", "hello", "--json")
        answer = eventstore("verify", data)
    assert read.code == 2
    assert read.error() == {**read.error(), "error": "UnavailableError", "outcome": "not_written", "holder": os.getpid()}
    assert answer.code == 2
    assert "notes  unjudged" in answer.out
    assert "not judged: 1 finding" in answer.out
    assert str(os.getpid()) in answer.out


# ---- doctor


def checks(store: Path | None) -> dict[str, doctor_file.Check]:
    """What doctor says, by name; the last of a name counts."""
    return {check.name: check for check in doctor(None if store is None else str(store)).checks}


@pytest.fixture(autouse=True)
def sound_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that runs the tests may have its own troubles."""
    monkeypatch.setattr(machine, "is_installed", lambda name: False)
    monkeypatch.setattr(doctor_file, "is_installed", lambda name: False)
    monkeypatch.setattr(machine, "has_two_libraries", lambda pid: False)
    monkeypatch.setattr(doctor_file, "has_two_libraries", lambda pid: False)


def test_doctor_of_a_sound_store(data: Path) -> None:
    found = checks(data)
    assert list(found) == ["python", "sqlite", "store", "file system", "permissions", "open in", "clock", "wal", "free space"]
    assert {name: check.status for name, check in found.items() if name not in {"sqlite", "file system", "free space"}} == dict.fromkeys(
        ["python", "store", "permissions", "open in", "clock", "wal"], "ok"
    )
    assert sys.version.split()[0] in found["python"].message
    assert done("init", data, "--json").json()["store_id"] in found["store"].message
    as_json = eventstore("doctor", data, "--json")
    assert [check["name"] for check in as_json.json()["checks"]] == list(found)
    assert {line.split()[0] for line in eventstore("doctor", data).out.splitlines()} <= {"ok", "warn", "bad"}


def test_doctor_names_a_sealed_file_that_cannot_be_read_while_the_newest_answers(data: Path) -> None:
    path = log_of(data, "notes")
    done("compact", data, "notes")
    with opened(data) as store:
        store.domain("notes").write_values([("k", number) for number in range(100)])
    path.write_bytes(bytes(100) + path.read_bytes()[100:])
    found = checks(data)
    assert "domain" not in found
    assert (found["files"].status, str(path) in found["files"].message) == ("bad", True)


def test_doctor_of_the_machine_alone() -> None:
    assert list(checks(None)) == ["python", "sqlite", "clock"]
    assert eventstore("doctor").code == 0


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 44, 9), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 0), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 4), False),
    ],
)
def test_which_sqlite_has_the_wal_reset_bug(version: tuple[int, ...], affected: bool) -> None:
    assert has_wal_reset_bug(version) is affected


@pytest.mark.parametrize(
    ("affected", "signs", "status"), [(False, [], "ok"), (False, ["x"], "ok"), (True, [], "warn"), (True, ["litestream runs"], "bad")]
)
def test_an_affected_sqlite_is_red_beside_another_checkpointer(
    data: Path, monkeypatch: pytest.MonkeyPatch, affected: bool, signs: list[str], status: str
) -> None:
    monkeypatch.setattr(doctor_file, "has_wal_reset_bug", lambda version: affected)
    monkeypatch.setattr(doctor_file, "checkpointers", lambda folder: signs)
    found = checks(data)["sqlite"]
    assert found.status == status
    assert ("litestream runs" in found.message) == (status == "bad")
    assert doctor(str(data)).exit_code == (1 if status == "bad" else doctor(str(data)).exit_code)


def test_signs_of_another_checkpointer(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.checkpointers(data) == []
    log = log_of(data, "notes")
    (log.parent / f".{log.name}-litestream").mkdir()
    monkeypatch.setattr(machine, "processes", lambda: iter([Process(7, "litestream", "litestream")]))
    monkeypatch.setattr(machine, "holders", lambda folder: [Process(8, "sqlite3", "sqlite3"), Process(9, "bot.py", "python3.11")])
    monkeypatch.setattr(machine, "is_installed", lambda name: name == "pysqlite3-binary")
    monkeypatch.setattr(machine, "has_two_libraries", lambda pid: True)
    assert machine.checkpointers(data) == [
        "litestream runs (pid 7)",
        f".{log.name}-litestream lies beside a log",
        "sqlite3 (pid 8) has files of the store open",
        "pysqlite3-binary is installed",
        "two SQLite libraries are loaded in this process",
    ]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_a_program_that_has_the_log_open_is_seen(data: Path) -> None:
    path = log_of(data, "notes")
    with subprocess.Popen(["tail", "-f", str(path)], stdout=subprocess.DEVNULL) as foreign:
        try:
            # Between fork and exec it has another name.
            while not (held := [each for each in machine.holders(data.resolve()) if (each.pid, each.name) == (foreign.pid, "tail")]):
                assert foreign.poll() is None
            assert held == [Process(foreign.pid, "tail", held[0].program)]
            assert not held[0].may_be_ours
            assert f"tail (pid {foreign.pid})" in checks(data)["open in"].message
        finally:
            foreign.kill()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_the_sqlite_of_this_process_is_found() -> None:
    assert len(machine.sqlite_libraries(os.getpid())) >= 1
    assert machine.sqlite_libraries(2**22 + 1) == []


def test_two_bindings_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_file, "is_installed", lambda name: name == "pysqlite3-binary")
    assert checks(None)["bindings"].status == "bad"
    monkeypatch.setattr(doctor_file, "is_installed", lambda name: False)
    monkeypatch.setattr(doctor_file, "has_two_libraries", lambda pid: True)
    assert checks(None)["bindings"].status == "warn"


@pytest.mark.parametrize(
    ("files", "two"),
    [
        (["/lib/python3.11/lib-dynload/_sqlite3.cpython-311.so", "/lib/python3.11/site-packages/pysqlite3/_sqlite3.so"], False),
        (["/lib/libsqlite3.so.0", "/lib/python3.11/site-packages/pysqlite3/_sqlite3.so"], False),
        (["/lib/libsqlite3.so.0", "/lib/python3.11/site-packages/apsw/__init__.so"], True),
    ],
)
def test_what_the_extra_loads_beside_the_standard_library_is_nothing_to_warn_of(
    files: list[str], two: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # of what sound_machine() says of the machine, too
    monkeypatch.setattr(machine, "sqlite_libraries", lambda pid: files)
    assert machine.has_two_libraries(os.getpid()) is two
    assert [check.message.partition(" (")[0] for check in doctor(None).checks if check.status == "warn" and check.name == "bindings"] == (
        ["two SQLite libraries are loaded"] if two else []
    )


MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
tmpfs /tmp tmpfs rw 0 0
server:/x /mnt/nfs nfs4 rw 0 0
//server/x /mnt/smb cifs rw 0 0
host /mnt/nine 9p rw 0 0
sshfs /mnt/fuse fuse.sshfs rw 0 0
overlay /mnt/overlay overlay rw 0 0
/dev/sdb1 /mnt/with\\040blank xfs ro,relatime 0 0
/dev/sdc1 /mnt/twice ext4 rw 0 0
tmpfs /mnt/twice tmpfs rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("path", "status", "word"),
    [
        ("/data", "ok", "ext4"),
        ("/tmp/x", "warn", "not durable"),
        ("/tmpfile", "ok", "ext4"),
        ("/mnt/nfs/a/b", "warn", "local disk"),
        ("/mnt/smb", "warn", "local disk"),
        ("/mnt/nine", "warn", "9p"),
        ("/mnt/fuse/x", "warn", "fuse.sshfs"),
        ("/mnt/overlay/x", "ok", "overlay"),
        ("/mnt/with blank/x", "warn", "read-only"),
        ("/mnt/twice/x", "warn", "not durable"),
    ],
)
def test_the_file_system_is_judged_by_its_mount(path: str, status: str, word: str) -> None:
    found = list(doctor_file._file_system(Path(path), MOUNTS))
    assert found[-1].status == status
    assert word in found[-1].message


@pytest.mark.parametrize(
    ("f_type", "status", "word"),
    [
        (0xEF53, "ok", "ext4"),
        (0x58465342, "ok", "xfs"),
        (0x9123683E, "ok", "btrfs"),
        (0x794C7630, "ok", "overlay"),
        (0x01021994, "warn", "not durable"),
        (0x858458F6, "warn", "not durable"),
        (0x6969, "warn", "local disk"),
        (0x517B, "warn", "local disk"),
        (0xFF534D42, "warn", "local disk"),
        (0xFF534D42 - 2**32, "warn", "local disk"),  # a machine on which the number is signed
        (0xFE534D42, "warn", "local disk"),
        (0x65735546, "warn", "local disk"),
        (0x01021997, "warn", "local disk"),
        (0x12345678, "ok", "0x12345678"),
    ],
)
def test_the_file_system_is_judged_by_its_number_where_there_is_no_table(f_type: int, status: str, word: str) -> None:
    check = doctor_file._durable(machine.Mount("/x", machine.kind_of(f_type), False))
    assert check.status == status
    assert word in check.message


@pytest.mark.skipif(sys.platform != "linux", reason="statfs with these numbers is Linux's")
def test_the_kernel_and_the_table_of_mounts_agree(tmp_path: Path) -> None:
    mounts = machine.read_mounts()
    assert mounts is not None
    kinds = {}
    for path in (tmp_path, Path("/dev/shm")):
        mount = mount_of(path.resolve(), mounts)
        assert mount is not None
        kinds[str(path)] = machine.statfs_kind(path)
        assert kinds[str(path)] == mount.kind or str(kinds[str(path)]).startswith("0x")
        assert [check.status for check in doctor_file._file_system(path, None)] == [doctor_file._durable(mount).status]
    assert kinds["/dev/shm"] == "tmpfs"
    assert machine.statfs_kind(tmp_path / "nothing") is None


def test_a_system_without_mounts_is_no_fault() -> None:
    assert [check.status for check in doctor_file._file_system(Path("/x"), None)] == ["ok"]
    assert mount_of(Path("/x"), "") is None


def test_modes_that_let_others_look_in(data: Path) -> None:
    (data / "store.json").chmod(0o644)
    found = checks(data)["permissions"]
    assert found.status == "warn"
    assert "store.json 0644" in found.message
    assert eventstore("doctor", data).code == doctor(str(data)).exit_code


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_files_that_cannot_be_written_are_bad(data: Path) -> None:
    (data / "store.json").chmod(0o400)
    assert checks(data)["permissions"].status == "bad"


@pytest.mark.parametrize(("ahead_s", "status"), [(0, "ok"), (-5, "ok"), (10, "warn"), (10_000, "bad")])
def test_a_head_in_the_future(data: Path, monkeypatch: pytest.MonkeyPatch, ahead_s: int, status: str) -> None:
    latest = max(line["recorded_us"] for line in done("log", data, "--json").lines())
    monkeypatch.setattr(doctor_file, "now_us", lambda: latest - ahead_s * 10**6)
    found = checks(data)["clock"]
    assert found.status == status
    if status != "ok":
        assert f"{ahead_s:,} s ahead" in found.message


def test_a_clock_that_was_never_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_file, "now_us", lambda: 10**15)
    assert checks(None)["clock"].status == "bad"
    assert now_us() > 10**15


@pytest.mark.parametrize(("free", "status"), [(10**7, "bad"), (10**8, "warn"), (10**12, "ok")])
def test_free_space(data: Path, monkeypatch: pytest.MonkeyPatch, free: int, status: str) -> None:
    class Usage:
        """What shutil.disk_usage() gives."""

        def __init__(self) -> None:
            self.free = free

    def usage(path: Path) -> Usage:
        return Usage()

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert checks(data)["free space"].status == status


def test_a_wal_that_grows_and_grows(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_file, "_WAL_WARN", -1)
    log = log_of(data, "notes")
    log.with_name(log.name + "-wal").touch()
    waiting = [check for check in doctor(str(data)).checks if check.name == "wal"]
    assert {check.status for check in waiting} == {"warn"}
    assert any(check.message.startswith("notes: 0 B wait") for check in waiting)


def test_doctor_names_a_domain_it_cannot_read(data: Path) -> None:
    (data / "logs" / "notes" / f"{0:020d}.db").write_bytes(b"")
    found = checks(data)
    assert found["domain"].status == "bad"
    assert "notes" in found["domain"].message
    assert eventstore("doctor", data).code == 1


# ---- what a command must not do to a store


@pytest.mark.parametrize("words", [["export"], ["export", "--sqlite"], ["anchor"], ["bundle", "notes", "--after", "0"]], ids=" ".join)
@pytest.mark.parametrize("place", ["store.json", "logs/notes/00000000000000000000.db", "logs/notes/head", "new"])
def test_no_output_goes_into_a_store(tmp_path: Path, words: list[str], place: str) -> None:
    for name in ("data", "other"):
        done("put", tmp_path / name, "notes", "hello", "1")
    command, *rest = words
    option = ["--sqlite"] if "--sqlite" in rest else ["-o"]
    rest = [word for word in rest if word != "--sqlite"]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for store in ("data", "other"):
        refused = eventstore(command, tmp_path / "data", *rest, *option, tmp_path / store / place)
        assert (refused.code, "is inside the store" in refused.err) == (3, True), refused
    assert {path: path.read_bytes() for path in before} == before
    assert done("verify", tmp_path / "data").code == done("verify", tmp_path / "other").code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["put", "data", "notes", "k", "1", "--expected", "9" * 5_000],
        ["put", "data", "notes", "k", "1", "--schema", "9" * 5_000],
        ["state", "data", "notes", "--as-of", "9" * 5_000],
        ["archive", "data", "notes", "--to", "archive", "--before", "9" * 20],
        ["get", "data", "notes", "[" * 3_000],
        ["ls", "data", "notes", "[" * 3_000],
        ["log", "data", "notes", "--key", "[" * 3_000],
    ],
    ids=lambda words: f"{words[0]} {words[-2][:10]}",
)
def test_what_no_number_and_no_key_can_be_is_a_wrong_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done("put", "data", "notes", "hello", "1")
    refused = eventstore(*words)
    assert (refused.code, "Traceback" in refused.err) == (3, False)
    assert done("log", "data", "notes", "--json").lines()[1:] == []
