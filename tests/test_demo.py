"""`eventstore demo`: it holds from end to end, and every one of its claims can fail."""

from __future__ import annotations

import gzip
import os
import re
import resource
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from eventstore.codec import encode_key
from eventstore.errors import ConfigError, CorruptionError, DiskFullError
from eventstore.model import Key
from eventstore.opening import open_store
from eventstore.store import Store
from eventstore.tools import demo as demo_command
from eventstore.tools import demo_claims as claims
from eventstore.tools.demo import Killed, demo, finished, render, survived, was_killed, write_and_kill
from eventstore.tools.demo_claims import BrokenError, Claim, judge
from eventstore.tools.demo_report import DemoReport, Moment
from eventstore.tools.demo_story import Held, Step, Story, held, tell
from eventstore.tools.demo_writer import SESSION, Ack, write_from
from eventstore.tools.difference import Change
from eventstore.tools.recording import Write, read_recording
from eventstore.tools.stores import raw_domain
from eventstore.tools.terminal import plain
from tests import demo_sample
from tests.faults.limits import limit
from tests.tools.test_cli_pages import on_a_terminal

ROOT = Path(__file__).parents[1]
RECORDING = ROOT.parent / "shared" / "data" / "backtest-kit" / "live.jsonl.gz"


# ---- the sample


def test_sample_is_a_cut_of_the_recording() -> None:
    if not RECORDING.exists():
        pytest.skip("the whole recording does not stand beside this checkout; without it the sample cannot be cut anew")
    assert gzip.decompress(SESSION.read_bytes()) == demo_sample.sample_of(RECORDING)


def test_sample_is_small_and_packed_the_same_by_everybody() -> None:
    packed = SESSION.read_bytes()
    assert SESSION == demo_sample.SAMPLE
    assert len(packed) <= 300_000
    # RFC 1952: no flags, so no file name; no time of packing.
    assert packed[3:8] == bytes(5)


def test_sample_tells_a_whole_story() -> None:
    writes = read_recording(SESSION)
    texts = [write.text or "" for write in writes if write.domain == "signal"]
    assert {"signal", "schedule", "strategy", "risk", "memory", "storage", "notification", "log", "candle"} <= {
        write.domain for write in writes
    }
    assert all(
        any(field in text for text in texts) for field in ('"_trailingPriceStopLoss":', '"_trailingPriceTakeProfit":', '"_partial":[{')
    )
    assert any(len(msgspec.json.decode(text)["_entry"]) > 1 for text in texts if text != "null"), "no position was averaged"
    assert "null" in texts, "no position was closed"
    assert any(write.text is None for write in writes), "nothing was removed"
    assert writes[0].when_us is not None, "the first call would be without a time"
    assert f" {len(writes):,} " in str(demo_command.__doc__)


# ---- from end to end


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> DemoReport:
    """The demo, run once."""
    return demo(tmp_path_factory.mktemp("demo") / "store")


def test_every_claim_holds(ran: DemoReport) -> None:
    assert [claim for claim in ran.claims if not claim.holds] == []
    assert len(ran.claims) == 9
    assert (ran.ok, ran.exit_code) == (True, 0)
    assert ran.writes // 2 <= ran.acknowledged <= ran.landed <= ran.acknowledged + 1 < ran.writes
    assert ran.events == ran.writes - 1, "one removal of the sample finds nothing to remove"
    assert ran.bytes > 1_000_000


def test_the_store_is_kept_as_the_report_says(ran: DemoReport) -> None:
    expected = claims.replay(read_recording(SESSION))
    with open_store(ran.folder, create=False) as store:
        assert store.verify().ok
        for name, state in expected.states.items():
            assert {key: bytes(value).decode() for key, value in raw_domain(store, name).items()} == state
        assert (ran.domains, ran.keys) == (len(expected.states), expected.keys)


def test_what_was_held_and_how_a_position_lived(ran: DemoReport) -> None:
    assert ran.moment is not None
    expected = claims.replay(read_recording(SESSION)[: ran.landed]).states["signal"]
    assert {position.key for position in ran.moment.held} == {key for key, text in expected.items() if text != "null"}
    assert ran.story is not None
    assert ran.story.key == ("BTCUSDT", "trend-llm", "binance")
    assert [ran.story.steps[0].what, ran.story.steps[-1].what] == ["opened", "closed"]
    fields = {change.path.split(".")[1] for step in ran.story.steps[1:-1] for change in step.changes}
    assert fields == {"_fall", "_partial", "_peak", "_trailingPriceStopLoss", "_trailingPriceTakeProfit"}


