"""What a cell is: one combination of all axes, with every setting that can change its result. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# What the value of an axis or setting is called where there is none, as in results from before there was such an axis.
ABSENT = "-"


@dataclass(frozen=True)
class Model:
    """What is run: ``target`` is the dotted path of a callable that returns (module, inputs)."""

    name: str
    target: str
    kwargs: Mapping[str, Any]
    memory_formats: tuple[str, ...] = ("channels_first", "channels_last")
    """Which of them mean something to it: a model without 4-d tensors has the first only."""


@dataclass(frozen=True)
class Allocator:
    """Whose malloc, and with which settings: both are the axis."""

    name: str
    library: str
    """``glibc``, ``jemalloc`` or ``tcmalloc``: the library that must own malloc."""
    launcher_value: str
    """What the launcher is asked for (``default``, ``jemalloc``, ``tcmalloc``)."""
    env: Mapping[str, str]
    expect: Mapping[str, Any]
    """Effective settings, as evidence keys, that must be read back from the live allocator."""


@dataclass(frozen=True)
class Precision:
    """What the arithmetic is done in, and how far its results may be from fp32's."""

    name: str
    tolerance: Mapping[str, float]
    calibration_batches: int = 1


@dataclass(frozen=True)
class Graph:
    """Whether operators run one by one or as a graph."""

    name: str
    fullgraph: bool = True


@dataclass(frozen=True)
class Launcher:
    """What starts the worker."""

    name: str
    plain: bool
    task_manager: str


INFERENCE = "inference"


@dataclass(frozen=True)
class Scenario:
    """What calls the model: a loop in its own process (INFERENCE), or clients through a server of that name."""

    name: str = INFERENCE
    requests: int | None = None
    """Requests of the measured load; None in INFERENCE, as the others."""
    concurrency: int | None = None
    """Clients that wait for an answer each, in a closed loop and in the warm-up."""
    max_batch_delay_ms: int | None = None
    """How long the server waits for a batch to fill."""

    @property
    def is_served(self) -> bool:
        """Whether the model is behind a server."""
        return self.name != INFERENCE


@dataclass(frozen=True)
class Load:
    """What sends the requests; a rate or a limit of p99 is for open loops only, and one of the two is None."""

    name: str | None = None
    rate_per_s: float | None = None
    p99_limit_ms: float | None = None


# What an axis is called in `Cell.axes` when its setting is null.
AUTOMATIC = {
    "load": ABSENT,
    "cores": "all",
    "threads": "cores",
    "node": "first",
    "sequence_length": "none",
    "cores_per_instance": "equal",
    "twin": ABSENT,
}


@dataclass(frozen=True)
class Cell:
    """One combination of all axes with every setting that can change its result."""

    model: Model
    allocator: Allocator
    ipex: str
    memory_format: str
    precision: Precision
    graph: Graph
    launcher: Launcher
    batch_size: int
    sequence_length: int | None
    instances: int
    cores_per_instance: int | None
    cores: int | None
    threads: int | None
    node: int | None
    openmp: str
    warmup: int
    iterations: int | None
    min_time_s: float | None
    max_time_s: float | None
    target_ci_pct: float | None
    seed: int
    twin: str | None = None
    """A second name, so that a cell can be run against itself; changes nothing of what is measured."""
    scenario: Scenario = Scenario()
    load: Load = Load()

    @property
    def axes(self) -> dict[str, str]:
        """Axis -> value, as text: what exclude rules match, MLflow shows as params and tables as columns."""
        values: dict[str, object] = {
            "model": self.model.name,
            "allocator": self.allocator.name,
            "ipex": self.ipex,
            "memory_format": self.memory_format,
            "precision": self.precision.name,
            "graph": self.graph.name,
            "scenario": self.scenario.name,
            "load": self.load.name,
            "launcher": self.launcher.name,
            "openmp": self.openmp,
            "batch_size": self.batch_size,
            "sequence_length": self.sequence_length,
            "instances": self.instances,
            "cores_per_instance": self.cores_per_instance,
            "cores": self.cores,
            "threads": self.threads,
            "node": self.node,
            "twin": self.twin,
        }
        return {axis: AUTOMATIC[axis] if value is None else str(value) for axis, value in values.items()}

    @property
    def settings(self) -> dict[str, str]:
        """What else tells cells apart, as text: columns of a table when it varies, tags in MLflow."""
        return {
            "model._target_": self.model.target,
            "model.kwargs": json.dumps(dict(self.model.kwargs), sort_keys=True, default=str),
            "allocator.env": " ".join(f"{name}={value}" for name, value in sorted(self.allocator.env.items())),
            "allocator.launcher_value": self.allocator.launcher_value,
            "precision.calibration_batches": str(self.precision.calibration_batches),
            "precision.tolerance": json.dumps(dict(self.precision.tolerance), sort_keys=True),
            "graph.fullgraph": str(self.graph.fullgraph).lower(),
            "launcher.plain": str(self.launcher.plain).lower(),
            "launcher.task_manager": self.launcher.task_manager,
            "warmup": str(self.warmup),
            "iterations": "null" if self.iterations is None else str(self.iterations),
            "min_time_s": "null" if self.min_time_s is None else f"{self.min_time_s:g}",
            "max_time_s": "null" if self.max_time_s is None else f"{self.max_time_s:g}",
            "target_ci_pct": "null" if self.target_ci_pct is None else f"{self.target_ci_pct:g}",
            "seed": str(self.seed),
            **{
                name: ABSENT if value is None else f"{value:g}"
                for name, value in (
                    ("scenario.requests", self.scenario.requests),
                    ("scenario.concurrency", self.scenario.concurrency),
                    ("scenario.max_batch_delay_ms", self.scenario.max_batch_delay_ms),
                    ("load.rate_per_s", self.load.rate_per_s),
                    ("load.p99_limit_ms", self.load.p99_limit_ms),
                )
            },
        }

    @property
    def labels(self) -> dict[str, str]:
        """Axes and settings: everything a table may have a column for."""
        return {**self.axes, **self.settings}

    @property
    def key(self) -> str:
        """Content address of what was asked for: equal for equal cells on any machine and in any order of keys.

        Results are filed under the ``cell_id`` of runner.sweep.identity, which also has what they ran with.
        """
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


AXES = (
    "model", "allocator", "ipex", "memory_format", "precision", "graph", "scenario", "load", "launcher", "openmp",
    "batch_size", "sequence_length", "instances", "cores_per_instance", "cores", "threads", "node",
    "twin",
)  # fmt: skip


def worded(axis: str, value: str) -> str:
    """A value; with its axis where it says nothing by itself (on, 2)."""
    return f"{axis}={value}" if value in ("on", "off") or value.isdigit() else value
