"""The loop over a sweep's jobs: stage by stage, round by round, then the captures, with their progress and records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Protocol

from rich.console import Console

from runner.analysis.ranking import Ranking, rank_sweep
from runner.config.override_text import quoted
from runner.config.sweep_options import RACE
from runner.job import listener
from runner.machine import stop_signals
from runner.machine.lock import Expect
from runner.protocol.cell import Cell
from runner.protocol.errors import StorageError
from runner.protocol.stored import FormatError
from runner.protocol.verdicts import Status
from runner.report import look, screen, terminal
from runner.report.progress import Progress
from runner.results.command_lines import resume_line
from runner.results.metrics import cell_metrics
from runner.results.outcome import CaptureOutcome, CellRecord, Outcome, read_captured, read_cell, read_job
from runner.stats import floor_at
from runner.sweep import racing
from runner.sweep.patience import Patience
from runner.sweep.planning import PlannedCell, SweepPlan
from runner.sweep.rounds import Budget, budget_of, least_rounds, stages, undecided
from runner.tracking.recorder import Recorder

# (round, cell)
Job = tuple[int, PlannedCell]


def read_records(plan: SweepPlan) -> list[CellRecord]:
    """The records of the cells that have had a job."""
    records = [read_cell(plan.request.directory, planned.cell_id) for planned in plan.cells]
    return [record for record in records if record is not None]


class Jobs(Protocol):
    """What makes jobs of their overrides."""

    def launch(self, overrides: Sequence[str], number: int) -> Outcome | CaptureOutcome:
        """Launch the job with this number of the sweep, and return when it has ended."""

    def prepare(self, overrides: Sequence[str]) -> None:
        """Do what the launch of this job can begin with, while another one runs."""


class _Meanwhile:
    """A listener that does what is due when a job has begun: while it imports its torch, and before it measures.

    The worker waits with its timed loop until what it announced before was heard.
    """

    def __init__(self, progress: Progress, record: Recorder, prepare_next: Callable[[], None]) -> None:
        self._progress, self._record, self._prepare_next = progress, record, prepare_next

    def phase(self, name: str) -> None:
        """Show the phase, record what is due, and prepare the next job.

        Raises:
            KeyboardInterrupt: the sweep was asked to stop, also where MLflow made an error of its own of that.
        """
        self._progress.phase(name)
        self._record.settle()
        self._prepare_next()
        stop_signals.check()

    def say(self, text: str) -> None:
        """Show the text."""
        self._progress.say(text)


class JobLoop:
    """One run through the jobs of a sweep: the timing rounds, then the captures.

    Args:
        plan: the sweep.
        record: what records the cells' ends in MLflow.
        console: where progress is printed.
        jobs: what launches them.
        floors: rounds -> the relative difference that equal cells show on this host.
        expect: told after each job how many seconds the others will take.
    """

    def __init__(
        self,
        plan: SweepPlan,
        record: Recorder,
        console: Console,
        jobs: Jobs,
        floors: Mapping[int, float],
        expect: Expect,
    ) -> None:
        settings = plan.settings
        self._plan, self._record, self._console, self._jobs = plan, record, console, jobs
        self._expect = expect
        self._floors = {} if "twin" in plan.distinguishing else floors
        self._progress = screen.progress(
            console, settings.rounds, plan.distinguishing, bool(settings.capture.names), settings.wide
        )
        self._budget = budget_of(settings.rounds, settings.budget_min)
        self._records: dict[str, CellRecord | None] = {}
        """What was read of cells of which no job has ended since."""
        self._open_cells = {planned.cell_id: planned for planned in plan.matrix.runnable}
        self._patience = Patience(len(plan.matrix.runnable) * least_rounds(settings.rounds))
        self._has_said_why = False
        """Whether the user knows that disturbed jobs are not measured again."""
        self._launches = 0
        self._is_timed = False
        """Whether no round is missing."""

    def run(self) -> bool:
        """Launch every job that has not ended yet and end every cell; returns whether the user interrupted it."""
        is_interrupted = False
        self._progress.start()
        try:
            self._run_rounds()
            self._is_timed = True
            self._take_captures()
        except (KeyboardInterrupt, Exception) as error:
            if not stop_signals.caused(error) or isinstance(error, StorageError):
                raise
            self._progress.stop()
            self._console.print(
                "[yellow]interrupted[/yellow]: what was running was stopped; what had finished is kept. To go on: "
                + resume_line(self._plan.request.directory)
            )
            is_interrupted = True
        finally:
            self._progress.stop()
            for cell_id in sorted(self._open_cells):
                self._end_cell(cell_id, is_complete=self._is_timed)
        return is_interrupted

    def _run_rounds(self) -> None:
        settings = self._plan.settings
        for stage in stages(self._plan.matrix.runnable, settings.rounds, settings.cell.seed, self._undecided_cells):
            if not self._run_stage(self._without_ended(stage)):
                break

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
        """Launch the jobs of a stage, and look at the ranking after each round.

        Returns False if the sweep's budget is used up.
        """
        self._progress.add([(number, planned.cell_id) for number, planned in stage])
        for (number, planned), following in zip_longest(stage, stage[1:]):
            if self._budget and not self._budget.allows(planned.cell_id):
                self._progress.out_of_budget("budget_min", self._plan.settings.budget_min)
                return False
            self._run_job(number, planned, following)
            if following is None or following[0] != number:
                self._look(number + 1)
        return True

    def _run_job(self, number: int, planned: PlannedCell, following: Job | None) -> None:
        """Launch a job, print how it ended, and end its cell if nothing more will come of it."""
        settings = self._plan.settings
        self._progress.begin(number, planned.cell_id, planned.cell.labels, _measuring(planned.cell))
        outcome = self._launched(self._overrides(number, planned), self._overrides(*following) if following else None)
        self._records.pop(planned.cell_id, None)
        if isinstance(outcome, CaptureOutcome):
            return
        job = read_job(self._plan.request.directory, outcome.cell_id, outcome.round)
        took_s = self._progress.end(outcome, cell_metrics(job) if job else {})
        self._expect(self._progress.left_s)
        if self._budget:
            self._budget.record(outcome.cell_id, took_s)
        self._be_patient(outcome, took_s)
        is_last = isinstance(settings.rounds, int) and outcome.round == settings.rounds - 1
        if is_last and not settings.capture.names:
            self._close_cell(outcome.cell_id)

    def _be_patient(self, outcome: Outcome, took_s: float) -> None:
        """Go on measuring again what others disturb, or say once why not."""
        if self._plan.settings.reruns:
            self._patience.record(outcome, took_s)
            why = self._patience.why_over()
            if why and not self._has_said_why:
                self._progress.say(why)
            self._has_said_why |= bool(why)

    def _launched(self, overrides: Sequence[str], following: Sequence[str] | None) -> Outcome | CaptureOutcome:
        """Launch a job and wait for it, while the progress hears what it says of itself, MLflow what is due, and the
        job that will probably follow is prepared."""
        stop_signals.check()

        def prepare_next() -> None:
            if following is not None:
                self._jobs.prepare(following)

        with listener.heard_by(_Meanwhile(self._progress, self._record, prepare_next)):
            number, self._launches = self._launches, self._launches + 1
            return self._jobs.launch(overrides, number)

    def _look(self, rounds: int) -> None:
        """Show the ranking, once every cell has had this many rounds and more are to come, or captures."""
        if self._plan.settings.rounds == 1 and not self._plan.settings.capture.names:
            return  # the closing table says it all
        ranking = self._ranking()
        if len(ranking.rows) > 1:
            floor = floor_at(self._floors, rounds)
            self._progress.look(ranking, look.heading(ranking.rows, rounds, self._plan.settings.rounds, floor))

    def _read(self) -> list[CellRecord]:
        """The records of the cells that have had a job; each is read again only after a job of its cell."""
        for planned in self._plan.cells:
            if self._records.get(planned.cell_id) is None:
                self._records[planned.cell_id] = read_cell(self._plan.request.directory, planned.cell_id)
        found = (self._records[planned.cell_id] for planned in self._plan.cells)
        return [record for record in found if record is not None]

    def _ranking(self) -> Ranking:
        plan = self._plan
        return rank_sweep(
            self._read(),
            plan.baseline.cell_id,
            plan.distinguishing,
            plan.level,
            self._floors,
            plan.request.sweep_id,
        )

    def _take_captures(self) -> None:
        """Take the captures of every cell that has none yet: of the baseline first, then of the fastest.

        They end with their budget. What it leaves out is taken if the sweep is resumed.
        """
        settings = self._plan.settings
        waiting = self._without_captures() if settings.capture.names else []
        if not waiting:
            return
        budget = Budget(settings.capture_budget_min)
        self._progress.add_captures([planned.cell_id for planned in waiting], settings.capture_budget_min)
        each = [[*self._overrides(0, planned), "sweep.captures=true"] for planned in waiting]
        for planned, job, following in zip_longest(waiting, each, each[1:]):
            if not budget.allows(planned.cell_id):
                self._progress.out_of_budget("capture_budget_min", settings.capture_budget_min)
                return
            self._progress.begin(0, planned.cell_id, planned.cell.labels, "two iterations")
            outcome = self._launched(job, following)
            budget.record(outcome.cell_id, self._progress.end(outcome, {}))
            self._expect(self._progress.left_s)
            self._close_cell(outcome.cell_id)

    def _without_captures(self) -> list[PlannedCell]:
        """The measured cells whose captures have not been taken: the baseline, then the fastest first."""
        waiting = []
        for row in sorted(self._ranking().rows, key=lambda row: not row.is_baseline):
            planned = self._planned(row.cell.cell_id)
            if planned is not None and row.p50_ms is not None and not self._has_captures(planned):
                waiting.append(planned)
        return waiting

    def _planned(self, cell_id: str) -> PlannedCell | None:
        return next((planned for planned in self._plan.matrix.runnable if planned.cell_id == cell_id), None)

    def _has_captures(self, planned: PlannedCell) -> bool:
        try:
            return read_captured(self._plan.request.directory, planned.cell_id) is not None
        except FormatError:
            return False

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
            *(["reruns=0"] if self._patience.why_over() else []),
        ]

    def _close_cell(self, cell_id: str) -> None:
        """End a cell of which nothing more will come."""
        self._open_cells.pop(cell_id, None)
        self._end_cell(cell_id)

    def _end_cell(self, cell_id: str, is_complete: bool = True) -> None:
        self._record.later(lambda store: store.end_cell(self._plan.request.directory, cell_id, is_complete))

    def _undecided_cells(self) -> list[PlannedCell]:
        """The cells that rounds=auto or race gives more rounds."""
        plan = self._plan
        ranking = rank_sweep(self._read(), plan.baseline.cell_id, plan.distinguishing, plan.level)
        if plan.settings.rounds == RACE:
            cell_ids = racing.go_on(ranking, plan.request.directory, plan.settings.smallest_pct, plan.settings.where)
            self._records.clear()  # what was dropped now is in the records
        else:
            cell_ids = undecided(ranking.rows, plan.settings.smallest_pct)
        return [planned for planned in self._plan.matrix.runnable if planned.cell_id in cell_ids]


def _measuring(cell: Cell) -> str:
    """What the timed loop of a cell will be, in words."""
    if cell.scenario.is_served:
        return f"{cell.scenario.requests} requests"
    if cell.iterations is not None:
        return terminal.plural(cell.iterations, "iteration")
    least, most = cell.min_time_s or 0.0, cell.max_time_s or 0.0
    return f"{most:g} s" if least >= most or cell.target_ci_pct is None else f"{least:g} to {most:g} s"