def test_the_report_reads_well(ran: DemoReport) -> None:
    text = "\n".join(render(ran, plain))
    assert "Nothing was lost." in text
    assert text.count("✓") == len(ran.claims)
    assert "_trailingPriceStopLoss  + 55,304.15" in text
    assert "closed  closeReason time_expired, pnl.pnlPercentage 0.2516" in text
    # The commands to go on with hold paths, which are as long as they are.
    assert max(len(line) for line in text.splitlines() if ran.folder not in line) < 160
    assert msgspec.json.decode(msgspec.json.encode(ran))["ok"] is True


@pytest.mark.slow
def test_commands_to_explore_work_as_they_stand(ran: DemoReport) -> None:
    assert [shlex.split(line)[-1] for line in ran.explore[3:]] == [ran.folder, ran.folder]
    for line in ran.explore:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(shlex.split(line), capture_output=True, text=True, env=environment, check=False, timeout=60)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        assert done.stdout.strip(), line
        if " state " in line and ran.moment is not None:
            assert all(encode_key(position.key) in done.stdout for position in ran.moment.held)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ConfigError, match="not an empty folder"):
        demo(tmp_path)
    with pytest.raises(ConfigError, match="not an empty folder"):
        demo(tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.slow
def test_a_store_that_loses_what_it_acknowledged_is_caught(tmp_path: Path) -> None:
    """The log is cut back and the witness that would have noticed is wiped: only the demo's own books know better."""

    def lose(folder: Path) -> None:
        logs = folder / "logs" / "storage"
        for file in logs.glob("*-wal"):
            file.unlink()
        with sqlite3.connect(next(logs.glob("*.db"))) as database:
            database.execute("DROP TRIGGER event_delete")
            database.execute("DELETE FROM event WHERE position > 5")
        database.close()
        (logs / "head").write_bytes(b"")

    report = demo(tmp_path / "store", after_kill=lose)
    assert (report.ok, report.exit_code) == (False, 1)
    broken = [claim for claim in report.claims if not claim.holds]
    assert broken
    assert broken[0].claim == "every acknowledged write is there"
    assert (report.moment, report.story, report.explore) == (None, None, [])
    text = "\n".join(render(report, plain))
    assert "✗ every acknowledged write is there" in text
    assert "Nothing was lost" not in text


@pytest.mark.slow
def test_a_store_that_does_not_open_again_is_caught(tmp_path: Path) -> None:
    report = demo(tmp_path / "store", after_kill=lambda folder: (folder / "store.json").unlink())
    assert report.exit_code == 1
    assert [claim.claim for claim in report.claims if not claim.holds] == ["the store opens again, and takes writes"]


@pytest.mark.slow
def test_a_disk_that_is_full_is_no_claim_that_does_not_hold(tmp_path: Path) -> None:
    """While the child writes, and while the store goes on after the kill."""
    command = [sys.executable, "-m", "eventstore", "demo", "--folder", str(tmp_path / "first")]
    with limit(resource.RLIMIT_FSIZE, 200_000):
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "free some space" in answer.stderr
    with limit(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY), pytest.raises(DiskFullError, match="free some space"):
        demo(tmp_path / "then", after_kill=lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY)))


def test_a_writer_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    killed = write_and_kill(tmp_path, 10, 20)
    assert killed.acks == []
    with pytest.raises(BrokenError, match=r"exit code 1 after 0 writes: \S*NotAStoreError: "):
        was_killed(killed, 20)


# ---- every claim, alone


KEYS = [("BTCUSDT", "s", "x"), ("ETHUSDT", "s", "x")]


def sent() -> list[Write]:
    """Twelve writes to two domains; the last removes what is not there."""
    signal = [Write("signal", KEYS[index % 2], f'{{"id": "p{index}", "n":{index}.0}}', 1_000 + index) for index in range(8)]
    memory = [Write("memory", "m1", "[1e2]", None), Write("memory", "m2", "-0.0", 5), Write("memory", "m1", None, 6)]
    return [*signal, *memory, Write("memory", "m3", None, 7)]


