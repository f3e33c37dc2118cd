"""Does a process run at one speed or at two?

One normal component on log latencies is compared with two, because the model of one speed (lognormal) is then exactly
the null hypothesis, and because the answer says where the modes are and how often each is taken. Two modes must meet
four conditions, each of which prevents a false alarm of its own: BIC favours two by more than 6 ("strong", Kass &
Raftery 1995, J. Am. Statist. Assoc. 90(430)); Ashman's D is above 2, the separation at which two equal components are
two modes (Ashman, Bird & Zepf 1994, Astron. J. 108); the fitted density has a valley, which the body and the long tail
of one mode don't have; and their shares and distance are large enough to matter. Hartigan's dip test assumes less about
the shape, but its answer is only a p-value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runner.stats.estimates import Floats

BIC_GAIN = 6.0
ASHMAN_D = 2.0
# The density at the valley over that at the lower mode: it separates second modes from long tails (both are tested).
SHALLOWEST_VALLEY = 0.75
LEAST_SHARE = 0.1
LEAST_COUNT = 5
# A smaller relative distance between modes is one on which nobody would act.
LEAST_DISTANCE = 0.03
STEPS = 200


@dataclass(frozen=True)
class Mode:
    """A speed that a process runs at."""

    share: float
    """The share of the samples; the shares of all modes add up to 1."""
    latency_s: float
    """The median latency of the mode."""


@dataclass(frozen=True)
class _Pair:
    """A fit of two normal components."""

    share: Floats
    mean: Floats
    variance: Floats
    log_likelihood: float


def _split(ordered: Floats) -> int:
    """The cut of ascending values into two groups with the smallest squares within, where the search starts."""
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
    """The smallest density between the two means over the lower of those at the means; 1 if there is no valley."""
    places = np.linspace(pair.mean[0], pair.mean[1], 65)[:, None]
    normal = np.exp(-((places - pair.mean) ** 2) / (2 * pair.variance)) / np.sqrt(2 * np.pi * pair.variance)
    density = normal @ pair.share
    return float(density.min() / min(density[0], density[-1]))


def modes(latencies: Floats) -> tuple[Mode, ...]:
    """The mode of some latencies, or their two modes in ascending order; the module describes the method.

    The modes describe these samples only: in a process that changes its speed once, both speeds are modes.

    Args:
        latencies: the latencies of one process in seconds, each finite and above 0, in any order.
    """
    logs = np.sort(np.log(latencies))
    n, spread = len(logs), float(logs.var())
    single_mode = (Mode(1.0, float(np.median(latencies))),)
    if n < 2 * LEAST_COUNT or spread < 1e-18:
        return single_mode
    pair = _expectation_maximisation(logs, spread * 1e-4)
    single_likelihood = -n / 2 * (np.log(2 * np.pi * spread) + 1)
    # Three more parameters: two means, two variances and a share against one mean and one variance.
    gain = 2 * (pair.log_likelihood - single_likelihood) - 3 * np.log(n)
    distance = abs(float(pair.mean[1] - pair.mean[0]))
    ashman = float(np.sqrt(2) * distance / np.sqrt(pair.variance.sum()))
    least = max(LEAST_SHARE, LEAST_COUNT / n)
    if (
        gain <= BIC_GAIN
        or _valley(pair) > SHALLOWEST_VALLEY
        or ashman <= ASHMAN_D
        or pair.share.min() < least
        or np.expm1(distance) < LEAST_DISTANCE
    ):
        return single_mode
    return tuple(
        Mode(float(pair.share[i]), float(np.exp(pair.mean[i]))) for i in sorted(range(2), key=lambda i: pair.mean[i])
    )
