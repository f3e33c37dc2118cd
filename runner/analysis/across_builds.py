"""What another torch build gains or loses: the fastest cells of both on the same work and precision, in words. Pure.

``Without IPEX``, where the first build's fastest cells use it and no cell of the other build does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner import stats
from runner.analysis import cause, same_model
from runner.analysis.certainty import is_too_few
from runner.analysis.operators import in_ms
from runner.analysis.ranking import Row, fitted
from runner.protocol.cell import ABSENT, BUNDLED, ENTRIES, WORK

_AXIS = "torch"


@dataclass(frozen=True)
class Pair:
    """The fastest right cells of two builds on the same work in the same precision."""

    work: str
    """The model and the sizes of its inputs."""
    precision: str
    first: Row
    other: Row


def lines(rows: Sequence[Row], level: float, floors: Mapping[int, float] | None = None) -> list[str]:
    """One sentence per work and build other than the baseline's; empty where all cells are of one build.

    Args:
        rows: all cells of a ranking.
        level: the chance of calling any two equal cells different.
        floors: rounds -> the relative difference that equal cells show on this host.
    """
    builds = list(dict.fromkeys(row.labels.get(_AXIS, ABSENT) for row in rows))
    if len(builds) < 2:
        return []
    first = BUNDLED if BUNDLED in builds else next((_build(row) for row in rows if row.is_baseline), builds[0])
    # Cells of other work are in other units of time, but they share the rounds, and what is known of their noise.
    measured = [row for row in rows if row.is_right and row.p50_ms]
    together = fitted([row.cell for row in measured])
    place = {id(row): number for number, row in enumerate(measured)}
    texts = []
    for build in builds:
        pairs = _pairs(measured, first, build) if build != first else []
        alpha = level / max(len(pairs), 1)
        words = []
        for pair in pairs:
            first_place, other_place = place[id(pair.first)], place[id(pair.other)]
            [verdict] = stats.compare(together, first_place, [other_place], alpha, floors)
            words.append(_in_words(pair, verdict))
        for work in dict.fromkeys(pair.work for pair in pairs):
            said = "; ".join(text for pair, text in zip(pairs, words, strict=True) if pair.work == work)
            subject = _subject([pair for pair in pairs if pair.work == work], first, build)
            texts.append(f"{subject}, {work}: {said}")
    return texts


def _build(row: Row) -> str:
    return row.labels.get(_AXIS, ABSENT)


def _subject(pairs: Sequence[Pair], first: str, build: str) -> str:
    is_without = all(_uses_ipex(pair.first) and not _uses_ipex(pair.other) for pair in pairs)
    between = f"torch={build} against torch={first}"
    return f"without IPEX ({between}), fastest against fastest" if is_without else f"{between}, fastest against fastest"


def _uses_ipex(row: Row) -> bool:
    return row.labels.get("ipex", ABSENT) not in ("off", ABSENT)


def _pairs(rows: Sequence[Row], first: str, build: str) -> list[Pair]:
    """The fastest of these right cells of both builds on each work that both did."""
    fastest: dict[tuple[str, str, tuple[str, ...]], Row] = {}
    for row in rows:
        key = (_build(row), row.labels.get("precision", ABSENT), tuple(row.labels.get(k, ABSENT) for k in WORK))
        if key not in fastest or (row.p50_ms or 0.0) < (fastest[key].p50_ms or 0.0):
            fastest[key] = row
    pairs = []
    for (of_build, precision, work), row in fastest.items():
        other = fastest.get((build, precision, work))
        if of_build == first and other is not None:
            pairs.append(Pair(_work(row), precision, row, other))
    order = {name: place for place, name in enumerate(ENTRIES["precision"].declaration.choices)}
    return sorted(pairs, key=lambda pair: (pair.work, order.get(pair.precision, len(order))))


def _work(row: Row) -> str:
    length = row.labels.get("sequence_length", "none")
    of_length = f" x {length}" if length.isdigit() else ""
    return f"{row.labels.get('model', ABSENT)} batch {row.labels.get('batch_size', ABSENT)}{of_length}"


def _in_words(pair: Pair, verdict: stats.Verdict) -> str:
    """Like ``int8 10 % slower (80.6 -> 88.7 ms, 7 % to 13 %): kernels ...``."""
    first, other = pair.first, pair.other
    times = f"{in_ms(first.p50_ms)} -> {in_ms(other.p50_ms)} ms"
    if same_model.difference(first.cell, other.cell):
        return f"{pair.precision} can't be compared: the model differs between torch builds"
    if first.cell.contamination or other.cell.contamination:
        return f"{pair.precision} can't be trusted: disturbed ({times})"
    if verdict.answer not in (stats.Answer.FASTER, stats.Answer.SLOWER) or verdict.is_under_floor:
        if verdict.detectable is None or is_too_few(verdict.detectable):
            return f"{pair.precision} can't be told yet: too few rounds ({times})"
        return f"{pair.precision} no difference of {100 * verdict.detectable:.0f} % or more was found ({times})"
    change = abs(verdict.ratio - 1) if verdict.answer is stats.Answer.FASTER else 1 / verdict.ratio - 1
    how = "faster" if verdict.answer is stats.Answer.FASTER else "slower"
    ends = ""
    if verdict.interval is not None:
        ratios = (verdict.interval.low, verdict.interval.high)
        low, high = sorted(ratio - 1 if how == "faster" else 1 / ratio - 1 for ratio in ratios)
        ends = f", 95 % between {100 * low:.0f} and {100 * high:.0f} %"
    because = cause.main_cause(first.cell, other.cell)
    why = "" if because in ("-", "not seen") else f": {because}"
    return f"{pair.precision} {100 * change:.0f} % {how} ({times}{ends}){why}"
