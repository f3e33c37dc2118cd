"""What does each axis do by itself, and which do more (or less) together than apart? Pure, on logarithms.

Cells that are equal but for one axis form a pair; the logarithm of their ratio is one observation of what that axis
does, and its main effect is the mean over all pairs (Box, Hunter & Hunter 2005, "Statistics for Experimenters", 2nd
ed., chapter 5; pairs: chapter 3). Two axes interact when the effect of one depends on the other: the ratio of its
ratios over complete 2 x 2 blocks of cells (chapter 5), 1 where effects multiply. On logarithms, because latencies
compare as ratios, and effects that multiply are then sums (chapter 8).

An interval here spans the pairs: of an axis that helps some cells and harms others it is wide, however exactly each
cell was measured. Decisions are corrected by Holm's method, main effects and interactions being a family each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runner.stats.decision import RESOLUTION, holm
from runner.stats.distributions import student_p, student_quantile
from runner.stats.estimates import Floats
from runner.stats.intervals import Interval

CONFIDENCE = 0.95
LEVEL = 0.05
# Codes past this are Python's integers: slower, and never wrong.
_LARGEST = 2**62


@dataclass(frozen=True)
class Mean:
    """Geometric mean of some ratios, and whether it differs from 1."""

    ratio: float
    interval: Interval | None
    """Student's t on the logarithms, 95 %; None of a single ratio."""
    count: int
    p_holm: float | None
    """Two-sided, corrected for its family; None of a single ratio."""

    @property
    def is_shown(self) -> bool:
        """Whether it is more than chance, all effects of its family considered."""
        return self.p_holm is not None and self.p_holm <= LEVEL


@dataclass(frozen=True)
class Effect:
    """What one value of an axis does, all else equal."""

    axis: str
    value: str
    reference: str
    mean: Mean
    """Speed-up over the reference value; above 1 this value is faster."""


@dataclass(frozen=True)
class Interaction:
    """What two values do together beyond the product of what each does beside the other's reference."""

    axes: tuple[str, str]
    values: tuple[str, str]
    references: tuple[str, str]
    mean: Mean
    """Double ratio of speed-ups; above 1 they are faster together than their own effects multiply to."""


@dataclass(frozen=True)
class Design:
    """Cells as points of a grid; equal points (a cell in several sweeps) are one, at their geometric mean."""

    levels: Mapping[str, tuple[str, ...]]
    """Axis -> its values."""
    reference: Mapping[str, int]
    """Axis -> index of the value that the others are set against."""
    code: NDArray[np.int64]
    """Of each point, ascending: its digits in mixed radix."""
    digits: NDArray[np.int64]
    """Points x axes: indices into the levels."""
    strides: Sequence[int]
    logs: Floats
    """Log latency of each point."""

    def partners(self, steps: NDArray[np.int64]) -> NDArray[np.intp]:
        """Index of the point at code + step of each; -1 where that cell was not measured."""
        wanted = self.code + steps
        place = np.minimum(np.searchsorted(self.code, wanted), len(self.code) - 1)
        return np.where(self.code[place] == wanted, place, -1)


def design(cells: Sequence[Mapping[str, str]], latencies: Sequence[float], reference: Mapping[str, str]) -> Design:
    """Lay the cells out.

    Args:
        cells: axis -> value; every axis (and setting) that varies among them, so that equal means equal in all else.
        latencies: of each, positive, in one unit.
        reference: axis -> value of the baseline; an axis without one, or whose value no cell has, takes its first.
    """
    axes = list(cells[0]) if cells else []
    levels = {axis: tuple(dict.fromkeys(cell[axis] for cell in cells)) for axis in axes}
    size, strides = 1, []
    for axis in axes:
        strides.append(size)
        size *= len(levels[axis])
    kind = np.int64 if size < _LARGEST else object
    index = {axis: {value: number for number, value in enumerate(values)} for axis, values in levels.items()}
    digits = np.array([[index[axis][cell[axis]] for axis in axes] for cell in cells], dtype=kind)
    digits = digits.reshape(len(cells), len(axes))
    codes = digits @ np.array(strides, dtype=kind) if axes else np.zeros(len(cells), dtype=kind)
    code, first, which = np.unique(codes, return_index=True, return_inverse=True)
    logs = np.bincount(which, np.log(np.asarray(latencies, dtype=np.float64)), len(code)) / np.bincount(which)
    chosen = {axis: index[axis].get(reference.get(axis, ""), 0) for axis in axes}
    return Design(levels, chosen, code, digits[first], strides, logs)


