"""What this machine can run: what is installed and what is allowed. It is found out once per process."""

from __future__ import annotations

import functools
import os
import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from runner.machine import execute
from runner.machine.host import Topology, isa, read_topology, version_of


@dataclass(frozen=True)
class Machine:
    """The facts that decide whether a cell can run on this machine."""

    topology: Topology
    task_manager: str
    """``numactl`` where it works, else ``taskset``."""
    isa: frozenset[str]
    """The CPU's flags as /proc/cpuinfo spells them."""
    ipex: str | None
    """The installed version of intel-extension-for-pytorch; None if it is not installed."""
    compiler: str | None = None
    """The path of the C++ compiler that torch.compile would call; None if it or Python's headers are missing."""


@functools.cache
def this_machine() -> Machine:
    """The machine as this process may use it; found out at the first call."""
    topology = read_topology()
    manager = working_task_manager(min(topology.allowed), topology.nodes()[0])
    # What Inductor compiles is a Python extension: without Python's headers the compiler is useless.
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    compiler = shutil.which(os.environ.get("CXX", "g++")) if headers.exists() else None
    return Machine(topology, manager, isa(), version_of("intel-extension-for-pytorch"), compiler)


def working_task_manager(cpu: int, node: int) -> str:
    """``numactl`` if it is installed and may set a memory policy here, else ``taskset``."""
    trial = execute.run_short(["numactl", "-C", str(cpu), "-m", str(node), "true"])
    return "numactl" if trial.status == 0 else "taskset"
