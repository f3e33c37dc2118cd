"""``python -m runner import DIR``: fill MLflow again from the folders that sweeps left."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from runner.commands import refusal
from runner.commands.options import add_mlruns, make_parser
from runner.config import names
from runner.protocol.errors import RunnerError
from runner.results import ledger
from runner.sweep import resume

_EPILOG = """What MLflow has already is not recorded twice, so this may be repeated after an interruption. The folders
are where sweeps left them (mlruns/sweeps), or wherever they have been copied to."""


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("import", _EPILOG)
    parser.add_argument("folders", metavar="DIR", nargs="+", help="read the sweep in this folder, or all that it holds")
    parser.add_argument("--tracking-uri", metavar="URI", help="record in the MLflow server at this address instead")
    add_mlruns(parser)
    return parser


def main(arguments: list[str]) -> int:
    """Record every sweep in these folders; exit status 1 when one of them could not be read."""
    options = _parser().parse_args(arguments)
    if options.tracking_uri is not None:
        names.check_address("--tracking-uri", options.tracking_uri)
    sweeps = _sweeps(options.folders)

    from runner.tracking import recorder
    from runner.tracking.connection import UnavailableError

    record = recorder.recorder_for(Path(options.mlruns), options.tracking_uri)
    record.store.prepare()
    status = 0
    for number, sweep in enumerate(sweeps, 1):
        try:
            entry = ledger.read_sweep(sweep)
            if resume.is_elsewhere(entry) and ledger.read_end(sweep) is None:
                where = entry.hostname or entry.host_id
                raise RunnerError(f"it has not ended on host {where}, or was killed there; resume it there first")
            if resume.is_running(sweep):
                outcome = "is running and records itself"
            else:
                record.catch_up(sweep)
                outcome = f"{len(ledger.read_cells(sweep))} cells"
        except UnavailableError:
            raise
        except RunnerError as error:  # the others can be read all the same
            outcome, status = f"left out: {refusal.line(str(error))}", 1
        print(f"[{number}/{len(sweeps)}] {sweep.name}: {outcome}", flush=True)
    return status


def _sweeps(names: Sequence[str]) -> list[Path]:
    """The folders of sweeps among and below these.

    Raises:
        RunnerError: one of the folders has no sweep in it.
    """
    folders: dict[Path, None] = {}
    for name in names:
        folder = Path(name).resolve()
        inside = [folder] if (folder / ledger.SWEEP_FILE).exists() else []
        for below in ("*", "sweeps/*"):
            inside += sorted(file.parent for file in folder.glob(f"{below}/{ledger.SWEEP_FILE}"))
        if not inside:
            raise RunnerError(f"{name}: there is no sweep in it; name a sweep's folder, or the mlruns folder it is in")
        folders |= dict.fromkeys(inside)
    return list(folders)
