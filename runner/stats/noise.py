"""A/A: what equal cells look like here. Says how often the runner cries wolf, and the least difference worth a word.

Two figures, of different worth. ``rate`` is over pairs that were measured as pairs: independent, and few. The floor by
rounds is over relabellings: nothing but a name tells twins apart, and each round visits all of them in a random order,
so within a round any two processes might as well have been the other way round. Exchanging names within rounds gives
the distribution of the difference between equal cells without a model of the noise (randomisation within blocks:
Edgington & Onghena 2007, "Randomization Tests", 4th ed.; Box, Hunter & Hunter 2005, "Statistics for Experimenters",
2nd ed., chapter 3). Names are never exchanged between rounds: what a round does to all cells alike does not part them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from runner.stats.decision import Logs, Welch, detectable, holm, logs_of, process_medians, welch
from runner.stats.distributions import clopper_pearson
from runner.stats.estimates import Floats, Processes, samples_needed
from runner.stats.intervals import Interval

Pair = tuple[Processes, Processes]
Twins = Sequence[Processes]
"""At least two cells that are one configuration, their processes in the order of the rounds."""
CONFIDENCE = 0.95
# Relabellings, shared among configurations, of which each has at least the second number: a 95th percentile of 4 000
# is good to 3 % of itself.
RELABELLINGS, LEAST = 4_000, 200
# The same data give the same floor, on every machine.
SEED = 20_071_112


@dataclass(frozen=True)
class RoundsFloor:
    """The noise that is left when so many rounds are run."""

    rounds: int
    difference: float | None
    """95th percentile over relabellings of how much slower the slower of two equal cells seems, relative (0.02: 2 %);
    None where there are fewer than 40 different ones."""
    flagged: float
    """Share of relabellings called different. They share their processes, so this has no interval of its own."""
    detectable: float
    """Relative difference that one comparison shows 4 times in 5; median over relabellings."""


@dataclass(frozen=True)
class NoiseFloor:
    """What comparisons between equal cells came to."""

    pairs: int
    flagged: int
    """Pairs called different, each tested alone at ``level``: should be about level x pairs."""
    rate: float
    """flagged / pairs."""
    rate_interval: Interval
    """Clopper & Pearson's (1934), 95 %."""
    level: float
    by_rounds: tuple[RoundsFloor, ...]
    """For 2, 3, ... rounds; the last entry is all that every cell has."""


def _test(pairs: Sequence[Pair]) -> Welch:
    if not pairs or min(len(side) for pair in pairs for side in pair) < 2:
        raise ValueError("an A/A comparison needs pairs of cells with at least two processes each; raise rounds")
    return welch(logs_of([a for a, _ in pairs]), logs_of([b for _, b in pairs]))


def false_alarms(pairs: Sequence[Pair], level: float = 0.05, corrected: bool = True) -> float:
    """Share of pairs of equal cells that are called different.

    Args:
        pairs: two cells each, samples in seconds, measured as two cells but configured as one.
        level: of the test.
        corrected: as a sweep reports them, the pairs being one family to Holm's correction: the chance of any flag
            is then ``level``. False: each pair tested alone, which shows whether the test keeps its level.

    Raises:
        ValueError: no pair, a cell of one process, or see `compare`.
    """
    p = _test(pairs).p
    return float(np.mean((holm(p) if corrected else p) <= level))


def noise_floor(families: Sequence[Twins], level: float = 0.05) -> NoiseFloor:
    """False alarms and the least difference that stands out, by number of rounds.

    Args:
        families: the twins of each configuration, samples in seconds. The first and second are a pair, the third and
            fourth, and so on; one that is left over counts among the relabellings only.
        level: of one comparison.

    Raises:
        ValueError: a configuration without a pair, a cell of one process, or see `compare`.
    """
    if not families or min(map(len, families)) < 2:
        raise ValueError("an A/A comparison needs at least two twins of each configuration")
    pairs = [(a, b) for twins in families for a, b in zip(twins[::2], twins[1::2], strict=False)]
    flagged = int((_test(pairs).p <= level).sum())
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
    drawn = [_relabelled(logs, rounds, max(LEAST, RELABELLINGS // len(families)), rng) for logs in families]
    a, b = (_logs(np.concatenate([pair[side] for pair in drawn])) for side in (0, 1))
    test = welch(a, b)
    # The slower over the faster, less 1: which of the two is called the baseline does not matter.
    seeming = np.expm1(np.abs(test.log_ratio))
    known = sum(_different(len(logs), logs.shape[1], rounds) for logs in families) >= samples_needed(0.95)
    return RoundsFloor(
        rounds=rounds,
        difference=float(np.quantile(seeming, 0.95)) if known else None,
        flagged=float(np.mean(test.p <= level)),
        detectable=float(np.median(detectable(test, level))),
    )


def _different(twins: int, most: int, rounds: int) -> int:
    """How many relabellings there are whose difference can differ in size."""
    return comb(most, rounds) * int((twins * (twins - 1)) ** rounds) // 2


def _relabelled(logs: Floats, rounds: int, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Two equal cells, ``count`` times: of so many rounds drawn at random, two processes each, in random order.

    Args:
        logs: log medians, a row a twin, a column a round.

    Returns:
        Log medians of either cell, each of shape (count, rounds).
    """
    twins, most = logs.shape
    which = rng.permuted(np.tile(np.arange(most), (count, 1)), axis=1)[:, :rounds]
    first = rng.integers(twins, size=which.shape)
    second = (first + rng.integers(1, twins, size=which.shape)) % twins
    return logs[first, which], logs[second, which]


def _logs(values: Floats) -> Logs:
    """Of cells as rows of log medians."""
    return Logs(values.mean(axis=1), values.var(axis=1, ddof=1), np.full(len(values), values.shape[1], dtype=np.intp))
