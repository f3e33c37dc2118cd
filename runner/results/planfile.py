"""plan.json and host.json of a sweep, as their readers need them: every missing entry has a default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from runner.protocol import stored
from runner.protocol.stored import Range

PLAN_FILE, HOST_FILE = "plan.json", "host.json"

# The chance of a false alarm that a comparison allows.
Level = Annotated[float, Range(1e-9, 0.5)]
# USD per hour of a host.
Price = Annotated[float, Range(1e-9, 1e9)]


@dataclass(frozen=True)
class StoredCell:
    """A cell that was planned to run."""

    cell_id: str
    axes: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    """The command line that runs this cell alone."""


@dataclass(frozen=True)
class Excluded:
    """A cell that was not to run, with the reason."""

    axes: Mapping[str, str]
    reason: str


@dataclass(frozen=True)
class StoredPlan:
    """The entries of plan.json that are read."""

    sweep_id: str = ""
    seed: int | None = None
    level: Level | None = None
    """The level of each comparison, see runner.sweep.rounds.level_of(); None in older files."""
    usd_per_hour: Price | None = None
    """What the host costs; None where nobody said so."""
    cells: Sequence[StoredCell] = ()
    order: Sequence[Any] = ()
    """One entry per job."""
    excluded: Sequence[Excluded] = ()


@dataclass(frozen=True)
class Host:
    """The entries of host.json that are read; None for what the machine does not tell."""

    host_id: str = "unknown"
    cpu_model: str | None = None
    cpus: Sequence[Any] = ()
    """One entry per logical CPU of the machine: its number, core, socket and node."""
    cpus_allowed: str | None = None
    isa: Sequence[str] = ()
    memory_gib: int | None = None
    hypervisor: bool | None = None
    governor: str | None = None
    transparent_hugepages: str | None = None
    numa_balancing: str | None = None
    kernel: str | None = None
    libc: str | None = None
    python: str | None = None
    versions: Mapping[str, str | None] = field(default_factory=dict)
    inherited: Mapping[str, str] = field(default_factory=dict)
    """What the sweep inherited from its caller that an ordinary process has not: see runner.protocol.inherited."""


def read_plan(sweep: Path) -> StoredPlan:
    """Read the sweep's plan; it is empty if the sweep ended before it was written.

    Raises:
        FormatError: the file can't be read.
    """
    file = sweep / PLAN_FILE
    return stored.part(StoredPlan, file) if file.exists() else StoredPlan()


def read_host(sweep: Path) -> Host:
    """Read the facts of the machine that the sweep ran on; they are unknown if the file is missing.

    Raises:
        FormatError: the file can't be read.
    """
    file = sweep / HOST_FILE
    return stored.part(Host, file) if file.exists() else Host()
