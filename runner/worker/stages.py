"""What a worker does before and after it is measured, whatever calls the model: build and transform; then prove it.

Apart from the loop (``__main__``) and from the server's handler (``serve``), which both go through these stages.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from runner.protocol.evidence import ServingEvidence
from runner.protocol.jobfile import JobSpec
from runner.protocol.resultfile import WorkerResult
from runner.worker import distance, evidence, factory, graphs, handed_over, look, process_state, reference, remarks
from runner.worker.call import Call, copied, is_same
from runner.worker.distance import Observation
from runner.worker.phases import Phases
from runner.worker.transform import Subject, inputs, transform


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
    returned = factory.resolve(cell.model.target)(batch_size=cell.batch_size, **cell.model.kwargs, **sequence)
    if not isinstance(returned, (tuple, list)) or len(returned) not in (2, 3):
        raise TypeError(
            "a model's callable returns a module, its inputs and, if need be, the number of samples in them"
        )
    module, call = returned[0], Call.of(*returned[1:])
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"a model's callable returns a torch.nn.Module first, not a {type(module).__name__}; "
            "wrap a function into the forward() of a module, and take the module() of an exported program"
        )
    if any(map(is_lazy, module.state_dict(keep_vars=True).values())):
        with torch.no_grad():
            call(module.eval())  # here, where the seed decides the weights that the first call makes
    if spec.weights and Path(spec.weights).exists():
        handed_over.load(module, Path(spec.weights))
    return module.eval(), call


# Seeds of further input sets begin here: above every seed of a cell, and below 2**32, which is numpy's limit.
_FURTHER_SEEDS = 25 * 10**8


def _further_inputs(spec: JobSpec) -> list[Call]:
    """The input sets after the first; the weights that the model's callable makes with them are dropped."""
    return [build(spec, _FURTHER_SEEDS + spec.cell.seed + number)[1] for number in range(1, spec.input_sets)]


def reference_of(spec: JobSpec, module: nn.Module, call: Call) -> reference.Reference:
    """What a model computes as it was built: fp32, eager, with its inputs as they were built."""
    return reference.compute(module, [call, *_further_inputs(spec)])


def _reference(spec: JobSpec) -> reference.Reference:
    return reference_of(spec, *build(spec, spec.cell.seed))


def reference_in_child(spec: JobSpec, folder: Path) -> Path:
    """The file with the fp32 eager reference: the one that the sweep keeps, or else computed in a forked child.

    Args:
        folder: where a reference goes that the sweep doesn't keep; `forget` removes it.

    Raises:
        RuntimeError: it could not be computed.
        Exception: whatever the model's callable or its forward() raises.
    """
    kept = Path(spec.reference) if spec.reference else None
    if kept is not None and kept.exists():
        return kept
    own = own_reference(folder)
    if not reference.compute_in_child(lambda: _reference(spec), own, spec.deadline_s):
        _reference(spec)  # which raises it here, where the result can say what it is
        raise RuntimeError("the fp32 eager reference could not be computed; its traceback is in stderr.log")
    if kept is None:
        return own
    kept.parent.mkdir(exist_ok=True)
    # Whole or not at all: another instance may look for it now.
    return own.replace(kept)


def own_reference(folder: Path) -> Path:
    """The file with a reference that only this process uses."""
    return folder / f".reference-{os.getpid()}.pt"


def prepare(spec: JobSpec, cpus: Sequence[int], phases: Phases, reference_file: Path) -> Subject:
    """The model as the cell asks for it, with its inputs.

    Args:
        cpus: the cores of this instance.
        reference_file: holds the further input sets, so that building the model for each of them leaves no trace in
            this process; a pass that has none makes them.
    """
    with phases("build"):
        module, call = build(spec, spec.cell.seed)
        further = _stored_inputs(call, reference_file) if reference_file.exists() else _further_inputs(spec)
        batches = spec.cell.precision.calibration_batches if spec.cell.precision.name == "int8" else 0
        calibration = [build(spec, spec.cell.seed + 1 + i)[1] for i in range(batches)]
    variables = process_state.variables()
    with phases("transform"), torch.no_grad():
        subject = transform(spec, module, call, calibration, cpus)
        subject.making.notes += variables
        subject.further = [inputs(spec, call) for call in further]
    return subject


