"""Quantization after training: which recipe turns which model into one that holds or computes integers.

Static int8 observes the model on calibration inputs; convolutions and linears then compute in int8. Dynamic int8 is for
linears, which quantize what they are given. Of weight-only recipes the linears' weights alone are integers. The choice
depends only on the cell, on what is installed and on whether the model can be traced; it is recorded, never guessed
afterwards.
"""

from __future__ import annotations

import enum
import importlib
import importlib.util
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any

import torch
from torch import nn

from runner.protocol.cell import Cell
from runner.protocol.precision import GROUPS
from runner.worker.call import Call, flat

# A recipe takes a module, a call of it and calls to calibrate it with; it returns the module with the recipe's name.
Recipe = Callable[[nn.Module, Call, Sequence[Call]], tuple[nn.Module, str]]

# Precision -> the kinds of layers that its recipes quantize.
KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "int8": (nn.Conv2d, nn.Linear),
    "int8_dynamic": (nn.Linear,),
    "int8_weight": (nn.Linear,),
    "int4_weight": (nn.Linear,),
}


def calibrate(module: nn.Module, calibration: Sequence[Call]) -> None:
    """Run the calibration inputs through the module, so that its observers see which values occur."""
    for call in calibration:
        call(module)


def _ipex(mapping: Any, module: nn.Module, call: Call, calibration: Sequence[Call] = ()) -> nn.Module:
    """What IPEX makes of a module by a mapping of its own: prepare, calibrate, convert."""
    from intel_extension_for_pytorch.quantization import convert, prepare

    prepared = prepare(module, mapping, example_inputs=call.positional(module), inplace=False)
    calibrate(prepared, calibration)
    converted: nn.Module = convert(prepared)
    return converted


def ipex_static(module: nn.Module, call: Call, calibration: Sequence[Call]) -> tuple[nn.Module, str]:
    """IPEX's recipe for static int8. Computes in int8 only once it is traced and frozen."""
    import intel_extension_for_pytorch as ipex

    mapping = ipex.quantization.default_static_qconfig_mapping
    return _ipex(mapping, module, call, calibration), "ipex static"


def ipex_dynamic(module: nn.Module, call: Call, calibration: Sequence[Call]) -> tuple[nn.Module, str]:
    """IPEX's recipe for dynamic int8: linears of torch.ao's class, whose kernel is PyTorch's."""
    import intel_extension_for_pytorch as ipex

    return _ipex(ipex.quantization.default_dynamic_qconfig_mapping, module, call), "ipex dynamic"


def ipex_int8_weight(module: nn.Module, call: Call, calibration: Sequence[Call]) -> tuple[nn.Module, str]:
    """IPEX's recipe for int8 weights, one scale per output."""
    import intel_extension_for_pytorch as ipex

    tools = ipex.quantization
    mapping = tools.get_weight_only_quant_qconfig_mapping(weight_dtype=tools.WoqWeightDtype.INT8)
    return _ipex(mapping, module, call), "ipex weight-only int8"


def ipex_int4_weight(module: nn.Module, call: Call, calibration: Sequence[Call]) -> tuple[nn.Module, str]:
    """IPEX's recipe for int4 weights, one scale per group of inputs."""
    import intel_extension_for_pytorch as ipex

    tools, group = ipex.quantization, group_size(module)
    mapping = tools.get_weight_only_quant_qconfig_mapping(weight_dtype=tools.WoqWeightDtype.INT4, group_size=group)
    return _ipex(mapping, module, call), f"ipex weight-only int4, groups of {group}"


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
    """PyTorch 2 export quantization for inductor, static."""
    return _pt2e(module, call, calibration, is_dynamic=False)


def pt2e_dynamic(module: nn.Module, call: Call, calibration: Sequence[Call]) -> tuple[nn.Module, str]:
    """PyTorch 2 export quantization for inductor, dynamic: its observers want to see a call, whichever."""
    return _pt2e(module, call, [call], is_dynamic=True)


def _pt2e(module: nn.Module, call: Call, calibration: Sequence[Call], is_dynamic: bool) -> tuple[nn.Module, str]:
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
    config = x86.get_default_x86_inductor_quantization_config(is_dynamic=is_dynamic)
    if is_dynamic:
        # Inductor has no kernel for other layers: it would quantize what they are given and compute in float32.
        quantizer.set_module_type_qconfig(nn.Linear, config)
    else:
        quantizer.set_global(config)
    prepared = tools.prepare_pt2e(exported, quantizer)
    calibrate(prepared, calibration)
    converted = tools.convert_pt2e(prepared)
    move_to_eval(converted)
    return converted, f"{recipe} dynamic" if is_dynamic else recipe


def _torchao(module: nn.Module, place: str, config: str, **settings: Any) -> tuple[nn.Module, str]:
    """A module whose linears one of torchao's configurations has quantized in place, with the recipe's name."""
    tools: Any = importlib.import_module("torchao.quantization")
    make: Any = getattr(importlib.import_module(place), config)
    # It would set options of inductor's, the cache of compiled graphs among them, without which every job begins.
    tools.quantize_(module, make(**settings, set_inductor_config=False))
    return module, f"torchao {metadata.version('torchao')} {config}"


