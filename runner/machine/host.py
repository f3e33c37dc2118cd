"""This host: its CPUs as the caller may use them, and the fingerprint that results are filed under.

All of it is read from sysfs, procfs and package metadata; nothing is started, and neither torch nor IPEX is imported.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from runner.protocol import content_hash, inherited, kernel
from runner.protocol.errors import RunnerError


@dataclass(frozen=True)
class Cpu:
    """A logical CPU, with the numbers that the kernel gives it, its core, socket and NUMA node."""

    cpu: int
    core: int
    """The core's number; it may be that of another core on another die as well, or -1 for all."""
    socket: int
    node: int
    first_sibling: int | None = None
    """The lowest-numbered CPU of the same physical core; None where the kernel lists no siblings."""

    @property
    def physical(self) -> tuple[int, ...]:
        """What is equal for the CPUs of one physical core, and differs between cores."""
        return (self.socket, self.core) if self.first_sibling is None else (self.first_sibling,)


@dataclass(frozen=True)
class Topology:
    """Every online CPU, and the CPUs that the calling process may run on (taskset, cpuset)."""

    cpus: tuple[Cpu, ...]
    allowed: frozenset[int]
    e_cores: frozenset[int] = frozenset()
    """The CPUs of a hybrid CPU's slower cores; empty on any other."""
    without_memory: frozenset[int] = frozenset()
    """The NUMA nodes that have CPUs and no memory."""

    def nodes(self) -> tuple[int, ...]:
        """The NUMA nodes that have CPUs, ascending."""
        return tuple(sorted({cpu.node for cpu in self.cpus}))

    def physical_cores(self, node: int) -> tuple[int, ...]:
        """One allowed logical CPU per physical core of ``node``, the lowest-numbered sibling; ascending.

        E-cores are among them only if the caller may use no others: threads that share work wait for the slowest.
        """
        cores = self._allowed_cores(node)
        return tuple(core for core in cores if core not in self.e_cores) or cores

    def e_cores_left_out(self, node: int) -> tuple[int, ...]:
        """The allowed E-cores of ``node`` that physical_cores() leaves out, ascending."""
        return tuple(sorted(set(self._allowed_cores(node)) - set(self.physical_cores(node))))

    def _allowed_cores(self, node: int) -> tuple[int, ...]:
        return _first_of_each([cpu for cpu in self.cpus if cpu.node == node and cpu.cpu in self.allowed])

    def first_siblings(self) -> frozenset[int]:
        """The CPUs that launchers count as physical: the lowest-numbered one per core, allowed or not."""
        return frozenset(_first_of_each(self.cpus))


def _first_of_each(cpus: Iterable[Cpu]) -> tuple[int, ...]:
    """The lowest-numbered of these CPUs for each physical core, ascending."""
    first: dict[tuple[int, ...], int] = {}
    for cpu in sorted(cpus, key=lambda c: c.cpu):
        first.setdefault(cpu.physical, cpu.cpu)
    return tuple(sorted(first.values()))


_MOST_CPUS = 1 << 16


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """The numbers in the kernel's list format ("0-3,8", cpuset(7)), ascending; none for an empty string.

    Raises:
        ValueError: the text is not in that format, or names a CPU that no kernel supports.
    """
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, dash, last = part.partition("-")
        begin, end = int(first), int(last if dash else first)
        if not 0 <= begin <= end < _MOST_CPUS:
            raise ValueError(f"{part[:40]!r} is not a range of CPUs")
        cpus.update(range(begin, end + 1))
    return tuple(sorted(cpus))


def format_cpu_list(cpus: tuple[int, ...]) -> str:
    """The CPUs in the kernel's list format ("0-3,8"): the inverse of parse_cpu_list()."""
    runs: list[list[int]] = []
    for cpu in cpus:
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _number(path: Path, default: int = 0) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return default


def read_topology(sysfs: Path = Path("/sys"), allowed: frozenset[int] | None = None) -> Topology:
    """Read the CPUs from sysfs; ``allowed`` defaults to the affinity of the calling process.

    Raises:
        RunnerError: sysfs can't be read.
    """
    root = sysfs / "devices/system"
    try:
        online = parse_cpu_list((root / "cpu/online").read_text())
    except (OSError, ValueError) as error:
        raise RunnerError(f"{root}/cpu/online can't be read ({error}); run it on Linux with sysfs mounted") from error
    node_of = {
        cpu: int(node.name[4:])
        for node in (root / "node").glob("node[0-9]*")
        for cpu in parse_cpu_list((node / "cpulist").read_text())
    }
    cpus = tuple(
        Cpu(
            cpu=cpu,
            core=_number(root / f"cpu/cpu{cpu}/topology/core_id", cpu),
            socket=_number(root / f"cpu/cpu{cpu}/topology/physical_package_id"),
            node=node_of.get(cpu, 0),
            first_sibling=_first_sibling(root / f"cpu/cpu{cpu}/topology"),
        )
        for cpu in online
    )
    return Topology(
        cpus,
        frozenset(os.sched_getaffinity(0)) if allowed is None else allowed,
        _e_cores(sysfs, online),
        frozenset(set(node_of.values()) - set(_cpu_list(root / "node/has_memory", node_of.values()))),
    )


