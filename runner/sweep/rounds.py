"""Which rounds to run: all that were asked for, or more for what is undecided (rounds=auto; runner.sweep.racing).

Looking at the data, and going on while they show nothing, raises more false alarms than a single look. So auto looks at
fixed numbers of rounds only, and all looks have one level at which the chance of any false alarm is the whole level:
Pocock's, which counts that a look's data are part of the next one's (Jennison & Turnbull 2000, "Group Sequential
Methods", chapter 2, and section 4.4 for its use with t; `benchmarks/early_stop.py` simulates it).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

from runner import stats
from runner.analysis.ranking import Row, by_work, fitted
from runner.config.sweep_options import AUTO, RACE
from runner.matrix.rules import rounds_in_order
from runner.results.cells import LEVEL

# The numbers of rounds at which auto looks at a cell; the last is the most that it runs.
LOOKS = (3, 5, 8, 12, 20)
# The most rounds that a race gives a cell.
MOST_OF_RACE = 30
# The level of each look, of which the five together have LEVEL: two-sided normal, for these numbers of rounds.
LEVEL_OF_LOOK = 0.0145
T = TypeVar("T")


def level_of(rounds: int | str) -> float:
    """The level of each comparison in a sweep with ``rounds=`` this value."""
    return LEVEL_OF_LOOK if rounds in (AUTO, RACE) else LEVEL


def undecided(rows: Sequence[Row], smallest_pct: float) -> set[str]:
    """The ids of cells that more rounds could distinguish from the baseline or the fastest of the same work, with the
    ids of those two.

    Rows whose output is wrong or that were not measured are left out.

    Args:
        rows: ranked, the fastest first.
        smallest_pct: the least difference worth more rounds, in percent.
    """
    return {cell_id for each in by_work(rows) for cell_id in _undecided_of_one_work(each, smallest_pct)}


def _undecided_of_one_work(rows: Sequence[Row], smallest_pct: float) -> set[str]:
    rated = [row for row in rows if row.speedup is not None]
    if len(rated) < 2:
        return set()
    baseline = next(number for number, row in enumerate(rated) if row.is_baseline)
    places = undecided_places(fitted([row.cell for row in rated]), baseline, 0, smallest_pct)
    return {rated[place].cell.cell_id for place in places}


def undecided_places(table: stats.Fit, baseline: int, fastest: int, smallest_pct: float) -> set[int]:
    """The places in the table of the cells that get more rounds: see `undecided`.

    A cell is decided when a difference shows, or when one of ``smallest_pct`` would have shown: then the two are as
    good as equal.
    """
    found: set[int] = set()
    for side in dict.fromkeys((baseline, fastest)):
        others = [place for place in range(len(table.logs)) if place not in (side, baseline)]
        verdicts = stats.compare(table, side, others, level_of(AUTO))
        like_it = {place for place, verdict in zip(others, verdicts, strict=True) if _is_open(verdict, smallest_pct)}
        # More rounds of one side alone would leave the other's noise in the comparison.
        found |= like_it | {side for _ in like_it}
    return found


def _is_open(verdict: stats.Verdict, smallest_pct: float) -> bool:
    if verdict.answer is stats.Answer.UNKNOWN:
        return False
    is_hidden = verdict.detectable is None or 100 * verdict.detectable > smallest_pct
    return verdict.answer is stats.Answer.UNDECIDED and is_hidden


def stages(
    cells: Sequence[T], rounds: int | str, seed: int, more: Callable[[], Sequence[T]]
) -> Iterator[list[tuple[int, T]]]:
    """(round, cell) of the jobs to run, in stages; the order within a round is random, and a function of the seed.

    Args:
        cells: the cells of the first rounds.
        rounds: a number for a single stage, AUTO for one stage per look, or RACE for one stage per round.
        more: called between stages; returns the cells that have further rounds.
    """
    if isinstance(rounds, int):
        yield rounds_in_order(cells, rounds, seed)
        return
    looks = LOOKS if rounds == AUTO else range(1, MOST_OF_RACE + 1)
    yield rounds_in_order(cells, looks[0], seed)
    for completed, next_look in pairwise(looks):
        wanted = list(more())
        if not wanted:
            return
        yield [(number, cell) for number, cell in rounds_in_order(wanted, next_look, seed) if number >= completed]


def budget_of(rounds: int | str, minutes: float) -> Budget | None:
    """The time limit of a sweep with ``rounds=`` this value; None for a number of rounds, which has none."""
    return Budget(minutes, promised=least_rounds(rounds)) if isinstance(rounds, str) else None


def least_rounds(rounds: int | str) -> int:
    """The rounds that every cell has in a sweep with ``rounds=`` this value."""
    return rounds if isinstance(rounds, int) else {AUTO: LOOKS[0], RACE: 1}[rounds]


class Budget:
    """The time limit of a sweep: no job is started that would end after it, judged by earlier jobs.

    Args:
        minutes: the time limit.
        clock: seconds since some moment.
        promised: the number of jobs that every cell has whatever they take.
    """

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic, promised: int = 0) -> None:
        self._clock = clock
        self._end = clock() + 60 * minutes
        self._promised = promised
        self._jobs: Counter[str] = Counter()
        self._longest_s = 0.0
        self._took_s: dict[str, float] = {}

    def record(self, cell_id: str, seconds: float) -> None:
        """Note how long a job took.

        The next job of its cell is expected to take as long, the first job of a cell as long as the longest so far.
        """
        self._jobs[cell_id] += 1
        self._took_s[cell_id] = seconds
        self._longest_s = max(self._longest_s, seconds)

    def allows(self, cell_id: str) -> bool:
        """Whether a job of this cell, started now, is promised to it or would end in time."""
        if self._jobs[cell_id] < self._promised:
            return True
        return self._clock() + self._took_s.get(cell_id, self._longest_s) <= self._end
