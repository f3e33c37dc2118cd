"""``python -m runner list [WHAT]``: the sweeps with what won, the experiments, or the values of an axis."""

from __future__ import annotations

import argparse
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from runner.commands.options import add_format, add_mlruns, add_top, make_parser
from runner.config import choices, named_models
from runner.machine import installation
from runner.protocol.cell import ENTRIES
from runner.protocol.errors import RunnerError

SWEEPS, EXPERIMENTS, AXES = "sweeps", "experiments", "axes"
# The axes whose values are files, under the words that people use for them.
_GROUPS = {**{f"{axis}s": axis for axis, entry in ENTRIES.items() if entry.declaration.is_group}, "captures": "capture"}
_NAMED = ("models", "allocators", "captures")
_EPILOG = f"""WHAT is {", ".join((SWEEPS, EXPERIMENTS, AXES, *_NAMED))}, or the name of any axis.
A sweep's size is that of its folder; MLflow holds copies of a part of it. The speed-up is over the sweep's own
baseline."""


@dataclass(frozen=True)
class SweepLine:
    """A sweep in one line."""

    sweep: str
    date: str
    """When it was started, like ``2026-11-25 18:53``; empty if its name does not say."""
    measured: str
    """What its cells worked on, and the axes that distinguish them."""
    cells: int
    failed: int
    """How many of the cells failed."""
    state: str
    """``finished``, ``some failed``, ``interrupted``, ``running``, ``killed`` or ``damaged``; ``-`` if unknown."""
    fastest: str
    """The fastest cell with a right output; empty if there is none."""
    p50_ms: float | None
    speedup: float | None
    """The speed-up of the fastest over the baseline; None if it has none."""
    difference: str
    """What the rounds say about that speed-up."""
    size_mb: float


