"""The verdict on a sweep: one sentence in plain words, and the sentences that belong to it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from runner import stats
from runner.analysis import cause
from runner.analysis.certainty import is_too_few, is_too_wide
from runner.analysis.ranking import Row, by_work, fitted, warning
from runner.analysis.wording import aloud, interval_of, ms, ratio
from runner.protocol.cell import WORK

# The certainty of a difference that has no interval.
ONE_ROUND = "one round can't tell whether that is real; rounds=5 can"
_DISTURBED = "Whether that is real can't be told from disturbed rounds."
NO_CLEAR = "No clear difference"


@dataclass(frozen=True)
class Conclusion:
    """What a sweep showed."""

    sentence: str
    remarks: tuple[str, ...] = ()
    """Further sentences, on the runner-up, wrong outputs that were quicker, and failures."""
    warning: str = ""
    """The sentence of `warning`, which comes first; empty without a contaminated round."""


def verdict(rows: Sequence[Row], distinguishing: Sequence[str]) -> Conclusion:
    """The verdict on ranked rows: fastest first, then wrong outputs, then failures.

    Of cells that do different work, like those of two models, each work has a verdict of its own.
    """
    failures, works = _failures(rows), by_work(rows)
    if len(works) < 2:
        concluded = _conclude(rows, distinguishing)
    else:
        models = {each[0].labels.get("model") for each in works}
        naming = ["model"] if len(models) == len(works) else [key for key in distinguishing if key in WORK]
        concluded, *others = (_of_one_work(each, distinguishing, naming) for each in works)
        further = [text for other in others for text in (other.sentence, *other.remarks)]
        concluded = replace(concluded, remarks=(*concluded.remarks, *further))
    return replace(concluded, remarks=(*concluded.remarks, *failures), warning=warning(rows))


def _of_one_work(rows: Sequence[Row], distinguishing: Sequence[str], naming: Sequence[str]) -> Conclusion:
    """What the cells of one work showed, which ``naming`` names first if anything else distinguishes cells."""
    others = [key for key in distinguishing if key not in WORK]
    if not others:
        return _conclude(rows, distinguishing)
    concluded = _conclude(rows, others)
    said = concluded.sentence
    # A sentence may begin with the name of a cell, which stays as it is.
    if not said.startswith(tuple(aloud(row, others) for row in rows)):
        said = f"{said[0].lower()}{said[1:]}"
    return replace(concluded, sentence=f"For {aloud(rows[0], naming)}, {said}")


def of_cell(row: Row, base: Row | None, distinguishing: Sequence[str]) -> str:
    """The result of one cell in plain words, for a page about it."""
    if row.cell.is_interrupted:
        return "It was interrupted before it was measured."
    if row.cell.failure:
        return f"It {row.cell.status}: {row.cell.failure}"
    if row.p50_ms is None:
        return "It was not measured."
    if row.is_wrong:
        return f"{ms(row)}, but its output is wrong ({row.cell.quality}): it is out of the ranking."
    limit = f" It does {row.position.sentence}." if row.position else ""
    if row.is_baseline:
        return f"{ms(row)}. It is the baseline that the others are set against.{limit}"
    if base is None or row.speedup is None:
        other = "There is no right time of a baseline that did the same work: no speed-up can be given."
        return f"{ms(row)}. {other}{limit}"
    text = f"{ms(row)}, {ratio(row.speedup)} the baseline ({aloud(base, distinguishing)}, {ms(base)})"
    interval = row.verdict.interval if row.verdict else None
    certainty = f", {interval_of(interval)}" if interval else ""
    answer = f": {row.answer}" if row.answer != "-" else ""
    why = "" if row.main_cause in ("-", "not seen") else cause.sentence(base.cell, row.cell)
    return " ".join(filter(None, (f"{text}{certainty}{answer}.{limit}", why)))


def _conclude(rows: Sequence[Row], distinguishing: Sequence[str]) -> Conclusion:
    measured = [row for row in rows if row.p50_ms is not None]
    failed = [row for row in rows if row.cell.failure]
    if not measured:
        return Conclusion(_nothing(rows, failed))
    right = [row for row in measured if row.is_right]
    if not right:
        return Conclusion(_all_wrong(measured[0], distinguishing))
    rated = [row for row in right if row.speedup is not None]
    fastest = (rated or right)[0]
    remarks = (
        *_limit(fastest),
        *_quicker_but_wrong(measured, fastest, distinguishing),
        *_other_model(right, rated),
    )
    if not rated:
        return Conclusion(_without_baseline(rows, fastest, distinguishing), remarks)
    runner_up = _runner_up(rated, distinguishing)
    return Conclusion(_fastest(rated, distinguishing), (*([runner_up] if runner_up else []), *remarks))


def _limit(fastest: Row) -> list[str]:
    """A sentence on how far the fastest cell is from what its host can do; none where that is not known."""
    return [f"The fastest does {fastest.position.sentence}."] if fastest.position else []


def _nothing(rows: Sequence[Row], failed: Sequence[Row]) -> str:
    why = f"; the first failure: {failed[0].cell.failure}" if failed else ""
    cells = f"none of {len(rows)} cells has a time" if len(rows) > 1 else "the only cell has no time"
    return f"Nothing was measured: {cells if rows else 'no job has ended'}{why}."


def _failures(rows: Sequence[Row]) -> tuple[str, ...]:
    """Sentences on the cells that failed, and on those whose only job the user interrupted, which is no failure."""
    stopped = sum(row.cell.is_interrupted for row in rows)
    failed = sum(bool(row.cell.failure) for row in rows) - stopped
    sentences = [f"{failed} of {len(rows)} cells failed."] if failed else []
    if stopped:
        sentences.append(f"{stopped} of {len(rows)} cells {'was' if stopped == 1 else 'were'} interrupted.")
    return tuple(sentences)


def _all_wrong(quickest: Row, distinguishing: Sequence[str]) -> str:
    return (
        f"No cell wins: every output that was measured is wrong. {aloud(quickest, distinguishing)} was quickest, "
        f"{ms(quickest)}, with {quickest.cell.quality}."
    )


def _quicker_but_wrong(measured: Sequence[Row], fastest: Row, distinguishing: Sequence[str]) -> list[str]:
    """A sentence for each wrong output that took less time than the fastest right one."""
    return [
        f"{aloud(row, distinguishing)} took only {ms(row)}, but its output is wrong ({row.cell.quality}): it is "
        "out of the ranking."
        for row in measured
        if not row.is_right and (row.p50_ms or 0.0) < (fastest.p50_ms or 0.0)
    ]


def _other_model(right: Sequence[Row], rated: Sequence[Row]) -> list[str]:
    """A sentence on the right cells that have no speed-up, where others of the same work have one."""
    number = len(right) - len(rated)
    if not rated or not number:
        return []
    cells = "1 cell ran" if number == 1 else f"{number} cells ran"
    return [f"{cells} another model than the baseline: no speed-up can be given."]


def _without_baseline(rows: Sequence[Row], fastest: Row, distinguishing: Sequence[str]) -> str:
    base = next((row for row in rows if row.is_baseline), None)
    why = "no baseline" if base is None else f"no right time of the baseline ({aloud(base, distinguishing)})"
    return f"Lowest latency: {aloud(fastest, distinguishing)}, {ms(fastest)}. There is {why} to compare it with."


def _fastest(rated: Sequence[Row], distinguishing: Sequence[str]) -> str:
    """The sentence on rows that have a speed-up; the baseline is one of them."""
    fastest = rated[0]
    if len(rated) == 1:
        alone = f"{aloud(fastest, distinguishing)} took {ms(fastest)}"
        return f"{alone}; no other cell was measured that it can be compared with."
    if fastest.is_baseline:
        return _baseline_first(rated, distinguishing)
    base = next(row for row in rated if row.is_baseline)
    text = f"{aloud(fastest, distinguishing)}, {ms(fastest)}, {ratio(fastest.speedup or 0.0)} the baseline "
    text += f"({aloud(base, distinguishing)}, {ms(base)})"
    why = "" if fastest.main_cause in ("-", "not seen") else cause.sentence(base.cell, fastest.cell)
    corrected = _corrected(rated, base)
    of = "" if _ends(corrected) == _ends(fastest) else f", corrected for picking the fastest of {len(rated)}"
    return _with_certainty(corrected, ("Fastest", text), stats.Answer.FASTER, why, of)


def _ends(row: Row) -> tuple[str, ...]:
    """The ends of the row's interval as the table shows them."""
    interval = row.verdict.interval if row.verdict else None
    return () if interval is None else (ratio(interval.low), ratio(interval.high))


