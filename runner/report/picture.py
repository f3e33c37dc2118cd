"""The comparison as a picture: one bar a cell, fastest on top, with every iteration of every process on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner.analysis.cause import count
from runner.analysis.ranking import Row, cell_name


def pyplot() -> Any:
    """matplotlib's, drawing into files; a ``$`` in a name begins no formula."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["text.parse_math"] = False
    from matplotlib import pyplot

    return pyplot


def draw(rows: Sequence[Row], distinguishing: Sequence[str], file: Path, title: str) -> None:
    """Write an image of the measured rows (the format is the file name's ending); nothing when none was measured."""
    measured = [row for row in rows if row.p50_ms is not None]
    if not measured:
        return
    plt = pyplot()
    names = [cell_name(row, distinguishing) for row in measured]
    # Bars get nine inches whatever the names need (about 0.075 inches a character).
    width = 9 + 0.075 * max(map(len, names))
    figure, axes = plt.subplots(figsize=(width, 1.4 + (0.55 if len(measured) < 10 else 0.32) * len(measured)))
    figure.set_layout_engine("constrained")
    positions = range(len(measured))
    # Okabe & Ito's palette: told apart in print and by colour-blind readers.
    colors = ["#999999" if row.is_baseline else "#56B4E9" for row in measured]
    axes.barh(positions, [row.p50_ms or 0.0 for row in measured], height=0.6, color=colors, zorder=1)
    for position, row in zip(positions, measured, strict=True):
        samples = [sample * 1e3 for result in row.record.results.values() for sample in result.latencies_s]
        axes.plot(samples, [position] * len(samples), "|", color="#000000", alpha=0.5, markersize=11, zorder=2)
        text = f"{row.p50_ms:.4g} ms"
        if not row.is_right:
            text += "  WRONG OUTPUT"
        elif row.speedup is not None:
            text += "  baseline" if row.is_baseline else f"  {row.speedup:.2f}x"
        faults = row.metrics.get("faults/minor_per_iteration")
        if faults is not None:
            text += f"  ({count(faults)} faults/step)"
        axes.annotate(
            text, (max([*samples, row.p50_ms or 0.0]), position), xytext=(6, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(positions, names)
    axes.invert_yaxis()
    axes.set_xlabel("latency of one iteration, ms (bar: p50; ticks: every timed iteration)")
    axes.set_title(f"{title}\n{', '.join(distinguishing)}", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.45, y=0.02)
    axes.set_xlim(left=0)
    figure.savefig(file, dpi=130)
    plt.close(figure)
