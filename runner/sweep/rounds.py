"""Which rounds to run: all that were asked for, or (rounds=auto) more for the cells that are still undecided.

Looking at the data, and going on while they show nothing, raises more false alarms than a single look. So auto looks at
fixed numbers of rounds only, and each look's comparisons share a level that is the whole level divided by the looks
(Bonferroni; Jennison & Turnbull 2000, "Group Sequential Methods", chapter 2, has sharper ones that need normal data).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

from runner import stats
from runner.analysis.ranking import Row, fitted
from runner.config.limits import AUTO
from runner.matrix.rules import rounds_in_order
from runner.results.cells import LEVEL

# The numbers of rounds at which auto looks at a cell; the last is the most that it runs.
LOOKS = (3, 5, 8, 12, 20)
T = TypeVar("T")


def level_of(rounds: int | str) -> float:
    """The level of each comparison in a sweep with ``rounds=`` this value."""
    return LEVEL / len(LOOKS) if rounds == AUTO else LEVEL


def undecided(rows: Sequence[Row], smallest_pct: float) -> set[str]:
    """The ids of cells that more rounds could distinguish from the baseline or the fastest, with the ids of those two.

    A cell is decided when a difference shows, or when one of ``smallest_pct`` would have shown: then the two are as
    good as equal. Rows whose output is wrong or that were not measured are left out.

    Args:
        rows: ranked, with verdicts at the level of `level_of`.
        smallest_pct: the least difference worth more rounds, in percent.
    """
    rated = [row for row in rows if row.speedup is not None]
    if len(rated) < 2:
        return set()
    baseline, fastest = next(row for row in rated if row.is_baseline), rated[0]
    like_baseline = {row.cell.cell_id for row in rated if _is_open(row.verdict, smallest_pct)}
    others = [row for row in rated if row is not fastest and row is not baseline]
    table, places = fitted([row.cell for row in rated]), [rated.index(row) for row in others]
    verdicts = stats.compare(table, 0, places, level_of(AUTO))
    pairs = zip(others, verdicts, strict=True)
    like_fastest = {row.cell.cell_id for row, verdict in pairs if _is_open(verdict, smallest_pct)}
    # More rounds of one side alone would leave the other's noise in the comparison.
    sides = {baseline.cell.cell_id for _ in like_baseline} | {fastest.cell.cell_id for _ in like_fastest}
    return like_baseline | like_fastest | sides


def _is_open(verdict: stats.Verdict | None, smallest_pct: float) -> bool:
    if verdict is None or verdict.answer is stats.Answer.UNKNOWN:
        return False
    is_hidden = verdict.detectable is None or 100 * verdict.detectable > smallest_pct
    return verdict.answer is stats.Answer.UNDECIDED and is_hidden


def stages(
    cells: Sequence[T], rounds: int | str, seed: int, more: Callable[[], Sequence[T]]
) -> Iterator[list[tuple[int, T]]]:
    """(round, cell) of the jobs to run, in stages; the order within a round is random, and a function of the seed.

    Args:
        cells: the cells of the first rounds.
        rounds: a number for a single stage, or AUTO for one stage per look.
        more: called between stages; returns the cells that are still undecided.
    """
    if isinstance(rounds, int):
        yield rounds_in_order(cells, rounds, seed)
        return
    yield rounds_in_order(cells, LOOKS[0], seed)
    for completed, next_look in pairwise(LOOKS):
        wanted = list(more())
        if not wanted:
            return
        yield [(number, cell) for number, cell in rounds_in_order(wanted, next_look, seed) if number >= completed]


class Budget:
    """The time limit of a sweep: no job is started that would end after it, judged by earlier jobs."""

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + 60 * minutes
        self._longest_s = 0.0
        self._took_s: dict[str, float] = {}

    def record(self, cell_id: str, seconds: float) -> None:
        """Note how long a job took.

        The next job of its cell is expected to take as long, the first job of a cell as long as the longest so far.
        """
        self._took_s[cell_id] = seconds
        self._longest_s = max(self._longest_s, seconds)

    def allows(self, cell_ids: Iterable[str]) -> bool:
        """Whether jobs of these cells, started together now, would end in time."""
        expected_s = max(self._took_s.get(cell_id, self._longest_s) for cell_id in cell_ids)
        return self._clock() + expected_s <= self._end
