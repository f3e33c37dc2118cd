"""A published figure beside ours, with what in our cells explains the difference. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner.analysis.cause import differences
from runner.analysis.ranking import UNTRUSTED, Row
from runner.analysis.wording import ratio
from runner.matrix.rules import matches
from runner.results.metric_names import Metric


@dataclass(frozen=True)
class Expectation:
    """A published speed-up of one cell over another."""

    source: str
    """Where the figure is from, in one sentence."""
    speedup: float
    """The published speed-up."""
    slow: Mapping[str, Sequence[str]]
    """The axes of the slower cell, with the values that each may have."""
    fast: Mapping[str, Sequence[str]]
    """The axes of the faster cell; empty for the fastest cell of the sweep."""


def lines(expectations: Sequence[Expectation], rows: Sequence[Row]) -> list[str]:
    """One line per expectation: the published ratio, ours, and why."""
    right = [row for row in rows if row.p50_ms is not None and row.is_right]
    texts = []
    for expected in expectations:
        slow = next((row for row in right if matches(expected.slow, row.labels)), None)
        fast = next((row for row in right if matches(expected.fast, row.labels)), None)
        text = f"{expected.source}: {ratio(expected.speedup)}"
        if slow is None or fast is None or not slow.p50_ms or not fast.p50_ms:
            texts.append(f"{text} | here: one of its two cells is missing, failed or has a wrong output")
            continue
        reason = differences(slow.cell, fast.cell)
        doubt = f" ({UNTRUSTED}: disturbed)" if slow.cell.contamination or fast.cell.contamination else ""
        because = f" - because {reason}" if reason else ""
        texts.append(f"{text} | here {ratio(_ratio(slow, fast))}{doubt}{because}")
    return texts


def _ratio(slow: Row, fast: Row) -> float:
    """The speed-up: behind a server by throughput, which is what is published for servers; else by the median."""
    if slow.cell.is_served and fast.cell.is_served:
        return fast.metrics[Metric.SAMPLES_PER_S] / slow.metrics[Metric.SAMPLES_PER_S]
    return slow.metrics[Metric.P50] / fast.metrics[Metric.P50]
