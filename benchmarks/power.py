"""What do so many rounds find? Share of planted slow-downs of 3 % that are called different, by noise and rounds.

Two cells, 4 000 times each: processes whose log medians are normal around their cell's, and around their round's where
a round does something to all cells alike. Beside the runner's test, Welch's on unpaired rounds, stands the paired t on
the differences within rounds (Student 1908, Biometrika 6(1)): what blocking by round would win or lose. Claim: 5 rounds
find 3 % at least 95 times in 100 where processes differ by 1 %, and call at most 5 % of equal cells different.
`python -m benchmarks.power`; the last line is the share found; exit status 1 when the claim fails.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from runner.stats.decision import Logs, welch
from runner.stats.distributions import student_p
from runner.stats.estimates import Floats

CELLS, LEVEL, SLOWER = 4_000, 0.05, 0.03
CLAIMED = 0.95


def shares(
    process: float, of_round: float, rounds: int, slower: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Share of pairs called different by Welch's test and by the paired one; standard deviations of logarithms."""
    together = rng.normal(0, of_round, (CELLS, rounds))
    one, other = (together + rng.normal(0, process, (CELLS, rounds)) + np.log1p(by) for by in (0.0, slower))
    apart = other - one
    t = apart.mean(axis=1) / (apart.std(axis=1, ddof=1) / np.sqrt(rounds))
    paired = student_p(t, np.full(CELLS, rounds - 1.0))
    return float(np.mean(welch(_logs(one), _logs(other)).p <= LEVEL)), float(np.mean(paired <= LEVEL))


def _logs(medians: Floats) -> Logs:
    return Logs(medians.mean(axis=1), medians.var(axis=1, ddof=1), np.full(len(medians), medians.shape[1]))


def main() -> int:
    """Draw, print, judge."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rng = np.random.default_rng(0)
    print("processes  rounds differ by  rounds | Welch: false  found | paired: false  found")
    for process in (0.005, 0.01, 0.015, 0.02):
        for of_round in (0.0, process / 2, process, 3 * process):
            for rounds in (3, 5, 7, 10):
                false, found = (shares(process, of_round, rounds, slower, rng) for slower in (0.0, SLOWER))
                print(
                    f"{process:9.1%}  {of_round:16.2%}  {rounds:6d} | {false[0]:12.1%} {found[0]:6.1%}"
                    f" | {false[1]:13.1%} {found[1]:6.1%}"
                )
    false, found = (shares(0.01, 0.0, 5, slower, rng) for slower in (0.0, SLOWER))
    print(f"{found[0]:.3f}")
    return int(found[0] < CLAIMED or false[0] > LEVEL)


if __name__ == "__main__":
    sys.exit(main())
