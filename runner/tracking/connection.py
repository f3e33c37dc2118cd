"""The connection to MLflow: where its database or server is, how it is reached, and how its errors come out.

This module and runner.tracking.pages alone import mlflow. They do so on first use, because the import takes two seconds
that ``--help`` and a refused input need not spend.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.config import names
from runner.protocol.errors import RunnerError

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

# These are set before mlflow is imported, so that it reports nothing to anybody.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
# It would print a line for every run that ends in a server.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# A server that does not answer is asked again later (runner.tracking.recorder); MLflow itself would wait for minutes
# per request.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

# MLflow refuses tag values longer than this many characters; whole texts are kept as artifacts.
TAG_LIMIT = 5000

# The tag by which MLflow's pages know a run's tables.
_LOGGED_TABLES = "mlflow.loggedArtifacts"

# MLflow takes no more metrics and tags than this in one request.
_BATCH = 1000

# Seconds to wait, before a sweep starts, for a database that another process is writing to.
_LOCK_TIMEOUT_S = 20

# Where ``python -m runner ui`` serves MLflow's pages.
UI_HOST = "127.0.0.1"
UI_ADDRESS = f"http://{UI_HOST}:5000"


class UnavailableError(RunnerError):
    """MLflow can't be reached or can't record. What it should have recorded is still in the sweep's folder."""


# What a server with passwords answers, by MLflow's word for it.
_REFUSED = {
    "UNAUTHENTICATED": "the server asks for a user's name and password; put them into the environment as "
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    "PERMISSION_DENIED": "the server does not let this user do that; ask its administrator for EDIT on the experiment, "
    "or name an experiment of your own",
}


