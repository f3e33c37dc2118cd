"""rounds=auto: which cells get more rounds, that looking more often raises no false alarms, and the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import early_stop
from runner.analysis.ranking import Row
from runner.config.sweep_options import AUTO
from runner.matrix.rules import rounds_in_order
from runner.results.cells import LEVEL
from runner.stats.distributions import student_p
from runner.sweep.rounds import LOOKS, Budget, level_of, stages, undecided
from tests.builders import ranked, record


def rows_of(cells: Mapping[str, Sequence[float]]) -> Sequence[Row]:
    """Ranked as rounds=auto sees them; the first is the baseline."""
    records = [record(name, *([median] for median in medians)) for name, medians in cells.items()]
    return ranked(records, next(iter(cells)), level=level_of(AUTO)).rows


CLEAR = [1.000, 1.001, 0.999]
HALF = [0.500, 0.501, 0.499]
NOISY = [0.90, 1.10, 1.02]
NEAR_HALF = [0.470, 0.540, 0.500]


def test_cells_that_are_told_apart_get_no_more_rounds() -> None:
    assert undecided(rows_of({"base": CLEAR, "fast": HALF}), 2) == set()


def test_a_cell_like_the_baseline_gets_more_rounds_and_the_baseline_with_it() -> None:
    assert undecided(rows_of({"base": CLEAR, "noisy": NOISY, "fast": HALF}), 2) == {"base", "noisy"}


def test_a_cell_like_the_fastest_gets_more_rounds_and_the_fastest_with_it() -> None:
    found = undecided(rows_of({"base": CLEAR, "fast": HALF, "near": NEAR_HALF, "slow": [2.0, 2.001, 1.999]}), 2)
    assert found == {"fast", "near"}


def test_each_work_gets_more_rounds_by_itself() -> None:
    of_work = {"1": {"base": CLEAR, "fast": HALF}, "8": {"base": CLEAR, "noisy": NOISY, "fast": HALF}}
    records = [
        record(f"{name}-{size}", *([median] for median in medians), batch_size=size, allocator=name)
        for size, cells in of_work.items()
        for name, medians in cells.items()
    ]
    rows = ranked(records, "base-1", ("allocator", "batch_size"), level=level_of(AUTO)).rows
    assert undecided(rows, 2) == {"base-8", "noisy-8"}


def test_cells_as_good_as_equal_are_left_alone_when_a_difference_worth_finding_would_have_shown() -> None:
    alike = [1.0002, 0.9995, 1.0003]
    assert undecided(rows_of({"base": CLEAR, "alike": alike}), 2) == set()
    assert undecided(rows_of({"base": CLEAR, "alike": alike}), 0.01) == {"base", "alike"}


def test_wrong_and_failed_cells_and_a_cell_alone_get_no_more_rounds() -> None:
    noisy = [[median] for median in NOISY]
    records = [record("base", *([median] for median in CLEAR)), record("wrong", *noisy, quality="past the tolerance")]
    assert undecided(ranked(records, "base", level=level_of(AUTO)).rows, 2) == set()
    assert undecided(rows_of({"base": NOISY}), 2) == set()
    assert undecided([], 2) == set()


# -- stages ----------------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.integers(1, 7), st.integers(0, 99))
def test_a_number_of_rounds_is_one_stage(cells: int, rounds: int, seed: int) -> None:
    assert list(stages(range(cells), rounds, seed, list)) == [rounds_in_order(range(cells), rounds, seed)]


def test_auto_goes_on_from_look_to_look_with_the_undecided_and_ends_at_the_last() -> None:
    found = list(stages("abc", AUTO, 0, lambda: "ac"))
    assert sorted(found[0]) == sorted((number, cell) for number in range(LOOKS[0]) for cell in "abc")
    later = [job for stage in found[1:] for job in stage]
    assert sorted(later) == sorted((number, cell) for number in range(LOOKS[0], LOOKS[-1]) for cell in "ac")
    assert [number for number, _ in later] == sorted(number for number, _ in later)


def test_auto_ends_when_nothing_is_undecided() -> None:
    answers = iter(["ab", ""])
    found = list(stages("abc", AUTO, 0, lambda: next(answers)))
    assert [len(stage) for stage in found] == [3 * LOOKS[0], 2 * (LOOKS[1] - LOOKS[0])]


# -- what looking costs and finds ------------------------------------------------------------------------


def swept(rng: np.random.Generator, speeds: Sequence[float], process_sd: float) -> tuple[Sequence[Row], int]:
    """A sweep with rounds=auto of cells with these speeds; its rows, and how many jobs it took."""
    medians: dict[str, list[float]] = {str(number): [] for number in range(len(speeds))}
    jobs = 0
    for stage in stages(list(medians), AUTO, 0, lambda: sorted(undecided(rows_of(medians), 2))):
        for _, cell in stage:
            medians[cell].append(speeds[int(cell)] * float(np.exp(rng.normal(0, process_sd))))
        jobs += len(stage)
    return rows_of(medians), jobs


@pytest.mark.slow
def test_equal_cells_are_called_different_in_at_most_5_percent_of_sweeps_however_often_it_looks() -> None:
    rng = np.random.default_rng(1)
    flagged = sum(
        any(row.answer in ("faster", "slower") for row in swept(rng, [1, 1, 1], 0.015)[0]) for _ in range(120)
    )
    assert flagged <= 120 * LEVEL


@pytest.mark.slow
def test_three_percent_are_found_in_95_percent_of_sweeps_and_a_large_difference_at_the_first_look() -> None:
    rng = np.random.default_rng(2)
    found = [swept(rng, [1, 1.03], 0.011) for _ in range(200)]
    assert sum(rows[-1].answer == "slower" for rows, _ in found) >= 190
    large = [swept(rng, [1, 0.5], 0.011)[1] for _ in range(20)]
    assert np.mean(large) < 2 * LOOKS[0] + 1


# -- budget ----------------------------------------------------------------------------------------------


def test_no_job_is_started_that_would_end_after_the_budget() -> None:
    now = [0.0]
    budget = Budget(1.0, lambda: now[0])
    assert budget.allows("a")
    budget.record("a", 25)
    now[0] = 25.0
    assert budget.allows("b")
    budget.record("b", 20)
    now[0] = 39.0
    assert budget.allows("b")
    assert not budget.allows("a")
    assert not budget.allows("never run: as long as the longest")


def test_the_rounds_that_every_cell_is_promised_are_run_whatever_the_budget() -> None:
    budget = Budget(1.0, lambda: 1e6, promised=2)
    for _ in range(2):
        assert budget.allows("a")
        budget.record("a", 1e9)
    assert not budget.allows("a")
    assert budget.allows("b")


def test_all_looks_together_have_one_level() -> None:
    # Sums of normal deviates: what a look sees is part of what the next one sees.
    rng = np.random.default_rng(0)
    steps = np.diff([0, *LOOKS])
    seen = np.cumsum(rng.normal(size=(100_000, len(LOOKS))) * np.sqrt(steps), axis=1) / np.sqrt(LOOKS)
    p = student_p(seen, np.full(len(LOOKS), np.inf))
    assert np.mean((p <= level_of(AUTO)).any(axis=1)) == pytest.approx(LEVEL, abs=0.002)
    assert level_of(5) == LEVEL


def test_the_benchmark_of_the_early_stop_holds_its_claims_in_its_short_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert early_stop.main(["--quick", "--sweeps", "60"]) == 0
    assert float(capsys.readouterr().out.splitlines()[-1]) > 0.6
