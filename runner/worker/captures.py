"""Captures: what is recorded of a few further iterations once the timed loop is over and its result is written.

Each returns the latency of its iterations, so that the cost of recording shows against the clean ones. oneDNN's log is
not here: the evidence needs it (``runner.worker.look``).
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from runner.protocol.captures import (
    CallersCapture,
    CountersCapture,
    InductorCapture,
    Iterations,
    IttCapture,
    ProfilerCapture,
    Steps,
)
from runner.protocol.jobfile import JobSpec
from runner.protocol.resultfile import (
    CALLERS_FILE,
    CALLERS_LOG,
    CAPTURES_FILE,
    COUNTERS_FILE,
    INDUCTOR_FOLDER,
    ITT_FILE,
    KERNELS_FILE,
    NOT_SURVIVED,
    PROFILER_FOLDER,
    Captured,
    Window,
    write_captures,
)
from runner.protocol.stopping import Rule
from runner.worker import chrome_trace, kernel_sources, look, measure, surroundings
from runner.worker.region import PerfControl

Step = Callable[[], object]


# In names of our own, because torch's stubs type neither.
emit_itt: Any = torch.autograd.profiler.emit_itt
_itt_api: Any = torch.profiler.itt


def marked(step: Step) -> Step:
    """``step`` as the ITT ranges ``step_0``, ``step_1``, ..."""
    numbers = itertools.count()

    def ranged() -> None:
        _itt_api.range_push(f"step_{next(numbers)}")
        step()
        _itt_api.range_pop()

    return ranged


def _open_window(spec: JobSpec) -> measure.OpenWindow:
    """A window on the cores of the first instance, which takes the captures."""
    return measure.OpenWindow(spec.runner_pid, surroundings.cpus_to_watch(spec.instances[0], spec.instances))


def _watched(iterate: Callable[[int], object], settings: Iterations, spec: JobSpec) -> tuple[list[float], Window]:
    """The latency of each iteration of a capture in seconds, and what went on meanwhile on the cores of the job."""
    open_window = _open_window(spec)
    seconds = measure.time_iterations(iterate, settings.iterations, settings.max_s)
    return seconds, open_window.close()


def _itt(step: Step, settings: IttCapture, folder: Path, spec: JobSpec) -> Captured:
    """ITT ranges of a few iterations and of the operators in them, which emit_itt() marks."""
    library = ctypes.CDLL(settings.library)
    ranged = marked(step)
    library.runner_itt_start()
    try:
        with emit_itt():
            step()  # names are registered when they are first used: not in an iteration that counts
            seconds, window = _watched(lambda _: ranged(), settings, spec)
    finally:
        library.runner_itt_stop()
    if not library.runner_itt_connected():
        raise RuntimeError("nothing loaded the ITT collector: this build of torch has no ITT")
    if library.runner_itt_write(os.fsencode(folder / ITT_FILE)):
        raise OSError(f"{ITT_FILE} can't be written")
    return Captured("itt", seconds, window=window)


def _profiled(step: Step, settings: Iterations, into: Path, spec: JobSpec) -> tuple[Any, list[float], Window]:
    """Run iterations under PyTorch's profiler, and leave its table and the same as data in a folder.

    Returns the profiler, and the latencies and the window of the iterations.
    """
    into.mkdir(exist_ok=True)
    step()  # as with ITT, the first iteration after a pause does not count

    def recorded(i: int) -> None:
        with torch.profiler.record_function(f"step_{i}"):
            step()

    config = look.all_threads() if spec.cell.has_streams else None
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], experimental_config=config
    ) as profiler:
        seconds, window = _watched(recorded, settings, spec)
    averages = profiler.key_averages()
    # Those of streams run at the same time: an iteration takes as long as one of them on average.
    at_once = spec.cell.streams_on(len(spec.instances[0]))
    rows = [
        {
            "name": row.key,
            "calls": row.count,
            "total_s": row.cpu_time_total / 1e6 / at_once,
            "self_s": row.self_cpu_time_total / 1e6 / at_once,
        }
        for row in averages
    ]
    (into / "ops.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    table = averages.table(sort_by="self_cpu_time_total", row_limit=100)
    (into / "table.txt").write_text(table, encoding="utf-8")
    return profiler, seconds, window


def _profiler(step: Step, settings: ProfilerCapture, folder: Path, spec: JobSpec) -> Captured:
    """PyTorch's profiler: its own table, the same as data, and its trace."""
    into = folder / PROFILER_FOLDER
    profiler, seconds, window = _profiled(step, settings, into, spec)
    profiler.export_chrome_trace(str(into / "trace.json"))
    left_out = chrome_trace.pack(into / "trace.json")
    note = f"{left_out} ranges left out of the trace: torch did not escape their labels" if left_out else None
    trace = into / "trace.json.gz"
    size_mb = trace.stat().st_size / 1e6
    if size_mb > settings.max_trace_mb:
        trace.unlink()
        reason = f"The trace had {size_mb:.3g} MB; capture.profiler.max_trace_mb={settings.max_trace_mb:g}.\n"
        (into / "trace-left-out.txt").write_text(reason, encoding="utf-8")
    return Captured("profiler", seconds, window=window, note=note)


