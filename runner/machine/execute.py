"""The only place that starts processes.

While a worker measures, the runner is inside one blocking poll(2) on a pidfd: ``Popen.wait(timeout)``
would wake up twenty times per second. It wakes when a worker announces a phase, which none does within a window.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import resource
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from runner.machine.announcements import Announcements
from runner.machine.processes import Process, boot_id, processes_with_marker, start_ticks
from runner.machine.stop_signals import shielded

# A process has this long to end by itself after SIGTERM; then it is killed.
GRACE_S = 3.0
# A process that is killed has ended within this time, also one with much memory to give back.
_DYING_S = 1.0
# Tools print numbers and messages as parsers expect them, whatever the caller's language: with a German locale perf
# writes 0,55, and IPEX's launcher reads lscpu.
LOCALE = {"LC_ALL": "C"}


@dataclass(frozen=True)
class Ended:
    """How a process ended. A status of 0 says nothing about its work: only the worker's result file does."""

    returncode: int
    """The exit status, or the number of the signal that ended the process, negated."""
    timed_out: bool
    """Whether the process was stopped because its time was up."""
    wall_s: float
    """The wall time from the start of the process to its end."""
    started_at_s: float
    """CLOCK_MONOTONIC just before the start, comparable with the worker's own."""
    cpu_s: float = 0.0
    """The CPU time of the process and of those that it waited for."""
    lost_companion: int | None = None
    """The pid of the companion whose end stopped the process; None if none did."""
    oom_kills: int = 0
    """How many processes the kernel's out-of-memory killer ended meanwhile on the whole machine."""


def run(
    argv: Sequence[str],
    env: Mapping[str, str],
    stdout: Path,
    stderr: Path,
    timeout_s: float,
    marker: str,
    links: Mapping[Path, Path] | None = None,
    companions: Sequence[int] = (),
    announcements: Announcements | None = None,
) -> Ended:
    """Start ``argv`` in its own session, sleep until it ends, and leave nothing of it running.

    Args:
        marker: value of RUNNER_JOB in ``env``; processes that carry it are killed at the end, whatever session
            they moved to (torch's run_cpu puts its workers into sessions of their own).
        links: symbolic links to make before the start (path -> target).
        companions: pids of processes that the new one needs: the end of one of them stops it as well.
        announcements: what the process announces of itself is taken while it runs.

    Raises:
        OSError: ``argv[0]`` can't be started.
        KeyboardInterrupt: passed on after everything has been stopped.
    """
    start, cpu_s, oom_kills = time.monotonic(), _cpu_of_children(), _oom_kills()
    first: int | None = None
    with _started_process(argv, env, stdout, stderr, marker, links) as process:
        first = _first_to_end([process.pid, *companions], timeout_s, announcements)
    if first == process.pid and process.returncode and companions:
        # A companion that dies closes its sockets before it has ended, so that the process may fail first.
        first = _first_to_end(companions, _DYING_S) or first
    return Ended(
        returncode=process.returncode,
        timed_out=first is None,
        wall_s=time.monotonic() - start,
        started_at_s=start,
        cpu_s=_cpu_of_children() - cpu_s,
        lost_companion=first if first in companions else None,
        oom_kills=_oom_kills() - oom_kills,
    )


@contextlib.contextmanager
def background(
    argv: Sequence[str],
    env: Mapping[str, str],
    stdout: Path,
    stderr: Path,
    marker: str,
    links: Mapping[Path, Path] | None = None,
) -> Iterator[Process]:
    """Start ``argv`` like run(), and leave nothing of it running at the end of the block.

    Raises:
        OSError: ``argv[0]`` can't be started.
    """
    with _started_process(argv, env, stdout, stderr, marker, links) as process:
        yield Process(process.pid, start_ticks(process.pid) or 0)


