"""report.html and report.md of a sweep: what was found, how sure it is, why, and how to run it again.

One file without scripts or anything to be loaded: it opens in MLflow's viewer, from a disk, and in print. The words and
their order are in the two templates beside this module; here is what they are filled with.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.analysis import effects
from runner.analysis.cause import count, main_causes, split
from runner.analysis.ranking import Row, cell_name, most_rounds
from runner.analysis.verdict import verdict
from runner.report import charts, plain, terminal
from runner.results import sweepfiles
from runner.results.metrics import INTERVALS, RUNNER_CPU_LIMIT_PCT

# A larger picture stays a file of its own: the report must open at once.
_EMBEDDED_BYTES = 400_000
# What fits into a pull request; report.html has the rest.
_ROWS_IN_MARKDOWN, _NOTES_IN_MARKDOWN = 20, 8
# Whiskers reach this many times as far as the longest bar.
_FURTHEST = 2.0


@dataclass(frozen=True)
class Origin:
    """How the sweep came to be."""

    command: str = ""
    """The line that ran it."""
    commit: str = ""
    """Of the checkout; empty outside one."""
    published: tuple[str, ...] = ()
    """Lines of `expected.lines`: a published figure beside ours."""
    noise: tuple[str, ...] = ()
    """What is known of the host's noise: `noise.Told.said`."""


def write(
    rows: Sequence[Row], distinguishing: Sequence[str], directory: Path, title: str, said: Sequence[str], origin: Origin
) -> None:
    """Write report.html and report.md into the sweep's folder.

    Args:
        rows: ranked.
        shown: keys that tell the cells apart.
        directory: with plan.json, host.json and timeline.png, as far as there are any.
        title: experiment and sweep.
        said: lines about the fastest cell beside the baseline (operators).
        origin: command, commit and published figures.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"md": plain.markdown, "arrows": _arrows}
    facts = _facts(rows, distinguishing, directory, title, said, origin)
    short = environment.get_template("report.md.j2").render(
        facts, most=_ROWS_IN_MARKDOWN, notes_most=_NOTES_IN_MARKDOWN
    )
    (directory / "report.md").write_text(short, encoding="utf-8")
    pictures = {
        "parts": charts.parts(rows, distinguishing),
        "distributions": charts.distributions(rows, distinguishing),
        "drift": charts.drift(rows, distinguishing),
        "timeline": _embedded(directory / "timeline.png"),
    }
    page = environment.get_template("report.html.j2").render(facts, **pictures)
    (directory / "report.html").write_text(page, encoding="utf-8")


def _facts(
    rows: Sequence[Row], distinguishing: Sequence[str], directory: Path, title: str, said: Sequence[str], origin: Origin
) -> dict[str, Any]:
    plan, machine = sweepfiles.read_plan(directory), sweepfiles.read_host(directory)
    rounds = most_rounds(rows)
    found = effects.effects(rows, distinguishing)
    widest = _widest(rows)
    commands = {cell.cell_id: cell.command for cell in plan.cells}
    first = next((row for row in rows if row.speedup is not None), None)
    ended = sum(len(row.record.outcomes) for row in rows if row.record.cell_id in commands)
    excluded = [(one.axes, one.reason) for one in plan.excluded]
    return {
        "title": title,
        "verdict": verdict(rows, distinguishing),
        "distinguishing": distinguishing,
        "rounds": rounds,
        "ranking": [_line(row, cause, widest, distinguishing) for row, cause in main_causes(rows)],
        "any_interval": any(row.verdict and row.verdict.interval for row in rows),
        "any_difference": any((row.verdict and row.verdict.interval) or row.untrusted for row in rows),
        "said": said,
        "unsplit": [cell_name(row, distinguishing) for row in rows if row.p50_ms is not None and not split(row)],
        "effects": found,
        "widest": 1.1 * max((one.mean.ratio for one in found), default=1.0),
        "grid": effects.grid(rows, found),
        "shade": _shade,
        "published": [line.partition(" | ")[::2] for line in origin.published],
        "signs": [(cell_name(row, distinguishing), _signs(row)) for row in rows],
        "tags": _tags(rows, distinguishing),
        "notes": [*origin.noise, *terminal.notes(rows, distinguishing, rounds)],
        "excluded": terminal.exclusions(
            excluded, [key for key in distinguishing if all(key in axes for axes, _ in excluded)]
        ),
        "host": _host(machine),
        "machine": ", cores ".join(filter(None, (machine.cpu_model, machine.cpus_allowed))),
        "versions": machine.versions,
        "sweep_id": plan.sweep_id or directory.name,
        "seed": plan.seed,
        "origin": origin,
        "changed": (directory / "git.diff").exists(),
        "fastest_command": commands.get(first.record.cell_id, "") if first else "",
        "absent": len(plan.order) - ended,
    }


def _widest(rows: Sequence[Row]) -> float:
    """The speed-up at the right edge of the ranking's bars."""
    longest = max([1.0, *(row.speedup or 0.0 for row in rows)])
    highest = max([0.0, *(row.verdict.interval.high for row in rows if row.verdict and row.verdict.interval)])
    # An interval that knows next to nothing is cut off at the edge, so that the bars stay readable; its figures stand.
    return max(longest, min(highest, _FURTHEST * longest))


