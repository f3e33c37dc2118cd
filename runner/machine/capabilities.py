"""What this machine can run, asked once per process: what is installed and what it is allowed to do."""

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
    """What decides whether a cell can run here at all."""

    topology: Topology
    task_manager: str
    """``numactl`` or ``taskset``: what works here."""
    isa: frozenset[str]
    """CPU flags as /proc/cpuinfo spells them."""
    ipex: str | None
    """Installed version of intel-extension-for-pytorch, None when there is none."""
    compiler: str | None = None
    """Path of the C++ compiler that torch.compile would call, None when it or Python's headers are missing."""


@functools.cache
def this_machine() -> Machine:
    """What this process has to run on; asked once."""
    topology = read_topology()
    manager = working_task_manager(min(topology.allowed), topology.nodes()[0])
    # Inductor's code is a Python extension: without Python's headers the compiler is of no use.
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    compiler = shutil.which(os.environ.get("CXX", "g++")) if headers.exists() else None
    return Machine(topology, manager, isa(), version_of("intel-extension-for-pytorch"), compiler)


def working_task_manager(cpu: int, node: int) -> str:
    """``numactl`` when it is installed and may set a memory policy here, else ``taskset``."""
    tried = execute.run_short(["numactl", "-C", str(cpu), "-m", str(node), "true"])
    return "numactl" if tried.status == 0 else "taskset"
