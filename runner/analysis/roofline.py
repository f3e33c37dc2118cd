"""How far a cell is from what its cores can do at most, and which roof it is under.

The model is that of Williams, Waterman and Patterson (Roofline, CACM 52(4), 2009): an iteration can't be faster than
its operations at the peak of its arithmetic, nor than the bytes that it must move at the bandwidth of the memory.
Operations belong to the model and its inputs, and are counted once beside the fp32 reference. The bytes are the least
that any implementation moves: inputs, outputs and weights once, in the width of the precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runner.protocol.peaks import DTYPES, READ, Peaks
from runner.protocol.verdicts import UNOBSERVED, Word
from runner.results.cells import CellRow, Cells
from runner.results.metric_names import Metric
from runner.results.peaks import MEASURE, HostPeaks

# What others took of the cores, in percent of one.
_OTHERS = ("contamination/foreign_cpu_pct", "contamination/steal_pct")
# What is derived from peaks, in contrast to what a job counted.
DERIVED = (Metric.BYTES, Metric.GOP_PER_S, Metric.OF_REGISTERS, Metric.OF_GEMM, Metric.OF_MEMORY)
# All that is needed of a cell's figures to derive them and to say what they mean.
FIGURES = (
    Metric.FLOP,
    Metric.WITNESSED_FLOP,
    Metric.ELEMENTS,
    *DERIVED,
    Metric.KERNEL_TIME,
    Metric.MINOR_FAULTS,
    Metric.REORDER_TIME,
    Metric.CORES_BUSY,
    Metric.THREADS,
    *_OTHERS,
    *(f"onednn/dtype_{dtype}_pct" for dtype in ("float32", "bfloat16", "int8", "float16")),
)

# Arithmetic that a precision allows; with weights alone in fewer bits it is that of what they are unpacked to.
_ARITHMETIC = {"fp32": "fp32", "bf16": "bf16", "bf16_autocast": "bf16", "int8": "int8", "int8_dynamic": "int8"}
_OF_LOG = {"float32": "fp32", "bfloat16": "bf16", "int8": "int8"}
# A dtype with less of oneDNN's time than this is not what computes the model.
_LEAST_PCT = 10.0
# Bytes of a weight at least, by how the name of a precision begins.
_WIDTHS = {"int4": 0.5, "int8": 1.0, "bf16": 2.0, "fp16": 2.0, "fp32": 4.0}
# From this share of a roof a cell is under it: half of its time at least is explained by the roof.
_UNDER_PCT = 50.0
# From this share there is nothing left to win but fewer operations, or fewer bytes.
_NEAR_PCT = 85.0
# The clock differs by about as much between the peak's measurement and the cell's.
_TOLERANCE_PCT = 103.0
# The two witnesses of the operations may differ by as much.
_WITNESSES = 1.02
# A part of an iteration that takes this share of it is named where no roof explains its time.
_PART = 0.15
_FAULTS = 1000.0
_IDLE = 0.6


class Roof(Word):
    """What keeps a cell from being faster."""

    COMPUTE = "compute"
    MEMORY = "memory"
    NEITHER = "neither"
    """Neither roof explains half of its time: overhead, page faults, reorders."""
    MISCOUNTED = "miscounted"
    """It did more than the registers can: the operations are counted wrongly, or the peak is no peak."""


@dataclass(frozen=True)
class Position:
    """Where a cell stands below the roofs."""

    dtype: str
    """The arithmetic that it is measured against: fp32, bf16 or int8."""
    gop_per_s: float
    """Billions of operations per second, of all instances together."""
    of_registers_pct: float | None
    """Its share of what the registers can do; None where that was not measured."""
    of_gemm_pct: float | None
    """Its share of the best product of matrices by torch; None where that was not measured."""
    of_memory_pct: float | None
    """The share of the read bandwidth that the least of bytes takes; None where either is not known."""
    roof: Roof
    why: str
    """What takes the time where neither roof does; empty otherwise."""

    @property
    def share_pct(self) -> float:
        """Its share of the roof of its arithmetic: of the registers where that is known, else of the best product."""
        return self.of_registers_pct if self.of_registers_pct is not None else self.of_gemm_pct or 0.0

    @property
    def short(self) -> str:
        """A few words for a table: ``87 % of int8``."""
        if self.roof == Roof.MISCOUNTED:
            return f"ERROR {_pct(self.share_pct)} % of {self.dtype}"
        if self.roof == Roof.MEMORY:
            return f"{_pct(self.of_memory_pct)} % of memory"
        return f"{_pct(self.share_pct)} % of {self.dtype}"

    @property
    def sentence(self) -> str:
        """Where it stands, and whether there is more to win."""
        rate = f"{self.gop_per_s:.4g} GOP/s"
        peak = f"{_pct(self.share_pct)} % of the {self.dtype} peak"
        if self.of_registers_pct is not None and self.of_gemm_pct is not None:
            peak += f" ({_pct(self.of_gemm_pct)} % of torch's best product of matrices)"
        if self.roof == Roof.MISCOUNTED:
            return (
                f"{rate}, which would be {peak}, and nothing exceeds that: its operations are counted wrongly, it "
                f"computes less than the reference, or the peak was measured on a slower clock ({MEASURE} measures it "
                "again)"
            )
        if self.roof == Roof.MEMORY:
            near = ": nothing left to win but fewer bytes" if (self.of_memory_pct or 0.0) >= _NEAR_PCT else ""
            return f"{rate}, {peak}; what it must read takes {_pct(self.of_memory_pct)} % of the bandwidth{near}"
        if self.roof == Roof.COMPUTE:
            near = ": nothing left to win but fewer operations" if self.share_pct >= _NEAR_PCT else ""
            return f"{rate}, {peak}{near}"
        return f"{rate}, {peak}: neither arithmetic nor memory explains most of its time; {self.why} may"


def _pct(value: float | None) -> str:
    """A share in percent without decimals, or with two digits where it is small."""
    return "-" if value is None else f"{value:.0f}" if value >= 9.5 else f"{value:.2g}"


def arithmetic(cell: CellRow) -> str | None:
    """The arithmetic that computes a cell: the fastest of those that have a share of oneDNN's time, or that its
    precision allows; None where neither is known.

    The fastest, because the roof of a mixture lies below it and never above.
    """
    if cell.labels.get("fp32_math") == "bf16" and cell.labels.get("precision") == "fp32":
        return "bf16"
    logged = [
        _OF_LOG[name]
        for name in _OF_LOG
        if cell.metrics.get(f"onednn/dtype_{name}_pct", 0.0) >= _LEAST_PCT
        and cell.metrics.get(Metric.WITNESSED_FLOP, 0.0) >= 0.5 * cell.metrics.get(Metric.FLOP, 0.0)
    ]
    allowed = _ARITHMETIC.get(cell.labels.get("precision", ""))
    return max(logged, key=DTYPES.index) if logged else allowed


def figures(cell: CellRow, peaks: Peaks) -> dict[str, float]:
    """The figures of a cell that follow from the peaks of its cores; empty where its operations are not known."""
    dtype, flop, p50_ms = arithmetic(cell), cell.metrics.get(Metric.FLOP), cell.p50_ms
    if dtype is None or not flop or not p50_ms or not cell.is_right or cell.is_served:
        return {}
    instances = _instances(cell)
    per_s = 1e3 * flop * instances / p50_ms
    result: dict[str, float] = {Metric.GOP_PER_S: per_s / 1e9}
    for name, best in ((Metric.OF_REGISTERS, peaks.ceiling(dtype)), (Metric.OF_GEMM, peaks.gemm.get(dtype))):
        if best is not None:
            result[name] = 100 * per_s / best.per_s
    width = next((w for prefix, w in _WIDTHS.items() if cell.labels.get("precision", "").startswith(prefix)), None)
    elements, read = cell.metrics.get(Metric.ELEMENTS), peaks.memory.get(READ)
    if elements and width:
        result[Metric.BYTES] = elements * width
        if read is not None:
            result[Metric.OF_MEMORY] = 100 * 1e3 * elements * width * instances / p50_ms / read.per_s
    return result


def _instances(cell: CellRow) -> int:
    """The number of processes that run a cell's model at the same time."""
    number = cell.axes.get("instances", "")
    return int(number) if number.isdecimal() else 1


