"""The one ranking: cells in order of speed against a baseline, each with its speed-up, its verdict and its cause. Pure.

A sweep's end, `compare`, the report and MLflow all show these rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from runner import stats
from runner.analysis import pareto_front, roofline, same_model
from runner.analysis.cause import main_cause
from runner.analysis.certainty import is_too_few
from runner.analysis.price import usd_per_million
from runner.config import names
from runner.matrix.rules import check_rule, matches
from runner.protocol.cell import WORK, in_words
from runner.protocol.errors import RunnerError
from runner.results.cells import LEVEL, CellRow, cell_row
from runner.results.metric_names import Metric
from runner.results.outcome import CellRecord
from runner.results.peaks import HostPeaks

# The text in place of an answer where a contaminated round takes part.
UNTRUSTED = "can't be trusted"
# The text of an answer where only a difference of more than twice would have shown.
TOO_FEW = "undecided (too few rounds)"
Labels = Mapping[str, str]


def _in_words(verdict: stats.Verdict | None, untrusted: bool) -> str:
    """The answer of a ranking, see `Row.answer`."""
    if untrusted:
        return UNTRUSTED
    if verdict is None or verdict.answer is stats.Answer.UNKNOWN:
        return "-"
    if verdict.answer is stats.Answer.UNDECIDED and verdict.detectable is not None:
        if is_too_few(verdict.detectable):
            return TOO_FEW
        least = 100 * verdict.detectable
        return f"undecided (< {least:.0f} %)" if least >= 10 else f"undecided (< {least:.1f} %)"
    return f"{verdict.answer.value}, under the noise floor" if verdict.is_under_floor else str(verdict.answer.value)


@dataclass(frozen=True)
class Row:
    """One cell of the ranking."""

    cell: CellRow
    labels: Labels
    """The cell's axes and settings; in a comparison also its sweep, and what hosts and versions differ in."""
    is_baseline: bool = False
    """Whether the cells that do the same work are set against it."""
    speedup: float | None = None
    """Baseline's p50 over this cell's; None when either was not measured or is wrong, or an iteration is other work."""
    verdict: stats.Verdict | None = None
    """What the rounds say about the speed-up; None for the baseline and where there is none."""
    untrusted: bool = False
    """Whether it was measured, and a round of it or of the baseline is contaminated."""
    on_front: bool = False
    """Whether it is right, and no other right cell is as good in every figure of the front and better in one."""
    main_cause: str = "-"
    """What explains most of its distance from the baseline; ``-`` where there is nothing to explain."""
    usd_per_million: float | None = None
    """What a million samples cost; None where the host has no price."""

    @property
    def is_undecided(self) -> bool:
        """Whether the rounds show no difference from the baseline, or none that equal cells would not show as well."""
        verdict = self.verdict
        return verdict is not None and (verdict.answer is stats.Answer.UNDECIDED or verdict.is_under_floor)

    @property
    def answer(self) -> str:
        """``faster``, ``slower`` or ``undecided (< 4 %)``, maybe under the noise floor; else UNTRUSTED, or ``-``.

        A cell that a race dropped before a difference from the baseline showed is ``dropped after round 2``.
        """
        is_decided = self.verdict is not None and self.verdict.answer in (stats.Answer.FASTER, stats.Answer.SLOWER)
        if self.cell.dropped_after and not (is_decided or self.is_baseline or self.untrusted):
            return f"dropped after round {self.cell.dropped_after}"
        return _in_words(self.verdict, self.untrusted)

    @property
    def metrics(self) -> Mapping[str, float]:
        """The cell's figures."""
        return self.cell.metrics

    @property
    def position(self) -> roofline.Position | None:
        """Where it stands below the roofs of its host; None where that is not known."""
        return roofline.position(self.cell)

    @property
    def p50_ms(self) -> float | None:
        """Median latency per iteration; None when no round finished."""
        return self.cell.p50_ms

    @property
    def is_right(self) -> bool:
        """Whether its output is the model's, within the tolerance of its precision: else it can't win."""
        return self.cell.is_right

    @property
    def is_wrong(self) -> bool:
        """Whether it was measured and its output is not the model's."""
        return self.p50_ms is not None and not self.is_right


