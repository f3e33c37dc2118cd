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
STEPS = 201
# A look at the likelihood takes as long as a step, so that only every fifth has one.
_LOOK = 5
# The logarithm of a ratio of densities beyond which the smaller one is nothing, and exp() does not overflow.
_FAR = 700.0
# How far a likelihood must stay below what is needed before its search is given up.
_MARGIN = 3.0


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


def _expectation_maximisation(ordered: Floats, least_variance: float, least_likelihood: float) -> _Pair | None:
    """Fit two normals to ascending values (Dempster, Laird & Rubin 1977, J. R. Statist. Soc. B 39(1)).

    The sums that a step needs are taken over powers of the centred values, which are computed once, and the share of
    each value in the first component is one logistic function: a report fits thousands of processes.

    Returns None as soon as the likelihood is on its way to less than ``least_likelihood``: gains that shrink by one
    factor from look to look sum up to a geometric series (Aitken's extrapolation).
    """
    cut, n = _split(ordered), len(ordered)
    middle = float(ordered.mean())
    powers = np.vstack([np.ones(n), ordered - middle, (ordered - middle) ** 2])
    totals = powers.sum(axis=1)
    first = np.zeros(n)
    first[:cut] = 1
    before = gain_before = -np.inf
    for step in range(STEPS):
        of_first = powers @ first
        sums = np.array([of_first, totals - of_first])
        weight = np.maximum(sums[:, 0], 1e-9)
        mean = sums[:, 1] / weight
        variance = np.maximum(sums[:, 2] / weight - mean**2, least_variance)
        share = weight / n
        # The logarithm of each component's density is a polynomial of second degree.
        terms = np.array([np.log(share) - np.log(2 * np.pi * variance) / 2 - mean**2 / (2 * variance), mean / variance,
                          -1 / (2 * variance)])  # fmt: skip
        second_over_first = np.clip((terms[:, 1] - terms[:, 0]) @ powers, -_FAR, _FAR)
        first = 1 / (1 + np.exp(second_over_first))
        if step % _LOOK == 0:
            likelihood = float(terms[:, 0] @ totals - np.log(first).sum())
            gain = likelihood - before
            if gain < _LOOK * 1e-4:
                break
            if gain < gain_before < np.inf and likelihood + gain**2 / (gain_before - gain) < least_likelihood - _MARGIN:
                return None
            before, gain_before = likelihood, gain
    return _Pair(share, mean + middle, variance, likelihood)


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
    least = max(LEAST_SHARE, LEAST_COUNT / n)
    # The variance between two modes is a part of the whole: a smaller one holds none that are far enough apart.
    if spread < least * (1 - least) * np.log1p(LEAST_DISTANCE) ** 2:
        return single_mode
    # Three more parameters: two means, two variances and a share against one mean and one variance.
    needed = -n / 2 * (np.log(2 * np.pi * spread) + 1) + (BIC_GAIN + 3 * np.log(n)) / 2
    pair = _expectation_maximisation(logs, spread * 1e-4, needed)
    if pair is None or pair.log_likelihood <= needed:
        return single_mode
    distance = abs(float(pair.mean[1] - pair.mean[0]))
    ashman = float(np.sqrt(2) * distance / np.sqrt(pair.variance.sum()))
    if (
        _valley(pair) > SHALLOWEST_VALLEY
        or ashman <= ASHMAN_D
        or pair.share.min() < least
        or np.expm1(distance) < LEAST_DISTANCE
    ):
        return single_mode
    return tuple(
        Mode(float(pair.share[i]), float(np.exp(pair.mean[i]))) for i in sorted(range(2), key=lambda i: pair.mean[i])
    )
