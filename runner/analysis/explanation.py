"""Why one cell is faster than another: everything that was captured of both, lined up, largest change first. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from runner import stats
from runner.analysis.cause import Change, changes, count, less_or_more, sentence
from runner.analysis.operators import Change as OperatorChange
from runner.analysis.operators import difference
from runner.analysis.ranking import UNTRUSTED, Row, warning
from runner.capture.kernel_tables import Problem
from runner.results.metric_names import Metric

# Figures set side by side, where both cells have them.
_FIGURES = (
    Metric.MINOR_FAULTS,
    Metric.VOLUNTARY_SWITCHES,
    Metric.INVOLUNTARY_SWITCHES,
    Metric.CORES_BUSY,
    Metric.RSS_PEAK,
    Metric.RELATIVE_ERROR,
    Metric.ONEDNN_COVERAGE,
    Metric.REORDERS,
    Metric.ACTIVATION_REORDERS,
    Metric.WEIGHT_REORDERS,
    Metric.REORDER_SIZE,
    Metric.FUSED,
    Metric.PRIMITIVE_CACHE_MISSES,
    "counters/instructions_per_cycle",
    "counters/context-switches_per_iteration",
    "counters/cpu-migrations_per_iteration",
)


@dataclass(frozen=True)
class ShapeChange:
    """One kind of oneDNN primitive on one shape in two cells; 0 and ``-`` where it did not run."""

    name: str
    before_ms: float
    """Milliseconds per iteration that all its calls took in the first cell."""
    after_ms: float
    """Milliseconds per iteration that all its calls took in the second cell."""
    before_calls: float
    """Calls per iteration in the first cell."""
    after_calls: float
    """Calls per iteration in the second cell."""
    before_by: str
    """Implementations and their post-ops in the first cell, see `Problem`."""
    after_by: str
    """Implementations and their post-ops in the second cell."""

    @property
    def words(self) -> str:
        """What computed it, and how often where that changed: ``jit:avx512_core -> brg:avx512_core, 2 -> 1 calls``."""
        by = self.before_by if self.before_by == self.after_by else f"{self.before_by} -> {self.after_by}"
        if self.before_calls == self.after_calls:
            return by
        return f"{by}, {count(self.before_calls)} -> {count(self.after_calls)} calls"


@dataclass(frozen=True)
class Explanation:
    """The distance between two cells, and what it is made of."""

    before: str
    """The first cell's name."""
    after: str
    """The second cell's name."""
    before_ms: float
    """The first cell's median latency."""
    after_ms: float
    """The second cell's median latency."""
    verdict: stats.Verdict | None
    """What the rounds say about the speed-up; None without one."""
    parts: tuple[Change, ...]
    """The parts of an iteration, largest change first."""
    unexplained_ms: float | None
    """What no counted difference in a part of an iteration or in the kernel accounts for; None without a capture."""
    operators: tuple[OperatorChange, ...]
    """The operators, largest change first; empty if they were not captured in both cells."""
    operators_by: str
    """The source of the operators: ``ITT``, ``PyTorch's profiler``, or what each cell's are by; empty without them."""
    primitives: tuple[OperatorChange, ...]
    """The primitives of oneDNN by kind and implementation, largest change first."""
    callers: tuple[OperatorChange, ...]
    """The operators that called oneDNN, with the time of its primitives in them, largest change first."""
    shapes: tuple[ShapeChange, ...]
    """The primitives of oneDNN by kind and shape, largest change first."""
    figures: tuple[tuple[str, float, float], ...]
    """The figures that differ, as (metric, before, after)."""
    warning: str = ""
    """The warning of ranking.warning(), which is shown first; empty without one."""
    why: str = ""
    """The main cause as a sentence; empty where none was seen, or the difference is too small to have one."""
    measured: str = ""
    """What was measured, where and when; empty where that is not known."""
    disturbed: tuple[str, ...] = ()
    """Why a capture of one of the cells is not shown, one sentence each."""
    limits: tuple[str, ...] = ()
    """How far each of the cells is from what its host can do, one sentence each; empty where that is not known."""
    named: str = ""
    """How much of both cells' iterations the operators and kernels account for, as a sentence; empty without them."""
    as_baseline: str = ""
    """What the words that named the cells left open, which is as in the baseline: ``ipex=off``; empty if nothing."""

    @property
    def change_ms(self) -> float:
        """Milliseconds after, less those before."""
        return self.after_ms - self.before_ms

    @property
    def answer(self) -> str:
        """What the rounds say, as far as they can be trusted; empty without a verdict."""
        return UNTRUSTED if self.warning else self.verdict.answer.value if self.verdict else ""

    @property
    def conclusion(self) -> str:
        """The whole explanation in plain words, for a reader who skips the tables."""
        ratio = self.before_ms / self.after_ms
        faster = f"B is {ratio:.2f}x as fast as A" if ratio >= 1 else f"B is slower than A: {ratio:.2f}x of its speed"
        change = f"{less_or_more(self.change_ms)} per iteration"
        return " ".join(filter(None, (f"{faster}, {change}.", self._certainty, self.why)))

    @property
    def _certainty(self) -> str:
        if self.warning:
            return "Whether that is real can't be told from disturbed rounds."
        if self.verdict is None or self.verdict.interval is None:
            return "One round can't tell whether that is real; rounds=5 can."
        if self.verdict.answer is stats.Answer.UNDECIDED:
            return "That is no clear difference: more rounds may tell."
        return "The difference is real."

    def as_data(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        data = asdict(self)
        if self.verdict is not None:
            data["verdict"]["answer"] = self.answer
        return {**data, "change_ms": self.change_ms, "conclusion": self.conclusion}


Table = Mapping[str, Sequence[Any]]


def explain(
    names: tuple[str, str],
    rows: tuple[Row, Row],
    ops: tuple[Table, Table],
    ops_by: str,
    primitives: tuple[Table, Table],
    problems: tuple[Sequence[Problem], Sequence[Problem]] = ((), ()),
    callers: tuple[Table, Table] = ({}, {}),
) -> Explanation:
    """Line up two measured cells of equal work.

    Args:
        rows: before and after; the first is the baseline that the second's verdict refers to.
        ops: tables of operators (first column the name, second ms per iteration), from ``ops_by``.
        primitives: tables of oneDNN's primitives in the same form.
        problems: oneDNN's primitives by shape.
        callers: tables of the operators that called oneDNN, in the same form.
    """
    before, after = rows
    before_ms, after_ms = before.metrics[Metric.P50], after.metrics[Metric.P50]
    parts = sorted(changes(before.cell, after.cell), key=lambda part: -abs(part.ms))
    return Explanation(
        before=names[0],
        after=names[1],
        before_ms=before_ms,
        after_ms=after_ms,
        verdict=after.verdict,
        parts=tuple(parts),
        unexplained_ms=_unexplained(parts, after_ms - before_ms),
        operators=tuple(difference(*ops)) if all(ops) else (),
        operators_by=ops_by if all(ops) else "",
        primitives=tuple(difference(*primitives)) if all(primitives) else (),
        callers=tuple(difference(*callers)) if all(callers) else (),
        shapes=tuple(_shapes(*problems)) if all(problems) else (),
        figures=tuple(
            (str(name), before.metrics[name], after.metrics[name])
            for name in (*_FIGURES, *sorted(name for name in before.metrics if name.startswith("tma/")))
            if name in before.metrics and name in after.metrics and before.metrics[name] != after.metrics[name]
        ),
        warning=warning(rows),
        why=sentence(before.cell, after.cell),
        limits=tuple(
            f"{letter} does {row.position.sentence}." for letter, row in zip("AB", rows, strict=True) if row.position
        ),
    )


def _shapes(before: Sequence[Problem], after: Sequence[Problem]) -> list[ShapeChange]:
    """oneDNN's primitives by shape in both cells, largest change first."""
    olds, news = ({problem.name: problem for problem in problems} for problems in (before, after))
    changes_by_shape = []
    for name in dict.fromkeys([*olds, *news]):
        old, new = olds.get(name, Problem(name, 0.0, 0.0, "-")), news.get(name, Problem(name, 0.0, 0.0, "-"))
        changes_by_shape.append(ShapeChange(name, old.ms, new.ms, old.calls, new.calls, old.by, new.by))
    return sorted(changes_by_shape, key=lambda change: -abs(change.after_ms - change.before_ms))


def _unexplained(parts: Sequence[Change], change_ms: float) -> float | None:
    """What the better of two accounts leaves: parts in which a count differs, or the kernel, which lies across them."""
    if not parts:
        return None
    inside = sum(part.ms for part in parts if part.words and not part.across)
    across = sum(part.ms for part in parts if part.words and part.across)
    return min((change_ms - inside, change_ms - across), key=abs)