def _cpu_list(path: Path, default: Iterable[int] = ()) -> tuple[int, ...]:
    """The numbers in a file of sysfs; ``default`` if there is no such file, or none that can be read."""
    try:
        return parse_cpu_list(path.read_text())
    except (OSError, ValueError):
        return tuple(default)


def _first_sibling(topology: Path) -> int | None:
    """The lowest-numbered CPU of a core, by its list of siblings: the older kernels' name for it is the second."""
    siblings = _cpu_list(topology / "core_cpus_list") or _cpu_list(topology / "thread_siblings_list")
    return min(siblings, default=None)


# Cores of one kind differ in capacity too, by the frequencies that each reaches: on a hybrid CPU by a few percent.
_LEAST_CAPACITY = 0.9


def _e_cores(sysfs: Path, online: Sequence[int]) -> frozenset[int]:
    """The CPUs of the slower cores: by Intel's PMUs for each kind, else by the capacity that the kernel gives each.

    Sources: perf's intel-hybrid.txt; sched-capacity.rst.
    """
    devices = sysfs / "devices"
    if (devices / "cpu_core").is_dir():
        return frozenset((*_cpu_list(devices / "cpu_atom/cpus"), *_cpu_list(devices / "cpu_lowpower/cpus")))
    capacity = {cpu: _number(devices / f"system/cpu/cpu{cpu}/cpu_capacity") for cpu in online}
    least = _LEAST_CAPACITY * max(capacity.values(), default=0)
    return frozenset(cpu for cpu, value in capacity.items() if value < least)


def cpuinfo(path: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """The keys and values in the first processor's block of /proc/cpuinfo."""
    block = path.read_text().partition("\n\n")[0]
    pairs = (line.partition(":") for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def isa() -> frozenset[str]:
    """The CPU's flags as /proc/cpuinfo spells them."""
    return frozenset(cpuinfo().get("flags", "").split())


def version_of(distribution: str) -> str | None:
    """The installed version of a Python distribution, without importing it; None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


_DISTRIBUTIONS = (
    "torch",
    "intel-extension-for-pytorch",
    "torchvision",
    "transformers",
    "intel-openmp",
    "mlflow",
    "hydra-core",
    "numpy",
)


@functools.cache
def fingerprint() -> dict[str, Any]:
    """The facts of this host that must agree before two cells are compared, and others that a reader wants to know.

    ``host_id`` is a hash of those that identify the machine: host name, CPU, topology, memory. Another kernel is no
    other machine; `runner.sweep.identity` and comparisons name it.
    """
    topology = read_topology()
    cpu = cpuinfo()
    identity = {
        "hostname": socket.gethostname(),
        "cpu_model": cpu.get("model name", platform.processor() or "unknown"),
        "cpu_family_model_stepping": "/".join(cpu.get(key, "?") for key in ("cpu family", "model", "stepping")),
        "cpus": [{"cpu": c.cpu, "core": c.core, "socket": c.socket, "node": c.node} for c in topology.cpus],
        "memory_gib": round((kernel.status_bytes("MemTotal", Path("/proc/meminfo")) or 0) / 2**30),
    }
    relevant_flags = (
        "avx2",
        "fma",
        "f16c",
        "avx512f",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
        "amx_tile",
        "amx_bf16",
        "amx_int8",
    )
    flags = isa()
    return {
        "host_id": content_hash.short(json.dumps(identity, sort_keys=True).encode()),
        **identity,
        "kernel": platform.release(),
        "cpus_allowed": format_cpu_list(tuple(sorted(topology.allowed))),
        "isa": [flag for flag in relevant_flags if flag in flags],
        "hypervisor": "hypervisor" in flags,
        "transparent_hugepages": kernel.text(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "governor": kernel.text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "numa_balancing": kernel.text(Path("/proc/sys/kernel/numa_balancing")),
        "libc": "-".join(platform.libc_ver()),
        "python": platform.python_version(),
        "inherited": inherited.read(),
        "versions": {name: version_of(name) for name in _DISTRIBUTIONS},
    }
