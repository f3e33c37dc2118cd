"""``python -m runner compare [SWEEP ...]``: which cell is best, what each axis does, and what is a trade."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from rich.markup import escape

from runner.analysis import across_builds, roofline
from runner.analysis import hosts as hosts_against
from runner.analysis.comparability import refuse_mixing
from runner.analysis.comparison import FIGURES, Comparison, compare, legend
from runner.analysis.hosts import Host
from runner.analysis.noise import Noise, in_words, newest
from runner.commands.options import add_allow, add_format, add_mlruns, add_top, allowed, make_parser, words
from runner.matrix.rules import check_rule
from runner.protocol.cell import ABSENT, AXES
from runner.protocol.errors import RunnerError
from runner.report import data, escaping, fitting, sweep_end, tables, terminal
from runner.report import hosts as hosts_tables
from runner.report.answer import Answer, answer
from runner.report.columns import COLUMNS, Place
from runner.results import circumstances, planfile
from runner.results.cells import LEVEL, Cells, read
from runner.results.circumstances import Circumstances
from runner.results.sweeps import find_all

_EPILOG = """Cells that do different work (model, batch size, ...) are ranked in separate groups.
csv has the rankings, one line per cell; json has everything."""


def main(arguments: list[str]) -> int:
    """Print the comparison; exit status 0."""
    options = _parser().parse_args(arguments)
    if options.top < 1:
        raise RunnerError(f"--top {options.top}: it must be at least 1")
    if options.p99_under is not None and not 0 < options.p99_under < math.inf:
        raise RunnerError(f"--p99-under {options.p99_under}: a latency is a finite number above 0, in milliseconds")
    if options.best_under is not None and not 0 <= options.best_under < math.inf:
        raise RunnerError(f"--best-under {options.best_under}: an error is a finite number of at least 0")
    baseline = _axes(options.baseline)
    by = words(options.by, AXES, "--by", "an axis; the axes are")
    folders = find_all(options.sweeps, Path(options.mlruns))
    cells = roofline.placed(read(folders, FIGURES), Path(options.mlruns))
    if not cells.rows:
        raise RunnerError(f"no cell of {', '.join(o.sweep for o in cells.origins)} has ended; name another sweep")
    refuse_mixing(cells, allowed(options.allow))
    hosts = _hosts(cells, folders)
    if options.p99_under is not None and not hosts:
        raise RunnerError(f"--p99-under {options.p99_under:g}: it chooses among hosts, and these sweeps are of one")
    noise, notes = _noise(cells, Path(options.mlruns))
    comparison = compare(cells, baseline, by, options.best_under, noise, hosts, options.p99_under)
    rows = [row for group in comparison.groups for row in group.rows]
    floors = comparison.noise.floors if comparison.noise else None
    notes = [*legend(cells), *across_builds.lines(rows, LEVEL, floors), *notes]
    notes += filter(None, [roofline.tip(cells.rows)])
    answers = _answers(comparison, folders)
    if options.format == "json":
        found = {"answers": [asdict(said) for said in answers], **data.as_data(comparison)}
        if comparison.hosts:
            found["across_hosts"] = hosts_tables.as_data(comparison.hosts)
        print(json.dumps(found, indent=1, allow_nan=False))
    elif options.format == "csv":
        sys.stdout.write(data.comparison_csv(comparison))
    elif options.format == "md":
        print(
            "\n\n".join(
                [
                    *_across(comparison),
                    *(said.markdown for said in answers),
                    tables.markdown(comparison, options.top, notes),
                ]
            )
        )
    else:
        _show(comparison, answers, options.top, notes, options.wide)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("compare", f"{_EPILOG}\n\nThe columns of a ranking:\n{_explanations()}")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "sweeps",
        metavar="SWEEP",
        nargs="*",
        help="compare this sweep: its name, the beginning of it, or all (default: the newest with results)",
    )
    parser.add_argument(
        "--baseline", metavar="AXIS=VALUE,...", help="let speed-ups refer to this cell (default: the sweep's own)"
    )
    parser.add_argument("--by", metavar="AXIS,...", help="rank the cells of each value of these axes by themselves")
    parser.add_argument(
        "--best-under", metavar="X", type=float, help="also name the fastest cell whose max_abs_err is at most X"
    )
    parser.add_argument(
        "--p99-under",
        metavar="MS",
        type=float,
        help="for sweeps of several hosts: also name the cheapest cell whose p99 is at most this many milliseconds",
    )
    add_allow(parser)
    add_format(parser, "csv")
    parser.add_argument("--wide", action="store_true", help="show every column of a ranking, however wide it gets")
    add_top(parser, 20)
    add_mlruns(parser)
    return parser


def _explanations() -> str:
    """What each column of the ranking means, one sentence each."""
    shown = [column for column in COLUMNS if Place.COMPARE in column.places]
    width = max(len(column.heading) for column in shown)
    return "\n".join(
        textwrap.fill(
            f"{column.heading:{width}}  {column.explanation}",
            width=100,
            initial_indent="  ",
            subsequent_indent=" " * (width + 4),
        )
        for column in shown
    )


def _axes(text: str | None) -> Mapping[str, Sequence[str]]:
    """``allocator=ptmalloc,ipex=off`` as axis -> values.

    Raises:
        RunnerError: the text is not of that form, or a name is not an axis.
    """
    if text is None:
        return {}
    pairs = [word.partition("=") for word in text.split(",")]
    if not all(name and equals and value for name, equals, value in pairs):
        raise RunnerError(f"--baseline {text}: it must be axis=value,..., like allocator=ptmalloc,ipex=off")
    return check_rule({name: value for name, _, value in pairs}, "--baseline")


def _noise(cells: Cells, mlruns: Path) -> tuple[dict[str, Noise], list[str]]:
    """Host id -> noise floor of the hosts of these cells, where it is known, and the notes about them."""
    if len(cells.rows) < 2:
        return {}, []
    rounds = max(len(row.medians_s) for row in cells.rows)
    known, notes = dict[str, Noise](), list[str]()
    host_of_sweep = {origin.sweep: origin.host_id for origin in cells.origins}
    name_of = {host_of_sweep[row.sweep]: row.axes.get(hosts_against.AXIS, ABSENT) for row in cells.rows}
    if len(name_of) > 1 and not hosts_against.names_of(cells):
        return {}, ["the cells are of several hosts: no noise floor holds for all of them"]
    for host_id, name in name_of.items():
        noise, passed_over = newest(mlruns, host_id)
        if noise is not None:
            known[host_id] = noise
        said = in_words(noise, rounds, datetime.now(timezone.utc))
        notes += [*([said] if len(name_of) == 1 else [f"{name}: {said}"] if noise else []), *passed_over]
    return known, notes


def _hosts(cells: Cells, folders: Sequence[Path]) -> list[Host]:
    """The hosts that the cells name, with what follows from each; empty for one host."""
    folder_of = {folder.name: folder for folder in folders}
    price_of = {origin.sweep: origin.usd_per_hour for origin in cells.origins}
    hosts = []
    for name, sweeps in hosts_against.names_of(cells).items():
        first = folder_of[sweeps[0]]
        where, host = circumstances.read(first), planfile.read_host(first)
        facts = {
            "cpu": where.cpu,
            "cores": str(where.cores or ABSENT),
            "memory": f"{host.memory_gib} GiB" if host.memory_gib else "",
            "kernel": host.kernel,
            "libc": host.libc,
            "governor": host.governor,
        }
        known = {key: value for key, value in facts.items() if value}
        prices = {price_of[sweep] for sweep in sweeps}
        hosts.append(Host(name, sweeps, where.cores, prices.pop() if len(prices) == 1 else None, known))
    return hosts


def _answers(comparison: Comparison, folders: Sequence[Path]) -> list[Answer]:
    """The answer of each group, with the circumstances where all is of one sweep."""
    where = circumstances.read(folders[0]) if len(folders) == 1 else Circumstances()
    return [
        answer(group.rows, [key for key in comparison.distinguishing if key not in group.name] or ["model"], where)
        for group in comparison.groups
    ]


def _across(comparison: Comparison) -> list[str]:
    """The hosts set against each other, as Markdown; empty for one host."""
    if comparison.hosts is None:
        return []
    section = hosts_tables.section(comparison.hosts, len(comparison.hosts.cells))
    said = " ".join(filter(None, (comparison.warning, *hosts_against.sentences(comparison.hosts))))
    notes = [f"- {escaping.markdown(note)}" for note in section.notes]
    return [escaping.markdown(said), f"## {section.title}", "\n".join(tables.markdown_table(section)), "\n".join(notes)]


def _show(comparison: Comparison, answers: Sequence[Answer], top: int, notes: Sequence[str], is_wide: bool) -> None:
    console = terminal.make_console()
    sections = tables.sections(comparison, top) if is_wide else fitting.sections(comparison, top, console.width)
    if comparison.hosts:
        for sentence in filter(None, (comparison.warning, *hosts_against.sentences(comparison.hosts))):
            console.print(sentence, markup=False)
        console.print()
        make = hosts_tables.section if is_wide else hosts_tables.narrow_section
        section = make(comparison.hosts, top)
        console.print(f"[bold]{escape(section.title)}[/bold]", highlight=False)
        terminal.print_folded(console, tables.drawn(section, is_tight=True, is_folding=True))
        for note in section.notes:
            console.print(note, markup=False)
        console.print()
    # The rankings come first, one per group; each is headed by its answer.
    for section, said in itertools.zip_longest(sections, answers):
        if said is not None:
            sweep_end.show_answer(console, said)
        console.print(f"[bold]{escape(section.title)}[/bold]", highlight=False)
        if is_wide:
            terminal.print_whole(console, tables.drawn(section))
        else:
            terminal.print_folded(console, tables.drawn(section, is_tight=True, is_folding=True))
        for note in section.notes:
            console.print(note, markup=False)
        console.print()
    for note in notes:
        console.print(note, markup=False)
