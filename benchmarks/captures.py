"""Do captures touch the timing samples they come after?

Alternates sweeps of one cell with no captures and with all of them, and compares the medians of their timed
iterations, pair by pair. Claim: the 95 % interval of the ratio (Student's t on the logarithms of the pairs' ratios)
has 1 in it, or lies within 3 % of 1. `python -m benchmarks.captures [--quick]`; the last line is the ratio; exit status
1 when the claim fails.
"""

from __future__ import annotations

import argparse
import sys
from math import exp, log
from statistics import fmean, stdev

from scipy import stats  # type: ignore[import-untyped]

from benchmarks.harness import rows_of, sweep_argv, timed, workplace

CELL = ("model=resnet50", "batch_size=4", "memory_format=channels_last", "ipex=on", "allocator=tcmalloc")
ALL = "capture=[onednn,itt,profiler,counters,toplev]"


# Less than this is nothing, however sure it is.
NEGLIGIBLE = 0.03


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """(geometric mean, low, high) of paired ratios, 95 %."""
    logs = [log(ratio) for ratio in ratios]
    half = float(stats.t.ppf(0.975, len(logs) - 1)) * stdev(logs) / len(logs) ** 0.5
    return exp(fmean(logs)), exp(fmean(logs) - half), exp(fmean(logs) + half)


def main() -> int:
    """Alternate, compare, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two alternations")
    parser.add_argument("--times", type=int, default=5, help="alternations (default: %(default)s)")
    options = parser.parse_args()

    p50_ms: dict[str, list[float]] = {"capture=[]": [], ALL: []}
    with workplace() as (mlruns, _):
        for number in range(2 if options.quick else options.times):
            # Each goes first every other time.
            for captures in sorted(p50_ms, reverse=bool(number % 2)):
                done = timed(sweep_argv([*CELL, captures, "warmup=5", "iterations=50"], mlruns))
                [row] = rows_of(done.out)
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
