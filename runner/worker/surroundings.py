"""What else the machine did while a pass measured: counters of the kernel, read right before and right after it.

This file knows the files of /proc and /sys and their formats, every one of which may be missing; measure.py times.
Nothing is judged here: see runner.protocol.contamination.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from runner.protocol import kernel
from runner.protocol.resultfile import Surroundings

_Number = TypeVar("_Number", int, float)
_PRESSURE = Path("/proc/pressure")
_CPUS = Path("/sys/devices/system/cpu")
_CGROUPS = Path("/sys/fs/cgroup")
# Counters of /proc/vmstat: two that are added up, the prefix of some that are, and one that is taken as it is.
_PAGES_SWAPPED, _STALLS, _KILLS = ("pswpin", "pswpout"), "allocstall", "oom_kill"


@dataclass(frozen=True)
class CpuTimes:
    """The times of a CPU since boot in clock ticks: the columns of proc(5)'s /proc/stat that matter here."""

    idle: int
    """The time in which it was idle or waited for I/O; a tickless kernel takes it from a clock and not from samples."""
    steal: int
    """The time that the hypervisor gave to others."""
    total: int
    """The sum of all columns, with guests counted once."""


@dataclass(frozen=True)
class Reading:
    """Every counter at one moment; a counter that this machine lacks is None or absent."""

    at_s: float
    """CLOCK_MONOTONIC when /proc/stat was read."""
    cpus: Mapping[int, CpuTimes]
    """Logical CPU -> its times."""
    pressure_s: Mapping[str, float] = field(default_factory=dict)
    """``memory_some`` and the like -> seconds stalled since boot."""
    frequency_hz: float | None = None
    """The mean frequency of the CPUs."""
    throttle_events: int | None = None
    """How often the CPUs and their package were throttled since boot."""
    memory: Mapping[str, int] = field(default_factory=dict)
    """``swapped``, ``stalls`` and ``oom_kill`` -> number since boot."""
    quota_s: float | None = None
    """The time for which quotas of control groups kept their tasks from running."""


def cpu_times(stat: str, cpus: Collection[int]) -> dict[int, CpuTimes]:
    """CPU -> times, for those of ``cpus`` that have a line in the text of /proc/stat."""
    times = {}
    for line in stat.splitlines():
        name, *columns = line.split()
        if not name.startswith("cpu"):
            break
        if name[3:].isdigit() and int(name[3:]) in cpus:
            # user nice system idle iowait irq softirq steal; guests, which follow, are part of user.
            ticks = [int(column) for column in columns[:8]]
            times[int(name[3:])] = CpuTimes(ticks[3] + ticks[4], ticks[7], sum(ticks))
    return times


def stalls_s(name: str, text: str) -> dict[str, float]:
    """``memory_some``, ``memory_full`` -> seconds stalled since boot, from the text of /proc/pressure/memory.

    Format: Documentation/accounting/psi.rst; ``total`` is in microseconds.

    Args:
        name: the name of the file: cpu, memory or io.
    """
    return {
        f"{name}_{words[0]}": int(words[-1].removeprefix("total=")) / 1e6
        for line in text.splitlines()
        if (words := line.split())
    }


def memory_events(vmstat: str) -> dict[str, int]:
    """Pages swapped, direct reclaims (allocations that stalled) and processes killed since boot, from /proc/vmstat."""
    counts: dict[str, int] = {}
    for line in vmstat.splitlines():
        name, _, value = line.partition(" ")
        kind = "swapped" if name in _PAGES_SWAPPED else "stalls" if name.startswith(_STALLS) else name
        if kind in ("swapped", "stalls", _KILLS):
            counts[kind] = counts.get(kind, 0) + int(value)
    return counts


def throttled_s(cpu_stat: str) -> float | None:
    """The seconds for which a control group's quota kept its tasks from running, by its cpu.stat (v2 in µs, v1 in ns).

    None if the text has no such counter.
    """
    counters = dict(line.split() for line in cpu_stat.splitlines())
    if "throttled_usec" in counters:
        return int(counters["throttled_usec"]) / 1e6
    return int(counters["throttled_time"]) / 1e9 if "throttled_time" in counters else None


def cpu_list(text: str) -> set[int]:
    """The CPUs in the kernel's list format, "0-3,8"."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cpus |= set(range(int(first), int(last or first) + 1)) if part else set()
    return cpus


def cpus_to_watch(own: Sequence[int], instances: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """The CPUs on which others' work slows ours: our own, and their hyper-threads that no instance of the job has."""
    assigned = {cpu for cpus in instances for cpu in cpus}
    result = set(own)
    for cpu in own:
        siblings = kernel.text(_CPUS / f"cpu{cpu}/topology/thread_siblings_list")
        result |= cpu_list(siblings or "") - assigned
    return tuple(sorted(result))


