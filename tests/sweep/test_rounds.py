"""rounds=auto: which cells get more rounds, that looking more often raises no false alarms, and the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.analysis.ranking import LEVEL, Row, rank
from runner.config.limits import AUTO
from runner.matrix.rules import rounds_in_order
from runner.protocol.resultfile import WorkerResult
from runner.protocol.verdicts import EvidenceVerdict, Status
from runner.results.outcome import CellRecord, Outcome
from runner.sweep.rounds import LOOKS, Budget, level_of, stages, undecided
from tests.conftest import CELL


def record(name: str, medians_s: Sequence[float], quality: str = "ok") -> CellRecord:
    """A cell whose processes had these medians."""
    axes = {**CELL.axes, "allocator": name}
    outcomes = [
        Outcome(
            name, number, axes, Status.FINISHED, evidence=EvidenceVerdict.OK, quality=quality, settings=CELL.settings
        )
        for number in range(len(medians_s))
    ]
    results = {(number, 0): WorkerResult(name, number, [value]) for number, value in enumerate(medians_s)}
    return CellRecord(name, axes, outcomes, results)


def rows_of(cells: Mapping[str, Sequence[float]]) -> list[Row]:
    """Ranked as rounds=auto sees them; the first is the baseline."""
    return rank([record(name, medians) for name, medians in cells.items()], next(iter(cells)), level_of(AUTO))


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


def test_cells_as_good_as_equal_are_left_alone_when_a_difference_worth_finding_would_have_shown() -> None:
    alike = [1.0002, 0.9995, 1.0003]
    assert undecided(rows_of({"base": CLEAR, "alike": alike}), 2) == set()
    assert undecided(rows_of({"base": CLEAR, "alike": alike}), 0.01) == {"base", "alike"}


def test_wrong_and_failed_cells_and_a_cell_alone_get_no_more_rounds() -> None:
    wrong = rank([record("base", CLEAR), record("wrong", NOISY, "past the tolerance")], "base", level_of(AUTO))
    assert undecided(wrong, 2) == set()
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


def swept(rng: np.random.Generator, speeds: Sequence[float], process_sd: float) -> tuple[list[Row], int]:
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
    assert budget.allows(["a"])
    budget.record("a", 25)
    now[0] = 25.0
    assert budget.allows(["a", "b"])
    budget.record("b", 20)
    now[0] = 39.0
    assert budget.allows(["b"])
    assert not budget.allows(["a"])
    assert not budget.allows(["never run: as long as the longest"])


@pytest.mark.parametrize("rounds", [1, 5, AUTO])
def test_the_levels_of_all_looks_add_up_to_one_level(rounds: int | str) -> None:
    assert level_of(rounds) * (len(LOOKS) if rounds == AUTO else 1) == pytest.approx(LEVEL)
