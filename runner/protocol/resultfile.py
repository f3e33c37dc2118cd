"""The result files: what a worker leaves behind, and the files of its captures. Seconds and bytes everywhere."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from runner.protocol import stored
from runner.protocol.evidence import Evidence, Quality
from runner.protocol.jobfile import FORMAT, JobSpec
from runner.protocol.stored import Count, Duration, Figure, Latency, write_json

# What the first instance's captures leave in the job's folder; the runner reads them and makes tables of them.
CAPTURES_FILE = "captures.json"
ITT_FILE = "itt.bin"
COUNTERS_FILE = "counters.csv"
PROFILER_FOLDER = "profiler"
INDUCTOR_FOLDER, KERNELS_FILE = "inductor", "kernels.json"
CALLERS_LOG, CALLERS_FILE = "onednn-callers.log", "onednn-callers.json"

# The failure that is on record while a capture is under way: it stays if the capture ends the process.
NOT_SURVIVED = "the worker did not survive it; see stderr.log"

# The error of an instance that stopped because another one failed: the other's error is the one to show.
OTHER_FAILED = "another instance of this job failed"


@dataclass(frozen=True)
class Surroundings:
    """What else went on in the machine during the window; a field is None if this machine does not report it."""

    cpus: list[int]
    """The CPUs that are watched: the process's own, and their hyper-threads that no instance of the job has."""
    resolution_s: Duration
    """How far ``busy_s`` and ``steal_s`` may be off: one clock tick per CPU."""
    busy_s: float | None
    """Time that the watched CPUs worked, for any process, summed over CPUs."""
    steal_s: float | None
    """Time that the hypervisor reports to have run something else on the watched CPUs, summed over CPUs."""
    pressure_s: dict[str, float]
    """``cpu_some``, ``memory_full``, ... -> time that some or all processes of the machine waited for that resource."""
    quota_s: float | None
    """Time that a cgroup's CPU quota stopped the job, summed over CPUs."""
    frequency_before_hz: float | None
    """The mean frequency of the watched CPUs before the window."""
    frequency_after_hz: float | None
    """The mean frequency of the watched CPUs after the window."""
    throttle_events: int | None
    """How often heat slowed the watched CPUs."""
    swapped_pages: Count | None
    """Pages that the machine swapped in or out."""
    allocation_stalls: Count | None
    """Allocations of any process that had to wait until memory was freed."""
    oom_kills: Count | None
    """Processes of the machine that the kernel killed for lack of memory."""


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
    """CPU time that the runner used in the window; None when its clock can't be read."""
    launcher_cpu_s: Duration | None
    """CPU time of the worker's ancestors below the runner (shell, launcher) in the window."""
    surroundings: Surroundings | None = None
    """What else went on in the machine; None where it was not watched."""
    generator_cpu_s: Duration | None = None
    """CPU time of the load generator on the watched CPUs, which the runner adds; None without a server."""
    rss_growth_bytes: Figure | None = None
    """By how much the resident set is larger after the window than before; None if the kernel does not say."""
    cache_bytes: Count | None = None
    """The size of all caches of the process's CPUs together; None where they were left as they were."""
    energy_j: Duration | None = None
    """Joules that the CPU's packages used, whoever used them; None where no counter of theirs can be read."""
    overwritten_bytes: Count = 0
    """What was written before each iteration to overwrite the caches; 0 where they were left as they were."""


