"""Cells in order of speed against a baseline: the data behind the table, the CSV and the picture. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner.errors import RunnerError
from runner.matrix import check_rule, matches
from runner.metrics import cell_metrics
from runner.outcome import CellRecord


@dataclass(frozen=True)
class Row:
    """One cell of the ranking."""

    record: CellRecord
    metrics: Mapping[str, float]
    speedup: float | None
    """Baseline's p50 over this cell's; None when either was not measured or is wrong, or an iteration is other work."""
    is_baseline: bool

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


def _work(record: CellRecord) -> tuple[str | None, ...]:
    """What one iteration computes: latencies of different work have no ratio."""
    return tuple(
        record.labels.get(key)
        for key in ("model", "model._target_", "model.kwargs", "batch_size", "sequence_length", "instances")
    )


def rank(records: Sequence[CellRecord], baseline_id: str) -> list[Row]:
    """Rows fastest first; then those whose output is wrong, then those without a measurement, in the order given."""
    metrics = {record.cell_id: cell_metrics(record) for record in records}
    base = metrics.get(baseline_id, {}).get("latency/p50_ms")
    work = next((_work(record) for record in records if record.cell_id == baseline_id), None)
    wrong = {record.cell_id for record in records if record.quality != "ok"}
    rows = []
    for record in records:
        p50 = metrics[record.cell_id].get("latency/p50_ms")
        right = not {record.cell_id, baseline_id} & wrong
        speedup = base / p50 if base and p50 and right and _work(record) == work else None
        rows.append(Row(record, metrics[record.cell_id], speedup, record.cell_id == baseline_id))
    return sorted(rows, key=lambda row: (row.p50_ms is None, not row.is_right, row.p50_ms or 0.0))
