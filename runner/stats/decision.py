"""Is the difference between two cells real? Welch's t on log process medians, corrected for the comparisons made.

Why Welch (1947, Biometrika 34(1-2)) and not a permutation test: with 5 processes a side the smallest p of an exact
permutation test is 2/252, and of 3 a side 0.1, so after Holm's correction for 39 comparisons nothing could ever be
found. Medians of a process's iterations are near normal on the log scale whatever the iterations' shape, and Welch does
not ask two cells to be equally noisy. Its price is assumed normality of processes: one process far out widens the
interval, and the answer is then "undecided" rather than wrong.

Rounds are treated as unpaired. What a round does to all cells alike is counted as noise: safe, and a little less sharp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import log, log1p

import numpy as np
from numpy.typing import NDArray

from runner.stats.distributions import noncentrality, student_p, student_quantile
from runner.stats.estimates import Floats, Processes
from runner.stats.intervals import Interval

POWER = 0.8
CONFIDENCE = 0.95
# Relative latency below any clock's resolution: keeps equal medians from having no noise at all.
RESOLUTION = 1e-9
# Samples turned into one array at a time; bounds the memory of ten thousand cells.
BLOCK = 2_000_000


class Answer(Enum):
    """What the data say about a cell beside its baseline."""

    FASTER = "faster"
    SLOWER = "slower"
    UNDECIDED = "undecided"
    """No difference shown; a smaller one than `Verdict.detectable` may exist."""
    UNKNOWN = "unknown"
    """A side has one process: no comparison is possible."""


@dataclass(frozen=True)
class Verdict:
    """One cell beside the baseline."""

    answer: Answer
    ratio: float
    """Speed-up: geometric mean of the baseline's process medians over the cell's; above 1 the cell is faster."""
    interval: Interval | None
    """Of the ratio, at 95 %, for this comparison alone: it can exclude 1 where `p_holm` is undecided. None: unknown."""
    p: float | None
    """Probability of so large a difference between equal cells, this comparison alone. None: unknown."""
    p_holm: float | None
    """The same among all comparisons made; decides `answer`. None: unknown."""
    detectable: float | None
    """Least relative difference (0.03: 3 %) that these data would have shown 4 times in 5. None: unknown."""
    floor: float | None = None
    """Relative difference that equal cells of as many rounds show on this host. None: no A/A sweep has told."""

    @property
    def is_under_floor(self) -> bool:
        """Called different, by less than equal cells differ by here: chance may be larger than these data show."""
        decided = self.answer in (Answer.FASTER, Answer.SLOWER)
        return decided and self.floor is not None and abs(log(self.ratio)) < log1p(self.floor)


@dataclass(frozen=True)
class Logs:
    """Per cell: mean and variance of its processes' log medians, and how many processes; arrays of one length."""

    mean: Floats
    variance: Floats
    """0 where there is one process."""
    count: NDArray[np.intp]


@dataclass(frozen=True)
class Welch:
    """Element by element: log speed-up, its standard error, degrees of freedom, two-sided p; nan where unknown."""

    log_ratio: Floats
    error: Floats
    df: Floats
    p: Floats


