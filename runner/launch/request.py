"""The input and the output of every launcher's build()."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runner.launch.placement import Placement
from runner.matrix.cell import Cell


@dataclass(frozen=True)
class LaunchRequest:
    """A placed cell, the libraries to preload (in search order) and the program to start."""

    cell: Cell
    placement: Placement
    preload: tuple[Path, ...]
    python: str
    program: tuple[str, ...]


@dataclass(frozen=True)
class Built:
    """A launcher's argv, and the environment variables that it needs besides those that all launchers share."""

    argv: list[str]
    env: Mapping[str, str] = field(default_factory=dict)
