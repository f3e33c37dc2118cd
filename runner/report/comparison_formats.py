"""A comparison as a terminal's tables, Markdown, CSV and JSON. Pure: the same sections everywhere, all rows in data."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from runner import stats
from runner.analysis.comparison import ERROR, Comparison, Group, Ranked
from runner.analysis.ranking import in_words
from runner.report import plain
from runner.report.terminal import figure, label, p99, plural
from runner.results.metrics import INTERVALS
from runner.stats.effects import Mean

_FIGURES = {
    "latency/p50_ms": "p50_ms",
    "latency/p90_ms": "p90_ms",
    "latency/p99_ms": "p99_ms",
    "latency/cv_pct": "cv_pct",
    "throughput/samples_per_s": "samples_per_s",
    "memory/rss_peak_mb": "rss_peak_mb",
    "quality/rel_l2": "rel_l2",
    ERROR: "max_abs_err",
}
# Ends of the figures' 95 % intervals.
_ENDS = {
    end: f"{_FIGURES[name]}_{side}"
    for name, ends in INTERVALS.items()
    for end, side in zip(ends, ("low", "high"), strict=True)
}
# What an interaction does.
_TOGETHER = ("better together", "worse together")


@dataclass(frozen=True)
class Section:
    """A titled table, with what is to be said below it."""

    title: str
    columns: Sequence[str]
    words: int
    """How many of the columns, from the left, are words and not figures."""
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]


def sections(found: Comparison, top: int) -> list[Section]:
    """What a reader sees: each group's ranking, then the effects; at most ``top`` rows of each."""
    made = [_ranking(found, group, top) for group in found.groups]
    if found.effects:
        made.append(_effects(found, top))
    if found.interactions:
        made.append(_interactions(found, top))
    return made


def _effects(found: Comparison, top: int) -> Section:
    rows = [(e.axis, e.value, e.reference, *_mean_cells(e.mean)) for e in found.effects]
    notes = _left(rows, top)
    if all(effect.mean.count == 1 for effect in found.effects):
        notes.append("one pair each: how much an effect varies from cell to cell is not known; vary further axes")
    columns = ("axis", "value", "against", "speed-up", "95 % interval", "pairs", "difference")
    return Section("What each axis does, all else equal", columns, 3, rows[:top], notes)


def _interactions(found: Comparison, top: int) -> Section:
    def name(axes: Sequence[str], values: Sequence[str]) -> str:
        return label(dict(zip(axes, values, strict=True)), axes)

    rows = [
        (name(i.axes, i.values), name(i.axes, i.references), *_mean_cells(i.mean, *_TOGETHER))
        for i in found.interactions
    ]
    columns = ("together", "against", "beyond the product", "95 % interval", "blocks", "difference")
    notes = [*_left(rows, top), "beyond the product: their speed-up together over the product of each one's alone"]
    return Section("Largest interactions", columns, 2, rows[:top], notes)


def _mean_cells(mean: Mean, *words: str) -> tuple[str, str, str, str]:
    return _ratio(mean.ratio), _interval(mean.interval), str(mean.count), _is(mean, *words)


def _ranking(found: Comparison, group: Group, top: int) -> Section:
    distinguishing = [key for key in found.distinguishing if key not in group.name] or ["model"]
    rounds = any(len(row.cell.medians_s) > 1 for row in group.rows)
    difference = rounds or any(row.untrusted for row in group.rows)
    columns = [*distinguishing, "p50 ms", "p99 ms", "cv %", "speed-up"]
    columns += ["95 % interval"] if rounds else []
    columns += ["difference"] if difference else []
    columns += ["samples/s", "RSS MB", "rel. error", "max abs. error", "output", "front"]
    rows = []
    for row in group.rows:
        speedup = "-" if row.speedup is None else f"{row.speedup:.2f}x" + (" (baseline)" if row.is_baseline else "")
        verdict = [_interval(row.verdict.interval if row.verdict else None)] if rounds else []
        verdict += [in_words(row.verdict, row.untrusted)] if difference else []
        output = "-" if row.cell.p50_ms is None else "ok" if row.cell.is_right else "WRONG"
        rows.append(
            [
                *(row.labels[key] for key in distinguishing),
                figure(row.cell.metrics, "latency/p50_ms", ".4g"),
                p99(row.cell.metrics),
                figure(row.cell.metrics, "latency/cv_pct", ".1f"),
                speedup,
                *verdict,
                figure(row.cell.metrics, "throughput/samples_per_s", ".4g"),
                figure(row.cell.metrics, "memory/rss_peak_mb", ".4g"),
                figure(row.cell.metrics, "quality/rel_l2", ".1e"),
                figure(row.cell.metrics, ERROR, ".1e"),
                output if row.cell.status == "FINISHED" else row.cell.status,
                "*" if row.on_front else "",
            ]
        )
    title = f"Ranking of {label(group.name, list(group.name))}" if group.name else "Ranking"
    return Section(
        title,
        columns,
        len(distinguishing),
        rows[:top],
        [*_left(rows, top), *_said(found, group, distinguishing, rounds)],
    )


