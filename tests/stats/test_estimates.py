"""Estimates of one cell: medians over processes, tails, and what they need."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.stats import estimate, needs, quantile, samples_needed

LATENCY = st.floats(min_value=1e-6, max_value=100)
PROCESSES = st.lists(st.lists(LATENCY, min_size=1, max_size=40), min_size=1, max_size=5)


@given(PROCESSES)
def test_the_median_lies_within_the_samples(processes: list[list[float]]) -> None:
    found = estimate(processes)
    every = [sample for samples in processes for sample in samples]
    assert min(every) <= found.p50_s <= max(every)
    assert found.iterations == len(every)
    assert found.processes == len(processes)


@given(PROCESSES)
def test_the_order_of_processes_does_not_matter(processes: list[list[float]]) -> None:
    assert estimate(processes) == estimate(processes[::-1])


@given(st.lists(LATENCY, min_size=1, max_size=30), st.floats(min_value=0.5, max_value=2))
def test_figures_scale_with_the_samples(samples: list[float], factor: float) -> None:
    assert estimate([[s * factor for s in samples]]).p50_s == pytest.approx(factor * estimate([samples]).p50_s)


def test_a_process_counts_once_however_many_iterations_it_has() -> None:
    assert estimate([[1.0] * 1000, [2.0], [3.0]]).p50_s == 2.0


def test_the_difference_between_processes_needs_two() -> None:
    assert estimate([[1.0, 1.0]]).process_spread is None
    assert estimate([[1.0], [1.2]]).process_spread == pytest.approx(0.2 / 1.1)


@pytest.mark.parametrize(("q", "needed"), [(0.5, 4), (0.9, 20), (0.99, 200)])
def test_a_quantile_is_refused_under_the_samples_it_needs(q: float, needed: int) -> None:
    samples = list(np.linspace(1, 2, needed))
    assert samples_needed(q) == needed
    assert quantile(samples[:-1], q) is None
    assert quantile(samples, q) == pytest.approx(1 + q)


def test_ten_samples_never_yield_a_p99() -> None:
    assert estimate([[1.0] * 10] * 5).p99_s is None
    assert needs(0.99) == "needs 200 latencies"
    assert needs(0.9) == "needs 20 latencies"


@pytest.mark.parametrize("processes", [[], [[]], [[1.0], []], [[float("nan")]], [[0.0]], [[-1.0]], [[float("inf")]]])
def test_samples_that_are_no_latencies_are_refused(processes: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"must be|needs"):
        estimate(processes)
