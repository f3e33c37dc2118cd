"""What a worker does before and after it is measured, whatever calls the model: build and transform; then prove it.

Apart from the loop (``__main__``) and from the server's handler (``serve``), which both go through these stages.
"""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from runner.protocol.evidence import ServingEvidence
from runner.protocol.jobfile import JobSpec
from runner.protocol.resultfile import WorkerResult
from runner.worker import evidence, look, reference
from runner.worker.call import Call, flat
from runner.worker.phases import Phases
from runner.worker.transform import Subject, transform


def _resolve(target: str) -> Callable[..., Any]:
    module_name, _, name = target.rpartition(".")
    factory: Callable[..., Any] = getattr(importlib.import_module(module_name), name)
    return factory


def build(spec: JobSpec, seed: int) -> tuple[nn.Module, Call]:
    """(module in evaluation mode, Call): the same for the same seed, in any process.

    Raises:
        TypeError: the model's callable does not return what docs/your_model.md says.
    """
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
    torch.manual_seed(seed)
    cell = spec.cell
    sequence = {} if cell.sequence_length is None else {"sequence_length": cell.sequence_length}
    returned = _resolve(cell.model.target)(batch_size=cell.batch_size, **cell.model.kwargs, **sequence)
    if not isinstance(returned, (tuple, list)) or len(returned) not in (2, 3):
        raise TypeError(
            "a model's callable returns a module, its inputs and, if need be, the number of samples in them"
        )
    module, *call = returned
    return module.eval(), Call.of(*call)


def _reference(spec: JobSpec) -> reference.Reference:
    """The model as it was built: fp32, eager, with its inputs as they were built."""
    module, call = build(spec, spec.cell.seed)
    outputs: list[torch.Tensor] = []
    with torch.inference_mode():
        observed = look.operators(lambda: outputs.extend(flat(call(module))))
    return reference.Reference(outputs, dict(observed.image_layouts))


def reference_in_child(spec: JobSpec, file: Path) -> None:
    """Compute the fp32 eager reference in a forked child, and leave it in ``file``.

    Raises:
        RuntimeError: it could not be computed.
        Exception: whatever the model's callable raises, if the model can't be built.
    """
    if not reference.compute_in_child(lambda: _reference(spec), file, spec.deadline_s):
        build(spec, spec.cell.seed)
        raise RuntimeError("the fp32 eager reference could not be computed; its traceback is in stderr.log")


def prepare(spec: JobSpec, phases: Phases) -> Subject:
    """The model as the cell asks for it, with its inputs."""
    with phases("build"):
        module, call = build(spec, spec.cell.seed)
        batches = spec.cell.precision.calibration_batches if spec.cell.precision.name == "int8" else 0
        calibration = [build(spec, spec.cell.seed + 1 + i)[1] for i in range(batches)]
    with phases("transform"), torch.no_grad():
        return transform(spec, module, call, calibration)


def prove(
    result: WorkerResult,
    spec: JobSpec,
    subject: Subject,
    output: Any,
    reference_file: Path,
    onednn_log: Path,
    phases: Phases,
    serving: ServingEvidence | None = None,
) -> WorkerResult:
    """The result with its proof: how far the output is from fp32's, what the process is, and what oneDNN ran.

    Call it in inference mode, after the measuring: it allocates, and runs further iterations.

    Args:
        serving: what a worker behind a server counted; None without a server.
    """
    with phases("quality"):
        untouched = reference.load(reference_file)
        quality = reference.compare(flat(output), untouched.outputs)
    with phases("evidence"):
        observed = evidence.collect(subject, output, untouched.image_layouts, "inference_mode", serving)
    with phases("onednn"):
        step_s = look.onednn(lambda: subject.call(subject.module), onednn_log, spec.onednn)
    return replace(result, quality=quality, evidence=observed, onednn_step_s=step_s)
