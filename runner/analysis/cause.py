"""Why one cell is faster than another, from what their captures measured: where the time of an iteration went. Pure.

A clean iteration is split into what oneDNN did (arithmetic, reorders, the rest of its primitives, as its log has it)
and what is left. Time in the kernel, which page faults cost, lies across that split. The main cause is the part whose
change is the largest among those in which something that can be counted differs (kernels, reorders, fused post-ops,
faults); only when none of them explains enough, the part is named without a reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from runner.capture.steps import UNLIKE_FACTOR
from runner.protocol.cell import ABSENT
from runner.protocol.verdicts import UNOBSERVED
from runner.results.cells import CellRow
from runner.results.metric_names import Metric

# Below this difference there is nothing to explain: neighbours on a shared machine do as much.
WORTH_EXPLAINING = 0.05
# Counts that differ by less than this factor are the same count.
_OTHER = 1.2
# A part that explains less of the difference than this is not its main cause.
_MAIN = 0.25
# What is left of a difference is not worth its figure below this share of it.
_HARDLY = 0.05
# Arithmetic has moved into oneDNN or out of it where oneDNN's share of an iteration changed by this much: those of
# twins of one model differ by a few hundredths.
_MOVED = 0.2


# The family of oneDNN's reference implementations, see runner.capture.primitives.isa_family.
_REFERENCE = "ref"


class Say(Protocol):
    """What differs between two cells, in words; None when nothing does, or it can't explain a change of that sign."""

    def __call__(self, slow: CellRow, fast: CellRow, change_ms: float | None = None) -> str | None:  # noqa: D102 - as above
        ...


