"""Was somebody else at work while a pass measured? Judged from what the worker read around the timed loop. Pure.

What is whose. CPU time is others' after the job's own has been taken off: its worker, launcher (with a server's
frontend), load generator and runner, each by its own exact clock; the kernel's threads are others, also where they work
for the job. Steal is the hypervisor's, quota the cgroup's, throttling the heat's: never the job's choice. Pressure
(PSI) is of the whole machine, the job included: ``memory_some`` counts in any case, since a job that waits for memory
has no clean times whoever took it; ``io_some`` counts together with page faults of the job that went to the disk,
because others that wait for a disk disturb nobody; ``cpu_some`` is only shown, because more threads than cores make it
all by themselves. So do involuntary switches: they are named beside others' CPU time and are no evidence alone. The
frequency is shown and not judged: turbo comes and goes with the job's own work.

Not seen: work on other cores that shares the caches, the memory's bandwidth or the turbo budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runner.protocol.resultfile import Window
from runner.protocol.verdicts import UNOBSERVED

# Percent of one core. A parallel step waits for its slowest core and is late by as much; what a
# machine does beside (measured on two cores) takes 1 to 2 %.
LIMIT_PCT = 5.0
# Percent of the wall time that processes stood still. Pressure is exact, and 0 on a machine with enough memory.
STALL_LIMIT_PCT = 1.0
# A busy loop that shares a core takes half of it. Ticks that can't tell that much from nothing tell nothing.
COARSE_PCT = 50.0
# The longest that a page of a file takes from a disk that is not asked by others: a seek.
_SEEK_S = 0.01


def figures(window: Window) -> dict[str, float]:
    """What was seen, in percent of one core or of the wall time, and counts; absent = unobserved."""
    seen = window.surroundings
    if seen is None:
        return {}
    per_wall = 100 / window.wall_s
    found: dict[str, float | None] = {
        f"psi_{name}_pct": seen.pressure_s[f"{name}_some"] * per_wall
        for name in ("cpu", "memory", "io")
        if f"{name}_some" in seen.pressure_s
    }
    found["quota_pct"] = None if seen.quota_s is None else seen.quota_s * per_wall
    found["resolution_pct"] = seen.resolution_s * per_wall
    if seen.resolution_s * per_wall <= COARSE_PCT:
        found["steal_pct"] = None if seen.steal_s is None else seen.steal_s * per_wall
        if seen.busy_s is not None:
            beside_s = (window.runner_cpu_s, window.launcher_cpu_s, window.generator_cpu_s)
            own_s = window.user_s + window.system_s + sum(filter(None, beside_s))
            found["foreign_cpu_pct"] = max(seen.busy_s - own_s, 0.0) * per_wall
    if seen.frequency_before_hz and seen.frequency_after_hz:
        found["frequency_change_pct"] = 100 * (seen.frequency_after_hz / seen.frequency_before_hz - 1)
    found |= {
        "throttle_events": seen.throttle_events,
        "swapped_pages": seen.swapped_pages,
        "allocation_stalls": seen.allocation_stalls,
        "oom_kills": seen.oom_kills,
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def judge(window: Window | None) -> tuple[str, ...]:
    """Why a pass's times are not its own, in words, the gravest first; empty when nothing was seen.

    A figure counts from where it exceeds its limit by more than its resolution, so that a window of a few clock ticks
    is not condemned by one of them.
    """
    if window is None:
        return ()
    found = figures(window)

    def over(name: str, limit: float) -> float:
        """The figure where it is past the limit, else 0."""
        value = found.get(name, 0.0)
        return value if value > limit else 0.0

    ticks = LIMIT_PCT + found.get("resolution_pct", 0.0)
    cpus = len(window.surroundings.cpus) if window.surroundings else 0
    # Others that wait for the disk make the pressure, and one page of ours does not make it ours.
    disk = min(found.get("psi_io_pct", 0.0), 100 * window.major_faults * _SEEK_S / window.wall_s)
    beside = f"{cpus} {'CPU' if cpus == 1 else 'CPUs'} watched, {window.involuntary_switches} involuntary switches"
    reasons = (
        (over("foreign_cpu_pct", ticks), f"other processes took {{:.0f}} % of a core; {beside}"),
        (over("steal_pct", ticks), "the hypervisor took {:.0f} % of a core (steal)"),
        (over("quota_pct", STALL_LIMIT_PCT), "the cgroup's CPU quota stopped it for {:.0f} % of the time"),
        (over("psi_memory_pct", STALL_LIMIT_PCT), "processes waited for memory for {:.0f} % of the time (PSI)"),
        (
            disk if disk > STALL_LIMIT_PCT else 0.0,
            f"{window.major_faults} page faults waited for the disk up to {{:.0f}} % of the time (PSI)",
        ),
        (over("oom_kills", 0.0), "the kernel killed {:.0f} processes for lack of memory"),
        (over("throttle_events", 0.0), "heat slowed the cores {:.0f} times"),
    )
    return tuple(text.format(value) for value, text in reasons if value)


def judge_all(windows: Sequence[Window | None]) -> tuple[str, ...]:
    """The reasons of every instance of a job; each looked around on cores of its own."""
    if len(windows) == 1:
        return judge(windows[0])
    return tuple(f"instance {i}: {reason}" for i, window in enumerate(windows) for reason in judge(window))


def in_words(found: Mapping[int, str], rounds: int, figures: Mapping[str, float]) -> str:
    """``no``, in how many rounds and why, or ``unobserved`` where others' CPU time could not be told.

    Args:
        found: round -> why it is contaminated, of a cell with so many rounds.
        figures: the cell's metrics.
    """
    if found:
        return f"{len(found)} of {rounds} rounds: {next(iter(found.values()))}"
    return "no" if "contamination/foreign_cpu_pct" in figures else UNOBSERVED
