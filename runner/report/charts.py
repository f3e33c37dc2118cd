"""Pictures inside report.html: latencies of every process, drift, and the breakdown of an iteration."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from statistics import median

from runner.analysis.ranking import Ranking, Row, cell_name
from runner.report import breakdown, style
from runner.report.svg import WIDTH, Drawing, Scale, text_width
from runner.results.outcome import CellRecord

_COLORS = (style.BLUE, style.VERMILION, style.GREEN, style.PURPLE, style.SKY, style.ORANGE)
# Points of all drift lines together, which keeps a picture of thirty cells with five processes each small.
_POINTS = 9000
# Points of one line, whatever the number of lines.
_LEAST, _MOST = 20, 200
# Drift panels show at least this much of the median to either side: noise of 1 % is not drawn as a mountain.
_AROUND = 0.1
# One axis for all cells is logarithmic when the slowest is this many times the fastest.
_LOG = 3
# Points of the page, from here on. The room around everything, and above the lanes of a cell for its name:
_EDGE, _GAP = 8.0, 21.6
# Sizes of fonts: names of cells, titles of panels, figures on axes.
_NAME, _TITLE, _FIGURE = 9.0, 8.0, 7.0
# The height of a panel's lines, and of one line of its title.
_PANEL, _TITLE_LINE = 88.0, 10.0
# The height of a bar with the room below it, and the widest that the names beside bars may be.
_BAR, _NAMES = 20.0, 260.0

Cells = Sequence[tuple[str, Row, list[list[float]]]]
"""(title, row, latencies of each process in ms) of the cells that are drawn."""


def distributions(ranking: Ranking) -> str | None:
    """One lane per process: every timed iteration as a tick, the median as a bar; None when nothing was measured."""
    cells = _measured(ranking)
    if not cells:
        return None
    every = [latency for _, _, processes in cells for latencies in processes for latency in latencies]
    is_log = max(every) > _LOG * min(every)
    scale = Scale.around(min(every), max(every), _EDGE, WIDTH - _EDGE, is_log)
    lanes = sum(len(processes) for _, _, processes in cells)
    lane = 14.4 if lanes < 20 else 7.9
    bottom = lane * lanes + _GAP * len(cells) + 4
    drawing = Drawing()
    drawing.across(scale, 0, bottom, _NAME, 8)
    _draw_lanes(drawing, cells, scale, lane)
    label = f"latency per iteration, ms{', logarithmic' if is_log else ''}"
    drawing.text(WIDTH / 2, bottom + 28, label, _NAME, "middle")
    described = "one lane per process, one tick per iteration; median in black"
    return drawing.element(bottom + 34, f"Latencies of {len(cells)} cells, {described}")


def _draw_lanes(drawing: Drawing, cells: Cells, scale: Scale, lane: float) -> None:
    """Draw the lanes of all cells, each ``lane`` points high, below the name of their cell."""
    y = 0.0
    width = scale.end - scale.start
    for title, _, processes in cells:
        drawing.line([(scale.start, y), (scale.end, y)], style.LIGHT_GREY, 0.6)
        drawing.text(scale.start + 3, y + 15, title, _NAME, more='font-weight="bold"')
        y += _GAP
        for number, latencies in enumerate(processes):
            color, size = _COLORS[number % len(_COLORS)], (width, 0.8 * lane)
            drawing.ticks(scale.shares(latencies).tolist(), scale.start, y + 0.1 * lane, size, color)
            middle = scale(median(latencies))
            drawing.line([(middle, y), (middle, y + lane)], style.BLACK, 1.6)
            y += lane


def drift(ranking: Ranking) -> str | None:
    """One panel per cell, one line per process, in the order of iterations; None when nothing was measured."""
    cells = _measured(ranking)
    if not cells:
        return None
    points = _POINTS // sum(len(processes) for _, _, processes in cells)
    points = min(max(points, _LEAST), _MOST)
    across = 2 if len(cells) == 4 else min(3, len(cells))
    width = (WIDTH - 2 * _EDGE) / across
    drawing = Drawing()
    y = _EDGE
    for first in range(0, len(cells), across):
        line = cells[first : first + across]
        titles = [textwrap.wrap(title, 120 // across, max_lines=3, placeholder=" ...") for title, _, _ in line]
        y += _TITLE_LINE * max(map(len, titles))
        for column, ((_, row, processes), title) in enumerate(zip(line, titles, strict=True)):
            left = 2 * _EDGE + column * width
            for number, words in enumerate(title):
                drawing.text(left, y - _TITLE_LINE * (len(title) - number - 1) - 4, words, _TITLE)
            lines = [_binned(latencies, points) for latencies in processes]
            _draw_panel(drawing, row.p50_ms or 0.0, lines, (left, y), width)
        y += _PANEL + 24
    drawing.text(WIDTH / 2, y + 4, "iteration", _NAME, "middle")
    middle = y / 2
    turned = f'transform="rotate(-90 {_NAME} {middle:.1f})"'
    drawing.text(_NAME, middle, "latency, ms", _NAME, "middle", turned)
    return drawing.element(
        y + 12, f"Latency over iterations, one panel for each of {len(cells)} cells, one line per process"
    )


def _draw_panel(
    drawing: Drawing,
    middle: float,
    lines: Sequence[tuple[list[float], list[float]]],
    corner: tuple[float, float],
    width: float,
) -> None:
    """Draw one cell's lines, (iterations, latencies) each, into a panel whose upper left corner is there."""
    left, top = corner
    latencies = [latency for _, of_line in lines for latency in of_line]
    low, high = min(*latencies, (1 - _AROUND) * middle), max(*latencies, (1 + _AROUND) * middle)
    down = Scale.around(low, high, top + _PANEL, top)
    figures = max(text_width(f"{mark:.6g}", _FIGURE) for mark in down.marks(4))
    last = max(iterations[-1] for iterations, _ in lines)
    along = Scale.around(0.0, last, left + figures + 6, left + width - 14)
    for number, line in enumerate(lines):
        places = [(along(iteration), down(latency)) for iteration, latency in zip(*line, strict=True)]
        drawing.line(places, _COLORS[number % len(_COLORS)], 0.9, 0.85)
    drawing.across(along, top, top + _PANEL, _FIGURE, 4, grid=False)
    drawing.upwards(down, along.start, _FIGURE, 4)


