"""Rankings and comparisons for machines: plain data for JSON, and the one CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from runner import stats
from runner.analysis.comparison import Comparison
from runner.analysis.ranking import Row
from runner.report import escaping
from runner.results.metric_names import Metric
from runner.results.metrics import INTERVALS
from runner.stats.effects import Mean

# Metric -> its short name, which JSON, CSV and sentences use.
FIGURES: Mapping[str, str] = {
    Metric.P50: "p50_ms",
    Metric.P90: "p90_ms",
    Metric.P99: "p99_ms",
    Metric.CV: "cv_pct",
    Metric.SAMPLES_PER_S: "samples_per_s",
    Metric.MINOR_FAULTS: "faults_per_iteration",
    Metric.RSS_PEAK: "rss_peak_mb",
    Metric.RELATIVE_ERROR: "rel_l2",
    Metric.LARGEST_ERROR: "max_abs_err",
}
# Metric -> short name, for the ends of the figures' 95 % intervals.
_END_NAMES = {
    end: f"{FIGURES[name]}_{side}"
    for name, ends in INTERVALS.items()
    for end, side in zip(ends, ("low", "high"), strict=True)
}
# The words for what an interaction does.
TOGETHER = ("better together", "worse together")


def cell(row: Row, rank: int, is_best: bool = False) -> dict[str, Any]:
    """One row as plain data; what is not known is None."""
    entry, verdict = row.cell, row.verdict
    low, high = _ends(verdict.interval if verdict else None)
    figures = {short: _finite(row.metrics.get(name)) for name, short in (*FIGURES.items(), *_END_NAMES.items())}
    return {
        "rank": rank if row.is_right else None,
        "sweep": entry.sweep,
        "cell_id": entry.cell_id,
        "labels": {key: value for key, value in row.labels.items() if key != "sweep"},
        **figures,
        "rounds": len(entry.medians_s),
        "contaminated_rounds": entry.contaminated_rounds,
        "contamination": entry.contamination or None,
        "speedup": row.speedup,
        "speedup_low": low,
        "speedup_high": high,
        "difference": row.answer,
        "usd_per_million_samples": row.usd_per_million,
        "gop_per_s": _finite(row.metrics.get(Metric.GOP_PER_S)),
        "of_registers_pct": _finite(row.metrics.get(Metric.OF_REGISTERS)),
        "of_gemm_pct": _finite(row.metrics.get(Metric.OF_GEMM)),
        "roof": str(row.position.roof) if row.position else None,
        "noise_floor_pct": None if verdict is None or verdict.floor is None else 100 * verdict.floor,
        "p_holm": verdict.p_holm if verdict else None,
        "is_baseline": row.is_baseline,
        "on_front": row.on_front,
        "is_best": is_best,
        "isa": entry.isa,
        "evidence": entry.evidence,
        "output": entry.quality,
        "status": entry.status,
        "failure": entry.failure or None,
        "main_cause": row.main_cause,
    }


def as_csv(cells: Sequence[Mapping[str, Any]], rows: Sequence[Row] = ()) -> str:
    """One line per cell, fastest first; what is not known is empty.

    Args:
        cells: see `cell`.
        rows: the same cells, if every figure is wanted under its name in MLflow too.
    """
    keys = list(dict.fromkeys(key for data in cells for key in data["labels"]))
    metrics = sorted({str(name) for row in rows for name in row.metrics})
    head = [key for key in (cells[0] if cells else ()) if key != "labels"]
    # What a cell is stands before what was measured of it.
    head = [*head[:3], *keys, *head[3:], *metrics]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(escaping.cell, head))
    for number, data in enumerate(cells):
        flat = {**data["labels"], **data, **(rows[number].metrics if rows else {})}
        writer.writerow(["" if flat.get(key) is None else escaping.cell(flat[key]) for key in head])
    return out.getvalue()


def ranking_csv(rows: Sequence[Row]) -> str:
    """comparison.csv of a sweep: the columns of `compare`, and every figure under its name in MLflow."""
    return as_csv([cell(row, number) for number, row in enumerate(rows, 1)], rows)


def comparison_csv(comparison: Comparison) -> str:
    """The rankings of all groups; effects are in the other formats."""
    return as_csv([data for group in as_data(comparison)["groups"] for data in group["cells"]])


def as_data(comparison: Comparison) -> dict[str, Any]:
    """The whole comparison for JSON; what is not known is null."""
    return {
        "sweeps": list(comparison.sweeps),
        "distinguishing_axes": list(comparison.distinguishing),
        "best_under": comparison.bound,
        "warning": comparison.warning or None,
        "noise": asdict(comparison.noise) if comparison.noise else None,
        "groups": [
            {
                "work": dict(group.name),
                "baseline": group.baseline.cell.cell_id if group.baseline else None,
                "best": group.best.cell.cell_id if group.best else None,
                "front": [FIGURES[name] for name in group.front],
                "cells": [cell(row, rank, row is group.best) for rank, row in enumerate(group.rows, 1)],
            }
            for group in comparison.groups
        ],
        "effects": [
            {"axis": e.axis, "value": e.value, "against": e.reference, **_mean(e.mean, "pairs")}
            for e in comparison.effects
        ],
        "interactions": [
            {
                "values": dict(zip(i.axes, i.values, strict=True)),
                "against": dict(zip(i.axes, i.references, strict=True)),
                **_mean(i.mean, "blocks", *TOGETHER),
            }
            for i in comparison.interactions
        ],
    }


def answer(mean: Mean, more: str = "faster", less: str = "slower") -> str:
    """What an effect or an interaction does, in words; ``-`` for a single pair."""
    if mean.p_holm is None:
        return "-"
    return "undecided" if not mean.is_shown else more if mean.ratio > 1 else less


def _mean(mean: Mean, count: str, *words: str) -> dict[str, Any]:
    low, high = _ends(mean.interval)
    return {
        "ratio": mean.ratio,
        "low": low,
        "high": high,
        count: mean.count,
        "p_holm": mean.p_holm,
        "difference": answer(mean, *words),
    }


def _ends(interval: stats.Interval | None) -> tuple[float | None, float | None]:
    return (_finite(interval.low), _finite(interval.high)) if interval else (None, None)


def _finite(value: float | None) -> float | None:
    """None for an infinite end, which JSON has no word for: two processes that differ widely have one."""
    return value if value is not None and math.isfinite(value) else None
