"""What one process's samples look like in the order measured: warm-up, drift, modes, and what they are worth.

A description, with a sentence for everything a reader should act on and none otherwise: each check has a level of its
own and a least size, so that independent samples of one speed get a note once in a hundred processes or less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runner.stats.estimates import Floats, checked
from runner.stats.intervals import Interval
from runner.stats.modes import Mode, modes
from runner.stats.trend import Trend, autocorrelation_time, first_part_p, trend

# Fewer samples have no shape.
LEAST_SAMPLES = 20
# Chances of a false note, of independent samples.
WARM_UP_LEVEL = 0.005
DRIFT_LEVEL = 0.003
# Relative sizes under which nobody would act.
LEAST_WARM_UP = 0.03
LEAST_DRIFT = 0.02
# Samples worth less than this share of their number get a note.
LEAST_WORTH = 0.25
# Of the interval of the drift.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Shape:
    """One process's samples, described."""

    samples: int
    effective_samples: float
    """Independent ones that these are worth, drift taken out; at most ``samples``."""
    warm_up: float | None
    """How much slower the first tenth (at least 3) is than the rest, drift taken out, relative; None under 20."""
    drift: float | None
    """Relative change from first to last sample after that first tenth (Theil-Sen); None under 20 samples."""
    drift_interval: Interval | None
    """Sen's interval of the drift, 95 %, autocorrelation taken into account; None under 20 samples."""
    modes: tuple[Mode, ...]
    """One or two speeds, fastest first."""
    notes: tuple[str, ...]
    """A sentence for each finding that stands out from chance and matters."""


def _ms(seconds: float) -> str:
    """Three digits, or all that come before the point."""
    value = float(f"{seconds * 1e3:.3g}")
    return f"{value:.{max(0, min(6, 2 - int(np.floor(np.log10(value)))))}f} ms"


def _pct(share: float) -> str:
    return f"{100 * share:.0f} %"


def _slower(change: float) -> str:
    return f"{_pct(abs(change))} {'slower' if change > 0 else 'faster'}"


def _drift_note(latencies: Floats, since: int) -> str:
    tenth = max(1, len(latencies) // 10)
    change = float(np.median(latencies[-tenth:]) / np.median(latencies[since : since + tenth])) - 1
    return f"drifts: the last tenth is {_slower(change)} than the {'second' if since else 'first'}"


def describe(samples: Sequence[float]) -> Shape:
    """Describe the samples of one process.

    In this order, each without what was found before: a trend after the first tenth (`trend`), a slower first part
    (`first_part_p`), two speeds (`modes`). A cost of about 10 ms at 1 000 samples.

    Args:
        samples: latencies in seconds, in the order measured.

    Raises:
        ValueError: no sample, or one that is not a finite positive number.
    """
    (latencies,) = checked([samples])
    n = len(latencies)
    if n < LEAST_SAMPLES:
        middle = Mode(1.0, float(np.median(latencies)))
        return Shape(n, n / autocorrelation_time(latencies), None, None, None, (middle,), ())
    logs = np.log(latencies)
    first = max(3, n // 10)
    found = trend(logs[first:], CONFIDENCE)
    drifts = found.p < DRIFT_LEVEL and abs(np.expm1(found.change)) >= LEAST_DRIFT
    # Hinged at the middle of the rest, where its median is: what stays keeps its place.
    line = found.change / (n - first - 1) * (np.arange(n) - (n + first - 1) / 2) if drifts else np.zeros(n)
    level = np.asarray(logs - line, dtype=np.float64)
    time = autocorrelation_time(level[first:])
    warm_up = float(np.expm1(np.median(level[:first]) - np.median(level[first:])))
    warms_up = warm_up >= LEAST_WARM_UP and first_part_p(level, first, time) < WARM_UP_LEVEL
    speeds = modes(np.exp(level[first if warms_up else 0 :]))
    notes = []
    if warms_up:
        notes.append(f"warms up: the first {first} samples are {_slower(warm_up)} than the rest; raise warmup")
    if drifts:
        notes.append(_drift_note(latencies, first if warms_up else 0))
    if len(speeds) > 1:
        notes.append("bimodal: " + ", ".join(f"{_pct(mode.share)} near {_ms(mode.latency_s)}" for mode in speeds))
    if 1 / time < LEAST_WORTH:
        notes.append(f"autocorrelated: {n} samples are worth {n / time:.0f} independent ones")
    return Shape(n, n / time, warm_up, *_relative(found), speeds, tuple(notes))


def _relative(found: Trend) -> tuple[float, Interval]:
    change, low, high = (float(np.expm1(value)) for value in (found.change, found.low, found.high))
    return change, Interval(low, high, CONFIDENCE)
