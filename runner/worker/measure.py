"""The timed loop and what the operating system counted around exactly that loop.

Nothing here knows models or axes: it times a callable.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from runner.protocol.resultfile import Window
from runner.protocol.stopping import GROWTH, MIN_ITERATIONS, Rule, enough
from runner.worker import surroundings


def timed_loop(step: Callable[[], object], rule: Rule) -> list[int]:
    """Call ``step`` as often as the rule says and return each call's latency in nanoseconds (CLOCK_MONOTONIC).

    The bookkeeping between two calls is a list append and two comparisons, outside both time stamps; now and then the
    samples are sorted there, to see whether they are enough.
    """
    clock = time.perf_counter_ns
    samples: list[int] = []
    record = samples.append
    if rule.iterations is not None:
        for _ in range(rule.iterations):
            start = clock()
            step()
            record(clock() - start)
        return samples
    begin = clock()
    earliest, latest = begin + int(rule.min_time_s * 1e9), begin + int(rule.max_time_s * 1e9)
    look = MIN_ITERATIONS
    while (now := clock()) < latest or len(samples) < MIN_ITERATIONS:
        if now >= earliest and len(samples) >= look and rule.target_ci_pct is not None:
            if enough(samples, rule.target_ci_pct):
                break
            look = int(GROWTH * len(samples))
        start = clock()
        step()
        record(clock() - start)
    return samples


def several(step: Callable[[int], object], iterations: int, max_s: float) -> list[float]:
    """Call ``step`` with 0, 1, ... ``iterations`` times, or fewer: none is begun after ``max_s``. Seconds of each."""
    clock = time.perf_counter
    begin = clock()
    seconds: list[float] = []
    while not seconds or (len(seconds) < iterations and clock() - begin < max_s):
        start = clock()
        step(len(seconds))
        seconds.append(clock() - start)
    return seconds


def process_cpu_clock(pid: int) -> int:
    """Clock id of another process's CPU time: MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of the
    kernel's include/linux/posix-timers.h; nanosecond resolution and no work for the process read."""
    return (~pid << 3) | 2


def _cpu_seconds(pids: list[int] | None) -> float | None:
    if pids is None:
        return None
    try:
        return sum(time.clock_gettime(process_cpu_clock(pid)) for pid in pids)
    except OSError:
        return None


def ancestors_below(runner_pid: int) -> list[int] | None:
    """The processes between this one and the runner (shell, launcher), nearest first.

    None when the runner is not an ancestor.
    """
    chain: list[int] = []
    pid = os.getppid()
    while pid > 1 and pid != runner_pid:
        chain.append(pid)
        try:
            # Field 4 of proc(5)'s stat; the command name before it is in parentheses and may hold spaces.
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return None
    return chain if pid == runner_pid else None


def _reset_rss_peak() -> bool:
    """Set VmHWM back to the present resident set (proc(5), clear_refs, value 5)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _rss_peak_bytes() -> int | None:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


class Counted:
    """What the operating system counts from here to close(), as a Window."""

    def __init__(self, runner_pid: int, watched: Sequence[int] = ()) -> None:
        """See measure()."""
        self._runner, self._watched = [runner_pid], watched
        self._between = ancestors_below(runner_pid)
        self._peak_is_ours = _reset_rss_peak()
        self._around = surroundings.read(watched) if watched else None
        self._cpu_s = _cpu_seconds(self._runner), _cpu_seconds(self._between)
        self._usage = resource.getrusage(resource.RUSAGE_SELF)
        self._start_ns = time.perf_counter_ns()

    def close(self) -> Window:
        """The counters of the window, which ends here."""
        wall_s = (time.perf_counter_ns() - self._start_ns) / 1e9
        before, after = self._usage, resource.getrusage(resource.RUSAGE_SELF)
        runner_s, between_s = _cpu_seconds(self._runner), _cpu_seconds(self._between)
        around = self._around
        seen = surroundings.between(around, surroundings.read(self._watched), self._watched) if around else None

        def used(end: float | None, begin: float | None) -> float | None:
            return None if end is None or begin is None else end - begin

        return Window(
            wall_s=wall_s,
            minor_faults=after.ru_minflt - before.ru_minflt,
            major_faults=after.ru_majflt - before.ru_majflt,
            voluntary_switches=after.ru_nvcsw - before.ru_nvcsw,
            involuntary_switches=after.ru_nivcsw - before.ru_nivcsw,
            user_s=after.ru_utime - before.ru_utime,
            system_s=after.ru_stime - before.ru_stime,
            rss_peak_bytes=_rss_peak_bytes() if self._peak_is_ours else None,
            runner_cpu_s=used(runner_s, self._cpu_s[0]),
            launcher_cpu_s=used(between_s, self._cpu_s[1]),
            surroundings=seen,
        )


def measure(
    step: Callable[[], object],
    rule: Rule,
    runner_pid: int,
    around: AbstractContextManager[object] | None = None,
    watched: Sequence[int] = (),
) -> tuple[list[float], Window]:
    """Run the timed loop; returns each iteration's latency in seconds and the window's counters.

    Args:
        around: entered right before the loop and left right after it, as perf's region is.
        watched: CPUs to look around on, see surroundings.watched(); empty: nobody looks.
    """
    counted = Counted(runner_pid, watched)
    with around or nullcontext():
        samples = timed_loop(step, rule)
    window = counted.close()
    return [sample / 1e9 for sample in samples], window
