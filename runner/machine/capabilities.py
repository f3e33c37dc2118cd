"""What this machine can run: what is installed and what is allowed. It is found out once per process."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field

from runner.machine import execute
from runner.machine.host import Topology, isa, read_topology, version_of


@dataclass(frozen=True)
class Machine:
    """The facts that decide whether a cell can run on this machine."""

    topology: Topology
    task_manager: str
    """``numactl`` where it works for a node at least, else ``taskset``."""
    isa: frozenset[str]
    """The CPU's flags as /proc/cpuinfo spells them."""
    ipex: str | None
    """The installed version of intel-extension-for-pytorch, whose launcher starts any torch build; None if it is not
    installed."""
    compiler: str | None = None
    """The path of the C++ compiler that torch.compile would call; None if it is missing."""
    unbound_nodes: Mapping[int, str] = field(default_factory=dict)
    """NUMA node -> why numactl can't bind memory to it, in words; nodes on which it can are not in it."""


@functools.cache
def this_machine() -> Machine:
    """The machine as this process may use it; found out at the first call."""
    topology = read_topology()
    unbound = unbound_nodes(topology)
    usable = [node for node in topology.nodes() if topology.physical_cores(node)]
    manager = "numactl" if any(node not in unbound for node in usable) else "taskset"
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    return Machine(topology, manager, isa(), version_of("intel-extension-for-pytorch"), compiler, unbound)


def unbound_nodes(topology: Topology) -> dict[int, str]:
    """Why numactl can't bind memory to a node, for each node on which the caller has cores and it can't.

    Each node is asked about on its own: a container may have the memory of some, and a node may have none.
    """
    reasons = {}
    for node in topology.nodes():
        cores = topology.physical_cores(node)
        if not cores:
            continue
        if node in topology.without_memory:
            reasons[node] = f"node {node} has no memory"
            continue
        trial = execute.run_short(["numactl", "-C", str(cores[0]), "-m", str(node), "true"])
        if trial.status == execute.NOT_STARTED:
            reasons[node] = "numactl is not installed"
        elif trial.status != 0:
            lines = [line.strip() for line in trial.err.splitlines() if line.strip()]
            answer = lines[0][:200] if lines else f"exit status {trial.status}"
            reasons[node] = f"numactl may not bind memory to node {node} here ({answer})"
    return reasons