WRITES = sent()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with open_store(tmp_path / "store") as opened:
        yield opened


def broken(found: list[Claim]) -> list[str]:
    return [claim.claim for claim in found if not claim.holds]


def test_claims_hold_for_a_store_that_kept_everything(store: Store) -> None:
    acks = list(write_from(store, WRITES, 0))
    assert [ack.appended for ack in acks] == [True] * 11 + [False]
    assert broken([*survived(store, acks, WRITES), *finished(store, WRITES)]) == []


def test_a_landed_write_without_an_answer_is_found_and_not_repeated(store: Store) -> None:
    acks = list(write_from(store, WRITES[:8], 0))[:-1]
    found = survived(store, acks, WRITES)
    assert broken(found) == []
    assert "1 more write had landed" in found[1].detail
    assert claims.landed(claims.events_of(store), len(acks), WRITES) == 8
    again = list(write_from(store, WRITES, len(acks)))
    assert again[0].position == 8
    assert broken(finished(store, WRITES)) == []


def test_more_than_one_unanswered_write_is_one_too_many(store: Store) -> None:
    acks = list(write_from(store, WRITES[:8], 0))[:-2]
    assert broken(survived(store, acks, WRITES)) == ["nothing else is there"]


def test_an_unanswered_write_that_nobody_sent_is_noticed(store: Store) -> None:
    acks = list(write_from(store, WRITES[:4], 0))
    store.domain("signal").write_value(KEYS[0], "intruder")
    assert broken(survived(store, acks, WRITES)) == ["nothing else is there"]


@pytest.mark.parametrize(
    "change",
    [
        {"checksum": "00" * 32},
        {"position": 9},
        {"position": 0},
        {"position": 3},
        {"domain": "memory"},
        {"domain": "nowhere"},
        {"index": 5},
    ],
    ids=str,
)
def test_a_receipt_that_the_log_does_not_bear_out_is_noticed(store: Store, change: dict[str, object]) -> None:
    acks = list(write_from(store, WRITES[:8], 0))
    acks[3] = msgspec.structs.replace(acks[3], **change)
    found = survived(store, acks, WRITES)
    assert broken(found) == ["every acknowledged write is there"]
    assert "1 of 8 are lost or altered" in found[0].detail


def test_a_promise_of_less_than_durable_is_noticed(store: Store) -> None:
    acks = list(write_from(store, WRITES[:8], 0))
    acks[3] = msgspec.structs.replace(acks[3], durability="process")
    assert broken(survived(store, acks, WRITES)) == ["every acknowledged write is there"]


@pytest.mark.parametrize(
    "wrong",
    [
        Write("signal", KEYS[0], '{"id": "p2", "n":2}', 1_002),
        Write("signal", KEYS[1], '{"id": "p2", "n":2.0}', 1_002),
        Write("signal", KEYS[0], '{"id": "p2", "n":2.0}', 1_003),
        Write("signal", KEYS[0], None, 1_002),
    ],
    ids=["text", "key", "time", "operation"],
)
def test_an_event_that_says_something_else_is_noticed(store: Store, wrong: Write) -> None:
    acks = list(write_from(store, [*WRITES[:2], wrong, *WRITES[3:]], 0))
    assert "every acknowledged write is there" in broken(survived(store, acks, WRITES))
    assert broken(finished(store, WRITES))[0] == "it went on to the end, and nothing was written twice"


def test_a_write_done_twice_is_noticed(store: Store) -> None:
    list(write_from(store, WRITES, 0))
    last = WRITES[9]
    # The state is the same; only the log tells.
    store.domain(last.domain).write_value(last.key, msgspec.Raw(b"-0.0"), when=last.when_us)
    assert broken(finished(store, WRITES)) == ["it went on to the end, and nothing was written twice"]


def test_a_write_left_out_is_noticed(store: Store) -> None:
    list(write_from(store, WRITES[:9], 0))
    assert broken(finished(store, WRITES)) == [
        "it went on to the end, and nothing was written twice",
        "the state is what a plain dict says",
    ]


