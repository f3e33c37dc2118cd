"""``python -m runner show [SWEEP|CELL]``: a sweep's ranking again, or one cell with all that is known of it."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runner.analysis import noise, roofline
from runner.analysis.ranking import Ranking, Row, rank
from runner.analysis.wording import interval_between
from runner.commands import selection
from runner.commands.options import add_format, add_mlruns, make_parser
from runner.matrix.rules import distinguishing_axes
from runner.protocol import stored
from runner.protocol.cell import MAIN_AXES
from runner.protocol.errors import FormatError, RunnerError
from runner.report import data, escaping, notes, sweep_end, tables, terminal
from runner.report.answer import answer
from runner.report.columns import Place
from runner.results import cells, circumstances, ledger, sweeps
from runner.results.command_lines import resume_line
from runner.results.outcome import CellRecord, attempt_folders, captures_folder, job_folder, read_cell

_EPILOG = """WHAT is a sweep's name or its beginning (default: the newest with results), or a cell: an id or its
beginning, axes (allocator=jemalloc,ipex=on), their values, fastest, slowest or baseline. A cell is one of the newest
sweep; SWEEP:CELL is one of another."""
_ID = re.compile(r"[0-9a-f]{4,12}")


def main(arguments: list[str]) -> int:
    """Print the sweep or the cell; exit status 0."""
    parser = make_parser("show", _EPILOG)
    parser.add_argument("what", metavar="WHAT", nargs="?", help="show this sweep, or this cell")
    add_format(parser)
    parser.add_argument("--wide", action="store_true", help="show every column of the ranking, however wide it gets")
    add_mlruns(parser)
    options = parser.parse_args(arguments)
    mlruns = Path(options.mlruns)
    folder, selector = _meant(options.what, mlruns)
    ranking = _ranking(folder, mlruns)
    if selector is None:
        _show_sweep(folder, ranking, options)
    else:
        rows = [row.cell for row in ranking.rows]
        chosen = selection.choose(selector, folder, rows, options.what)
        row = next(row for row in ranking.rows if row.cell.cell_id == chosen.cell.cell_id)
        record = read_cell(folder, row.cell.cell_id)
        if record is None:
            raise RunnerError(f"{options.what}: the files of this cell are gone; only its row in the ranking is left")
        _show_cell(folder, row, record, options.format)
    return 0


def _meant(what: str | None, mlruns: Path) -> tuple[Path, str | None]:
    """The folder of the sweep that is meant, and the selector of the cell if one is meant.

    Raises:
        RunnerError: there is no such sweep, and no cell of that name.
    """
    if what is None:
        return sweeps.find(None, mlruns), None
    name, colon, selector = what.rpartition(":")
    if colon:
        return sweeps.find(name, mlruns), selector
    every = sweeps.every(mlruns)
    if any(path.name.startswith(what) for path in every):
        return sweeps.find(what, mlruns), None
    if _ID.fullmatch(what):
        for sweep in reversed(every):
            if any((sweep / "cells").glob(f"{what}*")):
                return sweep, what
    try:
        folder = sweeps.find(None, mlruns)
        selection.choose(what, folder, cells.read([folder], ()).rows, what)
    except RunnerError as error:
        if "=" in what or what in selection.PLACES or "several" in str(error):
            raise
        raise RunnerError(f"{what}: there is no such sweep or cell; python -m runner list names the sweeps") from error
    return folder, what


def _ranking(folder: Path, mlruns: Path) -> Ranking:
    """The sweep's cells, ranked as at its end.

    Raises:
        RunnerError: no job of it has ended, or a file can't be read.
    """
    table = roofline.placed(cells.read([folder]), mlruns)
    origin, baseline = table.origins[0], next((row for row in table.rows if row.is_baseline), None)
    if not table.rows:
        raise RunnerError(f"{folder.name}: no job of it has ended; to go on with it: {resume_line(folder)}")
    try:
        distinguishing = ledger.read_sweep(folder).distinguishing_axes
    except RunnerError:
        distinguishing = distinguishing_axes(selection.same_keys([row.labels for row in table.rows])) or MAIN_AXES
    rows = rank(table.rows, baseline, origin.level, noise.floors_of(mlruns, origin.host_id))
    return Ranking(rows, distinguishing, _records(folder, [row.cell_id for row in table.rows]))


def _records(folder: Path, cell_ids: Sequence[str]) -> dict[str, CellRecord]:
    """The records of cells, for the notes on single iterations; without those that this version can't read."""
    records = {}
    for cell_id in cell_ids:
        with contextlib.suppress(FormatError, OSError):
            record = read_cell(folder, cell_id)
            if record is not None:
                records[cell_id] = record
    return records


