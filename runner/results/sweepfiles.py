"""plan.json and host.json of a sweep, as those who read them need them: what they lack has a default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from runner.protocol import stored
from runner.protocol.stored import Range

PLAN_FILE, HOST_FILE = "plan.json", "host.json"

# Chance of an error that a comparison allows.
Level = Annotated[float, Range(1e-9, 0.5)]


@dataclass(frozen=True)
class PlannedCell:
    """One cell that was to run."""

    cell_id: str
    axes: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    """The line that runs it alone."""


@dataclass(frozen=True)
class Excluded:
    """One that was not."""

    axes: Mapping[str, str]
    reason: str


@dataclass(frozen=True)
class StoredPlan:
    """What of plan.json is read."""

    sweep_id: str = ""
    seed: int | None = None
    level: Level | None = None
    """Of the comparisons: see runner.sweep.rounds.level_of(); None in older files."""
    cells: Sequence[PlannedCell] = ()
    order: Sequence[Any] = ()
    """One entry a job."""
    excluded: Sequence[Excluded] = ()


@dataclass(frozen=True)
class Host:
    """What of host.json is read; None where the machine does not tell."""

    host_id: str = "unknown"
    cpu_model: str | None = None
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


def read_plan(sweep: Path) -> StoredPlan:
    """The sweep's plan; empty when it ended before there was one.

    Raises:
        FormatError: the file can't be read.
    """
    file = sweep / PLAN_FILE
    return stored.part(StoredPlan, file) if file.exists() else StoredPlan()


def read_host(sweep: Path) -> Host:
    """The machine that the sweep ran on.

    Raises:
        FormatError: the file can't be read.
    """
    file = sweep / HOST_FILE
    return stored.part(Host, file) if file.exists() else Host()
