"""``python -m runner resume [SWEEP]``: go on with a sweep that was interrupted or killed."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from runner.commands import sweep
from runner.commands.options import add_mlruns, make_parser
from runner.config import names
from runner.config.override_text import quoted
from runner.machine.installation import OWN_FOLDERS
from runner.protocol.errors import RunnerError
from runner.results import ledger, sweeps
from runner.results.command_lines import DEFAULT
from runner.sweep.resume import OPTION, check_host, is_running

_EPILOG = """SWEEP is a name or the beginning of one; OPTION is anything that a sweep takes. Runs only what is missing:
rounds that finished are kept, a cell whose inputs changed (versions, libraries, code, machine) is measured again and
says what changed. Failed jobs are kept too, unless retries=N is given."""


def main(arguments: list[str]) -> int:
    """Go on with the sweep; the exit status is the sweep's."""
    words = command_line(arguments)
    names.check_words(words)
    return sweep.main(words)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("resume", _EPILOG)
    parser.add_argument("sweep", metavar="SWEEP", nargs="?", help="go on with this sweep (default: the newest)")
    parser.add_argument(
        "options", metavar="OPTION", nargs="*", help="change this for what is left of it, like retries=1"
    )
    add_mlruns(parser)
    return parser


def command_line(arguments: list[str]) -> list[str]:
    """The sweep's command line for Hydra; makes the folder in which the sweep was started the working directory.

    Raises:
        RunnerError: there is no such sweep, or it can't be resumed.
    """
    options = _parser().parse_intermixed_args(arguments)
    if options.sweep and "=" in options.sweep:  # an option without a sweep before it
        options.sweep, options.options = None, [options.sweep, *options.options]
    folder = sweeps.find(options.sweep, Path(options.mlruns), has_results=False).resolve()
    try:
        state = ledger.read_sweep(folder)
    except RunnerError as error:
        raise RunnerError(f"resume {folder.name}: {error}") from error
    check_host(state)
    if is_running(folder):
        raise RunnerError(f"resume {folder.name}: it is still running (process {state.runner}); wait for it or stop it")
    try:
        os.chdir(state.working_directory)
    except (OSError, ValueError) as error:
        raise RunnerError(
            f"resume {folder.name}: it was started in {state.working_directory}, which is gone; start it again there"
        ) from error
    os.environ[OWN_FOLDERS] = state.experiments
    store = folder.parent.parent
    # A sweep that was copied or pulled goes on where it is now.
    is_where_it_was = Path(_store_of(state.arguments)).resolve() == store
    moved = [] if is_where_it_was else [f"mlruns={quoted(store)}"]
    return [*state.arguments, *moved, *options.options, OPTION, f"hydra.sweep.dir={quoted(folder)}"]


def _store_of(arguments: Sequence[str]) -> str:
    """The folder of results that a sweep's command line names."""
    named = [word.partition("=")[2] for word in arguments if word.lstrip("+").startswith("mlruns=")]
    return named[-1].strip("\"'") if named else str(DEFAULT)
