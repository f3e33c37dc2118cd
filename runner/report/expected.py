"""A published figure beside ours, with what in our cells explains the difference. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner.matrix import matches
from runner.report.ranking import Row


@dataclass(frozen=True)
class Expectation:
    """How much faster one cell was than another, elsewhere."""

    source: str
    speedup: float
    slow: Mapping[str, Sequence[str]]
    fast: Mapping[str, Sequence[str]]
    """Axes of the cells; an empty ``fast`` is the fastest cell."""


def count(value: float) -> str:
    """A count with three digits that mean something: "0", "12", "1.3 k", "1.34 M"."""
    for limit, unit in ((1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


# metric -> what it is called, and what it must differ by to be worth a word
_REASONS: Mapping[str, tuple[str, float]] = {
    "faults/minor_per_step": ("page faults a step", 1000.0),
    "onednn/reorders_per_step": ("oneDNN reorders a step", 1.0),
    "onednn/fused_per_step": ("fused primitives a step", 1.0),
    "cpu/system_pct": ("share of CPU time in the kernel, %", 5.0),
}


def because(slow: Row, fast: Row) -> str:
    """What differs between two cells besides their speed, in words; empty when nothing that was looked at does."""
    said = []
    if slow.record.isa != fast.record.isa:
        said.append(f"kernels {slow.record.isa} -> {fast.record.isa}")
    for metric, (name, least) in _REASONS.items():
        before, after = slow.metrics.get(metric), fast.metrics.get(metric)
        if before is None or after is None or abs(after - before) < least:
            continue
        if max(before, after) >= 1.5 * min(before, after):
            said.append(f"{name} {count(before)} -> {count(after)}")
    return ", ".join(said)


def lines(expectations: Sequence[Expectation], rows: Sequence[Row]) -> list[str]:
    """One line an expectation: the published ratio, ours, and why."""
    right = [row for row in rows if row.p50_ms is not None and row.is_right]
    said = []
    for expected in expectations:
        slow = next((row for row in right if matches(expected.slow, row.axes)), None)
        fast = next((row for row in right if matches(expected.fast, row.axes)), None)
        text = f"{expected.source}: {expected.speedup:.2f}x"
        if slow is None or fast is None or not slow.p50_ms or not fast.p50_ms:
            said.append(f"{text} | here: one of its two cells is missing, failed or has a wrong output")
            continue
        reason = because(slow, fast)
        said.append(f"{text} | here {slow.p50_ms / fast.p50_ms:.2f}x" + (f" - because {reason}" if reason else ""))
    return said
