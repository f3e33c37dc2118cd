"""What the benchmarks share: the runner and plain ipexrun, as two commands with the same cores and allocator."""

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
from runner.machine import capabilities, execute
from runner.machine.host import format_cpu_list, read_topology

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
BARE = Path(__file__).with_name("bare.py")


@dataclass(frozen=True)
class Timed:
    """A command that has ended: its wall time, and what it printed to stdout."""

    wall_s: float
    out: str


def timed(argv: Sequence[str], env: dict[str, str] | None = None) -> Timed:
    """Run a command to its end; if it fails, the benchmark ends with what the command printed."""
    start = time.monotonic()
    done = subprocess.run(list(argv), cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    wall_s = time.monotonic() - start
    if done.returncode:
        sys.exit(f"{' '.join(argv)}\n{done.stdout}\n{done.stderr}\nexit status {done.returncode}")
    return Timed(wall_s, done.stdout)


def sweep_argv(arguments: Sequence[str], mlruns: Path) -> list[str]:
    """The command line of a sweep without further attempts, so that the costs of equally many jobs are compared."""
    return [sys.executable, "-m", "runner", "-m", "reruns=0", *arguments, f"mlruns={mlruns}"]


def sweep_folder(out: str) -> Path:
    """The folder of the sweep that printed ``out``."""
    match = re.search(r"^files\s+(.+)$", out, re.M)
    assert match, out
    return ROOT / match[1]


def rows_of(out: str) -> list[dict[str, str]]:
    """The rows of comparison.csv of the sweep that printed ``out``."""
    with (sweep_folder(out) / "comparison.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def only_job(out: str) -> dict[str, str]:
    """The row of the only cell of the sweep that printed ``out``, which ran as a single job.

    A benchmark that believes itself to compare single jobs must not compare five rounds with one.
    """
    [row] = rows_of(out)
    check_jobs(out, 1)
    return row


def check_jobs(out: str, jobs: int) -> None:
    """End the benchmark unless the sweep that printed ``out`` had this many jobs, by which its time is divided."""
    match = re.search(r"= (\d+) jobs?\b", out)
    if not match or int(match[1]) != jobs:
        sys.exit(f"{out}\n{jobs} jobs were meant to run")


def ipexrun(allocator: str, program: Sequence[str], private: Path) -> tuple[list[str], dict[str, str]]:
    """The argv and environment of bare.py under plain ipexrun, with the cores and the library that the runner would
    use."""
    topology = read_topology()
    node = next(node for node in topology.nodes() if topology.physical_cores(node))
    manager = "taskset" if node in capabilities.unbound_nodes(topology) else "numactl"
    env, _ = environment.scrub(dict(os.environ))
    if allocator != "default":
        file = libraries.find(allocator, libraries.search_path(os.environ, sys.executable))
        assert file is not None, allocator
        link = private / "lib" / f"lib{allocator}.so"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(file)
    argv = [str(Path(sys.executable).with_name("ipexrun")), "cpu", "--memory-allocator", allocator]
    argv += ["--omp-runtime", "default", "--cores-list", format_cpu_list(topology.physical_cores(node))]
    argv += ["--ninstances", "1", "--multi-task-manager", manager, "--use-e-cores", str(BARE), *program]
    return argv, {**env, **execute.LOCALE, "VIRTUAL_ENV": str(private)}


@contextmanager
def workplace() -> Iterator[tuple[Path, Path]]:
    """Make a results folder and a folder for links to libraries; both are removed at the end of the block."""
    # In /tmp, because LD_PRELOAD is split at spaces and colons, which the project's path may have.
    with TemporaryDirectory(prefix="runner-bench-", dir="/tmp") as folder:
        yield Path(folder) / "mlruns", Path(folder) / "private"


def last_float(text: str) -> float:
    """The last line that is a number: bare.py prints it after the launcher's own lines.

    Raises:
        ValueError: no line is a number.
    """
    for line in reversed(text.splitlines()):
        try:
            return float(line)
        except ValueError:
            continue
    raise ValueError(f"there is no number in: {text}")
