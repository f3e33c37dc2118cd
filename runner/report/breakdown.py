"""Where the time of an iteration goes, as one stacked bar per cell: arithmetic, reorders, the rest; top-down slots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.analysis.cause import PARTS, split
from runner.analysis.ranking import Row, cell_name
from runner.report import style

COLORS = (style.BLUE, style.VERMILION, style.ORANGE, style.GREY)
_TOP_DOWN = {
    "tma/Retiring": "retiring",
    "tma/Bad_Speculation": "bad speculation",
    "tma/Frontend_Bound": "frontend bound",
    "tma/Backend_Bound": "backend bound",
}


def split_rows(rows: Sequence[Row]) -> list[Row]:
    """The cells to draw: those whose iterations can be split into parts, and of many of them the fastest."""
    return style.drawn([row for row in rows if row.p50_ms is not None and split(row.cell)])


def panels(rows: Sequence[Row]) -> list[tuple[str, list[tuple[str, list[float]]]]]:
    """(label, its parts with one figure per cell) of each panel: the second is of top-down slots if toplev measured."""
    found: list[tuple[str, list[tuple[str, list[float]]]]] = [
        ("ms per iteration (p50)", [(part.name, [split(row.cell)[part.name] for row in rows]) for part in PARTS])
    ]
    if any(metric in row.metrics for row in rows for metric in _TOP_DOWN):
        levels = [(label, [row.metrics.get(metric, 0.0) for row in rows]) for metric, label in _TOP_DOWN.items()]
        found.append(("% of pipeline slots (top-down level 1); no bar: not measured", levels))
    return found


def draw(rows: Sequence[Row], distinguishing: Sequence[str], file: Path, title: str) -> None:
    """Write an image with a bar per measured cell."""
    measured = split_rows(rows)
    if not measured:
        return
    plt = style.pyplot()
    of_rows = panels(measured)
    names = [cell_name(row, distinguishing) for row in measured]
    size = (6.5 * len(of_rows) + 0.075 * max(map(len, names)), 1.6 + 0.4 * len(measured))
    figure, axes = plt.subplots(1, len(of_rows), figsize=size, sharey=True, squeeze=False)
    figure.set_layout_engine("constrained")
    for axis, (label, parts) in zip(axes[0], of_rows, strict=True):
        starts = [0.0] * len(measured)
        for (part, values), color in zip(parts, COLORS, strict=True):
            axis.barh(range(len(measured)), values, left=starts, height=0.65, color=color, label=part)
            starts = [a + b for a, b in zip(starts, values, strict=True)]
        axis.set_xlabel(label)
        axis.set_yticks(range(len(measured)), names)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, fontsize=8, frameon=False)
    axes[0][0].invert_yaxis()
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    figure.savefig(file, dpi=130)
    plt.close(figure)
