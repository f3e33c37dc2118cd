"""The end of a sweep: the files it leaves (pictures, CSV) and what is printed last (table, reasons, links)."""

from __future__ import annotations

import csv
import shlex
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from runner.analysis import operators
from runner.analysis.disturbance import why_not_shown
from runner.analysis.ranking import Ranking, Row, cell_name
from runner.capture.tables import read_table
from runner.protocol.errors import RunnerError
from runner.report import breakdown, data, escaping, fitting, html, notes, picture, tables, terminal, timeline
from runner.report.answer import Answer, answer, measured
from runner.report.columns import Place
from runner.results import cells
from runner.results.circumstances import Circumstances
from runner.results.outcome import captures_folder

# How many operators are named in the terminal; operators.csv has them all.
_NAMED = 4


def leave(ranking: Ranking, directory: Path, title: str, origin: html.Origin | None = None) -> list[str]:
    """Write the figures, the pictures and the report; returns lines to print: the operators, and files that failed.

    Figures come first, and a file that can't be written or drawn takes none of the others with it, nor the table.
    """
    remarks: list[str] = []
    rows, distinguishing = ranking.rows, ranking.distinguishing
    origin = origin or html.Origin()
    # A picture is passed on alone: it says what was measured as well.
    above = "\n".join(filter(None, (measured(rows, origin.circumstances), title)))
    files: dict[str, Callable[[], object]] = {
        "comparison.csv": lambda: (directory / "comparison.csv").write_text(data.ranking_csv(rows), encoding="utf-8"),
        "cells.parquet": lambda: _write_cells(ranking, directory),
        "comparison.png": lambda: picture.draw(
            ranking, directory / "comparison.png", above, directory / picture.SMALL_FILE
        ),
        "breakdown.png": lambda: breakdown.draw(rows, distinguishing, directory / "breakdown.png", above),
        "timeline.png or operators.csv": lambda: remarks.extend(_explain_fastest(ranking, directory, above)),
        "report.html": lambda: html.write(ranking, directory, title, remarks, origin),
    }
    for name, write in files.items():
        try:
            write()
        except RunnerError as error:  # a file that it is made from is damaged
            remarks.append(f"{name} could not be written: {error}")
        except Exception as error:
            traceback.print_exc()
            remarks.append(f"{name} could not be written: {type(error).__name__}: {error}")
    return remarks


def _write_cells(ranking: Ranking, directory: Path) -> None:
    causes = {row.cell.cell_id: row.main_cause for row in ranking.rows}
    cells.write([row.cell for row in ranking.rows], causes, directory)


def show(
    console: Console,
    ranking: Ranking,
    remarks: Sequence[str],
    directory: Path,
    mlruns: Path,
    links: Mapping[str, str],
    is_wide: bool = False,
    circumstances: Circumstances | None = None,
) -> None:
    """Print the answer, the table, the remarks, the notes, and where everything is: long links come last.

    Args:
        is_wide: whether the table has every column, however wide it gets.
        circumstances: where and when it was measured.
    """
    rows, distinguishing = ranking.rows, ranking.distinguishing
    said = answer(rows, distinguishing, circumstances or Circumstances())
    console.print()
    show_answer(console, said)
    if rows:
        print_table(console, rows, distinguishing, is_wide)
        console.print()
    for line in (*said.remarks, *remarks):
        console.print(line, markup=False)
    for note in notes.below(rows, distinguishing, ranking.records):
        console.print(f"note: {note}", markup=False)
    folder = _near(directory)
    report = directory / "report.html"
    if report.exists():
        path = (f"{folder}/report.html", f"link {report.resolve().as_uri()}")
        console.print(Text.assemble("report  ", path, "  (open it in a browser)"), soft_wrap=True)
    console.print(f"files   {folder}", markup=False, soft_wrap=True)
    elsewhere = "" if mlruns == Path("mlruns").resolve() else f" --mlruns {shlex.quote(str(_near(mlruns)))}"
    pages = ", then:" if links else ""
    console.print(f"MLflow  python -m runner ui{elsewhere}{pages}", markup=False, soft_wrap=True)
    for name, link in links.items():
        console.print(f"- {name}\n  {link}", markup=False, soft_wrap=True)


