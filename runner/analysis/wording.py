"""How a ratio, a time and a cell are said in every sentence and table. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from runner.analysis.certainty import is_too_wide
from runner.analysis.ranking import Row, cell_name
from runner.stats import Interval

_IPEX = {"on": "with IPEX", "off": "without IPEX", "multistream": "with IPEX's streams"}


def ratio(value: float) -> str:
    """A speed-up, like ``1.08x``, or ``0.0028x`` where two decimals would leave nothing of it."""
    if 0 < value < 0.1 and math.isfinite(value):
        return f"{value:.2g}x"
    return f"{value:.2f}x"


def ms(row: Row) -> str:
    """The median latency of a measured row, like ``2713 ms``."""
    return f"{row.p50_ms:.4g} ms"


def aloud(row: Row, distinguishing: Sequence[str]) -> str:
    """The name of a cell in a sentence, like ``ptmalloc, bf16 with IPEX``."""
    ipex = _IPEX.get(row.labels.get("ipex", ""), "") if "ipex" in distinguishing else ""
    if not ipex:
        return cell_name(row, distinguishing)
    others = cell_name(row, [axis for axis in distinguishing if axis != "ipex"])
    return f"{others} {ipex}" if others else ipex


def interval_of(interval: Interval, of: str = "") -> str:
    """The 95 % interval of a speed-up in a sentence, with what it has been corrected for."""
    return interval_between(interval.low, interval.high, of)


def interval_between(low: float, high: float, of: str = "") -> str:
    """See `interval_of`, for ends as they are stored."""
    if is_too_wide(low, high):
        return "too few rounds for an interval"
    return f"95 % interval {ratio(low)} to {ratio(high)}{of}"