@dataclass(frozen=True)
class WorkerResult:
    """What the worker writes when it has measured, again when it has proved what ran, or when it has failed in a way
    that it could describe."""

    cell_id: str
    round: Count
    latencies_s: list[Latency] = field(default_factory=list)
    """Latency of each timed iteration, in order."""
    window: Window | None = None
    """What the operating system counted while it was timed; None where it measured nothing."""
    phases_s: dict[str, Duration] = field(default_factory=dict)
    """Wall time of import, reference, build, transform, warm-up, measure, quality, evidence; and of compile, which is a
    part of transform and warm-up."""
    evidence: Evidence | None = None
    """What the worker proved about itself; None where it measured nothing, or in a pass that is not for evidence."""
    error: str | None = None
    """``Type: message`` when the worker caught an exception; the traceback is in its log."""
    started_at_s: Duration = 0.0
    """The time on CLOCK_MONOTONIC at the first line of the worker."""
    quality: Quality | None = None
    """How far the output is from the fp32 eager reference; None where there is no evidence either."""
    onednn_step_s: dict[str, list[Latency]] = field(default_factory=dict)
    """Copy of oneDNN (``torch``, ``ipex``) -> wall time of each iteration that it logged."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the result must know and no check fails for: sentences."""
    disturbed: list[Window] = field(default_factory=list)
    """The windows of the loops before, which others disturbed and which were run again; their latencies don't count."""
    format: int = FORMAT

    @property
    def is_served(self) -> bool:
        """Whether the model was behind a server: the latencies are of requests then, not of iterations."""
        return self.window is not None and self.window.generator_cpu_s is not None

    @property
    def streams(self) -> int:
        """The calls of the model that run at the same time in an iteration: see Cell.streams."""
        return self.evidence.calls if self.evidence else 1

    @property
    def logged_s(self) -> list[float]:
        """Wall time of each iteration that oneDNN logged: of the copy (IPEX's or torch's) whose iterations took
        longest, because it does most of an iteration's work; empty if none was logged."""
        return max(filter(None, self.onednn_step_s.values()), key=median, default=[])


@dataclass(frozen=True)
class Captured:
    """What became of one capture; its data is in files of its own."""

    name: str
    step_s: list[Latency] = field(default_factory=list)
    """Wall time of each captured iteration."""
    failure: str | None = None
    """Why it failed; None if it did not."""
    window: Window | None = None
    """What the operating system counted in the captured iterations; None if it failed, and for ``clean``."""
    note: str | None = None
    """What went wrong in it, although the capture has a result by other means; None if nothing did."""
    wall_s: Duration = 0.0
    """Wall time of the whole capture, including its preparation and the writing of its files."""


@dataclass
class ResultFile:
    """A worker's result file: it has what was measured before anything is proved, and nothing takes that away."""

    path: Path
    spec: JobSpec
    started_at_s: float
    kept: WorkerResult | None = None
    """What this worker has written; None before it has measured or failed."""

    def keep(self, result: WorkerResult) -> None:
        """Write a result: as soon as it is measured, and again when it is proved."""
        write_json(self.path, result)
        self.kept = result

    @property
    def is_complete(self) -> bool:
        """Whether the measurement is there with all that belongs to it: what fails later is a capture."""
        return self.kept is not None and (self.kept.evidence is not None or self.spec.is_separate)

    def fail(self, error: Exception) -> None:
        """Write why the worker failed, beside what it measured; a complete result and an earlier failure stay."""
        # The message may contain the name of a file that is not UTF-8.
        message = f"{type(error).__name__}: {error}".encode(errors="backslashreplace").decode()
        if self.kept is None:
            spec = self.spec
            self.keep(WorkerResult(spec.cell_id, spec.round, error=message, started_at_s=self.started_at_s))
        elif self.kept.error is None and not self.is_complete:
            self.keep(replace(self.kept, error=f"it measured, and could not prove what ran: {message}"))


def result_file(instance: int, instances: int, name: str = "result.json") -> str:
    """The name of an instance's result file: ``result.json``, or ``result-1.json`` for one of several."""
    stem, _, ending = name.rpartition(".")
    return name if instances == 1 else f"{stem}-{instance}.{ending}"


def onednn_log(instance: int) -> str:
    """The name of the file with oneDNN's verbose log, which is in the folder of the result file."""
    return f"onednn-{instance}.log"


def read_result(path: Path) -> WorkerResult:
    """Read a worker's result file.

    Raises:
        FormatError: the file is torn or of another version.
    """
    return stored.read(WorkerResult, path, FORMAT)


@dataclass(frozen=True)
class _Captures:
    """The content of captures.json."""

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
