"""How long do the statistics of a comparison take for many cells?

This benchmark compares 10 to 10 000 cells of 5 rounds x 200 samples with one baseline, as `runner.stats` does for a
sweep, and prints the seconds that each takes. Claim: 10 000 cells take at most 5 s. Run it with
`python -m benchmarks.decision [--quick]`; the last line is the seconds for the largest number of cells, and the exit
status is 1 if the claim fails.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter

import numpy as np

from runner.protocol.stopping import enough
from runner.stats import Answer, by_round, compare, describe, fit, interval

LIMIT_S = 5.0
ROUNDS, SAMPLES = 5, 200


def cells(count: int, rng: np.random.Generator) -> list[list[list[float]]]:
    """Equal cells as lists of floats, like those of a store; processes differ by 1 %, iterations by 5 %."""
    logs = rng.normal(0, 0.01, (count, ROUNDS, 1)) + rng.normal(0, 0.05, (count, ROUNDS, SAMPLES))
    return [[list(map(float, process)) for process in cell] for cell in 0.01 * np.exp(logs)]


def main() -> int:
    """Time the statistics, print the figures, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="no more than 1 000 cells")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    baseline, *_ = cells(1, rng)
    compare(fit([by_round(baseline)] * 3), 0, [1, 2])
    took_s = 0.0
    for count in (10, 100, 1_000) if options.quick else (10, 100, 1_000, 10_000):
        others = cells(count, rng)
        started = perf_counter()
        verdicts = compare(fit([by_round(cell) for cell in (baseline, *others)]), 0, range(1, count + 1))
        took_s = perf_counter() - started
        different = sum(verdict.answer is not Answer.UNDECIDED for verdict in verdicts)
        print(f"compare {count:6d} cells: {took_s:8.4f} s, {different} of these equal cells called different")
    processes = (0.01 * np.exp(rng.normal(0, 0.05, (10, 1000)))).tolist()
    calls: dict[str, Callable[[], object]] = {
        "interval, 5 processes x 1 000 (Student)": partial(interval, processes[:5]),
        "interval, 10 processes x 1 000 (bootstrap)": partial(interval, processes),
        "describe, 1 000 samples": partial(describe, processes[0]),
        "enough, 1 000 samples": partial(enough, processes[0], 1),
    }
    for name, call in calls.items():
        call()
        started = perf_counter()
        call()
        print(f"{name}: {1e3 * (perf_counter() - started):.3f} ms")
    print(f"{took_s:.3f}")
    return int(took_s > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