def _stored_inputs(first: Call, file: Path) -> list[Call]:
    """The further input sets that the reference was computed with, as calls like the first."""
    calls = []
    for tensors in reference.load(file).further_inputs:
        if len(tensors) != len(first.tensors()):
            raise ValueError("the model's callable returns more or fewer tensors with another seed; use inputs=1")
        calls.append(first.with_tensors(tensors))
    return calls


def keep_at_return(output: Any) -> tuple[Any, Any]:
    """An output and its copy, made as soon as forward() has returned."""
    return output, copied(output)


# How long an output is watched for values that appear after forward() has returned: until the process rests, and at
# most for the second time.
_LOOK_S, _LOOK_AT_MOST_S = 0.02, 0.5
# A process that rests uses less of a core than this.
_RESTS_BELOW = 0.1


def watch_after(kept: tuple[Any, Any], is_alone: bool) -> list[str]:
    """Refuse an output that changed after forward() had returned; call it before any further iteration.

    Args:
        is_alone: whether there is time to watch it: other instances need the load of this one.

    Returns:
        A note if the process never came to rest: OpenMP's threads wait actively for 0.2 s at most.

    Raises:
        RuntimeError: the output changed.
    """
    begin, notes = time.monotonic(), []
    while is_alone:
        used_s = time.process_time()
        time.sleep(_LOOK_S)
        used_s = time.process_time() - used_s
        if used_s < _RESTS_BELOW * _LOOK_S:
            break
        if time.monotonic() > begin + _LOOK_AT_MOST_S:
            notes.append(
                f"{used_s / _LOOK_S:.1f} cores stay busy when no iteration runs: a thread of the model's own works "
                "beside the iterations"
            )
            break
    output, copy = kept
    if not is_same(output, copy):
        raise RuntimeError(
            "the output changed after forward() had returned: work goes on that is not timed; forward() must wait for "
            "all of it"
        )
    return notes


def observe_after(subject: Subject) -> list[Observation]:
    """An output of every input set, after the timed loop."""
    return [
        Observation("an iteration after the timed ones", number, copied(call(subject.module)))
        for number, call in enumerate(subject.calls)
    ]


def prove(
    result: WorkerResult,
    spec: JobSpec,
    subject: Subject,
    observations: Sequence[Observation],
    reference_file: Path,
    onednn_log: Path,
    phases: Phases,
    serving: ServingEvidence | None = None,
) -> WorkerResult:
    """The result with its proof: how far the outputs are from fp32's, what the process is, and what oneDNN ran.

    Call it in inference mode, after the measuring: it allocates, and runs further iterations.

    Args:
        observations: the outputs to compare, the most telling one first.
        serving: what a worker behind a server counted; None without a server.
    """
    with phases("quality"):
        untouched = reference.load(reference_file)
        quality = distance.compare_all(observations, untouched, spec.cell.batch_size)
    with phases("evidence"):
        layouts, output = untouched.image_layouts, observations[0].output
        observed = evidence.collect(subject, output, layouts, "inference_mode", serving, untouched.model, spec.looks)
    step_s = {}
    if spec.looks:
        with phases("onednn"):
            step_s = look.onednn(lambda: subject.call(subject.module), onednn_log, spec.onednn)
    iterations = len(result.latencies_s) or (serving.batches if serving else 0)
    notes = [
        *result.notes,
        *subject.making.notes,
        *graphs.remarks(spec.cell, subject.making),
        *process_state.settings(),
        *process_state.sameness(subject.calls, untouched.outputs),
        *remarks.growing_memory(result.window, iterations),
        *remarks.randomness(untouched),
    ]
    return replace(result, quality=quality, evidence=observed, onednn_step_s=step_s, notes=notes)
