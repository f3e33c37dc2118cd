"""The distribution functions that the methods look up, typed: the package's only use of scipy.

scipy.special is imported at the first call: it costs a tenth of a second that a sweep without a comparison, or a
doctor, doesn't need.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from runner.stats.estimates import Floats


def _special() -> Any:
    from scipy import special  # type: ignore[import-untyped]

    return special


def student_quantile(probability: Floats | float, df: Floats | float) -> Floats:
    """Quantile of Student's t with ``df`` degrees of freedom (scipy.special.stdtrit)."""
    return np.asarray(_special().stdtrit(df, probability), dtype=np.float64)


def student_p(t: Floats, df: Floats) -> Floats:
    """Two-sided p-value of a t statistic (scipy.special.stdtr)."""
    return np.asarray(2 * _special().stdtr(df, -np.abs(t)), dtype=np.float64)


def noncentrality(power: float, critical: Floats, df: Floats) -> Floats:
    """How many standard errors a difference must be for t to pass ``critical`` with that ``power``.

    The noncentral t by the normal approximation of Johnson & Welch 1940, Biometrika 31(3-4) (Abramowitz & Stegun
    26.7.10), solved for the noncentrality: at most 1.5 % from exact at 4 degrees of freedom and more, 5 % too large
    (the safe side) at 1. Not scipy.special.nctdtrinc: it does not return at critical values in the tens (scipy 1.17),
    which a level that Holm's correction made small has. Nor the common sum of two central quantiles: up to 15 % too
    small.
    """
    return np.asarray(critical * (1 - 0.25 / df) + normal_quantile(power) * np.sqrt(1 + critical**2 / (2 * df)))


def normal_quantile(probability: float) -> float:
    """Quantile of the standard normal (scipy.special.ndtri)."""
    return float(_special().ndtri(probability))


def normal_p(z: float) -> float:
    """Two-sided p-value of a normal deviate (scipy.special.ndtr)."""
    return float(2 * _special().ndtr(-abs(z)))


def clopper_pearson(hits: int, trials: int, level: float) -> tuple[float, float]:
    """Interval of a proportion that covers at least ``level`` for every true value.

    Clopper & Pearson 1934, Biometrika 26(4), by quantiles of the beta distribution (scipy.special.betaincinv).

    Raises:
        ValueError: not 0 <= hits <= trials, or no trial.
    """
    if trials < 1 or not 0 <= hits <= trials:
        raise ValueError(f"{hits} of {trials} is no proportion")
    tail, inverse = (1 - level) / 2, _special().betaincinv
    low = float(inverse(hits, trials - hits + 1, tail)) if hits else 0.0
    high = float(inverse(hits + 1, trials - hits, 1 - tail)) if hits < trials else 1.0
    return low, high
