"""Is the difference between two cells real? A t test on log process medians, corrected for the comparisons made.

The differences and their errors are those of `runner.stats.blocks`. Why t and not a permutation test: the smallest p of
an exact permutation test is 2/252 with 5 processes per side, and 0.1 with 3, so after Holm's correction for 39
comparisons it could never find a difference. The medians of processes are nearly normal on the log scale whatever the
shape of their iterations. The price is that processes are assumed to be normal: an outlying process widens the
interval, and the answer is then "undecided" rather than wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import log, log1p

import numpy as np

from runner.stats.blocks import Differences, Fit
from runner.stats.distributions import noncentrality, student_quantile
from runner.stats.estimates import Floats
from runner.stats.intervals import Interval

POWER = 0.8
CONFIDENCE = 0.95


class Answer(Enum):
    """What the data say about a cell compared with its baseline."""

    FASTER = "faster"
    SLOWER = "slower"
    UNDECIDED = "undecided"
    """No difference was detected; one smaller than `Verdict.detectable` may exist."""
    UNKNOWN = "unknown"
    """One of the two has a single process, so that no comparison is possible."""


@dataclass(frozen=True)
class Verdict:
    """The comparison of a cell with the baseline."""

    answer: Answer
    ratio: float
    """The speed-up: geometric mean of the baseline's process medians over the cell's, what rounds did taken
    out; above 1 the cell is faster."""
    interval: Interval | None
    """The 95 % interval of the ratio for this comparison alone: it may exclude 1 though the answer is undecided,
    because only `p_holm` is corrected. None if unknown."""
    p: float | None
    """The probability of a difference this large between equal cells, for this comparison alone. None if unknown."""
    p_holm: float | None
    """The p-value corrected for all comparisons made, which decides the answer. None if unknown."""
    detectable: float | None
    """The smallest relative difference (0.03: 3 %) that these data would have shown 4 times in 5. None if unknown."""
    floor: float | None = None
    """The relative difference that equal cells show on this host in as many rounds. None if it was never measured."""

    @property
    def is_under_floor(self) -> bool:
        """Whether the cell was called different by less than equal cells differ by here: it may be chance after all."""
        decided = self.answer in (Answer.FASTER, Answer.SLOWER)
        return decided and self.floor is not None and abs(log(self.ratio)) < log1p(self.floor)


def holm(p: Floats) -> Floats:
    """P-values corrected for the number of comparisons (Holm 1979, Scand. J. Statist. 6(2)).

    The chance that any of those under a level is false is at most that level. nan, where no comparison was possible,
    stays nan and is not counted.
    """
    comparisons = np.flatnonzero(~np.isnan(p))
    order = comparisons[np.argsort(p[comparisons], kind="stable")]
    corrected = np.full(len(p), np.nan)
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return corrected


def detectable(differences: Differences, level: Floats | float) -> Floats:
    """The smallest relative difference that a test at ``level`` shows with a power of 80 %; nan where unknown.

    This is the power of the t test (Cohen 1988, "Statistical Power Analysis", chapter 2) with the noise that was
    observed; see `noncentrality`.
    """
    critical = -student_quantile(np.asarray(level) / 2, differences.df)
    with np.errstate(over="ignore"):
        return np.asarray(np.expm1(noncentrality(POWER, critical, differences.df) * differences.error))


def _ends(differences: Differences, level: float) -> tuple[Floats, Floats]:
    half = student_quantile((1 + level) / 2, differences.df) * differences.error
    with np.errstate(over="ignore"):
        return np.exp(differences.log_ratio - half), np.exp(differences.log_ratio + half)


def ratio_interval(table: Fit, baseline: int, cell: int, level: float = CONFIDENCE) -> Interval | None:
    """The interval of a cell's speed-up over another, which has no unit; above 1 the cell is faster.

    It excludes 1 exactly if the uncorrected p of `compare` is under 1 - level. None if a side has a single process.

    Args:
        table: all cells measured beside the two.
        baseline: the place of the other cell in the table.
        cell: the place of the cell.
    """
    found = table.differences(baseline, [cell])
    if np.isnan(found.p[0]):
        return None
    low, high = _ends(found, level)
    return Interval(float(low[0]), float(high[0]), level)


def winners_interval(table: Fit, baseline: int, winner: int, chosen_among: int, is_decided: bool) -> Interval | None:
    """The interval of the winner's speed-up, corrected for its having been chosen.

    The best of many equal cells looks better than it is, so that an interval for a cell named beforehand covers its
    true speed-up too seldom. Bonferroni's correction covers all of them at once, the chosen one included. Where Holm's
    test has decided, its interval ends at 1 (Strassburger & Bretz 2008, Statistics in Medicine 27(24)).

    Args:
        table, baseline, winner: see `ratio_interval`.
        chosen_among: how many cells could have won against the baseline.
        is_decided: whether `compare` called the winner faster.
    """
    found = ratio_interval(table, baseline, winner, 1 - (1 - CONFIDENCE) / max(chosen_among, 1))
    if found is None:
        return None
    return Interval(max(found.low, 1.0) if is_decided else found.low, found.high, CONFIDENCE)


def floor_at(floors: Mapping[int, float], rounds: int) -> float | None:
    """The noise floor measured with the most rounds not exceeding ``rounds``; None if every floor used more rounds.

    Args:
        floors: number of rounds -> noise floor.
    """
    usable = [number for number in floors if number <= rounds]
    return floors[max(usable)] if usable else None


def compare(
    table: Fit,
    baseline: int,
    others: Sequence[int],
    level: float = 0.05,
    floors: Mapping[int, float] | None = None,
) -> list[Verdict]:
    """Compare each of ``others`` with the baseline; the verdicts are in the order of ``others``.

    Args:
        table: all cells measured together, see `runner.stats.blocks.fit`.
        baseline: the place of the baseline in the table.
        others: the places of the other cells; they are the family that Holm's correction counts, without those whose
            answer is unknown.
        level: the chance of calling any of them different if all are equal.
        floors: number of rounds -> relative difference that equal cells show on this host with that many rounds.
    """
    if not others:
        return []
    found = table.differences(baseline, others)
    p_holm = holm(found.p)
    decided = p_holm <= level
    # If r other hypotheses of m are rejected, Holm rejects this one exactly when its p is at most level / (m - r).
    family, rejected = int((~np.isnan(found.p)).sum()), int(decided.sum())
    smallest = detectable(found, level / np.maximum(family - (rejected - decided), 1))
    low, high = _ends(found, CONFIDENCE)
    rounds = np.minimum(table.count[baseline], table.count[np.asarray(others, dtype=np.intp)])
    columns = (rounds, np.exp(found.log_ratio), found.p, p_holm, decided, low, high, smallest)
    return [
        Verdict(Answer.UNKNOWN, ratio, None, None, None, None)
        if p != p
        else Verdict(
            (Answer.FASTER if ratio > 1 else Answer.SLOWER) if sure else Answer.UNDECIDED,
            ratio,
            Interval(low_end, high_end, CONFIDENCE),
            p,
            corrected,
            least,
            floor_at(floors or {}, its_rounds),
        )
        for its_rounds, ratio, p, corrected, sure, low_end, high_end, least in zip(
            *(column.tolist() for column in columns), strict=True
        )
    ]
