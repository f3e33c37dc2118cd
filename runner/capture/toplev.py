"""Intel's top-down analysis by toplev of pmu-tools: its command line, its table, and when the table may be believed.

toplev is GPL-2.0 and installs 123 top-level files: it has a folder of its own and is called as a program, never
imported. Its exit status 0 proves nothing, so read() accepts a table only when nothing speaks against it.
Source: toplev.py of pmu-tools 2026.7.24.0 (TMA 5.1); A. Yasin, "A Top-Down method for performance analysis and
counters architecture", ISPASS 2014.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = "pmu-tools"
INSTALL = (
    ".venv/bin/python -m pip install --no-deps --require-hashes --target .venv/pmu-tools -r requirements-toplev.lock"
)

LEVEL1 = ("Frontend_Bound", "Bad_Speculation", "Backend_Bound", "Retiring")

_SUM_TOLERANCE_PCT = 2.0  # The level-1 categories share out all slots; rounding and multiplexing explain this much.
_NODE_TOLERANCE_PCT = 5.0  # toplev's own MAX_ERROR for one node, which its -v switches off.
_MOST_ROWS = 2000
_COLUMNS = {"Area", "Value", "Unit", "Multiplex", "Bottleneck"}
_COLUMNS_OF_SEVERAL = {"Timestamp", "CPUs"}  # a row for each interval (-I) or processor

# What stderr says, all of it -> why that rules the figures out, most telling first; {} is what the group found.
# The job's own stderr is in the same stream, so each pattern is more than two everyday words; no pattern may look at
# the same text again and again, because the job may print anything.
_COMPLAINTS = (
    (r"Access to performance monitoring|disabled in /proc/sys/kernel/perf_event_paranoid",
     "perf may not count here: sudo sysctl kernel.perf_event_paranoid=1 (/proc/sys/kernel/perf_event_paranoid)"),
    (r"Cannot find PMU",
     "perf finds no performance counters (a virtual machine without a PMU?), so the job was never started"),
    (r"Cannot access event server", r"Unknown CPU or CPU event map",
     "~/.cache/pmu-events has no event file for this CPU and none could be downloaded: set EVENTMAP to one"),
    (r"Unknown CPU or CPU event map|Unsupported CPU model", "it does not know this CPU or has no events for it"),
    (r"event syntax error: (.*)", "perf does not understand an event ({}): is perf older than the CPU?"),
    (r"(?<!\S)(\S+) event not found for|Some events not found",
     "its event file lacks events ({}): its figures would be made without them; a lower level may not need them"),
    (r"(?<!\d)(\d+) events not counted", r"All measured values 0",
     "none of {} events was counted: the region was never enabled or too short, or the counters are in use"),
    (r"(?<!\d)(\d+) events not counted",
     "{} events were not counted (a shared PMU, or too short a region for so many): "
     "its figures would be made of missing events"),
    (r"(?<!\d)(\d+ events not supported)|(?<!\S)(\S+ event not supported in hypervisor)",
     "{}: this PMU has not all it needs (a virtual machine that passes on a part of it?)"),
    (r"All measured values 0", "every count is 0: the region was never enabled, or perf counts nothing here"),
    (r"Nothing measured", "nothing was measured: perf ended before the job started; the job's stderr says why"),
    (r"unparseable perf (?:output|count)", "it could not read what perf wrote: is perf newer than toplev?"),
)  # fmt: skip


class Rejected(ValueError):  # noqa: N818 - a verdict on figures, in one sentence
    """The figures must not be used; str() says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"toplev: {reason}")


@dataclass(frozen=True)
class Node:
    """One row of the tree."""

    path: str
    """From the level-1 category down, ``Backend_Bound.Memory_Bound``."""
    value: float
    """Percent of ``unit``."""
    unit: str
    """``% Slots``, ``% Clocks``, ``% Stalls``, ...: only nodes of one unit can be compared or added."""
    crossed: bool
    """Whether it passed toplev's threshold for being worth a look."""
    bottleneck: bool
    """toplev's mark for the node to look at first."""
    multiplex: float | None
    """Percent of the region in which its events were counted; None when not known."""


@dataclass(frozen=True)
class TopDown:
    """One table of toplev, all of it."""

    nodes: tuple[Node, ...]
    mux_pct: float
    """Least percent of the region in which any event was counted; 100 when all fitted into the counters at once."""
    model: str
    """Version of the method, CPU and its short name: ``5.1-full on Intel(R) Xeon(R) ... [icx]``."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Rows that are no nodes, by name, in the unit toplev gives them."""

    @property
    def bottleneck(self) -> str | None:
        """Path of the marked node; None when no node passed its threshold."""
        return next((node.path for node in self.nodes if node.bottleneck), None)

    @property
    def level1(self) -> dict[str, float]:
        """Percent of slots by level-1 category."""
        return {node.path: node.value for node in self.nodes if node.path in LEVEL1}

    @property
    def levels(self) -> int:
        """Depth of the deepest node."""
        return max((node.path.count(".") + 1 for node in self.nodes), default=0)


def script(prefix: Path) -> Path:
    """toplev.py of the environment at ``prefix`` (sys.prefix)."""
    return prefix / FOLDER / "toplev.py"


