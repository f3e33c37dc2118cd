"""The figures of a cell, and None where there are too few samples for a figure. Pure; seconds go in and come out.

A cell's figure is the median of its processes' figures. `intervals` says how sure that figure is, and `decision`
whether those of two cells differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Processes = Sequence[Sequence[float]]
"""The samples of a cell: latencies in seconds, one sequence per process."""
Floats = NDArray[np.float64]

# How many samples are turned into an array at a time: this bounds the memory for ten thousand cells.
BLOCK = 2_000_000
# A quantile q is estimated only from samples of which at least this many lie beyond it.
BEYOND = 2


@dataclass(frozen=True)
class Estimate:
    """The latency of a cell over all its processes."""

    processes: int
    iterations: int
    p50_s: float
    p90_s: float | None
    """The 90th percentile; None if a process has fewer than 20 samples."""
    p99_s: float | None
    """The 99th percentile; None if a process has fewer than 200 samples."""
    mean_s: float
    cv: float
    """The standard deviation of the iterations over their mean, as the median over processes; 0 for one iteration."""
    process_spread: float | None
    """(slowest - fastest process median) / p50; None for a single process, which can't show it."""


def samples_needed(quantile: float) -> int:
    """How many samples of a process are needed for at least BEYOND of them to lie beyond ``quantile``, between 0 and 1.

    With fewer samples the quantile would rest on the largest one or two: an extrapolation, not an estimate.
    """
    return int(np.ceil(BEYOND / (1 - quantile) - 1e-9))


def quantile(samples: Sequence[float], q: float) -> float | None:
    """The quantile by linear interpolation (Hyndman & Fan 1996, type 7); None below samples_needed(q) samples."""
    if len(samples) < samples_needed(q):
        return None
    return float(np.quantile(np.asarray(samples), q))


def needs(quantile: float) -> str:
    """Why a quantile is absent, in words: "needs 200 latencies", which is a count per process, see `samples_needed`."""
    return f"needs {samples_needed(quantile)} latencies"


def checked(processes: Processes) -> list[Floats]:
    """The samples as one array per process, in seconds.

    Raises:
        ValueError: there is no process, one has no samples, or a sample is not a finite positive number.
    """
    if not processes or not all(len(samples) for samples in processes):
        raise ValueError("a cell needs at least one process with at least one sample")
    arrays = [np.asarray(samples, dtype=np.float64) for samples in processes]
    if not all(np.isfinite(a).all() and (a > 0).all() for a in arrays):
        raise ValueError("a latency must be a finite number above 0")
    return arrays


def estimate(processes: Sequence[Sequence[float]]) -> Estimate:
    """Estimate a cell's latency.

    Args:
        processes: samples in seconds, one sequence per process, none empty.

    Raises:
        ValueError: there is no process, one has no samples, or a sample is not a finite positive number.
    """
    arrays = checked(processes)
    medians = [float(np.median(a)) for a in arrays]

    def over_processes(q: float) -> float | None:
        values = [quantile(samples, q) for samples in processes]
        figures = [value for value in values if value is not None]
        return float(np.median(figures)) if len(figures) == len(values) else None

    p50 = float(np.median(medians))
    return Estimate(
        processes=len(arrays),
        iterations=sum(len(a) for a in arrays),
        p50_s=p50,
        p90_s=over_processes(0.9),
        p99_s=over_processes(0.99),
        mean_s=float(np.median([a.mean() for a in arrays])),
        cv=float(np.median([a.std(ddof=1) / a.mean() if len(a) > 1 else 0.0 for a in arrays])),
        process_spread=(max(medians) - min(medians)) / p50 if len(arrays) > 1 else None,
    )


def process_medians(processes: Processes) -> Floats:
    """The median of each process, in seconds; processes of one length are sorted together.

    Raises:
        ValueError: a process has no samples, or a sample is not a finite positive number.
    """
    lengths = np.fromiter(map(len, processes), dtype=np.intp, count=len(processes))
    if not len(lengths) or not lengths.all():
        raise ValueError("a cell needs at least one process with at least one sample")
    medians = np.empty(len(processes))
    order = np.argsort(lengths, kind="stable")
    for same in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        step = max(1, BLOCK // int(lengths[same[0]]))
        for start in range(0, len(same), step):
            block = same[start : start + step]
            samples = np.array([processes[i] for i in block], dtype=np.float64)
            if not (np.isfinite(samples).all() and (samples > 0).all()):
                raise ValueError("a latency must be a finite number above 0")
            medians[block] = np.median(samples, axis=1)
    return medians


def by_round(processes: Processes) -> dict[int, float]:
    """The median of each process by its round, for a cell whose processes are in the order of the rounds, none missing.

    Raises:
        ValueError: see `process_medians`.
    """
    return dict(enumerate(process_medians(processes).tolist()))
