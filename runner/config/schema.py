"""The typed configuration: Hydra's DictConfig stops here. What each value may be is in runner.config.limits.

Hydra needs mutable dataclasses with YAML's names (it can't override frozen ones and rejects ``Literal``). They are made
from the declarations of `Cell` and of `Config` below, so that a setting is declared once; `typed` turns what Hydra
composed into the frozen `Config` that all other code sees.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from runner.config import limits, named_models, names, option_help
from runner.config.captures import CaptureConf
from runner.config.sweep_options import SweepOptions
from runner.protocol import stored
from runner.protocol.cell import ENTRIES, Cell
from runner.protocol.declaration import Declaration, declaration_of, of_sweep, yaml_name
from runner.protocol.errors import RunnerError


@dataclass
class ExpectConf:
    """A published figure to print beside ours: how much faster ``fast`` was than ``slow``."""

    source: str = MISSING  # sentence: where the figure is from
    speedup: float = MISSING
    # axes of the two cells; an empty ``fast`` is the fastest cell of the sweep
    slow: dict[str, Any] = field(default_factory=dict)
    fast: dict[str, Any] = field(default_factory=dict)


@dataclass
class SweepConf:
    """What the sweeper fills in for each job; users leave it out."""

    id: str = ""
    directory: str = ""
    command: str = ""
    cell_id: str = ""
    round: int = 0
    captures: bool = False  # whether the job takes the cell's captures and is no round


@dataclass(frozen=True, kw_only=True)
class Config(SweepOptions):
    """One composed configuration: a cell, and what holds for its whole sweep."""

    cell: Cell
    sequence_length_of_model: int | None
    """The model's own default; None for a model without sequences."""
    server_port: int | None
    """The first port of the server; None for free ones."""
    capture: CaptureConf = of_sweep(
        "What is recorded in a process of its own per cell, after the last round: [] or a list of onednn, itt, "
        "profiler, counters, toplev, inductor; see conf/capture."
    )
    expect: Sequence[ExpectConf] = of_sweep("Published speed-ups to print beside ours; see experiments/.", [])
    sweep: SweepConf


# Keys of YAML files that are no part of the cell: the model's defaults for two of its axes, and the server's port.
_OUTSIDE_CELL: Mapping[str, Mapping[str, Any]] = {
    "model": {"batch_size": int, "sequence_length": int | None},
    "scenario": {"port": int | None},
}
# The name that stands for none in a group's file.
_NONE = "none"


def sweep_settings() -> dict[str, Declaration]:
    """Name -> declaration of every option that has one value per sweep."""
    return {
        name: declaration
        for name, declaration in ((f.name, f.metadata.get("declaration")) for f in dataclasses.fields(Config))
        if declaration is not None
    }


# Options that have one value per sweep.
ONE_VALUE = (*sweep_settings(), "experiment")


def _hydra_type(hint: Any, declaration: Declaration) -> Any:
    """The type in Hydra's schema that stands for a type of the cell."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Mapping:
        if declaration.keys:
            bounds = [(key, float | None, field(default=None)) for key in declaration.keys]
            return dataclasses.make_dataclass("Known", bounds)
        return dict[arguments[0], arguments[1]]  # type: ignore[valid-type]
    return list[arguments[0]] if origin is tuple else hint  # type: ignore[valid-type]


def _hydra_field(name: str, hint: Any, source: dataclasses.Field[Any]) -> tuple[str, Any, Any]:
    """One field of Hydra's schema, made from a declared one."""
    kind = _hydra_type(hint, declaration_of(source))
    if dataclasses.is_dataclass(kind):
        return name, kind, field(default_factory=typing.cast(Any, kind))
    if source.default_factory is not dataclasses.MISSING:
        return name, kind, field(default_factory=source.default_factory)
    if isinstance(source.default, tuple):
        value = list(source.default)
        return name, kind, field(default_factory=lambda: list(value))
    return name, kind, field(default=MISSING if source.default is dataclasses.MISSING else source.default)


def _group(name: str, kind: Any) -> Any:
    """The schema of the files of one group: its name, what belongs to it, and its keys outside the cell."""
    made: list[tuple[str, Any, Any]] = [("name", str, field(default=MISSING))]
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        parts = [part for part in dataclasses.fields(kind) if part.name != "name"]
        made += [_hydra_field(yaml_name(part), hints[part.name], part) for part in parts]
    for key, hint in _OUTSIDE_CELL.get(name, {}).items():
        made.append((key, hint, field(default=None if hint == (int | None) else MISSING)))
    return dataclasses.make_dataclass(f"{name.capitalize()}Conf", made)


