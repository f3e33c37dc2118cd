"""One sweep from beginning to end: plan all of it, refuse what can't work, run the jobs, report.

It knows nothing of Hydra: two callables compose configurations and launch jobs, so that the Hydra sweeper stays a thin
shell.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from runner.analysis import across_builds, expected, noise, roofline
from runner.analysis.ranking import rank_sweep
from runner.config.schema import Config
from runner.job import references
from runner.job.trials import Trials, in_words
from runner.machine import checkout, disk, host, lock, processes, stop_signals
from runner.machine.installation import PACKAGE, search_options
from runner.matrix.rules import check_rule
from runner.protocol.errors import RunnerError, StorageError
from runner.protocol.stored import write_json
from runner.protocol.trial import Trial
from runner.protocol.verdicts import Status
from runner.report import answer, descriptions, html, sweep_end, terminal
from runner.results import circumstances, ledger
from runner.results.command_lines import mlruns_option, resume_line
from runner.results.outcome import OUTCOME_FILE, Outcome, job_folder
from runner.results.peaks import HostPeaks
from runner.results.planfile import HOST_FILE
from runner.sweep import dry_run, resume
from runner.sweep.announcement import announce, write_plan
from runner.sweep.loop import JobLoop, Jobs, read_records
from runner.sweep.planning import Compose, PlannedCell, SweepPlan, SweepRequest, plan_sweep
from runner.tracking import pulling, recorder
from runner.tracking.connection import UnavailableError
from runner.tracking.recorder import Recorder

ALL_RAN, SOME_FAILED, INTERRUPTED = 0, 1, 130

# More cells that are measured again for the same reason are counted, and not named.
_MOST_NAMED = 10


def run_sweep(request: SweepRequest, compose: Compose, jobs: Jobs) -> int:
    """Run the whole sweep; returns the exit status.

    Raises:
        RunnerError: the input was refused; nothing was launched or recorded.
    """
    console = terminal.make_console()
    with tempfile.TemporaryDirectory(prefix="runner-trial-") as folder, contextlib.ExitStack() as held:
        return _run_sweep(request, compose, jobs, console, Trials(Path(folder)), held)


def _run_sweep(
    request: SweepRequest,
    compose: Compose,
    jobs: Jobs,
    console: Console,
    trials: Trials,
    held: contextlib.ExitStack,
) -> int:
    """See `run_sweep`; ``held`` takes the measurement lock when it is first needed, and keeps it to the end."""

    def say_dim(line: str) -> None:
        console.print(f"[dim]{escape(line)}[/dim]")

    def say(text: str) -> None:
        console.print(f"[yellow]{escape(text)}[/yellow]")

    def reach(settings: Config) -> tuple[Recorder, lock.Expect]:
        """What records the sweep, and the measurement lock."""
        record = _recorder(settings)
        return record, held.enter_context(lock.measuring(request.sweep_id, record.store.root, settings.wait, say))

    early: list[tuple[Recorder, lock.Expect]] = []

    def try_models(cells: Sequence[PlannedCell]) -> Mapping[str, Trial]:
        settings, candidates = cells[0].config, [planned.candidate for planned in cells]
        waiting = trials.waiting(candidates)
        if settings.dry_run or not settings.try_models or not waiting:
            return trials.known(candidates)
        # What would be refused is refused before anything is started.
        _expectations(settings)
        _fetch(request, settings)
        _check_folder(request, settings)
        early.append(reach(settings))
        say_dim(in_words(waiting))
        return {**trials.known(candidates), **trials.run(waiting, settings.timeout_s)}

    plan = plan_sweep(request, compose, say_dim, try_models)
    settings = plan.settings
    expectations = _expectations(settings)  # refused now rather than after the last job
    if settings.dry_run:
        dry_run.show(plan, console)
        return ALL_RAN
    fingerprint = host.fingerprint()
    _fetch(request, settings)
    _check_folder(request, settings)
    # Before MLflow is imported, which takes seconds.
    announce(plan, fingerprint["cpu_model"], fingerprint["cpus_allowed"], console)
    stop_signals.listen(f"stopped at once. To go on: {resume_line(request.directory)}")
    record, expect = early[0] if early else reach(settings)
    return _Sweep(plan, expectations, record, console, jobs, fingerprint, trials, expect).run()


def _fetch(request: SweepRequest, settings: Config) -> None:
    """Bring back what an MLflow server has of a sweep that goes on here, where its folder is gone: a node without a
    shared file system may have been cleared meanwhile."""
    if settings.resume and settings.tracking_uri and not request.directory.exists():
        pulling.pull(request.sweep_id, settings.tracking_uri, Path(settings.mlruns), is_whole=True)


def _check_folder(request: SweepRequest, settings: Config) -> None:
    """Refuse a folder in which the sweep may not begin.

    Raises:
        RunnerError: there is another sweep in it, or it is of another host.
    """
    if (request.directory / "cells").exists() and not settings.resume:
        raise RunnerError(
            f"hydra.sweep.dir={request.directory}: this folder holds the cells of a sweep; choose a new folder, or go "
            f"on with that sweep: {resume_line(request.directory)}"
        )
    if settings.resume and (request.directory / ledger.SWEEP_FILE).exists():
        resume.check_host(ledger.read_sweep(request.directory))


def _recorder(settings: Config) -> Recorder:
    """What records the sweep, after a look at where it would record."""
    record = recorder.recorder_for(Path(settings.mlruns), settings.tracking_uri)
    record.store.prepare()
    return record


@dataclass(frozen=True)
class _Sweep:
    """What all stages of one sweep share."""

    plan: SweepPlan
    expectations: Sequence[expected.Expectation]
    record: Recorder
    console: Console
    jobs: Jobs
    fingerprint: Mapping[str, Any]
    """The facts of this host."""
    trials: Trials
    expect: lock.Expect
    """Notes for other sweeps how long this one will still need."""

    @cached_property
    def command(self) -> str:
        """The command line that started this process."""
        return shlex.join(["python", "-m", "runner", *search_options(), *sys.argv[1:]])

    @property
    def folder(self) -> Path:
        """The sweep's folder."""
        return self.plan.request.directory

    def run(self) -> int:
        """Run, report; returns the exit status.

        Raises:
            StorageError: the disk is full; the message says how to go on.
        """
        git = checkout.git_state(PACKAGE)
        folder, host_id = self.folder, str(self.fingerprint["host_id"])
        self._clear_up(host_id)
        with disk.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            disk.check(folder)
            (folder / "experiment.yaml").write_text(self.plan.request.resolved, encoding="utf-8")
            write_json(folder / HOST_FILE, self.fingerprint)
            if git[1]:
                (folder / "git.diff").write_text(git[1], encoding="utf-8")
            write_plan(self.plan)
            entry = resume.sweep_entry(folder, self.plan.request, self.command, host_id, git, self.plan.distinguishing)
            ledger.begin(folder, entry)
            self._share_models()
            self._write_cells()
        try:
            self.record.later(lambda store: store.open_sweep(folder))
            floors = noise.floors_of(self.record.store.root, host_id)
            is_interrupted = JobLoop(self.plan, self.record, self.console, self.jobs, floors, self.expect).run()
            return self._report(is_interrupted, host_id, git[0] or "")
        except BaseException as error:  # no run stays open, whatever ended the sweep
            is_stopped = stop_signals.caused(error) or isinstance(error, StorageError)
            status = Status.KILLED if is_stopped else Status.FAILED
            with contextlib.suppress(OSError):
                ledger.end(folder, ledger.End(status))
            self.record.attempt(lambda store: store.close_sweep(folder))
            if isinstance(error, StorageError):
                next_step = f"then go on with: {resume_line(self.folder)}"
                raise StorageError(f"{error}, {next_step}") from error
            raise

    def _share_models(self) -> None:
        """Give the jobs what the trials of their models left: references, and weights for all torch builds."""
        candidates = [planned.candidate for planned in self.plan.matrix.runnable]
        if len({candidate.cell.torch for candidate in candidates}) > 1:
            known, timeout_s = self.trials.known(candidates), self.plan.settings.timeout_s
            for line in self.trials.hand_over_weights(candidates, known, self.folder, timeout_s):
                self.console.print(f"  [yellow]note[/yellow] {escape(line)}")
        for candidate in candidates:
            self.trials.hand_over(candidate, self.folder)

    def _clear_up(self, host_id: str) -> None:
        """End what killed sweeps left: processes, and MLflow runs that would be RUNNING for ever."""
        for line in processes.end_orphans():
            self.console.print(f"  [yellow]ended[/yellow] {escape(line)}")
        # A sweep that MLflow lacks is recorded before anything is measured. MLflow's own list can wait.
        if self.record.unrecorded_sweeps() - {self.folder}:
            self._finish_earlier(host_id)
        else:
            self.record.later(lambda _: self._finish_earlier(host_id))

    def _finish_earlier(self, host_id: str) -> None:
        for line in self.record.finish_earlier_sweeps(self.folder, host_id):
            self.console.print(f"  [yellow]note[/yellow] {escape(line)}")

    def _write_cells(self) -> None:
        """Write each cell's entry, name the stale results of an earlier run, and fail what is refused."""
        earlier = resume.by_key(ledger.read_cells(self.folder))
        stale: dict[str, list[tuple[str, str]]] = {}
        for planned in self.plan.cells:
            for cell_id, changes in resume.stale_results(earlier, planned).items():
                label = terminal.label(planned.cell.labels, self.plan.distinguishing)
                stale.setdefault("; ".join(changes), []).append((label, cell_id))
        for why, cells in stale.items():
            lines = [f"{label} ({why}; the earlier result {cell_id} is stale)" for label, cell_id in cells]
            if len(cells) > _MOST_NAMED:
                lines = [f"{len(cells)} cells ({why}; the earlier results are stale)"]
            for line in lines:
                self.console.print(f"  [yellow]measuring again[/yellow]: {escape(line)}")
        ledger.add_cells(self.folder, [planned.entry for planned in self.plan.cells])
        for planned, reason in self.plan.matrix.refused:
            job = job_folder(self.folder, planned.cell_id, 0)
            job.mkdir(parents=True, exist_ok=True)
            cell = planned.cell
            write_json(
                job / OUTCOME_FILE,
                Outcome(planned.cell_id, 0, cell.axes, Status.FAILED, reason, settings=cell.settings),
            )

    def _report(self, is_interrupted: bool, host_id: str, commit: str) -> int:
        """Write the sweep's files, end the parent run, print the table; returns the exit status."""
        folder, mlruns = self.folder, self.record.store.root
        distinguishing = self.plan.distinguishing
        records = read_records(self.plan)
        floor = noise.report(records, folder, mlruns, host_id)
        peaks = HostPeaks(mlruns, host_id)
        ranking = rank_sweep(
            records,
            self.plan.baseline.cell_id,
            distinguishing,
            self.plan.level,
            floor.floors,
            folder.name,
            self.plan.settings.usd_per_hour,
            peaks,
        )
        rows = ranking.rows
        published = expected.lines(self.expectations, rows)
        of_peaks = [*peaks.notes, *filter(None, [roofline.tip([row.cell for row in rows])])]
        where = circumstances.read(folder, records)
        builds = across_builds.lines(rows, self.plan.level, floor.floors)
        origin = html.Origin(self.command, commit, tuple(published), floor.lines, tuple(builds), where)
        title = f"{self.plan.request.experiment}, sweep {self.plan.request.sweep_id}"
        changes = sweep_end.leave(ranking, folder, title, origin)
        ends = {
            row.cell.cell_id: descriptions.cell_end(row, ranking.baseline_of(row), distinguishing, where)
            for row in ranking.rows
        }
        said = answer.answer(rows, distinguishing, where).markdown
        has_failed = any(record.failure for record in records) or len(records) < len(self.plan.cells)
        figures = {
            "sweep/cells_measured": float(sum(row.p50_ms is not None for row in rows)),
            "sweep/cells_failed": float(sum(bool(row.cell.failure) and not row.cell.is_interrupted for row in rows)),
            **floor.figures,
        }
        status = Status.KILLED if is_interrupted else Status.FAILED if has_failed else Status.FINISHED
        ledger.end(folder, ledger.End(status, figures, ends, said))
        references.forget(folder)
        notes, links = [*changes, *builds, *published, *floor.lines, *of_peaks], {}
        try:
            links = self.record.finish(folder)
        except UnavailableError as error:
            has_failed = True
            again = f"python -m runner import {shlex.quote(str(folder))}{mlruns_option(mlruns)}"
            notes.append(f"not in MLflow: {error}. Nothing is lost; record it later: {again}")
        sweep_end.show(self.console, ranking, notes, folder, mlruns, links, self.plan.settings.wide, where)
        return INTERRUPTED if is_interrupted else SOME_FAILED if has_failed else ALL_RAN


def _expectations(config: Config) -> list[expected.Expectation]:
    """The ``expect`` block, with its rules checked.

    Raises:
        RunnerError: a rule names something that is not an axis.
    """
    return [
        expected.Expectation(
            e.source,
            e.speedup,
            check_rule(e.slow, "expect.slow"),
            check_rule(e.fast, "expect.fast") if e.fast else {},
        )
        for e in config.expect
    ]
