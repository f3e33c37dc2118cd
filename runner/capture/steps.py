"""A figure of each step -> its median over all of them. Pure."""

from __future__ import annotations

from collections.abc import Collection
from statistics import median


def median_over(found: Collection[float], steps: int) -> float:
    """The median over so many steps, none below 0, of which those that are not among the ``found`` have 0.

    Fills in no more zeros than there are figures: a damaged log can name any number of steps.
    """
    idle = steps - len(found)
    return 0.0 if idle > len(found) else median([*found, *[0.0] * idle])
