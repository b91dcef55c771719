"""Golden stores: what an earlier version wrote is read, proven and written on by this one, and nothing that was sealed changes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import eventstore
from eventstore import (
    Anchor,
    BackupError,
    CompactedError,
    ConfigError,
    Domain,
    NewerFormatError,
    RedactedError,
    Store,
    StoreFormatError,
)
from eventstore.adapters.signing import require_signature
from eventstore.codec import FORMAT
from eventstore.database import log_files
from eventstore.restore import restore
from eventstore.tools import verify_bundle
from eventstore.tools.import_ import import_
from tests import verifier
from tests.golden import make
from tests.tools.command import eventstore as command

NAMES = sorted(make.STORES)
BIG = 7**4000


@pytest.fixture
def golden(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of the golden folder that the test's parameter names."""
    name = request.node.callspec.params["name"]
    (tmp_path / name).mkdir()
    return make.unpack(make.GOLDEN / f"{name}.tar.gz", tmp_path / name)


def told(name: str) -> dict[str, Any]:
    """What the version that made a store said of it."""
    return dict(json.loads((make.GOLDEN / f"{name}.json").read_text(encoding="utf-8")))


def plain_json(answer: object) -> Any:
    return json.loads(json.dumps(answer))


def logs(folder: Path) -> Iterator[Path]:
    """The folders of all logs, of the backup's copy too."""
    for heads in sorted(folder.rglob("head")):
        if "quarantine" not in heads.parts:
            yield heads.parent


def finished(folder: Path) -> dict[str, bytes]:
    """Everything that is never to be written again: sealed files, archives, the backup, evidence, anchors and bundles, with their bytes."""
    live = {log_files(log)[-1] for log in logs(folder / "store")}
    beside = [
        path for path in folder.rglob("*") if path.is_file() and (folder / "store") not in path.parents and path.name != "keys.jsonl.lock"
    ]
    kept = [path for log in logs(folder / "store") for path in log_files(log) if path not in live]
    kept += [path for path in (folder / "store" / "quarantine").rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in beside + kept}


