"""Intel's top-down analysis by toplev of pmu-tools: its command line, its table, and when the table can be believed.

toplev is licensed under GPL-2.0 and installs 123 top-level files: it has a folder of its own and is called as a
program, never imported. Its exit status 0 proves nothing, so read() accepts a table only if nothing speaks against it.
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
_COLUMNS_OF_SEVERAL = {"Timestamp", "CPUs"}  # one row per interval (-I) or processor
_KINDS = {"core", "atom"}  # what CPUs holds on a hybrid CPU: the P-cores' rows and the E-cores' rows of a single run

# Patterns that must all be in stderr -> why the figures can't be used, the most telling reason first; {} stands for the
# text of the group. The job's own stderr is in the same stream, so each pattern is more than two everyday words; no
# pattern may backtrack over the same text again and again, because the job may print anything.
_COMPLAINTS = (
    (r"Access to performance monitoring|disabled in /proc/sys/kernel/perf_event_paranoid",
     "perf may not count here (/proc/sys/kernel/perf_event_paranoid): sudo sysctl kernel.perf_event_paranoid=1"),
    (r"Cannot find PMU",
     "perf finds no performance counters (a virtual machine without a PMU?), so the job was never started"),
    (r"Cannot access event server", r"Unknown CPU or CPU event map",
     "~/.cache/pmu-events has no event file for this CPU and none could be downloaded: set EVENTMAP to one"),
    (r"Unknown CPU or CPU event map|Unsupported CPU model", "it does not support this CPU, or has no events for it"),
    (r"event syntax error: (.*)", "perf does not understand an event ({}): is perf older than the CPU?"),
    (r"(?<!\S)(\S+) event not found for|Some events not found",
     "its event file lacks events ({}): its figures would be made without them; a lower level may not need them"),
    (r"(?<!\d)(\d+) events not counted", r"All measured values 0",
     "none of {} events was counted: the region was never enabled or too short, or the counters are in use"),
    (r"(?<!\d)(\d+) events not counted",
     "{} events were not counted (a shared PMU, or too short a region for so many): "
     "its figures would be made of missing events"),
    (r"(?<!\d)(\d+ events not supported)|(?<!\S)(\S+ event not supported in hypervisor)",
     "{}: this PMU lacks events that it needs (is this a virtual machine that passes on only a part of the PMU?)"),
    (r"All measured values 0", "every count is 0: the region was never enabled, or perf counts nothing here"),
    (r"Nothing measured", "nothing was measured: perf ended before the job started; the job's stderr says why"),
    (r"unparseable perf (?:output|count)", "it could not read what perf wrote: is perf newer than toplev?"),
)  # fmt: skip


class Rejected(ValueError):  # noqa: N818 - a verdict on figures, in one sentence
    """toplev's figures must not be used; str() says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"toplev: {reason}")


@dataclass(frozen=True)
class Node:
    """A node of the top-down tree: a row of toplev's table."""

    path: str
    """The names from the level-1 category down, as in ``Backend_Bound.Memory_Bound``."""
    value: float
    """The value in percent of ``unit``."""
    unit: str
    """``% Slots``, ``% Clocks``, ``% Stalls``, ...; only nodes with the same unit can be compared or added."""
    crossed: bool
    """Whether the node passed toplev's threshold for being worth a look."""
    bottleneck: bool
    """Whether toplev marked the node as the one to look at first."""
    multiplex: float | None
    """The percentage of the region in which the node's events were counted; None if not known."""


@dataclass(frozen=True)
class TopDown:
    """A complete table of toplev."""

    nodes: tuple[Node, ...]
    mux_pct: float
    """The smallest percentage of the region in which an event was counted; 100 if all events fit into the counters."""
    model: str
    """The version of the method, the CPU and its short name: ``5.1-full on Intel(R) Xeon(R) ... [icx]``."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The rows that are not nodes: name -> value in the unit that toplev gives it."""
    kind: str = ""
    """The kind of cores that the job ran on, ``core`` or ``atom``; empty unless the CPU has both."""

    @property
    def bottleneck(self) -> str | None:
        """The path of the node that toplev marked; None if no node passed its threshold."""
        return next((node.path for node in self.nodes if node.bottleneck), None)

    @property
    def level1(self) -> dict[str, float]:
        """Level-1 category -> percent of slots."""
        return {node.path: node.value for node in self.nodes if node.path in LEVEL1}

    @property
    def levels(self) -> int:
        """The depth of the deepest node."""
        return max((node.path.count(".") + 1 for node in self.nodes), default=0)


def script(prefix: Path) -> Path:
    """The path of toplev.py in the environment at ``prefix`` (sys.prefix)."""
    return prefix / FOLDER / "toplev.py"


def why_not(no_counts: str | None, perf: str | None, vendor: str, script_exists: bool) -> str | None:
    """Why toplev can't measure here, in one sentence with the next step; None if it can.

    Args:
        no_counts: why perf counts no cycles here; None if it does.
        perf: the path of perf; None if it is not installed.
        vendor: the CPU's vendor_id in /proc/cpuinfo.
        script_exists: whether toplev is installed.
    """
    if perf is None:
        return "toplev needs perf, which is not installed; install it: sudo apt-get install linux-perf"
    if no_counts is not None:
        return f"toplev needs hardware counters, and perf counts no cycles here: {no_counts}"
    if vendor != "GenuineIntel":
        return f"toplev supports Intel CPUs only, and this CPU is {vendor or 'unknown'}; use capture=[counters] instead"
    if not script_exists:
        return f"toplev is not installed; install it: {INSTALL}"
    return None


