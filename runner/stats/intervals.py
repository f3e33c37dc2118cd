"""How sure a cell's figure is: intervals that take into account that processes differ.

The method depends on the number of processes:

* 2 to 5: Student's t on the logarithms of the processes' figures, with n - 1 degrees of freedom (Student 1908,
  Biometrika 6(1)). A percentile bootstrap can't reach past the slowest and fastest process: where 95 % is claimed, it
  covers 78 % with 2 processes and 89 % with 3 (tests/stats/test_intervals.py).
  Logarithms are used because latencies are positive, skewed to the right, and compared as ratios.
* 6 and more: the hierarchical percentile bootstrap, which draws processes with replacement and then iterations within
  each (Davison & Hinkley 1997, section 3.8; Kalibera & Jones 2013).
* 1: there is no interval. The iterations of a process say nothing about the next process.

The bootstrap is cheap for this reason: the j-th smallest of n draws with replacement is the sample at rank ceil(n U),
where U is the j-th smallest of n uniforms and so Beta(j, n - j + 1) (David & Nagaraja 2003, "Order Statistics", section
2.1). A resampled quantile thus takes one or two beta draws, and is distributed exactly as if all n iterations had been
drawn. A resampled mean of many iterations is normal by the central limit theorem (Singh 1981, Ann. Statist. 9(6)); if
there are few, they are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from runner.stats.distributions import student_quantile
from runner.stats.estimates import Floats, Processes, checked, quantile

RESAMPLES = 2000
# Cells with fewer processes get Student's t.
BOOTSTRAP_FROM = 6
# A process with at least this many iterations has its mean resampled by the central limit theorem.
NORMAL_MEAN_FROM = 100
# A fixed seed, so that the same data give the same interval on every machine.
SEED = 20_130_620


class Statistic(Enum):
    """The figure that an interval is about: the median over processes of this figure of each process."""

    P50 = "p50"
    """The median, in seconds."""
    P90 = "p90"
    """The 90th percentile, in seconds; needs 20 samples per process."""
    P99 = "p99"
    """The 99th percentile, in seconds; needs 200 samples per process."""
    THROUGHPUT = "throughput"
    """Iterations per second, 1 / mean latency."""


QUANTILES = {Statistic.P50: 0.5, Statistic.P90: 0.9, Statistic.P99: 0.99}


@dataclass(frozen=True)
class Interval:
    """A confidence interval, ends included, in the unit of its figure."""

    low: float
    high: float
    level: float
    """The share of such intervals that hold the true figure, like 0.95."""

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def _figure(samples: Floats, statistic: Statistic) -> float | None:
    """The figure of one process; None if it has too few samples, which a median never has, as in `estimate`."""
    if statistic is Statistic.THROUGHPUT:
        return float(1 / samples.mean())
    if statistic is Statistic.P50:
        return float(np.median(samples))
    return quantile(samples.tolist(), QUANTILES[statistic])


def log_student(figures: Floats, level: float) -> Interval:
    """Student's t interval for the geometric mean of at least two positive ``figures``, in their unit."""
    logs = np.log(figures)
    tail = float(student_quantile((1 + level) / 2, len(logs) - 1.0))
    half = tail * float(logs.std(ddof=1)) / float(np.sqrt(len(logs)))
    with np.errstate(over="ignore"):
        low, high = np.exp([logs.mean() - half, logs.mean() + half])
    return Interval(float(low), float(high), level)


def _resampled(samples: Floats, statistic: Statistic, count: int, rng: np.random.Generator) -> Floats:
    """``count`` figures, each of as many iterations drawn with replacement as there are ``samples``, which ascend."""
    n = len(samples)
    if statistic is Statistic.THROUGHPUT:
        if n < NORMAL_MEAN_FROM:
            return np.asarray(1 / samples[rng.integers(n, size=(count, n))].mean(axis=1))
        means = rng.normal(samples.mean(), samples.std() / np.sqrt(n), count)
        return np.asarray(1 / np.clip(means, samples[0], samples[-1]))
    # Hyndman & Fan's type 7, as in `quantile`: between the order statistics at ranks j and j + 1.
    whole, part = divmod((n - 1) * QUANTILES[statistic], 1)
    j = int(whole) + 1
    lower = rng.beta(j, n - j + 1, count)
    values = samples[np.minimum((n * lower).astype(np.intp), n - 1)]
    if part:
        # Given the j-th uniform, the next one is the smallest of n - j uniforms above it.
        upper = lower + (1 - lower) * rng.beta(1, n - j, count)
        values = values + part * (samples[np.minimum((n * upper).astype(np.intp), n - 1)] - values)
    return np.asarray(values)


def hierarchical_bootstrap(
    arrays: list[Floats], statistic: Statistic, resamples: int = RESAMPLES, seed: int = SEED
) -> Floats:
    """The figures of ``resamples`` cells, whose processes are drawn first and then the iterations within each.

    The method is described at the top of this module. Each process must have the samples that ``statistic`` needs.
    """
    rng = np.random.default_rng(seed)
    # Sorted, so that the order of the rounds does not matter.
    ordered = sorted((np.sort(a) for a in arrays), key=lambda a: a.tolist())
    drawn = rng.integers(len(ordered), size=(resamples, len(ordered)))
    figures = np.empty(drawn.shape)
    for number, samples in enumerate(ordered):
        places = drawn == number
        figures[places] = _resampled(samples, statistic, int(places.sum()), rng)
    return np.asarray(np.median(figures, axis=1))


def interval(
    processes: Processes, statistic: Statistic = Statistic.P50, level: float = 0.95, resamples: int = RESAMPLES
) -> Interval | None:
    """The interval of a cell's ``statistic`` over all processes it could have run in; it always holds the estimate.

    The method and its sources are described at the top of this module. With two processes the interval is honest and
    very wide: t with 1 degree of freedom.

    Args:
        processes: samples in seconds, one sequence per process, none empty.
        statistic: the figure; the interval has its unit.
        level: the confidence, above 0 and below 1.
        resamples: the number of resamples of the bootstrap; with 2 000 the ends are good to about 2 % of the width.

    Returns:
        None for a single process, or if a process has too few samples for the statistic.

    Raises:
        ValueError: see `checked`.
    """
    arrays = checked(processes)
    figures = [figure for a in arrays if (figure := _figure(a, statistic)) is not None]
    if len(arrays) < 2 or len(figures) < len(arrays):
        return None
    if len(arrays) < BOOTSTRAP_FROM:
        student = log_student(np.array(figures), level)
        low, high = student.low, student.high
    else:
        cells = hierarchical_bootstrap(arrays, statistic, resamples)
        low, high = (float(end) for end in np.quantile(cells, [(1 - level) / 2, (1 + level) / 2]))
    middle = float(np.median(figures))
    return Interval(min(low, middle), max(high, middle), level)
