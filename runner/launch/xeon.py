"""PyTorch's own launcher, ``python -m torch.backends.xeon.run_cpu`` of torch 2.8."""

from __future__ import annotations

from runner.launch.placement import Placement
from runner.launch.request import Built, LaunchRequest
from runner.protocol.cell import Cell

MODULE = "torch.backends.xeon.run_cpu"

_ALLOCATOR_FLAG = {
    "default": "--use-default-allocator",
    "jemalloc": "--enable-jemalloc",
    "tcmalloc": "--enable-tcmalloc",
    "preload": "--use-default-allocator",
}


def options(cell: Cell, placement: Placement) -> list[str]:
    """The options of run_cpu: allocator, cores, OpenMP runtime, and how to pin."""
    words = [
        _ALLOCATOR_FLAG[cell.allocator.launcher_value],
        "--core-list",
        ",".join(map(str, placement.cores)),
        "--ninstances",
        str(placement.instances),
        "--ncores-per-instance",
        str(placement.cores_per_instance),
    ]
    if cell.openmp == "default":
        words.append("--disable-iomp")
    if placement.task_manager == "taskset":
        words.append("--disable-numactl")
    return words


def build(request: LaunchRequest) -> Built:
    """Build the argv of run_cpu; it starts the program without a shell, so nothing is quoted."""
    return Built([request.python, "-m", MODULE, *options(request.cell, request.placement), *request.program])
