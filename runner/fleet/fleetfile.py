"""What a fleet is: the file of the user's that names its hosts, and the record of the sweeps that were submitted.

The first is ``conf/fleet/NAME.yaml``, or ``fleet/NAME.yaml`` in a folder of the user's own; the second is
``mlruns/fleets/ID/fleet.json``, from which every later command knows all that it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import yaml

from runner.config import choices, names, yaml_guard
from runner.machine.installation import search_path
from runner.protocol import stored
from runner.protocol.errors import RunnerError
from runner.protocol.stored import Range, Unfit, write_json
from runner.results.planfile import Price

GROUP = "fleet"
FOLDER, FLEET_FILE = "fleets", "fleet.json"
# History: 1 = first version.
FORMAT = 1


@dataclass(frozen=True)
class HostConf:
    """One host name of a fleet: a kind of machine, and how the engine finds one."""

    sbatch: Sequence[str] = ()
    """For Slurm: options of sbatch, like ``--constraint=icelake``."""
    ray: Mapping[str, Annotated[float, Range(0)]] = field(default_factory=dict)
    """For Ray: the resources that its node has, like ``{icelake: 1}``."""
    usd_per_hour: Price | None = None
    """What one such machine costs."""
    machines: Annotated[int, Range(1, 100)] = 1
    """How many machines measure: each is a replicate of its kind."""
    python: str = ""
    """The Python interpreter there that has runner; empty for the one of this process."""


@dataclass(frozen=True)
class FleetConf:
    """The content of a fleet's file."""

    engine: str
    """What places the sweeps: see runner.fleet.engines."""
    hosts: Mapping[str, HostConf]
    """Host name -> how to get one; the names are the values of the axis ``host``."""
    address: str = ""
    """For Ray: the http:// address of its job server."""
    directory: str = ""
    """The folder in which sweeps start there; empty for this one, on a shared file system."""
    mlruns: str = ""
    """The folder of results there, where hosts share none with this machine; what comes home, comes by the server."""


@dataclass(frozen=True)
class Placed:
    """One sweep of a fleet, as it was submitted."""

    host: str
    machine: int
    """Which machine of its host name, counted from 1."""
    sweep_id: str
    command: Sequence[str]
    """The program and its arguments."""
    options: Sequence[str]
    """What the engine was told besides."""
    resources: Mapping[str, float]
    log: str
    """The file to which it prints."""
    job: str = ""
    """The engine's own name for it; empty until it is submitted."""
    submissions: int = 0
    """How often it was submitted."""


@dataclass(frozen=True)
class Fleet:
    """fleet.json: what was submitted, and to whom."""

    fleet_id: str
    engine: str
    address: str
    directory: str
    """The folder in which the sweeps start."""
    tracking_uri: str
    """The MLflow server that they record in; empty for the database in their folder of results."""
    is_shared: bool
    """Whether they leave their results in this folder; otherwise these are pulled from the server."""
    sweeps: Sequence[Placed]
    format: int = FORMAT


def read_conf(name: str) -> FleetConf:
    """The fleet of that name.

    Raises:
        RunnerError: there is none, or its file can't be read or says something unknown.
    """
    files = choices.files_of(GROUP, search_path())
    if name not in files:
        raise RunnerError(
            f"fleet={name}: there is no such fleet; choose one of {', '.join(files)}, or name your hosts in "
            "experiments/fleet/NAME.yaml (see docs/fleet.md)"
        )
    file = files[name]
    try:
        text = stored.read_text(file, yaml_guard.MOST_BYTES)
        document = yaml.compose(text, yaml.SafeLoader)
        if document is not None:
            yaml_guard.check(document)
        conf = stored.fit(FleetConf, yaml.safe_load(text))
    except Unfit as unfit:
        raise RunnerError(f"fleet={name}: {file}: {unfit}; see docs/fleet.md") from None
    except (yaml.YAMLError, RunnerError) as error:
        raise RunnerError(f"fleet={name}: {file} can't be read: {' '.join(str(error).split())}") from error
    if not conf.hosts:
        raise RunnerError(f"fleet={name}: {file} names no host")
    for host in conf.hosts:
        names.check_name("host", host)
    return conf


def folder_of(mlruns: Path, fleet_id: str) -> Path:
    """Where the record and the logs of a fleet are."""
    return mlruns / FOLDER / fleet_id


def write(fleet: Fleet, mlruns: Path) -> None:
    """Leave fleet.json, whole or not at all."""
    folder = folder_of(mlruns, fleet.fleet_id)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FLEET_FILE, fleet)


def find(name: str | None, mlruns: Path) -> Fleet:
    """The fleet that a name or its beginning means; without one the newest.

    Raises:
        RunnerError: there is none, or the name means several.
    """
    files = sorted((mlruns / FOLDER).glob(f"*/{FLEET_FILE}"))
    if not files:
        raise RunnerError(f"mlruns={mlruns}: no fleet was submitted from here; see python -m runner fleet --help")
    fitting = [file for file in files if file.parent.name.startswith(name)] if name else files[-1:]
    if len(fitting) != 1:
        newest = ", ".join(file.parent.name for file in reversed(files[-5:]))
        problem = "means several fleets" if fitting else "there is no such fleet"
        raise RunnerError(f"{name}: {problem}; the newest are {newest}")
    return stored.read(Fleet, fitting[0], FORMAT)
