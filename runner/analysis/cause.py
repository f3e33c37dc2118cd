"""Why one cell is faster than another, from what their captures measured: time by where it went, in ms a step. Pure.

A clean step is split into what oneDNN did (arithmetic, reorders, the rest of its primitives, as its log times them)
and what is left. Time in the kernel, which page faults cost, lies across that split. The main cause is the part whose
change is the largest among those in which something that can be counted differs (kernels, reorders, fused post-ops,
faults); only when none of them explains enough, the part of the step is named without a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from runner.analysis.ranking import Row
from runner.matrix.cell import ABSENT

# Below this difference there is nothing to explain: neighbours on a shared machine do as much.
WORTH_EXPLAINING = 0.05
# Counts that differ by less than this factor are the same count.
_OTHER = 1.2
# A part that explains less of the difference than this is not its main cause.
_MAIN = 0.25
# A logged step whose primitives took this much longer than a whole clean step was another step: disturbed.
_UNLIKE = 1.25
_UNOBSERVED = "unobserved"


class Say(Protocol):
    """What differs between two cells, in words; None when nothing does, or it can't explain a change of that sign."""

    def __call__(self, slow: Row, fast: Row, change_ms: float | None = None) -> str | None:  # noqa: D102 - as above
        ...


def count(value: float) -> str:
    """A count with three digits that mean something: "0", "12", "1.3 k", "1.34 M"."""
    for limit, unit in ((1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def _counts(metric: str, word: str, least: float, more_is_slower: bool = True) -> Say:
    def say(slow: Row, fast: Row, change_ms: float | None = None) -> str | None:
        before, after = slow.metrics.get(metric), fast.metrics.get(metric)
        if before is None or after is None or abs(after - before) < least:
            return None
        if max(before, after) < _OTHER * min(before, after):
            return None
        # Fewer reorders are no reason for more time in them.
        if change_ms is not None and (after > before) != ((change_ms > 0) == more_is_slower):
            return None
        return f"{word} {count(before)} -> {count(after)}"

    return say


def _kernels(slow: Row, fast: Row, change_ms: float | None = None) -> str | None:
    """Other instructions, or other implementations; nothing where oneDNN did too little of a step to tell."""
    isa = slow.record.isa, fast.record.isa
    if _UNOBSERVED in isa:
        return None
    if isa[0] != isa[1]:
        return f"kernels {isa[0]} -> {isa[1]}"
    before, after = (row.record.captures.get("onednn.kernel") for row in (slow, fast))
    return f"kernels {before} -> {after}" if before and after and before != after else None


_faults = _counts("faults/minor_per_iteration", "page faults a step", 1000.0)
_reorders = _counts("onednn/reorders_per_iteration", "reorders a step", 1.0)
_fused = _counts("onednn/fused_per_iteration", "fused primitives a step", 1.0, more_is_slower=False)


@dataclass(frozen=True)
class Part:
    """A part of the step that can be set against the same part of another cell's."""

    name: str
    metric: str
    """ms a step."""
    reasons: tuple[Say, ...]
    """What there can be counted, most telling first."""

    def say(self, slow: Row, fast: Row, change_ms: float) -> str | None:
        """What differs there, in words; None when nothing that was counted does."""
        return next((text for reason in self.reasons if (text := reason(slow, fast, change_ms))), None)


# oneDNN's, without what is outside of it.
_PRIMITIVES = (
    Part("convolutions and products", "onednn/compute_ms_per_iteration", (_kernels, _fused)),
    Part("reorders", "onednn/reorder_ms_per_iteration", (_reorders,)),
    Part("other primitives", "onednn/other_ms_per_iteration", (_fused,)),
)
_OUTSIDE = Part("outside oneDNN", "", (_fused,))
# They add up to a step.
STEP_PARTS = (*_PRIMITIVES, _OUTSIDE)
_KERNEL = Part("the kernel", "cpu/kernel_ms_per_iteration", (_faults,))


# Loads under which a sample holds one whole batch, as the logged step does: none, or clients that wait for each other.
_FULL_BATCHES = (ABSENT, "ab")


def split(row: Row) -> dict[str, float]:
    """Part -> ms of a clean step, adding up to its p50; empty when oneDNN's log was not taken or is of another step.

    oneDNN times its primitives without the printing, so their times stand as they are; they are scaled only where they
    sum to more than the clean step.
    """
    if (
        row.axes.get("load") not in _FULL_BATCHES
        or row.p50_ms is None
        or any(part.metric not in row.metrics for part in _PRIMITIVES)
    ):
        return {}
    times = {part.name: row.metrics[part.metric] for part in _PRIMITIVES}
    total = sum(times.values())
    if total > _UNLIKE * row.p50_ms:
        return {}
    scale = min(1.0, row.p50_ms / total) if total else 1.0
    return {name: ms * scale for name, ms in times.items()} | {_OUTSIDE.name: max(row.p50_ms - total, 0.0)}


def differences(slow: Row, fast: Row) -> str:
    """Everything that was counted and differs between two cells, in words; empty when nothing does."""
    said = [say(slow, fast) for say in (_kernels, _faults, _reorders, _fused)]
    return ", ".join(text for text in said if text)


def main_cause(baseline: Row, row: Row) -> str:
    """The part of the step whose change explains most of a cell's distance from the baseline, with that change.

    ``-`` when the distance is not worth a word or not shown by the rounds, ``not seen`` when no part explains a
    quarter of it.
    """
    if row.is_baseline or row.is_undecided or not baseline.p50_ms or not row.p50_ms or row.speedup is None:
        return "-"
    change_ms = row.p50_ms - baseline.p50_ms
    if abs(change_ms) < WORTH_EXPLAINING * min(row.p50_ms, baseline.p50_ms):
        return "-"
    parts = [part for part in changes(baseline, row) if part.ms / change_ms >= _MAIN]
    main = max([part for part in parts if part.words] or parts, key=lambda part: part.ms / change_ms, default=None)
    return "not seen" if main is None else f"{main.text} ({signed(main.ms)} of {signed(change_ms)} ms)"


def signed(ms: float) -> str:
    """A change with three digits that mean something and its sign: "+0.12", "-8.5", "-1093"."""
    return f"{ms:+.0f}" if abs(ms) >= 100 else f"{ms:+.3g}"


@dataclass(frozen=True)
class Change:
    """One part of the step in two cells."""

    name: str
    words: str | None
    """What was counted there and differs; None when nothing is."""
    before_ms: float
    after_ms: float
    across: bool = False
    """Lies across the other parts, which add up to the step without it."""

    @property
    def ms(self) -> float:
        """After, less before."""
        return self.after_ms - self.before_ms

    @property
    def text(self) -> str:
        """What was counted, else the part's name."""
        return self.words or (f"time {self.name}" if self.name.startswith("outside") else f"time in {self.name}")


def changes(baseline: Row, row: Row) -> list[Change]:
    """Every part of the step that both cells know."""
    found: list[Change] = []
    kernel = baseline.metrics.get(_KERNEL.metric), row.metrics.get(_KERNEL.metric)
    if kernel[0] is not None and kernel[1] is not None:
        words = _KERNEL.say(baseline, row, kernel[1] - kernel[0])
        if words:  # time in the kernel that nothing counted explains is in the other parts
            found.append(Change(_KERNEL.name, words, kernel[0], kernel[1], across=True))
    before, after = split(baseline), split(row)
    if not before or not after:
        return found
    isa = baseline.record.isa, row.record.isa
    merged = (_PRIMITIVES[0].name, _OUTSIDE.name) if (isa[0] == _UNOBSERVED) != (isa[1] == _UNOBSERVED) else ()
    if merged:
        # Arithmetic moved into oneDNN from another library, or out of it: neither part alone is a cause.
        words = f"arithmetic moved {'into' if isa[0] == _UNOBSERVED else 'out of'} oneDNN"
        sums = [sum((side[name] for name in merged), 0.0) for side in (before, after)]
        found.append(Change("arithmetic, in oneDNN or not", words, sums[0], sums[1]))
    for part in STEP_PARTS:
        if part.name not in merged:
            words = part.say(baseline, row, after[part.name] - before[part.name])
            found.append(Change(part.name, words, before[part.name], after[part.name]))
    return found


def main_causes(rows: Sequence[Row]) -> list[tuple[Row, str]]:
    """Each row with its main cause; ``-`` without a baseline."""
    baseline = next((row for row in rows if row.is_baseline), None)
    return [(row, main_cause(baseline, row) if baseline else "-") for row in rows]
