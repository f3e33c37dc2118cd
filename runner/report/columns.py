"""The columns of the ranking, each declared once: what it is called, what it shows, what it means and where it stands.

The tables of a sweep's end and of `compare`, Markdown and the report are made of these; MLflow's saved views show the
metrics and tags of the same columns. Figures for machines are in runner.report.data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from runner import stats
from runner.analysis import roofline
from runner.analysis.cause import count
from runner.analysis.certainty import is_too_wide
from runner.analysis.ranking import Row, most_rounds, warning
from runner.analysis.wording import ratio
from runner.protocol.verdicts import OK
from runner.results.metric_names import Metric, Tag
from runner.results.metrics import INTERVALS


class Place(Enum):
    """Where a ranking is shown."""

    SWEEP = auto()
    """The table at the end of a sweep."""
    COMPARE = auto()
    """The table of `compare`, in the terminal and as Markdown."""
    PAGE = auto()
    """report.html."""
    SHORT = auto()
    """report.md, which goes into a pull request."""
    MLFLOW = auto()
    """The saved views of MLflow's UI, which list metrics and tags: see runner.tracking.views."""


class Mark(Enum):
    """How a value is marked, so that it shows at a glance."""

    NONE = ""
    GOOD = "good"
    BAD = "bad"


EVERYWHERE = frozenset(Place)
TABLES = EVERYWHERE - {Place.MLFLOW}


@dataclass(frozen=True)
class Column:
    """One column of the ranking."""

    heading: str
    explanation: str
    """One full sentence that says what the column shows."""
    text: Callable[[Row], str]
    places: frozenset[Place] = EVERYWHERE
    source: Metric | Tag | None = None
    """The metric or tag that holds it in MLflow."""
    is_word: bool = False
    """Whether it holds words, which are aligned to the left, and not figures, which are aligned to the right."""
    mark: Callable[[Row], Mark] = lambda row: Mark.NONE
    interval: Callable[[Row], str] = lambda row: ""
    """Makes the text of the 95 % interval of its figure, for which a page has room; empty without one."""
    is_shown: Callable[[Sequence[Row]], bool] = lambda rows: True
    """Whether these rows have anything to show in it."""
    short: Callable[[Row], str] | None = None
    """Makes its text for a table that must fit the terminal, see runner.report.fitting; without it the column is left
    out there."""
    short_mark: Callable[[Row], Mark] = lambda row: Mark.NONE
    """How that text is marked."""


def columns(place: Place, rows: Sequence[Row]) -> list[Column]:
    """The columns that a ranking of these rows has in that place, in their order."""
    return [column for column in COLUMNS if place in column.places and column.is_shown(rows)]


def figure(figures: Mapping[str, float], name: str, form: str) -> str:
    """A figure in that format; ``-`` where there is none."""
    return format(figures[name], form) if name in figures else "-"


def interval_text(interval: stats.Interval | None) -> str:
    """The 95 % interval of a speed-up; ``-`` without one."""
    if interval is None:
        return "-"
    return TOO_WIDE if is_too_wide(*_of(interval)) else f"{ratio(interval.low)} to {ratio(interval.high)}"


# What stands in place of an interval that says no more than that there are too few rounds.
TOO_WIDE = "too wide"


def _of(interval: stats.Interval) -> tuple[float, float]:
    return interval.low, interval.high


def p99(row: Row) -> str:
    """p99 in ms; what it needs if a process has too few latencies for it; ``-`` if nothing was measured."""
    is_absent = Metric.P50 in row.metrics and Metric.P99 not in row.metrics
    return stats.needs(0.99) if is_absent else figure(row.metrics, Metric.P99, ".4g")


def _rate(row: Row) -> str:
    """The throughput with four digits, or with all digits before the decimal point."""
    value = row.metrics.get(Metric.SAMPLES_PER_S)
    return "-" if value is None else _samples(value)


def _samples(value: float) -> str:
    return f"{value:.0f}" if 1e4 <= value < 1e9 else f"{value:.4g}"


def _figure(metric: Metric, form: str) -> Callable[[Row], str]:
    return lambda row: figure(row.metrics, metric, form)


def _count(metric: Metric) -> Callable[[Row], str]:
    return lambda row: count(row.metrics[metric]) if metric in row.metrics else "-"


def _ends(metric: Metric, text: Callable[[float], str] = "{:.4g}".format) -> Callable[[Row], str]:
    low, high = INTERVALS[metric]

    def interval(row: Row) -> str:
        figures = row.metrics
        if low not in figures or high not in figures:
            return ""
        ends = figures[low], figures[high]
        return TOO_WIDE if is_too_wide(*ends) else f"{text(ends[0])} to {text(ends[1])}"

    return interval