T = TypeVar("T", CellRow, Row)


@dataclass(frozen=True)
class Ranking:
    """The ranked cells of one sweep, with the records for what draws single iterations."""

    rows: Sequence[Row]
    distinguishing: Sequence[str]
    """The axes and settings that distinguish the cells."""
    records: Mapping[str, CellRecord]
    """The record of each cell, by cell_id."""

    @property
    def baseline(self) -> Row | None:
        """The row of the sweep's baseline; None if it has had no job."""
        return next((row for row in self.rows if row.is_baseline), None)

    def baseline_of(self, row: Row) -> Row | None:
        """The row that this one is set against: the baseline of the cells that do the same work."""
        same = (other for other in self.rows if other.is_baseline)
        return next((other for other in same if not unequal_work(other.labels, row.labels)), None)


def rank_sweep(
    records: Sequence[CellRecord],
    baseline_id: str,
    distinguishing: Sequence[str],
    level: float = LEVEL,
    floors: Mapping[int, float] | None = None,
    sweep: str = "",
    usd_per_hour: float | None = None,
    peaks: HostPeaks | None = None,
) -> Ranking:
    """The ranking of a sweep's own cells; see `rank`.

    Cells that do other work than the baseline (another model, another batch size) are ranked after its own, work by
    work, against a baseline of their own: the cell that is like the sweep's in all else, see `baseline_among`.

    Args:
        baseline_id: cell_id of one of them, or empty.
        sweep: the name of its folder.
        usd_per_hour: what its host costs, if that is known.
        peaks: what its host can do at most; without them no cell has a position below a roof.
    """
    cells = [cell_row(record, sweep, record.cell_id == baseline_id) for record in records]
    cells = [roofline.with_peaks(cell, peaks) for cell in cells] if peaks else cells
    baseline = next((cell for cell in cells if cell.is_baseline), None)
    groups = by_work(cells)
    groups.sort(key=lambda members: not any(cell.is_baseline for cell in members))
    rows: list[Row] = []
    for number, members in enumerate(groups):
        own = baseline if number == 0 or baseline is None else _baseline_like(baseline, members, distinguishing)
        rows += rank(members, own, level, floors, prices={sweep: usd_per_hour})
    return Ranking(rows, distinguishing, {record.cell_id: record for record in records})


def _baseline_like(baseline: CellRow, cells: Sequence[CellRow], distinguishing: Sequence[str]) -> CellRow | None:
    """The baseline of cells that do other work than the sweep's."""
    like_own = {key: (baseline.labels.get(key, ""),) for key in distinguishing if key not in WORK}
    place = baseline_among(range(len(cells)), cells, [cell.labels for cell in cells], like_own)
    return None if place is None else cells[place]


def by_work(cells: Sequence[T]) -> list[list[T]]:
    """The cells, or their rows, by the work that they do; the groups are in the order of their first ones."""
    groups: dict[tuple[str | None, ...], list[T]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell.labels.get(key) for key in WORK), []).append(cell)
    return list(groups.values())


def baseline_among(
    places: Iterable[int],
    cells: Sequence[CellRow],
    labels: Sequence[Labels],
    like_own: Mapping[str, Sequence[str]] | None,
) -> int | None:
    """The place of the baseline of cells that do the same work: a sweep's own baseline, else a cell like the first
    sweep's, else the slowest; each with a right output. None without such a cell.

    Args:
        places: which of the cells do that work.
        labels: the labels of each cell.
        like_own: axis -> the values that the baseline of the first sweep has; None where there is none.
    """
    right = [place for place in places if cells[place].is_right]
    choices = [place for place in right if cells[place].is_baseline]
    choices += [place for place in right if like_own is not None and matches(like_own, labels[place])]
    choices += sorted(right, key=lambda place: -(cells[place].p50_ms or 0.0))
    return choices[0] if choices else None