def parts(ranking: Ranking) -> str | None:
    """The picture of `breakdown`; None if no cell has the data that it needs."""
    rows = breakdown.split_rows(ranking.rows)
    if not rows:
        return None
    names = [cell_name(row, ranking.distinguishing) for row in rows]
    panels = breakdown.panels(rows)
    beside = min(_NAMES, max(text_width(name, _TITLE) for name in names) + _EDGE)
    width = (WIDTH - _EDGE - beside) / len(panels)
    top = 20.0
    bottom = top + _BAR * len(rows)
    drawing = Drawing()
    for number, name in enumerate(names):
        shown = textwrap.shorten(name, int(beside / text_width("x", _TITLE)), placeholder=" ...")
        drawing.text(beside - 4, top + _BAR * (number + 0.5) + 3, shown, _TITLE, "end")
    for number, (label, of_panel) in enumerate(panels):
        left = beside + number * width
        ends = [sum(values) for values in zip(*(values for _, values in of_panel), strict=True)]
        scale = Scale(0.0, 1.05 * max(*ends, 1e-9), left, left + width - 16)
        drawing.across(scale, top, bottom, _FIGURE, 6)
        drawing.text((scale.start + scale.end) / 2, bottom + 24, label, _TITLE, "middle")
        starts, legend = [0.0] * len(rows), left
        for (part, values), color in zip(of_panel, breakdown.COLORS, strict=False):
            for place, (start, value) in enumerate(zip(starts, values, strict=True)):
                drawing.box(scale(start), top + _BAR * place + 3, scale(value) - scale(0.0), 0.65 * _BAR, color)
            starts = [start + value for start, value in zip(starts, values, strict=True)]
            drawing.box(legend, 5, 8, 8, color)
            drawing.text(legend + 11, 12, part, _FIGURE)
            legend += 20 + text_width(part, _FIGURE)
    return drawing.element(bottom + 30, "Where the time of an iteration goes, one bar per cell")


def _measured(ranking: Ranking) -> Cells:
    return [
        (
            f"{cell_name(row, ranking.distinguishing)}{_marks(row)}",
            row,
            _processes(ranking.records[row.cell.cell_id]),
        )
        for row in style.drawn(ranking.rows)
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


def _marks(row: Row) -> str:
    return (" (baseline)" if row.is_baseline else "") + ("" if row.is_right else "  WRONG OUTPUT")