def show_answer(console: Console, said: Answer) -> None:
    """Print what was measured, then what came out of it."""
    if said.measured:
        console.print(said.measured, markup=False)
    if said.warning:
        console.print(f"[bold red]{escape(said.warning)}[/bold red]")
    console.print(f"[bold]{escape(said.sentence)}[/bold]\n")


def print_table(console: Console, rows: Sequence[Row], distinguishing: Sequence[str], is_wide: bool) -> None:
    """Print the table, and what it leaves out."""
    if is_wide:
        terminal.print_whole(console, tables.drawn(tables.ranking(rows, distinguishing, Place.SWEEP)))
        return
    section = fitting.fitted(rows, distinguishing, Place.SWEEP, console.width)
    terminal.print_whole(console, tables.drawn(section, is_tight=True))
    for note in section.notes:
        console.print(f"[dim]{escape(note)}[/dim]")


def _explain_fastest(ranking: Ranking, directory: Path, title: str) -> list[str]:
    """Write timeline.png and operators.csv of baseline and fastest cell; returns the largest changes in words."""
    # Only rows with a speed-up do the same work as the baseline, and do it right.
    rated = [row for row in ranking.rows if row.speedup is not None]
    baseline, fastest = next((row for row in rated if row.is_baseline), None), next(iter(rated), None)
    pair = [row for row in (baseline, fastest) if row is not None]
    is_alone = len(pair) < 2 or pair[0] is pair[1]
    traces = [_traced(row, ranking.distinguishing, directory) for row in pair[: 1 if is_alone else 2]]
    left_out = timeline.draw(traces, directory / "timeline.png", title)
    return left_out if is_alone else [*left_out, *_compare_operators(pair, ranking.distinguishing, directory)]


def _traced(row: Row, distinguishing: Sequence[str], directory: Path) -> timeline.TracedCell:
    """A cell with its trace, and with the reason why its iterations are unlike the timed ones if they are."""
    trace = _timeline_of(captures_folder(directory, row.cell.cell_id))
    disturbed = why_not_shown(row.cell, trace.parent.name)
    p50_ms = None if row.cell.is_served else row.p50_ms
    return timeline.TracedCell(cell_name(row, distinguishing), trace, p50_ms, disturbed)


def _compare_operators(pair: Sequence[Row], distinguishing: Sequence[str], directory: Path) -> list[str]:
    """Write operators.csv of two cells; returns the largest changes in words, or why they are not shown."""
    (directory / "operators.csv").unlink(missing_ok=True)
    folders = [captures_folder(directory, row.cell.cell_id) for row in pair]
    names = [cell_name(row, distinguishing) for row in pair]
    left_out: dict[str, None] = {}
    # PyTorch's profiler stands in where there are no ITT ranges, or disturbed ones.
    for source in ("itt", "profiler"):
        tables_by_cell = [read_table(folder / source / "by_op.json") for folder in folders]
        if all(tables_by_cell):
            reasons = {name: why_not_shown(row.cell, source) for name, row in zip(names, pair, strict=True)}
            disturbed = [name for name, reason in reasons.items() if reason]
            if disturbed:
                left_out[f"operators: captured while others disturbed {' and '.join(disturbed)}; not shown"] = None
                continue
            changes = operators.difference(*tables_by_cell)
            heading = ("operator", *(f"{name}, ms per iteration" for name in names), "source")
            lines = [(c.name, f"{c.before_ms:.6g}", f"{c.after_ms:.6g}", source) for c in changes]
            with (directory / "operators.csv").open("w", newline="", encoding="utf-8") as out:
                csv.writer(out).writerows(map(escaping.cell, line) for line in (heading, *lines))
            largest = "; ".join(change.text for change in changes[:_NAMED])
            return [f"operators that changed most, own ms per iteration, baseline -> fastest: {largest}"]
    return list(left_out)


def _timeline_of(folder: Path) -> Path:
    """The timeline that ITT left, else the one of PyTorch's profiler."""
    itt = folder / "itt" / "timeline.json"
    return itt if itt.exists() else folder / "profiler" / "trace.json.gz"


def _near(path: Path) -> Path:
    """The path, relative to the working directory if it is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
