"""A/A comparisons on a host: how often the runner raises a false alarm, and which differences are too small to trust.

The two figures have different worth. ``rate`` is over pairs that were measured as pairs, which are independent and few.
The floor by rounds is over relabellings: twins differ only in their names, and each round visits all of them in a
random order, so within a round any two processes might as well have had each other's name. Exchanging names within
rounds gives the distribution of the difference between equal cells without a model of the noise (randomisation within
blocks: Edgington & Onghena 2007, "Randomization Tests", 4th ed.; Box, Hunter & Hunter 2005, "Statistics for
Experimenters", 2nd ed., chapter 3). Names are never exchanged between rounds, because what a round does to all cells
makes no difference between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from runner.stats.blocks import COLUMNS, Differences, fit_logs, of_pairs
from runner.stats.decision import detectable, holm
from runner.stats.distributions import clopper_pearson
from runner.stats.estimates import Floats, Processes, process_medians, samples_needed
from runner.stats.intervals import Interval

Pair = tuple[Processes, Processes]
Twins = Sequence[Processes]
"""At least two cells of the same configuration, their processes in the order of the rounds."""
CONFIDENCE = 0.95
# The relabellings of all configurations together, and the least of each one: a 95th percentile of 4 000 is good to 3 %
# of itself.
RELABELLINGS, LEAST_RELABELLINGS = 4_000, 200
# A fixed seed, so that the same data give the same floor on every machine.
SEED = 20_071_112


@dataclass(frozen=True)
class RoundsFloor:
    """The noise that remains in comparisons of ``rounds`` rounds."""

    rounds: int
    difference: float | None
    """How much slower the slower of two equal cells seems, relative (0.02: 2 %), as the 95th percentile over
    relabellings; None if there are fewer than 40 different relabellings."""
    flagged: float
    """The share of relabellings called different; it has no interval, because relabellings share their processes."""
    detectable: float
    """The relative difference that a comparison detects 4 times in 5, as the median over relabellings."""


@dataclass(frozen=True)
class NoiseFloor:
    """The result of comparing equal cells."""

    pairs: int
    flagged: int
    """The number of pairs called different, each tested alone at ``level``; about level x pairs are expected."""
    rate: float
    """The rate of false alarms, flagged / pairs."""
    rate_interval: Interval
    """The 95 % interval of the rate by Clopper & Pearson (1934)."""
    level: float
    by_rounds: tuple[RoundsFloor, ...]
    """The noise with 2, 3, ... rounds; the last entry has as many rounds as every cell has."""


def _of_twins(twins: Twins) -> Differences:
    """The differences within the pairs of twins, which were measured in the same rounds."""
    if min(map(len, twins)) < 2:
        raise ValueError("an A/A comparison needs pairs of cells with at least two processes each; raise rounds")
    most = max(map(len, twins))
    has = np.array([[number < len(cell) for number in range(most)] for cell in twins])
    logs = np.zeros(has.shape)
    logs[has] = np.log(process_medians([samples for cell in twins for samples in cell]))
    table = fit_logs(logs, has)
    found = [table.differences(first, [first + 1]) for first in range(0, len(twins) - 1, 2)]
    return Differences(*(np.concatenate([getattr(one, name) for one in found]) for name in COLUMNS))


def false_alarms(pairs: Sequence[Pair], level: float = 0.05, corrected: bool = True) -> float:
    """The share of pairs of equal cells that are called different.

    Args:
        pairs: pairs of cells that were measured as two but configured as one; samples in seconds.
        level: the level of the test.
        corrected: True treats the pairs as one family in Holm's correction, as a sweep does, so that the chance of any
            false alarm is ``level``. False tests each pair alone, which shows whether the test keeps its level.

    Raises:
        ValueError: there is no pair, a cell has a single process, or see `compare`.
    """
    if not pairs:
        raise ValueError("an A/A comparison needs pairs of cells with at least two processes each; raise rounds")
    p = np.concatenate([_of_twins(pair).p for pair in pairs])
    return float(np.mean((holm(p) if corrected else p) <= level))


def noise_floor(families: Sequence[Twins], level: float = 0.05) -> NoiseFloor:
    """The rate of false alarms, and the smallest difference that stands out for each number of rounds.

    Args:
        families: the twins of each configuration, samples in seconds. The first and second are a pair, the third and
            fourth are another, and so on; a last twin without a partner is used for relabellings only.
        level: the level of a single comparison.

    Raises:
        ValueError: a configuration has no pair, a cell has a single process, or see `compare`.
    """
    if not families or min(map(len, families)) < 2:
        raise ValueError("an A/A comparison needs at least two twins of each configuration")
    pairs = [(a, b) for twins in families for a, b in zip(twins[::2], twins[1::2], strict=False)]
    flagged = sum(int((_of_twins(twins).p <= level).sum()) for twins in families)
    most = min(len(cell) for twins in families for cell in twins)
    low, high = clopper_pearson(flagged, len(pairs), CONFIDENCE)
    logs = [np.array([np.log(process_medians(cell[:most])) for cell in twins]) for twins in families]
    return NoiseFloor(
        pairs=len(pairs),
        flagged=flagged,
        rate=flagged / len(pairs),
        rate_interval=Interval(low, high, CONFIDENCE),
        level=level,
        by_rounds=tuple(_floor(logs, rounds, level) for rounds in range(2, most + 1)),
    )


def _floor(families: Sequence[Floats], rounds: int, level: float) -> RoundsFloor:
    rng = np.random.default_rng((SEED, rounds))
    drawn = [
        _relabelled(logs, rounds, max(LEAST_RELABELLINGS, RELABELLINGS // len(families)), rng) for logs in families
    ]
    found = of_pairs(*(np.concatenate([pair[side] for pair in drawn]) for side in (0, 1)))
    # The slower over the faster, less 1: which of the two is called the baseline does not matter.
    differences = np.expm1(np.abs(found.log_ratio))
    relabellings = sum(_distinct_relabellings(len(logs), logs.shape[1], rounds) for logs in families)
    is_enough = relabellings >= samples_needed(0.95)
    return RoundsFloor(
        rounds=rounds,
        difference=float(np.quantile(differences, 0.95)) if is_enough else None,
        flagged=float(np.mean(found.p <= level)),
        detectable=float(np.median(detectable(found, level))),
    )


def _distinct_relabellings(twins: int, most: int, rounds: int) -> int:
    """The number of relabellings whose differences can differ in size."""
    return comb(most, rounds) * int((twins * (twins - 1)) ** rounds) // 2


def _relabelled(logs: Floats, rounds: int, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw ``count`` pairs of equal cells: ``rounds`` random rounds, and of each two processes in random order.

    Args:
        logs: log medians, one row per twin and one column per round.

    Returns:
        The log medians of the one and of the other cell, each of shape (count, rounds).
    """
    twins, most = logs.shape
    which = rng.permuted(np.tile(np.arange(most), (count, 1)), axis=1)[:, :rounds]
    first = rng.integers(twins, size=which.shape)
    second = (first + rng.integers(1, twins, size=which.shape)) % twins
    return logs[first, which], logs[second, which]
