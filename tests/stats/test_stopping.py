"""When a process has measured enough: ranks of the median's interval, and what a look costs."""

from __future__ import annotations

import subprocess
import sys
from math import comb
from timeit import repeat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.protocol.stopping import enough, rank


@pytest.mark.parametrize("n", [6, 7, 10, 25, 64, 100, 999, 1000])
def test_the_ranks_enclose_the_median_95_times_in_100_and_no_narrower_pair_does(n: int) -> None:
    def outside(r: int) -> float:
        return 2 * float(sum(comb(n, k) for k in range(r)) / 2**n)

    assert outside(rank(n)) <= 0.05 < outside(rank(n) + 1)


@pytest.mark.parametrize("n", [1001, 5000])
def test_many_samples_use_a_rank_within_one_of_the_exact(n: int) -> None:
    below, r = 0, 0
    while (below := below + comb(n, r)) <= 2**n // 40:
        r += 1
    assert abs(rank(n) - r) <= 1


def test_the_interval_covers_the_true_median() -> None:
    samples = np.sort(np.random.default_rng(0).lognormal(0, 0.3, (2000, 100)), axis=1)
    r = rank(100)
    assert 0.94 <= np.mean((samples[:, r - 1] <= 1) & (samples[:, -r] >= 1)) <= 0.98


@given(st.lists(st.floats(min_value=1e-6, max_value=100), max_size=5), st.floats(1e-3, 10))
def test_under_six_samples_are_never_enough(samples: list[float], target: float) -> None:
    assert not enough(samples, target)


@given(st.lists(st.floats(min_value=1e-3, max_value=10), min_size=6, max_size=80), st.floats(1e-3, 10), st.data())
def test_order_unit_and_a_looser_target_do_not_turn_enough_into_too_few(
    samples: list[float], target: float, data: st.DataObject
) -> None:
    if enough(samples, target):
        assert enough(data.draw(st.permutations(samples)), target)
        assert enough([s * 4 for s in samples], target)
        assert enough(samples, target * 2)


def test_steady_samples_are_enough_and_noisy_ones_are_not_yet() -> None:
    rng = np.random.default_rng(0)
    assert enough(rng.normal(1, 0.01, 100).tolist(), 1)
    assert not enough(rng.normal(1, 0.1, 100).tolist(), 1)
    assert not enough([1.0] * 5, 1)
    assert enough([1.0] * 6, 1)


def test_a_target_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="target_ci_pct=0"):
        enough([1.0] * 10, 0)


def test_a_look_at_1000_samples_takes_less_than_a_fifth_of_a_millisecond() -> None:
    samples = np.random.default_rng(0).lognormal(0, 0.1, 1000).tolist()
    assert min(repeat(lambda: enough(samples, 1), number=10, repeat=5)) / 10 < 0.2e-3


def test_the_rule_loads_nothing_a_worker_should_not() -> None:
    code = "import sys, runner.protocol.stopping; sys.exit(bool({'numpy', 'scipy', 'runner.stats'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
