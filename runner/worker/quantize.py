"""Static int8 quantization after training: which recipe turns which model into int8 kernels.

Each recipe observes the model on calibration inputs and returns a module whose convolutions and linears compute in
int8. The choice depends only on the cell and on whether the model can be traced; it is recorded, never guessed
afterwards.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import torch
from torch import nn

from runner.worker.call import Call, flat


def calibrate(module: nn.Module, calibration: Sequence[Call]) -> None:
    """Run the calibration inputs through the module, so that its observers see which values occur."""
    for call in calibration:
        call(module)


def ipex_static(module: nn.Module, call: Call, calibration: Sequence[Call]) -> tuple[nn.Module, str]:
    """IPEX's recipe: prepare, calibrate, convert. Computes in int8 only once it is traced and frozen."""
    import intel_extension_for_pytorch as ipex
    from intel_extension_for_pytorch.quantization import convert, prepare

    recipe = ipex.quantization.default_static_qconfig_mapping
    prepared = prepare(module, recipe, example_inputs=call.positional(module), inplace=False)
    calibrate(prepared, calibration)
    return convert(prepared), "ipex static"


def fx_static(module: nn.Module, call: Call, calibration: Sequence[Call]) -> tuple[nn.Module, str]:
    """PyTorch's FX graph mode: fuses convolution, batch norm and relu before it quantizes.

    Raises:
        Exception: whatever torch.fx raises for a model with data-dependent control flow.
    """
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    prepared = prepare_fx(module, get_default_qconfig_mapping("x86"), example_inputs=call.positional(module))
    calibrate(prepared, calibration)
    return convert_fx(prepared), "torch.ao FX"


def module_static(module: nn.Module, call: Call, calibration: Sequence[Call]) -> tuple[nn.Module, str]:
    """PyTorch's eager mode for models that FX can't trace: each convolution and linear by itself, fp32 in between."""
    from torch.ao.quantization import QuantWrapper, convert, get_default_qconfig, prepare, propagate_qconfig_

    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in (nn.Linear, nn.Conv2d):
                wrapped = QuantWrapper(child)
                wrapped.qconfig = get_default_qconfig("x86")
                propagate_qconfig_(wrapped)
                setattr(parent, name, wrapped)
    prepare(module, inplace=True)
    calibrate(module, calibration)
    convert(module, inplace=True)
    return module, "torch.ao eager, module by module"


def pt2e_static(module: nn.Module, call: Call, calibration: Sequence[Call]) -> tuple[nn.Module, str]:
    """PyTorch 2 export quantization for inductor (X86InductorQuantizer).

    ``strict=True``: without it the quantizer of torch 2.8 finds no pattern and fp32 would run.

    It was a part of torch until 2.8, and is in torchao since. Importing its quantizer also registers inductor's int8
    kernels: without that import, or without freezing, the same program would be computed in fp32.
    """
    tools: Any
    try:
        tools = importlib.import_module("torch.ao.quantization.quantize_pt2e")
        move_to_eval: Any = importlib.import_module("torch.ao.quantization").move_exported_model_to_eval
        x86: Any = importlib.import_module("torch.ao.quantization.quantizer.x86_inductor_quantizer")
        export: Any = importlib.import_module("torch.export").export_for_training
        recipe = "torch.ao PT2E"
    except (ImportError, AttributeError):
        tools = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
        move_to_eval = importlib.import_module("torchao.quantization.pt2e").move_exported_model_to_eval
        x86 = importlib.import_module("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
        export = importlib.import_module("torch.export").export
        recipe = f"torchao {metadata.version('torchao')} PT2E"
    exported: Any = export(module, call.args, kwargs=dict(call.kwargs or {}), strict=True).module()
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = tools.prepare_pt2e(exported, quantizer)
    calibrate(prepared, calibration)
    converted = tools.convert_pt2e(prepared)
    move_to_eval(converted)
    return converted, recipe


def static(
    module: nn.Module, call: Call, calibration: Sequence[Call], ipex: bool, compiled: bool
) -> tuple[nn.Module, str]:
    """The module in int8 and the name of the recipe that made it so."""
    if ipex:
        return ipex_static(module, call, calibration)
    with warnings.catch_warnings():
        # torch.ao announces its own future in a dozen warnings per job.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        torch.backends.quantized.engine = "x86"
        if compiled:
            return pt2e_static(module, call, calibration)
        if traceable(module, call):
            return fx_static(module, call, calibration)
        return module_static(module, call, calibration)


def traceable(module: nn.Module, call: Call) -> bool:
    """Whether torch.fx can follow the model's control flow, and what it followed computes the same.

    It may trace past a branch (an optional argument that is not None while tracing) without a warning.
    """
    try:
        traced = torch.fx.symbolic_trace(module)
        pairs = zip(flat(call(traced)), flat(call(module)), strict=True)
        return all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in pairs)
    except Exception:
        return False
