"""The benchmark runs, says what is missing, and README shows what it measured. Its figures are nobody's test."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import eventstore
from tests.bench import ours, report, sample
from tests.bench.__main__ import README
from tests.bench.machine import Environment
from tests.bench.measure import QUICK, Against, Comparison, Contender, Goal, Row, Spread, Unit, measure
from tests.bench.rows import ROWS

ROOT = report.HERE.parents[1]


PLACE = Environment(
    date="2026-01-01",
    cpu="a processor",
    cores=2,
    system="Linux 6",
    file_system="ext4",
    python="CPython 3.11",
    sqlite="3.40.1",
    versions={"msgspec": "0.20"},
    load=0.1,
    sync_us=100.0,
)


class Fixed(Contender):
    """Returns a figure of its own instead of being timed."""

    name = "fixed"
    figure = 300.0

    def run(self) -> float:
        return self.figure


class Lean(Fixed):
    name = "lean"
    figure = 250.0
    note = "leaner"


class Missing(Fixed):
    name = "missing"
    requires = "no_such_module_anywhere"


class Failing(Fixed):
    name = "failing"

    def run(self) -> float:
        raise RuntimeError(f"no luck in {self.folder}")


def compared(tmp_path: Path, *against: Against, by: type[Contender] = Fixed) -> list[Comparison]:
    row = Row(name="row", work="work", unit="B", ours=by, against=against, compare="difference")
    return measure(row, QUICK, rounds=3, folder=tmp_path, date="2026-01-01", say=lambda text: None)


@pytest.mark.slow
def test_a_quick_run_of_every_row_works_or_names_what_is_absent(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench", "--quick", "--long", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = report.load(tmp_path)
    assert results is not None
    assert {found.row for found in results.comparisons} == {row.name for row in ROWS}
    requires = {against.contender.name: against.contender.requires for row in ROWS for against in row.against if against.contender}
    table = (tmp_path / "results.md").read_text(encoding="utf-8")
    for found in results.comparisons:
        module = requires.get(found.against or "")
        if module and importlib.util.find_spec(module) is None:
            assert found.status == f"absent: {module} is not installed"
            assert found.status in table
            assert found.status in done.stdout
        else:
            assert found.status == "ok", found
            assert found.result is not None
            assert found.result.median > 0
            if found.row == "log":
                assert "synchronous=FULL" in found.note, "a peer that does not sync is not beside us"
    assert table == report.markdown(results)
    assert str(tmp_path) not in table
    assert str(ROOT) not in table


def test_rows_are_named_once_and_have_goals() -> None:
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names))
    goals = {
        (row.name, against.contender.__name__): (against.goal, against.stage)
        for row in ROWS
        for against in row.against
        if against.contender
    }
    assert goals["single", "RawSingle"] == (Goal(">=", 0.95), Goal(">=", 0.90))
    assert goals["batch", "RawBatch"] == (Goal(">=", 0.45), Goal(">=", 0.40))
    assert goals["verify", "LeanSelect"] == (Goal(">=", 0.2), Goal(">=", 0.15))
    assert goals["verify-two", "LeanSelect"] == (Goal(">=", 0.36), None)
    assert goals["scan", "EventSourcingScan"] == (Goal(">=", 1.4), None)


def test_values_are_231_bytes() -> None:
    assert {len(msgspec.json.encode(value)) for value in sample.values(2_000)} == {231}
    assert msgspec.json.encode(sample.key(7)).decode() == sample.key_text(7)


def test_a_comparison_has_its_figures_goal_and_note(tmp_path: Path) -> None:
    (found,) = compared(tmp_path, Against(Lean, Goal("<=", 66.0)))
    assert found.status == "ok"
    assert found.rounds == 3
    assert found.ours == Spread(300.0, 300.0, 300.0)
    assert found.result == Spread(50.0, 50.0, 50.0)
    assert "goal ≤ +66 B: met; leaner" in report.line(found)
    assert list(tmp_path.iterdir()) == [], "the stores are removed"


def test_a_goal_and_what_this_release_is_asked_for_are_judged_apart(tmp_path: Path) -> None:
    (found,) = compared(tmp_path, Against(Lean, Goal("<=", 40.0), Goal("<=", 66.0)))
    said = "≤ +40 B: not met; this release: ≤ +66 B: met"
    assert f"goal {said}" in report.line(found)
    assert f"| {said} |" in report.markdown(report.Results(PLACE, [found]))
    (failed,) = compared(tmp_path, Against(Failing, Goal("<=", 40.0), Goal("<=", 66.0)))
    assert "| ≤ +40 B; this release: ≤ +66 B |" in report.markdown(report.Results(PLACE, [failed]))


def test_a_row_is_measured_no_more_often_than_it_allows(tmp_path: Path) -> None:
    row = Row(name="row", work="work", unit="B", ours=Fixed, against=(Against(Lean),), rounds=2)
    (found,) = measure(row, QUICK, rounds=7, folder=tmp_path, date="2026-01-01", say=lambda text: None)
    assert found.rounds == 2


def test_a_stored_log_is_made_once_and_not_written_to_by_who_takes_a_copy(tmp_path: Path) -> None:
    made = ours.stored(tmp_path / "one", 40, 20)
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    assert ours.stored(tmp_path / "two", 40, 20) == made
    with eventstore.open(ours.copied(made, tmp_path / "one")) as store:
        log = store.domain(ours.DOMAIN)
        assert (log.head().position, len(log)) == (40, 20)
        log.write_value(sample.key(0), 1)
    with eventstore.open(made, read_only=True) as store:
        assert store.verify().ok
        assert store.domain(ours.DOMAIN).head().position == 40
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("goal", "met"), [(Goal(">=", 0.9), True), (Goal(">=", 0.91), False), (Goal("<=", 0.9), True), (Goal("<=", 0.89), False)]
)
def test_goals_hold_the_median(goal: Goal, met: bool) -> None:
    assert goal.met(0.9) is met


def test_an_absent_peer_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    absent, present = compared(tmp_path, Against(Missing), Against(Lean))
    assert absent.status == "absent: no_such_module_anywhere is not installed"
    assert present.status == "ok"
    table = report.markdown(report.Results(PLACE, [absent, present]))
    assert "| work |  | missing |  | absent: no_such_module_anywhere is not installed |" in table


def test_a_failing_contender_is_named_without_its_path(tmp_path: Path) -> None:
    failed, present = compared(tmp_path, Against(Failing), Against(Lean))
    assert failed.status.startswith("failed: RuntimeError: no luck in ")
    assert str(tmp_path) not in failed.status
    assert present.status == "ok"
    (ours,) = compared(tmp_path, Against(Lean), by=Failing)
    assert ours.status.startswith("failed: RuntimeError")


def test_rows_of_another_run_are_kept_only_from_the_same_place(tmp_path: Path) -> None:
    (found,) = compared(tmp_path, Against(Lean))
    first, second = (msgspec.structs.replace(found, row=name) for name in ("one", "two"))
    old, new = report.Results(PLACE, [second]), report.Results(msgspec.structs.replace(PLACE, load=9.0), [first])
    assert [kept.row for kept in report.merged(old, new, ["one", "two"]).comparisons] == ["one", "two"]
    elsewhere = report.Results(msgspec.structs.replace(PLACE, python="CPython 3.99"), [first])
    assert report.merged(old, elsewhere, ["one", "two"]).comparisons == [first]
    assert report.merged(None, new, ["one", "two"]) == new


def test_the_table_says_under_which_load_its_rows_were_measured(tmp_path: Path) -> None:
    (found,) = compared(tmp_path, Against(Lean))
    calm, busy = (msgspec.structs.replace(found, row=name, load=load) for name, load in (("one", 0.52), ("two", 7.3)))
    assert "load before: 0.5." in report.markdown(report.Results(PLACE, [calm]))
    assert "load before: 0.5 to 7.3, the most before two." in report.markdown(report.Results(PLACE, [calm, busy]))


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (1_234_567, "/s", "1.23M/s"),
        (13_050, "/s", "13.1k/s"),
        (7, "/s", "7/s"),
        (16.44, "ms", "16.4 ms"),
        (312.4, "B", "312 B"),
        (1.04, "%", "1.04 %"),
    ],
)
def test_figures_have_three_digits(number: float, unit: Unit, text: str) -> None:
    assert report.figure(number, unit) == text


def test_the_table_goes_between_the_markers_and_nowhere_else() -> None:
    readme = f"# A\n\n{report.BEGIN}\nold\n{report.END}\n\nrest\n"
    written = report.with_table(readme, "| new |\n")
    assert written == f"# A\n\n{report.BEGIN}\n| new |\n{report.END}\n\nrest\n"
    assert report.table_of(written) == "| new |\n"
    for broken in ("# A\n", f"{report.END}{report.BEGIN}", readme + readme):
        with pytest.raises(ValueError, match="README needs one"):
            report.with_table(broken, "")


@pytest.mark.parametrize(("arguments", "says"), [(["nonsense"], "no row nonsense; there are single,"), (["--rounds", "2"], "fewer than 5")])
def test_wrong_usage_is_named(arguments: list[str], says: str) -> None:
    done = subprocess.run([sys.executable, "-m", "tests.bench", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert says in done.stderr


def committed() -> report.Results:
    results = report.load()
    assert results is not None, "nothing was measured yet: python -m tests.bench --long --readme"
    return results


def test_every_row_was_measured_and_nothing_else_stands_in_the_results() -> None:
    found = committed().comparisons
    measured = {each.row for each in found}
    wanted = {
        (row.name, row.work, against.contender.name if against.contender else None, against.goal, against.stage)
        for row in ROWS
        if not row.long or row.name in measured  # ten million events take most of an hour: who measures them adds them
        for against in row.against
    }
    assert {(each.row, each.work, each.against, each.goal, each.stage) for each in found} == wanted, "python -m tests.bench --readme"
    assert [each for each in found if each.status != "ok"] == [], (
        "a row without a figure: python -m pip install -e '.[bench]', measure again"
    )


def test_readme_shows_what_was_measured() -> None:
    table = (report.HERE / "results.md").read_text(encoding="utf-8")
    assert table == report.markdown(committed()), "results.md is not what results.json says: python -m tests.bench --render --readme"
    assert report.table_of(README.read_text(encoding="utf-8")) == table, "README's table is older: python -m tests.bench --render --readme"


def test_every_goal_that_is_not_met_is_named_with_its_reason() -> None:
    page = (report.HERE / "README.md").read_text(encoding="utf-8")
    section = page.partition("## What is not met, and why\n")[2].partition("\n## ")[0]
    named = {name.strip() for names in re.findall(r"^\* \*\*([^*]+)\.\*\*", section, re.MULTILINE) for name in names.split(",")}
    missed = {
        each.row
        for each in committed().comparisons
        for goal in (each.goal, each.stage)
        if goal and each.result and not goal.met(each.result.median)
    }
    assert missed <= named, "name these in tests/bench/README.md, section 'What is not met, and why', with what was measured of them"
    assert named <= {row.name for row in ROWS}
