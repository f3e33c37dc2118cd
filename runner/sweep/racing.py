"""rounds=race: which cells of a big matrix can still be the best, and which of those get the next round.

Every cell has a first round. The fastest eighth gets a second one, which shows the noise; from then on each round goes
to half as many cells, the fastest of those that are left, and to the baseline, so that the winner's speed-up has an
interval. A cell is dropped when it is slower than the leader at the level of that look, corrected for the number of
cells (Holm); cells with one round are judged by the noise of the others (`runner.stats.blocks`). The looks' levels
halve from one to the next, so that the chance that the best cell is dropped at any of them is the whole level (alpha
spending: Jennison & Turnbull 2000, "Group Sequential Methods", section 7.2). `benchmarks/racing.py` simulates it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, expm1
from pathlib import Path

import numpy as np

from runner import stats
from runner.analysis.ranking import Ranking, Row, by_work, fitted, most_rounds
from runner.protocol.stored import write_json
from runner.results.cells import LEVEL, CellRow
from runner.results.metric_names import Metric
from runner.results.outcome import DROPPED_FILE, CellRecord, Dropped
from runner.stats.decision import detectable

# The share of the cells that have a second round, and the share of those of one round that have the next.
SECOND_ROUND, NEXT_ROUND = 1 / 8, 1 / 2
# Fewer cells than this are not worth leaving out of the second round.
LEAST_SECOND = 4
# The figure that each limit of ``where`` is about.
LIMITS = {"p99_ms": Metric.P99, "rel_l2": Metric.RELATIVE_ERROR, "memory_mb": Metric.RSS_PEAK}


@dataclass(frozen=True)
class Step:
    """What is to be done after a round; the cells are named by their places."""

    dropped: Mapping[int, str]
    """Place -> why the cell can't be the best, in words."""
    going: Sequence[int]
    """The cells of the next round, the fastest first; empty when the race is decided."""


def step(table: stats.Fit, racing: Sequence[int], smallest_pct: float) -> Step:
    """What follows from the rounds so far.

    Args:
        table: all cells that were measured.
        racing: the places of those that could be the best before this look.
        smallest_pct: a difference below this many percent is not looked for.
    """
    places = np.array(racing, dtype=np.intp)
    order = places[np.argsort(table.mean[places], kind="stable")]
    rounds = int(table.count[places].max(initial=0))
    if rounds < 2:
        return Step({}, order[: max(LEAST_SECOND, ceil(SECOND_ROUND * len(places)))].tolist() if len(order) > 1 else [])
    leader = next(int(place) for place in order if table.count[place] > 1)
    others = order[order != leader]
    if not len(others):
        return Step({}, [])
    found = table.differences(leader, others, with_single_processes=True)
    # One-sided, because only a slower cell can be dropped.
    p = np.where(found.log_ratio < 0, found.p / 2, 1 - found.p / 2)
    level = LEVEL / 2 ** (rounds - 1)
    is_out = stats.holm(p) <= level
    dropped = {
        int(place): f"{100 * expm1(-log_ratio):.2g} % slower than the fastest of {len(places)}"
        for place, log_ratio, out in zip(others, found.log_ratio.tolist(), is_out, strict=True)
        if out
    }
    left = int((~is_out).sum())
    is_settled = is_out | (100 * detectable(found, 2 * level / max(left, 1)) <= smallest_pct)
    if is_settled.all():
        return Step(dropped, [])
    had_last = int((table.count[places] == rounds).sum())
    staying = [int(place) for place in order if int(place) not in dropped]
    return Step(dropped, staying[: max(2, ceil(NEXT_ROUND * had_last))])


def beyond(cell: CellRow, where: Mapping[str, float]) -> str:
    """Which limit of ``where`` a cell's figures are past, in words; empty if none, or if the figure is not known."""
    for key, limit in where.items():
        value = cell.metrics.get(LIMITS[key])
        if value is not None and value > limit:
            return f"{key} is {value:.4g}, past where.{key}={limit:g}"
    return ""


def go_on(ranking: Ranking, sweep: Path, smallest_pct: float, where: Mapping[str, float]) -> set[str]:
    """Record which cells are dropped now, and return the ids of those that have the next round.

    Args:
        ranking: the ranking so far.
        sweep: the folder of the sweep.
        smallest_pct: see `step`.
        where: the limits of what may win, see `LIMITS`.
    """
    dropped, going = next_round(ranking, smallest_pct, where)
    for cell_id, why in dropped.items():
        write_json(sweep / "cells" / cell_id / DROPPED_FILE, Dropped(cell_id, most_rounds(ranking.rows), why))
    return going


def next_round(ranking: Ranking, smallest_pct: float, where: Mapping[str, float]) -> tuple[dict[str, str], set[str]]:
    """The cells that are dropped now, cell_id -> why; and the ids of those that have the next round.

    Cells that do other work, like those of another model, race by themselves.
    """
    dropped, going = dict[str, str](), set[str]()
    for rows in by_work(ranking.rows):
        out, on = _next_round_of_one_work(rows, ranking.records, smallest_pct, where)
        dropped, going = {**dropped, **out}, going | on
    return dropped, going


def _next_round_of_one_work(
    rows: Sequence[Row], records: Mapping[str, CellRecord], smallest_pct: float, where: Mapping[str, float]
) -> tuple[dict[str, str], set[str]]:
    rated = [row for row in rows if row.speedup is not None]
    standing = {row.cell.cell_id for row in rated if records[row.cell.cell_id].dropped is None}
    past = {row.cell.cell_id: why for row in rated if row.cell.cell_id in standing and (why := beyond(row.cell, where))}
    racing = [place for place, row in enumerate(rated) if row.cell.cell_id in standing - set(past)]
    if not racing:
        return past, set()
    after = step(fitted([row.cell for row in rated]), racing, smallest_pct)
    going = {rated[place].cell.cell_id for place in after.going}
    slower = {rated[place].cell.cell_id: why for place, why in after.dropped.items()}
    return {**past, **slower}, going | {row.cell.cell_id for row in rated if row.is_baseline and going}
