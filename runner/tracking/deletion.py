"""Deleting the runs of a sweep: MLflow marks them as deleted, and the files that they own here are removed."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import unquote, urlparse

from runner.results.ledger import SweepEntry
from runner.tracking.connection import Connection


def delete_runs(entry: SweepEntry, mlruns: Path, tracking_uri: str | None = None) -> int:
    """Delete the parent run and the cells' runs of a sweep; returns how many there were.

    Raises:
        UnavailableError: MLflow can't be used.
    """
    mlflow = Connection(mlruns, tracking_uri)
    with mlflow.translated_errors():
        experiment = mlflow.client.get_experiment_by_name(entry.experiment)
        if experiment is None:
            return 0
        runs = mlflow.search_runs([experiment.experiment_id], f"tags.sweep_id = '{entry.sweep_id}'")
        # The parent last: after an interruption the sweep is still there to be deleted again.
        for run in sorted(runs, key=lambda run: run.data.tags.get("kind") == "sweep"):
            mlflow.client.delete_run(run.info.run_id)
            _remove_artifacts(run.info.artifact_uri, mlflow.root)
        return len(runs)


def _remove_artifacts(uri: str, root: Path) -> None:
    """Remove a run's artifacts if they are files below the folder of results; a server keeps its own."""
    address = urlparse(uri)
    if address.scheme not in ("", "file"):
        return
    folder = Path(unquote(address.path)).resolve().parent  # .../RUN_ID/artifacts
    if folder.parent.is_relative_to(root / "artifacts"):
        shutil.rmtree(folder, ignore_errors=True)
