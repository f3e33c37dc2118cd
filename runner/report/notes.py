"""The sentences below a ranking that its reader must know, each written here once for every format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runner.analysis import roofline
from runner.analysis.comparison import Group
from runner.analysis.ranking import TOO_FEW, Row, most_rounds
from runner.analysis.wording import ratio
from runner.report import data
from runner.report.columns import figure
from runner.report.terminal import label, plural
from runner.results.metric_names import Metric
from runner.results.metrics import RUNNER_CPU_LIMIT_PCT
from runner.results.outcome import CellRecord

# How many cells are described one by one; the others are only counted.
_DESCRIBED = 5
# How many failures and wrong outputs are named; the table has them all.
_NAMED = 50
ONE_ROUND = "one round: small differences may be luck; rounds=5 tells"


def below(
    rows: Sequence[Row], distinguishing: Sequence[str], records: Mapping[str, CellRecord] | None = None
) -> list[str]:
    """The notes on any ranking: failures, wrong outputs, disturbance, and what this many rounds can't show.

    Args:
        rows: ranked.
        distinguishing: the axes and settings that distinguish the cells.
        records: cell_id -> record, for what stands out in single iterations; empty if there are none.
    """
    notes = _first([note for row in rows for note in _of_cell(row, distinguishing)], "failed or wrong", _NAMED)
    notes += _disturbances(rows, distinguishing)
    notes += _remarks(rows, distinguishing)
    notes += _shapes(rows, distinguishing, records or {})
    notes += _imprecise(rows, distinguishing)
    notes += _means(rows, distinguishing)
    notes += _undecided(rows)
    if most_rounds(rows) == 1 and sum(row.p50_ms is not None for row in rows) > 1:
        notes.append(ONE_ROUND)
    return notes


def _undecided(rows: Sequence[Row]) -> list[str]:
    """What ``undecided (< 8 %)`` means, with the figure of the first row that says it; none if no row does."""
    said = next((row.answer for row in rows if row.answer.startswith("undecided (< ")), "")
    if not said:
        are_few = any(row.answer == TOO_FEW for row in rows)
        return (
            [f"{TOO_FEW}: only a difference of more than twice would have shown; rounds=5 tells more"]
            if are_few
            else []
        )
    least = said.partition("(< ")[2].rstrip(")")
    return [f"{said}: no clear difference; one of {least} or more would most likely have shown in this many rounds"]


def of_group(group: Group, distinguishing: Sequence[str], bound: float | None) -> list[str]:
    """The notes on one group of a comparison: baseline, front, the best under a bound, then those of `below`."""
    notes = []
    if group.baseline is None:
        notes.append("no baseline in this group: no cell of it that was measured with a right output is one")
    if any(row.on_front for row in group.rows):
        cells = plural(sum(row.on_front for row in group.rows), "cell")
        figures = ", ".join(data.FIGURES[name] for name in group.front)
        notes.append(f"front *: {cells}; no other is as good in {figures} at once")
    if bound is not None:
        notes.append(f"best with max_abs_err of at most {bound:g}: {_best(group, distinguishing)}")
    return [*notes, *below(group.rows, distinguishing)]


def rows_left_out(rows: Sequence[object], top: int) -> list[str]:
    """A note on how many rows a table does not show; none if it shows all."""
    return [f"{len(rows) - top} more rows: --top {len(rows)} shows them"] if len(rows) > top else []


def _of_cell(row: Row, distinguishing: Sequence[str]) -> list[str]:
    """The notes on one cell: its failure, what is wrong with its output, and whether the runner disturbed it."""
    busy = row.metrics.get(Metric.RUNNER_CPU, 0.0)
    if not (row.cell.failure or row.is_wrong or busy > RUNNER_CPU_LIMIT_PCT):
        return []
    notes, name = [], label(row.labels, distinguishing)
    if row.cell.is_interrupted:
        notes.append(f"{name} was interrupted: python -m runner resume {row.cell.sweep} measures it")
    elif row.cell.failure:
        notes.append(f"{row.cell.status} {name}: {row.cell.failure}")
    if row.is_wrong:
        notes.append(f"WRONG output of {name}: {row.cell.quality}; it is out of the ranking")
    if busy > RUNNER_CPU_LIMIT_PCT:
        notes.append(f"the runner used {busy:.1f} % of a core while {name} measured")
    return notes


def _disturbances(rows: Sequence[Row], distinguishing: Sequence[str]) -> list[str]:
    """The notes on disturbed rounds, per cell, and on measurements that were made again."""
    notes = []
    for row in rows:
        if row.cell.contaminated:
            rounds = ", ".join(str(number + 1) for number in row.cell.contaminated)
            name = label(row.labels, distinguishing)
            notes.append(f"disturbed {name}, round {rounds}: {row.cell.contamination}")
    notes = _first(notes, "disturbed")
    reruns = sum(row.cell.reruns for row in rows)
    if reruns:
        notes.append(f"{plural(reruns, 'disturbed measurement')} made again; the last one of each job counts")
    return notes


# Below this share of its threads a step hardly needs the CPU. A shorter window says nothing about it, because the
# kernel counts in ticks.
_IDLE_BELOW, _SHORTEST_WINDOW_MS = 0.6, 200.0


def _remarks(rows: Sequence[Row], distinguishing: Sequence[str]) -> list[str]:
    """The notes on what cells are, for which no check fails: what their workers noted, and idle cores."""
    notes = []
    for row in rows:
        texts = [*row.cell.notes, *_idle_cores(row), *_of_count(row)]
        if texts:
            notes.append(f"{label(row.labels, distinguishing)}: {'; '.join(texts)}")
    return _first(notes, "with notes like these")


def _of_count(row: Row) -> list[str]:
    """What is wrong with the count of a cell's operations: more than its cores can do, or two witnesses at odds."""
    is_miscounted = row.position is not None and row.position.roof == roofline.Roof.MISCOUNTED
    texts = [row.position.sentence if row.position and is_miscounted else "", roofline.disagreement(row.cell)]
    return [text for text in texts if text]


