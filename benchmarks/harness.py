"""What the benchmarks share: the runner and plain ipexrun as two commands over the same cores and allocator."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from runner.launch import environment, libraries
from runner.machine import capabilities
from runner.machine.host import format_cpu_list, read_topology

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
BARE = Path(__file__).with_name("bare.py")


@dataclass(frozen=True)
class Timed:
    """One finished command."""

    wall_s: float
    out: str


def timed(argv: Sequence[str], env: dict[str, str] | None = None) -> Timed:
    """Run to the end; a failure ends the benchmark with what the command said."""
    start = time.monotonic()
    done = subprocess.run(list(argv), cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    wall_s = time.monotonic() - start
    if done.returncode:
        sys.exit(f"{' '.join(argv)}\n{done.stdout}\n{done.stderr}\nexit status {done.returncode}")
    return Timed(wall_s, done.stdout)


def sweep_argv(arguments: Sequence[str], mlruns: Path) -> list[str]:
    """The runner as a command; the jobs are those asked for and no further attempts, so that costs can be compared."""
    return [sys.executable, "-m", "runner", "-m", "reruns=0", *arguments, f"mlruns={mlruns}"]


def rows_of(out: str) -> list[dict[str, str]]:
    """The rows of comparison.csv of the sweep that printed ``out``."""
    found = re.search(r"^files\s+(.+)$", out, re.M)
    assert found, out
    with (ROOT / found[1] / "comparison.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def ipexrun(allocator: str, program: Sequence[str], private: Path) -> tuple[list[str], dict[str, str]]:
    """(argv, env) of bare.py under the plain ipexrun, on the cores and with the library that the runner would take."""
    topology = read_topology()
    manager = capabilities.working_task_manager(min(topology.allowed), topology.nodes()[0])
    env, _ = environment.scrub(dict(os.environ))
    if allocator != "default":
        file = libraries.find(allocator, libraries.search_path(os.environ, sys.executable))
        assert file is not None, allocator
        link = private / "lib" / f"lib{allocator}.so"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(file)
    argv = [str(Path(sys.executable).with_name("ipexrun")), "cpu", "--memory-allocator", allocator]
    argv += ["--omp-runtime", "default", "--cores-list", format_cpu_list(topology.physical_cores(topology.nodes()[0]))]
    argv += ["--ninstances", "1", "--multi-task-manager", manager, "--use-e-cores", str(BARE), *program]
    return argv, {**env, "VIRTUAL_ENV": str(private)}


@contextmanager
def workplace() -> Iterator[tuple[Path, Path]]:
    """(results folder, folder for library links), both gone afterwards."""
    # LD_PRELOAD is split at spaces and colons, whatever the project's path is.
    with TemporaryDirectory(prefix="runner-bench-", dir="/tmp") as folder:
        yield Path(folder) / "mlruns", Path(folder) / "private"


def last_float(text: str) -> float:
    """The last line that is a number: what bare.py prints after the launcher's chatter."""
    for line in reversed(text.splitlines()):
        try:
            return float(line)
        except ValueError:
            continue
    raise ValueError(f"no figure in: {text}")
