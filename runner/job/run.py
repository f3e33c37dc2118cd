"""One job, from its typed configuration to its outcome: plan, launch, judge, record.

This is the Hydra task: it may run in the sweep's own process or on another node, so it takes all it knows from the
configuration, and leaves all that it learns in the job's folder and in MLflow.
"""

from __future__ import annotations

import itertools
import shutil
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from runner import launch
from runner.capture import kernels, onednn
from runner.checks import gate, precision, quality
from runner.config.captures import CaptureConf
from runner.config.schema import Config
from runner.job import listener, passes
from runner.job.first_look import FirstLook
from runner.job.serving import session as serving
from runner.machine import disk, host, stop_signals
from runner.protocol import contamination, stored
from runner.protocol.cell import Cell
from runner.protocol.errors import RunnerError, StorageError
from runner.protocol.evidence import OperatorEvidence
from runner.protocol.resultfile import OTHER_FAILED, WorkerResult, onednn_log
from runner.protocol.stored import write_json
from runner.protocol.verdicts import UNOBSERVED, EvidenceVerdict, QualityFinding, QualityVerdict, Status
from runner.results import ledger
from runner.results.metrics import evidence_figures
from runner.results.outcome import (
    OUTCOME_FILE,
    RESULT_FILE,
    CaptureOutcome,
    Outcome,
    attempt_folders,
    job_folder,
)
from runner.tracking import recorder

# The file of every attempt that says why it is contaminated, with the figures of each instance.
CONTAMINATION_FILE = "contamination.json"


def run_job(config: Config, resolved_yaml: str) -> Outcome:
    """Run one job and record it; never raises for anything the job did.

    Args:
        resolved_yaml: the composed configuration, kept as an artifact.

    Raises:
        StorageError: the disk is full; the job counts as not run.
    """
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
    record.later(lambda store: store.start_cell(sweep, cell_id))
    interrupted: BaseException | None = None
    unfinished = Outcome(cell_id, number, cell.axes, Status.FAILED, settings=cell.settings)
    try:
        if cell.key != ledger.read_cell(sweep, cell_id).key:
            raise RunnerError("the configuration changed while the sweep ran: start the sweep again")
        _check_host(sweep)
        _clear(folder)
        outcome = _retried(cell, config, folder, unfinished)
    except StorageError:
        raise
    except RunnerError as error:
        outcome = replace(unfinished, failure=str(error))
    except KeyboardInterrupt as error:  # recorded, then passed on
        interrupted = error
        outcome = replace(unfinished, status=Status.KILLED, failure="interrupted")
    except Exception as error:  # a fault of ours costs this cell, not the sweep
        if disk.is_full(error):
            raise
        if stop_signals.caused(error):
            interrupted = error
            outcome = replace(unfinished, status=Status.KILLED, failure="interrupted")
        else:
            traceback.print_exc()
            outcome = replace(unfinished, failure=f"the runner failed: {type(error).__name__}: {error}")
    outcome = replace(outcome, attempts=1 + len(attempt_folders(folder)))
    write_json(folder / OUTCOME_FILE, outcome)
    record.later(lambda store: store.log_job(sweep, cell_id, number))
    if interrupted is not None:
        raise interrupted
    return outcome


def _check_host(sweep: Path) -> None:
    """Refuse a job of a sweep that was planned on another host: its cells name that host's CPU, cores and libraries.

    Raises:
        RunnerError: this host is another one, by name.
    """
    planned, here = ledger.read_sweep(sweep), host.fingerprint()
    if planned.host_id != here["host_id"]:
        raise RunnerError(
            f"the sweep was planned on host {planned.hostname or planned.host_id}, and this is {here['hostname']}: its "
            "result would be filed under the wrong machine"
        )


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
        if outcome.status != Status.FAILED:
            break
        listener.say(f"FAILED ({outcome.failure}), tried again {again} of {config.retries}")
        _set_aside(folder)
        outcome = _undisturbed(cell, config, folder, unfinished)
    return outcome


def _undisturbed(cell: Cell, config: Config, folder: Path, unfinished: Outcome) -> Outcome:
    """Attempt the pass until nobody else was at work while it measured, or there have been ``reruns`` more.

    The last attempt counts, contaminated or not: choosing the best of them would make luck look like speed. A worker
    that can run its loop again by itself has done so, in the same process.

    Raises:
        RunnerError: see _attempt().
    """
    outcome, spent_s = _attempt(cell, config, folder, unfinished), 0.0
    for again in range(1, 1 if passes.can_repeat(cell) else config.reruns + 1):
        if outcome.status != Status.FINISHED or not outcome.contamination:
            break
        why = "; ".join(outcome.contamination)
        listener.say(f"disturbed ({why}), run again {again} of {config.reruns}")
        _set_aside(folder)
        spent_s += outcome.cost_s["job"]
        outcome = _attempt(cell, config, folder, unfinished)
    return replace(outcome, cost_s={**outcome.cost_s, "reruns": spent_s + outcome.cost_s.get("reruns", 0.0)})


