"""What a cell is: one combination of all axes, with every setting that can change its result.

This is where an axis or a setting is declared, once: see runner.protocol.declaration for what is derived from it. The
job file holds the cell itself, so the worker reads this module too: standard library only.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from runner.protocol import content_hash
from runner.protocol.declaration import ABSENT as ABSENT  # where those who read results look for it
from runner.protocol.declaration import Role, axis, detail, entries, setting
from runner.protocol.graph import Graph as Graph
from runner.protocol.precision import Precision as Precision
from runner.protocol.precision import widened
from runner.protocol.scenario import INFERENCE as INFERENCE
from runner.protocol.scenario import Load as Load
from runner.protocol.scenario import Scenario as Scenario

# The value of the axis ipex with which IPEX's runtime extension calls the model.
MULTISTREAM = "multistream"
# The torch that the runner itself is installed with.
BUNDLED = "bundled"

_FORMATS = ("channels_first", "channels_last")


@dataclass(frozen=True)
class Model:
    """The model that is run."""

    name: str
    target: str = setting(
        "A callable (batch_size, **kwargs) that returns (module, inputs): its dotted path, or FILE.py:NAME.",
        yaml="_target_",
        is_work=True,
    )
    kwargs: Mapping[str, Any] = setting("Further arguments of the model's callable.", {}, is_work=True)


@dataclass(frozen=True)
class Allocator:
    """An allocator and its settings: the two together are a value of the axis."""

    name: str
    library: str = detail(
        "The library that must own malloc.", choices=("glibc", "jemalloc", "mimalloc", "tcmalloc", "tcmalloc_minimal")
    )
    launcher_value: str = setting(
        "The allocator that the launcher is asked to preload; preload: the runner does it, for those that no launcher "
        "knows.",
        choices=("default", "jemalloc", "tcmalloc", "preload"),
    )
    env: Mapping[str, str] = setting("The environment variables that tune the allocator.", {})
    expect: Mapping[str, Any] = detail("The effective settings that must be read back from the live allocator.", {})


@dataclass(frozen=True)
class Torch:
    """The torch build that the worker runs on."""

    name: str = BUNDLED
    path: str | None = setting(
        "The Python interpreter of an environment of your own that has torch, as in /my/environment/bin/python.",
        None,
        absent="null",
    )

    def __post_init__(self) -> None:
        # In torch=bundled,own torch.path=... the path reaches both values, and is own's.
        if self.name == BUNDLED:
            object.__setattr__(self, "path", None)


@dataclass(frozen=True)
class Launcher:
    """What starts the worker."""

    name: str
    plain: bool = setting("For ipexrun: start it by its own command, which imports torch first.", False)
    task_manager: str = setting(
        "What pins the worker; auto is numactl, which binds memory too, where it works, else taskset.",
        "auto",
        choices=("auto", "numactl", "taskset"),
    )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination of all axes with every setting that can change its result.

    To add an axis or a setting, add a field here: tables, comparisons, limits, ``--help``, the job file and MLflow
    follow. Axes whose values are files also need their folder in conf/.
    """

    model: Model = axis(
        "The model that is run; torchvision:NAME, hf:NAME, timm:NAME and ./FILE.py:FUNCTION are models too.",
        is_group=True,
        is_work=True,
    )
    allocator: Allocator = axis("The allocator that serves malloc, with its settings.", is_group=True)
    ipex: str = axis(
        "Whether Intel Extension for PyTorch (IPEX) optimizes the model; multistream: and its runtime extension "
        "computes parts of the batch at the same time.",
        is_group=True,
        choices=("off", "on", MULTISTREAM),
    )
    memory_format: str = axis("The order of the dimensions of images in memory.", is_group=True, choices=_FORMATS)
    precision: Precision = axis(
        "What weights, inputs and activations are kept in.",
        is_group=True,
        choices=("fp32", "bf16", "bf16_autocast", "fp16", "int8", "int8_dynamic", "int8_weight", "int4_weight"),
    )
    graph: Graph = axis(
        "Whether operators run one by one or as a graph.",
        is_group=True,
        choices=("eager", "torchscript", "compile", "compile_freezing", "max_autotune", "aot"),
    )
    torch: Torch = axis(
        "The torch build that the worker runs on: bundled is the one that the runner is installed with.",
        Torch(),
        is_group=True,
    )
    scenario: Scenario = axis(
        "What calls the model: a loop in its own process, or clients through a server.",
        Scenario(),
        is_group=True,
        choices=(INFERENCE, "torchserve"),
        is_work=True,
    )
    load: Load = axis(
        "What sends the requests to a server.", Load(), is_group=True, choices=("ab", "h2load"), is_work=True
    )
    launcher: Launcher = axis("What starts the worker.", is_group=True, choices=("ipexrun", "xeon", "none"))
    openmp: str = axis(
        "The OpenMP runtime: default is torch's own (libgomp), intel is libiomp5.",
        "default",
        choices=("default", "intel"),
    )
    batch_size: int = axis(
        "Samples per iteration; each model has its own default.", least=1, unit="samples per iteration", is_work=True
    )
    sequence_length: int | None = axis(
        "Tokens per sample, for models that have sequences.",
        absent="none",
        least=1,
        unit="tokens per sample",
        is_work=True,
    )
    instances: int = axis(
        "Processes that run the model at the same time, each on cores of its own.",
        1,
        least=1,
        unit="processes that run the model at the same time",
        is_work=True,
    )
    cores_per_instance: int | None = axis(
        "Physical cores of each instance; null: cores / instances.",
        None,
        absent="equal",
        least=1,
        unit="physical cores",
    )
    cores: int | None = axis(
        "Physical cores; null: all of the node that the caller may use.",
        None,
        absent="all",
        least=1,
        unit="physical cores",
    )
    threads: int | None = axis(
        "OpenMP threads of an instance; null: one per core.", None, absent="cores", least=1, unit="OpenMP threads"
    )
    node: int | None = axis(
        "The NUMA node of cores and memory; null: the first that the caller may use.",
        None,
        absent="first",
        least=0,
        unit="the number of a NUMA node",
    )
    twin: str | None = axis(
        "A second name for a cell, so that it can be run against itself, as in twin=a,b; nothing else changes.",
        None,
    )
    host: str | None = axis(
        "The name of the host that measures it, which fleet fills in; on one machine it means nothing.", None
    )
    streams: int | None = setting(
        "For ipex=multistream: the parts of the batch that are computed at the same time, each on cores of its own; "
        "null: one per core of an instance.",
        None,
        owner="ipex",
        absent="null",
        least=2,
        unit="parts of the batch that are computed at the same time",
    )
    warmup: int = setting(
        "Untimed iterations before the timed ones; at least 2, in which TorchScript, torch.compile and IPEX prepare "
        "themselves, and one per input set are run.",
        3,
        absent="null",
        least=0,
        unit="untimed iterations",
    )
    inputs: int = setting(
        "Input sets that the iterations take in turn, drawn from different seeds, each proved against its own "
        "reference; behind a server there is always one.",
        2,
        least=1,
        most=1000,
        unit="input sets",
        is_work=True,
    )
    cache: str = setting(
        "What the CPU's caches hold before a timed iteration: warm is what the iteration before left; cold is nothing "
        "of use, because they are overwritten. Behind a server they are always warm.",
        "warm",
        choices=("warm", "cold"),
        is_work=True,
    )
    fp32_math: str = setting(
        "What may be done to float32 inside products and convolutions: highest is nothing less than float32; bf16 lets "
        "oneDNN round their inputs to bfloat16.",
        "highest",
        choices=("highest", "bf16"),
    )
    iterations: int | None = setting(
        "Timed iterations per process; null: until its median is known well enough.",
        None,
        absent="null",
        least=1,
        unit="timed iterations",
        is_measuring=True,
    )
    min_time_s: float | None = setting(
        "Seconds that the timed loop lasts at least.", 3.0, absent="null", above=0, unit="seconds", is_measuring=True
    )
    max_time_s: float | None = setting(
        "Seconds after which no iteration is begun; never fewer than 6 iterations.",
        10.0,
        absent="null",
        above=0,
        unit="seconds",
        is_measuring=True,
    )
    target_ci_pct: float | None = setting(
        "The timed loop ends between the two when the 95 % interval of its median is this narrow, in percent of the "
        "median; null: at max_time_s.",
        1.0,
        absent="null",
        above=0,
        unit="percent of the median",
        is_measuring=True,
    )
    seed: int = setting("The seed of weights, inputs and the order of jobs.", 0, least=0, unit="a seed")

    def __post_init__(self) -> None:
        # In ipex=on,multistream streams=2 the number reaches both values, and is multistream's.
        if not self.has_streams:
            object.__setattr__(self, "streams", None)

    @property
    def uses_ipex(self) -> bool:
        """Whether IPEX is imported and optimizes the model, in whichever way it is called then."""
        return self.ipex != "off"

    @property
    def has_streams(self) -> bool:
        """Whether IPEX's runtime extension calls the model, on parts of the batch at the same time."""
        return self.ipex == MULTISTREAM

    def streams_on(self, cores: int) -> int:
        """The number of streams that an instance with so many cores has; 1 where the whole batch is one call."""
        if not self.has_streams:
            return 1
        return cores if self.streams is None else self.streams

    @property
    def axes(self) -> dict[str, str]:
        """Axis -> value, as text: what exclude rules match, MLflow shows as params and tables as columns."""
        return {entry.key: entry.text(self) for entry in entries(type(self)) if entry.declaration.role is Role.AXIS}

    @property
    def settings(self) -> dict[str, str]:
        """Setting -> value, as text: tags in MLflow, and columns where they vary and no axis explains them."""
        return {entry.key: entry.text(self) for entry in entries(type(self)) if entry.declaration.role is Role.SETTING}

    @property
    def labels(self) -> dict[str, str]:
        """Axes and settings: everything a table may have a column for."""
        return {**self.axes, **self.settings}

    @property
    def tolerance(self) -> Mapping[str, float]:
        """The precision's tolerance, widened to that of bfloat16 where float32 may be rounded to it."""
        return self.precision.tolerance if self.fp32_math == "highest" else widened(self.precision.tolerance)

    @functools.cached_property
    def key(self) -> str:
        """Content address of what was asked for: equal for equal cells on any machine and in any order of keys.

        Results are filed under the ``cell_id`` of runner.sweep.identity, which also has what they ran with.
        """
        parts = asdict(self)
        # These axes and settings are younger than results that stand.
        if self.torch == Torch():
            del parts["torch"]
        if self.host is None:
            del parts["host"]
        if self.graph.compile_cache == "cold":
            del parts["graph"]["compile_cache"]
        if self.fp32_math == "highest":
            del parts["fp32_math"]
        if self.streams is None:
            del parts["streams"]
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
        return content_hash.short(text.encode())


