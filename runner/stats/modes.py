"""Does a process run at one speed or at two?

Two normal components on log latencies against one, because the one-speed model (lognormal) is then the null exactly,
and because the answer is the sentence wanted: where, and how often. Four conditions, each against a false cry of its
own: BIC favours two by more than 6 ("strong", Kass & Raftery 1995, J. Am. Statist. Assoc. 90(430)); Ashman's D above 2,
the separation that makes two equal components two modes (Ashman, Bird & Zepf 1994, Astron. J. 108); a valley in the
fitted density, which the body and the long tail of one mode don't have; and a share and distance that would matter.
Hartigan's dip test asks less of the shape, but answers with a p-value only: neither where the modes are nor how often
each is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runner.stats.estimates import Floats

BIC_GAIN = 6.0
ASHMAN_D = 2.0
# Density at the valley over that at the lower mode; parts second modes from long tails, both in the tests.
SHALLOWEST_VALLEY = 0.75
LEAST_SHARE = 0.1
LEAST_COUNT = 5
# Relative distance of modes under which nobody would act.
LEAST_APART = 0.03
STEPS = 200


@dataclass(frozen=True)
class Mode:
    """One speed a process runs at."""

    share: float
    """Of the samples; the shares of all modes sum to 1."""
    latency_s: float
    """Its median."""


@dataclass(frozen=True)
class _Pair:
    """Two normal components."""

    share: Floats
    mean: Floats
    variance: Floats
    log_likelihood: float


def _split(ordered: Floats) -> int:
    """Where to cut ascending values in two groups with the least squares within: the start of the search."""
    n = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)[:-1]
    total = ordered.sum()
    return int(np.argmax(sums**2 / n + (total - sums) ** 2 / (len(ordered) - n))) + 1


def _expectation_maximisation(ordered: Floats, least_variance: float) -> _Pair:
    """Fit two normals to ascending values (Dempster, Laird & Rubin 1977, J. R. Statist. Soc. B 39(1))."""
    cut, n = _split(ordered), len(ordered)
    belongs = np.zeros((2, n))
    belongs[0, :cut] = belongs[1, cut:] = 1
    before = -np.inf
    for _ in range(STEPS):
        weight = np.maximum(belongs.sum(axis=1), 1e-9)
        mean = belongs @ ordered / weight
        distance = (ordered - mean[:, None]) ** 2
        variance = np.maximum((belongs * distance).sum(axis=1) / weight, least_variance)
        share = weight / n
        logs = np.log(share / np.sqrt(2 * np.pi * variance))[:, None] - distance / (2 * variance[:, None])
        both = np.logaddexp(logs[0], logs[1])
        belongs = np.exp(logs - both)
        likelihood = float(both.sum())
        if likelihood - before < 1e-4:
            break
        before = likelihood
    return _Pair(share, mean, variance, likelihood)


def _valley(pair: _Pair) -> float:
    """Least density between the two means over the lower of the densities at them; 1 where there is no valley."""
    places = np.linspace(pair.mean[0], pair.mean[1], 65)[:, None]
    normal = np.exp(-((places - pair.mean) ** 2) / (2 * pair.variance)) / np.sqrt(2 * np.pi * pair.variance)
    density = normal @ pair.share
    return float(density.min() / min(density[0], density[-1]))


def modes(latencies: Floats) -> tuple[Mode, ...]:
    """One mode, or two in ascending order of latency; see the module for the method.

    It describes these samples: in a process that changes speed once, both speeds are modes.

    Args:
        latencies: of one process, in seconds, each finite and above 0; in any order.
    """
    logs = np.sort(np.log(latencies))
    n, spread = len(logs), float(logs.var())
    one = (Mode(1.0, float(np.median(latencies))),)
    if n < 2 * LEAST_COUNT or spread < 1e-18:
        return one
    pair = _expectation_maximisation(logs, spread * 1e-4)
    single = -n / 2 * (np.log(2 * np.pi * spread) + 1)
    # Two means, two variances and a share against one mean and one variance.
    gain = 2 * (pair.log_likelihood - single) - 3 * np.log(n)
    apart = abs(float(pair.mean[1] - pair.mean[0]))
    ashman = float(np.sqrt(2) * apart / np.sqrt(pair.variance.sum()))
    least = max(LEAST_SHARE, LEAST_COUNT / n)
    if (
        gain <= BIC_GAIN
        or _valley(pair) > SHALLOWEST_VALLEY
        or ashman <= ASHMAN_D
        or pair.share.min() < least
        or np.expm1(apart) < LEAST_APART
    ):
        return one
    return tuple(
        Mode(float(pair.share[i]), float(np.exp(pair.mean[i]))) for i in sorted(range(2), key=lambda i: pair.mean[i])
    )
