"""``python -m runner explain A B``: why is B faster than A? What was captured of both cells, lined up."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.markup import escape

from runner.analysis import noise, roofline
from runner.analysis.cause import count, signed
from runner.analysis.comparability import refuse_mixing
from runner.analysis.disturbance import why_not_shown
from runner.analysis.explanation import Explanation, explain
from runner.analysis.ranking import Row, rank, unequal_work
from runner.analysis.verdict import ONE_ROUND
from runner.analysis.wording import interval_of
from runner.capture.collect import STREAMS
from runner.capture.kernel_tables import Problem, by_shape
from runner.capture.tables import read_table, read_trace
from runner.commands.options import add_allow, add_format, add_mlruns, add_top, allowed, make_parser
from runner.commands.selection import BASELINE, FASTEST, SweepCell, find, same_keys
from runner.commands.selection import measured as measured_cells
from runner.matrix.rules import distinguishing_axes
from runner.protocol.cell import MAIN_AXES
from runner.protocol.errors import RunnerError
from runner.protocol.graph import Graph
from runner.report import escaping, tables, terminal
from runner.report.answer import measured
from runner.results import cells, circumstances
from runner.results.cells import LEVEL
from runner.results.circumstances import Circumstances

_EPILOG = """CELLs are of the newest sweep, or of --sweep: an id or its beginning, axes that one cell alone has
(allocator=jemalloc,ipex=on) or their values (jemalloc), or fastest, slowest, baseline. What axes or values leave open
is as in the baseline. SWEEP:CELL takes a cell of another sweep, which may be the same cell: 20260101:fastest, by the
sweep's name or its beginning. Sweeps whose hosts, versions or settings differ are refused."""
_NO_CAPTURE = "no capture of both cells says where the time went: run them with capture=[onednn,itt]"

# Below this share of an iteration the names are not of most of its work.
_MOSTLY_NAMED_PCT = 90
_NAME_KERNELS = "Kernels that torch.compile generated have names with capture=[profiler,inductor]."


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


def _names(pair: tuple[SweepCell, SweepCell]) -> tuple[str, str]:
    """The names of the cells: their distinguishing axes, and with two sweeps also the sweeps and the main axes."""
    labels = same_keys([side.cell.labels for side in pair])
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


# Capture of the operators -> (table in its folder, its name, the figure that says how much it names), the best last.
_SOURCES = {
    "profiler": ("by_op.json", "PyTorch's profiler", "profiler/named_pct"),
    "itt": ("by_op.json", "ITT", "itt/named_pct"),
    "inductor": ("by_kernel.json", "inductor's kernel profile", "inductor/named_pct"),
}


def _operators(pair: Sequence[SweepCell]) -> tuple[tuple[dict[str, list[object]], dict[str, list[object]]], str, str]:
    """The operators of both cells, the name of their source, and how much of an iteration they are, as a sentence.

    The source is one for both cells, but for a cell with kernels of inductor's beside one without: PyTorch's profiler
    has the same operators as inductor's kernel profile, which is one of its own.
    """
    of_cells = [_sources(side) for side in pair]
    by_profiler = [next((name for name in ("inductor", "profiler") if name in found), "") for found in of_cells]
    common = [capture for capture in _SOURCES if all(capture in found for found in of_cells)]
    if all(by_profiler) and "inductor" in by_profiler:
        chosen = by_profiler
    elif common:
        chosen = [common[-1]] * 2
    else:
        return ({}, {}), "", ""
    before, after = (found[capture] for found, capture in zip(of_cells, chosen, strict=True))
    names = [_SOURCES[capture][1] for capture in chosen]
    source = names[0] if names[0] == names[1] else f"{names[0]} in A, {names[1]} in B"
    figures = [(side.cell.metrics, _SOURCES[capture][2]) for side, capture in zip(pair, chosen, strict=True)]
    shares = [metrics[figure] for metrics, figure in figures if figure in metrics]
    if len(shares) < len(figures):  # of a version that did not count it
        return (before, after), source, ""
    named = "Operators and kernels with a name take {:.0f} % of A's iteration, {:.0f} % of B's.".format(*shares)
    has_kernels = any(Graph(side.cell.axes.get("graph", "")).is_inductor for side in pair)
    if min(shares) < _MOSTLY_NAMED_PCT and has_kernels and "inductor" not in chosen:
        named = f"{named} {_NAME_KERNELS}"
    return (before, after), source, named


def _sources(side: SweepCell) -> dict[str, dict[str, list[object]]]:
    """Capture -> table of operators, of those that may be shown; the best last."""
    tables_of = {
        capture: read_table(side.captures / capture / file)
        for capture, (file, *_) in _SOURCES.items()
        if not why_not_shown(side.cell, capture)
    }
    return {capture: table for capture, table in tables_of.items() if table}