def why_not(perf_counts: bool, perf: str | None, vendor: str, script_exists: bool) -> str | None:
    """Why toplev can't measure here, in one sentence with the next step; None when it can.

    ``perf_counts`` is whether it really counted cycles, ``perf`` its path, ``vendor`` the one in /proc/cpuinfo.
    """
    if perf is None:
        return "toplev needs perf, which is not installed; install it: sudo apt-get install linux-perf"
    if not perf_counts:
        return (
            "toplev needs hardware counters and perf counts no cycles here: this is a virtual machine without a PMU, "
            "or /proc/sys/kernel/perf_event_paranoid forbids it (sudo sysctl kernel.perf_event_paranoid=1)"
        )
    if vendor != "GenuineIntel":
        return f"toplev knows Intel CPUs only and this one is {vendor or 'unknown'}; measure with perf's own counters"
    if not script_exists:
        return f"toplev is not installed; install it: {INSTALL}"
    return None


def command(
    python: str, toplev: Path, level: int, csv: Path, raw: Path, ctl: Path, ack: Path, argv: Sequence[str]
) -> tuple[str, ...]:
    """Command line that runs ``argv`` and counts only where it asks for it over the FIFOs ``ctl`` and ``ack``."""
    if "," in f"{ctl}":
        raise ValueError(f"{ctl}: perf takes a comma for the end of the control FIFO's name; move the folder")
    # -v: every node, not only those past their threshold. -S: the process alone, not the whole machine.
    options = ["-S", f"-l{level}", "-v", "--no-desc", "-x,", "-o", str(csv), "--perf-output", str(raw)]
    return (python, str(toplev), *options, "-D", "-1", "--control", f"fifo:{ctl},{ack}", "--", *argv)


def parse(csv_text: str) -> TopDown:
    """The table as toplev wrote it, whatever its figures are worth.

    Raises:
        Rejected: the table is torn, empty or of another kind.
    """
    lines = csv_text.splitlines() or [""]
    if not lines[-1].startswith("# ") or not csv_text.endswith("\n"):
        raise Rejected("its table is empty or torn: the last line, which names the CPU, is missing")
    try:
        header, *rows = csv.reader([line for line in lines if not line.startswith("#")], strict=True)
    except ValueError:
        raise Rejected("its table has no rows: nothing was measured") from None
    except csv.Error as error:
        raise Rejected(f"its table can't be read: {error}") from error
    if len(rows) > _MOST_ROWS:
        raise Rejected(f"its table has {len(rows)} rows, more than any CPU has nodes")
    if len(set(header)) < len(header) or not set(header) >= _COLUMNS or set(header) & _COLUMNS_OF_SEVERAL:
        raise Rejected(f"its table has other columns than one run's: {', '.join(header)[:200]}")
    nodes: list[Node] = []
    metrics: dict[str, float] = {}
    for cells in rows:
        if len(cells) != len(header):
            raise Rejected(f"its table is torn at {','.join(cells)[:200]!r}")
        row = dict(zip(header, cells, strict=True))
        name, unit = row["Area"], row["Unit"].removesuffix("<").strip()
        if name in metrics or any(node.path == name for node in nodes):
            raise Rejected(f"its table has two rows for {name}")
        try:
            value = float(row["Value"])
            multiplex = float(row["Multiplex"]) if row["Multiplex"] else None
        except ValueError:
            raise Rejected(f"its table has no number for {name}: {','.join(cells)!r}") from None
        if unit.startswith("% "):
            crossed, marked = not row["Unit"].endswith("<"), row["Bottleneck"] == "<=="
            nodes.append(Node(name, value, unit, crossed, marked, multiplex))
        else:
            metrics[name] = value
    if "MUX" not in metrics:
        raise Rejected("its table does not say how long its events were counted (no MUX row)")
    return TopDown(tuple(nodes), metrics.pop("MUX"), lines[-1].removeprefix("# "), metrics)


def read(csv_text: str | None, raw_text: str | None, stderr: str, returncode: int) -> TopDown:
    """The figures of one run, when nothing speaks against them.

    Accepted figures say nothing about the job: only its own result file does.

    Args:
        csv_text: the file of ``-o``, None when missing; a toplev that fails early leaves an older one in place.
        raw_text: the file of ``--perf-output``, likewise.
        stderr: of toplev and the job together.

    Raises:
        Rejected: with the most telling reason of all that apply.
    """
    for *patterns, reason in _COMPLAINTS:
        found = [re.search(pattern, stderr) for pattern in patterns]
        if found[0] and all(found):
            what = next((group for group in found[0].groups() if group), "not named")
            raise Rejected(reason.replace("{}", what.strip()[:200]))
    if returncode:
        raise Rejected(f"it ended with exit status {returncode}, which is the job's own if perf could start it")
    if not csv_text or not raw_text:
        raise Rejected(f"it wrote no {'raw counts to check its table against' if csv_text else 'table'}")
    table = parse(csv_text)
    if missing := sum("<not" in line for line in raw_text.splitlines()):
        raise Rejected(f"{missing} raw counts are missing (<not counted> or <not supported>)")
    if not table.mux_pct > 0:
        raise Rejected("some events were never counted (MUX 0): lower the level or lengthen the region")
    if table.mux_pct > 100 + _NODE_TOLERANCE_PCT:
        raise Rejected(f"its events were counted {table.mux_pct:g} % of the time, which can't be")
    if set(table.level1) != set(LEVEL1):
        raise Rejected(f"its table has not the four level-1 categories: does its model ({table.model}) know this CPU?")
    for node in table.nodes:
        # Written so that nan, which compares false with everything, does not pass.
        if not -_NODE_TOLERANCE_PCT <= node.value <= 100 + _NODE_TOLERANCE_PCT:
            raise Rejected(f"{node.path} is {node.value:g} {node.unit}, which can't be")
    total = math.fsum(table.level1.values())
    if abs(total - 100) > _SUM_TOLERANCE_PCT:
        raise Rejected(f"the four level-1 categories add up to {total:.1f} % instead of 100 %: its counts don't agree")
    return table