def _has_torchao() -> bool:
    return importlib.util.find_spec("torchao") is not None


def torchao_dynamic(module: nn.Module, call: Call, calibration: Sequence[Call]) -> tuple[nn.Module, str]:
    """torchao's recipe for dynamic int8, which is made for torch.compile: a scale for each row of activations."""
    return _torchao(module, "torchao.quantization", "Int8DynamicActivationInt8WeightConfig")


def torchao_int8_weight(module: nn.Module, call: Call, calibration: Sequence[Call]) -> tuple[nn.Module, str]:
    """torchao's recipe for int8 weights, one scale per output. Only inductor has a kernel that reads them so."""
    return _torchao(module, "torchao.quantization", "Int8WeightOnlyConfig")


def torchao_int4_weight(module: nn.Module, call: Call, calibration: Sequence[Call]) -> tuple[nn.Module, str]:
    """torchao's recipe for int4 weights on a CPU, one scale per group of inputs; the stable one is for GPUs."""
    group = group_size(module)
    place, config = "torchao.prototype.quantization.int4", "PrototypeInt4WeightOnlyConfig"
    module, recipe = _torchao(module, place, config, group_size=group)
    return module, f"{recipe}, groups of {group}"


def group_size(module: nn.Module) -> int:
    """Inputs per scale: as many as recipes take by default, or as few as every linear can be divided into."""
    inputs = [child.in_features for child in module.modules() if isinstance(child, nn.Linear)]
    return next((size for size in GROUPS if all(number % size == 0 for number in inputs)), GROUPS[0])


def module_dynamic(module: nn.Module, call: Call, calibration: Sequence[Call]) -> tuple[nn.Module, str]:
    """PyTorch's eager mode for dynamic int8: linears that quantize what they are given, one scale for all of it."""
    from torch.ao.quantization import quantize_dynamic

    return quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8), "torch.ao quantize_dynamic"


def parts(module: nn.Module) -> dict[str, int]:
    """What a recipe has put into a module, by its name: see PrecisionEvidence.quantized."""
    names = [*_quantized_nodes(module)]
    for child in module.modules():
        kind = f"{type(child).__module__}.{type(child).__qualname__}"
        # Quantize and DeQuantize stand between layers, and packed parameters in them.
        if "quantized" in kind.lower() and not kind.endswith(("uantize", "PackedParams")):
            dtype = getattr(child, "dtype", None)  # of IPEX's weights
            names.append(f"{kind} of {dtype.name.lower()}" if isinstance(dtype, enum.Enum) else kind)
        for weight in child.parameters(recurse=False):
            if hasattr(weight, "__tensor_flatten__"):
                inside = [getattr(weight, name) for name in weight.__tensor_flatten__()[0]]
                largest = max(inside, key=lambda tensor: tensor.numel())
                is_dynamic = getattr(weight, "act_quant_kwargs", None) is not None
                name = f"{type(weight).__name__} of {str(largest.dtype).removeprefix('torch.')}"
                names.append(f"{name}, dynamic" if is_dynamic else name)
    return {name: names.count(name) for name in sorted(set(names))}


_QUANTIZES = re.compile(r"(?<!de)quantize_per")


def _quantized_nodes(module: nn.Module) -> Iterator[str]:
    """The nodes of an exported graph that make integers of what they are given: without an observer there is none."""
    if isinstance(module, torch.fx.GraphModule):
        for node in module.graph.nodes:
            if isinstance(node.target, torch._ops.OpOverload) and _QUANTIZES.search(str(node.target)):
                # A scale that is computed and no constant.
                is_dynamic = isinstance(node.args[1], torch.fx.Node) and node.args[1].op == "call_function"
                yield f"{node.target}, dynamic" if is_dynamic else str(node.target)


# Precision -> IPEX's recipe, and torchao's.
_WEIGHT_ONLY: dict[str, tuple[Recipe, Recipe]] = {
    "int8_weight": (ipex_int8_weight, torchao_int8_weight),
    "int4_weight": (ipex_int4_weight, torchao_int4_weight),
}


def quantize(cell: Cell, module: nn.Module, call: Call, calibration: Sequence[Call]) -> tuple[nn.Module, str]:
    """The module in the cell's precision, which is one with integers, and the name of the recipe that made it so."""
    recipe = _recipe(cell, module, call)
    with warnings.catch_warnings():
        # torch.ao announces its own future in a dozen warnings per job.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        torch.backends.quantized.engine = "x86"
        return recipe(module, call, calibration)


def _recipe(cell: Cell, module: nn.Module, call: Call) -> Recipe:
    if cell.precision.is_weight_only:
        recipes = _WEIGHT_ONLY[cell.precision.name]
        return recipes[0] if cell.uses_ipex else recipes[1]
    if cell.precision.name == "int8_dynamic":
        if cell.uses_ipex:
            return ipex_dynamic
        if not cell.graph.is_inductor:
            return module_dynamic
        return torchao_dynamic if _has_torchao() else pt2e_dynamic
    if cell.uses_ipex:
        return ipex_static
    if cell.graph.is_inductor:
        return pt2e_static
    return fx_static if traceable(module, call) else module_static


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
