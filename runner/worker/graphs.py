"""How a module becomes a graph: one function per value of the axis ``graph``, and what can only be seen meanwhile.

What can be seen of a graph afterwards is read by ``runner.worker.graph_evidence``.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from runner.protocol.cell import Cell
from runner.worker import autocast
from runner.worker.call import Call


def _files_in(folder: str | None) -> int:
    return sum(len(files) for _, _, files in os.walk(folder)) if folder else 0


# The files that inductor's cache had when this module was imported, which is before anything is compiled.
CACHED_FILES = _files_in(os.environ.get("TORCHINDUCTOR_CACHE_DIR"))


@dataclass
class Making:
    """What was seen while a graph was made: before the first call, or by torch.compile in the first calls."""

    graphs: list[int] = field(default_factory=list)
    """The number of operations in each graph that was handed to the compiler."""
    compiler: str | None = None
    """The compiler that was called with these graphs (``ipex``, ``inductor``); None if none was."""
    autotuned: list[str] = field(default_factory=list)
    """The kernel that was fastest for each product of matrices for which several kernels were measured."""
    objects: list[str] = field(default_factory=list)
    """The names of the shared objects in the package that was loaded."""
    seconds: float = 0.0
    """Wall time of what is done before the first call."""
    in_window: int | None = None
    """Graphs that torch.compile made while the iterations were timed; None if nobody counted."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the result must know: see WorkerResult.notes."""


def make(cell: Cell, module: nn.Module, call: Call) -> tuple[Any, Making]:
    """The module as the graph that the cell asks for, which is called like the module; and what was seen of it.

    Args:
        call: the example from which the graph is made.
    """
    making = Making()
    start = time.perf_counter()
    made = _MAKERS[cell.graph.name](cell, module, call, making)
    making.seconds = time.perf_counter() - start
    return made, making


def graphs_so_far() -> int:
    """The number of graphs that torch.compile has made in this process, whoever called it."""
    dynamo: Any = sys.modules.get("torch._dynamo.utils")
    return int(dynamo.counters["stats"]["unique_graphs"]) if dynamo else 0


def seconds_to_compile(making: Making, warmup_s: list[float], inputs: int) -> float:
    """The wall time that a graph took to make: before the first call, and by how much the first calls took longer than
    the quickest of the warm-up.

    Args:
        warmup_s: the wall time of each warm-up call.
        inputs: the number of input sets, each of which may have a graph of its own.
    """
    # TorchScript optimizes its graph in the second call.
    first = warmup_s[: max(2, inputs)]
    return making.seconds + sum(first) - len(first) * min(warmup_s)


def remarks(cell: Cell, making: Making) -> list[str]:
    """What is not as its name says, although it ran as asked: sentences. Call it after the first calls."""
    if cell.graph.name == "max_autotune" and not making.autotuned:
        return ["graph=max_autotune had no product of matrices to choose a kernel for: this is graph=compile_freezing"]
    return []


def _eager(cell: Cell, module: nn.Module, call: Call, making: Making) -> nn.Module:
    return module


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


def _torchscript(cell: Cell, module: nn.Module, call: Call, making: Making) -> nn.Module:
    example: dict[str, Any] = (
        {"example_inputs": call.args} if not call.kwargs else {"example_kwarg_inputs": dict(call.kwargs)}
    )
    with _noting_tracer_warnings(making.notes), autocast.to_trace(module) as to_trace:
        traced = torch.jit.trace(to_trace, strict=False, check_trace=False, **example)
    frozen: nn.Module = torch.jit.freeze(traced.eval())
    return frozen


def _compiled(cell: Cell, module: nn.Module, call: Call, making: Making) -> nn.Module:
    """torch.compile, which compiles in the first call."""
    import torch._inductor.config as inductor
    from torch._dynamo import lookup_backend

    # For the whole process, and not as an option of torch.compile: it takes effect where the call is traced, and as an
    # option it would freeze nothing.
    inductor.freezing = cell.graph.is_frozen
    compiler: Any = lookup_backend("ipex" if cell.uses_ipex else "inductor")

    def counted(graph: torch.fx.GraphModule, inputs: list[torch.Tensor], mode: str | None = None) -> Callable[..., Any]:
        making.graphs.append(sum(node.op.startswith("call_") for node in graph.graph.nodes))
        making.compiler = "ipex" if compiler.__module__.startswith("intel_extension") else compiler.__name__
        patches = {"config_patches": torch._inductor.list_mode_options(mode)} if mode else {}
        compiled: Callable[..., Any] = compiler(graph, inputs, **patches)
        return compiled

    options: dict[str, Any] = {}
    if cell.graph.name == "max_autotune":
        options["mode"] = "max-autotune"
        _watch_autotuning(making.autotuned)
    module_of_calls: Any = torch.compile(
        module, backend=counted, fullgraph=cell.graph.fullgraph, dynamic=False, **options
    )
    return module_of_calls  # type: ignore[no-any-return]


def _watch_autotuning(chosen: list[str]) -> None:
    from torch._inductor import select_algorithm

    def choose(timings: dict[Any, float], *_: Any) -> None:
        if timings:
            # Kernels of inductor's own are numbered: cpp_CppMicroGemmFP32Vec_3.
            chosen.append(re.sub(r"_\d+$", "", min(timings, key=timings.__getitem__).name))

    select_algorithm.add_feedback_saver(choose)


def _package(cell: Cell, module: nn.Module, call: Call, making: Making) -> Any:
    """A package of AOTInductor, made from the exported module and loaded: its code runs without Python."""
    exported = torch.export.export(module, call.args, dict(call.kwargs or {}))
    file = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", "/tmp")) / "model.pt2"  # noqa: S108 - only by hand
    file.parent.mkdir(parents=True, exist_ok=True)
    torch._inductor.aoti_compile_and_package(exported, package_path=str(file))
    loaded = torch._inductor.aoti_load_package(str(file))
    with zipfile.ZipFile(file) as archive:
        making.objects = [name for name in archive.namelist() if name.endswith(".so")]
    for mapped, name in mapped_objects(making.objects):
        # Unpacked into /tmp, and the worker leaves without removing it; what is mapped stays so.
        shutil.rmtree(mapped.removesuffix(f"/{name}"), ignore_errors=True)
    return loaded


def mapped_objects(names: list[str]) -> list[tuple[str, str]]:
    """(its path in /proc/self/maps, name) of each file of a package that is mapped into this process."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    files = {f"/{file}".removesuffix(" (deleted)") for line in lines if (file := line.partition(" /")[2])}
    return [(file, name) for file in sorted(files) for name in names if file.endswith(f"/{name}")]


_MAKERS: dict[str, Callable[[Cell, nn.Module, Call, Making], Any]] = {
    "eager": _eager,
    "torchscript": _torchscript,
    "compile": _compiled,
    "compile_freezing": _compiled,
    "max_autotune": _compiled,
    "aot": _package,
}
