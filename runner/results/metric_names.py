"""The names that figures and tags have in MLflow, in cells.parquet and in every table: those that several files use."""

from __future__ import annotations

from runner.protocol.verdicts import Word


class Metric(Word):
    """A figure of one cell; the unit is in the name."""

    P50 = "latency/p50_ms"
    P90 = "latency/p90_ms"
    P99 = "latency/p99_ms"
    CV = "latency/cv_pct"
    SPEEDUP = "latency/speedup"
    BETWEEN_PROCESSES = "latency/between_processes_pct"
    PROCESS_CI95 = "latency/process_ci95_pct"
    ITERATIONS = "latency/iterations"
    PROCESSES = "latency/processes"
    SAMPLES_PER_S = "throughput/samples_per_s"
    USD_PER_MILLION = "price/usd_per_million_samples"
    ENERGY = "energy/joules_per_sample"
    RSS_PEAK = "memory/rss_peak_mb"
    MINOR_FAULTS = "faults/minor_per_iteration"
    MAJOR_FAULTS = "faults/major_per_iteration"
    VOLUNTARY_SWITCHES = "cpu/voluntary_switches_per_iteration"
    INVOLUNTARY_SWITCHES = "cpu/involuntary_switches_per_iteration"
    CORES_BUSY = "cpu/cores_busy"
    THREADS = "cpu/threads"
    KERNEL_TIME = "cpu/kernel_ms_per_iteration"
    RELATIVE_ERROR = "quality/rel_l2"
    LARGEST_ERROR = "quality/max_abs_err"
    COMPILE_TIME = "cost/compile_s"
    RUNNER_CPU = "selfaudit/runner_cpu_pct"
    CONTAMINATED_ROUNDS = "contamination/rounds"
    ONEDNN_COVERAGE = "onednn/coverage_pct"
    PRIMITIVES = "onednn/primitives_per_iteration"
    COMPUTE_TIME = "onednn/compute_ms_per_iteration"
    REORDER_TIME = "onednn/reorder_ms_per_iteration"
    OTHER_PRIMITIVES_TIME = "onednn/other_ms_per_iteration"
    REORDERS = "onednn/reorders_per_iteration"
    ACTIVATION_REORDERS = "onednn/activation_reorders_per_iteration"
    WEIGHT_REORDERS = "onednn/weight_reorders_per_iteration"
    REORDER_SIZE = "onednn/reorder_mb_per_iteration"
    FUSED = "onednn/fused_per_iteration"
    PRIMITIVE_CACHE_MISSES = "onednn/cache_misses_per_iteration"


class Tag(Word):
    """A tag of one cell: what is known about it in words."""

    EVIDENCE = "evidence"
    QUALITY = "quality"
    ISA = "isa"
    FAILURE = "failure"
    CONTAMINATED = "contaminated"
    DIFFERENCE = "difference"
    MAIN_CAUSE = "main_cause"
    NOTES = "notes"
    RANKED = "ranked"
    """``yes`` or ``no``, on every cell of an ended sweep: a wrong output among the fastest looks like a winner."""
    BOTTLENECK = "tma.bottleneck"
