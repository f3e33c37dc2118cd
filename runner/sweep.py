"""One sweep: plan all of it, refuse what can't be, run the jobs one after another, report.

Knows nothing of Hydra: composing a configuration and launching jobs come in as two callables, so
that the Hydra sweeper stays a thin shell.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.markup import escape

from runner import execute, host, noise, passes, probe
from runner.config import AUTO, Config, cell_of
from runner.errors import RunnerError
from runner.job import write_json
from runner.launch.placement import UnplaceableError
from runner.matrix import Cell, check_rule, combinations, matches, telling
from runner.metrics import cell_metrics
from runner.outcome import FAILED, FINISHED, KILLED, OUTCOME_FILE, CellRecord, Outcome, job_folder, read_cell
from runner.report import closing, expected, html, terminal
from runner.report.cause import main_causes
from runner.report.ranking import Row, pick_baseline, rank
from runner.rounds import LOOKS, Budget, level_of, stages, undecided
from runner.store import Store

ALL_RAN, SOME_FAILED, INTERRUPTED = 0, 1, 130

# What names a cell when nothing tells it apart, because it is alone.
DEFAULT_COLUMNS = ("model", "allocator", "ipex", "memory_format", "precision", "graph")

# Of the sweep of this process: Hydra drops what a sweeper returns, and raising in one would skip its callbacks.
exit_status = ALL_RAN


@dataclass(frozen=True)
class Request:
    """What the sweeper was asked for, before anything is composed."""

    choices: Mapping[str, Sequence[str]]
    """Override key -> values, in the order written; the product of all is the matrix."""
    exclude: Sequence[object]
    include: Sequence[object]
    directory: Path
    sweep_id: str
    experiment: str
    resolved: str
    """The composed configuration with hydra.sweeper, as YAML: experiment.yaml of the parent run."""
    batch: int
    """Jobs handed to the Hydra launcher at a time: 1 where the launcher runs them here, one by one."""


@dataclass(frozen=True)
class Planned:
    """One cell of the matrix with the overrides that compose it."""

    cell: Cell
    config: Config
    overrides: tuple[str, ...]

    @property
    def command(self) -> str:
        """The line that runs this cell alone, without the rules of the matrix it came from."""
        alone = ["hydra.sweeper.exclude=[]", "hydra.sweeper.include=[]"]
        line = shlex.join(["python", "-m", "runner", "-m", *self.overrides, *alone])
        own = Path(os.environ.get("RUNNER_EXPERIMENTS", "experiments"))
        # Only a folder of the user's own needs saying; the project's is found again without.
        project = Path(__file__).resolve().parents[1] / "experiments"
        return line if own.resolve() == project else f"RUNNER_EXPERIMENTS={shlex.quote(str(own.resolve()))} {line}"


@dataclass
class Matrix:
    """Cells sorted by what will become of them."""

    runnable: list[Planned] = field(default_factory=list)
    excluded: list[tuple[Mapping[str, str], str]] = field(default_factory=list)
    """(axes, reason): makes no sense or can't run on this machine; not a failure."""
    lacking: list[tuple[Planned, str]] = field(default_factory=list)
    """(cell, reason): something is not installed; recorded as FAILED without a launch."""
    used_rules: list[Mapping[str, Sequence[str]]] = field(default_factory=list)
    idle_rules: list[Mapping[str, Sequence[str]]] = field(default_factory=list)
    """Exclude rules that no cell of this matrix matched: perhaps misspelt, so they are named."""


Compose = Callable[[Sequence[str]], Config]
Launch = Callable[[Sequence[Sequence[str]], int], Sequence[Outcome]]


def plan(request: Request, compose: Compose) -> Matrix:
    """Compose every combination, apply the rules, and see what this machine can run.

    Raises:
        RunnerError: an option, value or rule can't be understood; nothing has been launched.
    """
    excludes = [check_rule(rule, "hydra.sweeper.exclude") for rule in request.exclude]
    includes = [check_rule(rule, "hydra.sweeper.include") for rule in request.include]
    wanted = [(combination, False) for combination in combinations(request.choices)]
    for rule in includes:
        fixed = {key: values[0] for key, values in request.choices.items()}
        wanted += [({**fixed, **extra}, True) for extra in combinations(rule)]
    matrix = Matrix()
    seen: set[str] = set()
    for combination, included in wanted:
        overrides = tuple(f"{key}={value}" for key, value in combination.items())
        config = compose(overrides)
        cell = cell_of(config)
        if cell.cell_id in seen:
            continue
        planned = Planned(cell, config, overrides)
        rule_hit = next((rule for rule in excludes if matches(rule, cell.axes)), None)
        if rule_hit is not None and not included:
            matrix.used_rules.append(rule_hit)
            matrix.excluded.append((cell.labels, f"excluded by the rule {_as_text(rule_hit)}"))
            continue
        seen.add(cell.cell_id)
        try:
            passes.plan_here(cell)
        except UnplaceableError as error:
            matrix.excluded.append((cell.labels, str(error)))
        except RunnerError as error:
            matrix.lacking.append((planned, str(error)))
        else:
            matrix.runnable.append(planned)
    matrix.idle_rules = [rule for rule in excludes if rule not in matrix.used_rules]
    return matrix


