"""One cell's figures: what was measured, and what too few samples can't say. Pure; seconds in, seconds out.

A cell's figure is the median over its processes of each process's figure. How sure that figure is belongs to
`intervals`, whether two differ to `decision`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Processes = Sequence[Sequence[float]]
"""A cell's samples: latencies in seconds, one sequence a process."""
Floats = NDArray[np.float64]

# A quantile q is estimated only from samples of which at least this many lie beyond it.
BEYOND = 2


@dataclass(frozen=True)
class Estimate:
    """Latency of a cell over all its processes."""

    processes: int
    iterations: int
    p50_s: float
    p90_s: float | None
    """None when a process has too few samples for it (needs 20)."""
    p99_s: float | None
    """None when a process has too few samples for it (needs 200)."""
    mean_s: float
    cv: float
    """Standard deviation over mean of the iterations, median over processes; 0 for a single iteration."""
    between: float | None
    """(slowest - fastest process median) / p50: what one process can't show; None with one process."""


def samples_needed(quantile: float) -> int:
    """Samples of one process for at least BEYOND of them to lie beyond ``quantile``, which is above 0 and below 1.

    A count a process can't reach leaves the quantile to the one or two largest samples: extrapolation, not an estimate.
    """
    return int(np.ceil(BEYOND / (1 - quantile) - 1e-9))


def quantile(samples: Sequence[float], q: float) -> float | None:
    """Linear-interpolation quantile (Hyndman & Fan 1996, type 7); None under samples_needed(q)."""
    if len(samples) < samples_needed(q):
        return None
    return float(np.quantile(np.asarray(samples), q))


def needs(quantile: float) -> str:
    """Why a quantile is absent, for a reader: "needs 200 samples"; a count per process, see `samples_needed`."""
    return f"needs {samples_needed(quantile)} samples"


def checked(processes: Processes) -> list[Floats]:
    """One array a process, in seconds.

    Raises:
        ValueError: no process, or one without samples, or a sample that is not a finite positive number.
    """
    if not processes or not all(len(samples) for samples in processes):
        raise ValueError("a cell needs at least one process with at least one sample")
    arrays = [np.asarray(samples, dtype=np.float64) for samples in processes]
    if not all(np.isfinite(a).all() and (a > 0).all() for a in arrays):
        raise ValueError("a latency must be a finite number above 0")
    return arrays


def estimate(processes: Sequence[Sequence[float]]) -> Estimate:
    """Summarise one cell.

    Args:
        processes: samples in seconds, one sequence a process, none empty.

    Raises:
        ValueError: no process, or one without samples, or a sample that is not a finite positive number.
    """
    arrays = checked(processes)
    medians = [float(np.median(a)) for a in arrays]

    def over_processes(q: float) -> float | None:
        values = [quantile(samples, q) for samples in processes]
        known = [value for value in values if value is not None]
        return float(np.median(known)) if len(known) == len(values) else None

    p50 = float(np.median(medians))
    return Estimate(
        processes=len(arrays),
        iterations=sum(len(a) for a in arrays),
        p50_s=p50,
        p90_s=over_processes(0.9),
        p99_s=over_processes(0.99),
        mean_s=float(np.median([a.mean() for a in arrays])),
        cv=float(np.median([a.std(ddof=1) / a.mean() if len(a) > 1 else 0.0 for a in arrays])),
        between=(max(medians) - min(medians)) / p50 if len(arrays) > 1 else None,
    )
