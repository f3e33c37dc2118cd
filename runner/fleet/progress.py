"""How far the sweeps of a fleet are: what the engine says of them, and what they have left in their folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.fleet.engines import engine_of
from runner.fleet.fleetfile import Fleet, Placed
from runner.fleet.orders import jobs_of
from runner.protocol.errors import RunnerError
from runner.protocol.stored import log_text
from runner.protocol.verdicts import Status
from runner.results import ledger, planfile
from runner.results.outcome import OUTCOME_FILE

ENDED, STOPPED = "ended", "stopped"


@dataclass(frozen=True)
class Progress:
    """How far one sweep is."""

    placed: Placed
    state: str
    """``waiting (...)`` or ``running``, by the engine; else `ENDED`, or `STOPPED` before its end."""
    jobs: int
    """How many of its jobs have ended; 0 where its folder is not here."""
    planned: int
    """How many jobs its first rounds have."""
    detail: str = ""
    """What else there is to say, in words: how it ended, or the last line that it printed."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it by itself."""
        return self.state in (ENDED, STOPPED)


def of(fleet: Fleet, mlruns: Path) -> list[Progress]:
    """The progress of every sweep.

    Args:
        mlruns: the folder of results here.

    Raises:
        RunnerError: the engine can't be reached.
    """
    states = engine_of(fleet.engine).states(fleet, list(jobs_of(fleet)))
    return [_of(placed, mlruns / "sweeps" / placed.sweep_id, states.get(placed.job, "")) for placed in fleet.sweeps]


def _of(placed: Placed, sweep: Path, state: str) -> Progress:
    jobs = sum(1 for _ in sweep.glob(f"cells/*/round-*/{OUTCOME_FILE}"))
    try:
        planned = len(planfile.read_plan(sweep).order)
    except RunnerError:
        planned = 0
    if state:
        return Progress(placed, state, jobs, planned, "" if jobs else last_line(Path(placed.log)))
    end = ledger.read_end(sweep)
    if end is not None and end.status != Status.KILLED:
        failed = int(end.figures.get("sweep/cells_failed", 0))
        return Progress(placed, ENDED, jobs, planned, f"{failed} cells failed" if failed else "")
    detail = last_line(Path(placed.log)) if placed.job else "it was never submitted"
    return Progress(placed, STOPPED, jobs, planned, detail)


def last_line(log: Path) -> str:
    """The last line that a sweep printed; empty where there is none."""
    lines = [line.strip() for line in log_text(log).splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def left(found: Sequence[Progress]) -> list[str]:
    """The ids of the sweeps that stopped before their end."""
    return [one.placed.sweep_id for one in found if one.state == STOPPED]
