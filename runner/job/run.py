"""One job, from its typed configuration to its outcome: plan, launch, judge, record.

This is the Hydra task: it may run in the sweep's own process or on another node, so it takes all it
knows from the configuration and leaves all it found in the job's folder and in MLflow.
"""

from __future__ import annotations

import shutil
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from runner import launch
from runner.capture import kernels, onednn
from runner.capture.collect import collect
from runner.checks import contamination, gate, quality
from runner.config.captures import CaptureConf
from runner.config.schema import Config
from runner.job import passes, separate
from runner.job.serving import session as serving
from runner.machine import disk, lock
from runner.matrix.cell import Cell
from runner.protocol import stored
from runner.protocol.errors import RunnerError, StorageError
from runner.protocol.resultfile import OTHER_FAILED, WorkerResult, onednn_log
from runner.protocol.stored import write_json
from runner.results import ledger
from runner.results.metrics import evidence_figures
from runner.results.outcome import (
    FAILED,
    FINISHED,
    KILLED,
    OUTCOME_FILE,
    RESULT_FILE,
    Outcome,
    attempt_folders,
    job_folder,
)
from runner.tracking import recorder

# Of every attempt: why it is contaminated, and the figures of each instance.
CONTAMINATION_FILE = "contamination.json"


def run_job(config: Config, resolved_yaml: str) -> Outcome:
    """Run one job and record it; never raises for anything the job did.

    Args:
        resolved_yaml: the composed configuration, kept as an artifact.

    Raises:
        StorageError: the disk takes no more; the job counts as not run.
    """
    # The sweep's own where the job runs in its process; on another node, that node's.
    with lock.measuring(config.sweep.id, Path(config.mlruns), config.wait, print):
        sweep = Path(config.sweep.directory)
        with disk.writing(sweep):
            disk.check(sweep)
            return _run(config, resolved_yaml)


def _run(config: Config, resolved_yaml: str) -> Outcome:
    cell = config.cell
    sweep = Path(config.sweep.directory)
    folder = job_folder(sweep, config.sweep.cell_id, config.sweep.round)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(resolved_yaml, encoding="utf-8")

    cell_id, number = config.sweep.cell_id, config.sweep.round
    record = recorder.recorder_for(Path(config.mlruns), config.tracking_uri)
    record.attempt(lambda store: store.start_cell(sweep, cell_id))
    interrupted: BaseException | None = None
    unfinished = Outcome(cell_id, number, cell.axes, FAILED, settings=cell.settings)
    try:
        if cell.key != ledger.read_cell(sweep, cell_id).key:
            raise RunnerError("the configuration changed while the sweep ran: start the sweep again")
        _clear(folder)
        outcome = _retried(cell, config, folder, unfinished)
    except StorageError:
        raise
    except RunnerError as error:
        outcome = replace(unfinished, failure=str(error))
    except KeyboardInterrupt as error:  # recorded, then passed on
        interrupted = error
        outcome = replace(unfinished, status=KILLED, failure="interrupted")
    except Exception as error:  # a fault of ours costs this cell, not the sweep
        if disk.is_full(error):
            raise
        traceback.print_exc()
        outcome = replace(unfinished, failure=f"the runner failed: {type(error).__name__}: {error}")
    outcome = replace(outcome, attempts=1 + len(attempt_folders(folder)))
    write_json(folder / OUTCOME_FILE, outcome)
    if outcome.status == FINISHED and config.sweep.round == 0:
        try:
            more = separate.take(passes.place_here(cell), config, folder)
            outcome = replace(
                outcome, figures={**outcome.figures, **more.figures}, captures={**outcome.captures, **more.tags}
            )
            write_json(folder / OUTCOME_FILE, outcome)
        except KeyboardInterrupt as error:  # what the timing pass measured stays
            interrupted = error
    record.attempt(lambda store: store.log_job(sweep, cell_id, number))
    if interrupted is not None:
        raise interrupted
    return outcome


def _clear(folder: Path) -> None:
    """Remove what an earlier run of the same job left."""
    for old in folder.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
        elif old.name != "config.yaml":
            old.unlink()


def _retried(cell: Cell, config: Config, folder: Path, unfinished: Outcome) -> Outcome:
    """Run the job again when it failed, up to ``retries`` times; every attempt is kept.

    Raises:
        RunnerError: see _attempt().
    """
    outcome = _undisturbed(cell, config, folder, unfinished)
    for again in range(1, config.retries + 1):
        if outcome.status != FAILED:
            break
        print(f"      FAILED ({outcome.failure}), tried again {again} of {config.retries}", flush=True)
        _set_aside(folder)
        outcome = _undisturbed(cell, config, folder, unfinished)
    return outcome


