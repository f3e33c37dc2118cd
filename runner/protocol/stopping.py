"""When has a process measured enough? The worker asks, so this file uses the standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

# With more samples the binomial is nearly normal: the rank differs from the exact one by at most one.
EXACT_TO = 1000
# 97.5 % of a standard normal lie below this, which makes an interval of 95 %.
DEVIATE = 1.959964
# The median of fewer iterations has no interval, so that a rule by time never stops before them.
MIN_ITERATIONS = 6
# The rule is asked again when the samples have grown by this factor: it takes few looks, and times at most half as many
# samples too many.
GROWTH = 1.5


@dataclass(frozen=True)
class Rule:
    """When a pass stops timing."""

    iterations: int | None
    """Stop after exactly this many iterations; None: stop by the other fields, after at least MIN_ITERATIONS."""
    min_time_s: float = 0.0
    """Do not stop before this many seconds."""
    max_time_s: float = 0.0
    """Begin no iteration after this many seconds."""
    target_ci_pct: float | None = None
    """Between the two times, stop once the 95 % interval of the process's median is at most this wide, in percent of
    the median; None: stop by time only."""


@lru_cache(maxsize=256)
def rank(samples: int) -> int:
    """The largest r for which the r-th smallest and r-th largest of n samples enclose the median 95 times in 100.

    It is 0 under 6 samples, where no pair does. The binomial distribution gives it: David & Nagaraja 2003, "Order
    Statistics", section 7.1, which agrees with Conover 1999, "Practical Nonparametric Statistics", section 3.2.
    """
    if samples > EXACT_TO:
        return int((samples - DEVIATE * samples**0.5) / 2)
    # The true median lies outside if fewer than r samples are on one side: P(Bin(n, 1/2) < r) <= 2.5 % for each side.
    allowed, below, term, r = 2**samples // 40, 0, 1, 0
    while (below := below + term) <= allowed:
        r += 1
        term = term * (samples - r + 1) // r
    return r


def relative_width(samples: Sequence[float]) -> float | None:
    """The width of the distribution-free 95 % interval of the median, between two order statistics, over the median.

    The level holds for independent samples: the interval is too narrow if they are autocorrelated, and it says nothing
    about other processes. None under 6 samples.

    Args:
        samples: positive numbers, in any unit and order.
    """
    n = len(samples)
    if not (r := rank(n)):
        return None
    ordered = sorted(samples)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return (ordered[n - r] - ordered[r - 1]) / median


def enough(samples: Sequence[float], target_ci_pct: float) -> bool:
    """Whether the median of this process is known to within ``target_ci_pct`` percent: see `relative_width`.

    Ask it at counts that grow by a factor: so few looks hardly change the level.

    Raises:
        ValueError: the target is not above 0.
    """
    if not target_ci_pct > 0:
        raise ValueError(f"target_ci_pct={target_ci_pct}: it must be above 0")
    width = relative_width(samples)
    return width is not None and 100 * width <= target_ci_pct
