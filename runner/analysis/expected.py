"""A published figure beside ours, with what in our cells explains the difference. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner.analysis.cause import differences
from runner.analysis.ranking import UNTRUSTED, Row
from runner.matrix.rules import matches


@dataclass(frozen=True)
class Expectation:
    """How much faster one cell was than another, elsewhere."""

    source: str
    speedup: float
    slow: Mapping[str, Sequence[str]]
    fast: Mapping[str, Sequence[str]]
    """Axes of the cells; an empty ``fast`` is the fastest cell."""


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
        reason = differences(slow, fast)
        doubt = f" ({UNTRUSTED}: contaminated)" if slow.record.contamination or fast.record.contamination else ""
        because = f" - because {reason}" if reason else ""
        said.append(f"{text} | here {_ratio(slow, fast):.2f}x{doubt}{because}")
    return said


def _ratio(slow: Row, fast: Row) -> float:
    """How much faster: behind a server by throughput, which is what is published of servers; else by the median."""
    name = "throughput/samples_per_s"
    if slow.record.is_served and fast.record.is_served:
        return fast.metrics[name] / slow.metrics[name]
    return slow.metrics["latency/p50_ms"] / fast.metrics["latency/p50_ms"]