def _undisturbed(cell: Cell, config: Config, folder: Path, unfinished: Outcome) -> Outcome:
    """Attempt the pass until nobody else was at work while it measured, or there have been ``reruns`` more.

    The last attempt counts, contaminated or not: choosing the best of them would make luck look like speed.

    Raises:
        RunnerError: see _attempt().
    """
    outcome, spent_s = _attempt(cell, config, folder, unfinished), 0.0
    for again in range(1, config.reruns + 1):
        if outcome.status != FINISHED or not outcome.contamination:
            break
        why = "; ".join(outcome.contamination)
        print(f"      contaminated ({why}), run again {again} of {config.reruns}", flush=True)
        _set_aside(folder)
        spent_s += outcome.cost_s["job"]
        outcome = _attempt(cell, config, folder, unfinished)
    return replace(outcome, cost_s={**outcome.cost_s, "reruns": spent_s})


def _set_aside(folder: Path) -> None:
    """Move all that an attempt left into a folder of its own."""
    earlier = attempt_folders(folder)
    stay = {folder / "config.yaml", *earlier}
    left = [path for path in folder.iterdir() if path not in stay]
    aside = folder / f"attempt-{1 + len(earlier)}"
    aside.mkdir()
    for path in left:
        path.rename(aside / path.name)


def _attempt(cell: Cell, config: Config, folder: Path, unfinished: Outcome) -> Outcome:
    """Launch, wait and judge: ``unfinished`` with what became of it.

    Raises:
        RunnerError: the cell can't be launched here.
        StorageError: it failed on a disk that is full.
    """
    placed = passes.place_here(cell)
    # Once a cell: later rounds are for the timing alone.
    captures = config.capture if config.sweep.round == 0 else CaptureConf()
    spec = passes.spec_of(placed, config, folder / RESULT_FILE, captures)
    measure = serving.measure if cell.scenario.is_served else passes.measure
    measured = measure(placed, config, folder, spec)
    ended = measured.ended
    for left in folder.glob(".*"):  # marks of instances, and what a killed worker could not remove
        left.unlink()
    results = [result for result, _ in measured.judged if result is not None]
    failures = [failure for _, failure in measured.judged if failure is not None]
    cost = {"job": ended.wall_s, **measured.cost_s}
    if len(results) < len(measured.judged):
        disk.check(folder)
        # An instance that stopped because of another has no reason of its own to show.
        own = [failure for failure in failures if OTHER_FAILED not in failure]
        return replace(unfinished, failure=(own or failures)[0], cost_s=cost)
    cost |= {"launch": results[0].started_at_s - ended.started_at_s, **results[0].phases_s}
    windows = [result.window for result in results]
    disturbed = contamination.judge_all(windows)
    seen = [contamination.figures(window) for window in windows if window is not None]
    write_json(folder / CONTAMINATION_FILE, {"reasons": disturbed, "instances": seen})
    findings = [_found(placed, result, folder, i) for i, result in enumerate(results)]
    failures = [str(mismatch) for found in findings for mismatch in found.mismatches]
    stopped = f"timeout_s={config.timeout_s:g} passed during the captures" if ended.timed_out else None
    captured = collect(folder, captures, results[0], findings[0].log, findings[0].kernel, stopped)
    return replace(
        unfinished,
        status=FAILED if failures else FINISHED,
        failure="; ".join(dict.fromkeys(failures)) or None,
        evidence="mismatch" if failures else "ok",
        quality=next((found.quality for found in findings if found.quality != quality.OK), quality.OK),
        isa=findings[0].isa,
        figures={**findings[0].figures, **captured.figures, **measured.figures},
        captures=captured.tags,
        cost_s=cost,
        contamination=disturbed,
    )


@dataclass(frozen=True)
class _Found:
    """What one instance's evidence comes to."""

    mismatches: tuple[gate.Mismatch, ...]
    quality: str
    isa: str
    figures: dict[str, float]
    log: onednn.Log
    kernel: str


def _found(placed: launch.PlacedCell, result: WorkerResult, folder: Path, instance: int) -> _Found:
    """Read an instance's evidence with its oneDNN log, keep it as evidence.json, and judge it."""
    log = folder / onednn_log(instance)
    lines = stored.read_text(log, errors="replace").splitlines() if log.exists() else []
    parsed = onednn.parse(lines)
    summary = kernels.summarize(parsed, result.onednn_step_s)
    evidence = {**result.evidence, "onednn": asdict(summary), "quality": result.quality}
    write_json(folder / f"evidence{f'-{instance}' if instance else ''}.json", evidence)
    here = replace(placed, placement=placed.placement.of_instance(instance))
    return _Found(
        mismatches=gate.check(here, evidence),
        quality=quality.judge(result.quality, placed.cell.precision.tolerance),
        isa=summary.main_isa,
        figures=evidence_figures(summary, result.quality),
        log=parsed,
        kernel=summary.main_kernel,
    )
