"""How every picture is drawn: which cells it shows, one palette, and one way to set up matplotlib.

The palette is Okabe & Ito's (2008, "Color Universal Design"), which readers can distinguish in print and when they are
colour-blind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.analysis.ranking import Row

BLUE, SKY, GREEN, YELLOW = "#0072B2", "#56B4E9", "#009E73", "#F0E442"
ORANGE, VERMILION, PURPLE = "#E69F00", "#D55E00", "#CC79A7"
# The palette's black is the text's; greys are for what is only context.
BLACK, DARK_GREY, GREY, LIGHT_GREY, FAINT_GREY = "#000000", "#999999", "#BBBBBB", "#DDDDDD", "#EEEEEE"

# More cells than this are in the table and in comparison.csv, and not in pictures, which nobody could read.
MOST_DRAWN = 100

_SETTINGS: Any = {"text.parse_math": False}  # a ``$`` in a name begins no formula


def drawn(rows: Sequence[Row]) -> list[Row]:
    """The measured cells that pictures show: the fastest, and the baseline."""
    measured = [row for row in rows if row.p50_ms is not None]
    baseline = [row for row in measured[MOST_DRAWN:] if row.is_baseline]
    return [*measured[: MOST_DRAWN - len(baseline)], *baseline]


def in_words(rows: Sequence[Row]) -> str:
    """Which of these cells pictures show; empty if they show all that were measured."""
    measured = sum(row.p50_ms is not None for row in rows)
    few = len(drawn(rows))
    return "" if few == measured else f"{few} of {measured} cells: the fastest, and the baseline"


def pyplot() -> Any:
    """matplotlib's pyplot, drawing into files."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(_SETTINGS)
    from matplotlib import pyplot

    return pyplot
