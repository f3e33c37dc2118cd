"""What many tests need of a sweep without running one: outcomes, records, cells and rankings.

A test says what it varies; everything else is a right, finished cell of the tiny model under ptmalloc.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from runner.analysis.ranking import Labels, Ranking, rank_sweep
from runner.capture.tables import write_table
from runner.protocol.cell import AXES
from runner.protocol.peaks import COPY, MATRIX_VECTOR, READ, Best, Peaks
from runner.protocol.resultfile import Surroundings, Window, WorkerResult
from runner.protocol.stored import write_json
from runner.protocol.verdicts import EvidenceVerdict, Status
from runner.results.cells import LEVEL, CellRow, Origin, save
from runner.results.outcome import OUTCOME_FILE, RESULT_FILE, CellRecord, Outcome, job_folder
from tests.conftest import CELL

# Of a process with five iterations, each over their median.
SPREAD = (0.98, 0.99, 1, 1.01, 1.02)


def axes(**change: str) -> dict[str, str]:
    """The axes of a cell; those without a value of their own are ``x``."""
    base: dict[str, str] = dict.fromkeys(AXES, "x") | {
        "scenario": "inference",
        "load": "-",
        "host": "-",
        "model": "tiny",
        "torch": "bundled",
        "allocator": "ptmalloc",
        "ipex": "off",
        "batch_size": "4",
        "instances": "1",
    }
    return base | change


def window(latencies_s: Sequence[float], runner_cpu_s: float = 0.0) -> Window:
    """A timed window with 10 faults per iteration."""
    n = len(latencies_s)
    return Window(sum(latencies_s), 10 * n, 0, 2 * n, n, 1.0, 0.5, 5_000_000, runner_cpu_s, None)


def record(
    name: str,
    *rounds_s: Sequence[float],
    failure: str | None = None,
    quality: str = "ok",
    isa: str = "avx512",
    figures: Mapping[str, float] | None = None,
    settings: Mapping[str, str] | None = None,
    runner_cpu_s: float = 0.0,
    **change: str,
) -> CellRecord:
    """A cell whose rounds had these latencies; failed, in one round, where there is a failure.

    Args:
        name: its cell_id, and its allocator unless ``change`` names another.
        change: axes.
    """
    values = axes(**{"allocator": name, **change})
    outcomes = [
        Outcome(
            name,
            number,
            values,
            Status.FAILED if failure else Status.FINISHED,
            failure,
            EvidenceVerdict.MISMATCH if failure else EvidenceVerdict.OK,
            quality=quality,
            isa=isa,
            figures={"quality/rel_l2": 3e-7, **(figures or {})},
            settings=settings or {},
            cost_s={"job": 2.0},
        )
        for number in range(max(len(rounds_s), 1))
    ]
    results = {
        (number, 0): WorkerResult(name, number, list(latencies_s), window(latencies_s, runner_cpu_s))
        for number, latencies_s in enumerate(rounds_s)
        if latencies_s
    }
    return CellRecord(name, values, outcomes, results)


def record_of_medians(name: str, *medians_s: float) -> CellRecord:
    """A cell with one round per median, five iterations each."""
    return record(name, *([median_s * factor for factor in SPREAD] for median_s in medians_s))


def noisy_record(
    allocator: str,
    *medians_ms: float,
    ipex: str = "off",
    model: str = "tiny",
    quality: str = "ok",
    failure: str | None = None,
    n: int = 5,
) -> CellRecord:
    """A cell with one round per median, each of ``n`` iterations that differ by 1 %; failed when it has a failure."""
    noise = np.random.default_rng(0)
    rounds = [(1e-3 * ms * (1 + 0.01 * noise.standard_normal(n))).tolist() for ms in medians_ms]
    name = f"{allocator}-{ipex}-{model}"
    return record(name, *rounds, failure=failure, quality=quality, allocator=allocator, ipex=ipex, model=model)


def contaminated(cell: CellRecord, *rounds: int, attempts: int = 1) -> CellRecord:
    """The cell with those rounds contaminated."""
    why = ["other processes took 48 % of a core"]
    outcomes = [
        replace(outcome, contamination=why, attempts=attempts) if outcome.round in rounds else outcome
        for outcome in cell.outcomes
    ]
    return replace(cell, outcomes=outcomes)


def ranked(
    records: Sequence[CellRecord],
    baseline_id: str,
    distinguishing: Sequence[str] = ("allocator",),
    level: float = LEVEL,
    floors: Mapping[int, float] | None = None,
) -> Ranking:
    """The ranking of a sweep of these cells."""
    return rank_sweep(records, baseline_id, distinguishing, level, floors, "s")


def cell(p50_ms: float = 10.0, isa: str = "avx512", axes_: Labels | None = None, **metrics: float) -> CellRow:
    """A right cell of one round; its metrics by their names without slashes: see ``METRICS``."""
    figures = {METRICS[key]: value for key, value in metrics.items()} | {"latency/p50_ms": p50_ms}
    return CellRow(
        "s", "x", "FINISHED", "", "ok", "ok", isa, False, axes_ or axes(), {}, figures, (p50_ms / 1e3,), jobs=1
    )  # fmt: skip


# Short name -> metric.
METRICS = {
    "compute": "onednn/compute_ms_per_iteration",
    "reorder": "onednn/reorder_ms_per_iteration",
    "other": "onednn/other_ms_per_iteration",
    "reorders": "onednn/reorders_per_iteration",
    "fused": "onednn/fused_per_iteration",
    "primitives": "onednn/primitives_per_iteration",
    "faults": "faults/minor_per_iteration",
    "kernel": "cpu/kernel_ms_per_iteration",
}


def compared_cell(number: int, seconds: float, rounds: int = 5, seed: int = 0, **change: str) -> CellRow:
    """A right cell as cells.parquet has it, whose rounds differ by half a percent; number 0 is the baseline.

    Args:
        change: axes, over those of CELL.
    """
    logs = np.random.default_rng((seed, number)).normal(0, 0.005, rounds)
    medians = tuple((seconds * np.exp(logs)).tolist())
    p50 = float(np.median(medians))
    figures = {
        "latency/p50_ms": 1e3 * p50,
        "throughput/samples_per_s": 2 / p50,
        "memory/rss_peak_mb": 500.0,
        "quality/rel_l2": 1e-7,
        "quality/max_abs_err": 1e-6,
    }
    return CellRow(
        "", f"{number:012x}", "FINISHED", "", "ok", "ok", "avx512", number == 0,
        {**CELL.axes, **change}, CELL.settings, figures, medians, jobs=rounds,
    )  # fmt: skip


# What oneDNN's log of a step comes to: 10 ms of arithmetic and 8 ms in three reorders.
ONEDNN_FIGURES = {
    "onednn/compute_ms_per_iteration": 10.0,
    "onednn/reorder_ms_per_iteration": 8.0,
    "onednn/other_ms_per_iteration": 0.0,
    "onednn/reorders_per_iteration": 3.0,
}
NO_REORDERS = {"onednn/reorder_ms_per_iteration": 0.0, "onednn/reorders_per_iteration": 0.0}


def store_cell(
    sweep: Path,
    name: str,
    ms: float,
    figures: Mapping[str, float],
    settings: Mapping[str, str] | None = None,
    **change: str,
) -> None:
    """Leave the files of a finished cell of one round in a sweep's folder.

    Args:
        figures: of its captures.
        change: axes.
    """
    made = record(name, [ms / 1e3] * 5, figures=figures, settings=settings)
    folder = job_folder(sweep, name, 0)
    folder.mkdir(parents=True)
    write_json(folder / RESULT_FILE, made.results[0, 0])
    write_json(folder / OUTCOME_FILE, replace(made.outcomes[0], axes=axes(allocator=name, **change)))
    write_table(folder / "itt" / "by_op.json", {"operator": ["aten::conv2d"], "self ms per iteration": [ms - 2]})


def store_compared(mlruns: Path, name: str, cells: Sequence[CellRow], origin: Origin) -> None:
    """Leave a sweep that has a cells.parquet only."""
    folder = mlruns / "sweeps" / name
    folder.mkdir(parents=True)
    save(cells, origin, folder)


# What two cores of a Zen 4 did at most: registers and products in operations, memory in bytes per second.
PEAKS = Peaks(
    torch="2.8.0+cu128",
    cores=[0, 1],
    is_quick=False,
    registers={"fp32": Best(235e9, "avx512"), "bf16": Best(470e9, "avx512_bf16"), "int8": Best(939e9, "avx512_vnni")},
    gemm={
        "fp32": Best(200e9, "mm 4096"),
        "bf16": Best(440e9, "mm 2048"),
        "int8": Best(887e9, "onednn.qlinear_pointwise 4096"),
    },
    memory={READ: Best(25e9, "1074 MB"), COPY: Best(22e9, "1074 MB"), MATRIX_VECTOR: Best(20e9, "linear 4096")},
    window=Window(
        20.0, 1000, 0, 10, 10, 30.0, 0.5, 5_000_000, 0.0, None,
        Surroundings([0, 1], 0.02, 30.6, 0.0, {}, None, None, None, None, None, None, None),
    ),
    host_id="h",
    date="2026-11-26T00:00:00+00:00",
)  # fmt: skip
