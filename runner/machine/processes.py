"""Processes of this host: their identity, and those of a job, which are found by the environment that they carry.

This module reads /proc and sends signals; runner.machine.execute starts processes.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process identified by its boot, its pid and its start time, so that a reused pid is not taken for it."""

    pid: int
    """The pid; 0 for a process that never existed."""
    started: int
    """The start time in clock ticks after boot: field 22 of proc(5)'s stat."""
    boot: str = ""
    """The kernel's random id of that boot, which no other machine has; empty where it was not written down."""

    @classmethod
    def this(cls) -> Process:
        """The calling process."""
        return cls(os.getpid(), start_ticks(os.getpid()) or 0, boot_id())

    @classmethod
    def of(cls, text: str) -> Process:
        """The process that str() wrote as ``text``; any other text gives a process that never existed."""
        match = re.fullmatch(r"([0-9]{1,10})\.([0-9]{1,20})(?:\.([0-9a-f-]{1,40}))?", text)
        return cls(int(match[1]), int(match[2]), match[3] or "") if match else cls(0, 0)

    def __str__(self) -> str:
        return ".".join(filter(None, (str(self.pid), str(self.started), self.boot)))

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs on this host, since the boot in which it began."""
        return self.pid > 0 and self.boot in ("", boot_id()) and start_ticks(self.pid) == self.started


def boot_id() -> str:
    """The random id that the kernel draws at boot: random(4); empty where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def start_ticks(pid: int) -> int | None:
    """When the process began, in clock ticks after boot; None if it does not exist or is a zombie."""
    try:
        # The command name before these fields is in parentheses and may hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def end_orphans() -> list[str]:
    """Kill the processes of jobs whose runner is gone, so that none keeps a core busy; one sentence per kill."""
    reports = []
    for pid, environment in _environments():
        marker = next((word[11:] for word in environment if word.startswith(b"RUNNER_JOB=")), b"").decode(
            errors="replace"
        )
        runner, _, job = marker.partition("/")
        owner = Process.of(runner)
        # A marker that names no process is not ours.
        if job and owner.pid and not owner.is_alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                reports.append(f"process {pid} of job {job}, whose runner ({runner.partition('.')[0]}) is gone")
    return reports


def processes_with_marker(marker: str, is_prefix: bool = False) -> list[int]:
    """The pids of live processes whose environment has RUNNER_JOB=marker, or a value that begins with ``marker``."""
    variable = f"RUNNER_JOB={marker}".encode()
    return [
        pid
        for pid, environment in _environments()
        if any(word.startswith(variable) if is_prefix else word == variable for word in environment)
    ]


def _environments() -> Iterator[tuple[int, list[bytes]]]:
    """The pid and environment of every process that the caller may look at."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # the process has ended meanwhile, or belongs to another user
                yield int(entry.name), (entry / "environ").read_bytes().split(b"\0")
