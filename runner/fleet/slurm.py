"""Sweeps as Slurm's batch jobs, one per exclusive allocation: sbatch(1), squeue(1), scancel(1); no accounting."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from runner.fleet.fleetfile import Fleet, Placed
from runner.machine import execute
from runner.protocol.errors import RunnerError

# Slurm's words for a job that holds, or soon will hold, its machines: see squeue(1), JOB STATE CODES.
_RUNNING = {"RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING"}
_WAITING = {"PENDING", "SUSPENDED", "STOPPED", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESIZING"}
# Its reason -> what to do about it.
_ADVICE = {"BeginTime": "Slurm starts a requeued job after two minutes"}


def submit(fleet: Fleet, placed: Placed) -> str:
    """See runner.fleet.engines.Engine.submit()."""
    script = Path(placed.log).with_suffix(".sh")
    # exec: Slurm's signals reach the runner, which ends the sweep as at Ctrl-C.
    script.write_text(f"#!/bin/sh\nexec {shlex.join(placed.command)}\n", encoding="utf-8")
    answer = _ask(
        "sbatch", "--parsable", f"--job-name=runner-{placed.sweep_id}", "--nodes=1", "--exclusive", "--requeue",
        "--open-mode=append", f"--output={placed.log}", f"--chdir={fleet.directory}", *placed.options, str(script),
    )  # fmt: skip
    return answer.strip().partition(";")[0]


def states(fleet: Fleet, jobs: Sequence[str]) -> Mapping[str, str]:
    """See runner.fleet.engines.Engine.states()."""
    found = {}
    # Of all jobs: squeue fails altogether if one that it is asked for has left the queue.
    for line in _ask("squeue", "-h", "-o", "%i|%T|%r").splitlines():
        job, state, reason = [*line.strip().split("|"), "", ""][:3]
        if job in jobs and state in _RUNNING:
            found[job] = "running"
        elif job in jobs and state in _WAITING:
            found[job] = f"waiting ({_ADVICE.get(reason, reason)})"
    return found


def cancel(fleet: Fleet, jobs: Sequence[str]) -> None:
    """See runner.fleet.engines.Engine.cancel()."""
    _ask("scancel", *jobs)


def _ask(*words: str) -> str:
    """What a command of Slurm's prints.

    Raises:
        RunnerError: it failed, or is not installed.
    """
    done = execute.run_short(words, timeout_s=60)
    if done.status:
        reason = " ".join((done.err or done.out).split())
        raise RunnerError(f"engine slurm: {words[0]} failed: {reason or f'exit status {done.status}'}")
    return done.out