def main_effects(grid: Design, axes: Sequence[str]) -> list[Effect]:
    """Every value of these axes that pairs with the reference's, in the order given."""
    found = []
    for axis in axes:
        at, reference, step = _away(grid, axis)
        partner = grid.partners(step)
        # The reference's latency over this one's: a speed-up.
        ratios = grid.logs[partner] - grid.logs
        for value, name in enumerate(grid.levels[axis]):
            mine = ratios[(at == value) & (partner >= 0)] if value != reference else ratios[:0]
            if len(mine):
                found.append((axis, name, grid.levels[axis][reference], mine))
    means = _means([mine for *_, mine in found])
    return [Effect(axis, name, other, mean) for (axis, name, other, _), mean in zip(found, means, strict=True)]


def interactions(grid: Design, pairs: Sequence[tuple[str, str]]) -> list[Interaction]:
    """Every pair of values with a complete 2 x 2 block: those that are more than chance first, the largest first."""
    found = []
    for one, other in pairs:
        at_one, reference_one, step_one = _away(grid, one)
        at_other, reference_other, step_other = _away(grid, other)
        corners = [grid.partners(step) for step in (step_one, step_other, step_one + step_other)]
        moved = (at_one != reference_one) & (at_other != reference_other)
        complete = np.flatnonzero(moved & np.logical_and.reduce([corner >= 0 for corner in corners]))
        if not len(complete):
            continue
        without_one, without_other, neither = (grid.logs[corner[complete]] for corner in corners)
        doubles = without_one + without_other - neither - grid.logs[complete]
        width = len(grid.levels[other])
        block = (at_one * width + at_other)[complete].astype(np.int64)
        order = np.argsort(block, kind="stable")
        kinds, starts = np.unique(block[order], return_index=True)
        for kind, mine in zip(kinds.tolist(), np.split(doubles[order], starts[1:]), strict=True):
            values = grid.levels[one][kind // width], grid.levels[other][kind % width]
            references = grid.levels[one][reference_one], grid.levels[other][reference_other]
            found.append(((one, other), values, references, mine))
    means = _means([mine for *_, mine in found])
    named = [
        Interaction(axes, values, references, mean)
        for (axes, values, references, _), mean in zip(found, means, strict=True)
    ]
    return sorted(named, key=lambda i: (not i.mean.is_shown, -abs(float(np.log(i.mean.ratio)))))


def _away(grid: Design, axis: str) -> tuple[NDArray[np.int64], int, NDArray[np.int64]]:
    """Each point's digit on an axis, the reference's, and the step in code from here to there."""
    place = list(grid.levels).index(axis)
    at = grid.digits[:, place]
    reference = grid.reference[axis]
    return at, reference, (reference - at) * grid.strides[place]


def _means(samples: Sequence[Floats]) -> list[Mean]:
    """Geometric means of log ratios: one family."""
    count = np.array([len(logs) for logs in samples], dtype=np.float64)
    mean = np.array([logs.mean() for logs in samples], dtype=np.float64)
    spread = np.array([logs.std(ddof=1) if len(logs) > 1 else np.nan for logs in samples], dtype=np.float64)
    error = np.maximum(spread, RESOLUTION) / np.sqrt(count)
    df = np.maximum(count - 1, 1)
    p = np.where(count > 1, student_p(mean / error, df), np.nan)
    half = student_quantile(np.full(len(df), (1 + CONFIDENCE) / 2), df) * error
    corrected = holm(p)
    with np.errstate(over="ignore"):
        ratio, low, high = np.exp(mean), np.exp(mean - half), np.exp(mean + half)
    return [
        Mean(float(ratio[i]), None, 1, None)
        if np.isnan(p[i])
        else Mean(
            float(ratio[i]), Interval(float(low[i]), float(high[i]), CONFIDENCE), int(count[i]), float(corrected[i])
        )
        for i in range(len(samples))
    ]
