"""What will run and what won't, before the first job: printed for people, plan.json for programs."""

from __future__ import annotations

import os

from rich.console import Console
from rich.markup import escape

from runner.capture import probe
from runner.config.sweep_options import RACE
from runner.protocol.stored import write_json
from runner.report import terminal
from runner.results.planfile import PLAN_FILE
from runner.sweep.planning import SweepPlan, rule_in_words
from runner.sweep.rounds import LOOKS, stages


def announce(plan: SweepPlan, cpu_model: str, cores: str, console: Console) -> None:
    """Print the size of the sweep and everything that the user asked for and won't get."""
    say, matrix = console.print, plan.matrix
    say(
        f"[bold]{_size(plan)}[/bold] on {cpu_model}, cores {cores}, order seed {plan.settings.cell.seed}  "
        f"[dim]sweep {plan.request.sweep_id}[/dim]"
    )
    for line in terminal.exclusions(matrix.excluded, plan.distinguishing):
        say(f"  [yellow]excluded[/yellow] {escape(line)}")
    for note in (*plan.request.notes, *matrix.notes):
        say(f"  [yellow]note[/yellow] {escape(note)}")
    for rule in matrix.idle_rules:
        say(f"  [yellow]note[/yellow] the rule {escape(rule_in_words(rule))} excludes no cell of this matrix")
    for capture, reason in probe.unavailable(plan.settings.capture).items():
        say(f"  [yellow]not recorded here[/yellow] {capture}: {escape(reason)}. All else works")
    for planned, reason in matrix.refused:
        label = terminal.label(planned.cell.labels, plan.distinguishing)
        say(f"  [red]FAILED[/red] {escape(label)}: {escape(reason)}")


def _size(plan: SweepPlan) -> str:
    """The size of a sweep, such as "4 cells x 5 rounds = 20 jobs", or what is certain of it with rounds=auto."""
    cells, rounds = len(plan.matrix.runnable), plan.settings.rounds
    captures = ", then captures" if plan.settings.capture.names else ""
    if isinstance(rounds, int):
        jobs = terminal.plural(cells * rounds, "job")
        return f"{terminal.plural(cells, 'cell')} x {terminal.plural(rounds, 'round')} = {jobs}{captures}"
    most = terminal.duration(60 * plan.settings.budget_min)
    if rounds == RACE:
        return (
            f"{terminal.plural(cells, 'cell')} x 1 round, then more within {most} for those that can still be the best"
            + captures
        )
    more = f"up to {LOOKS[-1]} within {most} for those that can't be told apart" if cells > 1 else ""
    return ", then ".join(filter(None, (f"{terminal.plural(cells, 'cell')} x {LOOKS[0]} rounds", more))) + captures


def write_plan(plan: SweepPlan) -> None:
    """Write plan.json, which becomes an artifact of the parent run."""
    matrix, settings = plan.matrix, plan.settings
    # The order of each round follows from the seed; rounds=auto runs only some of the cells in later rounds.
    order = next(stages(matrix.runnable, settings.rounds, settings.cell.seed, list))
    write_json(
        plan.request.directory / PLAN_FILE,
        {
            "sweep_id": plan.request.sweep_id,
            "seed": settings.cell.seed,
            "rounds": settings.rounds,
            "level": plan.level,
            "usd_per_hour": settings.usd_per_hour,
            "cells": [
                {"cell_id": planned.cell_id, "axes": planned.cell.axes, "command": planned.command}
                for planned in matrix.runnable
            ],
            "order": [{"round": number, "cell_id": planned.cell_id} for number, planned in order],
            "notes": [*plan.request.notes, *matrix.notes],
            "excluded": [{"axes": dict(axes), "reason": reason} for axes, reason in matrix.excluded],
            "refused": [{"axes": planned.cell.axes, "reason": reason} for planned, reason in matrix.refused],
            "pid": os.getpid(),
        },
    )
