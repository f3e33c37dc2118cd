"""What the kernel says in procfs, sysfs and control groups, for the runner and the worker alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def text(file: Path) -> str | None:
    """The text of such a file, without white space around it; None if there is none to read."""
    try:
        # Names of processes and threads may be any bytes.
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, ValueError):
        return None


def status(field: str, file: Path = Path("/proc/self/status")) -> str | None:
    """A field of a file such as /proc/meminfo or /proc/self/status (proc(5)); None without it."""
    for line in (text(file) or "").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return value.strip()
    return None


def status_bytes(field: str, file: Path = Path("/proc/self/status")) -> int | None:
    """A field of such a file that is in kB, in bytes; None without it."""
    value = status(field, file)
    return None if value is None else int(value.split()[0]) * 1024


def parent(pid: int) -> int | None:
    """The process that a process belongs to; None if there is no such process."""
    try:
        # Field 4 of proc(5)'s stat; the command name before it is in parentheses and may hold spaces.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def cpu_groups(membership: str, cgroups: Path) -> Iterator[list[Path]]:
    """The folders of a control group for CPUs, each followed by those that contain it, for every hierarchy.

    Args:
        membership: the text of /proc/self/cgroup (cgroups(7)), version 1 or 2.
        cgroups: where control groups are mounted.
    """
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups / "cpu" if controllers else cgroups
        own = root / path.lstrip("/")
        yield [folder for folder in (own, *own.parents) if folder.is_relative_to(root)]
