"""Why one cell is faster than another: everything that was captured of both, lined up, largest change first. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from runner import stats
from runner.analysis.cause import Change, changes, count
from runner.analysis.operators import Change as OperatorChange
from runner.analysis.operators import difference
from runner.analysis.ranking import UNTRUSTED, Row, warning
from runner.capture.kernel_tables import Problem

# Figures set side by side, where both cells have them.
_FIGURES = (
    "faults/minor_per_iteration",
    "cpu/voluntary_switches_per_iteration",
    "cpu/involuntary_switches_per_iteration",
    "cpu/cores_busy",
    "memory/rss_peak_mb",
    "quality/rel_l2",
    "onednn/coverage_pct",
    "onednn/reorders_per_iteration",
    "onednn/activation_reorders_per_iteration",
    "onednn/weight_reorders_per_iteration",
    "onednn/reorder_mb_per_iteration",
    "onednn/fused_per_iteration",
    "onednn/cache_misses_per_iteration",
    "counters/instructions_per_cycle",
    "counters/context-switches_per_iteration",
    "counters/cpu-migrations_per_iteration",
)


@dataclass(frozen=True)
class ShapeChange:
    """One kind of oneDNN primitive on one shape in two cells; 0 and ``-`` where it did not run."""

    name: str
    before_ms: float
    """A step, of all its calls."""
    after_ms: float
    before_calls: float
    """A step."""
    after_calls: float
    before_by: str
    """Implementations and their post-ops, see `Problem`."""
    after_by: str

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
    """The cells' names."""
    after: str
    before_ms: float
    after_ms: float
    verdict: stats.Verdict | None
    """Of the rounds; None without a speed-up."""
    parts: tuple[Change, ...]
    """Of the step, largest change first."""
    unexplained_ms: float | None
    """What neither a counted difference in a part of the step nor one in the kernel accounts for; None: no capture."""
    operators: tuple[OperatorChange, ...]
    operators_by: str
    """``ITT``, ``PyTorch's profiler``, or nothing."""
    primitives: tuple[OperatorChange, ...]
    """oneDNN's, by kind and implementation."""
    shapes: tuple[ShapeChange, ...]
    """oneDNN's, by kind and shape."""
    figures: tuple[tuple[str, float, float], ...]
    """(metric, before, after) where they differ."""
    warning: str = ""
    """What must be said first, see ranking.distrust()."""

    @property
    def change_ms(self) -> float:
        """After, less before."""
        return self.after_ms - self.before_ms

    @property
    def answer(self) -> str:
        """What the rounds say, as far as they can be trusted; empty without a verdict."""
        return UNTRUSTED if self.warning else self.verdict.answer.value if self.verdict else ""

    def as_data(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        data = asdict(self)
        if self.verdict is not None:
            data["verdict"]["answer"] = self.answer
        return {**data, "change_ms": self.change_ms}


Table = Mapping[str, Sequence[Any]]


def explain(
    names: tuple[str, str],
    rows: tuple[Row, Row],
    ops: tuple[Table, Table],
    ops_by: str,
    primitives: tuple[Table, Table],
    problems: tuple[Sequence[Problem], Sequence[Problem]] = ((), ()),
) -> Explanation:
    """Line up two measured cells of equal work.

    Args:
        rows: before and after; the first is the baseline that the second's verdict refers to.
        ops: tables of operators (first column the name, second ms a step), from ``ops_by``.
        primitives: tables of oneDNN's primitives in the same form.
        problems: oneDNN's primitives by shape.
    """
    before, after = rows
    before_ms, after_ms = before.metrics["latency/p50_ms"], after.metrics["latency/p50_ms"]
    parts = sorted(changes(before, after), key=lambda part: -abs(part.ms))
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
        shapes=tuple(_shapes(*problems)) if all(problems) else (),
        figures=tuple(
            (name, before.metrics[name], after.metrics[name])
            for name in (*_FIGURES, *sorted(name for name in before.metrics if name.startswith("tma/")))
            if name in before.metrics and name in after.metrics and before.metrics[name] != after.metrics[name]
        ),
        warning=warning(rows),
    )


def _shapes(before: Sequence[Problem], after: Sequence[Problem]) -> list[ShapeChange]:
    """Largest change first."""
    olds, news = ({problem.name: problem for problem in found} for found in (before, after))
    found = []
    for name in dict.fromkeys([*olds, *news]):
        old, new = olds.get(name, Problem(name, 0.0, 0.0, "-")), news.get(name, Problem(name, 0.0, 0.0, "-"))
        found.append(ShapeChange(name, old.ms, new.ms, old.calls, new.calls, old.by, new.by))
    return sorted(found, key=lambda change: -abs(change.after_ms - change.before_ms))


def _unexplained(parts: Sequence[Change], change_ms: float) -> float | None:
    """What the better of two accounts leaves: parts in which a count differs, or the kernel, which lies across them."""
    if not parts:
        return None
    inside = sum(part.ms for part in parts if part.words and not part.across)
    across = sum(part.ms for part in parts if part.words and part.across)
    return min((change_ms - inside, change_ms - across), key=abs)
