"""Do captures change the latencies that are timed before them?

This benchmark alternates sweeps of one cell without captures and with all of them, and compares the medians of their
timed iterations, pair by pair. Claim: the 95 % interval of the ratio (Student's t on the logarithms of the pairs'
ratios) contains 1, or lies within 3 % of 1. Run it with `python -m benchmarks.captures [--quick]`; the last line is the
ratio, and the exit status is 1 if the claim fails.
"""

from __future__ import annotations

import argparse
import sys
from math import exp, log
from statistics import fmean, stdev

from scipy import stats  # type: ignore[import-untyped]

from benchmarks.harness import only_job, sweep_argv, timed, workplace

CELL = ("model=resnet50", "batch_size=4", "memory_format=channels_last", "ipex=on", "allocator=tcmalloc")
ALL = "capture=[onednn,itt,profiler,counters,toplev]"

# A smaller relative difference does not matter, however sure it is.
NEGLIGIBLE = 0.03


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """The geometric mean of paired ratios, and the two ends of its 95 % interval."""
    logs = [log(ratio) for ratio in ratios]
    half = float(stats.t.ppf(0.975, len(logs) - 1)) * stdev(logs) / len(logs) ** 0.5
    return exp(fmean(logs)), exp(fmean(logs) - half), exp(fmean(logs) + half)


def main() -> int:
    """Alternate the sweeps, compare them, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two alternations")
    parser.add_argument("--times", type=int, default=5, help="alternations (default: %(default)s)")
    options = parser.parse_args()

    p50_ms: dict[str, list[float]] = {"capture=[]": [], ALL: []}
    with workplace() as (mlruns, _):
        for number in range(2 if options.quick else options.times):
            # Each of the two goes first every other time.
            for captures in sorted(p50_ms, reverse=bool(number % 2)):
                done = timed(sweep_argv([*CELL, captures, "warmup=5", "iterations=50", "rounds=1"], mlruns))
                row = only_job(done.out)
                p50_ms[captures].append(float(row["latency/p50_ms"]))
            off, on = (values[-1] for values in p50_ms.values())
            print(f"{number + 1}: off {off:.2f} ms, on {on:.2f} ms, on / off {on / off:.3f}", flush=True)
    ratio, low, high = interval([on / off for off, on in zip(*p50_ms.values(), strict=True)])
    good = low <= 1 <= high or (low >= 1 - NEGLIGIBLE and high <= 1 + NEGLIGIBLE)
    print(f"{'holds' if good else 'FAILS'}: 95 % interval of on / off {low:.3f} to {high:.3f}")
    print(f"{ratio:.3f}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
