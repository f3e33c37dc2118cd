"""Uploading a sweep's and a job's files as artifacts of MLflow runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runner.protocol.resultfile import WorkerResult
from runner.results.outcome import attempt_folders
from runner.tracking import artifacts
from runner.tracking.connection import Connection


def upload_folder(mlflow: Connection, run_id: str, folder: Path, target: str | None = None) -> None:
    """Upload the files of a folder, without its subfolders, to the folder ``target`` of a run's artifacts."""
    for file in artifacts.own_files(folder):
        mlflow.client.log_artifact(run_id, str(file), target)


def upload_job(mlflow: Connection, run_id: str, job: Path) -> None:
    """Upload all files of one timing job: its logs, those of earlier attempts, and its evidence."""
    for attempt in attempt_folders(job):
        upload_folder(mlflow, run_id, attempt, f"logs/{job.name}/{attempt.name}")
    for file in artifacts.top_files(job):
        mlflow.client.log_artifact(run_id, str(file))
    upload_captures(mlflow, run_id, job)


def upload_captures(mlflow: Connection, run_id: str, job: Path) -> None:
    """Upload the logs of the process that took the captures, and what they left."""
    upload_folder(mlflow, run_id, job, f"logs/{job.name}")
    for file, table in artifacts.capture_files(job):
        if not table:
            mlflow.client.log_artifact(run_id, str(file), file.parent.name)
    upload_tables(mlflow, run_id, job)


def upload_tables(mlflow: Connection, run_id: str, job: Path) -> None:
    """Upload what the captures left as tables, which MLflow compares across runs."""
    tables = {f"{file.parent.name}/{file.name}": table for file, table in artifacts.capture_files(job) if table}
    if tables:
        mlflow.log_tables(run_id, tables)


def upload_latencies(
    mlflow: Connection, run_id: str, file: Path, results: Mapping[tuple[int, int], WorkerResult]
) -> None:
    """Write and upload latencies.parquet, with one row per iteration (round, process, i, latency_s).

    Args:
        results: (round, instance) -> result, see runner.results.outcome.CellRecord.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        (number, process, i, latency)
        for process, ((number, _), result) in enumerate(sorted(results.items()))
        for i, latency in enumerate(result.latencies_s)
    ]
    columns = dict(zip(("round", "process", "i", "latency_s"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), file)
    mlflow.client.log_artifact(run_id, str(file))
