"""One job, from its typed configuration to its outcome: plan, launch, judge, record.

This is the Hydra task: it may run in the sweep's own process or on another node, so it takes all it
knows from the configuration and leaves all it found in the job's folder and in MLflow.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import sys
import sysconfig
import tempfile
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from runner import execute, gate, launch, quality
from runner.capture import onednn
from runner.config import Config, cell_of
from runner.errors import RunnerError
from runner.host import Machine, isa, read_topology, version_of
from runner.job import (
    OTHER_FAILED,
    FormatError,
    JobSpec,
    WorkerResult,
    onednn_log,
    read_result,
    result_file,
    write_json,
)
from runner.launch import environment
from runner.matrix import Cell
from runner.metrics import evidence_figures
from runner.outcome import FAILED, FINISHED, KILLED, OUTCOME_FILE, RESULT_FILE, Outcome, job_folder
from runner.store import Store


@functools.cache
def this_machine() -> Machine:
    """What this process has to run on; asked once."""
    topology = read_topology()
    manager = execute.working_task_manager(min(topology.allowed), topology.nodes()[0])
    # Inductor's code is a Python extension: without Python's headers the compiler is of no use.
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    compiler = shutil.which(os.environ.get("CXX", "g++")) if headers.exists() else None
    return Machine(topology, manager, isa(), version_of("intel-extension-for-pytorch"), compiler)


def plan_here(cell: Cell) -> launch.Plan:
    """Resolve a cell on this machine as the calling process sees it.

    Raises:
        RunnerError: see launch.plan().
    """
    return launch.plan(cell, this_machine(), os.environ, sys.executable)


def run(config: Config, resolved_yaml: str) -> Outcome:
    """Run one job and record it; never raises for anything the job did.

    Args:
        resolved_yaml: the composed configuration, kept as an artifact.
    """
    if not config.sweep.directory:
        raise RunnerError("hydra.mode=RUN: jobs are run by the sweeper; leave hydra.mode as it is")
    cell = cell_of(config)
    sweep = Path(config.sweep.directory)
    folder = job_folder(sweep, config.sweep.cell_id, config.sweep.round)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(resolved_yaml, encoding="utf-8")

    store = Store(Path(config.mlruns))
    run_id = store.start_cell(
        config.sweep.parent_run, config.sweep.id, config.sweep.cell_id, cell, config.sweep.command
    )
    interrupted: BaseException | None = None
    unfinished = Outcome(
        config.sweep.cell_id, config.sweep.round, cell.axes, FAILED, run_id=run_id, settings=cell.settings
    )
    try:
        if cell.cell_id != config.sweep.cell_id:
            raise RunnerError("the configuration changed while the sweep ran: start the sweep again")
        outcome = _attempt(cell, config, folder, unfinished)
    except RunnerError as error:
        outcome = replace(unfinished, failure=str(error))
    except KeyboardInterrupt as error:  # recorded, then passed on
        interrupted = error
        outcome = replace(unfinished, status=KILLED, failure="interrupted")
    except Exception as error:  # a fault of ours costs this cell, not the sweep
        traceback.print_exc()
        outcome = replace(unfinished, failure=f"the runner failed: {type(error).__name__}: {error}")
    write_json(folder / OUTCOME_FILE, outcome)
    last = config.sweep.round == config.rounds - 1
    store.log_job(sweep, outcome, folder, last=last or interrupted is not None)
    if interrupted is not None:
        raise interrupted
    return outcome


def _attempt(cell: Cell, config: Config, folder: Path, unfinished: Outcome) -> Outcome:
    """Launch, wait and judge: ``unfinished`` with what became of it.

    Raises:
        RunnerError: the cell can't be launched here.
    """
    number = config.sweep.round
    planned = plan_here(cell)
    marker = f"{config.sweep.id}/{cell.cell_id}/{number}"
    # Short and without spaces or colons whatever the project's path is: LD_PRELOAD is split at both.
    shim = Path(tempfile.mkdtemp(prefix="runner-", dir="/tmp"))
    try:
        command = launch.command(planned, folder / "job.json", shim, os.environ, sys.executable, marker)
        result_path = folder / RESULT_FILE
        for old in (*folder.glob("result*.json"), *folder.glob(".*")):
            old.unlink()
        write_json(folder / "job.json", _spec(planned, config, result_path))
        write_json(
            folder / "launch.json",
            {
                "argv": command.argv,
                # Only what tunes the job: the caller's environment may hold secrets, and results are shared.
                "env": environment.visible(command.env),
                "scrubbed": dict(command.scrubbed),
                "links": {str(link): str(file) for link, file in command.links.items()},
                "as_shell": command.as_shell(),
                "placement": asdict(planned.placement),
            },
        )
        try:
            ended = execute.run(
                command.argv,
                command.env,
                folder / "stdout.log",
                folder / "stderr.log",
                config.timeout_s,
                marker,
                command.links,
            )
        except OSError as error:
            raise RunnerError(f"launcher={cell.launcher.name}: {command.argv[0]} can't be started ({error})") from error
    finally:
        shutil.rmtree(shim, ignore_errors=True)

    for left in folder.glob(".*"):  # marks of instances, and what a killed worker could not remove
        left.unlink()
    instances = range(cell.instances)
    judged = [
        _judge_end(ended, folder / result_file(i, cell.instances), cell, number, folder, config.timeout_s)
        for i in instances
    ]
    results = [result for result, _ in judged if result is not None]
    failures = [failure for _, failure in judged if failure is not None]
    cost = {"job": ended.wall_s}
    if len(results) < len(judged):
        # An instance that stopped because of another has no reason of its own to show.
        own = [failure for failure in failures if OTHER_FAILED not in failure]
        return replace(unfinished, failure=(own or failures)[0], cost_s=cost)
    cost |= {"launch": results[0].started_at_s - ended.started_at_s, **results[0].phases_s}
    findings = [_found(planned, result, folder, i) for i, result in enumerate(results)]
    failures = [str(mismatch) for found in findings for mismatch in found.mismatches]
    return replace(
        unfinished,
        status=FAILED if failures else FINISHED,
        failure="; ".join(dict.fromkeys(failures)) or None,
        evidence="mismatch" if failures else "ok",
        quality=next((found.quality for found in findings if found.quality != quality.OK), quality.OK),
        isa=findings[0].isa,
        figures=findings[0].figures,
        cost_s=cost,
    )


@dataclass(frozen=True)
class _Found:
    """What one instance's evidence comes to."""

    mismatches: tuple[gate.Mismatch, ...]
    quality: str
    isa: str
    figures: dict[str, float]


