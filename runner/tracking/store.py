"""The runs of sweeps and cells in MLflow. No other module knows their tags and their nesting.

A sweep is a parent run and its cells are child runs. All that is recorded is read from the sweep's folder
(runner.results), so that it makes no difference whether that happens job by job or long after the sweep. Every method
may be repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from runner.protocol import contamination
from runner.protocol.cell import ABSENT
from runner.protocol.verdicts import EvidenceVerdict, Status
from runner.results import ledger
from runner.results.cells import is_right
from runner.results.ledger import CellEntry, SweepEntry
from runner.results.metric_names import Metric, Tag
from runner.results.metrics import RUNNER_CPU_LIMIT_PCT, cell_metrics
from runner.results.outcome import OUTCOME_FILE, CellRecord, Outcome, captures_job, job_folder, read_cell
from runner.tracking import archives, views
from runner.tracking.connection import TAG_LIMIT, Connection, UnavailableError
from runner.tracking.uploads import upload_captures, upload_folder, upload_job, upload_latencies, upload_tables

# The picture that a sweep leaves of its ranking (runner.report.picture).
PICTURE = "comparison_small.png"
# This file in a job's folder says that MLflow has the job's record; it holds the id of the run that has it.
LOGGED = ".logged"

_COST = "cost/"
HOST = "host"


class Store:
    """The MLflow runs of the sweeps below one ``mlruns`` folder.

    Args:
        mlruns: the folder of results.
        tracking_uri: the address of an MLflow server (``http://...``); None means a database in ``mlruns``.
    """

    def __init__(self, mlruns: Path, tracking_uri: str | None = None) -> None:
        self._mlflow = Connection(mlruns, tracking_uri)
        self._run_ids: dict[tuple[str, str], str] = {}

    @property
    def root(self) -> Path:
        """The resolved ``mlruns`` folder."""
        return self._mlflow.root

    @property
    def uri(self) -> str:
        """The tracking URI."""
        return self._mlflow.uri

    def prepare(self) -> None:
        """Create the folder and reach MLflow: see Connection.prepare()."""
        self._mlflow.prepare()

    def translated_errors(self) -> AbstractContextManager[None]:
        """Raise UnavailableError for whatever MLflow raises: see Connection.translated_errors()."""
        return self._mlflow.translated_errors()

    # -- finding runs --------------------------------------------------------------------------

    def _run_id(self, entry: SweepEntry, cell_id: str = "") -> str | None:
        """The id of a cell's run in this sweep, or without ``cell_id`` of the sweep's run; None if there is none."""
        key = entry.sweep_id, cell_id
        if key not in self._run_ids:
            kind = f"tags.kind = 'cell' and tags.cell_id = '{cell_id}'" if cell_id else "tags.kind = 'sweep'"
            condition = f"tags.sweep_id = '{entry.sweep_id}' and {kind}"
            experiment_id = self._mlflow.experiment_id(entry.experiment)
            for run in self._mlflow.client.search_runs([experiment_id], condition, max_results=1):
                self._run_ids[key] = str(run.info.run_id)
        return self._run_ids.get(key)

    def _existing_run_id(self, entry: SweepEntry, cell_id: str = "") -> str:
        """Like `_run_id`, for a run that must exist.

        Raises:
            UnavailableError: MLflow has no such run.
        """
        run_id = self._run_id(entry, cell_id)
        if run_id is None:
            raise UnavailableError(f"MLflow has no run of {cell_id or 'sweep'} {entry.sweep_id}")
        return run_id

    def forget_runs(self) -> None:
        """Look every run up again, because the database may be another one."""
        self._run_ids.clear()
        self._mlflow.forget_experiments()

    # -- sweeps --------------------------------------------------------------------------------

    def open_sweep(self, sweep: Path) -> None:
        """Create the sweep's parent run or set it to RUNNING again, and upload the sweep's files so far."""
        entry = ledger.read_sweep(sweep)
        run_id = self._run_id(entry)
        if run_id is None:
            run_id = self._run_ids[entry.sweep_id, ""] = self._create_sweep_run(entry, sweep)
        else:
            self._mlflow.client.update_run(run_id, status="RUNNING")
        upload_folder(self._mlflow, run_id, sweep)

    def _create_sweep_run(self, entry: SweepEntry, sweep: Path) -> str:
        tags = {
            "kind": "sweep",
            "sweep_id": entry.sweep_id,
            "host_id": entry.host_id,
            "git.commit": entry.commit,
            "git.dirty": str(entry.is_dirty).lower(),
            "command": entry.command[:TAG_LIMIT],
            "directory": str(sweep)[:TAG_LIMIT],
        }
        experiment_id = self._mlflow.experiment_id(entry.experiment)
        run = self._mlflow.client.create_run(experiment_id, run_name=entry.sweep_id, tags=tags)
        return str(run.info.run_id)

    def running_sweeps(self, host_id: str) -> dict[Path, str]:
        """Folder -> run id of the sweeps of this host that MLflow believes to be running."""
        experiments = [experiment.experiment_id for experiment in self._mlflow.client.search_experiments()]
        condition = f"attributes.status = 'RUNNING' and tags.kind = 'sweep' and tags.host_id = '{host_id}'"
        runs = self._mlflow.search_runs(experiments, condition) if experiments else []
        return {Path(run.data.tags["directory"]): run.info.run_id for run in runs if "directory" in run.data.tags}

    def abandon_sweep(self, run_id: str) -> None:
        """End the runs of a sweep and its cells as KILLED, because the sweep's folder is gone."""
        run = self._mlflow.client.get_run(run_id)
        cells = self._mlflow.search_runs([run.info.experiment_id], views.cells_of(run.data.tags["sweep_id"]))
        self._kill(cell.info.run_id for cell in cells if cell.info.status == "RUNNING")
        self._mlflow.client.set_terminated(run_id, Status.KILLED)

    def _kill(self, run_ids: Iterable[str]) -> None:
        for run_id in run_ids:
            self._mlflow.client.set_terminated(run_id, Status.KILLED)

    def close_sweep(self, sweep: Path) -> None:
        """End the parent run as end.json says (KILLED without one), and every cell that still waits for a round."""
        entry, end = ledger.read_sweep(sweep), ledger.read_end(sweep) or ledger.End(Status.KILLED)
        run_id = self._existing_run_id(entry)
        cells = self._mlflow.search_runs([self._mlflow.experiment_id(entry.experiment)], views.cells_of(entry.sweep_id))
        self._kill(cell.info.run_id for cell in cells if cell.info.status == "RUNNING")
        ends = end.cells or {cell_id: ledger.CellEnd(cause) for cell_id, cause in end.causes.items()}
        for cell in cells:
            if cell_end := ends.get(cell.data.tags["cell_id"]):
                tags: dict[str, str] = {Tag.DIFFERENCE: cell_end.difference, Tag.MAIN_CAUSE: cell_end.main_cause}
                known = {Metric.SPEEDUP: cell_end.speedup, Metric.USD_PER_MILLION: cell_end.usd_per_million}
                figures: dict[str, float] = {name: value for name, value in known.items() if value is not None}
                figures |= cell_end.roofline
                self._mlflow.log_figures(cell.info.run_id, [(0, figures)], tags)
        for name, value in end.figures.items():
            self._mlflow.client.log_metric(run_id, name, value)
        upload_folder(self._mlflow, run_id, sweep)
        self._mlflow.client.set_terminated(run_id, end.status)

    def save_views(self, sweep: Path) -> dict[str, str]:
        """Rename the cells' runs by their distinguishing axes and save the views that the UI opens on.

        Returns:
            What each page shows -> its link; the last one is the report.
        """
        entry = ledger.read_sweep(sweep)
        axes, experiment_id = entry.distinguishing_axes, self._mlflow.experiment_id(entry.experiment)
        client, page = self._mlflow.client, self._mlflow.page(experiment_id)
        cells = self._mlflow.search_runs([experiment_id], views.cells_of(entry.sweep_id))
        is_ranked = [is_right(cell.data.metrics, cell.data.tags.get(Tag.QUALITY)) for cell in cells]
        for cell in cells:
            client.update_run(cell.info.run_id, name=views.run_name(cell.data.params, axes))
        pages: dict[str, views.View] = {}
        if any(is_ranked):
            groups = dict.fromkeys(name.partition("/")[0] for cell in cells for name in sorted(cell.data.metrics))
            has_tables = any("mlflow.loggedArtifacts" in cell.data.tags for cell in cells)
            undrawn = views.undrawable_axes([cell.data.params for cell in cells], axes)
            pages |= views.sweep_views(entry.sweep_id, axes, undrawn, list(groups), has_tables)
        if not all(is_ranked):
            pages[views.NOT_RANKED] = views.unranked_view(entry.sweep_id, axes)
        pages[views.ALL_SWEEPS] = views.experiment_view()
        for view in pages.values():
            client.set_experiment_tag(experiment_id, views.TAG + view.key, view.tag(int(time.time() * 1000)))
        report = f"{page}/runs/{self._existing_run_id(entry)}/artifacts/report.html"
        links = {name: view.link(page) for name, view in pages.items()}
        links["the report, with every process's latencies"] = report
        notes = self._notes(sweep, entry, links)
        for cell, ranked in zip(cells, is_ranked, strict=True):
            note = notes.get(cell.data.tags["cell_id"])
            described = {} if note is None else {views.NOTE: note}
            self._mlflow.log_figures(cell.info.run_id, [], {Tag.RANKED: "yes" if ranked else "no", **described})
        if "" in notes:
            client.set_tag(self._existing_run_id(entry), views.NOTE, notes[""])
        return links

    def _notes(self, sweep: Path, entry: SweepEntry, links: Mapping[str, str]) -> dict[str, str]:
        """Cell id -> the description of its run, and of the sweep's run for the empty id: with its picture and pages.

        Args:
            links: what each page shows -> its link.
        """
        end = ledger.read_end(sweep)
        if end is None:
            return {}
        picture = views.picture(self._existing_run_id(entry), PICTURE) if (sweep / PICTURE).exists() else ""
        said = {"": end.description, **{cell_id: cell_end.description for cell_id, cell_end in end.cells.items()}}
        pages = views.page_list(links)
        return {name: "\n\n".join(filter(None, (note, picture, pages)))[:TAG_LIMIT] for name, note in said.items()}

    def serve(self, port: int, link: str) -> None:
        """Serve MLflow's pages on this machine, see runner.tracking.pages.serve()."""
        from runner.tracking import pages

        pages.serve(self.uri, port, link)

    def last_pages(self) -> dict[str, str]:
        """What each page of the newest sweep that has saved views shows -> its link; empty without one."""
        experiments = {found.experiment_id: found for found in self._mlflow.client.search_experiments()}
        condition, newest = "tags.kind = 'sweep'", ["attributes.start_time DESC"]
        runs = self._mlflow.client.search_runs(list(experiments), condition, order_by=newest, max_results=20)
        for run in runs:
            sweep_id, page = run.data.tags["sweep_id"], self._mlflow.page(run.info.experiment_id)
            saved = views.saved_views(sweep_id, experiments[run.info.experiment_id].tags)
            if saved:
                links = {view.name: view.link(page) for view in saved}
                return {**links, "the sweep, and what came out of it": f"{page}/runs/{run.info.run_id}"}
        return {}

    # -- cells ---------------------------------------------------------------------------------

    def start_cell(self, sweep: Path, cell_id: str) -> None:
        """Create the cell's child run in this sweep, or set it to RUNNING again."""
        entry, cell = ledger.read_sweep(sweep), ledger.read_cell(sweep, cell_id)
        run_id = self._run_id(entry, cell_id)
        if run_id is None:
            run_id = self._run_ids[entry.sweep_id, cell_id] = self._create_cell_run(entry, cell)
        else:
            self._mlflow.client.update_run(run_id, status="RUNNING")  # the sweep goes on
        # This is repeated for a run that exists: the process that created it may have been killed before this line.
        # A host has a name in a fleet only.
        named = {axis: value for axis, value in cell.axes.items() if axis != HOST or value != ABSENT}
        self._mlflow.log_params(run_id, named)

    def _create_cell_run(self, entry: SweepEntry, cell: CellEntry) -> str:
        tags = {
            "kind": "cell",
            "sweep_id": entry.sweep_id,
            "cell_id": cell.cell_id,
            "mlflow.parentRunId": self._existing_run_id(entry),
            "command": cell.command[:TAG_LIMIT],
            Tag.EVIDENCE: EvidenceVerdict.UNOBSERVED,
            **{f"setting.{name}": value[:TAG_LIMIT] for name, value in cell.settings.items()},
            "host_id": entry.host_id,
            "git.commit": entry.commit,
        }
        experiment_id = self._mlflow.experiment_id(entry.experiment)
        run = self._mlflow.client.create_run(experiment_id, run_name=views.run_name(cell.axes), tags=tags)
        return str(run.info.run_id)

    def log_job(self, sweep: Path, cell_id: str, number: int) -> None:
        """Log what the job of one round left in its folder.

        Its figures are logged when the cell ends: a metric can't be taken back, and a later round may fail the cell.
        """
        start = time.perf_counter()
        run_id, folder = self._existing_run_id(ledger.read_sweep(sweep), cell_id), job_folder(sweep, cell_id, number)
        if not (folder / OUTCOME_FILE).exists():
            raise RuntimeError(f"{folder} has no outcome file")
        self._upload(sweep, folder, run_id, upload_job)
        (folder / LOGGED).write_text(f"{run_id}\n{time.perf_counter() - start:.3f}\n", encoding="utf-8")

    def log_captures(self, sweep: Path, cell_id: str) -> None:
        """Log what the captures of a cell left; their figures and tags are logged when the cell ends."""
        run_id, folder = self._existing_run_id(ledger.read_sweep(sweep), cell_id), captures_job(sweep, cell_id)
        self._upload(sweep, folder, run_id, upload_captures)
        (folder / LOGGED).write_text(run_id, encoding="utf-8")

    def _upload(self, sweep: Path, job: Path, run_id: str, upload: Callable[[Connection, str, Path], None]) -> None:
        """Upload the files of a job: one by one to a folder, in one archive to a server, which also gets the tables."""
        if self._mlflow.is_server:
            archives.upload(self._mlflow, self._existing_run_id(ledger.read_sweep(sweep)), sweep, job)
            upload_tables(self._mlflow, run_id, job)
        else:
            upload(self._mlflow, run_id, job)

    def has_logged(self, sweep: Path, cell_id: str, job: Path) -> bool:
        """Whether this database has the whole record of a job of the cell.

        Args:
            job: the folder of a round or of the captures.
        """
        return _logged(job)[0] == self._run_id(ledger.read_sweep(sweep), cell_id)

    def end_cell(self, sweep: Path, cell_id: str, is_complete: bool = True) -> None:
        """End a cell's run with its figures over all rounds; do nothing if no job of the cell has ended.

        Args:
            is_complete: whether no round is missing; otherwise the run ends as KILLED.
        """
        record = read_cell(sweep, cell_id)
        if record is None:
            return
        run_id = self._existing_run_id(ledger.read_sweep(sweep), cell_id)
        figures = cell_metrics(record)
        if record.results and not self._mlflow.is_server:  # its archives hold them
            upload_latencies(self._mlflow, run_id, sweep / "cells" / cell_id / "latencies.parquet", record.results)
        last = record.outcomes[-1].round
        costs = {name: value for name, value in figures.items() if name.startswith(_COST)}
        others = {name: value for name, value in figures.items() if name not in costs}
        # Latency comes first, and what each round and the cell cost comes last, as MLflow's pages then show them.
        per_round = [
            (outcome.round, _costs(outcome, job_folder(sweep, cell_id, outcome.round))) for outcome in record.outcomes
        ]
        self._mlflow.log_figures(run_id, [(last, others), *per_round, (last, costs)], _tags(record, figures))
        unfinished = (outcome.status for outcome in record.outcomes if outcome.status != Status.FINISHED)
        status = next(unfinished, Status.FINISHED if is_complete else Status.KILLED)
        self._mlflow.client.set_terminated(run_id, status)


def _logged(job: Path) -> tuple[str, float]:
    """What `LOGGED` of a job says: the id of the run that has its record, and the seconds that recording took."""
    try:
        run_id, _, seconds = (job / LOGGED).read_text(encoding="utf-8").partition("\n")
        return run_id, float(seconds or 0)
    except (OSError, ValueError):
        return "", 0.0


def _costs(outcome: Outcome, job: Path) -> dict[str, float]:
    """What the job of one round cost, in seconds per stage."""
    return {f"{_COST}{stage}_s": value for stage, value in {**outcome.cost_s, "log": _logged(job)[1]}.items()}


def _tags(record: CellRecord, figures: dict[str, float]) -> dict[str, str]:
    """The tags of a cell whose rounds have ended."""
    tags = {Tag.EVIDENCE: record.evidence, Tag.QUALITY: record.quality, Tag.ISA: record.isa, **record.captures}
    if record.notes:
        tags[Tag.NOTES] = "; ".join(record.notes)
    tags[Tag.CONTAMINATED] = contamination.in_words(record.contamination, len(record.outcomes), figures)
    if record.failure:
        tags[Tag.FAILURE] = record.failure
    if figures.get(Metric.RUNNER_CPU, 0) > RUNNER_CPU_LIMIT_PCT:
        tags["disturbed"] = f"the runner used more than {RUNNER_CPU_LIMIT_PCT:g} % of a core while measuring"
    return tags
