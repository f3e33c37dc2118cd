"""``python -m runner resume [SWEEP]``: go on with a sweep that was interrupted or killed."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from runner.protocol.errors import RunnerError
from runner.results import ledger, sweeps
from runner.sweep.planning import quoted
from runner.sweep.resume import OPTION, is_running

_EPILOG = """Runs only what is missing: rounds that finished are kept, a cell whose inputs changed (versions, libraries,
code, machine) is measured anew and says what changed. Failed jobs are kept too, unless retries=N is given. OPTION is
anything that `python -m runner` takes, such as rounds=8."""


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
    sweep = sweeps.find(options.sweep, Path(options.mlruns)).resolve()
    try:
        state = ledger.read_sweep(sweep)
    except RunnerError as error:
        raise RunnerError(f"resume {sweep.name}: {error}") from error
    if is_running(sweep):
        raise RunnerError(f"resume {sweep.name}: it is still running (process {state.runner}); wait for it or stop it")
    try:
        os.chdir(state.working_directory)
    except (OSError, ValueError) as error:
        raise RunnerError(
            f"resume {sweep.name}: it was started in {state.working_directory}, which is gone; start it again there"
        ) from error
    if state.experiments:
        os.environ["RUNNER_EXPERIMENTS"] = state.experiments
    return [*state.arguments, *options.options, OPTION, f"hydra.sweep.dir={quoted(sweep)}"]
