"""What jobs took before, on this host: how long a sweep will take, judged by the sweeps in the same store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from statistics import median

from runner.protocol.cell import ENTRIES, WORK
from runner.protocol.declaration import as_text
from runner.protocol.errors import RunnerError
from runner.results import cells
from runner.results.sweeps import CELLS_FILE

# Of each cell, the wall time of one job.
METRIC = "cost/job_s"
# Older sweeps than these say little about the code of today.
_NEWEST = 50
# What decides, besides the machine, how long a job takes.
_DECIDING = (*WORK, *(key for key, entry in ENTRIES.items() if entry.declaration.is_measuring), "warmup")


@dataclass(frozen=True)
class PastCosts:
    """The wall times of earlier jobs of one host, in seconds."""

    of_cells: Mapping[tuple[str, ...], float]
    """Values of all axes and settings -> what a job of it took the last time."""
    of_work: Mapping[tuple[str, ...], float]
    """Values of what decides how long a job takes -> the median over all cells that had them."""

    def job_s(self, labels: Mapping[str, str]) -> tuple[float, bool] | None:
        """(seconds of one job, whether the very cell was measured); None if nothing like it was."""
        own = self.of_cells.get(_exactly(labels))
        if own is not None:
            return own, True
        alike = self.of_work.get(_decisive(labels))
        return None if alike is None else (alike, False)


def past_costs(mlruns: Path, host_id: str) -> PastCosts:
    """The costs in the newest sweeps of a store that were measured on this host; files that can't be read are left
    out."""
    of_cells: dict[tuple[str, ...], float] = {}
    of_work: dict[tuple[str, ...], list[float]] = {}
    folders = sorted((file.parent for file in (mlruns / "sweeps").glob(f"*/{CELLS_FILE}")), reverse=True)
    for folder in folders[:_NEWEST]:
        try:
            found = cells.read([folder], [METRIC])
        except (RunnerError, OSError):
            continue
        if found.origins[0].host_id != host_id:
            continue
        for row in found.rows:
            seconds = row.metrics.get(METRIC)
            if seconds is not None and not row.failure:
                labels = {**row.axes, **row.settings}
                of_cells.setdefault(_exactly(labels), seconds)
                of_work.setdefault(_decisive(labels), []).append(seconds)
    return PastCosts(of_cells, {key: median(some) for key, some in of_work.items()})


def expected_s(costs: PastCosts, cells_to_run: Sequence[Mapping[str, str]]) -> tuple[float, int, int]:
    """(seconds of one job of each cell, cells that were measured before, cells of which nothing is known).

    A cell of which nothing is known is expected to take as long as the longest of the others.
    """
    known = [costs.job_s(labels) for labels in cells_to_run]
    seconds = [cost[0] for cost in known if cost is not None]
    unknown = len(known) - len(seconds)
    return (
        sum(seconds) + unknown * max(seconds, default=0.0),
        sum(cost is not None and cost[1] for cost in known),
        unknown,
    )


# Key -> the text of its default, which an older sweep had although it did not say so.
_DEFAULTS = {
    key: "" if entry.default is MISSING else as_text(entry.default, entry.declaration, entry.hint)
    for key, entry in ENTRIES.items()
}


def _exactly(labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(labels.get(key, default) for key, default in _DEFAULTS.items())


def _decisive(labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(labels.get(key, _DEFAULTS[key]) for key in _DECIDING)