def position(cell: CellRow) -> Position | None:
    """Where a cell stands; None where its operations or the peaks of its cores are not known."""
    own, dtype = cell.metrics, arithmetic(cell)
    rate, registers, gemm = (own.get(name) for name in (Metric.GOP_PER_S, Metric.OF_REGISTERS, Metric.OF_GEMM))
    share = registers if registers is not None else gemm
    if rate is None or share is None or dtype is None:
        return None
    memory = own.get(Metric.OF_MEMORY)
    # Weights that stay in the caches are read faster than the memory gives them: its roof is not theirs.
    in_memory = memory if memory is not None and memory <= _TOLERANCE_PCT else 0.0
    roof, why = Roof.NEITHER, ""
    if registers is not None and registers > _TOLERANCE_PCT:
        roof = Roof.MISCOUNTED
    elif max(share, in_memory) >= _UNDER_PCT:
        roof = Roof.COMPUTE if share >= in_memory else Roof.MEMORY
    else:
        why = _what_else(own)
    return Position(dtype, rate, registers, gemm, memory, roof, why)


def _what_else(own: Mapping[str, float]) -> str:
    """What takes the time of a cell that is under no roof, by what was counted."""
    p50_ms = own.get(Metric.P50, 0.0)
    if sum(own.get(name, 0.0) for name in _OTHERS) >= 100 * _PART:
        return "the work of others"
    if own.get(Metric.KERNEL_TIME, 0.0) >= _PART * p50_ms:
        return "page faults" if own.get(Metric.MINOR_FAULTS, 0.0) >= _FAULTS else "the kernel"
    if own.get(Metric.REORDER_TIME, 0.0) >= _PART * p50_ms:
        return "reorders"
    if own.get(Metric.CORES_BUSY, 1e9) < _IDLE * own.get(Metric.THREADS, 0.0):
        return "idle cores"
    return "overhead"


