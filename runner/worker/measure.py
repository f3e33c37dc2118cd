"""The timed loop, and what the operating system counted during exactly that loop.

Nothing here knows models or axes: a callable is timed.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.protocol import contamination, energy, kernel
from runner.protocol.resultfile import Window
from runner.protocol.stopping import GROWTH, MIN_ITERATIONS, Rule, enough
from runner.worker import surroundings

# Taken when this module is imported, which is before the model's code is: packages that freeze the time for tests
# replace the functions of the module time.
_CLOCK, _CLOCK_NS = time.perf_counter, time.perf_counter_ns

Ring = Sequence[Callable[[], object]]
"""Calls that the iterations make in turn: one per input set."""


def timed_loop(ring: Ring, rule: Rule, before: Callable[[], object] | None = None) -> tuple[list[int], object]:
    """Make the calls of the ring in turn, as often as the rule says.

    Returns each call's latency in nanoseconds (CLOCK_MONOTONIC), and what the last one returned, which is not copied.
    Between two calls there are a list append, three comparisons and an index into the ring, outside both time stamps,
    with ``before`` if there is one; now and then the latencies are sorted there, to see whether they are enough. The
    output of the call before is freed within the time of a call, as it would be in anybody's loop.
    """
    clock = _CLOCK_NS
    latencies_ns: list[int] = []
    record, count = latencies_ns.append, len(ring)
    output: object = None
    if rule.iterations is not None:
        for number in range(rule.iterations):
            iterate = ring[number % count]
            if before is not None:
                before()
            start = clock()
            output = iterate()
            record(clock() - start)
        return latencies_ns, output
    begin = clock()
    earliest, latest = begin + int(rule.min_time_s * 1e9), begin + int(rule.max_time_s * 1e9)
    look = MIN_ITERATIONS
    while (now := clock()) < latest or len(latencies_ns) < MIN_ITERATIONS:
        if now >= earliest and len(latencies_ns) >= look and rule.target_ci_pct is not None:
            if enough(latencies_ns, rule.target_ci_pct):
                break
            look = int(GROWTH * len(latencies_ns))
        iterate = ring[len(latencies_ns) % count]
        if before is not None:
            before()
        start = clock()
        output = iterate()
        record(clock() - start)
    return latencies_ns, output


def time_iterations(iterate: Callable[[int], object], iterations: int, max_s: float, least: int = 1) -> list[float]:
    """Call ``iterate`` with 0, 1, ... and return each call's latency in seconds.

    There are ``iterations`` calls, or fewer, because none but the first ``least`` begins after ``max_s`` seconds.
    """
    clock = _CLOCK
    begin = clock()
    latencies_s: list[float] = []
    while len(latencies_s) < least or (len(latencies_s) < iterations and clock() - begin < max_s):
        start = clock()
        iterate(len(latencies_s))
        latencies_s.append(clock() - start)
    return latencies_s


def process_cpu_clock(pid: int) -> int:
    """The clock id of another process's CPU time.

    It is MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) in the kernel's include/linux/posix-timers.h. The clock has a
    resolution of nanoseconds, and reading it disturbs the other process in no way.
    """
    return (~pid << 3) | 2


def thread_cpu_clock(thread: int) -> int:
    """The clock id of the CPU time of one of this process's threads: MAKE_THREAD_CPUCLOCK, see `process_cpu_clock`."""
    return (~thread << 3) | 6


def _cpu_seconds(pids: list[int] | None) -> float | None:
    if pids is None:
        return None
    try:
        return sum(time.clock_gettime(process_cpu_clock(pid)) for pid in pids)
    except OSError:
        return None


def ancestors_below(runner_pid: int) -> list[int] | None:
    """The processes between this one and the runner (shell, launcher), the nearest first.

    None if the runner is not an ancestor.
    """
    chain: list[int] = []
    pid = os.getppid()
    while pid > 1 and pid != runner_pid:
        chain.append(pid)
        above = kernel.parent(pid)
        if above is None:
            return None
        pid = above
    return chain if pid == runner_pid else None


