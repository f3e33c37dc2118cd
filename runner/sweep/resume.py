"""Which sweep goes on, and which of its results still hold.

All that is needed is in the sweep's folder: what it wrote down about itself (runner.results.ledger) and the outcome of
every job. Nothing else is asked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from runner.config.experiments import as_default
from runner.machine.execute import Process
from runner.machine.installation import OWN_FOLDERS, own_folders
from runner.protocol.errors import RunnerError
from runner.results import ledger
from runner.results.ledger import CellEntry, SweepEntry
from runner.sweep import identity
from runner.sweep.planning import Planned, SweepRequest

# (commit, diff against it): see checkout.git_state().
Git = tuple[str | None, str]

OPTION = "resume=true"


def entry(
    sweep: Path, request: SweepRequest, command: str, host_id: str, git: Git, distinguishing: Sequence[str]
) -> SweepEntry:
    """sweep.json of the calling process; a sweep that goes on keeps the line that it was started with."""
    commit, diff = git
    try:
        before = ledger.read_sweep(sweep)
        arguments, folder, command = before.arguments, before.working_directory, before.command
    except RunnerError:
        arguments, folder = [word for word in sys.argv[1:] if word != OPTION], str(Path.cwd())
    return SweepEntry(
        sweep_id=request.sweep_id,
        experiment=request.experiment,
        command=command,
        host_id=host_id,
        commit=commit or "not a git checkout",
        is_dirty=bool(diff),
        distinguishing_axes=list(distinguishing),
        arguments=arguments,
        working_directory=folder,
        experiments=os.environ.get(OWN_FOLDERS, ""),
        runner=str(Process.this()),
    )


def is_running(sweep: Path) -> bool:
    """Whether the process that runs it is alive on this host."""
    try:
        return Process.of(ledger.read_sweep(sweep).runner).is_alive
    except RunnerError:
        return False


def the_same(mlruns: Path, arguments: Sequence[str]) -> Path | None:
    """The newest sweep that was started with this line and is not running: what ``resume=true`` goes on with."""
    line, folders = _comparable(arguments), own_folders(os.environ.get(OWN_FOLDERS, ""))
    for sweep in sorted((mlruns / "sweeps").glob("*"), reverse=True):
        try:
            state = ledger.read_sweep(sweep)
        except RunnerError:
            continue
        same_line = _comparable(state.arguments) == line and own_folders(state.experiments) == folders
        if same_line and state.working_directory == str(Path.cwd()) and not is_running(sweep):
            return sweep
    return None


def _comparable(arguments: Sequence[str]) -> list[str]:
    """The words that decide what a sweep is: sweeps of before were recorded with a plus before the experiment."""
    return [word for word in as_default(arguments) if word != OPTION]


def replaced(before: Sequence[CellEntry], planned: Planned) -> dict[str, list[str]]:
    """Ids of earlier results of this cell that no longer hold -> what changed since.

    Args:
        before: the cells that the sweep has had.
    """
    return {
        cell.cell_id: identity.changes(cell.identity, planned.identity)
        for cell in before
        if cell.cell_id != planned.cell_id and cell.key == planned.cell.key
    }
