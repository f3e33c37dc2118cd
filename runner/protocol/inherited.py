"""What a process inherits from its caller and can't be scrubbed: priority, scheduling class, limits, CPU quota.

The runner reads it of itself, for the identity of its cells and for host.json; the worker reads it of itself, as
evidence. Only what differs from an ordinary process is named, so that most often there is nothing.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from runner.protocol import kernel

# sched(7); SCHED_OTHER is the ordinary one.
_CLASSES = {1: "fifo", 2: "round robin", 3: "batch", 5: "idle", 6: "deadline"}
_PR_GET_THP_DISABLE = 42
_MIB = 1 << 20
_NONE = resource.RLIM_INFINITY
# Name -> limit, and the soft values that kernels, service managers and container engines set. Threads get stacks of the
# stack's limit, and an unlimited one changes the layout of the address space.
_LIMITS = {
    "address space": (resource.RLIMIT_AS, {_NONE}),
    "data segment": (resource.RLIMIT_DATA, {_NONE}),
    "stack": (resource.RLIMIT_STACK, {8 * _MIB}),
    "locked memory": (resource.RLIMIT_MEMLOCK, {64 << 10, 8 * _MIB, _NONE}),
}


def read(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> dict[str, str]:
    """Name -> value of each inherited property of this process that is not the ordinary one.

    Args:
        proc: where procfs is mounted.
        cgroups: where control groups are mounted.
    """
    properties = {
        "nice": _nice(),
        "scheduling class": _scheduling_class(),
        "transparent huge pages": _huge_pages(),
        "personality": _personality(kernel.text(proc / "self/personality") or ""),
        **{f"limit of {name}": value for name, value in _limits(kernel.text(proc / "sys/kernel/threads-max") or "")},
        "CPU quota": cpu_quota(kernel.text(proc / "self/cgroup") or "", cgroups),
    }
    return {name: value for name, value in properties.items() if value}


def _nice() -> str:
    value = os.getpriority(os.PRIO_PROCESS, 0)
    return str(value) if value else ""


def _scheduling_class() -> str:
    policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
    if policy == os.SCHED_OTHER:
        return ""
    priority = os.sched_getparam(0).sched_priority
    return _CLASSES.get(policy, str(policy)) + (f" {priority}" if priority else "")


def _huge_pages() -> str:
    """Whether prctl(2) took transparent huge pages from this process, whatever the machine's mode says."""
    state = ctypes.CDLL(None).prctl(_PR_GET_THP_DISABLE, 0, 0, 0, 0)
    return f"disabled by prctl ({state})" if state > 0 else ""


def _personality(text: str) -> str:
    """personality(2) in hexadecimal digits, as setarch(8) changes it: without address randomization, for example."""
    return text if text.strip("0") else ""


def _limits(threads_max: str) -> Iterator[tuple[str, str]]:
    for name, (number, usual) in _LIMITS.items():
        soft, _ = resource.getrlimit(number)
        if soft not in usual:
            yield name, "unlimited" if soft == _NONE else f"{soft / _MIB:g} MiB"
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    # The kernel's default is half of all the threads that it can have.
    if soft not in (_NONE, int(threads_max or 0) // 2):
        yield "processes", str(soft)


def cpu_quota(membership: str, cgroups: Path) -> str:
    """The smallest CPU quota of a control group and of those that contain it, like ``1.5 CPUs``; empty without one.

    Args:
        membership: the text of /proc/self/cgroup (cgroups(7)), version 1 or 2.
        cgroups: where control groups are mounted.
    """
    quotas = [_quota_of(group) for groups in kernel.cpu_groups(membership, cgroups) for group in groups]
    smallest = min((quota for quota in quotas if quota), default=0.0)
    return f"{smallest:g} CPUs" if smallest else ""


def _quota_of(group: Path) -> float:
    """The quota of one control group in CPUs; 0 if it has none."""
    words = (kernel.text(group / "cpu.max") or "").split()
    if not words:
        words = [kernel.text(group / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
    if len(words) != 2 or not all(word.isdigit() for word in words) or int(words[1]) == 0:
        return 0.0
    return int(words[0]) / int(words[1])
