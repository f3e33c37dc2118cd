"""The worker: read a job file, build and transform the model, warm up, measure, collect evidence, write a result file.

A launcher starts it as ``python runner/worker/__main__.py JOB.json``: by its path, because the IPEX launcher can't
start a module.
"""

from __future__ import annotations

import time

_STARTED = time.monotonic()

import ctypes  # noqa: E402 - the clock comes first: it dates the start of the process
import importlib.util  # noqa: E402
import itertools  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Callable  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

# Python put this folder first on the path, where models.py and the other files would hide packages of the same names.
# The folder around the package does not take its place: what is installed beside it is no part of the torch build.
del sys.path[0]
_PACKAGE = Path(__file__).resolve().parents[1]
_SPEC = importlib.util.spec_from_file_location(
    "runner", _PACKAGE / "__init__.py", submodule_search_locations=[str(_PACKAGE)]
)
sys.modules["runner"] = importlib.util.module_from_spec(_SPEC)  # type: ignore[arg-type]

from runner.protocol.announcements import MEASURE_AGAIN  # noqa: E402 - the path comes first
from runner.protocol.jobfile import JobSpec, read_spec  # noqa: E402
from runner.protocol.resultfile import ResultFile, WorkerResult, onednn_log, result_file  # noqa: E402
from runner.worker import imports, watch  # noqa: E402
from runner.worker.phases import Phases  # noqa: E402

# The other instances keep up the load for the first one's captures for at most this long.
_CAPTURES_AT_MOST_S = 120.0


def run(spec: JobSpec, folder: Path, instance: int, keep: Callable[[WorkerResult], None]) -> None:
    """Run one pass, and hand its result to ``keep`` as soon as it is measured, and again when it is proved.

    The caller reports exceptions.
    """
    phases = Phases(spec.private)
    with phases("import"), imports.without_collections():
        import torch

        from runner.worker import (
            caches,
            captures,
            graphs,
            instances,
            kernel_sources,
            measure,
            remarks,
            stages,
            surroundings,
        )
        from runner.worker.call import copied
        from runner.worker.distance import Observation
        from runner.worker.region import PerfControl

    barrier = instances.Barrier(folder, instance, len(spec.instances))
    reference_file = own = stages.own_reference(folder)
    try:
        if not spec.is_separate:
            with phases("reference"):
                reference_file = stages.reference_in_child(spec, folder)
        if spec.captures.inductor is not None:
            kernel_sources.note_operators(spec.cell.graph.is_package)
        # After the fork: a child would wait for ever for faulthandler's thread, which it does not have.
        watch.say_where_it_hangs(spec.deadline_s)
        subject = stages.prepare(spec, spec.instances[instance], phases, reference_file)
        # A ring of the input sets, made before anything is timed: an iteration takes the next one.
        ring = tuple(partial(call, subject.module) for call in subject.calls)
        turns = itertools.cycle(ring)
        untouched = remarks.InputsBefore.of(subject.calls)
        # Not in passes for programs around them: these would count the overwriting as work of the model.
        is_cold = spec.cell.cache == "cold" and not spec.is_separate
        overwrite = caches.Overwrite(spec.instances[instance]) if is_cold else None

        def iterate() -> Any:
            return next(turns)()

        # Inference mode is the same in every cell, and recorded as evidence.
        with torch.inference_mode():
            with phases("warmup"):
                # torch.compile compiles in the first call, TorchScript in the first two: neither may be timed.
                warmup = max(spec.cell.warmup, 2, len(ring))
                warmup_s = []
                for number in range(warmup):
                    start = time.perf_counter()
                    output = ring[number % len(ring)]()
                    warmup_s.append(time.perf_counter() - start)
                warm = Observation("the last warm-up iteration", (warmup - 1) % len(ring), copied(output))
                del output
            if spec.cell.graph.name != "eager":
                phases.seconds["compile"] = graphs.seconds_to_compile(subject.making, warmup_s, len(ring))
            # Before the barrier: none may be measuring while the runner shows it.
            phases.announce("measure")
            barrier.wait("warm")
            timed: measure.Ring = ring
            region = None
            if spec.region is not None:
                region = PerfControl(spec.region.ctl, spec.region.ack)
            elif spec.marked:
                timed, region = (captures.marked(iterate),), captures.emit_itt()
            # The CPUs come from the job file: an OpenMP runtime may have bound this thread to a single one.
            cpus = surroundings.cpus_to_watch(spec.instances[instance], spec.instances)
            graphs_before = graphs.graphs_so_far()
            with phases("measure"):
                measured, disturbed = measure.measure_again(
                    lambda: measure.measure_ring(
                        timed, spec.rule, spec.runner_pid, region, cpus, stages.keep_at_return, overwrite
                    ),
                    spec.repeats,
                    lambda: phases.announce(MEASURE_AGAIN),
                )
            subject.making.in_window = graphs.graphs_so_far() - graphs_before
            notes = [overwrite.note] if overwrite else []
            window = caches.told(measured.window, overwrite)
            if not spec.is_separate:
                notes += stages.watch_after(measured.output, len(spec.instances) == 1)
                notes += untouched.changed(subject.calls)
            # Keep up the load while the other instances are still measuring.
            barrier.announce("measured")
            while not barrier.all_reached("measured"):
                iterate()
            result = WorkerResult(
                cell_id=spec.cell_id,
                round=spec.round,
                latencies_s=measured.latencies_s,
                window=window,
                disturbed=disturbed,
                phases_s=phases.seconds,
                started_at_s=_STARTED,
                notes=notes,
            )
            keep(result)
            if spec.is_separate:
                captures.run(iterate, spec, folder)
                return
            log = folder / onednn_log(instance)
            last = (len(measured.latencies_s) - 1) % len(ring)
            timed_output = Observation("the last timed iteration", last, measured.output[1])
            observations = [timed_output, warm, *(stages.observe_after(subject) if spec.looks else [])]
            keep(stages.prove(result, spec, subject, observations, reference_file, log, phases))
            if spec.captures.clean:
                phases.announce("captures")
            if instance == 0:
                captures.run(iterate, spec, folder)
            barrier.announce("captured")
            # The first instance captures under the load under which it was timed; should it be gone, the load ends.
            end = time.monotonic() + _CAPTURES_AT_MOST_S
            while instance and time.monotonic() < end and not barrier.has_reached("captured", 0):
                iterate()
    finally:
        own.unlink(missing_ok=True)


