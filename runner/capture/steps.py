"""Captured iterations: how long one of them may take, and the median of a figure over all of them. Pure."""

from __future__ import annotations

from collections.abc import Collection
from statistics import median

# A captured iteration that took more than this many times as long as the timed ones is another one: others disturbed
# it, or recording it took its time.
UNLIKE_FACTOR = 1.25


def median_over(figures: Collection[float], iterations: int) -> float:
    """The median over ``iterations`` iterations; those without a figure count as 0, and no figure is below 0.

    At most as many zeros are filled in as there are figures: a damaged log can name any number of iterations.
    """
    idle = iterations - len(figures)
    return 0.0 if idle > len(figures) else median([*figures, *[0.0] * idle])
