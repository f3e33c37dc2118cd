"""Does measuring through the runner change what is measured?

This benchmark runs a cell of the runner and benchmarks/bare.py under the same plain ipexrun line, five times each, and
compares the timed p50s. The two of a pair live at the same time and take turns: while one runs, every process of the
other one (including the runner) is stopped. A shared machine drifts by more than the 3 % in question between two
processes that run one after the other, while turns of a second see the same drift.

Claims: the median ratio of the pairs is within 3 % of 1, and the runner's own CPU time in the timed windows is under
1 % of a core. Run it with `python -m benchmarks.fidelity`; the last line is the verdict, and the exit status is 1 if a
claim fails.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import IO

from benchmarks.harness import ROOT, ipexrun, last_float, rows_of, sweep_argv, workplace

TOLERANCE = 0.03
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


def wait_for_worker(process: subprocess.Popen[str]) -> None:
    """Wait until the runner's worker warms up or measures: it has then used the CPU for longer than imports take."""
    ticks = os.sysconf("SC_CLK_TCK")
    while process.poll() is None:
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


def take_turns(ours: subprocess.Popen[str], bare: subprocess.Popen[str], turn_s: float) -> None:
    """Let the sides run in turns until one has ended, and then the other one to its end."""
    send(ours, signal.SIGSTOP)
    running, stopped = bare, ours
    send(running, signal.SIGCONT)
    while running.poll() is None and stopped.poll() is None:
        time.sleep(turn_s)
        send(running, signal.SIGSTOP)
        send(stopped, signal.SIGCONT)
        running, stopped = stopped, running
    send(ours, signal.SIGCONT)
    send(bare, signal.SIGCONT)


def start(argv: Sequence[str], out: IO[str], env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a side with its output in a file."""
    return subprocess.Popen(list(argv), cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT, text=True)


def run_pair(
    ours: Sequence[str], bare: tuple[list[str], dict[str, str]], folder: Path, turn_s: float
) -> tuple[str, str]:
    """Run the two of a pair, and return what each printed."""
    names = [folder / "ours.txt", folder / "bare.txt"]
    with names[0].open("w") as ours_out, names[1].open("w") as bare_out:
        sides = [start(bare[0], bare_out, bare[1])]
        try:
            while "warm\n" not in names[1].read_text() and sides[0].poll() is None:
                time.sleep(0.05)
            send(sides[0], signal.SIGSTOP)
            sides.append(start(ours, ours_out))
            wait_for_worker(sides[1])
            take_turns(sides[1], sides[0], turn_s)
            statuses = [side.wait() for side in sides]
        finally:
            for side in sides:
                if side.poll() is None:
                    send(side, signal.SIGKILL)
    if any(statuses):
        sys.exit(f"{names[0].read_text()}\n{names[1].read_text()}\nexit statuses {statuses}")
    return names[0].read_text(), names[1].read_text()


def main() -> int:
    """Run the pairs, print their ratios, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["resnet50", "conv_relu"], default="resnet50")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--allocator", choices=["ptmalloc", "tcmalloc", "jemalloc"], default="tcmalloc")
    parser.add_argument("--inputs", type=int, default=2, help="input sets in turn (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--times", type=int, default=5, help="number of pairs (default: %(default)s)")
    parser.add_argument("--turn-s", type=float, default=1.0, help="seconds per turn (default: %(default)s)")
    options = parser.parse_args()
    loop = {
        "batch_size": options.batch_size, "inputs": options.inputs, "warmup": 5, "iterations": options.iterations,
    }  # fmt: skip
    overrides = [f"model={options.model}", f"allocator={options.allocator}", *(f"{k}={v}" for k, v in loop.items())]
    words = [options.model, *(w for k, v in loop.items() for w in (f"--{k.replace('_', '-')}", str(v)))]
    name = "default" if options.allocator == "ptmalloc" else options.allocator

    ratios, busy = [], []
    with workplace() as (mlruns, private):
        private.mkdir(parents=True)
        for number in range(options.times):
            ours_out, bare_out = run_pair(
                sweep_argv(overrides, mlruns), ipexrun(name, words, private), private, options.turn_s
            )
            [row] = rows_of(ours_out)
            ours, bare = float(row["latency/p50_ms"]), last_float(bare_out) * 1e3
            ratios.append(ours / bare)
            # The window includes the turns of the other side, in which the runner was stopped: its real share is twice
            # this.
            busy.append(2 * float(row["selfaudit/runner_cpu_pct"]))
            print(f"pair {number + 1}: runner {ours:.3f} ms, bare {bare:.3f} ms, ratio {ratios[-1]:.4f}", flush=True)
    ratio = median(ratios)
    print(f"median ratio {ratio:.4f}, from {min(ratios):.4f} to {max(ratios):.4f}")
    print(f"runner's CPU in the timed windows: at most {max(busy):.4f} % of a core")
    good = abs(ratio - 1) <= TOLERANCE and max(busy) < RUNNER_CPU_LIMIT_PCT
    claim = f"p50 within {TOLERANCE:.0%} of the bare script, runner under {RUNNER_CPU_LIMIT_PCT:g} % of a core"
    print(f"{'holds' if good else 'FAILS'}: {claim}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
