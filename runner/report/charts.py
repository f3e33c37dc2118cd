"""Pictures inside report.html, as SVG text: latencies of every process, drift, and the breakdown of an iteration.

Text stays text (searchable, small, in the reader's fonts); dense latencies become an image inside the SVG.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from html import escape
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from runner.analysis.ranking import Ranking, Row, cell_name
from runner.report import breakdown, style
from runner.results.outcome import CellRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = (style.BLUE, style.VERMILION, style.GREEN, style.PURPLE, style.SKY, style.ORANGE)
# Points of all drift lines together, which keeps a picture of thirty cells with five processes each small.
_POINTS = 9000
# Points of one line, whatever the number of lines.
_LEAST, _MOST = 20, 200
# Drift panels show at least this much of the median to either side: noise of 1 % is not drawn as a mountain.
_AROUND = 0.1
# One axis for all cells is logarithmic when the slowest is this many times the fastest.
_LOG = 3
# Inches above the lanes of a cell, for its name.
_GAP = 0.3


Cells = Sequence[tuple[str, Row, list[list[float]]]]
"""(title, row, latencies of each process in ms) of the measured cells."""


def distributions(ranking: Ranking) -> str | None:
    """One lane per process: every timed iteration as a tick, the median as a bar; None when nothing was measured."""
    cells = _measured(ranking)
    if not cells:
        return None

    def draw() -> Figure:
        from matplotlib.figure import Figure

        lanes = sum(len(processes) for _, _, processes in cells)
        lane = 0.2 if lanes < 20 else 0.11
        figure = Figure(figsize=(9, 0.7 + lane * lanes + _GAP * len(cells)), layout="constrained")
        axes = figure.subplots()
        bottom = _draw_lanes(axes, cells, lane)
        _scale(axes, [latency for _, _, processes in cells for process in processes for latency in process])
        axes.set_ylim(bottom + 0.05, -0.02)
        axes.set_yticks([])
        axes.grid(axis="x", color=style.FAINT_GREY)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        return figure

    described = "one lane per process, one tick per iteration; median in black"
    return _svg(draw, f"Latencies of {len(cells)} cells, {described}")


def _draw_lanes(axes: Axes, cells: Cells, lane: float) -> float:
    """Draw the lanes of all cells, each ``lane`` inches high; returns where the last one ends."""
    y = 0.0
    for title, _, processes in cells:
        across = axes.get_yaxis_transform()
        axes.text(0.004, y + 0.2, title, transform=across, fontsize=9, va="center", weight="bold")
        axes.axhline(y, color=style.LIGHT_GREY, linewidth=0.6)
        y += _GAP
        for number, latencies in enumerate(processes):
            axes.plot(
                latencies,
                [y + lane / 2] * len(latencies),
                "|",
                color=_COLORS[number % len(_COLORS)],
                markersize=0.8 * 72 * lane,  # lanes are in inches, markers in points
                alpha=_ink(latencies),
                rasterized=True,
            )
            axes.vlines(median(latencies), y, y + lane, color="black", linewidth=1.6, zorder=3)
            y += lane
    return y


def _scale(axes: Axes, latencies: Sequence[float]) -> None:
    """Scale and label the axis: logarithmic if the slowest iteration takes many times as long as the fastest."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    label = "latency per iteration, ms"
    if max(latencies) > _LOG * min(latencies):
        label += ", logarithmic"
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(label)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def drift(ranking: Ranking) -> str | None:
    """One panel per cell, one line per process, in the order of iterations; None when nothing was measured."""
    cells = _measured(ranking)
    if not cells:
        return None
    points = _POINTS // sum(len(processes) for _, _, processes in cells)
    points = min(max(points, _LEAST), _MOST)

    def draw() -> Figure:
        from matplotlib.figure import Figure

        across = 2 if len(cells) == 4 else min(3, len(cells))
        down = -(-len(cells) // across)
        figure = Figure(figsize=(9, 0.4 + 1.75 * down), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).flatten()
        for panel, (title, row, processes) in zip(panels, cells, strict=False):
            _draw_drift(panel, row, processes, points)
            panel.set_title(
                textwrap.fill(title, 120 // across, max_lines=3, placeholder=" ..."), loc="left", fontsize=8
            )
        for panel in panels[len(cells) :]:
            panel.set_visible(False)
        figure.supxlabel("iteration", fontsize=9)
        figure.supylabel("latency, ms", fontsize=9)
        return figure

    return _svg(draw, f"Latency over iterations, one panel for each of {len(cells)} cells, one line per process")


def _draw_drift(panel: Axes, row: Row, processes: Sequence[Sequence[float]], points: int) -> None:
    """Draw one cell's lines."""
    for number, latencies in enumerate(processes):
        color = _COLORS[number % len(_COLORS)]
        panel.plot(*_binned(latencies, points), color=color, linewidth=0.9, alpha=0.85)
    middle = row.p50_ms or 0.0
    low, high = panel.get_ylim()
    panel.set_ylim(min(low, (1 - _AROUND) * middle), max(high, (1 + _AROUND) * middle))
    panel.tick_params(labelsize=7)
    panel.spines[["top", "right"]].set_visible(False)


def parts(ranking: Ranking) -> str | None:
    """The picture of `breakdown`; None if no cell has the data that it needs."""
    with TemporaryDirectory() as folder, style.svg_settings():
        file = Path(folder) / "breakdown.svg"
        breakdown.draw(ranking.rows, ranking.distinguishing, file, "")
        if not file.exists():
            return None
        return _inline(file.read_text(encoding="utf-8"), "Where the time of an iteration goes, one bar per cell")


def _measured(ranking: Ranking) -> Cells:
    return [
        (
            f"{cell_name(row, ranking.distinguishing)}{_marks(row)}",
            row,
            _processes(ranking.records[row.cell.cell_id]),
        )
        for row in ranking.rows
        if row.p50_ms is not None
    ]


def _processes(record: CellRecord) -> list[list[float]]:
    """The latencies of each process in ms: instances of one round are processes of their own."""
    ordered = [result for _, result in sorted(record.results.items())]
    return [[1e3 * latency for latency in result.latencies_s] for result in ordered if result.latencies_s]


def _binned(latencies: Sequence[float], points: int) -> tuple[list[float], list[float]]:
    """(iteration, latency): as they are, or the median of as many neighbours as keep to ``points``."""
    width = -(-len(latencies) // points)
    starts = range(0, len(latencies), width)
    return [start + (width + 1) / 2 for start in starts], [median(latencies[start : start + width]) for start in starts]


def _ink(latencies: Sequence[float]) -> float:
    """The opacity of a tick: lower where many overlap."""
    return 0.9 if len(latencies) < 50 else 0.4


def _marks(row: Row) -> str:
    return (" (baseline)" if row.is_baseline else "") + ("" if row.is_right else "  WRONG OUTPUT")


def _svg(draw: Callable[[], Figure], described: str) -> str:
    with style.svg_settings():
        out = StringIO()
        draw().savefig(out, format="svg", dpi=150)
    return _inline(out.getvalue(), described)


def _inline(text: str, described: str) -> str:
    """The SVG element alone, as wide as its container, with a description for those who can't see it."""
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.S)
    body = re.sub(r'<g id="[^"]*">', "<g>", body)  # ids repeat in every picture, and nothing refers to them
    head, _, rest = body.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(described)}">{rest}'
