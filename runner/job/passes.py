"""One pass: a launched process with a job file, and how it ended. runner.job.run decides what a pass is for."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from runner import launch
from runner.capture import probe
from runner.config.captures import CaptureConf, IterationsConf
from runner.config.schema import Config
from runner.job import listener, references
from runner.launch import environment
from runner.machine import announcements, execute, processes, servers
from runner.machine.capabilities import this_machine
from runner.machine.torch_builds import build_of
from runner.protocol import stored
from runner.protocol.captures import (
    EVIDENCE_LOG,
    LATER_EVIDENCE_LOG,
    LEAST_LOGGED,
    CallersCapture,
    Captures,
    CountersCapture,
    InductorCapture,
    IttCapture,
    ProfilerCapture,
    Steps,
)
from runner.protocol.cell import Cell
from runner.protocol.errors import RunnerError
from runner.protocol.jobfile import JobSpec
from runner.protocol.resultfile import WorkerResult, read_result, result_file
from runner.protocol.stored import FormatError, write_json
from runner.results import ledger
from runner.results.outcome import RESULT_FILE

# (argv, job, private folder) -> the command that wraps argv in another program, and the job that it then does.
Wrapper = Callable[[Sequence[str], JobSpec, Path], tuple[Sequence[str], JobSpec]]


@dataclass(frozen=True)
class PassResult:
    """One timing pass, judged by what it left."""

    ended: execute.Ended
    judged: Sequence[tuple[WorkerResult | None, str | None]]
    """(result, None) for each instance that measured, (None, failure) for each that did not."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """The metrics that workers can't know: those of a server and of a load generator."""
    cost_s: Mapping[str, float] = field(default_factory=dict)
    """The wall time of the phases that workers can't know, in seconds."""


def place_here(cell: Cell) -> launch.PlacedCell:
    """Place a cell on this machine as the calling process sees it.

    Raises:
        RunnerError: see torch_builds.build_of(), launch.place_cell() and servers.require().
    """
    placed = launch.place_cell(cell, this_machine(), os.environ, build_of(cell.torch))
    servers.require(cell)
    return placed


def spec_of(placed: launch.PlacedCell, config: Config, result_path: Path, captures: CaptureConf) -> JobSpec:
    """The job file of a cell's timing pass, with the captures that follow the timed loop in the same process."""
    cell, placement = placed.cell, placed.placement
    # In a later round, and where a capture logs more of it, one iteration is enough to prove what ran.
    is_enough = config.sweep.round or config.capture.onednn is not None
    evidence_log = LATER_EVIDENCE_LOG if is_enough else EVIDENCE_LOG
    return JobSpec(
        cell_id=config.sweep.cell_id,
        round=config.sweep.round,
        cell=cell,
        runner_pid=os.getpid(),
        result_path=str(result_path),
        instances=[list(placement.of_instance(i).cores) for i in range(placement.instances)],
        # oneDNN's log is part of the evidence in any case.
        onednn=evidence_log if captures.onednn is None else _steps(captures.onednn),
        captures=_captures_of(captures, cell),
        repeats=config.reruns if can_repeat(cell) else 0,
    )


def can_repeat(cell: Cell) -> bool:
    """Whether a worker can run its timed loop again by itself when others disturbed it.

    Of several instances each needs the load of the others, and behind a server the load comes from the runner.
    """
    return cell.instances == 1 and not cell.scenario.is_served


def with_shared_files(spec: JobSpec, config: Config) -> JobSpec:
    """The job file with the places at which the sweep keeps the reference and the weights of the cell's model.

    Raises:
        RunnerError: the cell's entry in the sweep's folder can't be read.
    """
    sweep = Path(config.sweep.directory)
    identity = ledger.read_cell(sweep, spec.cell_id).identity
    weights = references.weights_file(sweep, spec.cell)
    return replace(
        spec,
        reference=str(references.kept_file(sweep, spec.cell, identity, spec.input_sets)),
        weights=str(weights) if weights.exists() else "",
    )


def _steps(settings: IterationsConf) -> Steps:
    return Steps(settings.iterations, settings.max_s, min(settings.iterations, LEAST_LOGGED))