def _set_aside(folder: Path) -> None:
    """Move all that an attempt left into a folder of its own."""
    earlier = attempt_folders(folder)
    stay = {folder / "config.yaml", *earlier}
    files = [path for path in folder.iterdir() if path not in stay]
    aside = folder / f"attempt-{1 + len(earlier)}"
    aside.mkdir()
    for path in files:
        path.rename(aside / path.name)


def _attempt(cell: Cell, config: Config, folder: Path, unfinished: Outcome) -> Outcome:
    """Launch, wait and judge: ``unfinished`` with what became of it.

    Raises:
        RunnerError: the cell can't be launched here.
        StorageError: it failed on a disk that is full.
    """
    placed = passes.place_here(cell)
    # Captures are taken after the last round, see runner.job.captures.
    first_look = _first_look(cell, config)
    measured = launch_pass(placed, config, folder, CaptureConf(), first_look is None)
    cost_s = {"job": measured.ended.wall_s, **measured.cost_s}
    results = [result for result, _ in measured.judged if result is not None]
    if len(results) < len(measured.judged):
        disk.check(folder)
        return _possible(replace(unfinished, failure=failure_of(measured), cost_s=cost_s), unfinished)
    cost_s |= {"launch": results[0].started_at_s - measured.ended.started_at_s, **results[0].phases_s}
    cost_s["reruns"] = sum(window.wall_s for result in results for window in result.disturbed)
    seen_in, unlike = folder, list[gate.Mismatch]()
    if first_look is not None:
        seen_in, unlike = first_look.folder, first_look.unlike(results)
        results = [first_look.completed(result, i) for i, result in enumerate(results)]
    instances = [judge_instance(placed, result, folder, i, seen_in) for i, result in enumerate(results)]
    first = instances[0]
    outcome = replace(
        _judge_job(unfinished, instances, unlike),
        figures={**evidence_figures(first.summary, results[0].quality, first.operators), **measured.figures},
        captures=_tags(first, results[0]),
        cost_s=cost_s,
        contamination=_judge_surroundings(results, folder),
        repeats=sum(len(result.disturbed) for result in results),
        notes=tuple(
            dict.fromkeys(
                itertools.chain(*(result.notes for result in results), *(instance.notes for instance in instances))
            )
        ),
    )
    return _possible(outcome, unfinished)


def _possible(outcome: Outcome, unfinished: Outcome) -> Outcome:
    """The outcome, or ``unfinished`` with the reason where no reader would take it."""
    reason = misfit(outcome)
    if reason is None:
        return outcome
    return replace(unfinished, failure="; ".join(filter(None, (outcome.failure, reason))))


def misfit(outcome: Outcome | CaptureOutcome) -> str | None:
    """Why no reader would take this outcome, as a reason of failure; None if readers take it.

    A figure that can't be, as a negative duration by a clock that was set back, costs its pass and not the sweep.
    """
    try:
        stored.fit(type(outcome), stored.as_written(outcome))
    except stored.Unfit as unfit:
        return f"{unfit}: a clock was set or a counter jumped while the pass ran; retries=1 runs such a pass again"
    return None


def _tags(judged: JudgedInstance, result: WorkerResult) -> dict[str, str]:
    """The tags of the evidence: the kernel that did most of the arithmetic, the recipe of the precision, and what could
    not be seen of operators."""
    tags = {"onednn.kernel": judged.summary.main_kernel} if judged.summary.main_kernel else {}
    if result.evidence is not None and result.evidence.precision.recipe is not None:
        tags["precision.recipe"] = result.evidence.precision.recipe
    operators = None if result.evidence is None else result.evidence.operators
    if operators is None:
        tags["evidence.operators"] = f"{UNOBSERVED}: torch's profiler failed; see stderr.log of the job"
    elif operators.left_out:
        tags["evidence.operators"] = f"{operators.left_out} ranges left out: torch did not escape their labels"
    return tags


def _first_look(cell: Cell, config: Config) -> FirstLook | None:
    """What the first round saw, for a later one; None if this round has to look for itself."""
    if not config.sweep.round or cell.scenario.is_served:
        return None
    return FirstLook.of(Path(config.sweep.directory), config.sweep.cell_id, cell.instances)


