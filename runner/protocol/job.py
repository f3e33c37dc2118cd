"""What the runner hands to a worker and gets back: the only module that both sides import.

Needs the standard library and the rest of this room only, so that a worker may run under an interpreter that has
torch and nothing else of the project. Seconds and bytes everywhere.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.protocol import stored
from runner.protocol.stopping import Rule
from runner.protocol.stored import Count, Duration, Latency
from runner.protocol.stored import FormatError as FormatError  # of job files too: where their readers look for it

# History of the job and result files: 1 = first version; 2 = precision, memory format, graph, instances;
# 3 = captures, several logged steps, passes of their own; 4 = when to stop, surroundings;
# 5 = outcomes without MLflow's run ids.
FORMAT = 5

# Environment variables that tune allocators, OpenMP, MKL, oneDNN, torch's compilers, or load foreign code: what the
# runner scrubs from the caller's environment, and what the worker reports of its own.
TUNING = re.compile(
    r"LD_PRELOAD|LD_AUDIT|LD_BIND_NOW|PYTHONMALLOC"
    r"|MALLOC_.*|JE_MALLOC_CONF|GLIBC_TUNABLES|TCMALLOC_.*|HEAPPROFILE|HEAPCHECK|CPUPROFILE|THP_.*"
    r"|OMP_.*|KMP_.*|GOMP_.*|MKL_.*|MKLDNN_.*|ONEDNN_.*|DNNL_.*|OPENBLAS_.*"
    r"|TORCH_(?!HOME$).*|TORCHINDUCTOR_.*|TORCHDYNAMO_.*|PYTORCH_.*|IPEX_.*|ATEN_.*|LRU_CACHE_CAPACITY"
    r"|INTEL_LIBITTNOTIFY.*|INTEL_ITTNOTIFY_.*|CCL_.*|LOCAL_WORLD_SIZE|LOCAL_RANK|RUNNER_JOB"
)


# What the first instance's captures leave in the job's folder; the runner reads them and makes tables of them.
CAPTURES_FILE = "captures.json"
ITT_FILE = "itt.bin"
COUNTERS_FILE = "counters.csv"
PROFILER_FOLDER = "profiler"

# On record while a capture is under way, and after it when nothing came after it.
NOT_SURVIVED = "the worker did not survive it; see stderr.log"

# Bodies of requests that are no samples: the worker behind a server begins to count, and ends with its result.
BEGIN, END = b"runner: begin", b"runner: end"

# What an instance says that stopped because of another: the other's reason is the one to show.
OTHER_FAILED = "another instance of this job failed"


@dataclass(frozen=True)
class JobSpec:
    """One (cell, round), as the worker reads it."""

    cell_id: str
    round: int
    model_target: str
    """Dotted path of a callable ``(batch_size, **model_kwargs) -> (module, inputs)``."""
    model_kwargs: dict[str, Any]
    batch_size: int
    ipex: str
    """``off`` or ``on``."""
    memory_format: str
    """``channels_first`` or ``channels_last``."""
    precision: str
    """``fp32``, ``bf16``, ``fp16`` or ``int8``."""
    calibration_batches: int
    """For int8: batches whose values the observers see, drawn apart from the measured inputs."""
    graph: str
    """``eager``, ``torchscript`` or ``compile``."""
    fullgraph: bool
    """For compile: whether a graph break is an error."""
    seed: int
    warmup: int
    """Untimed iterations before the timed loop."""
    iterations: int | None
    """Timed iterations; None means: see `rule`."""
    min_time_s: float
    max_time_s: float
    target_ci_pct: float | None
    runner_pid: int
    """Process whose CPU time inside the timed window is audited."""
    result_path: str
    """Of a single instance; instance i of several writes ``<stem>-<i>.json`` beside it."""
    instances: list[list[int]]
    """Logical CPUs of each instance: by its own affinity a worker knows which one it is."""
    onednn: dict[str, Any] = field(default_factory=dict)
    """How many steps oneDNN logs (``iterations``), and the seconds after which no further one is begun (``max_s``)."""
    captures: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Capture -> its settings, for those that run in the timing pass after the timed loop: clean (steps to set the
    others against), counters (``perf``: its command; empty: getrusage), itt (``library``: the collector), profiler."""
    region: dict[str, Any] | None = None
    """In a pass of its own (toplev): perf's control FIFOs (``ctl``, ``ack``). The timed loop is what perf counts, and
    neither evidence nor captures follow it."""
    marked: bool = False
    """In a pass of its own (VTune): every timed step and operator is an ITT range, and nothing follows the loop."""
    deadline_s: float = 0.0
    """CLOCK_MONOTONIC when the runner stops the job; 0: never."""
    private: str = ""
    """A folder of the job's own with a short path without commas, gone afterwards."""
    request: str = ""
    """Behind a server: where the worker leaves the body of a request, for the load generator; else empty."""
    format: int = FORMAT

    @property
    def rule(self) -> Rule:
        """When the timed loop ends."""
        return Rule(self.iterations, self.min_time_s, self.max_time_s, self.target_ci_pct)

    @property
    def apart(self) -> bool:
        """Whether this pass is for a program around it, and not for evidence."""
        return self.region is not None or self.marked


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
    samples_s: list[Latency] = field(default_factory=list)
    """Latency of each timed iteration, in order."""
    window: Window | None = None
    phases_s: dict[str, Duration] = field(default_factory=dict)
    """Wall time of import, reference, build, transform, warm-up, measure, quality, evidence."""
    evidence: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    """``Type: message`` when the worker caught an exception; the traceback is in its log."""
    started_at_s: Duration = 0.0
    """CLOCK_MONOTONIC at the first line of the worker."""
    quality: dict[str, Any] = field(default_factory=dict)
    """How far the output is from the fp32 eager reference: see runner.worker.reference.compare()."""
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


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` (a dataclass or plain data) whole or not at all: temporary name, then rename."""
    data = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_spec(path: Path) -> JobSpec:
    """Read a job file.

    Raises:
        FormatError: the file is torn or of another version.
    """
    return stored.read(JobSpec, path, FORMAT)


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