def _inductor(step: Step, settings: InductorCapture, folder: Path, spec: JobSpec) -> Captured:
    """The kernels that inductor generated under PyTorch's profiler, and their source."""
    into = folder if spec.is_separate else folder / INDUCTOR_FOLDER
    with kernel_sources.recorded():
        _, seconds, window = _profiled(step, settings, into, spec)
    if not kernel_sources.keep(into, KERNELS_FILE):
        raise RuntimeError("inductor left no source in this process: nothing was compiled")
    return Captured("inductor", seconds, window=window, note=kernel_sources.why_unknown())


def _callers(step: Step, settings: CallersCapture, folder: Path, spec: JobSpec) -> Captured:
    """oneDNN's log of a few iterations, and the ranges of the operators in them by PyTorch's profiler."""
    open_window = _open_window(spec)
    with torch.autograd.profiler.profile(use_kineto=True) as profiler:
        by_copy = look.onednn(step, folder / CALLERS_LOG, Steps(settings.iterations, settings.max_s))
    window = open_window.close()
    ranges = [
        {
            "name": event.name(),
            "thread": event.start_thread_id(),
            "start_ns": event.start_ns(),
            "duration_ns": event.duration_ns(),
        }
        for event in profiler.kineto_results.events()
        if event.duration_ns() > 0
    ]
    (folder / CALLERS_FILE).write_text(json.dumps(ranges), encoding="utf-8")
    return Captured("callers", [seconds for of_copy in by_copy.values() for seconds in of_copy], window=window)


# Seconds that perf has to print its counts and end.
_PERF_ENDS_S = 5.0


@contextmanager
def _attached_perf(argv: list[str], private: Path, file: Path) -> Iterator[PerfControl]:
    """``perf stat`` on this process and all its threads, counting only in the region that is handed out.

    Args:
        private: a folder for the FIFOs, whose path has no comma, at which perf would split it.
    """
    pipes = [str(private / name) for name in ("counters-ctl", "counters-ack")]
    for pipe in pipes:
        os.mkfifo(pipe)
    command = [*argv, "-o", str(file), "-p", str(os.getpid()), "-D", "-1", "--control", f"fifo:{','.join(pipes)}"]
    # perf is not under test: it keeps the system's allocator. In another locale than C its numbers may have commas.
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"} | {"LC_ALL": "C"}
    pid = os.posix_spawnp(command[0], command, env)
    try:
        yield PerfControl(pipes[0], pipes[1])
    finally:
        os.kill(pid, signal.SIGINT)  # it prints its counts and ends
        end = time.monotonic() + _PERF_ENDS_S
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                break
            time.sleep(0.005)


def _counters(step: Step, settings: CountersCapture, folder: Path, spec: JobSpec) -> Captured:
    """What perf and getrusage(2) count in a few iterations; only the latter where perf fails."""
    once_s = measure.time_iterations(lambda _: step(), 1, 0.0)[0]
    fitting = max(1, min(settings.iterations, int(settings.max_s / max(once_s, 1e-9))))
    note, cpus = None, surroundings.cpus_to_watch(spec.instances[0], spec.instances)
    if settings.perf:
        try:
            with _attached_perf(settings.perf, Path(spec.private), folder / COUNTERS_FILE) as region:
                seconds, window = measure.measure(step, Rule(fitting), spec.runner_pid, region, cpus)
            return Captured("counters", seconds, window=window)
        except (RuntimeError, OSError) as error:
            traceback.print_exc()
            note = f"perf failed: {error}"
    seconds, window = measure.measure(step, Rule(fitting), spec.runner_pid, cpus=cpus)
    return Captured("counters", seconds, window=window, note=note)


def _clean(step: Step) -> Captured:
    """Iterations without any capture, for comparison: the timed ones were seconds earlier, before a profiler ran."""
    return Captured("clean", measure.time_iterations(lambda _: step(), 10, 1.0))


def _requested(step: Step, spec: JobSpec, folder: Path) -> Iterator[tuple[str, Callable[[], Captured]]]:
    """The name of each capture that the job asks for, and what takes it, in the order in which they are taken."""
    captures = spec.captures
    if captures.clean:
        yield "clean", partial(_clean, step)
    if captures.counters is not None:
        yield "counters", partial(_counters, step, captures.counters, folder, spec)
    if captures.itt is not None:
        yield "itt", partial(_itt, step, captures.itt, folder, spec)
    if captures.profiler is not None:
        yield "profiler", partial(_profiler, step, captures.profiler, folder, spec)
    if captures.callers is not None:
        yield "callers", partial(_callers, step, captures.callers, folder, spec)
    if captures.inductor is not None:
        yield "inductor", partial(_inductor, step, captures.inductor, folder, spec)


def run(step: Step, spec: JobSpec, folder: Path) -> None:
    """Take every capture that the job asks for; one that fails says why, and costs neither the others nor the result.

    captures.json is written again after each, so that a capture that ends the process loses none of the earlier ones.
    """
    finished: list[Captured] = []
    for name, take in _requested(step, spec, folder):
        start = time.perf_counter()
        # Until it is finished, the record says that it ended the process.
        write_captures(folder / CAPTURES_FILE, [*finished, Captured(name, failure=NOT_SURVIVED)])
        try:
            captured = take()
        except Exception as error:
            traceback.print_exc()
            captured = Captured(name, failure=f"{type(error).__name__}: {error}")
        finished.append(replace(captured, wall_s=time.perf_counter() - start))
        write_captures(folder / CAPTURES_FILE, finished)
