"""``python -m runner peak``: what this host can do at most, which is the roof that cells are measured against."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich import box
from rich.table import Table

from runner import launch
from runner.commands.options import add_mlruns, make_parser
from runner.job import peak
from runner.machine import lock, torch_builds
from runner.machine.capabilities import this_machine
from runner.machine.host import format_cpu_list
from runner.protocol.cell import BUNDLED, Torch
from runner.protocol.peaks import DTYPES, Best, Peaks
from runner.report import terminal
from runner.results import peaks as kept

_EPILOG = """It is measured once per host, torch build and number of cores, in a minute, and kept in mlruns/peaks.
Every ranking after it, also of sweeps that were measured before, says how far each cell is from it. On a machine where
others are at work it is not kept."""


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("peak", _EPILOG)
    parser.add_argument(
        "--torch",
        metavar="NAME",
        default=BUNDLED,
        help="measure with this torch build, as in torch=NAME, or with this interpreter (default: %(default)s)",
    )
    parser.add_argument(
        "--cores", metavar="N", type=int, help="measure this many cores, as in cores=N (default: all of the node)"
    )
    parser.add_argument("--node", metavar="N", type=int, help="measure this NUMA node, as in node=N")
    parser.add_argument(
        "--quick", action="store_true", help="measure for a few seconds only, for a first look, and keep nothing"
    )
    add_mlruns(parser)
    return parser


def main(arguments: list[str]) -> int:
    """Measure, print and keep the peaks; exit status 0, or 1 if they were disturbed and not kept."""
    options = _parser().parse_args(arguments)
    mlruns = Path(options.mlruns)
    torch = Torch("own", options.torch) if "/" in options.torch else Torch(options.torch)
    torch_builds.require(torch, _say)
    build = torch_builds.build_of(torch)
    placement = launch.place_cores(this_machine(), options.node, options.cores)
    with lock.measuring("peak", mlruns, True, _say):
        _say(f"measuring cores {placement.core_list} with torch {build.torch}: nobody else should be at work")
        measured = peak.measure(build, placement, options.quick)
    _show(measured)
    for note in measured.notes:
        _say(f"note: {note}")
    problem = kept.problem(measured)
    if problem:
        _say(f"not kept, because {problem}; measure again when the machine is quiet: {kept.MEASURE}")
        return 1
    if options.quick:
        _say(f"not kept: these are no peaks after so short a time; {kept.MEASURE} measures them")
        return 0
    before = kept.HostPeaks(mlruns, measured.host_id).of(measured.torch, len(measured.cores), measured.cores)
    if before is not None:
        _say(f"arithmetic within {100 * kept.repeatability(before, measured):.2g} % of that of {before.date}")
    _say(f"kept in {kept.save(measured, mlruns)}: rankings say from now on how far each cell is from it")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _show(measured: Peaks) -> None:
    console = terminal.make_console()
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for heading in ("arithmetic", "registers GOP/s", "by", "best product GOP/s", "by"):
        table.add_column(heading, justify="right" if heading.endswith("/s") else "left")
    for dtype in DTYPES:
        table.add_row(dtype, *_figure(measured.ceiling(dtype)), *_figure(measured.gemm.get(dtype)))
    terminal.print_folded(console, table)
    for name, best in measured.memory.items():
        _say(f"memory, {name}: {best.per_s / 1e9:.3g} GB/s ({best.by})")
    _say(f"cores {format_cpu_list(tuple(measured.cores))}, torch {measured.torch}\n")


def _figure(best: Best | None) -> tuple[str, str]:
    return ("-", "") if best is None else (f"{best.per_s / 1e9:.4g}", best.by)
