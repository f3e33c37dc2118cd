"""MLflow: the only module that imports it, and the only one that knows its schema.

Parent run = sweep, child run = cell. All that is recorded is read from the sweep's folder (runner.results), so
that it makes no difference whether that is done job by job or long after. Every method may be repeated. SQLite below
``mlruns`` and artifacts beside it, or an MLflow server. MLflow is imported on first use, because that takes two seconds
that `--help` and a refused input need not spend.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.checks import contamination
from runner.config import names
from runner.protocol.errors import RunnerError
from runner.results import ledger
from runner.results.cells import is_right
from runner.results.metric_names import Metric, Tag
from runner.results.metrics import RUNNER_CPU_LIMIT_PCT, cell_metrics
from runner.results.outcome import FINISHED, KILLED, attempt_folders, job_folder, read_cell, read_job
from runner.tracking import artifacts, views

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

# Before any import of mlflow: nothing is reported to anybody.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
# A server that is away is asked again later (runner.tracking.recorder); MLflow's own patience is minutes a request.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

# MLflow refuses tag values past this many characters; whole texts are artifacts.
_TAG_LIMIT = 5000

# In the folder of a job whose record is in MLflow; holds the id of the run it is in.
LOGGED = ".logged"

# How long a database that somebody else is writing to is waited for before a sweep starts.
_LOCKED_S = 20

SERVER = "http://127.0.0.1:5000"


class UnavailableError(RunnerError):
    """MLflow can't be reached or can't record: what should have been is still in the sweep's folder."""


