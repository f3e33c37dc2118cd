"""Does measuring through the runner change what is measured?

For each model this benchmark runs a cell of the runner and benchmarks/bare.py under the same plain ipexrun line, five
times each, and compares the timed p50s. The two of a pair live at the same time and take turns: while one runs, every
process of the other one (including the runner) is stopped. A shared machine drifts by more than the 1 % in question
between two processes that run one after the other, while turns of a second see the same drift.

Claims, for each model: the median ratio of the pairs is within 1 % of 1, and the runner's own CPU time in the timed
windows is under 1 % of a core. Run it with `python -m benchmarks.fidelity`; the last line is the verdict, and the exit
status is 1 if a claim fails. `--rotation` compares two bare scripts instead, with several input sets and with one: what
taking inputs in turn does to a p50, which must be within the 3 % that processes of one script differ by.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import IO

from benchmarks.harness import ROOT, ipexrun, last_float, only_job, sweep_argv, workplace

TOLERANCE = 0.01
# Of two processes of one script, between which only their memory layouts differ.
ROTATION_TOLERANCE = 0.03
RUNNER_CPU_LIMIT_PCT = 1.0


def tree(root: int) -> list[int]:
    """The pids of a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(entry.name))
    pids, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        pids.append(pid)
        waiting += children.get(pid, [])
    return pids


