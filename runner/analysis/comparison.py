"""Cells of any number of sweeps set against each other: groups of equal work, ranked, with effects and fronts. Pure.

Cells of different work are never ranked against each other: each work is a group with a baseline, a Pareto front and
a family of comparisons of its own. Effects are over all groups together, from pairs that do equal work.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner.analysis import cause, pareto_front, roofline, same_model
from runner.analysis import hosts as hosts_against
from runner.analysis.comparability import SETTINGS, differences
from runner.analysis.effects import largest_first
from runner.analysis.hosts import Host, HostComparison
from runner.analysis.noise import Noise
from runner.analysis.ranking import Labels, Row, baseline_among, rank, warning
from runner.matrix.rules import distinguishing_axes, matches
from runner.protocol.cell import ABSENT, AXES, BUNDLED, WORK
from runner.protocol.errors import RunnerError
from runner.results.cells import LEVEL, CellRow, Cells
from runner.results.metric_names import Metric
from runner.results.metrics import INTERVALS
from runner.stats.effects import Effect, Interaction, design, interactions, main_effects

# All that a comparison reads of a cell's figures.
FIGURES: tuple[str, ...] = tuple(
    dict.fromkeys(
        [
            *pareto_front.FIGURES,
            *INTERVALS,
            *(end for ends in INTERVALS.values() for end in ends),
            *cause.FIGURES,
            *roofline.FIGURES,
            Metric.LARGEST_ERROR,
            Metric.CV,
            Metric.CONTAMINATED_ROUNDS,
            Metric.PROCESS_CI95,
            Metric.RUNNER_CPU,
        ]
    )
)


@dataclass(frozen=True)
class Group:
    """Cells that do equal work, fastest first; then wrong ones, then those that were not measured."""

    name: Labels
    """The axes and settings that distinguish this group from the others; empty if there is only one."""
    rows: Sequence[Row]
    front: Sequence[str]
    """The figures that the Pareto front compares: those that some right cell has."""
    best: Row | None
    """The fastest right cell with an error of at most the bound; None without a bound, or when no cell is."""

    @property
    def baseline(self) -> Row | None:
        """The group's baseline; None if no cell of the group can be one."""
        return next((row for row in self.rows if row.is_baseline), None)


@dataclass(frozen=True)
class Comparison:
    """Some sweeps set against each other."""

    sweeps: Sequence[str]
    distinguishing: Sequence[str]
    """The axes and settings that distinguish the cells."""
    groups: Sequence[Group]
    effects: Sequence[Effect]
    interactions: Sequence[Interaction]
    bound: float | None
    """The largest max_abs_err that was allowed for the best cell; None if no best cell was asked for."""
    noise: Noise | None = None
    """The noise floor of the host; None if it is not known, or there are several."""
    hosts: HostComparison | None = None
    """The hosts set against each other; None for one host, and where cells do not name theirs."""

    @property
    def warning(self) -> str:
        """The warning of ranking.warning(), which is shown first; empty without one."""
        return warning([row for group in self.groups for row in group.rows])


