"""Resuming a sweep: which sweep goes on, and which of its results are stale.

The sweep's folder holds all that is needed: what the sweep wrote down about itself (runner.results.ledger) and the
outcome of every job. Nothing else is read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.config.choices import as_hydra_wants
from runner.machine import host
from runner.machine.installation import OWN_FOLDERS, own_folders
from runner.machine.processes import Process
from runner.protocol.errors import RunnerError
from runner.results import ledger
from runner.results.ledger import CellEntry, SweepEntry
from runner.sweep import identity

if TYPE_CHECKING:
    from runner.sweep.planning import PlannedCell, SweepRequest

# (commit, diff against it): see runner.machine.checkout.git_state().
Git = tuple[str | None, str]

OPTION = "resume=true"


def sweep_entry(
    sweep: Path, request: SweepRequest, command: str, host_id: str, git: Git, distinguishing: Sequence[str]
) -> SweepEntry:
    """The content of sweep.json for the calling process; a resumed sweep keeps the command line it was started with."""
    commit, diff = git
    try:
        earlier = ledger.read_sweep(sweep)
        arguments, folder, command = earlier.arguments, earlier.working_directory, earlier.command
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
        hostname=str(host.fingerprint()["hostname"]),
    )


def is_elsewhere(entry: SweepEntry) -> bool:
    """Whether another host measured this sweep: whether it still runs there can't be told from here."""
    return entry.host_id != str(host.fingerprint()["host_id"])


def check_host(entry: SweepEntry) -> None:
    """Refuse to go on with a sweep of another host, whose results would be filed under this one.

    Raises:
        RunnerError: another host measured it.
    """
    if is_elsewhere(entry):
        raise RunnerError(
            f"resume {entry.sweep_id}: host {entry.hostname or entry.host_id} measured it, and this is "
            f"{host.fingerprint()['hostname']}; go on there (a container is the same host if it has the same name, "
            f"CPUs and memory), or measure it here as a sweep of its own: {entry.command}"
        )


def is_running(sweep: Path) -> bool:
    """Whether the process that runs this sweep is alive on this host."""
    try:
        return Process.of(ledger.read_sweep(sweep).runner).is_alive
    except RunnerError:
        return False


def newest_sweep_of(mlruns: Path, arguments: Sequence[str]) -> Path | None:
    """The newest sweep of this command line that is not running, which ``resume=true`` continues; None if none is."""
    line, folders = _comparable(arguments), own_folders()
    for sweep in sorted((mlruns / "sweeps").glob("*"), reverse=True):
        try:
            state = ledger.read_sweep(sweep)
        except RunnerError:
            continue
        same_line = _comparable(state.arguments) == line and own_folders(state.experiments) == folders
        is_ours = state.working_directory == str(Path.cwd()) and not is_elsewhere(state)
        if same_line and is_ours and not is_running(sweep):
            return sweep
    return None


def _comparable(arguments: Sequence[str]) -> list[str]:
    """The words that decide what a sweep is: older sweeps were recorded with other pluses."""
    return [word for word in as_hydra_wants(arguments) if word != OPTION]


def by_key(earlier: Sequence[CellEntry]) -> dict[str, list[CellEntry]]:
    """Cell key -> the entries of the cells with this key that the sweep has had so far."""
    entries: dict[str, list[CellEntry]] = {}
    for entry in earlier:
        entries.setdefault(entry.key, []).append(entry)
    return entries


def stale_results(earlier: Mapping[str, Sequence[CellEntry]], planned: PlannedCell) -> dict[str, list[str]]:
    """Cell id of each earlier result of this cell that no longer holds -> what has changed since.

    Args:
        earlier: see `by_key`.
        planned: the cell as it would be measured now.
    """
    return {
        cell.cell_id: identity.changes(cell.identity, planned.identity)
        for cell in earlier.get(planned.cell.key, ())
        if cell.cell_id != planned.cell_id
    }
