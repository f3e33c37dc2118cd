"""Pictures inside report.html, as SVG text: samples of every process, drift, and the breakdown of a step.

Text stays text (searchable, small, in the reader's fonts); dense samples become an image inside the SVG. Colours are
Okabe & Ito's: told apart in print and by colour-blind readers.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from html import escape
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from runner.analysis.ranking import Row, cell_name
from runner.report import breakdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
# Points of all drift lines together: what keeps thirty cells of five processes small.
_POINTS = 9000
# Points of one line, whatever the number of lines.
_LEAST, _MOST = 20, 200
# Drift panels show at least this much of the median to either side: noise of 1 % is not drawn as a mountain.
_AROUND = 0.1
# One axis for all cells is logarithmic when the slowest is this many times the fastest.
_LOG = 3


def distributions(rows: Sequence[Row], distinguishing: Sequence[str]) -> str | None:
    """A lane a process with every timed iteration as a tick and the median as a bar; None when nothing was measured."""
    cells = [(row, _processes(row)) for row in rows if row.p50_ms is not None]
    if not cells:
        return None

    def draw() -> Figure:
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        lanes = sum(len(processes) for _, processes in cells)
        lane, gap = (0.2 if lanes < 20 else 0.11), 0.3
        figure = Figure(figsize=(9, 0.7 + lane * lanes + gap * len(cells)), layout="constrained")
        axes = figure.subplots()
        y = 0.0
        for row, processes in cells:
            label = f"{cell_name(row, distinguishing)}{_marks(row)}"
            axes.text(
                0.004, y + 0.2, label, transform=axes.get_yaxis_transform(), fontsize=9, va="center", weight="bold"
            )
            axes.axhline(y, color="#DDDDDD", linewidth=0.6)
            y += gap
            for number, samples in enumerate(processes):
                color, height = (
                    _COLORS[number % len(_COLORS)],
                    0.8 * 72 * lane,
                )  # lanes are in inches, markers in points
                axes.plot(
                    samples, [y + lane / 2] * len(samples), "|", color=color, markersize=height, alpha=_ink(samples),
                    rasterized=True,
                )  # fmt: skip
                axes.vlines(median(samples), y, y + lane, color="black", linewidth=1.6, zorder=3)
                y += lane
        every = [sample for _, processes in cells for samples in processes for sample in samples]
        if max(every) > _LOG * min(every):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlabel("latency of one iteration, ms, logarithmic")
        else:
            axes.set_xlabel("latency of one iteration, ms")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylim(y + 0.05, -0.02)
        axes.set_yticks([])
        axes.grid(axis="x", color="#EEEEEE")
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        return figure

    return _svg(draw, f"Latencies of {len(cells)} cells, a lane a process, a tick an iteration; median in black")


def drift(rows: Sequence[Row], distinguishing: Sequence[str]) -> str | None:
    """A panel a cell, a line a process: latency in the order of iterations; None when nothing was measured."""
    cells = [(row, _processes(row)) for row in rows if row.p50_ms is not None]
    if not cells:
        return None
    points = _POINTS // sum(len(processes) for _, processes in cells)
    points = min(max(points, _LEAST), _MOST)

    def draw() -> Figure:
        from matplotlib.figure import Figure

        across = 2 if len(cells) == 4 else min(3, len(cells))
        down = -(-len(cells) // across)
        figure = Figure(figsize=(9, 0.4 + 1.75 * down), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).flatten()
        for panel, (row, processes) in zip(panels, cells, strict=False):
            for number, samples in enumerate(processes):
                color = _COLORS[number % len(_COLORS)]
                panel.plot(*_binned(samples, points), color=color, linewidth=0.9, alpha=0.85)
            middle = row.p50_ms or 0.0
            low, high = panel.get_ylim()
            panel.set_ylim(min(low, (1 - _AROUND) * middle), max(high, (1 + _AROUND) * middle))
            title = textwrap.fill(
                f"{cell_name(row, distinguishing)}{_marks(row)}", 120 // across, max_lines=3, placeholder=" ..."
            )
            panel.set_title(title, loc="left", fontsize=8)
            panel.tick_params(labelsize=7)
            panel.spines[["top", "right"]].set_visible(False)
        for panel in panels[len(cells) :]:
            panel.set_visible(False)
        figure.supxlabel("iteration", fontsize=9)
        figure.supylabel("latency, ms", fontsize=9)
        return figure

    return _svg(draw, f"Latency over iterations, a panel for each of {len(cells)} cells, a line a process")


def parts(rows: Sequence[Row], distinguishing: Sequence[str]) -> str | None:
    """`breakdown`'s picture; None when no cell has what it needs."""
    with TemporaryDirectory() as folder, _settings():
        file = Path(folder) / "breakdown.svg"
        breakdown.draw(rows, distinguishing, file, "")
        return (
            _inline(file.read_text(encoding="utf-8"), "Where a step's time goes, a bar a cell")
            if file.exists()
            else None
        )


def _processes(row: Row) -> list[list[float]]:
    """Samples of each process in ms: instances of one round are processes of their own."""
    ordered = [result for _, result in sorted(row.record.results.items())]
    return [[1e3 * sample for sample in result.latencies_s] for result in ordered if result.latencies_s]


def _binned(samples: Sequence[float], points: int) -> tuple[list[float], list[float]]:
    """(iteration, latency): as they are, or the median of as many neighbours as keep to ``points``."""
    width = -(-len(samples) // points)
    starts = range(0, len(samples), width)
    return [start + (width + 1) / 2 for start in starts], [median(samples[start : start + width]) for start in starts]


def _ink(samples: Sequence[float]) -> float:
    """Opacity of a tick: many lie on each other."""
    return 0.9 if len(samples) < 50 else 0.4


def _marks(row: Row) -> str:
    return (" (baseline)" if row.is_baseline else "") + ("" if row.is_right else "  WRONG OUTPUT")


def _settings() -> AbstractContextManager[None]:
    """Of matplotlib, while one picture is drawn."""
    import matplotlib

    return matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "report",
            "text.parse_math": False,
            # Measured with the first, which matplotlib ships; the second is as wide and on most desktops.
            "font.sans-serif": ["DejaVu Sans", "Verdana"],
        }
    )


def _svg(draw: Callable[[], Figure], described: str) -> str:
    with _settings():
        out = StringIO()
        draw().savefig(out, format="svg", dpi=150)
    return _inline(out.getvalue(), described)


def _inline(text: str, described: str) -> str:
    """The SVG element alone, as wide as its container, with words for those who can't see it."""
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.S)
    body = re.sub(r'<g id="[^"]*">', "<g>", body)  # the same ones in every picture, and nothing refers to them
    head, _, rest = body.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(described)}">{rest}'
