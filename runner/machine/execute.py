"""The only place that starts processes.

While a worker measures, the runner is inside one blocking poll(2) on a pidfd: ``Popen.wait(timeout)``
would wake up twenty times a second.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NamedTuple

# What a process gets to end by itself after SIGTERM before it is killed.
GRACE_S = 3.0

# Signals closer together than this are one request.
_ONE_REQUEST_S = 0.2

# How a user, a system or a lost terminal ends a sweep.
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Ended:
    """How a process ended. 0 says nothing about its work: only the worker's result file does."""

    returncode: int
    timed_out: bool
    wall_s: float
    started_at_s: float
    """CLOCK_MONOTONIC just before the start, comparable with the worker's own."""
    cpu_s: float = 0.0
    """CPU time of the process and of those it waited for."""
    lost: int | None = None
    """The process beside it whose end stopped it."""
    oom_kills: int = 0
    """Processes that the kernel's out-of-memory killer ended meanwhile, on the whole machine."""


def run(
    argv: Sequence[str],
    env: Mapping[str, str],
    stdout: Path,
    stderr: Path,
    timeout_s: float,
    marker: str,
    links: Mapping[Path, Path] | None = None,
    beside: Sequence[int] = (),
) -> Ended:
    """Start ``argv`` in its own session, sleep until it ends, and leave nothing of it running.

    Args:
        marker: value of RUNNER_JOB in ``env``; processes that carry it are killed at the end, whatever session
            they moved to (torch's run_cpu puts its workers into sessions of their own).
        links: symbolic links to make before the start (path -> target).
        beside: other processes that it needs: the end of one stops it as well.

    Raises:
        OSError: ``argv[0]`` can't be started.
        KeyboardInterrupt: passed on after everything has been stopped.
    """
    start, cpu_s, oom_kills = time.monotonic(), _cpu_of_children(), _oom_kills()
    first: int | None = None
    with _started_process(argv, env, stdout, stderr, marker, links) as process:
        first = _first_to_end([process.pid, *beside], timeout_s)
    return Ended(
        returncode=process.returncode,
        timed_out=first is None,
        wall_s=time.monotonic() - start,
        started_at_s=start,
        cpu_s=_cpu_of_children() - cpu_s,
        lost=first if first in beside else None,
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
        yield Process(process.pid, _started(process.pid) or 0)


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
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])  # else setpriv's to say, too late
    words = [*_with_us(), *argv]
    with stdout.open("wb") as out, stderr.open("wb") as err:
        process = subprocess.Popen(
            words, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
    try:
        yield process
    finally:
        _stop(process, marker)


@functools.cache
def _with_us() -> tuple[str, ...]:
    """setpriv(1): the kernel kills what we start when we are killed, workers of a launcher watch for themselves."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL") if setpriv else ()


def _oom_kills() -> int:
    """Since the machine started, those for a control group's limit included: ``oom_kill`` in proc(5)'s vmstat."""
    try:
        text = Path("/proc/vmstat").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)


def _cpu_of_children() -> float:
    """CPU seconds of all children that have been waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _first_to_end(pids: Sequence[int], timeout_s: float) -> int | None:
    """Block until one of the processes ends, and say which; None when ``timeout_s`` passed first."""
    poller = select.poll()
    watched: dict[int, int] = {}
    try:
        for pid in pids:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                return pid
            watched[descriptor] = pid
            poller.register(descriptor, select.POLLIN)
        # poll(2) takes milliseconds as a C int.
        ended = poller.poll(min(max(timeout_s, 0.0) * 1000, 2**31 - 1))
        return watched[ended[0][0]] if ended else None
    finally:
        for descriptor in watched:
            os.close(descriptor)


class _Signals:
    """How often the user has asked the sweep of this process to stop."""

    asked = 0
    last_s = 0.0
    shielded = False
    farewell = ""


def listen(farewell: str) -> None:
    """From now on the first of STOPS raises KeyboardInterrupt, and a second ends everything at once.

    Args:
        farewell: what is printed then.
    """
    _Signals.asked, _Signals.farewell = 0, farewell
    for number in STOPS:
        signal.signal(number, _on_stop)


def _on_stop(number: int, frame: FrameType | None) -> None:
    now_s = time.monotonic()
    # timeout(1) and a terminal that closes send two for one.
    if _Signals.asked and now_s - _Signals.last_s < _ONE_REQUEST_S:
        return
    _Signals.asked, _Signals.last_s = _Signals.asked + 1, now_s
    if _Signals.asked > 1:
        for pid in marked(f"{Process.this()}/", is_prefix=True):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        print(f"\n{_Signals.farewell}", flush=True)
        os._exit(130)
    if not _Signals.shielded:
        raise KeyboardInterrupt(f"signal {number}")


@contextlib.contextmanager
def _shielded() -> Iterator[None]:
    """Inside, a first signal waits until the end; a second does not."""
    previous = {number: signal.signal(number, _on_stop) for number in STOPS}
    before, _Signals.shielded = _Signals.asked, True
    try:
        yield
    finally:
        _Signals.shielded = False
        for number, handler in previous.items():
            signal.signal(number, handler)
    if _Signals.asked > before:
        raise KeyboardInterrupt("while a job was ended")


def _stop(process: subprocess.Popen[bytes], marker: str) -> None:
    """End the process, its group and whatever else carries the marker."""
    with _shielded():
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            if _first_to_end([process.pid], GRACE_S) is None:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for _ in range(100):
            left = marked(marker)
            if not left:
                return
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


@dataclass(frozen=True)
class Process:
    """One process of this host, told from a later one of the same number."""

    pid: int
    started: int
    """Clock ticks after boot: field 22 of proc(5)'s stat."""

    @classmethod
    def this(cls) -> Process:
        """The calling one."""
        return cls(os.getpid(), _started(os.getpid()) or 0)

    @classmethod
    def of(cls, text: str) -> Process:
        """The inverse of str(); a text that is none is a process that never was."""
        found = re.fullmatch(r"([0-9]{1,10})\.([0-9]{1,20})", text)
        return cls(int(found[1]), int(found[2])) if found else cls(0, 0)

    def __str__(self) -> str:
        return f"{self.pid}.{self.started}"

    @property
    def is_alive(self) -> bool:
        """Whether it still runs here."""
        return self.pid > 0 and _started(self.pid) == self.started


def _started(pid: int) -> int | None:
    """When a process began; None when there is none, or one that is only waited for (a zombie)."""
    try:
        # The command name before these fields is in parentheses and may hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def end_orphans() -> list[str]:
    """Kill the processes of jobs whose runner is gone, so that none keeps a core busy; a line for each."""
    found = []
    for pid, environment in _environments():
        marker = next((word[11:] for word in environment if word.startswith(b"RUNNER_JOB=")), b"").decode(
            errors="replace"
        )
        runner, _, job = marker.partition("/")
        if job and not Process.of(runner).is_alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                found.append(f"process {pid} of job {job}, whose runner ({runner.partition('.')[0]}) is gone")
    return found


def _environments() -> Iterator[tuple[int, list[bytes]]]:
    """Of every process that the caller may look at."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # ended meanwhile, or somebody else's
                yield int(entry.name), (entry / "environ").read_bytes().split(b"\0")


def marked(marker: str, is_prefix: bool = False) -> list[int]:
    """Live processes whose environment has RUNNER_JOB=marker, or a value that begins so."""
    wanted = f"RUNNER_JOB={marker}".encode()
    return [
        pid
        for pid, environment in _environments()
        if any(word.startswith(wanted) if is_prefix else word == wanted for word in environment)
    ]


class Output(NamedTuple):
    """What a short command left; status 127 when it could not be started or did not end in time."""

    status: int
    out: str
    err: str


def run_short(argv: Sequence[str], cwd: Path | None = None, timeout_s: float = 20) -> Output:
    """Run a short command."""
    try:
        done = subprocess.run(
            list(argv), cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Output(127, "", str(error))
    return Output(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
