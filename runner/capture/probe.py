"""What this machine can capture, tried rather than assumed: perf's exit status and a tool's mere presence say nothing.

Each is tried once a process, when it is first asked for; the doctor prints it, the sweep's header says what is
unavailable, jobs act on it.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from runner.capture import counters, topdown, toplev
from runner.config.captures import CaptureConf
from runner.machine import execute, host
from runner.machine.installation import PACKAGE, PROJECT

# Where the package's build puts the ITT collector: a C library, loaded by ITT's static parts and never by Python.
_COLLECTOR = "worker/_itt_collector*.so"

_CYCLES = ("{cycles,instructions}",)

# A region as a job has it, long enough for every group of level 1 to have its turn on the counters.
_SPIN = """
import sys, time
from runner.worker.region import PerfControl
with PerfControl(*sys.argv[1:]):
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass
"""


def unavailable(asked: CaptureConf) -> dict[str, str]:
    """Capture asked for -> why it can't be taken here, in one sentence; tries no other."""
    found = {}
    if asked.itt is not None:
        if asked.itt.vtune and vtune() is None:
            found["itt"] = "capture.itt.vtune=true and no vtune on PATH (source oneAPI's setvars.sh)"
        elif not asked.itt.vtune and collector() is None:
            found["itt"] = (
                "the ITT collector was not built: install a C compiler (apt-get install gcc) and run pip install -e . "
                "again; capture=[profiler] has a timeline too"
            )
    if asked.toplev is not None and (reason := why_no_toplev()):
        found["toplev"] = reason
    return found


@functools.cache
def collector() -> Path | None:
    """The ITT collector's library."""
    return next(iter(sorted(PACKAGE.glob(_COLLECTOR))), None)


def vtune() -> str | None:
    """Intel VTune's command line."""
    return shutil.which("vtune")


@dataclass(frozen=True)
class Counters:
    """The best that can be counted here."""

    command: tuple[str, ...]
    """``perf stat`` without its target; empty: getrusage has to do."""
    source: str
    """Its name, as results show it."""
    group: str | None = None
    """perf's metric group of top-down level 1, where toplev can't measure."""


@functools.cache
def perf_counters() -> Counters:
    """What perf really counts here."""
    perf = shutil.which("perf")
    if perf is None:
        return Counters((), "getrusage (no perf: apt-get install linux-perf)")
    if not _counts(perf, counters.SOFTWARE):
        return Counters((), "getrusage (perf may not count here: see /proc/sys/kernel/perf_event_paranoid)")
    if not _counts(perf, _CYCLES):
        return Counters(counters.command(perf, counters.SOFTWARE, None), "perf, software counters (no PMU)")
    listed = execute.run_short([perf, "list", "metricgroup"]).out.split()
    group = next((name for name in counters.METRIC_GROUPS if name in listed), None) if why_no_toplev() else None
    if group:
        # Alone with the software events, which need no counter: other events would take turns with the group's.
        return Counters(counters.command(perf, counters.SOFTWARE, group), f"perf, metric group {group}", group)
    return Counters(counters.command(perf, (*counters.SOFTWARE, *counters.HARDWARE), None), "perf, hardware counters")


def _counts(perf: str, events: tuple[str, ...]) -> bool:
    """Whether perf really counts these events: without a PMU its exit status is 0 as well."""
    tried = execute.run_short([perf, "stat", "-x;", "--log-fd", "1", "-e", ",".join(events), "true"])
    found = counters.parse(tried.out)
    return tried.status == 0 and bool(found.values) and not found.missing


@functools.cache
def why_no_toplev() -> str | None:
    """Why toplev can't measure here; None when a trial gave figures that may be believed."""
    perf = shutil.which(os.environ.get("PERF", "perf"))  # toplev's own variable
    try:
        # CPUINFO is toplev's own variable as well.
        vendor = host.cpuinfo(Path(os.environ.get("CPUINFO", "/proc/cpuinfo"))).get("vendor_id", "unknown")
    except OSError as error:
        return f"CPUINFO can't be read: {error}"
    reason = toplev.why_not(perf is not None and _counts(perf, _CYCLES), perf, vendor, topdown.SCRIPT.exists())
    if reason:
        return reason
    with tempfile.TemporaryDirectory(prefix="runner-", dir="/tmp") as folder:
        run = topdown.Run(Path(folder), Path(folder))
        spin = (sys.executable, "-c", _SPIN, run.region.ctl, run.region.ack)
        ended = execute.run_short(run.around(spin, level=1), PROJECT, timeout_s=120)
        try:
            run.read(ended.err, ended.status)
        except toplev.Rejected as rejected:
            return str(rejected)
    return None
