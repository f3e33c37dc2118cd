"""What conf/capture/*.yaml may say: which captures are taken, and how much of each. Mutable, for Hydra."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from runner.protocol.errors import RunnerError

# A recording of more would not be read: see runner.protocol.stored.LIMIT_BYTES.
_MOST_STEPS, _MOST = 10_000, 1e6


@dataclass
class StepsConf:
    """How many steps a capture in the worker's own process takes."""

    iterations: int = 5
    # no further step is begun after this many seconds
    max_s: float = 2.0


@dataclass
class OnednnCaptureConf(StepsConf):
    """conf/capture/onednn: oneDNN's verbose log."""


@dataclass
class IttCaptureConf(StepsConf):
    """conf/capture/itt: ITT ranges of operators and oneDNN primitives."""

    # a launch of its own under vtune instead of our collector
    vtune: bool = False


@dataclass
class ProfilerCaptureConf(StepsConf):
    """conf/capture/profiler: PyTorch's profiler."""

    # a larger trace is left out; the tables are kept
    max_trace_mb: float = 20.0


@dataclass
class CountersCaptureConf(StepsConf):
    """conf/capture/counters: perf stat on the running worker, else getrusage."""

    iterations: int = 10


@dataclass
class ToplevCaptureConf:
    """conf/capture/toplev: top-down levels by pmu-tools' toplev, in a pass of its own."""

    level: int = 2
    # of steady steps: the groups of events take turns, level 3 needs several seconds
    min_time_s: float = 5.0


@dataclass
class CaptureConf:
    """What is recorded beside the timing; null: not asked for."""

    onednn: OnednnCaptureConf | None = None
    itt: IttCaptureConf | None = None
    profiler: ProfilerCaptureConf | None = None
    counters: CountersCaptureConf | None = None
    toplev: ToplevCaptureConf | None = None

    @property
    def asked(self) -> tuple[str, ...]:
        """The captures asked for."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) is not None)


def check(captures: CaptureConf) -> None:
    """Raise RunnerError with one sentence for the first value out of range."""
    for name, settings in asdict(captures).items():
        for key, value in (settings or {}).items():
            if key == "iterations" and not 1 <= value <= _MOST_STEPS:
                raise RunnerError(f"capture.{name}.iterations={value}: it is a number of steps, 1 to {_MOST_STEPS}")
            if key in ("max_s", "max_trace_mb", "min_time_s") and not 0 < value <= _MOST:
                raise RunnerError(f"capture.{name}.{key}={value}: it must be a number above 0 and at most {_MOST:g}")
    if captures.toplev is not None and captures.toplev.level not in (1, 2, 3):
        raise RunnerError(f"capture.toplev.level={captures.toplev.level}: choose 1, 2 or 3")
