"""The distribution functions that the methods need, with types: the only place that uses scipy.

scipy.special is imported at the first call: the import takes a tenth of a second, which a sweep without a comparison
and `runner doctor` save.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from runner.stats.estimates import Floats


def _special() -> Any:
    from scipy import special  # type: ignore[import-untyped]

    return special


def student_quantile(probability: Floats | float, df: Floats | float) -> Floats:
    """The quantile of Student's t with ``df`` degrees of freedom (scipy.special.stdtrit)."""
    return np.asarray(_special().stdtrit(df, probability), dtype=np.float64)


def student_p(t: Floats, df: Floats) -> Floats:
    """The two-sided p-value of a t statistic (scipy.special.stdtr)."""
    return np.asarray(2 * _special().stdtr(df, -np.abs(t)), dtype=np.float64)


def noncentrality(power: float, critical: Floats, df: Floats) -> Floats:
    """How many standard errors a difference must be for t to pass ``critical`` with that ``power``.

    This is the normal approximation of the noncentral t by Johnson & Welch 1940, Biometrika 31(3-4) (Abramowitz &
    Stegun 26.7.10), solved for the noncentrality: it is at most 1.5 % off at 4 degrees of freedom and more, and 5 % too
    large (the safe side) at 1. scipy.special.nctdtrinc can't be used: it does not return for critical values in the
    tens (scipy 1.17), which come with a level that Holm's correction made small. The common sum of two central
    quantiles would be up to 15 % too small.
    """
    return np.asarray(critical * (1 - 0.25 / df) + normal_quantile(power) * np.sqrt(1 + critical**2 / (2 * df)))


def f_p(ratio: Floats, df: Floats, df_below: Floats) -> Floats:
    """The probability of a larger ratio of two variances, with these degrees of freedom (scipy.special.fdtrc)."""
    return np.asarray(_special().fdtrc(df, df_below, ratio), dtype=np.float64)


def f_quantile(probability: float, df: float) -> float:
    """The quantile of the ratio of two variances that have ``df`` degrees of freedom each (scipy.special.fdtri)."""
    return float(_special().fdtri(df, df, probability))


def log_chi_square(df: Floats) -> Floats:
    """The mean of the logarithm of chi-square over its ``df`` degrees of freedom (scipy.special.digamma)."""
    return np.asarray(_special().digamma(df / 2) - np.log(df / 2), dtype=np.float64)


def trigamma(values: Floats) -> Floats:
    """The variance of the logarithm of a gamma variable of this shape (scipy.special.polygamma)."""
    return np.asarray(_special().polygamma(1, values), dtype=np.float64)


def trigamma_inverse(value: float) -> float:
    """The shape whose `trigamma` is ``value``, above 0: Newton's steps of Smyth 2004, appendix."""
    special, shape = _special(), 0.5 + 1 / value
    for _ in range(50):
        here = float(special.polygamma(1, shape))
        step = here * (1 - here / value) / float(special.polygamma(2, shape))
        shape += step
        if abs(step) < 1e-9 * shape:
            break
    return float(shape)


def normal_quantile(probability: float) -> float:
    """The quantile of the standard normal (scipy.special.ndtri)."""
    return float(_special().ndtri(probability))


def normal_p(z: float) -> float:
    """The two-sided p-value of a normal deviate (scipy.special.ndtr)."""
    return float(2 * _special().ndtr(-abs(z)))


def clopper_pearson(hits: int, trials: int, level: float) -> tuple[float, float]:
    """The interval of a proportion that covers every true value with a probability of at least ``level``.

    Clopper & Pearson 1934, Biometrika 26(4), by quantiles of the beta distribution (scipy.special.betaincinv).

    Raises:
        ValueError: there is no trial, or ``hits`` is not between 0 and ``trials``.
    """
    if trials < 1 or not 0 <= hits <= trials:
        raise ValueError(f"{hits} of {trials} is not a proportion")
    tail, inverse = (1 - level) / 2, _special().betaincinv
    low = float(inverse(hits, trials - hits + 1, tail)) if hits else 0.0
    high = float(inverse(hits + 1, trials - hits, 1 - tail)) if hits < trials else 1.0
    return low, high
