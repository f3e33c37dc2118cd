"""``python -m runner explain A B``: why is B faster than A? What was captured of both cells, lined up."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from runner.analysis.cause import count, signed
from runner.analysis.comparability import refuse_mixing
from runner.analysis.explanation import Explanation, explain
from runner.analysis.ranking import rank, unequal_work
from runner.analysis.verdict import ONE_ROUND
from runner.capture.kernel_tables import by_shape
from runner.capture.tables import read_table, read_trace
from runner.commands.options import add_allow, add_format, add_mlruns, add_top, allowed, make_parser
from runner.matrix.rules import distinguishing_axes
from runner.protocol.cell import ABSENT, MAIN_AXES
from runner.protocol.errors import RunnerError
from runner.report import terminal
from runner.report.columns import interval_text
from runner.results import cells, sweeps
from runner.results.cells import CellRow, cell_row
from runner.results.outcome import captures_folder, read_cell

_EPILOG = """A and B are cells of the newest sweep, or of --sweep: an id or its beginning, axes that one cell alone has
(allocator=jemalloc,ipex=on), or fastest, slowest. SWEEP:CELL takes a cell of another sweep, which may be the same cell:
20260101:fastest, by the sweep's name or its beginning. Sweeps whose hosts, versions or settings differ are refused."""


@dataclass(frozen=True)
class SweepCell:
    """A cell, and the folder of its sweep."""

    sweep: Path
    cell: CellRow

    @property
    def captures(self) -> Path:
        """The folder with the captures of the cell."""
        return captures_folder(self.sweep, self.cell.cell_id)


def find(text: str, default: str | None, mlruns: Path) -> SweepCell:
    """The measured cell that ``text`` means.

    Args:
        default: the sweep of a cell that names none; None for the newest.

    Raises:
        RunnerError: no cell is meant, or several.
    """
    name, colon, selector = text.rpartition(":")
    folder = sweeps.find(name if colon else default, mlruns)
    measured = _measured(folder)
    candidates = _select(selector, measured, text)
    if len(candidates) != 1:
        raise RunnerError(f"{text}: {_refusal(candidates, measured, folder.name)}")
    return SweepCell(folder, candidates[0])


def _measured(folder: Path) -> list[CellRow]:
    """The cells of a sweep that have a time, fastest first; one that failed in any of its rounds has none."""
    records = [read_cell(folder, path.name) for path in sorted((folder / "cells").iterdir())]
    rows = [cell_row(record, folder.name) for record in records if record is not None and record.results]
    return sorted((row for row in rows if row.p50_ms is not None), key=lambda row: row.place)


def _select(selector: str, measured: Sequence[CellRow], text: str) -> list[CellRow]:
    """The cells that a selector fits: ``fastest``, ``slowest``, axes, or the beginning of an id.

    Raises:
        RunnerError: it names an axis that the sweep does not have.
    """
    if selector in ("fastest", "slowest"):
        return list(measured[:1] if selector == "fastest" else measured[-1:])
    if "=" not in selector:
        return [cell for cell in measured if cell.cell_id.startswith(selector)]
    wanted = dict(pair.split("=", 1) for pair in selector.split(",") if "=" in pair)
    unknown = [axis for axis in wanted if measured and axis not in measured[0].labels]
    if unknown:
        raise RunnerError(f"{text}: {unknown[0]!r} is not an axis; the axes are {', '.join(measured[0].axes)}")
    return [cell for cell in measured if all(cell.labels.get(key) == value for key, value in wanted.items())]


def _refusal(candidates: Sequence[CellRow], measured: Sequence[CellRow], sweep: str) -> str:
    """Why a selector names no one cell, and which cells there are to choose from."""
    if not measured:
        return f"no cell of {sweep} was measured"
    choices = sorted(candidates or measured, key=lambda cell: cell.cell_id)
    labels = _same_keys([cell.labels for cell in choices])
    distinguishing = distinguishing_axes(_same_keys([cell.labels for cell in measured])) or ("model",)
    named = "; ".join(
        f"{cell.cell_id} ({terminal.label({**dict.fromkeys(distinguishing, ABSENT), **its_labels}, distinguishing)})"
        for cell, its_labels in zip(choices, labels, strict=True)
    )
    problem = "means several measured cells" if candidates else "is not a measured cell"
    return f"{problem} of {sweep}; choose one of {named}"


def _check(pair: tuple[SweepCell, SweepCell], texts: tuple[str, str], allow: Sequence[str]) -> None:
    """Refuse two cells whose latencies have no ratio.

    Raises:
        RunnerError: it is one cell twice, the cells do different work, or their sweeps differ in more than the axes.
    """
    ids = {(side.sweep.name, side.cell.cell_id) for side in pair}
    if len(ids) == 1:
        raise RunnerError(f"{texts[0]} and {texts[1]} are the same cell ({pair[0].cell.cell_id})")
    unequal = unequal_work(pair[0].cell.labels, pair[1].cell.labels)
    if unequal:
        raise RunnerError(f"the cells do different work ({unequal}): their latencies have no ratio")
    stored = cells.read(list(dict.fromkeys(side.sweep for side in pair)), ())
    rows = [row for row in stored.rows if (row.sweep, row.cell_id) in ids]
    refuse_mixing(replace(stored, rows=rows), allow)


