"""Cells in order of speed against a baseline: the data behind the table, the CSV and the picture. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from runner import stats
from runner.config import names
from runner.matrix.cell import worded
from runner.matrix.rules import check_rule, matches
from runner.protocol.cell import WORK as WORK
from runner.protocol.errors import RunnerError
from runner.results.metrics import cell_metrics
from runner.results.outcome import CellRecord

# Chance of calling any cell of a sweep different when all are equal.
LEVEL = 0.05
# What stands in the place of an answer where a contaminated round takes part.
UNTRUSTED = "can't be trusted"


def distrust(cells: Iterable[tuple[int, int, str]]) -> str:
    """What must be said first of a comparison with contaminated rounds in it; empty without one.

    Args:
        cells: of each, how many rounds are contaminated, how many it has, and why.
    """
    parts = [(bad, rounds, why) for bad, rounds, why in cells if rounds]
    contaminated, every = sum(bad for bad, _, _ in parts), sum(rounds for _, rounds, _ in parts)
    if not contaminated:
        return ""
    why = next(why for bad, _, why in parts if bad)
    were = "round was" if every == 1 else "rounds were"
    return f"This comparison {UNTRUSTED}: {contaminated} of {every} {were} contaminated ({why})."


def in_words(verdict: stats.Verdict | None, untrusted: bool = False) -> str:
    """``faster``, ``slower``, ``undecided (< 4 %)``, with the floor's word; ``-`` of one round; or UNTRUSTED."""
    if untrusted:
        return UNTRUSTED
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
    untrusted: bool = False
    """Measured, and a round of it or of the baseline is contaminated."""

    @property
    def is_undecided(self) -> bool:
        """Whether the rounds show no difference from the baseline, or none that equal cells would not show as well."""
        found = self.verdict
        return found is not None and (found.answer is stats.Answer.UNDECIDED or found.is_under_floor)

    @property
    def answer(self) -> str:
        """See `in_words`."""
        return in_words(self.verdict, self.untrusted)

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


def cell_name(row: Row, distinguishing: Sequence[str]) -> str:
    """A cell by its values, see `worded`."""
    return names.visible(", ".join(worded(axis, row.axes[axis]) for axis in distinguishing))


def most_rounds(rows: Sequence[Row]) -> int:
    """Rounds of the cell that had most."""
    return max((len(row.record.outcomes) for row in rows), default=1)


def warning(rows: Sequence[Row]) -> str:
    """See `distrust`; of the cells that were measured."""
    records = [row.record for row in rows if row.p50_ms is not None]
    return distrust((len(r.contamination), len(r.rounds), next(iter(r.contamination.values()), "")) for r in records)


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


def unequal_work(one: CellRecord, other: CellRecord) -> str:
    """What of the work differs between two cells, in words; empty when they do the same."""
    pairs = [(key, one.labels.get(key), other.labels.get(key)) for key in WORK]
    return ", ".join(f"{key} {before} and {after}" for key, before, after in pairs if before != after)


def rank(
    records: Sequence[CellRecord],
    baseline_id: str,
    level: float = LEVEL,
    floors: Mapping[int, float] | None = None,
) -> list[Row]:
    """Rows fastest first; then those whose output is wrong, then those without a measurement, in the order given.

    Args:
        records: the cells.
        baseline_id: of one of them, or empty.
        level: chance of calling any cell different when all are equal: see runner.sweep.rounds.level_of().
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
        disturbed = bool(record.contamination or (baseline and baseline.contamination))
        untrusted = p50 is not None and disturbed
        is_baseline = record.cell_id == baseline_id
        rows.append(Row(record, metrics[record.cell_id], speedup, is_baseline, untrusted=untrusted))
    rows = _judged(rows, baseline, level, floors)
    return sorted(rows, key=lambda row: (row.p50_ms is None, not row.is_right, row.p50_ms or 0.0))


def _judged(
    rows: list[Row], baseline: CellRecord | None, level: float, floors: Mapping[int, float] | None
) -> list[Row]:
    """The rows that have a speed-up, with a verdict each: all of them together are one family of comparisons."""
    rated = [row for row in rows if row.speedup is not None and not row.is_baseline]
    if baseline is None or not rated:
        return rows
    verdicts = stats.compare(baseline.rounds, [row.record.rounds for row in rated], level, floors)
    by_cell = {row.record.cell_id: verdict for row, verdict in zip(rated, verdicts, strict=True)}
    return [replace(row, verdict=by_cell.get(row.record.cell_id)) for row in rows]