class Connection:
    """The MLflow database below one ``mlruns`` folder (SQLite, artifacts in files), or an MLflow server.

    Args:
        mlruns: the folder of results.
        tracking_uri: the address of an MLflow server (``http://...``); None means a database in ``mlruns``.

    Raises:
        RunnerError: the path of ``mlruns`` has characters that SQLite's URI would misread.
    """

    def __init__(self, mlruns: Path, tracking_uri: str | None = None) -> None:
        self.root = mlruns.resolve()
        names.check_folder("mlruns", str(self.root))
        self._server = tracking_uri
        self._experiment_ids: dict[str, str] = {}

    @property
    def is_server(self) -> bool:
        """Whether this is a server, to which every file is a request, and not a database in the folder of results."""
        return self._server is not None

    @property
    def uri(self) -> str:
        """The tracking URI."""
        return self._server or f"sqlite:///{self.root / 'mlflow.db'}"

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client; the first use connects, and creates the database."""
        with self._creation_lock():
            # alembic logs every migration of a new database to stderr, and MLflow every error with its traceback.
            logging.getLogger("alembic").setLevel(logging.WARNING)
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
            from mlflow.tracking import MlflowClient

            client = MlflowClient(tracking_uri=self.uri)
            client.search_experiments(max_results=1)
            return client

    def prepare(self) -> None:
        """Create the folder, and reach the server or create the database; this is done before anything is launched.

        A database that exists is looked at without MLflow, whose import and first connection take two seconds.

        Raises:
            RunnerError: ``mlruns`` can't be written.
            UnavailableError: the database is locked or is not a database, or the server can't be reached.
        """
        with self._creation_lock():
            file = self.root / "mlflow.db"
            if self._server is None and file.exists():
                try:
                    # MLflow itself would try for minutes, whatever is wrong.
                    with closing(sqlite3.connect(file, timeout=_LOCK_TIMEOUT_S)) as database:
                        database.execute("begin immediate").connection.rollback()
                    return
                except sqlite3.Error as error:
                    raise UnavailableError(
                        f"mlruns={self.root}: mlflow.db can't be used ({error}); end the program that holds it, or "
                        "move the file away and fill a new one with: python -m runner import"
                    ) from error
        with self.translated_errors():
            self.client  # noqa: B018 - connects

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Raise one kind of error for whatever MLflow, its database, its server or the disk raises.

        Raises:
            UnavailableError: it holds the first line of the innermost cause.
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
            reason = " ".join((str(cause).splitlines() or [type(cause).__name__])[0].split())[:300]
            option = f"tracking_uri={self._server}" if self._server else f"mlruns={self.root}"
            advice = _REFUSED.get(getattr(error, "error_code", ""))
            if advice:
                raise UnavailableError(f"{option}: {advice}") from error
            raise UnavailableError(f"{option}: MLflow can't be used ({reason})") from error

    @contextmanager
    def _creation_lock(self) -> Iterator[None]:
        """Let one process at a time create the database: two at once crash in its migrations.

        Raises:
            RunnerError: ``mlruns`` can't be written.
        """
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

    def experiment_id(self, name: str) -> str:
        """The id of the MLflow experiment of this name, which is created or restored if need be."""
        if name not in self._experiment_ids:
            self._experiment_ids[name] = self._found_or_created(name)
        return self._experiment_ids[name]

    def forget_experiments(self) -> None:
        """Look every experiment up again, because the database may be another one."""
        self._experiment_ids.clear()

    def _found_or_created(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            try:
                folder = None if self._server else (self.root / "artifacts" / name).as_uri()
                return str(self.client.create_experiment(name, artifact_location=folder))
            except MlflowException:
                experiment = self.client.get_experiment_by_name(name)  # another sweep created it meanwhile
                if experiment is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def page(self, experiment_id: str) -> str:
        """The address of an experiment's page in MLflow's UI."""
        return f"{self._server or UI_ADDRESS}/#/experiments/{experiment_id}"

    def search_runs(self, experiment_ids: Sequence[str], condition: str) -> list[Run]:
        """Every run of these experiments that meets a condition in MLflow's filter language."""
        page = self.client.search_runs(list(experiment_ids), condition)
        runs = list(page)
        while page.token:
            page = self.client.search_runs(list(experiment_ids), condition, page_token=page.token)
            runs += page
        return runs

    def log_params(self, run_id: str, values: Mapping[str, str]) -> None:
        """Log the params of a run."""
        from mlflow.entities import Param

        self.client.log_batch(run_id, params=[Param(name, value) for name, value in values.items()])

    def log_figures(
        self, run_id: str, figures: Iterable[tuple[int, Mapping[str, float]]], tags: Mapping[str, str]
    ) -> None:
        """Log metrics, as of this moment, and tags of a run.

        Args:
            figures: (step, metrics) pairs, the latest last. MLflow's pages show metrics in the order of their arrival.
        """
        from mlflow.entities import Metric, RunTag

        now_ms = int(time.time() * 1000)
        metrics = [
            # Six digits: the UI shows all that it is given, and the raw latencies are kept as an artifact.
            Metric(name, float(f"{value:.6g}"), now_ms + position, step)
            for position, (step, values) in enumerate(figures)
            for name, value in values.items()
        ]
        labels = [RunTag(name, value[:TAG_LIMIT]) for name, value in tags.items()]
        first = _BATCH - len(labels)
        self.client.log_batch(run_id, metrics[:first], tags=labels)
        for start in range(first, len(metrics), _BATCH):
            self.client.log_batch(run_id, metrics[start : start + _BATCH])

    def log_tables(self, run_id: str, tables: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
        """Log tables that MLflow's pages compare across runs: its own log_table() asks the server four times for each.

        Args:
            tables: path among the artifacts -> column -> values.
        """
        with tempfile.TemporaryDirectory(prefix="runner-tables-") as folder:
            for path, table in tables.items():
                file = Path(folder) / path
                file.parent.mkdir(exist_ok=True)
                rows = list(zip(*table.values(), strict=True))
                file.write_text(json.dumps({"columns": list(table), "data": rows}), encoding="utf-8")
                self.client.log_artifact(run_id, str(file), str(Path(path).parent))
        logged = [{"path": path, "type": "table"} for path in tables]
        self.client.set_tag(run_id, _LOGGED_TABLES, json.dumps(logged))
