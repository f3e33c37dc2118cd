"""What does each axis do by itself, and which axes do more (or less) together than separately? Pure.

Cells that differ in one axis only form a pair; the logarithm of their ratio is one observation of what that axis does,
and the axis' main effect is the mean over all pairs (Box, Hunter & Hunter 2005, "Statistics for Experimenters", 2nd
ed., chapter 5; pairs: chapter 3). Two axes interact if the effect of one depends on the other: the interaction is the
ratio of the effect's ratios over complete 2 x 2 blocks of cells (chapter 5), and 1 if the effects multiply. All is
computed on logarithms, because latencies are compared as ratios, and effects that multiply are then sums (chapter 8).

An interval here is one over the pairs: if an axis helps some cells and harms others, it is wide, however exactly each
cell was measured. Decisions are corrected by Holm's method; main effects and interactions are a family each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runner.stats.decision import holm
from runner.stats.distributions import student_p, student_quantile
from runner.stats.estimates import Floats
from runner.stats.intervals import Interval
from runner.stats.shrinkage import RESOLUTION

CONFIDENCE = 0.95
LEVEL = 0.05
# Larger codes are Python's own integers, which are slower and can't overflow.
_LARGEST = 2**62


@dataclass(frozen=True)
class Mean:
    """The geometric mean of some ratios, and whether it differs from 1."""

    ratio: float
    interval: Interval | None
    """The 95 % interval by Student's t on the logarithms; None for a single ratio."""
    count: int
    """The number of ratios."""
    p_holm: float | None
    """The two-sided p-value, corrected for its family; None for a single ratio."""

    @property
    def is_shown(self) -> bool:
        """Whether the mean differs from 1 by more than chance, with all effects of its family considered."""
        return self.p_holm is not None and self.p_holm <= LEVEL


@dataclass(frozen=True)
class Effect:
    """What a value of an axis does if all else is equal."""

    axis: str
    value: str
    reference: str
    mean: Mean
    """The speed-up over the reference value; above 1 this value is faster."""


@dataclass(frozen=True)
class Interaction:
    """What two values do together, beyond the product of what each does with the other axis at its reference."""

    axes: tuple[str, str]
    values: tuple[str, str]
    references: tuple[str, str]
    mean: Mean
    """The ratio of ratios of speed-ups; above 1 the two are faster together than the product of their own effects."""


@dataclass(frozen=True)
class Design:
    """Cells as points of a grid; equal points (a cell in several sweeps) become one, at their geometric mean."""

    levels: Mapping[str, tuple[str, ...]]
    """Axis -> values of the axis."""
    reference: Mapping[str, int]
    """Axis -> index of the value that the others are compared with."""
    code: NDArray[np.int64]
    """The codes of the points, ascending: a point's digits as one number in mixed radix."""
    digits: NDArray[np.int64]
    """Indices into the levels, of shape (points, axes)."""
    strides: Sequence[int]
    """The worth of each axis' digit in the code."""
    logs: Floats
    """The log latency of each point."""

    def partners(self, steps: NDArray[np.int64]) -> NDArray[np.intp]:
        """The index of the point at code + step, for each point; -1 where that cell was not measured."""
        codes = self.code + steps
        place = np.minimum(np.searchsorted(self.code, codes), len(self.code) - 1)
        return np.where(self.code[place] == codes, place, -1)


def design(cells: Sequence[Mapping[str, str]], latencies: Sequence[float], reference: Mapping[str, str]) -> Design:
    """Lay the cells out as a grid.

    Args:
        cells: axis -> value for each cell, with every axis (and setting) in which any two of them differ.
        latencies: the latency of each cell, positive and in one unit.
        reference: axis -> value of the baseline; an axis that is not in it, or whose value no cell has, takes its first
            value as the reference.
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
    """The effect of every value of these axes that forms pairs with the reference value, in the order given."""
    samples = []
    for axis in axes:
        digit, reference, step = _to_reference(grid, axis)
        partner = grid.partners(step)
        # The reference's latency over that of the value: a speed-up.
        ratios = grid.logs[partner] - grid.logs
        for value, name in enumerate(grid.levels[axis]):
            own_ratios = ratios[(digit == value) & (partner >= 0)] if value != reference else ratios[:0]
            if len(own_ratios):
                samples.append((axis, name, grid.levels[axis][reference], own_ratios))
    means = _means([own_ratios for *_, own_ratios in samples])
    return [Effect(axis, name, other, mean) for (axis, name, other, _), mean in zip(samples, means, strict=True)]


def interactions(grid: Design, pairs: Sequence[tuple[str, str]]) -> list[Interaction]:
    """The interaction of every pair of values with a complete 2 x 2 block, for these pairs of axes.

    Those that are more than chance come first, and the largest of them before the others.
    """
    samples = []
    for a, b in pairs:
        digit_a, reference_a, step_a = _to_reference(grid, a)
        digit_b, reference_b, step_b = _to_reference(grid, b)
        corners = [grid.partners(step) for step in (step_a, step_b, step_a + step_b)]
        differs = (digit_a != reference_a) & (digit_b != reference_b)
        complete = np.flatnonzero(differs & np.logical_and.reduce([corner >= 0 for corner in corners]))
        if not len(complete):
            continue
        without_a, without_b, neither = (grid.logs[corner[complete]] for corner in corners)
        double_ratios = without_a + without_b - neither - grid.logs[complete]
        width = len(grid.levels[b])
        block = (digit_a * width + digit_b)[complete].astype(np.int64)
        order = np.argsort(block, kind="stable")
        kinds, starts = np.unique(block[order], return_index=True)
        for kind, own_ratios in zip(kinds.tolist(), np.split(double_ratios[order], starts[1:]), strict=True):
            values = grid.levels[a][kind // width], grid.levels[b][kind % width]
            references = grid.levels[a][reference_a], grid.levels[b][reference_b]
            samples.append(((a, b), values, references, own_ratios))
    means = _means([own_ratios for *_, own_ratios in samples])
    results = [
        Interaction(axes, values, references, mean)
        for (axes, values, references, _), mean in zip(samples, means, strict=True)
    ]
    return sorted(results, key=lambda i: (not i.mean.is_shown, -abs(float(np.log(i.mean.ratio)))))


def _to_reference(grid: Design, axis: str) -> tuple[NDArray[np.int64], int, NDArray[np.int64]]:
    """The digit of each point on an axis, the reference's digit, and the step in code from the one to the other."""
    place = list(grid.levels).index(axis)
    digit = grid.digits[:, place]
    reference = grid.reference[axis]
    return digit, reference, (reference - digit) * grid.strides[place]


def _means(samples: Sequence[Floats]) -> list[Mean]:
    """The geometric means of samples of log ratios, which are one family."""
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
