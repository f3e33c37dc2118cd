"""``python -m runner resume [SWEEP]``: go on with a sweep that was interrupted or killed.

What a sweep needs to be gone on with is in its folder: what it wrote down about itself (runner.ledger) and the outcome
of every job. Nothing else is asked.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from runner import compare, identity, ledger
from runner.errors import RunnerError
from runner.execute import Process
from runner.ledger import CellEntry, SweepEntry
from runner.planning import Planned, Request, quoted

# (commit, diff against it): see execute.git_state().
Git = tuple[str | None, str]

_OPTION = "resume=true"
_EPILOG = """Runs only what is missing: rounds that finished are kept, a cell whose inputs changed (versions, libraries,
code, machine) is measured anew and says what changed. Failed jobs are kept too, unless retries=N is given. OPTION is
anything that `python -m runner` takes, such as rounds=8."""


def entry(sweep: Path, request: Request, command: str, host_id: str, git: Git, columns: Sequence[str]) -> SweepEntry:
    """sweep.json of the calling process; a sweep that goes on keeps the line that it was started with."""
    commit, diff = git
    try:
        before = ledger.read_sweep(sweep)
        arguments, folder, command = before.arguments, before.folder, before.command
    except RunnerError:
        arguments, folder = [word for word in sys.argv[1:] if word != _OPTION], str(Path.cwd())
    return SweepEntry(
        sweep_id=request.sweep_id,
        experiment=request.experiment,
        command=command,
        host_id=host_id,
        commit=commit or "not a git checkout",
        is_dirty=bool(diff),
        columns=list(columns),
        arguments=arguments,
        folder=folder,
        experiments=os.environ.get("RUNNER_EXPERIMENTS", ""),
        runner=str(Process.this()),
    )


def is_running(sweep: Path) -> bool:
    """Whether the process that runs it is alive on this host."""
    try:
        return Process.of(ledger.read_sweep(sweep).runner).is_alive
    except RunnerError:
        return False


def command_line(arguments: list[str]) -> list[str]:
    """What to hand to Hydra instead; goes to the folder that the sweep was started in.

    Raises:
        RunnerError: no such sweep, or it can't be gone on with.
    """
    parser = argparse.ArgumentParser(prog="python -m runner resume", description=__doc__, epilog=_EPILOG)
    parser.add_argument("sweep", metavar="SWEEP", nargs="?", help="name or its beginning (default: the newest)")
    parser.add_argument("options", metavar="OPTION", nargs="*", help="what shall be different, like retries=1")
    parser.add_argument("--mlruns", default="mlruns", help="folder with the results (default: %(default)s)")
    options = parser.parse_intermixed_args(arguments)
    if options.sweep and "=" in options.sweep:  # an option without a sweep before it
        options.sweep, options.options = None, [options.sweep, *options.options]
    sweep = compare.sweep(options.sweep, Path(options.mlruns)).resolve()
    try:
        state = ledger.read_sweep(sweep)
    except RunnerError as error:
        raise RunnerError(f"resume {sweep.name}: {error}") from error
    if is_running(sweep):
        raise RunnerError(f"resume {sweep.name}: it is still running (process {state.runner}); wait for it or stop it")
    try:
        os.chdir(state.folder)
    except (OSError, ValueError) as error:
        raise RunnerError(
            f"resume {sweep.name}: it was started in {state.folder}, which is gone; start it again there"
        ) from error
    if state.experiments:
        os.environ["RUNNER_EXPERIMENTS"] = state.experiments
    return [*state.arguments, *options.options, _OPTION, f"hydra.sweep.dir={quoted(sweep)}"]


def the_same(mlruns: Path, arguments: Sequence[str]) -> Path | None:
    """The newest sweep that was started with this line and is not running: what ``resume=true`` goes on with."""
    line = [word for word in arguments if word != _OPTION]
    for sweep in sorted((mlruns / "sweeps").glob("*"), reverse=True):
        try:
            state = ledger.read_sweep(sweep)
        except RunnerError:
            continue
        if list(state.arguments) == line and state.folder == str(Path.cwd()) and not is_running(sweep):
            return sweep
    return None


def replaced(before: Sequence[CellEntry], planned: Planned) -> dict[str, list[str]]:
    """Ids of earlier results of this cell that no longer hold -> what changed since.

    Args:
        before: the cells that the sweep has had.
    """
    return {
        cell.cell_id: identity.changes(cell.facts, planned.facts)
        for cell in before
        if cell.cell_id != planned.cell_id and cell.key == planned.cell.key
    }
