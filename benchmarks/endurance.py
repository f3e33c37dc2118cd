"""A night's worth of jobs in one sweep: the runner's memory, open files and own time a job must stay flat.

    python -m benchmarks.endurance              500 tiny jobs: about half an hour
    python -m benchmarks.endurance --jobs 100   a short one

Looked at whenever a job's line is printed, from outside. Own time is the runner's CPU time: what it does between two
jobs, and what would grow with their number; the time of a whole job is shown, and depends on who else is at work. Exit
status 0 when the last tenth of the jobs is within the limits of the second tenth (the first one loads MLflow).
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
# What the last tenth may be of the second.
MEMORY, TIME = 1.05, 1.15


@dataclass(frozen=True)
class Look:
    """At the runner, as a job begins."""

    at_s: float
    cpu_s: float
    rss_mb: float
    files: int


def look(pid: int) -> Look:
    """proc(5): CPU time without children, resident memory, descriptors."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    cpu_s = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return Look(time.monotonic(), cpu_s, pages * os.sysconf("SC_PAGE_SIZE") / 2**20, files)


def main() -> int:
    """Exit status: 0 when all three are flat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=500, help="how many, at least 50 (default: %(default)s)")
    options = parser.parse_args()
    rounds = max(options.jobs, 50) // CELLS
    looks: list[Look] = []
    with TemporaryDirectory(prefix="runner-endurance-") as place:
        words = [sys.executable, "-m", "runner", *SWEEP, f"rounds={rounds}", f"mlruns={place}"]
        runner = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert runner.stdout is not None
        tail: list[str] = []
        for said in runner.stdout:
            tail = [*tail[-20:], said]
            if re.match(r"\[\d+/\d+\]", said):
                looks.append(look(runner.pid))
        status = runner.wait()
    if status or len(looks) != CELLS * rounds:
        print(f"{''.join(tail)}exit status {status} after {len(looks)} of {CELLS * rounds} jobs")
        return 1
    tenth = len(looks) // 10
    print("jobs          MB  files  own s a job  whole s a job")
    rows = []
    for first in range(0, len(looks) - tenth + 1, tenth):
        part = looks[first : first + tenth]
        own_s = (part[-1].cpu_s - part[0].cpu_s) / (len(part) - 1)
        whole_s = median(after.at_s - before.at_s for before, after in itertools.pairwise(part))
        rows.append((median(one.rss_mb for one in part), max(one.files for one in part), own_s))
        memory, files, _ = rows[-1]
        print(f"{first + 1:3}-{first + tenth:3}  {memory:7.1f}  {files:5}  {own_s:11.3f}  {whole_s:13.3f}")
    (memory, files, took_s), (memory_end, files_end, took_end_s) = rows[1], rows[-1]
    is_flat = memory_end <= MEMORY * memory and files_end <= files and took_end_s <= TIME * took_s
    print(
        f"{len(looks)} jobs: memory x{memory_end / memory:.3f}, open files {files} -> {files_end}, own time a job "
        f"x{took_end_s / took_s:.3f}: {'flat' if is_flat else 'NOT FLAT'}"
    )
    return int(not is_flat)


if __name__ == "__main__":
    sys.exit(main())
