"""What this machine can capture, found out by trying: perf's exit status and the mere presence of a tool prove nothing.

Each capture is tried once per process, when it is first asked for. `runner doctor` prints the results, the header of a
sweep names the captures that are unavailable, and jobs act on them.
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

# The package's build puts the ITT collector here: a C library that ITT's static parts load, and Python never does.
_COLLECTOR = "worker/_itt_collector*.so"

_CYCLES = ("{cycles,instructions}",)

# A counted region as a job has it, long enough for every group of level-1 events to have its turn on the counters.
_SPIN = """
import sys, time
from runner.worker.region import PerfControl
with PerfControl(*sys.argv[1:]):
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass
"""


def unavailable(captures: CaptureConf) -> dict[str, str]:
    """Requested capture -> why it can't be taken here, in one sentence; captures not requested are not tried."""
    reasons = {}
    if captures.itt is not None:
        if captures.itt.vtune and vtune() is None:
            reasons["itt"] = "capture.itt.vtune=true and no vtune on PATH (source oneAPI's setvars.sh)"
        elif not captures.itt.vtune and collector() is None:
            reasons["itt"] = (
                "the ITT collector was not built: install a C compiler (apt-get install gcc) and run pip install -e . "
                "again; capture=[profiler] has a timeline too"
            )
    if captures.toplev is not None and (reason := why_no_toplev()):
        reasons["toplev"] = reason
    return reasons


@functools.cache
def collector() -> Path | None:
    """The ITT collector's library; None if the build had no C compiler to make it with."""
    return next(iter(sorted(PACKAGE.glob(_COLLECTOR))), None)


def vtune() -> str | None:
    """The path of Intel VTune's command line program; None if it is not on PATH."""
    return shutil.which("vtune")


@dataclass(frozen=True)
class Counters:
    """The best source of event counts on this machine."""

    command: tuple[str, ...]
    """``perf stat`` without its target; empty if only getrusage can count here."""
    source: str
    """The name of the source, as results show it."""
    group: str | None = None
    """perf's metric group for top-down level 1; None where perf has none, or where toplev can measure."""


@functools.cache
def perf_counters() -> Counters:
    """The events that perf really counts here."""
    perf = shutil.which("perf")
    if perf is None:
        return Counters((), "getrusage (no perf: apt-get install linux-perf)")
    if reason := _why_no_counts(perf, counters.SOFTWARE):
        return Counters((), f"getrusage ({reason})")
    if reason := _why_no_counts(perf, _CYCLES):
        return Counters(counters.command(perf, counters.SOFTWARE, None), f"perf, software counters ({reason})")
    groups = execute.run_short([perf, "list", "metricgroup"]).out.split()
    group = next((name for name in counters.METRIC_GROUPS if name in groups), None) if why_no_toplev() else None
    if group:
        # Only the software events are added, which need no counter: others would take turns with the group's events.
        return Counters(counters.command(perf, counters.SOFTWARE, group), f"perf, metric group {group}", group)
    return Counters(counters.command(perf, (*counters.SOFTWARE, *counters.HARDWARE), None), "perf, hardware counters")


def _why_no_counts(perf: str, events: tuple[str, ...]) -> str | None:
    """Why perf does not count these events here; None if it does. Without a PMU its exit status is 0 as well."""
    trial = execute.run_short([perf, "stat", "-x;", "--log-fd", "1", "-e", ",".join(events), "true"])
    return counters.why_no_figures(counters.parse(trial.out), trial.status, trial.err)


@functools.cache
def why_no_toplev() -> str | None:
    """Why toplev can't measure here; None if a trial run gave figures that can be believed."""
    perf = shutil.which(os.environ.get("PERF", "perf"))  # toplev's own variable
    try:
        # CPUINFO is toplev's own variable as well.
        vendor = host.cpuinfo(Path(os.environ.get("CPUINFO", "/proc/cpuinfo"))).get("vendor_id", "unknown")
    except OSError as error:
        return f"CPUINFO can't be read: {error}"
    no_counts = None if perf is None else _why_no_counts(perf, _CYCLES)
    reason = toplev.why_not(no_counts, perf, vendor, topdown.SCRIPT.exists())
    if reason:
        return reason
    with tempfile.TemporaryDirectory(prefix="runner-", dir="/tmp") as folder:
        run = topdown.Run(Path(folder), Path(folder))
        spin = (sys.executable, "-c", _SPIN, run.region.ctl, run.region.ack)
        ended = execute.run_short(run.wrap(spin, level=1), PROJECT, timeout_s=120)
        try:
            run.read(ended.err, ended.status)
        except toplev.Rejected as rejected:
            return str(rejected)
    return None