def _idle_cores(row: Row) -> list[str]:
    """A note on a cell that barely uses its cores: it sleeps, waits, or leaves threads without work.

    What others took of the cores was not left idle.
    """
    figures = row.metrics
    busy, threads = figures.get(Metric.CORES_BUSY), figures.get(Metric.THREADS)
    if busy is None or not threads or row.cell.is_served:
        return []
    window_ms = figures.get(Metric.P50, 0.0) * figures.get(Metric.ITERATIONS, 0.0) / figures.get(Metric.PROCESSES, 1.0)
    others = sum(figures.get(f"contamination/{name}_pct", 0.0) for name in ("foreign_cpu", "steal")) / 100
    if busy + others >= _IDLE_BELOW * threads or window_ms < _SHORTEST_WINDOW_MS:
        return []
    return [f"{busy:.1f} of {threads:.0f} cores busy: its time is not that of arithmetic on all of them"]


def _shapes(rows: Sequence[Row], distinguishing: Sequence[str], records: Mapping[str, CellRecord]) -> list[str]:
    """One note per cell on what stands out in latencies (drift, several speeds), from the first process that has it."""
    notes = []
    for row in rows:
        record = records.get(row.cell.cell_id)
        number, texts = record.shape_notes if record else (0, ())
        if texts:
            notes.append(f"{label(row.labels, distinguishing)}, round {number + 1}: {'; '.join(texts)}")
    return _first(notes, "with latencies like these")


def _first(notes: list[str], what: str, most: int = _DESCRIBED) -> list[str]:
    """The first of these notes, and one that counts the further cells."""
    more = len(notes) - most
    return notes[:most] + ([f"{plural(more, 'further cell')} {what}"] if more > 0 else [])


def _imprecise(rows: Sequence[Row], distinguishing: Sequence[str]) -> list[str]:
    """A note on the cells that reached max_time_s before the median of a process was known as well as asked."""
    short = []
    for row in rows:
        target, width = row.labels.get("target_ci_pct", "null"), row.metrics.get(Metric.PROCESS_CI95)
        if row.labels.get("iterations") == "null" and target != "null" and width is not None and width > float(target):
            short.append((width, row))
    if not short:
        return []
    width, widest = max(short, key=lambda pair: pair[0])
    labels = widest.labels
    return [
        f"{labels['max_time_s']} s per process did not reach the {labels['target_ci_pct']} % precision asked for in "
        f"{plural(len(short), 'cell')} (worst {width:.2g} %, {label(labels, distinguishing)}). For tighter figures "
        "raise max_time_s"
    ]


# Where the mean latency is this many times the median, the throughput and the median seem to contradict each other.
_SKEWED = 1.25


def _means(rows: Sequence[Row], distinguishing: Sequence[str]) -> list[str]:
    """A note on the cell whose mean is furthest from its median: samples/s is by the mean, and p50 is the median."""
    skews = [
        (row.metrics["latency/mean_ms"] / row.p50_ms, row)
        for row in rows
        if row.p50_ms and "latency/mean_ms" in row.metrics and not row.cell.is_served
    ]
    skewed = [skew for skew in skews if skew[0] >= _SKEWED]
    if not skewed:
        return []
    most, row = max(skewed, key=lambda skew: skew[0])
    return [
        f"samples/s is by the mean and p50 is the median, which differ in {plural(len(skewed), 'cell')} because some "
        f"iterations took far longer (most in {label(row.labels, distinguishing)}: the mean is {most:.2g} times p50)"
    ]


def _best(group: Group, distinguishing: Sequence[str]) -> str:
    """The fastest cell that keeps the bound, or how far the others are from it."""
    if group.best is None:
        errors = [row.metrics[Metric.LARGEST_ERROR] for row in group.rows if _has_error(row)]
        return f"no right cell; the least is {min(errors):.2g}" if errors else "no right cell; none has a known error"
    speedup = "" if group.best.speedup is None else f", {ratio(group.best.speedup)}"
    p50 = figure(group.best.metrics, Metric.P50, ".4g")
    return f"{label(group.best.labels, distinguishing)}, {p50} ms{speedup}"


def _has_error(row: Row) -> bool:
    return row.is_right and Metric.LARGEST_ERROR in row.metrics
