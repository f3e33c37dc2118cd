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

from runner.analysis import cells
from runner.analysis.cause import count, signed
from runner.analysis.explanation import Explanation, explain
from runner.analysis.mixing import refuse_mixing
from runner.analysis.ranking import rank, unequal_work
from runner.capture.kernel_tables import by_shape
from runner.capture.tables import read_table, read_trace
from runner.commands.options import add_allow, add_format, add_mlruns, add_top, allowed, make_parser
from runner.matrix.cell import ABSENT, AXES
from runner.matrix.rules import distinguishing_axes
from runner.protocol.errors import RunnerError
from runner.report import terminal
from runner.results import sweeps
from runner.results.outcome import CellRecord, job_folder, read_cell

_EPILOG = """A and B are cells of the newest sweep, or of --sweep: an id or its beginning, axes that one cell alone has
(allocator=jemalloc,ipex=on), or fastest, slowest. SWEEP:CELL takes a cell of another sweep, which may be the same cell:
20260101:fastest, by the sweep's name or its beginning. Sweeps whose hosts, versions or settings differ are refused."""


@dataclass(frozen=True)
class Found:
    """A cell with the sweep it is of."""

    sweep: Path
    record: CellRecord


def find(text: str, default: str | None, mlruns: Path) -> Found:
    """The measured cell that ``text`` means.

    Args:
        default: the sweep of a cell that names none; None for the newest.

    Raises:
        RunnerError: no cell is meant, or several.
    """
    name, colon, cell = text.rpartition(":")
    folder = sweeps.find(name if colon else default, mlruns)
    read = [read_cell(folder, path.name) for path in sorted((folder / "cells").iterdir())]
    records = [record for record in read if record is not None and record.results]
    # A cell that failed in one of its rounds has no time, whatever the others say.
    measured = [row for row in rank(records, "") if row.p50_ms is not None]
    records = [record for record in records if any(row.record is record for row in measured)]
    if cell in ("fastest", "slowest"):
        if not measured:
            raise RunnerError(f"{text}: no cell of {folder.name} was measured")
        return Found(folder, measured[0 if cell == "fastest" else -1].record)
    if "=" in cell:
        wanted = dict(pair.split("=", 1) for pair in cell.split(",") if "=" in pair)
        unknown = [axis for axis in wanted if records and axis not in records[0].labels]
        if unknown:
            raise RunnerError(f"{text}: {unknown[0]!r} is not an axis; the axes are {', '.join(records[0].axes)}")
        meant = [record for record in records if all(record.labels.get(k) == v for k, v in wanted.items())]
    else:
        meant = [record for record in records if record.cell_id.startswith(cell)]
    if len(meant) == 1:
        return Found(folder, meant[0])
    distinguishing = distinguishing_axes(_alike([record.labels for record in records])) or ("model",)
    known = dict.fromkeys(distinguishing, ABSENT)
    choice = "; ".join(
        f"{record.cell_id} ({terminal.label({**known, **record.labels}, distinguishing)})"
        for record in meant or records
    )
    problem = "means several measured cells" if meant else "is no measured cell"
    raise RunnerError(f"{text}: {problem} of {folder.name}; choose one of {choice}")


def _check(found: tuple[Found, Found], texts: tuple[str, str], let: Sequence[str]) -> None:
    """Refuse what has no ratio.

    Raises:
        RunnerError: one cell twice, other work, or sweeps that differ in more than the axes.
    """
    if len({(one.sweep, one.record.cell_id) for one in found}) == 1:
        raise RunnerError(f"{texts[0]} and {texts[1]} are the same cell ({found[0].record.cell_id})")
    unequal = unequal_work(found[0].record, found[1].record)
    if unequal:
        raise RunnerError(f"the cells do different work ({unequal}): their latencies have no ratio")
    meant = {(one.sweep.name, one.record.cell_id) for one in found}
    known = cells.read(list(dict.fromkeys(one.sweep for one in found)), ())
    refuse_mixing(replace(known, rows=[row for row in known.rows if (row.sweep, row.cell_id) in meant]), let)


