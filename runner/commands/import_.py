"""``python -m runner import DIR``: fill MLflow again from the folders that sweeps left."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from runner.commands import refusal
from runner.protocol.errors import RunnerError
from runner.results import ledger
from runner.sweep import resume
from runner.tracking import recorder
from runner.tracking.connection import UnavailableError

_EPILOG = """What MLflow has already is not recorded twice: it may be run again after an interruption. The folders are
where sweeps left them (mlruns/sweeps), or anywhere they have been copied to."""


def main(arguments: list[str]) -> int:
    """Record every sweep found; exit status 1 when one of them could not be read."""
    parser = argparse.ArgumentParser(prog="python -m runner import", description=__doc__, epilog=_EPILOG)
    parser.add_argument("folders", metavar="DIR", nargs="+", help="folder of a sweep, or one that holds several")
    parser.add_argument("--mlruns", default="mlruns", help="folder with the database (default: %(default)s)")
    parser.add_argument("--tracking-uri", metavar="URI", help="address of an MLflow server to record in instead")
    options = parser.parse_args(arguments)
    sweeps = _sweeps(options.folders)
    record = recorder.recorder_for(Path(options.mlruns), options.tracking_uri)
    record.store.prepare()
    status = 0
    for number, sweep in enumerate(sweeps, 1):
        try:
            ledger.read_sweep(sweep)
            if resume.is_running(sweep):
                said = "is running and records itself"
            else:
                record.catch_up(sweep)
                said = f"{len(ledger.read_cells(sweep))} cells"
        except UnavailableError:
            raise
        except RunnerError as error:  # the others can be read all the same
            said, status = f"left out: {refusal.line(str(error))}", 1
        print(f"[{number}/{len(sweeps)}] {sweep.name}: {said}", flush=True)
    return status


def _sweeps(folders: Sequence[str]) -> list[Path]:
    """The folders of sweeps among and below these.

    Raises:
        RunnerError: there is none in one of them.
    """
    found: dict[Path, None] = {}
    for name in folders:
        folder = Path(name).resolve()
        inside = [folder] if (folder / ledger.SWEEP_FILE).exists() else []
        for below in ("*", "sweeps/*"):
            inside += sorted(file.parent for file in folder.glob(f"{below}/{ledger.SWEEP_FILE}"))
        if not inside:
            raise RunnerError(f"{name}: there is no sweep in it; name a sweep's folder, or the mlruns folder it is in")
        found |= dict.fromkeys(inside)
    return list(found)
