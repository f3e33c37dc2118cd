"""Rounds as blocks: what a round does to all cells is no noise, missing rounds are counted, and noise may differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks import power
from runner.stats.blocks import Fit, fit, fit_logs, of_pairs
from runner.stats.distributions import student_p
from runner.stats.estimates import Floats
from runner.stats.shrinkage import moderated


def table(
    rng: np.random.Generator, cells: int = 6, rounds: int = 5, missing: float = 0.0
) -> tuple[Floats, NDArray[np.bool_]]:
    """Log medians of equal cells, and where there are any; every cell has two rounds at least."""
    logs = rng.normal(0, 0.01, (cells, rounds)) + rng.normal(0, 0.05, rounds)
    has = rng.random((cells, rounds)) >= missing
    has[:, :2] = True
    return np.where(has, logs, 0.0), has


def fitted(logs: Floats, has: NDArray[Any]) -> Fit:
    return fit_logs(logs, has.astype(bool))


@given(st.integers(0, 99), st.integers(3, 6), st.integers(3, 6), st.floats(0, 0.4))
def test_means_are_those_of_least_squares_with_a_constant_for_each_cell_and_round(
    seed: int, cells: int, rounds: int, missing: float
) -> None:
    logs, has = table(np.random.default_rng(seed), cells, rounds, missing)
    rows, columns = np.nonzero(has)
    design = np.zeros((len(rows), cells + rounds))
    design[np.arange(len(rows)), rows] = design[np.arange(len(rows)), cells + columns] = 1
    solution, *_ = np.linalg.lstsq(design, logs[rows, columns], rcond=None)
    residuals = logs[rows, columns] - design @ solution
    found = fitted(logs, has)
    assert found.differences(0, [1, 2]).log_ratio == pytest.approx(solution[0] - solution[1:3], abs=1e-9)
    assert found.total_df == pytest.approx(len(rows) - np.linalg.matrix_rank(design))
    # Equally noisy cells have the pooled variance; this one's share of the residuals decides nothing then.
    if np.ptp(found.variance) == 0:
        assert found.variance == pytest.approx((residuals**2).sum() / found.total_df)


@given(st.integers(0, 99), st.floats(0, 0.4), st.integers(2, 5))
def test_what_rounds_do_changes_neither_difference_nor_error(seed: int, missing: float, cells: int) -> None:
    rng = np.random.default_rng(seed)
    logs, has = table(rng, max(cells, 3), 5, missing)
    shifted = np.where(has, logs + rng.normal(0, 1, 5), 0.0)
    before, after = (fitted(one, has).differences(0, range(1, len(logs))) for one in (logs, shifted))
    assert after.log_ratio == pytest.approx(before.log_ratio, abs=1e-9)
    assert after.error == pytest.approx(before.error, rel=1e-5)


def test_the_error_of_a_missing_round_is_that_of_least_squares() -> None:
    logs, has = table(np.random.default_rng(0), 3, 4)
    has[1, 3] = False
    found = fitted(np.where(has, logs, 0.0), has)
    rows, columns = np.nonzero(has)
    design = np.zeros((len(rows), 7))
    design[np.arange(len(rows)), rows] = design[np.arange(len(rows)), 3 + columns] = 1
    covariance = np.linalg.pinv(design.T @ design)
    contrast = np.array([1.0, -1, 0, 0, 0, 0, 0])
    weights = design @ covariance @ contrast
    expected = np.sqrt((weights**2 * found.variance[rows]).sum())
    assert found.differences(0, [1]).error == pytest.approx([expected])


def test_two_cells_are_paired_where_rounds_are_seen_to_differ_and_keep_their_freedom_where_not() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 0.01, (2, 5))
    shifted = noise + np.array([0.0, 0.2, -0.1, 0.3, 0.1])
    paired = fitted(shifted, np.ones((2, 5))).differences(0, [1])
    assert paired.df == pytest.approx([4.0])
    difference = shifted[0] - shifted[1]
    assert paired.error == pytest.approx([difference.std(ddof=1) / np.sqrt(5)])
    unpaired = fitted(noise, np.ones((2, 5))).differences(0, [1])
    assert unpaired.df[0] > 4
    assert unpaired.error[0] >= np.sqrt(noise.var(axis=1, ddof=1).sum() / 5) - 1e-12


@given(st.integers(0, 99), st.integers(2, 6))
def test_many_pairs_at_once_are_tested_as_each_alone(seed: int, rounds: int) -> None:
    rng = np.random.default_rng(seed)
    one, two = rng.normal(0, 0.01, (2, 4, rounds)) + rng.normal(0, 0.02, (4, rounds))
    together = of_pairs(one, two)
    alone = [
        fitted(np.stack(pair), np.ones((2, rounds))).differences(0, [1]).p[0] for pair in zip(one, two, strict=True)
    ]
    assert together.p == pytest.approx(alone)


def test_cells_without_a_common_round_are_compared_as_welch_does() -> None:
    from scipy import stats  # type: ignore[import-untyped]

    rng = np.random.default_rng(5)
    one, two = rng.lognormal(0, 0.01, 5), rng.lognormal(0.01, 0.02, 4)
    cells = [{("a", n): v for n, v in enumerate(one)}, {("b", n): v for n, v in enumerate(two)}]
    expected = stats.ttest_ind(np.log(one), np.log(two), equal_var=False)
    assert fit(cells).differences(0, [1]).p == pytest.approx([expected.pvalue])
    # A third cell that shares rounds with one of them connects nothing.
    third = {("a", n): v for n, v in enumerate(rng.lognormal(0, 0.01, 5))}
    assert fit([*cells, third]).differences(0, [1]).p == pytest.approx([expected.pvalue])


def test_cells_of_disjoint_rounds_are_connected_by_one_that_has_both() -> None:
    rng = np.random.default_rng(1)
    logs = rng.normal(0, 0.001, (4, 6)) + np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    has = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    found = fitted(np.where(has, logs, 0.0), has).differences(0, [1])
    assert abs(found.log_ratio[0]) < 0.01
    assert found.error[0] < 0.01


def test_a_single_process_helps_with_the_rounds_and_is_compared_with_none() -> None:
    logs, has = table(np.random.default_rng(0), 4, 3)
    has[3, 1:] = False
    found = fitted(np.where(has, logs, 0.0), has).differences(0, [1, 2, 3])
    assert np.isnan(found.p).tolist() == [False, False, True]


@pytest.mark.parametrize("broken", [[], [{}], [{0: 1.0}, {}], [{0: 0.0}], [{0: float("nan")}], [{0: -1.0}]])
def test_what_is_no_latency_is_refused(broken: list[dict[int, float]]) -> None:
    with pytest.raises(ValueError, match=r"must be|needs"):
        fit(broken)


# -- how noisy each cell is ------------------------------------------------------------------------------


def test_equally_noisy_cells_share_one_variance_and_all_its_freedom() -> None:
    variance, df = moderated(np.array([2.0, 2.1, 1.9, 2.0]), np.full(4, 2.0))
    assert variance == pytest.approx([1.0] * 4)
    assert df == pytest.approx([8.0] * 4)


def test_a_cell_that_is_far_noisier_keeps_its_own_variance_and_freedom() -> None:
    variance, df = moderated(np.array([*[2.0] * 9, 200.0]), np.full(10, 2.0))
    assert variance[-1] >= 100.0
    assert df[-1] == 2.0
    assert variance[0] < 20.0


def test_variances_that_differ_by_more_than_chance_are_drawn_together_only_in_part() -> None:
    rng = np.random.default_rng(0)
    true = np.exp(rng.normal(0, 1.5, 200))
    squares = true * rng.chisquare(4, 200)
    variance, df = moderated(squares, np.full(200, 4.0))
    own = squares / 4
    assert (np.log(variance / true) ** 2).mean() < (np.log(own / true) ** 2).mean()
    assert 4.0 < np.median(df) < 10


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=8), st.floats(0.1, 10))
def test_variances_have_the_unit_of_the_squares_and_lie_within_them(squares: list[float], factor: float) -> None:
    freedom = np.full(len(squares), 3.0)
    variance, df = moderated(np.array(squares), freedom)
    assert (variance > 0).all()
    assert (variance <= max(max(squares) / 3, 1e-18) * 1.000001 + 1e-18).all() or len(squares) > 1
    assert (df <= 3.0 * len(squares) + 1e-9).all()


def test_without_any_residual_no_variance_is_known() -> None:
    variance, df = moderated(np.array([1.0, 2.0]), np.zeros(2))
    assert np.isnan(variance).all()
    assert np.isnan(df).all()


def test_equal_cells_are_flagged_at_most_as_often_as_the_level_says_whatever_the_rounds_do() -> None:
    rng = np.random.default_rng(3)
    p = [fitted(*table(rng, 4, 5, missing=0.2)).differences(0, [1]).p[0] for _ in range(1500)]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1500)
    assert student_p(np.array([0.0]), np.array([3.0])) == pytest.approx([1.0])


def test_the_benchmark_of_what_is_found_holds_its_claims_in_its_short_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert power.main(["--quick", "--sweeps", "100"]) == 0
    out = capsys.readouterr().out
    assert float(out.splitlines()[-1]) > 0.9
