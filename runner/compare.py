"""``python -m runner compare [SWEEP ...]``: which cell is best, what each axis does, and what is a trade."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from rich.markup import escape

from runner.cells import FILE, Cells, read
from runner.errors import RunnerError
from runner.matrix import AXES, check_rule
from runner.noise import Noise, in_words, newest
from runner.report import comparison_formats as formats
from runner.report import terminal
from runner.report.comparison import FIGURES, Comparison, compare
from runner.report.mixing import HOST, SETTINGS, VERSIONS, differences

_EPILOG = """SWEEP is a sweep's name or the beginning of one, or all; none means the newest. Cells of other work (model,
batch size, ...) are ranked in groups of their own. csv has the rankings, a line a cell; json has everything."""
KINDS = (HOST, VERSIONS, SETTINGS)


def main(arguments: list[str]) -> int:
    """Print the comparison; exit status 0."""
    options = _parser().parse_args(arguments)
    if options.top < 1:
        raise RunnerError(f"--top {options.top}: it must be at least 1")
    if options.best_under is not None and not 0 <= options.best_under < math.inf:
        raise RunnerError(f"--best-under {options.best_under}: an error is a finite number of at least 0")
    baseline = _axes(options.baseline)
    by = _words(options.by, AXES, "--by", "an axis; the axes are")
    cells = read(sweeps(options.sweeps, Path(options.mlruns)), FIGURES)
    if not cells.rows:
        raise RunnerError(f"no cell of {', '.join(o.sweep for o in cells.origins)} has ended; name another sweep")
    refuse_mixing(cells, allowed(options.allow))
    noise, notes = _noise(cells, Path(options.mlruns))
    found = compare(cells, baseline, by, options.best_under, noise)
    if options.format == "json":
        print(json.dumps(formats.as_data(found), indent=1, allow_nan=False))
    elif options.format == "csv":
        sys.stdout.write(formats.as_csv(found))
    elif options.format == "md":
        print(formats.markdown(found, options.top, notes))
    else:
        _show(found, options.top, notes)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m runner compare", description=__doc__, epilog=_EPILOG)
    parser.add_argument("sweeps", metavar="SWEEP", nargs="*")
    parser.add_argument("--baseline", metavar="AXIS=VALUE,...", help="what speed-ups are over (default: the sweep's)")
    parser.add_argument("--by", metavar="AXIS,...", help="rank each value of these axes apart")
    parser.add_argument("--best-under", metavar="X", type=float, help="name the fastest cell with max_abs_err <= X")
    add_allow(parser)
    parser.add_argument("--format", choices=("table", "md", "csv", "json"), default="table")
    parser.add_argument("--top", metavar="N", type=int, default=20, help="rows of each table (default: %(default)s)")
    parser.add_argument("--mlruns", default="mlruns", help="folder with the results (default: %(default)s)")
    return parser


def add_allow(parser: argparse.ArgumentParser) -> None:
    """The option that says what may differ, see `allowed`."""
    parser.add_argument("--allow", metavar="KIND,...", help=f"compare although these differ: {', '.join(KINDS)}")


def allowed(text: str | None) -> list[str]:
    """The kinds of differences that ``--allow`` lets through.

    Raises:
        RunnerError: one is unknown.
    """
    return _words(text, KINDS, "--allow", "something that may differ; choose of")


def _axes(text: str | None) -> Mapping[str, Sequence[str]]:
    """``allocator=ptmalloc,ipex=off`` as axis -> values.

    Raises:
        RunnerError: not of that form, or one is not an axis.
    """
    if text is None:
        return {}
    pairs = [word.partition("=") for word in text.split(",")]
    if not all(name and equals and value for name, equals, value in pairs):
        raise RunnerError(f"--baseline {text}: it must be axis=value,..., like allocator=ptmalloc,ipex=off")
    return check_rule({name: value for name, _, value in pairs}, "--baseline")


def _words(text: str | None, known: Sequence[str], option: str, wanted: str) -> list[str]:
    words = text.split(",") if text else []
    for word in words:
        if word not in known:
            raise RunnerError(f"{option} {text}: {word!r} is not {wanted} {', '.join(known)}")
    return words


def sweeps(names: Sequence[str], mlruns: Path) -> list[Path]:
    """The folders that are meant, each once; the newest where none is named.

    Raises:
        RunnerError: there is no sweep, or a name means none or several.
    """
    there = _there(mlruns)
    if not names:
        return there[-1:]
    return list(dict.fromkeys(path for name in names for path in (there if name == "all" else [_named(name, there)])))


def sweep(name: str | None, mlruns: Path) -> Path:
    """The sweep that a name or its beginning means; the newest without a name.

    Raises:
        RunnerError: there is no sweep, or the name means none or several.
    """
    there = _there(mlruns)
    return there[-1] if name is None else _named(name, there)


def _there(mlruns: Path) -> list[Path]:
    """Folders of sweeps, oldest first; a link that leads out of the store is none."""
    try:
        store = (mlruns / "sweeps").resolve()
        there = sorted(
            path
            for path in (mlruns / "sweeps").glob("*")
            if path.resolve().parent == store and ((path / FILE).exists() or (path / "cells").is_dir())
        )
    except (OSError, RuntimeError) as error:  # resolve() raises the latter for links in a circle
        raise RunnerError(f"--mlruns={mlruns}: it can't be read ({error})") from error
    if not there:
        raise RunnerError(f"--mlruns={mlruns}: there is no sweep in it; run one first (make sweep)")
    return there


def _named(name: str, there: Sequence[Path]) -> Path:
    exact = [path for path in there if path.name == name]
    meant = exact or [path for path in there if path.name.startswith(name)]
    if len(meant) != 1:
        problem = "means several sweeps" if meant else "is no sweep"
        some = ", ".join(path.name for path in (meant or there)[-5:])
        raise RunnerError(f"{name}: {problem} of {there[0].parent}; choose one of {some}")
    return meant[0]


def refuse_mixing(cells: Cells, let: Sequence[str]) -> None:
    """Let only sweeps through whose times differ by the axes alone, or by differences of the kinds ``let`` through.

    Raises:
        RunnerError: names every difference, and what allows it.
    """
    found = [difference for difference in differences(cells) if difference.kind not in let]
    if found:
        kinds = list(dict.fromkeys([*let, *(difference.kind for difference in found)]))
        raise RunnerError(
            f"the sweeps differ in more than their axes: {'; '.join(difference.text for difference in found)}. "
            f"Compare them one by one, or say --allow {','.join(kinds)}"
        )


def _noise(cells: Cells, mlruns: Path) -> tuple[Noise | None, list[str]]:
    """What equal cells look like on the host of these cells, and what is to be said of it."""
    if len(cells.rows) < 2:
        return None, []
    hosts = {origin.host_id for origin in cells.origins}
    if len(hosts) > 1:
        return None, ["the cells are of several hosts: no noise floor holds for all of them"]
    noise, passed_over = newest(mlruns, hosts.pop())
    rounds = max(len(row.medians_s) for row in cells.rows)
    return noise, [in_words(noise, rounds, datetime.now(timezone.utc)), *passed_over]


def _show(found: Comparison, top: int, notes: Sequence[str]) -> None:
    console = terminal.make_console()
    if found.warning:
        console.print(f"[bold red]{escape(found.warning)}[/bold red]\n")
    for section in formats.sections(found, top):
        console.print(f"[bold]{escape(section.title)}[/bold]", highlight=False)
        console.print(formats.table(section))
        for note in section.notes:
            console.print(note, markup=False)
        console.print()
    for note in notes:
        console.print(note, markup=False)