def process_medians(processes: Processes) -> Floats:
    """The median of each process, in seconds; processes of one length are sorted together.

    Raises:
        ValueError: a process without samples, or a sample that is not a finite positive number.
    """
    lengths = np.fromiter(map(len, processes), dtype=np.intp, count=len(processes))
    if not lengths.all():
        raise ValueError("a cell needs at least one process with at least one sample")
    medians = np.empty(len(processes))
    order = np.argsort(lengths, kind="stable")
    for same in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        step = max(1, BLOCK // int(lengths[same[0]]))
        for start in range(0, len(same), step):
            block = same[start : start + step]
            samples = np.array([processes[i] for i in block], dtype=np.float64)
            if not (np.isfinite(samples).all() and (samples > 0).all()):
                raise ValueError("a latency must be a finite number above 0")
            medians[block] = np.median(samples, axis=1)
    return medians


def logs_of(cells: Sequence[Processes]) -> Logs:
    """Means and variances of log process medians.

    Raises:
        ValueError: no cell, a cell without a process, or see `process_medians`.
    """
    count = np.fromiter(map(len, cells), dtype=np.intp, count=len(cells))
    if not len(cells) or not count.all():
        raise ValueError("a cell needs at least one process with at least one sample")
    logs = np.log(process_medians([samples for cell in cells for samples in cell]))
    starts = np.cumsum(count) - count
    mean = np.add.reduceat(logs, starts) / count
    squares = np.add.reduceat((logs - np.repeat(mean, count)) ** 2, starts)
    return Logs(mean, squares / np.maximum(count - 1, 1), count)


def welch(baseline: Logs, cell: Logs) -> Welch:
    """Welch's t with Satterthwaite's degrees of freedom (Welch 1947, Biometrika 34(1-2)), element by element."""
    known = (baseline.count > 1) & (cell.count > 1)
    log_ratio = baseline.mean - cell.mean
    parts = [np.maximum(side.variance, RESOLUTION**2) / side.count for side in (baseline, cell)]
    freedom = [np.maximum(side.count - 1, 1) for side in (baseline, cell)]
    square = parts[0] + parts[1]
    df = square**2 / (parts[0] ** 2 / freedom[0] + parts[1] ** 2 / freedom[1])
    p = student_p(log_ratio / np.sqrt(square), df)
    error, df, p = (np.where(known, values, np.nan) for values in (np.sqrt(square), df, p))
    return Welch(log_ratio, error, df, p)


def holm(p: Floats) -> Floats:
    """P-values such that those under a level hold together with at most that chance of any false one.

    Holm 1979, Scand. J. Statist. 6(2); nan (no comparison was possible) stays nan and is not counted.
    """
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    corrected = np.full(len(p), np.nan)
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return corrected


def detectable(test: Welch, level: Floats | float) -> Floats:
    """Least relative difference that a test of that ``level`` shows with a power of 80 %; nan where unknown.

    Power of the t test (Cohen 1988, "Statistical Power Analysis", chapter 2) with the noise that was observed; see
    `noncentrality`.
    """
    critical = -student_quantile(np.asarray(level) / 2, test.df)
    with np.errstate(over="ignore"):
        return np.asarray(np.expm1(noncentrality(POWER, critical, test.df) * test.error))


def _ends(test: Welch, level: float) -> tuple[Floats, Floats]:
    half = student_quantile((1 + level) / 2, test.df) * test.error
    with np.errstate(over="ignore"):
        return np.exp(test.log_ratio - half), np.exp(test.log_ratio + half)


def ratio_interval(baseline: Processes, processes: Processes, level: float = CONFIDENCE) -> Interval | None:
    """Interval of the speed-up p50(baseline) / p50(processes), which has no unit; above 1 the second is faster.

    Welch's on the log scale, at any number of processes, so that it excludes 1 exactly when the uncorrected p of
    `compare` is under 1 - level. None when a side has one process.

    Raises:
        ValueError: see `logs_of`.
    """
    test = welch(logs_of([baseline]), logs_of([processes]))
    if np.isnan(test.p[0]):
        return None
    low, high = _ends(test, level)
    return Interval(float(low[0]), float(high[0]), level)


def floor_at(floors: Mapping[int, float], rounds: int) -> float | None:
    """Of floors by number of rounds, that of the most rounds that are not more than these; None where all are more."""
    return floors[max(known)] if (known := [number for number in floors if number <= rounds]) else None


def compare(
    baseline: Processes,
    others: Sequence[Processes],
    level: float = 0.05,
    floors: Mapping[int, float] | None = None,
) -> list[Verdict]:
    """Each of ``others`` beside the baseline, in their order.

    Args:
        baseline: samples in seconds, one sequence a process.
        others: cells, likewise; the family that Holm's correction counts, without those of unknown answer.
        level: chance of calling any of them different when all are equal.
        floors: rounds -> relative difference that equal cells of so many rounds show on this host, where known.

    Raises:
        ValueError: a cell without processes or samples, or a sample that is not a finite positive number.
    """
    if not others:
        return []
    test = welch(logs_of([baseline]), logs_of(others))
    p_holm = holm(test.p)
    decided = p_holm <= level
    # Beside r other rejected hypotheses of m, Holm rejects this one exactly when its p is at most level / (m - r).
    family, rejected = int((~np.isnan(test.p)).sum()), int(decided.sum())
    smallest = detectable(test, level / np.maximum(family - (rejected - decided), 1))
    low, high = _ends(test, CONFIDENCE)
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
            floor_at(floors or {}, min(len(baseline), len(other))),
        )
        for other, ratio, p, corrected, sure, low_end, high_end, least in zip(
            others,
            *(column.tolist() for column in (np.exp(test.log_ratio), test.p, p_holm, decided, low, high, smallest)),
            strict=True,
        )
    ]
