"""The ranking as a picture: one bar per cell, fastest on top, with every iteration of every process on it."""

from __future__ import annotations

from pathlib import Path

from runner.analysis.cause import count
from runner.analysis.ranking import Ranking, Row, cell_name
from runner.analysis.wording import ratio
from runner.report import style
from runner.results.metric_names import Metric
from runner.results.outcome import CellRecord

# The points that the longest bar is wide, about.
_POINTS = 800

SMALL_FILE = "comparison_small.png"
# Pixels: a description in MLflow draws a picture as wide as it is, and its pages leave this much at 1 400 pixels.
_SMALL = 680


def draw(ranking: Ranking, file: Path, title: str, small: Path | None = None) -> None:
    """Write an image of the measured rows (the format is the file name's ending); nothing when none was measured.

    Args:
        small: where to write the same image for a narrow page.
    """
    measured = style.drawn(ranking.rows)
    if not measured:
        return
    plt = style.pyplot()
    names = [cell_name(row, ranking.distinguishing) for row in measured]
    # Bars get nine inches whatever the names need (about 0.075 inches per character).
    width = 9 + 0.075 * max(map(len, names))
    figure, axes = plt.subplots(figsize=(width, 1.4 + (0.55 if len(measured) < 10 else 0.32) * len(measured)))
    figure.set_layout_engine("constrained")
    positions = range(len(measured))
    colors = [style.DARK_GREY if row.is_baseline else style.SKY for row in measured]
    axes.barh(positions, [row.p50_ms or 0.0 for row in measured], height=0.6, color=colors, zorder=1)
    for position, row in zip(positions, measured, strict=True):
        latencies_ms = _ticks(ranking.records[row.cell.cell_id], measured[-1].p50_ms or 0.0)
        ticks = {"color": style.BLACK, "alpha": 0.5, "markersize": 11, "zorder": 2}
        axes.plot(latencies_ms, [position] * len(latencies_ms), "|", **ticks)
        end = (max([*latencies_ms, row.p50_ms or 0.0]), position)
        axes.annotate(_caption(row), end, xytext=(6, 0), textcoords="offset points", va="center")
    axes.set_yticks(positions, names)
    axes.invert_yaxis()
    axes.set_xlabel("latency per iteration, ms (bar: p50; ticks: every timed iteration)")
    which = style.in_words(ranking.rows)
    subtitle = ", ".join(ranking.distinguishing) + (f"; {which}" if which else "")
    axes.set_title(f"{title}\n{subtitle}", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.45, y=0.02)
    axes.set_xlim(left=0)
    figure.savefig(file, dpi=130)
    if small:
        figure.savefig(small, dpi=_SMALL / width)
    plt.close(figure)


def _ticks(record: CellRecord, longest_ms: float) -> list[float]:
    """The cell's latencies in ms, of those that fall on one point of the picture only the first."""
    points: dict[int, float] = {}
    for result in record.results.values():
        for latency_s in result.latencies_s:
            points.setdefault(round(_POINTS * 1e3 * latency_s / longest_ms), 1e3 * latency_s)
    return list(points.values())


def _caption(row: Row) -> str:
    """The text at the end of a cell's bar."""
    text = f"{row.p50_ms:.4g} ms"
    if row.is_wrong:
        text += "  WRONG OUTPUT"
    elif row.speedup is not None:
        text += "  baseline" if row.is_baseline else f"  {ratio(row.speedup)}"
    faults = row.metrics.get(Metric.MINOR_FAULTS)
    return text if faults is None else f"{text}  ({count(faults)} faults/iteration)"
