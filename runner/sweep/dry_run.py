"""``--dry-run``: what a sweep would run, how long it would take and how one of its jobs would be started.

Nothing is launched and nothing is written, not even the sweep's folder.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from runner import launch
from runner.capture import probe
from runner.config.schema import Config
from runner.job import passes
from runner.launch import environment
from runner.machine import host
from runner.protocol.errors import RunnerError
from runner.report import terminal
from runner.results import costs
from runner.results.outcome import job_folder
from runner.sweep.announcement import announce
from runner.sweep.planning import PlannedCell, SweepPlan
from runner.sweep.rounds import LOOKS

# So many cells are listed; plan.json of the sweep will have all of them.
_MOST_LISTED = 200


def show(plan: SweepPlan, console: Console) -> None:
    """Print the plan, or the job of the cell whose number ``dry_run`` gives.

    Raises:
        RunnerError: there is no cell of that number, or it can't be placed on this machine.
    """
    wanted = plan.settings.dry_run
    if not isinstance(wanted, bool):
        _show_job(plan, wanted, console)
        return
    fingerprint = host.fingerprint()
    announce(plan, fingerprint["cpu_model"], fingerprint["cpus_allowed"], console)
    for number, planned in enumerate(plan.matrix.runnable[:_MOST_LISTED], 1):
        mark = "  (baseline)" if planned is plan.baseline else ""
        console.print(f"{number:4}  {terminal.label(planned.cell.labels, plan.distinguishing)}{mark}", markup=False)
    left_out = len(plan.matrix.runnable) - _MOST_LISTED
    if left_out > 0:
        console.print(f"      and {terminal.plural(left_out, 'further cell')}, which are not listed")
    known = costs.past_costs(Path(plan.settings.mlruns), str(fingerprint["host_id"]))
    console.print(f"time  {_time(plan, known)}", markup=False)
    console.print(
        "      nothing was launched or written; --dry-run=N shows how the job of cell N would be started", markup=False
    )


def _time(plan: SweepPlan, known: costs.PastCosts) -> str:
    """How long the sweep will take, in words."""
    cells, rounds = plan.matrix.runnable, plan.settings.rounds
    round_s, measured, unknown = costs.expected_s(known, [planned.cell.labels for planned in cells])
    if not round_s:
        return "not known: no sweep in this store measured the same model and batch size on this host"
    if isinstance(rounds, int):
        text = f"about {terminal.duration(rounds * round_s)}"
    else:
        least_s, most_s = LOOKS[0] * round_s, 60 * plan.settings.budget_min
        text = f"{terminal.duration(least_s)} for {LOOKS[0]} rounds, at most {terminal.duration(max(most_s, least_s))}"
    sources = [
        f"{terminal.plural(count, 'cell')} {what}"
        for count, what in (
            (measured, "measured before on this host"),
            (len(cells) - measured - unknown, "judged by others of the same model and batch size"),
            (unknown, "of which nothing is known, judged by the longest of the others"),
        )
        if count
    ]
    return f"{text} ({'; '.join(sources)}); captures and repeated passes come on top"


def _show_job(plan: SweepPlan, number: int, console: Console) -> None:
    cells = plan.matrix.runnable
    if number > len(cells):
        raise RunnerError(f"dry_run={number}: the matrix has {terminal.plural(len(cells), 'cell')}; choose one of them")
    planned = cells[number - 1]
    console.print(f"cell {number}: {terminal.label(planned.cell.labels, plan.distinguishing)}", markup=False)
    for name, value in _job(planned, plan.request.directory):
        console.print(f"{name:12}  {value}", markup=False)


def _job(planned: PlannedCell, directory: Path) -> Iterator[tuple[str, str]]:
    """(name, value) of everything that starts the first job of a cell."""
    config: Config = planned.config
    placed = passes.place_here(planned.cell)
    folder = job_folder(directory, planned.cell_id, 0)
    yield "alone", planned.command
    if planned.cell.scenario.is_served:
        yield (
            "command",
            "the server's own, with ports and files that are made when it starts: see the job's launch.json",
        )
        return
    spec = passes.spec_of(placed, config, folder / "result.json", config.capture)
    collector = None if spec.captures.itt is None else probe.collector()
    # The real folder has a name of its own in each job.
    private = Path("/tmp/runner-XXXXXXXX")  # noqa: S108 - a name to print
    marker = f"PROCESS/SWEEP/{planned.cell_id}/0"
    command = launch.command(placed, folder / "job.json", private, os.environ, marker, collector)
    yield "command", shlex.join(command.argv)
    for name, value in environment.tuning_variables(command.env).items():
        yield "environment", f"{name}={value}"
    for name in command.scrubbed:
        yield "left out", f"{name} of your environment, which would change the cell"
    for link, file in command.links.items():
        yield "link", f"{link} -> {file}"
    place = placed.placement
    yield "place", f"cores {place.core_list}, {terminal.plural(place.threads, 'thread')}, node {place.node}"
