"""report.html and report.md of a sweep: the result, how sure it is, why, and how to run it again.

One file that loads nothing: it opens in MLflow's viewer, from a disk, and in print, and is whole without its few lines
of script. The words and their order are in the templates in this folder; this module makes the data that fill them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.analysis import cause, effects
from runner.analysis.cause import split
from runner.analysis.ranking import Ranking, Row, cell_name, most_rounds
from runner.analysis.wording import aloud, ratio
from runner.protocol.verdicts import OK
from runner.report import cell_evidence, charts, escaping, notes, roofline_picture, style, tables, terminal
from runner.report.answer import answer
from runner.report.cell_evidence import CellEvidence
from runner.report.columns import Column, Mark, Place, columns, figure, interval_text
from runner.results import planfile
from runner.results.circumstances import Circumstances
from runner.results.metric_names import Metric
from runner.results.metrics import RUNNER_CPU_LIMIT_PCT

# A larger picture stays a file of its own: the report must open at once.
_EMBEDDED_BYTES = 400_000
# What fits into a pull request; report.html has the rest.
_ROWS_IN_MARKDOWN, _LINES_IN_MARKDOWN = 12, 40
# How many cells have their main cause as a sentence.
_CAUSES = 8
# A text of more characters may be broken into lines.
_WORDS = 20
# Whiskers reach this many times as far as the longest bar.
_FURTHEST = 2.0


@dataclass(frozen=True)
class Origin:
    """How the sweep was started, and what it is compared with."""

    command: str = ""
    """The line that ran it."""
    commit: str = ""
    """The checkout's commit; empty outside one."""
    published: tuple[str, ...] = ()
    """Lines of `expected.lines`, each with a published figure and ours."""
    noise: tuple[str, ...] = ()
    """What is known of the host's noise: `noise.NoiseReport.lines`."""
    builds: tuple[str, ...] = ()
    """What another torch build gains or loses: `across_builds.lines`."""
    circumstances: Circumstances = field(default_factory=Circumstances)
    """Where and when it was measured."""


def write(ranking: Ranking, directory: Path, title: str, remarks: Sequence[str], origin: Origin) -> None:
    """Write report.html and report.md into the sweep's folder.

    Args:
        ranking: what there is to report.
        directory: the sweep's folder, with plan.json, host.json and timeline.png if they exist.
        title: experiment and sweep.
        remarks: lines that compare the fastest cell with the baseline (operators).
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
    environment.filters |= {"md": escaping.markdown, "arrows": _arrows}
    facts: dict[str, Any] = {
        "title": title,
        "remarks": remarks,
        **_result(ranking, origin, directory),
        **_effects(ranking.rows, ranking.distinguishing),
        **_trust(ranking),
        **_origin(ranking, directory, origin),
    }
    first = [row for number, row in enumerate(ranking.rows) if number < _ROWS_IN_MARKDOWN or row.is_baseline]
    table = tables.ranking(first, ranking.distinguishing, Place.SHORT)
    lines = {"table": tables.markdown_table(table)}
    template = environment.get_template("report.md.j2")
    # As many notes as there is room for.
    for most in range(len(facts["notes"]), -1, -1):
        short = template.render(facts, **lines, notes_most=most)
        if short.count("\n") < _LINES_IN_MARKDOWN:
            break
    (directory / "report.md").write_text(short, encoding="utf-8")
    pictures = {
        "parts": charts.parts(ranking),
        "roofline": roofline_picture.draw(ranking),
        "distributions": charts.distributions(ranking),
        "drift": charts.drift(ranking),
        "timeline": _embedded(directory / "timeline.png"),
    }
    contents = _contents({**facts, **pictures})
    page = environment.get_template("report.html.j2").render(facts, **pictures, contents=contents)
    (directory / "report.html").write_text(page, encoding="utf-8")


# The places in the page with their names in its contents, and the fact without which a place is absent.
_CONTENTS = (
    ("ranking", "Ranking", ""),
    ("time", "Where the time goes", ""),
    ("roofline", "How far from the limit", "roofline"),
    ("effects", "What each axis does", ""),
    ("heat", "Two axes together", "grid"),
    ("distributions", "Latencies", ""),
    ("drift", "Drift", "drift"),
    ("published", "The published figure", "published"),
    ("timeline", "Timeline", "timeline"),
    ("evidence", "Checks", ""),
    ("cells", "Cells one by one", "evidence"),
    ("reproduce", "How to reproduce", ""),
)


def _contents(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(anchor, name) of the places that the page has."""
    return [(anchor, name) for anchor, name, needs in _CONTENTS if not needs or facts[needs]]


