"""The shape of a process's samples in the order measured: warm-up, drift, modes, and how many samples they are worth.

The description has a sentence for everything that a reader should act on, and none for anything else: each check has
its own level and least size, so that independent samples of one speed get a note at most once in a hundred processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runner.stats.estimates import Floats, checked
from runner.stats.intervals import Interval
from runner.stats.modes import Mode, modes
from runner.stats.trend import Trend, autocorrelation_time, first_part_p, least_p, trend

# Fewer samples have no shape.
LEAST_SAMPLES = 20
# The chances of a false note if samples are independent.
WARM_UP_LEVEL = 0.005
DRIFT_LEVEL = 0.003
# Smaller relative changes are ones on which nobody would act.
LEAST_WARM_UP = 0.03
LEAST_DRIFT = 0.02
# Samples worth less than this share of their number get a note.
LEAST_WORTH = 0.25
# The confidence of the drift's interval.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Shape:
    """The description of one process's samples."""

    samples: int
    effective_samples: float
    """How many independent samples these are worth, with the drift taken out; at most ``samples``."""
    warm_up: float | None
    """How much slower the first tenth (at least 3 samples) is than the rest, relative and with the drift taken out;
    None under 20 samples."""
    drift: float | None
    """The relative change from the first to the last sample after that tenth (Theil-Sen); None under 20 samples, and in
    a brief description of samples without a trend."""
    drift_interval: Interval | None
    """Sen's 95 % interval of the drift, which takes autocorrelation into account; None where ``drift`` is."""
    modes: tuple[Mode, ...]
    """One or two speeds, the fastest first."""
    notes: tuple[str, ...]
    """A sentence per finding that stands out from chance and matters."""


def _ms(seconds: float) -> str:
    """Milliseconds with three digits, or with all digits before the decimal point."""
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


def describe(samples: Sequence[float], is_brief: bool = False) -> Shape:
    """Describe the samples of one process.

    The checks are made in this order, and each takes out what the earlier ones found: a trend after the first tenth
    (`trend`), a slower first part (`first_part_p`), two speeds (`modes`). This takes some milliseconds for 1 000
    samples.

    Args:
        samples: latencies in seconds, in the order measured.
        is_brief: whether the notes are all that is wanted, which takes a third of the time.

    Raises:
        ValueError: there is no sample, or one is not a finite positive number.
    """
    (latencies,) = checked([samples])
    n = len(latencies)
    if n < LEAST_SAMPLES:
        middle = Mode(1.0, float(np.median(latencies)))
        return Shape(n, n / autocorrelation_time(latencies), None, None, None, (middle,), ())
    logs = np.log(latencies)
    first = max(3, n // 10)
    tendency = None if is_brief and least_p(logs[first:]) >= DRIFT_LEVEL else trend(logs[first:], CONFIDENCE)
    drifts = False
    line: Floats = np.zeros(n)
    if tendency and tendency.p < DRIFT_LEVEL and abs(np.expm1(tendency.change)) >= LEAST_DRIFT:
        # The line passes zero in the middle of the rest, where its median is, so that taking it out moves no median.
        drifts = True
        line = np.asarray(tendency.change / (n - first - 1) * (np.arange(n) - (n + first - 1) / 2), dtype=np.float64)
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
    return Shape(n, n / time, warm_up, *_relative(tendency), speeds, tuple(notes))


def _relative(tendency: Trend | None) -> tuple[float | None, Interval | None]:
    if tendency is None:
        return None, None
    change, low, high = (float(np.expm1(value)) for value in (tendency.change, tendency.low, tendency.high))
    return change, Interval(low, high, CONFIDENCE)
