"""The verdict on a sweep: one sentence, and the sentences that belong to it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from runner import stats
from runner.analysis.ranking import Row, cell_name, fitted, warning

# The certainty of a difference that has no interval.
ONE_ROUND = "one round can't tell whether that is real; rounds=5 can"
_CONTAMINATED = "whether that is real can't be told from contaminated rounds"


@dataclass(frozen=True)
class Conclusion:
    """What a sweep showed."""

    sentence: str
    remarks: tuple[str, ...] = ()
    """Further sentences, on the runner-up, wrong outputs that were quicker, and failures."""


def verdict(rows: Sequence[Row], distinguishing: Sequence[str]) -> Conclusion:
    """The verdict on ranked rows: fastest first, then wrong outputs, then failures.

    If a contaminated round takes part, the sentence begins with that.
    """
    conclusion = _conclude(rows, distinguishing)
    return replace(conclusion, sentence=" ".join(filter(None, (warning(rows), conclusion.sentence))))


def _conclude(rows: Sequence[Row], distinguishing: Sequence[str]) -> Conclusion:
    measured = [row for row in rows if row.p50_ms is not None]
    failed = [row for row in rows if row.cell.failure]
    if not measured:
        return Conclusion(_nothing(rows, failed))
    failures = (f"{len(failed)} of {len(rows)} cells failed.",) if failed else ()
    right = [row for row in measured if row.is_right]
    if not right:
        return Conclusion(_all_wrong(measured[0], distinguishing), failures)
    rated = [row for row in right if row.speedup is not None]
    fastest = (rated or right)[0]
    remarks = (*_quicker_but_wrong(measured, fastest, distinguishing), *_other_work(right, rated), *failures)
    if not rated:
        return Conclusion(_without_baseline(rows, fastest, distinguishing), remarks)
    runner_up = _runner_up(rated, distinguishing)
    return Conclusion(_fastest(rated, distinguishing), (*([runner_up] if runner_up else []), *remarks))


def _nothing(rows: Sequence[Row], failed: Sequence[Row]) -> str:
    why = f"; the first failure: {failed[0].cell.failure}" if failed else ""
    cells = f"none of {len(rows)} cells has a time" if len(rows) > 1 else "the only cell has no time"
    return f"Nothing was measured: {cells if rows else 'no job has ended'}{why}."


def _all_wrong(quickest: Row, distinguishing: Sequence[str]) -> str:
    return (
        f"No cell wins: every output that was measured is wrong; {cell_name(quickest, distinguishing)} was quickest, "
        f"{_ms(quickest)}, with {quickest.cell.quality}."
    )


def _quicker_but_wrong(measured: Sequence[Row], fastest: Row, distinguishing: Sequence[str]) -> list[str]:
    """A sentence for each wrong output that took less time than the fastest right one."""
    return [
        f"{cell_name(row, distinguishing)} took only {_ms(row)}, but its output is wrong ({row.cell.quality}): it is "
        "out of the ranking."
        for row in measured
        if not row.is_right and (row.p50_ms or 0.0) < (fastest.p50_ms or 0.0)
    ]


def _other_work(right: Sequence[Row], rated: Sequence[Row]) -> list[str]:
    """A sentence on the right cells that have no speed-up, where others have one."""
    number = len(right) - len(rated)
    if not rated or not number:
        return []
    cells = "1 cell is" if number == 1 else f"{number} cells are"
    return [f"{cells} of other work than the baseline's: no speed-up can be given."]


def _without_baseline(rows: Sequence[Row], fastest: Row, distinguishing: Sequence[str]) -> str:
    base = next((row for row in rows if row.is_baseline), None)
    why = "no baseline" if base is None else f"no right time of the baseline ({cell_name(base, distinguishing)})"
    return f"{cell_name(fastest, distinguishing)} had the lowest latency, {_ms(fastest)}; there is {why}."


def _fastest(rated: Sequence[Row], distinguishing: Sequence[str]) -> str:
    """The sentence on rows that have a speed-up; the baseline is one of them."""
    fastest = rated[0]
    if len(rated) == 1:
        alone = f"{cell_name(fastest, distinguishing)} took {_ms(fastest)}"
        return f"{alone}; no other cell was measured that it can be compared with."
    if fastest.is_baseline:
        return _baseline_first(rated, distinguishing)
    base = next(row for row in rated if row.is_baseline)
    over = f"{fastest.speedup:.2f}x the baseline ({cell_name(base, distinguishing)})"
    text = f"{cell_name(fastest, distinguishing)} was fastest: {over}"
    text += f", {base.p50_ms:.4g} -> {_ms(fastest)}"
    return _with_certainty(
        _corrected(rated, base), text, stats.Answer.FASTER, "the difference is real", _cause(fastest)
    )


def _baseline_first(rated: Sequence[Row], distinguishing: Sequence[str]) -> str:
    base, second = rated[0], rated[1]
    text = f"No cell is faster than the baseline, {cell_name(base, distinguishing)} ({_ms(base)}): the next, "
    text += f"{cell_name(second, distinguishing)}, has {second.speedup:.2f}x of its speed"
    return _with_certainty(second, text, stats.Answer.SLOWER, "that difference is real")


def _corrected(rated: Sequence[Row], base: Row) -> Row:
    """The fastest row with its interval corrected for its having been chosen."""
    fastest, result = rated[0], rated[0].verdict
    if result is None or result.interval is None:
        return fastest
    table = fitted([row.cell for row in rated])
    is_decided = result.answer is stats.Answer.FASTER
    interval = stats.winners_interval(table, rated.index(base), 0, len(rated) - 1, is_decided)
    return replace(fastest, verdict=replace(result, interval=interval))


def _with_certainty(row: Row, text: str, real: stats.Answer, words: str, cause: str = "") -> str:
    """The text, how sure it is, and the cause where there may be one."""
    result = row.verdict
    if result is None or result.interval is None:
        return f"{text}; {_CONTAMINATED}." if row.untrusted else f"{text}; {ONE_ROUND}{cause}."
    text += f", 95 % interval {result.interval.low:.2f}x to {result.interval.high:.2f}x"
    if row.untrusted:
        return f"{text}; {_CONTAMINATED}."
    if result.is_under_floor and result.floor is not None:
        return f"{text}; equal cells differ by as much on this host (up to {100 * result.floor:.2g} %)."
    if result.answer is real:
        return f"{text}; {words}{cause}."
    return f"{text}; whether there is a difference is undecided{_undetectable(result)}."


def _runner_up(rated: Sequence[Row], distinguishing: Sequence[str]) -> str:
    """A sentence on whether the fastest differs from the next, which comparisons with the baseline do not show."""
    if len(rated) < 3 or rated[0].is_baseline or rated[1].is_baseline:
        return ""
    first, second = rated[0], rated[1]
    interval = stats.ratio_interval(fitted([row.cell for row in rated]), 1, 0)
    text = f"The next, {cell_name(second, distinguishing)}, has {second.speedup:.2f}x"
    if interval is None or first.untrusted or second.untrusted:
        return f"{text}."
    ends = f"the fastest is {interval.low:.2f}x to {interval.high:.2f}x as fast as it"
    floor = first.verdict.floor if first.verdict else None
    if interval.low > 1 and floor is not None and (first.speedup or 0.0) < (1 + floor) * (second.speedup or 0.0):
        return f"{text}: {ends}, which equal cells are as well on this host (up to {100 * floor:.2g} %)."
    return f"{text}: {ends}." if interval.low > 1 else f"{text}, and which of the two is faster is undecided: {ends}."


def _cause(row: Row) -> str:
    return "" if row.main_cause in ("-", "not seen") else f"; main cause: {row.main_cause}"


def _undetectable(result: stats.Verdict) -> str:
    if result.detectable is None:
        return ""
    least = 100 * result.detectable
    return f" (differences below {format(least, '.2g' if least < 100 else '.0f')} % are too small to detect here)"


def _ms(row: Row) -> str:
    return f"{row.p50_ms:.4g} ms"
