"""Combinations that can't work, with the reason: refused before anything is launched, so that no cell runs as another.

Pure: a cell and this machine's CPU flags in, a sentence out. Whether libraries are installed is checked in
``runner.launch``, because a person can change that.
"""

from __future__ import annotations

from collections.abc import Callable

from runner.protocol.cell import Cell

_FP16 = frozenset({"avx512_fp16", "amx_fp16"})


def _launcher(cell: Cell, isa: frozenset[str]) -> str | None:
    if cell.launcher.name == "none" and cell.instances > 1:
        return f"instances={cell.instances} launcher=none: one process is all it starts; choose ipexrun or xeon"
    return None


def _memory_format(cell: Cell, isa: frozenset[str]) -> str | None:
    images = "channels_last" in cell.model.memory_formats
    if cell.memory_format not in cell.model.memory_formats:
        formats = ", ".join(cell.model.memory_formats)
        return f"memory_format={cell.memory_format}: model={cell.model.name} has {formats} only (model.memory_formats)"
    if cell.memory_format == "channels_first" and images:
        if cell.graph.name == "compile":
            return "memory_format=channels_first graph=compile: inductor lays convolutions out channels last by itself"
        if cell.precision.name == "int8" and cell.ipex == "off":
            return (
                "memory_format=channels_first precision=int8 ipex=off: PyTorch's int8 convolutions work channels last, "
                "whatever they are given"
            )
    return None


def _precision(cell: Cell, isa: frozenset[str]) -> str | None:
    precision = cell.precision.name
    if precision == "fp16" and not isa & _FP16:
        return "precision=fp16: this CPU has neither AVX512-FP16 nor AMX-FP16, and emulates it tenfold slower"
    if precision == "bf16" and cell.ipex == "on" and "avx512bw" not in isa:
        return "precision=bf16 ipex=on: IPEX needs AVX-512 for it, which this CPU does not have"
    return None


def _ipex(cell: Cell, isa: frozenset[str]) -> str | None:
    if cell.ipex == "off":
        return None
    if "avx2" not in isa:
        return "ipex=on: IPEX needs AVX2, which this CPU does not have"
    if cell.precision.name == "int8" and cell.graph.name == "eager":
        return "ipex=on precision=int8 graph=eager: IPEX computes in int8 only once TorchScript has fused the graph"
    if cell.precision.name == "int8" and cell.graph.name == "compile":
        return "ipex=on precision=int8 graph=compile: torch.compile can't trace what IPEX's int8 recipe makes"
    return None


def _scenario(cell: Cell, isa: frozenset[str]) -> str | None:
    if not cell.scenario.is_served:
        return None
    name = f"scenario={cell.scenario.name}"
    if cell.launcher.name != "xeon":
        return f"{name} launcher={cell.launcher.name}: its workers are started by torch's launcher; choose xeon"
    if cell.instances > 1:
        return f"{name} instances={cell.instances}: requests are counted and proved in one worker; run it with one"
    if cell.graph.name == "compile":
        return f"{name} graph=compile: the size of its batches varies, and each size would be compiled again"
    return None


RULES: tuple[Callable[[Cell, frozenset[str]], str | None], ...] = (
    _launcher,
    _scenario,
    _memory_format,
    _precision,
    _ipex,
)


def why_not(cell: Cell, isa: frozenset[str]) -> str | None:
    """The first reason why the cell can't run as asked on a CPU with these flags; None when it can."""
    return next((reason for rule in RULES if (reason := rule(cell, isa))), None)