def main(arguments: list[str]) -> int:
    """Print the list; exit status 0."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.top < 1:
        raise RunnerError(f"--top {options.top}: it must be at least 1")
    if options.what == SWEEPS:
        _show_sweeps(Path(options.mlruns), options.top, options.format)
        return 0
    terms = list(_terms(options.what))
    if options.format == "json":
        print(json.dumps([{"name": name, "explanation": text} for name, text in terms], indent=1))
    elif options.format == "md":
        print("\n".join(f"- `{name}`: {text}" for name, text in terms))
    else:
        from runner.config import option_help

        print(option_help.paragraphs(terms))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("list", _EPILOG)
    parser.add_argument("what", metavar="WHAT", nargs="?", default=SWEEPS, help="list these (default: %(default)s)")
    add_format(parser)
    add_top(parser, 20)
    add_mlruns(parser)
    return parser


def _terms(what: str) -> Iterator[tuple[str, str]]:
    """(name, explanation) of everything of that kind.

    Raises:
        RunnerError: there is no such kind.
    """
    folders = installation.search_path()
    group = choices.GROUP if what in (EXPERIMENTS, choices.GROUP) else _GROUPS.get(what, what)
    entry = ENTRIES.get(group)
    if what == AXES:
        for key, each in ENTRIES.items():
            if each.declaration.role.value == "axis":
                yield key, each.declaration.help
    elif group in (choices.GROUP, "capture") or (entry and entry.declaration.is_group):
        for name, file in choices.files_of(group, folders).items():
            yield name, choices.comment(file)
        if group == named_models.GROUP:
            yield from named_models.FORMS.items()
    elif entry:
        values = f" One of {', '.join(entry.declaration.choices)}." if entry.declaration.choices else ""
        yield group, f"{entry.declaration.help}{values}"
    else:
        known = (SWEEPS, EXPERIMENTS, AXES, *_NAMED)
        from runner.commands.spelling import near

        raise RunnerError(f"list {what}: choose one of {', '.join(known)}, or the name of an axis{near(what, known)}")


def _show_sweeps(mlruns: Path, top: int, form: str) -> None:
    from runner.analysis import noise
    from runner.results import sweeps

    folders = sweeps.every(mlruns)[::-1]
    floors_of = functools.cache(functools.partial(noise.floors_of, mlruns))
    lines = [_line(folder, floors_of) for folder in folders[:top]]
    if form == "json":
        print(json.dumps([asdict(line) for line in lines], indent=1))
        return
    from runner.report import notes, tables, terminal

    left_out = notes.rows_left_out(folders, top)
    if form == "md":
        rows = [[tables.Value(text) for text in _texts(line)] for line in lines]
        print("\n".join([*tables.markdown_table(tables.Section("Sweeps", _HEADINGS, rows)), *left_out]))
        return
    console = terminal.make_console()
    for line in lines:
        name, date, measured, number, state, fastest, *figures, size = _texts(line)
        cells = "1 cell" if number == "1" else f"{number} cells"
        console.print(f"[bold]{name}[/bold]  {date}  {state}, {cells}, {size} MB")
        console.print(f"  {measured}", markup=False)
        if line.fastest:
            p50, speedup, difference = figures
            console.print(f"  fastest: {fastest}  {p50} ms  {speedup}  {difference}", markup=False)
    for note in (*left_out, "python -m runner show SWEEP shows one again; the beginning of its name is enough"):
        console.print(note, markup=False)


_HEADINGS = (
    *(("sweep", True), ("date", True), ("measured", True), ("cells", False), ("state", True), ("fastest", True)),
    *(("p50 ms", False), ("speed-up", False), ("difference", True), ("MB", False)),
)


def _texts(line: SweepLine) -> list[str]:
    from runner.analysis.wording import ratio

    failed = f" ({line.failed} failed)" if line.failed else ""
    p50 = "-" if line.p50_ms is None else f"{line.p50_ms:.4g}"
    speedup = "-" if line.speedup is None else ratio(line.speedup)
    return [
        *(line.sweep, line.date or "-", line.measured or "-", f"{line.cells}{failed}", line.state),
        *(line.fastest or "-", p50, speedup, line.difference or "-", f"{line.size_mb:.1f}"),
    ]


def _line(folder: Path, floors_of: Callable[[str], Mapping[int, float]]) -> SweepLine:
    """A sweep's line; what can't be read is missing in it, and the others are shown all the same."""
    from runner.analysis.comparison import FIGURES
    from runner.analysis.ranking import rank
    from runner.analysis.wording import aloud
    from runner.commands.selection import same_keys
    from runner.matrix.rules import distinguishing_axes
    from runner.report.answer import work
    from runner.results import cells

    state, size_mb = _state(folder), _size_mb(folder)
    try:
        stored = cells.read([folder], FIGURES)
        origin, baseline = stored.origins[0], next((row for row in stored.rows if row.is_baseline), None)
        rows = rank(stored.rows, baseline, origin.level, floors_of(origin.host_id) if len(stored.rows) > 1 else None)
    except RunnerError:
        return SweepLine(folder.name, _date(folder.name), "", 0, 0, "damaged", "", None, None, "", size_mb)
    labels = [row.labels for row in rows] or _planned(folder)
    distinguishing = distinguishing_axes(same_keys(labels))
    best = next((row for row in rows if row.is_right), None)
    what = work(rows) or ", ".join(sorted({each["model"] for each in labels if "model" in each}))
    return SweepLine(
        sweep=folder.name,
        date=_date(folder.name),
        measured=f"{what}: by {', '.join(distinguishing)}" if distinguishing else what,
        cells=max(len(labels), len(_planned(folder))),
        failed=sum(row.cell.status == "FAILED" for row in rows),
        state=state,
        fastest=aloud(best, distinguishing or ("model",)) if best else "",
        p50_ms=best.p50_ms if best else None,
        speedup=best.speedup if best else None,
        difference="baseline" if best and best.is_baseline else best.answer if best else "",
        size_mb=size_mb,
    )


def _planned(folder: Path) -> list[Mapping[str, str]]:
    """The labels of the cells that a sweep wrote down before its first job."""
    from runner.results import ledger

    return [{**entry.axes, **entry.settings} for entry in ledger.read_cells(folder)]


def _state(folder: Path) -> str:
    """How the sweep ended, or that it runs."""
    from runner.protocol.verdicts import Status
    from runner.results import ledger
    from runner.sweep.resume import is_elsewhere, is_running

    if is_running(folder):
        return "running"
    end = ledger.read_end(folder)
    if end is None:
        try:
            entry = ledger.read_sweep(folder)
        except RunnerError:
            return "-"
        return f"not ended on {entry.hostname or entry.host_id}" if is_elsewhere(entry) else "killed"
    return {Status.FINISHED: "finished", Status.FAILED: "some failed", Status.KILLED: "interrupted"}[end.status]


def _date(name: str) -> str:
    """When a sweep of that name was started; empty if the name does not say."""
    try:
        return datetime.strptime(name[:15], "%Y%m%d-%H%M%S").strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return ""


def _size_mb(folder: Path) -> float:
    """The size of a folder's files, which may vanish while they are counted."""
    size = 0
    for path, _, files in os.walk(folder):
        for name in files:
            try:
                size += (Path(path) / name).lstat().st_size
            except OSError:
                continue
    return size / 1e6