def _baseline_first(rated: Sequence[Row], distinguishing: Sequence[str]) -> str:
    base, second = rated[0], rated[1]
    text = f"the baseline, {aloud(base, distinguishing)}, {ms(base)}. The next, {aloud(second, distinguishing)}, "
    text += f"{ms(second)}, has {ratio(second.speedup or 0.0)} of its speed"
    return _with_certainty(second, ("Fastest", text), stats.Answer.SLOWER)


def _corrected(rated: Sequence[Row], base: Row) -> Row:
    """The fastest row with its interval corrected for its having been chosen."""
    fastest, result = rated[0], rated[0].verdict
    if result is None or result.interval is None:
        return fastest
    table = fitted([row.cell for row in rated])
    is_decided = result.answer is stats.Answer.FASTER
    interval = stats.winners_interval(table, rated.index(base), 0, len(rated) - 1, is_decided)
    return replace(fastest, verdict=replace(result, interval=interval))


def _with_certainty(row: Row, parts: tuple[str, str], real: stats.Answer, why: str = "", of: str = "") -> str:
    """The sentence, how sure it is, and the cause where there may be one.

    Args:
        parts: what is claimed ("Fastest"), and of which cell.
        of: what the interval has been corrected for, in words.
    """
    claim, text = f"{parts[0]}: {parts[1]}.", parts[1]
    result = row.verdict
    if result is None or result.interval is None:
        return " ".join(filter(None, (claim, _DISTURBED if row.untrusted else f"{ONE_ROUND.capitalize()}.", why)))
    interval = interval_of(result.interval, of)
    if row.untrusted:
        return f"{claim} {_DISTURBED[:-1]} ({interval})."
    if result.is_under_floor and result.floor is not None:
        floor = f"up to {100 * result.floor:.2g} %"
        return f"{NO_CLEAR}: {text} ({interval}). Equal cells differ by as much on this host ({floor})."
    if result.answer is real:
        return " ".join(filter(None, (claim, f"The difference is real ({interval}).", why)))
    return f"{NO_CLEAR}: {text} ({interval}).{_detectable(result)}"


