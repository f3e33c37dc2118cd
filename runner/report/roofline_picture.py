"""The roofline of a sweep inside report.html: each cell below the roofs of its host, both axes logarithmic."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from runner.analysis.ranking import Ranking, Row, cell_name
from runner.analysis.roofline import Position
from runner.protocol.peaks import DTYPES
from runner.report import style
from runner.report.svg import WIDTH, Drawing, Scale, text_width
from runner.results.metric_names import Metric

_COLORS = dict(zip(DTYPES, (style.BLUE, style.GREEN, style.VERMILION), strict=True))
# Points of the page: the room for figures on the left, the height of the picture, one line of the list below it.
_LEFT, _RIGHT, _TOP, _HEIGHT, _LINE = 46.0, 12.0, 14.0, 250.0, 13.0
_TEXT, _FIGURE = 8.0, 7.0
# Past this many cells the list is longer than a page, and the numbers cover each other.
_MOST = 40

Placed = Sequence[tuple[Row, Position]]


def draw(ranking: Ranking) -> str | None:
    """The picture, with a list of the cells below it, fastest first; None where no cell has a place in it."""
    cells = [
        (row, row.position)
        for row in style.drawn(ranking.rows)
        if row.position is not None and row.position.of_registers_pct and Metric.BYTES in row.metrics
    ][:_MOST]
    if not cells:
        return None
    roofs = _roofs(cells)
    bandwidth = _bandwidth(cells)
    places = [(_intensity(row), position.gop_per_s) for row, position in cells]
    ridges = [roof / bandwidth for roof in roofs.values()] if bandwidth else []
    along, up = _scales([x for x, _ in places] + ridges, [y for _, y in places] + list(roofs.values()))
    drawing, bottom = Drawing(), _TOP + _HEIGHT
    drawing.across(along, _TOP, bottom, _FIGURE, 6)
    drawing.upwards(up, along.start, _FIGURE, 6)
    drawing.text(WIDTH / 2, bottom + 26, "operations per byte that must be moved at least", _TEXT, "middle")
    drawing.text(_LEFT, _TOP - 4, "billions of operations per second", _TEXT)
    _draw_roofs(drawing, (along, up), roofs, bandwidth)
    for number, ((_, position), (x, y)) in enumerate(zip(cells, places, strict=True), 1):
        drawing.dot(along(x), up(y), 6.0, _COLORS[position.dtype])
        drawing.text(along(x), up(y) + 2.5, str(number), _FIGURE, "middle", f'fill="white" {_BOLD}')
    end = bottom + 42
    most = int((WIDTH - _LEFT) / text_width("x", _TEXT))
    for number, (row, position) in enumerate(cells, 1):
        name = cell_name(row, ranking.distinguishing) or "the only cell"
        line = textwrap.shorten(f"{number}. {position.short}: {name}", most, placeholder=" ...")
        drawing.text(_LEFT, end, line, _TEXT)
        end += _LINE
    return drawing.element(end, f"Roofline of {len(cells)} cells: operations per second over operations per byte")


_BOLD = 'font-weight="bold"'


def _intensity(row: Row) -> float:
    """Operations per byte that an iteration must move at least."""
    return row.metrics[Metric.FLOP] / row.metrics[Metric.BYTES]


def _roofs(cells: Placed) -> dict[str, float]:
    """dtype -> billions of operations per second of the registers, of the dtypes that compute these cells."""
    return {
        position.dtype: 100 * position.gop_per_s / position.of_registers_pct
        for _, position in reversed(cells)
        if position.of_registers_pct
    }


def _bandwidth(cells: Placed) -> float | None:
    """The memory's bandwidth in billions of bytes per second, by what a cell takes of it; None where none has that."""
    return next(
        (
            100 * position.gop_per_s / _intensity(row) / position.of_memory_pct
            for row, position in cells
            if position.of_memory_pct
        ),
        None,
    )


def _scales(intensities: Sequence[float], rates: Sequence[float]) -> tuple[Scale, Scale]:
    """The axes, with a factor of two of room around what is drawn."""
    bottom = _TOP + _HEIGHT
    along = Scale(min(intensities) / 2, max(intensities) * 2, _LEFT, WIDTH - _RIGHT, True)
    return along, Scale(min(rates) / 2, max(rates) * 2, bottom, _TOP, True)


def _draw_roofs(
    drawing: Drawing, scales: tuple[Scale, Scale], roofs: Mapping[str, float], bandwidth: float | None
) -> None:
    """Draw the roof of each dtype from where the memory's meets it, and the memory's up to the highest of them."""
    along, up = scales
    for dtype, roof in roofs.items():
        ridge = max(along.low, roof / bandwidth) if bandwidth else along.low
        drawing.line([(along(ridge), up(roof)), (along.end, up(roof))], _COLORS[dtype], 1.6)
        drawing.text(along.end, up(roof) - 4, f"{dtype}: {roof:.4g} GOP/s", _FIGURE, "end")
    if bandwidth is None:
        return
    low = max(along.low, up.low / bandwidth)
    high = min(along.high, max(roofs.values()) / bandwidth)
    if low < high:
        drawing.line([(along(low), up(low * bandwidth)), (along(high), up(high * bandwidth))], style.DARK_GREY, 1.6)
        drawing.text(along(low) + 22, up(low * bandwidth) - 2, f"memory: {bandwidth:.3g} GB/s", _FIGURE)