def _said(found: Comparison, group: Group, distinguishing: Sequence[str], rounds: bool) -> list[str]:
    """Below a ranking: its baseline, its front, the best under a bound, what could not be told."""
    said = []
    if group.baseline is None:
        said.append("no baseline in this group: no cell of it that was measured with a right output is one")
    if any(row.on_front for row in group.rows):
        front = plural(sum(row.on_front for row in group.rows), "cell")
        said.append(
            f"front *: {front} without another as good in all of {', '.join(_FIGURES[name] for name in group.front)}"
        )
    if found.bound is not None:
        asked = f"best with max_abs_err of at most {found.bound:g}"
        if group.best is None:
            errors = [row.cell.metrics[ERROR] for row in group.rows if row.cell.is_right and ERROR in row.cell.metrics]
            least = f"; the least is {min(errors):.2g}" if errors else "; none has a known error"
            said.append(f"{asked}: no right cell{least}")
        else:
            speedup = "" if group.best.speedup is None else f", {group.best.speedup:.2f}x"
            p50 = figure(group.best.cell.metrics, "latency/p50_ms", ".4g")
            said.append(f"{asked}: {label(group.best.labels, distinguishing)}, {p50} ms{speedup}")
    if any(in_words(row.verdict, row.untrusted).startswith("undecided") for row in group.rows):
        said.append("undecided: no difference shown; one smaller than the figure in brackets could not have shown here")
    if not rounds and len(group.rows) > 1:
        said.append("one round: whether a difference is real is not known; rounds=5 tells")
    return said


def _left(rows: Sequence[object], top: int) -> list[str]:
    return [f"{len(rows) - top} more rows: --top {len(rows)} shows them"] if len(rows) > top else []


def _interval(interval: stats.Interval | None) -> str:
    return "-" if interval is None else f"{_ratio(interval.low)} to {_ratio(interval.high)}"


def _ratio(value: float) -> str:
    """Three digits, also where they are zeros: "1.00x"."""
    return f"{value:#.3g}".rstrip(".") + "x"


def _is(mean: Mean, more: str = "faster", less: str = "slower") -> str:
    if mean.p_holm is None:
        return "-"
    return "undecided" if not mean.is_shown else more if mean.ratio > 1 else less


def table(section: Section) -> Table:
    """A section for the terminal."""
    drawn = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for place, name in enumerate(section.columns):
        left = place < section.words or name in ("difference", "output")
        drawn.add_column(escape(name), justify="left" if left else "right", no_wrap=True)
    for row in section.rows:
        drawn.add_row(*(escape(cell) for cell in row))
    return drawn


def markdown(found: Comparison, top: int, notes: Sequence[str] = ()) -> str:
    """All sections as GitHub's tables, below what is to be said of them all."""
    lines = [f"Sweeps: {plain.markdown(', '.join(found.sweeps))}", ""]
    lines += [f"**{plain.markdown(found.warning)}**", ""] if found.warning else []
    lines += [*(f"- {plain.markdown(note)}" for note in notes), ""] if notes else []
    for section in sections(found, top):
        lines += [f"## {plain.markdown(section.title)}", "", _line(section.columns)]
        lines.append(
            "|" + "|".join(" --- " if i < section.words else " ---: " for i in range(len(section.columns))) + "|"
        )
        lines += [*(_line(row) for row in section.rows), ""]
        lines += [f"- {plain.markdown(note)}" for note in section.notes] + ([""] if section.notes else [])
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(plain.markdown, cells)) + " |"