# Derived from the declarations above; nothing else lists axes or settings.
ENTRIES = {entry.key: entry for entry in entries(Cell)}
AXES = tuple(key for key, entry in ENTRIES.items() if entry.declaration.role is Role.AXIS)
# The axes that say what was worked on, and in which numbers: every table, picture and report repeats them.
WORKED_ON = ("model", "batch_size", "sequence_length", "precision")
SETTINGS = tuple(key for key, entry in ENTRIES.items() if entry.declaration.role is Role.SETTING)
# The axes that name a cell when no axis distinguishes it: those that change how the model is run.
MAIN_AXES = tuple(
    key for key in AXES if ENTRIES[key].declaration.is_group and key not in ("torch", "scenario", "load", "launcher")
)
# What an iteration computes: latencies of different work have no ratio.
WORK = tuple(key for key, entry in ENTRIES.items() if entry.declaration.is_work)


# The libraries whose models have a name in one word.
LIBRARIES = ("torchvision", "transformers", "timm")


def target_of(library: str) -> str:
    """The callable that builds any model of a library."""
    return f"runner.worker.{library}_models.build"


def owner_of(setting_name: str) -> str | None:
    """The axis that a setting belongs to, and whose value may set it; None for a setting of no axis.

    ``allocator.env`` belongs to ``allocator``, and what ends the timed loop to ``scenario``: behind a server there is
    no such loop.
    """
    axis_name, dot, _ = setting_name.partition(".")
    if dot:
        return axis_name
    entry = ENTRIES.get(setting_name)
    if entry is None:
        return None
    return "scenario" if entry.declaration.is_measuring else entry.owner or None


def in_words(labels: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """The values of axes and settings in words, without those that the model has not (a sequence's length)."""
    return [worded(name, labels[name]) for name in names if labels[name] != "none"]


def worded(axis_name: str, value: str) -> str:
    """A value as text, with its axis before it where the value alone means nothing (on, 2, 2.14.1) or is another's."""
    is_named = value in ("on", "off") or value[:1].isdigit() or axis_name == "fp32_math"
    return f"{axis_name}={value}" if is_named else value