def _line(row: Row, cause: str, widest: float, distinguishing: Sequence[str]) -> dict[str, Any]:
    """One cell in the ranking: its words, and its bar in percent of the widest."""
    interval = row.verdict.interval if row.verdict else None
    speedup = row.speedup
    figures = row.metrics
    return {
        "axes": [row.axes[key] for key in distinguishing],
        "name": cell_name(row, distinguishing),
        "is_baseline": row.is_baseline,
        "failed": row.record.failure is not None,
        "wrong": row.p50_ms is not None and not row.is_right,
        "p50": "-" if row.p50_ms is None else f"{row.p50_ms:.4g}",
        "p50_interval": _interval(figures, "latency/p50_ms"),
        "p99": terminal.p99(figures),
        "p99_absent": "latency/p99_ms" not in figures,
        "p99_interval": _interval(figures, "latency/p99_ms"),
        "speedup": "-" if speedup is None else f"{speedup:.2f}x",
        "interval": "" if interval is None else f"{interval.low:.2f}x to {interval.high:.2f}x",
        "bar": None if speedup is None else round(100 * speedup / widest, 2),
        "ends": interval and [round(min(100 * end / widest, 100.0), 2) for end in (interval.low, interval.high)],
        "one": round(100 / widest, 2),
        "difference": row.answer,
        "rate": _count(figures, "throughput/samples_per_s"),
        "rate_interval": _interval(figures, "throughput/samples_per_s", count),
        "faults": _count(figures, "faults/minor_per_iteration"),
        "isa": row.record.isa if row.p50_ms is not None else "-",
        "output": "-" if row.p50_ms is None else "ok" if row.is_right else "WRONG",
        "evidence": row.record.outcomes[-1].status if row.record.failure else row.record.evidence,
        "cause": cause,
    }


def _interval(figures: Mapping[str, float], metric: str, text: Callable[[float], str] = "{:.4g}".format) -> str:
    """The 95 % interval of a figure; empty where it has none."""
    low, high = (figures.get(end) for end in INTERVALS[metric])
    return "" if low is None or high is None else f"{text(low)} to {text(high)}"


# What tells a disturbed cell: metric, heading, format, and from where on it is marked.
_SIGNS = (
    ("quality/rel_l2", "rel. error", ".1e", None),
    ("latency/cv_pct", "cv %", ".1f", 10.0),
    ("latency/between_processes_pct", "between processes, %", ".1f", 5.0),
    ("contamination/rounds", "contaminated rounds", ".0f", 0.0),
    ("contamination/foreign_cpu_pct", "others' CPU, % of a core", ".1f", None),
    ("contamination/steal_pct", "steal, % of a core", ".1f", None),
    ("selfaudit/runner_cpu_pct", "runner's CPU, %", ".2g", RUNNER_CPU_LIMIT_PCT),
    ("cpu/involuntary_switches_per_iteration", "involuntary switches a step", ".3g", None),
    ("faults/major_per_iteration", "major faults a step", ".3g", 0.0),
)


def _signs(row: Row) -> list[tuple[str, str, bool]]:
    """(heading, figure, whether it is marked): evidence, output, and what tells that others were at work."""
    record = row.record
    quality = "-" if row.p50_ms is None else record.quality
    words = [("evidence", record.evidence, record.evidence != "ok"), ("output", quality, quality not in ("ok", "-"))]
    figures = [
        (
            heading,
            terminal.figure(row.metrics, metric, form),
            limit is not None and row.metrics.get(metric, 0.0) > limit,
        )
        for metric, heading, form, limit in _SIGNS
    ]
    return [*words, *figures, ("failure", record.failure or "", bool(record.failure))]


def _tags(rows: Sequence[Row], distinguishing: Sequence[str]) -> list[tuple[str, str, str]]:
    """(tag, value, cells that have it): what became of each capture."""
    having: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for tag, value in row.record.captures.items():
            having.setdefault((tag, value), []).append(cell_name(row, distinguishing))
    return [
        (tag, value, "all cells" if len(cells) == len(rows) else "; ".join(cells))
        for (tag, value), cells in sorted(having.items())
    ]


def _host(machine: sweepfiles.Host) -> list[tuple[str, str]]:
    """What of the fingerprint a reader compares; all of it is in host.json."""
    words = {
        "cpu_model": "CPU",
        "cpus_allowed": "cores used",
        "isa": "instructions",
        "memory_gib": "memory, GiB",
        "hypervisor": "virtual machine",
        "governor": "frequency governor",
        "transparent_hugepages": "transparent huge pages",
        "numa_balancing": "NUMA balancing",
        "kernel": "kernel",
        "libc": "C library",
        "python": "Python",
    }
    values = [(word, getattr(machine, key)) for key, word in words.items()]
    known = [(word, value) for word, value in values if value not in (None, ())]
    return [(word, ", ".join(map(str, v)) if isinstance(v, list) else str(v)) for word, v in known]


def _count(figures: Mapping[str, float], metric: str) -> str:
    return count(figures[metric]) if metric in figures else "-"


def _shade(speedup: float, every: Sequence[float]) -> tuple[str, str]:
    """(background, text) of a field of the heat map: white to blue, dark as ink in print as well."""
    low, high = min(every), max(every)
    share = (speedup - low) / (high - low) if high > low else 0.0
    # From white to Okabe & Ito's blue.
    mixed = [round(255 + share * (end - 255)) for end in (0x00, 0x72, 0xB2)]
    return "#{:02x}{:02x}{:02x}".format(*mixed), "#ffffff" if share > 0.6 else "#111111"


def _embedded(file: Path) -> str | None:
    """A small PNG as a data URI; None when it is missing or too large."""
    if not file.exists() or file.stat().st_size >= _EMBEDDED_BYTES:
        return None
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def _arrows(text: str) -> str:
    """What changed into what, with a sign that no line break parts."""
    return text.replace(" -> ", "\N{NO-BREAK SPACE}\N{RIGHTWARDS ARROW} ")
