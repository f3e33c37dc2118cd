"""How many rounds are needed to detect a slow-down of 3 %? The share of detected ones, by noise and number of rounds.

Two cells are simulated 4 000 times: the log medians of their processes are normal around their cell's, and around their
round's where a round does something to all cells. The runner's test, Welch's on unpaired rounds, is compared with the
paired t on the differences within rounds (Student 1908, Biometrika 6(1)), which shows what blocking by round would gain
or lose. Claim: 5 rounds detect 3 % at least 95 times in 100 if processes differ by 1 %, and call at most 5 % of equal
cells different. Run it with `python -m benchmarks.power`; the last line is the share detected, and the exit status is 1
if the claim fails.
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
    """The shares of pairs that Welch's test and the paired one call different.

    Args:
        process: standard deviation of the logarithms between processes.
        of_round: standard deviation of the logarithms between rounds.
        rounds: number of rounds.
        slower: how much slower the second cell is, relative.
        rng: source of the random numbers.
    """
    round_logs = rng.normal(0, of_round, (CELLS, rounds))
    first, second = (round_logs + rng.normal(0, process, (CELLS, rounds)) + np.log1p(by) for by in (0.0, slower))
    differences = second - first
    t = differences.mean(axis=1) / (differences.std(axis=1, ddof=1) / np.sqrt(rounds))
    paired = student_p(t, np.full(CELLS, rounds - 1.0))
    return float(np.mean(welch(_logs(first), _logs(second)).p <= LEVEL)), float(np.mean(paired <= LEVEL))


def _logs(medians: Floats) -> Logs:
    return Logs(medians.mean(axis=1), medians.var(axis=1, ddof=1), np.full(len(medians), medians.shape[1]))


def main() -> int:
    """Simulate, print the shares, and return the exit status."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rng = np.random.default_rng(0)
    print("processes  rounds differ by  rounds | Welch: false  detected | paired: false  detected")
    for process in (0.005, 0.01, 0.015, 0.02):
        for of_round in (0.0, process / 2, process, 3 * process):
            for rounds in (3, 5, 7, 10):
                false, detected = (shares(process, of_round, rounds, slower, rng) for slower in (0.0, SLOWER))
                print(
                    f"{process:9.1%}  {of_round:16.2%}  {rounds:6d} | {false[0]:12.1%} {detected[0]:9.1%}"
                    f" | {false[1]:13.1%} {detected[1]:9.1%}"
                )
    false, detected = (shares(0.01, 0.0, 5, slower, rng) for slower in (0.0, SLOWER))
    print(f"{detected[0]:.3f}")
    return int(detected[0] < CLAIMED or false[0] > LEVEL)


if __name__ == "__main__":
    sys.exit(main())
