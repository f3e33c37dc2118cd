"""A cell's figures under the names MLflow shows: ms and MB here, seconds and bytes everywhere else. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from runner import stats
from runner.capture.kernels import Summary
from runner.capture.onednn import COMPUTE
from runner.checks import contamination
from runner.protocol.evidence import Quality
from runner.protocol.resultfile import Window
from runner.protocol.stopping import relative_width
from runner.results.outcome import CellRecord

# Above this share of one core the runner itself is a disturbance, and the cell says so.
RUNNER_CPU_LIMIT_PCT = 1.0


# What captures measure: in the first round of a cell only.
CAPTURED = ("captures/", "itt/", "profiler/", "counters/", "tma/", "overhead/", "cost/")


# Figure -> its 95 % interval's ends; absent with one round, and where a process has too few samples for the figure.
INTERVALS = {
    "latency/p50_ms": ("latency/ci95_low_ms", "latency/ci95_high_ms"),
    "latency/p90_ms": ("latency/p90_ci95_low_ms", "latency/p90_ci95_high_ms"),
    "latency/p99_ms": ("latency/p99_ci95_low_ms", "latency/p99_ci95_high_ms"),
    "throughput/samples_per_s": ("throughput/ci95_low_samples_per_s", "throughput/ci95_high_samples_per_s"),
}
_STATISTICS = {
    "latency/p50_ms": stats.Statistic.P50,
    "latency/p90_ms": stats.Statistic.P90,
    "latency/p99_ms": stats.Statistic.P99,
    "throughput/samples_per_s": stats.Statistic.THROUGHPUT,
}


def _of_window(window: Window, latencies_s: Sequence[float]) -> dict[str, float]:
    steps = len(latencies_s)
    kernel = window.system_s / max(window.user_s + window.system_s, 1e-9)
    figures: dict[str, float | None] = {
        "faults/minor_per_iteration": window.minor_faults / steps,
        "faults/major_per_iteration": window.major_faults / steps,
        "cpu/voluntary_switches_per_iteration": window.voluntary_switches / steps,
        "cpu/involuntary_switches_per_iteration": window.involuntary_switches / steps,
        "cpu/cores_busy": (window.user_s + window.system_s) / window.wall_s,
        "cpu/system_pct": 100 * kernel,
        # Of a step's median, if the kernel's work was spread over the busy cores like the rest.
        "cpu/kernel_ms_per_iteration": 1e3 * median(latencies_s) * kernel,
        "memory/rss_peak_mb": _scaled(window.rss_peak_bytes, 1e-6),
        "selfaudit/runner_cpu_pct": _scaled(window.runner_cpu_s, 100 / window.wall_s),
        "selfaudit/launcher_cpu_pct": _scaled(window.launcher_cpu_s, 100 / window.wall_s),
    }
    return {name: value for name, value in figures.items() if value is not None}


def evidence_figures(kernels: Summary, quality: Quality | None) -> dict[str, float]:
    """What oneDNN's log of one step and the comparison with fp32 come to; shares in percent."""
    reorder_s, compute_s = kernels.seconds_in("reorder"), kernels.seconds_in(*COMPUTE)
    figures = {
        "onednn/coverage_pct": 100 * kernels.coverage,
        "onednn/compute_ms_per_iteration": 1e3 * compute_s,
        "onednn/other_ms_per_iteration": 1e3 * kernels.seconds_in(*set(kernels.by_kind) - COMPUTE - {"reorder"}),
        "onednn/primitives_per_iteration": kernels.calls,
        "onednn/reorders_per_iteration": kernels.reorders,
        "onednn/activation_reorders_per_iteration": kernels.reorders - kernels.weight_reorders,
        "onednn/weight_reorders_per_iteration": kernels.weight_reorders,
        "onednn/reorder_mb_per_iteration": 1e-6 * kernels.reorder_bytes,
        "onednn/reorder_pct": 100 * kernels.reorder_share,
        "onednn/reorder_ms_per_iteration": 1e3 * reorder_s,
        "onednn/fused_per_iteration": kernels.fused,
        "onednn/cache_hits_per_iteration": kernels.cache_hits,
        "onednn/cache_misses_per_iteration": kernels.cache_misses,
        "onednn/unparsed_lines": float(kernels.unparsed),
        **{f"onednn/{kind}_ms_per_iteration": 1e3 * seconds for kind, (_, seconds) in kernels.by_kind.items()},
        **{f"onednn/{kind}_calls_per_iteration": calls for kind, (calls, _) in kernels.by_kind.items()},
        **{f"onednn/isa_{family}_pct": 100 * share for family, share in kernels.isa.items()},
        **{f"onednn/dtype_{dtype}_pct": 100 * share for dtype, share in kernels.dtypes.items() if dtype},
    }
    return figures | _of_quality(quality)


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
    """What others did, of the worst round: a median would hide the one that matters. Absent = unobserved in a round."""
    seen = [contamination.figures(window) for window in windows]
    names = set.intersection(*(set(table) for table in seen)) if seen else set()
    return {
        **{f"contamination/{name}": max((table[name] for table in seen), key=abs) for name in sorted(names)},
        "contamination/rounds": float(len(record.contamination)),
        "contamination/reruns": float(record.reruns),
    }


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _median(values: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _over_rounds(tables: list[dict[str, float]]) -> dict[str, float]:
    """The median over rounds of each figure that every round has."""
    names = set.intersection(*(set(table) for table in tables)) if tables else set()
    return {name: median(table[name] for table in tables) for name in sorted(names)}


def _intervals(figures: Mapping[str, float], record: CellRecord, batch_size: int) -> dict[str, float]:
    """The ends of every figure's interval over the rounds, see `stats.interval`; the figure lies within."""
    # All instances of a round finish a batch in each latency.
    together = batch_size * int(record.axes["instances"])
    found = {}
    for name, ends in INTERVALS.items():
        if name.startswith("throughput/") and record.is_served:
            continue  # the load generator's own: not made of latencies
        interval = stats.interval(record.rounds, _STATISTICS[name]) if name in figures else None
        if interval is not None:
            scale = together if name.startswith("throughput/") else 1e3
            # With several instances the figure is a median or sum over them, the interval is of all their samples.
            found[ends[0]] = min(interval.low * scale, figures[name])
            found[ends[1]] = max(interval.high * scale, figures[name])
    return found


def cell_metrics(record: CellRecord) -> dict[str, float]:
    """Every figure of a cell over its rounds; of a failed cell the costs only. Absent = unobserved."""
    finished = {key: result for key, result in record.results.items() if result.latencies_s}
    costs = _over_rounds([{f"cost/{k}_s": v for k, v in outcome.cost_s.items()} for outcome in record.outcomes])
    if not finished or record.failure:
        return costs
    estimate = stats.estimate([result.latencies_s for result in finished.values()])
    batch_size = int(record.axes["batch_size"])
    # Instances of one round ran at the same time: what they did together is the sum.
    per_round: dict[int, float] = {}
    for (number, _), result in finished.items():
        rate = batch_size * len(result.latencies_s) / sum(result.latencies_s)
        per_round[number] = per_round.get(number, 0.0) + rate
    latency = {
        "latency/p50_ms": estimate.p50_s * 1e3,
        "latency/p90_ms": _scaled(estimate.p90_s, 1e3),
        "latency/p99_ms": _scaled(estimate.p99_s, 1e3),
        "latency/mean_ms": estimate.mean_s * 1e3,
        "latency/cv_pct": estimate.cv * 100,
        "latency/between_processes_pct": _scaled(estimate.process_spread, 100),
        "latency/process_ci95_pct": _scaled(_median(map(relative_width, record.rounds)), 100),
        "latency/iterations": float(estimate.iterations),
        "latency/processes": float(estimate.processes),
        "throughput/samples_per_s": median(per_round.values()),
    }
    known = {name: value for name, value in latency.items() if value is not None}
    windows = [(result.window, result.latencies_s) for result in finished.values() if result.window is not None]
    return {
        **known,
        **_intervals(known, record, batch_size),
        **_over_rounds([_of_window(window, latencies_s) for window, latencies_s in windows]),
        **_of_surroundings(record, [window for window, _ in windows]),
        **_over_rounds([dict(outcome.figures) for outcome in record.outcomes]),
        **{name: value for name, value in record.outcomes[0].figures.items() if name.startswith(CAPTURED)},
        **costs,
    }