def as_csv(found: Comparison) -> str:
    """The rankings, a line a cell; effects are in the other formats."""
    keys = list(dict.fromkeys(key for group in found.groups for row in group.rows for key in row.labels))
    head = ["rank", "sweep", "cell_id", *(key for key in keys if key != "sweep"), *_FIGURES.values(), *_ENDS.values()]
    head += ["speedup", "speedup_low", "speedup_high", "difference", "noise_floor_pct", "p_holm"]
    head += ["is_baseline", "on_front", "is_best", "contaminated_rounds", "contamination"]
    head += ["output", "status", "failure", "main_cause"]
    out = io.StringIO()
    writer = csv.DictWriter(out, head, lineterminator="\n", restval="")
    writer.writeheader()
    for data in as_data(found)["groups"]:
        for row in data["cells"]:
            flat = {**row["labels"], **row}
            writer.writerow({key: "" if flat.get(key) is None else plain.cell(flat[key]) for key in head})
    return out.getvalue()


def as_data(found: Comparison) -> dict[str, Any]:
    """The whole comparison for JSON; what is not known is null."""
    return {
        "sweeps": list(found.sweeps),
        "distinguishing_axes": list(found.distinguishing),
        "best_under": found.bound,
        "warning": found.warning or None,
        "noise": asdict(found.noise) if found.noise else None,
        "groups": [
            {
                "work": dict(group.name),
                "baseline": group.baseline.cell.cell_id if group.baseline else None,
                "best": group.best.cell.cell_id if group.best else None,
                "front": [_FIGURES[name] for name in group.front],
                "cells": [_cell(row, rank, row is group.best) for rank, row in enumerate(group.rows, 1)],
            }
            for group in found.groups
        ],
        "effects": [
            {"axis": e.axis, "value": e.value, "against": e.reference, **_mean(e.mean, "pairs")} for e in found.effects
        ],
        "interactions": [
            {
                "values": dict(zip(i.axes, i.values, strict=True)),
                "against": dict(zip(i.axes, i.references, strict=True)),
                **_mean(i.mean, "blocks", *_TOGETHER),
            }
            for i in found.interactions
        ],
    }


def _mean(mean: Mean, count: str, *words: str) -> dict[str, Any]:
    low, high = _ends(mean.interval)
    return {
        "ratio": mean.ratio,
        "low": low,
        "high": high,
        count: mean.count,
        "p_holm": mean.p_holm,
        "difference": _is(mean, *words),
    }


def _ends(interval: stats.Interval | None) -> tuple[float | None, float | None]:
    return (_finite(interval.low), _finite(interval.high)) if interval else (None, None)


def _finite(value: float | None) -> float | None:
    """Null for an end past what a float holds, which JSON has no word for: two processes far apart."""
    return value if value is not None and math.isfinite(value) else None


def _cell(row: Ranked, rank: int, is_best: bool) -> dict[str, Any]:
    cell, verdict = row.cell, row.verdict
    low, high = _ends(verdict.interval if verdict else None)
    figures = {short: _finite(cell.metrics.get(name)) for name, short in (_FIGURES | _ENDS).items()}
    return {
        "rank": rank if cell.is_right else None,
        "sweep": cell.sweep,
        "cell_id": cell.cell_id,
        "labels": {key: value for key, value in row.labels.items() if key != "sweep"},
        **figures,
        "rounds": len(cell.medians_s),
        "contaminated_rounds": cell.contaminated_rounds,
        "contamination": cell.contamination or None,
        "speedup": row.speedup,
        "speedup_low": low,
        "speedup_high": high,
        "difference": in_words(row.verdict, row.untrusted),
        "noise_floor_pct": None if verdict is None or verdict.floor is None else 100 * verdict.floor,
        "p_holm": verdict.p_holm if verdict else None,
        "is_baseline": row.is_baseline,
        "on_front": row.on_front,
        "is_best": is_best,
        "output": cell.quality,
        "status": cell.status,
        "failure": cell.failure or None,
        "main_cause": cell.main_cause,
    }
