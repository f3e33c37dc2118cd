"""PyTorch's own launcher, ``python -m torch.backends.xeon.run_cpu`` of torch 2.8."""

from __future__ import annotations

from runner.launch.request import Built, Request

_ALLOCATOR_FLAG = {
    "default": "--use-default-allocator",
    "jemalloc": "--enable-jemalloc",
    "tcmalloc": "--enable-tcmalloc",
}


def build(request: Request) -> Built:
    """argv of run_cpu; it starts the program without a shell, so nothing is quoted."""
    placement, cell = request.placement, request.cell
    options = [
        _ALLOCATOR_FLAG[cell.allocator.launcher_value],
        "--core-list",
        ",".join(map(str, placement.cores)),
        "--ninstances",
        str(placement.instances),
        "--ncores-per-instance",
        str(placement.cores_per_instance),
    ]
    if cell.openmp == "default":
        options.append("--disable-iomp")
    if placement.task_manager == "taskset":
        options.append("--disable-numactl")
    return Built([request.python, "-m", "torch.backends.xeon.run_cpu", *options, *request.program])
