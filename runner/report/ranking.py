"""Cells in order of speed against a baseline: the data behind the table, the CSV and the picture. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from runner import stats
from runner.errors import RunnerError
from runner.matrix import check_rule, matches
from runner.metrics import cell_metrics
from runner.outcome import CellRecord


def in_words(verdict: stats.Verdict | None) -> str:
    """``faster``, ``slower``, ``undecided (< 4 %)``, or ``-`` when one round can't tell; with the floor's word."""
    if verdict is None or verdict.answer is stats.Answer.UNKNOWN:
        return "-"
    if verdict.answer is stats.Answer.UNDECIDED and verdict.detectable is not None:
        least = 100 * verdict.detectable
        return f"undecided (< {least:.0f} %)" if least >= 10 else f"undecided (< {least:.1f} %)"
    return f"{verdict.answer.value}, under the noise floor" if verdict.is_under_floor else str(verdict.answer.value)


@dataclass(frozen=True)
class Row:
    """One cell of the ranking."""

    record: CellRecord
    metrics: Mapping[str, float]
    speedup: float | None
    """Baseline's p50 over this cell's; None when either was not measured or is wrong, or an iteration is other work."""
    is_baseline: bool
    verdict: stats.Verdict | None = None
    """What the rounds say about the speed-up; None for the baseline and where there is none."""

    @property
    def is_undecided(self) -> bool:
        """Whether the rounds show no difference from the baseline, or none that equal cells would not show as well."""
        found = self.verdict
        return found is not None and (found.answer is stats.Answer.UNDECIDED or found.is_under_floor)

    @property
    def answer(self) -> str:
        """See `in_words`."""
        return in_words(self.verdict)

    @property
    def axes(self) -> Mapping[str, str]:
        """Axis or setting -> value."""
        return self.record.labels

    @property
    def is_right(self) -> bool:
        """Whether its output is the model's, within the tolerance of its precision: else it can't win."""
        return self.record.quality == "ok"

    @property
    def p50_ms(self) -> float | None:
        """None when no round finished."""
        return self.metrics.get("latency/p50_ms")


def pick_baseline(cells: Sequence[Mapping[str, str]], wanted: Mapping[str, object]) -> int:
    """Index of the baseline among cells in the order they were asked for: the first that has the wanted axes.

    Raises:
        RunnerError: ``wanted`` names no axis, or no cell has it.
    """
    if not wanted:
        return 0
    rule = check_rule(wanted, "baseline")
    if len(cells) == 1:
        return 0  # a cell alone is its own baseline, so that one of a matrix can be run again by itself
    for index, axes in enumerate(cells):
        if matches(rule, axes):
            return index
    asked = ", ".join(f"{axis}={'|'.join(values)}" for axis, values in rule.items())
    raise RunnerError(f"baseline={{{asked}}}: no cell of this matrix has it; choose one of its cells")


# What one iteration computes: latencies of different work have no ratio.
WORK = ("model", "model._target_", "model.kwargs", "batch_size", "sequence_length", "instances")


def unequal_work(one: CellRecord, other: CellRecord) -> str:
    """What of the work differs between two cells, in words; empty when they do the same."""
    pairs = [(key, one.labels.get(key), other.labels.get(key)) for key in WORK]
    return ", ".join(f"{key} {before} and {after}" for key, before, after in pairs if before != after)


def rank(records: Sequence[CellRecord], baseline_id: str, floors: Mapping[int, float] | None = None) -> list[Row]:
    """Rows fastest first; then those whose output is wrong, then those without a measurement, in the order given.

    Args:
        records: the cells.
        baseline_id: of one of them, or empty.
        floors: see `stats.compare`.
    """
    metrics = {record.cell_id: cell_metrics(record) for record in records}
    base = metrics.get(baseline_id, {}).get("latency/p50_ms")
    wrong = {record.cell_id for record in records if record.quality != "ok"}
    baseline = next((record for record in records if record.cell_id == baseline_id), None)
    rows = []
    for record in records:
        p50 = metrics[record.cell_id].get("latency/p50_ms")
        right = not {record.cell_id, baseline_id} & wrong
        alike = baseline is not None and not unequal_work(baseline, record)
        speedup = base / p50 if base and p50 and right and alike else None
        rows.append(Row(record, metrics[record.cell_id], speedup, record.cell_id == baseline_id))
    rows = _judged(rows, baseline, floors)
    return sorted(rows, key=lambda row: (row.p50_ms is None, not row.is_right, row.p50_ms or 0.0))


def _judged(rows: list[Row], baseline: CellRecord | None, floors: Mapping[int, float] | None) -> list[Row]:
    """The rows that have a speed-up, with a verdict each: all of them together are one family of comparisons."""
    rated = [row for row in rows if row.speedup is not None and not row.is_baseline]
    if baseline is None or not rated:
        return rows
    verdicts = stats.compare(baseline.rounds, [row.record.rounds for row in rated], floors=floors)
    by_cell = {row.record.cell_id: verdict for row, verdict in zip(rated, verdicts, strict=True)}
    return [replace(row, verdict=by_cell.get(row.record.cell_id)) for row in rows]
