"""Do the runner's memory, open files and own time per job stay flat in a sweep with a night's worth of jobs?

    python -m benchmarks.endurance              500 tiny jobs: about half an hour
    python -m benchmarks.endurance --jobs 100   a short run

The runner is observed from outside whenever it prints the line of a job. Its own time is its CPU time, which it spends
between jobs and which might grow with their number; the time of a whole job is shown as well, and depends on other
processes. The exit status is 0 if the last tenth of the jobs is within limits of the second tenth (the first one loads
MLflow).
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
CELLS = 5
SWEEP = (
    "-m", "model=tiny", f"batch_size={','.join(map(str, range(1, CELLS + 1)))}", "launcher=none",
    "warmup=2", "iterations=20", "capture=[]", "reruns=0",
)  # fmt: skip
# The most that memory and time in the last tenth may be, relative to the second tenth.
MEMORY, TIME = 1.05, 1.15


@dataclass(frozen=True)
class Observation:
    """The state of the runner when a job begins."""

    at_s: float
    cpu_s: float
    rss_mb: float
    files: int


def observe(pid: int) -> Observation:
    """Read the CPU time without children, resident memory and number of descriptors of a process (proc(5))."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    cpu_s = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return Observation(time.monotonic(), cpu_s, pages * os.sysconf("SC_PAGE_SIZE") / 2**20, files)


def main() -> int:
    """Run the sweep and print the figures; the exit status is 0 if all three are flat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=500, help="how many, at least 50 (default: %(default)s)")
    options = parser.parse_args()
    rounds = max(options.jobs, 50) // CELLS
    observations: list[Observation] = []
    with TemporaryDirectory(prefix="runner-endurance-") as place:
        words = [sys.executable, "-m", "runner", *SWEEP, f"rounds={rounds}", f"mlruns={place}"]
        runner = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert runner.stdout is not None
        tail: list[str] = []
        for line in runner.stdout:
            tail = [*tail[-20:], line]
            if re.match(r"\[\d+/\d+\]", line):
                observations.append(observe(runner.pid))
        status = runner.wait()
    if status or len(observations) != CELLS * rounds:
        print(f"{''.join(tail)}exit status {status} after {len(observations)} of {CELLS * rounds} jobs")
        return 1
    tenth = len(observations) // 10
    print("jobs          MB  files  own s per job  whole s per job")
    rows = []
    for first in range(0, len(observations) - tenth + 1, tenth):
        part = observations[first : first + tenth]
        own_s = (part[-1].cpu_s - part[0].cpu_s) / (len(part) - 1)
        whole_s = median(after.at_s - before.at_s for before, after in itertools.pairwise(part))
        rows.append((median(each.rss_mb for each in part), max(each.files for each in part), own_s))
        memory, files, _ = rows[-1]
        print(f"{first + 1:3}-{first + tenth:3}  {memory:7.1f}  {files:5}  {own_s:13.3f}  {whole_s:15.3f}")
    (memory, files, took_s), (memory_end, files_end, took_end_s) = rows[1], rows[-1]
    is_flat = memory_end <= MEMORY * memory and files_end <= files and took_end_s <= TIME * took_s
    print(
        f"{len(observations)} jobs: memory x{memory_end / memory:.3f}, open files {files} -> {files_end}, "
        f"own time per job x{took_end_s / took_s:.3f}: {'flat' if is_flat else 'NOT FLAT'}"
    )
    return int(not is_flat)


if __name__ == "__main__":
    sys.exit(main())
