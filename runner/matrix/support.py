"""Combinations that can't work, with the reason: refused before anything is launched, so that no cell runs as another.

Pure: a cell and this machine's CPU flags in, a sentence out. Whether libraries are installed is checked in
``runner.launch``, because a person can change that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runner.protocol.cell import BUNDLED, Cell
from runner.protocol.precision import GROUPS
from runner.protocol.torch_build import TorchBuild

# The torch whose GEMM templates for CPUs open a parallel region inside another one, and close one of them.
_BROKEN_TEMPLATES = "2.8."

# Precisions in which IPEX computes in bfloat16.
_BF16 = frozenset({"bf16", "bf16_autocast", "int8_weight", "int4_weight"})
_FP16 = frozenset({"avx512_fp16", "amx_fp16"})


def _launcher(cell: Cell, isa: frozenset[str]) -> str | None:
    if cell.launcher.name == "none" and cell.instances > 1:
        return f"instances={cell.instances} launcher=none: one process is all it starts; choose ipexrun or xeon"
    return None


def why_not_in_its_memory_format(cell: Cell, has_images: bool) -> str | None:
    """The reason why the cell can't run in its memory format, which depends on the model; None when it can.

    Args:
        has_images: whether the model works on tensors of four dimensions.
    """
    if not has_images:
        if cell.memory_format == "channels_last":
            return (
                f"memory_format=channels_last: model={cell.model.name} works on no images, so it would change nothing"
            )
        return None
    if cell.memory_format == "channels_first":
        if cell.graph.is_inductor:
            return (
                f"memory_format=channels_first graph={cell.graph.name}: inductor lays convolutions out channels last "
                "by itself"
            )
        if cell.precision.name == "int8" and not cell.uses_ipex:
            return (
                "memory_format=channels_first precision=int8 ipex=off: PyTorch's int8 convolutions work channels last, "
                "whatever they are given"
            )
    return None


def why_not_in_its_precision(cell: Cell, linear_inputs: Sequence[int]) -> str | None:
    """The reason why the cell can't run in its precision, which depends on the model; None when it can.

    Args:
        linear_inputs: the numbers of inputs that the model's linear layers have.
    """
    name = cell.precision.name
    if name == "int8" or not cell.precision.is_quantized:
        return None
    if not linear_inputs:
        return f"precision={name}: model={cell.model.name} has no linear layer, and its recipes quantize no other"
    if name == "int4_weight" and all(number % GROUPS[-1] for number in linear_inputs):
        return (
            f"precision={name}: scales are for {GROUPS[-1]} inputs or more, and no linear layer of "
            f"model={cell.model.name} can be divided into such groups"
        )
    return None


def _of(cell: Cell) -> str:
    """The precision and the graph of a cell, as they are asked for."""
    return f"precision={cell.precision.name} graph={cell.graph.name}"


def _precision(cell: Cell, isa: frozenset[str]) -> str | None:
    precision = cell.precision.name
    if precision == "fp16" and not isa & _FP16:
        return "precision=fp16: this CPU has neither AVX512-FP16 nor AMX-FP16, and emulates it tenfold slower"
    if precision in _BF16 and cell.uses_ipex and "avx512bw" not in isa:
        return f"precision={precision} ipex={cell.ipex}: IPEX needs AVX-512 for it, which this CPU does not have"
    if precision == "int8_weight" and not cell.uses_ipex and cell.graph.name == "torchscript":
        return f"{_of(cell)} ipex=off: torch.jit.freeze makes bfloat16 constants of such weights again"
    return None


def _fp32_math(cell: Cell, isa: frozenset[str]) -> str | None:
    if cell.fp32_math == "highest":
        return None
    name = f"fp32_math={cell.fp32_math}"
    if cell.precision.name != "fp32":
        return f"{name} precision={cell.precision.name}: it is for what computes in float32; choose precision=fp32"
    if not isa & {"avx512_bf16", "amx_bf16"}:
        return f"{name}: this CPU has neither AVX512-BF16 nor AMX-BF16, so that oneDNN would not use it"
    if cell.uses_ipex and cell.graph.is_inductor:
        return f"{name} ipex={cell.ipex} graph={cell.graph.name}: IPEX's setting does not reach its compiled code"
    if cell.graph.name == "max_autotune":
        return f"{name} graph=max_autotune: it reads torch's old setting of it, which the new one forbids"
    return None


def _ipex(cell: Cell, isa: frozenset[str]) -> str | None:
    if not cell.uses_ipex:
        return None
    graph = cell.graph.name
    name = f"ipex={cell.ipex}"
    if "avx2" not in isa:
        return f"{name}: IPEX needs AVX2, which this CPU does not have"
    if cell.has_streams and (reason := _streams(cell)):
        return f"{name} {reason}"
    if cell.precision.name == "int8" and graph == "eager":
        return f"{name} precision=int8 graph=eager: IPEX computes in int8 only once TorchScript has fused the graph"
    if cell.precision.is_quantized and cell.graph.is_inductor:
        return f"{name} {_of(cell)}: torch.compile can't trace what IPEX's recipes make"
    if graph == "max_autotune":
        return "ipex=on graph=max_autotune: IPEX's backend of torch.compile knows no mode, and would choose no kernel"
    if cell.graph.is_package:
        return "ipex=on graph=aot: AOTInductor compiles without IPEX's backend, and would leave IPEX out"
    return None


def _streams(cell: Cell) -> str | None:
    """Why IPEX's runtime extension can't call the model; how many streams an instance has room for is a question of its
    place."""
    if cell.openmp != "intel":
        return (
            f"openmp={cell.openmp}: IPEX's runtime extension pins its threads by Intel's OpenMP, preloaded; choose "
            "openmp=intel"
        )
    if cell.scenario.is_served:
        return f"scenario={cell.scenario.name}: the server puts batches of any size together, and streams split one"
    if cell.graph.is_inductor:
        return (
            f"graph={cell.graph.name}: its streams call a module from threads of C++, and torch.compile's code is for "
            "one thread of Python; choose torchscript"
        )
    return None


def _graph(cell: Cell, isa: frozenset[str]) -> str | None:
    """What inductor does without a word, and what has nothing to do with it."""
    if cell.graph.compile_cache == "warm" and not cell.graph.is_inductor:
        return f"graph.compile_cache=warm graph={cell.graph.name}: inductor compiles nothing, so there is no cache"
    if cell.precision.name == "int8" and cell.graph.is_inductor and not cell.graph.is_frozen:
        return (
            f"precision=int8 graph={cell.graph.name}: inductor has int8 kernels only for frozen weights, and would "
            "compute in fp32; choose compile_freezing"
        )
    if cell.precision.is_quantized and cell.graph.is_package:
        return f"{_of(cell)}: the profiler does not see a package's products, so that no integers could be proved"
    return None


def _scenario(cell: Cell, isa: frozenset[str]) -> str | None:
    if not cell.scenario.is_served:
        return None
    name = f"scenario={cell.scenario.name}"
    if cell.launcher.name != "xeon":
        return f"{name} launcher={cell.launcher.name}: its workers are started by torch's launcher; choose xeon"
    if cell.allocator.launcher_value == "preload":
        return f"{name} allocator={cell.allocator.name}: the server's launcher does not know this allocator"
    if cell.instances > 1:
        return f"{name} instances={cell.instances}: requests are counted and proved in one worker; run it with one"
    if cell.graph.is_inductor:
        graph = f"graph={cell.graph.name}"
        return f"{name} {graph}: the size of its batches varies, and each size would be compiled again"
    return None


RULES: tuple[Callable[[Cell, frozenset[str]], str | None], ...] = (
    _launcher,
    _scenario,
    _precision,
    _fp32_math,
    _ipex,
    _graph,
)


def why_not(cell: Cell, isa: frozenset[str]) -> str | None:
    """The first reason why the cell can't run as asked on a CPU with these flags; None when it can."""
    return next((reason for rule in RULES if (reason := rule(cell, isa))), None)


