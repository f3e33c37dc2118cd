"""A cell's figures under the names MLflow shows: ms and MB here, seconds and bytes everywhere else. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from runner import stats
from runner.capture.kernels import Summary
from runner.capture.onednn import COMPUTE
from runner.protocol import contamination
from runner.protocol.evidence import OperatorEvidence, Quality
from runner.protocol.resultfile import Window, WorkerResult
from runner.protocol.stopping import relative_width
from runner.results.metric_names import Metric
from runner.results.outcome import CellRecord

# Above this share of one core the runner itself is a disturbance, and the cell says so.
RUNNER_CPU_LIMIT_PCT = 1.0


# Prefixes of the figures that captures measure; older sweeps took them in the first round of a cell.
CAPTURED = ("captures/", "itt/", "profiler/", "counters/", "tma/", "overhead/", "cost/")


# Figure -> its 95 % interval's ends; absent with one round, and where a process has too few samples for the figure.
INTERVALS: Mapping[str, tuple[str, str]] = {
    Metric.P50: ("latency/ci95_low_ms", "latency/ci95_high_ms"),
    Metric.P90: ("latency/p90_ci95_low_ms", "latency/p90_ci95_high_ms"),
    Metric.P99: ("latency/p99_ci95_low_ms", "latency/p99_ci95_high_ms"),
    Metric.SAMPLES_PER_S: ("throughput/ci95_low_samples_per_s", "throughput/ci95_high_samples_per_s"),
}
_STATISTICS: Mapping[str, stats.Statistic] = {
    Metric.P50: stats.Statistic.P50,
    Metric.P90: stats.Statistic.P90,
    Metric.P99: stats.Statistic.P99,
    Metric.SAMPLES_PER_S: stats.Statistic.THROUGHPUT,
}


def _of_window(window: Window, latencies_s: Sequence[float]) -> dict[str, float]:
    iterations = len(latencies_s)
    kernel = window.system_s / max(window.user_s + window.system_s, 1e-9)
    figures: dict[str, float | None] = {
        Metric.MINOR_FAULTS: window.minor_faults / iterations,
        Metric.MAJOR_FAULTS: window.major_faults / iterations,
        Metric.VOLUNTARY_SWITCHES: window.voluntary_switches / iterations,
        Metric.INVOLUNTARY_SWITCHES: window.involuntary_switches / iterations,
        Metric.CORES_BUSY: (window.user_s + window.system_s) / window.wall_s,
        "cpu/system_pct": 100 * kernel,
        # The share of the median iteration, if the kernel's work was spread over the busy cores like the rest.
        Metric.KERNEL_TIME: 1e3 * median(latencies_s) * kernel,
        Metric.RSS_PEAK: _scaled(window.rss_peak_bytes, 1e-6),
        Metric.RUNNER_CPU: _scaled(window.runner_cpu_s, 100 / window.wall_s),
        "selfaudit/launcher_cpu_pct": _scaled(window.launcher_cpu_s, 100 / window.wall_s),
    }
    return {name: value for name, value in figures.items() if value is not None}


def _of_energy(windows: Sequence[Window], samples_per_s: float) -> dict[str, float]:
    """The power of the packages while the cell was timed, and the energy of a sample; nothing if it isn't counted."""
    watts = _median(None if window.energy_j is None else window.energy_j / window.wall_s for window in windows)
    return {} if watts is None else {"energy/watts": watts, Metric.ENERGY: watts / samples_per_s}


def _of_evidence(result: WorkerResult) -> dict[str, float]:
    return {} if result.evidence is None else {Metric.THREADS: float(result.evidence.openmp.torch_threads)}


def evidence_figures(
    kernels: Summary, quality: Quality | None, operators: OperatorEvidence | None = None
) -> dict[str, float]:
    """The figures of oneDNN's log per iteration and of the comparison with fp32; shares in percent.

    Args:
        operators: what the profiler saw; None if it saw nothing.
    """
    reorder_s, compute_s = kernels.seconds_in("reorder"), kernels.seconds_in(*COMPUTE)
    figures = {
        Metric.ONEDNN_COVERAGE: 100 * kernels.coverage,
        Metric.COMPUTE_TIME: 1e3 * compute_s,
        Metric.OTHER_PRIMITIVES_TIME: 1e3 * kernels.seconds_in(*set(kernels.by_kind) - COMPUTE - {"reorder"}),
        Metric.PRIMITIVES: kernels.calls,
        Metric.REORDERS: kernels.reorders,
        Metric.ACTIVATION_REORDERS: kernels.reorders - kernels.weight_reorders,
        Metric.WEIGHT_REORDERS: kernels.weight_reorders,
        "onednn/reorder_pct": 100 * kernels.reorder_share,
        Metric.REORDER_TIME: 1e3 * reorder_s,
        Metric.FUSED: kernels.fused,
        "onednn/cache_hits_per_iteration": kernels.cache_hits,
        Metric.PRIMITIVE_CACHE_MISSES: kernels.cache_misses,
        "onednn/unparsed_lines": float(kernels.unparsed),
        **{f"onednn/{kind}_ms_per_iteration": 1e3 * seconds for kind, (_, seconds) in kernels.by_kind.items()},
        **{f"onednn/{kind}_calls_per_iteration": calls for kind, (calls, _) in kernels.by_kind.items()},
        **{f"onednn/isa_{family}_pct": 100 * share for family, share in kernels.isa.items()},
        **{f"onednn/dtype_{dtype}_pct": 100 * share for dtype, share in kernels.dtypes.items() if dtype},
    }
    if kernels.reorder_bytes is not None:
        figures[Metric.REORDER_SIZE] = 1e-6 * kernels.reorder_bytes
    return figures | _of_quality(quality) | _of_work(kernels, quality, operators)


