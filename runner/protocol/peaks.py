"""What a host can do at most with a torch build: what `peak` asks of a worker, and what that answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from runner.protocol.resultfile import Window
from runner.protocol.stored import Count, Range

# History: 1 = first version.
FORMAT = 1

JOB_FILE, RESULT_FILE = "job.json", "result.json"

# The kinds of arithmetic that have a peak, in the order in which they are shown.
DTYPES = ("fp32", "bf16", "int8")
# What is measured of the memory: reading, copying, and products of a matrix and a vector.
READ, COPY, MATRIX_VECTOR = "read", "copy", "matrix x vector"

# A product and its sum are two operations. No machine does less than one per second, or more than all together do.
Rate = Annotated[float, Range(1.0, 1e21)]


@dataclass(frozen=True)
class PeakJob:
    """What a worker is to measure."""

    runner_pid: Count
    """The process whose CPU time inside the window is audited."""
    cores: list[Count]
    """The logical CPUs to measure on, with one thread each."""
    is_quick: bool
    """Whether to measure so briefly that the figures are no peaks: for a first look, and for tests."""
    format: int = FORMAT


@dataclass(frozen=True)
class Best:
    """The best rate of several ways to do something."""

    per_s: Rate
    """Operations or bytes per second, of all threads together."""
    by: str
    """What reached it: an instruction set (``avx512_vnni``), or a function and its size (``mm 4096``)."""


@dataclass(frozen=True)
class Peaks:
    """What some cores of a host can do at most."""

    torch: str
    """torch's version, with the suffix of its build."""
    cores: list[Count]
    """The logical CPUs that were measured, with one thread each."""
    is_quick: bool
    """See PeakJob."""
    registers: Mapping[str, Best]
    """dtype -> operations per second on registers alone; empty where the collector was not built."""
    gemm: Mapping[str, Best]
    """dtype -> operations per second of the best product of matrices by torch's own kernels."""
    memory: Mapping[str, Best]
    """What is done with the memory -> bytes per second; a copy counts what it reads and what it writes."""
    window: Window
    """What the operating system counted meanwhile, by which it is judged whether others disturbed it."""
    host_id: str = ""
    """The host that was measured; empty until the runner has filed the result."""
    date: str = ""
    """When it was measured, ISO 8601 with its time zone; empty until the runner has filed the result."""
    notes: list[str] = field(default_factory=list)
    """What could not be measured, and why."""
    format: int = FORMAT

    def ceiling(self, dtype: str) -> Best | None:
        """What no arithmetic of a dtype exceeds; None where it was not measured.

        bfloat16 without instructions of its own is computed by those of float32.
        """
        best = self.registers.get(dtype)
        return self.registers.get("fp32") if best is None and dtype == "bf16" else best
