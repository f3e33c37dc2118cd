"""The options that have one value per sweep. Standard library only: completing a word on the Tab key reads them too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner.protocol.declaration import of_sweep
from runner.protocol.errors import RunnerError

# rounds=auto: as many as it takes to tell the cells apart.
AUTO = "auto"
# rounds=race: rounds only for the cells that can still be the best.
RACE = "race"


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """What holds for a whole sweep, each with its sentence of help."""

    rounds: int | str = of_sweep(
        "Processes per cell; auto: 3 for each cell, then more (5, 8, 12, 20) for those that can't be told from the "
        "baseline or the fastest; race: 1 for each cell, then more for those that can still be the best. Every round "
        "visits all its cells in a new random order.",
        AUTO,
    )
    smallest_pct: float = of_sweep(
        "For rounds=auto and race: differences below this many percent are not looked for.",
        2.0,
        above=0,
        unit="percent",
    )
    budget_min: float = of_sweep(
        "For rounds=auto and race: after the first 3 rounds (race: the first) no job is started that would end after "
        "this many minutes.",
        8.0,
        above=0,
        unit="minutes",
    )
    capture_budget_min: float = of_sweep(
        "No captures of a further cell are begun that would end after this many minutes of capturing; the baseline and "
        "the fastest cells come first.",
        10.0,
        above=0,
        unit="minutes",
    )
    where: Mapping[str, float] = of_sweep(
        "For rounds=race: a cell whose figures are past one of these limits can't win, as in where={p99_ms: 50, "
        "rel_l2: 0.02, memory_mb: 4000}.",
        {},
        keys=("p99_ms", "rel_l2", "memory_mb"),
    )
    reruns: int = of_sweep(
        "How often a job measures again what other processes disturbed, in the same process where that is possible; "
        "the last time counts, marked. A sweep stops it while it does not help, and where it takes too long.",
        2,
        least=0,
        unit="further measurements of what was disturbed",
    )
    retries: int = of_sweep(
        "Further attempts at a job that failed.", 0, least=0, unit="further attempts at a failed job"
    )
    timeout_s: float = of_sweep(
        "Seconds after which a job is stopped and its cell fails.", 1800.0, above=0, unit="seconds"
    )
    wait: int | bool = of_sweep(
        "While another sweep measures on this host: wait for it; a number: so many seconds at most; false, or "
        "--no-wait: refuse to start.",
        True,
        least=0,
        unit="seconds",
    )
    dry_run: int | bool = of_sweep(
        "Show what would run, what is excluded and how long it would take, and run nothing; a number shows how the job "
        "of that cell would be started. --dry-run and --dry-run=N are the same.",
        False,
        least=1,
        unit="the number of a cell",
    )
    wide: bool = of_sweep(
        "Show every column of the ranking in the terminal, however wide; true, or --wide. Without it the table fits.",
        False,
    )
    try_models: bool = of_sweep(
        "Before the sweep, build each model and call it once in a process of its own, and refuse those that can't be "
        "measured; a model that has passed on this host is not tried again.",
        True,
    )
    resume: bool = of_sweep("Go on with the newest sweep of the same command line; see also: resume --help.", False)
    baseline: Mapping[str, Any] = of_sweep(
        "The axes of the cell that speed-ups refer to, like {allocator: ptmalloc}; empty: the first cell.", {}
    )
    shard: str | None = of_sweep(
        "Which part of the matrix is measured, as in shard=2/5, the second of five; the baseline is in every part.",
        None,
    )
    usd_per_hour: float | None = of_sweep(
        "What this host costs in USD per hour, for the cost of a million samples; fleet fills it in.",
        None,
        above=0,
        unit="USD per hour",
    )
    mlruns: str = of_sweep("The folder of all results: mlflow.db, artifacts/ and sweeps/.", "mlruns")
    tracking_uri: str | None = of_sweep(
        "The http:// address of an MLflow server to record in instead of mlflow.db.", None
    )


# More parts than this are no help: the baseline is measured in each.
MOST_SHARDS = 1000


def parse_shard(text: str) -> tuple[int, int]:
    """Which part, counted from 1, of how many.

    Raises:
        RunnerError: the text is not of the form ``2/5``, or names no part.
    """
    match = re.fullmatch(r"([1-9]\d{0,3})/([1-9]\d{0,3})", text, re.ASCII)
    part, parts = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part <= parts <= MOST_SHARDS:
        raise RunnerError(f"shard={text}: it must be like 2/5, one of at most {MOST_SHARDS} parts, counted from 1")
    return part, parts