def _of_work(kernels: Summary, quality: Quality | None, operators: OperatorEvidence | None) -> dict[str, float]:
    """What an iteration computes and moves by the reference, and what it computes by other witnesses; per instance.

    These are oneDNN's log, and for attention, whose products no log has, the shapes that the profiler saw.
    """
    figures: dict[str, float] = {}
    if quality is not None and quality.reference_flop:
        figures[Metric.FLOP] = quality.reference_flop
    if quality is not None and quality.reference_elements:
        figures[Metric.ELEMENTS] = float(quality.reference_elements)
    logged = [flop for flop in kernels.flop.values() if flop is not None]
    if logged and len(logged) == len(kernels.flop):
        attention = [one.flop or 0.0 for one in operators.compute if "attention" in one.name] if operators else []
        figures[Metric.WITNESSED_FLOP] = sum(logged) + sum(attention)
    return figures


def _of_quality(quality: Quality | None) -> dict[str, float]:
    if quality is None:
        return {}
    figures = {
        "quality/max_abs_err": quality.max_abs_err,
        "quality/rel_l2": quality.rel_l2,
        "quality/cosine": quality.cosine,
        "quality/top1_match_pct": quality.top1_match_pct,
    }
    return {name: value for name, value in figures.items() if value is not None}


def _of_surroundings(record: CellRecord, windows: Sequence[Window]) -> dict[str, float]:
    """What others did in the worst round: a median would hide it. A figure that one round lacks is absent."""
    tables = [contamination.figures(window) for window in windows]
    names = set.intersection(*(set(table) for table in tables)) if tables else set()
    return {
        **{f"contamination/{name}": max((table[name] for table in tables), key=abs) for name in sorted(names)},
        Metric.CONTAMINATED_ROUNDS: float(len(record.contamination)),
        "contamination/reruns": float(record.reruns),
    }


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _median(values: Iterable[float | None]) -> float | None:
    """The median of the values that are known; None without one."""
    numbers = [value for value in values if value is not None]
    return median(numbers) if numbers else None


def _over_rounds(tables: list[dict[str, float]]) -> dict[str, float]:
    """The median over rounds of each figure that every round has."""
    names = set.intersection(*(set(table) for table in tables)) if tables else set()
    return {name: median(table[name] for table in tables) for name in sorted(names)}


def _intervals(figures: Mapping[str, float], record: CellRecord, batch_size: int) -> dict[str, float]:
    """The ends of every figure's interval over the rounds, see `stats.interval`; the figure lies within."""
    # Within one latency, every instance of a round finishes a batch.
    together = batch_size * int(record.axes["instances"])
    intervals = {}
    for name, ends in INTERVALS.items():
        if name.startswith("throughput/") and record.is_served:
            continue  # the load generator counts it: it is not made of latencies
        interval = stats.interval(record.rounds, _STATISTICS[name]) if name in figures else None
        if interval is not None:
            scale = together if name.startswith("throughput/") else 1e3
            # With several instances the figure is a median or sum over them, the interval is of all their samples.
            intervals[ends[0]] = min(interval.low * scale, figures[name])
            intervals[ends[1]] = max(interval.high * scale, figures[name])
    return intervals


def cell_metrics(record: CellRecord) -> dict[str, float]:
    """Every figure of a cell over its rounds; only the costs for a failed cell. Unobserved figures are absent."""
    finished = {key: result for key, result in record.results.items() if result.latencies_s}
    costs = _over_rounds([{f"cost/{k}_s": v for k, v in outcome.cost_s.items()} for outcome in record.outcomes])
    costs |= {f"cost/{k}_s": v for k, v in (record.captured.cost_s if record.captured else {}).items()}
    if not finished or record.failure:
        return costs
    estimate = stats.estimate([result.latencies_s for result in finished.values()])
    batch_size = int(record.axes["batch_size"])
    # Instances of one round ran at the same time: what they did together is the sum.
    per_round: dict[int, float] = {}
    for (number, _), result in finished.items():
        rate = batch_size * len(result.latencies_s) / sum(result.latencies_s)
        per_round[number] = per_round.get(number, 0.0) + rate
    latency: dict[str, float | None] = {
        Metric.P50: estimate.p50_s * 1e3,
        Metric.P90: _scaled(estimate.p90_s, 1e3),
        Metric.P99: _scaled(estimate.p99_s, 1e3),
        "latency/mean_ms": estimate.mean_s * 1e3,
        Metric.CV: estimate.cv * 100,
        Metric.BETWEEN_PROCESSES: _scaled(estimate.process_spread, 100),
        Metric.PROCESS_CI95: _scaled(_median(map(relative_width, record.rounds)), 100),
        Metric.ITERATIONS: float(estimate.iterations),
        Metric.PROCESSES: float(estimate.processes),
        Metric.SAMPLES_PER_S: median(per_round.values()),
    }
    of_latency = {name: value for name, value in latency.items() if value is not None}
    windows = [(result.window, result.latencies_s) for result in finished.values() if result.window is not None]
    return {
        **of_latency,
        **_intervals(of_latency, record, batch_size),
        **_over_rounds([_of_window(window, latencies_s) for window, latencies_s in windows]),
        **_over_rounds([_of_evidence(result) for result in finished.values()]),
        **_of_surroundings(record, [window for window, _ in windows]),
        **_of_energy([window for window, _ in windows], median(per_round.values())),
        **_over_rounds([dict(outcome.figures) for outcome in record.outcomes]),
        **{name: value for name, value in record.outcomes[0].figures.items() if name.startswith(CAPTURED)},
        **(record.captured.figures if record.captured else {}),
        **costs,
    }
