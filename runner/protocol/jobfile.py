"""The job file: what the runner hands to a worker. Seconds and bytes everywhere."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from runner.protocol import stored
from runner.protocol.captures import EVIDENCE_LOG, Captures, Region, Steps
from runner.protocol.cell import Cell
from runner.protocol.stopping import Rule
from runner.protocol.stored import Count

# History of the job and result files: 1 = first version; 2 = precision, memory format, graph, instances;
# 3 = captures, several logged steps, passes of their own; 4 = when to stop, surroundings;
# 5 = outcomes without MLflow's run ids; 6 = latencies_s, the cell itself; 7 = typed evidence, quality and captures;
# 8 = input sets, the worst of several outputs, notes;
# 9 = the allocator's own answers, settings of float32, what the worker inherited, the model's own layouts, samples;
# 10 = cold caches, growth of memory, loops that were disturbed and run again, FLOP; 11 = the worker's own state;
# 12 = the torch build; 13 = what the model is; 14 = the numbers that an iteration must move;
# 15 = graphs that are frozen, autotuned or packages, recipes of precisions, and what of them is in the model;
# 16 = streams.
FORMAT = 16

# Environment variables that tune allocators, OpenMP, MKL, oneDNN, torch's compilers, that make Python trace, debug or
# run otherwise, or load foreign code: what the runner scrubs from the caller's environment, and what the worker reports
# of its own. Others of Python's decide what is loaded (PYTHONPATH: see runner.launch.environment), or are part of a
# cell's identity.
TUNING = re.compile(
    r"LD_PRELOAD|LD_AUDIT|LD_BIND_NO[WT]|LD_DEBUG.*|LD_PROFILE.*|LD_TRACE_.*|LD_SHOW_AUXV|LD_DYNAMIC_WEAK"
    r"|PYTHON(?:MALLOC|MALLOCSTATS|TRACEMALLOC|DEVMODE|ASYNCIODEBUG|FAULTHANDLER|PROFILEIMPORTTIME|PERFSUPPORT|DEBUG"
    r"|INSPECT|VERBOSE|WARNINGS|THREADDEBUG|DUMPREFS|DUMPREFSFILE|SHOWREFCOUNT|NODEBUGRANGES|EXECUTABLE)"
    r"|PYTHON_(?:GIL|JIT|PERF_JIT_SUPPORT|CPU_COUNT|FROZEN_MODULES|PRESITE|UOPS.*|OPT_CACHE|TLBC|THREAD_.*|CONTEXT_.*)"
    r"|MALLOC_.*|MIMALLOC_.*|JE_MALLOC_CONF|GLIBC_TUNABLES|TCMALLOC_.*|HEAPPROFILE|HEAPCHECK|CPUPROFILE|THP_.*"
    r"|OMP_.*|KMP_.*|GOMP_.*|MKL_.*|MKLDNN_.*|ONEDNN_.*|DNNL_.*|OPENBLAS_.*"
    r"|TORCH_(?!HOME$).*|TORCHINDUCTOR_.*|TORCHDYNAMO_.*|PYTORCH_.*|IPEX_.*|ATEN_.*|LRU_CACHE_CAPACITY"
    r"|INTEL_LIBITTNOTIFY.*|INTEL_ITTNOTIFY_.*|CCL_.*|LOCAL_WORLD_SIZE|LOCAL_RANK|RUNNER_JOB"
)

# Bodies of requests that are orders: the worker behind a server begins to count, or ends with its result.
BEGIN, END = b"runner: begin", b"runner: end"


@dataclass(frozen=True)
class JobSpec:
    """One (cell, round), as the worker reads it."""

    cell_id: str
    round: int
    cell: Cell
    """What is measured."""
    runner_pid: int
    """The process whose CPU time inside the timed window is audited."""
    result_path: str
    """The result file of a single instance; instance i of several writes ``<stem>-<i>.json`` in the same folder."""
    instances: list[list[int]]
    """Logical CPUs of each instance: by its own affinity a worker knows which one it is."""
    onednn: Steps = EVIDENCE_LOG
    """How many iterations oneDNN logs, for the evidence and as a capture."""
    captures: Captures = field(default_factory=Captures)
    """The captures that follow the timed loop."""
    region: Region | None = None
    """perf's control FIFOs in a pass of its own (toplev), where perf counts the timed loop and neither evidence nor
    captures follow it; None in any other pass."""
    marked: bool = False
    """Whether this is a pass of its own for VTune: every timed iteration and operator is an ITT range, and nothing
    follows the loop."""
    deadline_s: float = 0.0
    """The time on CLOCK_MONOTONIC at which the runner stops the job; 0 if it never does."""
    private: str = ""
    """The job's private folder: its path is short and has no commas, and it is removed after the job."""
    looks: bool = True
    """Whether the worker looks at what runs: operators by torch's profiler, kernels by oneDNN's log. A later round is
    held to what was seen in the first one, and to the rest of its evidence."""
    repeats: Count = 0
    """How often the timed loop is run again in the same process if others disturbed it."""
    reference: str = ""
    """The file that keeps the fp32 reference for all jobs of the sweep with this model, seed and inputs, made by the
    first of them; empty if the worker computes one for itself."""
    weights: str = ""
    """The file with the weights that the model has in all torch builds of the sweep: the trial of the first build makes
    it, and all jobs load it where it exists. Empty if each build makes its own from the seed."""
    request: str = ""
    """The file in which a worker behind a server leaves the body of a request for the load generator; else empty."""
    format: int = FORMAT

    @property
    def rule(self) -> Rule:
        """When the timed loop ends."""
        cell = self.cell
        # None of several instances stops early: the others would be timed without its load on the machine.
        target = cell.target_ci_pct if cell.instances == 1 else None
        return Rule(cell.iterations, cell.min_time_s or 0.0, cell.max_time_s or 0.0, target)

    @property
    def input_sets(self) -> int:
        """How many input sets the iterations take in turn; the requests to a server are samples of one."""
        return 1 if self.cell.scenario.is_served else self.cell.inputs

    @property
    def is_separate(self) -> bool:
        """Whether nothing is proved in this pass: it runs under another program, or code generated for a capture."""
        is_other_code = self.captures.inductor is not None and self.cell.graph.is_package
        return self.region is not None or self.marked or is_other_code


def read_spec(path: Path) -> JobSpec:
    """Read a job file.

    Raises:
        FormatError: the file is torn or of another version.
    """
    return stored.read(JobSpec, path, FORMAT)
