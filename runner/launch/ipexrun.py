"""The launcher of Intel Extension for PyTorch (IPEX): ``ipexrun cpu`` of intel-extension-for-pytorch 2.8."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from runner.launch.request import Built, LaunchRequest

# This script runs the installed launcher's own code without importing torch: 0.2 s instead of 13 s.
FAST = Path(__file__).with_name("ipexrun_fast.py")

# Importing IPEX sets these variables in the plain launcher, and so in the jobs that it starts.
IMPORT_LEAVES = {"KMP_DUPLICATE_LIB_OK": "True", "KMP_INIT_AT_FORK": "FALSE"}


def build(request: LaunchRequest) -> Built:
    """Build the argv of ipexrun_fast.py, or of ipexrun itself if the cell asks for the plain launcher."""
    placement, cell = request.placement, request.cell
    # The launcher is the runner's own, whichever torch build it starts: IPEX is in no other.
    plain = [str(Path(sys.executable).with_name("ipexrun"))]
    start = plain if cell.launcher.plain else [sys.executable, str(FAST)]
    options = [
        "--memory-allocator",
        "default" if cell.allocator.launcher_value == "preload" else cell.allocator.launcher_value,
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
        # The list of cores is complete: the launcher must not filter out E-cores on top of it.
        "--use-e-cores",
    ]
    if placement.has_second_siblings:
        options.append("--use-logical-cores")
    program = request.program
    if request.python != sys.executable:
        options.append("--no-python")  # to the launcher another interpreter is a program like any other
        program = (request.python, "-u", *program)
    # ipexrun joins these words into a shell line without quoting them.
    return Built([*start, "cpu", *options, *map(shlex.quote, program)], IMPORT_LEAVES)