def launch_pass(
    placed: launch.PlacedCell, config: Config, folder: Path, captures: CaptureConf, looks: bool = True
) -> passes.PassResult:
    """Run a pass with a timed loop, and remove the marks that its instances leave for each other.

    Args:
        looks: whether its workers look at operators and kernels.
    """
    spec = passes.with_shared_files(passes.spec_of(placed, config, folder / RESULT_FILE, captures), config)
    spec = replace(spec, looks=looks)
    measure = serving.measure if placed.cell.scenario.is_served else passes.measure
    measured = measure(placed, config, folder, spec)
    for mark in folder.glob(".*"):  # with what a killed worker could not remove
        mark.unlink()
    return measured


def failure_of(measured: passes.PassResult) -> str:
    """Why a pass has no result: an instance that stopped because of another has no reason of its own to show."""
    failures = [failure for _, failure in measured.judged if failure is not None]
    return next((failure for failure in failures if OTHER_FAILED not in failure), failures[0])


@dataclass(frozen=True)
class JudgedInstance:
    """What one instance left of its run, and what the checks say about it."""

    mismatches: tuple[gate.Mismatch, ...]
    """Everything that did not run as asked."""
    quality: QualityFinding
    """Whether its output is right."""
    operators: OperatorEvidence | None
    """The operators that torch's profiler saw; None if it failed."""
    log: onednn.Log
    """oneDNN's log, parsed."""
    summary: kernels.Summary
    """The summary of that log."""
    notes: tuple[str, ...]
    """What a reader of the result must know of its precision."""


def judge_instance(
    placed: launch.PlacedCell, result: WorkerResult, folder: Path, instance: int, seen_in: Path | None = None
) -> JudgedInstance:
    """Read an instance's evidence with its oneDNN log, keep it as evidence.json, and judge it.

    Args:
        seen_in: the folder with oneDNN's log, if it is another.
    """
    file = (seen_in or folder) / onednn_log(instance)
    lines = stored.read_text(file, errors="replace").splitlines(keepends=True) if file.exists() else []
    log = onednn.parse(lines)
    summary = kernels.summarize(log, result.onednn_step_s, result.streams)
    proof = None
    if result.evidence is not None:
        proof = gate.Proof(result.evidence, summary, result.quality, result.window, result.round)
    if proof is not None:
        _write_evidence(folder / f"evidence{f'-{instance}' if instance else ''}.json", proof)
    return JudgedInstance(
        mismatches=gate.check(replace(placed, placement=placed.placement.of_instance(instance)), proof),
        quality=quality.judge(result.quality, placed.cell.tolerance),
        operators=None if result.evidence is None else result.evidence.operators,
        log=log,
        summary=summary,
        notes=() if proof is None else tuple(precision.notes(placed, proof)),
    )


def _write_evidence(file: Path, proof: gate.Proof) -> None:
    """Leave the evidence for people: its parts side by side, with oneDNN's summary and the comparison with fp32."""
    parts = asdict(proof)
    write_json(file, {**parts["evidence"], "onednn": parts["kernels"], "quality": parts["quality"]})


def _judge_job(unfinished: Outcome, instances: Sequence[JudgedInstance], unlike: Sequence[gate.Mismatch]) -> Outcome:
    """``unfinished`` with the verdicts of all instances: one that is wrong makes the job wrong.

    Args:
        unlike: in what they differ from the first round.
    """
    mismatches = [*unlike, *(mismatch for instance in instances for mismatch in instance.mismatches)]
    failures = dict.fromkeys(map(str, mismatches))
    saw_all = all(instance.operators is not None for instance in instances)
    seen = EvidenceVerdict.OK if saw_all else EvidenceVerdict.UNOBSERVED
    wrong = [instance.quality for instance in instances if instance.quality != QualityVerdict.OK]
    return replace(
        unfinished,
        status=Status.FAILED if failures else Status.FINISHED,
        failure="; ".join(failures) or None,
        evidence=EvidenceVerdict.MISMATCH if failures else seen,
        quality=wrong[0] if wrong else QualityVerdict.OK,
        isa=instances[0].summary.main_isa,
    )


def _judge_surroundings(results: Sequence[WorkerResult], folder: Path) -> tuple[str, ...]:
    """Why the times are not the job's own; contamination.json keeps the figures of each instance."""
    windows = [result.window for result in results]
    reasons = contamination.judge_all(windows)
    figures = [contamination.figures(window) for window in windows if window is not None]
    before = [contamination.judge(window) for result in results for window in result.disturbed]
    write_json(folder / CONTAMINATION_FILE, {"reasons": reasons, "instances": figures, "disturbed_before": before})
    return reasons
