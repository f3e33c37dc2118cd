"""What each axis does to the model, in the order it is done: memory format, precision with IPEX, graph.

A new axis that changes the model adds one function here and one check in ``runner.checks.gate``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from runner.protocol.jobfile import JobSpec
from runner.worker import autocast, quantize
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
    compiled_graphs: list[int] = field(default_factory=list)
    """The number of operations in each graph that was handed to the compiler."""
    compiler: str | None = None
    """The compiler that was called with these graphs (``ipex``, ``inductor``); None if none was."""
    further: Sequence[Call] = ()
    """The other input sets, as the cell asks for them."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the result must know: see WorkerResult.notes."""

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


def _apply_fp32_math(spec: JobSpec) -> None:
    """Allow bfloat16 inside float32 arithmetic, in each library that has a setting for it."""
    if spec.cell.fp32_math == "highest":
        return
    mkldnn: Any = torch.backends.mkldnn
    if hasattr(mkldnn, "conv"):  # torch 2.9 and later
        mkldnn.conv.fp32_precision = mkldnn.matmul.fp32_precision = "bf16"
    if spec.cell.ipex == "on":
        import intel_extension_for_pytorch as ipex

        ipex.set_fp32_math_mode(mode=ipex.FP32MathMode.BF32, device="cpu")


def _apply_precision(spec: JobSpec, subject: Subject, calibration: Sequence[Call]) -> None:
    dtype = DTYPES.get(spec.cell.precision.name, torch.float32)
    if dtype != torch.float32:
        subject.module = subject.module.to(dtype)
    if spec.cell.precision.is_quantized:
        kinds = quantize.KINDS[spec.cell.precision.name]
        subject.quantized_layers = sum(isinstance(child, kinds) for child in subject.module.modules())
        calibration = [inputs(spec, call) for call in calibration]
        subject.module, subject.recipe = quantize.quantize(spec.cell, subject.module, subject.call, calibration)
        subject.quantized = quantize.parts(subject.module)
        return
    is_autocast = spec.cell.precision.name == "bf16_autocast"
    if spec.cell.ipex == "on":
        # As IPEX documents it: the float32 weights that it packs can't be cast any more.
        packed = torch.bfloat16 if is_autocast else dtype
        subject.module = _ipex_optimize(subject.module, subject.call, packed, spec.cell.graph.name)
    if is_autocast:
        subject.module, subject.recipe = autocast.Autocast(subject.module), autocast.RECIPE


def _ipex_optimize(module: nn.Module, call: Call, dtype: torch.dtype, graph: str) -> nn.Module:
    import intel_extension_for_pytorch as ipex

    if graph == "compile":
        # torch.compile can't look into prepacked weights and would break the graph at each of them; IPEX's own
        # backend of torch.compile packs the weights itself.
        plain: nn.Module = ipex.optimize(module, dtype=dtype, weights_prepack=False)
        return plain
    # sample_input lets oneDNN choose the prepacked weight layout for this very shape; without it a ResNet-50 reorders
    # weights in every iteration.
    optimized: nn.Module = ipex.optimize(module, dtype=dtype, sample_input=call.positional(module))
    return optimized


# In a name of our own, because torch's stubs don't export it.
_TracerWarning: Any = torch.jit.TracerWarning  # type: ignore[attr-defined]


# Code whose values are meant to be constants of the trace: the scales of int8.
_MEANT_AS_CONSTANTS = ("/intel_extension_for_pytorch/", "/torch/ao/")


@contextmanager
def _noting_tracer_warnings(notes: list[str]) -> Iterator[None]:
    """Make a note of each place at which tracing may lose the model's control flow; warnings are printed as ever."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", _TracerWarning)
        yield
    places = {}
    for warning in caught:
        warnings.showwarning(warning.message, warning.category, warning.filename, warning.lineno)
        is_meant = any(part in warning.filename for part in _MEANT_AS_CONSTANTS)
        if issubclass(warning.category, _TracerWarning) and not is_meant:
            places[f"{Path(warning.filename).name}:{warning.lineno}"] = str(warning.message).partition(" might")[0]
    if places:
        place, what = next(iter(places.items()))
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        notes.append(
            "TorchScript may compute another function on other inputs: the trace keeps what the example inputs chose "
            f"at {place}{more} (TracerWarning: {what})"
        )


def _apply_graph(spec: JobSpec, subject: Subject) -> None:
    if spec.cell.graph.name == "torchscript":
        example: dict[str, Any] = (
            {"example_inputs": subject.call.args}
            if not subject.call.kwargs
            else {"example_kwarg_inputs": dict(subject.call.kwargs)}
        )
        with _noting_tracer_warnings(subject.notes), autocast.to_trace(subject.module) as module:
            traced = torch.jit.trace(module, strict=False, check_trace=False, **example)
        subject.module = torch.jit.freeze(traced.eval())
    elif spec.cell.graph.name == "compile":
        import torch._inductor.config as inductor
        from torch._dynamo import lookup_backend

        inductor.freezing = True  # without it oneDNN reorders the weights in every iteration
        compiler: Any = lookup_backend("ipex" if spec.cell.ipex == "on" else "inductor")

        def counted(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
            subject.compiled_graphs.append(sum(node.op.startswith("call_") for node in graph.graph.nodes))
            subject.compiler = "ipex" if compiler.__module__.startswith("intel_extension") else compiler.__name__
            compiled: Callable[..., Any] = compiler(graph, inputs)
            return compiled

        compiled_module: Any = torch.compile(
            subject.module, backend=counted, fullgraph=spec.cell.graph.fullgraph, dynamic=False
        )
        subject.module = compiled_module


def transform(spec: JobSpec, module: nn.Module, call: Call, calibration: Sequence[Call]) -> Subject:
    """The module and its inputs as the cell asks for them, in inference mode.

    Args:
        calibration: inputs other than ``call``'s, for int8.
    """
    subject = Subject(module.eval(), inputs(spec, call), module)
    _apply_fp32_math(spec)
    _apply_memory_format(spec, subject)
    _apply_precision(spec, subject, calibration)
    subject.eager = subject.module
    _apply_graph(spec, subject)
    return subject
