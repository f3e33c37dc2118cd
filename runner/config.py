"""The typed schema of the YAML, and its checks. Hydra's DictConfig stops here.

The classes are mutable dataclasses with Enums because Hydra can't override frozen ones and rejects
``Literal``; ``cell_of()`` turns them into the frozen cell of ``runner.matrix``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from runner.errors import RunnerError
from runner.matrix import Allocator, Cell, Launcher, Model


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
    parent_run: str = ""
    command: str = ""
    cell_id: str = ""
    round: int = 0


@dataclass
class Config:
    """Root of the configuration; conf/config.yaml says what each setting means."""

    model: ModelConf = field(default_factory=ModelConf)
    allocator: AllocatorConf = field(default_factory=AllocatorConf)
    ipex: IpexConf = field(default_factory=IpexConf)
    launcher: LauncherConf = field(default_factory=LauncherConf)
    batch_size: int = MISSING
    warmup: int = MISSING
    iterations: int | None = None
    min_time_s: float = MISSING
    cores: int | None = None
    threads: int | None = None
    node: int | None = None
    openmp: OpenMP = MISSING
    seed: int = MISSING
    timeout_s: float = MISSING
    rounds: int = MISSING
    # Not a struct: `baseline={ipex: off}` on the command line may name any axis.
    baseline: Any = field(default_factory=lambda: OmegaConf.create({}, flags={"struct": False}))
    mlruns: str = MISSING
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


# setting -> (lowest value allowed, what it counts)
_AT_LEAST: dict[str, tuple[float, str]] = {
    "batch_size": (1, "samples an iteration"),
    "warmup": (0, "untimed iterations"),
    "iterations": (1, "timed iterations"),
    "cores": (1, "physical cores"),
    "threads": (1, "OpenMP threads"),
    "node": (0, "a NUMA node's number"),
    "seed": (0, "a seed"),
    "rounds": (1, "processes a cell"),
}
_MORE_THAN_ZERO = {"min_time_s": "seconds", "timeout_s": "seconds"}


def check(config: Config) -> None:
    """Raise RunnerError with one sentence for the first value out of range."""
    for name, (lowest, meaning) in _AT_LEAST.items():
        value = getattr(config, name)
        if value is not None and value < lowest:
            raise RunnerError(f"{name}={value}: {name} is {meaning} and must be at least {lowest:g}")
    for name, meaning in _MORE_THAN_ZERO.items():
        value = getattr(config, name)
        # Written so that nan, which compares false with everything, is refused as well.
        if not (0 < value < float("inf")):
            raise RunnerError(f"{name}={value}: {name} is in {meaning} and must be a finite number above 0")
    if "." not in config.model._target_:
        raise RunnerError(
            f"model._target_={config.model._target_}: it must be the dotted path of a callable, "
            "like my_package.my_model"
        )


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
    check(value)
    return value


def cell_of(config: Config) -> Cell:
    """The frozen cell: every axis and setting that can change the result, and nothing else."""
    return Cell(
        model=Model(config.model.name, config.model._target_, dict(config.model.kwargs)),
        allocator=Allocator(
            config.allocator.name,
            config.allocator.library.value,
            config.allocator.launcher_value.value,
            dict(config.allocator.env),
            dict(config.allocator.expect),
        ),
        ipex=config.ipex.name.value,
        launcher=Launcher(config.launcher.name.value, config.launcher.plain, config.launcher.task_manager.value),
        batch_size=config.batch_size,
        cores=config.cores,
        threads=config.threads,
        node=config.node,
        openmp=config.openmp.value,
        warmup=config.warmup,
        iterations=config.iterations,
        min_time_s=config.min_time_s,
        seed=config.seed,
    )
