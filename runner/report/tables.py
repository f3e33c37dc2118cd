"""Tables for people: a ranking, the effects and the interactions as one kind of section, drawn or as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.markup import escape
from rich.table import Table

from runner import stats
from runner.analysis.certainty import is_too_wide
from runner.analysis.comparison import Comparison, Group
from runner.analysis.ranking import Row
from runner.report import escaping, notes
from runner.report.columns import TOO_WIDE, Column, Mark, Place, columns
from runner.report.data import TOGETHER, answer
from runner.report.terminal import label
from runner.stats.effects import Mean

_STYLES = {Mark.GOOD: "green", Mark.BAD: "red"}


@dataclass(frozen=True)
class Value:
    """The content of one field of a table."""

    text: str
    mark: Mark = Mark.NONE

    @property
    def markup(self) -> str:
        """The text as rich's markup."""
        style = _STYLES.get(self.mark)
        return f"[{style}]{escape(self.text)}[/{style}]" if style else escape(self.text)


@dataclass(frozen=True)
class Section:
    """A titled table, with the notes below it."""

    title: str
    headings: Sequence[tuple[str, bool]]
    """The heading of each column, and whether the column holds words and not figures."""
    rows: Sequence[Sequence[Value]]
    notes: Sequence[str] = ()


def ranking(
    rows: Sequence[Row], distinguishing: Sequence[str], place: Place, title: str = "Ranking", top: int | None = None
) -> Section:
    """The ranking as that place shows it; only its first ``top`` rows if that is a number."""
    shown = columns(place, rows)
    headings = [*((axis, True) for axis in distinguishing), *((column.heading, column.is_word) for column in shown)]
    values = [
        [
            *(Value(row.labels[axis]) for axis in distinguishing),
            *(_value(column, row, place) for column in shown),
        ]
        for row in rows[:top]
    ]
    return Section(title, headings, values)


def _value(column: Column, row: Row, place: Place) -> Value:
    """A field; the short table says in the verdict what the columns that it lacks would."""
    if place is Place.SHORT and column.heading == "difference" and column.short is not None:
        return Value(column.short(row), column.short_mark(row))
    return Value(column.text(row), column.mark(row))


_UNDECIDED_EFFECT = (
    "an effect is the mean over all pairs of cells that differ in that axis alone; its interval is as wide as these "
    "pairs differ: it can be undecided although the ranking has a real difference between two cells"
)


# (rows, distinguishing axes, title, rows to show) -> the ranking of a group.
Make = Callable[[Sequence[Row], Sequence[str], str, int], Section]


def _whole(rows: Sequence[Row], distinguishing: Sequence[str], title: str, top: int) -> Section:
    return ranking(rows, distinguishing, Place.COMPARE, title, top)


def sections(comparison: Comparison, top: int, make: Make = _whole) -> list[Section]:
    """The sections of a comparison: each group's ranking, then the effects; at most ``top`` rows of each.

    Args:
        make: makes the ranking of a group.
    """
    made = [_group(comparison, group, top, make) for group in comparison.groups]
    if comparison.effects:
        made.append(_effects(comparison, top))
    if comparison.interactions:
        made.append(_interactions(comparison, top))
    return made


def _group(comparison: Comparison, group: Group, top: int, make: Make) -> Section:
    distinguishing = [key for key in comparison.distinguishing if key not in group.name] or ["model"]
    title = f"Ranking of {label(group.name, list(group.name))}" if group.name else "Ranking"
    made = make(group.rows, distinguishing, title, top)
    below = [*notes.rows_left_out(group.rows, top), *notes.of_group(group, distinguishing, comparison.bound)]
    return replace(made, notes=[*made.notes, *below])


def _effects(comparison: Comparison, top: int) -> Section:
    rows = [_values(e.axis, e.value, e.reference, *_mean(e.mean)) for e in comparison.effects]
    below = notes.rows_left_out(rows, top)
    if comparison.warning:
        below.append("disturbed rounds take part in these effects")
    if all(effect.mean.count == 1 for effect in comparison.effects):
        below.append("one pair each: how much an effect varies from cell to cell is not known; vary further axes")
    elif any(answer(effect.mean) == "undecided" for effect in comparison.effects):
        below.append(_UNDECIDED_EFFECT)
    headings = _headings(3, "axis", "value", "against", "speed-up", "95 % interval", "pairs", "difference")
    return Section("What each axis does, all else equal", headings, rows[:top], below)


def _interactions(comparison: Comparison, top: int) -> Section:
    def name(axes: Sequence[str], values: Sequence[str]) -> str:
        return label(dict(zip(axes, values, strict=True)), axes)

    rows = [
        _values(name(i.axes, i.values), name(i.axes, i.references), *_mean(i.mean, *TOGETHER))
        for i in comparison.interactions
    ]
    headings = _headings(2, "together", "against", "beyond the product", "95 % interval", "blocks", "difference")
    meaning = "beyond the product: what both do together, over what each does alone multiplied; 1.00x is nothing beyond"
    return Section("Largest interactions", headings, rows[:top], [*notes.rows_left_out(rows, top), meaning])


def _values(*texts: str) -> list[Value]:
    return [Value(text) for text in texts]


def _headings(words: int, *texts: str) -> list[tuple[str, bool]]:
    """Headings of which the first few are of columns of words, and so are differences."""
    return [(text, place < words or text == "difference") for place, text in enumerate(texts)]


def _mean(mean: Mean, *words: str) -> tuple[str, str, str, str]:
    return _ratio(mean.ratio), _interval(mean.interval), str(mean.count), answer(mean, *words)


def _interval(interval: stats.Interval | None) -> str:
    if interval is not None and is_too_wide(interval.low, interval.high):
        return TOO_WIDE
    return "-" if interval is None else f"{_ratio(interval.low)} to {_ratio(interval.high)}"


def _ratio(value: float) -> str:
    """A ratio with three digits, even if they are zeros: "1.00x"."""
    return f"{value:#.3g}".rstrip(".") + "x"


def drawn(section: Section, is_tight: bool = False, is_folding: bool = False) -> Table:
    """A section for the terminal.

    Args:
        is_tight: whether two columns are only two spaces apart, and no line stands around the table.
        is_folding: whether columns of words may be broken into lines where the terminal is narrower.
    """
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    if is_tight:
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for heading, is_word in section.headings:
        is_whole = not (is_folding and is_word)
        table.add_column(escape(heading), justify="left" if is_word else "right", no_wrap=is_whole, overflow="fold")
    for row in section.rows:
        table.add_row(*(value.markup for value in row))
    return table


def markdown_table(section: Section) -> list[str]:
    """The lines of a section's table, as GitHub reads it."""
    lines = [_line([heading for heading, _ in section.headings])]
    lines.append("|" + "|".join(" --- " if is_word else " ---: " for _, is_word in section.headings) + "|")
    return lines + [_line([value.text for value in row]) for row in section.rows]


def markdown(comparison: Comparison, top: int, remarks: Sequence[str] = ()) -> str:
    """A whole comparison as Markdown, with the remarks on all of it first."""
    lines = [f"Sweeps: {escaping.markdown(', '.join(comparison.sweeps))}", ""]
    lines += [*(f"- {escaping.markdown(remark)}" for remark in remarks), ""] if remarks else []
    for section in sections(comparison, top):
        lines += [f"## {escaping.markdown(section.title)}", "", *markdown_table(section), ""]
        lines += [f"- {escaping.markdown(note)}" for note in section.notes] + ([""] if section.notes else [])
    return "\n".join(lines)


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(map(escaping.markdown, texts)) + " |"
