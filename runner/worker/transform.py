"""What each axis does to the model, in the order it is done: memory format, precision with IPEX, graph, streams.

A new axis that changes the model adds one function here and one check in ``runner.checks.gate``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from runner.protocol.jobfile import JobSpec
from runner.worker import autocast, graphs, imports, quantize, streams
from runner.worker.call import Call

# The dtype to which weights and inputs are cast; with other precisions they stay in float32.
DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    # The kernels that read such weights take activations in it.
    "int8_weight": torch.bfloat16,
    "int4_weight": torch.bfloat16,
}


@dataclass
class Subject:
    """The model on its way through the transformations, with what can only be seen on the way."""

    module: nn.Module
    call: Call
    eager: nn.Module
    """The module as it was before it became a graph: its parts are still visible."""
    recipe: str | None = None
    """What made it compute in its precision; None if tensors were cast and nothing else."""
    quantized_layers: int = 0
    """The layers of the kinds that the recipe quantizes, before it was applied."""
    quantized: dict[str, int] = field(default_factory=dict)
    """See PrecisionEvidence.quantized."""
    in_streams: nn.Module | None = None
    """What each stream calls of a module with streams; None of any other."""
    making: graphs.Making = field(default_factory=graphs.Making)
    """What was seen while it became a graph."""
    further: Sequence[Call] = ()
    """The other input sets, as the cell asks for them."""

    @property
    def graph(self) -> nn.Module:
        """The model as the graph that was asked for, whoever calls it."""
        return self.module if self.in_streams is None else self.in_streams

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every input set, in the order in which iterations take them."""
        return (self.call, *self.further)


def inputs(spec: JobSpec, call: Call) -> Call:
    """The call with its tensors in the cell's memory format and dtype."""
    dtype = DTYPES.get(spec.cell.precision.name, torch.float32)

    def prepared(tensor: torch.Tensor) -> torch.Tensor:
        if spec.cell.memory_format == "channels_last" and tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor.to(dtype) if tensor.is_floating_point() and dtype != torch.float32 else tensor

    return call.map(prepared)


def _apply_memory_format(spec: JobSpec, subject: Subject) -> None:
    if spec.cell.uses_ipex:
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


def _apply_fp32_math(spec: JobSpec) -> None:
    """Allow bfloat16 inside float32 arithmetic, in each library that has a setting for it."""
    if spec.cell.fp32_math == "highest":
        return
    mkldnn: Any = torch.backends.mkldnn
    if hasattr(mkldnn, "conv"):  # torch 2.9 and later
        mkldnn.conv.fp32_precision = mkldnn.matmul.fp32_precision = "bf16"
    if spec.cell.uses_ipex:
        import intel_extension_for_pytorch as ipex

        ipex.set_fp32_math_mode(mode=ipex.FP32MathMode.BF32, device="cpu")


def _apply_precision(spec: JobSpec, subject: Subject, example: Call, calibration: Sequence[Call]) -> None:
    dtype = DTYPES.get(spec.cell.precision.name, torch.float32)
    if dtype != torch.float32:
        subject.module = subject.module.to(dtype)
    if spec.cell.precision.is_quantized:
        kinds = quantize.KINDS[spec.cell.precision.name]
        subject.quantized_layers = sum(isinstance(child, kinds) for child in subject.module.modules())
        calibration = [inputs(spec, call) for call in calibration]
        subject.module, subject.recipe = quantize.quantize(spec.cell, subject.module, example, calibration)
        subject.quantized = quantize.parts(subject.module)
        return
    is_autocast = spec.cell.precision.name == "bf16_autocast"
    if spec.cell.uses_ipex:
        # As IPEX documents it: the float32 weights that it packs can't be cast any more.
        packed = torch.bfloat16 if is_autocast else dtype
        subject.module = _ipex_optimize(subject.module, example, packed, spec.cell.graph.is_inductor)
    if is_autocast:
        subject.module, subject.recipe = autocast.Autocast(subject.module), autocast.RECIPE


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


def transform(
    spec: JobSpec, module: nn.Module, call: Call, calibration: Sequence[Call], cpus: Sequence[int]
) -> Subject:
    """The module and its inputs as the cell asks for them, in inference mode.

    Args:
        calibration: inputs other than ``call``'s, for int8.
        cpus: the cores of this instance.
    """
    cell = spec.cell
    if cell.uses_ipex:
        imports.import_ipex()
    number = cell.streams_on(len(cpus))
    subject = Subject(module.eval(), inputs(spec, call), module)
    # Each stream calls the model with its part of the batch, for which kernels and graphs are chosen.
    example = streams.largest_part(subject.call, cell.batch_size, number)
    _apply_fp32_math(spec)
    _apply_memory_format(spec, subject)
    _apply_precision(spec, subject, example, calibration)
    subject.eager = subject.module
    subject.module, subject.making = graphs.make(cell, subject.module, example)
    if cell.has_streams:
        subject.in_streams = subject.module
        subject.module = streams.wrap(subject.module, subject.call, cell.batch_size, cpus, number)
    return subject