def _speedup(row: Row) -> str:
    if row.speedup is None:
        return "-"
    return ratio(row.speedup) + (" (baseline)" if row.is_baseline else "")


def _speedup_interval(row: Row) -> str:
    return interval_text(row.verdict.interval if row.verdict else None)


def _short_interval(row: Row) -> str:
    interval = row.verdict.interval if row.verdict else None
    if interval is None or is_too_wide(*_of(interval)):
        return interval_text(interval)
    return f"{ratio(interval.low)}-{ratio(interval.high)}".replace("x", "")


def _short_answer(row: Row) -> str:
    """The verdict on a cell in a few words, also where it has no time or is no part of the comparison."""
    if row.cell.failure:
        return _without_time(row)
    if row.p50_ms is None:
        return "-"
    if row.is_wrong:
        return "WRONG output"
    if row.is_baseline:
        return "baseline"
    if row.verdict is not None and row.verdict.is_under_floor and not row.untrusted:
        return "under noise floor"
    return row.answer


def _without_time(row: Row) -> str:
    """What became of a cell that did not finish."""
    return "interrupted" if row.cell.is_interrupted else row.cell.status


def _short_answer_mark(row: Row) -> Mark:
    if row.cell.is_interrupted:
        return Mark.NONE
    if row.cell.failure or row.is_wrong or row.untrusted:
        return Mark.BAD
    return Mark.GOOD if row.answer == str(stats.Answer.FASTER.value) else Mark.NONE


def _output(row: Row) -> str:
    return "-" if row.p50_ms is None else OK if row.is_right else "WRONG"


def _output_mark(row: Row) -> Mark:
    return Mark.NONE if row.p50_ms is None else Mark.GOOD if row.is_right else Mark.BAD


def _evidence(row: Row) -> str:
    return _without_time(row) if row.cell.failure else row.cell.evidence


def _evidence_mark(row: Row) -> Mark:
    return Mark.NONE if row.cell.is_interrupted else Mark.GOOD if _evidence(row) == OK else Mark.BAD


def _peak_mark(row: Row) -> Mark:
    return Mark.BAD if row.position and row.position.roof == roofline.Roof.MISCOUNTED else Mark.NONE


def has_rounds(rows: Sequence[Row]) -> bool:
    """Whether any cell had more than one round, without which no interval is known."""
    return most_rounds(rows) > 1


def _has_answers(rows: Sequence[Row]) -> bool:
    return has_rounds(rows) or bool(warning(rows))


# Seconds by which the times that graphs took to make must differ for a column of their own.
_COMPILING_DIFFERS_S = 1.0


def _compiling_differs(rows: Sequence[Row]) -> bool:
    times_s = [row.metrics.get(Metric.COMPILE_TIME, 0.0) for row in rows if row.p50_ms is not None]
    return bool(times_s) and max(times_s) - min(times_s) >= _COMPILING_DIFFERS_S