def build_lacks(cell: Cell, build: TorchBuild) -> str | None:
    """The first reason why a torch build can't run the cell, whatever a person installs beside it; None when it can.

    IPEX beside the bundled torch is not asked about: a person can install it there.
    """
    name = f"torch={cell.torch.name}"
    is_bundled = cell.torch.name == BUNDLED
    compiled = cell.graph.is_inductor
    by_export = cell.precision.name in ("int8", "int8_dynamic") and not cell.uses_ipex and compiled
    if cell.uses_ipex and not is_bundled and not build.has("intel-extension-for-pytorch"):
        return f"ipex={cell.ipex} {name}: that build has no Intel Extension for PyTorch (IPEX), whose last torch is 2.8"
    if cell.graph.name == "torchscript" and "torchscript" not in build.parts:
        return f"graph=torchscript {name}: torch {build.torch} has no TorchScript any more"
    needs_torchao = by_export and "pt2e" not in build.parts
    needs_torchao |= cell.precision.is_weight_only and not cell.uses_ipex
    if needs_torchao and not build.has("torchao") and is_bundled:
        return f"{_of(cell)} ipex=off {name}: it needs torchao, which newer builds have; choose torch=2.14.1 or ipex=on"
    if needs_torchao and not build.has("torchao"):
        return (
            f"{_of(cell)} {name}: torch {build.torch} leaves this to torchao, which is not installed there; install it "
            f"with: {build.python} -m pip install torchao"
        )
    if cell.graph.name == "max_autotune" and (build.torch or "").startswith(_BROKEN_TEMPLATES):
        return (
            f"graph=max_autotune {name}: the C++ of torch {build.torch}'s GEMM templates does not compile with several "
            "threads (a brace is missing); choose a newer torch"
        )
    if by_export and not cell.graph.is_frozen and not build.has("torchao"):
        return (
            f"{_of(cell)} {name}: without torchao inductor has int8 kernels only for frozen weights; choose "
            "compile_freezing"
        )
    by_modules = cell.precision.name in ("int8", "int8_dynamic") and not cell.uses_ipex and not compiled
    if by_modules and "fx" not in build.parts:
        return f"{_of(cell)} {name}: torch {build.torch} has no FX quantization any more"
    if cell.fp32_math != "highest" and not cell.uses_ipex and "fp32_precision" not in build.parts:
        return f"fp32_math={cell.fp32_math} ipex=off {name}: torch {build.torch} has no setting for it; choose ipex=on"
    if cell.launcher.name == "xeon" and "xeon" not in build.parts:
        return f"launcher=xeon {name}: torch {build.torch} has no launcher; choose ipexrun or none"
    if cell.scenario.is_served and not is_bundled:
        return f"scenario={cell.scenario.name} {name}: the server runs on the bundled torch only"
    return None
