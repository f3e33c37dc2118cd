"""This host: its CPUs as the caller may use them, and the fingerprint that results are filed under.

All of it is read from sysfs, procfs and package metadata; nothing is started, and neither torch nor IPEX is imported.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import socket
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from runner.protocol import inherited
from runner.protocol.errors import RunnerError


@dataclass(frozen=True)
class Cpu:
    """A logical CPU, with the numbers that the kernel gives it, its core, socket and NUMA node."""

    cpu: int
    core: int
    socket: int
    node: int


@dataclass(frozen=True)
class Topology:
    """Every online CPU, and the CPUs that the calling process may run on (taskset, cpuset)."""

    cpus: tuple[Cpu, ...]
    allowed: frozenset[int]

    def nodes(self) -> tuple[int, ...]:
        """The NUMA nodes that have CPUs, ascending."""
        return tuple(sorted({cpu.node for cpu in self.cpus}))

    def physical_cores(self, node: int) -> tuple[int, ...]:
        """One allowed logical CPU per physical core of ``node``, the lowest-numbered sibling; ascending."""
        first: dict[tuple[int, int], int] = {}
        for cpu in sorted(self.cpus, key=lambda c: c.cpu):
            if cpu.node == node and cpu.cpu in self.allowed:
                first.setdefault((cpu.socket, cpu.core), cpu.cpu)
        return tuple(sorted(first.values()))

    def first_siblings(self) -> frozenset[int]:
        """The CPUs that launchers count as physical: the lowest-numbered one per core, allowed or not."""
        first: dict[tuple[int, int], int] = {}
        for cpu in sorted(self.cpus, key=lambda c: c.cpu):
            first.setdefault((cpu.socket, cpu.core), cpu.cpu)
        return frozenset(first.values())


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
        )
        for cpu in online
    )
    return Topology(cpus, frozenset(os.sched_getaffinity(0)) if allowed is None else allowed)


def cpuinfo(path: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """The keys and values in the first processor's block of /proc/cpuinfo."""
    block = path.read_text().partition("\n\n")[0]
    pairs = (line.partition(":") for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def isa() -> frozenset[str]:
    """The CPU's flags as /proc/cpuinfo spells them."""
    return frozenset(cpuinfo().get("flags", "").split())


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


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

    ``host_id`` is a hash of those that identify the machine: host name, CPU, topology, memory, kernel.
    """
    topology = read_topology()
    cpu = cpuinfo()
    memory_kb = next(
        (
            int(line.split()[1])
            for line in Path("/proc/meminfo").read_text().splitlines()
            if line.startswith("MemTotal")
        ),
        0,
    )
    identity = {
        "hostname": socket.gethostname(),
        "cpu_model": cpu.get("model name", platform.processor() or "unknown"),
        "cpu_family_model_stepping": "/".join(cpu.get(key, "?") for key in ("cpu family", "model", "stepping")),
        "cpus": [asdict(c) for c in topology.cpus],
        "memory_gib": round(memory_kb / 2**20),
        "kernel": platform.release(),
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
        "host_id": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12],
        **identity,
        "cpus_allowed": format_cpu_list(tuple(sorted(topology.allowed))),
        "isa": [flag for flag in relevant_flags if flag in flags],
        "hypervisor": "hypervisor" in flags,
        "transparent_hugepages": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "numa_balancing": _read("/proc/sys/kernel/numa_balancing"),
        "libc": "-".join(platform.libc_ver()),
        "python": platform.python_version(),
        "inherited": inherited.read(),
        "versions": {name: version_of(name) for name in _DISTRIBUTIONS},
    }
