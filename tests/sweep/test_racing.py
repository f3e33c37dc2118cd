"""rounds=race: who has the next round, who is dropped, when and why, and that the best cell is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import racing as benchmark
from runner.analysis.ranking import Ranking
from runner.config.sweep_options import RACE
from runner.report import notes
from runner.results.cells import LEVEL
from runner.results.metric_names import Metric
from runner.results.outcome import DROPPED_FILE, Dropped
from runner.stats.blocks import fit_logs
from runner.sweep.racing import beyond, go_on, next_round, step
from runner.sweep.rounds import budget_of, stages
from tests.builders import cell, ranked, record
from tests.conftest import TINY, Runner, records_of

KEYS = ("allocator",)


def race_of(*medians_s: tuple[float, ...]) -> Ranking:
    """Cells named by their place, each with these rounds; the first is the baseline."""
    records = [record(f"cell{number}", *([median] for median in rounds)) for number, rounds in enumerate(medians_s)]
    return ranked(records, "cell0", KEYS)


def test_the_fastest_eighth_has_a_second_round_and_the_baseline_with_it() -> None:
    dropped, going = next_round(race_of(*((1.0 - number / 100,) for number in range(64))), 2, {})
    assert dropped == {}
    assert going == {f"cell{number}" for number in range(56, 64)} | {"cell0"}


def test_cells_of_each_work_race_by_themselves() -> None:
    """A cell of one batch size is not dropped because the cells of another batch size take less time."""
    of_size = {"1": [(0.1, 0.1001), (0.05, 0.0501)], "8": [(1.0, 1.001), (0.5, 0.501), (0.502, 0.5)]}
    records = [
        record(f"{size}-{place}", *([median] for median in rounds), batch_size=size, allocator=f"a{place}")
        for size, cells in of_size.items()
        for place, rounds in enumerate(cells)
    ]
    dropped, going = next_round(ranked(records, "1-0", ("allocator", "batch_size")), 0.01, {})
    assert set(dropped) == {"1-0", "8-0"}
    assert dropped["8-0"].endswith("% slower than the fastest of 3")
    assert going == {"8-0", "8-1", "8-2"}


def test_each_further_round_goes_to_half_as_many_until_one_is_left() -> None:
    rng = np.random.default_rng(0)
    logs = np.zeros((40, 3))
    logs[:, 0] = rng.normal(0, 0.01, 40) + np.linspace(0, 0.02, 40)
    has = np.zeros(logs.shape, dtype=bool)
    has[:, 0] = has[:10, 1] = True
    logs[:10, 1] = rng.normal(0, 0.01, 10)
    after = step(fit_logs(logs[:, :2], has[:, :2]), range(40), 2)
    assert len(after.going) == 5
    clear = np.array([[0.0, 0.001], [0.5, 0.501], [0.6, 0.598]])
    decided = step(fit_logs(clear, np.ones((3, 2), dtype=bool)), range(3), 2)
    assert sorted(decided.dropped) == [1, 2]
    assert list(decided.going) == []


def test_a_cell_of_one_round_is_dropped_by_the_noise_of_the_others() -> None:
    far = race_of((1.0, 1.001), (0.5, 0.501), (0.502, 0.5), (0.9,), (0.501, 0.502))
    dropped, going = next_round(far, 0.01, {})
    assert set(dropped) == {"cell0", "cell3"}
    assert dropped["cell3"].endswith("% slower than the fastest of 5")
    assert "cell0" in going
    assert "cell3" not in going


def test_cells_as_good_as_equal_have_no_more_rounds() -> None:
    near = race_of((1.0, 1.0001, 1.0), (1.0001, 1.0, 1.0002), (1.0, 1.0002, 1.0001))
    assert next_round(near, 2, {}) == ({}, set())
    assert next_round(near, 0.001, {})[1]


def test_equal_cells_are_dropped_at_any_look_in_at_most_5_percent_of_races() -> None:
    # The best cell is one of many equal ones; each look spends a part of the level.
    rng = np.random.default_rng(1)
    lost = 0
    for _ in range(150):
        logs = rng.normal(0, 0.01, (12, 6))
        logs[1:] += 1e-9  # the first is the best, by nothing
        racing, first_is_out = list(range(12)), False
        for rounds in range(2, 7):
            after = step(fit_logs(logs[:, :rounds], np.ones((12, rounds), dtype=bool)), racing, 0.001)
            first_is_out |= 0 in after.dropped
            racing = [place for place in racing if place not in after.dropped]
        lost += first_is_out
    assert lost / 150 <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / 150)


def test_a_cell_past_a_limit_can_not_win_and_one_without_the_figure_can() -> None:
    where = {"p99_ms": 50.0, "rel_l2": 0.02, "memory_mb": 4000.0}
    slow = replace(cell(), metrics={**cell().metrics, Metric.P99: 60.0})
    assert beyond(slow, where) == "p99_ms is 60, past where.p99_ms=50"
    assert beyond(replace(slow, metrics={Metric.P99: 40.0, Metric.RSS_PEAK: 5000.0}), where).startswith(
        "memory_mb is 5000"
    )
    assert beyond(replace(slow, metrics={}), where) == ""


def test_what_was_dropped_when_and_why_stands_in_the_table_and_in_the_notes(tmp_path: Path) -> None:
    far = race_of((1.0, 1.001), (0.5, 0.501), (0.502, 0.5), (0.9,), (0.501, 0.502))
    for name in far.records:
        (tmp_path / "cells" / name).mkdir(parents=True)
    go_on(far, tmp_path, 0.01, {})
    assert {file.parent.name for file in tmp_path.glob(f"cells/*/{DROPPED_FILE}")} == {"cell0", "cell3"}
    records = [
        replace(one, dropped=Dropped(one.cell_id, 2, "79 % slower than the fastest of 5")) if name == "cell3" else one
        for name, one in far.records.items()
    ]
    ranking = ranked(records, "cell0", KEYS)
    row = next(row for row in ranking.rows if row.cell.cell_id == "cell3")
    assert row.answer == "dropped after round 2"
    (said,) = [note for note in notes.below(ranking.rows, KEYS) if "race" in note]
    assert said == "allocator=cell3: dropped from the race after round 2: 79 % slower than the fastest of 5"
    assert "cell3" not in go_on(ranking, tmp_path, 0.01, {})


def test_a_race_visits_every_cell_once_and_then_those_that_go_on_round_by_round() -> None:
    answers = iter(["abc", "ab", ""])
    found = list(stages("abcd", RACE, 0, lambda: next(answers)))
    assert [sorted(stage) for stage in found] == [
        [(0, "a"), (0, "b"), (0, "c"), (0, "d")],
        [(1, "a"), (1, "b"), (1, "c")],
        [(2, "a"), (2, "b")],
    ]


def test_a_race_has_a_budget_that_leaves_every_cell_its_first_round() -> None:
    budget = budget_of(RACE, 1e-9)
    assert budget is not None
    assert budget.allows("a")
    budget.record("a", 10)
    assert not budget.allows("a")


def test_the_benchmark_of_races_holds_its_claim_in_its_short_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--quick", "--seeds", "40"]) == 0
    assert float(capsys.readouterr().out.splitlines()[-1]) >= 0.95


@pytest.mark.slow
def test_a_race_of_real_cells_drops_what_is_past_a_limit_and_says_so(run_cli: Runner) -> None:
    words = ("-m", "launcher=none", "graph=eager,torchscript", "ipex=off,on", *TINY[:-1], "capture=[]", "reruns=0")
    ran = run_cli(*words, "rounds=race", "budget_min=0.5", "where={memory_mb: 1}")
    assert ran.status == 0, ran.out + ran.err
    assert "4 cells x 1 round, then more within 30 s for those that can still be the best" in ran.out
    # Nobody can win: the first round is the only one.
    assert [len(record.outcomes) for record in records_of(ran)] == [1, 1, 1, 1]
    assert ran.out.count("dropped from the race after round 1: memory_mb is ") == 4