def compare(
    cells: Cells,
    baseline: Mapping[str, Sequence[str]],
    by: Sequence[str] = (),
    bound: float | None = None,
    noise: Mapping[str, Noise] | None = None,
    hosts: Sequence[Host] = (),
    limit_ms: float | None = None,
) -> Comparison:
    """Rank, pair, and look for the best.

    Args:
        cells: cells of sweeps that can be compared, or whose differences were allowed: those become labels.
        baseline: axis -> accepted values; empty for the sweeps' own baselines.
        by: axes whose values are ranked separately, like work.
        bound: largest absolute error of the best cell.
        noise: host id -> noise floor, of the hosts of which it is known.
        hosts: the hosts that the cells name, which are then ranked separately and set against each other.
        limit_ms: for hosts: see runner.analysis.hosts.HostComparison.limit_ms.

    Raises:
        RunnerError: no right cell is a baseline as asked for.
    """
    labels = _labelled(cells, bool(hosts))
    by = [*by, *([hosts_against.AXIS] if len(hosts) > 1 else [])]
    # Its sweep names a cell only where nothing else does: see below.
    keys = distinguishing_axes([{k: v for k, v in its_labels.items() if k != "sweep"} for its_labels in labels])
    separating = [key for key in dict.fromkeys([*WORK, *by]) if key in keys or key in by]
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, its_labels in enumerate(labels):
        groups.setdefault(tuple(its_labels[key] for key in separating), []).append(index)
    baselines = _baselines(cells.rows, labels, keys, list(groups.values()), baseline, separating)
    # Some sweeps looked at their results more than once: the strictest level is valid for all of them.
    level = min((origin.level for origin in cells.origins), default=LEVEL)
    prices = {origin.sweep: origin.usd_per_hour for origin in cells.origins}
    ranked = []
    for (name, members), choice in zip(groups.items(), baselines, strict=True):
        its_baseline, rows_of_group = None if choice is None else cells.rows[choice], [cells.rows[i] for i in members]
        floors = _floors(rows_of_group, cells, noise or {})
        rows = rank(rows_of_group, its_baseline, level, floors, [labels[i] for i in members], prices)
        ranked.append(_group(dict(zip(separating, name, strict=True)), rows, bound))
    # The sweep's own baseline where it is a baseline here.
    bases = sorted((index for index in baselines if index is not None), key=lambda i: not cells.rows[i].is_baseline)
    reference = labels[bases[0]] if bases else {}
    others = _of_other_models(cells.rows, list(groups.values()), baselines)
    effects, together = _effects(cells.rows, labels, keys, reference, others)
    # By what is shown and not by id, because equal cells of two versions of the runner have different ids.
    shown = {tuple(its_labels[key] for key in keys) for its_labels in labels}
    distinguishing = (*keys, "sweep") if len(shown) < len(cells.rows) else keys
    known = list((noise or {}).values())
    found = hosts_against.compare(cells, hosts, keys, limit_ms) if hosts else None
    of_one = known[0] if len(known) == 1 and not hosts else None
    return Comparison([o.sweep for o in cells.origins], distinguishing, ranked, effects, together, bound, of_one, found)


def _floors(rows: Sequence[CellRow], cells: Cells, noise: Mapping[str, Noise]) -> Mapping[int, float] | None:
    """The noise floors of the host of these cells; None if there are several hosts, or its floors are not known."""
    host_of = {origin.sweep: origin.host_id for origin in cells.origins}
    hosts = {host_of.get(row.sweep, "") for row in rows}
    known = noise.get(hosts.pop()) if len(hosts) == 1 else None
    return known.floors if known else None


def _group(name: Labels, rows: Sequence[Row], bound: float | None) -> Group:
    figures = pareto_front.figures([row.cell for row in rows if row.is_right])
    best = next((row for row in rows if bound is not None and _within(row.cell, bound)), None)
    return Group(name, rows, figures, best)


def _within(cell: CellRow, bound: float) -> bool:
    error = cell.metrics.get(Metric.LARGEST_ERROR)
    return cell.is_right and error is not None and error <= bound


def _labelled(cells: Cells, are_hosts_named: bool) -> list[dict[str, str]]:
    """The labels of each cell, with what hosts and versions differ in; every cell has every name.

    Args:
        are_hosts_named: whether the host is an axis of the cells, and what follows from it none.
    """
    mixed = [difference for difference in differences(cells) if difference.kind != SETTINGS]
    if are_hosts_named:
        mixed = [difference for difference in mixed if not difference.is_of_host]
    upgrade = next((difference for difference in mixed if difference.is_of_build and difference.name == "torch"), None)
    if upgrade is not None:
        # The bundled torch of each sweep is a build of its own; what came with it follows from it: see legend().
        mixed = [difference for difference in mixed if not difference.is_of_build]
    of_sweep = {o.sweep: {"sweep": o.sweep, **{d.name: d.values[o.sweep] for d in mixed}} for o in cells.origins}
    own = [dict(row.labels) for row in cells.rows]
    for row, its_labels in zip(cells.rows, own, strict=True):
        if upgrade is not None and its_labels["torch"] in (BUNDLED, ABSENT):
            its_labels["torch"] = f"{BUNDLED} {upgrade.values[row.sweep]}"
    empty = dict.fromkeys((name for its_labels in own for name in its_labels), ABSENT)
    return [{**empty, **its_labels, **of_sweep[row.sweep]} for row, its_labels in zip(cells.rows, own, strict=True)]


