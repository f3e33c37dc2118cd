"""The Pareto front: cells that no other cell beats in everything. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runner.results.cells import CellRow
from runner.results.metric_names import Metric
from runner.stats.estimates import Floats

# Figure -> the sign with which less of it is better.
FIGURES: dict[str, float] = {
    Metric.P50: 1.0,
    Metric.SAMPLES_PER_S: -1.0,
    Metric.RSS_PEAK: 1.0,
    Metric.RELATIVE_ERROR: 1.0,
}


def figures(cells: Sequence[CellRow]) -> list[str]:
    """The figures that the front of these cells compares: those that some cell has."""
    return [name for name in FIGURES if any(name in cell.metrics for cell in cells)]


def members(cells: Sequence[CellRow]) -> list[bool]:
    """Whether each of these right cells is on their front; a cell that lacks a figure is not."""
    names = figures(cells)
    complete = [index for index, cell in enumerate(cells) if all(name in cell.metrics for name in names)]
    costs = np.array([[FIGURES[name] * cells[index].metrics[name] for name in names] for index in complete])
    is_on = [False] * len(cells)
    for index in pareto(costs.reshape(len(complete), len(names))).tolist():
        is_on[complete[index]] = True
    return is_on


def pareto(costs: Floats) -> NDArray[np.intp]:
    """Rows that no other row dominates: as small in every column, and smaller in one. Equal rows are all kept.

    Sorted by their sums, so that the first of what is left is never dominated: one pass per row of the front
    (Kung, Luccio & Preparata 1975, J. ACM 22(4), on maxima of vectors).
    """
    # By place in each column: sums of unlike units would lose the small ones in rounding.
    ranked = np.column_stack([np.unique(column, return_inverse=True)[1] for column in costs.T]) if costs.size else costs
    remaining = np.argsort(ranked.sum(axis=1), kind="stable") if costs.size else np.arange(0)
    front: list[NDArray[np.intp]] = []
    while len(remaining):
        first = ranked[remaining[0]]
        equal = (ranked[remaining] == first).all(axis=1)
        front.append(remaining[equal])
        remaining = remaining[(ranked[remaining] < first).any(axis=1)]
    return np.sort(np.concatenate(front)) if front else np.arange(0)