def disagreement(cell: CellRow) -> str:
    """How the two witnesses of a cell's operations contradict each other, in one sentence; empty if they don't.

    oneDNN's log and the attention that the profiler saw may have less than the reference, because other libraries
    compute the rest, and never more.
    """
    flop, logged = cell.metrics.get(Metric.FLOP), cell.metrics.get(Metric.WITNESSED_FLOP)
    if not flop or logged is None or logged <= _WITNESSES * flop:
        return ""
    return (
        f"the witnesses of its operations disagree: {flop / 1e9:.4g} GFLOP in the fp32 reference, "
        f"{logged / 1e9:.4g} by oneDNN's log and the profiler"
    )


def short(cell: CellRow) -> str:
    """The cell's place in a table: see `Position.short`; ``unobserved`` where it was measured and is not known."""
    found = position(cell)
    return found.short if found else UNOBSERVED if cell.p50_ms is not None else "-"


def placed(cells: Cells, mlruns: Path) -> Cells:
    """The cells with the figures that follow from the peaks that are kept in a results folder.

    Where none are kept for a cell's host, torch build and cores, its figures stay as they were stored.
    """
    hosts = {origin.host_id: HostPeaks(mlruns, origin.host_id) for origin in cells.origins}
    host_of = {origin.sweep: hosts[origin.host_id] for origin in cells.origins}
    return replace(cells, rows=[with_peaks(row, host_of[row.sweep]) for row in cells.rows])


def with_peaks(cell: CellRow, host: HostPeaks) -> CellRow:
    """One cell with the figures that follow from its host's peaks."""
    threads = int(cell.metrics.get(Metric.THREADS, 0)) * _instances(cell)
    peaks = host.of(cell.torch, threads, cell.cpus)
    if peaks is None:
        return cell
    counted = {name: value for name, value in cell.metrics.items() if name not in DERIVED}
    return replace(cell, metrics={**counted, **figures(cell, peaks)})


def tip(cells: Sequence[CellRow]) -> str:
    """How to get the peaks, where a cell's operations are known and no cell has a position; empty otherwise."""
    waiting = [cell for cell in cells if Metric.FLOP in cell.metrics and cell.is_right and not cell.is_served]
    if not waiting or any(Metric.GOP_PER_S in cell.metrics for cell in cells):
        return ""
    return f"tip: how far the cells are from what this host can do is not known yet: {MEASURE} measures it once"
