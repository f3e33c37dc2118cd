"""Cells measured in rounds: the differences between cells with what each round did to all of them taken out.

A round visits every cell in random order, so rounds are the blocks of a randomized complete block design (Box, Hunter &
Hunter 2005, "Statistics for Experimenters", 2nd ed., chapter 4): the log median of a process is the sum of its cell's,
of its round's and of noise. All cells together estimate what a round did, and (cells - 1)(rounds - 1) degrees of
freedom are left for the noise. The variance of each cell is in `runner.stats.shrinkage`; a comparison of two cells has
the sum of both, with Satterthwaite's degrees of freedom (Welch 1947, Biometrika 34(1-2)).

Cells need not have had every round: cells and rounds are then fitted together by least squares, and what the rounds'
estimates add to the error of a comparison is counted. Three cases are apart:

* Two cells alone. Taking the rounds out would halve their degrees of freedom, so it is done only if the rounds are seen
  to differ (an F test at `VISIBLE`). If not, the error is Welch's, but never below the mean of both methods' variances:
  so this choice itself raises no false alarms (`benchmarks/power.py`).
* Cells without a round in common, and not connected by cells that have some, as those of different sweeps. The rounds
  are then part of each cell's noise.
* A cell with a single process. It takes part in estimating the rounds, and is compared with none.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from runner.stats.distributions import f_quantile, student_p
from runner.stats.estimates import Floats
from runner.stats.shrinkage import RESOLUTION, moderated

# The probability of rounds that do nothing to be seen to differ, where there are two cells.
VISIBLE = 0.05
# Two directions are one if they differ by less, relative to their length: rounding errors of the least squares.
ROUNDING = 1e-8
R = TypeVar("R", bound=Hashable)
# The fields of `Differences`.
COLUMNS = ("log_ratio", "error", "df", "p")


@dataclass(frozen=True)
class Differences:
    """Log speed-ups, their standard errors, degrees of freedom and two-sided p, per element; nan where unknown."""

    log_ratio: Floats
    error: Floats
    df: Floats
    p: Floats


@dataclass(frozen=True)
class Fit:
    """The table of cells and rounds, and what was estimated from it; arrays have one element or row per cell."""

    logs: Floats
    """Log medians, of shape (cells, rounds); 0 where there is none."""
    has: NDArray[np.bool_]
    """Where there is a log median."""
    mean: Floats
    """The mean log median of each cell, with the rounds taken out."""
    variance: Floats
    """The moderated variance of one process of each cell; nan if no cell has a residual."""
    df: Floats
    """The degrees of freedom of each variance."""
    total_df: float
    """The degrees of freedom of all residuals."""
    inverse: Floats | None
    """The covariance of the rounds' estimates for a noise of 1; None if every cell had every round."""

    @property
    def count(self) -> NDArray[np.intp]:
        """The number of processes of each cell."""
        return np.asarray(self.has.sum(axis=1), dtype=np.intp)

    def differences(
        self, baseline: int, others: Sequence[int] | NDArray[np.intp], with_single_processes: bool = False
    ) -> Differences:
        """The differences of ``others`` from the baseline; positive where the other is faster.

        Args:
            baseline: the place of a cell.
            others: the places of other cells.
            with_single_processes: whether a cell with a single process is judged by the noise of the other cells; else
                its difference is unknown.
        """
        cells = np.asarray(others, dtype=np.intp)
        are_alone = len(self.logs) == 2
        found = _of_two(self.logs, self.has, baseline, cells) if are_alone else self._blocked(baseline, cells)
        least = 1 if with_single_processes and not are_alone else 2
        is_known = (self.count[baseline] >= least) & (self.count[cells] >= least)
        error, df = (np.where(is_known, values, np.nan) for values in (found.error, found.df))
        return Differences(found.log_ratio, error, df, student_p(found.log_ratio / error, df))

    def _blocked(self, baseline: int, cells: NDArray[np.intp]) -> Differences:
        count, variance, df = self.count, self.variance, self.df
        log_ratio = self.mean[baseline] - self.mean[cells]
        rounds, connected = np.zeros(len(cells)), np.full(len(cells), bool(self.total_df))
        if self.inverse is not None:
            rounds, connected = self._error_of_rounds(self.inverse, baseline, cells)
        parts = [variance[cells] / count[cells], variance[baseline] / count[baseline] * np.ones(len(cells)), rounds]
        square = np.asarray(sum(parts))
        freedom = satterthwaite(parts, [df[cells], df[baseline], np.asarray(self.total_df)])
        # Where one variance is pooled for all, that is the residuals' own degrees of freedom.
        freedom = np.minimum(freedom, self.total_df)
        freedom = np.where((df[cells] >= self.total_df) & (df[baseline] >= self.total_df), self.total_df, freedom)
        apart = _unpaired(self.logs, self.has, baseline, cells)
        return Differences(
            np.where(connected, log_ratio, apart.log_ratio),
            np.where(connected, np.sqrt(square), apart.error),
            np.where(connected, freedom, apart.df),
            np.full(len(cells), np.nan),
        )

    def _error_of_rounds(
        self, inverse: Floats, baseline: int, cells: NDArray[np.intp]
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """The variance that the rounds' estimates add, and whether rounds connect the cell with the baseline."""
        share = self.has / self.count[:, None]
        uneven = share[cells] - share[baseline]
        weights = uneven @ inverse
        noise = np.where(np.isfinite(self.variance), self.variance, 0.0)
        noise_of_rounds = np.diag(noise @ self.has) - (share * noise[:, None]).T @ self.has
        system = np.diag(self.has.sum(axis=0)) - share.T @ self.has
        connected = np.abs(weights @ system - uneven).max(axis=1) < ROUNDING
        return np.maximum(((weights @ noise_of_rounds) * weights).sum(axis=1), 0.0), connected & bool(self.total_df)


def fit(cells: Sequence[Mapping[R, float]]) -> Fit:
    """Fit cells and rounds to the log medians.

    Args:
        cells: of each cell, round -> the median of its process in seconds; equal keys of two cells are one round.

    Raises:
        ValueError: there is no cell, a cell has no round, or a median is not a finite positive number.
    """
    if not cells or not all(cells):
        raise ValueError("a cell needs at least one process with at least one sample")
    place = {key: number for number, key in enumerate(dict.fromkeys(key for cell in cells for key in cell))}
    medians, has = np.ones((len(cells), len(place))), np.zeros((len(cells), len(place)), dtype=bool)
    for row, cell in enumerate(cells):
        columns = [place[key] for key in cell]
        medians[row, columns], has[row, columns] = list(cell.values()), True
    if not (np.isfinite(medians).all() and (medians > 0).all()):
        raise ValueError("a latency must be a finite number above 0")
    return fit_logs(np.log(medians), has)


def fit_logs(logs: Floats, has: NDArray[np.bool_]) -> Fit:
    """Fit cells and rounds to log medians, of shape (cells, rounds) and 0 where ``has`` is false."""
    count = has.sum(axis=1)
    mean = logs.sum(axis=1) / count
    centred = np.where(has, logs - mean[:, None], 0.0)
    inverse = None
    if has.all():
        shift = centred.mean(axis=0)
        freedom = np.full(len(logs), (logs.shape[1] - 1) * (1 - 1 / len(logs)))
    else:
        system = np.diag(has.sum(axis=0)) - (has / count[:, None]).T @ has
        inverse = np.linalg.pinv(system, rcond=ROUNDING, hermitian=True)
        shift = inverse @ centred.sum(axis=0)
        # The trace of the residuals' projection, cell by cell.
        used = has @ np.diag(inverse) - ((has @ inverse) * has).sum(axis=1) / count
        freedom = np.maximum(count - 1 - used, 0.0)
    of_rounds = (has @ shift) / count
    residuals = np.where(has, centred - shift + of_rounds[:, None], 0.0)
    variance, df = moderated((residuals**2).sum(axis=1), freedom)
    total = float(freedom.sum())
    return Fit(logs, has, mean - of_rounds, variance, df, total if total > ROUNDING else 0.0, inverse)


def of_pairs(one: Floats, two: Floats) -> Differences:
    """The differences of many pairs of cells, each alone: log medians, of shape (pairs, rounds), none missing."""
    rounds = one.shape[1]
    own = [side.var(axis=1, ddof=1) for side in (one, two)]
    between = (one - two).var(axis=1, ddof=1)
    # The rounds' mean square over the residuals': both sides move together in a round, or only apart.
    ratio = (one + two).var(axis=1, ddof=1) / np.maximum(between, RESOLUTION**2)
    return _sharper((one - two).mean(axis=1), own, [rounds, rounds], between, rounds, ratio)


def _of_two(logs: Floats, has: NDArray[np.bool_], baseline: int, cells: NDArray[np.intp]) -> Differences:
    """The differences in a table of two cells; a cell may be set against itself."""
    found = []
    for cell in cells.tolist():
        shared = has[baseline] & has[cell]
        if shared.sum() < 2:
            found.append(_unpaired(logs, has, baseline, np.array([cell])))
            continue
        one, two = logs[baseline, shared][None, :], logs[cell, shared][None, :]
        between = (one - two).var(axis=1, ddof=1)
        ratio = (one + two).var(axis=1, ddof=1) / np.maximum(between, RESOLUTION**2)
        is_seen = bool(ratio[0] > f_quantile(1 - VISIBLE, shared.sum() - 1))
        sides = [logs[side, shared if is_seen else has[side]] for side in (baseline, cell)]
        own = [np.atleast_1d(side.var(ddof=1)) for side in sides]
        log_ratio = np.atleast_1d(sides[0].mean() - sides[1].mean())
        found.append(_sharper(log_ratio, own, [len(side) for side in sides], between, int(shared.sum()), ratio))
    return Differences(*(np.concatenate([getattr(one, name) for one in found]) for name in COLUMNS))


def _sharper(
    log_ratio: Floats, own: Sequence[Floats], count: Sequence[int], between: Floats, shared: int, ratio: Floats
) -> Differences:
    """With the rounds taken out where they are seen to differ; else unpaired, with the larger of two errors."""
    is_seen = ratio > f_quantile(1 - VISIBLE, shared - 1)
    parts = [np.maximum(variance, RESOLUTION**2) / n for variance, n in zip(own, count, strict=True)]
    of_rounds = np.maximum(between, RESOLUTION**2)
    paired = of_rounds / shared
    unpaired = parts[0] + parts[1]
    unpaired = np.maximum(unpaired, unpaired / 2 + of_rounds / 4 * (1 / count[0] + 1 / count[1]))
    df = satterthwaite(parts, [np.asarray(float(n - 1)) for n in count])
    error, df = np.sqrt(np.where(is_seen, paired, unpaired)), np.where(is_seen, shared - 1.0, df)
    return Differences(log_ratio, error, df, student_p(log_ratio / error, df))


def _unpaired(logs: Floats, has: NDArray[np.bool_], baseline: int, cells: NDArray[np.intp]) -> Differences:
    """Welch's differences, in which what rounds do is part of each cell's noise."""
    count = has.sum(axis=1)
    mean = logs.sum(axis=1) / count
    freedom = np.maximum(count - 1.0, 1.0)
    variance = (np.where(has, logs - mean[:, None], 0.0) ** 2).sum(axis=1) / freedom
    variance = np.maximum(variance, RESOLUTION**2)
    parts = [variance[cells] / count[cells], variance[baseline] / count[baseline] * np.ones(len(cells))]
    df = satterthwaite(parts, [freedom[cells], freedom[baseline]])
    nothing = np.full(len(cells), np.nan)
    return Differences(mean[baseline] - mean[cells], np.sqrt(np.asarray(sum(parts))), df, nothing)


def satterthwaite(parts: Sequence[Floats], freedom: Sequence[Floats]) -> Floats:
    """The degrees of freedom of a sum of variances (Satterthwaite 1946, Biometrics Bull. 2(6))."""
    squares = [part**2 / np.maximum(df, RESOLUTION) for part, df in zip(parts, freedom, strict=True)]
    return np.asarray(np.asarray(sum(parts)) ** 2 / np.asarray(sum(squares)))
