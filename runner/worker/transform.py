"""What each axis does to the model, in the order it is done: memory format, precision with IPEX, graph.

A new axis that changes the model adds one function here and one check in ``runner.checks.gate``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from runner.protocol.jobfile import JobSpec
from runner.worker import graphs, quantize
from runner.worker.call import Call

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Subject:
    """The model on its way through the transformations, with what can only be seen on the way."""

    module: nn.Module
    call: Call
    eager: nn.Module
    """The module as it was before it became a graph: its parts are still visible."""
    int8_recipe: str | None = None
    making: graphs.Making = field(default_factory=graphs.Making)
    """What was seen while it became a graph."""
    further: Sequence[Call] = ()
    """The other input sets, as the cell asks for them."""

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every input set, in the order in which iterations take them."""
        return (self.call, *self.further)


def inputs(spec: JobSpec, call: Call) -> Call:
    """The call with its tensors in the cell's memory format and dtype; for int8 they stay float32."""
    dtype = DTYPES.get(spec.cell.precision.name, torch.float32)

    def prepared(tensor: torch.Tensor) -> torch.Tensor:
        if spec.cell.memory_format == "channels_last" and tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor.to(dtype) if tensor.is_floating_point() and dtype != torch.float32 else tensor

    return call.map(prepared)


def _apply_memory_format(spec: JobSpec, subject: Subject) -> None:
    if spec.cell.ipex == "on":
        import intel_extension_for_pytorch as ipex

        if spec.cell.memory_format == "channels_first":
            ipex.disable_auto_channels_last()  # otherwise IPEX turns convolutions channels last unasked
        else:
            ipex.enable_auto_channels_last()
    if spec.cell.memory_format == "channels_last":
        # Not module.to(memory_format=...), which refuses a module that has weights of five dimensions as well.
        subject.module._apply(_in_channels_last)


def _in_channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _apply_precision(spec: JobSpec, subject: Subject, calibration: Sequence[Call]) -> None:
    if spec.cell.precision.name == "int8":
        calibration = [inputs(spec, call) for call in calibration]
        subject.module, subject.int8_recipe = quantize.static(
            subject.module, subject.call, calibration, spec.cell.ipex == "on", spec.cell.graph.is_inductor
        )
        return
    dtype = DTYPES[spec.cell.precision.name]
    if dtype != torch.float32:
        subject.module = subject.module.to(dtype)
    if spec.cell.ipex == "on":
        subject.module = _ipex_optimize(subject.module, subject.call, dtype, spec.cell.graph.is_inductor)


def _ipex_optimize(module: nn.Module, call: Call, dtype: torch.dtype, is_compiled: bool) -> nn.Module:
    import intel_extension_for_pytorch as ipex

    if is_compiled:
        # torch.compile can't look into prepacked weights and would break the graph at each of them; IPEX's own
        # backend of torch.compile packs the weights itself.
        plain: nn.Module = ipex.optimize(module, dtype=dtype, weights_prepack=False)
        return plain
    # sample_input lets oneDNN choose the prepacked weight layout for this very shape; without it a ResNet-50 reorders
    # weights in every iteration.
    optimized: nn.Module = ipex.optimize(module, dtype=dtype, sample_input=call.positional(module))
    return optimized


def transform(spec: JobSpec, module: nn.Module, call: Call, calibration: Sequence[Call]) -> Subject:
    """The module and its inputs as the cell asks for them, in inference mode.

    Args:
        calibration: inputs other than ``call``'s, for int8.
    """
    subject = Subject(module.eval(), inputs(spec, call), module)
    _apply_memory_format(spec, subject)
    _apply_precision(spec, subject, calibration)
    subject.eager = subject.module
    subject.module, subject.making = graphs.make(spec.cell, subject.module, subject.call)
    return subject
