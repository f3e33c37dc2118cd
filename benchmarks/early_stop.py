"""Does stopping early keep the error rate, and what does rounds=auto find? Whole sweeps are simulated with its rules.

Processes differ by 1, 2 or 3 %, and in a second half of the lines one in ten is 8 % slower besides; what a round does
to all cells is as large as the noise. "false" is the share of sweeps of equal cells in which any is called different at
any look; "found" is that of sweeps in which the one cell that is 3 % slower is called so in the end; "clear" is how
many rounds a cell gets on average that is 25 % slower. Claims: false alarms at most 5 in 100 in every line, within
three standard errors; where processes differ by 1 % and none is slow, 3 % found in at least 95 of 100 sweeps, and at
most half a round more than three for a cell that is 25 % slower. Nothing is claimed of what is found in more noise.

Run it with `python -m benchmarks.early_stop [--sweeps 400] [--quick]`; the last line is the share found where processes
differ by 1 % and one in ten is slower, and the exit status is 1 if a claim fails.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from runner import stats
from runner.config.sweep_options import AUTO
from runner.stats.blocks import fit_logs
from runner.stats.estimates import Floats
from runner.sweep.rounds import LOOKS, level_of, undecided_places

SMALLEST_PCT = 2.0  # the default of smallest_pct
LEVEL = 0.05


def processes(noise: float, slow: float, count: int, rng: np.random.Generator) -> Floats:
    """The log medians of as many processes of one cell; this share of them is 8 % slower."""
    return np.asarray(rng.normal(0, noise, count) + np.log(1.08) * (rng.random(count) < slow))


def swept(speeds: Iterable[float], noise: float, slow: float, rng: np.random.Generator) -> tuple[list[str], list[int]]:
    """The answers on all cells but the first, the baseline, after a sweep with rounds=auto; and the rounds of each."""
    truth = np.log(np.array(list(speeds)))
    cells = len(truth)
    logs = np.zeros((cells, LOOKS[-1]))
    has: NDArray[np.bool_] = np.zeros(logs.shape, dtype=bool)
    rounds = rng.normal(0, noise, LOOKS[-1])
    going: set[int] = set(range(cells))
    before = 0
    for look in LOOKS:
        for cell in going:
            new = slice(before, look)
            logs[cell, new] = truth[cell] + rounds[new] + processes(noise, slow, look - before, rng)
            has[cell, new] = True
        before = look
        table = fit_logs(logs[:, :look], has[:, :look])
        p50 = [np.median(logs[cell, : int(has[cell].sum())]) for cell in range(cells)]
        going = undecided_places(table, 0, int(np.argmin(p50)), SMALLEST_PCT)
        if not going:
            break
    verdicts = stats.compare(table, 0, range(1, cells), level_of(AUTO))
    return [verdict.answer.value for verdict in verdicts], has.sum(axis=1).tolist()


def main(words: list[str] | None = None) -> int:
    """Simulate, print the shares, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=400, help="the simulated sweeps of each figure (400)")
    parser.add_argument("--quick", action="store_true", help="four cells and processes that differ by 1 % only")
    options = parser.parse_args(words)
    rng, sweeps, failures, found = np.random.default_rng(0), options.sweeps, 0, 0.0
    alarms = LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / sweeps)
    print("cells  noise  slow ones    false  rounds    found  rounds   clear")
    for cells in (4,) if options.quick else (2, 4, 12):
        for noise in (0.01,) if options.quick else (0.01, 0.02, 0.03):
            for slow in (0.0, 0.1):
                equal = [swept([1.0] * cells, noise, slow, rng) for _ in range(sweeps)]
                false = float(np.mean([set(answers) != {"undecided"} for answers, _ in equal]))
                planted = [swept([1.0, 1.03, *[1.0] * (cells - 2)], noise, slow, rng) for _ in range(sweeps)]
                found = float(np.mean([answers[0] == "slower" for answers, _ in planted]))
                clear = np.mean([swept([1.0, 1.25, *[1.0] * (cells - 2)], noise, slow, rng)[1][1] for _ in range(50)])
                cost = [float(np.mean([np.mean(rounds) for _, rounds in runs])) for runs in (equal, planted)]
                is_quiet = noise == 0.01 and not slow
                broken = false > alarms or (is_quiet and (found < 0.95 or clear > LOOKS[0] + 0.5))
                failures += bool(broken)
                print(
                    f"{cells:5d} {noise:6.0%} {slow:10.0%} {false:8.1%} {cost[0]:7.1f} {found:8.1%} {cost[1]:7.1f}"
                    f" {clear:7.1f}{'   a claim fails' if broken else ''}",
                    flush=True,
                )
    print(f"{found:.3f}")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
