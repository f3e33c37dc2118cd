"""Confidence intervals: how often they cover a known truth, and their laws."""

from __future__ import annotations

from statistics import median
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.stats import Interval, Processes, Statistic, by_round, fit, interval, ratio_interval
from runner.stats.distributions import normal_quantile
from runner.stats.intervals import hierarchical_bootstrap

LATENCY = st.floats(min_value=1e-6, max_value=100)
CELLS = st.lists(st.lists(LATENCY, min_size=1, max_size=30), min_size=2, max_size=8)

# Iterations are lognormal, cv 10 %, and one in a hundred takes three times as long.
SIGMA, OUTLIERS = float(np.sqrt(np.log1p(0.1**2))), 0.01
TRUE_P50 = float(np.exp(SIGMA * normal_quantile(0.5 / (1 - OUTLIERS))))


def noisy(rng: np.random.Generator, processes: int, iterations: int = 100) -> list[list[float]]:
    """A cell whose processes differ by 3 %."""
    each = rng.normal(0, 0.03, (processes, 1))
    samples = np.exp(each + rng.normal(0, SIGMA, (processes, iterations)))
    samples[rng.random(samples.shape) < OUTLIERS] *= 3
    return [list(map(float, row)) for row in samples]


def found(processes: Processes, statistic: Statistic = Statistic.P50) -> Interval:
    result = interval(processes, statistic)
    assert result is not None
    return result


@pytest.mark.parametrize("processes", [2, 3, 5, 6, 10])
def test_a_nominal_95_percent_interval_covers_the_truth(processes: int) -> None:
    rng = np.random.default_rng(processes)
    covered = [TRUE_P50 in found(noisy(rng, processes)) for _ in range(400)]
    assert np.mean(covered) >= 0.92


@pytest.mark.parametrize("processes", [3, 5, 10])
def test_the_interval_of_the_throughput_covers_the_truth(processes: int) -> None:
    truth = 1 / (np.exp(SIGMA**2 / 2) * (1 + 2 * OUTLIERS))
    rng = np.random.default_rng(processes)
    covered = [truth in found(noisy(rng, processes), Statistic.THROUGHPUT) for _ in range(400)]
    assert np.mean(covered) >= 0.9


@pytest.mark.parametrize("processes", [2, 3, 5, 6, 10])
@pytest.mark.parametrize(
    ("statistic", "quantile", "iterations"), [(Statistic.P90, 0.9, 100), (Statistic.P99, 0.99, 400)]
)
def test_the_interval_of_a_tail_covers_the_truth(
    statistic: Statistic, quantile: float, iterations: int, processes: int
) -> None:
    # Without outliers: one in a hundred would make p99 the edge between two kinds of iterations.
    truth = np.exp(SIGMA * normal_quantile(quantile))
    rng = np.random.default_rng(processes)
    logs = rng.normal(0, 0.03, (200, processes, 1)) + rng.normal(0, SIGMA, (200, processes, iterations))
    covered = [truth in found(cell.tolist(), statistic) for cell in np.exp(logs)]
    assert 0.91 <= np.mean(covered) <= 0.99


@pytest.mark.parametrize("processes", [3, 5, 10])
def test_a_nominal_95_percent_interval_of_the_speed_up_covers_the_truth(processes: int) -> None:
    rng = np.random.default_rng(processes)
    tables = [fit([by_round(noisy(rng, processes)) for _ in range(2)]) for _ in range(400)]
    found = [ratio_interval(table, 0, 1) for table in tables]
    assert np.mean([1.0 in each for each in found if each is not None]) >= 0.92


def test_a_bootstrap_of_two_or_three_processes_would_be_far_too_narrow() -> None:
    def covered(processes: int) -> float:
        rng = np.random.default_rng(1)
        hits = 0
        for _ in range(400):
            arrays = [np.array(samples) for samples in noisy(rng, processes)]
            low, high = np.quantile(hierarchical_bootstrap(arrays, Statistic.P50, 500), [0.025, 0.975])
            hits += low <= TRUE_P50 <= high
        return hits / 400

    assert covered(2) < 0.82
    assert covered(3) < 0.92