class Store:
    """Everything that is written to MLflow of the sweeps below one ``mlruns`` folder.

    Args:
        tracking_uri: of an MLflow server (``http://...``); None for a database in ``mlruns``.
    """

    def __init__(self, mlruns: Path, tracking_uri: str | None = None) -> None:
        self.root = mlruns.resolve()
        names.check_folder("mlruns", str(self.root))
        self._server = tracking_uri
        self._runs: dict[tuple[str, str], str] = {}

    @property
    def uri(self) -> str:
        """Tracking URI."""
        return self._server or f"sqlite:///{self.root / 'mlflow.db'}"

    @cached_property
    def _client(self) -> MlflowClient:
        with self._locked():
            import logging

            # alembic tells of every migration of a new database on stderr, MLflow of every fault with its traceback
            logging.getLogger("alembic").setLevel(logging.WARNING)
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
            from mlflow.tracking import MlflowClient

            client = MlflowClient(tracking_uri=self.uri)
            client.search_experiments(max_results=1)
            return client

    def prepare(self) -> None:
        """Make the folder and reach MLflow, or say in one sentence why that can't be: before anything is launched.

        Raises:
            RunnerError: ``mlruns`` can't be written.
            UnavailableError: its database is locked or none, or the server can't be reached.
        """
        with self._locked():
            file = self.root / "mlflow.db"
            if self._server is None and file.exists():
                try:
                    # MLflow itself tries for minutes, whatever is wrong.
                    with closing(sqlite3.connect(file, timeout=_LOCKED_S)) as database:
                        database.execute("begin immediate").connection.rollback()
                except sqlite3.Error as error:
                    raise UnavailableError(
                        f"mlruns={self.root}: mlflow.db can't be used ({error}); end what holds it, or move the file "
                        "away and fill a new one with: python -m runner import"
                    ) from error
        with self.reaching():
            self._client  # noqa: B018 - connects

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """What MLflow, its database, its server or the disk raise comes out as one error.

        Raises:
            UnavailableError: with the first line of what was at the bottom of it.
        """
        from mlflow.exceptions import MlflowException
        from requests import RequestException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, RequestException, SQLAlchemyError, sqlite3.Error, OSError) as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            said = " ".join((str(cause).splitlines() or [type(cause).__name__])[0].split())[:300]
            option = f"tracking_uri={self._server}" if self._server else f"mlruns={self.root}"
            raise UnavailableError(f"{option}: MLflow can't be used ({said})") from error

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

    def open_sweep(self, sweep: Path) -> None:
        """The sweep's parent run, created or set RUNNING again; its files so far are artifacts."""
        entry = ledger.read_sweep(sweep)
        run_id = self._found(entry, "")
        if run_id is None:
            tags = {
                "kind": "sweep",
                "sweep_id": entry.sweep_id,
                "host_id": entry.host_id,
                "git.commit": entry.commit,
                "git.dirty": str(entry.is_dirty).lower(),
                "command": entry.command[:_TAG_LIMIT],
                "directory": str(sweep)[:_TAG_LIMIT],
            }
            run = self._client.create_run(self._experiment(entry.experiment), run_name=entry.sweep_id, tags=tags)
            run_id = self._runs[entry.sweep_id, ""] = str(run.info.run_id)
        else:
            self._client.update_run(run_id, status="RUNNING")
        self._log_files(run_id, sweep, None)

    def left_open(self, host_id: str) -> dict[Path, str]:
        """Folder -> run of the sweeps of this host that MLflow believes to be running."""
        experiments = [one.experiment_id for one in self._client.search_experiments()]
        rows = f"attributes.status = 'RUNNING' and tags.kind = 'sweep' and tags.host_id = '{host_id}'"
        runs = self._client.search_runs(experiments, rows) if experiments else []
        return {Path(run.data.tags["directory"]): run.info.run_id for run in runs if "directory" in run.data.tags}

    def abandon(self, run_id: str) -> None:
        """End a sweep's run, and its cells', whose folder is gone: nothing can be said of it."""
        run = self._client.get_run(run_id)
        self._kill_waiting(self._children(run.info.experiment_id, run.data.tags["sweep_id"]))
        self._client.set_terminated(run_id, KILLED)

    def _kill_waiting(self, cells: Iterable[Run]) -> None:
        """End those that still wait for a round."""
        for cell in cells:
            if cell.info.status == "RUNNING":
                self._client.set_terminated(cell.info.run_id, KILLED)

    def close_sweep(self, sweep: Path) -> None:
        """End the parent run as end.json says (KILLED without one), and any cell that still waits for a round."""
        entry, end = ledger.read_sweep(sweep), ledger.read_end(sweep) or ledger.End(KILLED)
        run_id = self._run(entry, "")
        cells = self._cells_of(entry)
        self._kill_waiting(cells)
        for cell in cells:
            cause = end.causes.get(cell.data.tags["cell_id"])
            if cause:
                self._client.set_tag(cell.info.run_id, Tag.MAIN_CAUSE, cause[:_TAG_LIMIT])
        for name, value in end.figures.items():
            self._client.log_metric(run_id, name, value)
        self._log_files(run_id, sweep, None)
        self._client.set_terminated(run_id, end.status)

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                artifacts = None if self._server else (self.root / "artifacts" / name).as_uri()
                return str(self._client.create_experiment(name, artifact_location=artifacts))
            except MlflowException:
                found = self._client.get_experiment_by_name(name)  # another sweep was faster
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _found(self, entry: ledger.SweepEntry, cell_id: str) -> str | None:
        """Id of a cell's run in this sweep, of the sweep's own where ``cell_id`` is empty; None when there is none."""
        key = entry.sweep_id, cell_id
        if key not in self._runs:
            what = f"tags.kind = 'cell' and tags.cell_id = '{cell_id}'" if cell_id else "tags.kind = 'sweep'"
            rows = f"tags.sweep_id = '{entry.sweep_id}' and {what}"
            for run in self._client.search_runs([self._experiment(entry.experiment)], rows, max_results=1):
                self._runs[key] = str(run.info.run_id)
        return self._runs.get(key)

    def _run(self, entry: ledger.SweepEntry, cell_id: str) -> str:
        """The same of a run that must be there."""
        run_id = self._found(entry, cell_id)
        if run_id is None:
            raise UnavailableError(f"MLflow has no run of {cell_id or 'sweep'} {entry.sweep_id}")
        return run_id

    def forget(self) -> None:
        """Look every run up again: the database may be another."""
        self._runs.clear()

    # -- cell ----------------------------------------------------------------------------------

    def start_cell(self, sweep: Path, cell_id: str) -> None:
        """The cell's child run of this sweep, RUNNING; created when it is not there."""
        from mlflow.entities import Param

        entry, cell = ledger.read_sweep(sweep), ledger.read_cell(sweep, cell_id)
        run_id = self._found(entry, cell_id)
        if run_id is None:
            run = self._client.create_run(
                self._experiment(entry.experiment),
                run_name=views.run_name(cell.axes),
                tags={
                    "kind": "cell",
                    "sweep_id": entry.sweep_id,
                    "cell_id": cell_id,
                    "mlflow.parentRunId": self._run(entry, ""),
                    "command": cell.command[:_TAG_LIMIT],
                    Tag.EVIDENCE: "unobserved",
                    **{f"setting.{name}": value[:_TAG_LIMIT] for name, value in cell.settings.items()},
                    "host_id": entry.host_id,
                    "git.commit": entry.commit,
                },
            )
            run_id = self._runs[entry.sweep_id, cell_id] = str(run.info.run_id)
        else:
            self._client.update_run(run_id, status="RUNNING")  # its sweep goes on
        # Also of a run that is there: whoever created it may have been killed before this.
        self._client.log_batch(run_id, params=[Param(axis, value) for axis, value in cell.axes.items()])

    def log_job(self, sweep: Path, cell_id: str, number: int) -> None:
        """Log what a job left in its folder.

        Only costs of its figures: a metric can't be taken back, and a later round may still fail the cell.
        """
        start = time.perf_counter()
        run_id, folder = self._run(ledger.read_sweep(sweep), cell_id), job_folder(sweep, cell_id, number)
        record = read_job(sweep, cell_id, number)
        if record is None:
            raise RuntimeError(f"{folder} has no outcome file")
        figures = {name: value for name, value in cell_metrics(record).items() if name.startswith("cost/")}
        self._log_files(run_id, folder, f"logs/round-{number}")
        for attempt in attempt_folders(folder):
            self._log_files(run_id, attempt, f"logs/round-{number}/{attempt.name}")
        self._log_top_files(run_id, folder)
        self._log_captures(run_id, folder)
        figures["cost/log_s"] = time.perf_counter() - start
        self._log_batch(run_id, figures, {}, step=number)
        (folder / LOGGED).write_text(run_id, encoding="utf-8")

    def has_logged(self, sweep: Path, cell_id: str, number: int) -> bool:
        """Whether a job's record is all here."""
        try:
            where = (job_folder(sweep, cell_id, number) / LOGGED).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return False
        return where == self._found(ledger.read_sweep(sweep), cell_id)

    def end_cell(self, sweep: Path, cell_id: str, is_complete: bool = True) -> None:
        """End a cell's run with its figures over all rounds; nothing when no job of it has ended.

        Args:
            is_complete: no round is missing; otherwise the run is KILLED.
        """
        record = read_cell(sweep, cell_id)
        if record is None:
            return
        run_id = self._run(ledger.read_sweep(sweep), cell_id)
        figures = cell_metrics(record)
        tags = {Tag.EVIDENCE: record.evidence, Tag.QUALITY: record.quality, Tag.ISA: record.isa, **record.captures}
        tags[Tag.CONTAMINATED] = contamination.in_words(record.contamination, len(record.outcomes), figures)
        if record.failure:
            tags[Tag.FAILURE] = record.failure
        if figures.get(Metric.RUNNER_CPU, 0) > RUNNER_CPU_LIMIT_PCT:
            tags["disturbed"] = f"the runner used more than {RUNNER_CPU_LIMIT_PCT:g} % of a core while measuring"
        if record.results:
            self._log_samples(run_id, sweep / "cells" / cell_id / "latencies.parquet", record.results)
        self._log_batch(run_id, figures, tags, step=record.outcomes[-1].round)
        failed = [outcome.status for outcome in record.outcomes if outcome.status != FINISHED]
        self._client.set_terminated(run_id, (failed or [FINISHED if is_complete else KILLED])[0])

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
        for file in artifacts.files(folder):
            self._client.log_artifact(run_id, str(file), into)

    def _log_top_files(self, run_id: str, folder: Path) -> None:
        for file in artifacts.top(folder):
            self._client.log_artifact(run_id, str(file))

    def _log_captures(self, run_id: str, folder: Path) -> None:
        """The captures' folders under their own names; tables so that MLflow compares them across runs."""
        for file, table in artifacts.of_captures(folder):
            if table:
                self._client.log_table(run_id, table, f"{file.parent.name}/{file.name}")
            else:
                self._client.log_artifact(run_id, str(file), file.parent.name)

    def _log_samples(self, run_id: str, file: Path, results: Mapping[tuple[int, int], Any]) -> None:
        """latencies.parquet: one row an iteration (round, process, i, latency_s)."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [
            (number, process, i, latency)
            for process, ((number, _), result) in enumerate(sorted(results.items()))
            for i, latency in enumerate(result.latencies_s)
        ]
        columns = dict(zip(("round", "process", "i", "latency_s"), map(list, zip(*rows, strict=True)), strict=True))
        pq.write_table(pa.table(columns), file)
        self._client.log_artifact(run_id, str(file))

    # -- views ---------------------------------------------------------------------------------

    def save_views(self, sweep: Path) -> dict[str, str]:
        """Name the cells by what tells them apart and write the views the UI opens on; what is shown -> link."""
        entry = ledger.read_sweep(sweep)
        experiment_id, sweep_id, axes = self._experiment(entry.experiment), entry.sweep_id, entry.distinguishing_axes
        page = f"{self._server or SERVER}/#/experiments/{experiment_id}"
        cells = self._cells_of(entry)
        ranked = {c.info.run_id: is_right(c.data.metrics, c.data.tags.get(Tag.QUALITY)) for c in cells}
        for cell in cells:
            self._client.update_run(cell.info.run_id, name=views.run_name(cell.data.params, axes))
        for run_id, yes in ranked.items():
            self._client.set_tag(run_id, Tag.RANKED, "yes" if yes else "no")
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
        report = f"{page}/runs/{self._run(entry, '')}/artifacts/report.html"
        links = {name: view.link(page) for name, view in found.items()}
        return {**links, "the report, with every process's latencies": report}

    def _cells_of(self, entry: ledger.SweepEntry) -> list[Run]:
        return self._children(self._experiment(entry.experiment), entry.sweep_id)

    def _children(self, experiment_id: str, sweep_id: str) -> list[Run]:
        rows = f"tags.kind = 'cell' and tags.sweep_id = '{sweep_id}'"
        page = self._client.search_runs([experiment_id], rows)
        cells = list(page)
        while page.token:
            page = self._client.search_runs([experiment_id], rows, page_token=page.token)
            cells += page
        return cells