def _alike(labels: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The labels of several cells, with the keys of all of them."""
    every = dict.fromkeys((key for one in labels for key in one), ABSENT)
    return [{**every, **one} for one in labels]


def _names(found: tuple[Found, Found]) -> tuple[str, str]:
    """What tells the cells apart; of two sweeps, what they are as well."""
    labels = _alike([one.record.labels for one in found])
    distinguishing = distinguishing_axes(labels)
    if found[0].sweep == found[1].sweep:
        before, after = (terminal.label(label, distinguishing) for label in labels)
    else:
        before, after = (
            f"{one.sweep.name}:  {terminal.label(label, list(dict.fromkeys([*AXES[:6], *distinguishing])))}"
            for one, label in zip(found, labels, strict=True)
        )
    return before, after


def _tables(found: Sequence[Found]) -> tuple[tuple[dict[str, list[object]], dict[str, list[object]]], str]:
    """Operators of both cells from the same source, and its name."""
    folders = [job_folder(one.sweep, one.record.cell_id, 0) for one in found]
    for folder, name in (("itt", "ITT"), ("profiler", "PyTorch's profiler")):
        before, after = (read_table(path / folder / "by_op.json") for path in folders)
        if before and after:
            return (before, after), name
    return ({}, {}), ""


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
    let = allowed(options.allow)
    before, after = (find(text, options.sweep, Path(options.mlruns)) for text in (options.before, options.after))
    found = before, after
    _check(found, (options.before, options.after), let)
    # The same cell of two sweeps is two cells here.
    records = [replace(one.record, cell_id=f"{one.sweep.name}:{one.record.cell_id}") for one in found]
    rows = {row.record.cell_id: row for row in rank(records, records[0].cell_id)}
    operators, by = _tables(found)
    folders = [job_folder(one.sweep, one.record.cell_id, 0) / "onednn" for one in found]
    primitives = read_table(folders[0] / "by_primitive.json"), read_table(folders[1] / "by_primitive.json")
    problems = by_shape(read_trace(folders[0] / "trace.csv")), by_shape(read_trace(folders[1] / "trace.csv"))
    pair = rows[records[0].cell_id], rows[records[1].cell_id]
    said = explain(_names(found), pair, operators, by, primitives, problems)
    if options.format == "json":
        print(json.dumps(said.as_data(), indent=1))
    else:
        show(said, options.top)
    return 0


def show(said: Explanation, top: int) -> None:
    """Draw the explanation in the terminal."""
    console = terminal.make_console()
    if said.warning:
        console.print(f"[bold red]{escape(said.warning)}[/bold red]")
    console.print(f"A  {said.before}\nB  {said.after}", markup=False)
    verdict = said.verdict
    ratio = f"{said.before_ms / said.after_ms:.2f}x"
    if verdict is not None and verdict.interval is not None:
        ratio += f" (95 % interval {verdict.interval.low:.2f}x to {verdict.interval.high:.2f}x, {said.answer})"
    else:
        ratio += " (one round: whether that is real is not known; rounds=5 tells)"
    console.print(
        f"p50 {said.before_ms:.4g} -> {said.after_ms:.4g} ms, {signed(said.change_ms)} ms: {ratio}\n", markup=False
    )
    if said.parts:
        table = _table("where the step's time went", "A ms", "B ms", "change ms", "what was counted")
        for part in said.parts:
            name = f"{part.name} (across the others)" if part.across else part.name
            numbers = (f"{part.before_ms:.4g}", f"{part.after_ms:.4g}", signed(part.ms))
            table.add_row(name, *numbers, escape(part.words or ""))
        console.print(table)
        console.print(f"left unexplained by what was counted: {signed(said.unexplained_ms or 0.0)} ms\n", markup=False)
    else:
        console.print(
            "no capture of both cells says where the time went: run them with capture=[onednn,itt]\n", markup=False
        )
    for title, rows in (
        (f"operator, own time (by {said.operators_by})", said.operators),
        ("oneDNN primitive", said.primitives),
    ):
        if rows:
            table = _table(title, "A ms", "B ms", "change ms")
            for row in rows[:top]:
                numbers = (f"{row.before_ms:.4g}", f"{row.after_ms:.4g}", signed(row.after_ms - row.before_ms))
                table.add_row(escape(row.name), *numbers)
            console.print(table)
    if said.shapes:
        table = _table("oneDNN primitive by shape", "A ms", "B ms", "change ms", "what computed it")
        for shape in said.shapes[:top]:
            change = signed(shape.after_ms - shape.before_ms)
            figures = f"{shape.before_ms:.4g}", f"{shape.after_ms:.4g}", change
            table.add_row(escape(shape.name), *figures, escape(shape.words))
        console.print(table)
    if said.figures:
        table = _table("figure", "A", "B")
        for name, before, after in said.figures:
            table.add_row(escape(name), count(before), count(after))
        console.print(table)


def _table(first: str, *numbers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    table.add_column(first)
    for name in numbers:
        table.add_column(name, justify="left" if name.startswith("what") else "right")
    return table
