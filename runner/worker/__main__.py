"""Read a job file, build, transform, warm up, measure, look at oneself, write one result file.

Started by a launcher as ``python runner/worker/__main__.py JOB.json``: a path, because the IPEX
launcher can't start a module.
"""

from __future__ import annotations

import time

_STARTED = time.monotonic()

import os  # noqa: E402 - the clock comes first: it dates the start of the process
import sys  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

# Python put this folder first on the path, where models.py and the rest would hide packages of
# those names; the project's root belongs there instead.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from runner.protocol.jobfile import JobSpec, read_spec  # noqa: E402
from runner.protocol.resultfile import WorkerResult, failed, onednn_log, result_file  # noqa: E402
from runner.protocol.stored import write_json  # noqa: E402
from runner.worker import watch  # noqa: E402
from runner.worker.phases import Phases  # noqa: E402

# How long further instances keep up the load for the first one's captures.
_CAPTURES_AT_MOST_S = 120.0


def run(spec: JobSpec, folder: Path, instance: int, keep: Callable[[WorkerResult], None]) -> None:
    """One pass; its result goes to ``keep`` before any capture begins. Any exception is the caller's to report."""
    phases = Phases()
    with phases("import"):
        import torch

        from runner.worker import captures, instances, measure, stages, surroundings
        from runner.worker.region import PerfControl

    together = instances.Together(folder, instance, len(spec.instances))
    reference_file = folder / f".reference-{os.getpid()}.pt"
    try:
        if not spec.is_separate:
            with phases("reference"):
                stages.reference_in_child(spec, reference_file)
        # Not before the fork: the child would wait for ever for a thread of faulthandler's that it has not.
        watch.say_where_it_hangs(spec.deadline_s)
        subject = stages.prepare(spec, phases)

        def step() -> Any:
            return subject.call(subject.module)

        # The same in every cell; recorded as evidence.
        with torch.inference_mode():
            with phases("warmup"):
                # torch.compile works in the first call, TorchScript in the first two: never part of what is timed.
                for _ in range(max(spec.cell.warmup, 2)):
                    output = step()
            together.wait("warm")
            timed, around = step, None
            if spec.region is not None:
                around = PerfControl(spec.region.ctl, spec.region.ack)
            elif spec.marked:
                timed, around = captures.marked(step), captures.emit_itt()
            # Not its own affinity: an OpenMP runtime may have bound this thread to one CPU.
            watched = surroundings.watched(spec.instances[instance], spec.instances)
            with phases("measure"):
                latencies_s, window = measure.measure(timed, spec.rule, spec.runner_pid, around, watched)
            # The others are still measuring: the load that their samples were promised goes on.
            together.announce("measured")
            while not together.all("measured"):
                step()
            result = WorkerResult(
                cell_id=spec.cell_id,
                round=spec.round,
                latencies_s=latencies_s,
                window=window,
                phases_s=phases.seconds,
                started_at_s=_STARTED,
            )
            if spec.is_separate:
                keep(result)
                return
            log = folder / onednn_log(instance)
            keep(stages.prove(result, spec, subject, output, reference_file, log, phases))
            if instance == 0:
                captures.run(step, spec, folder)
            together.announce("captured")
            # Captured under the load that the samples were taken under; not for ever, should the first be gone.
            end = time.monotonic() + _CAPTURES_AT_MOST_S
            while instance and time.monotonic() < end and not together.reached("captured", 0):
                step()
    finally:
        reference_file.unlink(missing_ok=True)


def main(argv: list[str]) -> int:
    """Returns 0 when the result file holds a measurement, 1 when it holds an error.

    A second argument is where the result goes instead, for repeating a job by hand.
    """
    spec = read_spec(Path(argv[1]))
    path = Path(argv[2] if len(argv) > 2 else spec.result_path)
    allowed = os.sched_getaffinity(0)
    instance = next((i for i, cpus in enumerate(spec.instances) if allowed <= set(cpus)), 0)
    result_path = path.with_name(result_file(instance, len(spec.instances), path.name))
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        # Nothing is shared, not even between instances of one job.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] += f"/{instance}"
    watch.mark_crashes()
    if len(argv) < 3:  # not when a person repeats a job whose runner is long gone
        watch.die_with(spec.runner_pid)
    kept = False

    def keep(result: WorkerResult) -> None:
        nonlocal kept
        write_json(result_path, result)
        kept = True

    try:
        run(spec, result_path.parent, instance, keep)
    except Exception as error:
        traceback.print_exc()
        if kept:
            return 1  # what was measured stays measured
        if len(spec.instances) > 1:
            (result_path.parent / f".failed-{instance}").touch()  # the others need not wait
        write_json(result_path, failed(spec, error, _STARTED))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
