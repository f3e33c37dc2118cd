"""Do a process's samples change as it runs, and how many independent samples are they worth?

Everything here uses ranks and medians: latencies have outliers, and an outlier must neither make a trend nor hide one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runner.stats.distributions import normal_p, normal_quantile
from runner.stats.estimates import Floats

Places = NDArray[np.intp]
# Mann-Kendall compares all pairs: longer series are first reduced to the medians of this many blocks.
BLOCKS = 300
# The one-sided 5 % point of a standard normal: an autocorrelation below it is taken for chance.
CHANCE = 1.645


@dataclass(frozen=True)
class Trend:
    """A monotone change from the beginning of a series to its end, in the unit of the series."""

    change: float
    low: float
    high: float
    p: float
    """The two-sided p-value of there being no trend."""


def ranks(values: Floats) -> Floats:
    """The ranks of the values, from 1; equal values share the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[which])


def autocorrelation_time(values: Floats) -> float:
    """How many consecutive samples are worth one independent sample; at least 1.

    It is 1 + 2 sum (1 - k/n) rho_k (Bayley & Hammersley 1946, Suppl. J. R. Statist. Soc. 8(2)) over the first lags
    whose autocorrelation of ranks stands out from chance (Hamed & Rao 1998, J. Hydrology 204). A trend counts as
    autocorrelation, so take it out first.
    """
    n = len(values)
    centred = ranks(values) - (n + 1) / 2
    power = float(centred @ centred)
    if n < 4 or power == 0:
        return 1.0
    spectrum = np.abs(np.fft.rfft(centred, 2 * n)) ** 2
    rho = np.fft.irfft(spectrum)[1 : n // 2] / power
    chance = np.flatnonzero(rho < CHANCE / np.sqrt(n))
    significant = rho[: chance[0]] if len(chance) else rho
    return float(1 + 2 * ((1 - np.arange(1, len(significant) + 1) / n) * significant).sum())


def effective_samples(samples: Sequence[float]) -> float:
    """How many independent samples these are worth, at most their number; see `autocorrelation_time`.

    Args:
        samples: the samples of one process in seconds, in the order measured.
    """
    values = np.asarray(samples, dtype=np.float64)
    return len(values) / autocorrelation_time(values)


@functools.lru_cache(maxsize=4)
def _pairs(n: int) -> tuple[Places, Places, Places]:
    """The places of all pairs of ``n`` values, first and second, and how far apart they are."""
    first, second = np.triu_indices(n, 1)
    return first, second, second - first


def least_p(values: Floats) -> float:
    """The least p-value that `trend` can give these values: that of residuals which are independent.

    Most series have no trend, and this says so in a fraction of the time.
    """
    series = _blocks(values)
    excess, variance = _kendall(series, len(series))
    return normal_p(max(abs(excess) - 1, 0) / float(np.sqrt(variance))) if variance else 1.0


def _blocks(values: Floats) -> Floats:
    """The values, or the medians of at most BLOCKS blocks of them."""
    width = -(-len(values) // BLOCKS)
    whole = len(values) // width * width
    return values if width == 1 else np.asarray(np.median(values[:whole].reshape(-1, width), axis=1))


def _kendall(series: Floats, n: int) -> tuple[float, float]:
    """Kendall's S, the pairs that rise less those that fall, and its variance if values are independent."""
    first, second, _ = _pairs(n)
    before, after = series[first], series[second]
    excess = int(np.count_nonzero(after > before)) - int(np.count_nonzero(after < before))
    _, ties = np.unique(series, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    return float(excess), variance


def trend(values: Floats, level: float = 0.95) -> Trend:
    """Mann-Kendall's test and Theil-Sen's slope with its interval, which take autocorrelation into account.

    The test is by Mann 1945, Econometrica 13(3), and Kendall 1975, "Rank Correlation Methods"; slope and interval are
    by Sen 1968, J. Am. Statist. Assoc. 63(324). The variance is multiplied by the autocorrelation time of the residuals
    (Hamed & Rao 1998; Yue & Wang 2004, Water Resour. Manag. 18). A series of more than BLOCKS values is reduced to the
    medians of blocks.

    Args:
        values: at least four values, in the order measured.
        level: the confidence of the interval.
    """
    series = _blocks(values)
    n = len(series)
    first, second, apart = _pairs(n)
    slopes = (series[second] - series[first]) / apart
    slope = float(np.median(slopes))
    excess, variance = _kendall(series, n)
    deviation = float(np.sqrt(variance * autocorrelation_time(series - slope * np.arange(n))))
    p = normal_p(max(abs(excess) - 1, 0) / deviation) if deviation else 1.0
    half = normal_quantile((1 + level) / 2) * deviation
    ends = np.clip([(len(slopes) - half) / 2, (len(slopes) + half) / 2], 0, len(slopes) - 1).astype(np.intp)
    low, high = np.partition(slopes, ends)[ends]
    return Trend(slope * (n - 1), float(low) * (n - 1), float(high) * (n - 1), p)


def first_part_p(values: Floats, first: int, time: float) -> float:
    """The one-sided p-value of the ``first`` values not being larger than the rest, by rank sums.

    This is the test by Mann & Whitney 1947, Ann. Math. Statist. 18(1), in its normal approximation with corrections for
    continuity and ties.

    Args:
        values: the series, in the order measured.
        first: how many values form the first part.
        time: the autocorrelation time of the series, by which the variance is multiplied.
    """
    n, rest = len(values), len(values) - first
    ranked = ranks(values)
    variance = first * rest / n / (n - 1) * float(((ranked - (n + 1) / 2) ** 2).sum()) * time
    excess = float(ranked[:first].sum()) - first * (n + 1) / 2 - 0.5
    if not variance or excess <= 0:
        return 1.0
    return normal_p(excess / float(np.sqrt(variance))) / 2
