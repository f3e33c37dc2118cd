"""The caller's environment without what would leak into a cell.

The launchers keep preset values ("Use the existing value") and leave a preset LD_PRELOAD in front
of their own: a stray export would decide the measurement.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Everything that tunes allocators, OpenMP, MKL, oneDNN, torch's compilers or loads foreign code.
LEAKS = re.compile(
    r"LD_PRELOAD|LD_AUDIT|LD_BIND_NOW|MALLOC_.*|JE_MALLOC_CONF|GLIBC_TUNABLES|TCMALLOC_.*|HEAPPROFILE|HEAPCHECK|CPUPROFILE"
    r"|OMP_.*|KMP_.*|GOMP_.*|MKL_.*|MKLDNN_.*|ONEDNN_.*|DNNL_.*|OPENBLAS_.*"
    r"|TORCHINDUCTOR_.*|TORCHDYNAMO_.*|TORCH_LOGS|TORCH_COMPILE_.*|PYTORCH_.*|IPEX_.*|ATEN_CPU_CAPABILITY|LRU_CACHE_CAPACITY"
    r"|INTEL_LIBITTNOTIFY.*|INTEL_ITTNOTIFY_.*|CCL_.*|LOCAL_WORLD_SIZE|LOCAL_RANK|RUNNER_JOB"
)

# Where launchers look for libraries first; ours take their place.
_REPLACED = ("CONDA_PREFIX", "VIRTUAL_ENV")


def scrub(caller: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Split the caller's environment into what a worker may see and what was scrubbed."""
    scrubbed = {name: value for name, value in sorted(caller.items()) if LEAKS.fullmatch(name)}
    kept = {name: value for name, value in caller.items() if name not in scrubbed and name not in _REPLACED}
    return kept, scrubbed


def visible(env: Mapping[str, str]) -> dict[str, str]:
    """The variables of a worker's environment that the runner set on purpose."""
    return {name: value for name, value in sorted(env.items()) if LEAKS.fullmatch(name) or name in _REPLACED}
