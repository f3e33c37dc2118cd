"""The captures of a cell, in a process of their own after the last timing round: no answer waits for them.

The process proves itself like one that is timed, runs a few iterations, and records what was asked for. Whatever
happens here becomes a tag: it can't harm the timing, which is over and written.
"""

from __future__ import annotations

import shutil
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

from runner.capture.collect import Findings, collect
from runner.checks import likeness
from runner.config.captures import CaptureConf
from runner.config.schema import Config
from runner.job import passes, separate_passes
from runner.job.run import JudgedInstance, failure_of, judge_instance, launch_pass, misfit
from runner.launch import PlacedCell
from runner.machine import disk
from runner.protocol.cell import WORKED_ON, Cell
from runner.protocol.errors import RunnerError, StorageError
from runner.protocol.resultfile import WorkerResult
from runner.protocol.stored import write_json
from runner.results.outcome import OUTCOME_FILE, CaptureOutcome, captures_job, read_cell
from runner.tracking import recorder

# The loop before the captures is there for the proof, and to have iterations like the timed ones.
_ITERATIONS = 2
# The most requests to a server before the captures, as batches or per client.
_REQUESTS = 2

_ITT_AND_STREAMS = (
    "torch marks the operators of the thread that calls the model, and with ipex=multistream other threads compute; "
    "capture=[profiler] sees them all"
)


def take_captures(config: Config, resolved_yaml: str) -> CaptureOutcome:
    """Take the captures of one cell and record them; never raises for anything that the process did.

    Args:
        resolved_yaml: the composed configuration, kept beside what was captured.

    Raises:
        StorageError: the disk is full; the captures count as not taken.
        KeyboardInterrupt: they were not taken.
    """
    sweep, cell_id = Path(config.sweep.directory), config.sweep.cell_id
    with disk.writing(sweep):
        disk.check(sweep)
        folder = captures_job(sweep, cell_id)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(resolved_yaml, encoding="utf-8")
        try:
            outcome = _take(config, folder)
        except StorageError:
            raise
        except RunnerError as error:
            outcome = _failed(config, str(error))
        except Exception as error:  # a fault of ours costs these captures, not the sweep
            if disk.is_full(error):
                raise
            traceback.print_exc()
            outcome = _failed(config, f"the runner failed: {type(error).__name__}: {error}")
        write_json(folder / OUTCOME_FILE, outcome)
        record = recorder.recorder_for(Path(config.mlruns), config.tracking_uri)
        record.later(lambda store: store.log_captures(sweep, cell_id))
    return outcome


def _take(config: Config, folder: Path) -> CaptureOutcome:
    """Launch, wait, and read what was captured.

    Raises:
        RunnerError: the cell can't be launched, has no time to set its captures against, or failed.
    """
    timed_s = _timed_latencies(config)
    placed = passes.place_here(config.cell)
    findings, cost_s = Findings(), dict[str, float]()
    # What is captured is set against what was timed, not against the few iterations of this process.
    clean = WorkerResult(config.sweep.cell_id, config.sweep.round, timed_s)
    if placed.cell.has_streams and config.capture.itt and not config.capture.itt.vtune:
        findings.tags["capture.itt"] = f"unavailable: {_ITT_AND_STREAMS}"
        config = replace(config, capture=replace(config.capture, itt=None))
    if _needs_worker(config):
        taken = _in_worker(placed, config, folder, timed_s)
        findings.update(taken)
        cost_s["captures"] = taken.wall_s
    findings.update(separate_passes.take(placed, config, folder, clean))
    outcome = CaptureOutcome(config.sweep.cell_id, findings.figures, findings.tags, cost_s)
    reason = misfit(outcome)
    return outcome if reason is None else _failed(config, reason)


def _needs_worker(config: Config) -> bool:
    """Whether any capture is taken by a worker itself; the others wrap a launch of their own."""
    capture = _of_worker(config)
    by_us = [
        capture.onednn,
        capture.counters,
        capture.profiler,
        capture.inductor,
        capture.itt and not capture.itt.vtune,
    ]
    return any(by_us)