@pytest.mark.parametrize("statistic", [Statistic.P50, Statistic.P90, Statistic.THROUGHPUT])
@pytest.mark.parametrize("iterations", [21, 120])
def test_drawing_order_statistics_equals_drawing_every_iteration(statistic: Statistic, iterations: int) -> None:
    rng = np.random.default_rng(3)
    arrays = [np.array(samples) for samples in noisy(rng, 3, iterations)]
    rows = rng.integers(3, size=(6000, 3, 1))
    drawn = np.stack(arrays)[rows, rng.integers(iterations, size=(6000, 3, iterations))]
    each = {
        Statistic.P50: np.median(drawn, axis=2),
        Statistic.P90: np.quantile(drawn, 0.9, axis=2),
        Statistic.THROUGHPUT: 1 / drawn.mean(axis=2),
    }[statistic]
    plain = np.median(each, axis=1)
    quick = hierarchical_bootstrap(arrays, statistic, 6000)
    # Kolmogorov and Smirnov's distance: over 0.03 once in a hundred if both are the same distribution. The mean of many
    # iterations is resampled as a normal, which the outliers make it not quite.
    places = np.sort(plain)
    shares = [np.searchsorted(np.sort(figures), places, side="right") / 6000 for figures in (quick, plain)]
    assert np.abs(shares[0] - shares[1]).max() < (0.05 if statistic is Statistic.THROUGHPUT else 0.03)


@given(CELLS, st.sampled_from([Statistic.P50, Statistic.THROUGHPUT]))
@settings(deadline=None, max_examples=60)
def test_the_interval_holds_the_estimate(processes: list[list[float]], statistic: Statistic) -> None:
    each = [median(s) if statistic is Statistic.P50 else float(1 / np.mean(s)) for s in processes]
    result = found(processes, statistic)
    assert result.low <= median(each) * (1 + 1e-12)
    assert result.high >= median(each) * (1 - 1e-12)


@given(CELLS, st.floats(min_value=0.1, max_value=10))
@settings(deadline=None, max_examples=40)
def test_the_interval_scales_with_the_samples(processes: list[list[float]], factor: float) -> None:
    plain, scaled = found(processes), found([[s * factor for s in samples] for samples in processes])
    assert scaled.low == pytest.approx(plain.low * factor, rel=1e-6)
    assert scaled.high == pytest.approx(plain.high * factor, rel=1e-6)


@given(CELLS)
@settings(deadline=None, max_examples=40)
def test_neither_the_order_of_rounds_nor_of_iterations_matters(processes: list[list[float]]) -> None:
    turned = [samples[::-1] for samples in processes[::-1]]
    plain, other = found(processes), found(turned)
    assert other.low == pytest.approx(plain.low)
    assert other.high == pytest.approx(plain.high)


def test_the_same_data_give_the_same_interval() -> None:
    cell = noisy(np.random.default_rng(0), 8)
    assert interval(cell) == interval(cell)


def test_more_iterations_of_as_few_processes_hardly_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    few, many = (np.median([r.high - r.low for r in (found(noisy(rng, 5, n)) for _ in range(50))]) for n in (100, 1000))
    assert many > 0.8 * few


@pytest.mark.parametrize("statistic", list(Statistic))
def test_one_process_has_no_interval(statistic: Statistic) -> None:
    assert interval([[1.0] * 500], statistic) is None
    assert ratio_interval(fit([by_round([[1.0] * 500]), by_round([[2.0, 2.1]] * 5)]), 0, 1) is None


def test_too_few_samples_in_one_process_leave_a_quantile_without_an_interval() -> None:
    enough, too_few = [1.0 + i / 1000 for i in range(200)], [1.0 + i / 1000 for i in range(199)]
    assert interval([enough] * 6, Statistic.P99) is not None
    assert interval([enough] * 5 + [too_few], Statistic.P99) is None
    assert interval([too_few] * 3, Statistic.P90) is not None


@pytest.mark.parametrize("processes", [[], [[]], [[1.0], []], [[float("nan")], [1.0]], [[0.0], [1.0]]])
def test_samples_that_are_no_latencies_have_no_interval(processes: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"must be|needs"):
        interval(processes)


@pytest.mark.parametrize("processes", [5, 10])
def test_an_interval_of_thousands_of_iterations_takes_milliseconds(processes: int) -> None:
    cell = noisy(np.random.default_rng(0), processes, 1000)
    found(cell)
    started = perf_counter()
    found(cell)
    assert perf_counter() - started < 0.05