def _result(ranking: Ranking, origin: Origin, directory: Path) -> dict[str, Any]:
    """The answer, the ranking, and the published figures."""
    rows, distinguishing = ranking.rows, ranking.distinguishing
    widest, shown = _widest(rows), _page_columns(rows)
    commands = {cell.cell_id: cell.command for cell in planfile.read_plan(directory).cells}
    evidence = cell_evidence.collect(ranking, directory, commands)
    evidence_of = {cell.cell_id: cell for cell in evidence}
    return {
        "answer": answer(rows, distinguishing, origin.circumstances),
        "distinguishing": distinguishing,
        "rounds": most_rounds(rows),
        "columns": shown,
        "drawn": style.in_words(rows),
        "ranking": [_line(row, shown, widest, distinguishing, evidence_of.get(row.cell.cell_id)) for row in rows],
        "evidence": evidence,
        "causes": _causes(ranking),
        "any_interval": any(row.verdict and row.verdict.interval for row in rows),
        "unsplit": [cell_name(row, distinguishing) for row in rows if row.p50_ms is not None and not split(row.cell)],
        "published": [line.partition(" | ")[::2] for line in origin.published],
        "notes": [*origin.noise, *notes.below(rows, distinguishing, ranking.records)],
    }


def _effects(rows: Sequence[Row], distinguishing: Sequence[str]) -> dict[str, Any]:
    """What each axis does by itself, and the two with the largest effects together."""
    of_axes = effects.effects(rows, distinguishing)
    return {
        "effects": of_axes,
        "widest": 1.1 * max((effect.mean.ratio for effect in of_axes), default=1.0),
        "grid": effects.grid(rows, of_axes),
        "shade": _shade,
        "between": interval_text,
    }


def _trust(ranking: Ranking) -> dict[str, Any]:
    """Evidence, signs of disturbance, and what became of the captures."""
    signs = [(cell_name(row, ranking.distinguishing), _signs(row)) for row in ranking.rows]
    return {"signs": signs, "tags": _tags(ranking.rows, ranking.distinguishing)}


def _origin(ranking: Ranking, directory: Path, origin: Origin) -> dict[str, Any]:
    """What was planned, what it ran on, and how to run it again."""
    plan, machine = planfile.read_plan(directory), planfile.read_host(directory)
    rows = ranking.rows
    commands = {cell.cell_id: cell.command for cell in plan.cells}
    fastest = next((row for row in rows if row.speedup is not None), None)
    excluded = [(cell.axes, cell.reason) for cell in plan.excluded]
    common = [key for key in ranking.distinguishing if all(key in axes for axes, _ in excluded)]
    return {
        "excluded": terminal.exclusions(excluded, common),
        "host": _host(machine),
        "machine": ", cores ".join(filter(None, (machine.cpu_model, machine.cpus_allowed))),
        "versions": machine.versions,
        "sweep_id": plan.sweep_id or directory.name,
        "seed": plan.seed,
        "origin": origin,
        "changed": (directory / "git.diff").exists(),
        "fastest_command": commands.get(fastest.cell.cell_id, "") if fastest else "",
        "absent": len(plan.order) - sum(row.cell.jobs for row in rows if row.cell.cell_id in commands),
    }


def _page_columns(rows: Sequence[Row]) -> list[Column]:
    """The columns of the page: the cause stands beside the verdict that it explains, so that it is seen at once."""
    shown = columns(Place.PAGE, rows)
    causes = [column for column in shown if column.heading == "main cause"]
    others = [column for column in shown if column.heading != "main cause"]
    behind = 1 + max(place for place, column in enumerate(others) if column.heading in ("speed-up", "difference"))
    return [*others[:behind], *causes, *others[behind:]]


def _widest(rows: Sequence[Row]) -> float:
    """The speed-up at the right edge of the ranking's bars."""
    longest = max([1.0, *(row.speedup or 0.0 for row in rows)])
    highest = max([0.0, *(row.verdict.interval.high for row in rows if row.verdict and row.verdict.interval)])
    # A very wide interval is cut off at the edge, so that the bars stay readable; its figures are printed.
    return max(longest, min(highest, _FURTHEST * longest))


def _causes(ranking: Ranking) -> list[tuple[str, str]]:
    """(cell, its main cause as a sentence) of the first cells that have one."""
    explained = [row for row in ranking.rows if row.main_cause not in ("-", "not seen")][:_CAUSES]
    based = [(row, base) for row in explained if (base := ranking.baseline_of(row)) is not None]
    sentences = [(aloud(row, ranking.distinguishing), cause.sentence(base.cell, row.cell)) for row, base in based]
    return [(name, sentence) for name, sentence in sentences if sentence]


def _line(
    row: Row, shown: Sequence[Column], widest: float, distinguishing: Sequence[str], evidence: CellEvidence | None
) -> dict[str, Any]:
    """One cell in the ranking: its fields, its bar in percent of the widest, and where its evidence is."""
    interval = row.verdict.interval if row.verdict else None
    return {
        "name": cell_name(row, distinguishing) or row.labels["model"],
        "anchor": evidence.anchor if evidence else "",
        "is_baseline": row.is_baseline,
        "failed": "interrupted" if row.cell.is_interrupted else row.cell.status if row.cell.failure else "",
        "wrong": row.is_wrong,
        "speedup": "-" if row.speedup is None else ratio(row.speedup),
        "interval": "" if interval is None else interval_text(interval),
        "bar": None if row.speedup is None else round(100 * row.speedup / widest, 2),
        "ends": interval and [round(min(100 * end / widest, 100.0), 2) for end in (interval.low, interval.high)],
        "one": round(100 / widest, 2),
        "fields": [_field(column, row, evidence) for column in shown],
    }