def command(
    python: str, toplev: Path, level: int, csv: Path, raw: Path, ctl: Path, ack: Path, argv: Sequence[str]
) -> tuple[str, ...]:
    """The command that runs ``argv`` and counts only where ``argv`` asks for it over the FIFOs ``ctl`` and ``ack``.

    Raises:
        ValueError: perf can't take the path of ``ctl``.
    """
    if "," in f"{ctl}":
        raise ValueError(
            f"{ctl}: perf ends the name of its control FIFO at a comma; move the folder to a path without one"
        )
    # -v: all nodes, also those below their threshold. -S: the process alone, not the whole machine.
    options = ["-S", f"-l{level}", "-v", "--no-desc", "-x,", "-o", str(csv), "--perf-output", str(raw)]
    return (python, str(toplev), *options, "-D", "-1", "--control", f"fifo:{ctl},{ack}", "--", *argv)


def parse(csv_text: str) -> TopDown:
    """Read toplev's table as it was written; whether its figures can be believed is not checked.

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
        raise Rejected(f"its table has {len(rows)} rows, which is more than any CPU has nodes")
    kind, header, rows = _of_one_kind(header, rows)
    if len(set(header)) < len(header) or not set(header) >= _COLUMNS or set(header) & _COLUMNS_OF_SEVERAL:
        raise Rejected(f"its table does not have the columns of a single run: {', '.join(header)[:200]}")
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
    return TopDown(tuple(nodes), metrics.pop("MUX"), lines[-1].removeprefix("# "), metrics, kind)


def _of_one_kind(header: list[str], rows: list[list[str]]) -> tuple[str, list[str], list[list[str]]]:
    """The kind of cores, and the table without the column that names it; other tables stay as they are.

    Raises:
        Rejected: the job ran on both kinds of a hybrid CPU.
    """
    kinds = {cells[0] for cells in rows if cells}
    if header[:1] != ["CPUs"] or "Value" not in header or not kinds or not kinds <= _KINDS:
        return "", header, rows
    value = header.index("Value")
    # The rows of a kind that the job did not run on are all 0.
    active = sorted({cells[0] for cells in rows if len(cells) > value and _is_node_with_value(cells, value)})
    if len(active) > 1:
        raise Rejected("the job ran on P-cores and on E-cores, whose figures can't be added; start it on one kind")
    kind = active[0] if active else "core"
    return kind, header[1:], [cells[1:] for cells in rows if cells and cells[0] == kind]


def _is_node_with_value(cells: list[str], value: int) -> bool:
    """Whether a row of a hybrid CPU's table says something: its area is of level 1, and its value is not 0."""
    return any(name in cells for name in LEVEL1) and cells[value].strip("0.") != ""


def read(csv_text: str | None, raw_text: str | None, stderr: str, returncode: int) -> TopDown:
    """The figures of a run, if they can be believed.

    Accepted figures say nothing about the job: only its own result file does.

    Args:
        csv_text: the file of ``-o``, None if missing; a toplev that fails early leaves an older one in place.
        raw_text: the file of ``--perf-output``, None if missing; an older one may be left in place as well.
        stderr: what toplev and the job wrote to stderr, together.
        returncode: toplev's exit status.

    Raises:
        Rejected: the figures can't be believed; the message has the most telling of the reasons that apply.
    """
    for *patterns, reason in _COMPLAINTS:
        matches = [re.search(pattern, stderr) for pattern in patterns]
        if matches[0] and all(matches):
            detail = next((group for group in matches[0].groups() if group), "not named")
            raise Rejected(reason.replace("{}", detail.strip()[:200]))
    if returncode:
        raise Rejected(f"it ended with exit status {returncode}, which is the job's own if perf could start it")
    if not csv_text or not raw_text:
        raise Rejected(f"it wrote no {'raw counts to check its table against' if csv_text else 'table'}")
    table = parse(csv_text)
    other = {"core": "cpu_atom/", "atom": "cpu_core/"}.get(table.kind, "\n")
    if missing := sum("<not" in line and other not in line for line in raw_text.splitlines()):
        raise Rejected(f"{missing} raw counts are missing (<not counted> or <not supported>)")
    if not table.mux_pct > 0:
        raise Rejected("some events were never counted (MUX 0): lower the level or lengthen the region")
    if table.mux_pct > 100 + _NODE_TOLERANCE_PCT:
        raise Rejected(f"its events were counted {table.mux_pct:g} % of the time, which is impossible")
    if set(table.level1) != set(LEVEL1):
        raise Rejected(f"its table lacks level-1 categories: does its model ({table.model}) support this CPU?")
    for node in table.nodes:
        # Written so that nan, which compares false with everything, is rejected.
        if not -_NODE_TOLERANCE_PCT <= node.value <= 100 + _NODE_TOLERANCE_PCT:
            raise Rejected(f"{node.path} is {node.value:g} {node.unit}, which is impossible")
    total = math.fsum(table.level1.values())
    if abs(total - 100) > _SUM_TOLERANCE_PCT:
        raise Rejected(f"the four level-1 categories add up to {total:.1f} % instead of 100 %: its counts don't agree")
    return table
