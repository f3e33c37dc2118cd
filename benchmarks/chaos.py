"""Is anything lost or done twice if sweeps are killed at random moments and resumed until they are complete?

    python -m benchmarks.chaos              50 sweeps of 6 jobs: about half an hour
    python -m benchmarks.chaos --sweeps 3   a short run

SIGKILL is sent to the runner, to the launcher of the running job or to its worker, at random; a resumed sweep may be
killed again. The exit status is 0 if all counts in the last line are 0.
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

from runner.machine.processes import processes_with_marker
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
# A worker notices within this time that its runner is gone, and ends.
GONE_S = 5.0
# A sweep is resumed this often before it counts as incomplete.
PATIENCE = 6


@dataclass
class Count:
    """The counts of what must not happen, and of what was killed."""

    lost: int = 0
    """The number of jobs that had finished and were measured again."""
    duplicates: int = 0
    """The number of MLflow runs of a cell or sweep beyond the first one."""
    running: int = 0
    """The number of MLflow runs that stayed RUNNING."""
    orphans: int = 0
    """The number of processes that outlived their runner."""
    incomplete: int = 0
    """The number of sweeps that did not end with every job FINISHED and exit status 0."""
    killed: Counter[str] = field(default_factory=Counter)
    """Victim -> how often it was killed; "" counts the times when there was none to kill."""

    @property
    def failures(self) -> int:
        """The number of everything that must not happen."""
        return self.lost + self.duplicates + self.running + self.orphans + self.incomplete


def main() -> int:
    """Kill and resume the sweeps; the exit status is 0 if nothing happened that must not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=50, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments and victims (default: %(default)s)")
    options = parser.parse_args()
    rng, count = random.Random(options.seed), Count()
    with TemporaryDirectory(prefix="runner-chaos-") as place:
        mlruns = Path(place)
        start = time.monotonic()
        undisturbed = _Run([*SWEEP, f"mlruns={mlruns}"], mlruns)
        assert undisturbed.wait() == 0, undisturbed.output
        takes_s = time.monotonic() - start
        print(f"undisturbed: {takes_s:.1f} s", flush=True)
        for number in range(1, options.sweeps + 1):
            print(f"[{number}/{options.sweeps}] {_kill_and_resume(mlruns, takes_s, rng, count)}", flush=True)
        client = MlflowClient(tracking_uri=Store(mlruns).uri)
        count.running = len(client.search_runs(["1"], "attributes.status = 'RUNNING'", max_results=1000))
        kills = ", ".join(f"{name} {count.killed[name]}" for name in VICTIMS)
        print(
            f"{options.sweeps} sweeps of {CELLS * ROUNDS} jobs, killed {kills}: lost {count.lost}, duplicates "
            f"{count.duplicates}, left RUNNING {count.running}, orphans {count.orphans}, incomplete {count.incomplete}"
        )
    return int(count.failures > 0)


class _Run:
    """A runner in its own process."""

    def __init__(self, arguments: list[str], mlruns: Path) -> None:
        self._log = mlruns / "chaos.log"  # a pipe that nobody reads would stop it
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "runner", *arguments], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def output(self) -> str:
        """Everything that the runner has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait(self, timeout_s: float = 600) -> int:
        return self.process.wait(timeout_s)

    def kill(self, victim: str) -> str:
        """Kill one of VICTIMS and return its name; "" if there is no such process now."""
        jobs = processes_with_marker(f"{self.process.pid}.", is_prefix=True)
        parents = {pid: _parent(pid) for pid in jobs}
        candidates = {
            "runner": [self.process.pid],
            "launcher": [pid for pid in jobs if parents[pid] == self.process.pid],
            "worker": [pid for pid in jobs if pid not in parents.values() and _is_worker(pid)],
        }[victim]
        for pid in candidates[:1]:
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
    """Result file of every job that FINISHED -> its inode and content, which are both new if it is measured again."""
    files = sweep.glob(f"cells/*/round-*/{OUTCOME_FILE}") if sweep else ()
    results = [file.with_name(RESULT_FILE) for file in files if read_outcome(file).status == Status.FINISHED]
    return {file: (file.stat().st_ino, file.read_bytes()) for file in results}


def _kill_and_resume(mlruns: Path, takes_s: float, rng: random.Random, count: Count) -> str:
    """Run one sweep until it is complete, and return what happened in words."""
    before = set((mlruns / "sweeps").iterdir())
    arguments = [*SWEEP, f"mlruns={mlruns}"]
    results: dict[Path, tuple[int, bytes]] = {}
    story = []
    sweep: Path | None = None
    for attempt in range(PATIENCE):
        run = _Run(arguments, mlruns)
        if attempt == 0 or rng.random() < 1 / 3:
            victim = rng.choice(VICTIMS)
            moment = time.monotonic() + rng.uniform(0, takes_s)
            killed = ""
            while not killed and run.process.poll() is None:  # launchers and workers do not run all the time
                if time.monotonic() >= moment:
                    killed = run.kill(victim)
                time.sleep(0.01)
            count.killed[killed] += 1
            story.append(f"{killed or 'nobody'} killed")
        status = run.wait()
        # A sweep that was killed before it had written a file can't be resumed: it is started again.
        folders = {file.parent for file in (mlruns / "sweeps").glob(f"*/{ledger.SWEEP_FILE}")} - before
        sweep = next(iter(folders), None)
        deadline = time.monotonic() + GONE_S
        while (orphans := processes_with_marker(f"{run.process.pid}.", is_prefix=True)) and time.monotonic() < deadline:
            time.sleep(0.05)
        count.orphans += len(orphans)
        previous, results = results, _finished(sweep)
        count.lost += sum(results.get(file) != result for file, result in previous.items())
        if status == 0 and sweep is not None:
            break
        story.append(f"resumed with {len(results)} of {CELLS * ROUNDS} jobs")
        if sweep is not None:
            arguments = ["resume", sweep.name, "--mlruns", str(mlruns), "retries=1"]
    if len(results) != CELLS * ROUNDS or sweep is None:
        count.incomplete += 1
        return f"INCOMPLETE: {', '.join(story)}\n{run.output}"
    runs = MlflowClient(tracking_uri=Store(mlruns).uri).search_runs(["1"], f"tags.sweep_id = '{sweep.name}'")
    runs_of = Counter(run.data.tags.get("cell_id", "sweep") for run in runs)
    count.duplicates += sum(runs_of.values()) - len(runs_of)
    missing = CELLS + 1 - len(runs_of)
    statuses = Counter(run.info.status for run in runs)
    processes = [run.data.metrics.get("latency/processes") for run in runs if run.data.tags["kind"] == "cell"]
    if missing or set(statuses) != {Status.FINISHED} or processes != [ROUNDS] * CELLS:
        count.incomplete += 1
        return f"INCOMPLETE in MLflow: {dict(runs_of)}, {dict(statuses)}, processes {processes}"
    return ", ".join(story)


if __name__ == "__main__":
    sys.exit(main())
