"""Read a job file, build, transform, warm up, measure, look at oneself, write one result file.

Started by a launcher as ``python runner/worker/__main__.py JOB.json``: a path, because the IPEX
launcher can't start a module.
"""

from __future__ import annotations

import time

_STARTED = time.monotonic()

import importlib  # noqa: E402 - the clock comes first: it dates the start of the process
import sys  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

# Python put this folder first on the path, where models.py and the rest would hide packages of
# those names; the project's root belongs there instead.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from runner.job import JobSpec, WorkerResult, read_spec, write_json  # noqa: E402


class Phases:
    """Wall time of each phase, in seconds, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block under ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start


def _resolve(target: str) -> Callable[..., Any]:
    module_name, _, name = target.rpartition(".")
    factory: Callable[..., Any] = getattr(importlib.import_module(module_name), name)
    return factory


def run(spec: JobSpec) -> WorkerResult:
    """One timing pass. Any exception is the caller's to report."""
    phases = Phases()
    with phases("import"):
        import torch

        from runner.worker import evidence, measure
        from runner.worker.transform import transform

    with phases("build"):
        torch.manual_seed(spec.seed)
        module, inputs = _resolve(spec.model_target)(batch_size=spec.batch_size, **spec.model_kwargs)

    # The same in every cell; recorded as evidence.
    with torch.inference_mode():
        with phases("transform"):
            module = transform(spec, module, inputs)
        with phases("warmup"):
            output = None
            for _ in range(spec.warmup):
                output = module(*inputs)
        with phases("measure"):
            samples_s, window = measure.measure(
                lambda: module(*inputs), spec.iterations, spec.min_time_s, spec.runner_pid
            )
        with phases("evidence"):
            if output is None:
                output = module(*inputs)
            found = evidence.collect(module, inputs, output, grad_mode="inference_mode")
    return WorkerResult(
        cell_id=spec.cell_id,
        round=spec.round,
        samples_s=samples_s,
        window=window,
        phases_s=phases.seconds,
        evidence=found,
        started_at_s=_STARTED,
    )


def main(argv: list[str]) -> int:
    """Returns 0 when the result file holds a measurement, 1 when it holds an error.

    A second argument is where the result goes instead, for repeating a job by hand.
    """
    spec = read_spec(Path(argv[1]))
    result_path = Path(argv[2] if len(argv) > 2 else spec.result_path)
    try:
        result = run(spec)
    except Exception as error:
        traceback.print_exc()
        result = WorkerResult(
            cell_id=spec.cell_id, round=spec.round, error=f"{type(error).__name__}: {error}", started_at_s=_STARTED
        )
    write_json(result_path, result)
    return 0 if result.error is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
