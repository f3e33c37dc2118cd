"""The typed schema of the YAML. Hydra's DictConfig stops here; what each value may be is in runner.config.limits.

The classes are mutable dataclasses with Enums because Hydra can't override frozen ones and rejects
``Literal``; ``cell_of()`` turns them into the frozen cell of ``runner.matrix.cell``.
"""

from __future__ import annotations

import functools
import types
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from runner.config import limits, names, serving
from runner.config.captures import CaptureConf
from runner.matrix.cell import Allocator, Cell, Graph, Launcher, Model, Precision
from runner.protocol.errors import RunnerError


class Library(Enum):
    """Whose ``malloc`` the process must end up with."""

    glibc = "glibc"
    jemalloc = "jemalloc"
    tcmalloc = "tcmalloc"


class LauncherAllocator(Enum):
    """What the launcher is asked to preload."""

    default = "default"
    jemalloc = "jemalloc"
    tcmalloc = "tcmalloc"


class Switch(Enum):
    """Off or on; written without quotes in YAML."""

    off = "off"
    on = "on"


class PrecisionName(Enum):
    """What weights, inputs and activations are kept in."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
    int8 = "int8"


class MemoryFormat(Enum):
    """Order of the dimensions of images in memory."""

    channels_first = "channels_first"
    channels_last = "channels_last"


class GraphMode(Enum):
    """Whether operators run one by one or as a graph."""

    eager = "eager"
    torchscript = "torchscript"
    compile = "compile"


class LauncherKind(Enum):
    """What starts the worker."""

    ipexrun = "ipexrun"
    xeon = "xeon"
    none = "none"


class TaskManager(Enum):
    """What pins the worker: numactl also binds memory; auto takes it where it works, else taskset."""

    auto = "auto"
    numactl = "numactl"
    taskset = "taskset"


class OpenMP(Enum):
    """OpenMP runtime: ``default`` is the one torch ships (libgomp), ``intel`` is libiomp5."""

    default = "default"
    intel = "intel"


@dataclass
class ModelConf:
    """conf/model: ``_target_`` is called with batch_size and kwargs and returns (module, inputs)."""

    name: str = MISSING
    _target_: str = MISSING
    batch_size: int = MISSING
    # null: the model has no sequences; else the default of sequence_length, which is handed to the callable
    sequence_length: int | None = None
    memory_formats: list[MemoryFormat] = field(default_factory=lambda: list(MemoryFormat))
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass
class AllocatorConf:
    """conf/allocator: a library with its settings (env) and what must be read back from it (expect)."""

    name: str = MISSING
    library: Library = MISSING
    launcher_value: LauncherAllocator = MISSING
    env: dict[str, str] = field(default_factory=dict)
    expect: dict[str, Any] = field(default_factory=dict)


@dataclass
class IpexConf:
    """conf/ipex."""

    name: Switch = MISSING


@dataclass
class ToleranceConf:
    """Against the fp32 eager reference; null: not looked at."""

    rel_l2: float | None = None
    cosine: float | None = None
    top1_match_pct: float | None = None
    max_abs_err: float | None = None
    # below this relative L2 error the precision can't have run
    least_rel_l2: float | None = None


@dataclass
class PrecisionConf:
    """conf/precision."""

    name: PrecisionName = MISSING
    calibration_batches: int = 1
    tolerance: ToleranceConf = field(default_factory=ToleranceConf)


@dataclass
class MemoryFormatConf:
    """conf/memory_format."""

    name: MemoryFormat = MISSING


@dataclass
class GraphConf:
    """conf/graph."""

    name: GraphMode = MISSING
    fullgraph: bool = True


@dataclass
class ExpectConf:
    """A published figure to print beside ours: how much faster ``fast`` was than ``slow``."""

    source: str = MISSING  # sentence: where the figure is from
    speedup: float = MISSING
    # axes of the two cells; an empty ``fast`` is the fastest cell of the sweep
    slow: dict[str, Any] = field(default_factory=dict)
    fast: dict[str, Any] = field(default_factory=dict)


@dataclass
class LauncherConf:
    """conf/launcher."""

    name: LauncherKind = MISSING
    plain: bool = False
    task_manager: TaskManager = TaskManager.auto


@dataclass
class SweepConf:
    """Filled in by the sweeper for each job; not for people."""

    id: str = ""
    directory: str = ""
    command: str = ""
    cell_id: str = ""
    round: int = 0


@dataclass
class Config:
    """Root of the configuration; conf/config.yaml says what each setting means."""

    model: ModelConf = field(default_factory=ModelConf)
    allocator: AllocatorConf = field(default_factory=AllocatorConf)
    ipex: IpexConf = field(default_factory=IpexConf)
    memory_format: MemoryFormatConf = field(default_factory=MemoryFormatConf)
    precision: PrecisionConf = field(default_factory=PrecisionConf)
    graph: GraphConf = field(default_factory=GraphConf)
    launcher: LauncherConf = field(default_factory=LauncherConf)
    capture: CaptureConf = field(default_factory=CaptureConf)
    scenario: serving.ScenarioConf = field(default_factory=serving.ScenarioConf)
    load: serving.LoadConf = field(default_factory=serving.LoadConf)
    batch_size: int = MISSING
    sequence_length: int | None = None
    instances: int = 1
    cores_per_instance: int | None = None
    warmup: int = MISSING
    iterations: int | None = None
    min_time_s: float | None = MISSING
    max_time_s: float | None = MISSING
    target_ci_pct: float | None = None
    cores: int | None = None
    threads: int | None = None
    node: int | None = None
    openmp: OpenMP = MISSING
    seed: int = MISSING
    twin: str | None = None
    timeout_s: float = MISSING
    # a number, or limits.AUTO
    rounds: int | str = MISSING
    budget_min: float = MISSING
    smallest_pct: float = MISSING
    reruns: int = MISSING
    wait: bool = MISSING
    resume: bool = False
    retries: int = MISSING
    # Not a struct: `baseline={ipex: off}` on the command line may name any axis.
    baseline: Any = field(default_factory=lambda: OmegaConf.create({}, flags={"struct": False}))
    expect: list[ExpectConf] = field(default_factory=list)
    mlruns: str = MISSING
    tracking_uri: str | None = None
    sweep: SweepConf = field(default_factory=SweepConf)


@dataclass
class MatrixSweeperConf:
    """``hydra.sweeper`` in YAML: ``params`` as in Hydra's own sweeper, plus rules."""

    _target_: str = "hydra_plugins.runner_matrix.MatrixSweeper"
    # axis or setting -> one value, a list, or Hydra's comma-separated text
    params: dict[str, Any] = field(default_factory=dict)
    # mappings axis -> value or list of values: cells to leave out, cells to add
    exclude: list[Any] = field(default_factory=list)
    include: list[Any] = field(default_factory=list)
    # jobs handed to the Hydra launcher at a time; null: 1 for the basic launcher, all for others
    max_batch_size: int | None = None