def everything(folder: Path) -> dict[str, bytes]:
    """All files but what SQLite makes for its readers."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".db-shm"}


def test_nothing_golden_is_passed_over() -> None:
    files = sorted(path.name for path in make.GOLDEN.iterdir())
    assert files == sorted(f"{name}.{kind}" for name in NAMES for kind in ("json", "tar.gz"))
    assert sum(path.stat().st_size for path in make.GOLDEN.iterdir()) < 1_500_000


@pytest.mark.parametrize("name", NAMES)
def test_every_verb_says_what_it_said_and_a_reader_changes_nothing(golden: Path, name: str) -> None:
    before, expected = everything(golden), told(name)
    assert all(part["ok"] for part in expected.values())
    assert plain_json(make.said(golden)) == expected
    after = everything(golden)
    assert {path: after.get(path) for path in before} == before


@pytest.mark.parametrize("name", NAMES)
def test_it_is_written_on_and_what_was_finished_stays_as_it_is(golden: Path, name: str) -> None:
    before, expected = finished(golden), told(name)["store"]
    with make.opened(golden) as store:
        assert plain_json(make.observed(store)) == expected
    with make.opened(golden) as store:
        for domain in expected["domains"]:
            if domain == "intents":
                with store.intent("order-9", 9):
                    pass
            else:
                assert store.domain(domain).write_value("new", {"from": "a later version"}).appended
        report = store.verify()
        assert report.ok, report.findings
        for domain, said in expected["domains"].items():
            assert store.domain(domain).event(said["head"][0]).checksum.hex() == said["head"][1]
            store.seal(domain)
    with make.opened(golden) as store:
        assert store.verify().ok
    after = finished(golden)
    assert {path: after.get(path) for path in before} == before


@pytest.mark.parametrize("name", NAMES)
def test_a_program_that_knows_the_format_and_not_the_library_agrees(golden: Path, name: str) -> None:
    expected = told(name)
    found = 0
    for log in logs(golden):
        report = verifier.verify(log, log / "head", domain=log.name)
        assert report.findings == []
        assert report.head is not None
        known = expected[log.relative_to(golden).parts[0]]["domains"][log.name]["head"]
        assert [report.head.position, report.head.checksum.hex()] == known
        found += 1
    assert found >= len(expected["store"]["domains"])


# ---- what stands in them, by hand


def folder_of(name: str, tmp_path: Path) -> Path:
    return make.unpack(make.GOLDEN / f"{name}.tar.gz", tmp_path)


def orders(*numbers: int) -> dict[str, Any]:
    """What the keys hold after events with these numbers."""
    return {f"order-{n % 3}": {"n": n} for n in numbers}


HELD: dict[str, Callable[[Store], object]] = {
    "plain": lambda store: (
        store.domain("shapes").read_value("text"),
        store.domain("shapes").read_value(("raw", 6)) == BIG,
        store.domain("shapes").has_value(("row", 1)),
        store.domain("shapes").state(1).read_value("text"),
        store.domain("shapes").write_value("text", "last", event_id="last").position == store.domain("shapes").head().position,
    ),
    "domains": lambda store: (
        store.domain(Domain("candles", write="first")).read_value(("BTCUSDT", 60)),
        dict(store.domain("orders").items()),
        list(store.domain("empty").events()),
    ),
    "sealed": lambda store: (dict(store.domain("orders").items()), dict(store.domain("orders").state(6).items())),
    "archived": lambda store: (store.domain("orders").floor, dict(store.domain("orders").state(7).items())),
    "deleted": lambda store: (store.domain("orders").floor, dict(store.domain("orders").items())),
    "redacted": lambda store: dict(store.domain("orders").items()),
    "shredded": lambda store: [store.domain("people").read_value(("ben", n)) for n in range(3)],
    "compressed": lambda store: (store.domain("texts").read_value("large"), store.domain("both").read_value("large")),
    "loss": lambda store: [event.op for event in store.domain("orders").events()],
    "intents": lambda store: [(each.event_id, each.effect, each.error) for each in store.uncertain()],
    "killed": lambda store: dict(store.domain("orders").items()),
}
EXPECTED: dict[str, object] = {
    "plain": ("last", True, False, {"key": "text"}, True),
    "domains": ({"close": 1}, orders(3, 4, 5), []),
    "sealed": ({"order-0": {"n": 9}, "order-1": {"n": 10}, "order-2": {"n": 11}}, orders(3, 4, 5)),
    "archived": (0, orders(4, 5, 6)),
    "deleted": (7, orders(7, 8, 9)),
    "redacted": {"order-0": {"n": 9}, "order-1": "new", "order-2": {"n": 8}},
    "shredded": [{"mail": f"ben{n}@example.org"} for n in range(3)],
    "compressed": (make.LARGE, make.LARGE),
    "loss": ["put", "put", "put", "put", "loss", "put", "put"],
    "intents": [("order-3", {"buy": 3}, "ConnectionError: no answer")],
    "killed": orders(7, 8, 9),
}


@pytest.mark.parametrize("name", HELD)
def test_values_are_those_that_were_written(tmp_path: Path, name: str) -> None:
    with make.opened(folder_of(name, tmp_path)) as store:
        assert HELD[name](store) == EXPECTED[name]


def test_what_was_erased_stays_erased(tmp_path: Path) -> None:
    with make.opened(folder_of("redacted", tmp_path)) as store, pytest.raises(RedactedError):
        store.domain("orders").state(4).read_value("order-1")
    assert b'"n":4' not in b"".join(everything(tmp_path).values())


def test_a_destroyed_key_opens_nothing(tmp_path: Path) -> None:
    folder = folder_of("shredded", tmp_path)
    with make.opened(folder) as store:
        for n in range(3):
            with pytest.raises(RedactedError):
                store.domain("people").state(6).read_value(("ann", n))
        store.shred("ben", reason="later")
        assert store.verify().domains[0].redacted == 6


def test_without_its_archive_it_says_where_that_is(tmp_path: Path) -> None:
    with make.opened(folder_of("archived", tmp_path), archives=False) as store:
        domain = store.domain("orders")
        assert (domain.floor, dict(domain.items())) == (10, orders(12, 13, 14))
        with pytest.raises(CompactedError) as caught:
            domain.event(2)
        assert str(caught.value.archive).endswith("archive")


@pytest.mark.parametrize("name", ["sealed", "archived", "killed"])
def test_a_retry_of_any_call_is_answered_as_it_was(tmp_path: Path, name: str) -> None:
    folder, expected = folder_of(name, tmp_path), told(name)["store"]["domains"]["orders"]
    with make.opened(folder) as store:
        receipts = [make.order(store, n) for n in range(1, 8)]
        assert store.domain("orders").head().position == expected["head"][0]
    checksums = {event[0]: event[-1] for event in expected["events"]}
    assert [receipt.checksum.hex() for receipt in receipts] == [checksums[receipt.position] for receipt in receipts]
    assert len({receipt.position for receipt in receipts}) == 7


@pytest.mark.parametrize("name", ["archived", "deleted"])
def test_a_retry_of_what_is_gone_is_refused_and_a_new_call_is_not(tmp_path: Path, name: str) -> None:
    with make.opened(folder_of(name, tmp_path), archives=False) as store:
        head = store.domain("orders").head().position
        for n in (1, 2, 3):  # later ones are what a key is, and carried
            with pytest.raises(CompactedError):
                make.order(store, n)
        assert make.order(store, 100).position == head + 1


@pytest.mark.parametrize("archives", [True, False])
def test_anchor_and_bundle_prove_what_they_proved(tmp_path: Path, archives: bool) -> None:
    folder = folder_of("proven", tmp_path)
    anchor = Anchor.parse((folder / "anchor.json").read_bytes())
    require_signature(anchor, folder / "public.pem")
    with make.opened(folder, archives=archives) as store:
        (judged,) = store.verify(anchor=anchor).anchored
        assert (judged.verdict, judged.more) == ("EXTENDED", 3)
        assert store.bundle("orders", positions=[7], since=anchor).birth.position == 0
    for given, code in (["--anchor", "anchor.json"], 1), (["--public-key", "public.pem"], 0), ([], 1):
        command = [sys.executable, "-I", "-S", verify_bundle.__file__, "bundle.json", *given]
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stderr) == (code, "")
        assert ran.stdout.count("\nPROVEN  position") == {"--anchor": 2, "--public-key": 3}.get(given[0] if given else "", 0)


def test_a_backup_is_restored(tmp_path: Path) -> None:
    folder = folder_of("backup", tmp_path / "golden")
    with pytest.raises(BackupError):
        eventstore.open(folder / "backup")
    report = restore(folder / "backup", tmp_path / "again")
    assert report.store_id == "c" * 32
    with eventstore.open(tmp_path / "again") as store:
        assert plain_json(make.observed(store)) == told("backup")["backup"]
        assert dict(store.domain("orders").items()) == orders(6, 7, 8)
    with make.opened(folder) as store:
        store.backup(folder / "backup")
    with eventstore.open(folder / "backup", read_only=True) as newer:
        assert newer.domain("orders").head().position == 9


def test_an_export_is_imported_with_every_checksum(tmp_path: Path) -> None:
    folder, expected = folder_of("exported", tmp_path / "golden"), told("exported")["store"]
    report = import_(str(folder / "export.jsonl"), str(tmp_path / "again"))
    # It was written before headers said where the events end.
    assert (report.problems, [found.open_ended for found in report.domains.values()]) == ([], [True])
    with eventstore.open(tmp_path / "again") as store:
        assert (store.store_id, plain_json(make.observed(store))) == ("1" * 32, expected)


def test_the_stores_say_the_format_of_this_version(tmp_path: Path) -> None:
    for name in NAMES:
        folder = folder_of(name, tmp_path / name)
        assert json.loads((folder / "store" / "store.json").read_bytes())["format"] == FORMAT


# ---- drafts

DRAFT = make.HERE / "format0"
REFUSED = "made by a draft before format 1 .*: `eventstore export` it with the version that made it, then `eventstore import` that file"


def draft(name: str, tmp_path: Path) -> Path:
    """A folder of the last draft: kept to be refused."""
    return make.unpack(DRAFT / f"{name}.tar.gz", tmp_path / "draft")


@pytest.mark.parametrize("options", [{}, {"read_only": True}, {"accept_loss": True}], ids=str)
@pytest.mark.parametrize("name", ["backup", "exported", "proven", "shredded"])
def test_a_store_of_a_draft_is_refused_and_left_as_it_is(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    folder = draft(name, tmp_path)
    before = everything(folder)
    with pytest.raises(StoreFormatError, match=REFUSED) as caught:
        eventstore.open(folder / "store", **options)
    assert not isinstance(caught.value, NewerFormatError)
    answer = command("verify", folder / "store", "--json")
    assert (answer.code, answer.error()["error"]) == (2, "StoreFormatError")
    assert everything(folder) == before


def test_a_file_of_a_draft_in_a_store_of_today_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    folder = draft("exported", tmp_path)
    manifest = folder / "store" / "store.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"format":0', b'"format":1'))
    before = {path: content for path, content in everything(folder).items() if path.endswith((".db", "head"))}
    with eventstore.open(folder / "store") as store, pytest.raises(StoreFormatError, match=REFUSED):
        store.domain("shapes")
    assert before.items() <= everything(folder).items()


def test_what_else_a_draft_left_is_refused(tmp_path: Path) -> None:
    backup = draft("backup", tmp_path)
    before = everything(backup)
    with pytest.raises(StoreFormatError, match=REFUSED):
        restore(backup / "backup", tmp_path / "again")
    with pytest.raises(StoreFormatError, match=REFUSED):
        eventstore.open(backup / "backup", read_only=True)
    with eventstore.open(tmp_path / "new", store_id="c" * 32) as store, pytest.raises(StoreFormatError, match=REFUSED):
        store.backup(backup / "backup")
    assert (everything(backup), (tmp_path / "again").exists()) == (before, False)
    shredded = draft("shredded", tmp_path / "keys")
    with pytest.raises(StoreFormatError, match=REFUSED):
        eventstore.open(tmp_path / "other", keys=shredded / "keys.jsonl").domain(make.SUBJECTS).write_value("ann", 1)
    proven = draft("proven", tmp_path / "anchor")
    with pytest.raises(ConfigError, match=r"is no anchor of format 1 but a draft's"):
        Anchor.parse((proven / "anchor.json").read_bytes())
    assert verify_bundle.main([str(proven / "bundle.json"), "--public-key", str(proven / "public.pem")]) == 2


def test_what_a_draft_exported_is_imported_anew_each_event_proven(tmp_path: Path) -> None:
    folder = draft("exported", tmp_path)
    expected = json.loads((DRAFT / "exported.json").read_text(encoding="utf-8"))["store"]["domains"]["shapes"]
    report = import_(str(folder / "export.jsonl"), str(tmp_path / "new"))
    assert (report.problems, report.domains["shapes"].written) == ([], expected["head"][0])
    assert report.domains["shapes"].open_ended
    with eventstore.open(tmp_path / "new") as store:
        said = make.observed(store)["domains"]["shapes"]
        assert (store.verify().ok, store.store_id == "1" * 32) == (True, False)
    assert plain_json(said["now"]) == expected["now"]
    assert [[event[3:6], event[7]] for event in said["events"][1:]] == [[event[3:6], event[7]] for event in expected["events"][1:]]
    origins = [json.loads(event[6])["origin"] for event in said["events"][1:]]
    assert [[origin["position"], origin["checksum"]] for origin in origins] == [[event[0], event[-1]] for event in expected["events"][1:]]
    again = import_(str(folder / "export.jsonl"), str(tmp_path / "new"))
    assert (again.domains["shapes"].written, again.domains["shapes"].unchanged) == (0, expected["head"][0])
    lines = (folder / "export.jsonl").read_text(encoding="utf-8").replace('"last"', '"lost"')
    (folder / "export.jsonl").write_text(lines.replace('\\"last\\"', '\\"lost\\"'), encoding="utf-8")
    (problem,) = import_(str(folder / "export.jsonl"), str(tmp_path / "forged")).problems
    assert "checksum" in problem.message