def _show_sweep(folder: Path, ranking: Ranking, options: argparse.Namespace) -> None:
    rows, distinguishing = ranking.rows, ranking.distinguishing
    where = circumstances.read(folder, list(ranking.records.values()))
    said = answer(rows, distinguishing, where)
    if options.format == "json":
        found = {
            "sweep": folder.name,
            **_started(folder),
            "answer": asdict(said),
            "cells": [data.cell(row, number) for number, row in enumerate(rows, 1)],
            "files": _files(folder),
        }
        print(json.dumps(found, indent=1, allow_nan=False))
    elif options.format == "md":
        lines = [said.markdown, ""]
        lines += tables.markdown_table(tables.ranking(rows, distinguishing, Place.COMPARE))
        lines += ["", *(f"- {escaping.markdown(note)}" for note in notes.below(rows, distinguishing, ranking.records))]
        print("\n".join(lines))
    else:
        mlruns = folder.resolve().parent.parent
        sweep_end.show(terminal.make_console(), ranking, [], folder.resolve(), mlruns, {}, options.wide, where)


def _started(folder: Path) -> dict[str, Any]:
    try:
        entry = ledger.read_sweep(folder)
    except RunnerError:
        return {}
    return {"command": entry.command, "host_id": entry.host_id, "commit": entry.commit}


def _files(folder: Path) -> list[str]:
    """The files in a folder itself, in the order of their names."""
    return [str(path) for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]


def _show_cell(folder: Path, row: Row, record: CellRecord, form: str) -> None:
    found = _of_cell(folder, row, record)
    if form == "json":
        print(json.dumps(found, indent=1, default=str))
        return
    if form == "md":
        for title, lines in _parts(found):
            print("\n".join([f"**{title}**", "", *(f"- {escaping.markdown(line)}" for line in lines), ""]))
        return
    console = terminal.make_console()
    for title, lines in _parts(found):
        console.print(f"[bold]{title}[/bold]")
        for line in lines:
            console.print(f"  {line}", markup=False, soft_wrap=True)


def _of_cell(folder: Path, row: Row, record: CellRecord) -> dict[str, Any]:
    """All that is known of a cell, as plain data."""
    number = record.outcomes[0].round
    job = job_folder(folder, record.cell_id, number)
    evidence = next((result.evidence for result in record.results.values()), None)
    return {
        "sweep": folder.name,
        "result": data.cell(row, 1),
        "axes": dict(record.axes),
        "settings": dict(record.outcomes[0].settings),
        "notes": list(record.notes),
        "captures": dict(record.captures),
        "evidence": asdict(evidence) if evidence is not None else None,
        "command": _command(folder, record.cell_id),
        "launch": _launch(job),
        "files": [str(job), *map(str, attempt_folders(job)), str(captures_folder(folder, record.cell_id))],
    }


def _command(folder: Path, cell_id: str) -> str:
    try:
        return ledger.read_cell(folder, cell_id).command
    except RunnerError:
        return ""


@dataclass(frozen=True)
class _Launch:
    """The entries of launch.json that are shown; a served cell's and an old one's may lack them."""

    argv: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    scrubbed: Mapping[str, str] = field(default_factory=dict)


