"""A/A: what equal cells look like here. Says how often the runner cries wolf, and the least difference worth a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runner.stats.decision import Welch, detectable, holm, logs_of, welch
from runner.stats.distributions import clopper_pearson
from runner.stats.estimates import Processes, quantile
from runner.stats.intervals import Interval

Pair = tuple[Processes, Processes]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class RoundsFloor:
    """The noise that is left when so many rounds are run."""

    rounds: int
    difference: float | None
    """95th percentile over pairs of how much the slower of two equal cells seemed slower; None under 40 pairs."""
    largest: float
    """The largest of those differences, relative."""
    detectable: float
    """Relative difference that one comparison shows 4 times in 5; median over pairs."""


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
    """For the first 2, 3, ... rounds of each cell; the last entry is all that every cell has."""


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


def noise_floor(pairs: Sequence[Pair], level: float = 0.05) -> NoiseFloor:
    """False alarms and the least difference that stands out, by number of rounds.

    Args:
        pairs: two cells each, samples in seconds, measured as two cells but configured as one.
        level: of one comparison.

    Raises:
        ValueError: no pair, a cell of one process, or see `compare`.
    """
    flagged = int((_test(pairs).p <= level).sum())
    most = min(len(side) for pair in pairs for side in pair)
    low, high = clopper_pearson(flagged, len(pairs), CONFIDENCE)
    return NoiseFloor(
        pairs=len(pairs),
        flagged=flagged,
        rate=flagged / len(pairs),
        rate_interval=Interval(low, high, CONFIDENCE),
        level=level,
        by_rounds=tuple(_floor(pairs, rounds, level) for rounds in range(2, most + 1)),
    )


def _floor(pairs: Sequence[Pair], rounds: int, level: float) -> RoundsFloor:
    test = _test([(a[:rounds], b[:rounds]) for a, b in pairs])
    # The slower over the faster, less 1: which of the two is called the baseline does not matter.
    seeming = np.expm1(np.abs(test.log_ratio)).tolist()
    return RoundsFloor(
        rounds=rounds,
        difference=quantile(seeming, 0.95),
        largest=max(seeming),
        detectable=float(np.median(detectable(test, level))),
    )