def _number(file: Path) -> int | None:
    text = kernel.text(file)
    return int(text) if text and text.isdigit() else None


def _frequency_hz(cpus: Sequence[int]) -> float | None:
    names = ("scaling_cur_freq", "cpuinfo_cur_freq")
    khz = [next(filter(None, (_number(_CPUS / f"cpu{cpu}/cpufreq/{name}") for name in names)), None) for cpu in cpus]
    readings = [value for value in khz if value is not None]
    return 1e3 * fmean(readings) if readings else None


def _throttle_events(cpus: Sequence[int]) -> int | None:
    # Every CPU of a package shows the package's count, so that it is read for one of them only.
    counts = [_number(_CPUS / f"cpu{cpu}/thermal_throttle/core_throttle_count") for cpu in cpus]
    counts.append(_number(_CPUS / f"cpu{cpus[0]}/thermal_throttle/package_throttle_count"))
    readings = [value for value in counts if value is not None]
    return sum(readings) if readings else None


def quota_files(membership: str) -> list[Path]:
    """The cpu.stat files of this process's control group and of those that contain it.

    Args:
        membership: the text of /proc/self/cgroup (cgroups(7)), version 1 or 2.
    """
    for groups in kernel.cpu_groups(membership, _CGROUPS):
        files = [group / "cpu.stat" for group in groups]
        if any(file.exists() for file in files):
            return files
    return []


def _quota_s() -> float | None:
    files = quota_files(kernel.text(Path("/proc/self/cgroup")) or "")
    times_s = [throttled_s(text) for file in files if (text := kernel.text(file))]
    readings = [value for value in times_s if value is not None]
    return sum(readings) if readings else None


def read(cpus: Sequence[int]) -> Reading:
    """Read every counter for these CPUs; this takes about a millisecond."""
    pressure: dict[str, float] = {}
    for name in ("cpu", "memory", "io"):
        pressure |= stalls_s(name, kernel.text(_PRESSURE / name) or "")
    stat = cpu_times(kernel.text(Path("/proc/stat")) or "", set(cpus))
    return Reading(
        at_s=time.monotonic(),
        cpus=stat,
        pressure_s=pressure,
        frequency_hz=_frequency_hz(cpus),
        throttle_events=_throttle_events(cpus),
        memory=memory_events(kernel.text(Path("/proc/vmstat")) or ""),
        quota_s=_quota_s(),
    )


def difference(before: Reading, after: Reading, cpus: Sequence[int], tick_s: float | None = None) -> Surroundings:
    """What happened between two readings.

    Args:
        tick_s: the unit of the CPU times in seconds; None: that of this kernel.
    """
    tick_s = tick_s or 1 / os.sysconf("SC_CLK_TCK")
    span_s = after.at_s - before.at_s
    busy_s = steal_s = 0.0
    is_observed = bool(cpus)
    for cpu in cpus:
        begin, end = before.cpus.get(cpu), after.cpus.get(cpu)
        if begin is None or end is None:
            is_observed = False
            break
        total_s = (end.total - begin.total) * tick_s
        # Times that stand still or run ahead of the clock are made up by a sandbox. Times may lag behind the clock:
        # work that is shorter than a tick, between idle times, is missing from the busy columns.
        is_observed &= (total_s > 0 or span_s < 3 * tick_s) and total_s <= 1.1 * span_s + 3 * tick_s
        stolen_s = (end.steal - begin.steal) * tick_s
        steal_s += stolen_s
        # The busy columns are not used: they are sampled at ticks, while idle time is exact on a tickless kernel.
        busy_s += max(span_s - (end.idle - begin.idle) * tick_s - stolen_s, 0.0)

    def change(begin: _Number | None, end: _Number | None) -> _Number | None:
        return None if begin is None or end is None else end - begin

    def events(name: str) -> int | None:
        return change(before.memory.get(name), after.memory.get(name))

    return Surroundings(
        cpus=list(cpus),
        resolution_s=tick_s * len(cpus),
        busy_s=busy_s if is_observed else None,
        steal_s=steal_s if is_observed else None,
        pressure_s={n: after.pressure_s[n] - b for n, b in before.pressure_s.items() if n in after.pressure_s},
        quota_s=change(before.quota_s, after.quota_s),
        frequency_before_hz=before.frequency_hz,
        frequency_after_hz=after.frequency_hz,
        throttle_events=change(before.throttle_events, after.throttle_events),
        swapped_pages=events("swapped"),
        allocation_stalls=events("stalls"),
        oom_kills=events(_KILLS),
    )