def count(value: float) -> str:
    """A count with three digits that mean something: "0", "12", "1.3 k", "1.34 M"."""
    for limit, unit in ((1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def _counts(metric: str, word: str, least: float, more_is_slower: bool = True) -> Say:
    def say(slow: CellRow, fast: CellRow, change_ms: float | None = None) -> str | None:
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


def _kernels(slow: CellRow, fast: CellRow, change_ms: float | None = None) -> str | None:
    """The change of oneDNN's instructions, or else of its implementations; None where it did too little to show.

    A reference implementation, which is written to be right and not fast, is a cause by its name: brg_matmul -> ref.
    """
    isa = slow.isa, fast.isa
    if UNOBSERVED in isa:
        return None
    before, after = (cell.captures.get("onednn.kernel") for cell in (slow, fast))
    if isa[0] != isa[1]:
        has_names = before and after and _REFERENCE in isa
        names = [str(name).partition(":")[0] for name in (before, after)] if has_names else isa
        return f"kernels {names[0]} -> {names[1]}"
    return f"kernels {before} -> {after}" if before and after and before != after else None


_faults = _counts(Metric.MINOR_FAULTS, "page faults per iteration", 1000.0)
_reorders = _counts(Metric.REORDERS, "reorders per iteration", 1.0)
_fused = _counts(Metric.FUSED, "fused primitives per iteration", 1.0, more_is_slower=False)


@dataclass(frozen=True)
class Part:
    """A part of an iteration that can be set against the same part of another cell's."""

    name: str
    """What the part is called in tables and sentences."""
    metric: str
    """The metric that holds its time in milliseconds per iteration; empty if its time is what the others leave."""
    reasons: tuple[Say, ...]
    """What can be counted in the part, the most informative first."""
    aloud: str = ""
    """What the part is in a sentence, for readers who do not know oneDNN."""

    def say(self, slow: CellRow, fast: CellRow, change_ms: float) -> str | None:
        """What differs there, in words; None when nothing that was counted does."""
        return next((text for reason in self.reasons if (text := reason(slow, fast, change_ms))), None)


# The parts that oneDNN's log measures.
_PRIMITIVES = (
    Part("convolution / matmul", Metric.COMPUTE_TIME, (_kernels, _fused), "arithmetic in oneDNN (convolution, matmul)"),
    Part("reorders", Metric.REORDER_TIME, (_reorders,), "moving data into another layout (reorders of oneDNN)"),
    Part("other primitives", Metric.OTHER_PRIMITIVES_TIME, (_fused,), "other work of oneDNN (pooling, activations)"),
)
_OUTSIDE = Part("outside oneDNN", "", (_fused,), "work outside oneDNN (batch norm, copies and the like)")
# The parts that add up to an iteration.
PARTS = (*_PRIMITIVES, _OUTSIDE)
_KERNEL = Part("the kernel", Metric.KERNEL_TIME, (_faults,), "the operating system's work for memory")
_MOVED_PART = "arithmetic, in oneDNN or not"
_ALOUD = {part.name: part.aloud for part in (*PARTS, _KERNEL)} | {_MOVED_PART: "arithmetic, whichever library does it,"}


# All figures that are needed to find a cause.
FIGURES = (
    *(part.metric for part in (*_PRIMITIVES, _KERNEL)),
    Metric.P50,
    Metric.MINOR_FAULTS,
    Metric.REORDERS,
    Metric.FUSED,
    Metric.PRIMITIVES,
)

# Loads under which a latency is of one whole batch, as the logged iteration is: none, or clients that wait for each
# other.
_FULL_BATCHES = (ABSENT, "ab")


def split(cell: CellRow) -> dict[str, float]:
    """Part -> ms of a clean iteration, adding up to its p50; empty if oneDNN's log is missing or of another one.

    oneDNN times its primitives without the printing, so their times stand as they are; they are scaled only where they
    sum to more than the clean iteration.
    """
    if (
        cell.axes.get("load", ABSENT) not in _FULL_BATCHES
        or cell.p50_ms is None
        or any(part.metric not in cell.metrics for part in _PRIMITIVES)
    ):
        return {}
    times = {part.name: cell.metrics[part.metric] for part in _PRIMITIVES}
    total = sum(times.values())
    if total > UNLIKE_FACTOR * cell.p50_ms:
        return {}
    scale = min(1.0, cell.p50_ms / total) if total else 1.0
    return {name: ms * scale for name, ms in times.items()} | {_OUTSIDE.name: max(cell.p50_ms - total, 0.0)}


def differences(slow: CellRow, fast: CellRow) -> str:
    """Everything that was counted and differs between two cells, in words; empty when nothing does."""
    texts = [say(slow, fast) for say in (_kernels, _faults, _reorders, _fused)]
    return ", ".join(text for text in texts if text)


def main_cause(before: CellRow, after: CellRow) -> str:
    """The part of an iteration whose change explains most of the distance between two cells, with that change.

    ``-`` when the distance is not worth a word, ``not seen`` when no part explains a quarter of it.
    """
    change_ms = _worth_explaining(before, after)
    if not change_ms:
        return "-"
    main = _main_change(before, after, change_ms)
    return "not seen" if main is None else f"{main.text} ({signed(main.ms)} of {signed(change_ms)} ms)"


def sentence(before: CellRow, after: CellRow) -> str:
    """The main cause for somebody who has never heard of oneDNN; empty where `main_cause` names none.

    Like ``Mostly, work outside oneDNN (batch norm, copies and the like) takes 271 ms less per iteration; everything
    else together takes 42 ms more.``
    """
    change_ms = _worth_explaining(before, after)
    main = _main_change(before, after, change_ms) if change_ms else None
    if main is None:
        return ""
    rest_ms = change_ms - main.ms
    rest = f"takes {less_or_more(rest_ms)}" if abs(rest_ms) >= _HARDLY * abs(change_ms) else "takes as long as before"
    counted = f" ({main.words})" if main.words else ""
    lead = "Mostly" if abs(main.ms) >= abs(rest_ms) else "In part"
    return (
        f"{lead}, {_ALOUD.get(main.name, main.name)} takes {less_or_more(main.ms)} per iteration{counted}; "
        f"everything else together {rest}."
    )


def _worth_explaining(before: CellRow, after: CellRow) -> float:
    """The distance between two cells in ms; 0 if it is not known, or too small to explain."""
    if not before.p50_ms or not after.p50_ms:
        return 0.0
    change_ms = after.p50_ms - before.p50_ms
    return change_ms if abs(change_ms) >= WORTH_EXPLAINING * min(after.p50_ms, before.p50_ms) else 0.0


def _main_change(before: CellRow, after: CellRow, change_ms: float) -> Change | None:
    parts = [part for part in changes(before, after) if part.ms / change_ms >= _MAIN]
    return max([part for part in parts if part.words] or parts, key=lambda part: part.ms / change_ms, default=None)


def less_or_more(ms: float) -> str:
    """A change in words: "271 ms less"."""
    return f"{signed(abs(ms)).lstrip('+')} ms {'less' if ms < 0 else 'more'}"


def signed(ms: float) -> str:
    """A change with three digits that mean something and its sign: "+0.12", "-8.5", "-1093"."""
    return f"{ms:+.0f}" if abs(ms) >= 100 else f"{ms:+.3g}"


@dataclass(frozen=True)
class Change:
    """One part of an iteration in two cells."""

    name: str
    words: str | None
    """What was counted in the part and differs; None when nothing does."""
    before_ms: float
    after_ms: float
    across: bool = False
    """Whether it lies across the other parts, which add up to an iteration without it."""

    @property
    def ms(self) -> float:
        """Milliseconds after, less those before."""
        return self.after_ms - self.before_ms

    @property
    def text(self) -> str:
        """What was counted in the part and differs, else the part's name."""
        return self.words or (f"time {self.name}" if self.name.startswith("outside") else f"time in {self.name}")


def changes(before: CellRow, after: CellRow) -> list[Change]:
    """Every part of an iteration that was measured in both cells."""
    return [*_kernel_change(before, after), *_part_changes(before, after)]


def _kernel_change(before: CellRow, after: CellRow) -> list[Change]:
    """Time in the kernel, where something that was counted explains it: else it is in the other parts."""
    old_ms, new_ms = before.metrics.get(_KERNEL.metric), after.metrics.get(_KERNEL.metric)
    if old_ms is None or new_ms is None:
        return []
    words = _KERNEL.say(before, after, new_ms - old_ms)
    return [Change(_KERNEL.name, words, old_ms, new_ms, across=True)] if words else []


def _part_changes(before: CellRow, after: CellRow) -> list[Change]:
    """The parts that add up to an iteration."""
    old, new = split(before), split(after)
    if not old or not new:
        return []
    parts: list[Change] = []
    moved = _moved_arithmetic(before, after)
    merged = (_PRIMITIVES[0].name, _OUTSIDE.name) if moved else ()
    if moved:
        # From another library, or to it: neither part alone is a cause.
        sums = [sum((side[name] for name in merged), 0.0) for side in (old, new)]
        parts.append(Change(_MOVED_PART, moved, sums[0], sums[1]))
    for part in PARTS:
        if part.name not in merged:
            reason = part.say(before, after, new[part.name] - old[part.name])
            parts.append(Change(part.name, reason, old[part.name], new[part.name]))
    return parts


def _moved_arithmetic(before: CellRow, after: CellRow) -> str | None:
    """Say in words that arithmetic moved into oneDNN or out of it, with the name of oneDNN's kernel where it is known.

    Returns None where no arithmetic moved.

    It is not enough that oneDNN did more than half of one iteration and less than half of the other, because a share of
    49 % and one of 53 % are the same work: the number of primitives must have changed as well, or the share by far.
    Where one cell has none of oneDNN's primitives, it is enough that they took a good share of the other.
    """
    fewer, more = sorted((before, after), key=_share)
    least, most = _primitives(fewer), _primitives(more)
    has_more = least is not None and most is not None and most - least >= 1 and most >= _OTHER * least
    by_far = _share(more) - _share(fewer) >= _MOVED
    has_another_main = (fewer.isa == UNOBSERVED) != (more.isa == UNOBSERVED) and (has_more or by_far)
    is_all_of_it = least == 0 and has_more and by_far
    if not (has_another_main or is_all_of_it):
        return None
    kernel = more.captures.get("onednn.kernel")
    return f"arithmetic moved {'into' if more is after else 'out of'} oneDNN" + (f"'s {kernel}" if kernel else "")


def _primitives(cell: CellRow) -> float | None:
    """The number of primitives per iteration that are no reorders; None if it is not known."""
    number = cell.metrics.get(Metric.PRIMITIVES)
    return None if number is None else number - cell.metrics.get(Metric.REORDERS, 0.0)


def _share(cell: CellRow) -> float:
    """The share of a clean iteration that oneDNN's arithmetic took."""
    return split(cell)[_PRIMITIVES[0].name] / cell.p50_ms if cell.p50_ms and split(cell) else 0.0