def _runner_up(rated: Sequence[Row], distinguishing: Sequence[str]) -> str:
    """A sentence on whether the fastest differs from the next, which comparisons with the baseline do not show."""
    if len(rated) < 3 or rated[0].is_baseline or rated[1].is_baseline:
        return ""
    first, second = rated[0], rated[1]
    interval = stats.ratio_interval(fitted([row.cell for row in rated]), 1, 0)
    text = f"The next, {aloud(second, distinguishing)}, {ms(second)}, has {ratio(second.speedup or 0.0)}"
    if interval is None or is_too_wide(interval.low, interval.high) or first.untrusted or second.untrusted:
        return f"{text}."
    ends = f"the fastest is {ratio(interval.low)} to {ratio(interval.high)} as fast as it"
    floor = first.verdict.floor if first.verdict else None
    if interval.low > 1 and floor is not None and (first.speedup or 0.0) < (1 + floor) * (second.speedup or 0.0):
        return f"{text}: {ends}, which equal cells are as well on this host (up to {100 * floor:.2g} %)."
    return f"{text}: {ends}." if interval.low > 1 else f"{text}, with no clear difference from the fastest: {ends}."


def _detectable(result: stats.Verdict) -> str:
    """A sentence on how large a difference would have been to show."""
    if result.detectable is None:
        return ""
    if is_too_few(result.detectable):
        return " There are too few rounds to tell: rounds=5 tells more."
    least = 100 * result.detectable
    return f" A difference of {format(least, '.2g' if least < 100 else '.0f')} % or more would have shown."