def _reset_rss_peak() -> bool:
    """Reset VmHWM to the present resident set (proc(5), clear_refs, value 5); whether that worked."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _rss_bytes(field: str = "VmRSS") -> int | None:
    """The resident set now, or its peak (``VmHWM``)."""
    return kernel.status_bytes(field)


class OpenWindow:
    """A window that begins here and ends with close(), in which the operating system counts."""

    def __init__(self, runner_pid: int, cpus: Sequence[int] = ()) -> None:
        """The arguments are those of measure()."""
        self._runner, self._cpus = [runner_pid], cpus
        self._launchers = ancestors_below(runner_pid)
        self._peak_is_ours = _reset_rss_peak()
        self._rss = _rss_bytes()
        self._reading = surroundings.read(cpus) if cpus else None
        self._cpu_s = _cpu_seconds(self._runner), _cpu_seconds(self._launchers)
        self._counters, _ = energy.counters()
        self._energy_after: dict[Path, int] | None = None
        self._energy = energy.read(self._counters)
        self._wall_s = 0.0
        self._usage = self._usage_after = resource.getrusage(resource.RUSAGE_SELF)
        self._start_ns = _CLOCK_NS()

    def end(self) -> None:
        """End the window: what follows is not counted, although the peak of the memory may be read later."""
        self._wall_s = (_CLOCK_NS() - self._start_ns) / 1e9
        self._usage_after = resource.getrusage(resource.RUSAGE_SELF)
        self._energy_after = energy.read(self._counters)

    def close(self) -> Window:
        """The counters of the window, which ends here unless it has ended."""
        if not self._wall_s:
            self.end()
        wall_s, before, after = self._wall_s, self._usage, self._usage_after
        runner_s, launcher_s = _cpu_seconds(self._runner), _cpu_seconds(self._launchers)
        changes = None
        if self._reading:
            changes = surroundings.difference(self._reading, surroundings.read(self._cpus), self._cpus)

        rss = _rss_bytes()

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
            rss_peak_bytes=_rss_bytes("VmHWM") if self._peak_is_ours else None,
            rss_growth_bytes=used(rss, self._rss),
            runner_cpu_s=used(runner_s, self._cpu_s[0]),
            launcher_cpu_s=used(launcher_s, self._cpu_s[1]),
            surroundings=changes,
            energy_j=energy.joules_between(self._counters, self._energy, self._energy_after),
        )


@dataclass(frozen=True)
class Measured:
    """What a timed loop left."""

    latencies_s: list[float]
    window: Window
    output: Any
    """What the last iteration returned, as ``keep`` kept it."""


def measure_ring(
    ring: Ring,
    rule: Rule,
    runner_pid: int,
    region: AbstractContextManager[object] | None = None,
    cpus: Sequence[int] = (),
    keep: Callable[[Any], Any] = lambda output: None,
    before: Callable[[], object] | None = None,
) -> Measured:
    """Run the timed loop over a ring.

    Args:
        ring: its calls are the iterations. rule: when to stop. runner_pid: the runner, whose CPU time is counted as
        well. region: a context that is entered right before the loop and left right after it, such as perf's region.
        cpus: the CPUs on which the work of others is counted, see surroundings.cpus_to_watch(); empty: it is not
        counted. keep: what is made of the last output, as the first thing after the loop. before: what is called before
        each iteration, untimed.
    """
    open_window = OpenWindow(runner_pid, cpus)
    with region or nullcontext():
        latencies_ns, output = timed_loop(ring, rule, before)
    open_window.end()
    output = keep(output)
    return Measured([latency / 1e9 for latency in latencies_ns], open_window.close(), output)


def measure_again(
    run: Callable[[], Measured], times: int, announce: Callable[[], None] = lambda: None
) -> tuple[Measured, list[Window]]:
    """Run a timed loop, and again up to so many times while others disturb it.

    The last one counts, disturbed or not: choosing the best of them would make luck look like speed. They are loops of
    one process, which is one observation whichever of them counts.

    Args:
        announce: is called before each further loop.

    Returns:
        The loop that counts, and the windows of those before it.
    """
    disturbed: list[Window] = []
    while True:
        measured = run()
        if len(disturbed) >= times or not contamination.judge(measured.window):
            return measured, disturbed
        disturbed.append(measured.window)
        announce()


def measure(
    iterate: Callable[[], object],
    rule: Rule,
    runner_pid: int,
    region: AbstractContextManager[object] | None = None,
    cpus: Sequence[int] = (),
) -> tuple[list[float], Window]:
    """The latencies and the window of a timed loop over one call; the arguments are those of `measure_ring`."""
    measured = measure_ring((iterate,), rule, runner_pid, region, cpus)
    return measured.latencies_s, measured.window
