"""Does a race find the best cell of a big matrix, and in which share of the time that the whole matrix takes?

Matrices of 100 and 500 cells are simulated: "even" speeds over a factor of four, "axes" (seven axes whose effects
multiply, with small interactions), and "one ahead" (even, but for one cell that is 4 % faster than all others).
Processes differ by 1, 2 and 3 %, one in ten is 8 % slower besides, and rounds shift all cells by as much as the noise.
The race runs with the rules of `runner.sweep.racing` until it is decided or its budget is used up: a quarter of the
jobs of five rounds of every cell, the first round included. Claim: in at least 95 of 100 seeds the winner is the best
cell, or one that is not worse by 2 %, where processes differ by 1 and 2 %. The last line is the smallest share of those
lines, and the exit status is 1 if the claim fails. Run it with `python -m benchmarks.racing [--seeds 100] [--quick]`.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from numpy.typing import NDArray

from runner.stats.blocks import fit_logs
from runner.stats.estimates import Floats
from runner.sweep.racing import step

FULL_ROUNDS, SHARE, MOST = 5, 0.25, 30
GOOD, CLAIMED, SMALLEST_PCT = 0.02, 0.95, 2.0


def speeds(kind: str, cells: int, rng: np.random.Generator) -> Floats:
    """The log latencies of a matrix, 0 for its best cell."""
    if kind == "axes":
        logs, number = rng.normal(0, 0.03, cells), np.arange(cells)
        for values in (2, 3, 2, 5, 2, 3, 2):
            logs += rng.normal(0, 0.15, values)[number % values]
            number //= values
    else:
        logs = rng.uniform(0, np.log(4), cells)
    logs -= logs.min()
    if kind == "one ahead":
        logs[logs > 0] += 0.04
    return np.asarray(logs)


def raced(truth: Floats, noise: float, rng: np.random.Generator) -> tuple[float, float, int]:
    """How much slower the winner is than the best (0.02: 2 %), the share of the time used, and the cells dropped."""
    cells = len(truth)
    logs = np.zeros((cells, MOST))
    has: NDArray[np.bool_] = np.zeros(logs.shape, dtype=bool)
    jobs, budget = 0, int(SHARE * FULL_ROUNDS * cells)
    racing, going, used = list(range(cells)), list(range(cells)), 0
    while used < MOST and going and jobs < budget:
        # The first cell is the baseline, which goes along.
        visited = np.array([*going, *([] if 0 in going else [0])][: budget - jobs])
        slow = np.log(1.08) * (rng.random(len(visited)) < 0.1)
        logs[visited, used] = truth[visited] + rng.normal(0, noise) + rng.normal(0, noise, len(visited)) + slow
        has[visited, used] = True
        jobs, used = jobs + len(visited), used + 1
        table = fit_logs(logs[:, :used], has[:, :used])
        after = step(table, racing, SMALLEST_PCT)
        racing, going = [place for place in racing if place not in after.dropped], list(after.going)
    several = [place for place in racing if table.count[place] > 1] or racing
    winner = min(several, key=lambda place: table.mean[place])
    return float(np.expm1(truth[winner])), jobs / (FULL_ROUNDS * cells), cells - len(racing)


def main(words: list[str] | None = None) -> int:
    """Simulate, print the shares, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100, help="the matrices of each line (100)")
    parser.add_argument("--quick", action="store_true", help="100 cells whose processes differ by 1 % only")
    options = parser.parse_args(words)
    worst = 1.0
    print("cells  speeds     noise   good   best   time  dropped")
    for cells in (100,) if options.quick else (100, 500):
        for kind in ("even", "axes", "one ahead"):
            for noise in (0.01,) if options.quick else (0.01, 0.02, 0.03):
                runs = []
                for seed in range(options.seeds):
                    rng = np.random.default_rng((seed, cells))
                    runs.append(raced(speeds(kind, cells, rng), noise, rng))
                slower, time, dropped = (np.array(column) for column in zip(*runs, strict=True))
                good = float((slower <= GOOD).mean())
                worst = min(worst, good) if noise < 0.03 else worst
                print(
                    f"{cells:5d}  {kind:10s} {noise:4.0%} {good:7.0%} {(slower == 0).mean():6.0%}"
                    f" {time.mean():6.1%} {dropped.mean():8.0f}",
                    flush=True,
                )
    print(f"{worst:.2f}")
    return int(worst < CLAIMED)


if __name__ == "__main__":
    sys.exit(main())
