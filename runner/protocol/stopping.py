"""When has one process measured enough? Apart from `runner.stats` because a worker asks: standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

# Beyond so many samples the binomial is as good as normal: the rank differs from the exact one by at most one.
EXACT_TO = 1000
# 97.5 % of a standard normal lie below: an interval of 95 %.
DEVIATE = 1.959964
# A median of fewer iterations has no interval at all; never timed less when a time is asked for.
MIN_ITERATIONS = 6
# Asked again each time there are so many times the samples: few looks, and at most half as many samples too many.
GROWTH = 1.5


@dataclass(frozen=True)
class Rule:
    """When a pass has timed enough."""

    iterations: int | None
    """Exactly so many; None: by the others, and never fewer than MIN_ITERATIONS."""
    min_time_s: float = 0.0
    """Not before."""
    max_time_s: float = 0.0
    """No iteration is begun after it."""
    target_ci_pct: float | None = None
    """Between the two: when the 95 % interval of this process's median is so narrow, in percent of it; None: never."""


@lru_cache(maxsize=256)
def rank(samples: int) -> int:
    """The largest r for which the r-th smallest and r-th largest of n samples enclose the median 95 times in 100.

    0 under 6 samples, where no pair does. From the binomial distribution: David & Nagaraja 2003, "Order
    Statistics", section 7.1; the same as Conover 1999, "Practical Nonparametric Statistics", section 3.2.
    """
    if samples > EXACT_TO:
        return int((samples - DEVIATE * samples**0.5) / 2)
    # The true median lies outside when fewer than r samples fall on one side: P(Bin(n, 1/2) < r) <= 2.5 %, each side.
    allowed, below, term, r = 2**samples // 40, 0, 1, 0
    while (below := below + term) <= allowed:
        r += 1
        term = term * (samples - r + 1) // r
    return r


def relative_width(samples: Sequence[float]) -> float | None:
    """Width of the distribution-free 95 % interval of the median, between two order statistics, over the median.

    Nominal for independent samples: where they are autocorrelated it is optimistic, and it never speaks of other
    processes. None under 6 samples.

    Args:
        samples: positive, in any unit and order.
    """
    n = len(samples)
    if not (r := rank(n)):
        return None
    ordered = sorted(samples)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return (ordered[n - r] - ordered[r - 1]) / median


def enough(samples: Sequence[float], target_ci_pct: float) -> bool:
    """Whether the median of this process is known to within ``target_ci_pct`` percent: see `relative_width`.

    To be asked at counts that grow by a factor: the few looks then cost little of the level.

    Raises:
        ValueError: the target is not above 0.
    """
    if not target_ci_pct > 0:
        raise ValueError(f"target_ci_pct={target_ci_pct} must be above 0")
    width = relative_width(samples)
    return width is not None and 100 * width <= target_ci_pct
