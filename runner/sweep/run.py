"""One sweep: plan all of it, refuse what can't be, run the jobs one after another, report.

Knows nothing of Hydra: composing a configuration and launching jobs come in as two callables, so
that the Hydra sweeper stays a thin shell.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from runner.analysis import expected, noise
from runner.analysis.ranking import pick_baseline, rank_sweep
from runner.capture import probe
from runner.config.limits import AUTO
from runner.config.schema import Config
from runner.machine import checkout, disk, execute, host, lock
from runner.machine.installation import PACKAGE
from runner.matrix.rules import check_rule, distinguishing_axes
from runner.protocol.errors import RunnerError, StorageError
from runner.protocol.stored import FormatError, write_json
from runner.report import closing, html, terminal
from runner.results import ledger
from runner.results.metrics import cell_metrics
from runner.results.outcome import (
    FAILED,
    FINISHED,
    KILLED,
    OUTCOME_FILE,
    CellRecord,
    Outcome,
    job_folder,
    read_cell,
    read_job,
)
from runner.sweep import resume
from runner.sweep.planning import Compose, Matrix, Planned, SweepRequest, plan, quoted, rule_in_words
from runner.sweep.rounds import LOOKS, Budget, level_of, stages, undecided
from runner.tracking import recorder
from runner.tracking.recorder import Recorder
from runner.tracking.store import UnavailableError

ALL_RAN, SOME_FAILED, INTERRUPTED = 0, 1, 130

# What names a cell when nothing tells it apart, because it is alone.
DEFAULT_COLUMNS = ("model", "allocator", "ipex", "memory_format", "precision", "graph")

# Of the sweep of this process: Hydra drops what a sweeper returns, and raising in one would skip its callbacks.
exit_status = ALL_RAN

Launch = Callable[[Sequence[Sequence[str]], int], Sequence[Outcome]]


def run_sweep(request: SweepRequest, compose: Compose, launch: Launch) -> int:
    """The whole sweep; returns the exit status.

    Raises:
        RunnerError: the input was refused; nothing was launched or recorded.
    """
    matrix = plan(request, compose)
    asked = [*matrix.runnable, *(planned for planned, _ in matrix.not_installed)]
    if not asked:
        reasons = "; ".join(dict.fromkeys(reason for _, reason in matrix.excluded))
        raise RunnerError(f"no cell of the matrix is left to run: {reasons or 'it is empty'}")
    settings = asked[0].config
    baseline = asked[pick_baseline([planned.cell.axes for planned in asked], settings.baseline)]
    distinguishing = distinguishing_axes(
        [planned.cell.labels for planned in asked] + [labels for labels, _ in matrix.excluded]
    )
    published = _expectations(settings)  # refused now rather than after the last job
    record = recorder.of(Path(settings.mlruns), settings.tracking_uri)
    record.store.prepare()
    if (request.directory / "cells").exists() and not settings.resume:
        raise RunnerError(
            f"hydra.sweep.dir={request.directory}: it holds a sweep's cells; choose a new folder, or go on with that "
            f"sweep: python -m runner resume {request.sweep_id}"
        )
    console = terminal.make_console()
    the_sweep = _Sweep(
        request,
        matrix,
        asked,
        settings,
        baseline,
        distinguishing or DEFAULT_COLUMNS,
        published,
        record,
        console,
        launch,
    )
    execute.listen(f"stopped at once. To go on: python -m runner resume {request.sweep_id}")

    def say(text: str) -> None:
        console.print(f"[yellow]{escape(text)}[/yellow]")

    # Jobs of other Hydra launchers measure elsewhere: each takes the lock of its own host, in runner.job.run.
    mlruns = record.store.root
    alone = lock.measuring(request.sweep_id, mlruns, settings.wait, say) if request.runs_here else nullcontext()
    with alone:
        return the_sweep.run()


@dataclass(frozen=True)
class _Sweep:
    """What all steps of one sweep know."""

    request: SweepRequest
    matrix: Matrix
    asked: Sequence[Planned]
    """The cells that count: those that run and those that lack something."""
    settings: Config
    """Of the sweep as a whole: the same in every cell."""
    baseline: Planned
    distinguishing: Sequence[str]
    """The keys that tell the cells apart."""
    published: Sequence[expected.Expectation]
    record: Recorder
    console: Console
    launch: Launch

    @cached_property
    def command(self) -> str:
        """The line that started this process."""
        return shlex.join(["python", "-m", "runner", *sys.argv[1:]])

    @cached_property
    def level(self) -> float:
        """See runner.sweep.rounds.level_of()."""
        return level_of(self.settings.rounds)

    def run(self) -> int:
        """Announce, run, report; returns the exit status."""
        fingerprint, git = host.fingerprint(), checkout.git_state(PACKAGE)
        folder, host_id = self.request.directory, str(fingerprint["host_id"])
        self._clear_up(host_id)
        self._announce(fingerprint["cpu_model"], fingerprint["cpus_allowed"])
        with disk.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            disk.check(folder)
            (folder / "experiment.yaml").write_text(self.request.resolved, encoding="utf-8")
            write_json(folder / "host.json", fingerprint)
            if git[1]:
                (folder / "git.diff").write_text(git[1], encoding="utf-8")
            self._write_plan()
            ledger.begin(folder, resume.entry(folder, self.request, self.command, host_id, git, self.distinguishing))
            self._write_cells()
        try:
            self.record.attempt(lambda store: store.open_sweep(folder))
            interrupted = self._run_jobs()
            return self._report(interrupted, host_id, git[0] or "")
        except BaseException as error:  # no run is left open, whatever ended the sweep
            status = KILLED if isinstance(error, (KeyboardInterrupt, StorageError)) else FAILED
            with contextlib.suppress(OSError):
                ledger.end(folder, ledger.End(status))
            self.record.attempt(lambda store: store.close_sweep(folder))
            if isinstance(error, StorageError):
                say = f"{error}, then go on with: python -m runner resume {self.request.sweep_id}"
                raise StorageError(say) from error
            raise

    def _clear_up(self, host_id: str) -> None:
        """End what sweeps left that were killed: processes, and runs that would be RUNNING for ever."""
        for line in execute.end_orphans():
            self.console.print(f"  [yellow]ended[/yellow] {escape(line)}")
        for line in self.record.tidy(self.request.directory, host_id):
            self.console.print(f"  [yellow]note[/yellow] {escape(line)}")

    def _write_cells(self) -> None:
        """Each cell's entry; of a sweep that goes on, which results don't hold any more. What lacks something fails."""
        folder = self.request.directory
        before = ledger.read_cells(folder)
        for planned in self.asked:
            for cell_id, changed in resume.replaced(before, planned).items():
                label = terminal.label(planned.cell.labels, self.distinguishing)
                self.console.print(
                    f"  [yellow]measured anew[/yellow] {escape(label)}: {escape('; '.join(changed))}; "
                    f"{escape(cell_id)} was of before"
                )
            ledger.add_cell(folder, planned.entry)
        for planned, reason in self.matrix.not_installed:
            job = job_folder(folder, planned.cell_id, 0)
            job.mkdir(parents=True, exist_ok=True)
            cell = planned.cell
            write_json(
                job / OUTCOME_FILE, Outcome(planned.cell_id, 0, cell.axes, FAILED, reason, settings=cell.settings)
            )

    def _is_done(self, number: int, planned: Planned) -> bool:
        """Whether this round of the cell has ended, and need not be tried again."""
        try:
            job = read_job(self.request.directory, planned.cell_id, number)
        except FormatError:
            return False
        return job is not None and self._is_final(job.outcomes[0])

    def _is_final(self, outcome: Outcome) -> bool:
        return outcome.status == FINISHED or (outcome.status == FAILED and not self.settings.retries)

    def _announce(self, cpu: str, cores: str) -> None:
        """What will run and what won't."""
        say = self.console.print
        say(
            f"[bold]{self._size()}[/bold] on {cpu}, cores {cores}, order seed {self.settings.seed}  "
            f"[dim]sweep {self.request.sweep_id}[/dim]"
        )
        for line in terminal.exclusions(self.matrix.excluded, self.distinguishing):
            say(f"  [yellow]excluded[/yellow] {escape(line)}")
        for rule in self.matrix.idle_rules:
            say(f"  [yellow]note[/yellow] the rule {escape(rule_in_words(rule))} excludes no cell of this matrix")
        for capture, reason in probe.unavailable(self.settings.capture).items():
            say(f"  [yellow]unavailable[/yellow] capture {capture}: {escape(reason)}")
        for planned, reason in self.matrix.not_installed:
            label = terminal.label(planned.cell.labels, self.distinguishing)
            say(f"  [red]FAILED[/red] {escape(label)}: {escape(reason)}")

    def _size(self) -> str:
        """ "4 cells x 5 rounds = 20 jobs"."""
        cells, rounds = len(self.matrix.runnable), self.settings.rounds
        if isinstance(rounds, int):
            jobs = terminal.plural(cells * rounds, "job")
            return f"{terminal.plural(cells, 'cell')} x {terminal.plural(rounds, 'round')} = {jobs}"
        most = terminal.duration(60 * self.settings.budget_min)
        return f"{terminal.plural(cells, 'cell')} x {LOOKS[0]} to {LOOKS[-1]} rounds, at most {most}"

    def _write_plan(self) -> None:
        """The same for machines, before the first job: plan.json, an artifact of the parent run."""
        matrix, settings = self.matrix, self.settings
        # The order of a round is that of the seed; rounds=auto runs some cells of the later ones only.
        order = next(stages(matrix.runnable, settings.rounds, settings.seed, list))
        write_json(
            self.request.directory / "plan.json",
            {
                "sweep_id": self.request.sweep_id,
                "seed": settings.seed,
                "rounds": settings.rounds,
                "level": self.level,
                "cells": [
                    {"cell_id": planned.cell_id, "axes": planned.cell.axes, "command": planned.command}
                    for planned in matrix.runnable
                ],
                "order": [{"round": number, "cell_id": planned.cell_id} for number, planned in order],
                "excluded": [{"axes": dict(axes), "reason": reason} for axes, reason in matrix.excluded],
                "not_installed": [
                    {"axes": planned.cell.axes, "reason": reason} for planned, reason in matrix.not_installed
                ],
                "pid": os.getpid(),
            },
        )

    def _records(self) -> list[CellRecord]:
        """What is known of each cell that has had a job."""
        found = [read_cell(self.request.directory, planned.cell_id) for planned in self.asked]
        return [record for record in found if record is not None]

    def _undecided(self) -> list[Planned]:
        """The cells that rounds=auto gives more rounds."""
        ranking = rank_sweep(self._records(), self.baseline.cell_id, self.distinguishing, self.level)
        wanted = undecided(ranking.rows, self.settings.smallest_pct)
        return [planned for planned in self.matrix.runnable if planned.cell_id in wanted]

    def _run_jobs(self) -> bool:
        """Launch every job and end every cell; True when the user stopped it."""
        settings, cells, folder = self.settings, self.matrix.runnable, self.request.directory
        progress = terminal.Progress(self.console, settings.rounds, self.distinguishing, settings.timeout_s)
        budget = Budget(settings.budget_min) if settings.rounds == AUTO else None
        running = {planned.cell_id for planned in cells}
        is_interrupted = False
        try:
            for planned_stage in stages(cells, settings.rounds, settings.seed, self._undecided):
                stage = [(number, planned) for number, planned in planned_stage if not self._is_done(number, planned)]
                if len(stage) < len(planned_stage):
                    done = terminal.plural(len(planned_stage) - len(stage), "job")
                    self.console.print(f"[dim]{done} had ended before[/dim]")
                progress.add(stage)
                for first in range(0, len(stage), self.request.batch):
                    batch = stage[first : first + self.request.batch]
                    if budget and not budget.allows(planned.cell_id for _, planned in batch):
                        progress.out_of_budget(settings.budget_min)
                        return False
                    for number, planned in batch:
                        progress.begin(number, planned.cell.labels)
                    jobs = [self._job(number, planned) for number, planned in batch]
                    for outcome in self.launch(jobs, progress.done):
                        job = read_job(folder, outcome.cell_id, outcome.round)
                        took_s = progress.end(outcome, cell_metrics(job) if job else {})
                        if budget:
                            budget.record(outcome.cell_id, took_s)
                        if isinstance(settings.rounds, int) and outcome.round == settings.rounds - 1:
                            running.discard(outcome.cell_id)
                            self._end_cell(outcome.cell_id)
        except KeyboardInterrupt:
            self.console.print(
                "[yellow]interrupted[/yellow]: the job in flight was stopped; what had finished is kept. To go on: "
                f"python -m runner resume {self.request.sweep_id}"
            )
            is_interrupted = True
        finally:
            for cell_id in sorted(running):
                self._end_cell(cell_id, is_complete=not is_interrupted)
        return is_interrupted

    def _end_cell(self, cell_id: str, is_complete: bool = True) -> None:
        self.record.attempt(lambda store: store.end_cell(self.request.directory, cell_id, is_complete))

    def _job(self, number: int, planned: Planned) -> list[str]:
        """The overrides that compose one job."""
        return [
            *planned.overrides,
            f"sweep.id={self.request.sweep_id}",
            f"sweep.directory={quoted(self.request.directory)}",
            f"sweep.round={number}",
            f"sweep.cell_id={quoted(planned.cell_id)}",
            f"sweep.command={quoted(planned.command)}",
        ]

    def _report(self, interrupted: bool, host_id: str, commit: str) -> int:
        """Leave the files, end the parent run, print the table; returns the exit status."""
        folder, mlruns = self.request.directory, self.record.store.root
        records = self._records()
        floor = noise.report(records, folder, mlruns, host_id)
        ranking = rank_sweep(records, self.baseline.cell_id, self.distinguishing, self.level, floor.floors, folder.name)
        rows = ranking.rows
        published = expected.lines(self.published, rows)
        origin = html.Origin(self.command, commit, tuple(published), floor.lines)
        title = f"{self.request.experiment}, sweep {self.request.sweep_id}"
        changes = closing.leave(ranking, folder, title, origin)
        causes = {row.cell.cell_id: row.main_cause for row in rows}
        failed = any(record.failure for record in records) or len(records) < len(self.asked)
        figures = {
            "sweep/cells_measured": float(sum(row.p50_ms is not None for row in rows)),
            "sweep/cells_failed": float(sum(bool(record.failure) for record in records)),
            **floor.figures,
        }
        status = KILLED if interrupted else FAILED if failed else FINISHED
        ledger.end(folder, ledger.End(status, figures, causes))
        remarks, links = [*changes, *published, *floor.lines], {}
        try:
            links = self.record.finish(folder)
        except UnavailableError as error:
            failed = True
            remarks.append(f"not in MLflow: {error}. Nothing is lost: python -m runner import {folder}")
        closing.show(self.console, ranking, remarks, folder, mlruns, links)
        return INTERRUPTED if interrupted else SOME_FAILED if failed else ALL_RAN


def _expectations(config: Config) -> list[expected.Expectation]:
    """The ``expect`` block, its rules checked.

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
