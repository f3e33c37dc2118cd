"""No launcher (``launcher=none``): the same pinning and preloading, by numactl or taskset alone.

Cells with a launcher differ from these in what the launcher adds (OMP_PROC_BIND, KMP_AFFINITY, ...).
"""

from __future__ import annotations

from runner.launch.placement import pinning_words
from runner.launch.request import Built, LaunchRequest


def build(request: LaunchRequest) -> Built:
    """Build the pinned worker's own argv; LD_PRELOAD is set here, because no launcher sets it."""
    env = {"LD_PRELOAD": ":".join(map(str, request.preload))} if request.preload else {}
    return Built([*pinning_words(request.placement), request.python, "-u", *request.program], env)