def _found(planned: launch.Plan, result: WorkerResult, folder: Path, instance: int) -> _Found:
    """Read an instance's evidence with its oneDNN log, keep it as evidence.json, and judge it."""
    log = folder / onednn_log(instance)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    kernels = onednn.summarize(onednn.parse(lines), result.onednn_wall_s or 0.0)
    evidence = {**result.evidence, "onednn": asdict(kernels), "quality": result.quality}
    write_json(folder / f"evidence{f'-{instance}' if instance else ''}.json", evidence)
    here = replace(planned, placement=planned.placement.of_instance(instance))
    return _Found(
        mismatches=gate.check(here, evidence),
        quality=quality.judge(result.quality, planned.cell.precision.tolerance),
        isa=kernels.main_isa,
        figures=evidence_figures(kernels, result.quality),
    )


def _spec(planned: launch.Plan, config: Config, result_path: Path) -> JobSpec:
    cell, placement = planned.cell, planned.placement
    sequence = {} if cell.sequence_length is None else {"sequence_length": cell.sequence_length}
    return JobSpec(
        cell_id=cell.cell_id,
        round=config.sweep.round,
        model_target=cell.model.target,
        model_kwargs={**cell.model.kwargs, **sequence},
        batch_size=cell.batch_size,
        ipex=cell.ipex,
        memory_format=cell.memory_format,
        precision=cell.precision.name,
        calibration_batches=cell.precision.calibration_batches,
        graph=cell.graph.name,
        fullgraph=cell.graph.fullgraph,
        seed=cell.seed,
        warmup=cell.warmup,
        iterations=cell.iterations,
        min_time_s=cell.min_time_s,
        runner_pid=os.getpid(),
        result_path=str(result_path),
        instances=[list(placement.of_instance(i).cores) for i in range(placement.instances)],
    )


def _judge_end(
    ended: execute.Ended, result_path: Path, cell: Cell, number: int, folder: Path, timeout_s: float
) -> tuple[WorkerResult | None, str | None]:
    """(the worker's result when it measured, the failure when it did not). The exit status alone proves nothing."""
    if ended.timed_out and not result_path.exists():
        return (
            None,
            f"timeout_s={timeout_s:g}: the job was still running and was stopped; raise timeout_s or do less work",
        )
    if not result_path.exists():
        return None, f"the worker left no result: {_why(ended.returncode, folder)}"
    try:
        result = read_result(result_path)
    except FormatError as error:
        return None, f"the worker's result is unusable: {error}"
    if (result.cell_id, result.round) != (cell.cell_id, number):
        return None, f"the worker's result is of another job ({result.cell_id}, round {result.round})"
    if result.error is not None:
        return None, f"the worker failed: {result.error}"
    if cell.iterations is not None and len(result.samples_s) != cell.iterations:
        return None, f"iterations={cell.iterations}: the worker timed {len(result.samples_s)}"
    return result, None


def _why(returncode: int, folder: Path) -> str:
    """What ended a process that could not say so itself: a signal if one can be told, else its last line."""
    text = (folder / "stderr.log").read_text(encoding="utf-8", errors="replace")
    number = -returncode if returncode < 0 else 0
    # A launcher reports its child as "died with <Signals.SIGKILL: 9>", or as the shell's 128 + signal;
    # torch's launcher as "exitcode: -9".
    named = re.findall(r"died with <Signals\.SIG\w+: (\d+)>|exit status (\d+)|exitcode: -(\d+)", text)
    for died, status, negative in named:
        number = int(died or negative or 0) or (int(status) - 128 if status and int(status) > 128 else number)
    if number:
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        hint = " (the kernel's out-of-memory killer uses it too: see dmesg)" if name == "SIGKILL" else ""
        return f"it was killed by {name}{hint}; see stderr.log"
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "nothing on stderr")
    return f"exit status {returncode}, last line: {last[:300]}"
