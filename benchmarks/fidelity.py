"""Does measuring through the runner change what is measured?

Alternates a cell of the runner with benchmarks/bare.py under the same plain ipexrun line and compares the timed
p50s. Claims: the ratio of the two is within 3 %, and the runner's own CPU inside the timed windows is under 1 % of a
core. Run it on a quiet machine: `python -m benchmarks.fidelity`. The last line is the verdict; exit status 1 when a
claim fails.
"""

from __future__ import annotations

import argparse
import sys
from statistics import median

from benchmarks.harness import ipexrun, last_float, sweep, workplace

TOLERANCE = 0.03
RUNNER_CPU_LIMIT_PCT = 1.0


def main() -> int:
    """Alternate, compare, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["resnet50", "conv_relu"], default="resnet50")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--allocator", choices=["ptmalloc", "tcmalloc", "jemalloc"], default="tcmalloc")
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--times", type=int, default=5, help="how often each of the two is run")
    options = parser.parse_args()
    loop = {"batch_size": options.batch_size, "warmup": 5, "iterations": options.iterations}
    asked = [f"model={options.model}", f"allocator={options.allocator}", *(f"{k}={v}" for k, v in loop.items())]
    words = [options.model, *(w for k, v in loop.items() for w in (f"--{k.replace('_', '-')}", str(v)))]
    name = "default" if options.allocator == "ptmalloc" else options.allocator

    pairs, busy = [], []
    with workplace() as (mlruns, shim):
        for number in range(options.times):
            ours = bare = 0.0
            # Which goes first alternates, so that a drift of the machine favours neither.
            for is_ours in (True, False) if number % 2 == 0 else (False, True):
                if is_ours:
                    [row] = sweep(asked, mlruns)[1]
                    ours = float(row["latency/p50_ms"])
                    busy.append(float(row["selfaudit/runner_cpu_pct"]))
                else:
                    bare = last_float(ipexrun(name, words, shim).out) * 1e3
            pairs.append((ours, bare))
            print(f"pair {number + 1}: runner {ours:.2f} ms, bare {bare:.2f} ms, ratio {ours / bare:.3f}", flush=True)
    ratio = median(ours for ours, _ in pairs) / median(bare for _, bare in pairs)
    print(f"ratio of the medians {ratio:.4f}; median ratio of pairs {median(a / b for a, b in pairs):.4f}")
    print(f"runner's CPU in the timed windows: at most {max(busy):.4f} % of a core")
    good = abs(ratio - 1) <= TOLERANCE and max(busy) < RUNNER_CPU_LIMIT_PCT
    print(
        f"{'holds' if good else 'FAILS'}: p50 within {TOLERANCE:.0%} of the bare script, runner under {RUNNER_CPU_LIMIT_PCT:g} %"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
