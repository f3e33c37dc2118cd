"""The end of a sweep: the files it leaves (pictures, CSV) and what is printed last (table, reasons, links)."""

from __future__ import annotations

import csv
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from runner.analysis import cells, operators
from runner.analysis.cause import main_causes
from runner.analysis.ranking import Row, cell_name, most_rounds, warning
from runner.capture.tables import read_table
from runner.protocol.errors import RunnerError
from runner.report import breakdown, html, picture, plain, terminal, timeline
from runner.results.outcome import job_folder

_VERDICTS = (
    "evidence", "output", "isa", "failure",
    "speedup", "speedup_low", "speedup_high", "difference", "noise_floor_pct", "p_holm", "main_cause",
)  # fmt: skip

# Operators named in the terminal; operators.csv has them all.
_NAMED = 4


def leave(
    rows: Sequence[Row], distinguishing: Sequence[str], directory: Path, title: str, origin: html.Origin | None = None
) -> list[str]:
    """Write the figures, the pictures and the report; lines to print: the operators, and files that failed.

    Figures come first, and a file that can't be written or drawn takes none of the others with it, nor the table.
    """
    said: list[str] = []

    def report() -> None:
        html.write(rows, distinguishing, directory, title, said, origin or html.Origin())

    files: dict[str, Callable[[], object]] = {
        "comparison.csv": lambda: _write_csv(rows, directory / "comparison.csv"),
        "cells.parquet": lambda: cells.write(rows, directory),
        "comparison.png": lambda: picture.draw(rows, distinguishing, directory / "comparison.png", title),
        "breakdown.png": lambda: breakdown.draw(rows, distinguishing, directory / "breakdown.png", title),
        "timeline.png or operators.csv": lambda: said.extend(_explain_fastest(rows, distinguishing, directory, title)),
        "report.html": report,
    }
    for name, write in files.items():
        try:
            write()
        except RunnerError as error:  # a file that it is made from is damaged
            said.append(f"{name} could not be written: {error}")
        except Exception as error:
            traceback.print_exc()
            said.append(f"{name} could not be written: {type(error).__name__}: {error}")
    return said


def show(
    console: Console,
    rows: Sequence[Row],
    distinguishing: Sequence[str],
    said: Sequence[str],
    directory: Path,
    mlruns: Path,
    links: Mapping[str, str],
) -> None:
    """Print the table, what was ``said`` of it, the notes, and where everything is."""
    rounds = most_rounds(rows)
    console.print()
    if warning(rows):
        console.print(f"[bold red]{escape(warning(rows))}[/bold red]")
    if rows:
        console.print(terminal.table(rows, distinguishing, rounds))
    for line in said:
        console.print(line, markup=False)
    for note in terminal.notes(rows, distinguishing, rounds):
        console.print(f"note: {note}", markup=False)
    console.print(f"files   {_near(directory)}", markup=False)
    elsewhere = "" if mlruns == Path("mlruns").resolve() else f" --mlruns {_near(mlruns)}"
    make = "" if elsewhere else "make ui   (or: "
    console.print(f"MLflow  {make}python -m runner ui{elsewhere}{')' if make else ''}, then", markup=False)
    for name, link in links.items():
        console.print(f"        {link}   {name}", markup=False)


def _explain_fastest(rows: Sequence[Row], distinguishing: Sequence[str], directory: Path, title: str) -> list[str]:
    """The baseline and the fastest cell side by side: operators.csv, timeline.png; the largest changes in words."""
    # Only rows with a speed-up do the same work as the baseline, and do it right.
    rated = [row for row in rows if row.speedup is not None]
    baseline, fastest = next((row for row in rated if row.is_baseline), None), next(iter(rated), None)
    pair = [row for row in (baseline, fastest) if row is not None]
    folders = [job_folder(directory, row.record.cell_id, 0) for row in pair]
    named = [(cell_name(row, distinguishing), folder) for row, folder in zip(pair, folders, strict=True)]
    timeline.draw(
        [(name, _timeline_of(folder)) for name, folder in dict.fromkeys(named)],
        directory / "timeline.png",
        title,
    )
    if len(pair) < 2 or pair[0] is pair[1]:
        return []
    # PyTorch's profiler stands in where there are no ITT ranges.
    for source in ("itt", "profiler"):
        tables = [read_table(folder / source / "by_op.json") for folder in folders]
        if all(tables):
            changes = operators.difference(*tables)
            with (directory / "operators.csv").open("w", newline="", encoding="utf-8") as out:
                writer = csv.writer(out)
                heading = ("operator", *(f"{name}, ms a step" for name, _ in named), "source")
                rows_ = [(c.name, f"{c.before_ms:.6g}", f"{c.after_ms:.6g}", source) for c in changes]
                writer.writerows(map(plain.cell, row) for row in (heading, *rows_))
            named_changes = "; ".join(change.text for change in changes[:_NAMED])
            return [f"operators, own time a step, baseline -> fastest: {named_changes}"]
    return []


def _timeline_of(folder: Path) -> Path:
    """ITT's, else the one of PyTorch's profiler."""
    itt = folder / "itt" / "timeline.json"
    return itt if itt.exists() else folder / "profiler" / "trace.json.gz"


def _near(path: Path) -> Path:
    """Relative to the working directory where it is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _write_csv(rows: Sequence[Row], file: Path) -> None:
    """comparison.csv: a line a cell, fastest first; every axis, every figure."""
    figures = sorted({name for row in rows for name in row.metrics})
    axes = list(rows[0].axes) if rows else []
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["cell_id", *axes, *_VERDICTS, *figures])
        for row, cause in main_causes(rows):
            writer.writerow(
                plain.cell(value)
                for value in (
                    row.record.cell_id,
                    *row.axes.values(),
                    row.record.evidence,
                    row.record.quality,
                    row.record.isa,
                    row.record.failure or "",
                    row.speedup or "",
                    *_verdict(row),
                    cause,
                    *(row.metrics.get(name, "") for name in figures),
                )
            )


def _verdict(row: Row) -> list[object]:
    """Interval of the speed-up, answer, the host's noise floor, and corrected p; empty where they are not known."""
    verdict = row.verdict
    interval = verdict.interval if verdict else None
    ends: list[object] = [interval.low, interval.high] if interval else ["", ""]
    floor = "" if verdict is None or verdict.floor is None else 100 * verdict.floor
    return [*ends, row.answer, floor, "" if verdict is None or verdict.p_holm is None else verdict.p_holm]
