"""When has one process measured enough? Apart from `runner.stats` because a worker asks: standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

# Beyond so many samples the binomial is as good as normal: the rank differs from the exact one by at most one.
EXACT_TO = 1000
# 97.5 % of a standard normal lie below: an interval of 95 %.
DEVIATE = 1.959964


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


def enough(samples: Sequence[float], target_rel_width: float, floor: int) -> bool:
    """Whether the median of this process is known to within ``target_rel_width``.

    The width is that of the distribution-free 95 % interval of the median, between two order statistics, over the
    median. Nominal for independent samples: where they are autocorrelated it is optimistic, and it never speaks of
    other processes. To be asked at doubling counts: the few looks then cost little of the level.

    Args:
        samples: latencies so far, in seconds, in any order.
        target_rel_width: e.g. 0.01 for an interval 1 % of the median wide.
        floor: never enough under so many samples; and never under 6.

    Raises:
        ValueError: the target is not above 0.
    """
    if not target_rel_width > 0:
        raise ValueError(f"target_rel_width={target_rel_width} must be above 0")
    n = len(samples)
    if n < floor or not (r := rank(n)):
        return False
    ordered = sorted(samples)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return ordered[n - r] - ordered[r - 1] <= target_rel_width * median
