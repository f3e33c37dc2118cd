"""``python -m runner delete SWEEP ...``: a sweep's folder, and its runs in MLflow with their artifacts."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from runner.commands.options import add_mlruns, make_parser
from runner.protocol.errors import RunnerError
from runner.results import ledger, sweeps
from runner.sweep import resume

_EPILOG = """On a terminal it asks first; elsewhere it needs --yes. A sweep that is running is refused. What is deleted
can't be brought back: MLflow lists the runs among its deleted ones, without their artifacts."""


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("delete", _EPILOG)
    parser.add_argument(
        "sweeps", metavar="SWEEP", nargs="+", help="delete this sweep: its name, the beginning of it, or all"
    )
    parser.add_argument("--yes", "-y", action="store_true", help="delete without asking")
    parser.add_argument("--tracking-uri", metavar="URI", help="delete its runs in the MLflow server at this address")
    add_mlruns(parser)
    return parser


def main(arguments: list[str]) -> int:
    """Delete the sweeps; exit status 1 if they were to be kept after all.

    Raises:
        RunnerError: there is no such sweep, one is running, or nobody can be asked.
    """
    options = _parser().parse_args(arguments)
    mlruns = Path(options.mlruns)
    folders = sweeps.find_all(options.sweeps, mlruns)
    for folder in folders:
        _check_ended(folder)
    if not options.yes and not _is_confirmed(folders):
        print("nothing was deleted")
        return 1
    for folder in folders:
        runs = _delete_runs(folder, mlruns, options.tracking_uri)
        shutil.rmtree(folder)
        print(f"{folder.name} is deleted{f', with {runs} runs in MLflow' if runs else ''}", flush=True)
    return 0


def _check_ended(folder: Path) -> None:
    """Refuse a sweep that is running here, or that may be running on another host.

    Raises:
        RunnerError: see above.
    """
    if resume.is_running(folder):
        raise RunnerError(f"delete {folder.name}: it is still running; stop it first, or wait for it")
    try:
        entry = ledger.read_sweep(folder)
    except RunnerError:
        return
    if ledger.read_end(folder) is None and resume.is_elsewhere(entry):
        where = entry.hostname or entry.host_id
        raise RunnerError(f"delete {folder.name}: it may still be running on host {where}; delete it there")


def _is_confirmed(folders: Sequence[Path]) -> bool:
    names = ", ".join(folder.name for folder in folders)
    if not sys.stdin.isatty():
        raise RunnerError(f"delete {names}: nobody can be asked here; add --yes to delete without asking")
    what = "this sweep" if len(folders) == 1 else f"these {len(folders)} sweeps"
    try:
        return input(f"Delete {what} with everything that was measured: {names}? [y/N] ").strip().lower() in (
            "y",
            "yes",
        )
    except EOFError:
        return False


def _delete_runs(folder: Path, mlruns: Path, tracking_uri: str | None) -> int:
    """Delete the sweep's runs, which its folder names; returns how many there were.

    Raises:
        UnavailableError: MLflow can't be used; the folder is still there, so that this can be repeated.
    """
    try:
        entry = ledger.read_sweep(folder)
    except RunnerError:  # it never came as far as MLflow, or is too damaged to say what it was
        return 0
    if tracking_uri is None and not (mlruns / "mlflow.db").exists():
        return 0
    from runner.tracking import deletion

    return deletion.delete_runs(entry, mlruns, tracking_uri)