def legend(cells: Cells) -> list[str]:
    """What belongs to the bundled torch of each sweep, where sweeps differ in it: one sentence per build."""
    of_build = [difference for difference in differences(cells) if difference.is_of_build]
    if not any(difference.name == "torch" for difference in of_build):
        return []
    sentences = []
    for origin in cells.origins:
        values = {difference.name: difference.values[origin.sweep] for difference in of_build}
        torch = values.pop("torch")
        others = ", ".join(f"{name} {value}" for name, value in values.items())
        came_with_it = f", with {others}" if others else ""
        sentences.append(f"{BUNDLED} {torch} is the torch of sweep {origin.sweep}{came_with_it}")
    return sentences


def _baselines(
    rows: Sequence[CellRow],
    labels: Sequence[Labels],
    keys: Sequence[str],
    groups: Sequence[Sequence[int]],
    wanted: Mapping[str, Sequence[str]],
    separating: Sequence[str],
) -> list[int | None]:
    """The baseline of each group, a right cell that is as wanted; axes that separate several groups need not match.

    Raises:
        RunnerError: no group has a cell as wanted.
    """
    if not wanted:
        own = next((labels[index] for index, row in enumerate(rows) if row.is_baseline), {})
        like_own = {key: (own[key],) for key in keys if key in own and key not in separating}
        return [baseline_among(members, rows, labels, like_own if own else None) for members in groups]
    right = [[index for index in members if rows[index].is_right] for members in groups]
    rule = {axis: values for axis, values in wanted.items() if len(groups) == 1 or axis not in separating}
    baselines = [next((index for index in members if matches(rule, labels[index])), None) for members in right]
    if all(index is None for index in baselines):
        raise RunnerError(_refusal(rows, labels, keys, wanted))
    return baselines


def _refusal(
    rows: Sequence[CellRow], labels: Sequence[Labels], keys: Sequence[str], wanted: Mapping[str, Sequence[str]]
) -> str:
    """Why no cell is the baseline that was asked for, and which could be one."""
    wanted_axes = ",".join(f"{axis}={'|'.join(values)}" for axis, values in wanted.items())
    example = next((labels[index] for index, row in enumerate(rows) if row.is_right), None)
    if example is None:
        return f"--baseline {wanted_axes}: no cell was measured with a right output; there is none to choose"
    axes = [key for key in keys if key in AXES] or ["model"]
    return (
        f"--baseline {wanted_axes}: no cell that was measured with a right output has it; "
        f"choose another, such as --baseline {','.join(f'{axis}={example[axis]}' for axis in axes)}"
    )


def _of_other_models(
    rows: Sequence[CellRow], groups: Sequence[Sequence[int]], baselines: Sequence[int | None]
) -> frozenset[int]:
    """The cells whose torch build made another model than the one that their group's baseline ran."""
    return frozenset(
        index
        for members, choice in zip(groups, baselines, strict=True)
        for index in members
        if choice is not None and same_model.difference(rows[choice], rows[index])
    )


def _effects(
    rows: Sequence[CellRow], labels: Sequence[Labels], keys: Sequence[str], reference: Labels, others: frozenset[int]
) -> tuple[list[Effect], list[Interaction]]:
    """Main effects and interactions among right cells; work has no effect of its own, and may interact.

    Effects are in order of their axes, the axis with the largest effect first.

    Args:
        others: the cells of other models, which take no part.
    """
    right = [
        (labels[index], row.p50_ms)
        for index, row in enumerate(rows)
        if row.is_right and row.p50_ms and index not in others
    ]
    if not right:
        return [], []
    cells = [{key: its_labels[key] for key in keys} for its_labels, _ in right]
    grid = design(cells, [p50 for _, p50 in right], reference)
    factors = [key for key in keys if key not in WORK]
    pairs = [pair for pair in itertools.combinations(keys, 2) if set(pair) & set(factors)]
    return largest_first(main_effects(grid, factors)), interactions(grid, pairs)
