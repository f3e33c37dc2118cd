"""What a sweep found, in one sentence, and what must be said beside it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from runner import stats
from runner.analysis.cause import main_causes
from runner.analysis.ranking import Row, cell_name, warning

_ONE_ROUND = "one round can't tell whether that is real (rounds=5 does)"
_CONTAMINATED = "whether that is real can't be told from contaminated rounds"


@dataclass(frozen=True)
class Found:
    """The verdict on a sweep."""

    sentence: str
    beside: tuple[str, ...] = ()
    """A sentence each: the runner-up, wrong outputs that were quicker, failures."""


def verdict(rows: Sequence[Row], distinguishing: Sequence[str]) -> Found:
    """The verdict on rows that are ranked: fastest first, then wrong outputs, then failures.

    Where a contaminated round takes part, that comes first.
    """
    found = _found(rows, distinguishing)
    return replace(found, sentence=" ".join(filter(None, (warning(rows), found.sentence))))


def _found(rows: Sequence[Row], distinguishing: Sequence[str]) -> Found:
    measured = [row for row in rows if row.p50_ms is not None]
    right = [row for row in measured if row.is_right]
    failed = [row for row in rows if row.record.failure]
    beside = [f"{len(failed)} of {len(rows)} cells failed."] if failed and measured else []
    if not measured:
        why = f"; the first failure: {failed[0].record.failure}" if failed else ""
        cells = f"none of {len(rows)} cells has a time" if len(rows) > 1 else "the only cell has no time"
        return Found(f"Nothing was measured: {cells if rows else 'no job has ended'}{why}.")
    if not right:
        first = measured[0]
        return Found(
            f"No cell wins: every output that was measured is wrong; {cell_name(first, distinguishing)} was quickest, "
            f"{_ms(first)}, with {first.record.quality}.",
            tuple(beside),
        )
    rated = [row for row in right if row.speedup is not None]
    other = [row for row in right if row.speedup is None]
    if rated and other:
        beside.insert(0, f"{_cells(len(other))} of other work than the baseline's: no speed-up can be given.")
    fastest = (rated or right)[0]
    quicker = [row for row in measured if not row.is_right and (row.p50_ms or 0.0) < (fastest.p50_ms or 0.0)]
    beside[:0] = [
        f"{cell_name(row, distinguishing)} took only {_ms(row)}, but its output is wrong ({row.record.quality}): it is "
        "out of the ranking."
        for row in quicker
    ]
    if not rated:
        base = next((row for row in rows if row.is_baseline), None)
        why = "no baseline" if base is None else f"no right time of the baseline ({cell_name(base, distinguishing)})"
        return Found(
            f"{cell_name(fastest, distinguishing)} had the lowest latency, {_ms(fastest)}; there is {why}.",
            tuple(beside),
        )
    behind = _runner_up(rated, distinguishing)
    return Found(_rated(rated, rows, distinguishing), (*([behind] if behind else []), *beside))


def _rated(rated: Sequence[Row], rows: Sequence[Row], distinguishing: Sequence[str]) -> str:
    """Of rows with a speed-up: there is a baseline among them."""
    fastest = rated[0]
    if len(rated) == 1:
        alone = f"{cell_name(fastest, distinguishing)} took {_ms(fastest)}"
        return f"{alone}; no other cell was measured that it can be set beside."
    if fastest.is_baseline:
        return _baseline_first(rated, distinguishing)
    base = next(row for row in rated if row.is_baseline)
    over = f"{fastest.speedup:.2f}x the baseline ({cell_name(base, distinguishing)})"
    text = f"{cell_name(fastest, distinguishing)} was fastest: {over}"
    text += f", {base.p50_ms:.4g} -> {_ms(fastest)}"
    return _decided(text, fastest, stats.Answer.FASTER, "the difference is real", _cause(fastest, rows))


def _baseline_first(rated: Sequence[Row], distinguishing: Sequence[str]) -> str:
    base, second = rated[0], rated[1]
    text = f"No cell is faster than the baseline, {cell_name(base, distinguishing)} ({_ms(base)}): the next, "
    text += f"{cell_name(second, distinguishing)}, has {second.speedup:.2f}x of its speed"
    return _decided(text, second, stats.Answer.SLOWER, "that difference is real")


def _decided(text: str, row: Row, real: stats.Answer, words: str, cause: str = "") -> str:
    """What was found, with how sure it is; the cause where there may be one."""
    found = row.verdict
    if found is None or found.interval is None:
        return f"{text}; {_CONTAMINATED}." if row.untrusted else f"{text}; {_ONE_ROUND}{cause}."
    text += f", 95 % interval {found.interval.low:.2f}x to {found.interval.high:.2f}x"
    if row.untrusted:
        return f"{text}; {_CONTAMINATED}."
    if found.is_under_floor and found.floor is not None:
        return f"{text}; equal cells differ by as much on this host (up to {100 * found.floor:.2g} %)."
    if found.answer is real:
        return f"{text}; {words}{cause}."
    return f"{text}; whether there is a difference is undecided{_hidden(found)}."


def _runner_up(rated: Sequence[Row], distinguishing: Sequence[str]) -> str:
    """Whether the fastest is told apart from the next, which the comparisons with the baseline do not say."""
    if len(rated) < 3 or rated[0].is_baseline or rated[1].is_baseline:
        return ""
    first, second = rated[0], rated[1]
    interval = stats.ratio_interval(second.record.rounds, first.record.rounds)
    text = f"The next, {cell_name(second, distinguishing)}, has {second.speedup:.2f}x"
    if interval is None or first.untrusted or second.untrusted:
        return f"{text}."
    ends = f"the fastest is {interval.low:.2f}x to {interval.high:.2f}x as fast as it"
    floor = first.verdict.floor if first.verdict else None
    if interval.low > 1 and floor is not None and (first.speedup or 0.0) < (1 + floor) * (second.speedup or 0.0):
        return f"{text}: {ends}, which equal cells are as well on this host (up to {100 * floor:.2g} %)."
    return f"{text}: {ends}." if interval.low > 1 else f"{text}, and which of the two is faster is not shown: {ends}."


def _cause(row: Row, rows: Sequence[Row]) -> str:
    cause = next((cause for other, cause in main_causes(rows) if other is row), "-")
    return "" if cause in ("-", "not seen") else f"; main cause: {cause}"


def _hidden(found: stats.Verdict) -> str:
    if found.detectable is None:
        return ""
    least = 100 * found.detectable
    return f" (one under {format(least, '.2g' if least < 100 else '.0f')} % could not have shown)"


def _ms(row: Row) -> str:
    return f"{row.p50_ms:.4g} ms"


def _cells(number: int) -> str:
    return "1 cell is" if number == 1 else f"{number} cells are"
