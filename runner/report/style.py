"""How every picture is drawn: one palette and one way to set up matplotlib.

The palette is Okabe & Ito's (2008, "Color Universal Design"), which readers can distinguish in print and when they are
colour-blind.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

BLUE, SKY, GREEN, YELLOW = "#0072B2", "#56B4E9", "#009E73", "#F0E442"
ORANGE, VERMILION, PURPLE = "#E69F00", "#D55E00", "#CC79A7"
# The palette's black is the text's; greys are for what is only context.
BLACK, DARK_GREY, GREY, LIGHT_GREY, FAINT_GREY = "#000000", "#999999", "#BBBBBB", "#DDDDDD", "#EEEEEE"

_SETTINGS: Any = {"text.parse_math": False}  # a ``$`` in a name begins no formula
_SVG_SETTINGS: Any = {
    **_SETTINGS,
    "svg.fonttype": "none",  # text stays text: searchable, small, in the reader's fonts
    "svg.hashsalt": "report",
    # The first, which matplotlib ships, is what widths are measured with; the second is as wide, and on most desktops.
    "font.sans-serif": ["DejaVu Sans", "Verdana"],
}


def pyplot() -> Any:
    """matplotlib's pyplot, drawing into files."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(_SETTINGS)
    from matplotlib import pyplot

    return pyplot


def svg_settings() -> AbstractContextManager[None]:
    """matplotlib's settings while one picture is drawn that goes into a page."""
    import matplotlib

    return matplotlib.rc_context(_SVG_SETTINGS)
