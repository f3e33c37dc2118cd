"""How long does it take to compare many cells?

This benchmark writes 100, 1 000 and 10 000 cells of 5 rounds as the cells.parquet of a sweep, and times
`python -m runner compare` on them, in this process and as a command. Claim: 10 000 cells take at most 5 s. Run it with
`python -m benchmarks.compare [--quick]`; the exit status is 1 if the claim fails.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from benchmarks.harness import timed
from runner.analysis.cells import CellRow, Origin, save
from runner.commands import compare
from runner.matrix.cell import AXES

LIMIT_S = 5.0
ROUNDS = 5
# Six axes, which make 10 800 cells.
LEVELS = {
    "allocator": ("ptmalloc", "ptmalloc_tuned", "jemalloc", "jemalloc_benchmark", "tcmalloc"),
    "ipex": ("off", "on"),
    "memory_format": ("channels_first", "channels_last"),
    "precision": ("fp32", "bf16", "int8"),
    "graph": ("eager", "torchscript", "compile"),
    "threads": tuple(str(number) for number in range(1, 61)),
}
# A sweep with all captures has this many further figures, which are in the file and must not take time.
FURTHER = 90


def make_cells(count: int, rng: np.random.Generator) -> list[CellRow]:
    """Make ``count`` cells: tcmalloc halves the latency, IPEX takes a third off, and both together take a fifth more
    off."""
    rows: list[CellRow] = []
    fixed = dict.fromkeys(AXES, "x") | {"model": "resnet50", "batch_size": "32", "instances": "1"}
    for values in itertools.islice(itertools.product(*reversed(LEVELS.values())), count):
        axes = dict(zip(reversed(LEVELS), values, strict=True))
        fast, ipex = axes["allocator"] == "tcmalloc", axes["ipex"] == "on"
        seconds = 0.1 * (0.5 if fast else 1) * (2 / 3 if ipex else 1) * (0.8 if fast and ipex else 1)
        medians = seconds * np.exp(rng.normal(0, 0.01, ROUNDS))
        p50 = float(np.median(medians))
        figures = {
            "latency/p50_ms": 1e3 * p50,
            "latency/cv_pct": 2.0,
            "throughput/samples_per_s": 32 / p50,
            "memory/rss_peak_mb": float(rng.uniform(800, 2000)),
            "quality/rel_l2": float(rng.choice([0, 5e-7, 3e-3, 2e-2])),
            "quality/max_abs_err": float(rng.choice([0, 5e-4, 1e-2])),
            **{f"onednn/figure_{number}": float(number) for number in range(FURTHER)},
        }
        rows.append(
            CellRow(
                "", f"{len(rows):012x}", "FINISHED", "", "ok", "ok", "avx512", "-", not rows,
                fixed | axes, {"warmup": "3", "iterations": "20", "seed": "0"}, figures, tuple(medians.tolist()),
            )
        )  # fmt: skip
    return rows


def write_sweep(count: int, mlruns: Path) -> None:
    """Write a sweep of ``count`` cells below ``mlruns``."""
    folder = mlruns / "sweeps" / f"{count:08d}"
    folder.mkdir(parents=True)
    save(make_cells(count, np.random.default_rng(0)), Origin(folder.name, "here", {}, {"torch": "2.8.0"}), folder)


def main() -> int:
    """Time the comparisons, print the figures, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="no more than 1 000 cells")
    options = parser.parse_args()
    slowest_s = 0.0
    print(f"{'cells':>6}  {'file, MB':>8}  {'in this process, s':>18}  {'as a command, s':>15}")
    with TemporaryDirectory(prefix="runner-bench-") as name:
        mlruns = Path(name)
        for count in (100, 1_000) if options.quick else (100, 1_000, 10_000):
            write_sweep(count, mlruns)
            size_mb = (mlruns / "sweeps" / f"{count:08d}" / "cells.parquet").stat().st_size / 1e6
            arguments = [f"{count:08d}", "--mlruns", name]
            started = perf_counter()
            with contextlib.redirect_stdout(io.StringIO()):
                compare.main(arguments)
            inside_s = perf_counter() - started
            outside_s = timed([sys.executable, "-m", "runner", "compare", *arguments]).wall_s
            print(f"{count:6d}  {size_mb:8.2f}  {inside_s:18.3f}  {outside_s:15.3f}")
            slowest_s = max(inside_s, outside_s)
    return int(slowest_s > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
