"""The IPEX launcher, ``ipexrun cpu`` of intel-extension-for-pytorch 2.8."""

from __future__ import annotations

import shlex
from pathlib import Path

from runner.launch.request import Built, LaunchRequest

# The installed launcher's own code without importing torch: 0.2 s instead of 13 s.
FAST = Path(__file__).with_name("ipexrun_fast.py")

# What importing IPEX leaves in the environment of the plain launcher, and so of the jobs it starts.
IMPORT_LEAVES = {"KMP_DUPLICATE_LIB_OK": "True", "KMP_INIT_AT_FORK": "FALSE"}


def build(request: LaunchRequest) -> Built:
    """argv of ipexrun, or of ipexrun_fast.py unless the cell asks for the plain one."""
    placement, cell = request.placement, request.cell
    plain = [str(Path(request.python).with_name("ipexrun"))]
    start = plain if cell.launcher.plain else [request.python, str(FAST)]
    options = [
        "--memory-allocator",
        cell.allocator.launcher_value,
        "--omp-runtime",
        cell.openmp,
        "--cores-list",
        placement.core_list,
        "--ninstances",
        str(placement.instances),
        "--ncores-per-instance",
        str(placement.cores_per_instance),
        "--multi-task-manager",
        placement.task_manager,
        # The list of cores is complete as it stands: no E-core filter on top of it.
        "--use-e-cores",
    ]
    if placement.has_second_siblings:
        options.append("--use-logical-cores")
    # ipexrun joins these words into a shell line without quoting them.
    return Built([*start, "cpu", *options, *map(shlex.quote, request.program)], IMPORT_LEAVES)
