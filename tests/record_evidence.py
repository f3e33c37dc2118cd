"""Record tests/data/evidence anew with the real worker: ``python -m tests.record_evidence [NAME ...]``, in minutes.

It needs a machine with two cores or more, IPEX, jemalloc, a C++ compiler and TorchServe: one on which nothing is failed
for want of them. See tests/data/README.md.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from tests.checks.recorded import FOLDER
from tests.conftest import ROOT, invoke

_LOOP = ("batch_size=2", "iterations=20", "warmup=3")
_CHANNELS_LAST = (*_LOOP, "memory_format=channels_last")
_SERVED = ("scenario=torchserve", "batch_size=4", "warmup=2", "scenario.requests=40", "scenario.concurrency=4")
JOBS = {
    "ptmalloc_off": _LOOP,
    "jemalloc_on": (*_LOOP, "allocator=jemalloc", "ipex=on"),
    "ipex_channels_last": (*_CHANNELS_LAST, "ipex=on"),
    "ipex_int8_torchscript": (*_CHANNELS_LAST, "ipex=on", "precision=int8", "graph=torchscript"),
    "bf16_compile": (*_CHANNELS_LAST, "precision=bf16", "graph=compile"),
    "freezing": (*_CHANNELS_LAST, "graph=compile_freezing"),
    "aot": (*_CHANNELS_LAST, "graph=aot"),
    "ipex_bf16_freezing": (*_CHANNELS_LAST, "ipex=on", "precision=bf16", "graph=compile_freezing"),
    "bf16_autocast": (*_CHANNELS_LAST, "precision=bf16_autocast", "graph=torchscript"),
    "int8_dynamic": (*_CHANNELS_LAST, "precision=int8_dynamic"),
    "ipex_int8_weight": (*_CHANNELS_LAST, "ipex=on", "precision=int8_weight"),
    "int8_eager": (*_CHANNELS_LAST, "precision=int8"),
    "ipex_multistream": (*_CHANNELS_LAST, "ipex=multistream", "graph=torchscript", "openmp=intel"),
    "torchserve_jemalloc": (*_SERVED, "allocator=jemalloc", "scenario.max_batch_delay_ms=10"),
}


def record(name: str, mlruns: Path) -> None:
    """Run one job, and keep its evidence.json with this machine's folders written as ``/project``.

    Raises:
        RuntimeError: the job did not prove what it was asked for.
    """
    words = ("-m", "model=tiny", "cores=2", "rounds=1", "reruns=0", "capture=[]")
    ran = invoke([*words, *JOBS[name], f"mlruns={mlruns}"])
    if ran.status != 0:
        raise RuntimeError(ran.out + ran.err)
    [file] = ran.sweep.glob("cells/*/round-0/evidence.json")
    # The virtual environment may be a link to one elsewhere, and /tmp has the job's private folder.
    environment = (ROOT / ".venv").resolve().parent
    text = file.read_text(encoding="utf-8").replace(str(mlruns), "/project/mlruns")
    text = re.sub(rf"{re.escape(str(ROOT))}|{re.escape(str(environment))}", "/project", text)
    # Where torch was compiled is nobody's business.
    text = re.sub(r"CXX_COMPILER=[^ ]*", "CXX_COMPILER=c++,", text)
    (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Record the jobs that are named, or all."""
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or JOBS:
            record(name, Path(folder))
            print(name)


if __name__ == "__main__":
    main()
