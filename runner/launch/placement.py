"""The cores, threads and memory node of a cell: the runner decides them, and spells them out for the launcher.

The launchers' own defaults ignore the caller's affinity; an explicit list of cores does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from runner.machine.host import Topology, format_cpu_list
from runner.protocol.cell import Cell
from runner.protocol.errors import RunnerError


class UnplaceableError(RunnerError):
    """The cell does not fit on the part of the machine that the caller may use: it is excluded, and does not fail."""


@dataclass(frozen=True)
class Placement:
    """The place on the machine where a worker runs."""

    cores: tuple[int, ...]
    """The numbers of logical CPUs, one per physical core, ascending."""
    threads: int
    """The OpenMP threads of each instance."""
    node: int
    """The NUMA node of the cores and the memory."""
    task_manager: str
    """``numactl`` (binds cores and memory) or ``taskset`` (cores only)."""
    has_second_siblings: bool
    """Whether a CPU is not the first one of its physical core: ipexrun would silently drop it."""
    instances: int = 1
    """The number of workers, which share the cores evenly."""
    streams: int = 1
    """The parts of the batch that each instance computes at the same time: see the cell's ``streams``."""

    @property
    def cores_per_instance(self) -> int:
        """The number of physical cores per instance."""
        return len(self.cores) // self.instances

    def of_instance(self, instance: int) -> Placement:
        """The placement of one instance: consecutive cores, as both launchers assign them."""
        size = self.cores_per_instance
        return replace(self, cores=self.cores[instance * size : (instance + 1) * size], instances=1)

    @property
    def core_list(self) -> str:
        """The cores in the kernel's list format."""
        return format_cpu_list(self.cores)


def chosen_cores(topology: Topology, wanted: int | None, count: int | None) -> tuple[int, tuple[int, ...]]:
    """The NUMA node, and its first ``count`` physical cores that the caller may use; all of them for None.

    Args:
        wanted: the node; None for the first one on which the caller has cores.

    Raises:
        UnplaceableError: there is no such node, or it has too few cores.
    """
    node = wanted
    if node is None:
        node = next((n for n in topology.nodes() if topology.physical_cores(n)), topology.nodes()[0])
    if node not in topology.nodes():
        nodes = ", ".join(map(str, topology.nodes()))
        raise UnplaceableError(f"node={node}: this machine has NUMA node {nodes} only; choose one that it has")
    available = topology.physical_cores(node)
    if not available:
        raise UnplaceableError(
            f"node={node}: none of its cores is in the caller's affinity; start the runner with cores of that node"
        )
    if count is not None and count > len(available):
        e_cores = format_cpu_list(topology.e_cores_left_out(node))
        raise UnplaceableError(
            f"cores={count}: node {node} has {len(available)} physical core(s) that the caller may use "
            f"({format_cpu_list(available)}{f'; E-cores {e_cores} are left out' if e_cores else ''}); choose fewer"
        )
    return node, available if count is None else available[:count]


def place(cell: Cell, topology: Topology, task_manager: str) -> Placement:
    """Place the cell on the first ``cores`` physical cores of its node that the caller may use (by default all).

    The node is by default the first one on which the caller has cores. P-cores and E-cores are never mixed.

    Raises:
        UnplaceableError: there is no such node, it has too few cores, or the cell has more threads, instances or
            streams than cores.
    """
    node, available = chosen_cores(topology, cell.node, cell.cores)
    core_count = len(available)
    size = core_count // cell.instances if cell.cores_per_instance is None else cell.cores_per_instance
    if size < 1 or size * cell.instances > core_count:
        setting = "" if cell.cores_per_instance is None else f" cores_per_instance={cell.cores_per_instance}"
        raise UnplaceableError(
            f"instances={cell.instances}{setting}: they need {max(size, 1) * cell.instances} physical cores, and the "
            f"cell has {core_count}; choose fewer instances or more cores"
        )
    cores = available[: size * cell.instances]
    threads = size if cell.threads is None else cell.threads
    if threads > size:
        raise UnplaceableError(
            f"threads={threads}: an instance has {size} core(s), and more threads would only take turns; choose fewer"
        )
    streams = cell.streams_on(size)
    if cell.has_streams:
        _check_streams(cell, streams, size, threads)
    second = not set(cores) <= topology.first_siblings()
    return Placement(cores, threads, node, task_manager, second, cell.instances, streams)


def _check_streams(cell: Cell, streams: int, size: int, threads: int) -> None:
    """Refuse streams that an instance with so many cores has no use for.

    Raises:
        UnplaceableError: there is one core, or fewer cores, threads or samples than streams need.
    """
    name = f"ipex={cell.ipex}"
    if size < 2:
        raise UnplaceableError(f"{name}: an instance has 1 core, and one stream is what ipex=on is; choose more cores")
    if streams > size:
        raise UnplaceableError(f"streams={streams} {name}: an instance has {size} cores, one per stream at most")
    if threads != size:
        raise UnplaceableError(
            f"threads={threads} {name}: streams have a thread on each of the {size} cores of an instance; choose cores"
        )
    if cell.batch_size < streams:
        raise UnplaceableError(
            f"batch_size={cell.batch_size} {name}: {streams} streams share a batch, and some would have nothing to do; "
            "choose a larger batch_size, or fewer streams"
        )


def pinning_words(placement: Placement) -> list[str]:
    """The words before a command that pin it to these cores, as both launchers spell them."""
    if placement.task_manager == "numactl":
        return ["numactl", "-C", placement.core_list, "-m", str(placement.node)]
    return ["taskset", "-c", placement.core_list]