def rank(
    cells: Sequence[CellRow],
    baseline: CellRow | None,
    level: float = LEVEL,
    floors: Mapping[int, float] | None = None,
    labels: Sequence[Labels] | None = None,
    prices: Mapping[str, float | None] | None = None,
) -> list[Row]:
    """Rows fastest first, those of other work than the baseline's after its own; then those whose output is wrong, then
    those without a measurement, in the order given.

    Args:
        cells: all of them, the baseline included.
        baseline: one of ``cells``.
        level: the chance of calling any cell different when all are equal, see runner.sweep.rounds.level_of().
        floors: see `stats.compare`.
        labels: the labels of the cells, where those are more than their axes and settings.
        prices: sweep -> USD per hour of its host, where that is known.
    """
    named = list(zip(cells, labels or [cell.labels for cell in cells], strict=True))
    base_labels = next((its_labels for cell, its_labels in named if cell is baseline), {})
    equal = [baseline is not None and not unequal_work(base_labels, its_labels) for _, its_labels in named]
    if baseline is not None:
        models = [
            same_model.difference(baseline, cell) if does_equal_work else ""
            for (cell, _), does_equal_work in zip(named, equal, strict=True)
        ]
        equal = [does_equal_work and not model for does_equal_work, model in zip(equal, models, strict=True)]
        named = [
            (replace(cell, notes=(model, *cell.notes)) if model else cell, its_labels)
            for (cell, its_labels), model in zip(named, models, strict=True)
        ]
    rows = [
        _rated(Row(cell, its_labels, cell is baseline), baseline, does_equal_work)
        for (cell, its_labels), does_equal_work in zip(named, equal, strict=True)
    ]
    rows = [
        replace(row, usd_per_million=usd_per_million(price, row.metrics.get(Metric.SAMPLES_PER_S)))
        for row in rows
        for price in [(prices or {}).get(row.cell.sweep)]
    ]
    rows = _with_verdicts(rows, baseline, level, floors)
    rows = _with_front(rows, [baseline is None or does_equal_work for does_equal_work in equal])
    if baseline is not None:
        rows = [replace(row, main_cause=_cause(row, baseline)) for row in rows]
    is_other = {id(row): baseline is not None and not equally for row, equally in zip(rows, equal, strict=True)}

    def place(row: Row) -> tuple[bool, bool, bool, float]:
        is_missing, is_wrong, p50_ms = row.cell.place
        return is_missing, is_wrong, is_other[id(row)], p50_ms

    return sorted(rows, key=place)


def _rated(row: Row, baseline: CellRow | None, does_equal_work: bool) -> Row:
    """The row with its speed-up, and whether that can be trusted."""
    if baseline is None:
        return replace(row, untrusted=row.p50_ms is not None and bool(row.cell.contamination))
    disturbed = bool(row.cell.contamination or baseline.contamination)
    speedup = None
    if does_equal_work and row.is_right and baseline.is_right and row.p50_ms and baseline.p50_ms:
        speedup = baseline.p50_ms / row.p50_ms
    return replace(row, speedup=speedup, untrusted=row.p50_ms is not None and disturbed)


def _with_verdicts(
    rows: list[Row], baseline: CellRow | None, level: float, floors: Mapping[int, float] | None
) -> list[Row]:
    """A verdict for each row that has a speed-up: all of them together are one family of comparisons."""
    rated = [index for index, row in enumerate(rows) if row.speedup is not None and not row.is_baseline]
    if baseline is None or not rated:
        return rows
    # In an order of their own, so that the end of a sweep and `compare` round their sums alike.
    rated.sort(key=lambda index: (rows[index].cell.sweep, rows[index].cell.cell_id))
    table = fitted([baseline, *(rows[index].cell for index in rated)])
    verdicts = stats.compare(table, 0, range(1, len(rated) + 1), level, floors)
    for index, verdict in zip(rated, verdicts, strict=True):
        rows[index] = replace(rows[index], verdict=verdict)
    return rows


