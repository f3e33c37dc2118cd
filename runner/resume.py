"""``python -m runner resume [SWEEP]``: go on with a sweep that was interrupted or killed.

What a sweep needs to be gone on with is in its folder: sweep.json (how it was started, and by which process), an
inputs.json a cell (what its results depend on) and the outcome of every job. Nothing else is asked.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner import compare, identity, stored
from runner.errors import RunnerError
from runner.execute import Process
from runner.job import write_json
from runner.planning import Planned, quoted
from runner.stored import FormatError

STATE_FILE = "sweep.json"
INPUTS_FILE = "inputs.json"
# History: 1 = first version.
FORMAT = 1
_OPTION = "resume=true"
_EPILOG = """Runs only what is missing: rounds that finished are kept, a cell whose inputs changed (versions, libraries,
code, machine) is measured anew and says what changed. Failed jobs are kept too, unless retries=N is given. OPTION is
anything that `python -m runner` takes, such as rounds=8."""


@dataclass(frozen=True)
class State:
    """How a sweep was started."""

    arguments: list[str]
    """Of the command line, without ``python -m runner``."""
    folder: str
    """Working directory: relative paths among the arguments are below it."""
    experiments: str
    """RUNNER_EXPERIMENTS as it was."""
    parent_run: str
    """In MLflow."""
    runner: str
    """The process that runs it: see execute.Process."""
    format: int = FORMAT


def read_state(sweep: Path) -> State | None:
    """None where there is no sweep.json, or one that can't be read."""
    try:
        return stored.read(State, sweep / STATE_FILE, FORMAT)
    except FormatError:
        return None


def write_state(sweep: Path, arguments: Sequence[str], parent_run: str) -> None:
    """Leave sweep.json; a sweep that goes on keeps the line that it was started with."""
    before = read_state(sweep)
    state = State(
        arguments=before.arguments if before else [word for word in arguments if word != _OPTION],
        folder=before.folder if before else str(Path.cwd()),
        experiments=os.environ.get("RUNNER_EXPERIMENTS", ""),
        parent_run=parent_run,
        runner=str(Process.this()),
    )
    write_json(sweep / STATE_FILE, state)


def is_running(sweep: Path) -> bool:
    """Whether the process that runs it is alive on this host."""
    state = read_state(sweep)
    return state is not None and Process.of(state.runner).is_alive


def command_line(arguments: list[str]) -> list[str]:
    """What to hand to Hydra instead; goes to the folder that the sweep was started in.

    Raises:
        RunnerError: no such sweep, or it can't be gone on with.
    """
    parser = argparse.ArgumentParser(prog="python -m runner resume", description=__doc__, epilog=_EPILOG)
    parser.add_argument("sweep", metavar="SWEEP", nargs="?", help="name or its beginning (default: the newest)")
    parser.add_argument("options", metavar="OPTION", nargs="*", help="what shall be different, like retries=1")
    parser.add_argument("--mlruns", default="mlruns", help="folder with the results (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.sweep and "=" in options.sweep:  # an option without a sweep before it
        options.sweep, options.options = None, [options.sweep, *options.options]
    sweep = compare.sweep(options.sweep, Path(options.mlruns)).resolve()
    state = read_state(sweep)
    if state is None:
        raise RunnerError(f"resume {sweep.name}: {sweep / STATE_FILE} is missing or unreadable; start the sweep again")
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
        state = read_state(sweep)
        if state is not None and state.arguments == line and state.folder == str(Path.cwd()) and not is_running(sweep):
            return sweep
    return None


# -- what a cell's results depend on ----------------------------------------------------------------------


def write_inputs(sweep: Path, planned: Planned) -> None:
    """Leave the cell's inputs.json, before its first job."""
    folder = sweep / "cells" / planned.cell_id
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / INPUTS_FILE).exists():
        write_json(folder / INPUTS_FILE, Inputs(planned.cell.key, planned.facts))


@dataclass(frozen=True)
class Inputs:
    """inputs.json of a cell."""

    key: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


def _inputs(folder: Path) -> Inputs:
    """Empty where they can't be read."""
    try:
        return stored.typed(Inputs, stored.read_json(folder / INPUTS_FILE), folder / INPUTS_FILE)
    except FormatError:
        return Inputs()


def key_of(sweep: Path, cell_id: str) -> str:
    """Key of the cell that these results are of."""
    return _inputs(sweep / "cells" / cell_id).key


def replaced(sweep: Path, planned: Planned) -> dict[str, list[str]]:
    """Ids of earlier results of this cell that no longer hold -> what changed since."""
    found = {}
    for folder in sorted((sweep / "cells").glob("*")):
        inputs = _inputs(folder)
        if folder.name != planned.cell_id and inputs.key == planned.cell.key:
            found[folder.name] = identity.changes(inputs.facts, planned.facts)
    return found
