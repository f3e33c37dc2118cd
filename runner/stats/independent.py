"""The ratio of what two hosts took: nothing was measured beside anything, so that no round is shared.

Welch's t on logarithms (Welch 1947, Biometrika 34): latencies are positive, skewed to the right and compared as ratios.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runner.stats.blocks import satterthwaite
from runner.stats.distributions import student_quantile
from runner.stats.intervals import Interval
from runner.stats.shrinkage import RESOLUTION

CONFIDENCE = 0.95


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean of positive values, in their unit."""
    return float(np.exp(np.log(np.asarray(values, float)).mean()))


def ratio(first: Sequence[float], second: Sequence[float]) -> tuple[float, Interval | None]:
    """The ratio of the geometric means, first over second, with its interval.

    Args:
        first: one figure per unit of replication (processes of a machine, or machines of a kind), in seconds.
        second: as ``first``.

    Returns:
        The ratio, which has no unit, and its interval; no interval where a side has a single unit.
    """
    logs = [np.log(np.asarray(side, float)) for side in (first, second)]
    log_ratio = float(logs[0].mean() - logs[1].mean())
    if min(map(len, logs)) < 2:
        return float(np.exp(log_ratio)), None
    parts = [np.asarray(max(float(side.var(ddof=1)), RESOLUTION**2) / len(side)) for side in logs]
    df = satterthwaite(parts, [np.asarray(float(len(side) - 1)) for side in logs])
    half = float(student_quantile((1 + CONFIDENCE) / 2, df)) * float(np.sqrt(parts[0] + parts[1]))
    return float(np.exp(log_ratio)), Interval(
        float(np.exp(log_ratio - half)), float(np.exp(log_ratio + half)), CONFIDENCE
    )
