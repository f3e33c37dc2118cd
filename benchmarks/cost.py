"""How long does a sweep take, compared with a shell loop over plain ipexrun?

This benchmark alternates the conv_relu matrix (two allocators, IPEX off and on) as a loop of plain ipexrun over
benchmarks/bare.py and as one sweep, with the same warm-up and iterations. Claims: the wall time per job is at most
0.5 x the loop's, and the runner's own time per job (everything but the worker's life) is at most 3 s. Run it with
`python -m benchmarks.cost [--quick]`; the last line is the ratio, and the exit status is 1 if a claim fails.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from statistics import median

from benchmarks.harness import check_jobs, ipexrun, rows_of, sweep_argv, timed, workplace

RATIO_LIMIT = 0.5
OWN_LIMIT_S = 3.0
ALLOCATORS = {"ptmalloc": "default", "jemalloc": "jemalloc"}


def main() -> int:
    """Alternate loop and sweep, compare them, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one alternation")
    parser.add_argument("--times", type=int, default=3, help="alternations (default: %(default)s)")
    options = parser.parse_args()
    times, modes = 1 if options.quick else options.times, ["off", "on"]
    loop = {"batch_size": 20, "warmup": 100, "iterations": 100}
    words = [w for k, v in loop.items() for w in (f"--{k.replace('_', '-')}", str(v))]
    cells = list(product(ALLOCATORS, modes))

    loop_s, sweep_s, own_s = [], [], []
    with workplace() as (mlruns, private):
        # MLflow creates its database once per results folder and not per sweep: this is not compared.
        timed(sweep_argv(["model=tiny", "iterations=1", "rounds=1", "capture=[]"], mlruns))
        for number in range(times):
            mode_s = dict.fromkeys(modes, 0.0)
            for allocator, mode in cells:
                program = ["conv_relu", "--ipex", mode, *words]
                mode_s[mode] += timed(*ipexrun(ALLOCATORS[allocator], program, private)).wall_s
            # The loop captures nothing, so the sweep captures nothing either.
            axes = ["model=conv_relu", f"allocator={','.join(ALLOCATORS)}", f"ipex={','.join(modes)}"]
            settings = ["capture=[]", "rounds=1", *(f"{k}={v}" for k, v in loop.items())]
            done = timed(sweep_argv([*axes, *settings], mlruns))
            check_jobs(done.out, len(cells))
            rows = rows_of(done.out)
            alive_s = sum(float(row["cost/job_s"]) - float(row["cost/launch_s"]) for row in rows)
            loop_s.append(sum(mode_s.values()) / len(cells))
            sweep_s.append(done.wall_s / len(cells))
            own_s.append((done.wall_s - alive_s) / len(cells))
            detail = ", ".join(f"ipex {mode} {seconds / len(ALLOCATORS):.1f} s" for mode, seconds in mode_s.items())
            print(
                f"{number + 1}: loop {loop_s[-1]:.1f} s per job ({detail}), sweep {sweep_s[-1]:.1f} s per job, "
                f"of which the runner's own {own_s[-1]:.2f} s (whole sweep, start to end)",
                flush=True,
            )
    own, ratio = median(own_s), median(sweep_s) / median(loop_s)
    good = ratio <= RATIO_LIMIT and own < OWN_LIMIT_S
    claim = f"at most {RATIO_LIMIT} x the loop and {OWN_LIMIT_S:g} s of its own per job ({own:.2f} s)"
    print(f"{'holds' if good else 'FAILS'}: {claim}")
    print(f"{ratio:.3f}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