def run(request: Request, compose: Compose, launch: Launch) -> int:
    """The whole sweep; returns the exit status.

    Raises:
        RunnerError: the input was refused; nothing was launched or recorded.
    """
    console = terminal.make_console()
    matrix = plan(request, compose)
    asked = [*matrix.runnable, *(planned for planned, _ in matrix.lacking)]
    if not asked:
        reasons = "; ".join(dict.fromkeys(reason for _, reason in matrix.excluded))
        raise RunnerError(f"no cell of the matrix is left to run: {reasons or 'it is empty'}")
    settings = asked[0].config
    baseline = asked[pick_baseline([planned.cell.axes for planned in asked], settings.baseline)]
    shown = telling([planned.cell.labels for planned in asked] + [labels for labels, _ in matrix.excluded])
    shown = shown or DEFAULT_COLUMNS
    _expectations(settings)  # refused now rather than after the last job

    store = Store(Path(settings.mlruns))
    store.prepare()
    if (request.directory / "cells").exists():
        raise RunnerError(f"hydra.sweep.dir={request.directory}: it holds another sweep's cells; choose a new folder")
    fingerprint = host.fingerprint()
    console.print(
        f"[bold]{_size(len(matrix.runnable), settings)}[/bold] on {fingerprint['cpu_model']}, "
        f"cores {fingerprint['cpus_allowed']}, order seed {settings.seed}  [dim]sweep {request.sweep_id}[/dim]"
    )
    for line in terminal.exclusions(matrix.excluded, shown):
        console.print(f"  [yellow]excluded[/yellow] {escape(line)}")
    for rule in matrix.idle_rules:
        console.print(f"  [yellow]note[/yellow] the rule {_as_text(rule)} excludes no cell of this matrix")
    for capture, reason in probe.unavailable(settings.capture).items():
        console.print(f"  [yellow]unavailable[/yellow] capture {capture}: {escape(reason)}")
    for planned, reason in matrix.lacking:
        console.print(f"  [red]FAILED[/red] {terminal.label(planned.cell.labels, shown)}: {reason}")

    request.directory.mkdir(parents=True, exist_ok=True)
    (request.directory / "experiment.yaml").write_text(request.resolved, encoding="utf-8")
    level = level_of(settings.rounds)
    _write_plan(request, matrix, settings)
    for number in execute.STOPS:
        signal.signal(number, _as_interrupt)
    command = shlex.join(["python", "-m", "runner", *sys.argv[1:]])
    git = execute.git_state(Path(__file__).parent)
    parent = store.open_sweep(
        request.experiment,
        request.sweep_id,
        command,
        fingerprint,
        git,
        request.directory,
    )
    try:
        _record_lacking(request, matrix, parent, store)

        def records() -> list[CellRecord]:
            found = [read_cell(request.directory, planned.cell.cell_id) for planned in asked]
            return [record for record in found if record is not None]

        def ranked() -> list[Row]:
            return rank(records(), baseline.cell.cell_id, level)

        interrupted = _run_jobs(request, matrix.runnable, parent, shown, settings, console, launch, store, ranked)
        ended = records()
        floor = noise.told(ended, request.directory, store.root, str(fingerprint["host_id"]))
        rows = rank(ended, baseline.cell.cell_id, level, floor.floors)
        title = f"{request.experiment}, sweep {request.sweep_id}"
        published = expected.lines(_expectations(settings), rows)
        origin = html.Origin(command, git[0] or "", tuple(published), floor.said)
        changes = closing.leave(rows, shown, request.directory, title, origin)
        causes = main_causes(rows)
        store.tag_cells("main_cause", {row.record.run_id: cause for row, cause in causes if row.record.run_id})
        failed = any(record.failure for record in ended) or len(ended) < len(asked)
        status = KILLED if interrupted else FAILED if failed else FINISHED
        figures = {
            "sweep/cells_measured": float(sum(row.p50_ms is not None for row in rows)),
            "sweep/cells_failed": float(sum(bool(record.failure) for record in ended)),
            **floor.figures,
        }
        store.close_sweep(parent, status, figures, request.directory)
        links = store.save_views(parent, shown)
        said = [*changes, *published, *floor.said]
        closing.show(console, rows, shown, said, request.directory, store.root, links)
        return INTERRUPTED if interrupted else SOME_FAILED if failed else ALL_RAN
    except BaseException as error:  # no run is left open, whatever ended the sweep
        status = KILLED if isinstance(error, KeyboardInterrupt) else FAILED
        store.close_sweep(parent, status, {}, request.directory)
        raise


