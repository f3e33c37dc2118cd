"""Cold caches: what every cache of the process's CPUs holds is overwritten before an iteration.

An iteration that finds the weights and activations of the one before in the caches is fast in a way that a service
between two requests seldom is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from runner.protocol import kernel
from runner.protocol.resultfile import Window

_CPUS = Path("/sys/devices/system/cpu")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
# Caches replace lines by rules of their own, not the oldest first: writing as much as they hold leaves some of it.
_TIMES = 2


def size_bytes(cpus: Iterable[int], root: Path = _CPUS) -> int | None:
    """The size of all caches for data that these CPUs have, each shared one counted once.

    Format: Documentation/ABI/testing/sysfs-devices-system-cpu, ``cache/index*``.

    Returns:
        Bytes; None where the kernel does not say.
    """
    sizes: dict[tuple[str, str, str], int] = {}
    for cpu in cpus:
        for index in (root / f"cpu{cpu}" / "cache").glob("index*"):
            kind, level, shared, size = (
                (kernel.text(index / name) or "").strip() for name in ("type", "level", "shared_cpu_list", "size")
            )
            if kind != "Instruction" and size[:-1].isdigit() and size[-1] in _UNITS:
                sizes[level, kind, shared or str(cpu)] = int(size[:-1]) * _UNITS[size[-1]]
    return sum(sizes.values()) or None


class Overwrite:
    """Overwrites the caches when it is called, with all threads that torch has: each core has caches of its own."""

    def __init__(self, cpus: Iterable[int]) -> None:
        """Make the buffer that is written.

        Args:
            cpus: the CPUs of the process.

        Raises:
            RuntimeError: the kernel does not say how large the caches are, or there is not enough memory.
        """
        size = size_bytes(cpus)
        if size is None:
            raise RuntimeError("cache=cold: the kernel does not say how large the caches are; use cache=warm")
        self.cache_bytes = size
        """The size of the caches."""
        self.bytes = _TIMES * size
        """What one call writes."""
        available = kernel.status_bytes("MemAvailable", Path("/proc/meminfo"))
        if available is not None and self.bytes > available / 2:
            raise RuntimeError(
                f"cache=cold: overwriting caches of {size / 1e6:.0f} MB takes a buffer of {self.bytes / 1e6:.0f} MB, "
                f"and only {available / 1e6:.0f} MB of memory are free; free some, or use cache=warm"
            )
        self._buffer = torch.zeros(self.bytes // 4)
        self()  # its pages are there before anything is timed

    def __call__(self) -> None:
        """Read and write the whole buffer."""
        self._buffer.add_(1)

    @property
    def note(self) -> str:
        """What a reader of the result must know."""
        return (
            f"cache=cold: before each timed iteration {self.bytes / 1e6:.0f} MB were written over caches of "
            f"{self.cache_bytes / 1e6:.0f} MB (this buffer is part of the memory peak); captures, and all looks after "
            "the timed loop, found warm caches"
        )


def told(window: Window, overwrite: Overwrite | None) -> Window:
    """The window with what was overwritten before each of its iterations."""
    if overwrite is None:
        return window
    return replace(window, cache_bytes=overwrite.cache_bytes, overwritten_bytes=overwrite.bytes)