def _disturbed(pair: Sequence[SweepCell]) -> list[str]:
    """Which captures are not shown because others disturbed them, and how that was seen."""
    names = {capture: name for capture, (_, name, _) in _SOURCES.items()}
    names |= {"onednn": "oneDNN's log", "callers": "what called oneDNN"}
    return [
        f"disturbed, not shown: {name} of {letter} ({why})"
        for capture, name in names.items()
        for letter, side in zip("AB", pair, strict=True)
        if (why := why_not_shown(side.cell, capture))
    ]


def _ranked(before: SweepCell, after: SweepCell, mlruns: Path) -> tuple[Row, Row]:
    """Both cells, with what the rounds say about them; in one sweep by all its cells, as its own ranking does."""
    level, floors = LEVEL, None
    read = {sweep: roofline.placed(cells.read([sweep]), mlruns) for sweep in {before.sweep, after.sweep}}
    baseline, other = (
        next(row for row in read[side.sweep].rows if row.cell_id == side.cell.cell_id) for side in (before, after)
    )
    table = [baseline, other]
    if before.sweep == after.sweep:
        origin = read[before.sweep].origins[0]
        level, floors = origin.level, noise.floors_of(mlruns, origin.host_id)
        table = [row for row in read[before.sweep].rows if row.p50_ms is not None]
    rows = {id(row.cell): row for row in rank(table, baseline, level, floors)}
    return rows[id(baseline)], rows[id(other)]


def _explain(pair: tuple[SweepCell, SweepCell], mlruns: Path) -> Explanation:
    """The explanation, from what was captured of both cells."""
    before, after = pair
    operators, source, named = _operators(pair)
    folders = [side.captures / "onednn" for side in pair]
    primitives = read_table(folders[0] / "by_primitive.json"), read_table(folders[1] / "by_primitive.json")
    callers = read_table(folders[0] / "by_operator.json"), read_table(folders[1] / "by_operator.json")
    problems = _shapes(before), _shapes(after)
    if any(why_not_shown(side.cell, "onednn") for side in pair):
        primitives, problems = ({}, {}), ([], [])
    if any(why_not_shown(side.cell, "callers") for side in pair):
        callers = {}, {}
    ranked = _ranked(before, after, mlruns)
    explanation = explain(_names(pair), ranked, operators, source, primitives, problems, callers)
    left_open = dict.fromkeys(text for side in pair for text in side.as_baseline.split(", ") if text)
    where = circumstances.read(before.sweep) if before.sweep == after.sweep else Circumstances()
    disturbed, as_baseline = tuple(_disturbed(pair)), ", ".join(left_open)
    return replace(
        explanation, disturbed=disturbed, as_baseline=as_baseline, named=named, measured=measured(ranked, where)
    )


def _shapes(side: SweepCell) -> list[Problem]:
    """A cell's primitives of oneDNN by shape."""
    return by_shape(read_trace(side.captures / "onednn" / "trace.csv"), int(side.cell.metrics.get(STREAMS, 1)))


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("explain", _EPILOG)
    parser.add_argument(
        "cells",
        metavar="CELL",
        nargs="*",
        help="from this cell to that one: baseline, fastest, slowest, axes, their values, or ids "
        "(default: baseline fastest; a single one is set against the baseline)",
    )
    parser.add_argument(
        "--sweep", metavar="SWEEP", help="take both cells from this sweep (default: the newest with results)"
    )
    add_allow(parser)
    add_format(parser)
    add_top(parser, 10)
    add_mlruns(parser)
    return parser


def main(arguments: list[str]) -> int:
    """Print the explanation; exit status 0."""
    options = _parser().parse_args(arguments)
    if options.top < 1:
        raise RunnerError(f"--top {options.top}: it must be at least 1")
    allow = allowed(options.allow)
    if len(options.cells) > 2:
        raise RunnerError(f"explain {' '.join(options.cells)}: name two cells, as in explain baseline fastest")
    texts = (["baseline", "fastest"], ["baseline", *options.cells], options.cells)[len(options.cells)]
    before, after = (find(text, options.sweep, Path(options.mlruns)) for text in texts)
    runner_up = _runner_up(before) if tuple(texts) == (BASELINE, FASTEST) and before.cell == after.cell else None
    after = runner_up or after
    _check((before, after), (texts[0], texts[1]), allow)
    explanation = _explain((before, after), Path(options.mlruns))
    if runner_up:
        explanation = replace(explanation, after=f"{explanation.after}  (the next: the baseline is the fastest)")
    if options.format == "json":
        print(json.dumps(explanation.as_data(), indent=1))
    elif options.format == "md":
        print(_markdown(explanation, options.top))
    else:
        show(explanation, options.top)
    return 0


def _runner_up(fastest: SweepCell) -> SweepCell | None:
    """The cell that comes next in a sweep whose baseline is the fastest; None if there is no other."""
    others = [row for row in measured_cells(fastest.sweep) if row.is_right and row.cell_id != fastest.cell.cell_id]
    return SweepCell(fastest.sweep, others[0]) if others else None


