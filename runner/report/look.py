"""What each look at an unfinished sweep says: how sure its ranking is, and what changed since the look before. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from runner import stats
from runner.analysis.ranking import Row, by_work, cell_name
from runner.analysis.wording import ratio
from runner.report.terminal import plural

# More changes than these are only counted.
_NAMED = 10
# A relative difference that no change to a cell makes: figures above it say only that the rounds differ.
_MEANINGLESS = 10.0


def heading(rows: Sequence[Row], done: int, rounds: int | str, floor: float | None = None) -> str:
    """How far a sweep is, and which differences its ranking can't tell yet.

    Args:
        rows: ranked.
        done: the rounds that every cell has had.
        rounds: those that were asked for, or a word.
        floor: the relative difference that equal cells show on this host in as many rounds, if it is known.
    """
    which = f"{done} of {rounds} rounds" if isinstance(rounds, int) else plural(done, "round")
    look = f"First look, {which}" if done == 1 and rounds != 1 else which
    known = [row.verdict.detectable for row in rows if row.verdict and row.verdict.detectable is not None]
    least = max(known, default=0.0) if done > 1 else floor
    if not least:
        return f"{look}: how much processes differ is not known yet, so that small differences may be luck"
    if least > _MEANINGLESS:
        return f"{look}: the rounds differ too much to tell anything yet"
    shown = f"{100 * least:.2g}" if least < 1 else f"{100 * least:.0f}"
    return f"{look}: differences under {shown} % can't be told yet"


def changes(before: Sequence[Row], rows: Sequence[Row], distinguishing: Sequence[str]) -> list[str]:
    """What a further round changed: the fastest cell of each work, and the verdicts; empty if it changed neither."""
    earlier = {row.cell.cell_id for row in _fastest(before)}
    lines = [
        f"fastest now: {cell_name(row, distinguishing)}, {row.p50_ms:.4g} ms"
        for row in _fastest(rows)
        if row.cell.cell_id not in earlier
    ]
    known = {row.cell.cell_id: row for row in before}
    changed = []
    for row in rows:
        old = known.get(row.cell.cell_id)
        if old is not None and _verdict(old) != _verdict(row):
            changed.append(f"{cell_name(row, distinguishing)}: {_verdict(old)} -> {_verdict(row)}{_ratio(row)}")
    more = len(changed) - _NAMED
    return [*lines, *changed[:_NAMED], *([plural(more, "more verdict") + " changed"] if more > 0 else [])]


def _fastest(rows: Sequence[Row]) -> list[Row]:
    """The fastest right row of each work."""
    return [right[0] for each in by_work(rows) if (right := [row for row in each if row.is_right])]


def _verdict(row: Row) -> str:
    """The verdict in words that stay the same while its figures move."""
    if row.cell.failure:
        return str(row.cell.status)
    return row.answer.partition(" (")[0].replace("-", "first look")


def _ratio(row: Row) -> str:
    interval = row.verdict.interval if row.verdict else None
    if row.speedup is None or interval is None or row.verdict is None or row.verdict.answer is stats.Answer.UNDECIDED:
        return ""
    return f", {ratio(row.speedup)} ({interval.low:.2f}-{interval.high:.2f})"
