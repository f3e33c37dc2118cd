"""MLflow: the only module that imports it, and the only one that knows its schema.

Parent run = sweep, child run = cell. SQLite below ``mlruns``; artifacts beside it. MLflow is imported
on first use, because that takes two seconds that `--help` and a refused input need not spend.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import views
from runner.captured import TABLES, read_table
from runner.errors import RunnerError
from runner.matrix import Cell
from runner.metrics import RUNNER_CPU_LIMIT_PCT, cell_metrics
from runner.outcome import FAILED, FINISHED, KILLED, CellRecord, Outcome, attempt_folders, read_cell

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

# Before any import of mlflow: nothing is reported to anybody.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

# MLflow refuses tag values past this many characters; whole texts are artifacts.
_TAG_LIMIT = 5000

# In the folder of a job whose record is in MLflow.
_LOGGED = ".logged"

SERVER = "http://127.0.0.1:5000"


def _contaminated(record: CellRecord, figures: Mapping[str, float]) -> str:
    """``no``, in how many rounds and why, or ``unobserved`` where others' CPU time could not be told."""
    found = record.contamination
    if found:
        return f"{len(found)} of {len(record.outcomes)} rounds: {next(iter(found.values()))}"
    return "no" if "contamination/foreign_cpu_pct" in figures else "unobserved"


