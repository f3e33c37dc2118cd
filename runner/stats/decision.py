"""Is the difference between two cells real? Welch's t on log process medians, corrected for the comparisons made.

Why Welch (1947, Biometrika 34(1-2)) and not a permutation test: the smallest p of an exact permutation test is 2/252
with 5 processes per side, and 0.1 with 3, so after Holm's correction for 39 comparisons it could never find a
difference. The medians of processes are nearly normal on the log scale whatever the shape of their iterations, and
Welch does not assume that two cells are equally noisy. The price is that processes are assumed to be normal: an
outlying process widens the interval, and the answer is then "undecided" rather than wrong.

Rounds are treated as unpaired. What a round does to all cells is counted as noise: this is safe, and a little less
sharp.
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
# A relative latency below any clock's resolution: it keeps equal medians from having no noise at all.
RESOLUTION = 1e-9
# How many samples are turned into an array at a time: this bounds the memory for ten thousand cells.
BLOCK = 2_000_000


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
    """The speed-up: geometric mean of the baseline's process medians over the cell's; above 1 the cell is faster."""
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


@dataclass(frozen=True)
class Logs:
    """The mean and the variance of the log medians of each cell's processes, and their number; arrays of one length."""

    mean: Floats
    variance: Floats
    """The variance; 0 where a cell has a single process."""
    count: NDArray[np.intp]


@dataclass(frozen=True)
class Welch:
    """Log speed-ups, their standard errors, degrees of freedom and two-sided p, per element; nan where unknown."""

    log_ratio: Floats
    error: Floats
    df: Floats
    p: Floats


def process_medians(processes: Processes) -> Floats:
    """The median of each process, in seconds; processes of one length are sorted together.

    Raises:
        ValueError: a process has no samples, or a sample is not a finite positive number.
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
    """The means and variances of the log process medians of each cell.

    Raises:
        ValueError: there is no cell, a cell has no process, or see `process_medians`.
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
    is_known = (baseline.count > 1) & (cell.count > 1)
    log_ratio = baseline.mean - cell.mean
    parts = [np.maximum(side.variance, RESOLUTION**2) / side.count for side in (baseline, cell)]
    freedom = [np.maximum(side.count - 1, 1) for side in (baseline, cell)]
    square = parts[0] + parts[1]
    df = square**2 / (parts[0] ** 2 / freedom[0] + parts[1] ** 2 / freedom[1])
    p = student_p(log_ratio / np.sqrt(square), df)
    error, df, p = (np.where(is_known, values, np.nan) for values in (np.sqrt(square), df, p))
    return Welch(log_ratio, error, df, p)


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


def detectable(test: Welch, level: Floats | float) -> Floats:
    """The smallest relative difference that a test at ``level`` shows with a power of 80 %; nan where unknown.

    This is the power of the t test (Cohen 1988, "Statistical Power Analysis", chapter 2) with the noise that was
    observed; see `noncentrality`.
    """
    critical = -student_quantile(np.asarray(level) / 2, test.df)
    with np.errstate(over="ignore"):
        return np.asarray(np.expm1(noncentrality(POWER, critical, test.df) * test.error))


def _ends(test: Welch, level: float) -> tuple[Floats, Floats]:
    half = student_quantile((1 + level) / 2, test.df) * test.error
    with np.errstate(over="ignore"):
        return np.exp(test.log_ratio - half), np.exp(test.log_ratio + half)


def ratio_interval(baseline: Processes, processes: Processes, level: float = CONFIDENCE) -> Interval | None:
    """The interval of the speed-up p50(baseline) / p50(processes), which has no unit; above 1 the second is faster.

    It is Welch's interval on the log scale, with any number of processes, so that it excludes 1 exactly if the
    uncorrected p of `compare` is under 1 - level. None if a side has a single process.

    Raises:
        ValueError: see `logs_of`.
    """
    test = welch(logs_of([baseline]), logs_of([processes]))
    if np.isnan(test.p[0]):
        return None
    low, high = _ends(test, level)
    return Interval(float(low[0]), float(high[0]), level)


def floor_at(floors: Mapping[int, float], rounds: int) -> float | None:
    """The noise floor measured with the most rounds not exceeding ``rounds``; None if every floor used more rounds.

    Args:
        floors: number of rounds -> noise floor.
    """
    usable = [number for number in floors if number <= rounds]
    return floors[max(usable)] if usable else None


def compare(
    baseline: Processes,
    others: Sequence[Processes],
    level: float = 0.05,
    floors: Mapping[int, float] | None = None,
) -> list[Verdict]:
    """Compare each of ``others`` with the baseline; the verdicts are in the order of ``others``.

    Args:
        baseline: samples in seconds, one sequence per process.
        others: the other cells in the same form; they are the family that Holm's correction counts, without those whose
            answer is unknown.
        level: the chance of calling any of them different if all are equal.
        floors: number of rounds -> relative difference that equal cells show on this host with that many rounds.

    Raises:
        ValueError: a cell has no processes or samples, or a sample is not a finite positive number.
    """
    if not others:
        return []
    test = welch(logs_of([baseline]), logs_of(others))
    p_holm = holm(test.p)
    decided = p_holm <= level
    # If r other hypotheses of m are rejected, Holm rejects this one exactly when its p is at most level / (m - r).
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
