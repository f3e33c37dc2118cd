"""What a worker is asked to record after its timed loop, as the job file says it."""

from __future__ import annotations

from dataclasses import dataclass

from runner.protocol.stored import Count, Duration


@dataclass(frozen=True)
class Iterations:
    """How many iterations a capture takes."""

    iterations: Count
    """The most iterations that it takes."""
    max_s: Duration
    """Seconds after which no further iteration is begun."""


@dataclass(frozen=True)
class Steps(Iterations):
    """How many iterations of oneDNN's log are taken."""

    least: Count = 1
    """The fewest iterations that are taken, however long they last."""


# The median of three is the first that one disturbed iteration can't move.
LEAST_LOGGED = 3
# What the evidence needs of oneDNN's log, where nothing else times its kernels; one slow iteration in later rounds,
# which are repetitions, and where a capture times them.
EVIDENCE_LOG = Steps(iterations=LEAST_LOGGED, max_s=2.0, least=LEAST_LOGGED)
LATER_EVIDENCE_LOG = Steps(iterations=LEAST_LOGGED, max_s=2.0)


@dataclass(frozen=True)
class CountersCapture(Iterations):
    """What perf counts of the running worker."""

    perf: list[str]
    """The command line of ``perf stat`` without its target; empty if only getrusage(2) can count."""


@dataclass(frozen=True)
class IttCapture(Iterations):
    """ITT ranges of operators and of oneDNN's primitives."""

    library: str
    """The file of the collector's library."""


@dataclass(frozen=True)
class ProfilerCapture(Iterations):
    """PyTorch's profiler."""

    max_trace_mb: float
    """Megabytes past which the trace is left out; its tables are kept."""


@dataclass(frozen=True)
class InductorCapture(Iterations):
    """The kernels that inductor generates, each with its own time; for a package in a launch of its own, because there
    they are generated otherwise than those that are timed."""


@dataclass(frozen=True)
class CallersCapture(Iterations):
    """oneDNN's log under PyTorch's profiler: which operator called which primitive."""


@dataclass(frozen=True)
class Captures:
    """The captures that a worker takes after its timed loop; None for each that is not asked for."""

    clean: bool = False
    """Whether iterations without any capture are taken, to set the others against."""
    counters: CountersCapture | None = None
    """Whether and how perf counts."""
    itt: IttCapture | None = None
    """Whether and how ITT ranges are collected."""
    profiler: ProfilerCapture | None = None
    """Whether and how PyTorch's profiler records."""
    callers: CallersCapture | None = None
    """Whether and how the operators that call oneDNN's primitives are recorded."""
    inductor: InductorCapture | None = None
    """Whether and how inductor's kernels are recorded; for a package nothing else then follows the loop."""


@dataclass(frozen=True)
class Region:
    """perf's control FIFOs, through which a workload tells perf which part of it to count."""

    ctl: str
    """The path of the FIFO that perf reads its orders from."""
    ack: str
    """The path of the FIFO that perf answers on."""
