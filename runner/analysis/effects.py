"""What each axis does by itself and two of them together: ordered main effects, and the data of a heat map. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from runner.analysis import same_model
from runner.analysis.ranking import Row, unequal_work
from runner.protocol.cell import WORK
from runner.stats.effects import Effect, design, main_effects


def largest_first(effects: Sequence[Effect]) -> list[Effect]:
    """The effects by axis, the axis with the largest effect first; within an axis, the fastest value first."""
    size: dict[str, float] = {}
    for effect in effects:
        size[effect.axis] = max(size.get(effect.axis, 0.0), abs(math.log(effect.mean.ratio)))
    return sorted(effects, key=lambda e: (-size[e.axis], e.axis, -e.mean.ratio))


def effects(rows: Sequence[Row], distinguishing: Sequence[str]) -> list[Effect]:
    """The effect of every value of every axis that has a pair with the baseline's; work has no effect of its own."""
    base = next((row for row in rows if row.is_baseline), None)
    if base is None:
        return []
    right = [
        (row, row.p50_ms) for row in rows if row.p50_ms and row.is_right and not _is_of_other_model(row, base, rows)
    ]
    if not right:
        return []
    keys = [*distinguishing, *(key for key in WORK if key not in distinguishing)]
    cells = [{key: row.labels.get(key, "") for key in keys} for row, _ in right]
    pairs = design(cells, [p50_ms for _, p50_ms in right], base.labels)
    return largest_first(main_effects(pairs, [axis for axis in distinguishing if axis not in WORK]))


def _is_of_other_model(row: Row, base: Row, rows: Sequence[Row]) -> bool:
    """Whether its torch build made another model than the baseline's build made for the same work."""
    if row.labels.get("torch") == base.labels.get("torch") and row.cell.sweep == base.cell.sweep:
        return False
    like_base = (
        other
        for other in rows
        if other.labels.get("torch") == base.labels.get("torch") and not unequal_work(other.labels, row.labels)
    )
    first = next(like_base, None)
    return first is not None and bool(same_model.difference(first.cell, row.cell))


@dataclass(frozen=True)
class Grid:
    """Speed-ups over two axes."""

    down: str
    """The axis whose values are the lines."""
    across: str
    """The axis whose values are the columns."""
    columns: tuple[str, ...]
    """The values of ``across``."""
    lines: tuple[tuple[str, tuple[float | None, ...]], ...]
    """The lines: (value of ``down``, best speed-up in each column, None where there is no right cell)."""
    several: bool
    """Whether any field shows the best of several cells that differ in further axes."""

    @property
    def speedups(self) -> list[float]:
        """Every speed-up in the grid."""
        return [field for _, fields in self.lines for field in fields if field is not None]


# The share of a heat map's fields that must have a speed-up.
_FILLED = 0.75


def grid(rows: Sequence[Row], effects: Sequence[Effect]) -> Grid | None:
    """The grid over the two axes with the largest effects whose product was mostly run; None without such axes."""
    rated = [row for row in rows if row.speedup is not None]
    axes = list(dict.fromkeys(effect.axis for effect in effects))
    for last in range(1, len(axes)):
        for first in range(last):
            down, across = axes[first], axes[last]
            lines, columns = (tuple(dict.fromkeys(row.labels[axis] for row in rated)) for axis in (down, across))
            at: dict[tuple[str, str], list[float]] = {}
            for row in rated:
                at.setdefault((row.labels[down], row.labels[across]), []).append(row.speedup or 0.0)
            if min(len(lines), len(columns)) < 2 or len(at) < _FILLED * len(lines) * len(columns):
                continue
            table = tuple((v, tuple(max(at.get((v, w), ()), default=None) for w in columns)) for v in lines)
            return Grid(down, across, columns, table, any(len(cells) > 1 for cells in at.values()))
    return None
