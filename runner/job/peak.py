"""The peaks of this host: one process of a torch build, started on the cores that cells get, and judged like a job."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from runner import launch
from runner.launch import environment
from runner.launch.placement import pinning_words
from runner.machine import execute, host, processes
from runner.machine.installation import PEAK
from runner.protocol import stored
from runner.protocol.errors import RunnerError
from runner.protocol.peaks import FORMAT, JOB_FILE, RESULT_FILE, PeakJob, Peaks
from runner.protocol.stored import FormatError, write_json
from runner.protocol.torch_build import TorchBuild

# Threads stay on their cores, as both launchers bind those of cells. Outputs of products are kept on the heap, so that
# no page faults are timed: see conf/allocator/ptmalloc_tuned.yaml.
_ENVIRONMENT = {
    "OMP_PROC_BIND": "CLOSE",
    "OMP_SCHEDULE": "STATIC",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
}
_TIMEOUT_S = 600.0


def measure(build: TorchBuild, placement: launch.Placement, is_quick: bool = False) -> Peaks:
    """Measure what these cores can do at most with a torch build; whether it can be believed is another question.

    Raises:
        RunnerError: the process could not be started, or left no result.
    """
    marker = f"{processes.Process.this()}/peak"
    own = {
        **execute.LOCALE,
        **launch.user_site(build, os.environ),
        **_ENVIRONMENT,
        "OMP_NUM_THREADS": str(placement.threads),
        "RUNNER_JOB": marker,
    }
    env = {**environment.scrub(os.environ)[0], **own}
    with tempfile.TemporaryDirectory(prefix="runner-peak-") as name:
        folder = Path(name)
        write_json(folder / JOB_FILE, PeakJob(os.getpid(), list(placement.cores), is_quick))
        argv = [*pinning_words(placement), build.python, str(PEAK), name]
        stderr = folder / "stderr.log"
        try:
            ended = execute.run(argv, env, folder / "stdout.log", stderr, _TIMEOUT_S, marker)
        except OSError as error:
            raise RunnerError(f"peak: {argv[0]} can't be started ({error}); install it, or see doctor") from error
        try:
            peaks = stored.read(Peaks, folder / RESULT_FILE, FORMAT)
        except FormatError as error:
            lines = [line.strip() for line in stored.log_text(stderr).splitlines() if line.strip()]
            why = f"it was still running after {_TIMEOUT_S:g} s" if ended.timed_out else "nothing on stderr"
            raise RunnerError(
                f"peak: the process left no result ({lines[-1][:300] if lines else why}); see that a small sweep runs: "
                "python -m runner model=tiny"
            ) from error
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return replace(peaks, host_id=str(host.fingerprint()["host_id"]), date=now)
