"""The counts that perf stat makes of a few steady iterations: the events to ask for, and the parser of its CSV. Pure.

Format: perf-stat(1), section CSV FORMAT: value; unit; event; run time of the counter in ns; share of the time that it
ran in %; metric value; metric unit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

SOFTWARE = ("task-clock", "page-faults", "minor-faults", "major-faults", "context-switches", "cpu-migrations")
HARDWARE = ("{cycles,instructions}", "branches", "branch-misses", "cache-references", "cache-misses")

# perf's metric groups with the first level of the top-down method: Intel's, and AMD's since Zen 4.
METRIC_GROUPS = ("TopdownL1", "PipelineL1")

# perf's name of a level-1 metric (Intel's have a prefix) -> toplev's name.
_LEVEL1 = {
    "frontend_bound": "Frontend_Bound",
    "bad_speculation": "Bad_Speculation",
    "backend_bound": "Backend_Bound",
    "retiring": "Retiring",
}
# AMD's metric for the share of slots that the other thread of the core used.
_OTHER_THREAD = "smt_contention"
_SUM_TOLERANCE_PCT = 2.0

# perf extrapolates a count over the time that its event had no counter; below this, most of the figure is made up.
LEAST_RUNNING_PCT = 50.0

_NUMBER = re.compile(r"\d{1,40}(\.\d{1,40})?(e[+-]?\d{1,3})?", re.ASCII)
_MOST = 1e24
# Names of events become names of metrics.
_EVENT = re.compile(r"[\w./=,:-]{1,100}", re.ASCII)

# Events that happen in the kernel: perf counts them as 0 where it may count in user mode only.
_KERNEL_SIDE = ("context-switches", "cpu-migrations")


def command(perf: str, events: Sequence[str], group: str | None) -> tuple[str, ...]:
    """The ``perf stat`` command for these events; the caller adds a target and an output."""
    metrics = ("-M", group) if group else ()
    return (perf, "stat", "-x;", "-e", ",".join(events), *metrics)


@dataclass
class Counts:
    """The counts of one run of perf stat."""

    values: dict[str, float] = field(default_factory=dict)
    """Event -> count; task-clock is in seconds."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metric of a group, by perf's name -> percent."""
    missing: dict[str, str] = field(default_factory=dict)
    """Event or metric -> why it has no figure: ``not counted``, ``not supported``, ``counted 25 % of the time``."""
    running_pct: float = 100.0
    """The smallest share of the time for which an event with a figure was on a counter."""
    user_only: bool = False
    """Whether perf may count in user mode only here (perf_event_paranoid)."""

    def level1(self) -> dict[str, float]:
        """Top-down level 1 in percent of slots, by toplev's names; empty unless all four are known and make 100."""
        plain = {name.removeprefix("tma_"): value for name, value in self.metrics.items()}
        shares = {toplev: plain[name] for name, toplev in _LEVEL1.items() if name in plain}
        total = math.fsum(shares.values()) + plain.get(_OTHER_THREAD, 0.0)
        return shares if len(shares) == len(_LEVEL1) and abs(total - 100) <= _SUM_TOLERANCE_PCT else {}


def parse(text: str) -> Counts:
    """Read the output of ``perf stat -x;``; it skips comments, and counts without a figure are ``missing``."""
    counts = Counts()
    for line in text.splitlines():
        words = line.split(";")
        if len(words) < 5 or line.startswith("#"):
            continue
        value, unit, event, _, running = words[:5]
        if event.endswith(":u"):
            event, counts.user_only = event.removesuffix(":u"), True
        share = _number(running) if running else 100.0
        # A metric is on the line of one of its events, or on a line of its own.
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
    """The number that perf printed; None if the text is not a number, or is larger than any count can be."""
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    return number if number < _MOST else None