def _captures_of(conf: CaptureConf, cell: Cell) -> Captures:
    """The captures that run in the worker's own process, after the timed loop."""
    counters = itt = profiler = callers = inductor = None
    if conf.counters is not None:
        perf = list(probe.perf_counters().command)
        counters = CountersCapture(conf.counters.iterations, conf.counters.max_s, perf)
    if conf.itt is not None and not conf.itt.vtune and "itt" not in probe.unavailable(conf):
        itt = IttCapture(conf.itt.iterations, conf.itt.max_s, str(probe.collector()))
    if conf.profiler is not None:
        profiler = ProfilerCapture(conf.profiler.iterations, conf.profiler.max_s, conf.profiler.max_trace_mb)
    if conf.onednn is not None and not cell.has_streams:
        callers = CallersCapture(min(conf.onednn.iterations, LEAST_LOGGED), conf.onednn.max_s)
    if conf.inductor is not None:
        inductor = InductorCapture(conf.inductor.iterations, conf.inductor.max_s)
    return Captures(bool(conf.names), counters, itt, profiler, callers, inductor)


def measure(placed: launch.PlacedCell, config: Config, folder: Path, spec: JobSpec) -> PassResult:
    """Launch the timing pass of scenario=inference, wait for its end and read its results.

    Raises:
        RunnerError: the pass can't be started.
    """
    ended = start(placed, config, folder, spec)
    instances = placed.cell.instances
    files = [folder / result_file(i, instances) for i in range(instances)]
    judged = [_proven(ended, file, *judge_end(ended, spec, file, config.timeout_s)) for file in files]
    return PassResult(ended, judged)


def _proven(
    ended: execute.Ended, file: Path, result: WorkerResult | None, failure: str | None
) -> tuple[WorkerResult | None, str | None]:
    """The end of a timing pass as `judge_end` has it, or why the worker ended between its measurement and its proof."""
    if result is None or result.evidence is not None:
        return result, failure
    reason = (
        f"timeout_s passed{_hang_location(file.parent)}" if ended.timed_out else _cause_of_death(ended, file.parent)
    )
    return None, unproved(file.name, reason)


def unproved(file_name: str, reason: str) -> str:
    """The failure of a worker that ended between its measurement, which its file keeps, and its proof."""
    return f"the worker measured ({file_name} has its latencies), and ended before it proved what ran: {reason}"


def marker_of(config: Config) -> str:
    """The text by which every process of a job is found: runner, sweep, cell and round, in its environment."""
    return f"{processes.Process.this()}/{config.sweep.id}/{config.sweep.cell_id}/{config.sweep.round}"