def _same_keys(labels: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The labels of several cells, with the keys of all of them."""
    every = dict.fromkeys((key for its_labels in labels for key in its_labels), ABSENT)
    return [{**every, **its_labels} for its_labels in labels]


def _names(pair: tuple[SweepCell, SweepCell]) -> tuple[str, str]:
    """The names of the cells: their distinguishing axes, and with two sweeps also the sweeps and the main axes."""
    labels = _same_keys([side.cell.labels for side in pair])
    distinguishing = distinguishing_axes(labels)
    if pair[0].sweep == pair[1].sweep:
        before, after = (terminal.label(its_labels, distinguishing) for its_labels in labels)
    else:
        keys = list(dict.fromkeys([*MAIN_AXES, *distinguishing]))
        before, after = (
            f"{side.sweep.name}:  {terminal.label(its_labels, keys)}"
            for side, its_labels in zip(pair, labels, strict=True)
        )
    return before, after


def _operators(pair: Sequence[SweepCell]) -> tuple[tuple[dict[str, list[object]], dict[str, list[object]]], str]:
    """The operators of both cells from the same source, and its name."""
    for folder, name in (("itt", "ITT"), ("profiler", "PyTorch's profiler")):
        before, after = (read_table(side.captures / folder / "by_op.json") for side in pair)
        if before and after:
            return (before, after), name
    return ({}, {}), ""


def _explain(pair: tuple[SweepCell, SweepCell]) -> Explanation:
    """The explanation, from what was captured of both cells."""
    before, after = pair
    rows = {id(row.cell): row for row in rank([before.cell, after.cell], before.cell)}
    operators, source = _operators(pair)
    folders = [side.captures / "onednn" for side in pair]
    primitives = read_table(folders[0] / "by_primitive.json"), read_table(folders[1] / "by_primitive.json")
    problems = by_shape(read_trace(folders[0] / "trace.csv")), by_shape(read_trace(folders[1] / "trace.csv"))
    ranked = rows[id(before.cell)], rows[id(after.cell)]
    return explain(_names(pair), ranked, operators, source, primitives, problems)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("explain", _EPILOG)
    parser.add_argument("before", metavar="A", help="start from this cell: fastest, slowest, an id, or axes")
    parser.add_argument("after", metavar="B", help="compare this cell with it, named in the same ways")
    parser.add_argument("--sweep", metavar="SWEEP", help="take both cells from this sweep (default: the newest)")
    add_allow(parser)
    add_format(parser, "table", "json")
    add_top(parser, 10)
    add_mlruns(parser)
    return parser


def main(arguments: list[str]) -> int:
    """Print the explanation; exit status 0."""
    options = _parser().parse_args(arguments)
    if options.top < 1:
        raise RunnerError(f"--top {options.top}: it must be at least 1")
    allow = allowed(options.allow)
    before, after = (find(text, options.sweep, Path(options.mlruns)) for text in (options.before, options.after))
    _check((before, after), (options.before, options.after), allow)
    explanation = _explain((before, after))
    if options.format == "json":
        print(json.dumps(explanation.as_data(), indent=1))
    else:
        show(explanation, options.top)
    return 0


def show(explanation: Explanation, top: int) -> None:
    """Draw the explanation in the terminal."""
    console = terminal.make_console()
    if explanation.warning:
        console.print(f"[bold red]{escape(explanation.warning)}[/bold red]")
    console.print(f"A  {explanation.before}\nB  {explanation.after}", markup=False)
    console.print(f"{_summary(explanation)}\n", markup=False)
    tables = _tables(explanation, top)
    if explanation.parts:
        terminal.print_whole(console, tables.pop(0))
        rest = signed(explanation.unexplained_ms or 0.0)
        console.print(f"left unexplained by what was counted: {rest} ms\n", markup=False)
    else:
        console.print(
            "no capture of both cells says where the time went: run them with capture=[onednn,itt]\n", markup=False
        )
    for table in tables:
        terminal.print_whole(console, table)


def _summary(explanation: Explanation) -> str:
    """The speed-up and how certain it is, in one line."""
    verdict = explanation.verdict
    if verdict is not None and verdict.interval is not None:
        certainty = f"95 % interval {interval_text(verdict.interval)}, {explanation.answer}"
    else:
        certainty = ONE_ROUND
    times = f"{explanation.before_ms:.4g} -> {explanation.after_ms:.4g} ms, {signed(explanation.change_ms)} ms"
    return f"p50 {times}: {explanation.before_ms / explanation.after_ms:.2f}x ({certainty})"


def _tables(explanation: Explanation, top: int) -> list[Table]:
    """The parts of an iteration, then at most ``top`` rows each of operators, primitives, shapes; all figures."""
    tables = []
    if explanation.parts:
        table = _table("where the time of an iteration went", "A ms", "B ms", "change ms", "what was counted")
        for part in explanation.parts:
            name = f"{part.name} (across the others)" if part.across else part.name
            table.add_row(name, *_change(part.before_ms, part.after_ms), escape(part.words or ""))
        tables.append(table)
    for title, rows in (
        (f"operator, own time (by {explanation.operators_by})", explanation.operators),
        ("oneDNN primitive", explanation.primitives),
    ):
        if rows:
            table = _table(title, "A ms", "B ms", "change ms")
            for row in rows[:top]:
                table.add_row(escape(row.name), *_change(row.before_ms, row.after_ms))
            tables.append(table)
    if explanation.shapes:
        table = _table("oneDNN primitive by shape", "A ms", "B ms", "change ms", "what computed it")
        for shape in explanation.shapes[:top]:
            table.add_row(escape(shape.name), *_change(shape.before_ms, shape.after_ms), escape(shape.words))
        tables.append(table)
    if explanation.figures:
        table = _table("figure", "A", "B")
        for name, before, after in explanation.figures:
            table.add_row(escape(name), count(before), count(after))
        tables.append(table)
    return tables


def _change(before_ms: float, after_ms: float) -> tuple[str, str, str]:
    return f"{before_ms:.4g}", f"{after_ms:.4g}", signed(after_ms - before_ms)


def _table(first: str, *numbers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    table.add_column(first)
    for name in numbers:
        table.add_column(name, justify="left" if name.startswith("what") else "right")
    return table
