"""Which cores, how many threads, which memory node: decided by us and told to the launcher in full.

The launchers' own defaults ignore the caller's affinity; an explicit list does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from runner.machine.host import Topology, format_cpu_list
from runner.matrix.cell import Cell
from runner.protocol.errors import RunnerError


class UnplaceableError(RunnerError):
    """The machine (or what the caller may use of it) can't hold the cell: it is excluded, not failed."""


@dataclass(frozen=True)
class Placement:
    """Where a worker runs."""

    cores: tuple[int, ...]
    """Logical CPU numbers, one a physical core, ascending."""
    threads: int
    """OpenMP threads of each instance."""
    node: int
    task_manager: str
    """``numactl`` (binds cores and memory) or ``taskset`` (cores only)."""
    has_second_siblings: bool
    """Some core is not its physical core's first logical CPU, which ipexrun would drop unasked."""
    instances: int = 1

    @property
    def cores_per_instance(self) -> int:
        """Physical cores of each instance."""
        return len(self.cores) // self.instances

    def of_instance(self, instance: int) -> Placement:
        """Where one of the instances runs: consecutive cores, as both launchers hand them out."""
        each = self.cores_per_instance
        return replace(self, cores=self.cores[instance * each : (instance + 1) * each], instances=1)

    @property
    def core_list(self) -> str:
        """The cores in the kernel's list format."""
        return format_cpu_list(self.cores)


def place(cell: Cell, topology: Topology, task_manager: str) -> Placement:
    """The first ``cores`` physical cores of the cell's node that the caller may use (all by default).

    Raises:
        UnplaceableError: no such node, or not as many cores, or more threads or instances than cores.
    """
    node = cell.node
    if node is None:
        node = next((n for n in topology.nodes() if topology.physical_cores(n)), topology.nodes()[0])
    if node not in topology.nodes():
        known = ", ".join(map(str, topology.nodes()))
        raise UnplaceableError(f"node={node}: this machine has NUMA node {known} only")
    available = topology.physical_cores(node)
    if not available:
        raise UnplaceableError(f"node={node}: none of its cores is in the caller's affinity; start the runner there")
    wanted = len(available) if cell.cores is None else cell.cores
    if wanted > len(available):
        raise UnplaceableError(
            f"cores={wanted}: node {node} has {len(available)} physical core(s) that the caller may use "
            f"({format_cpu_list(available)})"
        )
    each = wanted // cell.instances if cell.cores_per_instance is None else cell.cores_per_instance
    if each < 1 or each * cell.instances > wanted:
        asked = "" if cell.cores_per_instance is None else f" cores_per_instance={cell.cores_per_instance}"
        raise UnplaceableError(
            f"instances={cell.instances}{asked}: they need {max(each, 1) * cell.instances} physical cores, there are "
            f"{wanted} for the cell"
        )
    cores = available[: each * cell.instances]
    threads = each if cell.threads is None else cell.threads
    if threads > each:
        raise UnplaceableError(f"threads={threads}: more threads than the {each} core(s) would only take turns")
    second = not set(cores) <= topology.first_siblings()
    return Placement(cores, threads, node, task_manager, second, cell.instances)


def pinned(placement: Placement) -> list[str]:
    """The words that start a program on these cores, as both launchers spell them."""
    if placement.task_manager == "numactl":
        return ["numactl", "-C", placement.core_list, "-m", str(placement.node)]
    return ["taskset", "-c", placement.core_list]