def schema(cell: type[Any] = Cell) -> Any:
    """Hydra's schema: every axis and setting of the cell, then what holds for the sweep."""
    made: list[tuple[str, Any, Any]] = []
    hints = typing.get_type_hints(cell)
    for axis in dataclasses.fields(cell):
        if declaration_of(axis).is_group:
            group = _group(axis.name, hints[axis.name])
            made.append((axis.name, group, field(default_factory=group)))
        else:
            made.append(_hydra_field(axis.name, hints[axis.name], axis))
    hints = typing.get_type_hints(Config)
    for setting in dataclasses.fields(Config):
        if setting.name in ("capture", "sweep"):
            made.append((setting.name, hints[setting.name], field(default_factory=hints[setting.name])))
        elif setting.name in ("baseline", "where"):
            # Not a struct: `baseline={ipex: off}` on the command line may name any axis.
            empty = field(default_factory=lambda: OmegaConf.create({}, flags={"struct": False}))
            made.append((setting.name, Any, empty))
        elif setting.name == "expect":
            made.append((setting.name, list[ExpectConf], field(default_factory=list)))
        elif setting.name in sweep_settings():
            made.append((setting.name, hints[setting.name], field(default=setting.default)))
    return dataclasses.make_dataclass("Schema", made)


@dataclass
class MatrixSweeperConf:
    """``hydra.sweeper`` in YAML: ``params`` as in Hydra's own sweeper, plus rules."""

    _target_: str = "hydra_plugins.runner_matrix.MatrixSweeper"
    # axis or setting -> one value, a list, or Hydra's comma-separated text
    params: dict[str, Any] = field(default_factory=dict)
    # mappings axis -> value or list of values: cells to leave out, cells to add
    exclude: list[Any] = field(default_factory=list)
    include: list[Any] = field(default_factory=list)


def register() -> None:
    """Make the schema known to Hydra: conf/config.yaml starts from runner_schema and names the sweeper."""
    store = ConfigStore.instance()
    store.store(name="runner_schema", node=schema())
    store.store(group="hydra/sweeper", name="matrix", node=MatrixSweeperConf, provider="runner")
    OmegaConf.register_new_resolver(
        "runner.settings_help", lambda: option_help.list_settings(ENTRIES.values()), replace=True
    )
    OmegaConf.register_new_resolver("runner.sweep_help", lambda: option_help.list_sweep_options(Config), replace=True)


def typed(composed: DictConfig) -> Config:
    """The composed configuration, checked.

    Raises:
        RunnerError: a key is unknown, or a value is missing, of the wrong type or out of range.
    """
    return typed_plain(resolved(composed))


def resolved(composed: DictConfig) -> dict[str, Any]:
    """The composed configuration as plain data, with the values of its references in their place."""
    data: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    return data  # type: ignore[no-any-return]


def written(composed: DictConfig) -> dict[str, Any]:
    """The composed configuration as plain data, with references as they stand in the files."""
    data: Any = OmegaConf.to_container(composed, resolve=False)
    return data  # type: ignore[no-any-return]


def typed_plain(data: Mapping[str, Any]) -> Config:
    """The configuration in plain data that is `resolved`, checked; the data is not changed.

    Raises:
        RunnerError: see `typed`.
    """
    groups = {group: data[group] for group in _OUTSIDE_CELL if isinstance(data.get(group), dict)}
    outside = {group: {key: part.get(key) for key in _OUTSIDE_CELL[group]} for group, part in groups.items()}
    data = {
        **data,
        **{
            group: {key: value for key, value in part.items() if key not in _OUTSIDE_CELL[group]}
            for group, part in groups.items()
        },
    }
    cell = {name: _plain(name, data.pop(name)) for name in _names_of_cell() if name in data}
    model = cell.get("model")
    if isinstance(model, dict) and isinstance(model.get("target"), str):
        cell["model"] = {**model, "target": named_models.with_whole_path(model["target"])}
    config = _checked(
        {
            **data,
            "cell": cell,
            "sequence_length_of_model": outside.get("model", {}).get("sequence_length"),
            "server_port": outside.get("scenario", {}).get("port"),
        }
    )
    names.check_values("", asdict(config))
    limits.check(config)
    return config


def _names_of_cell() -> list[str]:
    return list(dict.fromkeys(key.partition(".")[0] for key in ENTRIES))


@functools.cache
def _hints_of_cell() -> Mapping[str, Any]:
    return typing.get_type_hints(Cell)


def _plain(name: str, value: Any) -> Any:
    """A part of the cell, with its keys renamed from YAML's names to the cell's own."""
    hint = _hints_of_cell()[name]
    if not isinstance(value, dict):
        return value
    if not dataclasses.is_dataclass(hint):
        # The files of this group hold only their name.
        return value["name"] if set(value) == {"name"} else value
    own = {yaml_name(part): part for part in dataclasses.fields(hint)}
    data = {own[key].name if key in own else key: inner for key, inner in value.items()}
    if data.get("name") == _NONE and own["name"].default is None:
        data["name"] = None
    for part in own.values():
        if part.name != "name" and declaration_of(part).keys and isinstance(data.get(part.name), dict):
            data[part.name] = {key: bound for key, bound in data[part.name].items() if bound is not None}
    return data


def _checked(data: dict[str, Any]) -> Config:
    try:
        return stored.fit(Config, data)
    except stored.Unfit as unfit:
        key = unfit.where.removeprefix(".").removeprefix("cell.").replace("model.target", "model._target_")
        if unfit.reason == "is unknown":
            raise RunnerError(f"{key}: there is no such option; see python -m runner --help") from None
        raise RunnerError(f"{key}: it {unfit.reason}; see python -m runner --help") from None
