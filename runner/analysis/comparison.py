"""Cells of any number of sweeps set against each other: groups of equal work, ranked, with effects and fronts. Pure.

Cells of different work are never ranked against each other: each work is a group with a baseline, a Pareto front and
a family of comparisons of its own. Effects are over all groups together, from pairs that do equal work.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runner import stats
from runner.analysis.cells import CellRow, Cells
from runner.analysis.effects import largest_first
from runner.analysis.mixing import MEASURING, SETTINGS, differences
from runner.analysis.noise import Noise
from runner.analysis.ranking import LEVEL, WORK, distrust
from runner.matrix.cell import ABSENT, AXES
from runner.matrix.rules import matches
from runner.protocol.errors import RunnerError
from runner.results.metrics import INTERVALS
from runner.stats.effects import Effect, Interaction, design, interactions, main_effects
from runner.stats.estimates import Floats

Labels = Mapping[str, str]

# Figure -> sign that makes small good.
FRONT = {
    "latency/p50_ms": 1.0,
    "throughput/samples_per_s": -1.0,
    "memory/rss_peak_mb": 1.0,
    "quality/rel_l2": 1.0,
}
ERROR = "quality/max_abs_err"
# All that a comparison reads of a cell's figures.
FIGURES = (
    *dict.fromkeys([*FRONT, *INTERVALS, *(end for ends in INTERVALS.values() for end in ends)]),
    ERROR,
    "latency/cv_pct",
    "contamination/rounds",
)


@dataclass(frozen=True)
class Ranked:
    """One cell in its group."""

    cell: CellRow
    labels: Labels
    """Axes and settings; what hosts and versions differ in, and the sweep, where the comparison mixes them."""
    is_baseline: bool
    speedup: float | None
    """Baseline's p50 over this cell's; None where the output is wrong, not measured, or there is no baseline."""
    verdict: stats.Verdict | None
    """What the rounds say about the speed-up; None for the baseline and where there is none."""
    on_front: bool
    """Right, and no other right cell is as good in every figure of the front and better in one."""
    untrusted: bool
    """Measured, and a round of it or of the baseline is contaminated."""


@dataclass(frozen=True)
class Group:
    """Cells that do equal work, fastest first; then wrong ones, then those that were not measured."""

    name: Labels
    """What tells this group from the others; empty when there is one."""
    rows: Sequence[Ranked]
    front: Sequence[str]
    """Figures that the Pareto front is over: those that some right cell has."""
    best: Ranked | None
    """The fastest right cell with an error of at most the bound; None without a bound, or when no cell is."""

    @property
    def baseline(self) -> Ranked | None:
        """None when no cell of the group may be one."""
        return next((row for row in self.rows if row.is_baseline), None)


@dataclass(frozen=True)
class Comparison:
    """Everything that is said of some sweeps."""

    sweeps: Sequence[str]
    distinguishing: Sequence[str]
    """Keys that tell the cells apart."""
    groups: Sequence[Group]
    effects: Sequence[Effect]
    interactions: Sequence[Interaction]
    bound: float | None
    """Of max_abs_err, as asked for."""
    noise: Noise | None = None
    """What equal cells look like on the host; None: not known."""

    @property
    def warning(self) -> str:
        """What must be said first: see ranking.distrust()."""
        cells = [row.cell for group in self.groups for row in group.rows if row.cell.p50_ms is not None]
        return distrust((cell.contaminated_rounds, len(cell.medians_s), cell.contamination) for cell in cells)


def compare(
    cells: Cells,
    baseline: Mapping[str, Sequence[str]],
    by: Sequence[str] = (),
    bound: float | None = None,
    noise: Noise | None = None,
) -> Comparison:
    """Rank, pair, and look for the best.

    Args:
        cells: of sweeps that can be compared, or whose differences were allowed: those become labels.
        baseline: axis -> accepted values; empty for the sweeps' own baselines.
        by: axes whose values are ranked apart, like work.
        bound: largest absolute error of the best cell.
        noise: of the host of all sweeps, as far as one is known.

    Raises:
        RunnerError: no right cell is a baseline as asked for.
    """
    labels, extra = _labelled(cells)
    keys = _telling(labels, extra)
    apart = [key for key in dict.fromkeys([*WORK, *by]) if key in keys or key in by]
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, found in enumerate(labels):
        groups.setdefault(tuple(found[key] for key in apart), []).append(index)
    chosen = _baselines(cells.rows, labels, keys, list(groups.values()), baseline, apart)
    ranked = [
        _group(dict(zip(apart, name, strict=True)), cells, labels, members, index, bound, noise)
        for (name, members), index in zip(groups.items(), chosen, strict=True)
    ]
    # Of the sweep's own baseline where it is one here.
    bases = sorted((index for index in chosen if index is not None), key=lambda i: not cells.rows[i].is_baseline)
    reference = labels[bases[0]] if bases else {}
    effects, together = _effects(cells.rows, labels, keys, reference)
    # By what is shown and not by id: of two versions of the runner, equal cells have different ids.
    seen = {tuple(found[key] for key in keys) for found in labels}
    distinguishing = (*keys, "sweep") if len(seen) < len(cells.rows) else tuple(keys)
    return Comparison([o.sweep for o in cells.origins], distinguishing, ranked, effects, together, bound, noise)


def _labelled(cells: Cells) -> tuple[list[dict[str, str]], list[str]]:
    """Labels of each cell, every name in every cell; and the names that hosts and versions differ in."""
    mixed = [found for found in differences(cells) if found.kind != SETTINGS]
    of_sweep = {o.sweep: {"sweep": o.sweep, **{d.name: d.values[o.sweep] for d in mixed}} for o in cells.origins}
    names = dict.fromkeys(name for row in cells.rows for name in (*row.axes, *row.settings))
    empty = dict.fromkeys(names, ABSENT)
    labels = [{**empty, **row.axes, **row.settings, **of_sweep[row.sweep]} for row in cells.rows]
    return labels, [difference.name for difference in mixed]


def _telling(labels: Sequence[Labels], extra: Sequence[str]) -> list[str]:
    """The keys that tell cells apart: two cells that are equal in them are the same configuration.

    Axes, how it was measured, hosts and versions where they vary; of the settings that belong to an axis, those that
    do not follow its value (jemalloc's environment follows ``allocator`` and tells nothing more).
    """
    if not labels:
        return []
    known = set(labels[0]) - {"sweep"}
    alone = [key for key in (*AXES, *MEASURING, *extra) if key in known]
    owned = [key for key in labels[0] if key in known and key not in alone]

    def follows(key: str) -> bool:
        owner = key.partition(".")[0]
        pairs = {(found.get(owner, ABSENT), found[key]) for found in labels}
        return len(pairs) == len({value for value, _ in pairs})

    varying = [key for key in alone if len({found[key] for found in labels}) > 1]
    return varying + [key for key in owned if not follows(key)]


def _baselines(
    rows: Sequence[CellRow],
    labels: Sequence[Labels],
    keys: Sequence[str],
    groups: Sequence[Sequence[int]],
    wanted: Mapping[str, Sequence[str]],
    apart: Sequence[str],
) -> list[int | None]:
    """One right cell of each group; what tells the groups apart is not asked of it when there are several.

    As wanted; else its sweep's own baseline, else the cell most like that, else the slowest.
    """
    rule = {axis: values for axis, values in wanted.items() if len(groups) == 1 or axis not in apart}
    own = next((labels[index] for index, row in enumerate(rows) if row.is_baseline), {})
    alike = {key: (own[key],) for key in keys if key in own and key not in apart}
    found: list[int | None] = []
    for members in groups:
        right = [index for index in members if rows[index].is_right]
        if wanted:
            found.append(next((index for index in right if matches(rule, labels[index])), None))
            continue
        choices = [index for index in right if rows[index].is_baseline]
        choices += [index for index in right if matches(alike, labels[index])] if own else []
        choices += sorted(right, key=lambda index: -(rows[index].p50_ms or 0.0))
        found.append(choices[0] if choices else None)
    if wanted and all(index is None for index in found):
        asked = ",".join(f"{axis}={'|'.join(values)}" for axis, values in wanted.items())
        example = next((labels[index] for index, row in enumerate(rows) if row.is_right), None)
        if example is None:
            raise RunnerError(f"--baseline {asked}: no cell was measured with a right output; there is none to choose")
        axes = [key for key in keys if key in AXES] or ["model"]
        raise RunnerError(
            f"--baseline {asked}: no cell that was measured with a right output has it; "
            f"choose another, such as --baseline {','.join(f'{axis}={example[axis]}' for axis in axes)}"
        )
    return found


def _group(
    name: Labels,
    cells: Cells,
    labels: Sequence[Labels],
    members: Sequence[int],
    baseline: int | None,
    bound: float | None,
    noise: Noise | None,
) -> Group:
    rows = cells.rows
    # Of sweeps that looked more often than once, the strictest level keeps all of them honest.
    level = min((origin.level for origin in cells.origins), default=LEVEL)
    right = [index for index in members if rows[index].is_right]
    verdicts: dict[int, stats.Verdict] = {}
    rated = [index for index in right if index != baseline] if baseline is not None else []
    if baseline is not None and rated:
        # A process's median stands for its process.
        processes = [[[value] for value in rows[index].medians_s] for index in rated]
        floors = noise.floors if noise else None
        judged = stats.compare([[value] for value in rows[baseline].medians_s], processes, level, floors)
        verdicts = dict(zip(rated, judged, strict=True))
    figures, front = _front([rows[index] for index in right])
    on_front = {index for index, is_on in zip(right, front, strict=True) if is_on}
    base = rows[baseline].p50_ms if baseline is not None else None

    def ranked(index: int) -> Ranked:
        p50 = rows[index].p50_ms
        speedup = base / p50 if base and p50 and rows[index].is_right else None
        is_baseline = index == baseline
        disturbed = any(rows[i].contaminated_rounds for i in (index, baseline) if i is not None)
        untrusted = p50 is not None and disturbed
        verdict = verdicts.get(index)
        return Ranked(rows[index], labels[index], is_baseline, speedup, verdict, index in on_front, untrusted)

    def place(row: Ranked) -> tuple[bool, bool, float]:
        return row.cell.p50_ms is None, not row.cell.is_right, row.cell.p50_ms or 0.0

    ordered = sorted((ranked(index) for index in members), key=place)
    best = next((row for row in ordered if bound is not None and _within(row.cell, bound)), None)
    return Group(name, ordered, figures, best)


def _within(cell: CellRow, bound: float) -> bool:
    error = cell.metrics.get(ERROR)
    return cell.is_right and error is not None and error <= bound


def _front(cells: Sequence[CellRow]) -> tuple[list[str], list[bool]]:
    """The figures that some cell has, and which cells are on their front; one that lacks a figure is not."""
    figures = [name for name in FRONT if any(name in cell.metrics for cell in cells)]
    complete = [index for index, cell in enumerate(cells) if all(name in cell.metrics for name in figures)]
    costs = np.array([[FRONT[name] * cells[index].metrics[name] for name in figures] for index in complete])
    is_on = [False] * len(cells)
    for index in pareto(costs.reshape(len(complete), len(figures))).tolist():
        is_on[complete[index]] = True
    return figures, is_on


def pareto(costs: Floats) -> NDArray[np.intp]:
    """Rows that no other row dominates: as small in every column, and smaller in one. Equal rows are all kept.

    Sorted by their sums, so that the first of what is left is never dominated: one pass for each row of the front
    (Kung, Luccio & Preparata 1975, J. ACM 22(4), on maxima of vectors).
    """
    # By place in each column: sums of unlike units would lose the small ones in rounding.
    ranked = np.column_stack([np.unique(column, return_inverse=True)[1] for column in costs.T]) if costs.size else costs
    left = np.argsort(ranked.sum(axis=1), kind="stable") if costs.size else np.arange(0)
    kept: list[NDArray[np.intp]] = []
    while len(left):
        first = ranked[left[0]]
        equal = (ranked[left] == first).all(axis=1)
        kept.append(left[equal])
        left = left[(ranked[left] < first).any(axis=1)]
    return np.sort(np.concatenate(kept)) if kept else np.arange(0)


def _effects(
    rows: Sequence[CellRow], labels: Sequence[Labels], keys: Sequence[str], reference: Labels
) -> tuple[list[Effect], list[Interaction]]:
    """Main effects and interactions among right cells; work has no effect of its own, and may interact.

    Effects are by axis, that with the largest first.
    """
    right = [(labels[index], row.p50_ms) for index, row in enumerate(rows) if row.is_right and row.p50_ms]
    if not right:
        return [], []
    grid = design([{key: found[key] for key in keys} for found, _ in right], [p50 for _, p50 in right], reference)
    factors = [key for key in keys if key not in WORK]
    pairs = [pair for pair in itertools.combinations(keys, 2) if set(pair) & set(factors)]
    return largest_first(main_effects(grid, factors)), interactions(grid, pairs)
