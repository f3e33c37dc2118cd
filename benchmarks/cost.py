"""How much of a job is the runner's, and how long does a sweep take beside a shell loop over plain ipexrun?

Two parts, each with claims of its own:

* The floor. A sweep of three rounds per model, with IPEX off and on. The floor of a job is what any fresh process has
  to do: import, build, transform, warm up and measure. Claim: in the rounds after the first, a job takes at most 1.12 x
  its floor (the median over jobs). The first round also computes the fp32 reference and looks at the kernels, once per
  model and per cell; it is printed, and nothing is claimed of it.
* The shell loop. The conv_relu matrix (two allocators, IPEX off and on) as a loop of plain ipexrun over
  benchmarks/bare.py and as a sweep of three rounds, in turn, with the same warm-up and iterations. Claims: the wall
  time per job, whatever the round, is at most 0.35 x the loop's, and the runner's own time per job (everything but the
  life of the worker) is at most 3 s.

Run it with `python -m benchmarks.cost [--times 5] [--quick]`; the last line is the ratio to the loop, and the exit
status is 1 if a claim fails.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import median

from benchmarks.harness import check_jobs, ipexrun, sweep_argv, sweep_folder, timed, workplace
from runner.results import outcome

FLOOR_LIMIT, RATIO_LIMIT, OWN_LIMIT_S = 1.12, 0.35, 3.0
FLOOR = ("import", "build", "transform", "warmup", "measure")
MODELS = {"tiny": [], "conv_relu": [], "resnet50": ["batch_size=8"]}
ALLOCATORS = {"ptmalloc": "default", "jemalloc": "jemalloc"}
MODES = ("off", "on")


def main() -> int:
    """Measure both parts, print the verdicts, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the floor of tiny, and one alternation of one round")
    parser.add_argument("--times", type=int, default=5, help="alternations with the shell loop (default: %(default)s)")
    options = parser.parse_args()

    with workplace() as (mlruns, private):
        # MLflow creates its database once per results folder and not per sweep: this is not compared.
        timed(sweep_argv(["model=tiny", "iterations=1", "rounds=1", "capture=[]"], mlruns))
        models = ["tiny"] if options.quick else list(MODELS)
        above = [f"{model} {ratio:.2f} x" for model in models if (ratio := over_floor(model, mlruns)) > FLOOR_LIMIT]
        ratio, own_s = beside_loop(1 if options.quick else options.times, 1 if options.quick else 3, mlruns, private)
    print(verdict(not above, f"a job of a later round takes at most {FLOOR_LIMIT} x its floor", ", ".join(above)))
    print(verdict(ratio <= RATIO_LIMIT, f"a sweep takes at most {RATIO_LIMIT} x the loop per job", f"{ratio:.2f} x"))
    print(verdict(own_s < OWN_LIMIT_S, f"the runner's own time per job is at most {OWN_LIMIT_S:g} s", f"{own_s:.2f} s"))
    print(f"{ratio:.3f}")
    return 0 if not above and ratio <= RATIO_LIMIT and own_s < OWN_LIMIT_S else 1


def verdict(holds: bool, claim: str, found: str) -> str:
    """A claim in one line."""
    return f"{'holds' if holds else 'FAILS'}: {claim}{f' ({found})' if found else ''}"


def over_floor(model: str, mlruns: Path) -> float:
    """Print where the jobs of a model spend their time, and return the median ratio of job to floor after round 1."""
    arguments = [f"model={model}", *MODELS[model], f"ipex={','.join(MODES)}", "rounds=3", "capture=[]"]
    done = timed(sweep_argv(arguments, mlruns))
    check_jobs(done.out, 3 * len(MODES))
    ratios = list[float]()
    for record in records(sweep_folder(done.out)):
        first, *later = [job.cost_s for job in record.outcomes]
        name = f"{model}, ipex {record.axes['ipex']}"
        print(f"{name}, round 1: {phases([first])}", flush=True)
        print(f"{name}, later:   {phases(later)}", flush=True)
        ratios += [job["job"] / floor_s(job) for job in later]
    return median(ratios)


def floor_s(job: Mapping[str, float]) -> float:
    """What any fresh process would have had to do, in seconds."""
    return sum(job[phase] for phase in FLOOR)


def phases(jobs: Sequence[Mapping[str, float]]) -> str:
    """The medians over some jobs of the same phases, in words."""
    each = {phase: median(job[phase] for job in jobs) for phase in jobs[0]}
    each["start and end"] = median(2 * job["job"] - sum(job.values()) for job in jobs)
    parts = ", ".join(f"{phase} {s:.2f}" for phase, s in each.items() if phase != "job" and s >= 0.005)
    ratio = median(job["job"] / floor_s(job) for job in jobs)
    return f"job {each['job']:.2f} s = {ratio:.2f} x its floor ({parts})"


def records(sweep: Path) -> list[outcome.CellRecord]:
    """The records of all cells of a sweep."""
    found = [outcome.read_cell(sweep, folder.name) for folder in sorted((sweep / "cells").iterdir())]
    return [record for record in found if record is not None]


def beside_loop(times: int, rounds: int, mlruns: Path, private: Path) -> tuple[float, float]:
    """Alternate the shell loop with a sweep; return the ratio of their times per job, and the runner's own time per
    job in seconds."""
    loop = {"batch_size": 20, "warmup": 100, "iterations": 100}
    words = [w for k, v in loop.items() for w in (f"--{k.replace('_', '-')}", str(v))]
    cells = list(product(ALLOCATORS, MODES))
    loop_s, sweep_s, own_s = list[float](), list[float](), list[float]()
    for number in range(times):
        mode_s = dict.fromkeys(MODES, 0.0)
        for allocator, mode in cells:
            program = ["conv_relu", "--ipex", mode, *words]
            mode_s[mode] += timed(*ipexrun(ALLOCATORS[allocator], program, private)).wall_s
        # The loop captures nothing, so the sweep captures nothing either.
        axes = ["model=conv_relu", f"allocator={','.join(ALLOCATORS)}", f"ipex={','.join(MODES)}"]
        settings = ["capture=[]", f"rounds={rounds}", *(f"{k}={v}" for k, v in loop.items())]
        done = timed(sweep_argv([*axes, *settings], mlruns))
        jobs = rounds * len(cells)
        check_jobs(done.out, jobs)
        outcomes = [one for record in records(sweep_folder(done.out)) for one in record.outcomes]
        alive_s = sum(one.cost_s["job"] - one.cost_s["launch"] for one in outcomes)
        loop_s.append(sum(mode_s.values()) / len(cells))
        sweep_s.append(done.wall_s / jobs)
        own_s.append((done.wall_s - alive_s) / jobs)
        print(line(number + 1, mode_s, loop_s[-1], sweep_s[-1], own_s[-1]), flush=True)
    return median(sweep_s) / median(loop_s), median(own_s)


def line(number: int, mode_s: dict[str, float], loop_s: float, sweep_s: float, own_s: float) -> str:
    """One alternation in words."""
    detail = ", ".join(f"ipex {mode} {seconds / len(ALLOCATORS):.1f} s" for mode, seconds in mode_s.items())
    return (
        f"{number}: loop {loop_s:.1f} s per job ({detail}), sweep {sweep_s:.1f} s per job, of which the runner's own "
        f"{own_s:.2f} s (whole sweep, start to end)"
    )


if __name__ == "__main__":
    sys.exit(main())