def send(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a signal to every process of a side."""
    for pid in tree(process.pid):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


@dataclass(frozen=True)
class Workload:
    """What both sides of a pair run, with all that decides their time."""

    batch_size: int
    iterations: int
    """Timed iterations: enough for about ten seconds."""


WORKLOADS = {
    "resnet50": Workload(1, 400),
    "bert_base_uncased": Workload(1, 100),
    "conv_relu": Workload(20, 4000),
}
WARMUP = 5


@dataclass(frozen=True)
class Side:
    """One side of a pair."""

    argv: list[str]
    env: dict[str, str] | None = None

    def start(self, out: IO[str]) -> subprocess.Popen[str]:
        """Start it with its output in a file."""
        return subprocess.Popen(self.argv, cwd=ROOT, env=self.env, stdout=out, stderr=subprocess.STDOUT, text=True)


def wait_until_warm(process: subprocess.Popen[str], printed: Path) -> None:
    """Wait until a side warms up or measures: a bare script says so, and the runner's worker has then used the CPU for
    longer than imports take."""
    ticks = os.sysconf("SC_CLK_TCK")
    while process.poll() is None and "warm\n" not in printed.read_text():
        for pid in tree(process.pid):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            used_s = (int(fields[11]) + int(fields[12])) / ticks
            if b"worker/__main__.py" in command and b"python" in command.partition(b"\0")[0] and used_s > 6:
                return
        time.sleep(0.1)


def take_turns(first: subprocess.Popen[str], second: subprocess.Popen[str], turn_s: float) -> None:
    """Let the sides run in turns until one has ended, and then the other one to its end.

    Args:
        first: the side that is stopped at the beginning, as ``second`` is not.
    """
    running, stopped = second, first
    while running.poll() is None and stopped.poll() is None:
        time.sleep(turn_s)
        send(running, signal.SIGSTOP)
        send(stopped, signal.SIGCONT)
        running, stopped = stopped, running
    send(first, signal.SIGCONT)
    send(second, signal.SIGCONT)


def run_pair(first: Side, second: Side, folder: Path, turn_s: float) -> tuple[str, str]:
    """Run the two of a pair, and return what each printed."""
    files = [folder / "first.txt", folder / "second.txt"]
    running: list[subprocess.Popen[str]] = []
    with files[0].open("w") as first_out, files[1].open("w") as second_out:
        try:
            for side, out, file in zip((first, second), (first_out, second_out), files, strict=True):
                running.append(side.start(out))
                wait_until_warm(running[-1], file)
                if len(running) == 1:
                    send(running[0], signal.SIGSTOP)
            take_turns(running[0], running[1], turn_s)
            statuses = [process.wait() for process in running]
        finally:
            for process in running:
                if process.poll() is None:
                    send(process, signal.SIGKILL)
    if any(statuses):
        sys.exit(f"{files[0].read_text()}\n{files[1].read_text()}\nexit statuses {statuses}")
    return files[0].read_text(), files[1].read_text()


def bare_side(model: str, workload: Workload, inputs: int, allocator: str, private: Path) -> Side:
    """The bare script under ipexrun."""
    loop = {
        "batch-size": workload.batch_size, "inputs": inputs, "warmup": WARMUP, "iterations": workload.iterations,
    }  # fmt: skip
    words = [model, *(word for name, value in loop.items() for word in (f"--{name}", str(value)))]
    return Side(*ipexrun("default" if allocator == "ptmalloc" else allocator, words, private))


def runner_side(model: str, workload: Workload, inputs: int, allocator: str, mlruns: Path) -> Side:
    """The same as a cell of the runner."""
    cell = {
        "model": model, "allocator": allocator, "batch_size": workload.batch_size, "inputs": inputs,
        "warmup": WARMUP, "iterations": workload.iterations, "rounds": 1, "capture": "[]",
    }  # fmt: skip
    return Side(sweep_argv([f"{name}={value}" for name, value in cell.items()], mlruns))


def compare(model: str, workload: Workload, options: argparse.Namespace) -> bool:
    """Run the pairs of a model, print their ratios, and return whether the claims hold."""
    ratios, busy = [], [0.0]
    with workplace() as (mlruns, private):
        private.mkdir(parents=True)
        bare = bare_side(model, workload, 1 if options.rotation else options.inputs, options.allocator, private)
        if options.rotation:
            other, name = bare_side(model, workload, options.inputs, options.allocator, private), "rotating"
        else:
            other, name = runner_side(model, workload, options.inputs, options.allocator, mlruns), "runner"
        for number in range(options.times):
            bare_out, other_out = run_pair(bare, other, private, options.turn_s)
            bare_ms = last_float(bare_out) * 1e3
            if options.rotation:
                other_ms = last_float(other_out) * 1e3
            else:
                row = only_job(other_out)
                other_ms = float(row["latency/p50_ms"])
                # The window includes the turns of the other side, in which the runner was stopped: its real share is
                # twice this.
                busy.append(2 * float(row["selfaudit/runner_cpu_pct"]))
            ratios.append(other_ms / bare_ms)
            print(
                f"{model} {number + 1}: {name} {other_ms:.3f} ms, bare {bare_ms:.3f} ms, ratio {ratios[-1]:.4f}",
                flush=True,
            )
    ratio = median(ratios)
    print(f"{model}: median ratio {ratio:.4f}, from {min(ratios):.4f} to {max(ratios):.4f}, ", end="")
    print(f"runner's CPU in the timed windows at most {max(busy):.4f} % of a core", flush=True)
    return abs(ratio - 1) <= tolerance_of(options) and max(busy) < RUNNER_CPU_LIMIT_PCT


def tolerance_of(options: argparse.Namespace) -> float:
    """How far a median ratio may be from 1."""
    return ROTATION_TOLERANCE if options.rotation else TOLERANCE


def main() -> int:
    """Run the pairs of every model, print their ratios, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(WORKLOADS), help="models (default: %(default)s)")
    parser.add_argument("--allocator", choices=["ptmalloc", "tcmalloc", "jemalloc"], default="tcmalloc")
    parser.add_argument("--inputs", type=int, default=2, help="input sets in turn (default: %(default)s)")
    parser.add_argument("--times", type=int, default=5, help="number of pairs (default: %(default)s)")
    parser.add_argument("--turn-s", type=float, default=1.0, help="seconds per turn (default: %(default)s)")
    parser.add_argument("--rotation", action="store_true", help="compare bare scripts: several input sets with one")
    parser.add_argument("--quick", action="store_true", help="one short pair of conv_relu: too short for a verdict")
    options = parser.parse_args()
    if options.quick:
        options.times = 1
        compare("conv_relu", replace(WORKLOADS["conv_relu"], iterations=500), options)
        print("no verdict: the pair is too short")
        return 0
    # Every model, also after one that fails.
    failed = [model for model in options.models if not compare(model, WORKLOADS[model], options)]
    good = not failed
    what = "rotating inputs change a p50 by at most" if options.rotation else "p50s agree with the bare script's within"
    claim = f"{what} {tolerance_of(options):.0%}, runner under {RUNNER_CPU_LIMIT_PCT:g} % of a core"
    print(f"{'holds' if good else 'FAILS'}: {claim}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
