"""How long do the files of a sweep take, once its last job has ended?

This benchmark leaves the outcomes of 100 and of 1 000 cells with five processes of 1 000 latencies each in a sweep's
folder, and times what the end of a sweep does with them in this process: reading, ranking, all files and pictures, and
the closing table. Claims, in CPU time: 4 s for 100 cells, 30 s for 1 000. Run it with
`python -m benchmarks.report [--quick]`, which leaves the 1 000 cells out; the exit status is 1 if a claim fails.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
from rich.console import Console

from runner.analysis.ranking import rank_sweep
from runner.protocol.cell import AXES
from runner.protocol.resultfile import WorkerResult
from runner.protocol.stored import write_json
from runner.protocol.verdicts import EvidenceVerdict, Status
from runner.report import sweep_end
from runner.results.outcome import OUTCOME_FILE, RESULT_FILE, Outcome, job_folder, read_cell

LIMITS_S = {100: 4.0, 1000: 30.0}
ROUNDS, LATENCIES = 5, 1000
QUICK_CELLS = 100


def store(sweep: Path, cells: int, latencies: int = LATENCIES) -> list[str]:
    """Leave the files of cells whose processes differ by 1 %, and so do their iterations; returns their ids."""
    rng = np.random.default_rng(0)
    work = {"model": "resnet50", "batch_size": "32", "instances": "1", "scenario": "inference"}
    fixed = dict.fromkeys(AXES, "-") | work
    names = [f"c{number:04}" for number in range(cells)]
    for number, name in enumerate(names):
        axes = {**fixed, "allocator": f"a{number // 2}", "ipex": ("off", "on")[number % 2]}
        for turn in range(ROUNDS):
            folder = job_folder(sweep, name, turn)
            folder.mkdir(parents=True)
            median_s = 0.01 * (1 + number / cells) * np.exp(rng.normal(0, 0.01))
            latencies_s = (median_s * np.exp(rng.normal(0, 0.01, latencies))).tolist()
            outcome = Outcome(name, turn, axes, Status.FINISHED, evidence=EvidenceVerdict.OK, quality="ok")
            write_json(folder / RESULT_FILE, WorkerResult(name, turn, latencies_s), is_flushed=False)
            write_json(folder / OUTCOME_FILE, outcome, is_flushed=False)
    return names


def end(sweep: Path, names: list[str]) -> list[str]:
    """Do what the end of a sweep does; returns what could not be written."""
    records = [record for name in names if (record := read_cell(sweep, name)) is not None]
    ranking = rank_sweep(records, names[0], ("allocator", "ipex"), sweep=sweep.name)
    failed = sweep_end.leave(ranking, sweep, "report")
    sweep_end.show(Console(file=io.StringIO(), width=120), ranking, failed, sweep, sweep.parent.parent, {})
    return failed


def main(arguments: list[str]) -> int:
    """Time both sizes; exit status 0 if the claims hold."""
    parser = argparse.ArgumentParser(prog="benchmarks.report", description="How long do the files of a sweep take?")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_CELLS} cells only")
    options = parser.parse_args(arguments)
    is_held = True
    for cells, limit_s in LIMITS_S.items():
        if options.quick and cells > QUICK_CELLS:
            continue
        with TemporaryDirectory() as folder:
            sweep = Path(folder) / "sweeps" / "s"
            names = store(sweep, cells)
            begun = process_time()
            failed = end(sweep, names)
            took_s = process_time() - begun
        is_held = is_held and took_s <= limit_s and not failed
        print(f"{cells} cells x {ROUNDS} rounds x {LATENCIES} latencies: {took_s:.1f} s of CPU (claim: {limit_s:g} s)")
    return 0 if is_held else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
