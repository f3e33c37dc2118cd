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
