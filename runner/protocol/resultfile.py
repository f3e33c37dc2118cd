"""The result files: what a worker leaves behind, and its captures beside them. Seconds and bytes everywhere."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from runner.protocol import stored
from runner.protocol.evidence import Evidence, Quality
from runner.protocol.jobfile import FORMAT, JobSpec
from runner.protocol.stored import Count, Duration, Latency, write_json

# What the first instance's captures leave in the job's folder; the runner reads them and makes tables of them.
CAPTURES_FILE = "captures.json"
ITT_FILE = "itt.bin"
COUNTERS_FILE = "counters.csv"
PROFILER_FOLDER = "profiler"

# On record while a capture is under way, and after it when nothing came after it.
NOT_SURVIVED = "the worker did not survive it; see stderr.log"

# What an instance says that stopped because of another: the other's reason is the one to show.
OTHER_FAILED = "another instance of this job failed"


@dataclass(frozen=True)
class Surroundings:
    """What else went on in the machine in the window; None where this machine does not tell."""

    cpus: list[int]
    """CPUs watched: the process's own, and their hyper-threads that no instance of the job has."""
    resolution_s: Duration
    """How far ``busy_s`` and ``steal_s`` may be off: a clock tick each CPU."""
    busy_s: float | None
    """Time that the watched CPUs were at work for anybody, summed."""
    steal_s: float | None
    """Time that the hypervisor ran something else on them, as it reports it, summed."""
    pressure_s: dict[str, float]
    """``cpu_some``, ``memory_full``, ...: time that some or all processes of the machine stood still for want of it."""
    quota_s: float | None
    """Time that a cgroup's CPU quota stopped the job, summed over CPUs."""
    frequency_before_hz: float | None
    frequency_after_hz: float | None
    """Mean over the watched CPUs."""
    throttle_events: int | None
    """How often heat slowed them."""
    swapped_pages: Count | None
    allocation_stalls: Count | None
    """Allocations of anybody that had to wait until memory was freed."""
    oom_kills: Count | None


@dataclass(frozen=True)
class Window:
    """What the operating system counted from the first timed iteration to the last."""

    wall_s: Latency
    minor_faults: Count
    major_faults: Count
    voluntary_switches: Count
    involuntary_switches: Count
    user_s: Duration
    system_s: Duration
    rss_peak_bytes: Count | None
    """Peak resident set inside the window; None when /proc/self/clear_refs can't be written."""
    runner_cpu_s: Duration | None
    """CPU time the runner used in the window; None when its clock can't be read."""
    launcher_cpu_s: Duration | None
    """CPU time of the worker's ancestors below the runner (shell, launcher) in the window."""
    surroundings: Surroundings | None = None
    """None where nobody asked."""
    generator_cpu_s: Duration | None = None
    """Behind a server: CPU time of the load generator on the CPUs watched, which the runner adds; else None."""


@dataclass(frozen=True)
class WorkerResult:
    """What the worker writes, once, when it is done or has failed in a way it could describe."""

    cell_id: str
    round: Count
    latencies_s: list[Latency] = field(default_factory=list)
    """Latency of each timed iteration, in order."""
    window: Window | None = None
    phases_s: dict[str, Duration] = field(default_factory=dict)
    """Wall time of import, reference, build, transform, warm-up, measure, quality, evidence."""
    evidence: Evidence | None = None
    """What the worker proved about itself; None where it measured nothing, or in a pass that is not for evidence."""
    error: str | None = None
    """``Type: message`` when the worker caught an exception; the traceback is in its log."""
    started_at_s: Duration = 0.0
    """CLOCK_MONOTONIC at the first line of the worker."""
    quality: Quality | None = None
    """How far the output is from the fp32 eager reference; None as for the evidence."""
    onednn_step_s: dict[str, list[Latency]] = field(default_factory=dict)
    """Copy of oneDNN (``torch``, ``ipex``) -> wall time of each step that it logged."""
    format: int = FORMAT


@dataclass(frozen=True)
class Captured:
    """What one capture left behind, beside its files."""

    name: str
    step_s: list[Latency] = field(default_factory=list)
    """Wall time of each captured step."""
    failure: str | None = None
    window: Window | None = None
    """What the operating system counted in the captured steps; only ``counters`` asks."""
    note: str | None = None
    """What of it went wrong where something else could do."""
    wall_s: Duration = 0.0
    """All that it took, preparation and writing included."""


def failed(spec: JobSpec, error: Exception, started_at_s: float) -> WorkerResult:
    """What a worker writes that could not measure."""
    # A file name in it may be no UTF-8.
    message = f"{type(error).__name__}: {error}".encode(errors="backslashreplace").decode()
    return WorkerResult(cell_id=spec.cell_id, round=spec.round, error=message, started_at_s=started_at_s)


def result_file(instance: int, instances: int, name: str = "result.json") -> str:
    """Name of an instance's result file: ``result.json``, or ``result-1.json`` of several."""
    stem, _, ending = name.rpartition(".")
    return name if instances == 1 else f"{stem}-{instance}.{ending}"


def onednn_log(instance: int) -> str:
    """Name of the file with oneDNN's verbose log, beside the result file."""
    return f"onednn-{instance}.log"


def read_result(path: Path) -> WorkerResult:
    """Read a worker's result file.

    Raises:
        FormatError: the file is torn or of another version.
    """
    return stored.read(WorkerResult, path, FORMAT)


@dataclass(frozen=True)
class _Captures:
    """captures.json."""

    captures: list[Captured]
    format: int


def write_captures(path: Path, captures: list[Captured]) -> None:
    """Write what became of the captures so far, whole or not at all."""
    write_json(path, {"format": FORMAT, "captures": [dataclasses.asdict(captured) for captured in captures]})


def read_captures(path: Path) -> dict[str, Captured]:
    """Capture -> what became of it.

    Raises:
        FormatError: the file is torn, missing or of another version.
    """
    return {captured.name: captured for captured in stored.read(_Captures, path, FORMAT).captures}