def register() -> None:
    """Make the schema known to Hydra: conf/config.yaml starts from runner_schema and names the sweeper."""
    store = ConfigStore.instance()
    store.store(name="runner_schema", node=Config)
    store.store(group="hydra/sweeper", name="matrix", node=MatrixSweeperConf, provider="runner")


def _unknown(config: DictConfig, schema: Any) -> str | None:
    """The first key that the schema lacks: `+itertions=5` adds one, and it would be ignored."""
    known = {f.name: f for f in fields(schema)}
    for key in config:
        if key not in known:
            return str(key)
        child = known[str(key)].default_factory
        node = OmegaConf.to_container(config, resolve=False, throw_on_missing=False)
        if is_dataclass(child) and isinstance(node, dict) and isinstance(node.get(key), dict):
            found = _unknown(config[key], child)
            if found:
                return f"{key}.{found}"
    return None


_hints = functools.cache(typing.get_type_hints)


def _fits(value: object, kind: Any) -> bool:
    """Whether a value has its field's type: OmegaConf does not look at what an interpolation brings."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if is_dataclass(kind):
        named = _hints(typing.cast(type, kind)).items()
        return isinstance(value, typing.cast(type, kind)) and all(_fits(getattr(value, n), hint) for n, hint in named)
    if origin is list:
        return isinstance(value, list) and all(_fits(one, arguments[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict)
    return isinstance(value, kind) or (kind is float and isinstance(value, int))


def typed(config: DictConfig) -> Config:
    """The composed configuration as checked dataclasses.

    Raises:
        RunnerError: a value is missing, of the wrong type or out of range.
    """
    extra = _unknown(config, Config)
    if extra:
        raise RunnerError(f"{extra}: there is no such option; see python -m runner --cfg job")
    value = OmegaConf.to_object(config)
    if not isinstance(value, Config):
        raise RunnerError("the configuration does not start from runner_schema: conf/config.yaml must list it first")
    for name, kind in _hints(Config).items():
        found = getattr(value, name)
        if not _fits(found, kind):
            raise RunnerError(f"{name}: {str(found)[:200]} is not what belongs there; see python -m runner --cfg job")
    names.check_values("", asdict(value))
    limits.check(value)
    return value


def cell_of(config: Config) -> Cell:
    """The frozen cell: every axis and setting that can change the result, and nothing else."""
    tolerance = {f.name: getattr(config.precision.tolerance, f.name) for f in fields(ToleranceConf)}
    return Cell(
        model=Model(
            config.model.name,
            config.model._target_,
            dict(config.model.kwargs),
            tuple(form.value for form in config.model.memory_formats),
        ),
        allocator=Allocator(
            config.allocator.name,
            config.allocator.library.value,
            config.allocator.launcher_value.value,
            dict(config.allocator.env),
            dict(config.allocator.expect),
        ),
        ipex=config.ipex.name.value,
        memory_format=config.memory_format.name.value,
        precision=Precision(
            config.precision.name.value,
            {name: value for name, value in tolerance.items() if value is not None},
            config.precision.calibration_batches,
        ),
        graph=Graph(config.graph.name.value, config.graph.fullgraph),
        launcher=Launcher(config.launcher.name.value, config.launcher.plain, config.launcher.task_manager.value),
        batch_size=config.batch_size,
        sequence_length=config.sequence_length,
        instances=config.instances,
        cores_per_instance=config.cores_per_instance,
        cores=config.cores,
        threads=config.threads,
        node=config.node,
        openmp=config.openmp.value,
        warmup=config.warmup,
        iterations=config.iterations,
        min_time_s=config.min_time_s,
        max_time_s=config.max_time_s,
        target_ci_pct=config.target_ci_pct,
        seed=config.seed,
        twin=config.twin,
        scenario=serving.scenario_of(config.scenario),
        load=serving.load_of(config.load),
    )
