"""Sweeps as processes of this machine, one after another: the measurement lock sees to that."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from runner.fleet.fleetfile import Fleet, Placed
from runner.machine import execute
from runner.machine.processes import Process


def submit(fleet: Fleet, placed: Placed) -> str:
    """See runner.fleet.engines.Engine.submit()."""
    return str(execute.start_detached(placed.command, Path(fleet.directory), Path(placed.log)))


def states(fleet: Fleet, jobs: Sequence[str]) -> Mapping[str, str]:
    """See runner.fleet.engines.Engine.states()."""
    return {job: "running" for job in jobs if Process.of(job).is_alive}


def cancel(fleet: Fleet, jobs: Sequence[str]) -> None:
    """See runner.fleet.engines.Engine.cancel()."""
    for job in jobs:
        process = Process.of(job)
        if process.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
