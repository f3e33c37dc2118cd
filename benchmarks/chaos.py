"""Sweeps that are killed at a random moment and resumed until they are complete: nothing may be lost or doubled.

    python -m benchmarks.chaos              50 sweeps of 6 jobs: about half an hour
    python -m benchmarks.chaos --sweeps 3   a short one

SIGKILL goes to the runner, to the launcher of the job in flight or to its worker, at random; a resumed sweep may be hit
again. Exit status 0 when all counts of the last line are 0.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.tracking import MlflowClient

from runner.machine.execute import marked
from runner.protocol.verdicts import Status
from runner.results import ledger
from runner.results.outcome import OUTCOME_FILE, RESULT_FILE, read_outcome
from runner.tracking.store import Store

ROOT = Path(__file__).resolve().parents[1]
CELLS, ROUNDS = 3, 2
SWEEP = (
    "-m", "model=tiny", "allocator=ptmalloc,jemalloc,tcmalloc", f"rounds={ROUNDS}", "launcher=xeon",
    "warmup=2", "iterations=20", "capture=[]", "reruns=0", "batch_size=2",
)  # fmt: skip
VICTIMS = ("runner", "launcher", "worker")
# A worker sees that its runner is gone, and ends, within this.
GONE_S = 5.0
# Times that a sweep is resumed before it is given up as incomplete.
PATIENCE = 6


@dataclass
class Count:
    """What must not be."""

    lost: int = 0
    """Jobs that had finished and were measured again."""
    duplicates: int = 0
    """MLflow runs of one cell or sweep beyond the first."""
    running: int = 0
    """MLflow runs left RUNNING."""
    orphans: int = 0
    """Processes that outlived their runner."""
    incomplete: int = 0
    """Sweeps that did not end with every job FINISHED and exit status 0."""
    killed: Counter[str] = field(default_factory=Counter)

    @property
    def bad(self) -> int:
        """All of it."""
        return self.lost + self.duplicates + self.running + self.orphans + self.incomplete


def main() -> int:
    """Exit status: 0 when nothing of `Count` happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=50, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims (default: %(default)s)")
    options = parser.parse_args()
    rng, count = random.Random(options.seed), Count()
    with TemporaryDirectory(prefix="runner-chaos-") as place:
        mlruns = Path(place)
        start = time.monotonic()
        undisturbed = _Run([*SWEEP, f"mlruns={mlruns}"], mlruns)
        assert undisturbed.wait() == 0, undisturbed.said
        takes_s = time.monotonic() - start
        print(f"undisturbed: {takes_s:.1f} s", flush=True)
        for number in range(1, options.sweeps + 1):
            print(f"[{number}/{options.sweeps}] {_one(mlruns, takes_s, rng, count)}", flush=True)
        client = MlflowClient(tracking_uri=Store(mlruns).uri)
        count.running = len(client.search_runs(["1"], "attributes.status = 'RUNNING'", max_results=1000))
        told = ", ".join(f"{name} {count.killed[name]}" for name in VICTIMS)
        print(
            f"{options.sweeps} sweeps of {CELLS * ROUNDS} jobs, killed {told}: lost {count.lost}, duplicates "
            f"{count.duplicates}, left RUNNING {count.running}, orphans {count.orphans}, incomplete {count.incomplete}"
        )
    return int(count.bad > 0)


class _Run:
    """A runner in a process of its own."""

    def __init__(self, arguments: list[str], mlruns: Path) -> None:
        self._log = mlruns / "chaos.log"  # a pipe that nobody reads would stop it
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "runner", *arguments], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def said(self) -> str:
        """All that it has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait(self, timeout_s: float = 600) -> int:
        return self.process.wait(timeout_s)

    def kill(self, victim: str) -> str:
        """Kill one of the three; "" when there is none such now."""
        jobs = marked(f"{self.process.pid}.", is_prefix=True)
        parents = {pid: _parent(pid) for pid in jobs}
        chosen = {
            "runner": [self.process.pid],
            "launcher": [pid for pid in jobs if parents[pid] == self.process.pid],
            "worker": [pid for pid in jobs if pid not in parents.values() and _is_worker(pid)],
        }[victim]
        for pid in chosen[:1]:
            if self.process.poll() is None:
                os.kill(pid, signal.SIGKILL)
                return victim
        return ""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def _is_worker(pid: int) -> bool:
    try:
        return b"worker/__main__.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _finished(sweep: Path | None) -> dict[Path, tuple[int, bytes]]:
    """Result file of every job that FINISHED -> its inode and content: both are new when it is measured again."""
    files = sweep.glob(f"cells/*/round-*/{OUTCOME_FILE}") if sweep else ()
    results = [file.with_name(RESULT_FILE) for file in files if read_outcome(file).status == Status.FINISHED]
    return {file: (file.stat().st_ino, file.read_bytes()) for file in results}


def _one(mlruns: Path, takes_s: float, rng: random.Random, count: Count) -> str:
    """One sweep, to its end; what happened, in words."""
    before = set((mlruns / "sweeps").iterdir())
    arguments = [*SWEEP, f"mlruns={mlruns}"]
    kept: dict[Path, tuple[int, bytes]] = {}
    story = []
    sweep: Path | None = None
    for attempt in range(PATIENCE):
        run = _Run(arguments, mlruns)
        if attempt == 0 or rng.random() < 1 / 3:
            victim = rng.choice(VICTIMS)
            moment = time.monotonic() + rng.uniform(0, takes_s)
            hit = ""
            while not hit and run.process.poll() is None:  # a launcher or worker is not there all the time
                if time.monotonic() >= moment:
                    hit = run.kill(victim)
                time.sleep(0.01)
            count.killed[hit] += 1
            story.append(f"{hit or 'nobody'} killed")
        status = run.wait()
        # Killed before it had written anything down, there is nothing to go on with: the line is typed again.
        known = {file.parent for file in (mlruns / "sweeps").glob(f"*/{ledger.SWEEP_FILE}")} - before
        sweep = next(iter(known), None)
        deadline = time.monotonic() + GONE_S
        while (left := marked(f"{run.process.pid}.", is_prefix=True)) and time.monotonic() < deadline:
            time.sleep(0.05)
        count.orphans += len(left)
        now = _finished(sweep)
        lost = [file for file, was in kept.items() if now.get(file) != was]
        count.lost += len(lost)
        kept = now
        if status == 0 and sweep is not None:
            break
        story.append(f"resumed with {len(kept)} of {CELLS * ROUNDS} jobs")
        if sweep is not None:
            arguments = ["resume", sweep.name, "--mlruns", str(mlruns), "retries=1"]
    if len(kept) != CELLS * ROUNDS or sweep is None:
        count.incomplete += 1
        return f"INCOMPLETE: {', '.join(story)}\n{run.said}"
    runs = MlflowClient(tracking_uri=Store(mlruns).uri).search_runs(["1"], f"tags.sweep_id = '{sweep.name}'")
    seen = Counter(run.data.tags.get("cell_id", "sweep") for run in runs)
    count.duplicates += sum(seen.values()) - len(seen)
    missing = CELLS + 1 - len(seen)
    ended = Counter(run.info.status for run in runs)
    processes = [run.data.metrics.get("latency/processes") for run in runs if run.data.tags["kind"] == "cell"]
    if missing or set(ended) != {Status.FINISHED} or processes != [ROUNDS] * CELLS:
        count.incomplete += 1
        return f"INCOMPLETE in MLflow: {dict(seen)}, {dict(ended)}, processes {processes}"
    return ", ".join(story)


if __name__ == "__main__":
    sys.exit(main())