@contextlib.contextmanager
def _started_process(
    argv: Sequence[str],
    env: Mapping[str, str],
    stdout: Path,
    stderr: Path,
    marker: str,
    links: Mapping[Path, Path] | None,
) -> Iterator[subprocess.Popen[bytes]]:
    for link, target in (links or {}).items():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    if shutil.which(argv[0], path=env.get("PATH")) is None:
        # Otherwise only setpriv would report it, after its own start has succeeded.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
    words = [*_ending_with_us(), *argv]
    with stdout.open("wb") as out, stderr.open("wb") as err:
        process = subprocess.Popen(
            words, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
    try:
        yield process
    finally:
        _stop(process, marker)


@functools.cache
def _ending_with_us() -> tuple[str, ...]:
    """The words of setpriv(1) that make the kernel kill what we start when we are killed; () without setpriv.

    They reach the launcher only: its workers watch for the runner's end by themselves.
    """
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL") if setpriv else ()


def _oom_kills() -> int:
    """Out-of-memory kills since boot, including those for a control group's limit: ``oom_kill`` in proc(5)'s vmstat."""
    try:
        text = Path("/proc/vmstat").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)


def _cpu_of_children() -> float:
    """CPU seconds of all children that have been waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _first_to_end(pids: Sequence[int], timeout_s: float, announcements: Announcements | None = None) -> int | None:
    """Block until one of the processes ends, and return its pid; None if ``timeout_s`` passed first."""
    end = time.monotonic() + max(timeout_s, 0.0)
    poller = select.poll()
    pid_of: dict[int, int] = {}
    try:
        for pid in pids:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                return pid
            pid_of[descriptor] = pid
            poller.register(descriptor, select.POLLIN)
        if announcements is not None:
            poller.register(announcements.fileno(), select.POLLIN)
        while True:
            # poll(2) takes milliseconds as a C int.
            events = [event[0] for event in poller.poll(min(max(end - time.monotonic(), 0.0) * 1000, 2**31 - 1))]
            ended = [pid_of[descriptor] for descriptor in events if descriptor in pid_of]
            if ended or not events or announcements is None:
                return ended[0] if ended else None
            announcements.take()
    finally:
        for descriptor in pid_of:
            os.close(descriptor)


def _stop(process: subprocess.Popen[bytes], marker: str) -> None:
    """End the process, its group and whatever else carries the marker."""
    with shielded():
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            if _first_to_end([process.pid], GRACE_S) is None:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for _ in range(100):
            survivors = processes_with_marker(marker)
            if not survivors:
                return
            for pid in survivors:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


def start_detached(argv: Sequence[str], cwd: Path, log: Path) -> Process:
    """Start a process that outlives this one, in a session of its own; what it prints is added to a file.

    Raises:
        OSError: it can't be started.
    """
    with log.open("ab") as out:
        started = subprocess.Popen(
            list(argv), cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    return Process(started.pid, start_ticks(started.pid) or 0, boot_id())


# The status of a short command that could not be started or did not end in time, as shells have it.
NOT_STARTED = 127


class Output(NamedTuple):
    """What a short command printed; the status is NOT_STARTED if it could not be started or did not end in time."""

    status: int
    out: str
    err: str


def run_short(argv: Sequence[str], cwd: Path | None = None, timeout_s: float = 20) -> Output:
    """Run a short command to its end in the locale C and return what it printed; it raises nothing."""
    try:
        done = subprocess.run(
            list(argv),
            cwd=cwd,
            env={**os.environ, **LOCALE},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Output(NOT_STARTED, "", str(error))
    return Output(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def run_shown(argv: Sequence[str], timeout_s: float) -> int:
    """Run a command whose output goes to the terminal, and return its exit status; it raises nothing but Ctrl-C.

    The status is NOT_STARTED if it could not be started or did not end in time.
    """
    try:
        return subprocess.run(list(argv), stdin=subprocess.DEVNULL, timeout=timeout_s, check=False).returncode
    except (OSError, subprocess.TimeoutExpired):
        return NOT_STARTED
