"""The terminal: its console, and a line before and after each job (never while one measures)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from runner.analysis.cause import count
from runner.config import names
from runner.protocol.verdicts import Status
from runner.results.metric_names import Metric
from runner.results.outcome import Outcome


class _Plain(Console):
    """A console whose texts can't move its cursor, change its title or reverse its lines, wherever they are from."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(names.visible(text), **options)


# Columns of text that no table of ours needs.
_WIDEST = 10_000


def make_console() -> Console:
    """The console on standard output.

    A terminal gets colours and lines that end with a word, and may be drawn on again. Everything else gets plain text
    whose lines are not broken: a file, a pipe, continuous integration (``CI``), and whoever set ``NO_COLOR``.
    """
    # Both count if they have any value: see https://no-color.org.
    is_plain = any(os.environ.get(name) for name in ("NO_COLOR", "CI"))
    console = _Plain(highlight=False, force_terminal=False if is_plain else None)
    console.soft_wrap = not console.is_terminal or console.is_dumb_terminal
    return console


def print_whole(console: Console, table: Table) -> None:
    """Print a table as wide as it is: a narrower terminal wraps its lines, and nothing is cut off."""
    table.width = Measurement.get(console, console.options.update(width=_WIDEST), table).maximum
    console.print(table, soft_wrap=False, crop=False)


def label(axes: Mapping[str, str], distinguishing: Sequence[str]) -> str:
    """A cell in words: its distinguishing axes with their values."""
    return "  ".join(f"{axis}={axes[axis]}" for axis in distinguishing)


def duration(seconds: float) -> str:
    """A duration in words, like ``45 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def plural(number: int, word: str) -> str:
    """A number with its noun, like ``1 job`` or ``4 jobs``."""
    return f"{number} {word}" + ("" if number == 1 else "s")


def exclusions(excluded: Sequence[tuple[Mapping[str, str], str]], distinguishing: Sequence[str]) -> list[str]:
    """One line per reason, with the cell that it excludes or their number; plan.json has all of them."""
    cells: dict[str, list[Mapping[str, str]]] = {}
    for axes, reason in excluded:
        cells.setdefault(reason, []).append(axes)
    return [
        f"{plural(len(labels), 'cell')}: {reason}" if labels[1:] else f"{label(labels[0], distinguishing)}: {reason}"
        for reason, labels in cells.items()
    ]


class Progress:
    """Prints lines between jobs, and nothing while one runs: it has no thread and no timer."""

    def __init__(self, console: Console, rounds: int | str, distinguishing: Sequence[str], timeout_s: float) -> None:
        self._console, self._rounds, self._distinguishing, self._timeout_s = console, rounds, distinguishing, timeout_s
        self.done = self._jobs = 0
        self._start = time.monotonic()
        self._began = self._start

    def add(self, stage: Sequence[tuple[int, object]]) -> None:
        """Announce the jobs of a stage, (round, cell) each; for any but the first, print why it is run."""
        if self._jobs:
            cells = plural(len({id(cell) for _, cell in stage}), "cell")
            first, last = min(number for number, _ in stage) + 1, max(number for number, _ in stage) + 1
            which = f"round {first}" if first == last else f"rounds {first} to {last}"
            self._console.print(f"[bold]undecided[/bold]: {which} for {cells}")
        self._jobs += len(stage)

    def out_of_budget(self, minutes: float) -> None:
        """Say why no more jobs are started."""
        self._console.print(
            f"[yellow]budget_min={minutes:g}[/yellow]: the next job would end after it; "
            f"{plural(self._jobs - self.done, 'planned job')} left out"
        )

    def begin(self, number: int, axes: Mapping[str, str]) -> None:
        """Say what starts now, and when it will be stopped at the latest."""
        self._began = time.monotonic()
        since = time.strftime("%H:%M:%S")
        of = f" of {self._rounds}" if isinstance(self._rounds, int) else ""
        which = f"round {number + 1}{of}, " if self._rounds != 1 else ""
        self._console.print(
            f"[dim]\\[{self.done + 1}/{self._jobs}][/dim] {escape(label(axes, self._distinguishing))}"
            f"  [dim]{which}since {since}, at most {duration(self._timeout_s)}[/dim]"
        )

    def end(self, outcome: Outcome, figures: Mapping[str, float]) -> float:
        """Say how it went, and how long the rest will take; returns the seconds that it took."""
        self.done += 1
        elapsed = time.monotonic() - self._start
        remaining = self._jobs - self.done
        rest = f", about {duration(elapsed / self.done * remaining)} left" if remaining else ""
        took_s = time.monotonic() - self._began
        took = f"[dim]{duration(took_s)}{rest}[/dim]"
        indent = " " * (len(f"[{self.done}/{self._jobs}]") + 1)
        if outcome.status == Status.FINISHED:
            p50 = figures.get(Metric.P50)
            faults = figures.get(Metric.MINOR_FAULTS)
            measured = f"p50 {p50:.4g} ms" if p50 is not None else "not measured"
            if faults is not None:
                measured += f", {count(faults)} faults/iteration"
            if outcome.contamination:
                measured += f", [red]contaminated[/red] ({escape('; '.join(outcome.contamination))})"
            if outcome.attempts > 1:
                measured += f", attempt {outcome.attempts}"
            self._console.print(f"{indent}[green]{escape(outcome.evidence)}[/green] {measured}  {took}")
        else:
            self._console.print(f"{indent}[red]{outcome.status}[/red] {escape(outcome.failure or '')}  {took}")
        return took_s
