"""Captured iterations: how long one of them may take, and the median of a figure over all of them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
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


def seconds_per_iteration(times: Iterable[tuple[str, Hashable, float]], iterations: Mapping[str, int]) -> float:
    """The seconds of an iteration: of each copy of oneDNN the median over its iterations, summed over the copies.

    Args:
        times: (copy, iteration, seconds) of what is added up.
        iterations: copy -> how many iterations it logged.
    """
    sums: dict[str, dict[Hashable, float]] = {}
    for copy, step, seconds in times:
        by_step = sums.setdefault(copy, {})
        by_step[step] = by_step.get(step, 0.0) + seconds
    return sum(median_over(by_step.values(), iterations[copy]) for copy, by_step in sums.items())
