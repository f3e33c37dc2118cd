"""The numerical guard: what the untouched model computes in fp32, in a process of its own.

``runner.worker.distance`` says how far the measured one is from it. The reference is computed in a forked child that
ends before the model under test is built, so that neither its memory nor its threads are part of what is measured.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from runner.protocol.evidence import ModelEvidence
from runner.worker import fingerprint, flop, look, watch
from runner.worker.call import Call, copied, flat, is_equal

# What threads of the model's own may still write into an output belongs to the reference; the measured model is
# judged by what forward() has returned.
_SETTLES_S = 0.02


@dataclass(frozen=True)
class Reference:
    """What the model computes in fp32, eager, for every input set."""

    outputs: list[list[torch.Tensor]]
    """The tensors of each input set's output, in the order of the model's."""
    further_inputs: list[list[torch.Tensor]]
    """The tensors of every input set but the first, as they were built."""
    repeated: list[torch.Tensor]
    """The output of a second run on the first input set; empty if it is the same, bit by bit."""
    operators: int
    """Operators that compute in one iteration."""
    flop: float | None
    """Floating-point operations in one iteration; None if one of the operators that compute can't be counted."""
    elements: int
    """Numbers that an iteration must move at least: inputs, outputs, and the weights of operators that compute."""
    image_layouts: dict[str, int]
    """Operators on images by the memory format of their first tensor: what the model does by itself."""
    weights: str
    """See ModelEvidence.weights, as of the next two."""
    inputs: list[list[float]]
    projections: list[list[float]]

    @property
    def model(self) -> ModelEvidence:
        """What the model is, as evidence."""
        return ModelEvidence(self.weights, self.inputs, self.projections)


class _Counter(TorchDispatchMode):
    """Counts the operators that compute, and the layouts of those on images; changes nothing in what they do."""

    def __init__(self, weights: Mapping[int, int]) -> None:
        """Count.

        Args:
            weights: address -> number of elements of each of the model's parameters.
        """
        super().__init__()
        self.operators = 0
        self.flop: float | None = 0.0
        self.used: dict[int, int] = {}
        """Address -> number of elements of the parameters that operators that compute were given."""
        self._weights = weights
        self.image_layouts: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        image = next((arg for arg in args if isinstance(arg, torch.Tensor)), None)
        if image is not None and look.is_on_images(func.name()) and (form := look.layout(image.shape, image.stride())):
            self.image_layouts[form] = self.image_layouts.get(form, 0) + 1
        output = func(*args, **(kwargs or {}))
        if look.is_compute(func.name()):
            self.operators += 1
            tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
            self.used |= {at: self._weights[at] for arg in tensors if (at := _address(arg)) in self._weights}
            shapes = [arg.shape if isinstance(arg, torch.Tensor) else () for arg in args]
            shape = output.shape if isinstance(output, torch.Tensor) else None
            flop_of_call = flop.of_operator(func.name(), shapes, shape)
            self.flop = None if self.flop is None or flop_of_call is None else self.flop + flop_of_call
        return output


def _address(tensor: torch.Tensor) -> int:
    """Where a tensor's numbers are; -1 for one that keeps them in no single place, such as a sparse one."""
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return -1


def compute(module: nn.Module, calls: Sequence[Call]) -> Reference:
    """The reference of an untouched module on some input sets."""
    # Copied before the first call: a model may change its inputs in place.
    further_inputs = [[tensor.clone() for tensor in call.tensors()] for call in calls[1:]]
    again = calls[0].map(torch.clone)
    weights = fingerprint.of_tensors(module.parameters())
    inputs = fingerprint.projections([call.tensors() for call in calls])
    sizes = {_address(parameter): parameter.numel() for parameter in module.parameters()}
    outputs: list[list[torch.Tensor]] = []
    counters: list[_Counter] = []
    with torch.inference_mode():
        for call in calls:
            with _Counter(sizes) as counter:
                output = call(module)
            time.sleep(_SETTLES_S)
            outputs.append(_numbers(output))
            counters.append(counter)
        repeated = again(module)
        time.sleep(_SETTLES_S)
        second = _numbers(repeated)
    first = counters[0]
    second = [] if is_equal(second, outputs[0]) else second
    layouts = dict(sorted(first.image_layouts.items()))
    projections = fingerprint.projections(outputs)
    moved = [*calls[0].tensors(), *outputs[0]]
    elements = sum(first.used.values()) + sum(tensor.numel() for tensor in moved)
    return Reference(
        outputs, further_inputs, second, first.operators, first.flop, elements, layouts, weights, inputs, projections
    )


def _numbers(output: Any) -> list[torch.Tensor]:
    """The tensors of an output, copied; none of a promise, for which the measured model is refused with the reason."""
    try:
        return flat(copied(output))
    except TypeError:
        return []


def compute_in_child(compute: Callable[[], Reference], file: Path, deadline_s: float) -> bool:
    """Compute in a forked child that saves to ``file``; returns whether it worked. Its traceback goes to stderr.

    The child ends with this process. It reports by itself where it hangs, because a fork takes no other threads along.

    If a signal kills the child, the same signal kills this process: the model causes it, and would do so here too.
    Call it before torch has started threads.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            watch.die_with(parent)
            watch.say_where_it_hangs(deadline_s)
            save(compute(), file)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, wait_status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(wait_status):
        os.kill(os.getpid(), os.WTERMSIG(wait_status))
    return wait_status == 0 and file.exists()


def save(reference: Reference, file: Path) -> None:
    """Leave the reference in a file."""
    torch.save(asdict(reference), file)


def load(file: Path) -> Reference:
    """The reference that `save` left."""
    return Reference(**torch.load(file, weights_only=True))
