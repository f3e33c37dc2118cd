"""The settings in conf/capture/*.yaml: which captures are taken, and how much each one records. Mutable, for Hydra."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from runner.protocol.errors import RunnerError

# A recording of more iterations would not be read: see runner.protocol.stored.LIMIT_BYTES.
_MOST_ITERATIONS, _MOST = 10_000, 1e6


@dataclass
class IterationsConf:
    """How many iterations a capture in the worker's own process records."""

    iterations: int = 5
    # no further iteration begins after this many seconds
    max_s: float = 2.0


@dataclass
class OnednnCaptureConf(IterationsConf):
    """The settings of conf/capture/onednn: oneDNN's verbose log."""


@dataclass
class IttCaptureConf(IterationsConf):
    """The settings of conf/capture/itt: ITT ranges of operators and oneDNN primitives."""

    # true: a launch of its own under VTune, instead of our collector
    vtune: bool = False


@dataclass
class ProfilerCaptureConf(IterationsConf):
    """The settings of conf/capture/profiler: PyTorch's profiler."""

    # a larger trace is not kept; the tables are
    max_trace_mb: float = 20.0


@dataclass
class InductorCaptureConf(IterationsConf):
    """The settings of conf/capture/inductor: the kernels that inductor generated, by name."""


@dataclass
class CountersCaptureConf(IterationsConf):
    """The settings of conf/capture/counters: perf stat on the running worker, or getrusage where perf can't count."""

    iterations: int = 10


@dataclass
class ToplevCaptureConf:
    """The settings of conf/capture/toplev: top-down levels by pmu-tools' toplev, in a pass of its own."""

    level: int = 2
    # seconds of steady iterations: the groups of events take turns, and level 3 needs several seconds
    min_time_s: float = 5.0


@dataclass
class CaptureConf:
    """The captures to take besides the timing; null for those that are not wanted."""

    onednn: OnednnCaptureConf | None = None
    itt: IttCaptureConf | None = None
    profiler: ProfilerCaptureConf | None = None
    counters: CountersCaptureConf | None = None
    inductor: InductorCaptureConf | None = None
    toplev: ToplevCaptureConf | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the captures to take."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) is not None)


def check(captures: CaptureConf) -> None:
    """Refuse settings that are out of range.

    Raises:
        RunnerError: a setting is out of range; the message names the first one, its value and the range.
    """
    for name, settings in asdict(captures).items():
        for key, value in (settings or {}).items():
            if key == "iterations" and not 1 <= value <= _MOST_ITERATIONS:
                raise RunnerError(
                    f"capture.{name}.iterations={value}: it must be a number of iterations, 1 to {_MOST_ITERATIONS}"
                )
            if key in ("max_s", "max_trace_mb", "min_time_s") and not 0 < value <= _MOST:
                raise RunnerError(f"capture.{name}.{key}={value}: it must be a number above 0 and at most {_MOST:g}")
    if captures.toplev is not None and captures.toplev.level not in (1, 2, 3):
        raise RunnerError(f"capture.toplev.level={captures.toplev.level}: choose 1, 2 or 3")
