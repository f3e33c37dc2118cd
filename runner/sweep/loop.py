"""The loop over a sweep's jobs: stage by stage, with their progress, their budget and their records in MLflow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console

from runner.analysis.ranking import rank_sweep
from runner.config.limits import RACE
from runner.config.override_text import quoted
from runner.protocol.stored import FormatError
from runner.protocol.verdicts import Status
from runner.report import terminal
from runner.results.metrics import cell_metrics
from runner.results.outcome import CellRecord, Outcome, read_cell, read_job
from runner.sweep import racing
from runner.sweep.planning import PlannedCell, SweepPlan
from runner.sweep.rounds import budget_of, stages, undecided
from runner.tracking.recorder import Recorder

# (overrides of each job, number of the first) -> the outcome of each job.
Launch = Callable[[Sequence[Sequence[str]], int], Sequence[Outcome]]
# (round, cell)
Job = tuple[int, PlannedCell]


def read_records(plan: SweepPlan) -> list[CellRecord]:
    """The records of the cells that have had a job."""
    records = [read_cell(plan.request.directory, planned.cell_id) for planned in plan.cells]
    return [record for record in records if record is not None]


class JobLoop:
    """One run through the jobs of a sweep.

    Args:
        plan: the sweep.
        record: what records the cells' ends in MLflow.
        console: where progress is printed.
        launch: what launches jobs; it returns when they have ended.
    """

    def __init__(self, plan: SweepPlan, record: Recorder, console: Console, launch: Launch) -> None:
        settings = plan.settings
        self._plan, self._record, self._console, self._launch = plan, record, console, launch
        self._progress = terminal.Progress(console, settings.rounds, plan.distinguishing, settings.timeout_s)
        self._budget = budget_of(settings.rounds, settings.budget_min)
        self._open_cells = {planned.cell_id for planned in plan.matrix.runnable}

    def run(self) -> bool:
        """Launch every job that has not ended yet and end every cell; returns whether the user interrupted it."""
        settings, is_interrupted = self._plan.settings, False
        try:
            for stage in stages(self._plan.matrix.runnable, settings.rounds, settings.cell.seed, self._undecided_cells):
                if not self._run_stage(self._without_ended(stage)):
                    break
        except KeyboardInterrupt:
            self._console.print(
                "[yellow]interrupted[/yellow]: the job that was running was stopped; the finished jobs are kept. To go "
                f"on: python -m runner resume {self._plan.request.sweep_id}"
            )
            is_interrupted = True
        finally:
            for cell_id in sorted(self._open_cells):
                self._end_cell(cell_id, is_complete=not is_interrupted)
        return is_interrupted

    def _without_ended(self, stage: Sequence[Job]) -> list[Job]:
        """The jobs of a stage that still have to run; the user is told how many had ended in an earlier run."""
        jobs = [(number, planned) for number, planned in stage if not self._has_ended(number, planned)]
        if len(jobs) < len(stage):
            ended = terminal.plural(len(stage) - len(jobs), "job")
            self._console.print(f"[dim]{ended} had ended before[/dim]")
        return jobs

    def _has_ended(self, number: int, planned: PlannedCell) -> bool:
        """Whether this round of the cell has ended and need not be tried again."""
        try:
            job = read_job(self._plan.request.directory, planned.cell_id, number)
        except FormatError:
            return False
        if job is None:
            return False
        status = job.outcomes[0].status
        return status == Status.FINISHED or (status == Status.FAILED and not self._plan.settings.retries)

    def _run_stage(self, stage: Sequence[Job]) -> bool:
        """Launch the jobs of a stage; returns False if the sweep's budget is used up."""
        self._progress.add(stage)
        size = self._plan.request.batch
        for first in range(0, len(stage), size):
            batch = stage[first : first + size]
            if self._budget and not self._budget.allows(planned.cell_id for _, planned in batch):
                self._progress.out_of_budget(self._plan.settings.budget_min)
                return False
            self._run_batch(batch)
        return True

    def _run_batch(self, batch: Sequence[Job]) -> None:
        """Launch jobs together, print how each ended, and end the cells that had their last round."""
        for number, planned in batch:
            self._progress.begin(number, planned.cell.labels)
        rounds = self._plan.settings.rounds
        for outcome in self._launch(
            [self._overrides(number, planned) for number, planned in batch], self._progress.done
        ):
            job = read_job(self._plan.request.directory, outcome.cell_id, outcome.round)
            took_s = self._progress.end(outcome, cell_metrics(job) if job else {})
            if self._budget:
                self._budget.record(outcome.cell_id, took_s)
            if isinstance(rounds, int) and outcome.round == rounds - 1:
                self._open_cells.discard(outcome.cell_id)
                self._end_cell(outcome.cell_id)

    def _overrides(self, number: int, planned: PlannedCell) -> list[str]:
        """The overrides that compose one job."""
        request = self._plan.request
        return [
            *planned.overrides,
            f"sweep.id={request.sweep_id}",
            f"sweep.directory={quoted(request.directory)}",
            f"sweep.round={number}",
            f"sweep.cell_id={quoted(planned.cell_id)}",
            f"sweep.command={quoted(planned.command)}",
        ]

    def _end_cell(self, cell_id: str, is_complete: bool = True) -> None:
        self._record.attempt(lambda store: store.end_cell(self._plan.request.directory, cell_id, is_complete))

    def _undecided_cells(self) -> list[PlannedCell]:
        """The cells that rounds=auto or race gives more rounds."""
        plan = self._plan
        ranking = rank_sweep(read_records(plan), plan.baseline.cell_id, plan.distinguishing, plan.level)
        if plan.settings.rounds == RACE:
            cell_ids = racing.go_on(ranking, plan.request.directory, plan.settings.smallest_pct, plan.settings.where)
        else:
            cell_ids = undecided(ranking.rows, plan.settings.smallest_pct)
        return [planned for planned in self._plan.matrix.runnable if planned.cell_id in cell_ids]
