"""Sweeps that are in an MLflow server and not here: their folders are made again from what the server keeps."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from runner.config import names
from runner.protocol.errors import RunnerError
from runner.results import ledger
from runner.tracking import archives
from runner.tracking.connection import Connection

_NAME = re.compile(r"[\w.+-]+", re.ASCII)


def pull(name: str, tracking_uri: str, mlruns: Path, is_whole: bool = False) -> list[Path]:
    """Make the folders of these sweeps again; what is here already is replaced by what the server has.

    Args:
        name: the id of a sweep, or the beginning of several, such as a fleet's.
        tracking_uri: the address of the server.
        mlruns: the folder of results in which they appear.
        is_whole: whether the name is the whole name of one sweep.

    Returns:
        The folders; none if the server has no such sweep.

    Raises:
        UnavailableError: the server can't be reached, or refuses.
        RunnerError: the name is none, or what the server has is damaged.
    """
    if not _NAME.fullmatch(name):
        raise RunnerError(f"{name}: a sweep's name has letters, digits and . _ + -")
    connection = Connection(mlruns, tracking_uri)
    with connection.translated_errors():
        experiments = [experiment.experiment_id for experiment in connection.client.search_experiments()]
        # An underscore is any character to LIKE.
        runs = connection.search_runs(experiments, f"tags.kind = 'sweep' and tags.sweep_id LIKE '{name}%'")
        found = {run.data.tags["sweep_id"]: run.info.run_id for run in runs}
        return [
            _pull(connection, run_id, mlruns / "sweeps" / sweep_id)
            for sweep_id, run_id in sorted(found.items())
            if (sweep_id == name if is_whole else sweep_id.startswith(name))
        ]


def _pull(connection: Connection, run_id: str, sweep: Path) -> Path:
    names.check_name("sweep", sweep.name)
    (sweep.parent).mkdir(parents=True, exist_ok=True)
    # Beside its place, so that it is moved there whole.
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=sweep.parent.parent) as temporary:
        downloaded, made = Path(temporary) / "downloaded", Path(temporary) / sweep.name
        downloaded.mkdir()
        made.mkdir()
        connection.client.download_artifacts(run_id, "", str(downloaded))
        for file in sorted(downloaded.rglob("*")):
            if file.is_file() and archives.is_one(file):
                archives.unpack(file, made)
            elif file.is_file() and file.parent == downloaded:
                shutil.copy2(file, made / file.name)
        ledger.read_sweep(made)  # it is one, or is refused
        shutil.copytree(made, sweep, dirs_exist_ok=True)
    return sweep
