"""What was recorded of each cell, as report.html shows it: kernels, operators, captures, rounds, log and command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.analysis.disturbance import why_not_shown
from runner.analysis.ranking import Ranking, Row
from runner.analysis.verdict import of_cell
from runner.analysis.wording import aloud
from runner.capture.tables import read_table
from runner.config import names
from runner.protocol.files import log_text
from runner.protocol.stored import FormatError
from runner.protocol.verdicts import Status
from runner.report import style
from runner.results.outcome import CellRecord, captures_folder, job_folder

# The page must open at once: it has the first rows of each table, and the last lines of each log.
_ROWS, _LINES, _LINE = 10, 20, 300
# More cells that failed than this are in the table only.
_FAILED = 50


@dataclass(frozen=True)
class Table:
    """The largest rows of a table that a capture left."""

    part: str
    """What it is of: ``kernels`` or ``operators``."""
    title: str
    headings: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    left_out: int = 0
    """How many further rows the capture's own table has."""
    why_not: str = ""
    """Why there are no rows; empty if there are."""


@dataclass(frozen=True)
class CellEvidence:
    """Everything about one cell that the page shows."""

    cell_id: str
    anchor: str
    """The name of its place in the page."""
    name: str
    sentence: str
    """Its result in plain words."""
    command: str
    """The command line that runs this cell alone; empty if it is not known."""
    folder: str
    """Its folder, below the sweep's."""
    rounds: str
    """The median of each round, and which of them were disturbed."""
    tables: tuple[Table, ...]
    """Its kernels, then its operators."""
    captures: tuple[tuple[str, str], ...]
    """What became of each capture, by its tag."""
    log: str = field(repr=False)
    """The last lines of its log."""

    def place_of(self, part: str) -> str:
        """The name of the place in the page where a part of it is; empty if it has none."""
        parts = {*(table.part for table in self.tables), *(["captures"] if self.captures else [])}
        return f"{self.anchor}-{part}" if part in parts else ""


def collect(ranking: Ranking, sweep: Path, commands: Mapping[str, str]) -> list[CellEvidence]:
    """The evidence of the cells that pictures show, and of those that failed.

    Args:
        ranking: the cells.
        sweep: the folder of the sweep, which may lack any of its files.
        commands: cell_id -> the command line that runs it alone.
    """
    drawn = {id(row) for row in style.drawn(ranking.rows)}
    failed = [row for row in ranking.rows if row.p50_ms is None][:_FAILED]
    shown = [row for row in ranking.rows if id(row) in drawn or any(row is one for one in failed)]
    return [_of(row, f"cell-{number}", ranking, sweep, commands) for number, row in enumerate(shown, 1)]


def _of(row: Row, anchor: str, ranking: Ranking, sweep: Path, commands: Mapping[str, str]) -> CellEvidence:
    cell_id = row.cell.cell_id
    return CellEvidence(
        cell_id,
        anchor,
        aloud(row, ranking.distinguishing) or row.labels["model"],
        of_cell(row, ranking.baseline_of(row), ranking.distinguishing),
        commands.get(cell_id, ""),
        f"cells/{cell_id}",
        _rounds(row),
        tuple(_tables(row, captures_folder(sweep, cell_id))),
        tuple(sorted(row.cell.captures.items())),
        _log(ranking.records[cell_id], sweep),
    )


def _rounds(row: Row) -> str:
    """The medians of its rounds in ms, like ``2713, 2698 (disturbed), 2720 ms``."""
    medians = row.cell.medians_s
    numbers = row.cell.rounds if len(row.cell.rounds) == len(medians) else range(len(medians))
    texts = [
        f"{1e3 * median_s:.4g}{' (disturbed)' if number in row.cell.contaminated else ''}"
        for number, median_s in zip(numbers, medians, strict=True)
    ]
    return f"{', '.join(texts)} ms" if texts else ""


# (capture, title, file), the best source first.
_SOURCES = {
    "kernels": (("onednn", "Kernels of oneDNN", "onednn/by_primitive.json"),),
    "operators": (
        ("inductor", "Operators, and kernels that inductor generated", "inductor/by_kernel.json"),
        ("itt", "Operators, by ITT", "itt/by_op.json"),
        ("profiler", "Operators, by PyTorch's profiler", "profiler/by_op.json"),
    ),
}
# Column of those tables -> its heading.
_COLUMNS = {
    "primitive": "kernel",
    "operator": "operator",
    "kernel": "operator or kernel",
    "ms per iteration": "ms per iteration",
    "self ms per iteration": "own ms per iteration",
    "calls per iteration": "calls per iteration",
    "dtypes": "types",
    "isa": "instructions",
    "post-ops": "fused",
    "operators": "what it computes",
}


def _tables(row: Row, folder: Path) -> list[Table]:
    """The tables of a cell: of each kind the first that may be shown, else the reason why none is."""
    tables = []
    for part, sources in _SOURCES.items():
        found = [table for source in sources if (table := _table(row, folder, part, *source)) is not None]
        tables += sorted(found, key=lambda table: bool(table.why_not))[:1]
    return tables


def _table(row: Row, folder: Path, part: str, capture: str, title: str, file: str) -> Table | None:
    try:
        columns = read_table(folder / file)
    except FormatError as error:
        return Table(part, title, why_not=str(error))
    if not columns:
        return None
    if reason := why_not_shown(row.cell, capture):
        return Table(part, title, why_not=f"disturbed, not shown: {reason}")
    shown = [name for name in _COLUMNS if name in columns]
    rows = sorted(zip(*(columns[name] for name in shown), strict=True), key=lambda values: -float(values[1]))
    texts = tuple(tuple(map(_text, values)) for values in rows[:_ROWS])
    return Table(part, title, tuple(_COLUMNS[name] for name in shown), texts, max(len(rows) - _ROWS, 0))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"
    return names.visible(str(value))


def _log(record: CellRecord, sweep: Path) -> str:
    """The last lines of the log of the first round that did not finish, else of the first round."""
    unfinished = (outcome.round for outcome in record.outcomes if outcome.status != Status.FINISHED)
    number = next(unfinished, record.outcomes[0].round if record.outcomes else 0)
    folder = job_folder(sweep, record.cell_id, number)
    for file in (folder / "stderr.log", folder / "stdout.log"):
        if file.is_file() and file.stat().st_size:
            lines = log_text(file).splitlines()
            return "\n".join(names.visible(line)[:_LINE] for line in lines[-_LINES:])
    return ""