@contextmanager
def private_folder() -> Iterator[Path]:
    """Create the private folder of one pass, and remove it afterwards."""
    # Its path is short and has no spaces or colons, whatever the project's path: LD_PRELOAD is split at both.
    folder = Path(tempfile.mkdtemp(prefix="runner-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_launch(
    folder: Path, argv: Sequence[str], command: launch.Command, placement: launch.Placement, as_shell: str | None
) -> None:
    """Write launch.json, which says what was started and how.

    Args:
        as_shell: the line with which a person can start the same; None if one line is not enough.
    """
    write_json(
        folder / "launch.json",
        {
            "argv": argv,
            # Only the variables that tune the job: the caller's environment may hold secrets, and results are shared.
            "env": environment.tuning_variables(command.env),
            "scrubbed": dict(command.scrubbed),
            "links": {str(link): str(file) for link, file in command.links.items()},
            "as_shell": as_shell,
            "placement": asdict(placement),
        },
    )


def start(
    placed: launch.PlacedCell, config: Config, folder: Path, spec: JobSpec, wrap: Wrapper | None = None
) -> execute.Ended:
    """Start one pass, with its files in ``folder``, and wait for its end.

    Args:
        wrap: wraps the command in another program.

    Raises:
        RunnerError: the pass can't be started.
    """
    marker = marker_of(config)
    with private_folder() as private, announcements.listening(private, listener.phase) as announced:
        collector = None if spec.captures.itt is None else probe.collector()
        command = launch.command(placed, folder / "job.json", private, os.environ, marker, collector)
        argv: Sequence[str] = command.argv
        spec = replace(spec, private=str(private), deadline_s=time.monotonic() + config.timeout_s)
        if wrap is not None:
            argv, spec = wrap(argv, spec, private)
        write_json(folder / "job.json", spec)
        write_launch(folder, argv, command, placed.placement, command.as_shell())
        try:
            return execute.run(
                argv,
                command.env,
                folder / "stdout.log",
                folder / "stderr.log",
                config.timeout_s,
                marker,
                command.links,
                announcements=announced,
            )
        except OSError as error:
            raise RunnerError(f"launcher={placed.cell.launcher.name}: {argv[0]} can't be started ({error})") from error


def run_separately(
    placed: launch.PlacedCell, config: Config, folder: Path, time_s: float, wrap: Wrapper
) -> tuple[execute.Ended, WorkerResult | None, str | None]:
    """Launch the cell again under another program, in a folder of its own.

    Its latencies never count as the cell's.

    Args:
        time_s: the seconds that its loop lasts.
        wrap: wraps the command in the other program.

    Returns:
        How it ended, its result or None, its failure or None.

    Raises:
        RunnerError: the pass can't be started.
    """
    folder.mkdir(exist_ok=True)
    result_path = folder / RESULT_FILE
    result_path.unlink(missing_ok=True)
    spec = with_shared_files(spec_of(placed, config, result_path, CaptureConf()), config)
    cell = replace(spec.cell, iterations=None, min_time_s=time_s, max_time_s=time_s, target_ci_pct=None)
    # Its latencies don't count: nothing is measured again.
    spec = replace(spec, cell=cell, repeats=0)
    ended = start(placed, config, folder, spec, wrap)
    return ended, *judge_end(ended, spec, result_path, config.timeout_s)


def judge_end(
    ended: execute.Ended, spec: JobSpec, result_path: Path, timeout_s: float
) -> tuple[WorkerResult | None, str | None]:
    """Judge a pass by what its worker left, because the exit status alone proves nothing.

    Returns:
        (result, None) if the worker measured, (None, failure) if it did not.
    """
    if ended.timed_out and not result_path.exists():
        what_happened = f"timeout_s={timeout_s:g}: the job was still running{_hang_location(result_path.parent)}"
        return None, f"{what_happened} and was stopped; raise timeout_s or do less work"
    if not result_path.exists():
        return None, f"the worker left no result: {_cause_of_death(ended, result_path.parent)}"
    try:
        result = read_result(result_path)
    except FormatError as error:
        return None, f"the worker's result is unusable: {error}"
    if (result.cell_id, result.round) != (spec.cell_id, spec.round):
        return None, f"the worker's result belongs to another job ({result.cell_id}, round {result.round})"
    if result.error is not None:
        return None, f"the worker failed: {result.error}"
    iterations = spec.cell.iterations
    if iterations is not None and len(result.latencies_s) != iterations:
        return None, f"iterations={iterations}: the worker timed {len(result.latencies_s)}"
    return result, None


def _hang_location(folder: Path) -> str:
    """The line at which the worker's main thread hung, such as `` in forward (model.py:12)``.

    It comes from the stack that the worker left on stderr, and is empty without one.
    """
    text = stored.log_text(folder / "stderr.log")
    # This is faulthandler's format; the main thread is the last of all threads.
    stack = text.rpartition("Timeout (")[2].rpartition("(most recent call first):\n")[2]
    frame = re.search(r'File "([^"\n]+)", line (\d{1,9}) in (\S{1,200})', stack)
    return f" in {frame[3]} ({Path(frame[1]).name}:{frame[2]})" if frame else ""


def _cause_of_death(ended: execute.Ended, folder: Path) -> str:
    """What ended a process that left no result: a signal if there was one, else the last line on stderr."""
    text = stored.log_text(folder / "stderr.log")
    number = -ended.returncode if ended.returncode < 0 else 0
    # A launcher reports its child as "died with <Signals.SIGKILL: 9>", or as the shell's 128 + signal;
    # torch's launcher as "exitcode: -9".
    reports = re.findall(
        r"died with <Signals\.SIG\w{1,20}: (\d{1,3})>|exit status (\d{1,3})\b|exitcode: -(\d{1,3})\b", text
    )
    for died, status, negative in reports:
        number = int(died or negative or 0) or (int(status) - 128 if status and int(status) > 128 else number)
    if number == signal.SIGKILL and ended.oom_kills:
        return "the kernel's out-of-memory killer ended it: use a smaller batch_size or fewer instances, or free memory"
    if number:
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        hint = " (the kernel's out-of-memory killer did not act meanwhile)" if name == "SIGKILL" else ""
        return f"it was killed by {name}{hint}; see stderr.log"
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "nothing on stderr")
    return f"exit status {ended.returncode}, last line: {last[:300]}"
