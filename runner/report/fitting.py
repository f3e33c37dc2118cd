"""A ranking that fits the terminal: the columns that decide, in the widest form for which there is room. Pure.

`runner.report.tables` makes the whole table, which Markdown and ``--wide`` show.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.cells import cell_len

from runner.analysis.comparison import Comparison
from runner.analysis.ranking import Row, cell_name
from runner.report import tables
from runner.report.columns import COLUMNS, Column, Place
from runner.report.tables import Section, Value
from runner.report.terminal import plural

# The width of the space between two columns.
GAP = 2
# A table of more rows is no longer read: the first ones are shown, and the baseline.
MOST_ROWS = 40
# A main cause needs this many letters to be worth a column ("page faults"), a cell's name this many.
_LEAST_CAUSE, _LEAST_NAME = 11, 16
_ABSENT = ("-", "")
# A heading of so many letters is not broken into lines ("speed-up").
_WHOLE_HEADING = 8


def sections(comparison: Comparison, top: int, width: int) -> list[Section]:
    """The sections of a comparison whose rankings fit a terminal of that width; at most ``top`` rows of each."""

    def make(rows: Sequence[Row], distinguishing: Sequence[str], title: str, top: int) -> Section:
        section = fitted(rows[:top], distinguishing, Place.COMPARE, width, top)
        return replace(section, title=title)

    return tables.sections(comparison, top, make)


def fitted(
    rows: Sequence[Row], distinguishing: Sequence[str], place: Place, width: int, most: int = MOST_ROWS
) -> Section:
    """The ranking in at most ``width`` columns of text, with a note on what it leaves out.

    Main causes are shortened, then left out; after that, the name of a cell is broken into lines.

    Args:
        rows: ranked.
        distinguishing: the axes and settings that distinguish the cells.
        place: whose columns.
        width: that of the terminal.
        most: the rows that are shown besides the baseline.
    """
    shown = _first_rows(rows, most)
    # A column of words has more to say here than in the whole table: what became of a cell as well.
    figures = [
        _texts(column, shown)
        for column in COLUMNS
        if place in column.places and column.short is not None and (column.is_word or column.is_shown(rows))
    ]
    figures = [texts for texts in figures if any(value.text not in _ABSENT for value in texts[1])]
    causes = [texts for texts in figures if texts[0].heading == "main cause"]
    figures = [texts for texts in figures if texts[0].heading != "main cause"]
    values = [(axis, True, [Value(row.labels[axis]) for row in shown]) for axis in distinguishing]
    values += [(c.heading, c.is_word and not c.heading.startswith("95 %"), texts) for c, texts in figures]
    for whole in (_WHOLE_HEADING, 0):
        columns = [(_folded(heading, texts, whole), is_word, texts) for heading, is_word, texts in values]
        left = width - _width(columns)
        if left >= 0:
            break
    names, measured = columns[: len(distinguishing)], columns[len(distinguishing) :]
    if left < 0:
        name_width = max(width - _width(measured) - GAP, _LEAST_NAME)
        cells = [Value(_name_in_lines(cell_name(row, distinguishing), name_width)) for row in shown]
        names = [("cell", True, cells)]
    elif causes and left >= _LEAST_CAUSE + GAP:
        [(_, texts)] = causes
        cut = [Value(shortened(value.text, left - GAP)) for value in texts]
        measured.append((_folded("main cause", cut, _WHOLE_HEADING), True, cut))
        causes = []
    notes = [_WHY[place]] if causes else []
    if len(shown) < len(rows):
        notes.append(f"{plural(len(rows) - len(shown), 'more cell')} in report.html and comparison.csv")
    columns = [*names, *measured]
    lines = list(zip(*(values for _, _, values in columns), strict=True))
    return Section("Ranking", [(heading, is_word) for heading, is_word, _ in columns], lines, notes)


# What to look at where there was no room for the causes.
_WHY = {
    Place.SWEEP: "why they differ: report.html, or a wider terminal",
    Place.COMPARE: "why they differ: --wide, or a wider terminal",
}


def _first_rows(rows: Sequence[Row], most: int) -> list[Row]:
    """The rows that are shown: the first ones, and the baseline."""
    return [row for number, row in enumerate(rows) if number < most or row.is_baseline]


def _texts(column: Column, rows: Sequence[Row]) -> tuple[Column, list[Value]]:
    short = column.short or column.text
    return column, [Value(short(row), column.short_mark(row)) for row in rows]


def _width(columns: Sequence[tuple[str, bool, Sequence[Value]]]) -> int:
    """The width of a table of these columns (heading, whether it holds words, values)."""
    widths = [max(map(cell_len, [*heading.split("\n"), *(v.text for v in values)])) for heading, _, values in columns]
    return sum(widths) + GAP * (len(widths) - 1)


def _folded(heading: str, values: Sequence[Value], whole: int) -> str:
    """A heading in as many lines as it takes to be no wider than the values, or than ``whole``."""
    return broken(heading, max(whole, *(cell_len(value.text) for value in values)))


def _name_in_lines(name: str, width: int) -> str:
    """The name of a cell, all lines but the first indented."""
    return broken(name, width - 2, " ").replace("\n", "\n  ")


def broken(text: str, width: int, behind: str = " _-") -> str:
    """A text in lines of that width, broken behind those characters; a longer part is a line of its own."""
    lines = [""]
    for part in filter(None, re.findall(f"[^{behind}]*[{behind}]*", text)):
        if lines[-1] and cell_len((lines[-1] + part).rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def shortened(cause: str, width: int) -> str:
    """The longest form of a main cause that fits: as it is, without its share, without its counts."""
    return next((form for form in _forms(cause) if cell_len(form) <= width), cause[: width - 1] + "…")


def _forms(cause: str) -> Iterator[str]:
    yield cause
    without_share = cause.partition(" (")[0]
    yield without_share
    brief = without_share.replace(" per iteration", "").removeprefix("time in ").removeprefix("time ")
    yield brief
    yield brief.replace(" -> ", "→").replace(" k", "k").replace(" M", "M")
    if "->" in brief:
        # "page faults 973 k -> 1.19 M": the words before the two values.
        before = brief.partition(" -> ")[0].split(" ")
        yield " ".join(word for word in before if word.isalpha() and len(word) > 1) or brief
