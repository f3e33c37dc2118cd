"""What this host can do at most with this torch: arithmetic on registers, products of matrices, and memory.

It is started as ``python runner/worker/peak.py FOLDER``, pinned to the cores that cells get. Every figure is the best
of several tries: disturbance makes a machine slower and never faster.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Python put this folder first on the path, see __main__.
sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch  # noqa: E402 - the path comes first
import torch.nn.functional as F  # noqa: E402, N812

from runner.protocol import kernel, stored  # noqa: E402
from runner.protocol.peaks import (  # noqa: E402
    COPY,
    DTYPES,
    FORMAT,
    JOB_FILE,
    MATRIX_VECTOR,
    READ,
    RESULT_FILE,
    Best,
    PeakJob,
    Peaks,
)
from runner.protocol.stored import write_json  # noqa: E402
from runner.worker import caches, measure, surroundings, watch  # noqa: E402

# The package's build puts the C library here, where it had a compiler.
_LIBRARY = "_machine_peak*.so"
_TRIES = 7
# A kernel that needs longer for a product gets none of eight times as many operations. If it does for the smallest, it
# is no peak: torch has plain loops for dtypes that a CPU has no instructions for.
_SLOW_S = 0.5
# Products are tried in so many passes over all: the clock of a shared machine changes from one second to the next.
_PASSES = 3
# Products smaller than this don't fill the cores, larger ones take seconds each.
_SIZES, _QUICK_SIZES = (1024, 2048, 4096), (512, 1024)
# Memory that all threads work on together: this many times what the caches hold, within these bounds.
_TIMES_CACHES, _LEAST_BYTES, _QUICK_BYTES = 4, 1 << 30, 1 << 28
# The sides of the matrices that are multiplied by a vector in turn.
_SIDE = 4096


class _Machine:
    """The C library: see machine_peak.c."""

    def __init__(self, file: Path, cores: list[int]) -> None:
        self._library = library = ctypes.CDLL(str(file))
        self._cores, self._threads = (ctypes.c_int * len(cores))(*cores), len(cores)
        numbers: list[Any] = [ctypes.POINTER(ctypes.c_int), ctypes.c_int, ctypes.c_double]
        for name in ("runner_peak_dtype", "runner_peak_isa"):
            getattr(library, name).restype = ctypes.c_char_p
        library.runner_peak_registers.restype = library.runner_peak_memory.restype = ctypes.c_double
        library.runner_peak_registers.argtypes = [ctypes.c_int, *numbers]
        library.runner_peak_memory.argtypes = [ctypes.c_int, *numbers, ctypes.c_size_t]

    def kernels(self) -> Iterator[tuple[int, str, str]]:
        """Number, dtype and instruction set of each kernel that this CPU can run."""
        number = 0
        while dtype := self._library.runner_peak_dtype(number):
            if self._library.runner_peak_is_supported(number):
                yield number, dtype.decode(), self._library.runner_peak_isa(number).decode()
            number += 1

    def registers(self, number: int, seconds: float) -> float:
        """Operations per second of one kernel on all cores; negative where it failed."""
        return float(self._library.runner_peak_registers(number, self._cores, self._threads, seconds))

    def memory(self, is_copy: bool, seconds: float, size_bytes: int) -> float:
        """Bytes per second, read or copied by all cores, each with its part of the memory; negative where it failed."""
        part = size_bytes // self._threads // (2 if is_copy else 1)
        return float(self._library.runner_peak_memory(is_copy, self._cores, self._threads, seconds, part))


def best_of(ways: Iterator[tuple[str, float]]) -> Best | None:
    """The best of several ways and their rates; None if none of them worked."""
    rated = [(rate, by) for by, rate in ways if rate > 0]
    return Best(*max(rated)) if rated else None


def _registers(machine: _Machine, job: PeakJob) -> dict[str, Best]:
    seconds, tries = (0.03, 3) if job.is_quick else (0.15, _TRIES)
    rates = [
        (dtype, isa, max(machine.registers(number, seconds) for _ in range(tries)))
        for number, dtype, isa in machine.kernels()
    ]
    best = {dtype: best_of((isa, rate) for of, isa, rate in rates if of == dtype) for dtype in DTYPES}
    return {dtype: figure for dtype, figure in best.items() if figure}


def _memory(machine: _Machine, job: PeakJob) -> dict[str, Best]:
    size = _QUICK_BYTES if job.is_quick else max(_TIMES_CACHES * (caches.size_bytes(job.cores) or 0), _LEAST_BYTES)
    available = kernel.status_bytes("MemAvailable", Path("/proc/meminfo"))
    size = size if available is None else min(size, available // 4)
    seconds, tries = (0.1, 2) if job.is_quick else (0.4, _TRIES)
    best = {
        name: best_of((f"{size / 1e6:.0f} MB", machine.memory(name == COPY, seconds, size)) for _ in range(tries))
        for name in (READ, COPY)
    }
    return {name: figure for name, figure in best.items() if figure}


def _seconds(call: Callable[[], object], seconds: float) -> float:
    """The shortest of the calls that begin within so many seconds, at least three."""
    call()
    shortest, calls, end = float("inf"), 0, time.perf_counter() + seconds
    while time.perf_counter() < end or calls < 3:
        start = time.perf_counter()
        call()
        shortest = min(shortest, time.perf_counter() - start)
        calls += 1
    return shortest


def _products(dtype: str, size: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """The ways in which torch multiplies two square matrices of a dtype, each by the kernels that models get."""
    if dtype != "int8":
        kind = torch.float32 if dtype == "fp32" else torch.bfloat16
        left, right = torch.randn(size, size).to(kind), torch.randn(size, size).to(kind)
        out = torch.empty(size, size, dtype=kind)
        yield "mm", lambda: torch.mm(left, right, out=out)
        return
    signed = torch.randint(-127, 127, (size, size), dtype=torch.int8)
    weights = torch.randint(-127, 127, (size, size), dtype=torch.int8)
    yield "_int_mm", lambda: torch._int_mm(signed, weights)
    unsigned = torch.randint(0, 255, (size, size), dtype=torch.uint8)
    packed = torch.ops.onednn.qlinear_prepack(weights, [size, size])
    scale, zero = torch.full((size,), 0.01), torch.zeros(size, dtype=torch.int32)
    last: tuple[Any, ...] = (None, 0.05, 128, torch.uint8, "none", [], "")
    yield (
        "onednn.qlinear_pointwise",
        lambda: torch.ops.onednn.qlinear_pointwise(unsigned, 0.01, 128, packed, scale, zero, *last),
    )


def _gemm(job: PeakJob, notes: list[str]) -> dict[str, Best]:
    sizes, seconds, passes = (_QUICK_SIZES, 0.1, 1) if job.is_quick else (_SIZES, 0.5, _PASSES)
    rates: dict[str, list[tuple[str, float]]] = {dtype: [] for dtype in DTYPES}
    slow = set[tuple[str, str]]()
    for dtype in DTYPES * passes:
        for size in sizes:
            try:
                for name, multiply in _products(dtype, size):
                    if (dtype, name) in slow:
                        continue
                    took_s = _seconds(multiply, seconds)
                    rate = 2.0 * size**3 / took_s
                    if took_s > _SLOW_S and size < sizes[-1]:
                        slow.add((dtype, name))
                    if took_s > _SLOW_S and size == sizes[0]:
                        notes.append(f"{dtype}: torch's {name} has plain loops on this CPU ({1e-9 * rate:.2g} GOP/s)")
                    else:
                        rates[dtype].append((f"{name} {size}", rate))
            except (RuntimeError, AttributeError, TypeError) as error:  # another version of torch has it not, or not so
                why = f"{dtype}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
                notes.extend([why] if why not in notes else [])
                break
    best = {dtype: best_of(iter(of_dtype)) for dtype, of_dtype in rates.items()}
    return {dtype: figure for dtype, figure in best.items() if figure}


def _matrix_vector(job: PeakJob) -> Best | None:
    """How fast the weights of products of a matrix and a vector are read, as in a model with one sample."""
    count = 1 if job.is_quick else 8
    weights, vector = [torch.randn(_SIDE, _SIDE) for _ in range(count)], torch.randn(1, _SIDE)

    def multiply() -> None:
        for matrix in weights:
            F.linear(vector, matrix)

    size = sum(matrix.numel() * matrix.element_size() for matrix in weights)
    return best_of(iter([(f"linear {_SIDE}", size / _seconds(multiply, 0.1 if job.is_quick else 1.5))]))


def peaks(job: PeakJob) -> Peaks:
    """Measure everything, one after the other, in one window of the operating system's counters."""
    notes: list[str] = []
    file = next(iter(sorted(Path(__file__).parent.glob(_LIBRARY))), None)
    machine = _Machine(file, job.cores) if file else None
    if machine is None:
        notes.append(
            "registers, read and copy: the C library was not built: install a C compiler (apt-get install gcc) and run "
            "pip install -e . again"
        )
    torch.set_num_threads(len(job.cores))
    window = measure.OpenWindow(job.runner_pid, surroundings.cpus_to_watch(job.cores, [job.cores]))
    with torch.inference_mode():
        registers = _registers(machine, job) if machine else {}
        memory = _memory(machine, job) if machine else {}
        gemm = _gemm(job, notes)
        if figure := _matrix_vector(job):
            memory[MATRIX_VECTOR] = figure
    window.end()
    return Peaks(str(torch.__version__), job.cores, job.is_quick, registers, gemm, memory, window.close(), notes=notes)


def main(folder: Path) -> None:
    """Measure what the job in the folder asks for, and leave the result beside it."""
    watch.mark_crashes()
    job = stored.read(PeakJob, folder / JOB_FILE, FORMAT)
    watch.die_with(job.runner_pid)
    write_json(folder / RESULT_FILE, peaks(job))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