def _record_lacking(request: Request, matrix: Matrix, parent: str, store: Store) -> None:
    for planned, reason in matrix.lacking:
        store.fail_before_launch(parent, request.sweep_id, planned.cell, planned.command, reason)
        folder = job_folder(request.directory, planned.cell.cell_id, 0)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(
            folder / OUTCOME_FILE,
            Outcome(planned.cell.cell_id, 0, planned.cell.axes, FAILED, reason, settings=planned.cell.settings),
        )


def _run_jobs(
    request: Request,
    cells: Sequence[Planned],
    parent: str,
    shown: Sequence[str],
    settings: Config,
    console: Console,
    launch: Launch,
    store: Store,
    ranked: Callable[[], list[Row]],
) -> bool:
    """Launch every job and end every cell; True when the user stopped it.

    Args:
        ranked: the rows as they stand, from which rounds=auto sees what is undecided.
    """
    progress = terminal.Progress(console, settings.rounds, shown, settings.timeout_s)
    budget = Budget(settings.budget_min) if settings.rounds == AUTO else None
    running = {planned.cell.cell_id for planned in cells}

    def end(cell_id: str, is_complete: bool = True) -> None:
        running.discard(cell_id)
        store.end_cell(request.directory, cell_id, is_complete)

    def more() -> list[Planned]:
        wanted = undecided(ranked(), settings.smallest_pct)
        return [planned for planned in cells if planned.cell.cell_id in wanted]

    is_interrupted = False
    try:
        for stage in stages(cells, settings.rounds, settings.seed, more):
            progress.add(stage)
            for first in range(0, len(stage), request.batch):
                batch = stage[first : first + request.batch]
                if budget and not budget.allows(planned.cell.cell_id for _, planned in batch):
                    progress.out_of_budget(settings.budget_min)
                    return False
                for number, planned in batch:
                    progress.begin(number, planned.cell.labels)
                jobs = [_job(request, parent, number, planned) for number, planned in batch]
                for outcome in launch(jobs, progress.done):
                    record = read_cell(request.directory, outcome.cell_id)
                    took_s = progress.end(outcome, cell_metrics(record.only(outcome.round)) if record else {})
                    if budget:
                        budget.record(outcome.cell_id, took_s)
                    if isinstance(settings.rounds, int) and outcome.round == settings.rounds - 1:
                        end(outcome.cell_id)
    except KeyboardInterrupt:
        console.print("[yellow]interrupted[/yellow]: the job in flight was stopped; what had finished is kept")
        is_interrupted = True
    finally:
        for cell_id in sorted(running):
            end(cell_id, not is_interrupted)
    return is_interrupted


def _job(request: Request, parent: str, number: int, planned: Planned) -> list[str]:
    """The overrides that compose one job."""
    return [
        *planned.overrides,
        f"sweep.id={request.sweep_id}",
        f"sweep.directory={_quoted(request.directory)}",
        f"sweep.parent_run={parent}",
        f"sweep.round={number}",
        f"sweep.cell_id={_quoted(planned.cell.cell_id)}",
        f"sweep.command={_quoted(planned.command)}",
    ]


def _size(cells: int, settings: Config) -> str:
    """ "4 cells x 5 rounds = 20 jobs"."""
    if isinstance(settings.rounds, int):
        jobs = terminal.plural(cells * settings.rounds, "job")
        return f"{terminal.plural(cells, 'cell')} x {terminal.plural(settings.rounds, 'round')} = {jobs}"
    most = terminal.duration(60 * settings.budget_min)
    return f"{terminal.plural(cells, 'cell')} x {LOOKS[0]} to {LOOKS[-1]} rounds, at most {most}"


def _as_text(rule: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{axis}={'|'.join(values)}" for axis, values in rule.items())


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(f"signal {number}")


def _quoted(value: object) -> str:
    """A value that Hydra's override grammar reads back as it is."""
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _write_plan(request: Request, matrix: Matrix, settings: Config) -> None:
    """What will run and what won't, before the first job: plan.json, an artifact of the parent run."""
    write_json(
        request.directory / "plan.json",
        {
            "sweep_id": request.sweep_id,
            "seed": settings.seed,
            "rounds": settings.rounds,
            "level": level_of(settings.rounds),
            "cells": [
                {"cell_id": planned.cell.cell_id, "axes": planned.cell.axes, "command": planned.command}
                for planned in matrix.runnable
            ],
            # The order of a round is that of the seed; rounds=auto runs some cells of the later ones only.
            "order": [
                {"round": number, "cell_id": planned.cell.cell_id}
                for number, planned in next(stages(matrix.runnable, settings.rounds, settings.seed, list))
            ],
            "excluded": [{"axes": dict(axes), "reason": reason} for axes, reason in matrix.excluded],
            "lacking": [{"axes": planned.cell.axes, "reason": reason} for planned, reason in matrix.lacking],
            "pid": os.getpid(),
        },
    )


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