class Store:
    """Everything that is written to MLflow below one ``mlruns`` folder."""

    def __init__(self, mlruns: Path) -> None:
        self.root = mlruns.resolve()

    @property
    def uri(self) -> str:
        """Tracking URI of the SQLite database."""
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @cached_property
    def _client(self) -> MlflowClient:
        with self._locked():
            import logging

            # alembic tells of every migration of a new database on stderr
            logging.getLogger("alembic").setLevel(logging.WARNING)
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
            from mlflow.tracking import MlflowClient

            client = MlflowClient(tracking_uri=self.uri)
            client.search_experiments(max_results=1)
            return client

    def prepare(self) -> None:
        """Make the folder, or say in one sentence why it can't be made: before anything is launched.

        Raises:
            RunnerError: ``mlruns`` can't be written.
        """
        with self._locked():
            pass

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Processes that create the database at the same time crash in its migrations: one at a time."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / ".lock").open("w", encoding="utf-8")
        except OSError as error:
            raise RunnerError(
                f"mlruns={self.root}: can't be written ({error.strerror}); choose another folder with mlruns=..."
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # -- sweep ---------------------------------------------------------------------------------

    def open_sweep(
        self,
        experiment: str,
        sweep_id: str,
        command: str,
        host: Mapping[str, Any],
        git: tuple[str | None, str],
        folder: Path,
    ) -> str:
        """Create the parent run, RUNNING; returns its id.

        Args:
            git: (commit, diff) as of the start.
            folder: the sweep's folder; its top-level files become artifacts.
        """
        experiment_id = self._experiment(experiment)
        commit, diff = git
        (folder / "host.json").write_text(json.dumps(host, indent=1) + "\n", encoding="utf-8")
        if diff:
            (folder / "git.diff").write_text(diff, encoding="utf-8")
        tags = {
            "kind": "sweep",
            "sweep_id": sweep_id,
            "host_id": str(host["host_id"]),
            "git.commit": commit or "not a git checkout",
            "git.dirty": str(bool(diff)).lower(),
            "command": command[:_TAG_LIMIT],
            "directory": str(folder),
        }
        run = self._client.create_run(experiment_id, run_name=sweep_id, tags=tags)
        self._log_files(run.info.run_id, folder, None)
        return str(run.info.run_id)

    def reopen_sweep(self, run_id: str) -> bool:
        """Set the parent run of a sweep that goes on RUNNING again; whether it is there."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.update_run(run_id, status="RUNNING")
        except MlflowException:
            return False
        return True

    def left_open(self, host_id: str) -> dict[Path, str]:
        """Folder -> parent run of the sweeps of this host that MLflow believes to be running."""
        experiments = [one.experiment_id for one in self._client.search_experiments()]
        rows = f"attributes.status = 'RUNNING' and tags.kind = 'sweep' and tags.host_id = '{host_id}'"
        runs = self._client.search_runs(experiments, rows) if experiments else []
        return {Path(run.data.tags["directory"]): run.info.run_id for run in runs if "directory" in run.data.tags}

    def close_sweep(self, run_id: str, status: str, figures: Mapping[str, float], folder: Path) -> None:
        """End the parent run with the sweep's own figures and files, and any cell that still waits for a round."""
        run = self._client.get_run(run_id)
        waiting = (
            f"tags.sweep_id = '{run.data.tags['sweep_id']}' and tags.kind = 'cell' and attributes.status = 'RUNNING'"
        )
        for cell in self._client.search_runs([run.info.experiment_id], waiting):
            self._client.set_terminated(cell.info.run_id, KILLED)
        for name, value in figures.items():
            self._client.log_metric(run_id, name, value)
        self._log_files(run_id, folder, None)
        self._client.set_terminated(run_id, status)

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                artifacts = (self.root / "artifacts" / name).as_uri()
                return str(self._client.create_experiment(name, artifact_location=artifacts))
            except MlflowException:
                found = self._client.get_experiment_by_name(name)  # another sweep was faster
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    # -- cell ----------------------------------------------------------------------------------

    def start_cell(self, parent: str, sweep_id: str, cell_id: str, cell: Cell, command: str) -> str:
        """The cell's child run of this sweep, created RUNNING by its first job; returns its id."""
        from mlflow.entities import Param

        sweep = self._client.get_run(parent)
        found = self._client.search_runs(
            [sweep.info.experiment_id],
            f"tags.sweep_id = '{sweep_id}' and tags.cell_id = '{cell_id}'",
            max_results=1,
        )
        if found:
            run_id = str(found[0].info.run_id)
            if found[0].info.status != "RUNNING":  # its sweep goes on
                self._client.update_run(run_id, status="RUNNING")
            return run_id
        inherited = {name: sweep.data.tags[name] for name in ("host_id", "git.commit")}
        run = self._client.create_run(
            sweep.info.experiment_id,
            run_name=views.run_name(cell.axes),
            tags={
                "kind": "cell",
                "sweep_id": sweep_id,
                "cell_id": cell_id,
                "mlflow.parentRunId": parent,
                "command": command[:_TAG_LIMIT],
                "evidence": "unobserved",
                **{f"setting.{name}": value[:_TAG_LIMIT] for name, value in cell.settings.items()},
                **inherited,
            },
        )
        self._client.log_batch(run.info.run_id, params=[Param(axis, value) for axis, value in cell.axes.items()])
        return str(run.info.run_id)

    def log_job(self, sweep: Path, outcome: Outcome, folder: Path) -> None:
        """Log what a job left in its folder, and what is known of its cell so far.

        Only costs of its figures: a metric can't be taken back, and a later round may still fail the cell.
        """
        start = time.perf_counter()
        record = read_cell(sweep, outcome.cell_id)
        if record is None:
            raise RuntimeError(f"{folder} has no outcome file")
        figures = {name: value for name, value in cell_metrics(record).items() if name.startswith("cost/")}
        self._log_files(outcome.run_id, folder, f"logs/round-{outcome.round}")
        for attempt in attempt_folders(folder):
            self._log_files(outcome.run_id, attempt, f"logs/round-{outcome.round}/{attempt.name}")
        self._log_top_files(outcome.run_id, folder)
        self._log_captures(outcome.run_id, folder)
        figures["cost/log_s"] = time.perf_counter() - start
        self._log_batch(outcome.run_id, figures, {}, step=outcome.round)
        (folder / _LOGGED).touch()

    def has_logged(self, folder: Path) -> bool:
        """Whether a job's record is all here."""
        return (folder / _LOGGED).exists()

    def end_cell(self, sweep: Path, cell_id: str, is_complete: bool = True) -> None:
        """End a cell's run with its figures over all rounds; nothing when no job of it has ended.

        Args:
            is_complete: no round is missing; otherwise the run is KILLED.
        """
        record = read_cell(sweep, cell_id)
        if record is None:
            return
        figures = cell_metrics(record)
        contaminated = _contaminated(record, figures)
        tags = {"evidence": record.evidence, "quality": record.quality, "isa": record.isa, **record.captures}
        tags["contaminated"] = contaminated
        if record.failure:
            tags["failure"] = record.failure
        if figures.get("selfaudit/runner_cpu_pct", 0) > RUNNER_CPU_LIMIT_PCT:
            tags["disturbed"] = f"the runner used more than {RUNNER_CPU_LIMIT_PCT:g} % of a core while measuring"
        if record.results:
            self._log_samples(record.run_id, sweep / "cells" / cell_id / "samples.parquet", record.results)
        self._log_batch(record.run_id, figures, tags, step=record.outcomes[-1].round)
        failed = [outcome.status for outcome in record.outcomes if outcome.status != FINISHED]
        self._client.set_terminated(record.run_id, (failed or [FINISHED if is_complete else KILLED])[0])

    def tag_cells(self, name: str, values: Mapping[str, str]) -> None:
        """Set one tag on many cells: run id -> value."""
        for run_id, value in values.items():
            self._client.set_tag(run_id, name, value[:_TAG_LIMIT])

    def _log_batch(self, run_id: str, figures: Mapping[str, float], tags: Mapping[str, str], step: int) -> None:
        from mlflow.entities import Metric, RunTag

        now_ms = int(time.time() * 1000)
        self._client.log_batch(
            run_id,
            # Six digits: the UI shows all it is given, and the raw samples are kept beside.
            metrics=[Metric(name, float(f"{value:.6g}"), now_ms, step) for name, value in figures.items()],
            tags=[RunTag(name, value[:_TAG_LIMIT]) for name, value in tags.items()],
        )

    def _log_files(self, run_id: str, folder: Path, into: str | None) -> None:
        for file in sorted(folder.iterdir()):
            if file.is_file() and not file.name.startswith("."):
                self._client.log_artifact(run_id, str(file), into)

    def _log_top_files(self, run_id: str, folder: Path) -> None:
        for name in ("evidence.json", "config.yaml"):
            if (folder / name).is_file():
                self._client.log_artifact(run_id, str(folder / name))

    def _log_captures(self, run_id: str, folder: Path) -> None:
        """The captures' folders under their own names; tables so that MLflow compares them across runs."""
        captures = {path for path in folder.iterdir() if path.is_dir()} - set(attempt_folders(folder))
        for capture in sorted(captures):
            for file in sorted(path for path in capture.iterdir() if path.is_file()):
                if file.name in TABLES:
                    self._client.log_table(run_id, read_table(file), f"{capture.name}/{file.name}")
                else:
                    self._client.log_artifact(run_id, str(file), capture.name)

    def _log_samples(self, run_id: str, file: Path, results: Mapping[tuple[int, int], Any]) -> None:
        """samples.parquet: one row an iteration (round, process, i, latency_s)."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [
            (number, process, i, latency)
            for process, ((number, _), result) in enumerate(sorted(results.items()))
            for i, latency in enumerate(result.samples_s)
        ]
        columns = dict(zip(("round", "process", "i", "latency_s"), map(list, zip(*rows, strict=True)), strict=True))
        pq.write_table(pa.table(columns), file)
        self._client.log_artifact(run_id, str(file))

    def fail_before_launch(
        self, parent: str, sweep_id: str, cell_id: str, cell: Cell, command: str, reason: str
    ) -> None:
        """A child run for a cell that this machine lacks something for: FAILED, with the reason."""
        run_id = self.start_cell(parent, sweep_id, cell_id, cell, command)
        self._log_batch(run_id, {}, {"failure": reason}, step=0)
        self._client.set_terminated(run_id, FAILED)

    # -- views ---------------------------------------------------------------------------------

    def save_views(self, parent: str, axes: Sequence[str]) -> dict[str, str]:
        """Name the cells by what tells them apart and write the views the UI opens on; what is shown -> link.

        Args:
            axes: the axes worth a column: those that vary.
        """
        sweep = self._client.get_run(parent)
        experiment_id, sweep_id = sweep.info.experiment_id, sweep.data.tags["sweep_id"]
        page = f"{SERVER}/#/experiments/{experiment_id}"
        cells = self._cells_of(experiment_id, sweep_id)
        ranked = {c.info.run_id: views.is_ranked(c.data.metrics, c.data.tags.get("quality")) for c in cells}
        for cell in cells:
            self._client.update_run(cell.info.run_id, name=views.run_name(cell.data.params, axes))
        self.tag_cells(views.RANKED, {run_id: "yes" if yes else "no" for run_id, yes in ranked.items()})
        found: dict[str, views.View] = {}
        if any(ranked.values()):
            groups = dict.fromkeys(name.partition("/")[0] for cell in cells for name in sorted(cell.data.metrics))
            tables = any("mlflow.loggedArtifacts" in cell.data.tags for cell in cells)
            undrawn = views.undrawable([cell.data.params for cell in cells], axes)
            found |= views.of_sweep(sweep_id, axes, undrawn, list(groups), tables)
        if not all(ranked.values()):
            found["the others: wrong output, or failed"] = views.of_the_rest(sweep_id, axes)
        found["the same of every sweep of this experiment"] = views.of_all()
        for view in found.values():
            self._client.set_experiment_tag(experiment_id, views.TAG + view.key, view.tag(int(time.time() * 1000)))
        report = {"the report, with every process's latencies": f"{page}/runs/{parent}/artifacts/report.html"}
        return {name: view.link(page) for name, view in found.items()} | report

    def _cells_of(self, experiment_id: str, sweep_id: str) -> list[Run]:
        rows = f"tags.kind = 'cell' and tags.sweep_id = '{sweep_id}'"
        page = self._client.search_runs([experiment_id], rows)
        cells = list(page)
        while page.token:
            page = self._client.search_runs([experiment_id], rows, page_token=page.token)
            cells += page
        return cells