def main(spec: JobSpec, argv: list[str]) -> int:
    """Run the job; returns 0 if the result file holds a measurement, 1 if it holds an error.

    A second argument names another file for the result, for repeating a job by hand.
    """
    path = Path(argv[2] if len(argv) > 2 else spec.result_path)
    allowed = os.sched_getaffinity(0)
    instance = next((i for i, cpus in enumerate(spec.instances) if allowed <= set(cpus)), 0)
    result_path = path.with_name(result_file(instance, len(spec.instances), path.name))
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        # Instances share nothing that was compiled, not even within a job.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] += f"/{instance}"
    watch.mark_crashes()
    if len(argv) < 3:  # not when a person repeats a job whose runner is long gone
        watch.die_with(spec.runner_pid)
    file = ResultFile(result_path, spec, _STARTED)
    try:
        run(spec, result_path.parent, instance, file.keep)
    except Exception as error:
        traceback.print_exc()
        if len(spec.instances) > 1 and not file.is_complete:
            (result_path.parent / f".failed-{instance}").touch()  # so that the others don't wait
        file.fail(error)
        return 1
    return 0


def leave(status: int, is_separate: bool) -> None:
    """End the process without taking apart what the kernel frees anyway: torch and IPEX need up to two seconds for it.

    Args:
        is_separate: whether a program around the process may have something of its own to do at a regular exit.
    """
    if is_separate:
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)
    os._exit(status)


if __name__ == "__main__":
    job = read_spec(Path(sys.argv[1]))
    leave(main(job, sys.argv), job.is_separate)