def show(explanation: Explanation, top: int) -> None:
    """Draw the explanation in the terminal."""
    console = terminal.make_console()
    if explanation.warning:
        console.print(f"[bold red]{escape(explanation.warning)}[/bold red]")
    for line in (*_cells(explanation), _summary(explanation)):
        console.print(line, markup=False)
    console.print()
    for section in _sections(explanation, top):
        terminal.print_folded(console, tables.drawn(section, is_tight=True, is_folding=True))
        console.print()
        for note in section.notes:
            console.print(f"{note}\n", markup=False)
    for line in (*_without(explanation), *explanation.limits):
        console.print(f"{line}\n", markup=False)
    console.print(f"[bold]{escape(explanation.conclusion)}[/bold]")


def _markdown(explanation: Explanation, top: int) -> str:
    lines = [f"**{escaping.markdown(explanation.warning)}**", ""] if explanation.warning else []
    lines += [f"- {escaping.markdown(line)}" for line in (*_cells(explanation), _summary(explanation))]
    lines += ["", f"**{escaping.markdown(explanation.conclusion)}**"]
    for section in _sections(explanation, top):
        lines += ["", *tables.markdown_table(section)]
        lines += ["", *(escaping.markdown(note) for note in section.notes)] if section.notes else []
    for line in (*_without(explanation), *explanation.limits):
        lines += ["", escaping.markdown(line)]
    return "\n".join(lines)


def _without(explanation: Explanation) -> list[str]:
    """What is not shown, and why."""
    return [*explanation.disturbed, *([] if explanation.parts or explanation.disturbed else [_NO_CAPTURE])]


def _cells(explanation: Explanation) -> list[str]:
    """What was measured, which cells A and B are, and what the words that named them left open."""
    left_open = f"as in the baseline: {explanation.as_baseline}" if explanation.as_baseline else ""
    lines = (explanation.measured, f"A  {explanation.before}", f"B  {explanation.after}", left_open)
    return [line for line in lines if line]


def _summary(explanation: Explanation) -> str:
    """The speed-up and how certain it is, in one line."""
    verdict = explanation.verdict
    if verdict is not None and verdict.interval is not None:
        certainty = f"{interval_of(verdict.interval)}, {explanation.answer}"
    else:
        certainty = ONE_ROUND
    times = f"{explanation.before_ms:.4g} -> {explanation.after_ms:.4g} ms, {signed(explanation.change_ms)} ms"
    return f"p50 {times}: {explanation.before_ms / explanation.after_ms:.2f}x ({certainty})"


def _sections(explanation: Explanation, top: int) -> list[tables.Section]:
    """The parts of an iteration, then at most ``top`` rows each of operators, primitives, shapes; all figures."""
    sections = []
    rows: list[tuple[str, ...]]
    if explanation.parts:
        rows = [
            (
                f"{part.name} (across the others)" if part.across else part.name,
                *_change(part.before_ms, part.after_ms),
                part.words or "",
            )
            for part in explanation.parts
        ]
        rest = f"left unexplained by what was counted: {signed(explanation.unexplained_ms or 0.0)} ms"
        sections.append(_section("where the time of an iteration went", (*_MS, "what was counted"), rows, rest))
    has_kernels = any(row.made_of for row in explanation.operators)
    for title, changes, note in (
        (
            f"operator{' or kernel' if has_kernels else ''}, own time (by {explanation.operators_by})",
            explanation.operators,
            explanation.named,
        ),
        ("oneDNN primitive", explanation.primitives, ""),
        ("operator, time of oneDNN's primitives in it", explanation.callers, ""),
    ):
        if changes:
            is_made = any(row.made_of for row in changes[:top])
            rows = [
                (row.name, *_change(row.before_ms, row.after_ms), *((row.made_of,) if is_made else ()))
                for row in changes[:top]
            ]
            headings = (*_MS, "what it computes") if is_made else _MS
            sections.append(_section(title, headings, rows, *filter(None, (note,))))
    if explanation.shapes:
        rows = [(row.name, *_change(row.before_ms, row.after_ms), row.words) for row in explanation.shapes[:top]]
        sections.append(_section("oneDNN primitive by shape", (*_MS, "what computed it"), rows))
    if explanation.figures:
        rows = [(name, count(before), count(after)) for name, before, after in explanation.figures]
        sections.append(_section("figure", ("A", "B"), rows))
    return sections


_MS = ("A ms", "B ms", "change ms")


def _change(before_ms: float, after_ms: float) -> tuple[str, str, str]:
    return f"{before_ms:.4g}", f"{after_ms:.4g}", signed(after_ms - before_ms)


def _section(first: str, others: Sequence[str], rows: Sequence[Sequence[str]], *notes: str) -> tables.Section:
    headings = [(first, True), *((name, name.startswith("what")) for name in others)]
    return tables.Section(first, headings, [[tables.Value(text) for text in row] for row in rows], notes)