COLUMNS = (
    Column(
        "p50 ms",
        "The median latency of one iteration or request, in milliseconds: the median over processes of each one's.",
        _figure(Metric.P50, ".4g"),
        source=Metric.P50,
        interval=_ends(Metric.P50),
        short=_figure(Metric.P50, ".4g"),
    ),
    Column(
        "p99 ms",
        "The latency that 99 of 100 iterations stay below; it needs 200 latencies in every process.",
        p99,
        frozenset({Place.COMPARE, Place.PAGE, Place.SHORT}),
        Metric.P99,
        interval=_ends(Metric.P99),
        # Without a single one it would be a column of reasons.
        is_shown=lambda rows: any(Metric.P99 in row.metrics for row in rows),
    ),
    Column(
        "cv %",
        "The coefficient of variation: the standard deviation of the iterations of a process over their mean.",
        _figure(Metric.CV, ".1f"),
        frozenset({Place.SWEEP, Place.COMPARE, Place.MLFLOW}),
        Metric.CV,
    ),
    Column(
        "speed-up",
        "The baseline's median latency over this cell's. Each work, like that of another model, has a baseline.",
        _speedup,
        source=Metric.SPEEDUP,
        interval=lambda row: "" if row.verdict is None or row.verdict.interval is None else _speedup_interval(row),
        short=lambda row: "-" if row.speedup is None else ratio(row.speedup),
    ),
    Column(
        "95 % interval",
        "The interval that holds the true speed-up 95 times in 100, from how much the rounds differ.",
        _speedup_interval,
        TABLES - {Place.PAGE},
        is_word=True,
        is_shown=has_rounds,
        short=_short_interval,
    ),
    Column(
        "difference",
        "Whether the rounds show that the cell is faster or slower than the baseline, corrected for the number of "
        "comparisons; the figure after `undecided` is the least difference that they would have shown.",
        lambda row: "baseline" if row.is_baseline and row.answer == "-" else row.answer,
        source=Tag.DIFFERENCE,
        is_word=True,
        is_shown=_has_answers,
        short=_short_answer,
        short_mark=_short_answer_mark,
    ),
    Column(
        "samples/s",
        "The throughput: how many elements of batches all instances finish per second, from the mean latency, so that "
        "slow iterations count.",
        _rate,
        EVERYWHERE - {Place.SHORT},
        Metric.SAMPLES_PER_S,
        interval=_ends(Metric.SAMPLES_PER_S, _samples),
    ),
    Column(
        "of peak",
        "How much of what the registers of its cores can do at most a cell does in the arithmetic that computes it, or "
        "of the memory's bandwidth where that is its roof; `python -m runner peak` measures both once.",
        lambda row: roofline.short(row.cell),
        EVERYWHERE - {Place.SHORT},
        Metric.OF_REGISTERS,
        is_word=True,
        mark=_peak_mark,
        is_shown=lambda rows: any(row.position for row in rows),
    ),
    Column(
        "faults/iteration",
        "The minor page faults per timed iteration: memory that the allocator gave back and had to ask for again.",
        _count(Metric.MINOR_FAULTS),
        EVERYWHERE - {Place.SHORT},
        Metric.MINOR_FAULTS,
    ),
    Column(
        "RSS MB",
        "The most memory that the process had resident, in megabytes.",
        _figure(Metric.RSS_PEAK, ".4g"),
        frozenset({Place.COMPARE, Place.MLFLOW}),
        Metric.RSS_PEAK,
    ),
    Column(
        "compile s",
        "The seconds that the graph took to make before the timed loop: tracing, compiling, and by how much the first "
        "calls took longer than later ones.",
        _figure(Metric.COMPILE_TIME, ".4g"),
        frozenset({Place.SWEEP, Place.COMPARE, Place.PAGE}),
        Metric.COMPILE_TIME,
        is_shown=_compiling_differs,
        short=_figure(Metric.COMPILE_TIME, ".4g"),
    ),
    Column(
        "rel. error",
        "The distance of the output from that of fp32 eager, relative to its length (L2 norm), in the tensor or sample "
        "in which it is largest.",
        _figure(Metric.RELATIVE_ERROR, ".1e"),
        frozenset({Place.SWEEP, Place.COMPARE, Place.MLFLOW}),
        Metric.RELATIVE_ERROR,
    ),
    Column(
        "max abs. error",
        "The largest difference of one element of any output from that of fp32 eager.",
        _figure(Metric.LARGEST_ERROR, ".1e"),
        frozenset({Place.COMPARE}),
        Metric.LARGEST_ERROR,
    ),
    Column(
        "isa",
        "The instruction set that oneDNN spent most of its time in.",
        lambda row: row.cell.isa if row.p50_ms is not None else "-",
        EVERYWHERE - {Place.SHORT},
        Tag.ISA,
        is_word=True,
    ),
    Column(
        "output",
        "Whether the output is the model's, within the tolerance of its precision; a WRONG one can't win.",
        _output,
        EVERYWHERE - {Place.SHORT},
        Tag.QUALITY,
        is_word=True,
        mark=_output_mark,
    ),
    Column(
        "evidence",
        "Whether the worker proved that what ran is what was asked; of a cell that failed, what became of it.",
        _evidence,
        EVERYWHERE - {Place.SHORT},
        Tag.EVIDENCE,
        is_word=True,
        mark=_evidence_mark,
    ),
    Column(
        "USD per million",
        "What a million samples cost on a machine at this price that does nothing else.",
        lambda row: "-" if row.usd_per_million is None else f"{row.usd_per_million:.3g}",
        # In MLflow it is a figure like any other: its views are the same for sweeps without a price.
        frozenset({Place.SWEEP, Place.COMPARE, Place.PAGE}),
        Metric.USD_PER_MILLION,
        is_shown=lambda rows: any(row.usd_per_million is not None for row in rows),
    ),
    Column(
        "front",
        "A star marks the Pareto front: no other right cell is as good in every figure and better in one.",
        lambda row: "*" if row.on_front else "",
        frozenset({Place.COMPARE}),
        is_word=True,
        short=lambda row: "*" if row.on_front else "",
    ),
    Column(
        "main cause",
        "The part of an iteration whose change explains most of the distance from the baseline, with that change.",
        lambda row: row.main_cause,
        source=Tag.MAIN_CAUSE,
        is_word=True,
        short=lambda row: row.main_cause,
    ),
)
