"""perf stat's counts of a few steady steps: which events to ask for, and its CSV read back. Pure.

Format: "perf-stat(1)", CSV FORMAT: value; unit; event; run time of the counter, ns; share of the time it ran, %;
metric value; metric unit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

SOFTWARE = ("task-clock", "page-faults", "minor-faults", "major-faults", "context-switches", "cpu-migrations")
HARDWARE = ("{cycles,instructions}", "branches", "branch-misses", "cache-references", "cache-misses")

# The first level of the top-down method where perf itself knows it: Intel's groups, and AMD's since Zen 4.
METRIC_GROUPS = ("TopdownL1", "PipelineL1")

# perf's names of the level-1 metrics (Intel's have a prefix) -> toplev's.
_LEVEL1 = {
    "frontend_bound": "Frontend_Bound",
    "bad_speculation": "Bad_Speculation",
    "backend_bound": "Backend_Bound",
    "retiring": "Retiring",
}
# AMD's share of slots that the other thread of the core had.
_OTHER_THREAD = "smt_contention"
_SUM_TOLERANCE_PCT = 2.0

# perf multiplies a count up to the time it was not on a counter; past this, the figure is mostly made up.
LEAST_RUNNING_PCT = 50.0

_NUMBER = re.compile(r"\d{1,40}(\.\d{1,40})?(e[+-]?\d{1,3})?", re.ASCII)
_MOST = 1e24
# Names of events become names of metrics.
_EVENT = re.compile(r"[\w./=,:-]{1,100}", re.ASCII)

# What happens in the kernel is counted as 0 where perf may count in user mode only.
_KERNEL_SIDE = ("context-switches", "cpu-migrations")


def command(perf: str, events: Sequence[str], group: str | None) -> tuple[str, ...]:
    """``perf stat`` with its choice of events, to which a target and an output are added."""
    metrics = ("-M", group) if group else ()
    return (perf, "stat", "-x;", "-e", ",".join(events), *metrics)


@dataclass
class Counts:
    """What was counted."""

    values: dict[str, float] = field(default_factory=dict)
    """Event -> count; task-clock in seconds."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metric of a group -> percent, named by perf."""
    missing: dict[str, str] = field(default_factory=dict)
    """Event or metric -> why it has no figure: ``not counted``, ``not supported``, ``counted 25 % of the time``."""
    running_pct: float = 100.0
    """The least share of the time that an event with a figure was on a counter."""
    user_only: bool = False
    """perf may not count in the kernel here (perf_event_paranoid)."""

    def level1(self) -> dict[str, float]:
        """Top-down level 1 in percent of slots, by toplev's names; empty unless all four are there and make 100."""
        plain = {name.removeprefix("tma_"): value for name, value in self.metrics.items()}
        found = {toplev: plain[name] for name, toplev in _LEVEL1.items() if name in plain}
        total = math.fsum(found.values()) + plain.get(_OTHER_THREAD, 0.0)
        return found if len(found) == len(_LEVEL1) and abs(total - 100) <= _SUM_TOLERANCE_PCT else {}


def parse(text: str) -> Counts:
    """Read the output of ``perf stat -x;``; lines that are not counts are comments, empty, or in ``missing``."""
    counts = Counts()
    for line in text.splitlines():
        words = line.split(";")
        if len(words) < 5 or line.startswith("#"):
            continue
        value, unit, event, _, running = words[:5]
        if event.endswith(":u"):
            event, counts.user_only = event.removesuffix(":u"), True
        share = _number(running) if running else 100.0
        # A metric stands on the line of one of its events, or on a line of its own.
        figures = [(event, value, 1e-3 if unit == "msec" else 1.0, counts.values)] if event else []
        if len(words) >= 7 and words[6].startswith("%"):
            figures.append((words[6].lstrip("% ").strip(), words[5], 1.0, counts.metrics))
        for name, text_value, factor, into in figures:
            number = _number(text_value)
            if not _EVENT.fullmatch(name):
                continue
            if text_value.startswith("<"):
                counts.missing[name] = text_value.strip("<>")
            elif number is None or share is None or not share <= 100 + _SUM_TOLERANCE_PCT:
                counts.missing[name] = f"unreadable: {line[:200]}"
            elif share < LEAST_RUNNING_PCT:
                counts.missing[name] = f"counted {share:g} % of the time"
            else:
                into[name] = number * factor
                counts.running_pct = min(counts.running_pct, share)
    if counts.user_only:
        for name in _KERNEL_SIDE:
            if counts.values.pop(name, None) is not None:
                counts.missing[name] = "not counted in user mode"
    return counts


def _number(text: str) -> float | None:
    """What perf prints as a number; None when it is none, or one that can't be counted to."""
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    return number if number < _MOST else None
