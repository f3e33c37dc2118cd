"""The counts that perf stat makes of a few steady iterations: the events to ask for, and the parser of its CSV. Pure.

Format: perf-stat(1), section CSV FORMAT: value; unit; event; run time of the counter in ns; share of the time that it
ran in %; metric value; metric unit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from runner.machine.execute import NOT_STARTED

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

# perf appends :u, or u to an event with slashes, where it may count in user mode only.
_USER_MODE = re.compile(r":u$|(?<=/)u$")
# A hybrid CPU has a PMU per kind of cores, and each event comes once from each of them.
_OF_KIND = re.compile(r"cpu_(?P<kind>core|atom|lowpower)/(?P<event>[^/]{1,100})/")
# What perf says where there is no PMU, and when the kernel or a container forbids it to count.
_UNSUPPORTED = re.compile(r"event is not supported")
_FORBIDDEN = re.compile(r"perf_event_paranoid|No permission to enable|Operation not permitted|Permission denied")

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


@dataclass(frozen=True)
class _Figure:
    """One figure of a line, of an event or of a metric."""

    name: str
    is_metric: bool
    kind: str
    """The kind of cores that it was counted on, ``core`` or ``atom``; empty unless the CPU has both."""
    value: float | None
    running_pct: float
    missing: str = ""
    """Why there is no value."""


def parse(text: str) -> Counts:
    """Read the output of ``perf stat -x;``; it skips comments, and counts without a figure are ``missing``.

    On a hybrid CPU the counts of both kinds of cores are one count.
    """
    counts = Counts()
    figures: dict[tuple[str, bool], list[_Figure]] = {}
    for line in text.splitlines():
        words = line.split(";")
        if len(words) < 5 or line.startswith("#"):
            continue
        counts.user_only |= bool(_USER_MODE.search(words[2]))
        for figure in _figures(line, words):
            figures.setdefault((figure.name, figure.is_metric), []).append(figure)
    for (name, is_metric), kinds in figures.items():
        into = counts.metrics if is_metric else counts.values
        value, share, missing = _of_all_kinds(kinds)
        if value is None:
            counts.missing[name] = missing
        else:
            into[name] = value
            counts.running_pct = min(counts.running_pct, share)
    if counts.user_only:
        for name in _KERNEL_SIDE:
            if counts.values.pop(name, None) is not None:
                counts.missing[name] = "not counted in user mode"
    return counts


def _figures(line: str, words: Sequence[str]) -> Iterator[_Figure]:
    """The figures of one line: a metric is on the line of one of its events, or on a line of its own."""
    value, unit, event, _, running = words[:5]
    event = _USER_MODE.sub("", event)
    kind = ""
    if hybrid := _OF_KIND.fullmatch(event):
        kind, event = hybrid["kind"], hybrid["event"]
    share = _number(running) if running else 100.0
    parts = [(event, False, value, 1e-3 if unit == "msec" else 1.0)] if event else []
    if len(words) >= 7 and words[6].startswith("%"):
        parts.append((words[6].lstrip("% ").strip(), True, words[5], 1.0))
    for name, is_metric, text, factor in parts:
        if not _EVENT.fullmatch(name):
            continue
        number = _number(text)
        if text.startswith("<"):
            yield _Figure(name, is_metric, kind, None, 0.0, text.strip("<>"))
        elif is_metric and kind and value.startswith("<"):
            yield _Figure(name, is_metric, kind, None, 0.0, value.strip("<>"))
        elif number is None or share is None or not share <= 100 + _SUM_TOLERANCE_PCT:
            yield _Figure(name, is_metric, kind, None, 0.0, f"unreadable: {line[:200]}")
        else:
            yield _Figure(name, is_metric, kind, number * factor, share)


def _of_all_kinds(figures: Sequence[_Figure]) -> tuple[float | None, float, str]:
    """The value of an event or metric, the share of the time in which it was counted, and why there is no value.

    perf extrapolates the count of each kind of cores over all of the time, also over that on the other kind, so the
    count of a program that ran on both is their mean, weighted by their shares (perf's intel-hybrid.txt).
    """
    unreadable = next((figure.missing for figure in figures if figure.missing.startswith("unreadable")), "")
    counted = [figure for figure in figures if figure.value is not None]
    if unreadable or not counted:
        return None, 0.0, unreadable or figures[-1].missing
    share = sum(figure.running_pct for figure in counted)
    if not counted[0].kind or len(counted) == 1:
        last = counted[-1]
        value, share = last.value, last.running_pct
    elif counted[0].is_metric:
        return None, 0.0, "the program ran on P-cores and on E-cores"
    elif share > 0:
        value = sum((figure.value or 0.0) * figure.running_pct for figure in counted) / share
    else:
        value = None
    if value is None or share < LEAST_RUNNING_PCT:
        return None, share, f"counted {share:g} % of the time"
    return value, min(share, 100.0), ""


def why_no_figures(counts: Counts, status: int, err: str) -> str | None:
    """Why a trial run of perf gave no figures, by what perf itself said; None if it gave one for every event.

    Args:
        status: perf's exit status, which is 0 also where it counted nothing.
        err: what perf wrote to stderr.
    """
    if status == 0 and counts.values and not counts.missing:
        return None
    if status != NOT_STARTED and _FORBIDDEN.search(err):
        return (
            "perf may not count here (/proc/sys/kernel/perf_event_paranoid, or a container forbids it): "
            "sudo sysctl kernel.perf_event_paranoid=1"
        )
    reasons = dict.fromkeys(counts.missing.values())
    if "not supported" in reasons or _UNSUPPORTED.search(err):
        return "this machine has no hardware counters (a virtual machine without a PMU?)"
    if reasons:
        event, reason = next(iter(counts.missing.items()))
        return f"perf gave no figure for {event} ({reason})"
    lines = [line.strip() for line in err.splitlines() if line.strip() and line.strip() != "Error:"]
    return f"perf counted nothing (exit status {status}: {lines[0][:200] if lines else 'nothing on stderr'})"


def _number(text: str) -> float | None:
    """The number that perf printed; None if the text is not a number, or is larger than any count can be."""
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    return number if number < _MOST else None
