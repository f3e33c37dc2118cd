"""The terminal: its console, and the words for cells, durations and numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from runner.config import names


class _Plain(Console):
    """A console whose texts can't move its cursor, change its title or reverse its lines, wherever they are from."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(names.visible(text), **options)


# Columns of text that no table of ours needs.
_WIDEST = 10_000


def make_console() -> Console:
    """The console on standard output.

    A terminal gets colours and lines that end with a word, and may be drawn on again. Everything else gets plain text
    whose lines are not broken: a file, a pipe, continuous integration (``CI``), and whoever set ``NO_COLOR``.
    """
    # Both count if they have any value: see https://no-color.org.
    is_plain = any(os.environ.get(name) for name in ("NO_COLOR", "CI"))
    console = _Plain(highlight=False, force_terminal=False if is_plain else None)
    console.soft_wrap = not console.is_terminal or console.is_dumb_terminal
    return console


def print_whole(console: Console, table: Table) -> None:
    """Print a table as wide as it is: a narrower terminal wraps its lines, and nothing is cut off."""
    table.width = Measurement.get(console, console.options.update(width=_WIDEST), table).maximum
    console.print(table, soft_wrap=False, crop=False)


def print_folded(console: Console, table: Table) -> None:
    """Print a table that a terminal makes narrower by breaking lines; elsewhere it is as wide as it is."""
    if console.is_terminal:
        console.print(table, soft_wrap=False)
    else:
        print_whole(console, table)


def label(axes: Mapping[str, str], distinguishing: Sequence[str]) -> str:
    """A cell in words: its distinguishing axes with their values."""
    return "  ".join(f"{axis}={axes[axis]}" for axis in distinguishing)


def duration(seconds: float) -> str:
    """A duration in words, like ``45 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def plural(number: int, word: str) -> str:
    """A number with its noun, like ``1 job`` or ``4 jobs``."""
    return f"{number} {word}" + ("" if number == 1 else "s")


def exclusions(excluded: Sequence[tuple[Mapping[str, str], str]], distinguishing: Sequence[str]) -> list[str]:
    """One line per reason, with the cell that it excludes or their number; plan.json has all of them."""
    cells: dict[str, list[Mapping[str, str]]] = {}
    for axes, reason in excluded:
        cells.setdefault(reason, []).append(axes)
    return [
        f"{plural(len(labels), 'cell')}: {reason}" if labels[1:] else f"{label(labels[0], distinguishing)}: {reason}"
        for reason, labels in cells.items()
    ]