def _of_worker(config: Config) -> CaptureConf:
    """The captures that are asked for, without those of inductor's kernels that need a launch of their own."""
    graph = config.cell.graph
    return config.capture if graph.is_inductor and not graph.is_package else replace(config.capture, inductor=None)


@dataclass
class _Taken(Findings):
    """What a process captured of itself."""

    wall_s: float = 0.0


def _in_worker(placed: PlacedCell, config: Config, folder: Path, timed_s: list[float]) -> _Taken:
    """Launch the cell with the captures that its worker takes itself.

    Raises:
        RunnerError: it can't be launched here.
    """
    short = replace(placed, cell=_short(placed.cell))
    # The loop is not timed for anybody: it is not run again where others disturb it.
    measured = launch_pass(short, replace(config, cell=short.cell, reruns=0), folder, _of_worker(config))
    wall_s = measured.ended.wall_s
    results = [result for result, _ in measured.judged if result is not None]
    if len(results) < len(measured.judged):
        disk.check(folder)
        return _Taken(tags=_failures(config, failure_of(measured)), wall_s=wall_s)
    instances = [judge_instance(short, result, folder, number) for number, result in enumerate(results)]
    mismatches = [str(mismatch) for instance in instances for mismatch in instance.mismatches]
    if mismatches:
        wrong = f"this process did not run as asked: {'; '.join(mismatches)}"
        return _Taken(tags=_failures(config, wrong), wall_s=wall_s)
    clean = replace(results[0], latencies_s=timed_s)
    found = _findings(config, folder, clean, instances[0], measured.ended.timed_out)
    return _Taken(found.figures, found.tags, found.recorded, wall_s)


def _findings(
    config: Config, folder: Path, clean: WorkerResult, judged: JudgedInstance, has_timed_out: bool
) -> Findings:
    """What the worker's captures come to, marked where their iterations were unlike the timed ones."""
    work = {axis: config.cell.axes[axis] for axis in WORKED_ON}
    stopped = f"timeout_s={config.timeout_s:g} passed during the captures" if has_timed_out else None
    kernel = judged.summary.main_kernel
    findings = collect(folder, _of_worker(config), clean, judged.log, kernel, work, stopped)
    return replace(findings, tags=likeness.marked(findings.tags, findings.recorded, clean))


def _short(cell: Cell) -> Cell:
    """The cell with only as much of a loop, or of a load, as the proof needs."""
    if not cell.scenario.is_served:
        return replace(cell, iterations=max(_ITERATIONS, cell.inputs), target_ci_pct=None)
    most = _REQUESTS * max(cell.batch_size, cell.scenario.concurrency or 1)
    requests = min(cell.scenario.requests or most, most)
    # The highest rate is not searched again: a few requests without a rate are enough.
    load = replace(cell.load, p99_limit_ms=None)
    return replace(cell, scenario=replace(cell.scenario, requests=requests), load=load)


def _timed_latencies(config: Config) -> list[float]:
    """The timed latencies of all rounds, in seconds.

    Raises:
        RunnerError: no round was measured.
    """
    record = read_cell(Path(config.sweep.directory), config.sweep.cell_id)
    latencies_s = [] if record is None else [latency for latencies in record.rounds for latency in latencies]
    if not latencies_s:
        raise RunnerError("no round of this cell was measured")
    return latencies_s


def _failures(config: Config, reason: str) -> dict[str, str]:
    """The tags of the captures that a worker takes itself, where it took none."""
    return {_tag(name): f"failed: {reason}" for name in _of_worker(config).names if name != "toplev"}


def _tag(name: str) -> str:
    """The tag that says what became of a capture."""
    return "tma" if name == "toplev" else f"capture.{name}"


def _failed(config: Config, reason: str) -> CaptureOutcome:
    """The outcome where nothing was captured."""
    tags = {_tag(name): f"failed: {reason}" for name in config.capture.names}
    return CaptureOutcome(config.sweep.cell_id, captures=tags)
