"""No launcher (``launcher=none``): the same pinning and preloading, by numactl or taskset alone.

What a launcher adds beyond these (OMP_PROC_BIND, KMP_AFFINITY, ...) is the difference between the two.
"""

from __future__ import annotations

from runner.launch.placement import pinned
from runner.launch.request import Built, LaunchRequest


def build(request: LaunchRequest) -> Built:
    """argv of the worker itself, pinned; LD_PRELOAD is set here because no launcher does."""
    env = {"LD_PRELOAD": ":".join(map(str, request.preload))} if request.preload else {}
    return Built([*pinned(request.placement), request.python, "-u", *request.program], env)