def _with_front(rows: list[Row], may_be: Sequence[bool]) -> list[Row]:
    """The Pareto front of the right rows of equal work; what others disturbed is no row to choose by."""
    right = [index for index, row in enumerate(rows) if may_be[index] and row.is_right and not row.untrusted]
    for index, is_on in zip(right, pareto_front.members([rows[index].cell for index in right]), strict=True):
        if is_on:
            rows[index] = replace(rows[index], on_front=True)
    return rows


def _cause(row: Row, baseline: CellRow) -> str:
    """The main cause of a difference that the rounds show."""
    return "-" if row.is_baseline or row.is_undecided or row.speedup is None else main_cause(baseline, row.cell)


def fitted(cells: Sequence[CellRow]) -> stats.Fit:
    """The cells with the rounds in which they were measured taken out: the median of each process stands for it."""
    return stats.fit([cell.by_round for cell in cells])


def warning(rows: Sequence[Row]) -> str:
    """The sentence that comes before a ranking with contaminated rounds in it; empty without one.

    It doubts the whole ranking, or else the cells whose speed-ups these rounds are part of.
    """
    cells = [row.cell for row in rows if row.p50_ms is not None and row.cell.medians_s]
    contaminated, rounds = sum(cell.contaminated_rounds for cell in cells), sum(len(cell.medians_s) for cell in cells)
    if not contaminated:
        return ""
    why = next(cell.contamination for cell in cells if cell.contaminated_rounds)
    were = f"round{'s' if rounds > 1 else ''} {'was' if contaminated == 1 else 'were'}"
    disturbed = f"{contaminated} of {rounds} {were} disturbed ({why})"
    compared = [row for row in rows if row.p50_ms is not None and not row.is_baseline]
    doubtful = sum(row.untrusted for row in compared)
    if doubtful == len(compared):
        return f"This comparison {UNTRUSTED}: {disturbed}."
    which = "one cell" if doubtful == 1 else f"{doubtful} of {len(compared)} cells"
    return f"{disturbed}: what is said of {which} {UNTRUSTED}."


def cell_name(row: Row, distinguishing: Sequence[str]) -> str:
    """The name of a cell: the values of its distinguishing axes, see `worded`."""
    return names.visible(", ".join(in_words(row.labels, distinguishing)))


def most_rounds(rows: Sequence[Row]) -> int:
    """The largest number of rounds that a cell has."""
    return max((max(row.cell.jobs, len(row.cell.medians_s)) for row in rows), default=1)


def pick_baseline(cells: Sequence[Mapping[str, str]], wanted: Mapping[str, object]) -> int:
    """Index of the baseline among cells in the order they were asked for: the first that has the wanted axes.

    Raises:
        RunnerError: ``wanted`` names no axis, or no cell has it.
    """
    if not wanted:
        return 0
    rule = check_rule(wanted, "baseline")
    if len(cells) == 1:
        return 0  # a single cell is its own baseline, so that a cell of a matrix can be run again by itself
    for index, axes in enumerate(cells):
        if matches(rule, axes):
            return index
    wanted_axes = ", ".join(f"{axis}={'|'.join(values)}" for axis, values in rule.items())
    raise RunnerError(f"baseline={{{wanted_axes}}}: no cell of this matrix has it; choose one of its cells")


def unequal_work(before: Labels, after: Labels) -> str:
    """How the work of two cells differs, in words; empty if they do the same work.

    Args:
        before: the axes and settings of the first cell.
        after: the axes and settings of the second cell.
    """
    pairs = [(key, before.get(key), after.get(key)) for key in WORK]
    return ", ".join(f"{key} {old} and {new}" for key, old, new in pairs if old != new)
