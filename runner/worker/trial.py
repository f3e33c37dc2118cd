"""The trial of models before a sweep, in a process of its own: each is built and called, and what is wrong is said.

It is started as ``python runner/worker/trial.py FOLDER``. The fp32 reference that it computes stays in the folder, so
that no job has to compute it again. A job file that names a file of weights asks for these alone.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path

# Python put this folder first on the path, see __main__.
sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch  # noqa: E402 - the path comes first
from torch import nn  # noqa: E402

from runner.protocol.jobfile import JobSpec, read_spec  # noqa: E402
from runner.protocol.stored import write_json  # noqa: E402
from runner.protocol.trial import JOB_FILE, REFERENCE_FILE, TRIAL_FILE, Trial  # noqa: E402
from runner.worker import distance, handed_over, models, reference, stages, transformers_models, watch  # noqa: E402
from runner.worker.call import Call, copied, flat  # noqa: E402

_TRANSFORMERS = f"{transformers_models.__name__}.build"
# What comes with runner is built alike each time: its tests show it, and people wait for their first table.
_SHIPPED = f"{models.__name__}."
# Two runs that differ by less add up in another order.
_SAME = 1e-5


def try_model(spec: JobSpec, reference_file: Path) -> Trial:
    """Build the model of a cell, call it, and leave the reference of its sweep."""
    cell, notes = spec.cell, list[str]()
    try:
        if cell.model.target == _TRANSFORMERS:
            note = transformers_models.note(**cell.model.kwargs)
            notes = [note] if note else []
            length = cell.sequence_length or transformers_models.sequence_length(**cell.model.kwargs)
            cell = replace(cell, sequence_length=length)
            spec = replace(spec, cell=cell)
        module, call = stages.build(spec, cell.seed)
        problem = _batch_problem(spec, call)
        linear_inputs = sorted({child.in_features for child in module.modules() if isinstance(child, nn.Linear)})
        has_images = any(tensor.dim() == 4 for tensor in call.tensors())
    except Exception as error:
        return Trial(f"it can't be built: {_sentence(error)}")
    if problem:
        return Trial(problem)
    try:
        outputs = stages.reference_of(spec, module, call)
    except Exception as error:
        return Trial(f"it can't be called: {_sentence(error)}")
    problem = _output_problem(outputs) or _random_problem(spec, outputs)
    if problem:
        return Trial(problem)
    reference.save(outputs, reference_file)
    return Trial(
        None,
        has_images or bool(outputs.image_layouts),
        linear_inputs,
        cell.sequence_length,
        outputs.weights,
        notes,
    )


def save_weights(spec: JobSpec) -> Trial:
    """Build the model of a cell, and leave its weights in the file that the job names."""
    try:
        module, _ = stages.build(replace(spec, weights=""), spec.cell.seed)
        handed_over.save(module, Path(spec.weights))
    except Exception as error:
        return Trial(f"its weights can't be handed over: {_sentence(error)}")
    return Trial()


def _sentence(error: Exception) -> str:
    """The error with the line of the model's own code that it comes from."""
    traceback.print_exc()
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(foreign in frame.filename for foreign in ("/runner/worker/", "/site-packages/", "<frozen"))
    ]
    place = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    text = " ".join(str(error).split())[:500]
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"


def _batch_problem(spec: JobSpec, call: Call) -> str | None:
    """Why the inputs are not of the size that was asked for, as the gate would say it after the sweep."""
    cell, sizes = spec.cell, {size for tensor in call.tensors() for size in tensor.shape}
    shapes = " and ".join("x".join(map(str, tensor.shape)) or "no dimension" for tensor in call.tensors()[:4])
    if call.samples is not None:
        if call.samples != cell.batch_size:
            return f"batch_size={cell.batch_size}: its callable counts {call.samples} samples; honour batch_size"
        return None
    if cell.batch_size not in sizes | set(call.lengths()):
        return (
            f"batch_size={cell.batch_size}: its inputs are {shapes}; honour batch_size, or return the number of "
            "samples as a third value"
        )
    if cell.sequence_length is not None and cell.sequence_length not in sizes:
        return f"sequence_length={cell.sequence_length}: its inputs are {shapes}; honour sequence_length"
    return None


def _output_problem(outputs: reference.Reference) -> str | None:
    for tensors in outputs.outputs:
        if not tensors:
            return "its output holds no tensor when forward() returns"
        if any(tensor.is_floating_point() and bool(tensor.isnan().any()) for tensor in tensors):
            return "its output holds nan in fp32: an average of nothing, or weights that were never set"
    return None


def _random_problem(spec: JobSpec, outputs: reference.Reference) -> str | None:
    """Why two runs differ, if they do: those of one module, or those of two that were built with one seed."""
    if outputs.repeated and not _is_same(outputs.repeated, outputs.outputs[0]):
        return (
            "two calls with the same inputs give different outputs, so that no output can be checked: turn off dropout "
            "and noise, or seed them in forward()"
        )
    if spec.cell.model.target.startswith(_SHIPPED):
        return None
    module, call = stages.build(spec, spec.cell.seed)
    with torch.inference_mode():
        again = flat(copied(call(module)))
    if not _is_same(again, outputs.outputs[0]):
        return (
            "it is another one each time it is built, with the same seed: draw weights and inputs from torch's, "
            "numpy's or Python's own generators, which are seeded before each call"
        )
    return None


def _is_same(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    if not any(tensor.numel() for tensor in others):
        return [tensor.shape for tensor in some] == [tensor.shape for tensor in others]
    quality = distance.compare(some, others)
    return quality.comparable and quality.rel_l2 is not None and quality.rel_l2 <= _SAME


def _try_in_child(job: Path, trial: Path, reference_file: Path) -> None:
    """One trial in a forked child, so that what one model does to the process does not reach the next."""
    pid = os.fork()
    if pid == 0:
        try:
            watch.die_with(os.getppid())
            spec = read_spec(job)
            watch.say_where_it_hangs(spec.deadline_s)
            write_json(trial, save_weights(spec) if spec.weights else try_model(spec, reference_file))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        write_json(trial, Trial(f"its process was killed by {name} when it was built or called"))


def main(folder: Path) -> None:
    """Try every model that has a job file in the folder."""
    watch.mark_crashes()
    number = 0
    while (job := folder / JOB_FILE.format(number)).exists():
        _try_in_child(job, folder / TRIAL_FILE.format(number), folder / REFERENCE_FILE.format(number))
        number += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
