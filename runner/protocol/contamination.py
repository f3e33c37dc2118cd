"""Was somebody else at work while a pass measured? Judged from what the worker read around the timed loop. Pure.

The worker applies this rule to measure again at once, and the runner to say what a result is worth.

Who is to blame. CPU time counts as others' after the job's own has been subtracted: its worker, launcher (with a
server's frontend), load generator and runner, each by its own exact clock. The kernel's threads count as others, even
where they work for the job. Steal is due to the hypervisor, quota to the cgroup and throttling to heat: the job chooses
none of them. Pressure (PSI) is of the whole machine, the job included. ``memory_some`` counts in any case: a job that
waits for memory has no clean times, no matter which process took the memory. ``io_some`` counts only together with page
faults of the job that went to the disk, because others that wait for a disk disturb nobody. ``cpu_some`` is only shown,
because more threads than cores are enough to cause it. They cause involuntary switches as well, which are therefore
named together with others' CPU time and are not evidence alone. The frequency is shown and not judged: turbo comes and
goes with the job's own work.

Not seen: work on other cores that shares the caches, the memory's bandwidth or the turbo budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runner.protocol.resultfile import Window
from runner.protocol.verdicts import UNOBSERVED

# Percent of one core. A parallel iteration waits for its slowest core and is late by as much; the background work of a
# machine (measured on two cores) takes 1 to 2 %.
LIMIT_PCT = 5.0
# Percent of the wall time that processes stood still. Pressure is exact, and 0 on a machine with enough memory.
STALL_LIMIT_PCT = 1.0
# A busy loop that shares a core takes half of it. Clock ticks that are too coarse to show it show nothing.
COARSE_PCT = 50.0
# The longest time to read one page of a file from a disk that nobody else uses: a seek.
_SEEK_S = 0.01


def figures(window: Window) -> dict[str, float]:
    """The figures of a window, in percent of one core or of the wall time, and counts; unobserved ones are absent."""
    surroundings = window.surroundings
    if surroundings is None:
        return {}
    per_wall = 100 / window.wall_s
    values: dict[str, float | None] = {
        f"psi_{name}_pct": surroundings.pressure_s[f"{name}_some"] * per_wall
        for name in ("cpu", "memory", "io")
        if f"{name}_some" in surroundings.pressure_s
    }
    values["quota_pct"] = None if surroundings.quota_s is None else surroundings.quota_s * per_wall
    values["resolution_pct"] = surroundings.resolution_s * per_wall
    if surroundings.resolution_s * per_wall <= COARSE_PCT:
        values["steal_pct"] = None if surroundings.steal_s is None else surroundings.steal_s * per_wall
        if surroundings.busy_s is not None:
            helpers_s = (window.runner_cpu_s, window.launcher_cpu_s, window.generator_cpu_s)
            own_s = window.user_s + window.system_s + sum(filter(None, helpers_s))
            values["foreign_cpu_pct"] = max(surroundings.busy_s - own_s, 0.0) * per_wall
    if surroundings.frequency_before_hz and surroundings.frequency_after_hz:
        values["frequency_change_pct"] = 100 * (surroundings.frequency_after_hz / surroundings.frequency_before_hz - 1)
    values |= {
        "throttle_events": surroundings.throttle_events,
        "swapped_pages": surroundings.swapped_pages,
        "allocation_stalls": surroundings.allocation_stalls,
        "oom_kills": surroundings.oom_kills,
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def judge(window: Window | None) -> tuple[str, ...]:
    """Why a pass's times can't be believed, one text per reason, the gravest first; empty if nothing disturbed it.

    A figure counts from where it exceeds its limit by more than its resolution, so that a window of a few clock ticks
    is not condemned by one of them.
    """
    if window is None:
        return ()
    values = figures(window)

    def over(name: str, limit: float) -> float:
        """The figure where it is past the limit, else 0."""
        value = values.get(name, 0.0)
        return value if value > limit else 0.0

    ticks = LIMIT_PCT + values.get("resolution_pct", 0.0)
    cpus = len(window.surroundings.cpus) if window.surroundings else 0
    # Others that wait for the disk make the pressure, and one page of ours does not make it ours.
    disk = min(values.get("psi_io_pct", 0.0), 100 * window.major_faults * _SEEK_S / window.wall_s)
    context = f"{cpus} {'CPU' if cpus == 1 else 'CPUs'} watched, {window.involuntary_switches} involuntary switches"
    reasons = (
        (over("foreign_cpu_pct", ticks), f"other processes took {{:.0f}} % of a core; {context}"),
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
    """The reasons of every instance of a job; each instance watched its own cores."""
    if len(windows) == 1:
        return judge(windows[0])
    return tuple(f"instance {i}: {reason}" for i, window in enumerate(windows) for reason in judge(window))


def in_words(reasons: Mapping[int, str], rounds: int, figures: Mapping[str, float]) -> str:
    """How many rounds of a cell were contaminated and why; ``no``, or ``unobserved`` if others' CPU time is unknown.

    Args:
        reasons: round -> why it is contaminated.
        rounds: the number of rounds that the cell has.
        figures: the cell's metrics.
    """
    if reasons:
        return f"{len(reasons)} of {rounds} rounds: {next(iter(reasons.values()))}"
    return "no" if "contamination/foreign_cpu_pct" in figures else UNOBSERVED