def test_a_state_of_another_moment_is_noticed(store: Store) -> None:
    list(write_from(store, WRITES, 0))
    expected = claims.replay(WRITES[:9])
    claims.same_states(lambda name: raw_domain(store, name).state(as_of=8 if name == "signal" else 1), expected)
    with pytest.raises(BrokenError, match="signal: 1 key differ"):
        claims.same_states(lambda name: raw_domain(store, name).state(as_of=7 if name == "signal" else 1), expected)


def test_a_history_that_leaves_something_out_is_noticed(store: Store) -> None:
    list(write_from(store, WRITES[:7], 0))
    assert "4 events" in claims.same_history(store, "signal", KEYS[0], WRITES)
    with pytest.raises(BrokenError, match="its history tells 3 events, which are not the 4"):
        claims.same_history(store, "signal", KEYS[1], WRITES)


def test_an_edited_value_breaks_the_chain(tmp_path: Path) -> None:
    with open_store(tmp_path / "store") as store:
        acks = list(write_from(store, WRITES, 0))
    with sqlite3.connect(next((tmp_path / "store" / "logs" / "signal").glob("*.db"))) as database:
        database.execute("DROP TRIGGER event_update")
        database.execute("UPDATE event SET data = replace(data, '3.0', '9.0') WHERE position = 4")
    database.close()
    with open_store(tmp_path / "store") as store:
        found = survived(store, acks, WRITES)
    assert broken(found)[0] == "every acknowledged write is there"
    assert "the chain is whole after the kill" in broken(found)


def test_an_error_of_the_store_is_a_broken_claim() -> None:
    def unreadable() -> str:
        raise CorruptionError("signal", 3, "unreadable")

    assert judge("it can be read", unreadable) == Claim("it can be read", False, "signal@3: unreadable")


def ack(index: int) -> Ack:
    return Ack(index, "signal", index + 1, "00", "power", True)


@pytest.mark.parametrize(
    ("killed", "found"),
    [
        (Killed([ack(0)], 0, ""), "exit code 0 after 1 writes: it said nothing"),
        (Killed([ack(0)], 1, "boom"), "exit code 1 after 1 writes: boom"),
        (Killed([ack(1), ack(0)], -signal.SIGKILL, ""), "not in order"),
        (Killed([], -signal.SIGKILL, ""), "0 of 3 writes"),
        (Killed([ack(0), ack(1), ack(2)], -signal.SIGKILL, ""), "3 of 3 writes"),
    ],
)
def test_a_kill_that_was_none_is_noticed(killed: Killed, found: str) -> None:
    with pytest.raises(BrokenError, match=found):
        was_killed(killed, 3)
    assert was_killed(Killed([ack(0), ack(1)], -signal.SIGKILL, ""), 3) == "after 2 of 3 writes"


# ---- the story


def row(number: int, **changes: object) -> str:
    fields = {
        "id": f"p{number}",
        "position": "long",
        "cost": 100,
        "priceOpen": 10.5,
        "priceTakeProfit": 12,
        "priceStopLoss": 9,
        "pendingAt": 60_000,
        "_entry": [{"price": 10.5, "cost": 100, "timestamp": 1}],
        "_peak": {"price": 10.5, "pnlPercentage": 0},
    }
    return msgspec.json.encode(fields | changes).decode()


def peak(percentage: float) -> dict[str, float]:
    return {"price": 10.5, "pnlPercentage": percentage}


def lived(key: Key, *texts: str) -> list[Write]:
    return [Write("signal", key, text, 60_000_000 * minute) for minute, text in enumerate(texts)]


def test_a_position_not_seen_from_its_opening_to_its_close_is_no_story(store: Store) -> None:
    unseen = lived(KEYS[0], row(1), row(1, _peak=peak(1.0)), "null")
    still_open = lived(KEYS[1], "null", row(2), row(2, _peak=peak(1.0)))
    list(write_from(store, [*unseen, *still_open], 0))
    assert tell(store) is None