# Heading of a column -> the part of a cell's evidence that it is about.
_EVIDENCE = {"isa": "kernels", "main cause": "operators", "evidence": "captures"}


def _field(column: Column, row: Row, evidence: CellEvidence | None) -> dict[str, Any]:
    """One field of the ranking: text, classes, what it is sorted by, and what it links to."""
    text = column.text(row)
    part = _EVIDENCE.get(column.heading, "")
    figure_name = column.source if isinstance(column.source, Metric) else ""
    value = row.metrics.get(figure_name, "") if figure_name else None
    return {
        "heading": column.heading,
        "style": _style(column, row),
        "text": text,
        "interval": column.interval(row),
        "value": ("" if row.speedup is None else row.speedup) if column.heading == "speed-up" else value,
        "link": evidence.place_of(part) if evidence and text != "-" else "",
    }


def _style(column: Column, row: Row) -> str:
    """The classes of a field in the page's style sheet."""
    text = column.text(row)
    classes = {
        "n": not column.is_word,
        "need": text.startswith("needs"),
        "bad": column.mark(row) is Mark.BAD,
        "words": column.is_word and len(text) > _WORDS,
    }
    return " ".join(name for name, holds in classes.items() if holds)


# The signs of a disturbed cell: metric, heading, format, and the limit above which it is marked.
_SIGNS = (
    (Metric.RELATIVE_ERROR, "rel. error", ".1e", None),
    (Metric.CV, "cv %", ".1f", 10.0),
    (Metric.BETWEEN_PROCESSES, "between processes, %", ".1f", 5.0),
    (Metric.CONTAMINATED_ROUNDS, "disturbed rounds", ".0f", 0.0),
    ("contamination/foreign_cpu_pct", "others' CPU, % of a core", ".1f", None),
    ("contamination/steal_pct", "steal, % of a core", ".1f", None),
    (Metric.RUNNER_CPU, "runner's CPU, %", ".2g", RUNNER_CPU_LIMIT_PCT),
    (Metric.INVOLUNTARY_SWITCHES, "involuntary switches per iteration", ".3g", None),
    (Metric.MAJOR_FAULTS, "major faults per iteration", ".3g", 0.0),
)


def _signs(row: Row) -> list[tuple[str, str, bool]]:
    """(heading, figure, whether it is marked) of evidence, output, and the signs that others were at work."""
    evidence, failure = row.cell.evidence, row.cell.failure
    quality = "-" if row.p50_ms is None else row.cell.quality
    words = [("evidence", evidence, evidence != OK), ("output", quality, quality not in (OK, "-"))]
    figures = [
        (heading, figure(row.metrics, metric, form), limit is not None and row.metrics.get(metric, 0.0) > limit)
        for metric, heading, form, limit in _SIGNS
    ]
    return [*words, *figures, ("failure", failure, bool(failure))]


def _tags(rows: Sequence[Row], distinguishing: Sequence[str]) -> list[tuple[str, str, str]]:
    """(tag, value, cells that have it): what became of each capture."""
    having: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for tag, value in row.cell.captures.items():
            having.setdefault((tag, value), []).append(cell_name(row, distinguishing))
    return [
        (tag, value, "all cells" if len(cells) == len(rows) else "; ".join(cells))
        for (tag, value), cells in sorted(having.items())
    ]


def _host(machine: planfile.Host) -> list[tuple[str, str]]:
    """The entries of the fingerprint that a reader compares; host.json has all of it."""
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
    values += [(f"inherited {name}", value) for name, value in machine.inherited.items()]
    present = [(word, value) for word, value in values if value not in (None, ())]
    return [(word, ", ".join(map(str, v)) if isinstance(v, list) else str(v)) for word, v in present]


def _shade(speedup: float, every: Sequence[float]) -> tuple[str, str]:
    """(background, text) of a field of the heat map: white to blue, dark as ink in print as well.

    The text is white or black, whichever has more contrast (https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio).
    """
    low, high = min(every), max(every)
    share = (speedup - low) / (high - low) if high > low else 0.0
    blue = bytes.fromhex(style.BLUE[1:])
    mixed = [round(255 + share * (end - 255)) for end in blue]
    levels = [level / 255 for level in mixed]
    linear = [level / 12.92 if level <= 0.03928 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    is_dark = 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05
    return "#{:02x}{:02x}{:02x}".format(*mixed), "#ffffff" if is_dark else "#000000"


def _embedded(file: Path) -> str | None:
    """A small PNG as a data URI; None when it is missing or too large."""
    if not file.exists() or file.stat().st_size >= _EMBEDDED_BYTES:
        return None
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def _arrows(text: str) -> str:
    """The text with arrows as signs that stay on the line of what is before them."""
    return text.replace(" -> ", "\N{NO-BREAK SPACE}\N{RIGHTWARDS ARROW} ")