def _launch(job: Path) -> dict[str, Any]:
    """How the timing pass was started."""
    file = job / "launch.json"
    try:
        return asdict(stored.part(_Launch, file)) if file.exists() else {}
    except FormatError:
        return {}


def _parts(found: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """(title, lines) of all that is known of a cell."""
    result, launched = found["result"], found["launch"]
    yield (
        f"cell {result['cell_id']} of sweep {found['sweep']}",
        [f"{k}={v}" for k, v in found["axes"].items() if v != "-"],
    )
    yield "result", _result(result)
    notes = [f"{name}: {text}" for name, text in found["captures"].items()]
    yield "checks", [f"evidence: {result['evidence']}", f"output: {result['output']}", *found["notes"]]
    if found["evidence"] is not None:
        yield "what ran, as the worker read it back", list(_evidence(found["evidence"]))
    if notes:
        yield "captures", notes
    yield "to run it again", [found["command"] or "unknown: its cell.json is missing"]
    if launched:
        yield "how it was started", [shlex.join(launched["argv"])]
        yield "its environment", [f"{name}={value}" for name, value in launched["env"].items()]
        if launched["scrubbed"]:
            yield "left out of your environment", list(launched["scrubbed"])
    yield "files", found["files"]


def _result(result: Mapping[str, Any]) -> list[str]:
    if result["failure"]:
        return [f"{result['status']}: {result['failure']}"]
    if result["p50_ms"] is None:
        return [result["status"]]
    lines = [f"p50 {result['p50_ms']:.4g} ms in {terminal.plural(result['rounds'], 'round')}"]
    if result["is_baseline"]:
        lines.append("it is the baseline")
    elif result["speedup"] is not None:
        ends = result["speedup_low"], result["speedup_high"]
        interval = f", {interval_between(*ends)}" if None not in ends else ""
        lines.append(f"{result['speedup']:.2f}x the baseline{interval}: {result['difference']}")
        lines.append(f"main cause: {result['main_cause']}")
    figures = {
        "samples_per_s": "samples/s",
        "faults_per_iteration": "page faults per iteration",
        "rss_peak_mb": "MB of memory at most",
        "rel_l2": "relative error of the output",
    }
    return lines + [f"{result[key]:.4g} {words}" for key, words in figures.items() if result[key] is not None]


def _evidence(evidence: Mapping[str, Any]) -> Iterator[str]:
    """The evidence in lines; what could not be observed is left out here, and is null in JSON."""
    versions, affinity, openmp = (evidence[name] for name in ("versions", "affinity", "openmp"))
    yield f"torch {versions['torch']}, Python {versions['python']}, {versions['cpu_capability']}"
    yield f"malloc is that of {evidence['allocator']['malloc'] or 'an unknown library'}"
    yield f"OpenMP is that of {openmp['owner'] or 'an unknown library'}, {openmp['torch_threads']} threads"
    ipex = evidence["ipex"]
    replaced = f"IPEX {ipex['version']}, which replaced {terminal.plural(ipex['modules_replaced'], 'module')}"
    yield replaced if ipex["imported"] else "IPEX was not imported"
    yield f"graph {evidence['graph']['kind']}, {evidence['grad_mode']}"
    for name in ("inputs", "weights", "outputs"):
        dtypes = ", ".join(f"{count} of {dtype}" for dtype, count in evidence["tensors"][name]["dtypes"].items())
        formats = ", ".join(evidence["tensors"][name]["memory_formats"])
        yield f"{name}: {dtypes}{f', {formats}' if formats else ''}"
    allowed = {*affinity["allowed"], *(cpu for thread in affinity["threads"] for cpu in thread["cpus"] or ())}
    cpus = ", ".join(map(str, sorted(allowed)))
    yield ", memory ".join(filter(None, (f"cores {cpus}", affinity["memory_policy"])))