def test_steps_that_move_one_price_are_told_as_one(store: Store) -> None:
    texts = [
        "null",
        row(1),
        row(1, _peak=peak(0.1)),
        row(1, _peak=peak(0.2)),
        row(1, _peak=peak(0.2), _trailingPriceStopLoss=10.6),
        row(1, _peak=peak(0.3), _trailingPriceStopLoss=10.6),
        "null",
    ]
    closed = Write("storage", ("live", "p1"), '{"id":"p1","closeReason":"stop_loss","pnl":{"pnlPercentage":0.25}}', None)
    list(write_from(store, [*lived(KEYS[0], *texts), closed], 0))
    story = tell(store)
    assert story is not None
    assert [(step.what, step.events, step.from_us, step.until_us) for step in story.steps] == [
        ("opened", 1, 60_000_000, 60_000_000),
        ("changed", 2, 120_000_000, 180_000_000),
        ("changed", 1, 240_000_000, 240_000_000),
        ("changed", 1, 300_000_000, 300_000_000),
        ("closed", 1, 360_000_000, 360_000_000),
    ]
    assert story.steps[1].changes == [Change("._peak.pnlPercentage", msgspec.Raw(b"0"), msgspec.Raw(b"0.2"))]
    assert [change.new for change in story.steps[-1].changes] == [msgspec.Raw(b'"stop_loss"'), msgspec.Raw(b"0.25")]


def test_a_position_closed_and_opened_anew_is_two_lives(store: Store) -> None:
    # The second one replaces the first without a `null` between them, so the first was never seen to close.
    texts = ["null", row(1), row(1, cost=200), row(2), row(2, _peak=peak(0.5)), "null"]
    list(write_from(store, lived(KEYS[0], *texts), 0))
    story = tell(store)
    assert story is not None
    assert [step.first_position for step in story.steps] == [4, 5, 6]
    assert story.steps[-1].changes == [], "nothing says why it was closed"


def test_held_takes_what_trails(store: Store) -> None:
    texts = [row(1), row(2, _trailingPriceStopLoss=9.5, _trailingPriceTakeProfit=13.0, _entry=[{}, {}])]
    list(write_from(store, [Write("signal", key, text, None) for key, text in zip(KEYS, texts, strict=True)], 0))
    list(write_from(store, [Write("signal", ("SOLUSDT", "s", "x"), "null", None)] * 3, 2))
    assert held(raw_domain(store, "signal")) == [
        Held(KEYS[0], "long", 1, 10.5, 9.0, 12.0, 60_000_000),
        Held(KEYS[1], "long", 2, 10.5, 9.5, 13.0, 60_000_000),
    ]


def test_nothing_of_an_event_reaches_the_terminal_as_a_command() -> None:
    evil = "\x1b]0;owned\x07\u202e"
    raw = msgspec.Raw(msgspec.json.encode({"note": evil}))
    report = DemoReport(
        folder=evil,
        ok=True,
        claims=[Claim("a", True, evil), Claim("b", False, evil)],
        writes=1,
        session_from_us=None,
        session_until_us=None,
        moment=Moment(0, None, [Held((evil, "x"), evil, 1, 1.0, 1.0, 1.0, 0)]),
        story=Story(evil, [Step("changed", 1, 1, None, None, [Change(f".{evil}", raw, raw), Change(".list", new=msgspec.Raw(b"[1,2]"))])]),
        explore=[evil],
    )
    for text in (*render(report, plain), *render(msgspec.structs.replace(report, ok=False), plain)):
        assert text.isprintable(), text


def test_run_as_a_program_the_writer_writes(tmp_path: Path) -> None:
    """Whatever lies in the folder it is started from: `random.py` there must not be taken for the library's."""
    (tmp_path / "random.py").write_text("raise SystemExit('a stranger was imported')")
    call = "len(write_and_kill(Path('s'), 5, 9).acks)"
    code = f"from pathlib import Path; from eventstore.tools.demo import write_and_kill; print({call})"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) >= 5


@pytest.mark.slow
def test_the_demo_shows_on_a_terminal_how_far_it_is(tmp_path: Path) -> None:
    shown = on_a_terminal(["demo", "--folder", str(tmp_path / "store")], colour=False, columns=100)
    total = len(read_recording(SESSION))
    assert re.search(rf"writing, until it is killed .*\d+/{total}", shown), shown
    assert re.search(rf"reopened, going on to the end .*{total}/{total}", shown), shown
