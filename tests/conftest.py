"""Shared fixtures: a way to run the command line as a user does, and one results folder for the session."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner.matrix.cell import Allocator, Cell, Graph, Launcher, Model, Precision
from runner.results.outcome import CellRecord, read_cell

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Ran:
    """One finished invocation of ``python -m runner``."""

    status: int
    out: str
    err: str

    @property
    def sweep(self) -> Path:
        """The sweep's folder, as the output names it."""
        found = re.search(r"^files\s+(.+)$", self.out, re.M)
        assert found, self.out + self.err
        return ROOT / found[1].strip()

    def cells(self) -> dict[tuple[str, str], CellRecord]:
        """(allocator, ipex) -> record of every cell with an outcome."""
        return {(r.axes["allocator"], r.axes["ipex"]): r for r in records_of(self)}


def records_of(ran: Ran) -> list[CellRecord]:
    """Every cell of the sweep that has an outcome."""
    found = [read_cell(ran.sweep, folder.name) for folder in (ran.sweep / "cells").iterdir()]
    return [record for record in found if record is not None]


Runner = Callable[..., Ran]


def invoke(
    arguments: Sequence[str], prefix: Sequence[str] = (), env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Ran:
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "runner", *arguments],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie that its new parent has yet to reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="session")
def mlruns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One results folder for all tests that launch: creating MLflow's database takes seconds."""
    return tmp_path_factory.mktemp("mlruns")


@pytest.fixture(scope="session")
def run_cli(mlruns: Path) -> Runner:
    """Run ``python -m runner ARGUMENTS`` on the tiny model, in a process of its own."""

    def run(*arguments: str, prefix: Sequence[str] = (), env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Ran:
        # A machine that is not quiet must not change how many jobs a test counts.
        once = [] if any(word.startswith("reruns=") for word in arguments) else ["reruns=0"]
        return invoke([*arguments, *once, f"mlruns={mlruns}"], prefix, env, cwd)

    return run


TINY = ("model=tiny", "warmup=3", "iterations=20", "rounds=1")

# A cell as the configuration would make it, for tests that start nothing; tests vary it with dataclasses.replace().
CELL = Cell(
    model=Model("tiny", "a.tiny", {"x": 1, "y": 2}),
    allocator=Allocator("jemalloc", "jemalloc", "jemalloc", {"MALLOC_CONF": "a:1"}, {}),
    ipex="off",
    memory_format="channels_first",
    precision=Precision("fp32", {"rel_l2": 1e-4}),
    graph=Graph("eager"),
    launcher=Launcher("ipexrun", False, "auto"),
    batch_size=2,
    sequence_length=None,
    instances=1,
    cores_per_instance=None,
    cores=None,
    threads=None,
    node=0,
    openmp="default",
    warmup=3,
    iterations=10,
    min_time_s=1.0,
    max_time_s=2.0,
    target_ci_pct=None,
    seed=0,
)
