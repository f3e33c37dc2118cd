"""Notes on the shape of latencies: drifts, modes and tails are found, and noise gets no note."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from runner.stats import describe, effective_samples

Samples = NDArray[np.float64]


def lognormal(rng: np.random.Generator, n: int, cv: float) -> Samples:
    return 0.01 * np.exp(rng.normal(0, np.sqrt(np.log1p(cv**2)), n))


def bimodal(rng: np.random.Generator, n: int, cv: float) -> Samples:
    return lognormal(rng, n, cv) * np.where(rng.random(n) < 0.3, 1.15, 1)


def drifting(rng: np.random.Generator, n: int, cv: float) -> Samples:
    return lognormal(rng, n, cv) * np.linspace(1, 1.1, n)


def warming_up(rng: np.random.Generator, n: int, cv: float) -> Samples:
    return lognormal(rng, n, cv) * np.where(np.arange(n) < n // 10, 1.3, 1)


def stepping(rng: np.random.Generator, n: int, cv: float) -> Samples:
    return lognormal(rng, n, cv) * np.where(np.arange(n) < n // 2, 1, 1.15)


def long_tailed(rng: np.random.Generator, n: int, cv: float) -> Samples:
    return lognormal(rng, n, cv) * (1 + rng.exponential(0.1, n))


def remembering(rng: np.random.Generator, n: int, rho: float) -> Samples:
    """Autoregressive of order 1, standard deviation 5 %."""
    values = rng.normal(0, 0.05, n)
    for i in range(1, n):
        values[i] = rho * values[i - 1] + np.sqrt(1 - rho**2) * values[i]
    return np.asarray(0.01 * np.exp(values))


def share_noted(make: Callable[[np.random.Generator], Samples], word: str, times: int = 100) -> float:
    """How often a note that begins with ``word`` is made; with "" any note."""
    rng = np.random.default_rng(11)
    return float(np.mean([any(n.startswith(word) for n in describe(make(rng).tolist()).notes) for _ in range(times)]))


@pytest.mark.slow
def test_independent_samples_of_one_speed_get_no_note() -> None:
    def make(rng: np.random.Generator) -> Samples:
        return lognormal(rng, int(np.exp(rng.uniform(np.log(20), np.log(1000)))), rng.uniform(0.02, 0.2))

    assert share_noted(make, "", 500) <= 0.02


@pytest.mark.parametrize("n", [20, 50, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_length_is_prone_to_false_notes(n: int) -> None:
    assert share_noted(lambda rng: lognormal(rng, n, rng.uniform(0.02, 0.2)), "", 200) <= 0.02


@pytest.mark.parametrize(("n", "cv"), [(50, 0.02), (100, 0.03), (1000, 0.04)])
def test_two_modes_are_found(n: int, cv: float) -> None:
    assert share_noted(lambda rng: bimodal(rng, n, cv), "bimodal") >= 0.95


@pytest.mark.parametrize(("n", "cv"), [(50, 0.02), (200, 0.05), (1000, 0.1)])
def test_a_drift_of_10_percent_is_found(n: int, cv: float) -> None:
    assert share_noted(lambda rng: drifting(rng, n, cv), "drifts") >= 0.95


@pytest.mark.parametrize(("n", "cv"), [(50, 0.02), (50, 0.05), (1000, 0.1)])
def test_a_warm_up_of_30_percent_in_the_first_tenth_is_found(n: int, cv: float) -> None:
    assert share_noted(lambda rng: warming_up(rng, n, cv), "warms up") >= 0.95


@pytest.mark.parametrize("n", [50, 200])
def test_a_step_half_way_does_not_pass_without_a_note(n: int) -> None:
    assert share_noted(lambda rng: stepping(rng, n, 0.02), "") >= 0.95


def test_a_drift_is_not_two_modes_and_not_a_warm_up() -> None:
    assert share_noted(lambda rng: drifting(rng, 200, 0.02), "bimodal") <= 0.02
    assert share_noted(lambda rng: drifting(rng, 200, 0.02)[::-1], "warms up") <= 0.02


def test_a_long_tail_is_not_a_second_mode() -> None:
    assert share_noted(lambda rng: long_tailed(rng, 200, 0.02), "bimodal") <= 0.05
    assert share_noted(lambda rng: lognormal(rng, 200, 0.03) * np.where(rng.random(200) < 0.03, 3, 1), "bim") <= 0.02


def test_a_memory_between_iterations_is_not_a_drift() -> None:
    assert share_noted(lambda rng: remembering(rng, 200, 0.5), "drifts") <= 0.02


def test_the_notes_say_what_how_much_and_in_which_direction() -> None:
    rng = np.random.default_rng(0)
    (modes,) = describe((lognormal(rng, 400, 0.01) * np.where(np.arange(400) % 8 < 3, 1.3, 1)).tolist()).notes
    assert modes == "bimodal: 62 % near 10.0 ms, 38 % near 13.0 ms"
    (drift,) = describe((lognormal(rng, 400, 0.001) * np.linspace(1, 1.1, 400)).tolist()).notes
    assert drift == "drifts: the last tenth is 9 % slower than the first"
    (warm,) = describe(warming_up(rng, 400, 0.005).tolist()).notes
    assert warm == "warms up: the first 40 samples are 30 % slower than the rest; raise warmup"
    both = describe((warming_up(rng, 400, 0.001) * np.linspace(1.1, 1, 400)).tolist()).notes
    assert both[1] == "drifts: the last tenth is 7 % faster than the second"


def test_two_modes_come_fastest_first_with_their_shares() -> None:
    fast, slow = describe(bimodal(np.random.default_rng(0), 1000, 0.02).tolist()).modes
    assert fast.latency_s == pytest.approx(0.01, rel=0.01)
    assert slow.latency_s == pytest.approx(0.0115, rel=0.01)
    assert fast.share == pytest.approx(0.7, abs=0.05)
    assert fast.share + slow.share == pytest.approx(1)


def test_the_interval_of_a_drift_covers_it() -> None:
    rng = np.random.default_rng(1)
    found = [describe(drifting(rng, 100, 0.05).tolist()).drift_interval for _ in range(200)]
    # What lies after the first tenth of a line from 1 to 1.1.
    truth = 1.1 / np.linspace(1, 1.1, 100)[10] - 1
    assert np.mean([truth in each for each in found if each is not None]) >= 0.9


@pytest.mark.parametrize(("rho", "worth"), [(0.0, 1.0), (0.5, 1 / 3), (0.8, 1 / 9)])
def test_autocorrelated_samples_are_worth_fewer(rho: float, worth: float) -> None:
    rng = np.random.default_rng(2)
    found = [effective_samples(remembering(rng, 1000, rho).tolist()) / 1000 for _ in range(20)]
    assert np.median(found) == pytest.approx(worth, rel=0.3)


def test_samples_worth_less_than_a_quarter_get_a_note() -> None:
    assert share_noted(lambda rng: remembering(rng, 500, 0.9), "autocorrelated", 30) >= 0.95


def test_few_samples_have_no_shape() -> None:
    shape = describe([1.0, 2.0] * 9 + [1.0])
    assert (shape.warm_up, shape.drift, shape.drift_interval, shape.notes) == (None, None, None, ())


@given(st.lists(st.floats(min_value=1e-6, max_value=100), min_size=1, max_size=60), st.floats(0.1, 10))
@settings(deadline=None, max_examples=60)
def test_any_latencies_have_a_shape_that_lies_within_them(samples: list[float], factor: float) -> None:
    shape = describe(samples)
    assert sum(mode.share for mode in shape.modes) == pytest.approx(1)
    assert all(min(samples) * 0.999 <= mode.latency_s <= max(samples) * 1.001 for mode in shape.modes)
    assert 0 < shape.effective_samples <= shape.samples == len(samples)
    if shape.drift is not None and shape.drift_interval is not None:
        assert shape.drift_interval.low <= shape.drift <= shape.drift_interval.high


@pytest.mark.parametrize("value", [1e-9, 0.01, 3.0])
def test_a_clock_that_stands_still_gets_no_note(value: float) -> None:
    assert describe([value] * 100).notes == ()


@pytest.mark.parametrize("samples", [[], [float("nan")], [0.0], [-1.0]])
def test_samples_that_are_no_latencies_have_no_shape(samples: list[float]) -> None:
    with pytest.raises(ValueError, match=r"must be|needs"):
        describe(samples)
